//! ReadIndex reads, coalesced: one round in flight, the next one shared by all who wait.
//!
//! **Owns** the rounds. **Must never** serve a read by lease (unsafe across a fast restart), or let one read wait without a bound.
//! **Read next**: [`crate::group`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{NodeId, ReadError, UnreadableKind};
use crate::codec::{checked_index, malformed};
use crate::group::GroupCore;
use crate::limits::{READ_RETRY_PAUSE, READ_ROUND_WITHIN};
use crate::transport::frame::Kind;

/// Somebody waits for the next round.
pub(crate) struct ReadAsked {
    /// A peer asks on behalf of its readers: answered here or not at all.
    pub(crate) only_here: bool,
    pub(crate) answer: oneshot::Sender<Result<u64, ReadError>>,
}

/// Runs the rounds of one group.
pub(crate) async fn run_rounds(core: Arc<GroupCore>, mut asked: mpsc::Receiver<ReadAsked>) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            n = asked.recv_many(&mut batch, 4096) => if n == 0 { return },
        }
        let here = round_here(&core).await;
        let (only_here, others): (Vec<_>, Vec<_>) = batch.drain(..).partition(|a| a.only_here);
        let elsewhere = match &here {
            Err(ReadError::NoLeader { leader: Some(leader) }) if *leader != core.node && !others.is_empty() => {
                round_at(&core, *leader).await
            }
            _ => here.clone(),
        };
        for (asked, answer) in [(only_here, here), (others, elsewhere)] {
            for a in asked {
                let _gave_up = a.answer.send(answer.clone());
            }
        }
    }
}

/// Confirms leadership with a quorum; the index that a read must see.
async fn round_here(core: &GroupCore) -> Result<u64, ReadError> {
    let raft = core.raft().map_err(|e| ReadError::Stopped { why: e.to_string() })?;
    let leader = core.status_now().leader;
    if leader != Some(core.node) {
        return Err(ReadError::NoLeader { leader });
    }
    let round = core.seeded(raft.get_read_linearizer(ReadPolicy::ReadIndex));
    match tokio::time::timeout(READ_ROUND_WITHIN, round).await {
        Ok(Ok(l)) => Ok(l.read_log_id().index()),
        _ => Err(ReadError::NoLeader { leader: core.status_now().leader.filter(|l| *l != core.node) }),
    }
}

/// Asks the leader for a round.
async fn round_at(core: &GroupCore, leader: NodeId) -> Result<u64, ReadError> {
    let no = ReadError::NoLeader { leader: Some(leader) };
    let addr = core.status.borrow().voters.get(&leader).cloned().unwrap_or_default();
    let link = core.links.to(leader, &addr).control;
    match link.call(Kind::ReadIndex, core.id.0, Bytes::new(), READ_ROUND_WITHIN).await {
        Ok(mut b) if b.len() == 8 => checked_index(b.get_u64_le()).map_err(|_| no),
        _ => Err(no),
    }
}

/// A round for a peer's readers.
pub(crate) async fn for_peer(core: &GroupCore) -> io::Result<u64> {
    let (answer, rx) = oneshot::channel();
    core.reads.send(ReadAsked { only_here: true, answer }).await.map_err(|_| malformed("group: it stopped"))?;
    rx.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// A linearizable read point that is applied here.
pub(crate) async fn read_index(core: &GroupCore, within: Duration) -> Result<u64, ReadError> {
    let until = Instant::now() + within;
    let mut last = ReadError::NoLeader { leader: core.leader() };
    loop {
        match tokio::time::timeout_at(until, one_read(core)).await {
            Ok(Ok(index)) => {
                return match tokio::time::timeout_at(until, applied_through(core, index)).await {
                    Ok(read) => read.map(|()| index),
                    Err(_) => Err(ReadError::NoLeader { leader: core.leader() }),
                };
            }
            Ok(Err(e @ ReadError::Stopped { .. })) => return Err(e),
            Ok(Err(e)) => last = e,
            Err(_) => return Err(last),
        }
        // No leader, or it changed: wait for news, but not for ever.
        let mut status = core.status.subscribe();
        status.mark_unchanged();
        let pause = (Instant::now() + READ_RETRY_PAUSE).min(until);
        let _either = tokio::time::timeout_at(pause, status.changed()).await;
        if Instant::now() >= until {
            return Err(last);
        }
    }
}

/// Waits until so much is applied here. A replica that stopped applies nothing any more, and one that does not know a committed entry
/// does not get past it.
async fn applied_through(core: &GroupCore, index: u64) -> Result<(), ReadError> {
    let (mut applied, mut status) = (core.progress.applied.subscribe(), core.status.subscribe());
    let mut obstacle = core.progress.obstacle.subscribe();
    tokio::select! {
        biased;
        _ = applied.wait_for(|at| at.index >= index) => Ok(()),
        // An entry that a quorum must confirm first is waited for like any other.
        _ = obstacle.wait_for(|found| found.as_ref().is_some_and(|f| f.cause.kind == UnreadableKind::Unsupported)) => {
            Err(ReadError::Stopped { why: core.progress.halted_why().unwrap_or_default() })
        }
        _ = status.wait_for(|status| status.stopped.is_some()) => {
            Err(ReadError::Stopped { why: core.stopped_why().unwrap_or_else(|| "shutting down".into()) })
        }
    }
}

async fn one_read(core: &GroupCore) -> Result<u64, ReadError> {
    // What this build cannot apply is committed, so a read would have to see it.
    let halted = core.progress.halted_why().filter(|_| core.progress.halted_by(UnreadableKind::Unsupported));
    if let Some(why) = core.stopped_why().or(halted) {
        return Err(ReadError::Stopped { why });
    }
    let stopped = || ReadError::Stopped { why: core.stopped_why().unwrap_or_else(|| "shutting down".into()) };
    let (answer, rx) = oneshot::channel();
    core.reads.send(ReadAsked { only_here: false, answer }).await.map_err(|_| stopped())?;
    rx.await.map_err(|_| stopped())?
}
