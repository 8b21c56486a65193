//! A network between nodes that can be cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use ledger_raft::seam::{BoxIo, Net, NetListener};
use ledger_raft::seam_real::TcpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Cluster, PATIENCE};

/// What does not get through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cut {
    #[default]
    Nothing,
    /// All between this node and the others. Nothing is refused, nothing arrives.
    All,
    /// What this node sends to a peer's address on the lane of entries and snapshots.
    Bulk(String),
}

/// The real network of one node. Its clients are never cut off.
#[derive(Clone, Default)]
pub struct CutNet {
    cut: Arc<Mutex<(Cut, Vec<Waker>)>>,
    listeners: Arc<AtomicUsize>,
}

/// A node listens for gRPC, for HTTP, and then for peers.
const PEERS: usize = 2;
/// Where a hello names its lane, and the lane of entries.
const LANE_AT: usize = 10;
const BULK: u8 = 2;

impl CutNet {
    /// From now on this does not get through; what waits for a cut that is over goes on.
    pub fn cut(&self, what: Cut) {
        let waiting = {
            let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
            cut.0 = what;
            std::mem::take(&mut cut.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether that is what does not get through. Then the task is woken once something else is.
    fn is(&self, what: &Cut, cx: &Context<'_>) -> bool {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let is = cut.0 == *what;
        if is {
            cut.1.push(cx.waker().clone());
        }
        is
    }
}

#[async_trait]
impl Net for CutNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let listener = TcpNet.listen(addr).await?;
        let of_peers = self.listeners.fetch_add(1, Ordering::Relaxed) == PEERS;
        Ok(if of_peers { Box::new(Listener { listener, net: self.clone() }) } else { listener })
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        std::future::poll_fn(|cx| if self.is(&Cut::All, cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let io = TcpNet.connect(addr).await?;
        Ok(Box::new(Wire { io, net: self.clone(), to: Some(addr.to_owned()), lane: None }))
    }
}

struct Listener {
    listener: Box<dyn NetListener>,
    net: CutNet,
}

#[async_trait]
impl NetListener for Listener {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        let (io, from) = self.listener.accept().await?;
        Ok((Box::new(Wire { io, net: self.net.clone(), to: None, lane: None }), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Wire {
    io: BoxIo,
    net: CutNet,
    /// Of a connection that this node made.
    to: Option<String>,
    lane: Option<u8>,
}

impl Wire {
    fn is_cut(&self, cx: &Context<'_>) -> bool {
        let bulk = self.to.as_ref().filter(|_| self.lane == Some(BULK));
        self.net.is(&Cut::All, cx) || bulk.is_some_and(|to| self.net.is(&Cut::Bulk(to.clone()), cx))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.lane.is_none() {
            self.lane = bytes.get(LANE_AT).copied();
        }
        if self.is_cut(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Cluster {
    /// Where peers reach a node that runs.
    pub fn peer_addr(&self, i: usize) -> String {
        self.nodes[i].as_ref().expect("the node runs").peer_addr().to_string()
    }

    /// What `/readyz?verbose` of a node says, once it says this.
    pub async fn readiness(&self, i: usize, what: &str, says: impl Fn(u16, &str) -> bool) -> String {
        let mut last = String::new();
        let answer = tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = self.get(i, "/readyz?verbose").await;
                last = answer.text;
                if says(answer.status, &last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(answer.await.is_ok(), "node {}: not {what}: {last}", i + 1);
        last
    }

    pub async fn ready(&self, i: usize) {
        self.readiness(i, "ready", |status, _| status == 200).await;
    }
}
