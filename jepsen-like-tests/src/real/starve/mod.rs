//! Whether one host can starve the others: a seller's latencies without an attack and beside one, and what the nodes took for it.
//!
//! **What it is.** Real processes with their default limits, a seller at half of what they reach, and phases in turn: quiet, attacked,
//! quiet, … An attacked phase is compared with the quiet ones around it. The attack is a process of its own.
//!
//! **Owns** the phases and the verdict. **Must never** call a run good whose attack did not happen: it proves nothing, and the verdict
//! says so. Latencies are figures of the machine; a test must not judge them. **Read next**: [`attack`], `jepsen starve --help`.

pub mod attack;
pub mod attack_process;
mod http2;
mod keys;
mod node_figures;
mod report;
mod seller;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client_sdk::{Client, Policy, Sku};
use cluster::dev_cluster::{DevCluster, NodeProgram};
use tokio::time::{Instant, interval, sleep};

use self::attack::{AttackCounts, AttackPlan, NodeAddresses};
use self::attack_process::AttackProcess;
use self::node_figures::{Metrics, metrics, page, resident};
pub use self::report::{NodeFigures, PhaseFigures, StarveReport, Verdict};
use self::seller::{HOLD, Seller};
use super::RealError;

const NODES: u64 = 3;
/// The shard that everything happens in.
const SHARD: u32 = 1;
/// What the seller sells, and what the attack takes.
const SKUS: [&str; 2] = ["starve", "starve-colliding"];
const UNITS: i64 = 1_000_000_000;
/// Before the first phase, and between two: connections of an attack that ended are closed.
const PAUSE: Duration = Duration::from_secs(3);
const CALIBRATION: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Health is asked for as often.
const LIVEZ_EVERY: Duration = Duration::from_secs(1);
/// Beyond a phase's time there are colliding keys for so long.
const KEYS_BEYOND: Duration = Duration::from_secs(20);
/// A node's status is waited for so long.
const STATUS_WITHIN: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Debug, Clone)]
pub struct StarvePlan {
    /// The seller's calls a second; none: half of what the nodes reach.
    pub rate: Option<f64>,
    /// Callers at once that find out what they reach.
    pub callers: usize,
    /// How long a phase is.
    pub phase: Duration,
    /// An attacked phase goes on for so long beyond its time until the attack has done what was asked of it.
    pub attack_beyond: Duration,
    /// Attacked phases.
    pub rounds: u32,
    /// Descriptors that a node may open; none: what this process may.
    pub descriptors: Option<u64>,
    /// The `jepsen` whose nodes are attacked; none: this one.
    pub program: Option<PathBuf>,
    /// The attack: nodes, leader and product are filled in.
    pub attack: AttackPlan,
}

impl StarvePlan {
    /// The attack of a plan, without its target.
    pub fn attack_from(from: IpAddr) -> AttackPlan {
        AttackPlan {
            nodes: Vec::new(),
            leader: 0,
            from,
            idle: 0,
            reopened_per_second: 1,
            watches: 0,
            watches_again_per_second: 1,
            pings_per_second: 0,
            keys_per_second: 0,
            keys_for_seconds: 0,
            niceness: 0,
            sku: SKUS[1].to_owned(),
            hold_ms: HOLD.as_millis() as u64,
        }
    }
}

/// The nodes, and what is looked at in them all the time.
struct Watched {
    cluster: DevCluster,
    looks: Arc<Mutex<Looks>>,
}

#[derive(Default)]
struct Looks {
    /// Most memory of each node since it was last asked for.
    resident_max: Vec<u64>,
    /// Milliseconds of `/livez`, and how often it did not answer, since then.
    livez_ms: Vec<u64>,
    livez_failed: u64,
}

impl Watched {
    fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks until it is dropped.
    async fn look(&self) {
        let memory = async {
            let mut ticks = interval(LOOK_EVERY);
            loop {
                ticks.tick().await;
                let now = self.resident();
                let mut looks = self.looks();
                looks.resident_max.resize(now.len(), 0);
                looks.resident_max.iter_mut().zip(now).for_each(|(max, now)| *max = now.max(*max));
            }
        };
        let health = async {
            let mut ticks = interval(LIVEZ_EVERY);
            loop {
                ticks.tick().await;
                for node in self.cluster.nodes() {
                    let began = Instant::now();
                    let lives = page(node, "/livez").await.is_ok();
                    let mut looks = self.looks();
                    looks.livez_ms.push(began.elapsed().as_millis() as u64);
                    looks.livez_failed += u64::from(!lives);
                }
            }
        };
        tokio::join!(memory, health);
    }

    fn resident(&self) -> Vec<u64> {
        self.cluster.nodes().iter().map(|node| node.pid().map_or(0, resident)).collect()
    }

    /// The newest term of the shard.
    async fn term(&self) -> Result<u64, RealError> {
        let began = Instant::now();
        loop {
            let mut terms = Vec::new();
            for node in self.cluster.nodes() {
                let shards = node.link().status().await.map(|status| status.shards).unwrap_or_default();
                terms.extend(shards.iter().filter(|shard| shard.shard == SHARD).map(|shard| shard.term));
            }
            if let (NODES, Some(term)) = (terms.len() as u64, terms.into_iter().max()) {
                return Ok(term);
            }
            if began.elapsed() > STATUS_WITHIN {
                let why = format!("not every node answered within {STATUS_WITHIN:?}");
                return Err(RealError::Clients { what: "ask the nodes for their status", why });
            }
        }
    }

    async fn metrics(&self) -> Result<Vec<Metrics>, RealError> {
        let mut all = Vec::new();
        for node in self.cluster.nodes() {
            let io = |source| RealError::Io { what: format!("read the metrics of node {}", node.id), source };
            all.push(metrics(node).await.map_err(io)?);
        }
        Ok(all)
    }
}

/// Measures on three nodes of our own below `dir`; `tell` is given a line as each phase ends.
///
/// # Errors
/// When the nodes do not come up, or the attack does not begin.
pub async fn measure(dir: &Path, plan: &StarvePlan, mut tell: impl FnMut(&str)) -> Result<StarveReport, RealError> {
    let clients = |what, why: String| RealError::Clients { what, why };
    let program = node_program(plan)?;
    let cluster = DevCluster::start(program, dir, NODES, 1, &[]).await?;
    // As a node does; the seller's own latencies must not count for it. Nodes would inherit it if it came before them.
    ledger_node::process::disable_huge_pages();
    let leader = cluster.leader_of(SHARD).await.ok_or_else(|| clients("find the leader", "there is none".into()))?;
    let mut attack = plan.attack.clone();
    attack.nodes = addresses(&cluster)?;
    attack.leader = leader as usize - 1;
    attack.keys_for_seconds = (plan.phase + KEYS_BEYOND).as_secs() as u32;
    let endpoints = cluster.endpoints();
    let client = Client::connect(endpoints.clone()).await.map_err(|e| clients("connect", e.to_string()))?;
    let skus = SKUS.map(|sku| Sku::new(sku).expect("letters"));
    for sku in &skus {
        let stocked = async {
            let policy = Policy { hold_ms_max: HOLD.as_millis() as u64, ..Policy::default() };
            client.create_product(sku, policy).await.into_result()?;
            client.receive(sku, UNITS, "the lot").await.into_result()
        };
        stocked.await.map_err(|e| clients("stock a product", e.to_string()))?;
    }
    let [sku, _] = skus;
    let seller = Seller::new(client.clone(), endpoints, sku.clone());
    let reached = match plan.rate {
        Some(_) => None,
        None => Some(seller.calibrate(plan.callers, CALIBRATION).await),
    };
    let rate = plan.rate.or(reached.map(|reached| reached / 2.0)).unwrap_or(1.0).max(1.0);
    let watched = Watched { cluster, looks: Arc::default() };

    let selling = tokio::spawn(seller.clone().sell(rate));
    let new_connections = tokio::spawn(seller.clone().sell_over_new_connections());
    let phases = async {
        sleep(PAUSE).await;
        let mut phases = Vec::new();
        for round in 0..plan.rounds {
            phases.push(phase(&watched, &seller, plan, None).await?);
            tell(&format!("round {}: quiet phase measured", round + 1));
            // It finds its keys: nothing is measured meanwhile.
            let process = AttackProcess::prepare(&attack).await;
            let process = process.map_err(|source| RealError::Io { what: "prepare the attack".into(), source })?;
            phases.push(phase(&watched, &seller, plan, Some(process)).await?);
            tell(&format!("round {}: attacked phase measured", round + 1));
            sleep(PAUSE).await;
        }
        phases.push(phase(&watched, &seller, plan, None).await?);
        Ok::<_, RealError>(phases)
    };
    let mut phases = tokio::select! {
        phases = phases => phases?,
        () = watched.look() => Vec::new(),
    };
    seller.stop();
    selling.await.map_err(|e| clients("sell", e.to_string()))?;
    new_connections.await.map_err(|e| clients("sell", e.to_string()))?;
    let tallies = seller.tallies();
    for (phase, tally) in phases.iter_mut().zip(tallies.iter().skip(1)) {
        phase.sold(tally);
    }
    let read = client.product(&sku).await.into_result().map_err(|e| clients("read the product", e.to_string()))?;
    let held = read.iter().flat_map(|product| &product.offers).map(|offer| offer.balance.held).sum();
    client.close().await;
    let Watched { mut cluster, .. } = watched;
    cluster.stop_all().await;
    Ok(StarveReport::new(plan, reached, rate, phases, &tallies, held))
}

fn node_program(plan: &StarvePlan) -> Result<NodeProgram, RealError> {
    let io = |source| RealError::Io { what: "find this executable".into(), source };
    let program = match &plan.program {
        Some(path) => NodeProgram::ledgerctl(path),
        None => NodeProgram::this().map_err(io)?,
    };
    let Some(descriptors) = plan.descriptors else { return Ok(program) };
    let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let before = ["-c".to_owned(), limited, program.path.display().to_string()];
    Ok(NodeProgram { path: "/bin/sh".into(), before: before.into_iter().chain(program.before).collect() })
}

fn addresses(cluster: &DevCluster) -> Result<Vec<NodeAddresses>, RealError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| RealError::Clients { what: "read a node's address", why: format!("it is {text}") })
    };
    let all = cluster.nodes().iter().map(|node| {
        Ok(NodeAddresses { client: parse(&node.client)?, http: parse(&node.http)?, peer: parse(&node.peer)? })
    });
    all.collect()
}

/// One phase; beside an attack, if there is one.
async fn phase(
    watched: &Watched,
    seller: &Seller,
    plan: &StarvePlan,
    attack: Option<AttackProcess>,
) -> Result<PhaseFigures, RealError> {
    let attack_io = |source| RealError::Io { what: "attack".into(), source };
    let (before, term) = (watched.metrics().await?, watched.term().await?);
    let resident_before = watched.resident();
    *watched.looks() = Looks::default();
    let answered = seller.answered();
    seller.begin_phase();
    let began = Instant::now();
    let mut attack = attack;
    if let Some(attack) = &mut attack {
        attack.begin().await.map_err(attack_io)?;
    }
    let wanted = AttackCounts::wanted(plan);
    let done = |attack: &Option<AttackProcess>| attack.as_ref().is_none_or(|attack| attack.counts().reaches(&wanted));
    while began.elapsed() < plan.phase || (began.elapsed() < plan.phase + plan.attack_beyond && !done(&attack)) {
        sleep(LOOK_EVERY).await;
    }
    seller.end_phase();
    let lasted = began.elapsed();
    let answered = seller.answered() - answered;
    let after = watched.metrics().await?;
    let elections = watched.term().await? - term;
    let looks = std::mem::take(&mut *watched.looks());
    let resident_after = watched.resident();
    let counts = match attack {
        Some(attack) => Some(attack.end().await.map_err(attack_io)?),
        None => None,
    };
    let nodes = (0..before.len()).map(|n| NodeFigures {
        node: n as u64 + 1,
        resident_before: resident_before[n],
        resident_max: looks.resident_max.get(n).copied().unwrap_or_default().max(resident_after[n]),
        resident_after: resident_after[n],
        cpu_ms: after[n].cpu_ms.saturating_sub(before[n].cpu_ms),
        closed: growth(&before[n].closed, &after[n].closed),
    });
    Ok(PhaseFigures {
        attacked: counts.is_some(),
        seconds: lasted.as_secs_f64(),
        answered,
        nodes: nodes.collect(),
        elections,
        livez_ms_max: looks.livez_ms.iter().copied().max().unwrap_or_default(),
        livez_failed: looks.livez_failed,
        attack: counts,
        ..PhaseFigures::default()
    })
}

fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown =
        after.iter().map(|(name, now)| (name.clone(), now - before.get(name).copied().unwrap_or_default().min(*now)));
    grown.filter(|(_, grown)| *grown > 0).collect()
}
