//! No node outlives the process that started it, however that one ends.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `ledgerctl dev` is killed with SIGKILL: its nodes notice the closed pipe and end by themselves.
#[test]
fn nodes_end_when_their_parent_is_killed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut dev = Command::new(env!("CARGO_BIN_EXE_ledgerctl"))
        .args(["dev", "--output", "json", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ledgerctl runs");
    let stdout = dev.stdout.take().expect("piped");
    let document: serde_json::Value = {
        use serde::Deserialize;
        let mut stream = serde_json::Deserializer::from_reader(stdout);
        serde_json::Value::deserialize(&mut stream).expect("a document")
    };
    let nodes: Vec<i32> =
        document["nodes"].as_array().expect("nodes").iter().map(|n| n["pid"].as_i64().expect("pid") as i32).collect();
    assert_eq!(nodes.len(), 3);
    dev.kill().expect("kill");
    dev.wait().expect("wait");
    let alive = |pid: &i32| {
        let pid = rustix::process::Pid::from_raw(*pid).expect("a pid");
        rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid)
    };
    let until = Instant::now() + Duration::from_secs(10);
    while nodes.iter().any(alive) {
        assert!(Instant::now() < until, "nodes {nodes:?} outlive their parent");
        std::thread::yield_now();
    }
}

/// An orphan that has ended but was not yet waited for by its new parent.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
