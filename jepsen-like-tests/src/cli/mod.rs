//! The testers' command line: arguments, progress, and what is printed.
//!
//! **Owns** words and exit codes: 0 all held, 1 something did not, 2 usage or the machine. **Must never** judge: that is the checkers'.
//! **Read next**: [`sim`], then any command.

mod check;
mod corpus;
mod failover;
mod list;
mod many;
mod meta;
mod mutation_test;
mod real;
mod shrink;
mod sim;
mod starve;
mod sums;
mod tell;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  jepsen sim --seeds 200                        the first 200 seeds
  jepsen sim --seed 42 --verbose                one seed, with the nodes' log lines
  jepsen meta --seed 42                         is it a function of its seed?
  jepsen shrink --seed 42                       the smallest plan and load that still fail
  jepsen sim --plan shrunk.json                 run that
  jepsen check history.jsonl                    judge a journal, ours or another tool's
  jepsen real --nemesis partition-ring --minutes 5
  jepsen failover --kills 100                   how long is a shard without answers?
  jepsen failover --stall followers --minutes 30
  jepsen starve                                 does one host starve a seller?
  jepsen real --endpoints a:7101,b:7101,c:7101 --minutes 5";

/// Tries to break Holdfast.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whole clusters in one thread under simulated time, network and disks, each run drawn from its seed.
    Sim(sim::Args),
    /// Runs a seed twice and compares the traces line by line.
    Meta(meta::Args),
    /// What there is: workloads, faults, checkers, rare states, nemeses, known-bad builds.
    List,
    /// Cuts a failing seed down to the smallest plan and load that still fail.
    Shrink(shrink::Args),
    /// Judges a journal of JSON lines.
    Check(check::Args),
    /// Runs every seed that ever failed.
    Corpus(corpus::Args),
    /// Throws each switch of a known-bad build and looks for a seed that notices.
    MutationTest(mutation_test::Args),
    /// Presses on real processes, or on your own cluster.
    Real(real::Args),
    /// Measures on real processes: the time without answers when leaders are killed, elections while disks stall.
    Failover(failover::Args),
    /// Measures on real processes: a seller's latencies beside a host that takes all it can get, and memory.
    Starve(starve::Args),
    /// What `starve` starts: connections, watches, pings and keys as its standard input says.
    #[command(hide = true)]
    RunAttack,
    /// A node with a disk that forgets; `real`, `failover` and `starve` start these.
    #[command(hide = true, disable_help_flag = true)]
    RunNode {
        /// A node's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// A command could not be carried out; says nothing about the ledger.
type Trouble = Box<dyn std::error::Error>;
/// Whether all held.
type Held = Result<bool, Trouble>;

/// The name of a known-bad switch of this build.
fn known_bad(name: &str) -> Result<String, String> {
    use jepsen_like_tests::bad;
    match bad::ALL.iter().any(|bad| bad.name == name) {
        _ if name.is_empty() => Ok(String::new()),
        false => Err("there is no such switch; hint: jepsen list".to_owned()),
        true if bad::is_known_bad_build() => Ok(name.to_owned()),
        true => Err("this build has no known-bad switches; hint: docs/testing.md, known-bad builds".to_owned()),
    }
}

/// Runs the command line.
pub(crate) fn run() -> ExitCode {
    if let Some(code) = jepsen_like_tests::sim::apart::as_child() {
        return code;
    }
    let held = match Args::parse().command {
        Command::RunNode { args } => return jepsen_like_tests::real::node::run(args),
        Command::RunAttack => return jepsen_like_tests::real::starve::attack::run(),
        Command::Sim(args) => sim::run(&args),
        Command::Meta(args) => meta::run(&args),
        Command::List => list::run(),
        Command::Shrink(args) => shrink::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Corpus(args) => corpus::run(&args),
        Command::MutationTest(args) => mutation_test::run(&args),
        Command::Real(args) => real::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Starve(args) => starve::run(&args),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(next) = source {
                eprintln!("  {next}");
                source = next.source();
            }
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        super::Args::command().debug_assert();
    }
}
