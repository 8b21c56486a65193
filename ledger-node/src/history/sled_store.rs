//! History on disk: pages of records in files, where each page lies and all notes in sled. Rebuildable, verified when opened, never the only copy
//! (docs/decisions/0003).
//!
//! A store that cannot be opened or written, as on a full disk, takes nothing until the writer has had it
//! opened again. The node runs without history of its own meanwhile.
//!
//! **Owns** sled's settings and its directory; that the files are synced before the index. **Must never** be trusted after a damage it reports: it is moved aside then.
//! Must never take a full disk for damage.
//! **Read next**: [`super::kept`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::page_index::{PageIndex, last_of_shards};
use super::pages::{key, split_key};
use super::record_files::{Newest, RecordFiles};
use super::store::{Mark, Ready, RecordStore, Stored};
use super::{History, HistoryFactory, KeptHistory, PageBounds, Retention};
use crate::limits::{HISTORY_CACHE_BYTES, HISTORY_SEGMENT_BYTES};

/// Opens histories on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct SledHistory;

/// The directory's name below the one given.
const DIR: &str = "sled";

/// The store alone, for tests that write when they want.
#[cfg(test)]
pub(super) fn open_store(dir: &Path) -> io::Result<Arc<dyn RecordStore>> {
    Ok(Arc::new(SledStore::open(&dir.join(DIR))?))
}

impl HistoryFactory for SledHistory {
    fn open(&self, dir: &Path, keep: Retention) -> io::Result<Arc<dyn History>> {
        let home = dir.join(DIR);
        let why = match open_in(dir, keep) {
            Ok(history) => return Ok(history),
            Err(why) if is_in_use(&why) => return Err(why),
            Err(why) if is_no_damage(&why) => why,
            Err(why) => match move_aside(dir, &why).and_then(|()| open_in(dir, keep)) {
                Ok(history) => return Ok(history),
                Err(why) => why,
            },
        };
        tracing::error!(
            error = %why, dir = %dir.display(),
            "the history store cannot be opened; the node runs without it and tries again every ten seconds; if the disk cannot \
             read it any more, stop the node and remove the directory: it is rebuilt from peers"
        );
        let history = KeptHistory::threaded(Arc::new(SledStore::unopened(&home)), keep)?;
        Ok(history)
    }
}

fn open_in(dir: &Path, keep: Retention) -> io::Result<Arc<dyn History>> {
    let history = KeptHistory::threaded(Arc::new(SledStore::open(&dir.join(DIR))?), keep)?;
    Ok(history)
}

/// Makes room for a new store beside one that is damaged, or of another format.
fn move_aside(dir: &Path, why: &io::Error) -> io::Result<()> {
    let aside = free_name(dir, if is_other_format(why) { "other-format" } else { "damaged" })?;
    if is_other_format(why) {
        tracing::warn!(
            error = %why, moved_to = %aside.display(),
            "the history store is moved aside and fetched from peers; remove what was moved once history has no gap"
        );
    } else {
        tracing::error!(
            error = %why, moved_to = %aside.display(),
            "the history store is damaged; it is moved aside and rebuilt from peers; no promise depends on it"
        );
    }
    std::fs::rename(dir.join(DIR), &aside)
}

/// Whether an error of the system says nothing about the store's contents: no room, no permission,
/// no descriptors, no memory, or a disk that does not answer.
fn is_no_damage(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::StorageFull | E::QuotaExceeded | E::PermissionDenied | E::ReadOnlyFilesystem | E::OutOfMemory
    ) || error.kind() == without_a_name()
}

/// The kind of those that have no kind of their own, such as too many open files and a failed input
/// or output. Only the system's errors have it; sled keeps the kind of an error and not its number.
fn without_a_name() -> io::ErrorKind {
    io::Error::from(rustix::io::Errno::MFILE).kind()
}

/// Whether somebody else has it open: that is no damage. sled says so in words only.
fn is_in_use(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// The first unused name for a store that is moved aside.
fn free_name(dir: &Path, why: &str) -> io::Result<PathBuf> {
    (1..1_000u32)
        .map(|n| dir.join(format!("{DIR}.{why}-{n}")))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("too many history stores that were moved aside lie here; remove them"))
}

/// The store itself.
struct SledStore {
    home: PathBuf,
    state: RwLock<StoreState>,
    /// What there was is moved aside, and nobody knows yet that the store is empty.
    emptied: AtomicBool,
}

/// sled refuses everything after one failed write, so a store that could not be written is opened
/// again.
enum StoreState {
    Open(Opened),
    /// It could not be written: what was not synced may be gone.
    Failed(Opened),
    /// It could not be opened again, and may be later: what it holds is known.
    Down,
    /// It could not be opened.
    Unopened,
    Closed,
}

struct Opened {
    db: sled::Db,
    /// Where the records lie.
    pages: PageIndex,
    notes: sled::Tree,
    /// Full files and the last index of each shard in them.
    full: sled::Tree,
    /// sled's own file, for a real sync: its `flush` is a `sync_file_range` on Linux, which survives kill -9 but not power loss.
    file: File,
}

impl SledStore {
    fn open(home: &Path) -> io::Result<Self> {
        let state = RwLock::new(StoreState::Open(Opened::open(home)?));
        Ok(Self { home: home.to_owned(), state, emptied: AtomicBool::new(false) })
    }

    /// One that could not be opened.
    fn unopened(home: &Path) -> Self {
        let state = RwLock::new(StoreState::Unopened);
        Self { home: home.to_owned(), state, emptied: AtomicBool::new(false) }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, StoreState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, StoreState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&Opened) -> io::Result<T>) -> io::Result<T> {
        match &*self.read_state() {
            StoreState::Open(opened) | StoreState::Failed(opened) => act(opened),
            StoreState::Down | StoreState::Unopened => Err(not_open("could not be opened")),
            StoreState::Closed => Err(not_open("is closed")),
        }
    }

    /// A write or sync. After one that failed there is none before the writer had the store opened
    /// again: it alone knows what was not durable.
    fn write<T>(&self, act: impl FnOnce(&Opened) -> io::Result<T>) -> io::Result<T> {
        let done = match &*self.read_state() {
            StoreState::Open(opened) => act(opened),
            StoreState::Closed => return Err(not_open("is closed")),
            _ => return Err(not_open("could not be written")),
        };
        if done.is_err() {
            let mut state = self.write_state();
            *state = match std::mem::replace(&mut *state, StoreState::Down) {
                StoreState::Open(opened) => StoreState::Failed(opened),
                other => other,
            };
        }
        done
    }

    fn open_again(&self) -> io::Result<Ready> {
        let before = {
            let mut state = self.write_state();
            match &*state {
                StoreState::Open(_) => return Ok(Ready::Open),
                StoreState::Closed => return Err(not_open("is closed")),
                StoreState::Unopened => None,
                StoreState::Failed(_) | StoreState::Down => Some(std::mem::replace(&mut *state, StoreState::Down)),
            }
        };
        if let Some(StoreState::Failed(opened)) = &before
            && let Err(error) = opened.file.sync_data()
        {
            // sled panics when the sync of its last drop fails. What it holds can be read meanwhile.
            *self.write_state() = before.expect("looked at above");
            return Err(error);
        }
        // sled lets go of its files before it is opened again; readers meanwhile learn that it is not open.
        drop(before);
        let (opened, ready) = match Opened::open(&self.home) {
            Err(error) if !is_in_use(&error) && !is_no_damage(&error) => {
                let dir = self.home.parent().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                move_aside(dir, &error)?;
                // The empty one may not open at once: it is no less empty when it does.
                self.emptied.store(true, Ordering::Relaxed);
                (Opened::open(&self.home)?, Ready::Emptied)
            }
            opened if self.emptied.load(Ordering::Relaxed) => (opened?, Ready::Emptied),
            opened => (opened?, Ready::Again),
        };
        self.emptied.store(false, Ordering::Relaxed);
        let mut state = self.write_state();
        if matches!(&*state, StoreState::Closed) {
            return Err(not_open("is closed"));
        }
        *state = StoreState::Open(opened);
        tracing::info!(dir = %self.home.display(), "the history store is open again");
        Ok(ready)
    }
}

fn not_open(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("the history store {why}"))
}

impl Opened {
    fn open(home: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(home)?;
        let index = home.join("index");
        let db = sled::Config::new()
            .path(&index)
            .mode(sled::Mode::HighThroughput)
            .segment_size(HISTORY_SEGMENT_BYTES)
            .cache_capacity(HISTORY_CACHE_BYTES)
            .use_compression(false)
            .flush_every_ms(None)
            .open()
            .map_err(io::Error::from)?;
        check_format(&db)?;
        let pages = db.open_tree("pages").map_err(io::Error::from)?;
        let notes = db.open_tree("notes").map_err(io::Error::from)?;
        let full = db.open_tree("full").map_err(io::Error::from)?;
        let file = File::options().read(true).write(true).open(index.join("db"))?;
        let known = known(&full)?;
        let files = RecordFiles::open(&home.join("records"), &known, &last_of_shards(&pages)?)?;
        let pages = PageIndex::new(pages, files);
        pages.drop_lost_tail()?;
        Ok(Opened { db, pages, notes, full, file })
    }
}

/// Format of the store. 1 had an entry of the index for each record, and record files without tables.
const FORMAT: u32 = 2;

/// A store that another build wrote.
#[derive(Debug, thiserror::Error)]
#[error("the history store has format {found}, and this build reads format {FORMAT}")]
struct OtherFormat {
    found: u32,
}

fn check_format(db: &sled::Db) -> io::Result<()> {
    let noted = db.get("format").map_err(io::Error::from)?;
    let found = match noted {
        Some(noted) => number_of(&noted)?,
        // Format 1 noted none.
        None if db.tree_names().iter().any(|name| name.as_ref() == b"places") => 1,
        None => {
            db.insert("format", &FORMAT.to_be_bytes()).map_err(io::Error::from)?;
            FORMAT
        }
    };
    match found {
        FORMAT => Ok(()),
        found => Err(io::Error::new(io::ErrorKind::InvalidData, OtherFormat { found })),
    }
}

fn is_other_format(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<OtherFormat>())
}

fn number_of(bytes: &[u8]) -> io::Result<u32> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "a number of history of a wrong length");
    bytes.try_into().map(u32::from_be_bytes).map_err(wrong)
}

fn encode_newest(newest: &Newest) -> Vec<u8> {
    newest.iter().flat_map(|(shard, last)| key(*shard, *last)).collect()
}

/// What is known of full files.
fn known(full: &sled::Tree) -> io::Result<BTreeMap<u32, Newest>> {
    let mut known = BTreeMap::new();
    for item in full.iter() {
        let (number, newest) = item.map_err(io::Error::from)?;
        known.insert(number_of(&number)?, newest.chunks(12).map(split_key).collect::<io::Result<Newest>>()?);
    }
    Ok(known)
}

impl RecordStore for SledStore {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        self.write(|opened| opened.put(records))
    }
    fn range(&self, shard: u32, from: u64, through: u64, bounds: PageBounds) -> io::Result<Vec<(u64, Bytes)>> {
        self.with(|opened| opened.pages.range(shard, from, through, bounds))
    }
    fn last_up_to(&self, shard: u32, index: u64) -> io::Result<Option<(u64, Bytes)>> {
        self.with(|opened| opened.pages.last_up_to(shard, index))
    }
    fn marks(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<Vec<Mark>> {
        self.with(|opened| opened.pages.marks(shard, from, through, max))
    }
    fn last_index(&self, shard: u32, index: u64) -> io::Result<Option<u64>> {
        self.with(|opened| opened.pages.last_index(shard, index))
    }
    fn unreadable_with(&self, shard: u32, index: u64) -> io::Result<(u64, u64)> {
        self.with(|opened| opened.pages.unreadable_with(shard, index))
    }
    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        self.write(|opened| opened.remove(shard, from, through, max))
    }
    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        match &*self.read_state() {
            StoreState::Unopened => Ok(Vec::new()),
            StoreState::Open(opened) | StoreState::Failed(opened) => opened.notes(),
            StoreState::Down => Err(not_open("could not be opened")),
            StoreState::Closed => Err(not_open("is closed")),
        }
    }
    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.write(|opened| opened.put_note(shard, note))
    }
    fn sync(&self) -> io::Result<()> {
        self.write(Opened::sync)
    }
    fn size(&self) -> u64 {
        self.with(|opened| Ok(opened.db.size_on_disk().map_err(io::Error::from)? + opened.pages.files.size()))
            .unwrap_or(0)
    }
    fn unfreed(&self) -> u64 {
        self.with(|opened| Ok(opened.pages.files.unfreed())).unwrap_or(0)
    }
    fn is_unopened(&self) -> bool {
        matches!(&*self.read_state(), StoreState::Unopened)
    }
    fn ready(&self) -> io::Result<Ready> {
        self.open_again()
    }
    fn close(&self) {
        *self.write_state() = StoreState::Closed;
    }
}

impl Opened {
    fn put(&self, records: &[Stored]) -> io::Result<()> {
        if let Some((number, newest)) = self.pages.put(records)? {
            self.full.insert(number.to_be_bytes(), encode_newest(&newest)).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn remove(&self, shard: u32, from: u64, through: u64, max: usize) -> io::Result<usize> {
        let removed = self.pages.remove(shard, from, through, max)?;
        if from == 0 && removed < max {
            for number in self.pages.files.drop_below(shard, through.saturating_add(1))? {
                self.full.remove(number.to_be_bytes()).map_err(io::Error::from)?;
            }
        }
        Ok(removed)
    }

    fn notes(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut out = Vec::new();
        for item in self.notes.iter() {
            let (key, note) = item.map_err(io::Error::from)?;
            out.push((number_of(&key)?, note.to_vec()));
        }
        Ok(out)
    }

    fn put_note(&self, shard: u32, note: &[u8]) -> io::Result<()> {
        self.notes.insert(shard.to_be_bytes(), note).map_err(io::Error::from)?;
        // Notes are rare, and a gap that is forgotten would look like damage: out of the process at once.
        self.notes.flush().map_err(io::Error::from)?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.pages.files.sync()?;
        self.db.flush().map_err(io::Error::from)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::history::tests::{KEEP, chain_of};
    use crate::history::{Gap, backfill};

    /// The store that lies in a history's directory.
    pub(in crate::history) fn store_in(dir: &Path) -> Arc<dyn RecordStore> {
        Arc::new(SledStore::open(&dir.join(DIR)).expect("opens"))
    }

    #[test]
    fn retention_drops_pages_and_a_part_of_the_last_and_files_when_no_page_is_left_in_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let chain = chain_of(1, 400);
        let entries = |store: &SledStore| {
            let pages = store.with(|opened| Ok(opened.db.open_tree("pages").map_err(io::Error::from)?.len()));
            pages.expect("open")
        };
        let files = || std::fs::read_dir(dir.path().join("sled/records")).expect("readable").count();
        // Stamps are 1,000 ms apart; each run writes a file of its own.
        let keep = Retention { keep: std::time::Duration::from_secs(230), bytes_max: u64::MAX };
        let mut through = 0;
        for run in 1..=2 {
            let store = Arc::new(SledStore::open(&dir.path().join(DIR)).expect("opens"));
            let history = KeptHistory::unwritten(store.clone(), keep);
            history.begin(1, through, chain.chains[through as usize]);
            for _ in 0..2 {
                chain.append(&history, 1, through + 1..=through + 100);
                history.write_now();
                through += 100;
            }
            assert_eq!((entries(&store), files()), (2 * run, run), "one entry for all that was written at once");
            store.sync().expect("durable");
            store.close();
        }
        let store = Arc::new(SledStore::open(&dir.path().join(DIR)).expect("opens"));
        let history = KeptHistory::unwritten(store.clone(), keep);
        history.begin(1, 400, chain.chains[400]);
        history.retain().expect("readable");
        assert_eq!((history.coverage(1).oldest, entries(&store), files()), (170, 3, 2));
        let all = PageBounds { records: 1_000, bytes: usize::MAX };
        assert_eq!(history.read(1, 170, all).expect("here").records, chain.from(170, 400));
        assert!(store.unfreed() > 0);
        history.give_up_below(1, 201);
        assert_eq!(entries(&store), 2);
        assert_eq!(history.read(1, 201, all).expect("here").records, chain.from(201, 400));
        history.give_up_below(1, 401);
        assert_eq!((entries(&store), files(), store.unfreed()), (0, 0, 0));
        store.close();
    }

    #[test]
    fn a_store_of_another_format_is_moved_aside_and_fetched_from_peers() {
        let dir = tempfile::tempdir().expect("a directory");
        let index = dir.path().join(DIR).join("index");
        let first = sled::open(&index).expect("new");
        first.open_tree("places").expect("new").insert(key(1, 5), &[0; 16]).expect("written");
        first.flush().expect("written");
        drop(first);
        let why = SledStore::open(&dir.path().join(DIR)).err().expect("of another format");
        assert_eq!(why.to_string(), "the history store has format 1, and this build reads format 2");

        let chain = chain_of(1, 30);
        let history = SledHistory.open(dir.path(), KEEP).expect("a fresh one");
        history.begin(1, 20, chain.chains[20]);
        chain.append(&*history, 1, 21..=30);
        assert!(dir.path().join("sled.other-format-1").exists() && !dir.path().join("sled.damaged-1").exists());
        history.fill(1, &chain.from(1, 20), 20).expect("a peer has it");
        let all = PageBounds { records: 100, bytes: usize::MAX };
        assert_eq!(history.read(1, 1, all).expect("here").records, chain.records);
        history.close();
        // What this build wrote it reads.
        let again = SledHistory.open(dir.path(), KEEP).expect("again");
        again.begin(1, 30, chain.chains[30]);
        assert_eq!(again.read(1, 1, all).expect("here").records, chain.records);
        assert!(!dir.path().join("sled.other-format-2").exists());
        again.close();
        // A later format is not this build's either.
        let later = sled::open(&index).expect("opens");
        later.insert("format", &9u32.to_be_bytes()).expect("written");
        later.flush().expect("written");
        drop(later);
        let why = SledStore::open(&dir.path().join(DIR)).err().expect("of another format");
        assert!(is_other_format(&why), "{why}");
    }

    #[test]
    fn a_damaged_directory_is_moved_aside_and_history_starts_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let chain = chain_of(1, 30);
        let history = SledHistory.open(dir.path(), KEEP).expect("new");
        history.begin(1, 0, chain.chains[0]);
        chain.append(&*history, 1, 1..=30);
        history.close();
        let store = SledStore::open(&dir.path().join(DIR)).expect("intact");
        store.put_note(1, b"no note").expect("written");
        store.close();

        let history = SledHistory.open(dir.path(), KEEP).expect("a fresh one");
        history.begin(1, 30, chain.chains[30]);
        assert_eq!(history.coverage(1).gaps, [Gap { after: 0, through: 30, chain_to: Some(chain.chains[30]) }]);
        assert!(dir.path().join("sled.damaged-1").exists());
        history.close();
    }

    /// A file where the directory should be keeps a store from being opened as a full disk does.
    #[test]
    fn a_store_that_cannot_be_opened_ends_no_node_and_loses_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (home, aside) = (dir.path().join("history"), dir.path().join("aside"));
        let chain = chain_of(1, 30);
        let history = SledHistory.open(&home, KEEP).expect("new");
        history.begin(1, 0, chain.chains[0]);
        chain.append(&*history, 1, 1..=20);
        history.sync_through(1, 20).expect("durable");
        history.close();
        std::fs::rename(&home, &aside).expect("moved");
        std::fs::write(&home, b"in the way").expect("written");

        let history = SledHistory.open(&home, KEEP).expect("the node runs without it");
        history.begin(1, 20, chain.chains[20]);
        chain.append(&*history, 1, 21..=25);
        assert!(history.coverage(1).unopened);
        assert!(history.sync_through(1, 25).is_err(), "no snapshot counts on it");
        let asked = backfill::Ask { shard: 1, from: 1, offset: 0 };
        assert!(backfill::answer(&*history, &asked.encode()).is_err(), "a peer may not take it for lost");
        history.close();

        // As the writer does it, which tries every ten seconds.
        let store = Arc::new(SledStore::unopened(&home.join(DIR)));
        let history = KeptHistory::unwritten(store.clone(), KEEP);
        history.begin(1, 20, chain.chains[20]);
        chain.append(&history, 1, 21..=25);
        assert!(history.open_late().is_err() && history.coverage(1).unopened);
        std::fs::remove_file(&home).expect("out of the way");
        std::fs::rename(&aside, &home).expect("moved back");
        history.open_late().expect("readable");
        history.write_now();
        let coverage = history.coverage(1);
        assert!(!coverage.unopened && !coverage.is_gapped(), "{coverage:?}");
        let all = history.read(1, 1, PageBounds { records: 100, bytes: usize::MAX }).expect("readable");
        // The first entry of the chain changes nothing.
        assert_eq!(all.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (2..=25).collect::<Vec<_>>());
        store.close();
    }

    #[test]
    fn a_store_that_is_damaged_when_it_is_opened_late_or_again_is_moved_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join(DIR);
        let chain = chain_of(1, 30);
        let damage = || {
            std::fs::create_dir_all(home.join("index")).expect("made");
            std::fs::write(home.join("index").join("conf"), b"what sled never wrote").expect("written");
        };
        damage();
        let store = Arc::new(SledStore::unopened(&home));
        let history = KeptHistory::unwritten(store.clone(), KEEP);
        history.begin(1, 20, chain.chains[20]);
        chain.append(&history, 1, 21..=25);
        history.open_late().expect("an empty one");
        history.write_now();
        let missing = |after, through, chain_to| vec![Gap { after, through, chain_to }];
        assert_eq!(history.coverage(1).gaps, missing(0, 20, Some(chain.chains[20])));

        assert!(store.write(|_| -> io::Result<()> { Err(io::ErrorKind::StorageFull.into()) }).is_err());
        damage();
        assert_eq!(store.ready().expect("an empty one"), Ready::Emptied);
        history.lost_all();
        assert_eq!(history.coverage(1).gaps, missing(0, 25, None));
        assert!(dir.path().join("sled.damaged-1").exists() && dir.path().join("sled.damaged-2").exists());
        store.close();
    }

    #[test]
    fn nothing_counts_as_durable_after_a_write_that_failed() {
        let dir = tempfile::tempdir().expect("a directory");
        let chain = chain_of(1, 30);
        let store = Arc::new(SledStore::open(&dir.path().join(DIR)).expect("new"));
        let history = KeptHistory::unwritten(store.clone(), KEEP);
        history.begin(1, 0, chain.chains[0]);
        chain.append(&history, 1, 1..=10);
        history.write_now();
        // Another one than the writer meets the failure.
        let failed = store.write(|_| -> io::Result<()> { Err(io::ErrorKind::StorageFull.into()) });
        assert!(failed.is_err() && store.sync().is_err() && store.put(&[]).is_err());
        assert!(store.last_up_to(1, 9).expect("readable meanwhile").is_some());
        assert_eq!(store.ready().expect("it opens again"), Ready::Again);
        history.lost_since_sync();
        let coverage = history.coverage(1);
        assert_eq!(coverage.gaps, [Gap { after: 0, through: 10, chain_to: None }], "none of it was synced");
        assert_eq!(store.ready().expect("open"), Ready::Open);
        chain.append(&history, 1, 11..=20);
        history.write_now();
        store.sync().expect("durable");
        store.close();
        assert!(store.ready().is_err(), "closed for good");
    }

    #[test]
    fn an_error_of_the_environment_is_no_damage() {
        use rustix::io::Errno as E;
        for errno in [E::NOSPC, E::DQUOT, E::ACCESS, E::PERM, E::ROFS, E::MFILE, E::NFILE, E::NOMEM, E::IO] {
            assert!(is_no_damage(&errno.into()), "{errno}");
            let kept = sled::Error::Io(errno.into()).clone();
            assert!(is_no_damage(&io::Error::from(kept)), "{errno} as sled keeps it");
        }
        for kind in
            [io::ErrorKind::InvalidData, io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other]
        {
            assert!(!is_no_damage(&kind.into()), "{kind}");
        }
    }
}
