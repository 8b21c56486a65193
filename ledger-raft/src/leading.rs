//! What a leader does beside replicating: asks its voters for their clocks, and hands over when it cannot be sure of them.
//!
//! **Owns** when clocks are asked and when leadership is handed over; the verdict is [`crate::clock`]'s.
//! **Must never** let a stamp be given in a term this node does not lead. **Read next**: [`crate::clock`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Buf;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::{NodeId, RaftTuning};
use crate::clock::{ClockAnswer, ClockQuorum, Verdict};
use crate::currency::{Moment, Word};
use crate::group::{GroupCore, Stamper};
use crate::limits::{
    CLOCK_ASK_EVERY, CLOCK_ASK_EVERY_UNSURE, CLOCK_HANDOVER_EVERY, CLOCK_ROUND_TRIP_MAX, CLOCK_UNSURE_HANDOVER,
};
use crate::transport::frame::Kind;
use crate::transport::link::lock;
use crate::types::Types;

/// A peer's answer: who, what of its clock, asked when, heard when.
struct Heard(u64, ClockAnswer, u64, u64);

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
            let verdict = judge(&core, accepted);
            let sure = matches!(verdict, Verdict::Sure { .. });
            // Another leader would find the same jump.
            let since = (verdict == Verdict::Unsure).then(|| unsure_since.unwrap_or_else(Instant::now));
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
            Some(Heard(from, answer, asked, at)) = heard.recv() => {
                if let Some(clock) = lock(&core.stamper).clock.as_mut() {
                    clock.heard(from, answer, asked, at);
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
            let RaftTuning { clock_bound, clock_fresh, clock_jump_max, .. } = core.tuning;
            let me = core.node.0;
            let clock = ClockQuorum::new(me, voters, clock_bound, clock_fresh, CLOCK_ROUND_TRIP_MAX, clock_jump_max);
            *stamper = Stamper { term: Some(term), clock: Some(clock), ..Stamper::default() };
        }
    }
    true
}

/// Judges anew and publishes a change. *Sure* only when stamps may be given.
fn judge(core: &GroupCore, accepted: bool) -> Verdict {
    let own = ClockAnswer { wall_ms: core.seams.clock.now_ms(), expected_ms: core.expected_ms() };
    let (before, before_jump, verdict, ahead_ms) = {
        let mut stamper = lock(&core.stamper);
        let now = core.elapsed_ms();
        let (before, before_jump) = (now < stamper.sure_until_ms, stamper.jump_ms);
        let log_stamp = core.progress.stamp_ms.load(Ordering::Relaxed);
        let Some(clock) = stamper.clock.as_mut() else { return Verdict::Unsure };
        let first = clock.stamp(now).is_none();
        let verdict = match clock.judge(now, own, log_stamp) {
            Verdict::Sure { until_ms } if !accepted || now >= until_ms => Verdict::Unsure,
            verdict => verdict,
        };
        let (ahead_ms, unchecked_ms) = (clock.ahead_ms(), clock.take_unchecked_ms());
        warn_of_ledger_time(core, first.then_some(ahead_ms), unchecked_ms);
        if let (Verdict::Sure { .. }, Some(ledger_ms)) = (verdict, clock.stamp(now)) {
            core.expect_time(ledger_ms);
        }
        (stamper.sure_until_ms, stamper.jump_ms) = match verdict {
            Verdict::Sure { until_ms } => (until_ms, None),
            Verdict::Unsure => (0, None),
            Verdict::Jumped { by_ms } => (0, Some(by_ms)),
        };
        (before, before_jump, verdict, ahead_ms)
    };
    let sure = matches!(verdict, Verdict::Sure { .. });
    let jump_ms = if let Verdict::Jumped { by_ms } = verdict { Some(by_ms) } else { None };
    core.status.send_if_modified(|s| {
        let running = s.stopped.is_none();
        let now = (sure && running, if running { ahead_ms } else { 0 }, jump_ms.filter(|_| running));
        let changed = (s.clock_sure, s.clock_ahead_ms, s.clock_jump_ms) != now;
        (s.clock_sure, s.clock_ahead_ms, s.clock_jump_ms) = now;
        changed
    });
    match jump_ms {
        Some(by_ms) if before_jump.is_none() => tracing::error!(
            group = core.id.0,
            by_ms,
            "the clocks of a quorum are further ahead than the time that has passed: stamping nothing; hint: set them \
             right, or `ledgerctl cluster clock accept`"
        ),
        None if before && !sure => {
            tracing::warn!(group = core.id.0, "no quorum of clock readings within the bound: stamping nothing");
        }
        _ => {}
    }
    verdict
}

/// Says what a new leader finds: ledger time ahead of the clocks, or moved on by as much as nobody could check.
fn warn_of_ledger_time(core: &GroupCore, ahead_ms: Option<u64>, unchecked_ms: Option<u64>) {
    let exceeds = |ms: Option<u64>, bound: Duration| ms.filter(|ms| u128::from(*ms) > bound.as_millis());
    if let Some(ahead_ms) = exceeds(ahead_ms, core.tuning.clock_bound) {
        tracing::warn!(
            group = core.id.0,
            ahead_ms,
            "ledger time is ahead of the quorum's clocks; it goes on from there"
        );
    }
    if let Some(by_ms) = exceeds(unchecked_ms, core.tuning.clock_jump_max) {
        tracing::warn!(
            group = core.id.0,
            by_ms,
            "ledger time goes on so much after the last stamp, and no replica knows how long all of them stood still"
        );
    }
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
                let wall_ms = b.get_u64_le();
                let mut answer = ClockAnswer { wall_ms, expected_ms: None };
                if b.len() == 24 {
                    lock(&core.moments).insert(peer, Moment { run: b.get_u64_le(), ms: b.get_u64_le() });
                    answer.expected_ms = Some(b.get_u64_le()).filter(|ms| *ms > 0);
                }
                let _leader_no_more = heard.send(Heard(peer.0, answer, asked, core.elapsed_ms())).await;
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
