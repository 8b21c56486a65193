//! Products over HTTP: show, list, create, delete, receive, adjust.
//!
//! **Owns** these routes. **Must never** hold a rule about stock. **Read next**: [`super::bodies`].

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Query, State};
use axum::response::Response;
use http::{StatusCode, header};
use ledger_core::types::OfferKey;
use ledger_core::{Refusal, Settled};
use ledger_proto::limits::page_size;
use ledger_proto::v1::call::Verb;
use ledger_proto::{Reply, Why, calls, v1};
use serde::Deserialize;
use serde_json::json;

use super::bodies::{self, AdjustBody, AtJson, ProductBody, ReceiveBody, answer, balance, read};
use super::problem::{InPath, Problem};
use super::reservations::{AskedQuery, BodyBytes, asked, body_of, read_problem, submit_one};
use crate::api::Api;
use crate::api::reads::{Consistency, Reader};

/// `GET /v1/products/{sku}`.
///
/// # Errors
/// A problem.
pub async fn show(State(api): State<Api>, InPath(sku): InPath<String>, query: AskedQuery) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let sku = bodies::sku(&sku)?;
    let reader = Reader::new(&api, asked.consistency()?, asked.within());
    let (found, as_of) = reader.product(&sku).await.map_err(read_problem)?;
    let Some(view) = found else {
        let offer = OfferKey { sku, sale: None };
        return Err(Problem::refused(&Why::Ledger(Refusal::UnknownProduct { offer })));
    };
    let mut body = bodies::product(&view);
    body["as_of"] = json!(AtJson::from(as_of));
    Ok(answer(StatusCode::OK, &body))
}

/// A page of products.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    after: Option<String>,
    #[serde(default)]
    max: u32,
    consistency: Option<String>,
}

/// `GET /v1/products`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    query: Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = query.map_err(|error| Problem::invalid("query", error.body_text()))?;
    let consistency = match page.consistency.as_deref() {
        Some("stale") => Consistency::Stale,
        None | Some("linearizable") => Consistency::Linearizable,
        Some(other) => {
            return Err(Problem::invalid("consistency", format!("is {other:?}, allowed are linearizable and stale")));
        }
    };
    let after = page.after.as_deref().map(bodies::sku).transpose()?;
    let reader = Reader::new(&api, consistency, None).of_source(peer.ip().into());
    let (products, more) = reader.products(after.as_ref(), page_size(page.max)).await.map_err(read_problem)?;
    let next = products.last().filter(|_| more).map(|last| last.sku.as_str().to_owned());
    let products: Vec<_> = products.iter().map(bodies::product).collect();
    Ok(answer(StatusCode::OK, &json!({"products": products, "next": next})))
}

/// `POST /v1/products`.
///
/// # Errors
/// A problem.
pub async fn create(State(api): State<Api>, query: AskedQuery, body: BodyBytes) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let bytes = body_of(body)?;
    let body: ProductBody = read(&bytes)?;
    let location = format!("/v1/products/{}", body.sku);
    let verb = Verb::CreateProduct(v1::CreateProduct { sku: body.sku.clone(), policy: Some(body.policy.to_wire()) });
    let (at, reply) = submit_one(&api, calls::command(Some(verb)), asked.within_ms).await;
    let Reply::Ok(Settled::Offer { version, replayed }) = reply else { return Err(Problem::of(&reply)) };
    let at = at.map(AtJson::from);
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = answer(status, &json!({"sku": body.sku, "version": version, "replayed": replayed, "at": at}));
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /v1/products/{sku}`.
///
/// # Errors
/// A problem.
pub async fn delete(
    State(api): State<Api>,
    InPath(sku): InPath<String>,
    query: AskedQuery,
) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let verb = Verb::DeleteProduct(v1::DeleteProduct { sku: sku.clone() });
    let (at, reply) = submit_one(&api, calls::command(Some(verb)), asked.within_ms).await;
    let Reply::Ok(Settled::Done) = reply else { return Err(Problem::of(&reply)) };
    Ok(answer(StatusCode::OK, &json!({"sku": sku, "deleted": true, "at": at.map(AtJson::from)})))
}

/// `POST /v1/products/{sku}/receive`.
///
/// # Errors
/// A problem.
pub async fn receive(
    State(api): State<Api>,
    InPath(sku): InPath<String>,
    query: AskedQuery,
    body: BodyBytes,
) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let ReceiveBody { sale, units, reference } = read(&body_of(body)?)?;
    let offer = Some(v1::OfferKey { sku, sale });
    stocked(&api, Verb::Receive(v1::Receive { offer, units, reference }), asked.within_ms).await
}

/// `POST /v1/products/{sku}/adjust`.
///
/// # Errors
/// A problem.
pub async fn adjust(
    State(api): State<Api>,
    InPath(sku): InPath<String>,
    query: AskedQuery,
    body: BodyBytes,
) -> Result<Response, Problem> {
    let asked = asked(query)?;
    let AdjustBody { sale, delta, reason, reference, expected_version } = read(&body_of(body)?)?;
    let offer = Some(v1::OfferKey { sku, sale });
    let verb = Verb::Adjust(v1::Adjust { offer, delta, reason, reference, expected_version });
    stocked(&api, verb, asked.within_ms).await
}

async fn stocked(api: &Api, verb: Verb, within_ms: Option<u32>) -> Result<Response, Problem> {
    let (at, reply) = submit_one(api, calls::command(Some(verb)), within_ms).await;
    let Reply::Ok(Settled::Stocked { balance: units, version, replayed }) = reply else {
        return Err(Problem::of(&reply));
    };
    let at = at.map(AtJson::from);
    let body = json!({"balance": balance(units), "version": version, "replayed": replayed, "at": at});
    Ok(answer(StatusCode::OK, &body))
}
