//! The worker's HTTP listeners: the provider's webhooks on one, `/livez`, `/readyz`, `/metrics` on
//! another.
//!
//! **What it is.** A webhook is checked, turned into a fact or a *look again*, and answered with success only after the ledger took it:
//! else the provider sends it again. Doubles, old ones and ones for unknown orders are the ledger's to judge.
//!
//! **Owns** routes and what a webhook means. **Must never** believe a body whose signature was not checked.
//! **Read next**: [`crate::payment::signature`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ledger_core::ReservationId;
use ledger_core::order::{Fact, Money, ProviderId, WorkClass};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::breaker::Standing;
use crate::engine::Deps;
use crate::ledger::Told;
use crate::limits::{WEBHOOK_BODY_WITHIN, WEBHOOK_BYTES_MAX, WEBHOOKS_AT_ONCE};
use crate::metrics::class_word;
use crate::payment::stripe::ORDER;
use crate::payment::{Failure, RefundStatus, signature};

/// What the routes need.
#[derive(Clone)]
pub struct Http {
    /// The engine's.
    pub deps: Arc<Deps>,
    /// Signing secrets of the provider's webhooks; several while one replaces another. None: webhooks are refused.
    pub webhook_secrets: Arc<Vec<String>>,
    /// Permits of webhooks on their way to the ledger.
    room: Arc<Semaphore>,
}

impl Http {
    /// With these signing secrets.
    pub fn new(deps: Arc<Deps>, webhook_secrets: Vec<String>) -> Self {
        Self { deps, webhook_secrets: Arc::new(webhook_secrets), room: Arc::new(Semaphore::new(WEBHOOKS_AT_ONCE)) }
    }
}

/// What the provider reaches.
pub fn webhooks(http: Http) -> Router {
    Router::new().route("/webhooks/stripe", post(stripe)).with_state(http)
}

/// What operators reach.
pub fn health(http: Http) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(http)
}

/// `GET /readyz`, `GET /readyz?verbose`.
async fn readyz(State(http): State<Http>, RawQuery(query): RawQuery) -> Response {
    let health = &http.deps.health;
    let checks = [
        ("ledger", !health.ledger.load(Ordering::Relaxed), "the ledger does not answer claims"),
        ("credentials-money", health.refuses(WorkClass::Money), "the payment provider refuses its credentials"),
        ("credentials-mail", health.refuses(WorkClass::Mail), "a way to notify refuses its credentials"),
        ("running", health.stopping.load(Ordering::Relaxed), "the worker is stopping"),
    ];
    let ready = checks.iter().all(|(_, failed, _)| !failed);
    let mut text = String::new();
    if query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))) {
        for (name, failed, why) in checks {
            text.push_str(&if failed { format!("[-]{name} failed: {why}\n") } else { format!("[+]{name} ok\n") });
        }
        for class in [WorkClass::Money, WorkClass::Mail] {
            let name = class_word(class);
            // Not a reason to send webhooks elsewhere.
            text.push_str(&match http.deps.breaker(class).standing() {
                Standing::Closed => format!("[+]breaker-{name} ok\n"),
                Standing::HalfOpen { .. } | Standing::Open(_) => format!("[!]breaker-{name} warning: it is open\n"),
            });
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

/// `GET /metrics`.
async fn metrics(State(http): State<Http>) -> Response {
    let asked = tokio::time::timeout(Duration::from_secs(1), http.deps.ledger.stats()).await;
    let queues = match asked {
        Ok(Told::Ok(queues)) => queues,
        _ => None,
    };
    let page = http.deps.metrics.render(&http.deps, queues);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// `POST /webhooks/stripe`.
async fn stripe(State(http): State<Http>, headers: HeaderMap, body: Body) -> Response {
    let body = match tokio::time::timeout(WEBHOOK_BODY_WITHIN, to_bytes(body, WEBHOOK_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        // What follows on the connection is no request.
        Ok(Err(_)) => return closing((StatusCode::BAD_REQUEST, "the body is too long, or it broke off\n")),
        Err(_) => return closing((StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")),
    };
    let signed = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Err(why) = signature::check(&http.webhook_secrets, signed, &body, http.deps.seams.unix_s()) {
        http.deps.metrics.webhook("bad_signature");
        tracing::warn!(%why, "a webhook was refused");
        return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    }
    let Ok(_permit) = http.room.try_acquire() else {
        http.deps.metrics.webhook(Taken::Later.word());
        return later();
    };
    let taken = match serde_json::from_slice::<Happened>(&body) {
        Ok(happened) => {
            let taken = take(&http.deps, &happened).await;
            tracing::debug!(event = happened.id, kind = happened.kind, ?taken, "webhook");
            taken
        }
        Err(_) => Taken::NotUnderstood,
    };
    http.deps.metrics.webhook(taken.word());
    match taken {
        Taken::Told | Taken::Refused | Taken::NotOurs => StatusCode::OK.into_response(),
        Taken::NotUnderstood => (StatusCode::BAD_REQUEST, "not an event\n").into_response(),
        Taken::Later => later(),
    }
}

fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "send it again\n").into_response()
}

fn closing(answer: (StatusCode, &'static str)) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The ledger took it.
    Told,
    /// The ledger said no for good: nothing to be done here.
    Refused,
    /// It is about nothing of Holdfast's.
    NotOurs,
    /// It is no event.
    NotUnderstood,
    /// The ledger (or the provider, asked for more) did not answer.
    Later,
}

impl Taken {
    fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Refused => "refused",
            Self::NotOurs => "not_ours",
            Self::NotUnderstood => "not_understood",
            Self::Later => "later",
        }
    }
    fn of<T>(told: Told<T>) -> Self {
        match told {
            Told::Ok(_) => Self::Told,
            Told::Refused { why } => {
                tracing::info!(%why, "the ledger refused what a webhook said");
                Self::Refused
            }
            Told::NotNow { .. } | Told::Unknown { .. } => Self::Later,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Happened {
    #[serde(default)]
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: About,
}

#[derive(Debug, Deserialize)]
struct About {
    object: Value,
}

async fn take(deps: &Deps, happened: &Happened) -> Taken {
    let object = &happened.data.object;
    let order = object["metadata"][ORDER].as_str().and_then(|id| id.parse::<ReservationId>().ok());
    match (happened.kind.as_str(), order) {
        ("payment_intent.succeeded", Some(order)) => paid(deps, order, object).await,
        (
            "payment_intent.payment_failed"
            | "payment_intent.amount_capturable_updated"
            | "payment_intent.requires_action"
            | "payment_intent.canceled",
            Some(order),
        ) => Taken::of(deps.ledger.resume(order).await),
        ("charge.refunded" | "charge.refund.updated" | "refund.created" | "refund.updated", _) => {
            match object["payment_intent"].as_str().and_then(|id| ProviderId::new(id).ok()) {
                Some(payment) => refunded(deps, order, payment).await,
                None => Taken::NotOurs,
            }
        }
        _ => Taken::NotOurs,
    }
}

async fn paid(deps: &Deps, order: ReservationId, object: &Value) -> Taken {
    let payment = object["id"].as_str().and_then(|id| ProviderId::new(id).ok());
    let received = object["amount_received"].as_u64().unwrap_or_default();
    let amount = Money::new(received, object["currency"].as_str().unwrap_or_default());
    match (payment, amount) {
        (Some(payment), Ok(amount)) => Taken::of(deps.ledger.fact(order, Fact::Paid { payment, amount }).await),
        _ => Taken::NotUnderstood,
    }
}

/// Something about a refund: what is true of it is asked for, since such events come in any order and say different things.
async fn refunded(deps: &Deps, order: Option<ReservationId>, payment: ProviderId) -> Taken {
    let within = deps.numbers.call_timeout;
    let intent = match tokio::time::timeout(within, deps.provider.retrieve(&payment)).await {
        Ok(Ok(intent)) => intent,
        Ok(Err(Failure::Missing)) => return Taken::NotOurs,
        _ => return Taken::Later,
    };
    let Some(order) = intent.order.or(order) else { return Taken::NotOurs };
    let refund = match tokio::time::timeout(within, deps.provider.find_refund(&payment)).await {
        Ok(Ok(refund)) => refund,
        _ => return Taken::Later,
    };
    let whole = |minor: u64| intent.received.is_none_or(|received| minor >= received.minor());
    match refund {
        Some(refund) if refund.status == RefundStatus::Succeeded && whole(refund.minor) => {
            Taken::of(deps.ledger.fact(order, Fact::Refunded { payment, refund: refund.id }).await)
        }
        // Under way, failed, or only a part: no fact yet.
        _ => Taken::NotOurs,
    }
}
