//! A build that meets the snapshot of a newer one: the replica stops by name, loses nothing, and
//! goes on with the newer build.

use crate::common::{Cluster, NEWER_STATE, tuning};
use ledger_raft::{GroupStatus, RaftTuning, Role};

fn snapshots(c: &Cluster, id: u64) -> Vec<String> {
    let names = c.disks[&id].files().into_iter().map(|file| file.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|file| file.contains("/snapshots/")).collect();
    names.sort();
    names
}

fn assert_waits_for_a_build(status: &GroupStatus) {
    let why = status.stopped.as_deref().expect("it is stopped");
    assert!(why.contains("format 2, this build knows 1") && why.contains("run a build that knows it"), "{why}");
    assert!(status.awaits_build, "no repair helps");
    assert_eq!(status.role, Role::Stopped);
}

#[tokio::test]
async fn a_start_with_an_old_build_takes_no_snapshot_from_the_new_one() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(NEWER_STATE).await;
    c.agree(at.index).await;
    for node in c.nodes.values() {
        node.group.snapshot_now().await.expect("a snapshot");
    }
    let old = c.leader().await % 3 + 1;
    let before = snapshots(&c, old);
    assert!(before.iter().any(|file| file.ends_with(".snap")), "{before:?}");
    for _ in 0..2 {
        c.kill(old);
        c.up(old).await;
        assert_waits_for_a_build(&c.nodes[&old].group.status());
        assert_eq!(snapshots(&c, old), before);
    }
    c.kill(old);
    c.new_builds.insert(old);
    c.up(old).await;
    let at = c.propose(b"with the newer build").await;
    assert_eq!(c.agree(at.index).await.count, 2);
}

#[tokio::test]
async fn a_replica_that_is_sent_a_snapshot_it_does_not_know_stops_by_name() {
    let tuning = RaftTuning { snapshot_every_entries: 200, keep_entries: 10, ..tuning() };
    let mut c = Cluster::start(3, tuning).await;
    let at = c.propose(NEWER_STATE).await;
    c.agree(at.index).await;
    let leader = c.leader().await;
    let behind = leader % 3 + 1;
    c.kill(behind);
    for i in 0..600u32 {
        c.propose(&i.to_le_bytes()).await;
    }
    let leader = c.leader().await;
    c.nodes[&leader].group.snapshot_now().await.expect("a snapshot");
    c.propose(b"between").await;
    c.nodes[&leader].group.snapshot_now().await.expect("another");
    c.until(leader, "purged", |s| s.purged_index > 100).await;
    c.up(behind).await;
    let status = c.until(behind, "stops", |s| s.stopped.is_some()).await;
    assert_waits_for_a_build(&status);
    assert!(!snapshots(&c, behind).iter().any(|file| file.ends_with(".unreadable")), "it is kept for the newer build");
    c.kill(behind);
    c.new_builds.insert(behind);
    c.up(behind).await;
    let at = c.propose(b"with the newer build").await;
    c.agree(at.index).await;
}
