//! What the fuzzer calls, called with every input that is checked in: what was found stays found, without a fuzzer.
//!
//! `HOLDFAST_WRITE_SEEDS=1 cargo test -p jepsen-like-tests --test fuzz_seeds` writes the right bytes of each kind again, after a format changed.

use std::path::{Path, PathBuf};

#[path = "fuzz_seeds/right.rs"]
mod right;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 8] = [
    ("client_frames", ledger_proto::fuzzing::client_frame),
    ("peer_frames", |bytes| {
        ledger_raft::fuzzing::peer_frames(bytes);
        ledger_node::fuzzing::peer_body(bytes);
    }),
    ("http_bodies", ledger_node::fuzzing::http_body),
    ("entries", ledger_core::fuzzing::entries),
    ("wal", ledger_raft::fuzzing::wal),
    ("snapshot", |bytes| {
        ledger_core::fuzzing::snapshot(bytes);
        ledger_raft::fuzzing::snapshot_file(bytes);
    }),
    ("history", |bytes| {
        ledger_core::fuzzing::record(bytes);
        ledger_node::fuzzing::history(bytes);
    }),
    ("identity", ledger_node::fuzzing::identity),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").join("fuzz")
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = fuzz().join("seeds").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

#[test]
fn every_checked_in_input_is_survived() {
    if std::env::var_os("HOLDFAST_WRITE_SEEDS").is_some() {
        right::write(&fuzz().join("seeds"));
    }
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 5, "{target} has only {} inputs", inputs.len());
        for (path, bytes) in inputs {
            let survived = std::panic::catch_unwind(|| run(&bytes));
            assert!(survived.is_ok(), "{} ended in a panic, shown above", path.display());
        }
    }
}

#[test]
fn every_target_of_the_fuzzer_is_run_here() {
    let targets = std::fs::read_dir(fuzz().join("fuzz_targets")).expect("the fuzzer's targets");
    for target in targets.map(|entry| entry.expect("readable").path()) {
        let name = target.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(TARGETS.iter().any(|(known, _)| *known == name), "{name} is run by no test");
    }
}
