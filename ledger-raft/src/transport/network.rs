//! openraft's network traits over the links.
//!
//! **Owns** what is asked on which lane, and how long it may take. **Must never** hide an unreachable peer: it is
//! `Unreachable`, so that openraft backs off. **Read next**: [`super::server`], the other side.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSender;

use super::checks::{self, Asked};
use super::frame::{Frame, Kind, Outgoing};
use super::link::{Links, PeerLinks, StreamHandle};
use crate::api::NodeId;
use crate::codec::{self, StreamAnswer, malformed};
use crate::limits::{
    COMMIT_WORD_WAITS, COMMIT_WORD_WAITS_BYTES, CONNECT_WITHIN, REDIAL_MAX, REDIAL_MIN, SNAPSHOT_BYTES_MAX,
    SNAPSHOT_TRANSFER_WITHIN, STREAM_BYTES_IN_FLIGHT_MAX, STREAM_IN_FLIGHT_MAX, STREAM_STALL_MAX,
};
use crate::remember::Memory;
use crate::seam::Seams;
use crate::snapshot::{SnapshotFile, SnapshotStore};
use crate::types::{LogId, Peer, SnapshotMeta, Types, Vote};

fn unreachable(e: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(e))
}

fn bytes_of(f: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut b = BytesMut::new();
    f(&mut b);
    b.freeze()
}

/// Makes the networks of one group.
pub(crate) struct GroupNetwork {
    pub(crate) group: u32,
    pub(crate) links: Arc<Links>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) seams: Seams,
}

impl GroupNetwork {
    fn client(&self, target: u64, node: &Peer, heartbeat: bool) -> PeerNetwork {
        PeerNetwork {
            group: self.group,
            target: NodeId(target),
            memory: self.memory.clone(),
            heartbeat,
            links: self.links.to(NodeId(target), &node.addr),
            all: self.links.clone(),
            snapshots: self.snapshots.clone(),
            seams: self.seams.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for GroupNetwork {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Peer) -> PeerNetwork {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> PeerNetwork {
        self.client(target, node, true)
    }
}

/// One group's way to one peer.
pub(crate) struct PeerNetwork {
    group: u32,
    target: NodeId,
    memory: Arc<Memory>,
    heartbeat: bool,
    links: PeerLinks,
    all: Arc<Links>,
    snapshots: Arc<SnapshotStore>,
    seams: Seams,
}

impl PeerNetwork {
    async fn control(&self, kind: Kind, body: Bytes, option: &RPCOption) -> io::Result<Bytes> {
        self.links.control.call(kind, self.group, body, option.soft_ttl()).await
    }

    /// All votes are asked for here. A replica whose log has lost something takes none, also when it
    /// learns that while it asks.
    async fn ask_vote(
        &self,
        kind: Kind,
        r: VoteRequest<Types>,
        o: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let damaged = || unreachable(&io::Error::other("this replica's log is damaged: it asks for no vote"));
        if !self.memory.is_whole() {
            return Err(damaged());
        }
        let body = bytes_of(|b| codec::put_vote_request(b, &r));
        let answer = self.control(kind, body, o).await;
        if !self.memory.is_whole() {
            return Err(damaged());
        }
        self.all.note_vote(self.group, self.target, &answer);
        let answer = answer.and_then(|mut a| codec::take_vote_response(&mut a));
        answer.and_then(|a| checks::vote_answer(a, r.vote.leader_id.term)).map_err(|e| unreachable(&e))
    }
}

impl NetBackoff<Types> for PeerNetwork {
    fn backoff(&self) -> Option<Backoff> {
        let random = self.seams.random.clone();
        let mut base = REDIAL_MIN;
        Some(Backoff::new(std::iter::from_fn(move || {
            let jitter = random.next_u64() % (base.as_millis() as u64 / 2 + 1);
            let pause = base / 2 + Duration::from_millis(jitter);
            base = (base * 2).min(REDIAL_MAX);
            Some(pause)
        })))
    }
}

impl NetVote<Types> for PeerNetwork {
    async fn vote(&mut self, r: VoteRequest<Types>, o: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Kind::Vote, r, &o).await
    }

    async fn pre_vote(&mut self, r: VoteRequest<Types>, o: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Kind::PreVote, r, &o).await
    }
}

impl NetTransferLeader<Types> for PeerNetwork {
    async fn transfer_leader(
        &mut self,
        r: TransferLeaderRequest<Types>,
        o: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = bytes_of(|b| codec::put_transfer(b, &r));
        let mut answer = self.control(Kind::TransferLeader, body, &o).await.map_err(|e| unreachable(&e))?;
        let expected = r.last_log_id().copied();
        codec::take_transfer_answer(&mut answer, *r.from_leader(), expected).map_err(|e| unreachable(&e))
    }
}

impl NetSnapshot<Types> for PeerNetwork {
    type SnapshotData = Arc<SnapshotFile>;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Arc<SnapshotFile>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        // The peer pulls the chunks over its own bulk lane, at its own pace; the answer comes when it has installed.
        let last = snapshot.snapshot.head.last;
        let offer = self.snapshots.offer(snapshot.snapshot);
        let body = bytes_of(|b| {
            codec::put_vote(b, &vote);
            offer.put(b);
            self.memory.with(|by| by.put(b));
            // A peer without a log does not know where we are.
            b.put_slice(self.all.own_addr().as_bytes());
        });
        let call = self.links.control.call(Kind::SnapshotOffer, self.group, body, SNAPSHOT_TRANSFER_WITHIN);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = call => answer,
        };
        let answer = answer.and_then(|mut a| codec::take_vote(&mut a));
        match answer.and_then(|theirs| checks::higher_vote(theirs, vote.leader_id.term)) {
            Ok(theirs) => {
                if theirs.leader_id.term == vote.leader_id.term {
                    self.memory.has_acknowledged(self.target, vote.leader_id.term, last);
                }
                Ok(SnapshotResponse::new(theirs))
            }
            Err(e) => Err(StreamingError::Unreachable(Unreachable::new(&e))),
        }
    }
}

impl NetStreamAppend<Types> for PeerNetwork {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        if self.heartbeat {
            return Box::pin(self.heartbeats(input, option));
        }
        Box::pin(async move {
            let dialled = tokio::time::timeout(CONNECT_WITHIN, self.links.bulk.connection())
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let connection = match dialled {
                Ok(connection) => connection,
                Err(e) => {
                    // openraft backs off where it takes the next request from the stream; without a connection that
                    // never happens, and it would ask again at once, for ever.
                    self.links.bulk.pause_over().await;
                    return Err(unreachable(&e));
                }
            };
            let (handle, answers) = connection.open_stream(self.group).map_err(|e| unreachable(&e))?;
            let frames = PollSender::new(connection.queue.frames());
            let stream = AppendStream {
                input: Some(input),
                frames,
                handle,
                answers,
                acknowledgements: Acknowledgements {
                    group: self.group,
                    target: self.target,
                    memory: self.memory.clone(),
                },
                in_flight: VecDeque::new(),
                bytes_in_flight: 0,
                stall: Box::pin(tokio::time::sleep(STREAM_STALL_MAX)),
                word: None,
                word_due: Box::pin(tokio::time::sleep(COMMIT_WORD_WAITS)),
                last_sent: None,
                uncommitted_bytes: 0,
                ended: false,
                #[cfg(holdfast_known_bad)]
                alone: Alone::default(),
            };
            Ok(Box::pin(stream) as BoxStream<'s, _>)
        })
    }
}

impl PeerNetwork {
    /// Heartbeats are single questions on the control lane.
    async fn heartbeats<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let this = &*self;
        let out = input.then(move |r| {
            let option = option.clone();
            async move {
                let asked = Asked::of(&r);
                let body = Bytes::from(this.memory.with(|by| codec::append_pieces(&r, by)).concat());
                let answer = this.control(Kind::Heartbeat, body, &option).await;
                let of = Acknowledgements { group: this.group, target: this.target, memory: this.memory.clone() };
                answer
                    .and_then(|mut a| codec::take_append_response(&mut a))
                    .and_then(|a| into_stream_answer(a, &asked))
                    .and_then(|a| of.note(a, &asked))
                    .map_err(|e| unreachable(&e))
            }
        });
        Ok(Box::pin(out))
    }
}

fn into_stream_answer(
    r: openraft::raft::AppendEntriesResponse<Types>,
    asked: &Asked,
) -> io::Result<StreamAppendResult<Types>> {
    if matches!(r, openraft::raft::AppendEntriesResponse::Conflict) && asked.prev.is_none() {
        // openraft's own conversion panics.
        return Err(malformed("append answer: a conflict with nothing"));
    }
    checks::append_answer(r.into_stream_result(asked.prev, asked.last), asked)
}

/// What one member acknowledges to this leader.
struct Acknowledgements {
    group: u32,
    target: NodeId,
    memory: Arc<Memory>,
}

impl Acknowledgements {
    /// Notes how far the member matches. One that disputes in this term what it has acknowledged in
    /// this term has gone back: openraft, which counted on it, does not hear of that.
    fn note(&self, answer: StreamAnswer, asked: &Asked) -> io::Result<StreamAnswer> {
        match &answer {
            Ok(Some(matching)) => self.memory.has_acknowledged(self.target, asked.term, *matching),
            Err(StreamAppendError::Conflict(at)) if !crate::bad!("reverted-follower-accepted") => {
                let known = self.memory.of(self.target).filter(|known| known.leader_term == asked.term);
                if let Some(known) = known.filter(|known| at.index <= known.last.index) {
                    let (group, node) = (self.group, self.target.0);
                    if self.memory.disputes(self.target, asked.term) {
                        tracing::error!(
                            group, node, acknowledged = %known.last, disputed = %at,
                            "a member lacks entries that it has acknowledged: its disk went back, and it has to be repaired"
                        );
                    }
                    return Err(io::Error::other("the peer lacks what it has acknowledged"));
                }
            }
            _ => {}
        }
        Ok(answer)
    }
}

/// A pipelined stream of appends. It is driven by whoever polls it and owns its input, so dropping it stops both sides at
/// once: openraft reuses the input's state in the next stream.
struct AppendStream<S> {
    input: Option<S>,
    frames: PollSender<Outgoing>,
    handle: StreamHandle,
    answers: mpsc::Receiver<Frame>,
    acknowledgements: Acknowledgements,
    in_flight: VecDeque<Sent>,
    bytes_in_flight: usize,
    stall: Pin<Box<Sleep>>,
    /// Word of a commit that waits for entries to bring it.
    word: Option<AppendEntriesRequest<Types>>,
    word_due: Pin<Box<Sleep>>,
    /// How far the log reached in what was sent last.
    last_sent: Option<LogId>,
    /// Bytes of entries sent that nothing sent calls committed.
    uncommitted_bytes: usize,
    ended: bool,
    #[cfg(holdfast_known_bad)]
    alone: Alone,
}

/// A request that has no answer yet.
struct Sent {
    bytes: usize,
    /// How far an answer says that the logs match at least, for openraft to take it for one to this or to the word it stands for.
    matches_from: Option<LogId>,
    /// What the answer may say.
    asked: Asked,
}

/// What the leader that believes itself answers in its follower's stead, once that one has answered for itself.
#[cfg(holdfast_known_bad)]
#[derive(Default)]
struct Alone {
    sent: VecDeque<Option<LogId>>,
    answered: usize,
    heard: bool,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> AppendStream<S> {
    /// Sends what there is to send and room for; `Err` when the connection is gone.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.in_flight.len() < STREAM_IN_FLIGHT_MAX && self.bytes_in_flight < STREAM_BYTES_IN_FLIGHT_MAX {
            let Some(input) = &mut self.input else { return Ok(()) };
            match self.frames.poll_reserve(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(super::frame::closed()),
                Poll::Ready(Ok(())) => {}
            }
            // A permit held while idle would starve other groups.
            match input.poll_next_unpin(cx) {
                Poll::Ready(None) => {
                    self.input = None;
                    // Nothing comes that could bring it, and openraft waits for its answer.
                    if let Some(word) = self.word.take() {
                        self.send(&word)?;
                    } else {
                        self.frames.abort_send();
                    }
                }
                Poll::Ready(Some(word)) if self.may_wait(&word) => {
                    self.frames.abort_send();
                    if self.word.replace(word).is_none() {
                        self.word_due.as_mut().reset(Instant::now() + COMMIT_WORD_WAITS);
                    }
                }
                Poll::Ready(Some(request)) => self.send(&request)?,
                Poll::Pending if self.word.is_some() && self.word_due.as_mut().poll(cx).is_ready() => {
                    let word = self.word.take().expect("it waits");
                    self.send(&word)?;
                }
                Poll::Pending => {
                    self.frames.abort_send();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a request says nothing but that all that was sent is committed, and that was little. What comes next says so, too. While
    /// something sent is not committed, its answer must not wait for this one's (see [`Self::is_said_again`]).
    fn may_wait(&self, request: &AppendEntriesRequest<Types>) -> bool {
        request.entries.is_empty()
            && self.last_sent.is_some()
            && request.prev_log_id == self.last_sent
            && request.leader_commit >= self.last_sent
            && self.uncommitted_bytes <= COMMIT_WORD_WAITS_BYTES
    }

    /// Sends a request, in place of the word that waits; there is a permit.
    fn send(&mut self, request: &AppendEntriesRequest<Types>) -> io::Result<()> {
        let last = request.entries.last().map(|e| e.log_id).or(request.prev_log_id);
        #[cfg(holdfast_known_bad)]
        self.alone.sent.push_back(last);
        let body = self.acknowledgements.memory.with(|by| codec::append_pieces(request, by));
        let bytes = body.iter().map(Bytes::len).sum();
        let frame = Outgoing { kind: Kind::StreamAppend, group: self.handle.group, id: self.handle.id, body };
        self.frames.send_item(frame).map_err(|_| super::frame::closed())?;
        if self.in_flight.is_empty() {
            self.stall.as_mut().reset(Instant::now() + STREAM_STALL_MAX);
        }
        let matches_from = self.word.take().map_or(last, |word| word.prev_log_id);
        self.in_flight.push_back(Sent { bytes, matches_from, asked: Asked::of(request) });
        self.bytes_in_flight += bytes;
        if request.leader_commit >= self.last_sent {
            self.uncommitted_bytes = 0;
        }
        self.uncommitted_bytes += bytes;
        self.last_sent = last;
        Ok(())
    }

    fn take_answer(&mut self, frame: Frame) -> io::Result<StreamAppendResult<Types>> {
        let mut body = frame.body;
        if frame.kind == Kind::StreamEnd {
            return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned()));
        }
        let answer = codec::take_stream_answer(&mut body)?;
        let sent = self.in_flight.pop_front().ok_or_else(|| malformed("stream answer without a request"))?;
        self.bytes_in_flight -= sent.bytes;
        self.stall.as_mut().reset(Instant::now() + STREAM_STALL_MAX);
        let answer = checks::append_answer(answer, &sent.asked)?;
        self.acknowledgements.note(answer, &sent.asked)
    }

    /// Whether openraft would take this answer for one to the next request, too, which nobody has answered.
    ///
    /// It tells what an answer is for by how far the logs match, and takes the moment at which the last such request left for a moment at which
    /// the follower followed. An empty request (the commit index alone) matches as far as the one before it: a leader that was stopped with an
    /// answer in its socket, and sends such a request when it wakes, would count that old answer as a quorum of now, for its reads and its
    /// lease, though another leads by then. The answer to the later request says all that this one says. A word that waits counts: openraft has
    /// noted when it took it to have left.
    fn is_said_again(&self, matching: Option<LogId>) -> bool {
        let waits = || self.word.as_ref().map(|word| word.prev_log_id);
        self.in_flight.front().map(|next| next.matches_from).or_else(waits).is_some_and(|from| from <= matching)
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for AppendStream<S> {
    type Item = Result<StreamAppendResult<Types>, RPCError<Types>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Err(e) = this.poll_send(cx) {
            this.ended = true;
            return Poll::Ready(Some(Err(unreachable(&e))));
        }
        if this.input.is_none() && this.in_flight.is_empty() {
            return Poll::Ready(None);
        }
        #[cfg(holdfast_known_bad)]
        if let Some(last) = this.alone_says() {
            return Poll::Ready(Some(Ok(Ok(last))));
        }
        while let Poll::Ready(frame) = this.answers.poll_recv(cx) {
            let answer = frame.ok_or_else(super::frame::closed).and_then(|f| this.take_answer(f));
            // After a conflict or a higher vote the peer has ended the stream.
            this.ended = !matches!(answer, Ok(Ok(_)));
            #[cfg(holdfast_known_bad)]
            if this.alone_heard(&answer) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if matches!(answer, Ok(Ok(matching)) if this.is_said_again(matching)) {
                continue;
            }
            return Poll::Ready(Some(answer.map_err(|e| unreachable(&e))));
        }
        if !this.in_flight.is_empty() {
            ready!(this.stall.as_mut().poll(cx));
            this.ended = true;
            let e = io::Error::new(io::ErrorKind::TimedOut, "the peer answers no appends");
            return Poll::Ready(Some(Err(unreachable(&e))));
        }
        Poll::Pending
    }
}

#[cfg(holdfast_known_bad)]
impl<S> AppendStream<S> {
    fn alone_says(&mut self) -> Option<Option<LogId>> {
        let on = crate::bad::is("leader-alone") && self.alone.heard && self.alone.answered < self.alone.sent.len();
        on.then(|| {
            self.alone.answered += 1;
            self.alone.sent[self.alone.answered - 1]
        })
    }

    /// Whether this answer was given already.
    fn alone_heard(&mut self, answer: &io::Result<StreamAppendResult<Types>>) -> bool {
        self.alone.heard = true;
        self.alone.sent.pop_front();
        let given = self.alone.answered > 0 && matches!(answer, Ok(Ok(_)));
        self.alone.answered = self.alone.answered.saturating_sub(1);
        given
    }
}

/// What an offer says: whose log position, how long the file is.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) last: LogId,
    pub(crate) bytes: u64,
}

impl Offer {
    pub(crate) fn put(&self, b: &mut BytesMut) {
        codec::put_log_id(b, Some(&self.last));
        b.put_u64_le(self.bytes);
    }

    pub(crate) fn take(b: &mut Bytes) -> io::Result<Self> {
        let last = codec::take_log_id(b)?.ok_or_else(|| malformed("snapshot offer"))?;
        if b.len() < 8 {
            return Err(malformed("snapshot offer"));
        }
        let bytes = bytes::Buf::get_u64_le(b);
        if bytes > SNAPSHOT_BYTES_MAX {
            return Err(malformed("snapshot offer: its length"));
        }
        Ok(Self { last, bytes })
    }
}

/// A snapshot's metadata, as openraft wants it.
pub(crate) fn meta_of(file: &SnapshotFile) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(file.head.last), last_membership: file.head.membership.clone() }
}

#[cfg(test)]
mod tests;
