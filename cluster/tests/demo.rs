//! The demo end to end, small: real processes, a real kill, and the audit.

use std::process::Command;

/// One kill of the hot shard's leader under 300 buyers for 20 units: exactly 20 are sold and nothing acknowledged is lost.
#[test]
fn a_small_demo_with_a_kill_holds() {
    let ledgerctl = env!("CARGO_BIN_EXE_ledgerctl");
    let out = Command::new(ledgerctl)
        .args(["demo", "--buyers", "300", "--units", "20", "--shoppers", "20", "--seed", "7", "--output", "json"])
        .output()
        .expect("ledgerctl runs");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "exit {:?}\n{told}\n{}", out.status.code(), String::from_utf8_lossy(&out.stdout));
    let demo: serde_json::Value = serde_json::from_slice(&out.stdout).expect("stdout is one JSON document");
    assert_eq!(demo["holds"], true, "{demo:#}");
    assert_eq!(demo["stock"][0]["sold"], 20, "{demo:#}");
    assert_eq!(demo["stock"][0]["recomputed_sold"], 20, "{demo:#}");
    assert_eq!((&demo["oversold"], &demo["stranded"], &demo["lost"]), (&0.into(), &0.into(), &0.into()), "{demo:#}");
    assert_eq!(demo["kills"].as_array().map(Vec::len), Some(1), "{demo:#}");
    assert!(demo["read_back"][0].as_u64() > Some(0), "{demo:#}");
}

/// Bad input is a usage error before any process is started.
#[test]
fn bad_input_to_the_demo_is_a_usage_error() {
    let ledgerctl = env!("CARGO_BIN_EXE_ledgerctl");
    for args in [
        &["demo", "--hot", "nothing-of-that-name"][..],
        &["demo", "--units", "51"],
        &["demo", "--catalog", "/nonexistent.csv"],
    ] {
        let out = Command::new(ledgerctl).args(args).output().expect("ledgerctl runs");
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout.is_empty(), "data only to stdout");
    }
}
