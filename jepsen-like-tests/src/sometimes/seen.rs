//! Rare states that the journal shows.
//!
//! **Owns** how each is recognised. **Must never** be stricter than the state's own words. **Read next**: [`super`].

use std::collections::{BTreeMap, BTreeSet};

use super::Counts;
use crate::history::{Answer, Change, Event, No, Offer, Op, Out, Run, Told};

/// What a run reached: what its probes counted, and what its journal shows.
pub fn of(run: &Run) -> Counts {
    let mut counts = run.sometimes.clone();
    let mut more = |name: &str, n: usize| {
        debug_assert!(super::ALL.iter().any(|rare| rare.name == name), "{name} is not in the table");
        if n > 0 {
            *counts.entry(name.to_owned()).or_default() += n as u64;
        }
    };
    let events = |of: &dyn Fn(&Event) -> bool| run.events.iter().filter(|e| of(e)).count();
    let refused = |of: &dyn Fn(&No) -> bool| events(&|e| matches!(&e.answer, Answer::Refused { no, .. } if of(no)));
    let not_now = |of: &str| events(&|e| matches!(&e.answer, Answer::NotNow { cause, .. } if cause == of));

    more("confirmed-in-last-ms", events(&in_last_ms));
    more("expired-when-confirmed", events(&|e| matches!(e.op, Op::Confirm { .. }) && is_expired(&e.answer)));
    more("memory-full", not_now("MemoryFull"));
    more("queue-full", not_now("Overloaded"));
    more("id-taken", refused(&|no| *no == No::IdTaken));
    more("limit-on-second-key", refused(&|no| matches!(no, No::LimitReached { key_index: 1.., .. })));
    more("first-back-told", refused(&|no| matches!(no, No::SoldOut { out: Out::FirstBack { .. }, .. })));
    more("gone-told", refused(&|no| matches!(no, No::SoldOut { out: Out::Gone, .. })));
    more("unknown", events(&|e| matches!(e.answer, Answer::Unknown { .. })));
    more("reference-replayed", events(&|e| matches!(e.op, Op::Receive { .. }) && e.answer.is_replay()));
    more(
        "fenced-then-asked",
        events(&|e| matches!(e.op, Op::Reserve { .. }) && matches!(e.answer, Answer::Refused { no: No::Fenced, .. })),
    );
    more("cursor-too-old", run.watched.iter().filter(|w| w.ended == "cut off").count());
    more("feed-broken", run.watched.iter().filter(|w| w.ended.starts_with("broken")).count());
    more("digests-compared", digests_compared(run));
    more("stale-read-behind", stale_behind(run));

    let retries = Retries::of(run);
    more("evicted-then-retried", retries.evicted);
    more("answer-lost-then-replayed", retries.lost);
    more("replayed-in-later-term", retries.later_term);

    if let Some(whole) = run.watched.iter().find(|w| w.consumer == 0) {
        more("expired-units-taken-at-once", taken_at_once(&whole.changes));
        more("ten-expired-in-one-instant", ten_at_once(&whole.changes));
        more("sale-ended-with-live-hold", ended_with_live_hold(&whole.changes));
        more("effect-never-answered", never_answered(run, &whole.changes));
    }
    counts
}

fn in_last_ms(event: &Event) -> bool {
    let Answer::Ok { time_ms, replayed: false, told: Told::Reservation { deadline_ms, .. }, .. } = event.answer else {
        return false;
    };
    matches!(event.op, Op::Confirm { .. }) && time_ms + 1 == deadline_ms
}

fn is_expired(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { no: No::NotHeld { state: crate::history::State::Expired }, .. })
}

fn digests_compared(run: &Run) -> usize {
    let mut nodes: BTreeMap<(u32, u64), BTreeSet<u64>> = BTreeMap::new();
    for digest in &run.digests {
        nodes.entry((digest.shard, digest.index)).or_default().insert(digest.node);
    }
    nodes.values().filter(|nodes| nodes.len() > 1).count()
}

/// Stale reads of a position below one that was answered before they were asked.
fn stale_behind(run: &Run) -> usize {
    let mut answered: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_read()) {
        if let Some(at) = event.answer.at() {
            answered.entry(at.shard).or_default().push((event.answered_ms, at.index));
        }
    }
    for all in answered.values_mut() {
        all.sort_unstable();
        for n in 1..all.len() {
            all[n].1 = all[n].1.max(all[n - 1].1);
        }
    }
    let behind = |e: &&Event| {
        let Some(at) = e.answer.at().filter(|_| e.op.is_stale_read()) else { return false };
        let all = answered.get(&at.shard).map(Vec::as_slice).unwrap_or_default();
        let before = all.partition_point(|(ms, _)| *ms < e.asked_ms);
        before > 0 && all[before - 1].1 > at.index
    };
    run.events.iter().filter(behind).count()
}

/// What became of ids that were asked for more than once.
#[derive(Default)]
struct Retries {
    evicted: usize,
    lost: usize,
    later_term: usize,
}

impl Retries {
    fn of(run: &Run) -> Self {
        let mut first: BTreeMap<&Op, &Event> = BTreeMap::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let mut sums = Self::default();
        let asked = |e: &&Event| !e.op.is_read();
        for event in run.events.iter().filter(asked) {
            match &event.answer {
                Answer::Refused { no: No::Forgotten, .. } => {
                    sums.evicted += usize::from(event.op.id().is_some_and(|id| known.contains(id)));
                }
                Answer::Ok { replayed: true, at, .. } => match first.get(&event.op) {
                    None => sums.lost += 1,
                    Some(before) => {
                        let terms = before.answer.at().zip(*at);
                        sums.later_term += usize::from(terms.is_some_and(|(a, b)| b.term > a.term));
                    }
                },
                Answer::Ok { .. } => drop(first.insert(&event.op, event)),
                _ => {}
            }
            if let (Some(id), Answer::Ok { .. } | Answer::Refused { .. }) = (event.op.id(), &event.answer) {
                known.insert(id);
            }
        }
        sums
    }
}

/// Reserves that the units of holds which the same entry ended were needed for.
fn taken_at_once(changes: &[Change]) -> usize {
    let mut taken = 0;
    for record in changes.chunk_by(|a, b| (a.at.shard, a.at.index) == (b.at.shard, b.at.index)) {
        let mut ended: BTreeMap<&Offer, u64> = BTreeMap::new();
        for change in record {
            for line in &change.lines {
                let units = u64::from(line.line.quantity);
                match change.name.as_str() {
                    "ReservationExpired" => *ended.entry(&line.line.offer).or_default() += units,
                    "InventoryReserved" => {
                        taken +=
                            usize::from(ended.get(&line.line.offer).is_some_and(|back| line.after.available < *back));
                    }
                    _ => {}
                }
            }
        }
    }
    taken
}

fn ten_at_once(changes: &[Change]) -> usize {
    let mut ended: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for change in changes.iter().filter(|c| c.name == "ReservationExpired") {
        *ended.entry((change.at.shard, change.deadline_ms.unwrap_or_default())).or_default() += 1;
    }
    ended.values().filter(|n| **n >= 10).count()
}

fn ended_with_live_hold(changes: &[Change]) -> usize {
    let mut ended: BTreeSet<&Offer> = BTreeSet::new();
    let mut found = 0;
    for change in changes {
        if change.name == "SaleEnded" && change.is_caused() {
            ended.extend(&change.offer);
        }
        let ends =
            matches!(change.name.as_str(), "ReservationConfirmed" | "ReservationReleased" | "ReservationExpired");
        let mut lines = change.lines.iter().chain(&change.given_back);
        found += usize::from(ends && lines.any(|l| ended.contains(&l.line.offer)));
    }
    found
}

/// Reservations that executed though no client was ever told so.
fn never_answered(run: &Run, changes: &[Change]) -> usize {
    let told: BTreeSet<&str> =
        run.events.iter().filter(|e| !e.op.is_read() && e.answer.is_ok()).filter_map(|e| e.op.id()).collect();
    let executed = changes.iter().filter(|c| c.name == "InventoryReserved").filter_map(|c| c.id.as_deref());
    executed.filter(|id| !told.contains(id)).count()
}
