//! A reader of the feed that knows nothing but the records, and recomputes the stock from them alone.
//!
//! Deadlines are in the records, and every record carries its ledger time, so the reader ends due holds itself and every
//! balance told must be exactly the one it computes, swept or not. `ReservationExpired` must then follow for each, in (deadline, id) order.
//!
//! **Owns** the check that the feed alone suffices. **Must never** ask the ledger or the model. **Read next**: `beside`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ledger_core::change::{LineChange, Record};
use ledger_core::codec::{chain_after, decode_record};
use ledger_core::outcome::{Balance, SoldOut};
use ledger_core::{Change, ChangeKind, LedgerTime, OfferKey, Policy, ReservationId, Sku, limits};

/// Stock as the feed tells it.
#[derive(Default)]
pub(crate) struct Feed {
    pub(crate) chain: u128,
    offers: BTreeMap<OfferKey, FedOffer>,
    holds: BTreeMap<ReservationId, FedHold>,
    sold: BTreeMap<(ReservationId, OfferKey), u64>,
    product_heads: BTreeMap<Sku, (u64, u16)>,
    reservation_heads: BTreeMap<ReservationId, (u64, u16)>,
    /// Of orders known by payments alone.
    stray_heads: BTreeMap<ReservationId, (u64, u16)>,
    /// What must be told next about offers whose availability just fell.
    to_be_told: VecDeque<ChangeKind>,
}

struct FedOffer {
    policy: Policy,
    units: u64,
    ended: bool,
}

struct FedHold {
    deadline: u64,
    lines: BTreeMap<OfferKey, u64>,
    due: bool,
}

impl Feed {
    /// Takes the record of one entry; `time` is the entry's ledger time. Returns it decoded.
    pub(crate) fn take(&mut self, time: u64, bytes: Option<&[u8]>) -> Option<Record> {
        self.end_due(time);
        let mut expired = 0;
        let record = bytes.map(|bytes| {
            let record = decode_record(bytes).expect("own record decodes");
            assert_eq!(record.chain_before, self.chain, "the chain is broken before {:?}", record.position);
            assert_eq!(record.time.0, time, "the record's time is the entry's");
            assert!(!record.changes.is_empty(), "a record without changes");
            self.chain = chain_after(self.chain, bytes);
            expired = record.changes.iter().map(|change| self.change(&record, change)).filter(|&e| e).count();
            assert!(self.to_be_told.is_empty(), "not told: {:?}", self.to_be_told);
            record
        });
        assert!(expired <= limits::EXPIRED_PER_ENTRY_MAX, "{expired} expired in one entry");
        if expired < limits::EXPIRED_PER_ENTRY_MAX {
            let left = self.holds.values().filter(|h| h.due).count();
            assert_eq!(left, 0, "{left} due holds left though only {expired} were swept");
        }
        record
    }

    /// Due holds not told as expired yet.
    pub(crate) fn unswept(&self) -> usize {
        self.holds.values().filter(|h| h.due).count()
    }

    /// Holds due at that time and not told as expired yet.
    pub(crate) fn due_at(&self, time: u64) -> usize {
        self.holds.values().filter(|h| h.deadline <= time).count()
    }

    /// Units as the records say.
    pub(crate) fn balance(&self, offer: &OfferKey) -> Balance {
        let held = self.holds.values().filter(|h| !h.due).filter_map(|h| h.lines.get(offer)).sum();
        let sold = self.sold.iter().filter(|((_, o), _)| o == offer).map(|(_, n)| n).sum();
        let units = self.offers[offer].units;
        Balance { available: units - held - sold, held, sold }
    }

    pub(crate) fn offers(&self) -> impl Iterator<Item = &OfferKey> {
        self.offers.keys()
    }

    fn end_due(&mut self, time: u64) {
        let due: Vec<_> = self
            .holds
            .iter()
            .filter(|(_, h)| !h.due && h.deadline <= time)
            .map(|(&id, h)| (id, h.lines.clone()))
            .collect();
        for (id, lines) in due {
            self.holds.get_mut(&id).expect("known").due = true;
            self.give_back(&lines);
        }
    }

    fn give_back(&mut self, lines: &BTreeMap<OfferKey, u64>) {
        for (offer, n) in lines {
            if self.offers[offer].ended {
                self.moves(offer, &OfferKey { sku: offer.sku.clone(), sale: None }, *n);
            }
        }
    }

    fn moves(&mut self, from: &OfferKey, to: &OfferKey, n: u64) {
        let left = self.offers[from].units.checked_sub(n).expect("the feed moved more than there is");
        self.offers.get_mut(from).expect("known").units = left;
        self.offers.get_mut(to).expect("known").units += n;
    }

    /// What is available of those offers that a change takes units from.
    fn available(&self, kind: &ChangeKind) -> BTreeMap<OfferKey, u64> {
        let offers: Vec<OfferKey> = match kind {
            ChangeKind::InventoryReserved { lines, .. } => lines.iter().map(|l| l.line.offer.clone()).collect(),
            ChangeKind::UnitsAdjusted { offer, .. } => vec![offer.clone()],
            ChangeKind::UnitsAllotted { sku, from, .. } => vec![OfferKey { sku: sku.clone(), sale: from.clone() }],
            _ => Vec::new(),
        };
        offers.into_iter().map(|o| (o.clone(), self.balance(&o).available)).collect()
    }

    /// Takes one change; tells whether it was an expiry.
    fn change(&mut self, record: &Record, change: &Change) -> bool {
        self.heads(record, change);
        if matches!(change.kind, ChangeKind::StockLow { .. } | ChangeKind::SoldOut { .. }) {
            assert_eq!(self.to_be_told.pop_front().as_ref(), Some(&change.kind), "told at {:?}", record.position);
            return false;
        }
        assert!(self.to_be_told.is_empty(), "not told before {:?}: {:?}", change.kind, self.to_be_told);
        let before = self.available(&change.kind);
        self.stock_change(&change.kind, record);
        self.reservation_change(&change.kind, record);
        self.fell(&before);
        matches!(change.kind, ChangeKind::ReservationExpired { .. })
    }

    /// `previous_on_…` must name the change before on the same product and reservation.
    fn heads(&mut self, record: &Record, change: &Change) {
        let here = (record.position.index, change.place);
        let (skus, id) = about(&change.kind);
        let named: BTreeSet<Sku> = change.kind.products().into_iter().cloned().collect();
        assert_eq!(named, skus, "the products of {:?}", change.kind);
        assert_eq!(change.previous_on_products.len(), skus.len(), "one link a product: {change:?}");
        for sku in &skus {
            let before = self.product_heads.insert(sku.clone(), here);
            assert_eq!(change.previous_on(sku), Some(before), "the one before on {sku} of {:?}", change.kind);
        }
        let before = change.previous_on_reservation;
        // A payment of an id that has no order begins a chain of its own, whatever is or was known under the id.
        let begins = before.is_none() && matches!(change.kind, ChangeKind::PaymentProcessed { kept: false, .. });
        if let Some(id) = id.filter(|id| begins || (before.is_some() && self.stray_heads.get(id).copied() == before)) {
            self.stray_heads.insert(id, here);
            return;
        }
        let head = id.and_then(|id| self.reservation_heads.insert(id, here));
        assert_eq!(change.previous_on_reservation, head, "the one before on the reservation of {:?}", change.kind);
    }

    fn fell(&mut self, before: &BTreeMap<OfferKey, u64>) {
        for (offer, &was) in before {
            let now = self.balance(offer).available;
            let low = self.offers[offer].policy.low_stock_at;
            if self.offers[offer].ended || now >= was {
                continue;
            }
            if low > 0 && was > low && now <= low {
                self.to_be_told.push_back(ChangeKind::StockLow { offer: offer.clone(), available: now });
            }
            if now == 0 {
                let truth = self.truth(offer);
                self.to_be_told.push_back(ChangeKind::SoldOut { offer: offer.clone(), truth });
            }
        }
    }

    /// The last held unit was sold: waiting does not help any more, and that is told.
    fn gone(&mut self, sold: &[LineChange]) {
        for line in sold {
            let offer = &line.line.offer;
            let gone = self.balance(offer).available == 0 && self.truth(offer) == SoldOut::Gone;
            if gone && !self.offers[offer].ended {
                self.to_be_told.push_back(ChangeKind::SoldOut { offer: offer.clone(), truth: SoldOut::Gone });
            }
        }
    }

    fn truth(&self, offer: &OfferKey) -> SoldOut {
        let comes_back = |from: &OfferKey| match self.offers[from].ended {
            true => from.sku == offer.sku && offer.sale.is_none(),
            false => from == offer,
        };
        self.holds
            .values()
            .filter(|h| !h.due && h.lines.keys().any(comes_back))
            .map(|h| h.deadline)
            .min()
            .map_or(SoldOut::Gone, |t| SoldOut::FirstBackAt(LedgerTime(t)))
    }

    fn agree(&self, offer: &OfferKey, told: Balance, kind: &ChangeKind) {
        let computed = self.balance(offer);
        assert_eq!(told, computed, "balance of {offer:?} told by {kind:?}; from the records it is {computed:?}");
    }

    fn stock_change(&mut self, kind: &ChangeKind, record: &Record) {
        let new = |policy: &Policy| FedOffer { policy: policy.clone(), units: 0, ended: false };
        match kind {
            ChangeKind::ProductCreated { sku, policy } => {
                let plain = OfferKey { sku: sku.clone(), sale: None };
                assert!(self.offers.insert(plain, new(policy)).is_none(), "{sku} is created twice");
            }
            ChangeKind::OfferPut { offer, policy, .. } => {
                let state = self.offers.entry(offer.clone()).or_insert_with(|| new(policy));
                state.policy = policy.clone();
            }
            ChangeKind::OfferOpened { offer } => self.offers.get_mut(offer).expect("known").policy.open = true,
            ChangeKind::OfferClosed { offer } => self.offers.get_mut(offer).expect("known").policy.open = false,
            ChangeKind::SaleStarted { offer, balance } => self.agree(offer, *balance, kind),
            ChangeKind::SaleEnded { offer, balance, moved_back, by_hand } => {
                self.sale_ended(offer, *moved_back, *by_hand, record);
                self.agree(offer, *balance, kind);
            }
            ChangeKind::UnitsReceived { offer, units, balance, .. } => {
                self.offers.get_mut(offer).expect("known").units += units.get();
                self.agree(offer, *balance, kind);
            }
            ChangeKind::UnitsAdjusted { offer, delta, balance, .. } => {
                let state = self.offers.get_mut(offer).expect("known");
                state.units = state.units.checked_add_signed(*delta).expect("adjusted below zero");
                self.agree(offer, *balance, kind);
            }
            ChangeKind::UnitsAllotted { sku, from, to, units, from_balance, to_balance, .. } => {
                let from = OfferKey { sku: sku.clone(), sale: from.clone() };
                let to = OfferKey { sku: sku.clone(), sale: to.clone() };
                self.moves(&from, &to, units.get());
                self.agree(&from, *from_balance, kind);
                self.agree(&to, *to_balance, kind);
            }
            ChangeKind::OfferRemoved { offer, sold, balance } => {
                let plain = OfferKey { sku: offer.sku.clone(), sale: None };
                let gone = self.balance(offer);
                assert_eq!(gone, Balance { available: 0, held: 0, sold: *sold }, "{offer:?} is removed");
                let removed = self.offers.remove(offer).expect("known");
                assert!(removed.ended, "{offer:?} had not ended");
                self.offers.get_mut(&plain).expect("every product has it").units += sold;
                let sold: Vec<_> = self.sold.keys().filter(|(_, o)| o == offer).cloned().collect();
                for key in sold {
                    let units = self.sold.remove(&key).expect("just seen");
                    *self.sold.entry((key.0, plain.clone())).or_default() += units;
                }
                self.agree(&plain, *balance, kind);
            }
            ChangeKind::ProductDeleted { sku } => {
                let plain = OfferKey { sku: sku.clone(), sale: None };
                let Balance { available, held, .. } = self.balance(&plain);
                assert_eq!((available, held), (0, 0), "{sku} is deleted");
                self.offers.remove(&plain);
                self.sold.retain(|(_, offer), _| *offer != plain);
                assert!(!self.offers.keys().any(|offer| offer.sku == *sku), "{sku} is in a sale");
                self.product_heads.remove(sku);
            }
            _ => {}
        }
    }

    fn sale_ended(&mut self, offer: &OfferKey, moved_back: u64, by_hand: bool, record: &Record) {
        let state = self.offers.get_mut(offer).expect("known");
        let closed = state.policy.closes_at.is_some_and(|t| t <= record.time);
        assert!(by_hand || (closed && moved_back == 0), "the window of {offer:?} ended: {:?}", state.policy);
        assert!(!state.ended, "{offer:?} was ended by hand before");
        state.ended = by_hand;
        let plain = OfferKey { sku: offer.sku.clone(), sale: None };
        self.moves(offer, &plain, moved_back);
    }

    fn lines_agree(&self, lines: &[LineChange], kind: &ChangeKind) {
        for line in lines {
            self.agree(&line.line.offer, line.balance, kind);
        }
    }

    fn reservation_change(&mut self, kind: &ChangeKind, record: &Record) {
        match kind {
            ChangeKind::InventoryReserved { id, deadline, lines } => {
                let hold = FedHold { deadline: deadline.0, lines: by_offer(lines), due: deadline.0 <= record.time.0 };
                assert!(self.holds.insert(*id, hold).is_none(), "{id} is reserved twice");
                self.lines_agree(lines, kind);
            }
            ChangeKind::ReservationExtended { id, deadline } => {
                let hold = self.holds.get_mut(id).expect("extended a live hold");
                assert!(!hold.due, "{id} was extended when due");
                hold.deadline = deadline.0;
            }
            ChangeKind::OrderPlaced { id, deadline, .. } => {
                let hold = self.holds.get_mut(id).expect("a live hold was placed");
                assert!(!hold.due, "{id} was placed when due");
                hold.deadline = deadline.0;
            }
            ChangeKind::ReservationConfirmed { id, lines, given_back } => {
                let hold = self.end(*id, false);
                let (sold, back) = (by_offer(lines), by_offer(given_back));
                for (offer, n) in &hold.lines {
                    let parts = sold.get(offer).unwrap_or(&0) + back.get(offer).unwrap_or(&0);
                    assert_eq!(parts, *n, "{id}: sold and given back are not what was held of {offer:?}");
                }
                for (offer, n) in sold {
                    self.sold.insert((*id, offer), n);
                }
                self.give_back(&back);
                self.lines_agree(lines, kind);
                self.lines_agree(given_back, kind);
                self.gone(lines);
            }
            ChangeKind::ReservationReleased { id, lines } => {
                let hold = self.end(*id, false);
                assert_eq!(by_offer(lines), hold.lines, "{id} released what it held");
                self.give_back(&hold.lines);
                self.lines_agree(lines, kind);
            }
            ChangeKind::ReservationExpired { id, deadline, lines } => {
                let first = self.holds.iter().filter(|(_, h)| h.due).map(|(&id, h)| (h.deadline, id)).min();
                assert_eq!(Some((deadline.0, *id)), first, "expiries follow in (deadline, id) order");
                let hold = self.end(*id, true);
                assert_eq!(by_offer(lines), hold.lines, "{id} expired with what it held");
                self.lines_agree(lines, kind);
            }
            ChangeKind::UnitsReturned { id, lines, .. } => {
                let back = by_offer(lines);
                for (offer, n) in &back {
                    let sold = self.sold.get_mut(&(*id, offer.clone())).expect("returned what was sold");
                    *sold = sold.checked_sub(*n).expect("returned more than was sold");
                }
                self.give_back(&back);
                self.lines_agree(lines, kind);
            }
            _ => {}
        }
    }

    fn end(&mut self, id: ReservationId, due: bool) -> FedHold {
        let hold = self.holds.remove(&id).unwrap_or_else(|| panic!("{id} ends, but holds nothing"));
        assert_eq!(hold.due, due, "{id} ended, due or not");
        hold
    }
}

fn by_offer(lines: &[LineChange]) -> BTreeMap<OfferKey, u64> {
    lines.iter().map(|l| (l.line.offer.clone(), u64::from(l.line.quantity.get()))).collect()
}

/// Which products and which reservation a change is about.
fn about(kind: &ChangeKind) -> (BTreeSet<Sku>, Option<ReservationId>) {
    let of = |lines: &[LineChange]| lines.iter().map(|l| l.line.offer.sku.clone()).collect::<BTreeSet<_>>();
    let one = |sku: &Sku| BTreeSet::from([sku.clone()]);
    match kind {
        ChangeKind::ProductCreated { sku, .. }
        | ChangeKind::ProductDeleted { sku }
        | ChangeKind::UnitsAllotted { sku, .. } => (one(sku), None),
        ChangeKind::OfferPut { offer, .. }
        | ChangeKind::OfferOpened { offer }
        | ChangeKind::OfferClosed { offer }
        | ChangeKind::SaleStarted { offer, .. }
        | ChangeKind::SaleEnded { offer, .. }
        | ChangeKind::OfferRemoved { offer, .. }
        | ChangeKind::UnitsReceived { offer, .. }
        | ChangeKind::UnitsAdjusted { offer, .. }
        | ChangeKind::StockLow { offer, .. }
        | ChangeKind::SoldOut { offer, .. } => (one(&offer.sku), None),
        ChangeKind::InventoryReserved { id, lines, .. }
        | ChangeKind::ReservationReleased { id, lines }
        | ChangeKind::ReservationExpired { id, lines, .. }
        | ChangeKind::UnitsReturned { id, lines, .. } => (of(lines), Some(*id)),
        ChangeKind::ReservationConfirmed { id, lines, given_back } => {
            (of(lines).union(&of(given_back)).cloned().collect(), Some(*id))
        }
        ChangeKind::ReservationExtended { id, .. } => (BTreeSet::new(), Some(*id)),
        order => (BTreeSet::new(), order.order()),
    }
}
