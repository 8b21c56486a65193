//! The node's context: what the servers, the tasks and `main` share.
//!
//! **Owns** the shard table, the node's state, and the answers to operators. **Must never** hold a lock across an await.
//! **Read next**: [`crate::shard`], [`crate::init`], [`crate::cluster_state`].

use std::sync::Arc;

use ledger_core::types::Slot;
use ledger_proto::v1;
use ledger_raft::NodeId;
use ledger_raft::seam::Seams;

use crate::config::NodeConfig;
use crate::history::HistoryFactory;
use crate::shard::Shard;

/// Everything that asks the world, for one node.
#[derive(Clone)]
pub struct NodeSeams {
    /// Network, wall clock, randomness, disk.
    pub raft: Seams,
    /// Where histories are kept: sled on disk, or memory in simulation.
    pub history: Arc<dyn HistoryFactory>,
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
    _private: (),
}

impl ShardTable {
    /// The shard that owns a slot and has a replica here.
    pub fn shard_for_slot(&self, _slot: Slot) -> Option<&Arc<Shard>> {
        todo!()
    }
    /// The number of the shard that owns a slot, here or elsewhere; none before the cluster is initialised.
    pub fn shard_id_for_slot(&self, _slot: Slot) -> Option<u32> {
        todo!()
    }
    /// All shards with a replica here, by number.
    pub fn shards(&self) -> &[Arc<Shard>] {
        todo!()
    }
}

/// One node.
pub struct Node {
    _private: (),
}

impl Node {
    /// Its configuration.
    pub fn config(&self) -> &NodeConfig {
        todo!()
    }
    /// Its seams.
    pub fn seams(&self) -> &NodeSeams {
        todo!()
    }
    /// Its number; none before it joined a cluster.
    pub fn node_id(&self) -> Option<NodeId> {
        todo!()
    }
    /// What it is up to.
    pub fn state(&self) -> NodeState {
        todo!()
    }
    /// The state, watched.
    pub fn watch_state(&self) -> tokio::sync::watch::Receiver<NodeState> {
        todo!()
    }
    /// The present shard table; take it once a frame, not once a call.
    pub fn table(&self) -> Arc<ShardTable> {
        todo!()
    }
    /// The shard that owns a slot, if it has a replica here.
    pub fn shard_for_slot(&self, slot: Slot) -> Option<Arc<Shard>> {
        self.table().shard_for_slot(slot).cloned()
    }
    /// One shard with a replica here.
    pub fn shard(&self, _shard: u32) -> Option<Arc<Shard>> {
        todo!()
    }
    /// All shards with a replica here.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        self.table().shards().to_vec()
    }
    /// The client address of a member.
    pub fn client_addr_of(&self, _node: NodeId) -> Option<Arc<str>> {
        todo!()
    }
    /// The client address of the node that leads a shard, as far as known here (for shards without a replica here too).
    pub fn leader_addr_of(&self, _shard: u32) -> Option<Arc<str>> {
        todo!()
    }
    /// The cluster's id and incarnation; none before it joined one.
    pub fn cluster(&self) -> Option<([u8; 16], u64)> {
        todo!()
    }
    /// Placement, leaders and addresses as known here.
    pub fn routing(&self) -> v1::Routing {
        todo!()
    }
    /// Admin.NodeStatus.
    pub fn status(&self) -> v1::NodeStatusResponse {
        todo!()
    }
    /// Admin.Audit: recomputes every invariant of the shards here.
    pub fn audit(&self) -> v1::AuditResponse {
        todo!()
    }
    /// Admin.Digests.
    pub fn digests(&self) -> v1::DigestsResponse {
        todo!()
    }
    /// Admin.Init.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn init(self: &Arc<Self>, _request: v1::InitRequest) -> Result<v1::InitResponse, AdminError> {
        todo!()
    }
    /// Admin.Join.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn join(self: &Arc<Self>, _request: v1::JoinRequest) -> Result<v1::JoinResponse, AdminError> {
        todo!()
    }
    /// Admin.TransferLeader.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn transfer_leader(&self, _request: v1::TransferLeaderRequest) -> Result<(), AdminError> {
        todo!()
    }
    /// Admin.Snapshot: the index of the new snapshot.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn snapshot(&self, _shard: u32) -> Result<u64, AdminError> {
        todo!()
    }
}
