//! Elects a successor as soon as the lease of a leader whose process has ended is over.
//!
//! **What it is.** A follower that only waits gives the leader its lease, and then a random election time. When the leader's
//! connection closes and its port refuses another, its process is gone, and the second wait is for nothing. Then the followers stand for
//! election in turn until somebody leads. They ask for votes beforehand (pre-vote): a follower whose lease of the leader is still
//! valid asks nobody, and one that is asked declines. So nothing here shortens the lease, and a leader that lives after all keeps its
//! term.
//!
//! **Owns** when a lost connection leads to an election. **Must never** elect past a lease, or for a connection that was merely
//! lost: a host without power and a cut network are left to the election time. **Read next**: [`crate::transport::server`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::api::{NodeId, Role};
use crate::group::GroupCore;
use crate::limits::{FAILOVER_AGAIN, FAILOVER_PROBE_WITHIN, FAILOVER_TRIES_AFTER_LEASE};
use crate::transport::link::lock;
use crate::transport::server::Registry;
use crate::unreadable;

/// A connection from this peer is closed: looks whether its process is gone, and replaces it where it led.
pub(crate) fn connection_closed(registry: &Arc<Registry>, peer: NodeId) {
    // Both lanes close at once; one look is enough.
    if !lock(&registry.suspected).insert(peer) {
        return;
    }
    let registry = registry.clone();
    tokio::spawn(async move {
        let stop = registry.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = replace(&registry, peer) => {}
        }
        lock(&registry.suspected).remove(&peer);
    });
}

async fn replace(registry: &Registry, peer: NodeId) {
    let led: Vec<Arc<GroupCore>> =
        registry.all_groups().into_iter().filter(|core| core.status_now().leader == Some(peer)).collect();
    let addr = led.iter().find_map(|core| core.status_now().voters.get(&peer).cloned());
    let Some(addr) = addr else { return };
    let dialled = timeout(FAILOVER_PROBE_WITHIN, registry.seams.net.connect(&addr)).await;
    if !matches!(&dialled, Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused) {
        return;
    }
    drop(join_all(led.iter().map(|core| stand(core, peer))).await);
}

/// Stands for election until another leads, or it is left to the election time.
async fn stand(core: &GroupCore, gone: NodeId) {
    let began = core.status_now();
    let others: Vec<NodeId> = began.voters.keys().filter(|id| **id != gone).copied().collect();
    let (Some(place), Some(raft)) = (others.iter().position(|id| *id == core.node), &core.raft) else { return };
    tracing::info!(group = core.id.0, leader = gone.0, "the leader's process is gone: standing for election");
    sleep(turn(place, others.len(), core.id.0)).await;
    for _ in 0..tries(core.tuning.election_max) {
        let now = core.status_now();
        let replaced = now.term != began.term || now.leader != Some(gone);
        if replaced || now.role == Role::Leader || core.stop.is_cancelled() {
            return;
        }
        // Unlike the election timer, the call asks nobody whether this replica may stand.
        let may_stand = core.gate.is_open() && unreadable::may_lead(core);
        if may_stand && raft.trigger().elect(true).await.is_err() {
            return;
        }
        sleep(FAILOVER_AGAIN).await;
    }
}

/// When the voter at `place` of `others` stands first: each at another moment, and another one first in each group, so that the
/// groups of a lost node do not all go to one.
fn turn(place: usize, others: usize, group: u32) -> Duration {
    let place = (place + group as usize) % others.max(1);
    FAILOVER_AGAIN * place as u32 / others.max(1) as u32
}

/// Through the lease and some lost elections.
fn tries(lease: Duration) -> u32 {
    lease.as_millis().div_ceil(FAILOVER_AGAIN.as_millis()) as u32 + FAILOVER_TRIES_AFTER_LEASE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_stand_one_after_another_and_first_in_different_groups() {
        for others in 1..=6 {
            for group in 0..12 {
                let mut turns: Vec<Duration> = (0..others).map(|place| turn(place, others, group)).collect();
                turns.sort();
                turns.dedup();
                assert_eq!(turns.len(), others, "no two stand at the same moment");
                assert!(turns.iter().all(|t| *t < FAILOVER_AGAIN), "all have stood before one stands again");
            }
        }
        assert_ne!(turn(0, 2, 1), turn(0, 2, 2));
    }

    #[test]
    fn they_stand_until_the_lease_is_over_and_some_more() {
        assert!(FAILOVER_AGAIN * tries(Duration::from_millis(600)) >= Duration::from_millis(600 + 400));
        assert!(FAILOVER_AGAIN * tries(Duration::from_millis(1)) >= Duration::from_millis(400));
    }
}
