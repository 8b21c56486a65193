//! An id is answered once: the first verdict of its content for ever, one effect; and `Forgotten` is never a lie.
//!
//! **Owns** this one property. **Must never** take *forgotten* for an excuse: what was forgotten never executes. **Read next**: [`super::acknowledged`].

use std::collections::{BTreeMap, BTreeSet};

use client_sdk::ReservationId;

use super::model::{FORGET_GUARD_MS, summed};
use super::replay::is_remembered;
use super::whole::Whole;
use crate::history::{Answer, At, Event, No, Offer, Op, Run, Told};

/// Ids with two verdicts or two effects, and ids forgotten that had to be known.
pub fn check(run: &Run) -> Vec<String> {
    let whole = Whole::of(run);
    let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
    for change in whole.changes() {
        let Some(id) = change.id.as_deref() else { continue };
        let life = lives.entry(id).or_default();
        match change.name.as_str() {
            "InventoryReserved" => life.reserved.push(change.at),
            "ReservationConfirmed" => life.confirmed = Some(change.at),
            "ReservationReleased" | "ReservationExpired" => life.ended = Some(change.at),
            _ => {}
        }
    }
    let mut events: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_stale_read()) {
        if let (Some(id), Some(_)) = (event.op.id(), event.answer.at()) {
            events.entry(id).or_default().push(event);
        }
    }
    let mut wrong: Vec<String> = lives
        .iter()
        .filter(|(_, life)| life.reserved.len() > 1)
        .map(|(id, life)| format!("{id} executed at each of {:?}", life.reserved))
        .collect();
    for (id, mut events) in events {
        events.sort_by_key(|e| e.answer.at());
        wrong.extend(one_id(run, id, lives.get(id).unwrap_or(&Life::default()), &events));
    }
    wrong
}

/// What the feed tells of an id.
#[derive(Default)]
struct Life {
    reserved: Vec<At>,
    confirmed: Option<At>,
    ended: Option<At>,
}

type Content = (BTreeMap<Offer, u64>, BTreeSet<String>, Option<u64>);

fn one_id(run: &Run, id: &str, life: &Life, events: &[&Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut verdicts: BTreeMap<Content, (At, String)> = BTreeMap::new();
    let mut first_oks = Vec::new();
    let mut never: Option<(At, &str)> = None;
    for event in events {
        let at = event.answer.at().expect("only such were taken");
        if let Some((since, why)) = never
            && !says_never(&event.answer, why)
        {
            wrong.push(format!("{id} was {why} at {since:?}, but at {at:?} it was answered {:?}", event.answer));
        }
        if forgotten(&event.answer) {
            wrong.extend(lie(run, id, life, event, at));
            never = Some((at, "forgotten"));
        } else if never.is_none() && fenced(&event.answer) {
            never = Some((at, "fenced"));
        }
        let Op::Reserve { lines, keys, hold_ms, .. } = &event.op else { continue };
        let verdict = match &event.answer {
            Answer::Ok { replayed, told, .. } => {
                if !replayed {
                    first_oks.push(at);
                }
                match told {
                    Told::Reservation { reserved_at_ms, .. } => format!("reserved at {reserved_at_ms}"),
                    other => format!("{other:?}"),
                }
            }
            Answer::Refused { no, .. } if is_remembered(no) => format!("refused: {no:?}"),
            _ => continue,
        };
        let content = (summed(lines), keys.iter().cloned().collect(), *hold_ms);
        let (before, first) = verdicts.entry(content).or_insert_with(|| (at, verdict.clone()));
        if *first != verdict {
            wrong.push(format!("{id} was answered `{first}` at {before:?}, and `{verdict}` at {at:?}"));
        }
    }
    if first_oks.len() > 1 {
        wrong.push(format!("{id} was taken for the first time at each of {first_oks:?}"));
    }
    let kinds: BTreeSet<&String> = verdicts.values().map(|(_, verdict)| verdict).collect();
    if kinds.len() > 1 {
        wrong.push(format!("{id} has verdicts for different contents: {kinds:?}"));
    }
    if let Some((since, why)) = never
        && let Some(at) = life.reserved.iter().find(|at| at.shard == since.shard && **at > since)
    {
        wrong.push(format!("{id} was {why} at {since:?}, and executed at {at:?}"));
    }
    wrong
}

fn forgotten(answer: &Answer) -> bool {
    match answer {
        Answer::Refused { no, .. } => *no == No::Forgotten,
        Answer::Ok { told: Told::Id { state, .. }, .. } => state == "forgotten",
        _ => false,
    }
}

fn fenced(answer: &Answer) -> bool {
    match answer {
        Answer::Refused { no, .. } => *no == No::Fenced,
        Answer::Ok { told, .. } => *told == Told::Never,
        _ => false,
    }
}

/// Whether the answer goes with an id that never executes any more. Shape comes before what is remembered, and a fence may be forgotten.
fn says_never(answer: &Answer, why: &str) -> bool {
    let shape =
        matches!(answer, Answer::Refused { no: No::LinesSpanSlots | No::IdWrongSlot | No::QuantityTooLarge, .. });
    let told = matches!(answer, Answer::Ok { told: Told::Id { state, .. }, .. } if state == "fenced");
    forgotten(answer) || (why == "fenced" && (fenced(answer) || shape || told)) || shape
}

/// Why this *forgotten* is not lawful, if it is not.
fn lie(run: &Run, id: &str, life: &Life, event: &Event, at: At) -> Option<String> {
    let time = event.answer.time_ms().unwrap_or_default();
    let minted = id.parse::<ReservationId>().map_or(0, ReservationId::time_ms);
    let before = |of: Option<At>| of.is_some_and(|of| of < at);
    let why = if run.about.remembered_max.is_none() {
        "nothing presses"
    } else if minted + FORGET_GUARD_MS > time {
        "it is too young"
    } else if before(life.confirmed) {
        "it is sold, and in its return window"
    } else if before(life.reserved.first().copied()) && !before(life.ended) && !run.about.history_cut {
        // A due hold that is not swept yet is no more forgotten than a live one.
        "it is held"
    } else {
        return None;
    };
    Some(format!("{id} was forgotten at {at:?} (ledger time {time}, minted {minted}), though {why}"))
}
