//! The engine: room, bulkheads, breakers, leases, shutting down; and what it does with what it cannot open.

use std::time::Duration;

use ledger_core::order::{Ending, Phase, WorkClass};
use order_worker::breaker::Standing;
use order_worker::engine::{Engine, EngineNumbers};
use order_worker::payment::Mode;
use tokio::time::Instant;

use crate::fake_provider::Manners;
use crate::world::World;

const LONG: Duration = Duration::from_secs(600);

fn slow(seconds: u64) -> Manners {
    Manners { slow: Some(Duration::from_secs(seconds)), ..Manners::default() }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_opens_the_breaker_and_orders_wait() {
    let down = Manners { down_until: Some(Instant::now() + Duration::from_secs(100)), ..Manners::default() };
    let world = World::new(Mode::Charge, down, None);
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    let breaker = || worker.deps().breaker(WorkClass::Money).standing();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(matches!(breaker(), Standing::Open(_)), "{:?}", breaker());
    let epoch = world.ledger.record(id).epoch;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.ledger.record(id).epoch <= epoch + 1, "it is not claimed again and again meanwhile");
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    assert_eq!(world.ledger.record(id).ending, Ending::Sold);
    assert_eq!(breaker(), Standing::Closed);
    worker.shutdown(Duration::from_secs(1)).await;
}

/// A worker whose provider is down for good, with many orders, at the moment when its breaker has
/// opened.
async fn behind_an_open_breaker(slow: Option<Duration>) -> (World, Engine) {
    let down = Manners { down_until: Some(Instant::now() + 100 * LONG), slow, ..Manners::default() };
    let world = World::new(Mode::Charge, down, None);
    world.ledger.restock(200);
    for n in 1..=200 {
        world.place(n, "pm_good", 10 * LONG);
    }
    let worker = Engine::start(world.deps(EngineNumbers { concurrency: [2, 2], ..EngineNumbers::default() }));
    let open = || matches!(worker.deps().breaker(WorkClass::Money).standing(), Standing::Open(_));
    while !open() {
        worker.deps().breaker(WorkClass::Money).changed().await;
    }
    // What was under way then has been given back.
    while worker.deps().in_flight() > 0 {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    assert!(open(), "it opened and has not been half open since");
    (world, worker)
}

#[tokio::test(start_paused = true)]
async fn half_open_claims_one_order_and_tries_it() {
    let (world, worker) = behind_an_open_breaker(None).await;
    let (claims, calls) = (world.ledger.claims(), world.provider.calls());
    tokio::time::sleep(LONG).await;
    let (claimed, called) = (world.ledger.claims() - claims, world.provider.calls() - calls);
    assert!((10..=20).contains(&called), "a probe for each opening: {called}");
    assert_eq!(claimed, called, "each order that is claimed is tried");
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn probe_in_flight_claims_nothing() {
    let (world, worker) = behind_an_open_breaker(Some(Duration::from_secs(4))).await;
    let breaker = worker.deps().breaker(WorkClass::Money);
    let claims = world.ledger.claims();
    while breaker.standing() != (Standing::HalfOpen { free: false }) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    breaker.changed().await;
    assert!(matches!(breaker.standing(), Standing::Open(_)), "the probe failed");
    assert_eq!(world.ledger.claims(), claims + 1, "the probe's order");
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn good_mail_does_not_hide_refused_payment_credentials() {
    let manners = Manners { refuses_payments: true, ..Manners::default() };
    let world = World::new(Mode::Charge, manners, None);
    world.ledger.restock(1);
    let paying = world.place(1, "pm_good", LONG);
    // Too near its deadline to be paid for: it expires, and its buyer learns that.
    let expiring = world.place(2, "pm_good", Duration::from_secs(5));
    let worker = world.worker();
    let health = &worker.deps().health;
    world.ledger.until(expiring, |record| record.phase == Phase::Done).await;
    assert!(health.refuses(WorkClass::Money), "mail that was taken says nothing about payments");
    assert!(!health.refuses(WorkClass::Mail));
    world.provider.take_credentials();
    world.ledger.until(paying, |record| record.phase == Phase::Done).await;
    assert!(!health.refuses(WorkClass::Money));
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_lease_that_a_slow_provider_would_outlast() {
    let world = World::new(Mode::Charge, slow(4), None);
    let id = world.place(1, "pm_good", LONG);
    let numbers = EngineNumbers { lease: Duration::from_secs(3), ..EngineNumbers::default() };
    let worker = Engine::start(world.deps(numbers));
    world.ledger.until(id, |record| record.phase == Phase::Sold).await;
    assert_eq!(world.ledger.record(id).epoch, 1, "one claim was enough for paying");
    worker.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn shutting_down_ends_what_runs_and_claims_no_more() {
    let world = World::new(Mode::Charge, slow(1), None);
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    world.ledger.until(id, |record| record.intent.is_some()).await;
    worker.shutdown(Duration::from_secs(10)).await;
    let record = world.ledger.record(id);
    assert_eq!((record.phase, record.lease), (Phase::Sold, None), "paid, and left to others to notify");
    assert_eq!(world.provider.charges(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_given_back_at_once() {
    let world = World::new(Mode::Charge, slow(4), None);
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    world.ledger.until(id, |record| record.intent.is_some()).await;
    let began = Instant::now();
    worker.shutdown(Duration::from_secs(1)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let record = world.ledger.record(id);
    assert_eq!((record.phase, record.lease), (Phase::Paying, None), "ready for others now");
    let follower = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    assert_eq!(world.provider.charges(), (1, 0));
    follower.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_only_waits_is_given_back_when_the_worker_stops() {
    let down = Manners { down_until: Some(Instant::now() + LONG), ..Manners::default() };
    let world = World::new(Mode::Charge, down, None);
    let id = world.place(1, "pm_good", LONG);
    let worker = world.worker();
    // Two failed calls: it waits a second now.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let began = Instant::now();
    worker.shutdown(Duration::from_secs(10)).await;
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(world.ledger.record(id).lease, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_destroyed_key_sealed_is_parked_with_a_clear_reason() {
    let mut world = World::new(Mode::Charge, Manners::default(), None);
    let id = world.place(1, "pm_good", LONG);
    let sealed_to = world.keys.sealing_keys().next().expect("a key").id();
    world.keys = [client_sdk::OpeningKey::generate()].into_iter().collect();
    let worker = world.worker();
    world.ledger.until(id, |record| record.phase == Phase::Parked).await;
    let why = world.ledger.record(id).parked.expect("a reason");
    assert!(why.contains(&sealed_to.to_string()) && why.contains("forgotten"), "{why}");
    assert_eq!((world.provider.charges(), world.ledger.free()), ((0, 0), 1));
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_was_lost_stops() {
    let world = World::new(Mode::Charge, slow(4), None);
    let id = world.place(1, "pm_good", LONG);
    let numbers = EngineNumbers { lease: Duration::from_secs(3), ..EngineNumbers::default() };
    let worker = Engine::start(world.deps(numbers));
    world.ledger.until(id, |record| record.phase == Phase::Paying).await;
    // Somebody else has it now, for long.
    world.ledger.with(id, |record| {
        record.epoch += 1;
        record.lease = Some(Instant::now() + Duration::from_secs(60));
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(worker.deps().in_flight(), 0);
    assert_eq!(world.provider.charges(), (0, 0));
    world.ledger.until(id, |record| record.phase == Phase::Done).await;
    assert_eq!(world.provider.charges(), (1, 0));
    worker.shutdown(Duration::from_secs(1)).await;
}
