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
}

/// One peer's clock: how far its wall clock was ahead of our elapsed time, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    ahead_ms: i64,
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
    readings: BTreeMap<u64, Reading>,
    /// Wall time minus elapsed time, fixed when the first quorum agreed.
    anchor_ms: Option<i64>,
    /// Added to the anchor: by how much the log's last stamp was ahead of it.
    carried_ms: u64,
    last_stamp_ms: u64,
}

impl ClockQuorum {
    pub(crate) fn new(
        me: u64,
        voters: BTreeSet<u64>,
        bound: Duration,
        fresh: Duration,
        round_trip_max: Duration,
    ) -> Self {
        Self {
            me,
            voters,
            bound_ms: bound.as_millis() as u64,
            fresh_ms: fresh.as_millis() as u64,
            round_trip_max_ms: round_trip_max.as_millis() as u64,
            readings: BTreeMap::new(),
            anchor_ms: None,
            carried_ms: 0,
            last_stamp_ms: 0,
        }
    }

    /// Members changed; readings of those who left do not count any more.
    pub(crate) fn set_voters(&mut self, voters: BTreeSet<u64>) {
        self.readings.retain(|id, _| voters.contains(id));
        self.voters = voters;
    }

    /// A voter answered `wall_ms`; we asked at `asked_ms` and heard at `heard_ms`. Slow answers say nothing.
    pub(crate) fn heard(&mut self, from: u64, wall_ms: u64, asked_ms: u64, heard_ms: u64) {
        let round_trip = heard_ms.saturating_sub(asked_ms);
        if !self.voters.contains(&from) || round_trip > self.round_trip_max_ms || wall_ms > STAMP_MS_MAX {
            return;
        }
        let middle = asked_ms.saturating_add(round_trip / 2);
        // Both lie far below 2^63: the wall clock by the bound above, elapsed time by its nature.
        let ahead_ms = (wall_ms as i64).saturating_sub_unsigned(middle);
        self.readings.insert(from, Reading { ahead_ms, at_ms: heard_ms });
    }

    /// Judges with this node's own wall clock read at `now_ms`; `log_stamp_ms` is the largest stamp in its log.
    pub(crate) fn judge(&mut self, now_ms: u64, own_wall_ms: u64, log_stamp_ms: u64) -> Verdict {
        self.heard(self.me, own_wall_ms, now_ms, now_ms);
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
        let anchor = *self.anchor_ms.get_or_insert_with(|| {
            let start = median.saturating_add_unsigned(now_ms).max(0) as u64;
            self.carried_ms = log_stamp_ms.saturating_sub(start);
            median
        });
        if anchor.abs_diff(median) > self.bound_ms {
            return Verdict::Unsure;
        }
        // The verdict lasts as long as a quorum of the agreeing readings does.
        agreeing.sort_unstable_by(|a, b| b.cmp(a));
        Verdict::Sure { until_ms: agreeing[quorum - 1].saturating_add(self.fresh_ms) }
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

    /// By how much the clock runs ahead of the quorum since the log's last stamp was.
    pub(crate) fn carried_ms(&self) -> u64 {
        self.carried_ms
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

    fn three() -> ClockQuorum {
        let ms = Duration::from_millis;
        ClockQuorum::new(1, BTreeSet::from([1, 2, 3]), ms(250), ms(10_000), ms(500))
    }

    fn sure(v: Verdict) -> bool {
        matches!(v, Verdict::Sure { .. })
    }

    #[test]
    fn alone_it_is_unsure_and_one_agreeing_peer_makes_it_sure() {
        let mut c = three();
        assert_eq!(c.judge(1000, WALL, 0), Verdict::Unsure);
        assert_eq!(c.stamp(1000), None);
        c.heard(2, WALL + 100, 1000, 1020);
        assert!(sure(c.judge(1020, WALL + 20, 0)));
        let s = c.stamp(1020).unwrap();
        assert!((WALL..WALL + 200).contains(&s), "{s}");
    }

    #[test]
    fn a_single_voter_trusts_itself() {
        let ms = Duration::from_millis;
        let mut c = ClockQuorum::new(1, BTreeSet::from([1]), ms(250), ms(10_000), ms(500));
        assert!(sure(c.judge(5, WALL, 0)));
        assert_eq!(c.stamp(6), Some(WALL + 1));
    }

    #[test]
    fn two_that_contradict_wait_for_the_third() {
        let mut c = three();
        c.heard(2, WALL + 3_600_000, 0, 0);
        assert_eq!(c.judge(0, WALL, 0), Verdict::Unsure);
        c.heard(3, WALL + 10, 0, 0);
        assert!(sure(c.judge(0, WALL, 0)));
        assert_eq!(c.stamp(0), Some(WALL + 10), "the median, not the mean");
    }

    #[test]
    fn its_own_wrong_clock_is_outvoted() {
        let mut c = three();
        c.heard(2, WALL, 0, 0);
        c.heard(3, WALL + 4, 0, 0);
        assert!(sure(c.judge(0, WALL - 3_600_000, 0)));
        assert_eq!(c.stamp(0), Some(WALL));
    }

    #[test]
    fn the_log_s_last_stamp_is_never_undercut_and_is_carried_along() {
        let mut c = three();
        c.heard(2, WALL, 0, 0);
        assert!(sure(c.judge(0, WALL, WALL + 5_000)));
        assert_eq!(c.carried_ms(), 5_000);
        assert_eq!(c.stamp(0), Some(WALL + 5_000));
        assert_eq!(c.stamp(7), Some(WALL + 5_007));
        c.heard(2, WALL + 1_000, 1_000, 1_000);
        assert!(sure(c.judge(1_000, WALL + 1_000, 0)), "what is carried is no disagreement");
    }

    #[test]
    fn stamps_never_go_back_though_elapsed_time_did() {
        let mut c = three();
        c.heard(2, WALL, 100, 100);
        assert!(sure(c.judge(100, WALL, 0)));
        let a = c.stamp(150).unwrap();
        assert_eq!(c.stamp(120), Some(a));
    }

    #[test]
    fn old_readings_and_slow_ones_do_not_count() {
        let mut c = three();
        c.heard(2, WALL, 0, 501);
        assert_eq!(c.judge(501, WALL + 501, 0), Verdict::Unsure, "too slow");
        c.heard(2, WALL + 600, 600, 600);
        let v = c.judge(600, WALL + 600, 0);
        assert_eq!(v, Verdict::Sure { until_ms: 10_600 });
        assert_eq!(c.judge(10_600, WALL + 10_600, 0), Verdict::Unsure, "too old");
    }

    #[test]
    fn a_leader_whose_elapsed_time_drifts_off_becomes_unsure() {
        let mut c = three();
        c.heard(2, WALL, 0, 0);
        c.heard(3, WALL, 0, 0);
        assert!(sure(c.judge(0, WALL, 0)));
        // The peers' clocks went on by 10 s while ours counted 9.7.
        c.heard(2, WALL + 10_000, 9_700, 9_700);
        c.heard(3, WALL + 10_000, 9_700, 9_700);
        assert_eq!(c.judge(9_700, WALL + 9_700, 0), Verdict::Unsure);
    }

    #[test]
    fn extreme_readings_and_stamps_count_for_nothing_and_end_nothing() {
        let mut c = three();
        for wall in [u64::MAX, 1 << 63, (1 << 63) - 1, STAMP_MS_MAX + 1] {
            c.heard(2, wall, 0, 0);
            c.heard(3, wall, u64::MAX - 1, u64::MAX);
            assert_eq!(c.judge(0, WALL, 0), Verdict::Unsure, "{wall}");
        }
        c.heard(2, 0, 0, 0);
        c.heard(3, STAMP_MS_MAX, 0, 0);
        assert_eq!(c.judge(0, WALL, 0), Verdict::Unsure, "three that contradict each other");
        c.heard(3, WALL, 0, 0);
        assert!(sure(c.judge(0, WALL, u64::MAX)));
        assert_eq!(c.stamp(0), None, "nothing can follow the log's last stamp");
        let mut c = three();
        c.heard(2, WALL, 0, 0);
        assert!(sure(c.judge(0, WALL, STAMP_MS_MAX - 1)));
        assert_eq!((c.stamp(0), c.stamp(1), c.stamp(2)), (Some(STAMP_MS_MAX - 1), Some(STAMP_MS_MAX), None));
    }

    #[test]
    fn strangers_have_no_say() {
        let mut c = three();
        c.heard(9, WALL, 0, 0);
        assert_eq!(c.judge(0, WALL, 0), Verdict::Unsure);
        c.heard(2, WALL, 0, 0);
        c.set_voters(BTreeSet::from([1, 3, 4]));
        assert_eq!(c.judge(0, WALL, 0), Verdict::Unsure);
    }
}
