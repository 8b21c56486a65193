//! The cursor of a watch: opaque to callers, one for all shards.
//!
//! **Owns** its encoding: version, incarnation, a place for each shard, and a checksum, so that one that was cut or mixed up is
//! refused instead of believed. **Must never** be read by anybody but this node's kind. **Read next**: [`super::watch`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Where to go on in one shard: at this record, behind so many of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The next record to be told lies at this index or above.
    pub next: u64,
    /// If it lies exactly there, so many of its changes were told already.
    pub skip: u32,
}

/// Where to go on in every shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The cluster's incarnation; another one's cursors say nothing here.
    pub incarnation: u64,
    /// By shard; a shard that is not named starts at its beginning.
    pub places: BTreeMap<u32, Place>,
}

/// The bytes are no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is malformed; take it as it came in a frame, or start without one")]
pub struct MalformedCursor;

/// Format of the cursor.
const VERSION: u8 = 1;
/// Bytes before the places.
const HEAD: usize = 1 + 8 + 2;
/// Bytes of one place.
const PLACE: usize = 4 + 8 + 4;
/// Bytes of the checksum behind them.
const SUM: usize = 4;

impl Cursor {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD + self.places.len() * PLACE + SUM);
        out.put_u8(VERSION);
        out.put_u64(self.incarnation);
        out.put_u16(self.places.len() as u16);
        for (&shard, place) in &self.places {
            out.put_u32(shard);
            out.put_u64(place.next);
            out.put_u32(place.skip);
        }
        let sum = checksum(&out);
        out.put_u32(sum);
        out.freeze()
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MalformedCursor`] for everything that [`Cursor::encode`] did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedCursor> {
        let body_len = bytes.len().checked_sub(SUM).filter(|&len| len >= HEAD).ok_or(MalformedCursor)?;
        let (mut body, mut sum) = bytes.split_at(body_len);
        if sum.get_u32() != checksum(body) || body.get_u8() != VERSION {
            return Err(MalformedCursor);
        }
        let incarnation = body.get_u64();
        let count = body.get_u16() as usize;
        if body.len() != count * PLACE {
            return Err(MalformedCursor);
        }
        let places =
            (0..count).map(|_| (body.get_u32(), Place { next: body.get_u64(), skip: body.get_u32() })).collect();
        Ok(Self { incarnation, places })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Cursor {
        let places = [(1, Place { next: 77, skip: 0 }), (2, Place { next: u64::MAX, skip: 9 })];
        Cursor { incarnation: 3, places: places.into() }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        assert_eq!(Cursor::decode(&sample().encode()), Ok(sample()));
        assert_eq!(Cursor::decode(&Cursor::default().encode()), Ok(Cursor::default()));
    }

    #[test]
    fn a_cursor_that_was_cut_or_changed_is_refused() {
        let bytes = sample().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Cursor::decode(&bytes[..cut]), Err(MalformedCursor), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x40;
            assert_eq!(Cursor::decode(&changed), Err(MalformedCursor), "changed at {at}");
        }
    }

    #[test]
    fn the_encoding_is_frozen() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..22], "0100000000000000030002");
        assert_eq!(hex.len(), 2 * (HEAD + 2 * PLACE + SUM));
    }
}
