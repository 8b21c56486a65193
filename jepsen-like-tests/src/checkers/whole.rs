//! The whole feed, put together from everything that any consumer was told.
//!
//! The feed is the ledger's own word. As a *witness* of the order of what nobody was answered it needs no trust: an order that explains every
//! answer and agrees with real time is a proof, whoever proposed it; and one that does not is a finding, whoever was wrong.
//!
//! **Owns** the putting together. **Must never** judge: [`super::feed`] does. **Read next**: [`super::replay`].

use std::collections::BTreeMap;

use crate::history::{Change, Run};

/// Every record that somebody was told, by shard and index; the changes of each in order.
pub(super) struct Whole<'a> {
    pub(super) records: BTreeMap<(u32, u64), &'a [Change]>,
}

/// Consecutive changes of one record.
pub(super) fn records(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    changes.chunk_by(|a, b| (a.at.shard, a.at.index) == (b.at.shard, b.at.index))
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
