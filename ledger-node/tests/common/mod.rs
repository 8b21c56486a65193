//! Nodes in one process, on loopback: three on real disks in temporary directories, unless a test asks for others.

pub mod clients;
pub mod net;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::{LimitKeys, Lines};
use ledger_core::types::{Line, OfferKey, Quantity, Reference, ReservationId, Sku, Slot, Units};
use ledger_core::{Command, Outcome, Policy};
use ledger_node::config::{NodeConfig, Port};
use ledger_node::door::Answer;
use ledger_node::history::MemoryHistory;
use ledger_node::node::AdminError;
use ledger_node::shard::Shard;
use ledger_node::{Node, NodeSeams, NodeState, RunningNode, serve};
use ledger_proto::v1;
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::Seams;
use tempfile::TempDir;
use tokio::time::Instant;

/// Long enough for a loaded machine; no test waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn config(dir: &Path) -> NodeConfig {
    let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
    let mut config = NodeConfig {
        data_dir: dir.to_owned(),
        client: open(),
        http: open(),
        peer: open(),
        balance_settle: Duration::from_millis(500),
        ..NodeConfig::default()
    };
    config.raft.segment_bytes = 4 << 20;
    config.raft.low_space_bytes = 1 << 20;
    // Machines that run tests are busy: a node that waits for a processor should not lose its lease.
    config.raft.heartbeat = Duration::from_millis(150);
    config.raft.election_min = Duration::from_millis(500);
    config.raft.election_max = Duration::from_millis(900);
    config
}

/// Gives a node a disk and a history in memory: quick, and with knobs.
pub fn in_memory(seams: &mut NodeSeams, seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    *seams = NodeSeams::new(Seams::with_disk(Arc::new(disk.clone())), Arc::new(MemoryHistory::default()));
    disk
}

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub nodes: usize,
    pub shards: u32,
    pub replicas: u32,
}

pub struct Cluster {
    pub dirs: Vec<TempDir>,
    pub nodes: Vec<Option<RunningNode>>,
    /// What each node is started with, again too.
    given: Vec<(NodeConfig, NodeSeams)>,
}

impl Cluster {
    /// Starts and initialises three nodes.
    pub async fn start(shards: u32, change: impl FnMut(usize, &mut NodeConfig, &mut NodeSeams)) -> Self {
        Self::of(Shape { nodes: 3, shards, replicas: 0 }, change).await
    }

    /// Starts and initialises so many nodes.
    pub async fn of(shape: Shape, change: impl FnMut(usize, &mut NodeConfig, &mut NodeSeams)) -> Self {
        let cluster = Self::nodes(shape.nodes, change).await;
        let created = cluster.init_as(0, shape.shards, shape.replicas).await.expect("a fresh cluster is initialised");
        assert!(created.created);
        cluster
    }

    pub async fn empty(change: impl FnMut(usize, &mut NodeConfig, &mut NodeSeams)) -> Self {
        Self::nodes(3, change).await
    }

    async fn nodes(n: usize, mut change: impl FnMut(usize, &mut NodeConfig, &mut NodeSeams)) -> Self {
        let mut cluster = Self { dirs: Vec::new(), nodes: Vec::new(), given: Vec::new() };
        for i in 0..n {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (mut config, mut seams) = (config(dir.path()), NodeSeams::real());
            change(i, &mut config, &mut seams);
            cluster.given.push((config.clone(), seams.clone()));
            cluster.nodes.push(Some(serve(config, seams).await.expect("an empty node starts")));
            cluster.dirs.push(dir);
        }
        cluster
    }

    pub async fn init(&self, through: usize, shards: u32) -> Result<v1::InitResponse, AdminError> {
        self.init_as(through, shards, 0).await
    }

    async fn init_as(&self, through: usize, shards: u32, replicas: u32) -> Result<v1::InitResponse, AdminError> {
        self.node(through).init(v1::InitRequest { members: self.members(), shards, replicas }).await
    }

    /// The members as `cluster init` names them: node 1 is at place 0.
    pub fn members(&self) -> Vec<v1::Member> {
        let member = |i: usize| v1::Member { node: i as u64 + 1, client: self.client_addr(i), ..v1::Member::default() };
        (0..self.nodes.len()).map(member).collect()
    }

    /// Where clients reach a node that runs.
    pub fn client_addr(&self, i: usize) -> String {
        self.nodes[i].as_ref().expect("the node runs").client_addr().to_string()
    }

    pub fn node(&self, i: usize) -> &Arc<Node> {
        self.nodes[i].as_ref().expect("the node runs").node()
    }

    pub async fn stop(&mut self, i: usize) {
        self.nodes[i].take().expect("the node runs").shutdown(Duration::from_secs(5)).await;
    }

    /// A node that starts again listens where it does now, whatever becomes of its directory.
    pub fn keep_ports(&mut self, i: usize) {
        let running = self.nodes[i].as_ref().expect("the node runs");
        let config = &mut self.given[i].0;
        config.client.listen = running.client_addr().to_string();
        config.http.listen = running.http_addr().to_string();
        config.peer.listen = running.peer_addr().to_string();
    }

    /// Starts a node again, without waiting for more than its log.
    pub async fn restart_later(&mut self, i: usize) {
        let (config, seams) = self.given[i].clone();
        self.nodes[i] = Some(serve(config, seams).await.expect("the node starts again"));
    }

    pub async fn restart(&mut self, i: usize) {
        self.restart_later(i).await;
        let mut state = self.node(i).watch_state();
        let serving = tokio::time::timeout(PATIENCE, state.wait_for(|s| *s == NodeState::Serving)).await;
        serving.expect("the node serves in time").expect("the node lives");
    }

    pub async fn stop_all(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].is_some() {
                self.stop(i).await;
            }
        }
    }

    /// The place of the node that leads a shard, and its replica; waits for one.
    pub async fn leader(&self, shard: u32) -> (usize, Arc<Shard>) {
        let until = Instant::now() + PATIENCE;
        loop {
            tokio::task::yield_now().await;
            for (i, node) in self.nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                if let Some(replica) = node.node().shard(shard).filter(|replica| replica.leads()) {
                    return (i, replica);
                }
            }
            assert!(Instant::now() < until, "shard {shard} has no leader");
            self.something(shard).await;
        }
    }

    /// Any replica's status moves, or a moment passes.
    async fn something(&self, shard: u32) {
        let watches = self.nodes.iter().flatten().filter_map(|n| n.node().shard(shard)).map(|s| s.group().watch());
        let moved = watches.map(|mut watch| Box::pin(async move { watch.changed().await }));
        let moved: Vec<_> = moved.collect();
        if !moved.is_empty() {
            let _moment = tokio::time::timeout(Duration::from_millis(100), futures::future::select_all(moved)).await;
        }
    }

    /// Asks the leader until it answers from the log.
    pub async fn ask(&self, command: Command) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let slot = command.slot().expect("a command with a slot");
        loop {
            let shard = self.nodes.iter().flatten().find_map(|n| n.node().table().shard_id_for_slot(slot));
            let (_, replica) = self.leader(shard.expect("the slot has a shard")).await;
            let (_, _, answer) = replica.door().ask(command.clone(), Instant::now() + Duration::from_secs(5)).await;
            match answer {
                Answer::Outcome(outcome) => return outcome,
                other => assert!(Instant::now() < until, "still {other:?}"),
            }
            self.something(replica.id()).await;
        }
    }

    /// Waits until a replica has applied an index.
    pub async fn applied(&self, i: usize, shard: u32, index: u64) {
        let replica = self.node(i).shard(shard).expect("a replica");
        let mut applied = replica.applied();
        let reached = tokio::time::timeout(PATIENCE, applied.wait_for(|to| to.position.index >= index)).await;
        reached.expect("the replica catches up in time").expect("the replica lives");
    }
}

pub fn sku(name: &str) -> Sku {
    Sku::new(name).expect("a valid sku")
}

pub fn offer(name: &str) -> OfferKey {
    OfferKey { sku: sku(name), sale: None }
}

pub fn create(name: &str) -> Command {
    Command::CreateProduct { sku: sku(name), policy: Policy::default() }
}

pub fn receive(name: &str, units: i64, reference: &str) -> Command {
    let (units, reference) = (Units::new(units).expect("units"), Reference::new(reference).expect("a reference"));
    Command::Receive { offer: offer(name), units, reference }
}

/// An id for a product, minted from the wall clock as callers do.
pub fn mint(name: &str, n: u64) -> ReservationId {
    let now = ledger_raft::seam::WallClock::now_ms(&ledger_raft::seam_real::SystemClock);
    ReservationId::from_parts(Slot::of(&sku(name)), now, n)
}

pub fn reserve(name: &str, id: ReservationId, hold_ms: u64) -> Command {
    let line = Line { offer: offer(name), quantity: Quantity::new(1).expect("one") };
    Command::Reserve { id, keys: LimitKeys::new(), lines: Lines::from_iter([line]), hold_ms: Some(hold_ms) }
}
