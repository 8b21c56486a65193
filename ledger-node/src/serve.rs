//! Starts and stops one node. `main` and the simulation call this very function.
//!
//! **What it is.** [`serve`] locks the directory, listens, and runs as what the stamp says, or waits to be joined. Many nodes may run in
//! one thread of one process. **Owns** the order of starting and stopping. **Must never** keep anything global, or end the process.
//! **Read next**: [`crate::node`], [`crate::reconcile`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ledger_raft::seam::{BoxIo, Net, NetListener, Seams};
use ledger_raft::{NodeId, RaftNode, RaftNodeConfig};
use settings::keys::split_address;
use settings::{ConfigError, Settings as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::access::Access;
use crate::api::Api;
use crate::config::{NodeConfig, Port};
use crate::data_dir::{DataDir, DataDirError, Ports, Stamp};
use crate::gates::{Gates, Shares, TooFewDescriptors};
use crate::history::Retention;
use crate::meta::{META_GROUP, MetaMachine};
use crate::metrics::NodeMetrics;
use crate::node::{Node, NodeSeams, NodeState, Running, lock};
use crate::{balance, digest, peers, reconcile};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system allows too few open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for {what}; hint: choose another `{what}.listen`, or stop what uses it")]
    Listen {
        /// Which port.
        what: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error("the log of {} cannot be opened", dir.display())]
    Log {
        /// The data directory.
        dir: std::path::PathBuf,
        /// Damage, named, or the disk's error.
        source: io::Error,
    },
    /// History cannot be opened at all.
    #[error("the history of {} cannot be opened", dir.display())]
    History {
        /// The data directory.
        dir: std::path::PathBuf,
        /// The disk's error.
        source: io::Error,
    },
}

/// A node that runs.
pub struct RunningNode {
    node: Arc<Node>,
    client_addr: SocketAddr,
    http_addr: SocketAddr,
    peer_addr: SocketAddr,
    servers: Vec<JoinHandle<io::Result<()>>>,
}

impl RunningNode {
    /// Where gRPC really listens.
    pub fn client_addr(&self) -> SocketAddr {
        self.client_addr
    }
    /// Where HTTP really listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }
    /// Where peers really connect to.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }
    /// The node itself.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Completes when the node cannot go on; says why. The process should end then, without a graceful shutdown.
    pub async fn wait(&mut self) -> String {
        let mut fatal = self.node.fatal.subscribe();
        match fatal.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the node is gone".to_owned(),
        }
    }

    /// Graceful: takes no new calls, finishes those it has, hands leadership over, makes history durable, closes the log.
    pub async fn shutdown(self, within: Duration) {
        let node = &self.node;
        let until = Instant::now() + within;
        node.set_state(NodeState::Stopping);
        let shards = node.shards();
        shards.iter().for_each(|shard| shard.door().close());
        let drained = futures::future::join_all(shards.iter().map(|shard| shard.door().drained()));
        if timeout_at(until, drained).await.is_err() {
            tracing::warn!(
                "some calls were still in flight at the end of the shutdown's time: their callers learn `unknown`"
            );
        }
        if let Some(running) = node.running() {
            // Half of what is left: the log must be closed in order, too.
            let left = until.saturating_duration_since(Instant::now()) / 2;
            running.raft.shutdown(left).await;
            shards.iter().for_each(|shard| shard.stop_tasks());
            node.stop.cancel();
            running.history.close();
        }
        node.stop.cancel();
        node.tasks.close();
        let tasks = node.tasks.wait();
        if timeout_at(until, tasks).await.is_err() {
            tracing::debug!("some tasks of the node had to be left");
        }
        for server in self.servers {
            let abort = server.abort_handle();
            if timeout_at(until, server).await.is_err() {
                abort.abort();
            }
        }
        node.set_table(crate::node::ShardTable::new(None, Vec::new()));
        node.set_running(None);
        // The lock goes last.
        drop(lock(&node.dir).take());
    }
}

/// Starts a node and serves until it is shut down.
///
/// # Errors
/// [`StartError`], each with what to do.
pub async fn serve(config: NodeConfig, seams: NodeSeams) -> Result<RunningNode, StartError> {
    config.validate()?;
    for (port, listens) in config.exposed() {
        tracing::warn!(port, listen = %listens.listen, "other hosts reach this port in plain text, as --insecure allows");
    }
    let gates = Gates::new(Shares::of(seams.descriptors)?, &Access::new(config.trusted.clone()));
    let (dir, stamp) = DataDir::open(seams.raft.disk.clone(), &config.data_dir, config.node_id)?;
    let identity_file = dir.identity(stamp.as_ref(), seams.raft.random.as_ref())?;
    let kept = stamp.as_ref().map(|stamp| stamp.ports);
    let net = &seams.raft.net;
    let client = listen(net.as_ref(), "client", &config.client, kept.map(|p| p.client)).await?;
    let http = listen(net.as_ref(), "http", &config.http, kept.map(|p| p.http)).await?;
    let peer = listen(net.as_ref(), "peer", &config.peer, kept.map(|p| p.peer)).await?;
    let address = |what, listener: &dyn NetListener| {
        listener.local_addr().map_err(|source| StartError::Listen { what, address: "?".to_owned(), source })
    };
    let client_addr = address("client", client.as_ref())?;
    let http_addr = address("http", http.as_ref())?;
    let peer_addr = address("peer", peer.as_ref())?;
    let ports = Ports { client: client_addr.port(), http: http_addr.port(), peer: peer_addr.port() };

    // The peer port is known to others before there is a cluster to speak of; the log's transport takes the listener over.
    let bound = Bound { net: net.clone(), address: peer_addr.to_string(), listener: Mutex::new(Some(peer)) };
    let seams = NodeSeams { raft: Seams { net: Arc::new(bound), ..seams.raft }, ..seams };
    let node = Node::new(config, seams, dir, ports, identity_file, gates);
    let metrics = Arc::new(NodeMetrics::new());
    node.count_entries(metrics.entry_commands.clone());
    let api = Api::new(node.clone(), metrics);
    let servers = vec![
        tokio::spawn(watched(node.clone(), "gRPC", crate::grpc::serve(api.clone(), client, stopped(&node)))),
        tokio::spawn(watched(node.clone(), "HTTP", crate::http::serve(api, http, stopped(&node)))),
    ];
    match stamp {
        Some(stamp) => {
            if let Err(error) = activate(&node, stamp).await {
                node.stop.cancel();
                drop(lock(&node.dir).take());
                return Err(error);
            }
        }
        None => {
            node.set_state(NodeState::Uninitialised);
            tracing::info!(client = %client_addr, "the node is empty and waits: ledgerctl cluster init, or ledgerctl node rejoin for a member that lost its directory");
        }
    }
    Ok(RunningNode { node, client_addr, http_addr, peer_addr, servers })
}

/// Runs as what the stamp says: opens the log and history, starts the meta group and the tasks.
pub(crate) async fn activate(node: &Arc<Node>, stamp: Stamp) -> Result<(), StartError> {
    node.set_state(NodeState::Starting);
    node.wait_for(Some("its log, which is being read".to_owned()));
    let config = node.config();
    let dir = config.data_dir.clone();
    let log = |source| StartError::Log { dir: dir.clone(), source };
    let random = &node.seams().raft.random;
    let identity = match lock(&node.dir).as_ref() {
        Some(dir) => dir.identity(Some(&stamp), random.as_ref())?,
        None => return Err(log(io::Error::other("the node is stopping"))),
    };
    let keep = Retention { keep: config.history_keep, bytes_max: config.history_bytes_max };
    let history = node.seams().history.open(&dir.join("history"), keep);
    let history = history.map_err(|source| StartError::History { dir: dir.clone(), source })?;
    let others = stamp.members.iter().filter(|member| member.node != stamp.node);
    let access = Access::new(config.trusted.clone());
    let raft_config = RaftNodeConfig {
        node: NodeId(stamp.node),
        cluster: stamp.cluster,
        incarnation: stamp.incarnation,
        dir: dir.clone(),
        peer_listen: listening(&config.peer, Some(stamp.ports.peer)),
        identity,
        peers: others.filter_map(|member| Some((NodeId(member.node), stamp.peer(member)?))).collect(),
        peers_from: Arc::new(move |from| access.decide_peer(from)),
        tuning: config.raft.clone(),
    };
    let handler = peers::handler(Arc::downgrade(node));
    let raft = match RaftNode::open(raft_config, node.seams().raft.clone(), handler).await {
        Ok(raft) => raft,
        Err(source) => {
            history.close();
            return Err(log(source));
        }
    };
    for (peer, address) in &config.peer_hints {
        raft.hint_peer(NodeId(*peer), address);
    }
    let machine = MetaMachine::new(node.placement.clone());
    let founders = stamp.members.iter().map(reconcile::voter).collect();
    let meta = match raft.start_group(META_GROUP, &founders, machine).await {
        Ok(meta) => meta,
        Err(source) => {
            raft.shutdown(Duration::ZERO).await;
            history.close();
            return Err(log(source));
        }
    };
    let poisoned = raft.wal_poisoned();
    let running = Arc::new(Running::new(stamp, raft, meta, history));
    node.set_running(Some(running.clone()));
    node.tasks.spawn(reconcile::run(node.clone(), running));
    node.tasks.spawn(digest::run(node.clone()));
    if config.balance {
        node.tasks.spawn(balance::run(node.clone()));
    }
    node.tasks.spawn(watch_log(node.clone(), poisoned));
    Ok(())
}

/// A log that failed to write or sync ends the node: nothing after that could be promised.
async fn watch_log(node: Arc<Node>, mut poisoned: tokio::sync::watch::Receiver<Option<String>>) {
    let failed = async {
        let why = poisoned.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        match why {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = node.stop.cancelled() => {}
        why = failed => {
            tracing::error!(%why, "the log cannot be written: this node stops");
            node.fail(format!("the log cannot be written: {why}"));
        }
    }
}

/// A server that ends before the node does takes the node with it.
async fn watched(node: Arc<Node>, what: &'static str, server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let ended = server.await;
    if !node.stop.is_cancelled() {
        let why = ended.as_ref().err().map_or("it ended".to_owned(), ToString::to_string);
        node.fail(format!("the {what} server stopped: {why}"));
    }
    ended
}

fn stopped(node: &Arc<Node>) -> impl Future<Output = ()> + Send + 'static {
    node.stop.clone().cancelled_owned()
}

async fn listen(
    net: &dyn Net,
    what: &'static str,
    port: &Port,
    kept: Option<u16>,
) -> Result<Box<dyn NetListener>, StartError> {
    let address = listening(port, kept);
    net.listen(&address).await.map_err(|source| StartError::Listen { what, address, source })
}

/// Where to listen: a port left open in the configuration is the one picked at first.
fn listening(port: &Port, kept: Option<u16>) -> String {
    match (split_address(&port.listen), kept) {
        (Some((host, 0)), Some(kept)) => format!("{host}:{kept}"),
        _ => port.listen.clone(),
    }
}

/// How others reach a port.
pub(crate) fn advertised(port: &Port, bound: u16) -> String {
    match (&port.advertise, split_address(&port.listen)) {
        (Some(advertise), _) => advertise.clone(),
        (None, Some((host, _))) => format!("{host}:{bound}"),
        (None, None) => port.listen.clone(),
    }
}

/// How others reach a port that they know under an address already: as the configuration says, if it does. The listening address takes
/// the place of another address or port, but not of a name for the same port, which is how `cluster init` was told to reach the node.
pub(crate) fn announced(port: &Port, bound: u16, known: &str) -> String {
    let is_name = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err();
    let named = split_address(known).is_some_and(|(host, known_port)| known_port == bound && is_name(host));
    if port.advertise.is_none() && named { known.to_owned() } else { advertised(port, bound) }
}

/// The network with one listener that is open already.
struct Bound {
    net: Arc<dyn Net>,
    address: String,
    listener: Mutex<Option<Box<dyn NetListener>>>,
}

#[async_trait]
impl Net for Bound {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let port = |text: &str| split_address(text).map(|(_, port)| port);
        let ours = port(addr) == Some(0) || port(addr) == port(&self.address);
        let open = if ours { lock(&self.listener).take() } else { None };
        match open {
            Some(listener) => Ok(listener),
            None => self.net.listen(addr).await,
        }
    }
    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        self.net.connect(addr).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_the_same_port_stays_and_everything_else_follows_the_configuration() {
        let port = |listen: &str, advertise: Option<&str>| Port {
            listen: listen.to_owned(),
            advertise: advertise.map(str::to_owned),
        };
        let listens = port("10.0.0.5:7101", None);
        assert_eq!(announced(&listens, 7101, "node-1:7101"), "node-1:7101");
        assert_eq!(announced(&listens, 7101, "10.0.0.4:7101"), "10.0.0.5:7101", "it moved");
        assert_eq!(announced(&listens, 7201, "node-1:7101"), "10.0.0.5:7201", "another port");
        assert_eq!(announced(&port("[::1]:7101", None), 7101, "[::2]:7101"), "[::1]:7101");
        let told = port("0.0.0.0:7101", Some("node-9:7101"));
        assert_eq!(announced(&told, 7101, "node-1:7101"), "node-9:7101");
        assert_eq!(announced(&port("127.0.0.1:0", None), 40_000, "127.0.0.1:40000"), "127.0.0.1:40000");
    }
}
