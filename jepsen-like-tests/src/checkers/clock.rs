//! Ledger time never goes back, lies within its bound of true time, and goes on with elapsed time.
//!
//! **Owns** this one property. **Must never** compare a run in which most clocks were wrong alike with
//! true time: such a run gives no bound. Elapsed time bounds ledger time in every run, but for the
//! jump that a new leader may take.
//! **Read next**: [`super::feed`].

use std::collections::BTreeMap;

use crate::history::{At, Run};

/// Answers whose ledger time goes back, or is further from the truth than it may be.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut shards: BTreeMap<u32, Vec<Stamped>> = BTreeMap::new();
    for event in &run.events {
        let (Some(at), Some(time)) = (event.answer.at(), event.answer.time_ms()) else { continue };
        let (asked_ms, answered_ms) = (event.asked_ms, event.answered_ms);
        shards.entry(at.shard).or_default().push(Stamped {
            at,
            time,
            asked_ms,
            answered_ms,
            is_read: event.op.is_read(),
        });
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
        for pair in all.windows(2).filter(|w| w[1].time < w[0].time) {
            wrong.push(format!(
                "ledger time goes back from {} at {:?} to {} at {:?}",
                pair[0].time, pair[0].at, pair[1].time, pair[1].at
            ));
        }
        let Some(jump_max) = run.about.clock_jump_max_ms else { continue };
        all.retain(|stamped| !stamped.is_read);
        for pair in all.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let leaders = after.at.term.saturating_sub(before.at.term);
            let elapsed = after.answered_ms.saturating_sub(before.asked_ms);
            let most = elapsed + elapsed / TIMERS_OFF + STAMPED_WITHIN_MS + leaders * jump_max;
            if after.time.saturating_sub(before.time) > most {
                wrong.push(format!(
                    "ledger time goes on from {} at {:?} to {} at {:?}, and no more than {elapsed} ms have passed: a jump of \
                     {jump_max} ms is what each of {leaders} new leaders may take",
                    before.time, before.at, after.time, after.at
                ));
            }
        }
    }
    wrong
}

/// Timers of a run go wrong by less than one part in so many.
const TIMERS_OFF: u64 = 10;
/// A process that stood still catches up with its stamps; clocks within their bound differ.
const STAMPED_WITHIN_MS: u64 = 2_000;

/// An answer, with the ledger time of its entry.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stamped {
    at: At,
    time: u64,
    asked_ms: u64,
    answered_ms: u64,
    is_read: bool,
}
