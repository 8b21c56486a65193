//! One group's part of the log, as its callers see it.
//!
//! **What it is.** [`GroupLog`] changes memory at once and queues the same change for the writer; what it answers includes
//! changes that are not durable yet.
//!
//! **Owns** the tail of newest entries in memory and the index of written ones. **Must never** touch the disk except to
//! read, or hold its lock across an await.
//!
//! **Read next**: [`super::writer`].

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::{Damage, WalError};
use super::frame::Kind;
use super::index::{GroupIndex, Place};
use super::limits::BLOB_BYTES_MAX;
use super::log::Inner;
use super::segment::DamageMark;
use super::shared::Op;
use crate::api::GroupId;

/// One entry of a group's log, opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalEntry {
    /// Its index; consecutive within a group.
    pub index: u64,
    /// What consensus needs to know of it (term, leader, kind, stamp), in consensus' own encoding. At most 64 KiB - 1.
    pub head: Bytes,
    /// Its payload.
    pub data: Bytes,
}

impl WalEntry {
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

/// Called once when an append is durable, or has failed (then the log is poisoned). Runs on the log's writer: must not block.
pub type AppendDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What a group's log knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupLogState {
    /// Everything through this index is gone; with the opaque log id given to [`GroupLog::purge`].
    pub purged: Option<(u64, Bytes)>,
    /// Last index, if there are entries.
    pub last_index: Option<u64>,
    /// Head of the last entry.
    pub last_head: Option<Bytes>,
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The committed position saved last (it may lag behind after a crash).
    pub committed: Option<Bytes>,
    /// What the members acknowledged, as saved last (it may lag behind after a crash).
    pub acknowledged: Option<Bytes>,
    /// Why the group must neither vote nor lead.
    pub damage: Option<Damage>,
}

/// A group in memory.
pub(crate) struct GroupMem {
    pub(crate) id: GroupId,
    state: Mutex<MemState>,
}

#[derive(Default)]
pub(crate) struct MemState {
    pub(crate) purged: Option<(u64, Bytes)>,
    pub(crate) last: Option<u64>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    pub(crate) acknowledged: Option<Bytes>,
    /// What waits for the next round.
    pub(crate) lazy: Lazy,
    pub(crate) damage: Option<Damage>,
    /// Newest entries with the number of the append that brought them; ends at `last`.
    pub(crate) tail: VecDeque<(u64, WalEntry)>,
    pub(crate) tail_bytes: usize,
    /// Appends through this number are on disk; only their entries may leave the tail.
    pub(crate) written: u64,
    /// Entries on disk, as of what the writer has taken: newer truncations have not arrived here, but then the tail covers them.
    pub(crate) index: GroupIndex,
}

/// What a group saves with whatever is written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lazy {
    pub(crate) committed: bool,
    pub(crate) acknowledged: bool,
}

impl GroupMem {
    pub(crate) fn new(id: GroupId, state: MemState) -> Arc<Self> {
        Arc::new(Self { id, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, MemState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written cannot be read back. The first such damage stays; that of a log that was
    /// emptied for a repair makes way.
    pub(crate) fn mark_damaged(&self, dir: &Path, why: &str) {
        let mut state = self.lock();
        if state.has_new_damage() {
            return;
        }
        tracing::error!(group = self.id.0, why, "the log is damaged: what was written cannot be read back");
        state.damage = Some(Damage {
            file: dir.to_path_buf(),
            offset: 0,
            groups: vec![self.id],
            others_too: false,
            emptied: false,
            lost: false,
            why: why.to_owned(),
        });
    }
}

impl MemState {
    /// Whether something is lost that no repair has begun to make good.
    pub(crate) fn has_new_damage(&self) -> bool {
        self.damage.as_ref().is_some_and(|damage| !damage.emptied)
    }

    /// What the next entry's index has to be; none: any.
    fn expected(&self) -> Option<u64> {
        self.last.or(self.purged.as_ref().map(|p| p.0)).map(|i| i + 1)
    }

    fn push(&mut self, op: u64, entry: WalEntry, bytes_max: usize) {
        self.last = Some(entry.index);
        self.tail_bytes += entry.bytes();
        self.tail.push_back((op, entry));
        self.evict(bytes_max);
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.tail_bytes > bytes_max && self.tail.len() > 1 {
            match self.tail.front() {
                Some((op, entry)) if *op <= self.written => self.tail_bytes -= entry.bytes(),
                _ => return,
            }
            self.tail.pop_front();
        }
    }

    /// The writer has made an append durable.
    pub(crate) fn written(&mut self, op: u64, bytes_max: usize) {
        self.written = self.written.max(op);
        self.evict(bytes_max);
    }

    fn truncate_from(&mut self, from: u64) {
        while self.tail.back().is_some_and(|(_, e)| e.index >= from) {
            if let Some((_, entry)) = self.tail.pop_back() {
                self.tail_bytes -= entry.bytes();
            }
        }
        let floor = self.purged.as_ref().map_or(0, |p| p.0 + 1);
        self.last = match self.last {
            Some(last) if last >= from => from.checked_sub(1).filter(|l| *l >= floor && self.holds(*l)),
            other => other,
        };
    }

    fn holds(&self, index: u64) -> bool {
        self.tail.front().is_some_and(|(_, e)| e.index <= index) || self.index.find(index).is_some()
    }

    fn purge(&mut self, upto: u64, log_id: Bytes) {
        while self.tail.front().is_some_and(|(_, e)| e.index <= upto) {
            if let Some((_, entry)) = self.tail.pop_front() {
                self.tail_bytes -= entry.bytes();
            }
        }
        if self.last.is_some_and(|l| l <= upto) {
            self.last = None;
        }
        self.purged = Some((upto, log_id));
    }

    fn reset(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
        self.last = None;
        self.purged = None;
        self.committed = None;
        self.acknowledged = None;
        self.lazy = Lazy::default();
    }
}

/// Where entries are.
enum Found {
    InMemory(Vec<WalEntry>),
    InSegments(Vec<(u64, Place)>),
}

/// One group's part of the log. A cheap handle.
#[derive(Clone)]
pub struct GroupLog {
    pub(crate) log: Arc<Inner>,
    pub(crate) mem: Arc<GroupMem>,
}

impl GroupLog {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.mem.id
    }

    /// What the log knows of it now, including calls not durable yet.
    pub fn state(&self) -> GroupLogState {
        let (mut state, last) = {
            let m = self.mem.lock();
            let state = GroupLogState {
                purged: m.purged.clone(),
                last_index: m.last,
                last_head: m.tail.back().map(|(_, e)| e.head.clone()),
                vote: m.vote.clone(),
                committed: m.committed.clone(),
                acknowledged: m.acknowledged.clone(),
                damage: m.damage.clone(),
            };
            (state, m.last)
        };
        if let (None, Some(last)) = (&state.last_head, last) {
            match self.read(last, last, 0) {
                Ok(found) => state.last_head = found.into_iter().next().map(|e| e.head),
                Err(e) => {
                    self.mark_damaged(&format!("last entry {last}: {e}"));
                    state.damage = self.damage();
                }
            }
        }
        state
    }

    /// Why the group must neither vote nor lead.
    pub(crate) fn damage(&self) -> Option<Damage> {
        self.mem.lock().damage.clone()
    }

    /// Something that this log should have cannot be read back: the group has lost it.
    pub(crate) fn mark_damaged(&self, why: &str) {
        self.mem.mark_damaged(&self.log.dir, why);
    }

    /// Appends consecutive entries: readable when this returns, durable when `done` is called. Within one flush the newest
    /// `done` of a group is called first.
    ///
    /// # Errors
    /// Oversize or a hole ([`io::ErrorKind::InvalidInput`]): nothing happened and `done` is dropped. Poisoned or closed likewise.
    pub fn append(&self, entries: Vec<WalEntry>, done: AppendDone) -> io::Result<()> {
        let bytes_max = self.log.config.entry_bytes_max;
        let mut m = self.mem.lock();
        let mut expected = m.expected();
        for entry in &entries {
            if entry.bytes() > bytes_max || entry.head.len() > BLOB_BYTES_MAX {
                return Err(WalError::Oversize { index: entry.index, bytes: entry.bytes(), bytes_max }.into());
            }
            if let Some(expected) = expected.filter(|e| *e != entry.index) {
                return Err(WalError::Hole { index: entry.index, expected }.into());
            }
            expected = Some(entry.index + 1);
        }
        // Queue order must be memory order within a group, so the group's lock is held while queueing.
        let cache = self.log.config.tail_cache_bytes;
        let mem = self.mem.clone();
        self.log.shared.enqueue(|op| {
            for entry in &entries {
                m.push(op, entry.clone(), cache);
            }
            Op::Append { mem, entries, next: 0, op, done }
        })?;
        drop(m);
        self.log.shared.wake();
        Ok(())
    }

    /// Saves the vote; durable on return.
    ///
    /// # Errors
    /// Poisoned or closed: unknown whether it is saved. Larger than 64 KiB - 1: nothing happened.
    pub async fn save_vote(&self, vote: Bytes) -> io::Result<()> {
        if crate::bad!("vote-not-durable") {
            self.mem.lock().vote = Some(vote);
            return Ok(());
        }
        self.small(Kind::Vote, 0, vote.clone(), |m| m.vote = Some(vote)).await
    }

    /// Saves the committed position with whatever is written next; costs no sync of its own.
    pub fn save_committed(&self, committed: Bytes) {
        if committed.len() > BLOB_BYTES_MAX {
            return;
        }
        self.save_lazily(|m| (m.committed, m.lazy.committed) = (Some(committed), true));
    }

    /// Saves what the members acknowledged with whatever is written next, or with a marker of its own
    /// when nothing is: others may count on this memory. While the log is written to, it costs no
    /// sync of its own.
    pub(crate) fn save_acknowledged(&self, acknowledged: Bytes) {
        if acknowledged.len() > BLOB_BYTES_MAX {
            return;
        }
        self.save_lazily(|m| (m.acknowledged, m.lazy.acknowledged) = (Some(acknowledged), true));
        self.log.shared.hurry();
    }

    fn save_lazily(&self, change: impl FnOnce(&mut MemState)) {
        let mut m = self.mem.lock();
        let waits = m.lazy != Lazy::default();
        change(&mut m);
        if !waits {
            self.log.shared.enqueue_lazy(self.mem.clone());
        }
    }

    /// Drops all entries after `index` (all, if none); durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn truncate_after(&self, index: Option<u64>) -> io::Result<()> {
        let from = index.map_or(0, |i| i.saturating_add(1));
        self.small(Kind::Truncate, from, Bytes::new(), |m| m.truncate_from(from)).await
    }

    /// Drops all entries through `upto`, which may lie beyond the last one (a snapshot was installed); durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn purge(&self, upto: u64, log_id: Bytes) -> io::Result<()> {
        if self.mem.lock().purged.as_ref().is_some_and(|p| p.0 >= upto) {
            return Ok(());
        }
        self.small(Kind::Purge, upto, log_id.clone(), |m| m.purge(upto, log_id)).await
    }

    /// As [`GroupLog::purge`], but waits for no disk: a crash may forget it, and what is queued later then, too.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub fn purge_later(&self, upto: u64, log_id: Bytes) -> io::Result<()> {
        if self.mem.lock().purged.as_ref().is_some_and(|p| p.0 >= upto) {
            return Ok(());
        }
        self.queue(Kind::Purge, upto, log_id.clone(), |m| m.purge(upto, log_id), None)
    }

    /// Entries `from..=to` as far as they exist, at most `bytes_max` in sum but at least one. From memory, else from segments.
    ///
    /// # Errors
    /// `NotFound` when `from` is purged; `InvalidData` when a segment went rotten meanwhile.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<WalEntry>> {
        let mut out = self.read_part(from, to, bytes_max)?;
        let mut bytes: usize = out.iter().map(WalEntry::bytes).sum();
        while let Some(next) = out.last().map(|e| e.index + 1).filter(|n| *n <= to) {
            let more = self.read_part(next, to, bytes_max.saturating_sub(bytes))?;
            let more_bytes: usize = more.iter().map(WalEntry::bytes).sum();
            if more.is_empty() || bytes + more_bytes > bytes_max {
                break;
            }
            bytes += more_bytes;
            out.extend(more);
        }
        Ok(out)
    }

    /// What one place has of it: segments or memory.
    fn read_part(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<WalEntry>> {
        let mut tried = None;
        loop {
            let places = match self.look_up(from, to, bytes_max)? {
                Found::InMemory(entries) => return Ok(entries),
                Found::InSegments(places) => places,
            };
            match super::reader::read(&self.log.shared.files(), self.mem.id, &places, bytes_max) {
                // They may have been carried to another segment, and theirs begun anew, since they were looked up.
                Err(_) if tried.as_ref() != Some(&places) => tried = Some(places),
                Err(e) => {
                    self.mark_damaged(&format!("entries from {from} on: {e}"));
                    return Err(e);
                }
                done => return done,
            }
        }
    }

    fn look_up(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Found> {
        let mut out = Vec::new();
        let mut places = Vec::new();
        {
            let m = self.mem.lock();
            let Some(last) = m.last.filter(|l| *l >= from) else { return Ok(Found::InMemory(out)) };
            if m.purged.as_ref().is_some_and(|p| p.0 >= from) {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {from} is purged")));
            }
            let to = to.min(last);
            let in_memory = m.tail.front().map_or(u64::MAX, |(_, e)| e.index);
            if from >= in_memory {
                let mut bytes = 0;
                let skip = usize::try_from(from - in_memory).unwrap_or(usize::MAX);
                for (_, entry) in m.tail.range(skip.min(m.tail.len())..) {
                    bytes += entry.bytes();
                    if entry.index > to || (bytes > bytes_max && !out.is_empty()) {
                        break;
                    }
                    out.push(entry.clone());
                }
                return Ok(Found::InMemory(out));
            }
            for index in from..=to.min(in_memory.saturating_sub(1)) {
                match m.index.find(index) {
                    Some(place) => places.push((index, place)),
                    None => break,
                }
                if places.len() >= super::reader::ENTRIES_MAX {
                    break;
                }
            }
            if places.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {from} is not in the log")));
            }
        }
        Ok(Found::InSegments(places))
    }

    /// Bytes of the records through `index`: what a purge up to there would set free.
    pub fn bytes_through(&self, index: u64) -> u64 {
        self.mem.lock().index.bytes_through(index)
    }

    /// The first index from which on the records have at most `bytes_max` bytes.
    pub fn newest_within(&self, bytes_max: u64) -> u64 {
        self.mem.lock().index.newest_within(bytes_max)
    }

    /// Forgets the entries, the purge mark and the committed position but not the vote; durable on return. The first step
    /// of a repair from peers; the group stays damaged, as one whose log was [emptied](Damage::emptied).
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn reset(&self) -> io::Result<()> {
        self.small(Kind::Reset, 0, Bytes::new(), MemState::reset).await?;
        self.mem.lock().damage = Some(Damage::emptied(&self.log.dir, vec![self.mem.id]));
        Ok(())
    }

    /// The group lacks something that it had promised. Whether that is news: the first such damage
    /// stays.
    pub(crate) fn lacks(&self, why: &str) -> bool {
        let mut m = self.mem.lock();
        let is_new = !m.has_new_damage();
        if is_new {
            m.damage = Some(self.lack(why));
        }
        is_new
    }

    /// Records what [`Self::lacks`] took note of; durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub(crate) async fn record_damage(&self, why: &str) -> io::Result<()> {
        let mark = Bytes::from(DamageMark::of(&self.lack(why)).file);
        self.small(Kind::Damaged, 0, mark, |_| {}).await
    }

    fn lack(&self, why: &str) -> Damage {
        Damage { groups: vec![self.mem.id], ..Damage::lost(&self.log.dir, why) }
    }

    /// The repair that emptied the log is complete: from now on the group is not damaged; durable on
    /// return.
    ///
    /// # Errors
    /// Poisoned or closed; or the log has lost something since it was emptied, and stays damaged.
    pub(crate) async fn clear_emptied(&self) -> io::Result<()> {
        let anew = || io::Error::other("the log is damaged anew since it was emptied");
        let (done, durable) = oneshot::channel();
        {
            let m = self.mem.lock();
            if m.has_new_damage() {
                return Err(anew());
            }
            // Queued under the lock: damage that is marked from now on is recorded behind it.
            let op =
                Op::Small { mem: self.mem.clone(), kind: Kind::Clear, index: 0, body: Bytes::new(), done: Some(done) };
            self.log.shared.enqueue(|_| op)?;
        }
        self.log.shared.wake();
        durable.await.unwrap_or_else(|_| Err(WalError::Closed.into()))?;
        let mut m = self.mem.lock();
        if m.has_new_damage() {
            return Err(anew());
        }
        m.damage = None;
        Ok(())
    }

    /// From now on the group is not damaged; durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn clear_damage(&self) -> io::Result<()> {
        self.small(Kind::Clear, 0, Bytes::new(), |_| {}).await?;
        // Only once durable: before, the group is as damaged as it was.
        self.mem.lock().damage = None;
        Ok(())
    }

    async fn small(&self, kind: Kind, index: u64, body: Bytes, change: impl FnOnce(&mut MemState)) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.queue(kind, index, body, change, Some(done))?;
        durable.await.unwrap_or_else(|_| Err(WalError::Closed.into()))
    }

    /// Changes the memory and queues the record of it; `done` hears when that is durable.
    fn queue(
        &self,
        kind: Kind,
        index: u64,
        body: Bytes,
        change: impl FnOnce(&mut MemState),
        done: Option<oneshot::Sender<io::Result<()>>>,
    ) -> io::Result<()> {
        if body.len() > BLOB_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "larger than 64 KiB - 1"));
        }
        {
            let mut m = self.mem.lock();
            let mem = self.mem.clone();
            self.log.shared.enqueue(|_| {
                change(&mut m);
                Op::Small { mem, kind, index, body, done }
            })?;
        }
        self.log.shared.wake();
        Ok(())
    }
}
