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

use crate::api::NodeId;
use crate::group::GroupCore;
use crate::limits::{
    FAILOVER_AGAIN, FAILOVER_CANDIDATE_LOOKS, FAILOVER_PROBE_AGAIN, FAILOVER_PROBE_WITHIN, FAILOVER_PROBES,
    FAILOVER_TRIES_AFTER_LEASE,
};
use crate::transport::link::lock;
use crate::transport::server::Registry;
use crate::types::Vote;

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
    if is_gone(registry, &addr).await {
        drop(join_all(led.iter().map(|core| stand(core, peer))).await);
    }
}

/// Whether the port refuses connections. A process that ends may still have its listener when its connections are closed already: one that
/// takes a connection is asked again.
async fn is_gone(registry: &Registry, addr: &str) -> bool {
    for _ in 0..FAILOVER_PROBES {
        match timeout(FAILOVER_PROBE_WITHIN, registry.seams.net.connect(addr)).await {
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return true,
            Ok(_) => sleep(FAILOVER_PROBE_AGAIN).await,
            Err(_) => return false,
        }
    }
    false
}

/// Stands for election until another leads, or it is left to the election time.
async fn stand(core: &GroupCore, gone: NodeId) {
    let voters = core.status_now().voters;
    let others: Vec<NodeId> = voters.keys().filter(|id| **id != gone).copied().collect();
    let (Some(place), Some(raft)) = (others.iter().position(|id| *id == core.node), &core.raft) else { return };
    tracing::info!(group = core.id.0, leader = gone.0, "the leader's process is gone: standing for election");
    sleep(turn(place, others.len(), core.id.0)).await;
    let mut candidate = Candidate::default();
    for _ in 0..tries(core.tuning.election_max) {
        if core.status_now().stopped.is_some() || core.stop.is_cancelled() {
            return;
        }
        // Asked behind everything that was asked before: a vote that is being saved now has been saved when this is answered.
        let Ok(vote) = raft.with_raft_state(|state| *state.vote_ref()).await else { return };
        if vote.committed && vote.leader_id.voted_for != gone.0 {
            return;
        }
        // Unlike the election timer, the call asks nobody whether this replica may stand.
        if candidate.is_over(&vote) && core.may_stand() && raft.trigger().elect(true).await.is_err() {
            return;
        }
        sleep(FAILOVER_AGAIN).await;
    }
}

/// The vote of a candidate, this node or another: it is left alone for some looks, then it is lost or split.
#[derive(Default)]
struct Candidate {
    vote: Option<Vote>,
    looks: u32,
}

impl Candidate {
    fn is_over(&mut self, vote: &Vote) -> bool {
        if vote.committed {
            return true;
        }
        if self.vote.as_ref() != Some(vote) {
            (self.vote, self.looks) = (Some(*vote), 0);
        }
        self.looks += 1;
        self.looks > FAILOVER_CANDIDATE_LOOKS
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
    use crate::types::LeaderId;

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
    fn a_candidate_is_left_alone_until_its_vote_is_lost() {
        let vote = |term, node, committed| Vote { leader_id: LeaderId { term, voted_for: node }, committed };
        let mut candidate = Candidate::default();
        assert!(candidate.is_over(&vote(1, 1, true)), "the leader that is gone");
        for _ in 0..FAILOVER_CANDIDATE_LOOKS {
            assert!(!candidate.is_over(&vote(2, 2, false)));
        }
        assert!(candidate.is_over(&vote(2, 2, false)));
        assert!(!candidate.is_over(&vote(3, 3, false)), "another one begins anew");
    }

    #[test]
    fn they_stand_until_the_lease_is_over_and_some_more() {
        assert!(FAILOVER_AGAIN * tries(Duration::from_millis(600)) >= Duration::from_millis(600 + 400));
        assert!(FAILOVER_AGAIN * tries(Duration::from_millis(1)) >= Duration::from_millis(400));
    }
}
