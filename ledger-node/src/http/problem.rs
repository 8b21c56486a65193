//! Errors over HTTP: RFC 9457 problems with a stable type for each reason.
//!
//! **What it is.** `type` is `/errors/<reason>`, the refusal's published code in small letters; `status` tells what kind it is; the
//! reason's numbers are members of the problem.
//!
//! **Owns** the mapping of refusals, *not now* and *unknown* to HTTP (docs/errors.md). **Must never** answer *unknown* with a status
//! that says *no*. **Read next**: [`super::reservations`].

use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use ledger_core::ReservationId;
use ledger_proto::{Cause, NotNow, Reply, Why, names, refusals, v1};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::limits::RETRY_CONNECTIONS_MS;

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    retry_ms: Option<u32>,
}

impl Problem {
    /// Of a kind, with an explanation for people.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        let mut members = Map::new();
        members.insert("type".into(), format!("/errors/{kind}").into());
        members.insert("title".into(), kind.replace('-', " ").into());
        members.insert("status".into(), status.as_u16().into());
        members.insert("detail".into(), detail.into().into());
        Self { status, members, retry_ms: None }
    }

    /// The input is invalid: which field, and what is wrong with it.
    pub fn invalid(field: &str, why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", format!("{field}: {}", why.into())).with("field", field)
    }

    /// The caller may not.
    pub fn denied(why: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission-denied", why)
    }

    /// Every connection is taken, and this one may only ask for health and metrics.
    pub fn too_many_connections() -> Self {
        let why = "every connection that this node takes is in use; nothing was done";
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-connections", why);
        problem.retry_ms = Some(RETRY_CONNECTIONS_MS);
        problem.with("retry_ms", RETRY_CONNECTIONS_MS)
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// Names the reservation it is about.
    #[must_use]
    pub fn about(self, id: Option<ReservationId>) -> Self {
        match id {
            Some(id) => self.with("id", id.to_string()),
            None => self,
        }
    }

    /// A refusal.
    pub fn refused(why: &Why) -> Self {
        match why {
            Why::Invalid(invalid) => Self::invalid(&invalid.field, invalid.why.clone()),
            Why::PermissionDenied(message) => Self::denied(message),
            Why::Ledger(_) | Why::Other { .. } => Self::of_wire(&refusals::why_to_wire(why)),
        }
    }

    fn of_wire(wire: &v1::Refusal) -> Self {
        let code = wire.code();
        let kind = code.as_str_name().to_lowercase().replace('_', "-");
        let mut problem = Self::new(status_of(code), &kind, wire.message.clone());
        problem.members.extend(numbers_of(wire));
        problem
    }

    /// Not now.
    pub fn not_now(why: &NotNow) -> Self {
        let (status, kind) = match why.cause {
            Cause::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
            Cause::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            Cause::NotLeader => (StatusCode::SERVICE_UNAVAILABLE, "not-leader"),
            Cause::SlotElsewhere => (StatusCode::SERVICE_UNAVAILABLE, "slot-elsewhere"),
            Cause::IdTooFarAhead => (StatusCode::SERVICE_UNAVAILABLE, "id-too-far-ahead"),
            Cause::MemoryFull => (StatusCode::SERVICE_UNAVAILABLE, "memory-full"),
            Cause::ClockUnsure => (StatusCode::SERVICE_UNAVAILABLE, "clock-unsure"),
            Cause::ClockJumped => (StatusCode::SERVICE_UNAVAILABLE, "clock-jumped"),
            Cause::LowSpace => (StatusCode::SERVICE_UNAVAILABLE, "low-space"),
            Cause::Diverged => (StatusCode::SERVICE_UNAVAILABLE, "diverged"),
            Cause::SweepPending => (StatusCode::SERVICE_UNAVAILABLE, "sweep-pending"),
            Cause::NoQuorum => (StatusCode::SERVICE_UNAVAILABLE, "no-quorum"),
            Cause::RecordsFull => (StatusCode::SERVICE_UNAVAILABLE, "records-full"),
            Cause::NotServing | Cause::Unreachable | Cause::Other => (StatusCode::SERVICE_UNAVAILABLE, "not-serving"),
        };
        let mut problem = Self::new(status, kind, why.message.clone()).with("retry_ms", why.retry_ms);
        if let Some(leader) = &why.leader {
            problem = problem.with("leader", leader.clone());
        }
        problem.retry_ms = Some(why.retry_ms);
        problem
    }

    /// Unknown: ask again with the same id.
    pub fn unknown(message: &str) -> Self {
        let hint = "it may or may not have happened; send the same request with the same Idempotency-Key again, or fence the id";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown", format!("{message}; {hint}"))
    }

    /// Every reply but *ok*.
    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Refused(why) => Self::refused(why),
            Reply::NotNow(why) => Self::not_now(why),
            Reply::Unknown(message) => Self::unknown(message),
            Reply::Ok(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "an answer of another kind was expected")
            }
        }
    }
}

/// What a route takes out of its path. A path that is no text is a problem like any other bad input.
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(found)) => Ok(Self(found)),
            Err(error) => Err(Problem::invalid("path", error.body_text())),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Value::Object(self.members).to_string();
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (self.status, [kind], body).into_response();
        if let Some(ms) = self.retry_ms {
            // The header counts whole seconds; `retry_ms` says it exactly.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        response
    }
}

/// 404: what it names is not there. 410: it was, and is forgotten. 422: the request can never succeed as it is. 409: the present
/// state forbids it.
fn status_of(code: v1::RefusalCode) -> StatusCode {
    use v1::RefusalCode as Code;
    match code {
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::UnknownReservation | Code::UnknownProduct | Code::UnknownOffer => StatusCode::NOT_FOUND,
        Code::Forgotten => StatusCode::GONE,
        Code::LinesSpanSlots
        | Code::IdWrongSlot
        | Code::QuantityTooLarge
        | Code::IdTaken
        | Code::ReferenceTaken
        | Code::HoldTooLong
        | Code::BelowOrderMin
        | Code::AboveOrderMax
        | Code::NoSuchLine
        | Code::MoreThanLine
        | Code::TooMany => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CONFLICT,
    }
}

/// The refusal's numbers under names that say what they are.
fn numbers_of(wire: &v1::Refusal) -> Vec<(String, Value)> {
    use v1::RefusalCode as Code;
    let mut out = Vec::new();
    let mut put = |name: &str, value: Value| out.push((name.to_owned(), value));
    if let Some(offer) = &wire.offer {
        put("sku", offer.sku.clone().into());
        if !offer.sale.is_empty() {
            put("sale", offer.sale.clone().into());
        }
    }
    match wire.code() {
        Code::IdWrongSlot => {
            put("id_slot", wire.bound.into());
            put("lines_slot", wire.actual.into());
        }
        Code::SaleNotOpenYet => put("opens_at_ms", wire.at_ms.into()),
        Code::SaleOver => put("closed_at_ms", wire.at_ms.into()),
        Code::HoldTooLong => put("max_ms", wire.bound.into()),
        Code::BelowOrderMin => put("min", wire.bound.into()),
        Code::AboveOrderMax | Code::TooMany => put("max", wire.bound.into()),
        Code::LimitReached => {
            put("key_index", wire.key_index.into());
            put("used", wire.actual.into());
            put("max", wire.bound.into());
        }
        Code::SoldOut => put("sold_out", sold_out(wire.sold_out)),
        Code::NotHeld | Code::NotSold => {
            put("reservation_status", names::status(wire.status).map_or("unknown", super::bodies::status_word).into());
        }
        Code::DeadlineMoved => put("deadline_ms", wire.at_ms.into()),
        Code::MoreThanLine => put("has", wire.actual.into()),
        Code::VersionMismatch => put("version", wire.actual.into()),
        Code::NotEnoughAvailable => put("available", wire.actual.into()),
        Code::ProductInUse => {
            put("units", wire.actual.into());
            put("sales", wire.bound.into());
            put("records", wire.records.into());
        }
        _ => {}
    }
    out
}

/// *Sold out* is three answers.
pub fn sold_out(truth: Option<v1::SoldOut>) -> Value {
    match truth.and_then(|truth| truth.truth) {
        Some(v1::sold_out::Truth::OpenAvailable(available)) => json!({"open": {"available": available}}),
        Some(v1::sold_out::Truth::FirstBackAtMs(at)) => json!({"first_back_at_ms": at}),
        Some(v1::sold_out::Truth::Gone(_)) => json!("gone"),
        None => Value::Null,
    }
}
