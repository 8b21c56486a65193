//! Against a real RabbitMQ and a real node: killed and started again, both sides, while changes happen.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use client_sdk::{Client, Cursor, Outcome, Policy, Sku};
use event_bridge::event::{CONTENT_TYPE, Counted, Event, Filter, Renderer};
use futures::StreamExt as _;
use futures::future::join_all;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};
use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode, serve};
use ledger_proto::v1;
use server::{Rabbit, free_ports};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// No test waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCTS: usize = 24;
const RESERVATIONS: usize = 1_200;
/// Exchange, and the queue that takes all of it.
const EXCHANGE: &str = "holdfast-test";
/// The same with a queue that is soon full.
const FULL: &str = "holdfast-full";

struct Node {
    running: RunningNode,
    _dir: TempDir,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
        let data_dir = dir.path().to_owned();
        let mut config = NodeConfig { data_dir, client: open(), http: open(), peer: open(), ..NodeConfig::default() };
        config.raft.segment_bytes = 4 << 20;
        config.raft.low_space_bytes = 1 << 20;
        let running = serve(config, NodeSeams::real()).await.expect("an empty node starts");
        let member = v1::Member { node: 1, client: running.client_addr().to_string(), ..v1::Member::default() };
        let request = v1::InitRequest { members: vec![member], shards: 2, replicas: 1 };
        running.node().init(request).await.expect("a fresh cluster is initialised");
        Self { running, _dir: dir }
    }

    fn address(&self) -> String {
        self.running.client_addr().to_string()
    }
}

/// A bridge as a process of its own.
struct BridgeProcess {
    args: Vec<String>,
    child: Option<Child>,
    http: u16,
}

impl BridgeProcess {
    fn new(node: &Node, rabbit: &Rabbit, exchange: &str, data_dir: &Path) -> Self {
        let [http] = free_ports::<1>();
        let args = [
            ("endpoints", node.address()),
            ("data-dir", data_dir.display().to_string()),
            ("broker-uri", rabbit.uri()),
            ("broker-exchange", exchange.to_owned()),
            ("http-listen", format!("127.0.0.1:{http}")),
            ("log-filter", "warn,lapin=off".to_owned()),
        ];
        let args = args.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        Self { args, child: None, http }
    }

    fn start(&mut self) {
        let mut run = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_event-bridge")));
        run.arg("run").args(&self.args).kill_on_drop(true).stdin(Stdio::null());
        self.child = Some(run.spawn().expect("the bridge starts"));
    }

    async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.expect("it can be killed");
    }

    async fn terminate(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told to stop");
        let ended = timeout(PATIENCE, child.wait()).await.expect("it stops in time").expect("its state");
        assert_eq!(ended.code(), Some(0));
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: bridge\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").await?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn wait_for(&self, what: &str, mut good: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !good().await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("never {what}: {:?}", self.get("/metrics").await);
        }
    }

    async fn wait_for_confirmed(&self, n: f64) {
        let enough = async || self.metric("holdfast_bridge_confirmed_total").await.is_some_and(|now| now >= n);
        self.wait_for(&format!("{n} confirmed"), enough).await;
    }
}

async fn make_products(client: &Client) {
    for sku in (0..PRODUCTS).map(product).collect::<BTreeSet<_>>() {
        client.create_product(sku.as_str(), Policy::default()).await.into_result().expect("created");
        client.receive(sku.as_str(), 10_000, "delivery").await.into_result().expect("received");
    }
}

fn product(n: usize) -> String {
    // Half of all that happens is about one product.
    if n.is_multiple_of(2) { "hot.shoe".to_owned() } else { format!("sku-{n}") }
}

/// Reserves, then confirms, releases or leaves; in batches of many at once. Tells when a part of it is done.
async fn sell(client: &Client, done: tokio::sync::watch::Sender<usize>) {
    for batch in 0..RESERVATIONS / 100 {
        let one = |n: usize| async move {
            let sku = product(n % PRODUCTS);
            let id = client.mint_for(&Sku::new(&sku).expect("sku"));
            let line = client.reserve(id, "anna").line(sku.as_str(), 1);
            assert!(matches!(line.hold_for(Duration::from_secs(600)).await, Outcome::Ok(_)), "reserved");
            match n % 3 {
                0 => drop(client.confirm(id).await.into_result().expect("confirmed")),
                1 => drop(client.release(id).await.into_result().expect("released")),
                _ => {}
            }
        };
        join_all((0..100).map(|n| one(batch * 100 + n))).await;
        done.send_replace(batch + 1);
        sleep(Duration::from_millis(50)).await;
    }
}

/// All events there are, as the feed tells them.
async fn expected(client: &Client) -> Vec<Event> {
    let source = format!("/holdfast/{}", event_bridge::cursor::hex(&client.routing().cluster));
    let renderer = Renderer { source, filter: Filter::default() };
    let (mut counted, mut events) = (Counted::default(), Vec::new());
    let mut watch = client.watch(Cursor::oldest());
    loop {
        let frame = timeout(PATIENCE, watch.next()).await.expect("a frame").expect("a watch").expect("not ended");
        if frame.changes.is_empty() && !frame.shard_times.is_empty() {
            return events;
        }
        for happened in &frame.changes {
            events.extend(renderer.event(happened, &mut counted).expect("publishable"));
        }
    }
}

/// A durable queue for everything; with a bound, it refuses what it has no room for.
async fn bind(connection: &Connection, exchange: &str, queue: &str, room: Option<i32>) {
    let channel = connection.create_channel().await.expect("a channel");
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none()).await.expect("an exchange");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut bounds = FieldTable::default();
    if let Some(room) = room {
        bounds.insert("x-max-length".into(), AMQPValue::LongInt(room));
        bounds.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    }
    channel.queue_declare(queue.into(), durable, bounds).await.expect("a queue");
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, none()).await;
    bound.expect("bound");
}

/// Takes everything out of the queue, until all of `ids` were seen; bodies by id, in the order of their first coming, and how many came twice.
async fn consume(connection: &Connection, queue: &str, ids: &BTreeSet<&str>) -> (Vec<(String, Vec<u8>)>, usize) {
    let channel = connection.create_channel().await.expect("a channel");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "test".into(), options, FieldTable::default()).await;
    let mut consumer = consuming.expect("a consumer");
    let (mut seen, mut first, mut doubles) = (BTreeSet::new(), Vec::new(), 0);
    while !ids.iter().all(|id| seen.contains(*id)) {
        let next = timeout(PATIENCE, consumer.next()).await;
        let missing = || ids.iter().filter(|id| !seen.contains(**id)).take(5).collect::<Vec<_>>();
        let delivery =
            next.unwrap_or_else(|_| panic!("missing: {:?}", missing())).expect("a consumer").expect("a message");
        let properties = &delivery.properties;
        assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some(CONTENT_TYPE));
        let event: serde_json::Value = serde_json::from_slice(&delivery.data).expect("JSON");
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        let id = text("id");
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str().to_owned()), Some(id.clone()));
        assert!(delivery.routing_key.as_str().starts_with(&text("type")), "{}", delivery.routing_key);
        match seen.insert(id.clone()) {
            true => first.push((id, delivery.data.clone())),
            false => doubles += 1,
        }
        delivery.ack(BasicAckOptions::default()).await.expect("acknowledged");
    }
    (first, doubles)
}

fn in_order(events: &[Event], first: &[(String, Vec<u8>)]) {
    let by_id: BTreeMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
    assert_eq!(first.len(), events.len(), "nothing but the feed's events");
    let mut of_queue: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (id, body) in first {
        let event = by_id[id.as_str()];
        assert_eq!(body, &event.body, "the event as the feed has it");
        of_queue.entry(event.lane).or_default().push(id);
    }
    let mut of_feed: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for event in events {
        of_feed.entry(event.lane).or_default().push(&event.id);
    }
    for (lane, ids) in &of_feed {
        assert_eq!(&of_queue[lane], ids, "order of {lane:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_reaches_rabbitmq_in_order_whoever_is_killed() {
    let Some(mut rabbit) = Rabbit::start().await else { return };
    bind(&rabbit.connect().await, EXCHANGE, EXCHANGE, None).await;
    let node = Node::start().await;
    let client = Client::connect([node.address()]).await.expect("connected");
    let data_dir = tempfile::tempdir().expect("a directory");
    let mut bridge = BridgeProcess::new(&node, &rabbit, EXCHANGE, data_dir.path());

    make_products(&client).await;
    let (done, mut part) = tokio::sync::watch::channel(0);
    let selling = sell(&client, done);
    let breaking = async {
        let mut reached = async |n| drop(part.wait_for(|done| *done >= n).await.expect("selling goes on"));
        bridge.start();
        reached(2).await;
        bridge.wait_for_confirmed(100.0).await;
        bridge.kill().await;
        reached(4).await;
        bridge.start();
        bridge.wait_for_confirmed(100.0).await;
        rabbit.kill().await;
        reached(6).await;
        bridge.wait_for("not ready", async || bridge.get("/readyz").await.is_some_and(|a| a.contains(" 503 "))).await;
        assert!(bridge.get("/livez").await.is_some_and(|answer| answer.contains(" 200 ")), "alive without a broker");
        rabbit.begin();
        drop(rabbit.connect().await);
        bridge.kill().await;
        bridge.start();
        bridge.wait_for_confirmed(10.0).await;
    };
    tokio::join!(selling, breaking);

    let events = expected(&client).await;
    assert!(events.len() > 2 * RESERVATIONS / 3 * 2, "only {} changes", events.len());
    let idle = async || {
        bridge.metric("holdfast_bridge_waiting").await == Some(0.0)
            && bridge.metric("holdfast_bridge_lag_milliseconds").await.is_some_and(|lag| lag < 5_000.0)
    };
    bridge.wait_for("idle", idle).await;
    let connection = rabbit.connect().await;
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let (first, doubles) = consume(&connection, EXCHANGE, &ids).await;
    in_order(&events, &first);
    println!("{} events, {doubles} doubles", events.len());

    // Told to stop, it has stored where it was: the next one has nothing to say.
    bridge.terminate().await;
    bridge.start();
    bridge.wait_for("ready", async || bridge.get("/readyz").await.is_some_and(|a| a.contains(" 200 "))).await;
    assert_eq!(bridge.metric("holdfast_bridge_published_total").await.unwrap_or(0.0), 0.0);
    bridge.terminate().await;

    refused_ones_keep_their_order(&node, &rabbit, &connection, &events).await;
    client.close().await;
    node.running.shutdown(Duration::from_secs(5)).await;
}

/// A queue that is full refuses single messages; what comes behind them in the feed must not overtake them.
async fn refused_ones_keep_their_order(node: &Node, rabbit: &Rabbit, connection: &Connection, events: &[Event]) {
    bind(connection, FULL, FULL, Some(3)).await;
    let wanted = |event: &&Event| event.kind == "holdfast.ReservationConfirmed";
    let events: Vec<Event> = events.iter().filter(wanted).take(60).cloned().collect();
    let data_dir = tempfile::tempdir().expect("a directory");
    let mut bridge = BridgeProcess::new(node, rabbit, FULL, data_dir.path());
    bridge.args.push("--filter-types=ReservationConfirmed".to_owned());
    bridge.start();
    let refused = async || bridge.metric("holdfast_bridge_refused_total").await.is_some_and(|n| n > 0.0);
    bridge.wait_for("refused", refused).await;
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let (mut first, _) = consume(connection, FULL, &ids).await;
    // What comes behind the last of them is no matter.
    first.retain(|(id, _)| ids.contains(id.as_str()));
    in_order(&events, &first);
    bridge.kill().await;
}
