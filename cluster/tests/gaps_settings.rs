//! `ledgerctl cluster settings` on a real cluster, as scripts would use it.

use std::process::{Command, Output};

use cluster::dev_cluster::{DevCluster, NodeProgram};

const LEDGERCTL: &str = env!("CARGO_BIN_EXE_ledgerctl");

fn run(endpoints: &str, args: &[&str]) -> (serde_json::Value, Output) {
    let all = [&["--output", "json", "cluster", "settings"], args].concat();
    let out = Command::new(LEDGERCTL).env("HOLDFAST_ENDPOINTS", endpoints).args(all).output().expect("ledgerctl runs");
    (serde_json::from_slice(&out.stdout).unwrap_or_default(), out)
}

#[tokio::test(flavor = "current_thread")]
async fn settings_are_shown_set_in_every_shard_and_safe_to_repeat() {
    let dir = tempfile::tempdir().expect("dir");
    let program = NodeProgram::ledgerctl(LEDGERCTL);
    let mut cluster = DevCluster::start(program, dir.path(), 3, 2, &[]).await.unwrap_or_else(|e| panic!("{e}"));
    let endpoints = cluster.endpoints();
    let (all, one) = (endpoints.join(","), endpoints[2].as_str());

    let (shown, out) = run(&all, &["show"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert_eq!(shown["retain_refused_ms"], 3_600_000, "{shown:#}");
    // Nobody to ask, so nothing is done.
    let (_, out) = run(&all, &["set", "--retain-refused", "2h"]);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("change retain refused from 1h to 2h"), "{out:?}");
    assert_eq!(run(&all, &["show"]).0, shown);

    let mut before = shown;
    for _again in 0..2 {
        let (set, out) = run(one, &["set", "--retain-refused", "2h", "--remembered-max", "50000", "--yes"]);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        assert_eq!((&set["retain_refused_ms"], &set["remembered_max"]), (&7_200_000.into(), &50_000.into()), "{set:#}");
        assert_eq!(
            (&set["in_force"], &set["not_yet"]),
            (&serde_json::json!([1, 2]), &serde_json::json!([])),
            "{set:#}"
        );
        assert_eq!(set["retain_sold_ms"], before["retain_sold_ms"], "what is not named stays");
        before = set;
    }
    assert_eq!(run(&all, &["show"]).0, before, "repeating it changed nothing");
    for bad in [&["set", "--yes", "--remembered-max", "1"][..], &["set", "--yes", "--retain-sold", "1s"]] {
        let (_, out) = run(&all, bad);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("allowed are"), "{out:?}");
    }
    assert_eq!(run(&all, &["set", "--yes"]).1.status.code(), Some(2), "nothing named");
    assert_eq!(run(&all, &["show"]).0, before);
    cluster.stop_all().await;
}
