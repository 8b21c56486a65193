//! Linearizable, on samples: is there any order at all, whatever the positions say?
//!
//! The search of Wing and Gong with Lowe's memory, as porcupine and knossos do it: take any op that nothing unfinished precedes, see whether the
//! model answers as it was answered, go on; remember what was tried. It believes no position, only real time, answers and the ledger times in
//! them; so it also finds what a log could make look right. It costs too much for whole runs: products of a few dozen ops are sampled.
//!
//! **Owns** the search. **Must never** say *no* because it was too long: that is *undecided*. **Read next**: [`super::replay`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::model::{Model, summed};
use super::replay::{is_remembered, is_reserve};
use crate::history::{Answer, Event, FinalId, FinalLine, Op, Run};

/// Most ops of a sample: they fit the bits of a word, and a search that ends.
const OPS_MAX: usize = 60;
/// Steps of a search before it is undecided.
const STEPS_MAX: u32 = 20_000;
/// Samples of a run.
const SAMPLES_MAX: usize = 8;

/// Products for whose ops no order explains the answers.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for (product, ops) in samples(run).into_iter().take(SAMPLES_MAX) {
        if let Verdict::None { furthest } = search(run, &ops) {
            wrong.push(format!(
                "{product}: no order of its {} ops explains the answers; the longest ends before one of {furthest:?}",
                ops.len()
            ));
        }
    }
    wrong
}

/// One op of a sample.
struct Sampled<'a> {
    op: &'a Op,
    /// None: in doubt, but known by the end to have happened.
    answer: Option<&'a Answer>,
    asked_ms: u64,
    answered_ms: u64,
    /// Ledger time, if it is certain.
    time_ms: u64,
}

/// What a search found.
enum Verdict {
    Some,
    Undecided,
    None { furthest: Vec<String> },
}

/// Products that have few enough ops and share none with others, with everything that concerns them.
fn samples(run: &Run) -> Vec<(&str, Vec<Sampled<'_>>)> {
    let finals: BTreeMap<&str, &FinalId> = run.ids.iter().map(|f| (f.id.as_str(), f)).collect();
    let mut product_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in &run.events {
        if let (Some(id), Op::Reserve { .. }) = (event.op.id(), &event.op) {
            product_of.entry(id).or_default().extend(event.op.skus());
        }
    }
    let mut by_product: BTreeMap<&str, Option<Vec<&Event>>> = BTreeMap::new();
    for event in run.events.iter().filter(|e| !e.op.is_stale_read()) {
        let mut skus = event.op.skus();
        skus.extend(event.op.id().and_then(|id| product_of.get(id)).into_iter().flatten());
        skus.sort_unstable();
        skus.dedup();
        for sku in &skus {
            let events = by_product.entry(sku).or_insert_with(|| Some(Vec::new()));
            match events {
                // A reservation over several products joins them: too much for a sample.
                Some(events) if skus.len() == 1 && events.len() <= 2 * OPS_MAX => events.push(event),
                _ => *events = None,
            }
        }
    }
    let sampled = by_product.into_iter().filter_map(|(sku, events)| Some((sku, sample(&events?, &finals)?)));
    sampled.filter(|(_, ops)| ops.len() <= OPS_MAX).collect()
}

/// The ops of a product; none if one in doubt cannot be resolved by what was read at the end.
fn sample<'a>(events: &[&'a Event], finals: &BTreeMap<&str, &'a FinalId>) -> Option<Vec<Sampled<'a>>> {
    let mut ops = Vec::new();
    let mut in_doubt: BTreeMap<&Op, u64> = BTreeMap::new();
    let mut settled: BTreeSet<&Op> = BTreeSet::new();
    for event in events {
        match &event.answer {
            Answer::NotNow { .. } => {}
            Answer::Unknown { .. } if event.op.is_read() => {}
            Answer::Unknown { .. } => {
                let first = in_doubt.entry(&event.op).or_insert(event.asked_ms);
                *first = (*first).min(event.asked_ms);
            }
            answer => {
                settled.insert(&event.op);
                ops.push(Sampled {
                    op: &event.op,
                    answer: Some(answer),
                    asked_ms: event.asked_ms,
                    answered_ms: event.answered_ms,
                    time_ms: answer.time_ms().unwrap_or_default(),
                });
            }
        }
    }
    for (op, asked_ms) in in_doubt {
        let id = op.id().and_then(|id| finals.get(id));
        let time_ms = match (op, id) {
            // Asked again until it was definite: the first attempt may be the one that was decided.
            _ if settled.contains(op) => {
                if let Some(first) = ops.iter_mut().filter(|o| o.op == op).min_by_key(|o| o.asked_ms) {
                    first.asked_ms = first.asked_ms.min(asked_ms);
                }
                if !is_reserve(op) || ops.iter().any(|o| o.op == op && o.answer.is_some_and(Answer::is_replay)) {
                    return None;
                }
                continue;
            }
            (_, Some(f)) => match turned_out(op, f, events) {
                Doubt::Effect(time_ms) => time_ms,
                Doubt::Nothing => continue,
                Doubt::Open => return None,
            },
            (_, None) => return None,
        };
        ops.push(Sampled { op, answer: None, asked_ms, answered_ms: u64::MAX, time_ms });
    }
    // Replays of what nobody was answered, and extensions of doubtful deadlines, need the log's help.
    let taken: BTreeSet<&str> = ops
        .iter()
        .filter(|o| is_reserve(o.op) && o.answer.is_none_or(Answer::is_first_ok))
        .filter_map(|o| o.op.id())
        .collect();
    let explained =
        |o: &Sampled<'_>| !o.answer.is_some_and(Answer::is_replay) || o.op.id().is_none_or(|id| taken.contains(id));
    let plain = |o: &Sampled<'_>| match o.answer {
        Some(answer) => !answer.is_replay() || is_reserve(o.op),
        None => true,
    };
    ops.iter().all(|o| explained(o) && plain(o)).then_some(ops)
}

/// What an op in doubt turned out to be.
enum Doubt {
    /// It had no effect.
    Nothing,
    /// It took effect at this ledger time.
    Effect(u64),
    /// What was read at the end does not tell.
    Open,
}

/// Resolves a reserve, a release or a confirm in doubt: each takes effect once an id, so of several contents asked under it at most one did.
fn turned_out(op: &Op, f: &FinalId, events: &[&Event]) -> Doubt {
    let time_ms = match (op, f.state.as_str()) {
        (Op::Reserve { .. } | Op::Release { .. } | Op::Confirm { .. }, "forgotten") => return Doubt::Open,
        (Op::Reserve { .. }, "refused" | "fenced") => return Doubt::Open,
        (Op::Reserve { .. }, _) => f.reserved_at_ms,
        (Op::Release { .. }, "released") | (Op::Confirm { .. }, "confirmed") => f.ended_at_ms,
        (Op::Release { .. } | Op::Confirm { .. }, _) => None,
        _ => return Doubt::Open,
    };
    let Some(time_ms) = time_ms.filter(|_| could_be(op, f, events)) else { return Doubt::Nothing };
    let alike = |e: &&&Event| e.op.id() == op.id() && e.op.name() == op.name() && e.op != *op;
    let mut others = events.iter().filter(alike);
    if others.clone().any(|e| e.answer.is_first_ok()) {
        return Doubt::Nothing;
    }
    match others.any(|e| e.answer.may_hide_an_effect() && could_be(&e.op, f, events)) {
        true => Doubt::Open,
        false => Doubt::Effect(time_ms),
    }
}

/// Whether the op, had it taken effect, would have left what was read at the end.
fn could_be(op: &Op, f: &FinalId, events: &[&Event]) -> bool {
    let units = |of: &dyn Fn(&FinalLine) -> u32| {
        let lines = f.lines.iter().map(|l| (l.line.offer.clone(), u64::from(of(l))));
        lines.filter(|(_, units)| *units > 0).collect::<BTreeMap<_, _>>()
    };
    let reserved = || units(&|l| l.line.quantity);
    match op {
        Op::Reserve { id, lines, hold_ms, .. } => {
            let extends = |e: &&Event| matches!(e.op, Op::Extend { .. }) && e.op.id() == Some(id);
            let lasted = f.reserved_at_ms.and_then(|from| f.deadline_ms?.checked_sub(from));
            reserved() == summed(lines) && (hold_ms.is_none() || lasted == *hold_ms || events.iter().any(extends))
        }
        Op::Confirm { lines, .. } => {
            units(&|l| l.sold) == lines.as_deref().filter(|l| !l.is_empty()).map_or_else(reserved, summed)
        }
        _ => true,
    }
}

/// One place in the search: the model, and which ops are behind it.
struct Place {
    model: Model,
    done: u64,
    /// Ops that may come next and were not tried yet.
    next: Vec<usize>,
}

fn search(run: &Run, ops: &[Sampled<'_>]) -> Verdict {
    let all = if ops.len() == 64 { u64::MAX } else { (1 << ops.len()) - 1 };
    // Which ids the cap presses out depends on all products of a shard: a sample takes the ledger's word for it.
    let model = Model::new(run.about.remembered_max.map(|_| 0));
    let mut tried: HashSet<(u64, u64)> = HashSet::new();
    let mut path = vec![Place { next: minimal(ops, 0), model, done: 0 }];
    let mut furthest: (u32, Vec<String>) = (0, Vec::new());
    let mut steps = 0;
    while let Some(place) = path.last_mut() {
        if place.done == all {
            return Verdict::Some;
        }
        steps += 1;
        if steps > STEPS_MAX {
            return Verdict::Undecided;
        }
        if place.done.count_ones() >= furthest.0 {
            let stuck = minimal(ops, place.done).into_iter().map(|n| format!("{:?}", ops[n].op)).collect();
            furthest = (place.done.count_ones() + 1, stuck);
        }
        let Some(n) = place.next.pop() else {
            path.pop();
            continue;
        };
        let done = place.done | 1 << n;
        if let Some(model) = take(&place.model, &ops[n])
            && tried.insert((done, digest(&model)))
        {
            path.push(Place { next: minimal(ops, done), model, done });
        }
    }
    Verdict::None { furthest: furthest.1 }
}

/// Ops not done that nothing not done precedes in real time, the likeliest (by ledger time) last.
fn minimal(ops: &[Sampled<'_>], done: u64) -> Vec<usize> {
    let left = || (0..ops.len()).filter(|n| done & (1 << n) == 0);
    let first_answer = left().map(|n| ops[n].answered_ms).min().unwrap_or(u64::MAX);
    let mut next: Vec<usize> = left().filter(|&n| ops[n].asked_ms <= first_answer).collect();
    next.sort_by_key(|&n| std::cmp::Reverse(ops[n].time_ms));
    next
}

/// The model behind the op, if it is answered as it was.
fn take(model: &Model, op: &Sampled<'_>) -> Option<Model> {
    match op.answer {
        Some(Answer::Refused { at: None, .. }) => Some(model.clone()),
        Some(answer @ Answer::Refused { no, .. }) if is_reserve(op.op) && is_remembered(no) => {
            // It may have been decided by an earlier attempt of the call, at any ledger time up to the one told.
            let mut model = model.clone();
            loop {
                let mut behind = model.clone();
                if behind.apply(op.op, Some(answer)).as_ref() == Err(no) {
                    return Some(behind);
                }
                model.pass(model.next_due().filter(|due| *due <= op.time_ms)?);
            }
        }
        Some(answer) => {
            let mut model = at(model, op)?;
            let decided = model.apply(op.op, Some(answer));
            let same = match (answer, decided) {
                (Answer::Ok { told, replayed, .. }, Ok((would, again))) => *told == would && *replayed == again,
                (Answer::Refused { no, .. }, Err(would)) => *no == would,
                _ => false,
            };
            same.then_some(model)
        }
        None => {
            let mut model = at(model, op)?;
            matches!(model.apply(op.op, None), Ok((_, false))).then_some(model)
        }
    }
}

/// The model at the op's ledger time, which never goes back.
fn at(model: &Model, op: &Sampled<'_>) -> Option<Model> {
    (model.time <= op.time_ms).then(|| {
        let mut model = model.clone();
        model.pass(op.time_ms);
        model
    })
}

fn digest(model: &Model) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    hasher.finish()
}
