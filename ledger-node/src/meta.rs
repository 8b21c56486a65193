//! The meta group's state: what the cluster intends to look like.
//!
//! **What it is.** One small [`Placement`], changed by typed commands ([`MetaCommand`]) that compare its generation. Every node runs a replica of the meta
//! group (up to five vote) and follows it ([`crate::reconcile`]). It is intent and routing hints: `apply` of a shard never reads it, and
//! openraft's membership is the truth about membership.
//!
//! **Owns** the placement's shape, the closed set of its commands and what each does. **Must never** be asked on the way of a call, or
//! rewrite what a command does not name: a newer build may have put it there.
//! **Read next**: `codec`, [`crate::placement`], [`crate::reconcile`].

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::types::ShardSettings;
use ledger_raft::{
    ApplyOutcome, GroupId, LogPosition, Reply, SnapshotChecker, SnapshotView, StateMachine, Unreadable, UnreadableKind,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::META_BYTES_MAX;

pub(crate) mod codec;

pub(crate) use codec::{MetaError, decode, encode};

/// The meta group's number.
pub const META_GROUP: GroupId = GroupId(0);

/// A node of the cluster and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// Its id.
    pub node: u64,
    /// `host:port` of its client port.
    pub client: String,
    /// `host:port` of its peer port.
    pub peer: String,
    /// `host:port` of its HTTP port.
    pub http: String,
}

/// One shard: its slots and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlacement {
    /// Its number, which is its raft group: from 1 on.
    pub shard: u32,
    /// Inclusive ranges of slots, sorted, disjoint.
    pub slots: Vec<(u16, u16)>,
    /// The nodes that keep a replica; the first should lead.
    pub replicas: Vec<u64>,
}

/// How long what has ended is remembered, and how much of it; the same in every shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long confirmed reservations are kept: their return window, milliseconds.
    pub retain_sold_ms: u64,
    /// How long released and expired reservations are remembered, milliseconds.
    pub retain_ended_ms: u64,
    /// How long refusals and fences are remembered, milliseconds.
    pub retain_refused_ms: u64,
    /// Most ids a shard remembers that are neither live nor sold.
    pub remembered_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let ShardSettings { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max } =
            ShardSettings::default();
        Self { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max }
    }
}

impl Settings {
    /// As a shard is told.
    pub(crate) fn for_shards(&self) -> ShardSettings {
        let Self { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max } = *self;
        ShardSettings { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max }
    }
}

/// What the cluster intends to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Rises by one with every change.
    pub generation: u64,
    /// All nodes.
    pub members: Vec<MemberEntry>,
    /// All shards, by number.
    pub shards: Vec<ShardPlacement>,
    /// What operators set; none: the defaults.
    pub settings: Option<Settings>,
    /// Shards whose group was begun: nobody begins it again, whatever replicas the shard has later. It
    /// is written down once the group has begun. So a command that changes the replicas of a shard must
    /// be refused before that.
    pub begun: BTreeSet<u32>,
}

impl Placement {
    /// The settings of every shard.
    pub fn settings(&self) -> Settings {
        self.settings.clone().unwrap_or_default()
    }
    /// A member by id.
    pub fn member(&self, node: u64) -> Option<&MemberEntry> {
        self.members.iter().find(|member| member.node == node)
    }
}

/// What may be asked of the meta group. Its codec's numbers are frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetaCommand {
    /// The first placement; taken once, where there is none.
    Found {
        /// All nodes.
        members: Vec<MemberEntry>,
        /// All shards.
        shards: Vec<ShardPlacement>,
    },
    /// The settings of all shards, over the placement of this generation.
    SetSettings {
        /// Compare.
        generation: u64,
        /// All of them.
        settings: Settings,
    },
    /// Where a member is reached, over the placement of this generation.
    SetMemberAddress {
        /// Compare.
        generation: u64,
        /// The member, by its node id, with all its addresses.
        member: MemberEntry,
    },
    /// The groups of these shards have begun. It says what is so, and compares with no generation.
    Begun {
        /// Which shards.
        shards: BTreeSet<u32>,
    },
}

impl MetaCommand {
    /// The placement after it; none when it is not taken, and nothing changes.
    pub(crate) fn over(&self, present: Option<&Placement>) -> Option<Placement> {
        let named = |generation: u64| present.filter(|present| present.generation == generation).cloned();
        let mut next = match self {
            Self::Found { members, shards } if present.is_none() => Placement {
                generation: 0,
                members: members.clone(),
                shards: shards.clone(),
                settings: None,
                begun: BTreeSet::new(),
            },
            Self::Found { .. } => return None,
            Self::SetSettings { generation, settings } => {
                Placement { settings: Some(settings.clone()), ..named(*generation)? }
            }
            Self::SetMemberAddress { generation, member } => {
                let mut placement = named(*generation)?;
                placement.members.iter_mut().find(|known| known.node == member.node)?.clone_from(member);
                placement
            }
            Self::Begun { shards } => {
                let mut placement = present?.clone();
                let known = placement.shards.iter().map(|shard| shard.shard).filter(|shard| shards.contains(shard));
                let new: Vec<u32> = known.filter(|shard| !placement.begun.contains(shard)).collect();
                placement.begun.extend(&new);
                // Nothing that anybody intends has changed.
                return (!new.is_empty()).then_some(placement);
            }
        };
        next.generation = next.generation.checked_add(1)?;
        Some(next)
    }
}

/// What the compare-and-set came to: the generation in force, and whether it is the proposed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) generation: u64,
    pub(crate) taken: bool,
}

/// The state machine of the meta group; readers watch it.
pub(crate) struct MetaMachine {
    placement: watch::Sender<Option<Arc<Placement>>>,
}

impl MetaMachine {
    pub(crate) fn new(placement: watch::Sender<Option<Arc<Placement>>>) -> Self {
        Self { placement }
    }

    fn generation(&self) -> u64 {
        self.placement.borrow().as_ref().map_or(0, |placement| placement.generation)
    }
}

fn unreadable(why: &MetaError) -> Unreadable {
    let kind = match why {
        MetaError::Unsupported { .. } => UnreadableKind::Unsupported,
        MetaError::Malformed(_) => UnreadableKind::Malformed,
    };
    Unreadable { kind, why: why.to_string() }
}

impl StateMachine for MetaMachine {
    fn apply(&mut self, _at: LogPosition, _stamp_ms: u64, data: &Bytes, _proposed_here: bool) -> ApplyOutcome {
        let command = match decode(data) {
            Ok(command) => command,
            Err(why) => return ApplyOutcome::Unreadable(unreadable(&why)),
        };
        let present = self.placement.borrow().clone();
        let next = command.over(present.as_deref());
        let taken = next.is_some();
        if let Some(next) = next {
            self.placement.send_replace(Some(Arc::new(next)));
        }
        ApplyOutcome::applied(Placed { generation: self.generation(), taken })
    }

    fn refuse(&mut self, _at: LogPosition, _stamp_ms: u64, _data: &Bytes, _proposed_here: bool) -> Reply {
        Box::new(Placed { generation: self.generation(), taken: false })
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        Box::new(FrozenMeta(self.placement.borrow().clone()))
    }

    fn install(&mut self, _at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        self.placement.send_replace(read_snapshot(bytes)?.map(Arc::new));
        Ok(())
    }
}

fn read_snapshot(bytes: &mut dyn io::Read) -> io::Result<Option<Placement>> {
    let mut all = Vec::new();
    bytes.take(META_BYTES_MAX as u64 + 1).read_to_end(&mut all)?;
    let refused = |e: MetaError| match e {
        MetaError::Unsupported { .. } => io::Error::new(io::ErrorKind::Unsupported, e),
        MetaError::Malformed(_) => io::Error::new(io::ErrorKind::InvalidData, e),
    };
    let read = |all: &[u8]| codec::decode_placement(all).map_err(refused);
    if all.is_empty() { Ok(None) } else { read(&all).map(Some) }
}

struct FrozenMeta(Option<Arc<Placement>>);

impl SnapshotView for FrozenMeta {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        match &self.0 {
            Some(placement) => to.write_all(&codec::encode_placement(placement)),
            None => Ok(()),
        }
    }

    fn checker(&self) -> SnapshotChecker {
        Box::new(|bytes| read_snapshot(bytes).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client: &str) -> MemberEntry {
        MemberEntry { node: 1, client: client.into(), peer: "a:2".into(), http: "a:3".into() }
    }

    fn found() -> MetaCommand {
        let shard = ShardPlacement { shard: 1, slots: vec![(0, 4095)], replicas: vec![1] };
        MetaCommand::Found { members: vec![member("a:1")], shards: vec![shard] }
    }

    fn settings(generation: u64, remembered_max: u64) -> MetaCommand {
        MetaCommand::SetSettings { generation, settings: Settings { remembered_max, ..Settings::default() } }
    }

    fn apply(machine: &mut MetaMachine, index: u64, command: &MetaCommand) -> Placed {
        let bytes = encode(command).expect("within its bounds");
        let ApplyOutcome::Applied(reply) = machine.apply(LogPosition { term: 1, index }, 0, &bytes, true) else {
            panic!("it is readable");
        };
        *reply.downcast().expect("the meta group's reply")
    }

    #[test]
    fn a_command_is_taken_only_over_the_generation_it_names() {
        let (sender, seen) = watch::channel(None);
        let mut machine = MetaMachine::new(sender);
        assert_eq!(apply(&mut machine, 1, &settings(0, 7)), Placed { generation: 0, taken: false });
        assert_eq!(apply(&mut machine, 2, &found()), Placed { generation: 1, taken: true });
        assert_eq!(apply(&mut machine, 3, &found()), Placed { generation: 1, taken: false });
        assert_eq!(apply(&mut machine, 4, &settings(2, 7)), Placed { generation: 1, taken: false });
        assert_eq!(apply(&mut machine, 5, &settings(1, 7)), Placed { generation: 2, taken: true });
        let moved = MetaCommand::SetMemberAddress { generation: 2, member: member("b:1") };
        assert_eq!(apply(&mut machine, 6, &moved), Placed { generation: 3, taken: true });
        let placement = seen.borrow().clone().expect("a placement");
        assert_eq!(
            placement.settings.as_ref().map(|s| s.remembered_max),
            Some(7),
            "what a command does not name stays"
        );
        assert_eq!(placement.members, [member("b:1")]);
        let nobody = MetaCommand::SetMemberAddress { generation: 3, member: MemberEntry { node: 9, ..member("c:1") } };
        assert_eq!(apply(&mut machine, 7, &nobody), Placed { generation: 3, taken: false });
    }

    #[test]
    fn a_shard_that_has_begun_stays_so_and_the_generation_with_it() {
        let (sender, seen) = watch::channel(None);
        let mut machine = MetaMachine::new(sender);
        let begun = |shards: &[u32]| MetaCommand::Begun { shards: shards.iter().copied().collect() };
        assert_eq!(apply(&mut machine, 1, &begun(&[1])), Placed { generation: 0, taken: false }, "there is no shard");
        apply(&mut machine, 2, &found());
        assert_eq!(apply(&mut machine, 3, &begun(&[1, 9])), Placed { generation: 1, taken: true });
        assert_eq!(apply(&mut machine, 4, &begun(&[1])), Placed { generation: 1, taken: false }, "known");
        apply(&mut machine, 5, &settings(1, 7));
        let mut bytes = Vec::new();
        machine.snapshot().write(&mut bytes).expect("written to memory");
        let (sender, after) = watch::channel(None);
        MetaMachine::new(sender).install(LogPosition::default(), &mut bytes.as_slice()).expect("a snapshot");
        assert_eq!(after.borrow().as_ref().map(|p| p.begun.clone()), Some([1].into()), "shard 9 is none");
        assert_eq!(*after.borrow(), *seen.borrow());
    }

    #[test]
    fn bytes_that_are_no_command_are_told_apart_and_change_nothing() {
        let (sender, seen) = watch::channel(None);
        let mut machine = MetaMachine::new(sender);
        apply(&mut machine, 1, &found());
        let before = seen.borrow().clone();
        let mut kind = |bytes: &'static [u8]| match machine.apply(
            LogPosition { term: 1, index: 2 },
            0,
            &Bytes::from_static(bytes),
            true,
        ) {
            ApplyOutcome::Unreadable(why) => why.kind,
            ApplyOutcome::Applied(_) => panic!("it is no command"),
        };
        assert_eq!(kind(b"\x02\xff"), UnreadableKind::Unsupported);
        assert_eq!(kind(b"\x63"), UnreadableKind::Unsupported);
        assert_eq!(kind(b"\x02\x02"), UnreadableKind::Malformed);
        let refused = machine.refuse(LogPosition { term: 1, index: 2 }, 0, &Bytes::new(), true);
        assert_eq!(refused.downcast_ref(), Some(&Placed { generation: 1, taken: false }));
        assert_eq!(*seen.borrow(), before);
    }

    #[test]
    fn a_snapshot_carries_the_placement_and_garbage_is_refused() {
        let placement = MetaCommand::over(&found(), None);
        let (sender, _) = watch::channel(placement.clone().map(Arc::new));
        let mut machine = MetaMachine::new(sender);
        let mut bytes = Vec::new();
        machine.snapshot().write(&mut bytes).expect("written to memory");
        let (sender, seen) = watch::channel(None);
        let mut other = MetaMachine::new(sender);
        other.install(LogPosition::default(), &mut bytes.as_slice()).expect("a snapshot");
        assert_eq!(seen.borrow().as_deref(), placement.as_ref());
        let mut refused =
            |bytes: &[u8]| other.install(LogPosition::default(), &mut { bytes }).expect_err("refused").kind();
        assert_eq!(refused(&[9, 1, 2]), io::ErrorKind::Unsupported);
        assert_eq!(refused(&bytes[..bytes.len() - 1]), io::ErrorKind::InvalidData);
        assert_eq!(seen.borrow().as_deref(), placement.as_ref(), "the old state is untouched");
    }
}
