//! How much is asked, and of what kinds.
//!
//! **Owns** [`Load`] and its drawing. **Must never** ask chance for anything that is not in the seed. **Read next**: [`super`].

use ledger_node::config::NodeConfig;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::history::About;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Everybody wants the one hot product.
    Herd,
    /// Many products and sales.
    Many,
    /// Several lines in one reservation.
    Carts,
    /// Many holds that end in one instant, and many that want the units then.
    Churn,
    /// Confirms at the last moment of a hold; rivals want the unit at the next.
    Brink,
    /// The same ids again, with the same and with other content.
    Retries,
    /// Old ids, fences, ids that were forgotten.
    Forget,
    /// Limits on several keys at once.
    Limits,
    /// Sold units come back.
    Returns,
    /// Adjustments, allotments, sales opened, closed and ended.
    Keeping,
    /// Deliveries under references that come again.
    Imports,
    /// Reads of every consistency, on every node.
    Reads,
    /// Raw bytes at and beyond every limit, and legal sequences that push counters to their bounds, on products of its own.
    Hostile,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Herd,
        Self::Many,
        Self::Carts,
        Self::Churn,
        Self::Brink,
        Self::Retries,
        Self::Forget,
        Self::Limits,
        Self::Returns,
        Self::Keeping,
        Self::Imports,
        Self::Reads,
        Self::Hostile,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Herd => "herd",
            Self::Many => "many",
            Self::Carts => "carts",
            Self::Churn => "churn",
            Self::Brink => "brink",
            Self::Retries => "retries",
            Self::Forget => "forget",
            Self::Limits => "limits",
            Self::Returns => "returns",
            Self::Keeping => "keeping",
            Self::Imports => "imports",
            Self::Reads => "reads",
            Self::Hostile => "hostile",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// How much is asked, and of what kinds; everything that a smaller failing run may have less of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Clients at once; they take the kinds in turn.
    pub clients: u32,
    /// How often each client does its kind.
    pub tries: u32,
    /// Plain products; the first is the hot one.
    pub products: usize,
    /// Units received per product.
    pub units: u64,
    /// Longest hold.
    pub hold_ms_max: u64,
    /// If it is not 0, clients go on until this moment of the run's clock, however often they did their kind.
    pub ends_ms: u64,
    /// If it is not 0, more of every product is delivered after each so many milliseconds, until the load ends.
    pub delivery_every_ms: u64,
    /// Deadline of each call.
    pub deadline_ms: u64,
    /// Longest pause of a client between two tries.
    pub pause_ms_max: u64,
    /// Feed consumers.
    pub watchers: u32,
    /// Limit of one key where there is one.
    pub per_key_max: u32,
    /// Cap on a shard's remembered ids; 0: the default.
    pub remembered_max: u64,
    /// Room at a shard's door; 0: the default.
    pub queue_calls: usize,
    /// Bytes of history that a node keeps; 0: the default.
    pub history_bytes_max: u64,
    kinds: u32,
}

impl Default for Load {
    /// A little of everything, and nothing tight.
    fn default() -> Self {
        Self {
            clients: 12,
            tries: 12,
            products: 3,
            units: 40,
            hold_ms_max: 2_000,
            ends_ms: 0,
            delivery_every_ms: 0,
            deadline_ms: 1_500,
            pause_ms_max: 150,
            watchers: 2,
            per_key_max: 3,
            remembered_max: 0,
            queue_calls: 0,
            history_bytes_max: 0,
            kinds: u32::MAX,
        }
    }
}

impl Load {
    /// What its clients do; never nothing.
    pub fn kinds(self) -> Vec<Kind> {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|k| self.does(*k)).collect();
        if kinds.is_empty() { vec![Kind::Herd] } else { kinds }
    }
    /// Whether some client does it.
    pub fn does(self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }
    /// The same load without one kind.
    pub fn without(self, kind: Kind) -> Self {
        Self { kinds: self.kinds & !kind.bit(), ..self }
    }
    /// The same load of these kinds only.
    pub fn of(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.iter().fold(0, |all, k| all | k.bit()), ..self }
    }
}

/// How many of the runs that may have hostile clients do.
const HOSTILE_SHARE: f64 = 0.35;

/// Draws a seed's load: each run allows a random subset of the kinds, so that some runs press hard on one.
pub fn draw(seed: u64) -> Load {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x10ad_10ad);
    let often = [0.15, 0.35, 0.7][rng.random_range(0..3)];
    let ordinary = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Hostile);
    let mut kinds: Vec<Kind> = ordinary.filter(|_| rng.random_bool(often)).collect();
    let forgetful = kinds.contains(&Kind::Forget);
    let load = Load {
        clients: rng.random_range(4..=16),
        tries: rng.random_range(6..=24),
        products: rng.random_range(1..=6),
        units: [5, 15, 40, 200][rng.random_range(0..4)],
        hold_ms_max: [200, 800, 2_000, 5_000][rng.random_range(0..4)],
        ends_ms: 0,
        delivery_every_ms: 0,
        deadline_ms: [150, 600, 1_500, 3_000][rng.random_range(0..4)],
        pause_ms_max: [20, 150, 600][rng.random_range(0..3)],
        watchers: rng.random_range(0..=3),
        per_key_max: rng.random_range(1..=4),
        remembered_max: if forgetful || rng.random_bool(0.1) { rng.random_range(4..60) } else { 0 },
        queue_calls: if rng.random_bool(0.15) { rng.random_range(1..8) } else { 0 },
        history_bytes_max: if rng.random_bool(0.1) { rng.random_range(1_000..20_000) } else { 0 },
        kinds: 0,
    };
    // Which ids a tight cap presses out could not be foretold if others than the journal's clients used some.
    if load.remembered_max == 0 && rng.random_bool(HOSTILE_SHARE) {
        kinds.push(Kind::Hostile);
    }
    load.of(&kinds)
}

/// A load for a run in which faults strike for `faults_ms`: the same kinds, seldomer, as long as that lasts; holds live longer, and what was sold
/// out is delivered again.
pub fn stretched(load: Load, faults_ms: u64) -> Load {
    Load {
        ends_ms: faults_ms,
        delivery_every_ms: 20_000,
        pause_ms_max: (load.pause_ms_max * 100).clamp(3_000, 8_000),
        hold_ms_max: load.hold_ms_max * 10,
        watchers: load.watchers.min(1),
        ..load
    }
}

/// A load that goes on until this moment of the run's clock at a lower rate, with deliveries often enough
/// that stock is left: reserves are acknowledged before, during and after a loss that takes its time.
pub fn lasting(load: Load, ends_ms: u64) -> Load {
    Load { ends_ms, delivery_every_ms: 1_000, pause_ms_max: load.pause_ms_max.max(500), ..load }
}

/// The longest hold that any client of the load can get.
pub fn longest_hold_ms(load: Load) -> u64 {
    load.hold_ms_max.max(1_000) * 2
}

/// How far ledger time may lie from true time while most clocks are right: what a leader's anchor may be off its quorum's median, what the
/// anchor and elapsed time may grow apart before it stamps nothing, and half the longest round trip of a reading.
pub const CLOCK_BOUND_MS: u64 = 750;

/// What the checkers must know of a run of this load.
pub fn about(seed: u64, load: Load) -> About {
    About {
        seed,
        remembered_max: (load.remembered_max > 0).then_some(load.remembered_max),
        history_cut: load.history_bytes_max > 0,
        ..About::default()
    }
}

/// What of a load is the nodes' configuration.
pub fn tune(load: Load, config: &mut NodeConfig) {
    if load.queue_calls > 0 {
        config.queue_calls = load.queue_calls;
    }
    if load.remembered_max > 0 {
        config.remembered_min = 1;
    }
    if load.history_bytes_max > 0 {
        config.history_bytes_max = load.history_bytes_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_load_and_every_kind_is_drawn_by_some_seed() {
        assert_eq!(draw(7), draw(7));
        for kind in Kind::ALL {
            assert!((0..100).any(|seed| draw(seed).does(kind)), "{}", kind.name());
            assert!((0..100).any(|seed| !draw(seed).does(kind)), "{}", kind.name());
        }
    }

    #[test]
    fn a_load_without_kinds_still_asks() {
        assert_eq!(Load::default().of(&[]).kinds(), [Kind::Herd]);
        assert!(!Load::default().without(Kind::Churn).does(Kind::Churn));
    }
}
