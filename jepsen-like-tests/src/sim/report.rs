//! What to run, and what a run gave; both can be written down and read again.
//!
//! **Owns** the two types. **Must never** lose a part on the way through text, or a run could not be repeated.
//! **Read next**: [`super::apart`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkers::Violation;
use crate::faults::{self, Planned};
use crate::history::Run;
use crate::sometimes::Counts;
use crate::workload::{self, Load};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// What the clients ask.
    pub load: Load,
    /// How long faults strike, simulated milliseconds.
    pub faults_ms: u64,
    /// How many times the usual it lasts; such a run has longer faults, longer holds, a thinner load that never ends before the faults do, and a
    /// coarser tick.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub stretch: u64,
    /// The faults, instead of those that the seed draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<Planned>>,
    /// Whether the report has the lines of the trace, not only their digest.
    #[serde(default)]
    pub keep_trace: bool,
    /// The wrong thing to switch on, in a known-bad build; none is empty.
    #[serde(default)]
    pub known_bad: String,
}

/// How long faults strike in the usual run, simulated milliseconds.
const FAULTS_MS: u64 = 8_000;

fn once() -> u64 {
    1
}

fn is_once(times: &u64) -> bool {
    *times == once()
}

impl Setting {
    /// The usual run of a seed: one in eight has five nodes.
    pub fn of(seed: u64) -> Self {
        let (nodes, load) = (if seed % 8 == 5 { 5 } else { 3 }, workload::draw(seed));
        let load = match faults::plan::has_loss(seed, nodes, FAULTS_MS) {
            true => workload::load::lasting(load, FAULTS_MS),
            false => load,
        };
        Self {
            seed,
            nodes,
            load,
            faults_ms: FAULTS_MS,
            stretch: once(),
            faults: None,
            keep_trace: false,
            known_bad: String::new(),
        }
    }

    /// The run of a seed in which faults strike so many times as long, for what needs time: clocks that drift apart, holds and ids that grow old,
    /// logs that are purged while a node is away. Once is the usual run.
    pub fn stretched(seed: u64, times: u64) -> Self {
        let usual = Self::of(seed);
        if times <= 1 {
            return usual;
        }
        let faults_ms = FAULTS_MS * times;
        Self { load: workload::load::stretched(usual.load, faults_ms), faults_ms, stretch: times, ..usual }
    }

    /// The faults that will strike.
    pub fn plan(&self) -> Vec<Planned> {
        match &self.faults {
            Some(faults) => faults.clone(),
            None if self.stretch > 1 => faults::plan::draw_stretched(self.seed, self.nodes, self.faults_ms),
            None => faults::draw_plan(self.seed, self.nodes, self.faults_ms),
        }
    }
}

/// A node that led a shard in a new term, as it noticed itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elected {
    /// Simulated milliseconds after the load began.
    pub at_ms: u64,
    /// The Raft group of the shard; 0 is the meta group.
    pub group: u32,
    /// The term.
    pub term: u64,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its nodes.
    pub nodes: usize,
    /// Everything the clients saw; of a run in a process of its own that held, without what its
    /// consumers saw.
    pub run: Run,
    /// Rare states that it reached, and how often.
    pub reached: Counts,
    /// Empty when all held.
    pub violations: Vec<Violation>,
    /// Faults that struck, by name.
    pub struck: BTreeMap<String, u32>,
    /// The faults that were planned.
    pub plan: Vec<Planned>,
    /// Nodes whose disk was lost for good, from 0.
    pub lost: Vec<usize>,
    /// Simulated time it took.
    pub simulated: Duration,
    /// Simulated time from the last fault until everything was served and equal.
    pub converged_after: Option<Duration>,
    /// Who was elected since the load began, in order.
    pub elected: Vec<Elected>,
    /// The digest of the trace.
    pub trace_digest: String,
    /// Its lines.
    pub trace_lines: u64,
    /// The lines themselves, if they were asked for.
    pub trace: Vec<String>,
}
