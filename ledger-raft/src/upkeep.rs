//! Snapshots and purging, on our own schedule.
//!
//! **What it is.** One task a group, so that a group whose state machine, disk or consensus does not answer holds back nobody else. A node
//! builds one snapshot at a time; one that takes very long loses that privilege, and goes on beside the next.
//!
//! **Owns** when a snapshot is built (by entries and by bytes, staggered by group; and once a group is quiet, so that the log of what is
//! over goes; a large one only when the log has grown by as much, so that snapshots stay half of what is written) and how far the log is purged. openraft's own policies are off. **Must never** purge what the oldest kept snapshot does not
//! hold, or what somebody still holds back. **Read next**: [`crate::snapshot`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::PollSemaphore;

use crate::group::GroupCore;
use crate::limits::{
    PURGE_BATCH_ENTRIES, QUIET_AFTER, QUIET_BYTES, SNAPSHOT_ALONE_WITHIN, SNAPSHOT_LATE_FACTOR, SNAPSHOT_LOOK_EVERY,
    SNAPSHOT_RETRY, SNAPSHOT_SMALL_BYTES, SNAPSHOT_TRANSFER_WITHIN, UPKEEP_CALL_WITHIN,
};
use crate::machine::{Machine, SnapshotWork, build_beside};
use crate::snapshot::SnapshotFile;

/// Looks after one group until it stops.
pub(crate) async fn run(core: Arc<GroupCore>) {
    core.stop.run_until_cancelled(look_after(&core)).await;
}

async fn look_after(core: &Arc<GroupCore>) {
    let mut looks = tokio::time::interval(SNAPSHOT_LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pace = Pace::new(Instant::now());
    let mut not_before = Instant::now();
    // Its place among those that wait to build: other groups, peers and operators, in the order they came.
    let mut waits: Option<PollSemaphore> = None;
    loop {
        let turn = tokio::select! {
            _ = looks.tick() => None,
            turn = next_turn(&mut waits) => turn,
        };
        if core.raft().is_err() {
            return;
        }
        if core.stop_if_damaged().await {
            return;
        }
        let now = Instant::now();
        // It is found quiet once: what waits for its turn since stays due.
        let quiet = pace.is_quiet(core.progress.bytes.load(Ordering::Relaxed), now) || waits.is_some();
        if now >= not_before && is_due(core, quiet) && !core.snapshots.is_building() {
            match turn.or_else(|| core.builds.clone().try_acquire_owned().ok()) {
                Some(turn) => {
                    waits = None;
                    if let Err(e) = build(core, turn).await {
                        tracing::error!(group = core.id.0, error = %e, "cannot build a snapshot; the log grows until one succeeds");
                        not_before = Instant::now() + SNAPSHOT_RETRY;
                    }
                }
                None => {
                    waits.get_or_insert_with(|| PollSemaphore::new(core.builds.clone()));
                }
            }
        } else {
            waits = None;
        }
        announce(core).await;
        purge(core).await;
    }
}

/// The turn of a group that waits for one; never, of one that does not.
async fn next_turn(waits: &mut Option<PollSemaphore>) -> Option<OwnedSemaphorePermit> {
    match waits {
        Some(waits) => std::future::poll_fn(|cx| waits.poll_acquire(cx)).await,
        None => std::future::pending().await,
    }
}

/// Tells whether a group has much to do.
struct Pace {
    /// Bytes applied when it last had much to do, and when that was.
    bytes: u64,
    since: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { bytes: 0, since: now }
    }

    fn is_quiet(&mut self, bytes: u64, now: Instant) -> bool {
        if bytes.saturating_sub(self.bytes) > QUIET_BYTES {
            (self.bytes, self.since) = (bytes, now);
        }
        let quiet = now.duration_since(self.since) >= QUIET_AFTER;
        if quiet {
            // A quiet group's trickle does not add up to much work, and it has one such look in that time.
            (self.bytes, self.since) = (bytes, now);
        }
        quiet
    }
}

/// Groups with the same load would all be due at once; each waits a little longer than the one before.
fn is_due(core: &GroupCore, quiet: bool) -> bool {
    let applied = core.status.borrow().applied_index;
    let t = &core.tuning;
    let stagger = u64::from(core.id.0 % 8);
    let entries = t.snapshot_every_entries + t.snapshot_every_entries / 16 * stagger;
    let bytes = t.snapshot_every_bytes + t.snapshot_every_bytes / 16 * stagger;
    let (newest, newest_bytes) = core.snapshots.newest().map_or((0, 0), |f| (f.head.last.index, f.bytes));
    if applied <= newest {
        return false;
    }
    let since = core.progress.bytes_since_snapshot();
    // The newest snapshot becomes the older of two, so the log up to it goes; a first one stands alone.
    let covered = if newest == 0 { applied } else { newest };
    let gain = || core.store.log().bytes_through(purge_upto(core, covered, applied));
    // Where space is low nothing is appended, so the log would never grow by as much; what a snapshot sets free is all that helps.
    let affordable = is_affordable(since, newest_bytes) || *core.low_space.borrow();
    let much = applied >= newest + entries || since >= bytes;
    let too_many = applied >= newest + entries.saturating_mul(SNAPSHOT_LATE_FACTOR);
    (much && affordable) || too_many || (quiet && gain() >= t.segment_bytes)
}

/// Whether the log has grown enough since the newest snapshot to write the whole state again.
fn is_affordable(log_bytes_since: u64, snapshot_bytes: u64) -> bool {
    snapshot_bytes <= SNAPSHOT_SMALL_BYTES || log_bytes_since >= snapshot_bytes
}

/// Builds a snapshot of what is applied now, durable and read back when this returns, and tells openraft. Callers that wait for the
/// same turn share one, so that however many ask, others wait for few.
pub(crate) async fn build_snapshot(core: &Arc<GroupCore>) -> io::Result<Arc<SnapshotFile>> {
    let newest = || core.snapshots.newest();
    let index_of = |file: &Option<Arc<SnapshotFile>>| file.as_ref().map_or(0, |file| file.head.last.index);
    let (before, applied) = (index_of(&newest()), core.progress.applied().index);
    let turn = core.builds.clone().acquire_owned().await.map_err(io::Error::other)?;
    let meanwhile = newest().filter(|file| file.head.last.index > before && file.head.last.index >= applied);
    let file = match meanwhile {
        Some(file) => file,
        None => build(core, turn).await?,
    };
    let index = file.head.last.index;
    announce(core).await;
    // A peer's newer snapshot may have overtaken ours; either will do.
    core.await_status(SNAPSHOT_TRANSFER_WITHIN, |s| s.snapshot_index >= index || s.stopped.is_some()).await?;
    Ok(file)
}

/// Builds one; gives up its turn when that takes very long.
async fn build(core: &GroupCore, turn: OwnedSemaphorePermit) -> io::Result<Arc<SnapshotFile>> {
    let bytes = core.progress.bytes.load(Ordering::Relaxed);
    let built = async {
        let work = view(core).await?;
        let mut building = std::pin::pin!(build_beside(work));
        let first = timeout(SNAPSHOT_ALONE_WITHIN, &mut building).await;
        drop(turn);
        match first {
            Ok(built) => built,
            Err(_) => {
                tracing::warn!(group = core.id.0, within = ?SNAPSHOT_ALONE_WITHIN, "a snapshot takes long; others may be built beside it");
                building.await
            }
        }
    };
    let built = built.await;
    let failure = built.as_ref().err().map(ToString::to_string);
    core.snapshots.set_failure(failure.clone());
    core.status.send_if_modified(|s| std::mem::replace(&mut s.snapshot_failure, failure.clone()) != failure);
    if built.is_ok() {
        core.progress.bytes_at_snapshot.store(bytes, Ordering::Relaxed);
    }
    built
}

/// A view of the state, unless the state machine does not answer.
async fn view(core: &GroupCore) -> io::Result<SnapshotWork> {
    let raft = core.raft()?;
    let asked = raft.with_state_machine(|m: &mut Machine| Box::pin(async move { m.view() }));
    timeout(UPKEEP_CALL_WITHIN, asked)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the state machine does not answer"))?
        .map_err(io::Error::other)??
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nothing was applied yet"))
}

/// Tells openraft of the newest snapshot, until it has heard.
async fn announce(core: &GroupCore) {
    let (Ok(raft), Some(newest)) = (core.raft(), core.snapshots.newest()) else { return };
    if core.status.borrow().snapshot_index < newest.head.last.index {
        let _late_or_stopped = timeout(UPKEEP_CALL_WITHIN, raft.trigger().snapshot()).await;
    }
}

/// Index up to which the log may be purged, once `covered` is the older of the two snapshots and `newest` the newer one.
fn purge_upto(core: &GroupCore, covered: u64, newest: u64) -> u64 {
    // Entries may be large: what is kept for slow followers, and for whoever holds the purge back,
    // is bounded by bytes, too.
    let too_old = core.store.log().newest_within(core.tuning.snapshot_every_bytes).saturating_sub(1);
    let kept = newest.saturating_sub(core.tuning.keep_entries).max(too_old);
    let held = core.hold_purge_above.load(Ordering::Relaxed).max(too_old);
    first_bound(covered, kept, held)
}

fn first_bound(covered: u64, not_kept: u64, held_above: u64) -> u64 {
    covered.min(not_kept).min(held_above)
}

async fn purge(core: &GroupCore) {
    let (Ok(raft), Some(newest)) = (core.raft(), core.snapshots.newest()) else { return };
    let upto = purge_upto(core, core.snapshots.covered(), newest.head.last.index);
    let purged = core.status.borrow().purged_index;
    if upto <= purged {
        return;
    }
    let many = upto >= purged + PURGE_BATCH_ENTRIES.min(core.tuning.snapshot_every_entries);
    if many || core.store.log().bytes_through(upto) >= core.tuning.segment_bytes {
        let _late_or_stopped = timeout(UPKEEP_CALL_WITHIN, raft.trigger().purge_log(upto)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purging_stops_at_the_first_of_its_bounds() {
        let upto = |covered, newest: u64, keep, held| first_bound(covered, newest.saturating_sub(keep), held);
        assert_eq!(upto(900, 1000, 50, u64::MAX), 900, "what the older snapshot lacks stays");
        assert_eq!(upto(1000, 1000, 300, u64::MAX), 700, "entries are kept behind the newest snapshot");
        assert_eq!(upto(1000, 1000, 0, 10), 10, "what history needs stays");
        assert_eq!(upto(100, 100, 300, u64::MAX), 0);
    }

    #[test]
    fn large_snapshots_are_at_most_half_of_what_is_written() {
        let (mut log, mut since, mut written) = (0, 0, 0);
        // A state of 5 GiB, and a log of 100 KiB a step for a while.
        let state = 5 << 30;
        for _ in 0..400_000 {
            (log, since) = (log + (100 << 10), since + (100 << 10));
            if is_affordable(since, state) {
                (written, since) = (written + state, 0);
            }
        }
        assert!(written <= log && written >= log - 2 * state, "{written} of snapshots, {log} of log");
        assert!(is_affordable(0, SNAPSHOT_SMALL_BYTES) && !is_affordable(0, SNAPSHOT_SMALL_BYTES + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_quiet_once_it_had_little_to_do_for_long() {
        let mut pace = Pace::new(Instant::now());
        assert!(!pace.is_quiet(5 * QUIET_BYTES, Instant::now()));
        tokio::time::advance(QUIET_AFTER / 2).await;
        assert!(!pace.is_quiet(7 * QUIET_BYTES, Instant::now()), "it has much to do");
        tokio::time::advance(QUIET_AFTER / 2).await;
        assert!(!pace.is_quiet(7 * QUIET_BYTES + 9, Instant::now()));
        tokio::time::advance(QUIET_AFTER / 2).await;
        assert!(pace.is_quiet(7 * QUIET_BYTES + 99, Instant::now()));
        assert!(!pace.is_quiet(7 * QUIET_BYTES + 99, Instant::now()), "once in that time");
    }
}
