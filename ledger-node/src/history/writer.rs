//! The thread that writes history down: batches, syncs, retention.
//!
//! **Owns** when the store is written and synced, and what retention drops. **Must never** hold the state's lock while it does.
//! **Read next**: [`super::kept`].

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, PoisonError};

use ledger_core::codec;
use tokio::time::Instant;

use super::kept::{Kept, KeptHistory};
use super::store::Ready;
use super::{Gap, PageBounds};
use crate::limits::{
    HISTORY_GATHER, HISTORY_GATHER_BYTES, HISTORY_READ_TRIES, HISTORY_RETAIN_BATCH, HISTORY_RETAIN_BYTES,
    HISTORY_RETAIN_EVERY, HISTORY_RETAIN_RECORDS_MAX, HISTORY_RETAIN_STEP, HISTORY_SYNC_BYTES, HISTORY_SYNC_EVERY,
};

/// Starts the thread; it ends with [`super::History::close`].
pub(super) fn spawn(history: Arc<KeptHistory>) -> io::Result<()> {
    std::thread::Builder::new().name("history".to_owned()).spawn(move || Writer::new(history).run()).map(|_| ())
}

struct Writer {
    history: Arc<KeptHistory>,
    /// The next batch begins with this shard: one after the other, so that all that gathered of a shard is on few pages.
    turn: u32,
    unsynced: usize,
    synced_at: Instant,
    retained_at: Instant,
}

impl Writer {
    fn new(history: Arc<KeptHistory>) -> Self {
        let now = Instant::now();
        Self { history, turn: 0, unsynced: 0, synced_at: now, retained_at: now }
    }

    fn run(mut self) {
        loop {
            let stopping = self.wait_for_work();
            self.write_waiting();
            self.sync_if_due(stopping);
            if stopping {
                break;
            }
            self.retain_if_due();
        }
        self.history.store.close();
        let mut state = self.history.lock();
        state.stopped = true;
        drop(state);
        self.history.done.notify_all();
    }

    /// Sleeps until records wait, a sync is due or wanted, or the node stops. Answers whether it stops.
    fn wait_for_work(&self) -> bool {
        let history = &self.history;
        let mut state = history.lock();
        loop {
            if state.stopping || state.sync_wanted {
                return state.stopping;
            }
            if state.backlog_bytes >= HISTORY_GATHER_BYTES && !history.is_unopened() {
                return false;
            }
            if state.backlog_bytes > 0 && !history.is_unopened() {
                // Let more gather: nobody waits for history.
                state = history.work.wait_timeout(state, HISTORY_GATHER).unwrap_or_else(PoisonError::into_inner).0;
                return state.stopping;
            }
            let now = Instant::now();
            let due = if self.unsynced > 0 {
                self.synced_at + HISTORY_SYNC_EVERY
            } else {
                self.retained_at + HISTORY_RETAIN_EVERY
            };
            if due <= now {
                return false;
            }
            state = history.work.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes what waits now. What comes meanwhile gathers for the next turn, unless it is much or somebody waits for it.
    fn write_waiting(&mut self) {
        let history = self.history.clone();
        if history.is_unopened() || history.lock().failed.is_some() {
            return;
        }
        let mut left = history.lock().backlog_bytes;
        loop {
            let writing = history.writing();
            let taken = {
                let mut state = history.lock();
                history.save_notes(&mut state).map(|()| KeptHistory::next_batch(&state, self.turn))
            };
            let (batch, through) = match taken {
                Ok((batch, _)) if batch.is_empty() => return,
                Ok(taken) => taken,
                Err(error) => return self.fail(&error),
            };
            let bytes: usize = batch.iter().map(|record| record.bytes.len()).sum();
            let more = match history.store.put(&batch) {
                Ok(()) => {
                    let mut state = history.lock();
                    KeptHistory::batch_written(&mut state, &through);
                    state.failed = None;
                    // Who waits for a sync has what was there as this began, and is kept waiting by no more.
                    state.stopping || state.backlog_bytes >= HISTORY_GATHER_BYTES
                }
                Err(error) => return self.fail(&error),
            };
            self.unsynced += bytes;
            self.turn = through.last().map_or(0, |(shard, _)| *shard);
            drop(writing);
            if self.unsynced >= HISTORY_SYNC_BYTES {
                self.sync();
            }
            left = left.saturating_sub(bytes);
            if left == 0 && !more {
                return;
            }
        }
    }

    fn sync_if_due(&mut self, stopping: bool) {
        let wanted = std::mem::take(&mut self.history.lock().sync_wanted);
        if self.history.is_unopened() {
            return;
        }
        if wanted || stopping || (self.unsynced > 0 && self.synced_at.elapsed() >= HISTORY_SYNC_EVERY) {
            self.sync();
        }
    }

    fn sync(&mut self) {
        let history = self.history.clone();
        // A state that is restored meanwhile would be called durable further than it has come.
        let _writing = history.writing();
        let written: Vec<(u32, u64)> =
            self.history.lock().shards.iter().map(|(&shard, kept)| (shard, kept.written)).collect();
        if let Err(error) = self.history.store.sync() {
            return self.fail(&error);
        }
        self.unsynced = 0;
        self.synced_at = Instant::now();
        let mut state = self.history.lock();
        for (shard, written) in written {
            if let Some(kept) = state.shards.get_mut(&shard) {
                kept.durable = kept.durable.max(written);
            }
        }
        drop(state);
        self.history.done.notify_all();
    }

    /// The store cannot be written: what waits is missing, and the store is left alone for a while.
    /// So is what was written since the last sync, when that cannot be synced either: the log is
    /// not kept for records that a peer has. Under the right to write.
    fn fail(&mut self, error: &io::Error) {
        tracing::error!(%error, "the history store cannot be written; the node is gapped until it can");
        self.unsynced = 0;
        let synced = self.history.store.sync().is_ok();
        let mut state = self.history.lock();
        for kept in state.shards.values_mut().filter(|_| !synced) {
            kept.add_gap(Gap { after: kept.durable, through: kept.written, chain_to: None });
        }
        self.history.drop_backlog(&mut state, &error.to_string());
        for kept in state.shards.values_mut() {
            kept.durable = kept.written;
            kept.fetch = None;
        }
        state.failed = Some(error.to_string());
        drop(state);
        self.history.done.notify_all();
    }

    /// Has the store opened again if it must be; whether it may be written. Nobody waits for it with the
    /// state's lock.
    fn make_ready(&mut self) -> bool {
        let history = self.history.clone();
        let _writing = history.writing();
        if history.is_unopened() {
            // What comes waits in memory; nothing that lies in the store is given up.
            let opened = history.open_late();
            return opened
                .inspect_err(|error| {
                    tracing::warn!(%error, "the history store cannot be opened; trying again in ten seconds");
                })
                .is_ok();
        }
        match history.store.ready() {
            Ok(Ready::Open) => {}
            Ok(Ready::Again) => history.lost_since_sync(),
            Ok(Ready::Emptied) => history.lost_all(),
            Err(error) => {
                self.fail(&error);
                return false;
            }
        }
        true
    }

    fn retain_if_due(&mut self) {
        if self.retained_at.elapsed() < HISTORY_RETAIN_EVERY {
            return;
        }
        self.retained_at = Instant::now();
        // After a failure the store is left alone until now; then it gets another chance.
        self.history.lock().failed = None;
        if !self.make_ready() {
            return;
        }
        match self.history.retain() {
            // What waits is written first.
            Ok(true) => self.retained_at = Instant::now().checked_sub(HISTORY_RETAIN_EVERY).unwrap_or(self.retained_at),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "history could not drop its oldest records"),
        }
    }
}

impl KeptHistory {
    /// Drops the oldest records: those past their age, and, while the store takes too much, of the shard that reaches back
    /// furthest; of each shard all but the newest. A shard that fails keeps no other from it. As many as one turn may; answers
    /// whether there are more.
    pub(crate) fn retain(&self) -> io::Result<bool> {
        self.lock().rate.look();
        let shards: Vec<(u32, u64)> =
            self.lock().shards.iter().map(|(&shard, kept)| (shard, kept.note.oldest)).collect();
        let mut left = HISTORY_RETAIN_RECORDS_MAX;
        let mut oldest = BTreeSet::new();
        let mut failed = Ok(());
        for (shard, from) in shards {
            let time = match self.retain_shard(shard, from, &mut left) {
                Ok(time) => {
                    self.note_kept(shard, time);
                    time
                }
                Err(error) => {
                    failed = Err(error);
                    // How old its records are is not known: for room they go first.
                    self.has_more(shard, from).then_some(0)
                }
            };
            oldest.extend(time.map(|time| (time, shard)));
        }
        // Files go when nothing in them is needed any more. What was dropped and waits for that counts as gone: to drop more would free no
        // more.
        let mut dropped = 0;
        let too_much = self.store.size().saturating_sub(self.keep.bytes_max).saturating_sub(self.store.unfreed());
        while left > 0
            && dropped < too_much
            && let Some((_, shard)) = oldest.pop_first()
        {
            match self.retain_for_room(shard, too_much - dropped, &mut left) {
                Ok((bytes, time)) => {
                    dropped += bytes;
                    self.note_kept(shard, time);
                    oldest.extend(time.map(|time| (time, shard)));
                }
                Err(error) => failed = Err(error),
            }
        }
        match failed {
            // Others have more.
            Err(error) if left == 0 => tracing::error!(%error, "history could not drop its oldest records of a shard"),
            failed => failed?,
        }
        Ok(left == 0)
    }

    /// As [`Self::retain_by_age`], past records that cannot be read: those must not keep all older
    /// ones.
    fn retain_shard(&self, shard: u32, from: u64, left: &mut usize) -> io::Result<Option<u64>> {
        for _ in 0..HISTORY_READ_TRIES {
            let error = match self.retain_by_age(shard, from, left) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => error,
                done => return done,
            };
            let last = self.store.last_index(shard, u64::MAX)?.unwrap_or(0);
            if !self.drop_unreadable(shard, from, u64::MAX)? && !self.drop_unreadable(shard, last, last)? {
                return Err(error);
            }
        }
        Ok(None)
    }

    /// Whether more than the newest record is kept of a shard.
    fn has_more(&self, shard: u32, from: u64) -> bool {
        self.store.marks(shard, from, u64::MAX, 2).is_ok_and(|marks| marks.len() > 1)
    }

    /// Drops the oldest records of a shard, about a file of them or `most` bytes. None of them is read. Answers how many bytes that
    /// were, and the time of the oldest that is left, if it may be dropped.
    fn retain_for_room(&self, shard: u32, most: u64, left: &mut usize) -> io::Result<(u64, Option<u64>)> {
        let _writing = self.writing();
        let from = self.lock().shards.get(&shard).map_or(0, |kept| kept.note.oldest);
        let mut bytes = 0;
        let marks = self.store.marks(shard, from, u64::MAX, HISTORY_RETAIN_STEP.min(*left))?;
        // The newest stays: what its chain value is, is how a peer knows that nothing came after
        // it.
        let newest = self.store.last_index(shard, u64::MAX)?.unwrap_or(0);
        let (mut count, mut last) = (0, None);
        for mark in marks.iter().take_while(|mark| mark.index < newest) {
            if bytes >= most.min(HISTORY_RETAIN_BYTES as u64) {
                break;
            }
            (count, bytes, last) = (count + 1, bytes + u64::from(mark.len), Some(mark.index));
        }
        let Some(last) = last else { return Ok((0, None)) };
        self.drop_old(shard, last + 1)?;
        *left -= count;
        Ok((bytes, self.oldest_to_drop(shard, last + 1, newest)))
    }

    /// How far back a shard reaches whose oldest record is of that time; none: it has but its newest. Zero: it cannot be read.
    fn note_kept(&self, shard: u32, oldest: Option<u64>) {
        if oldest == Some(0) {
            return;
        }
        let newest = oldest.and_then(|_| self.time_of(self.store.last_up_to(shard, u64::MAX).ok()?));
        let kept_ms = newest.zip(oldest).map_or(0, |(newest, oldest)| newest.saturating_sub(oldest));
        if let Some(kept) = self.lock().shards.get_mut(&shard) {
            (kept.kept_ms, kept.oldest_ms) = (kept_ms, newest.zip(oldest).map_or(0, |(_, oldest)| oldest));
        }
    }

    /// The time of the first record from an index on, if there is one before the newest. One that cannot be read is old for all that
    /// is known.
    fn oldest_to_drop(&self, shard: u32, from: u64, newest: u64) -> Option<u64> {
        let page = self.store.range(shard, from, u64::MAX, PageBounds { records: 1, bytes: 1 });
        let Ok(page) = page else { return Some(0) };
        let first = page.into_iter().next().filter(|(index, _)| *index < newest)?;
        Some(self.time_of(Some(first)).unwrap_or(0))
    }

    /// Drops what is past its age of one shard. Answers the time of its oldest record, if there is one that may be dropped for room.
    fn retain_by_age(&self, shard: u32, from: u64, left: &mut usize) -> io::Result<Option<u64>> {
        // A fill must not put young records among those that were found old.
        let _writing = self.writing();
        let last = self.store.last_up_to(shard, u64::MAX)?;
        let newest_index = last.as_ref().map_or(0, |(index, _)| *index);
        // A record of another build's format has no time that is known here; for room it goes first.
        let of_no_time = || Ok(self.has_more(shard, from).then_some(0));
        let Some(newest) = self.time_of(last) else { return of_no_time() };
        let limit = newest.saturating_sub(self.keep.keep.as_millis() as u64);
        let page = self.store.range(shard, from, u64::MAX, PageBounds { records: 1, bytes: 1 })?;
        let Some(first) = page.into_iter().next() else { return Ok(None) };
        let first_index = first.0;
        let Some(time) = self.time_of(Some(first)) else { return of_no_time() };
        if time >= limit || *left == 0 {
            return Ok((first_index < newest_index).then_some(time));
        }
        let young = self.first_young(shard, first_index, newest_index, limit)?;
        let old = self.store.marks(shard, from, young - 1, *left)?;
        let Some(last) = old.last() else { return Ok(None) };
        self.drop_old(shard, last.index + 1)?;
        *left -= old.len();
        Ok(self.oldest_to_drop(shard, last.index + 1, newest_index))
    }

    /// The first record of a shard that is not past its age: `old` is, and `young` is not. Times rise with indexes, so that few
    /// records are read however many there are. One that cannot be read counts as young: the next turn begins with it.
    fn first_young(&self, shard: u32, mut old: u64, mut young: u64, limit: u64) -> io::Result<u64> {
        while young - old > 1 {
            let middle = old + (young - old) / 2;
            match self.store.last_up_to(shard, middle) {
                Ok(Some((index, _))) if index <= old => old = middle,
                Ok(Some((index, bytes))) => match self.time_of(Some((index, bytes))) {
                    Some(time) if time < limit => old = middle,
                    _ => young = index,
                },
                Ok(None) => old = middle,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    young = self.store.last_index(shard, middle)?.filter(|&index| index > old).unwrap_or(middle);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(young)
    }

    /// Ledger time of a record.
    fn time_of(&self, record: Option<(u64, bytes::Bytes)>) -> Option<u64> {
        record.and_then(|(_, bytes)| codec::decode_record(&bytes).ok()).map(|record| record.time.0)
    }

    /// Remembers first that everything below is gone, then removes it: a crash in between only wastes space, and a reader in between
    /// looks again.
    pub(super) fn drop_below(&self, shard: u32, index: u64) -> io::Result<()> {
        self.drop_up_to(shard, |_| Ok(index))
    }

    /// The same for retention, which keeps the newest record: a replay may have removed what was newest when it looked.
    fn drop_old(&self, shard: u32, index: u64) -> io::Result<()> {
        self.drop_up_to(shard, |kept| {
            let newest = self.store.last_index(shard, u64::MAX)?.unwrap_or(0);
            Ok(index.min(newest).min(kept.written))
        })
    }

    fn drop_up_to(&self, shard: u32, index: impl FnOnce(&Kept) -> io::Result<u64>) -> io::Result<()> {
        let index = {
            let mut state = self.lock();
            let Some(kept) = state.shards.get_mut(&shard) else { return Ok(()) };
            let index = index(kept)?;
            let first = kept.note.gaps.first().cloned();
            kept.change_note(|note| {
                note.oldest = note.oldest.max(index);
                if let Some(before) = note.oldest.checked_sub(1) {
                    note.gaps.iter_mut().for_each(|gap| gap.after = gap.after.max(before));
                    note.gaps.retain(|gap| gap.after < gap.through);
                }
            });
            if let Some(first) = first {
                kept.shorten_fetch(&first);
            }
            self.save_note(shard, kept)?;
            index
        };
        self.remove_below(shard, index)
    }

    /// Removes what no longer counts.
    fn remove_below(&self, shard: u32, index: u64) -> io::Result<()> {
        let Some(last) = index.checked_sub(1) else { return Ok(()) };
        while self.store.remove(shard, 0, last, HISTORY_RETAIN_BATCH)? == HISTORY_RETAIN_BATCH {}
        Ok(())
    }
}
