//! How long a shard is without a leader, and what costs it one: in simulated time, so that a busy machine changes nothing.

use std::path::PathBuf;

use jepsen_like_tests::faults::{Clients, Disks, Fault, Planned, Who};
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Report, Setting};
use ledger_raft::limits::{ELECTION_MAX, ELECTION_MIN, FAILOVER_AGAIN, HEARTBEAT, STALL_BUDGET};

const SEEDS: [u64; 2] = [3, 7];
const STRIKES_AT_MS: u64 = 3_000;
/// The group of shard 1, whose leader is struck.
const SHARD: u32 = 1;
/// Two syncs of a vote, a quorum's first acknowledgement, and messages between hosts.
const VOTES_MS: u64 = 100;

fn run(seed: u64, fault: Fault) -> Report {
    run_all(seed, vec![Planned { at_ms: STRIKES_AT_MS, fault }])
}

fn run_all(seed: u64, faults: Vec<Planned>) -> Report {
    let (planned, faults) = (faults.len(), Some(faults));
    let report =
        Apart { verbose: std::env::var_os("V").is_some(), ..Apart::new(PathBuf::from(env!("CARGO_BIN_EXE_jepsen"))) }
            .run(&Setting { faults, ..Setting::of(seed) });
    let report = report.expect("a process");
    assert_eq!(report.violations, vec![], "seed {seed}");
    assert_eq!(report.struck.values().sum::<u32>() as usize, planned, "seed {seed}");
    report
}

/// Milliseconds from the strike until shard 1 has a new leader, if it ever has.
fn without_leader(report: &Report) -> Option<u64> {
    let mut elected = report.elected.iter().filter(|e| e.group == SHARD && e.at_ms >= STRIKES_AT_MS);
    elected.next().map(|e| e.at_ms - STRIKES_AT_MS)
}

#[test]
fn a_killed_leader_is_replaced_when_its_lease_ends() {
    let bound = ELECTION_MAX.as_millis() as u64 + 2 * FAILOVER_AGAIN.as_millis() as u64 + VOTES_MS;
    for seed in SEEDS {
        let report = run(seed, Fault::Kill { who: Who::Leader, ms: 4_000 });
        let silent = without_leader(&report).expect("a new leader");
        assert!(silent <= bound, "seed {seed}: {silent} ms without a leader, at most {bound} are needed");
    }
}

#[test]
fn a_leader_that_lost_power_is_replaced_by_the_election_time() {
    // Nothing refuses a connection: the lease, then an election time, once more when a vote is split.
    let bound = 3 * ELECTION_MAX.as_millis() as u64 + VOTES_MS;
    for seed in SEEDS {
        let report = run(seed, Fault::Crash { who: Who::Leader, ms: 4_000 });
        let silent = without_leader(&report).expect("a new leader");
        assert!(silent <= bound, "seed {seed}: {silent} ms without a leader, at most {bound} are needed");
    }
}

/// Ledger time stands still instead until the clocks are right, and no hold ends early.
#[test]
fn a_new_leader_does_not_follow_clocks_that_jumped() {
    for seed in SEEDS {
        let at = |after_ms, fault| Planned { at_ms: STRIKES_AT_MS + after_ms, fault };
        let jump = Fault::ClocksJump { nodes: vec![0, 1, 2], by_ms: 3_600_000, ms: 6_000 };
        let report = run_all(seed, vec![at(0, jump), at(500, Fault::Kill { who: Who::Leader, ms: 300 })]);
        assert!(report.run.sometimes.contains_key("clocks-jumped"), "seed {seed}: {:?}", report.run.sometimes);
        assert!(report.run.about.clock_jump_max_ms.is_some(), "seed {seed}: it is judged");
    }
}

#[test]
fn lost_connections_to_a_leader_that_lives_elect_nobody() {
    for seed in SEEDS {
        let report = run(seed, Fault::Reset { who: Who::Leader, clients: true });
        assert_eq!(without_leader(&report), None, "seed {seed}: {:?}", report.elected);
    }
}

#[test]
fn a_cut_network_that_refuses_nothing_waits_for_the_election_time() {
    // The connections break, and the next ones are not answered: the leader may live.
    let at_least = (ELECTION_MAX + ELECTION_MIN - 2 * HEARTBEAT).as_millis() as u64;
    for seed in SEEDS {
        let reset = Planned { at_ms: STRIKES_AT_MS, fault: Fault::Reset { who: Who::Leader, clients: false } };
        let cut = Fault::Isolate { who: Who::Leader, clients: Clients::Outside, ms: 4_000 };
        let report = run_all(seed, vec![reset, Planned { at_ms: STRIKES_AT_MS + 10, fault: cut }]);
        let silent = without_leader(&report).expect("a new leader");
        assert!(silent >= at_least, "seed {seed}: replaced after {silent} ms, within its lease and an election time");
    }
}

#[test]
fn a_disk_that_stalls_costs_no_leader_its_lease() {
    let mut stalled_calls = 0;
    for of in [Disks::Leader, Disks::Follower, Disks::Followers] {
        for seed in SEEDS {
            let stall_ms = STALL_BUDGET.as_millis() as u64;
            let report = run(seed, Fault::DiskStall { of, stall_ms, every_ms: 1_000, ms: 4_500 });
            let elected: Vec<_> = report.elected.iter().filter(|e| e.at_ms >= STRIKES_AT_MS).collect();
            assert!(elected.is_empty(), "{of:?}, seed {seed}: {elected:?}");
            stalled_calls += report.run.events.iter().filter(|e| e.answered_ms - e.asked_ms >= stall_ms / 2).count();
        }
    }
    assert!(stalled_calls > 0, "no call waited for a disk");
}
