//! The feed: gap-free, ordered, the same on all nodes, from any cursor on; each change names the one before it.
//!
//! **Owns** this one property. **Must never** forgive a change told twice behind a cursor. **Read next**: [`super::whole`].

use std::collections::BTreeMap;

use super::whole::{Whole, is_expected};
use crate::history::{Change, Run, Watched};

/// Watches that were told something else than the whole feed has from there on, and changes whose links miss one.
pub fn check(run: &Run) -> Vec<String> {
    let whole = Whole::of(run);
    let mut wrong = Vec::new();
    let by_shard: BTreeMap<u32, Vec<&Change>> = whole.shards().into_iter().map(|s| (s, whole.of_shard(s))).collect();
    for watched in &run.watched {
        for (shard, all) in &by_shard {
            wrong.extend(judge(run, watched, *shard, all));
        }
    }
    if is_expected(run) {
        by_shard.values().for_each(|all| wrong.extend(links(all)));
    }
    wrong
}

fn judge(run: &Run, watched: &Watched, shard: u32, all: &[&Change]) -> Option<String> {
    let told: Vec<&Change> = watched.changes.iter().filter(|c| c.at.shard == shard).collect();
    let who = || format!("consumer {} on node {} from {}", watched.consumer, watched.node, watched.began);
    let behind = || watched.behind.iter().find(|(s, _)| *s == shard).map_or(0, |(_, n)| *n as usize);
    let start = match watched.began.as_str() {
        "oldest" if is_expected(run) => 0,
        "cursor" if is_expected(run) && !began_now(run, watched) => behind(),
        // Wherever it began, it must go on from there without a gap.
        _ => all.iter().position(|c| Some(c) == told.first()).unwrap_or(0),
    };
    for (n, told) in told.iter().enumerate() {
        match all.get(start + n) {
            Some(there) if there == told => {}
            Some(there) => {
                return Some(format!(
                    "{}: change {n} of shard {shard} is {} at {:?}, but the feed has {} at {:?} there",
                    who(),
                    told.name,
                    told.at,
                    there.name,
                    there.at
                ));
            }
            None => return Some(format!("{}: change {n} of shard {shard} at {:?} is told twice", who(), told.at)),
        }
    }
    let complete = watched.consumer == 0 && watched.ended == "caught up";
    (complete && start + told.len() < all.len()).then(|| {
        let next = all[start + told.len()];
        format!("{}: ends before {} at {:?} of shard {shard}, which others were told", who(), next.name, next.at)
    })
}

/// Consumers that began at *now* cannot count from the beginning.
fn began_now(run: &Run, watched: &Watched) -> bool {
    run.watched.iter().any(|w| w.consumer == watched.consumer && w.began == "now")
}

/// Each change names the change before on each of its products and on its reservation.
fn links(all: &[&Change]) -> Vec<String> {
    let mut products: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    let mut ids: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for change in all {
        let here = (change.at.index, change.at.place);
        let told = std::iter::once(&change.before_on_product).chain(&change.before_on_further);
        let named = products_of(change);
        if named.len() > 1 + change.before_on_further.len() {
            wrong.push(format!("{} at {:?} lacks links on some of {named:?}", change.name, change.at));
        }
        for (sku, told) in named.into_iter().zip(told) {
            let before = products.insert(sku, here);
            if *told != before {
                wrong.push(format!(
                    "{} at {:?} names {told:?} as the change before on {sku}, but that is {before:?}",
                    change.name, change.at
                ));
            }
        }
        if let Some(id) = &change.id {
            let before = ids.insert(id, here);
            if change.before_on_reservation != before {
                wrong.push(format!(
                    "{} at {:?} names {:?} as the change before on {id}, but that is {before:?}",
                    change.name, change.at, change.before_on_reservation
                ));
            }
        }
    }
    wrong
}

/// The products of a change, each once, as it names them first.
fn products_of(change: &Change) -> Vec<&str> {
    let lines = change.lines.iter().chain(&change.given_back).map(|l| &l.line.offer);
    let mut named: Vec<&str> = Vec::new();
    for offer in lines.chain(&change.offer) {
        if !named.contains(&offer.sku.as_str()) {
            named.push(&offer.sku);
        }
    }
    named
}
