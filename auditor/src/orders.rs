//! Orders recomputed from their changes: what was to be paid, what was paid, what went back, and how it ended.
//!
//! **Owns** the book of one order. **Must never** take a sum from the ledger. **Read next**: [`super`].

use std::collections::BTreeMap;

use ledger_core::order::{ByHand, Money};
use ledger_core::{ChangeKind, ReservationId};

/// One payment as the changes tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentBook {
    /// How much; none of a refund whose payment was never told.
    pub amount: Option<Money>,
    /// It pays for the order.
    pub kept: bool,
    /// It went back.
    pub refunded: bool,
}

/// One order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderBook {
    /// Position of its last change: index and place.
    pub(super) last: (u64, u16),
    /// What was to be paid; none when it was refused, or when only a stray payment is known.
    pub amount: Option<Money>,
    /// Its payments by the provider's id.
    pub payments: BTreeMap<String, PaymentBook>,
    /// It was confirmed: paid and sold.
    pub confirmed: bool,
    /// Its units are those of another reservation, since it was paid late.
    pub linked: Option<ReservationId>,
    /// Its buyer was told how it ended.
    pub notified: bool,
    /// It was claimed so often.
    pub claims: u32,
    /// An operator closed it.
    pub closed: bool,
}

impl OrderBook {
    /// Enters one change; what contradicts what came before.
    pub(super) fn enter(&mut self, kind: &ChangeKind) -> Option<String> {
        match kind {
            ChangeKind::OrderPlaced { amount, .. } => {
                let before = self.amount.replace(*amount);
                before.map(|before| format!("was placed for {amount}, but it was placed for {before} already"))
            }
            ChangeKind::OrderClaimed { .. } => {
                self.claims += 1;
                None
            }
            ChangeKind::PaymentProcessed { payment, amount, kept, .. } => self.paid(payment.as_str(), *amount, *kept),
            ChangeKind::OrderConfirmed { linked, .. } => {
                self.linked = *linked;
                let again = std::mem::replace(&mut self.confirmed, true);
                again.then(|| "was confirmed twice".to_owned())
            }
            ChangeKind::RefundRequested { payment, .. } => {
                let known = self.payments.get_mut(payment.as_str());
                match known {
                    Some(book) => {
                        book.kept = false;
                        None
                    }
                    None => Some(format!("must give {payment} back, which was never paid")),
                }
            }
            ChangeKind::OrderRefunded { payment, .. } => {
                let unknown = PaymentBook { amount: None, kept: false, refunded: false };
                let book = self.payments.entry(payment.to_string()).or_insert(unknown);
                book.kept = false;
                let again = std::mem::replace(&mut book.refunded, true);
                again.then(|| format!("gave {payment} back twice"))
            }
            ChangeKind::OrderByHandDone { what: ByHand::Close, .. } => {
                self.closed = true;
                None
            }
            ChangeKind::OrderNotified { .. } => {
                self.notified = true;
                None
            }
            _ => None,
        }
    }

    fn paid(&mut self, payment: &str, amount: Money, kept: bool) -> Option<String> {
        if kept && self.payments.values().any(|one| one.kept) {
            return Some(format!("kept {payment} beside another payment"));
        }
        if kept && self.amount.is_some_and(|asked| asked != amount) {
            return Some(format!("kept {payment} of {amount}, but {:?} was asked for", self.amount));
        }
        let before =
            self.payments.insert(payment.to_owned(), PaymentBook { amount: Some(amount), kept, refunded: false });
        match before {
            None => None,
            // It came before the order was placed, and the order keeps it.
            Some(before) if kept && !before.kept && !before.refunded && before.amount == Some(amount) => None,
            // Its refund was told first.
            Some(PaymentBook { amount: None, refunded, .. }) if !kept => {
                self.payments.entry(payment.to_owned()).and_modify(|book| book.refunded = refunded);
                None
            }
            Some(_) => Some(format!("was paid by {payment} twice")),
        }
    }

    /// Payments without an order, about which nothing is left to do: the ledger may have forgotten
    /// them.
    pub(super) fn is_settled_without_order(&self) -> bool {
        let settled = self.closed || self.payments.values().all(|one| one.refunded);
        self.amount.is_none() && !self.payments.is_empty() && settled
    }

    /// Whether its refund is known, and the payment itself is not.
    pub(super) fn awaits(&self, payment: &str) -> bool {
        self.payments.get(payment).is_some_and(|one| one.amount.is_none())
    }

    /// What is kept for it.
    pub fn kept(&self) -> Option<&str> {
        self.payments.iter().find(|(_, one)| one.kept).map(|(id, _)| id.as_str())
    }
}
