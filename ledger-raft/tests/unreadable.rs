//! Committed entries that a state machine cannot decode: refused by all, or a stop of the replica that lacks the format; the process stays.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, MALFORMED, NEWER, PATIENCE, tuning};
use ledger_raft::disk::SimDisk;
use ledger_raft::{NodeId, ProposeError, ReadError, Role};

#[tokio::test]
async fn a_malformed_entry_is_refused_by_all_replicas_and_again_after_a_restart() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"before").await;
    let leader = c.leader().await;
    let refused = c.nodes[&leader].group.propose(Bytes::from_static(MALFORMED));
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("an answer").expect("a definite one");
    assert_eq!(refused.reply.downcast_ref::<&str>(), Some(&"refused"));
    let at = c.propose(b"after").await;
    let tally = c.agree(at.index).await;
    assert_eq!((tally.refused, tally.count), (1, 2));
    for node in c.nodes.values() {
        let status = node.group.status();
        assert_eq!((status.entries_refused, status.apply_halted, status.stopped), (1, None, None));
    }
    for id in 1..=3 {
        c.kill(id);
    }
    for id in 1..=3 {
        c.up(id).await;
    }
    let at = c.propose(b"after a restart").await;
    let tally = c.agree(at.index).await;
    assert_eq!((tally.refused, tally.count), (1, 3));
}

#[tokio::test]
async fn a_malformed_entry_waits_for_a_quorum_that_holds_the_same_bytes() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"before").await;
    let leader = c.leader().await;
    let proposed = c.nodes[&leader].group.propose(Bytes::from_static(MALFORMED));
    let refused = tokio::time::timeout(PATIENCE, proposed).await.expect("an answer").expect("a definite one");
    // What is committed is saved with the entries behind it, so that the replica that starts alone knows of it.
    c.agree(refused.at.index).await;
    for _ in 0..2 {
        let at = c.propose(b"behind").await;
        c.agree(at.index).await;
    }
    let alone = leader % 3 + 1;
    for id in 1..=3 {
        c.kill(id);
    }
    c.up(alone).await;
    let status = c.until(alone, "meets the entry again", |s| s.apply_halted.is_some()).await;
    assert!(status.apply_halted.as_deref().is_some_and(|why| why.contains("a quorum must hold the same bytes")));
    assert_eq!(status.stopped, None);
    c.up(alone % 3 + 1).await;
    let at = c.propose(b"after").await;
    let tally = c.agree(at.index).await;
    assert_eq!(tally.refused, 1);
}

#[tokio::test]
async fn a_replica_without_the_format_stops_applying_and_never_leads_until_its_build_knows_it() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"before").await;
    let old = c.leader().await;
    for id in (1..=3).filter(|id| *id != old) {
        c.kill(id);
        c.new_builds.insert(id);
        c.up(id).await;
    }
    // The leader lacks the format: it cannot say what came of the entry, and hands over.
    c.leader().await;
    let leads = c.leader().await;
    let proposed = c.nodes[&leads].group.propose(Bytes::from_static(NEWER));
    match tokio::time::timeout(PATIENCE, proposed).await.expect("an answer") {
        Err(ProposeError::Unknown { .. }) => assert_eq!(leads, old),
        Ok(_) => assert_ne!(leads, old),
        Err(other) => panic!("{other}"),
    }
    let status = c.until(old, "stops applying", |s| s.apply_halted.is_some() && s.role != Role::Leader).await;
    let why = status.apply_halted.expect("a reason");
    assert!(why.contains("format 2, this build knows 1"), "{why}");
    let at = c.propose(b"after").await;
    let known = c.until(old, "keeps its log", |s| s.last_log_index >= at.index).await;
    assert!(known.applied_index < at.index && known.stopped.is_none(), "{known:?}");
    let read = c.nodes[&old].group.read_index(PATIENCE).await;
    assert!(matches!(read, Err(ReadError::Stopped { .. })), "{read:?}");
    assert!(c.nodes[&old].group.propose(Bytes::new()).await.is_err());

    // Its vote still counts, and it is no candidate.
    let leader = c.leader().await;
    assert_ne!(leader, old);
    let other = (1..=3).find(|id| *id != leader && *id != old).expect("three nodes");
    let moved = c.nodes[&leader].group.transfer_leader(NodeId(old), Duration::from_secs(2)).await;
    assert!(moved.is_err(), "it must not lead");
    c.kill(leader);
    c.until(other, "is elected by its vote", |s| s.role == Role::Leader).await;
    c.up(leader).await;

    // The same build halts at the same entry again; a newer one goes on.
    c.kill(old);
    c.up(old).await;
    let again = c.until(old, "halts again", |s| s.apply_halted.is_some()).await;
    assert_eq!(again.apply_halted.as_deref(), Some(why.as_str()));
    c.kill(old);
    c.new_builds.insert(old);
    c.up(old).await;
    let at = c.propose(b"with the newer build").await;
    let tally = c.agree(at.index).await;
    assert_eq!(tally.refused, 0);
}

#[tokio::test]
async fn a_halted_group_holds_back_neither_snapshots_nor_the_shutdown() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"before").await;
    c.agree(at.index).await;
    let leader = c.leader().await;
    let _outcome = c.nodes[&leader].group.propose(Bytes::from_static(NEWER)).await;
    for id in 1..=3 {
        c.until(id, "halts", |s| s.apply_halted.is_some()).await;
        let built = tokio::time::timeout(PATIENCE, c.nodes[&id].group.snapshot_now()).await.expect("no hang");
        assert_eq!(built.expect("a snapshot of what is applied"), at.index);
    }
    for id in 1..=3 {
        let node = c.nodes[&id].node.clone();
        let stopping = c.nodes[&id].node.shutdown(Duration::from_millis(200));
        tokio::time::timeout(PATIENCE, stopping).await.expect("no hang");
        drop(node);
    }
    for id in 1..=3 {
        drop(c.nodes.remove(&id));
        c.new_builds.insert(id);
    }
    for id in 1..=3 {
        c.up(id).await;
    }
    let at = c.propose(b"all are new").await;
    assert_eq!(c.agree(at.index).await.count, 3);
}

/// Flips a bit of what a log holds, and makes its block's checksum right again.
fn forge(disk: &SimDisk, what: &[u8], byte: usize, bit: u8) {
    const BLOCK: usize = 512;
    let mut wal = disk.files().into_iter().filter(|f| f.to_string_lossy().contains("/wal/"));
    let found = wal.find_map(|file| {
        let content = disk.content(&file)?;
        let at = content.windows(what.len()).position(|window| window == what)?;
        Some((file, at))
    });
    let (file, at) = found.expect("a log file holds the entry");
    let block = (at + byte) / BLOCK;
    disk.flip_bit(&file, (at + byte) as u64, bit).expect("flipped");
    let content = disk.content(&file).expect("there");
    let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
    let sum = crc32c::crc32c_append(block as u32, &content[start + 4..end]).to_le_bytes();
    for (i, (was, is)) in content[start..start + 4].iter().zip(sum).enumerate() {
        for bit in (0..8).filter(|bit| (was ^ is) & (1 << bit) != 0) {
            disk.flip_bit(&file, (start + i) as u64, bit).expect("flipped");
        }
    }
}

/// The bytes of an entry in one replica's log are changed, checksums and all: what its memory may do, kept for the restart.
#[tokio::test]
async fn one_replica_with_other_bytes_is_not_believed_and_is_reinstalled() {
    other_bytes(false).await;
}

/// From a snapshot before the entry the replica would meet its own bytes again, and be reinstalled
/// for ever.
#[tokio::test]
async fn it_is_reinstalled_from_behind_the_bytes_that_are_wrong() {
    other_bytes(true).await;
}

async fn other_bytes(snapshots_before: bool) {
    let mut c = Cluster::start(3, tuning()).await;
    const GOOD: &[u8] = b"\xffmalformEd, or nearly so";
    let at = c.propose(b"before").await;
    c.agree(at.index).await;
    if snapshots_before {
        for node in c.nodes.values() {
            node.group.snapshot_now().await.expect("a snapshot");
        }
    }
    let wrong = c.propose(GOOD).await;
    let at = c.propose(b"after").await;
    c.agree(at.index).await;
    let bad = c.leader().await % 3 + 1;
    drop(c.nodes.remove(&bad));
    c.disks[&bad].kill();
    // 'E' and 'e' differ in one bit.
    forge(&c.disks[&bad], GOOD, 8, 5);

    c.up(bad).await;
    let status = c.until(bad, "is quarantined", |s| s.stopped.is_some()).await;
    let why = status.stopped.expect("a reason");
    assert!(why.contains("a quorum holds other bytes"), "{why}");
    // The reason outlives a restart, and so does where the repair has to begin; a node that is
    // killed before it recorded them asks its peers again.
    c.kill(bad);
    c.up(bad).await;
    c.until(bad, "is still quarantined", |s| s.stopped.is_some()).await;
    c.reinstall(bad).await;
    let at = c.propose(b"reinstalled").await;
    let status = c.until(bad, "goes on", |s| s.applied_index >= at.index || s.stopped.is_some()).await;
    assert_eq!(status.stopped, None);
    assert!(status.purged_index >= wrong.index, "it gives nobody the bytes that are wrong: {status:?}");
    let tally = c.agree(at.index).await;
    assert_eq!((tally.refused, tally.count), (0, 4));
}

/// While a peer that does not answer is asked for its bytes, the node stops: that says nothing of
/// its log.
#[tokio::test]
async fn a_node_that_stops_while_an_entry_is_settled_is_not_quarantined() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"before").await;
    c.agree(at.index).await;
    let leader = c.leader().await;
    let silent = leader % 3 + 1;
    c.kill(silent);
    // Connections to it are made, and nobody greets.
    let _silent = std::net::TcpListener::bind(c.addrs[&NodeId(silent)].as_str()).expect("its port is free");
    let group = c.nodes[&leader].group.clone();
    let proposed = tokio::spawn(group.propose(Bytes::from_static(MALFORMED)));
    let halted = c.until(leader, "meets the entry", |s| s.apply_halted.is_some() || s.stopped.is_some()).await;
    assert_eq!(halted.stopped, None);
    c.nodes[&leader].node.shutdown(Duration::ZERO).await;
    drop(proposed.await);
    // Whoever settles it has given that peer up by then. The mark is looked for on the disk, as
    // nobody announces it.
    let disk = c.disks[&leader].clone();
    let marked = async {
        while !disk.files().iter().any(|file| file.to_string_lossy().ends_with(".quarantined")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(3), marked).await.is_err(), "the replica is healthy");
    c.kill(leader);
    c.up(leader).await;
    assert_eq!(c.nodes[&leader].group.status().stopped, None);
    let at = c.propose(b"after").await;
    c.until(leader, "goes on", |s| s.applied_index >= at.index).await;
}
