//! Products, offers, receive, adjust, allot, sale ends, and the shard's own settings.
//!
//! **Owns** the model of stock that no reservation moves. **Must never** take below zero. **Read next**: `feed`.

use ledger_core::command::Command;
use ledger_core::outcome::{Balance, Bound, Outcome, Refusal, Settled, Status};
use ledger_core::{OfferKey, Policy, Reference, Sku, Slot, limits};

use super::settle::same_content;
use super::{Known, Model, Offer, Product, Seen, What};

impl Offer {
    fn new(policy: &Policy) -> Self {
        Self { policy: policy.clone(), version: 1, units: 0, ended: false, ended_at: 0, sold_before: 0 }
    }
}

/// How often a record names an offer.
fn naming(known: &Known, offer: &OfferKey) -> u64 {
    match &known.what {
        What::Reserved(r) => u64::from(r.lines.contains_key(offer)),
        What::Refused(_, Refusal::LimitReached { offer: named, .. } | Refusal::SoldOut { offer: named, .. }) => {
            u64::from(named == offer)
        }
        What::Refused(..) | What::Fenced => 0,
    }
}

/// What passing time does to offers.
impl Model {
    /// Records that name an offer: those that the ledger had not forgotten before the entry, and has not after it.
    fn named(&self, offer: &OfferKey, seen: &Seen<'_>) -> (u64, u64) {
        let known = || self.ids.iter().filter(|(_, known)| !known.forgotten);
        let after = known().filter(|(id, _)| !(seen.forgets)(**id)).map(|(_, known)| naming(known, offer)).sum();
        (known().map(|(_, known)| naming(known, offer)).sum(), after)
    }

    /// Limits of plain offers count what is remembered; those of a sale, all that it sold. That goes a return window after its window closed, when
    /// all that was bought in it is forgotten.
    pub(super) fn stop_counting(&mut self, seen: &Seen<'_>) {
        let forgotten_now: Vec<_> = self
            .reservations()
            .filter(|(id, r)| r.status == Status::Confirmed && !self.ids[id].forgotten && (seen.forgets)(*id))
            .flat_map(|(id, r)| r.lines.keys().map(move |offer| (id, offer.clone())))
            .filter(|(_, offer)| offer.sale.is_none())
            .collect();
        for (id, offer) in forgotten_now {
            self.reservation_mut(id).lines.get_mut(&offer).expect("just seen").counted = false;
        }
        let retained = self.settings.retain_sold_ms.max(limits::RETAIN_MS_MIN);
        let over = |state: &Offer| state.policy.closes_at.is_some_and(|at| at.0 + retained <= self.time);
        let sales = self.offers.iter().filter(|(key, state)| key.sale.is_some() && !state.ended && over(state));
        let sales: Vec<OfferKey> = sales.map(|(key, _)| key.clone()).collect();
        for sale in sales {
            let counts = self.reservations().any(|(id, r)| {
                let forgotten = self.ids[&id].forgotten || (seen.forgets)(id);
                r.lines.get(&sale).is_some_and(|line| match r.status {
                    Status::Held => true,
                    Status::Confirmed => !forgotten && line.sold > line.returned,
                    Status::Expired => self.unswept.contains(&(r.deadline, id)),
                    Status::Released => false,
                })
            });
            let ids: Vec<_> = self.reservations().map(|(id, _)| id).filter(|_| !counts).collect();
            for id in ids {
                if let Some(line) = self.reservation_mut(id).lines.get_mut(&sale) {
                    line.counted = false;
                }
            }
        }
    }

    /// An ended sale's offer goes after the retention of what has ended, once no record names it.
    pub(super) fn remove_offers(&mut self, seen: &Seen<'_>) {
        let retained = self.settings.retain_ended_ms.max(limits::RETAIN_MS_MIN);
        for key in seen.removed {
            let (state, (_, named)) = (&self.offers[key], self.named(key, seen));
            let past = state.ended && state.ended_at + retained <= self.time;
            assert!(past && named == 0, "{key:?} was removed at {}, {named} records name it", self.time);
            let Balance { available, held, sold } = self.balance(key);
            assert_eq!((available, held), (0, 0), "{key:?} was removed");
            self.offers.remove(key);
            let ids: Vec<_> = self.reservations().map(|(id, _)| id).collect();
            for id in ids {
                self.reservation_mut(id).lines.remove(key);
            }
            let plain = self.offers.get_mut(&OfferKey { sku: key.sku.clone(), sale: None }).expect("its product's");
            (plain.units, plain.sold_before) = (plain.units + sold, plain.sold_before + sold);
        }
        for (key, state) in &self.offers {
            let (named, _) = self.named(key, seen);
            let past = state.ended && state.ended_at + retained <= self.time;
            assert!(!past || named > 0, "{key:?} is there at {} though nothing names it", self.time);
        }
    }

    pub(super) fn delete(&mut self, sku: &Sku, answer: &Outcome, seen: &Seen<'_>) -> Result<Settled, Refusal> {
        let plain = OfferKey { sku: sku.clone(), sale: None };
        self.must_have(&plain)?;
        let offers: Vec<&OfferKey> = self.offers.keys().filter(|offer| offer.sku == *sku).collect();
        let sales = offers.len() as u64 - 1;
        let balances = offers.into_iter().map(|offer| self.balance(offer));
        let units = balances.map(|balance| balance.available + balance.held).sum();
        // What is forgotten within the entry may still be there when the command is decided.
        let (before, after) = self.named(&plain, seen);
        let records = match answer {
            Outcome::Refused(Refusal::ProductInUse { records, .. }) => (*records).clamp(after, before),
            _ => after,
        };
        if units > 0 || sales > 0 || records > 0 {
            return Err(Refusal::ProductInUse { units, sales, records });
        }
        self.offers.remove(&plain);
        self.products.remove(sku);
        let number = self.created.iter_mut().find(|created| created.as_ref() == Some(sku));
        *number.expect("it was created") = None;
        let ids: Vec<_> = self.reservations().map(|(id, _)| id).collect();
        for id in ids {
            self.reservation_mut(id).lines.remove(&plain);
        }
        Ok(Settled::Done)
    }
}

impl Model {
    pub(super) fn create(&mut self, sku: &Sku, policy: &Policy) -> Result<Settled, Refusal> {
        let plain = OfferKey { sku: sku.clone(), sale: None };
        if let Some(product) = self.products.get(sku) {
            return match product.created_with == *policy {
                true => Ok(Settled::Offer { version: self.offers[&plain].version, replayed: true }),
                false => Err(Refusal::AlreadyExists),
            };
        }
        match self.created.iter_mut().find(|number| number.is_none()) {
            Some(free) => *free = Some(sku.clone()),
            None => self.created.push(Some(sku.clone())),
        }
        self.products.insert(sku.clone(), Product { created_with: policy.clone(), ..Product::default() });
        self.offers.insert(plain, Offer::new(policy));
        Ok(Settled::Offer { version: 1, replayed: false })
    }

    fn must_have(&self, offer: &OfferKey) -> Result<(), Refusal> {
        if !self.products.contains_key(&offer.sku) {
            return Err(Refusal::UnknownProduct { offer: offer.clone() });
        }
        if !self.offers.contains_key(offer) {
            return Err(Refusal::UnknownOffer { offer: offer.clone() });
        }
        Ok(())
    }

    pub(super) fn put(&mut self, offer: &OfferKey, policy: &Policy, expected: Option<u64>) -> Result<Settled, Refusal> {
        match (self.must_have(offer), expected) {
            (Ok(()), expected) => {
                let state = self.offers.get_mut(offer).expect("just checked");
                let same = state.policy == *policy;
                match expected {
                    _ if state.ended => Err(Refusal::SaleHasEnded),
                    None if same => Ok(Settled::Offer { version: state.version, replayed: true }),
                    None => Err(Refusal::AlreadyExists),
                    Some(v) if same && v + 1 == state.version => {
                        Ok(Settled::Offer { version: state.version, replayed: true })
                    }
                    Some(v) if v != state.version => Err(Refusal::VersionMismatch { actual: state.version }),
                    Some(_) => {
                        state.policy = policy.clone();
                        state.version += 1;
                        Ok(Settled::Offer { version: state.version, replayed: false })
                    }
                }
            }
            (Err(Refusal::UnknownOffer { .. }), None) => {
                if self.offers.keys().filter(|o| o.sku == offer.sku).count() >= limits::OFFERS_PER_PRODUCT_MAX {
                    let max = limits::OFFERS_PER_PRODUCT_MAX as u64;
                    return Err(Refusal::TooMany { what: Bound::OffersPerProduct, max });
                }
                self.offers.insert(offer.clone(), Offer::new(policy));
                Ok(Settled::Offer { version: 1, replayed: false })
            }
            (Err(why), _) => Err(why),
        }
    }

    pub(super) fn set_open(&mut self, offer: &OfferKey, open: bool) -> Result<Settled, Refusal> {
        self.must_have(offer)?;
        let state = self.offers.get_mut(offer).expect("just checked");
        if state.ended {
            return Err(Refusal::SaleHasEnded);
        }
        let replayed = state.policy.open == open;
        if !replayed {
            state.policy.open = open;
            state.version += 1;
        }
        Ok(Settled::Offer { version: state.version, replayed })
    }

    pub(super) fn end_sale(&mut self, offer: &OfferKey) -> Result<Settled, Refusal> {
        self.must_have(offer)?;
        let available = self.balance(offer).available;
        let state = self.offers.get_mut(offer).expect("just checked");
        if state.ended {
            return Ok(Settled::Offer { version: state.version, replayed: true });
        }
        (state.ended, state.ended_at) = (true, self.time);
        state.version += 1;
        state.units -= available;
        let version = state.version;
        let plain = OfferKey { sku: offer.sku.clone(), sale: None };
        self.offers.get_mut(&plain).expect("every product has it").units += available;
        Ok(Settled::Offer { version, replayed: false })
    }

    fn units_of(&self, sku: &Sku) -> u64 {
        self.offers.iter().filter(|(o, _)| o.sku == *sku).map(|(_, state)| state.units).sum()
    }

    fn stocked(&self, offer: &OfferKey, replayed: bool) -> Settled {
        Settled::Stocked { balance: self.balance(offer), version: self.offers[offer].version, replayed }
    }

    /// The use of a reference that is still remembered.
    fn use_of(&self, offer: &OfferKey, reference: &Reference) -> Option<&Command> {
        let (command, until) = self.references.get(&(offer.sku.clone(), reference.clone()))?;
        (*until > self.time).then_some(command)
    }

    /// The answer to a movement that was done before, though its offer may be gone.
    fn done_before(&self, command: &Command, offer: &OfferKey, reference: &Reference) -> Option<Settled> {
        self.use_of(offer, reference).filter(|before| same_content(before, command))?;
        Some(match self.offers.contains_key(offer) {
            true => self.stocked(offer, true),
            false => Settled::Stocked { balance: Balance::default(), version: 0, replayed: true },
        })
    }

    fn must_be_free(&self, offer: &OfferKey, reference: &Reference) -> Result<(), Refusal> {
        match self.use_of(offer, reference) {
            Some(_) => Err(Refusal::ReferenceTaken),
            None => Ok(()),
        }
    }

    fn moved(&mut self, command: &Command, offer: &OfferKey, reference: &Reference) -> Settled {
        // Times of use are kept in steps of 65,536 ms, rounded up.
        let until = (((self.time >> 16) + 1) << 16) + limits::REFERENCE_KEPT_MS;
        self.references.insert((offer.sku.clone(), reference.clone()), (command.clone(), until));
        self.stocked(offer, false)
    }

    fn must_not_have_ended(&self, offer: &OfferKey) -> Result<(), Refusal> {
        match self.offers[offer].ended {
            true => Err(Refusal::SaleHasEnded),
            false => Ok(()),
        }
    }

    fn must_fit(&self, sku: &Sku, more: u64) -> Result<(), Refusal> {
        match self.units_of(sku) + more > limits::UNITS_MAX {
            true => Err(Refusal::TooMany { what: Bound::UnitsPerProduct, max: limits::UNITS_MAX }),
            false => Ok(()),
        }
    }

    pub(super) fn receive(
        &mut self,
        command: &Command,
        offer: &OfferKey,
        units: u64,
        reference: &Reference,
    ) -> Result<Settled, Refusal> {
        if let Some(before) = self.done_before(command, offer, reference) {
            return Ok(before);
        }
        self.must_have(offer)?;
        self.must_be_free(offer, reference)?;
        self.must_not_have_ended(offer)?;
        self.must_fit(&offer.sku, units)?;
        self.offers.get_mut(offer).expect("known").units += units;
        self.products.get_mut(&offer.sku).expect("known").received += units;
        Ok(self.moved(command, offer, reference))
    }

    pub(super) fn adjust(
        &mut self,
        command: &Command,
        offer: &OfferKey,
        delta: i64,
        reference: &Reference,
        expected: Option<u64>,
    ) -> Result<Settled, Refusal> {
        if let Some(before) = self.done_before(command, offer, reference) {
            return Ok(before);
        }
        self.must_have(offer)?;
        self.must_be_free(offer, reference)?;
        self.must_not_have_ended(offer)?;
        let actual = self.offers[offer].version;
        if expected.is_some_and(|v| v != actual) {
            return Err(Refusal::VersionMismatch { actual });
        }
        let available = self.balance(offer).available;
        if delta < 0 && available < delta.unsigned_abs() {
            return Err(Refusal::NotEnoughAvailable { available });
        }
        if delta > 0 {
            self.must_fit(&offer.sku, delta.unsigned_abs())?;
        }
        let state = self.offers.get_mut(offer).expect("known");
        state.units = state.units.checked_add_signed(delta).expect("checked against available");
        self.products.get_mut(&offer.sku).expect("known").adjusted += delta;
        Ok(self.moved(command, offer, reference))
    }

    pub(super) fn allot(
        &mut self,
        command: &Command,
        from: &OfferKey,
        to: &OfferKey,
        units: u64,
        reference: &Reference,
    ) -> Result<Settled, Refusal> {
        if let Some(before) = self.done_before(command, to, reference) {
            return Ok(before);
        }
        self.must_have(from)?;
        self.must_have(to)?;
        self.must_be_free(to, reference)?;
        self.must_not_have_ended(from)?;
        self.must_not_have_ended(to)?;
        let available = self.balance(from).available;
        if available < units {
            return Err(Refusal::NotEnoughAvailable { available });
        }
        self.offers.get_mut(from).expect("known").units -= units;
        self.offers.get_mut(to).expect("known").units += units;
        Ok(self.moved(command, to, reference))
    }

    pub(super) fn own(&mut self, generation: u64, ranges: &[(Slot, Slot)]) -> Result<Settled, Refusal> {
        if generation <= self.owned_generation {
            return Err(Refusal::StaleGeneration { present: self.owned_generation });
        }
        self.owned_generation = generation;
        self.owned_ranges = ranges.to_vec();
        Ok(Settled::Done)
    }

    pub(super) fn switch(&mut self, version: u16) -> Result<Settled, Refusal> {
        if version < self.behaviour || version > limits::BEHAVIOUR_VERSION_MAX {
            return Err(Refusal::BehaviourUnknown { version, present: self.behaviour });
        }
        self.behaviour = version;
        Ok(Settled::Done)
    }
}
