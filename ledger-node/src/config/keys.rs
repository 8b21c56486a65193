//! The table of all configuration keys: one row gives the flag, the variable, the file's key and its line in `--print-config`.
//!
//! **Owns** names, parsing and printing of values. **Must never** check values against each other.
//! **Read next**: [`super::NodeConfig::validate`].

use std::path::PathBuf;
use std::time::Duration;

use super::{LogFormat, NodeConfig, Port};
use crate::limits::MEMORY_RESERVE_BYTES_MAX;

/// One key.
pub struct Key {
    /// As in the file: `table.name`.
    pub name: &'static str,
    /// For `--help` and `--print-config`.
    pub what: &'static str,
    /// Parses a value; the error says what is allowed.
    pub set: fn(&mut NodeConfig, &str) -> Result<(), String>,
    /// The value as TOML; none when it is not set.
    pub get: fn(&NodeConfig) -> Option<String>,
}

impl Key {
    /// The environment variable: `HOLDFAST_RAFT_HEARTBEAT`.
    pub fn variable(&self) -> String {
        format!("HOLDFAST_{}", self.name.replace('.', "_").to_uppercase())
    }
    /// The flag without dashes: `raft-heartbeat`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

/// `host:port` in two; IPv6 hosts in brackets.
pub(crate) fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(char::is_whitespace) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

fn address(text: &str, port_zero: bool) -> Result<String, String> {
    match split_address(text) {
        Some((_, 0)) if !port_zero => {
            Err("an advertised address is host:port with a port other hosts can connect to".into())
        }
        Some(_) => Ok(text.to_owned()),
        None => Err("an address is host:port, as 127.0.0.1:7101, node-1.example:7101 or [::1]:7101".into()),
    }
}

fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let range = || format!("a duration from {} to {}, as 150ms, 2s, 7days", show(min), show(max));
    let value = humantime::parse_duration(text).map_err(|_| range())?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(range()) }
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = text.replace('_', "").parse::<u64>().ok().filter(|n| (min..=max).contains(n));
    value.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

fn show(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

fn quoted(text: &str) -> Option<String> {
    Some(toml::Value::String(text.to_owned()).to_string())
}

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

macro_rules! address_key {
    ($name:literal, $port:ident, listen, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| address(v, true).map(|a| c.$port.listen = a),
            get: |c| quoted(&c.$port.listen),
        }
    };
    ($name:literal, $port:ident, advertise, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| address(v, false).map(|a| c.$port = Port { advertise: Some(a), ..c.$port.clone() }),
            get: |c| c.$port.advertise.as_deref().and_then(quoted),
        }
    };
}
macro_rules! number_key {
    ($name:literal, $($field:ident).+ : $type:ty, $min:expr, $max:expr, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| number(v, $min, $max).map(|n| c.$($field).+ = n as $type),
            get: |c| Some(c.$($field).+.to_string()),
        }
    };
}
macro_rules! duration_key {
    ($name:literal, $($field:ident).+, $min:expr, $max:expr, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| duration(v, $min, $max).map(|d| c.$($field).+ = d),
            get: |c| quoted(&show(c.$($field).+)),
        }
    };
}

/// All keys, grouped by table; those without a table come first, as TOML wants it.
pub const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        what: "Where everything durable lives; stamped with cluster and node, refuses a stranger.",
        set: |c, v| {
            if v.is_empty() {
                Err("a directory".into())
            } else {
                c.data_dir = PathBuf::from(v);
                Ok(())
            }
        },
        get: |c| quoted(&c.data_dir.to_string_lossy()),
    },
    Key {
        name: "node_id",
        what: "The node id the data directory must carry; not set: whatever `ledgerctl cluster init` gave it.",
        set: |c, v| number(v, 1, u64::MAX >> 1).map(|n| c.node_id = Some(n)),
        get: |c| c.node_id.map(|n| n.to_string()),
    },
    number_key!("low_space_bytes", raft.low_space_bytes: u64, 0, 1 << 50, "Below this many free bytes the node takes no writes; it recovers when there is space."),
    number_key!("runtime_threads", runtime_threads: usize, 1, 256, "1: everything on one thread, best up to two cores; more: a work-stealing runtime."),
    number_key!("memory_reserve_bytes", memory_reserve_bytes: u64, 0, MEMORY_RESERVE_BYTES_MAX, "Memory taken and touched at the start and never given back, so that a herd waits for no page; about 300 bytes a reservation, 1,200 an order. 0: none."),
    duration_key!("shutdown_within", shutdown_within, MS, DAY, "How long a graceful shutdown may take."),
    address_key!(
        "client.listen",
        client,
        listen,
        "gRPC for clients and operators listens here; port 0 picks one and keeps it."
    ),
    address_key!(
        "client.advertise",
        client,
        advertise,
        "How clients on other hosts reach it; not set: the listening address."
    ),
    address_key!("http.listen", http, listen, "HTTP/JSON, /livez, /readyz and /metrics listen here."),
    address_key!("http.advertise", http, advertise, "How other hosts reach it; not set: the listening address."),
    address_key!("peer.listen", peer, listen, "Raft between nodes listens here."),
    address_key!("peer.advertise", peer, advertise, "How other nodes reach it; not set: the listening address."),
    number_key!("cluster.shards", shards: u32, 0, crate::limits::SHARDS_MAX as u64, "Shards when `cluster init` does not say; 0: one a node."),
    number_key!("cluster.replicas", replicas: u32, 0, crate::limits::REPLICAS_MAX as u64, "Replicas of a shard when `cluster init` does not say; 0: three (five from five nodes on)."),
    number_key!("queue.calls", queue_calls: usize, 64, 10_000_000, "Calls that may wait at one shard's door; more are answered OVERLOADED at once."),
    number_key!("queue.bytes", queue_bytes: usize, 1 << 16, 1 << 34, "Bytes of calls that may wait at one shard's door."),
    number_key!("queue.reserved_percent", queue_reserved_percent: u32, 1, 90, "Share of the queue kept for confirms, releases, fences and ticks."),
    duration_key!(
        "call.within_default",
        call_within_default,
        MS,
        DAY,
        "How long a call may take when the caller does not say."
    ),
    duration_key!("call.within_max", call_within_max, MS, DAY, "Longest time a caller may name."),
    duration_key!("raft.heartbeat", raft.heartbeat, MS, DAY, "Leader's heartbeat."),
    duration_key!(
        "raft.election_min",
        raft.election_min,
        MS,
        DAY,
        "Shortest election timeout; at least ten times the slowest usual fsync."
    ),
    duration_key!("raft.election_max", raft.election_max, MS, DAY, "Longest election timeout."),
    number_key!("raft.snapshot_every_entries", raft.snapshot_every_entries: u64, 16, u64::MAX >> 1, "A snapshot is built after that many entries since the last."),
    number_key!("raft.snapshot_every_bytes", raft.snapshot_every_bytes: u64, 1 << 12, u64::MAX >> 1, "... or after that many log bytes."),
    number_key!("raft.keep_entries", raft.keep_entries: u64, 0, u64::MAX >> 1, "Entries kept in the log behind the newest snapshot."),
    duration_key!(
        "raft.clock_bound",
        raft.clock_bound,
        MS,
        DAY,
        "Furthest a leader's clock may lie from the quorum's median before it stamps nothing."
    ),
    duration_key!("raft.clock_fresh", raft.clock_fresh, MS, DAY, "Clock readings older than that do not count."),
    number_key!("raft.tail_cache_bytes", raft.tail_cache_bytes: usize, 1 << 16, 1 << 40, "Newest log bytes each shard keeps in memory for replication."),
    number_key!("raft.segment_bytes", raft.segment_bytes: u64, 1 << 16, 1 << 34, "Size of one log segment; a multiple of 4096."),
    duration_key!("history.keep", history_keep, MS, DAY * 3650, "How long this node keeps history."),
    number_key!("history.bytes_max", history_bytes_max: u64, 1 << 20, 1 << 50, "Most bytes of history kept on this node; the oldest goes first."),
    Key {
        name: "access.trusted",
        what: "Networks whose calls are taken, as 127.0.0.0/8,::1/128; all others are refused until identities exist.",
        set: |c, v| crate::access::Network::list(v).map(|nets| c.trusted = nets),
        get: |c| quoted(&c.trusted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    },
    Key {
        name: "balance.on",
        what: "Spread leaders over the nodes by handing leadership over gently.",
        set: |c, v| switch(v).map(|on| c.balance = on),
        get: |c| Some(c.balance.to_string()),
    },
    duration_key!(
        "balance.settle",
        balance_settle,
        MS,
        DAY,
        "How long a leader keeps a shard before the balancer may move it."
    ),
    Key {
        name: "log.format",
        what: "Log lines for people (text) or machines (json).",
        set: |c, v| {
            c.log_format = match v {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("text or json".into()),
            };
            Ok(())
        },
        get: |c| {
            quoted(match c.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
        },
    },
    Key {
        name: "log.filter",
        what: "Which log lines, as `info,ledger_node::door=debug`.",
        set: |c, v| {
            tracing_subscriber::EnvFilter::try_new(v)
                .map_err(|e| format!("a tracing filter, as info,ledger_node=debug ({e})"))?;
            c.log_filter = v.to_owned();
            Ok(())
        },
        get: |c| quoted(&c.log_filter),
    },
];
