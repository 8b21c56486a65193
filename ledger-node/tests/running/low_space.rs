//! Disks that fill up under a running cluster: *not now*, nothing lost, and on again when there is space.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger_core::ReservationId;
use ledger_core::outcome::Status;
use ledger_core::view::IdView;
use ledger_proto::{Cause, NotNow, Reply};
use ledger_raft::disk::SimDisk;
use tokio::time::{Instant, timeout};

use crate::common::{Cluster, PATIENCE, create, in_memory, mint, offer, receive, reserve};
use crate::through::is_held;

const UNITS: u64 = 100_000;

/// One shard on three simulated disks.
async fn stocked() -> (Cluster, Vec<SimDisk>) {
    let mut disks = Vec::new();
    let cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        config.raft.segment_bytes = 1 << 20;
        disks.push(in_memory(seams, i as u64));
    })
    .await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", UNITS as i64, "r1")).await;
    (cluster, disks)
}

/// From now on the disk has less than the mark free.
fn fill(disk: &SimDisk) {
    disk.set_capacity(disk.used_bytes() + 1_000);
}

fn empty(disk: &SimDisk) {
    disk.set_capacity(1 << 40);
}

/// What callers were told.
#[derive(Default)]
struct Told {
    held: BTreeSet<ReservationId>,
    /// Answers were *unknown*, so these may be held or not.
    unknown: BTreeSet<ReservationId>,
    minted: u64,
}

impl Told {
    fn next(&mut self) -> ReservationId {
        self.minted += 1;
        mint("shoe", self.minted)
    }

    fn hear(&mut self, id: ReservationId, reply: &Reply) {
        match reply {
            held if is_held(held) => drop(self.held.insert(id)),
            Reply::Unknown(_) => drop(self.unknown.insert(id)),
            Reply::NotNow(_) => {}
            other => panic!("{id}: {other:?}"),
        }
    }

    async fn reserve(&mut self, cluster: &Cluster, through: usize, within_ms: u32) -> Reply {
        let id = self.next();
        let reply = cluster.submit(through, &reserve("shoe", id, 600_000), within_ms).await;
        self.hear(id, &reply);
        reply
    }

    /// Reserves through a node until it says that space is low.
    async fn until_low(&mut self, cluster: &Cluster, through: usize) -> NotNow {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.reserve(cluster, through, 300).await {
                Reply::NotNow(why) if why.cause == Cause::LowSpace => return why,
                other => assert!(Instant::now() < until, "node {} never says so, but {other:?}", through + 1),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything acknowledged is held on every node, what was not now is not, and each unit is somewhere.
    async fn verify(&self, cluster: &Cluster, nodes: &[usize]) {
        let (_, leader) = cluster.leader(1).await;
        leader.group().read_index(PATIENCE).await.expect("there is a quorum");
        let index = leader.applied().borrow().position.index;
        for &i in nodes {
            cluster.applied(i, 1, index).await;
            let replica = cluster.node(i).shard(1).expect("a replica");
            let held =
                |id| matches!(replica.with_ledger(|l| l.id(id)), IdView::Reservation(r) if r.status == Status::Held);
            for &id in &self.held {
                assert!(held(id), "node {} lost {id}, which was acknowledged", i + 1);
            }
            let late = self.unknown.iter().filter(|&&id| held(id)).count();
            let balance = replica.with_ledger(|l| l.offer(&offer("shoe"))).expect("known").balance;
            let expected = (self.held.len() + late) as u64;
            assert_eq!((balance.available, balance.held), (UNITS - expected, expected), "node {}", i + 1);
            assert_eq!(cluster.node(i).audit().await.expect("audited").findings, [], "node {}", i + 1);
            assert_eq!(replica.status().stopped, None, "node {}", i + 1);
        }
    }
}

#[tokio::test]
async fn a_leader_low_on_space_says_not_now_and_goes_on_when_there_is_some() {
    let (cluster, disks) = stocked().await;
    let mut told = Told::default();
    for through in 0..30 {
        let reply = told.reserve(&cluster, through % 3, 5_000).await;
        assert!(is_held(&reply), "{reply:?}");
    }
    let (leader, replica) = cluster.leader(1).await;
    let term = replica.status().term;
    fill(&disks[leader]);
    for through in [leader, (leader + 1) % 3] {
        let why = told.until_low(&cluster, through).await;
        assert!(why.retry_ms > 0, "{why:?}");
    }
    // Reading costs no space.
    assert!(cluster.read(leader, "shoe").await.is_ok());
    assert_eq!(replica.status().stopped, None);

    empty(&disks[leader]);
    let until = Instant::now() + PATIENCE;
    while !is_held(&told.reserve(&cluster, leader, 1_000).await) {
        assert!(Instant::now() < until, "it never goes on");
    }
    told.verify(&cluster, &[0, 1, 2]).await;
    let (same, replica) = cluster.leader(1).await;
    assert_eq!((same, replica.status().term), (leader, term), "want of space is no reason for an election");
}

#[tokio::test]
async fn a_follower_low_on_space_withholds_its_word_and_the_shard_goes_on_without_it() {
    let (mut cluster, disks) = stocked().await;
    let mut told = Told::default();
    let (leader, replica) = cluster.leader(1).await;
    let (low, other) = ((leader + 1) % 3, (leader + 2) % 3);
    fill(&disks[low]);
    // Its log notices within a second of appends, and from then on says nothing about them.
    let me = cluster.node(low).node_id().expect("a member");
    let until = Instant::now() + PATIENCE;
    let withheld = |replica: &ledger_node::shard::Shard| {
        let status = replica.status();
        status.matched.get(&me).copied().unwrap_or(0) < status.last_log_index.saturating_sub(20)
    };
    while !withheld(&replica) {
        let reply = told.reserve(&cluster, leader, 5_000).await;
        assert!(is_held(&reply), "two of three have space: {reply:?}");
        assert!(Instant::now() < until, "the full follower still acknowledges: {:?}", replica.status());
    }

    // Without the other one there is no quorum: nothing is acknowledged, and nothing dies.
    cluster.stop(other).await;
    for _ in 0..3 {
        let reply = told.reserve(&cluster, leader, 300).await;
        assert!(matches!(reply, Reply::Unknown(_) | Reply::NotNow(_)), "acknowledged by one disk: {reply:?}");
    }
    assert_eq!(cluster.node(low).shard(1).expect("a replica").status().stopped, None);

    empty(&disks[low]);
    let until = Instant::now() + PATIENCE;
    while !is_held(&told.reserve(&cluster, leader, 1_000).await) {
        assert!(Instant::now() < until, "two of three again, but nothing is taken");
    }
    told.verify(&cluster, &[leader, low]).await;

    // What it acknowledged is on its disk: it loses power, and has everything.
    cluster.stop(low).await;
    disks[low].crash(7);
    cluster.restart(other).await;
    cluster.restart(low).await;
    let reply = timeout(PATIENCE, async {
        loop {
            let reply = told.reserve(&cluster, low, 1_000).await;
            if is_held(&reply) {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    reply.await.expect("three of three");
    told.verify(&cluster, &[0, 1, 2]).await;
}

#[tokio::test]
async fn all_disks_full_at_once_is_a_pause_and_no_end() {
    let (cluster, disks) = stocked().await;
    let mut told = Told::default();
    disks.iter().for_each(fill);
    told.until_low(&cluster, 0).await;
    disks.iter().for_each(empty);
    let until = Instant::now() + PATIENCE;
    while !is_held(&told.reserve(&cluster, 0, 1_000).await) {
        assert!(Instant::now() < until, "it never goes on");
    }
    told.verify(&cluster, &[0, 1, 2]).await;
}
