//! One run: several nodes and clients in one thread, under simulated time, network and disks, out of one seed.
//!
//! First a safety phase, in which the plan's faults strike while clients buy; then everything heals, and all must converge
//! within a bound; then the run is read out and judged. The same seed gives the same run, byte for byte ([`mod@meta`]): each host has its own runtime whose
//! time stands still between ticks ([`host`]), everything of the world is behind seams or answered by [`interpose`], and a campaign gives
//! each run a process of its own ([`apart`]).
//!
//! # What is not drawn by the seed
//!
//! * *Which run of its process a run is.* tokio's own chance (the order in which `select!` looks, which of several waiters of a
//!   `watch` is woken first) is seeded from a counter of the process, and can be given a seed only in a build with `--cfg tokio_unstable`. So a run that is to be
//!   repeated is the only one of its process: the `jepsen` command and the tests run each in a child. Within one process, two runs of a seed may
//!   differ in that order, and in nothing else.
//! * *The order of log lines on stderr, and how long a run takes.* Neither decides anything.
//!
//! **Owns** the loop. **Must never** look inside a node to judge it: what is judged came through the public API.
//! **Read next**: [`crate::faults`], [`crate::workload`], [`crate::checkers`].

pub mod apart;
mod host;
mod interpose;
pub mod meta;
mod panics;
mod report;
mod strikes;
pub mod trace;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_node::config::{NodeConfig, Port};
use ledger_node::metrics::NodeMetrics;
use ledger_raft::RaftTuning;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::checkers::{self, Violation};
use crate::faults::{self, Fault};
use crate::history::About;
use crate::net::{self, Network};
use crate::readout;
use crate::sometimes;
use crate::workload::{self, Journal, Site};
use crate::world::{EPOCH_MS, NodeWorld};
use host::Host;
pub use meta::{MetaReport, meta};
pub use report::{Elected, Report, Setting};
use strikes::Strikes;
use trace::Trace;

/// Ports of every simulated node.
pub const CLIENT_PORT: u16 = 7101;
pub(crate) const HTTP_PORT: u16 = 7102;
const PEER_PORT: u16 = 7103;
/// The whole run must end within so much simulated time, besides that in which faults strike.
const BOUND: Duration = Duration::from_secs(232);
/// After the faults, everything must be served and every replica be equal within so much simulated time.
pub const CONVERGES_WITHIN: Duration = Duration::from_secs(60);
const SHARDS: u32 = 2;
const TICK: Duration = Duration::from_millis(1);
/// In a stretched run: messages between hosts arrive at such moments only, which is what most of a run's real time goes for.
const TICK_STRETCHED: Duration = Duration::from_millis(4);

/// Simulated time since this thread's run began; zero outside of a run.
pub(crate) fn elapsed() -> Duration {
    interpose::elapsed().unwrap_or_default()
}

/// What the driver and the loop that carries out faults tell each other.
#[derive(Clone, Default)]
struct Stage(Arc<(AtomicU8, Mutex<Shared>)>);

#[derive(Default)]
struct Shared {
    lost: Vec<usize>,
    emptied: Vec<usize>,
    rejoining: Vec<usize>,
    beyond: Option<(Duration, Vec<usize>)>,
    healed_at: Option<Duration>,
    converged_at: Option<Duration>,
}

impl Stage {
    // Zero is the setting up.
    const LOAD: u8 = 1;
    const HEAL: u8 = 2;
    const HEALED: u8 = 3;

    fn get(&self) -> u8 {
        self.0.0.load(Ordering::Relaxed)
    }
    fn set(&self, stage: u8) {
        self.0.0.store(stage, Ordering::Relaxed);
    }
    fn with<T>(&self, f: impl FnOnce(&mut Shared) -> T) -> T {
        f(&mut self.0.1.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The nodes that are there to the end.
    fn present(&self, nodes: usize) -> Vec<usize> {
        let out = |shared: &Shared, node: &usize| shared.emptied.contains(node) && !shared.rejoining.contains(node);
        let there = |shared: &Shared, node: &usize| !shared.lost.contains(node) && !out(shared, node);
        self.with(|shared| (0..nodes).filter(|node| there(shared, node)).collect())
    }
}

fn node_config(name: &str, setting: &Setting) -> NodeConfig {
    let port = |port: u16| Port {
        listen: format!("{}:{port}", Ipv4Addr::UNSPECIFIED),
        advertise: Some(format!("{name}:{port}")),
    };
    let mut config = NodeConfig {
        data_dir: "/data".into(),
        client: port(CLIENT_PORT),
        http: port(HTTP_PORT),
        peer: port(PEER_PORT),
        trusted: vec!["0.0.0.0/0".parse().expect("a network")],
        insecure: true,
        ..NodeConfig::default()
    };
    // Small numbers, so that segments turn over, snapshots are built and logs are purged within a run; drawn by the seed.
    config.raft.segment_bytes = 256 << 10;
    config.raft.snapshot_every_entries = 20 + setting.seed % 200;
    config.raft.keep_entries = faults::plan::keep_entries(setting.seed);
    config.raft.low_space_bytes = 1 << 20;
    workload::tune(setting.load, &mut config);
    config
}

/// Runs a setting, on a thread of its own. To repeat a run byte for byte, use [`apart::Apart`].
pub fn run(setting: Setting) -> Report {
    panics::watch();
    // The metrics' clock measures the processor's own against the system's, once, and would wait for ever for simulated time to pass. What it
    // finds decides nothing here.
    interpose::in_no_time(|| drop(NodeMetrics::new()));
    let thread = std::thread::Builder::new().name("simulation".into()).spawn(move || {
        interpose::enter(setting.seed);
        crate::bad::set(&setting.known_bad);
        let report = run_here(&setting);
        interpose::leave();
        report
    });
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(report)) => report,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("no thread for a simulation: {error}"),
    }
}

fn run_here(setting: &Setting) -> Report {
    let _listening = sometimes::listen();
    let trace = Trace::new(setting.keep_trace);
    let mut names: Vec<String> = (0..setting.nodes).map(|n| format!("n{}", n + 1)).collect();
    names.push("clients".into());
    let network = Network::new(setting.seed, names, trace.clone());
    let worlds: Vec<NodeWorld> =
        (0..setting.nodes).map(|n| NodeWorld::new(setting.seed, n, network.of(n), &trace)).collect();
    let mut hosts: Vec<Host> = worlds.iter().map(|world| node_host(world.clone(), setting.clone())).collect();
    let (journal, stage): (Journal, Stage) = (Arc::default(), Stage::default());
    net::clients_are_at(Some(network.of(setting.nodes)));
    hosts.push(clients_host(setting.clone(), journal.clone(), stage.clone()));

    let plan = setting.plan();
    let mut strikes = Strikes::new(setting.seed, plan.clone(), worlds, hosts, network.clone(), trace.clone());
    let ended = carry_out(setting, &mut strikes, &network, &stage);
    let simulated = elapsed();
    let mut run = std::mem::take(&mut *journal.lock().unwrap_or_else(PoisonError::into_inner));
    let About { beyond_ms, damaged, emptied, rejoined, .. } = std::mem::take(&mut run.about);
    run.about = About { beyond_ms, damaged, emptied, rejoined, ..workload::about(setting.seed, setting.load) };
    run.about.epoch_ms = EPOCH_MS;
    run.sometimes = sometimes::take();
    // Ledger time is what a quorum of clocks says, as long as a quorum of them is right.
    let right = setting.nodes - strikes.wrong_clocks.len();
    run.about.clock_bound_ms = (right > setting.nodes / 2).then_some(workload::CLOCK_BOUND_MS);
    let jump_max = RaftTuning::default().clock_jump_max.as_millis() as u64;
    run.about.clock_jump_max_ms = (!run.sometimes.contains_key("ledger-time-unchecked")).then_some(jump_max);
    run.events.iter().for_each(|event| trace.note(format_args!("answer {event:?}")));
    let mut violations = match ended {
        Ok(()) => checkers::check_all(&run),
        Err(what) => vec![Violation { property: "converges when faults stop", what }],
    };
    let panicked = panics::take().into_iter();
    violations.extend(panicked.map(|what| Violation { property: "nobody panics", what }));
    violations.dedup();
    // The hosts go while their network and their time are still there.
    let (struck, lost) = (std::mem::take(&mut strikes.struck), std::mem::take(&mut strikes.lost));
    strikes.hosts.iter_mut().for_each(Host::stop);
    net::clients_are_at(None);
    let began = strikes.began.unwrap_or_default();
    let elected = sometimes::probe::elections().into_iter().filter_map(|(at, group, term)| {
        let at_ms = at.checked_sub(began)?.as_millis() as u64;
        Some(Elected { at_ms, group, term })
    });
    let elected = elected.collect();
    let converged_after = stage.with(|s| s.converged_at.zip(s.healed_at).map(|(done, healed)| done - healed));
    Report {
        seed: setting.seed,
        nodes: setting.nodes,
        reached: sometimes::of(&run),
        run,
        violations,
        struck,
        plan,
        lost,
        simulated,
        converged_after,
        elected,
        trace_digest: trace.digest(),
        trace_lines: trace.count(),
        trace: trace.take_lines(),
    }
}

fn tick_of(setting: &Setting) -> Duration {
    if setting.stretch > 1 { TICK_STRETCHED } else { TICK }
}

fn node_host(world: NodeWorld, setting: Setting) -> Host {
    Host::new(tick_of(&setting), move || {
        let (config, seams, world) = (node_config(&world.name, &setting), world.seams(), world.clone());
        async move {
            let mut node = ledger_node::serve(config, seams).await.map_err(|e| settings::with_causes(&e))?;
            world.set_running(Some(node.node().clone()));
            Err(node.wait().await)
        }
    })
}

fn clients_host(setting: Setting, journal: Journal, stage: Stage) -> Host {
    Host::new(tick_of(&setting), move || {
        let driving = drive(setting.clone(), journal.clone(), stage.clone());
        async move { driving.await.map_err(|e| e.to_string()) }
    })
}

fn carry_out(setting: &Setting, strikes: &mut Strikes, network: &Network, stage: &Stage) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(setting.seed ^ 0x0bde);
    let mut order: Vec<usize> = (0..strikes.hosts.len()).collect();
    let mut now = Duration::ZERO;
    let (tick, bound) = (tick_of(setting), BOUND + Duration::from_millis(setting.faults_ms));
    while now < bound {
        now += tick;
        interpose::advance_to(now);
        network.tick(now);
        order.shuffle(&mut rng);
        for host in &order {
            let Some(ended) = strikes.hosts[*host].tick() else { continue };
            if *host == setting.nodes {
                return ended.map_err(|error| explained(&error, now, strikes));
            }
            strikes.ended(*host, ended);
        }
        match stage.get() {
            Stage::HEAL => {
                strikes.tick(now, false);
                strikes.heal();
                stage.with(|shared| {
                    (shared.lost, shared.beyond) = (strikes.lost.clone(), strikes.beyond.clone());
                    (shared.emptied, shared.rejoining) = (strikes.emptied.clone(), strikes.rejoining.clone());
                    shared.healed_at = Some(now);
                });
                stage.set(Stage::HEALED);
            }
            at => strikes.tick(now, at == Stage::LOAD),
        }
        if stage.get() == Stage::HEALED {
            let due =
                stage.with(|s| s.converged_at.is_none() && s.healed_at.is_some_and(|at| at + CONVERGES_WITHIN < now));
            if due {
                return Err(explained("not converged within a minute of the last fault", now, strikes));
            }
        }
        if panics::any() {
            return Err(format!("a process panicked at {} ms", now.as_millis()));
        }
    }
    Err(explained(&format!("not done after {bound:?} of simulated time"), now, strikes))
}

fn explained(error: &str, now: Duration, strikes: &Strikes) -> String {
    let words: Vec<&str> = strikes.last_words.iter().rev().take(3).map(String::as_str).collect();
    match words.is_empty() {
        true => format!("at {} ms: {error}", now.as_millis()),
        false => {
            format!("at {} ms: {error}; processes that ended by themselves: {}", now.as_millis(), words.join("; "))
        }
    }
}

async fn drive(setting: Setting, journal: Journal, stage: Stage) -> Result<(), workload::Failure> {
    let (load, site) = (setting.load, Site::simulated(setting.nodes, CLIENT_PORT));
    readout::init_cluster(&site, SHARDS).await?;
    let client = readout::connect(&site, setting.seed).await?;
    workload::set_up(&client, &site, load, &journal).await;
    stage.set(Stage::LOAD);
    let load_ends = tokio::time::Instant::now() + Duration::from_millis(setting.faults_ms);
    let pressing = workload::press(&client, &site, setting.seed, load, &journal);
    if setting.plan().iter().any(|planned| matches!(planned.fault, Fault::Beyond { .. })) {
        // Some clients ask until they are answered, which they no longer are.
        let _unanswered = tokio::time::timeout_at(load_ends, pressing).await;
    } else {
        pressing.await;
    }
    tokio::time::sleep_until(load_ends).await;
    stage.set(Stage::HEAL);
    while stage.get() != Stage::HEALED {
        tokio::time::sleep(TICK).await;
    }
    if let Some((at, damaged)) = stage.with(|shared| shared.beyond.clone()) {
        let ids: Vec<u64> = damaged.iter().map(|node| *node as u64 + 1).collect();
        readout::stays_unavailable(&client, &site, load, &journal, &ids).await?;
        let mut run = journal.lock().unwrap_or_else(PoisonError::into_inner);
        (run.about.beyond_ms, run.about.damaged) = (Some(at.as_millis() as u64), ids);
        stage.with(|shared| shared.converged_at = Some(elapsed()));
        return Ok(());
    }
    let (emptied, rejoining) = stage.with(|shared| (shared.emptied.clone(), shared.rejoining.clone()));
    let ids = |nodes: &[usize]| nodes.iter().map(|node| *node as u64 + 1).collect::<Vec<_>>();
    let out: Vec<usize> = emptied.into_iter().filter(|node| !rejoining.contains(node)).collect();
    readout::stay_out(&site, &journal, &ids(&out)).await;
    readout::come_back(&site, &ids(&rejoining)).await?;
    journal.lock().unwrap_or_else(PoisonError::into_inner).about.rejoined = ids(&rejoining);
    let site = site.only(&stage.present(setting.nodes));
    readout::converged(&client, &site, load).await?;
    stage.with(|shared| shared.converged_at = Some(elapsed()));
    // Every hold's deadline passes, with what a stopped leader may have added.
    tokio::time::sleep(Duration::from_millis(workload::longest_hold_ms(load) + 5_000)).await;
    readout::read_out(&client, &site, load, &journal).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_draws_the_tuning() {
        let distinct: std::collections::BTreeSet<_> =
            (0..40).map(|seed| node_config("n1", &Setting::of(seed)).raft.snapshot_every_entries).collect();
        assert!(distinct.len() > 30, "{distinct:?}");
    }
}
