//! A member whose directory is empty comes back through repair: what it had acknowledged is not lost, and its old disk has no say any more.

use std::time::Duration;

use ledger_core::Outcome;
use ledger_core::outcome::Status;
use ledger_core::types::ReservationId;
use ledger_core::view::IdView;
use ledger_node::NodeState;
use ledger_node::node::AdminError;
use ledger_proto::v1;
use ledger_raft::NodeId;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::common::{Cluster, PATIENCE, Shape, create, mint, receive, reserve};

const NODE: usize = 1;
const RESERVES: u64 = 60;
/// Where a directory lies that was taken away.
const OLD: &str = "old";

/// Members by number, each where the others know it.
fn request(nodes: &[u64]) -> v1::RejoinRequest {
    let member = |node: &u64| v1::Member { node: *node, ..v1::Member::default() };
    v1::RejoinRequest { members: nodes.iter().map(member).collect() }
}

async fn rejoin(cluster: &Cluster, through: usize, nodes: &[u64]) -> Result<v1::RejoinResponse, AdminError> {
    cluster.node(through).rejoin(request(nodes)).await
}

/// Repeated as long as it says *not now*, as an operator does.
async fn rejoin_until_done(cluster: &Cluster, through: usize, nodes: &[u64]) -> v1::RejoinResponse {
    let until = Instant::now() + PATIENCE;
    loop {
        match rejoin(cluster, through, nodes).await {
            Ok(done) => return done,
            Err(AdminError::NotNow(why)) => assert!(Instant::now() < until, "still: {why}"),
            Err(other) => panic!("{other}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Takes a stopped node's directory away: it starts on an empty one. The old one lies in what this
/// returns until that is dropped.
fn empty(cluster: &Cluster, i: usize) -> TempDir {
    let (dir, aside) = (cluster.dirs[i].path(), tempfile::tempdir().expect("a temporary directory"));
    std::fs::rename(dir, aside.path().join(OLD)).expect("moved");
    std::fs::create_dir(dir).expect("made");
    aside
}

fn put_back(cluster: &Cluster, i: usize, aside: &TempDir) {
    let dir = cluster.dirs[i].path();
    std::fs::remove_dir_all(dir).expect("removed");
    std::fs::rename(aside.path().join(OLD), dir).expect("moved back");
}

/// Three nodes with a product, of which [`NODE`] has started on an empty directory.
async fn emptied() -> Cluster {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    (0..3).for_each(|i| cluster.keep_ports(i));
    cluster.ask(create("shoe")).await;
    cluster.stop(NODE).await;
    empty(&cluster, NODE);
    cluster.restart_later(NODE).await;
    cluster
}

async fn repaired(cluster: &Cluster, i: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = cluster.node(i).status();
        if status.state == "serving" && status.unrepaired.is_empty() && !status.shards.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "node {}: {status:?}", i + 1);
        sleep(Duration::from_millis(20)).await;
    }
}

/// So many units of one product, each reserved under an id, acknowledged by all but node 1, which is stopped.
async fn reserved_without_the_first(cluster: &mut Cluster) -> Vec<ReservationId> {
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 100, "delivery-1")).await;
    cluster.stop(0).await;
    let mut ids = Vec::new();
    for n in 0..RESERVES {
        let id = mint("shoe", n + 1);
        let answer = cluster.ask(reserve("shoe", id, 3_600_000)).await;
        assert!(matches!(answer, Outcome::Ok(_)), "{answer:?}");
        ids.push(id);
    }
    ids
}

async fn holds_all(cluster: &Cluster, i: usize, ids: &[ReservationId]) {
    let (_, leader) = cluster.leader(1).await;
    cluster.applied(i, 1, leader.applied().borrow().position.index).await;
    let replica = cluster.node(i).shard(1).expect("a replica");
    for id in ids {
        let known = replica.with_ledger(|ledger| ledger.id(*id));
        let held = matches!(&known, IdView::Reservation(r) if r.status == Status::Held);
        assert!(held, "node {}: {id} is {known:?}", i + 1);
    }
}

#[tokio::test]
async fn a_member_on_an_empty_directory_comes_back_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    (0..3).for_each(|i| cluster.keep_ports(i));
    let ids = reserved_without_the_first(&mut cluster).await;
    cluster.stop_all().await;
    let old = empty(&cluster, NODE);
    cluster.restart_later(0).await;
    cluster.restart_later(NODE).await;

    // Only nodes 2 and 3 have acknowledged. Without node 3 nothing is brought back, or elected.
    let refused = rejoin(&cluster, 0, &[2]).await;
    let Err(AdminError::NotNow(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("node 3 (") && why.contains("nothing was changed"), "{why}");
    assert_eq!(cluster.node(NODE).state(), NodeState::Uninitialised);
    assert!(cluster.node(0).shards().iter().all(|shard| !shard.leads()));

    cluster.restart_later(2).await;
    let done = rejoin_until_done(&cluster, 2, &[2]).await;
    assert_eq!((done.members[0].disk_generation, done.members[0].already), (1, false), "{done:?}");
    repaired(&cluster, NODE).await;
    for i in 0..3 {
        holds_all(&cluster, i, &ids).await;
    }

    // It leads like any other.
    let (leader, replica) = cluster.leader(1).await;
    if leader != NODE {
        replica.group().transfer_leader(NodeId(2), PATIENCE).await.expect("transferred");
    }
    cluster.ask(receive("shoe", 1, "delivery-2")).await;
    let again = rejoin_until_done(&cluster, 0, &[2]).await;
    assert_eq!((again.members[0].already, &again.members[0].disk), (true, &done.members[0].disk), "{again:?}");

    // Restarted members know the new disk.
    cluster.stop_all().await;
    for i in 0..3 {
        cluster.restart_later(i).await;
    }
    repaired(&cluster, NODE).await;
    cluster.ask(receive("shoe", 1, "delivery-3")).await;
    holds_all(&cluster, NODE, &ids).await;

    // The disk that was given up is found after all.
    cluster.stop_all().await;
    put_back(&cluster, NODE, &old);
    cluster.restart_later(0).await;
    cluster.restart_later(NODE).await;
    let replaced = |status: &v1::NodeStatusResponse| {
        let missing = status.shards.iter().flat_map(|shard| &shard.missing);
        missing.filter(|other| other.node != 3).any(|other| other.why.contains("on another disk than the members know"))
    };
    let until = Instant::now() + PATIENCE;
    while !replaced(&cluster.node(0).status()) || !replaced(&cluster.node(NODE).status()) {
        assert!(Instant::now() < until, "{:?}", cluster.node(NODE).status());
        sleep(Duration::from_millis(20)).await;
    }
    for i in [0, NODE] {
        assert!(cluster.node(i).shards().iter().all(|shard| !shard.leads()), "node {}", i + 1);
    }
    let back = rejoin(&cluster, 0, &[2]).await;
    let Err(AdminError::Refused(why)) = &back else { panic!("{back:?}") };
    assert!(why.contains("the directory that it joined with"), "{why}");
}

/// Repeated until it is refused for something else than that it is not yet possible.
async fn rejoin_until_refused(cluster: &Cluster, through: usize, nodes: &[u64]) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        match rejoin(cluster, through, nodes).await {
            Err(AdminError::NotNow(why)) => assert!(Instant::now() < until, "still: {why}"),
            Err(AdminError::Refused(why)) => return why,
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_member_that_joined_and_could_not_start_is_started_by_a_repeated_rejoin() {
    let cluster = emptied().await;
    // As a disk on which something else of that name lies.
    let in_the_way = cluster.dirs[NODE].path().join("snapshots");
    std::fs::write(&in_the_way, "no directory").expect("written");
    let until = Instant::now() + PATIENCE;
    // The first one that reaches the end stamps the directory, the ones after it find it stamped.
    let mut failed = 0;
    while failed < 3 {
        match rejoin(&cluster, 0, &[2]).await {
            Err(AdminError::Failed(why)) => {
                assert!(why.contains("repeat the command"), "{why}");
                failed += 1;
            }
            Err(AdminError::NotNow(why)) => assert!(Instant::now() < until, "still: {why}"),
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.node(NODE).state(), NodeState::Uninitialised);
    std::fs::remove_file(&in_the_way).expect("removed");
    let done = rejoin_until_done(&cluster, 0, &[2]).await;
    assert_eq!((done.members[0].disk_generation, done.members[0].already), (1, true), "{done:?}");
    repaired(&cluster, NODE).await;
    cluster.ask(receive("shoe", 1, "delivery-1")).await;
}

#[tokio::test]
async fn a_directory_that_a_later_rejoin_has_replaced_has_to_be_emptied() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    (0..3).for_each(|i| cluster.keep_ports(i));
    cluster.ask(create("shoe")).await;
    let mut given_up = None;
    for generation in 1..=2 {
        cluster.stop(NODE).await;
        given_up = Some(empty(&cluster, NODE));
        cluster.restart_later(NODE).await;
        let done = rejoin_until_done(&cluster, 0, &[2]).await;
        assert_eq!(done.members[0].disk_generation, generation, "{done:?}");
        repaired(&cluster, NODE).await;
    }
    cluster.stop(NODE).await;
    put_back(&cluster, NODE, &given_up.expect("a directory was given up"));
    cluster.restart_later(NODE).await;
    for through in [0, 2] {
        let why = rejoin_until_refused(&cluster, through, &[2]).await;
        assert!(why.contains("empty its directory"), "{why}");
    }
}

/// The member that is asked has lost what it recorded, and refuses the disk that the others know.
#[tokio::test]
async fn a_member_that_was_set_back_records_the_new_disk_again() {
    let mut cluster = emptied().await;
    let stamp = cluster.dirs[0].path().join("holdfast.stamp");
    let before = std::fs::read(&stamp).expect("stamped");
    let done = rejoin_until_done(&cluster, 2, &[2]).await;
    repaired(&cluster, NODE).await;
    cluster.stop(0).await;
    std::fs::write(&stamp, before).expect("set back");
    cluster.restart_later(0).await;
    let again = rejoin_until_done(&cluster, 0, &[2]).await;
    assert_eq!((again.members[0].already, &again.members[0].disk), (true, &done.members[0].disk), "{again:?}");
    for i in 0..3 {
        repaired(&cluster, i).await;
    }
}

#[tokio::test]
async fn what_cannot_be_brought_back_is_refused_with_what_to_do() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    (0..3).for_each(|i| cluster.keep_ports(i));
    let foreign = Cluster::of(Shape { nodes: 1, shards: 1, replicas: 1 }, |_, _, _| {}).await;
    let why = |refused: Result<v1::RejoinResponse, AdminError>| refused.expect_err("refused").to_string();
    assert!(
        matches!(rejoin(&cluster, 0, &[7]).await, Err(AdminError::NotFound(why)) if why.contains("node 7 is no member"))
    );
    assert!(matches!(rejoin(&cluster, 0, &[]).await, Err(AdminError::Invalid(_))));
    assert!(why(rejoin(&cluster, 0, &[1]).await).contains("ask another member"));
    assert!(why(rejoin(&cluster, 0, &[2]).await).contains("node 2 runs at"), "it is healthy");

    // Its directory is empty, and at its address another cluster's node answers.
    cluster.stop(NODE).await;
    let old = empty(&cluster, NODE);
    let member = v1::Member { node: 2, client: foreign.client_addr(0), ..v1::Member::default() };
    let there = cluster.node(0).rejoin(v1::RejoinRequest { members: vec![member] }).await;
    assert!(why(there).contains("belongs to node 1 of cluster"));
    let nobody = rejoin(&cluster, 0, &[2]).await;
    assert!(matches!(&nobody, Err(AdminError::NotNow(why)) if why.contains("cannot be reached")), "{nobody:?}");

    // It is itself empty, and does not know whose it is.
    cluster.restart_later(NODE).await;
    assert!(why(rejoin(&cluster, NODE, &[3]).await).contains("belongs to no cluster yet"));
    // Too few are left who could repair anybody.
    cluster.stop(2).await;
    let third = empty(&cluster, 2);
    cluster.restart_later(2).await;
    let both = rejoin_until_refused(&cluster, 0, &[2, 3]).await;
    assert!(both.contains("nobody could repair the meta group") && both.contains("start node 2, node 3 on"), "{both}");
    // Nothing was changed: the old directories are as good as before.
    for (i, dir) in [(NODE, old), (2, third)] {
        cluster.stop(i).await;
        put_back(&cluster, i, &dir);
        cluster.restart_later(i).await;
    }
    cluster.ask(create("shoe")).await;
    for i in 0..3 {
        repaired(&cluster, i).await;
    }
}

#[tokio::test]
async fn nobody_repairs_a_member_of_a_cluster_of_two() {
    let mut cluster = Cluster::of(Shape { nodes: 2, shards: 1, replicas: 0 }, |_, _, _| {}).await;
    cluster.keep_ports(NODE);
    cluster.stop(NODE).await;
    empty(&cluster, NODE);
    cluster.restart_later(NODE).await;
    let refused = rejoin_until_refused(&cluster, 0, &[2]).await;
    assert!(refused.contains("too few others"), "{refused}");
}

#[tokio::test]
async fn rejoins_of_one_member_through_all_others_at_once_end_on_one_disk() {
    let cluster = emptied().await;
    let both = tokio::join!(rejoin_until_done(&cluster, 0, &[2]), rejoin_until_done(&cluster, 2, &[2]));
    assert_eq!(both.0.members[0].disk, both.1.members[0].disk, "{both:?}");
    repaired(&cluster, NODE).await;
    cluster.ask(receive("shoe", 1, "delivery-1")).await;
}

/// Neither can record the other's disk: they come back by one command.
#[tokio::test]
async fn two_of_five_come_back_together() {
    let mut cluster = Cluster::of(Shape { nodes: 5, shards: 2, replicas: 5 }, |_, _, _| {}).await;
    (0..5).for_each(|i| cluster.keep_ports(i));
    cluster.ask(create("shoe")).await;
    for i in [1, 2] {
        cluster.stop(i).await;
        empty(&cluster, i);
        cluster.restart_later(i).await;
    }
    let one = rejoin(&cluster, 0, &[2]).await;
    assert!(matches!(&one, Err(AdminError::NotNow(why)) if why.contains("node 3 (")), "{one:?}");
    let done = rejoin_until_done(&cluster, 0, &[2, 3]).await;
    assert!(done.members.iter().all(|one| !one.already), "{done:?}");
    for i in [1, 2] {
        repaired(&cluster, i).await;
    }
    cluster.ask(receive("shoe", 1, "delivery-1")).await;
    let (_, leader) = cluster.leader(1).await;
    for i in 0..5 {
        cluster.applied(i, 1, leader.applied().borrow().position.index.min(1)).await;
    }
}
