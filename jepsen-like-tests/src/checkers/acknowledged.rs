//! Acknowledged is durable: what a client was told stays so.
//!
//! **Owns** this one property. **Must never** excuse a lost answer. **Read next**: [`super::conserved`].

use std::collections::BTreeMap;

use crate::history::{Answer, Op, Run};

/// Ids whose acknowledged effect is not in the final state.
pub fn check(run: &Run) -> Vec<String> {
    let finals: BTreeMap<&str, &str> = run.ids.iter().map(|f| (f.id.as_str(), f.state.as_str())).collect();
    let mut wrong = Vec::new();
    for event in &run.events {
        let (id, verb, may_be): (&str, &str, &[&str]) = match (&event.op, &event.answer) {
            (Op::Reserve { id, .. }, Answer::Ok { .. }) => {
                (id, "reserve", &["held", "confirmed", "released", "expired"])
            }
            (Op::Confirm { id }, Answer::Ok { .. }) => (id, "confirm", &["confirmed"]),
            (Op::Release { id }, Answer::Ok { .. }) => (id, "release", &["released"]),
            (Op::Reserve { id, .. }, Answer::Refused { .. }) => {
                // Remembered for longer than a run lasts: forgotten too early, the id could execute after all.
                (id, "refused reserve", &["refused"])
            }
            _ => continue,
        };
        let state = finals.get(id).copied().unwrap_or("not read");
        if !may_be.contains(&state) {
            wrong
                .push(format!("{verb} of {id} was answered at {} ms, but at the end it is {state}", event.answered_ms));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::check;
    use crate::history::Answer;

    #[test]
    fn a_lost_reserve_is_found() {
        let mut run = sample::good();
        run.ids[1].state = "unknown".into();
        assert_eq!(check(&run).len(), 1);
    }

    #[test]
    fn a_refusal_that_was_forgotten_is_found() {
        let mut run = sample::good();
        run.events[2].answer = Answer::Refused { at: None, why: "sold out".into() };
        run.ids[1].state = "unknown".into();
        assert_eq!(check(&run).len(), 1);
    }

    #[test]
    fn a_confirm_that_went_back_is_found() {
        let mut run = sample::good();
        run.ids[0].state = "held".into();
        assert_eq!(check(&run).len(), 1);
    }
}
