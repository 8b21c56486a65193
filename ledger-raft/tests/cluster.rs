//! Three replicas of one group: elect, replicate, lose a leader, recover, catch up, read, transfer, refuse, shut down.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, G, PATIENCE, tuning};
use futures::StreamExt;
use ledger_raft::disk::SimDiskChange;
use ledger_raft::{NodeId, ProposeError, Role};

#[tokio::test]
async fn elects_and_replicates_in_order_pipelined() {
    let c = Cluster::start(3, tuning()).await;
    let leader = c.leader().await;
    let group = c.nodes[&leader].group.clone();
    const N: u64 = 10_000;
    let mut proposals =
        futures::stream::iter((0..N).map(|i| group.propose(Bytes::from(i.to_le_bytes().to_vec())))).buffered(256);
    let (mut last, mut expect) = (ledger_raft::LogPosition::default(), 0);
    let mut stamp = 0;
    while let Some(done) = proposals.next().await {
        let done = done.unwrap();
        assert!(done.at > last && done.stamp_ms >= stamp, "{done:?} after {last:?}");
        (last, stamp) = (done.at, done.stamp_ms);
        expect += 1;
        assert_eq!(*done.reply.downcast::<u64>().unwrap(), expect, "replies come from this entry's apply");
    }
    assert_eq!(c.agree(last.index).await.count, N);
    let follower = c.nodes.keys().find(|id| **id != leader).unwrap();
    let refused = c.nodes[follower].group.propose(Bytes::new()).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { group: G, leader: Some(NodeId(leader)) });
    let raw = c.nodes[follower].group.read_entries(1, last.index, 1 << 20).await.unwrap();
    assert_eq!(raw.len() as u64, N, "entries of Raft itself are left out");
    assert_eq!(raw[5].2, Bytes::from(5u64.to_le_bytes().to_vec()));
}

#[tokio::test]
async fn looking_at_a_group_from_other_threads_never_stops_it() {
    let c = Cluster::start(1, tuning()).await;
    let leader = c.leader().await;
    let group = c.nodes[&leader].group.clone();
    let over = Arc::new(AtomicBool::new(false));
    let look = || {
        let (group, over) = (group.clone(), over.clone());
        let looks = move || {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(group.status().role, Role::Leader);
            }
        };
        std::thread::Builder::new().spawn(looks).expect("a thread")
    };
    let looking = [look(), look()];
    let proposals = (0..20_000u64).map(|i| group.propose(Bytes::from(i.to_le_bytes().to_vec())));
    let all = futures::stream::iter(proposals).buffered(64).for_each(|done| async move { assert!(done.is_ok()) });
    tokio::time::timeout(PATIENCE, all).await.expect("it goes on");
    over.store(true, Ordering::Relaxed);
    for thread in looking {
        thread.join().expect("it ends");
    }
}

#[tokio::test]
async fn survives_a_killed_leader_and_takes_it_back() {
    let mut c = Cluster::start(3, tuning()).await;
    for i in 0..50u8 {
        c.propose(&[i]).await;
    }
    let old = c.leader().await;
    c.kill(old);
    let mut at = c.propose(b"after").await;
    for i in 0..50u8 {
        at = c.propose(&[i]).await;
    }
    assert_eq!(c.agree(at.index).await.count, 101);
    c.up(old).await;
    assert_eq!(c.agree(at.index).await.count, 101, "the old leader came back with the same log");
}

#[tokio::test]
async fn all_killed_at_once_keep_every_acknowledged_entry() {
    let mut c = Cluster::start(3, tuning()).await;
    let mut at = c.propose(b"0").await;
    for i in 1..200u32 {
        at = c.propose(&i.to_le_bytes()).await;
    }
    for id in 1..=3 {
        c.kill(id);
    }
    for id in 1..=3 {
        c.up(id).await;
    }
    let more = c.propose(b"again").await;
    assert!(more > at);
    assert_eq!(c.agree(more.index).await.count, 201);
}

#[tokio::test]
async fn a_follower_that_missed_the_purged_log_gets_a_snapshot() {
    let mut c =
        Cluster::start(3, ledger_raft::RaftTuning { snapshot_every_entries: 200, keep_entries: 10, ..tuning() }).await;
    c.propose(b"first").await;
    let leader = c.leader().await;
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    c.kill(behind);
    let big = vec![b'x'; 2000];
    let mut at = c.propose(b"x").await;
    for _ in 0..600 {
        at = c.propose(&[b"pad", &big[..]].concat()).await;
    }
    let leader = c.leader().await;
    let n = &c.nodes[&leader].group;
    // Two snapshots must cover what is purged, so that the older can stand in for the newer.
    n.snapshot_now().await.unwrap();
    c.propose(b"between").await;
    n.snapshot_now().await.unwrap();
    c.until(leader, "purged", |s| s.purged_index > 100).await;
    c.up(behind).await;
    at = at.max(c.propose(b"last").await);
    let t = c.agree(at.index).await;
    assert_eq!(t.count, 604);
    let caught_up = c.until(behind, "a snapshot", |s| s.snapshot_index > 100).await;
    assert!(caught_up.purged_index > 100);
    // And what it installed serves a restart.
    c.kill(behind);
    c.up(behind).await;
    c.agree(at.index).await;
}

#[tokio::test]
async fn reads_are_linearizable_everywhere() {
    let c = Cluster::start(3, tuning()).await;
    for i in 0..30u64 {
        let at = c.propose(&i.to_le_bytes()).await;
        let reads = c.nodes.values().map(|n| async {
            let index = n.group.read_index(PATIENCE).await.unwrap();
            assert!(index >= at.index, "a read at {index} began after {at:?}");
            assert_eq!(n.state.get().count, i + 1);
        });
        futures::future::join_all(reads).await;
    }
    // Many at once share rounds.
    let n = &c.nodes[&1].group;
    let all = futures::future::join_all((0..2_000).map(|_| n.read_index(PATIENCE))).await;
    assert!(all.into_iter().all(|r| r.is_ok()));
}

#[tokio::test]
async fn leadership_is_transferred_and_handed_over_at_shutdown() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"a").await;
    let old = c.leader().await;
    let to = old % 3 + 1;
    c.nodes[&old].group.transfer_leader(NodeId(to), PATIENCE).await.unwrap();
    c.propose(b"b").await;
    assert_eq!(c.leader().await, to);
    let status = c.nodes[&to].group.status();
    c.nodes[&to].node.shutdown(Duration::from_secs(20)).await;
    assert_eq!(c.nodes[&to].group.status().role, Role::Stopped);
    assert!(matches!(c.nodes[&to].group.propose(Bytes::new()).await, Err(ProposeError::Stopped { .. })));
    c.nodes.remove(&to);
    let new = c.leader().await;
    c.until(new, "leads a newer term", |s| s.term > status.term).await;
    let at = c.propose(b"c").await;
    assert_eq!(c.agree(at.index).await.count, 3);
}

#[tokio::test]
async fn strangers_are_refused_and_peers_answer_questions() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"a").await;
    let one = &c.nodes[&1].node;
    let answer = one.ask_peer(NodeId(2), &c.addrs[&NodeId(2)], Bytes::from_static(b"hi"), PATIENCE).await.unwrap();
    assert_eq!(answer, Bytes::from_static(b"1:hi"));
    let nobody = one.ask_peer(NodeId(9), "127.0.0.1:1", Bytes::new(), Duration::from_secs(5)).await;
    assert!(nobody.is_err());
    c.agree(at.index).await;
    // A node of another cluster at the same address gets no word in.
    c.kill(3);
    c.disks.insert(3, ledger_raft::disk::SimDisk::new(33));
    let (runtime, stranger) = c.open(3, [8; 16]).await;
    let stranger = stranger.unwrap();
    let (addr, s) = (c.addrs[&NodeId(1)].clone(), stranger.clone());
    let e = runtime
        .spawn(async move { s.ask_peer(NodeId(1), &addr, Bytes::new(), Duration::from_secs(5)).await })
        .await
        .unwrap()
        .unwrap_err();
    assert!(e.to_string().contains("another cluster"), "{e}");
    c.propose(b"b").await;
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_quarantined_replica_stays_stopped_until_reinstalled() {
    let mut c = Cluster::start(3, tuning()).await;
    for i in 0..20u8 {
        c.propose(&[i]).await;
    }
    let leader = c.leader().await;
    let bad = leader % 3 + 1;
    c.nodes[&bad].group.quarantine("its digest differs".into(), 0).await;
    assert_eq!(c.nodes[&bad].group.status().role, Role::Stopped);
    c.kill(bad);
    c.up(bad).await;
    let status = c.nodes[&bad].group.status();
    assert!(status.stopped.unwrap().contains("its digest differs"), "it outlives a restart");
    let at = c.propose(b"meanwhile").await;
    c.reinstall(bad).await;
    assert_eq!(c.agree(at.index).await.count, 21);
}

/// What is written of members is read back: by followers, at the next start, from a snapshot.
#[tokio::test]
async fn members_that_could_not_be_read_back_are_refused() {
    let c = Cluster::start(3, tuning()).await;
    c.propose(b"first").await;
    let leader = c.leader().await;
    let group = &c.nodes[&leader].group;
    let long = std::collections::BTreeMap::from([(NodeId(2), "a".repeat(513))]);
    let refused = group.set_addresses(&long, PATIENCE).await.expect_err("one byte too long");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(group.initialize(long).await.expect_err("here as well").kind(), std::io::ErrorKind::InvalidInput);
    let many = (1..=65).map(|id| (NodeId(id), format!("node{id}:1"))).collect();
    assert_eq!(group.initialize(many).await.expect_err("one too many").kind(), std::io::ErrorKind::InvalidInput);
    let at = c.propose(b"the group goes on").await;
    c.agree(at.index).await;
}

/// However many ask for a snapshot at once, others wait for two at most.
#[tokio::test]
async fn snapshots_that_are_asked_for_at_once_are_shared() {
    let c = Cluster::start(1, tuning()).await;
    let at = c.propose(b"first").await.index;
    let built = Arc::<AtomicU64>::default();
    let counted = built.clone();
    c.disks[&1].observe(Arc::new(move |change: SimDiskChange<'_>| {
        if matches!(change, SimDiskChange::Rename { to, .. } if to.extension().is_some_and(|name| name == "snap")) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let group = &c.nodes[&1].group;
    let indexes = futures::future::join_all((0..50).map(|_| group.snapshot_now())).await;
    assert!(indexes.into_iter().all(|index| index.expect("a snapshot") >= at));
    assert_eq!(built.load(Ordering::Relaxed), 1, "all had asked before it began");
    group.snapshot_now().await.expect("a snapshot");
    assert_eq!(built.load(Ordering::Relaxed), 2, "one that comes later has its own");
}
