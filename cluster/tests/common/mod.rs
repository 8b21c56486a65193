//! What the tests of `ledgerctl` on a stopped node share.

use std::path::Path;

use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode, serve};

/// A node of this directory, on free ports of the loopback and with a small log.
pub(crate) async fn node(dir: &Path) -> RunningNode {
    let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
    let mut config =
        NodeConfig { data_dir: dir.to_owned(), client: open(), http: open(), peer: open(), ..NodeConfig::default() };
    config.raft.segment_bytes = 4 << 20;
    config.raft.low_space_bytes = 1 << 20;
    serve(config, NodeSeams::real()).await.expect("the node starts")
}
