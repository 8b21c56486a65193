//! What the callers and the writer share.
//!
//! **Owns** the queue, the poison and the open files. **Must never** run a callback under its lock.
//!
//! **Read next**: [`super::shell`].

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use super::error::WalError;
use super::frame::Kind;
use super::group::{AppendDone, GroupMem, WalEntry};
use super::reader::Files;
use crate::api::GroupId;

/// A change on its way to the disk.
pub(crate) enum Op {
    Append { mem: Arc<GroupMem>, entries: Vec<WalEntry>, next: usize, op: u64, done: AppendDone },
    Small { mem: Arc<GroupMem>, kind: Kind, index: u64, body: Bytes, done: Option<oneshot::Sender<io::Result<()>>> },
}

impl Op {
    /// Whose it is.
    pub(crate) fn group(&self) -> GroupId {
        match self {
            Self::Append { mem, .. } | Self::Small { mem, .. } => mem.id,
        }
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) ops: Vec<Op>,
    /// Groups that save something with whatever is written next.
    pub(crate) lazy: Vec<Arc<GroupMem>>,
    pub(crate) closing: bool,
    /// The off-path allocation of a spare has ended.
    pub(crate) spare: Option<super::segment::SpareMade>,
    /// Entries to be carried were read back.
    pub(crate) carried: Option<super::carry::CarryDone>,
    next_op: u64,
    refused: Option<Refusal>,
}

#[derive(Clone)]
enum Refusal {
    Poisoned(String),
    Closed,
}

/// Shared by handles and the writer.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    files: Mutex<Arc<Files>>,
    condvar: Condvar,
    notify: Notify,
    /// Nothing is due: the writer sleeps until it is woken, and writes nothing until then.
    resting: AtomicBool,
    /// Something was saved lazily that has to be on the disk soon.
    hurried: AtomicBool,
    pub(crate) syncs: AtomicU64,
    /// Bytes of all segment files, spares included.
    pub(crate) file_bytes: AtomicU64,
    /// Bytes carried forward since the start.
    pub(crate) carried_bytes: AtomicU64,
    pub(crate) low: watch::Sender<bool>,
    pub(crate) poison: watch::Sender<Option<String>>,
    pub(crate) ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(files: Files) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue { next_op: 1, ..Queue::default() }),
            files: Mutex::new(Arc::new(files)),
            condvar: Condvar::new(),
            notify: Notify::new(),
            resting: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            carried_bytes: AtomicU64::new(0),
            low: watch::channel(false).0,
            poison: watch::channel(None).0,
            ended: watch::channel(false).0,
        })
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn files(&self) -> Arc<Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_files(&self, files: Files) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
    }

    /// Queues what `make` returns, unless the log is closed or poisoned; `make` gets the operation's number. Whoever calls this calls
    /// [`Self::wake`] when it holds no lock any more: the writer would wake only to wait for that.
    pub(crate) fn enqueue(&self, make: impl FnOnce(u64) -> Op) -> Result<(), WalError> {
        let mut q = self.queue();
        match &q.refused {
            Some(Refusal::Poisoned(why)) => return Err(WalError::Poisoned { why: why.clone() }),
            Some(Refusal::Closed) => return Err(WalError::Closed),
            None => {}
        }
        let op = make(q.next_op);
        q.next_op += 1;
        q.ops.push(op);
        Ok(())
    }

    pub(crate) fn enqueue_lazy(&self, mem: Arc<GroupMem>) {
        let mut q = self.queue();
        if q.refused.is_none() {
            q.lazy.push(mem);
        }
    }

    /// What waits lazily is to be written soon, though nothing else may come: wakes a writer that
    /// rests. One that is busy takes it along.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) {
            // The writer is between its last look and its sleep no longer.
            drop(self.queue());
            self.wake();
        }
    }

    /// Whether there was haste since the last call. Asked before the queue is emptied: what is
    /// hurried later is seen by the next call.
    pub(crate) fn take_hurry(&self) -> bool {
        self.hurried.swap(false, Ordering::SeqCst)
    }

    /// Whether the writer may sleep. `rests`: it writes nothing by itself.
    fn may_sleep(&self, q: &Queue, rests: bool) -> bool {
        self.resting.store(rests, Ordering::SeqCst);
        q.is_idle() && !(rests && self.hurried.load(Ordering::SeqCst))
    }

    pub(crate) fn wake(&self) {
        self.condvar.notify_one();
        self.notify.notify_one();
    }

    /// Refuses further operations and lets the writer finish.
    pub(crate) fn close(&self) {
        let mut q = self.queue();
        q.closing = true;
        q.refused.get_or_insert(Refusal::Closed);
        drop(q);
        self.wake();
    }

    /// Refuses further operations for good; returns those that waited.
    pub(crate) fn poison(&self, why: &str) -> Vec<Op> {
        let mut q = self.queue();
        q.refused = Some(Refusal::Poisoned(why.to_owned()));
        let ops = mem::take(&mut q.ops);
        drop(q);
        tracing::error!(why, "the log is poisoned: stop this process");
        self.poison.send_replace(Some(why.to_owned()));
        ops
    }

    pub(crate) fn synced(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Blocks until something waits or the time is up.
    pub(crate) fn wait(&self, at_most: Option<Duration>, rests: bool) {
        let q = self.queue();
        if !self.may_sleep(&q, rests) {
            return;
        }
        // A spurious wake-up costs one empty poll.
        match at_most {
            Some(time) => drop(self.condvar.wait_timeout(q, time)),
            None => drop(self.condvar.wait(q)),
        }
    }

    /// The same for the inline writer.
    pub(crate) async fn wait_inline(&self, at_most: Option<Duration>, rests: bool) {
        if !self.may_sleep(&self.queue(), rests) {
            return;
        }
        match at_most {
            Some(time) => {
                let _ = tokio::time::timeout(time, self.notify.notified()).await;
            }
            None => self.notify.notified().await,
        }
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.ops.is_empty() && !self.closing && self.spare.is_none() && self.carried.is_none()
    }
}
