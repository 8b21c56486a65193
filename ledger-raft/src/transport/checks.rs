//! What a peer's message has to satisfy before openraft sees it.
//!
//! **What it is.** openraft asserts its own invariants, and adds one to whatever term it adopts. A message that no member following the
//! protocol can send is refused here instead, so that it ends neither this node nor, by a term that nobody can outbid, the group.
//!
//! **Owns** these rules; bounds of single numbers are the codec's. **Must never** refuse what a correct member sends, however long this
//! replica was away. **Read next**: [`super::server`], [`super::network`].

use std::io;

use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteResponse};

use crate::api::NodeId;
use crate::codec::{StreamAnswer, malformed};
use crate::limits::TERM_STEP_MAX;
use crate::types::{LogId, Types, Vote};

/// What this replica knows when a message arrives; both may be a little old.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    pub(crate) term: u64,
    pub(crate) committed: Option<LogId>,
}

/// A term that follows `known`, though perhaps after a long absence.
fn term_follows(term: u64, known: u64) -> io::Result<()> {
    match term.saturating_sub(known) <= TERM_STEP_MAX {
        true => Ok(()),
        false => Err(malformed(&format!("term: {term} cannot follow {known}"))),
    }
}

/// A candidate's or a leader's own vote: nobody speaks for others, so none is taken for this node's either.
pub(crate) fn vote(vote: &Vote, of_leader: bool, from: NodeId, known: &Known) -> io::Result<()> {
    if vote.leader_id.voted_for != from.0 {
        return Err(malformed(&format!("vote: node {} sends the vote of node {}", from.0, vote.leader_id.voted_for)));
    }
    if vote.committed != of_leader {
        return Err(malformed("vote: a leader's where a candidate's belongs, or the other way round"));
    }
    term_follows(vote.leader_id.term, known.term)
}

/// A leader's entries: terms rise, none lies above the leader's own, and none contradicts what is committed here.
pub(crate) fn append(r: &AppendEntriesRequest<Types>, from: NodeId, known: &Known) -> io::Result<()> {
    vote(&r.vote, true, from, known)?;
    let ids = || r.prev_log_id.iter().chain(r.entries.iter().map(|entry| &entry.log_id));
    let mut before = 0;
    for id in ids() {
        if id.leader_id.term < before {
            return Err(malformed("append entries: terms fall"));
        }
        before = id.leader_id.term;
    }
    let commit = r.leader_commit.as_ref().map_or(0, |id| id.leader_id.term);
    if before.max(commit) > r.vote.leader_id.term {
        return Err(malformed("append entries: a term above the leader's"));
    }
    if let Some(committed) = &known.committed
        && ids().any(|id| id.index <= committed.index && id > committed)
    {
        return Err(malformed("append entries: they contradict what is committed here"));
    }
    Ok(())
}

/// A leader's snapshot: not of a later term than its own, and beyond what is committed here only by index and term alike.
pub(crate) fn snapshot(leader: &Vote, last: &LogId, known: &Known) -> io::Result<()> {
    if last.leader_id.term > leader.leader_id.term {
        return Err(malformed("snapshot: its term is above the leader's"));
    }
    if known.committed.as_ref().is_some_and(|committed| last > committed && last.index <= committed.index) {
        return Err(malformed("snapshot: it contradicts what is committed here"));
    }
    Ok(())
}

/// The answer to a request for a vote in `term`.
pub(crate) fn vote_answer(answer: VoteResponse<Types>, term: u64) -> io::Result<VoteResponse<Types>> {
    term_follows(answer.vote.leader_id.term, term)?;
    Ok(answer)
}

/// The vote in an answer to a leader of `term`.
pub(crate) fn higher_vote(vote: Vote, term: u64) -> io::Result<Vote> {
    term_follows(vote.leader_id.term, term)?;
    Ok(vote)
}

/// The vote that a voter names to a replica that has just started, and that knows `term`.
pub(crate) fn named_vote(vote: Option<&Vote>, term: u64) -> io::Result<()> {
    vote.map_or(Ok(()), |vote| term_follows(vote.leader_id.term, term))
}

/// What was sent, as far as an answer to it is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) term: u64,
    pub(crate) prev: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

impl Asked {
    pub(crate) fn of(r: &AppendEntriesRequest<Types>) -> Self {
        let last = r.entries.last().map(|entry| entry.log_id).or(r.prev_log_id);
        Self { term: r.vote.leader_id.term, prev: r.prev_log_id, last }
    }
}

/// A follower matches no further than was sent to it, and disputes nothing but where the entries sent begin.
pub(crate) fn append_answer(answer: StreamAnswer, asked: &Asked) -> io::Result<StreamAnswer> {
    match &answer {
        Ok(matching) if *matching > asked.last => {
            return Err(malformed("append answer: it matches more than was sent"));
        }
        Err(StreamAppendError::Conflict(at)) if asked.prev.is_none_or(|prev| at.index > prev.index) => {
            return Err(malformed("append answer: a conflict with what was not sent"));
        }
        Err(StreamAppendError::HigherVote(vote)) => term_follows(vote.leader_id.term, asked.term)?,
        Ok(_) | Err(StreamAppendError::Conflict(_)) => {}
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::vote::RaftVote;

    use super::*;
    use crate::limits::TERM_MAX;
    use crate::types::{Entry, LeaderId, log_id};

    const LEADER: NodeId = NodeId(2);

    fn leader(term: u64) -> Vote {
        Vote::from_leader_id(LeaderId { term, voted_for: LEADER.0 }, true)
    }

    fn request(
        term: u64,
        prev: Option<LogId>,
        entries: &[LogId],
        commit: Option<LogId>,
    ) -> AppendEntriesRequest<Types> {
        let entry = |id: &LogId| Entry { log_id: *id, payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: leader(term),
            prev_log_id: prev,
            entries: entries.iter().map(entry).collect(),
            leader_commit: commit,
        }
    }

    fn known(term: u64, committed: LogId) -> Known {
        Known { term, committed: Some(committed) }
    }

    #[test]
    fn a_term_step_beyond_any_absence_is_refused() {
        let at = known(7, log_id(7, 9));
        assert!(vote(&leader(7 + TERM_STEP_MAX), true, LEADER, &at).is_ok());
        for term in [8 + TERM_STEP_MAX, TERM_MAX, u64::MAX] {
            assert!(vote(&leader(term), true, LEADER, &at).is_err(), "term {term}");
        }
        assert!(vote(&leader(0), true, LEADER, &at).is_ok(), "openraft answers an old term itself");
        assert!(named_vote(Some(&leader(7 + TERM_STEP_MAX)), 7).is_ok());
        assert!(named_vote(Some(&leader(8 + TERM_STEP_MAX)), 7).is_err());
        assert!(named_vote(None, 7).is_ok());
    }

    #[test]
    fn a_vote_of_another_node_or_of_another_kind_is_refused() {
        let at = known(7, log_id(7, 9));
        assert!(vote(&leader(8), true, NodeId(3), &at).is_err());
        assert!(vote(&leader(8), false, LEADER, &at).is_err());
    }

    #[test]
    fn entries_that_no_leader_sends_are_refused() {
        let at = known(5, log_id(5, 10));
        let sent = |prev, entries: &[LogId], commit| append(&request(7, prev, entries, commit), LEADER, &at);
        assert!(sent(Some(log_id(5, 10)), &[log_id(6, 11), log_id(7, 12)], Some(log_id(7, 12))).is_ok());
        assert!(sent(None, &[log_id(0, 0), log_id(1, 1)], None).is_ok(), "from the beginning");
        assert!(sent(Some(log_id(5, 10)), &[log_id(7, 11), log_id(6, 12)], None).is_err(), "terms fall");
        assert!(sent(Some(log_id(6, 11)), &[log_id(5, 12)], None).is_err(), "terms fall behind the one before");
        assert!(sent(Some(log_id(5, 10)), &[log_id(8, 11)], None).is_err(), "above the leader's term");
        assert!(sent(Some(log_id(5, 10)), &[], Some(log_id(8, 11))).is_err(), "committed above the leader's term");
        assert!(sent(Some(log_id(6, 10)), &[], None).is_err(), "another entry is committed there");
        assert!(sent(Some(log_id(5, 8)), &[log_id(5, 9), log_id(7, 10)], None).is_err(), "and there");
    }

    #[test]
    fn a_snapshot_that_contradicts_its_leader_or_the_log_is_refused() {
        let at = known(5, log_id(5, 10));
        assert!(snapshot(&leader(7), &log_id(7, 11), &at).is_ok());
        assert!(snapshot(&leader(7), &log_id(5, 9), &at).is_ok(), "openraft has no use for it");
        assert!(snapshot(&leader(7), &log_id(8, 11), &at).is_err());
        assert!(snapshot(&leader(7), &log_id(6, 10), &at).is_err());
    }

    #[test]
    fn an_answer_says_nothing_of_what_was_not_sent() {
        let asked = Asked::of(&request(7, Some(log_id(7, 4)), &[log_id(7, 5)], None));
        for good in [Ok(Some(log_id(7, 5))), Ok(None), Err(StreamAppendError::Conflict(log_id(7, 4)))] {
            assert!(append_answer(good, &asked).is_ok());
        }
        let higher = |term| Err(StreamAppendError::HigherVote(leader(term)));
        assert!(append_answer(higher(8), &asked).is_ok());
        for bad in [
            Ok(Some(log_id(7, 6))),
            Ok(Some(log_id(8, 5))),
            Err(StreamAppendError::Conflict(log_id(7, 5))),
            higher(8 + TERM_STEP_MAX),
        ] {
            assert!(append_answer(bad, &asked).is_err());
        }
        let first = Asked::of(&request(7, None, &[log_id(0, 0)], None));
        assert!(append_answer(Err(StreamAppendError::Conflict(log_id(0, 0))), &first).is_err());
    }
}
