//! What a leader owes its shard: its slots, its settings, and the passing of time.
//!
//! **What it is.** One task a replica, awake only while it leads. It proposes [`Command::OwnSlots`] and the settings when the placement is
//! newer than what the shard knows, and a [`Command::Tick`] when something is due and nothing else moves the shard's time. An idle
//! shard gets one now and then, so that its time stays near enough to now for ids to be minted from it.
//! **Owns** those proposals. **Must never** decide what is due, or when an idle shard is to tick: the ledger says so.
//! **Read next**: [`crate::shard`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger_core::Command;
use ledger_core::Outcome;
use ledger_core::types::{LedgerTime, Slot};
use ledger_raft::Role;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::door::Answer;
use crate::limits;
use crate::node::Node;
use crate::shard::{AppliedTo, Shard};

/// Runs until `stop`.
pub(crate) async fn run(node: Arc<Node>, shard: Arc<Shard>, stop: CancellationToken) {
    let mut status = shard.group().watch();
    let mut placement = node.placement.subscribe();
    let mut applied = shard.applied();
    loop {
        let leads = status.borrow_and_update().role == Role::Leader;
        // Marked as seen before the ledger is asked, so that no entry falls between the two.
        applied.borrow_and_update();
        let wait = if leads { lead(&node, &shard).await } else { Wait::Change };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            _ = placement.changed() => {}
            () = something(&mut applied, wait) => {}
        }
    }
}

/// What the leader waits for before it looks again.
enum Wait {
    /// Role or placement.
    Change,
    /// So long, or an entry.
    Due(Duration),
    /// So long.
    Pause,
}

async fn something(applied: &mut watch::Receiver<AppliedTo>, wait: Wait) {
    let entry = async {
        let _gone = applied.changed().await;
        // One look covers all entries of that time.
        tokio::time::sleep(limits::TICK_LOOK).await;
    };
    match wait {
        Wait::Change => std::future::pending().await,
        Wait::Due(after) => tokio::select! {
            () = entry => {}
            () = tokio::time::sleep(after) => {}
        },
        Wait::Pause => tokio::time::sleep(limits::TICK_LOOK).await,
    }
}

/// Does what is owed now.
async fn lead(node: &Node, shard: &Shard) -> Wait {
    let group = shard.group();
    let Some(now) = group.stamp_now() else { return Wait::Pause };
    if let Err(wait) = own_slots(node, shard).await {
        return wait;
    }
    let due = shard.with_ledger(|ledger| {
        let due = [ledger.next_due(), ledger.next_forgotten()].into_iter().flatten();
        due.fold(ledger.next_idle_tick(), LedgerTime::min)
    });
    let tick_at = due.plus(limits::TICK_AFTER_DUE.as_millis() as u64);
    if tick_at > LedgerTime(now) {
        return Wait::Due(Duration::from_millis(tick_at.0 - now));
    }
    if shard.door().counts().waiting.load(Ordering::Relaxed) == 0 {
        return propose(shard, Command::Tick).await.err().unwrap_or(Wait::Pause);
    }
    Wait::Pause
}

/// Proposes the shard's slots when it does not know them as of the placement; else what to wait for.
async fn own_slots(node: &Node, shard: &Shard) -> Result<(), Wait> {
    let placement = node.placement().ok_or(Wait::Pause)?;
    let mine = placement.shards.iter().find(|s| s.shard == shard.id()).ok_or(Wait::Pause)?;
    let (known, _) = shard.with_ledger(|ledger| ledger.owned_slots());
    if known >= placement.generation {
        return Ok(());
    }
    let slot = |n: u16| Slot::new(n).expect("the plan gives out existing slots");
    let ranges = mine.slots.iter().map(|&(from, to)| (slot(from), slot(to))).collect();
    let own = Command::OwnSlots { generation: placement.generation, ranges };
    // Settings first: a shard without slots takes no reservations, so none is ever decided under others; and a shard that knows the
    // placement's generation has its settings.
    propose(shard, Command::Configure { settings: placement.settings().for_shards() }).await?;
    propose(shard, own).await
}

/// Proposes a command; what to wait for when the shard did not take it.
async fn propose(shard: &Shard, command: Command) -> Result<(), Wait> {
    let verb = command.verb();
    let (_, _, answer) = shard.door().ask(command, Instant::now() + limits::OWN_COMMAND_WITHIN).await;
    match answer {
        Answer::Outcome(Outcome::Ok(_)) => Ok(()),
        // The queue has said so, and the same command would meet the same end.
        Answer::Invalid(_) => Err(Wait::Change),
        // A repeated proposal after an unknown one: the next look sees what is true.
        other => {
            tracing::debug!(shard = shard.id(), ?verb, answer = ?other, "the shard did not take the leader's command");
            Err(Wait::Pause)
        }
    }
}
