//! The provider's webhooks: late, doubled, out of order, forged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use ledger_core::ReservationId;
use ledger_core::order::{Ending, PaymentState, Phase};
use order_worker::engine::EngineNumbers;
use order_worker::http::{Http, health, webhooks};
use order_worker::payment::{Mode, signature};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::cut::Fault;
use crate::fake_ledger::FakeLedger;
use crate::fake_provider::Manners;
use crate::world::World;

const LONG: Duration = Duration::from_secs(600);
const SECRET: &str = "whsec_test";

fn http(world: &World) -> Http {
    Http::new(world.deps(EngineNumbers::default()), vec![SECRET.to_owned()])
}

fn event(kind: &str, order: ReservationId, mut object: Value) -> String {
    object["metadata"] = json!({ "holdfast_order": order.to_string() });
    json!({ "id": "evt_1", "object": "event", "type": kind, "data": { "object": object } }).to_string()
}

fn succeeded(order: ReservationId, payment: &str, received: u64) -> String {
    let object = json!({ "id": payment, "object": "payment_intent", "amount_received": received, "currency": "eur" });
    event("payment_intent.succeeded", order, object)
}

async fn post(world: &World, body: &str) -> StatusCode {
    let signed = signature::sign(SECRET, world.clock.load(Ordering::Relaxed), body.as_bytes());
    post_signed(world, body, &signed).await
}

async fn post_signed(world: &World, body: &str, signed: &str) -> StatusCode {
    let request =
        Request::post("/webhooks/stripe").header("Stripe-Signature", signed).body(Body::from(body.to_owned()));
    webhooks(http(world)).oneshot(request.expect("a request")).await.expect("an answer").status()
}

async fn get(world: &World, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = health(http(world)).oneshot(request).await.expect("an answer");
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(start_paused = true)]
async fn a_payment_told_by_webhook_and_by_worker_counts_once() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let id = world.place(1, "pm_good", LONG);
    let body = succeeded(id, "pi_1", 500);
    // Before anybody claimed it, doubled, and again after all is done.
    for _ in 0..3 {
        assert_eq!(post(&world, &body).await, StatusCode::OK);
    }
    assert_eq!(world.ledger.record(id).phase, Phase::Sold);
    let worker = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    assert_eq!(post(&world, &body).await, StatusCode::OK);
    let record = world.ledger.record(id);
    assert_eq!((record.ending, record.payments.len()), (Ending::Sold, 1));
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_payment_of_a_released_order_is_given_back_when_nothing_is_left() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let id = world.place(1, "pm_3ds", Duration::from_secs(30));
    let worker = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::AwaitingBuyer).await;
    // The buyer pays; the webhook only comes when the order was given up, were that possible: the worker looks first.
    let paid = world.provider.buyer_acts(true).expect("it awaited the buyer");
    world.ledger.until(id, |record| !record.phase.holds()).await;
    world.ledger.sell_out();
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    assert_eq!(world.ledger.record(id).ending, Ending::Refunded);
    assert_eq!(post(&world, &succeeded(id, paid.id.as_str(), 500)).await, StatusCode::OK);
    let record = world.ledger.record(id);
    assert_eq!((record.phase, record.payments[0].state), (Phase::Done, PaymentState::Refunded));
    assert_eq!(world.provider.charges(), (1, 1));
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_changed_wakes_an_order_that_awaits_its_buyer() {
    for kind in ["payment_intent.payment_failed", "payment_intent.amount_capturable_updated"] {
        let world = World::new(Mode::AuthoriseThenCapture, Manners::default(), None);
        let id = world.place(1, "pm_3ds", LONG);
        let worker = world.worker();
        world.ledger.until(id, |record| record.phase == Phase::AwaitingBuyer).await;
        let well = kind.ends_with("capturable_updated");
        world.provider.buyer_acts(well).expect("it awaited the buyer");
        // In the wrong order and doubled: the worker looks for itself.
        for _ in 0..2 {
            assert_eq!(post(&world, &event(kind, id, json!({ "id": "pi_1" }))).await, StatusCode::OK);
        }
        world.ledger.until(id, |record| record.phase == Phase::Done).await;
        let ending = if well { Ending::Sold } else { Ending::Released };
        assert_eq!(world.ledger.record(id).ending, ending, "{kind}");
        worker.shutdown(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refund_made_in_the_dashboard_becomes_a_fact() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    let payment = world.ledger.record(id).payments[0].id.clone();
    let refunded = event("charge.refunded", id, json!({ "id": "ch_1", "payment_intent": payment.as_str() }));
    // Nothing was given back: whoever sent this, the book decides.
    assert_eq!(post(&world, &refunded).await, StatusCode::OK);
    assert_eq!(world.ledger.record(id).payments[0].state, PaymentState::Kept);
    order_worker::payment::PaymentProvider::refund(&*world.provider, id, &payment, "by hand")
        .await
        .expect("given back");
    assert_eq!(post(&world, &refunded).await, StatusCode::OK);
    assert_eq!(world.ledger.record(id).payments[0].state, PaymentState::Refunded);
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn success_is_said_only_after_the_ledger_took_it() {
    let world = World::new(Mode::Charge, Manners::default(), Some((0, Fault::Fail)));
    let id = world.place(1, "pm_good", LONG);
    let body = succeeded(id, "pi_1", 500);
    assert_eq!(post(&world, &body).await, StatusCode::SERVICE_UNAVAILABLE, "to be sent again");
    assert_eq!(world.ledger.record(id).phase, Phase::Queued);
    assert_eq!(post(&world, &body).await, StatusCode::OK);
    assert_eq!(world.ledger.record(id).phase, Phase::Sold);
    // An order the ledger does not take for good is not sent again.
    assert_eq!(post(&world, &succeeded(FakeLedger::id(9), "pi_9", 500)).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn forged_old_and_foreign_ones_change_nothing() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let id = world.place(1, "pm_good", LONG);
    let body = succeeded(id, "pi_1", 500);
    let now = world.clock.load(Ordering::Relaxed);
    for signed in [
        String::new(),
        signature::sign("another", now, body.as_bytes()),
        signature::sign(SECRET, now - 301, body.as_bytes()),
        signature::sign(SECRET, now, b"another body"),
    ] {
        assert_eq!(post_signed(&world, &body, &signed).await, StatusCode::BAD_REQUEST, "{signed}");
    }
    let foreign = json!({ "id": "evt_2", "type": "payment_intent.succeeded", "data": { "object": { "id": "pi_x" } } });
    assert_eq!(post(&world, &foreign.to_string()).await, StatusCode::OK, "it is about nothing of ours");
    assert_eq!(post(&world, "no event").await, StatusCode::BAD_REQUEST);
    assert_eq!(world.ledger.record(id).phase, Phase::Queued);
}

#[tokio::test(start_paused = true)]
async fn health_and_metrics_are_on_a_port_of_their_own_and_webhooks_on_the_other() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let at = async |routes: axum::Router, method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        routes.oneshot(request).await.expect("an answer").status()
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(at(webhooks(http(&world)), "GET", path).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(at(health(http(&world)), "POST", "/webhooks/stripe").await, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    let body = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let request = Request::post("/webhooks/stripe").body(body).expect("a request");
    let began = tokio::time::Instant::now();
    let answer = webhooks(http(&world)).oneshot(request).await.expect("an answer");
    assert_eq!((answer.status(), began.elapsed()), (StatusCode::REQUEST_TIMEOUT, Duration::from_secs(10)));
    assert_eq!(answer.headers()["connection"], "close");
}

#[tokio::test(start_paused = true)]
async fn health_and_metrics_say_how_it_stands() {
    let world = World::new(Mode::Charge, Manners::default(), None);
    assert_eq!(get(&world, "/livez").await.0, StatusCode::OK);
    let (status, text) = get(&world, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("[-]ledger failed") && text.contains("[+]credentials-money ok"), "{text}");
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    let routes = health(Http::new(Arc::clone(worker.deps()), Vec::new()));
    let ask = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = routes.clone().oneshot(request).await.expect("an answer");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8_lossy(&body).into_owned()
    };
    assert_eq!(ask("/readyz").await, "ready\n");
    // The last run's end is counted right after the ledger took its report.
    worker.shutdown(Duration::from_secs(1)).await;
    let page = ask("/metrics").await;
    for line in [
        "holdfast_worker_claimed_total{class=\"money\"} 1",
        "holdfast_worker_runs_total{step=\"pay\",outcome=\"fact\"} 1",
        "holdfast_worker_runs_total{step=\"notify\",outcome=\"notified\"} 1",
        "holdfast_worker_call_seconds_count{call=\"confirm\",outcome=\"ok\"} 1",
        "holdfast_worker_breaker_open{class=\"money\"} 0",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}
