//! One run: several nodes and clients in one thread, under simulated time, network and disks, out of one seed.
//!
//! First a safety phase, in which the plan's faults strike while clients buy; then everything heals, and all must converge
//! within a bound; then the run is read out and judged.
//!
//! **Owns** the loop that carries out faults. **Must never** look inside a node: what is judged came through the public API.
//! **Read next**: [`crate::faults`], [`crate::workload`], [`crate::checkers`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use ledger_node::config::{NodeConfig, Port};
use turmoil::Sim;

use crate::checkers::{self, Violation};
use crate::faults::{self, Fault, Planned};
use crate::history::Run;
use crate::readout;
use crate::workload::{self, Journal, Load};
use crate::world::{EPOCH_MS, NodeWorld};

/// Ports of every simulated node.
pub const CLIENT_PORT: u16 = 7101;
const HTTP_PORT: u16 = 7102;
const PEER_PORT: u16 = 7103;
/// The whole run must end within so much simulated time.
const BOUND: Duration = Duration::from_secs(240);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// What the clients ask.
    pub load: Load,
    /// How long faults strike, simulated milliseconds.
    pub faults_ms: u64,
}

impl Setting {
    /// The usual run of a seed.
    pub fn of(seed: u64) -> Self {
        Self { seed, nodes: 3, load: Load::default(), faults_ms: 8_000 }
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Everything the clients saw.
    pub run: Run,
    /// Empty when all held.
    pub violations: Vec<Violation>,
    /// Faults that struck, by name.
    pub struck: BTreeMap<&'static str, u32>,
    /// Simulated time it took.
    pub simulated: Duration,
}

/// Where the driver and the loop that carries out faults are.
#[derive(Clone)]
struct Phase(Arc<AtomicU8>);

impl Phase {
    const SET_UP: u8 = 0;
    const LOAD: u8 = 1;
    const HEAL: u8 = 2;
    const HEALED: u8 = 3;

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }
}

fn node_config(name: &str, seed: u64) -> NodeConfig {
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
        ..NodeConfig::default()
    };
    // Small numbers, so that segments turn over, snapshots are built and logs are purged within a run; drawn by the seed.
    config.raft.segment_bytes = 256 << 10;
    config.raft.snapshot_every_entries = 20 + seed % 200;
    config.raft.keep_entries = seed / 7 % 100;
    config.raft.low_space_bytes = 1 << 20;
    config
}

/// Runs a seed.
pub fn run(setting: Setting) -> Report {
    let worlds: Rc<Vec<NodeWorld>> = Rc::new((0..setting.nodes).map(|n| NodeWorld::new(setting.seed, n)).collect());
    let mut sim = turmoil::Builder::new()
        .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .rng_seed(setting.seed)
        .simulation_duration(BOUND * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(1 << 14)
        .enable_random_order()
        .build();
    for world in worlds.iter() {
        let world = world.clone();
        sim.host(world.name.clone(), move || {
            let (config, seams) = (node_config(&world.name, setting.seed), world.seams());
            async move {
                let mut node = ledger_node::serve(config, seams).await?;
                node.wait().await;
                Ok(())
            }
        });
    }
    let journal: Journal = Arc::new(Mutex::new(Run::default()));
    let phase = Phase(Arc::new(AtomicU8::new(Phase::SET_UP)));
    sim.client("clients", drive(setting, journal.clone(), phase.clone()));

    let mut strikes = Strikes::new(setting, worlds);
    let ended = carry_out(&mut sim, &mut strikes, &phase);
    let run = journal.lock().expect("one thread").clone();
    let mut violations = match ended {
        Ok(()) => checkers::check_all(&run),
        Err(what) => vec![Violation { property: "converges when faults stop", what }],
    };
    violations.dedup();
    Report { seed: setting.seed, run, violations, struck: strikes.struck, simulated: sim.elapsed() }
}

fn carry_out(sim: &mut Sim<'_>, strikes: &mut Strikes, phase: &Phase) -> Result<(), String> {
    loop {
        match sim.step() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(format!("at {} ms: {error}", sim.elapsed().as_millis())),
        }
        match phase.get() {
            Phase::LOAD => strikes.tick(sim),
            Phase::HEAL => {
                strikes.heal(sim);
                phase.set(Phase::HEALED);
            }
            _ => {}
        }
        if sim.elapsed() > BOUND {
            return Err(format!("not done after {BOUND:?} of simulated time"));
        }
    }
}

async fn drive(setting: Setting, journal: Journal, phase: Phase) -> turmoil::Result {
    readout::init_cluster(setting.nodes).await?;
    let client = readout::connect(setting.nodes, setting.seed).await?;
    workload::set_up(&client, setting.load, &journal).await;
    phase.set(Phase::LOAD);
    let shoppers = (1..=setting.load.clients).map(|n| workload::shop(&client, n, setting.seed, setting.load, &journal));
    let load_ends = tokio::time::Instant::now() + Duration::from_millis(setting.faults_ms);
    futures::future::join_all(shoppers).await;
    tokio::time::sleep_until(load_ends).await;
    phase.set(Phase::HEAL);
    while phase.get() != Phase::HEALED {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Every hold's deadline passes, with what a stopped leader may have added.
    tokio::time::sleep(Duration::from_millis(setting.load.hold_ms_max + 5_000)).await;
    readout::read_out(&client, setting, &journal).await?;
    Ok(())
}

/// The plan, what is under way, and how each fault is done and undone.
struct Strikes {
    worlds: Rc<Vec<NodeWorld>>,
    plan: std::vec::IntoIter<Planned>,
    next: Option<Planned>,
    began: Option<Duration>,
    undo: Vec<(Duration, Undo)>,
    down: Vec<bool>,
    clock_off: Vec<i64>,
    struck: BTreeMap<&'static str, u32>,
    crashes: u64,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
enum Undo {
    Bounce(usize),
    Repair(usize, usize),
    RepairClients(usize),
    Release(usize, usize),
    FastNet,
    FastDisk(usize),
}

impl Strikes {
    fn new(setting: Setting, worlds: Rc<Vec<NodeWorld>>) -> Self {
        let mut plan = faults::plan(setting.seed, setting.nodes, setting.faults_ms).into_iter();
        Self {
            next: plan.next(),
            plan,
            began: None,
            undo: Vec::new(),
            down: vec![false; setting.nodes],
            clock_off: vec![0; setting.nodes],
            struck: BTreeMap::new(),
            crashes: 0,
            seed: setting.seed,
            worlds,
        }
    }

    fn name(&self, node: usize) -> &str {
        &self.worlds[node].name
    }

    fn tick(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let began = *self.began.get_or_insert(now);
        let (due, later): (Vec<_>, Vec<_>) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = later;
        for (_, undo) in due {
            self.undo_one(sim, undo);
        }
        while let Some(planned) = self.next
            && began + Duration::from_millis(planned.at_ms) <= now
        {
            self.strike(sim, planned.fault, now);
            self.next = self.plan.next();
        }
    }

    fn heal(&mut self, sim: &mut Sim<'_>) {
        self.next = None;
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo_one(sim, undo);
        }
        for (node, off) in self.clock_off.iter_mut().enumerate() {
            self.worlds[node].clock.jump(-std::mem::take(off));
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, node: usize) -> bool {
        if std::mem::replace(&mut self.down[node], true) {
            return false;
        }
        self.crashes += 1;
        sim.crash(self.name(node));
        self.worlds[node].disk.crash(self.seed.rotate_left(17) ^ self.crashes);
        true
    }

    fn strike(&mut self, sim: &mut Sim<'_>, fault: Fault, now: Duration) {
        tracing::debug!(?fault, at = ?now, "fault");
        let after = |ms: u64| now + Duration::from_millis(ms);
        match fault {
            Fault::Crash { node, ms } => {
                if self.crash(sim, node) {
                    self.undo.push((after(ms), Undo::Bounce(node)));
                }
            }
            Fault::CrashAll { ms } => {
                for node in 0..self.worlds.len() {
                    if self.crash(sim, node) {
                        self.undo.push((after(ms), Undo::Bounce(node)));
                    }
                }
            }
            Fault::Isolate { node, clients, ms } => {
                for other in (0..self.worlds.len()).filter(|o| *o != node) {
                    sim.partition(self.name(node), self.name(other));
                    self.undo.push((after(ms), Undo::Repair(node, other)));
                }
                if clients {
                    sim.partition(self.name(node), "clients");
                    self.undo.push((after(ms), Undo::RepairClients(node)));
                }
            }
            Fault::OneWay { from, to, ms } => {
                sim.partition_oneway(self.name(from), self.name(to));
                self.undo.push((after(ms), Undo::Repair(from, to)));
            }
            Fault::Hold { a, b, ms } => {
                sim.hold(self.name(a), self.name(b));
                self.undo.push((after(ms), Undo::Release(a, b)));
            }
            Fault::SlowNet { latency_ms, ms } => {
                sim.set_max_message_latency(Duration::from_millis(latency_ms));
                self.undo.push((after(ms), Undo::FastNet));
            }
            Fault::SlowDisk { node, latency_ms, ms } => {
                self.worlds[node].disk.set_latency(Duration::from_millis(latency_ms));
                self.undo.push((after(ms), Undo::FastDisk(node)));
            }
            Fault::ClockJump { node, by_ms } => {
                self.worlds[node].clock.jump(by_ms);
                self.clock_off[node] += by_ms;
            }
        }
        *self.struck.entry(fault.name()).or_default() += 1;
    }

    fn undo_one(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        match undo {
            Undo::Bounce(node) => {
                self.down[node] = false;
                sim.bounce(self.name(node));
            }
            Undo::Repair(a, b) => sim.repair(self.name(a), self.name(b)),
            Undo::RepairClients(node) => sim.repair(self.name(node), "clients"),
            Undo::Release(a, b) => sim.release(self.name(a), self.name(b)),
            Undo::FastNet => sim.set_max_message_latency(Duration::from_millis(5)),
            Undo::FastDisk(node) => self.worlds[node].disk.set_latency(Duration::ZERO),
        }
    }
}
