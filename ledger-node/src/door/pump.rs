//! The task behind a door: takes whatever waits as one entry, keeps a few in flight, and gives the answers back.
//!
//! **Owns** entries in flight and their callers' deadlines. **Must never** wait for more calls to come, or forget a caller:
//! every call taken from the queue is answered exactly once. **Read next**: [`crate::shard`].

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ledger_core::codec::{CodecError, EntryBuilder, PushError};
use ledger_core::limits::COMMANDS_PER_ENTRY_MAX;
use ledger_core::outcome::Settled;
use ledger_core::types::LedgerTime;
use ledger_core::{Outcome, Position, Refusal};
use ledger_proto::Invalid;
use ledger_proto::v1::NotNowCode;
use ledger_raft::{Committed, Group, GroupStatus, NodeId, ProposeError, Role};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, AnswerSink, Batch, Door, EntryAnswers, NodeNotNow, PendingCall, Queue, TaggedAnswer, queued_bytes, refuse,
};
use crate::limits;

/// What the state machine answers to the proposer of an entry.
pub(crate) struct AppliedEntry {
    pub(crate) position: Position,
    pub(crate) time: LedgerTime,
    pub(crate) outcomes: Outcomes,
}

/// The answers to an entry's commands.
pub(crate) enum Outcomes {
    /// One a command, in order.
    Each(Vec<Outcome>),
    /// The entry was refused as a whole.
    AllRefused(Refusal),
}

impl Outcomes {
    /// The answer at a place, which is asked for once.
    fn take(&mut self, place: u16) -> Outcome {
        match self {
            Self::Each(outcomes) => std::mem::replace(&mut outcomes[usize::from(place)], Outcome::Ok(Settled::Done)),
            Self::AllRefused(why) => Outcome::Refused(why.clone()),
        }
    }
}

/// Finds a member's client address.
pub(crate) type AddressOf = Arc<dyn Fn(NodeId) -> Option<Arc<str>> + Send + Sync>;

/// Calls of one sink in one entry.
struct Callers {
    sink: Arc<dyn AnswerSink>,
    calls: Vec<Caller>,
}

struct Caller {
    tag: u64,
    place: u16,
    expires_at: Instant,
}

/// One entry in flight.
struct Flight {
    callers: Vec<Callers>,
    earliest: Instant,
}

type Proposal = BoxFuture<'static, (usize, Result<Committed, ProposeError>)>;

/// The pump of one door.
pub(crate) struct Pump {
    door: Door,
    group: Group,
    status: watch::Receiver<GroupStatus>,
    address_of: AddressOf,
    flights: Vec<Option<Flight>>,
    proposals: FuturesUnordered<Proposal>,
    /// How long the last entry was.
    entry_bytes: usize,
    /// An entry is full from here on; the log takes twice as much.
    entry_bytes_soft: usize,
}

/// How many sinks back an entry looks for the same one; more sinks than that just get more frames.
const SINKS_LOOKED_AT: usize = 32;

impl Pump {
    pub(crate) fn new(door: Door, group: Group, address_of: AddressOf) -> Self {
        let status = group.watch();
        let flights = (0..limits::ENTRIES_IN_FLIGHT_MAX).map(|_| None).collect();
        let of_log = if ledger_core::bad!("entry-above-log-bound") { usize::MAX } else { group.entry_bytes_max() / 2 };
        let entry_bytes_soft = limits::ENTRY_BYTES_SOFT_MAX.min(of_log);
        let proposals = FuturesUnordered::new();
        Self { door, group, status, address_of, flights, proposals, entry_bytes: 0, entry_bytes_soft }
    }

    /// Runs until `stop`; then every caller that still waits is answered.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let inner = self.door.inner.clone();
        let timer = tokio::time::sleep(limits::DEADLINE_SCAN);
        tokio::pin!(timer);
        self.follow_role();
        loop {
            let full = self.proposals.len() >= limits::ENTRIES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                Some((slot, result)) = self.proposals.next() => self.finish(slot, result),
                changed = self.status.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_role();
                }
                () = stop.cancelled() => break,
                () = inner.wake.notified(), if !full => {
                    // Natural batching: let every caller that is ready now get its call in, then take all of it.
                    tokio::task::yield_now().await;
                }
                () = &mut timer => {
                    self.expire(Instant::now());
                    self.look_again();
                }
            }
            self.launch();
            if let Some(at) = self.next_scan()
                && (timer.is_elapsed() || at < timer.deadline())
            {
                timer.as_mut().reset(at);
            } else if timer.is_elapsed() {
                timer.as_mut().reset(Instant::now() + limits::QUORUM_LOOK_EVERY);
            }
            self.note_settled();
        }
        self.abandon();
    }

    /// Opens or shuts the door as the role says; a shut one answers what waits.
    fn follow_role(&mut self) {
        let status = self.status.borrow_and_update().clone();
        self.shut_as(&status);
    }

    /// A status is published when something changes, and a leader that falls silent changes
    /// nothing.
    fn look_again(&self) {
        if self.door.lock().shut.is_some() {
            self.shut_as(&self.group.status());
        }
    }

    fn shut_as(&self, status: &GroupStatus) {
        let shut = match (&status.stopped, status.role, &status.no_quorum) {
            (Some(_), ..) => Some(NodeNotNow::not_leader(None)),
            (None, Role::Leader, _) => None,
            (None, _, Some(why)) => Some(NodeNotNow::no_quorum(self.group.id().0, why)),
            (None, ..) => Some(NodeNotNow::not_leader(status.leader.and_then(|leader| (self.address_of)(leader)))),
        };
        let mut queue = self.door.lock();
        queue.shut = shut;
        if let Some(why) = queue.refuses().filter(|_| queue.shut.is_some()) {
            let waiting = take_all(&mut queue);
            drop(queue);
            self.door.inner.counts.waiting.store(0, Ordering::Relaxed);
            for (sink, tags) in waiting {
                refuse(sink.as_ref(), &why, tags);
            }
        }
    }

    /// Proposes whatever waits, as long as there is room in flight.
    fn launch(&mut self) {
        while self.proposals.len() < limits::ENTRIES_IN_FLIGHT_MAX {
            let Some((entry, flight)) = self.take_entry() else { return };
            let counts = &self.door.inner.counts;
            counts.entries.fetch_add(1, Ordering::Relaxed);
            counts.commands.fetch_add(entry.commands() as u64, Ordering::Relaxed);
            let data = entry.finish();
            self.entry_bytes = data.len();
            let slot = self.flights.iter().position(Option::is_none).expect("fewer proposals than slots");
            self.flights[slot] = Some(flight);
            let proposal = self.group.propose(data);
            self.proposals.push(Box::pin(async move { (slot, proposal.await) }));
        }
    }

    /// Encodes waiting calls into one entry, up to its bounds; expired ones are told so.
    ///
    /// The queue is locked once a batch and never while encoding, so that callers on other threads get in.
    fn take_entry(&mut self) -> Option<(EntryBuilder, Flight)> {
        let now = Instant::now();
        let mut entry = None::<EntryBuilder>;
        let mut flight = Flight { callers: Vec::new(), earliest: now };
        let mut full = false;
        while !full {
            let Some(mut batch) = self.door.lock().batches.pop_front() else { break };
            let mut late = Vec::new();
            let (mut taken, mut taken_bytes) = (0, 0);
            while let Some(call) = batch.calls.pop_front() {
                let size = queued_bytes(&call.command);
                if call.expires_at <= now {
                    (taken, taken_bytes) = (taken + 1, taken_bytes + size);
                    late.push(call.tag);
                    continue;
                }
                let entry = entry.get_or_insert_with(|| {
                    // The next entry is about as long as the last: it grows at most once or twice.
                    flight.earliest = call.expires_at;
                    EntryBuilder::with_capacity(self.entry_bytes + self.entry_bytes / 8 + 256)
                });
                let place = entry.commands() as u16;
                match entry.push(&call.command) {
                    Ok(bytes) => {
                        flight.earliest = flight.earliest.min(call.expires_at);
                        let caller = Caller { tag: call.tag, place, expires_at: call.expires_at };
                        join(&mut flight.callers, &batch.sink, caller);
                        full = entry.commands() >= COMMANDS_PER_ENTRY_MAX || bytes >= self.entry_bytes_soft;
                    }
                    Err(PushError::Full) => {
                        batch.calls.push_front(call);
                        full = true;
                        break;
                    }
                    Err(PushError::Refused(why)) => self.refuse_unencodable(batch.sink.as_ref(), &call, &why),
                }
                (taken, taken_bytes) = (taken + 1, taken_bytes + size);
                if full {
                    break;
                }
            }
            if !late.is_empty() {
                self.tell_expired(vec![(batch.sink.clone(), late)]);
            }
            self.give_back(batch, taken, taken_bytes);
        }
        // None, too, when no entry can carry any of what waited.
        entry.filter(|entry| !entry.is_empty()).map(|entry| (entry, flight))
    }

    /// Answers a call whose command no replica could decode: it stays out of the log, and the others go on.
    #[cold]
    fn refuse_unencodable(&self, sink: &dyn AnswerSink, call: &PendingCall, why: &CodecError) {
        self.door.inner.counts.unencodable.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            group = self.group.id().0,
            verb = ?call.command.verb(),
            %why,
            "ALARM: a command that no log entry can carry reached the proposal queue and was refused; report this bug"
        );
        let answer = Answer::Invalid(Invalid::new("command", why.to_string()));
        let items = vec![TaggedAnswer { tag: call.tag, place: 0, answer }];
        sink.answers(EntryAnswers { position: None, time: LedgerTime(0), items });
    }

    /// What was taken no longer waits; the rest of a batch goes back to the front.
    fn give_back(&self, rest: Batch, taken: usize, taken_bytes: usize) {
        let mut queue = self.door.lock();
        queue.calls -= taken;
        queue.bytes -= taken_bytes;
        queue.in_flight = true;
        if queue.calls == 0 {
            queue.earliest = None;
        }
        self.door.inner.counts.waiting.store(queue.calls as u64, Ordering::Relaxed);
        if !rest.calls.is_empty() {
            queue.batches.push_front(rest);
        }
    }

    /// Gives the answers of an entry to its callers.
    fn finish(&mut self, slot: usize, result: Result<Committed, ProposeError>) {
        let Some(flight) = self.flights[slot].take() else { return };
        match result {
            Ok(committed) => match committed.reply.downcast::<AppliedEntry>() {
                Ok(applied) => answer_all(flight, *applied),
                Err(_) => {
                    answer_same(flight, &Answer::Unknown("the entry was applied, its outcomes are not known here"))
                }
            },
            Err(error) => answer_same(flight, &self.answer_for(&error)),
        }
    }

    fn answer_for(&self, error: &ProposeError) -> Answer {
        let unwell = |code, message| {
            let message = Cow::Borrowed(message);
            Answer::NotNow(NodeNotNow { code, retry_ms: limits::RETRY_UNWELL_MS, leader: None, message })
        };
        match error {
            ProposeError::NotLeader { leader, .. } => {
                Answer::NotNow(NodeNotNow::not_leader(leader.and_then(|leader| (self.address_of)(leader))))
            }
            ProposeError::NoQuorum(why) => Answer::NotNow(NodeNotNow::no_quorum(self.group.id().0, why)),
            ProposeError::ClockUnsure => {
                unwell(NotNowCode::ClockUnsure, "the leader has no quorum of clock readings within its bound")
            }
            ProposeError::ClockJumped { .. } => unwell(
                NotNowCode::ClockJumped,
                "the clocks of a quorum are further ahead than the time that has passed; an operator must set them right, or accept",
            ),
            ProposeError::TooLarge { .. } => {
                Answer::NotNow(NodeNotNow::overloaded("the calls of one entry were more than the log takes at once"))
            }
            ProposeError::LowSpace => unwell(NotNowCode::LowSpace, "the log's disk is low on space"),
            ProposeError::Stopped { .. } => {
                unwell(NotNowCode::NotServing, "this replica of the shard is stopped; ask another node")
            }
            ProposeError::Unknown { .. } => Answer::Unknown("leadership was lost while it was in flight"),
        }
    }

    /// Answers callers whose deadline passed: *not now* in the queue, *unknown* in flight (a late answer is dropped).
    fn expire(&mut self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut queue = self.door.lock();
            if queue.earliest.is_some_and(|at| at <= now) {
                expired = take_expired(&mut queue, now);
                self.door.inner.counts.waiting.store(queue.calls as u64, Ordering::Relaxed);
            }
        }
        self.tell_expired(expired);
        for flight in self.flights.iter_mut().flatten().filter(|flight| flight.earliest <= now) {
            let mut earliest = None::<Instant>;
            for callers in &mut flight.callers {
                let mut items = Vec::new();
                callers.calls.retain(|caller| {
                    let late = caller.expires_at <= now;
                    if late {
                        let answer = Answer::Unknown("the deadline passed while it was in flight");
                        items.push(TaggedAnswer { tag: caller.tag, place: 0, answer });
                    } else {
                        earliest = Some(earliest.map_or(caller.expires_at, |e| e.min(caller.expires_at)));
                    }
                    !late
                });
                if !items.is_empty() {
                    self.door.inner.counts.expired_in_flight.fetch_add(items.len() as u64, Ordering::Relaxed);
                    callers.sink.answers(EntryAnswers { position: None, time: LedgerTime(0), items });
                }
            }
            // With nobody left to tell, the flight needs no further look.
            flight.earliest = earliest.unwrap_or(now + limits::OWN_COMMAND_WITHIN);
        }
    }

    fn tell_expired(&self, expired: Vec<(Arc<dyn AnswerSink>, Vec<u64>)>) {
        let why = NodeNotNow::overloaded("the deadline passed before the call was in the log");
        for (sink, tags) in expired {
            self.door.inner.counts.expired_waiting.fetch_add(tags.len() as u64, Ordering::Relaxed);
            refuse(sink.as_ref(), &why, tags);
        }
    }

    /// When the next deadline must be looked at; never sooner than the scan interval allows.
    fn next_scan(&self) -> Option<Instant> {
        let flights = self.flights.iter().flatten().map(|flight| flight.earliest).min();
        let earliest = [self.door.lock().earliest, flights].into_iter().flatten().min()?;
        Some(earliest.max(Instant::now() + limits::DEADLINE_SCAN))
    }

    /// Wakes whoever waits until the queue is empty, on every turn that leaves it empty: calls may have come and been answered since the last one.
    fn note_settled(&self) {
        if !self.proposals.is_empty() {
            return;
        }
        let settled = {
            let mut queue = self.door.lock();
            queue.in_flight = false;
            queue.is_settled()
        };
        if settled {
            self.door.inner.settled.notify_waiters();
        }
    }

    /// The node stops: what waits never happened, what is in flight is not known.
    fn abandon(&mut self) {
        let waiting = {
            let mut queue = self.door.lock();
            queue.shut = Some(NodeNotNow::not_serving());
            take_all(&mut queue)
        };
        for (sink, tags) in waiting {
            refuse(sink.as_ref(), &NodeNotNow::not_serving(), tags);
        }
        for flight in self.flights.iter_mut().filter_map(Option::take) {
            answer_same(flight, &Answer::Unknown("the node stopped while it was in flight"));
        }
        self.door.lock().in_flight = false;
        self.door.inner.settled.notify_waiters();
    }
}

/// Adds a caller to its sink's group, if that is among the last few.
fn join(callers: &mut Vec<Callers>, sink: &Arc<dyn AnswerSink>, caller: Caller) {
    let known = callers.iter_mut().rev().take(SINKS_LOOKED_AT).find(|known| Arc::ptr_eq(&known.sink, sink));
    match known {
        Some(known) => known.calls.push(caller),
        None => callers.push(Callers { sink: sink.clone(), calls: vec![caller] }),
    }
}

fn answer_all(flight: Flight, mut applied: AppliedEntry) {
    for callers in flight.callers {
        let mut items = Vec::with_capacity(callers.calls.len());
        for caller in &callers.calls {
            let place = caller.place;
            let outcome = applied.outcomes.take(place);
            items.push(TaggedAnswer { tag: caller.tag, place, answer: Answer::Outcome(outcome) });
        }
        if !items.is_empty() {
            callers.sink.answers(EntryAnswers { position: Some(applied.position), time: applied.time, items });
        }
    }
}

fn answer_same(flight: Flight, answer: &Answer) {
    for callers in flight.callers {
        let item = |caller: &Caller| TaggedAnswer { tag: caller.tag, place: 0, answer: answer.clone() };
        let items: Vec<_> = callers.calls.iter().map(item).collect();
        if !items.is_empty() {
            callers.sink.answers(EntryAnswers { position: None, time: LedgerTime(0), items });
        }
    }
}

fn take_all(queue: &mut Queue) -> Vec<(Arc<dyn AnswerSink>, Vec<u64>)> {
    (queue.calls, queue.bytes, queue.earliest) = (0, 0, None);
    queue.batches.drain(..).map(|batch| (batch.sink, batch.calls.iter().map(|call| call.tag).collect())).collect()
}

fn take_expired(queue: &mut Queue, now: Instant) -> Vec<(Arc<dyn AnswerSink>, Vec<u64>)> {
    let mut expired = Vec::new();
    let (mut calls, mut bytes, mut earliest) = (0, 0, None::<Instant>);
    for batch in &mut queue.batches {
        let mut late = Vec::new();
        batch.calls.retain(|call| {
            if call.expires_at <= now {
                late.push(call.tag);
                return false;
            }
            calls += 1;
            bytes += queued_bytes(&call.command);
            earliest = Some(earliest.map_or(call.expires_at, |e| e.min(call.expires_at)));
            true
        });
        if !late.is_empty() {
            expired.push((batch.sink.clone(), late));
        }
    }
    queue.batches.retain(|batch| !batch.calls.is_empty());
    (queue.calls, queue.bytes, queue.earliest) = (calls, bytes, earliest);
    expired
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<EntryAnswers>>);

    impl AnswerSink for Kept {
        fn answers(&self, answers: EntryAnswers) {
            self.0.lock().expect("whole").push(answers);
        }
    }

    #[test]
    fn every_caller_of_a_refused_entry_gets_a_definite_refusal() {
        let sink = Arc::new(Kept::default());
        let now = Instant::now();
        let caller = |tag| Caller { tag, place: tag as u16, expires_at: now };
        let callers = vec![Callers { sink: sink.clone(), calls: vec![caller(0), caller(1), caller(2)] }];
        let position = Position { index: 7, ..Position::default() };
        let outcomes = Outcomes::AllRefused(Refusal::EntryUndecodable);
        answer_all(Flight { callers, earliest: now }, AppliedEntry { position, time: LedgerTime(9), outcomes });
        let kept = sink.0.lock().expect("whole");
        assert_eq!((kept.len(), kept[0].position, kept[0].time), (1, Some(position), LedgerTime(9)));
        let refused = Answer::Outcome(Outcome::Refused(Refusal::EntryUndecodable));
        assert_eq!(kept[0].items.len(), 3);
        assert!(kept[0].items.iter().all(|item| item.answer == refused), "{kept:?}");
    }
}
