//! What a campaign of simulated runs adds up to.
//!
//! **Owns** the sums and their tables. **Must never** decide whether a run failed. **Read next**: [`super::sim`].

use std::collections::BTreeMap;
use std::time::Duration;

use jepsen_like_tests::history::Answer;
use jepsen_like_tests::sim::{Report, Setting};
use jepsen_like_tests::sometimes::{self, Counts};

/// Sums over runs.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) runs: u64,
    pub(super) failed: Vec<u64>,
    operations: usize,
    answers: [usize; 4],
    simulated: Duration,
    /// Stretched runs, by how many times: how many, and their simulated time.
    stretched: BTreeMap<u64, (u64, Duration)>,
    slowest: Option<(Duration, u64)>,
    struck: BTreeMap<String, u32>,
    by_verb: BTreeMap<&'static str, usize>,
    sometimes: Counts,
}

impl Sums {
    /// One more run.
    pub(super) fn add(&mut self, setting: &Setting, report: &Report) {
        self.runs += 1;
        if setting.stretch > 1 {
            let (runs, simulated) = self.stretched.entry(setting.stretch).or_default();
            *runs += 1;
            *simulated += report.simulated;
        }
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
        self.simulated += report.simulated;
        self.operations += report.run.events.len();
        for event in &report.run.events {
            self.answers[match event.answer {
                Answer::Ok { .. } => 0,
                Answer::Refused { .. } => 1,
                Answer::NotNow { .. } => 2,
                Answer::Unknown { .. } => 3,
            }] += 1;
            *self.by_verb.entry(event.op.name()).or_default() += 1;
        }
        for (name, n) in &report.struck {
            *self.struck.entry(name.clone()).or_default() += n;
        }
        sometimes::add(&mut self.sometimes, &report.reached);
        if let Some(after) = report.converged_after {
            self.slowest = self.slowest.max(Some((after, report.seed)));
        }
    }

    /// Rare states that so many runs had to reach and never did.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        sometimes::missing(&self.sometimes, self.runs).into_iter().map(|rare| rare.name).collect()
    }

    /// In a few words, for progress.
    pub(super) fn brief(&self) -> String {
        let failed = if self.failed.is_empty() { String::new() } else { format!(", {} FAILED", self.failed.len()) };
        format!("{} operations, {:.2} h simulated{failed}", self.operations, self.simulated.as_secs_f64() / 3_600.0)
    }

    /// All of it.
    pub(super) fn print(&self, took: Duration) {
        let held = self.runs - self.failed.len() as u64;
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let an_hour = hours / (took.as_secs_f64() / 3_600.0).max(f64::EPSILON);
        println!("{held} of {} seeds held", self.runs);
        println!("  simulated   {hours:.2} h in {:.1} min: {an_hour:.0} h an hour", took.as_secs_f64() / 60.0);
        for (times, (runs, simulated)) in &self.stretched {
            let hours = simulated.as_secs_f64() / 3_600.0;
            println!("  stretched   {runs} of these runs, {times} times: {hours:.2} h of it");
        }
        let [ok, refused, not_now, unknown] = self.answers;
        println!("  operations  {}: {ok} ok, {refused} refused, {not_now} not now, {unknown} unknown", self.operations);
        if let Some((after, seed)) = self.slowest {
            println!(
                "  converged   {:.1} s of simulated time after the last fault at most (seed {seed})",
                after.as_secs_f64()
            );
        }
        println!("  {:<16} {:>9}    fault", "operation", "n");
        let verbs: Vec<_> = self.by_verb.iter().map(|(name, n)| (*name, *n)).collect();
        let faults: Vec<_> = self.struck.iter().collect();
        for row in 0..verbs.len().max(faults.len()) {
            let verb = verbs.get(row).map_or(String::new(), |(name, n)| format!("{name:<16} {n:>9}"));
            let fault = faults.get(row).map_or(String::new(), |(name, n)| format!("{name:<18} {n:>7}"));
            println!("  {verb:<26}    {fault}");
        }
        println!("  sometimes                           n  must be reached                    state");
        print!("{}", sometimes::table(&self.sometimes, self.runs));
        if !self.failed.is_empty() {
            println!("  failed      {:?}", self.failed);
        }
    }
}
