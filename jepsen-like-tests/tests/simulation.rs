//! A handful of seeds, so that the tests alone notice a broken cluster or a run that its seed does not decide; `jepsen sim` runs thousands.
//! Each run has a process of its own, as the command does it.

use std::path::PathBuf;

use jepsen_like_tests::faults::{Fault, Planned, Rotten, Who};
use jepsen_like_tests::history::Answer;
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Setting, meta};
use jepsen_like_tests::workload::Kind;

fn apart() -> Apart {
    Apart::new(PathBuf::from(env!("CARGO_BIN_EXE_jepsen")))
}

#[test]
fn the_first_seeds_hold() {
    for seed in 1..=6 {
        let report = apart().run(&Setting::of(seed)).expect("a process");
        assert_eq!(report.violations, vec![], "seed {seed}: jepsen sim --seed {seed} --verbose");
        let ok = report.run.events.iter().filter(|e| matches!(e.answer, Answer::Ok { .. })).count();
        assert!(ok > 20, "seed {seed}: only {ok} operations succeeded: the run proves nothing");
        assert!(report.converged_after.is_some(), "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_run_byte_for_byte() {
    // Seed 5 has five nodes.
    for seed in [5, 11, 23] {
        let report = meta(&Setting::of(seed), &apart()).expect("two processes");
        assert_eq!(report.differs, None, "jepsen meta --seed {seed}");
        assert!(report.lines[0] > 1_000, "a trace of {} lines compares nothing", report.lines[0]);
    }
}

#[test]
fn another_seed_gives_another_run() {
    let digest = |seed| apart().run(&Setting::of(seed)).expect("a process").trace_digest;
    assert_ne!(digest(3), digest(4));
}

#[test]
fn a_smaller_plan_can_be_run_instead_of_the_seeds_own() {
    let none = Setting { faults: Some(Vec::new()), ..Setting::of(9) };
    let report = apart().run(&none).expect("a process");
    assert_eq!(report.violations, vec![]);
    assert!(report.struck.is_empty(), "{:?}", report.struck);
}

#[test]
fn a_run_that_hangs_or_dies_is_a_failed_run() {
    let within = std::time::Duration::from_millis(1);
    let hung = Apart { within, ..apart() }.run(&Setting::of(1)).expect("a process");
    assert_eq!(hung.violations.len(), 1, "{:?}", hung.violations);
    // Whether it dies before or after it was told what to run: no pipe takes in this much at once.
    let fault = Planned { at_ms: 1, fault: Fault::ClockJump { who: Who::Node(1), by_ms: 1 } };
    let long = Setting { faults: Some(vec![fault; 10_000]), ..Setting::of(1) };
    for setting in [Setting::of(1), long] {
        let died = Apart::new(PathBuf::from("false")).run(&setting).expect("a process");
        assert_eq!(died.violations.len(), 1, "{:?}", died.violations);
    }
}

#[test]
fn a_bit_that_flips_anywhere_in_a_log_is_healed_by_the_peers() {
    // Whichever group the sector belongs to, the meta group's too.
    for place in (0..8u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a)) {
        let rot = Planned { at_ms: 3_000, fault: Fault::Rot { node: 1, of: Rotten::Log, place, ms: 500 } };
        let report = apart().run(&Setting { faults: Some(vec![rot]), ..Setting::of(3) }).expect("a process");
        assert_eq!(report.violations, vec![], "place {place}");
        assert_eq!(report.struck.get("rot"), Some(&1), "place {place}");
    }
}

#[test]
fn clocks_without_a_quorum_stop_all_writes_until_they_are_set_right_and_the_run_ends_all_the_same() {
    let jump = |node, by_ms| Planned { at_ms: 100, fault: Fault::ClockJump { who: Who::Node(node), by_ms } };
    let usual = Setting::of(3);
    let mut load = usual.load.of(&[Kind::Herd]);
    (load.tries, load.deadline_ms) = (60, 3_000);
    let faults = Some(vec![jump(0, 70_000), jump(1, 480_000), jump(2, -5_000)]);
    let report = apart().run(&Setting { load, faults, ..usual }).expect("a process");
    assert_eq!(report.violations, vec![]);
    let refused = report.run.events.iter().filter(|e| matches!(e.answer, Answer::NotNow { .. })).count();
    assert!(refused > 10, "only {refused} calls met the wrong clocks");
}

#[test]
fn a_stretched_run_lasts_so_much_longer_its_clients_never_rest_and_it_is_repeatable() {
    let setting = Setting::stretched(4, 6);
    let report = apart().run(&setting).expect("a process");
    assert_eq!(report.violations, vec![]);
    assert!(report.simulated.as_millis() > 48_000, "{:?}", report.simulated);
    let last = report.run.events.iter().filter(|e| !e.op.is_read()).map(|e| e.asked_ms).max();
    assert!(last.is_some_and(|last| last > 44_000), "the last call was at {last:?} ms");
    assert_eq!(meta(&setting, &apart()).expect("two processes").differs, None);
    assert_eq!(Setting::stretched(4, 1), Setting::of(4));
}

#[test]
fn a_quorum_goes_on_without_a_node_that_is_lost_for_good() {
    let lost = Planned { at_ms: 1_000, fault: Fault::Lost { node: 2 } };
    let report = apart().run(&Setting { faults: Some(vec![lost]), ..Setting::of(3) }).expect("a process");
    assert_eq!(report.violations, vec![]);
    assert_eq!(report.lost, vec![2]);
}
