//! Bytes of the log: blocks and records.
//!
//! **What it is.** A block is 512 bytes: a 24-byte stamp and 488 bytes of payload. A round is a run of blocks written
//! and synced at once; its payload is a run of records. All numbers are little-endian. Tables: `docs/storage-format.md`.
//!
//! **Owns** the layout; a change of it is a new [`FORMAT_VERSION`]. **Must never** panic on bytes from a disk.
//!
//! **Read next**: [`super::round`] writes rounds, [`super::scan`] reads them back.

use super::limits::{BLOCK_BYTES, COUNT_MAX, ENTRY_BYTES_CEILING, GENERATION_MAX};
use crate::limits::INDEX_MAX;

/// Version of blocks and records, in every segment header.
pub(crate) const FORMAT_VERSION: u16 = 4;
/// First payload bytes of every segment, the version right behind: later versions keep this place.
pub(crate) const SEGMENT_MAGIC: [u8; 6] = *b"HFWAL\0";
/// Bytes of a block's stamp.
pub(crate) const STAMP_BYTES: usize = 24;
/// Payload bytes of a block.
pub(crate) const BLOCK_PAYLOAD: usize = BLOCK_BYTES - STAMP_BYTES;
/// Bytes in front of a record's head and body.
pub(crate) const RECORD_BYTES: usize = 28;
/// No record begins in this block.
pub(crate) const NO_RECORD: u16 = u16::MAX;

/// What each block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Of the segment: grows each time a file is begun anew.
    pub(crate) generation: u32,
    /// Consecutive over segments.
    pub(crate) round: u64,
    /// Place of this block in its round.
    pub(crate) index: u16,
    /// Blocks of the round that carry payload; those behind are padding.
    pub(crate) payload_blocks: u16,
    /// Payload bytes used in this block.
    pub(crate) used: u16,
    /// Where in the payload the first record begins that begins here.
    pub(crate) first_record: u16,
}

/// What a block turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Never written.
    Zero,
    /// Exactly what was once written here.
    Good(Stamp),
    /// Neither: rot.
    Bad,
}

impl Stamp {
    /// Writes the stamp in front of a payload that is in place; `position` is the block's number in its file.
    pub(crate) fn seal(&self, block: &mut [u8], position: u32) {
        block[4..8].copy_from_slice(&self.generation.to_le_bytes());
        block[8..16].copy_from_slice(&self.round.to_le_bytes());
        block[16..18].copy_from_slice(&self.index.to_le_bytes());
        block[18..20].copy_from_slice(&self.payload_blocks.to_le_bytes());
        block[20..22].copy_from_slice(&self.used.to_le_bytes());
        block[22..24].copy_from_slice(&self.first_record.to_le_bytes());
        let sum = checksum(block, position);
        block[0..4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The position is part of the sum, so that a block written to the wrong place is not good there.
fn checksum(block: &[u8], position: u32) -> u32 {
    crc32c::crc32c_append(position, &block[4..])
}

/// Reads a block's stamp back.
pub(crate) fn classify(block: &[u8], position: u32) -> Block {
    if block.len() != BLOCK_BYTES {
        return Block::Bad;
    }
    let sum = u32_at(block, 0);
    if sum != checksum(block, position) {
        return if block.iter().all(|b| *b == 0) { Block::Zero } else { Block::Bad };
    }
    let stamp = Stamp {
        generation: u32_at(block, 4),
        round: u64_at(block, 8),
        index: u16_at(block, 16),
        payload_blocks: u16_at(block, 18),
        used: u16_at(block, 20),
        first_record: u16_at(block, 22),
    };
    if stamp.generation == 0 && block.iter().all(|b| *b == 0) {
        return Block::Zero;
    }
    if stamp.generation == 0 || usize::from(stamp.used) > BLOCK_PAYLOAD || stamp.payload_blocks == 0 {
        return Block::Bad;
    }
    // Nobody writes these, and the next one would be counted from them.
    if stamp.generation > GENERATION_MAX || stamp.round > COUNT_MAX {
        return Block::Bad;
    }
    Block::Good(stamp)
}

/// Kinds of records. Those that change a group's log take the next of its sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// One entry: index, head, body.
    Entry = 1,
    /// The vote.
    Vote = 2,
    /// The committed position.
    Committed = 3,
    /// Entries after `index` are gone; all of them if the body is one byte.
    Truncate = 4,
    /// Entries through `index` are gone; the body is the opaque log id.
    Purge = 5,
    /// The group's log is forgotten, the vote kept.
    Reset = 6,
    /// The group's damage is repaired.
    Clear = 7,
    /// The group lacks something that it had promised; the body is the mark of that damage.
    Damaged = 8,
    /// What the members of the group have acknowledged, as far as it is known here.
    Acknowledged = 9,
    /// First of a segment: whose it is, and where the one before it ended.
    Segment = 16,
    /// A group's whole state but the entries. No sequence number of its own: it repeats the last.
    Checkpoint = 17,
    /// The sequence number of every group. Proves the rounds before it.
    Marker = 18,
    /// Segments below generation `index` are dead.
    Oldest = 19,
    /// A live entry again, so that the segment it lay in can go. No sequence number of its own: it repeats the last.
    Carried = 20,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Committed,
            4 => Self::Truncate,
            5 => Self::Purge,
            6 => Self::Reset,
            7 => Self::Clear,
            8 => Self::Damaged,
            9 => Self::Acknowledged,
            16 => Self::Segment,
            17 => Self::Checkpoint,
            18 => Self::Marker,
            19 => Self::Oldest,
            20 => Self::Carried,
            _ => return None,
        })
    }

    /// Whether it takes a sequence number of its group.
    pub(crate) fn counts(self) -> bool {
        (self as u8) < Self::Segment as u8
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes of head behind this.
    pub(crate) head_len: u16,
    /// Whose it is.
    pub(crate) group: u32,
    /// Bytes of body behind the head.
    pub(crate) body_len: u32,
    /// Place in the group's sequence of records.
    pub(crate) seq: u64,
    /// Index of the entry, or as the kind says.
    pub(crate) index: u64,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0u8; RECORD_BYTES];
        out[0] = self.kind as u8;
        out[2..4].copy_from_slice(&self.head_len.to_le_bytes());
        out[4..8].copy_from_slice(&self.group.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..20].copy_from_slice(&self.seq.to_le_bytes());
        out[20..28].copy_from_slice(&self.index.to_le_bytes());
        out
    }

    /// None as well for numbers that nobody writes: the next one could not be counted from them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_BYTES {
            return None;
        }
        let header = Self {
            kind: Kind::from_byte(bytes[0])?,
            head_len: u16_at(bytes, 2),
            group: u32_at(bytes, 4),
            body_len: u32_at(bytes, 8),
            seq: u64_at(bytes, 12),
            index: u64_at(bytes, 20),
        };
        let sane =
            header.seq <= COUNT_MAX && header.index <= INDEX_MAX && header.body_len as usize <= ENTRY_BYTES_CEILING;
        sane.then_some(header)
    }

    /// Bytes of the whole record.
    pub(crate) fn total(&self) -> usize {
        RECORD_BYTES + usize::from(self.head_len) + self.body_len as usize
    }
}

/// Body of a [`Kind::Segment`] record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: u64,
    pub(crate) node: u64,
    /// The segment before, 0 if none, and the block where its last round ends.
    pub(crate) before: u32,
    pub(crate) before_end: u32,
    /// Segments below this generation are dead.
    pub(crate) oldest: u32,
    /// Length of the file: a shorter one was cut.
    pub(crate) bytes: u64,
}

/// Bytes of a segment header's body.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 60;

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0u8; SEGMENT_HEADER_BYTES];
        out[0..6].copy_from_slice(&SEGMENT_MAGIC);
        out[6..8].copy_from_slice(&self.version.to_le_bytes());
        out[8..24].copy_from_slice(&self.cluster);
        out[24..32].copy_from_slice(&self.incarnation.to_le_bytes());
        out[32..40].copy_from_slice(&self.node.to_le_bytes());
        out[40..44].copy_from_slice(&self.before.to_le_bytes());
        out[44..48].copy_from_slice(&self.before_end.to_le_bytes());
        out[48..52].copy_from_slice(&self.oldest.to_le_bytes());
        out[52..60].copy_from_slice(&self.bytes.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 8 || bytes[0..6] != SEGMENT_MAGIC {
            return None;
        }
        let version = u16_at(bytes, 6);
        if version == FORMAT_VERSION && bytes.len() != SEGMENT_HEADER_BYTES {
            return None;
        }
        let mut padded = [0u8; SEGMENT_HEADER_BYTES];
        let n = bytes.len().min(SEGMENT_HEADER_BYTES);
        padded[..n].copy_from_slice(&bytes[..n]);
        let mut cluster = [0u8; 16];
        cluster.copy_from_slice(&padded[8..24]);
        Some(Self {
            version,
            cluster,
            incarnation: u64_at(&padded, 24),
            node: u64_at(&padded, 32),
            before: u32_at(&padded, 40),
            before_end: u32_at(&padded, 44),
            oldest: u32_at(&padded, 48),
            bytes: u64_at(&padded, 52),
        })
    }
}

/// Appends an optional blob: a flag byte, then length and bytes.
pub(crate) fn put_blob(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    match blob {
        None => out.push(0),
        Some(bytes) => {
            out.push(1);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

/// Appends an optional number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    out.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
}

/// Reads a body front to back.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }
    pub(crate) fn blob(&mut self) -> Option<Option<&'a [u8]>> {
        if self.take(1)?[0] == 0 {
            return Some(None);
        }
        let len = u32_at(self.take(4)?, 0) as usize;
        Some(Some(self.take(len)?))
    }
    pub(crate) fn number(&mut self) -> Option<Option<u64>> {
        let flag = self.take(1)?[0];
        let value = u64_at(self.take(8)?, 0);
        Some((flag != 0).then_some(value))
    }
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    let mut n = [0u8; 2];
    n.copy_from_slice(&b[at..at + 2]);
    u16::from_le_bytes(n)
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut n = [0u8; 4];
    n.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(n)
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut n = [0u8; 8];
    n.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: a change here is a new format version.
    #[test]
    fn a_block_keeps_its_bytes() {
        let mut block = [0u8; BLOCK_BYTES];
        block[STAMP_BYTES..STAMP_BYTES + 3].copy_from_slice(b"abc");
        let stamp = Stamp { generation: 7, round: 9, index: 1, payload_blocks: 2, used: 3, first_record: 0 };
        stamp.seal(&mut block, 11);
        assert_eq!(block[4..27], [7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0, b'a', b'b', b'c']);
        assert_eq!(block[0..4], crc32c::crc32c_append(11, &block[4..]).to_le_bytes());
        assert_eq!(classify(&block, 11), Block::Good(stamp));
        assert_eq!(classify(&block, 12), Block::Bad, "the same bytes elsewhere are not good");
        block[400] ^= 1;
        assert_eq!(classify(&block, 11), Block::Bad);
    }

    #[test]
    fn a_record_keeps_its_bytes() {
        let header = RecordHeader { kind: Kind::Purge, head_len: 2, group: 3, body_len: 4, seq: 5, index: 6 };
        let bytes = header.encode();
        assert_eq!(bytes, [5, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(RecordHeader::decode(&bytes), Some(header));
        assert_eq!(header.total(), 34);
    }

    #[test]
    fn a_segment_header_keeps_its_bytes() {
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            cluster: [7; 16],
            incarnation: 2,
            node: 3,
            before: 4,
            before_end: 5,
            oldest: 6,
            bytes: 0x1_0000,
        };
        let mut golden = [0u8; SEGMENT_HEADER_BYTES];
        golden[..6].copy_from_slice(b"HFWAL\0");
        golden[8..24].fill(7);
        (golden[6], golden[24], golden[32], golden[40], golden[44], golden[48], golden[54]) = (4, 2, 3, 4, 5, 6, 1);
        assert_eq!(header.encode(), golden);
        assert_eq!(SegmentHeader::decode(&golden), Some(header));
        assert_eq!(SegmentHeader::decode(&golden[..52]), None, "a header of version 2");
    }

    #[test]
    fn numbers_that_nobody_writes_make_no_sense() {
        let header = RecordHeader { kind: Kind::Entry, head_len: 2, group: 3, body_len: 4, seq: 5, index: 6 };
        let bounds = RecordHeader { body_len: ENTRY_BYTES_CEILING as u32, seq: COUNT_MAX, index: INDEX_MAX, ..header };
        assert_eq!(RecordHeader::decode(&bounds.encode()), Some(bounds));
        for beyond in [
            RecordHeader { body_len: bounds.body_len + 1, ..header },
            RecordHeader { seq: COUNT_MAX + 1, ..header },
            RecordHeader { seq: u64::MAX, ..header },
            RecordHeader { index: INDEX_MAX + 1, ..header },
            RecordHeader { index: u64::MAX, ..header },
        ] {
            assert_eq!(RecordHeader::decode(&beyond.encode()), None, "{beyond:?}");
        }
        let mut block = [0u8; BLOCK_BYTES];
        let stamp = Stamp { generation: 7, round: 9, index: 0, payload_blocks: 1, used: 3, first_record: 0 };
        let bounds = Stamp { generation: GENERATION_MAX, round: COUNT_MAX, ..stamp };
        bounds.seal(&mut block, 11);
        assert_eq!(classify(&block, 11), Block::Good(bounds));
        for beyond in [
            Stamp { generation: u32::MAX, ..stamp },
            Stamp { round: u64::MAX, ..stamp },
            Stamp { round: COUNT_MAX + 1, ..stamp },
        ] {
            beyond.seal(&mut block, 11);
            assert_eq!(classify(&block, 11), Block::Bad, "{beyond:?}");
        }
    }
}
