//! The faults of a run, drawn by its seed (swarm style: each run has its own mix), and their names.
//!
//! **Owns** the plan. **Must never** act: [`crate::sim`] carries it out. **Read next**: [`crate::sim`].

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// One thing that goes wrong, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies and the disk loses or tears what was not synced; it comes back after `ms`.
    Crash {
        /// Which node (from 0).
        node: usize,
        /// Down for so long.
        ms: u64,
    },
    /// All processes die at once.
    CrashAll {
        /// Down for so long.
        ms: u64,
    },
    /// Nothing passes between the node and its peers, nor between it and the clients if `clients`.
    Isolate {
        /// Which node.
        node: usize,
        /// Clients too.
        clients: bool,
        /// For so long.
        ms: u64,
    },
    /// Nothing passes from one node to another; the way back works.
    OneWay {
        /// From this node.
        from: usize,
        /// To this node.
        to: usize,
        /// For so long.
        ms: u64,
    },
    /// Messages between two nodes wait and then all arrive.
    Hold {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// For so long.
        ms: u64,
    },
    /// Every message may take up to `latency_ms`.
    SlowNet {
        /// Largest latency.
        latency_ms: u64,
        /// For so long.
        ms: u64,
    },
    /// Each sync of the node's disk takes `latency_ms`.
    SlowDisk {
        /// Which node.
        node: usize,
        /// Latency of a sync.
        latency_ms: u64,
        /// For so long.
        ms: u64,
    },
    /// The node's wall clock jumps.
    ClockJump {
        /// Which node.
        node: usize,
        /// By so much.
        by_ms: i64,
    },
}

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::CrashAll { .. } => "crash-all",
            Self::Isolate { .. } => "isolate",
            Self::OneWay { .. } => "one-way",
            Self::Hold { .. } => "hold",
            Self::SlowNet { .. } => "slow-net",
            Self::SlowDisk { .. } => "slow-disk",
            Self::ClockJump { .. } => "clock-jump",
        }
    }
}

/// A fault and when it strikes, in simulated milliseconds after the load began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// When.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// Draws the plan of a seed: each run allows a random subset of the kinds, so that some runs press hard on one.
pub fn plan(seed: u64, nodes: usize, for_ms: u64) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x00fa_0175);
    let kinds: Vec<u32> = (0..8).filter(|_| rng.random_bool(0.5)).collect();
    let mut plan = Vec::new();
    if kinds.is_empty() {
        return plan;
    }
    let mut at_ms = rng.random_range(200..1_500);
    while at_ms < for_ms {
        let kind = kinds[rng.random_range(0..kinds.len())];
        plan.push(Planned { at_ms, fault: draw(kind, nodes, &mut rng) });
        at_ms += rng.random_range(300..3_000);
    }
    plan
}

fn draw(kind: u32, nodes: usize, rng: &mut impl Rng) -> Fault {
    let node = rng.random_range(0..nodes);
    let other = (node + rng.random_range(1..nodes)) % nodes;
    let ms = rng.random_range(50..2_500);
    match kind {
        0 => Fault::Crash { node, ms },
        1 => Fault::CrashAll { ms: ms.min(800) },
        2 => Fault::Isolate { node, clients: rng.random_bool(0.5), ms },
        3 => Fault::OneWay { from: node, to: other, ms },
        4 => Fault::Hold { a: node, b: other, ms },
        5 => Fault::SlowNet { latency_ms: rng.random_range(5..200), ms },
        6 => Fault::SlowDisk { node, latency_ms: rng.random_range(5..400), ms },
        _ => Fault::ClockJump { node, by_ms: rng.random_range(-600_000..600_000) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_and_seeds_differ() {
        assert_eq!(plan(7, 3, 10_000), plan(7, 3, 10_000));
        let distinct: std::collections::BTreeSet<_> = (0..50).map(|s| plan(s, 3, 10_000)).collect();
        assert!(distinct.len() > 45, "{}", distinct.len());
    }

    #[test]
    fn every_kind_is_drawn_by_some_seed() {
        let names: std::collections::BTreeSet<_> =
            (0..200).flat_map(|s| plan(s, 3, 10_000)).map(|p| p.fault.name()).collect();
        assert_eq!(names.len(), 8, "{names:?}");
    }
}
