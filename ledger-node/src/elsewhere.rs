//! Shards that have no replica on this node: who leads each, or who is missing.
//!
//! **What it is.** The node asks the replicas. It passes calls on to the leader that they name;
//! when too few of them answer for a quorum, or none names a leader, it says so, and of whom.
//! **Owns** what is known of those shards. **Must never** call a quorum lost for one late answer, or
//! for one election.
//! **Read next**: [`crate::reconcile`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use ledger_raft::{MissingVoter, NoQuorum, NodeId};
use tokio::time::Instant;

use crate::meta::{Placement, ShardPlacement};
use crate::node::{Node, lock};
use crate::peers::{self, Question};

/// What is known of a shard without a replica here.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    pub(crate) leader: Option<NodeId>,
    /// Since when too few replicas answer, or none that does names a leader.
    lost: Option<Instant>,
    /// Replicas that answer and name no leader, since none is named.
    leaderless: BTreeSet<NodeId>,
    /// Replicas that do not answer, since when, and why.
    silent: BTreeMap<NodeId, (Instant, String)>,
}

/// What a node answered: the leaders of the shards that it has, or why it did not answer.
type Answer = Result<BTreeMap<u32, NodeId>, String>;

impl Elsewhere {
    /// The replicas were asked. A shard that has not begun has no leader yet, and misses nobody.
    fn hear(&mut self, shard: &ShardPlacement, has_begun: bool, answers: &BTreeMap<u64, Answer>, now: Instant) {
        self.leader = None;
        let mut silent = BTreeMap::new();
        for replica in &shard.replicas {
            match answers.get(replica) {
                Some(Ok(leaders)) => self.leader = leaders.get(&shard.shard).copied().or(self.leader),
                Some(Err(why)) => {
                    let node = NodeId(*replica);
                    let since = self.silent.get(&node).map_or(now, |(since, _)| *since);
                    silent.insert(node, (since, why.clone()));
                }
                None => {}
            }
        }
        self.silent = silent;
        let answer = shard.replicas.len() - self.silent.len();
        let is_led = self.leader.is_some() || !has_begun;
        let answering = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(node, _)| NodeId(*node));
        let answering = answering.filter(|node| shard.replicas.contains(&node.0));
        self.leaderless = answering.filter(|_| !is_led).collect();
        // Those that answer may still name the leader of a moment ago.
        let lost = answer < shard.replicas.len() / 2 + 1 || !is_led;
        self.lost = if lost { self.lost.or(Some(now)) } else { None };
    }

    /// Who is missing, once too few replicas have answered or named a leader for so long.
    pub(crate) fn no_quorum(&self, after: Duration) -> Option<NoQuorum> {
        let lasts = self.lost?.elapsed();
        let ms = |since: &Instant| since.elapsed().as_millis() as u64;
        let silent = self.silent.iter().map(|(node, (since, why))| {
            let why = format!("does not answer: {why}");
            MissingVoter { node: *node, why, for_ms: ms(since) }
        });
        let lost_ms = lasts.as_millis() as u64;
        let leaderless = self.leaderless.iter().map(|node| {
            let why = "answers, and hears no leader".to_owned();
            MissingVoter { node: *node, why, for_ms: lost_ms }
        });
        (lasts >= after).then(|| NoQuorum { for_ms: lost_ms, missing: silent.chain(leaderless).collect() })
    }
}

/// Asks the replicas of the shards that have none here who leads.
pub(crate) async fn ask(node: &Node, placement: &Placement, me: u64) {
    let elsewhere: Vec<_> = placement.shards.iter().filter(|shard| !shard.replicas.contains(&me)).collect();
    let replicas: BTreeSet<u64> = elsewhere.iter().flat_map(|shard| shard.replicas.iter().copied()).collect();
    // At once: each that is silent is waited for.
    let asked = replicas.into_iter().map(|replica| async move {
        let answer = node.ask(NodeId(replica), &Question::Leaders).await.and_then(peers::decode_leaders);
        (replica, answer.map(BTreeMap::from_iter).map_err(|why| why.to_string()))
    });
    let answers = join_all(asked).await.into_iter().collect();
    let now = Instant::now();
    let after = node.config().raft.no_quorum_after();
    let mut table = lock(&node.elsewhere);
    table.retain(|id, _| elsewhere.iter().any(|shard| shard.shard == *id));
    for shard in elsewhere {
        let known = table.entry(shard.shard).or_default();
        known.hear(shard, placement.begun.contains(&shard.shard), &answers, now);
        if known.no_quorum(after).is_some() {
            known.leader = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> ShardPlacement {
        ShardPlacement { shard: 4, slots: Vec::new(), replicas: vec![1, 2, 3] }
    }

    fn answers(of: &[(u64, Option<u64>)]) -> BTreeMap<u64, Answer> {
        let one = |leader: Option<u64>| leader.map(|id| (4, NodeId(id))).into_iter().collect();
        of.iter().map(|&(node, leader)| (node, Ok(one(leader)))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_replicas_do_not_answer_has_no_quorum_after_a_while() {
        let (after, mut known) = (Duration::from_secs(2), Elsewhere::default());
        known.hear(&shard(), true, &answers(&[(1, Some(1)), (2, Some(1)), (3, Some(1))]), Instant::now());
        assert_eq!((known.leader, known.no_quorum(after)), (Some(NodeId(1)), None));
        let mut two_gone = answers(&[(3, Some(1))]);
        two_gone.extend([(1, Err("refused".to_owned())), (2, Err("late".to_owned()))]);
        known.hear(&shard(), true, &two_gone, Instant::now());
        assert_eq!(known.no_quorum(after), None, "one late answer is no lost quorum");
        tokio::time::advance(Duration::from_secs(3)).await;
        known.hear(&shard(), true, &two_gone, Instant::now());
        let lost = known.no_quorum(after).expect("for three seconds");
        let missing: Vec<_> = lost.missing.iter().map(|one| (one.node.0, one.why.as_str(), one.for_ms)).collect();
        let expected = [(1, "does not answer: refused", 3_000), (2, "does not answer: late", 3_000)];
        assert_eq!((lost.for_ms, &missing[..]), (3_000, &expected[..]));
        known.hear(&shard(), true, &answers(&[(1, Some(1)), (3, Some(1))]), Instant::now());
        assert_eq!((known.leader, known.no_quorum(Duration::ZERO)), (Some(NodeId(1)), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_replicas_name_no_leader_has_no_quorum_after_a_while() {
        let (after, mut known) = (Duration::from_secs(2), Elsewhere::default());
        let nobody = answers(&[(1, None), (2, None), (3, None)]);
        known.hear(&shard(), true, &nobody, Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        known.hear(&shard(), true, &nobody, Instant::now());
        assert_eq!((known.leader, known.no_quorum(after)), (None, None), "an election is no lost quorum");
        tokio::time::advance(Duration::from_secs(1)).await;
        known.hear(&shard(), true, &nobody, Instant::now());
        let lost = known.no_quorum(after).expect("for two seconds");
        assert_eq!((lost.for_ms, lost.missing.len()), (2_000, 3));
        assert!(lost.to_string().contains("node 2 answers, and hears no leader (for 2.0 s)"), "{lost}");
        known.hear(&shard(), true, &answers(&[(1, None), (2, Some(3)), (3, None)]), Instant::now());
        assert_eq!((known.leader, known.no_quorum(Duration::ZERO)), (Some(NodeId(3)), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_has_not_begun_misses_nobody() {
        let mut known = Elsewhere::default();
        known.hear(&shard(), false, &answers(&[(1, None), (2, None), (3, None)]), Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((known.leader, known.no_quorum(Duration::ZERO)), (None, None));
    }
}
