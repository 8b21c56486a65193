//! Same log, same bytes: digests of the replicas are compared all the time, and a replica outside the majority is replaced.
//!
//! **What it is.** Every second each replica of a shard that passed another 1,024th index asks the
//! others for the digests they took and judges ([`judge`]). The leader acts: an outvoted replica is quarantined and reinstalled from one inside. With no majority the door is shut for
//! writes, at followers too, so that none of them opens it by winning an election.
//! **Owns** the comparison and the repair. **Must never** let an outvoted replica go on, or act on one replica's word about another
//! without seeing the difference itself. **Read next**: [`crate::peers`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ledger_core::ledger::Digest;
use ledger_raft::{GroupId, NodeId, Role};
use tokio::time::Instant;

use crate::limits;
use crate::meta::{META_GROUP, MetaMachine};
use crate::node::{Node, NodeState, lock};
use crate::peers::{self, Question};
use crate::reconcile;
use crate::repairs::RepairTurns;
use crate::shard::Shard;

/// What was found since start, for metrics.
#[derive(Debug, Default)]
pub struct DigestCounts {
    /// Other replicas whose newest digest that this node has too was the same.
    pub equal: AtomicU64,
    /// ... was another.
    pub different: AtomicU64,
    /// Replicas that answered with no digest that this node has too: far behind, or just started.
    pub nothing_shared: AtomicU64,
    /// Replicas that did not answer.
    pub unanswered: AtomicU64,
    /// Shards that refuse writes now, since no majority of their replicas agrees.
    without_majority: Mutex<BTreeSet<u32>>,
    /// Replicas found outside the majority by this node as leader.
    pub outvoted: AtomicU64,
    /// Comparisons without a majority.
    pub no_majority: AtomicU64,
    /// Replicas of this node that were reinstalled.
    pub reinstalled: AtomicU64,
}

/// Says in the reason of a quarantine that the replica's state differs from the majority's.
const DIFFERS: &str = "differs from the majority's";

impl DigestCounts {
    /// Whether the shard's replica here is known to have diverged: outvoted, or without a majority that agrees; and not merely stopped.
    pub fn diverged(&self, shard: &Shard) -> bool {
        lock(&self.without_majority).contains(&shard.id())
            || shard.status().stopped.is_some_and(|why| why.contains(DIFFERS))
    }

    fn count(&self, ours: &[Digest], answer: Option<&[Digest]>) {
        let theirs = answer.unwrap_or_default().iter().rev();
        let shared = theirs.filter_map(|theirs| ours.iter().find(|d| d.index == theirs.index).map(|o| o == theirs));
        let counter = match (answer, shared.take(1).next()) {
            (None, _) => &self.unanswered,
            (Some(_), None) => &self.nothing_shared,
            (Some(_), Some(true)) => &self.equal,
            (Some(_), Some(false)) => &self.different,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn set_majority(&self, shard: u32, majority: bool) {
        let mut without = lock(&self.without_majority);
        if majority {
            without.remove(&shard)
        } else {
            without.insert(shard)
        };
    }
}

/// What the digests of one shard's replicas say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to compare, or all that can be compared agrees.
    Agreed,
    /// A majority agrees on `digest`; these replicas have another one at that index.
    Outvoted {
        /// The majority's digest.
        digest: Digest,
        /// The majority.
        inside: Vec<NodeId>,
        /// The others.
        outside: Vec<NodeId>,
    },
    /// Replicas differ and none of the values has a majority of all replicas behind it.
    NoMajority {
        /// Where.
        index: u64,
    },
}

/// Judges digests of the replicas that answered, of `replicas` in all. The newest index at which two differ and a majority agrees
/// decides: at a newer one, which was taken just now, some may not have arrived.
pub fn judge(answers: &BTreeMap<NodeId, Vec<Digest>>, replicas: usize) -> Verdict {
    let indexes: BTreeSet<u64> = answers.values().flatten().map(|digest| digest.index).collect();
    let mut undecided = None;
    for &index in indexes.iter().rev() {
        let mut votes: BTreeMap<u128, Vec<NodeId>> = BTreeMap::new();
        for (node, digests) in answers {
            if let Some(digest) = digests.iter().find(|digest| digest.index == index) {
                votes.entry(digest.value).or_default().push(*node);
            }
        }
        if votes.len() < 2 {
            continue;
        }
        let Some((&value, _)) = votes.iter().find(|(_, nodes)| nodes.len() > replicas / 2) else {
            undecided = undecided.or(Some(index));
            continue;
        };
        let inside = votes.remove(&value).unwrap_or_default();
        let outside = votes.into_values().flatten().collect();
        return Verdict::Outvoted { digest: Digest { index, value }, inside, outside };
    }
    undecided.map_or(Verdict::Agreed, |index| Verdict::NoMajority { index })
}

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut compared = BTreeMap::new();
    let meta_turns = Arc::new(Mutex::new(RepairTurns::default()));
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(limits::DIGEST_COMPARE_EVERY) => {}
        }
        for shard in node.shards() {
            if shard.status().stopped.is_none() {
                compare(&node, &shard, &mut compared).await;
            }
        }
        for shard in reconcile::stopped_replicas(&node) {
            repair_from_anyone(&node, &shard);
        }
        repair_meta(&node, &meta_turns);
    }
}

/// Asks the other replicas; the leader acts on the verdict. Followers look, too, so that one that is elected does not begin to
/// take writes where the leader before it refused them.
async fn compare(node: &Arc<Node>, shard: &Arc<Shard>, compared: &mut BTreeMap<u32, u64>) {
    let Some(me) = node.node_id() else { return };
    let ours = shard.with_ledger(|ledger| ledger.digests());
    // Digests are taken as time passes, too. Those are judged with the others, but cause no question of their own: a node with
    // many quiet shards would ask all the time.
    let mut at_index =
        ours.iter().rev().filter(|digest| digest.index.is_multiple_of(ledger_core::limits::DIGEST_EVERY));
    let Some(newest) = at_index.next().map(|digest| digest.index) else { return };
    if compared.get(&shard.id()) == Some(&newest) {
        return;
    }
    let voters: Vec<NodeId> = shard.status().voters.into_keys().collect();
    let others = voters.iter().filter(|&&id| id != me);
    let question = Question::Digests { shard: shard.id() };
    let asked = others.map(|&id| {
        let question = &question;
        async move { (id, node.ask(id, question).await.and_then(peers::decode_digests)) }
    });
    let leads = shard.leads();
    let mut answers = BTreeMap::from([(me, ours.clone())]);
    for (id, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(digests) => {
                if leads {
                    node.digest_counts.count(&ours, Some(&digests));
                }
                answers.insert(id, digests);
            }
            Err(error) => {
                if leads {
                    node.digest_counts.count(&ours, None);
                }
                tracing::debug!(shard = shard.id(), peer = id.0, %error, "no digests from this replica");
            }
        }
    }
    let all_compared = answers.len() == voters.len()
        && answers.values().all(|digests| digests.iter().any(|digest| digest.index == newest));
    let verdict = judge(&answers, voters.len());
    node.digest_counts.set_majority(shard.id(), !matches!(verdict, Verdict::NoMajority { .. }));
    match verdict {
        Verdict::Agreed => {
            shard.door().set_diverged(false);
            if all_compared {
                compared.insert(shard.id(), newest);
            }
        }
        Verdict::NoMajority { index } => {
            shard.door().set_diverged(true);
            if leads {
                node.digest_counts.no_majority.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    shard = shard.id(),
                    index,
                    "replicas differ and no majority agrees: the shard refuses writes until an operator decides"
                );
            }
        }
        Verdict::Outvoted { digest, inside, outside } => {
            shard.door().set_diverged(false);
            if leads {
                act(node, shard, digest, &inside, &outside).await;
            }
        }
    }
}

async fn act(node: &Arc<Node>, shard: &Arc<Shard>, digest: Digest, inside: &[NodeId], outside: &[NodeId]) {
    let me = node.node_id().unwrap_or_default();
    let Some(&from) = inside.iter().find(|&&id| id == me).or(inside.first()) else { return };
    node.digest_counts.outvoted.fetch_add(outside.len() as u64, Ordering::Relaxed);
    for &id in outside {
        tracing::error!(
            shard = shard.id(),
            node = id.0,
            index = digest.index,
            from = from.0,
            "a replica's state differs from the majority's: it is reinstalled"
        );
        if id == me {
            outvoted(node, shard, digest, from, me);
            continue;
        }
        let question = Question::Outvoted { shard: shard.id(), digest, from };
        if let Err(error) = node.ask(id, &question).await {
            tracing::warn!(shard = shard.id(), node = id.0, %error, "the outvoted replica could not be told; trying again");
        }
    }
}

/// The other nodes that keep a replica of a shard.
fn other_replicas(node: &Node, shard: &Shard) -> Vec<NodeId> {
    let placement = node.placement();
    let placed = placement.iter().flat_map(|p| p.shards.iter().filter(|s| s.shard == shard.id()));
    let mut all: Vec<NodeId> = placed.flat_map(|s| s.replicas.iter().copied().map(NodeId)).collect();
    all.extend(shard.status().voters.into_keys().filter(|id| !all.contains(id)).collect::<Vec<_>>());
    all.retain(|id| Some(*id) != node.node_id());
    all
}

/// This node's replica is said to be outside the majority: when its own digest there really differs, it is replaced.
pub(crate) fn outvoted(node: &Arc<Node>, shard: &Arc<Shard>, digest: Digest, from: NodeId, says: NodeId) {
    let ours = shard.with_ledger(|ledger| ledger.digests());
    match ours.iter().find(|ours| ours.index == digest.index) {
        Some(ours) if ours.value != digest.value && other_replicas(node, shard).contains(&from) => {
            let why = format!("its state at index {} {DIFFERS} (told by node {})", digest.index, says.0);
            repair(node, shard, from, Some((why, digest.index)));
        }
        _ => tracing::warn!(
            shard = shard.id(),
            says = says.0,
            index = digest.index,
            "called outvoted, but no digest here differs"
        ),
    }
}

/// A replica that is stopped (damaged, quarantined before a restart, or its core has ended) is rebuilt from the leader, or from the next
/// peer that can.
fn repair_from_anyone(node: &Arc<Node>, shard: &Arc<Shard>) {
    if node.state() == NodeState::Stopping {
        return;
    }
    let (leader, peers) = (shard.status().leader, other_replicas(node, shard));
    let from = lock(&shard.state().repairs).begin(leader, &peers, Instant::now());
    if let Some(from) = from {
        spawn_repair(node, shard, from, None);
    }
}

/// The meta group's replica is rebuilt like any other, from another member each time: without it a node does not even learn which
/// shards it has.
fn repair_meta(node: &Arc<Node>, turns: &Arc<Mutex<RepairTurns>>) {
    let Some(running) = node.running().filter(|_| node.state() != NodeState::Stopping) else { return };
    let status = running.meta().status();
    let Some(why) = status.stopped.filter(|_| !status.awaits_build) else { return };
    let stamp = running.stamp();
    let members = stamp.members.iter().map(|member| NodeId(member.node));
    let others: Vec<NodeId> = members.filter(|member| member.0 != stamp.node).collect();
    let Some(from) = lock(turns).begin(status.leader, &others, Instant::now()) else { return };
    let (node, turns, tracker) = (node.clone(), turns.clone(), node.tasks.clone());
    tracker.spawn(async move {
        let machine = MetaMachine::new(node.placement.clone());
        match running.raft.reinstall(META_GROUP, from, machine).await {
            Ok(_) => {
                lock(&turns).succeeded();
                node.digest_counts.reinstalled.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%why, from = from.0, "the meta group's replica was reinstalled");
            }
            Err(error) => {
                let tried = lock(&turns).failed(from, &others, Instant::now());
                tracing::error!(%why, from = from.0, tried = ?ids(&tried), %error, "the meta group's replica could not be reinstalled; asking the next peer");
            }
        }
    });
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

/// Whether a repair of the replica is under way.
pub(crate) fn repairing(shard: &Shard) -> bool {
    lock(&shard.state().repairs).is_running()
}

/// Why a replica is quarantined, and through which index its state is known to be wrong.
type Quarantine = (String, u64);

fn repair(node: &Arc<Node>, shard: &Arc<Shard>, from: NodeId, quarantine: Option<Quarantine>) {
    if lock(&shard.state().repairs).begin_from_named() {
        spawn_repair(node, shard, from, quarantine);
    }
}

/// Runs a repair that was begun.
fn spawn_repair(node: &Arc<Node>, shard: &Arc<Shard>, from: NodeId, quarantine: Option<Quarantine>) {
    let (node, shard) = (node.clone(), shard.clone());
    let tracker = node.tasks.clone();
    tracker.spawn(async move {
        let repaired = reinstall(&node, &shard, from, quarantine).await;
        match repaired {
            Ok(()) => {
                lock(&shard.state().repairs).succeeded();
                node.digest_counts.reinstalled.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(shard = shard.id(), from = from.0, "the replica was reinstalled");
            }
            Err(error) => {
                let peers = other_replicas(&node, &shard);
                let tried = lock(&shard.state().repairs).failed(from, &peers, Instant::now());
                tracing::error!(shard = shard.id(), from = from.0, tried = ?ids(&tried), %error, "the replica could not be reinstalled; it stays stopped, asking the next peer");
            }
        }
    });
}

async fn reinstall(
    node: &Arc<Node>,
    shard: &Arc<Shard>,
    from: NodeId,
    quarantine: Option<Quarantine>,
) -> std::io::Result<()> {
    let running = node.running().ok_or_else(|| std::io::Error::other("the node is stopping"))?;
    let group = shard.group();
    if group.status().role == Role::Leader {
        // Best effort: a leader outside the majority should not stay one for an election timeout longer than it must.
        let _stays = group.transfer_leader(from, limits::TRANSFER_WITHIN).await;
    }
    if let Some((why, through)) = quarantine {
        group.quarantine(why, through).await;
    }
    shard.stop_tasks();
    let machine = node.machine(shard.state().clone());
    let group = running.raft.reinstall(GroupId(shard.id()), from, machine).await?;
    shard.replace_group(group);
    reconcile::spawn_tasks(node, shard);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(of: &[(u64, &[(u64, u128)])]) -> BTreeMap<NodeId, Vec<Digest>> {
        let digests = |all: &[(u64, u128)]| all.iter().map(|&(index, value)| Digest { index, value }).collect();
        of.iter().map(|&(node, all)| (NodeId(node), digests(all))).collect()
    }

    #[test]
    fn replicas_at_different_indexes_are_compared_where_they_meet() {
        let lagging = answers(&[(1, &[(1024, 7), (2048, 8)]), (2, &[(1024, 7)]), (3, &[])]);
        assert_eq!(judge(&lagging, 3), Verdict::Agreed);
        assert_eq!(judge(&answers(&[(1, &[(1024, 7)])]), 3), Verdict::Agreed);
    }

    #[test]
    fn one_against_a_majority_is_outvoted_even_when_it_leads() {
        let verdict = judge(&answers(&[(1, &[(1024, 1)]), (2, &[(1024, 7)]), (3, &[(1024, 7)])]), 3);
        let digest = Digest { index: 1024, value: 7 };
        let expected = Verdict::Outvoted { digest, inside: vec![NodeId(2), NodeId(3)], outside: vec![NodeId(1)] };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn two_that_differ_are_no_majority_while_the_third_is_silent() {
        let two = answers(&[(1, &[(1024, 1)]), (2, &[(1024, 2)])]);
        assert_eq!(judge(&two, 3), Verdict::NoMajority { index: 1024 });
        let three = answers(&[(1, &[(1024, 1)]), (2, &[(1024, 2)]), (3, &[(1024, 3)])]);
        assert_eq!(judge(&three, 3), Verdict::NoMajority { index: 1024 });
    }

    #[test]
    fn a_majority_is_found_though_one_of_it_has_not_come_to_the_newest_index() {
        let late = answers(&[(1, &[(1024, 1), (1030, 3)]), (2, &[(1024, 7), (1030, 4)]), (3, &[(1024, 7)])]);
        let digest = Digest { index: 1024, value: 7 };
        let expected = Verdict::Outvoted { digest, inside: vec![NodeId(2), NodeId(3)], outside: vec![NodeId(1)] };
        assert_eq!(judge(&late, 3), expected);
    }

    #[test]
    fn the_newest_difference_decides() {
        let healed = answers(&[(1, &[(1024, 1), (2048, 5)]), (2, &[(2048, 5)]), (3, &[(1024, 2), (2048, 6)])]);
        let digest = Digest { index: 2048, value: 5 };
        let expected = Verdict::Outvoted { digest, inside: vec![NodeId(1), NodeId(2)], outside: vec![NodeId(3)] };
        assert_eq!(judge(&healed, 3), expected);
    }
}
