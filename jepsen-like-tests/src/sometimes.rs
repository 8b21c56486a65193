//! Rare states that a campaign must have reached, or it proved less than it seems: *sometimes* this happens, and then all must hold.
//!
//! **What it is.** A table of [`Rare`] states with what reaches them: the journal ([`seen`]), or a line that a node logs ([`Probe`]). Counts go with
//! the run they were made in; [`missing`] says which a campaign of so many seeds never got to, though by measurement it should.
//!
//! **Owns** the table. **Must never** make a state happen, nor excuse one that never did. **Read next**: [`seen`].

pub(crate) mod probe;
mod seen;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;

pub use probe::{Listening, Probe, listen};
pub use seen::of;

/// How often each state was reached.
pub type Counts = BTreeMap<String, u64>;

/// One rare state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rare {
    /// Its name in counts.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// A campaign of so many seeds must have reached it; none: too rare yet to ask it of every campaign, or it depends on faults that not every one has.
    pub within: Option<u64>,
}

const fn rare(name: &'static str, within: u64, what: &'static str) -> Rare {
    Rare { name, what, within: if within == 0 { None } else { Some(within) } }
}

/// All of them. Each `within` is at least ten times the seeds between two of them, measured over the
/// first hundred seeds. For a state that needs a rare fault it is measured over the plans of the first
/// thousand seeds, and over runs of some that draw the fault.
pub const ALL: &[Rare] = &[
    // Time.
    rare("confirmed-in-last-ms", 400, "a hold was confirmed in the last millisecond of its life"),
    rare("expired-units-taken-at-once", 100, "the very entry that ended a hold gave its units to somebody else"),
    rare("ten-expired-in-one-instant", 200, "ten holds or more ended in one instant"),
    rare("expired-when-confirmed", 100, "a confirm came when the hold was due"),
    rare("clock-quorum-lost", 1_000, "a leader lost its quorum of clock readings and stamped nothing"),
    rare("clocks-jumped", 500, "a new leader found that the clocks of a quorum had jumped, and stamped nothing"),
    rare("ledger-time-unchecked", 0, "ledger time jumped, and no replica knew for how long all had stood still"),
    rare("handed-over-unsure-of-clock", 0, "a leader that was unsure of the clock handed over"),
    // Ids.
    rare("evicted-then-retried", 200, "an id that the cap had pressed out was asked for again"),
    rare("memory-full", 400, "too many young ids were remembered, and a caller was told to wait"),
    rare("fenced-then-asked", 200, "a fenced id was asked for, and refused"),
    rare("id-taken", 200, "an id was asked for with other content"),
    rare("answer-lost-then-replayed", 100, "an answer was lost, and the next attempt was told what the first had done"),
    rare("replayed-in-later-term", 1_000, "what an earlier leader had decided was told again by a later one"),
    rare("effect-never-answered", 200, "something took effect, and nobody was ever told so"),
    rare("reference-replayed", 100, "a delivery came again under its reference"),
    // Stock.
    rare("limit-on-second-key", 200, "a limit was reached on another key than the first"),
    rare("sale-ended-with-live-hold", 0, "a hold in an ended sale was confirmed, released or expired"),
    rare("first-back-told", 100, "sold out, with the time when the first hold ends"),
    rare("gone-told", 100, "sold out for good"),
    // Calls.
    rare("unknown", 20, "a call ended in doubt"),
    rare("leadership-lost-in-flight", 0, "a proposer lost leadership while an entry was in flight"),
    rare("queue-full", 400, "a shard's queue was full"),
    rare("stale-read-behind", 1_000, "a stale read missed what had been answered before"),
    rare("cursor-too-old", 0, "a feed consumer's cursor was too old"),
    rare("feed-broken", 200, "a feed consumer's connection broke, and it went on elsewhere"),
    // Log and snapshots.
    rare(
        "snapshot-installed",
        2_000,
        "a follower was caught up by a snapshot, since the log was purged under its feet",
    ),
    rare("election-during-install", 0, "a leader was elected while a snapshot was being installed"),
    rare("torn-round-cut", 2_000, "a torn round at the log's end was cut off"),
    rare("rot-found", 0, "damage in the log was found at the start"),
    rare("log-lost", 500, "a part of the log was gone or cut at the start"),
    rare("directory-copied", 1_000, "the directory was found at another place than it had"),
    rare("disk-went-back", 500, "a disk was older than what others remembered of it"),
    rare("stayed-unavailable", 1_000, "more disks than a quorum survives had lost something, and nothing was answered"),
    rare("stayed-out", 2_000, "a node on an empty disk was refused by the others"),
    rare("rejoined", 2_000, "a node on an empty disk was brought back, and follows or leads again"),
    rare("snapshot-rotten", 0, "a snapshot was rotten, and an older one or a peer served"),
    rare("replica-repaired", 200, "a damaged or lost replica was rebuilt from its peers"),
    rare("replica-quarantined", 0, "a replica was outvoted and stopped"),
    rare("low-space", 0, "a log's disk fell below the mark"),
    rare("vote-brings-appends", 0, "a vote came while appends of its group were withheld for want of space"),
    rare("digests-compared", 0, "two replicas had a digest of the same index"),
];

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::default();
}

/// A state was reached, in the run of this thread.
pub fn reached(name: &str) {
    debug_assert!(ALL.iter().any(|rare| rare.name == name), "{name} is not in the table");
    COUNTS.with_borrow_mut(|counts| *counts.entry(name.to_owned()).or_default() += 1);
}

/// What this thread's run reached so far; begins anew.
pub fn take() -> Counts {
    COUNTS.take()
}

/// Adds a run's counts to a campaign's.
pub fn add(sums: &mut Counts, counts: &Counts) {
    for (name, n) in counts {
        *sums.entry(name.clone()).or_default() += n;
    }
}

/// States that a campaign of so many seeds had to reach and never did.
pub fn missing(counts: &Counts, seeds: u64) -> Vec<&'static Rare> {
    let never = |rare: &&Rare| counts.get(rare.name).copied().unwrap_or(0) == 0;
    ALL.iter().filter(|rare| rare.within.is_some_and(|within| seeds >= within)).filter(never).collect()
}

/// The table for people: how often, what, and within how many seeds it must happen.
pub fn table(counts: &Counts, seeds: u64) -> String {
    let mut text = String::new();
    for rare in ALL {
        let n = counts.get(rare.name).copied().unwrap_or(0);
        let must = match rare.within {
            None => "-".to_owned(),
            Some(within) if n == 0 && seeds >= within => format!("MISSING, must within {within} seeds"),
            Some(within) => format!("within {within} seeds"),
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {:<28} {n:>8}  {must:<34} {}", rare.name, rare.what);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_that_never_got_there_is_told_so_once_it_is_long_enough() {
        let mut counts = Counts::new();
        let names = |counts: &Counts, seeds| missing(counts, seeds).iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(names(&counts, 1), [""; 0]);
        assert!(names(&counts, 1_000_000).contains(&"unknown"));
        assert!(!names(&counts, 1_000_000).contains(&"rot-found"), "not every campaign has faults of the disk");
        reached("unknown");
        add(&mut counts, &take());
        assert!(!names(&counts, 1_000_000).contains(&"unknown"));
        assert_eq!(take(), Counts::new());
        assert!(table(&counts, 1_000_000).contains("MISSING"));
    }

    #[test]
    fn names_are_told_apart() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
