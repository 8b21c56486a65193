//! Whom a stopped replica asks for its repair, and when.
//!
//! **Owns** the turns: every other replica is asked, the leader first, and after a round in vain there is a pause that grows.
//! **Must never** ask one peer for ever: it may be the one that is gone. **Read next**: [`crate::digest`].

use ledger_raft::NodeId;
use tokio::time::Instant;

use crate::limits::{REPAIR_PAUSE_MAX, REPAIR_PAUSE_MIN};

/// The turns of one replica's repair.
#[derive(Debug, Default)]
pub(crate) struct RepairTurns {
    running: bool,
    /// Peers that could not repair it in this round.
    tried: Vec<NodeId>,
    /// Rounds in vain.
    rounds: u32,
    not_before: Option<Instant>,
}

impl RepairTurns {
    /// Whether a repair is under way: two at once would tear each other's state.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Begins a repair from the next peer, if it is time; whoever begins says how it ended.
    pub(crate) fn begin(&mut self, leader: Option<NodeId>, peers: &[NodeId], now: Instant) -> Option<NodeId> {
        if self.running || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let leader_first = leader.into_iter().filter(|leader| peers.contains(leader));
        let from = leader_first.chain(peers.iter().copied()).find(|peer| !self.tried.contains(peer))?;
        self.running = true;
        Some(from)
    }

    /// Begins a repair from this peer, unless one is under way.
    pub(crate) fn begin_from_named(&mut self) -> bool {
        !std::mem::replace(&mut self.running, true)
    }

    /// The repair failed. Returns the peers tried so far in this round; after the last of `peers` there is a pause.
    pub(crate) fn failed(&mut self, from: NodeId, peers: &[NodeId], now: Instant) -> Vec<NodeId> {
        self.running = false;
        if !self.tried.contains(&from) {
            self.tried.push(from);
        }
        let tried = self.tried.clone();
        if peers.iter().all(|peer| tried.contains(peer)) {
            self.tried.clear();
            let pause = REPAIR_PAUSE_MIN.saturating_mul(1 << self.rounds.min(16)).min(REPAIR_PAUSE_MAX);
            self.rounds = self.rounds.saturating_add(1);
            self.not_before = Some(now + pause);
        }
        tried
    }

    /// The replica is repaired.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(4)];

    #[test]
    fn every_peer_is_asked_the_leader_first_and_then_there_is_a_growing_pause() {
        let (mut turns, mut now) = (RepairTurns::default(), Instant::now());
        let mut pause = REPAIR_PAUSE_MIN;
        for round in 0..10 {
            for (nth, from) in [NodeId(2), NodeId(1), NodeId(4)].into_iter().enumerate() {
                assert_eq!(turns.begin(Some(NodeId(2)), &PEERS, now), Some(from), "round {round}");
                assert_eq!(turns.begin(None, &PEERS, now), None, "one at a time");
                assert!(!turns.begin_from_named());
                assert_eq!(turns.failed(from, &PEERS, now).len(), nth + 1);
            }
            assert_eq!(turns.begin(None, &PEERS, now + pause / 2), None, "a pause");
            now += pause;
            pause = (pause * 2).min(REPAIR_PAUSE_MAX);
        }
        assert_eq!(
            turns.begin(Some(NodeId(9)), &PEERS, now),
            Some(NodeId(1)),
            "a leader without a replica is not asked"
        );
        turns.succeeded();
        assert_eq!(turns.begin(None, &PEERS, now), Some(NodeId(1)));
    }

    #[test]
    fn without_peers_nobody_is_asked() {
        assert_eq!(RepairTurns::default().begin(Some(NodeId(2)), &[], Instant::now()), None);
    }
}
