//! The side that answers: accepts peers, and hands their questions to the groups.
//!
//! **Owns** accepted connections and their streams. **Must never** panic on what a peer sends: a malformed frame closes
//! the connection with a warning; nor let one slow question hold up the next. **Read next**: [`super::network`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::checks;
use super::frame::{Frame, FrameReader, Kind, Outgoing, SendQueue, start_writer};
use super::handshake::{Caller, Identity, Lane, Refusal, receive};
use super::link::{Links, lock};
use super::network::Offer;
use super::places::Places;
use super::pull::take_offer;
use super::twins::Twins;
use crate::api::{GroupId, NodeId};
use crate::codec::{self, malformed};
use crate::currency::Word;
use crate::group::GroupCore;
use crate::limits::{ASK_BYTES_MAX, CONTROL_IN_FLIGHT_MAX, STREAM_IN_FLIGHT_MAX, STREAMS_PER_CONNECTION_MAX};
use crate::memory::AcknowledgedBy;
use crate::node::{AddressPolicy, PeerHandler};
use crate::seam::{BoxIo, NetListener, Seams};
use crate::snapshot::blocking;
use crate::types::Types;
use crate::{failover, reads, repair, unreadable, upkeep, vote_gate};

/// Refused addresses and reasons that are remembered, so that each is logged once.
const REFUSALS_NOTED_MAX: usize = 1024;
/// Pause after a failed accept: the system is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The groups of a node, as peers find them.
pub(crate) struct Registry {
    pub(crate) me: Identity,
    pub(crate) groups: RwLock<BTreeMap<GroupId, Arc<GroupCore>>>,
    pub(crate) links: Arc<Links>,
    pub(crate) handler: PeerHandler,
    pub(crate) from: AddressPolicy,
    pub(crate) seams: Seams,
    pub(crate) stop: CancellationToken,
    /// Numbers the temporary names of snapshot files, so that no two writers of this node ever share one.
    pub(crate) temporary_names: Arc<AtomicU64>,
    /// Refusals in the log already; an operator need not read them every second.
    refused: Mutex<BTreeSet<(String, String)>>,
    /// Peers that are looked at, since a connection from them closed.
    pub(crate) suspected: Mutex<BTreeSet<NodeId>>,
    /// Connections from peers, and those that may become some.
    pub(crate) places: Arc<Places>,
    /// Processes of the peers.
    pub(crate) twins: Twins,
}

impl Registry {
    pub(crate) fn new(
        me: Identity,
        links: Arc<Links>,
        handler: PeerHandler,
        from: AddressPolicy,
        seams: Seams,
        stop: CancellationToken,
    ) -> Self {
        let (temporary_names, refused) = (Arc::default(), Mutex::default());
        let (groups, suspected) = (RwLock::default(), Mutex::default());
        let (places, twins) = Default::default();
        Self { me, groups, links, handler, from, seams, stop, temporary_names, refused, suspected, places, twins }
    }

    pub(crate) fn all_groups(&self) -> Vec<Arc<GroupCore>> {
        self.groups.read().unwrap_or_else(std::sync::PoisonError::into_inner).values().cloned().collect()
    }

    /// Logs a refusal, once for each address and reason.
    fn note_refusal(&self, from: SocketAddr, why: String) {
        let from = from.ip().to_string();
        let mut noted = lock(&self.refused);
        if noted.len() < REFUSALS_NOTED_MAX && noted.insert((from.clone(), why.clone())) {
            tracing::warn!(%from, %why, "refused a peer");
        }
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<GroupCore>> {
        self.groups.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    fn must_have(&self, id: u32) -> io::Result<Arc<GroupCore>> {
        self.group(GroupId(id)).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no group {id} here")))
    }
}

/// Accepts peers until the node stops.
pub(crate) async fn serve(registry: Arc<Registry>, mut listener: Box<dyn NetListener>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = registry.stop.cancelled() => return,
            a = listener.accept() => a,
        };
        match accepted {
            Ok((io, from)) => match (registry.from)(from) {
                // Closed without an answer: nothing is read from there.
                Err(why) if !crate::bad!("peer-not-asked") => registry.note_refusal(from, why),
                _ => drop(tokio::spawn(welcome(registry.clone(), io, from))),
            },
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept peers");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(registry: Arc<Registry>, mut io: BoxIo, from: SocketAddr) {
    let (place, had_room) = registry.places.greet(from.ip(), registry.stop.child_token());
    if !had_room {
        registry
            .note_refusal(from, "too many connections that do not say who they are: the oldest are closed".to_owned());
    }
    let received = tokio::select! {
        biased;
        () = place.stop.cancelled() => return,
        received = receive(&mut io, &registry.me, &registry.links.members) => received,
    };
    let Caller { node: peer, disk, run, lane } = match received {
        Ok(Ok(caller)) => caller,
        Ok(Err(refusal)) => return registry.note_refusal(from, refusal.to_string()),
        Err(e) => {
            tracing::debug!(%from, error = %e, "peer handshake failed");
            return;
        }
    };
    // A disk that was replaced while it was welcomed.
    let Some(stop) = registry.links.members.connection(peer, disk) else {
        return registry.note_refusal(from, Refusal::Disk.to_string());
    };
    if !place.take_as(peer, lane, stop.clone()) {
        return;
    }
    tracing::debug!(peer = peer.0, ?lane, %from, run, "a peer connected");
    let (read, write) = tokio::io::split(io);
    let queue = start_writer(write, stop.clone(), false);
    let newest_run = registry.twins.connected(peer, run, from);
    let served = Arc::new(Served {
        registry,
        peer,
        lane,
        from,
        run,
        newest_run,
        queue,
        stop: stop.clone(),
        slots: Arc::new(Semaphore::new(CONTROL_IN_FLIGHT_MAX)),
        streams: Mutex::default(),
    });
    if let Err(e) = served.clone().read_loop(FrameReader::new(read)).await {
        if e.kind() == io::ErrorKind::InvalidData {
            tracing::warn!(peer = peer.0, ?lane, error = %e, "closed a peer connection: malformed question");
        } else {
            tracing::debug!(peer = peer.0, ?lane, error = %e, "peer connection lost");
        }
    }
    stop.cancel();
    lock(&served.streams).clear();
    served.registry.twins.closed(peer, run);
    failover::connection_closed(&served.registry, served.peer);
}

/// A request to append, and what its leader knows of the members.
type Append = (AppendEntriesRequest<Types>, AcknowledgedBy);

/// One accepted connection.
struct Served {
    registry: Arc<Registry>,
    peer: NodeId,
    lane: Lane,
    from: SocketAddr,
    run: u64,
    /// The peer's run that connected last.
    newest_run: Arc<AtomicU64>,
    queue: SendQueue,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
    streams: Mutex<BTreeMap<u64, mpsc::Sender<Append>>>,
}

impl Served {
    async fn read_loop(self: Arc<Self>, mut frames: FrameReader<impl tokio::io::AsyncRead + Unpin>) -> io::Result<()> {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                f = frames.next() => match f? { Some(f) => f, None => return Ok(()) },
            };
            if frame.kind.lane().is_some_and(|lane| lane != self.lane) {
                return Err(malformed(&format!("question: {:?} on the other lane", frame.kind)));
            }
            if self.newest_run.load(Ordering::Relaxed) != self.run {
                self.registry.twins.heard(self.peer, self.run, self.from);
            }
            match frame.kind {
                Kind::Ping => self.queue.send_urgent(Outgoing::new(Kind::Pong, 0, 0, Bytes::new())),
                Kind::Clock => {
                    let mut clock = BytesMut::with_capacity(32);
                    clock.put_u64_le(self.registry.seams.clock.now_ms());
                    if let Some(core) = self.registry.group(GroupId(frame.group)) {
                        if let Some(word) = Word::decode(&frame.body) {
                            core.heard(word, self.peer);
                        }
                        let moment = core.moment();
                        clock.put_u64_le(moment.run);
                        clock.put_u64_le(moment.ms);
                        clock.put_u64_le(core.expected_ms().unwrap_or(0));
                    }
                    self.answer(&frame, Ok(clock.freeze())).await?;
                }
                Kind::StreamOpen => self.open_stream(&frame)?,
                Kind::StreamAppend => {
                    let tx = lock(&self.streams).get(&frame.id).cloned();
                    // A stream that ended here may still have requests on the wire.
                    if let Some(tx) = tx {
                        let mut body = frame.body;
                        let _ended = tx.send(codec::take_append(&mut body)?).await;
                    }
                }
                Kind::StreamClose => {
                    lock(&self.streams).remove(&frame.id);
                }
                Kind::Pong | Kind::Answer | Kind::Failed | Kind::StreamAnswer | Kind::StreamEnd => {
                    return Err(malformed("question: it is an answer"));
                }
                _ => self.spawn_question(frame).await?,
            }
        }
    }

    async fn answer(&self, question: &Frame, answer: io::Result<Bytes>) -> io::Result<()> {
        let out = match answer {
            Ok(body) => Outgoing::new(Kind::Answer, question.group, question.id, body),
            Err(e) => Outgoing::new(Kind::Failed, question.group, question.id, e.to_string().into_bytes()),
        };
        self.queue.send(out).await
    }

    async fn spawn_question(self: &Arc<Self>, frame: Frame) -> io::Result<()> {
        let slot = self.slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let this = self.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let stop = this.stop.clone();
            let work = async {
                let answer = this.question(&frame).await;
                if let Err(e) = &answer {
                    tracing::debug!(peer = this.peer.0, kind = ?frame.kind, group = frame.group, error = %e, "a peer's question failed");
                }
                let _gone = this.answer(&frame, answer).await;
            };
            tokio::select! { biased; () = stop.cancelled() => {}, () = work => {} }
        });
        Ok(())
    }

    async fn question(&self, f: &Frame) -> io::Result<Bytes> {
        let mut body = f.body.clone();
        if f.kind == Kind::Ask {
            if body.len() > ASK_BYTES_MAX {
                return Err(malformed("question: too long"));
            }
            return (self.registry.handler)(self.peer, body).await;
        }
        let core = self.registry.must_have(f.group)?;
        match f.kind {
            Kind::Vote | Kind::PreVote => vote(&core, self.peer, f.kind, &mut body).await,
            Kind::Heartbeat => heartbeat(&core, self.peer, &mut body).await,
            Kind::TransferLeader => transfer(&core, self.peer, &mut body).await,
            Kind::ReadIndex => Ok(u64_bytes(reads::for_peer(&core).await?)),
            Kind::Term => Ok(repair::answer(&core)),
            Kind::Acknowledgements => vote_gate::answer(&core, self.peer),
            Kind::EntryHash => unreadable::answer(&core, &mut body),
            Kind::SnapshotOffer => take_offer(&self.registry, (self.peer, self.from), &core, &mut body).await,
            Kind::SnapshotFind => find_snapshot(&core, &mut body).await,
            Kind::SnapshotRead => read_snapshot(&core, &mut body).await,
            other => Err(malformed(&format!("question: {other:?}"))),
        }
    }

    fn open_stream(self: &Arc<Self>, f: &Frame) -> io::Result<()> {
        let (tx, rx) = mpsc::channel(STREAM_IN_FLIGHT_MAX);
        {
            let mut streams = lock(&self.streams);
            if streams.len() >= STREAMS_PER_CONNECTION_MAX {
                return Err(malformed("stream: too many on one connection"));
            }
            streams.insert(f.id, tx);
        }
        let (this, group, id) = (self.clone(), f.group, f.id);
        tokio::spawn(async move {
            let stop = this.stop.clone();
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                end = this.run_stream(group, id, rx) => end,
            };
            lock(&this.streams).remove(&id);
            let why = end.err().map(|e| e.to_string()).unwrap_or_default();
            let _gone = this.queue.send(Outgoing::new(Kind::StreamEnd, group, id, why.into_bytes())).await;
        });
        Ok(())
    }

    async fn run_stream(&self, group: u32, id: u64, rx: mpsc::Receiver<Append>) -> io::Result<()> {
        let core = self.registry.must_have(group)?;
        let raft = core.raft()?;
        // The first request that no leader sends ends the stream.
        let refused = Arc::new(Mutex::new(None));
        // Of the requests that have no answer yet.
        let terms = Arc::new(Mutex::new(VecDeque::new()));
        let (peer, checked, why, asked) = (self.peer, core.clone(), refused.clone(), terms.clone());
        let requests = futures::stream::unfold(rx, move |mut rx| {
            let (core, why, asked) = (checked.clone(), why.clone(), asked.clone());
            async move {
                let (request, by) = rx.recv().await?;
                match checks::append(&request, peer, &core.known())
                    .and_then(|()| repair::remembers(&core, &by, request.vote.leader_id.term))
                {
                    Ok(()) => {
                        hear(&core, request.vote.leader_id.term);
                        lock(&asked).push_back(request.vote.leader_id.term);
                        Some((request, rx))
                    }
                    Err(e) => {
                        *lock(&why) = Some(e);
                        None
                    }
                }
            }
        });
        // The call spawns when it is made, so it is made inside the seeded scope.
        let answers = core.seeded(async { raft.stream_append(requests) }).await;
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(io::Error::other)?;
            let term = lock(&terms).pop_front();
            if let (Some(term), Ok(Some(matching))) = (term, &answer) {
                core.memory.acknowledges(term, *matching);
            }
            let mut body = BytesMut::new();
            codec::put_stream_answer(&mut body, &answer);
            self.queue.send(Outgoing::new(Kind::StreamAnswer, group, id, body.freeze())).await?;
        }
        let refused = lock(&refused).take();
        match refused {
            Some(why) => {
                tracing::warn!(peer = peer.0, group, error = %why, "refused a peer's entries");
                Err(why)
            }
            None => Ok(()),
        }
    }
}

fn u64_bytes(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

async fn vote(core: &GroupCore, from: NodeId, kind: Kind, body: &mut Bytes) -> io::Result<Bytes> {
    let request = codec::take_vote_request(body)?;
    checks::vote(&request.vote, false, from, &core.known())?;
    core.may_vote()?;
    let raft = core.raft()?;
    let r = if kind == Kind::Vote { raft.vote(request).await } else { raft.pre_vote(request).await };
    let mut b = BytesMut::new();
    codec::put_vote_response(&mut b, &r.map_err(io::Error::other)?);
    Ok(b.freeze())
}

async fn heartbeat(core: &Arc<GroupCore>, from: NodeId, body: &mut Bytes) -> io::Result<Bytes> {
    let (request, by) = codec::take_append(body)?;
    checks::append(&request, from, &core.known())?;
    let asked = checks::Asked::of(&request);
    repair::remembers(core, &by, asked.term)?;
    hear(core, asked.term);
    let r = core.raft()?.append_entries(request).await.map_err(io::Error::other)?;
    let matching = match &r {
        AppendEntriesResponse::Success => asked.last,
        AppendEntriesResponse::PartialSuccess(matching) => *matching,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
    };
    matching.into_iter().for_each(|matching| core.memory.acknowledges(asked.term, matching));
    let mut b = BytesMut::new();
    codec::put_append_response(&mut b, &r);
    Ok(b.freeze())
}

/// A leader of the present term sent something; one of an earlier term leads nobody.
fn hear(core: &GroupCore, term: u64) {
    if term >= core.known().term {
        core.hear_leader();
    }
}

async fn transfer(core: &GroupCore, from: NodeId, body: &mut Bytes) -> io::Result<Bytes> {
    let request = codec::take_transfer(body)?;
    checks::vote(request.from_leader(), true, from, &core.known())?;
    if !core.may_stand() {
        return Err(io::Error::other(
            "this replica cannot lead: it may not vote yet, or does not know a committed entry",
        ));
    }
    let r = core.seeded(core.raft()?.handle_transfer_leader(request)).await.map_err(io::Error::other)?;
    let mut b = BytesMut::new();
    codec::put_transfer_answer(&mut b, &r);
    Ok(b.freeze())
}

/// A snapshot at or after an index, built if there is none yet.
async fn find_snapshot(core: &Arc<GroupCore>, body: &mut Bytes) -> io::Result<Bytes> {
    if body.len() < 8 {
        return Err(malformed("snapshot question"));
    }
    let at_least = body.get_u64_le();
    core.may_give_state()?;
    let applied = core.progress.applied().index;
    if at_least > applied {
        let why = format!("a snapshot at or after {at_least} is asked for, only {applied} is applied here");
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let newest = core.snapshots.newest().filter(|f| f.head.last.index >= at_least);
    let file = match newest {
        Some(f) => f,
        None => upkeep::build_snapshot(core).await?,
    };
    core.may_give_state()?;
    let mut b = BytesMut::new();
    Offer { last: file.head.last, bytes: file.bytes }.put(&mut b);
    Ok(b.freeze())
}

async fn read_snapshot(core: &GroupCore, body: &mut Bytes) -> io::Result<Bytes> {
    if body.len() < 20 {
        return Err(malformed("snapshot question"));
    }
    let (index, offset, len) = (body.get_u64_le(), body.get_u64_le(), body.get_u32_le() as usize);
    // Asked anew for each piece: it may have been outvoted since the first.
    core.may_give_state()?;
    let file = core.snapshots.find(index).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("the snapshot at {index} is not kept any more"))
    })?;
    Ok(blocking(&core.seams.disk, move || file.range(offset, len)).await?.into())
}
