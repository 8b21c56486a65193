//! Stale reads are no older than they say: what was answered before `age` ago is in them. That they are right as of their position is
//! [`super::replay`]'s.
//!
//! **Owns** this one property. **Must never** ask freshness of a read that says it does not know its age. **Read next**: [`super::replicas`].

use std::collections::BTreeMap;

use crate::history::{Answer, At, Run};

/// Milliseconds by which an age may be too small: it is told in whole milliseconds, as are the clocks of the journal.
const ROUNDING_MS: u64 = 2;

/// Stale reads that lack what was answered before they say they are from.
pub fn check(run: &Run) -> Vec<String> {
    // Per shard, by time of answer: the furthest position answered by then.
    let mut answered: BTreeMap<u32, Vec<(u64, At)>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_read()) {
        if let Some(at) = event.answer.at() {
            answered.entry(at.shard).or_default().push((event.answered_ms, at));
        }
    }
    for all in answered.values_mut() {
        all.sort_unstable();
        for n in 1..all.len() {
            all[n].1 = all[n].1.max(all[n - 1].1);
        }
    }
    let mut wrong = Vec::new();
    for event in run.events.iter().filter(|e| e.op.is_stale_read()) {
        let Answer::Ok { at: Some(at), age_ms: Some(age), .. } = event.answer else { continue };
        let Some(all) = answered.get(&at.shard) else { continue };
        let current = event.asked_ms.saturating_sub(age + ROUNDING_MS);
        let by_then = all.partition_point(|(ms, _)| *ms < current);
        if let Some((ms, missing)) = by_then.checked_sub(1).map(|n| all[n]).filter(|(_, missing)| *missing > at) {
            wrong.push(format!(
                "a stale read asked at {} ms says it is {age} ms old, but it is of {at:?}, and {missing:?} was answered by {ms} ms",
                event.asked_ms
            ));
        }
    }
    wrong
}
