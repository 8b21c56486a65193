//! The audit: every invariant recomputed from the primary records and compared with what is derived.
//!
//! **What it is.** Two audits. The one here looks at a state where it stands, with every index and queue, and takes memory in proportion:
//! for small ledgers and tests. The one in [`frozen`] goes over a frozen view of any size in bounded memory.
//! **Owns** the second count. **Must never** use a derived sum to check itself. **Read next**: [`frozen`].

mod findings;
pub(crate) mod frozen;
mod orders;

use std::collections::{BTreeMap, BTreeSet};

use crate::outcome::Status;
use crate::state::State;
use crate::state::ids::Found;
use crate::state::records::NONE;
use crate::view::Audit;
use findings::Findings;

/// What the records say.
#[derive(Default)]
struct Recount {
    held: BTreeMap<u32, u64>,
    due: BTreeMap<u32, u64>,
    sold: BTreeMap<u32, u64>,
    /// Records that name it.
    named: BTreeMap<u32, u64>,
    /// Units by (key, offer): held beyond now, bought.
    keys: BTreeMap<(u32, u32), (u64, u64)>,
    carried: BTreeMap<u32, u32>,
    holds: BTreeSet<(u64, u32)>,
    ids: u64,
    sold_reservations: usize,
    ended: usize,
    refused: usize,
}

struct Auditing<'a> {
    state: &'a State,
    findings: Findings,
}

impl State {
    pub(crate) fn audit(&self) -> Audit {
        let mut auditing = Auditing { state: self, findings: Findings::default() };
        let recount = auditing.recount();
        auditing.offers(&recount);
        auditing.products();
        auditing.keys(&recount);
        auditing.expiry(&recount);
        auditing.memory(&recount);
        auditing.indexes();
        auditing.orders();
        Audit { totals: self.totals(), findings: auditing.findings.into_vec() }
    }
}

impl Auditing<'_> {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, invariant: &'static str, what: &str, kept: T, counted: T) {
        self.findings.expect(invariant, || what.to_owned(), kept, counted);
    }

    fn recount(&mut self) -> Recount {
        let s = self.state;
        let mut n = Recount::default();
        for (at, r) in s.reservations.iter() {
            n.ids += 1;
            self.expect("index", &format!("place of {}", r.id()), s.find(r.id()), Some(Found::Reservation(at)));
            let status = r.status.expect("present");
            match status {
                Status::Held => drop(n.holds.insert((r.deadline, at))),
                Status::Confirmed | Status::Released | Status::Expired => match r.remembered_sold(&s.orders.records) {
                    Some(true) => n.sold_reservations += 1,
                    Some(false) => n.ended += 1,
                    None => {}
                },
            }
            let ends = (status == Status::Held) == (r.ended_at == 0) || s.time == 0;
            self.expect("ends-once", &format!("{} is {status:?} and ended at {}", r.id(), r.ended_at), ends, true);
            let keys = s.key_list(r);
            for &key in &keys {
                *n.carried.entry(key).or_default() += 1;
            }
            for line in s.lines(r) {
                let reserved = u64::from(line.reserved());
                let sold = u64::from(line.sold - line.returned);
                if status == Status::Held {
                    *n.held.entry(line.offer).or_default() += reserved;
                    if r.deadline <= s.time {
                        *n.due.entry(line.offer).or_default() += reserved;
                    }
                }
                *n.sold.entry(line.offer).or_default() += sold;
                *n.named.entry(line.offer).or_default() += 1;
                if line.counted() && !s.offers.get(line.offer).ended {
                    for &key in &keys {
                        let counts = n.keys.entry((key, line.offer)).or_default();
                        counts.0 += if status == Status::Held && r.deadline > s.time { reserved } else { 0 };
                        counts.1 += sold;
                    }
                }
            }
        }
        for (at, r) in s.refused.iter() {
            n.ids += 1;
            n.refused += 1;
            if let Some(offer) = r.named_offer() {
                *n.named.entry(offer).or_default() += 1;
            }
            self.expect("index", &format!("place of {}", r.id()), s.find(r.id()), Some(Found::Refused(at)));
        }
        n
    }

    fn offers(&mut self, n: &Recount) {
        let s = self.state;
        for (at, offer) in s.offers.iter() {
            let of = |sums: &BTreeMap<u32, u64>| sums.get(&at).copied().unwrap_or(0);
            let sums = &s.sums[at as usize];
            let (due, live) = sums.held_sums();
            let name = format!("{:?}", offer.key);
            self.expect("stranded", &format!("held in {name}"), offer.held, of(&n.held));
            self.expect("memory", &format!("records that name {name}"), sums.named, of(&n.named));
            self.expect("memory", &format!("remembered as bought in {name}"), sums.bought, of(&n.sold));
            self.expect("memory", &format!("{name} is not in use"), sums.unused(), s.unused_since(at));
            self.expect("expiry", &format!("due in {name}"), due, of(&n.due));
            self.expect("expiry", &format!("live in {name}"), live, of(&n.held) - of(&n.due));
            // Sold reservations that were forgotten stay sold.
            let sold = offer.sold >= of(&n.sold);
            self.expect("conserved", &format!("{} sold in {name}, {} remembered", offer.sold, of(&n.sold)), sold, true);
            let mut exact = i128::from(offer.available);
            if !offer.ended {
                exact += i128::from(of(&n.due));
            }
            if offer.key.sale.is_none() {
                let ended = s.products.get(offer.product).sales.iter().filter(|&&sale| s.offers.get(sale).ended);
                exact += ended.map(|sale| i128::from(n.due.get(sale).copied().unwrap_or(0))).sum::<i128>();
            }
            self.expect("oversold", &format!("available in {name}, {exact}, is not negative"), exact >= 0, true);
            if exact >= 0 {
                self.expect("stranded", &format!("available in {name}"), i128::from(s.balance(at).available), exact);
            }
            self.expect(
                "expiry",
                &format!("next edge of {name}"),
                s.sums[at as usize].edge,
                if offer.ended { None } else { offer.next_edge() },
            );
            let among = s.sums[at as usize].edge.is_none_or(|edge| s.edges.contains(&(edge, at)));
            self.expect("expiry", &format!("edge of {name} among all"), among, true);
            self.expect("index", &format!("place of {name}"), s.find_offer(&offer.key), Some(at));
        }
        let sums = || s.offers.iter().map(|(at, _)| &s.sums[at as usize]);
        let unused = sums().filter(|sums| sums.unused().is_some()).count();
        self.expect("memory", "offers not in use", s.unused_ended.len() + s.unused_closed.len(), unused);
        let edges = sums().filter(|sums| sums.edge.is_some()).count();
        self.expect("expiry", "edges", s.edges.len(), edges);
    }

    fn products(&mut self) {
        let s = self.state;
        for (at, product) in s.products.iter() {
            let name = product.sku.as_str();
            let units: i128 = s
                .offers_of(at)
                .map(|offer| s.balance(offer))
                .map(|b| i128::from(b.available) + i128::from(b.held) + i128::from(b.sold))
                .sum();
            let came = i128::from(product.received) + i128::from(product.adjusted);
            self.expect("conserved", &format!("units of {name}"), units, came);
            let sold: u64 = s.offers_of(at).map(|offer| s.offers.get(offer).sold).sum();
            self.expect("conserved", &format!("sold of {name}"), sold, product.ever_sold - product.returned);
            // Counted anew for each product: of many products only the sums are compared.
            if s.products.len() <= 1_000 {
                let offers = s.offers.iter().filter(|(_, o)| o.product == at).count();
                self.expect("index", &format!("offers of {name}"), s.offers_of(at).count(), offers);
            }
        }
    }

    fn keys(&mut self, n: &Recount) {
        let s = self.state;
        let mut counters = 0;
        let mut kept_in = BTreeMap::<u32, u64>::new();
        for (key, offer, used, sold, kept) in s.keys.iter(s.time) {
            counters += 1;
            *kept_in.entry(offer).or_default() += kept;
            let name = format!("{} in {:?}", s.keys.text(key), s.offers.get(offer).key);
            let (held, bought) = n.keys.get(&(key, offer)).copied().unwrap_or_default();
            self.expect("limits", &format!("bought by {name}"), sold, bought + kept);
            self.expect("limits", &format!("counted for {name}"), used, held + bought + kept);
        }
        for (at, offer) in s.offers.iter() {
            let kept = kept_in.get(&at).copied().unwrap_or(0);
            self.expect("limits", &format!("kept in {:?}", offer.key), s.sums[at as usize].kept, kept);
        }
        self.expect("limits", "counters", s.keys.counts(), counters);
        let counted = n.keys.iter().filter(|(_, counts)| counts.0 + counts.1 > 0);
        for (&(key, offer), &(held, bought)) in counted {
            let used = s.keys.used(key, offer, s.time);
            let enough = used >= held + bought;
            self.expect("limits", &format!("{used} counted of {held} held and {bought} bought"), enough, true);
        }
        // A key that is not found by its text would be counted a second time, from nothing.
        for (key, _) in s.keys.carried() {
            let text = s.keys.text(key);
            self.expect("index", &format!("place of key {text}"), s.keys.find(text).place, Some(key));
        }
        let carried: BTreeMap<u32, u32> = s.keys.carried().filter(|&(_, times)| times > 0).collect();
        self.expect("limits", "keys carried", &carried, &n.carried);
    }

    fn expiry(&mut self, n: &Recount) {
        let s = self.state;
        let counts = |at: u32, deadline: u64| State::due_id(&s.reservations, at, deadline).is_some();
        let queued: BTreeSet<(u64, u32)> = s.expiry.entries(counts).into_iter().collect();
        self.expect("expiry", "holds in the queue", s.expiry.len(), n.holds.len());
        if queued != n.holds {
            let odd: Vec<_> = queued.symmetric_difference(&n.holds).take(5).collect();
            self.expect("expiry", &format!("queue and holds differ in {odd:?}"), queued.len(), n.holds.len() + 1);
        }
        let due = n.holds.iter().filter(|(deadline, _)| *deadline <= s.time).count();
        self.expect("expiry", "due holds", s.expiry.count_due(s.time), due as u64);
        if !crate::bad!("sweep-after-verdict") {
            self.expect("expiry", "due holds as counted", s.expiry.due(), due);
        }
    }

    fn memory(&mut self, n: &Recount) {
        let s = self.state;
        let capped = n.ended + n.refused;
        self.expect(
            "memory",
            "sold, ended, refused, capped",
            s.memory.lengths(),
            [n.sold_reservations, n.ended, n.refused, capped],
        );
        self.expect("memory", "ids", s.ids.len() as u64, n.ids);
        let guard = s.time.saturating_sub(crate::limits::FORGET_GUARD_MS);
        for (slot, to) in s.forgotten_below.iter().map(|below| below.saturating_sub(1)).enumerate() {
            self.expect(
                "memory",
                &format!("forgotten_to of slot {slot}, {to}, is not above {guard}"),
                to <= guard,
                true,
            );
        }
    }

    /// Orders, their money, and the queues made anew from the records.
    fn orders(&mut self) {
        let s = self.state;
        let mut linked = 0;
        for (at, order) in s.orders.records.iter() {
            let id = order.id();
            self.expect("orders", &format!("place of {id}"), s.order_of(id), Some(at));
            let known = |place: u32| s.reservations.try_get(place).filter(|_| place != NONE);
            let (own, other) = (known(order.reservation), known(order.linked));
            linked += usize::from(other.is_some());
            orders::check(&mut self.findings, at, order, own, other);
        }
        let belonging = s.reservations.iter().filter(|(_, r)| r.order != NONE).count();
        let own = s.orders.records.len() - s.orders.queues.strays.len();
        self.expect("orders", "reservations of orders", belonging, own + linked);
        let same = s.orders.queues == s.queues_recounted();
        self.expect("queue", "the queues are what the records say", same, true);
    }

    fn indexes(&mut self) {
        let s = self.state;
        self.expect("index", "products by SKU", s.by_sku.len(), s.products.len());
        let sales = s.offers.iter().filter(|(_, o)| o.key.sale.is_some()).count();
        self.expect("index", "offers by sale", s.by_sale.len(), sales);
        self.expect("index", "offers", s.offer_index.len(), s.offers.len());
        self.expect("index", "references", s.references.indexed(), s.references.len());
        let names = s.refused.iter().filter(|(_, r)| r.why.names_unknown()).count();
        self.expect("memory", "names of unknown offers", s.unknown_names.len(), names);
        let extras = s.reservations.iter().filter(|(_, r)| r.extra != crate::state::records::NONE).count();
        self.expect("memory", "extra parts", s.extras.len(), extras);
    }
}
