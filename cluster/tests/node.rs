//! `ledgerctl node rejoin` on real processes: a member whose directory is gone comes back, and nothing is lost.

use std::process::{Command, Output};

use cluster::dev_cluster::{DevCluster, NodeProgram};

const LEDGERCTL: &str = env!("CARGO_BIN_EXE_ledgerctl");

fn ledgerctl(endpoints: &str, args: &[&str]) -> Output {
    Command::new(LEDGERCTL).env("HOLDFAST_ENDPOINTS", endpoints).args(args).output().expect("ledgerctl runs")
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn a_member_that_lost_its_directory_is_brought_back_by_one_command() {
    let dir = tempfile::tempdir().expect("dir");
    let program = NodeProgram::ledgerctl(LEDGERCTL);
    let mut cluster = DevCluster::start(program, dir.path(), 3, 2, &[]).await.unwrap_or_else(|e| panic!("{e}"));
    let endpoints = cluster.endpoints().join(",");
    let run = |args: &[&str]| ledgerctl(&endpoints, args);
    let created = run(&["product", "create", "mug", "--units", "100", "--ref", "first", "--yes"]);
    assert!(created.status.success(), "{}", stderr(&created));

    let healthy = run(&["node", "rejoin", "2", "--yes"]);
    assert_eq!(healthy.status.code(), Some(1), "{}", stderr(&healthy));
    assert!(stderr(&healthy).contains("nothing to come back from"), "{}", stderr(&healthy));

    for node in [2, 3] {
        cluster.kill(node).unwrap_or_else(|e| panic!("{e}"));
    }
    let data = cluster.node(2).expect("there").data_dir();
    std::fs::remove_dir_all(&data).expect("removed");
    std::fs::create_dir(&data).expect("made");
    cluster.spawn(2).unwrap_or_else(|e| panic!("{e}"));
    cluster.wait_up(2).await.unwrap_or_else(|e| panic!("{e}"));
    let nobody_asked = run(&["node", "rejoin", "2"]);
    assert_eq!(nobody_asked.status.code(), Some(2), "{}", stderr(&nobody_asked));
    assert!(stderr(&nobody_asked).contains("will: bring node 2 back"), "{}", stderr(&nobody_asked));
    let without = run(&["node", "rejoin", "2", "--yes"]);
    assert_eq!(without.status.code(), Some(1), "{}", stderr(&without));
    assert!(
        stderr(&without).contains("node 3 (") && stderr(&without).contains("nothing was changed"),
        "{}",
        stderr(&without)
    );

    cluster.spawn(3).unwrap_or_else(|e| panic!("{e}"));
    cluster.wait_up(3).await.unwrap_or_else(|e| panic!("{e}"));
    for already in [false, true] {
        let back = run(&["node", "rejoin", "2", "--yes", "--output", "json"]);
        assert!(back.status.success(), "{}", stderr(&back));
        let document: serde_json::Value = serde_json::from_slice(&back.stdout).expect("a document");
        let one = &document[0];
        assert_eq!((&one["node"], &one["disk_generation"]), (&2.into(), &1.into()), "{document:#}");
        assert_eq!((&one["already"], &one["repaired"]), (&already.into(), &true.into()), "{document:#}");
    }
    // It is one of the two that are needed now.
    cluster.kill(3).unwrap_or_else(|e| panic!("{e}"));
    let received = run(&["receive", "mug", "1", "--ref", "second", "--yes", "--output", "json"]);
    assert!(received.status.success(), "{}", stderr(&received));
    cluster.stop_all().await;
}
