//! Shape orders-outage: does stock stay fast, and is every order paid once, while the payment provider fails?
//!
//! **What it is.** Reservations of some products at a steady rate (latency counts from when one was due), and orders of others through
//! workers and provider, in four phases: the provider is well, three seconds slow, down, and back until the orders placed before that are done. Then
//! both loads stop, the last orders end, and all books are compared. **Owns** the phases and their table. **Must never** end well when the
//! books do not agree. **Read next**: [`super::orders`].

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_sdk::Client;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::orders::{Buyers, OnEnd, close_books, concurrency, targets};
use super::report::{OrderBooksDoc, books_line};
use super::{Load, command, fill, refused};
use crate::limits;
use crate::link::{ClusterLink, connect};
use crate::output::{Outcome, micros, num, table, text, unit};
use crate::shop::{Plan, Shop};

/// Reservations a second, when nobody says otherwise.
const RATE: u64 = 5_000;
const PHASES: [&str; 4] = ["well", "3 s slow", "down", "back"];

/// What happened while the provider was in one state.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseDoc {
    /// How the provider was.
    pub provider: String,
    /// How long, seconds.
    pub seconds: f64,
    /// Reservations answered Ok, of those due in it.
    pub reserved: u64,
    /// Reservations answered otherwise.
    pub not_reserved: u64,
    /// Microseconds of a reservation: 50th percentile.
    pub p50_us: u64,
    /// 99th.
    pub p99_us: u64,
    /// Longest.
    pub max_us: u64,
    /// Orders acknowledged in it.
    pub placed: u64,
    /// Orders paid and sold in it.
    pub paid: u64,
    /// Orders that were not done at its end, by the ledger's own count.
    pub waiting: u64,
}

/// One run of the shape.
#[derive(Debug, Clone, Serialize)]
pub struct OutageDoc {
    /// Reservations a second asked for.
    pub rate: u64,
    /// Orders a second asked for.
    pub order_rate: u64,
    /// By state of the provider, in the order in which they came.
    pub phases: Vec<PhaseDoc>,
    /// From when the provider was back until every order placed before was done, milliseconds; none: not within the time there was.
    pub drained_ms: Option<u64>,
    /// One answer to a reservation that was not Ok.
    pub other_example: Option<String>,
    /// The compared books.
    pub orders: OrderBooksDoc,
    /// Whether all books agree, and all of it could be looked at.
    pub holds: bool,
    /// What does not.
    pub findings: Vec<String>,
}

/// Reservations of one phase.
struct Count {
    latency: Histogram<u64>,
    ok: u64,
    other: u64,
}

/// Reservations by phase; each counts where it was due.
struct Counts {
    phases: Mutex<(Vec<Count>, Option<String>)>,
}

impl Counts {
    fn new() -> Self {
        let latency = || Histogram::new_with_bounds(1, limits::LATENCY_US_MAX, 3).expect("constant bounds are valid");
        let phases = PHASES.map(|_| Count { latency: latency(), ok: 0, other: 0 });
        Self { phases: Mutex::new((phases.into(), None)) }
    }
    fn lock(&self) -> MutexGuard<'_, (Vec<Count>, Option<String>)> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn record(&self, phase: usize, began: Instant, bad: Option<String>) {
        let micros = (began.elapsed().as_micros() as u64).clamp(1, limits::LATENCY_US_MAX);
        let (phases, example) = &mut *self.lock();
        let count = &mut phases[phase];
        count.latency.saturating_record(micros);
        match bad {
            None => count.ok += 1,
            Some(why) => {
                count.other += 1;
                example.get_or_insert(why);
            }
        }
    }
}

/// The phase that it is, shared with the load.
type Now = Arc<std::sync::atomic::AtomicUsize>;
const OVER: usize = PHASES.len();

/// One run on the cluster at `endpoints`, which is its own; workers and provider have their files in `dir`.
pub(super) async fn run(endpoints: &[String], dir: &Path, load: &Load) -> Outcome<OutageDoc> {
    let client = connect(endpoints).await?;
    let (skus, others) = (fill(&client, load).await?, fill(&client, load).await?);
    let link = ClusterLink::new(endpoints)?.with_members().await?;
    let plan = Plan { workers: load.workers, webhooks: true, mail: false, flags: concurrency(load.concurrency) };
    let mut shop = Shop::open(dir, endpoints, &plan).await?;
    let buyers = Arc::new(Buyers::new(&client, &shop, targets(&skus), load));
    let (counts, now) = (Arc::new(Counts::new()), Now::default());
    let failed = Arc::new(Mutex::new(Vec::new()));
    let not_sold = failed.clone();
    let ended: OnEnd = Arc::new(move |_, why| {
        not_sold.lock().unwrap_or_else(PoisonError::into_inner).extend(why);
    });
    let following = tokio::spawn(buyers.clone().follow(ended.clone()));
    let rate = load.rate.unwrap_or(RATE);
    let reserving =
        tokio::spawn(reserve(rate, load.clone(), client.clone(), targets(&others), counts.clone(), now.clone()));
    let (order_rate, ordering) = (load.order_rate, (buyers.clone(), now.clone()));
    let ordering = tokio::spawn(async move {
        let (buyers, now) = ordering;
        let one = |at, _seed| {
            let (buyers, ended) = (buyers.clone(), ended.clone());
            async move { buyers.order(at, None, &ended).await }
        };
        super::callers::open_loop(order_rate, || phase(&now) == OVER, one).await;
    });
    let (mut phases, drained) = phases(load, &client, &mut shop, &buyers, &now).await?;
    reserving.await.map_err(refused)?;
    ordering.await.map_err(refused)?;
    let stopped = Instant::now();
    buyers.wait_done(&mut shop, limits::ORDERS_DONE_WITHIN).await?;
    let drained_ms = stopped.elapsed().as_millis() as u64;
    let (books, mut findings) = close_books(&buyers, &shop, &link, &[skus, others].concat()).await?;
    following.abort();
    let mut unsold = std::mem::take(&mut *failed.lock().unwrap_or_else(PoisonError::into_inner));
    unsold.truncate(limits::FINDINGS_SHOWN);
    findings.extend(unsold.into_iter().map(|why| format!("an order was not sold: {why}")));
    if drained.is_none() {
        findings.push(format!("the queue was not drained within {:?}", limits::ORDERS_DONE_WITHIN));
    }
    shop.close().await;
    client.close().await;
    let (counted, other_example) = &*counts.lock();
    for (phase, count) in phases.iter_mut().zip(counted) {
        (phase.reserved, phase.not_reserved, phase.max_us) = (count.ok, count.other, count.latency.max());
        (phase.p50_us, phase.p99_us) = (count.latency.value_at_quantile(0.5), count.latency.value_at_quantile(0.99));
    }
    Ok(OutageDoc {
        rate,
        order_rate: load.order_rate,
        phases,
        drained_ms: drained.map(|d| d.as_millis() as u64),
        other_example: other_example.clone(),
        orders: OrderBooksDoc { drained_ms, ..books },
        holds: findings.is_empty(),
        findings,
    })
}

fn phase(now: &Now) -> usize {
    now.load(std::sync::atomic::Ordering::Relaxed)
}

/// Reserves until it is over; what is on its way then still counts, if it is answered.
async fn reserve(rate: u64, load: Load, client: Client, products: Vec<super::Target>, counts: Arc<Counts>, now: Now) {
    let (load, products) = (Arc::new(load), Arc::new(products));
    let one = |at: Instant, seed: u64| {
        let (client, counts, load, products) = (client.clone(), counts.clone(), load.clone(), products.clone());
        let phase = phase(&now).min(PHASES.len() - 1);
        async move {
            let mut random = SmallRng::seed_from_u64(seed);
            let target = &products[random.random_range(0..products.len())];
            let told = client.submit(command(&load, target, client.mint_for(&target.sku), random.random())).await;
            counts.record(phase, at, (!told.is_ok()).then(|| format!("{told:?}")));
        }
    };
    super::callers::open_loop(rate, || phase(&now) == OVER, one).await;
}

/// Goes through the phases; gives what was seen of the orders in each, and how long it took after the provider was back.
async fn phases(
    load: &Load,
    client: &Client,
    shop: &mut Shop,
    buyers: &Buyers,
    now: &Now,
) -> Outcome<(Vec<PhaseDoc>, Option<Duration>)> {
    let mut seen = Vec::new();
    let mut drained = None;
    for (n, provider) in PHASES.into_iter().enumerate() {
        match n {
            0 => {}
            1 => shop.provider.be_slow().await?,
            2 => shop.provider.fail().await?,
            _ => shop.provider.recover().await?,
        }
        let (began, before) = (Instant::now(), buyers.so_far());
        now.store(n, std::sync::atomic::Ordering::Relaxed);
        eprintln!("orders-outage: the provider is {provider} …");
        match load.phases.get(n) {
            Some(time) => tokio::time::sleep(*time).await,
            None => {
                while buyers.unfinished_since(began) > 0 && began.elapsed() < limits::ORDERS_DONE_WITHIN {
                    shop.all_run()?;
                    tokio::time::sleep(limits::POLL).await;
                }
                drained = (buyers.unfinished_since(began) == 0).then(|| began.elapsed());
            }
        }
        let after = buyers.so_far();
        let phase = PhaseDoc {
            provider: provider.to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            reserved: 0,
            not_reserved: 0,
            p50_us: 0,
            p99_us: 0,
            max_us: 0,
            placed: after.0 - before.0,
            paid: after.1 - before.1,
            waiting: waiting(client).await?,
        };
        seen.push(phase);
    }
    now.store(OVER, std::sync::atomic::Ordering::Relaxed);
    Ok((seen, drained))
}

/// Orders that are not done, in all shards.
async fn waiting(client: &Client) -> Outcome<u64> {
    let mut waiting = 0;
    for slot in client.shard_slots() {
        waiting += client.queue_of(slot).deadline(limits::COMMAND_WITHIN).await.into_result()?.open;
    }
    Ok(waiting)
}

/// A run for people.
pub(super) fn to_text(outage: &OutageDoc) -> String {
    let rows = outage.phases.iter().map(|p| {
        [
            text(&p.provider),
            unit(format!("{:.1} s", p.seconds)),
            num(p.reserved),
            num(p.not_reserved),
            unit(micros(p.p50_us)),
            unit(micros(p.p99_us)),
            unit(micros(p.max_us)),
            num(p.placed),
            num(p.paid),
            num(p.waiting),
        ]
    });
    let header =
        ["PROVIDER", "TIME", "RESERVED", "NOT OK", "P50", "P99", "MAX", "ORDERS PLACED", "PAID", "WAITING AT ITS END"];
    let mut out = format!("{}\n", table(header, rows));
    out.push_str(&match outage.drained_ms {
        Some(ms) => {
            format!("every order placed before the provider was back was done {:.1} s later\n", ms as f64 / 1e3)
        }
        None => "the orders placed before the provider was back were NOT done in time\n".to_owned(),
    });
    out.push_str(&format!("{}\n", books_line(&outage.orders)));
    if let Some(example) = &outage.other_example {
        out.push_str(&format!("a reservation was not ok, for example {example}\n"));
    }
    for finding in outage.findings.iter().take(limits::FINDINGS_SHOWN) {
        out.push_str(&format!("finding: {finding}\n"));
    }
    out.push_str(if outage.holds { "the books agree\n" } else { "the books do NOT agree\n" });
    out
}
