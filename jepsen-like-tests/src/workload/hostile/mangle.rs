//! Bytes that are nearly a message: cut, prolonged, flipped, joined, nested, with unknown fields and numbers that do not end.
//!
//! **Owns** the damage. **Must never** care what the bytes mean. **Read next**: [`super::call`].

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// Bytes flipped at once.
const FLIPS_MAX: usize = 4;
/// Messages within messages: deeper than any decoder follows.
const NESTED: usize = 200;
/// A field number that no message has.
const UNKNOWN: u32 = 1_999;

/// Puts a varint.
pub(super) fn varint(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

fn key(to: &mut Vec<u8>, field: u32, kind: u32) {
    varint(to, u64::from(field) << 3 | u64::from(kind));
}

/// The same bytes with one kind of damage, and whether what is left is surely a message still.
pub(super) fn mangled(rng: &mut SmallRng, mut bytes: Vec<u8>, other: &[u8]) -> (Vec<u8>, bool) {
    let field = [1, 2, 3, 4, 10, 11, 15, 64, UNKNOWN][rng.random_range(0..9)];
    match rng.random_range(0..10) {
        0 => {
            bytes.truncate(rng.random_range(0..=bytes.len()));
            (bytes, false)
        }
        1 => {
            bytes.extend((0..rng.random_range(1..20)).map(|_| rng.next_u32() as u8));
            (bytes, false)
        }
        2 => {
            for _ in 0..rng.random_range(1..=FLIPS_MAX.min(bytes.len().max(1))) {
                if let Some(at) = bytes.len().checked_sub(1) {
                    bytes[rng.random_range(0..=at)] ^= 1 << rng.random_range(0..8);
                }
            }
            (bytes, false)
        }
        // A message may come in parts: of single fields the last one counts, of a oneof the last alternative, lists grow.
        3 => {
            bytes.extend_from_slice(other);
            (bytes, true)
        }
        4 => {
            bytes.extend_from_slice(&bytes.clone());
            (bytes, true)
        }
        5 => {
            unknown_fields(&mut bytes);
            (bytes, true)
        }
        6 => {
            for _ in 0..NESTED {
                let mut outer = Vec::with_capacity(bytes.len() + 8);
                key(&mut outer, field, 2);
                varint(&mut outer, bytes.len() as u64);
                outer.extend_from_slice(&bytes);
                bytes = outer;
            }
            (bytes, false)
        }
        7 => {
            // Groups that are opened and never closed, or never opened.
            (0..NESTED).for_each(|_| key(&mut bytes, UNKNOWN, if rng.random_bool(0.5) { 3 } else { 4 }));
            (bytes, false)
        }
        8 => {
            // A length far beyond what is there.
            key(&mut bytes, field, 2);
            varint(&mut bytes, [1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX][rng.random_range(0..4)]);
            (bytes, false)
        }
        _ => {
            // A number of eleven bytes, or a kind that there is not.
            key(&mut bytes, field, [0, 6, 7][rng.random_range(0..3)]);
            bytes.extend([0xff; 11]);
            (bytes, false)
        }
    }
}

/// Fields of every kind that no build knows: they are passed over.
fn unknown_fields(bytes: &mut Vec<u8>) {
    key(bytes, UNKNOWN, 0);
    varint(bytes, u64::MAX);
    key(bytes, UNKNOWN, 1);
    bytes.extend([0xff; 8]);
    key(bytes, UNKNOWN, 2);
    varint(bytes, 3);
    bytes.extend(*b"odd");
    key(bytes, UNKNOWN, 5);
    bytes.extend([0xff; 4]);
}
