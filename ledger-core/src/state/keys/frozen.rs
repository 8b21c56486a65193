//! What the audit of a frozen view reads of limit keys.
//!
//! **Owns** the ways through [`FrozenKeys`]. **Must never** look anything up: the view has no index. **Read next**: [`crate::audit`].

use super::super::records::NONE;
use super::FrozenKeys;
use crate::types::LimitKey;

/// What a key counts in an offer.
#[derive(Clone, Copy)]
pub(crate) struct FrozenCount {
    pub(crate) key: u32,
    pub(crate) offer: u32,
    /// Units held beyond the time asked for, and bought.
    pub(crate) used: u64,
    pub(crate) sold: u64,
    /// Of those sold, by forgotten reservations.
    pub(crate) kept: u64,
}

impl FrozenKeys {
    /// No key has a place from here on.
    pub(crate) fn places(&self) -> u32 {
        self.records.places()
    }
    /// The text of the key at a place, if there is one.
    pub(crate) fn text(&self, key: u32) -> Option<&LimitKey> {
        self.records.try_get(key)?.text.as_ref()
    }
    /// Every key's place, and how many reservations carry it by its record.
    pub(crate) fn carried(&self) -> impl Iterator<Item = (u32, u32)> {
        self.records.iter().map(|(at, key)| (at, key.carried))
    }
    /// Every counter of a sale that runs as of a ledger time, and of plain offers.
    pub(crate) fn counts(&self, time: u64) -> impl Iterator<Item = FrozenCount> {
        let first = self.records.iter().map(|(at, key)| (at, &key.first)).filter(|(_, count)| count.offer != NONE);
        let all = first.chain(self.more.iter().map(|(_, more)| (more.key, &more.count)));
        let running = all.map(|(key, count)| (key, count, self.offers.try_get(count.offer)));
        let running = running.filter(|(.., offer)| offer.is_none_or(|offer| !offer.ended));
        running.map(move |(key, count, offer)| FrozenCount {
            key,
            // None of one that is not there.
            offer: offer.map_or(NONE, |offer| offer.number),
            used: count.used(time),
            sold: count.sold,
            kept: count.kept,
        })
    }
    /// Counters beyond the first of their keys: by the keys, and as there are.
    pub(crate) fn more(&self) -> (u64, u64) {
        (self.records.iter().map(|(_, key)| u64::from(key.more)).sum(), self.more.iter().count() as u64)
    }
}
