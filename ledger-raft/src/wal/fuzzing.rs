//! A log over bytes that are not its own, for [`crate::fuzzing`].
//!
//! **Owns** nothing that a server calls. **Must never** write. **Read next**: [`super::recover`].

use std::io;
use std::path::Path;

use super::WalIdentity;
use super::frame::Stamp;
use super::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN};
use super::recover::recover;
use super::segment::path_of;
use crate::NodeId;
use crate::disk::SimDisk;
use crate::seam::Disk;

/// Whose log the bytes are said to be.
pub(crate) const IDENTITY: WalIdentity = WalIdentity { cluster: [7; 16], incarnation: 1, node: NodeId(1) };

/// Recovers a log whose only segment has these bytes, and zeroes behind them.
pub(crate) fn open_over(bytes: &[u8]) -> io::Result<()> {
    let disk = SimDisk::new(1);
    let dir = Path::new("/wal");
    disk.create_dir_all(dir)?;
    let file = disk.open(&path_of(dir, 0), true)?;
    file.set_len(SEGMENT_BYTES_MIN)?;
    file.write_at(0, &bytes[..bytes.len().min(SEGMENT_BYTES_MIN as usize)])?;
    file.sync()?;
    let _refused_or_damaged = recover(&disk, dir, IDENTITY, SEGMENT_BYTES_MIN);
    Ok(())
}

/// The same bytes with the checksum of each block that has any made right for the stamp that it has.
pub(crate) fn with_right_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    for (position, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let n16 = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let stamp = Stamp {
            generation: super::frame::u32_at(block, 4),
            round: super::frame::u64_at(block, 8),
            index: n16(16),
            payload_blocks: n16(18),
            used: n16(20),
            first_record: n16(22),
        };
        stamp.seal(block, position as u32);
    }
    bytes
}
