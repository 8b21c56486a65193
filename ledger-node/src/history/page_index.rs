//! The index of pages: one entry of sled a page, and the record files behind it.
//!
//! **What it is.** An ordered map of records over pages: a record is found through the page with
//! the greatest first index at or below it. Removing records that share a page with others changes
//! the page's entry, in one batch: a reader sees the entry before or the entries after, and a crash
//! leaves one or the other.
//!
//! A page whose table cannot be read counts as one with a record at every index that it covers:
//! none of them can be read, and what cannot be read is removed and becomes a gap as a whole.
//!
//! **Owns** the tree of pages; that pages of a shard never overlap. **Must never** read a record
//! file where the entry says enough. **Read next**: [`super::pages`], [`super::record_files`].

use std::io;

use bytes::Bytes;

use super::PageBounds;
use super::pages::{Page, key};
use super::record_files::{Newest, RecordFiles};
use super::store::{Mark, Stored};

pub(super) struct PageIndex {
    tree: sled::Tree,
    pub(super) files: RecordFiles,
}

/// The last index of each shard that has a page.
pub(super) fn last_of_shards(tree: &sled::Tree) -> io::Result<Newest> {
    let mut newest = Newest::new();
    let mut before = tree.last().map_err(io::Error::from)?;
    while let Some((last, page)) = before {
        let page = Page::decode(&last, &page)?;
        newest.insert(page.shard, page.last);
        before = tree.get_lt(key(page.shard, 0)).map_err(io::Error::from)?;
    }
    Ok(newest)
}

/// What a read found, unless the bytes are not those that were written: none then.
fn if_intact<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        read => read.map(Some),
    }
}

impl PageIndex {
    pub(super) fn new(tree: sled::Tree, files: RecordFiles) -> Self {
        Self { tree, files }
    }

    /// Stores records; answers which file is full now, with what is in it. They replace what lies
    /// between the first and the last of a page of them.
    pub(super) fn put(&self, records: &[Stored]) -> io::Result<Option<(u32, Newest)>> {
        if records.is_empty() {
            return Ok(None);
        }
        let appended = self.files.append(records)?;
        for page in appended.pages {
            for before in self.between(page.shard, page.first, page.last) {
                let before = before?;
                let rows = if_intact(self.files.table(&before))?;
                self.replace(&before, before.without(rows.as_deref(), page.first, page.last))?;
            }
            self.tree.insert(page.key(), &page.encode()).map_err(io::Error::from)?;
        }
        Ok(appended.sealed)
    }

    /// The last page that begins at or below an index.
    fn beginning_up_to(&self, shard: u32, index: u64) -> io::Result<Option<Page>> {
        let found = self.tree.range(key(shard, 0)..=key(shard, index)).next_back();
        found.transpose().map_err(io::Error::from)?.map(|(key, page)| Page::decode(&key, &page)).transpose()
    }

    /// The page that covers an index, or the first one behind it.
    fn at_or_behind(&self, shard: u32, index: u64) -> io::Result<Option<Page>> {
        if let Some(page) = self.beginning_up_to(shard, index)?.filter(|page| page.last >= index) {
            return Ok(Some(page));
        }
        let found = self.tree.range(key(shard, index)..=key(shard, u64::MAX)).next();
        found.transpose().map_err(io::Error::from)?.map(|(key, page)| Page::decode(&key, &page)).transpose()
    }

    /// Pages that cover indexes from one to another, ascending.
    fn between(&self, shard: u32, from: u64, through: u64) -> impl Iterator<Item = io::Result<Page>> {
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let from = next.filter(|from| *from <= through)?;
            match self.at_or_behind(shard, from) {
                Ok(found) => {
                    let page = found.filter(|page| page.first <= through);
                    next = page.and_then(|page| page.last.checked_add(1));
                    page.map(Ok)
                }
                Err(error) => {
                    next = None;
                    Some(Err(error))
                }
            }
        })
    }

    pub(super) fn range(
        &self,
        shard: u32,
        from: u64,
        through: u64,
        bounds: PageBounds,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        for page in self.between(shard, from, through) {
            let page = page?;
            let left = PageBounds { records: bounds.records - out.len(), bytes: bounds.bytes.saturating_sub(bytes) };
            let records = self.files.records(&page, next, through, left)?;
            bytes += records.iter().map(|(_, record)| record.len()).sum::<usize>();
            out.extend(records);
            if out.len() >= bounds.records || (bytes >= bounds.bytes && !out.is_empty()) {
                break;
            }
            next = page.last.saturating_add(1);
        }
        Ok(out)
    }

    pub(super) fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>> {
        let mut out = Vec::new();
        for page in self.between(shard, from, through) {
            if out.len() >= max {
                break;
            }
            let page = page?;
            let covered = |index: u64| page.counts(index) && (from..=through).contains(&index);
            match if_intact(self.files.table(&page))? {
                Some(rows) => out.extend(rows.into_iter().filter(|row| covered(row.index))),
                // The first and the last stand for all: no record has their length and checksum.
                None => {
                    let (first, last) = (page.first.max(from), page.last.min(through));
                    out.push(Mark { index: first, len: page.bytes, sum: 0 });
                    out.extend((first < last).then_some(Mark { index: last, len: 0, sum: 0 }));
                }
            }
        }
        out.truncate(max);
        Ok(out)
    }

    /// The last index of a record of a page that begins at or below one.
    fn last_in(&self, page: &Page, index: u64) -> io::Result<u64> {
        if page.last <= index {
            return Ok(page.last);
        }
        let last = |rows: Vec<Mark>| {
            let counts = rows.iter().rev().find(|row| page.counts(row.index) && row.index <= index);
            counts.map_or(page.first, |row| row.index)
        };
        Ok(if_intact(self.files.table(page))?.map_or(index, last))
    }

    pub(super) fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>> {
        let page = self.beginning_up_to(shard, index)?;
        page.map(|page| self.last_in(&page, index)).transpose()
    }

    pub(super) fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        let Some(page) = self.beginning_up_to(shard, index)? else { return Ok(None) };
        let last = self.last_in(&page, index)?;
        Ok(self.files.records(&page, last, last, PageBounds { records: 1, bytes: 1 })?.pop())
    }

    /// What cannot be read together with an index: see
    /// [`super::store::RecordStore::unreadable_with`].
    pub(super) fn unreadable_with(&self, shard: u32, index: u64) -> io::Result<(u64, u64)> {
        let page = self.beginning_up_to(shard, index)?.filter(|page| page.last >= index);
        let Some(page) = page else { return Ok((index, index)) };
        Ok(if_intact(self.files.table(&page))?.map_or((page.first, page.last), |_| (index, index)))
    }

    /// Removes up to `max` records; answers how many. Of a page all of which goes nothing is read.
    pub(super) fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        let mut removed = 0;
        for page in self.between(shard, from, through) {
            let page = page?;
            let left = max - removed;
            let count = page.records as usize;
            if from <= page.first && page.last <= through && count <= left {
                self.replace(&page, [None, None])?;
                removed += count;
            } else if let Some(rows) = if_intact(self.files.table(&page))? {
                let doomed = rows.iter().map(|row| row.index).filter(|&index| page.counts(index) && index >= from);
                let doomed: Vec<u64> = doomed.take_while(|&index| index <= through).take(left).collect();
                let Some(&last) = doomed.last() else { continue };
                self.replace(&page, page.without(Some(&rows), from, last))?;
                removed += doomed.len();
            } else {
                self.replace(&page, page.without(None, from, through))?;
                removed += count.min(left);
            }
            if removed >= max {
                break;
            }
        }
        Ok(removed)
    }

    /// What is left of a page takes its place, at once.
    fn replace(&self, page: &Page, left: [Option<Page>; 2]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        batch.remove(&page.key());
        for page in left.iter().flatten() {
            batch.insert(&page.key(), &page.encode());
        }
        self.tree.apply_batch(batch).map_err(io::Error::from)?;
        let kept = left.iter().flatten().fold(0, |sum: u32, page| sum.saturating_add(page.bytes));
        self.files.removed(page.bytes.saturating_sub(kept));
        Ok(())
    }

    /// After a power cut pages may be named here whose records do not lie in the files: from the
    /// newest record on they are forgotten, and come again from the log.
    pub(super) fn drop_lost_tail(&self) -> io::Result<()> {
        for (shard, _) in last_of_shards(&self.tree)? {
            while let Some(page) = self.beginning_up_to(shard, u64::MAX)? {
                let lost_from = match if_intact(self.files.table(&page))? {
                    Some(rows) => self.lost_from(&page, &rows)?,
                    None => Some(page.first),
                };
                let Some(first) = lost_from else { break };
                tracing::warn!(shard, first, last = page.last, "records of history were lost with their file's tail");
                self.remove(shard, first, u64::MAX, usize::MAX)?;
                if first > page.first {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The first record of a page behind its last one that can be read; none when its very last one
    /// can.
    fn lost_from(&self, page: &Page, rows: &[Mark]) -> io::Result<Option<u64>> {
        let mut lost = None;
        for row in rows.iter().rev().filter(|row| page.counts(row.index)) {
            let one = PageBounds { records: 1, bytes: 1 };
            if if_intact(self.files.records(page, row.index, row.index, one))?.is_some() {
                break;
            }
            lost = Some(row.index);
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::*;
    use crate::limits::HISTORY_PAGE_RECORDS;

    const ALL: PageBounds = PageBounds { records: usize::MAX, bytes: usize::MAX };

    fn open(dir: &Path) -> PageIndex {
        // sled's threads may hold the lock of the one before a moment longer.
        let config = sled::Config::new().path(dir.join("index")).flush_every_ms(None);
        let db = std::iter::repeat_with(|| config.open()).find(|opened| match opened {
            Err(error) => !error.to_string().contains("could not acquire lock"),
            Ok(_) => true,
        });
        let db = db.expect("never ends").expect("opens");
        let tree = db.open_tree("pages").expect("opens");
        let newest = last_of_shards(&tree).expect("readable");
        let files = RecordFiles::open(&dir.join("records"), &BTreeMap::new(), &newest).expect("opens");
        PageIndex::new(tree, files)
    }

    fn record(shard: u32, index: u64) -> Stored {
        Stored { shard, index, bytes: vec![index as u8; 1 + index as usize % 50].into() }
    }

    fn put(index: &PageIndex, indexes: impl IntoIterator<Item = u64>) {
        let records: Vec<Stored> = indexes.into_iter().map(|index| record(1, index)).collect();
        index.put(&records).expect("stored");
    }

    fn indexes(index: &PageIndex) -> Vec<u64> {
        index.marks(1, 0, u64::MAX, usize::MAX).expect("readable").iter().map(|mark| mark.index).collect()
    }

    fn pages(index: &PageIndex) -> Vec<Page> {
        index.between(1, 0, u64::MAX).collect::<io::Result<_>>().expect("readable")
    }

    /// Spoils the table of a page.
    fn spoil(dir: &Path, page: &Page) {
        let path = dir.join(format!("records/{:08}.records", page.file));
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, page.offset.into()).expect("it is there");
        file.write_all_at(&[!byte[0]], page.offset.into()).expect("spoilt");
    }

    #[test]
    fn index_after_any_puts_and_removes_holds_what_a_map_of_records_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut index = open(dir.path());
        let mut model: BTreeMap<(u32, u64), Stored> = BTreeMap::new();
        let mut state: u64 = 0x5eed;
        println!("seed {state}");
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for step in 0..600 {
            let shard = 1 + below(2) as u32;
            let (from, len) = (below(400), below(60));
            let through = from + len;
            if below(2) == 0 {
                // New records of two shards in one write, some of which replace others.
                let every = 1 + below(3);
                let new: Vec<Stored> = (from..=through).filter(|n| n % every == 0).map(|n| record(shard, n)).collect();
                let (first, last) = (new.first().map(|r| r.index), new.last().map(|r| r.index));
                if let (Some(first), Some(last)) = (first, last) {
                    model.retain(|&(of, n), _| of != shard || n < first || n > last);
                }
                index.put(&new).expect("stored");
                model.extend(new.into_iter().map(|record| ((record.shard, record.index), record)));
            } else {
                let max = 1 + below(80) as usize;
                let doomed: Vec<_> =
                    model.range((shard, from)..=(shard, through)).map(|(&key, _)| key).take(max).collect();
                assert_eq!(index.remove(shard, from, through, max).expect("removed"), doomed.len(), "step {step}");
                doomed.iter().for_each(|key| drop(model.remove(key)));
            }
            if step % 97 == 0 {
                drop(index);
                index = open(dir.path());
            }
            let (from, max) = (below(460), 1 + below(50) as usize);
            let through = from + below(200);
            assert_eq!(index.range(shard, from + 1, from, ALL).expect("nothing is read"), []);
            let expected: Vec<(u64, Bytes)> =
                model.range((shard, from)..=(shard, through)).map(|(key, r)| (key.1, r.bytes.clone())).collect();
            assert_eq!(index.range(shard, from, through, ALL).expect("readable"), expected, "step {step}");
            let some = PageBounds { records: max, bytes: usize::MAX };
            let fewer = &expected[..max.min(expected.len())];
            assert_eq!(index.range(shard, from, through, some).expect("readable"), fewer, "step {step}");
            let marks: Vec<Mark> = fewer.iter().map(|(at, bytes)| Mark::of(*at, bytes)).collect();
            assert_eq!(index.marks(shard, from, through, max).expect("readable"), marks, "step {step}");
            let last = model.range((shard, 0)..=(shard, from)).next_back().map(|(key, r)| (key.1, r.bytes.clone()));
            assert_eq!(index.last_index(shard, from).expect("readable"), last.as_ref().map(|last| last.0));
            assert_eq!(index.last_up_to(shard, from).expect("readable"), last, "step {step}");
        }
        assert!(!model.is_empty());
    }

    #[test]
    fn records_written_at_once_have_one_entry_and_a_part_of_them_is_removed_without_a_second_copy() {
        let dir = tempfile::tempdir().expect("a directory");
        let index = open(dir.path());
        put(&index, 1..=HISTORY_PAGE_RECORDS as u64);
        assert_eq!(pages(&index).len(), 1);
        let size = index.files.size();
        assert_eq!(index.remove(1, 0, 10, usize::MAX).expect("removed"), 10);
        assert_eq!(index.remove(1, 100, 199, usize::MAX).expect("removed"), 100);
        let covered: Vec<(u64, u64)> = pages(&index).iter().map(|page| (page.first, page.last)).collect();
        assert_eq!(covered, [(11, 99), (200, HISTORY_PAGE_RECORDS as u64)]);
        assert_eq!(index.files.size(), size);
        let gone: usize = (1..=10).chain(100..=199).map(|n| record(1, n).bytes.len()).sum();
        assert_eq!(index.files.unfreed(), gone as u64);
        // The table goes with the last of them.
        index.remove(1, 0, u64::MAX, usize::MAX).expect("removed");
        assert_eq!(index.files.unfreed(), size);
    }

    #[test]
    fn page_without_a_table_counts_as_unreadable_as_a_whole_and_can_be_removed_in_any_part() {
        for (from, through) in [(0, 9), (15, 17), (18, u64::MAX), (11, 20)] {
            let dir = tempfile::tempdir().expect("a directory");
            let index = open(dir.path());
            put(&index, 1..=10);
            put(&index, 11..=20);
            put(&index, 21..=30);
            spoil(dir.path(), &pages(&index)[1]);
            let unreadable = index.range(1, 8, 12, ALL).expect_err("it is spoilt");
            assert_eq!(unreadable.kind(), io::ErrorKind::InvalidData);
            assert_eq!(index.range(1, 1, 10, ALL).expect("another page").len(), 10);
            assert_eq!(index.unreadable_with(1, 15).expect("known"), (11, 20));
            assert_eq!(index.unreadable_with(1, 25).expect("known"), (25, 25));
            assert_eq!(index.last_index(1, 15).expect("known"), Some(15));
            assert_eq!(index.last_up_to(1, 15).expect_err("spoilt").kind(), io::ErrorKind::InvalidData);
            let marks = index.marks(1, 13, 22, 100).expect("known");
            assert_eq!(marks.iter().map(|mark| mark.index).collect::<Vec<_>>(), [13, 20, 21, 22]);
            assert_ne!(marks[1], Mark::of(20, &record(1, 20).bytes), "what the log says is not there");

            index.remove(1, from, through, usize::MAX).expect("removed");
            let left: Vec<u64> = indexes(&index).into_iter().filter(|n| (11..=20).contains(n)).collect();
            let expected: &[u64] = match from {
                0 => &[11, 20],
                15 => &[11, 14, 18, 20],
                18 => &[11, 17],
                _ => &[],
            };
            assert_eq!(left, expected);
            put(&index, 11..=20);
            let outside = |n: &u64| (11..=20).contains(n) || *n < from || *n > through;
            assert_eq!(indexes(&index), (1..=30).filter(outside).collect::<Vec<_>>(), "written anew");
        }
    }

    #[test]
    fn records_that_a_power_cut_took_are_forgotten_from_the_newest_that_can_be_read() {
        // Cut within the records of the last page, within its table, and within the page before.
        let of_page = |pages: &[Page], n: usize, more: u64| u64::from(pages[n].offset) + more;
        let of_records = |through: u64| (11..=through).map(|n| record(1, n).bytes.len() as u64).sum::<u64>();
        for (n, page, left) in [(0, 1, 15), (1, 1, 10), (2, 0, 4)] {
            let dir = tempfile::tempdir().expect("a directory");
            let index = open(dir.path());
            put(&index, 1..=10);
            put(&index, 11..=20);
            let pages = pages(&index);
            let table = u64::from(pages[page].table_len);
            let len = match n {
                0 => of_page(&pages, page, table + of_records(15)),
                1 => of_page(&pages, page, table - 1),
                _ => of_page(&pages, page, table + (1..=4).map(|n| record(1, n).bytes.len() as u64).sum::<u64>()),
            };
            drop(index);
            let path = dir.path().join("records/00000001.records");
            std::fs::OpenOptions::new().write(true).open(path).expect("the file").set_len(len).expect("cut");
            let index = open(dir.path());
            index.drop_lost_tail().expect("forgotten");
            assert_eq!(indexes(&index), (1..=left).collect::<Vec<_>>(), "case {n}");
            assert_eq!(index.range(1, 0, u64::MAX, ALL).expect("readable").len() as u64, left);
        }
    }
}
