//! The steps of a replay: one shard's ops in the order of its log.
//!
//! **Owns** which effect belongs to which call. **Must never** give an effect to a call that was told nothing happened. **Read next**: [`super::doubts`].

use std::collections::{BTreeMap, BTreeSet};

use super::doubts;
use crate::checkers::model::summed;
use crate::checkers::whole::Whole;
use crate::history::{Answer, At, BEHIND, Change, Event, Line, No, Offer, Op, Run};

/// One op at its position.
pub(crate) struct Step<'a> {
    pub(crate) at: At,
    pub(crate) time_ms: u64,
    pub(crate) op: &'a Op,
    /// None: an effect that nobody was answered.
    pub(crate) answer: Option<&'a Answer>,
    /// When it was asked first.
    pub(crate) asked_ms: u64,
    /// When the answer came; never, if none did.
    pub(crate) answered_ms: u64,
    /// What the feed told of it.
    pub(crate) changes: &'a [Change],
    /// How many ids asked before this step may be remembered without anybody having heard of it.
    pub(crate) unheard: u32,
    /// The first step that may lie behind the first ask of this id.
    pub(crate) since: usize,
    /// Contents asked under the same id before, by attempts that nobody was answered, or were answered differently: their verdict may be this one.
    pub(crate) attempts: Vec<&'a Event>,
}

impl Step<'_> {
    /// Where it is, for people.
    pub(crate) fn label(&self) -> String {
        let At { shard, index, place, term } = self.at;
        let place = if place == BEHIND { "behind".to_owned() } else { place.to_string() };
        format!("shard {shard} index {index} place {place} (term {term})")
    }
}

/// The steps of one shard.
///
/// # Errors
/// Two commands at one position, an answer whose effect the feed does not have, an effect that nobody can have asked for.
pub(crate) fn steps<'a>(run: &'a Run, whole: &Whole<'a>, shard: u32) -> Result<Vec<Step<'a>>, String> {
    let by_id = events_by_id(run);
    let ended: BTreeSet<Option<&Offer>> = run.events.iter().map(|e| ended_by(&e.op)).collect();
    let mut caused: BTreeMap<(u64, u32), &'a [Change]> = BTreeMap::new();
    for (_, record) in whole.records.range((shard, 0)..=(shard, u64::MAX)) {
        for group in record.chunk_by(|a, b| a.at.place == b.at.place) {
            // Expiries and window edges come before place 0's own, under the same place.
            let by_command = |c: &Change| c.is_caused() && (!c.may_be_edge() || ended.contains(&c.offer.as_ref()));
            let own = group.iter().position(by_command).map_or(&group[..0], |n| &group[n..]);
            if let Some(first) = own.first() {
                caused.insert((first.at.index, first.at.place), own);
            }
        }
    }
    let mut steps = answered(run, shard, &mut caused)?;
    for (_, own) in caused {
        steps.push(unanswered(run, &by_id, own)?);
    }
    steps.sort_by_key(|s| (s.at, s.asked_ms));
    if let Some([a, b]) = steps.windows(2).find(|w| w[0].at == w[1].at && w[0].at.place != BEHIND) {
        return Err(format!("at {}: both {:?} and {:?} were decided there", a.label(), a.op, b.op));
    }
    with_windows(run, &by_id, &mut steps);
    Ok(steps)
}

/// The offer that an op ends by hand.
fn ended_by(op: &Op) -> Option<&Offer> {
    match op {
        Op::EndSale { offer } => Some(offer),
        _ => None,
    }
}

fn events_by_id(run: &Run) -> BTreeMap<&str, Vec<&Event>> {
    let mut by_id: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in &run.events {
        if let Some(id) = event.op.id() {
            by_id.entry(id).or_default().push(event);
        }
    }
    by_id
}

fn answered<'a>(
    run: &'a Run,
    shard: u32,
    caused: &mut BTreeMap<(u64, u32), &'a [Change]>,
) -> Result<Vec<Step<'a>>, String> {
    let mut steps = Vec::new();
    for event in &run.events {
        let Some(at) = event.answer.at().filter(|at| at.shard == shard) else { continue };
        let changes = caused.remove(&(at.index, at.place)).unwrap_or_default();
        let step = Step {
            at,
            time_ms: event.answer.time_ms().unwrap_or_default(),
            op: &event.op,
            answer: Some(&event.answer),
            asked_ms: event.asked_ms,
            answered_ms: event.answered_ms,
            changes,
            unheard: 0,
            since: 0,
            attempts: Vec::new(),
        };
        let effect = event.answer.is_first_ok() && !event.op.is_read() && !changes_nothing(event);
        if effect && (changes.is_empty() || !is_of(&changes[0], &event.op)) {
            let told = changes.first().map_or("nothing", |c| c.name.as_str());
            return Err(format!("at {}: {:?} was answered ok, but the feed has {told} there", step.label(), event.op));
        }
        if !effect && let Some(change) = changes.first() {
            return Err(format!(
                "at {}: {:?} was answered {:?}, but the feed has {} there",
                step.label(),
                event.op,
                event.answer,
                change.name
            ));
        }
        steps.push(step);
    }
    Ok(steps)
}

/// Whether an accepted call leaves no change: a fence, and an extension to the deadline that the hold has already.
fn changes_nothing(event: &Event) -> bool {
    match event.op {
        Op::Fence { .. } => true,
        Op::Extend { replaces_ms, hold_ms, .. } => event.answer.time_ms().map(|at| at + hold_ms) == Some(replaces_ms),
        _ => false,
    }
}

/// The step of an effect that nobody was answered: it belongs to a call in doubt.
fn unanswered<'a>(
    run: &'a Run,
    by_id: &BTreeMap<&'a str, Vec<&'a Event>>,
    changes: &'a [Change],
) -> Result<Step<'a>, String> {
    let change = &changes[0];
    let asked = |event: &&Event| is_of(change, &event.op);
    let of_id = change.id.as_deref().and_then(|id| by_id.get(id));
    let (asked, in_doubt): (Vec<&Event>, Vec<&Event>) = match of_id {
        Some(events) => events.iter().copied().filter(asked).partition(|e| !e.answer.may_hide_an_effect()),
        None => run.events.iter().filter(asked).partition(|e| !e.answer.may_hide_an_effect()),
    };
    // Of several contents under one id, what was answered later says which it was.
    let denied = |event: &Event| of_id.into_iter().flatten().any(|later| denies(later, change.at, &event.op));
    let Some(first) = in_doubt.iter().min_by_key(|e| (denied(e), e.asked_ms)) else {
        let told =
            asked.first().map_or("nobody asked for it".to_owned(), |e| format!("it was answered {:?}", e.answer));
        return Err(format!("the feed has {} of {:?} at {:?}, but {told}", change.name, change.id, change.at));
    };
    Ok(Step {
        at: change.at,
        time_ms: change.time_ms,
        op: &first.op,
        answer: None,
        asked_ms: first.asked_ms,
        answered_ms: u64::MAX,
        changes,
        unheard: 0,
        since: 0,
        attempts: Vec::new(),
    })
}

/// Whether the answer to a reserve says that what was decided there under its id was not this reserve.
fn denies(later: &Event, there: At, op: &Op) -> bool {
    let (Some((said, _)), Some((content, _))) = (doubts::content(&later.op), doubts::content(op)) else { return false };
    match &later.answer {
        Answer::Ok { at: Some(at), replayed: true, .. } => *at > there && said != content,
        Answer::Refused { at: Some(at), no: No::IdTaken, .. } => *at > there && said == content,
        _ => false,
    }
}

/// Whether the change is what the op does.
fn is_of(change: &Change, op: &Op) -> bool {
    let name = change.name.as_str();
    let about = |offer: &Offer| change.offer.as_ref() == Some(offer);
    let moved = |lines: &[crate::history::ChangedLine]| {
        lines.iter().map(|l| (l.line.offer.clone(), u64::from(l.line.quantity))).collect::<BTreeMap<_, _>>()
    };
    let part = |lines: &Option<Vec<Line>>| lines.as_deref().filter(|l| !l.is_empty()).map(summed);
    let same_id = |id: &str| change.id.as_deref() == Some(id);
    let refers = |reference: &str| change.reference.as_deref() == Some(reference);
    match op {
        Op::Reserve { id, lines, hold_ms, .. } => {
            name == "InventoryReserved"
                && same_id(id)
                && moved(&change.lines) == summed(lines)
                && hold_ms.is_none_or(|ms| change.deadline_ms == Some(change.time_ms + ms))
        }
        Op::Extend { id, hold_ms, .. } => {
            name == "ReservationExtended" && same_id(id) && change.deadline_ms == Some(change.time_ms + hold_ms)
        }
        Op::Confirm { id, lines } => {
            name == "ReservationConfirmed"
                && same_id(id)
                && part(lines).is_none_or(|asked| asked == moved(&change.lines))
                && (part(lines).is_some() || change.given_back.is_empty())
        }
        Op::Release { id } => name == "ReservationReleased" && same_id(id),
        Op::Return { id, reference, lines } => {
            name == "UnitsReturned"
                && same_id(id)
                && refers(reference)
                && part(lines).is_none_or(|asked| asked == moved(&change.lines))
        }
        Op::CreateProduct { sku, .. } => name == "ProductCreated" && about(&Offer::plain(sku.as_str())),
        Op::PutOffer { offer, expected_version, .. } => {
            name == "OfferPut" && about(offer) && change.number == Some(expected_version.unwrap_or(0) as i64 + 1)
        }
        Op::SetOpen { offer, open } => name == if *open { "OfferOpened" } else { "OfferClosed" } && about(offer),
        Op::EndSale { offer } => name == "SaleEnded" && about(offer),
        Op::Receive { offer, units, reference } => {
            name == "UnitsReceived" && about(offer) && refers(reference) && change.number == Some(*units as i64)
        }
        Op::Adjust { offer, delta, reference, .. } => {
            name == "UnitsAdjusted" && about(offer) && refers(reference) && change.number == Some(*delta)
        }
        Op::Allot { sku, from, units, reference, .. } => {
            name == "UnitsAllotted"
                && about(&Offer { sku: sku.clone(), sale: from.clone() })
                && refers(reference)
                && change.number == Some(*units as i64)
        }
        Op::Fence { .. } | Op::ReadOffer { .. } | Op::ReadId { .. } => false,
    }
}

/// For every step: since when its call may have been decided, and which attempts before it nobody was answered.
fn with_windows<'a>(run: &'a Run, by_id: &BTreeMap<&'a str, Vec<&'a Event>>, steps: &mut [Step<'a>]) {
    // By time of answer: the furthest step that was decided by then.
    let mut done: Vec<(u64, usize)> = steps.iter().enumerate().map(|(n, s)| (s.answered_ms, n)).collect();
    done.sort_unstable();
    let mut furthest = 0;
    for entry in &mut done {
        furthest = furthest.max(entry.1);
        entry.1 = furthest;
    }
    let mut unheard: Vec<u64> = run
        .events
        .iter()
        .filter(|e| matches!(e.op, Op::Reserve { .. } | Op::Fence { .. }) && matches!(e.answer, Answer::Unknown { .. }))
        .map(|e| e.asked_ms)
        .collect();
    unheard.sort_unstable();
    let mut told = 0;
    for step in steps {
        let before = |ms: u64| done.partition_point(|(answered, _)| *answered < ms);
        let up_to = unheard.partition_point(|asked| *asked <= step.answered_ms);
        step.unheard = (up_to.max(told) - told) as u32;
        told = up_to.max(told);
        let Some(id) = step.op.id() else { continue };
        let attempts = by_id.get(id).into_iter().flatten().copied();
        step.attempts = attempts.filter(|e| e.asked_ms <= step.answered_ms && decides(&e.op)).collect();
        let first = step.attempts.iter().map(|e| e.asked_ms).min().unwrap_or(step.asked_ms);
        step.since = match before(first) {
            0 => 0,
            n => done[n - 1].1 + 1,
        };
    }
}

/// Whether an op may decide what an id is.
fn decides(op: &Op) -> bool {
    matches!(op, Op::Reserve { .. } | Op::Fence { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{At, State, Told};

    #[test]
    fn an_extension_to_the_deadline_that_the_hold_has_changes_nothing() {
        let extended = |replaces_ms: u64| {
            let op = Op::Extend { id: "an id".to_owned(), replaces_ms, hold_ms: 100 };
            let told = Told::Reservation { state: State::Held, deadline_ms: 1_100, reserved_at_ms: 900 };
            let at = Some(At { shard: 1, index: 7, place: 0, term: 1 });
            let answer = Answer::Ok { at, time_ms: 1_000, age_ms: None, replayed: false, told };
            Event { client: 1, op, asked_ms: 0, answered_ms: 1, answer }
        };
        assert!(changes_nothing(&extended(1_100)));
        assert!(!changes_nothing(&extended(1_099)));
    }
}
