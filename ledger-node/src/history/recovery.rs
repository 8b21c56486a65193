//! How history goes on after a restart, or behind a snapshot of another replica.
//!
//! **What it is.** The state that was restored names its index and its chain value. What lies in the store up to there must end with that
//! value, else it is a gap. What lies behind it is written again by the log, entry by entry: each is compared with what is stored, and at the
//! first that is not there, or is another one, all that is stored from there on is removed and written anew. So a hole behind the
//! restored state is closed by the log itself, whether or not anybody knew of it.
//!
//! **Owns** those comparisons. **Must never** take a later record as proof that earlier ones are there. **Read next**: [`super::kept`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ledger_core::codec;

use super::kept::{Kept, KeptHistory, chain_behind};
use super::store::{Mark, Note, RecordStore, Stored};
use super::{Gap, PageBounds};
use crate::limits::{HISTORY_RETAIN_BATCH, HISTORY_VERIFY_LAST};

/// What lies in the store behind a restored state, while the log is replayed.
pub(super) struct Resume {
    /// The next of them.
    marks: VecDeque<Mark>,
    /// More of them lie from here on.
    more_from: u64,
    /// The last of them.
    last: u64,
}

impl Resume {
    /// The first stored record at or above an index.
    fn next(&mut self, store: &dyn RecordStore, shard: u32, index: u64) -> io::Result<Option<Mark>> {
        loop {
            while self.marks.front().is_some_and(|mark| mark.index < index) {
                self.marks.pop_front();
            }
            if let Some(mark) = self.marks.front() {
                return Ok(Some(*mark));
            }
            if self.more_from > self.last {
                return Ok(None);
            }
            self.marks = store.marks(shard, self.more_from, self.last, HISTORY_RETAIN_BATCH)?.into();
            self.more_from = self.marks.back().map_or(self.last, |mark| mark.index) + 1;
        }
    }
}

/// Walks the chain over the newest records that count, and names what is missing between them though no gap does. Records that cannot be
/// read are missing as well.
pub(super) fn holes(store: &dyn RecordStore, shard: u32, note: &Note) -> io::Result<Vec<Gap>> {
    let one = PageBounds { records: 1, bytes: 1 };
    let mut holes = Vec::new();
    let mut upto = u64::MAX;
    // The first index behind what was walked, and the chain value that the record before it must have behind it.
    let mut behind: Option<(u64, Option<u128>)> = None;
    for _ in 0..HISTORY_VERIFY_LAST {
        let Some(index) = store.last_index(shard, upto)?.filter(|index| *index >= note.oldest) else { break };
        let bytes = match store.range(shard, index, index, one) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            read => read?.pop().map(|(_, bytes)| bytes),
        };
        let record = bytes.as_ref().and_then(|bytes| Some((codec::decode_record(bytes).ok()?, chain_behind(bytes)?)));
        match (&record, behind) {
            (None, _) => holes.push(Gap { after: index.saturating_sub(1), through: index, chain_to: None }),
            (Some((_, chain)), Some((next, Some(expected)))) if *chain != expected => {
                // Neighbours that disagree: the later one is fetched again, and with it whatever it continues.
                let adjacent = index + 1 == next;
                let (through, chain_to) = if adjacent { (next, None) } else { (next - 1, Some(expected)) };
                let named = note.gaps.iter().any(|gap| gap.through >= index && gap.after < next);
                if !named {
                    holes.push(Gap { after: index, through, chain_to });
                }
            }
            _ => {}
        }
        behind = Some((index, record.map(|(record, _)| record.chain_before)));
        let Some(below) = index.checked_sub(1) else { break };
        upto = below;
    }
    Ok(holes)
}

impl KeptHistory {
    /// The shard's state was restored as of index `at`; its chain value is `chain`.
    pub(super) fn restored(&self, shard: u32, at: u64, chain: u128) {
        let _writing = self.writing();
        let mut state = self.lock();
        let state = &mut *state;
        let kept = state.shards.entry(shard).or_default();
        let waiting = kept.backlog.drain(..).filter(|(index, _)| *index <= at);
        let waiting: Vec<Stored> = waiting.map(|(index, bytes)| Stored { shard, index, bytes }).collect();
        state.backlog_bytes -= std::mem::take(&mut kept.backlog_bytes);
        // Readers that are looking now saw the records of the state before.
        kept.change_note(|_| {});
        (kept.fetch, kept.resume) = (None, None);
        let restored = match self.is_unopened() {
            true => Err(io::Error::new(io::ErrorKind::NotConnected, "it is not open yet")),
            false => self.restore(shard, kept, &waiting, at, chain),
        };
        if let Err(error) = restored {
            tracing::error!(shard, %error, "the history store cannot be read; all of it is missing here");
            kept.change_note(|note| note.gaps.clear());
            kept.add_gap(Gap { after: kept.note.oldest.saturating_sub(1), through: at, chain_to: Some(chain) });
        }
        (kept.applied, kept.written, kept.durable) = (at, at, at);
        kept.began = Some((at, chain));
        let _later = self.save_note(shard, kept);
    }

    fn restore(&self, shard: u32, kept: &mut Kept, waiting: &[Stored], at: u64, chain: u128) -> io::Result<()> {
        self.save_note(shard, kept)?;
        self.store.put(waiting)?;
        // What gaps behind the state miss, the log brings; what is stored behind them comes again, too.
        if let Some(hole) = kept.note.gaps.iter().find(|gap| gap.through > at).map(|gap| gap.after.max(at)) {
            self.remove_from(shard, hole + 1)?;
        }
        kept.change_note(|note| note.end_gaps_at(at, chain));
        self.check_end(shard, kept, at, chain)?;
        let last = self.store.last_index(shard, u64::MAX)?.filter(|last| *last > at);
        kept.resume = last.map(|last| Resume { marks: VecDeque::new(), more_from: at + 1, last });
        Ok(())
    }

    /// Opens the store after states were restored without it: what lies in it up to those states is
    /// compared with them, and what was dropped since is missing. Until all of that was done it counts
    /// as unopened, and this may be called again. Under the right to write.
    ///
    /// # Errors
    /// The store cannot be opened, read, or written.
    pub(super) fn open_late(&self) -> io::Result<()> {
        self.store.ready()?;
        let mut notes = BTreeMap::new();
        for (shard, bytes) in self.store.notes()? {
            let note = Note::decode(&bytes);
            notes.insert(shard, note.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
        }
        let began = |(shard, kept): (&u32, &Kept)| Some((*shard, kept.began?));
        let restored: Vec<(u32, (u64, u128))> = self.lock().shards.iter().filter_map(began).collect();
        for (shard, (at, chain)) in restored {
            let note = notes.remove(&shard).unwrap_or_default();
            let mut found = Self::found(self.store.as_ref(), shard, note)?;
            // What lies behind the state comes again, or is missing.
            self.remove_from(shard, at + 1)?;
            found.note.end_gaps_at(at, chain);
            self.check_end(shard, &mut found, at, chain)?;
            let mut state = self.lock();
            let Some(kept) = state.shards.get_mut(&shard).filter(|kept| kept.began == Some((at, chain))) else {
                continue;
            };
            let dropped = kept.note.gaps.last().filter(|gap| gap.through > at).cloned();
            if let Some(gap) = dropped {
                found.add_gap(Gap { after: at, ..gap });
            }
            kept.change_note(|note| *note = found.note);
            (kept.fetch, kept.resume) = (None, None);
        }
        // Shards whose states are not restored yet find them as after a start with the store.
        for (shard, note) in notes {
            let found = Self::found(self.store.as_ref(), shard, note)?;
            self.lock().shards.insert(shard, found);
        }
        self.unopened.store(false, Ordering::Release);
        Ok(())
    }

    /// What is known of a shard whose state is not restored yet: its note, and the holes that it does
    /// not name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn found(store: &dyn RecordStore, shard: u32, note: Note) -> io::Result<Kept> {
        let mut found = Kept { note, ..Kept::default() };
        for hole in holes(store, shard, &found.note)? {
            tracing::warn!(
                shard,
                after = hole.after,
                through = hole.through,
                "the history store misses records that nothing names; they are a gap, filled from peers"
            );
            found.add_gap(hole);
        }
        Ok(found)
    }

    /// Whether what is stored up to a restored state ends with its chain value; if not, a gap ends there.
    fn check_end(&self, shard: u32, kept: &mut Kept, at: u64, chain: u128) -> io::Result<()> {
        if ledger_core::bad!("history-gap-forgotten") {
            return Ok(());
        }
        let known = |gap: &Gap| gap.through == at && gap.chain_to == Some(chain);
        if kept.note.gaps.last().is_some_and(known) {
            return Ok(());
        }
        let oldest = kept.note.oldest;
        let before = loop {
            match self.last_that_counts(shard, oldest, at) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    // It cannot be read: it is missing.
                    let Some(lost) = self.store.last_index(shard, at)? else { break None };
                    self.store.remove(shard, lost, lost, 1)?;
                }
                before => break before?,
            }
        };
        let all = Gap { after: oldest.saturating_sub(1), through: at, chain_to: Some(chain) };
        match before {
            // Never anything: an untouched state has the chain value zero.
            None if chain == 0 || at == 0 => {}
            None => kept.add_gap(all),
            Some((_, bytes)) if chain_behind(&bytes) == Some(chain) => {}
            Some((last, _)) if last < at => kept.add_gap(Gap { after: last, ..all }),
            // The very last record is of another history: nothing of it can be believed.
            Some(_) => kept.add_gap(all),
        }
        Ok(())
    }

    /// Compares what the log says again with what is stored. Answers whether it is there already.
    pub(super) fn replayed(&self, shard: u32, kept: &mut Kept, index: u64, record: Option<&Bytes>) -> bool {
        let Some(resume) = &mut kept.resume else { return false };
        let next = resume.next(self.store.as_ref(), shard, index);
        match (&next, record) {
            (Ok(None), _) => kept.resume = None,
            (Ok(Some(mark)), None) if mark.index > index => return true,
            (Ok(Some(mark)), Some(record)) if *mark == Mark::of(index, record) => return true,
            _ => self.write_anew(shard, kept, index),
        }
        false
    }

    /// What is stored from an index on is not what the log says, or what the log says is missing there: it is removed, and written anew.
    fn write_anew(&self, shard: u32, kept: &mut Kept, index: u64) {
        let last = kept.resume.take().map_or(index, |resume| resume.last);
        tracing::warn!(shard, index, last, "history does not hold what the log says; it is written anew from there");
        kept.change_note(|_| {});
        if let Err(error) = self.remove_from(shard, index) {
            tracing::error!(shard, %error, "history cannot be written anew; it is gapped there and filled from peers");
            kept.add_gap(Gap { after: index.saturating_sub(1), through: last, chain_to: None });
        }
    }

    fn remove_from(&self, shard: u32, index: u64) -> io::Result<()> {
        while self.store.remove(shard, index, u64::MAX, HISTORY_RETAIN_BATCH)? == HISTORY_RETAIN_BATCH {}
        Ok(())
    }
}
