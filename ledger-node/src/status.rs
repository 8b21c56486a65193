//! What operators and clients are told about the node: status, routing, digests, and the two things they may ask for.
//!
//! **Owns** the picture in the wire's words. **Must never** wait for a lock that an await holds, or guess.
//! **Read next**: [`crate::node`].

use std::time::Duration;

use ledger_core::types::LedgerTime;
use ledger_proto::v1;
use ledger_raft::{MissingVoter, NodeId, Role};

use crate::feed::distance::WatchDistance;
use crate::limits;
use crate::meta::{META_GROUP, MemberEntry, Placement};
use crate::node::{AdminError, Node, lock};
use crate::readiness;
use crate::shard::Shard;

impl Node {
    /// Placement, leaders and addresses as known here.
    pub fn routing(&self) -> v1::Routing {
        let (cluster, incarnation) = self.cluster().unwrap_or_default();
        let newest =
            self.shards().iter().map(|shard| shard.state().applied.borrow().time).max().unwrap_or(LedgerTime(0));
        let mut routing = v1::Routing {
            cluster: if incarnation == 0 { Vec::new().into() } else { cluster.to_vec().into() },
            incarnation,
            time_ms: newest.0,
            ..v1::Routing::default()
        };
        let Some(placement) = self.placement() else { return routing };
        routing.generation = placement.generation;
        routing.shards = placement
            .shards
            .iter()
            .map(|shard| v1::ShardRoute {
                shard: shard.shard,
                slots: ranges(&shard.slots),
                leader: self.leader_of(shard.shard).map_or(0, |leader| leader.0),
                replicas: shard.replicas.clone(),
            })
            .collect();
        let route = |m: &MemberEntry| v1::NodeRoute { node: m.node, client: m.client.clone(), http: m.http.clone() };
        routing.nodes = placement.members.iter().map(route).collect();
        routing
    }

    /// Admin.NodeStatus.
    pub fn status(&self) -> v1::NodeStatusResponse {
        let running = self.running();
        let placement = self.placement();
        // A simulation is one process for all its nodes, and a run must depend on its seed alone.
        let simulated = self.seams().raft.disk.inline();
        let (cpu_ms, rss_bytes) = if simulated { (0, 0) } else { process_use() };
        let meta = running.as_ref().map(|running| running.meta().status()).unwrap_or_default();
        v1::NodeStatusResponse {
            meta_apply_halted: meta.apply_halted.unwrap_or_default(),
            meta_entries_refused: meta.entries_refused,
            wall_ms: self.seams().raft.clock.now_ms(),
            meta_clock_jump_ms: meta.clock_jump_ms,
            meta_clock_quorum_ms: running.as_ref().and_then(|running| running.meta().quorum_clock_ms()),
            node: self.node_id().map_or(0, |node| node.0),
            cluster: running.as_ref().map(|r| r.stamp().cluster.to_vec()).unwrap_or_default().into(),
            incarnation: running.as_ref().map_or(0, |r| r.stamp().incarnation),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state().name().to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            shards: self.shards().iter().map(|shard| shard_status(self, shard, placement.as_deref())).collect(),
            members: self.members().iter().map(member).collect(),
            wal_syncs: running.as_ref().map_or(0, |r| r.raft.wal_syncs()),
            disk_free_bytes: self.disk_free_bytes(),
            cpu_ms,
            rss_bytes,
            history_fits_ms: running.as_ref().map_or(0, |running| running.history.fits_ms()),
            log: running.as_ref().map(|r| log_usage(&r.raft.wal_usage())),
            behaviour_max: ledger_core::limits::BEHAVIOUR_VERSION_MAX.into(),
            waiting_for: self.waiting_for().unwrap_or_default(),
            failed_checks: readiness::checks(self).into_iter().filter_map(failed_check).collect(),
            unrepaired: running.as_ref().map(|r| unrepaired(&r.raft)).unwrap_or_default(),
            audit: self.audits().progress(),
        }
    }

    /// Bytes that are free where the log lies; none when that cannot be asked.
    pub(crate) fn disk_free_bytes(&self) -> u64 {
        let free = lock(&self.dir).as_ref().and_then(|dir| self.seams().raft.disk.free_bytes(dir.path()).ok());
        free.unwrap_or(0)
    }

    /// Admin.Digests.
    pub fn digests(&self) -> v1::DigestsResponse {
        let of = |shard: &std::sync::Arc<Shard>| {
            let id = shard.id();
            let digests = shard.with_ledger(|ledger| ledger.digests());
            digests.into_iter().map(move |digest| v1::digests_response::One {
                shard: id,
                index: digest.index,
                value: digest.value.to_be_bytes().to_vec().into(),
            })
        };
        v1::DigestsResponse { digests: self.shards().iter().flat_map(of).collect() }
    }

    /// Admin.TransferLeader.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn transfer_leader(&self, request: v1::TransferLeaderRequest) -> Result<(), AdminError> {
        let shard = self.shard_here(request.shard)?;
        let status = shard.status();
        if status.role != Role::Leader {
            let leader = status.leader.map_or("nobody just now".to_owned(), |leader| format!("node {}", leader.0));
            return Err(AdminError::Refused(format!("this node does not lead shard {}; {leader} does", request.shard)));
        }
        let to = NodeId(request.to);
        if !status.voters.contains_key(&to) {
            return Err(AdminError::Invalid(format!(
                "node {} keeps no replica of shard {}",
                request.to, request.shard
            )));
        }
        let group = shard.group();
        group.transfer_leader(to, limits::TRANSFER_WITHIN).await.map_err(|e| AdminError::NotNow(e.to_string()))
    }

    /// Admin.Snapshot: the index of the new snapshot.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn snapshot(&self, shard: u32) -> Result<u64, AdminError> {
        let group = self.shard_here(shard)?.group();
        // The disk, or a replica that is stopped: the operator's command is right, and may be repeated.
        let not_now = |why| AdminError::NotNow(format!("no snapshot of shard {shard} was taken on this node: {why}"));
        group.snapshot_now().await.map_err(not_now)
    }

    /// Admin.AcceptClock: for one group, or the meta group and each shard here. A shard that is not here is no error: an operator's
    /// command goes to all nodes.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn accept_clock(&self, request: &v1::AcceptClockRequest) -> Result<(), AdminError> {
        let Some(running) = self.running() else {
            return Err(AdminError::NotNow("this node is not part of a cluster yet, or is stopping".into()));
        };
        let ledger_ms = request.ledger_ms;
        let is_asked = |group: u32| request.shard.is_none_or(|asked| asked == group);
        if is_asked(META_GROUP.0) {
            running.meta().accept_clock(ledger_ms);
        }
        let shards = self.shards();
        shards.iter().filter(|shard| is_asked(shard.id())).for_each(|shard| shard.group().accept_clock(ledger_ms));
        tracing::warn!(ledger_ms, shard = request.shard, "an operator accepts that ledger time goes on from here");
        Ok(())
    }

    fn shard_here(&self, shard: u32) -> Result<std::sync::Arc<Shard>, AdminError> {
        self.shard(shard).ok_or_else(|| AdminError::NotFound(format!("this node keeps no replica of shard {shard}")))
    }
}

fn shard_status(node: &Node, shard: &Shard, placement: Option<&Placement>) -> v1::ShardStatus {
    let status = shard.status();
    let slots = placement.and_then(|p| p.shards.iter().find(|s| s.shard == shard.id())).map(|s| ranges(&s.slots));
    let (time, sums) = shard.with_ledger(|ledger| (ledger.time(), ledger.totals()));
    let kept = shard.history().coverage(shard.id());
    v1::ShardStatus {
        shard: shard.id(),
        slots: slots.unwrap_or_default(),
        role: role(status.role).to_owned(),
        term: status.term,
        leader: status.leader.map_or(0, |leader| leader.0),
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        purged_index: status.purged_index,
        matched: status.matched.iter().map(|(node, index)| (node.0, *index)).collect(),
        clock_sure: status.clock_sure,
        clock_ahead_ms: status.clock_ahead_ms,
        clock_jump_ms: status.clock_jump_ms,
        clock_quorum_ms: shard.group().quorum_clock_ms(),
        stopped: status.stopped.unwrap_or_default(),
        time_ms: time.0,
        totals: Some(totals(&sums)),
        history_index: kept.written,
        history_gapped: kept.is_gapped(),
        history_kept_ms: kept.kept_ms,
        history_oldest: kept.oldest,
        watch_history_left_ms: WatchDistance::of(shard.feed(), &kept).map(|distance| distance.left_ms),
        diverged: node.digest_counts.diverged(shard),
        apply_halted: status.apply_halted.unwrap_or_default(),
        entries_refused: status.entries_refused,
        snapshot_failure: status.snapshot_failure.unwrap_or_default(),
        leader_heard_ms: status.leader_heard_ms,
        age_ms: status.quorum_age_ms,
        no_quorum_for_ms: status.no_quorum.as_ref().map(|lost| lost.for_ms),
        missing: status.no_quorum.into_iter().flat_map(|lost| lost.missing).map(missing_replica).collect(),
    }
}

/// Groups whose replica here neither votes nor leads.
fn unrepaired(raft: &ledger_raft::RaftNode) -> Vec<u32> {
    raft.wholeness().into_iter().filter(|(_, whole)| !whole).map(|(group, _)| group.0).collect()
}

fn missing_replica(missing: MissingVoter) -> v1::MissingReplica {
    v1::MissingReplica { node: missing.node.0, why: missing.why, for_ms: missing.for_ms }
}

fn failed_check(check: readiness::Check) -> Option<v1::FailedCheck> {
    let readiness::Check { name, failed, counts } = check;
    Some(v1::FailedCheck { name, why: failed?, warning: !counts })
}

fn log_usage(usage: &ledger_raft::wal::WalUsage) -> v1::LogUsage {
    v1::LogUsage {
        bytes: usage.bytes,
        live_bytes: usage.live_bytes,
        bytes_max: usage.bytes_max(),
        carried_bytes: usage.carried_bytes,
        pinning_group: usage.pinning.map(|group| group.0),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

fn ranges(slots: &[(u16, u16)]) -> Vec<v1::SlotRange> {
    slots.iter().map(|&(from, to)| v1::SlotRange { from: from.into(), to: to.into() }).collect()
}

pub(crate) fn member(m: &MemberEntry) -> v1::Member {
    v1::Member {
        node: m.node,
        client: m.client.clone(),
        peer: m.peer.clone(),
        http: m.http.clone(),
        ..v1::Member::default()
    }
}

/// Sums of units are wider here than on the wire: there they stop at the largest number that it has (docs/semantics.md).
pub(crate) fn totals(t: &ledger_core::view::Totals) -> v1::Totals {
    let units = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    let adjusted = i64::try_from(t.adjusted).unwrap_or(if t.adjusted < 0 { i64::MIN } else { i64::MAX });
    v1::Totals {
        products: t.products,
        offers: t.offers,
        received: units(t.received),
        adjusted,
        returned: units(t.returned),
        balance: Some(v1::Balance {
            available: units(t.units.available),
            held: units(t.units.held),
            sold: units(t.units.sold),
        }),
        live: t.live,
        sold: t.sold,
        remembered: t.remembered,
        limit_counts: t.limit_counts,
    }
}

/// CPU milliseconds and resident bytes of this process, where the system tells.
fn process_use() -> (u64, u64) {
    let clock_ticks = Duration::from_millis(10); // USER_HZ is 100 on every Linux
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| after_name.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let cpu = (field(11) + field(12)) * clock_ticks.as_millis() as u64;
    let status = read("/proc/self/status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = rss.and_then(|v| v.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    (cpu, kilobytes * 1024)
}
