//! A change as a document: what `ledgerctl watch` prints and the event bridge publishes.
//!
//! **What it is.** [`ChangeDocument`] is made of the change's wire form, so a kind of change that came after this module is told with all
//! that is common to changes; [`what`] alone has words of its own for a kind.
//! **Owns** the field names. **Must never** rename one: others read them. **Read next**: [`crate::Happened`].

use ledger_core::SaleId;
use ledger_core::change::{ChangeKind, LineChange};
use ledger_core::order::ParkReason;
use ledger_core::outcome::SoldOut;
use ledger_proto::{feed, names, v1};
use serde::Serialize;

use crate::watch::Happened;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeDocument {
    /// The change's published name.
    pub name: &'static str,
    /// Ledger time, ms.
    pub time_ms: u64,
    /// The shard.
    pub shard: u32,
    /// Index in the shard's log.
    pub index: u64,
    /// Place in the entry.
    pub place: u16,
    /// The (first) product it is about; null when it names a reservation alone.
    pub sku: Option<String>,
    /// The reservation it is about.
    pub reservation: Option<String>,
    /// Units moved, with each offer's balance right after.
    pub lines: Vec<ChangeLineDocument>,
    /// In words.
    pub what: String,
}

/// Units of one line, and the offer's balance right after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeLineDocument {
    /// The product.
    pub sku: String,
    /// The sale; null for the plain offer.
    pub sale: Option<String>,
    /// Units moved.
    pub units: u32,
    /// Available after.
    pub available: u64,
    /// Held after.
    pub held: u64,
    /// Sold after.
    pub sold: u64,
}

impl From<&Happened> for ChangeDocument {
    fn from(happened: &Happened) -> Self {
        let Happened { position, time, change } = happened;
        let wire = feed::change_to_wire(*position, *time, change);
        let lines: Vec<_> = wire.lines.iter().chain(&wire.given_back).map(line).collect();
        Self {
            name: change.kind.name(),
            time_ms: time.0,
            shard: position.shard,
            index: position.index,
            place: position.place,
            sku: wire.offer.map(|offer| offer.sku).or_else(|| lines.first().map(|line| line.sku.clone())),
            reservation: names::id("reservation", &wire.reservation).ok().map(|id| id.to_string()),
            lines,
            what: what(&change.kind),
        }
    }
}

fn line(change: &v1::LineChange) -> ChangeLineDocument {
    let v1::Line { sku, sale, quantity } = change.line.clone().unwrap_or_default();
    let balance = names::balance(change.balance);
    ChangeLineDocument {
        sku,
        sale: (!sale.is_empty()).then_some(sale),
        units: u32::try_from(quantity).unwrap_or(u32::MAX),
        available: balance.available,
        held: balance.held,
        sold: balance.sold,
    }
}

/// An instant of ledger time as RFC 3339; `-` for zero.
pub fn instant(ms: u64) -> String {
    if ms == 0 {
        return "-".into();
    }
    match i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        Some(t) => t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => format!("{ms} ms"),
    }
}

/// A change in words; empty for those that its name says all about.
fn what(kind: &ChangeKind) -> String {
    let units = |lines: &[LineChange]| -> u64 { lines.iter().map(|l| u64::from(l.line.quantity.get())).sum() };
    match kind {
        ChangeKind::UnitsReceived { units, reference, balance, .. } => {
            format!("+{} ({reference}), available {}", units.get(), balance.available)
        }
        ChangeKind::UnitsAdjusted { delta, reason, reference, balance, .. } => {
            format!("{delta:+} ({reason}; {reference}), available {}", balance.available)
        }
        ChangeKind::UnitsAllotted { from, to, units, .. } => {
            let name = |s: &Option<SaleId>| s.as_ref().map_or("plain".to_owned(), ToString::to_string);
            format!("{} from {} to {}", units.get(), name(from), name(to))
        }
        ChangeKind::InventoryReserved { deadline, lines, .. } => {
            format!("{} held until {}", units(lines), instant(deadline.0))
        }
        ChangeKind::ReservationExtended { deadline, .. } => format!("held until {}", instant(deadline.0)),
        ChangeKind::ReservationConfirmed { lines, given_back, .. } => {
            format!("{} sold, {} given back", units(lines), units(given_back))
        }
        ChangeKind::ReservationReleased { lines, .. } | ChangeKind::ReservationExpired { lines, .. } => {
            format!("{} given back", units(lines))
        }
        ChangeKind::UnitsReturned { lines, reference, .. } => format!("{} returned ({reference})", units(lines)),
        ChangeKind::EntryRefused { hash, bytes, error } => {
            format!("a log entry of {bytes} bytes could not be decoded ({}), hash {hash:032x}", error.name())
        }
        ChangeKind::StockLow { available, .. } => format!("{available} left"),
        ChangeKind::OfferRemoved { sold, .. } => format!("{sold} sold count as the plain offer's"),
        ChangeKind::SaleEnded { by_hand: false, .. } => "its window closed".to_owned(),
        ChangeKind::SaleEnded { moved_back, .. } => format!("by hand, {moved_back} back to the plain offer"),
        ChangeKind::SoldOut { truth, .. } => match truth {
            SoldOut::Open { available } => format!("{available} left"),
            SoldOut::FirstBackAt(t) => format!("all held, first back at {}", instant(t.0)),
            SoldOut::Gone => "gone for good".into(),
        },
        order => of_order(order),
    }
}

fn of_order(kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::PurchaseAttempted { reason, .. } | ChangeKind::PaymentFailed { reason, .. } => reason.to_string(),
        ChangeKind::OrderPlaced { deadline, amount, suspect, .. } => {
            format!("{amount}, to be paid until {}{}", instant(deadline.0), if *suspect { ", suspect" } else { "" })
        }
        ChangeKind::OrderClaimed { worker, epoch, step, until, .. } => {
            format!("{worker} is to {}, until {} (epoch {epoch})", step.name(), instant(until.0))
        }
        ChangeKind::LeaseLost { worker, epoch, .. } => format!("{worker} never reported (epoch {epoch})"),
        ChangeKind::IntentCreated { intent, generation, .. } => format!("{intent}, generation {generation}"),
        ChangeKind::OrderRetried { reason, until, attempts, .. } => {
            format!("{reason}; attempt {attempts}, again at {}", instant(until.0))
        }
        ChangeKind::OrderGivenBack { until, .. } => format!("nothing was tried; again at {}", instant(until.0)),
        ChangeKind::PaymentProcessed { payment, amount, kept, .. } => {
            format!("{amount} as {payment}, {}", if *kept { "kept" } else { "to be given back" })
        }
        ChangeKind::OrderSettling { why, .. } => format!("units are free again ({why:?}); was anything paid?"),
        ChangeKind::OrderConfirmed { linked, .. } => {
            linked.map_or(String::new(), |linked| format!("late, with the units of {linked}"))
        }
        ChangeKind::RefundRequested { payment, reason, .. } => format!("{payment}: {reason:?}"),
        ChangeKind::OrderRefunded { payment, refund, .. } => format!("{payment} by {refund}"),
        ChangeKind::OrderParked { reason, .. } => parked_words(reason),
        ChangeKind::OrderByHandDone { what, reason, .. } => format!("{what:?}: {reason}"),
        _ => String::new(),
    }
}

/// Why an order is parked, in words.
pub fn parked_words(reason: &ParkReason) -> String {
    match reason {
        ParkReason::Worker(reason) => reason.to_string(),
        ParkReason::LeasesLost => "too many leases ended without a report".to_owned(),
        ParkReason::UnknownOrder => "a payment came for an id that has no order".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::outcome::Balance;
    use ledger_core::{Change, LedgerTime, Line, OfferKey, Position, Quantity, ReservationId, Sku, Slot};

    use super::*;

    fn happened(kind: ChangeKind) -> Happened {
        let position = Position { incarnation: 1, shard: 2, term: 3, index: 40, place: 5 };
        let change = Change { place: 5, previous_on_products: Default::default(), previous_on_reservation: None, kind };
        Happened { position, time: LedgerTime(1_700_000_000_123), change }
    }

    /// Machines read these names: a change here is a change of what is published.
    #[test]
    fn the_json_of_a_change_is_stable() {
        let offer = OfferKey { sku: Sku::new("mug").expect("sku"), sale: None };
        let id = ReservationId::from_parts(Slot::of(&offer.sku), 1_700_000_000_000, 9);
        let balance = Balance { available: 7, held: 3, sold: 1 };
        let line = Line { offer, quantity: Quantity::new(2).expect("two") };
        let lines = [LineChange { line, balance }].into_iter().collect();
        let kind = ChangeKind::InventoryReserved { id, deadline: LedgerTime(1_700_000_600_123), lines };
        assert_eq!(
            serde_json::to_string(&ChangeDocument::from(&happened(kind))).expect("json"),
            format!(
                concat!(
                    r#"{{"name":"InventoryReserved","time_ms":1700000000123,"shard":2,"index":40,"place":5,"sku":"mug","#,
                    r#""reservation":"{}","lines":[{{"sku":"mug","sale":null,"units":2,"available":7,"held":3,"sold":1}}],"#,
                    r#""what":"2 held until 2023-11-14T22:23:20.123Z"}}"#
                ),
                id
            )
        );
    }

    #[test]
    fn a_change_that_names_a_reservation_alone_has_no_product() {
        let id = ReservationId::from_parts(Slot::new(7).expect("slot"), 1_700_000_000_000, 9);
        let kind = ChangeKind::ReservationExtended { id, deadline: LedgerTime(1_700_000_600_123) };
        let document = ChangeDocument::from(&happened(kind));
        assert_eq!((document.sku, document.reservation), (None, Some(id.to_string())));
    }
}
