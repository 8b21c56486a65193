//! The engine: claims orders and runs them.
//!
//! **What it is.** One loop for each class of work (money, mail), each with its own bulkhead and breaker, so that neither waits for the
//! other. A loop claims as many orders as it has room for, and each runs in a task of its own ([`run`]).
//!
//! **Owns** leases and how many run at once. **Must never** keep anything that a crash would lose: kill it anywhere, and the leases end and
//! others go on. **Read next**: [`run`].

pub mod run;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client_sdk::OpeningKeys;
use ledger_core::ReservationId;
use ledger_core::order::{Claimed, Report, WorkClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::breaker::{Breaker, BreakerNumbers, Pass, Standing};
use crate::ledger::{Ledger, Told, Want};
use crate::limits::PROBE_LOOK;
use crate::metrics::WorkerMetrics;
use crate::notify::Notifier;
use crate::payment::PaymentProvider;
use crate::seams::Seams;
use crate::step::{Numbers, millis};

/// The engine's numbers, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineNumbers {
    /// Those of the steps.
    pub steps: Numbers,
    /// Orders of money, and of mail, that run at once.
    pub concurrency: [usize; 2],
    /// Orders one claim asks for at most.
    pub claim_max: u32,
    /// How long a lease lasts.
    pub lease: Duration,
    /// What one attempt to pay needs.
    pub attempt: Duration,
    /// Longest call of a dependency.
    pub call_timeout: Duration,
    /// Pauses before the tries within a run; the last one repeats.
    pub try_pauses: [Duration; 3],
    /// Pause when the queue is empty, at first ...
    pub poll_min: Duration,
    /// ... and at last.
    pub poll_max: Duration,
    /// The breaker's.
    pub breaker: BreakerNumbers,
}

impl Default for EngineNumbers {
    fn default() -> Self {
        Self {
            steps: Numbers::default(),
            concurrency: [64, 32],
            claim_max: 64,
            lease: Duration::from_secs(30),
            attempt: Duration::from_secs(6),
            call_timeout: Duration::from_secs(5),
            try_pauses: [500, 1_000, 2_000].map(Duration::from_millis),
            poll_min: Duration::from_millis(20),
            poll_max: Duration::from_millis(200),
            breaker: BreakerNumbers::default(),
        }
    }
}

/// All that runs need.
pub struct Deps {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The payment provider.
    pub provider: Arc<dyn PaymentProvider>,
    /// The way to tell buyers.
    pub notifier: Arc<dyn Notifier>,
    /// What opens sealed boxes.
    pub keys: OpeningKeys,
    /// Chance and the time of day.
    pub seams: Seams,
    /// Numbers.
    pub numbers: EngineNumbers,
    /// What is counted.
    pub metrics: Arc<WorkerMetrics>,
    /// What `/readyz` tells.
    pub health: Health,
    breakers: [Breaker; 2],
    in_flight: Mutex<BTreeMap<ReservationId, u32>>,
}

/// Whether the worker is of use just now.
#[derive(Debug, Default)]
pub struct Health {
    /// The ledger answered the last claim.
    pub ledger: AtomicBool,
    /// The dependency of a class refuses the credentials it is given.
    credentials_refused: [AtomicBool; 2],
    /// It was asked to stop.
    pub stopping: AtomicBool,
}

impl Health {
    /// Whether the dependency of a class refused its credentials, and has not taken them since.
    pub fn refuses(&self, class: WorkClass) -> bool {
        self.credentials_refused[place(class)].load(Ordering::Relaxed)
    }
    fn set_refuses(&self, class: WorkClass, refuses: bool) {
        self.credentials_refused[place(class)].store(refuses, Ordering::Relaxed);
    }
}

impl Deps {
    /// Puts them together.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        provider: Arc<dyn PaymentProvider>,
        notifier: Arc<dyn Notifier>,
        keys: OpeningKeys,
        seams: Seams,
        numbers: EngineNumbers,
    ) -> Self {
        let breakers = [Breaker::new(numbers.breaker), Breaker::new(numbers.breaker)];
        let metrics = Arc::new(WorkerMetrics::new());
        Self {
            ledger,
            provider,
            notifier,
            keys,
            seams,
            numbers,
            metrics,
            health: Health::default(),
            breakers,
            in_flight: Mutex::new(BTreeMap::new()),
        }
    }
    /// The breaker of a class's dependency.
    pub fn breaker(&self, class: WorkClass) -> &Breaker {
        &self.breakers[place(class)]
    }
    /// Orders this worker has under lease.
    pub fn in_flight(&self) -> usize {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
    fn begin(&self, id: ReservationId, epoch: u32) {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(id, epoch);
    }
    fn end(&self, id: ReservationId, epoch: u32) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight.get(&id) == Some(&epoch) {
            in_flight.remove(&id);
        }
    }
    fn take_in_flight(&self) -> BTreeMap<ReservationId, u32> {
        std::mem::take(&mut *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn place(class: WorkClass) -> usize {
    match class {
        WorkClass::Money => 0,
        WorkClass::Mail => 1,
    }
}

/// A running engine.
pub struct Engine {
    deps: Arc<Deps>,
    stop: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts both loops.
    pub fn start(deps: Arc<Deps>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let loops = [WorkClass::Money, WorkClass::Mail]
            .map(|class| tokio::spawn(work(Arc::clone(&deps), class, stopping.clone())))
            .into();
        Self { deps, stop, loops }
    }

    /// What it runs with.
    pub fn deps(&self) -> &Arc<Deps> {
        &self.deps
    }

    /// Stops claiming, lets what runs come to an end (what only waits is given back at once), and gives back what is left after `within`.
    pub async fn shutdown(self, within: Duration) {
        self.deps.health.stopping.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + within;
        for mut ended in self.loops {
            if tokio::time::timeout_at(deadline, &mut ended).await.is_err() {
                // Its runs end with it, wherever they are: whoever claims the orders next looks up what became of them.
                ended.abort();
                let _ = ended.await;
            }
        }
        let left = self.deps.take_in_flight();
        if left.is_empty() {
            return;
        }
        tracing::warn!(orders = left.len(), "giving leases back that did not end in time");
        let mut given = JoinSet::new();
        for (id, epoch) in left {
            let ledger = Arc::clone(&self.deps.ledger);
            given.spawn(async move { ledger.report(id, epoch, Report::GiveBack { after_ms: 0 }).await });
        }
        let all = async { while given.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }

    /// Ends it as a power cut would: nothing is given back, nothing more is said.
    pub async fn kill(self) {
        for ended in self.loops {
            ended.abort();
            let _ = ended.await;
        }
    }
}

/// Claims and runs orders of one class until told to stop; then until its runs have ended.
async fn work(deps: Arc<Deps>, class: WorkClass, mut stopping: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(deps.numbers.concurrency[place(class)]));
    let (mut runs, mut idle) = (JoinSet::new(), 0);
    let stop = stopping.clone();
    loop {
        while runs.try_join_next().is_some() {}
        let first = tokio::select! {
            biased;
            () = until_stopped(&mut stopping) => break,
            first = Arc::clone(&room).acquire_owned() => first,
        };
        let Ok(first) = first else { break };
        let probe = tokio::select! {
            biased;
            () = until_stopped(&mut stopping) => break,
            probe = until_admitted(deps.breaker(class)) => probe,
        };
        // Not interrupted: what it is given would stay leased to nobody.
        let pause = claim(&deps, class, probe, (first, &room), &mut runs, &mut idle, &stop).await;
        tokio::select! {
            biased;
            () = until_stopped(&mut stopping) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    while runs.join_next().await.is_some() {}
}

async fn until_stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Waits until calls may be made; gives leave for the one that probes, if only that may. Orders
/// wait in the ledger meanwhile, where their deadlines are kept.
async fn until_admitted(breaker: &Breaker) -> Option<Pass> {
    loop {
        let changed = breaker.changed();
        let within = match breaker.standing() {
            Standing::Closed => return None,
            Standing::Open(left) => left,
            Standing::HalfOpen { .. } => match breaker.probe() {
                Some(pass) => return Some(pass),
                None => PROBE_LOOK,
            },
        };
        let _over = tokio::time::timeout(within.min(PROBE_LOOK), changed).await;
    }
}

/// Claims as many orders as there is room for, or one to probe with, and starts them. Gives how
/// long to wait before the next claim.
async fn claim(
    deps: &Arc<Deps>,
    class: WorkClass,
    mut probe: Option<Pass>,
    (first, room): (OwnedSemaphorePermit, &Arc<Semaphore>),
    runs: &mut JoinSet<()>,
    idle: &mut u32,
    stopping: &watch::Receiver<bool>,
) -> Duration {
    let numbers = &deps.numbers;
    let most = if probe.is_some() { 1 } else { numbers.claim_max as usize };
    let mut permits = vec![first];
    while permits.len() < most
        && let Ok(permit) = Arc::clone(room).try_acquire_owned()
    {
        permits.push(permit);
    }
    let (lease_ms, attempt_ms) = (millis(numbers.lease), millis(numbers.attempt));
    let backoff = |idle: &mut u32| {
        *idle = idle.saturating_add(1);
        deps.seams.pause(numbers.poll_min, numbers.poll_max, *idle - 1)
    };
    let answer = deps.ledger.claim(Want { class, max: permits.len() as u32, lease_ms, attempt_ms }).await;
    deps.health.ledger.store(matches!(answer, Told::Ok(_)), Ordering::Relaxed);
    match answer {
        Told::Ok(orders) if orders.is_empty() => backoff(idle),
        Told::Ok(orders) => {
            *idle = 0;
            deps.metrics.claimed(class, orders.len());
            // An order with which nothing could be tried is not followed by the next at once.
            let pause = if probe.is_some() { numbers.poll_max } else { Duration::ZERO };
            for (order, permit) in orders.into_iter().zip(permits) {
                start(deps, order, probe.take(), permit, runs, stopping.clone());
            }
            pause
        }
        Told::NotNow { after, why } => {
            tracing::debug!(%why, "no claim now");
            backoff(idle).max(after)
        }
        Told::Unknown { why } => {
            tracing::debug!(%why, "the claim's answer was lost; its leases will end");
            backoff(idle)
        }
        Told::Refused { why } => {
            tracing::warn!(%why, "the ledger refuses claims");
            Duration::from_secs(1)
        }
    }
}

fn start(
    deps: &Arc<Deps>,
    order: Claimed,
    probe: Option<Pass>,
    permit: OwnedSemaphorePermit,
    runs: &mut JoinSet<()>,
    stopping: watch::Receiver<bool>,
) {
    let deps = Arc::clone(deps);
    let (id, epoch) = (order.id, order.epoch);
    deps.begin(id, epoch);
    runs.spawn(async move {
        run::run(&deps, order, probe, stopping).await;
        deps.end(id, epoch);
        drop(permit);
    });
}
