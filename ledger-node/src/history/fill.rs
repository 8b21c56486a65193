//! Filling a gap with records of peers.
//!
//! **What it is.** Records are fetched from the beginning of the first gap. They are handed out only when the gap is closed: that each one
//! continues the one before proves nothing about a peer whose history went another way; that the last one ends with the chain value behind
//! the gap proves all of them. How far the fetch has come is not remembered over a restart: it begins anew.
//!
//! **Owns** that proof. **Must never** close a gap without it where the chain value behind it is known.
//! **Read next**: [`super::backfill`].

use std::io;

use bytes::Bytes;
use ledger_core::codec;

use super::kept::{Kept, KeptHistory, chain_behind};
use super::store::Stored;
use super::{FillError, Gap, PageBounds};
use crate::limits::HISTORY_RETAIN_BATCH;

/// How far a gap was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Of which gap.
    gap: Gap,
    /// Everything up to here is in the store.
    to: u64,
    /// The chain value there, if it is known.
    chain: Option<u128>,
}

impl Kept {
    /// The first index that is missing and was not fetched.
    pub(super) fn wanted(&self) -> u64 {
        let Some(gap) = self.note.gaps.first() else { return 0 };
        self.fetch.as_ref().filter(|fetch| fetch.gap == *gap).map_or(gap.after, |fetch| fetch.to) + 1
    }

    /// Retention raised the beginning of the first gap, which was `before`: what was fetched behind
    /// it counts all the same.
    pub(super) fn shorten_fetch(&mut self, before: &Gap) {
        let gap = self.note.gaps.first().filter(|gap| gap.through == before.through).cloned();
        self.fetch = self.fetch.take().filter(|fetch| fetch.gap == *before).zip(gap).and_then(|(fetch, gap)| {
            let reaches = fetch.to >= gap.after;
            reaches.then_some(Fetch { gap, ..fetch })
        });
    }
}

impl KeptHistory {
    /// Takes records of a peer into the first gap, from where the fetch has come.
    pub(super) fn fill_first(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), FillError> {
        let _writing = self.writing();
        let (gap, fetch, oldest) = {
            let state = self.lock();
            let kept = state.shards.get(&shard).ok_or(FillError::NoGap)?;
            let gap = kept.note.gaps.first().cloned().ok_or(FillError::NoGap)?;
            (gap.clone(), kept.fetch.clone().filter(|fetch| fetch.gap == gap), kept.note.oldest)
        };
        let fetch = match fetch {
            Some(fetch) => fetch,
            None => Fetch { to: gap.after, chain: self.chain_at(shard, oldest, gap.after)?, gap },
        };
        let mut next = match self.check(shard, &fetch, records, through) {
            Err(error @ FillError::Unchained { .. }) => {
                self.start_over(shard, &fetch, records);
                return Err(error);
            }
            next => next?,
        };
        // A state's index counts entries that are not the ledger's, too: the chain says that no record is left, and no peer has one to give.
        if next.chain.is_some() && next.chain == next.gap.chain_to {
            next.to = next.gap.through;
        }
        self.replace(shard, fetch.to, &next, records)?;
        let closed = next.to >= next.gap.through;
        if closed {
            self.store.sync()?;
        }
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return Ok(()) };
        if kept.note.gaps.first() != Some(&next.gap) {
            return Ok(());
        }
        if closed {
            kept.fetch = None;
            kept.change_note(|note| {
                note.gaps.remove(0);
            });
            self.save_note(shard, kept)?;
        } else {
            kept.fetch = Some(next);
        }
        Ok(())
    }

    /// The chain value at the last record up to an index; zero before the first of all, none when it is not kept.
    fn chain_at(&self, shard: u32, oldest: u64, index: u64) -> io::Result<Option<u128>> {
        if index == 0 {
            return Ok(Some(0));
        }
        Ok(self.last_that_counts(shard, oldest, index)?.and_then(|(_, bytes)| chain_behind(&bytes)))
    }

    /// Checks a peer's records against each other and against what lies on both sides; answers how far they reach.
    fn check(&self, shard: u32, fetch: &Fetch, records: &[(u64, Bytes)], through: u64) -> Result<Fetch, FillError> {
        let gap = &fetch.gap;
        let through = through.min(gap.through);
        let (mut before, mut chain) = (fetch.to, fetch.chain);
        for (index, bytes) in records.iter().take_while(|(index, _)| *index <= through) {
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
        }
        let next = Fetch { gap: gap.clone(), to: through, chain };
        if through < gap.through {
            return Ok(next);
        }
        let expected = match gap.chain_to {
            Some(chain) => Some(chain),
            None => self.chain_before_next(shard, gap.through)?,
        };
        match (chain, expected) {
            (Some(got), Some(expected)) if got != expected => Err(FillError::Unchained { index: gap.through }),
            // Not one record, and what is kept begins here: only the peer says that there is none.
            (None, Some(_)) => Err(FillError::Unproved { through: gap.through }),
            _ => Ok(next),
        }
    }

    /// Puts records where nothing, or something of another fetch, lies.
    fn replace(&self, shard: u32, after: u64, next: &Fetch, records: &[(u64, Bytes)]) -> io::Result<()> {
        while self.store.remove(shard, after + 1, next.to, HISTORY_RETAIN_BATCH)? == HISTORY_RETAIN_BATCH {}
        let here = records.iter().filter(|(index, _)| *index <= next.to);
        let stored: Vec<Stored> =
            here.map(|(index, bytes)| Stored { shard, index: *index, bytes: bytes.clone() }).collect();
        self.store.put(&stored)
    }

    /// What was fetched does not fit. Usually one of several peers had another history: all is fetched again. When already the first record
    /// does not continue what lies here before the gap, or the last does not reach what lies behind it, that is fetched as well.
    fn start_over(&self, shard: u32, fetch: &Fetch, records: &[(u64, Bytes)]) {
        let gap = &fetch.gap;
        let first = records.first().and_then(|(_, bytes)| codec::decode_record(bytes).ok());
        let at_beginning = fetch.to == gap.after
            && first.is_some_and(|first| fetch.chain.is_some_and(|chain| chain != first.chain_before));
        let behind = match gap.chain_to {
            Some(_) => None,
            None => self.store.last_index(shard, u64::MAX).ok().flatten().and_then(|last| {
                self.store.marks(shard, gap.through + 1, last, 1).ok()?.first().map(|mark| mark.index)
            }),
        };
        let mut state = self.lock();
        let Some(kept) = state.shards.get_mut(&shard) else { return };
        kept.fetch = None;
        if at_beginning {
            let after = kept.note.oldest.saturating_sub(1);
            tracing::warn!(
                shard,
                through = gap.through,
                "history here and at a peer disagree; it is fetched anew from the beginning"
            );
            kept.add_gap(Gap { after, ..gap.clone() });
        } else if let Some(next) = behind.filter(|next| *next <= kept.written) {
            kept.add_gap(Gap { after: gap.after, through: next, chain_to: None });
        }
        let _later = self.save_note(shard, kept);
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
