//! The leader's clock: a quorum of wall clocks anchors it, elapsed time carries it.
//!
//! **What it is.** A pure state machine, [`ClockQuorum`]; times come in as numbers. A leader's clock is
//! `anchor + elapsed`. The anchor is the median of the readings at the moment a quorum of voters, itself included, agreed
//! within the bound; it is raised to the largest stamp in the leader's log. Afterwards the same quorum of fresh readings must go
//! on agreeing with the elapsed-time clock; while it does not, nothing may be stamped.
//!
//! *Agreed* means: at least a quorum of fresh readings lies within the bound of their median. One voter whose clock is wrong
//! by an hour is outvoted; two voters that contradict each other are no quorum until a third one speaks.
//!
//! When the log's last stamp is ahead of the median (the clocks were set back), the clock starts at the stamp and the
//! difference is carried along: ledger time never goes back and never stands still, and the check compares without it.
//!
//! When the median would take ledger time further ahead than elapsed time can have (a majority of clocks was set ahead while the
//! group had a leader), nothing is stamped until an operator accepts the jump, which raises what is expected. What ledger time
//! is expected to be is known to replicas that heard a leader; after a full stop nobody knows, and the jump is taken.
//!
//! **Owns** the verdict. **Must never** ask for the time. **Read next**: [`crate::group`], which feeds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits::STAMP_MS_MAX;

/// Whether the leader may stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may, until this moment of its own elapsed time, by then the readings are too old.
    Sure { until_ms: u64 },
    /// It may not.
    Unsure,
    /// It may not: the quorum's clocks would take ledger time this much further ahead than elapsed time has.
    Jumped { by_ms: u64 },
}

/// What a replica says of its clock, and what it expects ledger time to be, if it heard a leader since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockAnswer {
    pub(crate) wall_ms: u64,
    pub(crate) expected_ms: Option<u64>,
}

/// One peer's clock: how far its wall clock was ahead of our elapsed time, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    ahead_ms: i64,
    /// By how much the ledger time that it expects is ahead of our elapsed time.
    expected_ahead_ms: Option<i64>,
    at_ms: u64,
}

/// A leader's view of its voters' clocks. All times are milliseconds of the leader's own elapsed time, unless called wall.
#[derive(Debug, Clone)]
pub(crate) struct ClockQuorum {
    me: u64,
    voters: BTreeSet<u64>,
    bound_ms: u64,
    fresh_ms: u64,
    round_trip_max_ms: u64,
    jump_max_ms: u64,
    readings: BTreeMap<u64, Reading>,
    /// Wall time minus elapsed time, fixed when the first quorum agreed.
    anchor_ms: Option<i64>,
    /// Added to the anchor: by how much the log's last stamp was ahead of it.
    carried_ms: u64,
    last_stamp_ms: u64,
    /// By how much ledger time was ahead of the quorum's clocks when they were judged last.
    ahead_ms: u64,
    /// The quorum's clocks then: wall time minus elapsed time.
    median_ms: Option<i64>,
    /// How far the anchor moved ledger time on from the log's last stamp, when nobody knew what to expect.
    unchecked_ms: Option<u64>,
}

impl ClockQuorum {
    pub(crate) fn new(
        me: u64,
        voters: BTreeSet<u64>,
        bound: Duration,
        fresh: Duration,
        round_trip_max: Duration,
        jump_max: Duration,
    ) -> Self {
        Self {
            me,
            voters,
            bound_ms: bound.as_millis() as u64,
            fresh_ms: fresh.as_millis() as u64,
            round_trip_max_ms: round_trip_max.as_millis() as u64,
            jump_max_ms: jump_max.as_millis() as u64,
            readings: BTreeMap::new(),
            anchor_ms: None,
            carried_ms: 0,
            last_stamp_ms: 0,
            ahead_ms: 0,
            median_ms: None,
            unchecked_ms: None,
        }
    }

    /// Members changed; readings of those who left do not count any more.
    pub(crate) fn set_voters(&mut self, voters: BTreeSet<u64>) {
        self.readings.retain(|id, _| voters.contains(id));
        self.voters = voters;
    }

    /// A voter answered; we asked at `asked_ms` and heard at `heard_ms`. Slow answers say nothing.
    pub(crate) fn heard(&mut self, from: u64, answer: ClockAnswer, asked_ms: u64, heard_ms: u64) {
        let round_trip = heard_ms.saturating_sub(asked_ms);
        if !self.voters.contains(&from) || round_trip > self.round_trip_max_ms || answer.wall_ms > STAMP_MS_MAX {
            return;
        }
        let middle = asked_ms.saturating_add(round_trip / 2);
        // Both lie far below 2^63: the wall clock by the bound above, elapsed time by its nature.
        let ahead_of = |time_ms: u64| (time_ms as i64).saturating_sub_unsigned(middle);
        let expected_ahead_ms = answer.expected_ms.filter(|ms| *ms <= STAMP_MS_MAX).map(ahead_of);
        self.readings.insert(from, Reading { ahead_ms: ahead_of(answer.wall_ms), expected_ahead_ms, at_ms: heard_ms });
    }

    /// Judges with what this node says itself at `now_ms`; `log_stamp_ms` is the largest stamp in its log.
    pub(crate) fn judge(&mut self, now_ms: u64, own: ClockAnswer, log_stamp_ms: u64) -> Verdict {
        self.heard(self.me, own, now_ms, now_ms);
        let mut fresh: Vec<Reading> =
            self.readings.values().filter(|r| r.at_ms.saturating_add(self.fresh_ms) > now_ms).copied().collect();
        let mut quorum = self.voters.len() / 2 + 1;
        if crate::bad!("clock-quorum-ignored") {
            (fresh, quorum, self.anchor_ms) = (vec![self.readings[&self.me]], 1, None);
        }
        if fresh.len() < quorum {
            return Verdict::Unsure;
        }
        fresh.sort_by_key(|r| r.ahead_ms);
        let median = median(&fresh);
        let mut agreeing: Vec<u64> =
            fresh.iter().filter(|r| r.ahead_ms.abs_diff(median) <= self.bound_ms).map(|r| r.at_ms).collect();
        if agreeing.len() < quorum {
            return Verdict::Unsure;
        }
        self.median_ms = Some(median);
        // Where nobody else could lead, the clock is anchored anew instead.
        let alone = self.voters.len() == 1 && self.voters.contains(&self.me);
        self.anchor_ms.take_if(|anchor| alone && anchor.abs_diff(median) > self.bound_ms);
        let anchor = match self.anchor_ms {
            Some(anchor) => anchor,
            None => {
                let expected = fresh.iter().filter_map(|r| r.expected_ahead_ms).max();
                if let Err(by_ms) = self.anchor(now_ms, median, log_stamp_ms, expected) {
                    return Verdict::Jumped { by_ms };
                }
                median
            }
        };
        self.ahead_ms = anchor.saturating_sub(median).saturating_add_unsigned(self.carried_ms).max(0) as u64;
        if anchor.abs_diff(median) > self.bound_ms {
            return Verdict::Unsure;
        }
        // The verdict lasts as long as a quorum of the agreeing readings does.
        agreeing.sort_unstable_by(|a, b| b.cmp(a));
        Verdict::Sure { until_ms: agreeing[quorum - 1].saturating_add(self.fresh_ms) }
    }

    /// Anchors the clock at the median, unless it jumped: then by how much.
    fn anchor(&mut self, now_ms: u64, median: i64, log_stamp_ms: u64, expected: Option<i64>) -> Result<(), u64> {
        let at_now = |ahead_ms: i64| ahead_ms.saturating_add_unsigned(now_ms).max(0) as u64;
        let start = at_now(median);
        let last_ms = log_stamp_ms.max(self.last_stamp_ms);
        if let Some(expected) = expected {
            let by_ms = start.saturating_sub(at_now(expected).max(last_ms));
            if by_ms > self.jump_max_ms && !crate::bad!("clock-jump-unchecked") {
                return Err(by_ms);
            }
        }
        // A group without a stamp has nothing to compare with.
        let unchecked = expected.is_none() && last_ms > 0;
        self.unchecked_ms = unchecked.then(|| start.saturating_sub(last_ms));
        self.carried_ms = last_ms.saturating_sub(start);
        self.anchor_ms = Some(median);
        Ok(())
    }

    /// The next stamp; never below the one before. None before the anchor was set, and beyond the last stamp that can be told.
    pub(crate) fn stamp(&mut self, now_ms: u64) -> Option<u64> {
        let base = self.anchor_ms?.saturating_add_unsigned(now_ms).max(0) as u64;
        let stamp = self.last_stamp_ms.max(base.saturating_add(self.carried_ms));
        if stamp > STAMP_MS_MAX {
            return None;
        }
        self.last_stamp_ms = stamp;
        Some(stamp)
    }

    /// By how much ledger time was ahead of the quorum's clocks when they were judged last.
    pub(crate) fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    /// What the quorum's clocks say now, as they were judged last.
    pub(crate) fn quorum_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.median_ms?.saturating_add_unsigned(now_ms).max(0) as u64)
    }

    /// How far the anchor moved ledger time on from the log's last stamp, if nobody knew what to expect. Says it once.
    pub(crate) fn take_unchecked_ms(&mut self) -> Option<u64> {
        self.unchecked_ms.take()
    }
}

/// The middle of a sorted, non-empty list; of an even number the mean of both middles.
fn median(sorted: &[Reading]) -> i64 {
    let n = sorted.len();
    let (low, high) = (sorted[(n - 1) / 2].ahead_ms, sorted[n / 2].ahead_ms);
    low.midpoint(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;
    const JUMP_MAX: Duration = Duration::from_secs(60);

    /// A replica that heard no leader.
    fn says(wall_ms: u64) -> ClockAnswer {
        ClockAnswer { wall_ms, expected_ms: None }
    }
    /// One that heard a leader.
    fn expects(wall_ms: u64, expected_ms: u64) -> ClockAnswer {
        ClockAnswer { wall_ms, expected_ms: Some(expected_ms) }
    }

    fn three() -> ClockQuorum {
        let ms = Duration::from_millis;
        ClockQuorum::new(1, BTreeSet::from([1, 2, 3]), ms(250), ms(10_000), ms(500), JUMP_MAX)
    }

    fn sure(v: Verdict) -> bool {
        matches!(v, Verdict::Sure { .. })
    }

    #[test]
    fn alone_it_is_unsure_and_one_agreeing_peer_makes_it_sure() {
        let mut c = three();
        assert_eq!(c.judge(1000, says(WALL), 0), Verdict::Unsure);
        assert_eq!(c.stamp(1000), None);
        c.heard(2, says(WALL + 100), 1000, 1020);
        assert!(sure(c.judge(1020, says(WALL + 20), 0)));
        let s = c.stamp(1020).unwrap();
        assert!((WALL..WALL + 200).contains(&s), "{s}");
    }

    #[test]
    fn a_single_voter_trusts_itself() {
        let ms = Duration::from_millis;
        let mut c = ClockQuorum::new(1, BTreeSet::from([1]), ms(250), ms(10_000), ms(500), JUMP_MAX);
        assert!(sure(c.judge(5, says(WALL), 0)));
        assert_eq!(c.stamp(6), Some(WALL + 1));
    }

    #[test]
    fn two_that_contradict_wait_for_the_third() {
        let mut c = three();
        c.heard(2, says(WALL + 3_600_000), 0, 0);
        assert_eq!(c.judge(0, says(WALL), 0), Verdict::Unsure);
        c.heard(3, says(WALL + 10), 0, 0);
        assert!(sure(c.judge(0, says(WALL), 0)));
        assert_eq!(c.stamp(0), Some(WALL + 10), "the median, not the mean");
    }

    #[test]
    fn its_own_wrong_clock_is_outvoted() {
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        c.heard(3, says(WALL + 4), 0, 0);
        assert!(sure(c.judge(0, says(WALL - 3_600_000), 0)));
        assert_eq!(c.stamp(0), Some(WALL));
    }

    #[test]
    fn the_log_s_last_stamp_is_never_undercut_and_is_carried_along() {
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), WALL + 5_000)));
        assert_eq!(c.ahead_ms(), 5_000);
        assert_eq!(c.stamp(0), Some(WALL + 5_000));
        assert_eq!(c.stamp(7), Some(WALL + 5_007));
        c.heard(2, says(WALL + 1_000), 1_000, 1_000);
        assert!(sure(c.judge(1_000, says(WALL + 1_000), 0)), "what is carried is no disagreement");
    }

    #[test]
    fn stamps_never_go_back_though_elapsed_time_did() {
        let mut c = three();
        c.heard(2, says(WALL), 100, 100);
        assert!(sure(c.judge(100, says(WALL), 0)));
        let a = c.stamp(150).unwrap();
        assert_eq!(c.stamp(120), Some(a));
    }

    #[test]
    fn old_readings_and_slow_ones_do_not_count() {
        let mut c = three();
        c.heard(2, says(WALL), 0, 501);
        assert_eq!(c.judge(501, says(WALL + 501), 0), Verdict::Unsure, "too slow");
        c.heard(2, says(WALL + 600), 600, 600);
        let v = c.judge(600, says(WALL + 600), 0);
        assert_eq!(v, Verdict::Sure { until_ms: 10_600 });
        assert_eq!(c.judge(10_600, says(WALL + 10_600), 0), Verdict::Unsure, "too old");
    }

    #[test]
    fn a_leader_whose_elapsed_time_drifts_off_becomes_unsure() {
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        c.heard(3, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), 0)));
        // The peers' clocks went on by 10 s while ours counted 9.7.
        c.heard(2, says(WALL + 10_000), 9_700, 9_700);
        c.heard(3, says(WALL + 10_000), 9_700, 9_700);
        assert_eq!(c.judge(9_700, says(WALL + 9_700), 0), Verdict::Unsure);
    }

    #[test]
    fn extreme_readings_and_stamps_count_for_nothing_and_end_nothing() {
        let mut c = three();
        for wall in [u64::MAX, 1 << 63, (1 << 63) - 1, STAMP_MS_MAX + 1] {
            c.heard(2, says(wall), 0, 0);
            c.heard(3, says(wall), u64::MAX - 1, u64::MAX);
            assert_eq!(c.judge(0, says(WALL), 0), Verdict::Unsure, "{wall}");
        }
        c.heard(2, says(0), 0, 0);
        c.heard(3, says(STAMP_MS_MAX), 0, 0);
        assert_eq!(c.judge(0, says(WALL), 0), Verdict::Unsure, "three that contradict each other");
        c.heard(3, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), u64::MAX)));
        assert_eq!(c.stamp(0), None, "nothing can follow the log's last stamp");
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), STAMP_MS_MAX - 1)));
        assert_eq!((c.stamp(0), c.stamp(1), c.stamp(2)), (Some(STAMP_MS_MAX - 1), Some(STAMP_MS_MAX), None));
    }

    #[test]
    fn strangers_have_no_say() {
        let mut c = three();
        c.heard(9, says(WALL), 0, 0);
        assert_eq!(c.judge(0, says(WALL), 0), Verdict::Unsure);
        c.heard(2, says(WALL), 0, 0);
        c.set_voters(BTreeSet::from([1, 3, 4]));
        assert_eq!(c.judge(0, says(WALL), 0), Verdict::Unsure);
    }

    const YEAR: u64 = 365 * 86_400_000;

    #[test]
    fn a_majority_set_a_year_ahead_stamps_nothing_until_it_is_accepted() {
        let mut c = three();
        // This one, whose own clock is right, and one that jumped: ledger time is known from a leader of a moment ago.
        c.heard(2, says(WALL + YEAR), 0, 0);
        c.heard(3, says(WALL + YEAR), 0, 0);
        for now in [0, 100] {
            let own = expects(WALL + now, WALL + now - 40);
            assert_eq!(c.judge(now, own, WALL - 5_000), Verdict::Jumped { by_ms: YEAR + 40 }, "{now}");
            assert_eq!(c.stamp(now), None);
        }
        // Accepted: the node expects as much from now on.
        assert!(sure(c.judge(200, expects(WALL + 200, WALL + YEAR + 200), WALL - 5_000)));
        assert_eq!(c.stamp(200), Some(WALL + YEAR + 200));
    }

    #[test]
    fn what_one_voter_of_the_quorum_expects_is_enough() {
        for (own, peer, jumped) in [
            (None, None, false),
            (Some(WALL), None, true),
            (None, Some(WALL), true),
            (Some(WALL), Some(WALL + YEAR), false),
        ] {
            let mut c = three();
            c.heard(2, ClockAnswer { wall_ms: WALL + YEAR, expected_ms: peer }, 0, 0);
            let verdict = c.judge(0, ClockAnswer { wall_ms: WALL + YEAR, expected_ms: own }, WALL - 1);
            assert_eq!(matches!(verdict, Verdict::Jumped { .. }), jumped, "{own:?} {peer:?}");
        }
    }

    #[test]
    fn a_jump_up_to_the_bound_is_taken_and_elapsed_time_is_no_jump() {
        for (leap, jumped) in [(60_000, false), (60_001, true)] {
            let mut c = three();
            c.heard(2, says(WALL + leap), 0, 0);
            let verdict = c.judge(0, expects(WALL + leap, WALL), 0);
            assert_eq!(matches!(verdict, Verdict::Jumped { .. }), jumped, "{leap}");
        }
        // An idle year: the last stamp is old, and a replica that heard the leader knows that time went on.
        let mut c = three();
        c.heard(2, says(WALL + YEAR), 0, 0);
        assert!(sure(c.judge(0, expects(WALL + YEAR, WALL + YEAR - 10), WALL)));
    }

    #[test]
    fn after_a_full_stop_the_jump_is_taken_and_reported_once() {
        let mut c = three();
        c.heard(2, says(WALL + YEAR), 0, 0);
        assert!(sure(c.judge(0, says(WALL + YEAR), WALL)));
        assert_eq!((c.take_unchecked_ms(), c.take_unchecked_ms()), (Some(YEAR), None));
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), 0)));
        assert_eq!(c.take_unchecked_ms(), None, "a new group");
    }

    #[test]
    fn a_single_voter_takes_a_step_of_its_clock_and_no_jump() {
        let ms = Duration::from_millis;
        let mut c = ClockQuorum::new(1, BTreeSet::from([1]), ms(250), ms(10_000), ms(500), JUMP_MAX);
        assert!(sure(c.judge(0, says(WALL), 0)));
        assert_eq!(c.stamp(0), Some(WALL));
        assert!(sure(c.judge(1_000, expects(WALL + 31_000, WALL + 1_000), WALL)), "set right by half a minute");
        assert_eq!(c.stamp(1_000), Some(WALL + 31_000));
        assert!(sure(c.judge(2_000, expects(WALL + 2_000, WALL + 32_000), WALL)), "and back");
        assert_eq!((c.stamp(2_000), c.ahead_ms()), (Some(WALL + 31_000), 29_000), "never behind its last stamp");
        let jumped = c.judge(3_000, expects(WALL + YEAR, WALL + 32_000), WALL);
        assert_eq!(jumped, Verdict::Jumped { by_ms: YEAR - 32_000 });
    }

    #[test]
    fn ledger_time_ahead_of_the_quorum_is_reported_while_it_lasts() {
        let mut c = three();
        c.heard(2, says(WALL), 0, 0);
        assert!(sure(c.judge(0, says(WALL), WALL + YEAR)));
        assert_eq!(c.ahead_ms(), YEAR);
        c.heard(2, says(WALL + 1_100), 1_000, 1_000);
        c.heard(3, says(WALL + 1_100), 1_000, 1_000);
        assert!(sure(c.judge(1_000, says(WALL + 1_100), 0)));
        assert_eq!(c.ahead_ms(), YEAR - 100, "the clocks gained on it");
    }
}
