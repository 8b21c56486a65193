//! What the members of a group have acknowledged at most, as others remember it.
//!
//! **What it is.** A disk that went back to an older state as a whole looks like a crash of that
//! moment: nothing on it says that more was promised. The other members know: a leader counts what
//! each follower acknowledged, and sends that with its appends; who receives it keeps it in its log.
//! A member that hears of more than it has has lost something.
//!
//! The comparison is by the *leader's* term at the acknowledgement, not by the entry's. A later vote
//! lies behind the acknowledgement in the same log, so it is not lost; and only a leader of a later
//! term may have cut the entries since. The last entry alone would call each legitimate truncation a
//! loss.
//!
//! **Owns** the comparison and the bytes. **Must never** wait or touch the disk. **Read next**:
//! `docs/decisions/0016-memory-of-others.md`.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BufMut};

use crate::api::NodeId;
use crate::codec::{checked_index, checked_term, malformed};
use crate::limits::{ACKNOWLEDGED_TERMS_MAX, MEMBERS_MAX};
use crate::types::{LogId, log_id};

/// Bytes of one member's acknowledgement: node 8, leader's term 8, entry's term 8, index 8.
const ACKNOWLEDGED_BYTES: usize = 32;

/// The most that a member has acknowledged, as another one knows: to the leader of which term, and
/// how far its log matched. Of two, the one of the later leader counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    pub(crate) leader_term: u64,
    pub(crate) last: LogId,
}

impl Acknowledged {
    /// Leader's term 8, entry's term 8, index 8.
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        for number in [self.leader_term, self.last.leader_id.term, self.last.index] {
            out.put_u64_le(number);
        }
    }

    pub(crate) fn take(bytes: &mut impl Buf) -> io::Result<Self> {
        let wrong = |_| malformed("acknowledgement");
        let leader_term = checked_term(bytes.try_get_u64_le().map_err(wrong)?)?;
        let term = checked_term(bytes.try_get_u64_le().map_err(wrong)?)?;
        let last = log_id(term, checked_index(bytes.try_get_u64_le().map_err(wrong)?)?);
        if term > leader_term {
            return Err(malformed("acknowledgement: an entry of a later term than the leader's"));
        }
        Ok(Self { leader_term, last })
    }
}

/// What each member has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AcknowledgedBy(BTreeMap<NodeId, Acknowledged>);

impl AcknowledgedBy {
    pub(crate) fn of(&self, node: NodeId) -> Option<Acknowledged> {
        self.0.get(&node).copied()
    }

    /// Whether it is more than was known.
    pub(crate) fn record(&mut self, node: NodeId, acknowledged: Acknowledged) -> bool {
        let full = self.0.len() >= MEMBERS_MAX;
        match self.0.get_mut(&node) {
            Some(known) if *known >= acknowledged => false,
            Some(known) => {
                *known = acknowledged;
                true
            }
            None if full => false,
            None => self.0.insert(node, acknowledged).is_none(),
        }
    }

    /// Whether any of it is more than was known. A node that is not known here yet counts only as a
    /// member: ids that are none would take the room of those that are.
    pub(crate) fn merge(&mut self, other: &Self, is_member: impl Fn(NodeId) -> bool) -> bool {
        let counts = |by: &Self, node: &NodeId| by.0.contains_key(node) || is_member(*node);
        other
            .0
            .iter()
            .fold(false, |more, (node, acknowledged)| counts(self, node) && self.record(*node, *acknowledged) || more)
    }

    /// The latest term of a leader in it.
    pub(crate) fn latest_term(&self) -> u64 {
        self.0.values().map(|acknowledged| acknowledged.leader_term).max().unwrap_or(0)
    }

    pub(crate) fn bytes(&self) -> usize {
        2 + self.0.len() * ACKNOWLEDGED_BYTES
    }

    pub(crate) fn put(&self, out: &mut impl BufMut) {
        out.put_u16_le(self.0.len() as u16);
        for (node, acknowledged) in &self.0 {
            out.put_u64_le(node.0);
            acknowledged.put(out);
        }
    }

    pub(crate) fn take(bytes: &mut impl Buf) -> io::Result<Self> {
        let wrong = || malformed("acknowledgements");
        let count = bytes.try_get_u16_le().map_err(|_| wrong())?.into();
        if count > MEMBERS_MAX || bytes.remaining() < count * ACKNOWLEDGED_BYTES {
            return Err(wrong());
        }
        let mut by = BTreeMap::new();
        for _ in 0..count {
            let node = NodeId(bytes.get_u64_le());
            by.insert(node, Acknowledged::take(bytes)?);
        }
        Ok(Self(by))
    }
}

/// What a replica found on its own disk when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BootState {
    pub(crate) vote_term: u64,
    /// The last entry of the log, or the end of the newest snapshot.
    pub(crate) last: Option<LogId>,
}

/// What a replica has acknowledged since it started: to the leader of each term, how far.
#[derive(Debug, Default)]
pub(crate) struct AcknowledgedHere {
    terms: BTreeMap<u64, LogId>,
    /// Terms through this one are no longer distinguished.
    dropped_through: Option<u64>,
}

impl AcknowledgedHere {
    pub(crate) fn record(&mut self, leader_term: u64, last: LogId) {
        let most = self.terms.entry(leader_term).or_insert(last);
        *most = last.max(*most);
        if self.terms.len() > ACKNOWLEDGED_TERMS_MAX
            && let Some((term, _)) = self.terms.pop_first()
        {
            self.dropped_through = Some(term);
        }
    }

    /// Whether this process may have acknowledged so much.
    fn covers(&self, remembered: &Acknowledged) -> bool {
        self.dropped_through.is_some_and(|dropped| remembered.leader_term <= dropped)
            || self.terms.get(&remembered.leader_term).is_some_and(|last| *last >= remembered.last)
    }
}

/// Whether a replica that began with `boot`, and has acknowledged `here` since, lacks something of
/// what it is remembered to have acknowledged.
pub(crate) fn is_reverted(boot: &BootState, here: &AcknowledgedHere, remembered: &Acknowledged) -> bool {
    if crate::bad!("memory-of-others-ignored") {
        return false;
    }
    // What was lost, rotten or empty has to be noticed on the disk itself there.
    if crate::bad!("rotten-as-torn") {
        return false;
    }
    if crate::bad!("shard-begun-twice") {
        return false;
    }
    if crate::bad!("rejoined-disk-believed") {
        return false;
    }
    // A leader that goes on with such a member is seen only where the member does not notice either.
    if crate::bad!("reverted-follower-accepted") {
        return false;
    }
    let at_boot = boot.vote_term > remembered.leader_term
        || (boot.vote_term == remembered.leader_term && boot.last.is_some_and(|last| last >= remembered.last));
    !at_boot && !here.covers(remembered)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// A leader of the next term, whose log keeps so much of ours, then has so many entries of
        /// the term before its own, and of its own.
        Led { keeps: usize, older: usize, own: usize },
        /// So many entries of the leader's log are taken and acknowledged.
        Takes(usize),
        /// A vote in a later term that no leader came of.
        Votes(u64),
        /// The process is restarted on its disk.
        Restarts,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0usize..12, 0usize..3, 0usize..6).prop_map(|(keeps, older, own)| Step::Led { keeps, older, own }),
            5 => (0usize..5).prop_map(Step::Takes),
            1 => (1u64..3).prop_map(Step::Votes),
            1 => Just(Step::Restarts),
        ]
    }

    /// A disk: the term of the vote, and the terms of the entries from index 1 on.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        vote_term: u64,
        log: Vec<u64>,
    }

    impl Disk {
        fn boot(&self) -> BootState {
            BootState { vote_term: self.vote_term, last: self.last() }
        }

        fn last(&self) -> Option<LogId> {
            self.log.last().map(|term| log_id(*term, self.log.len() as u64))
        }

        fn has(&self, id: &LogId) -> bool {
            self.log.get(id.index as usize - 1) == Some(&id.leader_id.term)
        }

        /// What a follower does with the first entries of its leader's log.
        fn take(&mut self, leader: &[u64]) {
            let same = self.log.iter().zip(leader).take_while(|(ours, theirs)| ours == theirs).count();
            if same < leader.len() {
                self.log.truncate(same);
                self.log.extend(&leader[same..]);
            }
        }
    }

    /// A replica and what all others may remember of it.
    #[derive(Default)]
    struct Model {
        disk: Disk,
        boot: BootState,
        here: AcknowledgedHere,
        leader: Option<(u64, Vec<u64>)>,
        matched: usize,
        acknowledged: Vec<Acknowledged>,
        /// Older states of the disk, with the number of acknowledgements by then.
        older: Vec<(Disk, usize)>,
    }

    impl Model {
        fn step(&mut self, step: &Step) {
            self.older.push((self.disk.clone(), self.acknowledged.len()));
            match *step {
                Step::Led { keeps, older, own } => {
                    let term = self.disk.vote_term + 2;
                    let mut log = self.disk.log[..keeps.min(self.disk.log.len())].to_vec();
                    let before = log.last().map_or(term - 1, |last| (*last).max(term - 1));
                    log.extend(std::iter::repeat_n(before, older).chain(std::iter::repeat_n(term, own)));
                    (self.leader, self.matched) = (Some((term, log)), 0);
                }
                Step::Takes(count) => {
                    let Some((term, log)) = self.leader.as_ref().filter(|(term, _)| *term >= self.disk.vote_term)
                    else {
                        return;
                    };
                    self.disk.vote_term = *term;
                    // Between the vote and the entries the disk may be copied, too.
                    self.older.push((self.disk.clone(), self.acknowledged.len()));
                    self.matched = (self.matched + count).min(log.len());
                    self.disk.take(&log[..self.matched]);
                    if self.matched > 0 {
                        let last = log_id(log[self.matched - 1], self.matched as u64);
                        self.here.record(*term, last);
                        self.acknowledged.push(Acknowledged { leader_term: *term, last });
                    }
                }
                Step::Votes(terms) => self.disk.vote_term += terms,
                Step::Restarts => (self.boot, self.here) = (self.disk.boot(), AcknowledgedHere::default()),
            }
        }

        fn remembered(&self) -> Option<Acknowledged> {
            let mut by = AcknowledgedBy::default();
            for one in &self.acknowledged {
                by.record(NodeId(1), *one);
            }
            by.of(NodeId(1))
        }
    }

    proptest! {
        #[test]
        fn a_disk_that_went_back_is_noticed_and_no_other(steps in prop::collection::vec(step(), 1..60)) {
            let mut model = Model::default();
            for step in &steps {
                model.step(step);
                for one in &model.acknowledged {
                    prop_assert!(!is_reverted(&model.boot, &model.here, one), "running: {one:?} after {step:?}");
                    let restarted = is_reverted(&model.disk.boot(), &AcknowledgedHere::default(), one);
                    prop_assert!(!restarted, "restarted: {one:?} after {step:?}");
                }
            }
            let Some(most) = model.remembered() else { return Ok(()) };
            for (disk, by_then) in &model.older {
                // An entry counts for a commit only in its leader's own term.
                let mut since = model.acknowledged[*by_then..].iter();
                let lacks = since.any(|one| one.last.leader_id.term == one.leader_term && !disk.has(&one.last));
                if lacks {
                    prop_assert!(is_reverted(&disk.boot(), &AcknowledgedHere::default(), &most), "{disk:?} lacks {most:?}");
                }
            }
        }
    }

    #[test]
    fn acknowledgements_of_forgotten_terms_are_taken_for_this_run_s() {
        let mut here = AcknowledgedHere::default();
        let terms = 1..=ACKNOWLEDGED_TERMS_MAX as u64 + 3;
        terms.clone().for_each(|term| here.record(term, log_id(term, term)));
        for term in terms {
            let one = Acknowledged { leader_term: term, last: log_id(term, term) };
            assert!(!is_reverted(&BootState::default(), &here, &one), "term {term}");
        }
        let more = Acknowledged { leader_term: 60, last: log_id(60, 61) };
        assert!(is_reverted(&BootState::default(), &here, &more));
    }

    #[test]
    fn members_alone_are_taken_over_and_no_more_than_there_may_be() {
        let one = |index| Acknowledged { leader_term: 7, last: log_id(7, index) };
        let of = |ids: std::ops::RangeInclusive<u64>, index| {
            AcknowledgedBy(ids.map(|id| (NodeId(id), one(index))).collect())
        };
        let mut by = of(1..=1, 4);
        assert!(!by.merge(&of(2..=9, 5), |_| false), "nobody knows them");
        assert!(by.merge(&of(1..=3, 5), |node| node.0 == 3), "more of one, and a member");
        assert_eq!(by, AcknowledgedBy(BTreeMap::from([(NodeId(1), one(5)), (NodeId(3), one(5))])));
        assert!(!by.merge(&of(1..=3, 5), |node| node.0 == 3), "no news");
        assert!(by.merge(&of(1..=100, 6), |_| true));
        assert_eq!(by.0.len(), MEMBERS_MAX);
        assert_eq!(by.of(NodeId(1)), Some(one(6)));
    }

    /// Golden bytes: a change here is a new format of the log and a new peer protocol.
    #[test]
    fn acknowledgements_keep_their_bytes() {
        let mut by = AcknowledgedBy::default();
        let one = Acknowledged { leader_term: 7, last: log_id(6, 5) };
        assert!(by.record(NodeId(3), one));
        assert!(
            !by.record(NodeId(3), one) && !by.record(NodeId(3), Acknowledged { leader_term: 6, last: log_id(6, 9) })
        );
        let mut bytes = Vec::new();
        by.put(&mut bytes);
        let mut golden = [0; 34];
        (golden[0], golden[2], golden[10], golden[18], golden[26]) = (1, 3, 7, 6, 5);
        assert_eq!(bytes, golden);
        assert_eq!(bytes.len(), by.bytes());
        assert_eq!(AcknowledgedBy::take(&mut &bytes[..]).expect("whole"), by);
        for cut in 0..bytes.len() {
            assert!(AcknowledgedBy::take(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
        for (at, byte) in [(1, 1), (17, 0xff), (10, 5)] {
            let mut bad = bytes.clone();
            bad[at] = byte;
            assert!(AcknowledgedBy::take(&mut &bad[..]).is_err(), "byte {at}");
        }
    }
}
