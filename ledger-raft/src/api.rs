//! The door: what the node asks of consensus.
//!
//! **Owns** the words of this crate. **Must never** name an openraft type.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{CLOCK_JUMP_MAX, ELECTION_MAX, ELECTION_MIN, HEARTBEAT, NO_QUORUM_AFTER_ELECTIONS};
use crate::quorum::NoQuorum;

/// A node of the cluster; never reused once lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct NodeId(pub u64);

/// A Raft group on a node: 0 is the meta group, shards follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct GroupId(pub u32);

/// A disk: drawn at random when an empty data directory is first opened, and never given to another
/// one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct DiskId(pub [u8; 16]);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A position in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// Raft term of the leader that appended it.
    pub term: u64,
    /// Index in the group's log, from 1.
    pub index: u64,
}

/// What one replica's state machine answers to the entry it applied; the node knows the type inside.
pub type Reply = Box<dyn Any + Send>;

/// What came of giving an entry to a state machine.
pub enum ApplyOutcome {
    /// It was applied.
    Applied(Reply),
    /// It cannot be decoded, and the state is as it was before.
    Unreadable(Unreadable),
}

impl ApplyOutcome {
    /// Applied, with this reply.
    pub fn applied(reply: impl Any + Send) -> Self {
        Self::Applied(Box::new(reply))
    }
}

/// Why a state machine cannot decode an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What follows from it.
    pub kind: UnreadableKind,
    /// For people: what was found, and which build or format is needed.
    pub why: String,
}

/// The two ways in which an entry cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableKind {
    /// A format, a command or a behaviour version that this build does not know. A newer build may, so that refusing the entry
    /// here would make the two differ: the replica stops applying until a newer build runs.
    Unsupported,
    /// A format that this build knows, and the bytes are not of it: every replica refuses it, once a quorum holds these bytes.
    Malformed,
}

/// The state machine of one group on one node.
///
/// Calls come from one task, in log order, each index exactly once between two installs; but an entry that was
/// [`ApplyOutcome::Unreadable`] comes again: to `refuse`, or to `apply` when its bytes were read anew.
pub trait StateMachine: Send + 'static {
    /// Applies one entry. Total: it answers for any bytes. `proposed_here` says that the reply goes to
    /// a waiting proposer on this node; otherwise it is dropped, and an empty one may be returned.
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> ApplyOutcome;
    /// Applies a malformed entry as a refusal of the whole of it: time passes, and nothing else is decided. Called only
    /// after `apply` found it malformed; every replica does the same.
    fn refuse(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> Reply;
    /// A consistent view of the state after the last applied entry. Must be cheap (copy on write): the shard waits for it.
    fn snapshot(&mut self) -> Box<dyn SnapshotView>;
    /// Replaces the whole state. Called before the first `apply` after a start, and when a snapshot arrives from a peer.
    ///
    /// # Errors
    /// The old state is untouched then. `Unsupported`: a newer build may know the bytes, they are
    /// kept for it and the replica stops. `InvalidData` or `UnexpectedEof`: they are no snapshot of
    /// this kind, and never used again. Any other: it may pass.
    fn install(&mut self, at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()>;
}

/// A frozen state that writes itself out, off the shard's task.
pub trait SnapshotView: Send + 'static {
    /// Writes all of it. Called on a thread of its own (inline under simulation).
    ///
    /// # Errors
    /// Only those of `to`.
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()>;
    /// Who reads back what was written, as [`StateMachine::install`] would; made before [`Self::write`].
    fn checker(&self) -> SnapshotChecker;
}

/// Reads a snapshot back before anything relies on it, and throws away what it read. Runs on the thread that wrote it.
///
/// Its error: the bytes cannot be installed.
pub type SnapshotChecker = Box<dyn FnOnce(&mut dyn io::Read) -> io::Result<()> + Send>;

/// An entry was applied here.
#[derive(Debug)]
pub struct Committed {
    /// Where it landed.
    pub at: LogPosition,
    /// The leader's stamp in it.
    pub stamp_ms: u64,
    /// What the state machine answered.
    pub reply: Reply,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing happened: this replica does not lead.
    #[error("this node does not lead group {group:?}; leader {leader:?}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads, when known; none means an election is under way: retry here, soon.
        leader: Option<NodeId>,
    },
    /// Nothing happened: this replica leads, and no quorum has acknowledged it for long.
    #[error("{0}")]
    NoQuorum(NoQuorum),
    /// Nothing happened: no fresh quorum of clock readings, so nothing may be stamped.
    #[error("the leader has no quorum of clock readings within its bound")]
    ClockUnsure,
    /// Nothing happened: the quorum's clocks would take ledger time further ahead than elapsed time has, so nothing is stamped until
    /// [`crate::Group::accept_clock`].
    #[error(
        "the clocks of a quorum are {by_ms} ms further ahead than the time that has passed; hint: set them right, or \
         `ledgerctl cluster clock accept`"
    )]
    ClockJumped {
        /// By how much more than elapsed time and the bound.
        by_ms: u64,
    },
    /// Nothing happened: the log is low on space.
    #[error("the log's disk is below its low-space mark")]
    LowSpace,
    /// Nothing happened: the entry is larger than the log takes ([`crate::Group::entry_bytes_max`]). Make smaller ones.
    #[error("the entry has {bytes} bytes, the log takes at most {bytes_max}")]
    TooLarge {
        /// The entry's bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Nothing happened: the group is stopped, quarantined or shutting down.
    #[error("the group is stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
    /// It may or may not happen: leadership was lost or the node stopped while it was in flight.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
}

/// Why a linearizable read could not be given here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could be reached to confirm the read within the time given.
    #[error("no leader confirmed the read; leader {leader:?}")]
    NoLeader {
        /// Who was thought to lead.
        leader: Option<NodeId>,
    },
    /// The group is stopped, quarantined or shutting down.
    #[error("the group is stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// A replica's part in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "Raft's own words")]
pub enum Role {
    #[default]
    Follower,
    Candidate,
    Leader,
    Learner,
    Stopped,
}

/// What a group looks like from this replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This replica's role.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// Who leads, as known here.
    pub leader: Option<NodeId>,
    /// Last index in the log.
    pub last_log_index: u64,
    /// Last index known to be committed.
    pub committed_index: u64,
    /// Last index applied here.
    pub applied_index: u64,
    /// Index of the newest snapshot here.
    pub snapshot_index: u64,
    /// Everything up to here is gone from the log.
    pub purged_index: u64,
    /// Voters and their peer addresses.
    pub voters: BTreeMap<NodeId, String>,
    /// Leader only: how far each follower's log matches.
    pub matched: BTreeMap<NodeId, u64>,
    /// Milliseconds since this replica was current, as far as it knows: since a quorum last followed this leader, or the leader whose word
    /// is applied here, counted from a moment before it was said. None: not known.
    pub quorum_age_ms: Option<u64>,
    /// Milliseconds since this replica last heard a leader or, where it leads, since a quorum last
    /// acknowledged it. None: never since the start. `leader` may name one that is long gone.
    pub leader_heard_ms: Option<u64>,
    /// The group has had no quorum for [`RaftTuning::no_quorum_after`], as far as this replica can
    /// tell.
    pub no_quorum: Option<NoQuorum>,
    /// Leader only: whether its clock may stamp.
    pub clock_sure: bool,
    /// Leader only: by how many milliseconds ledger time is ahead of the quorum's clocks.
    pub clock_ahead_ms: u64,
    /// Leader only: nothing is stamped, since the quorum's clocks would take ledger time so many milliseconds further ahead than
    /// elapsed time has.
    pub clock_jump_ms: Option<u64>,
    /// Whether this replica knows what to expect of ledger time: it heard a leader that stamps, or was one, since its start.
    pub clock_expected: bool,
    /// Why the replica is stopped, if it is.
    pub stopped: Option<String>,
    /// The replica is stopped since this build does not know its snapshot's format or behaviour: a
    /// build that knows it goes on, and a repair would only bring the same.
    pub awaits_build: bool,
    /// Why the replica does not apply what is committed, if it does not: it met an entry that it cannot decode. It keeps its
    /// log, acknowledges and votes.
    pub apply_halted: Option<String>,
    /// The replica is being repaired after damage of its log: it neither votes nor leads before it
    /// has all that it may have acknowledged.
    pub repairing: bool,
    /// The replica has started and does not vote yet: no majority of the voters has answered what it
    /// acknowledged before, which a disk that went back does not know.
    pub awaits_voters: bool,
    /// Requests for a vote that were declined since the start, since the replica is damaged, under
    /// repair, or has not heard yet what others remember of it. Questions of others that wait for
    /// this replica's memory before they ask for votes count, too, while it is damaged.
    pub votes_declined: u64,
    /// Entries applied here as refusals since the start, since they could not be decoded.
    pub entries_refused: u64,
    /// Why the last snapshot was not built, or cannot be read; none once one was. The log is kept meanwhile.
    pub snapshot_failure: Option<String>,
}

/// A group's numbers; defaults suit real machines, simulation and tests shorten them.
#[derive(Debug, Clone)]
pub struct RaftTuning {
    /// Leader's heartbeat.
    pub heartbeat: Duration,
    /// Shortest election timeout.
    pub election_min: Duration,
    /// Longest election timeout; also the lease that followers give their leader.
    pub election_max: Duration,
    /// A snapshot is built after that many entries since the last.
    pub snapshot_every_entries: u64,
    /// ... or after that many log bytes since the last.
    pub snapshot_every_bytes: u64,
    /// Entries kept in the log behind the newest snapshot.
    pub keep_entries: u64,
    /// Furthest the local clock may lie from the quorum's median before the leader stamps nothing.
    pub clock_bound: Duration,
    /// Clock readings older than that do not count.
    pub clock_fresh: Duration,
    /// By how much more than elapsed time a new leader's clock may move ledger time on, while replicas run that heard a leader.
    pub clock_jump_max: Duration,
    /// Bytes of log cache (decoded tail) a group keeps in memory.
    pub tail_cache_bytes: usize,
    /// Log segment size in bytes. A node's configuration has at least [`crate::limits::SEGMENT_BYTES_FLOOR`]; tests and simulations that
    /// go below it do so on all members alike, since the largest entry follows from it.
    pub segment_bytes: u64,
    /// Below this many free bytes appends are withheld.
    pub low_space_bytes: u64,
}

impl Default for RaftTuning {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT,
            election_min: ELECTION_MIN,
            election_max: ELECTION_MAX,
            snapshot_every_entries: 200_000,
            snapshot_every_bytes: 2 << 30,
            keep_entries: 50_000,
            clock_bound: Duration::from_millis(250),
            clock_fresh: Duration::from_secs(10),
            clock_jump_max: CLOCK_JUMP_MAX,
            tail_cache_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            low_space_bytes: 512 << 20,
        }
    }
}

impl RaftTuning {
    /// A leader that was heard within that time is there: the longest time after which a follower
    /// that hears nothing stands for election, and a heartbeat.
    pub fn leader_heard_within(&self) -> Duration {
        self.election_max + self.heartbeat
    }

    /// Where no leader was heard for that long, elections were lost, too: the group has no quorum.
    pub fn no_quorum_after(&self) -> Duration {
        self.election_max * NO_QUORUM_AFTER_ELECTIONS
    }

    /// A follower that acknowledged something within that time needs no heartbeat.
    pub(crate) fn heartbeat_min(&self) -> Duration {
        self.heartbeat / 2
    }
}
