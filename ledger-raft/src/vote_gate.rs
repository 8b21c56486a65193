//! Whether a replica may vote and lead, as far as its own memory goes.
//!
//! **What it is.** A replica under repair has forgotten votes that it may have given. One that has
//! just started does not know whether its disk went back: it asks the other voters what they
//! remember of it, and votes once those that answered are a quorum with it. A replica without
//! members may have had some: it asks the founders of its group.
//!
//! Votes that the disk forgot are not given again either: the answers name the terms that others
//! know, and the replica saves a vote in the latest of them before it votes.
//!
//! **Owns** these two reasons and the question. **Must never** open before a quorum was heard, or
//! with a vote in an earlier term than those that were heard.
//! **Read next**: [`crate::memory`], [`crate::repair`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use openraft::raft::VoteRequest;
use openraft::vote::RaftVote;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::NodeId;
use crate::codec::{self, malformed};
use crate::group::{GroupCore, Raft};
use crate::limits::{
    INDEX_MAX, REMEMBERED_ASK_AGAIN, REMEMBERED_ASK_LATE, REMEMBERED_GRACE, REMEMBERED_LOOK, REMEMBERED_WITHIN,
    TERM_MAX,
};
use crate::memory::Acknowledged;
use crate::repair;
use crate::transport::checks;
use crate::transport::frame::Kind;
use crate::types::{LeaderId, Membership, Vote, log_id};

/// What holds a replica back from voting.
#[derive(Debug)]
pub(crate) struct VoteGate {
    repaired: AtomicBool,
    remembered: watch::Sender<bool>,
}

impl VoteGate {
    /// Of a replica under repair or not, with voters to ask or none.
    pub(crate) fn new(repaired: bool, remembered: bool) -> Self {
        Self { repaired: AtomicBool::new(repaired), remembered: watch::Sender::new(remembered) }
    }

    /// Whether no repair is under way.
    pub(crate) fn is_repaired(&self) -> bool {
        self.repaired.load(Ordering::Acquire)
    }

    /// Whether a quorum has said what it remembers.
    pub(crate) fn is_remembered(&self) -> bool {
        *self.remembered.borrow()
    }

    /// Waits until a quorum has said what it remembers.
    ///
    /// # Errors
    /// Not within this time.
    pub(crate) async fn remembered(&self, within: Duration) -> io::Result<()> {
        let mut remembered = self.remembered.subscribe();
        match tokio::time::timeout(within, remembered.wait_for(|remembered| *remembered)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no majority of the voters has said yet that this replica's disk did not go back",
            )),
        }
    }

    /// Whether the replica may vote and, if it can decode what is committed, lead.
    pub(crate) fn is_open(&self) -> bool {
        self.is_repaired() && self.is_remembered()
    }
}

/// The repair is done.
pub(crate) fn repaired(core: &GroupCore) {
    core.gate.repaired.store(true, Ordering::Release);
    apply(core);
}

/// Lets openraft campaign, or not.
pub(crate) fn apply(core: &GroupCore) {
    if let Some(raft) = &core.raft {
        raft.runtime_config().elect(core.may_stand());
    }
}

/// The membership that the replica has begun with, or got since. Without one the founders' stands
/// for it: the disk may be older than the replica's first entry.
pub(crate) async fn membership(raft: &Raft, founders: &Membership) -> Option<Membership> {
    let own = raft.with_raft_state(|state| state.membership_state.effective().membership().clone()).await.ok()?;
    Some(if own.voter_ids().next().is_some() { own } else { founders.clone() })
}

/// Whether this replica is a voter, and there is no other that could remember anything.
pub(crate) fn is_alone(me: NodeId, members: &Membership) -> bool {
    members.voter_ids().collect::<BTreeSet<_>>() == BTreeSet::from([me.0])
}

/// Whether these voters, with this replica, are a majority of each configuration. Without any nobody
/// is known who would have to be asked.
fn is_quorum(me: NodeId, configs: &[BTreeSet<u64>], heard: &BTreeSet<u64>) -> bool {
    let has_majority = |config: &BTreeSet<u64>| {
        let there = config.iter().filter(|voter| **voter == me.0 || heard.contains(voter)).count();
        there > config.len() / 2
    };
    !configs.is_empty() && configs.iter().all(has_majority)
}

/// What a voter says of the replica that asks, and of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// It has forgotten nothing: it is neither damaged nor under repair.
    whole: bool,
    /// The vote that it has given last.
    vote: Option<Vote>,
    /// What the replica acknowledged at most.
    remembered: Option<Acknowledged>,
}

impl Answer {
    /// whole 1, vote present 1, acknowledgement present 1, then the vote and the acknowledgement.
    fn put(&self, out: &mut impl BufMut) {
        for present in [self.whole, self.vote.is_some(), self.remembered.is_some()] {
            out.put_u8(u8::from(present));
        }
        self.vote.iter().for_each(|vote| codec::put_vote(out, vote));
        self.remembered.iter().for_each(|one| one.put(out));
    }

    pub(crate) fn take(body: &mut impl Buf) -> io::Result<Self> {
        let mut flag = || match body.try_get_u8() {
            Ok(flag @ (0 | 1)) => Ok(flag == 1),
            _ => Err(malformed("acknowledgements")),
        };
        let (whole, has_vote, is_remembered) = (flag()?, flag()?, flag()?);
        let vote = if has_vote { Some(codec::take_vote(body)?) } else { None };
        let remembered = if is_remembered { Some(Acknowledged::take(body)?) } else { None };
        Ok(Self { whole, vote, remembered })
    }

    /// An answer to a replica that knows `term`: a vote that cannot follow it is malformed.
    fn take_after(body: &mut impl Buf, term: u64) -> io::Result<Self> {
        let answer = Self::take(body)?;
        checks::named_vote(answer.vote.as_ref(), term)?;
        Ok(answer)
    }
}

/// Answers a replica that has just started.
pub(crate) fn answer(core: &GroupCore, from: NodeId) -> io::Result<Bytes> {
    let whole = core.store.log().damage().is_none() && core.gate.is_repaired();
    if !whole {
        core.vote_declined();
    }
    // It is there: who is about to ask it waits for no pause between dials.
    core.links.to(from, "").control.is_back();
    // A vote that cannot be read is damage.
    let vote = core.store.vote().ok().flatten();
    let mut b = BytesMut::new();
    Answer { whole, vote, remembered: core.memory.of(from) }.put(&mut b);
    Ok(b.freeze())
}

/// Asks the other voters what this replica acknowledged at most, until each has answered once: a
/// late answer may still find that the disk went back.
pub(crate) async fn ask(core: Arc<GroupCore>) {
    let _stopped = core.stop.clone().run_until_cancelled_owned(ask_all(core)).await;
}

async fn ask_all(core: Arc<GroupCore>) {
    let Some(raft) = &core.raft else { return };
    let mut answered: BTreeMap<u64, Answer> = BTreeMap::new();
    let mut asking = FuturesUnordered::new();
    let mut asked: BTreeSet<u64> = BTreeSet::new();
    let mut open_at: Option<Instant> = None;
    loop {
        let Some(members) = membership(raft, &core.founders).await else { return };
        let open = core.gate.is_remembered();
        for voter in members.voter_ids().filter(|voter| *voter != core.node.0) {
            // One that was damaged may be whole again.
            let is_due = answered.get(&voter).is_none_or(|answer| !answer.whole && !open);
            if is_due && asked.insert(voter) {
                let addr = members.get_node(&voter).map(|peer| peer.addr.clone()).unwrap_or_default();
                asking.push(ask_until_answered(&core, voter, addr, answered.contains_key(&voter)));
            }
        }
        if open && asking.is_empty() {
            return;
        }
        let whole = answered.iter().filter(|(_, answer)| answer.whole).map(|(voter, _)| *voter).collect();
        let now = Instant::now();
        let mut until = now + REMEMBERED_LOOK;
        let mut may_open = false;
        if !open && is_quorum(core.node, members.get_joint_config(), &whole) {
            let due = *open_at.get_or_insert(now + REMEMBERED_GRACE);
            may_open = asking.is_empty() || now >= due;
            until = due;
        }
        let next = if may_open {
            if !take_vote(&core, raft, &answered).await {
                continue;
            }
            // An answer that has come meanwhile counts before the replica votes.
            let Some(Some(next)) = asking.next().now_or_never() else {
                core.gate.remembered.send_replace(true);
                core.status.send_modify(|status| status.awaits_voters = false);
                apply(&core);
                let group = core.id.0;
                tracing::debug!(group, heard = ?whole, "the replica votes: others remember no more than it has");
                continue;
            };
            next
        } else if asking.is_empty() {
            tokio::time::sleep_until(until).await;
            continue;
        } else {
            let Ok(Some(next)) = tokio::time::timeout_at(until, asking.next()).await else { continue };
            next
        };
        let (voter, answer) = next;
        asked.remove(&voter);
        if let Some(remembered) = &answer.remembered
            && core.memory.hear_of_me(remembered).is_err()
        {
            let _why = repair::went_back(&core, remembered);
            return;
        }
        answered.insert(voter, answer);
        if open {
            // A late answer's term counts, too: from here on no forgotten vote in it is given again.
            take_vote(&core, raft, &answered).await;
        }
    }
}

/// Asks a voter again and again. One that has `answered` already is asked after a pause.
async fn ask_until_answered(core: &GroupCore, voter: u64, addr: String, answered: bool) -> (u64, Answer) {
    let mut pause = answered;
    loop {
        if pause {
            let open = core.gate.is_remembered();
            tokio::time::sleep(if open { REMEMBERED_ASK_LATE } else { REMEMBERED_ASK_AGAIN }).await;
        }
        pause = true;
        let link = core.links.to(NodeId(voter), &addr).control;
        let body = link.call(Kind::Acknowledgements, core.id.0, Bytes::new(), REMEMBERED_WITHIN).await;
        match body.and_then(|mut body| Answer::take_after(&mut body, core.known().term)) {
            Ok(answer) => return (voter, answer),
            Err(error) => tracing::debug!(group = core.id.0, voter, %error, "no answer of what a voter remembers"),
        }
    }
}

/// No node has this id.
const NOBODY: u64 = 0;

/// Saves a vote in the latest term that the others know, so that none is given a second time in a
/// term of which the disk may have forgotten it. Whether it is saved, or a later one is.
///
/// A candidate saves its own vote before it asks for another, so each vote of this replica was given
/// in a term that its candidate knows. It is for nobody: no candidate gets it, and a leader of that
/// term is followed all the same. Were it for this replica, one that leads or stands for election in
/// an earlier term would go on with that beside a later vote.
async fn take_vote(core: &GroupCore, raft: &Raft, answered: &BTreeMap<u64, Answer>) -> bool {
    let heard = latest_term(answered.values());
    let Ok(own) = core.store.vote() else { return false };
    if own.map_or(0, |vote| vote.leader_id.term) >= heard {
        return true;
    }
    let vote = Vote::from_leader_id(LeaderId { term: heard, voted_for: NOBODY }, false);
    let mut request = VoteRequest::new(vote, Some(log_id(TERM_MAX, INDEX_MAX)));
    // A leader of an earlier term does not hold it up by its lease.
    request.leadership_transfer = true;
    match core.seeded(raft.vote(request)).await {
        Ok(response) => {
            tracing::info!(group = core.id.0, term = heard, "the replica votes in no term that others know already");
            response.vote.leader_id.term >= heard
        }
        Err(_ended) => false,
    }
}

/// The latest term in which one of these has voted.
fn latest_term<'a>(answers: impl Iterator<Item = &'a Answer>) -> u64 {
    answers.filter_map(|answer| answer.vote).map(|vote| vote.leader_id.term).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TERM_STEP_MAX;
    use crate::testing::{leads_above, lone_node};
    use crate::types::Peer;

    #[test]
    fn a_quorum_of_each_configuration_must_have_answered() {
        let config = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let me = NodeId(1);
        let three = [config(&[1, 2, 3])];
        assert!(!is_quorum(me, &three, &config(&[])));
        assert!(is_quorum(me, &three, &config(&[3])));
        let joint = [config(&[1, 2, 3]), config(&[1, 4, 5])];
        assert!(!is_quorum(me, &joint, &config(&[2, 3])), "nobody of the new one");
        assert!(is_quorum(me, &joint, &config(&[2, 5])));
        assert!(is_quorum(me, &[config(&[1])], &config(&[])), "one voter alone");
        assert!(!is_quorum(me, &[], &config(&[2, 3])), "nobody is known to be a voter");
        assert!(!is_quorum(me, &[config(&[2, 3, 4])], &config(&[2])), "a learner counts for nothing");
    }

    #[test]
    fn a_replica_is_alone_only_as_the_one_voter_that_it_knows() {
        let of = |ids: &[u64]| {
            let nodes: BTreeMap<u64, Peer> = ids.iter().map(|id| (*id, Peer::default())).collect();
            Membership::new(vec![ids.iter().copied().collect()], nodes).expect("members")
        };
        assert!(is_alone(NodeId(1), &of(&[1])));
        assert!(!is_alone(NodeId(1), &of(&[1, 2])));
        assert!(!is_alone(NodeId(1), &of(&[2])), "it is no voter");
        assert!(!is_alone(NodeId(1), &Membership::default()), "it may have forgotten them");
    }

    /// A voter may answer only when this replica leads already.
    #[tokio::test]
    async fn a_leader_that_hears_of_a_later_term_leads_on_only_in_one_beyond() {
        let (node, group) = lone_node().await;
        let later = leads_above(&group, 0).await.term + 3;
        let vote = Some(Vote::from_leader_id(LeaderId { term: later, voted_for: 2 }, true));
        let answers = BTreeMap::from([(2, Answer { whole: true, vote, remembered: None })]);
        let core = group.core();
        assert!(take_vote(core, core.raft.as_ref().expect("it runs"), &answers).await, "saved");
        let status = leads_above(&group, later).await;
        assert_eq!((status.stopped, status.term), (None, later + 1));
        node.shutdown(Duration::ZERO).await;
    }

    /// Golden bytes: a change here is a new peer protocol.
    #[test]
    fn an_answer_keeps_its_bytes_and_what_is_none_is_malformed() {
        let vote = Vote::from_leader_id(LeaderId { term: 9, voted_for: 3 }, true);
        let one = Acknowledged { leader_term: 7, last: log_id(6, 5) };
        let both = Answer { whole: true, vote: Some(vote), remembered: Some(one) };
        let mut bytes = BytesMut::new();
        both.put(&mut bytes);
        let mut golden = [0; 51];
        golden[..3].fill(1);
        (golden[3], golden[11], golden[19], golden[27], golden[35], golden[43]) = (9, 3, 1, 7, 6, 5);
        assert_eq!(bytes[..], golden);
        assert_eq!(Answer::take(&mut &bytes[..]).expect("whole"), both);
        assert!(Answer::take_after(&mut &bytes[..], 1).is_ok());
        let beyond = Vote::from_leader_id(LeaderId { term: 2 + TERM_STEP_MAX, voted_for: 3 }, true);
        let mut above = BytesMut::new();
        Answer { vote: Some(beyond), ..both }.put(&mut above);
        assert!(Answer::take_after(&mut &above[..], 1).is_err(), "a term that nobody can outbid");
        for cut in 0..bytes.len() {
            assert!(Answer::take(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let nothing = Answer { whole: false, vote: None, remembered: None };
        assert_eq!(Answer::take(&mut &[0, 0, 0][..]).expect("damaged"), nothing);
        for bad in [[2, 0, 0], [1, 2, 0], [1, 0, 2]] {
            assert!(Answer::take(&mut &bad[..]).is_err(), "{bad:?}");
        }
        assert_eq!(latest_term([both, nothing].iter()), 9);
    }
}
