//! Behaviours of a watcher over a chain of real records.

use std::time::Duration;

use ledger_core::types::Policy;
use ledger_core::{Command, Entry, Ledger};

use super::*;
use crate::feed::distance::WatchDistance;
use crate::history::memory::MemoryStore;
use crate::history::tests::{Chain, KEEP, chain_of, entry_of};
use crate::history::{KeptHistory, Retention};
use crate::limits::{FEED_RING_BYTES, WATCH_READS_AT_ONCE, WATCH_TURNS_AT_ONCE};

fn shard(keep: Retention, ring_bytes: usize) -> (ShardFeed, Arc<KeptHistory>) {
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("an empty store");
    history.begin(1, 0, 0);
    (
        ShardFeed {
            ring: Arc::new(FeedRing::with_bytes(1, ring_bytes)),
            history: history.clone(),
            pace: ReadPace::default(),
        },
        history,
    )
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
    let mut seen: Vec<u64> = Vec::new();
    while seen.last().is_none_or(|last| *last < through) {
        let frame = watcher.next().await.expect("the watch goes on");
        seen.extend(frame.changes.iter().map(|seen| seen.position.index));
    }
    seen
}

#[tokio::test]
async fn a_slow_watcher_falls_back_from_the_ring_to_history_and_loses_nothing() {
    let chain = chain_of(1, 400);
    // The ring holds a handful of records only.
    let (feed, _) = shard(KEEP, 1_000);
    publish(&feed, &chain, 1..=100);
    let mut watcher = begin(&feed, &From::Oldest).expect("begun");
    let mut seen = indexes(&mut watcher, 100).await;
    publish(&feed, &chain, 101..=400);
    assert!(feed.ring.read(101, PageBounds { records: 1, bytes: 1 }).is_none(), "pushed out of the ring");
    seen.extend(indexes(&mut watcher, 400).await);
    let want: Vec<u64> = chain.records.iter().map(|(index, _)| *index).collect();
    assert_eq!(seen, want);
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
    let seen = indexes(&mut begin(&feed, &at(70)).expect("kept"), 100).await;
    assert_eq!(seen.first(), Some(&70));
}

#[tokio::test]
async fn a_watch_that_stands_still_is_warned_of_before_retention_ends_it() {
    let chain = chain_of(1, 300);
    let keep = Retention { keep: Duration::from_secs(100), bytes_max: u64::MAX };
    let (feed, history) = shard(keep, 1_000);
    publish(&feed, &chain, 1..=150);
    history.retain().expect("memory");
    let distance = || WatchDistance::of(&feed.ring, &history.coverage(1));
    let warned = || distance().and_then(|distance| distance.warning()).is_some();
    let mut watcher = begin(&feed, &at(50)).expect("kept");
    assert_eq!(distance(), None, "it has read nothing");
    indexes(&mut watcher, 150).await;
    // Stamps are 1,000 ms apart, and 100 s are kept: from 50 on.
    assert_eq!((distance().expect("a watch").left_ms, warned()), (100_000, false));
    let grows = |from, through| {
        publish(&feed, &chain, from..=through);
        history.retain().expect("memory");
        (distance().expect("a watch").left_ms, warned())
    };
    assert_eq!(grows(151, 240), (10_000, false));
    assert_eq!(grows(241, 241), (9_000, true), "within the oldest tenth");
    assert_eq!(grows(242, 251), (0, true), "it may be cut off now");
    let other = begin(&feed, &at(151)).expect("kept");
    drop(other);
    assert!(warned(), "one that ends is not one that went on");
    let mut frame = watcher.next().await;
    while let Ok(Frame { changes, .. }) = &frame
        && changes.last().is_none_or(|change| change.position.index < 251)
    {
        frame = watcher.next().await;
    }
    assert!(frame.is_ok() && !warned(), "it went on: {frame:?}");
    drop(watcher);
    assert_eq!(distance(), None);
}

#[tokio::test]
async fn a_gap_and_a_record_that_does_not_fit_are_not_here_and_never_passed_over() {
    let chain = chain_of(1, 100);
    let (feed, history) = shard(KEEP, 1_000);
    publish(&feed, &chain, 1..=40);
    history.begin(1, 60, chain.chains[60]);
    feed.ring.installed(Position { shard: 1, index: 60, ..Position::default() }, LedgerTime(60_000), chain.chains[60]);
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
    assert_eq!(indexes(&mut watcher, 20).await, (15..=20).collect::<Vec<_>>(), "what is good comes first");
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
    feed.ring.installed(Position { shard: 1, index: 40, ..Position::default() }, LedgerTime(40_000), chain.chains[40]);
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
async fn frames_of_large_records_are_small() {
    let mut ledger = Ledger::new(1, 1, ledger_core::IndexSeed(7));
    let large = |n: u32| {
        let sku = Sku::new(format!("{n:0>64}")).expect("a SKU");
        Command::CreateProduct { sku, policy: Policy::default() }
    };
    let entries = [entry_of(1, 1), Entry { stamp: LedgerTime(2_000), commands: (0..3_000).map(large).collect() }];
    let (feed, _) = shard(KEEP, FEED_RING_BYTES);
    for (index, entry) in (1..).zip(&entries) {
        let record = ledger.apply(1, index, entry).record;
        feed.ring.publish(Position { shard: 1, index, ..Position::default() }, entry.stamp, record);
    }
    let mut watcher = begin(&feed, &From::Oldest).expect("begun");
    let (mut places, mut frames) = (Vec::new(), 0);
    while places.len() < 3_000 {
        let frame = watcher.next().await.expect("the watch goes on");
        let wire = |seen: &Told| ledger_proto::feed::change_to_wire(seen.position, seen.time, &seen.change);
        let bytes: usize = frame.changes.iter().map(|seen| prost::Message::encoded_len(&wire(seen))).sum();
        assert!((1..=WATCH_FRAME_BYTES).contains(&bytes), "{bytes}");
        places.extend(frame.changes.iter().map(|seen| seen.position.place));
        frames += 1;
        // Where a frame ends within a record another watcher goes on.
        watcher = begin(&feed, &From::Cursor(frame.cursor)).expect("begun");
    }
    assert_eq!(places, (0..3_000).collect::<Vec<u16>>());
    assert!(frames > 3_000 / WATCH_FRAME_CHANGES + 1, "{frames} frames");
    assert_eq!(feed.ring.decoded().held().0, 1);
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

/// Many that have something to do, on one thread: what happens between two turns of somebody else.
async fn begin_many(feed: &ShardFeed, count: usize) -> (tokio::task::JoinSet<()>, Arc<std::sync::atomic::AtomicUsize>) {
    let (mut watching, frames) = (tokio::task::JoinSet::new(), Arc::<std::sync::atomic::AtomicUsize>::default());
    for _ in 0..count {
        let mut watcher = begin(feed, &From::Oldest).expect("begun");
        let frames = frames.clone();
        watching.spawn(async move {
            drop(watcher.next().await.expect("a frame"));
            frames.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
    }
    (watching, frames)
}

#[tokio::test]
async fn watchers_make_their_frames_one_after_the_other_and_other_work_comes_in_between() {
    let chain = chain_of(1, 100);
    let (feed, _) = shard(KEEP, FEED_RING_BYTES);
    publish(&feed, &chain, 1..=100);
    let (watching, frames) = begin_many(&feed, 64).await;
    let (mut before, mut most) = (0, 0);
    while before < 64 {
        tokio::task::yield_now().await;
        let now = frames.load(std::sync::atomic::Ordering::SeqCst);
        most = most.max(now - before);
        before = now;
    }
    watching.join_all().await;
    assert!(most <= WATCH_TURNS_AT_ONCE + 1, "{most} frames without a turn of another task");
}

/// History on a disk: counts how many read at once, and lets nobody go on before as many wait as may.
struct SlowHistory {
    kept: Arc<KeptHistory>,
    reading: std::sync::atomic::AtomicUsize,
    most: std::sync::atomic::AtomicUsize,
}

impl History for SlowHistory {
    fn begin(&self, shard: u32, at: u64, chain: u128) {
        self.kept.begin(shard, at, chain);
    }
    fn append(&self, shard: u32, index: u64, record: Option<&Bytes>) {
        self.kept.append(shard, index, record);
    }
    fn sync_through(&self, shard: u32, index: u64) -> std::io::Result<()> {
        self.kept.sync_through(shard, index)
    }
    fn read(&self, shard: u32, from: u64, bounds: PageBounds) -> Result<Page, HistoryError> {
        use std::sync::atomic::Ordering::SeqCst;
        let reading = self.reading.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(reading, SeqCst);
        // Time for others to come, if they may.
        (0..1_000).for_each(|_| std::thread::yield_now());
        let page = self.kept.read(shard, from, bounds);
        self.reading.fetch_sub(1, SeqCst);
        page
    }
    fn record_at(&self, shard: u32, index: u64) -> Result<Option<Bytes>, HistoryError> {
        self.kept.record_at(shard, index)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> Result<Option<(u64, Bytes)>, HistoryError> {
        self.kept.last_up_to(shard, index)
    }
    fn fits_ms(&self) -> u64 {
        self.kept.fits_ms()
    }
    fn coverage(&self, shard: u32) -> crate::history::Coverage {
        self.kept.coverage(shard)
    }
    fn fill(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), crate::history::FillError> {
        self.kept.fill(shard, records, through)
    }
    fn distrust(&self, shard: u32, after: u64, through: u64) {
        self.kept.distrust(shard, after, through);
    }
    fn give_up_below(&self, shard: u32, oldest: u64) {
        self.kept.give_up_below(shard, oldest);
    }
    fn reads_block(&self) -> bool {
        true
    }
    fn close(&self) {
        self.kept.close();
    }
}

#[tokio::test]
async fn watchers_read_history_a_few_at_a_time() {
    let chain = chain_of(1, 100);
    let (mut feed, kept) = shard(KEEP, 1_000);
    publish(&feed, &chain, 1..=100);
    let slow = Arc::new(SlowHistory { kept, reading: 0.into(), most: 0.into() });
    feed.history = slow.clone();
    let (watching, _) = begin_many(&feed, 32).await;
    watching.join_all().await;
    let most = slow.most.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..=WATCH_READS_AT_ONCE).contains(&most), "{most} at once");
}
