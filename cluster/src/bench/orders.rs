//! Shape orders: from reserve to the buyer's notification, through order workers and a payment provider that are processes of their own.
//!
//! **What it is.** Buyers place orders (so many unfinished at a time, or so many a second) and follow the feed for how they end. An order
//! counts, and its latency ends, when the feed tells that its buyer was told that it is sold. When the load has stopped and the last order is done, the provider's
//! book, what the ledger answers, and what history recomputes must agree about every order: sold ones were paid once, others not at all.
//! The receiver of the notifications is in this process and counts as client. **Owns** the buyers and that comparison. **Must never** count an order by what
//! it was promised. **Read next**: [`crate::shop`], [`super::outage`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_sdk::order::{Ending, Phase, Sealed};
use client_sdk::{
    ChangeKind, Client, Contact, Cursor, Outcome as Answer, PaymentToken, ReservationId, SealError, SealingKey, Slot,
};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::meter::{self, Meter};
use super::report::{self, OrderBooksDoc, RunDoc};
use super::{Load, Target, audit, fill, refused};
use crate::commands::{AuditDoc, wait_caught_up};
use crate::limits;
use crate::link::{ClusterLink, connect};
use crate::output::Outcome;
use crate::shop::{Plan, Shop, Told};

/// What every order costs.
pub(super) const MINOR: u64 = 4_999;
/// In what.
pub(super) const CURRENCY: &str = "EUR";
/// Orders that are unfinished at a time, when nobody says otherwise.
const UNFINISHED: usize = 1_000;
/// How many of them a worker pays at once, when nobody says otherwise: the provider is as near as the ledger, and entries are to be shared.
const CONCURRENCY: u64 = 256;

/// What a buyer gives away about payment and notification; of usual length, and another one for every order.
pub(super) fn wishes(id: ReservationId) -> (PaymentToken, Contact) {
    let contact = Contact {
        email: Some(format!("{id}@buyers.example")),
        lang: Some("en".to_owned()),
        name: Some("Anna Example".to_owned()),
        ..Contact::default()
    };
    (PaymentToken::new("pm_card_visa"), contact)
}

/// An order that can be placed.
struct Prepared {
    id: ReservationId,
    number: u64,
    payment: Sealed,
    contact: Sealed,
}

/// An order that was asked for and has not ended.
struct Unfinished {
    began: Instant,
    sold: bool,
    /// Its answer was lost: it is there or not.
    in_doubt: bool,
    _room: Option<OwnedSemaphorePermit>,
}

/// Is told of every order that ends: when it was asked for, and why it is not sold.
pub(super) type OnEnd = Arc<dyn Fn(Instant, Option<String>) + Send + Sync>;

/// Whoever orders.
pub(super) struct Buyers {
    client: Client,
    sealing: SealingKey,
    products: Vec<Target>,
    pay_within: Duration,
    prepared: Mutex<Vec<Prepared>>,
    unfinished: Mutex<HashMap<ReservationId, Unfinished>>,
    /// All that may be there, and whether they were acknowledged; the others are in doubt.
    asked: Mutex<Vec<(ReservationId, bool)>>,
    placed: AtomicU64,
    paid: AtomicU64,
    minted: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buyers {
    pub(super) fn new(client: &Client, shop: &Shop, products: Vec<Target>, load: &Load) -> Self {
        Self {
            client: client.clone(),
            sealing: shop.sealing.clone(),
            products,
            pay_within: load.hold.unwrap_or(Duration::from_secs(600)),
            prepared: Mutex::default(),
            unfinished: Mutex::default(),
            asked: Mutex::default(),
            placed: AtomicU64::new(0),
            paid: AtomicU64::new(0),
            minted: AtomicU64::new(0),
        }
    }

    /// Orders that were acknowledged so far, and those that the feed told to be paid and sold.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.placed.load(Ordering::Relaxed), self.paid.load(Ordering::Relaxed))
    }

    /// Orders asked for that have not ended.
    pub(super) fn unfinished(&self) -> usize {
        lock(&self.unfinished).len()
    }

    /// Of these, how many were asked for before then.
    pub(super) fn unfinished_since(&self, then: Instant) -> usize {
        lock(&self.unfinished).values().filter(|one| one.began < then).count()
    }

    /// Orders take turns.
    fn product(&self, number: u64) -> &Target {
        &self.products[(number % self.products.len() as u64) as usize]
    }

    fn seal(&self) -> Result<Prepared, SealError> {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        let id = self.client.mint_for(&self.product(number).sku);
        let (token, contact) = wishes(id);
        Ok(Prepared {
            id,
            number,
            payment: self.sealing.payment(id, &token)?,
            contact: self.sealing.contact(id, &contact)?,
        })
    }

    /// Seals so many orders ahead, on all cores.
    async fn prepare(self: &Arc<Self>, count: u64) -> Outcome {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let sealing = (0..threads).map(|n| {
            let buyers = self.clone();
            let share = count / threads + u64::from(n < count % threads);
            tokio::task::spawn_blocking(move || {
                let sealed = (0..share).map(|_| buyers.seal()).collect::<Result<Vec<_>, _>>()?;
                lock(&buyers.prepared).extend(sealed);
                Ok::<_, SealError>(())
            })
        });
        for sealed in futures::future::join_all(sealing).await {
            sealed.map_err(refused)?.map_err(refused)?;
        }
        Ok(())
    }

    /// Places one order; `ended` is told if it is not taken.
    pub(super) async fn order(&self, began: Instant, room: Option<OwnedSemaphorePermit>, ended: &OnEnd) {
        let prepared = lock(&self.prepared).pop();
        let order = match prepared.map_or_else(|| self.seal(), Ok) {
            Ok(order) => order,
            Err(why) => return ended(began, Some(why.to_string())),
        };
        let Prepared { id, number, payment, contact } = order;
        // Before it is asked: its end may be told before its answer comes.
        lock(&self.unfinished).insert(id, Unfinished { began, sold: false, in_doubt: false, _room: room });
        let call = self.client.place_order(id, MINOR, CURRENCY).buyer(format!("buyer-{number:06}"));
        let call = call.line(&self.product(number).sku, 1).pay_within(self.pay_within);
        let why = match call.payment(payment).contact(contact).await {
            Answer::Ok(_) => {
                self.placed.fetch_add(1, Ordering::Relaxed);
                lock(&self.asked).push((id, true));
                return;
            }
            Answer::Unknown(_) => {
                lock(&self.asked).push((id, false));
                if let Some(one) = lock(&self.unfinished).get_mut(&id) {
                    one.in_doubt = true;
                }
                return;
            }
            Answer::Refused(why) => why.to_string(),
            Answer::NotNow(why) => why.to_string(),
        };
        lock(&self.unfinished).remove(&id);
        ended(began, Some(why));
    }

    /// Follows the feed, from its beginning, and tells of every order that ends.
    pub(super) async fn follow(self: Arc<Self>, ended: OnEnd) -> Outcome {
        let mut watch = self.client.watch(Cursor::oldest());
        while let Some(frame) = watch.next().await {
            for happened in frame.map_err(refused)?.changes {
                let (id, parked) = match happened.change.kind {
                    ChangeKind::OrderConfirmed { id, .. } => {
                        self.paid.fetch_add(1, Ordering::Relaxed);
                        if let Some(one) = lock(&self.unfinished).get_mut(&id) {
                            one.sold = true;
                        }
                        continue;
                    }
                    ChangeKind::OrderNotified { id } => (id, None),
                    ChangeKind::OrderParked { id, reason } => (id, Some(format!("parked: {reason:?}"))),
                    _ => continue,
                };
                let Some(one) = lock(&self.unfinished).remove(&id) else { continue };
                let unsold = (!one.sold).then(|| "it ended unsold".to_owned());
                ended(one.began, parked.or(unsold));
            }
        }
        Ok(())
    }

    /// Waits until no order is open; those that never were, though their answers stayed in doubt, are no orders.
    pub(super) async fn wait_done(&self, shop: &mut Shop, within: Duration) -> Outcome {
        let until = Instant::now() + within;
        while self.unfinished() > 0 && Instant::now() < until {
            shop.all_run()?;
            let doubts: Vec<ReservationId> =
                lock(&self.unfinished).iter().filter(|(_, one)| one.in_doubt).map(|(id, _)| *id).collect();
            for id in doubts {
                if self.client.order(id).deadline(limits::COMMAND_WITHIN).await.into_result()?.is_none() {
                    lock(&self.unfinished).remove(&id);
                }
            }
            tokio::time::sleep(limits::POLL).await;
        }
        Ok(())
    }

    /// Compares the books, order by order: the provider's, the ledger's answers, history's, and the receiver's of notifications.
    pub(super) async fn compare(
        &self,
        shop: &Shop,
        history: &crate::books::Books,
    ) -> Outcome<(OrderBooksDoc, Vec<String>)> {
        let provider = shop.provider.book().await?;
        let mut findings = Vec::new();
        let mut books = OrderBooksDoc {
            paid: provider.paid_orders() as u64,
            kept_minor: provider.kept_minor(),
            ..Default::default()
        };
        let asked = lock(&self.asked).clone();
        let mut reads = futures::stream::iter(asked)
            .map(async |(id, acknowledged)| {
                let view = self.client.order(id).deadline(limits::COMMAND_WITHIN).await.into_result()?;
                let wrong = match &view {
                    Some(view) => provider.compare(&self.client, view, MINOR, history).await?,
                    None => Vec::new(),
                };
                Ok::<_, crate::output::Failure>((id, acknowledged, view, wrong))
            })
            .buffer_unordered(limits::READ_BACK_IN_FLIGHT);
        let mut known = std::collections::HashSet::new();
        while let Some(read) = reads.next().await {
            let (id, acknowledged, view, mut wrong) = read?;
            let Some(view) = view else {
                // One by one: an order in doubt that is there must not stand for one that is lost.
                if acknowledged {
                    findings.push(format!("order {id}: it was acknowledged, and is not there"));
                }
                continue;
            };
            known.insert(id);
            books.placed += 1;
            let sold = view.brief.ending == Ending::Sold;
            books.sold += u64::from(sold);
            books.sold_minor += if sold { MINOR } else { 0 };
            if view.brief.phase != Phase::Done {
                wrong.push(format!("it is not done, but {:?}", view.brief.phase));
            }
            if let Told::Hooks(hooks) = &shop.told {
                let told = hooks.of(id);
                books.told_again += u64::from(told > 1);
                if told == 0 {
                    wrong.push("its receiver was never told how it ended".to_owned());
                }
            }
            books.unbalanced += u64::from(!wrong.is_empty());
            findings.extend(wrong.into_iter().map(|what| format!("order {id}: {what}")));
        }
        findings.extend(provider.charged_for_nothing(|id| known.contains(&id)));
        findings.truncate(limits::FINDINGS_MAX);
        Ok((books, findings))
    }
}

/// The flags of workers that run so many orders at once; none: as they are by default.
pub(super) fn concurrency(wanted: Option<u64>) -> Vec<(&'static str, String)> {
    let flags = |orders: u64| {
        let most = orders.min(u64::from(ledger_core::limits::CLAIM_MAX));
        [("concurrency-money", orders), ("concurrency-mail", orders), ("claim-max", most)]
    };
    let flags = wanted.map(flags).into_iter().flatten();
    flags.map(|(flag, value)| (flag, value.to_string())).collect()
}

/// Where products are; their leaders do not matter here.
pub(super) fn targets(skus: &[client_sdk::Sku]) -> Vec<Target> {
    skus.iter().map(|sku| Target { sku: sku.clone(), slot: Slot::of(sku) }).collect()
}

/// The audit from history, and then the comparison of all books.
pub(super) async fn close_books(
    buyers: &Buyers,
    shop: &Shop,
    link: &ClusterLink,
    skus: &[client_sdk::Sku],
) -> Outcome<(OrderBooksDoc, Vec<String>)> {
    let mut late = AuditDoc::default();
    wait_caught_up(&link.nodes, &mut late).await;
    let (mut findings, history) = audit(link, &buyers.client, skus, true).await?;
    findings.extend(late.incomplete);
    let (books, wrong) = buyers.compare(shop, &history).await?;
    findings.extend(wrong);
    Ok((books, findings))
}

/// One measurement on the cluster at `endpoints`, which is its own; workers and provider have their files in `dir`.
pub(super) async fn run(endpoints: &[String], dir: &Path, load: &Load) -> Outcome<RunDoc> {
    let client = connect(endpoints).await?;
    let skus = fill(&client, load).await?;
    let link = ClusterLink::new(endpoints)?.with_members().await?;
    let flags = concurrency(load.concurrency.or(Some(CONCURRENCY)));
    let plan = Plan { workers: load.workers, webhooks: false, mail: false, flags };
    let mut shop = Shop::open(dir, endpoints, &plan).await?;
    let buyers = Arc::new(Buyers::new(&client, &shop, targets(&skus), load));
    let sealed = load.rate.unwrap_or(limits::BENCH_SEALED_A_SECOND) * (load.seconds + load.warmup);
    buyers.prepare(sealed).await?;
    let meter = Arc::new(Meter::new(load.warmup, load.seconds));
    let counting = meter.clone();
    let ended: OnEnd = Arc::new(move |began, why: Option<String>| {
        let ok = u64::from(why.is_none());
        counting.record(began, ok, 1 - ok, || why.unwrap_or_default());
    });
    let following = tokio::spawn(buyers.clone().follow(ended.clone()));
    let sampler = tokio::spawn(meter::sample(meter.clone(), link.clone(), shop.processes()));
    drive(load, &buyers, &meter, &ended).await;
    let costs = sampler.await.map_err(refused)?;
    let mut run = report::run_document(load, &meter, &costs);
    let stopped = Instant::now();
    buyers.wait_done(&mut shop, limits::ORDERS_DONE_WITHIN).await?;
    let drained_ms = stopped.elapsed().as_millis() as u64;
    let (books, findings) = close_books(&buyers, &shop, &link, &skus).await?;
    following.abort();
    run.audit_holds = findings.is_empty();
    run.findings = findings;
    run.orders = Some(OrderBooksDoc { drained_ms, ..books });
    shop.close().await;
    client.close().await;
    Ok(run)
}

async fn drive(load: &Load, buyers: &Arc<Buyers>, meter: &Meter, ended: &OnEnd) {
    let one = |began: Instant, room: Option<OwnedSemaphorePermit>| {
        let (buyers, ended) = (buyers.clone(), ended.clone());
        async move { buyers.order(began, room, &ended).await }
    };
    if let Some(rate) = load.rate {
        return super::callers::open_loop(rate, || meter.over(), |at, _seed| one(at, None)).await;
    }
    let room = Arc::new(Semaphore::new(load.callers.unwrap_or(UNFINISHED)));
    let mut calls = tokio::task::JoinSet::new();
    while let Ok(Ok(permit)) = tokio::time::timeout_at(meter.until().into(), room.clone().acquire_owned()).await {
        calls.spawn(one(Instant::now(), Some(permit)));
        while calls.try_join_next().is_some() {}
    }
    // The answers of those that are on their way decide what has to be compared.
    while calls.join_next().await.is_some() {}
}
