//! One group on this node, from inside.
//!
//! **Owns** the openraft handle, the stamp lock, the group's tasks (status, leadership and clock, reads).
//! **Must never** hold a lock across an await, or say a definite *no* for something that may be in the log.
//! **Read next**: [`crate::clock`], [`crate::reads`], [`crate::upkeep`].

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Committed, GroupId, GroupStatus, NodeId, ProposeError, RaftTuning, Role};
use crate::clock::ClockQuorum;
use crate::currency::{Currency, Moment, Word};
use crate::limits::{CLOCK_EXPECTED_DRIFT_MS, CLOCK_EXPECTED_FOLLOWS, STATUS_EVERY};
use crate::machine::{Machine, Progress};
use crate::quorum::{self, NoQuorum};
use crate::reads::ReadAsked;
use crate::remember::Memory;
use crate::seam::Seams;
use crate::snapshot::SnapshotStore;
use crate::start::damaged_why;
use crate::store::Store;
use crate::transport::Known;
use crate::transport::link::{Links, lock};
use crate::transport::pull::PullSlot;
use crate::types::{CommittedLeaderId, Membership, Push, Runtime, Stamped, Types, position};
use crate::unreadable;
use crate::vote_gate::VoteGate;

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;

/// Stamps of one leadership; the lock around it makes the order of stamps the order of the log.
#[derive(Default)]
pub(crate) struct Stamper {
    /// The term this node leads.
    pub(crate) term: Option<u64>,
    pub(crate) clock: Option<ClockQuorum>,
    /// Stamps may be given before this moment.
    pub(crate) sure_until_ms: u64,
    /// Nothing is stamped, since the quorum's clocks jumped by so much.
    pub(crate) jump_ms: Option<u64>,
}

/// Everything of one group.
pub(crate) struct GroupCore {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) tuning: RaftTuning,
    pub(crate) seams: Seams,
    pub(crate) links: Arc<Links>,
    /// None when the replica was stopped before it began: quarantined, or its log is damaged.
    pub(crate) raft: Option<Raft>,
    /// The first voters of the group. They stand for the members while the replica has none.
    pub(crate) founders: Membership,
    pub(crate) store: Store,
    pub(crate) memory: Arc<Memory>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) stamper: Mutex<Stamper>,
    pub(crate) currency: Mutex<Currency>,
    /// Of each follower that answered: the moment that came with its last answer.
    pub(crate) moments: Mutex<BTreeMap<NodeId, Moment>>,
    /// Tells this run of the replica from those before.
    pub(crate) run: u64,
    /// When a leader was last heard: this group's elapsed time, and one; none yet: zero.
    pub(crate) heard: AtomicU64,
    /// What ledger time is expected to be, less [`GroupCore::running_ms`]; [`i64::MIN`]: not known.
    pub(crate) expected: AtomicI64,
    pub(crate) status: watch::Sender<GroupStatus>,
    pub(crate) stopped: Mutex<Option<String>>,
    /// What the repair of a stopped replica waits for.
    pub(crate) repair_waits_for: Mutex<Option<String>>,
    /// Its state may differ from the others': it is given to nobody. Other replicas that are
    /// stopped have a state that may lag, and is right.
    pub(crate) quarantined: AtomicBool,
    pub(crate) reads: mpsc::Sender<ReadAsked>,
    /// Largest entry that is proposed.
    pub(crate) entry_bytes_max: usize,
    pub(crate) hold_purge_above: AtomicU64,
    /// One snapshot build at a time on a node.
    pub(crate) builds: Arc<tokio::sync::Semaphore>,
    /// One snapshot is received at a time.
    pub(crate) pulling: PullSlot,
    /// What holds it back from voting.
    pub(crate) gate: VoteGate,
    pub(crate) votes_declined: AtomicU64,
    pub(crate) low_space: watch::Receiver<bool>,
    pub(crate) origin: Instant,
    pub(crate) seed: AtomicU64,
    pub(crate) stop: CancellationToken,
}

impl GroupCore {
    /// Milliseconds of this group's own elapsed time.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    /// The same, with what passes while the machine is suspended, where that is known.
    fn running_ms(&self) -> u64 {
        self.seams.clock.since_boot_ms().unwrap_or_else(|| self.elapsed_ms())
    }

    /// A leader says, or this one knows, what ledger time is now. One that came late, or from a leader that stood still, is too
    /// low: what is expected follows it down only slowly, and so follows elapsed time that goes too fast as well.
    pub(crate) fn expect_time(&self, ledger_ms: u64) {
        let heard = self.ahead_of_running(ledger_ms);
        let before = self.expected.load(Ordering::Relaxed);
        if before == i64::MIN {
            self.expected.store(heard, Ordering::Relaxed);
            self.status.send_modify(|s| s.clock_expected = true);
            return;
        }
        let lower = before.saturating_sub(heard).max(0) / CLOCK_EXPECTED_FOLLOWS;
        let slowly = before.saturating_sub(CLOCK_EXPECTED_DRIFT_MS).saturating_sub(lower);
        self.expected.store(heard.max(slowly), Ordering::Relaxed);
    }

    /// An operator accepts that ledger time goes on from here.
    pub(crate) fn accept_time(&self, ledger_ms: u64) {
        self.expected.fetch_max(self.ahead_of_running(ledger_ms), Ordering::Relaxed);
    }

    fn ahead_of_running(&self, ledger_ms: u64) -> i64 {
        i64::try_from(ledger_ms).unwrap_or(i64::MAX).saturating_sub_unsigned(self.running_ms()).max(i64::MIN + 1)
    }

    /// What ledger time is expected to be now, at least; none when no leader was heard since the start.
    pub(crate) fn expected_ms(&self) -> Option<u64> {
        let ahead = self.expected.load(Ordering::Relaxed);
        (ahead != i64::MIN).then(|| ahead.saturating_add_unsigned(self.running_ms()).max(0) as u64)
    }

    pub(crate) fn stopped_why(&self) -> Option<String> {
        let why = lock(&self.stopped).clone()?;
        Some(match lock(&self.repair_waits_for).as_ref() {
            Some(waits) => format!("{why}; its repair waits: {waits}"),
            None => why,
        })
    }

    /// The repair of this stopped replica cannot be done yet.
    pub(crate) fn repair_waits(&self, what: String) {
        *lock(&self.repair_waits_for) = Some(what);
        self.status.send_modify(|s| *s = self.stopped_status(std::mem::take(s)));
    }

    /// Stops a replica whose log turned out to have lost something while it ran: what it
    /// acknowledged may be gone. Whether it did.
    pub(crate) async fn stop_if_damaged(&self) -> bool {
        let Some(damage) = self.store.log().damage().filter(|damage| !damage.emptied) else { return false };
        self.mark_stopped(&damaged_why(&damage));
        if let Some(raft) = &self.raft {
            let _joined = self.seeded(raft.shutdown()).await;
        }
        true
    }

    /// An error when the state of this replica must not be given to others.
    pub(crate) fn may_give_state(&self) -> io::Result<()> {
        match self.quarantined.load(Ordering::Acquire) {
            true => Err(io::Error::other("this replica is quarantined: its state is given to nobody")),
            false => Ok(()),
        }
    }

    /// Whether the replica was stopped, or is about to be.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled() || self.stopped_why().is_some()
    }

    /// Whether the replica may become leader: it may vote, and knows every committed entry.
    pub(crate) fn may_stand(&self) -> bool {
        let whole = self.store.log().damage().is_none_or(|damage| damage.emptied);
        whole && self.gate.is_open() && unreadable::may_lead(self)
    }

    /// An error when this replica must not vote: it may have forgotten a vote that it gave.
    pub(crate) fn may_vote(&self) -> io::Result<()> {
        let why = match self.store.log().damage() {
            Some(damage) if !self.gate.is_repaired() || !damage.emptied => {
                format!("this replica does not vote: {damage}")
            }
            _ if !self.gate.is_repaired() => "this replica is being repaired and does not vote".into(),
            _ if !self.gate.is_remembered() => {
                "this replica does not vote before others say what they remember of it".into()
            }
            _ => return Ok(()),
        };
        self.vote_declined();
        Err(io::Error::other(why))
    }

    /// Counts a vote that was not given.
    pub(crate) fn vote_declined(&self) {
        let declined = self.votes_declined.fetch_add(1, Ordering::Relaxed) + 1;
        self.status.send_modify(|status| status.votes_declined = declined);
    }

    /// The openraft handle, or why there is none.
    pub(crate) fn raft(&self) -> io::Result<&Raft> {
        match (self.stopped_why(), &self.raft) {
            (None, Some(raft)) => Ok(raft),
            (why, _) => Err(io::Error::other(format!("group {} is stopped: {}", self.id.0, why.unwrap_or_default()))),
        }
    }

    /// Runs a call of openraft that may spawn: its chance comes from this group's seed.
    pub(crate) async fn seeded<F: Future>(&self, f: F) -> F::Output {
        Runtime::scope(self.seed.fetch_add(1, Ordering::Relaxed), f).await
    }

    /// Whether a node is a member, as far as is known here, or was a founder.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let has = |members: &Membership| members.get_node(&node.0).is_some();
        let is_now = |raft: &Raft| has(raft.metrics().borrow_watched().membership_config.membership());
        has(&self.founders) || self.raft.as_ref().is_some_and(is_now)
    }

    /// What a peer's message is held against.
    pub(crate) fn known(&self) -> Known {
        let Some(raft) = &self.raft else { return Known::default() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Known { term: metrics.current_term, committed: metrics.local_committed }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.status.borrow().leader
    }

    /// Marks the replica stopped; the first reason stays.
    pub(crate) fn mark_stopped(&self, why: &str) {
        {
            let mut stopped = lock(&self.stopped);
            if stopped.is_some() {
                return;
            }
            *stopped = Some(why.to_owned());
        }
        *lock(&self.stamper) = Stamper::default();
        self.status.send_modify(|s| *s = self.stopped_status(std::mem::take(s)));
    }

    /// A status, as it is told once the replica was stopped: whoever computed it may not have known yet.
    fn stopped_status(&self, status: GroupStatus) -> GroupStatus {
        match self.stopped_why() {
            Some(why) => {
                let awaits_build = self.progress.awaits_build().is_some();
                let (role, stopped) = (Role::Stopped, Some(why));
                let clock = GroupStatus { clock_sure: false, clock_ahead_ms: 0, clock_jump_ms: None, ..status };
                GroupStatus { role, stopped, awaits_build, no_quorum: None, ..clock }
            }
            None => status,
        }
    }

    /// Marks the replica stopped after openraft's core has ended: nothing comes from it any more, and no other task of the group may take its
    /// silence for health.
    pub(crate) async fn core_ended(&self) {
        let Some(raft) = self.raft.as_ref().filter(|_| self.stopped_why().is_none()) else { return };
        let told = raft.metrics().borrow_watched().running_state.clone();
        // A core that panicked tells nothing; asked for its state, openraft finds out.
        let fatal = match told {
            Err(fatal) => fatal.to_string(),
            Ok(()) => match raft.with_raft_state(|_| ()).await {
                Err(fatal) => fatal.to_string(),
                Ok(()) => "no reason is known".to_owned(),
            },
        };
        if self.stopped_why().is_none() {
            tracing::error!(group = self.id.0, error = %fatal, "the replica's consensus core ended: the replica is stopped, and repaired from a peer");
            self.mark_stopped(&self.ended_why(&fatal));
        }
    }

    /// Why openraft's core ended.
    fn ended_why(&self, fatal: &dyn std::fmt::Display) -> String {
        self.progress.awaits_build().unwrap_or_else(|| format!("its consensus core ended: {fatal}"))
    }

    /// Stamps and hands an entry to openraft; what comes back is the receiver of its outcome and the stamp.
    pub(crate) fn begin(
        &self,
        data: Bytes,
    ) -> Result<(oneshot::Receiver<ClientWriteResult<Types>>, u64), ProposeError> {
        if let Some(why) = self.stopped_why() {
            return Err(ProposeError::Stopped { why });
        }
        let Some(raft) = &self.raft else {
            return Err(ProposeError::Stopped { why: "not running".into() });
        };
        if let Some(why) = self.progress.halted_why() {
            return Err(ProposeError::Stopped { why });
        }
        if data.len() > self.entry_bytes_max && !crate::bad!("entry-above-log-bound") {
            return Err(ProposeError::TooLarge { bytes: data.len(), bytes_max: self.entry_bytes_max });
        }
        // A core that has ended is not asked: openraft would wait for its task, and a wait that is given up half-way spoils the next one.
        let metrics = raft.metrics();
        {
            let metrics = metrics.borrow_watched();
            if let Err(fatal) = &metrics.running_state {
                return Err(ProposeError::Stopped { why: fatal.to_string() });
            }
            // What is taken now would wait for a quorum, and its caller could not tell whether it
            // happens.
            if let Some(why) = self.no_quorum(&metrics).filter(|_| metrics.state == ServerState::Leader) {
                return Err(ProposeError::NoQuorum(why));
            }
        }
        if *self.low_space.borrow() {
            return Err(ProposeError::LowSpace);
        }
        let mut stamper = lock(&self.stamper);
        let Some(term) = stamper.term else {
            drop(stamper);
            return Err(ProposeError::NotLeader { group: self.id, leader: self.leader().filter(|l| *l != self.node) });
        };
        let now = self.elapsed_ms();
        if now >= stamper.sure_until_ms {
            return Err(match stamper.jump_ms {
                Some(by_ms) => ProposeError::ClockJumped { by_ms },
                None => ProposeError::ClockUnsure,
            });
        }
        let stamp_ms = stamper.clock.as_mut().and_then(|c| c.stamp(now)).ok_or(ProposeError::ClockUnsure)?;
        let (responder, outcome) = Push::new();
        let write = raft
            .write(Stamped { stamp_ms, bytes: data })
            .with_leader(CommittedLeaderId::new(term))
            .responder(responder)
            .into_future();
        // It only queues: done at once, or the queue is full (or closed) and nothing was sent.
        match tokio::task::unconstrained(write).now_or_never() {
            Some(Ok(())) => Ok((outcome, stamp_ms)),
            Some(Err(fatal)) => Err(ProposeError::Stopped { why: fatal.to_string() }),
            None => Err(ProposeError::NotLeader { group: self.id, leader: None }),
        }
    }

    pub(crate) fn stamp_now(&self) -> Option<u64> {
        let mut stamper = lock(&self.stamper);
        let now = self.elapsed_ms();
        if now >= stamper.sure_until_ms {
            return None;
        }
        stamper.clock.as_mut()?.stamp(now)
    }

    /// What became of an entry.
    pub(crate) fn outcome(
        group: GroupId,
        stamp_ms: u64,
        result: Result<ClientWriteResult<Types>, oneshot::error::RecvError>,
    ) -> Result<Committed, ProposeError> {
        let unknown = |why: &str| Err(ProposeError::Unknown { why: why.into() });
        match result {
            Ok(Ok(r)) => Ok(Committed { at: position(&r.log_id), stamp_ms, reply: r.data.into_inner() }),
            // Rejected before it was appended.
            Ok(Err(ClientWriteError::ForwardToLeader(f))) => {
                Err(ProposeError::NotLeader { group, leader: f.leader_id.map(NodeId) })
            }
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => {
                tracing::debug!(group = group.0, "leadership was lost while an entry was in flight");
                unknown("leadership was lost while the entry was in flight")
            }
            Ok(Err(e)) => unknown(&e.to_string()),
            Err(_) => unknown("the group stopped while the entry was in flight"),
        }
    }

    /// Status as openraft's metrics have it.
    pub(crate) fn status_of(&self, m: &Metrics) -> GroupStatus {
        let members = m.membership_config.membership();
        let voters: BTreeMap<NodeId, String> = members
            .voter_ids()
            .map(|id| (NodeId(id), members.get_node(&id).map(|n| n.addr.clone()).unwrap_or_default()))
            .collect();
        let (clock_sure, clock_ahead_ms, clock_jump_ms) = {
            let stamper = lock(&self.stamper);
            let ahead_ms = stamper.clock.as_ref().map_or(0, ClockQuorum::ahead_ms);
            (stamper.term.is_some() && self.elapsed_ms() < stamper.sure_until_ms, ahead_ms, stamper.jump_ms)
        };
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        let ended = || m.running_state.as_ref().err().map(|fatal| self.ended_why(fatal));
        let stopped = self.stopped_why().or_else(ended);
        GroupStatus {
            group: self.id,
            role: if stopped.is_some() { Role::Stopped } else { role_of(m.state) },
            term: m.current_term,
            leader: m.current_leader.map(NodeId),
            last_log_index: m.last_log_index.unwrap_or(0),
            committed_index: index(&m.cluster_committed).max(index(&m.local_committed)),
            applied_index: self.progress.applied().index,
            snapshot_index: index(&m.snapshot),
            purged_index: index(&m.purged),
            voters,
            matched: m.replication.iter().flatten().map(|(id, at)| (NodeId(*id), index(at))).collect(),
            quorum_age_ms: self.age_ms(m),
            leader_heard_ms: self.leader_heard_ms(m),
            no_quorum: if stopped.is_some() { None } else { self.no_quorum(m) },
            clock_sure,
            clock_ahead_ms,
            clock_jump_ms,
            clock_expected: self.expected_ms().is_some(),
            awaits_build: stopped.is_some() && self.progress.awaits_build().is_some(),
            stopped,
            apply_halted: self.progress.halted_why(),
            entries_refused: self.progress.refused.load(Ordering::Relaxed),
            repairing: !self.gate.is_repaired(),
            awaits_voters: !self.gate.is_remembered(),
            votes_declined: self.votes_declined.load(Ordering::Relaxed),
            snapshot_failure: self.snapshots.failure(),
        }
    }

    /// What this leader may say of its being current; none when it does not lead, or knows of no quorum, or has committed nothing in its
    /// term yet: until then it does not know all that leaders before it have committed.
    fn word(m: &Metrics) -> Option<Word> {
        let committed = m.cluster_committed.as_ref().map(position).filter(|at| at.term == m.current_term)?;
        let quorum_age_ms = match leads_alone(m) {
            true => 0,
            false => m.last_quorum_acked.as_ref()?.elapsed().as_millis() as u64,
        };
        (m.state == ServerState::Leader).then_some(Word {
            quorum_age_ms,
            committed: committed.index,
            ledger_ms: None,
            after: None,
        })
    }

    /// The leader's word for its followers; this replica hears it, too.
    pub(crate) fn say(&self) -> Option<Word> {
        let metrics = self.raft.as_ref()?.metrics().borrow_watched().clone();
        let word = Word { ledger_ms: self.stamp_now(), ..Self::word(&metrics)? };
        lock(&self.currency).heard(word, self.progress.applied().index, Instant::now());
        Some(word)
    }

    /// A leader was heard: it sent something in the present term, or this replica was elected.
    pub(crate) fn hear_leader(&self) {
        self.heard.fetch_max(self.elapsed_ms() + 1, Ordering::Relaxed);
    }

    /// Milliseconds since a leader was heard or, where this replica leads, since a quorum
    /// acknowledged it.
    fn leader_heard_ms(&self, m: &Metrics) -> Option<u64> {
        let acked = m.last_quorum_acked.as_ref().filter(|_| m.state == ServerState::Leader);
        match acked.map(|acked| acked.elapsed()) {
            Some(acked) if acked > self.tuning.leader_heard_within() && leads_alone(m) => Some(0),
            Some(acked) => Some(acked.as_millis() as u64),
            None if leads_alone(m) => Some(0),
            None => match self.heard.load(Ordering::Relaxed) {
                0 => None,
                heard => Some((self.elapsed_ms() + 1).saturating_sub(heard)),
            },
        }
    }

    /// Who is missing, once the group has had no quorum for long. A group that has not begun misses
    /// nobody.
    fn no_quorum(&self, m: &Metrics) -> Option<NoQuorum> {
        let silent = Duration::from_millis(self.leader_heard_ms(m).unwrap_or_else(|| self.elapsed_ms()));
        let too_long = self.tuning.no_quorum_after();
        let members = m.membership_config.membership();
        if silent < too_long || members.voter_ids().next().is_none() {
            return None;
        }
        let others = members.voter_ids().map(NodeId).filter(|id| *id != self.node);
        quorum::judge(silent, too_long, others.map(|id| (id, self.links.fault(self.id, id))))
    }

    fn age_ms(&self, m: &Metrics) -> Option<u64> {
        let applied = self.progress.applied().index;
        match Self::word(m) {
            Some(word) if applied >= word.committed => Some(word.quorum_age_ms),
            _ => lock(&self.currency).age_ms(applied, Instant::now()),
        }
    }

    /// A leader says how current it is, and so how current this replica is. A word that is not known to have been said after
    /// some moment of this run says nothing: it may have been on its way for long. Ledger time is
    /// taken from the group's leader alone.
    pub(crate) fn heard(&self, word: Word, from: NodeId) {
        let Some(after) = word.after.filter(|after| after.run == self.run) else { return };
        let Some(said_after) = self.origin.checked_add(Duration::from_millis(after.ms)) else { return };
        if let Some(ledger_ms) = word.ledger_ms.filter(|_| self.leader() == Some(from)) {
            self.expect_time(ledger_ms);
        }
        let applied = self.progress.applied().index;
        lock(&self.currency).heard(word, applied, said_after.min(Instant::now()));
    }

    /// This moment, for the leader to send back.
    pub(crate) fn moment(&self) -> Moment {
        Moment { run: self.run, ms: self.elapsed_ms() }
    }

    pub(crate) fn status_now(&self) -> GroupStatus {
        match &self.raft {
            Some(raft) => {
                let metrics = raft.metrics().borrow_watched().clone();
                self.status_of(&metrics)
            }
            None => self.status.borrow().clone(),
        }
    }

    /// Waits for a status, from now on.
    pub(crate) async fn await_status(&self, within: Duration, ok: impl FnMut(&GroupStatus) -> bool) -> io::Result<()> {
        let mut rx = self.status.subscribe();
        match tokio::time::timeout(within, rx.wait_for(ok)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("the group stopped")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("not within {within:?}"))),
        }
    }
}

/// Whether this replica leads and is the only voter: it is a quorum.
fn leads_alone(m: &Metrics) -> bool {
    m.state == ServerState::Leader && m.membership_config.membership().voter_ids().all(|id| id == m.id)
}

fn role_of(s: ServerState) -> Role {
    match s {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Publishes status: changes of role, leader and members at once, mere progress at most every [`STATUS_EVERY`]. Ends with the group, or
/// with openraft's core, which it then marks.
pub(crate) async fn publish_status(core: Arc<GroupCore>) {
    let Some(raft) = core.raft.clone() else { return };
    let mut all = raft.metrics();
    let mut server = raft.server_metrics();
    loop {
        let metrics = all.borrow_and_update().clone();
        let status = core.status_of(&metrics);
        if let Some(addr) = status.voters.get(&core.node) {
            core.links.set_own_addr(addr);
        }
        core.status.send_if_modified(|s| {
            // Whoever stops the replica may have done so since.
            let status = core.stopped_status(status);
            let changed = *s != status;
            *s = status;
            changed
        });
        if metrics.running_state.is_err() {
            break;
        }
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            r = server.changed() => if r.is_err() { break },
            () = tokio::time::sleep(STATUS_EVERY) => {}
        }
        server.borrow_and_update();
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            r = all.changed() => if r.is_err() { break },
        }
    }
    core.core_ended().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{leads_above, lone_node};

    #[tokio::test]
    async fn ledger_time_is_taken_from_the_leader_and_from_no_other_member() {
        const FAR_MS: u64 = 1 << 42;
        let (node, group) = lone_node().await;
        leads_above(&group, 0).await;
        let core = group.core();
        let word = Word { quorum_age_ms: 0, committed: 1, ledger_ms: Some(FAR_MS), after: Some(core.moment()) };
        core.heard(word, NodeId(2));
        assert!(core.expected_ms().is_none_or(|ms| ms < FAR_MS), "{:?}", core.expected_ms());
        core.heard(word, core.node);
        assert!(core.expected_ms().is_some_and(|ms| ms >= FAR_MS), "{:?}", core.expected_ms());
        node.shutdown(Duration::ZERO).await;
    }
}
