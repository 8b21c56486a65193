//! The feed: every change from a cursor on, ridden over broken connections and dead nodes.
//!
//! **Owns** [`Watch`] and [`Cursor`], and the check that each frame begins where the one before ended, whichever nodes they came from.
//! **Must never** skip a change or tell one twice within one watch.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use ledger_core::{Change, LedgerTime, Position, Sku};
use ledger_proto::reply::{Reply, Why};
use ledger_proto::{Invalid, feed, status, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Code;

use crate::limits;
use crate::node::Watches;
use crate::routes::Routes;

/// Where a consumer is in the feed; opaque. Store it with what you made of the changes before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub(crate) Bytes);

impl Cursor {
    /// From the oldest change that is kept.
    pub fn oldest() -> Self {
        Self::default()
    }
    /// A cursor that was stored.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One change, where and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Position in the shard's log.
    pub position: Position,
    /// Ledger time.
    pub time: LedgerTime,
    /// What happened.
    pub change: Change,
}

/// Changes that came together, and the cursor behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happenings {
    /// In order per product; empty while nothing happens.
    pub changes: Vec<Happened>,
    /// To go on behind these changes.
    pub cursor: Cursor,
    /// How current each shard's feed is: its ledger time. Empty in the first frame of a stream, which only says where it begins: the end
    /// of what there is so far is a frame without changes that has times.
    pub shard_times: BTreeMap<u32, LedgerTime>,
}

/// Why a watch ended. Broken connections do not end it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnded {
    /// The cursor or the SKUs are not valid.
    #[error("the watch is not valid: {0}")]
    Invalid(#[from] Invalid),
    /// The cursor names a place that no node has: its changes are no longer kept, or it is not of this cluster's history. Start from a read, then from
    /// now.
    #[error("the watch cannot go on from its cursor: {0}")]
    CutOff(String),
    /// Every node that was asked goes on elsewhere than where the last frame ended: going on would skip changes or repeat them.
    #[error("the feed does not continue behind the last cursor: {0}")]
    NotContinuous(String),
    /// The client was closed before the watch had begun.
    #[error("the client was closed")]
    Closed,
    /// The caller's role does not allow it.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// A change that this build does not understand; going on would skip it. Use a newer client from the last cursor on.
    #[error("a change is not understood: {0}")]
    NotUnderstood(Invalid),
}

/// A running watch: a stream of [`Happenings`]. Dropping it ends it; so does closing or dropping
/// its client, after what has come already.
pub struct Watch {
    pub(crate) rx: mpsc::Receiver<Result<Happenings, WatchEnded>>,
    begins: Cursor,
}

impl Watch {
    /// Where it began: before the first change that it gives. Of a watch from now, store it before
    /// anything is made of the changes: a crash then loses none.
    pub fn begins(&self) -> &Cursor {
        &self.begins
    }
    /// The next changes; none after the watch has ended or its client was closed.
    pub async fn next(&mut self) -> Option<Result<Happenings, WatchEnded>> {
        self.rx.recv().await
    }
}

impl Stream for Watch {
    type Item = Result<Happenings, WatchEnded>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rx.poll_recv(cx)
    }
}

/// Starts a watch from now on, which is before this returns. What breaks meanwhile begins again.
///
/// # Errors
/// It ended before it had begun.
pub(crate) async fn start_now(routes: &Arc<Routes>) -> Result<Watch, WatchEnded> {
    loop {
        let mut watch = start(routes, None, Vec::new());
        match watch.next().await {
            // A node says first where the watch begins.
            Some(Ok(first)) if first.changes.is_empty() => return Ok(Watch { begins: first.cursor, ..watch }),
            // It did not: what happens now is a beginning as good.
            Some(Ok(_)) => {}
            Some(Err(ended)) => return Err(ended),
            None => return Err(WatchEnded::Closed),
        }
    }
}

/// Starts a watch: from the cursor on, or from now.
pub(crate) fn start(routes: &Arc<Routes>, cursor: Option<Cursor>, skus: Vec<Sku>) -> Watch {
    let begins = cursor.clone().unwrap_or_default();
    let (tx, rx) = mpsc::channel(limits::WATCH_FRAMES);
    let routes = routes.clone();
    // The task keeps the client's connections alive: it ends with its consumer, and with its
    // client.
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = routes.until_closed() => {}
            () = follow(&routes, cursor, skus, tx) => {}
        }
    });
    Watch { rx, begins }
}

type Out = mpsc::Sender<Result<Happenings, WatchEnded>>;

async fn follow(routes: &Routes, mut cursor: Option<Cursor>, skus: Vec<Sku>, out: Out) {
    let skus: Vec<String> = skus.iter().map(|sku| sku.as_str().to_owned()).collect();
    let mut tries = 0;
    let mut ends = Ends::default();
    loop {
        let request = v1::WatchRequest {
            cursor: cursor.clone().unwrap_or_default().0,
            from_now: cursor.is_none(),
            skus: skus.clone(),
        };
        let ended = match routes.with(None, tries, |node| node.watches.clone()) {
            None => Ok(()),
            Some(mut node) => tokio::select! {
                ended = one_stream(&mut node, request, &mut cursor, &mut ends, &mut tries, &out) => ended,
                () = out.closed() => return,
            },
        };
        let ended = match ended {
            // Another node may have what this one lacks.
            Err(WatchEnded::NotContinuous(why)) if ends.refused < limits::WATCH_REFUSALS_MAX => {
                tracing::warn!(%why, "this node does not continue the watch; asking another one");
                ends.refused += 1;
                Ok(())
            }
            ended => ended,
        };
        if let Err(ended) = ended {
            let _ = out.send(Err(ended)).await;
            return;
        }
        let pause = routes.chance.pause(limits::BACKOFF_MIN, limits::RECONNECT_MAX, tries);
        tries = tries.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = out.closed() => return,
        }
    }
}

/// Where the frames so far ended in each shard, as far as nodes said so.
#[derive(Default)]
struct Ends {
    places: BTreeMap<u32, v1::FeedPlace>,
    /// Nodes that went on elsewhere, since the last frame that went on here.
    refused: u32,
}

impl Ends {
    /// Whether a frame begins where the one before ended, and its changes lie within what it says that it covers.
    fn take(&mut self, frame: &v1::WatchFrame) -> Result<(), WatchEnded> {
        let mut places = self.places.clone();
        for span in &frame.spans {
            let (Some(from), Some(to)) = (&span.from, &span.to) else { return Err(elsewhere(span.shard, "nowhere")) };
            if places.insert(span.shard, to.clone()).is_some_and(|before| before != *from) {
                return Err(elsewhere(span.shard, &format!("at index {}", from.index)));
            }
        }
        let of = |at: &v1::Position| frame.spans.iter().filter(|span| span.shard == at.shard).collect::<Vec<_>>();
        for at in frame.changes.iter().filter_map(|change| change.position.as_ref()) {
            let spans = of(at);
            let (first, last) = (spans.first().and_then(|s| s.from.as_ref()), spans.last().and_then(|s| s.to.as_ref()));
            let within = first.is_none_or(|from| from.index <= at.index) && last.is_none_or(|to| at.index <= to.index);
            if !within {
                return Err(elsewhere(at.shard, &format!("with a change at index {}", at.index)));
            }
        }
        self.places = places;
        Ok(())
    }
}

fn elsewhere(shard: u32, at: &str) -> WatchEnded {
    WatchEnded::NotContinuous(format!("a frame goes on {at} in shard {shard}"))
}

/// Follows one stream until it breaks (`Ok`) or the watch ends (`Err`).
async fn one_stream(
    node: &mut Watches,
    request: v1::WatchRequest,
    cursor: &mut Option<Cursor>,
    ends: &mut Ends,
    tries: &mut u32,
    out: &Out,
) -> Result<(), WatchEnded> {
    let mut frames = match node.rpc.watch(request).await {
        Ok(frames) => {
            node.gate.answered();
            frames.into_inner()
        }
        Err(status) => {
            node.gate.ended_with(&status);
            return definite(&status);
        }
    };
    loop {
        // A node sends a frame every second, whatever happens: one that is silent for long is as good as gone.
        let frame = match timeout(limits::WATCH_SILENT_MAX, frames.message()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(status)) => return definite(&status),
            Err(_) => return Ok(()),
        };
        ends.take(&frame)?;
        // The first frame of a stream says where it begins, before the node knows whether it can go on from there.
        if !frame.spans.is_empty() || !frame.changes.is_empty() || !frame.shard_time_ms.is_empty() {
            (ends.refused, *tries) = (0, 0);
        }
        let happenings = read(frame, cursor.as_ref())?;
        let behind = happenings.cursor.clone();
        if out.send(Ok(happenings)).await.is_err() {
            return Ok(());
        }
        *cursor = Some(behind);
    }
}

fn read(frame: v1::WatchFrame, before: Option<&Cursor>) -> Result<Happenings, WatchEnded> {
    let happened = |change| {
        let (position, time, change) = feed::change_from_wire(change).map_err(WatchEnded::NotUnderstood)?;
        Ok(Happened { position, time, change })
    };
    let changes = frame.changes.into_iter().map(happened).collect::<Result<_, WatchEnded>>()?;
    let cursor = if frame.cursor.is_empty() { before.cloned().unwrap_or_default() } else { Cursor(frame.cursor) };
    let shard_times = frame.shard_time_ms.into_iter().map(|(shard, ms)| (shard, LedgerTime(ms))).collect();
    Ok(Happenings { changes, cursor, shard_times })
}

/// Whether a status ends the watch.
fn definite(status: &tonic::Status) -> Result<(), WatchEnded> {
    match status::reply(status) {
        Some(Reply::Refused(Why::Invalid(invalid))) => return Err(WatchEnded::Invalid(invalid)),
        Some(Reply::Refused(Why::PermissionDenied(message))) => return Err(WatchEnded::PermissionDenied(message)),
        Some(_) => return Ok(()),
        None => {}
    }
    match status.code() {
        Code::DataLoss => Err(WatchEnded::NotContinuous(status.message().to_owned())),
        Code::OutOfRange => Err(WatchEnded::CutOff(status.message().to_owned())),
        Code::InvalidArgument => Err(WatchEnded::Invalid(Invalid::new("watch", status.message()))),
        Code::PermissionDenied => Err(WatchEnded::PermissionDenied(status.message().to_owned())),
        _ => Ok(()),
    }
}
