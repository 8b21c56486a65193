//! Webhooks: signed, repeated, late, doubled and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, StatusCode};
use payment_sim::WebhookTo;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::client::{BEGIN_MS, PATIENCE, World};

const SECRET: &str = "whsec_test";

/// A merchant that is told.
struct Merchant {
    url: String,
    told: mpsc::UnboundedReceiver<(HeaderMap, String)>,
    /// So many deliveries are refused first.
    refuse: Arc<AtomicU32>,
}

#[derive(Clone)]
struct Ear {
    tell: mpsc::UnboundedSender<(HeaderMap, String)>,
    refuse: Arc<AtomicU32>,
}

async fn hear(State(ear): State<Ear>, headers: HeaderMap, body: String) -> StatusCode {
    let refused = ear.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    ear.tell.send((headers, body)).expect("the test listens");
    if refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

impl Merchant {
    async fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let refuse = Arc::new(AtomicU32::new(0));
        let app = Router::new().route("/hook", post(hear)).with_state(Ear { tell, refuse: refuse.clone() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, told, refuse }
    }

    fn webhook(&self) -> WebhookTo {
        WebhookTo { retry: Duration::from_millis(20), attempts: 4, ..WebhookTo::new(&self.url, SECRET) }
    }

    async fn world(&self, behaviour: &str) -> World {
        let (webhook, behaviour) = (self.webhook(), serde_json::from_str(behaviour).expect("a behaviour"));
        World::with(|config| (config.webhook, config.behaviour) = (Some(webhook), behaviour)).await
    }

    async fn next(&mut self) -> (HeaderMap, Value) {
        let told = tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("it is told in time");
        let (headers, body) = told.expect("the merchant lives");
        verify(&headers, &body);
        (headers, serde_json::from_str(&body).expect("JSON"))
    }
}

fn verify(headers: &HeaderMap, body: &str) {
    let header = headers["stripe-signature"].to_str().expect("text");
    let (t, v1) = header.split_once(",v1=").expect("t=..,v1=..");
    let seconds = t.strip_prefix("t=").expect("t=..");
    assert_eq!(seconds, (BEGIN_MS / 1_000).to_string());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{seconds}.{body}").as_bytes());
    mac.verify_slice(&hex::decode(v1).expect("hex")).expect("the signature fits");
}

const PAY: &str = "payment_method=pm_card_visa&confirm=true";

#[tokio::test]
async fn the_merchant_is_told_and_can_check_who_tells() {
    let mut merchant = Merchant::new().await;
    let world = merchant.world("{}").await;
    let id = world.client.create(PAY).await;
    let (_, event) = merchant.next().await;
    assert_eq!(
        (&event["type"], &event["data"]["object"]["id"]),
        (&"payment_intent.succeeded".into(), &id.as_str().into())
    );
    assert_eq!(world.client.get(&format!("/v1/events/{}", event["id"].as_str().expect("an id"))).await.ok(), event);
    world.client.post("/v1/refunds", &format!("payment_intent={id}")).await.ok();
    let kinds = [merchant.next().await.1["type"].clone(), merchant.next().await.1["type"].clone()];
    assert_eq!(kinds, ["refund.created", "charge.refunded"], "events of one intent keep their order");
    let summary = world.client.summary_until(|summary| summary["webhooks"]["waiting"] == 0).await;
    assert_eq!(summary["webhooks"]["arrived"], 3);
}

#[tokio::test]
async fn a_merchant_that_refuses_is_told_again() {
    let mut merchant = Merchant::new().await;
    merchant.refuse.store(2, Ordering::SeqCst);
    let world = merchant.world("{}").await;
    world.client.create(PAY).await;
    let (_, first) = merchant.next().await;
    for _ in 0..2 {
        assert_eq!(merchant.next().await.1, first);
    }
    let summary = world.client.summary_until(|summary| summary["webhooks"]["waiting"] == 0).await;
    assert_eq!((&summary["webhooks"]["arrived"], &summary["webhooks"]["failed_attempts"]), (&1.into(), &2.into()));
    merchant.refuse.store(100, Ordering::SeqCst);
    world.client.create(PAY).await;
    world.client.summary_until(|summary| summary["webhooks"]["given_up"] == 1).await;
}

#[tokio::test]
async fn events_come_twice_late_or_never() {
    let mut merchant = Merchant::new().await;
    let world = merchant.world(r#"{"webhooks":{"duplicate_rate":1,"reorder_ms":50,"delay_ms":100}}"#).await;
    let began = tokio::time::Instant::now();
    world.client.create(PAY).await;
    let first = merchant.next().await.1;
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(merchant.next().await.1, first, "the second of a double is the same event");
    for behaviour in [r#"{"webhooks":{"drop_rate":1}}"#, r#"{"webhooks":{"off":true}}"#] {
        world.client.behave(behaviour).await;
        world.client.create(PAY).await;
    }
    let summary = world.client.summary_until(|summary| summary["webhooks"]["waiting"] == 0).await;
    assert_eq!((&summary["webhooks"]["dropped"], &summary["webhooks"]["arrived"]), (&2.into(), &1.into()));
    assert_eq!(
        world.client.get("/v1/events").await.ok()["data"].as_array().expect("data").len(),
        3,
        "asked, it tells all"
    );
}

#[tokio::test]
async fn events_overtake_each_other() {
    let mut merchant = Merchant::new().await;
    let world = merchant.world(r#"{"seed":5,"webhooks":{"reorder_rate":0.5,"reorder_ms":200}}"#).await;
    let id = world.client.create("capture_method=manual").await;
    let mut made = Vec::new();
    for _ in 0..10 {
        world.client.verb(&id, "confirm", "payment_method=pm_card_chargeDeclined").await;
        made.push(world.client.get("/v1/events?limit=1").await.ok()["data"][0]["id"].clone());
    }
    let mut told = Vec::new();
    for _ in 0..10 {
        told.push(merchant.next().await.1["id"].clone());
    }
    assert_ne!(told, made);
    assert!(made.iter().all(|id| told.contains(id)));
}

#[tokio::test]
async fn what_was_not_delivered_is_by_the_next_process() {
    let mut merchant = Merchant::new().await;
    let world = merchant.world(r#"{"webhooks":{"delay_ms":3600000}}"#).await;
    let id = world.client.create(PAY).await;
    let dir = world.stop().await;
    assert!(merchant.told.try_recv().is_err());
    let webhook = merchant.webhook();
    let world = World::on(dir, |config| config.webhook = Some(webhook.clone())).await;
    assert_eq!(merchant.next().await.1["data"]["object"]["id"], id.as_str());
    world.client.summary_until(|summary| summary["webhooks"]["arrived"] == 1).await;
    let dir = world.stop().await;
    let world = World::on(dir, |config| config.webhook = Some(webhook)).await;
    world.client.create(PAY).await;
    assert_ne!(merchant.next().await.1["data"]["object"]["id"], id.as_str(), "what arrived is not sent again");
}

#[tokio::test]
async fn addresses_are_checked_at_the_start() {
    for url in ["", "localhost:1", "https://shop.example/hook"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = payment_sim::Config::new(dir.path());
        config.webhook = Some(WebhookTo::new(url, SECRET));
        assert!(payment_sim::serve(config).await.is_err(), "{url}");
    }
}
