//! The simulated world of one run: clocks, chance, disk and history of each node.
//!
//! **Owns** the seams that are not the network. **Must never** ask the real world. **Read next**: [`crate::net`], [`crate::sim`].

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ledger_node::NodeSeams;
use ledger_node::history::MemoryHistory;
use ledger_node::node::Node;
use ledger_raft::disk::{SimDisk, SimDiskChange};
use ledger_raft::seam::{Random, Seams, WallClock};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::net::SimNet;
use crate::sim::trace::{Trace, hash};

/// Simulated time begins here: 2026-01-01T00:00:00Z in Unix milliseconds.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// Simulated time since the run began; zero outside of a run. The one clock of all clients.
pub fn elapsed() -> Duration {
    crate::sim::elapsed()
}

/// A node's wall clock: simulated time plus what the faults made of it.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<Mutex<Wrong>>);

#[derive(Debug, Default)]
struct Wrong {
    offset_us: i64,
    drift_ppm: i64,
    since: Duration,
}

impl Wrong {
    fn offset_at(&self, now: Duration) -> i64 {
        let ran = now.saturating_sub(self.since).as_micros() as i64;
        self.offset_us + ran / 1_000 * self.drift_ppm / 1_000
    }
}

impl SimClock {
    fn with<T>(&self, f: impl FnOnce(&mut Wrong) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The clock jumps.
    pub fn jump(&self, by_ms: i64) {
        self.with(|wrong| wrong.offset_us += by_ms * 1_000);
    }

    /// From now on the clock runs fast (or slow) by so many millionths.
    pub fn drift(&self, ppm: i64) {
        let now = elapsed();
        self.with(|wrong| {
            *wrong = Wrong { offset_us: wrong.offset_at(now), drift_ppm: ppm, since: now };
        });
    }

    /// Somebody sets it right.
    pub fn mend(&self) {
        self.with(|wrong| *wrong = Wrong::default());
    }
}

impl WallClock for SimClock {
    fn now_ms(&self) -> u64 {
        let now = elapsed();
        let true_ms = EPOCH_MS + now.as_millis() as u64;
        true_ms.saturating_add_signed(self.with(|wrong| wrong.offset_at(now)) / 1_000)
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
    net: SimNet,
    random: Arc<SimRandom>,
    history: MemoryHistory,
    running: Arc<Mutex<Option<Arc<Node>>>>,
    receiving: Receiving,
}

/// What a node's disk was at some moment.
pub struct OlderDisk {
    disk: SimDisk,
    history: MemoryHistory,
}

/// The group of the snapshot that last began to arrive.
type Receiving = Arc<Mutex<Option<u32>>>;

impl NodeWorld {
    /// Node number `n` (from 0) of a run.
    pub fn new(seed: u64, n: usize, net: SimNet, trace: &Trace) -> Self {
        let of_node = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64 + 1);
        let name = format!("n{}", n + 1);
        let disk = SimDisk::new(of_node);
        let (trace, host, receiving) = (trace.clone(), name.clone(), Receiving::default());
        let arrives = receiving.clone();
        disk.observe(Arc::new(move |change: SimDiskChange<'_>| {
            note(&trace, &host, &change);
            if let Some(group) = begins_to_arrive(&change) {
                *arrives.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
            }
        }));
        Self {
            name,
            disk,
            net,
            clock: SimClock::default(),
            random: Arc::new(SimRandom::new(of_node)),
            history: MemoryHistory::default(),
            running: Arc::default(),
            receiving,
        }
    }

    /// The group of the snapshot that began to arrive since this was last asked.
    pub fn take_receiving(&self) -> Option<u32> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The seams to serve with.
    pub fn seams(&self) -> NodeSeams {
        let raft = Seams {
            net: Arc::new(self.net.clone()),
            clock: Arc::new(self.clock.clone()),
            random: self.random.clone(),
            disk: Arc::new(self.disk.clone()),
        };
        NodeSeams::new(raft, Arc::new(self.history.clone()))
    }

    /// A copy of its disk and history as they are now.
    pub fn fork(&self) -> OlderDisk {
        OlderDisk { disk: self.disk.fork(), history: self.history.fork() }
    }

    /// Its disk is replaced by an empty one. The process must have ended.
    pub fn empty(&self) {
        self.disk.wipe();
        self.history.restore(&MemoryHistory::default());
    }

    /// Its disk and history are as they were then: at another place when they were `copied`, else
    /// where they were. The process must have ended.
    pub fn restore(&self, then: &OlderDisk, copied: bool) {
        self.disk.restore(&then.disk, copied);
        self.history.restore(&then.history);
    }

    /// The node inside, while its process runs; to choose a victim or to press a button, never to judge.
    pub fn running(&self) -> Option<Arc<Node>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process runs, or no longer does.
    pub fn set_running(&self, node: Option<Arc<Node>>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }
}

/// The file that a snapshot from a peer is written to is made anew each time.
fn begins_to_arrive(change: &SimDiskChange<'_>) -> Option<u32> {
    let SimDiskChange::Open { path, .. } = change else { return None };
    path.file_name()?.to_str()?.strip_prefix('g')?.strip_suffix("-recv.tmp")?.parse().ok()
}

fn note(trace: &Trace, host: &str, change: &SimDiskChange<'_>) {
    match change {
        SimDiskChange::Write { file, offset, bytes } => {
            trace.note(format_args!("disk {host} write {file} {offset}+{} {:016x}", bytes.len(), hash(bytes)));
        }
        SimDiskChange::Sync { file } => trace.note(format_args!("disk {host} sync {file}")),
        SimDiskChange::Len { file, len } => trace.note(format_args!("disk {host} len {file} {len}")),
        SimDiskChange::Open { path, file } => trace.note(format_args!("disk {host} create {} {file}", path.display())),
        SimDiskChange::Rename { from, to } => {
            trace.note(format_args!("disk {host} rename {} {}", from.display(), to.display()));
        }
        SimDiskChange::Remove { path } => trace.note(format_args!("disk {host} remove {}", path.display())),
        SimDiskChange::SyncDir { dir } => trace.note(format_args!("disk {host} sync-dir {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_and_drifts_and_is_mended() {
        let clock = SimClock::default();
        clock.jump(-250);
        assert_eq!(clock.now_ms(), EPOCH_MS - 250);
        clock.drift(50_000);
        let second = Duration::from_secs(1);
        assert_eq!(clock.with(|wrong| wrong.offset_at(second)), -250_000 + 50_000);
        clock.mend();
        assert_eq!(clock.now_ms(), EPOCH_MS);
    }
}
