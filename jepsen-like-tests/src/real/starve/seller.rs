//! The seller that must not notice: reservations in an open loop, and one a second over a new connection.
//!
//! **Owns** what its calls came to, by phase: a call belongs to the phase in which it was due. **Must never** leave out a call because it
//! is late. **Read next**: [`super`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client_sdk::{Client, Outcome, Reservation, Sku};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A call without an answer by then has none.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Longer than any measurement: nothing expires within it.
pub(super) const HOLD: Duration = Duration::from_secs(24 * 3_600);
/// More calls than that do not wait at once: a rate that is not reached would only fill memory.
const WAITING_MAX: usize = 50_000;
/// From one new connection to the next.
const NEW_CONNECTION_EVERY: Duration = Duration::from_secs(1);

/// What the calls of one phase came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Of each call that was answered at all, microseconds from when it was due.
    pub(super) micros: Vec<u32>,
    /// Reserved.
    pub(super) ok: u64,
    /// Refused; nothing should be.
    pub(super) refused: u64,
    /// Turned away until its deadline.
    pub(super) not_now: u64,
    /// Without a definite answer.
    pub(super) unknown: u64,
    /// Microseconds of each reservation over connections of its own, those included.
    pub(super) new_connections: Vec<u32>,
    /// Of these, without a reservation.
    pub(super) new_connections_failed: u64,
    /// One of the answers that were not reservations.
    pub(super) example: Option<String>,
}

impl Tally {
    /// Calls that were not reserved.
    pub(super) fn failed(&self) -> u64 {
        self.refused + self.not_now + self.unknown
    }
}

/// A seller, its product, and what its calls came to. The first phase is not measured: calibration, and what lies between the others.
pub(super) struct Seller {
    client: Client,
    endpoints: Vec<String>,
    sku: Sku,
    phase: AtomicUsize,
    stops: AtomicBool,
    tallies: Mutex<Vec<Tally>>,
}

impl Seller {
    pub(super) fn new(client: Client, endpoints: Vec<String>, sku: Sku) -> Arc<Self> {
        let tallies = Mutex::new(vec![Tally::default()]);
        Arc::new(Self { client, endpoints, sku, phase: AtomicUsize::new(0), stops: AtomicBool::new(false), tallies })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase; says its number.
    pub(super) fn begin_phase(&self) -> usize {
        let mut tallies = self.lock();
        tallies.push(Tally::default());
        self.phase.store(tallies.len() - 1, Relaxed);
        tallies.len() - 1
    }

    /// Ends it: what is due from now on is not measured.
    pub(super) fn end_phase(&self) {
        self.phase.store(0, Relaxed);
    }

    /// Makes no more calls.
    pub(super) fn stop(&self) {
        self.stops.store(true, Relaxed);
    }

    /// What the calls came to, by phase.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        self.lock().clone()
    }

    /// Calls answered so far, of all phases.
    pub(super) fn answered(&self) -> u64 {
        self.lock().iter().map(|tally| tally.micros.len() as u64).sum()
    }

    async fn reserve(&self, client: &Client) -> Outcome<Reservation> {
        let id = client.mint_for(&self.sku);
        client.reserve(id, format!("buyer-{id}")).line(&self.sku, 1).hold_for(HOLD).deadline(CALL_WITHIN).await
    }

    /// A reservation that is due now, or was.
    async fn call(&self, due: Instant, phase: usize) {
        let outcome = self.reserve(&self.client).await;
        let micros = due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32;
        let mut tallies = self.lock();
        let tally = &mut tallies[phase];
        tally.micros.push(micros);
        match &outcome {
            Outcome::Ok(_) => return tally.ok += 1,
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::NotNow(_) => tally.not_now += 1,
            Outcome::Unknown(_) => tally.unknown += 1,
        }
        tally.example.get_or_insert_with(|| match outcome {
            Outcome::Ok(_) => String::new(),
            Outcome::Refused(why) => format!("refused: {why}"),
            Outcome::NotNow(why) => format!("not now: {why}"),
            Outcome::Unknown(why) => format!("unknown: {why}"),
        });
    }

    /// So many callers, each with one call at a time; calls a second that they reach.
    pub(super) async fn calibrate(self: &Arc<Self>, callers: usize, lasts: Duration) -> f64 {
        let began = Instant::now();
        let before = self.answered();
        let mut calling = JoinSet::new();
        for _ in 0..callers {
            let seller = self.clone();
            calling.spawn(async move {
                while began.elapsed() < lasts {
                    seller.call(Instant::now(), 0).await;
                }
            });
        }
        while calling.join_next().await.is_some() {}
        (self.answered() - before) as f64 / began.elapsed().as_secs_f64()
    }

    /// Sells `rate` times a second until it stops, whatever the answers take.
    pub(super) async fn sell(self: Arc<Self>, rate: f64) {
        let began = Instant::now();
        let mut ticks = interval(Duration::from_millis(1));
        let (mut sent, mut calling) = (0_u64, JoinSet::new());
        while !self.stops.load(Relaxed) {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            while sent < due && calling.len() < WAITING_MAX {
                let at = began + Duration::from_secs_f64(sent as f64 / rate);
                let (seller, phase) = (self.clone(), self.phase.load(Relaxed));
                calling.spawn(async move { seller.call(at, phase).await });
                sent += 1;
            }
            while calling.try_join_next().is_some() {}
        }
        while calling.join_next().await.is_some() {}
    }

    /// Connects anew every second, and reserves once.
    pub(super) async fn sell_over_new_connections(self: Arc<Self>) {
        let mut ticks = interval(NEW_CONNECTION_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stops.load(Relaxed) {
            let began = ticks.tick().await;
            let phase = self.phase.load(Relaxed);
            let reserved = match Client::connect(self.endpoints.clone()).await {
                Ok(client) => {
                    let outcome = self.reserve(&client).await;
                    client.close().await;
                    outcome.is_ok()
                }
                Err(_) => false,
            };
            let mut tallies = self.lock();
            let tally = &mut tallies[phase];
            tally.new_connections.push(began.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
            match reserved {
                true => tally.ok += 1,
                false => tally.new_connections_failed += 1,
            }
        }
    }
}
