//! openraft's log storage over a group's part of the shared log.
//!
//! **Owns** the translation of entries, votes and log ids to the log's opaque heads, and the largest stamp seen.
//! **Must never** tell openraft that an entry is durable before the log says so, or fail an append for want of space (the
//! log withholds instead). **Read next**: [`crate::wal`], [`crate::codec`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::codec;
use crate::limits::{APPEND_BYTES_SOFT, APPLY_READ_ENTRIES};
use crate::machine::Progress;
use crate::remember::Memory;
use crate::types::{Entry, LogId, Types, Vote, log_id};
use crate::wal::{GroupLog, WalEntry};

/// Log storage and reader of one group; a cheap handle.
#[derive(Clone)]
pub(crate) struct Store {
    log: GroupLog,
    progress: Arc<Progress>,
    memory: Option<Arc<Memory>>,
}

fn id_bytes(id: &LogId) -> Bytes {
    let mut b = BytesMut::new();
    codec::put_log_id(&mut b, Some(id));
    b.freeze()
}

fn vote_bytes(vote: &Vote) -> Bytes {
    let mut b = BytesMut::new();
    codec::put_vote(&mut b, vote);
    b.freeze()
}

pub(crate) fn to_wal(entry: &Entry) -> WalEntry {
    let (head, data) = codec::entry_parts(entry);
    WalEntry { index: entry.log_id.index, head: Bytes::copy_from_slice(&head), data }
}

fn from_wal(e: WalEntry) -> io::Result<Entry> {
    let entry = codec::entry_of_parts(&e.head, e.data)?;
    if entry.log_id.index != e.index {
        return Err(codec::malformed("log entry: its head names another index"));
    }
    Ok(entry)
}

/// The log id in an entry's head.
fn head_id(head: &Bytes) -> io::Result<LogId> {
    let (term, index) = codec::head_position(head)?;
    Ok(log_id(term, index))
}

impl Store {
    pub(crate) fn new(log: GroupLog, progress: Arc<Progress>) -> Self {
        Self { log, progress, memory: None }
    }

    /// Notes in this memory what is durable here.
    pub(crate) fn noting_in(self, memory: Arc<Memory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Reads what consensus keeps beside the entries. What cannot be decoded is damage of the log:
    /// its checksums are right, and it is not what was saved.
    pub(crate) fn check(&self) -> io::Result<()> {
        let state = self.log.state();
        let read = self.ends().map(drop).and_then(|()| self.vote().map(drop));
        let committed = state.committed.map(|mut b| codec::take_log_id(&mut b)).transpose();
        read.and(committed.map(drop)).inspect_err(|e| self.log.mark_damaged(&e.to_string()))
    }

    pub(crate) fn log(&self) -> &GroupLog {
        &self.log
    }

    /// Last index and what is purged, without reading an entry.
    pub(crate) fn ends(&self) -> io::Result<(Option<LogId>, Option<LogId>)> {
        let state = self.log.state();
        let purged = match &state.purged {
            Some((_, id)) => codec::take_log_id(&mut id.clone())?,
            None => None,
        };
        let last = match &state.last_head {
            Some(head) => Some(head_id(head)?),
            None => purged,
        };
        Ok((purged, last))
    }

    /// The log id of an entry, if it is there; it must not be purged.
    pub(crate) fn id_at(&self, index: u64) -> io::Result<Option<LogId>> {
        self.log.read(index, index, 0)?.first().map(|entry| head_id(&entry.head)).transpose()
    }

    /// Purges the log through a snapshot's end, which may lie beyond the last entry; durable on return.
    pub(crate) async fn drop_through(&self, last: &LogId) -> io::Result<()> {
        self.log.purge(last.index, id_bytes(last)).await
    }

    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        self.log.state().vote.map(|v| codec::take_vote(&mut v.clone())).transpose()
    }

    pub(crate) async fn put_vote(&self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(vote_bytes(vote)).await
    }

    /// Raises the largest stamp to that of the last stamped entry in the log.
    pub(crate) fn load_stamp(&self) -> io::Result<()> {
        let (purged, last) = self.ends()?;
        let first = purged.map_or(0, |id| id.index + 1);
        let Some(last) = last else { return Ok(()) };
        let mut upto = last.index + 1;
        // Entries without a stamp are openraft's own and few in a row.
        while upto > first {
            let from = upto.saturating_sub(64).max(first);
            for e in self.read(from, upto - 1)?.into_iter().rev() {
                if let EntryPayload::Normal(d) = e.payload {
                    self.progress.stamp_ms.fetch_max(d.stamp_ms, Ordering::Relaxed);
                    return Ok(());
                }
            }
            upto = from;
        }
        Ok(())
    }

    /// All entries of `from..=to` that are there.
    pub(crate) fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        let mut next = from;
        while next <= to {
            let some = self.log.read(next, to, APPEND_BYTES_SOFT)?;
            if some.is_empty() {
                break;
            }
            for e in some {
                out.push(self.entry(e)?);
                next += 1;
            }
        }
        Ok(out)
    }

    /// Some entries of `from..=to`, at least one if there is one.
    pub(crate) fn read_some(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        self.log.read(from, to, bytes_max)?.into_iter().map(|e| self.entry(e)).collect()
    }

    /// An entry whose head cannot be decoded is damage of the log.
    fn entry(&self, e: WalEntry) -> io::Result<Entry> {
        let index = e.index;
        from_wal(e).inspect_err(|e| self.log.mark_damaged(&format!("entry {index}: {e}")))
    }

    /// The range clamped to what is there.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> io::Result<Option<(u64, u64)>> {
        let (purged, last) = self.ends()?;
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        let from = from.max(purged.map_or(0, |id| id.index + 1));
        let end = end.min(last.map_or(0, |id| id.index + 1));
        Ok((from < end).then(|| (from, end - 1)))
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let Some((from, to)) = self.clamp(&range)? else { return Ok(Vec::new()) };
        // A log may begin above 0 without a purge mark, and a purge may overtake this call: what is gone at the
        // beginning is left out.
        for from in from..=to {
            match self.read(from, to) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => return done,
            }
        }
        Ok(Vec::new())
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        // In pieces: after a restart the range may be the whole log.
        let store = self.clone();
        let (next, to, failed) = match self.clamp(&range) {
            Ok(Some((from, to))) => (from, Some(to), None),
            Ok(None) => (0, None, None),
            Err(e) => (0, None, Some(e)),
        };
        let pieces = stream::unfold((next, to, failed), move |(next, to, failed)| {
            let store = store.clone();
            async move {
                if let Some(e) = failed {
                    return Some((vec![Err(e)], (0, None, None)));
                }
                let to = to.filter(|to| next <= *to)?;
                match store.read_some(next, to.min(next + APPLY_READ_ENTRIES - 1), APPEND_BYTES_SOFT) {
                    Ok(some) if some.is_empty() => None,
                    Ok(some) => {
                        let next = next + some.len() as u64;
                        Some((some.into_iter().map(Ok).collect(), (next, Some(to), None)))
                    }
                    Err(e) => Some((vec![Err(e)], (0, None, None))),
                }
            }
        });
        use futures::StreamExt;
        pieces.flat_map(stream::iter)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.read_some(start, end - 1, APPEND_BYTES_SOFT)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let (last_purged_log_id, last_log_id) = self.ends()?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.put_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = &committed {
            self.log.save_committed(id_bytes(id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.log.state().committed.map(|mut b| codec::take_log_id(&mut b)).transpose()?.flatten();
        // What was saved may be newer than what survived: entries beyond the log are not committed knowledge.
        let (_, last) = self.ends()?;
        Ok(committed.filter(|c| Some(*c) <= last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut last = None;
        let entries: Vec<WalEntry> = entries
            .into_iter()
            .map(|e| {
                last = Some(e.log_id);
                if let EntryPayload::Normal(d) = &e.payload {
                    self.progress.stamp_ms.fetch_max(d.stamp_ms, Ordering::Relaxed);
                }
                to_wal(&e)
            })
            .collect();
        if entries.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let memory = self.memory.clone();
        let done = move |done: io::Result<()>| {
            if let (Ok(()), Some(memory), Some(last)) = (&done, memory, last) {
                memory.is_durable_here(last);
            }
            callback.io_completed(done);
        };
        self.log.append(entries, Box::new(done))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last.map(|id| id.index)).await
    }

    /// Does not wait for the disk. openraft awaits this in its core, which sends no heartbeat meanwhile: behind a disk that stalls,
    /// a purge would cost the leader its lease. A crash that forgets the purge leaves entries that the snapshot covers, and the
    /// start drops them where they contradict it.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge_later(upto.index, id_bytes(&upto))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};

    use super::*;
    use crate::api::{GroupId, NodeId};
    use crate::disk::SimDisk;
    use crate::machine::{Machine, Origin};
    use crate::snapshot::SnapshotStore;
    use crate::testing::Nothing;
    use crate::wal::{Wal, WalConfig, WalIdentity};

    struct OnSimDisk;
    impl StoreBuilder<Types, Store, Machine, Wal> for OnSimDisk {
        async fn build(&self) -> Result<(Wal, Store, Machine), StorageError<Types>> {
            let disk: Arc<dyn crate::seam::Disk> = Arc::new(SimDisk::new(1));
            let (cluster, incarnation, node) = ([1; 16], 1, NodeId(0));
            let config = WalConfig {
                segment_bytes: 1 << 20,
                low_space_bytes: 0,
                entry_bytes_max: 1 << 16,
                ..WalConfig::default()
            };
            let identity = WalIdentity { cluster, incarnation, node };
            let wal = Wal::open(disk.clone(), PathBuf::from("/wal"), identity, config).await.unwrap();
            disk.create_dir_all(&PathBuf::from("/snapshots")).unwrap();
            let snapshots =
                SnapshotStore::open(disk.clone(), &PathBuf::from("/snapshots"), cluster, GroupId(1)).unwrap();
            let progress = Arc::new(Progress::new());
            let origin = Origin { cluster, incarnation, group: 1 };
            let machine = Machine::new(Box::new(Nothing), progress.clone(), Arc::new(snapshots), disk, origin);
            let store = Store::new(wal.group(GroupId(1)), progress);
            Ok((wal, store, machine))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_purge_does_not_wait_for_the_disk() {
        let disk = SimDisk::new(1);
        let identity = WalIdentity { cluster: [1; 16], incarnation: 1, node: NodeId(1) };
        let config = WalConfig { segment_bytes: 1 << 20, low_space_bytes: 0, ..WalConfig::default() };
        let wal = Wal::open(Arc::new(disk.clone()), PathBuf::from("/wal"), identity, config.clone()).await.unwrap();
        let mut store = Store::new(wal.group(GroupId(1)), Arc::new(Progress::new()));
        let blank = |index| to_wal(&Entry { log_id: crate::types::log_id(1, index), payload: EntryPayload::Blank });
        let (done, durable) = tokio::sync::oneshot::channel();
        store.log.append((0..9).map(blank).collect(), Box::new(|r| drop(done.send(r)))).unwrap();
        durable.await.unwrap().unwrap();

        disk.set_latency(std::time::Duration::from_secs(1));
        let began = tokio::time::Instant::now();
        store.purge(crate::types::log_id(1, 4)).await.unwrap();
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        assert_eq!(store.ends().unwrap(), (Some(crate::types::log_id(1, 4)), Some(crate::types::log_id(1, 8))));

        // A power cut before the log has written it forgets it: the entries are there again.
        let forgotten = disk.fork();
        let reopened = Wal::open(Arc::new(forgotten), PathBuf::from("/wal"), identity, config.clone()).await.unwrap();
        let reopened = Store::new(reopened.group(GroupId(1)), Arc::new(Progress::new()));
        assert_eq!(reopened.ends().unwrap(), (None, Some(crate::types::log_id(1, 8))));

        // What is queued behind it is durable only when the purge is.
        store.put_vote(&Vote::new(2, 1)).await.unwrap();
        assert!(began.elapsed() > std::time::Duration::ZERO);
        drop((store, wal));
        disk.crash(7);
        let wal = Wal::open(Arc::new(disk), PathBuf::from("/wal"), identity, config).await.unwrap();
        let store = Store::new(wal.group(GroupId(1)), Arc::new(Progress::new()));
        assert_eq!(store.ends().unwrap().0, Some(crate::types::log_id(1, 4)));
    }

    #[tokio::test]
    async fn passes_openraft_s_own_suite_on_the_real_log() {
        crate::types::Runtime::scope(7, Suite::test_all(OnSimDisk)).await.unwrap();
    }
}
