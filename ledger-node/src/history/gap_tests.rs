//! What is missing is never passed over: after restarts, beside retention, and when peers have another history.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ledger_core::Ledger;

use super::memory::MemoryStore;
use super::store::{Mark, Note, RecordStore, Stored};
use super::tests::{Chain, KEEP, chain_of, entry_of};
use super::*;

const ALL: PageBounds = PageBounds { records: 10_000, bytes: usize::MAX };

fn stored(chain: &Chain, indexes: impl IntoIterator<Item = u64>) -> Vec<Stored> {
    let one = |index| Stored { shard: 1, index, bytes: chain.record(index).expect("a record").clone() };
    indexes.into_iter().map(one).collect()
}

/// A store with records 1 to 50 and 61 to 80, whose note names what is between as a gap (or does not).
fn with_a_hole(chain: &Chain, named: bool) -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let gap = Gap { after: 50, through: 60, chain_to: None };
    let note = Note { gaps: if named { vec![gap] } else { Vec::new() }, ..Note::default() };
    store.put_note(1, &note.encode()).expect("memory");
    store.put(&stored(chain, (2..=50).chain(61..=80))).expect("memory");
    store
}

/// Reads everything from an index on, page by page, as a consumer does: never a record that does not continue the one before. (The first
/// entry has no record.)
fn walk(history: &dyn History, chain: &Chain, from: u64) -> Result<Vec<u64>, HistoryError> {
    let from = from.max(2);
    let mut next = from;
    let mut seen = Vec::new();
    loop {
        let page = history.read(1, next, PageBounds { records: 7, bytes: usize::MAX })?;
        if page.records.is_empty() {
            return Ok(seen);
        }
        for (index, bytes) in page.records {
            assert_eq!(Some(&bytes), chain.record(index), "record {index} is the log's");
            assert_eq!(index, seen.last().map_or(from, |last| last + 1), "a record was passed over");
            seen.push(index);
        }
        next = page.next;
    }
}

#[test]
fn a_gap_above_the_restored_state_is_closed_by_the_log() {
    let chain = chain_of(1, 90);
    for named in [true, false] {
        let history = KeptHistory::inline(with_a_hole(&chain, named), KEEP).expect("a gap is no damage");
        history.begin(1, 40, chain.chains[40]);
        chain.append(&*history, 1, 41..=90);
        assert_eq!(walk(&*history, &chain, 1).expect("all is here"), (2..=90).collect::<Vec<_>>(), "named: {named}");
    }
}

#[test]
fn a_gap_above_the_restored_state_is_still_known_when_a_snapshot_ends_the_replay() {
    let chain = chain_of(1, 90);
    for named in [true, false] {
        let store = with_a_hole(&chain, named);
        let history = KeptHistory::inline(store.clone(), KEEP).expect("a gap is no damage");
        history.begin(1, 40, chain.chains[40]);
        chain.append(&*history, 1, 41..=45);
        // A peer's snapshot, before the log came to the gap; and the same after a crash.
        let again = KeptHistory::inline(store, KEEP).expect("a gap is no damage");
        for history in [history, again] {
            history.begin(1, 70, chain.chains[70]);
            chain.append(&*history, 1, 71..=90);
            let refused = walk(&*history, &chain, 46);
            assert!(matches!(refused, Err(HistoryError::NotHere { through: 70, .. })), "named: {named}: {refused:?}");
            assert_eq!(walk(&*history, &chain, 71).expect("here").last(), Some(&90));
        }
    }
}

/// What happens once, in the middle of a look at the store.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// A store in which something happens between a reader's look at the state and its look at the records.
struct Interrupted {
    inner: Arc<MemoryStore>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Interrupted {
    fn interrupt(&self) {
        let meanwhile = self.meanwhile.lock().expect("never poisoned").take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

macro_rules! through_inner {
    ($($name:ident($($arg:ident: $of:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $of),*) -> $out { self.inner.$name($($arg),*) })*
    };
}

impl RecordStore for Interrupted {
    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        self.interrupt();
        self.inner.range(shard, from, through, bounds)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        self.interrupt();
        self.inner.last_up_to(shard, index)
    }
    through_inner! {
        put(records: &[Stored]) -> io::Result<()>;
        remove(shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize>;
        notes() -> io::Result<Vec<(u32, Vec<u8>)>>;
        put_note(shard: u32, note: &[u8]) -> io::Result<()>;
        marks(shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>>;
        last_index(shard: u32, index: u64) -> io::Result<Option<u64>>;
        sync() -> io::Result<()>;
        size() -> u64;
    }
}

#[test]
fn a_reader_that_retention_overtakes_is_told_that_it_is_too_old() {
    let chain = chain_of(1, 40);
    let store = Arc::new(Interrupted { inner: MemoryStore::new(), meanwhile: Mutex::default() });
    let history = KeptHistory::inline(store.clone(), KEEP).expect("empty");
    history.begin(1, 0, 0);
    chain.append(&*history, 1, 1..=40);
    let drops_below = |oldest| {
        let history = history.clone();
        let meanwhile: Meanwhile = Box::new(move || history.give_up_below(1, oldest));
        *store.meanwhile.lock().expect("never poisoned") = Some(meanwhile);
    };
    drops_below(20);
    let read = history.read(1, 10, ALL);
    assert!(matches!(read, Err(HistoryError::TooOld { oldest: 20, .. })), "{read:?}");
    drops_below(30);
    let last = history.last_up_to(1, 25);
    assert!(matches!(last, Err(HistoryError::TooOld { oldest: 30, .. })), "{last:?}");
}

#[test]
fn a_reader_that_a_restored_state_overtakes_is_handed_nothing_that_state_does_not_have() {
    let chain = chain_of(1, 40);
    let store = Arc::new(Interrupted { inner: MemoryStore::new(), meanwhile: Mutex::default() });
    let history = KeptHistory::inline(store.clone(), KEEP).expect("empty");
    history.begin(1, 0, 0);
    chain.append(&*history, 1, 1..=40);
    let restored = {
        let history = history.clone();
        let meanwhile: Meanwhile = Box::new(move || history.begin(1, 25, 7));
        meanwhile
    };
    *store.meanwhile.lock().expect("never poisoned") = Some(restored);
    let read = history.read(1, 10, ALL);
    assert!(matches!(read, Err(HistoryError::NotHere { through: 25, .. })), "{read:?}");
}

/// The records of a replica that went another way behind index 20: entry 21 changed nothing there, so that all behind it differ. With them
/// comes the chain value at index 30.
fn of_another_way() -> (Vec<(u64, Bytes)>, u128) {
    let mut ledger = Ledger::new(1, 1, ledger_core::IndexSeed(7));
    let (mut records, mut chain) = (Vec::new(), 0);
    for index in (1..=30).filter(|index| *index != 21) {
        let applied = ledger.apply(1, index, &entry_of(1, index));
        records.extend(applied.record.map(|record| (index, record)));
        chain = ledger.chain();
    }
    (records, chain)
}

#[test]
fn records_of_a_peer_that_went_another_way_are_never_handed_out_and_leave_nothing_behind() {
    let wrong = chain_of(1, 30).records;
    let (right, chain) = of_another_way();
    assert!(wrong[..19] == right[..19] && wrong[20] != right[19]);
    let history = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
    history.begin(1, 0, 0);
    right[..9].iter().for_each(|(index, record)| history.append(1, *index, Some(record)));
    history.begin(1, 30, chain);
    history.fill(1, &wrong[9..25], 26).expect("they continue the chain");
    let read = history.read(1, 22, ALL);
    assert!(matches!(read, Err(HistoryError::NotHere { .. })), "not proved yet: {read:?}");
    assert!(history.fill(1, &wrong[25..], 30).is_err(), "they do not end with the chain value behind the gap");
    history.fill(1, &right[9..], 30).expect("the right ones");
    assert_eq!(history.read(1, 1, ALL).expect("all is here").records, right);
}

#[tokio::test]
async fn what_all_peers_lost_is_given_up_after_they_said_so_often_enough() {
    let chain = chain_of(1, 40);
    let with_a_gap = |through: u64| -> Arc<dyn History> {
        let history = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
        history.begin(1, through, chain.chains[through as usize]);
        chain.append(&*history, 1, through + 1..=40);
        history
    };
    let (gapped, peers) = (with_a_gap(30), [with_a_gap(10), with_a_gap(20)]);
    let mut refusals = backfill::Refusals::default();
    let mut given_up = None;
    for round in 0..crate::limits::BACKFILL_MISSES {
        for (n, peer) in peers.iter().enumerate() {
            assert_eq!(given_up, None, "round {round}");
            let ask = |question: Bytes| std::future::ready(backfill::answer(&**peer, &question));
            let filled = backfill::fill_from(&gapped, 1, ask).await.expect("asked");
            given_up = refusals.take(gapped.coverage(1).wanted, n, &filled, &[0, 1]);
        }
    }
    assert_eq!(given_up, Some(11), "the first record that anybody has");
    gapped.give_up_below(1, 11);
    let read = gapped.read(1, 5, ALL);
    assert!(matches!(read, Err(HistoryError::TooOld { oldest: 11, .. })), "{read:?}");
    let ask = |question: Bytes| std::future::ready(backfill::answer(&*peers[0], &question));
    assert_eq!(backfill::fill_from(&gapped, 1, ask).await.expect("asked"), backfill::Filled::Whole);
    assert_eq!(walk(&*gapped, &chain, 11).expect("here").len(), 30);
}

#[tokio::test]
async fn a_peer_with_a_hole_that_it_does_not_know_gives_nothing_behind_it_and_learns_of_it() {
    let chain = chain_of(1, 40);
    let peer = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
    peer.begin(1, 0, 0);
    for index in (2..=40).filter(|index| !(15..=20).contains(index)) {
        peer.append(1, index, chain.record(index));
    }
    let gapped: Arc<dyn History> = {
        let history = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
        history.begin(1, 40, chain.chains[40]);
        history
    };
    let ask = |question: Bytes| std::future::ready(backfill::answer(&*peer, &question));
    let filled = backfill::fill_from(&gapped, 1, ask).await.expect("what came before the hole fits");
    assert_eq!(filled, backfill::Filled::Missing { through: 21 });
    assert_eq!(gapped.coverage(1).wanted, 15);
    assert!(peer.coverage(1).is_gapped());
}

/// One write of a store.
#[derive(Clone)]
enum Write {
    Put(Vec<Stored>),
    Remove(u64, u64, usize),
    Note(Vec<u8>),
}

/// A store that writes down what is written to it, so that the state before any write can be had again.
#[derive(Default)]
struct Journal(Mutex<Vec<Write>>);

struct Journaled {
    inner: Arc<MemoryStore>,
    journal: Arc<Journal>,
}

impl Journaled {
    fn note(&self, write: Write) {
        self.journal.0.lock().expect("never poisoned").push(write);
    }
    /// What a process that was killed before write number `writes` leaves.
    fn before(journal: &Journal, writes: usize) -> Arc<MemoryStore> {
        let store = MemoryStore::new();
        for write in &journal.0.lock().expect("never poisoned")[..writes] {
            match write {
                Write::Put(records) => store.put(records).expect("memory"),
                Write::Remove(from, through, max) => {
                    store.remove(1, *from, *through, *max).expect("memory");
                }
                Write::Note(note) => store.put_note(1, note).expect("memory"),
            }
        }
        store
    }
}

impl RecordStore for Journaled {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        // A process may be killed between any two records of a write.
        for record in records {
            self.note(Write::Put(vec![record.clone()]));
        }
        self.inner.put(records)
    }
    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        self.note(Write::Remove(from, through, max));
        self.inner.remove(shard, from, through, max)
    }
    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.note(Write::Note(note.to_vec()));
        self.inner.put_note(shard, note)
    }
    through_inner! {
        range(shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>>;
        last_up_to(shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>>;
        marks(shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>>;
        last_index(shard: u32, index: u64) -> io::Result<Option<u64>>;
        notes() -> io::Result<Vec<(u32, Vec<u8>)>>;
        sync() -> io::Result<()>;
        size() -> u64;
    }
}

/// A life with everything that writes: entries, a snapshot of a peer that leaves a gap, a fill, a damage found, a restart whose state is
/// older than the gap, retention.
fn live(store: Arc<dyn RecordStore>, chain: &Chain) {
    let history = KeptHistory::inline(store.clone(), KEEP).expect("opens");
    history.begin(1, 0, 0);
    chain.append(&*history, 1, 1..=20);
    history.begin(1, 30, chain.chains[30]);
    chain.append(&*history, 1, 31..=40);
    history.fill(1, &chain.records[19..24], 25).expect("fits");
    history.fill(1, &chain.records[24..29], 30).expect("fits");
    history.distrust(1, 34, 36);
    chain.append(&*history, 1, 41..=45);
    let again = KeptHistory::inline(store, KEEP).expect("opens");
    again.begin(1, 32, chain.chains[32]);
    chain.append(&*again, 1, 33..=50);
    again.give_up_below(1, 5);
}

#[test]
fn killed_before_any_write_and_restarted_from_any_state_history_passes_nothing_over() {
    let chain = chain_of(1, 60);
    let journal = Arc::new(Journal::default());
    live(Arc::new(Journaled { inner: MemoryStore::new(), journal: journal.clone() }), &chain);
    let writes = journal.0.lock().expect("never poisoned").len();
    assert!(writes > 60, "{writes} writes");
    for killed_at in 0..=writes {
        for state in [0u64, 10, 25, 32, 35, 41, 48, 55] {
            let store = Journaled::before(&journal, killed_at);
            let history = KeptHistory::inline(store, KEEP).expect("a kill is no damage");
            history.begin(1, state, chain.chains[state as usize]);
            chain.append(&*history, 1, state + 1..=60);
            let oldest = history.coverage(1).oldest.max(1);
            match walk(&*history, &chain, oldest) {
                Ok(seen) => assert_eq!(seen.last(), Some(&60), "killed at {killed_at}, restarted from {state}"),
                Err(HistoryError::NotHere { .. }) => {}
                Err(other) => panic!("killed at {killed_at}, restarted from {state}: {other}"),
            }
            let replayed = oldest.max(state + 1).max(2);
            let seen = walk(&*history, &chain, replayed).expect("the log says it");
            assert_eq!(seen, (replayed..=60).collect::<Vec<_>>(), "killed at {killed_at}, restarted from {state}");
        }
    }
}

/// What a process that is killed now leaves on its disk.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("a directory");
        for entry in std::fs::read_dir(from).expect("readable").map(|entry| entry.expect("readable")) {
            let to = to.join(entry.file_name());
            match entry.file_type().expect("known").is_dir() {
                true => copy(&entry.path(), &to),
                false => {
                    std::fs::copy(entry.path(), to).expect("copied");
                }
            }
        }
    }
    let target = tempfile::tempdir().expect("a directory");
    copy(dir, target.path());
    target
}

#[test]
fn killed_on_a_disk_and_restarted_from_any_state_history_passes_nothing_over() {
    let chain = chain_of(1, 80);
    let dir = tempfile::tempdir().expect("a directory");
    let history = SledHistory.open(dir.path(), KEEP).expect("new");
    let mut left = Vec::new();
    history.begin(1, 0, 0);
    chain.append(&*history, 1, 1..=30);
    left.push(copy_of(dir.path()));
    history.sync_through(1, 30).expect("durable");
    history.begin(1, 50, chain.chains[50]);
    chain.append(&*history, 1, 51..=60);
    left.push(copy_of(dir.path()));
    history.sync_through(1, 60).expect("durable");
    left.push(copy_of(dir.path()));
    history.fill(1, &chain.records[29..39], 40).expect("fits");
    left.push(copy_of(dir.path()));
    history.fill(1, &chain.records[39..49], 50).expect("fits");
    left.push(copy_of(dir.path()));
    history.give_up_below(1, 10);
    left.push(copy_of(dir.path()));
    // Pages are cut in their middle, by damage that a peer fills and by retention.
    history.distrust(1, 54, 56);
    left.push(copy_of(dir.path()));
    history.fill(1, &chain.records[53..55], 56).expect("fits");
    left.push(copy_of(dir.path()));
    history.give_up_below(1, 55);
    history.sync_through(1, 60).expect("durable");
    left.push(copy_of(dir.path()));
    history.close();
    left.push(copy_of(dir.path()));
    for (n, dir) in left.iter().enumerate() {
        for state in [0u64, 20, 45, 55, 70] {
            let dir = copy_of(dir.path());
            let history = SledHistory.open(dir.path(), KEEP).expect("opens");
            history.begin(1, state, chain.chains[state as usize]);
            chain.append(&*history, 1, state + 1..=80);
            let oldest = history.coverage(1).oldest;
            match walk(&*history, &chain, oldest) {
                Ok(seen) => assert_eq!(seen.last(), Some(&80), "copy {n}, restarted from {state}"),
                Err(HistoryError::NotHere { .. }) => {}
                Err(other) => panic!("copy {n}, restarted from {state}: {other}"),
            }
            let replayed = oldest.max(state + 1).max(2);
            let seen = walk(&*history, &chain, replayed).expect("the log says it");
            assert_eq!(seen, (replayed..=80).collect::<Vec<_>>(), "copy {n}, restarted from {state}");
            history.close();
        }
    }
}

#[test]
fn what_was_fetched_of_the_first_gap_counts_while_retention_raises_its_beginning() {
    let chain = chain_of(1, 100);
    // Stamps are 1,000 ms apart: what is kept begins at index 30.
    let keep = Retention { keep: std::time::Duration::from_secs(70), bytes_max: u64::MAX };
    let history = KeptHistory::inline(MemoryStore::new(), keep).expect("empty");
    history.begin(1, 80, chain.chains[80]);
    chain.append(&*history, 1, 81..=100);
    history.fill(1, &chain.records[..49], 50).expect("the first half");
    assert_eq!(history.coverage(1).wanted, 51);
    history.retain().expect("memory");
    let kept = history.coverage(1);
    assert_eq!((kept.oldest, kept.gaps[0].after), (30, 29), "retention dropped a part of what was fetched");
    assert_eq!(kept.wanted, 51, "and nothing behind it is fetched again");
    history.fill(1, &chain.records[49..79], 80).expect("the second half");
    assert_eq!(walk(&*history, &chain, 30).expect("all is here"), (30..=100).collect::<Vec<_>>());

    // What retention dropped beyond the fetch is not wanted any more.
    let history = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
    history.begin(1, 80, chain.chains[80]);
    history.fill(1, &chain.records[..9], 10).expect("a part");
    history.give_up_below(1, 40);
    assert_eq!(history.coverage(1).wanted, 40);
    history.fill(1, &chain.records[38..79], 80).expect("the rest");
    assert_eq!(walk(&*history, &chain, 40).expect("all is here"), (40..=80).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gap_of_which_a_peer_has_no_record_is_closed_only_where_the_chain_proves_it() {
    let chain = chain_of(1, 80);
    // What is kept begins within the gap: nothing says what its first record continues.
    let gapped = || {
        let history = KeptHistory::inline(MemoryStore::new(), KEEP).expect("empty");
        history.begin(1, 60, chain.chains[60]);
        chain.append(&*history, 1, 61..=80);
        history.give_up_below(1, 50);
        history
    };
    let history = gapped();
    let filled = history.fill(1, &[], 60);
    assert!(matches!(filled, Err(FillError::Unproved { through: 60 })), "{filled:?}");
    let read = history.read(1, 55, ALL);
    assert!(matches!(read, Err(HistoryError::NotHere { through: 60, .. })), "{read:?}");

    // A peer that has nothing there has no part in it, as one that misses it.
    let history: Arc<dyn History> = gapped();
    let empty = backfill::Given::Records { records: Vec::new(), next: 61 }.encode();
    let filled = backfill::fill_from(&history, 1, |_| std::future::ready(Ok(empty.clone()))).await.expect("asked");
    assert_eq!(filled, backfill::Filled::Missing { through: 60 });
    history.fill(1, &chain.records[48..59], 60).expect("the records themselves are the proof");
    assert_eq!(walk(&*history, &chain, 50).expect("all is here"), (50..=80).collect::<Vec<_>>());
}

/// A store of which some calls fail, as on a disk that gives errors.
struct Failing {
    inner: Arc<MemoryStore>,
    /// Records of this shard cannot be read.
    unreadable: u32,
    syncs: bool,
}

impl Failing {
    fn check(&self, shard: u32) -> io::Result<()> {
        match shard == self.unreadable {
            true => Err(io::Error::other("a bad sector")),
            false => Ok(()),
        }
    }
}

impl RecordStore for Failing {
    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        self.check(shard)?;
        self.inner.range(shard, from, through, bounds)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        self.check(shard)?;
        self.inner.last_up_to(shard, index)
    }
    fn sync(&self) -> io::Result<()> {
        match self.syncs {
            true => self.inner.sync(),
            false => Err(io::Error::other("the disk does not sync")),
        }
    }
    through_inner! {
        put(records: &[Stored]) -> io::Result<()>;
        remove(shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize>;
        notes() -> io::Result<Vec<(u32, Vec<u8>)>>;
        put_note(shard: u32, note: &[u8]) -> io::Result<()>;
        marks(shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>>;
        last_index(shard: u32, index: u64) -> io::Result<Option<u64>>;
        size() -> u64;
    }
}

#[test]
fn a_shard_that_cannot_be_read_keeps_no_other_from_being_dropped_and_is_dropped_for_room() {
    let kept_of = |keep: Retention| {
        let store = Failing { inner: MemoryStore::new(), unreadable: 1, syncs: true };
        let history = KeptHistory::inline(Arc::new(store), keep).expect("empty");
        for shard in [1, 2] {
            let chain = chain_of(shard, 100);
            history.append(shard, 1, None);
            chain.append(&*history, shard, 2..=100);
        }
        for _ in 0..3 {
            assert!(history.retain().is_err(), "it is not silent about the shard that cannot be read");
        }
        [1, 2].map(|shard| history.coverage(shard).oldest)
    };
    let keep = Retention { keep: std::time::Duration::from_secs(30), bytes_max: u64::MAX };
    assert_eq!(kept_of(keep)[1], 70);
    let keep = Retention { keep: std::time::Duration::from_secs(1 << 30), bytes_max: 1 };
    assert_eq!(kept_of(keep), [100, 100], "all but the newest record of each");
}

#[test]
fn what_a_disk_did_not_sync_is_a_gap_and_nothing_waits_for_it() {
    let chain = chain_of(1, 40);
    let store = Arc::new(Failing { inner: MemoryStore::new(), unreadable: 0, syncs: false });
    let history = KeptHistory::threaded(store, KEEP).expect("empty");
    history.begin(1, 0, 0);
    chain.append(&*history, 1, 1..=40);
    let _failed = history.sync_through(1, 40);
    let kept = history.coverage(1);
    assert_eq!((kept.durable, kept.applied), (40, 40), "the log is not kept for it: {kept:?}");
    assert_eq!(kept.gaps.iter().map(|gap| (gap.after, gap.through)).collect::<Vec<_>>(), [(0, 40)]);
    history.close();
}
