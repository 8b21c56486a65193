//! How a seed draws its plan, swarm style: each run allows its own kinds, each at its own rate, so that some runs press hard on one thing.
//!
//! **Owns** the rates. **Must never** draw what no quorum could heal. **Read next**: [`super::Fault`].

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

use super::{Clients, Disks, Fault, LostBeyond, Others, Planned, Rotten, Who, Wiped};

/// Draws one fault of a kind.
type Draw = fn(&mut Drawing) -> Fault;

/// Every kind with its name, so that a test can say which was never drawn.
const KINDS: [(&str, Draw); 26] = [
    ("crash", |d| Fault::Crash { who: d.who(), ms: d.ms() }),
    ("kill", |d| Fault::Kill { who: d.who(), ms: d.ms() }),
    ("crash-all", |d| Fault::CrashAll { ms: d.ms().min(800) }),
    ("crash-at-write", |d| Fault::CrashAtWrite { who: d.who(), ops: d.rng.random_range(1..60), ms: d.ms() }),
    ("crash-in-recovery", |d| Fault::CrashInRecovery { who: d.who(), ops: d.rng.random_range(1..25), ms: d.ms() }),
    ("pause", |d| Fault::Pause { who: d.who(), ms: d.ms() }),
    ("isolate", |d| Fault::Isolate { who: d.who(), clients: d.clients(), ms: d.ms() }),
    ("minority", |d| Fault::Minority { nodes: d.minority(), clients: d.clients(), ms: d.ms() }),
    ("ring", |d| Fault::Ring { from: d.node(), ms: d.ms() }),
    ("one-way", |d| {
        let (from, to) = d.pair();
        Fault::OneWay { from, to, ms: d.ms() }
    }),
    ("deaf", |d| Fault::Deaf { who: d.who(), hears: d.rng.random_bool(0.5), ms: d.ms() }),
    ("hold", |d| {
        let (a, b) = d.pair();
        Fault::Hold { a, b, ms: d.ms() }
    }),
    ("reset", |d| Fault::Reset { who: d.who(), clients: d.rng.random_bool(0.5) }),
    ("slow-net", |d| Fault::SlowNet { latency_ms: d.rng.random_range(5..250), ms: d.ms() }),
    ("loss", |d| Fault::Loss { percent: d.rng.random_range(1..30), ms: d.ms() }),
    ("slow-disk", |d| Fault::SlowDisk { who: d.who(), latency_ms: d.rng.random_range(5..400), ms: d.ms() }),
    ("full-disk", |d| Fault::FullDisk { who: d.who(), left_bytes: d.rng.random_range(0..2 << 20), ms: d.ms() }),
    ("disk-error", |d| Fault::DiskError { who: d.who(), ops: d.rng.random_range(1..30), ms: d.ms() }),
    ("rot", |d| {
        let of = if d.rng.random_bool(0.7) { Rotten::Log } else { Rotten::Snapshot };
        Fault::Rot { node: d.rotten(), of, place: d.rng.next_u64() >> 16, ms: d.ms() }
    }),
    ("clock-jump", |d| Fault::ClockJump { who: d.whose_clock(), by_ms: d.wrong_by() }),
    ("clock-strobe", |d| {
        let every_ms = d.rng.random_range(20..400);
        Fault::ClockStrobe { who: d.whose_clock(), by_ms: d.wrong_by(), every_ms, ms: d.ms() }
    }),
    ("clock-drift", |d| Fault::ClockDrift {
        who: d.whose_clock(),
        ppm: d.rng.random_range(-200_000..200_000),
        ms: d.ms(),
    }),
    ("timer-drift", |d| Fault::TimerDrift {
        who: d.whose_clock(),
        ppm: d.rng.random_range(-50_000..50_000),
        ms: d.ms(),
    }),
    ("transfer", |d| Fault::Transfer { shard: d.rng.random_range(0..2), to: d.node() }),
    ("snapshot", |d| Fault::Snapshot { who: d.who() }),
    ("lost", |d| Fault::Lost { node: d.frail() }),
];

/// A kind that only hurts where logs are purged early; drawn apart from the others, at most once a run.
const OVERTAKEN: &str = "overtaken";
/// It is drawn where no more entries than this are kept behind a snapshot.
const OVERTAKEN_KEEPS_MAX: u64 = 25;

/// Drawn apart from the others as well, so that the other faults of a seed stay what they were; at most once a run.
const DISK_STALL: &str = "disk-stall";

/// Drawn apart as well.
const CLOCKS_JUMP: &str = "clocks-jump";
/// So many of the runs.
const CLOCKS_JUMP_SHARE: f64 = 0.03;

/// Disks that come back with less, drawn apart as well.
const LOSSES: [&str; 4] = ["wiped", "cut-short", "copied", "rolled-back"];
/// So many of the runs that may have a loss do.
const LOSS_SHARE: f64 = 0.08;

/// Drawn apart, as the last fault of its run.
const BEYOND: &str = "beyond";
/// So many of the runs in which no other disk forgets or is lost.
const BEYOND_SHARE: f64 = 0.02;

/// Drawn apart.
const EMPTIED: &str = "emptied";
/// So many of the runs in which no other disk forgets or is lost.
const EMPTIED_SHARE: f64 = 0.01;

/// The names of all kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS
        .iter()
        .map(|(name, _)| *name)
        .chain([OVERTAKEN, DISK_STALL, CLOCKS_JUMP])
        .chain(LOSSES)
        .chain([BEYOND, EMPTIED])
}

/// Entries that the nodes of a seed's run keep behind their newest snapshot.
pub fn keep_entries(seed: u64) -> u64 {
    seed / 7 % 100
}

struct Drawing<'a> {
    rng: &'a mut SmallRng,
    nodes: usize,
    /// The nodes that may rot, be lost, or (in most runs) have a wrong clock: no more than may fail at once.
    frail: Vec<usize>,
    /// Whether one node alone has a wrong clock, so that ledger time must stay right.
    few_clocks: bool,
    /// How often the leader is the victim of this run.
    leader: f64,
    ms_max: u64,
}

impl Drawing<'_> {
    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes)
    }

    fn pair(&mut self) -> (usize, usize) {
        let node = self.node();
        (node, (node + self.rng.random_range(1..self.nodes)) % self.nodes)
    }

    fn who(&mut self) -> Who {
        if self.rng.random_bool(self.leader) { Who::Leader } else { Who::Node(self.node()) }
    }

    fn whose_clock(&mut self) -> Who {
        let anybody = self.who();
        if self.few_clocks { Who::Node(self.frail[0]) } else { anybody }
    }

    fn frail(&mut self) -> usize {
        self.frail[self.rng.random_range(0..self.frail.len())]
    }

    /// One node of a run: a damaged log is only rebuilt with the word of every other voter, so that two would wait for each other.
    fn rotten(&self) -> usize {
        self.frail[0]
    }

    fn minority(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        nodes.shuffle(self.rng);
        nodes.truncate((self.nodes - 1) / 2);
        nodes.sort_unstable();
        nodes
    }

    fn clients(&mut self) -> Clients {
        [Clients::Both, Clients::Inside, Clients::Outside][self.rng.random_range(0..3)]
    }

    fn ms(&mut self) -> u64 {
        self.rng.random_range(50..self.ms_max)
    }

    /// Now and then just inside what is borne, mostly far outside.
    fn wrong_by(&mut self) -> i64 {
        let far = [200, 400, 5_000, 600_000][self.rng.random_range(0..4)];
        self.rng.random_range(-far..far)
    }
}

/// A kind this run allows, and how often.
type Kind = (&'static str, Draw, u32);

/// A rotten replica is rebuilt with the word of all others: a run has rot or a loss, not both.
fn healable(mut kinds: Vec<Kind>, rot: bool) -> Vec<Kind> {
    if ["rot", "lost"].iter().all(|one| kinds.iter().any(|(name, ..)| name == one)) {
        kinds.retain(|(name, ..)| *name != if rot { "lost" } else { "rot" });
    }
    kinds
}

fn overtaken(seed: u64, nodes: usize, for_ms: u64) -> Option<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x0e7a_4e2e);
    if keep_entries(seed) > OVERTAKEN_KEEPS_MAX || rng.random_bool(0.4) {
        return None;
    }
    let at_ms = rng.random_range(0..(for_ms / 2).max(1));
    Some(Planned {
        at_ms,
        fault: Fault::Overtaken { node: rng.random_range(0..nodes), ms: rng.random_range(800..4_000) },
    })
}

/// One run in four has a disk, or those of a majority, that stalls: mostly for as long as costs no leader its lease.
fn disk_stall(seed: u64, for_ms: u64) -> Option<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x57a1_1ed0);
    if !rng.random_bool(0.25) {
        return None;
    }
    let of = [Disks::Leader, Disks::Follower, Disks::Followers][rng.random_range(0..3)];
    let stall_ms = if rng.random_bool(0.8) { 300 } else { rng.random_range(300..2_000) };
    let (every_ms, ms) = (stall_ms + rng.random_range(200..2_000), rng.random_range(1_000..6_000));
    Some(Planned {
        at_ms: rng.random_range(0..(for_ms / 2).max(1)),
        fault: Fault::DiskStall { of, stall_ms, every_ms, ms },
    })
}

/// All clocks jump alike, far beyond what a shard takes, and the leader dies meanwhile: the next one
/// must not take ledger time there.
fn clocks_jump(seed: u64, nodes: usize, for_ms: u64) -> Vec<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x0c10_c45e);
    if !rng.random_bool(CLOCKS_JUMP_SHARE) {
        return Vec::new();
    }
    let at_ms = rng.random_range(1_000..(for_ms / 2).max(1_001));
    let (by_ms, ms) = (rng.random_range(400_000..600_000), rng.random_range(4_000..8_000));
    let killed = Fault::Kill { who: Who::Leader, ms: rng.random_range(50..1_000) };
    vec![
        Planned { at_ms, fault: Fault::ClocksJump { nodes: (0..nodes).collect(), by_ms, ms } },
        Planned { at_ms: at_ms + rng.random_range(100..1_500), fault: killed },
    ]
}

/// One loss, and in some runs another one of the same node: a damaged node is repaired only while all others answer and are whole. So a run
/// with a loss has no node that stays away, and what rots is on the same node.
fn losses(seed: u64, nodes: usize, for_ms: u64, others: &[Planned]) -> Vec<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x0d15_c0de);
    if others.iter().any(|p| matches!(p.fault, Fault::Lost { .. })) || !rng.random_bool(LOSS_SHARE) {
        return Vec::new();
    }
    let anybody = rng.random_range(0..nodes);
    let rotten = others.iter().find_map(|p| match p.fault {
        Fault::Rot { node, .. } => Some(node),
        _ => None,
    });
    let node = rotten.unwrap_or(anybody);
    let first = rng.random_range(0..(for_ms / 4).max(1));
    let second = rng.random_bool(0.3).then(|| rng.random_range(for_ms / 2..for_ms.max(2)));
    let times = std::iter::once(first).chain(second);
    times.map(|at_ms| Planned { at_ms, fault: loss(rng, node) }).collect()
}

fn loss(rng: &mut SmallRng, node: usize) -> Fault {
    let others = [Others::RunOn, Others::Lag, Others::LagLater][rng.random_range(0..3)];
    let (ms, after_ms) = (rng.random_range(50..3_000), rng.random_range(0..2_000));
    match rng.random_range(0..6) {
        0 | 1 => {
            let of = [Wiped::Log, Wiped::LogAndSnapshots, Wiped::NewestSegment][rng.random_range(0..3)];
            Fault::Wiped { node, of, others, ms }
        }
        2 => Fault::CutShort { node, keep_percent: rng.random_range(0..100), others, ms },
        3 => Fault::Copied { node, after_ms, others, ms },
        _ => Fault::RolledBack { node, after_ms, others, ms },
    }
}

/// Whether a disk of the plan forgets something, or is lost.
fn has_lost_disk(plan: &[Planned]) -> bool {
    let forgets = |fault: &Fault| matches!(fault, Fault::Rot { .. } | Fault::Lost { .. } | Fault::Beyond { .. });
    plan.iter().any(|p| forgets(&p.fault) || p.fault.loses_on().is_some())
}

/// A node that stays out like one that is lost, or is brought back.
fn emptied(seed: u64, nodes: usize, for_ms: u64, others: &[Planned]) -> Option<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x0e3b_71ed);
    if has_lost_disk(others) || !rng.random_bool(EMPTIED_SHARE) {
        return None;
    }
    let (at_ms, node) = (rng.random_range(0..(for_ms * 3 / 4).max(1)), rng.random_range(0..nodes));
    let (ms, rejoins) = (rng.random_range(50..2_000), rng.random_bool(0.5));
    Some(Planned { at_ms, fault: Fault::Emptied { node, ms, rejoins } })
}

/// More disks than a quorum survives, once something was acknowledged.
fn beyond(seed: u64, nodes: usize, for_ms: u64, others: &[Planned]) -> Option<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x0be7_04d0);
    if has_lost_disk(others) || !rng.random_bool(BEYOND_SHARE) {
        return None;
    }
    let mut which: Vec<usize> = (0..nodes).collect();
    which.shuffle(rng);
    which.truncate(nodes / 2 + 1);
    which.sort_unstable();
    let of = LostBeyond::ALL[rng.random_range(0..LostBeyond::ALL.len())];
    let at_ms = rng.random_range(for_ms / 4..(for_ms * 3 / 4).max(1));
    Some(Planned { at_ms, fault: Fault::Beyond { nodes: which, of, ms: rng.random_range(50..1_000) } })
}

/// Whether the plan that a seed draws has a disk that comes back with less.
pub fn has_loss(seed: u64, nodes: usize, for_ms: u64) -> bool {
    let loses = |fault: &Fault| matches!(fault, Fault::Beyond { .. }) || fault.loses_on().is_some();
    draw_plan(seed, nodes, for_ms).iter().any(|planned| loses(&planned.fault))
}

/// Draws the plan of a seed, for `for_ms` of simulated time.
pub fn draw_plan(seed: u64, nodes: usize, for_ms: u64) -> Vec<Planned> {
    let mut plan = draw_kinds(seed, nodes, for_ms);
    plan.extend(overtaken(seed, nodes, for_ms));
    plan.extend(disk_stall(seed, for_ms));
    plan.extend(clocks_jump(seed, nodes, for_ms));
    let losses = losses(seed, nodes, for_ms, &plan);
    plan.extend(losses);
    if let Some(last) = beyond(seed, nodes, for_ms, &plan) {
        plan.retain(|planned| planned.at_ms < last.at_ms);
        plan.push(last);
    }
    let emptied = emptied(seed, nodes, for_ms, &plan);
    plan.extend(emptied);
    plan.sort_by_key(|planned| planned.at_ms);
    plan
}

/// Faults of a stretched run are so many times as far apart, and half of them last as many times as long.
const STRETCHED_TIMES: u64 = 10;

/// Draws the plan of a seed for a long run: the same kinds, fewer in a minute, many of them longer.
pub fn draw_stretched(seed: u64, nodes: usize, for_ms: u64) -> Vec<Planned> {
    let mut plan = draw_plan(seed, nodes, for_ms / STRETCHED_TIMES);
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x57e7_c4ed);
    for planned in &mut plan {
        planned.at_ms *= STRETCHED_TIMES;
        if rng.random_bool(0.5)
            && let Some(ms) = planned.fault.ms_mut()
        {
            *ms *= STRETCHED_TIMES;
        }
    }
    plan
}

fn draw_kinds(seed: u64, nodes: usize, for_ms: u64) -> Vec<Planned> {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x00fa_0175);
    let share = [0.08, 0.2, 0.5][rng.random_range(0..3)];
    let mut kinds: Vec<Kind> = Vec::new();
    for (name, draw) in KINDS {
        if rng.random_bool(share) {
            kinds.push((name, draw, rng.random_range(1..8)));
        }
    }
    let kinds = healable(kinds, rng.random_bool(0.5));
    let weights: u32 = kinds.iter().map(|(_, _, weight)| weight).sum();
    let mut frail: Vec<usize> = (0..nodes).collect();
    frail.shuffle(rng);
    frail.truncate((nodes - 1) / 2);
    let pace = rng.random_range(300..3_000);
    let few_clocks = seed % 10 < 7;
    let (leader, ms_max) = (rng.random_range(0.0..0.8), rng.random_range(200..4_000));
    let mut plan = Vec::new();
    if weights == 0 {
        return plan;
    }
    let mut at_ms = rng.random_range(100..1_500);
    let mut drawing = Drawing { rng, nodes, frail, few_clocks, leader, ms_max };
    while at_ms < for_ms {
        let mut ticket = drawing.rng.random_range(0..weights);
        let mut fault = None;
        for (_, draw, weight) in &kinds {
            if ticket < *weight {
                fault = Some(draw(&mut drawing));
                break;
            }
            ticket -= weight;
        }
        plan.extend(fault.map(|fault| Planned { at_ms, fault }));
        at_ms += drawing.rng.random_range(pace / 4..pace);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_the_same_plan_and_seeds_differ() {
        assert_eq!(draw_plan(7, 3, 10_000), draw_plan(7, 3, 10_000));
        let distinct: BTreeSet<_> = (0..100).map(|s| draw_plan(s, 3, 10_000)).collect();
        assert!(distinct.len() > 80, "{}", distinct.len());
    }

    #[test]
    fn every_kind_is_drawn_by_some_seed() {
        let drawn: BTreeSet<_> = (0..300).flat_map(|s| draw_plan(s, 3, 10_000)).map(|p| p.fault.name()).collect();
        assert_eq!(drawn, names().collect());
    }

    #[test]
    fn no_more_nodes_rot_or_are_lost_than_may_fail() {
        for (nodes, may) in [(3, 1), (5, 2)] {
            for seed in 0..300 {
                let frail: BTreeSet<_> = draw_plan(seed, nodes, 30_000)
                    .into_iter()
                    .filter_map(|p| match p.fault {
                        Fault::Rot { node, .. } | Fault::Lost { node } => Some(node),
                        fault => fault.loses_on(),
                    })
                    .collect();
                assert!(frail.len() <= may, "seed {seed}: {frail:?}");
            }
        }
    }

    /// What a damaged node needs for its repair, and what remembers a disk that went back, is there
    /// in the end: no other node of the run forgets anything or stays away.
    #[test]
    fn a_disk_that_comes_back_with_less_is_the_only_one_and_all_others_come_back() {
        let seeds = 2_000;
        let mut with_loss = 0;
        for seed in 0..seeds {
            for nodes in [3, 5] {
                let plan = draw_plan(seed, nodes, 10_000);
                let Some(node) = plan.iter().find_map(|p| p.fault.loses_on()) else { continue };
                with_loss += 1;
                for Planned { fault, .. } in plan {
                    let forgets = match fault {
                        Fault::Rot { node, .. } => Some(node),
                        _ => fault.loses_on(),
                    };
                    assert!(forgets.is_none_or(|one| one == node), "seed {seed}: {fault:?} beside a loss of {node}");
                    assert!(!matches!(fault, Fault::Lost { .. }), "seed {seed}: {fault:?} beside a loss of {node}");
                }
            }
        }
        let share = f64::from(with_loss) / (2.0 * seeds as f64);
        assert!((0.07..0.09).contains(&share), "{share}");
    }

    #[test]
    fn faults_of_a_stretched_run_are_rarer_and_longer_and_reach_to_its_end() {
        let (for_ms, seeds) = (600_000, 0..100);
        let of = |plan: &[Planned]| {
            let longest = plan.iter().cloned().filter_map(|mut p| p.fault.ms_mut().copied()).max();
            (plan.len(), longest, plan.last().map(|p| p.at_ms))
        };
        let all: Vec<_> = seeds.map(|seed| of(&draw_stretched(seed, 3, for_ms))).collect();
        assert!(all.iter().filter(|(n, ..)| (15..400).contains(n)).count() > 80, "{all:?}");
        assert!(all.iter().filter(|(_, longest, _)| longest.is_some_and(|ms| ms > 5_000)).count() > 60, "{all:?}");
        assert!(all.iter().all(|(.., last)| last.is_none_or(|at| at < for_ms)), "{all:?}");
        assert!(all.iter().filter(|(.., last)| last.is_some_and(|at| at > for_ms * 9 / 10)).count() > 80, "{all:?}");
    }

    #[test]
    fn a_plan_is_data() {
        for seed in 0..50 {
            let plan = draw_plan(seed, 5, 10_000);
            let text = serde_json::to_string(&plan).expect("it can be written");
            assert_eq!(serde_json::from_str::<Vec<Planned>>(&text).expect("and read"), plan);
        }
    }
}
