//! The page of metrics: what docs/metrics.md says, no more and no less; entries by size; digests compared; stopped told from diverged.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Cluster, PATIENCE, create, receive};
use ledger_core::{Command, Outcome};
use ledger_node::metrics::values;
use tokio::time::{Instant, sleep};

const TABLE: &str = include_str!("../../docs/metrics.md");

/// Name → (kind, labels), as the document says of nodes; its other parts are tested where those processes are.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut out = BTreeMap::new();
    let nodes = TABLE.split("\n# ").next().expect("the first part");
    for line in nodes.lines().filter(|line| line.starts_with("| `holdfast_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, what] = cells[..] else { panic!("four cells: {line}") };
        assert!(!what.is_empty(), "{line}");
        let word = |text: &str| text.trim().trim_matches('`').to_owned();
        let labels = labels.split(',').map(word).filter(|label| !label.is_empty()).collect();
        assert_eq!(out.insert(word(name), (kind.to_owned(), labels)), None, "twice: {line}");
    }
    out
}

/// The same, as the page says.
fn exported(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut out: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            out.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').expect("a value").0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = [Some(name), base].into_iter().flatten().find(|name| out.contains_key(*name));
        let (_, known) = out.get_mut(name.unwrap_or_else(|| panic!("no type for {line}"))).expect("found");
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
        known.extend(labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
    }
    out
}

async fn page(cluster: &Cluster, node: usize) -> String {
    let page = cluster.get(node, "/metrics").await;
    assert_eq!(page.status, 200);
    page.text
}

/// Reads the page until it says so.
async fn until(cluster: &Cluster, node: usize, what: impl Fn(&BTreeMap<&str, f64>) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = page(cluster, node).await;
        if what(&values(&page)) {
            return page;
        }
        assert!(Instant::now() < deadline, "{page}");
        // Nothing in the process tells that a page would read otherwise now: it is a page.
        sleep(Duration::from_millis(50)).await;
    }
}

/// Enough commands, one an entry, that a digest is taken.
async fn past_a_digest(cluster: &Cluster, name: &str) {
    let (_, replica) = cluster.leader(1).await;
    let all = (0..1_100).map(|n| {
        let replica = replica.clone();
        let command = receive(name, 1, &format!("r{n}"));
        async move { replica.door().ask(command, Instant::now() + PATIENCE).await }
    });
    let before = replica.applied().borrow().position.index;
    // One at a time would take as many syncs; all at once would be one entry.
    let mut all = futures::stream::StreamExt::buffered(futures::stream::iter(all), 8);
    while futures::StreamExt::next(&mut all).await.is_some() {}
    let mut at = replica.applied().borrow().position.index;
    while at / 1_024 == before / 1_024 {
        cluster.ask(Command::SetOpen { offer: common::offer(name), open: true }).await;
        at = replica.applied().borrow().position.index;
    }
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    let page = page(&cluster, 0).await;
    let (documented, exported) = (documented(), exported(&page));
    for (name, said) in &documented {
        assert_eq!(exported.get(name), Some(said), "{name} on the page and in docs/metrics.md");
    }
    let unknown: Vec<_> = exported.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
}

#[tokio::test]
async fn entries_are_counted_by_their_commands_and_digests_by_what_came_of_them() {
    let cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    let (leader, replica) = cluster.leader(1).await;
    let several = (0..40).map(|n| replica.door().ask(receive("shoe", 1, &format!("b{n}")), Instant::now() + PATIENCE));
    futures::future::join_all(several).await;
    let page = page(&cluster, leader).await;
    let seen = values(&page);
    let entries = seen["holdfast_entry_commands_count"];
    assert!(entries > 0.0 && entries == seen["holdfast_entry_commands_bucket{le=\"8192\"}"], "{page}");
    assert!(seen["holdfast_entry_commands_sum"] >= 41.0, "{page}");
    assert!(seen["holdfast_entry_commands_bucket{le=\"1\"}"] < entries, "40 at once are not 40 entries: {page}");

    past_a_digest(&cluster, "shoe").await;
    let equal = "holdfast_digest_comparisons_total{result=\"equal\"}";
    let page = until(&cluster, leader, |seen| seen[equal] >= 2.0).await;
    let seen = values(&page);
    assert_eq!(seen["holdfast_digest_comparisons_total{result=\"different\"}"], 0.0, "{page}");
    for metric in ["holdfast_shard_diverged", "holdfast_shard_stopped"] {
        assert_eq!(seen[format!("{metric}{{shard=\"1\"}}").as_str()], 0.0, "{page}");
    }
}

#[tokio::test]
async fn a_replica_that_stopped_for_another_reason_has_not_diverged() {
    let mut cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    // Alone, so that nobody can repair it.
    cluster.stop(1).await;
    cluster.stop(2).await;
    cluster.node(0).shard(1).expect("a replica").group().quarantine("a test says so".to_owned(), 0).await;
    let page = page(&cluster, 0).await;
    let seen = values(&page);
    assert_eq!(seen["holdfast_shard_stopped{shard=\"1\"}"], 1.0, "{page}");
    assert_eq!(seen["holdfast_shard_diverged{shard=\"1\"}"], 0.0, "{page}");
}

#[tokio::test]
async fn a_shard_whose_replicas_differ_without_a_majority_is_diverged_and_not_stopped() {
    let bad = Arc::new(AtomicBool::new(false));
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        let bad = bad.clone();
        if i == 2 {
            seams.sabotage = Some(Arc::new(move |_, _, entry| {
                if bad.load(Ordering::Relaxed) {
                    entry.commands.pop();
                }
            }));
        }
    })
    .await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    let (leader, replica) = cluster.leader(1).await;
    if leader != 0 {
        replica.group().transfer_leader(ledger_raft::NodeId(1), PATIENCE).await.expect("node 1 leads");
    }
    cluster.stop(1).await;
    bad.store(true, Ordering::Relaxed);
    past_a_digest(&cluster, "shoe").await;
    let different = "holdfast_digest_comparisons_total{result=\"different\"}";
    let diverged = "holdfast_shard_diverged{shard=\"1\"}";
    let page = until(&cluster, 0, |seen| seen[different] >= 1.0 && seen[diverged] == 1.0).await;
    let seen = values(&page);
    assert_eq!(seen["holdfast_shard_stopped{shard=\"1\"}"], 0.0, "{page}");
    assert!(seen["holdfast_digest_no_majority_total"] >= 1.0, "{page}");
    assert!(seen["holdfast_digest_comparisons_total{result=\"unanswered\"}"] >= 1.0, "{page}");
}
