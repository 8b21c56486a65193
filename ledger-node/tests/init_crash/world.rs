//! A simulated world for a few nodes: turmoil's network, disks that lose power, time and chance that repeat themselves.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ledger_node::NodeSeams;
use ledger_node::history::{HistoryFactory, MemoryHistory};
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::{BoxIo, Net, NetListener, Random, Seams, WallClock};

/// Simulated time begins here, Unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;

struct SimNet;
struct SimListener(turmoil::net::TcpListener);
struct SimClock;

/// Numbers that only look like chance.
struct Numbers(AtomicU64);

#[async_trait]
impl Net for SimNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let addr: SocketAddr =
            addr.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{addr}: {e}")))?;
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(addr).await?)))
    }
    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        Ok(Box::new(turmoil::net::TcpStream::connect(addr).await?))
    }
}

#[async_trait]
impl NetListener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl WallClock for SimClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64
    }
}

impl Random for Numbers {
    fn next_u64(&self) -> u64 {
        let mut n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }
}

/// What of a node outlives its process.
#[derive(Clone)]
pub(crate) struct NodeWorld {
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    random: Arc<Numbers>,
    history: Arc<Mutex<Arc<dyn HistoryFactory>>>,
}

impl NodeWorld {
    /// Node number `n`, from 0.
    pub(crate) fn new(n: usize) -> Self {
        let seed = n as u64 + 1;
        Self {
            name: format!("n{}", n + 1),
            disk: SimDisk::new(seed),
            random: Arc::new(Numbers(AtomicU64::new(seed << 32))),
            history: Arc::new(Mutex::new(Arc::new(MemoryHistory::default()))),
        }
    }

    pub(crate) fn seams(&self) -> NodeSeams {
        let raft = Seams {
            net: Arc::new(SimNet),
            clock: Arc::new(SimClock),
            random: self.random.clone(),
            disk: Arc::new(self.disk.clone()),
        };
        NodeSeams::new(raft, self.history.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Nothing is left of what the node had. It is down.
    pub(crate) fn empty(&self) {
        self.disk.wipe();
        *self.history.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(MemoryHistory::default());
    }
}
