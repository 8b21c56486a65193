//! One shard on this node: the core's ledger as the state machine of a raft group, and what reads and writes it.
//!
//! **Owns** the joining of core and raft: decode once, apply, outcomes to the proposer, the record to feed and history.
//! **Must never** decide anything about stock, or hold the ledger's lock across an await.
//! **Read next**: [`crate::door`].

use std::sync::Arc;
use std::time::Duration;

use ledger_core::types::LedgerTime;
use ledger_core::{Ledger, Position};
use ledger_raft::{Group, ReadError};
use tokio::sync::watch;

use crate::door::Door;
use crate::feed::FeedRing;
use crate::history::History;

/// How far this replica has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedTo {
    /// Position of the last applied entry (place 0).
    pub position: Position,
    /// Ledger time there.
    pub time: LedgerTime,
}

/// A replica of a shard on this node.
pub struct Shard {
    _private: (),
}

impl Shard {
    /// Its number: the raft group, from 1 on.
    pub fn id(&self) -> u32 {
        todo!()
    }
    /// The one way into its log.
    pub fn door(&self) -> &Door {
        todo!()
    }
    /// Its raft group (replaced when the replica is reinstalled: do not keep it).
    pub fn group(&self) -> Group {
        todo!()
    }
    /// Waits until everything committed when the call began is applied here (linearizable reads).
    ///
    /// # Errors
    /// [`ReadError`]: ask the leader or come back.
    pub async fn read_index(&self, _within: Duration) -> Result<u64, ReadError> {
        todo!()
    }
    /// Looks at the ledger; synchronously, briefly.
    pub fn with_ledger<T>(&self, _look: impl FnOnce(&Ledger) -> T) -> T {
        todo!()
    }
    /// How far this replica has applied, watched.
    pub fn applied(&self) -> watch::Receiver<AppliedTo> {
        todo!()
    }
    /// The newest records in memory, for watchers.
    pub fn feed(&self) -> &Arc<FeedRing> {
        todo!()
    }
    /// This node's history of the shard.
    pub fn history(&self) -> &Arc<dyn History> {
        todo!()
    }
    /// Whether this node leads the shard now.
    pub fn leads(&self) -> bool {
        todo!()
    }
    /// Milliseconds since this replica last heard from a leader (or led with a quorum); none when unknown. For stale reads.
    pub fn age_ms(&self) -> Option<u64> {
        todo!()
    }
}
