//! `Watch`: one feed over all shards, whichever nodes keep them.
//!
//! **What it is.** The shards with a replica here are watched here; the others on the nodes that lead them, by a watch of those shards
//! alone. Their frames are passed on as they come, each with the cursor over all shards behind it.
//!
//! **Owns** the joining of cursors: a place moves only with a frame that was passed on, and only from where the frame before ended.
//! **Must never** skip a source, or go on without one: when a source ends or stays silent, the watch ends, and its caller goes on with
//! the last cursor elsewhere.
//! **Read next**: [`crate::feed::watch`], [`crate::api::lists`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use ledger_core::types::Sku;
use ledger_proto::limits::{CURSOR_BYTES_MAX, SKUS_PER_WATCH_MAX};
use ledger_proto::{Cause, Invalid, NotNow, feed, names, status, v1};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::watch_places::WatchPlace;
use crate::api::Api;
use crate::api::forward::mark_shards;
use crate::api::lists::{Spread, spread};
use crate::api::reads::{Consistency, Reader};
use crate::feed::cursor::{Cursor, CursorError, Place};
use crate::feed::watch::{Frame, From, ShardFeed, Span, WatchError, Watcher};
use crate::limits::{
    READ_WITHIN, READY_AGE_MAX, RETRY_ELECTION_MS, RETRY_UNWELL_MS, RETRY_WATCHES_MS, WATCH_FRAMES_WAITING,
    WATCH_SILENT_MAX, WATCH_UNREAD_WITHIN,
};
use crate::node::NodeState;
use crate::shard::Shard;

type Frames = BoxStream<'static, Result<v1::WatchFrame, Status>>;
/// Of several sources, each frame with the number of its own.
type Numbered = BoxStream<'static, (usize, Result<v1::WatchFrame, Status>)>;

/// A watch that has begun: where it is in every shard, and what comes.
pub(super) struct Sources {
    incarnation: u64,
    places: BTreeMap<u32, Place>,
    /// Ledger time of each shard, as its source said last.
    times: BTreeMap<u32, u64>,
    frames: Numbered,
    /// What frames without changes covered that were not passed on.
    passed_over: Vec<v1::FeedSpan>,
    /// Whose last frame said that nothing happens.
    idle: Vec<bool>,
}

/// Whether a watch of all shards, or of `only` these, needs other nodes.
pub(super) fn needs_others(api: &Api, only: Option<&[u32]>) -> Result<bool, NotNow> {
    Ok(!spread(api, only)?.away.is_empty())
}

/// Begins a watch of all shards, or of `only` these for another node.
pub(super) async fn begin(api: &Api, asked: &v1::WatchRequest, only: Option<&[u32]>) -> Result<Sources, Status> {
    let skus = checked(asked).map_err(status::invalid)?;
    let Spread { here, away } = spread(api, only).map_err(status::not_now)?;
    let incarnation = api.node.cluster().map_or(0, |(_, incarnation)| incarnation);
    let ended = |why: WatchError| watch_error(api, &why);
    let told = match asked.cursor.is_empty() {
        true => None,
        false => Some(Cursor::decode(&asked.cursor).map_err(|why| ended(why.into()))?),
    };

    let part = |shards: &[u32]| {
        let cursor = told.as_ref()?;
        let places = cursor.places.iter().filter(|(shard, _)| shards.contains(shard));
        Some(Cursor { incarnation: cursor.incarnation, places: places.map(|(&s, &p)| (s, p)).collect() }.encode())
    };
    let ids: Vec<u32> = here.iter().map(|shard| shard.id()).collect();
    let from = match (part(&ids), asked.from_now) {
        (Some(cursor), _) => From::Cursor(cursor),
        (None, true) => From::Now,
        (None, false) => From::Oldest,
    };
    let ring = |shard: &Arc<Shard>| ShardFeed {
        ring: shard.feed().clone(),
        history: shard.history().clone(),
        pace: api.pace.clone(),
    };
    for (shard, place) in here.iter().filter_map(|shard| Some((shard, told.as_ref()?.places.get(&shard.id())?))) {
        reach(api, shard, *place).await?;
    }
    let watcher = Watcher::begin(incarnation, here.iter().map(ring).collect(), &from, skus).map_err(ended)?;
    let known = |shard: u32| here.iter().any(|s| s.id() == shard) || away.values().flatten().any(|s| *s == shard);
    let unknown = told.iter().flat_map(|cursor| cursor.places.keys()).find(|shard| !known(**shard));
    if let Some(&shard) = unknown {
        // Asked by another node, it is known there.
        let elsewhere = only.is_some();
        return Err(ended(if elsewhere {
            WatchError::ShardElsewhere { shard }
        } else {
            WatchError::NoSuchShard { shard }
        }));
    }

    let mut places = cursor_of(&watcher.cursor())?.places;
    let others = away.into_iter().map(|(leader, shards)| {
        let cursor = part(&shards).unwrap_or_default();
        let request = v1::WatchRequest { cursor, from_now: asked.from_now, skus: asked.skus.clone() };
        watch_at(api, leader, shards, request)
    });
    let mut all: Vec<Frames> = Vec::new();
    for (first, rest) in try_join_all(others).await? {
        places.extend(cursor_of(&first.cursor)?.places);
        all.push(rest);
    }
    // A watcher that is dropped between two awaits would lose what it read: the stream keeps it until it is done.
    let mine = stream::unfold(Some((watcher, here, api.clone())), |state| async move {
        let (mut watcher, here, api) = state?;
        // Asked before every frame: one shard with changes must not hide that another has none any
        // more.
        let frame = match all_go_on(&here, &watcher) {
            Ok(()) => watcher.next().await.map(|frame| wire_frame(&frame)).map_err(|why| watch_error(&api, &why)),
            Err(why) => Err(why),
        };
        let go_on = frame.is_ok();
        Some((frame, go_on.then_some((watcher, here, api))))
    });
    if !ids.is_empty() || all.is_empty() {
        all.push(mine.boxed());
    }
    let idle = vec![false; all.len()];
    let numbered = all.into_iter().enumerate().map(|(n, frames)| frames.map(move |frame| (n, frame)).boxed());
    let frames = stream::select_all(numbered).boxed();
    let (times, passed_over) = (BTreeMap::new(), Vec::new());
    Ok(Sources { incarnation, places, times, frames, passed_over, idle })
}

/// Waits until this replica has applied what the cursor covers. It may be behind the node that made the cursor; what it lacks after it has
/// applied all that is committed does not exist.
async fn reach(api: &Api, shard: &Shard, place: Place) -> Result<(), Status> {
    let end = || shard.feed().reached().borrow().index;
    // Changes of the record at `next` were delivered, so that it exists.
    let covered = if place.skip > 0 { place.next } else { place.next.saturating_sub(1) };
    if covered > end() {
        Reader::new(api, Consistency::Linearizable, None).confirmed(shard).await.map_err(status::not_now)?;
        let end = end();
        if covered > end && !ledger_core::bad!("cursor-beyond-end-waits") {
            return Err(watch_error(api, &WatchError::BeyondEnd { shard: shard.id(), next: place.next, end }));
        }
    }
    // At the end no record comes that would prove that it continues the cursor.
    let (at, chain) = shard.with_ledger(|ledger| (ledger.position().index, ledger.chain()));
    match place.chain {
        Some(theirs) if place.next > at && place.skip == 0 && theirs != chain => {
            Err(watch_error(api, &WatchError::Diverged { shard: shard.id(), index: place.next }))
        }
        _ => Ok(()),
    }
}

/// Nothing happens at a replica that does not apply, or that hears nothing of the others, whatever
/// happens elsewhere: a watch must not wait for it. What a stopped replica has may be wrong. What one
/// has that cannot decode the next entry, or is cut off, is good, and is delivered first.
fn all_go_on(here: &[Arc<Shard>], watcher: &Watcher) -> Result<(), Status> {
    let ends = |why: String| {
        status::not_now(NotNow::new(
            Cause::NotServing,
            format!("{why}; go on with the same cursor on another node"),
            RETRY_UNWELL_MS,
        ))
    };
    for shard in here {
        let (id, group) = (shard.id(), shard.group().watch());
        let status = group.borrow();
        if let Some(why) = &status.stopped {
            return Err(ends(format!("the replica of shard {id} here is stopped: {why}")));
        }
        if let Some(why) = status.apply_halted.as_ref().filter(|_| watcher.is_through(id)) {
            return Err(ends(format!("the replica of shard {id} here does not apply what is committed: {why}")));
        }
        let age = status.quorum_age_ms.map(Duration::from_millis).filter(|age| *age > READY_AGE_MAX);
        if let Some(age) = age.filter(|_| watcher.is_through(id)) {
            return Err(ends(format!("the replica of shard {id} here was last current {age:?} ago")));
        }
    }
    Ok(())
}

fn checked(asked: &v1::WatchRequest) -> Result<Vec<Sku>, Invalid> {
    let bound = |field, what: &str, n: usize, max: usize| match n > max {
        true => Err(Invalid::new(field, format!("has {n} {what}, at most {max} are allowed"))),
        false => Ok(()),
    };
    bound("skus", "items", asked.skus.len(), SKUS_PER_WATCH_MAX)?;
    bound("cursor", "bytes", asked.cursor.len(), CURSOR_BYTES_MAX)?;
    asked.skus.iter().map(|text| names::sku("skus", text)).collect()
}

/// Watches shards on the node that leads them; its first frame says where it begins and nothing else.
async fn watch_at(
    api: &Api,
    leader: Arc<str>,
    shards: Vec<u32>,
    request: v1::WatchRequest,
) -> Result<(v1::WatchFrame, Frames), Status> {
    let gone = || {
        let why = format!("the node at {leader}, which leads shards that have no replica here, did not answer");
        status::not_now(NotNow::new(Cause::NotServing, why, RETRY_ELECTION_MS))
    };
    // What it says itself is passed through; a broken connection is *not now*.
    let said = |told: Status| if is_said(&told) { told } else { gone() };
    let mut request = tonic::Request::new(request);
    mark_shards(&mut request, &shards);
    let began = async {
        let mut client = api.forward.watches(&leader).ok_or_else(gone)?;
        let mut frames = client.watch(request).await.map_err(said)?.into_inner();
        let first = frames.message().await.map_err(said)?.ok_or_else(gone)?;
        Ok::<_, Status>((first, frames))
    };
    let (first, frames) = timeout(READ_WITHIN, began).await.map_err(|_| gone())??;
    Ok((first, until_silent(frames, gone())))
}

/// The frames of another node. It sends one at least every [`crate::limits::WATCH_IDLE`], so that a long silence, like the end of the
/// stream, ends the watch with `gone`.
fn until_silent(
    frames: impl Stream<Item = Result<v1::WatchFrame, Status>> + Send + Unpin + 'static,
    gone: Status,
) -> Frames {
    stream::unfold(Some((frames, gone)), |state| async move {
        let (mut frames, gone) = state?;
        match timeout(WATCH_SILENT_MAX, frames.next()).await {
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some((frames, gone)))),
            Ok(Some(Err(told))) if is_said(&told) => Some((Err(told), None)),
            _ => Some((Err(gone), None)),
        }
    })
    .boxed()
}

/// Whether a node's watch says so itself.
fn is_said(told: &Status) -> bool {
    status::reply(told).is_some() || matches!(told.code(), Code::OutOfRange | Code::DataLoss)
}

fn cursor_of(bytes: &Bytes) -> Result<Cursor, Status> {
    Cursor::decode(bytes).map_err(|why| Status::internal(why.to_string()))
}

/// `INVALID_ARGUMENT`: no cursor. `OUT_OF_RANGE`: what it names is gone, start from a read. `UNAVAILABLE`: another node. `DATA_LOSS`:
/// another node, and when all say so, start from a read.
fn watch_error(api: &Api, why: &WatchError) -> Status {
    match why {
        WatchError::Cursor(CursorError::Malformed) => status::invalid(Invalid::new("cursor", why.to_string())),
        WatchError::Cursor(CursorError::OtherFormat { .. })
        | WatchError::OtherIncarnation { .. }
        | WatchError::BeyondEnd { .. }
        | WatchError::NoSuchShard { .. }
        | WatchError::TooOld { .. } => Status::out_of_range(why.to_string()),
        WatchError::Diverged { .. } => Status::data_loss(why.to_string()),
        WatchError::NotHere { shard, .. } | WatchError::ShardElsewhere { shard } => {
            let mut not_now = NotNow::new(Cause::NotServing, why.to_string(), RETRY_UNWELL_MS);
            not_now.leader = api.node.leader_addr_of(*shard).map(|addr| addr.to_string());
            status::not_now(not_now)
        }
        WatchError::Broken(_) => status::not_now(NotNow::new(Cause::NotServing, why.to_string(), RETRY_UNWELL_MS)),
    }
}

/// What a caller of a watch reads: frames, and at the end why it ended.
pub(super) struct WatchFrames {
    frames: mpsc::Receiver<v1::WatchFrame>,
    /// Asks for a frame.
    wanted: Arc<Notify>,
    /// It was asked for, and has not come.
    is_wanted: bool,
    /// One was just taken.
    took: bool,
    ended: Option<oneshot::Receiver<Status>>,
}

impl Stream for WatchFrames {
    type Item = Result<v1::WatchFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.frames.poll_recv(cx) {
            Poll::Ready(Some(frame)) => {
                (self.is_wanted, self.took) = (false, true);
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {}
            // tonic polls on until nothing is ready, and hands its buffer over then. This poll asks for
            // nothing, or the next frame would be made though HTTP/2 has not taken this one.
            Poll::Pending if std::mem::take(&mut self.took) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Pending => {
                if !std::mem::replace(&mut self.is_wanted, true) {
                    self.wanted.notify_one();
                }
                return Poll::Pending;
            }
        }
        let Some(ended) = self.ended.as_mut() else { return Poll::Ready(None) };
        let why = ready!(Pin::new(ended).poll(cx));
        self.ended = None;
        Poll::Ready(why.ok().map(Err))
    }
}

/// Feeds a watch from now on.
pub(super) fn start(api: &Api, sources: Sources, place: WatchPlace) -> WatchFrames {
    let (out, waiting) = Out::new();
    let (end, ended) = oneshot::channel();
    let feeding = run(api.clone(), sources, out, end);
    // The place is free when the watch has ended, though its caller may never read that.
    tokio::spawn(async move {
        feeding.await;
        drop(place);
    });
    WatchFrames { ended: Some(ended), ..waiting }
}

/// Where the frames of one watch go.
struct Out {
    frames: mpsc::Sender<v1::WatchFrame>,
    wanted: Arc<Notify>,
}

impl Out {
    fn new() -> (Self, WatchFrames) {
        let (frames, waiting) = mpsc::channel(WATCH_FRAMES_WAITING);
        let wanted = Arc::<Notify>::default();
        let read = WatchFrames { frames: waiting, wanted: wanted.clone(), is_wanted: false, took: false, ended: None };
        (Self { frames, wanted }, read)
    }
}

/// Feeds one watch until its caller goes away or does not read, it cannot go on, or the node stops.
async fn run(api: Api, mut sources: Sources, out: Out, end: oneshot::Sender<Status>) {
    api.metrics.watches.increment(1.0);
    let mut state = api.node.watch_state();
    let stopping = async move {
        drop(state.wait_for(|state| *state == NodeState::Stopping).await);
    };
    // Its caller learns at once where it begins, and can store that before anything is made of the
    // changes.
    let begins = v1::WatchFrame { cursor: sources.cursor(), ..v1::WatchFrame::default() };
    let feeding = async {
        let first = stream::iter([Ok(begins)]);
        let rest = stream::unfold(&mut sources, |sources| async move { Some((sources.next().await, sources)) });
        feed(first.chain(rest), &out).await
    };
    let why = tokio::select! {
        why = feeding => why,
        () = stopping => {
            let why = NotNow::new(Cause::NotServing, "the node is stopping; go on with the same cursor elsewhere", 0);
            Some(Ended::Failed(status::not_now(why)))
        }
        () = out.frames.closed() => None,
    };
    match why {
        Some(Ended::Failed(why)) => drop(end.send(why)),
        Some(Ended::Unread) => {
            api.metrics.watches_unread.increment(1);
            let within = WATCH_UNREAD_WITHIN.as_secs();
            let why = format!("no frame was taken within {within} s; go on with the same cursor");
            drop(end.send(status::not_now(NotNow::new(Cause::NotServing, why, RETRY_WATCHES_MS))));
        }
        None => {}
    }
    api.metrics.watches.decrement(1.0);
}

/// Why a watch ended on this side.
#[derive(Debug)]
enum Ended {
    Failed(Status),
    /// Its caller takes no frames: what waits for it is let go.
    Unread,
}

/// Makes a frame whenever HTTP/2 asks for one. None ahead: before it is encoded a frame takes many times its bytes, and hundreds of
/// watches that nobody reads would each have one. None: the caller is gone.
async fn feed(frames: impl Stream<Item = Result<v1::WatchFrame, Status>>, out: &Out) -> Option<Ended> {
    let mut frames = std::pin::pin!(frames);
    loop {
        if timeout(WATCH_UNREAD_WITHIN, out.wanted.notified()).await.is_err() {
            return Some(Ended::Unread);
        }
        match frames.next().await? {
            Ok(frame) => out.frames.send(frame).await.ok()?,
            Err(why) => return Some(Ended::Failed(why)),
        }
    }
}

impl Sources {
    fn cursor(&self) -> Bytes {
        Cursor { incarnation: self.incarnation, places: self.places.clone() }.encode()
    }

    /// The next frame of any source, with the cursor over all of them behind it. An empty one says that nothing happens: it is
    /// passed on once all sources say so.
    async fn next(&mut self) -> Result<v1::WatchFrame, Status> {
        loop {
            let Some((source, frame)) = self.frames.next().await else {
                return Err(status::not_now(NotNow::new(Cause::NotServing, "the watch ended", RETRY_UNWELL_MS)));
            };
            let mut frame = frame?;
            self.advance(&frame)?;
            self.times.extend(std::mem::take(&mut frame.shard_time_ms));
            self.idle[source] = frame.changes.is_empty();
            if frame.changes.is_empty() {
                self.passed_over.append(&mut frame.spans);
                if !self.idle.iter().all(|idle| *idle) {
                    continue;
                }
                self.idle.fill(false);
                frame.shard_time_ms = self.times.iter().map(|(&shard, &time)| (shard, time)).collect();
            }
            frame.spans.splice(..0, self.passed_over.drain(..));
            frame.cursor = self.cursor();
            return Ok(frame);
        }
    }

    /// Moves the places of a frame's shards, from where its source's frame before ended.
    fn advance(&mut self, frame: &v1::WatchFrame) -> Result<(), Status> {
        for span in &frame.spans {
            let (from, to) = (place_of(span.from.as_ref())?, place_of(span.to.as_ref())?);
            if self.places.insert(span.shard, to) != Some(from) {
                let why = format!("a frame of shard {} does not begin where the one before ended", span.shard);
                return Err(status::not_now(NotNow::new(Cause::NotServing, why, RETRY_UNWELL_MS)));
            }
        }
        let ends = cursor_of(&frame.cursor)?.places;
        if let Some((shard, _)) = ends.iter().find(|(shard, place)| self.places.get(shard) != Some(place)) {
            let why = format!("a frame's cursor is not where its changes of shard {shard} end");
            return Err(status::not_now(NotNow::new(Cause::NotServing, why, RETRY_UNWELL_MS)));
        }
        Ok(())
    }
}

fn wire_place(place: Place) -> v1::FeedPlace {
    let chain = place.chain.map_or_else(Bytes::new, |chain| chain.to_be_bytes().to_vec().into());
    v1::FeedPlace { index: place.next, changes: place.skip, chain }
}

fn place_of(wire: Option<&v1::FeedPlace>) -> Result<Place, Status> {
    let bad = || Status::internal("a span of a frame is malformed");
    let wire = wire.ok_or_else(bad)?;
    let chain = match wire.chain.len() {
        0 => None,
        _ => Some(u128::from_be_bytes(wire.chain.as_ref().try_into().map_err(|_| bad())?)),
    };
    Ok(Place { next: wire.index, skip: wire.changes, chain })
}

fn wire_span(span: &Span) -> v1::FeedSpan {
    v1::FeedSpan { shard: span.shard, from: Some(wire_place(span.from)), to: Some(wire_place(span.to)) }
}

fn wire_frame(frame: &Frame) -> v1::WatchFrame {
    v1::WatchFrame {
        changes: frame
            .changes
            .iter()
            .map(|told| feed::change_to_wire(told.position, told.time, &told.change))
            .collect(),
        cursor: frame.cursor.clone(),
        spans: frame.spans.iter().map(wire_span).collect(),
        shard_time_ms: frame.times.iter().map(|(&shard, time)| (shard, time.0)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn frames_are_made_when_asked_for_and_a_watch_that_asks_for_none_ends() {
        let (out, read) = Out::new();
        // As tonic reads: on until nothing is ready.
        let mut read = Box::pin(read.ready_chunks(8));
        let made = std::cell::Cell::new(0u64);
        let frames = stream::repeat_with(|| {
            made.set(made.get() + 1);
            Ok(v1::WatchFrame::default())
        });
        // Read in time, a hundred frames and eight minutes long.
        let reading = async {
            for n in 0..100 {
                tokio::time::sleep(WATCH_UNREAD_WITHIN / 2).await;
                assert_eq!(made.get(), n, "none is made ahead");
                let frames = read.next().await.expect("the watch goes on");
                assert!(matches!(&frames[..], [Ok(_)]), "{frames:?}");
            }
        };
        let began = tokio::time::Instant::now();
        let (ended, ()) = tokio::join!(feed(frames, &out), reading);
        assert!(matches!(ended, Some(Ended::Unread)), "{ended:?}");
        assert_eq!((began.elapsed(), made.get()), (WATCH_UNREAD_WITHIN * 51, 100));
        drop(out);
        assert!(read.next().await.is_none(), "nothing waits");
    }
}
