//! What *ready* means.
//!
//! **What it is.** A list of conditions, each about now: the node is part of a cluster, each
//! replica that it is to have runs, hears its leader and is current, and the log may be written.
//! **Owns** that list, for `/readyz` and `ledgerctl status`. **Must never** take what was so some
//! time ago for what is so, or wait for the ledger: a probe costs it no time.
//! **Read next**: [`crate::http::health`].

use std::time::Duration;

use ledger_raft::{GroupStatus, RaftTuning, Role, Twin};

use crate::feed::distance::WatchDistance;
use crate::limits::READY_AGE_MAX;
use crate::node::{Node, NodeState, lock};
use crate::shard::Shard;

/// One condition of readiness.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// Why it does not hold, if it does not.
    pub(crate) failed: Option<String>,
    /// Whether a failure makes the node not ready, or is only reported.
    pub(crate) counts: bool,
}

fn check(name: impl Into<String>, failed: Option<String>) -> Check {
    Check { name: name.into(), failed, counts: true }
}

fn warning(name: impl Into<String>, failed: Option<String>) -> Check {
    Check { counts: false, ..check(name, failed) }
}

/// All conditions.
pub(crate) fn checks(node: &Node) -> Vec<Check> {
    let mut out = vec![serving(node)];
    let (free, low) = (node.disk_free_bytes(), node.config().raft.low_space_bytes);
    out.push(check("log-space", (free <= low).then(|| format!("{free} bytes are free, writes need {low}"))));
    let tuning = &node.config().raft;
    if let Some(meta) = node.running().map(|running| running.meta().status()) {
        // The shards go on without the meta group; nothing of members, shards and settings changes
        // then.
        out.push(warning("meta-leader", unheard(&meta, tuning)));
        out.push(warning("meta-clock", jumped(&meta)));
        out.push(check("meta-replica", meta.stopped));
        out.push(check("meta-apply", meta.apply_halted));
        out.push(refused_entries("meta-entries".to_owned(), meta.entries_refused));
    }
    for twin in node.running().map(|running| running.raft.twins()).unwrap_or_default() {
        out.push(warning(format!("node-{}-process", twin.node.0), Some(two_processes(&twin))));
    }
    for shard in node.shards() {
        shard_checks(&shard, tuning, &mut out);
    }
    out.extend(not_running(node));
    out
}

fn serving(node: &Node) -> Check {
    let state = match node.state() {
        NodeState::Starting => "starting",
        NodeState::Uninitialised => "not part of a cluster yet",
        NodeState::Stopping => "stopping",
        NodeState::Serving => return check("serving", None),
    };
    let waits = node.waiting_for().map(|what| format!(", and waits for {what}")).unwrap_or_default();
    check("serving", Some(format!("the node is {state}{waits}")))
}

fn two_processes(twin: &Twin) -> String {
    let Twin { node, newer, older } = twin;
    format!(
        "two live processes are node {} on the same disk id, run {} at {} and run {} at {}: stop one of them",
        node.0, newer.0, newer.1, older.0, older.1
    )
}

/// Replicas that are to run here and do not: the node serves its other shards meanwhile.
fn not_running(node: &Node) -> Vec<Check> {
    let (Some(me), Some(placement)) = (node.node_id(), node.placement()) else { return Vec::new() };
    let here = placement.shards.iter().filter(|shard| shard.replicas.contains(&me.0));
    let missing = here.filter(|wanted| node.shard(wanted.shard).is_none());
    let why = lock(&node.not_run);
    let one = |shard: u32| match why.get(&shard) {
        Some(why) => format!("it does not run here: {why}"),
        None => "it does not run here yet".to_owned(),
    };
    missing.map(|s| check(format!("shard-{}-replica", s.shard), Some(one(s.shard)))).collect()
}

/// An alarm that makes the node no less ready.
fn refused_entries(name: String, count: u64) -> Check {
    let why = format!("{count} log entries could not be decoded and were refused as a whole since the start");
    warning(name, (count > 0).then_some(why))
}

/// Why a group counts as having no leader now: the one that is remembered may be long gone.
fn unheard(status: &GroupStatus, tuning: &RaftTuning) -> Option<String> {
    let heard = status.leader_heard_ms.map(Duration::from_millis);
    if heard.is_some_and(|heard| heard <= tuning.leader_heard_within()) {
        return status.leader.is_none().then(|| "no leader is known".to_owned());
    }
    Some(match (&status.no_quorum, heard, status.role) {
        (Some(why), ..) => why.to_string(),
        (None, None, _) if status.awaits_voters => {
            "no leader was heard since the start, and no majority of the voters has answered yet what it remembers of \
             this replica"
                .to_owned()
        }
        (None, None, _) => "no leader was heard since the start".to_owned(),
        (None, Some(heard), Role::Leader) => format!("no quorum has acknowledged this leader for {heard:?}"),
        (None, Some(heard), _) => format!("the leader was last heard {heard:?} ago"),
    })
}

/// Why a replica counts as behind: one that lags without end gets older, however far it lags.
fn outdated(status: &GroupStatus) -> Option<String> {
    let (applied, committed) = (status.applied_index, status.committed_index);
    let lag = format!("applied {applied} of {committed} entries known to be committed");
    match status.quorum_age_ms {
        Some(age) if u128::from(age) <= READY_AGE_MAX.as_millis() => None,
        Some(age) => Some(format!("the replica was last current {:?} ago: {lag}", Duration::from_millis(age))),
        None => Some(format!("the replica does not know yet how current it is: {lag}")),
    }
}

/// Why nothing is stamped, when the quorum's clocks jumped.
fn jumped(status: &GroupStatus) -> Option<String> {
    let by = Duration::from_millis(status.clock_jump_ms?);
    Some(format!(
        "the clocks of a quorum are {by:?} further ahead than the time that has passed; set them right, or accept: \
         ledgerctl cluster clock accept"
    ))
}

/// Why ledger time counts as ahead of the clocks: holds end, and sales begin, by ledger time.
fn ahead(status: &GroupStatus, tuning: &RaftTuning) -> Option<String> {
    let ahead = Duration::from_millis(status.clock_ahead_ms);
    (ahead > tuning.clock_bound).then(|| format!("ledger time is {ahead:?} ahead of the quorum's clocks"))
}

/// What the group and history say of a shard.
fn shard_checks(shard: &Shard, tuning: &RaftTuning, out: &mut Vec<Check>) {
    let name = |what: &str| format!("shard-{}-{what}", shard.id());
    let status = shard.status();
    out.push(check(name("replica"), status.stopped.clone()));
    out.push(check(name("apply"), status.apply_halted.clone()));
    out.push(refused_entries(name("entries"), status.entries_refused));
    // A stopped replica hears nobody, and is no more current than when it stopped.
    if status.stopped.is_none() {
        out.push(check(name("leader"), unheard(&status, tuning)));
        out.push(check(name("age"), outdated(&status)));
    }
    if status.role == Role::Leader {
        let unsure = || (!status.clock_sure).then(|| "the leader has no quorum of clock readings".to_owned());
        out.push(check(name("clock"), jumped(&status).or_else(unsure)));
        out.push(warning(name("clock-ahead"), ahead(&status, tuning)));
    }
    let kept = shard.history().coverage(shard.id());
    let history = match (kept.unopened, kept.is_gapped()) {
        (true, _) => Some("the history store could not be opened; it is tried again every ten seconds"),
        (false, true) => Some("history is gapped and being filled from peers"),
        (false, false) => None,
    };
    out.push(warning(name("history"), history.map(str::to_owned)));
    let distance = WatchDistance::of(shard.feed(), &kept);
    out.push(warning(name("watches"), distance.and_then(|distance| distance.warning())));
    out.push(warning(name("memory"), shard.state().memory.warning()));
}

#[cfg(test)]
mod tests {
    use ledger_raft::{NoQuorum, NodeId};

    use super::*;

    fn follower(heard_ms: Option<u64>) -> GroupStatus {
        GroupStatus { leader: Some(NodeId(2)), leader_heard_ms: heard_ms, ..GroupStatus::default() }
    }

    #[test]
    fn a_leader_counts_while_it_is_heard_and_not_while_it_is_remembered() {
        let tuning = RaftTuning::default();
        let within = tuning.leader_heard_within().as_millis() as u64;
        assert_eq!(unheard(&follower(Some(within)), &tuning), None);
        let late = unheard(&follower(Some(within + 1)), &tuning).expect("silent");
        assert!(late.contains("last heard 701ms ago"), "{late}");
        assert!(unheard(&follower(None), &tuning).is_some(), "never heard");
        let lost = NoQuorum { for_ms: 9_000, missing: Vec::new() };
        let lost = unheard(&GroupStatus { no_quorum: Some(lost), ..follower(Some(9_000)) }, &tuning);
        assert!(lost.expect("no quorum").starts_with("no quorum (for 9.0 s)"));
    }

    #[test]
    fn a_replica_counts_while_it_was_current_a_moment_ago() {
        let of = |age| GroupStatus { quorum_age_ms: age, applied_index: 7, ..GroupStatus::default() };
        assert_eq!(outdated(&of(Some(READY_AGE_MAX.as_millis() as u64))), None);
        assert!(outdated(&of(Some(READY_AGE_MAX.as_millis() as u64 + 1))).is_some_and(|why| why.contains("applied 7")));
        assert!(outdated(&of(None)).is_some());
    }

    #[test]
    fn ledger_time_ahead_of_the_clocks_is_reported_and_a_jump_says_what_to_do() {
        let tuning = RaftTuning::default();
        let of = |clock_ahead_ms| GroupStatus { clock_ahead_ms, ..GroupStatus::default() };
        assert_eq!(ahead(&of(250), &tuning), None);
        assert!(ahead(&of(251), &tuning).is_some_and(|why| why.contains("251ms ahead")));
        assert_eq!(jumped(&of(0)), None);
        let jump = GroupStatus { clock_jump_ms: Some(90_000), ..GroupStatus::default() };
        assert!(jumped(&jump).is_some_and(|why| why.contains("90s") && why.contains("ledgerctl cluster clock accept")));
    }
}
