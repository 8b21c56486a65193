//! `/livez`, `/readyz`, `/metrics`.
//!
//! **Owns** what *ready* means: the node is part of a cluster, each of its shards has a leader and a sound replica here, and the
//! log may be written. **Must never** call a node dead because its cluster has no leader: a restart would not help.
//! **Read next**: [`crate::metrics`].

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use ledger_raft::Role;

use crate::api::Api;
use crate::node::{Node, NodeState};
use crate::shard::Shard;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// One condition of readiness.
struct Check {
    name: String,
    failed: Option<String>,
    /// Whether a failure makes the node not ready, or is only told.
    counts: bool,
}

fn check(name: impl Into<String>, ok: bool, why: impl Into<String>) -> Check {
    Check { name: name.into(), failed: (!ok).then(|| why.into()), counts: true }
}

fn checks(node: &Node) -> Vec<Check> {
    let state = node.state();
    let mut out = vec![check("serving", state == NodeState::Serving, format!("the node is {}", word(state)))];
    let (free, low) = (node.disk_free_bytes(), node.config().raft.low_space_bytes);
    out.push(check("log-space", free > low, format!("{free} bytes are free, writes need {low}")));
    let meta = node.running().and_then(|running| running.meta().status().stopped);
    out.push(check("meta-replica", meta.is_none(), meta.unwrap_or_default()));
    let meta = node.running().map(|running| running.meta().status()).unwrap_or_default();
    let halted = meta.apply_halted.unwrap_or_default();
    out.push(check("meta-apply", halted.is_empty(), halted));
    out.push(refused_entries("meta-entries".to_owned(), meta.entries_refused));
    for shard in node.shards() {
        shard_checks(&shard, &mut out);
    }
    out.extend(not_running(node));
    out
}

/// Replicas that are to run here and do not: the node serves its other shards meanwhile.
fn not_running(node: &Node) -> Vec<Check> {
    let (Some(me), Some(placement)) = (node.node_id(), node.placement()) else { return Vec::new() };
    let here = placement.shards.iter().filter(|shard| shard.replicas.contains(&me.0));
    let missing = here.filter(|wanted| node.shard(wanted.shard).is_none());
    missing.map(|s| check(format!("shard-{}-replica", s.shard), false, "it could not be started yet")).collect()
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Uninitialised => "not part of a cluster yet",
        NodeState::Serving => "serving",
        NodeState::Stopping => "stopping",
    }
}

/// An alarm that makes the node no less ready.
fn refused_entries(name: String, count: u64) -> Check {
    let why = format!("{count} log entries could not be decoded and were refused as a whole since the start");
    Check { counts: false, ..check(name, count == 0, why) }
}

/// What the group and history say of a shard. The ledger is not asked: a probe neither waits for it nor costs it time.
fn shard_checks(shard: &Shard, out: &mut Vec<Check>) {
    let name = |what: &str| format!("shard-{}-{what}", shard.id());
    let status = shard.status();
    out.push(check(name("replica"), status.stopped.is_none(), status.stopped.unwrap_or_default()));
    let halted = status.apply_halted.unwrap_or_default();
    out.push(check(name("apply"), halted.is_empty(), halted));
    out.push(refused_entries(name("entries"), status.entries_refused));
    out.push(check(name("leader"), status.leader.is_some(), "no leader is known"));
    if status.role == Role::Leader {
        out.push(check(name("clock"), status.clock_sure, "the leader has no quorum of clock readings"));
    }
    let gapped = shard.history().coverage(shard.id()).is_gapped();
    let mut history = check(name("history"), !gapped, "history is gapped and being filled from peers");
    history.counts = false;
    out.push(history);
}

/// `GET /readyz`, `GET /readyz?verbose`.
pub async fn readyz(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let checks = checks(&api.node);
    let ready = checks.iter().all(|check| check.failed.is_none() || !check.counts);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    let mut text = String::new();
    if verbose {
        for check in &checks {
            match &check.failed {
                None => text.push_str(&format!("[+]{} ok\n", check.name)),
                Some(why) if check.counts => text.push_str(&format!("[-]{} failed: {why}\n", check.name)),
                Some(why) => text.push_str(&format!("[!]{} warning: {why}\n", check.name)),
            }
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(api): State<Api>) -> Response {
    let page = api.metrics.render(&api.node);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
