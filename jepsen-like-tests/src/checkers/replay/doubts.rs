//! Refusals that may repeat the verdict of an earlier attempt, and what else only an attempt without an answer can have decided.
//!
//! **Owns** the second pass, which looks for a moment that explains each. **Must never** accept one that no moment explains. **Read next**: [`super`].

use super::{Step, is_remembered, is_reserve, one, refusal_told};
use crate::checkers::model::{Content, Known, Model, summed};
use crate::history::{Answer, No, Op, Run, Told};

/// Refusals to be explained.
#[derive(Default)]
pub(super) struct Doubts {
    open: Vec<Doubt>,
    /// In the second pass nothing is added.
    settling: bool,
}

/// One refusal: some step in the window must refuse the content just so.
struct Doubt {
    id: String,
    asked: Vec<(Content, Vec<String>)>,
    no: No,
    since: usize,
    until: usize,
    label: String,
}

impl Doubts {
    /// What an earlier attempt must have made of the id, so that this answer is right; none if no attempt can have.
    pub(super) fn earlier(&mut self, step: &Step<'_>, answer: &Answer, n: usize) -> Option<Known> {
        let lost =
            |e: &&&crate::history::Event| e.answer.may_hide_an_effect() || matches!(e.answer, Answer::Unknown { .. });
        let fenced_unheard = || {
            let fences = step.attempts.iter().filter(|e| matches!(e.op, Op::Fence { .. }));
            fences.filter(lost).count() > 0
        };
        let (no, own) = match answer {
            Answer::Refused { no: No::Fenced, .. } if fenced_unheard() => return Some(Known::Fenced),
            Answer::Ok { told: Told::Id { state, .. }, .. } if state == "fenced" && fenced_unheard() => {
                return Some(Known::Fenced);
            }
            Answer::Refused { no, .. } if is_reserve(step.op) && is_remembered(no) => (Some(no.clone()), true),
            // Refused with other content by an attempt that nobody heard of.
            Answer::Refused { no: No::IdTaken, .. } if is_reserve(step.op) => (None, false),
            Answer::Ok { told: Told::Id { state, .. }, .. } if state == "refused" => (None, false),
            Answer::Ok { told, .. } => (Some(refusal_told(told)?.clone()), false),
            _ => return None,
        };
        let asked: Vec<(Content, Vec<String>)> = step
            .attempts
            .iter()
            .filter(|e| is_reserve(&e.op))
            .filter(|e| lost(e) || (own && e.op == *step.op))
            .filter_map(|e| content(&e.op))
            .collect();
        let id = step.op.id()?.to_owned();
        if asked.is_empty() {
            return None;
        }
        let mut contents: Vec<&Content> = asked.iter().map(|(content, _)| content).collect();
        contents.dedup();
        let known = match (&no, contents.as_slice()) {
            (Some(_), [only]) => Some((*only).clone()),
            _ => None,
        };
        let Some(no) = no else {
            // Only that it was refused is known; why, nobody was told.
            return Some(Known::Refused(None, No::IdTaken));
        };
        if !self.settling {
            let label = step.label();
            self.open.push(Doubt { id, asked, no: no.clone(), since: step.since, until: n, label });
        }
        Some(Known::Refused(known, no))
    }

    /// Goes through the steps once more and looks for the moments.
    pub(super) fn settle(self, run: &Run, steps: &[Step<'_>]) -> Result<(), String> {
        let mut open = self.open;
        if open.is_empty() {
            return Ok(());
        }
        let mut model = Model::new(run.about.remembered_max);
        let mut again = Self { open: Vec::new(), settling: true };
        for (n, step) in steps.iter().enumerate() {
            while let Some(due) = model.next_due().filter(|due| *due <= step.time_ms) {
                strike_out(&mut open, &model, n);
                model.pass(due);
            }
            strike_out(&mut open, &model, n);
            model.pass(step.time_ms);
            strike_out(&mut open, &model, n);
            one(&mut model, step, n, &mut again)?;
        }
        match open.first() {
            None => Ok(()),
            Some(doubt) => Err(format!(
                "at {}: {} was refused with {:?}, but from when it was first asked until then nothing refuses it so",
                doubt.label, doubt.id, doubt.no
            )),
        }
    }
}

fn strike_out(open: &mut Vec<Doubt>, model: &Model, n: usize) {
    open.retain(|doubt| {
        let within = (doubt.since..=doubt.until).contains(&n);
        let refuses = |(content, keys): &(Content, Vec<String>)| model.rules(content, keys).as_ref() == Some(&doubt.no);
        !(within && doubt.asked.iter().any(refuses))
    });
}

/// The first verdict that is heard of an id that was refused unheard; none if the answer is of another kind.
pub(super) fn heard_first(step: &Step<'_>, answer: &Answer) -> Option<Known> {
    match answer {
        Answer::Refused { no: No::IdTaken, .. } if is_reserve(step.op) => Some(Known::Refused(None, No::IdTaken)),
        Answer::Refused { no, .. } if is_reserve(step.op) && is_remembered(no) => {
            Some(Known::Refused(content(step.op).map(|(content, _)| content), no.clone()))
        }
        Answer::Ok { told: Told::WasRefused { no }, .. } => Some(Known::Refused(None, no.clone())),
        _ => None,
    }
}

/// What a reserve asks for, and its keys in their order.
pub(super) fn content(op: &Op) -> Option<(Content, Vec<String>)> {
    let Op::Reserve { lines, keys, hold_ms, .. } = op else { return None };
    let content = Content { keys: keys.iter().cloned().collect(), lines: summed(lines), hold_ms: *hold_ms };
    Some((content, keys.clone()))
}
