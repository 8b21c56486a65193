//! Spreads leaders over the nodes, gently.
//!
//! **What it is.** Each shard names the replica that should lead; whoever leads instead hands leadership over when that one is there, serving
//! and caught up, and not before it has led for a while: after a failure the cluster first settles, then tidies up.
//! **Owns** those transfers. **Must never** move a leader to a node that did not just answer, or insist.
//! **Read next**: [`crate::placement`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger_raft::{GroupStatus, NodeId, Role};
use tokio::time::Instant;

use crate::limits;
use crate::node::{Node, NodeState};
use crate::peers::Question;

/// Since when this node leads a shard, and until when it is left alone.
struct Led {
    term: u64,
    since: Instant,
    not_before: Instant,
}

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut led: BTreeMap<u32, Led> = BTreeMap::new();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(limits::BALANCE_EVERY) => {}
        }
        if node.state() != NodeState::Serving {
            continue;
        }
        for shard in node.shards() {
            let status = shard.status();
            if status.role != Role::Leader {
                led.remove(&shard.id());
                continue;
            }
            let now = Instant::now();
            let known = led.entry(shard.id()).or_insert(Led { term: status.term, since: now, not_before: now });
            if known.term != status.term {
                *known = Led { term: status.term, since: now, not_before: now };
            }
            if now.duration_since(known.since) < node.config().balance_settle || now < known.not_before {
                continue;
            }
            let Some(heir) = heir(&node, shard.id(), &status) else { continue };
            if node.ask(heir, &Question::Ping).await.is_err() {
                continue;
            }
            match shard.group().transfer_leader(heir, limits::TRANSFER_WITHIN).await {
                Ok(()) => tracing::info!(shard = shard.id(), to = heir.0, "leadership handed over, to spread leaders"),
                Err(error) => {
                    tracing::info!(shard = shard.id(), to = heir.0, %error, "leadership was not taken over; leaving it for now");
                    known.not_before = Instant::now() + limits::BALANCE_BACK_OFF;
                }
            }
        }
    }
}

/// The replica that should lead instead of this node, if it is caught up.
fn heir(node: &Node, shard: u32, status: &GroupStatus) -> Option<NodeId> {
    let placement = node.placement()?;
    let first = placement.shards.iter().find(|s| s.shard == shard)?.replicas.first().copied().map(NodeId)?;
    let matched = status.matched.get(&first).copied().unwrap_or(0);
    let caught_up = matched + limits::BALANCE_BEHIND_MAX >= status.last_log_index;
    (Some(first) != node.node_id() && caught_up && status.clock_sure).then_some(first)
}
