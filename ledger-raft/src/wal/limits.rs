//! The log's bounds, each with its reason.
//!
//! **Owns** numbers. **Must never** be configuration: what is, lives in [`super::WalConfig`].

use std::time::Duration;

/// What a device writes whole or not at all; each carries its own stamp.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Rounds begin and end at multiples of this: what `O_DIRECT` accepts everywhere.
pub(crate) const SECTOR_BYTES: usize = 4096;
/// Blocks in a sector.
pub(crate) const SECTOR_BLOCKS: usize = SECTOR_BYTES / BLOCK_BYTES;
/// A round stops taking records beyond this: longer ones only add latency, the disk is at its best before.
pub(crate) const ROUND_BYTES_SOFT: usize = 1 << 20;
/// Largest entry any configuration may allow: a round of one such entry has to fit the 16-bit block index.
pub(crate) const ENTRY_BYTES_CEILING: usize = 16 << 20;
/// Largest head of an entry, and largest vote, committed position or log id.
pub(crate) const BLOB_BYTES_MAX: usize = u16::MAX as usize;
/// Smallest segment: a header, a checkpoint of some groups and a few rounds.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 32 << 10;
/// Largest segment: offsets in it are 32 bits.
pub(crate) const SEGMENT_BYTES_CEILING: u64 = 2 << 30;
/// Largest generation of a segment: one a second for 68 years. The next one is counted from what is
/// found.
pub(crate) const GENERATION_MAX: u32 = 1 << 31;
/// Largest number of a round, and of a group's record: a million a second for a hundred thousand
/// years.
pub(crate) const COUNT_MAX: u64 = 1 << 62;
/// Most of the reason that a damage mark keeps: each group's checkpoint repeats it.
pub(crate) const LOST_WHY_CHARS_MAX: usize = 160;
/// Largest number in the name of a segment file. A file with another name is none of the log's.
pub(crate) const SLOT_MAX: u32 = 1 << 31;
/// Spares that only votes and other small records, and starts, may begin once space is low: one for
/// each.
pub(crate) const SPARES_RESERVED: usize = 2;
/// When a full disk leaves no spare for the next start, so much of the rest of the segment is filled
/// with the live entries of the oldest one, percent: votes need the rest of it.
pub(crate) const CARRY_FULL_DISK_PERCENT: u64 = 75;
/// While low, free space is asked for that often.
pub(crate) const SPACE_POLL: Duration = Duration::from_millis(200);
/// ... and otherwise that often, at most.
pub(crate) const SPACE_CHECK: Duration = Duration::from_secs(1);
/// After that long without work a marker round proves the last one acknowledged.
pub(crate) const IDLE_MARKER: Duration = Duration::from_millis(20);
/// Segments are read back in pieces of this size.
pub(crate) const READ_PIECE_BYTES: usize = 256 << 10;

/// Segments are worth carrying forward once they would give back so many times what is written for it: so each byte written costs at
/// most one more, and the log is at most so many times what is live.
pub(crate) const CARRY_GAIN: u64 = 2;
/// ... and so many segments more: a few live bytes are not carried for every segment.
pub(crate) const CARRY_SURPLUS_SEGMENTS: u64 = 2;
/// Carried bytes that ride in a round, or as many as the round has of its own: little enough not to delay it, enough to end.
pub(crate) const CARRY_ROUND_BYTES: usize = 64 << 10;
/// A carried entry that is larger rides only in a round that stays below this, so that its blocks fit their 16-bit number.
pub(crate) const CARRY_ROUND_BYTES_MAX: usize = 24 << 20;
/// Entries to be carried are read back in pieces of this many bytes ...
pub(crate) const CARRY_READ_BYTES: u64 = 2 << 20;
/// ... and entries.
pub(crate) const CARRY_READ_ENTRIES: usize = 4096;
/// After entries could not be read back to be carried, the next attempt waits that long.
pub(crate) const CARRY_RETRY: Duration = Duration::from_secs(60);

const _: () = assert!(CARRY_ROUND_BYTES_MAX / BLOCK_BYTES * 11 / 10 < u16::MAX as usize);
const _: () = assert!(ENTRY_BYTES_CEILING / (BLOCK_BYTES - 64) < u16::MAX as usize);
const _: () = assert!(GENERATION_MAX < u32::MAX && SLOT_MAX < u32::MAX && COUNT_MAX < u64::MAX / 2);
const _: () = assert!(SECTOR_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(SEGMENT_BYTES_CEILING <= u32::MAX as u64);
