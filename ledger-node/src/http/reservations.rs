//! Reservations over HTTP: reserve, confirm, release, extend, fence, return, show.
//!
//! **What it is.** The `Idempotency-Key` header is the reservation's id. Without one the node mints it and answers it; a caller that
//! must survive a lost answer sends its own.
//!
//! **Owns** the rules of that header. **Must never** swap an id for another. **Read next**: [`super::bodies`].

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use ledger_core::outcome::Fenced;
use ledger_core::types::Slot;
use ledger_core::view::IdView;
use ledger_core::{Command, ReservationId, Settled};
use ledger_proto::v1::call::Verb;
use ledger_proto::{At, DecodedCall, Invalid, Reply, Why, calls, v1};
use serde::Deserialize;
use serde_json::json;

use super::bodies::{
    AtJson, BriefJson, ConfirmBody, EmptyBody, ExtendBody, ReserveBody, ReturnBody, answer, read, reservation,
    wire_lines,
};
use super::problem::{InPath, Problem};
use crate::api::reads::{Consistency, ReadFailure, Reader};
use crate::api::{Api, submit};
use crate::metrics::Outcomes;

/// What every request may say in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `linearizable` (default) or `stale`.
    pub consistency: Option<String>,
    /// How long the caller waits, milliseconds; absent or 0: the node's default, for writes and reads alike.
    pub within_ms: Option<u32>,
}

impl Asked {
    /// How long a read may wait; none for the default.
    pub fn within(&self) -> Option<Duration> {
        self.within_ms.filter(|&ms| ms != 0).map(|ms| Duration::from_millis(ms.into()))
    }
    /// Which consistency.
    ///
    /// # Errors
    /// A 400.
    pub fn consistency(&self) -> Result<Consistency, Problem> {
        match self.consistency.as_deref() {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("stale") => Ok(Consistency::Stale),
            Some(other) => {
                Err(Problem::invalid("consistency", format!("is {other:?}, allowed are linearizable and stale")))
            }
        }
    }
}

/// The query of a request, or a 400.
pub type AskedQuery = Result<Query<Asked>, axum::extract::rejection::QueryRejection>;

/// Reads the query.
///
/// # Errors
/// A 400.
pub fn asked(query: AskedQuery) -> Result<Asked, Problem> {
    query.map(|Query(asked)| asked).map_err(|error| Problem::invalid("query", error.body_text()))
}

/// The body, or a 4xx.
pub type BodyBytes = Result<Bytes, axum::extract::rejection::BytesRejection>;

/// Takes the body.
///
/// # Errors
/// A 413 when it is too large.
pub fn body_of(body: BodyBytes) -> Result<Bytes, Problem> {
    body.map_err(|error| {
        let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { "body-too-large" } else { "malformed-body" };
        Problem::new(error.status(), kind, error.body_text())
    })
}

/// Submits one command.
pub async fn submit_one(api: &Api, command: Result<Command, Invalid>, within_ms: Option<u32>) -> (Option<At>, Reply) {
    let call = DecodedCall { tag: 0, within_ms: within_ms.unwrap_or(0), command };
    api.metrics.received(std::slice::from_ref(&call));
    let answered = submit::submit_one(api, call, None, false).await;
    let mut outcomes = Outcomes::default();
    outcomes.count_reply(&answered.1);
    api.metrics.answered(&outcomes);
    answered
}

fn id_of(text: &str) -> Result<ReservationId, Problem> {
    text.parse().map_err(|error: ledger_core::InvalidValue| Problem::invalid("id", error.to_string()))
}

/// The `Idempotency-Key`, if there is one.
fn key_of(headers: &HeaderMap) -> Result<Option<ReservationId>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or("(not text)");
    // The draft standard writes it as a quoted string; plain text is what most send.
    let text = text.trim().trim_matches('"');
    text.parse().map(Some).map_err(|_| {
        let shown: String = text.chars().take(48).collect();
        Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency-key-is-no-reservation-id",
            format!(
                "the Idempotency-Key is the reservation's id, and {shown:?} is none: a UUIDv7 whose 12 rand_a bits are the slot \
                 of its product; leave the header out and the node mints one and answers it"
            ),
        )
    })
}

/// The id of a new reservation: the header's, the body's, or one minted here.
fn reservation_id(api: &Api, headers: &HeaderMap, body: &ReserveBody, slot: Slot) -> Result<ReservationId, Problem> {
    let given = body.id.as_deref().map(id_of).transpose()?;
    match (key_of(headers)?, given) {
        (Some(key), Some(id)) if key != id => {
            Err(Problem::invalid("id", "differs from the Idempotency-Key; they are the same thing, send one of them"))
        }
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => {
            let seams = &api.node.seams().raft;
            // From ledger time, not this node's clock: ids far ahead of it would be refused.
            let time_ms = match api.node.routing().time_ms {
                0 => seams.clock.now_ms(),
                time_ms => time_ms,
            };
            Ok(ReservationId::from_parts(slot, time_ms, seams.random.next_u64()))
        }
    }
}

/// `POST /v1/reservations`.
///
/// # Errors
/// A problem.
pub async fn reserve(
    State(api): State<Api>,
    query: AskedQuery,
    headers: HeaderMap,
    body: BodyBytes,
) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let bytes = body_of(body)?;
    let mut body: ReserveBody = read(&bytes)?;
    let lines = wire_lines(std::mem::take(&mut body.lines));
    let first = lines.first().ok_or_else(|| Problem::invalid("lines", "is empty, at least one line is needed"))?;
    let slot = Slot::of(&super::bodies::sku(&first.sku)?);
    let id = reservation_id(&api, &headers, &body, slot)?;
    let (keys, hold_ms) = (std::mem::take(&mut body.keys), body.hold_ms);
    if hold_ms == Some(0) {
        return Err(Problem::invalid("hold_ms", "is 0; leave it out for the default").about(Some(id)));
    }
    let id_bytes = Bytes::copy_from_slice(id.as_bytes());
    let verb = Verb::Reserve(v1::Reserve { id: id_bytes, keys, lines, hold_ms: hold_ms.unwrap_or(0) });
    let (at, reply) = submit_one(&api, calls::command(Some(verb)), asked.within_ms).await;
    let Reply::Ok(Settled::Reservation(brief)) = reply else { return Err(Problem::of(&reply).about(Some(id))) };
    let text = id.to_string();
    let status = if brief.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = answer(status, &BriefJson::new(&text, brief, at));
    if let Ok(location) = format!("/v1/reservations/{text}").parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /v1/reservations/{id}/{verb}`.
///
/// # Errors
/// A problem.
pub async fn act(
    State(api): State<Api>,
    InPath((id, verb)): InPath<(String, String)>,
    query: AskedQuery,
    headers: HeaderMap,
    body: BodyBytes,
) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let id = id_of(&id)?;
    if key_of(&headers)?.is_some_and(|key| key != id) {
        let why = "the Idempotency-Key is another reservation's id; this request is about the one in its path";
        return Err(Problem::invalid("idempotency-key", why).about(Some(id)));
    }
    let verb = verb_of(id, &verb, &body_of(body)?).map_err(|problem| problem.about(Some(id)))?;
    let (at, reply) = submit_one(&api, calls::command(Some(verb)), asked.within_ms).await;
    let text = id.to_string();
    match reply {
        Reply::Ok(Settled::Reservation(brief)) => Ok(answer(StatusCode::OK, &BriefJson::new(&text, brief, at))),
        Reply::Ok(Settled::Fenced(fenced)) => Ok(fenced_answer(&text, &fenced, at)),
        Reply::Ok(Settled::Returned { units, replayed }) => {
            let at = at.map(AtJson::from);
            Ok(answer(StatusCode::OK, &json!({"id": text, "units": units, "replayed": replayed, "at": at})))
        }
        other => Err(Problem::of(&other).about(Some(id))),
    }
}

fn verb_of(id: ReservationId, verb: &str, body: &Bytes) -> Result<Verb, Problem> {
    let id = Bytes::copy_from_slice(id.as_bytes());
    let lines = |lines: Option<Vec<_>>| lines.map(|lines| v1::Lines { lines: wire_lines(lines) });
    Ok(match verb {
        "confirm" => Verb::Confirm(v1::Confirm { id, lines: lines(read::<ConfirmBody>(body)?.lines) }),
        "release" => {
            read::<EmptyBody>(body)?;
            Verb::Release(v1::Release { id })
        }
        "fence" => {
            read::<EmptyBody>(body)?;
            Verb::Fence(v1::Fence { id })
        }
        "extend" => {
            let ExtendBody { replaces_ms, hold_ms } = read(body)?;
            Verb::Extend(v1::Extend { id, replaces_ms, hold_ms })
        }
        "return" => {
            let body: ReturnBody = read(body)?;
            Verb::ReturnUnits(v1::ReturnUnits { id, lines: lines(body.lines), reference: body.reference })
        }
        other => {
            let why = format!("there is no {other:?}; possible are confirm, release, extend, fence, return");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-resource", why));
        }
    })
}

fn fenced_answer(id: &str, fenced: &Fenced, at: Option<At>) -> Response {
    match fenced {
        Fenced::Reservation(brief) => answer(StatusCode::OK, &BriefJson::new(id, *brief, at)),
        Fenced::Never => answer(StatusCode::OK, &json!({"id": id, "status": "never", "at": at.map(AtJson::from)})),
        Fenced::WasRefused(refusal) => {
            let why = refusal.to_string();
            answer(StatusCode::OK, &json!({"id": id, "status": "refused", "why": why, "at": at.map(AtJson::from)}))
        }
    }
}

/// `GET /v1/reservations/{id}`.
///
/// # Errors
/// A problem.
pub async fn show(State(api): State<Api>, InPath(id): InPath<String>, query: AskedQuery) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let id = id_of(&id)?;
    let reader = Reader::new(&api, asked.consistency()?, asked.within());
    let (view, as_of) = reader.reservation(id).await.map_err(|why| read_problem(why).about(Some(id)))?;
    let at = AtJson::from(as_of);
    let text = id.to_string();
    Ok(match view {
        IdView::Reservation(view) => answer(StatusCode::OK, &reservation(&view, as_of)),
        IdView::Refused(refusal) => {
            let why = refusal.to_string();
            answer(StatusCode::OK, &json!({"id": text, "status": "refused", "why": why, "as_of": at}))
        }
        IdView::Fenced => answer(StatusCode::OK, &json!({"id": text, "status": "never", "as_of": at})),
        IdView::Unknown => {
            return Err(Problem::refused(&Why::Ledger(ledger_core::Refusal::UnknownReservation)).about(Some(id)));
        }
        IdView::Forgotten => {
            return Err(Problem::refused(&Why::Ledger(ledger_core::Refusal::Forgotten)).about(Some(id)));
        }
        IdView::SlotElsewhere => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"id": text})).into_response(),
    })
}

/// A failed read.
pub fn read_problem(why: ReadFailure) -> Problem {
    Problem::of(&Reply::from(why))
}
