//! Follows the meta group's intent: starts what should run here, idempotently.
//!
//! **What it is.** One task a node. Each step looks at the placement and at what runs, and does what is missing; a step done twice, or after a
//! crash in its middle, does no harm. **Owns** the start of groups and their tasks, the first membership of each group, the
//! shard table. **Must never** decide placement on its own, except to propose what `cluster init` asked for.
//! **Read next**: [`crate::steward`] (what a leader owes its shard), [`crate::digest`], [`crate::balance`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use ledger_core::IndexSeed;
use ledger_raft::{GroupId, NoQuorum, NodeId, Role};
use tokio::time::Instant;

use crate::door::Pump;
use crate::feed::distance::WatchDistance;
use crate::history::backfill;
use crate::limits;
use crate::memory::ReplicaMemory;
use crate::meta::{self, MemberEntry, MetaCommand, Placed, Placement, Settings, ShardPlacement};
use crate::node::{Node, NodeState, Running, ShardTable, lock};
use crate::peers::Question;
use crate::placement::plan;
use crate::shard::{Shard, ShardState};
use crate::{digest, elsewhere, steward};

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>, running: Arc<Running>) {
    let mut placement = node.placement.subscribe();
    let mut initialised = BTreeSet::new();
    let mut log = WaitingLog::default();
    loop {
        let step = step(&node, &running, &mut initialised).await;
        log.note(&node, waits_for(&node, &running, step));
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = placement.changed() => {}
            () = node.kick.notified() => {}
            () = tokio::time::sleep(limits::RECONCILE_EVERY) => {}
        }
    }
}

/// What the node waits for after a step, and whether that is worth a line in the log.
fn waits_for(node: &Node, running: &Running, step: io::Result<()>) -> Option<(String, bool)> {
    if let Err(error) = step {
        return Some((error.to_string(), true));
    }
    let meta = running.meta().status();
    if node.placement().is_some() {
        let alone = meta.no_quorum.filter(|lost| lost.missing.len() + 1 >= meta.voters.len());
        return alone.map(|lost| (lost_quorum(&lost), true));
    }
    Some(match (meta.stopped, &meta.no_quorum, meta.leader) {
        (Some(why), ..) => (format!("the meta group, whose replica here is stopped: {why}"), true),
        (None, Some(lost), _) => (lost_quorum(lost), true),
        (None, None, Some(leader)) => {
            (format!("the placement, from the meta group's leader, node {}", leader.0), false)
        }
        (None, None, None) => ("the first election in the meta group".to_owned(), false),
    })
}

fn lost_quorum(lost: &NoQuorum) -> String {
    let hint = "hint: where all nodes have new addresses, start each with peer.hints naming those of the others";
    format!("a quorum of the meta group: {}; {hint}", lost.who())
}

/// What was logged of what the node waits for.
#[derive(Default)]
struct WaitingLog(Option<(String, Instant)>);

impl WaitingLog {
    fn note(&mut self, node: &Node, waits: Option<(String, bool)>) {
        let now = Instant::now();
        let is_new = |what: &str| {
            self.0.as_ref().is_none_or(|(before, at)| before != what || now - *at >= limits::WAITING_LOGGED_EVERY)
        };
        match &waits {
            Some((what, true)) if is_new(what) => {
                tracing::warn!(waiting_for = %what, "the node does not yet run what the placement asks for; trying again");
                self.0 = Some((what.clone(), now));
            }
            Some(_) => {}
            None => self.0 = None,
        }
        node.wait_for(waits.map(|(what, _)| what));
    }
}

async fn step(node: &Arc<Node>, running: &Running, initialised: &mut BTreeSet<u32>) -> io::Result<()> {
    begin_meta(node, running, initialised).await?;
    node.tell_addresses(running).await;
    let Some(placement) = node.placement() else {
        return propose_first(node, running).await;
    };
    let me = running.stamp().node;
    for member in &placement.members {
        running.with_stamp(|stamp| {
            if let Some(peer) = stamp.peer(member) {
                running.raft.know_peer(NodeId(member.node), &peer);
            }
        });
    }
    // One shard that cannot be started or begun holds back none of the others.
    let mut failed = Ok(());
    for (wanted, done) in run_shards(node, running, &placement, initialised).await {
        match &done {
            Ok(()) => drop(lock(&node.not_run).remove(&wanted.shard)),
            Err(why) => drop(lock(&node.not_run).insert(wanted.shard, why.to_string())),
        }
        failed = failed.and(done.map_err(|e| io::Error::new(e.kind(), format!("shard {}: {e}", wanted.shard))));
    }
    refresh_table(node, &placement);
    node.set_state(NodeState::Serving);
    elsewhere::ask(node, &placement, me).await;
    // It is written down again at the next step; nothing here waits for it.
    if let Err(error) = note_begun(node, running, &placement).await {
        tracing::debug!(%error, "which shards have begun is not written down yet");
    }
    let here = placement.shards.iter().filter(|shard| shard.replicas.contains(&me)).map(|shard| GroupId(shard.shard));
    let all: Vec<GroupId> = here.chain([meta::META_GROUP]).collect();
    failed = failed.and(running.raft.has_all_of(&all).await);
    failed.and(keep_addresses(node, running, &placement).await)
}

/// Starts the replicas that are to run here, and begins their groups where that is this node's to do:
/// all at once, since each waits for what other nodes remember of it.
async fn run_shards<'a>(
    node: &Arc<Node>,
    running: &Running,
    placement: &'a Placement,
    initialised: &mut BTreeSet<u32>,
) -> Vec<(&'a ShardPlacement, io::Result<()>)> {
    let me = running.stamp().node;
    let mut started = Vec::new();
    for wanted in placement.shards.iter().filter(|shard| shard.replicas.contains(&me)) {
        let done = match node.shard(wanted.shard) {
            Some(_) => Ok(()),
            None => start_shard(node, running, wanted.shard, &founders(placement, wanted)).await,
        };
        started.push((wanted, done));
    }
    let known = &*initialised;
    let begun = started.into_iter().map(|(wanted, done)| async move {
        // Exactly one node begins a group, and once: two first memberships would be two groups.
        let begins = wanted.replicas.first() == Some(&me) && !known.contains(&wanted.shard);
        let settled = match done {
            Ok(()) if begins => begin_shard(node, running, placement, wanted).await,
            done => done.map(|()| false),
        };
        (wanted, settled)
    });
    let begun = futures::future::join_all(begun).await;
    let settled = begun.iter().filter(|(_, settled)| matches!(settled, Ok(true))).map(|(wanted, _)| wanted.shard);
    initialised.extend(settled);
    begun.into_iter().map(|(wanted, settled)| (wanted, settled.map(drop))).collect()
}

/// Puts the members' addresses into the membership of each group led here.
async fn keep_addresses(node: &Node, running: &Running, placement: &Placement) -> io::Result<()> {
    let addresses = placement.members.iter().map(voter).collect();
    let shards = node.shards();
    let groups = shards.iter().map(|shard| shard.group()).chain([running.meta()]);
    let each = groups.map(|group| {
        let addresses = &addresses;
        async move { group.set_addresses(addresses, limits::OWN_COMMAND_WITHIN).await }
    });
    futures::future::join_all(each).await.into_iter().collect()
}

/// The initiator makes all members voters of the meta group, once.
async fn begin_meta(node: &Node, running: &Running, initialised: &mut BTreeSet<u32>) -> io::Result<()> {
    let number = meta::META_GROUP.0;
    let stamp = running.stamp();
    if !stamp.initiator || initialised.contains(&number) || lock_joining(node) {
        return Ok(());
    }
    // A damaged replica had members, and has forgotten them.
    if running.meta().status().stopped.is_some() {
        return Ok(());
    }
    if !running.meta().is_initialized().await {
        running.meta().initialize(stamp.members.iter().map(voter).collect()).await?;
    }
    initialised.insert(number);
    Ok(())
}

/// While init still asks the other nodes to join, an election could only fail.
fn lock_joining(node: &Node) -> bool {
    node.joining.try_lock().is_err()
}

/// The meta group's leader proposes the placement that `cluster init` asked for. Everybody carries it in the stamp, so that
/// whoever wins the first election can.
async fn propose_first(node: &Node, running: &Running) -> io::Result<()> {
    if running.meta().status().role != Role::Leader {
        return Ok(());
    }
    let stamp = running.stamp();
    let first = plan(&stamp.members, stamp.shards, stamp.replicas);
    let placed: usize = first.shards.iter().map(|shard| shard.replicas.len()).sum();
    let replicas_of_a_node = placed.div_ceil(first.members.len().max(1));
    let found = MetaCommand::Found { members: first.members, shards: first.shards };
    let proposal = running.meta().propose(meta::encode(&found).map_err(io::Error::other)?);
    let committed = tokio::time::timeout(limits::OWN_COMMAND_WITHIN, proposal).await?.map_err(io::Error::other)?;
    if let Ok(placed) = committed.reply.downcast::<Placed>() {
        if placed.taken {
            set_remembered_max(node, running, placed.generation, replicas_of_a_node).await?;
        } else {
            tracing::info!(generation = placed.generation, "a placement is in force already");
        }
    }
    node.kick.notify_one();
    Ok(())
}

/// A new cluster remembers as many ids as its nodes' memory has room for, if that is fewer than usual. It is decided once, by the memory of the
/// node that leads: operators see it, and change it, as any other setting.
async fn set_remembered_max(node: &Node, running: &Running, generation: u64, replicas: usize) -> io::Result<()> {
    let usual = Settings::default();
    let remembered_max = node.memory.remembered_max(replicas);
    if remembered_max >= usual.remembered_max {
        return Ok(());
    }
    let set = MetaCommand::SetSettings { generation, settings: Settings { remembered_max, ..usual } };
    let proposal = running.meta().propose(meta::encode(&set).map_err(io::Error::other)?);
    tokio::time::timeout(limits::OWN_COMMAND_WITHIN, proposal).await?.map_err(io::Error::other)?;
    tracing::info!(
        remembered_max,
        "shards remember as many ids as memory has room for; ledgerctl cluster settings set changes it"
    );
    Ok(())
}

pub(crate) fn voter(member: &MemberEntry) -> (NodeId, String) {
    (NodeId(member.node), member.peer.clone())
}

/// The first voters of a shard.
fn founders(placement: &Placement, wanted: &ShardPlacement) -> BTreeMap<NodeId, String> {
    wanted.replicas.iter().filter_map(|&n| placement.member(n)).map(voter).collect()
}

/// Begins the group of a shard, unless it was begun before: the replicas of a later placement, or one
/// that forgot, get it from those that have it. Answers whether that is settled; a replica that is
/// stopped, or a placement that is old, says nothing yet.
async fn begin_shard(
    node: &Node,
    running: &Running,
    placement: &Placement,
    wanted: &ShardPlacement,
) -> io::Result<bool> {
    let Some(group) = running.raft.group(GroupId(wanted.shard)) else { return Ok(false) };
    if group.status().stopped.is_some() {
        return Ok(false);
    }
    if group.is_initialized().await {
        return Ok(true);
    }
    if ledger_core::bad!("shard-begun-twice") {
        return group.initialize(founders(placement, wanted)).await.map(|()| true);
    }
    if placement.begun.contains(&wanted.shard) {
        return Ok(true);
    }
    // What this node knows of the placement may be old.
    let now = node.placement_now(running, limits::OWN_COMMAND_WITHIN).await.map_err(io::Error::other)?;
    if now.begun.contains(&wanted.shard) {
        return Ok(true);
    }
    if !now.shards.contains(wanted) {
        return Ok(false);
    }
    group.initialize(founders(&now, wanted)).await.map(|()| true)
}

/// The leader of the meta group writes down which shards have begun: those that have members here, or
/// a leader elsewhere. So do clusters that were made before this was written down.
async fn note_begun(node: &Node, running: &Running, placement: &Placement) -> io::Result<()> {
    if running.meta().status().role != Role::Leader {
        return Ok(());
    }
    let mut begun = BTreeSet::new();
    for shard in placement.shards.iter().map(|shard| shard.shard).filter(|shard| !placement.begun.contains(shard)) {
        let here = running.raft.group(GroupId(shard)).filter(|group| group.status().stopped.is_none());
        let has_members = match here {
            Some(group) => group.is_initialized().await,
            None => false,
        };
        if has_members || node.leader_of(shard).is_some() {
            begun.insert(shard);
        }
    }
    if begun.is_empty() {
        return Ok(());
    }
    let command = meta::encode(&MetaCommand::Begun { shards: begun }).map_err(io::Error::other)?;
    let proposal = running.meta().propose(command);
    tokio::time::timeout(limits::OWN_COMMAND_WITHIN, proposal).await?.map_err(io::Error::other)?;
    Ok(())
}

async fn start_shard(
    node: &Arc<Node>,
    running: &Running,
    id: u32,
    founders: &BTreeMap<NodeId, String>,
) -> io::Result<()> {
    let sabotage = node.seams().sabotage.clone();
    #[cfg(holdfast_known_bad)]
    let sabotage = crate::shard::machine::by_wall_clock(node.seams().raft.clock.clone(), sabotage);
    let drawn = [node.seams().raft.random.next_u64(), node.seams().raft.random.next_u64()];
    let seed = IndexSeed(u128::from(drawn[0]) << 64 | u128::from(drawn[1]));
    let memory = ReplicaMemory::new(&node.memory, id);
    let state = ShardState::new(id, running.stamp().incarnation, seed, running.history.clone(), sabotage, memory);
    let group = running.raft.start_group(GroupId(id), founders, node.machine(state.clone())).await?;
    let shard = Shard::new(state, node.door_bounds(), group);
    let mut shards = node.shards();
    shards.push(shard.clone());
    node.set_table(ShardTable::new(node.placement().as_deref(), shards));
    spawn_tasks(node, &shard);
    Ok(())
}

/// Starts what serves one replica: the door's pump, the steward, the purge's hold.
pub(crate) fn spawn_tasks(node: &Arc<Node>, shard: &Arc<Shard>) {
    let stop = shard.tasks_stop();
    let known = Arc::downgrade(node);
    let address_of = Arc::new(move |id: NodeId| known.upgrade()?.client_addr_of(id));
    let pump = Pump::new(shard.door().clone(), shard.group(), address_of);
    node.tasks.spawn(pump.run(stop.clone()));
    node.tasks.spawn(steward::run(node.clone(), shard.clone(), stop.clone()));
    node.tasks.spawn(keep_history(node.clone(), shard.clone(), stop));
}

/// Holds back the purge of the log until history has it (up to a named backlog), and fills history's gaps from peers.
async fn keep_history(node: Arc<Node>, shard: Arc<Shard>, stop: tokio_util::sync::CancellationToken) {
    let mut turn = 0;
    let mut refusals = backfill::Refusals::default();
    let mut near_logged: Option<tokio::time::Instant> = None;
    loop {
        let kept = shard.history().coverage(shard.id());
        let applied = shard.state().applied.borrow().position.index;
        let patience = applied.saturating_sub(limits::HISTORY_BACKLOG_ENTRIES_MAX);
        shard.group().hold_purge_above(kept.durable.max(patience));
        if let Some(why) = WatchDistance::of(shard.feed(), &kept).and_then(|distance| distance.warning())
            && near_logged.is_none_or(|logged| logged.elapsed() >= limits::WATCH_NEAR_LOGGED_EVERY)
        {
            tracing::warn!(shard = shard.id(), why, "a watch may be cut off by retention");
            near_logged = Some(tokio::time::Instant::now());
        }
        // A store that could not be opened takes nothing, and may hold what seems to be missing.
        if kept.is_gapped() && !kept.unopened {
            backfill_once(&node, &shard, turn, &mut refusals).await;
            turn += 1;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(limits::BACKFILL_EVERY) => {}
        }
    }
}

/// Asks one peer for what history misses; peers take turns. What all of them lost is given up, so that readers are told that it is gone.
async fn backfill_once(node: &Arc<Node>, shard: &Shard, turn: usize, refusals: &mut backfill::Refusals<NodeId>) {
    let (id, history) = (shard.id(), shard.history());
    let me = node.node_id();
    let voters: Vec<NodeId> = shard.status().voters.into_keys().collect();
    let others: Vec<NodeId> = voters.iter().copied().filter(|id| Some(*id) != me).collect();
    let Some(&peer) = others.get(turn % others.len().max(1)) else {
        // The only replica there is: what it misses is lost.
        let first = history.coverage(id).gaps.into_iter().next().filter(|_| voters.len() == 1);
        if let Some(gap) = first {
            give_up(shard, gap.through + 1);
        }
        return;
    };
    let ask = |ask| {
        let node = node.clone();
        async move { node.ask(peer, &Question::History(ask)).await }
    };
    match backfill::fill_from(history, id, ask).await {
        Ok(filled) => {
            let kept = history.coverage(id);
            let Some(gap) = kept.gaps.first() else { return };
            if let Some(oldest) = refusals.take(kept.wanted, peer, &filled, &others) {
                give_up(shard, oldest.min(gap.through + 1));
            }
        }
        Err(error) => {
            tracing::info!(shard = id, peer = peer.0, %error, "history could not be filled from this peer");
        }
    }
}

fn give_up(shard: &Shard, oldest: u64) {
    tracing::warn!(
        shard = shard.id(),
        oldest,
        "no replica keeps all of history before this index: it is given up, and older cursors are too old"
    );
    shard.history().give_up_below(shard.id(), oldest);
}

/// Puts the table in line with the placement, if it is not.
fn refresh_table(node: &Node, placement: &Placement) {
    let table = node.table();
    let owner = |slot: u16| ledger_core::Slot::new(slot).ok().and_then(|slot| table.shard_id_for_slot(slot));
    let in_line = placement.shards.iter().all(|shard| {
        shard.slots.iter().all(|&(from, to)| owner(from) == Some(shard.shard) && owner(to) == Some(shard.shard))
    });
    if !in_line {
        node.set_table(ShardTable::new(Some(placement), table.shards().to_vec()));
    }
}

/// Replicas that came up stopped (quarantined before the restart, or damaged) are repaired by the
/// digest task. Those that wait for another build are not: a peer has the same to give.
pub(crate) fn stopped_replicas(node: &Node) -> Vec<Arc<Shard>> {
    let is_stopped = |shard: &Shard| {
        let status = shard.status();
        status.stopped.is_some() && !status.awaits_build
    };
    node.shards().into_iter().filter(|shard| is_stopped(shard) && !digest::repairing(shard)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ledger_proto::v1;

    use super::*;
    use crate::config::{NodeConfig, Port};
    use crate::history::MemoryHistory;
    use crate::node::NodeSeams;
    use crate::serve::{RunningNode, serve};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A cluster of one node, with one shard.
    async fn alone() -> RunningNode {
        let open = || Port { listen: "127.0.0.1:0".to_owned(), advertise: None };
        let mut config = NodeConfig {
            data_dir: "/data".into(),
            client: open(),
            http: open(),
            peer: open(),
            ..NodeConfig::default()
        };
        config.raft.segment_bytes = 4 << 20;
        config.raft.low_space_bytes = 0;
        let disk = Arc::new(ledger_raft::disk::SimDisk::new(1));
        let raft = ledger_raft::seam::Seams::with_disk(disk);
        let running = serve(config, NodeSeams::new(raft, Arc::new(MemoryHistory::default()))).await.expect("started");
        let member = v1::Member { node: 1, client: running.client_addr().to_string(), ..v1::Member::default() };
        let request = v1::InitRequest { members: vec![member], shards: 1, replicas: 1 };
        running.node().init(request).await.expect("a cluster");
        running
    }

    /// Replicas that a later placement names are empty, and would be a second group.
    #[tokio::test]
    async fn an_empty_replica_of_a_shard_that_has_begun_begins_no_second_group() {
        let node = alone().await;
        let mut placed = node.node().placement.subscribe();
        let written = placed.wait_for(|p| p.as_ref().is_some_and(|p| p.begun.contains(&1)));
        let placement = tokio::time::timeout(PATIENCE, written).await.expect("written down").expect("it lives").clone();
        let mut placement = placement.as_deref().expect("a placement").clone();
        // Shard 2 lived elsewhere until now; shard 3 is new.
        placement.begun.insert(2);
        for shard in [2, 3] {
            placement.shards.push(ShardPlacement { shard, slots: Vec::new(), replicas: vec![1] });
        }
        node.node().placement.send_replace(Some(Arc::new(placement)));
        let mut written = node.node().placement.subscribe();
        // Shards are looked at in order: by the time that shard 3 leads, shard 2 was not begun.
        let led = async {
            loop {
                if let Some(new) = node.node().shard(3).filter(|shard| shard.leads()) {
                    return new;
                }
                let _moved = tokio::time::timeout(Duration::from_millis(20), written.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, led).await.expect("a new shard is begun");
        let moved = node.node().shard(2).expect("it runs here");
        assert!(!moved.group().is_initialized().await, "{:?}", moved.status());
        node.shutdown(Duration::from_secs(1)).await;
    }
}
