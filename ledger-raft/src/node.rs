//! One node's Raft groups, its log and its peer connections.
//!
//! **Owns** the lifetime of groups, the peer listener, the log. **Must never** look inside an entry.
//! **Read next**: [`crate::api`] (its words); inside: `start`, `group`, `transport`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::{ChangeMembers, EntryPayload};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{
    Committed, DiskId, GroupId, GroupStatus, LogPosition, NodeId, ProposeError, RaftTuning, ReadError, Role,
    StateMachine,
};
use crate::group::GroupCore;
use crate::identity::IdentityFile;
use crate::leading::best_heir;
use crate::limits::{
    ADDRESS_BYTES_MAX, APPEND_BYTES_SOFT, ASK_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_HEAD_ROOM, FOUNDERS_WITHIN, MEMBERS_MAX,
};
use crate::reads;
use crate::repair::{self, Marks, Quarantine};
use crate::seam::Seams;
use crate::snapshot::blocking;
use crate::start::{self, Ground};
use crate::transport::frame::Kind;
use crate::transport::handshake::Identity;
use crate::transport::link::Links;
use crate::transport::members::Members;
use crate::transport::server::{Registry, serve};
use crate::transport::twins::Twin;
use crate::types::{Membership, Peer, position};
use crate::upkeep;
use crate::wal::{Wal, WalConfig, WalIdentity, WalUsage};

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
    /// The identity file of `dir`, claimed for this node.
    pub identity: Arc<IdentityFile>,
    /// The other members as far as they are known; [`RaftNode::know_peer`] adds more. Nobody else is
    /// a peer.
    pub peers: BTreeMap<NodeId, PeerEntry>,
    /// From which addresses peers connect.
    pub peers_from: AddressPolicy,
    /// Numbers.
    pub tuning: RaftTuning,
}

/// How another member is reached, and on which disk it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// `host:port` of its peer port.
    pub addr: String,
    /// Its disk.
    pub disk: DiskId,
}

/// Whether a peer may connect from an address. The error says why not, for the log; nothing is read
/// from a connection that is refused.
pub type AddressPolicy = Arc<dyn Fn(SocketAddr) -> Result<(), String> + Send + Sync>;

/// Answers requests of peers that are not Raft's: digests, history backfill, and the like. Opaque bytes both ways.
pub type PeerHandler =
    Arc<dyn Fn(NodeId, Bytes) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>> + Send + Sync>;

/// One node: many groups, one log, one peer listener.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    peer_addr: SocketAddr,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever forgets to shut down gets a stop without handing over.
        self.ground.registry.stop.cancel();
    }
}

impl RaftNode {
    /// Opens the log (checking every frame), and starts the peer listener. Groups are started by [`Self::start_group`].
    ///
    /// # Errors
    /// A damaged log names file, offset and group; a foreign one its stamp.
    pub async fn open(config: RaftNodeConfig, seams: Seams, handler: PeerHandler) -> io::Result<Self> {
        let RaftNodeConfig {
            node,
            cluster,
            incarnation,
            dir,
            peer_listen,
            identity: record,
            peers,
            peers_from,
            tuning,
        } = config;
        let snapshots_dir = dir.join("snapshots");
        seams.disk.create_dir_all(&snapshots_dir)?;
        let wal_config = WalConfig {
            segment_bytes: tuning.segment_bytes,
            low_space_bytes: tuning.low_space_bytes,
            tail_cache_bytes: tuning.tail_cache_bytes,
            entry_bytes_max: ENTRY_BYTES_MAX + ENTRY_HEAD_ROOM,
            ..WalConfig::default()
        };
        let identity = WalIdentity { cluster, incarnation, node };
        if record.owner() != Some(identity) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the identity file is not this node's"));
        }
        let me = Identity { cluster, incarnation, node, disk: record.disk_id(), run: seams.random.next_u64() };
        let wal = Wal::open_recorded(seams.disk.clone(), dir.join("wal"), identity, wal_config, record).await?;
        let listener = seams.net.listen(&peer_listen).await?;
        let peer_addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let members = Arc::new(Members::new(stop.clone()));
        let links = Arc::new(Links::new(me, members, seams.clone(), stop.clone()));
        for (peer, entry) in &peers {
            know(&links, *peer, entry);
        }
        let registry = Arc::new(Registry::new(me, links, handler, peers_from, seams, stop));
        tokio::spawn(serve(registry.clone(), listener));
        let ground = Ground { registry, wal, snapshots_dir, tuning, builds: Arc::new(Semaphore::new(1)) };
        Ok(Self { inner: Arc::new(Inner { ground, peer_addr }) })
    }

    /// Accepted connections: those that have not sent a hello, and those of members.
    pub fn peer_connections(&self) -> (usize, usize) {
        self.inner.ground.registry.places.counts()
    }

    /// Nodes of which two processes are live at once, as far as both are connected here.
    pub fn twins(&self) -> Vec<Twin> {
        self.inner.ground.registry.twins.all()
    }

    /// Where peers really connect to.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer_addr
    }

    /// Starts a group: restores `machine` from the newest good snapshot and the log. Not yet a member of anything until
    /// [`Group::initialize`] ran on one of its members, once. `founders` are the first voters of the
    /// group, by address: a replica without members does not know whether it had some, and votes
    /// once a majority of these remembers nothing of it. A quarantined or damaged replica is returned stopped, with the
    /// reason in its status; [`Self::reinstall`] repairs it.
    ///
    /// # Errors
    /// The disk's; or the group runs already, or has more founders than members may be.
    pub async fn start_group<M: StateMachine>(
        &self,
        group: GroupId,
        founders: &BTreeMap<NodeId, String>,
        machine: M,
    ) -> io::Result<Group> {
        let ground = &self.inner.ground;
        if ground.registry.group(group).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("group {} runs already", group.0)));
        }
        check_members(founders)?;
        let core = start::start(ground, group, voters(founders)?, Box::new(machine)).await?;
        let mut groups = ground.registry.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group, core.clone());
        Ok(Group { core, snapshots_dir: ground.snapshots_dir.clone() })
    }

    /// A running group.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        let ground = &self.inner.ground;
        let core = ground.registry.group(group)?;
        Some(Group { core, snapshots_dir: ground.snapshots_dir.clone() })
    }

    /// Asks a peer's [`PeerHandler`]; an empty address means the one known already.
    ///
    /// # Errors
    /// Unreachable, or not answered within `within`.
    pub async fn ask_peer(&self, to: NodeId, addr: &str, request: Bytes, within: Duration) -> io::Result<Bytes> {
        if request.len() > ASK_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a question has at most 4 MiB"));
        }
        self.inner.ground.registry.links.to(to, addr).control.call(Kind::Ask, 0, request, within).await
    }

    /// Another member, or where it listens now. It is a peer from now on, on this disk and no other:
    /// the disk that is known first stays, until [`Self::replace_peer_disk`].
    pub fn know_peer(&self, node: NodeId, entry: &PeerEntry) {
        know(&self.inner.ground.registry.links, node, entry);
    }

    /// Where a member is looked for as well, when it is not where its groups know it: the way back when
    /// all members have moved at once. An address that the groups learn later goes first.
    pub fn hint_peer(&self, node: NodeId, addr: &str) {
        self.inner.ground.registry.links.hint(node, addr);
    }

    /// A member is on this disk from now on, and on no other. On return every connection of the disk
    /// before is closed, and none of it begins any more. The caller has recorded that durably, and
    /// never brings back a disk that was replaced.
    pub fn replace_peer_disk(&self, node: NodeId, disk: DiskId) {
        if self.inner.ground.registry.links.members.replace(node, disk) {
            tracing::warn!(node = node.0, %disk, "a member rejoins on a new disk: its old one is refused from now on");
        }
    }

    /// Whether a member has just been heard from, on the disk that it is known by.
    pub fn hears_peer(&self, node: NodeId) -> bool {
        self.inner.ground.registry.links.is_heard(node)
    }

    /// The groups here, and whether the replica of each remembers all that it promised: one that is
    /// damaged or under repair does not.
    pub fn wholeness(&self) -> BTreeMap<GroupId, bool> {
        let groups = self.inner.ground.registry.all_groups();
        groups.into_iter().map(|core| (core.id, repair::is_whole(&core))).collect()
    }

    /// Throws away this replica's state of a group and takes a snapshot from `from` instead; for replicas whose digest
    /// disagrees with the majority. The log and the vote are kept, unless the log is damaged: then it is rebuilt from peers too,
    /// and the replica neither votes nor leads until it has caught up with a leader elected after that; all other voters must
    /// be reachable.
    ///
    /// Waits until the state machine before has ended, so that it and `machine` may share a state.
    ///
    /// # Errors
    /// The peer has no snapshot or cannot be reached, or the machine before does not end; the group
    /// stays stopped then.
    pub async fn reinstall<M: StateMachine>(&self, group: GroupId, from: NodeId, machine: M) -> io::Result<Group> {
        let ground = &self.inner.ground;
        let old = ground.registry.group(group);
        if let Some(old) = &old {
            old.mark_stopped("it is being reinstalled");
            if let Some(raft) = &old.raft {
                let _joined = old.seeded(raft.shutdown()).await;
            }
            old.stop.cancel();
            let snapshots = old.snapshots.clone();
            blocking(&old.seams.disk, move || snapshots.retire()).await?;
            old.progress.retire().await?;
        }
        if let Err(error) = repair::prepare(ground, group, from).await {
            if let Some(old) = &old {
                old.repair_waits(error.to_string());
            }
            return Err(error);
        }
        let founders = old.map(|old| old.founders.clone()).unwrap_or_default();
        let core = start::start(ground, group, founders, Box::new(machine)).await?;
        let mut groups = ground.registry.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group, core.clone());
        Ok(Group { core, snapshots_dir: ground.snapshots_dir.clone() })
    }

    /// Syncs of the log since start, for metrics.
    pub fn wal_syncs(&self) -> u64 {
        self.inner.ground.wal.syncs()
    }

    /// These are all groups that this node has. Once none of them is damaged, damage that may have
    /// hit groups without a word in the log is over, and a group that comes later begins whole.
    ///
    /// # Errors
    /// The log's.
    pub async fn has_all_of(&self, groups: &[GroupId]) -> io::Result<()> {
        let ground = &self.inner.ground;
        let is_whole =
            |group: &GroupId| ground.registry.group(*group).is_some_and(|core| core.store.log().damage().is_none());
        if groups.iter().all(is_whole) { ground.wal.clear_others().await } else { Ok(()) }
    }

    /// How large the log is, and how much of it is live.
    pub fn wal_usage(&self) -> WalUsage {
        self.inner.ground.wal.usage()
    }

    /// Becomes the reason once a write or sync of the log failed: the process must stop.
    pub fn wal_poisoned(&self) -> watch::Receiver<Option<String>> {
        self.inner.ground.wal.poisoned()
    }

    /// Whether the log's disk is below its low-space mark.
    pub fn low_space(&self) -> bool {
        *self.inner.ground.wal.low_space().borrow()
    }

    /// Hands over the leadership of every group led here, waits for it up to `within`, stops all groups and the log.
    pub async fn shutdown(&self, within: Duration) {
        let ground = &self.inner.ground;
        let groups: Vec<_> = {
            let groups = ground.registry.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.values().cloned().collect()
        };
        let until = Instant::now() + within;
        futures::future::join_all(groups.iter().map(|core| hand_over(core, until))).await;
        for core in &groups {
            core.mark_stopped("shutting down");
            if let Some(raft) = &core.raft {
                let _joined = core.seeded(raft.shutdown()).await;
            }
            core.stop.cancel();
        }
        ground.registry.stop.cancel();
        ground.wal.close().await;
    }
}

fn know(links: &Links, node: NodeId, entry: &PeerEntry) {
    if let Err(known) = links.members.know(node, entry.disk) {
        tracing::error!(node = node.0, %known, other = %entry.disk, "a member is named with another disk: the one known stays");
    }
    let _links = links.to(node, &entry.addr);
}

/// Refuses members that could be written to the log, and not be read back.
fn check_members(members: &BTreeMap<NodeId, String>) -> io::Result<()> {
    if members.len() > MEMBERS_MAX {
        let why = format!("a group has at most {MEMBERS_MAX} members, these are {}", members.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    members.values().try_for_each(|addr| check_address(addr))
}

/// All of these as voters.
fn voters(members: &BTreeMap<NodeId, String>) -> io::Result<Membership> {
    if members.is_empty() {
        return Ok(Membership::default());
    }
    let nodes: BTreeMap<u64, Peer> = members.iter().map(|(id, addr)| (id.0, Peer { addr: addr.clone() })).collect();
    let wrong = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("founders: {e}"));
    Membership::new(vec![nodes.keys().copied().collect()], nodes).map_err(wrong)
}

fn check_address(addr: &str) -> io::Result<()> {
    if addr.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    let why = format!("a peer address has at most {ADDRESS_BYTES_MAX} bytes, this one has {}", addr.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Lets somebody else lead a group, if there is somebody.
async fn hand_over(core: &Arc<GroupCore>, until: Instant) {
    let led = |s: &GroupStatus| s.role == Role::Leader;
    let Some(raft) = core.raft.as_ref().filter(|_| led(&core.status_now())) else { return };
    let Some(to) = best_heir(core) else { return };
    if core.seeded(raft.trigger().transfer_leader(to.0)).await.is_ok() {
        let left = until.saturating_duration_since(Instant::now());
        let _in_vain = core.await_status(left, |s| !led(s) && s.leader.is_some_and(|l| l != core.node)).await;
    }
}

/// One group on this node.
#[derive(Clone)]
pub struct Group {
    core: Arc<GroupCore>,
    snapshots_dir: PathBuf,
}

impl Group {
    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<GroupCore> {
        &self.core
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.core.id
    }

    /// Makes these nodes (id → peer address) the first voters, once a majority of the founders has
    /// said that this replica did not forget to have begun. Idempotent for the same members.
    ///
    /// # Errors
    /// The group has other members already; or not enough founders answered within
    /// [`FOUNDERS_WITHIN`], and it may be tried again; or there are more than [`MEMBERS_MAX`], or an address
    /// is longer than [`ADDRESS_BYTES_MAX`].
    pub async fn initialize(&self, voters: BTreeMap<NodeId, String>) -> io::Result<()> {
        let raft = self.core.raft()?;
        check_members(&voters)?;
        if !self.is_initialized().await {
            self.core.gate.remembered(FOUNDERS_WITHIN).await?;
            let members: BTreeMap<u64, Peer> =
                voters.iter().map(|(id, addr)| (id.0, Peer { addr: addr.clone() })).collect();
            if let Err(e) = self.core.seeded(raft.initialize(members)).await
                && !self.is_initialized().await
            {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, e.to_string()));
            }
        }
        // The members may have come from elsewhere meanwhile; metrics may lag, so the engine itself is asked.
        let known: BTreeMap<NodeId, String> = raft
            .with_raft_state(|state| {
                let m = state.membership_state.effective();
                m.voter_ids()
                    .map(|id| (NodeId(id), m.get_node(&id).map(|n| n.addr.clone()).unwrap_or_default()))
                    .collect()
            })
            .await
            .map_err(io::Error::other)?;
        if known == voters {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("group {} has other members: {known:?}", self.core.id.0),
        ))
    }

    /// Puts these peer addresses of members into the membership, so that a restart of everybody knows them; does nothing when this node
    /// does not lead, or all are known. Who is a member, and who votes, stays as it is.
    ///
    /// # Errors
    /// The change was not committed within `within`; repeat it. An address is longer than
    /// [`ADDRESS_BYTES_MAX`]: nothing happened.
    pub async fn set_addresses(&self, addresses: &BTreeMap<NodeId, String>, within: Duration) -> io::Result<()> {
        let raft = self.core.raft()?;
        let status = self.status();
        let changed: BTreeMap<u64, Peer> = addresses
            .iter()
            .filter(|(id, addr)| status.voters.get(id).is_some_and(|known| known != *addr))
            .map(|(id, addr)| (id.0, Peer { addr: addr.clone() }))
            .collect();
        if status.role != Role::Leader || changed.is_empty() {
            return Ok(());
        }
        changed.values().try_for_each(|peer| check_address(&peer.addr))?;
        tracing::info!(group = self.core.id.0, members = ?changed, "members have other addresses now");
        let change = self.core.seeded(raft.change_membership(ChangeMembers::SetNodes(changed), true));
        match tokio::time::timeout(within, change).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(io::Error::other(e)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("not committed within {within:?}"))),
        }
    }

    /// Whether the group has members.
    pub async fn is_initialized(&self) -> bool {
        match self.core.raft() {
            Ok(raft) => raft.is_initialized().await.unwrap_or(false),
            Err(_) => false,
        }
    }

    /// Stamps and appends one entry; answers when it is durable on a quorum and applied here.
    ///
    /// Stamps are taken in log order, when this is called, not when the future is first polled. Several may be in flight.
    /// Dropping the future does not withdraw the entry.
    ///
    /// # Errors
    /// [`ProposeError`]: only `Unknown` may have happened. There is no deadline here: without a quorum an accepted entry stays pending.
    pub fn propose(&self, data: Bytes) -> impl Future<Output = Result<Committed, ProposeError>> + Send + 'static {
        let begun = self.core.begin(data);
        let group = self.core.id;
        async move {
            let (outcome, stamp_ms) = begun?;
            GroupCore::outcome(group, stamp_ms, outcome.await)
        }
    }

    /// Waits until this replica has applied everything that was committed when the call began (ReadIndex, coalesced;
    /// asks the leader when this node does not lead). Returns the index.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_index(&self, within: Duration) -> Result<u64, ReadError> {
        reads::read_index(&self.core, within).await
    }

    /// Largest entry that [`Self::propose`] takes.
    pub fn entry_bytes_max(&self) -> usize {
        self.core.entry_bytes_max
    }

    /// The stamp the leader would give now; none when it does not lead or its clock is unsure. For ticks.
    pub fn stamp_now(&self) -> Option<u64> {
        self.core.stamp_now()
    }

    /// What a quorum's clocks say now; none when it does not lead, or none was heard.
    pub fn quorum_clock_ms(&self) -> Option<u64> {
        let now = self.core.elapsed_ms();
        crate::transport::link::lock(&self.core.stamper).clock.as_ref()?.quorum_ms(now)
    }

    /// An operator accepts that ledger time goes on from `ledger_ms`, so far ahead of elapsed time as that may be. Safe to repeat; it
    /// moves nothing by itself, and what a leader says replaces it.
    pub fn accept_clock(&self, ledger_ms: u64) {
        self.core.accept_time(ledger_ms.min(crate::limits::STAMP_MS_MAX));
    }

    /// Present status.
    pub fn status(&self) -> GroupStatus {
        self.core.status_now()
    }

    /// Status, watched: role, leader and membership changes always arrive.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.core.status.subscribe()
    }

    /// Hands leadership to `to`.
    ///
    /// # Errors
    /// This node does not lead, or the transfer did not happen within `within`.
    pub async fn transfer_leader(&self, to: NodeId, within: Duration) -> io::Result<()> {
        let raft = self.core.raft()?;
        let status = self.status();
        if status.leader == Some(to) {
            return Ok(());
        }
        if status.role != Role::Leader {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("this node does not lead; leader {:?}", status.leader),
            ));
        }
        if !status.voters.contains_key(&to) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("node {} is no voter of the group", to.0)));
        }
        self.core.seeded(raft.trigger().transfer_leader(to.0)).await.map_err(io::Error::other)?;
        self.core.await_status(within, |s| s.leader == Some(to) && s.role != Role::Leader).await
    }

    /// Builds a snapshot now; answers with its index when it is durable.
    ///
    /// # Errors
    /// Disk errors.
    pub async fn snapshot_now(&self) -> io::Result<u64> {
        Ok(upkeep::build_snapshot(&self.core).await?.head.last.index)
    }

    /// Keeps log entries above `index` from being purged (history still needs them), but no more
    /// bytes of them than a slow follower finds (`snapshot_every_bytes`); `u64::MAX` lifts it.
    pub fn hold_purge_above(&self, index: u64) {
        self.core.hold_purge_above.store(index, Ordering::Relaxed);
    }

    /// Reads raw entries `from..=to` that are still in the log, at most `bytes_max`: (position, stamp, data). Entries of
    /// Raft itself (blank, membership) are left out. Only what is committed here is given.
    ///
    /// # Errors
    /// `NotFound` when purged.
    pub async fn read_entries(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<(LogPosition, u64, Bytes)>> {
        let to = to.min(self.core.progress.applied().index);
        let (mut out, mut bytes, mut next) = (Vec::new(), 0, from);
        while next <= to && bytes < bytes_max {
            let some = self.core.store.read_some(next, to, APPEND_BYTES_SOFT.min(bytes_max - bytes))?;
            let Some(last) = some.last() else { break };
            next = last.log_id.index + 1;
            for e in some {
                if let EntryPayload::Normal(d) = e.payload {
                    bytes += d.bytes.len();
                    out.push((position(&e.log_id), d.stamp_ms, d.bytes));
                }
            }
        }
        Ok(out)
    }

    /// Stops this replica of the group and says why in its status; it neither votes nor leads until reinstalled, not even
    /// after a restart. What it holds through index `through` is not to be trusted: it is
    /// reinstalled from a snapshot that lies there or later, and applies nothing of its own log
    /// before.
    pub async fn quarantine(&self, why: String, through: u64) {
        let marks = Marks::new(self.core.seams.disk.clone(), &self.snapshots_dir, self.core.id);
        repair::quarantine(&self.core, &marks, Quarantine { through, why }).await;
    }
}
