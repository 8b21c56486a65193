//! The one bounded door into a shard's log.
//!
//! **What it is.** Callers enqueue [`PendingCall`]s with the [`AnswerSink`] that takes the answers; the pump takes whatever
//! waits as ONE raft entry, keeps a few entries in flight, and hands each sink the answers of an entry together.
//!
//! **Owns** the queue and its bounds, the reserved share, deadlines of calls, the mapping of answers back to callers.
//! **Must never** look at stock, wait for more calls to come (no linger), or turn *unknown* into *no*.
//! **Read next**: [`crate::shard`], which applies the entries.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_core::types::LedgerTime;
use ledger_core::{Command, Outcome, Position, ReservationId};
use ledger_proto::Invalid;
use ledger_proto::v1::NotNowCode;
use ledger_raft::NoQuorum;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::limits;
use crate::memory::ReplicaMemory;

mod pump;
mod size;

pub(crate) use pump::{AppliedEntry, Outcomes, Pump};
pub use size::queued_bytes;

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
    pub message: Cow<'static, str>,
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The ledger decided.
    Outcome(Outcome),
    /// No log entry can carry the command, which the conversions should have refused: a bug. Nothing happened, and never will.
    Invalid(Invalid),
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

/// The bounds of one door, from configuration.
#[derive(Debug, Clone, Copy)]
pub struct DoorBounds {
    /// Calls that may wait.
    pub calls: usize,
    /// Bytes that calls may take while they wait ([`queued_bytes`]).
    pub bytes: usize,
    /// Percent of both that reserves may not use.
    pub reserved_percent: u32,
}

/// Counts since start, for metrics.
#[derive(Debug, Default)]
pub struct DoorCounts {
    /// Entries proposed.
    pub entries: AtomicU64,
    /// Commands in them.
    pub commands: AtomicU64,
    /// Calls answered OVERLOADED at once.
    pub overloaded: AtomicU64,
    /// Calls answered MEMORY_FULL at once.
    pub memory_full: AtomicU64,
    /// Calls whose deadline passed before they were in an entry.
    pub expired_waiting: AtomicU64,
    /// Calls whose deadline passed in flight: answered *unknown*.
    pub expired_in_flight: AtomicU64,
    /// Calls that no entry can carry: bugs of the conversions.
    pub unencodable: AtomicU64,
    /// Calls waiting just now.
    pub waiting: AtomicU64,
}

/// Which share of the queue a command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What takes stock, and what operators do.
    Bulk,
    /// What ends holds, moves orders on, or keeps the shard going; it gets in when bulk is turned away.
    Reserved,
}

impl Class {
    /// The class of a command.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Tick
            | Command::Confirm { .. }
            | Command::Release { .. }
            | Command::Fence { .. }
            | Command::Return { .. }
            | Command::Heartbeat { .. }
            | Command::ReportOrder { .. }
            | Command::RecordFact { .. }
            | Command::OrderByHand { .. }
            | Command::Configure { .. }
            | Command::OwnSlots { .. }
            | Command::SwitchBehaviour { .. } => Self::Reserved,
            _ => Self::Bulk,
        }
    }
}

/// Whose id is new with the command, of those that are refused while records take all the memory that they may: reservations, and
/// orders that reserve. What crowds do comes from one of these; what ends holds, moves orders on, or changes settings makes room.
fn new_record(command: &Command) -> Option<ReservationId> {
    match command {
        Command::Reserve { id, .. } | Command::PlaceOrder { id, reserve: Some(_), .. } => Some(*id),
        _ => None,
    }
}

/// Whether the shard knows what became of an id.
pub(crate) type Knows = Box<dyn Fn(ReservationId) -> bool + Send + Sync>;

/// The door of one shard; cheap to clone.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: DoorBounds,
    /// What the shard's records take.
    memory: Arc<ReplicaMemory>,
    knows: Knows,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Nothing waits or is in flight any more: for draining.
    settled: Notify,
    counts: DoorCounts,
}

/// Calls of one sink that wait together.
struct Batch {
    sink: Arc<dyn AnswerSink>,
    calls: VecDeque<PendingCall>,
}

struct Queue {
    batches: VecDeque<Batch>,
    calls: usize,
    bytes: usize,
    /// Calls were taken out of here and are not all answered yet. Set where they are taken, under the same lock, so that no look finds them in neither place.
    in_flight: bool,
    /// No call here expires before that.
    earliest: Option<Instant>,
    /// Why nothing is taken now. Begins shut: the pump opens it when this node leads.
    shut: Option<NodeNotNow>,
    /// Set by the digest task: no majority of replicas agrees.
    diverged: bool,
    /// Set for good when the node stops.
    closed: bool,
}

impl Door {
    /// A shut door; its pump opens it.
    pub(crate) fn new(bounds: DoorBounds, memory: Arc<ReplicaMemory>, knows: Knows) -> Self {
        let queue = Queue {
            batches: VecDeque::new(),
            calls: 0,
            bytes: 0,
            in_flight: false,
            earliest: None,
            shut: Some(NodeNotNow::not_serving()),
            diverged: false,
            closed: false,
        };
        let inner = Inner {
            bounds,
            memory,
            knows,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            settled: Notify::new(),
            counts: DoorCounts::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Enqueues calls of one sink. Every call gets exactly one answer through it, sooner or later; when the shard is not led
    /// here, or the queue is full, at once and before this returns.
    ///
    /// One queue, first come first served, whatever the class: calls of one stream keep their order. The reserved share is
    /// about being let in.
    pub fn propose(&self, sink: &Arc<dyn AnswerSink>, mut calls: Vec<PendingCall>) {
        let no_memory = self.without_memory(&mut calls);
        if calls.is_empty() && no_memory.is_none() {
            return;
        }
        let turned_away = {
            let mut queue = self.lock();
            if let Some(why) = queue.refuses() {
                Some((why, calls.into_iter().map(|call| call.tag).collect()))
            } else {
                self.admit(&mut queue, sink, calls)
            }
        };
        for (why, tags) in no_memory.into_iter().chain(turned_away) {
            let counts = &self.inner.counts;
            match why.code {
                NotNowCode::Overloaded => counts.overloaded.fetch_add(tags.len() as u64, Ordering::Relaxed),
                NotNowCode::MemoryFull => counts.memory_full.fetch_add(tags.len() as u64, Ordering::Relaxed),
                _ => 0,
            };
            refuse(sink.as_ref(), &why, tags);
        }
    }

    /// Takes out what is refused while records take all the memory that they may: returns its tags, and why.
    fn without_memory(&self, calls: &mut Vec<PendingCall>) -> Option<(NodeNotNow, Vec<u64>)> {
        let why = self.inner.memory.full()?;
        if self.lock().refuses().is_some() {
            // The shard has more to say than that.
            return None;
        }
        let mut away = Vec::new();
        calls.retain(|call| {
            // What was decided before is answered as before.
            let stays = new_record(&call.command).is_none_or(|id| (self.inner.knows)(id));
            away.extend((!stays).then_some(call.tag));
            stays
        });
        (!away.is_empty()).then(|| (NodeNotNow::memory_full(why), away))
    }

    /// Takes what fits; returns the tags of what does not.
    fn admit(
        &self,
        queue: &mut Queue,
        sink: &Arc<dyn AnswerSink>,
        mut calls: Vec<PendingCall>,
    ) -> Option<(NodeNotNow, Vec<u64>)> {
        let mut away = Vec::new();
        let bounds = self.inner.bounds;
        let share = |all: usize| limits::bulk_share(all, bounds.reserved_percent);
        let (bulk_calls, bulk_bytes) = (share(bounds.calls), share(bounds.bytes));
        let (mut n, mut bytes, mut earliest) = (queue.calls, queue.bytes, queue.earliest);
        calls.retain(|call| {
            let size = queued_bytes(&call.command);
            let (calls_max, bytes_max) = match Class::of(&call.command) {
                Class::Bulk => (bulk_calls, bulk_bytes),
                Class::Reserved => (bounds.calls, bounds.bytes),
            };
            if n >= calls_max || bytes + size > bytes_max {
                away.push(call.tag);
                return false;
            }
            n += 1;
            bytes += size;
            earliest = Some(earliest.map_or(call.expires_at, |e| e.min(call.expires_at)));
            true
        });
        let was_empty = queue.calls == 0;
        (queue.calls, queue.bytes, queue.earliest) = (n, bytes, earliest);
        self.inner.counts.waiting.store(n as u64, Ordering::Relaxed);
        if !calls.is_empty() {
            queue.batches.push_back(Batch { sink: sink.clone(), calls: calls.into() });
            if was_empty {
                self.inner.wake.notify_one();
            }
        }
        (!away.is_empty()).then(|| (NodeNotNow::overloaded("the shard's queue is full"), away))
    }

    /// One command of the node itself or of a unary caller, awaited. Answers `Unknown` when the door goes away.
    pub async fn ask(&self, command: Command, expires_at: Instant) -> (Option<Position>, LedgerTime, Answer) {
        let (sender, answer) = oneshot::channel();
        let sink: Arc<dyn AnswerSink> = Arc::new(One(Mutex::new(Some(sender))));
        self.propose(&sink, vec![PendingCall { command, expires_at, tag: 0 }]);
        drop(sink);
        answer.await.unwrap_or((None, LedgerTime(0), Answer::Unknown("the node stopped before it knew")))
    }

    /// Counts since start.
    pub fn counts(&self) -> &DoorCounts {
        &self.inner.counts
    }

    /// Refuses writes while no majority of replicas agrees on the state, or takes them again.
    pub(crate) fn set_diverged(&self, diverged: bool) {
        self.lock().diverged = diverged;
        self.inner.wake.notify_one();
    }

    /// Takes no new calls from now on; what waits is still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until nothing waits or is in flight.
    pub async fn drained(&self) {
        loop {
            let mut settled = pin!(self.inner.settled.notified());
            // Before the look, so that what settles after it is not missed.
            settled.as_mut().enable();
            if self.lock().is_settled() {
                return;
            }
            settled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_settled(&self) -> bool {
        self.calls == 0 && !self.in_flight
    }
    fn refuses(&self) -> Option<NodeNotNow> {
        if self.closed {
            return Some(NodeNotNow::not_serving());
        }
        if self.diverged && self.shut.is_none() {
            return Some(NodeNotNow {
                code: NotNowCode::Diverged,
                retry_ms: limits::RETRY_UNWELL_MS,
                leader: None,
                message: Cow::Borrowed("no majority of the shard's replicas agrees on its state"),
            });
        }
        self.shut.clone()
    }
}

impl NodeNotNow {
    /// The node is starting or stopping.
    pub fn not_serving() -> Self {
        Self {
            code: NotNowCode::NotServing,
            retry_ms: limits::RETRY_ELECTION_MS,
            leader: None,
            message: Cow::Borrowed("the node is starting or stopping"),
        }
    }
    /// The queue is full, or the deadline passed in it.
    pub fn overloaded(message: &'static str) -> Self {
        let message = Cow::Borrowed(message);
        Self { code: NotNowCode::Overloaded, retry_ms: limits::RETRY_OVERLOADED_MS, leader: None, message }
    }
    /// Records take all the memory that they may; says which and what helps.
    pub fn memory_full(why: String) -> Self {
        let message = Cow::Owned(why);
        Self { code: NotNowCode::MemoryFull, retry_ms: limits::RETRY_MEMORY_MS, leader: None, message }
    }
    /// Too few replicas of the shard are reached.
    pub fn no_quorum(shard: u32, why: &NoQuorum) -> Self {
        let message = Cow::Owned(format!("shard {shard} has {why}"));
        Self { code: NotNowCode::NoQuorum, retry_ms: limits::RETRY_UNWELL_MS, leader: None, message }
    }
    /// Another node leads, or none just now.
    pub fn not_leader(leader: Option<Arc<str>>) -> Self {
        let (retry_ms, message) = match leader {
            Some(_) => (0, "another node leads the shard"),
            None => (limits::RETRY_ELECTION_MS, "an election is under way: retry here, soon"),
        };
        Self { code: NotNowCode::NotLeader, retry_ms, leader, message: Cow::Borrowed(message) }
    }
}

/// Tells one sink that nothing happened.
fn refuse(sink: &dyn AnswerSink, why: &NodeNotNow, tags: Vec<u64>) {
    let items =
        tags.into_iter().map(|tag| TaggedAnswer { tag, place: 0, answer: Answer::NotNow(why.clone()) }).collect();
    sink.answers(EntryAnswers { position: None, time: LedgerTime(0), items });
}

/// A sink for one call.
struct One(Mutex<Option<oneshot::Sender<OneAnswer>>>);

/// Position and ledger time, when the call reached the log, and the answer.
type OneAnswer = (Option<Position>, LedgerTime, Answer);

impl AnswerSink for One {
    fn answers(&self, answers: EntryAnswers) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(sender), Some(item)) = (sender, answers.items.into_iter().next()) {
            let position = answers.position.map(|p| Position { place: item.place, ..p });
            let _nobody_waits = sender.send((position, answers.time, item.answer));
        }
    }
}
