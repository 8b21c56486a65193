//! What a leader does beside replicating: asks its voters for their clocks, and hands over when it cannot be sure of them.
//!
//! **Owns** when clocks are asked and when leadership is handed over; the verdict is [`crate::clock`]'s.
//! **Must never** let a stamp be given in a term this node does not lead. **Read next**: [`crate::clock`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Buf;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::NodeId;
use crate::clock::{ClockQuorum, Verdict};
use crate::currency::{Moment, Word};
use crate::group::{GroupCore, Stamper};
use crate::limits::{
    CLOCK_ASK_EVERY, CLOCK_ASK_EVERY_UNSURE, CLOCK_HANDOVER_EVERY, CLOCK_ROUND_TRIP_MAX, CLOCK_UNSURE_HANDOVER,
};
use crate::transport::frame::Kind;
use crate::transport::link::lock;
use crate::types::Types;

/// A peer's answer: who, its wall clock, asked when, heard when.
struct Heard(u64, u64, u64, u64);

type ServerMetrics = openraft::alias::WatchReceiverOf<Types, openraft::metrics::RaftServerMetrics<Types>>;

/// Follows leadership of one group and keeps its clock.
pub(crate) async fn keep_clock(core: Arc<GroupCore>) {
    let Some(raft) = core.raft.clone() else { return };
    let mut server = raft.server_metrics();
    let mut all = raft.metrics();
    let (heard_tx, mut heard) = mpsc::channel::<Heard>(64);
    let mut next_ask = Instant::now();
    let mut unsure_since: Option<Instant> = None;
    let mut handed_over: Option<Instant> = None;
    loop {
        let leading = follow_leadership(&core, &mut server);
        // A new leader has no lease before a quorum answered, and openraft refuses writes until then.
        let accepted = all.borrow_and_update().last_quorum_acked.is_some();
        if leading {
            let sure = judge(&core, accepted);
            let since = if sure { None } else { Some(unsure_since.unwrap_or_else(Instant::now)) };
            unsure_since = since;
            if Instant::now() >= next_ask {
                ask_all(&core, &heard_tx);
                next_ask = Instant::now() + if sure { CLOCK_ASK_EVERY } else { CLOCK_ASK_EVERY_UNSURE };
            }
            if since.is_some_and(|t| t.elapsed() >= CLOCK_UNSURE_HANDOVER)
                && handed_over.is_none_or(|t| t.elapsed() >= CLOCK_HANDOVER_EVERY)
            {
                handed_over = Some(Instant::now());
                hand_over(&core).await;
            }
        } else {
            unsure_since = None;
            next_ask = Instant::now();
        }
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            r = server.changed() => if r.is_err() { return core.core_ended().await },
            r = all.changed(), if leading && !accepted => if r.is_err() { return core.core_ended().await },
            Some(Heard(from, wall, asked, at)) = heard.recv() => {
                if let Some(clock) = lock(&core.stamper).clock.as_mut() {
                    clock.heard(from, wall, asked, at);
                }
            }
            () = tokio::time::sleep_until(next_ask), if leading => {}
        }
    }
}

/// Starts or ends the stamper with the leadership; says whether this node leads.
fn follow_leadership(core: &GroupCore, server: &mut ServerMetrics) -> bool {
    let (state, vote, voters) = {
        let m = server.borrow_and_update();
        let voters = m.membership_config.membership().voter_ids().collect::<std::collections::BTreeSet<u64>>();
        (m.state, m.vote, voters)
    };
    let mut stamper = lock(&core.stamper);
    if state != ServerState::Leader || core.stopped_why().is_some() {
        if stamper.term.is_some() {
            *stamper = Stamper::default();
        }
        return false;
    }
    let term = vote.leader_id.term;
    let same_term = stamper.term == Some(term);
    match &mut stamper.clock {
        Some(clock) if same_term => clock.set_voters(voters),
        _ => {
            tracing::debug!(group = core.id.0, term, "leading a new term");
            core.hear_leader();
            let (bound, fresh) = (core.tuning.clock_bound, core.tuning.clock_fresh);
            let clock = ClockQuorum::new(core.node.0, voters, bound, fresh, CLOCK_ROUND_TRIP_MAX);
            *stamper = Stamper { term: Some(term), clock: Some(clock), sure_until_ms: 0 };
        }
    }
    true
}

/// Judges anew and publishes a change; true when stamps may be given.
fn judge(core: &GroupCore, accepted: bool) -> bool {
    let wall = core.seams.clock.now_ms();
    let (before, sure) = {
        let mut stamper = lock(&core.stamper);
        let now = core.elapsed_ms();
        let before = now < stamper.sure_until_ms;
        let log_stamp = core.progress.stamp_ms.load(Ordering::Relaxed);
        let Some(clock) = stamper.clock.as_mut() else { return false };
        let first = clock.stamp(now).is_none();
        let verdict = clock.judge(now, wall, log_stamp);
        let carried = clock.carried_ms();
        if first && carried > core.tuning.clock_bound.as_millis() as u64 {
            tracing::warn!(
                group = core.id.0,
                ahead_ms = carried,
                "ledger time is ahead of the quorum's clocks; it goes on from there"
            );
        }
        stamper.sure_until_ms = match verdict {
            Verdict::Sure { until_ms } if accepted => until_ms,
            _ => 0,
        };
        (before, now < stamper.sure_until_ms)
    };
    if before != sure {
        core.status.send_modify(|s| s.clock_sure = sure && s.stopped.is_none());
        if before {
            tracing::warn!(group = core.id.0, "no quorum of clock readings within the bound: stamping nothing");
        }
    }
    sure
}

/// Asks every other voter for its clock, and says how current this leader is.
fn ask_all(core: &Arc<GroupCore>, heard: &mpsc::Sender<Heard>) {
    let word = core.say();
    for (peer, addr) in core.status_now().voters.into_iter().filter(|(id, _)| *id != core.node) {
        let link = core.links.to(peer, &addr).control;
        let after = lock(&core.moments).get(&peer).copied();
        let word = word.map(|word| Word { after, ..word }.encode()).unwrap_or_default();
        let (core, heard) = (core.clone(), heard.clone());
        tokio::spawn(async move {
            let asked = core.elapsed_ms();
            if let Ok(mut b) = link.call(Kind::Clock, core.id.0, word, CLOCK_ROUND_TRIP_MAX).await
                && b.len() >= 8
            {
                let wall = b.get_u64_le();
                if b.len() == 16 {
                    lock(&core.moments).insert(peer, Moment { run: b.get_u64_le(), ms: b.get_u64_le() });
                }
                let _leader_no_more = heard.send(Heard(peer.0, wall, asked, core.elapsed_ms())).await;
            }
        });
    }
}

/// Lets the most advanced other voter lead.
async fn hand_over(core: &GroupCore) {
    let Some(to) = best_heir(core) else { return };
    tracing::warn!(group = core.id.0, to = to.0, "handing leadership over: unsure of the clock");
    if let Some(raft) = &core.raft {
        let _stopped = raft.trigger().transfer_leader(to.0).await;
    }
}

/// The other voter whose log matches furthest.
pub(crate) fn best_heir(core: &GroupCore) -> Option<NodeId> {
    let status = core.status_now();
    let others = status.voters.keys().filter(|id| **id != core.node);
    others.max_by_key(|id| status.matched.get(id).copied().unwrap_or(0)).copied()
}
