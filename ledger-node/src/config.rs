//! The node's configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table ([`keys`]) names every key; flags, environment variables, the file and `--print-config` are
//! made from it, so that they cannot differ. **Owns** keys, origins, validation. **Must never** hold what replicas have to
//! agree on, except the defaults that `cluster init` puts into the log. **Read next**: [`crate::serve()`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_raft::RaftTuning;

mod keys;

pub(crate) use keys::split_address;
pub use keys::{KEYS, Key};

/// Where log lines go and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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
    /// Raft between nodes.
    pub peer: Port,
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
    /// Whether leaders are spread over the nodes by handing leadership over.
    pub balance: bool,
    /// How long a leader keeps a shard before the balancer may move it.
    pub balance_settle: Duration,
    /// How long shutting down may take.
    pub shutdown_within: Duration,
    /// Log lines for people or machines.
    pub log_format: LogFormat,
    /// Which log lines, as `tracing` filters are written.
    pub log_filter: String,
    /// 1: everything on one thread (best up to two cores); more: a work-stealing runtime.
    pub runtime_threads: usize,
    /// Memory taken and touched at the start; 0: none.
    pub memory_reserve_bytes: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let port = |listen: &str| Port { listen: listen.to_owned(), advertise: None };
        Self {
            data_dir: PathBuf::from("holdfast-data"),
            node_id: None,
            client: port("127.0.0.1:7101"),
            http: port("127.0.0.1:7102"),
            peer: port("127.0.0.1:7103"),
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
            balance: true,
            balance_settle: Duration::from_secs(5),
            shutdown_within: Duration::from_secs(10),
            log_format: LogFormat::Text,
            log_filter: "info,openraft=error,h2=warn,sled=warn".to_owned(),
            runtime_threads: 1,
            memory_reserve_bytes: 0,
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A key in the file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What is wrong with the configuration; each names the key and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {why}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A key that does not exist.
    #[error("{}: unknown key `{key}`; did you mean `{nearest}`? `ledger-node --print-config` lists all keys", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// A value that is not allowed.
    #[error("`{key}` ({origin}) is {got:?}: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Where it was set.
        origin: Origin,
        /// The value given.
        got: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective configuration.
    pub config: NodeConfig,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Puts the sources together: `flags` (key → value, as given), `environment` by variable name, and the file.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub fn from_sources(
        flags: &BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut loaded = Self { config: NodeConfig::default(), origins: BTreeMap::new() };
        let from_file = match file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        for key in KEYS {
            let variable = key.variable();
            if let Some(value) = flags.get(key.name) {
                loaded.set(key, value, Origin::Flag(key.flag()))?;
            } else if let Some(value) = environment(&variable) {
                loaded.set(key, &value, Origin::Environment(variable))?;
            } else if let (Some(value), Some(path)) = (from_file.get(key.name), file) {
                loaded.set(key, value, Origin::File(path.to_owned()))?;
            }
        }
        loaded.config.validate()?;
        Ok(loaded)
    }

    fn set(&mut self, key: &Key, value: &str, origin: Origin) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, value).map_err(|allowed| ConfigError::BadValue {
            key: key.name,
            origin: origin.clone(),
            got: value.to_owned(),
            allowed,
        })?;
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// The effective configuration as a TOML file, with what each key is for and where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text =
            String::from("# Effective configuration of ledger-node: flags over environment over file over defaults.\n");
        let mut section = "";
        for key in KEYS {
            let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if table != section {
                text.push_str(&format!("\n[{table}]\n"));
                section = table;
            }
            let origin = self.origins.get(key.name).unwrap_or(&Origin::Default);
            text.push_str(&format!("# {}\n", key.what));
            match (key.get)(&self.config) {
                Some(value) => text.push_str(&format!("{name} = {value} # {origin}\n")),
                None => text.push_str(&format!("# {name} is not set # {origin}\n")),
            }
        }
        text
    }
}

impl NodeConfig {
    /// Checks values against each other.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming both keys.
    pub fn validate(&self) -> Result<(), ConfigError> {
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
        if self.call_within_default > self.call_within_max {
            return conflict(format!(
                "`call.within_default` ({:?}) must not be above `call.within_max` ({:?})",
                self.call_within_default, self.call_within_max
            ));
        }
        for (name, port) in [("client", &self.client), ("http", &self.http), ("peer", &self.peer)] {
            let (host, _) = split_address(&port.listen).unwrap_or_default();
            if port.advertise.is_none() && matches!(host, "0.0.0.0" | "[::]") {
                return conflict(format!(
                    "`{name}.listen` is {} (every address), so `{name}.advertise` must say how other hosts reach this node",
                    port.listen
                ));
            }
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let not_toml = |why: String| ConfigError::NotToml { path: path.to_owned(), why };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| not_toml(e.to_string()))?;
    let mut flat = BTreeMap::new();
    flatten("", &table, &mut flat);
    for key in flat.keys() {
        if !KEYS.iter().any(|known| known.name == key) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key: key.clone(), nearest: nearest(key) });
        }
    }
    Ok(flat)
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            toml::Value::String(text) => drop(flat.insert(key, text.clone())),
            other => drop(flat.insert(key, other.to_string())),
        }
    }
}

/// The known key with the smallest edit distance.
fn nearest(key: &str) -> &'static str {
    KEYS.iter().map(|known| (distance(key, known.name), known.name)).min().map_or("data_dir", |(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
