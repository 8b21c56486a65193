//! What openraft is told about our entries, votes and nodes.
//!
//! **Owns** the type configuration. **Must never** be public: no other crate names an openraft type.
//! **Read next**: [`crate::codec`], the bytes of these types.

use std::fmt;
use std::sync::Mutex;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use crate::api::{LogPosition, Reply};

/// The types of every group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Stamped;
    type R = SyncReply;
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    // One leader a term, so that (term, index) names an entry.
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Stamped, u64, Peer>;
    type Entry = openraft::Entry<CommittedLeaderId, Self::Payload>;
    // All of openraft's chance (election timeouts, tick phases) comes from one seed.
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Push<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Runtime = DeterministicRng<TokioRuntime>;
pub(crate) type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, openraft::EntryPayload<Stamped, u64, Peer>>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Peer>;

/// A log id of a term and an index.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// Our word for openraft's log id.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

/// What an entry of ours carries: the leader's stamp and the bytes, encoded once by the node.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub(crate) stamp_ms: u64,
    pub(crate) bytes: Bytes,
}

impl fmt::Debug for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.bytes.len(), self.stamp_ms)
    }
}

/// A member's peer address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Peer {
    pub(crate) addr: String,
}

/// A reply that may be shared by name, as openraft demands; the lock is never contended.
pub(crate) struct SyncReply(Mutex<Reply>);

impl fmt::Debug for SyncReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reply")
    }
}

impl SyncReply {
    pub(crate) fn new(reply: Reply) -> Self {
        Self(Mutex::new(reply))
    }

    pub(crate) fn into_inner(self) -> Reply {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A responder that only pushes: it runs on openraft's tasks.
pub(crate) struct Push<T>(tokio::sync::oneshot::Sender<T>);

impl<T> Push<T> {
    pub(crate) fn new() -> (Self, tokio::sync::oneshot::Receiver<T>) {
        let (tx, rx) = tokio::sync::oneshot::channel();
        (Self(tx), rx)
    }
}

impl<T: openraft::OptionalSend + 'static> Responder<Types, T> for Push<T> {
    fn on_complete(self, result: T) {
        let _nobody_waits = self.0.send(result);
    }
}
