//! `SubmitStream`: many commands in flight on one stream.
//!
//! **What it is.** One task a stream, the one that writes its responses: it reads frames while there is room, decodes each straight to
//! commands, enqueues them at the doors of their shards, and packs every answer that has come into one frame.
//!
//! **Owns** the bound on calls in flight: beyond it the stream is not read, and HTTP/2 makes the caller wait.
//! **Must never** wait for more answers to come (no linger), or leave a call without an answer while the stream lives.
//! **Read next**: [`crate::door`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use ledger_proto::{Answers, At, Calls, Cause, DecodedCall, NotNow, Reply, status};
use service::{Buffered, Place};
use tokio::time::Instant;
use tonic::Status;

use crate::api::Api;
use crate::api::submit::{self, reply_of};
use crate::door::{Answer, AnswerSink, EntryAnswers};
use crate::limits::{ANSWER_UNREAD_BYTES, ANSWERS_PER_FRAME, STREAM_CALLS_IN_FLIGHT, STREAM_FRAMES_AT_ONCE};
use crate::metrics::Outcomes;

/// Where the doors leave the answers of one stream.
struct Mailbox {
    inner: Mutex<Inner>,
    /// Of its connection: answers that wait here are unread as well.
    place: Option<Place>,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<(EntryAnswers, Option<Buffered>)>,
    waker: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswerSink for Mailbox {
    fn answers(&self, answers: EntryAnswers) {
        let bytes = answers.items.len() * ANSWER_UNREAD_BYTES;
        let buffered = self.place.as_ref().map(|place| place.buffer(bytes));
        let waker = {
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            inner.ready.push_back((answers, buffered));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answers of one stream.
pub struct SubmitFlow<S> {
    api: Api,
    calls: S,
    mailbox: Arc<Mailbox>,
    sink: Arc<dyn AnswerSink>,
    in_flight: usize,
    /// Answers that never reached a door.
    at_once: Answers,
    /// No more frames will come.
    read_all: bool,
    /// The frame that could not be read: the stream ends with it, behind all answers that are due.
    failed: Option<Status>,
    decoded: Vec<DecodedCall>,
    /// One call at a time is timed, for the latency histogram.
    timed: Option<(u64, Instant)>,
    /// Completes when the node stops: the stream ends then, so that stopping does not wait for its caller.
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S: Stream<Item = Result<Calls, Status>> + Unpin> SubmitFlow<S> {
    /// Over the frames of one caller.
    pub fn new(api: Api, calls: S, place: Option<Place>) -> Self {
        let mailbox = Arc::new(Mailbox { inner: Mutex::default(), place });
        let stopping = Box::pin(api.node.stop.clone().cancelled_owned());
        Self {
            stopping,
            api,
            calls,
            sink: mailbox.clone(),
            mailbox,
            in_flight: 0,
            at_once: Answers::new(),
            read_all: false,
            failed: None,
            decoded: Vec::new(),
            timed: None,
        }
    }

    /// Reads frames while there is room. Answers whether it stopped with more to read.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..STREAM_FRAMES_AT_ONCE {
            if self.read_all || self.in_flight >= STREAM_CALLS_IN_FLIGHT {
                return false;
            }
            match Pin::new(&mut self.calls).poll_next(cx) {
                Poll::Pending => return false,
                Poll::Ready(None) => self.read_all = true,
                Poll::Ready(Some(Err(status))) => self.fail(status),
                Poll::Ready(Some(Ok(frame))) => self.take(&frame),
            }
        }
        true
    }

    fn fail(&mut self, status: Status) {
        self.read_all = true;
        self.failed = Some(status);
    }

    fn take(&mut self, frame: &Calls) {
        let mut calls = std::mem::take(&mut self.decoded);
        if let Err(error) = frame.decode_into(&mut calls) {
            return self.fail(status::malformed(error));
        }
        let now = Instant::now();
        self.api.metrics.received(&calls);
        if let Err(why) = self.api.serving() {
            let reply = Reply::NotNow(why);
            for call in calls {
                self.at_once.push(call.tag, &reply);
            }
            return;
        }
        let sorted = submit::sort(&self.api, calls, now, None);
        if self.timed.is_none() {
            self.timed = sorted.here.first().and_then(|(_, calls)| calls.first()).map(|call| (call.tag, now));
        }
        for item in sorted.invalid {
            self.at_once.push(item.tag, &item.reply);
        }
        for (shard, calls) in sorted.elsewhere {
            for item in submit::not_here(&self.api, shard, &calls).items {
                self.at_once.push(item.tag, &item.reply);
            }
        }
        for (shard, calls) in sorted.here {
            self.in_flight += calls.len();
            shard.door().propose(&self.sink, calls);
        }
    }

    /// Packs whatever has come into one frame.
    fn pack(&mut self, cx: &mut Context<'_>) -> Option<Answers> {
        let mut ready = VecDeque::new();
        {
            let mut inner = self.mailbox.lock();
            let mut answers = 0;
            while let Some((entry, _)) = inner.ready.front() {
                if answers > 0 && answers + entry.items.len() > ANSWERS_PER_FRAME {
                    break;
                }
                answers += entry.items.len();
                ready.extend(inner.ready.pop_front());
            }
            if inner.ready.is_empty() {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
            }
        }
        if ready.is_empty() && self.at_once.is_empty() {
            return None;
        }
        let mut frame = std::mem::take(&mut self.at_once);
        if frame.is_empty() {
            frame = Answers::with_room_for(ready.iter().map(|(entry, _)| entry.items.len()).sum());
        }
        let mut outcomes = Outcomes::default();
        for (entry, _buffered) in ready {
            self.in_flight = self.in_flight.saturating_sub(entry.items.len());
            self.time(&entry);
            write_entry(&mut frame, &entry, &mut outcomes);
        }
        self.api.metrics.answered(&outcomes);
        Some(frame)
    }

    fn time(&mut self, entry: &EntryAnswers) {
        if let Some((tag, since)) = self.timed
            && entry.items.iter().any(|item| item.tag == tag)
        {
            self.api.metrics.submit_seconds.record(since.elapsed().as_secs_f64());
            self.timed = None;
        }
    }
}

/// Writes the answers of one entry to a frame.
pub fn write_entry(frame: &mut Answers, entry: &EntryAnswers, outcomes: &mut Outcomes) {
    let at = entry.position.map(|position| At { position, time: entry.time });
    let mut out = frame.entry(at);
    for item in &entry.items {
        outcomes.count(&item.answer);
        match &item.answer {
            Answer::Outcome(outcome) => out.outcome(item.tag, item.place, outcome),
            other => out.reply(item.tag, item.place, &reply_of(other.clone())),
        }
    }
}

impl<S: Stream<Item = Result<Calls, Status>> + Unpin> Stream for SubmitFlow<S> {
    type Item = Result<Answers, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let more = this.read(cx);
        if let Some(frame) = this.pack(cx) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if !this.read_all && this.stopping.as_mut().poll(cx).is_ready() {
            let why = NotNow::new(Cause::NotServing, "the node is stopping", crate::limits::RETRY_UNWELL_MS);
            this.fail(status::not_now(why));
        }
        if this.read_all && this.in_flight == 0 {
            return Poll::Ready(this.failed.take().map(Err));
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S> Drop for SubmitFlow<S> {
    fn drop(&mut self) {
        let mut inner = self.mailbox.lock();
        inner.closed = true;
        inner.ready.clear();
    }
}
