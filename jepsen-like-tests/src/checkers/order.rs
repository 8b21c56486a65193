//! Position order agrees with real time: what was answered before something was asked lies before it in the log.
//!
//! With single-copy state decided by log order alone, this is the part of linearizability that clients can see for writes.
//!
//! **Owns** this one property. **Must never** compare positions of different shards. **Read next**: [`super`].

use std::collections::BTreeMap;

use crate::history::{Answer, At, Run};

/// Pairs out of order; n log n: by position, the latest answer so far must not precede a later position's question.
pub fn check(run: &Run) -> Vec<String> {
    let mut by_shard: BTreeMap<u32, Vec<(At, u64, u64)>> = BTreeMap::new();
    for event in &run.events {
        if let Answer::Ok { at: Some(at), replayed: false, .. } = event.answer {
            by_shard.entry(at.shard).or_default().push((at, event.asked_ms, event.answered_ms));
        }
    }
    let mut wrong = Vec::new();
    for (shard, mut ops) in by_shard {
        ops.sort_unstable();
        // Going backwards: no later position may have been answered before an earlier one was asked.
        let mut earliest_answer = (u64::MAX, None);
        for &(at, asked, answered) in ops.iter().rev() {
            if earliest_answer.0 < asked {
                wrong.push(format!(
                    "shard {shard}: {at:?} was asked at {asked} ms, after {:?} behind it was answered at {} ms",
                    earliest_answer.1, earliest_answer.0
                ));
            }
            if answered < earliest_answer.0 {
                earliest_answer = (answered, Some(at));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::check;

    #[test]
    fn a_position_from_the_past_is_found() {
        let mut run = sample::good();
        run.events[3].answer = sample::ok(1);
        run.events[0].answer = sample::ok(4);
        assert!(!check(&run).is_empty());
    }
}
