//! One listening port behind a gate: accepts, refuses, closes, and counts.
//!
//! **What it is.** [`PortGate::accept`] gives the next connection that the gate lets in. Its
//! [`Place`] is known to the stream and to the calls on it. A connection that has to give way is
//! closed by its own stream. Few of them may be there still when the next is accepted, so that there
//! are never many more than the bound.
//!
//! **Owns** the gate's lock and its clock. **Must never** hold the lock across an await, or end
//! over one failed accept.
//! **Read next**: [`crate::gate`], [`crate::guarded`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::gate::{CallsFull, ConnectionBounds, ConnectionGate, ConnectionId, Kind, Refused, Source};
use crate::guarded::GuardedIo;
use crate::limits::{
    ACCEPT_PAUSE, BUFFERED_MAX, BUFFERED_PER_CONNECTION, BUFFERED_WITHIN, CLOSING_MAX, REFUSALS_LOGGED_EVERY,
    REPLACED_GONE_WITHIN,
};

/// Something that accepts byte streams.
pub trait Accept: Send {
    /// The streams.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// The next stream and where it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

/// Why a connection was closed or refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseReason {
    /// Another took its place.
    Replaced = 1,
    /// It sent nothing.
    FirstByteLate,
    /// It sent something, but no call.
    FirstCallLate,
    /// It came from an untrusted network, or had a place for a probe, and its time was over.
    TimeOver,
    /// Its peer took nothing of what was written.
    WriteStalled,
    /// Its peer left too many answers unread or requests unfinished, or some for too long.
    Buffered,
    /// Every place was taken by a connection that works.
    Full,
    /// It came from an untrusted network, and its places were taken.
    Untrusted,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Replaced,
        Self::FirstByteLate,
        Self::FirstCallLate,
        Self::TimeOver,
        Self::WriteStalled,
        Self::Buffered,
        Self::Full,
        Self::Untrusted,
    ];

    /// As metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::FirstByteLate => "first_byte_late",
            Self::FirstCallLate => "first_call_late",
            Self::TimeOver => "time_over",
            Self::WriteStalled => "write_stalled",
            Self::Buffered => "buffered",
            Self::Full => "full",
            Self::Untrusted => "untrusted",
        }
    }
}

/// One port.
pub struct PortGate {
    port: &'static str,
    trusted: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    began: Instant,
    state: Mutex<State>,
    /// A stream was dropped.
    gone: Notify,
    /// Bytes buffered for all connections.
    buffered: AtomicUsize,
    closed: [AtomicU64; CloseReason::ALL.len()],
}

struct State {
    gate: ConnectionGate,
    handles: BTreeMap<ConnectionId, Arc<Handle>>,
    /// Streams that are there, those that were asked to close included.
    streams: usize,
    /// Refused since the last line in the log, and when that was.
    refused: (u64, Option<Instant>),
}

/// What a connection's stream and its place share.
struct Handle {
    source: Source,
    /// A [`CloseReason`], or 0.
    closing: AtomicU8,
    called: AtomicBool,
    buffered: AtomicUsize,
    /// When something that was buffered was taken, or went on, or the first of it came:
    /// milliseconds since the gate began.
    progressed_ms: AtomicU64,
    waker: AtomicWaker,
}

impl Handle {
    fn of(source: Source, now_ms: u64) -> Self {
        Self {
            source,
            closing: AtomicU8::new(0),
            called: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            progressed_ms: AtomicU64::new(now_ms),
            waker: AtomicWaker::new(),
        }
    }
}

impl PortGate {
    /// A port without connections. `trusted` says which networks may call.
    pub fn new(
        port: &'static str,
        bounds: ConnectionBounds,
        trusted: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let gate = ConnectionGate::new(bounds);
        let state = Mutex::new(State { gate, handles: BTreeMap::new(), streams: 0, refused: (0, None) });
        let closed = std::array::from_fn(|_| AtomicU64::new(0));
        let (began, gone, buffered) = (Instant::now(), Notify::new(), AtomicUsize::new(0));
        Arc::new(Self { port, trusted: Box::new(trusted), began, state, gone, buffered, closed })
    }

    /// Its name, for logs and metrics.
    pub fn port(&self) -> &'static str {
        self.port
    }

    /// How many connections of a kind are open.
    pub fn open(&self, kind: Kind) -> usize {
        self.lock().gate.open(kind)
    }

    /// How many connections were closed or refused for a reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize - 1].load(Ordering::Relaxed)
    }

    /// Bytes buffered for this port's connections: answers that wait for their peers, and unfinished
    /// requests.
    pub fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The next connection that is let in. Others are closed before a byte of theirs is read.
    pub async fn accept<L: Accept>(self: &Arc<Self>, listener: &mut L) -> (GuardedIo<L::Io>, SocketAddr) {
        loop {
            self.room().await;
            match listener.accept().await {
                Ok((io, peer)) => {
                    if let Some(place) = self.admit(peer.ip()) {
                        return (GuardedIo::new(io, place), peer);
                    }
                }
                Err(error) => {
                    tracing::warn!(port = self.port, %error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until those that gave way are gone, where there is no room beside them.
    async fn room(&self) {
        let room = async {
            loop {
                let gone = self.gone.notified();
                // Places that are taken do not count: the next connection may get one of them.
                if self.closing() < CLOSING_MAX {
                    return;
                }
                gone.await;
            }
        };
        if timeout(REPLACED_GONE_WITHIN, room).await.is_err() {
            tracing::warn!(port = self.port, "connections that were closed are still there");
        }
    }

    /// Streams that were asked to close and are there.
    fn closing(&self) -> usize {
        let state = self.lock();
        state.streams - state.gate.all()
    }

    /// A place for a connection from an address, if it gets one.
    pub fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let (source, trusted) = (Source::from(from), (self.trusted)(from));
        let mut state = self.lock();
        match state.gate.admit(source, trusted, self.began.elapsed()) {
            Ok(admitted) => {
                state.streams += 1;
                let handle = Arc::new(Handle::of(source, self.now_ms()));
                state.handles.insert(admitted.id, handle.clone());
                let replaced = admitted.closes.and_then(|closes| state.handles.remove(&closes));
                drop(state);
                if let Some(replaced) = replaced {
                    self.close(&replaced, CloseReason::Replaced);
                }
                Some(Place { gate: self.clone(), id: admitted.id, kind: admitted.kind, source, handle })
            }
            Err(why) => {
                let reason = match why {
                    Refused::Full => CloseReason::Full,
                    Refused::Untrusted => CloseReason::Untrusted,
                };
                self.count(reason);
                self.log_refusal(&mut state, from, reason);
                None
            }
        }
    }

    fn log_refusal(&self, state: &mut State, from: IpAddr, reason: CloseReason) {
        let (count, logged) = &mut state.refused;
        *count += 1;
        if logged.is_none_or(|logged| logged.elapsed() >= REFUSALS_LOGGED_EVERY) {
            let (port, reason) = (self.port, reason.label());
            tracing::warn!(port, %from, reason, count, "connections were refused; the last one is named");
            (*count, *logged) = (0, Some(Instant::now()));
        }
    }

    fn close(&self, handle: &Handle, reason: CloseReason) {
        let first = handle.closing.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.count(reason);
            handle.waker.wake();
        }
    }

    /// Closes the connection with the most buffered, of the source with the most: many connections
    /// of one host with little each must not have one of another closed. Unless those that close
    /// already are enough.
    fn close_fullest(&self) {
        let state = self.lock();
        let (mut of_source, mut all) = (BTreeMap::<Source, usize>::new(), 0);
        let staying = state.handles.values().filter(|handle| handle.closing.load(Ordering::Acquire) == 0);
        let staying: Vec<_> = staying.map(|handle| (handle.buffered.load(Ordering::Relaxed), handle)).collect();
        for (bytes, handle) in &staying {
            *of_source.entry(handle.source).or_default() += bytes;
            all += bytes;
        }
        if all <= BUFFERED_MAX {
            return;
        }
        if let Some((_, fullest)) = staying.iter().max_by_key(|(bytes, one)| (of_source[&one.source], *bytes)) {
            self.close(fullest, CloseReason::Buffered);
        }
    }

    fn count(&self, reason: CloseReason) {
        self.closed[reason as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection: what its stream and its calls know it by.
#[derive(Clone)]
pub struct Place {
    gate: Arc<PortGate>,
    id: ConnectionId,
    kind: Kind,
    source: Source,
    handle: Arc<Handle>,
}

impl Place {
    /// What it was let in as.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// Where it comes from.
    pub fn source(&self) -> Source {
        self.source
    }
    /// Its number at its port.
    pub fn id(&self) -> ConnectionId {
        self.id
    }
    /// A call begins; it ends when what is returned is dropped.
    ///
    /// # Errors
    /// Too many are under way. The connection has called all the same.
    pub fn call(&self) -> Result<Call, CallsFull> {
        let began = self.gate.lock().gate.call_began(self.id);
        self.handle.called.store(true, Ordering::Release);
        began.map(|()| Call { place: self.clone() })
    }
    /// So many bytes are buffered for the connection, until what is returned is dropped: an answer
    /// that waits for the peer, or the beginning of a request. A connection with too many is closed.
    pub fn buffer(&self, bytes: usize) -> Buffered {
        self.add_buffered(bytes);
        Buffered { place: self.clone(), bytes }
    }
    fn add_buffered(&self, bytes: usize) {
        // Before the count: with nothing buffered the time may be old, and the connection's task may look at
        // both at any moment.
        if self.handle.buffered.load(Ordering::Acquire) == 0 {
            self.progressed();
        }
        let before = self.handle.buffered.fetch_add(bytes, Ordering::Release);
        let all = self.gate.buffered.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if before + bytes > BUFFERED_PER_CONNECTION {
            self.close(CloseReason::Buffered);
        } else if all > BUFFERED_MAX {
            self.gate.close_fullest();
        }
    }
    fn sub_buffered(&self, bytes: usize) {
        self.handle.buffered.fetch_sub(bytes, Ordering::Release);
        self.gate.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
    fn progressed(&self) {
        self.handle.progressed_ms.store(self.gate.now_ms(), Ordering::Release);
    }
    /// Whether something is buffered and its peer has taken none of it for too long.
    pub fn is_stuck(&self) -> bool {
        // The time first: what is counted after it has been there for less.
        let now_ms = self.gate.now_ms();
        self.handle.buffered.load(Ordering::Acquire) > 0
            && u128::from(now_ms.saturating_sub(self.handle.progressed_ms.load(Ordering::Acquire)))
                >= BUFFERED_WITHIN.as_millis()
    }
    /// Closes the connection.
    pub fn close(&self, reason: CloseReason) {
        self.gate.close(&self.handle, reason);
    }
    pub(crate) fn has_called(&self) -> bool {
        self.handle.called.load(Ordering::Acquire)
    }
    /// Why the connection is to be closed, if it is. `waker` is woken when that changes.
    pub(crate) fn closing(&self, waker: &Waker) -> Option<CloseReason> {
        self.handle.waker.register(waker);
        let reason = self.handle.closing.load(Ordering::Acquire);
        CloseReason::ALL.into_iter().find(|one| *one as u8 == reason)
    }
    /// The stream was dropped.
    pub(crate) fn gone(&self) {
        let mut state = self.gate.lock();
        state.gate.closed(self.id);
        state.handles.remove(&self.id);
        state.streams -= 1;
        drop(state);
        self.gate.gone.notify_waiters();
    }
}

/// Bytes buffered for a connection.
pub struct Buffered {
    place: Place,
    bytes: usize,
}

impl Buffered {
    /// More of the same request came.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.place.progressed();
        self.place.add_buffered(bytes);
    }

    /// So many bytes of it are counted elsewhere from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let less = bytes.min(self.bytes);
        self.bytes -= less;
        self.place.sub_buffered(less);
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.place.progressed();
        self.place.sub_buffered(self.bytes);
    }
}

/// A call under way: its connection does not give way.
pub struct Call {
    place: Place,
}

impl Drop for Call {
    fn drop(&mut self) {
        let gate = &self.place.gate;
        gate.lock().gate.call_ended(self.place.id, gate.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> (Arc<PortGate>, Vec<Place>) {
        let gate =
            PortGate::new("test", ConnectionBounds { per_source: count, ..ConnectionBounds::of(count) }, |_| true);
        let places = (0..count).map(|_| gate.admit(IpAddr::from([127, 0, 0, 1])).expect("there is room"));
        let places = places.collect();
        (gate, places)
    }

    fn closing(place: &Place) -> Option<CloseReason> {
        place.closing(Waker::noop())
    }

    /// Gives the streams that it has, then none.
    struct Listener(Vec<(tokio::io::DuplexStream, SocketAddr)>);

    impl Accept for Listener {
        type Io = tokio::io::DuplexStream;
        async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
            match self.0.pop() {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn newcomer_of_a_full_port_is_accepted_at_once_and_few_wait_to_be_gone() {
        let gate = PortGate::new("test", ConnectionBounds::of(8), |from| from.is_loopback());
        let from = |n: u8, source: [u8; 4]| (tokio::io::duplex(8).0, SocketAddr::from((source, n.into())));
        let many = (0..8).map(|n| from(n, [127, 0, 0, n])).chain((0..16).map(|n| from(n, [10, 0, 0, n])));
        let mut listener = Listener(many.collect());
        let mut streams = Vec::new();
        for _ in 0..24 {
            streams.push(gate.accept(&mut listener).await);
        }
        let began = Instant::now();
        // Each takes the place of one that does not go.
        for n in 0..CLOSING_MAX {
            listener.0.push(from(100, [127, 0, 1, n as u8]));
            streams.push(gate.accept(&mut listener).await);
        }
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        listener.0.push(from(100, [127, 0, 2, 1]));
        let next = gate.accept(&mut listener);
        let mut next = Box::pin(next);
        assert!(futures::poll!(next.as_mut()).is_pending(), "four are still there");
        streams.retain(|(io, _)| io.place().closing(Waker::noop()).is_none());
        next.await;
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
    }

    #[tokio::test]
    async fn connection_with_too_much_buffered_is_closed() {
        let (gate, places) = places(2);
        let most = places[0].buffer(BUFFERED_PER_CONNECTION);
        assert_eq!(closing(&places[0]), None);
        drop(most);
        assert_eq!(gate.buffered(), 0);
        let mut most = places[0].buffer(BUFFERED_PER_CONNECTION - 1);
        most.grow(1);
        assert_eq!(closing(&places[0]), None);
        most.grow(1);
        assert_eq!((closing(&places[0]), closing(&places[1])), (Some(CloseReason::Buffered), None));
        assert_eq!((gate.buffered(), gate.closed(CloseReason::Buffered)), (BUFFERED_PER_CONNECTION + 1, 1));
        drop(most);
        assert_eq!(gate.buffered(), 0);
    }

    #[tokio::test]
    async fn of_the_source_with_most_buffered_the_fullest_connection_is_closed() {
        let gate = PortGate::new("test", ConnectionBounds::of(64), |_| true);
        let connect = |n: u8| gate.admit(IpAddr::from([10, 0, 0, n])).expect("there is room");
        // One connection of one host, the fullest of all.
        let seller = connect(1);
        let _seller = seller.buffer(32 << 20);
        // Many of another, each with less; one has a little more than the others.
        let flood: Vec<_> = (0..28).map(|_| connect(2)).collect();
        let each = 8 << 20;
        let mut held: Vec<_> = flood.iter().map(|place| place.buffer(each)).collect();
        held.push(flood[3].buffer(1));
        assert_eq!(gate.closed(CloseReason::Buffered), 1);
        assert_eq!((closing(&seller), closing(&flood[3])), (None, Some(CloseReason::Buffered)));
        // What that one had is as good as gone.
        held.push(flood[5].buffer(each));
        assert_eq!((gate.closed(CloseReason::Buffered), closing(&flood[5])), (1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn buffered_bytes_that_nobody_takes_are_noticed() {
        let (_gate, places) = places(1);
        let stuck = || places[0].is_stuck();
        let step = BUFFERED_WITHIN / 2;
        let (first, mut second) = (places[0].buffer(10), places[0].buffer(10));
        tokio::time::advance(step).await;
        // What is taken, or goes on, starts the time anew.
        drop(first);
        tokio::time::advance(step).await;
        assert!(!stuck());
        second.grow(1);
        tokio::time::advance(step).await;
        assert!(!stuck());
        // More that waits does not.
        let third = places[0].buffer(10);
        tokio::time::advance(step).await;
        assert!(stuck());
        drop((second, third));
        tokio::time::advance(10 * step).await;
        assert!(!stuck(), "nothing waits");
        let _late = places[0].buffer(10);
        assert!(!stuck(), "it came just now");
    }

    /// The connection's task looks at any moment, also in the middle of a count.
    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "another thread looks while this one counts")]
    async fn first_bytes_after_a_quiet_time_never_look_stuck() {
        tokio::time::advance(2 * BUFFERED_WITHIN).await;
        let (_gate, places) = places(1);
        tokio::time::advance(BUFFERED_WITHIN / 2).await;
        places[0].handle.buffered.fetch_add(1, Ordering::AcqRel);
        assert!(!places[0].is_stuck(), "the connection is new");
        places[0].handle.buffered.fetch_sub(1, Ordering::AcqRel);

        let (place, runtime) = (places[0].clone(), tokio::runtime::Handle::current());
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let looks = std::thread::spawn({
            let done = done.clone();
            move || {
                let _runtime = runtime.enter();
                let mut stuck = 0;
                while !done.load(Ordering::Acquire) {
                    stuck += usize::from(place.is_stuck());
                }
                stuck
            }
        });
        for _ in 0..20_000 {
            tokio::time::advance(2 * BUFFERED_WITHIN).await;
            drop(places[0].buffer(1));
        }
        done.store(true, Ordering::Release);
        assert_eq!(looks.join().expect("it ends"), 0);
    }

    #[tokio::test]
    async fn bytes_counted_elsewhere_are_counted_once() {
        let (gate, places) = places(1);
        let mut whole = places[0].buffer(10);
        let part = places[0].buffer(4);
        whole.shrink(4);
        assert_eq!(gate.buffered(), 10);
        drop(whole);
        assert_eq!(gate.buffered(), 4);
        drop(part);
        assert_eq!(gate.buffered(), 0);
    }
}
