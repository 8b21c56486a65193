//! The ledger, reached through the client SDK.
//!
//! **What it is.** Claims go to all shards, in waves: as many shards at once as there is room for orders, beginning with another shard each
//! time. Everything else routes by the order's id.
//!
//! **Owns** the translation of outcomes. **Must never** say *no* for what may have happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use client_sdk::{Calling, Client, Outcome};
use ledger_core::order::{ByHand, Claimed, Fact, OrderBrief, OrderView, QueueStats, Report, WorkClass, WorkerId};
use ledger_core::{LedgerTime, Reason, ReservationId, Slot};
use tokio::task::JoinSet;

use crate::config::WorkerConfig;
use crate::ledger::{Ledger, Told, Want};
use crate::seams::Seams;

/// Connects to the cluster.
///
/// # Errors
/// No node can be reached, or the configured name is none.
pub async fn connect(config: &WorkerConfig, seams: &Seams) -> anyhow::Result<Arc<dyn Ledger>> {
    let name = config.name.clone().unwrap_or_else(|| format!("order-worker-{:08x}", seams.draw() as u32));
    let worker = WorkerId::new(&name).context("`name`")?;
    let client = Client::connect(config.nodes.iter().map(String::as_str)).await;
    let client = client.with_context(|| format!("no node answers at {}", config.nodes.join(", ")))?;
    tracing::info!(worker = %worker, "connected");
    Ok(Arc::new(Sdk { client, worker, next: AtomicUsize::new(0) }))
}

struct Sdk {
    client: Client,
    worker: WorkerId,
    /// The shard that is asked first next time.
    next: AtomicUsize,
}

fn told<T, U>(outcome: Outcome<T>, value: impl FnOnce(T, Option<LedgerTime>) -> U) -> Told<U> {
    match outcome {
        Outcome::Ok(answered) => Told::Ok(value(answered.value, answered.at.map(|at| at.time))),
        Outcome::Refused(refused) => Told::Refused { why: refused.to_string() },
        Outcome::NotNow(later) => Told::NotNow { after: later.retry_after, why: later.to_string() },
        Outcome::Unknown(unknown) => Told::Unknown { why: unknown.to_string() },
    }
}

fn brief(order: client_sdk::Order, _at: Option<LedgerTime>) -> OrderBrief {
    let client_sdk::Order { id: _, phase, ending, epoch, deadline, replayed } = order;
    OrderBrief { phase, ending, epoch, deadline, replayed }
}

impl Sdk {
    fn ask(&self, slot: Slot, want: Want, max: u32) -> Calling<Vec<Claimed>> {
        let millis = Duration::from_millis;
        let claim = self.client.claim(slot, self.worker.clone(), want.class);
        claim.max(max).lease(millis(want.lease_ms)).attempt(millis(want.attempt_ms)).into_future()
    }

    /// Asks each of these shards for a share.
    async fn wave(&self, slots: &[Slot], want: Want, room: u32) -> (Vec<Claimed>, Option<Told<Vec<Claimed>>>) {
        let (count, mut asked) = (slots.len() as u32, JoinSet::new());
        for (at, slot) in slots.iter().enumerate() {
            let share = room / count + u32::from((at as u32) < room % count);
            asked.spawn(self.ask(*slot, want, share));
        }
        let (mut claimed, mut failed) = (Vec::new(), None);
        while let Some(answer) = asked.join_next().await {
            match answer.map(|outcome| told(outcome, |orders, _| orders)) {
                Ok(Told::Ok(orders)) => claimed.extend(orders),
                Ok(other) => failed = Some(other),
                Err(_) => failed = Some(Told::Unknown { why: "the claim's task ended".into() }),
            }
        }
        (claimed, failed)
    }
}

#[async_trait]
impl Ledger for Sdk {
    async fn claim(&self, want: Want) -> Told<Vec<Claimed>> {
        let mut slots = self.client.shard_slots();
        if slots.is_empty() {
            let why = "no shard is known yet".to_owned();
            return Told::NotNow { after: Duration::from_millis(100), why };
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % slots.len();
        slots.rotate_left(first);
        let (mut claimed, mut failed, mut left) = (Vec::new(), None, slots.as_slice());
        loop {
            let room = want.max.saturating_sub(claimed.len() as u32);
            let (now, later) = left.split_at(left.len().min(room as usize));
            if now.is_empty() {
                break;
            }
            let (orders, why) = self.wave(now, want, room).await;
            claimed.extend(orders);
            failed = why.or(failed);
            left = later;
        }
        match failed {
            Some(failed) if claimed.is_empty() => failed,
            _ => Told::Ok(claimed),
        }
    }

    async fn heartbeat(&self, id: ReservationId, epoch: u32, lease_ms: u64) -> Told<OrderBrief> {
        told(self.client.heartbeat(id, epoch, Duration::from_millis(lease_ms)).await, brief)
    }
    async fn report(&self, id: ReservationId, epoch: u32, report: Report) -> Told<OrderBrief> {
        told(self.client.report(id, epoch, report).await, brief)
    }
    async fn fact(&self, id: ReservationId, fact: Fact) -> Told<OrderBrief> {
        told(self.client.record_fact(id, fact).await, brief)
    }
    async fn resume(&self, id: ReservationId) -> Told<OrderBrief> {
        let why = Reason::new("the provider told of news").expect("it is short and plain");
        told(self.client.order_by_hand(id, ByHand::Resume, why).await, brief)
    }
    async fn order(&self, id: ReservationId) -> Told<OrderView> {
        match told(self.client.order(id).await, |view, _| view) {
            Told::Ok(Some(view)) => Told::Ok(view),
            Told::Ok(None) => Told::Refused { why: "no such order".into() },
            Told::Refused { why } => Told::Refused { why },
            Told::NotNow { after, why } => Told::NotNow { after, why },
            Told::Unknown { why } => Told::Unknown { why },
        }
    }

    async fn stats(&self) -> Told<Option<(QueueStats, LedgerTime)>> {
        let (mut all, mut now) = (QueueStats::default(), LedgerTime::default());
        for slot in self.client.shard_slots() {
            match told(self.client.queue_of(slot).stale().await, |stats, at| (stats, at)) {
                Told::Ok((stats, at)) => {
                    add(&mut all, &stats);
                    now = now.max(at.unwrap_or_default());
                }
                Told::Refused { why } => return Told::Refused { why },
                Told::NotNow { after, why } => return Told::NotNow { after, why },
                Told::Unknown { why } => return Told::Unknown { why },
            }
        }
        Told::Ok(Some((all, now)))
    }
}

fn add(all: &mut QueueStats, shard: &QueueStats) {
    for class in [WorkClass::Money, WorkClass::Mail] {
        let at = usize::from(class == WorkClass::Mail);
        all.ready[at] += shard.ready[at];
        all.oldest_ready[at] = match (all.oldest_ready[at], shard.oldest_ready[at]) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    all.suspects += shard.suspects;
    all.delayed += shard.delayed;
    all.leased += shard.leased;
    all.awaiting += shard.awaiting;
    all.parked += shard.parked;
    all.open += shard.open;
}
