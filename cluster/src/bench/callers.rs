//! Shapes a2, d, e and g: callers that each await one call, through the SDK (e: as unary calls).
//!
//! **Owns** the loops. **Must never** let one caller have two calls outstanding in the closed loop. **Read next**: [`super::meter`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client_sdk::{Client, Outcome as Told};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::meter::Meter;
use super::{Load, Target, Targets, command, refused};
use crate::cli::Shape;
use crate::limits;
use crate::output::Outcome;

/// Runs the shape's callers until the meter is over.
pub(crate) async fn drive(load: &Load, client: &Client, targets: &Targets, meter: &Arc<Meter>) -> Outcome {
    let products: Arc<Vec<Target>> = Arc::new(targets.iter().flat_map(|(_, t)| t.clone()).collect());
    let caller = Arc::new(Caller { load: load.clone(), client: client.clone(), products, meter: meter.clone() });
    match load.rate {
        Some(rate) => {
            let call = |at, seed| {
                let caller = caller.clone();
                async move { caller.call(at, &mut SmallRng::seed_from_u64(seed)).await }
            };
            open_loop(rate, || meter.over(), call).await;
            Ok(())
        }
        None => {
            let callers = load.callers.unwrap_or(if load.shape == Shape::D { 1 } else { 500 });
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..callers {
                let caller = caller.clone();
                tasks.spawn(async move {
                    let mut random = SmallRng::seed_from_u64(n as u64);
                    while !caller.meter.over() {
                        caller.call(Instant::now(), &mut random).await;
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(refused)?;
            }
            Ok(())
        }
    }
}

/// Calls `rate` times a second until it is over, whatever the answers take; each call learns when it was due, and gets a seed.
pub(super) async fn open_loop<F: Future<Output = ()> + Send + 'static>(
    rate: u64,
    over: impl Fn() -> bool,
    call: impl Fn(Instant, u64) -> F,
) {
    let began = Instant::now();
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut random = SmallRng::seed_from_u64(rate);
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0u64;
    while !over() {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due && waiting.load(Ordering::Relaxed) < limits::BENCH_WAITING_MAX {
            let at = began + Duration::from_secs_f64(sent as f64 / rate as f64);
            let (called, waiting) = (call(at, random.random()), waiting.clone());
            waiting.fetch_add(1, Ordering::Relaxed);
            sent += 1;
            tokio::spawn(async move {
                called.await;
                waiting.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

struct Caller {
    load: Load,
    client: Client,
    products: Arc<Vec<Target>>,
    meter: Arc<Meter>,
}

impl Caller {
    // An open loop has a task for each call: what only other shapes await is boxed, so that a reserve's task stays small.
    async fn call(&self, began: Instant, random: &mut SmallRng) {
        let target = &self.products[random.random_range(0..self.products.len())];
        match self.load.shape {
            Shape::G => self.count(began, &Box::pin(self.client.stock(&target.sku).into_future()).await),
            Shape::GStale => self.count(began, &Box::pin(self.client.stock(&target.sku).stale().into_future()).await),
            Shape::E => {
                let command = command(&self.load, target, self.client.mint_for(&target.sku), random.random());
                self.count(began, &Box::pin(self.client.submit_unary(command, limits::COMMAND_WITHIN)).await);
            }
            _ => {
                let command = command(&self.load, target, self.client.mint_for(&target.sku), random.random());
                self.count(began, &self.client.submit(command).await);
            }
        }
    }

    fn count<T: std::fmt::Debug>(&self, began: Instant, told: &Told<T>) {
        let ok = u64::from(told.is_ok());
        self.meter.record(began, ok, 1 - ok, || format!("{told:?}"));
    }
}
