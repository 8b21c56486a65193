//! What is kept of every shard: the backlog, what is written and durable, what is missing.
//!
//! **What it is.** The rules of history over any [`RecordStore`]. A record goes from the shard into the backlog, from there
//! into the store (by the writer's thread, or inline under simulation), and becomes durable with the next sync.
//!
//! **Owns** gaps: they come from installs, an overflowing backlog and records that do not fit; they go when peers fill them.
//! * `written` and `durable` never pass `applied`; no record in a gap is handed out; gaps are ascending and apart.
//! * Records below the oldest that counts may still lie in the store: they are not read, and nothing continues their chain.
//! * After a restart the shard appends again what the log still has. What lies in the store already is skipped, and compared at
//!   its last record: the records are chained, so one equal record vouches for all before it.
//!
//! **Must never** hold its lock while the store is written by the thread. **Read next**: [`super::writer`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ledger_core::codec;
use tokio::time::Instant;

use super::store::{Note, RecordStore, Stored};
use super::{Coverage, FillError, Gap, History, HistoryError, Page, PageBounds, Retention, writer};
use crate::limits::{
    HISTORY_BACKLOG_BYTES_MAX, HISTORY_BATCH_BYTES, HISTORY_BATCH_RECORDS, HISTORY_GAPS_MAX, HISTORY_RETAIN_EVERY,
    HISTORY_SYNC_WITHIN, HISTORY_VERIFY_LAST,
};

/// History of one node over a store.
pub struct KeptHistory {
    pub(super) store: Arc<dyn RecordStore>,
    pub(super) keep: Retention,
    pub(super) state: Mutex<State>,
    /// Rung when the writer has something to do.
    pub(super) work: Condvar,
    /// Rung when something became durable.
    pub(super) done: Condvar,
    inline: bool,
    /// When an inline history last dropped what is old.
    retained_at: Mutex<Instant>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) shards: BTreeMap<u32, Kept>,
    pub(super) backlog_bytes: usize,
    /// A sync is wanted now, not when it is due.
    pub(super) sync_wanted: bool,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    /// Why the store cannot be written, if it cannot.
    pub(super) failed: Option<String>,
}

/// One shard.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) note: Note,
    pub(super) applied: u64,
    pub(super) written: u64,
    pub(super) durable: u64,
    /// Records above `written`, ascending; removed once they are in the store.
    pub(super) backlog: VecDeque<(u64, Bytes)>,
    pub(super) backlog_bytes: usize,
    /// Records up to here lie in the store already and are expected again: the last of them, to be compared.
    resume: Option<(u64, Bytes)>,
}

impl Kept {
    /// Everything up to here may be read, as far as gaps allow.
    fn readable_to(&self) -> u64 {
        self.applied
    }

    fn gap_at(&self, index: u64) -> Option<&Gap> {
        self.note.gaps.iter().find(|gap| gap.after < index && index <= gap.through)
    }

    /// Adds a gap, joining it with what it touches; too many are joined into one.
    pub(super) fn add_gap(&mut self, new: Gap) {
        if new.through <= new.after {
            return;
        }
        let gaps = &mut self.note.gaps;
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
}

/// The chain value behind a record; none when its bytes are no record.
pub(crate) fn chain_behind(bytes: &[u8]) -> Option<u128> {
    codec::decode_record(bytes).ok().map(|record| codec::chain_after(record.chain_before, bytes))
}

impl KeptHistory {
    /// With a thread that writes in the background.
    ///
    /// # Errors
    /// The store cannot be read, or its newest records do not fit their chain.
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

    fn load(store: Arc<dyn RecordStore>, keep: Retention, inline: bool) -> io::Result<Self> {
        let mut state = State::default();
        for (shard, bytes) in store.notes()? {
            let note = Note::decode(&bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the note of shard {shard} is malformed"))
            })?;
            verify_tail(store.as_ref(), shard, &note)?;
            state.shards.insert(shard, Kept { note, ..Kept::default() });
        }
        let retained_at = Mutex::new(Instant::now());
        Ok(Self {
            store,
            keep,
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            inline,
            retained_at,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save_note(&self, shard: u32, kept: &Kept) {
        if let Err(error) = self.store.put_note(shard, &kept.note.encode()) {
            tracing::error!(shard, %error, "history cannot remember what it misses");
        }
    }

    /// The next batch for the store, cloned: readers find the records in the backlog until they are written.
    pub(super) fn next_batch(state: &State) -> (Vec<Stored>, Vec<(u32, u64)>) {
        let mut batch = Vec::new();
        let mut through = Vec::new();
        let mut bytes = 0;
        for (&shard, kept) in &state.shards {
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
            let gap = Gap { after: kept.written, through: kept.applied, chain_to: None };
            tracing::warn!(
                shard,
                after = gap.after,
                through = gap.through,
                why,
                "history is gapped; it will be filled from peers"
            );
            state.backlog_bytes -= kept.backlog_bytes;
            kept.backlog.clear();
            kept.backlog_bytes = 0;
            kept.written = kept.applied;
            kept.add_gap(gap);
            self.save_note(shard, kept);
        }
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
        let (batch, through) = Self::next_batch(state);
        match self.store.put(&batch) {
            Ok(()) => Self::batch_written(state, &through),
            Err(error) => self.drop_backlog(state, &error.to_string()),
        }
    }

    /// The last record at or below an index that counts: what lies below `oldest` is given up, though it may be there yet.
    fn last_that_counts(&self, shard: u32, oldest: u64, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        Ok(self.store.last_up_to(shard, index)?.filter(|(at, _)| *at >= oldest))
    }

    /// Compares what a restart appends with what is in the store. Answers whether the record is there already.
    fn resumed(&self, shard: u32, kept: &mut Kept, index: u64, record: Option<&Bytes>) -> bool {
        let Some((last, stored)) = &kept.resume else { return false };
        let last = *last;
        if index < last {
            return true;
        }
        let equal = index == last && record == Some(stored);
        kept.resume = None;
        if equal {
            return true;
        }
        tracing::warn!(
            shard,
            index,
            last,
            "history does not hold what the log says; it is gapped there and filled from peers"
        );
        kept.add_gap(Gap { after: kept.durable, through: index - 1, chain_to: None });
        self.save_note(shard, kept);
        false
    }
}

/// Checks the chain over the newest records that count; gaps may break it.
fn verify_tail(store: &dyn RecordStore, shard: u32, note: &Note) -> io::Result<()> {
    let mut upto = u64::MAX;
    let mut behind: Option<(u64, u128)> = None;
    for _ in 0..HISTORY_VERIFY_LAST {
        let Some((index, bytes)) = store.last_up_to(shard, upto)?.filter(|(index, _)| *index >= note.oldest) else {
            return Ok(());
        };
        let bad = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("history record {index} of shard {shard}: {why}"))
        };
        let record = codec::decode_record(&bytes).map_err(|error| bad(error.to_string()))?;
        let gap_between =
            behind.is_some_and(|(next, _)| note.gaps.iter().any(|gap| gap.through >= index && gap.after < next));
        if let Some((next, chain)) = behind
            && !gap_between
            && codec::chain_after(record.chain_before, &bytes) != chain
        {
            return Err(bad(format!("the chain is broken before record {next}")));
        }
        behind = Some((index, record.chain_before));
        if index == 0 {
            return Ok(());
        }
        upto = index - 1;
    }
    Ok(())
}

impl History for KeptHistory {
    fn begin(&self, shard: u32, at: u64, chain: u128) {
        let mut state = self.lock();
        let state = &mut *state;
        let kept = state.shards.entry(shard).or_default();
        let waiting: Vec<Stored> =
            kept.backlog.drain(..).map(|(index, bytes)| Stored { shard, index, bytes }).collect();
        state.backlog_bytes -= kept.backlog_bytes;
        kept.backlog_bytes = 0;
        let oldest = kept.note.oldest;
        let kept_before = self.store.put(&waiting).and_then(|()| self.last_that_counts(shard, oldest, at));
        let newest = self.last_that_counts(shard, oldest, u64::MAX);
        let (Ok(before), Ok(newest)) = (kept_before, newest) else {
            tracing::error!(shard, "the history store cannot be read; all of it is missing here");
            kept.note.gaps.clear();
            kept.add_gap(Gap { after: 0, through: at, chain_to: Some(chain) });
            return;
        };
        let vouched = kept.note.gaps.last().is_some_and(|gap| gap.through == at && gap.chain_to == Some(chain));
        match before {
            _ if vouched => {}
            // Never anything: an untouched state has the chain value zero.
            None if chain == 0 || at == 0 => {}
            None => kept.add_gap(Gap { after: oldest.saturating_sub(1), through: at, chain_to: Some(chain) }),
            Some((_, bytes)) if chain_behind(&bytes) == Some(chain) => {}
            Some((last, _)) if last < at => kept.add_gap(Gap { after: last, through: at, chain_to: Some(chain) }),
            // The very last record is of another history: nothing of it can be believed.
            Some(_) => kept.add_gap(Gap { after: oldest.saturating_sub(1), through: at, chain_to: Some(chain) }),
        }
        kept.resume = newest.filter(|(last, _)| *last > at && kept.gap_at(*last).is_none());
        kept.note.gaps.retain(|gap| gap.after < at);
        if let Some(gap) = kept.note.gaps.last_mut()
            && gap.through > at
        {
            *gap = Gap { after: gap.after, through: at, chain_to: Some(chain) };
        }
        kept.applied = at;
        kept.written = at;
        kept.durable = at;
        self.save_note(shard, kept);
    }

    fn append(&self, shard: u32, index: u64, record: Option<&Bytes>) {
        self.retain_inline();
        let mut state = self.lock();
        let state = &mut *state;
        let kept = state.shards.entry(shard).or_default();
        if index <= kept.applied {
            return;
        }
        if kept.resume.is_some() && self.resumed(shard, kept, index, record) {
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
        let wake = state.backlog_bytes == 0;
        kept.backlog.push_back((index, record.clone()));
        kept.backlog_bytes += record.len();
        state.backlog_bytes += record.len();
        if self.inline {
            self.write_inline(state);
        } else if state.backlog_bytes > HISTORY_BACKLOG_BYTES_MAX || state.failed.is_some() {
            let why = state.failed.clone().unwrap_or_else(|| "the store is slower than the log".to_owned());
            self.drop_backlog(state, &why);
        } else if wake {
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
        let (through, waiting) = {
            let state = self.lock();
            let Some(kept) = state.shards.get(&shard) else { return Ok(Page { records: Vec::new(), next: from }) };
            if from < kept.note.oldest {
                return Err(HistoryError::TooOld { shard, oldest: kept.note.oldest });
            }
            if let Some(gap) = kept.gap_at(from) {
                return Err(HistoryError::NotHere { shard, after: gap.after, through: gap.through });
            }
            let next_gap = kept.note.gaps.iter().map(|gap| gap.after).find(|&after| after >= from);
            let through = next_gap.unwrap_or(u64::MAX).min(kept.readable_to());
            // Cheap clones, and only of what the store does not have yet.
            let waiting: Vec<(u64, Bytes)> = kept
                .backlog
                .iter()
                .skip_while(|(index, _)| *index < from)
                .take_while(|(index, _)| *index <= through)
                .take(bounds.records)
                .cloned()
                .collect();
            (through, waiting)
        };
        let stored_to = waiting.first().map_or(through, |(index, _)| index - 1);
        let mut records = self.store.range(shard, from, stored_to, bounds)?;
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
        Ok(Page { records, next })
    }

    fn record_at(&self, shard: u32, index: u64) -> Result<Option<Bytes>, HistoryError> {
        let page = self.read(shard, index, PageBounds { records: 1, bytes: 1 })?;
        Ok(page.records.into_iter().next().filter(|(at, _)| *at == index).map(|(_, bytes)| bytes))
    }

    fn last_up_to(&self, shard: u32, index: u64) -> Result<Option<(u64, Bytes)>, HistoryError> {
        let (oldest, gaps, waiting) = {
            let state = self.lock();
            let Some(kept) = state.shards.get(&shard) else { return Ok(None) };
            let waiting = kept.backlog.iter().rev().find(|(at, _)| *at <= index).cloned();
            (kept.note.oldest, kept.note.gaps.clone(), waiting)
        };
        let found = match waiting {
            Some(found) => Some(found),
            None => self.store.last_up_to(shard, index)?,
        };
        let at = found.as_ref().map_or(0, |(at, _)| *at);
        if let Some(gap) = gaps.iter().rev().find(|gap| gap.after < index && at < gap.through) {
            return Err(HistoryError::NotHere { shard, after: gap.after, through: gap.through });
        }
        if at < oldest {
            return if oldest == 0 { Ok(None) } else { Err(HistoryError::TooOld { shard, oldest }) };
        }
        Ok(found)
    }

    fn coverage(&self, shard: u32) -> Coverage {
        let state = self.lock();
        let Some(kept) = state.shards.get(&shard) else { return Coverage::default() };
        Coverage {
            oldest: kept.note.oldest,
            applied: kept.applied,
            written: kept.written,
            durable: kept.durable,
            gaps: kept.note.gaps.clone(),
            backlog_bytes: kept.backlog_bytes,
        }
    }

    fn fill(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), FillError> {
        let gap = {
            let state = self.lock();
            let kept = state.shards.get(&shard).ok_or(FillError::NoGap)?;
            kept.note.gaps.first().cloned().ok_or(FillError::NoGap)?
        };
        let mut through = through.min(gap.through);
        let (stored, chain) = self.check_fill(shard, &gap, records, through)?;
        // A state's index counts entries that are not the ledger's, too: the chain says that no record is left, and no peer has one to give.
        if chain.is_some() && chain == gap.chain_to {
            through = gap.through;
        }
        self.store.put(&stored)?;
        self.store.sync()?;
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return Ok(()) };
        if let Some(first) = kept.note.gaps.first_mut()
            && first.after == gap.after
        {
            first.after = through;
        }
        kept.note.gaps.retain(|gap| gap.after < gap.through);
        self.save_note(shard, kept);
        Ok(())
    }

    fn distrust(&self, shard: u32, after: u64, through: u64) {
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return };
        let through = through.min(kept.written);
        tracing::error!(shard, after, through, "history is damaged there; it will be filled from peers");
        kept.add_gap(Gap { after, through, chain_to: None });
        self.save_note(shard, kept);
    }

    fn give_up_below(&self, shard: u32, oldest: u64) {
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return };
        kept.note.oldest = kept.note.oldest.max(oldest);
        kept.note.gaps.retain(|gap| gap.through >= oldest);
        if let Some(first) = kept.note.gaps.first_mut() {
            first.after = first.after.max(oldest - 1);
        }
        kept.note.gaps.retain(|gap| gap.after < gap.through);
        self.save_note(shard, kept);
        let oldest = kept.note.oldest;
        drop(state);
        if let Err(error) = self.remove_below(shard, oldest) {
            tracing::error!(shard, %error, "what history gave up takes its place until it is retained again");
        }
    }

    fn unchained(&self, shard: u32) {
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return };
        let Some(first) = kept.note.gaps.first().cloned() else { return };
        let after = kept.note.oldest.saturating_sub(1);
        tracing::warn!(
            shard,
            through = first.through,
            "history here and at a peer disagree; it is fetched anew from the beginning"
        );
        kept.add_gap(Gap { after, ..first });
        self.save_note(shard, kept);
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

impl KeptHistory {
    /// Checks a peer's records against each other and against what lies on both sides of the gap. With them comes the chain value
    /// behind the last, if it is known.
    fn check_fill(
        &self,
        shard: u32,
        gap: &Gap,
        records: &[(u64, Bytes)],
        through: u64,
    ) -> Result<(Vec<Stored>, Option<u128>), FillError> {
        let oldest = self.lock().shards.get(&shard).map_or(0, |kept| kept.note.oldest);
        let mut chain = match self.last_that_counts(shard, oldest, gap.after)? {
            Some((_, bytes)) => chain_behind(&bytes),
            None => None,
        };
        let mut before = gap.after;
        let mut stored = Vec::with_capacity(records.len());
        for (index, bytes) in records {
            if *index > through {
                break;
            }
            let malformed = |why: String| FillError::Malformed { index: *index, why };
            let record = codec::decode_record(bytes).map_err(|error| malformed(error.to_string()))?;
            if record.position.index != *index || record.position.shard != shard || *index <= before {
                return Err(malformed("it is of another place".to_owned()));
            }
            if chain.is_some_and(|chain| chain != record.chain_before) {
                return Err(FillError::Unchained { index: *index });
            }
            chain = Some(codec::chain_after(record.chain_before, bytes));
            before = *index;
            stored.push(Stored { shard, index: *index, bytes: bytes.clone() });
        }
        if through < gap.through {
            return Ok((stored, chain));
        }
        let expected = match gap.chain_to {
            Some(chain) => Some(chain),
            None => self.chain_before_next(shard, gap.through)?,
        };
        match (chain, expected) {
            (Some(got), Some(expected)) if got != expected => Err(FillError::Unchained { index: gap.through }),
            _ => Ok((stored, chain)),
        }
    }

    /// What the first record behind an index says that its chain continues.
    fn chain_before_next(&self, shard: u32, index: u64) -> io::Result<Option<u128>> {
        let one = PageBounds { records: 1, bytes: 1 };
        let next = self.store.range(shard, index + 1, u64::MAX, one)?.into_iter().next();
        let waiting = || {
            let state = self.lock();
            state.shards.get(&shard).and_then(|kept| kept.backlog.front().cloned())
        };
        let next = next.or_else(waiting);
        Ok(next.and_then(|(_, bytes)| codec::decode_record(&bytes).ok()).map(|record| record.chain_before))
    }
}
