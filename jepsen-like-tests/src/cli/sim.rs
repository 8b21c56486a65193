//! `jepsen sim`: seeds by the hundred, one seed, or a plan from a file.
//!
//! **Owns** these arguments. **Must never** go on after a failure unless it was asked to. **Read next**: [`super::many`].

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jepsen_like_tests::sim::Setting;
use jepsen_like_tests::sim::apart::Apart;

use super::many::{self, Progress};
use super::sums::Sums;
use super::{Held, tell};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Run so many seeds, from --from on.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run for so long instead, however many seeds that are.
    #[arg(long)]
    minutes: Option<u64>,
    /// Long runs: faults strike for so many times as long, with longer faults and holds and a thinner load.
    #[arg(long, value_name = "TIMES", default_value_t = 1, conflicts_with = "plan")]
    stretch: u64,
    /// Of so many seeds, only the last one's run is stretched.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "plan")]
    stretch_every: u64,
    /// In a known-bad build: with this switch on.
    #[arg(long, value_name = "NAME", default_value = "", conflicts_with = "plan", value_parser = super::known_bad)]
    known_bad: String,
    /// Run this one seed only.
    #[arg(long, conflicts_with_all = ["minutes", "plan"])]
    seed: Option<u64>,
    /// Run the setting in this file, as `shrink` writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "minutes")]
    plan: Option<PathBuf>,
    /// Show the nodes' log lines and the faults.
    #[arg(long)]
    verbose: bool,
    /// Runs at a time; each is a process of its own. Not set: one a core, two at most.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after a failure; every failing seed's journal is kept.
    #[arg(long)]
    keep_going: bool,
    /// Where a failing run's journal goes, as JSON lines; with --keep-going the seed is put into the name.
    #[arg(long, value_name = "FILE", default_value = "history.jsonl")]
    history: PathBuf,
}

pub(super) fn run(args: &Args) -> Held {
    let mut apart = Apart::here()?;
    apart.verbose = args.verbose;
    if let Some(file) = &args.plan {
        let setting: Setting = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        return one(&apart, &setting, args);
    }
    if let Some(seed) = args.seed {
        return one(&apart, &of_args(seed, args.stretch, args), args);
    }
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let last = if until.is_some() { u64::MAX } else { args.from + args.seeds };
    let settings = (args.from..last).take_while(|_| until.is_none_or(|until| Instant::now() < until));
    let settings = settings.map(|seed| setting_of(seed, args));
    let progress = Progress::new(until.is_none().then_some(args.seeds), "seeds");
    let mut sums = Sums::default();
    many::run(&apart, settings, many::jobs(args.jobs), |setting, report| {
        sums.add(&setting, &report);
        progress.step(&sums.brief());
        if report.violations.is_empty() {
            return ControlFlow::Continue(());
        }
        progress.say(&format!("seed {} FAILED", report.seed));
        let history = if args.keep_going { of_seed(&args.history, report.seed) } else { args.history.clone() };
        tell::failed(&setting, &report, &history);
        if args.keep_going { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let took = progress.elapsed();
    drop(progress);
    sums.print(took);
    let missing = sums.missing();
    if !missing.is_empty() {
        println!("never reached, though it should have been: {}", missing.join(", "));
    }
    Ok(sums.failed.is_empty() && missing.is_empty())
}

fn setting_of(seed: u64, args: &Args) -> Setting {
    let every = args.stretch_every.max(1);
    let times = if (seed - args.from) % every == every - 1 { args.stretch } else { 1 };
    of_args(seed, times, args)
}

fn of_args(seed: u64, times: u64, args: &Args) -> Setting {
    Setting { known_bad: args.known_bad.clone(), ..Setting::stretched(seed, times) }
}

fn one(apart: &Apart, setting: &Setting, args: &Args) -> Held {
    let began = Instant::now();
    let report = apart.run(setting)?;
    if report.violations.is_empty() {
        let mut sums = Sums::default();
        sums.add(setting, &report);
        sums.print(began.elapsed());
        if args.verbose {
            report.plan.iter().for_each(|planned| println!("  {:>6} ms  {:?}", planned.at_ms, planned.fault));
        }
        println!("trace: {} lines, digest {}", report.trace_lines, report.trace_digest);
        return Ok(true);
    }
    tell::failed(setting, &report, &args.history);
    Ok(false)
}

/// `history.jsonl` of seed 7: `history-7.jsonl`.
fn of_seed(file: &std::path::Path, seed: u64) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let ext = file.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    file.with_file_name(format!("{stem}-{seed}{ext}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_seed_s_journal_has_its_own_name() {
        assert_eq!(super::of_seed("a/history.jsonl".as_ref(), 7), std::path::Path::new("a/history-7.jsonl"));
    }
}
