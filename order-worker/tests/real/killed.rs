//! `kill -9` of a worker before and after each call and each report: another one finishes, and there is one charge.
//!
//! **What it is.** Each scenario is run once without a kill, to learn its boundaries; then once for each boundary, with a fresh order. The worker is a process of its
//! own, killed with SIGKILL while the call is held at the boundary, and followed by another. Its lease ends by itself.
//! **Owns** the scenarios, which boundaries each must have, and what must be true at the end. **Must never** ask a worker what happened: the provider's book, the
//! ledger and the sinks say it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use client_sdk::order::{ByHand, Ending, PaymentState, Phase, Report};
use client_sdk::{ReservationId, Sku};
use payment_sim::{Behaviour, Manners, Operation};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::lane::{Lane, MINOR, PATIENCE, mail_of};
use crate::observer::{Boundary, after, around, before};
use crate::provider::Hold;

/// Lanes beside each other: a run mostly waits for a lease to end.
const LANES: usize = 12;
/// Runs with a kill, at least.
const VISITED_MIN: usize = 160;
/// Telling the buyer, the same at the end of all scenarios.
const TELLING: [&str; 4] = ["claim mail", "mail", "webhook", "report notified"];

/// How the order comes to where the scenario begins.
#[derive(Debug, Clone, Copy)]
enum Begins {
    /// It was placed.
    Placed,
    /// A worker died there; its lease is over.
    Died(Boundary),
    /// A worker died there, and the buyer gave the order up.
    GivenUp(Boundary),
    /// A worker died there, and an operator wants the money to go back.
    AskedBack(Boundary),
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    method: &'static str,
    mode: &'static str,
    begins: Begins,
    /// The calls that it cannot do without, beside [`TELLING`].
    calls: &'static [&'static str],
    /// Only this call is visited; what comes besides is another scenario's.
    only: Option<&'static str>,
    /// The provider does it, and answers with an error.
    errs: Option<Operation>,
    ending: Ending,
}

const GOOD: &str = "pm_card_visa";

const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "paid at once",
        method: GOOD,
        mode: "charge",
        begins: Begins::Placed,
        calls: &["claim money", "create", "report intent", "confirm", "fact paid"],
        only: None,
        errs: None,
        ending: Ending::Sold,
    },
    Scenario {
        name: "declined",
        method: "pm_card_visa_chargeDeclined",
        mode: "charge",
        begins: Begins::Placed,
        calls: &["claim money", "create", "report intent", "confirm", "cancel", "report unpaid"],
        only: None,
        errs: None,
        ending: Ending::Released,
    },
    Scenario {
        name: "authorised, then captured",
        method: GOOD,
        mode: "authorise",
        begins: Begins::Placed,
        calls: &["claim money", "create", "report intent", "confirm", "capture", "fact paid"],
        only: None,
        errs: None,
        ending: Ending::Sold,
    },
    Scenario {
        name: "given back when an operator says so",
        method: GOOD,
        mode: "charge",
        begins: Begins::AskedBack(before("claim mail")),
        calls: &["claim money", "find refund", "refund", "fact refunded"],
        only: None,
        errs: None,
        ending: Ending::Refunded,
    },
    Scenario {
        name: "followed after a charge that nobody heard of",
        method: GOOD,
        mode: "charge",
        begins: Begins::Died(after("confirm")),
        calls: &["claim money", "look", "fact paid"],
        only: None,
        errs: None,
        ending: Ending::Sold,
    },
    Scenario {
        name: "given up by the buyer while it was being paid",
        method: GOOD,
        mode: "charge",
        begins: Begins::GivenUp(after("report intent")),
        calls: &["claim money", "look", "cancel", "report unpaid"],
        only: None,
        errs: None,
        ending: Ending::Released,
    },
    Scenario {
        name: "charged, and answered with an error",
        method: GOOD,
        mode: "charge",
        begins: Begins::Placed,
        calls: &["claim money", "create", "report intent", "confirm", "look", "fact paid"],
        only: None,
        errs: Some(Operation::Confirm),
        ending: Ending::Sold,
    },
    Scenario {
        name: "an intent made, and answered with an error",
        method: GOOD,
        mode: "charge",
        begins: Begins::Placed,
        calls: &["claim money", "create", "find", "report intent", "confirm", "fact paid"],
        only: None,
        errs: Some(Operation::Create),
        ending: Ending::Sold,
    },
    Scenario {
        name: "the buyer acts at the bank",
        method: "pm_card_authenticationRequired",
        mode: "charge",
        begins: Begins::Placed,
        calls: &["claim money", "create", "report intent", "confirm", "report await", "look", "fact paid"],
        only: None,
        errs: None,
        ending: Ending::Sold,
    },
    Scenario {
        name: "a lease that is renewed while the provider takes its time",
        method: GOOD,
        mode: "charge",
        begins: Begins::Placed,
        calls: &["heartbeat"],
        only: Some("heartbeat"),
        errs: None,
        ending: Ending::Sold,
    },
];

impl Scenario {
    /// What is passed in a run without a kill, and where a worker is killed.
    fn boundaries(&self) -> BTreeSet<Boundary> {
        let calls: Vec<&'static str> = match self.only {
            Some(only) => vec![only],
            None => self.calls.iter().chain(&TELLING).copied().collect(),
        };
        calls.into_iter().flat_map(around).collect()
    }
    fn behaviour(&self) -> Behaviour {
        let manners = Manners { charge_then_error_rate: 1.0, ..Manners::default() };
        let operations = self.errs.map(|operation| (operation, manners)).into_iter().collect();
        Behaviour { operations, ..Behaviour::default() }
    }
    fn hold(&self) -> Option<Hold> {
        let only = self.only.filter(|only| *only == "heartbeat")?;
        Some(Hold { call: "confirm", until: after(only) })
    }
}

/// Brings an order to where its scenario begins.
async fn begin(lane: &Lane, scenario: &Scenario) -> (ReservationId, Sku) {
    let (id, sku) = lane.place(scenario.method).await;
    lane.observer.look_away();
    match scenario.begins {
        Begins::Placed => {}
        Begins::Died(at) | Begins::GivenUp(at) | Begins::AskedBack(at) => {
            lane.observer.watch(Some(at));
            let worker = lane.worker(scenario.mode);
            timeout(PATIENCE, lane.observer.reached()).await.expect("a worker comes there");
            worker.kill().await;
            lane.observer.bury();
            lane.observer.look_away();
        }
    }
    let then = match scenario.begins {
        Begins::Placed => true,
        Begins::Died(_) => {
            // As if its lease had ended; that leases end is what the other scenarios wait for.
            let view = lane.client.order(id).await.ok().flatten().expect("it is there");
            lane.client.report(id, view.brief.epoch, Report::GiveBack { after_ms: 0 }).await.is_ok()
        }
        Begins::GivenUp(_) => lane.client.release(id).await.is_ok(),
        Begins::AskedBack(_) => lane.client.order_by_hand(id, ByHand::Refund, "asked back").await.is_ok(),
    };
    assert!(then, "{}: {:?}", scenario.name, lane.client.order(id).await);
    (id, sku)
}

/// The buyer does what the bank asks for, once it does; never returns.
async fn buyer(lane: &Lane, id: ReservationId) {
    if let Some(view) = lane.client.wait_for(id, PATIENCE).await.ok()
        && view.brief.phase == Phase::AwaitingBuyer
    {
        let secret = lane.reply.client_secret(id, &view.secret.expect("what the buyer needs")).expect("sealed to it");
        lane.provider.authenticate(&secret).await;
        assert!(lane.client.order_by_hand(id, ByHand::Resume, "the buyer is back").await.is_ok());
    }
    std::future::pending().await
}

/// Runs a scenario, with a kill at a boundary or without, and judges how it ended. What was passed.
async fn run(lane: &Lane, scenario: &Scenario, at: Option<Boundary>) -> Vec<Boundary> {
    let tell = |what: &str| match at {
        Some(at) => format!("{}, killed {at}: {what}", scenario.name),
        None => format!("{}: {what}", scenario.name),
    };
    let (id, sku) = begin(lane, scenario).await;
    lane.proxy.hold(scenario.hold());
    lane.provider.behave(&scenario.behaviour()).await;
    let passed = tokio::select! {
        passed = course(lane, scenario, id, at, &tell) => passed,
        () = buyer(lane, id) => unreachable!("the buyer stays"),
    };
    lane.provider.behave(&Behaviour::default()).await;
    judge(lane, scenario, (id, &sku), &tell).await;
    passed
}

/// From the first worker's start until the order is done. What was passed.
async fn course(
    lane: &Lane,
    scenario: &Scenario,
    id: ReservationId,
    at: Option<Boundary>,
    tell: &impl Fn(&str) -> String,
) -> Vec<Boundary> {
    lane.observer.watch(at);
    let mut worker = lane.worker(scenario.mode);
    if at.is_some() {
        timeout(PATIENCE, lane.observer.reached()).await.unwrap_or_else(|_| panic!("{}", tell("it never came there")));
        worker.kill().await;
        lane.observer.bury();
        worker = lane.worker(scenario.mode);
    }
    assert!(lane.told(id).await, "{}: {:#?}", tell("the buyer is not told"), lane.client.order(id).await);
    // The ledger says that it is done; its worker may hear of it yet.
    if at.is_none() {
        let heard = timeout(PATIENCE, lane.observer.until(after("report notified"))).await;
        assert!(heard.is_ok(), "{}", tell("its worker never heard that it is done"));
    }
    worker.kill().await;
    let passed = lane.observer.seen();
    lane.observer.look_away();
    passed
}

/// What must be true of every order that has ended.
async fn judge(lane: &Lane, scenario: &Scenario, (id, sku): (ReservationId, &Sku), tell: &impl Fn(&str) -> String) {
    let view = lane.client.wait_for(id, PATIENCE).await.ok().unwrap_or_else(|| panic!("{}", tell("it has not ended")));
    assert_eq!((view.brief.phase, view.brief.ending), (Phase::Done, scenario.ending), "{}", tell("how it ended"));
    let states: Vec<PaymentState> = view.payments.iter().map(|payment| payment.state).collect();
    let (states_then, captured, refunded, sold) = match scenario.ending {
        Ending::Sold => (vec![PaymentState::Kept], MINOR, 0, 1),
        // An operator who gives money back decides about the goods apart.
        Ending::Refunded => (vec![PaymentState::Refunded], MINOR, MINOR, 1),
        _ => (Vec::new(), 0, 0, 0),
    };
    assert_eq!(states, states_then, "{}", tell("payments, as the ledger has them"));

    let intents = lane.provider.of(&id.to_string()).await;
    let [intent] = &intents[..] else { panic!("{}: {intents:#?}", tell("one intent")) };
    let charges = intent.charges.iter().filter(|charge| charge.state == "paid").count();
    let open = intent.charges.iter().filter(|charge| charge.state == "authorized").count();
    assert_eq!((charges, open), (usize::from(captured > 0), 0), "{}: {intent:#?}", tell("charges"));
    assert_eq!((intent.captured, intent.refunded), (captured, refunded), "{}: {intent:#?}", tell("money"));
    assert_eq!(intent.refunds.len(), usize::from(refunded > 0), "{}: {intent:#?}", tell("refunds"));
    let idle = ["succeeded", "canceled", "requires_payment_method"].contains(&intent.status.as_str());
    assert!(idle, "{}: {intent:#?}", tell("something is pending"));

    let stock = lane.client.stock(sku).await.ok().flatten().expect("known").balance;
    assert_eq!((stock.available, stock.held, stock.sold), (1 - sold, 0, sold), "{}", tell("units"));

    let key = format!("{id}-{}", scenario.ending.name());
    for (way, told) in [("mails", lane.mails.to(&mail_of(id))), ("webhooks", lane.hooks.of(&id.to_string()))] {
        // One worker died: at most one message went out twice.
        let good = (1..=2).contains(&told.len()) && told.iter().all(|one| *one == key);
        assert!(good, "{}: {told:?}", tell(&format!("{way}: told, and doubles have one key")));
    }
}

/// Does all jobs, on the lanes beside each other; what came of each.
async fn share<J: Copy + Send + 'static, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    lanes: &[Arc<Lane>],
    jobs: &[J],
    run: impl Fn(Arc<Lane>, J) -> F + Copy + Send + 'static,
) -> Vec<(J, T)> {
    let left = Arc::new(Mutex::new(jobs.iter().rev().copied().collect::<Vec<J>>()));
    let mut runs = JoinSet::new();
    for lane in lanes {
        let (lane, left) = (Arc::clone(lane), Arc::clone(&left));
        runs.spawn(async move {
            let mut came = Vec::new();
            loop {
                let job = left.lock().expect("nobody panicked").pop();
                let Some(job) = job else { return came };
                came.push((job, run(Arc::clone(&lane), job).await));
            }
        });
    }
    let mut came = Vec::new();
    while let Some(all) = runs.join_next().await {
        match all {
            Ok(all) => came.extend(all),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_boundary_is_followed_by_another_and_there_is_one_charge() {
    let began = Instant::now();
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        lanes.push(Arc::new(Lane::open().await));
    }
    let plain: Vec<(usize, Option<Boundary>)> = (0..SCENARIOS.len()).map(|n| (n, None)).collect();
    let go = |lane: Arc<Lane>, (n, at): (usize, Option<Boundary>)| async move { run(&lane, &SCENARIOS[n], at).await };
    let mut kills = Vec::new();
    let visited: BTreeSet<Boundary> = SCENARIOS.iter().flat_map(Scenario::boundaries).collect();
    for ((n, _), passed) in share(&lanes, &plain, go).await {
        let (scenario, boundaries) = (&SCENARIOS[n], SCENARIOS[n].boundaries());
        let missing: Vec<&Boundary> = boundaries.iter().filter(|one| !passed.contains(one)).collect();
        assert!(missing.is_empty(), "{}: not passed: {missing:?}, but {passed:?}", scenario.name);
        // On a slow machine a lease is renewed here or there; whatever comes besides is visited in another scenario.
        let unvisited: Vec<&Boundary> = passed.iter().filter(|one| !visited.contains(one)).collect();
        assert!(unvisited.is_empty(), "{}: passed and never visited: {unvisited:?}", scenario.name);
        kills.extend(boundaries.into_iter().map(|at| (n, Some(at))));
    }
    println!("{} runs without a kill in {:.1} s", SCENARIOS.len(), began.elapsed().as_secs_f64());
    // A run with a kill has been at its boundary, or it failed.
    let visited = share(&lanes, &kills, go).await;
    assert_eq!(visited.len(), SCENARIOS.iter().map(|scenario| scenario.boundaries().len()).sum::<usize>());
    for scenario in &SCENARIOS {
        let list: Vec<String> = scenario.boundaries().iter().map(ToString::to_string).collect();
        println!("{} ({}): {}", scenario.name, list.len(), list.join(", "));
    }
    println!("{} boundaries, a worker killed at each, in {:.1} s", visited.len(), began.elapsed().as_secs_f64());
    assert!(visited.len() >= VISITED_MIN, "{}", visited.len());
}
