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

/// Directories have mode 0700 and files 0600, whatever the umask of who starts them: nodes,
/// `ledgerctl` and libraries make them.
#[test]
fn data_directory_and_files_are_the_owner_s_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let mut dev = Command::new("sh")
        .args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ledgerctl")])
        .args(["dev", "--output", "json", "--dir"])
        .arg(dir.path().join("dev"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs ledgerctl");
    let stdout = dev.stdout.take().expect("piped");
    let mut stream = serde_json::Deserializer::from_reader(stdout);
    let _ready: serde_json::Value = serde::Deserialize::deserialize(&mut stream).expect("a document");
    let found = walk(&dir.path().join("dev"));
    dev.kill().expect("kill");
    dev.wait().expect("wait");
    let has = |part: &str| found.iter().any(|(path, _)| path.contains(part));
    assert!(has("/wal/") && has("/history/") && has("/LOCK"), "the nodes have written: {found:?}");
    let wide: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(wide.is_empty(), "others may use {wide:?}");
}

/// Everything in a directory and itself, with its mode. What is removed meanwhile is left out.
fn walk(path: &std::path::Path) -> Vec<(String, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return Vec::new() };
    let mut all = vec![(path.display().to_string(), found.mode() & 0o777)];
    let inside = found.is_dir().then(|| std::fs::read_dir(path).into_iter().flatten().flatten());
    all.extend(inside.into_iter().flatten().flat_map(|entry| walk(&entry.path())));
    all
}

/// An orphan that has ended but was not yet waited for by its new parent.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
