//! The state machine as openraft sees it.
//!
//! **Owns** the node's [`StateMachine`], its last applied position and membership. Replies go to the responder the moment
//! they exist. **Must never** look inside an entry, or let a failed snapshot stop the group: snapshots are built beside
//! ([`build_beside`]), and openraft is told of finished ones only. **Read next**: [`crate::snapshot`], [`crate::group`].

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::api::{ApplyOutcome, LogPosition, Reply, SnapshotView, StateMachine, Unreadable, UnreadableKind};
use crate::limits::{
    APPEND_BYTES_SOFT, APPLY_AT_ONCE_BYTES, APPLY_AT_ONCE_ENTRIES, APPLY_READ_ENTRIES, MACHINE_ENDS_WITHIN,
};
use crate::seam::Disk;
use crate::snapshot::{SnapshotBody, SnapshotFile, SnapshotHead, SnapshotStore, blocking, is_rot};
use crate::store::Store;
use crate::transport::link::lock;
use crate::transport::network::meta_of;
use crate::types::{Entry, LogId, SnapshotMeta, Stamped, StoredMembership, SyncReply, Types, position};
use crate::unreadable::{Obstacle, payload_hash};

/// What the rest of the group watches of applying and stamping.
pub(crate) struct Progress {
    /// Last applied index.
    pub(crate) applied: watch::Sender<LogPosition>,
    /// Largest stamp in this replica's log, uncommitted entries included, or in its snapshot.
    pub(crate) stamp_ms: AtomicU64,
    /// Bytes applied since the start.
    pub(crate) bytes: AtomicU64,
    /// The same when the newest snapshot was taken, or installed.
    pub(crate) bytes_at_snapshot: AtomicU64,
    /// The entry that applying does not get past.
    pub(crate) obstacle: watch::Sender<Option<Obstacle>>,
    /// Entries applied as refusals since the start.
    pub(crate) refused: AtomicU64,
    /// What this build would have to know to read the replica's snapshot.
    unsupported: Mutex<Option<String>>,
    /// The replica is over: its state machine changes nothing any more, since another one takes its
    /// state.
    retired: AtomicBool,
    /// The state machine, and the tasks that change what the replica keeps on disk.
    pub(crate) workers: TaskTracker,
}

impl Progress {
    /// Bytes applied since the newest snapshot.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).saturating_sub(self.bytes_at_snapshot.load(Ordering::Relaxed))
    }

    pub(crate) fn new() -> Self {
        Self {
            applied: watch::Sender::new(LogPosition::default()),
            stamp_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_at_snapshot: AtomicU64::new(0),
            obstacle: watch::Sender::new(None),
            refused: AtomicU64::new(0),
            unsupported: Mutex::default(),
            retired: AtomicBool::new(false),
            workers: TaskTracker::new(),
        }
    }

    /// Why the replica waits for another build, if it does: its snapshot is of a format or a
    /// behaviour that this one does not know.
    pub(crate) fn awaits_build(&self) -> Option<String> {
        lock(&self.unsupported).clone()
    }

    pub(crate) fn await_build(&self, why: &str) {
        *lock(&self.unsupported) = Some(format!("{why}; run a build that knows it"));
    }

    /// Waits until nobody changes the state, or what the replica keeps on disk. openraft's core
    /// must have ended: its task for the state machine outlives it, and drops what is queued.
    /// Entries that it has not begun are not applied.
    pub(crate) async fn retire(&self) -> io::Result<()> {
        self.retired.store(true, Ordering::Release);
        self.workers.close();
        timeout(MACHINE_ENDS_WITHIN, self.workers.wait()).await.map_err(|_| {
            let why = format!("the state machine before did not end within {MACHINE_ENDS_WITHIN:?}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        })
    }

    /// An error once the replica is over.
    fn current(&self) -> io::Result<()> {
        match self.retired.load(Ordering::Acquire) {
            true => Err(io::Error::other("the replica is over: another state machine takes its place")),
            false => Ok(()),
        }
    }

    /// Whether applying does not get past an entry for this reason.
    pub(crate) fn halted_by(&self, kind: UnreadableKind) -> bool {
        self.obstacle.borrow().as_ref().is_some_and(|found| found.cause.kind == kind)
    }

    /// Why nothing is applied, if nothing is.
    pub(crate) fn halted_why(&self) -> Option<String> {
        self.obstacle.borrow().as_ref().map(Obstacle::why)
    }

    /// Last applied, copied: whoever held the lock of a look and looked again would wait for the writer that waits for him.
    pub(crate) fn applied(&self) -> LogPosition {
        *self.applied.borrow()
    }
}

/// What every snapshot of a group says about where it was taken.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: u64,
    pub(crate) group: u32,
}

/// The adapter around the node's state machine.
pub(crate) struct Machine {
    // Only to be shareable by name, as openraft demands; the lock is never taken while running. Empty only while a
    // snapshot is installed on another thread, or for ever when that thread panicked.
    inner: Mutex<Option<Box<dyn StateMachine>>>,
    last: Option<LogId>,
    stamp_ms: u64,
    membership: StoredMembership,
    progress: Arc<Progress>,
    snapshots: Arc<SnapshotStore>,
    disk: Arc<dyn Disk>,
    origin: Origin,
    /// Newest snapshot openraft was told about.
    told: Option<LogId>,
    held: Option<Held>,
    /// A reinstall waits for its end.
    _working: TaskTrackerToken,
}

/// What arrives while an entry cannot be decoded. Entries are read again from the log, so only their proposers are kept: openraft
/// gets its answer at once, and its queue to this machine never fills.
struct Held {
    at: LogId,
    /// Last index that arrived.
    through: u64,
    /// Whether proposers wait: those of a format unknown here hear at once that the outcome is not known here.
    wanted: bool,
    /// Of entries proposed here; as many as a leader has in flight.
    responders: BTreeMap<u64, ApplyResponder<Types>>,
}

impl Machine {
    pub(crate) fn new(
        inner: Box<dyn StateMachine>,
        progress: Arc<Progress>,
        snapshots: Arc<SnapshotStore>,
        disk: Arc<dyn Disk>,
        origin: Origin,
    ) -> Self {
        let working = progress.workers.token();
        Self {
            inner: Mutex::new(Some(inner)),
            last: None,
            stamp_ms: 0,
            membership: StoredMembership::default(),
            progress,
            snapshots,
            disk,
            origin,
            told: None,
            held: None,
            _working: working,
        }
    }

    fn machine(&mut self) -> io::Result<&mut Box<dyn StateMachine>> {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.as_mut().ok_or_else(|| io::Error::other("the state machine is gone: installing a snapshot panicked"))
    }

    /// Applies an entry, or begins to hold what arrives when it cannot be decoded.
    fn apply_one(&mut self, entry: &Entry, responder: Option<ApplyResponder<Types>>) -> io::Result<()> {
        let at = position(&entry.log_id);
        let mut reply: Reply = Box::new(());
        match &entry.payload {
            EntryPayload::Normal(d) => {
                match self.machine()?.apply(at, d.stamp_ms, &d.bytes, responder.is_some()) {
                    ApplyOutcome::Applied(done) => reply = done,
                    ApplyOutcome::Unreadable(why) => {
                        self.hold(entry.log_id, d, why, responder);
                        return Ok(());
                    }
                }
                self.passed(d);
            }
            EntryPayload::Membership(m) => {
                self.membership = StoredMembership::new(Some(entry.log_id), m.clone());
            }
            EntryPayload::Blank => {}
        }
        self.last = Some(entry.log_id);
        if let Some(responder) = responder {
            responder.send(SyncReply::new(reply));
        }
        Ok(())
    }

    fn passed(&mut self, d: &Stamped) {
        self.stamp_ms = self.stamp_ms.max(d.stamp_ms);
        self.progress.bytes.fetch_add(d.bytes.len() as u64, Ordering::Relaxed);
    }

    fn hold(&mut self, at: LogId, d: &Stamped, why: Unreadable, responder: Option<ApplyResponder<Types>>) {
        if crate::bad!("undecodable-entry-aborts") {
            panic!("the entry at {} cannot be decoded: {}", at.index, why.why);
        }
        let mut held =
            Held { at, through: at.index, wanted: why.kind == UnreadableKind::Malformed, responders: BTreeMap::new() };
        held.wait(at.index, responder);
        self.held = Some(held);
        let obstacle = Obstacle { at: position(&at), hash: payload_hash(d), cause: why };
        self.progress.obstacle.send_replace(Some(obstacle));
    }

    /// Goes on at the entry that is held, now that a quorum is known to hold it with this hash: it is refused, or applied if it
    /// can be decoded after it was read again. Then everything that arrived meanwhile.
    pub(crate) async fn go_on(&mut self, store: Store, at: LogPosition, hash: u128) -> io::Result<()> {
        let Some(mut held) = self.held.take_if(|held| position(&held.at) == at) else { return Ok(()) };
        let done = self.catch_up(&store, &mut held, hash).await;
        match (&done, &self.held) {
            // What arrives goes on waiting: nothing is ever skipped.
            (Err(_), _) => self.held = Some(held),
            (Ok(()), None) => drop(self.progress.obstacle.send_replace(None)),
            (Ok(()), Some(_)) => {}
        }
        done
    }

    async fn catch_up(&mut self, store: &Store, held: &mut Held, hash: u128) -> io::Result<()> {
        let at = held.at;
        let mut next = at.index;
        while next <= held.through {
            let to = held.through.min(next + APPLY_READ_ENTRIES - 1);
            let some = store.read_some(next, to, APPEND_BYTES_SOFT)?;
            if some.first().is_none_or(|first| first.log_id.index != next) {
                return Err(io::Error::other(format!("the entry at {next} is not in the log any more")));
            }
            for entry in some {
                self.progress.current()?;
                next = entry.log_id.index + 1;
                let responder = held.responders.remove(&entry.log_id.index);
                match (&mut self.held, &entry.payload) {
                    (Some(again), _) => again.take(&entry, responder),
                    (None, EntryPayload::Normal(d)) if entry.log_id == at && payload_hash(d) == hash => {
                        self.apply_or_refuse(at, d, responder)?;
                    }
                    (None, _) => self.apply_one(&entry, responder)?,
                }
            }
            self.publish();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn apply_or_refuse(&mut self, id: LogId, d: &Stamped, responder: Option<ApplyResponder<Types>>) -> io::Result<()> {
        let (at, here) = (position(&id), responder.is_some());
        let reply = match self.machine()?.apply(at, d.stamp_ms, &d.bytes, here) {
            ApplyOutcome::Applied(reply) => reply,
            ApplyOutcome::Unreadable(Unreadable { kind: UnreadableKind::Malformed, .. }) => {
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
                self.machine()?.refuse(at, d.stamp_ms, &d.bytes, here)
            }
            ApplyOutcome::Unreadable(why) => {
                self.hold(id, d, why, responder);
                return Ok(());
            }
        };
        self.passed(d);
        self.last = Some(id);
        if let Some(responder) = responder {
            responder.send(SyncReply::new(reply));
        }
        Ok(())
    }

    fn publish(&self) {
        if let Some(last) = &self.last {
            self.progress.applied.send_replace(position(last));
        }
    }

    /// A view of the present state, and the header of its file; none before anything was applied.
    pub(crate) fn view(&mut self) -> io::Result<Option<SnapshotWork>> {
        let Some(last) = self.last else { return Ok(None) };
        self.view_at(last).map(Some)
    }

    fn view_at(&mut self, last: LogId) -> io::Result<SnapshotWork> {
        let head = SnapshotHead {
            cluster: self.origin.cluster,
            incarnation: self.origin.incarnation,
            group: self.origin.group,
            last,
            stamp_ms: self.stamp_ms,
            membership: self.membership.clone(),
        };
        let view = self.machine()?.snapshot();
        Ok(SnapshotWork { head, view, snapshots: self.snapshots.clone(), disk: self.disk.clone() })
    }
}

impl Held {
    /// The entry waits in the log, its proposer here.
    fn take(&mut self, entry: &Entry, responder: Option<ApplyResponder<Types>>) {
        self.through = entry.log_id.index;
        self.wait(entry.log_id.index, responder);
    }

    fn wait(&mut self, index: u64, responder: Option<ApplyResponder<Types>>) {
        if let Some(responder) = responder.filter(|_| self.wanted) {
            self.responders.insert(index, responder);
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Arc<SnapshotFile>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let (mut entries_since, mut bytes, mut word_is_out) = (0, 0, false);
        while let Some(item) = entries.next().await {
            let item = item?;
            self.progress.current()?;
            let (entry, responder): EntryResponder<Types> = item;
            if let Some(held) = &mut self.held {
                held.take(&entry, responder);
                continue;
            }
            entries_since += 1;
            bytes += match &entry.payload {
                EntryPayload::Normal(d) => d.bytes.len(),
                EntryPayload::Blank | EntryPayload::Membership(_) => 0,
            };
            // Before much work, what is ready goes out, once: followers hear of the commit and apply while we do, and a follower's acknowledgements do
            // not wait for it.
            if entries_since > APPLY_AT_ONCE_ENTRIES || (bytes > APPLY_AT_ONCE_BYTES && !word_is_out) {
                (entries_since, word_is_out) = (0, true);
                self.publish();
                tokio::task::yield_now().await;
            }
            self.apply_one(&entry, responder)?;
        }
        self.publish();
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        // Built beside and durable already; openraft only learns of it now.
        let newest = self.snapshots.newest().filter(|f| Some(f.head.last) > self.told)?;
        self.told = Some(newest.head.last);
        Some(Builder(Mutex::new(Some(Ok(Build::Done(newest))))))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Of an empty state only for a purged log without a snapshot, which `start` has refused before.
        let last = self.last.unwrap_or_else(|| crate::types::log_id(0, 0));
        Builder(Mutex::new(Some(self.view_at(last).map(Build::Now))))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Arc<SnapshotFile>) -> Result<(), io::Error> {
        self.progress.current()?;
        let at = meta.last_log_id.as_ref().map(position).unwrap_or_default();
        let mut machine = {
            self.machine()?;
            let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
            inner.take().ok_or_else(|| io::Error::other("the state machine is gone"))?
        };
        let source = file.clone();
        let (machine, done) = blocking(&self.disk, move || {
            let mut body = Noting { body: source.body(), failed: None };
            let done = machine.install(at, &mut body);
            Ok((machine, body.failed.map_or(done, Err)))
        })
        .await?;
        *self.inner.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(machine);
        if let Err(e) = done {
            match e.kind() {
                io::ErrorKind::Unsupported => {
                    self.progress.await_build(&format!("the snapshot at {} cannot be read here: {e}", at.index));
                }
                // Not to be tried again at each start: an older one, or a peer's, must serve.
                kind if is_rot(kind) => {
                    let snapshots = self.snapshots.clone();
                    blocking(&self.disk, move || snapshots.set_aside(&file)).await?;
                }
                _ => {}
            }
            return Err(e);
        }
        self.progress.bytes_at_snapshot.store(self.progress.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last = meta.last_log_id;
        self.told = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.stamp_ms = self.stamp_ms.max(file.head.stamp_ms);
        self.progress.stamp_ms.fetch_max(file.head.stamp_ms, Ordering::Relaxed);
        if self.held.take_if(|held| held.through <= at.index).is_some() {
            self.progress.obstacle.send_replace(None);
        }
        self.publish();
        // Only now: openraft has cut from the log what it contradicts, and purges for it next.
        if self.snapshots.newest().is_none_or(|n| n.head.last < file.head.last) {
            let snapshots = self.snapshots.clone();
            blocking(&self.disk, move || snapshots.place(&file)).await?;
        }
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types, Arc<SnapshotFile>>>, io::Error> {
        Ok(self.snapshots.newest().map(|f| openraft::Snapshot { meta: meta_of(&f), snapshot: f }))
    }
}

/// A snapshot's bytes on their way to a state machine, which may take an error of the disk for
/// bytes that make no sense.
struct Noting<'a> {
    body: SnapshotBody<'a>,
    failed: Option<io::Error>,
}

impl io::Read for Noting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.body.read(buf).inspect_err(|e| self.failed = Some(io::Error::new(e.kind(), e.to_string())))
    }
}

/// Everything that is needed to write one snapshot, away from the state machine's task.
pub(crate) struct SnapshotWork {
    head: SnapshotHead,
    view: Box<dyn SnapshotView>,
    snapshots: Arc<SnapshotStore>,
    disk: Arc<dyn Disk>,
}

/// Writes a snapshot on a thread of its own (inline under simulation), and reads it back there.
pub(crate) async fn build_beside(work: SnapshotWork) -> io::Result<Arc<SnapshotFile>> {
    let SnapshotWork { head, view, snapshots, disk } = work;
    let check = view.checker();
    blocking(&disk, move || snapshots.create(&head, |w| view.write(w), check)).await
}

enum Build {
    Done(Arc<SnapshotFile>),
    Now(SnapshotWork),
}

/// Hands openraft a snapshot; the lock only makes it shareable by name.
pub(crate) struct Builder(Mutex<Option<io::Result<Build>>>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Arc<SnapshotFile>;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<Types, Arc<SnapshotFile>>, io::Error> {
        let build = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let file = match build.ok_or_else(|| io::Error::other("a builder builds once"))?? {
            Build::Done(file) => file,
            Build::Now(work) => build_beside(work).await?,
        };
        Ok(openraft::Snapshot { meta: meta_of(&file), snapshot: file })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::api::GroupId;
    use crate::disk::sim::SimDisk;
    use crate::types::{Stamped, log_id};

    type Log = Arc<Mutex<Vec<usize>>>;

    /// Writes down how long each entry was.
    struct Lengths(Log);

    impl StateMachine for Lengths {
        fn apply(&mut self, _: LogPosition, _: u64, data: &Bytes, _: bool) -> ApplyOutcome {
            self.0.lock().unwrap().push(data.len());
            ApplyOutcome::applied(())
        }
        fn refuse(&mut self, _: LogPosition, _: u64, _: &Bytes, _: bool) -> Reply {
            unreachable!("it decodes everything")
        }
        fn snapshot(&mut self) -> Box<dyn SnapshotView> {
            unreachable!("nobody asks")
        }
        fn install(&mut self, _: LogPosition, _: &mut dyn io::Read) -> io::Result<()> {
            unreachable!("nobody asks")
        }
    }

    #[tokio::test]
    async fn what_is_ready_goes_out_before_much_work_and_not_before_little() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        disk.create_dir_all(Path::new("/s")).unwrap();
        let snapshots = Arc::new(SnapshotStore::open(disk.clone(), Path::new("/s"), [1; 16], GroupId(1)).unwrap());
        let origin = Origin { cluster: [1; 16], incarnation: 1, group: 1 };
        let log = Log::default();
        let lengths = Box::new(Lengths(log.clone()));
        let mut machine = Machine::new(lengths, Arc::new(Progress::new()), snapshots, disk, origin);
        const MUCH: usize = APPLY_AT_ONCE_BYTES + 1;
        for (index, entries, expected) in [(1, vec![9], vec![9, 0]), (2, vec![9, MUCH, MUCH], vec![9, 0, MUCH, MUCH])] {
            let ready = log.clone();
            tokio::spawn(async move { ready.lock().unwrap().push(0) });
            let entry = |(place, &length): (usize, &usize)| {
                let payload = EntryPayload::Normal(Stamped { stamp_ms: 0, bytes: Bytes::from(vec![0; length]) });
                Ok((openraft::Entry { log_id: log_id(1, index + place as u64), payload }, None))
            };
            let entries: Vec<_> = entries.iter().enumerate().map(entry).collect();
            machine.apply(futures::stream::iter(entries)).await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
        }
    }
}
