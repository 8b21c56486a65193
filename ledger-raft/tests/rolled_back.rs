//! A node whose disk went back to an older state as a whole: nothing on it says so, and the others
//! remember what it acknowledged.

mod common;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, tuning};
use ledger_raft::disk::SimDisk;
use ledger_raft::limits::REMEMBERED_WITHIN;
use ledger_raft::{NodeId, RaftTuning, Role};

const WENT_BACK: &str = "the disk went back";

/// Three nodes; the one returned has acknowledged more since the state of its disk beside it.
async fn with_an_older_disk() -> (Cluster, u64, SimDisk) {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let node = c.leader().await % 3 + 1;
    c.kill(node);
    let older = c.disks[&node].fork();
    c.up(node).await;
    for i in 0..20u8 {
        let at = c.propose(&[i]).await;
        c.agree(at.index).await;
    }
    (c, node, older)
}

/// Nobody stands by itself while a test lasts: the first leader does at the founding, and others by
/// a transfer.
fn without_elections() -> RaftTuning {
    RaftTuning { election_min: 2 * PATIENCE, election_max: 2 * PATIENCE + Duration::from_millis(1), ..tuning() }
}

/// Three founders. The disk returned is that of one of them before the group began; then all are
/// down.
async fn with_a_disk_from_before_the_group(node: u64) -> (Cluster, SimDisk) {
    let mut c = Cluster::founders(3, without_elections(), BTreeMap::new()).await;
    c.kill(node);
    let older = c.disks[&node].fork();
    c.up(node).await;
    c.initialize(1).await.expect("begun");
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    (1..=3).for_each(|id| c.kill(id));
    (c, older)
}

fn others(c: &Cluster, node: u64) -> Vec<u64> {
    c.disks.keys().copied().filter(|id| *id != node).collect()
}

async fn is_marked(c: &Cluster, node: u64) {
    let marked = |why: &String| why.contains(WENT_BACK);
    c.until(node, "is marked damaged", |s| s.stopped.as_ref().is_some_and(marked)).await;
}

async fn is_repaired(c: &mut Cluster, node: u64) {
    c.reinstall(node).await;
    let at = c.propose(b"after").await;
    assert_eq!(c.agree(at.index).await.count, 22, "nothing is lost");
    c.until(node, "is repaired", |s| s.stopped.is_none() && !s.repairing).await;
}

#[tokio::test]
async fn an_older_directory_is_noticed_by_the_leader_that_remembers() {
    let (mut c, node, older) = with_an_older_disk().await;
    let term = c.nodes[&c.leader().await].group.status().term;
    c.kill(node);
    c.disks[&node].restore(&older, false);
    c.up(node).await;
    is_marked(&c, node).await;
    let leader = c.leader().await;
    let status = c.nodes[&leader].group.status();
    assert!(status.stopped.is_none() && status.term == term, "{status:?}");
    is_repaired(&mut c, node).await;
    // Nothing of it is left after a restart.
    c.kill(node);
    c.up(node).await;
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
}

/// The leader is gone, and so is the memory of the process that is left: its log has it.
#[tokio::test]
async fn an_older_directory_is_noticed_by_a_follower_that_remembers() {
    let (mut c, node, older) = with_an_older_disk().await;
    let leader = c.leader().await;
    let remembers = others(&c, node).into_iter().find(|id| *id != leader).expect("the third");
    c.kill(leader);
    c.kill(node);
    c.kill(remembers);
    c.disks[&node].restore(&older, false);
    c.up(node).await;
    c.up(remembers).await;
    is_marked(&c, node).await;
    c.until(node, "declines votes", |s| s.votes_declined >= 2).await;
    let status = c.nodes[&remembers].group.status();
    assert_ne!(status.role, Role::Leader, "one of three is whole: {status:?}");
    c.up(leader).await;
    is_repaired(&mut c, node).await;
}

#[tokio::test]
async fn damage_by_an_older_disk_outlives_the_process_that_found_it() {
    let (mut c, node, older) = with_an_older_disk().await;
    c.kill(node);
    c.disks[&node].restore(&older, false);
    c.up(node).await;
    is_marked(&c, node).await;
    // Nobody is left who could tell it again.
    for id in [1, 2, 3] {
        c.kill(id);
    }
    c.up(node).await;
    is_marked(&c, node).await;
}

#[tokio::test]
async fn an_older_disk_and_one_node_away_stay_unavailable_and_say_so() {
    let (mut c, node, older) = with_an_older_disk().await;
    let leader = c.leader().await;
    let away = others(&c, node).into_iter().find(|id| *id != leader).expect("the third");
    c.kill(away);
    c.kill(node);
    c.disks[&node].restore(&older, false);
    c.up(node).await;
    is_marked(&c, node).await;
    // It counts for no quorum.
    for id in [leader, node] {
        let read = c.nodes[&id].group.read_index(2 * c.tuning.election_max).await;
        assert!(read.is_err(), "node {id} has read {read:?}");
    }
    let refused = c.try_reinstall(node, leader).await.expect_err("one voter is missing").to_string();
    assert!(refused.contains(&format!("node {away}")), "{refused}");
    let why = c.nodes[&node].group.status().stopped.expect("stopped");
    assert!(why.contains(WENT_BACK) && why.contains(&format!("node {away}")), "{why}");
    c.up(away).await;
    is_repaired(&mut c, node).await;
}

/// A leader's tail that nobody has is cut by a later leader: that is no loss, at whatever moment
/// the node restarts.
#[tokio::test]
async fn a_tail_that_a_later_leader_cuts_is_no_loss() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let alone = c.leader().await;
    let rest = others(&c, alone);
    rest.iter().for_each(|id| c.kill(*id));
    for i in 0..30u8 {
        // Nobody answers it: it stays pending, and is durable here.
        drop(tokio::spawn(c.nodes[&alone].group.propose(vec![i].into())));
    }
    c.until(alone, "has the tail", |s| s.last_log_index >= at.index + 30).await;
    c.kill(alone);
    for id in &rest {
        c.up(*id).await;
    }
    let at = c.propose(b"of another leader").await;
    for _ in 0..3 {
        c.up(alone).await;
        c.until(alone, "has the other leader's entry", |s| s.applied_index >= at.index).await;
        assert_eq!(c.agree(at.index).await.count, 2);
        c.kill(alone);
    }
    c.up(alone).await;
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
    assert_eq!(c.nodes[&alone].group.status().stopped, None);
    // And it is a voter like any other.
    c.kill(rest[0]);
    c.propose(b"by its vote").await;
    assert!(c.addrs.contains_key(&NodeId(alone)));
}

/// All of them ask each other, and nobody waits for somebody who waits.
#[tokio::test]
async fn nodes_that_all_restart_elect_one_of_them() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    for id in [1, 2, 3] {
        c.kill(id);
    }
    for id in [1, 2] {
        c.up(id).await;
    }
    let at = c.propose(b"with two of three").await;
    c.up(3).await;
    assert_eq!(c.agree(at.index).await.count, 2);
}

/// Its own log names nobody whom it could ask: the founders are known from elsewhere.
#[tokio::test]
async fn a_disk_from_before_the_group_began_is_noticed_by_a_founder() {
    let (mut c, older) = with_a_disk_from_before_the_group(2).await;
    c.disks[&2].restore(&older, false);
    c.up(2).await;
    c.up(3).await;
    is_marked(&c, 2).await;
}

#[tokio::test]
async fn a_disk_from_before_the_group_began_begins_no_second_group() {
    let (mut c, older) = with_a_disk_from_before_the_group(1).await;
    c.disks[&1].restore(&older, false);
    c.up(1).await;
    let alone = c.initialize(1).await.expect_err("nobody else is there").to_string();
    assert!(alone.contains("no majority"), "{alone}");
    c.up(3).await;
    is_marked(&c, 1).await;
    let refused = c.initialize(1).await.expect_err("it had begun").to_string();
    assert!(refused.contains(WENT_BACK), "{refused}");
}

/// A vote that the disk forgot was given in a term that its candidate knows.
#[tokio::test]
async fn no_vote_is_given_in_a_term_that_others_have_voted_in() {
    let mut c = Cluster::start(3, without_elections()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    c.kill(2);
    let term = c.nodes[&1].group.status().term;
    c.nodes[&1].group.transfer_leader(NodeId(3), PATIENCE).await.expect("transferred");
    c.kill(1);
    c.kill(3);
    c.up(3).await;
    c.up(2).await;
    // No leader and no candidate tells it.
    let status = c.until(2, "has a vote in the later term", |s| s.term > term).await;
    assert_eq!((status.leader, status.stopped), (None, None));
    c.kill(2);
    c.up(2).await;
    assert!(c.nodes[&2].group.status().term > term, "it is saved");
}

/// Its candidate answers when the replica votes already.
#[tokio::test]
async fn no_vote_is_given_in_a_term_that_a_late_answer_names() {
    let mut c = Cluster::start(3, without_elections()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    c.kill(2);
    let term = c.nodes[&1].group.status().term;
    let older = c.disks[&1].fork();
    c.nodes[&1].group.transfer_leader(NodeId(3), PATIENCE).await.expect("transferred");
    c.kill(1);
    c.kill(3);
    c.disks[&1].restore(&older, false);
    c.up(1).await;
    c.up(2).await;
    let status = c.until(2, "votes: it and another are two of three", |s| !s.awaits_voters).await;
    assert_eq!(status.term, term, "neither of them knows the later term");
    c.up(3).await;
    c.until(2, "has a vote in the later term", |s| s.term > term).await;
}

/// A host without power refuses no connection: a request to it ends with a time-out only.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a real port that nobody answers on")]
async fn a_host_that_is_silent_does_not_delay_the_first_vote() {
    let mut shortest = Duration::MAX;
    // A busy machine may delay some of them.
    for _ in 0..5 {
        let mut c = Cluster::founders(3, tuning(), BTreeMap::new()).await;
        (1..=3).for_each(|id| c.kill(id));
        let _silent = TcpListener::bind(&c.addrs[&NodeId(3)]).expect("the port is free");
        c.up(2).await;
        let begun = Instant::now();
        c.up(1).await;
        c.initialize(1).await.expect("two of three answer");
        shortest = shortest.min(begun.elapsed());
    }
    assert!(shortest < REMEMBERED_WITHIN, "{shortest:?}");
}

#[tokio::test]
async fn a_replica_that_went_back_stops_though_its_disk_stalls() {
    let (mut c, node, older) = with_an_older_disk().await;
    (1..=3).for_each(|id| c.kill(id));
    c.disks[&node].restore(&older, false);
    c.up(node).await;
    // From here on nothing becomes durable while the test lasts.
    c.disks[&node].set_latency(10 * PATIENCE);
    for id in others(&c, node) {
        c.up(id).await;
    }
    is_marked(&c, node).await;
    c.disks[&node].set_latency(Duration::ZERO);
    let at = c.propose(b"by the two others").await;
    for id in others(&c, node) {
        c.until(id, "applied", |s| s.applied_index >= at.index).await;
    }
}
