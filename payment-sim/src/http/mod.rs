//! The HTTP surface: Stripe's under `/v1`, the simulator's own under `/sim`.
//!
//! **Owns** the table of routes. **Must never** decide about payments. **Read next**: [`call`], then [`crate::sim`].

pub(crate) mod call;
pub(crate) mod connection;
mod own;
mod reads;
mod search;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use crate::behaviour::Operation;
use crate::params;
use crate::refusal::Refusal;
use crate::sim::Sim;

/// All routes.
pub(crate) fn router(sim: Arc<Sim>) -> Router {
    Router::new()
        .route("/v1/payment_intents", post(create).get(reads::intents))
        .route("/v1/payment_intents/search", get(search::search))
        .route("/v1/payment_intents/{id}", get(reads::intent))
        .route("/v1/payment_intents/{id}/confirm", post(confirm))
        .route("/v1/payment_intents/{id}/capture", post(capture))
        .route("/v1/payment_intents/{id}/cancel", post(cancel))
        .route("/v1/refunds", post(refund).get(reads::refunds))
        .route("/v1/refunds/{id}", get(reads::refund))
        .route("/v1/charges/{id}", get(reads::charge))
        .route("/v1/events", get(reads::events))
        .route("/v1/events/{id}", get(reads::event))
        .route("/sim/behaviour", get(own::behaviour).put(own::set_behaviour))
        .route("/sim/book", get(own::book))
        .route("/sim/book/summary", get(own::summary))
        .route("/sim/intents/{id}/authenticate", post(own::authenticate))
        .route("/sim/intents/{id}/settle", post(own::settle))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(sim)
}

async fn create(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    call::change(sim, Operation::Create, request, params::create).await
}

async fn confirm(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    call::change(sim, Operation::Confirm, request, |form| params::confirm(id, form)).await
}

async fn capture(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    call::change(sim, Operation::Capture, request, |form| params::capture(id, form)).await
}

async fn cancel(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    call::change(sim, Operation::Cancel, request, |form| params::cancel(id, form)).await
}

async fn refund(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    call::change(sim, Operation::Refund, request, params::refund).await
}

async fn unknown(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    let refusal = match call::authorized(&sim, request.headers()) {
        Ok(()) => Refusal::no_such_url(request.method().as_str(), request.uri().path()),
        Err(refusal) => refusal,
    };
    call::Envelope::new(&sim, request.headers()).answer(refusal.into())
}
