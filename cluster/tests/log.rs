//! `ledgerctl log`: a stopped node's log is shown, with what cannot be decoded in it, and is not changed by a look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use ledger_proto::v1;

mod common;

use common::node;

const LEDGERCTL: &str = env!("CARGO_BIN_EXE_ledgerctl");
/// An entry of format 1 with a byte behind its end.
const MALFORMED: &[u8] = &[1, 1, 0, 0, 0, 0, 9];

fn log(args: &[&str]) -> Output {
    Command::new(LEDGERCTL).arg("log").args(args).output().expect("ledgerctl runs")
}

fn json(args: &[&str]) -> serde_json::Value {
    let out = log(&[args, &["--output", "json"]].concat());
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("a document")
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
    found
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_shown_of_a_stopped_node_and_only_of_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = node(dir.path()).await;
    let member = v1::Member { node: 1, client: running.client_addr().to_string(), ..v1::Member::default() };
    let request = v1::InitRequest { members: vec![member], shards: 1, replicas: 1 };
    running.node().init(request).await.expect("a cluster of one");
    let shard = running.node().shard(1).expect("its shard");
    let refused = shard.group().propose(Bytes::from_static(MALFORMED)).await.expect("a definite answer").at;
    let data_dir = dir.path().to_str().expect("a name").to_owned();
    let index = refused.index.to_string();
    let show = ["show", "--data-dir", &data_dir, "--group", "1", "--index", &index];

    let in_use = log(&show);
    assert_eq!(in_use.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("is in use"), "{in_use:?}");

    running.shutdown(Duration::from_secs(5)).await;
    let before = files(dir.path());
    let entry = json(&show);
    assert_eq!(
        (&entry["index"], &entry["term"], &entry["kind"]),
        (&refused.index.into(), &refused.term.into(), &"malformed".into())
    );
    assert_eq!((&entry["format"], &entry["bytes"], &entry["prefix"]), (&1.into(), &7.into(), &"01010000000009".into()));
    assert!(entry["error"].as_str().is_some_and(|why| why.contains("bytes follow its end")), "{entry}");
    assert_eq!(entry["hash"].as_str().map(str::len), Some(32));
    let text = log(&show);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("every replica refuses it as a whole"), "{text}");

    let list = ["list", "--data-dir", &data_dir];
    let groups = json(&list);
    assert_eq!((&groups[0]["group"], &groups[1]["group"]), (&0.into(), &1.into()));
    let only = json(&[&list[..], &["--group", "1", "--refused"]].concat());
    assert_eq!(only.as_array().map(Vec::len), Some(1));
    assert_eq!(only[0]["index"], refused.index);
    let newest = json(&[&list[..], &["--group", "1", "--max", "2"]].concat());
    assert_eq!(newest.as_array().map(Vec::len), Some(2));
    let meta = json(&[&list[..], &["--group", "0"]].concat());
    assert!(meta.as_array().is_some_and(|all| all.iter().any(|entry| entry["kind"] == "commands")), "{meta}");

    let absent = log(&["show", "--data-dir", &data_dir, "--group", "1", "--index", "999999"]);
    assert_eq!(absent.status.code(), Some(1));
    let nowhere = log(&["list", "--data-dir", "/nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(files(dir.path()) == before, "a look changes nothing");
}
