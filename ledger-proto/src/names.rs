//! Small pieces shared by the conversions: names, offers, lines, policies, balances, positions.
//!
//! **Owns** the one way each of them is checked. **Must never** panic on what came from outside.

use ledger_core::command::{LimitKeys, Lines};
use ledger_core::limits as core_limits;
use ledger_core::outcome::{Balance, SoldOut, Status};
use ledger_core::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Position, Price, Quantity, ReservationId, SaleId, Sku,
};

use crate::limits::LINES_PER_CALL_MAX;
use crate::reply::{At, Invalid};
use crate::v1;

/// A SKU.
///
/// # Errors
/// [`Invalid`] naming `field`.
pub fn sku(field: &'static str, text: &str) -> Result<Sku, Invalid> {
    Sku::new(text).map_err(Invalid::of(field))
}

/// A sale id, or none when empty.
///
/// # Errors
/// [`Invalid`] naming `field`.
pub fn sale(field: &'static str, text: &str) -> Result<Option<SaleId>, Invalid> {
    if text.is_empty() { Ok(None) } else { SaleId::new(text).map(Some).map_err(Invalid::of(field)) }
}

/// A reservation id.
///
/// # Errors
/// [`Invalid`] naming `field`.
pub fn id(field: &'static str, bytes: &[u8]) -> Result<ReservationId, Invalid> {
    ReservationId::from_slice(bytes).map_err(Invalid::of(field))
}

/// An offer.
///
/// # Errors
/// [`Invalid`] also when it is missing.
pub fn offer(wire: Option<v1::OfferKey>) -> Result<OfferKey, Invalid> {
    let wire = wire.ok_or_else(|| Invalid::new("offer", "missing"))?;
    Ok(OfferKey { sku: sku("offer.sku", &wire.sku)?, sale: sale("offer.sale", &wire.sale)? })
}

/// An offer for the wire.
pub fn offer_to_wire(offer: &OfferKey) -> v1::OfferKey {
    v1::OfferKey { sku: offer.sku.as_str().to_owned(), sale: sale_to_wire(offer.sale.as_ref()) }
}

/// A sale id for the wire: empty for none.
pub fn sale_to_wire(sale: Option<&SaleId>) -> String {
    sale.map(|sale| sale.as_str().to_owned()).unwrap_or_default()
}

/// A reservation id for the wire.
pub fn id_to_wire(id: ReservationId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

/// Limit keys, at most four.
///
/// # Errors
/// [`Invalid`].
pub fn keys<'a>(wire: impl ExactSizeIterator<Item = &'a str>) -> Result<LimitKeys, Invalid> {
    if wire.len() > core_limits::LIMIT_KEYS_MAX {
        let why = format!("{} keys, at most {} are allowed", wire.len(), core_limits::LIMIT_KEYS_MAX);
        return Err(Invalid::new("keys", why));
    }
    wire.map(|key| LimitKey::new(key).map_err(Invalid::of("keys"))).collect()
}

/// Lines as `(sku, sale, quantity)`: at least one, each offer once, so that a command never carries more lines than its entry may.
///
/// Quantities of the same offer are summed here and nowhere else; both bounds on the number of lines are checked here.
///
/// # Errors
/// [`Invalid`], also for a sum above the bound of a quantity.
pub fn lines<'a>(wire: impl ExactSizeIterator<Item = (&'a str, &'a str, i64)>) -> Result<Lines, Invalid> {
    let given = wire.len();
    if given == 0 {
        return Err(Invalid::new("lines", "none given, at least one is needed"));
    }
    if given > LINES_PER_CALL_MAX {
        return Err(Invalid::new("lines", format!("{given} lines, at most {LINES_PER_CALL_MAX} are allowed")));
    }
    let bounds_unchecked = ledger_core::bad!("entry-bounds-unchecked");
    let unbounded = bounds_unchecked || ledger_core::bad!("undecodable-entry-aborts");
    let mut lines = Lines::new();
    for (sku_text, sale_text, quantity) in wire {
        let offer = OfferKey { sku: sku("lines.sku", sku_text)?, sale: sale("lines.sale", sale_text)? };
        let quantity = Quantity::new(quantity).map_err(Invalid::of("lines.quantity"))?;
        // A scan of at most `LINES_MAX` lines; nearly all calls have one or two, which a table would only make dearer.
        let known = lines.iter().position(|line| line.offer == offer && !unbounded);
        match known {
            Some(at) => lines[at].quantity = sum(lines[at].quantity, quantity)?,
            None if lines.len() == core_limits::LINES_MAX && !unbounded => {
                return Err(Invalid::new("lines", format!("more than {} offers", core_limits::LINES_MAX)));
            }
            None => lines.push(Line { offer, quantity }),
        }
    }
    Ok(lines)
}

fn sum(a: Quantity, b: Quantity) -> Result<Quantity, Invalid> {
    Quantity::new(i64::from(a.get()) + i64::from(b.get())).map_err(Invalid::of("lines.quantity"))
}

/// Lines out of their wire message.
///
/// # Errors
/// [`Invalid`].
pub fn lines_of(wire: &[v1::Line]) -> Result<Lines, Invalid> {
    lines(wire.iter().map(|line| (line.sku.as_str(), line.sale.as_str(), line.quantity)))
}

/// A line for the wire.
pub fn line_to_wire(line: &Line) -> v1::Line {
    v1::Line {
        sku: line.offer.sku.as_str().to_owned(),
        sale: sale_to_wire(line.offer.sale.as_ref()),
        quantity: line.quantity.get().into(),
    }
}

/// A policy; zeros are the defaults.
///
/// # Errors
/// [`Invalid`] when the numbers break a bound or each other.
pub fn policy(wire: v1::Policy) -> Result<Policy, Invalid> {
    fn or<N: PartialEq + Default>(given: N, default: N) -> N {
        if given == N::default() { default } else { given }
    }
    let defaults = Policy::default();
    let hold_ms_max = or(wire.hold_ms_max, defaults.hold_ms_max);
    let price = Some(wire.price.as_str()).filter(|text| !text.is_empty());
    let policy = Policy {
        open: wire.open,
        opens_at: wire.opens_at_ms.map(LedgerTime),
        closes_at: wire.closes_at_ms.map(LedgerTime),
        per_key_max: wire.per_key_max,
        per_order_min: or(wire.per_order_min, defaults.per_order_min),
        per_order_max: or(wire.per_order_max, defaults.per_order_max),
        hold_ms_default: or(wire.hold_ms_default, defaults.hold_ms_default.min(hold_ms_max)),
        hold_ms_max,
        low_stock_at: wire.low_stock_at,
        price: price.map(Price::new).transpose().map_err(Invalid::of("policy.price"))?,
    };
    policy.validate().map_err(Invalid::of("policy"))?;
    Ok(policy)
}

/// A policy for the wire, every number written out.
pub fn policy_to_wire(policy: &Policy) -> v1::Policy {
    v1::Policy {
        open: policy.open,
        opens_at_ms: policy.opens_at.map(|at| at.0),
        closes_at_ms: policy.closes_at.map(|at| at.0),
        per_key_max: policy.per_key_max,
        per_order_min: policy.per_order_min,
        per_order_max: policy.per_order_max,
        hold_ms_default: policy.hold_ms_default,
        hold_ms_max: policy.hold_ms_max,
        low_stock_at: policy.low_stock_at,
        price: policy.price.as_ref().map(|price| price.as_str().to_owned()).unwrap_or_default(),
    }
}

/// A balance.
pub fn balance(wire: Option<v1::Balance>) -> Balance {
    let v1::Balance { available, held, sold } = wire.unwrap_or_default();
    Balance { available, held, sold }
}

/// A balance for the wire.
pub fn balance_to_wire(balance: Balance) -> v1::Balance {
    v1::Balance { available: balance.available, held: balance.held, sold: balance.sold }
}

/// What sold out means; none when absent or of a kind that this build does not know.
pub fn sold_out(wire: Option<v1::SoldOut>) -> Option<SoldOut> {
    use v1::sold_out::Truth;
    Some(match wire?.truth? {
        Truth::OpenAvailable(available) => SoldOut::Open { available },
        Truth::FirstBackAtMs(at) => SoldOut::FirstBackAt(LedgerTime(at)),
        Truth::Gone(v1::Done {}) => SoldOut::Gone,
    })
}

/// What sold out means, for the wire.
pub fn sold_out_to_wire(truth: SoldOut) -> v1::SoldOut {
    use v1::sold_out::Truth;
    let truth = match truth {
        SoldOut::Open { available } => Truth::OpenAvailable(available),
        SoldOut::FirstBackAt(at) => Truth::FirstBackAtMs(at.0),
        SoldOut::Gone => Truth::Gone(v1::Done {}),
    };
    v1::SoldOut { truth: Some(truth) }
}

/// A status; none when unspecified or unknown to this build.
pub fn status(wire: i32) -> Option<Status> {
    Some(match v1::Status::try_from(wire).ok()? {
        v1::Status::Unspecified => return None,
        v1::Status::Held => Status::Held,
        v1::Status::Confirmed => Status::Confirmed,
        v1::Status::Released => Status::Released,
        v1::Status::Expired => Status::Expired,
    })
}

/// A status for the wire.
pub fn status_to_wire(status: Status) -> v1::Status {
    match status {
        Status::Held => v1::Status::Held,
        Status::Confirmed => v1::Status::Confirmed,
        Status::Released => v1::Status::Released,
        Status::Expired => v1::Status::Expired,
    }
}

/// A position; places above 65,535 do not exist and are cut.
pub fn position(wire: v1::Position) -> Position {
    let v1::Position { incarnation, shard, term, index, place } = wire;
    Position { incarnation, shard, term, index, place: u16::try_from(place).unwrap_or(u16::MAX) }
}

/// A position for the wire.
pub fn position_to_wire(position: Position) -> v1::Position {
    let Position { incarnation, shard, term, index, place } = position;
    v1::Position { incarnation, shard, term, index, place: place.into() }
}

/// As of when a read was answered.
pub fn as_of(at: At, age_ms: Option<u64>) -> v1::AsOf {
    v1::AsOf { position: Some(position_to_wire(at.position)), time_ms: at.time.0, age_ms }
}

/// As of when a read was answered, read back.
pub fn as_of_from_wire(wire: v1::AsOf) -> Option<(At, Option<u64>)> {
    let at = At { position: position(wire.position?), time: LedgerTime(wire.time_ms) };
    Some((at, wire.age_ms))
}
