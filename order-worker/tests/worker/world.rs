//! A ledger, a provider, a buyer and workers; scenarios and what must be true when they end.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use client_sdk::{Contact, OpeningKey, OpeningKeys, PaymentToken};
use ledger_core::ReservationId;
use ledger_core::order::{Ending, PaymentState, Phase, Sealed};
use order_worker::engine::{Deps, Engine, EngineNumbers};
use order_worker::ledger::Ledger as _;
use order_worker::payment::{IntentStatus, Mode};
use order_worker::seams::Seams;

use crate::cut::{Cut, Fault};
use crate::fake_ledger::FakeLedger;
use crate::fake_provider::{FakeProvider, Manners};

/// What happens besides the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Besides {
    Nothing,
    /// The buyer acts at the bank, and the webhook comes.
    BuyerActs,
    /// The buyer does not manage to, and the webhook comes.
    BuyerFails,
    /// The buyer never comes back.
    BuyerAway,
    /// Somebody else takes all stock as soon as it is free.
    SoldOutWhenLate,
    /// The intent is cancelled in the provider's dashboard while the worker is not looking.
    CancelledByHand,
}

/// One course of events.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) mode: Mode,
    pub(crate) manners: Manners,
    pub(crate) down_for: Duration,
    pub(crate) pay_within: Duration,
    pub(crate) besides: Besides,
    /// How it may end; faults can make it late.
    pub(crate) endings: &'static [Ending],
}

impl Scenario {
    pub(crate) fn new(name: &'static str, method: &'static str, endings: &'static [Ending]) -> Self {
        Self {
            name,
            method,
            mode: Mode::Charge,
            manners: Manners::default(),
            down_for: Duration::ZERO,
            pay_within: Duration::from_secs(600),
            besides: Besides::Nothing,
            endings,
        }
    }
}

pub(crate) struct World {
    pub(crate) cut: Arc<Cut>,
    pub(crate) ledger: Arc<FakeLedger>,
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) keys: OpeningKeys,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) seed: u64,
}

impl World {
    pub(crate) fn new(mode: Mode, manners: Manners, armed: Option<(usize, Fault)>) -> Self {
        let cut = Arc::new(Cut::new(armed));
        let key: OpeningKey = format!("holdfast-open-1:{}", "07".repeat(32)).parse().expect("a key");
        Self {
            ledger: Arc::new(FakeLedger::new(1, Arc::clone(&cut))),
            provider: Arc::new(FakeProvider::new(mode, manners, Arc::clone(&cut))),
            keys: [key].into_iter().collect(),
            clock: Arc::new(AtomicU64::new(1_700_000_000)),
            cut,
            seed: 1,
        }
    }
    pub(crate) fn place(&self, n: u64, method: &str, pay_within: Duration) -> ReservationId {
        let id = FakeLedger::id(n);
        let (payment, contact) = self.sealed(id, method);
        self.ledger.place(n, pay_within, payment, contact)
    }
    fn sealed(&self, id: ReservationId, method: &str) -> (Sealed, Sealed) {
        let key = self.keys.sealing_keys().next().expect("a key");
        let contact = Contact { email: Some("anna@example.com".into()), ..Contact::default() };
        let token = PaymentToken::new(method);
        (key.payment(id, &token).expect("short"), key.contact(id, &contact).expect("short"))
    }
    pub(crate) fn deps(&self, numbers: EngineNumbers) -> Arc<Deps> {
        let seams = Seams::simulated(self.seed, Arc::clone(&self.clock));
        let (ledger, provider) = (Arc::clone(&self.ledger), Arc::clone(&self.provider));
        let notifier = Arc::clone(&self.provider);
        Arc::new(Deps::new(ledger, provider, notifier, self.keys.clone(), seams, numbers))
    }
    pub(crate) fn worker(&self) -> Engine {
        Engine::start(self.deps(EngineNumbers::default()))
    }
}

/// How a run ended.
pub(crate) struct Ended {
    /// Boundaries that were passed by the last worker.
    pub(crate) boundaries: usize,
    pub(crate) ending: Ending,
}

/// What else happens while the worker works.
async fn besides(world: &World, id: ReservationId, what: Besides) {
    let ledger = &world.ledger;
    match what {
        Besides::Nothing | Besides::BuyerAway => {}
        Besides::BuyerActs | Besides::BuyerFails => loop {
            ledger.until(id, |record| record.phase == Phase::AwaitingBuyer).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            if world.provider.buyer_acts(what == Besides::BuyerActs).is_none() {
                break;
            }
            let _ = ledger.resume(id).await;
        },
        Besides::SoldOutWhenLate => {
            ledger.until(id, |record| !record.phase.holds()).await;
            if ledger.free() > 0 {
                ledger.sell_out();
            }
        }
        Besides::CancelledByHand => {
            ledger.until(id, |record| record.intent.is_some()).await;
            world.provider.cancel_by_hand();
        }
    }
    std::future::pending().await
}

/// Runs a scenario with a fault at a boundary (and, once the first worker died, another one for its follower), and judges how it ended.
pub(crate) async fn run(scenario: &Scenario, first: Option<(usize, Fault)>, second: Option<(usize, Fault)>) -> Ended {
    run_with(scenario, first, second, false).await
}

/// The same, with every call made twice.
pub(crate) async fn run_twice(scenario: &Scenario) -> Ended {
    run_with(scenario, None, None, true).await
}

async fn run_with(
    scenario: &Scenario,
    first: Option<(usize, Fault)>,
    second: Option<(usize, Fault)>,
    twice: bool,
) -> Ended {
    let mut manners = scenario.manners.clone();
    if !scenario.down_for.is_zero() {
        manners.down_until = Some(tokio::time::Instant::now() + scenario.down_for);
    }
    let world = World::new(scenario.mode, manners, first);
    world.cut.twice.store(twice, std::sync::atomic::Ordering::Relaxed);
    let id = world.place(1, scenario.method, scenario.pay_within);
    let tell = |what: &str| format!("{}: {first:?} {second:?} {what}\n{}", scenario.name, world.cut.passed());
    let all = async {
        let mut faults = [second, None].into_iter();
        loop {
            let worker = world.worker();
            let done = world.ledger.until(id, |record| matches!(record.phase, Phase::Done | Phase::Parked));
            tokio::select! {
                biased;
                () = world.cut.crashed() => {
                    worker.kill().await;
                    world.cut.arm(faults.next().flatten());
                }
                () = done => {
                    worker.shutdown(Duration::from_secs(10)).await;
                    return;
                }
            }
        }
    };
    let within = async {
        tokio::select! {
            () = all => {}
            () = besides(&world, id, scenario.besides) => {}
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(12 * 3_600), within).await;
    assert!(in_time.is_ok(), "{}", tell(&format!("never ended: {:#?}", world.ledger.record(id))));
    judge(scenario, &world, id, &tell);
    Ended { boundaries: world.cut.count(), ending: world.ledger.record(id).ending }
}

/// What must be true of every ended order.
fn judge(scenario: &Scenario, world: &World, id: ReservationId, tell: &impl Fn(&str) -> String) {
    let record = world.ledger.record(id);
    assert_eq!(record.phase, Phase::Done, "{}", tell(&format!("{:?}", record.parked)));
    assert!(scenario.endings.contains(&record.ending), "{}", tell(&format!("ended {:?}", record.ending)));
    let (charges, refunds) = world.provider.charges();
    let kept = record.payments.iter().filter(|payment| payment.state == PaymentState::Kept).count();
    match record.ending {
        Ending::Sold => {
            assert_eq!((charges - refunds, kept), (1, 1), "{}", tell("sold is charged once"));
            assert_eq!(world.ledger.free(), 0, "{}", tell("sold stock is gone"));
        }
        Ending::Released | Ending::Expired => {
            assert_eq!((charges - refunds, kept), (0, 0), "{}", tell("not sold is not charged"));
            let stock = u64::from(scenario.besides != Besides::SoldOutWhenLate);
            assert_eq!(world.ledger.free(), stock, "{}", tell("its stock came back"));
        }
        Ending::Refunded => assert_eq!((charges, refunds, kept), (1, 1, 0), "{}", tell("given back once")),
        Ending::Open | Ending::Closed => panic!("{}", tell("no ending")),
    }
    assert!(charges <= 1, "{}", tell("at most one charge"));
    for intent in world.provider.intents() {
        let reported = record.intent.as_ref() == Some(&intent.id);
        let idle = matches!(intent.status, IntentStatus::Succeeded | IntentStatus::Canceled)
            || (intent.status == IntentStatus::Unconfirmed && !reported);
        assert!(idle, "{}", tell(&format!("something is still pending: {intent:?}")));
    }
    let notifications = world.provider.notifications();
    assert!(!notifications.is_empty(), "{}", tell("the buyer was told"));
    assert!(notifications.iter().all(|key| *key == notifications[0]), "{}", tell("doubles have one key"));
}
