//! Where records lie: an ordered map from (shard, index) to bytes, and one small note a shard.
//!
//! **Owns** the trait and the note's encoding. **Must never** decide what is missing.
//! **Read next**: [`super::sled_store`], [`super::memory`].

use std::io;

use bytes::Bytes;

use super::Gap;
use crate::limits::HISTORY_GAPS_MAX;

/// One record to be stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which shard.
    pub shard: u32,
    /// Which entry.
    pub index: u64,
    /// The core's encoded record.
    pub bytes: Bytes,
}

/// What is known of a stored record without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which entry.
    pub index: u64,
    /// Bytes.
    pub len: u32,
    /// Their crc32c.
    pub sum: u32,
}

impl Mark {
    /// Of a record.
    pub fn of(index: u64, bytes: &[u8]) -> Self {
        Self { index, len: bytes.len() as u32, sum: crc32c::crc32c(bytes) }
    }
}

/// What became of a store since it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Nothing: it is open.
    Open,
    /// It was opened again: what was not synced before may be gone.
    Again,
    /// It was damaged, and an empty one was begun in its place: nothing that it held is there.
    Emptied,
}

/// An ordered map of records. Readers and one writer at once.
pub trait RecordStore: Send + Sync + 'static {
    /// Stores records; readable at once, durable after [`RecordStore::sync`].
    ///
    /// # Errors
    /// As the store says.
    fn put(&self, records: &[Stored]) -> io::Result<()>;
    /// Records of a shard with `from <= index <= through`, ascending, until a bound is passed.
    ///
    /// # Errors
    /// As the store says; `InvalidData` for a record that cannot be unpacked.
    fn range(&self, shard: u32, from: u64, through: u64, bounds: super::PageBounds) -> io::Result<Vec<(u64, Bytes)>>;
    /// The last record at or below an index.
    ///
    /// # Errors
    /// As the store says.
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>>;
    /// Which records lie there with `from <= index <= through`, ascending, at most `max`; without reading them. Of those that cannot
    /// even be named the first and the last index stand for all, with a length and a checksum that no record has.
    ///
    /// # Errors
    /// As the store says.
    fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>>;
    /// The index of the last record at or below an index; without reading it.
    ///
    /// # Errors
    /// As the store says.
    fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>>;
    /// When the record at an index cannot be read: the first and the last index of those that cannot be read together with it.
    ///
    /// # Errors
    /// As the store says.
    fn unreadable_with(&self, _shard: u32, index: u64) -> io::Result<(u64, u64)> {
        Ok((index, index))
    }
    /// Removes up to `max` records with `from <= index <= through`; answers how many.
    ///
    /// # Errors
    /// As the store says.
    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize>;
    /// The notes of all shards.
    ///
    /// # Errors
    /// As the store says.
    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>>;
    /// Replaces the note of a shard.
    ///
    /// # Errors
    /// As the store says.
    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()>;
    /// Makes everything put durable.
    ///
    /// # Errors
    /// As the store says.
    fn sync(&self) -> io::Result<()>;
    /// Bytes taken.
    fn size(&self) -> u64;
    /// Bytes of records that were removed in this run and still take room, beside others that are needed.
    fn unfreed(&self) -> u64 {
        0
    }
    /// Whether it could not be opened yet: it takes nothing, and what lies in it is not known. Waits for
    /// nothing.
    fn is_unopened(&self) -> bool {
        false
    }
    /// Opens it again after a write failed, or at last. For the writer alone, which asks before it
    /// writes: until then every write and sync is an error.
    ///
    /// # Errors
    /// As the store says.
    fn ready(&self) -> io::Result<Ready> {
        Ok(Ready::Open)
    }
    /// Lets go of the files, whoever still holds the store: it can be opened again at once. All else fails from then on.
    fn close(&self) {}
}

/// What must be remembered of a shard besides its records: where it begins and what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// Everything below was dropped by retention.
    pub oldest: u64,
    /// Missing stretches.
    pub gaps: Vec<Gap>,
}

/// Format of the note.
const NOTE_VERSION: u8 = 1;

impl Note {
    /// Gaps end where a restored state does, whose chain value is known.
    pub(super) fn end_gaps_at(&mut self, at: u64, chain: u128) {
        self.gaps.retain(|gap| gap.after < at);
        if let Some(gap) = self.gaps.last_mut()
            && gap.through > at
        {
            *gap = Gap { after: gap.after, through: at, chain_to: Some(chain) };
        }
    }

    /// Fixed little-endian layout behind a version byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![NOTE_VERSION];
        out.extend(self.oldest.to_le_bytes());
        out.extend((self.gaps.len() as u16).to_le_bytes());
        for gap in &self.gaps {
            out.extend(gap.after.to_le_bytes());
            out.extend(gap.through.to_le_bytes());
            out.push(gap.chain_to.is_some().into());
            out.extend(gap.chain_to.unwrap_or(0).to_le_bytes());
        }
        out
    }

    /// Reads one back; none for anything that [`Note::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        if version != NOTE_VERSION {
            return None;
        }
        let oldest = u64::from_le_bytes(take(&mut rest)?);
        let count = u16::from_le_bytes(take(&mut rest)?) as usize;
        if count > HISTORY_GAPS_MAX {
            return None;
        }
        let mut gaps = Vec::with_capacity(count);
        for _ in 0..count {
            let after = u64::from_le_bytes(take(&mut rest)?);
            let through = u64::from_le_bytes(take(&mut rest)?);
            let [known] = take::<1>(&mut rest)?;
            let chain = u128::from_le_bytes(take(&mut rest)?);
            gaps.push(Gap { after, through, chain_to: (known == 1).then_some(chain) });
        }
        rest.is_empty().then_some(Self { oldest, gaps })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_its_encoding_and_nothing_else_is_one() {
        let note = Note {
            oldest: 7,
            gaps: vec![
                Gap { after: 9, through: 12, chain_to: Some(u128::MAX - 3) },
                Gap { after: 20, through: 21, chain_to: None },
            ],
        };
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note));
        for cut in 0..bytes.len() {
            assert_eq!(Note::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
