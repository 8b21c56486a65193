//! Persisted and logged encodings: entries, records, snapshots. The only user of bincode.
//!
//! The bytes are their own format: numbers and order are written here by hand and pinned by golden bytes, so that renaming a field or
//! reordering an enum cannot change the disk. Every length is checked against its bound and against what is there before anything is
//! allocated, and every value is made by its own constructor: any bytes give a value or a [`CodecError`], never a panic.
//!
//! **Owns** format versions. **Must never** be asked to guess: an unknown version or number is an error.
//! **Read next**: `primitives`, `commands`, `changes`.

pub(crate) mod changes;
mod commands;
pub(crate) mod primitives;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::change::Record;
use crate::command::{Command, Entry};
use crate::limits;
use crate::types::{LedgerTime, OfferKey};
use primitives::{In, Out};

/// Format of entries' bodies.
pub const ENTRY_VERSION: u16 = 1;
/// Format of records.
pub const RECORD_VERSION: u16 = 1;

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

/// Builds the body of an entry command by command, so that a batch can be bounded by its bytes.
pub struct EntryBuilder {
    bytes: Vec<u8>,
    commands: usize,
}

impl Default for EntryBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl EntryBuilder {
    /// An entry without commands.
    pub fn new() -> Self {
        Self::with_capacity(256)
    }
    /// The same with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes);
        Out::new(&mut buffer).n(ENTRY_VERSION.into());
        Self { bytes: buffer, commands: 0 }
    }
    /// Appends a command and tells how many bytes the entry has now.
    pub fn push(&mut self, command: &Command) -> usize {
        commands::put(&mut Out::new(&mut self.bytes), command);
        self.commands += 1;
        self.bytes.len()
    }
    /// Commands so far.
    pub fn commands(&self) -> usize {
        self.commands
    }
    /// Whether no command is in it.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }
    /// The body. The buffer goes with it.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// Encodes the body of an entry: format version and commands; the stamp travels beside it.
pub fn encode_entry(commands: &[Command]) -> Bytes {
    let mut entry = EntryBuilder::with_capacity(16 + 64 * commands.len());
    for command in commands {
        entry.push(command);
    }
    entry.finish()
}

/// Decodes an entry's body.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_entry(stamp: LedgerTime, bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut from = In::new("entry", bytes, limits::ENTRY_BYTES_MAX)?;
    expect_version(&mut from, "entry", ENTRY_VERSION)?;
    // A reserve takes 34 bytes at least; so this is not far from the number, and bounded by what is there.
    let mut commands = Vec::with_capacity((bytes.len() / 34).min(limits::COMMANDS_PER_ENTRY_MAX));
    while !from.is_at_end() {
        if commands.len() == limits::COMMANDS_PER_ENTRY_MAX {
            let max = limits::COMMANDS_PER_ENTRY_MAX as u64;
            return Err(CodecError::TooLarge { what: "entry", got: max + 1, max });
        }
        commands.push(commands::get(&mut from)?);
    }
    Ok(Entry { stamp, commands })
}

fn expect_version(from: &mut In<'_>, what: &'static str, known: u16) -> Result<(), CodecError> {
    let got = from.small()?;
    if got == known { Ok(()) } else { Err(CodecError::UnknownVersion { what, got, known }) }
}

/// Decodes a history record.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_record(bytes: &[u8]) -> Result<Record, CodecError> {
    let mut from = In::new("record", bytes, limits::RECORD_BYTES_MAX)?;
    expect_version(&mut from, "record", RECORD_VERSION)?;
    changes::get_record(&mut from)
}

/// The chain value after a record: xxh3-128 over the value before and the record's bytes.
pub fn chain_after(before: u128, record: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&before.to_le_bytes());
    hash.update(record);
    hash.digest128()
}

/// An offer's key as it stands in records.
pub(crate) fn offer_key_bytes(offer: &OfferKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    Out::new(&mut bytes).offer(offer);
    bytes
}
