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
///
/// Payments that come for an id before its order are a chain of their own: a reservation of that id begins
/// without a link to them, and what follows them links to them or to the reservation.
fn links(all: &[&Change]) -> Vec<String> {
    let mut products: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    let mut ids: BTreeMap<&str, Before> = BTreeMap::new();
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
            let before = ids.entry(id).or_default();
            if !before.may_precede(change) {
                wrong.push(format!(
                    "{} at {:?} names {:?} as the change before on {id}, but that is {:?}",
                    change.name, change.at, change.before_on_reservation, before.last
                ));
            }
            before.enter(change, here);
        }
    }
    wrong
}

/// The changes of one id so far.
#[derive(Default)]
struct Before {
    /// The newest of all.
    last: Option<(u64, u32)>,
    /// The newest that is of a reservation's stock.
    of_stock: Option<(u64, u32)>,
    /// The newest that is of an order or of payments without one.
    of_money: Option<(u64, u32)>,
    /// Whether a payment came before the reservation.
    paid_early: bool,
}

impl Before {
    fn may_precede(&self, change: &Change) -> bool {
        let link = change.before_on_reservation;
        if !self.paid_early {
            return link == self.last;
        }
        let begins = link.is_none() && (self.of_stock.is_none() || change.name == PAYMENT);
        begins || [self.last, self.of_stock, self.of_money].contains(&link)
    }

    fn enter(&mut self, change: &Change, here: (u64, u32)) {
        let of_stock = STOCK.contains(&change.name.as_str());
        self.paid_early |= change.name == PAYMENT && self.of_stock.is_none();
        self.last = Some(here);
        *(if of_stock { &mut self.of_stock } else { &mut self.of_money }) = Some(here);
    }
}

/// A payment, which may come before its order.
const PAYMENT: &str = "PaymentProcessed";
/// Changes of a reservation's stock.
const STOCK: [&str; 6] = [
    "InventoryReserved",
    "ReservationExtended",
    "ReservationConfirmed",
    "ReservationReleased",
    "ReservationExpired",
    "UnitsReturned",
];

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

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(index: u64, name: &str, before: Option<u64>) -> Change {
        let json = format!(r#"{{"at":{{"shard":1,"index":{index},"place":0,"term":1}},"time_ms":1,"name":"{name}"}}"#);
        let mut change: Change = serde_json::from_str(&json).expect("a change");
        change.id = Some("an id".to_owned());
        change.before_on_reservation = before.map(|index| (index, 0));
        change
    }

    fn wrong(changes: &[Change]) -> usize {
        links(&changes.iter().collect::<Vec<_>>()).len()
    }

    #[test]
    fn a_reservation_begins_without_a_link_only_where_a_payment_came_before_it() {
        let reserved = changed(2, "InventoryReserved", None);
        assert_eq!(wrong(&[changed(1, PAYMENT, None), reserved.clone(), changed(3, "OrderPlaced", Some(2))]), 0);
        assert_eq!(wrong(&[changed(1, PAYMENT, None), reserved.clone(), changed(3, PAYMENT, Some(1))]), 0);
        assert_eq!(wrong(&[changed(1, PAYMENT, None), reserved.clone(), changed(3, "ReservationReleased", None)]), 1);
        assert_eq!(wrong(&[changed(1, "ReservationReleased", None), reserved.clone()]), 1);
        assert_eq!(wrong(&[reserved, changed(3, "OrderPlaced", None)]), 1);
    }
}
