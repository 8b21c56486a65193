//! The command itself: exit codes and words that people and CI rely on.

use std::path::Path;
use std::process::{Command, Output};

fn jepsen(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jepsen")).args(args).current_dir(dir).output().expect("the command runs")
}

fn said(output: &Output) -> String {
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
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    assert!(said(&bad).contains("never oversold") && said(&bad).contains("conserved"), "{}", said(&bad));
    std::fs::write(dir.path().join("empty.jsonl"), "").expect("it can be written");
    let good = jepsen(dir.path(), &["check", "empty.jsonl"]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    let none = jepsen(dir.path(), &["check", "no-such.jsonl"]);
    assert_eq!(none.status.code(), Some(2), "{}", said(&none));
}

#[test]
fn what_there_is_is_listed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let listed = said(&jepsen(dir.path(), &["list"]));
    for word in ["herd", "crash-in-recovery", "partition-ring", "never oversold", "ack-before-sync"] {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
}

#[test]
fn a_good_build_does_not_pretend_to_bite() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bite = jepsen(dir.path(), &["bite"]);
    let expected = if cfg!(holdfast_known_bad) { Some(0) } else { Some(2) };
    assert_eq!(bite.status.code(), expected, "{}", said(&bite));
}

#[test]
fn real_processes_are_killed_and_a_run_with_hardly_any_load_proves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let of = |rate_min: &str| {
        let args = ["real", "--nemesis", "kill", "--minutes", "0.1", "--clients", "6", "--rate-min", rate_min];
        jepsen(dir.path(), &args)
    };
    let held = of("1");
    assert_eq!(held.status.code(), Some(0), "{}", said(&held));
    assert!(said(&held).contains("kill") && said(&held).contains("held"), "{}", said(&held));
    let idle = of("1000000");
    assert_eq!(idle.status.code(), Some(1), "{}", said(&idle));
    assert!(said(&idle).contains("proves nothing"), "{}", said(&idle));
    assert!(dir.path().join("history.jsonl").exists(), "a failing round's journal is kept");
}
