//! Routing: which shard owns which slots, who leads it, and where.
//!
//! **Owns** [`Routes`], the checked form of [`v1::Routing`]. **Must never** trust a slot number from outside.

use ledger_core::{LedgerTime, Slot};

use crate::reply::Invalid;
use crate::v1;

/// The routing as one node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// The cluster's id.
    pub cluster: bytes::Bytes,
    /// Its incarnation.
    pub incarnation: u64,
    /// Rises with every change of placement.
    pub generation: u64,
    /// The shards.
    pub shards: Vec<ShardRoute>,
    /// The nodes.
    pub nodes: Vec<NodeRoute>,
    /// Newest ledger time known to the node.
    pub time: LedgerTime,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRoute {
    /// Its number.
    pub shard: u32,
    /// The slots it owns, inclusive ranges.
    pub slots: Vec<(Slot, Slot)>,
    /// Who leads it, if that is known just now.
    pub leader: Option<u64>,
    /// Who has a replica of it.
    pub replicas: Vec<u64>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoute {
    /// Its id.
    pub node: u64,
    /// `host:port` of its client (gRPC) port.
    pub client: String,
    /// `host:port` of its HTTP port.
    pub http: String,
}

impl Routes {
    /// For the wire.
    pub fn to_wire(&self) -> v1::Routing {
        let range = |&(from, to): &(Slot, Slot)| v1::SlotRange { from: from.get().into(), to: to.get().into() };
        let shard = |shard: &ShardRoute| v1::ShardRoute {
            shard: shard.shard,
            slots: shard.slots.iter().map(range).collect(),
            leader: shard.leader.unwrap_or(0),
            replicas: shard.replicas.clone(),
        };
        let node =
            |node: &NodeRoute| v1::NodeRoute { node: node.node, client: node.client.clone(), http: node.http.clone() };
        v1::Routing {
            cluster: self.cluster.clone(),
            incarnation: self.incarnation,
            generation: self.generation,
            shards: self.shards.iter().map(shard).collect(),
            nodes: self.nodes.iter().map(node).collect(),
            time_ms: self.time.0,
        }
    }

    /// Out of the wire.
    ///
    /// # Errors
    /// [`Invalid`] for a slot that does not exist or a range that runs backwards.
    pub fn from_wire(wire: v1::Routing) -> Result<Self, Invalid> {
        let slot = |n: u32| {
            let n = u16::try_from(n).unwrap_or(u16::MAX);
            Slot::new(n).map_err(Invalid::of("shards.slots"))
        };
        let range = |range: &v1::SlotRange| {
            if range.from > range.to {
                return Err(Invalid::new(
                    "shards.slots",
                    format!("range {} to {} runs backwards", range.from, range.to),
                ));
            }
            Ok((slot(range.from)?, slot(range.to)?))
        };
        let shard = |shard: v1::ShardRoute| {
            Ok::<_, Invalid>(ShardRoute {
                shard: shard.shard,
                slots: shard.slots.iter().map(range).collect::<Result<_, _>>()?,
                leader: (shard.leader != 0).then_some(shard.leader),
                replicas: shard.replicas,
            })
        };
        let node = |node: v1::NodeRoute| NodeRoute { node: node.node, client: node.client, http: node.http };
        Ok(Self {
            cluster: wire.cluster,
            incarnation: wire.incarnation,
            generation: wire.generation,
            shards: wire.shards.into_iter().map(shard).collect::<Result<_, _>>()?,
            nodes: wire.nodes.into_iter().map(node).collect(),
            time: LedgerTime(wire.time_ms),
        })
    }
}
