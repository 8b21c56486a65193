//! `ledgerctl cluster init`, `status`, `transfer-leader`, `snapshot`.
//!
//! **Owns** the operator's calls to nodes by name. **Must never** call a node healthy that did not answer.
//! **Read next**: [`super::audit`].

use std::collections::BTreeMap;

use client_sdk::v1;
use serde::Serialize;

use super::Desk;
use crate::cli::{SnapshotArgs, TransferArgs};
use crate::limits;
use crate::link::{ClusterLink, NodeLink, brief, timed};
use crate::output::{Failure, Outcome, Printer, grouped, maybe, num, table, text, unit};

pub(super) async fn init(
    members: Vec<(u64, String)>,
    shards: u32,
    replicas: u32,
    endpoints: &[String],
    printer: Printer,
) -> Outcome {
    let mut ids: Vec<u64> = members.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != members.len() {
        return Err(Failure::usage("a node id is there twice"));
    }
    let list: Vec<String> = members.iter().map(|(id, address)| format!("{id}={address}")).collect();
    printer.ask(&format!("make {} one cluster", list.join(", ")))?;
    let first = endpoints.first().filter(|e| members.iter().any(|(_, m)| m == *e)).unwrap_or(&members[0].1);
    let node = NodeLink::new(first)?;
    let member =
        |(id, client): &(u64, String)| v1::Member { node: *id, client: client.clone(), ..v1::Member::default() };
    let request = v1::InitRequest { members: members.iter().map(member).collect(), shards, replicas };
    let answer = timed(limits::NODE_UP_WITHIN, node.admin().init(request))
        .await
        .map_err(|status| admin_failure(&node, &status))?;
    let document = serde_json::json!({
        "cluster": hex(&answer.cluster),
        "created": answer.created,
        "members": answer.members.iter().map(|m| serde_json::json!({"node": m.node, "client": m.client, "peer": m.peer, "http": m.http})).collect::<Vec<_>>(),
    });
    printer.print(&document, |_| {
        let rows = answer.members.iter().map(|m| [num(m.node), text(&m.client), text(&m.peer), text(&m.http)]);
        let said = if answer.created { "made" } else { "was this cluster already" };
        format!("cluster {} {said}\n\n{}", hex(&answer.cluster), table(["NODE", "CLIENT", "PEER", "HTTP"], rows))
    })?;
    let endpoints: Vec<String> = members.into_iter().map(|(_, address)| address).collect();
    eprintln!("hint: ledgerctl --endpoints {} status", endpoints.join(","));
    Ok(())
}

pub(super) fn admin_failure(node: &NodeLink, status: &tonic::Status) -> Failure {
    let what = format!("{}: {}", node.address, brief(status));
    match status.code() {
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Failure::unknown(what).hint("repeat the command, it is safe to repeat; or: ledgerctl status")
        }
        _ => Failure::refused(what).hint("ledgerctl status"),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The whole cluster at a glance.
#[derive(Debug, Serialize)]
struct StatusDoc {
    cluster: Option<String>,
    nodes: Vec<NodeDoc>,
    shards: Vec<ShardDoc>,
    /// Every node answers and is ready: each of its replicas hears a leader and was current a
    /// moment ago. No digest differs.
    healthy: bool,
    problems: Vec<String>,
    /// What an operator should look at, though every node is ready.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeDoc {
    node: Option<u64>,
    address: String,
    state: String,
    version: Option<String>,
    uptime_ms: Option<u64>,
    leads: usize,
    cpu_ms: Option<u64>,
    rss_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    log_bytes: Option<u64>,
    log_live_bytes: Option<u64>,
    /// The most that `log_bytes` is while nothing is being carried forward.
    log_bytes_max: Option<u64>,
    /// The group with a needed entry in the log's oldest segment; 0 is the meta group.
    log_pinning_group: Option<u32>,
    /// Ledger time that history reaches back, of the shard of which it is the least.
    history_kept_ms: Option<u64>,
    /// For how long `history.bytes_max` lasts at the present rate.
    history_fits_ms: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShardDoc {
    shard: u32,
    leader: Option<u64>,
    term: u64,
    committed: u64,
    /// By node: entries behind the leader's commit.
    lag: BTreeMap<u64, u64>,
    /// By node: milliseconds since its replica knew that it had all that was committed; null: not
    /// known.
    age_ms: BTreeMap<u64, Option<u64>>,
    /// By node: milliseconds since its replica heard the leader (the leader: a quorum); null: never
    /// since the node's start.
    leader_heard_ms: BTreeMap<u64, Option<u64>>,
    slots: u32,
    products: u64,
    available: u64,
    held: u64,
    sold: u64,
    /// Index of the newest digest that several replicas have, if they agree on it.
    digest_index: Option<u64>,
    digests_agree: bool,
}

pub(super) async fn status(desk: &Desk) -> Outcome {
    let named = desk.link()?;
    let link = match named.clone().with_members().await {
        Ok(link) => link,
        // Without a routing there is still something to tell about the nodes named.
        Err(_) => named,
    };
    let answers = ask_all(&link).await;
    let document = status_document(&link, answers);
    desk.printer.print(&document, status_text)?;
    if document.healthy {
        Ok(())
    } else {
        Err(Failure::refused(format!("not healthy: {}", document.problems.join("; "))))
    }
}

/// By shard and index: node and value.
type DigestsTold = BTreeMap<(u32, u64), Vec<(u64, Vec<u8>)>>;

type Answers = Vec<(Result<v1::NodeStatusResponse, tonic::Status>, Vec<v1::digests_response::One>)>;

async fn ask_all(link: &ClusterLink) -> Answers {
    let each = link.nodes.iter().map(async |node| {
        let status = node.status().await;
        let digests = timed(limits::TRY_WITHIN, node.admin().digests(v1::DigestsRequest {})).await;
        (status, digests.map(|d| d.digests).unwrap_or_default())
    });
    futures::future::join_all(each).await
}

fn status_document(link: &ClusterLink, answers: Answers) -> StatusDoc {
    let mut problems = Vec::new();
    let mut cluster = None;
    let mut nodes = Vec::new();
    let mut unready = Vec::new();
    let mut shards: BTreeMap<u32, Vec<(u64, v1::ShardStatus)>> = BTreeMap::new();
    let mut digests: DigestsTold = BTreeMap::new();
    for (node, (answer, told)) in link.nodes.iter().zip(answers) {
        match answer {
            Ok(status) => {
                if !status.cluster.is_empty() {
                    cluster = Some(hex(&status.cluster));
                }
                if status.state != "serving" {
                    problems.push(format!("node {} is {}{}", status.node, status.state, waits(&status)));
                }
                meta_problems(&status, &mut problems);
                unready.push((status.node, status.failed_checks.clone()));
                for one in told {
                    digests.entry((one.shard, one.index)).or_default().push((status.node, one.value.to_vec()));
                }
                nodes.push(node_document(node, &status));
                for shard in status.shards {
                    shards.entry(shard.shard).or_default().push((status.node, shard));
                }
            }
            Err(status) => {
                let error = brief(&status);
                problems.push(format!("{} does not answer", node.address));
                nodes.push(NodeDoc {
                    node: None,
                    address: node.address.clone(),
                    state: "unreachable".into(),
                    version: None,
                    uptime_ms: None,
                    leads: 0,
                    cpu_ms: None,
                    rss_bytes: None,
                    disk_free_bytes: None,
                    log_bytes: None,
                    log_live_bytes: None,
                    log_bytes_max: None,
                    log_pinning_group: None,
                    history_kept_ms: None,
                    history_fits_ms: None,
                    error: Some(error),
                });
            }
        }
    }
    let shards: Vec<ShardDoc> =
        shards.into_iter().map(|(shard, replicas)| shard_document(shard, &replicas, &digests, &mut problems)).collect();
    let mut warnings = Vec::new();
    for (node, checks) in unready {
        readiness_problems(node, &checks, &mut problems);
        warnings.extend(warnings_of(node, checks));
    }
    StatusDoc { cluster, nodes, shards, healthy: problems.is_empty(), problems, warnings }
}

fn waits(status: &v1::NodeStatusResponse) -> String {
    match status.waiting_for.as_str() {
        "" => String::new(),
        what => format!(", and waits for {what}"),
    }
}

/// What a node warns of, ready or not.
fn warnings_of(node: u64, checks: Vec<v1::FailedCheck>) -> impl Iterator<Item = String> {
    let warnings = checks.into_iter().filter(|check| check.warning);
    warnings.map(move |check| format!("node {node}: {}: {}", check.name, check.why))
}

/// Why a node is not ready, as far as no other problem says it already.
fn readiness_problems(node: u64, checks: &[v1::FailedCheck], problems: &mut Vec<String>) {
    for check in checks.iter().filter(|check| !check.warning && check.name != "serving") {
        if !problems.iter().any(|problem| problem.contains(&check.why)) {
            problems.push(format!("node {node} is not ready: {}: {}", check.name, check.why));
        }
    }
}

/// The group of members, shards and settings: without it nothing of those changes.
fn meta_problems(status: &v1::NodeStatusResponse, problems: &mut Vec<String>) {
    let node = status.node;
    if !status.meta_apply_halted.is_empty() {
        problems.push(format!("the meta group on node {node}: {}", status.meta_apply_halted));
    }
    if status.meta_entries_refused > 0 {
        problems.push(format!(
            "the meta group refused {} log entries that could not be decoded (counted by node {node} since its start): look \
             at them with `ledgerctl log list --refused` on a stopped node, and report them",
            status.meta_entries_refused
        ));
    }
}

fn node_document(node: &NodeLink, status: &v1::NodeStatusResponse) -> NodeDoc {
    NodeDoc {
        node: Some(status.node),
        address: node.address.clone(),
        state: status.state.clone(),
        version: Some(status.version.clone()),
        uptime_ms: Some(status.uptime_ms),
        leads: status.shards.iter().filter(|s| s.role == "leader").count(),
        cpu_ms: Some(status.cpu_ms),
        rss_bytes: Some(status.rss_bytes),
        disk_free_bytes: Some(status.disk_free_bytes),
        log_bytes: status.log.map(|log| log.bytes),
        log_live_bytes: status.log.map(|log| log.live_bytes),
        log_bytes_max: status.log.map(|log| log.bytes_max),
        log_pinning_group: status.log.and_then(|log| log.pinning_group),
        history_kept_ms: status.shards.iter().map(|shard| shard.history_kept_ms).min(),
        history_fits_ms: (status.history_fits_ms > 0).then_some(status.history_fits_ms),
        error: None,
    }
}

fn shard_document(
    shard: u32,
    replicas: &[(u64, v1::ShardStatus)],
    digests: &DigestsTold,
    problems: &mut Vec<String>,
) -> ShardDoc {
    let leader = replicas.iter().filter(|(_, s)| s.role == "leader").max_by_key(|(_, s)| s.term);
    let lost = replicas.iter().filter(|(_, s)| s.no_quorum_for_ms.is_some()).max_by_key(|(_, s)| s.no_quorum_for_ms);
    match (leader, lost) {
        (Some((leader, s)), Some((node, _))) if s.no_quorum_for_ms.is_none() => {
            problems.push(format!("node {node} does not hear the leader of shard {shard}, node {leader}"));
        }
        (_, Some((node, s))) => problems.push(no_quorum(shard, *node, s)),
        (None, None) => problems.push(format!("shard {shard} has no leader")),
        (Some(_), None) => {}
    }
    for (node, s) in replicas.iter().filter(|(_, s)| !s.stopped.is_empty()) {
        problems.push(format!("shard {shard} is stopped on node {node}: {}", s.stopped));
    }
    for (node, s) in replicas.iter().filter(|(_, s)| !s.apply_halted.is_empty()) {
        problems.push(format!("shard {shard} on node {node}: {}", s.apply_halted));
    }
    if let Some((node, s)) = replicas.iter().find(|(_, s)| s.entries_refused > 0) {
        problems.push(format!(
            "shard {shard} refused {} log entries that could not be decoded (counted by node {node} since its start): look at \
             them with `ledgerctl log list --refused` on a stopped node, and report them",
            s.entries_refused
        ));
    }
    for (node, s) in replicas.iter().filter(|(_, s)| !s.snapshot_failure.is_empty()) {
        problems.push(format!("shard {shard} has no new snapshot on node {node}: {}", s.snapshot_failure));
    }
    if let Some((_, by_ms)) = leader.and_then(|(node, s)| Some((node, s.clock_jump_ms?))) {
        problems.push(format!(
            "shard {shard} stamps nothing: its quorum's clocks are {by_ms} ms further ahead than the time that has passed; set \
             them right, or accept: ledgerctl cluster clock accept"
        ));
    } else if leader.is_some_and(|(_, s)| !s.clock_sure) {
        problems.push(format!("the leader of shard {shard} is not sure of its clock"));
    }
    if leader.is_some_and(|(_, s)| s.diverged && s.stopped.is_empty()) {
        problems.push(format!("shard {shard} takes no writes: no majority of its replicas agrees on its state"));
    }
    let committed = replicas.iter().map(|(_, s)| s.committed_index).max().unwrap_or(0);
    let shared = digests.iter().filter(|((s, _), told)| *s == shard && told.len() > 1);
    let differing = shared.clone().find(|(_, told)| told.iter().any(|(_, v)| *v != told[0].1));
    if let Some(((_, index), told)) = differing {
        let said: Vec<String> = told.iter().map(|(node, value)| format!("node {node}: {}", hex(value))).collect();
        problems.push(format!("shard {shard}: digests differ at index {index} ({})", said.join(", ")));
    }
    let totals = leader.or(replicas.first()).and_then(|(_, s)| s.totals).unwrap_or_default();
    let balance = totals.balance.unwrap_or_default();
    ShardDoc {
        shard,
        leader: leader.map(|(node, _)| *node),
        term: replicas.iter().map(|(_, s)| s.term).max().unwrap_or(0),
        committed,
        lag: replicas.iter().map(|(node, s)| (*node, committed.saturating_sub(s.applied_index))).collect(),
        age_ms: replicas.iter().map(|(node, s)| (*node, s.age_ms)).collect(),
        leader_heard_ms: replicas.iter().map(|(node, s)| (*node, s.leader_heard_ms)).collect(),
        slots: replicas.first().map_or(0, |(_, s)| s.slots.iter().map(|r| r.to - r.from + 1).sum()),
        products: totals.products,
        available: balance.available,
        held: balance.held,
        sold: balance.sold,
        digest_index: shared.map(|((_, index), _)| *index).max(),
        digests_agree: differing.is_none(),
    }
}

/// What the replica says that has missed a leader for the longest time.
fn no_quorum(shard: u32, node: u64, status: &v1::ShardStatus) -> String {
    let seconds = |ms: u64| format!("for {}.{} s", ms / 1_000, ms % 1_000 / 100);
    let one = |m: &v1::MissingReplica| format!("node {} {} ({})", m.node, m.why, seconds(m.for_ms));
    let missing: Vec<String> = status.missing.iter().map(one).collect();
    let missing = if missing.is_empty() { "it reaches every other voter".to_owned() } else { missing.join(", ") };
    let lasts = seconds(status.no_quorum_for_ms.unwrap_or(0));
    format!("shard {shard} has no quorum ({lasts}, as node {node} says): {missing}")
}

/// How far history reaches back, and for how long its bytes last at the present rate.
fn history(kept_ms: Option<u64>, fits_ms: Option<u64>) -> String {
    let hours = |ms: u64| match ms / 3_600_000 {
        0..1_000 => format!("{:.1} h", ms as f64 / 3.6e6),
        _ => "> 1,000 h".to_owned(),
    };
    match (kept_ms, fits_ms) {
        (Some(kept), Some(fits)) => format!("{} kept, {} fit", hours(kept), hours(fits)),
        (Some(kept), None) => format!("{} kept", hours(kept)),
        (None, _) => "-".to_owned(),
    }
}

fn status_text(status: &StatusDoc) -> String {
    let megabytes = |b: Option<u64>| b.map_or("-".into(), |b| format!("{} MiB", grouped(b >> 20)));
    let nodes = table(
        ["NODE", "ADDRESS", "STATE", "LEADS", "UPTIME", "CPU", "MEMORY", "LOG", "HISTORY", "DISK FREE"],
        status.nodes.iter().map(|n| {
            [
                maybe(n.node.map(|id| id.to_string())),
                text(&n.address),
                text(&n.state),
                num(n.leads as u64),
                unit(n.uptime_ms.map_or("-".into(), |ms| format!("{} s", ms / 1000))),
                unit(n.cpu_ms.map_or("-".into(), |ms| format!("{:.1} s", ms as f64 / 1e3))),
                unit(megabytes(n.rss_bytes)),
                unit(megabytes(n.log_bytes)),
                unit(history(n.history_kept_ms, n.history_fits_ms)),
                unit(megabytes(n.disk_free_bytes)),
            ]
        }),
    );
    let shards = table(
        [
            "SHARD",
            "LEADER",
            "TERM",
            "COMMITTED",
            "LAG BY NODE",
            "SLOTS",
            "PRODUCTS",
            "AVAILABLE",
            "HELD",
            "SOLD",
            "DIGESTS",
        ],
        status.shards.iter().map(|s| {
            let late = |node: &u64| match s.age_ms.get(node).copied().flatten() {
                Some(ms) if ms >= limits::AGE_SHOWN_MS => format!(" ({} s old)", ms / 1_000),
                Some(_) => String::new(),
                None => " (of unknown age)".to_owned(),
            };
            let lag: Vec<String> = s.lag.iter().map(|(node, lag)| format!("{node}:{lag}{}", late(node))).collect();
            [
                num(s.shard),
                maybe(s.leader.map(|l| l.to_string())),
                num(s.term),
                num(s.committed),
                text(lag.join(" ")),
                num(s.slots),
                num(s.products),
                num(s.available),
                num(s.held),
                num(s.sold),
                text(match (s.digests_agree, s.digest_index) {
                    (false, _) => "DIFFER".to_owned(),
                    (true, Some(index)) => format!("agree at {index}"),
                    (true, None) => "none yet".to_owned(),
                }),
            ]
        }),
    );
    let cluster = status.cluster.as_deref().unwrap_or("-");
    let verdict =
        if status.healthy { "healthy".to_owned() } else { format!("NOT healthy: {}", status.problems.join("; ")) };
    let warnings: String = status.warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
    format!("cluster {cluster}: {verdict}{warnings}\n\n{nodes}\n\n{shards}")
}

pub(super) async fn transfer(desk: &Desk, args: TransferArgs) -> Outcome {
    desk.printer.ask(&format!("hand the leadership of shard {} to node {}", args.shard, args.to))?;
    let link = desk.link()?.with_members().await?;
    for node in &link.nodes {
        let leads = |s: &v1::ShardStatus| s.shard == args.shard && s.role == "leader";
        if !node.status().await.is_ok_and(|s| s.shards.iter().any(leads)) {
            continue;
        }
        let request = v1::TransferLeaderRequest { shard: args.shard, to: args.to };
        timed(limits::COMMAND_WITHIN, node.admin().transfer_leader(request))
            .await
            .map_err(|s| admin_failure(node, &s))?;
        let document = serde_json::json!({ "shard": args.shard, "to": args.to });
        return desk
            .printer
            .print(&document, |_| format!("node {} leads shard {} now, or will in a moment", args.to, args.shard));
    }
    Err(Failure::refused(format!("no node leads shard {} just now", args.shard)).hint("ledgerctl status"))
}

pub(super) async fn snapshot(desk: &Desk, args: SnapshotArgs) -> Outcome {
    let place = args.node.map_or("all nodes".to_owned(), |n| format!("node {n}"));
    desk.printer.ask(&format!("build a snapshot of shard {} on {place}", args.shard))?;
    let link = desk.link()?.with_members().await?;
    let mut built = BTreeMap::new();
    for node in &link.nodes {
        let status = node.status().await.map_err(|s| admin_failure(node, &s))?;
        if args.node.is_some_and(|n| n != status.node) {
            continue;
        }
        let request = v1::SnapshotRequest { shard: args.shard };
        let answer = timed(limits::SNAPSHOT_WITHIN, node.admin().snapshot(request))
            .await
            .map_err(|s| admin_failure(node, &s))?;
        built.insert(status.node, answer.index);
    }
    if built.is_empty() {
        return Err(Failure::refused(format!("there is no {place} among the members")).hint("ledgerctl status"));
    }
    desk.printer.print(&built, |built| {
        table(["NODE", "SNAPSHOT AT INDEX"], built.iter().map(|(node, index)| [num(*node), num(*index)]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_shown_in_hours_that_are_kept_and_that_fit() {
        assert_eq!(history(Some(112_320_000), Some(756_000_000)), "31.2 h kept, 210.0 h fit");
        assert_eq!(history(Some(0), Some(315_360_000_000)), "0.0 h kept, > 1,000 h fit");
        assert_eq!((history(Some(0), None), history(None, None)), ("0.0 h kept".to_owned(), "-".to_owned()));
    }

    #[test]
    fn one_replica_that_is_cut_off_beside_a_leader_is_no_lost_quorum() {
        let leader = v1::ShardStatus { role: "leader".to_owned(), term: 2, clock_sure: true, ..Default::default() };
        let cut_off =
            v1::ShardStatus { role: "candidate".to_owned(), no_quorum_for_ms: Some(9_000), ..Default::default() };
        let problems = |leader: v1::ShardStatus| {
            let mut problems = Vec::new();
            shard_document(1, &[(1, leader), (3, cut_off.clone())], &DigestsTold::default(), &mut problems);
            problems.join("; ")
        };
        let beside = problems(leader.clone());
        assert!(beside.contains("node 3 does not hear the leader of shard 1, node 1"), "{beside}");
        assert!(!beside.contains("no quorum"), "{beside}");
        let alone = problems(v1::ShardStatus { no_quorum_for_ms: Some(8_000), ..leader });
        assert!(alone.contains("shard 1 has no quorum"), "{alone}");
    }

    #[test]
    fn every_warning_of_a_node_is_shown_and_no_failed_check_twice() {
        let check = |name: &str, warning| v1::FailedCheck { name: name.to_owned(), why: "so".to_owned(), warning };
        let checks =
            vec![check("node-2-process", true), check("shard-1-history", true), check("shard-1-leader", false)];
        let shown: Vec<String> = warnings_of(3, checks).collect();
        assert_eq!(shown, ["node 3: node-2-process: so", "node 3: shard-1-history: so"]);
    }
}
