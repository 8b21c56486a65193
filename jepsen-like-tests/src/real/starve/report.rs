//! What was measured, and whether it holds.
//!
//! **Owns** the bounds and the verdict. **Must never** forgive a call without an answer, or an attack that did not happen.
//! **Read next**: [`super`].

use std::collections::BTreeMap;

use ledger_node::limits as node_limits;
use ledger_raft::limits as raft_limits;
use serde::Serialize;
use service::limits as port_limits;

use super::StarvePlan;
use super::attack::AttackCounts;
use super::seller::Tally;
use crate::real::failover::quantile;

/// Memory of a connection that does nothing: its state here and in HTTP.
const IDLE_CONNECTION_BYTES: usize = 64 << 10;
/// A frame of a watch before it is encoded takes so many times its bytes.
const FRAME_IN_MEMORY: usize = 4;
/// Pages that the allocator keeps, and what a snapshot takes that is built just then.
const SLACK_BYTES: usize = 64 << 20;
/// Fewer pings than that are no flood.
const PINGS_MIN: u64 = 10_000;
/// Colliding keys are sent for so long at least.
const KEYS_SECONDS_MIN: u64 = 2;

/// What one attacking host may make a node take beyond what it has: the sum of the bounds of `docs/limits.md` that it can fill.
fn memory_bound() -> u64 {
    let answers = port_limits::BUFFERED_MAX;
    let frames = node_limits::WATCHES_PER_SOURCE * node_limits::WATCH_FRAME_BYTES * FRAME_IN_MEMORY;
    let share = |all: usize| all * port_limits::CONNECTIONS_PER_SOURCE_PERCENT / 100;
    let connections = share(node_limits::GRPC_CONNECTIONS_MAX) + share(node_limits::HTTP_CONNECTIONS_MAX);
    let greetings = raft_limits::GREETINGS_PER_SOURCE_MAX * raft_limits::READ_BUFFER_MIN;
    let feed = node_limits::FEED_RING_BYTES + node_limits::FEED_DECODED_BYTES;
    (answers + frames + connections * IDLE_CONNECTION_BYTES + greetings + feed + SLACK_BYTES) as u64
}

impl AttackCounts {
    /// What an attack must have done, or the run proves nothing.
    pub(super) fn wanted(plan: &StarvePlan) -> Self {
        let (attack, nodes) = (&plan.attack, super::NODES);
        let (idle, watches) = (attack.idle as u64 * nodes, attack.watches as u64 * nodes);
        Self {
            idle_client: idle,
            idle_http: idle,
            idle_peer: idle,
            watches_asked: watches,
            watches_begun: u64::from(watches > 0),
            pings: PINGS_MIN,
            ping_connections: 1,
            keys: u64::from(attack.keys_per_second) * KEYS_SECONDS_MIN,
            ..Self::default()
        }
    }

    /// Whether it did at least so much.
    pub(super) fn reaches(&self, wanted: &Self) -> bool {
        self.missing(wanted).is_none()
    }

    fn missing(&self, wanted: &Self) -> Option<String> {
        let all = [
            ("idle connections to gRPC", self.idle_client, wanted.idle_client),
            ("idle connections to HTTP", self.idle_http, wanted.idle_http),
            ("idle connections to the peer ports", self.idle_peer, wanted.idle_peer),
            ("watches asked for", self.watches_asked, wanted.watches_asked),
            ("watches begun", self.watches_begun, wanted.watches_begun),
            ("pings", self.pings, wanted.pings),
            ("connections that ping", self.ping_connections, wanted.ping_connections),
            ("colliding keys", self.keys, wanted.keys),
        ];
        let (what, done, wanted) = all.into_iter().find(|(_, done, wanted)| done < wanted)?;
        Some(format!("only {done} of {wanted} {what}"))
    }
}

/// One node over one phase.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeFigures {
    /// Which.
    pub node: u64,
    /// Its memory as the phase began, bytes.
    pub resident_before: u64,
    /// The most that it had.
    pub resident_max: u64,
    /// As the phase ended.
    pub resident_after: u64,
    /// CPU time that it took.
    pub cpu_ms: u64,
    /// What it closed, refused and ended, by reason.
    pub closed: BTreeMap<String, u64>,
}

/// One phase.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PhaseFigures {
    /// Beside an attack.
    pub attacked: bool,
    /// How long it was.
    pub seconds: f64,
    /// The seller's calls that were answered while it lasted.
    pub answered: u64,
    /// Microseconds from when a call was due.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
    /// The same.
    pub p999_us: u64,
    /// Calls that were due and were refused, not taken, or without a definite answer.
    pub failed: [u64; 3],
    /// The slowest reservation over a new connection.
    pub new_connection_us_max: u64,
    /// How many of these there were, and how many failed.
    pub new_connections: [u64; 2],
    /// The slowest answer of a `/livez`.
    pub livez_ms_max: u64,
    /// How many were not answered.
    pub livez_failed: u64,
    /// Elections of the shard.
    pub elections: u64,
    /// One of the answers that were no reservation.
    pub example: Option<String>,
    /// Each node.
    pub nodes: Vec<NodeFigures>,
    /// What the attack did.
    pub attack: Option<AttackCounts>,
    #[serde(skip)]
    pub(super) micros: Vec<u64>,
}

impl PhaseFigures {
    pub(super) fn sold(&mut self, tally: &Tally) {
        self.micros = tally.micros.iter().map(|&micros| u64::from(micros)).collect();
        self.micros.sort_unstable();
        let of = |share| quantile(&self.micros, share).unwrap_or_default();
        (self.p50_us, self.p99_us, self.p999_us) = (of(0.5), of(0.99), of(0.999));
        self.failed = [tally.refused, tally.not_now, tally.unknown];
        self.new_connection_us_max = tally.new_connections.iter().copied().max().unwrap_or_default().into();
        self.new_connections = [tally.new_connections.len() as u64, tally.new_connections_failed];
        self.example = tally.example.clone();
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct StarveReport {
    /// Calls a second that the nodes reached, if that was measured.
    pub reached: Option<f64>,
    /// Calls a second that the seller makes.
    pub rate: f64,
    /// The phases, in turn.
    pub phases: Vec<PhaseFigures>,
    /// p99 of each attacked phase over that of the quiet ones around it.
    pub ratios: Vec<f64>,
    /// By how much the p99 was longer, microseconds.
    pub longer_us: Vec<u64>,
    /// The most memory that a node took for an attack beyond what the seller's own calls explain, and how much it may.
    pub memory: [u64; 2],
    /// Reservations answered, those without a definite answer, and the units that the ledger says are held.
    pub held: [u64; 3],
    /// Calls of the seller between the phases that were not reserved.
    pub between_failed: u64,
    /// What an attack had to do.
    #[serde(skip)]
    wanted: AttackCounts,
}

/// Whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not; why.
    Fails(Vec<String>),
    /// The attack did not happen: what it did not do.
    ProvesNothing(String),
}

impl StarveReport {
    pub(super) fn new(
        plan: &StarvePlan,
        reached: Option<f64>,
        rate: f64,
        phases: Vec<PhaseFigures>,
        tallies: &[Tally],
        held: u64,
    ) -> Self {
        let (mut ratios, mut longer_us, mut taken) = (Vec::new(), Vec::new(), 0);
        for around in phases.windows(3).filter(|around| around[1].attacked) {
            let [before, attacked, after] = around else { continue };
            let quiet = quantile(&[&before.micros[..], &after.micros[..]].concat(), 0.99).unwrap_or_default();
            ratios.push(attacked.p99_us as f64 / quiet.max(1) as f64);
            longer_us.push(attacked.p99_us.saturating_sub(quiet));
            taken = taken.max(memory_taken(before, attacked));
        }
        let ok = tallies.iter().map(|tally| tally.ok).sum();
        let unknown = tallies.iter().map(|tally| tally.failed() + tally.new_connections_failed).sum();
        let wanted = AttackCounts::wanted(plan);
        let between_failed =
            tallies.first().map(|tally| tally.failed() + tally.new_connections_failed).unwrap_or_default();
        let (memory, held) = ([taken, memory_bound()], [ok, unknown, held]);
        Self { reached, rate, phases, ratios, longer_us, memory, held, between_failed, wanted }
    }

    /// The middle one of the ratios.
    pub fn ratio(&self) -> f64 {
        let mut ratios = self.ratios.clone();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// The middle one of the differences.
    fn longer(&self) -> u64 {
        quantile(&self.longer_us, 0.5).unwrap_or(u64::MAX)
    }

    /// Whether it holds. With a ratio the times are judged: the p99, unless it is longer by less than `noise_us`, and elections.
    pub fn verdict(&self, ratio_max: Option<f64>, noise_us: u64) -> Verdict {
        if !self.phases.iter().any(|phase| phase.attacked) {
            return Verdict::ProvesNothing("no phase was attacked".to_owned());
        }
        for phase in &self.phases {
            if let Some(missing) = phase.attack.and_then(|attack| attack.missing(&self.wanted)) {
                return Verdict::ProvesNothing(missing);
            }
        }
        let mut fails = Vec::new();
        for (n, phase) in self.phases.iter().enumerate() {
            let which = format!("phase {} ({})", n + 1, if phase.attacked { "attacked" } else { "quiet" });
            let failed: u64 = phase.failed.iter().sum();
            if failed > 0 {
                let example = phase.example.as_deref().unwrap_or("-");
                fails.push(format!("{which}: {failed} of the seller's calls were not reserved, as: {example}"));
            }
            if phase.answered == 0 {
                fails.push(format!("{which}: the seller was not answered"));
            }
            if phase.new_connections[1] > 0 {
                fails.push(format!(
                    "{which}: {} of {} calls over new connections were not reserved",
                    phase.new_connections[1], phase.new_connections[0]
                ));
            }
            if phase.livez_failed > 0 {
                fails.push(format!("{which}: /livez was not answered {} times", phase.livez_failed));
            }
            if ratio_max.is_some() && phase.elections > 0 {
                fails.push(format!("{which}: {} elections", phase.elections));
            }
        }
        if self.between_failed > 0 {
            fails.push(format!("between the phases: {} calls were not reserved", self.between_failed));
        }
        if let Some(max) = ratio_max
            && self.ratio() > max
            && self.longer() > noise_us
        {
            fails.push(format!(
                "the p99 beside an attack is {:.2} times the quiet one, at most {max} may be",
                self.ratio()
            ));
        }
        let [taken, may] = self.memory;
        if taken > may {
            fails.push(format!("a node took {} MiB for an attack, at most {} MiB may be", taken >> 20, may >> 20));
        }
        let [ok, unknown, held] = self.held;
        if !(ok..=ok + unknown).contains(&held) {
            fails.push(format!(
                "{held} units are held, but {ok} reservations were answered, {unknown} without a definite answer"
            ));
        }
        if fails.is_empty() { Verdict::Holds } else { Verdict::Fails(fails) }
    }
}

/// What a node took for an attack at most: its growth, less what as many calls of the seller made it grow in the quiet phase before.
fn memory_taken(quiet: &PhaseFigures, attacked: &PhaseFigures) -> u64 {
    let each = quiet.nodes.iter().zip(&attacked.nodes).map(|(before, now)| {
        let grown = before.resident_after.saturating_sub(before.resident_before);
        let own = (grown as f64 * attacked.answered as f64 / quiet.answered.max(1) as f64) as u64;
        now.resident_max.saturating_sub(now.resident_before).saturating_sub(own)
    });
    each.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;
    const TIMES_TWO: Option<f64> = Some(2.0);

    /// Two nodes' memory before, and the most of a phase, MiB.
    fn phase(attacked: bool, p99_ms: u64, before: u64, most: u64) -> PhaseFigures {
        let node = |node| NodeFigures {
            node,
            resident_before: before << 20,
            resident_max: most << 20,
            resident_after: most << 20,
            ..NodeFigures::default()
        };
        PhaseFigures {
            attacked,
            answered: 100,
            p99_us: p99_ms * MS,
            micros: vec![p99_ms * MS; 100],
            nodes: vec![node(1), node(2)],
            attack: attacked.then(|| wanted(&plan())),
            ..PhaseFigures::default()
        }
    }

    fn plan() -> StarvePlan {
        let seconds = std::time::Duration::from_secs(1);
        let mut attack = StarvePlan::attack_from([127, 0, 0, 2].into());
        (attack.idle, attack.watches, attack.keys_per_second) = (10, 10, 10);
        let (rate, callers, rounds, descriptors, program) = (Some(1.0), 1, 1, None, None);
        StarvePlan { rate, callers, phase: seconds, attack_beyond: seconds, rounds, descriptors, program, attack }
    }

    fn wanted(plan: &StarvePlan) -> AttackCounts {
        AttackCounts::wanted(plan)
    }

    /// Quiet, attacked, quiet: a p99 of 10 ms, and of so many beside the attack.
    fn report(p99_ms: u64, taken_mib: u64, change: impl FnOnce(&mut [PhaseFigures])) -> StarveReport {
        let mut phases =
            vec![phase(false, 10, 100, 101), phase(true, p99_ms, 101, 101 + taken_mib), phase(false, 10, 100, 101)];
        change(&mut phases);
        let tally = Tally { ok: 300, ..Tally::default() };
        StarveReport::new(&plan(), None, 1.0, phases, &[Tally::default(), tally], 300)
    }

    fn fails(report: &StarveReport, ratio_max: Option<f64>) -> String {
        match report.verdict(ratio_max, MS) {
            Verdict::Fails(why) => why.join("; "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn p99_beside_an_attack_may_be_twice_the_quiet_one_and_a_millisecond_is_noise() {
        assert_eq!(report(20, 1, |_| {}).verdict(TIMES_TWO, MS), Verdict::Holds);
        assert!(fails(&report(21, 1, |_| {}), TIMES_TWO).contains("2.10 times the quiet one"));
        assert_eq!(report(21, 1, |_| {}).verdict(None, MS), Verdict::Holds, "times are not judged");
        assert_eq!(report(21, 1, |_| {}).verdict(TIMES_TWO, 20 * MS), Verdict::Holds, "it is noise");
    }

    #[test]
    fn calls_health_elections_memory_and_stock_are_judged() {
        let holds = |report: StarveReport| assert_eq!(report.verdict(TIMES_TWO, MS), Verdict::Holds);
        holds(report(10, 1, |_| {}));
        for kind in 0..3 {
            let failed = report(10, 1, |phases| phases[1].failed[kind] = 1);
            assert!(fails(&failed, None).contains("phase 2 (attacked): 1 of the seller's calls"), "{kind}");
        }
        assert!(fails(&report(10, 1, |phases| phases[0].answered = 0), None).contains("was not answered"));
        let connections = report(10, 1, |phases| phases[1].new_connections = [3, 1]);
        assert!(fails(&connections, None).contains("1 of 3 calls over new connections"));
        assert!(fails(&report(10, 1, |phases| phases[1].livez_failed = 1), None).contains("/livez"));
        let elected = |phases: &mut [PhaseFigures]| phases[1].elections = 1;
        assert!(fails(&report(10, 1, elected), TIMES_TWO).contains("1 elections"));
        assert_eq!(report(10, 1, elected).verdict(None, MS), Verdict::Holds, "a debug build elects");
        let bound = memory_bound() >> 20;
        // What as many calls took in the quiet phase is the seller's own.
        holds(report(10, bound + 1, |_| {}));
        assert!(fails(&report(10, bound + 2, |_| {}), None).contains("MiB for an attack"));
        let mut stock = report(10, 1, |_| {});
        stock.held[2] = 301;
        assert!(fails(&stock, None).contains("301 units are held"));
        stock.held[1] = 1;
        holds(stock);
    }

    #[test]
    fn run_whose_attack_did_not_happen_proves_nothing() {
        let less: [fn(&mut AttackCounts) -> &mut u64; 8] = [
            |counts| &mut counts.idle_client,
            |counts| &mut counts.idle_http,
            |counts| &mut counts.idle_peer,
            |counts| &mut counts.watches_asked,
            |counts| &mut counts.watches_begun,
            |counts| &mut counts.pings,
            |counts| &mut counts.ping_connections,
            |counts| &mut counts.keys,
        ];
        for of in less {
            let missing = report(10, 1, |phases| *of(phases[1].attack.as_mut().expect("attacked")) -= 1);
            let Verdict::ProvesNothing(why) = missing.verdict(None, MS) else { panic!("it was less than asked for") };
            assert!(why.starts_with("only "), "{why}");
        }
        let quiet = report(10, 1, |phases| phases[1] = phase(false, 10, 100, 101));
        assert!(matches!(quiet.verdict(None, MS), Verdict::ProvesNothing(_)));
    }
}
