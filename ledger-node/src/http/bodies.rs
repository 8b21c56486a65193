//! JSON bodies: what requests carry and what answers look like.
//!
//! **Owns** field names. Unknown fields are errors: a misspelt `hold_ms` must not be a default hold.
//! **Must never** let an unchecked value into a command. **Read next**: [`super::reservations`].

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use ledger_core::outcome::{Balance, Brief, Status};
use ledger_core::types::{Policy, Sku};
use ledger_core::view::{OfferView, ProductView, ReservationView};
use ledger_proto::{At, Invalid, names, v1};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::{Problem, sold_out};
use crate::api::reads::AsOf;

/// One line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineBody {
    sku: String,
    #[serde(default)]
    sale: String,
    quantity: i64,
}

/// `POST /v1/reservations`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveBody {
    /// The reservation's id, unless the header carries it.
    pub id: Option<String>,
    /// What is reserved.
    pub lines: Vec<LineBody>,
    /// What limits count by.
    #[serde(default)]
    pub keys: Vec<String>,
    /// How long; the policy's default when absent.
    pub hold_ms: Option<u64>,
}

/// `POST /v1/reservations/{id}/confirm`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    /// Absent: all.
    pub lines: Option<Vec<LineBody>>,
}

/// `POST /v1/reservations/{id}/extend`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    /// The deadline that the caller saw.
    pub replaces_ms: u64,
    /// From now.
    pub hold_ms: u64,
}

/// `POST /v1/reservations/{id}/return`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnBody {
    /// Absent: all that is still sold.
    pub lines: Option<Vec<LineBody>>,
    /// Unique per product.
    pub reference: String,
}

/// Requests without fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyBody {}

/// `POST /v1/products`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductBody {
    /// The new product.
    pub sku: String,
    /// Absent: the defaults.
    #[serde(default)]
    pub policy: PolicyBody,
}

/// A policy; what is absent takes its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyBody {
    open: Option<bool>,
    opens_at_ms: Option<u64>,
    closes_at_ms: Option<u64>,
    per_key_max: Option<u32>,
    per_order_min: u32,
    per_order_max: u32,
    hold_ms_default: u64,
    hold_ms_max: u64,
    low_stock_at: u64,
    price: String,
}

/// `POST /v1/products/{sku}/receive`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveBody {
    /// Absent: the plain offer.
    #[serde(default)]
    pub sale: String,
    /// How many.
    pub units: i64,
    /// Unique per product.
    pub reference: String,
}

/// `POST /v1/products/{sku}/adjust`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustBody {
    /// Absent: the plain offer.
    #[serde(default)]
    pub sale: String,
    /// Signed.
    pub delta: i64,
    /// Why.
    pub reason: String,
    /// Unique per product.
    pub reference: String,
    /// Compare-and-set.
    pub expected_version: Option<u64>,
}

/// Reads a body; an empty one is an empty object.
///
/// # Errors
/// A 400 that says where the JSON is wrong.
pub fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed-json",
            format!("the body is not what is expected here: {error}"),
        )
    })
}

/// Lines for the wire's checks.
pub fn wire_lines(lines: Vec<LineBody>) -> Vec<v1::Line> {
    lines.into_iter().map(|line| v1::Line { sku: line.sku, sale: line.sale, quantity: line.quantity }).collect()
}

impl PolicyBody {
    /// For the wire's checks.
    pub fn to_wire(self) -> v1::Policy {
        v1::Policy {
            open: self.open.unwrap_or(true),
            opens_at_ms: self.opens_at_ms,
            closes_at_ms: self.closes_at_ms,
            per_key_max: self.per_key_max,
            per_order_min: self.per_order_min,
            per_order_max: self.per_order_max,
            hold_ms_default: self.hold_ms_default,
            hold_ms_max: self.hold_ms_max,
            low_stock_at: self.low_stock_at,
            price: self.price,
        }
    }
}

/// A SKU in a path.
///
/// # Errors
/// A 400.
pub fn sku(text: &str) -> Result<Sku, Problem> {
    names::sku("sku", text).map_err(|Invalid { field, why }| Problem::invalid(&field, why))
}

/// A JSON answer.
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()).into_response(),
    }
}

/// Where and when something was decided or seen.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AtJson {
    incarnation: u64,
    shard: u32,
    term: u64,
    index: u64,
    place: u16,
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
}

impl From<At> for AtJson {
    fn from(at: At) -> Self {
        let p = at.position;
        let (incarnation, shard, term, index, place) = (p.incarnation, p.shard, p.term, p.index, p.place);
        Self { incarnation, shard, term, index, place, time_ms: at.time.0, age_ms: None }
    }
}

impl From<AsOf> for AtJson {
    fn from(as_of: AsOf) -> Self {
        Self { age_ms: as_of.age_ms, ..Self::from(as_of.at) }
    }
}

/// A reservation's state in brief.
#[derive(Debug, Serialize)]
pub struct BriefJson<'a> {
    id: &'a str,
    status: &'static str,
    deadline_ms: u64,
    reserved_at_ms: u64,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<AtJson>,
}

impl<'a> BriefJson<'a> {
    /// Of a reservation.
    pub fn new(id: &'a str, brief: Brief, at: Option<At>) -> Self {
        Self {
            id,
            status: status_word(brief.status),
            deadline_ms: brief.deadline.0,
            reserved_at_ms: brief.reserved_at.0,
            replayed: brief.replayed,
            at: at.map(AtJson::from),
        }
    }
}

/// A status as JSON says it.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Held => "held",
        Status::Confirmed => "confirmed",
        Status::Released => "released",
        Status::Expired => "expired",
    }
}

/// Units of an offer.
pub fn balance(balance: Balance) -> Value {
    json!({"available": balance.available, "held": balance.held, "sold": balance.sold})
}

fn policy(policy: &Policy) -> Value {
    json!({
        "open": policy.open,
        "opens_at_ms": policy.opens_at.map(|at| at.0),
        "closes_at_ms": policy.closes_at.map(|at| at.0),
        "per_key_max": policy.per_key_max,
        "per_order_min": policy.per_order_min,
        "per_order_max": policy.per_order_max,
        "hold_ms_default": policy.hold_ms_default,
        "hold_ms_max": policy.hold_ms_max,
        "low_stock_at": policy.low_stock_at,
        "price": policy.price.as_ref().map(|price| price.as_str()),
    })
}

fn offer(view: &OfferView) -> Value {
    json!({
        "sale": view.offer.sale.as_ref().map(|sale| sale.as_str()),
        "version": view.version,
        "balance": balance(view.balance),
        "sold_out": sold_out(view.sold_out.map(names::sold_out_to_wire)),
        "ended": view.ended,
        "taking": view.taking,
        "policy": policy(&view.policy),
    })
}

/// A product.
pub fn product(view: &ProductView) -> Value {
    json!({
        "sku": view.sku.as_str(),
        "received": view.received,
        "adjusted": view.adjusted,
        "returned": view.returned,
        "ever_sold": view.ever_sold,
        "offers": view.offers.iter().map(offer).collect::<Vec<_>>(),
    })
}

/// A reservation.
pub fn reservation(view: &ReservationView, at: AsOf) -> Value {
    let line = |line: &ledger_core::view::LineView| {
        json!({
            "sku": line.offer.sku.as_str(),
            "sale": line.offer.sale.as_ref().map(|sale| sale.as_str()),
            "reserved": line.reserved,
            "sold": line.sold,
            "returned": line.returned,
        })
    };
    json!({
        "id": view.id.to_string(),
        "status": status_word(view.status),
        "reserved_at_ms": view.reserved_at.0,
        "deadline_ms": view.deadline.0,
        "ended_at_ms": view.ended_at.map(|at| at.0),
        "keys": view.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
        "lines": view.lines.iter().map(line).collect::<Vec<_>>(),
        "as_of": AtJson::from(at),
    })
}
