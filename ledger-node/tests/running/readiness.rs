//! Readiness and status are about now: a leader that is remembered is none, a replica that lags is
//! behind, and what a node waits for has a name.

use std::fs;

use ledger_node::limits::READY_AGE_MAX;
use ledger_proto::{Cause, Reply, v1};
use ledger_raft::{GroupStatus, Role};
use tokio::time::timeout;

use crate::common::net::{Cut, CutNet};
use crate::common::{Cluster, PATIENCE, create, in_memory, receive};

/// Three nodes with one shard, all ready, on networks that can be cut.
async fn cuttable() -> (Cluster, Vec<CutNet>) {
    let mut nets = Vec::new();
    let cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
        let net = CutNet::default();
        seams.raft.net = std::sync::Arc::new(net.clone());
        nets.push(net);
    })
    .await;
    cluster.ask(create("shoe")).await;
    for i in 0..3 {
        cluster.ready(i).await;
    }
    (cluster, nets)
}

async fn status(cluster: &Cluster, i: usize) -> v1::NodeStatusResponse {
    cluster.admin(i).await.node_status(v1::NodeStatusRequest {}).await.expect("answered").into_inner()
}

fn group_status(cluster: &Cluster, i: usize) -> GroupStatus {
    cluster.node(i).shard(1).expect("a replica").status()
}

#[tokio::test]
async fn a_remembered_leader_that_is_silent_makes_a_node_unready() {
    let (cluster, nets) = cuttable().await;
    let (leader, _) = cluster.leader(1).await;
    let alone = (leader + 1) % 3;
    nets[alone].cut(Cut::All);
    cluster.readiness(alone, "without a leader", |s, text| s == 503 && text.contains("[-]shard-1-leader failed")).await;
    let remembered = group_status(&cluster, alone);
    assert_eq!(remembered.leader.map(|id| id.0), Some(leader as u64 + 1), "it remembers the leader: {remembered:?}");

    let others: Vec<String> = (0..3).filter(|i| *i != alone).map(|i| format!("node {} ", i + 1)).collect();
    let named = |text: &str| {
        let line = text.lines().find(|line| line.contains("shard-1-leader")).unwrap_or_default();
        line.contains("no quorum") && others.iter().all(|other| line.contains(other.as_str()))
    };
    cluster.readiness(alone, "saying who is missing", |_, text| named(text)).await;
    let answer = status(&cluster, alone).await;
    assert!(answer.failed_checks.iter().any(|check| check.name == "shard-1-leader" && !check.warning), "{answer:?}");
    let shard = &answer.shards[0];
    assert!(shard.no_quorum_for_ms.is_some() && shard.leader_heard_ms.is_some(), "{shard:?}");
    assert_eq!(shard.missing.len(), 2, "{shard:?}");
    assert_eq!(cluster.node(alone).leader_of(1), None, "it names nobody to callers");
    for i in (0..3).filter(|i| *i != alone) {
        cluster.ready(i).await;
    }
}

#[tokio::test]
async fn a_leader_that_no_quorum_follows_takes_nothing_and_says_who_is_missing() {
    let (cluster, nets) = cuttable().await;
    let (leader, replica) = cluster.leader(1).await;
    nets[leader].cut(Cut::All);
    let mut seen = replica.status();
    let lost = timeout(PATIENCE, async {
        while seen.no_quorum.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            seen = replica.status();
        }
    });
    lost.await.expect("it notices");
    assert_eq!(seen.role, Role::Leader, "nobody has deposed it: {seen:?}");
    let until = tokio::time::Instant::now() + PATIENCE;
    let (_, _, answer) = replica.door().ask(receive("shoe", 1, "r1"), until).await;
    let ledger_node::door::Answer::NotNow(why) = answer else { panic!("taken: {answer:?}") };
    assert_eq!(why.code, v1::NotNowCode::NoQuorum, "{why:?}");
    assert!(why.message.contains("shard 1 has no quorum"), "{why:?}");
    cluster.readiness(leader, "unready", |s, text| s == 503 && text.contains("shard-1-leader failed: no quorum")).await;
}

#[tokio::test]
async fn nodes_without_a_quorum_are_ready_and_take_calls_once_their_network_is_back() {
    let (cluster, nets) = cuttable().await;
    let (leader, _) = cluster.leader(1).await;
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for i in [leader, others[0]] {
        nets[i].cut(Cut::All);
    }
    for i in 0..3 {
        let lost = |status: u16, text: &str| status == 503 && text.contains("shard-1-leader failed: no quorum (");
        cluster.readiness(i, "without a quorum", lost).await;
        let reply = cluster.submit(i, &receive("shoe", 1, "r1"), 2_000).await;
        let Reply::NotNow(why) = &reply else { panic!("node {}: {reply:?}", i + 1) };
        assert_eq!(why.cause, Cause::NoQuorum, "{why:?}");
    }
    for i in [leader, others[0]] {
        nets[i].cut(Cut::Nothing);
    }
    for i in 0..3 {
        cluster.ready(i).await;
        let reply = cluster.submit_until_settled(i, &receive("shoe", 1, &format!("healed-{i}"))).await;
        assert!(matches!(reply, Reply::Ok(_)), "node {}: {reply:?}", i + 1);
        assert_eq!(group_status(&cluster, i).no_quorum, None, "node {}", i + 1);
    }
}

#[tokio::test]
async fn a_replica_that_lags_for_ever_makes_a_node_unready() {
    let (cluster, nets) = cuttable().await;
    let (leader, _) = cluster.leader(1).await;
    let behind = (leader + 1) % 3;
    nets[leader].cut(Cut::Bulk(cluster.peer_addr(behind)));
    cluster.ask(receive("shoe", 1, "r1")).await;
    let lags = |status: u16, text: &str| status == 503 && text.contains("[-]shard-1-age failed");
    let text = cluster.readiness(behind, "behind", lags).await;
    assert!(text.contains("[+]shard-1-leader ok"), "it hears its leader all the time: {text}");
    let answer = status(&cluster, behind).await;
    let shard = &answer.shards[0];
    assert!(u128::from(shard.age_ms.unwrap_or(0)) > READY_AGE_MAX.as_millis(), "{shard:?}");
}

#[tokio::test]
async fn a_node_that_starts_without_peers_says_what_it_waits_for() {
    let mut disks = Vec::new();
    let mut cluster = Cluster::start(1, |i, _, seams| disks.push(in_memory(seams, i as u64))).await;
    cluster.stop_all().await;
    // It knows neither members nor shards before its peers have repaired it.
    disks[0].remove_tree(&cluster.dirs[0].path().join("wal"));
    cluster.restart_later(0).await;
    let mut waits = cluster.node(0).watch_waiting_for();
    let waits = timeout(PATIENCE, waits.wait_for(|what| what.as_ref().is_some_and(|what| what.contains("node 2"))));
    let what = waits.await.expect("it says").expect("it lives").clone().expect("something");
    assert!(what.starts_with("the meta group, whose replica here is stopped"), "{what}");
    let text = cluster.readiness(0, "starting", |status, text| status == 503 && text.contains("waits for")).await;
    assert!(text.contains("[-]serving failed: the node is starting, and waits for the meta group"), "{text}");
    let answer = status(&cluster, 0).await;
    assert_eq!(answer.state, "starting");
    assert!(answer.waiting_for.contains("node 2"), "{answer:?}");
}

#[tokio::test]
async fn a_shard_that_does_not_run_here_is_named_with_the_reason() {
    let mut cluster = Cluster::start(2, |_, _, _| {}).await;
    cluster.stop(0).await;
    // As a disk that cannot read one file.
    let in_the_way = cluster.dirs[0].path().join("snapshots").join("g2-1-1.snap");
    fs::create_dir_all(&in_the_way).expect("made");
    cluster.restart_later(0).await;
    let named = |status: u16, text: &str| {
        status == 503 && text.contains("[-]shard-2-replica failed: it does not run here: cannot read")
    };
    let text = cluster.readiness(0, "missing a shard", named).await;
    assert!(text.contains("g2-1-1.snap"), "{text}");
    assert!(cluster.node(0).waiting_for().is_some_and(|what| what.contains("shard 2")));
    fs::remove_dir(&in_the_way).expect("removed");
    cluster.ready(0).await;
    assert_eq!(cluster.node(0).waiting_for(), None);
}
