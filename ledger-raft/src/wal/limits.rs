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
/// Spares that only votes and other small records may begin once space is low.
pub(crate) const SPARES_RESERVED: usize = 1;
/// While low, free space is asked for that often.
pub(crate) const SPACE_POLL: Duration = Duration::from_millis(200);
/// ... and otherwise that often, at most.
pub(crate) const SPACE_CHECK: Duration = Duration::from_secs(1);
/// After that long without work a marker round proves the last one acknowledged.
pub(crate) const IDLE_MARKER: Duration = Duration::from_millis(20);
/// Segments are read back in pieces of this size.
pub(crate) const READ_PIECE_BYTES: usize = 256 << 10;

const _: () = assert!(ENTRY_BYTES_CEILING / (BLOCK_BYTES - 64) < u16::MAX as usize);
const _: () = assert!(SECTOR_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(SEGMENT_BYTES_CEILING <= u32::MAX as u64);
