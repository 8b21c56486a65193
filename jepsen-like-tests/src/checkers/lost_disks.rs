//! A disk that forgot is not believed: a node on an empty one stays out, since the others know another
//! disk under its id, and when it is brought back, it is repaired.
//!
//! Beyond what a quorum survives nothing is invented: once more disks than may fail have lost something, no call is answered but stale reads,
//! and each of their nodes says what it lost and what it waits for.
//!
//! **Owns** this one property. **Must never** excuse an answer, whatever it says. **Read next**: [`super::acknowledged`].

use crate::history::{Answer, Run};

/// A leader that is left may answer reads for so long, until its lease ends.
const LEASE_MS: u64 = 1_000;
/// What a damaged node calls itself.
const DAMAGED: &str = "damaged";
/// ... and its repair, while it cannot begin.
const WAITS: &str = "waits";

/// A node has a replica of the meta group, and of a shard at least.
const REPAIRED_MIN: u64 = 2;

/// What a node says that belongs to no cluster.
const OUTSIDE: &str = "not part of a cluster";

/// Nodes on empty disks that take part; answers after a loss beyond a quorum, and damaged nodes that do not say so.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in &run.about.emptied {
        let status = run.statuses.iter().find(|status| status.node == *node);
        if status.is_none_or(|status| status.ready || !is_outside(&status.says)) {
            wrong.push(format!("node {node} came back on an empty disk and does not stay out: {status:?}"));
        }
    }
    // Nothing else of such a run is damaged.
    let repaired = run.sometimes.get("replica-repaired").copied().unwrap_or_default();
    if !run.about.rejoined.is_empty() && repaired < REPAIRED_MIN {
        wrong.push(format!(
            "{:?} came back on empty disks, and only {repaired} replicas were repaired: the others were believed",
            run.about.rejoined
        ));
    }
    let Some(beyond_ms) = run.about.beyond_ms else { return wrong };
    for event in run.events.iter().filter(|e| !e.op.is_stale_read() && matches!(e.answer, Answer::Ok { .. })) {
        let from_ms = beyond_ms + if event.op.is_read() { LEASE_MS } else { 0 };
        if event.asked_ms >= from_ms {
            let (what, asked_ms) = (event.op.name(), event.asked_ms);
            wrong.push(format!("{what} asked at {asked_ms} ms was answered: no quorum is left since {beyond_ms} ms"));
        }
    }
    for node in &run.about.damaged {
        match run.statuses.iter().find(|status| status.node == *node) {
            None => wrong.push(format!("node {node} lost something and does not say how it is")),
            Some(status) if status.ready => wrong.push(format!("node {node} lost something and calls itself ready")),
            Some(status) if !says_so(&status.says) => {
                wrong.push(format!("node {node} lost something and says only: {}", status.says));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Whether a node says that it belongs to no cluster.
pub(crate) fn is_outside(text: &str) -> bool {
    text.contains(OUTSIDE)
}

/// Whether a node names its damage, and what its repair waits for.
pub(crate) fn says_so(text: &str) -> bool {
    text.contains(DAMAGED) && text.contains(WAITS)
}
