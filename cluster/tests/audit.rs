//! The audit's three verdicts on real processes, and figures of a bench that loses a node.

use std::path::{Path, PathBuf};
use std::process::Output;

use cluster::dev_cluster::{DevCluster, NodeProgram};
use serde_json::Value;

fn ledgerctl() -> PathBuf {
    env!("CARGO_BIN_EXE_ledgerctl").into()
}

async fn cluster(dir: &Path) -> DevCluster {
    DevCluster::start(NodeProgram::ledgerctl(ledgerctl()), dir, 3, 2, &[]).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a command with JSON on its output.
async fn run(cluster: &DevCluster, arguments: &[&str]) -> (Output, Value) {
    let mut command = tokio::process::Command::new(ledgerctl());
    let endpoints = cluster.endpoints().join(",");
    let output =
        command.args(arguments).args(["-y", "-o", "json", "--endpoints", &endpoints]).output().await.expect("runs");
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, document)
}

#[tokio::test]
async fn a_small_quiet_cluster_is_compared_and_one_without_a_node_is_not_known() {
    let dir = tempfile::tempdir().expect("dir");
    let mut cluster = cluster(dir.path()).await;
    let (created, _) = run(&cluster, &["product", "create", "mug"]).await;
    assert!(created.status.success(), "{created:?}");
    let (audited, document) = run(&cluster, &["audit"]).await;
    assert_eq!((audited.status.code(), &document["verdict"]), (Some(0), &Value::from("holds")), "{audited:?}");
    assert_eq!(document["digests_compared"], 4, "two shards, three replicas: {document}");

    cluster.kill(3).expect("killed");
    let (audited, document) = run(&cluster, &["audit"]).await;
    assert_eq!((audited.status.code(), &document["verdict"]), (Some(3), &Value::from("not-known")), "{audited:?}");
    assert_eq!((&document["holds"], document["findings"].as_array().map(Vec::len)), (&Value::from(false), Some(0)));
    assert!(!document["incomplete"].as_array().expect("looks").is_empty(), "{document}");
    cluster.stop_all().await;
}

/// Begins a load, and waits until its products are there.
async fn begin_load(cluster: &DevCluster, rate: &str, seconds: &str) -> tokio::process::Child {
    let endpoints = cluster.endpoints().join(",");
    let bench = tokio::process::Command::new(ledgerctl())
        .args(["bench", "--shape", "a2", "--rate", rate, "--seconds", seconds, "-y", "-o", "json"])
        .args(["--endpoints", &endpoints])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("runs");
    loop {
        let (listed, products) = run(cluster, &["product", "list"]).await;
        if listed.status.success() && products.to_string().contains("bench-") {
            return bench;
        }
    }
}

/// Replicas that never stand at one index when they are asked share digests that they took as time passed.
#[tokio::test]
async fn replicas_under_a_small_steady_load_are_compared() {
    let dir = tempfile::tempdir().expect("dir");
    let mut cluster = cluster(dir.path()).await;
    let load = begin_load(&cluster, "200", "120").await;
    for _ in 0..5 {
        let (audited, document) = run(&cluster, &["audit", "--no-history"]).await;
        assert_eq!((audited.status.code(), &document["verdict"]), (Some(0), &Value::from("holds")), "{audited:?}");
        assert_eq!(document["digests_compared"], 4, "two shards, three replicas: {document}");
    }
    drop(load);
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_bench_that_loses_a_node_prints_its_figures() {
    let dir = tempfile::tempdir().expect("dir");
    let mut cluster = cluster(dir.path()).await;
    let follower = match cluster.leader_of(1).await.expect("led") {
        3 => 2,
        _ => 3,
    };
    let bench = begin_load(&cluster, "50", "4").await;
    cluster.kill(follower).expect("killed");
    let ended = bench.wait_with_output().await.expect("it ends");
    let document: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    assert!(document["runs"][0]["per_second"].as_f64().is_some_and(|n| n > 0.0), "{document}");
    assert_ne!(ended.status.code(), Some(0), "the audit could not look everywhere");
    cluster.stop_all().await;
}
