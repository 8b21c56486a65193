//! `/livez`, `/readyz`, `/metrics`.
//!
//! **Owns** how readiness is written. **Must never** call a node dead because its cluster has no
//! leader: a restart would not help.
//! **Read next**: [`crate::readiness`], [`crate::metrics`].

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::api::Api;
use crate::readiness::checks;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`, `GET /readyz?verbose`.
pub async fn readyz(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let checks = checks(&api.node);
    let ready = checks.iter().all(|check| check.failed.is_none() || !check.counts);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    let mut text = String::new();
    if verbose {
        for check in &checks {
            match &check.failed {
                None => text.push_str(&format!("[+]{} ok\n", check.name)),
                Some(why) if check.counts => text.push_str(&format!("[-]{} failed: {why}\n", check.name)),
                Some(why) => text.push_str(&format!("[!]{} warning: {why}\n", check.name)),
            }
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(api): State<Api>) -> Response {
    let page = api.metrics.render(&api.node);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
