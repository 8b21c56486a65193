//! The one bounded door into a shard's log.
//!
//! **What it is.** Callers enqueue [`PendingCall`]s with the [`AnswerSink`] that takes the answers; the pump takes whatever
//! waits as ONE raft entry, keeps a few entries in flight, and hands each sink the answers of an entry together.
//!
//! **Owns** the queue and its bounds, the reserved share, deadlines of calls, the mapping of answers back to callers.
//! **Must never** look at stock, wait for more calls to come (no linger), or turn *unknown* into *no*.
//! **Read next**: [`crate::shard`], which applies the entries.

use std::sync::Arc;

use ledger_core::types::LedgerTime;
use ledger_core::{Command, Outcome, Position};
use ledger_proto::v1::NotNowCode;
use tokio::time::Instant;

/// One command on its way into the log.
#[derive(Debug)]
pub struct PendingCall {
    /// What is asked. Its verb decides the class: reserves are bulk, all else may use the reserved share.
    pub command: Command,
    /// When the caller stops waiting: before it is in an entry the answer is *not now*, after it *unknown*.
    pub expires_at: Instant,
    /// The caller's own name for it, repeated in the answer.
    pub tag: u64,
}

/// Why nothing happened, as the node says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNotNow {
    /// The kind.
    pub code: NotNowCode,
    /// When to come back, milliseconds.
    pub retry_ms: u32,
    /// The leader's client address, for [`NotNowCode::NotLeader`], when known.
    pub leader: Option<Arc<str>>,
    /// For people.
    pub message: &'static str,
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The ledger decided.
    Outcome(Outcome),
    /// Nothing happened.
    NotNow(NodeNotNow),
    /// It may or may not have happened; ask again with the same id. Says why.
    Unknown(&'static str),
}

/// One answer with the caller's tag and its place in the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedAnswer {
    /// As given in the call.
    pub tag: u64,
    /// Place in the entry's batch; 0 when nothing reached the log.
    pub place: u16,
    /// What became of it.
    pub answer: Answer,
}

/// Answers of one entry to one sink, or answers of calls that never reached the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryAnswers {
    /// The entry's position (place 0); none when these never reached the log or are unknown.
    pub position: Option<Position>,
    /// Ledger time of the entry; zero without a position.
    pub time: LedgerTime,
    /// In the order of the entry.
    pub items: Vec<TaggedAnswer>,
}

/// Where answers go: a stream, a unary call, the node itself.
pub trait AnswerSink: Send + Sync + 'static {
    /// Takes answers. Called on the shard's task: it may only push; it must not block, and drops what nobody waits for.
    fn answers(&self, answers: EntryAnswers);
}

/// The door of one shard; cheap to clone.
#[derive(Clone)]
pub struct Door {
    _private: (),
}

impl Door {
    /// Enqueues calls of one sink. Every call gets exactly one answer through it, sooner or later; when the shard is not led
    /// here, or the queue is full, at once and before this returns.
    pub fn propose(&self, _sink: &Arc<dyn AnswerSink>, _calls: Vec<PendingCall>) {
        todo!()
    }

    /// One command of the node itself or of a unary caller, awaited. Answers `Unknown` when the door goes away.
    pub async fn ask(&self, _command: Command, _expires_at: Instant) -> (Option<Position>, LedgerTime, Answer) {
        todo!()
    }
}
