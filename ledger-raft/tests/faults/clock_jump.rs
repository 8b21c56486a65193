//! Clocks of a majority that jump: ledger time goes on with elapsed time, or stands still until an operator accepts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Cluster, PATIENCE, WrongClock, tuning};
use bytes::Bytes;
use ledger_raft::seam::WallClock;
use ledger_raft::{Committed, ProposeError, Role};

const YEAR_MS: i64 = 365 * 86_400_000;

impl Cluster {
    fn set_clocks(&self, ids: &[u64], wrong_by_ms: i64) {
        for id in ids {
            self.clocks[id].0.store(wrong_by_ms, Ordering::Relaxed);
        }
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.disks.keys().copied().filter(|other| *other != id).collect()
    }

    /// Waits until every node that runs has heard of ledger time.
    async fn know_the_time(&self) {
        for id in self.nodes.keys() {
            self.until(*id, "knows what to expect of ledger time", |s| s.clock_expected).await;
        }
    }

    /// The node that leads and waits for a jump to be accepted, and the jump.
    async fn jumped(&self) -> (u64, u64) {
        let all = self.nodes.iter().map(|(id, n)| {
            let (mut rx, id) = (n.group.watch(), *id);
            Box::pin(async move {
                let status = rx.wait_for(|s| s.role == Role::Leader && s.clock_jump_ms.is_some()).await.expect("runs");
                (id, status.clock_jump_ms.expect("a jump"))
            })
        });
        tokio::time::timeout(PATIENCE, futures::future::select_all(all)).await.expect("no leader sees a jump").0
    }

    async fn commit(&self, data: &'static [u8]) -> Committed {
        loop {
            let leader = self.leader().await;
            match self.nodes[&leader].group.propose(Bytes::from_static(data)).await {
                Ok(committed) => return committed,
                Err(ProposeError::Unknown { why }) => panic!("unknown: {why}"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

fn true_ms() -> u64 {
    WrongClock::default().now_ms()
}

/// Whether a stamp is of the time that the true clock shows, give or take what a slow machine needs.
fn is_of_now(stamp_ms: u64) -> bool {
    stamp_ms.abs_diff(true_ms()) < PATIENCE.as_millis() as u64
}

async fn stamps_nothing(c: &Cluster, leader: u64, count: u64) {
    let refused = c.nodes[&leader].group.propose(Bytes::from_static(b"x")).await;
    let lost = |why: &ProposeError| matches!(why, ProposeError::NotLeader { .. } | ProposeError::NoQuorum(_));
    match refused {
        Err(ProposeError::ClockJumped { by_ms }) => assert!(by_ms.abs_diff(YEAR_MS as u64) < 60_000, "{by_ms}"),
        Err(why) if lost(&why) => {}
        other => panic!("a leader whose quorum jumped stamped: {other:?}"),
    }
    assert_eq!(c.nodes[&leader].state.get().count, count);
    assert_eq!(c.nodes[&leader].group.stamp_now(), None);
}

#[tokio::test]
async fn majority_that_jumps_under_a_leader_moves_no_ledger_time_until_accepted() {
    let mut c = Cluster::start(3, tuning()).await;
    let first = c.commit(b"first").await;
    assert!(is_of_now(first.stamp_ms));
    c.agree(first.at.index).await;
    c.know_the_time().await;
    let leader = c.leader().await;
    c.set_clocks(&c.others(leader), YEAR_MS);
    // The leader is not sure any more and hands over; the next one finds the jump.
    let (next, by_ms) = c.jumped().await;
    assert!(by_ms.abs_diff(YEAR_MS as u64) < 60_000, "{by_ms}");
    stamps_nothing(&c, next, 1).await;

    let to_ms = c.nodes[&next].group.quorum_clock_ms().expect("it leads");
    c.nodes.values().for_each(|n| n.group.accept_clock(to_ms));
    let accepted = c.commit(b"accepted").await;
    assert!(is_of_now(accepted.stamp_ms - YEAR_MS as u64), "{}", accepted.stamp_ms);
    // The next leader needs no second acceptance.
    c.set_clocks(&[1, 2, 3], YEAR_MS);
    let leader = c.leader().await;
    c.kill(leader);
    let after = c.commit(b"after").await;
    assert!(after.stamp_ms >= accepted.stamp_ms);
}

#[tokio::test]
async fn leader_after_a_kill_takes_no_jump_and_clocks_set_right_end_it() {
    let mut c = Cluster::start(3, tuning()).await;
    let first = c.commit(b"first").await;
    c.agree(first.at.index).await;
    c.know_the_time().await;
    let leader = c.leader().await;
    let others = c.others(leader);
    c.set_clocks(&others, YEAR_MS);
    c.kill(leader);
    let (next, _) = c.jumped().await;
    stamps_nothing(&c, next, 1).await;
    // One of the two restarts, and the leader goes: what the other one knows is enough.
    c.kill(next);
    c.up(next).await;
    let (again, _) = c.jumped().await;
    stamps_nothing(&c, again, 1).await;
    c.set_clocks(&others, 0);
    assert!(is_of_now(c.commit(b"right again").await.stamp_ms));
    c.up(leader).await;
}

#[tokio::test]
async fn one_wrong_clock_is_outvoted_under_any_leader() {
    let mut c = Cluster::start(3, tuning()).await;
    c.commit(b"first").await;
    c.know_the_time().await;
    let leader = c.leader().await;
    c.set_clocks(&[leader], YEAR_MS);
    assert!(is_of_now(c.commit(b"its own").await.stamp_ms));
    c.kill(leader);
    c.up(leader).await;
    assert!(is_of_now(c.commit(b"another's").await.stamp_ms));
}

#[tokio::test]
async fn full_stop_takes_the_clocks_as_they_are() {
    let mut c = Cluster::start(3, tuning()).await;
    c.commit(b"first").await;
    c.know_the_time().await;
    (1..=3).for_each(|id| c.kill(id));
    c.set_clocks(&[1, 2, 3], YEAR_MS);
    for id in 1..=3 {
        c.up(id).await;
    }
    let stamp_ms = c.commit(b"a year later").await.stamp_ms;
    assert!(is_of_now(stamp_ms - YEAR_MS as u64), "{stamp_ms}");
    assert!(c.nodes.values().all(|n| n.group.status().clock_jump_ms.is_none()));
}

#[tokio::test]
async fn clocks_set_back_leave_ledger_time_ahead_and_the_leader_says_so() {
    let mut c = Cluster::start(3, tuning()).await;
    c.set_clocks(&[1, 2, 3], 3_600_000);
    (1..=3).for_each(|id| c.kill(id));
    for id in 1..=3 {
        c.up(id).await;
    }
    c.commit(b"an hour ahead").await;
    (1..=3).for_each(|id| c.kill(id));
    c.set_clocks(&[1, 2, 3], 0);
    for id in 1..=3 {
        c.up(id).await;
    }
    c.commit(b"still ahead").await;
    let leader = c.leader().await;
    let status = c.until(leader, "is ahead", |s| s.clock_ahead_ms > 0).await;
    let ahead = Duration::from_millis(status.clock_ahead_ms);
    assert!(ahead > Duration::from_secs(3_600) - PATIENCE && ahead <= Duration::from_secs(3_601), "{ahead:?}");
}
