//! The book with its journal: entries are applied in the order of their lines, and synced together.
//!
//! **Owns** the one lock around the book, and the one thread that writes. Calls append under the lock and wait outside; the thread
//! takes all that has gathered, writes it, syncs it, and wakes exactly those who waited for it. **Must never** let a caller believe
//! what is not on disk: whoever saw an entry waits for its [`Ticket`]. After a failed write or sync nothing is believed any more.
//! **Read next**: [`super::journal`].

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::journal::{self, OpenError};
use super::records::Entry;
use super::{Book, Place};

/// The book, its journal, and the thread that writes it.
pub(crate) struct Shelf {
    shared: Arc<Shared>,
    /// For reading lines back.
    lines: File,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    locked: Mutex<Locked>,
    /// There is something to write, or to stop for.
    work: Condvar,
    broken: CancellationToken,
}

/// What the lock guards.
pub(crate) struct Locked {
    pub(crate) book: Book,
    /// Lines that are not being written yet.
    gathered: Vec<u8>,
    batch: Batch,
    /// The lines being written.
    writing: Option<(u64, watch::Receiver<Progress>)>,
    /// Bytes of the journal before `gathered`.
    base: u64,
    next_line: u64,
    stop: bool,
    broken: bool,
}

/// Those who wait for the gathered lines.
struct Batch {
    begins: u64,
    done: watch::Sender<Progress>,
    waiting: watch::Receiver<Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    OnDisk,
    Failed,
}

/// The journal cannot be written; what is in memory is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the book cannot be written")]
pub(crate) struct Broken;

/// Waits until an entry is on disk.
#[derive(Clone)]
#[must_use = "an entry is to be believed only once it is on disk"]
pub(crate) struct Ticket(Option<watch::Receiver<Progress>>);

impl Ticket {
    /// For what is on disk already.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Returns once the entry is on disk.
    pub(crate) async fn on_disk(self) -> Result<(), Broken> {
        let Some(mut progress) = self.0 else { return Ok(()) };
        match progress.wait_for(|p| *p != Progress::Waiting).await.map(|p| *p) {
            Ok(Progress::OnDisk) => Ok(()),
            Ok(Progress::Waiting | Progress::Failed) | Err(_) => Err(Broken),
        }
    }
}

impl Shelf {
    /// Opens the book in `dir`; see [`journal::open`].
    pub(crate) fn open(dir: &Path, salt: u32, now_ms: i64, sync: bool) -> Result<Self, OpenError> {
        let opening = journal::open(dir, salt, now_ms)?;
        let path = dir.join(journal::FILE);
        let lines = File::open(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let locked = Locked {
            book: opening.book,
            gathered: Vec::new(),
            batch: Batch::new(opening.length),
            writing: None,
            base: opening.length,
            next_line: opening.lines,
            stop: false,
            broken: false,
        };
        let broken = CancellationToken::new();
        let shared = Arc::new(Shared { locked: Mutex::new(locked), work: Condvar::new(), broken });
        let (file, for_writer) = (opening.file, shared.clone());
        let writer =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || write(&for_writer, file, sync));
        let writer = Mutex::new(Some(writer.map_err(|source| OpenError::Io { path, source })?));
        Ok(Self { shared, lines, writer })
    }

    /// The book, alone.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.shared.locked()
    }

    /// Puts `entry` into the book and gathers it for the disk.
    pub(crate) fn put(&self, locked: &mut Locked, entry: Entry) -> Result<(Place, Ticket), Broken> {
        if locked.broken {
            return Err(Broken);
        }
        let first = locked.gathered.is_empty();
        let place = journal::append(&mut locked.gathered, locked.base, locked.next_line, &entry).map_err(|_| Broken)?;
        locked.next_line += 1;
        locked.book.apply(entry, place);
        if first {
            self.shared.work.notify_one();
        }
        Ok((place, Ticket(Some(locked.batch.waiting.clone()))))
    }

    /// The entry in the line at `place`, which is on disk.
    pub(crate) fn read(&self, place: Place) -> io::Result<Entry> {
        let mut line = vec![0; place.bytes as usize];
        self.lines.read_exact_at(&mut line, place.offset)?;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        journal::decode_any(text).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Resolves when the book can no longer be written.
    pub(crate) fn broken(&self) -> CancellationToken {
        self.shared.broken.clone()
    }

    /// Writes what is gathered, and ends the thread.
    pub(crate) async fn close(&self) {
        self.stop();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It panics nowhere; and if it did, it has ended too.
            let _ended = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn stop(&self) {
        self.shared.locked().stop = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Locked {
    /// Waits for the entry at `place`.
    pub(crate) fn ticket(&self, place: Place) -> Ticket {
        if place.offset >= self.batch.begins {
            return Ticket(Some(self.batch.waiting.clone()));
        }
        match &self.writing {
            Some((begins, progress)) if place.offset >= *begins => Ticket(Some(progress.clone())),
            _ => Ticket(None),
        }
    }

    /// Waits for every entry so far.
    pub(crate) fn ticket_for_all(&self) -> Ticket {
        if !self.gathered.is_empty() {
            return Ticket(Some(self.batch.waiting.clone()));
        }
        Ticket(self.writing.as_ref().map(|(_, progress)| progress.clone()))
    }

    /// Whether it can still be written.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        if self.broken { Err(Broken) } else { Ok(()) }
    }
}

impl Batch {
    fn new(begins: u64) -> Self {
        let (done, waiting) = watch::channel(Progress::Waiting);
        Self { begins, done, waiting }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: gathers, writes, syncs, wakes.
fn write(shared: &Shared, mut file: File, sync: bool) {
    let mut lines = Vec::new();
    loop {
        let mut locked = shared.locked();
        locked = shared
            .work
            .wait_while(locked, |l| l.gathered.is_empty() && !l.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if locked.gathered.is_empty() || locked.broken {
            return;
        }
        lines.clear();
        std::mem::swap(&mut lines, &mut locked.gathered);
        let begins = locked.base;
        locked.base += lines.len() as u64;
        let next = Batch::new(locked.base);
        let batch = std::mem::replace(&mut locked.batch, next);
        locked.writing = Some((begins, batch.waiting.clone()));
        drop(locked);

        let written = file.write_all(&lines).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        let mut locked = shared.locked();
        match written {
            Ok(()) => {
                locked.writing = None;
                drop(locked);
                batch.done.send_replace(Progress::OnDisk);
            }
            Err(error) => {
                locked.broken = true;
                let waiting = locked.batch.done.clone();
                drop(locked);
                tracing::error!(%error, "the book cannot be written; nothing is served any more");
                batch.done.send_replace(Progress::Failed);
                waiting.send_replace(Progress::Failed);
                shared.broken.cancel();
                return;
            }
        }
    }
}
