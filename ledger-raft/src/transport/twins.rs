//! Two live processes of one node: noticed by the runs that their connections name.
//!
//! **What it is.** Each process of a node draws a run, and names it in its hello. A restart brings a new run, and nothing comes of
//! the old one any more. A run that is still heard some time after a newer one connected is a second live process on the same disk
//! id: a volume that two hosts have attached, or a copy that looks like its original. Both are named; neither is refused, since
//! nobody can tell which of them holds what the node promised, and a caller that claims a member's run could shut it out.
//!
//! **Owns** that judgement. **Must never** take a restart for a second process. **Read next**: [`super::server`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::link::lock;
use crate::api::NodeId;
use crate::limits::{TWIN_AFTER, TWIN_FRESH, TWIN_PROVED};

/// Two live processes of one node, as the node that lists them was connected to by both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// Which node.
    pub node: NodeId,
    /// The run that connected last, and from where.
    pub newer: (u64, SocketAddr),
    /// The run that is heard nevertheless, and from where.
    pub older: (u64, SocketAddr),
}

/// The runs of one node.
#[derive(Debug)]
struct Runs {
    /// Open connections of each run.
    open: BTreeMap<u64, usize>,
    newest: Arc<AtomicU64>,
    from: SocketAddr,
    since: Instant,
    twin: Option<Older>,
    /// When the log last named two processes.
    logged: Option<Instant>,
}

/// An older run that was heard long after a newer one connected.
#[derive(Debug, Clone, Copy)]
struct Older {
    run: u64,
    from: SocketAddr,
    first: Instant,
    last: Instant,
}

impl Older {
    fn is_fresh(&self) -> bool {
        self.last.elapsed() < TWIN_FRESH
    }
    /// Whether it goes on, and is not what lay in a socket.
    fn is_live(&self) -> bool {
        self.last.duration_since(self.first) >= TWIN_PROVED
    }
}

impl Runs {
    fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }
    fn set_newest(&mut self, run: u64, from: SocketAddr) {
        (self.from, self.since) = (from, Instant::now());
        self.newest.store(run, Ordering::Relaxed);
    }
}

/// The runs of all peers.
#[derive(Debug, Default)]
pub(crate) struct Twins(Mutex<BTreeMap<NodeId, Runs>>);

impl Twins {
    /// A run of a node connected. What is returned always holds the run that connected last.
    pub(crate) fn connected(&self, node: NodeId, run: u64, from: SocketAddr) -> Arc<AtomicU64> {
        let mut peers = lock(&self.0);
        let runs = peers.entry(node).or_insert_with(|| Runs {
            open: BTreeMap::new(),
            newest: Arc::new(AtomicU64::new(run)),
            from,
            since: Instant::now(),
            twin: None,
            logged: None,
        });
        *runs.open.entry(run).or_default() += 1;
        // One that was seen beside it already connects again: the newer one stays.
        let is_known = runs.twin.is_some_and(|older| older.run == run && older.is_live());
        if runs.newest() != run && !is_known {
            runs.set_newest(run, from);
        }
        runs.newest.clone()
    }

    /// A connection of a run is closed.
    pub(crate) fn closed(&self, node: NodeId, run: u64) {
        let mut peers = lock(&self.0);
        let Some(runs) = peers.get_mut(&node) else { return };
        if let Some(count) = runs.open.get_mut(&run) {
            *count -= 1;
            if *count == 0 {
                runs.open.remove(&run);
            }
        }
    }

    /// Something came from a run that another one has followed.
    pub(crate) fn heard(&self, node: NodeId, run: u64, from: SocketAddr) {
        let mut peers = lock(&self.0);
        let Some(runs) = peers.get_mut(&node) else { return };
        let newest = runs.newest();
        if !runs.open.contains_key(&newest) {
            // That one has ended, and this one goes on.
            runs.twin = None;
            runs.set_newest(run, from);
        }
        if runs.newest() == run || runs.since.elapsed() < TWIN_AFTER {
            return;
        }
        let now = Instant::now();
        let first = runs.twin.filter(Older::is_fresh).map_or(now, |older| older.first);
        let older = Older { run, from, first, last: now };
        runs.twin = Some(older);
        if older.is_live() && runs.logged.is_none_or(|at| at.elapsed() >= TWIN_FRESH) {
            runs.logged = Some(now);
            tracing::error!(
                node = node.0, newer_run = newest, newer_at = %runs.from, older_run = run, older_at = %from,
                "two live processes are the same node on the same disk id: stop one of them at once, and see docs/disks.md"
            );
        }
    }

    /// Second processes that were heard a short time ago.
    pub(crate) fn all(&self) -> Vec<Twin> {
        let peers = lock(&self.0);
        let twin = |(node, runs): (&NodeId, &Runs)| {
            let older = runs.twin.filter(|older| older.is_fresh() && older.is_live())?;
            Some(Twin { node: *node, newer: (runs.newest(), runs.from), older: (older.run, older.from) })
        };
        peers.iter().filter_map(twin).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_no_twin() {
        let twins = Twins::default();
        twins.connected(NODE, 1, at(1));
        tokio::time::advance(10 * TWIN_AFTER).await;
        let newest = twins.connected(NODE, 2, at(2));
        assert_eq!(newest.load(Ordering::Relaxed), 2);
        // What the first one had sent before it ended is read a little later.
        twins.heard(NODE, 1, at(1));
        tokio::time::advance(10 * TWIN_AFTER).await;
        twins.connected(NODE, 2, at(3));
        twins.heard(NODE, 2, at(3));
        assert_eq!(twins.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lay_in_a_socket_that_nobody_read_is_no_twin() {
        let twins = Twins::default();
        twins.connected(NODE, 1, at(1));
        twins.connected(NODE, 2, at(2));
        tokio::time::advance(2 * TWIN_AFTER).await;
        for _ in 0..3 {
            twins.heard(NODE, 1, at(1));
        }
        assert_eq!(twins.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn two_older_runs_in_turn_are_named() {
        let twins = Twins::default();
        (1..=3).for_each(|run| drop(twins.connected(NODE, run, at(1))));
        tokio::time::advance(TWIN_AFTER).await;
        for _ in 0..4 {
            twins.heard(NODE, 1, at(1));
            twins.heard(NODE, 2, at(1));
            tokio::time::advance(TWIN_PROVED / 2).await;
        }
        assert_eq!(twins.all(), [Twin { node: NODE, newer: (3, at(1)), older: (2, at(1)) }]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_run_that_goes_on_beside_a_newer_one_is_named_until_it_ends() {
        let twins = Twins::default();
        twins.connected(NODE, 1, at(1));
        twins.connected(NODE, 2, at(2));
        tokio::time::advance(TWIN_AFTER).await;
        twins.heard(NODE, 1, at(1));
        assert_eq!(twins.all(), [], "it may be what was sent before");
        tokio::time::advance(TWIN_PROVED).await;
        twins.heard(NODE, 1, at(1));
        let named = [Twin { node: NODE, newer: (2, at(2)), older: (1, at(1)) }];
        assert_eq!(twins.all(), named);
        // It connects again, in turn with the other one.
        assert_eq!(twins.connected(NODE, 1, at(1)).load(Ordering::Relaxed), 2);
        assert_eq!(twins.all(), named);
        tokio::time::advance(TWIN_FRESH).await;
        assert_eq!(twins.all(), [], "nobody heard it since");
        twins.heard(NODE, 1, at(1));
        tokio::time::advance(TWIN_PROVED).await;
        twins.heard(NODE, 1, at(1));
        assert_eq!(twins.all(), named);
        // The newer one is stopped.
        twins.closed(NODE, 2);
        twins.heard(NODE, 1, at(1));
        tokio::time::advance(TWIN_AFTER).await;
        twins.heard(NODE, 1, at(1));
        assert_eq!(twins.all(), [], "the node runs once");
    }
}
