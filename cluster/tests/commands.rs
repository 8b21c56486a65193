//! The operator's verbs on a real cluster of three processes, as scripts would use them.

use std::process::{Command, Output};

use cluster::dev_cluster::{DevCluster, NodeProgram};

const LEDGERCTL: &str = env!("CARGO_BIN_EXE_ledgerctl");

/// The operator's hand on one cluster.
struct Hand {
    endpoints: String,
}

/// Pause between two runs of the program that look for a change.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
/// Replicas learn within some seconds of their start how current they are.
const HEALTHY_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

impl Hand {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(LEDGERCTL).env("HOLDFAST_ENDPOINTS", &self.endpoints).args(args).output().expect("ledgerctl runs")
    }
    /// Runs with `--yes -o json`; the document and the exit code.
    fn json(&self, args: &[&str]) -> (serde_json::Value, i32) {
        let out = self.run(&[args, &["--yes", "--output", "json"]].concat());
        let document = serde_json::from_slice(&out.stdout).unwrap_or(serde_json::Value::Null);
        (document, out.status.code().unwrap_or(-1))
    }
    fn ok(&self, args: &[&str]) -> serde_json::Value {
        let (document, code) = self.json(args);
        assert_eq!(code, 0, "{args:?}: {document:#}");
        document
    }
    fn refused(&self, args: &[&str]) {
        assert_eq!(self.json(args).1, 1, "{args:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn the_verbs_do_what_they_say_and_are_safe_to_repeat() {
    let dir = tempfile::tempdir().expect("dir");
    let program = NodeProgram::ledgerctl(LEDGERCTL);
    let mut cluster = DevCluster::start(program, dir.path(), 3, 2, &[]).await.unwrap_or_else(|e| panic!("{e}"));
    let hand = Hand { endpoints: cluster.endpoints().join(",") };

    let until = tokio::time::Instant::now() + HEALTHY_WITHIN;
    while hand.json(&["status"]).0["healthy"] != true {
        assert!(tokio::time::Instant::now() < until, "{:#}", hand.json(&["status"]).0);
        tokio::time::sleep(LOOK).await;
    }
    for again in [false, true] {
        hand.ok(&["product", "create", "mug", "--units", "100", "--ref", "first"]);
        assert_eq!(hand.ok(&["receive", "mug", "50", "--ref", "second"])["replayed"], again);
        assert_eq!(hand.ok(&["adjust", "mug", "-2", "--reason", "broken", "--ref", "count"])["available"], 148);
    }
    hand.refused(&["receive", "mug", "51", "--ref", "second"]);
    hand.refused(&["adjust", "mug", "-149", "--reason", "x", "--ref", "too-much"]);
    hand.refused(&["product", "show", "cup"]);
    hand.refused(&["receive", "cup", "1", "--ref", "r"]);

    hand.ok(&["sale", "create", "friday", "--sku", "mug=20", "--per-key-max", "2"]);
    let repeated = hand.ok(&["sale", "create", "friday", "--sku", "mug=20", "--per-key-max", "2"]);
    assert_eq!(repeated[0]["available"], 20, "the allotment moved once");
    let held = hand.ok(&["reserve", "mug=2", "--sale", "friday", "--buyer", "alice"]);
    let id = held["id"].as_str().expect("an id").to_owned();
    assert_eq!(held["status"], "held");
    assert_eq!(hand.ok(&["reserve", "mug=2", "--sale", "friday", "--buyer", "alice", "--id", &id])["id"], id.as_str());
    hand.refused(&["reserve", "mug=1", "--sale", "friday", "--buyer", "alice"]);
    hand.ok(&["extend", &id, "--hold", "20m"]);
    assert_eq!(hand.ok(&["confirm", &id])["status"], "confirmed");
    hand.refused(&["release", &id]);
    assert_eq!(hand.ok(&["reservation", "show", &id])["lines"][0]["sold"], 2);
    assert_eq!(hand.ok(&["resolve", &id])["status"], "confirmed");
    hand.ok(&["product", "close", "mug"]);
    hand.refused(&["reserve", "mug=1", "--buyer", "bob"]);
    hand.ok(&["product", "open", "mug"]);
    assert_eq!(hand.ok(&["sale", "end", "friday"])[0]["state"], "ended");
    assert_eq!(hand.ok(&["product", "show", "mug"])["offers"][0]["available"], 146);

    imports_add_nothing_twice(&hand, dir.path());
    unasked_changes_are_not_made(&hand);
    let audit = hand.ok(&["audit"]);
    assert_eq!(audit["holds"], true, "{audit:#}");
    assert_eq!(audit["books"]["sold"], 2, "{audit:#}");

    // A node that is gone is a problem that status names, and stock goes on.
    cluster.kill(3).unwrap_or_else(|e| panic!("{e}"));
    let (status, code) = hand.json(&["status"]);
    assert_eq!((code, &status["healthy"]), (1, &false.into()), "{status:#}");
    hand.ok(&["receive", "mug", "1", "--ref", "with two nodes"]);

    // Without a quorum both the status and the refusal of a call name the nodes that are missing.
    cluster.kill(2).unwrap_or_else(|e| panic!("{e}"));
    let names = |text: &str| text.contains("shard 1 has no quorum") && text.contains("node 2 is unreachable");
    let until = tokio::time::Instant::now() + HEALTHY_WITHIN;
    while !names(&hand.json(&["status"]).0["problems"].to_string()) {
        assert!(tokio::time::Instant::now() < until, "{:#}", hand.json(&["status"]).0);
        tokio::time::sleep(LOOK).await;
    }
    let alone = hand.run(&["receive", "mug", "1", "--ref", "alone", "--yes"]);
    let why = String::from_utf8_lossy(&alone.stderr);
    assert_eq!(alone.status.code(), Some(1), "{why}");
    assert!(why.contains("has no quorum") && why.contains("node 3 is unreachable"), "{why}");
    cluster.stop_all().await;
}

fn imports_add_nothing_twice(hand: &Hand, dir: &std::path::Path) {
    let file = dir.join("delivery.csv");
    let path = file.to_str().expect("a path");
    std::fs::write(&file, "sku,units,price\nplate,10,EUR 4\nbowl,5,EUR 3\nplate,7,EUR 4\n").expect("write");
    let first = hand.ok(&["import", path]);
    assert_eq!((&first["created"], &first["received_units"]), (&2.into(), &22.into()), "{first:#}");
    let again = hand.ok(&["import", path]);
    assert_eq!((&again["received_units"], &again["already_there"]), (&0.into(), &3.into()), "{again:#}");
    assert_eq!(hand.ok(&["product", "show", "plate"])["received"], 17);

    std::fs::write(&file, "sku,units\nsaucer,10\nbowl,many\n").expect("write");
    let out = hand.run(&["import", path, "--yes"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("line 3: units is \"many\""));
    hand.refused(&["product", "show", "saucer"]);
}

fn unasked_changes_are_not_made(hand: &Hand) {
    let out = hand.run(&["receive", "mug", "5", "--ref", "unasked"]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{told}");
    assert!(
        told.contains("will: add 5 units to mug") && told.contains("hint: repeat the command with --yes"),
        "{told}"
    );
}
