//! The index from ids to records.
//!
//! **Owns** where a record is found. **Must never** be iterated for a decision. **Read next**: [`super::places`], [`super::memory`].

use super::places::Places;
use super::seed::IndexHash;

/// Sub-tables: one that grows moves a thousandth of the ids.
const TABLES: usize = 1_024;
/// Set in a place that is one of the refused records.
const REFUSED: u32 = 1 << 31;

/// Where an id's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Reservation(u32),
    Refused(u32),
}

impl Found {
    /// As one number, for tables and queues that hold both kinds.
    pub(crate) fn tagged(self) -> u32 {
        match self {
            Self::Reservation(at) => {
                assert!(at < REFUSED, "fewer than 2^31 reservations");
                at
            }
            Self::Refused(at) => {
                assert!(at < REFUSED, "fewer than 2^31 refusals");
                at | REFUSED
            }
        }
    }
    pub(crate) fn untagged(tagged: u32) -> Self {
        if tagged & REFUSED == 0 { Self::Reservation(tagged) } else { Self::Refused(tagged & !REFUSED) }
    }
}

pub(crate) struct IdIndex {
    hash: IndexHash,
    places: Places,
}

impl IdIndex {
    pub(crate) fn new(hash: IndexHash) -> Self {
        Self { hash, places: Places::new(TABLES) }
    }

    /// The hash of an id, for [`Self::touch`] and [`Self::likely`].
    #[inline]
    pub(crate) fn hash(&self, id: &[u8; 16]) -> u64 {
        self.hash.of(id)
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.places.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Finds an id's record; `id_of` reads the id of a candidate.
    #[inline]
    pub(crate) fn find(&self, id: &[u8; 16], id_of: impl Fn(Found) -> [u8; 16]) -> Option<Found> {
        self.places.find(self.hash.of(id), |place| id_of(Found::untagged(place)) == *id).map(Found::untagged)
    }

    /// Reads the word at which looking for a hash begins.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        self.places.touch(hash)
    }

    /// What an id's hash alone finds: no record is read.
    #[inline]
    pub(crate) fn likely(&self, hash: u64) -> Option<Found> {
        self.places.find(hash, |_| true).map(Found::untagged)
    }

    /// Adds an id that is not in it.
    #[inline]
    pub(crate) fn insert(&mut self, id: &[u8; 16], found: Found) {
        self.places.insert(self.hash.of(id), found.tagged());
    }

    pub(crate) fn remove(&mut self, id: &[u8; 16], found: Found) {
        self.places.remove(self.hash.of(id), found.tagged());
    }
}
