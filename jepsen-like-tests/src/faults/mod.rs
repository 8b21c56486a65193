//! The faults of a run: what can go wrong, as data that a seed draws, a shrinker cuts down, and a report prints.
//!
//! # The kinds
//!
//! | kind | what happens | how it ends |
//! |---|---|---|
//! | `crash` | power goes: what was not synced is lost or torn, sector by sector; peers hear nothing | starts again |
//! | `kill` | the process dies, the machine lives: written data stays, connections are reset | starts again |
//! | `crash-all` | power goes everywhere at once | all start again |
//! | `crash-at-write` | power goes in the middle of the n-th disk operation from now | starts again |
//! | `crash-in-recovery` | power goes, and goes again at the n-th disk operation of starting | starts again |
//! | `pause` | the process gets no CPU while others go on; then all its time has passed at once | goes on |
//! | `isolate` | one node is cut from the others, with or without the clients | heals |
//! | `minority` | the nodes fall into two parts that do not hear each other; clients are with the larger, the smaller, or both | heals |
//! | `ring` | each node hears its two neighbours only; with three nodes: one link is gone | heals |
//! | `one-way` | nothing passes from one node to another; the way back works | heals |
//! | `deaf` | a node is heard by all and hears nobody, or hears all and is heard by nobody | heals |
//! | `hold` | messages between two nodes wait and then all arrive at once | released |
//! | `reset` | every connection between two hosts breaks at a random byte: a call may have been carried out though its answer is lost | redialled |
//! | `slow-net` | every message may take long | fair weather |
//! | `loss` | packets are lost and sent again: latency in steps, everything behind waits | fair weather |
//! | `slow-disk` | each sync takes long | fast again |
//! | `disk-stall` | no sync ends for a while, again and again: on the disk of the leader, of one follower, or of all followers | fast again |
//! | `full-disk` | so many bytes are left, and then none | space again |
//! | `disk-error` | one write or sync fails; the process ends itself and is started again | once |
//! | `rot` | a bit flips in data at rest that was synced (log or snapshot); the node is started again, so that it reads it | healed from peers |
//! | `clock-jump` | the wall clock jumps | set right at the end |
//! | `clocks-jump` | the wall clocks of several nodes jump by the same, in most plans of all; the leader is killed meanwhile, so that another one has to find out | set right |
//! | `clock-strobe` | the wall clock jumps back and forth | set right |
//! | `clock-drift` | the wall clock runs fast or slow | set right |
//! | `timer-drift` | the monotonic clock and all timers run fast or slow | right again |
//! | `transfer` | the leader is told to hand over | |
//! | `snapshot` | a node is told to build a snapshot now, which lets it purge its log | |
//! | `overtaken` | one node is cut off until the others have built snapshots and purged what it lacks; it is back, and when it begins to install one, the sender's messages to it wait and the leadership goes to another | heals, released |
//! | `wiped` | a node loses power, and starts again without its log, without log and snapshots, or without its newest segment | repaired from peers |
//! | `cut-short` | the same with its newest segment cut short | repaired from peers |
//! | `copied` | the same from a copy of its directory, which may be older | repaired from peers |
//! | `rolled-back` | the same on its disk as it was a while ago, at the place where it was: nothing on it says so | repaired from peers |
//! | `lost` | a node's disk is gone: it stays away for the rest of the run, and the quorum goes on | never |
//! | `emptied` | a node's disk is replaced by an empty one, and an operator repeats `cluster init`: no member takes the new disk for the one it knows | never: the node stays out; or, in every other run, when the operator has run `node rejoin` and the node is repaired |
//! | `beyond` | more nodes than may fail at once lose what `wiped` says, or start from copies of their directories: what they had acknowledged may exist nowhere. The last fault of its run | never: no call is answered any more, and the nodes say why |
//!
//! *Reordering and duplication.* Peers and clients speak TCP, so bytes of one connection never overtake or repeat each other, in reality as
//! here; a fault that made them would find errors that cannot happen. What can happen does: connections of one pair of hosts run at
//! different speeds, so that messages on different ones overtake each other; `hold` delivers old messages after new ones of other peers; and
//! after a `reset` or a lost answer both peers and clients send the same request again on a new connection, which is a duplicate.
//!
//! *Who* is a node by number or, decided when it strikes, whoever leads a shard then.
//!
//! *What a quorum can heal.* Rot and loss together never touch more nodes of a run than may fail at once: one of three, two of five. A
//! damaged node is repaired only while every other answers, so no run has one and a `lost` one.
//!
//! *What may be lost.* A disk that went back as a whole is noticed by those that remember more. While none of them is reached, what was
//! acknowledged may be lost without a word (`docs/semantics.md`, "What cannot be noticed"). So a `rolled-back` node loses power only after
//! a second without faults, in which the others' memory of it gets to their disks, and starts only once all others serve, those that
//! remember among them (with [`Others::LagLater`]: at first beside them, and once more when it has noticed).
//!
//! *What the others do* around a disk that comes back with less ([`Others`]): a loss shows only where those that know more are
//! away, so some of these faults bring that about themselves.
//!
//! # A new fault
//!
//! A variant of [`Fault`] with its name, its drawing in [`plan`], how it is done and undone in `sim::strikes`. It must be data: a plan is written to
//! JSON, cut down by the shrinker, and run again.
//!
//! **Owns** the plan. **Must never** act: [`crate::sim`] carries it out. **Read next**: [`plan`], then [`crate::sim`].

pub mod plan;

use serde::{Deserialize, Serialize};

pub use plan::draw_plan;

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// By number, from 0.
    Node(usize),
    /// Whoever leads shard 1 when it strikes; node 0 if nobody does.
    Leader,
}

/// Whose disks stall, seen from shard 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disks {
    /// The leader's.
    Leader,
    /// One follower's.
    Follower,
    /// All but the leader's.
    Followers,
}

/// With whom the clients are when the nodes fall apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clients {
    /// They reach everybody.
    Both,
    /// They reach the cut-off part only.
    Inside,
    /// They reach the others only.
    Outside,
}

/// One thing that goes wrong, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the table above says what each does; `ms` is how long, simulated")]
pub enum Fault {
    Crash {
        who: Who,
        ms: u64,
    },
    Kill {
        who: Who,
        ms: u64,
    },
    CrashAll {
        ms: u64,
    },
    CrashAtWrite {
        who: Who,
        ops: u64,
        ms: u64,
    },
    CrashInRecovery {
        who: Who,
        ops: u64,
        ms: u64,
    },
    Pause {
        who: Who,
        ms: u64,
    },
    Isolate {
        who: Who,
        clients: Clients,
        ms: u64,
    },
    Minority {
        nodes: Vec<usize>,
        clients: Clients,
        ms: u64,
    },
    Ring {
        from: usize,
        ms: u64,
    },
    OneWay {
        from: usize,
        to: usize,
        ms: u64,
    },
    Deaf {
        who: Who,
        hears: bool,
        ms: u64,
    },
    Hold {
        a: usize,
        b: usize,
        ms: u64,
    },
    Reset {
        who: Who,
        clients: bool,
    },
    SlowNet {
        latency_ms: u64,
        ms: u64,
    },
    Loss {
        percent: u64,
        ms: u64,
    },
    SlowDisk {
        who: Who,
        latency_ms: u64,
        ms: u64,
    },
    DiskStall {
        of: Disks,
        stall_ms: u64,
        every_ms: u64,
        ms: u64,
    },
    FullDisk {
        who: Who,
        left_bytes: u64,
        ms: u64,
    },
    DiskError {
        who: Who,
        ops: u64,
        ms: u64,
    },
    Rot {
        node: usize,
        of: Rotten,
        place: u64,
        ms: u64,
    },
    ClockJump {
        who: Who,
        by_ms: i64,
    },
    ClocksJump {
        nodes: Vec<usize>,
        by_ms: i64,
        ms: u64,
    },
    ClockStrobe {
        who: Who,
        by_ms: i64,
        every_ms: u64,
        ms: u64,
    },
    ClockDrift {
        who: Who,
        ppm: i64,
        ms: u64,
    },
    TimerDrift {
        who: Who,
        ppm: i64,
        ms: u64,
    },
    Transfer {
        shard: usize,
        to: usize,
    },
    Snapshot {
        who: Who,
    },
    Overtaken {
        node: usize,
        ms: u64,
    },
    Wiped {
        node: usize,
        of: Wiped,
        others: Others,
        ms: u64,
    },
    CutShort {
        node: usize,
        keep_percent: u64,
        others: Others,
        ms: u64,
    },
    Copied {
        node: usize,
        after_ms: u64,
        others: Others,
        ms: u64,
    },
    RolledBack {
        node: usize,
        after_ms: u64,
        others: Others,
        ms: u64,
    },
    Lost {
        node: usize,
    },
    Emptied {
        node: usize,
        ms: u64,
        /// The operator brings the node back after that.
        #[serde(default)]
        rejoins: bool,
    },
    Beyond {
        nodes: Vec<usize>,
        of: LostBeyond,
        ms: u64,
    },
}

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotten {
    /// A segment of the log.
    Log,
    /// A snapshot file.
    Snapshot,
}

impl Fault {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Kill { .. } => "kill",
            Self::CrashAll { .. } => "crash-all",
            Self::CrashAtWrite { .. } => "crash-at-write",
            Self::CrashInRecovery { .. } => "crash-in-recovery",
            Self::Pause { .. } => "pause",
            Self::Isolate { .. } => "isolate",
            Self::Minority { .. } => "minority",
            Self::Ring { .. } => "ring",
            Self::OneWay { .. } => "one-way",
            Self::Deaf { .. } => "deaf",
            Self::Hold { .. } => "hold",
            Self::Reset { .. } => "reset",
            Self::SlowNet { .. } => "slow-net",
            Self::Loss { .. } => "loss",
            Self::SlowDisk { .. } => "slow-disk",
            Self::DiskStall { .. } => "disk-stall",
            Self::FullDisk { .. } => "full-disk",
            Self::DiskError { .. } => "disk-error",
            Self::Rot { .. } => "rot",
            Self::ClockJump { .. } => "clock-jump",
            Self::ClocksJump { .. } => "clocks-jump",
            Self::ClockStrobe { .. } => "clock-strobe",
            Self::ClockDrift { .. } => "clock-drift",
            Self::TimerDrift { .. } => "timer-drift",
            Self::Transfer { .. } => "transfer",
            Self::Snapshot { .. } => "snapshot",
            Self::Overtaken { .. } => "overtaken",
            Self::Wiped { .. } => "wiped",
            Self::CutShort { .. } => "cut-short",
            Self::Copied { .. } => "copied",
            Self::RolledBack { .. } => "rolled-back",
            Self::Lost { .. } => "lost",
            Self::Emptied { .. } => "emptied",
            Self::Beyond { .. } => "beyond",
        }
    }
}

impl Fault {
    /// The node whose disk comes back with less, if that is what it is.
    pub fn loses_on(&self) -> Option<usize> {
        match self {
            Self::Wiped { node, .. }
            | Self::CutShort { node, .. }
            | Self::Copied { node, .. }
            | Self::RolledBack { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// How long it lasts, if that is part of it.
    pub fn ms_mut(&mut self) -> Option<&mut u64> {
        match self {
            Self::Crash { ms, .. }
            | Self::Kill { ms, .. }
            | Self::CrashAll { ms }
            | Self::CrashAtWrite { ms, .. }
            | Self::CrashInRecovery { ms, .. }
            | Self::Pause { ms, .. }
            | Self::Isolate { ms, .. }
            | Self::Minority { ms, .. }
            | Self::Ring { ms, .. }
            | Self::OneWay { ms, .. }
            | Self::Deaf { ms, .. }
            | Self::Hold { ms, .. }
            | Self::SlowNet { ms, .. }
            | Self::Loss { ms, .. }
            | Self::SlowDisk { ms, .. }
            | Self::DiskStall { ms, .. }
            | Self::FullDisk { ms, .. }
            | Self::DiskError { ms, .. }
            | Self::Rot { ms, .. }
            | Self::ClocksJump { ms, .. }
            | Self::ClockStrobe { ms, .. }
            | Self::ClockDrift { ms, .. }
            | Self::TimerDrift { ms, .. }
            | Self::Wiped { ms, .. }
            | Self::CutShort { ms, .. }
            | Self::Copied { ms, .. }
            | Self::RolledBack { ms, .. }
            | Self::Emptied { ms, .. }
            | Self::Beyond { ms, .. }
            | Self::Overtaken { ms, .. } => Some(ms),
            Self::Reset { .. }
            | Self::ClockJump { .. }
            | Self::Transfer { .. }
            | Self::Snapshot { .. }
            | Self::Lost { .. } => None,
        }
    }
}

/// What of a node's directory is gone when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wiped {
    /// The directory of the log.
    Log,
    /// It and the snapshots.
    LogAndSnapshots,
    /// The segment of the log that was begun last.
    NewestSegment,
}

/// What more nodes than may fail lose. An older state of the disk is none of it: what went back is noticed by those that remember more,
/// and of two nodes that went back together each may ask the other one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostBeyond {
    /// The directory of the log.
    Log,
    /// It and the snapshots.
    LogAndSnapshots,
    /// The segment of the log that was begun last.
    NewestSegment,
    /// Nothing, as it seems: they start from copies, and a copy may be older.
    Original,
}

impl LostBeyond {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::LogAndSnapshots, Self::NewestSegment, Self::Original];
}

/// What the other nodes do around a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// Only what else is planned.
    RunOn,
    /// As many as may fail at once are cut off, and lag. Then the rest loses power with the node,
    /// which starts again beside those that lag: a majority that lacks what was acknowledged. A node
    /// that only others can tell of its loss starts as soon as those that know serve again. A copy
    /// that is younger than the lag is taken meanwhile: what it lacks, those that lag never heard of.
    Lag,
    /// The same, but the node starts beside those that do not lag first, so that it notices its
    /// loss, and only then once more beside those that lag.
    LagLater,
}

/// A fault and when it strikes, in simulated milliseconds after the load began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Planned {
    /// When.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}
