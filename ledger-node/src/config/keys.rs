//! The table of all configuration keys: one row gives the flag, the variable, the file's key and its line in `--print-config`.
//!
//! **Owns** names, parsing and printing of values. **Must never** check values against each other.
//! **Read next**: [`settings::Settings::validate`].

use std::collections::BTreeMap;

use ledger_raft::limits::{SEGMENT_BYTES_FLOOR, SEGMENT_BYTES_MAX};
use settings::keys::{DAY, MS, listening, number, quoted, some_text, split_address};
use settings::{Key, duration_key, key, log_filter_key, log_format_key, number_key, switch_key};

use super::{NodeConfig, Port};
use crate::limits::MEMORY_RESERVE_BYTES_MAX;

fn advertised(text: &str) -> Result<String, String> {
    match split_address(text) {
        Some((_, 0)) => Err("an advertised address is host:port with a port other hosts can connect to".into()),
        _ => listening(text),
    }
}

/// Names of hosts, separated by commas.
fn host_names(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let is_name = |name: &str| name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'));
    let checked = names.map(|name| if is_name(name) { Ok(name.to_owned()) } else { Err(name) });
    checked.collect::<Result<_, _>>().map_err(|_| "names without ports, as ledger.example,proxy-1".to_owned())
}

/// Node ids and addresses, separated by commas.
fn peer_hints(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let expected = || "node ids of 1 or above with the address of each, as 2=10.0.0.7:7103,3=10.0.0.8:7103".to_owned();
    let mut hints = BTreeMap::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let (node, address) = one.split_once('=').ok_or_else(expected)?;
        let node: u64 = node.trim().parse().ok().filter(|node| *node > 0).ok_or_else(expected)?;
        if hints.insert(node, advertised(address.trim())?).is_some() {
            return Err(format!("one address a node; node {node} is named twice"));
        }
    }
    Ok(hints)
}

fn printed_hints(hints: &BTreeMap<u64, String>) -> String {
    hints.iter().map(|(node, address)| format!("{node}={address}")).collect::<Vec<_>>().join(",")
}

macro_rules! address_key {
    ($name:literal, $port:ident, listen, $what:literal) => {
        key!($name, $what, |c, v| listening(v).map(|a| c.$port.listen = a), |c| quoted(&c.$port.listen))
    };
    ($name:literal, $port:ident, advertise, $what:literal) => {
        key!(
            $name,
            $what,
            |c, v| advertised(v).map(|a| c.$port = Port { advertise: Some(a), ..c.$port.clone() }),
            |c| c.$port.advertise.as_deref().and_then(quoted)
        )
    };
}

/// All keys, grouped by table; those without a table come first, as TOML wants it.
pub(super) const KEYS: &[Key<NodeConfig>] = &[
    key!(
        "data_dir",
        "Where everything durable lives; stamped with cluster and node, refuses a stranger.",
        |c, v| some_text(v).map(|path| c.data_dir = path.into()),
        |c| quoted(&c.data_dir.to_string_lossy())
    ),
    key!(
        "node_id",
        "The node id the data directory must carry; not set: whatever `ledgerctl cluster init` gave it.",
        |c, v| number(v, 1, u64::MAX >> 1).map(|n| c.node_id = Some(n)),
        |c| c.node_id.map(|n| n.to_string())
    ),
    number_key!("low_space_bytes", raft.low_space_bytes: u64, 0, 1 << 50, "Below this many free bytes the node takes no writes; it recovers when there is space."),
    number_key!("runtime_threads", runtime_threads: usize, 1, 256, "1: everything on one thread, best up to two cores; more: a work-stealing runtime."),
    number_key!("memory_reserve_bytes", memory_reserve_bytes: u64, 0, MEMORY_RESERVE_BYTES_MAX, "Memory taken and touched at the start and never given back, so that a herd waits for no page; about 300 bytes a reservation, 1,200 an order. 0: none."),
    number_key!("memory_max_bytes", memory_max_bytes: u64, 0, 1 << 50, "What records may take in memory: at the bound new reservations, and orders that reserve, are answered MEMORY_FULL, all else goes on. 0: 30 % of the machine's memory, or of its container's: a snapshot may need twice as much again. Set it where several nodes share a machine."),
    switch_key!(
        "insecure",
        insecure,
        "Ports may listen where other hosts reach them, though everything is in plain text; needed for that, also beside TLS to come."
    ),
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
    key!(
        "http.hosts",
        "Names, separated by commas, that requests over HTTP may name as their Host besides this node's addresses, as of a proxy.",
        |c, v| host_names(v).map(|names| c.http_hosts = names),
        |c| if c.http_hosts.is_empty() { None } else { quoted(&c.http_hosts.join(",")) }
    ),
    address_key!("peer.listen", peer, listen, "Raft between nodes listens here."),
    address_key!("peer.advertise", peer, advertise, "How other nodes reach it; not set: the listening address."),
    key!(
        "peer.hints",
        "Where other nodes are looked for as well, as 2=10.0.0.7:7103,3=10.0.0.8:7103: the way back when all have new addresses at once.",
        |c, v| peer_hints(v).map(|hints| c.peer_hints = hints),
        |c| if c.peer_hints.is_empty() { None } else { quoted(&printed_hints(&c.peer_hints)) }
    ),
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
    duration_key!(
        "raft.election_max",
        raft.election_max,
        MS,
        DAY,
        "Longest election timeout, and how long followers wait for a silent leader: a stall that lasts longer deposes it."
    ),
    number_key!("raft.snapshot_every_entries", raft.snapshot_every_entries: u64, 16, u64::MAX >> 1, "A snapshot is built after that many entries since the last. One above 64 MiB also waits until the log has grown by as much as it took."),
    number_key!("raft.snapshot_every_bytes", raft.snapshot_every_bytes: u64, 1 << 12, u64::MAX >> 1, "... or after that many log bytes."),
    number_key!("raft.keep_entries", raft.keep_entries: u64, 0, u64::MAX >> 1, "Entries kept in the log behind the newest snapshot."),
    duration_key!(
        "raft.clock_bound",
        raft.clock_bound,
        MS,
        DAY,
        "Furthest a leader's clock may lie from the quorum's median before it stamps nothing."
    ),
    duration_key!(
        "raft.clock_jump_max",
        raft.clock_jump_max,
        MS,
        DAY * 3650,
        "By how much more than elapsed time clocks may move ledger time on while the cluster runs; more waits for `ledgerctl cluster clock accept`."
    ),
    duration_key!("raft.clock_fresh", raft.clock_fresh, MS, DAY, "Clock readings older than that do not count."),
    number_key!("raft.tail_cache_bytes", raft.tail_cache_bytes: usize, 1 << 16, 1 << 40, "Newest log bytes each shard keeps in memory for replication."),
    number_key!("raft.segment_bytes", raft.segment_bytes: u64, SEGMENT_BYTES_FLOOR, SEGMENT_BYTES_MAX, "Size of one log segment; a multiple of 4096."),
    duration_key!("history.keep", history_keep, MS, DAY * 3650, "How long this node keeps history."),
    number_key!("history.bytes_max", history_bytes_max: u64, 1 << 20, 1 << 50, "Most bytes of history kept on this node; the oldest goes first."),
    key!(
        "access.trusted",
        "Networks from which calls and peers are taken, as 127.0.0.0/8,::1/128; all others are refused until identities exist. On several hosts it names those of all members.",
        |c, v| crate::access::Network::list(v).map(|nets| c.trusted = nets),
        |c| quoted(&c.trusted.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    ),
    switch_key!("balance.on", balance, "Spread leaders over the nodes by handing leadership over gently."),
    duration_key!(
        "balance.settle",
        balance_settle,
        MS,
        DAY,
        "How long a leader keeps a shard before the balancer may move it."
    ),
    log_format_key!(),
    log_filter_key!("Which log lines, as `info,ledger_node::door=debug`."),
];
