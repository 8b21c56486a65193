//! Position order agrees with real time: what was answered before something was asked lies before it in the log.
//!
//! With [`super::replay`], which explains every answer by its position, this makes the log's order a linearization.
//!
//! **Owns** this one property. **Must never** compare positions of different shards. **Read next**: [`super::general`].

use std::collections::BTreeMap;

use crate::history::{At, Run};

/// Pairs out of order; n log n: by position, the earliest answer of what lies behind must not precede the question of what lies before.
pub fn check(run: &Run) -> Vec<String> {
    let mut by_shard: BTreeMap<u32, Vec<(At, u64, u64)>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_stale_read()) {
        if let Some(at) = event.answer.at() {
            by_shard.entry(at.shard).or_default().push((at, event.asked_ms, event.answered_ms));
        }
    }
    let mut wrong = Vec::new();
    for (shard, mut ops) in by_shard {
        ops.sort_unstable();
        let mut earliest_answer = (u64::MAX, None);
        for same in ops.chunk_by(|a, b| a.0 == b.0).rev() {
            for &(at, asked, _) in same.iter().filter(|(_, asked, _)| earliest_answer.0 < *asked) {
                wrong.push(format!(
                    "shard {shard}: {at:?} was asked at {asked} ms, after {:?} behind it was answered at {} ms",
                    earliest_answer.1, earliest_answer.0
                ));
            }
            // Reads of one position do not order each other.
            for &(at, _, answered) in same {
                if answered < earliest_answer.0 {
                    earliest_answer = (answered, Some(at));
                }
            }
        }
    }
    wrong
}
