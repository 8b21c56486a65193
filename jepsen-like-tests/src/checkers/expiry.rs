//! Expiry is exact in ledger time: a hold lives until its deadline and not a millisecond longer.
//!
//! **Owns** this one property. **Must never** ask a clock: only ledger time counts. **Read next**: [`super::clock`].

use std::collections::BTreeMap;

use super::whole::Whole;
use crate::history::{Answer, At, No, Op, Run, State, Told};

/// Holds that ended early, lived on, or have another deadline than they were given.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    // Deadlines of each id in the order of the log, by the feed and by what clients were told.
    let mut deadlines: BTreeMap<&str, BTreeMap<At, u64>> = BTreeMap::new();
    let mut expired: BTreeMap<&str, (At, u64)> = BTreeMap::new();
    for change in Whole::of(run).changes() {
        let (Some(id), Some(deadline)) = (change.id.as_deref(), change.deadline_ms) else { continue };
        if change.name == "ReservationExpired" {
            expired.insert(id, (change.at, deadline));
            if deadline > change.time_ms {
                wrong.push(format!("{id} expired at {} ms ledger time, its deadline is {deadline}", change.time_ms));
            }
        } else {
            deadlines.entry(id).or_default().insert(change.at, deadline);
        }
    }
    for event in &run.events {
        let (Some(id), Some(at), Some(time)) = (event.op.id(), event.answer.at(), event.answer.time_ms()) else {
            continue;
        };
        wrong.extend(as_asked(id, &event.op, &event.answer, time));
        let known = deadlines.get(id).and_then(|all| all.range(..=at).next_back());
        let Some((_, &deadline)) = known else { continue };
        let due = deadline <= time;
        let says = match &event.answer {
            Answer::Ok { told: Told::Reservation { state, .. }, replayed, .. } => match event.op {
                // It was live, or it could not have been ended or extended now.
                Op::Confirm { .. } | Op::Release { .. } | Op::Extend { .. } if !replayed => Some(State::Held),
                _ => Some(*state),
            },
            Answer::Ok { told: Told::Id { state, .. }, .. } if state == "held" => Some(State::Held),
            Answer::Ok { told: Told::Id { state, .. }, .. } if state == "expired" => Some(State::Expired),
            Answer::Refused { no: No::NotHeld { state } | No::NotSold { state }, .. } => Some(*state),
            _ => None,
        };
        // An extension is judged by the deadline it replaces.
        let due = match (&event.op, event.answer.is_first_ok()) {
            (Op::Extend { replaces_ms, .. }, true) => *replaces_ms <= time,
            _ => due,
        };
        match says {
            Some(State::Held) if due => wrong.push(format!(
                "{id} was live for {} at {at:?}, {time} ms ledger time, though due at {deadline}",
                event.op.name()
            )),
            Some(State::Expired) if !due => wrong.push(format!(
                "{id} was expired for {} at {at:?}, {time} ms ledger time, before its deadline {deadline}",
                event.op.name()
            )),
            _ => {}
        }
    }
    for (id, (at, deadline)) in expired {
        let last = deadlines.get(id).and_then(|all| all.range(..at).next_back()).map(|(_, deadline)| *deadline);
        if last.is_some_and(|last| last != deadline) {
            wrong.push(format!("{id} expired by deadline {deadline} at {at:?}, its deadline is {last:?}"));
        }
    }
    wrong.extend(at_the_end(run));
    wrong
}

/// A hold has the time that was asked for, from ledger time on.
fn as_asked(id: &str, op: &Op, answer: &Answer, time: u64) -> Option<String> {
    let Answer::Ok { told: Told::Reservation { deadline_ms, reserved_at_ms, .. }, replayed: false, .. } = answer else {
        return None;
    };
    let (from, asked) = match op {
        Op::Reserve { hold_ms: Some(ms), .. } => (*reserved_at_ms, *ms),
        Op::Extend { hold_ms, .. } => (time, *hold_ms),
        _ => return None,
    };
    let reserved_then = !matches!(op, Op::Reserve { .. }) || *reserved_at_ms == time;
    (deadline_ms.checked_sub(from) != Some(asked) || !reserved_then).then(|| {
        format!("{id}: {asked} ms from {time} were asked for, it was reserved at {reserved_at_ms} until {deadline_ms}")
    })
}

fn at_the_end(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for id in &run.ids {
        let (Some(deadline), Some(ended)) = (id.deadline_ms, id.ended_at_ms) else { continue };
        match id.state.as_str() {
            "expired" if ended != deadline => {
                wrong.push(format!("{} expired at {ended}, its deadline is {deadline}", id.id));
            }
            "confirmed" | "released" if ended >= deadline => {
                wrong.push(format!("{} was {} at {ended}, though due at {deadline}", id.id, id.state));
            }
            _ => {}
        }
    }
    wrong
}
