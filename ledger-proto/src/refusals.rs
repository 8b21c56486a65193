//! Refusals: one frozen code and a few typed fields each.
//!
//! **Owns** which field of [`v1::Refusal`] carries what. **Must never** lose a number of a refusal on the way.

use ledger_core::outcome::Bound;
use ledger_core::{LedgerTime, OfferKey, Refusal};

use crate::names;
use crate::orders;
use crate::reply::{Invalid, Why};
use crate::v1::{self, RefusalCode as Code};

/// Any *no*, for the wire.
pub fn why_to_wire(why: &Why) -> v1::Refusal {
    match why {
        Why::Ledger(refusal) => to_wire(refusal),
        Why::Invalid(invalid) => v1::Refusal {
            code: Code::Invalid.into(),
            message: invalid.why.clone(),
            what: invalid.field.clone().into(),
            ..Default::default()
        },
        Why::PermissionDenied(message) => {
            v1::Refusal { code: Code::PermissionDenied.into(), message: message.clone(), ..Default::default() }
        }
        Why::Other { code, message } => v1::Refusal { code: *code, message: message.clone(), ..Default::default() },
    }
}

/// Any *no*, out of the wire.
pub fn why_from_wire(wire: v1::Refusal) -> Why {
    match Code::try_from(wire.code) {
        Ok(Code::Invalid) => Why::Invalid(Invalid { field: wire.what.into(), why: wire.message }),
        Ok(Code::PermissionDenied) => Why::PermissionDenied(wire.message),
        _ => match from_wire(wire) {
            Ok(refusal) => Why::Ledger(refusal),
            Err(wire) => Why::Other { code: wire.code, message: wire.message },
        },
    }
}

fn coded(code: Code) -> v1::Refusal {
    v1::Refusal { code: code.into(), ..Default::default() }
}
fn about(code: Code, offer: &OfferKey) -> v1::Refusal {
    v1::Refusal { offer: Some(names::offer_to_wire(offer)), ..coded(code) }
}

/// The ledger's refusal, for the wire.
pub fn to_wire(refusal: &Refusal) -> v1::Refusal {
    let wire = match refusal {
        Refusal::LinesSpanSlots => coded(Code::LinesSpanSlots),
        Refusal::IdWrongSlot { id_slot, lines_slot } => {
            v1::Refusal { bound: (*id_slot).into(), actual: (*lines_slot).into(), ..coded(Code::IdWrongSlot) }
        }
        Refusal::QuantityTooLarge { offer } => about(Code::QuantityTooLarge, offer),
        Refusal::IdTaken => coded(Code::IdTaken),
        Refusal::Forgotten => coded(Code::Forgotten),
        Refusal::Fenced => coded(Code::Fenced),
        Refusal::UnknownReservation => coded(Code::UnknownReservation),
        Refusal::UnknownProduct { offer } => about(Code::UnknownProduct, offer),
        Refusal::UnknownOffer { offer } => about(Code::UnknownOffer, offer),
        Refusal::AlreadyExists => coded(Code::AlreadyExists),
        Refusal::SaleHasEnded => coded(Code::SaleHasEnded),
        Refusal::OfferClosed => coded(Code::OfferClosed),
        Refusal::SaleNotOpenYet { opens_at } => v1::Refusal { at_ms: opens_at.0, ..coded(Code::SaleNotOpenYet) },
        Refusal::SaleOver { closed_at } => v1::Refusal { at_ms: closed_at.0, ..coded(Code::SaleOver) },
        Refusal::HoldTooLong { max_ms } => v1::Refusal { bound: *max_ms, ..coded(Code::HoldTooLong) },
        Refusal::BelowOrderMin { min } => v1::Refusal { bound: (*min).into(), ..coded(Code::BelowOrderMin) },
        Refusal::AboveOrderMax { max } => v1::Refusal { bound: (*max).into(), ..coded(Code::AboveOrderMax) },
        Refusal::LimitReached { offer, key_index, used, max } => v1::Refusal {
            bound: (*max).into(),
            actual: (*used).into(),
            key_index: (*key_index).into(),
            ..about(Code::LimitReached, offer)
        },
        Refusal::SoldOut { offer, truth } => {
            v1::Refusal { sold_out: Some(names::sold_out_to_wire(*truth)), ..about(Code::SoldOut, offer) }
        }
        Refusal::NotHeld { status } => {
            v1::Refusal { status: names::status_to_wire(*status).into(), ..coded(Code::NotHeld) }
        }
        Refusal::NotSold { status } => {
            v1::Refusal { status: names::status_to_wire(*status).into(), ..coded(Code::NotSold) }
        }
        Refusal::DeadlineMoved { deadline } => v1::Refusal { at_ms: deadline.0, ..coded(Code::DeadlineMoved) },
        Refusal::NoSuchLine { offer } => about(Code::NoSuchLine, offer),
        Refusal::MoreThanLine { offer, has } => {
            v1::Refusal { actual: (*has).into(), ..about(Code::MoreThanLine, offer) }
        }
        Refusal::AlreadyReturned => coded(Code::AlreadyReturned),
        Refusal::ReferenceTaken => coded(Code::ReferenceTaken),
        Refusal::VersionMismatch { actual } => v1::Refusal { actual: *actual, ..coded(Code::VersionMismatch) },
        Refusal::NotEnoughAvailable { available } => {
            v1::Refusal { actual: *available, ..coded(Code::NotEnoughAvailable) }
        }
        Refusal::ProductInUse { units, sales, records } => {
            v1::Refusal { actual: *units, bound: *sales, records: *records, ..coded(Code::ProductInUse) }
        }
        Refusal::TooMany { what, max } => {
            v1::Refusal { what: bound_name(*what).to_owned(), bound: *max, ..coded(Code::TooMany) }
        }
        Refusal::BehaviourUnknown { version, present } => {
            v1::Refusal { bound: (*version).into(), actual: (*present).into(), ..coded(Code::BehaviourUnknown) }
        }
        Refusal::EntryUndecodable => coded(Code::EntryUndecodable),
        Refusal::StaleGeneration { present } => v1::Refusal { actual: *present, ..coded(Code::StaleGeneration) },
        Refusal::Ordered => coded(Code::Ordered),
        Refusal::NoSuchOrder => coded(Code::NoSuchOrder),
        Refusal::StaleEpoch { present } => v1::Refusal { actual: (*present).into(), ..coded(Code::StaleEpoch) },
        Refusal::LeaseEnded { phase } => {
            v1::Refusal { phase: orders::phase_to_wire(*phase), ..coded(Code::LeaseEnded) }
        }
        Refusal::WrongPhase { phase } => {
            v1::Refusal { phase: orders::phase_to_wire(*phase), ..coded(Code::WrongPhase) }
        }
        Refusal::WrongGeneration { present } => {
            v1::Refusal { actual: (*present).into(), ..coded(Code::WrongGeneration) }
        }
        Refusal::PaymentDiffers { amount } => {
            v1::Refusal { amount: amount.map(orders::money_to_wire), ..coded(Code::PaymentDiffers) }
        }
    };
    v1::Refusal { message: refusal.to_string(), ..wire }
}

/// The ledger's refusal out of the wire; given back when this build does not know it.
///
/// # Errors
/// The wire's refusal as it came.
#[expect(clippy::result_large_err, reason = "cold, and the error is the argument given back")]
pub fn from_wire(wire: v1::Refusal) -> Result<Refusal, v1::Refusal> {
    known(&wire).ok_or(wire)
}

fn known(wire: &v1::Refusal) -> Option<Refusal> {
    let offer = || names::offer(wire.offer.clone()).ok();
    let small = |n: u64| u32::try_from(n).ok();
    let tiny = |n: u64| u16::try_from(n).ok();
    let at = LedgerTime(wire.at_ms);
    Some(match Code::try_from(wire.code).ok()? {
        Code::Unspecified | Code::Invalid | Code::PermissionDenied => return None,
        Code::LinesSpanSlots => Refusal::LinesSpanSlots,
        Code::IdWrongSlot => Refusal::IdWrongSlot { id_slot: tiny(wire.bound)?, lines_slot: tiny(wire.actual)? },
        Code::QuantityTooLarge => Refusal::QuantityTooLarge { offer: offer()? },
        Code::IdTaken => Refusal::IdTaken,
        Code::Forgotten => Refusal::Forgotten,
        Code::Fenced => Refusal::Fenced,
        Code::UnknownReservation => Refusal::UnknownReservation,
        Code::UnknownProduct => Refusal::UnknownProduct { offer: offer()? },
        Code::UnknownOffer => Refusal::UnknownOffer { offer: offer()? },
        Code::AlreadyExists => Refusal::AlreadyExists,
        Code::SaleHasEnded => Refusal::SaleHasEnded,
        Code::OfferClosed => Refusal::OfferClosed,
        Code::SaleNotOpenYet => Refusal::SaleNotOpenYet { opens_at: at },
        Code::SaleOver => Refusal::SaleOver { closed_at: at },
        Code::HoldTooLong => Refusal::HoldTooLong { max_ms: wire.bound },
        Code::BelowOrderMin => Refusal::BelowOrderMin { min: small(wire.bound)? },
        Code::AboveOrderMax => Refusal::AboveOrderMax { max: small(wire.bound)? },
        Code::LimitReached => Refusal::LimitReached {
            offer: offer()?,
            key_index: u8::try_from(wire.key_index).ok()?,
            used: small(wire.actual)?,
            max: small(wire.bound)?,
        },
        Code::SoldOut => Refusal::SoldOut { offer: offer()?, truth: names::sold_out(wire.sold_out)? },
        Code::NotHeld => Refusal::NotHeld { status: names::status(wire.status)? },
        Code::NotSold => Refusal::NotSold { status: names::status(wire.status)? },
        Code::DeadlineMoved => Refusal::DeadlineMoved { deadline: at },
        Code::NoSuchLine => Refusal::NoSuchLine { offer: offer()? },
        Code::MoreThanLine => Refusal::MoreThanLine { offer: offer()?, has: small(wire.actual)? },
        Code::AlreadyReturned => Refusal::AlreadyReturned,
        Code::ReferenceTaken => Refusal::ReferenceTaken,
        Code::VersionMismatch => Refusal::VersionMismatch { actual: wire.actual },
        Code::NotEnoughAvailable => Refusal::NotEnoughAvailable { available: wire.actual },
        Code::ProductInUse => Refusal::ProductInUse { units: wire.actual, sales: wire.bound, records: wire.records },
        Code::TooMany => Refusal::TooMany { what: bound_named(&wire.what)?, max: wire.bound },
        Code::BehaviourUnknown => Refusal::BehaviourUnknown { version: tiny(wire.bound)?, present: tiny(wire.actual)? },
        Code::EntryUndecodable => Refusal::EntryUndecodable,
        Code::StaleGeneration => Refusal::StaleGeneration { present: wire.actual },
        Code::Ordered => Refusal::Ordered,
        Code::NoSuchOrder => Refusal::NoSuchOrder,
        Code::StaleEpoch => Refusal::StaleEpoch { present: small(wire.actual)? },
        Code::LeaseEnded => Refusal::LeaseEnded { phase: orders::phase(wire.phase)? },
        Code::WrongPhase => Refusal::WrongPhase { phase: orders::phase(wire.phase)? },
        Code::WrongGeneration => Refusal::WrongGeneration { present: small(wire.actual)? },
        Code::PaymentDiffers => {
            let amount = wire.amount.clone().map(|amount| orders::money("amount", Some(amount)));
            Refusal::PaymentDiffers { amount: amount.transpose().ok()? }
        }
    })
}

const BOUNDS: [(Bound, &str); 9] = [
    (Bound::UnitsPerProduct, "units per product"),
    (Bound::OffersPerProduct, "offers per product"),
    (Bound::Offers, "offers per shard"),
    (Bound::ReturnsPerReservation, "returns per reservation"),
    (Bound::PaymentsPerOrder, "payments per order"),
    (Bound::Products, "products per shard"),
    (Bound::References, "references per shard"),
    (Bound::UnknownPayments, "payments without an order per shard"),
    (Bound::OpenOrders, "open orders per shard"),
];

fn bound_name(bound: Bound) -> &'static str {
    BOUNDS.iter().find(|(known, _)| *known == bound).map_or("", |(_, name)| name)
}
fn bound_named(text: &str) -> Option<Bound> {
    BOUNDS.iter().find(|(_, name)| *name == text).map(|(bound, _)| *bound)
}
