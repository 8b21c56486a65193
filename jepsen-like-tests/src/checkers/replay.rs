//! Linearizable: everything again in the order of the log, against an obvious model of the ledger, in n log n.
//!
//! **What it is.** Answers name their positions; effects that nobody was answered (an attempt whose answer was lost) have theirs from the feed, as a
//! witness. With [`super::order`], which holds the positions against real time, an order in which the model gives every answer is a linearization.
//! A refusal may repeat the verdict of an earlier attempt of the same call: then some moment since the call was first asked must explain it.
//!
//! **Owns** the replay. **Must never** excuse an effect that a client was told did not happen. **Read next**: [`mod@steps`], [`super::model`].

mod doubts;
mod steps;

use crate::history::{Answer, Change, No, Op, Run, State, Told};

use super::model::{Known, Model};
use super::whole::{Whole, is_expected};
use doubts::Doubts;
pub(super) use steps::{Step, steps};

/// The first position of each shard at which the model disagrees.
pub fn check(run: &Run) -> Vec<String> {
    let whole = Whole::of(run);
    let mut wrong = Vec::new();
    if !is_expected(run) && run.about.history_cut {
        // What was lost with the oldest history cannot be put in order.
        return wrong;
    }
    for shard in shards(run, &whole) {
        let steps = match steps(run, &whole, shard) {
            Ok(steps) => steps,
            Err(what) => {
                wrong.push(what);
                continue;
            }
        };
        match replay(run, &steps) {
            Ok(model) => wrong.extend(at_the_end(run, &model)),
            Err(what) => wrong.push(what),
        }
    }
    wrong
}

fn shards(run: &Run, whole: &Whole<'_>) -> Vec<u32> {
    let mut shards = whole.shards();
    shards.extend(run.events.iter().filter_map(|e| e.answer.at()).map(|at| at.shard));
    shards.sort_unstable();
    shards.dedup();
    shards
}

fn replay(run: &Run, steps: &[Step<'_>]) -> Result<Model, String> {
    let mut model = Model::new(run.about.remembered_max);
    let mut doubts = Doubts::default();
    for (n, step) in steps.iter().enumerate() {
        if step.time_ms < model.time {
            return Err(format!(
                "ledger time goes back from {} to {} ms at {}",
                model.time,
                step.time_ms,
                step.label()
            ));
        }
        model.pass(step.time_ms);
        one(&mut model, step, n, &mut doubts)?;
        told_truly(&model, step)?;
    }
    doubts.settle(run, steps)?;
    Ok(model)
}

/// Applies one step; learns what only its answer can tell.
fn one(model: &mut Model, step: &Step<'_>, n: usize, doubts: &mut Doubts) -> Result<(), String> {
    for _ in 0..step.unheard {
        model.may_remember_more();
    }
    let Some(answer) = step.answer else {
        return match model.apply(step.op, None) {
            Ok((_, false)) => Ok(()),
            other => Err(disagree(step, "an effect", &other)),
        };
    };
    if let Some(id) = step.op.id() {
        // What only an attempt whose answer was lost can have decided.
        if !model.ids.contains_key(id)
            && !is_expected_now(model, step, answer)
            && let Some(earlier) = doubts.earlier(step, answer, n)
        {
            model.learn(id, earlier);
        }
        // It was refused, but not by any verdict that was heard: the first one that is heard says how.
        if let Some(Known::Refused(None, _)) = model.ids.get(id)
            && let Some(how) = doubts::heard_first(step, answer)
        {
            model.ids.insert(id.to_owned(), how);
            return Ok(());
        }
    }
    let decided = model.apply(step.op, Some(answer));
    let same = match (answer, &decided) {
        (Answer::Ok { told, replayed, .. }, Ok((would_tell, would_repeat))) => {
            told == would_tell && replayed == would_repeat
        }
        (Answer::Refused { no, .. }, Err(would_say)) => no == would_say,
        _ => false,
    };
    if same { Ok(()) } else { Err(disagree(step, &format!("{answer:?}"), &decided)) }
}

/// Whether the model refuses the reserve just so, now.
fn is_expected_now(model: &Model, step: &Step<'_>, answer: &Answer) -> bool {
    let Answer::Refused { no, .. } = answer else { return false };
    doubts::content(step.op).is_some_and(|(content, keys)| model.rules(&content, &keys).as_ref() == Some(no))
}

fn disagree(step: &Step<'_>, was: &str, would: &super::model::Verdict) -> String {
    format!("at {}: {:?} was answered with {was}; by the model it is {would:?}", step.label(), step.op)
}

/// The balances that the feed told are those of the model.
fn told_truly(model: &Model, step: &Step<'_>) -> Result<(), String> {
    for change in step.changes {
        let single = change.offer.as_ref().zip(change.after);
        let lines = change.lines.iter().chain(&change.given_back).map(|l| (&l.line.offer, l.after));
        for (offer, after) in lines.chain(single) {
            if model.units(offer) != Some(after) {
                let would = model.units(offer);
                return Err(format!(
                    "at {}: {} tells that {offer} has {after:?} then; by the model it is {would:?}",
                    step.label(),
                    change.name
                ));
            }
        }
        if change.name == "InventoryReserved" || change.name == "ReservationExtended" {
            deadline_is_so(model, step, change)?;
        }
    }
    Ok(())
}

fn deadline_is_so(model: &Model, step: &Step<'_>, change: &Change) -> Result<(), String> {
    let known = change.id.as_ref().and_then(|id| model.ids.get(id));
    match known {
        Some(Known::Reserved(hold)) if Some(hold.deadline) == change.deadline_ms && hold.state == State::Held => Ok(()),
        other => {
            Err(format!("at {}: {} tells deadline {:?}: {other:?}", step.label(), change.name, change.deadline_ms))
        }
    }
}

/// What every node says at the end is what the model has when all holds have ended.
fn at_the_end(run: &Run, model: &Model) -> Vec<String> {
    let mut model = model.clone();
    model.pass(u64::MAX);
    let mut wrong = Vec::new();
    for stock in run.stock.iter().filter(|s| s.held() == 0) {
        for offer in &stock.offers {
            let key = crate::history::Offer { sku: stock.sku.clone(), sale: offer.sale.clone() };
            if let Some(units) = model.units(&key).filter(|units| *units != offer.units) {
                wrong
                    .push(format!("{key} on node {} ends as {:?}; by the model as {units:?}", stock.node, offer.units));
            }
        }
    }
    wrong
}

/// Whether a refusal is one of those that a reserve's id is remembered by.
pub(super) fn is_remembered(no: &No) -> bool {
    !matches!(
        no,
        No::LinesSpanSlots
            | No::IdWrongSlot
            | No::QuantityTooLarge
            | No::IdTaken
            | No::Forgotten
            | No::Fenced
            | No::Invalid
            | No::Other { .. }
    )
}

/// What a fence tells of a refusal.
pub(super) fn refusal_told(told: &Told) -> Option<&No> {
    match told {
        Told::WasRefused { no } => Some(no),
        _ => None,
    }
}

/// Whether the op is a reserve.
pub(super) fn is_reserve(op: &Op) -> bool {
    matches!(op, Op::Reserve { .. })
}
