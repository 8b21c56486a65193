//! `ledgerctl cluster clock accept` on three nodes whose clocks jump: holds outlive the jump until an operator accepts it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode, serve};
use ledger_raft::seam::WallClock;
use ledger_raft::seam_real::SystemClock;

const JUMP_MS: i64 = 45_000_000;
/// Far above what any machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The system's clock, wrong by so many milliseconds.
#[derive(Debug, Clone, Default)]
struct WrongClock(Arc<AtomicI64>);

impl WallClock for WrongClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
    fn since_boot_ms(&self) -> Option<u64> {
        SystemClock.since_boot_ms()
    }
}

async fn node(dir: &Path, clock: &WrongClock) -> RunningNode {
    let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
    let mut config =
        NodeConfig { data_dir: dir.to_owned(), client: open(), http: open(), peer: open(), ..NodeConfig::default() };
    config.raft.segment_bytes = 4 << 20;
    config.raft.low_space_bytes = 1 << 20;
    let mut seams = NodeSeams::real();
    seams.raft.clock = Arc::new(clock.clone());
    serve(config, seams).await.expect("the node starts")
}

/// A cluster of three, and `ledgerctl` that asks it.
struct Cluster {
    nodes: Vec<RunningNode>,
    endpoints: String,
}

impl Cluster {
    async fn run(&self, args: &[&str]) -> Output {
        let (endpoints, args) = (self.endpoints.clone(), args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        // The nodes run in this process, and go on while the command does.
        let asked = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ledgerctl"));
            command.env("HOLDFAST_ENDPOINTS", endpoints).args(args).output().expect("ledgerctl runs")
        });
        asked.await.expect("it does not panic")
    }
    async fn document(&self, args: &[&str]) -> serde_json::Value {
        let out = self.run(&[args, &["--yes", "--output", "json"]].concat()).await;
        assert!(out.status.success(), "{args:?}: {}", stderr(&out));
        serde_json::from_slice(&out.stdout).expect("a document")
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_a_jump_of_all_clocks_until_an_operator_accepts_it() {
    let dirs = tempfile::tempdir().expect("dirs");
    let clock = WrongClock::default();
    let mut cluster = Cluster { nodes: Vec::new(), endpoints: String::new() };
    for id in 1..=3 {
        cluster.nodes.push(node(&dirs.path().join(id.to_string()), &clock).await);
    }
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.client_addr().to_string()).collect();
    cluster.endpoints = addresses.join(",");
    let members: Vec<String> = (1..).zip(&addresses).map(|(id, address)| format!("{id}={address}")).collect();
    cluster.document(&["cluster", "init", "--shards", "1", "--members", &members.join(",")]).await;
    cluster.document(&["product", "create", "mug", "--units", "5", "--ref", "first"]).await;
    let held = cluster.document(&["reserve", "mug=2", "--buyer", "b1", "--hold", "30m"]).await;
    let id = held["id"].as_str().unwrap_or_else(|| panic!("no id in {held:#}")).to_owned();

    let nothing = cluster.run(&["cluster", "clock", "accept"]).await;
    assert!(nothing.status.success(), "{}", stderr(&nothing));
    clock.0.store(JUMP_MS, Ordering::Relaxed);
    let unasked = tokio::time::timeout(PATIENCE, async {
        loop {
            let out = cluster.run(&["cluster", "clock", "accept"]).await;
            if stderr(&out).contains("shard 1: ") {
                return out;
            }
        }
    });
    let unasked = unasked.await.expect("the jump is never seen");
    assert_eq!(unasked.status.code(), Some(2), "{}", stderr(&unasked));
    assert!(stderr(&unasked).contains("12 h further ahead"), "{}", stderr(&unasked));
    let state = |shown: &serde_json::Value| shown["status"].as_str().unwrap_or_else(|| panic!("{shown:#}")).to_owned();
    assert_eq!(state(&cluster.document(&["reservation", "show", &id]).await), "held", "nobody accepted");

    let accepted = cluster.document(&["cluster", "clock", "accept"]).await;
    assert_eq!(accepted["accepted"], true, "{accepted:#}");
    assert_eq!(accepted["waiting"].as_array().map(Vec::len), Some(0), "it waits until nobody waits: {accepted:#}");
    // The next entry that is stamped ends the hold, so that its units are there again.
    cluster.document(&["reserve", "mug=5", "--buyer", "b2", "--hold", "30m"]).await;
    assert_eq!(state(&cluster.document(&["reservation", "show", &id]).await), "expired");
    for node in cluster.nodes {
        node.shutdown(Duration::from_secs(5)).await;
    }
}
