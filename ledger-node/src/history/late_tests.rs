//! A store that opens only after states were restored: nothing that lies in it is given up or forgotten meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::memory::MemoryStore;
use super::store::{Mark, Note, Ready, RecordStore, Stored};
use super::tests::{KEEP, chain_of};
use super::*;

/// A store in memory that is not open yet.
struct Late {
    inner: Arc<MemoryStore>,
    opens: AtomicBool,
    open: AtomicBool,
    removes: AtomicBool,
}

impl Late {
    fn of(inner: Arc<MemoryStore>) -> Arc<Self> {
        let (opens, open, removes) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(true));
        Arc::new(Self { inner, opens, open, removes })
    }
    fn check(&self) -> io::Result<()> {
        match self.open.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl RecordStore for Late {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        self.check()?;
        self.inner.put(records)
    }
    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        self.check()?;
        self.inner.range(shard, from, through, bounds)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        self.check()?;
        self.inner.last_up_to(shard, index)
    }
    fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>> {
        self.check()?;
        self.inner.marks(shard, from, through, max)
    }
    fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>> {
        self.check()?;
        self.inner.last_index(shard, index)
    }
    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        self.check()?;
        match self.removes.load(Ordering::Relaxed) {
            true => self.inner.remove(shard, from, through, max),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        if self.is_unopened() { Ok(Vec::new()) } else { self.inner.notes() }
    }
    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.check()?;
        self.inner.put_note(shard, note)
    }
    fn sync(&self) -> io::Result<()> {
        self.check()?;
        self.inner.sync()
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn is_unopened(&self) -> bool {
        !self.open.load(Ordering::Relaxed)
    }
    fn ready(&self) -> io::Result<Ready> {
        if !self.opens.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(Ready::Again)
    }
}

fn indexes(history: &dyn History, shard: u32) -> Vec<u64> {
    let all = PageBounds { records: 1_000, bytes: usize::MAX };
    history.read(shard, 2, all).expect("readable").records.iter().map(|(index, _)| *index).collect()
}

#[test]
fn a_store_counts_as_unopened_until_all_of_it_was_compared_with_the_states() {
    let chain = chain_of(1, 30);
    let inner = MemoryStore::new();
    let before = KeptHistory::inline(inner.clone(), KEEP).expect("empty");
    before.begin(1, 0, chain.chains[0]);
    // The state is restored as of 20; what lies behind it has to be removed from the store.
    chain.append(&*before, 1, 1..=25);

    let store = Late::of(inner.clone());
    let history = KeptHistory::unwritten(store.clone(), KEEP);
    history.begin(1, 20, chain.chains[20]);
    chain.append(&history, 1, 21..=30);
    assert!(history.open_late().is_err(), "there is no space yet");
    store.opens.store(true, Ordering::Relaxed);
    store.removes.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(history.open_late().is_err(), "it can be read, and not written");
        assert!(history.coverage(1).unopened);
        let noted = inner.notes().expect("memory");
        history.give_up_below(1, 21);
        history.distrust(1, 3, 4);
        history.begin(1, 20, chain.chains[20]);
        chain.append(&history, 1, 21..=30);
        assert_eq!(inner.notes().expect("memory"), noted, "the note in the store is the true one");
    }
    store.removes.store(true, Ordering::Relaxed);
    history.open_late().expect("it can be written");
    history.write_now();
    let kept = history.coverage(1);
    assert!(!kept.unopened && !kept.is_gapped(), "{kept:?}");
    assert_eq!(indexes(&history, 1), (2..=30).collect::<Vec<_>>());
}

#[test]
fn what_is_noted_of_a_shard_that_begins_after_the_late_opening_is_not_forgotten() {
    let chain = chain_of(2, 30);
    let inner = MemoryStore::new();
    let gap = Gap { after: 5, through: 9, chain_to: None };
    let note = Note { oldest: 3, gaps: vec![gap.clone()] };
    inner.put_note(2, &note.encode()).expect("memory");
    let stored = |index| Stored { shard: 2, index, bytes: chain.record(index).expect("a record").clone() };
    inner.put(&(3..=5).chain(10..=20).map(stored).collect::<Vec<_>>()).expect("memory");

    let store = Late::of(inner);
    let history = KeptHistory::unwritten(store.clone(), KEEP);
    store.opens.store(true, Ordering::Relaxed);
    history.open_late().expect("it opens");
    history.begin(2, 20, chain.chains[20]);
    let kept = history.coverage(2);
    assert_eq!((kept.oldest, kept.gaps), (3, vec![gap]));
}

#[test]
fn snapshots_wait_for_a_store_that_is_not_open_until_records_were_dropped() {
    let chain = chain_of(1, 30);
    let history = KeptHistory::unwritten(Late::of(MemoryStore::new()), KEEP);
    history.begin(1, 20, chain.chains[20]);
    chain.append(&history, 1, 21..=25);
    assert_eq!(history.sync_through(1, 25).expect_err("not durable").kind(), io::ErrorKind::NotConnected);
    history.drop_backlog(&mut history.lock(), "more waits than fits");
    chain.append(&history, 1, 26..=30);
    history.sync_through(1, 30).expect("what was dropped is missing whatever a snapshot does");
}
