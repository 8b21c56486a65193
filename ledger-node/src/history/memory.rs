//! History in memory: the simulated twin. It survives a restart of its node, without what was not synced.
//!
//! **Owns** nothing that outlives the process. **Must never** start a thread. **Read next**: [`super::kept`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::store::{Mark, RecordStore, Stored};
use super::{History, HistoryFactory, KeptHistory, PageBounds, Retention};

/// Opens histories in memory, one a directory name. Clones share them, as if they were one disk.
#[derive(Clone, Default)]
pub struct MemoryHistory {
    disks: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryStore>>>>,
}

impl MemoryHistory {
    /// An independent copy as it is now, with what was not synced.
    pub fn fork(&self) -> Self {
        let disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let copies = disks.iter().map(|(dir, store)| (dir.clone(), store.copy()));
        Self { disks: Arc::new(Mutex::new(copies.collect())) }
    }

    /// Everything is as it was when `then` was forked from this. Histories that are open do not
    /// notice: their process must have ended.
    pub fn restore(&self, then: &Self) {
        let older = then.fork();
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        *disks = std::mem::take(&mut *older.disks.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl HistoryFactory for MemoryHistory {
    fn open(&self, dir: &Path, keep: Retention) -> io::Result<Arc<dyn History>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = disks.get(dir).map(|store| store.survivors()).unwrap_or_default();
        let store = Arc::new(MemoryStore { inner: Mutex::new(Inner { present: synced.clone(), synced }) });
        disks.insert(dir.to_owned(), store.clone());
        Ok(KeptHistory::inline(store, keep)?)
    }
}

#[derive(Clone, Default)]
struct Contents {
    records: BTreeMap<(u32, u64), Bytes>,
    notes: BTreeMap<u32, Vec<u8>>,
}

struct Inner {
    present: Contents,
    synced: Contents,
}

/// The map itself; what was synced is kept apart, and is what a crash leaves.
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
}

impl MemoryStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { present: Contents::default(), synced: Contents::default() }) })
    }
    fn copy(&self) -> Arc<Self> {
        let (present, synced) = self.with(|inner| (inner.present.clone(), inner.synced.clone()));
        Arc::new(Self { inner: Mutex::new(Inner { present, synced }) })
    }
    fn survivors(&self) -> Contents {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).synced.clone()
    }
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RecordStore for MemoryStore {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        self.with(|inner| {
            for record in records {
                inner.present.records.insert((record.shard, record.index), record.bytes.clone());
            }
        });
        Ok(())
    }

    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        if from > through {
            return Ok(Vec::new());
        }
        Ok(self.with(|inner| {
            let mut bytes = 0;
            let mut out = Vec::new();
            for (&(_, index), record) in inner.present.records.range((shard, from)..=(shard, through)) {
                if out.len() >= bounds.records || (bytes >= bounds.bytes && !out.is_empty()) {
                    break;
                }
                bytes += record.len();
                out.push((index, record.clone()));
            }
            out
        }))
    }

    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        Ok(self.with(|inner| {
            let found = inner.present.records.range((shard, 0)..=(shard, index)).next_back();
            found.map(|(&(_, index), bytes)| (index, bytes.clone()))
        }))
    }

    fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>> {
        if from > through {
            return Ok(Vec::new());
        }
        Ok(self.with(|inner| {
            let range = inner.present.records.range((shard, from)..=(shard, through));
            range.take(max).map(|(&(_, index), bytes)| Mark::of(index, bytes)).collect()
        }))
    }

    fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>> {
        let last =
            |inner: &mut Inner| inner.present.records.range((shard, 0)..=(shard, index)).next_back().map(|(k, _)| k.1);
        Ok(self.with(last))
    }

    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        if from > through {
            return Ok(0);
        }
        Ok(self.with(|inner| {
            let doomed: Vec<_> =
                inner.present.records.range((shard, from)..=(shard, through)).take(max).map(|(&key, _)| key).collect();
            for key in &doomed {
                inner.present.records.remove(key);
            }
            doomed.len()
        }))
    }

    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        Ok(self.with(|inner| inner.present.notes.iter().map(|(&shard, note)| (shard, note.clone())).collect()))
    }

    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.with(|inner| inner.present.notes.insert(shard, note.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|inner| inner.synced = inner.present.clone());
        Ok(())
    }

    fn size(&self) -> u64 {
        self.with(|inner| inner.present.records.values().map(|record| record.len() as u64).sum())
    }
}
