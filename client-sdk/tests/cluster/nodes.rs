//! A few nodes on loopback, as the server's own `serve` starts them, with their files in temporary directories.

use std::time::Duration;

use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode, serve};
use ledger_proto::v1;
use tempfile::TempDir;

pub(crate) struct Nodes {
    running: Vec<Option<RunningNode>>,
    _dirs: Vec<TempDir>,
}

impl Nodes {
    /// Starts empty nodes and makes them one cluster.
    pub(crate) async fn start(nodes: usize, shards: u32, replicas: u32) -> Self {
        let (mut running, mut dirs) = (Vec::new(), Vec::new());
        for _ in 0..nodes {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
            let mut config = NodeConfig {
                data_dir: dir.path().to_owned(),
                client: open(),
                http: open(),
                peer: open(),
                ..NodeConfig::default()
            };
            config.raft.segment_bytes = 4 << 20;
            config.raft.low_space_bytes = 1 << 20;
            running.push(Some(serve(config, NodeSeams::real()).await.expect("an empty node starts")));
            dirs.push(dir);
        }
        let cluster = Self { running, _dirs: dirs };
        let member = |i| v1::Member { node: i as u64 + 1, client: cluster.address(i), ..v1::Member::default() };
        let members = (0..nodes).map(member).collect();
        let request = v1::InitRequest { members, shards, replicas };
        let done = cluster.node(0).node().init(request).await.expect("a fresh cluster is initialised");
        assert!(done.created);
        cluster
    }

    fn node(&self, i: usize) -> &RunningNode {
        self.running[i].as_ref().expect("the node runs")
    }

    /// Where clients reach a node, from 0.
    pub(crate) fn address(&self, i: usize) -> String {
        self.node(i).client_addr().to_string()
    }

    /// All addresses, as a command line takes them.
    pub(crate) fn endpoints(&self) -> String {
        (0..self.running.len()).map(|i| self.address(i)).collect::<Vec<_>>().join(",")
    }

    /// Places of the nodes that keep no replica of a product's shard.
    pub(crate) fn without(&self, sku: &client_sdk::Sku) -> Vec<usize> {
        let slot = client_sdk::Slot::of(sku);
        (0..self.running.len()).filter(|&i| self.node(i).node().shard_for_slot(slot).is_none()).collect()
    }

    /// The place of the node that leads a product's shard, if one does now.
    pub(crate) fn leader(&self, sku: &client_sdk::Sku) -> Option<usize> {
        let leads = |node: &RunningNode| {
            node.node().shard_for_slot(client_sdk::Slot::of(sku)).is_some_and(|shard| shard.leads())
        };
        self.running.iter().position(|node| node.as_ref().is_some_and(leads))
    }

    pub(crate) async fn stop(&mut self, i: usize) {
        self.running[i].take().expect("the node runs").shutdown(Duration::from_secs(5)).await;
    }
}
