//! Disks that come back with less than they had: nothing that was acknowledged is lost, and the node is whole again in the end.

use std::path::PathBuf;

use jepsen_like_tests::faults::{Fault, LostBeyond, Others, Planned, Wiped};
use jepsen_like_tests::history::{Answer, Event};
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Report, Setting};
use jepsen_like_tests::workload::{Kind, load};

const NODE: usize = 1;
const EACH: [Others; 3] = [Others::RunOn, Others::Lag, Others::LagLater];
const SEED: u64 = 3;

/// A few clients that go on all the while.
fn run(faults: Vec<Planned>) -> Report {
    let usual = Setting::of(SEED);
    let mut load = load::lasting(usual.load.of(&[Kind::Herd, Kind::Returns]), usual.faults_ms);
    (load.clients, load.watchers, load.deadline_ms) = (4, 1, 600);
    let setting = Setting { faults: Some(faults), load, keep_trace: true, ..usual };
    let apart = Apart::new(PathBuf::from(env!("CARGO_BIN_EXE_jepsen")));
    let apart = Apart { verbose: std::env::var_os("V").is_some(), ..apart };
    apart.run(&setting).expect("a process")
}

/// Runs a loss of its disk and asserts that the node noticed it in this way, and is repaired.
fn noticed_and_repaired(fault: &Fault, how: &str) {
    let report = run(vec![Planned { at_ms: 500, fault: fault.clone() }]);
    assert_eq!(report.violations, vec![], "{fault:?}");
    assert_eq!(report.struck.get(fault.name()), Some(&1), "{fault:?}");
    for state in [how, "replica-repaired"] {
        let times = report.run.sometimes.get(state).copied().unwrap_or_default();
        assert!(times > 0, "{fault:?}: {state} is not in {:?}", report.run.sometimes);
    }
}

#[test]
fn a_log_that_is_gone_is_noticed_and_repaired() {
    for of in [Wiped::Log, Wiped::LogAndSnapshots, Wiped::NewestSegment] {
        noticed_and_repaired(&Fault::Wiped { node: NODE, of, others: Others::Lag, ms: 300 }, "log-lost");
    }
    for others in [Others::RunOn, Others::LagLater] {
        noticed_and_repaired(&Fault::Wiped { node: NODE, of: Wiped::Log, others, ms: 300 }, "log-lost");
    }
}

#[test]
fn a_segment_that_was_cut_short_is_noticed_and_repaired() {
    for (others, keep_percent) in EACH.into_iter().zip([0, 50, 99]) {
        noticed_and_repaired(&Fault::CutShort { node: NODE, keep_percent, others, ms: 300 }, "log-lost");
    }
}

#[test]
fn a_copied_directory_is_noticed_and_repaired() {
    for (others, after_ms) in EACH.into_iter().zip([0, 1_000, 2_000]) {
        noticed_and_repaired(&Fault::Copied { node: NODE, after_ms, others, ms: 300 }, "directory-copied");
    }
}

/// What two of three acknowledged may exist nowhere: nothing is answered, and both say why.
#[test]
fn beyond_a_quorum_nothing_is_answered_and_it_is_said() {
    for of in LostBeyond::ALL {
        let fault = Fault::Beyond { nodes: vec![0, 2], of, ms: 300 };
        let report = run(vec![Planned { at_ms: 2_000, fault }]);
        assert_eq!(report.violations, vec![], "{of:?}");
        assert_eq!(report.run.sometimes.get("stayed-unavailable"), Some(&1), "{of:?}");
        let beyond_ms = report.run.about.beyond_ms.expect("it struck");
        let asked = |e: &&Event| e.asked_ms >= beyond_ms && !e.op.is_read();
        let (after, before): (Vec<_>, Vec<_>) = report.run.events.iter().partition(asked);
        assert!(after.len() > 10 && before.iter().any(|e| matches!(e.answer, Answer::Ok { .. })), "{of:?}");
    }
}

/// No member takes the new disk for the one that it knows, however often the cluster is begun again.
#[test]
fn a_node_on_an_empty_disk_stays_out() {
    let report = run(vec![Planned { at_ms: 1_000, fault: Fault::Emptied { node: NODE, ms: 300, rejoins: false } }]);
    assert_eq!(report.violations, vec![]);
    assert_eq!(report.run.about.emptied, [NODE as u64 + 1]);
}

#[test]
fn a_node_on_an_empty_disk_that_is_brought_back_takes_part_again() {
    let report = run(vec![Planned { at_ms: 1_000, fault: Fault::Emptied { node: NODE, ms: 300, rejoins: true } }]);
    assert_eq!(report.violations, vec![]);
    assert_eq!(report.run.about.emptied, [0; 0], "it does not stay out");
    assert!(report.run.sometimes.contains_key("rejoined"), "{:?}", report.run.sometimes);
}

#[test]
fn an_older_disk_is_noticed_and_repaired() {
    for others in EACH {
        let fault = Fault::RolledBack { node: NODE, after_ms: 1_000, others, ms: 300 };
        noticed_and_repaired(&fault, "disk-went-back");
    }
}

/// What nobody who is reached remembers may be lost: so nothing else strikes until all others serve
/// and the node has asked them.
#[test]
fn an_older_disk_starts_only_beside_all_others() {
    let older = Fault::RolledBack { node: NODE, after_ms: 300, others: Others::Lag, ms: 300 };
    let at = |at_ms, fault| Planned { at_ms, fault };
    let crashes = (0..40).map(|n| at(900 + 150 * n, Fault::CrashAll { ms: 200 }));
    let report = run(std::iter::once(at(500, older)).chain(crashes).collect());
    assert_eq!(report.violations, vec![]);
    let lines = report.trace.iter().filter(|line| line.contains("fault ") || line.contains("start n"));
    // One other node lags and runs on, one loses power and is back, and then the node starts.
    let after: Vec<&str> = lines.skip_while(|line| !line.contains("RolledBack")).map(String::as_str).collect();
    let [_, other, node, next, ..] = after[..] else { panic!("{after:?}") };
    assert!(other.contains("start n") && node.contains("start n2"), "{after:?}");
    let at_us = |line: &str| line.split(' ').next().and_then(|at| at.parse::<u64>().ok()).expect("a time");
    assert!(next.contains("fault ") && at_us(next) >= at_us(node) + 1_000_000, "{after:?}");
    assert!(report.struck.get("crash-all").is_some_and(|times| *times > 0), "{:?}", report.struck);
}
