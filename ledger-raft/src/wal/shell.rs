//! Runs the writer: on a thread of its own, or inline as a task under simulation.
//!
//! **Owns** time, waiting and the telling. **Must never** decide anything.
//!
//! **Read next**: [`super::writer`].

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::carry::CarryRead;
use super::segment::make_spare;
use super::shared::Shared;
use super::writer::Writer;
use crate::seam::Disk;

/// What a running writer needs besides itself; the lock on the directory lives as long.
pub(crate) struct Shell {
    pub(crate) writer: Writer,
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: std::path::PathBuf,
    pub(crate) lock: Box<dyn Send + Sync>,
    /// The allocation under way.
    pub(crate) allocation: Option<std::thread::JoinHandle<()>>,
}

impl Shell {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no thread for us.
    pub(crate) fn start(self) -> io::Result<()> {
        if self.disk.inline() {
            tokio::spawn(self.run_inline());
            return Ok(());
        }
        std::thread::Builder::new().name("wal".into()).spawn(move || self.run_thread())?;
        Ok(())
    }

    /// Moves what waits into the writer; says whether to go on.
    fn gather(&mut self, now: Duration) -> bool {
        let hurry = self.shared.take_hurry();
        let mut q = self.shared.queue();
        let (mut ops, mut lazy) = (mem::take(&mut q.ops), mem::take(&mut q.lazy));
        let (spare, carried) = (q.spare.take(), q.carried.take());
        let closing = q.closing;
        drop(q);
        self.writer.submit(&mut ops, &mut lazy);
        self.writer.hurry(hurry);
        // The emptied list goes back, so that callers do not grow a new one every round.
        let mut q = self.shared.queue();
        if q.ops.is_empty() {
            q.ops = ops;
        }
        drop(q);
        if let Some(made) = spare {
            self.writer.spare_made(made, now);
        }
        if let Some(read) = carried {
            self.writer.carry_read(read, now);
        }
        (!closing || self.writer.has_work()) && !self.writer.is_poisoned()
    }

    fn run_thread(mut self) {
        let begun = Instant::now();
        while self.gather(begun.elapsed()) {
            self.writer.poll(begun.elapsed()).tell();
            self.allocate_aside(begun.elapsed());
            self.read_aside(begun.elapsed());
            if !self.writer.has_work() {
                self.shared.wait(self.writer.wake_in(begun.elapsed()), self.writer.rests());
            }
        }
        self.end();
    }

    /// Zero-filling a segment takes long: a thread of its own does it.
    fn allocate_aside(&mut self, now: Duration) {
        let Some((path, bytes)) = self.writer.wants_spare(now) else { return };
        let (disk, dir, shared) = (self.disk.clone(), self.dir.clone(), self.shared.clone());
        let name = path.clone();
        let spawned = std::thread::Builder::new().name("wal-spare".into()).spawn(move || {
            let made = make_spare(disk.as_ref(), &dir, &path, bytes);
            shared.queue().spare = Some((path, made));
            shared.wake();
        });
        match spawned {
            Ok(thread) => self.allocation = Some(thread),
            Err(e) => self.writer.spare_made((name, Err(e)), now),
        }
    }

    /// Reading back what is to be carried takes as long as the disk takes: a thread of its own does it.
    fn read_aside(&mut self, now: Duration) {
        let Some(read) = self.writer.wants_carry(now) else { return };
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new().name("wal-carry".into()).spawn(move || {
            let done = read.run();
            shared.queue().carried = Some(done);
            shared.wake();
        });
        if let Err(e) = spawned {
            self.writer.carry_read(CarryRead::failed(e), now);
        }
    }

    async fn run_inline(mut self) {
        let begun = Instant::now();
        while self.gather(begun.elapsed()) {
            let outcome = self.writer.poll(begun.elapsed());
            let latency = self.disk.simulated_latency();
            if outcome.synced && !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            outcome.tell();
            if let Some((path, bytes)) = self.writer.wants_spare(begun.elapsed()) {
                let made = make_spare(self.disk.as_ref(), &self.dir, &path, bytes);
                self.writer.spare_made((path, made), begun.elapsed());
            }
            if let Some(read) = self.writer.wants_carry(begun.elapsed()) {
                self.writer.carry_read(read.run(), begun.elapsed());
            }
            if self.writer.has_work() {
                tokio::task::yield_now().await;
            } else {
                self.shared.wait_inline(self.writer.wake_in(begun.elapsed()), self.writer.rests()).await;
            }
        }
        self.end();
    }

    fn end(mut self) {
        self.writer.finish().tell();
        // Whoever opens the directory next may take the half-made spare for a whole one: nobody may be filling it then.
        if let Some(thread) = self.allocation.take()
            && thread.join().is_err()
        {
            tracing::error!("the allocation of a spare panicked");
        }
        drop(self.lock);
        self.shared.ended.send_replace(true);
    }
}
