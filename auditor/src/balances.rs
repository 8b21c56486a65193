//! Books of balances alone: what is kept once a history has more reservations than memory is given.
//!
//! **What it is.** Without reservations there are no deadlines: a due hold stays held until its expiry is entered. So of an offer only what it sold, and
//! the sum of available and held, is compared; of a product with a sale that ended by hand, whose due units move between its offers, what its
//! offers have together. Not looked at from then on: who ended twice or at the wrong time, links of reservations, references, orders and money.
//! **Owns** the bound on memory: it does not grow with history, only with products and offers. **Must never** report what it cannot know.
//! **Read next**: [`super::compare`].

use ledger_core::change::LineChange;
use ledger_core::outcome::Status;
use ledger_core::{ChangeKind, OfferKey, Position};

use super::{Books, OfferBook, lines_of};

impl Books {
    /// Books that keep so many reservations, orders and references at most: with more, balances alone.
    pub fn bounded(records_max: usize) -> Self {
        Self { records_max: Some(records_max), ..Self::default() }
    }

    /// The number of changes after which only balances were kept, if there were too many reservations, orders and references: ends, deadlines,
    /// references, orders and money were not looked at from there on.
    pub fn reduced_after(&self) -> Option<u64> {
        self.reduced_after
    }

    pub(super) fn is_reduced(&self) -> bool {
        self.reduced_after.is_some()
    }

    pub(super) fn reduce_if_too_large(&mut self) {
        let records = self.reservations.len() + self.orders.len() + self.references;
        if self.is_reduced() || self.records_max.is_none_or(|max| records <= max) {
            return;
        }
        self.reduced_after = Some(self.changes);
        // Units that came back when they were due come back when their expiry is entered.
        let reservations = std::mem::take(&mut self.reservations);
        for book in reservations.values().filter(|book| book.due && book.status == Status::Held) {
            for (key, units) in &book.lines {
                self.give_back(key, -units);
            }
        }
        self.orders = Default::default();
        self.deadlines = Default::default();
        self.references = 0;
        self.products.values_mut().for_each(|product| product.references = Default::default());
    }

    /// Moves the units of a change that is about a reservation; false when it is about none.
    pub(super) fn only_moved(&mut self, at: Position, kind: &ChangeKind) -> bool {
        match kind {
            ChangeKind::InventoryReserved { lines, .. } => {
                for (key, units) in lines_of(lines) {
                    let offer = self.offer_mut(&key);
                    offer.available -= units;
                    offer.held += units;
                }
                self.all_agree(at, lines, &[]);
            }
            ChangeKind::ReservationConfirmed { lines, given_back, .. } => {
                for (key, units) in lines_of(lines) {
                    let offer = self.offer_mut(&key);
                    offer.held -= units;
                    offer.sold += units;
                }
                lines_of(given_back).iter().for_each(|(key, units)| self.give_back(key, *units));
                self.all_agree(at, lines, given_back);
            }
            ChangeKind::ReservationReleased { lines, .. } | ChangeKind::ReservationExpired { lines, .. } => {
                lines_of(lines).iter().for_each(|(key, units)| self.give_back(key, *units));
                self.all_agree(at, lines, &[]);
            }
            ChangeKind::UnitsReturned { lines, .. } => {
                for (key, units) in lines_of(lines) {
                    self.returned(&key, units);
                }
                self.all_agree(at, lines, &[]);
            }
            ChangeKind::ReservationExtended { .. } | ChangeKind::SoldOut { .. } => {}
            _ => return false,
        }
        true
    }

    fn all_agree(&mut self, at: Position, lines: &[LineChange], others: &[LineChange]) {
        for line in lines.iter().chain(others) {
            // Lines of one change may share an offer: balances are as after each.
            let shared = lines.iter().chain(others).filter(|other| other.line.offer == line.line.offer).count() > 1;
            if !shared {
                self.agree(at, &line.line.offer, &line.balance);
            }
        }
    }

    /// Whether an offer is what its book says, as far as that can be known without deadlines: available, held, sold.
    pub(super) fn agrees_without_deadlines(&self, key: &OfferKey, book: OfferBook, told: (i128, i128, i128)) -> bool {
        let moves = self.products.get(&key.sku).is_some_and(|product| product.sale_ended);
        told.2 == book.sold && (moves || told.0 + told.1 == book.available + book.held)
    }
}
