//! A watcher: goes through all shards from one cursor on, and never loses a change.
//!
//! **What it is.** For each shard the watcher holds a place and the bytes of a few records. It
//! reads from the ring while that reaches back far enough and from history below it, checks that
//! each record continues the chain of the one before (the first one the chain value in the cursor),
//! and fills frames of bounded size, taking shards in turn.
//!
//! **Owns** places, the order within a shard, what an error of the feed says. **Must never** pass over a record that it could not
//! read: it ends with an error that names what to do. A place moves past a record only when all of it was delivered, and never past
//! indexes behind the last record: that none is missing there is proved by the next record only.
//! **Read next**: [`super::cursor`], [`crate::history`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::select_all;
use ledger_core::change::Change;
use ledger_core::types::Sku;
use ledger_core::{LedgerTime, Position, codec};
use tokio::sync::watch;

use super::changes::concerns_product;
use super::cursor::{Cursor, CursorError, Place};
use super::decoded::Decoded;
use super::distance::WatchPosition;
use super::pace::ReadPace;
use super::{FeedRing, Reached};
use crate::history::kept::chain_behind;
use crate::history::{History, HistoryError, Page, PageBounds};
use crate::limits::{
    WATCH_CHANGE_BYTES, WATCH_FRAME_BYTES, WATCH_FRAME_CHANGES, WATCH_GATHER, WATCH_IDLE, WATCH_READ_BYTES,
    WATCH_READ_RECORDS,
};

/// What a watcher reads of one shard.
#[derive(Clone)]
pub struct ShardFeed {
    /// The newest records.
    pub ring: Arc<FeedRing>,
    /// All below them.
    pub history: Arc<dyn History>,
    /// When it may read and make frames.
    pub pace: ReadPace,
}

/// Where a watch begins.
#[derive(Debug, Clone)]
pub enum From {
    /// At the oldest record kept.
    Oldest,
    /// Behind what is applied here now.
    Now,
    /// Where a cursor says.
    Cursor(Bytes),
}

/// One change as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The entry's position, with the change's place.
    pub position: Position,
    /// Ledger time of the entry.
    pub time: LedgerTime,
    /// What happened.
    pub change: Change,
}

/// Some changes, and the cursor behind them. No changes: nothing happened for a while; `times` says how current that is.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// In order for each product.
    pub changes: Vec<Told>,
    /// To go on behind them.
    pub cursor: Bytes,
    /// What the frame covers of each shard in which it moved on.
    pub spans: Vec<Span>,
    /// Ledger time by shard; only without changes.
    pub times: BTreeMap<u32, LedgerTime>,
}

/// From one place in a shard to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which shard.
    pub shard: u32,
    /// Where the frame before ended.
    pub from: Place,
    /// Where this one ends.
    pub to: Place,
}

/// Why a watch cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Not a cursor of this build.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The cursor is of another incarnation of the cluster.
    #[error(
        "the cursor is of incarnation {theirs}, the cluster is at {ours}: what it named may not have survived; start anew"
    )]
    OtherIncarnation {
        /// The cluster's.
        ours: u64,
        /// The cursor's.
        theirs: u64,
    },
    /// The records were dropped by retention.
    #[error(
        "the cursor is too old: shard {shard} keeps changes from index {oldest} on; read the present state and watch from now"
    )]
    TooOld {
        /// Which shard.
        shard: u32,
        /// First index kept.
        oldest: u64,
    },
    /// This node misses records for now.
    #[error(
        "this node misses changes of shard {shard} up to index {through}; go on with the same cursor on another node"
    )]
    NotHere {
        /// Which shard.
        shard: u32,
        /// Last index that is missing.
        through: u64,
    },
    /// No such place exists: the cursor is of another cluster, or of a log that was lost.
    #[error(
        "the cursor goes on from index {next} of shard {shard}, which ends at index {end}: it is not of this cluster's history; read the \
         present state and watch from now"
    )]
    BeyondEnd {
        /// Which shard.
        shard: u32,
        /// Where the cursor goes on.
        next: u64,
        /// The last index that is committed.
        end: u64,
    },
    /// The cluster has no such shard.
    #[error(
        "the cursor names shard {shard}, which the cluster does not have: it is not of this cluster's history; read the present state \
         and watch from now"
    )]
    NoSuchShard {
        /// Which shard.
        shard: u32,
    },
    /// The next record here continues another chain value than the cursor's: the cursor or this node's history is of another log.
    #[error(
        "record {index} of shard {shard} does not continue the cursor: go on with the same cursor on another node; if every node says \
         so, the cursor is not of this cluster's history: read the present state and watch from now"
    )]
    Diverged {
        /// Which shard.
        shard: u32,
        /// The record.
        index: u64,
    },
    /// A shard has no replica on this node.
    #[error("shard {shard} has no replica on this node; watch on a node that has one")]
    ShardElsewhere {
        /// Which shard.
        shard: u32,
    },
    /// The store cannot be read.
    #[error("history cannot be read: {0}")]
    Broken(String),
}

/// One shard of a watcher.
struct Track {
    feed: ShardFeed,
    reached: watch::Receiver<Reached>,
    place: Place,
    /// Where the last frame ended.
    delivered: Place,
    /// Read and not delivered yet; the first may be delivered in part (`place.skip`).
    waiting: VecDeque<(u64, Bytes)>,
    /// Records were read up to here.
    read_to: u64,
    /// The last record that was found to continue the one before, if one was.
    last: Option<u64>,
    /// Its ledger time, which readiness and metrics compare with the oldest record's.
    position: WatchPosition,
    /// The chain value that the next record to be looked at must continue, if it is known.
    chain: Option<u128>,
    /// Nothing was read yet of a watch that begins at the oldest record, whichever that is then.
    at_oldest: bool,
}

/// The changes of a frame that is being filled.
#[derive(Default)]
struct Filling {
    changes: Vec<Told>,
    /// About as many bytes as they take.
    bytes: usize,
}

impl Filling {
    fn is_full(&self) -> bool {
        self.changes.len() >= WATCH_FRAME_CHANGES || self.bytes >= WATCH_FRAME_BYTES
    }
}

/// A watch in progress.
pub struct Watcher {
    incarnation: u64,
    tracks: BTreeMap<u32, Track>,
    skus: Vec<Sku>,
    /// The shard that was looked at first in the last frame.
    turn: u32,
}

impl Watcher {
    /// Begins over these shards. Only changes about `skus` are told; all of them when empty.
    ///
    /// # Errors
    /// [`WatchError`]: the cursor is of no use here.
    pub fn begin(incarnation: u64, shards: Vec<ShardFeed>, from: &From, skus: Vec<Sku>) -> Result<Self, WatchError> {
        let cursor = match from {
            From::Cursor(bytes) => Cursor::decode(bytes)?,
            From::Oldest | From::Now => Cursor { incarnation, places: BTreeMap::new() },
        };
        if cursor.incarnation != incarnation {
            return Err(WatchError::OtherIncarnation { ours: incarnation, theirs: cursor.incarnation });
        }
        let here: Vec<u32> = shards.iter().map(|feed| feed.ring.shard()).collect();
        if let Some((&shard, _)) = cursor.places.iter().find(|(shard, _)| !here.contains(shard)) {
            return Err(WatchError::ShardElsewhere { shard });
        }
        let mut tracks = BTreeMap::new();
        for feed in shards {
            let shard = feed.ring.shard();
            let place = match (from, cursor.places.get(&shard)) {
                (_, Some(&place)) => place,
                (From::Now, None) => {
                    let (through, chain) = feed.ring.end();
                    Place { next: through + 1, skip: 0, chain }
                }
                // A cursor that does not name a shard is older than all of it.
                (From::Cursor(_), None) => Place::FIRST,
                (From::Oldest, None) => oldest(&feed, shard),
            };
            let at_oldest = matches!(from, From::Oldest);
            tracks.insert(shard, Track::new(feed, place, at_oldest));
        }
        Ok(Self { incarnation, tracks, skus, turn: 0 })
    }

    /// The next frame; waits until something happens, or tells the shards' times after a while.
    ///
    /// # Errors
    /// [`WatchError`]; the watch is over then, and the last frame's cursor is where to go on.
    pub async fn next(&mut self) -> Result<Frame, WatchError> {
        let idle_at = tokio::time::Instant::now() + WATCH_IDLE;
        loop {
            let mut frame = Filling::default();
            let order: Vec<u32> = self.in_turn();
            for shard in order {
                let Some(track) = self.tracks.get_mut(&shard) else { continue };
                track.reached.mark_unchanged();
                if let Err(why) = track.fill(shard, &self.skus, &mut frame).await {
                    // What was read before it is told first; the next call meets it again.
                    if frame.changes.is_empty() {
                        return Err(why);
                    }
                    break;
                }
                if frame.is_full() {
                    self.turn = shard;
                    break;
                }
            }
            if !frame.changes.is_empty() {
                return Ok(self.frame(frame.changes, BTreeMap::new()));
            }
            // Also when much happens and all of it is filtered away: the caller learns how far its cursor has come.
            let idle = tokio::time::Instant::now() >= idle_at;
            if !idle && self.behind() {
                tokio::task::yield_now().await;
                continue;
            }
            let happened = match idle {
                true => None,
                false => tokio::time::timeout_at(idle_at, self.something_happens()).await.ok(),
            };
            let Some(happened) = happened else {
                let times = self.times();
                return Ok(self.frame(Vec::new(), times));
            };
            happened?;
            tokio::time::sleep(WATCH_GATHER).await;
        }
    }

    /// The present cursor.
    pub fn cursor(&self) -> Bytes {
        let places = self.tracks.iter().map(|(&shard, track)| (shard, track.place)).collect();
        Cursor { incarnation: self.incarnation, places }.encode()
    }

    /// Whether everything was delivered that is applied here of a shard.
    pub fn is_through(&self, shard: u32) -> bool {
        self.tracks.get(&shard).is_some_and(|t| t.waiting.is_empty() && t.read_to > t.reached.borrow().index)
    }

    fn frame(&mut self, changes: Vec<Told>, times: BTreeMap<u32, LedgerTime>) -> Frame {
        let moved = |(&shard, track): (&u32, &mut Track)| {
            let (from, to) = (std::mem::replace(&mut track.delivered, track.place), track.place);
            (from != to).then_some(Span { shard, from, to })
        };
        let spans = self.tracks.iter_mut().filter_map(moved).collect();
        Frame { changes, cursor: self.cursor(), spans, times }
    }

    /// Ledger time of every shard of which everything was told.
    fn times(&self) -> BTreeMap<u32, LedgerTime> {
        let current = |(&shard, track): (&u32, &Track)| {
            let reached = *track.reached.borrow();
            (track.read_to > reached.index).then_some((shard, reached.time))
        };
        self.tracks.iter().filter_map(current).collect()
    }

    /// Shards, beginning behind the one that filled the last frame.
    fn in_turn(&self) -> Vec<u32> {
        let behind = self.tracks.range(self.turn.saturating_add(1)..).map(|(&shard, _)| shard);
        let before = self.tracks.range(..=self.turn).map(|(&shard, _)| shard);
        behind.chain(before).collect()
    }

    /// Whether records were applied that were not read (everything read so far was filtered away).
    fn behind(&self) -> bool {
        self.tracks.values().any(|track| track.read_to <= track.reached.borrow().index)
    }

    async fn something_happens(&mut self) -> Result<(), WatchError> {
        let waits: Vec<_> = self.tracks.values_mut().map(|track| Box::pin(track.reached.changed())).collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        // A ring that nobody fills any more would look like a shard where nothing happens.
        let (changed, ..) = select_all(waits).await;
        changed.map_err(|_| WatchError::Broken("the replica was replaced; go on with the same cursor".to_owned()))
    }
}

/// The oldest record kept.
fn oldest(feed: &ShardFeed, shard: u32) -> Place {
    match feed.history.coverage(shard).oldest {
        0 | 1 => Place::FIRST,
        next => Place { next, skip: 0, chain: None },
    }
}

impl Track {
    fn new(feed: ShardFeed, place: Place, at_oldest: bool) -> Self {
        let (reached, position) = (feed.ring.reached(), feed.ring.positions().begin());
        Self {
            feed,
            position,
            reached,
            place,
            delivered: place,
            waiting: VecDeque::new(),
            read_to: place.next,
            last: None,
            chain: place.chain,
            at_oldest,
        }
    }

    /// Adds changes until the frame is full or nothing is left to read for now.
    async fn fill(&mut self, shard: u32, skus: &[Sku], out: &mut Filling) -> Result<(), WatchError> {
        while !out.is_full() {
            if self.waiting.is_empty() {
                let page = match self.read(shard).await {
                    // Retention dropped the oldest record before the watch came to read it: it begins at the next.
                    Err(WatchError::TooOld { .. }) if self.at_oldest => {
                        self.place = oldest(&self.feed, shard);
                        (self.read_to, self.chain) = (self.place.next, self.place.chain);
                        self.read(shard).await?
                    }
                    page => page?,
                };
                let end = page.records.is_empty();
                self.read_to = page.next;
                self.waiting.extend(page.records);
                if end {
                    return Ok(());
                }
            }
            let turn = self.feed.pace.turn().await;
            self.tell(shard, skus, out)?;
            drop(turn);
        }
        Ok(())
    }

    /// Adds the changes of the records that wait, as far as the frame takes them.
    fn tell(&mut self, shard: u32, skus: &[Sku], out: &mut Filling) -> Result<(), WatchError> {
        while let Some((index, bytes)) = self.waiting.front().cloned() {
            let decoded = self.next_record(shard, index, &bytes)?;
            let record = &decoded.record;
            let skip = if self.place.next == index { self.place.skip as usize } else { 0 };
            let each = bytes.len() / record.changes.len().max(1) + WATCH_CHANGE_BYTES;
            let mut seen = skip;
            for change in record.changes.iter().skip(skip) {
                if out.is_full() {
                    break;
                }
                seen += 1;
                if skus.is_empty() || skus.iter().any(|sku| concerns_product(&change.kind, sku)) {
                    let position = Position { place: change.place, ..record.position };
                    out.changes.push(Told { position, time: record.time, change: change.clone() });
                    out.bytes += each;
                }
            }
            if seen < record.changes.len() {
                self.place = Place { next: index, skip: seen as u32, chain: Some(record.chain_before) };
                return Ok(());
            }
            self.place = Place { next: index + 1, skip: 0, chain: Some(decoded.chain) };
            self.waiting.pop_front();
            if out.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn read(&self, shard: u32) -> Result<Page, WatchError> {
        let bounds = PageBounds { records: WATCH_READ_RECORDS, bytes: WATCH_READ_BYTES };
        if let Some(page) = self.feed.ring.read(self.read_to, bounds) {
            return Ok(page);
        }
        let (history, from) = (self.feed.history.clone(), self.read_to);
        let page = if history.reads_block() {
            let read = self.feed.pace.read(move || history.read(shard, from, bounds)).await;
            read.map_err(|error| WatchError::Broken(error.to_string()))?
        } else {
            history.read(shard, from, bounds)
        };
        page.map_err(|error| match error {
            HistoryError::TooOld { shard, oldest } => WatchError::TooOld { shard, oldest },
            HistoryError::NotHere { shard, through, .. } => WatchError::NotHere { shard, through },
            HistoryError::Io(error) => WatchError::Broken(error.to_string()),
        })
    }

    /// Decodes the first record that waits, and checks that it continues the one before. One that
    /// does not is read again by the next call: it may have been fetched anew by then.
    fn next_record(&mut self, shard: u32, index: u64, bytes: &Bytes) -> Result<Arc<Decoded>, WatchError> {
        let decoded = self.feed.ring.decoded().get(bytes).ok();
        // A record that was delivered in part was checked before.
        if self.last == Some(index)
            && let Some(decoded) = decoded
        {
            return Ok(decoded);
        }
        let fits = |decoded: &Arc<Decoded>| {
            let chained = self.chain.is_none_or(|chain| chain == decoded.record.chain_before);
            decoded.record.position.index == index && (chained || ledger_core::bad!("history-gap-forgotten"))
        };
        let Some(decoded) = decoded.filter(fits) else {
            let why = self.does_not_fit(shard, index, bytes);
            self.read_to = index;
            self.waiting.clear();
            return Err(why);
        };
        // The cursor was within a record: this must be that record, and it must have so many
        // changes.
        let (next, skip) = (self.place.next, self.place.skip as usize);
        if self.last.is_none() && skip > 0 && (index != next || skip >= decoded.record.changes.len()) {
            return Err(WatchError::Diverged { shard, index });
        }
        (self.chain, self.last, self.at_oldest) = (Some(decoded.chain), Some(index), false);
        self.position.set(decoded.record.time);
        Ok(decoded)
    }

    /// Says what is wrong with a record that does not continue what was read before. Only what this node's own records say against each
    /// other is called damage and fetched anew; a cursor alone proves nothing against them.
    fn does_not_fit(&self, shard: u32, index: u64, bytes: &Bytes) -> WatchError {
        let history = &self.feed.history;
        let before = index.saturating_sub(1);
        let record = codec::decode_record(bytes).ok().filter(|record| record.position.index == index);
        let after = match (self.last, record) {
            (Some(last), _) => last,
            (None, None) => before,
            (None, Some(record)) => match history.last_up_to(shard, before) {
                Ok(Some((at, before))) if chain_behind(&before) != Some(record.chain_before) => at,
                Err(HistoryError::NotHere { through, .. }) => return WatchError::NotHere { shard, through },
                _ => return WatchError::Diverged { shard, index },
            },
        };
        history.distrust(shard, after, index);
        WatchError::NotHere { shard, through: index }
    }
}

#[cfg(test)]
mod tests;
