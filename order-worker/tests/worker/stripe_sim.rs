//! The Stripe adapter against the payment simulator, over HTTP; and the whole worker with both.

use std::sync::Arc;
use std::time::Duration;

use client_sdk::PaymentToken;
use ledger_core::order::{Ending, Money, Phase, ProviderId};
use order_worker::engine::{Deps, Engine, EngineNumbers};
use order_worker::http::{Http, webhooks};
use order_worker::notify::Nobody;
use order_worker::payment::stripe::{Settings, Stripe};
use order_worker::payment::{Failure, IntentStatus, Mode, PaymentProvider as _, RefundStatus};
use payment_sim::{Behaviour, Config, Manners, Operation, Running, WebhookTo};
use tokio::net::TcpListener;

use crate::fake_ledger::FakeLedger;
use crate::fake_provider;
use crate::world::World;

struct Sim {
    running: Running,
    _data: tempfile::TempDir,
}

async fn sim(change: impl FnOnce(&mut Config)) -> Sim {
    let data = tempfile::tempdir().expect("a directory");
    let mut config = Config::new(data.path());
    config.no_sync = true;
    config.seed = Some(1);
    change(&mut config);
    Sim { running: payment_sim::serve(config).await.expect("a simulator"), _data: data }
}

fn stripe(url: String, mode: Mode, secret_key: &str) -> Stripe {
    let methods = vec!["card".to_owned()];
    let timeout = Duration::from_secs(5);
    let settings = Settings { url, secret_key: secret_key.into(), mode, methods, return_url: None, timeout };
    Stripe::new(settings).expect("an adapter")
}

fn with(method: &str) -> PaymentToken {
    PaymentToken::new(method)
}

fn euros() -> Money {
    Money::new(500, "EUR").expect("money")
}

fn misbehaves(operation: Operation, manners: Manners) -> Behaviour {
    Behaviour { operations: [(operation, manners)].into(), ..Behaviour::default() }
}

#[tokio::test]
async fn a_payment_is_made_looked_at_found_and_given_back() {
    let sim = sim(|_| {}).await;
    let stripe = stripe(sim.running.url(), Mode::Charge, "sk_test_1");
    let order = FakeLedger::id(1);
    let made = stripe.create_intent(order, 1, euros(), "o-1-create").await.expect("made");
    assert_eq!((made.status, made.order, made.generation), (IntentStatus::Unconfirmed, Some(order), Some(1)));
    assert!(made.secret.is_some());
    let again = stripe.create_intent(order, 1, euros(), "o-1-create").await.expect("the same");
    assert_eq!(again.id, made.id, "the key makes it one");
    let other = stripe.create_intent(order, 1, Money::new(501, "EUR").expect("money"), "o-1-create").await;
    assert_eq!(other, Err(Failure::KeyTaken));
    let paid = stripe.confirm(&made.id, &with("pm_card_visa"), "o-1-confirm").await.expect("paid");
    assert_eq!((paid.status, paid.received), (IntentStatus::Succeeded, Some(euros())));
    assert_eq!(stripe.retrieve(&made.id).await.expect("found").status, IntentStatus::Succeeded);
    let found = stripe.find_by_order(order).await.expect("found");
    assert_eq!(found.iter().map(|intent| &intent.id).collect::<Vec<_>>(), [&made.id]);
    assert!(matches!(stripe.cancel(&made.id).await, Err(Failure::No { .. })), "paid is paid");
    assert_eq!(stripe.find_refund(&made.id).await, Ok(None));
    let refund = stripe.refund(order, &made.id, "o-pi-refund").await.expect("given back");
    assert_eq!((refund.status, refund.minor), (RefundStatus::Succeeded, 500));
    assert_eq!(stripe.refund(order, &made.id, "o-pi-refund").await, Ok(refund.clone()), "the key makes it one");
    assert_eq!(stripe.find_refund(&made.id).await, Ok(Some(refund)));
    sim.running.shutdown().await;
}

#[tokio::test]
async fn declines_actions_captures_and_cancels_are_told_apart() {
    let sim = sim(|_| {}).await;
    let charge = stripe(sim.running.url(), Mode::Charge, "sk_test_1");
    let order = FakeLedger::id(1);
    let made = charge.create_intent(order, 1, euros(), "a").await.expect("made");
    let declined = charge.confirm(&made.id, &with("pm_card_chargeDeclinedInsufficientFunds"), "b").await;
    assert_eq!(declined, Err(Failure::Declined { code: "insufficient_funds".into() }));
    let looked = charge.retrieve(&made.id).await.expect("found");
    assert_eq!((looked.status, looked.declined.as_deref()), (IntentStatus::Unconfirmed, Some("insufficient_funds")));
    let cancelled = charge.cancel(&made.id).await.expect("cancelled");
    assert_eq!((cancelled.status, cancelled.abandoned), (IntentStatus::Canceled, true));
    assert!(matches!(charge.confirm(&made.id, &with("pm_card_visa"), "c").await, Err(Failure::No { .. })));

    let made = charge.create_intent(order, 2, euros(), "d").await.expect("made");
    let acts = charge.confirm(&made.id, &with("pm_card_threeDSecure2Required"), "e").await.expect("confirmed");
    assert_eq!(acts.status, IntentStatus::RequiresAction);

    let authorise = stripe(sim.running.url(), Mode::AuthoriseThenCapture, "sk_test_1");
    let made = authorise.create_intent(order, 3, euros(), "f").await.expect("made");
    let held = authorise.confirm(&made.id, &with("pm_card_visa"), "g").await.expect("authorised");
    assert_eq!(held.status, IntentStatus::RequiresCapture);
    let paid = authorise.capture(&made.id, "h").await.expect("captured");
    assert_eq!((paid.status, paid.received), (IntentStatus::Succeeded, Some(euros())));
    sim.running.shutdown().await;
}

#[tokio::test]
async fn what_is_not_certain_is_unknown_and_can_be_looked_up() {
    let manners = Manners { charge_then_error_rate: 1.0, ..Manners::default() };
    let sim = sim(|config| config.behaviour = misbehaves(Operation::Confirm, manners)).await;
    let stripe_ = stripe(sim.running.url(), Mode::Charge, "sk_test_1");
    let made = stripe_.create_intent(FakeLedger::id(1), 1, euros(), "a").await.expect("made");
    let confirmed = stripe_.confirm(&made.id, &with("pm_card_visa"), "b").await;
    assert!(matches!(confirmed, Err(Failure::Unknown { .. })), "{confirmed:?}");
    // The key keeps the failure. That says nothing about how the provider is: one such order must not hold the breaker open for all.
    let again = stripe_.confirm(&made.id, &with("pm_card_visa"), "b").await.expect_err("it is kept");
    assert!(matches!(again, Failure::Replayed { .. }) && !again.is_illness(), "{again:?}");
    assert_eq!(stripe_.retrieve(&made.id).await.expect("found").status, IntentStatus::Succeeded);
    let nobody = ProviderId::new("pi_nobody").expect("an id");
    assert_eq!(stripe_.retrieve(&nobody).await, Err(Failure::Missing));
    let stranger = stripe(sim.running.url(), Mode::Charge, "pk_live_stranger");
    assert!(matches!(stranger.retrieve(&made.id).await, Err(Failure::Config { .. })));
    let url = sim.running.url();
    sim.running.shutdown().await;
    let gone = stripe(url, Mode::Charge, "sk_test_1").retrieve(&made.id).await;
    assert!(matches!(gone, Err(Failure::NotSent { .. })), "{gone:?}");
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_back() {
    let manners = Manners { too_many_rate: 1.0, retry_after_s: 7, ..Manners::default() };
    let sim = sim(|config| config.behaviour = misbehaves(Operation::Create, manners)).await;
    let stripe = stripe(sim.running.url(), Mode::Charge, "sk_test_1");
    let made = stripe.create_intent(FakeLedger::id(1), 1, euros(), "a").await;
    assert_eq!(made, Err(Failure::RateLimited { after: Duration::from_secs(7) }));
    sim.running.shutdown().await;
}

#[tokio::test]
async fn a_worker_sells_through_the_simulator_and_takes_its_webhooks() {
    for (method, mode, ending) in [
        ("pm_card_visa", Mode::Charge, Ending::Sold),
        ("pm_card_visa", Mode::AuthoriseThenCapture, Ending::Sold),
        ("pm_card_chargeDeclined", Mode::Charge, Ending::Released),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = format!("http://{}/webhooks/stripe", listener.local_addr().expect("bound"));
        let manners = Manners { charge_then_error_rate: 0.5, error_rate: 0.2, error_kept: false, ..Manners::default() };
        let sim = sim(|config| {
            config.webhook = Some(WebhookTo::new(to, "whsec_test"));
            config.behaviour = misbehaves(Operation::Create, manners);
        })
        .await;
        let world = World::new(mode, fake_provider::Manners::default(), None);
        let id = world.place(1, method, Duration::from_secs(600));
        let numbers = EngineNumbers { try_pauses: [Duration::from_millis(20); 3], ..EngineNumbers::default() };
        let provider = Arc::new(stripe(sim.running.url(), mode, "sk_test_1"));
        let seams = order_worker::seams::Seams::real();
        let ledger = Arc::clone(&world.ledger);
        let deps = Arc::new(Deps::new(ledger, provider, Arc::new(Nobody), world.keys.clone(), seams, numbers));
        let routes = webhooks(Http::new(Arc::clone(&deps), vec!["whsec_test".to_owned()]));
        let served = tokio::spawn(async { axum::serve(listener, routes).await });
        let worker = Engine::start(Arc::clone(&deps));
        let done = world.ledger.until(id, |record| record.phase == Phase::Done);
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("in time");
        assert_eq!(world.ledger.record(id).ending, ending, "{method} {mode:?}");
        assert_eq!(world.ledger.record(id).payments.len(), usize::from(ending == Ending::Sold));
        worker.shutdown(Duration::from_secs(5)).await;
        sim.running.shutdown().await;
        served.abort();
    }
}
