//! The node's context: what the servers, the tasks and `main` share.
//!
//! **Owns** the shard table, the node's state, and the answers to operators. **Must never** hold a lock across an await.
//! **Read next**: [`crate::shard`], [`crate::init`], [`crate::meta`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::limits::SLOTS;
use ledger_core::types::Slot;
use ledger_proto::NotNow;
use ledger_raft::identity::IdentityFile;
use ledger_raft::seam::Seams;
use ledger_raft::{Group, NodeId, RaftNode};
use metrics::Histogram;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::submit::not_now_of;
use crate::audit::Audits;
use crate::config::NodeConfig;
use crate::data_dir::{DataDir, Ports, Stamp};
use crate::digest::DigestCounts;
use crate::door::{DoorBounds, NodeNotNow};
use crate::elsewhere::Elsewhere;
use crate::gates::Gates;
use crate::history::{History, HistoryFactory};
use crate::limits;
use crate::measured::Measured;
use crate::memory::MemoryBudget;
use crate::meta::{META_GROUP, MemberEntry, Placement};
use crate::peers::Question;
use crate::shard::machine::ShardMachine;
use crate::shard::{Sabotage, Shard, ShardState};

/// Everything that asks the world, for one node.
#[derive(Clone)]
pub struct NodeSeams {
    /// Network, wall clock, randomness, disk.
    pub raft: Seams,
    /// Where histories are kept: sled on disk, or memory in simulation.
    pub history: Arc<dyn HistoryFactory>,
    /// Breaks this node's replicas on purpose, for tests of what notices it; none anywhere else.
    pub sabotage: Option<Sabotage>,
    /// How many descriptors the process may open, if the node is to keep within them.
    pub descriptors: Option<u64>,
    /// How much memory the machine has, if the node is to keep within it.
    pub memory: Option<u64>,
}

impl NodeSeams {
    /// Everything real.
    pub fn real() -> Self {
        let disk = Arc::new(ledger_raft::disk::RealDisk::new());
        Self::new(Seams::with_disk(disk), Arc::new(crate::history::SledHistory))
    }
    /// Everything real, for a process that is one node: it may open all the descriptors that the
    /// system allows, and its memory is the machine's.
    pub fn of_this_process() -> Self {
        let memory = crate::memory::of_machine();
        Self { descriptors: Some(service::descriptors::raise()), memory, ..Self::real() }
    }
    /// These.
    pub fn new(raft: Seams, history: Arc<dyn HistoryFactory>) -> Self {
        Self { raft, history, sabotage: None, descriptors: None, memory: None }
    }
}

/// What the node is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Opening its log and catching up.
    Starting,
    /// Running, empty, and waiting for `cluster init`.
    Uninitialised,
    /// Part of a cluster, its shards started.
    Serving,
    /// Shutting down: takes no new calls.
    Stopping,
}

impl NodeState {
    /// As operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Uninitialised => "uninitialised",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
        }
    }
}

/// Why an operator's call was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The request is malformed: INVALID_ARGUMENT.
    #[error("{0}")]
    Invalid(String),
    /// The node's state forbids it and waiting does not help: FAILED_PRECONDITION.
    #[error("{0}")]
    Refused(String),
    /// Not now; repeat the command: UNAVAILABLE.
    #[error("{0}")]
    NotNow(String),
    /// No such shard or node here: NOT_FOUND.
    #[error("{0}")]
    NotFound(String),
    /// It broke: INTERNAL.
    #[error("{0}")]
    Failed(String),
}

/// Which shard owns which slot, and the shards that have a replica on this node. A frozen picture.
pub struct ShardTable {
    /// Slot → shard number; 0 before the cluster is initialised.
    owner: Vec<u32>,
    /// Slot → place in `local`; `NOT_HERE` when the shard has no replica here.
    by_slot: Vec<u16>,
    local: Vec<Arc<Shard>>,
}

const NOT_HERE: u16 = u16::MAX;

impl ShardTable {
    /// The table of a placement and the shards that run here.
    pub(crate) fn new(placement: Option<&Placement>, mut local: Vec<Arc<Shard>>) -> Self {
        local.sort_by_key(|shard| shard.id());
        let mut table = Self { owner: vec![0; SLOTS.into()], by_slot: vec![NOT_HERE; SLOTS.into()], local };
        for shard in placement.iter().flat_map(|placement| &placement.shards) {
            let place = table.local.iter().position(|here| here.id() == shard.shard);
            for slot in shard.slots.iter().flat_map(|&(from, to)| from..=to) {
                table.owner[usize::from(slot)] = shard.shard;
                table.by_slot[usize::from(slot)] = place.map_or(NOT_HERE, |place| place as u16);
            }
        }
        table
    }
    /// The shard that owns a slot and has a replica here.
    pub fn shard_for_slot(&self, slot: Slot) -> Option<&Arc<Shard>> {
        self.local.get(usize::from(self.by_slot[usize::from(slot.get())]))
    }
    /// The number of the shard that owns a slot, here or elsewhere; none before the cluster is initialised.
    pub fn shard_id_for_slot(&self, slot: Slot) -> Option<u32> {
        Some(self.owner[usize::from(slot.get())]).filter(|&shard| shard != 0)
    }
    /// All shards with a replica here, by number.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.local
    }
}

/// What a node has once it belongs to a cluster.
pub(crate) struct Running {
    stamp: RwLock<Arc<Stamp>>,
    /// One change of the stamp at a time.
    changing: Mutex<()>,
    pub(crate) raft: RaftNode,
    /// As it was started first; see [`Running::meta`].
    pub(crate) first_meta: Group,
    pub(crate) history: Arc<dyn History>,
}

impl Running {
    pub(crate) fn new(stamp: Stamp, raft: RaftNode, first_meta: Group, history: Arc<dyn History>) -> Self {
        Self { stamp: RwLock::new(Arc::new(stamp)), changing: Mutex::new(()), raft, first_meta, history }
    }

    /// What the directory says, as of now: the disk of another member may be replaced.
    pub(crate) fn stamp(&self) -> Arc<Stamp> {
        self.stamp.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stamp, which changes in no way while `read` looks at it.
    pub(crate) fn with_stamp<T>(&self, read: impl FnOnce(&Stamp) -> T) -> T {
        read(&self.stamp.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the stamp: `change` makes the new one durable, and `apply` takes what is new in it
    /// while nobody looks at either.
    pub(crate) fn change_stamp<E>(
        &self,
        change: impl FnOnce(&Stamp) -> Result<Option<Stamp>, E>,
        apply: impl FnOnce(&Stamp),
    ) -> Result<(), E> {
        let _one_at_a_time = lock(&self.changing);
        // Readers do not wait for the disk.
        if let Some(changed) = change(&self.stamp())? {
            let mut stamp = self.stamp.write().unwrap_or_else(PoisonError::into_inner);
            apply(&changed);
            *stamp = Arc::new(changed);
        }
        Ok(())
    }

    /// The meta group. It is another one after its replica here was rebuilt: do not keep it.
    pub(crate) fn meta(&self) -> Group {
        self.raft.group(META_GROUP).unwrap_or_else(|| self.first_meta.clone())
    }
}

/// One node.
pub struct Node {
    config: NodeConfig,
    seams: NodeSeams,
    pub(crate) started: Instant,
    /// Who may connect.
    pub(crate) gates: Gates,
    /// What records may take.
    pub(crate) memory: Arc<MemoryBudget>,
    /// Taken when the node has stopped, so that the lock goes with it.
    pub(crate) dir: Arc<Mutex<Option<DataDir>>>,
    /// Where it really listens.
    pub(crate) ports: Ports,
    /// The identity file as it was before the node ran: it has the disk's id for a plan of members.
    pub(crate) identity_file: Arc<IdentityFile>,
    state: watch::Sender<NodeState>,
    running: RwLock<Option<Arc<Running>>>,
    pub(crate) placement: watch::Sender<Option<Arc<Placement>>>,
    table: RwLock<Arc<ShardTable>>,
    /// Shards without a replica here, as peers say.
    pub(crate) elsewhere: Mutex<BTreeMap<u32, Elsewhere>>,
    /// Replicas that are to run here and do not, and why.
    pub(crate) not_run: Mutex<BTreeMap<u32, String>>,
    /// What the node waits for, if it does not run all that it should.
    waiting_for: watch::Sender<Option<String>>,
    /// Wakes the reconciler.
    pub(crate) kick: Notify,
    /// Of the disk id that was drawn last for a rejoin here.
    pub(crate) rejoin_generation: Mutex<u64>,
    /// Serializes init and join.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Why the node cannot go on, once it cannot.
    pub(crate) fatal: watch::Sender<Option<String>>,
    pub(crate) digest_counts: DigestCounts,
    audits: Audits,
    /// Where commands per entry are counted, once there are metrics.
    entry_commands: OnceLock<Histogram>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Node {
    pub(crate) fn new(
        config: NodeConfig,
        seams: NodeSeams,
        dir: DataDir,
        ports: Ports,
        identity_file: Arc<IdentityFile>,
        gates: Gates,
    ) -> Arc<Self> {
        let memory = MemoryBudget::new(config.memory_max_bytes, seams.memory);
        Arc::new(Self {
            config,
            seams,
            memory,
            started: Instant::now(),
            gates,
            dir: Arc::new(Mutex::new(Some(dir))),
            ports,
            identity_file,
            state: watch::Sender::new(NodeState::Starting),
            running: RwLock::new(None),
            placement: watch::Sender::new(None),
            table: RwLock::new(Arc::new(ShardTable::new(None, Vec::new()))),
            elsewhere: Mutex::default(),
            not_run: Mutex::default(),
            waiting_for: watch::Sender::new(None),
            kick: Notify::new(),
            rejoin_generation: Mutex::default(),
            joining: tokio::sync::Mutex::new(()),
            fatal: watch::Sender::new(None),
            digest_counts: DigestCounts::default(),
            audits: Audits::default(),
            entry_commands: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }
    /// Its configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }
    /// Its seams.
    pub fn seams(&self) -> &NodeSeams {
        &self.seams
    }
    /// Its number; none before it joined a cluster.
    pub fn node_id(&self) -> Option<NodeId> {
        self.running().map(|running| NodeId(running.stamp().node))
    }
    /// What it is up to.
    pub fn state(&self) -> NodeState {
        *self.state.borrow()
    }
    /// The state, watched.
    pub fn watch_state(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }
    /// Moves on; a stopping node stays that.
    pub(crate) fn set_state(&self, state: NodeState) {
        self.state.send_if_modified(|present| {
            let moves = *present != state && *present != NodeState::Stopping;
            if moves {
                *present = state;
            }
            moves
        });
    }
    /// The present shard table; take it once a frame, not once a call.
    pub fn table(&self) -> Arc<ShardTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn set_table(&self, table: ShardTable) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
    /// The shard that owns a slot, if it has a replica here.
    pub fn shard_for_slot(&self, slot: Slot) -> Option<Arc<Shard>> {
        self.table().shard_for_slot(slot).cloned()
    }
    /// One shard with a replica here.
    pub fn shard(&self, shard: u32) -> Option<Arc<Shard>> {
        self.table().shards().iter().find(|here| here.id() == shard).cloned()
    }
    /// All shards with a replica here.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        self.table().shards().to_vec()
    }
    /// The placement in force, as known here.
    pub fn placement(&self) -> Option<Arc<Placement>> {
        self.placement.borrow().clone()
    }
    /// The members: of the placement, or of the stamp while there is none yet.
    pub fn members(&self) -> Vec<MemberEntry> {
        match (self.placement(), self.running()) {
            (Some(placement), _) => placement.members.clone(),
            (None, Some(running)) => running.stamp().members.clone(),
            (None, None) => Vec::new(),
        }
    }
    /// This node's own entries: in the placement and in the stamp, whose addresses may differ.
    pub(crate) fn own_entries(&self) -> Vec<MemberEntry> {
        let Some(running) = self.running() else { return Vec::new() };
        let stamp = running.stamp();
        let own = stamp.node;
        let placed = self.placement().and_then(|placement| placement.member(own).cloned());
        placed.into_iter().chain(stamp.members.iter().find(|member| member.node == own).cloned()).collect()
    }
    /// The client address of a member.
    pub fn client_addr_of(&self, node: NodeId) -> Option<Arc<str>> {
        let placement = self.placement.borrow();
        placement.as_ref()?.member(node.0).map(|member| member.client.as_str().into())
    }
    /// Who leads a shard, as far as known here. A leader that is silent for a moment is still
    /// named; nobody is while the shard has no quorum.
    pub fn leader_of(&self, shard: u32) -> Option<NodeId> {
        match self.shard(shard) {
            Some(here) => {
                let status = here.status();
                status.leader.filter(|_| status.no_quorum.is_none())
            }
            None => lock(&self.elsewhere).get(&shard).and_then(|known| known.leader),
        }
    }
    /// Who is missing, while a shard has no quorum as far as known here.
    pub fn no_quorum_of(&self, shard: u32) -> Option<NotNow> {
        let why = match self.shard(shard) {
            Some(here) => here.status().no_quorum?,
            None => lock(&self.elsewhere).get(&shard)?.no_quorum(self.config.raft.no_quorum_after())?,
        };
        Some(not_now_of(&NodeNotNow::no_quorum(shard, &why)))
    }
    /// What the node waits for before it runs all that it should; none when it does.
    pub fn waiting_for(&self) -> Option<String> {
        self.waiting_for.borrow().clone()
    }
    /// What it waits for, watched.
    pub fn watch_waiting_for(&self) -> watch::Receiver<Option<String>> {
        self.waiting_for.subscribe()
    }
    pub(crate) fn wait_for(&self, what: Option<String>) {
        self.waiting_for.send_if_modified(|present| {
            let changes = *present != what;
            *present = what;
            changes
        });
    }
    /// The client address of the node that leads a shard, as far as known here (for shards without a replica here too).
    pub fn leader_addr_of(&self, shard: u32) -> Option<Arc<str>> {
        self.leader_of(shard).and_then(|leader| self.client_addr_of(leader))
    }
    /// The cluster's id and incarnation; none before it joined one.
    pub fn cluster(&self) -> Option<([u8; 16], u64)> {
        self.running().map(|running| running.stamp()).map(|stamp| (stamp.cluster, stamp.incarnation))
    }
    /// What the comparison of digests found, for metrics.
    pub fn digest_counts(&self) -> &DigestCounts {
        &self.digest_counts
    }
    /// Counts commands per entry from now on, in the shards started after that.
    pub(crate) fn count_entries(&self, entry_commands: Histogram) {
        // A second one would count what the first does.
        let _first = self.entry_commands.set(entry_commands);
    }
    /// The state machine of one shard's replica.
    pub(crate) fn machine(&self, state: Arc<ShardState>) -> Measured {
        let entry_commands = self.entry_commands.get().cloned().unwrap_or_else(Histogram::noop);
        Measured::new(ShardMachine::new(state), entry_commands)
    }
    /// Its audits since the start.
    pub fn audits(&self) -> &Audits {
        &self.audits
    }
    /// This node's history; none before it joined a cluster.
    pub fn history(&self) -> Option<Arc<dyn History>> {
        self.running().map(|running| running.history.clone())
    }
    /// This node's replica of the meta group; none before it belongs to a cluster.
    pub fn meta_group(&self) -> Option<Group> {
        self.running().map(|running| running.meta())
    }
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn set_running(&self, running: Option<Arc<Running>>) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }
    pub(crate) fn door_bounds(&self) -> DoorBounds {
        DoorBounds {
            calls: self.config.queue_calls,
            bytes: self.config.queue_bytes,
            reserved_percent: self.config.queue_reserved_percent,
        }
    }
    /// Asks another node something that is not Raft's.
    pub(crate) async fn ask(&self, to: NodeId, question: &Question) -> io::Result<Bytes> {
        self.ask_within(to, question, limits::PEER_QUESTION_WITHIN).await
    }
    /// As [`Self::ask`], of a peer that may wait for its disk.
    pub(crate) async fn ask_within(&self, to: NodeId, question: &Question, within: Duration) -> io::Result<Bytes> {
        let running = self.running().ok_or_else(|| io::Error::other("this node belongs to no cluster"))?;
        let peer = self.placement().and_then(|p| p.member(to.0).map(|m| m.peer.clone())).unwrap_or_default();
        running.raft.ask_peer(to, &peer, question.encode(), within).await
    }
    /// The node cannot go on: whoever waits for it learns why.
    pub(crate) fn fail(&self, why: String) {
        self.fatal.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(why);
            }
            first
        });
    }
}

/// A lock that outlives a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
