//! Disks without a free byte: nodes start, elect and read, nothing is taken for damage, and leadership stays where it is.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, PATIENCE, tuning};
use ledger_raft::{NodeId, ProposeError, RaftTuning, Role};

/// Below this many free bytes appends are withheld.
const LOW: u64 = 1 << 20;

/// Three nodes with some entries; no disk has a byte to give any more.
async fn full(tuning: RaftTuning) -> Cluster {
    let c = Cluster::start(3, RaftTuning { low_space_bytes: LOW, ..tuning }).await;
    let mut last = 0;
    for i in 0..20u8 {
        last = c.propose(&[i; 1_000]).await.index;
    }
    c.agree(last).await;
    fill(&c).await;
    c
}

/// Takes every free byte of the disks, again and again: nodes give spare segments back when space is low.
async fn fill(c: &Cluster) {
    for (id, node) in &c.nodes {
        let disk = &c.disks[id];
        let is_low = async {
            loop {
                disk.set_capacity(disk.used_bytes());
                if node.node.low_space() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, is_low).await.expect("it notices that its disk is full");
    }
}

async fn refuses_writes(c: &Cluster) {
    let leader = c.leader().await;
    let refused = c.nodes[&leader].group.propose(Bytes::from_static(b"more")).await;
    assert!(matches!(refused, Err(ProposeError::LowSpace)), "{refused:?}");
}

/// Some node leads and confirms that it does: a read is answered.
async fn reads(c: &Cluster) -> u64 {
    let read = async {
        loop {
            let leader = c.leader().await;
            if c.nodes[&leader].group.read_index(PATIENCE).await.is_ok() {
                return leader;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a read is answered")
}

/// Each node hears of the leader anew, several times: a follower by its heartbeats, the leader by a
/// quorum's answers to them. One that does not is about to be deposed.
async fn follows_on(c: &Cluster) {
    let heard = |id: &u64| c.nodes[id].group.status().leader_heard_ms.unwrap_or(u64::MAX);
    let anew = c.nodes.keys().map(|id| async move {
        let (mut before, mut times) = (heard(id), 0);
        while times < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = heard(id);
            times += u32::from(now < before);
            before = now;
        }
    });
    tokio::time::timeout(PATIENCE, futures::future::join_all(anew)).await.expect("all follow the leader");
}

#[tokio::test]
async fn nodes_with_full_disks_keep_their_leader_and_read() {
    // Longer than a busy machine stalls.
    let patient = RaftTuning { election_min: Duration::from_secs(3), election_max: Duration::from_secs(4), ..tuning() };
    let c = full(patient).await;
    let leader = reads(&c).await;
    let term = c.nodes[&leader].group.status().term;
    refuses_writes(&c).await;
    follows_on(&c).await;
    assert_eq!(reads(&c).await, leader);
    for node in c.nodes.values() {
        let status = node.group.status();
        assert_eq!((status.term, status.leader, status.stopped), (term, Some(NodeId(leader)), None));
    }
}

#[tokio::test]
async fn nodes_that_restart_on_full_disks_elect_and_read_and_have_all_they_had() {
    let mut c = full(tuning()).await;
    let before = c.any().state.get();
    // More often than there are spare segments.
    for _ in 0..4 {
        (1..=3).for_each(|id| c.kill(id));
        c.disks.values().for_each(|disk| disk.set_capacity(disk.used_bytes()));
        for id in 1..=3 {
            c.up(id).await;
        }
        fill(&c).await;
        let leader = reads(&c).await;
        assert_eq!(c.nodes[&leader].state.get(), before);
        refuses_writes(&c).await;
        assert!(c.nodes.values().all(|node| node.group.status().stopped.is_none()));
    }
    c.disks.values().for_each(|disk| disk.set_capacity(u64::MAX));
    let at = c.propose(b"there is space again").await;
    c.agree(at.index).await;
}

#[tokio::test]
async fn a_follower_with_a_full_disk_restarts_and_holds_up_nobody() {
    let tuning = RaftTuning { low_space_bytes: LOW, ..tuning() };
    let mut c = Cluster::start_with(3, tuning, BTreeMap::new()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let leader = c.leader().await;
    let follower = leader % 3 + 1;
    // A quorum has space: the one that has none is no hindrance, also after its restart.
    let full = &c.disks[&follower];
    full.set_capacity(full.used_bytes());
    c.kill(follower);
    c.up(follower).await;
    for i in 0..10u8 {
        c.propose(&[i; 100]).await;
    }
    assert_eq!(c.nodes[&leader].group.status().role, Role::Leader);
}
