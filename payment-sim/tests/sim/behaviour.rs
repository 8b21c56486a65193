//! Each misbehaviour, and that the book stays honest under it.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, World};

const INTENTS: &str = "/v1/payment_intents";
const FORM: &str = "amount=1000&currency=eur&payment_method=pm_card_visa&confirm=true";

async fn paid(client: &Client) -> u64 {
    client.get("/sim/book/summary").await.ok()["paid"].as_u64().expect("a number")
}

#[tokio::test]
async fn it_is_slow_before_and_after() {
    let world = World::behaving(
        r#"{"operations":{"create":{"latency_ms":150,"latency_jitter_ms":10,"answer_latency_ms":50}}}"#,
    )
    .await;
    let began = Instant::now();
    world.client.post(INTENTS, FORM).await.ok();
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn it_charges_though_the_client_gave_up() {
    let world = World::behaving(r#"{"operations":{"confirm":{"latency_ms":500}}}"#).await;
    let id = world.client.create("payment_method=pm_card_visa").await;
    let path = format!("{INTENTS}/{id}/confirm");
    let gave_up = tokio::time::timeout(Duration::from_millis(250), world.client.key("k").call("POST", &path, "")).await;
    assert!(gave_up.is_err(), "the answer came too soon");
    assert_eq!(paid(&world.client).await, 0);
    world.client.summary_until(|summary| summary["paid"] == 1).await;
    let replayed = world.client.key("k").post(&path, "").await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(replayed.ok()["status"], "succeeded");
}

#[tokio::test]
async fn it_fails_before_it_did_anything() {
    let world = World::behaving(r#"{"everywhere":{"error_rate":1}}"#).await;
    assert_eq!(world.client.post(INTENTS, FORM).await.error(), (500, "api_error", "-"));
    assert_eq!(world.client.get(INTENTS).await.status, 500);
    assert_eq!(world.client.get("/sim/book/summary").await.ok()["intents"], 0);
}

#[tokio::test]
async fn it_fails_after_it_charged() {
    let world = World::behaving(r#"{"operations":{"create":{"charge_then_error_rate":1}}}"#).await;
    assert_eq!(world.client.post(INTENTS, FORM).await.error(), (500, "api_error", "-"));
    let found = world.client.get(INTENTS).await.ok();
    assert_eq!((&found["data"][0]["status"], paid(&world.client).await), (&"succeeded".into(), 1));
}

#[tokio::test]
async fn it_falls_silent_after_it_charged() {
    for hang in ["never", "close"] {
        let behaviour = format!(r#"{{"everywhere":{{"charge_then_hang_rate":1,"hang":"{hang}"}}}}"#);
        let world = World::behaving(&behaviour).await;
        let client = world.client.key("k");
        let silent = tokio::time::timeout(Duration::from_millis(300), client.call("POST", INTENTS, FORM)).await;
        match (hang, silent) {
            ("never", Err(_)) | ("close", Ok(None)) => {}
            (_, other) => panic!("{hang}: {other:?}"),
        }
        assert_eq!(paid(&world.client).await, 1);
        // The key kept the answer that was never sent, and what was answered before charges nothing.
        let replayed = client.post(INTENTS, FORM).await;
        assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
        assert_eq!((replayed.ok()["status"].as_str(), paid(&world.client).await), (Some("succeeded"), 1));
        world.stop().await;
    }
}

#[tokio::test]
async fn it_declines_what_would_succeed() {
    let world = World::behaving(r#"{"everywhere":{"decline_rate":1}}"#).await;
    assert_eq!(world.client.post(INTENTS, FORM).await.error(), (402, "card_error", "card_declined"));
    assert_eq!(paid(&world.client).await, 0);
}

#[tokio::test]
async fn it_is_down_in_three_ways() {
    let world = World::behaving(r#"{"everywhere":{"outage":"refuse"}}"#).await;
    let client = &world.client;
    assert_eq!(client.post(INTENTS, FORM).await.status, 503);
    client.behave(r#"{"everywhere":{"outage":"close"}}"#).await;
    assert!(client.call("POST", INTENTS, FORM).await.is_none());
    client.behave(r#"{"everywhere":{"outage":"hang"}}"#).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), client.call("GET", INTENTS, "")).await.is_err());
    client.behave("{}").await;
    assert_eq!(client.get(INTENTS).await.ok()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn rates_hold_over_many_calls() {
    let world = World::behaving(r#"{"seed":3,"everywhere":{"decline_rate":0.25}}"#).await;
    let replies = futures::future::join_all((0..200).map(|_| world.client.post(INTENTS, FORM))).await;
    let declined = replies.iter().filter(|reply| reply.status == 402).count();
    assert!((25..=75).contains(&declined), "{declined} of 200 at a rate of one quarter");
    assert_eq!(paid(&world.client).await, 200 - declined as u64);
}

#[tokio::test]
async fn search_lags() {
    let world = World::behaving(r#"{"search_lag_ms":60000}"#).await;
    let id = world.client.create("metadata[order]=1").await;
    let search = format!("{INTENTS}/search?query=metadata%5B%27order%27%5D%3A%271%27");
    assert_eq!(world.client.get(&search).await.ok()["data"], serde_json::json!([]));
    assert_eq!(world.client.status(&id).await, "requires_payment_method", "what is asked for by id is there at once");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.client.get(&search).await.ok()["data"][0]["id"], id.as_str());
}

#[tokio::test]
async fn orders_are_checked_and_shown() {
    let world = World::new().await;
    let put = world.client.header("content-type", "application/json");
    for bad in [r#"{"everywhere":{"error_rate":2}}"#, r#"{"evrywhere":{}}"#, "x", r#"{"operations":{"dance":{}}}"#] {
        let refused = put.call("PUT", "/sim/behaviour", bad).await.expect("an answer");
        assert!((400..500).contains(&refused.status), "{bad}: {}", refused.status);
    }
    put.behave(r#"{"operations":{"refund":{"outage":"hang"}},"webhooks":{"off":true}}"#).await;
    let shown = world.client.get("/sim/behaviour").await.ok();
    assert_eq!((&shown["operations"]["refund"]["outage"], &shown["webhooks"]["off"]), (&"hang".into(), &true.into()));
}
