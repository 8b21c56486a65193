//! Files that pages of records are appended to; sled keeps where each page lies.
//!
//! Large values inside a B-tree are written again with every leaf they share; apart from it each byte is written once (the idea of
//! WiscKey and of bitcask). Writes are whole aligned blocks past the page cache where the file system can: history is
//! written all the time and read seldom, and should not push anything out of memory.
//!
//! **Owns** the files and what is still needed of them. **Must never** write into a file of an earlier run, or hand out bytes
//! whose checksum is not the one that was kept. **Read next**: [`super::pages`], [`super::page_index`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::PageBounds;
use super::pages::{self, Page, TABLE_BYTES_MAX, bad};
use super::store::{Mark, Stored};
use crate::limits::{HISTORY_FILE_BYTES, HISTORY_FILES_OPEN_MAX, HISTORY_RECORD_BYTES_MAX};

/// Direct writes begin and end at multiples of it.
const BLOCK: usize = 4_096;

/// The last index of each shard in one file: once retention has passed them all, the file can go.
pub(super) type Newest = BTreeMap<u32, u64>;

/// What an append did.
pub(super) struct Appended {
    /// The pages, in the order of their records.
    pub(super) pages: Vec<Page>,
    /// A file that is full now, with what is in it.
    pub(super) sealed: Option<(u32, Newest)>,
}

/// The record files of one node.
pub(super) struct RecordFiles {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Files that are only read, with what is in them.
    sealed: BTreeMap<u32, Sealed>,
    open: OpenFiles,
    writing: Option<Writing>,
    next: u32,
    /// Retention dropped everything below, shard by shard.
    floors: BTreeMap<u32, u64>,
    /// Bytes of records that were removed and lie in files that are still needed, about.
    unfreed: u64,
    /// Block-aligned room for one write, used again.
    buffer: Vec<u8>,
    /// A sync failed: what the system kept of it is not known, and asking again would be answered with *clean*.
    failed: Option<String>,
}

struct Sealed {
    bytes: u64,
    newest: Newest,
}

/// Files that were read last, open: history has more files than a process may have descriptors.
#[derive(Default)]
struct OpenFiles {
    /// The one that was read last is the last.
    by_use: Vec<(u32, Arc<File>)>,
}

impl OpenFiles {
    fn get(&mut self, dir: &Path, number: u32) -> io::Result<Arc<File>> {
        let file = match self.by_use.iter().position(|(open, _)| *open == number) {
            Some(at) => self.by_use.remove(at).1,
            None => Arc::new(self.open(&path_of(dir, number))?),
        };
        self.keep(number, file.clone());
        Ok(file)
    }

    /// Gives descriptors back when the process has no more.
    fn open(&mut self, path: &Path) -> io::Result<File> {
        match File::open(path) {
            Err(error) if is_out_of_descriptors(&error) && !self.by_use.is_empty() => {
                self.by_use.remove(0);
                File::open(path)
            }
            opened => opened,
        }
    }

    fn keep(&mut self, number: u32, file: Arc<File>) {
        if self.by_use.len() >= HISTORY_FILES_OPEN_MAX {
            self.by_use.remove(0);
        }
        self.by_use.push((number, file));
    }

    fn close(&mut self, number: u32) {
        self.by_use.retain(|(open, _)| *open != number);
    }
}

struct Writing {
    number: u32,
    file: Arc<File>,
    /// The same file past the page cache, where that works.
    direct: Option<File>,
    newest: Newest,
    /// Bytes of records so far.
    len: usize,
    /// Those of the last block that is not full: it is written again with what follows.
    tail: Vec<u8>,
    dirty: bool,
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
}

fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.records"))
}

fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".records")?.parse().ok()
}

/// Where an aligned start lies in a buffer; buffers have a block more than they need.
fn aligned(buffer: &[u8]) -> usize {
    buffer.as_ptr().addr().next_multiple_of(BLOCK) - buffer.as_ptr().addr()
}

impl RecordFiles {
    /// Opens what lies in `dir`. `newest` says what is in each file, as far as it is known; of a file that it does not name
    /// `otherwise` is assumed. Writing begins in a new file: the last one may be torn. Its number was never used before, also when
    /// retention removed the last files: places and notes of those may still be there.
    ///
    /// The run before may have ended before it synced its last file. It is synced here, so that
    /// what lies in it counts as durable rightly; the files before it were synced when they were
    /// full.
    pub(super) fn open(dir: &Path, newest: &BTreeMap<u32, Newest>, otherwise: &Newest) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut sealed = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else { continue };
            let bytes = fs::metadata(&path)?.len();
            let newest = newest.get(&number).unwrap_or(otherwise).clone();
            sealed.insert(number, Sealed { bytes, newest });
        }
        if let Some((&last, _)) = sealed.last_key_value() {
            File::open(path_of(dir, last))?.sync_data()?;
        }
        File::open(dir)?.sync_all()?;
        let last = sealed.keys().chain(newest.keys()).max();
        let next = last.map_or(1, |last| last + 1);
        let inner = Inner {
            sealed,
            open: OpenFiles::default(),
            writing: None,
            next,
            floors: BTreeMap::new(),
            unfreed: 0,
            buffer: Vec::new(),
            failed: None,
        };
        Ok(Self { dir: dir.to_owned(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records, in one write; they can be read at once.
    ///
    /// # Errors
    /// As the file system says; nothing of these records counts then.
    pub(super) fn append(&self, records: &[Stored]) -> io::Result<Appended> {
        let inner = &mut *self.lock();
        inner.usable()?;
        let mut sealed = None;
        if inner.writing.as_ref().is_some_and(|writing| writing.len >= HISTORY_FILE_BYTES) {
            sealed = inner.seal()?;
        }
        if inner.writing.is_none() {
            inner.writing = Some(Writing::begin(&self.dir, inner.next)?);
            inner.next += 1;
        }
        let writing = inner.writing.as_mut().expect("just begun");
        let pages = writing.append(records, &mut inner.buffer)?;
        Ok(Appended { pages, sealed })
    }

    /// The table of a page: of all its records, also of those that count no more.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub(super) fn table(&self, page: &Page) -> io::Result<Vec<Mark>> {
        if page.table_len as usize > TABLE_BYTES_MAX {
            return Err(bad("a table longer than the bound"));
        }
        let bytes = self.bytes(page.file, page.offset.into(), page.table_len as usize)?;
        if crc32c::crc32c(&bytes) != page.table_sum {
            return Err(bad("the checksum of its page's table does not match"));
        }
        pages::decode_table(&bytes)
    }

    /// Those records of a page that count, with `from <= index <= through`, ascending, until a bound is passed: in one read.
    ///
    /// # Errors
    /// `InvalidData` when the bytes are not those that were appended, or cannot be read. Anything
    /// else says nothing about the records: their file cannot be opened now.
    pub(super) fn records(
        &self,
        page: &Page,
        from: u64,
        through: u64,
        bounds: PageBounds,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let rows = self.table(page)?;
        let wanted = |row: &Mark| page.counts(row.index) && (from..=through).contains(&row.index);
        let skipped = rows.iter().take_while(|row| !wanted(row));
        let (before, begins) = skipped.fold((0, 0), |(n, bytes), row| (n + 1, bytes + u64::from(row.len)));
        let mut run: usize = 0;
        let mut count = 0;
        for row in rows[before..].iter().take_while(|row| wanted(row)).take(bounds.records) {
            if run >= bounds.bytes && count > 0 {
                break;
            }
            if row.len as usize > HISTORY_RECORD_BYTES_MAX {
                return Err(bad("longer than the bound"));
            }
            (count, run) = (count + 1, run + row.len as usize);
        }
        let mut bytes = self.bytes(page.file, u64::from(page.offset) + u64::from(page.table_len) + begins, run)?;
        let mut out = Vec::with_capacity(count);
        for row in &rows[before..before + count] {
            let record = bytes.split_to(row.len as usize);
            if crc32c::crc32c(&record) != row.sum {
                return Err(bad("its checksum does not match"));
            }
            out.push((row.index, record));
        }
        Ok(out)
    }

    /// Bytes of a file. What the disk does not give back is as bad as what it changed: it is fetched from a peer, and written
    /// elsewhere.
    fn bytes(&self, number: u32, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = {
            let inner = &mut *self.lock();
            match inner.writing.as_ref().filter(|writing| writing.number == number) {
                Some(writing) => Some(writing.file.clone()),
                None if inner.sealed.contains_key(&number) => match inner.open.get(&self.dir, number) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    opened => Some(opened?),
                },
                None => None,
            }
        };
        let file = file.ok_or_else(|| bad(format!("file {number} is gone")))?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => bad("its file ends before it"),
            _ => bad(format!("its file cannot be read there: {e}")),
        })?;
        Ok(bytes.into())
    }

    /// Makes everything appended durable. A sync that fails is never asked for again: nothing more is written in this run.
    pub(super) fn sync(&self) -> io::Result<()> {
        let dirty = {
            let inner = &mut *self.lock();
            inner.usable()?;
            inner.writing.as_mut().filter(|writing| writing.dirty).map(|writing| {
                writing.dirty = false;
                writing.file.clone()
            })
        };
        let synced = dirty.map_or(Ok(()), |file| file.sync_data());
        synced.inspect_err(|error| self.lock().failed = Some(error.to_string()))
    }

    /// Retention dropped what lies below an index of a shard: files that nothing needs any more are removed, and named.
    pub(super) fn drop_below(&self, shard: u32, index: u64) -> io::Result<Vec<u32>> {
        let inner = &mut *self.lock();
        let floor = inner.floors.entry(shard).or_default();
        *floor = index.max(*floor);
        let floors = &inner.floors;
        let needed = |(shard, last): (&u32, &u64)| floors.get(shard).is_none_or(|floor| last >= floor);
        let doomed: Vec<u32> =
            inner.sealed.iter().filter(|(_, s)| !s.newest.iter().any(needed)).map(|(&number, _)| number).collect();
        for &number in &doomed {
            inner.open.close(number);
            match fs::remove_file(path_of(&self.dir, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {
                    let gone = inner.sealed.remove(&number).map_or(0, |file| file.bytes);
                    inner.unfreed = inner.unfreed.saturating_sub(gone);
                }
            };
        }
        Ok(doomed)
    }

    /// So many bytes of records are needed no more; they are free once their file is.
    pub(super) fn removed(&self, bytes: u32) {
        self.lock().unfreed += u64::from(bytes);
    }

    /// Bytes of removed records in files that are still needed.
    pub(super) fn unfreed(&self) -> u64 {
        self.lock().unfreed
    }

    /// Bytes taken.
    pub(super) fn size(&self) -> u64 {
        let inner = self.lock();
        let sealed: u64 = inner.sealed.values().map(|s| s.bytes).sum();
        sealed + inner.writing.as_ref().map_or(0, |w| w.len as u64)
    }
}

impl Inner {
    fn usable(&self) -> io::Result<()> {
        let Some(why) = &self.failed else { return Ok(()) };
        Err(io::Error::other(format!("the record files are left alone until a restart: a sync failed: {why}")))
    }

    /// Nothing more is written into the present file.
    fn seal(&mut self) -> io::Result<Option<(u32, Newest)>> {
        let Some(full) = self.writing.take() else { return Ok(None) };
        full.file.sync_data().inspect_err(|error| self.failed = Some(error.to_string()))?;
        self.open.keep(full.number, full.file);
        self.sealed.insert(full.number, Sealed { bytes: full.len as u64, newest: full.newest.clone() });
        Ok(Some((full.number, full.newest)))
    }
}

impl Writing {
    fn begin(dir: &Path, number: u32) -> io::Result<Self> {
        let path = path_of(dir, number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        File::open(dir)?.sync_all()?;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        // Not every file system can; then it goes through the page cache.
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(&path).ok();
        let file = Arc::new(file);
        Ok(Self { number, file, direct, newest: Newest::new(), len: 0, tail: Vec::new(), dirty: false })
    }

    fn append(&mut self, records: &[Stored], buffer: &mut Vec<u8>) -> io::Result<Vec<Page>> {
        let tables: Vec<Vec<u8>> = pages::cut(records).map(pages::encode_table).collect();
        let of_tables: usize = tables.iter().map(Vec::len).sum();
        let more = of_tables + records.iter().map(|record| record.bytes.len()).sum::<usize>();
        let from = self.len - self.tail.len();
        let blocks = (self.tail.len() + more).next_multiple_of(BLOCK);
        if buffer.len() < blocks + BLOCK {
            *buffer = vec![0; blocks + BLOCK];
        }
        let start = aligned(buffer);
        let mut at = start;
        let mut put = |bytes: &[u8]| {
            buffer[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
            from + at - start
        };
        let mut offset = put(&self.tail);
        let mut written = Vec::with_capacity(tables.len());
        for (records, table) in pages::cut(records).zip(&tables) {
            written.extend(Page::new(self.number, offset, table, records)?);
            offset = put(table);
            offset = records.iter().fold(offset, |_, record| put(&record.bytes));
        }
        let end = at;
        buffer[end..start + blocks].fill(0);
        let whole = &buffer[start..start + blocks];
        match &self.direct {
            Some(direct) => match direct.write_all_at(whole, from as u64) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    self.direct = None;
                    self.file.write_all_at(whole, from as u64)?;
                }
                written => written?,
            },
            None => self.file.write_all_at(whole, from as u64)?,
        }
        self.dirty = true;
        self.len += more;
        self.tail.clear();
        self.tail.extend_from_slice(&buffer[end - self.len % BLOCK..end]);
        for record in records {
            let newest = self.newest.entry(record.shard).or_default();
            *newest = record.index.max(*newest);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: u32, index: u64, len: usize) -> Stored {
        let bytes: Vec<u8> = (0..len).map(|n| (n as u64 * 31 + index) as u8).collect();
        Stored { shard, index, bytes: bytes.into() }
    }

    fn open(dir: &Path) -> RecordFiles {
        RecordFiles::open(dir, &BTreeMap::new(), &Newest::from([(1, 100)])).expect("opens")
    }

    const ALL: PageBounds = PageBounds { records: usize::MAX, bytes: usize::MAX };

    fn all_of(files: &RecordFiles, pages: &[Page]) -> Vec<Bytes> {
        let records = |page| files.records(page, 0, u64::MAX, ALL).expect("there");
        pages.iter().flat_map(records).map(|(_, bytes)| bytes).collect()
    }

    #[test]
    fn records_of_any_length_are_read_back_while_the_file_is_written_and_after() {
        let dir = tempfile::tempdir().expect("a directory");
        let records: Vec<Stored> = [0, 1, 5, BLOCK - 6, 1, BLOCK, 3 * BLOCK + 7, 9]
            .iter()
            .enumerate()
            .map(|(n, &l)| record(1, n as u64, l))
            .collect();
        let files = open(dir.path());
        let mut pages = Vec::new();
        for some in records.chunks(3) {
            pages.extend(files.append(some).expect("appended").pages);
            let appended = &records[..pages.len().saturating_mul(3).min(records.len())];
            assert_eq!(all_of(&files, &pages), appended.iter().map(|record| record.bytes.clone()).collect::<Vec<_>>());
        }
        files.sync().expect("synced");
        drop(files);
        let files = open(dir.path());
        files.append(&[record(1, 50, 10)]).expect("into a file of its own");
        assert_eq!(all_of(&files, &pages), records.iter().map(|record| record.bytes.clone()).collect::<Vec<_>>());
        let (second, bounds) = (pages[1], PageBounds { records: 2, bytes: usize::MAX });
        assert_eq!(files.records(&second, 4, 9, bounds).expect("there").len(), 2);
        let one = PageBounds { records: 9, bytes: 1 };
        assert_eq!(files.records(&second, 3, 9, one).expect("there"), [(3, records[3].bytes.clone())]);
        let cut = Page { first: 4, last: 4, ..second };
        assert_eq!(files.records(&cut, 0, 9, ALL).expect("there"), [(4, records[4].bytes.clone())]);
        assert_eq!(files.records(&cut, 5, 9, ALL).expect("it counts no more"), []);
    }

    #[test]
    fn other_bytes_than_were_appended_are_never_handed_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = open(dir.path());
        let page = files.append(&[record(1, 1, 100), record(1, 2, 100)]).expect("appended").pages[0];
        let file = OpenOptions::new().write(true).open(path_of(dir.path(), 1)).expect("the file");
        let lost = |index| files.records(&page, index, index, ALL).map_err(|error| error.kind()).err();
        let of_table = u64::from(page.table_len);
        file.write_all_at(&[0xff], of_table + 150).expect("spoilt");
        assert_eq!([lost(1), lost(2)], [None, Some(io::ErrorKind::InvalidData)]);
        file.set_len(of_table + 120).expect("cut");
        assert_eq!([lost(1), lost(2)], [None, Some(io::ErrorKind::InvalidData)]);
        file.write_all_at(&[0xff], 1).expect("spoilt");
        assert_eq!([lost(1), lost(2)], [Some(io::ErrorKind::InvalidData); 2], "without its table");
        assert!(files.table(&Page { table_len: u32::MAX, ..page }).is_err());
    }

    #[test]
    fn a_record_that_the_disk_does_not_give_back_is_as_bad_as_a_changed_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = open(dir.path());
        let pages = files.append(&[record(1, 1, 100)]).expect("appended").pages;
        // The first page of a process is never mapped: reading it is an input/output error.
        let broken = Arc::new(File::open("/proc/self/mem").expect("a file of the system"));
        let why = broken.read_exact_at(&mut [0; 100], 0).expect_err("cannot be read");
        assert_eq!(why.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        files.lock().writing.as_mut().expect("just written").file = broken;
        let lost = files.records(&pages[0], 1, 1, ALL).expect_err("cannot be read");
        assert_eq!(lost.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_an_earlier_run_wrote_last_is_synced_before_it_counts_as_durable() {
        let dir = tempfile::tempdir().expect("a directory");
        // The system refuses to sync it.
        std::os::unix::fs::symlink("/proc/self/status", path_of(dir.path(), 1)).expect("a link");
        let opened = |n: u32| {
            let open = RecordFiles::open(dir.path(), &BTreeMap::new(), &Newest::from([(1, 100)]));
            (n, open.map(drop).is_ok())
        };
        assert_eq!(opened(1), (1, false));
        // Files before the newest were synced when they were full.
        fs::write(path_of(dir.path(), 2), b"records").expect("written");
        assert_eq!(opened(2), (2, true));
    }

    #[test]
    fn a_number_is_not_used_again_while_something_is_still_known_of_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        // The process was killed between the removal of file 3 and the word of it.
        let known = BTreeMap::from([(3, Newest::from([(1, 10)]))]);
        let files = RecordFiles::open(dir.path(), &known, &Newest::new()).expect("opens");
        files.append(&[record(1, 50, 10)]).expect("appended");
        assert!(path_of(dir.path(), 4).exists());
    }

    #[test]
    fn few_files_are_open_however_many_there_are() {
        const FILES: u32 = 4 * HISTORY_FILES_OPEN_MAX as u32;
        let dir = tempfile::tempdir().expect("a directory");
        let mut pages = Vec::new();
        for n in 1..=FILES {
            // Each run writes into a file of its own.
            pages.extend(open(dir.path()).append(&[record(1, n.into(), 100)]).expect("appended").pages);
        }
        let open_here = || {
            let all = fs::read_dir("/proc/self/fd").expect("of this process").flatten();
            all.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(dir.path()))).count()
        };
        let files = open(dir.path());
        assert_eq!(open_here(), 0);
        for _ in 0..2 {
            for (n, page) in (1..).zip(&pages) {
                assert_eq!(all_of(&files, &[*page]), [record(1, n, 100).bytes]);
                assert!(open_here() <= HISTORY_FILES_OPEN_MAX);
            }
        }
        // A file that is gone is damage, and one that cannot be opened is none: the system may open it later.
        let [first, second, ..] = pages[..] else { panic!("there are more") };
        fs::remove_file(path_of(dir.path(), first.file)).expect("removed");
        assert_eq!(files.table(&first).expect_err("gone").kind(), io::ErrorKind::InvalidData);
        fs::remove_file(path_of(dir.path(), second.file)).expect("removed");
        std::os::unix::fs::symlink(path_of(dir.path(), second.file), path_of(dir.path(), second.file)).expect("a loop");
        assert_ne!(files.table(&second).expect_err("a loop").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_called_durable() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = open(dir.path());
        let pages = files.append(&[record(1, 1, 10)]).expect("appended").pages;
        let written = {
            // A file that the system refuses to sync.
            let stubborn = Arc::new(File::open("/proc/self/status").expect("a file of the system"));
            std::mem::replace(&mut files.lock().writing.as_mut().expect("just written").file, stubborn)
        };
        assert!(files.sync().is_err());
        files.lock().writing.as_mut().expect("still there").file = written;
        assert!(files.sync().is_err(), "it would only hear that the cache is clean");
        assert!(files.append(&[record(1, 2, 10)]).is_err());
        assert!(files.table(&pages[0]).is_ok(), "what can be read is read");
    }

    #[test]
    fn a_file_goes_when_retention_has_passed_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = open(dir.path());
        let pages = files.append(&[record(1, 10, 10), record(2, 20, 10)]).expect("appended").pages;
        drop(files);
        let known = BTreeMap::from([(1, Newest::from([(1, 10), (2, 20)]))]);
        let files = RecordFiles::open(dir.path(), &known, &Newest::new()).expect("again");
        files.removed(pages[0].bytes);
        assert!(files.drop_below(1, 11).expect("kept for the other shard").is_empty());
        assert_eq!(files.unfreed(), u64::from(pages[0].bytes));
        assert!(files.drop_below(2, 20).expect("its last is needed").is_empty());
        files.removed(pages[1].bytes);
        assert_eq!(files.drop_below(2, 21).expect("nothing needs it"), [1]);
        assert_eq!(files.unfreed(), 0);
        assert!(!path_of(dir.path(), 1).exists());
        assert_eq!(files.size(), 0);
    }
}
