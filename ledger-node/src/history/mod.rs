//! History: the changes of every entry, kept on each node, behind a trait. (Minimal shape; the node-api work fills it in.)
//!
//! **Owns** the seam to where histories are kept. **Must never** be needed for a promise.
//! **Read next**: [`crate::feed`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::Position;

/// One shard's history on this node.
pub trait History: Send + Sync + 'static {
    /// Takes the encoded record of an entry; called on the shard's task for every entry, with none when nothing changed (so
    /// that the history knows how far it is). Must not block: it queues, and when its backlog is over its bound it drops and
    /// is gapped. Entries at or below what it has already are ignored (replay after a restart).
    fn append(&self, at: Position, record: Option<Bytes>);
    /// A snapshot was installed: entries up to `at` will not be appended. A gap when the history ends below.
    fn installed(&self, at: Position, chain: u128);
    /// Everything up to this index is durable here (or given up as gapped): the log may be purged up to it.
    fn synced_to(&self) -> u64;
    /// Whether records are missing here.
    fn gapped(&self) -> bool;
    /// Waits until everything appended before the call is durable. For shutdown.
    fn flush(&self) -> futures::future::BoxFuture<'static, ()>;
}

/// Opens histories.
pub trait HistoryFactory: Send + Sync + 'static {
    /// The history of one shard, below `dir`.
    ///
    /// # Errors
    /// The disk's; a history that does not verify is moved away and begun anew (gapped), not an error.
    fn open(&self, dir: &Path, incarnation: u64, shard: u32) -> io::Result<Arc<dyn History>>;
}
