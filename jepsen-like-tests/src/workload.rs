//! The clients of a run: a herd on one product and a mix over others, journalled by the clients themselves.
//!
//! **Owns** what is asked and the journal of answers. **Must never** resolve an unknown by a fence, which would change it.
//! **Read next**: [`crate::history`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_sdk::{Client, OfferKey, Outcome, Policy, ReservationId, Sku};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::history::{Answer, At, Event, Op, Run};

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients at once.
    pub clients: u32,
    /// Reservations each client tries.
    pub tries: u32,
    /// Products; the first is the hot one.
    pub products: usize,
    /// Units received per product.
    pub units: u64,
    /// Longest hold.
    pub hold_ms_max: u64,
    /// Deadline of each call.
    pub deadline_ms: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { clients: 8, tries: 25, products: 3, units: 40, hold_ms_max: 2_000, deadline_ms: 1_500 }
    }
}

/// The journal, shared by the clients of a run.
pub type Journal = Arc<Mutex<Run>>;

/// The products' names; tagged so that they spread over slots.
pub fn products(load: Load) -> Vec<Sku> {
    (0..load.products).map(|n| Sku::new(format!("sku-{n}")).expect("valid")).collect()
}

fn now_ms() -> u64 {
    turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64
}

fn answer<T>(outcome: &Outcome<T>, replayed: impl Fn(&T) -> bool) -> Answer {
    let at = outcome.at().map(|at| At { shard: at.position.shard, index: at.position.index, place: at.position.place });
    match outcome {
        Outcome::Ok(ok) => Answer::Ok { at, time_ms: ok.at.map_or(0, |at| at.time.0), replayed: replayed(&ok.value) },
        Outcome::Refused(refused) => Answer::Refused { at, why: refused.why.to_string() },
        Outcome::NotNow(not_now) => Answer::NotNow { why: not_now.message.clone() },
        Outcome::Unknown(unknown) => Answer::Unknown { why: unknown.message.clone() },
    }
}

struct Journalled<'a> {
    journal: &'a Journal,
    client: u32,
}

impl Journalled<'_> {
    async fn ask<T>(
        &self,
        op: Op,
        call: impl IntoFuture<Output = Outcome<T>>,
        replayed: impl Fn(&T) -> bool,
    ) -> Outcome<T> {
        let asked_ms = now_ms();
        let outcome = call.await;
        let event =
            Event { client: self.client, op, asked_ms, answered_ms: now_ms(), answer: answer(&outcome, replayed) };
        self.journal.lock().expect("one thread").events.push(event);
        outcome
    }
}

/// Creates the products and receives their units; goes on until it is definite.
pub async fn set_up(client: &Client, load: Load, journal: &Journal) {
    let journalled = Journalled { journal, client: 0 };
    for sku in products(load) {
        loop {
            let policy = Policy { per_key_max: Some(3), ..Policy::default() };
            match client.create_product(&sku, policy).await {
                Outcome::Ok(_) | Outcome::Refused(_) => break,
                Outcome::NotNow(_) | Outcome::Unknown(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        loop {
            let op = Op::Receive { sku: sku.to_string(), units: load.units, reference: "opening".into() };
            let call = client.receive(&sku, load.units as i64, "opening");
            if journalled.ask(op, call, |s| s.replayed).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One client: reserves, and confirms, releases or abandons what it got; asks again with the same id when it does not know.
pub async fn shop(client: &Client, number: u32, seed: u64, load: Load, journal: &Journal) {
    let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(u64::from(number)));
    let journalled = Journalled { journal, client: number };
    let skus = products(load);
    let deadline = Duration::from_millis(load.deadline_ms);
    for _ in 0..load.tries {
        let sku = &skus[if rng.random_bool(0.6) { 0 } else { rng.random_range(0..skus.len()) }];
        let quantity = rng.random_range(1..=3u32);
        let hold_ms = rng.random_range(50..=load.hold_ms_max);
        let key = format!("buyer-{}", rng.random_range(0..40));
        let id = client.mint_for(sku);
        let mut held = false;
        for _ in 0..4 {
            let op = Op::Reserve { id: id.to_string(), sku: sku.to_string(), quantity, key: key.clone(), hold_ms };
            let call = client
                .reserve(id, key.as_str())
                .line(sku, i64::from(quantity))
                .hold_for(Duration::from_millis(hold_ms))
                .deadline(deadline);
            match journalled.ask(op, call, |r| r.replayed).await {
                Outcome::Ok(_) => {
                    held = true;
                    break;
                }
                Outcome::Refused(_) => break,
                Outcome::NotNow(_) | Outcome::Unknown(_) => {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(1..200))).await;
                }
            }
        }
        if held {
            finish(client, &journalled, id, rng.random_range(0..10), deadline).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
    }
}

async fn finish(client: &Client, journalled: &Journalled<'_>, id: ReservationId, chance: u32, deadline: Duration) {
    let text = id.to_string();
    for _ in 0..3 {
        let sure = match chance {
            0..5 => {
                let op = Op::Confirm { id: text.clone() };
                journalled.ask(op, client.confirm(id).deadline(deadline), |r| r.replayed).await.is_definite()
            }
            5..7 => {
                let op = Op::Release { id: text.clone() };
                journalled.ask(op, client.release(id).deadline(deadline), |r| r.replayed).await.is_definite()
            }
            // Abandoned: it has to expire by itself.
            _ => true,
        };
        if sure {
            break;
        }
    }
}

/// The offer that a product's plain stock is.
pub fn plain(sku: &Sku) -> OfferKey {
    OfferKey { sku: sku.clone(), sale: None }
}
