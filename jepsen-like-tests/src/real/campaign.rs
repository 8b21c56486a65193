//! Many rounds: which nemesis for how long, each round on a fresh cluster, and the table of them all.
//!
//! **Owns** the plan of an hour. **Must never** go on after a violation without having kept its journal. **Read next**: [`super::round`](mod@super::round).

use std::time::Duration;

use super::nemesis::Nemesis;
use super::round::RoundReport;

/// What to run, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// A kind of fault and how long its round lasts.
    pub rounds: Vec<(Nemesis, Duration)>,
}

impl Campaign {
    /// `whole` time over these kinds in turn, in rounds of about `round`; every kind gets one at least.
    pub fn of(nemeses: &[Nemesis], whole: Duration, round: Duration) -> Self {
        let fit = (whole.as_secs_f64() / round.as_secs_f64()).round() as usize;
        let turns = fit.div_euclid(nemeses.len().max(1)).max(1);
        let rounds = turns * nemeses.len();
        let each = whole / u32::try_from(rounds.max(1)).unwrap_or(u32::MAX);
        let rounds = (0..turns).flat_map(|_| nemeses.iter().map(|n| (*n, each))).collect();
        Self { rounds }
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of which kind.
    pub nemesis: Nemesis,
    /// Rounds.
    pub rounds: u32,
    /// Operations.
    pub operations: usize,
    /// Without a definite answer.
    pub unknowns: usize,
    /// Faults that struck.
    pub faults: u32,
    /// Violations.
    pub violations: usize,
    /// For how long clients pressed.
    pub pressed: Duration,
    during: Vec<u64>,
    calm: Vec<u64>,
}

impl Row {
    /// No round yet.
    pub fn of(nemesis: Nemesis) -> Self {
        Self {
            nemesis,
            rounds: 0,
            operations: 0,
            unknowns: 0,
            faults: 0,
            violations: 0,
            pressed: Duration::ZERO,
            during: Vec::new(),
            calm: Vec::new(),
        }
    }

    /// One more round.
    pub fn add(&mut self, report: &RoundReport) {
        self.rounds += 1;
        self.operations += report.run.events.len();
        self.unknowns += report.unknowns();
        self.faults += report.struck.values().sum::<u32>();
        self.violations += report.violations.len();
        self.pressed += report.pressed;
        self.during.extend(report.took_ms(true));
        self.calm.extend(report.took_ms(false));
        self.during.sort_unstable();
        self.calm.sort_unstable();
    }

    /// Milliseconds that this share of the operations stayed below, during faults or else.
    pub fn quantile_ms(&self, during: bool, share: f64) -> Option<u64> {
        let took = if during { &self.during } else { &self.calm };
        let last = took.len().checked_sub(1)?;
        took.get((last as f64 * share).round() as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_time_is_spent_and_each_kind_gets_its_rounds() {
        let minute = Duration::from_secs(60);
        let campaign = Campaign::of(&Nemesis::ALL, minute * 60, minute);
        assert_eq!(campaign.rounds.len(), 3 * Nemesis::ALL.len());
        let sum: Duration = campaign.rounds.iter().map(|(_, lasts)| *lasts).sum();
        assert!(sum.abs_diff(minute * 60) < Duration::from_secs(1), "{sum:?}");
        assert_eq!(Campaign::of(&[Nemesis::Kill], minute / 4, minute).rounds, [(Nemesis::Kill, minute / 4)]);
    }

    #[test]
    fn quantiles_are_of_the_right_operations() {
        let row = Row { during: (1..=100).collect(), calm: vec![], ..Row::of(Nemesis::Kill) };
        assert_eq!(row.quantile_ms(true, 0.99), Some(99));
        assert_eq!(row.quantile_ms(false, 0.99), None);
    }
}
