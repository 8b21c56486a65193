//! `ledgerctl data-dir`: a directory that was moved by a copy belongs to where it is once its owner vouches for it.

use std::path::Path;
use std::process::{Command, Output};

use ledger_proto::v1;

mod common;

use common::node;

fn moved(dir: &Path, more: &[&str]) -> Output {
    let dir = dir.to_str().expect("a name");
    let args = [&["data-dir", "moved", "--data-dir", dir], more].concat();
    Command::new(env!("CARGO_BIN_EXE_ledgerctl")).args(args).output().expect("ledgerctl runs")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

/// A cluster of one in a directory, stopped.
async fn stopped_node(dir: &Path) {
    let running = node(dir).await;
    let member = v1::Member { node: 1, client: running.client_addr().to_string(), ..v1::Member::default() };
    let request = v1::InitRequest { members: vec![member], shards: 1, replicas: 1 };
    running.node().init(request).await.expect("a cluster of one");
    running.shutdown(std::time::Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_copy_that_was_started_before_somebody_vouched_for_it_stays_damaged_and_says_so() {
    let dirs = tempfile::tempdir().expect("a directory");
    let (old, new) = (dirs.path().join("old"), dirs.path().join("new"));
    stopped_node(&old).await;
    copy(&old, &new);
    node(&new).await.shutdown(std::time::Duration::from_secs(5)).await;
    let late = moved(&new, &["--original-is-retired"]);
    let why = String::from_utf8_lossy(&late.stderr).into_owned();
    assert_eq!(late.status.code(), Some(1), "{why}");
    assert!(why.contains("is damaged") && why.contains("copied") && why.contains("nothing was changed"), "{why}");
    assert!(why.contains("hint: ") && why.contains("copy the original again"), "{why}");
}

#[tokio::test]
async fn a_node_whose_directory_was_moved_runs_on_once_its_owner_vouches_for_it() {
    let dirs = tempfile::tempdir().expect("a directory");
    let (old, new) = (dirs.path().join("old"), dirs.path().join("new"));
    stopped_node(&old).await;
    copy(&old, &new);

    let without = moved(&new, &[]);
    assert_eq!(without.status.code(), Some(2), "nobody vouched");
    let nothing = moved(dirs.path(), &["--original-is-retired"]);
    assert_eq!(nothing.status.code(), Some(1), "no node's directory");
    let vouched = moved(&new, &["--original-is-retired"]);
    assert!(vouched.status.success(), "{}", String::from_utf8_lossy(&vouched.stderr));
    assert!(String::from_utf8_lossy(&vouched.stdout).contains("belongs here from now on"));

    // A node of a damaged directory would lead nothing: nobody could repair it.
    let running = node(&new).await;
    let in_use = moved(&new, &["--original-is-retired"]);
    assert_eq!(in_use.status.code(), Some(1), "the node runs");
    let mut state = running.node().watch_state();
    state.wait_for(|state| *state == ledger_node::NodeState::Serving).await.expect("it serves");
    let shard = running.node().shard(1).expect("its shard");
    shard.group().watch().wait_for(|_| shard.leads()).await.expect("it leads");
    running.shutdown(std::time::Duration::from_secs(5)).await;
}
