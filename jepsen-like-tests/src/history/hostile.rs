//! What came of the hostile clients' calls: counts by method and kind of answer, and every answer that nobody can act on.
//!
//! **Owns** this format. **Must never** hold what was sent: it is made again from the seed. **Read next**: [`crate::workload`], [`crate::checkers`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Faults of one run that are kept: what follows from the first helps nobody.
const WRONG_MAX: usize = 20;

/// The sums of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hostile {
    /// Calls sent.
    pub asked: u64,
    /// Calls that were answered, well or not.
    pub answered: u64,
    /// Calls without an answer: the node was away, the call's time was over, or what was sent was no call.
    pub unreached: u64,
    /// Well-formed ones among these.
    pub lost: u64,
    /// Why the first of them was lost.
    pub lost_why: String,
    /// Calls of well-formed frames that the ledger carried out.
    pub executed: u64,
    /// Calls of well-formed frames that the ledger refused.
    pub refused: u64,
    /// Legal sequences that were carried through.
    pub sequences: u64,
    /// Answers by method and kind.
    pub by: BTreeMap<String, u64>,
    /// Answers that say neither what happened nor what to do, and answers that break a promise.
    pub wrong: Vec<String>,
}

impl Hostile {
    /// One more answer.
    pub fn count(&mut self, method: &str, kind: &str) {
        self.answered += 1;
        *self.by.entry(format!("{method} {kind}")).or_default() += 1;
    }

    /// One more call without an answer.
    pub fn unreached(&mut self, whole: bool, why: &str) {
        self.unreached += 1;
        if whole {
            self.lost += 1;
        }
        if whole && self.lost_why.is_empty() {
            why.clone_into(&mut self.lost_why);
        }
    }

    /// One more answer that is not as it must be.
    pub fn wrong(&mut self, what: String) {
        self.answered += 1;
        if self.wrong.len() < WRONG_MAX && !self.wrong.contains(&what) {
            self.wrong.push(what);
        }
    }
}
