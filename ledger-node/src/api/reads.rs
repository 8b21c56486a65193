//! Reads: as of now through the leader's quorum, or stale by name.
//!
//! **Owns** which replica state a read sees. **Must never** answer a linearizable read from a state that was not confirmed, or hold
//! the ledger for longer than one look.
//! **Read next**: [`super::lists`], [`crate::shard`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use ledger_core::order::{OrderPage, OrderView, Phase, QueueStats};
use ledger_core::types::{OfferKey, Sku, Slot};
use ledger_core::view::{IdView, OfferView, ProductView};
use ledger_core::{Ledger, ReservationId};
use ledger_proto::{At, Cause, Invalid, NotNow, Reply, Why};
use ledger_raft::ReadError;
use service::Source;

use super::Api;
use crate::history::HistoryError;
use crate::history::explain::{Begin, Explanation, Next, Subject, explain};
use crate::limits::{READ_WITHIN, RETRY_ELECTION_MS, RETRY_OVERLOADED_MS, RETRY_UNWELL_MS};
use crate::shard::Shard;

/// How current a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As of now.
    #[default]
    Linearizable,
    /// Whatever this node has applied.
    Stale,
}

/// As of which position a read was answered, and for stale ones how old that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// Position and ledger time.
    pub at: At,
    /// Stale reads: milliseconds since this replica was current, if it knows.
    pub age_ms: Option<u64>,
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFailure {
    /// The question is invalid.
    Invalid(Invalid),
    /// Not here, or not now.
    NotNow(NotNow),
}

impl From<NotNow> for ReadFailure {
    fn from(why: NotNow) -> Self {
        Self::NotNow(why)
    }
}

impl From<Invalid> for ReadFailure {
    fn from(why: Invalid) -> Self {
        Self::Invalid(why)
    }
}

impl From<ReadFailure> for Reply {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Invalid(invalid) => Self::Refused(Why::Invalid(invalid)),
            ReadFailure::NotNow(why) => Self::NotNow(why),
        }
    }
}

/// A shard's replica here may be read, as long as no other state takes its ledger's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confirmed {
    /// [`crate::shard::ShardState::replaced`] before it was confirmed.
    since: u64,
}

/// Reads of one call.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub(super) api: &'a Api,
    pub(super) consistency: Consistency,
    pub(super) within: Duration,
    /// Lists are of these shards only, asked by another node; of all shards otherwise.
    pub(super) only: Option<&'a [u32]>,
    /// Who asks, for what one source may have under way.
    pub(super) source: Option<Source>,
}

impl<'a> Reader<'a> {
    /// With a consistency and the time that the caller gives it.
    pub fn new(api: &'a Api, consistency: Consistency, within: Option<Duration>) -> Self {
        let longest = api.node.config().call_within_max;
        Self { api, consistency, within: within.unwrap_or(READ_WITHIN).min(longest), only: None, source: None }
    }

    /// The call is of this source.
    pub fn of_source(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Lists are of these shards only, if some are named: another node asks for what it lacks.
    pub fn only(self, shards: Option<&'a [u32]>) -> Self {
        Self { only: shards, ..self }
    }

    /// The shard of a slot, with its replica here.
    fn shard_of(&self, slot: Slot) -> Result<Arc<Shard>, NotNow> {
        self.api.serving()?;
        let table = self.api.node.table();
        if let Some(shard) = table.shard_for_slot(slot) {
            return Ok(shard.clone());
        }
        match table.shard_id_for_slot(slot) {
            Some(shard) => Err(elsewhere(self.api, shard)),
            None => Err(NotNow::new(Cause::SlotElsewhere, "no shard owns the slot yet", RETRY_ELECTION_MS)),
        }
    }

    fn shard_numbered(&self, shard: u32) -> Result<Arc<Shard>, ReadFailure> {
        self.api.serving()?;
        if let Some(shard) = self.api.node.shard(shard) {
            return Ok(shard);
        }
        let placement = self.api.node.placement();
        if placement.is_some_and(|placement| placement.shards.iter().any(|known| known.shard == shard)) {
            return Err(elsewhere(self.api, shard).into());
        }
        Err(Invalid::new("entry.shard", format!("is {shard}, which the cluster does not have")).into())
    }

    /// Waits until the shard's replica here may be read.
    pub(crate) async fn confirmed(&self, shard: &Shard) -> Result<Confirmed, NotNow> {
        let confirmed = Confirmed { since: shard.state().replaced() };
        if self.consistency == Consistency::Stale || ledger_core::bad!("stale-read-as-linearizable") {
            // Old is what was asked for; a state that was found wrong, or is being replaced, is not.
            return match shard.status().stopped {
                None => Ok(confirmed),
                Some(why) => Err(NotNow::new(Cause::NotServing, why, RETRY_UNWELL_MS)),
            };
        }
        match shard.read_index(self.within).await {
            Ok(_) => Ok(confirmed),
            Err(ReadError::NoLeader { .. }) => {
                if let Some(why) = self.api.node.no_quorum_of(shard.id()) {
                    return Err(why);
                }
                let mut why = NotNow::new(Cause::NotLeader, "no leader confirmed the read", RETRY_ELECTION_MS);
                why.leader = self.api.node.leader_addr_of(shard.id()).map(|addr| addr.to_string());
                Err(why)
            }
            Err(ReadError::Stopped { why }) => Err(NotNow::new(Cause::NotServing, why, RETRY_UNWELL_MS)),
        }
    }

    /// Looks at a shard that was confirmed. When the replica was replaced meanwhile, what was confirmed is not what is here now: *not now*.
    pub(super) fn look<T>(
        &self,
        shard: &Shard,
        confirmed: Confirmed,
        look: impl FnOnce(&Ledger) -> T,
    ) -> Result<(T, AsOf), NotNow> {
        let seen = shard.state().with_ledger_since(confirmed.since, |ledger| {
            (look(ledger), At { position: ledger.position(), time: ledger.time() })
        });
        let (seen, at) = seen.ok_or_else(|| {
            let why = format!("the replica of shard {} was replaced during the read", shard.id());
            NotNow::new(Cause::NotServing, why, RETRY_ELECTION_MS)
        })?;
        let age_ms = (self.consistency == Consistency::Stale).then(|| shard.age_ms()).flatten();
        Ok((seen, AsOf { at, age_ms }))
    }

    /// One product with its offers.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn product(&self, sku: &Sku) -> Result<(Option<ProductView>, AsOf), ReadFailure> {
        self.at_slot(Slot::of(sku), |ledger| ledger.product(sku)).await
    }

    /// Offers, in the order asked; each shard is confirmed once.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn offers(&self, offers: &[OfferKey]) -> Result<Vec<(Option<OfferView>, AsOf)>, ReadFailure> {
        let mut by_shard: Vec<(Arc<Shard>, Vec<usize>)> = Vec::new();
        for (n, offer) in offers.iter().enumerate() {
            let shard = self.shard_of(Slot::of(&offer.sku))?;
            match by_shard.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &shard)) {
                Some((_, places)) => places.push(n),
                None => by_shard.push((shard, vec![n])),
            }
        }
        let confirmed = try_join_all(by_shard.iter().map(|(shard, _)| self.confirmed(shard))).await?;
        let mut out = vec![None; offers.len()];
        for ((shard, places), confirmed) in by_shard.into_iter().zip(confirmed) {
            let all = |ledger: &Ledger| places.iter().map(|&n| ledger.offer(&offers[n])).collect::<Vec<_>>();
            let (views, as_of) = self.look(&shard, confirmed, all)?;
            for (n, view) in places.into_iter().zip(views) {
                out[n] = Some((view, as_of));
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// Looks at the shard of a slot.
    async fn at_slot<T>(&self, slot: Slot, look: impl FnOnce(&Ledger) -> T) -> Result<(T, AsOf), ReadFailure> {
        let shard = self.shard_of(slot)?;
        let confirmed = self.confirmed(&shard).await?;
        Ok(self.look(&shard, confirmed, look)?)
    }

    /// All that is known of an order.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn order(&self, id: ReservationId) -> Result<(Option<OrderView>, AsOf), ReadFailure> {
        self.at_slot(id.slot(), |ledger| ledger.order(id)).await
    }

    /// Orders of the slot's shard, in the order of their ids: all, or those in one phase.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn orders(
        &self,
        slot: Slot,
        phase: Option<Phase>,
        after: Option<ReservationId>,
        max: usize,
    ) -> Result<(OrderPage, AsOf), ReadFailure> {
        self.at_slot(slot, |ledger| ledger.orders(phase, after, max)).await
    }

    /// Depth and age of the queues of the slot's shard.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn queue(&self, slot: Slot) -> Result<(QueueStats, AsOf), ReadFailure> {
        self.at_slot(slot, Ledger::queue_stats).await
    }

    /// What is known of an id.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn reservation(&self, id: ReservationId) -> Result<(IdView, AsOf), ReadFailure> {
        let (view, as_of) = self.at_slot(id.slot(), |ledger| ledger.id(id)).await?;
        if view == IdView::SlotElsewhere {
            let why = "the slot moved to another shard; refresh the routing";
            return Err(NotNow::new(Cause::SlotElsewhere, why, RETRY_ELECTION_MS).into());
        }
        Ok((view, as_of))
    }

    /// The changes of one product or reservation, newest first.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn explain(
        &self,
        subject: Subject,
        before: Option<Next>,
        max: usize,
    ) -> Result<(u32, Explanation), ReadFailure> {
        let shard = match &subject {
            Subject::Reservation(id) => self.shard_of(id.slot())?,
            Subject::Product(sku) => self.shard_of(Slot::of(sku))?,
            Subject::Entry { shard, .. } => self.shard_numbered(*shard)?,
        };
        let confirmed = self.confirmed(&shard).await?;
        let (head, as_of) = self.look(&shard, confirmed, |ledger| match &subject {
            Subject::Reservation(id) => ledger.head_of_reservation(*id),
            Subject::Product(sku) => ledger.head_of_product(sku),
            Subject::Entry { index, .. } => Some((*index, 0)),
        })?;
        if let Subject::Product(sku) = &subject
            && head.is_none()
        {
            let why = format!("is {sku}, and there is no such product: it never existed, or it was deleted");
            return Err(Invalid::new("sku", why).into());
        }
        // No page ends there, and to wait for it would be to wait for ever.
        let end = as_of.at.position.index;
        if let Subject::Entry { index, .. } = &subject
            && *index > end
        {
            let why = format!("is {index}, and the log of shard {} ends at {end}", shard.id());
            return Err(Invalid::new("entry.index", why).into());
        }
        if let Some((index, _)) = before.filter(|(index, _)| *index > end) {
            let why = format!(
                "names index {index} of shard {}, which ends at {end}; take `next` of the page before",
                shard.id()
            );
            return Err(Invalid::new("before", why).into());
        }
        let from = before.map_or(Begin::Head(head), Begin::Page);
        if let Some((index, _)) = head {
            // The ledger shows a change a moment before its record is in history. When that does
            // not come in time, history says so.
            let mut applied = shard.applied();
            let _late = tokio::time::timeout(self.within, applied.wait_for(|to| to.position.index >= index)).await;
        }
        let (id, history) = (shard.id(), shard.history().clone());
        let walk = move || explain(&*history, id, &subject, from, max);
        let explained = if shard.history().reads_block() {
            let _place = self.source.map(|source| self.api.explains.take(source)).transpose()?;
            let walked = tokio::time::timeout(self.within, self.api.pace.explain(walk)).await;
            let walked = walked.map_err(|_| {
                let why = "too many explanations are under way on this node; ask again later, or another node";
                ReadFailure::NotNow(NotNow::new(Cause::Overloaded, why, RETRY_OVERLOADED_MS))
            })?;
            walked.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
        } else {
            walk()
        };
        explained
            .map(|explanation| (id, explanation))
            .map_err(|error| ReadFailure::NotNow(not_here(self.api, id, &error)))
    }
}

/// History misses it here.
pub fn not_here(api: &Api, shard: u32, error: &HistoryError) -> NotNow {
    let mut why = NotNow::new(Cause::NotServing, error.to_string(), RETRY_UNWELL_MS);
    why.leader = api.node.leader_addr_of(shard).map(|addr| addr.to_string());
    why
}

/// The shard has no replica here: who leads it, or who is missing.
pub(super) fn elsewhere(api: &Api, shard: u32) -> NotNow {
    if let Some(why) = api.node.no_quorum_of(shard) {
        return why;
    }
    let leader = api.node.leader_addr_of(shard).map(|addr| addr.to_string());
    let mut why = NotNow::not_leader(leader);
    why.message = format!("shard {shard} has no replica on this node; ask a node that has one");
    why
}
