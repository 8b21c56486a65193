//! What a tester may do to a real node from outside: its wall clock and its disk, by a small file beside its data directory.
//!
//! **Owns** the file. The process that faults writes it, the node's process reads it a few times a second. **Must never** exist for a node that
//! somebody relies on: only [`super::node`] looks for it. **Read next**: [`super::disk`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ledger_raft::seam::WallClock;
use serde::{Deserialize, Serialize};

/// How often a node looks at its file.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is wrong with a node's world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Knobs {
    /// Added to the wall clock.
    pub clock_offset_ms: i64,
    /// Each sync of the log takes so much longer.
    pub sync_ms: u64,
    /// No space is left.
    pub full: bool,
}

impl Knobs {
    /// Where a node's knobs are.
    pub fn file_beside(data_dir: &Path) -> PathBuf {
        data_dir.with_file_name("knobs.json")
    }

    /// Tells the node; takes effect within a moment.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(self, file: &Path) -> io::Result<()> {
        let temporary = file.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&self)?)?;
        std::fs::rename(temporary, file)
    }

    fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }
}

/// The knobs as the node's process sees them.
#[derive(Debug, Default)]
pub struct Turned {
    clock_offset_ms: AtomicI64,
    sync_ms: AtomicU64,
    full: AtomicBool,
    /// Somebody who stalls in a sync hears when the stall is over.
    changed: (Mutex<()>, Condvar),
}

impl Turned {
    /// Follows the file on a thread of its own, for as long as the process lives.
    pub fn follow(file: PathBuf) -> Arc<Self> {
        let turned = Arc::new(Self::default());
        let known = turned.clone();
        std::thread::spawn(move || {
            let mut last = Knobs::default();
            loop {
                if let Some(now) = Knobs::read(&file).filter(|now| *now != last) {
                    tracing::info!(?now, "a tester turned the knobs");
                    known.turn(now);
                    last = now;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        turned
    }

    /// Sets them.
    pub fn turn(&self, knobs: Knobs) {
        self.clock_offset_ms.store(knobs.clock_offset_ms, Ordering::Relaxed);
        self.sync_ms.store(knobs.sync_ms, Ordering::Relaxed);
        self.full.store(knobs.full, Ordering::Relaxed);
        self.changed.1.notify_all();
    }

    /// Whether no space is left.
    pub fn full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Stalls as a slow device does.
    pub fn stall(&self) {
        let ms = self.sync_ms.load(Ordering::Relaxed);
        if ms > 0 {
            let quiet = self.changed.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            drop(self.changed.1.wait_timeout(quiet, Duration::from_millis(ms)));
        }
    }
}

/// A wall clock that the knobs set wrong.
pub struct OffClock {
    /// The right one.
    pub real: Arc<dyn WallClock>,
    /// By how much it is wrong.
    pub turned: Arc<Turned>,
}

impl WallClock for OffClock {
    fn now_ms(&self) -> u64 {
        self.real.now_ms().saturating_add_signed(self.turned.clock_offset_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_an_older_file_still_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = Knobs::file_beside(&dir.path().join("data"));
        let knobs = Knobs { clock_offset_ms: -7, sync_ms: 3, full: true };
        knobs.write(&file).unwrap();
        assert_eq!(Knobs::read(&file), Some(knobs));
        std::fs::write(&file, r#"{"full":true}"#).unwrap();
        assert_eq!(Knobs::read(&file), Some(Knobs { full: true, ..Knobs::default() }));
    }
}
