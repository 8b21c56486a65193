//! HTTP/JSON: reservations, stock, health and metrics, on a port of its own.
//!
//! **What it is.** axum's router on HTTP/1.1 over the network seam. Every error is an RFC 9457 problem (docs/errors.md).
//!
//! **Owns** routes and the shape of JSON. **Must never** hold a rule that gRPC needs too; those are in [`crate::api`].
//! **Read next**: [`reservations`], [`stock`], [`problem`], [`browser`], [`health`].

pub mod bodies;
pub(crate) mod browser;
mod connection;
pub mod health;
pub mod problem;
pub mod reservations;
pub mod stock;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ledger_raft::seam::NetListener;
use service::listener::ProbeOnly;

use crate::access::Right;
use crate::api::Api;
use crate::grpc::connection::Listener;
use crate::limits::HTTP_BODY_BYTES;
use problem::Problem;

/// Serves HTTP until `shutdown` completes and its requests have ended.
///
/// # Errors
/// None today; broken connections are not errors.
pub async fn serve(
    api: Api,
    listener: Box<dyn NetListener>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let gate = api.node.gates.http.clone();
    service::serve_http(router(api), Listener(listener), gate, shutdown).await;
    Ok(())
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/reservations", post(reservations::reserve))
        .route("/v1/reservations/{id}", get(reservations::show))
        .route("/v1/reservations/{id}/{verb}", post(reservations::act))
        .route("/v1/products", get(stock::list).post(stock::create))
        .route("/v1/products/{sku}", get(stock::show).delete(stock::delete))
        .route("/v1/products/{sku}/receive", post(stock::receive))
        .route("/v1/products/{sku}/adjust", post(stock::adjust))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES))
        .layer(from_fn_with_state(api.clone(), gate))
        .with_state(api)
}

/// The one gate of every request.
async fn gate(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let right = right_of(request.method(), request.uri());
    if request.extensions().get::<ProbeOnly>().is_some() && !matches!(right, Right::Probe | Right::Observe) {
        return Problem::too_many_connections().into_response();
    }
    let head = (request.method(), request.uri(), request.headers());
    if let Err(problem) = browser::check(head, right == Right::Probe, |name| browser::is_name_of(&api.node, name)) {
        return browser::refusal(problem);
    }
    if let Err(denied) = api.access.decide(peer, right) {
        return Problem::denied(&denied.to_string()).into_response();
    }
    let began = tokio::time::Instant::now();
    let response = match connection::whole(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => connection::closing(problem.into_response()),
    };
    api.metrics.http_seconds.record(began.elapsed().as_secs_f64());
    response
}

fn right_of(method: &http::Method, uri: &http::Uri) -> Right {
    let verbose =
        uri.query().is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    match uri.path() {
        "/livez" => Right::Probe,
        "/readyz" if !verbose => Right::Probe,
        "/readyz" | "/metrics" => Right::Observe,
        _ if method == http::Method::GET => Right::Read,
        path if path.starts_with("/v1/products") => Right::Stock,
        _ => Right::Order,
    }
}

async fn nothing_here(uri: http::Uri) -> Problem {
    Problem::new(http::StatusCode::NOT_FOUND, "no-such-resource", format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> Problem {
    let why = format!("{method} is not possible at {}", uri.path());
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", why)
}
