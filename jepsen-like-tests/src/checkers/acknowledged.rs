//! Acknowledged is durable: what a client was told stays so.
//!
//! **Owns** this one property. **Must never** excuse a lost answer. **Read next**: [`super::conserved`].

use std::collections::BTreeMap;

use super::replay::is_remembered;
use crate::history::{Answer, FinalId, Op, Run, Told};

/// Ids whose acknowledged effect is not in the final state.
pub fn check(run: &Run) -> Vec<String> {
    let finals: BTreeMap<&str, &FinalId> = run.ids.iter().map(|f| (f.id.as_str(), f)).collect();
    let mut wrong = Vec::new();
    let mut brought: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in &run.events {
        let (id, verb, may_be): (&str, &str, &[&str]) = match (&event.op, &event.answer) {
            (Op::Reserve { id, .. }, Answer::Ok { .. }) => {
                (id, "reserve", &["held", "confirmed", "released", "expired"])
            }
            (Op::Extend { id, .. }, Answer::Ok { .. }) => (id, "extend", &["held", "confirmed", "released", "expired"]),
            (Op::Confirm { id, .. }, Answer::Ok { .. }) => (id, "confirm", &["confirmed"]),
            (Op::Release { id }, Answer::Ok { .. }) => (id, "release", &["released"]),
            (Op::Fence { id }, Answer::Ok { told: Told::Never, .. }) => (id, "fence", &["fenced"]),
            (Op::Return { id, reference, .. }, Answer::Ok { told: Told::Returned { units }, .. }) => {
                brought.insert((id, reference), *units);
                (id, "return", &["confirmed"])
            }
            (Op::Reserve { id, .. }, Answer::Refused { no, .. }) if is_remembered(no) => {
                // Remembered for longer than a run lasts: forgotten too early, the id could execute after all.
                (id, "refused reserve", &["refused"])
            }
            _ => continue,
        };
        let state = finals.get(id).map_or("not read", |f| f.state.as_str());
        // What the cap may press out: never what was sold.
        let pressed = state == "forgotten" && run.about.remembered_max.is_some() && may_be != ["confirmed"];
        if !may_be.contains(&state) && !pressed {
            wrong
                .push(format!("{verb} of {id} was answered at {} ms, but at the end it is {state}", event.answered_ms));
        }
    }
    let mut by_id: BTreeMap<&str, u64> = BTreeMap::new();
    for ((id, _), units) in brought {
        *by_id.entry(id).or_default() += units;
    }
    for (id, told) in by_id {
        let returned: u64 = finals.get(id).into_iter().flat_map(|f| &f.lines).map(|l| u64::from(l.returned)).sum();
        if told > returned {
            wrong.push(format!("{told} units of {id} were told to be brought back, but at the end {returned} are"));
        }
    }
    wrong
}
