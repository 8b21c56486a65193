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

/// Where a record is, and 24 bits of its id's hash, so that growing a table reads no record: those lie all over the memory.
#[derive(Clone, Copy)]
struct Entry([u8; 7]);

impl Entry {
    fn new(found: Found, hash: u64) -> Self {
        let (at, hash) = (found.tagged().to_le_bytes(), (hash as u32).to_le_bytes());
        Self([at[0], at[1], at[2], at[3], hash[0], hash[1], hash[2]])
    }
    fn tagged(self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
    /// The hash as the table sees it.
    fn spread(self) -> u64 {
        spread(u64::from(u32::from_le_bytes([self.0[4], self.0[5], self.0[6], 0])))
    }
}

/// 24 bits as the table wants them: the lowest choose the bucket, the highest seven are its tag.
#[inline]
fn spread(hash: u64) -> u64 {
    let bits = hash & 0x00ff_ffff;
    bits | bits << 40
}

pub(crate) struct IdIndex {
    tables: Vec<HashTable<Entry>>,
    len: usize,
}

#[inline]
fn hash(id: &[u8; 16]) -> u64 {
    xxh3_64(id)
}

#[inline]
fn table_of(hash: u64) -> usize {
    // Other bits than those that are stored.
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
        let own = spread(hash);
        let is_it = |entry: &Entry| entry.spread() == own && id_of(Found::untagged(entry.tagged())) == *id;
        Some(Found::untagged(self.tables[table_of(hash)].find(own, is_it)?.tagged()))
    }

    /// What an id's hash alone finds: no record is read.
    #[inline]
    pub(crate) fn likely(&self, id: &[u8; 16]) -> Option<Found> {
        let hash = hash(id);
        let own = spread(hash);
        Some(Found::untagged(self.tables[table_of(hash)].find(own, |entry| entry.spread() == own)?.tagged()))
    }

    /// Adds an id that is not in it.
    #[inline]
    pub(crate) fn insert(&mut self, id: &[u8; 16], found: Found) {
        let hash = hash(id);
        let table = &mut self.tables[table_of(hash)];
        table.insert_unique(spread(hash), Entry::new(found, hash), |entry| entry.spread());
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, id: &[u8; 16], found: Found) {
        let hash = hash(id);
        let tagged = found.tagged();
        let entry = self.tables[table_of(hash)].find_entry(spread(hash), |entry| entry.tagged() == tagged);
        entry.unwrap_or_else(|_| panic!("{found:?} is not indexed")).remove();
        self.len -= 1;
    }
}
