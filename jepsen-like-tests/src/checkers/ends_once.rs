//! Ends once: a reservation is confirmed, released or expires, once, and then it is so for ever.
//!
//! **Owns** this one property. **Must never** count a replay as an end. **Read next**: [`super::answered_once`].

use std::collections::BTreeMap;

use super::whole::Whole;
use crate::history::{Answer, At, Op, Run, State, Told};

/// Reservations that ended twice, moved after their end, or were told to stand elsewhere afterwards.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ends: BTreeMap<&str, (State, At)> = BTreeMap::new();
    for change in Whole::of(run).changes() {
        let Some(id) = change.id.as_deref() else { continue };
        let end = match change.name.as_str() {
            "ReservationConfirmed" => Some(State::Confirmed),
            "ReservationReleased" => Some(State::Released),
            "ReservationExpired" => Some(State::Expired),
            _ => None,
        };
        match (ends.get(id), end) {
            (Some((state, at)), _) if change.name != "UnitsReturned" => {
                wrong.push(format!("{id} was {state:?} at {at:?}, and then {} at {:?}", change.name, change.at));
            }
            (Some((State::Confirmed, _)), _) => {}
            (Some((state, at)), _) => {
                wrong.push(format!("{id} was {state:?} at {at:?}, and units of it came back at {:?}", change.at));
            }
            (None, Some(end)) => drop(ends.insert(id, (end, change.at))),
            (None, None) => {}
        }
    }
    wrong.extend(told(run));
    wrong
}

/// The same by what clients were told, in the order of the log.
fn told(run: &Run) -> Vec<String> {
    let mut answers: BTreeMap<&str, Vec<(At, State, bool)>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_read()) {
        if let (Some(id), Answer::Ok { at: Some(at), told: Told::Reservation { state, .. }, replayed, .. }) =
            (event.op.id(), &event.answer)
        {
            let ends = !replayed && matches!(event.op, Op::Confirm { .. } | Op::Release { .. });
            answers.entry(id).or_default().push((*at, *state, ends));
        }
    }
    let mut wrong = Vec::new();
    for (id, mut told) in answers {
        told.sort_unstable_by_key(|(at, ..)| *at);
        let mut ended: Option<(At, State)> = None;
        for (at, state, ends) in told {
            match ended {
                Some((before, was)) if was != state || ends => {
                    wrong.push(format!("{id} was told to be {was:?} at {before:?}, and {state:?} at {at:?}"));
                }
                Some(_) => {}
                None if state != State::Held => ended = Some((at, state)),
                None => {}
            }
        }
        let last = run.ids.iter().find(|f| f.id == id).map(|f| f.state.as_str());
        let name = |state| match state {
            State::Held => "held",
            State::Confirmed => "confirmed",
            State::Released => "released",
            State::Expired => "expired",
        };
        if let (Some((at, state)), Some(last)) = (ended, last)
            && last != name(state)
            && last != "forgotten"
        {
            wrong.push(format!("{id} was told to be {state:?} at {at:?}, and is {last} at the end"));
        }
    }
    wrong
}
