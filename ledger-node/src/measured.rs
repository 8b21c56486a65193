//! A shard's state machine seen from outside: how many commands each entry carried.
//!
//! **Owns** that histogram's samples: entries proposed here, once they are applied. **Must never** change what the machine does.
//! **Read next**: [`crate::shard::machine`].

use std::io;

use bytes::Bytes;
use ledger_raft::{ApplyOutcome, LogPosition, Reply, SnapshotView, StateMachine};
use metrics::Histogram;

use crate::door::{AppliedEntry, Outcomes};
use crate::shard::machine::ShardMachine;

/// The machine, and where its entries are counted.
pub(crate) struct Measured {
    machine: ShardMachine,
    entry_commands: Histogram,
}

impl Measured {
    pub(crate) fn new(machine: ShardMachine, entry_commands: Histogram) -> Self {
        Self { machine, entry_commands }
    }
}

impl StateMachine for Measured {
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> ApplyOutcome {
        let outcome = self.machine.apply(at, stamp_ms, data, proposed_here);
        if let ApplyOutcome::Applied(reply) = &outcome
            && let Some(applied) = reply.downcast_ref::<AppliedEntry>()
            && let Outcomes::Each(outcomes) = &applied.outcomes
        {
            self.entry_commands.record(outcomes.len() as f64);
        }
        outcome
    }

    fn refuse(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, proposed_here: bool) -> Reply {
        self.machine.refuse(at, stamp_ms, data, proposed_here)
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        self.machine.snapshot()
    }

    fn install(&mut self, at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        self.machine.install(at, bytes)
    }
}
