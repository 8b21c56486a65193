//! The walls between the crates, checked by a program: the crate graph, and words that must not cross.

use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may name, dev-dependencies aside.
const MAY_NAME: [(&str, &[&str]); 13] = [
    ("settings", &[]),
    ("service", &[]),
    ("ledger-core", &[]),
    ("auditor", &["ledger-core"]),
    ("ledger-raft", &[]),
    ("ledger-proto", &["ledger-core"]),
    ("ledger-node", &["ledger-core", "auditor", "ledger-raft", "ledger-proto", "service", "settings"]),
    ("client-sdk", &["ledger-core", "ledger-proto"]),
    ("order-worker", &["ledger-core", "client-sdk", "service", "settings"]),
    ("event-bridge", &["client-sdk", "service", "settings"]),
    ("payment-sim", &[]),
    (
        "cluster",
        &[
            "ledger-core",
            "auditor",
            "ledger-proto",
            "client-sdk",
            "ledger-node",
            "order-worker",
            "payment-sim",
            "settings",
        ],
    ),
    (
        "jepsen-like-tests",
        &["ledger-core", "ledger-raft", "ledger-proto", "ledger-node", "client-sdk", "cluster", "service", "settings"],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.map(|e| e.expect("readable").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

fn dependencies(manifest: &str) -> Vec<String> {
    let mut section = String::new();
    let mut named = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if section == "[dependencies]"
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
        {
            named.push(name.to_owned());
        }
    }
    named
}

#[test]
fn crates_name_only_whom_they_may() {
    for (krate, may) in MAY_NAME {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("manifest");
        for dep in dependencies(&manifest) {
            if MAY_NAME.iter().any(|(ours, _)| *ours == dep) {
                assert!(may.contains(&dep.as_str()), "{krate} must not depend on {dep}");
            }
            assert!(
                !dep.starts_with("openraft") || krate == "ledger-raft",
                "{krate} names {dep}; only ledger-raft may"
            );
            assert!(dep != "bincode" || krate == "ledger-core", "{krate} names bincode; only ledger-core's codec may");
            assert!(dep != "sled" || krate == "ledger-node", "{krate} names sled; only the node's history may");
        }
    }
}

#[test]
fn words_stay_behind_their_walls() {
    let only_in =
        [("bincode::", "ledger-core/src/codec"), ("sled::", "ledger-node/src/history"), ("openraft::", "ledger-raft/")];
    let mut files = Vec::new();
    for (krate, _) in MAY_NAME {
        sources(&root().join(krate).join("src"), &mut files);
    }
    assert!(files.len() > 50, "only {} source files found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let relative = file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        for (word, place) in only_in {
            assert!(!text.contains(word) || relative.starts_with(place), "{relative} names {word}");
        }
    }
}

/// Both let a follower's log go back unnoticed: beside a voter that forgot what it acknowledged,
/// entries are lost.
#[test]
fn no_follower_is_allowed_to_go_back() {
    let mut files = Vec::new();
    sources(&root().join("ledger-raft/src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        for word in ["allow_log_reversion", "allow_next_revert"] {
            assert!(!text.contains(word), "{}: {word} must not be used", file.display());
        }
    }
}

#[test]
fn the_core_asks_nobody() {
    let mut files = Vec::new();
    sources(&root().join("ledger-core/src"), &mut files);
    // Modules of tests draw their histories from seeds; they are no part of the ledger.
    files.retain(|file| !file.ends_with("tests.rs"));
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        for banned in
            ["std::time", "std::thread", "std::fs", "std::net", "std::env", "rand::", "tokio", "async fn", "f64", "f32"]
        {
            let hit = text.lines().find(|l| !l.trim_start().starts_with("//") && l.contains(banned));
            assert!(hit.is_none(), "{}: the core must not know {banned:?}: {hit:?}", file.display());
        }
    }
}

#[test]
fn every_module_says_what_it_owns() {
    let mut files = Vec::new();
    for (krate, _) in MAY_NAME {
        sources(&root().join(krate).join("src"), &mut files);
    }
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        assert!(text.starts_with("//!"), "{} has no module header", file.display());
    }
}
