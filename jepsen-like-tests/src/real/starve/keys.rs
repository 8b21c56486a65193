//! Limit keys that would stand in one run of one index, if indexes were hashed without a secret.
//!
//! **Owns** how they are found, which is how any caller could find them. **Must never** know the secret of a node.
//! **Read next**: `ledger-core/src/state/seed.rs`, which is why they do no harm.

use xxhash_rust::xxh3::xxh3_64;

/// The limit keys of a shard stand in so many tables (`ledger-core/src/state/keys.rs`).
const TABLES: u64 = 256;
/// The table that all of them are chosen for, and the part of it: one of eight.
const TABLE: u64 = 7;
const PART: u32 = 3;

/// Finds such keys by trial, each a new one. One of 2,048 is: a trial is a few instructions, in any build.
#[derive(Debug, Default)]
pub(super) struct CollidingKeys {
    next: u32,
}

/// Whether a key stands in the chosen part of the chosen table.
fn collides(text: &[u8]) -> bool {
    let hash = xxh3_64(text);
    (hash >> 40) & (TABLES - 1) == TABLE && (hash as u32) >> 29 == PART
}

/// A number as eight letters.
fn letters(number: u32) -> [u8; 8] {
    let halves = (u64::from(number) << 16 | u64::from(number)) & 0x0000_ffff_0000_ffff;
    let bytes = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes << 4 | bytes) & 0x0f0f_0f0f_0f0f_0f0f;
    (digits + 0x6161_6161_6161_6161).to_le_bytes()
}

impl Iterator for CollidingKeys {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let text = letters(self.next);
            self.next = self.next.checked_add(1)?;
            if collides(&text) {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_all_collide() {
        let mut keys: Vec<String> = CollidingKeys::default().take(20).collect();
        assert!(keys.iter().all(|key| collides(key.as_bytes()) && key.len() == 8), "{keys:?}");
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 20);
    }
}
