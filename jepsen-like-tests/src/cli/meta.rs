//! `jepsen meta`: is a run a function of its seed?
//!
//! **Owns** these arguments. **Must never** call two different traces equal. **Read next**: [`mod@jepsen_like_tests::sim::meta`].

use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Setting, meta};

use super::Held;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The seed to run twice.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// So many seeds, from this one on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

pub(super) fn run(args: &Args) -> Held {
    let apart = Apart::here()?;
    let mut equal = true;
    for seed in args.seed..args.seed + args.seeds {
        let report = meta(&Setting::of(seed), &apart)?;
        let Some(differs) = report.differs else {
            println!("seed {seed}: both runs the same, {} lines, digest {}", report.lines[0], report.digests[0]);
            continue;
        };
        equal = false;
        println!(
            "seed {seed}: the runs DIFFER at line {} ({} and {} lines)",
            differs.line, report.lines[0], report.lines[1]
        );
        differs.before.iter().for_each(|line| println!("    {line}"));
        for (run, line) in [("first", differs.first), ("second", differs.second)] {
            println!("  {run:>6}: {}", line.as_deref().unwrap_or("(had ended)"));
        }
    }
    Ok(equal)
}
