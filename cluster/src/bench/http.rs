//! Shape f: HTTP/JSON, one connection a caller.
//!
//! **Owns** a small HTTP/1.1 client loop. **Must never** share a connection between callers. **Read next**: [`super::meter`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use client_sdk::Client;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::meter::Meter;
use super::{Load, Target, Targets, refused};
use crate::output::Outcome;

/// Runs the connections until the meter is over.
pub(crate) async fn drive(load: &Load, client: &Client, targets: &Targets, meter: &Arc<Meter>) -> Outcome {
    let nodes = client.routing().nodes;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..load.callers.unwrap_or(500) {
        let (grpc, products) = targets[n % targets.len()].clone();
        let address = nodes.iter().find(|node| node.client == grpc).map(|node| node.http.clone());
        let address = address
            .filter(|a| !a.is_empty())
            .ok_or_else(|| refused(format!("the HTTP port of {grpc} is not known")))?;
        let (client, meter, load) = (client.clone(), meter.clone(), load.clone());
        tasks.spawn(async move { connection(&address, &load, &products, &client, &meter, n as u64).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(refused)??;
    }
    Ok(())
}

async fn connection(
    address: &str,
    load: &Load,
    products: &[Target],
    client: &Client,
    meter: &Meter,
    seed: u64,
) -> Outcome {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| refused(format!("{address}: {e}")))?;
    stream.set_nodelay(true).map_err(refused)?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(refused)?;
    let driver = tokio::spawn(connection);
    let mut random = SmallRng::seed_from_u64(seed);
    while !meter.over() {
        let target = &products[random.random_range(0..products.len())];
        let id = client.mint_for(&target.sku);
        let hold_ms = load.hold.map_or(600_000, |h| h.as_millis() as u64);
        let body = serde_json::json!({
            "keys": [format!("buyer-{:06}", random.random_range(0..1_000_000))],
            "lines": [{ "sku": target.sku.as_str(), "quantity": 1 }],
            "hold_ms": hold_ms,
        });
        let request = http::Request::post("/v1/reservations")
            .header(http::header::HOST, address)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", id.to_string())
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(refused)?;
        let began = Instant::now();
        send.ready().await.map_err(refused)?;
        let answer = send.send_request(request).await.map_err(refused)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(refused)?.to_bytes();
        let ok = u64::from(status.is_success());
        meter.record(began, ok, 1 - ok, || format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    driver.abort();
    Ok(())
}
