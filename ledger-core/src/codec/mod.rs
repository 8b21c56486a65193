//! Persisted and logged encodings: entries, records, snapshots. The only user of bincode.
//!
//! The bytes are their own format: numbers and order are written here by hand and pinned by golden bytes, so that renaming a field or
//! reordering an enum cannot change the disk. Every length is checked against its bound and against what is there before anything is
//! allocated, and every value is made by its own constructor: any bytes give a value or a [`CodecError`], never a panic.
//!
//! **Owns** format versions. **Must never** be asked to guess: an unknown version or number is an error.
//! **Read next**: `primitives`, `commands`, `changes`, `orders`.

mod bounds;
pub(crate) mod changes;
mod commands;
pub(crate) mod orders;
pub(crate) mod primitives;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use crate::change::Record;
use crate::command::{Command, Entry};
use crate::limits;
use crate::types::{LedgerTime, OfferKey};
use primitives::{In, Out};

/// Format of entries' bodies.
pub const ENTRY_VERSION: u16 = 1;
/// Format of records.
pub const RECORD_VERSION: u16 = 3;

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
    /// A command that only a newer build knows.
    #[error("no command of this build has the number {number}")]
    UnknownCommand {
        /// The number found.
        number: u8,
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

impl CodecError {
    /// Whether a newer build may know the bytes. They must not be taken for malformed ones then: that build would decide them.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownVersion { .. } | Self::UnknownCommand { .. })
    }
}

/// The hash of an entry's body and stamp by which replicas compare what they hold, and operators find it.
pub fn entry_hash(stamp: LedgerTime, bytes: &[u8]) -> u128 {
    xxh3_128_with_seed(bytes, stamp.0)
}

/// How many commands or changes follow stands as a fixed number, written last: a cut at any byte is an error.
const COUNT_BYTES: usize = 4;
/// Versions below 251 take one byte.
const ENTRY_COUNT_AT: usize = 1;
const _: () = assert!(ENTRY_VERSION < 251 && RECORD_VERSION < 251);

fn put_count(bytes: &mut [u8], at: usize, count: usize) {
    let count = u32::try_from(count).expect("a batch has fewer than 2^32 parts");
    bytes[at..at + COUNT_BYTES].copy_from_slice(&count.to_le_bytes());
}

fn get_count(from: &mut In<'_>, max: usize) -> Result<usize, CodecError> {
    let got = u32::from_le_bytes(from.raw(COUNT_BYTES)?.try_into().expect("four bytes"));
    from.within(got.into(), max)
}

/// Why a command is not in an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The entry has no room for it: propose the entry and begin another with this command.
    #[error("the entry is full")]
    Full,
    /// No entry takes it, since no replica could decode it.
    #[error(transparent)]
    Refused(#[from] CodecError),
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
        let mut out = Out::new(&mut buffer);
        out.n(ENTRY_VERSION.into());
        out.raw(&[0; COUNT_BYTES]);
        Self { bytes: buffer, commands: 0 }
    }
    /// Appends a command and tells how many bytes the entry has now.
    ///
    /// What this takes, [`decode_entry`] gives back; what that would refuse never gets in.
    ///
    /// # Errors
    /// [`PushError`]; the entry is as it was.
    #[inline]
    pub fn push(&mut self, command: &Command) -> Result<usize, PushError> {
        if self.commands == limits::COMMANDS_PER_ENTRY_MAX {
            return Err(PushError::Full);
        }
        let before = self.bytes.len();
        let put = commands::put(&mut Out::new(&mut self.bytes), command);
        if put.is_err() || self.bytes.len() > limits::ENTRY_BYTES_MAX {
            return Err(self.take_back(before, put));
        }
        self.commands += 1;
        Ok(self.bytes.len())
    }
    #[cold]
    fn take_back(&mut self, before: usize, put: Result<(), String>) -> PushError {
        let got = self.bytes.len() as u64;
        self.bytes.truncate(before);
        match put {
            Err(why) => PushError::Refused(CodecError::Malformed { what: "command", why }),
            Ok(()) if self.is_empty() => {
                PushError::Refused(CodecError::TooLarge { what: "command", got, max: limits::ENTRY_BYTES_MAX as u64 })
            }
            Ok(()) => PushError::Full,
        }
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
    pub fn finish(mut self) -> Bytes {
        put_count(&mut self.bytes, ENTRY_COUNT_AT, self.commands);
        self.bytes.into()
    }
}

/// Encodes the body of an entry: format version and commands; the stamp travels beside it. For tests and benches, which know their commands; servers
/// use [`EntryBuilder`].
///
/// # Panics
/// On a command or a number of commands that no entry takes.
pub fn encode_entry(commands: &[Command]) -> Bytes {
    let mut entry = EntryBuilder::with_capacity(16 + 64 * commands.len());
    for command in commands {
        entry.push(command).unwrap_or_else(|why| panic!("{command:?} cannot be in an entry: {why}"));
    }
    entry.finish()
}

/// Decodes an entry's body.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_entry(stamp: LedgerTime, bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut from = begin("entry", bytes, ENTRY_VERSION, limits::ENTRY_BYTES_MAX)?;
    let count = get_count(&mut from, limits::COMMANDS_PER_ENTRY_MAX)?;
    // A reserve takes 24 bytes at least; so this is not far from the number, and bounded by what is there.
    let mut commands = Vec::with_capacity(count.min(bytes.len() / 24 + 1));
    for _ in 0..count {
        commands.push(commands::get(&mut from)?);
    }
    from.must_end()?;
    Ok(Entry { stamp, commands })
}

/// The version comes before every bound: bounds are those of one format, and a later one may have
/// wider bounds.
fn begin<'a>(what: &'static str, bytes: &'a [u8], known: u16, max: usize) -> Result<In<'a>, CodecError> {
    let mut from = In::new(what, bytes);
    let got = from.small()?;
    if got != known {
        return Err(CodecError::UnknownVersion { what, got, known });
    }
    from.within(bytes.len() as u64, max)?;
    Ok(from)
}

/// Decodes a history record.
///
/// # Errors
/// [`CodecError`]; never panics on any bytes.
pub fn decode_record(bytes: &[u8]) -> Result<Record, CodecError> {
    let mut from = begin("record", bytes, RECORD_VERSION, limits::RECORD_BYTES_MAX)?;
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
