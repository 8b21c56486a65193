//! `cluster init` that meets other inits, other numbers and disks that fail: one cluster comes of it, or a word that says what to mend.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger_core::{Outcome, Settled};
use ledger_node::NodeState;
use ledger_node::node::AdminError;
use ledger_proto::v1;
use ledger_raft::disk::SimDisk;
use tokio::time::Instant;

use crate::common::{Cluster, PATIENCE, create, in_memory, receive};

/// Init through a node, repeated as long as it says *not now*.
async fn init_until_done(cluster: &Cluster, through: usize) -> v1::InitResponse {
    let until = Instant::now() + PATIENCE;
    loop {
        match cluster.init(through, 1).await {
            Ok(done) => return done,
            Err(AdminError::NotNow(why)) => assert!(Instant::now() < until, "node {} still says: {why}", through + 1),
            Err(other) => panic!("through node {}: {other}", through + 1),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn inits_through_all_nodes_at_once_make_one_cluster() {
    let cluster = Cluster::empty(|i, _, seams| drop(in_memory(seams, i as u64))).await;
    let all = futures::future::join_all((0..3).map(|i| init_until_done(&cluster, i))).await;
    let ids: BTreeSet<_> = all.iter().map(|done| done.cluster.clone()).collect();
    assert_eq!(ids.len(), 1, "{all:?}");
    for i in 0..3 {
        assert_eq!(cluster.node(i).cluster(), cluster.node(0).cluster(), "node {}", i + 1);
    }
    cluster.ask(create("shoe")).await;
}

#[tokio::test]
async fn swapped_node_ids_are_named_and_leave_every_node_empty() {
    // As configured, nodes 2 and 3 are the other way round.
    let cluster = Cluster::empty(|i, config, seams| {
        drop(in_memory(seams, i as u64));
        config.node_id = Some([1, 3, 2][i]);
    })
    .await;
    let refused = cluster.init(0, 1).await;
    let Err(AdminError::Invalid(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("node 2 at") && why.contains("node_id = 3"), "{why}");
    for i in 0..3 {
        assert_eq!(cluster.node(i).state(), NodeState::Uninitialised, "node {}", i + 1);
    }
}

#[tokio::test]
async fn a_node_that_cannot_open_its_log_is_named_and_joins_when_the_command_is_repeated() {
    for broken in 0..3 {
        let mut disks: Vec<SimDisk> = Vec::new();
        let cluster = Cluster::empty(|i, _, seams| disks.push(in_memory(seams, i as u64))).await;
        // Room for the stamp, and none for the log.
        disks[broken].set_capacity(disks[broken].used_bytes() + (64 << 10));
        let failed = cluster.init(0, 1).await;
        let Err(AdminError::Failed(why)) = &failed else { panic!("{failed:?}") };
        assert!(why.contains("log"), "{why}");
        assert_eq!(broken == 0, !why.contains(&format!("node {} at", broken + 1)), "who it was: {why}");
        disks[broken].set_capacity(1 << 40);
        // Through another node than before, too.
        let done = init_until_done(&cluster, (broken + 1) % 3).await;
        assert_eq!(done.members.len(), 3);
        for i in 0..3 {
            assert_eq!(cluster.node(i).cluster(), cluster.node(0).cluster(), "node {}", i + 1);
        }
        cluster.ask(create("shoe")).await;
    }
}

#[tokio::test]
async fn more_members_than_a_cluster_can_have_are_refused_before_anything_is_asked() {
    let cluster = Cluster::empty(|i, _, seams| drop(in_memory(seams, i as u64))).await;
    let mut members = cluster.members();
    members.extend((4..=6).map(|node| v1::Member { node, client: format!("nobody-{node}:1"), ..Default::default() }));
    let refused = cluster.node(0).init(v1::InitRequest { members, shards: 1, replicas: 0 }).await;
    let Err(AdminError::Invalid(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("1 to 5 members, 6 were named"), "{why}");
    assert_eq!(cluster.node(0).state(), NodeState::Uninitialised);
}

/// One data directory is a copy of the other: whichever comes back empty would pass for the other.
#[tokio::test]
async fn a_plan_with_two_members_on_one_disk_is_refused() {
    let cluster = Cluster::empty(|i, _, seams| drop(in_memory(seams, i as u64))).await;
    let disk = |node: u64| vec![if node == 3 { 2 } else { node as u8 }; 16].into();
    let members = cluster.members().into_iter().map(|m| v1::Member { disk: disk(m.node), ..m }).collect();
    let join = v1::JoinRequest { node: 1, cluster: vec![7; 16].into(), incarnation: 1, members, ..Default::default() };
    let refused = cluster.node(0).join(join).await;
    let Err(AdminError::Refused(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("nodes 2 and 3 have the same disk id") && why.contains("empty both"), "{why}");
    assert_eq!(cluster.node(0).state(), NodeState::Uninitialised);
}

/// Node 1 lags, nodes 2 and 3 have acknowledged, node 2 comes back empty and the operator repeats
/// the command.
#[tokio::test]
async fn init_repeated_after_a_member_lost_its_disk_is_refused_by_name() {
    let mut disks = Vec::new();
    let mut cluster = Cluster::start(1, |i, _, seams| disks.push(in_memory(seams, i as u64))).await;
    cluster.ask(create("shoe")).await;
    let members = cluster.members();
    cluster.keep_ports(1);
    cluster.stop(0).await;
    let receipt = receive("shoe", 5, "delivery-1");
    let first = cluster.ask(receipt.clone()).await;
    assert!(matches!(first, Outcome::Ok(Settled::Stocked { replayed: false, .. })), "{first:?}");
    cluster.stop_all().await;
    disks[1].wipe();
    cluster.restart_later(0).await;
    cluster.restart_later(1).await;
    assert_eq!(cluster.node(1).state(), NodeState::Uninitialised);
    for through in [0, 1] {
        let refused =
            cluster.node(through).init(v1::InitRequest { members: members.clone(), shards: 1, replicas: 0 }).await;
        let Err(AdminError::Refused(why)) = &refused else { panic!("through node {}: {refused:?}", through + 1) };
        assert!(why.contains("node 2 of this cluster has the disk") && why.contains("start node 2 on"), "{why}");
        assert_eq!(cluster.node(1).state(), NodeState::Uninitialised, "through node {}", through + 1);
    }
    // What was acknowledged lies on node 3.
    cluster.restart_later(2).await;
    let again = cluster.ask(receipt).await;
    assert!(matches!(again, Outcome::Ok(Settled::Stocked { replayed: true, .. })), "{again:?}");
}
