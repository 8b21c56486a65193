//! The simulator's own endpoints, which no provider has: its behaviour, its whole book, and what buyers and banks do.
//!
//! **Owns** `/sim`. They always behave, and ask for no key: they are for whoever runs the test. **Must never** be needed by an
//! adapter. **Read next**: [`crate::behaviour`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Serialize;

use super::call::Envelope;
use crate::behaviour::Behaviour;
use crate::book::records::{Charge, Currency, Intent, Metadata, Minor, Refund, Status};
use crate::book::{Book, Deliveries, IntentRow};
use crate::form::Form;
use crate::ids::{ChargeId, IntentId, RefundId};
use crate::limits::BOOK_CHUNK;
use crate::methods::Method;
use crate::refusal::Refusal;
use crate::rules::{self, Decided, Ending};
use crate::sim::{Answer, Sim};

/// `GET /sim/behaviour`
pub(super) async fn behaviour(State(sim): State<Arc<Sim>>) -> Json<Behaviour> {
    Json(sim.dice.behaviour())
}

/// `PUT /sim/behaviour`: replaces all of it; what is left out behaves well.
pub(super) async fn set_behaviour(
    State(sim): State<Arc<Sim>>,
    behaviour: Result<Json<Behaviour>, JsonRejection>,
) -> Response {
    let refused = |why: String| (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": { "message": why } })));
    let Json(behaviour) = match behaviour {
        Ok(behaviour) => behaviour,
        Err(rejection) => return refused(rejection.body_text()).into_response(),
    };
    match sim.dice.set(behaviour) {
        Ok(()) => Json(sim.dice.behaviour()).into_response(),
        Err(bad) => refused(bad.to_string()).into_response(),
    }
}

/// `POST /sim/intents/{id}/authenticate?outcome=ok|fail`: what the buyer does.
pub(super) async fn authenticate(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, uri: Uri) -> Response {
    happen(&sim, &uri, |book, ending, now_ms| rules::authenticate(book, &id, ending, now_ms)).await
}

/// `POST /sim/intents/{id}/settle?outcome=ok|fail`: what the bank does.
pub(super) async fn settle(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, uri: Uri) -> Response {
    happen(&sim, &uri, |book, ending, now_ms| rules::settle(book, &id, ending, now_ms)).await
}

async fn happen(sim: &Sim, uri: &Uri, decide: impl FnOnce(&Book, Ending, i64) -> Result<Decided, Refusal>) -> Response {
    let outcome = async {
        let mut form = Form::parse(uri.query().unwrap_or_default().as_bytes())?;
        let ending = match form.take("outcome")?.as_deref() {
            None | Some("ok") => Ending::Ok,
            Some("fail") => Ending::Fail,
            Some(_) => return Err(Refusal::parameter("outcome", "Invalid outcome: must be ok or fail")),
        };
        form.finish()?;
        sim.happen(|book, now_ms| decide(book, ending, now_ms)).await
    };
    let answer = outcome.await.unwrap_or_else(Answer::from);
    Envelope::new(sim, &HeaderMap::new()).answer(answer)
}

#[derive(Serialize)]
struct BookIntent<'a> {
    id: IntentId,
    created_ms: i64,
    status: Status,
    amount: Minor,
    currency: Currency,
    captured: Minor,
    refunded: Minor,
    canceled_ms: Option<i64>,
    metadata: &'a Metadata,
    charges: Vec<BookCharge>,
    refunds: Vec<BookRefund<'a>>,
}

#[derive(Serialize)]
struct BookCharge {
    id: ChargeId,
    created_ms: i64,
    amount: Minor,
    method: Method,
    /// `paid`, `authorized`, `voided` or `failed`.
    state: &'static str,
    failure_code: Option<&'static str>,
    decline_code: Option<&'static str>,
    captured: Minor,
    captured_ms: Option<i64>,
    refunded: Minor,
    voided_ms: Option<i64>,
}

#[derive(Serialize)]
struct BookRefund<'a> {
    id: RefundId,
    charge: ChargeId,
    created_ms: i64,
    amount: Minor,
    metadata: &'a Metadata,
}

impl<'a> BookIntent<'a> {
    fn new(book: &'a Book, row: &'a IntentRow) -> Self {
        let intent: &Intent = &row.intent;
        let charges: Vec<_> = book.charges_of(row).map(BookCharge::new).collect();
        Self {
            id: intent.id,
            created_ms: intent.created_ms,
            status: intent.status,
            amount: intent.amount,
            currency: intent.currency,
            captured: charges.iter().fold(Minor::ZERO, |sum, charge| sum.plus(charge.captured)),
            refunded: charges.iter().fold(Minor::ZERO, |sum, charge| sum.plus(charge.refunded)),
            canceled_ms: intent.canceled_ms,
            metadata: &intent.metadata,
            charges,
            refunds: book.refunds_of(row).map(BookRefund::new).collect(),
        }
    }
}

impl BookCharge {
    fn new(charge: &Charge) -> Self {
        let words = charge.failure.map(crate::methods::Failure::words);
        let state = match (charge.failure, charge.voided_ms, charge.captured_ms) {
            (Some(_), ..) => "failed",
            (None, Some(_), _) => "voided",
            (None, None, Some(_)) => "paid",
            (None, None, None) => "authorized",
        };
        Self {
            id: charge.id,
            created_ms: charge.created_ms,
            amount: charge.amount,
            method: charge.method,
            state,
            failure_code: words.map(|(code, ..)| code),
            decline_code: words.and_then(|(_, decline, _)| decline),
            captured: charge.captured,
            captured_ms: charge.captured_ms,
            refunded: charge.refunded,
            voided_ms: charge.voided_ms,
        }
    }
}

impl<'a> BookRefund<'a> {
    fn new(refund: &'a Refund) -> Self {
        let Refund { id, charge, created_ms, amount, metadata, .. } = refund;
        Self { id: *id, charge: *charge, created_ms: *created_ms, amount: *amount, metadata }
    }
}

/// `GET /sim/book`: `{"intents":[…]}`, oldest first. Each intent is exact; the whole is when nothing moves meanwhile.
pub(super) async fn book(State(sim): State<Arc<Sim>>) -> Response {
    let chunks = stream::unfold(Some(0), move |from| {
        let sim = sim.clone();
        async move {
            let from = from?;
            let (bytes, next, ticket) = {
                let locked = sim.shelf.lock();
                let (bytes, next) = chunk(&locked.book, from);
                (bytes, next, locked.ticket_for_all())
            };
            Some((ticket.on_disk().await.map(|()| Bytes::from(bytes)), next))
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

/// The book's text from intent `from` on, and where to go on.
fn chunk(book: &Book, from: usize) -> (Vec<u8>, Option<usize>) {
    let rows = book.intents();
    let to = rows.len().min(from + BOOK_CHUNK);
    let mut bytes = if from == 0 { b"{\"intents\":[".to_vec() } else { Vec::new() };
    for (n, row) in rows[from..to].iter().enumerate() {
        bytes.extend_from_slice(if from + n == 0 { b"\n" } else { b",\n" });
        bytes.extend_from_slice(&crate::wire::json(&BookIntent::new(book, row)));
    }
    if to < rows.len() {
        return (bytes, Some(to));
    }
    bytes.extend_from_slice(b"\n]}\n");
    (bytes, None)
}

#[derive(Default, Serialize)]
struct Summary {
    intents: usize,
    by_status: BTreeMap<&'static str, u64>,
    /// Charges that moved money.
    paid: u64,
    /// Charges that did not.
    failed: u64,
    voided: u64,
    refunds: usize,
    events: usize,
    keys: usize,
    currencies: BTreeMap<String, Sums>,
    webhooks: WebhookSums,
}

#[derive(Default, Serialize)]
struct Sums {
    captured: u64,
    refunded: u64,
    /// Set aside for a capture.
    capturable: u64,
}

#[derive(Default, Serialize)]
struct WebhookSums {
    waiting: usize,
    #[serde(flatten)]
    past: Deliveries,
}

/// `GET /sim/book/summary`
pub(super) async fn summary(State(sim): State<Arc<Sim>>) -> Response {
    let (summary, ticket) = {
        let locked = sim.shelf.lock();
        (summed(&locked.book, sim.webhooks.as_ref().map_or(0, |w| w.waiting())), locked.ticket_for_all())
    };
    match ticket.on_disk().await {
        Ok(()) => Json(summary).into_response(),
        Err(broken) => Envelope::new(&sim, &HeaderMap::new()).answer(Refusal::from(broken).into()),
    }
}

fn summed(book: &Book, waiting: usize) -> Summary {
    let mut summary = Summary {
        intents: book.intents().len(),
        refunds: book.refunds().len(),
        events: book.events().len(),
        keys: book.keys.len(),
        webhooks: WebhookSums { waiting, past: book.deliveries },
        ..Summary::default()
    };
    for row in book.intents() {
        *summary.by_status.entry(row.intent.status.name()).or_default() += 1;
        let code = row.intent.currency.as_str();
        if !summary.currencies.contains_key(code) {
            summary.currencies.insert(code.to_owned(), Sums::default());
        }
        let Some(sums) = summary.currencies.get_mut(code) else { continue };
        sums.capturable += row.intent.capturable.units();
        for charge in book.charges_of(row) {
            sums.captured += charge.captured.units();
            sums.refunded += charge.refunded.units();
            summary.paid += u64::from(charge.captured_ms.is_some());
            summary.failed += u64::from(charge.failure.is_some());
            summary.voided += u64::from(charge.voided_ms.is_some());
        }
    }
    summary
}
