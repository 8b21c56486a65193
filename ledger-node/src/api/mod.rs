//! What gRPC and HTTP share: submitting commands, reading, and passing on to the leader.
//!
//! **What it is.** The transports translate bytes; everything between them and a shard is here, once.
//!
//! **Owns** deadlines, the grouping of calls by shard, the one forward to a leader, the consistency of reads.
//! **Must never** decide about stock, forward what was forwarded already, or turn *unknown* into *no*.
//! **Read next**: [`submit`], [`reads`], [`lists`], [`forward`].

pub mod forward;
pub mod lists;
pub mod places;
pub mod reads;
pub mod submit;

use std::sync::Arc;
use std::time::Duration;

use ledger_proto::{Cause, NotNow};
use tokio::time::Instant;

use crate::access::Access;
use crate::feed::pace::ReadPace;
use crate::grpc::watch_places::WatchPlaces;
use crate::limits::{EXPLAINS_PER_SOURCE, LISTS_AWAY_PER_SOURCE};
use crate::metrics::NodeMetrics;
use crate::node::{Node, NodeState};
use places::SourcePlaces;

/// What every handler has at hand.
#[derive(Clone)]
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// Connections to other nodes' client ports.
    pub forward: forward::Forwarder,
    /// Who may call.
    pub access: Arc<Access>,
    /// What is counted.
    pub metrics: Arc<NodeMetrics>,
    /// How many watches there may be.
    pub watches: Arc<WatchPlaces>,
    /// How much they and others read at once.
    pub pace: ReadPace,
    /// Explanations that walk through history, by source.
    pub explains: Arc<SourcePlaces>,
    /// Lists that other nodes are asked for, by source.
    pub lists: Arc<SourcePlaces>,
}

impl Api {
    /// Over a node.
    pub fn new(node: Arc<Node>, metrics: Arc<NodeMetrics>) -> Self {
        let forward = forward::Forwarder::new(node.seams().raft.net.clone());
        let access = Arc::new(Access::new(node.config().trusted.clone()));
        let (watches, pace) = (Arc::default(), ReadPace::default());
        let explains = SourcePlaces::new("explanations", EXPLAINS_PER_SOURCE);
        let lists = SourcePlaces::new("lists of shards that other nodes have", LISTS_AWAY_PER_SOURCE);
        Self { node, forward, access, metrics, watches, pace, explains, lists }
    }

    /// When a call that may take so long expires; zero: the default. Never later than the configured longest.
    pub fn expires_at(&self, now: Instant, within_ms: u32, cap: Option<Duration>) -> Instant {
        let config = self.node.config();
        let within = match within_ms {
            0 => config.call_within_default,
            ms => Duration::from_millis(ms.into()),
        };
        now + within.min(config.call_within_max).min(cap.unwrap_or(Duration::MAX))
    }

    /// The node takes calls; otherwise why not.
    ///
    /// # Errors
    /// *Not now*.
    pub fn serving(&self) -> Result<(), NotNow> {
        let why = match self.node.state() {
            NodeState::Serving => return Ok(()),
            NodeState::Starting => "the node is starting",
            NodeState::Uninitialised => "the node is not part of a cluster yet; hint: ledgerctl cluster init",
            NodeState::Stopping => "the node is stopping",
        };
        Err(NotNow::new(Cause::NotServing, why, crate::limits::RETRY_UNWELL_MS))
    }
}
