//! Pages: consecutive records of one shard that lie together in a record file, behind a table of
//! them.
//!
//! **What it is.** The index has one entry a page, not one a record. In the file a page is its
//! table (for each record: index, length, checksum) and then the records. An entry names the table,
//! with its checksum, and which of the page's records count: those from its first index to its
//! last. Records in the middle of a page can be removed: two entries name the rest of it.
//!
//! **Owns** how tables and entries are encoded, where a page ends, what is left of a page without
//! some of its records. **Must never** read or write a file. **Read next**:
//! [`super::record_files`], [`super::page_index`].

use std::io;

use super::store::{Mark, Stored};
use crate::limits::{HISTORY_PAGE_BYTES, HISTORY_PAGE_RECORDS};

/// Bytes of a row at most: two numbers of up to ten and five bytes, and a checksum.
const ROW_BYTES_MAX: usize = 10 + 5 + 4;
/// Longest table that is believed.
pub(super) const TABLE_BYTES_MAX: usize = HISTORY_PAGE_RECORDS * ROW_BYTES_MAX;
const KEY_BYTES: usize = 12;
const VALUE_BYTES: usize = 32;

/// An entry of the index: where a page lies, and which of its records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) shard: u32,
    /// No record before it counts.
    pub(super) first: u64,
    /// No record behind it counts. A record has it, unless the table could not be read when the
    /// page was cut.
    pub(super) last: u64,
    /// How many count.
    pub(super) records: u32,
    /// Bytes of the file that are free once this entry is gone.
    pub(super) bytes: u32,
    pub(super) file: u32,
    /// Where its table begins; the records follow it.
    pub(super) offset: u32,
    pub(super) table_len: u32,
    /// The table's crc32c.
    pub(super) table_sum: u32,
}

/// Where an entry is found: pages sort by shard and first index.
pub(super) fn key(shard: u32, index: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&shard.to_be_bytes());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Shard and index of a key.
///
/// # Errors
/// `InvalidData` for anything that [`key`] did not make.
pub(super) fn split_key(bytes: &[u8]) -> io::Result<(u32, u64)> {
    let halves = bytes.split_first_chunk::<4>().and_then(|(shard, index)| Some((shard, index.try_into().ok()?)));
    let (shard, index) = halves.ok_or_else(|| bad("a key of a wrong length"))?;
    Ok((u32::from_be_bytes(*shard), u64::from_be_bytes(index)))
}

pub(super) fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("history record: {}", why.into()))
}

impl Page {
    /// Of records that lie behind their table in a file; none without records.
    pub(super) fn new(file: u32, offset: usize, table: &[u8], records: &[Stored]) -> io::Result<Option<Self>> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(None) };
        let bytes = table.len() + records.iter().map(|record| record.bytes.len()).sum::<usize>();
        let fits = |n: usize| u32::try_from(n).map_err(|_| bad("longer than the bound"));
        Ok(Some(Self {
            shard: first.shard,
            first: first.index,
            last: last.index,
            records: fits(records.len())?,
            bytes: fits(bytes)?,
            file,
            offset: fits(offset)?,
            table_len: fits(table.len())?,
            table_sum: crc32c::crc32c(table),
        }))
    }

    pub(super) fn key(&self) -> [u8; KEY_BYTES] {
        key(self.shard, self.first)
    }

    /// Fixed little-endian layout.
    pub(super) fn encode(&self) -> [u8; VALUE_BYTES] {
        let mut out = [0; VALUE_BYTES];
        let words = [self.file, self.offset, self.table_len, self.table_sum, self.records, self.bytes];
        for (word, n) in out.chunks_exact_mut(4).zip(words) {
            word.copy_from_slice(&n.to_le_bytes());
        }
        out[24..].copy_from_slice(&self.last.to_le_bytes());
        out
    }

    /// Reads one back.
    ///
    /// # Errors
    /// `InvalidData` for anything that [`Page::encode`] did not make.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> io::Result<Self> {
        let (shard, first) = split_key(key)?;
        let value: &[u8; VALUE_BYTES] = value.try_into().map_err(|_| bad("a page's entry of a wrong length"))?;
        let (words, last) = value.split_at(24);
        let mut words = words.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let mut word = || words.next().unwrap_or(0);
        let (file, offset, table_len, table_sum, records, bytes) = (word(), word(), word(), word(), word(), word());
        let last = u64::from_le_bytes(last.try_into().map_err(|_| bad("a page's entry of a wrong length"))?);
        if last < first || table_len as usize > TABLE_BYTES_MAX {
            return Err(bad("a page's entry that no page has"));
        }
        Ok(Self { shard, first, last, records, bytes, file, offset, table_len, table_sum })
    }

    /// Whether a record of its table counts.
    pub(super) fn counts(&self, index: u64) -> bool {
        (self.first..=self.last).contains(&index)
    }

    /// What is left of it when records `from..=through` count no more: what lies before them, and
    /// what lies behind. `rows` are those of its table; without them, since it cannot be read, it
    /// is cut by number.
    pub(super) fn without(&self, rows: Option<&[Mark]>, from: u64, through: u64) -> [Option<Self>; 2] {
        let Some(rows) = rows else {
            let before = (self.first < from).then(|| Self { last: self.last.min(from - 1), ..*self });
            // What its records take is known of both parts together only.
            let bytes = if before.is_some() { 0 } else { self.bytes };
            let behind = (through < self.last).then(|| Self { first: self.first.max(through + 1), bytes, ..*self });
            return [before, behind];
        };
        let count = |counts: &dyn Fn(u64) -> bool| {
            let rows = rows.iter().filter(|row| self.counts(row.index) && counts(row.index));
            let (mut range, mut records, mut bytes) = (None, 0, 0u32);
            for row in rows {
                range = Some((range.map_or(row.index, |(first, _)| first), row.index));
                records += 1;
                bytes = row.len.saturating_add(bytes);
            }
            range.map(|(first, last)| Self { first, last, records, bytes, ..*self })
        };
        let of_records =
            rows.iter().filter(|row| self.counts(row.index)).fold(0, |sum: u32, row| sum.saturating_add(row.len));
        let mut left = [count(&|index| index < from), count(&|index| index > through)];
        // The table stays as long as any record does.
        if let Some(page) = left.iter_mut().flatten().next() {
            page.bytes = page.bytes.saturating_add(self.bytes.saturating_sub(of_records));
        }
        left
    }
}

/// Where pages end among records that are written at once: each is of one shard, its indexes
/// ascend, and it is full at so many bytes or records.
pub(super) fn cut(records: &[Stored]) -> impl Iterator<Item = &[Stored]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let (mut count, mut bytes, mut last) = (1, first.bytes.len(), first.index);
        for record in &rest[1..] {
            let follows = record.shard == first.shard && record.index > last;
            if !follows || bytes >= HISTORY_PAGE_BYTES || count >= HISTORY_PAGE_RECORDS {
                break;
            }
            (count, bytes, last) = (count + 1, bytes + record.bytes.len(), record.index);
        }
        let (page, behind) = rest.split_at(count);
        rest = behind;
        Some(page)
    })
}

/// The table of a page: for each record how far its index is from the one before, its length, and
/// the crc32c of its bytes.
pub(super) fn encode_table(records: &[Stored]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() * 8);
    let mut before = 0;
    for record in records {
        put_number(&mut out, record.index - before);
        put_number(&mut out, record.bytes.len() as u64);
        out.extend(crc32c::crc32c(&record.bytes).to_le_bytes());
        before = record.index;
    }
    out
}

/// Reads one back.
///
/// # Errors
/// `InvalidData` for anything that [`encode_table`] did not make.
pub(super) fn decode_table(mut bytes: &[u8]) -> io::Result<Vec<Mark>> {
    let wrong = || bad("a table of a wrong form");
    let mut rows: Vec<Mark> = Vec::new();
    while !bytes.is_empty() {
        let step = take_number(&mut bytes).ok_or_else(wrong)?;
        let len = take_number(&mut bytes).and_then(|len| u32::try_from(len).ok()).ok_or_else(wrong)?;
        let (sum, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let index = match rows.last() {
            Some(before) if step > 0 => before.index.checked_add(step).ok_or_else(wrong)?,
            Some(_) => return Err(wrong()),
            None => step,
        };
        rows.push(Mark { index, len, sum: u32::from_le_bytes(*sum) });
        bytes = rest;
    }
    Ok(rows)
}

/// Seven bits a byte, the lowest first; the last byte has no highest bit.
fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut n: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: u32, index: u64, len: usize) -> Stored {
        Stored { shard, index, bytes: vec![index as u8; len].into() }
    }

    fn page(first: u64, last: u64, records: u32, bytes: u32) -> Page {
        Page { shard: 3, first, last, records, bytes, file: 1, offset: 2, table_len: 4, table_sum: 5 }
    }

    #[test]
    fn tables_and_entries_survive_their_encoding_and_nothing_else_is_one() {
        let records = [record(1, 5, 0), record(1, 6, 127), record(1, 900, 128), record(1, u64::MAX, 70_000)];
        let table = encode_table(&records);
        let rows: Vec<Mark> = records.iter().map(|record| Mark::of(record.index, &record.bytes)).collect();
        assert_eq!(decode_table(&table).expect("a table"), rows);
        for cut in 1..table.len() {
            let whole_rows = decode_table(&table[..cut]).is_ok_and(|fewer| rows.starts_with(&fewer));
            assert!(whole_rows || decode_table(&table[..cut]).is_err(), "cut at {cut}");
        }
        let twice = encode_table(&[record(1, 5, 1)]);
        assert!(decode_table(&[twice.clone(), vec![0, 0, 0, 0, 0, 0]].concat()).is_err(), "the same index again");
        assert!(decode_table(&[0xff; 10]).is_err() && decode_table(&[&[0xff; 9][..], &[2]].concat()).is_err());

        let page = page(7, 9, 3, 400);
        assert_eq!(Page::decode(&page.key(), &page.encode()).expect("an entry"), page);
        assert!(Page::decode(&page.key(), &page.encode()[1..]).is_err());
        assert!(Page::decode(&page.key()[1..], &page.encode()).is_err());
        assert!(Page::decode(&key(3, 10), &page.encode()).is_err(), "it would end before it begins");
    }

    #[test]
    fn a_page_ends_where_the_shard_changes_or_it_is_full() {
        let lens = |records: &[Stored]| cut(records).map(|page| page.len()).collect::<Vec<_>>();
        assert_eq!(lens(&[]), [0; 0]);
        assert_eq!(lens(&[record(1, 1, 9), record(1, 5, 9), record(2, 1, 9), record(2, 1, 9)]), [2, 1, 1]);
        assert_eq!(lens(&[record(1, 1, HISTORY_PAGE_BYTES), record(1, 2, 9)]), [1, 1]);
        let many: Vec<Stored> = (0..=HISTORY_PAGE_RECORDS as u64).map(|index| record(1, index, 1)).collect();
        assert_eq!(lens(&many), [HISTORY_PAGE_RECORDS, 1]);
        assert!(encode_table(&many[..HISTORY_PAGE_RECORDS]).len() <= TABLE_BYTES_MAX);
    }

    #[test]
    fn what_is_left_of_a_page_begins_and_ends_with_a_record_and_no_byte_is_counted_twice() {
        // Records 10, 20, 30, 40 of 10 to 40 bytes, and a table of 7; record 40 does not count any
        // more.
        let rows: Vec<Mark> = [10, 20, 30, 40].iter().map(|&n| Mark::of(n, &vec![0; n as usize])).collect();
        let whole = page(10, 30, 3, 67);
        let left = |from, through| whole.without(Some(&rows), from, through);
        assert_eq!(left(15, 25), [Some(page(10, 10, 1, 17)), Some(page(30, 30, 1, 30))]);
        assert_eq!(left(0, 15), [None, Some(page(20, 30, 2, 57))]);
        assert_eq!(left(21, u64::MAX), [Some(page(10, 20, 2, 37)), None]);
        assert_eq!(left(11, 19), [Some(page(10, 10, 1, 17)), Some(page(20, 30, 2, 50))], "there is none between");
        assert_eq!(left(10, 30), [None, None]);

        let unread = |from, through| whole.without(None, from, through);
        assert_eq!(unread(15, 25), [Some(page(10, 14, 3, 67)), Some(page(26, 30, 3, 0))]);
        assert_eq!(unread(0, 15), [None, Some(page(16, 30, 3, 67))]);
        assert_eq!(unread(10, u64::MAX), [None, None]);
    }
}
