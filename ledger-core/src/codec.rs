//! Persisted and logged encodings: entries, records, snapshots. The only user of bincode.

use bytes::Bytes;

use crate::change::Record;
use crate::command::{Command, Entry};
use crate::types::LedgerTime;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer build.
    #[error("{what} has format version {got}, this build knows up to {known}")]
    UnknownVersion {
        /// Which kind of bytes.
        what: &'static str,
        /// Version found.
        got: u16,
        /// Newest known.
        known: u16,
    },
    /// Larger than the bound, refused before anything was allocated.
    #[error("{what} has {got} bytes or items, at most {max} are allowed")]
    TooLarge {
        /// Which kind of bytes.
        what: &'static str,
        /// Found.
        got: u64,
        /// Bound.
        max: u64,
    },
    /// Not decodable.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which kind of bytes.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// Encodes the body of an entry: format version and commands; the stamp travels beside it.
pub fn encode_entry(_commands: &[Command]) -> Bytes {
    todo!()
}
/// Decodes an entry's body.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_entry(_stamp: LedgerTime, _bytes: &[u8]) -> Result<Entry, CodecError> {
    todo!()
}
/// Decodes a history record.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_record(_bytes: &[u8]) -> Result<Record, CodecError> {
    todo!()
}
/// The chain value after a record: xxh3-128 over the value before and the record's bytes.
pub fn chain_after(_before: u128, _record: &[u8]) -> u128 {
    todo!()
}
