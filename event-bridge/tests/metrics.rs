//! The bridge's page of metrics: what docs/metrics.md says, no more and no less; also while it has neither cluster nor broker.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const TABLES: &str = include_str!("../../docs/metrics.md");
/// No test waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Name → kind, as the document says of event bridges. None has labels.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let part = TABLES.split("\n# ").find(|part| part.starts_with("Metrics of event bridges")).expect("a part of them");
    let mut out = BTreeMap::new();
    for line in part.lines().filter(|line| line.starts_with("| `holdfast_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, "", what] = cells[..] else { panic!("a name, a kind, no label, and what it says: {line}") };
        assert!(!what.is_empty(), "{line}");
        assert_eq!(out.insert(name.trim_matches('`'), kind), None, "twice: {line}");
    }
    out
}

/// The same, as a page says.
fn exported(page: &str) -> BTreeMap<&str, &str> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let out: BTreeMap<&str, &str> = types.collect();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split_once(' ').expect("a value").0;
        assert!(out.contains_key(name), "no type, or a label: {line}");
    }
    out
}

async fn page(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let request = "GET /metrics HTTP/1.1\r\nhost: bridge\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("chunked"), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn every_metric_of_a_bridge_is_documented_and_every_documented_one_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    // Nobody listens on the lowest port.
    let flags = [
        "--endpoints=127.0.0.1:1".to_owned(),
        "--broker-uri=amqp://guest:guest@127.0.0.1:1/%2f".to_owned(),
        "--http-listen=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", dir.path().display()),
    ];
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_event-bridge"));
    bridge.env_clear().arg("run").args(flags).kill_on_drop(true);
    let mut bridge =
        bridge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(bridge.stderr.take().expect("a pipe")).lines();
    let listens = async {
        while let Some(line) = lines.next_line().await.expect("its log") {
            if let Some((_, rest)) = line.split_once("http=") {
                return rest.split_whitespace().next().expect("an address").to_owned();
            }
        }
        panic!("it never listened");
    };
    let address = tokio::time::timeout(PATIENCE, listens).await.expect("it listens in time");
    let page = page(&address).await;
    assert_eq!(documented(), exported(&page), "docs/metrics.md on the left, the page on the right");
    bridge.kill().await.expect("it can be killed");
}
