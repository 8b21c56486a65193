//! The node's configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table (`keys`) names every key; the rest is [`settings`]. **Owns** keys and what they must be to each other.
//! **Must never** hold what replicas have to agree on, except the defaults that `cluster init` puts into the log.
//! **Read next**: [`crate::serve()`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ledger_raft::RaftTuning;
use settings::keys::split_address;
use settings::{ConfigError, Key, Logs, Settings};

mod keys;

/// One listening port: where it listens, and how others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// `host:port` to listen on; port 0 picks one and keeps it in the data directory.
    pub listen: String,
    /// `host:port` as other hosts reach it; none takes the listening address.
    pub advertise: Option<String>,
}

/// The effective configuration of one node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// The node id this data directory must carry; none accepts what `cluster init` gave it.
    pub node_id: Option<u64>,
    /// gRPC for clients and operators.
    pub client: Port,
    /// HTTP/JSON, health and metrics.
    pub http: Port,
    /// Names besides its addresses' under which browsers and proxies reach the HTTP port.
    pub http_hosts: Vec<String>,
    /// Raft between nodes.
    pub peer: Port,
    /// Where members' peer ports are looked for as well, by node id.
    pub peer_hints: BTreeMap<u64, String>,
    /// Shards when `cluster init` does not say; 0: one a node.
    pub shards: u32,
    /// Replicas of a shard when `cluster init` does not say; 0: all nodes, at most 3 (5 from five nodes on).
    pub replicas: u32,
    /// Calls that may wait at one shard's door.
    pub queue_calls: usize,
    /// Bytes of calls that may wait at one shard's door.
    pub queue_bytes: usize,
    /// Percent of the queue kept for confirms, releases, fences and ticks.
    pub queue_reserved_percent: u32,
    /// How long a call may take when the caller does not say.
    pub call_within_default: Duration,
    /// Longest time a caller may name.
    pub call_within_max: Duration,
    /// Raft's and the log's numbers.
    pub raft: RaftTuning,
    /// Lowest cap on remembered ids that operators may set. No key: only simulations go below the default.
    pub remembered_min: u64,
    /// How long history is kept.
    pub history_keep: Duration,
    /// Most bytes of history kept on this node.
    pub history_bytes_max: u64,
    /// From where calls are taken; all others are refused until identities exist.
    pub trusted: Vec<crate::access::Network>,
    /// Whether ports may listen where other hosts reach them, though everything is in plain text.
    pub insecure: bool,
    /// Whether leaders are spread over the nodes by handing leadership over.
    pub balance: bool,
    /// How long a leader keeps a shard before the balancer may move it.
    pub balance_settle: Duration,
    /// How long shutting down may take.
    pub shutdown_within: Duration,
    /// Log lines.
    pub logs: Logs,
    /// 1: everything on one thread (best up to two cores); more: a work-stealing runtime.
    pub runtime_threads: usize,
    /// Memory taken and touched at the start; 0: none.
    pub memory_reserve_bytes: u64,
    /// What records may take in memory before new reservations and orders are refused; 0: a share of the machine's.
    pub memory_max_bytes: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let port = |listen: &str| Port { listen: listen.to_owned(), advertise: None };
        Self {
            data_dir: PathBuf::from("holdfast-data"),
            node_id: None,
            client: port("127.0.0.1:7101"),
            http: port("127.0.0.1:7102"),
            http_hosts: Vec::new(),
            peer: port("127.0.0.1:7103"),
            peer_hints: BTreeMap::new(),
            shards: 0,
            replicas: 0,
            queue_calls: crate::limits::QUEUE_CALLS_DEFAULT,
            queue_bytes: crate::limits::QUEUE_BYTES_DEFAULT,
            queue_reserved_percent: crate::limits::RESERVED_PERCENT_DEFAULT,
            call_within_default: Duration::from_secs(5),
            call_within_max: Duration::from_secs(60),
            raft: RaftTuning::default(),
            remembered_min: crate::limits::REMEMBERED_MIN,
            history_keep: Duration::from_secs(7 * 24 * 3600),
            history_bytes_max: 10 << 30,
            trusted: crate::access::Network::loopback(),
            insecure: false,
            balance: true,
            balance_settle: Duration::from_secs(5),
            shutdown_within: Duration::from_secs(10),
            logs: Logs::text("info,openraft=error,h2=warn,sled=warn"),
            runtime_threads: 1,
            memory_reserve_bytes: 0,
            memory_max_bytes: 0,
        }
    }
}

impl Settings for NodeConfig {
    const PROGRAM: &'static str = "ledger-node";
    const PRINTS: &'static str = "ledger-node --print-config";
    const VARIABLES: &'static str = "HOLDFAST";
    const FILE_VARIABLE: &'static str = "HOLDFAST_CONFIG";
    const HEADING: &'static str = "node";
    const KEYS: &'static [Key<Self>] = keys::KEYS;

    fn validate(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let raft = &self.raft;
        if raft.election_min < raft.heartbeat * 2 {
            return conflict(format!(
                "`raft.election_min` ({:?}) must be at least twice `raft.heartbeat` ({:?}), or a healthy leader is deposed",
                raft.election_min, raft.heartbeat
            ));
        }
        if raft.election_max <= raft.election_min {
            return conflict(format!(
                "`raft.election_max` ({:?}) must be above `raft.election_min` ({:?})",
                raft.election_max, raft.election_min
            ));
        }
        if raft.clock_jump_max < raft.clock_bound * 4 {
            return conflict(format!(
                "`raft.clock_jump_max` ({:?}) must be at least four times `raft.clock_bound` ({:?}), or clocks that agree count as \
                 jumped",
                raft.clock_jump_max, raft.clock_bound
            ));
        }
        if self.call_within_default > self.call_within_max {
            return conflict(format!(
                "`call.within_default` ({:?}) must not be above `call.within_max` ({:?})",
                self.call_within_default, self.call_within_max
            ));
        }
        for (name, port) in self.ports() {
            let (host, _) = split_address(&port.listen).unwrap_or_default();
            if port.advertise.is_none() && matches!(host, "0.0.0.0" | "[::]") {
                return conflict(format!(
                    "`{name}.listen` is {} (every address), so `{name}.advertise` must say how other hosts reach this node",
                    port.listen
                ));
            }
        }
        match self.exposed().next() {
            Some((name, port)) if !self.insecure => conflict(format!(
                "`{name}.listen` is {}, which other hosts can reach, and calls and answers are in plain text; listen on a \
                 loopback address, or start with --insecure (`insecure = true`) in a network that only trusted hosts are in",
                port.listen
            )),
            _ => Ok(()),
        }
    }
}

impl NodeConfig {
    fn ports(&self) -> [(&'static str, &Port); 3] {
        [("client", &self.client), ("http", &self.http), ("peer", &self.peer)]
    }

    /// The ports that listen where other hosts may reach them.
    pub(crate) fn exposed(&self) -> impl Iterator<Item = (&'static str, &Port)> {
        self.ports().into_iter().filter(|(_, port)| !is_loopback(&port.listen))
    }
}

/// Whether only this host reaches an address. A name other than `localhost` may be anything.
fn is_loopback(listen: &str) -> bool {
    let (host, _) = split_address(listen).unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}
