//! The nodes that are pressed on: processes of ours behind a proxy, or somebody's own cluster.
//!
//! **Owns** the processes, their directories and the proxy. **Must never** signal a process that it did not start.
//! **Read next**: [`super::nemesis`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::dev_cluster::{DevCluster, DevNode, NodeProgram};
use rustix::process::Signal;

use super::RealError;
use super::knobs::Knobs;
use super::losses::{self, Loss};
use super::proxy::{Links, Proxy};
use crate::workload::Site;

/// Small numbers (the smallest segments there are), so that segments turn over, snapshots are built and logs are purged within a short run.
const TUNING: [&str; 6] =
    ["--raft-segment-bytes", "20971520", "--raft-snapshot-every-entries", "500", "--raft-keep-entries", "200"];

/// A repair takes an election and a snapshot.
const REPAIRED_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks into a node's log.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A node that has lost something, and what its log must say once it runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostDisk {
    /// Which node.
    pub node: u64,
    /// What it lost.
    pub what: String,
    /// A line that names the damage.
    noticed: &'static str,
    /// Groups that are repaired; none: one at least.
    groups: Option<usize>,
    /// Bytes of its log before.
    log_from: usize,
}

/// Nodes that are ours.
struct Own {
    cluster: DevCluster,
    proxy: Proxy,
    /// Those that we killed or stopped, so that they may be dead.
    down: Vec<u64>,
}

/// Where a run takes place.
pub struct Field {
    site: Site,
    shards: u32,
    own: Option<Own>,
    program: Option<PathBuf>,
}

impl Field {
    /// Starts a cluster of `nodes` processes below `dir`, each behind the proxy; they run this very executable.
    ///
    /// # Errors
    /// When a node does not come up.
    pub async fn spawn(dir: &Path, nodes: u64, shards: u32, program: Option<PathBuf>) -> Result<Self, RealError> {
        let extra: Vec<String> = TUNING.iter().map(ToString::to_string).collect();
        let node =
            NodeProgram::this().map_err(|source| RealError::Io { what: "find this executable".into(), source })?;
        let mut cluster = DevCluster::prepare(node, dir, nodes, &extra)?;
        let really: Vec<(u64, String)> = cluster.nodes().iter().map(|n| (n.id, n.peer.clone())).collect();
        let proxy =
            Proxy::start(&really).await.map_err(|source| RealError::Io { what: "start the proxy".into(), source })?;
        for (id, _) in &really {
            let address = proxy.address(*id).expect("the proxy listens for every node");
            cluster.advertise_peer(*id, address.to_string())?;
            cluster.spawn(*id)?;
        }
        for (id, _) in &really {
            cluster.wait_up(*id).await?;
        }
        cluster.init(shards).await?;
        cluster.wait_led().await?;
        let site = Site::real(cluster.nodes().iter().map(|n| (n.id, n.client.clone())).collect(), false);
        Ok(Self { site, shards, own: Some(Own { cluster, proxy, down: Vec::new() }), program })
    }

    /// Somebody's own cluster: faults are theirs.
    pub fn given(nodes: Vec<(u64, String)>, program: Option<PathBuf>) -> Self {
        Self { site: Site::real(nodes, true), shards: 1, own: None, program }
    }

    /// How the nodes are reached.
    pub fn site(&self) -> &Site {
        &self.site
    }
    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.shards
    }
    /// Ids of the nodes.
    pub fn ids(&self) -> Vec<u64> {
        self.site.nodes().iter().map(|(id, _)| *id).collect()
    }
    /// Whether the processes are ours to harm.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }
    /// The links between the nodes, if they are ours.
    pub fn links(&self) -> Option<&Links> {
        self.own.as_ref().map(|own| own.proxy.links())
    }

    fn own(&mut self) -> Result<&mut Own, RealError> {
        self.own.as_mut().ok_or(RealError::NotOurs)
    }

    /// Who leads a shard, if somebody says so.
    pub async fn leader_of(&self, shard: u32) -> Option<u64> {
        self.own.as_ref()?.cluster.leader_of(shard).await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// [`RealError`].
    pub fn kill(&mut self, nodes: &[u64]) -> Result<(), RealError> {
        let own = self.own()?;
        for node in nodes {
            own.cluster.kill(*node)?;
            own.down.push(*node);
        }
        Ok(())
    }

    /// Starts nodes again that are down.
    ///
    /// # Errors
    /// [`RealError`].
    pub async fn start(&mut self, nodes: &[u64]) -> Result<(), RealError> {
        let own = self.own()?;
        for node in nodes {
            if own.down.contains(node) {
                own.cluster.spawn(*node)?;
            }
        }
        for node in nodes {
            if own.down.contains(node) {
                own.cluster.wait_up(*node).await?;
                own.down.retain(|down| down != node);
            }
        }
        Ok(())
    }

    /// Kills a node and takes something from its directory. It stays down.
    ///
    /// # Errors
    /// [`RealError`].
    pub(super) fn lose(&mut self, node: u64, loss: Loss) -> Result<LostDisk, RealError> {
        self.kill(&[node])?;
        let groups = self.shards as usize + 1;
        let at = self.own()?.cluster.node(node)?;
        let log_from = log_of(at).len();
        let what = loss.what().to_owned();
        losses::lose(&at.data_dir(), loss)
            .map_err(|source| RealError::Io { what: format!("harm {}", at.data_dir().display()), source })?;
        Ok(LostDisk { node, what, noticed: losses::DAMAGED, groups: Some(groups), log_from })
    }

    /// Sets a node's directory back to what it was `age` ago: everything since is gone, and nothing in it says so. It stays down.
    ///
    /// # Errors
    /// [`RealError`].
    pub async fn set_back(&mut self, node: u64, age: Duration) -> Result<LostDisk, RealError> {
        let io = |source| RealError::Io { what: format!("copy the directory of node {node}"), source };
        self.kill(&[node])?;
        let data_dir = self.own()?.cluster.node(node)?.data_dir();
        let kept = losses::keep(&data_dir).map_err(io)?;
        self.start(&[node]).await?;
        tokio::time::sleep(age).await;
        self.kill(&[node])?;
        losses::restore(&data_dir, &kept).map_err(io)?;
        let log_from = log_of(self.own()?.cluster.node(node)?).len();
        let what = format!("went back by {age:?}");
        Ok(LostDisk { node, what, noticed: losses::WENT_BACK, groups: None, log_from })
    }

    /// Starts a node that has lost something, and waits until its log says so and that all of it is repaired.
    ///
    /// # Errors
    /// [`RealError::NotRepaired`], or another one.
    pub async fn start_repaired(&mut self, lost: &LostDisk) -> Result<(), RealError> {
        let LostDisk { node, what, .. } = lost;
        self.start(&[*node]).await?;
        let at = self.own()?.cluster.node(*node)?;
        let until = tokio::time::Instant::now() + REPAIRED_WITHIN;
        loop {
            let log = log_of(at);
            let log = log.get(lost.log_from..).unwrap_or_default();
            let (noticed, repaired) = (log.matches(lost.noticed).count(), log.matches(losses::REPAIRED).count());
            if noticed > 0 && repaired >= lost.groups.unwrap_or(1) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                let (node, what, within, log) = (*node, what.clone(), REPAIRED_WITHIN, at.log());
                return Err(RealError::NotRepaired { node, what, within, noticed, repaired, log });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`RealError`].
    pub fn signal(&mut self, node: u64, signal: Signal) -> Result<(), RealError> {
        Ok(self.own()?.cluster.signal(node, signal)?)
    }

    /// Stops and starts these nodes gracefully, one after the other.
    ///
    /// # Errors
    /// [`RealError`].
    pub async fn roll(&mut self, nodes: &[u64]) -> Result<(), RealError> {
        for node in nodes {
            let own = self.own()?;
            if own.down.contains(node) {
                continue;
            }
            own.cluster.stop(*node).await?;
            own.cluster.spawn(*node)?;
            own.cluster.wait_up(*node).await?;
        }
        Ok(())
    }

    /// Turns a node's knobs.
    ///
    /// # Errors
    /// [`RealError`].
    pub fn turn(&mut self, node: u64, knobs: Knobs) -> Result<(), RealError> {
        let file = Knobs::file_beside(&self.own()?.cluster.node(node)?.data_dir());
        knobs.write(&file).map_err(|source| RealError::Io { what: format!("write {}", file.display()), source })
    }

    /// Calls the tester's program.
    ///
    /// # Errors
    /// When it cannot be run or says no.
    pub async fn program(&self, verb: &str) -> Result<(), RealError> {
        let Some(path) = &self.program else { return Err(RealError::NoProgram) };
        let endpoints: Vec<&str> = self.site.nodes().iter().map(|(_, address)| address.as_str()).collect();
        let mut command = tokio::process::Command::new(path);
        let status = command.arg(verb).env("HOLDFAST_ENDPOINTS", endpoints.join(",")).status().await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(RealError::Program { what: format!("{} {verb}: {status}", path.display()) }),
            Err(source) => Err(RealError::Io { what: format!("run {}", path.display()), source }),
        }
    }

    /// Nodes that ended without having been told to, each with the end of its log.
    pub fn ended_by_themselves(&mut self) -> Vec<String> {
        let Some(own) = &mut self.own else { return Vec::new() };
        let ids: Vec<u64> = own.cluster.nodes().iter().map(|n| n.id).filter(|id| !own.down.contains(id)).collect();
        ids.into_iter().filter_map(|id| own.cluster.check_alive(id).err()).map(|e| e.to_string()).collect()
    }

    /// Waits until every shard is led again.
    ///
    /// # Errors
    /// [`RealError`], when that does not come.
    pub async fn wait_led(&self) -> Result<(), RealError> {
        match &self.own {
            Some(own) => Ok(own.cluster.wait_led().await?),
            None => Ok(()),
        }
    }

    /// Ends the processes.
    pub async fn stop(mut self) {
        if let Some(own) = &mut self.own {
            own.cluster.stop_all().await;
        }
    }
}

/// What a node has logged so far.
fn log_of(node: &DevNode) -> String {
    std::fs::read_to_string(node.log()).unwrap_or_default()
}
