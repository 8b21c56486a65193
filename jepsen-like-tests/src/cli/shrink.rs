//! `jepsen shrink`: the smallest plan and load that still fail, as a file that `sim --plan` runs.
//!
//! **Owns** these arguments. **Must never** call another failure the same: the property must be one that failed before.
//! **Read next**: [`jepsen_like_tests::shrink`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use jepsen_like_tests::shrink::{Case, Shrinking};
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Report, Setting};

use super::many::Progress;
use super::{Held, tell};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The failing seed.
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    /// The failing run was stretched so many times.
    #[arg(long, value_name = "TIMES", default_value_t = 1, conflicts_with = "plan")]
    stretch: u64,
    /// In a known-bad build: with this switch on.
    #[arg(long, value_name = "NAME", default_value = "", conflicts_with = "plan", value_parser = super::known_bad)]
    known_bad: String,
    /// A failing setting from a file instead.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Runs at most.
    #[arg(long, default_value_t = 300)]
    runs: u32,
    /// Where the result goes.
    #[arg(long, value_name = "FILE", default_value = "shrunk.json")]
    out: PathBuf,
    /// Where the journal of the smallest failing run goes.
    #[arg(long, value_name = "FILE", default_value = "history.jsonl")]
    history: PathBuf,
}

fn properties(report: &Report) -> BTreeSet<&'static str> {
    report.violations.iter().map(|v| v.property).collect()
}

pub(super) fn run(args: &Args) -> Held {
    let whole = match (&args.plan, args.seed) {
        (Some(file), _) => serde_json::from_str(&std::fs::read_to_string(file)?)?,
        (None, seed) => {
            Setting { known_bad: args.known_bad.clone(), ..Setting::stretched(seed.unwrap_or_default(), args.stretch) }
        }
    };
    let apart = Apart::here()?;
    let first = apart.run(&whole)?;
    let failing = properties(&first);
    if failing.is_empty() {
        println!("seed {} holds: there is nothing to shrink", whole.seed);
        return Ok(true);
    }
    let of = |case: &Case| Setting { faults: Some(case.plan.clone()), load: case.load, ..whole.clone() };
    let progress = Progress::new(Some(u64::from(args.runs)), "runs");
    let mut trouble = None;
    let mut shrinking = Shrinking::new(args.runs, |case: &Case| {
        progress.step(&format!("{} faults, {} clients, {} tries", case.plan.len(), case.load.clients, case.load.tries));
        match apart.run(&of(case)) {
            Ok(report) => !properties(&report).is_disjoint(&failing),
            Err(error) => {
                trouble.get_or_insert(error);
                false
            }
        }
    });
    let small = shrinking.shrink(Case { plan: first.plan.clone(), load: whole.load });
    let made = args.runs - shrinking.left;
    drop(progress);
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let setting = of(&small);
    let report = apart.run(&setting)?;
    std::fs::write(&args.out, serde_json::to_string_pretty(&setting)?)?;
    println!("{} of {} faults are left after {made} runs, {:?}", small.plan.len(), first.plan.len(), small.load);
    tell::failed(&setting, &report, &args.history);
    println!("again:      {} sim --plan {} --verbose", tell::cargo(), args.out.display());
    Ok(false)
}
