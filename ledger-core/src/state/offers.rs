//! Offers and their sums: what is held until when, what is due, and what is available exactly.
//!
//! `available` and `held` of an [`Offer`] are as swept. Exactly available at ledger time are `available` plus the units of
//! due holds; those of an *ended* sale's offer belong to the product's plain offer, so that one also counts what is due in its ended siblings.
//! What is due is summed when ledger time moves ([`State::sum_due`]), one step for each distinct (offer, deadline), once: every question after it is
//! one addition, whoever asks it, and however far behind the sweep is.
//! An offer of an ended sale is removed when no record names it any more: what it sold is the plain one's from then on.
//! **Owns** the arithmetic of promises 1 to 3 and 12. **Must never** go below zero: every subtraction is checked.
//! **Read next**: [`super::memory`].

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::State;
use super::due::{ByDeadline, add_units, take_units};
use super::records::{NONE, Offer, Phase, Product, Reservation};
use super::seed::IndexHash;
use crate::outcome::{Balance, SoldOut};
use crate::types::{LedgerTime, OfferKey};

/// What is derived for an offer.
pub(crate) struct OfferSums {
    /// Units held until each deadline that is not due.
    until: ByDeadline<u64>,
    /// The time under which the offer stands in [`State::first_deadlines`]: its first deadline, or an earlier one that was given up.
    listed: Option<u64>,
    /// Units held by holds that are due and not swept.
    due: u64,
    /// Of a plain offer: the same of the ended offers of its product, whose units are its own.
    due_in_ended: u64,
    /// When its phase changes next, as it stands among the edges.
    pub(crate) edge: Option<u64>,
    /// Of a plain offer: the ended offers of its product that hold units, each by its first deadline that is not due.
    ended_until: BTreeSet<(u64, u32)>,
    /// Of an ended offer: the deadline under which it stands there.
    ended_listed: Option<u64>,
    /// The key as the codec writes it, made once.
    pub(crate) wire: Box<[u8]>,
    /// Digest of what forgotten reservations bought under limit keys here.
    pub(crate) kept_digest: u128,
    /// Its record's part of the running digest, and whether it changed since.
    pub(crate) digested: u128,
    pub(crate) dirty: bool,
    /// The product's record likewise, at its plain offer.
    pub(crate) product_digested: u128,
    pub(crate) product_dirty: bool,
    /// Lines of reservations, and refusals, that name it.
    pub(crate) named: u64,
    /// Units that remembered reservations bought here and did not return.
    pub(crate) bought: u64,
    /// Units that forgotten reservations bought here, summed over limit keys.
    pub(crate) kept: u64,
    /// Where it stands among those that are not in use.
    unused: Option<Unused>,
}

/// An offer that is not in use, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// Its sale has ended, and no record names it: it can be removed.
    Ended(u64),
    /// Its window closed, and forgotten reservations alone count under limit keys: they can be counted no more.
    Closed(u64),
}

impl OfferSums {
    pub(crate) fn new(offer: &OfferKey) -> Self {
        Self::of(crate::codec::offer_key_bytes(offer).into_boxed_slice())
    }

    fn of(wire: Box<[u8]>) -> Self {
        Self {
            until: ByDeadline::new(),
            listed: None,
            due: 0,
            due_in_ended: 0,
            edge: None,
            ended_until: BTreeSet::new(),
            ended_listed: None,
            wire,
            kept_digest: 0,
            digested: 0,
            dirty: false,
            product_digested: 0,
            product_dirty: false,
            named: 0,
            bought: 0,
            kept: 0,
            unused: None,
        }
    }

    /// Deadlines that it takes memory for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.until.places()
    }

    /// Where it stands among those not in use, for the audit.
    pub(crate) fn unused(&self) -> Option<Unused> {
        self.unused
    }

    /// All units it knows to be held: due, and live. For the audit.
    pub(crate) fn held_sums(&self) -> (u64, u64) {
        (self.due, self.until.iter().map(|(_, &units)| units).sum())
    }
}

/// Units fit an `i64` by far: they are bounded by `limits::UNITS_MAX`.
pub(crate) fn signed(units: u64) -> i64 {
    i64::try_from(units).expect("units are bounded")
}

#[inline]
fn exact(swept: i64, due: u64) -> u64 {
    let exact = swept + signed(due);
    u64::try_from(exact).unwrap_or_else(|_| panic!("oversold: {swept} available as swept, {due} due"))
}

/// The hash of an offer's key in the offers' index.
#[inline]
fn offer_hash(hash: &IndexHash, offer: &OfferKey) -> u64 {
    let sku = hash.of(offer.sku.as_str().as_bytes());
    // An odd factor: a sale that is named as its product does not cancel it out.
    offer.sale.as_ref().map_or(sku, |sale| sku ^ hash.of(sale.as_str().as_bytes()).wrapping_mul(5))
}

impl State {
    #[inline]
    pub(crate) fn find_offer(&self, offer: &OfferKey) -> Option<u32> {
        self.offer_index.find(offer_hash(&self.hash, offer), |at| self.offers.get(at).key == *offer)
    }

    pub(crate) fn find_product(&self, offer: &OfferKey) -> Option<u32> {
        self.by_sku.get(&offer.sku).copied()
    }

    /// Adds an offer, with a number of its own, to its product and to every index.
    pub(crate) fn add_offer(&mut self, at: u32, offer: Offer) {
        let key = offer.key.clone();
        let (ended, edge, product) = (offer.ended, offer.next_edge(), offer.product);
        self.offers.insert_at(at, offer);
        self.sums.put(at as usize, OfferSums::new(&key), || OfferSums::of(Box::default()));
        self.keys.add_offer(at, ended);
        self.offer_index.insert(offer_hash(&self.hash, &key), at);
        self.put_edge(at, edge.filter(|_| !ended));
        if let Some(sale) = key.sale {
            self.by_sale.insert((sale, key.sku), at);
            if !self.products.get(product).sales.contains(&at) {
                self.products.get_mut(product).sales.push(at);
            }
        }
        self.touch_offer(at);
        self.note_use(at);
    }

    /// Removes the offer of an ended sale that no record names: what it sold counts as the plain offer's.
    pub(crate) fn remove_offer(&mut self, at: u32) {
        let sums = std::mem::replace(&mut self.sums[at as usize], OfferSums::of(Box::default()));
        let (named, held) = (sums.named, sums.held_sums());
        assert!(named == 0 && held == (0, 0), "an offer goes that {named} records name and that holds {held:?}");
        assert_eq!(sums.ended_listed, None, "an offer goes that has a deadline");
        if let Some(listed) = sums.listed {
            self.first_deadlines.remove(&(listed, at));
        }
        if let Some(edge) = sums.edge {
            self.edges.remove(&(edge, at));
        }
        self.list_unused(at, sums.unused, None);
        self.digest_offer_gone(&sums);
        self.keys.remove_offer(at);
        let offer = self.offers.remove(at);
        self.offer_index.remove(offer_hash(&self.hash, &offer.key), at);
        self.offer_numbers.give(at);
        if let Some(sale) = offer.key.sale {
            self.by_sale.remove(&(sale, offer.key.sku));
            self.product_mut(offer.product).sales.retain(|&sale| sale != at);
            let plain = self.products.get(offer.product).plain;
            self.offer_mut(plain).sold += offer.sold;
        }
    }

    /// Removes a product whose plain offer is its only one, holds nothing and is named by no record.
    pub(crate) fn remove_product(&mut self, product: u32) {
        let plain = self.products.get(product).plain;
        self.digest_product_gone(plain);
        self.remove_offer(plain);
        let gone = self.products.remove(product);
        self.by_sku.remove(&gone.sku);
        self.product_numbers.give(product);
    }

    /// A record that names an offer was added.
    #[inline]
    pub(crate) fn name_offer(&mut self, at: u32) {
        self.sums[at as usize].named += 1;
        self.note_use(at);
    }

    /// A reservation was added.
    #[inline]
    pub(crate) fn name_offers(&mut self, r: &Reservation) {
        self.name_offer(r.line.offer);
        if r.extra != NONE {
            let further: SmallVec<[u32; 8]> = self.extras.get(r.extra).lines.iter().map(|line| line.offer).collect();
            further.into_iter().for_each(|offer| self.name_offer(offer));
        }
    }

    /// A record that named an offer is gone.
    pub(crate) fn unname_offer(&mut self, at: u32) {
        let named = &mut self.sums[at as usize].named;
        *named = named.checked_sub(1).expect("a record named it");
        self.note_use(at);
    }

    /// Whether an offer is in use may have changed.
    #[inline]
    pub(crate) fn note_use(&mut self, at: u32) {
        let offer = self.offers.get(at);
        if offer.phase == Phase::Over || self.sums[at as usize].unused.is_some() {
            let (before, now) = (self.sums[at as usize].unused, self.unused_since(at));
            self.sums[at as usize].unused = now;
            self.list_unused(at, before, now);
        }
    }

    /// Whether an offer is not in use: a function of the records.
    pub(crate) fn unused_since(&self, at: u32) -> Option<Unused> {
        let (offer, sums) = (self.offers.get(at), &self.sums[at as usize]);
        offer.key.sale.as_ref()?;
        if offer.ended {
            let in_use = sums.named > 0 && !crate::bad!("ended-offer-removed-early");
            return (!in_use).then_some(Unused::Ended(offer.ended_at));
        }
        let closed_at = offer.policy.closes_at.filter(|_| offer.phase == Phase::Over)?;
        (sums.kept > 0 && sums.bought == 0 && offer.held == 0).then_some(Unused::Closed(closed_at.0))
    }

    fn list_unused(&mut self, at: u32, before: Option<Unused>, now: Option<Unused>) {
        if before == now {
            return;
        }
        match before {
            Some(Unused::Ended(since)) => drop(self.unused_ended.remove(&(since, at))),
            Some(Unused::Closed(since)) => drop(self.unused_closed.remove(&(since, at))),
            None => {}
        }
        match now {
            Some(Unused::Ended(since)) => drop(self.unused_ended.insert((since, at))),
            Some(Unused::Closed(since)) => drop(self.unused_closed.insert((since, at))),
            None => {}
        }
    }

    /// Units that a remembered reservation bought were returned, or it is forgotten.
    pub(crate) fn no_longer_bought(&mut self, at: u32, units: u32) {
        let bought = &mut self.sums[at as usize].bought;
        *bought = bought.checked_sub(units.into()).expect("a remembered reservation bought them");
        self.note_use(at);
    }

    /// Units of an offer are held no more.
    #[inline]
    pub(crate) fn no_longer_held(&mut self, at: u32, units: u32) {
        let offer = self.offer_mut(at);
        offer.held = offer.held.checked_sub(u64::from(units)).expect("units of a hold are held until it ends");
        if offer.held == 0 && offer.phase == Phase::Over {
            self.note_use(at);
        }
    }

    /// Puts an offer's next edge among all.
    pub(crate) fn put_edge(&mut self, at: u32, edge: Option<u64>) {
        self.sums[at as usize].edge = edge;
        if let Some(edge) = edge {
            self.edges.insert((edge, at));
        }
    }

    /// The offer, to be changed; its part of the digest is made anew when the next one is taken.
    #[inline]
    pub(crate) fn offer_mut(&mut self, at: u32) -> &mut Offer {
        self.touch_offer(at);
        self.offers.get_mut(at)
    }

    #[inline]
    pub(crate) fn touch_offer(&mut self, at: u32) {
        let sums = &mut self.sums[at as usize];
        if !sums.dirty {
            sums.dirty = true;
            self.digest.dirty_offers.push(at);
        }
    }

    /// The product, to be changed.
    #[inline]
    pub(crate) fn product_mut(&mut self, at: u32) -> &mut Product {
        let product = self.products.get_mut(at);
        let sums = &mut self.sums[product.plain as usize];
        if !sums.product_dirty {
            sums.product_dirty = true;
            self.digest.dirty_products.push(at);
        }
        product
    }

    /// Units of due holds that are free again and belong to this offer.
    #[inline(always)]
    fn freed(sums: &OfferSums, offer: &Offer) -> u64 {
        sums.due_in_ended + if offer.ended { 0 } else { sums.due }
    }

    /// Units free to be reserved, exactly, at ledger time.
    #[inline(always)]
    pub(crate) fn available(&self, at: u32) -> u64 {
        let (offer, sums) = (self.offers.get(at), &self.sums[at as usize]);
        exact(offer.available, Self::freed(sums, offer))
    }

    /// The offer's units, exactly, at ledger time.
    #[inline(always)]
    pub(crate) fn balance(&self, at: u32) -> Balance {
        let (offer, sums) = (self.offers.get(at), &self.sums[at as usize]);
        let held = offer.held.checked_sub(sums.due).expect("no more units are due than are held");
        Balance { available: exact(offer.available, Self::freed(sums, offer)), held, sold: offer.sold }
    }

    /// The same of a state that may be broken: what is below zero counts as zero.
    pub(crate) fn balance_as_it_is(&self, at: u32) -> Balance {
        let (offer, sums) = (self.offers.get(at), &self.sums[at as usize]);
        let available = i128::from(offer.available) + i128::from(Self::freed(sums, offer));
        let available = u64::try_from(available).unwrap_or(0);
        Balance { available, held: offer.held.saturating_sub(sums.due), sold: offer.sold }
    }

    /// What *sold out* means now. Units come back from the offer's own holds, to the plain offer also from those of its ended
    /// siblings, and to an ended sale's offer never.
    pub(crate) fn sold_out(&self, at: u32) -> SoldOut {
        let available = self.available(at);
        if available > 0 {
            return SoldOut::Open { available };
        }
        let sums = &self.sums[at as usize];
        let own = sums.until.first().filter(|_| !self.offers.get(at).ended);
        let first = sums.ended_until.first().map(|&(until, _)| until).into_iter().chain(own).min();
        first.map_or(SoldOut::Gone, |until| SoldOut::FirstBackAt(LedgerTime(until)))
    }

    /// Sums what ledger time has made due, of all offers.
    pub(crate) fn sum_due(&mut self) {
        while let Some(&(first, at)) = self.first_deadlines.first()
            && first <= self.time
        {
            self.first_deadlines.pop_first();
            let sums = &mut self.sums[at as usize];
            self.offer_deadlines -= sums.until.len();
            let mut due = 0;
            while let Some((_, units)) = sums.until.pop_due(self.time) {
                due += units;
            }
            sums.until.trim(|&units| units == 0);
            sums.listed = sums.until.first();
            self.offer_deadlines += sums.until.len();
            self.first_deadlines.extend(sums.listed.map(|first| (first, at)));
            self.add_due(at, due);
            self.list_ended(at);
        }
    }

    fn add_due(&mut self, at: u32, units: u64) {
        self.sums[at as usize].due += units;
        let home = self.home_of(at);
        if home != at {
            self.sums[home as usize].due_in_ended += units;
        }
    }

    /// A due hold is swept.
    pub(crate) fn sweep_due(&mut self, at: u32, units: u32) {
        let less = |due: &mut u64| *due = due.checked_sub(u64::from(units)).expect("a swept hold was due");
        less(&mut self.sums[at as usize].due);
        let home = self.home_of(at);
        if home != at {
            less(&mut self.sums[home as usize].due_in_ended);
        }
    }

    /// A sale ended: what is due in its offer is the plain one's from now on.
    pub(crate) fn give_due_to_plain(&mut self, ended: u32, plain: u32) {
        let due = self.sums[ended as usize].due;
        self.sums[plain as usize].due_in_ended += due;
        self.list_ended(ended);
    }

    /// Counts units of a hold at its deadline.
    #[inline]
    pub(crate) fn hold_until(&mut self, at: u32, until: u64, units: u32) {
        if until <= self.time {
            // Read from a snapshot, or taken at the end of time: due from the beginning.
            return self.add_due(at, u64::from(units));
        }
        let sums = &mut self.sums[at as usize];
        let before = sums.until.len();
        add_units(&mut sums.until, until, u64::from(units));
        self.offer_deadlines += sums.until.len() - before;
        if sums.listed.is_none_or(|first| until < first) {
            let before = sums.listed.replace(until);
            before.map(|first| self.first_deadlines.remove(&(first, at)));
            self.first_deadlines.insert((until, at));
        }
        self.list_ended(at);
    }

    /// A live hold ended early or moved: it was to end at that deadline.
    pub(crate) fn unhold(&mut self, at: u32, until: u64, units: u32) {
        let sums = &mut self.sums[at as usize];
        self.offer_deadlines -= sums.until.len();
        take_units(&mut sums.until, until, u64::from(units));
        self.offer_deadlines += sums.until.len();
        self.list_ended(at);
    }

    /// The first deadline of an offer may have changed: if its sale has ended, its units are the plain offer's from then on.
    #[inline]
    pub(crate) fn list_ended(&mut self, at: u32) {
        if !self.offers.get(at).ended {
            return;
        }
        let (home, sums) = (self.home_of(at), &mut self.sums[at as usize]);
        let now = sums.until.first();
        let before = std::mem::replace(&mut sums.ended_listed, now);
        if before != now {
            let listed = &mut self.sums[home as usize].ended_until;
            before.map(|before| listed.remove(&(before, at)));
            listed.extend(now.map(|now| (now, at)));
        }
    }

    /// Where units go that leave a hold or a sale: an ended sale's to the plain offer.
    pub(crate) fn home_of(&self, at: u32) -> u32 {
        let offer = self.offers.get(at);
        if offer.ended { self.products.get(offer.product).plain } else { at }
    }

    /// Moves units from what is exactly available into a hold.
    #[inline]
    pub(crate) fn hold_units(&mut self, at: u32, units: u32, until: u64) {
        self.take_available(at, units.into());
        self.offer_mut(at).held += u64::from(units);
        self.hold_until(at, until, units);
    }

    /// Takes units out of what is exactly available. `available` as swept may go below zero: due holds pay that when they are swept.
    #[inline]
    pub(crate) fn take_available(&mut self, at: u32, units: u64) {
        let exact = self.available(at);
        assert!(exact >= units, "oversold: {units} taken of {exact}");
        self.offer_mut(at).available -= signed(units);
    }

    pub(crate) fn give_available(&mut self, at: u32, units: u64) {
        self.offer_mut(at).available += signed(units);
    }

    /// Offers of a product, the plain one first.
    pub(crate) fn offers_of(&self, product: u32) -> impl Iterator<Item = u32> {
        let product = self.products.get(product);
        std::iter::once(product.plain).chain(product.sales.iter().copied())
    }

    /// The place of an offer for texts that must name it.
    pub(crate) fn offer_key(&self, at: u32) -> OfferKey {
        assert_ne!(at, NONE, "an offer's place");
        self.offers.get(at).key.clone()
    }
}
