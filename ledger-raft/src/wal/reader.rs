//! Reads entries back from segments.
//!
//! **Owns** checked reading: every block's stamp and sum are verified again. **Must never** trust an offset: a segment may
//! have been recycled between the look-up and the read.
//!
//! **Read next**: [`super::frame`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{BLOCK_PAYLOAD, Block, Kind, RECORD_BYTES, RecordHeader, STAMP_BYTES, classify};
use super::group::WalEntry;
use super::limits::{BLOCK_BYTES, READ_PIECE_BYTES, SECTOR_BYTES};
use crate::api::GroupId;
use crate::seam::DiskFile;

/// Entries one read looks up at most; the rest takes another call.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// The open segments by generation.
pub(crate) type Files = BTreeMap<u32, Arc<dyn DiskFile>>;

/// Reads the entries at `places` (index, (generation, offset)), at most `bytes_max` but at least one.
pub(crate) fn read(
    files: &Files,
    group: GroupId,
    places: &[(u64, (u32, u32))],
    bytes_max: usize,
) -> io::Result<Vec<WalEntry>> {
    let mut out: Vec<WalEntry> = Vec::new();
    let mut bytes = 0;
    let mut piece: Option<Piece> = None;
    for (index, (generation, offset)) in places {
        let piece = match &mut piece {
            Some(p) if p.generation == *generation => p,
            slot => {
                let file = files.get(generation).cloned();
                let file = file.ok_or_else(|| gone(*generation, *offset))?;
                slot.insert(Piece { len: file.len()?, file, generation: *generation, start: 0, bytes: Vec::new() })
            }
        };
        let mut raw = [0u8; RECORD_BYTES];
        let mut at = (*offset as usize / BLOCK_BYTES, (*offset as usize % BLOCK_BYTES).saturating_sub(STAMP_BYTES));
        piece.take(&mut at, &mut raw)?;
        let header = RecordHeader::decode(&raw)
            .filter(|h| matches!(h.kind, Kind::Entry | Kind::Carried) && h.index == *index && h.group == group.0)
            .ok_or_else(|| gone(*generation, *offset))?;
        bytes += header.total() - RECORD_BYTES;
        if bytes > bytes_max && !out.is_empty() {
            break;
        }
        let mut content = vec![0u8; header.total() - RECORD_BYTES];
        piece.take(&mut at, &mut content)?;
        let mut head = Bytes::from(content);
        let data = head.split_off(usize::from(header.head_len));
        out.push(WalEntry { index: *index, head, data });
    }
    Ok(out)
}

fn gone(generation: u32, offset: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("segment of generation {generation}, byte {offset}: not the entry that was written there"),
    )
}

/// A window on one segment.
struct Piece {
    file: Arc<dyn DiskFile>,
    generation: u32,
    len: u64,
    start: usize,
    bytes: Vec<u8>,
}

impl Piece {
    /// Copies payload from (block, byte in its payload) on, and moves there.
    fn take(&mut self, at: &mut (usize, usize), out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            if at.1 >= BLOCK_PAYLOAD {
                *at = (at.0 + 1, 0);
            }
            let want = (out.len() - done).min(BLOCK_PAYLOAD - at.1);
            let generation = self.generation;
            let block = self.block(at.0, out.len() - done)?;
            match classify(block, at.0 as u32) {
                Block::Good(stamp) if stamp.generation == generation => {}
                _ => return Err(gone(generation, (at.0 * BLOCK_BYTES) as u32)),
            }
            let from = STAMP_BYTES + at.1;
            out[done..done + want].copy_from_slice(&block[from..from + want]);
            done += want;
            at.1 += want;
        }
        Ok(())
    }

    fn block(&mut self, number: usize, want: usize) -> io::Result<&[u8]> {
        let from = number * BLOCK_BYTES;
        if from < self.start || from + BLOCK_BYTES > self.start + self.bytes.len() {
            let start = from / SECTOR_BYTES * SECTOR_BYTES;
            let len = usize::try_from(self.len).unwrap_or(usize::MAX);
            // The first look is small, a reader that goes on gets big pieces.
            let most = if self.bytes.is_empty() { SECTOR_BYTES * 2 } else { READ_PIECE_BYTES };
            let size = most.max(want.next_multiple_of(SECTOR_BYTES)).min(len.saturating_sub(start));
            self.bytes.resize(size, 0);
            self.start = start;
            self.file.read_at(start as u64, &mut self.bytes)?;
        }
        let at = from - self.start;
        self.bytes.get(at..at + BLOCK_BYTES).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
