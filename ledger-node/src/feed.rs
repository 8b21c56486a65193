//! The newest records of a shard in memory, for watchers. (Minimal shape; the node-api work fills it in.)
//!
//! **Owns** the ring. **Must never** block the shard. **Read next**: [`crate::history`].

use bytes::Bytes;
use ledger_core::{LedgerTime, Position};

/// A ring of the newest records.
pub struct FeedRing {
    _shard: u32,
}

impl FeedRing {
    /// An empty ring.
    pub fn new(shard: u32) -> Self {
        Self { _shard: shard }
    }
    /// An entry was applied: its record if something changed, and the ledger time it reached.
    pub fn publish(&self, _at: Position, _time: LedgerTime, _record: Option<Bytes>) {}
    /// A snapshot was installed: what lies between is not in the ring.
    pub fn installed(&self, _at: Position, _time: LedgerTime) {}
}
