//! History: the changes of every entry, kept on each node as the read model.
//!
//! **What it is.** One record an entry that changed something, hash-chained by the core, kept per shard by log index. The shard
//! appends records as it applies; a background thread writes them down in batches; readers page through them. What is
//! missing (a snapshot was installed, the backlog overflowed, the store was damaged) is a named [`Gap`] that is filled from
//! peers, verified by the chain; until then the answer is [`HistoryError::NotHere`].
//!
//! **Owns** the store, its gaps, its retention. **Must never** be needed for a promise, block the shard, skip silently,
//! or hand out a record that does not fit its chain.
//! **Read next**: [`kept`] (the rules), [`store`] (where records lie), [`backfill`], [`explain`].
//!
//! How a shard uses it: [`History::begin`] after every restore or install and before the first apply; [`History::append`] for
//! each applied entry; [`History::sync_through`] before a snapshot is written, so that what a restart no longer replays is on
//! disk; [`Coverage::durable`] for holding back the purge.

pub mod backfill;
pub mod explain;
mod fill;
#[cfg(test)]
mod gap_tests;
pub mod kept;
#[cfg(test)]
mod late_tests;
pub mod memory;
mod page_index;
#[cfg(test)]
mod page_tests;
mod pages;
mod rate;
mod record_files;
mod recovery;
pub mod sled_store;
pub mod store;
#[cfg(test)]
pub(crate) mod tests;
mod writer;
#[cfg(test)]
mod year_tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use kept::KeptHistory;
pub use memory::MemoryHistory;
pub use sled_store::SledHistory;

/// Opens the history of one node: [`SledHistory`] on disk, [`MemoryHistory`] in simulation.
pub trait HistoryFactory: Send + Sync + 'static {
    /// Opens what lies in `dir`, moves it aside when it is damaged, and starts anew then.
    ///
    /// # Errors
    /// The directory cannot be used at all.
    fn open(&self, dir: &Path, keep: Retention) -> io::Result<Arc<dyn History>>;
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Records older than that, in ledger time, are dropped.
    pub keep: Duration,
    /// The oldest records are dropped while the store takes more.
    pub bytes_max: u64,
}

/// The history of one node, over all its shards. Every call but [`History::append`] may touch the disk.
pub trait History: Send + Sync + 'static {
    /// The shard's state was restored (or a snapshot installed) as of index `at`, and its chain value there is `chain`. What
    /// is kept up to `at` is checked against it; what is missing becomes a gap; records beyond it are expected again.
    fn begin(&self, shard: u32, at: u64, chain: u128);
    /// The entry at `index` was applied; `record` is what the core made of it. Never blocks on the disk.
    fn append(&self, shard: u32, index: u64, record: Option<&Bytes>);
    /// Makes everything appended up to `index` durable. Blocks; for the thread that writes a snapshot.
    ///
    /// # Errors
    /// The store cannot be written, or takes too long.
    fn sync_through(&self, shard: u32, index: u64) -> io::Result<()>;
    /// Records from index `from` on, in order.
    ///
    /// # Errors
    /// [`HistoryError`].
    fn read(&self, shard: u32, from: u64, bounds: PageBounds) -> Result<Page, HistoryError>;
    /// The record of exactly one index; none when that entry changed nothing.
    ///
    /// # Errors
    /// [`HistoryError`].
    fn record_at(&self, shard: u32, index: u64) -> Result<Option<Bytes>, HistoryError>;
    /// The last record at or below an index; none when nothing before it changed anything.
    ///
    /// # Errors
    /// [`HistoryError`]; also when a gap lies between.
    fn last_up_to(&self, shard: u32, index: u64) -> Result<Option<(u64, Bytes)>, HistoryError>;
    /// For how long its bytes hold all shards' records at the present rate, in milliseconds; at most
    /// [`crate::limits::HISTORY_FITS_MAX`].
    fn fits_ms(&self) -> u64;
    /// What is kept of a shard.
    fn coverage(&self, shard: u32) -> Coverage;
    /// Takes records from a peer into the first gap, in order, from [`Coverage::wanted`] on. They are handed out when the gap is closed: when
    /// the chain says that nothing is left of it. What does not fit is fetched again.
    ///
    /// # Errors
    /// [`FillError`]: the peer's records are not a part of this shard's history.
    fn fill(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), FillError>;
    /// A reader found that what lies between these indexes does not fit the chain: it becomes a gap.
    fn distrust(&self, shard: u32, after: u64, through: u64);
    /// No peer keeps what lies below `oldest` in the first gap: it is gone for good, as if by retention.
    fn give_up_below(&self, shard: u32, oldest: u64);
    /// Whether reads may wait for a disk, and so belong on a thread of their own.
    fn reads_block(&self) -> bool;
    /// Writes down what waits, syncs, and stops the background thread.
    fn close(&self);
}

/// How much one read may return; at least one record is returned when there is one.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    /// Most records.
    pub records: usize,
    /// Soft bound: records are added until it is passed.
    pub bytes: usize,
}

/// A run of records.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Index and bytes, ascending.
    pub records: Vec<(u64, Bytes)>,
    /// Read on from this index; nothing between the last record and it changed anything.
    pub next: u64,
}

/// A stretch that is missing: `after < index <= through`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Last index before it.
    pub after: u64,
    /// Last index in it.
    pub through: u64,
    /// Chain value behind it, when a restored state vouches for it; otherwise the next record does.
    pub chain_to: Option<u128>,
}

/// What is kept of one shard here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Everything below was dropped by retention.
    pub oldest: u64,
    /// Last index appended.
    pub applied: u64,
    /// Everything up to here is in the store (or in a gap).
    pub written: u64,
    /// Everything up to here is durable there (or in a gap).
    pub durable: u64,
    /// Missing stretches, ascending.
    pub gaps: Vec<Gap>,
    /// The first index that is missing and was not fetched yet; 0 when nothing is missing.
    pub wanted: u64,
    /// Bytes waiting to be written.
    pub backlog_bytes: usize,
    /// Ledger time from the oldest record to the newest, milliseconds, when retention looked last.
    pub kept_ms: u64,
    /// Ledger time of the oldest record then, milliseconds; zero: not known.
    pub oldest_ms: u64,
    /// The store could not be opened yet: what lies in it is not known.
    pub unopened: bool,
}

impl Coverage {
    /// Whether anything is missing.
    pub fn is_gapped(&self) -> bool {
        !self.gaps.is_empty()
    }
}

/// Why records cannot be read here.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Dropped by retention; start from `oldest`, or from a snapshot of the state.
    #[error("history of shard {shard} begins at index {oldest} here")]
    TooOld {
        /// Which shard.
        shard: u32,
        /// First index kept.
        oldest: u64,
    },
    /// This node misses it for now; ask another one.
    #[error("history of shard {shard} misses indexes {} to {through} on this node; ask another node", after + 1)]
    NotHere {
        /// Which shard.
        shard: u32,
        /// Last index before the gap.
        after: u64,
        /// Last index of the gap.
        through: u64,
    },
    /// The store cannot be read.
    #[error("the history store cannot be read")]
    Io(#[from] io::Error),
}

/// Why records of a peer were not taken.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// There is no gap to fill.
    #[error("nothing is missing")]
    NoGap,
    /// A record cannot be decoded.
    #[error("record {index} is malformed: {why}")]
    Malformed {
        /// Which.
        index: u64,
        /// Why.
        why: String,
    },
    /// The records do not continue the chain: of two neighbours one is not of this history.
    #[error("record {index} does not continue the chain")]
    Unchained {
        /// The record that does not fit.
        index: u64,
    },
    /// A peer has no record of the gap, and nothing that is kept proves that there is none.
    #[error("no record up to {through}, and nothing proves that there is none")]
    Unproved {
        /// Last index of the gap.
        through: u64,
    },
    /// The store cannot be written.
    #[error("the history store cannot be written")]
    Io(#[from] io::Error),
}
