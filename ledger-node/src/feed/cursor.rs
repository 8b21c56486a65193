//! The cursor of a watch: opaque to callers, one for all shards.
//!
//! **What it is.** For each shard the index to go on from and the chain value before it. Whoever resumes the watch proves with that
//! value that the first record it reads is the very next one: a node that misses records cannot skip them unseen.
//! **Owns** its encoding: version, incarnation, a place for each shard, and a checksum, so that one that was cut or mixed up is
//! refused instead of believed. **Must never** be read by anybody but this node's kind. **Read next**: [`super::watch`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ledger_proto::limits::CURSOR_BYTES_MAX;

use crate::limits::SHARDS_MAX;

/// Where to go on in one shard: at this record, behind so many of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Directly behind the last record that was delivered whole; the next one lies at this index or above.
    pub next: u64,
    /// If it lies exactly there, so many of its changes were delivered already.
    pub skip: u32,
    /// The chain value that the next record continues; none where the watch began at the oldest record kept.
    pub chain: Option<u128>,
}

impl Place {
    /// Before the first record of a shard.
    pub const FIRST: Self = Self { next: 1, skip: 0, chain: Some(0) };
}

/// Where to go on in every shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The cluster's incarnation; another one's cursors say nothing here.
    pub incarnation: u64,
    /// By shard; a shard that is not named starts at its beginning.
    pub places: BTreeMap<u32, Place>,
}

/// Why bytes are no cursor of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// No build wrote them.
    #[error("the cursor is malformed; take it as it came in a frame, or start without one")]
    Malformed,
    /// A build with another cursor format wrote them.
    #[error(
        "the cursor has format {found}, this node reads format {VERSION}; read the present state and watch from now"
    )]
    OtherFormat {
        /// The format that it names.
        found: u8,
    },
}

/// Format of the cursor. Format 1 had no chain values.
const VERSION: u8 = 2;
/// Bytes before the places.
const HEAD: usize = 1 + 8 + 2;
/// Bytes of one place.
const PLACE: usize = 4 + 8 + 4 + 1 + 16;
/// Bytes of the checksum behind them.
const SUM: usize = 4;

const _: () = assert!(HEAD + SHARDS_MAX as usize * PLACE + SUM <= CURSOR_BYTES_MAX);

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
            out.put_u8(place.chain.is_some().into());
            out.put_u128(place.chain.unwrap_or(0));
        }
        let sum = checksum(&out);
        out.put_u32(sum);
        out.freeze()
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`CursorError`] for everything that [`Cursor::encode`] did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, CursorError> {
        let body_len = bytes.len().checked_sub(SUM).filter(|&len| len >= HEAD).ok_or(CursorError::Malformed)?;
        let (mut body, mut sum) = bytes.split_at(body_len);
        if sum.get_u32() != checksum(body) {
            return Err(CursorError::Malformed);
        }
        let found = body.get_u8();
        if found != VERSION {
            return Err(CursorError::OtherFormat { found });
        }
        let incarnation = body.get_u64();
        let count = body.get_u16() as usize;
        if body.len() != count * PLACE {
            return Err(CursorError::Malformed);
        }
        let places = (0..count).map(|_| get_place(&mut body)).collect::<Option<_>>().ok_or(CursorError::Malformed)?;
        Ok(Self { incarnation, places })
    }
}

fn get_place(body: &mut &[u8]) -> Option<(u32, Place)> {
    let (shard, next, skip) = (body.get_u32(), body.get_u64(), body.get_u32());
    let known = match body.get_u8() {
        0 => false,
        1 => true,
        _ => return None,
    };
    let chain = body.get_u128();
    Some((shard, Place { next, skip, chain: known.then_some(chain) }))
}

fn checksum(bytes: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Cursor {
        let places = [
            (1, Place { next: 77, skip: 0, chain: Some(u128::MAX - 3) }),
            (2, Place { next: u64::MAX, skip: 9, chain: None }),
        ];
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
            assert_eq!(Cursor::decode(&bytes[..cut]), Err(CursorError::Malformed), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x40;
            assert_eq!(Cursor::decode(&changed), Err(CursorError::Malformed), "changed at {at}");
        }
    }

    #[test]
    fn a_cursor_of_format_1_is_refused_by_name() {
        // As format 1 wrote it: one place without a chain value.
        let mut old = BytesMut::new();
        old.put_u8(1);
        old.put_u64(3);
        old.put_u16(1);
        old.put_u32(1);
        old.put_u64(77);
        old.put_u32(0);
        let sum = checksum(&old);
        old.put_u32(sum);
        assert_eq!(Cursor::decode(&old), Err(CursorError::OtherFormat { found: 1 }));
    }

    #[test]
    fn a_cursor_over_the_most_shards_is_within_what_a_watch_takes() {
        let places = (1..=SHARDS_MAX).map(|shard| (shard, Place::FIRST)).collect();
        assert!(Cursor { incarnation: 1, places }.encode().len() <= CURSOR_BYTES_MAX);
    }

    #[test]
    fn the_encoding_is_frozen() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let head = "0200000000000000030002";
        let first = "00000001000000000000004d0000000001fffffffffffffffffffffffffffffffc";
        let second = "00000002ffffffffffffffff000000090000000000000000000000000000000000";
        assert_eq!(&hex[..hex.len() - 2 * SUM], format!("{head}{first}{second}"));
    }
}
