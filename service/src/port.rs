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

use crate::gate::{ConnectionBounds, ConnectionGate, ConnectionId, Kind, Refused, Source};
use crate::guarded::GuardedIo;
use crate::limits::{
    ACCEPT_PAUSE, CLOSING_MAX, REFUSALS_LOGGED_EVERY, REPLACED_GONE_WITHIN, UNREAD_MAX, UNREAD_PER_CONNECTION,
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
    /// Its peer left too many answers unread.
    Unread,
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
        Self::Unread,
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
            Self::Unread => "unread",
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
    /// Bytes of answers that wait for their connections' peers.
    unread: AtomicUsize,
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
#[derive(Default)]
struct Handle {
    /// A [`CloseReason`], or 0.
    closing: AtomicU8,
    called: AtomicBool,
    unread: AtomicUsize,
    waker: AtomicWaker,
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
        let (began, gone, unread) = (Instant::now(), Notify::new(), AtomicUsize::new(0));
        Arc::new(Self { port, trusted: Box::new(trusted), began, state, gone, unread, closed })
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

    /// Bytes of answers that wait for the peers of this port's connections.
    pub fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
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
                let handle = Arc::<Handle>::default();
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

    /// Closes the connection with the most unread, unless those that close already are enough.
    fn close_fullest(&self) {
        let unread = |handle: &Handle| handle.unread.load(Ordering::Relaxed);
        let state = self.lock();
        let staying = state.handles.values().filter(|handle| handle.closing.load(Ordering::Acquire) == 0);
        if staying.clone().map(|handle| unread(handle)).sum::<usize>() <= UNREAD_MAX {
            return;
        }
        if let Some(fullest) = staying.max_by_key(|handle| unread(handle)) {
            self.close(fullest, CloseReason::Unread);
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
    pub fn call(&self) -> Call {
        self.gate.lock().gate.call_began(self.id);
        self.handle.called.store(true, Ordering::Release);
        Call { place: self.clone() }
    }
    /// So many bytes of answers wait for the peer, until what is returned is dropped. A connection
    /// with too many is closed.
    pub fn unread(&self, bytes: usize) -> Unread {
        let own = self.handle.unread.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.gate.unread.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if own > UNREAD_PER_CONNECTION {
            self.close(CloseReason::Unread);
        } else if all > UNREAD_MAX {
            self.gate.close_fullest();
        }
        Unread { place: self.clone(), bytes }
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

/// Bytes of answers that wait for a connection's peer.
pub struct Unread {
    place: Place,
    bytes: usize,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.place.handle.unread.fetch_sub(self.bytes, Ordering::Relaxed);
        self.place.gate.unread.fetch_sub(self.bytes, Ordering::Relaxed);
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

    #[test]
    fn connection_with_too_much_unread_is_closed() {
        let (gate, places) = places(2);
        let most = places[0].unread(UNREAD_PER_CONNECTION);
        assert_eq!(closing(&places[0]), None);
        drop(most);
        assert_eq!(gate.unread(), 0);
        let _most = places[0].unread(UNREAD_PER_CONNECTION);
        let _more = places[0].unread(1);
        assert_eq!((closing(&places[0]), closing(&places[1])), (Some(CloseReason::Unread), None));
        assert_eq!((gate.unread(), gate.closed(CloseReason::Unread)), (UNREAD_PER_CONNECTION + 1, 1));
    }

    #[test]
    fn of_all_connections_the_one_with_most_unread_is_closed() {
        let count = UNREAD_MAX / UNREAD_PER_CONNECTION;
        let (gate, places) = places(count + 2);
        let _full: Vec<_> = places[1..count].iter().map(|place| place.unread(UNREAD_PER_CONNECTION - 1)).collect();
        let _most = places[0].unread(UNREAD_PER_CONNECTION);
        let small = 2 * count;
        let _little = places[count].unread(small);
        assert_eq!(closing(&places[0]), Some(CloseReason::Unread));
        // What it had is as good as gone.
        let _more = places[count + 1].unread(small);
        assert_eq!(gate.closed(CloseReason::Unread), 1);
    }
}
