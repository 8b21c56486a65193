//! A node that comes back without a part of what it acknowledged: it neither votes nor leads, says
//! what is missing, and is repaired once all other voters answer.

mod common;

use std::path::PathBuf;

use common::{Cluster, G, Shared, tuning};
use ledger_raft::{GroupId, RaftTuning, Role};

/// Acknowledged by two nodes, before one of them loses its disk.
const ACKNOWLEDGED: u64 = 60;

/// Small segments, so that the sixty entries span several.
fn small() -> RaftTuning {
    RaftTuning { segment_bytes: 64 << 10, ..tuning() }
}

/// The log's segment files that were written to, oldest first.
fn segments(c: &Cluster, id: u64) -> Vec<PathBuf> {
    let disk = &c.disks[&id];
    let generation = |file: &PathBuf| {
        let content = disk.content(file)?;
        let stamp = content.get(4..8)?;
        Some((u32::from_le_bytes([stamp[0], stamp[1], stamp[2], stamp[3]]), file.clone()))
    };
    let files = disk.files().into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "seg"));
    let mut begun: Vec<_> = files.filter_map(|file| generation(&file)).filter(|(begun, _)| *begun > 0).collect();
    begun.sort();
    begun.into_iter().map(|(_, file)| file).collect()
}

/// Node 1 lags, node 2 loses what `lose` takes while all are down, and node 3 comes back last.
async fn lose(what: &str, lose: impl FnOnce(&Cluster)) {
    let mut c = Cluster::start(3, small()).await;
    let before = c.propose(b"before").await;
    c.agree(before.index).await;
    c.kill(1);
    let mut last = before;
    for i in 0..ACKNOWLEDGED {
        last = c.propose(&[i as u8; 2_000]).await;
    }
    c.agree(last.index).await;
    c.kill(2);
    c.kill(3);
    lose(&c);
    c.up(1).await;
    c.up(2).await;

    // Node 1 asks for votes; without node 2's it cannot lead, and node 2 never stands.
    let lost = c.until(2, "declines votes", |s| s.votes_declined >= 3).await;
    assert_eq!(lost.role, Role::Stopped, "{what}");
    let why = lost.stopped.expect("a reason");
    assert!(
        why.contains("its log is damaged") && why.contains("gone") | why.contains("was made with"),
        "{what}: {why}"
    );
    let other = c.nodes[&1].group.status();
    assert_ne!(other.role, Role::Leader, "{what}: {other:?}");
    assert!(other.applied_index <= before.index, "{what}: {other:?}");
    let incomplete = c.try_reinstall(2, 1).await.expect_err("node 3 is missing").to_string();
    assert!(incomplete.contains("node 3"), "{what}: {incomplete}");

    c.up(3).await;
    c.reinstall(2).await;
    let after = c.propose(b"after").await;
    let tally = c.agree(after.index).await;
    assert_eq!(tally.count, ACKNOWLEDGED + 2, "{what}");
    // It is whole again: no later start finds anything.
    c.until(2, "is repaired", |s| s.stopped.is_none() && !s.repairing).await;
    c.kill(2);
    c.up(2).await;
    assert_eq!(c.nodes[&2].group.status().stopped, None, "{what}");
}

#[tokio::test]
async fn a_node_without_its_log_neither_votes_nor_leads() {
    lose("without its log", |c| c.disks[&2].remove_tree(&c.dir(2).join("wal"))).await;
}

#[tokio::test]
async fn a_node_without_log_and_snapshots_neither_votes_nor_leads() {
    lose("without log and snapshots", |c| {
        c.disks[&2].remove_tree(&c.dir(2).join("wal"));
        c.disks[&2].remove_tree(&c.dir(2).join("snapshots"));
    })
    .await;
}

#[tokio::test]
async fn a_node_without_its_newest_segment_neither_votes_nor_leads() {
    lose("without its newest segment", |c| {
        let newest = segments(c, 2).pop().expect("a segment");
        c.disks[&2].remove_tree(&newest);
    })
    .await;
}

#[tokio::test]
async fn a_node_with_its_newest_segment_cut_short_neither_votes_nor_leads() {
    lose("cut short", |c| {
        let newest = segments(c, 2).pop().expect("a segment");
        c.disks[&2].truncate(&newest, 8 << 10).expect("cut");
    })
    .await;
}

#[tokio::test]
async fn a_node_with_its_newest_segment_emptied_neither_votes_nor_leads() {
    lose("emptied", |c| {
        let newest = segments(c, 2).pop().expect("a segment");
        c.disks[&2].truncate(&newest, 0).expect("cut");
    })
    .await;
}

/// Copied while the node was down, and started from the copy: the original may have promised more
/// since.
#[tokio::test]
async fn a_node_on_a_copied_directory_neither_votes_nor_leads_until_repaired() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    c.kill(2);
    let copy = c.disks[&2].fork();
    c.disks[&2].restore(&copy, true);
    c.up(2).await;
    let status = c.nodes[&2].group.status();
    assert!(status.stopped.as_deref().is_some_and(|why| why.contains("the directory was copied")), "{status:?}");
    // Known at the next start, too, though the new place is recorded by now.
    c.kill(2);
    c.up(2).await;
    let status = c.nodes[&2].group.status();
    assert!(status.stopped.as_deref().is_some_and(|why| why.contains("the directory was copied")), "{status:?}");
    c.reinstall(2).await;
    let at = c.propose(b"after").await;
    c.agree(at.index).await;
    c.until(2, "is repaired", |s| s.stopped.is_none() && !s.repairing).await;
    c.kill(2);
    c.up(2).await;
    assert_eq!(c.nodes[&2].group.status().stopped, None);
}

/// Groups that the log does not name may have been lost with it, until every group of the node is
/// known and repaired.
#[tokio::test]
async fn a_group_that_comes_after_all_others_were_repaired_begins_whole() {
    let later = GroupId(7);
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    c.kill(2);
    c.disks[&2].remove_tree(&c.dir(2).join("wal"));
    c.up(2).await;
    let node = c.nodes[&2].node.clone();
    node.has_all_of(&[G]).await.expect("nothing to do while the group is damaged");
    let early = node.start_group(GroupId(6), &c.addrs, Shared::default()).await.expect("started");
    assert!(early.status().stopped.is_some(), "it may have been there before");
    c.reinstall(2).await;
    let at = c.propose(b"after").await;
    c.agree(at.index).await;
    c.until(2, "is repaired", |s| s.stopped.is_none() && !s.repairing).await;
    node.has_all_of(&[G]).await.expect("the log takes it");
    let group = node.start_group(later, &c.addrs, Shared::default()).await.expect("started");
    assert_eq!(group.status().stopped, None);
    c.kill(2);
    c.up(2).await;
    let group = c.nodes[&2].node.start_group(later, &c.addrs, Shared::default()).await.expect("started");
    assert_eq!(group.status().stopped, None, "after a restart");
}
