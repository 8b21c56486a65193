//! What is kept of every shard: the backlog, what is written and durable, what is missing.
//!
//! **What it is.** The rules of history over any [`RecordStore`]. A record goes from the shard into the backlog, from there
//! into the store (by the writer's thread, or inline under simulation), and becomes durable with the next sync.
//!
//! **Owns** gaps: they come from installs, an overflowing backlog and records that do not fit; they go when peers fill them.
//! * `written` and `durable` never pass `applied`; no record in a gap is handed out; gaps are ascending and apart.
//! * The store holds no record behind a hole that its note does not name: a note is stored before the records behind its gaps.
//! * Records below the oldest that counts may still lie in the store: they are not read, and nothing continues their chain.
//! * A reader looks at the store without the lock, and again at the state behind it: what retention, an install or a new gap changed
//!   meanwhile is an error or another look, never a page with a hole.
//!
//! **Must never** hold its lock while the store is written by the thread. **Read next**: [`super::recovery`], [`super::fill`],
//! [`super::writer`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ledger_core::codec;
use tokio::time::Instant;

use super::fill::Fetch;
use super::rate::WriteRate;
use super::recovery::Resume;
use super::store::{Note, RecordStore, Stored};
use super::{Coverage, FillError, Gap, History, HistoryError, Page, PageBounds, Retention, writer};
use crate::limits::{
    HISTORY_BACKLOG_BYTES_MAX, HISTORY_BATCH_BYTES, HISTORY_BATCH_RECORDS, HISTORY_GAPS_MAX, HISTORY_GATHER_BYTES,
    HISTORY_READ_TRIES, HISTORY_RETAIN_BATCH, HISTORY_RETAIN_EVERY, HISTORY_SYNC_WITHIN,
};

/// History of one node over a store.
pub struct KeptHistory {
    pub(super) store: Arc<dyn RecordStore>,
    pub(super) keep: Retention,
    pub(super) state: Mutex<State>,
    /// Held, and taken before `state`, by whoever writes records: the writer, a restored state, a fill. Retention only removes.
    writing: Mutex<()>,
    /// Rung when the writer has something to do.
    pub(super) work: Condvar,
    /// Rung when something became durable.
    pub(super) done: Condvar,
    inline: bool,
    /// When an inline history last dropped what is old.
    retained_at: Mutex<Instant>,
    /// The store could not be opened, or what lies in it was not compared with the states yet.
    pub(super) unopened: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) shards: BTreeMap<u32, Kept>,
    pub(super) backlog_bytes: usize,
    /// A sync is wanted now, not when it is due.
    pub(super) sync_wanted: bool,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    pub(super) rate: WriteRate,
    /// Why the store cannot be written, if it cannot.
    pub(super) failed: Option<String>,
}

/// One shard.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) note: Note,
    /// The store has not taken the note yet; it does before the next record.
    pub(super) note_unsaved: bool,
    /// Grows with every change of what the store holds below `applied`, before the store is changed.
    pub(super) changes: u64,
    pub(super) applied: u64,
    pub(super) written: u64,
    pub(super) durable: u64,
    /// Records above `written`, ascending; removed once they are in the store.
    pub(super) backlog: VecDeque<(u64, Bytes)>,
    pub(super) backlog_bytes: usize,
    /// The log is replayed, and what follows may lie in the store already.
    pub(super) resume: Option<Resume>,
    /// How far the first gap was fetched.
    pub(super) fetch: Option<Fetch>,
    /// The restored state that this run began with: its index and chain value.
    pub(super) began: Option<(u64, u128)>,
    /// See [`Coverage::kept_ms`].
    pub(super) kept_ms: u64,
    /// See [`Coverage::oldest_ms`].
    pub(super) oldest_ms: u64,
}

impl Kept {
    /// Changes what is missing or where it begins; the note is stored before the next record is.
    pub(super) fn change_note(&mut self, change: impl FnOnce(&mut Note)) {
        change(&mut self.note);
        self.note_unsaved = true;
        self.changes += 1;
    }

    /// Whether records were dropped since the state was restored.
    fn has_dropped(&self) -> bool {
        let restored_at = self.began.map_or(0, |(at, _)| at);
        self.note.gaps.last().is_some_and(|gap| gap.through > restored_at)
    }

    fn gap_at(&self, index: u64) -> Option<&Gap> {
        self.note.gaps.iter().find(|gap| gap.after < index && index <= gap.through)
    }

    /// Adds a gap, joining it with what it touches; too many are joined into one.
    pub(super) fn add_gap(&mut self, new: Gap) {
        if new.through <= new.after {
            return;
        }
        self.change_note(|note| join(&mut note.gaps, new));
    }
}

/// Adds a gap to others.
fn join(gaps: &mut Vec<Gap>, new: Gap) {
    gaps.push(new);
    gaps.sort_by_key(|gap| (gap.after, gap.through));
    let mut joined: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps.drain(..) {
        match joined.last_mut() {
            Some(last) if gap.after <= last.through => {
                if gap.through > last.through {
                    last.through = gap.through;
                    last.chain_to = gap.chain_to;
                } else if gap.through == last.through {
                    last.chain_to = last.chain_to.or(gap.chain_to);
                }
            }
            _ => joined.push(gap),
        }
    }
    while joined.len() > HISTORY_GAPS_MAX {
        let newest = joined.pop().expect("longer than the bound");
        let before = joined.last_mut().expect("longer than the bound");
        before.through = newest.through;
        before.chain_to = newest.chain_to;
    }
    *gaps = joined;
}

/// The chain value behind a record; none when its bytes are no record.
pub(crate) fn chain_behind(bytes: &[u8]) -> Option<u128> {
    codec::decode_record(bytes).ok().map(|record| codec::chain_after(record.chain_before, bytes))
}

impl KeptHistory {
    /// With a thread that writes in the background.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn threaded(store: Arc<dyn RecordStore>, keep: Retention) -> io::Result<Arc<Self>> {
        let history = Arc::new(Self::load(store, keep, false)?);
        writer::spawn(history.clone())?;
        Ok(history)
    }

    /// Without a thread: [`History::append`] writes at once. For simulation.
    ///
    /// # Errors
    /// As [`Self::threaded`].
    pub fn inline(store: Arc<dyn RecordStore>, keep: Retention) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::load(store, keep, true)?))
    }

    /// With nobody who writes but [`Self::write_now`].
    #[cfg(test)]
    pub(super) fn unwritten(store: Arc<dyn RecordStore>, keep: Retention) -> Self {
        Self::load(store, keep, false).expect("readable")
    }

    /// Writes what waits.
    #[cfg(test)]
    pub(super) fn write_now(&self) {
        let mut state = self.lock();
        let (batch, through) = Self::next_batch(&state, 0);
        self.save_notes(&mut state).and_then(|()| self.store.put(&batch)).expect("written");
        Self::batch_written(&mut state, &through);
    }

    fn load(store: Arc<dyn RecordStore>, keep: Retention, inline: bool) -> io::Result<Self> {
        let mut state = State::default();
        for (shard, bytes) in store.notes()? {
            let note = Note::decode(&bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the note of shard {shard} is malformed"))
            })?;
            let mut kept = Self::found(store.as_ref(), shard, note)?;
            if kept.note_unsaved {
                store.put_note(shard, &kept.note.encode())?;
                kept.note_unsaved = false;
            }
            state.shards.insert(shard, kept);
        }
        let (state, writing, retained_at) = (Mutex::new(state), Mutex::default(), Mutex::new(Instant::now()));
        let (work, done) = (Condvar::new(), Condvar::new());
        let unopened = AtomicBool::new(store.is_unopened());
        Ok(Self { store, keep, state, writing, work, done, inline, retained_at, unopened })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write records.
    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_unopened(&self) -> bool {
        self.unopened.load(Ordering::Acquire)
    }

    /// Stores a note that is not stored yet. When that fails the writer tries again before it stores a record.
    pub(super) fn save_note(&self, shard: u32, kept: &mut Kept) -> io::Result<()> {
        if self.is_unopened() {
            // The note that lies there is the true one.
            return Ok(());
        }
        if kept.note_unsaved {
            self.store.put_note(shard, &kept.note.encode()).inspect_err(|error| {
                tracing::error!(shard, %error, "history cannot store what it misses; trying again before the next record");
            })?;
            kept.note_unsaved = false;
        }
        Ok(())
    }

    /// Stores all notes that are not stored yet: before any record.
    pub(super) fn save_notes(&self, state: &mut State) -> io::Result<()> {
        state.shards.iter_mut().try_for_each(|(&shard, kept)| self.save_note(shard, kept))
    }

    /// The next batch for the store, cloned: readers find the records in the backlog until they are written. It begins with a shard
    /// and goes around.
    pub(super) fn next_batch(state: &State, first: u32) -> (Vec<Stored>, Vec<(u32, u64)>) {
        let mut batch = Vec::new();
        let mut through = Vec::new();
        let mut bytes = 0;
        for (&shard, kept) in state.shards.range(first..).chain(state.shards.range(..first)) {
            let mut last = None;
            for (index, record) in &kept.backlog {
                if bytes >= HISTORY_BATCH_BYTES || batch.len() >= HISTORY_BATCH_RECORDS {
                    break;
                }
                bytes += record.len();
                batch.push(Stored { shard, index: *index, bytes: record.clone() });
                last = Some(*index);
            }
            if let Some(last) = last {
                through.push((shard, last));
            }
        }
        (batch, through)
    }

    /// The batch is in the store.
    pub(super) fn batch_written(state: &mut State, through: &[(u32, u64)]) {
        for &(shard, last) in through {
            let Some(kept) = state.shards.get_mut(&shard) else { continue };
            while let Some((index, record)) = kept.backlog.front() {
                if *index > last {
                    break;
                }
                kept.backlog_bytes -= record.len();
                state.backlog_bytes -= record.len();
                kept.backlog.pop_front();
            }
        }
        for kept in state.shards.values_mut() {
            kept.written = kept.backlog.front().map_or(kept.applied, |(index, _)| index - 1).max(kept.written);
        }
    }

    /// Everything waiting is dropped and missing from now on.
    pub(super) fn drop_backlog(&self, state: &mut State, why: &str) {
        let shards: Vec<u32> =
            state.shards.iter().filter(|(_, kept)| !kept.backlog.is_empty()).map(|(&shard, _)| shard).collect();
        for shard in shards {
            let Some(kept) = state.shards.get_mut(&shard) else { continue };
            let chain_to = kept.backlog.back().and_then(|(_, bytes)| chain_behind(bytes));
            let gap = Gap { after: kept.written, through: kept.applied, chain_to };
            // A gap that only grows is in the log already.
            if kept.note.gaps.last().is_none_or(|last| last.through < gap.after) {
                let (after, through) = (gap.after, gap.through);
                tracing::warn!(shard, after, through, why, "history is gapped; it will be filled from peers");
            }
            state.backlog_bytes -= kept.backlog_bytes;
            kept.backlog.clear();
            kept.backlog_bytes = 0;
            kept.written = kept.applied;
            kept.add_gap(gap);
        }
    }

    /// The store was opened again after a failure: what was not synced may be gone. Under the right to
    /// write.
    pub(super) fn lost_since_sync(&self) {
        self.lost_after(|kept| kept.durable);
    }

    /// The store was damaged and begun anew: all that it held is missing. Under the right to write.
    pub(super) fn lost_all(&self) {
        self.lost_after(|kept| kept.note.oldest.saturating_sub(1));
    }

    fn lost_after(&self, last_kept: impl Fn(&Kept) -> u64) {
        let mut state = self.lock();
        for kept in state.shards.values_mut() {
            kept.add_gap(Gap { after: last_kept(kept), through: kept.written, chain_to: None });
            kept.note_unsaved = true;
            kept.durable = kept.written;
            (kept.fetch, kept.resume) = (None, None);
        }
        drop(state);
        self.done.notify_all();
    }

    /// What the writer's thread does now and then.
    fn retain_inline(&self) {
        if !self.inline {
            return;
        }
        {
            let mut retained_at = self.retained_at.lock().unwrap_or_else(PoisonError::into_inner);
            if retained_at.elapsed() < HISTORY_RETAIN_EVERY {
                return;
            }
            *retained_at = Instant::now();
        }
        if let Err(error) = self.retain() {
            tracing::error!(%error, "history could not drop its oldest records");
        }
    }

    fn write_inline(&self, state: &mut State) {
        let (batch, through) = Self::next_batch(state, 0);
        match self.save_notes(state).and_then(|()| self.store.put(&batch)) {
            Ok(()) => Self::batch_written(state, &through),
            Err(error) => self.drop_backlog(state, &error.to_string()),
        }
    }

    /// The last record at or below an index that counts: what lies below `oldest` is given up, though it may be there yet.
    pub(super) fn last_that_counts(&self, shard: u32, oldest: u64, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        Ok(self.store.last_up_to(shard, index)?.filter(|(at, _)| *at >= oldest))
    }

    /// Takes what cannot be read in the store out of it, from an index on, and calls it a gap. Answers whether there was any.
    pub(super) fn drop_unreadable(&self, shard: u32, from: u64, through: u64) -> io::Result<bool> {
        // A fill must not put records where they are removed at the same time.
        let _writing = self.writing();
        if self.is_unopened() {
            return Ok(false);
        }
        let one = PageBounds { records: 1, bytes: 1 };
        let mut bad: Option<(u64, u64)> = None;
        let (from, through) =
            (self.store.unreadable_with(shard, from)?.0, self.store.unreadable_with(shard, through)?.1);
        for mark in self.store.marks(shard, from, through, HISTORY_RETAIN_BATCH)? {
            let read = self.store.range(shard, mark.index, mark.index, one);
            match (read, bad) {
                (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => {
                    bad = Some((bad.map_or(mark.index, |(first, _)| first), mark.index));
                }
                (Err(error), _) => return Err(error),
                (Ok(_), Some(_)) => break,
                (Ok(_), None) => {}
            }
        }
        let Some((first, last)) = bad else { return Ok(false) };
        tracing::error!(shard, first, last, "history cannot be read there; it is a gap, filled from peers");
        {
            let mut state = self.lock();
            let Some(kept) = state.shards.get_mut(&shard) else { return Ok(true) };
            // What is below the oldest that counts is no gap.
            let after = first.max(kept.note.oldest).saturating_sub(1);
            kept.add_gap(Gap { after, through: last, chain_to: None });
            self.save_note(shard, kept)?;
        }
        while self.store.remove(shard, first, last, HISTORY_RETAIN_BATCH)? == HISTORY_RETAIN_BATCH {}
        Ok(true)
    }

    /// One look of [`History::read`]; none when the store was changed meanwhile.
    fn read_once(&self, shard: u32, from: u64, bounds: PageBounds) -> Result<Option<Page>, HistoryError> {
        let (changes, through, waiting) = {
            let state = self.lock();
            let Some(kept) = state.shards.get(&shard) else {
                return Ok(Some(Page { records: Vec::new(), next: from }));
            };
            if from < kept.note.oldest {
                return Err(HistoryError::TooOld { shard, oldest: kept.note.oldest });
            }
            if let Some(gap) = kept.gap_at(from) {
                return Err(HistoryError::NotHere { shard, after: gap.after, through: gap.through });
            }
            let next_gap = kept.note.gaps.iter().map(|gap| gap.after).find(|&after| after >= from);
            let through = next_gap.unwrap_or(u64::MAX).min(kept.applied);
            // Cheap clones, and only of what the store does not have yet.
            let waiting: Vec<(u64, Bytes)> = kept
                .backlog
                .range(kept.backlog.partition_point(|(index, _)| *index < from)..)
                .take_while(|(index, _)| *index <= through)
                .take(bounds.records)
                .cloned()
                .collect();
            (kept.changes, through, waiting)
        };
        let stored_to = waiting.first().map_or(through, |(index, _)| index - 1);
        let stored = self.store.range(shard, from, stored_to, bounds);
        if self.lock().shards.get(&shard).map(|kept| kept.changes) != Some(changes) {
            return Ok(None);
        }
        let mut records = match stored {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return if self.drop_unreadable(shard, from, stored_to)? { Ok(None) } else { Err(error.into()) };
            }
            stored => stored?,
        };
        let mut bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        let full = |records: &[(u64, Bytes)], bytes| records.len() >= bounds.records || bytes >= bounds.bytes;
        let mut cut = !records.is_empty() && full(&records, bytes);
        for record in waiting {
            if cut {
                break;
            }
            bytes += record.1.len();
            records.push(record);
            cut = full(&records, bytes);
        }
        let next = match records.last() {
            Some((last, _)) if cut => last + 1,
            _ => through.saturating_add(1).max(from),
        };
        Ok(Some(Page { records, next }))
    }

    /// One look of [`History::last_up_to`]; none when the store was changed meanwhile.
    fn last_once(&self, shard: u32, index: u64) -> Result<Option<Option<(u64, Bytes)>>, HistoryError> {
        let (changes, oldest, gaps, waiting) = {
            let state = self.lock();
            let Some(kept) = state.shards.get(&shard) else { return Ok(Some(None)) };
            let behind = kept.backlog.partition_point(|(at, _)| *at <= index);
            let waiting = behind.checked_sub(1).and_then(|at| kept.backlog.get(at)).cloned();
            (kept.changes, kept.note.oldest, kept.note.gaps.clone(), waiting)
        };
        let found = match waiting {
            Some(found) => Ok(Some(found)),
            None => self.store.last_up_to(shard, index),
        };
        if self.lock().shards.get(&shard).map(|kept| kept.changes) != Some(changes) {
            return Ok(None);
        }
        let found = match found {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let at = self.store.last_index(shard, index)?.unwrap_or(index);
                return if self.drop_unreadable(shard, at, at)? { Ok(None) } else { Err(error.into()) };
            }
            found => found?,
        };
        let at = found.as_ref().map_or(0, |(at, _)| *at);
        if let Some(gap) = gaps.iter().rev().find(|gap| gap.after < index && at < gap.through) {
            return Err(HistoryError::NotHere { shard, after: gap.after, through: gap.through });
        }
        if at < oldest {
            return if oldest == 0 { Ok(Some(None)) } else { Err(HistoryError::TooOld { shard, oldest }) };
        }
        Ok(Some(found))
    }
}

/// Looks until nothing changed the store during a look.
fn settled<T>(mut look: impl FnMut() -> Result<Option<T>, HistoryError>) -> Result<T, HistoryError> {
    for _ in 0..HISTORY_READ_TRIES {
        if let Some(found) = look()? {
            return Ok(found);
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "history changed during every look").into())
}

impl History for KeptHistory {
    fn begin(&self, shard: u32, at: u64, chain: u128) {
        self.restored(shard, at, chain);
    }

    fn append(&self, shard: u32, index: u64, record: Option<&Bytes>) {
        self.retain_inline();
        let _writing = self.inline.then(|| self.writing());
        let mut state = self.lock();
        let state = &mut *state;
        let kept = state.shards.entry(shard).or_default();
        if index <= kept.applied {
            return;
        }
        if kept.resume.is_some() && self.replayed(shard, kept, index, record) {
            kept.applied = index;
            kept.written = index;
            return;
        }
        kept.applied = index;
        let Some(record) = record else {
            if kept.backlog.is_empty() {
                kept.written = index;
            }
            return;
        };
        let before = state.backlog_bytes;
        kept.backlog.push_back((index, record.clone()));
        kept.backlog_bytes += record.len();
        state.backlog_bytes += record.len();
        state.rate.add(record.len());
        if self.inline {
            self.write_inline(state);
        } else if state.backlog_bytes > HISTORY_BACKLOG_BYTES_MAX || state.failed.is_some() {
            let why = state.failed.clone().unwrap_or_else(|| "the store is slower than the log".to_owned());
            self.drop_backlog(state, &why);
        } else if before == 0 || (before < HISTORY_GATHER_BYTES && state.backlog_bytes >= HISTORY_GATHER_BYTES) {
            self.work.notify_one();
        }
    }

    fn sync_through(&self, shard: u32, index: u64) -> io::Result<()> {
        if self.inline {
            self.store.sync()?;
            let mut state = self.lock();
            for kept in state.shards.values_mut() {
                kept.durable = kept.written;
            }
            return Ok(());
        }
        let until = Instant::now() + HISTORY_SYNC_WITHIN;
        let mut state = self.lock();
        loop {
            let Some(kept) = state.shards.get(&shard) else { return Ok(()) };
            if kept.durable >= index.min(kept.applied) {
                return Ok(());
            }
            if let Some(why) = &state.failed {
                return Err(io::Error::other(why.clone()));
            }
            if self.is_unopened() {
                // What overflowed is missing whatever a snapshot does.
                return match kept.has_dropped() {
                    true => Ok(()),
                    false => Err(io::Error::new(io::ErrorKind::NotConnected, "the history store could not be opened")),
                };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.stopped {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "history did not become durable in time"));
            }
            state.sync_wanted = true;
            self.work.notify_one();
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(&self, shard: u32, from: u64, bounds: PageBounds) -> Result<Page, HistoryError> {
        settled(|| self.read_once(shard, from, bounds))
    }

    fn record_at(&self, shard: u32, index: u64) -> Result<Option<Bytes>, HistoryError> {
        let page = self.read(shard, index, PageBounds { records: 1, bytes: 1 })?;
        Ok(page.records.into_iter().next().filter(|(at, _)| *at == index).map(|(_, bytes)| bytes))
    }

    fn last_up_to(&self, shard: u32, index: u64) -> Result<Option<(u64, Bytes)>, HistoryError> {
        settled(|| self.last_once(shard, index))
    }

    fn fits_ms(&self) -> u64 {
        self.lock().rate.fits_ms(self.keep.bytes_max)
    }

    fn coverage(&self, shard: u32) -> Coverage {
        let state = self.lock();
        let unopened = self.is_unopened();
        let Some(kept) = state.shards.get(&shard) else { return Coverage { unopened, ..Coverage::default() } };
        Coverage {
            oldest: kept.note.oldest,
            applied: kept.applied,
            written: kept.written,
            durable: kept.durable,
            gaps: kept.note.gaps.clone(),
            wanted: kept.wanted(),
            backlog_bytes: kept.backlog_bytes,
            kept_ms: kept.kept_ms,
            oldest_ms: kept.oldest_ms,
            unopened,
        }
    }

    fn fill(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), FillError> {
        self.fill_first(shard, records, through)
    }

    fn distrust(&self, shard: u32, after: u64, through: u64) {
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return };
        let through = through.min(kept.written);
        tracing::error!(shard, after, through, "history is damaged there; it will be filled from peers");
        kept.add_gap(Gap { after, through, chain_to: None });
        let _later = self.save_note(shard, kept);
    }

    fn give_up_below(&self, shard: u32, oldest: u64) {
        if self.is_unopened() {
            return;
        }
        if let Err(error) = self.drop_below(shard, oldest) {
            tracing::error!(shard, %error, "what history gave up takes its place until it is retained again");
        }
    }

    fn reads_block(&self) -> bool {
        !self.inline
    }

    fn close(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.work.notify_one();
        if self.inline {
            drop(state);
            if let Err(error) = self.store.sync() {
                tracing::error!(%error, "history could not be synced");
            }
            return;
        }
        let until = Instant::now() + HISTORY_SYNC_WITHIN;
        while !state.stopped && Instant::now() < until {
            state = self.done.wait_timeout(state, HISTORY_SYNC_WITHIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
