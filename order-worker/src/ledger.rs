//! What the worker asks of the ledger.
//!
//! **What it is.** The few verbs of the work queue, over all shards, with answers that say whether it happened.
//!
//! **Owns** the seam between worker and ledger. **Must never** report *unknown* as *no*. **Read next**: [`crate::engine`].

use std::time::Duration;

use async_trait::async_trait;
use ledger_core::order::{Claimed, Fact, OrderBrief, OrderView, QueueStats, Report, WorkClass};
use ledger_core::{LedgerTime, ReservationId};

/// An answer of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an answer says whether it happened"]
pub enum Told<T> {
    /// It is so.
    Ok(T),
    /// No; nothing changed, and asking again gives the same.
    Refused {
        /// Why, for the log.
        why: String,
    },
    /// Nothing happened; come back.
    NotNow {
        /// When.
        after: Duration,
        /// Why, for the log.
        why: String,
    },
    /// It may or may not have happened: ask again the same.
    Unknown {
        /// Why, for the log.
        why: String,
    },
}

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// From which queue.
    pub class: WorkClass,
    /// At most so many, over all shards.
    pub max: u32,
    /// How long the leases last, milliseconds.
    pub lease_ms: u64,
    /// What one attempt to pay needs, milliseconds: orders whose payment deadline is nearer are left.
    pub attempt_ms: u64,
}

/// The ledger, as a worker sees it.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Claims orders, of every shard in turn. A lost answer costs the leases' time and nothing else.
    async fn claim(&self, want: Want) -> Told<Vec<Claimed>>;
    /// Makes a lease last until now + `lease_ms`.
    async fn heartbeat(&self, id: ReservationId, epoch: u32, lease_ms: u64) -> Told<OrderBrief>;
    /// Says what came of a claimed order. The same again is the same answer.
    async fn report(&self, id: ReservationId, epoch: u32, report: Report) -> Told<OrderBrief>;
    /// Records what happened to money. The same again is the same answer.
    async fn fact(&self, id: ReservationId, fact: Fact) -> Told<OrderBrief>;
    /// An order that awaits its buyer is looked at again.
    async fn resume(&self, id: ReservationId) -> Told<OrderBrief>;
    /// All that is known of an order.
    async fn order(&self, id: ReservationId) -> Told<OrderView>;
    /// Depth and age of the queues, summed over all shards, with the newest ledger time; none where the ledger does not tell.
    async fn stats(&self) -> Told<Option<(QueueStats, LedgerTime)>>;
}
