//! The auditor: stock recomputed from the ledger's changes alone, by rules written a second time.
//!
//! **What it is.** [`Books`] take every change since the beginning, and nothing else. They move units between
//! *available*, *held* and *sold* themselves, end due holds by their deadlines themselves, and complain when the ledger's own
//! balances, ends or links say otherwise. A node enters its own history, `ledgerctl audit` the feed: what one finds, the other finds.
//! **Owns** the recomputation. **Must never** call the core's `apply` or its audit: then the ledger would grade itself.
//! **Read next**: `cluster/src/commands/audit.rs`, `ledger-node/src/audit.rs`.

mod balances;
mod compare;
pub mod limits;
mod orders;

use std::collections::{BTreeSet, HashMap, HashSet};

use ledger_core::change::LineChange;
use ledger_core::limits::REFERENCE_KEPT_MS;
use ledger_core::outcome::{Balance, Status};
use ledger_core::{Change, ChangeKind, LedgerTime, OfferKey, Position, ReservationId, Sku};
use serde::Serialize;

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The promise that is broken: conserved, oversold, stranded, ends-once, expiry, reference, chain, lost, diverged.
    pub invariant: String,
    /// Both sides of what disagrees.
    pub what: String,
}

impl Finding {
    /// Names the promise and both sides.
    pub fn new(invariant: impl Into<String>, what: impl Into<String>) -> Self {
        Self { invariant: invariant.into(), what: what.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct OfferBook {
    available: i128,
    held: i128,
    sold: i128,
    /// A sale that ended by hand: what comes back goes to the plain offer.
    ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ProductBook {
    received: i128,
    adjusted: i128,
    returned: i128,
    /// When each was used last.
    references: HashMap<String, LedgerTime>,
    last: Option<(u64, u16)>,
    /// A sale of it ended by hand, so that units of its due holds are the plain offer's.
    sale_ended: bool,
    /// Units in its offers as they were compared, until the product is.
    told: i128,
    /// The ledger has it, too.
    compared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ReservationBook {
    status: Status,
    deadline: LedgerTime,
    /// Its deadline has passed and its units are back, but its expiry was not told yet.
    due: bool,
    /// While held: the units held. Once confirmed: the units sold and not returned.
    lines: Vec<(OfferKey, i128)>,
    /// References of its returns.
    returns: Vec<String>,
    last: (u64, u16),
}

pub use orders::{OrderBook, PaymentBook};

/// Everything recomputed.
#[derive(Debug, Default)]
pub struct Books {
    products: HashMap<Sku, ProductBook>,
    offers: HashMap<OfferKey, OfferBook>,
    reservations: HashMap<ReservationId, ReservationBook>,
    orders: HashMap<ReservationId, OrderBook>,
    /// Live holds by deadline, a shard: ledger time is a shard's.
    deadlines: HashMap<u32, BTreeSet<(LedgerTime, ReservationId)>>,
    /// Products whose beginning is no longer kept.
    truncated: HashSet<Sku>,
    /// The beginning is no longer kept: products without a change since are not lost.
    is_cut: bool,
    changes: u64,
    /// Reservations, orders and references that may be kept; none for any number.
    records_max: Option<usize>,
    references: usize,
    /// Changes after which only balances were kept.
    reduced_after: Option<u64>,
    findings: Vec<Finding>,
    findings_total: u64,
}

/// Sums over some offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sums {
    /// Received plus adjusted.
    pub received: i128,
    /// Available.
    pub available: i128,
    /// Held.
    pub held: i128,
    /// Sold and not returned.
    pub sold: i128,
}

impl Sums {
    fn add(&mut self, book: &OfferBook) {
        self.available += book.available;
        self.held += book.held;
        self.sold += book.sold;
    }
}

impl Books {
    /// Empty books.
    pub fn new() -> Self {
        Self::default()
    }
    /// What is entered is not the whole history: its beginning is no longer kept.
    pub fn history_is_cut(&mut self) {
        self.is_cut = true;
    }
    /// Changes entered.
    pub fn changes(&self) -> u64 {
        self.changes
    }
    /// What is wrong, at most `limits::FINDINGS_MAX` of it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
    /// Products that could not be recomputed because their first changes are no longer kept.
    pub fn truncated(&self) -> usize {
        self.truncated.len()
    }
    /// Where a reservation stands by the books, deadlines seen so far counted.
    pub fn status(&self, id: ReservationId) -> Option<Status> {
        self.reservations.get(&id).map(|r| if r.due { Status::Expired } else { r.status })
    }
    /// An offer's units by the books.
    pub fn offer(&self, key: &OfferKey) -> Sums {
        let book = self.offers.get(key).copied().unwrap_or_default();
        Sums { received: 0, available: book.available, held: book.held, sold: book.sold }
    }
    /// A product's units over its offers.
    pub fn product(&self, sku: &Sku) -> Sums {
        let mut sums = Sums::default();
        if let Some(product) = self.products.get(sku) {
            sums.received = product.received + product.adjusted;
        }
        for (_, book) in self.offers.iter().filter(|(key, _)| key.sku == *sku) {
            sums.add(book);
        }
        sums
    }
    /// All products' units.
    pub fn total(&self) -> Sums {
        let received = self.products.values().map(|p| p.received + p.adjusted).sum();
        let mut sums = Sums { received, ..Sums::default() };
        self.offers.values().for_each(|book| sums.add(book));
        sums
    }

    fn find(&mut self, invariant: &str, at: Position, what: String) {
        self.findings_total += 1;
        if self.findings.len() < limits::FINDINGS_MAX {
            let Position { shard, index, place, .. } = at;
            self.findings.push(Finding::new(invariant, format!("shard {shard}, index {index}, place {place}: {what}")));
        }
    }

    /// A shard's ledger time is (at least) this: due holds have ended.
    pub fn advance(&mut self, shard: u32, time: LedgerTime) {
        let Some(deadlines) = self.deadlines.get_mut(&shard) else { return };
        let mut due = Vec::new();
        while let Some(&(deadline, id)) = deadlines.first() {
            if deadline > time {
                break;
            }
            deadlines.pop_first();
            due.push(id);
        }
        for id in due {
            let Some(book) = self.reservations.get_mut(&id) else { continue };
            book.due = true;
            for (key, units) in book.lines.clone() {
                self.give_back(&key, units);
            }
        }
    }

    fn give_back(&mut self, key: &OfferKey, units: i128) {
        let offer = self.offers.entry(key.clone()).or_default();
        offer.held -= units;
        if offer.ended {
            let plain = OfferKey { sku: key.sku.clone(), sale: None };
            self.offers.entry(plain).or_default().available += units;
        } else {
            offer.available += units;
        }
    }

    /// The book of an order.
    pub fn order(&self, id: ReservationId) -> Option<&OrderBook> {
        self.orders.get(&id)
    }

    /// The books of all orders.
    pub fn orders(&self) -> impl Iterator<Item = (ReservationId, &OrderBook)> {
        self.orders.iter().map(|(id, book)| (*id, book))
    }

    /// Enters a change of an order beside its stock. It names no product; its links are those of its reservation.
    fn enter_order(&mut self, position: Position, time: LedgerTime, id: ReservationId, change: &Change) {
        self.advance(position.shard, time);
        let here = (position.index, position.place);
        let reservation = self.reservations.get(&id).map(|book| book.last);
        let known = reservation.max(self.orders.get(&id).map(|book| book.last));
        let told = change.previous_on_reservation;
        let cut = self.is_cut || !self.truncated.is_empty();
        let follows_unknown = told.is_some() && known != told && reservation.is_none();
        if follows_unknown && (known.is_none() || cut) {
            // It follows a reservation whose beginning is no longer kept; payments that came before
            // that are known all the same.
            return;
        }
        let begins = self.begins(id, change);
        if known != told && !(begins && told.is_none()) {
            let what =
                format!("{} of {id} follows {told:?}, but the last change seen is {known:?}", change.kind.name());
            self.find("chain", position, what);
        }
        if let ChangeKind::OrderPlaced { deadline, .. } = &change.kind {
            self.extended(position, time, id, *deadline);
        }
        if begins {
            self.orders.remove(&id);
        }
        let book = self.orders.entry(id).or_default();
        book.last = here;
        if let Some(wrong) = book.enter(&change.kind) {
            self.find("money", position, format!("{id} {wrong}"));
        }
        if let Some(book) = self.reservations.get_mut(&id) {
            book.last = here;
        }
    }

    /// Whether a book of its own begins: the ledger forgets an order together with its reservation,
    /// and payments that came without an order once all of them are settled. What comes for the id
    /// after that is new to it.
    fn begins(&self, id: ReservationId, change: &Change) -> bool {
        let is_first = change.previous_on_reservation.is_none();
        let book = self.orders.get(&id).filter(|book| book.is_settled_without_order());
        match &change.kind {
            // A payment whose refund came first is that of the book.
            ChangeKind::PaymentProcessed { payment, kept: false, .. } => {
                is_first || book.is_some_and(|book| !book.awaits(payment.as_str()))
            }
            ChangeKind::PurchaseAttempted { .. } => is_first && book.is_some(),
            _ => false,
        }
    }

    /// Enters one change, as [`Self::enter_whole`] does; once more is remembered than may be, only balances are kept ([`Self::reduced_after`]).
    pub fn enter(&mut self, position: Position, time: LedgerTime, change: &Change) {
        self.enter_whole(position, time, change);
        self.reduce_if_too_large();
    }

    /// Enters one change: where it is (place included), the ledger time of its entry, and what happened. Changes of one product must come in order.
    fn enter_whole(&mut self, position: Position, time: LedgerTime, change: &Change) {
        self.changes += 1;
        if let Some(id) = change.kind.order() {
            if !self.is_reduced() {
                self.enter_order(position, time, id, change);
            }
            return;
        }
        self.advance(position.shard, time);
        let products = change.kind.products();
        if matches!(change.kind, ChangeKind::EntryRefused { .. }) {
            // It changed nothing, and an alarm of its own reports it.
            return;
        }
        if products.is_empty() {
            if !self.is_reduced() {
                self.enter_extension(position, time, change);
            }
            return;
        }
        if !self.are_known(position, change) {
            return;
        }
        self.check_chain(position, change);
        self.dispatch(position, time, &change.kind);
        let here = (position.index, position.place);
        for sku in products {
            if let Some(product) = self.products.get_mut(sku) {
                product.last = Some(here);
            }
        }
        if let Some(book) = change.kind.reservation().and_then(|id| self.reservations.get_mut(&id)) {
            book.last = here;
        }
    }

    /// An extension moves no units and is no link in a product's chain.
    fn enter_extension(&mut self, at: Position, time: LedgerTime, change: &Change) {
        let kind = &change.kind;
        let Some(book) = kind.reservation().and_then(|id| self.reservations.get(&id)) else {
            if change.previous_on_reservation.is_none() {
                self.find("chain", at, format!("{} without a reservation", kind.name()));
            }
            return;
        };
        if book.lines.iter().any(|(key, _)| self.truncated.contains(&key.sku)) {
            return;
        }
        self.check_chain(at, change);
        self.dispatch(at, time, kind);
        if let Some(book) = kind.reservation().and_then(|id| self.reservations.get_mut(&id)) {
            book.last = (at.index, at.place);
        }
    }

    /// Whether all products of a change can be recomputed. If the beginning of one is no longer kept, none of them can from here on.
    fn are_known(&mut self, at: Position, change: &Change) -> bool {
        let products = change.kind.products();
        if matches!(change.kind, ChangeKind::ProductCreated { .. }) {
            // It begins anew, whatever is not known of one that was deleted.
            for sku in products {
                if self.truncated.remove(sku) {
                    self.forget_product(sku);
                }
            }
            return true;
        }
        let mut truncated = false;
        for sku in &products {
            let unknown = !self.products.contains_key(*sku);
            let begins_earlier = unknown && change.previous_on(sku).flatten().is_some();
            truncated |= begins_earlier || self.truncated.contains(*sku);
            if unknown && !begins_earlier && !self.truncated.contains(*sku) {
                self.find("chain", at, format!("{} of {sku}, which was never created", change.kind.name()));
                return false;
            }
        }
        if truncated {
            self.truncated.extend(products.into_iter().cloned());
        }
        !truncated
    }

    fn check_chain(&mut self, at: Position, change: &Change) {
        let name = change.kind.name();
        for sku in change.kind.products() {
            let known = self.products.get(sku).and_then(|p| p.last);
            let told = change.previous_on(sku).flatten();
            if known != told {
                let what = format!("{name} of {sku} follows {told:?}, but the last change seen is {known:?}");
                self.find("chain", at, what);
            }
        }
        let Some(id) = change.kind.reservation().filter(|_| !self.is_reduced()) else { return };
        let known = self.reservations.get(&id).map(|r| r.last);
        let told = change.previous_on_reservation;
        if known != told {
            let what = format!("{name} of {id} follows {told:?}, but the last change seen is {known:?}");
            self.find("chain", at, what);
        }
    }

    fn dispatch(&mut self, at: Position, time: LedgerTime, kind: &ChangeKind) {
        if self.is_reduced() && self.only_moved(at, kind) {
            return;
        }
        match kind {
            ChangeKind::ProductCreated { sku, .. } => self.created(at, sku),
            ChangeKind::OfferPut { offer, .. } => {
                self.offer_mut(offer);
            }
            ChangeKind::UnitsReceived { offer, units, reference, balance } => {
                self.reference(at, time, &offer.sku, reference.as_str());
                self.product_mut(offer).received += i128::from(units.get());
                self.offer_mut(offer).available += i128::from(units.get());
                self.agree(at, offer, balance);
            }
            ChangeKind::UnitsAdjusted { offer, delta, reference, balance, .. } => {
                self.reference(at, time, &offer.sku, reference.as_str());
                self.product_mut(offer).adjusted += i128::from(*delta);
                self.take(at, offer, -i128::from(*delta));
                self.agree(at, offer, balance);
            }
            ChangeKind::UnitsAllotted { sku, from, to, units, reference, from_balance, to_balance } => {
                self.reference(at, time, sku, reference.as_str());
                let from = OfferKey { sku: sku.clone(), sale: from.clone() };
                let to = OfferKey { sku: sku.clone(), sale: to.clone() };
                self.take(at, &from, units.get().into());
                self.offer_mut(&to).available += i128::from(units.get());
                self.agree(at, &from, from_balance);
                self.agree(at, &to, to_balance);
            }
            ChangeKind::SaleEnded { offer, balance, moved_back, by_hand } => {
                // A window that closes leaves its units in the offer.
                if *by_hand {
                    self.ended_by_hand(at, offer, *moved_back);
                }
                self.agree(at, offer, balance);
            }
            ChangeKind::OfferRemoved { offer, sold, balance } => self.offer_removed(at, offer, *sold, balance),
            ChangeKind::ProductDeleted { sku } => self.product_deleted(at, sku),
            ChangeKind::InventoryReserved { id, deadline, lines } => self.reserved(at, time, *id, *deadline, lines),
            ChangeKind::ReservationExtended { id, deadline } => self.extended(at, time, *id, *deadline),
            ChangeKind::ReservationConfirmed { id, lines, given_back } => {
                self.ended(at, *id, Status::Confirmed, lines, given_back);
            }
            ChangeKind::ReservationReleased { id, lines } => self.ended(at, *id, Status::Released, &[], lines),
            ChangeKind::ReservationExpired { id, deadline, lines } => self.expired(at, time, *id, *deadline, lines),
            ChangeKind::UnitsReturned { id, reference, lines } => {
                self.reference_of_return(at, *id, reference.as_str());
                self.units_returned(at, *id, lines);
            }
            ChangeKind::SoldOut { offer, .. } => {
                let available = self.offer_mut(offer).available;
                if available != 0 {
                    self.find("conserved", at, format!("sold out is told of {offer:?}, but {available} are available"));
                }
            }
            ChangeKind::OfferOpened { .. }
            | ChangeKind::OfferClosed { .. }
            | ChangeKind::SaleStarted { .. }
            | ChangeKind::StockLow { .. } => {}
            // What happens to orders beside their stock.
            _ => {}
        }
    }

    fn offer_mut(&mut self, key: &OfferKey) -> &mut OfferBook {
        self.offers.entry(key.clone()).or_default()
    }
    fn product_mut(&mut self, key: &OfferKey) -> &mut ProductBook {
        self.products.entry(key.sku.clone()).or_default()
    }

    fn created(&mut self, at: Position, sku: &Sku) {
        if self.products.insert(sku.clone(), ProductBook::default()).is_some() {
            self.find("ends-once", at, format!("{sku} was created twice"));
        }
        self.offers.entry(OfferKey { sku: sku.clone(), sale: None }).or_default();
    }

    /// A reference of receive, adjust or allot may be used again when its time is over. Earlier only in a shard that has more than books keep.
    fn reference(&mut self, at: Position, time: LedgerTime, sku: &Sku, reference: &str) {
        if self.is_reduced() {
            return;
        }
        self.references += 1;
        let product = self.products.entry(sku.clone()).or_default();
        let before = product.references.insert(reference.to_owned(), time);
        if before.is_some_and(|before| time.0 < before.0.saturating_add(REFERENCE_KEPT_MS)) {
            self.find("reference", at, format!("reference {reference:?} of {sku} had an effect twice"));
        }
    }

    /// One of a return is used once in its reservation.
    fn reference_of_return(&mut self, at: Position, id: ReservationId, reference: &str) {
        self.references += usize::from(!self.is_reduced());
        let twice = self.reservations.get_mut(&id).is_some_and(|book| {
            let twice = book.returns.iter().any(|before| before == reference);
            book.returns.push(reference.to_owned());
            twice
        });
        if twice {
            self.find("reference", at, format!("reference {reference:?} of a return of {id} had an effect twice"));
        }
    }

    /// What an offer that is removed sold counts as sold by the plain one.
    fn offer_removed(&mut self, at: Position, key: &OfferKey, sold: u64, balance: &Balance) {
        let book = self.offers.remove(key).unwrap_or_default();
        // Without deadlines, units that were due as the sale ended were moved to the plain offer twice.
        let left = book.available + book.held;
        let counted = if self.is_reduced() { 0 } else { left };
        if !book.ended || (counted, book.sold) != (0, i128::from(sold)) || (book.held != 0 && !self.is_reduced()) {
            let units = (book.available, book.held, book.sold);
            let what = format!("{key:?} was removed with {sold} sold; recomputed {units:?}, ended {}", book.ended);
            self.find("conserved", at, what);
        }
        let plain = OfferKey { sku: key.sku.clone(), sale: None };
        let plain_book = self.offer_mut(&plain);
        plain_book.sold += book.sold;
        plain_book.available += left;
        self.agree(at, &plain, balance);
    }

    /// What is left of a product whose beginning is no longer kept.
    fn forget_product(&mut self, sku: &Sku) {
        self.products.remove(sku);
        self.offers.retain(|offer, _| offer.sku != *sku);
    }

    fn product_deleted(&mut self, at: Position, sku: &Sku) {
        let plain = OfferKey { sku: sku.clone(), sale: None };
        let book = self.offers.remove(&plain).unwrap_or_default();
        let left = book.available + book.held;
        if left != 0 || (book.held != 0 && !self.is_reduced()) {
            self.find(
                "conserved",
                at,
                format!("{sku} was deleted with {} available, {} held", book.available, book.held),
            );
        }
        let product = self.products.remove(sku).unwrap_or_default();
        let there = product.received + product.adjusted;
        if there != book.sold {
            self.find("stranded", at, format!("{sku} was deleted: {there} units came in, {} were sold", book.sold));
        }
    }

    /// Takes units out of *available*; below zero is the one thing that must never be.
    fn take(&mut self, at: Position, key: &OfferKey, units: i128) {
        let offer = self.offer_mut(key);
        let had = offer.available;
        offer.available -= units;
        // Without deadlines, units of due holds are held until their expiry is entered.
        if offer.available < 0 && units > 0 && self.reduced_after.is_none() {
            self.find("oversold", at, format!("{units} units were taken from {key:?}, which had {had}"));
        }
    }

    /// The balance as the ledger tells it must be the books'.
    fn agree(&mut self, at: Position, key: &OfferKey, told: &Balance) {
        let book = *self.offer_mut(key);
        let told_as_book = (i128::from(told.available), i128::from(told.held), i128::from(told.sold));
        let agrees = self.is_reduced() && self.agrees_without_deadlines(key, book, told_as_book);
        if !agrees && told_as_book != (book.available, book.held, book.sold) {
            let what = format!(
                "{key:?} is told as available {}, held {}, sold {}, recomputed available {}, held {}, sold {}",
                told.available, told.held, told.sold, book.available, book.held, book.sold
            );
            self.find("conserved", at, what);
        }
    }

    /// A sale's units go to the plain offer, and all that comes back later.
    fn ended_by_hand(&mut self, at: Position, key: &OfferKey, moved_back: u64) {
        self.offer_mut(key).ended = true;
        self.product_mut(key).sale_ended = true;
        let moved = i128::from(moved_back);
        self.take(at, key, moved);
        let plain = OfferKey { sku: key.sku.clone(), sale: None };
        self.offer_mut(&plain).available += moved;
    }

    fn reserved(
        &mut self,
        at: Position,
        time: LedgerTime,
        id: ReservationId,
        deadline: LedgerTime,
        lines: &[LineChange],
    ) {
        if self.reservations.contains_key(&id) {
            return self.find("ends-once", at, format!("{id} was reserved twice"));
        }
        if deadline <= time {
            self.find("expiry", at, format!("{id} was held until {}, at {}", deadline.0, time.0));
        }
        let mut held = Vec::with_capacity(lines.len());
        for line in lines {
            let units = i128::from(line.line.quantity.get());
            self.take(at, &line.line.offer, units);
            self.offer_mut(&line.line.offer).held += units;
            self.agree(at, &line.line.offer, &line.balance);
            held.push((line.line.offer.clone(), units));
        }
        self.deadlines.entry(at.shard).or_default().insert((deadline, id));
        let last = (at.index, at.place);
        let (status, returns) = (Status::Held, Vec::new());
        self.reservations.insert(id, ReservationBook { status, deadline, due: false, lines: held, returns, last });
    }

    fn extended(&mut self, at: Position, time: LedgerTime, id: ReservationId, deadline: LedgerTime) {
        let Some(book) = self.reservations.get_mut(&id) else {
            return self.find("chain", at, format!("{id} was extended, but never reserved"));
        };
        if book.status != Status::Held || book.due || deadline <= time {
            let what = format!(
                "{id} was extended to {} at {}: {:?}, deadline {}",
                deadline.0, time.0, book.status, book.deadline.0
            );
            return self.find("expiry", at, what);
        }
        let deadlines = self.deadlines.entry(at.shard).or_default();
        deadlines.remove(&(book.deadline, id));
        deadlines.insert((deadline, id));
        book.deadline = deadline;
    }

    fn ended(&mut self, at: Position, id: ReservationId, status: Status, sold: &[LineChange], back: &[LineChange]) {
        let Some(book) = self.reservations.get_mut(&id) else {
            return self.find("chain", at, format!("{id} became {status:?}, but was never reserved"));
        };
        if book.status != Status::Held {
            let what = format!("{id} became {status:?}, but it was {:?} already", book.status);
            return self.find("ends-once", at, what);
        }
        if book.due {
            let what = format!("{id} became {status:?}, but its deadline {} had passed", book.deadline.0);
            book.status = status;
            return self.find("expiry", at, what);
        }
        let deadline = book.deadline;
        let held = std::mem::take(&mut book.lines);
        book.status = status;
        book.lines = lines_of(sold);
        self.deadlines.entry(at.shard).or_default().remove(&(deadline, id));
        self.same_units(at, id, &held, sold, back);
        for (key, units) in lines_of(sold) {
            let offer = self.offer_mut(&key);
            offer.held -= units;
            offer.sold += units;
        }
        for (key, units) in lines_of(back) {
            self.give_back(&key, units);
        }
        // Lines of one change may share an offer (sold and given back): balances are as after the whole change.
        for line in sold.iter().chain(back) {
            let shared = sold.iter().chain(back).filter(|l| l.line.offer == line.line.offer).count() > 1;
            if !shared {
                self.agree(at, &line.line.offer, &line.balance);
            }
        }
    }

    fn expired(
        &mut self,
        at: Position,
        time: LedgerTime,
        id: ReservationId,
        deadline: LedgerTime,
        lines: &[LineChange],
    ) {
        let Some(book) = self.reservations.get_mut(&id) else {
            return self.find("chain", at, format!("{id} expired, but was never reserved"));
        };
        if book.status != Status::Held {
            let what = format!("{id} expired, but it was {:?} already", book.status);
            return self.find("ends-once", at, what);
        }
        if book.deadline != deadline || !book.due {
            let what =
                format!("{id} expired at {} with deadline {}, its deadline is {}", time.0, deadline.0, book.deadline.0);
            self.find("expiry", at, what);
            return;
        }
        let held = std::mem::take(&mut book.lines);
        book.status = Status::Expired;
        self.same_units(at, id, &held, &[], lines);
        // Its units were back when it was due, so its balances show them already.
        for line in lines {
            self.agree(at, &line.line.offer, &line.balance);
        }
    }

    fn units_returned(&mut self, at: Position, id: ReservationId, lines: &[LineChange]) {
        let Some(book) = self.reservations.get_mut(&id) else {
            return self.find("chain", at, format!("units of {id} were returned, but it was never reserved"));
        };
        let mut short = Vec::new();
        for (key, units) in lines_of(lines) {
            let sold = book.lines.iter_mut().find(|(k, _)| *k == key);
            match sold {
                Some((_, left)) if *left >= units => *left -= units,
                other => short.push((key, units, other.map_or(0, |(_, left)| *left))),
            }
        }
        for (key, units, left) in short {
            self.find(
                "conserved",
                at,
                format!("{units} units of {key:?} were returned by {id}, which had bought {left}"),
            );
        }
        for (key, units) in lines_of(lines) {
            self.returned(&key, units);
        }
        for line in lines {
            self.agree(at, &line.line.offer, &line.balance);
        }
    }

    fn returned(&mut self, key: &OfferKey, units: i128) {
        self.product_mut(key).returned += units;
        let offer = self.offer_mut(key);
        offer.sold -= units;
        let back = if offer.ended { &OfferKey { sku: key.sku.clone(), sale: None } } else { key };
        self.offer_mut(back).available += units;
    }

    fn same_units(
        &mut self,
        at: Position,
        id: ReservationId,
        held: &[(OfferKey, i128)],
        a: &[LineChange],
        b: &[LineChange],
    ) {
        let mut left: HashMap<OfferKey, i128> = HashMap::new();
        for (key, units) in held {
            *left.entry(key.clone()).or_default() += units;
        }
        for (key, units) in lines_of(a).into_iter().chain(lines_of(b)) {
            *left.entry(key).or_default() -= units;
        }
        if let Some((key, units)) = left.iter().find(|(_, units)| **units != 0) {
            self.find("stranded", at, format!("{id} ended with {units} units of {key:?} unaccounted for"));
        }
    }
}

fn lines_of(lines: &[LineChange]) -> Vec<(OfferKey, i128)> {
    lines.iter().map(|l| (l.line.offer.clone(), i128::from(l.line.quantity.get()))).collect()
}

/// The (first) product a change is about; none for those that name a reservation alone.
pub fn sku_of(kind: &ChangeKind) -> Option<&Sku> {
    kind.products().first().copied()
}

#[cfg(test)]
mod tests;
