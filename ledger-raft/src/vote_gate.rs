//! Whether a replica may vote and lead, as far as its own memory goes.
//!
//! **What it is.** A replica under repair has forgotten votes that it may have given. One that has
//! just started does not know whether its disk went back: it asks the other voters what they
//! remember of it, and votes once those that answered are a quorum with it. A replica without
//! members may have had some: it asks the founders of its group.
//!
//! **Owns** these two reasons and the question. **Must never** open before a quorum was heard.
//! **Read next**: [`crate::memory`], [`crate::repair`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use crate::api::NodeId;
use crate::codec::malformed;
use crate::group::{GroupCore, Raft};
use crate::limits::{REMEMBERED_ASK_AGAIN, REMEMBERED_ASK_LATE, REMEMBERED_WITHIN};
use crate::memory::Acknowledged;
use crate::transport::frame::Kind;
use crate::types::Membership;
use crate::{repair, unreadable};

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
fn apply(core: &GroupCore) {
    if let Some(raft) = &core.raft {
        raft.runtime_config().elect(core.gate.is_open() && unreadable::may_lead(core));
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

/// Asks the other voters what this replica acknowledged at most, until each has answered once: a
/// late answer may still find that the disk went back.
pub(crate) async fn ask(core: Arc<GroupCore>) {
    let _stopped = core.stop.clone().run_until_cancelled_owned(ask_all(core)).await;
}

async fn ask_all(core: Arc<GroupCore>) {
    let Some(raft) = &core.raft else { return };
    // Whether each that answered is whole.
    let mut answered: BTreeMap<u64, bool> = BTreeMap::new();
    loop {
        let Some(members) = membership(raft, &core.founders).await else { return };
        let open = core.gate.is_remembered();
        let due = |voter: &u64| match answered.get(voter) {
            None => true,
            // One that was damaged may be whole again.
            Some(whole) => !whole && !open,
        };
        let voters: BTreeSet<u64> = members.voter_ids().filter(|voter| *voter != core.node.0 && due(voter)).collect();
        if voters.is_empty() && open {
            return;
        }
        let asked = voters.iter().map(|voter| {
            let addr = members.get_node(voter).map(|peer| peer.addr.clone()).unwrap_or_default();
            ask_one(&core, *voter, addr)
        });
        for (voter, answer) in futures::future::join_all(asked).await {
            let Ok((whole, remembered)) = answer else { continue };
            if let Some(remembered) = remembered
                && core.memory.hear_of_me(&remembered).is_err()
            {
                let _why = repair::went_back(&core, &remembered);
                return;
            }
            answered.insert(voter, whole);
        }
        let heard = answered.iter().filter(|(_, whole)| **whole).map(|(voter, _)| *voter).collect();
        if !open && is_quorum(core.node, members.get_joint_config(), &heard) {
            core.gate.remembered.send_replace(true);
            apply(&core);
            tracing::debug!(group = core.id.0, ?heard, "the replica votes: others remember no more than it has");
            continue;
        }
        tokio::time::sleep(if open { REMEMBERED_ASK_LATE } else { REMEMBERED_ASK_AGAIN }).await;
    }
}

async fn ask_one(core: &GroupCore, voter: u64, addr: String) -> (u64, io::Result<(bool, Option<Acknowledged>)>) {
    let link = core.links.to(NodeId(voter), &addr).control;
    let asked = link.call(Kind::Acknowledgements, core.id.0, Bytes::new(), REMEMBERED_WITHIN).await;
    (voter, asked.and_then(|mut body| take_answer(&mut body)))
}

/// What this replica remembers of the one that asks: whole 1, present 1, then the acknowledgement.
pub(crate) fn answer(core: &GroupCore, from: NodeId) -> Bytes {
    let whole = core.store.log().damage().is_none() && core.gate.is_repaired();
    if !whole {
        core.vote_declined();
    }
    let remembered = core.memory.of(from);
    let mut b = BytesMut::new();
    b.put_u8(u8::from(whole));
    b.put_u8(u8::from(remembered.is_some()));
    remembered.into_iter().for_each(|one| one.put(&mut b));
    b.freeze()
}

fn take_answer(body: &mut Bytes) -> io::Result<(bool, Option<Acknowledged>)> {
    let wrong = |_| malformed("acknowledgements");
    let whole = body.try_get_u8().map_err(wrong)?;
    let present = body.try_get_u8().map_err(wrong)?;
    match (whole, present) {
        (0 | 1, 0) => Ok((whole == 1, None)),
        (0 | 1, 1) => Ok((whole == 1, Some(Acknowledged::take(body)?))),
        _ => Err(malformed("acknowledgements")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn an_answer_that_is_none_is_malformed() {
        let take = |bytes: &'static [u8]| take_answer(&mut Bytes::from_static(bytes));
        assert_eq!(take(&[1, 0]).expect("nothing remembered"), (true, None));
        assert_eq!(take(&[0, 0]).expect("damaged"), (false, None));
        for bad in [&[][..], &[1], &[2, 0], &[1, 2], &[1, 1], &[1, 1, 0, 0, 0]] {
            assert!(take(bad).is_err(), "{bad:?}");
        }
    }
}
