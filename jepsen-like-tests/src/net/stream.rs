//! The ends of a simulated connection: streams and listeners as the node and the SDK use them.
//!
//! **Owns** waiting. **Must never** decide when something arrives. **Read next**: [`super::wire`].

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use ledger_raft::seam::{BoxIo, NetListener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Network;
use super::wire::{Cargo, Conn, WINDOW_BYTES};

/// One end of a connection.
pub(super) struct Stream {
    net: Network,
    id: u64,
    side: usize,
}

impl Stream {
    pub(super) fn new(net: Network, id: u64, side: usize) -> Self {
        Self { net, id, side }
    }

    /// Completes when the other side has answered.
    pub(super) async fn established(&self) -> io::Result<()> {
        poll_fn(|cx| {
            self.with(|conn, side| {
                let end = &mut conn.ends[side];
                match end.broken {
                    Some(why) => Poll::Ready(Err(why.into())),
                    None if end.established => Poll::Ready(Ok(())),
                    None => {
                        end.reader = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }

    fn with<T>(&self, f: impl FnOnce(&mut Conn, usize) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.net.lock().conn(self.id) {
            Some(conn) => f(conn, self.side),
            None => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = |conn: &mut Conn, side: usize| {
            let end = &mut conn.ends[side];
            if let Some(first) = end.arrived.front_mut() {
                let n = first.len().min(buf.remaining());
                buf.put_slice(&first[..n]);
                first.advance(n);
                if first.is_empty() {
                    end.arrived.pop_front();
                }
                conn.lanes[1 - side].unread -= n;
                conn.ends[1 - side].writer.take().into_iter().for_each(std::task::Waker::wake);
                return Poll::Ready(Ok(()));
            }
            match (end.broken, end.eof) {
                (Some(why), _) => Poll::Ready(Err(why.into())),
                (None, true) => Poll::Ready(Ok(())),
                (None, false) => {
                    end.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        };
        self.with(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.net.lock();
        let Some(conn) = wire.conn(self.id) else { return Poll::Ready(Err(ErrorKind::ConnectionReset.into())) };
        let room = WINDOW_BYTES.saturating_sub(conn.lanes[self.side].unread);
        let end = &mut conn.ends[self.side];
        if let Some(why) = end.broken {
            return Poll::Ready(Err(why.into()));
        }
        if end.sent_fin {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if room == 0 {
            end.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(room);
        let first = wire.cut_at(n);
        for part in [&buf[..first], &buf[first..n]].into_iter().filter(|part| !part.is_empty()) {
            wire.send(self.id, self.side, Cargo::Bytes(Bytes::copy_from_slice(part)));
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.net.lock();
        let Some(conn) = wire.conn(self.id) else { return Poll::Ready(Ok(())) };
        let end = &mut conn.ends[self.side];
        if !end.sent_fin && end.broken.is_none() {
            end.sent_fin = true;
            wire.send(self.id, self.side, Cargo::Fin);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.net.lock().close(self.id, self.side);
    }
}

/// A port that is listened on.
pub(super) struct Listener {
    pub(super) net: Network,
    pub(super) host: usize,
    pub(super) port: u16,
}

#[async_trait]
impl NetListener for Listener {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        let id = poll_fn(|cx| {
            let mut wire = self.net.lock();
            let Some(listening) = wire.listening(self.host, self.port) else {
                return Poll::Ready(Err(io::Error::from(ErrorKind::NotConnected)));
            };
            match listening.waiting.pop_front() {
                Some(id) => Poll::Ready(Ok(id)),
                None => {
                    listening.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        let from = self.net.lock().conn(id).map(|conn| conn.ends[0].addr);
        let from = from.ok_or_else(|| io::Error::from(ErrorKind::ConnectionAborted))?;
        Ok((Box::new(Stream::new(self.net.clone(), id, 1)), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(super::wire::Wire::address_of(self.host, self.port))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.net.lock().stop_listening(self.host, self.port);
    }
}
