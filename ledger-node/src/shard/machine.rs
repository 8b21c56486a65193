//! The ledger as raft's state machine.
//!
//! **Owns** what happens to one committed entry on this replica: decoded once, applied, told. **Must never** block on the
//! disk while applying, or survive an entry it does not understand: a broken replica stops, it does not diverge.
//! **Read next**: [`crate::door`], which waits for the outcomes.

use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use ledger_core::ledger::Frozen;
use ledger_core::types::LedgerTime;
use ledger_core::{Entry, Ledger, Position};
use ledger_raft::{LogPosition, Reply, SnapshotView, StateMachine};

use super::{AppliedTo, ShardState};
use crate::door::AppliedEntry;
use crate::history::History;

/// Lets tests break one replica on purpose: it sees (shard, index, entry) before the ledger does.
pub type Sabotage = Arc<dyn Fn(u32, u64, &mut Entry) + Send + Sync>;

/// The known-bad replica that asks its own clock what has expired, not the entry.
#[cfg(holdfast_known_bad)]
pub(crate) fn by_wall_clock(clock: Arc<dyn ledger_raft::seam::WallClock>, or: Option<Sabotage>) -> Option<Sabotage> {
    let stamped = move |_, _, entry: &mut Entry| entry.stamp = LedgerTime(clock.now_ms());
    if ledger_core::bad!("expire-by-wall-clock") { Some(Arc::new(stamped)) } else { or }
}

/// The state machine of one shard's replica.
pub(crate) struct ShardMachine {
    state: Arc<ShardState>,
    /// History was told from where on entries follow.
    begun: bool,
}

impl ShardMachine {
    /// A machine with an empty ledger; a snapshot, if there is one, is installed before the first entry.
    pub(crate) fn new(state: Arc<ShardState>) -> Self {
        *state.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Ledger::new(state.incarnation, state.id);
        Self { state, begun: false }
    }
}

impl StateMachine for ShardMachine {
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> Reply {
        let state = &*self.state;
        let mut entry = match ledger_core::codec::decode_entry(LedgerTime(stamp_ms), data) {
            Ok(entry) => entry,
            Err(e) => panic!(
                "shard {} cannot read its committed entry {}: {e}; it must not go on without it",
                state.id, at.index
            ),
        };
        if let Some(sabotage) = &state.sabotage {
            sabotage(state.id, at.index, &mut entry);
        }
        if ledger_core::bad!("lose-batch-tail") && !proposed_here && entry.commands.len() > 1 {
            entry.commands.pop();
        }
        let mut applied = {
            let mut ledger = state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.begun {
                self.begun = true;
                state.history.begin(state.id, at.index - 1, ledger.chain());
            }
            ledger.apply(at.term, at.index, &entry)
        };
        let position =
            Position { incarnation: state.incarnation, shard: state.id, term: at.term, index: at.index, place: 0 };
        if ledger_core::bad!("history-record-skipped") && at.index.is_multiple_of(17) {
            applied.record = None;
        }
        state.history.append(state.id, at.index, applied.record.as_ref());
        state.feed.publish(position, applied.time, applied.record);
        state.applied.send_replace(AppliedTo { position, time: applied.time });
        if proposed_here {
            Box::new(AppliedEntry { position, time: applied.time, outcomes: applied.outcomes })
        } else {
            Box::new(())
        }
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        let mut ledger = self.state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let through = ledger.position().index;
        let frozen = ledger.freeze();
        drop(ledger);
        Box::new(FrozenShard { frozen, history: self.state.history.clone(), shard: self.state.id, through })
    }

    fn install(&mut self, at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        let state = &*self.state;
        let thawed = Ledger::thaw(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let found = thawed.position();
        if (found.incarnation, found.shard) != (state.incarnation, state.id) && found.index > 0 {
            let why = format!(
                "the snapshot is of shard {} of incarnation {}, this is shard {} of incarnation {}",
                found.shard, found.incarnation, state.id, state.incarnation
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let (chain, time) = (thawed.chain(), thawed.time());
        let mut ledger = state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger = thawed;
        self.begun = true;
        state.history.begin(state.id, at.index, chain);
        drop(ledger);
        let position =
            Position { incarnation: state.incarnation, shard: state.id, term: at.term, index: at.index, place: 0 };
        state.feed.installed(position, time, chain);
        state.applied.send_replace(AppliedTo { position, time });
        Ok(())
    }
}

/// A frozen ledger on its way into a snapshot file.
struct FrozenShard {
    frozen: Frozen,
    history: Arc<dyn History>,
    shard: u32,
    through: u64,
}

impl SnapshotView for FrozenShard {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        // A restart replays only what lies behind the snapshot, so history must have the rest on disk first. When it cannot,
        // it is gapped and backfills from peers: no snapshot fails for it.
        if let Err(error) = self.history.sync_through(self.shard, self.through) {
            tracing::warn!(shard = self.shard, %error, "history is behind the snapshot; it will be backfilled from peers");
        }
        self.frozen.write(to)
    }
}
