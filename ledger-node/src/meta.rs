//! The meta group's state: what the cluster intends to look like.
//!
//! **What it is.** One small [`Placement`], replaced by compare-and-set on its generation. Every node runs a replica of the meta
//! group (up to five vote) and follows it ([`crate::reconcile`]). It is intent and routing hints: `apply` of a shard never reads it, and
//! openraft's membership is the truth about membership.
//!
//! **Owns** the placement's shape, bytes and compare-and-set. **Must never** be asked on the way of a call.
//! **Read next**: [`crate::placement`], [`crate::reconcile`].

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::types::ShardSettings;
use ledger_raft::{ApplyOutcome, GroupId, LogPosition, Reply, SnapshotView, StateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::META_BYTES_MAX;

/// The meta group's number.
pub const META_GROUP: GroupId = GroupId(0);

/// First byte of commands and snapshots.
const FORMAT: u8 = 1;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// Its number, which is its raft group: from 1 on.
    pub shard: u32,
    /// Inclusive ranges of slots, sorted, disjoint.
    pub slots: Vec<(u16, u16)>,
    /// The nodes that keep a replica; the first should lead.
    pub replicas: Vec<u64>,
}

/// How long what has ended is remembered, and how much of it; the same in every shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Rises by one with every change.
    pub generation: u64,
    /// All nodes.
    pub members: Vec<MemberEntry>,
    /// All shards, by number.
    pub shards: Vec<ShardPlacement>,
    /// What operators set; none: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
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

/// Encodes the command that replaces the placement of generation `placement.generation - 1`.
pub(crate) fn encode(placement: &Placement) -> io::Result<Bytes> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, placement)?;
    if bytes.len() > META_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the placement has {} bytes", bytes.len())));
    }
    Ok(bytes.into())
}

fn decode(bytes: &[u8]) -> io::Result<Placement> {
    match bytes.split_first() {
        Some((&FORMAT, json)) if bytes.len() <= META_BYTES_MAX => Ok(serde_json::from_slice(json)?),
        Some((&FORMAT, _)) => Err(io::Error::new(io::ErrorKind::InvalidData, "a placement above its bound")),
        first => {
            let found = first.map(|(format, _)| *format);
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("placement format {found:?}, this build knows {FORMAT}"),
            ))
        }
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
}

impl StateMachine for MetaMachine {
    fn apply(&mut self, at: LogPosition, _stamp_ms: u64, data: &Bytes, _proposed_here: bool) -> ApplyOutcome {
        let proposed = match decode(data) {
            Ok(proposed) => proposed,
            Err(e) => panic!("the meta group's committed entry {} cannot be read: {e}", at.index),
        };
        let present = self.placement.borrow().as_ref().map_or(0, |placement| placement.generation);
        let taken = proposed.generation == present + 1;
        let generation = if taken { proposed.generation } else { present };
        if taken {
            self.placement.send_replace(Some(Arc::new(proposed)));
        }
        ApplyOutcome::applied(Placed { generation, taken })
    }

    fn refuse(&mut self, _at: LogPosition, _stamp_ms: u64, _data: &Bytes, _proposed_here: bool) -> Reply {
        let generation = self.placement.borrow().as_ref().map_or(0, |placement| placement.generation);
        Box::new(Placed { generation, taken: false })
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        Box::new(FrozenMeta(self.placement.borrow().clone()))
    }

    fn install(&mut self, _at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        let mut all = Vec::new();
        bytes.take(META_BYTES_MAX as u64 + 1).read_to_end(&mut all)?;
        let placement = if all.is_empty() { None } else { Some(Arc::new(decode(&all)?)) };
        self.placement.send_replace(placement);
        Ok(())
    }
}

struct FrozenMeta(Option<Arc<Placement>>);

impl SnapshotView for FrozenMeta {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        match &self.0 {
            Some(placement) => to.write_all(&encode(placement)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(generation: u64) -> Placement {
        let member = MemberEntry { node: 1, client: "a:1".into(), peer: "a:2".into(), http: "a:3".into() };
        let shard = ShardPlacement { shard: 1, slots: vec![(0, 4095)], replicas: vec![1] };
        Placement { generation, members: vec![member], shards: vec![shard], settings: None }
    }

    fn apply(machine: &mut MetaMachine, index: u64, placement: &Placement) -> Placed {
        let reply = machine.apply(LogPosition { term: 1, index }, 0, &encode(placement).unwrap(), true);
        let ApplyOutcome::Applied(reply) = reply else { panic!("it is readable") };
        *reply.downcast().unwrap()
    }

    #[test]
    fn a_placement_is_taken_only_over_the_generation_it_names() {
        let (sender, seen) = watch::channel(None);
        let mut machine = MetaMachine::new(sender);
        assert_eq!(apply(&mut machine, 1, &placement(1)), Placed { generation: 1, taken: true });
        assert_eq!(apply(&mut machine, 2, &placement(1)), Placed { generation: 1, taken: false });
        assert_eq!(apply(&mut machine, 3, &placement(3)), Placed { generation: 1, taken: false });
        assert_eq!(apply(&mut machine, 4, &placement(2)), Placed { generation: 2, taken: true });
        assert_eq!(seen.borrow().as_deref(), Some(&placement(2)));
    }

    #[test]
    fn a_placement_of_before_there_were_settings_is_read_with_the_defaults() {
        let bytes = encode(&placement(1)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("settings"));
        assert_eq!(decode(&bytes).unwrap().settings().for_shards(), ShardSettings::default());
        let settings = Settings { remembered_max: 7, ..Settings::default() };
        let with = Placement { settings: Some(settings.clone()), ..placement(2) };
        assert_eq!(decode(&encode(&with).unwrap()).unwrap().settings(), settings);
    }

    #[test]
    fn a_snapshot_carries_the_placement_and_garbage_is_refused() {
        let (sender, _) = watch::channel(Some(Arc::new(placement(7))));
        let mut machine = MetaMachine::new(sender);
        let mut bytes = Vec::new();
        machine.snapshot().write(&mut bytes).unwrap();
        let (sender, seen) = watch::channel(None);
        let mut other = MetaMachine::new(sender);
        other.install(LogPosition::default(), &mut bytes.as_slice()).unwrap();
        assert_eq!(seen.borrow().as_deref(), Some(&placement(7)));
        assert!(other.install(LogPosition::default(), &mut [9, 1, 2].as_slice()).is_err());
        assert_eq!(seen.borrow().as_deref(), Some(&placement(7)), "the old state is untouched");
    }
}
