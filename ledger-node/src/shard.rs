//! One shard on this node: the core's ledger as the state machine of a raft group, and what reads and writes it.
//!
//! **Owns** the joining of core and raft: decode once, apply, outcomes to the proposer, the record to feed and history.
//! **Must never** decide anything about stock, or hold the ledger's lock across an await.
//! **Read next**: [`crate::door`], [`crate::shard::machine`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ledger_core::types::LedgerTime;
use ledger_core::{IndexSeed, Ledger, Position};
use ledger_raft::{Group, GroupStatus, ReadError, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::door::{Door, DoorBounds};
use crate::feed::FeedRing;
use crate::history::History;
use crate::memory::ReplicaMemory;
use crate::repairs::RepairTurns;

pub(crate) mod machine;

pub use machine::Sabotage;

/// How far this replica has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedTo {
    /// Position of the last applied entry (place 0).
    pub position: Position,
    /// Ledger time there.
    pub time: LedgerTime,
}

/// What the state machine and the readers share; outlives a reinstall of the replica.
pub(crate) struct ShardState {
    pub(crate) id: u32,
    pub(crate) incarnation: u64,
    /// Of the indexes of every ledger that this replica builds.
    pub(crate) index_seed: IndexSeed,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) applied: watch::Sender<AppliedTo>,
    pub(crate) feed: Arc<FeedRing>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) sabotage: Option<Sabotage>,
    /// What its records take.
    pub(crate) memory: Arc<ReplicaMemory>,
    /// How often another state took the ledger's place; changes under the ledger's lock.
    replaced: AtomicU64,
    /// Whom the replica asks for its repair, when it is stopped.
    pub(crate) repairs: Mutex<RepairTurns>,
}

/// The group of the moment and the tasks that serve it.
struct Running {
    group: Group,
    stop: CancellationToken,
}

/// A replica of a shard on this node.
pub struct Shard {
    state: Arc<ShardState>,
    door: Door,
    running: RwLock<Running>,
}

impl ShardState {
    pub(crate) fn new(
        id: u32,
        incarnation: u64,
        index_seed: IndexSeed,
        history: Arc<dyn History>,
        sabotage: Option<Sabotage>,
        memory: ReplicaMemory,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            incarnation,
            index_seed,
            ledger: Mutex::new(Ledger::new(incarnation, id, index_seed)),
            applied: watch::Sender::default(),
            feed: Arc::new(FeedRing::new(id)),
            history,
            sabotage,
            memory: Arc::new(memory),
            replaced: AtomicU64::new(0),
            repairs: Mutex::default(),
        })
    }

    /// Another state takes the ledger's place.
    pub(crate) fn replace(&self, ledger: &mut Ledger, by: Ledger) {
        *ledger = by;
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// How often another state took the ledger's place.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Looks at the ledger, unless another state took its place since [`Self::replaced`] was `since`.
    pub(crate) fn with_ledger_since<T>(&self, since: u64, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        (self.replaced() == since).then(|| look(&ledger))
    }
}

impl Shard {
    pub(crate) fn new(state: Arc<ShardState>, bounds: DoorBounds, group: Group) -> Arc<Self> {
        let running = RwLock::new(Running { group, stop: CancellationToken::new() });
        let ledger = state.clone();
        let knows = move |id| ledger.ledger.lock().unwrap_or_else(PoisonError::into_inner).knows(id);
        let door = Door::new(bounds, state.memory.clone(), Box::new(knows));
        Arc::new(Self { state, door, running })
    }
    /// Its number: the raft group, from 1 on.
    pub fn id(&self) -> u32 {
        self.state.id
    }
    /// The one way into its log.
    pub fn door(&self) -> &Door {
        &self.door
    }
    /// Its raft group (replaced when the replica is reinstalled: do not keep it).
    pub fn group(&self) -> Group {
        self.running.read().unwrap_or_else(PoisonError::into_inner).group.clone()
    }
    /// Waits until everything committed when the call began is applied here (linearizable reads).
    ///
    /// # Errors
    /// [`ReadError`]: ask the leader or come back.
    pub async fn read_index(&self, within: Duration) -> Result<u64, ReadError> {
        self.group().read_index(within).await
    }
    /// Looks at the ledger; synchronously, briefly.
    pub fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.state.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// How far this replica has applied, watched.
    pub fn applied(&self) -> watch::Receiver<AppliedTo> {
        self.state.applied.subscribe()
    }
    /// The newest records in memory, for watchers.
    pub fn feed(&self) -> &Arc<FeedRing> {
        &self.state.feed
    }
    /// What the indexes of its ledgers are hashed with.
    pub(crate) fn index_seed(&self) -> IndexSeed {
        self.state.index_seed
    }
    /// This node's history (of all its shards; ask by [`Self::id`]).
    pub fn history(&self) -> &Arc<dyn History> {
        &self.state.history
    }
    /// Whether this node leads the shard now.
    pub fn leads(&self) -> bool {
        self.status().role == Role::Leader
    }
    /// Its raft status.
    pub fn status(&self) -> GroupStatus {
        self.running.read().unwrap_or_else(PoisonError::into_inner).group.status()
    }
    /// Milliseconds since this replica knew that it was current: a leader's since its last quorum; none when unknown.
    pub fn age_ms(&self) -> Option<u64> {
        self.status().quorum_age_ms
    }

    pub(crate) fn state(&self) -> &Arc<ShardState> {
        &self.state
    }
    /// Stops the tasks of the group so far.
    pub(crate) fn stop_tasks(&self) {
        self.running.read().unwrap_or_else(PoisonError::into_inner).stop.cancel();
    }
    /// The token that stops the tasks of the present group.
    pub(crate) fn tasks_stop(&self) -> CancellationToken {
        self.running.read().unwrap_or_else(PoisonError::into_inner).stop.clone()
    }
    /// A reinstalled group takes the place of the one before, whose tasks must have been stopped.
    pub(crate) fn replace_group(&self, group: Group) {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.stop.cancel();
        *running = Running { group, stop: CancellationToken::new() };
    }
}
