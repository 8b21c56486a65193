//! One long-lived stream to one node: concurrent calls share its frames without knowing.
//!
//! **What it is.** Callers encode their call straight into the frame that is filling, under one short lock; HTTP/2 takes the frame when it
//! can send, so what waits meanwhile is the batch (no timer). Answers find their callers by tag: place and generation in a slab.
//! Nothing is allocated per call.
//!
//! **Owns** tags, what was handed over, and per-attempt deadlines. **Must never** hold its lock
//! across an await, give an answer to another call than its own, or call an attempt unsent whose
//! frame was handed over. **Read next**: [`crate::unsent`], [`crate::calling`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use ledger_core::Command;
use ledger_proto::fast::ReceivedAnswer;
use ledger_proto::reply::{At, Reply};
use ledger_proto::{Answers, Calls};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits;
use crate::unsent::Unsent;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Landed {
    /// The node answered.
    Answer(Reply, Option<At>),
    /// The stream broke; whether the call had been handed over.
    Broken { sent: bool },
    /// Its time was up; whether the call had been handed over. If not, it is not sent later.
    Late { sent: bool },
}

/// Why a call was not queued. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// The node cannot be reached at present.
    Down,
    /// Too many calls wait for answers.
    Full,
    /// Only nodes propose such a command.
    Unsendable,
}

enum Slot {
    Free,
    Waiting,
    Landed(Landed),
}

struct Entry {
    generation: u32,
    /// Its place in the order of all calls of this lane, to tell sent from unsent.
    order: u64,
    deadline: Instant,
    waker: Option<Waker>,
    slot: Slot,
}

impl Entry {
    /// Whether the call of that generation still waits.
    fn waits(&self, generation: u32) -> bool {
        self.generation == generation && matches!(self.slot, Slot::Waiting)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Connecting for the first time, or connected: calls are queued.
    Trying,
    /// The last try to connect failed: calls are told so at once.
    Down,
}

struct State {
    entries: Vec<Entry>,
    free: Vec<u32>,
    waiting: usize,
    /// Tasks that wait for room.
    queueing: usize,
    unsent: Unsent,
    next_order: u64,
    /// All calls below were handed over to the connection.
    handed_over: u64,
    /// HTTP/2 waits for the next frame.
    puller: Option<Waker>,
    /// Whether the puller has let others run since there was something to pull.
    yielded: bool,
    /// Which stream may pull.
    epoch: u64,
    link: Link,
    next_due: Option<Instant>,
    shut: bool,
}

/// One stream to one node.
pub(crate) struct Lane {
    state: Mutex<State>,
    room: Notify,
    due: Notify,
    idle: Notify,
}

impl Lane {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            entries: Vec::new(),
            free: Vec::new(),
            waiting: 0,
            queueing: 0,
            unsent: Unsent::default(),
            next_order: 0,
            handed_over: 0,
            puller: None,
            yielded: false,
            epoch: 0,
            link: Link::Trying,
            next_due: None,
            shut: false,
        };
        Arc::new(Self { state: Mutex::new(state), room: Notify::new(), due: Notify::new(), idle: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics but on a broken invariant; the state is as consistent as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call into the filling frame.
    pub(crate) fn queue(
        self: &Arc<Self>,
        command: &Command,
        within_ms: u32,
        deadline: Instant,
    ) -> Result<Ticket, NotQueued> {
        let mut state = self.lock();
        if state.link == Link::Down || state.shut {
            return Err(NotQueued::Down);
        }
        if state.is_full() {
            return Err(NotQueued::Full);
        }
        let place = state.place(deadline);
        let (generation, next) = (state.entries[place as usize].generation, state.next_order);
        if !state.unsent.put((place, generation), next, within_ms, command) {
            state.vacate(place);
            return Err(NotQueued::Unsendable);
        }
        state.waiting += 1;
        let earlier = state.next_due.is_none_or(|due| deadline < due);
        if earlier {
            state.next_due = Some(deadline);
        }
        let puller = state.puller.take();
        drop(state);
        if let Some(puller) = puller {
            puller.wake();
        }
        if earlier {
            self.due.notify_one();
        }
        Ok(Ticket { lane: self.clone(), place, generation })
    }

    /// Waits until a call may be queued again, or it may be worth a try.
    pub(crate) async fn room(&self) {
        let room = self.room.notified();
        tokio::pin!(room);
        room.as_mut().enable();
        {
            let mut state = self.lock();
            if !state.is_full() || state.link == Link::Down {
                return;
            }
            state.queueing += 1;
        }
        let _left = Queueing(self);
        room.await;
    }

    /// Whether the node could not be reached at the last try.
    pub(crate) fn is_down(&self) -> bool {
        self.lock().link == Link::Down
    }

    /// Gives the answers of a frame to their callers.
    pub(crate) fn land(&self, answers: &mut Vec<ReceivedAnswer>, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        for ReceivedAnswer { tag, at, reply } in answers.drain(..) {
            // A node cannot have decided what it does not have.
            if state.was_handed_over(tag as u32) {
                wakers.extend(state.land(tag as u32, (tag >> 32) as u32, Landed::Answer(reply, at)));
            }
        }
        self.unlock_and_wake(state, wakers);
    }

    fn unlock_and_wake(&self, state: MutexGuard<'_, State>, wakers: &mut Vec<Waker>) {
        let admit = state.admits();
        let idle = state.waiting == 0;
        drop(state);
        for waker in wakers.drain(..) {
            waker.wake();
        }
        for _ in 0..admit {
            self.room.notify_one();
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// A new stream begins to pull; older ones end.
    pub(crate) fn outgoing(self: &Arc<Self>) -> Outgoing {
        let mut state = self.lock();
        state.epoch += 1;
        state.link = Link::Trying;
        Outgoing { lane: self.clone(), epoch: state.epoch }
    }

    /// The stream broke, or could not be opened: every waiting call is told whether it was handed over, and nothing of it is sent later.
    pub(crate) fn broken(&self, down: bool) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        state.epoch += 1;
        if down {
            state.link = Link::Down;
        }
        let handed_over = state.handed_over;
        for place in 0..state.entries.len() {
            let Entry { generation, order, .. } = state.entries[place];
            wakers.extend(state.land(place as u32, generation, Landed::Broken { sent: order < handed_over }));
        }
        state.withdraw();
        wakers.extend(state.puller.take());
        self.unlock_and_wake(state, &mut wakers);
    }

    /// Tells calls whose time is up, for as long as the lane lives.
    pub(crate) async fn sweep(&self) {
        loop {
            let due = self.lock().next_due;
            match due {
                None => self.due.notified().await,
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => self.sweep_once(Instant::now()),
                        () = self.due.notified() => {}
                    }
                }
            }
        }
    }

    fn sweep_once(&self, now: Instant) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let handed_over = state.handed_over;
        let (mut next, mut late) = (None, Vec::new());
        for (place, entry) in state.entries.iter().enumerate().filter(|(_, e)| matches!(e.slot, Slot::Waiting)) {
            let sent = entry.order < handed_over;
            if entry.deadline <= now {
                late.push((place as u32, entry.generation, sent));
            } else {
                next = Some(next.map_or(entry.deadline, |due: Instant| due.min(entry.deadline)));
            }
        }
        let unsent = late.iter().filter(|(.., sent)| !sent).count();
        for (place, generation, sent) in late {
            wakers.extend(state.land(place, generation, Landed::Late { sent }));
        }
        state.died(unsent);
        state.next_due = next;
        self.unlock_and_wake(state, &mut wakers);
    }

    /// Waits until no call waits for an answer.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.lock().waiting == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Takes no more calls and ends the stream.
    pub(crate) fn shut(&self) {
        self.lock().shut = true;
        self.broken(true);
    }
}

/// Counts a task that waits for room for as long as it does.
struct Queueing<'a>(&'a Lane);

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        self.0.lock().queueing -= 1;
    }
}

impl State {
    fn place(&mut self, deadline: Instant) -> u32 {
        let order = self.next_order;
        self.next_order += 1;
        match self.free.pop() {
            Some(place) => {
                let entry = &mut self.entries[place as usize];
                entry.order = order;
                entry.deadline = deadline;
                entry.slot = Slot::Waiting;
                place
            }
            None => {
                self.entries.push(Entry { generation: 1, order, deadline, waker: None, slot: Slot::Waiting });
                (self.entries.len() - 1) as u32
            }
        }
    }

    /// The place may be used again, under another generation.
    fn vacate(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        entry.slot = Slot::Free;
        entry.waker = None;
        entry.generation = entry.generation.wrapping_add(1).max(1);
        self.free.push(place);
    }

    /// Ends a waiting attempt; its task is to be woken. Answers to what nobody waits for any more are dropped.
    fn land(&mut self, place: u32, generation: u32, landed: Landed) -> Option<Waker> {
        let entry = self.entries.get_mut(place as usize)?;
        if entry.generation != generation || !matches!(entry.slot, Slot::Waiting) {
            return None;
        }
        entry.slot = Slot::Landed(landed);
        self.waiting -= 1;
        entry.waker.take()
    }

    /// Whether the call in a place was given to the stream.
    fn was_handed_over(&self, place: u32) -> bool {
        self.entries.get(place as usize).is_some_and(|entry| entry.order < self.handed_over)
    }

    fn is_full(&self) -> bool {
        self.waiting >= limits::IN_FLIGHT_MAX || self.unsent.bytes() >= limits::UNSENT_BYTES_MAX
    }

    /// Tasks that wait for room and may try now.
    fn admits(&self) -> usize {
        let free = limits::IN_FLIGHT_MAX - self.waiting.min(limits::IN_FLIGHT_MAX);
        if self.is_full() { 0 } else { self.queueing.min(free) }
    }

    /// So many calls that were not handed over have no caller any more: they are not sent.
    fn died(&mut self, calls: usize) {
        let Self { unsent, entries, .. } = self;
        if calls > 0 {
            unsent.died(calls, |place, generation| entries[place as usize].waits(generation));
        }
    }

    /// The next frame to hand over, if any of its calls has a caller.
    fn next_frame(&mut self) -> Option<Bytes> {
        if !self.unsent.has_closed() {
            self.unsent.close_frame(self.next_order);
        }
        let Self { unsent, entries, .. } = self;
        let (bytes, behind) = unsent.take(|place, generation| entries[place as usize].waits(generation))?;
        self.handed_over = behind;
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Nothing that was not handed over yet is sent later.
    fn withdraw(&mut self) {
        self.unsent.clear();
        self.handed_over = self.next_order;
    }
}

/// A queued call. Dropping it leaves everybody else's answers alone.
pub(crate) struct Ticket {
    lane: Arc<Lane>,
    place: u32,
    generation: u32,
}

impl Ticket {
    /// How the attempt ended, once it has. After that the ticket is spent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Landed> {
        let mut state = self.lane.lock();
        let entry = &mut state.entries[self.place as usize];
        debug_assert_eq!(entry.generation, self.generation, "a ticket outlived its place");
        if let Slot::Waiting = entry.slot {
            match &mut entry.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut entry.slot, Slot::Free) {
            Slot::Landed(landed) => {
                state.vacate(self.place);
                self.generation = 0;
                Poll::Ready(landed)
            }
            Slot::Free | Slot::Waiting => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.generation == 0 {
            return;
        }
        let mut state = self.lane.lock();
        let Entry { ref slot, order, .. } = state.entries[self.place as usize];
        let waited = matches!(slot, Slot::Waiting);
        let unsent = waited && order >= state.handed_over;
        state.waiting -= usize::from(waited);
        state.vacate(self.place);
        state.died(usize::from(unsent));
        self.lane.unlock_and_wake(state, &mut Vec::new());
    }
}

/// The frames of a lane as one stream pulls them.
pub(crate) struct Outgoing {
    lane: Arc<Lane>,
    epoch: u64,
}

impl Stream for Outgoing {
    type Item = Calls;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Calls>> {
        let mut state = self.lane.lock();
        if state.epoch != self.epoch || state.shut {
            return Poll::Ready(None);
        }
        loop {
            if state.unsent.is_empty() {
                state.yielded = false;
                state.puller = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if !state.unsent.has_closed() && !state.yielded {
                // Tasks that are ready to call now share the frame: one turn of the scheduler instead
                // of a timer.
                state.yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(frame) = state.next_frame() {
                state.yielded = false;
                let admit = state.admits();
                drop(state);
                (0..admit).for_each(|_| self.lane.room.notify_one());
                return Poll::Ready(Some(Calls::from_encoded(frame)));
            }
        }
    }
}

/// Reads the answers of a stream until it ends.
pub(crate) async fn receive(
    lane: &Lane,
    mut answers: tonic::Streaming<Answers>,
    mut heard: impl FnMut(&[ReceivedAnswer]),
) -> Option<tonic::Status> {
    let (mut received, mut wakers) = (Vec::new(), Vec::new());
    loop {
        match answers.message().await {
            Ok(Some(frame)) => {
                if let Err(error) = frame.decode_into(&mut received) {
                    return Some(ledger_proto::status::malformed(error));
                }
                heard(&received);
                lane.land(&mut received, &mut wakers);
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt as _, StreamExt as _};
    use ledger_core::{ReservationId, Slot};

    use super::*;

    fn queue(lane: &Arc<Lane>, wait: Duration) -> Ticket {
        let command = Command::Release { id: ReservationId::from_parts(Slot::new(0).unwrap(), 1, 1) };
        lane.queue(&command, 0, Instant::now() + wait).ok().unwrap()
    }
    fn landed(ticket: &mut Ticket) -> Option<Landed> {
        std::future::poll_fn(|cx| ticket.poll(cx)).now_or_never()
    }
    async fn pull(outgoing: &mut Outgoing) -> Vec<u64> {
        let frame = outgoing.next().await.unwrap();
        frame.decode().unwrap().into_iter().map(|call| call.tag).collect()
    }
    fn tag(place: u32, generation: u32) -> u64 {
        u64::from(generation) << 32 | u64::from(place)
    }
    fn answer(lane: &Lane, tag: u64) {
        let reply = Reply::Unknown(String::new());
        lane.land(&mut vec![ReceivedAnswer { tag, at: None, reply }], &mut Vec::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_call_that_was_not_sent_is_none() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        let mut waiting = queue(&lane, Duration::from_secs(1));
        let (dropped, _stays) = (queue(&lane, Duration::from_secs(1)), queue(&lane, Duration::from_secs(1)));
        answer(&lane, tag(0, 1));
        drop(dropped);
        assert!(landed(&mut waiting).is_none(), "nobody can have decided it");
        let sent = pull(&mut outgoing).await;
        assert_eq!((sent.len(), sent[0]), (2, tag(0, 1)), "it and the one that stays are sent");
        answer(&lane, sent[0]);
        assert!(landed(&mut waiting).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_not_given_to_the_next_call_in_its_place() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        let dropped = queue(&lane, Duration::from_secs(1));
        let tag = pull(&mut outgoing).await[0];
        drop(dropped);
        let mut next = queue(&lane, Duration::from_secs(1));
        let next_tag = pull(&mut outgoing).await[0];
        assert_eq!(tag as u32, next_tag as u32, "the place is used again");
        answer(&lane, tag);
        assert!(landed(&mut next).is_none());
        answer(&lane, next_tag);
        assert!(matches!(landed(&mut next), Some(Landed::Answer(..))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_tells_sent_from_unsent_and_sends_nothing_later() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        let mut sent = queue(&lane, Duration::from_secs(1));
        assert_eq!(pull(&mut outgoing).await.len(), 1);
        let mut unsent = queue(&lane, Duration::from_secs(1));
        lane.broken(false);
        assert!(matches!(landed(&mut sent), Some(Landed::Broken { sent: true })));
        assert!(matches!(landed(&mut unsent), Some(Landed::Broken { sent: false })));
        assert!(outgoing.next().await.is_none(), "the old stream ends");
        assert!(lane.outgoing().next().now_or_never().is_none(), "the new one starts empty");
        lane.broken(true);
        let command = Command::Release { id: ReservationId::from_parts(Slot::new(0).unwrap(), 1, 1) };
        assert_eq!(lane.queue(&command, 0, Instant::now()).err(), Some(NotQueued::Down));
    }

    #[tokio::test(start_paused = true)]
    async fn late_unsent_call_is_not_now() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        let mut alone = queue(&lane, Duration::from_secs(1));
        lane.sweep_once(Instant::now() + Duration::from_secs(1));
        assert!(matches!(landed(&mut alone), Some(Landed::Late { sent: false })));
        assert!(outgoing.next().now_or_never().is_none(), "it is not sent");

        let mut late = queue(&lane, Duration::from_secs(1));
        let mut waits = queue(&lane, Duration::from_secs(9));
        lane.sweep_once(Instant::now() + Duration::from_secs(1));
        assert!(matches!(landed(&mut late), Some(Landed::Late { sent: false })));
        let tags = pull(&mut outgoing).await;
        assert_eq!(tags.len(), 1, "the one beside it goes out without it");
        answer(&lane, tags[0]);
        assert!(matches!(landed(&mut waits), Some(Landed::Answer(..))));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_call_is_never_sent() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        // One in three lives: enough calls die for their bytes to be given back in between.
        let mut live = Vec::new();
        for n in 0..3 * limits::FRAME_CALLS {
            let ticket = queue(&lane, Duration::from_secs(9));
            if n % 3 == 1 {
                live.push(ticket);
            }
        }
        let expected = live.iter().map(|ticket| tag(ticket.place, ticket.generation)).collect::<Vec<_>>();
        // What takes the place of a cancelled call is another call.
        let mut sent = Vec::new();
        while sent.len() < expected.len() {
            sent.extend(pull(&mut outgoing).await);
        }
        assert_eq!(sent, expected, "those that were not cancelled, in their order");
        assert!(outgoing.next().now_or_never().is_none(), "nothing else is sent");
        let state = lane.lock();
        assert_eq!((state.unsent.bytes(), state.handed_over), (0, state.next_order));
    }

    #[tokio::test(start_paused = true)]
    async fn unsent_bytes_are_bounded() {
        let lane = Lane::new();
        let kept = queue(&lane, Duration::from_secs(9));
        for _ in 0..100_000 {
            drop(queue(&lane, Duration::from_secs(9)));
        }
        assert!(lane.lock().unsent.bytes() < 1_024, "{} bytes of cancelled calls", lane.lock().unsent.bytes());
        drop(kept);
        assert_eq!(lane.lock().unsent.bytes(), 0);

        let id = ReservationId::from_parts(Slot::new(0).unwrap(), 1, 1);
        let reason = ledger_core::Reason::new("x".repeat(128)).unwrap();
        let large = Command::ReportOrder { id, epoch: 1, report: ledger_core::order::Report::Park { reason } };
        let put = |_| lane.queue(&large, 0, Instant::now() + Duration::from_secs(9));
        let tickets: Vec<_> = (0..limits::IN_FLIGHT_MAX).map_while(|n| put(n).ok()).collect();
        assert_eq!(put(0).err(), Some(NotQueued::Full));
        assert!(tickets.len() < limits::IN_FLIGHT_MAX, "by bytes, not by calls");
        assert!(lane.lock().unsent.bytes() < limits::UNSENT_BYTES_MAX + limits::FRAME_BYTES);
        let room = tokio::spawn({
            let lane = lane.clone();
            async move { lane.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!room.is_finished());
        pull(&mut lane.outgoing()).await;
        room.await.unwrap();
        assert!(put(0).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_lane_gives_room_as_answers_come() {
        let lane = Lane::new();
        let mut outgoing = lane.outgoing();
        let mut tickets: Vec<_> = (0..limits::IN_FLIGHT_MAX).map(|_| queue(&lane, Duration::from_secs(9))).collect();
        let command = Command::Release { id: ReservationId::from_parts(Slot::new(0).unwrap(), 1, 1) };
        assert_eq!(lane.queue(&command, 0, Instant::now()).err(), Some(NotQueued::Full));
        let waiting = tokio::spawn({
            let lane = lane.clone();
            async move { lane.room().await }
        });
        let tags = pull(&mut outgoing).await;
        assert!(tags.len() <= limits::FRAME_CALLS && !waiting.is_finished());
        answer(&lane, tags[0]);
        waiting.await.unwrap();
        assert!(landed(&mut tickets[0]).is_some());
        queue(&lane, Duration::from_secs(9));
    }
}
