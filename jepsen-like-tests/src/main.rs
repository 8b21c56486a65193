//! `jepsen`: the testers' command.
//!
//! **Owns** arguments and what is printed. **Must never** judge: that is the checkers'. **Read next**: `sim`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use jepsen_like_tests::sim::{self, Report, Setting};

/// Tries to break Holdfast.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  jepsen sim --seeds 200\n  jepsen sim --seed 42 --verbose")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whole clusters in one thread under simulated time, network and disks, each run drawn from its seed.
    Sim {
        /// Run so many seeds, from --from on.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Run this one seed only.
        #[arg(long)]
        seed: Option<u64>,
        /// Show the nodes' log lines and the faults.
        #[arg(long)]
        verbose: bool,
        /// Write the failing seed's journal here as JSON lines.
        #[arg(long, default_value = "history.jsonl")]
        history: String,
    },
}

fn main() -> ExitCode {
    let Command::Sim { seeds, from, seed, verbose, history } = Args::parse().command;
    if verbose {
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env()
                    .unwrap_or_else(|_| "info,jepsen_like_tests=debug,ledger_node=debug,ledger_raft=debug".into()),
            )
            .with_writer(std::io::stderr)
            .init();
    }
    let range = seed.map_or(from..from + seeds, |s| s..s + 1);
    let began = Instant::now();
    let mut sums = Sums::default();
    for seed in range {
        let report = sim::run(Setting::of(seed));
        sums.add(&report);
        if !report.violations.is_empty() {
            failed(&report, &history);
            return ExitCode::from(1);
        }
        if sums.runs.is_multiple_of(10) {
            eprintln!("{:>6} seeds, {:>5.1} s", sums.runs, began.elapsed().as_secs_f64());
        }
    }
    sums.print(began.elapsed());
    ExitCode::SUCCESS
}

fn failed(report: &Report, history: &str) {
    println!("seed {} FAILED after {:?} of simulated time", report.seed, report.simulated);
    for violation in &report.violations {
        println!("  {}: {}", violation.property, violation.what);
    }
    let written = File::create(history).and_then(|f| report.run.write_events(&mut BufWriter::new(f)));
    match written {
        Ok(()) => println!("journal: {history}"),
        Err(error) => println!("the journal could not be written to {history}: {error}"),
    }
    println!("reproduce: cargo run -p jepsen-like-tests --bin jepsen -- sim --seed {} --verbose", report.seed);
}

#[derive(Default)]
struct Sums {
    runs: u64,
    operations: usize,
    ok: usize,
    unknown: usize,
    simulated: Duration,
    struck: BTreeMap<&'static str, u32>,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        use jepsen_like_tests::history::Answer;
        self.runs += 1;
        self.simulated += report.simulated;
        self.operations += report.run.events.len();
        self.ok += report.run.events.iter().filter(|e| matches!(e.answer, Answer::Ok { .. })).count();
        self.unknown += report.run.events.iter().filter(|e| matches!(e.answer, Answer::Unknown { .. })).count();
        for (name, n) in &report.struck {
            *self.struck.entry(name).or_default() += n;
        }
    }

    fn print(&self, took: Duration) {
        println!(
            "{} seeds held: {} operations ({} ok, {} unknown), {:.0} s simulated in {:.1} s",
            self.runs,
            self.operations,
            self.ok,
            self.unknown,
            self.simulated.as_secs_f64(),
            took.as_secs_f64()
        );
        for (name, n) in &self.struck {
            println!("  {name:<12} {n}");
        }
    }
}
