//! `jepsen corpus`: every seed that ever failed, again.
//!
//! **Owns** these arguments. **Must never** stop at the first that fails: all of them are news. **Read next**: [`jepsen_like_tests::corpus`].

use std::ops::ControlFlow;
use std::path::PathBuf;

use jepsen_like_tests::corpus;
use jepsen_like_tests::sim::Setting;
use jepsen_like_tests::sim::apart::Apart;

use super::many::{self, Progress};
use super::{Held, tell};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Another corpus than the one of this build.
    #[arg(long, value_name = "FILE")]
    seeds: Option<PathBuf>,
    /// Runs at a time.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where a failing run's journal goes.
    #[arg(long, value_name = "FILE", default_value = "history.jsonl")]
    history: PathBuf,
}

pub(super) fn run(args: &Args) -> Held {
    let kept = match &args.seeds {
        Some(file) => corpus::parse(&std::fs::read_to_string(file)?)?,
        None => corpus::built_in()?,
    };
    let progress = Progress::new(Some(kept.len() as u64), "seeds");
    let mut failed = 0;
    let settings = kept.iter().map(|kept| Setting::stretched(kept.seed, kept.stretch));
    many::run(&Apart::here()?, settings, many::jobs(args.jobs), |setting, report| {
        progress.step(&format!("seed {}", report.seed));
        if !report.violations.is_empty() {
            failed += 1;
            let found = kept.iter().find(|k| k.seed == report.seed).map_or("", |k| k.found.as_str());
            println!("once found: {found}");
            tell::failed(&setting, &report, &args.history);
        }
        ControlFlow::Continue(())
    })?;
    drop(progress);
    println!("{} of {} kept seeds held", kept.len() - failed, kept.len());
    Ok(failed == 0)
}
