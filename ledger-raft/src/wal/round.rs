//! Builds one round: records in, stamped blocks out.
//!
//! **What it is.** A page-aligned buffer that is recycled from round to round. Each byte of an entry is copied here once
//! and summed once.
//!
//! **Owns** the cutting of records into blocks. **Must never** allocate for an entry once the buffer has grown.
//!
//! **Read next**: [`super::writer`].

use super::frame::{BLOCK_PAYLOAD, Kind, NO_RECORD, RecordHeader, STAMP_BYTES, Stamp};
use super::limits::{BLOCK_BYTES, SECTOR_BLOCKS, SECTOR_BYTES};

/// A round under construction.
pub(crate) struct Round {
    /// Over-allocated by a sector, so that an aligned start always exists inside (no unsafe needed).
    buffer: Vec<u8>,
    start: usize,
    /// Payload bytes so far.
    payload: usize,
    /// Where the first record of each block begins.
    first: Vec<u16>,
    /// The mark of dead segments in it, if it carries one.
    oldest: Option<u32>,
}

impl Round {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, payload: 0, first: Vec::new(), oldest: None }
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.payload = 0;
        self.first.clear();
        self.oldest = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.payload == 0
    }

    pub(crate) fn oldest(&self) -> Option<u32> {
        self.oldest
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload
    }

    /// Blocks on disk if `more` bytes came, padding included.
    pub(crate) fn blocks_with(&self, more: usize) -> usize {
        Self::blocks_of(self.payload + more)
    }

    /// Blocks on disk of a round of so many bytes, padding included.
    pub(crate) fn blocks_of(bytes: usize) -> usize {
        bytes.div_ceil(BLOCK_PAYLOAD).max(1).next_multiple_of(SECTOR_BLOCKS)
    }

    /// Whether `more` bytes still leave it within so many blocks.
    pub(crate) fn fits_in(&self, more: usize, blocks: usize) -> bool {
        self.blocks_with(more) <= blocks
    }

    /// Adds a record; returns where it begins, in bytes from the start of the round on disk.
    pub(crate) fn push(&mut self, header: &RecordHeader, head: &[u8], body: &[u8]) -> u32 {
        if header.kind == Kind::Oldest {
            self.oldest = u32::try_from(header.index).ok();
        }
        let (block, within) = (self.payload / BLOCK_PAYLOAD, self.payload % BLOCK_PAYLOAD);
        self.first.resize(self.first.len().max(block + 1), NO_RECORD);
        if self.first[block] == NO_RECORD {
            self.first[block] = within as u16;
        }
        self.reserve((self.payload + header.total()).div_ceil(BLOCK_PAYLOAD).next_multiple_of(SECTOR_BLOCKS));
        self.put(&header.encode());
        self.put(head);
        self.put(body);
        (block * BLOCK_BYTES + STAMP_BYTES + within) as u32
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (block, within) = (self.payload / BLOCK_PAYLOAD, self.payload % BLOCK_PAYLOAD);
            let n = bytes.len().min(BLOCK_PAYLOAD - within);
            let at = self.start + block * BLOCK_BYTES + STAMP_BYTES + within;
            self.buffer[at..at + n].copy_from_slice(&bytes[..n]);
            self.payload += n;
            bytes = &bytes[n..];
        }
    }

    fn reserve(&mut self, blocks: usize) {
        let need = blocks * BLOCK_BYTES;
        if self.buffer.len() >= self.start + need {
            return;
        }
        let grown = (need * 2).max(64 << 10);
        let mut buffer = vec![0u8; grown + SECTOR_BYTES];
        let start = buffer.as_ptr().addr().wrapping_neg() % SECTOR_BYTES;
        let have = self.payload.div_ceil(BLOCK_PAYLOAD) * BLOCK_BYTES;
        buffer[start..start + have].copy_from_slice(&self.buffer[self.start..self.start + have]);
        self.buffer = buffer;
        self.start = start;
    }

    /// Stamps and pads; `first_block` is where the round will lie in its file.
    pub(crate) fn finish(&mut self, generation: u32, round: u64, first_block: u32) -> &[u8] {
        let payload_blocks = self.payload.div_ceil(BLOCK_PAYLOAD).max(1);
        let blocks = payload_blocks.next_multiple_of(SECTOR_BLOCKS);
        self.reserve(blocks);
        self.first.resize(payload_blocks, NO_RECORD);
        for index in 0..blocks {
            let used = self.payload.saturating_sub(index * BLOCK_PAYLOAD).min(BLOCK_PAYLOAD);
            let block = &mut self.buffer[self.start + index * BLOCK_BYTES..][..BLOCK_BYTES];
            // The buffer is recycled: what an earlier round left behind must not reach the disk.
            block[STAMP_BYTES + used..].fill(0);
            let stamp = Stamp {
                generation,
                round,
                index: index as u16,
                payload_blocks: payload_blocks as u16,
                used: used as u16,
                first_record: self.first.get(index).copied().unwrap_or(NO_RECORD),
            };
            stamp.seal(block, first_block + index as u32);
        }
        &self.buffer[self.start..self.start + blocks * BLOCK_BYTES]
    }
}
