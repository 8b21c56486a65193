//! The ledger as raft's state machine.
//!
//! **Owns** what happens to one committed entry on this replica: decoded once, applied, told; and that the ledger of the replica before is
//! looked at until the next one has a state of its own. **Must never** block on the disk while applying, or go on past an entry that it
//! cannot decode: it says so, and `ledger-raft` finds out what the others hold.
//! **Read next**: [`crate::door`], which waits for the outcomes.

use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use ledger_core::codec::CodecError;
use ledger_core::ledger::{Applied, Frozen};
use ledger_core::types::LedgerTime;
use ledger_core::{Entry, IndexSeed, Ledger, Outcome, Position, Refusal};
use ledger_raft::{
    ApplyOutcome, LogPosition, Reply, SnapshotChecker, SnapshotView, StateMachine, Unreadable, UnreadableKind,
};

use super::{AppliedTo, ShardState};
use crate::door::{AppliedEntry, Outcomes};
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
    /// A machine without a state: a snapshot, if there is one, is installed before the first entry. Until then whoever looks sees the
    /// ledger as the replica before left it; that one has ended, or the two would change one state.
    pub(crate) fn new(state: Arc<ShardState>) -> Self {
        Self { state, begun: false }
    }
}

/// Before the first entry after no snapshot: history learns from where on entries follow, and what a replica before left is replaced.
fn begin(state: &ShardState, ledger: &mut Ledger, before: u64) {
    if ledger.position().index > before {
        state.replace(ledger, Ledger::new(state.incarnation, state.id, state.index_seed));
    }
    state.history.begin(state.id, before, ledger.chain());
}

/// What raft must know of bytes that are no entry.
fn unreadable(why: &CodecError) -> Unreadable {
    let kind = if why.is_unsupported() { UnreadableKind::Unsupported } else { UnreadableKind::Malformed };
    Unreadable { kind, why: why.to_string() }
}

/// A snapshot that a newer build may know is no bad one.
fn unreadable_snapshot(why: &CodecError) -> io::Error {
    let kind = if why.is_unsupported() { io::ErrorKind::Unsupported } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, why.to_string())
}

impl ShardMachine {
    /// Changes the ledger by the entry at `at`.
    fn with_ledger(&mut self, at: LogPosition, change: impl FnOnce(&mut Ledger) -> Applied) -> Applied {
        let state = &*self.state;
        let mut ledger = state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.begun {
            self.begun = true;
            begin(state, &mut ledger, at.index - 1);
        }
        let applied = change(&mut ledger);
        state.memory.set(ledger.memory_use().total());
        applied
    }

    /// Hands what the entry at `at` did to history, feed and readers.
    fn publish(&self, at: LogPosition, mut applied: Applied) -> (Position, LedgerTime, Vec<Outcome>) {
        let state = &*self.state;
        let position =
            Position { incarnation: state.incarnation, shard: state.id, term: at.term, index: at.index, place: 0 };
        if ledger_core::bad!("history-record-skipped") && at.index.is_multiple_of(17) {
            applied.record = None;
        }
        state.history.append(state.id, at.index, applied.record.as_ref());
        state.feed.publish(position, applied.time, applied.record);
        state.applied.send_replace(AppliedTo { position, time: applied.time });
        (position, applied.time, applied.outcomes)
    }
}

impl StateMachine for ShardMachine {
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> ApplyOutcome {
        let state = &*self.state;
        let mut entry = match ledger_core::codec::decode_entry(LedgerTime(stamp_ms), data) {
            Ok(entry) => entry,
            Err(why) => return ApplyOutcome::Unreadable(unreadable(&why)),
        };
        if let Some(sabotage) = &state.sabotage {
            sabotage(state.id, at.index, &mut entry);
        }
        if ledger_core::bad!("lose-batch-tail") && !proposed_here && entry.commands.len() > 1 {
            entry.commands.pop();
        }
        if ledger_core::bad!("follower-skips-claims") && !proposed_here {
            let is_claim = |command: &ledger_core::Command| matches!(command, ledger_core::Command::ClaimOrders { .. });
            entry.commands.retain(|command| !is_claim(command));
        }
        let applied = self.with_ledger(at, |ledger| ledger.apply(at.term, at.index, &entry));
        let (position, time, outcomes) = self.publish(at, applied);
        if proposed_here {
            ApplyOutcome::applied(AppliedEntry { position, time, outcomes: Outcomes::Each(outcomes) })
        } else {
            ApplyOutcome::applied(())
        }
    }

    fn refuse(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, _proposed_here: bool) -> Reply {
        let stamp = LedgerTime(stamp_ms);
        let applied = self.with_ledger(at, |ledger| ledger.apply_refused(at.term, at.index, stamp, data));
        let (position, time, _) = self.publish(at, applied);
        Box::new(AppliedEntry { position, time, outcomes: Outcomes::AllRefused(Refusal::EntryUndecodable) })
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        let mut ledger = self.state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let through = ledger.position().index;
        let frozen = ledger.freeze();
        drop(ledger);
        Box::new(FrozenShard {
            frozen,
            index_seed: self.state.index_seed,
            history: self.state.history.clone(),
            shard: self.state.id,
            through,
        })
    }

    fn install(&mut self, at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        let state = &*self.state;
        let thawed = Ledger::thaw(bytes, state.index_seed).map_err(|e| unreadable_snapshot(&e))?;
        let found = thawed.position();
        if (found.incarnation, found.shard) != (state.incarnation, state.id) && found.index > 0 {
            let why = format!(
                "the snapshot is of shard {} of incarnation {}, this is shard {} of incarnation {}",
                found.shard, found.incarnation, state.id, state.incarnation
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let (chain, time) = (thawed.chain(), thawed.time());
        state.memory.set(thawed.memory_use().total());
        let mut ledger = state.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        state.replace(&mut ledger, thawed);
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
    index_seed: IndexSeed,
    history: Arc<dyn History>,
    shard: u32,
    through: u64,
}

impl SnapshotView for FrozenShard {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        // A restart replays only what lies behind the snapshot, so history must have the rest on disk first. When it cannot,
        // it is gapped and backfills from peers: no snapshot fails for it. But when its store could not be opened yet, what
        // lies there is whole, and would be given up if no replica could replay what follows it.
        if let Err(error) = self.history.sync_through(self.shard, self.through) {
            if self.history.coverage(self.shard).unopened {
                return Err(error);
            }
            tracing::warn!(shard = self.shard, %error, "history is behind the snapshot; it will be backfilled from peers");
        }
        self.frozen.write(to)
    }

    /// Builds a whole ledger and drops it: as much memory again as the ledger has, for as long as the snapshot is read.
    fn checker(&self) -> SnapshotChecker {
        let seed = self.index_seed;
        Box::new(move |bytes| Ledger::thaw(bytes, seed).map(drop).map_err(|e| unreadable_snapshot(&e)))
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::Command;
    use ledger_core::codec::encode_entry;
    use ledger_core::types::{Policy, Sku, Slot};

    use super::*;
    use crate::history::{HistoryFactory as _, MemoryHistory, Retention};
    use crate::memory::{MemoryBudget, ReplicaMemory};

    fn unbounded() -> ReplicaMemory {
        ReplicaMemory::new(&MemoryBudget::new(0, None), 1)
    }

    fn state() -> Arc<ShardState> {
        let keep = Retention { keep: std::time::Duration::from_secs(1 << 30), bytes_max: u64::MAX };
        let history = MemoryHistory::default().open(std::path::Path::new("node"), keep).expect("memory");
        ShardState::new(1, 1, IndexSeed(7), history, None, unbounded())
    }

    fn sku() -> Sku {
        Sku::new("ink").expect("a SKU")
    }

    fn apply(machine: &mut ShardMachine, index: u64, command: Command) {
        machine.apply(LogPosition { term: 1, index }, 1_000 * index, &encode_entry(&[command]), false);
    }

    fn all_slots() -> Command {
        let all = (Slot::new(0).expect("a slot"), Slot::new(4095).expect("a slot"));
        Command::OwnSlots { generation: 1, ranges: vec![all] }
    }

    /// A machine that has created a product at index 2, and the snapshot of it.
    fn stocked(state: &Arc<ShardState>) -> Vec<u8> {
        let mut machine = ShardMachine::new(state.clone());
        apply(&mut machine, 1, all_slots());
        apply(&mut machine, 2, Command::CreateProduct { sku: sku(), policy: Policy::default() });
        let mut snapshot = Vec::new();
        machine.snapshot().write(&mut snapshot).expect("memory");
        snapshot
    }

    fn sees(state: &ShardState, since: u64) -> Option<bool> {
        state.with_ledger_since(since, |ledger| ledger.product(&sku()).is_some())
    }

    #[test]
    fn a_machine_that_takes_over_leaves_the_state_until_it_has_another() {
        let state = state();
        let snapshot = stocked(&state);
        let began = state.replaced();
        assert_eq!(sees(&state, began), Some(true));
        let mut next = ShardMachine::new(state.clone());
        assert_eq!(sees(&state, began), Some(true), "nothing was installed yet");
        next.install(LogPosition { term: 1, index: 2 }, &mut snapshot.as_slice()).expect("its own snapshot");
        assert_eq!(sees(&state, began), None, "a look that began before the install sees neither state");
        assert_eq!(sees(&state, state.replaced()), Some(true));
    }

    #[test]
    fn a_snapshot_waits_for_history_that_could_not_be_opened_yet() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("history");
        std::fs::write(&home, b"in the way").expect("written");
        let keep = Retention { keep: std::time::Duration::from_secs(1 << 30), bytes_max: u64::MAX };
        let history = crate::history::SledHistory.open(&home, keep).expect("the node runs without it");
        let state = ShardState::new(1, 1, IndexSeed(7), history.clone(), None, unbounded());
        let mut machine = ShardMachine::new(state);
        apply(&mut machine, 1, all_slots());
        apply(&mut machine, 2, Command::CreateProduct { sku: sku(), policy: Policy::default() });
        let refused = machine.snapshot().write(&mut Vec::new()).expect_err("its records are not on disk");
        assert_eq!(refused.kind(), io::ErrorKind::NotConnected);
        history.close();
    }

    #[test]
    fn a_snapshot_of_a_newer_format_is_told_from_a_bad_one() {
        let state = state();
        let snapshot = stocked(&state);
        let mut next = ShardMachine::new(state.clone());
        let mut refused = |bytes: Vec<u8>| {
            next.install(LogPosition { term: 1, index: 2 }, &mut bytes.as_slice()).expect_err("refused").kind()
        };
        let mut newer = snapshot.clone();
        newer[7] += 1;
        assert_eq!(refused(newer), io::ErrorKind::Unsupported);
        assert_eq!(refused(snapshot[..snapshot.len() - 1].to_vec()), io::ErrorKind::InvalidData);
        assert_eq!(refused(b"garbage".to_vec()), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_machine_without_a_snapshot_replays_the_log_into_an_empty_ledger() {
        let state = state();
        stocked(&state);
        let began = state.replaced();
        let mut again = ShardMachine::new(state.clone());
        apply(&mut again, 1, all_slots());
        assert_eq!(sees(&state, began), None);
        assert_eq!(sees(&state, state.replaced()), Some(false), "the product is created by the next entry");
    }
}
