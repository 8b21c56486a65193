//! One node with one shard, a worker at a time, and the observer around it.
//!
//! **What it is.** A worker claims whatever its ledger has; so each lane has a ledger of its own, and lanes run beside each other. Each lane has a provider of its own too, since its manners belong to a scenario.
//! **Owns** the worker's process, its configuration and the lane's products. **Must never** let a worker outlive it.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use client_sdk::{Client, Contact, Cursor, OpeningKey, OpeningKeys, PaymentToken, Policy, ReservationId, Sku};
use ledger_node::config::{NodeConfig, Port};
use ledger_node::{NodeSeams, RunningNode};
use ledger_proto::v1;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::mail_sink::{MailSink, Offers};
use crate::observer::Observer;
use crate::provider::{Hooks, Provider, Proxy};
use crate::relay;

/// No test waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What every order costs, minor units.
pub(crate) const MINOR: u64 = 1_999;
/// How long a dead worker keeps an order. Twice the longest call, as it must be; long enough that a busy machine does not decide what is seen.
const LEASE: &str = "2s";

pub(crate) struct Lane {
    pub(crate) observer: Arc<Observer>,
    pub(crate) client: Client,
    pub(crate) provider: Provider,
    pub(crate) proxy: Proxy,
    pub(crate) mails: MailSink,
    pub(crate) hooks: Hooks,
    /// Orders whose buyers were told, as the feed says.
    notified: watch::Receiver<HashSet<ReservationId>>,
    opening: OpeningKey,
    /// What opens the client secrets of its orders.
    pub(crate) reply: OpeningKeys,
    relay: (String, tokio::task::JoinHandle<()>),
    following: tokio::task::JoinHandle<()>,
    products: AtomicU32,
    pub(crate) dir: TempDir,
    _node: RunningNode,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.relay.1.abort();
        self.following.abort();
    }
}

async fn node(dir: PathBuf) -> RunningNode {
    let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
    let mut config = NodeConfig { data_dir: dir, client: open(), http: open(), peer: open(), ..NodeConfig::default() };
    config.raft.segment_bytes = 4 << 20;
    config.raft.low_space_bytes = 1 << 20;
    let node = ledger_node::serve(config, NodeSeams::real()).await.expect("an empty node starts");
    let member = v1::Member { node: 1, client: node.client_addr().to_string(), ..v1::Member::default() };
    let request = v1::InitRequest { members: vec![member], shards: 1, replicas: 1 };
    node.node().init(request).await.expect("a fresh cluster is initialised");
    node
}

impl Lane {
    pub(crate) async fn open() -> Self {
        let provider = Provider::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let node = node(dir.path().join("node")).await;
        let address = node.client_addr().to_string();
        let client = Client::connect([address.clone()]).await.expect("connected");
        let observer = Observer::new();
        let opening = OpeningKey::generate();
        for (file, text) in
            [("keys", opening.secret_text().to_string()), ("api", "sk_test_1".into()), ("hook", "whsec_1".into())]
        {
            settings::private_files::write(&dir.path().join(file), &text).expect("written");
        }
        let (notify, notified) = watch::channel(HashSet::new());
        let mut feed = client.watch(Cursor::oldest());
        let following = tokio::spawn(async move {
            while let Some(Ok(happenings)) = feed.next().await {
                let told = happenings.changes.iter().filter(|one| one.change.kind.name() == "OrderNotified");
                for id in told.filter_map(|one| one.change.kind.reservation()) {
                    notify.send_if_modified(|notified| notified.insert(id));
                }
            }
        });
        Self {
            relay: relay::serve(&observer, &address, &client).await,
            proxy: Proxy::start(&observer, &provider).await,
            mails: MailSink::start(&observer, Offers::Nothing).await,
            hooks: Hooks::start(&observer).await,
            provider,
            observer,
            client,
            notified,
            opening,
            reply: OpeningKey::generate().into(),
            following,
            products: AtomicU32::new(0),
            dir,
            _node: node,
        }
    }

    /// A product with one unit, and an order for it.
    pub(crate) async fn place(&self, method: &str) -> (ReservationId, Sku) {
        let reply = self.reply.sealing_keys().next().expect("a key");
        self.place_with(PaymentToken::new(method).reply_to(reply)).await
    }

    /// The same with a token of the caller's.
    pub(crate) async fn place_with(&self, token: PaymentToken) -> (ReservationId, Sku) {
        let sku = Sku::new(format!("mug-{}", self.products.fetch_add(1, Ordering::Relaxed))).expect("a SKU");
        assert!(self.client.create_product(&sku, Policy::default()).await.is_ok());
        assert!(self.client.receive(&sku, 1, "first").await.is_ok());
        let id = self.client.mint_for(&sku);
        let key = self.opening.sealing_key();
        let contact = Contact { email: Some(mail_of(id)), ..Contact::default() };
        let call = self.client.place_order(id, MINOR, "EUR").buyer("anna").line(&sku, 1);
        let call =
            call.payment(key.payment(id, &token).expect("short")).contact(key.contact(id, &contact).expect("short"));
        let placed = call.await;
        assert!(placed.is_ok(), "{placed:?}");
        (id, sku)
    }

    /// Waits until the ledger says that the order's buyer was told.
    pub(crate) async fn told(&self, id: ReservationId) -> bool {
        let mut notified = self.notified.clone();
        let told = notified.wait_for(|notified| notified.contains(&id));
        matches!(tokio::time::timeout(PATIENCE, told).await, Ok(Ok(_)))
    }

    /// Starts a worker.
    pub(crate) fn worker(&self, mode: &str) -> Worker {
        self.worker_by(Command::new(env!("CARGO_BIN_EXE_order-worker")), mode)
    }

    /// Starts a worker that may open so many files.
    pub(crate) fn worker_with_descriptors(&self, limit: u32) -> Worker {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_order-worker"));
        self.worker_by(command, "charge")
    }

    fn worker_by(&self, mut command: Command, mode: &str) -> Worker {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let flags = [
            ("nodes", self.relay.0.clone()),
            ("keys-file", file("keys")),
            ("http-listen", "127.0.0.1:0".to_owned()),
            ("metrics-listen", "127.0.0.1:0".to_owned()),
            ("payment-url", self.proxy.url.clone()),
            ("payment-secret-key-file", file("api")),
            ("payment-webhook-secrets-file", file("hook")),
            ("payment-mode", mode.to_owned()),
            ("smtp-on", "true".to_owned()),
            ("smtp-port", self.mails.port.to_string()),
            ("smtp-tls", "none".to_owned()),
            ("webhook-on", "true".to_owned()),
            ("webhook-url", self.hooks.url.clone()),
            ("webhook-secret-file", file("hook")),
            ("lease", LEASE.to_owned()),
            ("attempt", "1s".to_owned()),
            ("call-timeout", "1s".to_owned()),
            ("call-pause-1", "50ms".to_owned()),
            ("retry-min", "50ms".to_owned()),
            ("retry-max", "200ms".to_owned()),
            ("retry-pay-max", "200ms".to_owned()),
            ("poll-min", "10ms".to_owned()),
            ("poll-max", "40ms".to_owned()),
            ("log-filter", "info".to_owned()),
        ];
        command.env_clear().arg("run").args(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        Worker(command.spawn().expect("it starts"))
    }
}

/// Where the buyer of an order is told.
pub(crate) fn mail_of(id: ReservationId) -> String {
    format!("{id}@buyers.example")
}

/// A worker's process.
pub(crate) struct Worker(Child);

impl Worker {
    /// SIGKILL, and waits until it is gone. What it logged is for whoever reads the test's failure.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.expect("it can be killed");
        let ended = self.0.wait().await.expect("its end");
        assert_eq!(ended.signal(), Some(9), "it ended by itself: {ended:?}");
    }

    /// Its ports, once it listens: of webhooks, and of health and metrics.
    pub(crate) async fn listens(&mut self) -> (String, String) {
        let mut lines = BufReader::new(self.0.stderr.as_mut().expect("a pipe")).lines();
        while let Some(line) = lines.next_line().await.expect("its log") {
            let field = |name: &str| Some(line.split_once(name)?.1.split_whitespace().next()?.to_owned());
            if let (Some(http), Some(metrics)) = (field("http="), field("metrics=")) {
                return (http, metrics);
            }
        }
        panic!("it never listened");
    }
}
