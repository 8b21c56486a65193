//! Counting: latencies of the measured seconds, and what they cost in CPU, syncs and entries.
//!
//! **Owns** the clock of a run. **Must never** count what ended outside the measured seconds. **Read next**: [`super::report`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::limits;
use crate::link::ClusterLink;
use crate::shop::cpu_ms;

/// What has been counted.
pub(crate) struct Counts {
    /// Microseconds an operation.
    pub(crate) latency: Histogram<u64>,
    /// Operations answered Ok.
    pub(crate) ok: u64,
    /// Answered otherwise, by the first words.
    pub(crate) other: u64,
    /// One of those.
    pub(crate) example: Option<String>,
}

/// One run's meter.
pub(crate) struct Meter {
    from: Instant,
    until: Instant,
    counts: Mutex<Counts>,
}

impl Meter {
    pub(crate) fn new(warmup: u64, seconds: u64) -> Self {
        let from = Instant::now() + Duration::from_secs(warmup);
        let latency = Histogram::new_with_bounds(1, limits::LATENCY_US_MAX, 3).expect("constant bounds are valid");
        let counts = Counts { latency, ok: 0, other: 0, example: None };
        Self { from, until: from + Duration::from_secs(seconds), counts: Mutex::new(counts) }
    }
    /// Whether the run is over.
    pub(crate) fn over(&self) -> bool {
        Instant::now() >= self.until
    }
    /// When it is over.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
    /// Seconds measured.
    pub(crate) fn seconds(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }
    /// `n` operations that began then were answered now.
    pub(crate) fn record(&self, began: Instant, ok: u64, other: u64, example: impl FnOnce() -> String) {
        let now = Instant::now();
        if now < self.from || now >= self.until {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = ((now - began).as_micros() as u64).clamp(1, limits::LATENCY_US_MAX);
        counts.latency.saturating_record_n(micros, ok + other);
        counts.ok += ok;
        counts.other += other;
        if other > 0 && counts.example.is_none() {
            counts.example = Some(example());
        }
    }
    pub(crate) fn counts<T>(&self, read: impl FnOnce(&Counts) -> T) -> T {
        read(&self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One node's cost over the measured seconds.
#[derive(Debug, Clone, serde::Serialize)]
pub struct NodeCost {
    /// The node.
    pub node: u64,
    /// Shards it led at the end.
    pub leads: usize,
    /// CPU milliseconds.
    pub cpu_ms: u64,
    /// Syncs of its log.
    pub syncs: u64,
    /// Entries committed in the shards it led.
    pub entries: u64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
}

/// What the measured seconds cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs {
    pub(crate) client_cpu_ms: u64,
    pub(crate) nodes: Vec<NodeCost>,
    /// CPU milliseconds of further processes, by name.
    pub(crate) processes: Vec<(String, u64)>,
}

fn own_cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec as u64) * 1_000 + (time.tv_nsec as u64) / 1_000_000
}

/// What each node answers of itself; none of one that does not, whose costs are then left out.
async fn look(link: &ClusterLink) -> Vec<Option<client_sdk::v1::NodeStatusResponse>> {
    let each = futures::future::join_all(link.nodes.iter().map(crate::link::NodeLink::status)).await;
    let answers = link.nodes.iter().zip(each).map(|(node, status)| {
        status.map_err(|e| eprintln!("  the costs of {} are left out: {}", node.address, crate::link::brief(&e))).ok()
    });
    answers.collect()
}

/// Reads the costs at both edges of the measured seconds; of `processes` by name and id, too.
pub(crate) async fn sample(meter: Arc<Meter>, link: ClusterLink, processes: Vec<(String, u32)>) -> Costs {
    let use_of = |processes: &[(String, u32)]| processes.iter().map(|(_, pid)| cpu_ms(*pid)).collect::<Vec<_>>();
    tokio::time::sleep_until(meter.from.into()).await;
    let (client_before, used_before, before) = (own_cpu_ms(), use_of(&processes), look(&link).await);
    tokio::time::sleep_until(meter.until.into()).await;
    let (client_after, used_after, after) = (own_cpu_ms(), use_of(&processes), look(&link).await);
    let nodes = before
        .iter()
        .zip(&after)
        .filter_map(|(b, a)| Some((b.as_ref()?, a.as_ref()?)))
        .map(|(b, a)| {
            let led: Vec<_> = a.shards.iter().filter(|s| s.role == "leader").collect();
            let was = |shard| b.shards.iter().find(|s| s.shard == shard).map_or(0, |s| s.committed_index);
            NodeCost {
                node: a.node,
                leads: led.len(),
                cpu_ms: a.cpu_ms.saturating_sub(b.cpu_ms),
                syncs: a.wal_syncs.saturating_sub(b.wal_syncs),
                entries: led.iter().map(|s| s.committed_index.saturating_sub(was(s.shard))).sum(),
                rss_bytes: a.rss_bytes,
            }
        })
        .collect();
    let used = used_after.iter().zip(used_before).map(|(after, before)| after.saturating_sub(before));
    let processes = processes.into_iter().map(|(name, _)| name).zip(used).collect();
    Costs { client_cpu_ms: client_after - client_before, nodes, processes }
}
