//! A watcher: goes through all shards from one cursor on, and never loses a change.
//!
//! **What it is.** For each shard the watcher holds a place and a few decoded records. It reads from the ring while that
//! reaches back far enough and from history below it, checks that each record continues the chain of the one before (the first
//! one the chain value in the cursor), and fills frames of bounded size, taking shards in turn.
//!
//! **Owns** places, the order within a shard, what an error of the feed says. **Must never** pass over a record that it could not
//! read: it ends with an error that names what to do. A place moves past a record only when all of it was delivered, and never past
//! indexes behind the last record: that none is missing there is proved by the next record only.
//! **Read next**: [`super::cursor`], [`crate::history`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::select_all;
use ledger_core::change::{Change, Record};
use ledger_core::types::Sku;
use ledger_core::{LedgerTime, Position, codec};
use tokio::sync::watch;

use super::changes::concerns_product;
use super::cursor::{Cursor, CursorError, Place};
use super::{FeedRing, Reached};
use crate::history::kept::chain_behind;
use crate::history::{History, HistoryError, Page, PageBounds};
use crate::limits::{WATCH_FRAME_CHANGES, WATCH_GATHER, WATCH_IDLE, WATCH_READ_BYTES, WATCH_READ_RECORDS};

/// What a watcher reads of one shard.
#[derive(Clone)]
pub struct ShardFeed {
    /// The newest records.
    pub ring: Arc<FeedRing>,
    /// All below them.
    pub history: Arc<dyn History>,
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
    /// Decoded and not delivered yet, each with the chain value behind it; the first may be delivered in part (`place.skip`).
    waiting: VecDeque<(Record, u128)>,
    /// Records were read up to here.
    read_to: u64,
    /// The last record read, if one was.
    last: Option<u64>,
    /// The chain value that the next record must continue, if it is known.
    chain: Option<u128>,
    /// Nothing was read yet of a watch that begins at the oldest record, whichever that is then.
    at_oldest: bool,
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
            let mut changes = Vec::new();
            let order: Vec<u32> = self.in_turn();
            for shard in order {
                let Some(track) = self.tracks.get_mut(&shard) else { continue };
                track.reached.mark_unchanged();
                if let Err(why) = track.fill(shard, &self.skus, &mut changes).await {
                    // What was read before it is told first; the next call meets it again.
                    if changes.is_empty() {
                        return Err(why);
                    }
                    break;
                }
                if changes.len() >= WATCH_FRAME_CHANGES {
                    self.turn = shard;
                    break;
                }
            }
            if !changes.is_empty() {
                return Ok(self.frame(changes, BTreeMap::new()));
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
                return Ok(self.frame(changes, times));
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
        let reached = feed.ring.reached();
        Self {
            feed,
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
    async fn fill(&mut self, shard: u32, skus: &[Sku], out: &mut Vec<Told>) -> Result<(), WatchError> {
        while out.len() < WATCH_FRAME_CHANGES {
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
                self.take(shard, page)?;
                if end {
                    return Ok(());
                }
            }
            self.tell(skus, out);
        }
        Ok(())
    }

    fn tell(&mut self, skus: &[Sku], out: &mut Vec<Told>) {
        while let Some((record, chain)) = self.waiting.front() {
            let index = record.position.index;
            let skip = if self.place.next == index { self.place.skip as usize } else { 0 };
            let room = WATCH_FRAME_CHANGES - out.len();
            let mut seen = skip;
            let mut told = 0;
            for change in record.changes.iter().skip(skip) {
                if told == room {
                    break;
                }
                seen += 1;
                if skus.is_empty() || skus.iter().any(|sku| concerns_product(&change.kind, sku)) {
                    let position = Position { place: change.place, ..record.position };
                    out.push(Told { position, time: record.time, change: change.clone() });
                    told += 1;
                }
            }
            if seen < record.changes.len() {
                self.place = Place { next: index, skip: seen as u32, chain: Some(record.chain_before) };
                return;
            }
            self.place = Place { next: index + 1, skip: 0, chain: Some(*chain) };
            self.waiting.pop_front();
        }
    }

    async fn read(&self, shard: u32) -> Result<Page, WatchError> {
        let bounds = PageBounds { records: WATCH_READ_RECORDS, bytes: WATCH_READ_BYTES };
        if let Some(page) = self.feed.ring.read(self.read_to, bounds) {
            return Ok(page);
        }
        let (history, from) = (self.feed.history.clone(), self.read_to);
        let page = if history.reads_block() {
            let read = tokio::task::spawn_blocking(move || history.read(shard, from, bounds)).await;
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

    /// Decodes a page and checks its chain. Records before one that does not fit are good: they are delivered first, and the next
    /// read meets it again.
    fn take(&mut self, shard: u32, page: Page) -> Result<(), WatchError> {
        for (index, bytes) in page.records {
            let fits = |record: &Record| {
                let chained = self.chain.is_none_or(|chain| chain == record.chain_before);
                record.position.index == index && (chained || ledger_core::bad!("history-gap-forgotten"))
            };
            let Some(record) = codec::decode_record(&bytes).ok().filter(fits) else {
                let why = self.does_not_fit(shard, index, &bytes);
                self.read_to = index;
                return if self.waiting.is_empty() { Err(why) } else { Ok(()) };
            };
            // The cursor was within a record: this must be that record, and it must have so many changes.
            let (next, skip) = (self.place.next, self.place.skip as usize);
            if self.last.is_none() && skip > 0 && (index != next || skip >= record.changes.len()) {
                return Err(WatchError::Diverged { shard, index });
            }
            let chain = codec::chain_after(record.chain_before, &bytes);
            (self.chain, self.last, self.at_oldest) = (Some(chain), Some(index), false);
            self.waiting.push_back((record, chain));
        }
        self.read_to = page.next;
        Ok(())
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::memory::MemoryStore;
    use crate::history::tests::{Chain, KEEP, chain_of};
    use crate::history::{KeptHistory, Retention};

    fn shard(keep: Retention, ring_bytes: usize) -> (ShardFeed, Arc<KeptHistory>) {
        let history = KeptHistory::inline(MemoryStore::new(), keep).expect("an empty store");
        history.begin(1, 0, 0);
        (ShardFeed { ring: Arc::new(FeedRing::with_bytes(1, ring_bytes)), history: history.clone() }, history)
    }

    fn publish(feed: &ShardFeed, chain: &Chain, indexes: std::ops::RangeInclusive<u64>) {
        for index in indexes {
            let at = Position { shard: 1, index, ..Position::default() };
            feed.ring.publish(at, LedgerTime(1_000 * index), chain.record(index).cloned());
            feed.history.append(1, index, chain.record(index));
        }
    }

    fn begin(feed: &ShardFeed, from: &From) -> Result<Watcher, WatchError> {
        Watcher::begin(1, vec![feed.clone()], from, Vec::new())
    }

    fn cursor(place: Place) -> Bytes {
        Cursor { incarnation: 1, places: [(1, place)].into() }.encode()
    }

    fn at(next: u64) -> From {
        From::Cursor(cursor(Place { next, skip: 0, chain: None }))
    }

    async fn indexes(watcher: &mut Watcher, through: u64) -> Vec<u64> {
        let mut told: Vec<u64> = Vec::new();
        while told.last().is_none_or(|last| *last < through) {
            let frame = watcher.next().await.expect("the watch goes on");
            told.extend(frame.changes.iter().map(|told| told.position.index));
        }
        told
    }

    #[tokio::test]
    async fn a_slow_watcher_falls_back_from_the_ring_to_history_and_loses_nothing() {
        let chain = chain_of(1, 400);
        // The ring holds a handful of records only.
        let (feed, _) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=100);
        let mut watcher = begin(&feed, &From::Oldest).expect("begun");
        let mut told = indexes(&mut watcher, 100).await;
        publish(&feed, &chain, 101..=400);
        assert!(feed.ring.read(101, PageBounds { records: 1, bytes: 1 }).is_none(), "pushed out of the ring");
        told.extend(indexes(&mut watcher, 400).await);
        let want: Vec<u64> = chain.records.iter().map(|(index, _)| *index).collect();
        assert_eq!(told, want);
    }

    #[tokio::test]
    async fn a_cursor_below_what_is_kept_is_too_old_and_names_the_oldest() {
        let chain = chain_of(1, 100);
        let keep = Retention { keep: Duration::from_secs(30), bytes_max: u64::MAX };
        let (feed, history) = shard(keep, 1_000);
        publish(&feed, &chain, 1..=100);
        history.retain().expect("memory");
        let refused = begin(&feed, &at(5)).expect("well-formed").next().await;
        assert!(matches!(refused, Err(WatchError::TooOld { oldest: 70, .. })), "{refused:?}");
        let told = indexes(&mut begin(&feed, &at(70)).expect("kept"), 100).await;
        assert_eq!(told.first(), Some(&70));
    }

    #[tokio::test]
    async fn a_gap_and_a_record_that_does_not_fit_are_not_here_and_never_passed_over() {
        let chain = chain_of(1, 100);
        let (feed, history) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=40);
        history.begin(1, 60, chain.chains[60]);
        feed.ring.installed(
            Position { shard: 1, index: 60, ..Position::default() },
            LedgerTime(60_000),
            chain.chains[60],
        );
        publish(&feed, &chain, 61..=100);
        let mut watcher = begin(&feed, &at(30)).expect("begun");
        assert_eq!(indexes(&mut watcher, 40).await, (30..=40).collect::<Vec<_>>());
        let refused = watcher.next().await;
        assert!(matches!(refused, Err(WatchError::NotHere { through: 60, .. })), "{refused:?}");

        // One record is missing and nothing says so: the chain does.
        let (feed, history) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=20);
        for index in 22..=100 {
            feed.history.append(1, index, chain.record(index));
        }
        feed.ring.installed(
            Position { shard: 1, index: 100, ..Position::default() },
            LedgerTime(100_000),
            chain.chains[100],
        );
        let mut watcher = begin(&feed, &at(15)).expect("begun");
        assert_eq!(indexes(&mut watcher, 20).await, (15..=20).collect::<Vec<_>>(), "what is good is told first");
        let refused = watcher.next().await;
        assert!(matches!(refused, Err(WatchError::NotHere { .. })), "{refused:?}");
        assert!(history.coverage(1).is_gapped(), "and it is fetched again");
    }

    #[tokio::test]
    async fn a_cursor_resumed_where_records_were_forgotten_is_refused_and_skips_nothing() {
        let chain = chain_of(1, 40);
        let resumed =
            |next: u64| From::Cursor(cursor(Place { next, skip: 0, chain: Some(chain.chains[next as usize - 1]) }));
        // Records 21 to 30 are missing and nothing says so; the ring is empty, as after a restart.
        let (feed, history) = shard(KEEP, 1_000);
        for index in (1..=20).chain(31..=40) {
            history.append(1, index, chain.record(index));
        }
        feed.ring.installed(
            Position { shard: 1, index: 40, ..Position::default() },
            LedgerTime(40_000),
            chain.chains[40],
        );
        let refused = begin(&feed, &resumed(21)).expect("well-formed").next().await;
        assert!(matches!(refused, Err(WatchError::NotHere { .. })), "{refused:?}");
        assert!(history.coverage(1).is_gapped(), "what is missing is known from now on, and fetched");
        // In front of the hole and behind it the cursor is served.
        assert_eq!(indexes(&mut begin(&feed, &resumed(15)).expect("begun"), 20).await, (15..=20).collect::<Vec<_>>());
        assert_eq!(indexes(&mut begin(&feed, &resumed(32)).expect("begun"), 40).await, (32..=40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_cursor_of_another_chain_is_refused_by_name_and_costs_this_node_no_record() {
        let chain = chain_of(1, 40);
        let (feed, history) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=40);
        let places = [
            Place { next: 21, skip: 0, chain: Some(chain.chains[19]) },
            Place { next: 21, skip: 0, chain: Some(7) },
            Place { next: 21, skip: 5, chain: Some(chain.chains[20]) },
        ];
        for place in places {
            let refused = begin(&feed, &From::Cursor(cursor(place))).expect("well-formed").next().await;
            assert!(matches!(refused, Err(WatchError::Diverged { index: 21, .. })), "{place:?}: {refused:?}");
        }
        assert!(!history.coverage(1).is_gapped(), "a consumer's cursor is no word against what is kept here");
    }

    #[tokio::test]
    async fn a_frame_begins_where_the_one_before_ended_and_its_cursor_names_the_chain() {
        let chain = chain_of(1, 40);
        let (feed, _) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=20);
        let mut watcher = begin(&feed, &From::Oldest).expect("begun");
        let first = watcher.next().await.expect("a frame");
        publish(&feed, &chain, 21..=40);
        let second = watcher.next().await.expect("a frame");
        let at = |index: u64| Place { next: index + 1, skip: 0, chain: Some(chain.chains[index as usize]) };
        assert_eq!(first.spans, [Span { shard: 1, from: Place::FIRST, to: at(20) }]);
        assert_eq!(second.spans, [Span { shard: 1, from: at(20), to: at(40) }]);
        assert_eq!(Cursor::decode(&second.cursor).expect("ours").places, [(1, at(40))].into());
        let now = begin(&feed, &From::Now).expect("begun");
        assert_eq!(Cursor::decode(&now.cursor()).expect("ours").places, [(1, at(40))].into());
    }

    #[tokio::test]
    async fn a_cursor_that_does_not_name_a_shard_begins_at_its_first_record_or_is_too_old() {
        let chain = chain_of(1, 100);
        let keep = Retention { keep: Duration::from_secs(30), bytes_max: u64::MAX };
        let (feed, history) = shard(keep, 1_000);
        publish(&feed, &chain, 1..=100);
        let unnamed = From::Cursor(Cursor { incarnation: 1, places: BTreeMap::new() }.encode());
        // The first entry has no record.
        assert_eq!(indexes(&mut begin(&feed, &unnamed).expect("begun"), 100).await.first(), Some(&2));
        history.retain().expect("memory");
        let refused = begin(&feed, &unnamed).expect("well-formed").next().await;
        assert!(matches!(refused, Err(WatchError::TooOld { oldest: 70, .. })), "{refused:?}");
        // Who asks for the oldest begins there, also when that was dropped meanwhile.
        assert_eq!(indexes(&mut begin(&feed, &From::Oldest).expect("begun"), 100).await.first(), Some(&70));
    }

    #[tokio::test]
    async fn while_nothing_happens_the_shards_times_are_told() {
        let chain = chain_of(1, 10);
        let (feed, _) = shard(KEEP, 1_000);
        publish(&feed, &chain, 1..=10);
        let mut watcher = begin(&feed, &From::Now).expect("begun");
        let idle = watcher.next().await.expect("a frame");
        assert!(idle.changes.is_empty());
        assert_eq!(idle.times, [(1, LedgerTime(10_000))].into());
    }
}
