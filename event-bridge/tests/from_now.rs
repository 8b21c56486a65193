//! A bridge that begins now stores where before anything is published: what happens after that is
//! published by some later run at the latest.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use client_sdk::{Client, Cursor};
use event_bridge::cursor::{CursorDir, Stamp, hex};
use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode, serve};
use ledger_proto::v1;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// No test waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

async fn node(dir: &Path) -> RunningNode {
    let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
    let mut config =
        NodeConfig { data_dir: dir.to_owned(), client: open(), http: open(), peer: open(), ..NodeConfig::default() };
    config.raft.low_space_bytes = 1 << 20;
    let running = serve(config, NodeSeams::real()).await.expect("an empty node starts");
    let member = v1::Member { node: 1, client: running.client_addr().to_string(), ..v1::Member::default() };
    let request = v1::InitRequest { members: vec![member], shards: 1, replicas: 1 };
    running.node().init(request).await.expect("initialised");
    running
}

/// Runs a bridge, which has no broker, until it follows the feed; then it is killed.
async fn run(endpoint: &str, dir: &Path) -> String {
    let flags = [
        format!("--endpoints={endpoint}"),
        "--broker-uri=amqp://guest:guest@127.0.0.1:1/%2f".to_owned(),
        "--http-listen=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", dir.display()),
        "--from=now".to_owned(),
    ];
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_event-bridge"));
    bridge.env_clear().arg("run").args(flags).kill_on_drop(true);
    let mut bridge =
        bridge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(bridge.stderr.take().expect("a pipe")).lines();
    let follows = async {
        while let Some(line) = lines.next_line().await.expect("its log") {
            if line.contains("following the feed") {
                return line;
            }
        }
        panic!("it never followed the feed");
    };
    let line = tokio::time::timeout(PATIENCE, follows).await.expect("it follows the feed in time");
    bridge.kill().await.expect("it can be killed");
    line
}

#[tokio::test]
async fn from_now_stores_its_cursor_before_it_publishes() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = node(&dir.path().join("node")).await;
    let endpoint = node.client_addr().to_string();
    let client = Client::connect([endpoint.clone()]).await.expect("connected");
    let bridge = dir.path().join("bridge");
    let first = run(&endpoint, &bridge).await;
    assert!(first.contains("now, and that cursor is stored"), "{first}");
    let stored = || {
        let stamp = Stamp { cluster: hex(&client.routing().cluster), exchange: "holdfast".to_owned() };
        let (_, stored) = CursorDir::open(&bridge).expect("nobody has it").read(stamp).expect("readable");
        stored.expect("a cursor is stored")
    };
    let begun = stored();
    assert_ne!(begun.cursor, Cursor::oldest(), "a place in the feed");

    // What happens while no bridge runs is behind that cursor, and the next run begins there.
    let sku = client_sdk::Sku::new("shoe").expect("a SKU");
    let created = client.create_product(&sku, client_sdk::Policy::default()).await;
    assert!(created.is_ok(), "{created:?}");
    let second = run(&endpoint, &bridge).await;
    assert!(second.contains("at the stored cursor"), "{second}");
    assert_eq!(stored().cursor, begun.cursor, "nothing was confirmed");
    let mut feed = client.watch(begun.cursor);
    let seen = async {
        loop {
            let happenings = feed.next().await.expect("the feed goes on").expect("changes");
            if happenings.changes.iter().any(|one| one.change.kind.name() == "ProductCreated") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the change is behind the stored cursor");
    node.shutdown(Duration::from_secs(1)).await;
}
