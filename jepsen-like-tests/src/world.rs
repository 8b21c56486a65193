//! The simulated world of one run: clocks, chance and disks of each node.
//!
//! **Owns** the seams that are not the network. **Must never** ask the real world. **Read next**: [`crate::sim`].

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use ledger_node::NodeSeams;
use ledger_node::history::{HistoryFactory, MemoryHistory};
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::{Random, Seams, WallClock};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::net::SimNet;

/// Simulated time begins here: 2026-01-01T00:00:00Z in Unix milliseconds.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// A node's wall clock: simulated time plus what the faults made of it.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    offset_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// The clock jumps.
    pub fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl WallClock for SimClock {
    fn now_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        (EPOCH_MS + elapsed).saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}

/// Chance out of a seed.
pub struct SimRandom(Mutex<SmallRng>);

impl SimRandom {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().expect("never poisoned: one thread").next_u64()
    }
}

/// What of a node outlives its process.
#[derive(Clone)]
pub struct NodeWorld {
    /// Its host name.
    pub name: String,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: SimClock,
    random: Arc<SimRandom>,
    history: Arc<dyn HistoryFactory>,
}

impl NodeWorld {
    /// Node number `n` (from 0) of a run.
    pub fn new(seed: u64, n: usize) -> Self {
        let of_node = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64 + 1);
        Self {
            name: format!("n{}", n + 1),
            disk: SimDisk::new(of_node),
            clock: SimClock::default(),
            random: Arc::new(SimRandom::new(of_node)),
            history: Arc::new(MemoryHistory::default()),
        }
    }

    /// The seams to serve with.
    pub fn seams(&self) -> NodeSeams {
        let raft = Seams {
            net: Arc::new(SimNet),
            clock: Arc::new(self.clock.clone()),
            random: self.random.clone(),
            disk: Arc::new(self.disk.clone()),
        };
        NodeSeams::new(raft, self.history.clone())
    }
}
