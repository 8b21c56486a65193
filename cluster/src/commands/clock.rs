//! `ledgerctl cluster clock accept`, and the look at the clocks before `cluster init`.
//!
//! **Owns** what an operator is asked about clocks. **Must never** accept a jump that was not shown.
//! **Read next**: [`super::cluster`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use client_sdk::v1;

use super::Desk;
use crate::limits;
use crate::link::{NodeLink, brief, timed};
use crate::output::{Failure, Outcome, instant};

/// A group that stamps nothing, since its quorum's clocks jumped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Jump {
    group: String,
    by_ms: u64,
    to_ms: u64,
}

/// The jumps that a node's status shows.
fn jumps(status: &v1::NodeStatusResponse) -> Vec<Jump> {
    let jump = |group: String, by: Option<u64>, to: Option<u64>| Some(Jump { group, by_ms: by?, to_ms: to? });
    let meta = jump("the meta group".into(), status.meta_clock_jump_ms, status.meta_clock_quorum_ms);
    let shard = |s: &v1::ShardStatus| jump(format!("shard {}", s.shard), s.clock_jump_ms, s.clock_quorum_ms);
    meta.into_iter().chain(status.shards.iter().filter_map(shard)).collect()
}

fn span(ms: u64) -> String {
    match ms / 1_000 {
        s if s >= 172_800 => format!("{} days", s / 86_400),
        s if s >= 7_200 => format!("{} h", s / 3_600),
        s if s >= 120 => format!("{} min", s / 60),
        _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

/// Shows each jump, asks, and sends the acceptance to every node: whichever leads next knows of it.
pub(super) async fn accept(desk: &Desk) -> Outcome {
    let link = desk.link()?.with_members().await?;
    let asked = Instant::now();
    let answers = futures::future::join_all(link.nodes.iter().map(NodeLink::status)).await;
    let jumps: Vec<Jump> = answers.iter().flatten().flat_map(jumps).collect();
    let Some(to_ms) = jumps.iter().map(|jump| jump.to_ms).max() else {
        if let Some((node, Err(status))) = link.nodes.iter().zip(&answers).find(|(_, answer)| answer.is_err()) {
            return Err(Failure::refused(format!("{}: {}", node.address, brief(status)))
                .hint("repeat the command when all nodes answer: one that did not may lead a group that waits"));
        }
        return desk.printer.print(&serde_json::json!({ "accepted": false, "jumps": [] }), |_| {
            "nothing to accept: no group waits for its clocks".to_owned()
        });
    };
    let each = |jump: &Jump| {
        format!(
            "{}: {} further ahead than the time that has passed, {}",
            jump.group,
            span(jump.by_ms),
            instant(jump.to_ms)
        )
    };
    let list: Vec<String> = jumps.iter().map(each).collect();
    desk.printer.ask(&format!(
        "let ledger time go on from {} for good ({}); holds and payment deadlines before that end",
        instant(to_ms),
        list.join("; ")
    ))?;
    // The clocks went on while the operator read.
    let to_ms = to_ms.saturating_add(asked.elapsed().as_millis() as u64);
    let request = v1::AcceptClockRequest { ledger_ms: to_ms };
    let mut silent = Vec::new();
    for node in &link.nodes {
        if let Err(status) = timed(limits::COMMAND_WITHIN, node.admin().accept_clock(request)).await {
            silent.push(format!("{}: {}", node.address, brief(&status)));
        }
    }
    if silent.len() == link.nodes.len() {
        return Err(Failure::unknown(silent.join("; ")).hint("repeat the command, it is safe to repeat"));
    }
    let document = serde_json::json!({
        "accepted": true,
        "ledger_ms": to_ms,
        "jumps": jumps.iter().map(|j| serde_json::json!({"group": j.group, "by_ms": j.by_ms})).collect::<Vec<_>>(),
        "not_reached": silent,
    });
    desk.printer.print(&document, |_| {
        let not_reached =
            if silent.is_empty() { String::new() } else { format!("\nnot reached: {}", silent.join("; ")) };
        format!("accepted: ledger time goes on from {}{not_reached}", instant(to_ms))
    })
}

/// Compares the clocks of nodes that are to be a cluster with this machine's: ledger time begins where theirs are.
pub(super) async fn compare(members: &[(u64, String)], accepted: bool) -> Outcome {
    let mut wrong = Vec::new();
    for (id, address) in members {
        let node = NodeLink::new(address)?;
        let asked = Instant::now();
        // One that does not answer is the init's to name; a build before this one says nothing of its clock.
        let Ok(status) = node.status().await else { continue };
        let own_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let answered_ms = own_ms.saturating_sub(asked.elapsed().as_millis() as u64 / 2);
        wrong.extend(difference(*id, status.wall_ms, answered_ms));
    }
    match wrong.is_empty() || accepted {
        true => Ok(()),
        false => Err(Failure::refused(wrong.join("; ")).hint(
            "set the clocks right (this machine's, if it is the wrong one), or repeat with --accept-clock: ledger time begins \
             where the nodes' clocks are, and never goes back",
        )),
    }
}

fn difference(node: u64, wall_ms: u64, own_ms: u64) -> Option<String> {
    let by_ms = wall_ms.abs_diff(own_ms);
    let where_to = if wall_ms > own_ms { "ahead of" } else { "behind" };
    let wrong = wall_ms > 0 && u128::from(by_ms) > limits::INIT_CLOCK_MAX.as_millis();
    wrong.then(|| format!("the clock of node {node} is {} {where_to} this machine's", span(by_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_of_a_node_that_differs_is_named_and_one_that_is_not_known_is_not() {
        let bound = limits::INIT_CLOCK_MAX.as_millis() as u64;
        assert_eq!(difference(1, 1_000_000 + bound, 1_000_000), None);
        assert_eq!(difference(1, 0, 1_000_000), None, "a build that does not say");
        let ahead = difference(2, 1_000_000 + 90_000_000, 1_000_000).expect("a day");
        assert_eq!(ahead, "the clock of node 2 is 25 h ahead of this machine's");
        assert!(difference(2, 1_000_000, 1_000_001 + bound).expect("behind").contains("behind"));
    }

    #[test]
    fn jumps_of_shards_and_of_the_meta_group_are_found() {
        let shard = |shard, jump| v1::ShardStatus {
            shard,
            clock_jump_ms: jump,
            clock_quorum_ms: Some(9_000),
            ..v1::ShardStatus::default()
        };
        let status = v1::NodeStatusResponse {
            shards: vec![shard(0, None), shard(1, Some(70_000))],
            meta_clock_jump_ms: Some(60_001),
            meta_clock_quorum_ms: Some(8_000),
            ..v1::NodeStatusResponse::default()
        };
        let found: Vec<(String, u64)> = jumps(&status).into_iter().map(|j| (j.group, j.by_ms)).collect();
        assert_eq!(found, [("the meta group".to_owned(), 60_001), ("shard 1".to_owned(), 70_000)]);
    }
}
