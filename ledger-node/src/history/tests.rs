//! Behaviours of history over both stores, with a chain of real records.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::types::{Policy, Sku, Slot};
use ledger_core::{Command, Entry, Ledger, LedgerTime, codec};

use super::memory::MemoryStore;
use super::store::{Mark, RecordStore, Stored};
use super::*;

pub(crate) const KEEP: Retention = Retention { keep: Duration::from_secs(1 << 30), bytes_max: u64::MAX };
const ALL: PageBounds = PageBounds { records: 10_000, bytes: usize::MAX };

/// A shard's real records: index, bytes, and the chain value behind each.
pub(crate) struct Chain {
    pub(crate) records: Vec<(u64, Bytes)>,
    pub(crate) chains: Vec<u128>,
}

/// An entry that changes something.
pub(crate) fn entry_of(shard: u32, index: u64) -> Entry {
    let command = if index == 1 {
        let all = (Slot::new(0).expect("a slot"), Slot::new(4095).expect("a slot"));
        Command::OwnSlots { generation: 1, ranges: vec![all] }
    } else {
        let sku = Sku::new(format!("SKU-{shard}-{index}")).expect("a SKU");
        Command::CreateProduct { sku, policy: Policy::default() }
    };
    Entry { stamp: LedgerTime(1_000 * index), commands: vec![command] }
}

pub(crate) fn chain_of(shard: u32, entries: u64) -> Chain {
    let mut ledger = Ledger::new(1, shard, ledger_core::IndexSeed(7));
    let mut out = Chain { records: Vec::new(), chains: vec![ledger.chain()] };
    for index in 1..=entries {
        let applied = ledger.apply(1, index, &entry_of(shard, index));
        if let Some(record) = applied.record {
            out.records.push((index, record));
        }
        out.chains.push(ledger.chain());
    }
    out
}

impl Chain {
    pub(crate) fn record(&self, index: u64) -> Option<&Bytes> {
        self.records.binary_search_by_key(&index, |(at, _)| *at).ok().map(|at| &self.records[at].1)
    }
    pub(crate) fn append(&self, history: &dyn History, shard: u32, range: std::ops::RangeInclusive<u64>) {
        for index in range {
            history.append(shard, index, self.record(index));
        }
    }
    pub(crate) fn from(&self, index: u64, through: u64) -> Vec<(u64, Bytes)> {
        self.records.iter().filter(|(at, _)| (index..=through).contains(at)).cloned().collect()
    }
}

fn read_all(history: &dyn History, shard: u32, from: u64) -> Vec<(u64, Bytes)> {
    history.read(shard, from, ALL).expect("readable").records
}

fn in_memory() -> (Arc<MemoryStore>, Arc<dyn History>) {
    let store = MemoryStore::new();
    let history = KeptHistory::inline(store.clone(), KEEP).expect("empty store");
    (store, history)
}

#[test]
fn what_was_appended_is_read_back_in_order_and_in_pages() {
    let chain = chain_of(1, 40);
    let (_, history) = in_memory();
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=40);
    assert_eq!(read_all(&*history, 1, 1), chain.records);
    let page = history.read(1, 5, PageBounds { records: 3, bytes: usize::MAX }).expect("readable");
    assert_eq!(page.records, chain.from(5, 7));
    assert_eq!(page.next, 8);
    assert_eq!(history.read(1, 41, ALL).expect("nothing yet").next, 41);
    assert!(!history.coverage(1).is_gapped());
}

#[test]
fn on_disk_it_survives_a_close_and_what_is_appended_again_is_not_told_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let chain = chain_of(2, 60);
    {
        let history = SledHistory.open(dir.path(), KEEP).expect("new");
        history.begin(2, 0, chain.chains[0]);
        chain.append(&*history, 2, 1..=50);
        history.sync_through(2, 50).expect("durable");
        assert_eq!(history.coverage(2).durable, 50);
        history.close();
    }
    let history = SledHistory.open(dir.path(), KEEP).expect("again");
    history.begin(2, 20, chain.chains[20]);
    assert!(read_all(&*history, 2, 1).iter().all(|(index, _)| *index <= 20), "not applied again yet");
    chain.append(&*history, 2, 21..=60);
    assert_eq!(read_all(&*history, 2, 1), chain.records);
    assert!(!history.coverage(2).is_gapped());
    history.close();
}

#[test]
fn a_snapshot_from_a_peer_leaves_a_gap_that_is_not_here_until_a_peer_fills_it() {
    let chain = chain_of(1, 40);
    let (_, history) = in_memory();
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=10);
    history.begin(1, 30, chain.chains[30]);
    chain.append(&*history, 1, 31..=40);
    assert_eq!(read_all(&*history, 1, 1), chain.from(1, 10), "a read stops before the gap");
    assert!(matches!(history.read(1, 11, ALL), Err(HistoryError::NotHere { after: 10, through: 30, .. })));
    assert_eq!(read_all(&*history, 1, 31), chain.from(31, 40));

    history.fill(1, &chain.from(11, 20), 20).expect("the first part continues the chain");
    assert_eq!(history.coverage(1).gaps, [Gap { after: 10, through: 30, chain_to: Some(chain.chains[30]) }]);
    assert_eq!(history.coverage(1).wanted, 21, "proved by the rest only, and so not handed out before");
    history.fill(1, &chain.from(21, 30), 30).expect("and so does the rest");
    assert_eq!(read_all(&*history, 1, 1), chain.records);
}

#[test]
fn records_that_do_not_fit_the_chain_are_not_taken() {
    let chain = chain_of(1, 40);
    let (_, history) = in_memory();
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=10);
    history.begin(1, 30, chain.chains[30]);
    // One is left out in the middle, at the beginning, at the end.
    for hole in [15, 11, 30] {
        let mut records = chain.from(11, 30);
        records.retain(|(index, _)| *index != hole);
        assert!(matches!(history.fill(1, &records, 30), Err(FillError::Unchained { .. })), "hole at {hole}");
    }
    let spoilt = vec![(11, Bytes::from_static(b"nonsense"))];
    assert!(matches!(history.fill(1, &spoilt, 11), Err(FillError::Malformed { .. })));
    assert!(matches!(history.read(1, 12, ALL), Err(HistoryError::NotHere { .. })));
}

#[tokio::test]
async fn a_gapped_node_fills_its_gap_from_a_peer_through_questions() {
    let chain = chain_of(1, 3_000);
    let (_, peer) = in_memory();
    peer.begin(1, 0, chain.chains[0]);
    chain.append(&*peer, 1, 1..=3_000);
    let (_, gapped) = in_memory();
    gapped.begin(1, 2_990, chain.chains[2_990]);
    chain.append(&*gapped, 1, 2_991..=3_000);
    let ask = |question: Bytes| {
        let given = backfill::answer(&*peer, &question);
        async move { given }
    };
    let filled = backfill::fill_from(&gapped, 1, ask).await.expect("it fits");
    assert_eq!(filled, backfill::Filled::Whole);
    assert_eq!(read_all(&*gapped, 1, 1), chain.records);
}

/// Asks this peer.
fn asks(peer: &Arc<dyn History>) -> impl FnMut(Bytes) -> std::future::Ready<io::Result<Bytes>> {
    let peer = peer.clone();
    move |question| std::future::ready(backfill::answer(&*peer, &question))
}

#[tokio::test]
async fn a_gap_ends_behind_the_last_record_though_the_restored_state_is_further() {
    let chain = chain_of(1, 19);
    let (_, peer) = in_memory();
    peer.begin(1, 0, chain.chains[0]);
    chain.append(&*peer, 1, 1..=19);
    // Entries 20 and 21 are none of the ledger's: a new leader's first, a membership. Nobody appends them, a snapshot counts them.
    let (_, gapped) = in_memory();
    gapped.begin(1, 21, chain.chains[19]);
    assert!(gapped.coverage(1).is_gapped());
    let filled = backfill::fill_from(&gapped, 1, asks(&peer)).await.expect("it fits");
    assert_eq!(filled, backfill::Filled::Whole);
    assert_eq!(gapped.read(1, 1, ALL).expect("nothing is missing").next, 22);
    assert_eq!(read_all(&*gapped, 1, 1), chain.records);

    // While a record is left, it stays a gap.
    let (_, behind) = in_memory();
    behind.begin(1, 0, chain.chains[0]);
    chain.append(&*behind, 1, 1..=18);
    let (_, gapped) = in_memory();
    gapped.begin(1, 21, chain.chains[19]);
    let filled = backfill::fill_from(&gapped, 1, asks(&behind)).await.expect("it fits");
    assert_eq!(filled, backfill::Filled::NotYet);
    assert!(matches!(gapped.read(1, 19, ALL), Err(HistoryError::NotHere { after: 0, through: 21, .. })));
}

#[tokio::test]
async fn history_that_one_peer_dropped_is_had_from_another_and_given_up_when_all_did() {
    let chain = chain_of(1, 40);
    let with_all = || {
        let (_, peer) = in_memory();
        peer.begin(1, 0, chain.chains[0]);
        chain.append(&*peer, 1, 1..=40);
        peer
    };
    let (short, shorter, whole) = (with_all(), with_all(), with_all());
    short.give_up_below(1, 10);
    shorter.give_up_below(1, 35);
    let (_, gapped) = in_memory();
    gapped.begin(1, 30, chain.chains[30]);
    chain.append(&*gapped, 1, 31..=40);

    let mut refusals = backfill::Refusals::default();
    let filled = backfill::fill_from(&gapped, 1, asks(&shorter)).await.expect("asked");
    assert_eq!(filled, backfill::Filled::TooOld { oldest: 35 });
    assert_eq!(refusals.take(0, 1, &filled, &[1, 2]), None, "another may keep it");
    let filled = backfill::fill_from(&gapped, 1, asks(&short)).await.expect("asked");
    assert_eq!(refusals.take(0, 2, &filled, &[1, 2]), Some(10), "the one that keeps most");
    assert_eq!(refusals.take(0, 2, &filled, &[1, 2, 3]), None, "a third was not asked");
    assert_eq!(refusals.take(0, 3, &backfill::Filled::NotYet, &[1, 2, 3]), None, "it may have it later");
    assert_eq!(refusals.take(0, 2, &filled, &[1, 2, 3]), None, "it still may");
    assert_eq!(refusals.take(0, 3, &backfill::Filled::Missing { through: 30 }, &[1, 2, 3]), Some(10));
    assert_eq!(refusals.take(0, 3, &backfill::Filled::NotYet, &[1, 2, 3]), None, "what it said before counts no more");
    assert_eq!(refusals.take(5, 2, &filled, &[1, 2]), None, "the gap begins elsewhere now");

    gapped.give_up_below(1, 10);
    let filled = backfill::fill_from(&gapped, 1, asks(&short)).await.expect("asked");
    assert_eq!(filled, backfill::Filled::Whole);
    assert!(matches!(gapped.read(1, 9, ALL), Err(HistoryError::TooOld { oldest: 10, .. })));
    assert_eq!(read_all(&*gapped, 1, 10), chain.from(10, 40));

    let (_, gapped) = in_memory();
    gapped.begin(1, 30, chain.chains[30]);
    backfill::fill_from(&gapped, 1, asks(&shorter)).await.expect("asked");
    backfill::fill_from(&gapped, 1, asks(&whole)).await.expect("asked");
    assert_eq!(read_all(&*gapped, 1, 1), chain.from(1, 30), "one dropped it, another has it");
}

#[tokio::test]
async fn what_was_kept_before_a_hole_that_is_given_up_stands_in_no_ones_way() {
    let chain = chain_of(1, 60);
    let (_, peer) = in_memory();
    peer.begin(1, 0, chain.chains[0]);
    chain.append(&*peer, 1, 1..=60);
    peer.give_up_below(1, 30);
    // Records 1 to 10 are here; nobody has 11 to 29 any more.
    let (store, gapped) = in_memory();
    gapped.begin(1, 0, chain.chains[0]);
    chain.append(&*gapped, 1, 1..=10);
    gapped.begin(1, 50, chain.chains[50]);
    chain.append(&*gapped, 1, 51..=60);
    let filled = backfill::fill_from(&gapped, 1, asks(&peer)).await.expect("asked");
    assert_eq!(filled, backfill::Filled::TooOld { oldest: 30 });
    gapped.give_up_below(1, 30);
    let filled =
        backfill::fill_from(&gapped, 1, asks(&peer)).await.expect("what comes now continues nothing that counts");
    assert_eq!(filled, backfill::Filled::Whole);
    assert_eq!(read_all(&*gapped, 1, 30), chain.from(30, 60));

    // A crash may leave what was to be removed.
    store.put(&[Stored { shard: 1, index: 10, bytes: chain.record(10).expect("a record").clone() }]).expect("memory");
    let again = KeptHistory::inline(store, KEEP).expect("what does not count breaks no chain");
    again.begin(1, 60, chain.chains[60]);
    assert!(!again.coverage(1).is_gapped(), "{:?}", again.coverage(1));
    assert_eq!(read_all(&*again, 1, 30), chain.from(30, 60));
}

#[test]
fn a_replica_that_diverged_gives_its_own_records_up() {
    let good = chain_of(1, 40);
    let (store, history) = in_memory();
    history.begin(1, 0, good.chains[0]);
    good.append(&*history, 1, 1..=40);
    // The state that is installed says another chain at 40: something before was different here.
    history.begin(1, 40, good.chains[40] ^ 1);
    assert!(matches!(history.read(1, 5, ALL), Err(HistoryError::NotHere { after: 0, through: 40, .. })));
    assert!(store.last_up_to(1, 40).expect("readable").is_some());
}

#[test]
fn a_restart_that_applies_something_else_than_what_lies_here_writes_that_anew() {
    let chain = chain_of(1, 40);
    let other = chain_of(7, 40);
    let (store, history) = in_memory();
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=40);
    history.sync_through(1, 40).expect("memory");
    let again = KeptHistory::inline(store, KEEP).expect("intact");
    again.begin(1, 20, chain.chains[20]);
    for index in 21..=41 {
        again.append(1, index, other.record(index));
    }
    assert_eq!(read_all(&*again, 1, 21), other.from(21, 41));
}

#[test]
fn a_hole_among_the_newest_records_is_a_gap_when_the_store_is_opened() {
    let chain = chain_of(1, 40);
    let store = MemoryStore::new();
    store.put_note(1, &store::Note::default().encode()).expect("memory");
    let records = chain.records.iter().filter(|(index, _)| *index != 30);
    let stored: Vec<Stored> =
        records.map(|(index, bytes)| Stored { shard: 1, index: *index, bytes: bytes.clone() }).collect();
    store.put(&stored).expect("memory");
    let history = KeptHistory::inline(store.clone(), KEEP).expect("a gap is no damage");
    let gap = Gap { after: 29, through: 30, chain_to: Some(chain.chains[30]) };
    assert_eq!(history.coverage(1).gaps, [gap]);
    history.begin(1, 40, chain.chains[40]);
    assert!(matches!(history.read(1, 30, ALL), Err(HistoryError::NotHere { after: 29, through: 30, .. })));
    assert_eq!(read_all(&*history, 1, 31), chain.from(31, 40));
}

/// Where some bytes lie among others.
pub(crate) fn position_of(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("they are there")
}

#[test]
fn records_that_the_disk_lost_are_a_gap_and_the_rest_of_the_store_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let chain = chain_of(1, 30);
    let history = SledHistory.open(dir.path(), KEEP).expect("new");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=30);
    history.close();
    // The bytes of record 20 are other ones.
    let path = dir.path().join("sled/records/00000001.records");
    let mut bytes = std::fs::read(&path).expect("readable");
    let at = position_of(&bytes, chain.record(20).expect("a record"));
    bytes[at + 5] ^= 0xff;
    std::fs::write(&path, bytes).expect("written");

    let history = SledHistory.open(dir.path(), KEEP).expect("a lost record is no damage of the store");
    assert!(!dir.path().join("sled.damaged-1").exists());
    history.begin(1, 30, chain.chains[30]);
    assert_eq!(read_all(&*history, 1, 1), chain.from(1, 19));
    assert!(matches!(history.read(1, 20, ALL), Err(HistoryError::NotHere { after: 19, through: 20, .. })));
    assert_eq!(read_all(&*history, 1, 21), chain.from(21, 30));
    history.fill(1, &chain.from(20, 20), 20).expect("a peer has it");
    assert_eq!(read_all(&*history, 1, 1), chain.records);
    history.close();
}

#[test]
fn retention_drops_the_oldest_and_says_so() {
    let chain = chain_of(1, 100);
    let keep = Retention { keep: Duration::from_secs(30), bytes_max: u64::MAX };
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("empty");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=100);
    history.retain().expect("memory");
    // Stamps are 1,000 ms apart: the last 30 s reach back to index 70.
    assert!(matches!(history.read(1, 69, ALL), Err(HistoryError::TooOld { oldest: 70, .. })));
    assert_eq!(read_all(&*history, 1, 70), chain.from(70, 100));
}

#[test]
fn all_that_is_old_is_dropped_in_one_turn() {
    let many = 3 * crate::limits::HISTORY_RETAIN_BATCH as u64;
    let chain = chain_of(1, many);
    let keep = Retention { keep: Duration::from_secs(30), bytes_max: u64::MAX };
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("empty");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=many);
    assert!(!history.retain().expect("memory"), "nothing is left for another turn");
    assert_eq!((history.coverage(1).oldest, history.coverage(1).kept_ms), (many - 30, 30_000));
    assert_eq!(read_all(&*history, 1, many - 30), chain.from(many - 30, many));
}

/// Two shards with so many records each, and room for half of what one of them has.
fn two_shards(many: u64, keep: Duration) -> (Arc<MemoryStore>, Arc<KeptHistory>, u64) {
    let chains = [chain_of(1, many), chain_of(2, many)];
    let half = chains[0].from(many / 2 + 1, many).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let store = MemoryStore::new();
    let history = KeptHistory::inline(store.clone(), Retention { keep, bytes_max: half }).expect("empty");
    for (shard, chain) in [(1, &chains[0]), (2, &chains[1])] {
        history.begin(shard, 0, chain.chains[0]);
        chain.append(&*history, shard, 1..=many);
    }
    (store, history, half)
}

#[test]
fn room_is_made_of_whichever_shard_reaches_back_furthest_and_of_no_more_than_is_too_much() {
    let step = crate::limits::HISTORY_RETAIN_STEP as u64;
    let many = step + step / 2;
    let (store, history, room) = two_shards(many, Duration::from_secs(1 << 30));
    assert!(!history.retain().expect("memory"));
    assert!(store.size() <= room, "{} of {room}", store.size());
    let mut oldest = [1, 2].map(|shard| history.coverage(shard).oldest);
    oldest.sort_unstable();
    assert!(oldest[0] > step && oldest[1] > step && oldest[0] < many - 100, "{oldest:?} of {many}");
    let kept = store.size();
    assert!(kept > room - room / 50, "{kept} of {room}: more was dropped than was too much");
    let kept_ms = [1, 2].map(|shard| history.coverage(shard).kept_ms);
    assert_eq!(kept_ms.iter().sum::<u64>(), 1_000 * (2 * many - oldest[0] - oldest[1]));
}

/// A store whose files are all still needed: nothing that is removed makes room.
struct Pinned {
    store: Arc<MemoryStore>,
    removed: AtomicU64,
}

impl RecordStore for Pinned {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        self.store.put(records)
    }
    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        self.store.range(shard, from, through, bounds)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        self.store.last_up_to(shard, index)
    }
    fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>> {
        self.store.marks(shard, from, through, max)
    }
    fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>> {
        self.store.last_index(shard, index)
    }
    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        let before = self.store.size();
        let removed = self.store.remove(shard, from, through, max);
        self.removed.fetch_add(before - self.store.size(), Ordering::Relaxed);
        removed
    }
    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        self.store.notes()
    }
    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.store.put_note(shard, note)
    }
    fn sync(&self) -> io::Result<()> {
        self.store.sync()
    }
    fn size(&self) -> u64 {
        self.store.size() + self.unfreed()
    }
    fn unfreed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }
}

#[test]
fn what_was_dropped_and_is_not_free_yet_is_not_dropped_again() {
    let chain = chain_of(1, 300);
    let size: u64 = chain.records.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let store = Arc::new(Pinned { store: MemoryStore::new(), removed: AtomicU64::new(0) });
    let keep = Retention { bytes_max: size - 2_000, ..KEEP };
    let history = KeptHistory::inline(store.clone(), keep).expect("empty");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=300);
    history.retain().expect("memory");
    let oldest = history.coverage(1).oldest;
    assert!((2..150).contains(&oldest) && store.unfreed() >= 2_000, "below {oldest}");
    history.retain().expect("memory");
    assert_eq!(history.coverage(1).oldest, oldest, "to drop more would free no more");
}

#[test]
fn room_is_made_of_shards_that_also_have_old_records_to_drop() {
    let many = 5_000;
    // The first ten of each are past their age.
    let (store, history, room) = two_shards(many, Duration::from_secs(many - 10));
    history.retain().expect("memory");
    assert!(store.size() <= room, "{} of {room}", store.size());
}

#[tokio::test(start_paused = true)]
async fn a_history_without_a_thread_drops_what_is_old_as_it_goes() {
    let chain = chain_of(1, 41);
    let keep = Retention { keep: Duration::from_secs(1 << 30), bytes_max: 1 };
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("empty");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=40);
    assert_eq!(history.coverage(1).oldest, 0);
    tokio::time::advance(crate::limits::HISTORY_RETAIN_EVERY).await;
    chain.append(&*history, 1, 41..=41);
    assert_eq!(history.coverage(1).oldest, 40);
    assert!(matches!(history.read(1, 1, ALL), Err(HistoryError::TooOld { oldest: 40, .. })));
    assert_eq!(read_all(&*history, 1, 40), chain.from(40, 41));
}

#[test]
fn retention_by_size_keeps_the_newest_record() {
    let chain = chain_of(1, 40);
    let keep = Retention { keep: Duration::from_secs(1 << 30), bytes_max: 1 };
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("empty");
    history.begin(1, 0, chain.chains[0]);
    chain.append(&*history, 1, 1..=40);
    history.retain().expect("memory");
    assert_eq!(history.coverage(1).oldest, 40);
    assert_eq!(read_all(&*history, 1, 40), chain.from(40, 40));

    // A shard with nothing more to drop does not stand before one that has.
    let younger = chain_of(2, 60);
    history.begin(2, 0, younger.chains[0]);
    younger.append(&*history, 2, 1..=60);
    history.give_up_below(2, 50);
    history.retain().expect("memory");
    assert_eq!(history.coverage(2).oldest, 60);
}

#[test]
fn an_unsynced_tail_is_lost_with_the_node_and_comes_back_from_the_log() {
    let disks = MemoryHistory::default();
    let dir = Path::new("node-1");
    let chain = chain_of(1, 40);
    {
        let history = disks.open(dir, KEEP).expect("new");
        history.begin(1, 0, chain.chains[0]);
        chain.append(&*history, 1, 1..=20);
        history.sync_through(1, 20).expect("memory");
        chain.append(&*history, 1, 21..=40);
    }
    let history = disks.open(dir, KEEP).expect("after the crash");
    history.begin(1, 10, chain.chains[10]);
    chain.append(&*history, 1, 11..=40);
    assert_eq!(read_all(&*history, 1, 1), chain.records);
    assert!(!history.coverage(1).is_gapped());
}

#[test]
fn the_codec_knows_our_records() {
    let chain = chain_of(1, 3);
    let (index, bytes) = chain.records.last().expect("some record");
    let record = codec::decode_record(bytes).expect("the core's own");
    assert_eq!(record.position.index, *index);
    assert_eq!(codec::chain_after(record.chain_before, bytes), chain.chains[*index as usize]);
}

#[test]
fn a_store_that_is_in_use_is_no_damage_and_a_closed_one_can_be_opened_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = SledHistory.open(dir.path(), KEEP).expect("new");
    assert!(SledHistory.open(dir.path(), KEEP).is_err(), "it is open already");
    assert!(!dir.path().join("sled.damaged-1").exists(), "and stays where it is");
    first.close();
    let again = SledHistory.open(dir.path(), KEEP).expect("although the first is still held");
    assert!(first.read(1, 1, ALL).is_ok(), "nothing was ever kept of that shard");
    again.close();
}
