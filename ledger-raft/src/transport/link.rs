//! The side that asks: one lasting connection per peer and lane, redialled when it is needed.
//!
//! **Owns** outgoing connections, their questions and streams. **Must never** wait without a bound: a peer that cannot be
//! reached is an error at once while the redial pause lasts. **Read next**: [`super::network`].

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, FrameReader, Kind, Outgoing, SendQueue, closed, start_writer};
use super::handshake::{Identity, Lane, Refusal, greet};
use super::members::Members;
use crate::api::{GroupId, NodeId};
use crate::limits::{
    CONNECT_WITHIN, PEER_FAULT_FRESH, PEER_SILENT_AFTER, REDIAL_MAX, REDIAL_MIN, STREAM_IN_FLIGHT_MAX,
};
use crate::seam::Seams;

/// Locks, and goes on after a panic elsewhere: what the locks of this crate guard is whole between statements.
pub(crate) fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Waiter {
    Once(oneshot::Sender<Frame>),
    Stream(mpsc::Sender<Frame>),
}

/// One open connection to a peer.
pub(crate) struct Connection {
    pub(crate) queue: SendQueue,
    waiters: Mutex<BTreeMap<u64, Waiter>>,
    next_id: AtomicU64,
    since: Instant,
    /// Milliseconds from `since` until the peer last sent something.
    heard_ms: AtomicU64,
    stop: CancellationToken,
}

impl Connection {
    /// For how long the peer has sent nothing.
    fn silent(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    fn register(&self, waiter: Waiter) -> io::Result<u64> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiters).insert(id, waiter);
        // The reader empties the map after it stopped; whoever came later must not wait for ever.
        if self.stop.is_cancelled() {
            lock(&self.waiters).remove(&id);
            return Err(closed());
        }
        Ok(id)
    }

    fn forget(&self, id: u64) {
        lock(&self.waiters).remove(&id);
    }

    /// Asks one question.
    pub(crate) async fn call(&self, kind: Kind, group: u32, body: Bytes) -> io::Result<Bytes> {
        let (tx, rx) = oneshot::channel();
        let id = self.register(Waiter::Once(tx))?;
        let _forget = OnDrop(|| self.forget(id));
        self.queue.send(Outgoing::new(kind, group, id, body)).await?;
        let frame = rx.await.map_err(|_| closed())?;
        match frame.kind {
            Kind::Answer => Ok(frame.body),
            _ => Err(io::Error::other(String::from_utf8_lossy(&frame.body).into_owned())),
        }
    }

    /// Opens a stream; its frames arrive at the receiver.
    pub(crate) fn open_stream(self: &Arc<Self>, group: u32) -> io::Result<(StreamHandle, mpsc::Receiver<Frame>)> {
        // Room for one answer a request in flight, and the end.
        let (tx, rx) = mpsc::channel(STREAM_IN_FLIGHT_MAX + 2);
        let id = self.register(Waiter::Stream(tx))?;
        self.queue.send_urgent(Outgoing::new(Kind::StreamOpen, group, id, Bytes::new()));
        Ok((StreamHandle { connection: self.clone(), group, id }, rx))
    }

    async fn read_loop(self: Arc<Self>, mut frames: FrameReader<impl tokio::io::AsyncRead + Unpin>) -> io::Result<()> {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                f = frames.next() => match f? { Some(f) => f, None => return Ok(()) },
            };
            self.heard_ms.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
            match frame.kind {
                Kind::Pong => {}
                Kind::Answer | Kind::Failed => {
                    let waiter = lock(&self.waiters).remove(&frame.id);
                    if let Some(Waiter::Once(tx)) = waiter {
                        let _gone = tx.send(frame);
                    }
                }
                Kind::StreamAnswer | Kind::StreamEnd => {
                    let tx = match lock(&self.waiters).get(&frame.id) {
                        Some(Waiter::Stream(tx)) => Some(tx.clone()),
                        _ => None,
                    };
                    if let Some(Err(mpsc::error::TrySendError::Full(_))) = tx.map(|tx| tx.try_send(frame)) {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "more stream answers than requests"));
                    }
                }
                other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is no answer"))),
            }
        }
    }
}

/// A logical stream; closing it on drop ends it at the peer too.
pub(crate) struct StreamHandle {
    pub(crate) connection: Arc<Connection>,
    pub(crate) group: u32,
    pub(crate) id: u64,
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.connection.forget(self.id);
        self.connection.queue.send_urgent(Outgoing::new(Kind::StreamClose, self.group, self.id, Bytes::new()));
    }
}

struct OnDrop<F: FnMut()>(F);
impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[derive(Clone)]
enum State {
    Down { until: Option<Instant>, why: String },
    Dialling,
    Up(Arc<Connection>),
}

/// What keeps a peer from answering, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) why: String,
    pub(crate) lasts: Duration,
}

/// Something that went wrong since a moment, and again at a later one.
struct Trouble {
    since: Instant,
    seen: Instant,
    why: String,
}

impl Trouble {
    /// It goes on, or begins.
    fn note(trouble: &mut Option<Self>, why: String) {
        let now = Instant::now();
        // What nobody looked at for long may have been well in between.
        let since = trouble.take().filter(Self::is_fresh).map_or(now, |before| before.since);
        *trouble = Some(Self { since, seen: now, why });
    }

    fn is_fresh(&self) -> bool {
        self.seen.elapsed() < PEER_FAULT_FRESH
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        self.is_fresh().then(|| Fault { why: format!("{what}: {}", self.why), lasts: self.since.elapsed() })
    }
}

/// One lane to one peer.
pub(crate) struct Link {
    me: Identity,
    to: NodeId,
    lane: Lane,
    members: Arc<Members>,
    seams: Seams,
    addr: Mutex<String>,
    /// Where the peer is looked for as well, in turn with its address.
    hint: Mutex<Option<String>>,
    state: watch::Sender<State>,
    failures: AtomicU64,
    /// Since when there is no connection, where one was asked for.
    unreached: Mutex<Option<Trouble>>,
    stop: CancellationToken,
}

impl Link {
    fn new(all: &Links, to: NodeId, addr: &str, lane: Lane) -> Arc<Self> {
        Arc::new(Self {
            me: all.me,
            to,
            lane,
            members: all.members.clone(),
            seams: all.seams.clone(),
            addr: Mutex::new(addr.to_owned()),
            hint: Mutex::new(lock(&all.hints).get(&to).cloned()),
            state: watch::Sender::new(State::Down { until: None, why: "not connected yet".into() }),
            failures: AtomicU64::new(0),
            unreached: Mutex::default(),
            stop: all.stop.clone(),
        })
    }

    /// The open connection, dialled if need be; an error at once while the redial pause lasts.
    pub(crate) async fn connection(self: &Arc<Self>) -> io::Result<Arc<Connection>> {
        let mut rx = self.state.subscribe();
        loop {
            let now = Instant::now();
            let mut start = false;
            let mut found = None;
            self.state.send_if_modified(|s| match s {
                State::Up(c) if !c.stop.is_cancelled() => {
                    found = Some(Ok(c.clone()));
                    false
                }
                State::Dialling => false,
                State::Down { until: Some(until), why } if now < *until => {
                    found = Some(Err(io::Error::new(io::ErrorKind::NotConnected, why.clone())));
                    false
                }
                _ => {
                    start = true;
                    *s = State::Dialling;
                    true
                }
            });
            if let Some(found) = found {
                return found;
            }
            if start {
                tokio::spawn(self.clone().dial());
            }
            rx.borrow_and_update();
            if matches!(*self.state.borrow(), State::Dialling) && rx.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// Waits until a connection may be tried again; at once when there is one or one is being made.
    pub(crate) async fn pause_over(&self) {
        let until = match &*self.state.borrow() {
            State::Down { until, .. } => *until,
            _ => None,
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// The peer has just been heard from: the next question dials without a pause.
    pub(crate) fn is_back(&self) {
        self.state.send_if_modified(|state| {
            if let State::Down { until, .. } = state {
                *until = None;
            }
            false
        });
    }

    async fn dial(self: Arc<Self>) {
        let addr = self.next_addr();
        let dialled = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(closed()),
            r = tokio::time::timeout(CONNECT_WITHIN, self.try_dial(&addr)) => r.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"))
            }),
        };
        match dialled {
            Ok(c) => {
                self.failures.store(0, Ordering::Relaxed);
                *lock(&self.unreached) = None;
                self.state.send_replace(State::Up(c));
            }
            Err(e) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed);
                if e.kind() == io::ErrorKind::PermissionDenied && failures == 0 {
                    tracing::warn!(peer = self.to.0, %addr, error = %e, "peer refused the connection");
                }
                Trouble::note(&mut lock(&self.unreached), format!("{addr}: {e}"));
                let until = Some(Instant::now() + self.pause(failures));
                self.state.send_replace(State::Down { until, why: format!("peer {} at {addr}: {e}", self.to.0) });
            }
        }
    }

    /// The address to dial: every second one after a failure is the hint's.
    fn next_addr(&self) -> String {
        let hint = lock(&self.hint).clone().filter(|_| !self.failures.load(Ordering::Relaxed).is_multiple_of(2));
        hint.unwrap_or_else(|| lock(&self.addr).clone())
    }

    fn pause(&self, failures: u64) -> Duration {
        let base = REDIAL_MIN.saturating_mul(1 << failures.min(10)).min(REDIAL_MAX);
        let jitter = self.seams.random.next_u64() % (base.as_millis() as u64 / 2 + 1);
        base / 2 + Duration::from_millis(jitter)
    }

    /// Whether the peer has just been heard from here.
    fn is_heard(&self) -> bool {
        match &*self.state.borrow() {
            State::Up(connection) => !connection.stop.is_cancelled() && connection.silent() < PEER_SILENT_AFTER,
            State::Down { .. } | State::Dialling => false,
        }
    }

    /// What keeps the peer from answering here.
    fn fault(&self) -> Option<Fault> {
        match &*self.state.borrow() {
            State::Up(connection) if !connection.stop.is_cancelled() => {
                let lasts = connection.silent();
                (lasts >= PEER_SILENT_AFTER).then(|| Fault { why: "does not answer".to_owned(), lasts })
            }
            _ => lock(&self.unreached).as_ref()?.fault("is unreachable"),
        }
    }

    async fn try_dial(self: &Arc<Self>, addr: &str) -> io::Result<Arc<Connection>> {
        let disk = self
            .members
            .disk_of(self.to)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is no member that this node knows"))?;
        let mut io = self.seams.net.connect(addr).await?;
        let run = greet(&mut io, &self.me, self.to, disk, self.lane).await?;
        tracing::debug!(peer = self.to.0, lane = ?self.lane, %addr, run, "peer connected");
        // A disk that was replaced while it was dialled.
        let stop = self
            .members
            .connection(self.to, disk)
            .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, Refusal::Disk))?;
        let (read, write) = tokio::io::split(io);
        let connection = Arc::new(Connection {
            queue: start_writer(write, stop.clone(), true),
            waiters: Mutex::new(BTreeMap::new()),
            next_id: AtomicU64::new(1),
            since: Instant::now(),
            heard_ms: AtomicU64::new(0),
            stop: stop.clone(),
        });
        let (reader, link) = (connection.clone(), self.clone());
        let (peer, lane, addr) = (self.to.0, self.lane, addr.to_owned());
        tokio::spawn(async move {
            if let Err(e) = reader.clone().read_loop(FrameReader::new(read)).await {
                if e.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(peer, ?lane, error = %e, "peer connection closed: malformed answer");
                } else {
                    tracing::debug!(peer, ?lane, error = %e, "peer connection lost");
                }
            }
            Trouble::note(&mut lock(&link.unreached), format!("{addr}: the connection was lost"));
            stop.cancel();
            // Everyone who waits learns by the dropped sender.
            lock(&reader.waiters).clear();
        });
        Ok(connection)
    }

    /// Asks one question, connecting if need be, all within `ttl`.
    pub(crate) async fn call(
        self: &Arc<Self>,
        kind: Kind,
        group: u32,
        body: Bytes,
        ttl: Duration,
    ) -> io::Result<Bytes> {
        tokio::time::timeout(ttl, async { self.connection().await?.call(kind, group, body).await }).await.map_err(
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("peer {} did not answer in {ttl:?}", self.to.0)),
        )?
    }
}

/// Both lanes to one peer.
#[derive(Clone)]
pub(crate) struct PeerLinks {
    pub(crate) control: Arc<Link>,
    pub(crate) bulk: Arc<Link>,
}

/// All outgoing connections of a node, shared by its groups.
pub(crate) struct Links {
    me: Identity,
    pub(crate) members: Arc<Members>,
    seams: Seams,
    peers: Mutex<BTreeMap<NodeId, PeerLinks>>,
    hints: Mutex<BTreeMap<NodeId, String>>,
    /// This node's address, as the members of its groups know it.
    own_addr: Mutex<String>,
    /// Voters that answered a candidate of this node and gave no answer about the vote, by group.
    declined: Mutex<BTreeMap<(u32, NodeId), Trouble>>,
    stop: CancellationToken,
}

impl Links {
    pub(crate) fn new(me: Identity, members: Arc<Members>, seams: Seams, stop: CancellationToken) -> Self {
        let (peers, hints, own_addr, declined) = Default::default();
        Self { me, members, seams, peers, hints, own_addr, declined, stop }
    }

    /// A candidate of this node asked a voter: it answered, or named why it does not vote.
    pub(crate) fn note_vote(&self, group: u32, voter: NodeId, answer: &io::Result<Bytes>) {
        let mut declined = lock(&self.declined);
        match answer {
            Err(why) if why.kind() == io::ErrorKind::Other => {
                let mut trouble = declined.remove(&(group, voter));
                Trouble::note(&mut trouble, why.to_string());
                declined.extend(trouble.map(|trouble| ((group, voter), trouble)));
            }
            _ => drop(declined.remove(&(group, voter))),
        }
    }

    /// Whether a peer answers on a connection that this node made.
    pub(crate) fn is_heard(&self, peer: NodeId) -> bool {
        let links = lock(&self.peers).get(&peer).cloned();
        links.is_some_and(|links| links.control.is_heard() || links.bulk.is_heard())
    }

    /// What keeps a voter of a group from answering, as far as is known here.
    pub(crate) fn fault(&self, group: GroupId, voter: NodeId) -> Option<Fault> {
        let link = lock(&self.peers).get(&voter).map(|links| links.control.clone());
        let declined = || lock(&self.declined).get(&(group.0, voter))?.fault("gives no vote");
        link.and_then(|link| link.fault()).or_else(declined)
    }

    /// Where a peer is looked for as well.
    pub(crate) fn hint(&self, peer: NodeId, addr: &str) {
        let peers = lock(&self.peers);
        lock(&self.hints).insert(peer, addr.to_owned());
        if let Some(links) = peers.get(&peer) {
            for link in [&links.control, &links.bulk] {
                *lock(&link.hint) = Some(addr.to_owned());
            }
        }
    }

    pub(crate) fn own_addr(&self) -> String {
        lock(&self.own_addr).clone()
    }

    pub(crate) fn set_own_addr(&self, addr: &str) {
        let mut own = lock(&self.own_addr);
        if *own != addr {
            addr.clone_into(&mut own);
        }
    }

    /// The links to a peer; a new address is used at the next dial.
    pub(crate) fn to(&self, node: NodeId, addr: &str) -> PeerLinks {
        let mut peers = lock(&self.peers);
        let links = peers.entry(node).or_insert_with(|| {
            let link = |lane| Link::new(self, node, addr, lane);
            PeerLinks { control: link(Lane::Control), bulk: link(Lane::Bulk) }
        });
        for link in [&links.control, &links.bulk] {
            let mut known = lock(&link.addr);
            if *known != addr && !addr.is_empty() {
                addr.clone_into(&mut known);
            }
        }
        links.clone()
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::api::DiskId;
    use crate::disk::SimDisk;
    use crate::seam::{BoxIo, Net, NetListener};

    const G: GroupId = GroupId(1);
    const PEER: NodeId = NodeId(2);

    /// Nobody listens there.
    struct Refusing;

    #[async_trait]
    impl Net for Refusing {
        async fn listen(&self, _: &str) -> io::Result<Box<dyn NetListener>> {
            Err(io::ErrorKind::Unsupported.into())
        }
        async fn connect(&self, _: &str) -> io::Result<BoxIo> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }
    }

    fn links() -> Links {
        let seams = Seams { net: Arc::new(Refusing), ..Seams::with_disk(Arc::new(SimDisk::new(1))) };
        let me = Identity { cluster: [1; 16], incarnation: 1, node: NodeId(1), disk: DiskId([1; 16]), run: 1 };
        let links = Links::new(me, Arc::default(), seams, CancellationToken::new());
        links.members.know(PEER, DiskId([2; 16])).expect("a new member");
        links
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_refuses_is_unreachable_since_the_first_attempt() {
        let links = links();
        assert_eq!(links.fault(G, PEER), None, "nobody asked it");
        let link = links.to(PEER, "peer:1").control;
        let second = Duration::from_secs(1);
        for _ in 0..4 {
            link.call(Kind::Term, G.0, Bytes::new(), second).await.expect_err("refused");
            tokio::time::sleep(second).await;
        }
        let fault = links.fault(G, PEER).expect("unreachable");
        assert!(fault.why.starts_with("is unreachable: peer:1: "), "{fault:?}");
        assert!(fault.lasts >= 4 * second, "{fault:?}");
        tokio::time::sleep(PEER_FAULT_FRESH).await;
        assert_eq!(links.fault(G, PEER), None, "it may be well again by now");
        link.call(Kind::Term, G.0, Bytes::new(), second).await.expect_err("refused");
        assert!(links.fault(G, PEER).is_some_and(|fault| fault.lasts < second), "counted anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_gives_no_vote_is_missing_in_that_group_until_it_answers() {
        let links = links();
        links.note_vote(G.0, PEER, &Err(io::Error::other("this replica does not vote: its log is damaged")));
        let fault = links.fault(G, PEER).expect("it does not vote");
        assert_eq!(fault.why, "gives no vote: this replica does not vote: its log is damaged");
        assert_eq!(links.fault(GroupId(2), PEER), None);
        links.note_vote(G.0, PEER, &Ok(Bytes::new()));
        assert_eq!(links.fault(G, PEER), None);
    }
}
