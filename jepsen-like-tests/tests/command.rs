//! The command itself: exit codes and words that people and CI rely on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use cluster::dev_cluster::{DevCluster, NodeProgram};

fn jepsen(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jepsen")).args(args).current_dir(dir).output().expect("the command runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_journal_is_judged_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stock = |sold: u64| {
        let offer = format!(r#"{{"available":0,"held":0,"sold":{sold}}}"#);
        format!(
            r#"{{"line":"stock","node":1,"sku":"hot","index":3,"received":1,"adjusted":0,"returned":0,"offers":[{offer}]}}"#
        )
    };
    let op = r#"{"line":"op","client":1,"asked_ms":1,"answered_ms":2,"op":"receive","offer":{"sku":"hot"},"units":1,"reference":"r","answer":"unknown","why":"?"}"#;
    std::fs::write(dir.path().join("history.jsonl"), format!("{op}\n{}\n", stock(2))).expect("it can be written");
    let bad = jepsen(dir.path(), &["check"]);
    assert_eq!(bad.status.code(), Some(1), "{}", printed(&bad));
    assert!(printed(&bad).contains("never oversold") && printed(&bad).contains("conserved"), "{}", printed(&bad));
    std::fs::write(dir.path().join("empty.jsonl"), "").expect("it can be written");
    let good = jepsen(dir.path(), &["check", "empty.jsonl"]);
    assert_eq!(good.status.code(), Some(0), "{}", printed(&good));
    let none = jepsen(dir.path(), &["check", "no-such.jsonl"]);
    assert_eq!(none.status.code(), Some(2), "{}", printed(&none));
}

#[test]
fn what_there_is_is_listed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let listed = printed(&jepsen(dir.path(), &["list"]));
    for word in ["herd", "crash-in-recovery", "partition-ring", "never oversold", "ack-before-sync"] {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
}

#[test]
fn a_good_build_has_nothing_to_mutate() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tested = jepsen(dir.path(), &["mutation-test"]);
    let expected = if cfg!(holdfast_known_bad) { Some(0) } else { Some(2) };
    assert_eq!(tested.status.code(), expected, "{}", printed(&tested));
    if !cfg!(holdfast_known_bad) {
        let sim = jepsen(dir.path(), &["sim", "--seed", "1", "--known-bad", "ack-before-sync"]);
        assert_eq!(sim.status.code(), Some(2), "{}", printed(&sim));
        assert!(printed(&sim).contains("no known-bad switches"), "{}", printed(&sim));
    }
}

#[test]
fn real_processes_are_killed_and_a_run_with_hardly_any_load_proves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let of = |rate_min: &str| {
        let args = ["real", "--nemesis", "kill", "--minutes", "0.1", "--clients", "6", "--rate-min", rate_min];
        jepsen(dir.path(), &args)
    };
    let held = of("1");
    assert_eq!(held.status.code(), Some(0), "{}", printed(&held));
    assert!(printed(&held).contains("kill") && printed(&held).contains("held"), "{}", printed(&held));
    let idle = of("1000000");
    assert_eq!(idle.status.code(), Some(1), "{}", printed(&idle));
    assert!(printed(&idle).contains("proves nothing"), "{}", printed(&idle));
    assert!(dir.path().join("history.jsonl").exists(), "a failing round's journal is kept");
}

#[test]
fn somebodys_own_cluster_is_pressed_on_under_their_own_faults_and_its_nodes_are_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let theirs = ["real", "--endpoints", "127.0.0.1:9", "--nemesis", "partition-ring"];
    let refused = jepsen(dir.path(), &theirs);
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    assert!(printed(&refused).contains("not ours"), "{}", printed(&refused));

    let program = dir.path().join("fault");
    std::fs::write(&program, "#!/bin/sh\necho \"$1 $HOLDFAST_ENDPOINTS\" >> calls\n").expect("it can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = NodeProgram::ledgerctl(env!("CARGO_BIN_EXE_jepsen"));
    let nodes = dir.path().join("nodes");
    let mut cluster = runtime.block_on(DevCluster::start(node, &nodes, 3, 2, &[])).expect("a cluster");
    let endpoints = cluster.endpoints();
    let one_of_them = ["real", "--endpoints", endpoints[1].as_str(), "--minutes", "0.1", "--clients", "4"];
    let pressed = jepsen(dir.path(), &[&one_of_them[..], &["--fault-program", "./fault", "--rate-min", "1"]].concat());
    assert_eq!(pressed.status.code(), Some(0), "{}", printed(&pressed));
    assert!(printed(&pressed).contains("program"), "{}", printed(&pressed));
    let calls = std::fs::read_to_string(dir.path().join("calls")).expect("the program was called");
    let calls: Vec<&str> = calls.lines().collect();
    for (n, call) in calls.iter().enumerate() {
        assert_eq!(*call, format!("{} {}", ["inject", "heal"][n % 2], endpoints.join(",")));
    }
    assert!(calls.len() >= 2 && calls.len().is_multiple_of(2), "each fault is healed: {calls:?}");

    // Its books are not empty any more, and the program of the next one says no.
    let again = jepsen(dir.path(), &one_of_them);
    assert_eq!(again.status.code(), Some(2), "{}", printed(&again));
    assert!(printed(&again).contains("exists already"), "{}", printed(&again));
    runtime.block_on(cluster.stop_all());
}

#[test]
fn a_failing_setting_is_shrunk_to_one_that_fails_as_well() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let holds = jepsen(dir.path(), &["shrink", "--seed", "3", "--runs", "2"]);
    assert_eq!(holds.status.code(), Some(0), "{}", printed(&holds));
    assert!(printed(&holds).contains("nothing to shrink"), "{}", printed(&holds));

    // Clients that ask beyond the bound of the run: it fails in any build, and neither fault has a part in it.
    let faults =
        r#"[{"at_ms":100,"fault":"transfer","shard":0,"to":1},{"at_ms":200,"fault":"snapshot","who":{"node":1}}]"#;
    let load = r#"{"clients":2,"kinds":1,"products":1,"watchers":0,"ends_ms":900000,"pause_ms_max":8000}"#;
    let whole = format!(r#"{{"seed":3,"nodes":3,"load":{load},"stretch":2,"faults_ms":1000,"faults":{faults}}}"#);
    std::fs::write(dir.path().join("whole.json"), whole).expect("it can be written");
    let shrunk = jepsen(dir.path(), &["shrink", "--plan", "whole.json", "--runs", "3"]);
    assert_eq!(shrunk.status.code(), Some(1), "{}", printed(&shrunk));
    assert!(printed(&shrunk).contains("0 of 2 faults are left"), "{}", printed(&shrunk));
    let again = jepsen(dir.path(), &["sim", "--plan", "shrunk.json"]);
    assert_eq!(again.status.code(), Some(1), "{}", printed(&again));
    assert!(printed(&again).contains("not done after"), "{}", printed(&again));
}
