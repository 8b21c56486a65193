//! Reads: views ↔ wire.
//!
//! **Owns** how offers, products and reservations are written and read. **Must never** carry what a read did not see.

use ledger_core::view::{IdView, LineView, OfferView, ProductView, ReservationView};
use ledger_core::{LedgerTime, LimitKey};

use crate::names;
use crate::refusals;
use crate::reply::Invalid;
use crate::v1::{self, get_reservation_response::What};

/// An offer, for the wire.
pub fn offer_to_wire(view: &OfferView) -> v1::OfferView {
    v1::OfferView {
        offer: Some(names::offer_to_wire(&view.offer)),
        policy: Some(names::policy_to_wire(&view.policy)),
        version: view.version,
        balance: Some(names::balance_to_wire(view.balance)),
        sold_out: view.sold_out.map(names::sold_out_to_wire),
        ended: view.ended,
        taking: view.taking,
    }
}

/// An offer.
///
/// # Errors
/// [`Invalid`] when a field is missing or broken.
pub fn offer_from_wire(wire: v1::OfferView) -> Result<OfferView, Invalid> {
    Ok(OfferView {
        offer: names::offer(wire.offer)?,
        policy: names::policy(wire.policy.ok_or_else(|| Invalid::new("policy", "missing"))?)?,
        version: wire.version,
        balance: names::balance(wire.balance),
        sold_out: names::sold_out(wire.sold_out),
        ended: wire.ended,
        taking: wire.taking,
    })
}

/// A product, for the wire.
pub fn product_to_wire(view: &ProductView) -> v1::ProductView {
    v1::ProductView {
        sku: view.sku.as_str().to_owned(),
        received: view.received,
        adjusted: view.adjusted,
        returned: view.returned,
        ever_sold: view.ever_sold,
        offers: view.offers.iter().map(offer_to_wire).collect(),
    }
}

/// A product.
///
/// # Errors
/// [`Invalid`] when a field is missing or broken.
pub fn product_from_wire(wire: v1::ProductView) -> Result<ProductView, Invalid> {
    Ok(ProductView {
        sku: names::sku("sku", &wire.sku)?,
        received: wire.received,
        adjusted: wire.adjusted,
        returned: wire.returned,
        ever_sold: wire.ever_sold,
        offers: wire.offers.into_iter().map(offer_from_wire).collect::<Result<_, _>>()?,
    })
}

/// A reservation, for the wire.
pub fn reservation_to_wire(view: &ReservationView) -> v1::ReservationView {
    let line = |line: &LineView| v1::LineView {
        offer: Some(names::offer_to_wire(&line.offer)),
        reserved: line.reserved,
        sold: line.sold,
        returned: line.returned,
    };
    v1::ReservationView {
        id: names::id_to_wire(view.id),
        status: names::status_to_wire(view.status).into(),
        reserved_at_ms: view.reserved_at.0,
        deadline_ms: view.deadline.0,
        ended_at_ms: view.ended_at.map(|at| at.0),
        keys: view.keys.iter().map(|key| key.as_str().to_owned()).collect(),
        lines: view.lines.iter().map(line).collect(),
    }
}

/// A reservation.
///
/// # Errors
/// [`Invalid`] when a field is missing or broken.
pub fn reservation_from_wire(wire: v1::ReservationView) -> Result<ReservationView, Invalid> {
    let line = |line: v1::LineView| {
        let v1::LineView { offer, reserved, sold, returned } = line;
        Ok::<_, Invalid>(LineView { offer: names::offer(offer)?, reserved, sold, returned })
    };
    Ok(ReservationView {
        id: names::id("id", &wire.id)?,
        status: names::status(wire.status).ok_or_else(|| Invalid::new("status", "not known to this build"))?,
        reserved_at: LedgerTime(wire.reserved_at_ms),
        deadline: LedgerTime(wire.deadline_ms),
        ended_at: wire.ended_at_ms.map(LedgerTime),
        keys: wire.keys.into_iter().map(LimitKey::new).collect::<Result<_, _>>().map_err(Invalid::of("keys"))?,
        lines: wire.lines.into_iter().map(line).collect::<Result<_, _>>()?,
    })
}

/// What is known of an id, for the wire; none when its slot is elsewhere (answer *not now* then).
pub fn id_to_wire(view: &IdView) -> Option<What> {
    Some(match view {
        IdView::Reservation(reservation) => What::Reservation(reservation_to_wire(reservation)),
        IdView::Refused(refusal) => What::Refused(refusals::to_wire(refusal)),
        IdView::Fenced => What::Fenced(v1::Done {}),
        IdView::Unknown => What::Unknown(v1::Done {}),
        IdView::Forgotten => What::Forgotten(v1::Done {}),
        IdView::SlotElsewhere => return None,
    })
}

/// What is known of an id.
///
/// # Errors
/// [`Invalid`] when a field is missing, broken or newer than this build.
pub fn id_from_wire(wire: Option<What>) -> Result<IdView, Invalid> {
    let newer = |field| Invalid::new(field, "not known to this build");
    Ok(match wire.ok_or_else(|| newer("what"))? {
        What::Reservation(reservation) => IdView::Reservation(reservation_from_wire(reservation)?),
        What::Refused(refusal) => IdView::Refused(refusals::from_wire(refusal).map_err(|_| newer("refused"))?),
        What::Fenced(v1::Done {}) => IdView::Fenced,
        What::Unknown(v1::Done {}) => IdView::Unknown,
        What::Forgotten(v1::Done {}) => IdView::Forgotten,
    })
}
