//! Who leads what: slot → shard → leader's node, kept fresh by one task.
//!
//! **Owns** the routing table and the nodes. **Must never** ask for the routing more than once at a time, nor trust it: a node that does not
//! lead says so, and is believed at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ledger_core::{Slot, limits as core_limits};
use ledger_proto::fast::ReceivedAnswer;
use ledger_proto::routing::Routes as Wire;
use ledger_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::chance::{Chance, LedgerClock};
use crate::dial::Dial;
use crate::limits;
use crate::node::Node;

/// What answers tell besides themselves.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) clock: LedgerClock,
    wanted: Notify,
    terms: Mutex<HashMap<u32, u64>>,
}

impl Heard {
    /// Ledger time and terms of a frame of answers. A new term is a new leader: whoever still answers passes calls on.
    pub(crate) fn answers(&self, answers: &[ReceivedAnswer]) {
        let mut last = None;
        for at in answers.iter().filter_map(|answer| answer.at) {
            let entry = (at.position.shard, at.position.index);
            if last == Some(entry) {
                continue;
            }
            last = Some(entry);
            self.clock.heard(at.time);
            let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
            match terms.insert(at.position.shard, at.position.term) {
                Some(before) if before < at.position.term => self.wanted.notify_one(),
                _ => {}
            }
        }
    }
    /// A connection broke.
    pub(crate) fn lost_node(&self) {
        self.wanted.notify_one();
    }
    /// The routing seems to be out of date.
    pub(crate) fn want_routing(&self) {
        self.wanted.notify_one();
    }
}

#[derive(Clone)]
struct Shard {
    leader: Option<Arc<Node>>,
    replicas: Vec<Arc<Node>>,
}

impl Shard {
    /// Another leader than so far is worth a dial, even if it did not answer a moment ago.
    fn lead(&mut self, leader: Arc<Node>) {
        if self.leader.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &leader)) {
            leader.gate.open();
        }
        self.leader = Some(leader);
    }
}

const NOWHERE: u16 = u16::MAX;

#[derive(Clone)]
struct Table {
    wire: Arc<v1::Routing>,
    slots: Arc<[u16]>,
    shards: Vec<Shard>,
    all: Vec<Arc<Node>>,
}

/// Routing and nodes.
pub(crate) struct Routes {
    table: RwLock<Table>,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    seeds: Vec<String>,
    dial: Dial,
    streams: usize,
    pub(crate) heard: Arc<Heard>,
    pub(crate) chance: Arc<Chance>,
    version: watch::Sender<u64>,
    closed: watch::Sender<bool>,
}

impl Routes {
    pub(crate) fn new(seeds: Vec<String>, dial: Dial, streams: usize, chance: Arc<Chance>) -> Arc<Self> {
        let slots = vec![NOWHERE; usize::from(core_limits::SLOTS)].into();
        let table = Table { wire: Arc::default(), slots, shards: Vec::new(), all: Vec::new() };
        Arc::new(Self {
            table: RwLock::new(table),
            nodes: Mutex::default(),
            seeds,
            dial,
            streams,
            heard: Arc::default(),
            chance,
            version: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at an address; dialled when it is new. None when the address is none.
    fn node(&self, address: &str) -> Option<Arc<Node>> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(address) {
            return Some(node.clone());
        }
        let node = Node::new(address, &self.dial, self.streams, &self.heard, &self.chance);
        let node = node.inspect_err(|error| tracing::warn!(%error, "a node's address is malformed")).ok()?;
        nodes.insert(address.to_owned(), node.clone());
        Some(node)
    }

    /// The routing as last heard.
    pub(crate) fn wire(&self) -> Arc<v1::Routing> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).wire.clone()
    }

    /// Runs `f` on the node to ask about a slot at this try: the leader, else another replica in turn, else any node.
    pub(crate) fn with<R>(&self, slot: Option<Slot>, tries: u32, f: impl FnOnce(&Arc<Node>) -> R) -> Option<R> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let shard = slot.and_then(|slot| table.shards.get(usize::from(table.slots[usize::from(slot.get())])));
        // Every third try goes past a leader that does not answer: another replica may know better.
        let leader = shard.and_then(|shard| shard.leader.as_ref());
        if let Some(leader) = leader
            && !leader.is_down()
            && tries % 3 != 2
        {
            return Some(f(leader));
        }
        let nodes = match shard {
            Some(shard) if !shard.replicas.is_empty() => &shard.replicas,
            _ => &table.all,
        };
        let first = tries as usize + (self.chance.draw() % nodes.len().max(1) as u64) as usize;
        let turn = || (0..nodes.len()).map(|n| &nodes[(first + n) % nodes.len()]);
        let passed_by = |node: &Arc<Node>| leader.is_some_and(|leader| Arc::ptr_eq(leader, node));
        let node = turn().find(|node| !node.is_down() && !passed_by(node));
        let node = node.or_else(|| turn().find(|node| !node.is_down())).or_else(|| turn().next())?;
        Some(f(node))
    }

    /// Runs `f` on any node that keeps a replica of the slot's shard, another one each time; on any node when none is known.
    pub(crate) fn with_replica<R>(&self, slot: Slot, f: impl FnOnce(&Arc<Node>) -> R) -> Option<R> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let shard = table.shards.get(usize::from(table.slots[usize::from(slot.get())]));
        let nodes = shard.map(|shard| &shard.replicas).filter(|replicas| !replicas.is_empty()).unwrap_or(&table.all);
        let first = (self.chance.draw() % nodes.len().max(1) as u64) as usize;
        let turn = || (0..nodes.len()).map(|n| &nodes[(first + n) % nodes.len()]);
        turn().find(|node| !node.is_down()).or_else(|| turn().next()).map(f)
    }

    /// The hot path: the leader, if it is known.
    #[inline]
    pub(crate) fn with_leader<R>(&self, slot: Slot, f: impl FnOnce(&Arc<Node>) -> R) -> Option<R> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let shard = table.shards.get(usize::from(table.slots[usize::from(slot.get())]))?;
        shard.leader.as_ref().map(f)
    }

    /// A node named another one as the leader of the slot's shard.
    pub(crate) fn hint(&self, slot: Slot, leader: &str) {
        let Some(node) = self.node(leader) else { return };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let shard = usize::from(table.slots[usize::from(slot.get())]);
        if let Some(shard) = table.shards.get_mut(shard) {
            shard.lead(node);
        }
    }

    /// Resolves when a newer routing than now was learnt.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        let mut version = self.version.subscribe();
        version.borrow_and_update();
        version
    }

    /// Keeps the routing fresh for as long as the client lives.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.heard.wanted.notified() => {}
                () = tokio::time::sleep(limits::REFRESH_EVERY) => {}
            }
            for failures in 0.. {
                let Err(last) = self.refresh().await else { break };
                tracing::debug!(last, "no node answered with the routing");
                let began = Instant::now();
                let pause = self.chance.pause(limits::REFRESH_PAUSE, limits::REFRESH_FAILED_MAX, failures);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.heard.wanted.notified() => {
                        tokio::time::sleep_until(began + pause.min(limits::RECONNECT_MAX)).await;
                    }
                }
            }
            tokio::time::sleep(self.chance.pause(limits::REFRESH_PAUSE, 2 * limits::REFRESH_PAUSE, 1)).await;
        }
    }

    /// Asks some nodes at once and takes the first good answer.
    pub(crate) async fn refresh(&self) -> Result<(), String> {
        let mut addresses: Vec<String> = self.nodes().keys().cloned().collect();
        addresses.sort_unstable();
        for i in (1..addresses.len()).rev() {
            addresses.swap(i, (self.chance.draw() % (i as u64 + 1)) as usize);
        }
        // The addresses given at first come last: they may be other names of the same nodes.
        let seeds: Vec<String> = self.seeds.iter().filter(|seed| !addresses.contains(seed)).cloned().collect();
        addresses.extend(seeds);
        let mut last = "no address is known".to_owned();
        for group in addresses.chunks(limits::REFRESH_NODES) {
            let mut asked: FuturesUnordered<_> =
                group.iter().filter_map(|address| self.node(address)).map(ask_routing).collect();
            while let Some(answer) = asked.next().await {
                match answer.and_then(|routing| self.learn(routing)) {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    fn learn(&self, routing: v1::Routing) -> Result<(), String> {
        let wire = Arc::new(routing.clone());
        let routes = Wire::from_wire(routing).map_err(|error| format!("the routing is not valid: {error}"))?;
        if routes.shards.is_empty() || routes.nodes.is_empty() {
            return Err("the node is not a member of a cluster yet".into());
        }
        self.heard.clock.heard(routes.time);
        let known = self.wire();
        if known.incarnation == routes.incarnation && known.generation > routes.generation {
            return Err(format!("routing generation {} is older than {}", routes.generation, known.generation));
        }
        let nodes: HashMap<u64, Arc<Node>> =
            routes.nodes.iter().filter_map(|route| Some((route.node, self.node(&route.client)?))).collect();
        let mut slots = vec![NOWHERE; usize::from(core_limits::SLOTS)];
        let before = self.table.read().unwrap_or_else(PoisonError::into_inner).shards.clone();
        let mut shards = Vec::with_capacity(routes.shards.len());
        for (n, shard) in routes.shards.iter().enumerate() {
            for &(from, to) in &shard.slots {
                slots[usize::from(from.get())..=usize::from(to.get())].fill(n as u16);
            }
            let replicas = shard.replicas.iter().filter_map(|node| nodes.get(node).cloned()).collect();
            let mut known = Shard { leader: before.get(n).and_then(|shard| shard.leader.clone()), replicas };
            match shard.leader.and_then(|leader| nodes.get(&leader).cloned()) {
                Some(leader) => known.lead(leader),
                None => known.leader = None,
            }
            shards.push(known);
        }
        let mut all: Vec<_> = nodes.into_values().collect();
        all.sort_unstable_by(|a, b| a.address.cmp(&b.address));
        let keep: Vec<String> = all.iter().map(|node| node.address.clone()).collect();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Table { wire, slots: slots.into(), shards, all };
        // Nodes that are gone end with their last call.
        self.nodes().retain(|address, node| keep.contains(address) || Arc::strong_count(node) > 1);
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// The client takes no more calls: what goes on by itself ends.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }
    /// Waits until the client was closed or dropped.
    pub(crate) async fn until_closed(&self) {
        // This is the sender, so that it lives.
        drop(self.closed.subscribe().wait_for(|closed| *closed).await);
    }
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until no call is under way anywhere.
    pub(crate) async fn idle(&self) {
        let nodes: Vec<_> = self.nodes().values().cloned().collect();
        for node in nodes {
            node.idle().await;
        }
    }

    /// Ends all streams.
    pub(crate) fn shut(&self) {
        for node in self.nodes().values() {
            node.shut();
        }
    }
}

async fn ask_routing(node: Arc<Node>) -> Result<v1::Routing, String> {
    let mut rpc = node.rpc.clone();
    match tokio::time::timeout(limits::REFRESH_TIMEOUT, rpc.get_routing(v1::GetRoutingRequest {})).await {
        Ok(Ok(routing)) => {
            node.gate.answered();
            Ok(routing.into_inner())
        }
        Ok(Err(status)) => {
            node.gate.ended_with(&status);
            Err(format!("{}: {status}", node.address))
        }
        Err(_) => Err(format!("{} did not answer in time", node.address)),
    }
}
