//! The index from ids to records.
//!
//! Split into sub-tables so that growing one never stalls an entry: a rehash of millions of ids at once has cost a leader its leadership.
//! **Owns** where a record is found. **Must never** be iterated for a decision. **Read next**: [`super::memory`].

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Sub-tables: a rehash moves a thousandth of the ids.
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
    /// As one number, for queues that hold both kinds.
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
    tables: Vec<HashTable<u32>>,
    len: usize,
}

#[inline]
fn hash(id: &[u8; 16]) -> u64 {
    xxh3_64(id)
}

#[inline]
fn table_of(hash: u64) -> usize {
    // The middle bits: hashbrown uses the lowest for the bucket and the highest for the tag.
    (hash >> 40) as usize % TABLES
}

impl IdIndex {
    pub(crate) fn new() -> Self {
        Self { tables: (0..TABLES).map(|_| HashTable::new()).collect(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Finds an id's record; `id_of` reads the id of a candidate.
    #[inline]
    pub(crate) fn find(&self, id: &[u8; 16], id_of: impl Fn(Found) -> [u8; 16]) -> Option<Found> {
        let hash = hash(id);
        let tagged = self.tables[table_of(hash)].find(hash, |&tagged| id_of(Found::untagged(tagged)) == *id)?;
        Some(Found::untagged(*tagged))
    }

    /// Adds an id that is not in it.
    #[inline]
    pub(crate) fn insert(&mut self, id: &[u8; 16], found: Found, id_of: impl Fn(Found) -> [u8; 16]) {
        let own = hash(id);
        self.tables[table_of(own)].insert_unique(own, found.tagged(), |&tagged| hash(&id_of(Found::untagged(tagged))));
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, id: &[u8; 16], found: Found) {
        let hash = hash(id);
        let tagged = found.tagged();
        let entry = self.tables[table_of(hash)].find_entry(hash, |&t| t == tagged);
        entry.unwrap_or_else(|_| panic!("{found:?} is not indexed")).remove();
        self.len -= 1;
    }
}
