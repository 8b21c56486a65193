//! Snapshots and purging, on our own schedule.
//!
//! **Owns** when a snapshot is built (by entries and by bytes, staggered by group, one at a time a node) and how far the log is
//! purged. openraft's own policies are off. **Must never** purge what the oldest kept snapshot does not hold, or what
//! somebody still holds back. **Read next**: [`crate::snapshot`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::group::GroupCore;
use crate::limits::{PURGE_BATCH_ENTRIES, SNAPSHOT_LOOK_EVERY, SNAPSHOT_TRANSFER_WITHIN};
use crate::machine::{Machine, build_beside};
use crate::snapshot::SnapshotFile;
use crate::transport::server::Registry;

/// Looks after all groups of a node until it stops.
pub(crate) async fn run(registry: Arc<Registry>) {
    let mut looks = tokio::time::interval(SNAPSHOT_LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = registry.stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let groups: Vec<_> = {
            let groups = registry.groups.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            groups.values().cloned().collect()
        };
        for core in groups {
            if core.raft().is_err() {
                continue;
            }
            if is_due(&core)
                && let Err(e) = build_snapshot(&core).await
            {
                tracing::error!(group = core.id.0, error = %e, "cannot build a snapshot; the log grows until one succeeds");
            }
            purge(&core).await;
        }
    }
}

/// Groups with the same load would all be due at once; each waits a little longer than the one before.
fn is_due(core: &GroupCore) -> bool {
    let status = core.status.borrow();
    let t = &core.tuning;
    let stagger = u64::from(core.id.0 % 8);
    let entries = t.snapshot_every_entries + t.snapshot_every_entries / 16 * stagger;
    let bytes = t.snapshot_every_bytes + t.snapshot_every_bytes / 16 * stagger;
    let newest = core.snapshots.newest().map_or(0, |f| f.head.last.index);
    let since = core.progress.bytes.load(Ordering::Relaxed) - core.bytes_at_snapshot.load(Ordering::Relaxed);
    status.applied_index >= newest + entries || (since >= bytes && status.applied_index > newest)
}

/// Builds a snapshot of what is applied now, durable when this returns, and tells openraft.
pub(crate) async fn build_snapshot(core: &Arc<GroupCore>) -> io::Result<Arc<SnapshotFile>> {
    let _one = core.builds.acquire().await.map_err(io::Error::other)?;
    let raft = core.raft()?;
    let bytes = core.progress.bytes.load(Ordering::Relaxed);
    let work = raft
        .with_state_machine(|m: &mut Machine| Box::pin(async move { m.view() }))
        .await
        .map_err(io::Error::other)??
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nothing was applied yet"))?;
    let file = build_beside(work).await?;
    core.bytes_at_snapshot.store(bytes, Ordering::Relaxed);
    let index = file.head.last.index;
    raft.trigger().snapshot().await.map_err(io::Error::other)?;
    // A peer's newer snapshot may have overtaken ours; either will do.
    core.await_status(SNAPSHOT_TRANSFER_WITHIN, |s| s.snapshot_index >= index || s.stopped.is_some()).await?;
    Ok(file)
}

/// Index up to which the log may be purged.
fn purge_upto(covered: u64, newest: u64, keep_entries: u64, held_above: u64) -> u64 {
    covered.min(newest.saturating_sub(keep_entries)).min(held_above)
}

async fn purge(core: &GroupCore) {
    let (Ok(raft), Some(newest)) = (core.raft(), core.snapshots.newest()) else { return };
    let held = core.hold_purge_above.load(Ordering::Relaxed);
    let upto = purge_upto(core.snapshots.covered(), newest.head.last.index, core.tuning.keep_entries, held);
    let purged = core.status.borrow().purged_index;
    if upto >= purged + PURGE_BATCH_ENTRIES.min(core.tuning.snapshot_every_entries) {
        let _stopped = raft.trigger().purge_log(upto).await;
    }
}

#[cfg(test)]
mod tests {
    use super::purge_upto;

    #[test]
    fn purging_stops_at_the_first_of_its_bounds() {
        assert_eq!(purge_upto(900, 1000, 50, u64::MAX), 900, "what the older snapshot lacks stays");
        assert_eq!(purge_upto(1000, 1000, 300, u64::MAX), 700, "entries are kept behind the newest snapshot");
        assert_eq!(purge_upto(1000, 1000, 0, 10), 10, "what history needs stays");
        assert_eq!(purge_upto(100, 100, 300, u64::MAX), 0);
    }
}
