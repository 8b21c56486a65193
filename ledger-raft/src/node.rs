//! One node's Raft groups, its log and its peer connections.
//!
//! **Owns** the lifetime of groups, the peer listener, the log. **Must never** look inside an entry.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Committed, GroupId, GroupStatus, NodeId, ProposeError, RaftTuning, ReadError, StateMachine};
use crate::seam::Seams;

/// What a node needs to be opened.
#[derive(Clone)]
pub struct RaftNodeConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster's random id; peers of another cluster are refused at the handshake.
    pub cluster: [u8; 16],
    /// The cluster's incarnation; peers of another one are refused.
    pub incarnation: u64,
    /// Directory that holds `wal/` and `snapshots/`; the caller has stamped and locked it.
    pub dir: PathBuf,
    /// Where peers connect to, `host:port`; port 0 picks one.
    pub peer_listen: String,
    /// Numbers.
    pub tuning: RaftTuning,
}

/// Answers requests of peers that are not Raft's: digests, history backfill, and the like. Opaque bytes both ways.
pub type PeerHandler =
    Arc<dyn Fn(NodeId, Bytes) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>> + Send + Sync>;

/// One node: many groups, one log, one peer listener.
#[derive(Clone)]
pub struct RaftNode {
    _private: (),
}

impl RaftNode {
    /// Opens the log (checking every frame), and starts the peer listener. Groups are started by [`Self::start_group`].
    ///
    /// # Errors
    /// A damaged log names file, offset and group; a foreign one its stamp.
    pub async fn open(_config: RaftNodeConfig, _seams: Seams, _peers: PeerHandler) -> io::Result<Self> {
        todo!()
    }
    /// Where peers really connect to.
    pub fn peer_addr(&self) -> std::net::SocketAddr {
        todo!()
    }
    /// Starts a group: restores `machine` from the newest good snapshot and the log. Not yet a member of anything until
    /// [`Group::initialize`] ran on one of its members, once.
    ///
    /// # Errors
    /// Damage, named; or the group runs already.
    pub async fn start_group<M: StateMachine>(&self, _group: GroupId, _machine: M) -> io::Result<Group> {
        todo!()
    }
    /// A running group.
    pub fn group(&self, _group: GroupId) -> Option<Group> {
        todo!()
    }
    /// Asks a peer's [`PeerHandler`].
    ///
    /// # Errors
    /// Unreachable, or not answered within `within`.
    pub async fn ask_peer(&self, _to: NodeId, _addr: &str, _request: Bytes, _within: Duration) -> io::Result<Bytes> {
        todo!()
    }
    /// Throws away this replica's state of a group and takes a snapshot from `from` instead; for replicas whose digest
    /// disagrees with the majority. The log and the vote are kept.
    ///
    /// # Errors
    /// The peer has no snapshot or cannot be reached; the group stays stopped then.
    pub async fn reinstall<M: StateMachine>(&self, _group: GroupId, _from: NodeId, _machine: M) -> io::Result<Group> {
        todo!()
    }
    /// Syncs of the log since start, for metrics.
    pub fn wal_syncs(&self) -> u64 {
        todo!()
    }
    /// Hands over the leadership of every group led here, waits for it up to `within`, stops all groups and the log.
    pub async fn shutdown(&self, _within: Duration) {
        todo!()
    }
}

/// One group on this node.
#[derive(Clone)]
pub struct Group {
    _private: (),
}

impl Group {
    /// Which group.
    pub fn id(&self) -> GroupId {
        todo!()
    }
    /// Makes these nodes (id → peer address) the first voters. Idempotent for the same members.
    ///
    /// # Errors
    /// The group has other members already.
    pub async fn initialize(&self, _voters: BTreeMap<NodeId, String>) -> io::Result<()> {
        todo!()
    }
    /// Whether the group has members.
    pub async fn is_initialized(&self) -> bool {
        todo!()
    }
    /// Stamps and appends one entry; answers when it is durable on a quorum and applied here.
    ///
    /// Stamps are taken in log order. Several may be in flight. Dropping the future does not withdraw the entry.
    ///
    /// # Errors
    /// [`ProposeError`]: only `Unknown` may have happened.
    pub fn propose(&self, _data: Bytes) -> impl Future<Output = Result<Committed, ProposeError>> + Send + 'static {
        async { todo!() }
    }
    /// Waits until this replica has applied everything that was committed when the call began (ReadIndex, coalesced;
    /// asks the leader when this node does not lead). Returns the index.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_index(&self, _within: Duration) -> Result<u64, ReadError> {
        todo!()
    }
    /// The stamp the leader would give now; none when it does not lead or its clock is unsure. For ticks.
    pub fn stamp_now(&self) -> Option<u64> {
        todo!()
    }
    /// Present status.
    pub fn status(&self) -> GroupStatus {
        todo!()
    }
    /// Status, watched: role, leader and membership changes always arrive.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<GroupStatus> {
        todo!()
    }
    /// Hands leadership to `to`.
    ///
    /// # Errors
    /// This node does not lead, or the transfer did not happen within `within`.
    pub async fn transfer_leader(&self, _to: NodeId, _within: Duration) -> io::Result<()> {
        todo!()
    }
    /// Builds a snapshot now; answers with its index when it is durable.
    ///
    /// # Errors
    /// Disk errors.
    pub async fn snapshot_now(&self) -> io::Result<u64> {
        todo!()
    }
    /// Keeps log entries above `index` from being purged (history still needs them); `u64::MAX` lifts it.
    pub fn hold_purge_above(&self, _index: u64) {
        todo!()
    }
    /// Reads raw entries `from..=to` that are still in the log, at most `bytes_max`: (position, stamp, data). Entries of
    /// Raft itself (blank, membership) are left out.
    ///
    /// # Errors
    /// `NotFound` when purged.
    pub async fn read_entries(
        &self,
        _from: u64,
        _to: u64,
        _bytes_max: usize,
    ) -> io::Result<Vec<(crate::api::LogPosition, u64, Bytes)>> {
        todo!()
    }
    /// Stops this replica of the group and says why in its status; it neither votes nor leads until reinstalled.
    pub async fn quarantine(&self, _why: String) {
        todo!()
    }
}
