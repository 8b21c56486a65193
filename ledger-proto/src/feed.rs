//! The feed: changes ↔ wire.
//!
//! **Owns** which field of [`v1::FeedChange`] carries what. **Must never** drop or reorder a change.

use ledger_core::change::{Change, ChangeKind, EntryFault, LineChange, LineChanges, ProductLinks, Record};
use ledger_core::outcome::Balance;
use ledger_core::{
    LedgerTime, Line, OfferKey, Policy, Position, Quantity, Reason, Reference, ReservationId, SaleId, Sku, Units,
};

use crate::names;
use crate::orders;
use crate::reply::Invalid;
use crate::v1;

/// All changes of a record, in order.
pub fn record_to_wire(record: &Record) -> impl Iterator<Item = v1::FeedChange> + '_ {
    record.changes.iter().map(|change| change_to_wire(record.position, record.time, change))
}

/// One change of the entry at `entry`, for the wire.
pub fn change_to_wire(entry: Position, time: LedgerTime, change: &Change) -> v1::FeedChange {
    let position = |(index, place)| names::position_to_wire(Position { term: 0, index, place, ..entry });
    let further = change.previous_on_products.iter().skip(1);
    let mut wire = v1::FeedChange {
        position: Some(names::position_to_wire(Position { place: change.place, ..entry })),
        time_ms: time.0,
        name: change.kind.name().to_owned(),
        previous_on_product: change.previous_on_products.first().copied().flatten().map(position),
        previous_on_further_products: further.map(|link| position(link.unwrap_or_default())).collect(),
        previous_on_reservation: change.previous_on_reservation.map(position),
        ..Default::default()
    };
    if !offer_kind_to_wire(&change.kind, &mut wire) && !orders::change_to_wire(&change.kind, &mut wire) {
        reservation_kind_to_wire(&change.kind, &mut wire);
    }
    wire
}

fn plain(sku: &Sku) -> Option<v1::OfferKey> {
    Some(v1::OfferKey { sku: sku.as_str().to_owned(), sale: String::new() })
}
fn wire_offer(offer: &OfferKey) -> Option<v1::OfferKey> {
    Some(names::offer_to_wire(offer))
}
fn wire_balance(balance: Balance) -> Option<v1::Balance> {
    Some(names::balance_to_wire(balance))
}
fn wire_lines(lines: &[LineChange]) -> Vec<v1::LineChange> {
    let one = |change: &LineChange| v1::LineChange {
        line: Some(names::line_to_wire(&change.line)),
        balance: wire_balance(change.balance),
    };
    lines.iter().map(one).collect()
}

/// Writes a change about an offer; false when it is about a reservation.
fn offer_kind_to_wire(kind: &ChangeKind, wire: &mut v1::FeedChange) -> bool {
    match kind {
        ChangeKind::ProductCreated { sku, policy } => {
            wire.offer = plain(sku);
            wire.policy = Some(names::policy_to_wire(policy));
        }
        ChangeKind::OfferPut { offer, policy, version } => {
            wire.offer = wire_offer(offer);
            wire.policy = Some(names::policy_to_wire(policy));
            wire.version = *version;
        }
        ChangeKind::OfferOpened { offer } | ChangeKind::OfferClosed { offer } => wire.offer = wire_offer(offer),
        ChangeKind::SaleStarted { offer, balance } => {
            wire.offer = wire_offer(offer);
            wire.balance = wire_balance(*balance);
        }
        ChangeKind::SaleEnded { offer, balance, moved_back, by_hand } => {
            wire.offer = wire_offer(offer);
            wire.balance = wire_balance(*balance);
            wire.units = *moved_back;
            wire.by_hand = *by_hand;
        }
        ChangeKind::OfferRemoved { offer, sold, balance } => {
            wire.offer = wire_offer(offer);
            wire.units = *sold;
            wire.balance = wire_balance(*balance);
        }
        ChangeKind::ProductDeleted { sku } => wire.offer = plain(sku),
        ChangeKind::UnitsReceived { offer, units, reference, balance } => {
            wire.offer = wire_offer(offer);
            wire.units = units.get();
            wire.reference = reference.as_str().to_owned();
            wire.balance = wire_balance(*balance);
        }
        ChangeKind::UnitsAdjusted { offer, delta, reason, reference, balance } => {
            wire.offer = wire_offer(offer);
            wire.delta = *delta;
            wire.reason = reason.as_str().to_owned();
            wire.reference = reference.as_str().to_owned();
            wire.balance = wire_balance(*balance);
        }
        ChangeKind::UnitsAllotted { sku, from, to, units, reference, from_balance, to_balance } => {
            wire.offer = plain(sku);
            wire.from_sale = names::sale_to_wire(from.as_ref());
            wire.to_sale = names::sale_to_wire(to.as_ref());
            wire.units = units.get();
            wire.reference = reference.as_str().to_owned();
            wire.from_balance = wire_balance(*from_balance);
            wire.balance = wire_balance(*to_balance);
        }
        ChangeKind::StockLow { offer, available } => {
            wire.offer = wire_offer(offer);
            wire.units = *available;
        }
        ChangeKind::SoldOut { offer, truth } => {
            wire.offer = wire_offer(offer);
            wire.sold_out = Some(names::sold_out_to_wire(*truth));
        }
        ChangeKind::EntryRefused { hash, bytes, error } => {
            wire.refused_entry = Some(v1::RefusedEntry {
                hash: hash.to_be_bytes().to_vec().into(),
                bytes: *bytes,
                error: error.name().to_owned(),
            });
        }
        _ => return false,
    }
    true
}

fn reservation_kind_to_wire(kind: &ChangeKind, wire: &mut v1::FeedChange) {
    match kind {
        ChangeKind::InventoryReserved { id, deadline, lines }
        | ChangeKind::ReservationExpired { id, deadline, lines } => {
            wire.reservation = names::id_to_wire(*id);
            wire.deadline_ms = Some(deadline.0);
            wire.lines = wire_lines(lines);
        }
        ChangeKind::ReservationExtended { id, deadline } => {
            wire.reservation = names::id_to_wire(*id);
            wire.deadline_ms = Some(deadline.0);
        }
        ChangeKind::ReservationConfirmed { id, lines, given_back } => {
            wire.reservation = names::id_to_wire(*id);
            wire.lines = wire_lines(lines);
            wire.given_back = wire_lines(given_back);
        }
        ChangeKind::ReservationReleased { id, lines } => {
            wire.reservation = names::id_to_wire(*id);
            wire.lines = wire_lines(lines);
        }
        ChangeKind::UnitsReturned { id, reference, lines } => {
            wire.reservation = names::id_to_wire(*id);
            wire.reference = reference.as_str().to_owned();
            wire.lines = wire_lines(lines);
        }
        _ => {}
    }
}

/// One change out of the wire: its position (place included), ledger time, and what happened.
///
/// # Errors
/// [`Invalid`] when a field is missing or broken, or the event's name is not known to this build.
pub fn change_from_wire(wire: v1::FeedChange) -> Result<(Position, LedgerTime, Change), Invalid> {
    let position = names::position(wire.position.ok_or_else(|| missing("position"))?);
    let previous = |at: Option<v1::Position>| at.map(names::position).map(|at| (at.index, at.place));
    let previous_on_reservation = previous(wire.previous_on_reservation);
    let time = LedgerTime(wire.time_ms);
    let kind = kind_from_wire(&wire)?;
    let first = previous(wire.previous_on_product);
    let further = wire.previous_on_further_products.iter().map(|at| previous(Some(*at)).filter(|link| link.0 > 0));
    let products = kind.products().len();
    let previous_on_products: ProductLinks = std::iter::once(first).chain(further).take(products).collect();
    if previous_on_products.len() < products {
        return Err(missing("previous_on_further_products"));
    }
    Ok((position, time, Change { place: position.place, previous_on_products, previous_on_reservation, kind }))
}

fn missing(field: &'static str) -> Invalid {
    Invalid::new(field, "missing")
}

/// Reads the fields of one change as they are asked for.
struct Fields<'a>(&'a v1::FeedChange);

impl Fields<'_> {
    fn offer(&self) -> Result<OfferKey, Invalid> {
        names::offer(self.0.offer.clone())
    }
    fn sku(&self) -> Result<Sku, Invalid> {
        self.offer().map(|offer| offer.sku)
    }
    fn policy(&self) -> Result<Policy, Invalid> {
        names::policy(self.0.policy.clone().ok_or_else(|| missing("policy"))?)
    }
    fn balance(&self) -> Balance {
        names::balance(self.0.balance)
    }
    fn units(&self) -> Result<Units, Invalid> {
        Units::new(i64::try_from(self.0.units).unwrap_or(i64::MAX)).map_err(Invalid::of("units"))
    }
    fn reference(&self) -> Result<Reference, Invalid> {
        Reference::new(&self.0.reference).map_err(Invalid::of("reference"))
    }
    fn reason(&self) -> Result<Reason, Invalid> {
        Reason::new(&self.0.reason).map_err(Invalid::of("reason"))
    }
    fn id(&self) -> Result<ReservationId, Invalid> {
        names::id("reservation", &self.0.reservation)
    }
    fn deadline(&self) -> Result<LedgerTime, Invalid> {
        self.0.deadline_ms.map(LedgerTime).ok_or_else(|| missing("deadline_ms"))
    }
    fn sales(&self) -> Result<(Option<SaleId>, Option<SaleId>), Invalid> {
        Ok((names::sale("from_sale", &self.0.from_sale)?, names::sale("to_sale", &self.0.to_sale)?))
    }
    fn lines(&self) -> Result<LineChanges, Invalid> {
        lines(&self.0.lines)
    }
}

fn lines(wire: &[v1::LineChange]) -> Result<LineChanges, Invalid> {
    let one = |change: &v1::LineChange| {
        let line = change.line.as_ref().ok_or_else(|| missing("lines.line"))?;
        let offer = OfferKey { sku: names::sku("lines.sku", &line.sku)?, sale: names::sale("lines.sale", &line.sale)? };
        let quantity = Quantity::new(line.quantity).map_err(Invalid::of("lines.quantity"))?;
        Ok(LineChange { line: Line { offer, quantity }, balance: names::balance(change.balance) })
    };
    wire.iter().map(one).collect()
}

fn kind_from_wire(wire: &v1::FeedChange) -> Result<ChangeKind, Invalid> {
    let of = Fields(wire);
    Ok(match wire.name.as_str() {
        "ProductCreated" => ChangeKind::ProductCreated { sku: of.sku()?, policy: of.policy()? },
        "OfferPut" => ChangeKind::OfferPut { offer: of.offer()?, policy: of.policy()?, version: wire.version },
        "OfferOpened" => ChangeKind::OfferOpened { offer: of.offer()? },
        "OfferClosed" => ChangeKind::OfferClosed { offer: of.offer()? },
        "SaleStarted" => ChangeKind::SaleStarted { offer: of.offer()?, balance: of.balance() },
        "SaleEnded" => ChangeKind::SaleEnded {
            offer: of.offer()?,
            balance: of.balance(),
            moved_back: wire.units,
            by_hand: wire.by_hand,
        },
        "OfferRemoved" => ChangeKind::OfferRemoved { offer: of.offer()?, sold: wire.units, balance: of.balance() },
        "ProductDeleted" => ChangeKind::ProductDeleted { sku: of.sku()? },
        "UnitsReceived" => ChangeKind::UnitsReceived {
            offer: of.offer()?,
            units: of.units()?,
            reference: of.reference()?,
            balance: of.balance(),
        },
        "UnitsAdjusted" => ChangeKind::UnitsAdjusted {
            offer: of.offer()?,
            delta: wire.delta,
            reason: of.reason()?,
            reference: of.reference()?,
            balance: of.balance(),
        },
        "UnitsAllotted" => {
            let (from, to) = of.sales()?;
            ChangeKind::UnitsAllotted {
                sku: of.sku()?,
                from,
                to,
                units: of.units()?,
                reference: of.reference()?,
                from_balance: names::balance(wire.from_balance),
                to_balance: of.balance(),
            }
        }
        "StockLow" => ChangeKind::StockLow { offer: of.offer()?, available: wire.units },
        "SoldOut" => {
            let truth = names::sold_out(wire.sold_out).ok_or_else(|| missing("sold_out"))?;
            ChangeKind::SoldOut { offer: of.offer()?, truth }
        }
        "EntryRefused" => refused_entry(wire)?,
        _ => return reservation_kind_from_wire(wire),
    })
}

fn refused_entry(wire: &v1::FeedChange) -> Result<ChangeKind, Invalid> {
    let refused = wire.refused_entry.as_ref().ok_or_else(|| missing("refused_entry"))?;
    let hash = <[u8; 16]>::try_from(refused.hash.as_ref()).ok();
    let hash = hash.ok_or_else(|| Invalid::new("refused_entry.hash", "must have 16 bytes"))?;
    let error = EntryFault::named(&refused.error);
    let error = error.ok_or_else(|| Invalid::new("refused_entry.error", "not known to this build"))?;
    Ok(ChangeKind::EntryRefused { hash: u128::from_be_bytes(hash), bytes: refused.bytes, error })
}

fn reservation_kind_from_wire(wire: &v1::FeedChange) -> Result<ChangeKind, Invalid> {
    if let Some(kind) = orders::change_from_wire(wire) {
        return kind;
    }
    let of = Fields(wire);
    Ok(match wire.name.as_str() {
        "InventoryReserved" => {
            ChangeKind::InventoryReserved { id: of.id()?, deadline: of.deadline()?, lines: of.lines()? }
        }
        "ReservationExtended" => ChangeKind::ReservationExtended { id: of.id()?, deadline: of.deadline()? },
        "ReservationConfirmed" => {
            ChangeKind::ReservationConfirmed { id: of.id()?, lines: of.lines()?, given_back: lines(&wire.given_back)? }
        }
        "ReservationReleased" => ChangeKind::ReservationReleased { id: of.id()?, lines: of.lines()? },
        "ReservationExpired" => {
            ChangeKind::ReservationExpired { id: of.id()?, deadline: of.deadline()?, lines: of.lines()? }
        }
        "UnitsReturned" => ChangeKind::UnitsReturned { id: of.id()?, reference: of.reference()?, lines: of.lines()? },
        other => return Err(Invalid::new("name", format!("{other:?} is not known to this build"))),
    })
}
