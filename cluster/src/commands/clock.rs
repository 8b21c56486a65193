//! `ledgerctl cluster clock accept`, and the look at the clocks before `cluster init`.
//!
//! **Owns** what an operator is asked about clocks. **Must never** accept a jump that was not shown.
//! **Read next**: [`super::cluster`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use client_sdk::v1;

use super::Desk;
use crate::limits;
use crate::link::{NodeLink, brief, timed};
use crate::output::{Failure, Outcome, instant};

/// A node's answer to the question for its status.
type StatusAnswer = Result<v1::NodeStatusResponse, tonic::Status>;

/// The meta group, where groups are numbered as shards.
const META: u32 = 0;

/// How far a quorum's clocks of a group jumped, which stamps nothing since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Jump {
    by_ms: u64,
    to_ms: u64,
}

/// The jumps that nodes' statuses show, by group: the furthest one where several nodes led it meanwhile.
fn jumps<'a>(statuses: impl Iterator<Item = &'a v1::NodeStatusResponse>) -> BTreeMap<u32, Jump> {
    let mut found = BTreeMap::new();
    let mut add = |group, by: Option<u64>, to: Option<u64>| {
        let Some((by_ms, to_ms)) = by.zip(to) else { return };
        let jump = found.entry(group).or_insert(Jump { by_ms, to_ms });
        if jump.to_ms < to_ms {
            *jump = Jump { by_ms, to_ms };
        }
    };
    for status in statuses {
        add(META, status.meta_clock_jump_ms, status.meta_clock_quorum_ms);
        status.shards.iter().for_each(|s| add(s.shard, s.clock_jump_ms, s.clock_quorum_ms));
    }
    found
}

fn group_name(group: u32) -> String {
    match group {
        META => "the meta group".to_owned(),
        shard => format!("shard {shard}"),
    }
}

fn span(ms: u64) -> String {
    match ms / 1_000 {
        s if s >= 172_800 => format!("{} days", s / 86_400),
        s if s >= 7_200 => format!("{} h", s / 3_600),
        s if s >= 120 => format!("{} min", s / 60),
        _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

/// Shows each jump, asks, and sends the acceptance of each to every node: whichever leads next knows of it. Then it looks again.
pub(super) async fn accept(desk: &Desk) -> Outcome {
    let link = desk.link()?.with_members().await?;
    let asked = Instant::now();
    let answers = futures::future::join_all(link.nodes.iter().map(NodeLink::status)).await;
    let shown = jumps(answers.iter().flatten());
    if shown.is_empty() {
        if let Some((node, Err(status))) = link.nodes.iter().zip(&answers).find(|(_, answer)| answer.is_err()) {
            return Err(Failure::refused(format!("{}: {}", node.address, brief(status)))
                .hint("repeat the command when all nodes answer: one that did not may lead a group that waits"));
        }
        return desk.printer.print(&serde_json::json!({ "accepted": false, "jumps": [] }), |_| {
            "nothing to accept: no group waits for its clocks".to_owned()
        });
    }
    let each = |(group, jump): (&u32, &Jump)| {
        format!(
            "{}: to {}, {} further ahead than the time that has passed",
            group_name(*group),
            instant(jump.to_ms),
            span(jump.by_ms)
        )
    };
    let list: Vec<String> = shown.iter().map(each).collect();
    desk.printer.ask(&format!(
        "let ledger time go on from there for good ({}); holds and payment deadlines before that end",
        list.join("; ")
    ))?;
    let each = link.nodes.iter().map(|node| accept_at(node, &shown, asked));
    let sent = futures::future::join_all(each).await;
    let silent: Vec<String> = sent.into_iter().filter_map(Result::err).collect();
    if silent.len() == link.nodes.len() {
        return Err(Failure::unknown(silent.join("; ")).hint("repeat the command, it is safe to repeat"));
    }
    let waiting = still_waiting(&link.nodes, &answers).await;
    let document = serde_json::json!({
        "accepted": true,
        "jumps": shown.iter().map(|(group, jump)| serde_json::json!({
            "group": group_name(*group), "by_ms": jump.by_ms, "ledger_ms": jump.to_ms,
        })).collect::<Vec<_>>(),
        "not_reached": silent,
        "waiting": waiting,
    });
    desk.printer.print(&document, |_| {
        let not_reached =
            if silent.is_empty() { String::new() } else { format!("\nnot reached: {}", silent.join("; ")) };
        format!("accepted: {}{not_reached}", list.join("; "))
    })?;
    match waiting.is_empty() {
        true => Ok(()),
        false => Err(Failure::unknown(format!("still waiting for their clocks: {}", waiting.join(", "))).hint(
            "a clock went on jumping, or another node leads: look at `ledgerctl status`, and repeat the command",
        )),
    }
}

/// Sends the acceptance of each jump to a node; one that does not answer is not asked again.
async fn accept_at(node: &NodeLink, shown: &BTreeMap<u32, Jump>, since: Instant) -> Result<(), String> {
    for (group, jump) in shown {
        // The clocks went on while the operator read.
        let ledger_ms = jump.to_ms.saturating_add(since.elapsed().as_millis() as u64);
        let request = v1::AcceptClockRequest { ledger_ms, shard: Some(*group) };
        let accepted = timed(limits::TRY_WITHIN, node.admin().accept_clock(request)).await;
        accepted.map_err(|status| format!("{}: {}", node.address, brief(&status)))?;
    }
    Ok(())
}

/// The groups that wait for their clocks still, when they have had the time to go on.
async fn still_waiting(nodes: &[NodeLink], before: &[StatusAnswer]) -> Vec<String> {
    let until = Instant::now() + limits::COMMAND_WITHIN;
    loop {
        let now = futures::future::join_all(nodes.iter().map(NodeLink::status)).await;
        let waiting = waiting(before, &now);
        if waiting.is_empty() || Instant::now() >= until {
            return waiting.into_iter().map(group_name).collect();
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

/// Groups that wait now, as far as nodes answer; and those of which a node that led them before does not.
fn waiting(before: &[StatusAnswer], now: &[StatusAnswer]) -> BTreeSet<u32> {
    let silent = before.iter().zip(now).filter(|(_, now)| now.is_err()).filter_map(|(before, _)| before.as_ref().ok());
    jumps(now.iter().flatten().chain(silent)).into_keys().collect()
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
    fn jump_of_each_group_is_its_own() {
        let shard = |shard, jump, quorum| v1::ShardStatus {
            shard,
            clock_jump_ms: jump,
            clock_quorum_ms: Some(quorum),
            ..v1::ShardStatus::default()
        };
        let one = v1::NodeStatusResponse {
            shards: vec![shard(1, None, 9_000), shard(2, Some(70_000), 9_000)],
            meta_clock_jump_ms: Some(60_001),
            meta_clock_quorum_ms: Some(8_000),
            ..v1::NodeStatusResponse::default()
        };
        let two = v1::NodeStatusResponse {
            shards: vec![shard(2, Some(71_000), 10_000), shard(3, Some(99_000_000), 99_000_000)],
            ..v1::NodeStatusResponse::default()
        };
        let jump = |by_ms, to_ms| Jump { by_ms, to_ms };
        let expected = [(META, jump(60_001, 8_000)), (2, jump(71_000, 10_000)), (3, jump(99_000_000, 99_000_000))];
        assert_eq!(jumps([one, two].iter()), BTreeMap::from(expected));
    }

    #[test]
    fn group_whose_leader_falls_silent_counts_as_waiting() {
        let status = |jump| {
            let shard =
                v1::ShardStatus { shard: 1, clock_jump_ms: jump, clock_quorum_ms: Some(1), ..Default::default() };
            Ok(v1::NodeStatusResponse { shards: vec![shard], ..Default::default() })
        };
        let silent = || Err(tonic::Status::unavailable("gone"));
        let before = [status(Some(70_000)), status(None), silent()];
        assert_eq!(waiting(&before, &[status(None), status(None), silent()]), BTreeSet::new());
        assert_eq!(waiting(&before, &[silent(), status(None), status(None)]), BTreeSet::from([1]));
        assert_eq!(waiting(&before, &[status(None), status(Some(1)), silent()]), BTreeSet::from([1]), "it leads now");
    }
}
