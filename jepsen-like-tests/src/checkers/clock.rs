//! Ledger time never goes back, and lies within its bound of true time.
//!
//! **Owns** this one property. **Must never** judge a run in which most clocks were wrong alike: that is what the bound is given for.
//! **Read next**: [`super::feed`].

use std::collections::BTreeMap;

use crate::history::{At, Run};

/// Answers whose ledger time goes back, or is further from the truth than it may be.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut shards: BTreeMap<u32, Vec<(At, u64)>> = BTreeMap::new();
    for event in &run.events {
        let (Some(at), Some(time)) = (event.answer.at(), event.answer.time_ms()) else { continue };
        shards.entry(at.shard).or_default().push((at, time));
        let Some(bound) = run.about.clock_bound_ms.filter(|_| !event.op.is_read()) else { continue };
        // It was stamped between the question and the answer.
        let (asked, answered) = (run.true_ms(event.asked_ms), run.true_ms(event.answered_ms));
        if time + bound < asked || time > answered + bound {
            wrong.push(format!(
                "{at:?} has ledger time {time}; it was asked at {asked} and answered at {answered}, the bound is {bound} ms"
            ));
        }
    }
    for mut all in shards.into_values() {
        all.sort_unstable();
        for pair in all.windows(2).filter(|w| w[1].1 < w[0].1) {
            wrong.push(format!(
                "ledger time goes back from {} at {:?} to {} at {:?}",
                pair[0].1, pair[0].0, pair[1].1, pair[1].0
            ));
        }
    }
    wrong
}
