//! The trace of a run: every message delivered, every change of a disk, every fault, every answer, in the order in which they happened.
//!
//! **What it is.** A running hash over lines of text, and on demand the lines. Two runs of one seed must give the same bytes.
//!
//! **Owns** what is compared by [`mod@super::meta`]. **Must never** hold a thing that differs between runs and decides nothing (an
//! address in memory, a real time). **Read next**: [`mod@super::meta`].

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::interpose;

/// A handle; clones write to the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh3,
    count: u64,
    line: String,
    kept: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; the lines are kept if `keep`.
    pub fn new(keep: bool) -> Self {
        let inner = Inner { hash: Xxh3::new(), count: 0, line: String::new(), kept: keep.then(Vec::new) };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// One line, after the simulated time in microseconds.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = std::mem::take(&mut inner.line);
        line.clear();
        let at = interpose::elapsed().unwrap_or_default().as_micros();
        // Writing to a string cannot fail.
        let _infallible = writeln!(line, "{at} {what}");
        inner.hash.update(line.as_bytes());
        inner.count += 1;
        if let Some(kept) = &mut inner.kept {
            kept.push(line.trim_end().to_owned());
        }
        inner.line = line;
    }

    /// The digest of all lines so far, in hexadecimal.
    pub fn digest(&self) -> String {
        format!("{:032x}", self.0.lock().unwrap_or_else(PoisonError::into_inner).hash.digest128())
    }

    /// Lines so far.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The lines, if they were kept.
    pub fn take_lines(&self) -> Vec<String> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// What stands for bytes in a trace.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
