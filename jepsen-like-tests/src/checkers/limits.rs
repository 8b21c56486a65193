//! Limits are exact: at no moment of ledger time does a key hold and have bought more of an offer than its limit.
//!
//! By the ids' own times as read at the end, so neither by the log's order nor by the ledger's counts; that no limit refuses too early is
//! [`super::replay`]'s.
//!
//! **Owns** this one property. **Must never** count what was given back. **Read next**: [`super::arrival`].

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, FinalId, Offer, Op, Run};

/// Keys that were above a limit.
pub fn check(run: &Run) -> Vec<String> {
    let limits = limits(run);
    let ended: BTreeSet<&Offer> = run
        .events
        .iter()
        .filter_map(|e| match &e.op {
            Op::EndSale { offer } if !matches!(e.answer, Answer::Refused { .. } | Answer::NotNow { .. }) => Some(offer),
            _ => None,
        })
        .collect();
    let keys = keys(run);
    let mut moves: BTreeMap<(&Offer, &str), Vec<(u64, i64)>> = BTreeMap::new();
    for id in &run.ids {
        for (offer, from, to, units) in spans(id).into_iter().filter(|(offer, ..)| limits.contains_key(*offer)) {
            for key in keys.get(id.id.as_str()).into_iter().flatten() {
                let moves = moves.entry((offer, *key)).or_default();
                moves.push((from, units));
                if let Some(to) = to {
                    moves.push((to, -units));
                }
            }
        }
    }
    let mut wrong = Vec::new();
    // Counts end with the sale: what comes after its end is not counted with what was before.
    for ((offer, key), mut moves) in moves.into_iter().filter(|((offer, _), _)| !ended.contains(offer)) {
        let max = i64::from(limits[offer]);
        // In one instant what is given back goes first: the most favourable order is still to hold.
        moves.sort_unstable();
        let mut sum = 0;
        for (time, units) in moves {
            sum += units;
            if sum > max {
                wrong.push(format!("key {key} has {sum} of {offer} at {time} ms ledger time, its limit is {max}"));
                break;
            }
        }
    }
    wrong
}

/// The limit of each offer that has one and never changed it.
fn limits(run: &Run) -> BTreeMap<Offer, u32> {
    let mut limits: BTreeMap<Offer, Option<u32>> = BTreeMap::new();
    let mut changed: BTreeSet<Offer> = BTreeSet::new();
    for event in &run.events {
        let (offer, max) = match &event.op {
            Op::CreateProduct { sku, terms } => (Offer::plain(sku.as_str()), terms.per_key_max),
            Op::PutOffer { offer, terms, .. } => (offer.clone(), terms.per_key_max),
            _ => continue,
        };
        if limits.insert(offer.clone(), max).is_some_and(|before| before != max) {
            changed.insert(offer);
        }
    }
    limits.into_iter().filter(|(offer, _)| !changed.contains(offer)).filter_map(|(o, max)| Some((o, max?))).collect()
}

/// The keys of each id, by the client that asked.
fn keys(run: &Run) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| e.answer.is_ok()) {
        if let Op::Reserve { id, keys: of, .. } = &event.op {
            keys.insert(id, of.iter().map(String::as_str).collect());
        }
    }
    keys
}

/// From when to when how many units of each offer counted; what was bought and not brought back counts to the end.
fn spans(id: &FinalId) -> Vec<(&Offer, u64, Option<u64>, i64)> {
    let Some(from) = id.reserved_at_ms else { return Vec::new() };
    let to = match id.state.as_str() {
        "held" => None,
        "expired" => id.deadline_ms,
        _ => id.ended_at_ms,
    };
    let mut spans = Vec::new();
    for line in &id.lines {
        let kept = i64::from(line.sold - line.returned);
        let back = i64::from(line.line.quantity) - kept;
        spans.push((&line.line.offer, from, None, kept));
        // When units came back is not in the id; they count for as long as is certain, which is while it was held.
        spans.push((&line.line.offer, from, to, back));
    }
    spans
}
