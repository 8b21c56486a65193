//! What HTTP/2 costs a node before any call is served, by source: control frames and new calls.
//!
//! **What it is.** Frames are counted as they are read. A source that has sent more control frames
//! (pings, settings, resets and the like, which cost a caller nothing) than its share is not read
//! for a while: its caller waits as it does for a closed window. The connections of a source that
//! begins very many calls at once take turns: few calls begin in each, and everything else that the
//! node has to do runs between two. Calls of other sources wait for few of them instead of for all.
//! On a connection, what comes behind a call that waits waits with it.
//!
//! **Owns** each source's share, and what was read of a connection and has to wait. **Must never**
//! close a connection, or look into a frame. **Read next**: [`super::connection`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures::task::AtomicWaker;
use service::Source;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::limits::{
    CALLS_AT_ONCE, CALLS_AT_ONCE_WITHIN, CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND, TURN_CALLS,
    TURN_CONNECTIONS,
};

/// What a connection begins with: `PRI * HTTP/2.0`, blank lines and `SM`.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// With so many shares, those of sources that left and owe nothing are looked for.
const SHARES_SWEPT: usize = 256;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The shares of all sources that are connected.
#[derive(Debug, Default)]
pub(super) struct FrameShares(Mutex<BTreeMap<Source, Arc<Share>>>);

/// One source's.
#[derive(Debug)]
struct Share(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    connections: usize,
    /// When the control frames so far would have been sent at the rate that they may be.
    even: Instant,
    /// When the calls so far would have begun at the rate that they may without turns; never later than a whole burst of them takes.
    calls_even: Instant,
    /// Turns are given: somebody waits, or did just now.
    in_turns: bool,
    /// Calls that began in this turn.
    calls: u64,
    /// Connections that wait for a turn, the first one first. One that is gone stays until then.
    waiting: VecDeque<Arc<Waiter>>,
    /// Calls of each connection in this turn.
    each: u64,
}

/// A connection that waits for a turn.
#[derive(Debug, Default)]
struct Waiter {
    its_turn: AtomicBool,
    waker: AtomicWaker,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one call takes of what may begin without turns.
const CALL_TAKES: Duration = Duration::from_nanos(CALLS_AT_ONCE_WITHIN.as_nanos() as u64 / CALLS_AT_ONCE);

impl Counts {
    /// Calls that may begin now without a turn.
    fn at_once(&self, now: Instant) -> u64 {
        if self.in_turns {
            return 0;
        }
        let free = CALLS_AT_ONCE_WITHIN.saturating_sub(self.calls_even.saturating_duration_since(now));
        (free.as_nanos() / CALL_TAKES.as_nanos()) as u64
    }

    /// Calls began, with or without a turn.
    fn began(&mut self, calls: u64, now: Instant) {
        let even = self.calls_even.max(now) + CALL_TAKES * calls.min(CALLS_AT_ONCE) as u32;
        self.calls_even = even.min(now + CALLS_AT_ONCE_WITHIN);
    }

    /// What its source owes, or waits for, outlasts its connections.
    fn is_needed(&self, now: Instant) -> bool {
        self.connections > 0 || self.in_turns || self.even > now || self.calls_even > now
    }
}

impl Share {
    fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self(Mutex::new(Counts {
            connections: 0,
            even: now,
            calls_even: now,
            in_turns: false,
            calls: 0,
            waiting: VecDeque::new(),
            each: 0,
        })))
    }

    /// The next turn; whose it is. None: nobody waits any more.
    fn next_turn(&self) -> Vec<Arc<Waiter>> {
        let mut counts = lock(&self.0);
        let connections = counts.waiting.len().min(TURN_CONNECTIONS);
        if connections == 0 {
            counts.in_turns = false;
            return Vec::new();
        }
        (counts.calls, counts.each) = (0, TURN_CALLS / connections as u64);
        counts.waiting.drain(..connections).collect()
    }

    /// Gives turns until nobody waits.
    async fn give_turns(self: Arc<Self>) {
        loop {
            let whose = self.next_turn();
            if whose.is_empty() {
                return;
            }
            for waiter in whose {
                waiter.its_turn.store(true, Ordering::Release);
                waiter.waker.wake();
            }
            // They run now, and so does whatever else can, before this goes on.
            tokio::task::yield_now().await;
        }
    }
}

/// Where in a frame the bytes of a connection are.
#[derive(Debug, Clone, Copy)]
struct Parser {
    /// Bytes to pass over until a frame begins.
    skip: usize,
    /// What came of a frame's head.
    head: [u8; HEAD_BYTES],
    came: usize,
}

/// What began in bytes that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Begun {
    /// These, of them all.
    bytes: usize,
    control: u64,
    calls: u64,
    /// The call whose head they end with has to wait.
    call_waits: bool,
}

impl Parser {
    /// Counts the frames whose heads end in these bytes, up to the head of the first call beyond `calls_most`.
    fn count(&mut self, bytes: &[u8], calls_most: u64) -> Begun {
        let mut begun = Begun::default();
        while begun.bytes < bytes.len() {
            let left = bytes.len() - begun.bytes;
            let skipped = self.skip.min(left);
            self.skip -= skipped;
            begun.bytes += skipped;
            let taken = (left - skipped).min(HEAD_BYTES - self.came);
            self.head[self.came..self.came + taken].copy_from_slice(&bytes[begun.bytes..begun.bytes + taken]);
            self.came += taken;
            begun.bytes += taken;
            if self.came == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                (self.skip, self.came) = (u32::from_be_bytes([0, a, b, c]) as usize, 0);
                match kind {
                    HEADERS if begun.calls == calls_most => {
                        begun.call_waits = true;
                        return begun;
                    }
                    HEADERS => begun.calls += 1,
                    DATA | CONTINUATION => {}
                    _ => begun.control += 1,
                }
            }
        }
        begun
    }
}

/// One connection's frames.
#[derive(Debug)]
pub(super) struct Frames {
    shares: Arc<FrameShares>,
    source: Source,
    share: Arc<Share>,
    parser: Parser,
    /// Was read and waits: it begins behind the head of a call, if `call_waits`. At most one read of HTTP/2.
    ahead: BytesMut,
    call_waits: bool,
    waiter: Arc<Waiter>,
    queued: bool,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// So many bytes are passed on; the others are kept here.
    pub(super) bytes: usize,
    /// No more may be read until then.
    pub(super) until: Option<Instant>,
}

impl Frames {
    /// Of a connection that was just accepted.
    pub(super) fn new(shares: Arc<FrameShares>, source: Source) -> Self {
        let mut all = lock(&shares.0);
        let now = Instant::now();
        if all.len() >= SHARES_SWEPT && !all.contains_key(&source) {
            all.retain(|_, share| lock(&share.0).is_needed(now));
        }
        let share = all.entry(source).or_insert_with(Share::new).clone();
        lock(&share.0).connections += 1;
        drop(all);
        Self {
            shares,
            source,
            share,
            parser: Parser { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], came: 0 },
            ahead: BytesMut::new(),
            call_waits: false,
            waiter: Arc::default(),
            queued: false,
        }
    }

    /// Counts what was just read, and keeps what has to wait. Only after [`Frames::poll_kept`] had nothing.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Read {
        let before = self.parser;
        let all = self.parser.count(bytes, u64::MAX);
        if all.calls == 0 {
            return Read { bytes: bytes.len(), until: self.sent(all.control) };
        }
        let mut begun = all;
        {
            let (mut counts, now) = (lock(&self.share.0), Instant::now());
            let most = counts.at_once(now);
            if all.calls > most {
                self.parser = before;
                begun = self.parser.count(bytes, most);
            }
            counts.began(begun.calls, now);
        }
        self.call_waits = begun.call_waits;
        self.ahead.extend_from_slice(&bytes[begun.bytes..]);
        Read { bytes: begun.bytes, until: self.sent(begun.control) }
    }

    /// What was kept, as its source's turns let it through; none when nothing is.
    pub(super) fn poll_kept(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Option<Read>> {
        while self.call_waits || !self.ahead.is_empty() {
            let most = ready!(self.poll_turn(cx));
            let waited = u64::from(self.call_waits);
            let part = &self.ahead[..self.ahead.len().min(buf.remaining())];
            let begun = self.parser.count(part, most - waited);
            lock(&self.share.0).began(waited + begun.calls, Instant::now());
            buf.put_slice(&part[..begun.bytes]);
            self.ahead.advance(begun.bytes);
            self.call_waits = begun.call_waits;
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            if begun.bytes > 0 {
                return Poll::Ready(Some(Read { bytes: begun.bytes, until: self.sent(begun.control) }));
            }
        }
        Poll::Ready(None)
    }

    /// A turn: so many calls may begin, at least one.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        self.waiter.waker.register(cx.waker());
        let mut counts = lock(&self.share.0);
        if self.waiter.its_turn.swap(false, Ordering::Acquire) {
            // One that did not come in its turn takes of this one what is left, or is the first in the next.
            let calls = counts.each.min(TURN_CALLS.saturating_sub(counts.calls));
            if calls > 0 {
                self.queued = false;
                counts.calls += calls;
                return Poll::Ready(calls);
            }
            counts.waiting.push_front(self.waiter.clone());
        } else if !self.queued {
            self.queued = true;
            counts.waiting.push_back(self.waiter.clone());
        }
        if !counts.in_turns {
            counts.in_turns = true;
            tokio::spawn(self.share.clone().give_turns());
        }
        Poll::Pending
    }

    /// Control frames came. Some: no more may be read until then.
    fn sent(&self, frames: u64) -> Option<Instant> {
        if frames == 0 {
            return None;
        }
        let now = Instant::now();
        let takes = |frames: u64| Duration::from_nanos(frames * 1_000_000_000 / CONTROL_FRAMES_PER_SECOND);
        let mut counts = lock(&self.share.0);
        counts.even = counts.even.max(now) + takes(frames);
        let until = counts.even - takes(CONTROL_FRAMES_AT_ONCE);
        (until > now).then_some(until)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares.0);
        let mut counts = lock(&self.share.0);
        counts.connections -= 1;
        if !counts.is_needed(Instant::now()) {
            shares.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::IpAddr;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::task::yield_now;

    use super::*;

    const PING: u8 = 6;
    const CALL: usize = HEAD_BYTES + 50;
    /// As HTTP/2 reads.
    const AT_ONCE: usize = 8 << 10;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], &vec![0; payload]].concat()
    }

    fn calls(count: usize) -> Vec<u8> {
        frame(HEADERS, CALL - HEAD_BYTES).repeat(count)
    }

    /// A connection that has sent its preface.
    fn of(shares: &Arc<FrameShares>, host: u8) -> Frames {
        let mut frames = Frames::new(shares.clone(), Source::from(IpAddr::from([10, 0, 0, host])));
        assert_eq!(frames.read(&[b'x'; PREFACE_BYTES]), Read { bytes: PREFACE_BYTES, until: None });
        frames
    }

    #[test]
    fn frames_are_counted_however_bytes_come() {
        let all = [
            vec![b'x'; PREFACE_BYTES],
            frame(4, 6),
            frame(HEADERS, 300),
            frame(PING, 8),
            frame(DATA, 0),
            frame(PING, 8),
        ];
        let bytes = all.concat();
        for step in [1, 2, 7, 9, 24, 33, bytes.len()] {
            let mut parser = Parser { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], came: 0 };
            let counted = bytes.chunks(step).map(|part| parser.count(part, u64::MAX));
            let counted = counted.fold((0, 0), |all, part| (all.0 + part.control, all.1 + part.calls));
            assert_eq!((counted, parser.came, parser.skip), ((3, 1), 0, 0), "{step} bytes at a time");
        }
    }

    #[test]
    fn bytes_are_passed_on_up_to_the_head_of_the_call_that_waits() {
        let bytes = [frame(DATA, 20), calls(3), frame(PING, 8)].concat();
        let begin = || Parser { skip: 0, head: [0; HEAD_BYTES], came: 0 };
        let heads = [29 + HEAD_BYTES, 29 + CALL + HEAD_BYTES, 29 + 2 * CALL + HEAD_BYTES];
        for (most, passed) in (0..).zip(heads) {
            let (mut parser, mut again) = (begin(), begin());
            let begun = parser.count(&bytes, most);
            assert_eq!(begun, Begun { bytes: passed, control: 0, calls: most, call_waits: true });
            let rest = parser.count(&bytes[passed..], u64::MAX);
            assert_eq!((rest.calls, rest.control), (2 - most, 1), "the one that waited was counted by who let it wait");
            assert_eq!(again.count(&bytes, 3), Begun { bytes: bytes.len(), control: 1, calls: 3, call_waits: false });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn host_with_more_control_frames_waits_on_all_of_its_connections_and_no_other_does() {
        let shares = Arc::new(FrameShares::default());
        let (mut one, mut same, mut other) = (of(&shares, 1), of(&shares, 1), of(&shares, 2));
        let pings = |count: u64| frame(PING, 8).repeat(count as usize);
        let now = Instant::now();
        assert_eq!(one.read(&pings(CONTROL_FRAMES_AT_ONCE)).until, None);
        let until = same.read(&pings(CONTROL_FRAMES_PER_SECOND)).until.expect("it waits");
        assert_eq!(until - now, Duration::from_secs(1));
        assert_eq!(one.read(&frame(DATA, 9)).until, None, "what is a call's does not count");
        assert_eq!(other.read(&pings(1)).until, None);
        // A host that connects anew owes what the connections before it owed.
        drop((one, same));
        let mut again = of(&shares, 1);
        assert!(again.read(&pings(1)).until.is_some_and(|until| until - now > Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(again.read(&pings(1)).until, None);
        drop((again, other));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(of(&shares, 1));
        assert!(!lock(&shares.0).contains_key(&Source::from(IpAddr::from([10, 0, 0, 1]))));
    }

    /// Reads all of `sent` as a connection does; what was passed on is `sent` again.
    async fn read_all(mut frames: Frames, sent: Vec<u8>, passed_on: Arc<AtomicUsize>) {
        let (mut rest, mut passed) = (&sent[..], Vec::new());
        while passed.len() < sent.len() {
            // Less room than there was when it was read.
            let mut buf = vec![0; 500];
            let mut buf = ReadBuf::new(&mut buf);
            let read = match poll_fn(|cx| frames.poll_kept(cx, &mut buf)).await {
                Some(read) => {
                    passed.extend_from_slice(buf.filled());
                    read
                }
                None => {
                    let (some, more) = rest.split_at(rest.len().min(AT_ONCE));
                    rest = more;
                    let read = frames.read(some);
                    passed.extend_from_slice(&some[..read.bytes]);
                    read
                }
            };
            assert_eq!(read.until, None);
            assert!(read.bytes > 0, "that would be the end of the connection");
            passed_on.fetch_add(read.bytes, Relaxed);
        }
        assert!(passed == sent);
    }

    #[tokio::test(start_paused = true)]
    async fn host_that_begins_many_calls_at_once_has_them_begun_in_turns() {
        const CONNECTIONS: usize = 20;
        let shares = Arc::new(FrameShares::default());
        let passed: Vec<Arc<AtomicUsize>> = (0..CONNECTIONS).map(|_| Arc::default()).collect();
        let all = || passed.iter().map(|passed| passed.load(Relaxed)).sum::<usize>();
        // Some have little to send: turns go on for the others when those are done.
        let count = |n: usize| if n % 5 == 4 { 40 } else { CALLS_AT_ONCE as usize };
        // One control frame each, somewhere behind calls that wait.
        let sent = |n: usize| [calls(count(n) - 1), frame(PING, 8), calls(1)].concat();
        let began = Instant::now();
        let reading = passed.iter().enumerate();
        let reading = reading.map(|(n, passed)| tokio::spawn(read_all(of(&shares, 1), sent(n), passed.clone())));
        let reading: Vec<_> = reading.collect();
        yield_now().await;
        // And a turn may have been given.
        let (at_once, most) = (all(), (CALLS_AT_ONCE + TURN_CALLS) as usize * CALL + CONNECTIONS * CALL);
        assert!(at_once <= most, "{at_once} bytes at once");
        // One that waits and whose turn goes by, as its peer takes nothing.
        let mut stuck = of(&shares, 1);
        assert!(stuck.read(&calls(1)).bytes < CALL, "it waits, too");
        let mut room = [0; 100];
        let polled = poll_fn(|cx| Poll::Ready(stuck.poll_kept(cx, &mut ReadBuf::new(&mut room)).is_pending()));
        assert!(polled.await);
        let (mut most, mut turns) = (0, 0);
        while reading.iter().any(|reading| !reading.is_finished()) {
            let before = all();
            yield_now().await;
            (most, turns) = (most.max(all() - before), turns + 1);
            assert!(turns < 10_000, "it ends");
            // Nobody is far ahead of others that have as much to send.
            let long = (0..CONNECTIONS).filter(|n| n % 5 != 4 && *n > 0);
            let long = long.map(|n| passed[n].load(Relaxed)).filter(|passed| *passed < CALLS_AT_ONCE as usize * CALL);
            let (low, high) = long.fold((usize::MAX, 0), |(low, high), passed| (low.min(passed), high.max(passed)));
            assert!(high.saturating_sub(low) <= 2 * AT_ONCE, "from {low} to {high} bytes");
        }
        // It may see the end of a turn and the next one, and a head of each connection.
        let turn = TURN_CALLS as usize * CALL + TURN_CONNECTIONS * HEAD_BYTES;
        assert!((1..=2 * turn).contains(&most), "{most} bytes in one turn");
        for reading in reading {
            reading.await.expect("all of it is read");
        }
        let share = stuck.share.clone();
        while lock(&share.0).in_turns {
            yield_now().await;
        }
        // Its turn came and is still its own.
        let read = poll_fn(|cx| stuck.poll_kept(cx, &mut ReadBuf::new(&mut room))).await;
        assert_eq!(read.map(|read| read.bytes), Some(CALL - HEAD_BYTES));
        let counts = lock(&share.0);
        assert!(counts.waiting.is_empty());
        let pings = Duration::from_nanos(1_000_000_000 / CONTROL_FRAMES_PER_SECOND) * CONNECTIONS as u32;
        assert_eq!(counts.even - began, pings, "each counts once");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_come_one_after_the_other_wait_for_nothing_and_neither_do_messages() {
        let shares = Arc::new(FrameShares::default());
        let (mut one, mut same, mut other) = (of(&shares, 1), of(&shares, 1), of(&shares, 2));
        for _ in 0..10 {
            let bytes = calls(CALLS_AT_ONCE as usize);
            assert_eq!(one.read(&bytes).bytes, bytes.len());
            tokio::time::advance(CALLS_AT_ONCE_WITHIN).await;
        }
        assert_eq!(one.read(&calls(CALLS_AT_ONCE as usize)).bytes, CALLS_AT_ONCE as usize * CALL);
        assert_eq!(same.read(&calls(1)).bytes, HEAD_BYTES, "one more at once");
        let message = frame(DATA, 1 << 20);
        assert_eq!(one.read(&message).bytes, message.len());
        assert_eq!(other.read(&calls(1)).bytes, CALL);
        let mut room = [0; 100];
        let read = poll_fn(|cx| same.poll_kept(cx, &mut ReadBuf::new(&mut room))).await;
        assert_eq!(read, Some(Read { bytes: CALL - HEAD_BYTES, until: None }));
        while lock(&same.share.0).in_turns {
            yield_now().await;
        }
        // Turns are over: who goes on with fewer waits no more.
        for _ in 0..100 {
            tokio::time::advance(2 * CALL_TAKES).await;
            assert_eq!(same.read(&calls(1)).bytes, CALL);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_anew_begins_no_more_calls_for_that() {
        let shares = Arc::new(FrameShares::default());
        assert_eq!(of(&shares, 1).read(&calls(CALLS_AT_ONCE as usize)).bytes, CALLS_AT_ONCE as usize * CALL);
        assert_eq!(of(&shares, 1).read(&calls(1)).bytes, HEAD_BYTES);
        assert_eq!(of(&shares, 2).read(&calls(1)).bytes, CALL);
    }
}
