//! First come, first served: nobody is served with what an earlier one was refused, unless units came back in between.
//!
//! **Owns** this one property. **Must never** compare across offers or shards. **Read next**: [`super::expiry`].

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Step, steps};
use super::whole::Whole;
use crate::history::{Answer, Change, No, Offer, Op, Run};

/// Successes behind a sold-out refusal of as little, though nothing came back.
pub fn check(run: &Run) -> Vec<String> {
    let whole = Whole::of(run);
    if run.about.history_cut {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for shard in whole.shards() {
        if let Ok(steps) = steps(run, &whole, shard) {
            wrong.extend(one_shard(&whole.of_shard(shard), &steps));
        }
    }
    wrong
}

/// The smallest quantity refused since units last came back, and where.
type Refused<'a> = BTreeMap<&'a Offer, (u64, u64, String)>;

fn one_shard(changes: &[&Change], steps: &[Step<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut refused: Refused<'_> = BTreeMap::new();
    let mut deadlines: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    // The step at which units last came back to a product.
    let mut back: BTreeMap<&str, usize> = BTreeMap::new();
    let mut next = 0;
    for (n, step) in steps.iter().enumerate() {
        while next < changes.len() && (changes[next].at.index, changes[next].at.place) <= (step.at.index, step.at.place)
        {
            for sku in comes_back(changes[next]) {
                back.insert(sku, n);
                refused.retain(|offer, _| offer.sku != sku);
            }
            if let Some(deadline) = changes[next].deadline_ms {
                for line in &changes[next].lines {
                    deadlines.entry(&line.line.offer.sku).or_default().insert(deadline);
                }
                if changes[next].lines.is_empty() {
                    // An extension names no product: it may be any of this slot.
                    deadlines.values_mut().for_each(|all| all.extend([deadline]));
                }
            }
            next += 1;
        }
        for (sku, all) in &mut deadlines {
            while all.first().is_some_and(|deadline| *deadline <= step.time_ms) {
                all.pop_first();
                back.insert(sku, n);
                refused.retain(|offer, _| offer.sku != *sku);
            }
        }
        let Op::Reserve { lines, .. } = step.op else { continue };
        let [line] = lines.as_slice() else { continue };
        let quantity = u64::from(line.quantity);
        match step.answer {
            // It may repeat a verdict of since it was first asked: then nothing may have come back since.
            Some(Answer::Refused { no: No::SoldOut { .. }, .. })
                if back.get(line.offer.sku.as_str()).is_none_or(|at| *at < step.since.min(n)) =>
            {
                let least = refused.entry(&line.offer).or_insert((quantity, step.time_ms, step.label()));
                if quantity < least.0 {
                    *least = (quantity, step.time_ms, step.label());
                }
            }
            None | Some(Answer::Ok { replayed: false, .. }) => {
                if let Some((least, _, at)) = refused.get(&line.offer).filter(|(least, ..)| *least <= quantity) {
                    wrong.push(format!(
                        "{} gives {quantity} of {}, though {least} were refused before at {at} and nothing came back",
                        step.label(),
                        line.offer
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// The products that units may have come back to.
fn comes_back(change: &Change) -> Vec<&str> {
    match change.name.as_str() {
        "ReservationReleased" | "ReservationExpired" | "UnitsReturned" => {
            change.lines.iter().map(|l| l.line.offer.sku.as_str()).collect()
        }
        "ReservationConfirmed" => change.given_back.iter().map(|l| l.line.offer.sku.as_str()).collect(),
        "UnitsReceived" | "UnitsAllotted" | "UnitsAdjusted" | "SaleEnded" => {
            change.offer.iter().map(|o| o.sku.as_str()).collect()
        }
        _ => Vec::new(),
    }
}
