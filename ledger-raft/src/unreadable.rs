//! What a replica does about a committed entry that its state machine cannot decode.
//!
//! A format, command or behaviour version **unknown** here: the replica stops applying. It keeps its log, acknowledges and votes, but
//! does not lead, until a build that knows it runs. Refusing the entry would make the state differ from that of newer builds.
//!
//! A **malformed** entry of a known format: the other voters are asked for the hash of the entry at that position in their logs.
//! When a quorum, this replica included, holds the same bytes, the log itself is so, and every replica refuses the entry. When a
//! quorum holds other bytes, what this replica has in memory is wrong: it is quarantined, and reinstalled from a peer.
//!
//! **Owns** that decision, and the question and answer between peers. **Must never** refuse an entry because one replica alone cannot decode it.
//! **Read next**: [`crate::machine`], which holds what arrives meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::api::{LogPosition, Role, Unreadable, UnreadableKind};
use crate::codec::malformed;
use crate::group::GroupCore;
use crate::leading::best_heir;
use crate::limits::{ENTRY_ASK_AGAIN, ENTRY_ASK_WITHIN, HALTED_HANDOVER_EVERY};
use crate::machine::Machine;
use crate::repair::{self, Marks, Quarantine};
use crate::transport::frame::Kind;
use crate::types::{Stamped, position};
use crate::vote_gate;

/// The entry that applying does not get past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) at: LogPosition,
    pub(crate) hash: u128,
    pub(crate) cause: Unreadable,
}

impl Obstacle {
    /// For people.
    pub(crate) fn why(&self) -> String {
        let Self { at, cause, .. } = self;
        match cause.kind {
            UnreadableKind::Unsupported => format!(
                "applying stopped before the entry at {} (term {}), which this build does not know: {}; run a build that knows it",
                at.index, at.term, cause.why
            ),
            UnreadableKind::Malformed => format!(
                "applying waits at the entry at {} (term {}), which cannot be decoded: {}; a quorum must hold the same bytes",
                at.index, at.term, cause.why
            ),
        }
    }
}

/// The hash that replicas compare: of an entry's bytes, seeded by its stamp.
pub(crate) fn payload_hash(d: &Stamped) -> u128 {
    xxh3_128_with_seed(&d.bytes, d.stamp_ms)
}

/// What a peer's log says of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No such entry: the peer is behind, or the entry there is of another term or of Raft itself.
    Nothing,
    /// An entry with this hash.
    Hash(u128),
    /// Purged: a snapshot covers it.
    Purged,
}

const NOTHING: u8 = 0;
const HASH: u8 = 1;
const PURGED: u8 = 2;

fn question(at: LogPosition) -> Bytes {
    let mut b = BytesMut::with_capacity(16);
    b.put_u64_le(at.term);
    b.put_u64_le(at.index);
    b.freeze()
}

/// Answers a peer that cannot decode an entry, from the log.
pub(crate) fn answer(core: &GroupCore, body: &mut Bytes) -> io::Result<Bytes> {
    if body.len() != 16 {
        return Err(malformed("entry question"));
    }
    let at = LogPosition { term: body.get_u64_le(), index: body.get_u64_le() };
    if core.store.log().state().damage.is_some() {
        return Err(io::Error::other("the log of this replica is damaged"));
    }
    let mut b = BytesMut::with_capacity(17);
    match found(core, at)? {
        Found::Nothing => b.put_u8(NOTHING),
        Found::Purged => b.put_u8(PURGED),
        Found::Hash(hash) => {
            b.put_u8(HASH);
            b.put_u128_le(hash);
        }
    }
    Ok(b.freeze())
}

fn found(core: &GroupCore, at: LogPosition) -> io::Result<Found> {
    let (purged, last) = core.store.ends()?;
    if purged.is_some_and(|purged| purged.index >= at.index) {
        return Ok(Found::Purged);
    }
    if last.is_none_or(|last| last.index < at.index) {
        return Ok(Found::Nothing);
    }
    let some = core.store.read_some(at.index, at.index, 1)?;
    let entry = some.first().filter(|entry| position(&entry.log_id) == at);
    Ok(match entry.map(|entry| &entry.payload) {
        Some(EntryPayload::Normal(d)) => Found::Hash(payload_hash(d)),
        _ => Found::Nothing,
    })
}

fn take_answer(mut body: Bytes) -> io::Result<Found> {
    match (body.len(), body.first()) {
        (1, Some(&NOTHING)) => Ok(Found::Nothing),
        (1, Some(&PURGED)) => Ok(Found::Purged),
        (17, Some(&HASH)) => {
            body.advance(1);
            Ok(Found::Hash(body.get_u128_le()))
        }
        _ => Err(malformed("entry answer")),
    }
}

/// What the voters' answers come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// A quorum holds the same bytes.
    Same,
    /// A quorum holds other bytes.
    Other,
    /// A peer's snapshot covers the entry, and no quorum is left that could confirm it.
    Covered,
    /// Not enough answers yet.
    Wait,
}

/// Judges what the other voters hold, of `voters` in all; `votes` says whether this replica is one of them.
fn judge(ours: u128, votes: bool, others: &[Found], voters: usize) -> Verdict {
    let quorum = voters / 2 + 1;
    let count = |found: Found| others.iter().filter(|other| **other == found).count();
    let other_hash = |found: &&Found| matches!(found, Found::Hash(hash) if *hash != ours);
    if count(Found::Hash(ours)) + usize::from(votes) >= quorum {
        return Verdict::Same;
    }
    if others.iter().filter(other_hash).any(|found| count(*found) >= quorum) {
        return Verdict::Other;
    }
    if count(Found::Purged) > 0 { Verdict::Covered } else { Verdict::Wait }
}

/// Asks the other voters what they hold at the position of the obstacle.
async fn ask_voters(core: &Arc<GroupCore>, found: &Obstacle) -> Verdict {
    let voters = core.status_now().voters;
    let others = voters.iter().filter(|(id, _)| **id != core.node).map(|(id, addr)| {
        let (link, question) = (core.links.to(*id, addr).control, question(found.at));
        async move {
            let answer = link.call(Kind::EntryHash, core.id.0, question, ENTRY_ASK_WITHIN).await;
            answer.and_then(take_answer).unwrap_or(Found::Nothing)
        }
    });
    let others: Vec<Found> = futures::future::join_all(others).await;
    judge(found.hash, voters.contains_key(&core.node), &others, voters.len())
}

/// Follows what the state machine cannot decode, until the group stops.
pub(crate) async fn watch(core: Arc<GroupCore>, marks: Marks) {
    let Some(raft) = core.raft.clone() else { return };
    let mut obstacle = core.progress.obstacle.subscribe();
    let mut known: Option<Obstacle> = None;
    loop {
        let now = obstacle.borrow_and_update().clone();
        if now != known {
            publish(&core, now.as_ref(), known.as_ref());
            known.clone_from(&now);
        }
        let again = match &now {
            None => None,
            Some(found) if found.cause.kind == UnreadableKind::Unsupported => {
                step_down(&core).await;
                Some(HALTED_HANDOVER_EVERY)
            }
            Some(found) => match settle(&core, &raft, &marks, found).await {
                Settled::Done => None,
                Settled::Stopped => return,
                Settled::Wait => Some(ENTRY_ASK_AGAIN),
            },
        };
        let pause = async {
            match again {
                Some(after) => tokio::time::sleep_until(Instant::now() + after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            changed = obstacle.changed() => if changed.is_err() { return },
            () = pause => {}
        }
    }
}

/// Publishes a change once, and lets the replica stand for election or not.
fn publish(core: &GroupCore, now: Option<&Obstacle>, before: Option<&Obstacle>) {
    match now {
        Some(found) => {
            tracing::error!(group = core.id.0, index = found.at.index, term = found.at.term, why = %found.why(), "a committed entry cannot be decoded");
        }
        None => {
            let index = before.map_or(0, |found| found.at.index);
            tracing::warn!(group = core.id.0, index, "applying goes on after the entry that could not be decoded");
        }
    }
    vote_gate::apply(core);
    let halted = now.map(Obstacle::why);
    core.status.send_modify(|s| {
        s.apply_halted = halted;
        s.entries_refused = core.progress.refused.load(Ordering::Relaxed);
    });
}

/// Lets another voter lead. Those that lack the format as well decline; then this one is asked again later.
async fn step_down(core: &GroupCore) {
    if core.status_now().role != Role::Leader {
        return;
    }
    let Some(to) = best_heir(core) else { return };
    tracing::warn!(group = core.id.0, to = to.0, "handing leadership over: this build does not know a committed entry");
    if let Some(raft) = &core.raft {
        let _stopped = raft.trigger().transfer_leader(to.0).await;
    }
}

enum Settled {
    Done,
    Stopped,
    Wait,
}

/// A replica that stops meanwhile is not quarantined: that its core or its machine has ended says
/// nothing of its log.
async fn settle(core: &Arc<GroupCore>, raft: &crate::group::Raft, marks: &Marks, found: &Obstacle) -> Settled {
    let Obstacle { at, hash, .. } = *found;
    let Some(verdict) = core.stop.run_until_cancelled(ask_voters(core, found)).await else { return Settled::Stopped };
    let why = match verdict {
        Verdict::Wait => return Settled::Wait,
        Verdict::Same => {
            let store = core.store.clone();
            let gone = raft.with_state_machine(move |m: &mut Machine| Box::pin(m.go_on(store, at, hash))).await;
            let Ok(gone) = gone else { return Settled::Stopped };
            match gone {
                Ok(()) => {
                    tracing::error!(
                        group = core.id.0,
                        index = at.index,
                        term = at.term,
                        hash = format!("{hash:032x}"),
                        error = %found.cause.why,
                        "a committed entry that a quorum holds cannot be decoded: it is refused as a whole on every replica"
                    );
                    return Settled::Done;
                }
                Err(_) if core.is_stopping() => return Settled::Stopped,
                Err(error) => format!("the log cannot be read after the entry at {}: {error}", at.index),
            }
        }
        Verdict::Other => {
            format!("a quorum holds other bytes than this replica at index {} of term {}", at.index, at.term)
        }
        Verdict::Covered => {
            format!("the entry at {} cannot be decoded, and the peers' snapshots cover it", at.index)
        }
    };
    repair::quarantine(core, marks, Quarantine { through: at.index, why }).await;
    Settled::Stopped
}

/// Whether nothing that this build does not know keeps the replica from leading.
pub(crate) fn may_lead(core: &GroupCore) -> bool {
    !core.progress.halted_by(UnreadableKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_of_equal_hashes_is_needed_and_one_replica_is_none() {
        use Found::{Hash, Nothing, Purged};
        assert_eq!(judge(7, true, &[Hash(7), Nothing], 3), Verdict::Same);
        assert_eq!(judge(7, true, &[Nothing, Nothing], 3), Verdict::Wait);
        assert_eq!(judge(7, true, &[Hash(8), Nothing], 3), Verdict::Wait);
        assert_eq!(judge(7, true, &[Hash(8), Hash(8)], 3), Verdict::Other);
        assert_eq!(judge(7, true, &[Hash(8), Hash(9)], 3), Verdict::Wait);
        assert_eq!(judge(7, true, &[], 1), Verdict::Same, "nobody else could know better");
        assert_eq!(judge(7, false, &[Hash(7), Nothing, Nothing], 3), Verdict::Wait, "a learner is no part of a quorum");
        assert_eq!(judge(7, true, &[Purged, Nothing], 3), Verdict::Covered);
        assert_eq!(judge(7, true, &[Purged, Hash(7)], 3), Verdict::Same);
        assert_eq!(judge(7, true, &[Hash(7), Nothing, Nothing, Nothing], 5), Verdict::Wait);
        assert_eq!(judge(7, true, &[Hash(7), Hash(7), Nothing, Nothing], 5), Verdict::Same);
    }

    #[test]
    fn answers_travel_and_others_are_errors() {
        for (bytes, found) in [
            (vec![0], Some(Found::Nothing)),
            (vec![2], Some(Found::Purged)),
            (vec![1], None),
            (vec![3], None),
            (vec![], None),
        ] {
            assert_eq!(take_answer(Bytes::from(bytes)).ok(), found);
        }
        let mut hash = vec![1];
        hash.extend_from_slice(&9_u128.to_le_bytes());
        assert_eq!(take_answer(Bytes::from(hash)).ok(), Some(Found::Hash(9)));
    }

    #[test]
    fn the_hash_is_of_the_bytes_and_the_stamp() {
        let hash =
            |stamp_ms, bytes: &'static [u8]| payload_hash(&Stamped { stamp_ms, bytes: Bytes::from_static(bytes) });
        assert_ne!(hash(1, b"a"), hash(2, b"a"));
        assert_ne!(hash(1, b"a"), hash(1, b"b"));
        assert_eq!(hash(1_700_000_000_000, b"entry"), xxh3_128_with_seed(b"entry", 1_700_000_000_000));
    }
}
