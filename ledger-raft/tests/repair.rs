//! A replica whose log lost something is repaired from its peers, and votes again only past all it may have acknowledged.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{Cluster, tuning};
use ledger_raft::Role;

#[tokio::test]
async fn a_damaged_log_stops_the_replica_and_a_peer_repairs_it() {
    let mut c = Cluster::start(3, tuning()).await;
    for i in 0..100u8 {
        c.propose(&[i; 100]).await;
    }
    let leader = c.leader().await;
    let bad = leader % 3 + 1;
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
    drop(c.nodes.remove(&bad));
    c.disks[&bad].kill();
    rot_the_log(&c, bad);

    c.up(bad).await;
    let status = c.nodes[&bad].group.status();
    assert_eq!(status.role, Role::Stopped);
    assert!(status.stopped.as_deref().unwrap().contains("its log is damaged"), "{status:?}");
    let at = c.propose(b"meanwhile").await;
    assert!(c.nodes[&bad].group.status().applied_index < at.index);

    let from = c.leader().await;
    let term = c.nodes[&from].group.status().term;
    c.reinstall(bad).await;
    let at = c.propose(b"after").await;
    c.agree(at.index).await;
    let now = c.until(bad, "follows a leader of a newer term", |s| s.term > term).await;
    assert!(now.stopped.is_none());

    // It votes again: without the other follower it is half of the quorum.
    let leader = c.leader().await;
    let other = (1..=3).find(|id| *id != leader && *id != bad).unwrap();
    c.kill(other);
    let at = c.propose(b"with its vote").await;
    c.kill(leader);
    c.up(other).await;
    let more = c.propose(b"it may even lead").await;
    assert!(more > at);
    c.agree(more.index).await;
    // The damage is gone for good.
    c.kill(bad);
    c.up(bad).await;
    assert!(c.nodes[&bad].group.status().stopped.is_none());
    c.agree(more.index).await;
}

/// What was acknowledged under the repair may be lost with it: the term that the repair waits for says nothing of that.
#[tokio::test]
async fn a_log_that_rots_again_under_its_repair_is_repaired_from_the_beginning() {
    let mut c = Cluster::start(3, tuning()).await;
    for i in 0..100u8 {
        c.propose(&[i; 100]).await;
    }
    let bad = c.leader().await % 3 + 1;
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
    drop(c.nodes.remove(&bad));
    c.disks[&bad].kill();
    rot_the_log(&c, bad);
    c.up(bad).await;
    let before = wal_files(&c, bad);
    c.reinstall(bad).await;
    // Long before the election that the repair waits for.
    c.kill(bad);
    let first_write = |(file, old): (&PathBuf, &Vec<u8>)| {
        let new = c.disks[&bad].content(file)?;
        let changed = old.iter().zip(&new).position(|(old, new)| old != new);
        Some((file.clone(), changed? as u64))
    };
    let (file, at) = before.iter().find_map(first_write).expect("the log was emptied and a vote saved");
    c.disks[&bad].flip_bit(&file, at + 1, 2).unwrap();

    // Known still when the first start after it found it and died.
    for start in 0..2 {
        c.up(bad).await;
        let status = c.nodes[&bad].group.status();
        assert_eq!(status.role, Role::Stopped, "start {start}");
        assert!(status.stopped.as_deref().unwrap().contains("its log is damaged"), "{status:?}");
        if start == 0 {
            c.kill(bad);
        }
    }
    c.reinstall(bad).await;
    let at = c.propose(b"after").await;
    c.agree(at.index).await;

    // It votes again.
    let leader = c.leader().await;
    let other = (1..=3).find(|id| *id != leader && *id != bad).unwrap();
    c.kill(other);
    let at = c.propose(b"with its vote").await;
    c.agree(at.index).await;
}

/// Each answers the other as damaged, and the three whole ones are a quorum.
#[tokio::test]
async fn two_damaged_replicas_of_five_repair_each_without_the_other_whole() {
    let mut c = Cluster::start(5, tuning()).await;
    for i in 0..20u8 {
        c.propose(&[i; 100]).await;
    }
    let leader = c.leader().await;
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
    let damaged = [leader % 5 + 1, (leader + 1) % 5 + 1];
    for id in damaged {
        c.kill(id);
        c.disks[&id].remove_tree(&c.dir(id).join("wal"));
    }
    for id in damaged {
        c.up(id).await;
        assert_eq!(c.nodes[&id].group.status().role, Role::Stopped);
    }
    for id in damaged {
        c.reinstall(id).await;
    }
    let at = c.propose(b"after").await;
    for id in damaged {
        c.until(id, "is repaired", |s| s.stopped.is_none() && !s.repairing).await;
    }
    c.agree(at.index).await;
}

/// What the damaged one acknowledged may lie on the one that is away: nobody may lead before it is
/// back.
#[tokio::test]
async fn one_damaged_of_three_and_one_away_stays_unavailable_and_names_it() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    (1..=3).for_each(|id| c.kill(id));
    c.disks[&2].remove_tree(&c.dir(2).join("wal"));
    c.up(1).await;
    c.up(2).await;
    let why = c.try_reinstall(2, 1).await.expect_err("node 3 is away").to_string();
    assert!(why.contains("node 3 must answer"), "{why}");
    let status = c.until(2, "declines votes", |s| s.votes_declined >= 2).await;
    let stopped = status.stopped.expect("a reason");
    assert!(stopped.contains("its log is damaged") && stopped.contains("node 3 must answer"), "{stopped}");
    assert_ne!(c.nodes[&1].group.status().role, Role::Leader);

    // Node 3 is back, but damaged as well: two of three cannot vouch for what both of them may have
    // acknowledged.
    c.disks[&3].remove_tree(&c.dir(3).join("wal"));
    c.up(3).await;
    let why = c.try_reinstall(2, 1).await.expect_err("node 3 is damaged").to_string();
    assert!(why.contains("node 3 are damaged as well"), "{why}");
}

fn wal_files(c: &Cluster, id: u64) -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = &c.disks[&id];
    let wal = disk.files().into_iter().filter(|f| f.to_string_lossy().contains("/wal/"));
    wal.map(|file| (file.clone(), disk.content(&file).unwrap())).collect()
}

/// Flips a bit in the middle of what was written last.
fn rot_the_log(c: &Cluster, id: u64) {
    let disk = &c.disks[&id];
    let wal: Vec<_> = disk.files().into_iter().filter(|f| f.to_string_lossy().contains("/wal/")).collect();
    for f in wal {
        let content = disk.content(&f).unwrap();
        // Entries repeat a byte a hundred times; the fiftieth of them lies well before the tail.
        if let Some(at) = content.windows(100).position(|w| w == [50u8; 100]) {
            disk.flip_bit(&f, at as u64 + 40, 3).unwrap();
            return;
        }
    }
    panic!("no log file holds the entry");
}
