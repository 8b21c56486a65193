//! The whole feed, put together from everything that any consumer was told.
//!
//! The feed is the ledger's own word. As a *witness* of the order of what nobody was answered it needs no trust: an order that explains every
//! answer and agrees with real time is a proof, whoever proposed it; and one that does not is a finding, whoever was wrong.
//!
//! **Owns** the putting together. **Must never** judge: [`super::feed`] does. **Read next**: [`super::replay`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Change, Run, Watched};

/// Every record that somebody was told, by shard and index; the changes of each in order.
pub(super) struct Whole<'a> {
    pub(super) records: BTreeMap<(u32, u64), &'a [Change]>,
}

/// Consecutive changes of one record.
pub(super) fn records(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    changes.chunk_by(|a, b| (a.at.shard, a.at.index) == (b.at.shard, b.at.index))
}

/// A feed has an order within each shard and none between shards: one that tells part of a record, then something of another shard, then the
/// rest (a frame is full) tells the same as one that goes on. From here on it is told shard by shard.
pub(super) fn shard_by_shard(run: &Run) -> Cow<'_, Run> {
    let in_parts = |watched: &Watched| {
        let mut told = BTreeSet::new();
        records(&watched.changes).any(|record| !told.insert((record[0].at.shard, record[0].at.index)))
    };
    if !run.watched.iter().any(in_parts) {
        return Cow::Borrowed(run);
    }
    let mut run = run.clone();
    run.watched.iter_mut().for_each(|watched| watched.changes.sort_by_key(|change| change.at.shard));
    Cow::Owned(run)
}

impl<'a> Whole<'a> {
    pub(super) fn of(run: &'a Run) -> Self {
        let mut all: BTreeMap<(u32, u64), &'a [Change]> = BTreeMap::new();
        for record in run.watched.iter().flat_map(|w| records(&w.changes)) {
            let at = record[0].at;
            let known = all.entry((at.shard, at.index)).or_insert(record);
            // A watch may begin or end in the middle of a record.
            if record.len() > known.len() {
                *known = record;
            }
        }
        Self { records: all }
    }

    /// Every change in the order of the log, shard by shard.
    pub(super) fn changes(&self) -> impl Iterator<Item = &'a Change> {
        self.records.values().flat_map(|record| record.iter())
    }

    /// The changes of one shard.
    pub(super) fn of_shard(&self, shard: u32) -> Vec<&'a Change> {
        self.records.range((shard, 0)..=(shard, u64::MAX)).flat_map(|(_, record)| record.iter()).collect()
    }

    /// The shards that anything is known of.
    pub(super) fn shards(&self) -> Vec<u32> {
        let mut shards: Vec<u32> = self.records.keys().map(|(shard, _)| *shard).collect();
        shards.dedup();
        shards
    }
}

/// Whether the whole feed must be there: it was read out at the end, and no history was cut.
pub(super) fn is_expected(run: &Run) -> bool {
    !run.about.history_cut && run.watched.iter().any(|w| w.consumer == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::At;

    fn told(shard: u32, index: u64, place: u32) -> Change {
        let change = r#"{"at":{"shard":0,"index":0,"place":0,"term":1},"time_ms":1,"name":"UnitsReceived"}"#;
        let change: Change = serde_json::from_str(change).expect("a change");
        Change { at: At { shard, index, place, term: 1 }, ..change }
    }

    fn run_of(changes: Vec<Change>) -> Run {
        let watched = Watched {
            consumer: 0,
            node: 1,
            began: "oldest".into(),
            behind: vec![],
            from_ms: 0,
            to_ms: 0,
            changes,
            ended: "caught up".into(),
        };
        Run { watched: vec![watched], ..Run::default() }
    }

    #[test]
    fn a_record_that_is_told_in_two_parts_is_one() {
        let run = run_of(vec![told(1, 5, 0), told(2, 9, 0), told(1, 5, 1), told(1, 6, 0)]);
        let run = shard_by_shard(&run);
        assert_eq!(Whole::of(&run).of_shard(1), [&told(1, 5, 0), &told(1, 5, 1), &told(1, 6, 0)]);
        let orderly = run_of(vec![told(2, 9, 0), told(1, 5, 0)]);
        assert!(matches!(shard_by_shard(&orderly), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_told_twice_or_out_of_order_in_one_shard_stays_so() {
        let run = run_of(vec![told(1, 6, 0), told(2, 9, 0), told(1, 5, 0), told(1, 6, 0)]);
        let run = shard_by_shard(&run);
        assert_eq!(run.watched[0].changes, [told(1, 6, 0), told(1, 5, 0), told(1, 6, 0), told(2, 9, 0)]);
    }
}
