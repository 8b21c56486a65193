//! The keyed hash of every index.
//!
//! **What it is.** Callers choose ids, limit keys and references. If they knew the hash, they could choose thousands that stand in
//! one run of one table, and each look-up would walk all of them. So each replica hashes with a secret of its own.
//! **Owns** the hash of the indexes. **Must never** reach a snapshot, a digest, a record or an answer: replicas have different
//! secrets and the same state. **Read next**: [`super::places`].

use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Bytes of the secret, as many as XXH3's own has.
const SECRET_BYTES: usize = 192;

/// What the hashes of a ledger's indexes are drawn from: 128 random bits that no caller can learn. It decides where records
/// are found, never what is decided, so replicas of one shard have different ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IndexSeed(pub u128);

/// Secret: it is in no log.
impl std::fmt::Debug for IndexSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexSeed(secret)")
    }
}

/// The hash of one ledger's indexes.
#[derive(Clone)]
pub(crate) struct IndexHash([u8; SECRET_BYTES]);

impl IndexHash {
    /// A whole secret and not only XXH3's seed: the seed reaches short inputs by one addition, which inputs can be chosen around.
    pub(crate) fn new(seed: IndexSeed) -> Self {
        let mut streams = [seed.0 as u64, (seed.0 >> 64) as u64];
        let mut secret = [0; SECRET_BYTES];
        for bytes in secret.chunks_exact_mut(8) {
            let word = split_mix(&mut streams[0]).wrapping_add(split_mix(&mut streams[1]).rotate_left(17));
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(secret)
    }

    /// The hash of a name.
    #[inline]
    pub(crate) fn of(&self, name: &[u8]) -> u64 {
        xxh3_64_with_secret(name, &self.0)
    }
}

/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_of_a_seed_changes_every_hash() {
        let seeds = [0, 1, 1 << 64, 1 << 127, u128::MAX];
        for name in [&b"a"[..], b"an-id-of-16-byte", &[7; 64], &[7; 200], &[7; 300]] {
            let mut hashes: Vec<_> = seeds.iter().map(|&s| IndexHash::new(IndexSeed(s)).of(name)).collect();
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), seeds.len(), "of {} bytes", name.len());
            assert_eq!(IndexHash::new(IndexSeed(1)).of(name), IndexHash::new(IndexSeed(1)).of(name));
        }
    }

    #[test]
    fn seed_is_not_printed() {
        assert_eq!(format!("{:?}", IndexSeed(123_456)), "IndexSeed(secret)");
    }
}
