//! `ledgerctl node rejoin`: members on empty directories come back through repair.
//!
//! **Owns** the choice of the member that is asked, and what is printed while the repair goes on.
//! **Must never** call a node repaired that has a group which neither votes nor leads. **Read next**:
//! `docs/disks.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use client_sdk::v1;
use serde::Serialize;

use super::Desk;
use super::cluster::{admin_failure, hex};
use crate::cli::{NodeVerb, RejoinArgs};
use crate::limits;
use crate::link::{ClusterLink, NodeLink, brief, timed};
use crate::output::{Failure, Outcome, num, table, text};

/// A member that came back.
#[derive(Debug, Serialize)]
struct RejoinedDoc {
    node: u64,
    disk: String,
    /// How often it came back on an empty disk.
    disk_generation: u64,
    /// An earlier call brought it back.
    already: bool,
    repaired: bool,
}

/// Runs a verb of `node`.
///
/// # Errors
/// [`Failure`].
pub(super) async fn run(desk: &Desk, verb: NodeVerb) -> Outcome {
    let NodeVerb::Rejoin(args) = verb;
    rejoin(desk, args).await
}

async fn rejoin(desk: &Desk, args: RejoinArgs) -> Outcome {
    let nodes: BTreeSet<u64> = args.nodes.iter().copied().collect();
    let at: BTreeMap<u64, String> = args.at.into_iter().collect();
    if nodes.len() != args.nodes.len() {
        return Err(Failure::usage("a node id is there twice"));
    }
    if let Some(other) = at.keys().find(|node| !nodes.contains(node)) {
        return Err(Failure::usage(format!("--at names node {other}, which is not to be brought back")));
    }
    let names = nodes.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ");
    desk.printer.ask(&format!(
        "bring {names} back on an empty data directory: every other member refuses the old one from then on, for good, and {names} \
         is repaired before it votes again"
    ))?;
    let asked = member_to_ask(desk, &nodes).await?;
    let members = asked.status().await.map_err(|status| admin_failure(&asked, &status))?.members;
    let named = |node: &u64| v1::Member {
        node: *node,
        client: at.get(node).cloned().unwrap_or_default(),
        ..v1::Member::default()
    };
    let request = v1::RejoinRequest { members: nodes.iter().map(named).collect() };
    let answer = ask(&asked, &request).await?;
    let until = Instant::now() + args.within.min(limits::REPAIRED_WITHIN_MAX);
    let mut back = Vec::new();
    for one in answer.members {
        let known = members.iter().find(|member| member.node == one.node).map(|member| member.client.clone());
        let Some(address) = at.get(&one.node).cloned().or(known) else { continue };
        wait_repaired(one.node, &NodeLink::new(&address)?, until).await?;
        back.push(RejoinedDoc {
            node: one.node,
            disk: hex(&one.disk),
            disk_generation: one.disk_generation,
            already: one.already,
            repaired: true,
        });
    }
    desk.printer.print(&back, |back| {
        let rows = back.iter().map(|one| [num(one.node), text(&one.disk), text("repaired: it votes and leads again")]);
        table(["NODE", "DISK", "STATE"], rows)
    })
}

/// A member that runs, and is not to be brought back.
async fn member_to_ask(desk: &Desk, nodes: &BTreeSet<u64>) -> Outcome<NodeLink> {
    let named = desk.link()?;
    let link: ClusterLink = named.clone().with_members().await.unwrap_or(named);
    let mut last = "no other member is known".to_owned();
    for node in link.nodes {
        match node.status().await {
            Ok(status) if status.node != 0 && !nodes.contains(&status.node) => return Ok(node),
            Ok(_) => {}
            Err(status) => last = format!("{}: {}", node.address, brief(&status)),
        }
    }
    Err(Failure::refused(format!("no other member answers (last: {last})"))
        .hint("start the other members, and name one of them with --endpoints"))
}

/// Asks until it is done, or refused, or not to be had now for as long as other commands ask.
async fn ask(node: &NodeLink, request: &v1::RejoinRequest) -> Outcome<v1::RejoinResponse> {
    let until = Instant::now() + limits::COMMAND_WITHIN;
    loop {
        match timed(limits::REJOIN_WITHIN, node.admin().rejoin(request.clone())).await {
            Ok(answer) => return Ok(answer),
            Err(status) if status.code() == tonic::Code::Unavailable && Instant::now() < until => {
                tokio::time::sleep(limits::RETRY_PAUSE_MAX).await;
            }
            Err(status) if status.code() == tonic::Code::Unavailable => {
                return Err(Failure::refused(format!("{}: {}", node.address, status.message()))
                    .hint("repeat the command, it is safe to repeat; or: ledgerctl status"));
            }
            Err(status) => return Err(admin_failure(node, &status)),
        }
    }
}

/// Waits until every group of a node is repaired, and says how far it is.
async fn wait_repaired(node: u64, link: &NodeLink, until: Instant) -> Outcome {
    let mut shown = String::new();
    loop {
        let state = match link.status().await {
            Ok(status) if is_repaired(&status) => return Ok(()),
            Ok(status) => progress(&status),
            Err(status) => format!("it does not answer: {}", brief(&status)),
        };
        if state != shown {
            eprintln!("node {node}: {state}");
            shown = state;
        }
        if Instant::now() >= until {
            return Err(Failure::unknown(format!("node {node} is back, and is not repaired yet: {shown}"))
                .hint("ledgerctl status says what it waits for; repeating the command goes on waiting"));
        }
        tokio::time::sleep(limits::RETRY_PAUSE_MAX).await;
    }
}

fn is_repaired(status: &v1::NodeStatusResponse) -> bool {
    status.state == "serving" && status.unrepaired.is_empty() && status.waiting_for.is_empty()
}

fn progress(status: &v1::NodeStatusResponse) -> String {
    let waits = match status.waiting_for.as_str() {
        "" => String::new(),
        what => format!(", it waits for {what}"),
    };
    let group = |id: &u32| if *id == 0 { "the meta group".to_owned() } else { format!("shard {id}") };
    match &status.unrepaired[..] {
        [] => format!("it is {}{waits}", status.state),
        left => {
            let stopped = status.shards.iter().find(|shard| !shard.stopped.is_empty());
            let why = stopped.map(|shard| format!(" (shard {}: {})", shard.shard, shard.stopped)).unwrap_or_default();
            format!("still to be repaired: {}{why}{waits}", left.iter().map(group).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_repaired_once_it_serves_and_each_of_its_groups_votes() {
        let serving = v1::NodeStatusResponse { state: "serving".into(), ..Default::default() };
        assert!(is_repaired(&serving));
        let left = v1::NodeStatusResponse { unrepaired: vec![0, 2], ..serving.clone() };
        assert!(!is_repaired(&left));
        assert_eq!(progress(&left), "still to be repaired: the meta group, shard 2");
        let waits = v1::NodeStatusResponse { waiting_for: "node 3".into(), ..serving };
        assert!(!is_repaired(&waits));
        assert_eq!(progress(&waits), "it is serving, it waits for node 3");
    }
}
