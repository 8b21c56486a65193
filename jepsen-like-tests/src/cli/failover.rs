//! `jepsen failover`: the time without answers when leaders are killed, and elections while disks stall, on real processes.
//!
//! **Owns** these arguments, the bounds and what is printed. **Read next**: [`jepsen_like_tests::real::failover`].

use std::time::Duration;

use clap::ValueEnum;
use jepsen_like_tests::faults::Disks;
use jepsen_like_tests::real::failover::{Blow, measure, quantile};

use super::{Held, Trouble};

/// Whose disk stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stalled {
    Leader,
    Follower,
    Followers,
}

#[derive(clap::Args)]
pub(super) struct Args {
    /// The leader is killed so many times.
    #[arg(long, default_value_t = 20, conflicts_with = "stall")]
    kills: u32,
    /// Instead of kills: whose disk stalls again and again.
    #[arg(long, value_enum)]
    stall: Option<Stalled>,
    /// How long a sync stalls.
    #[arg(long, default_value_t = 300, requires = "stall")]
    stall_ms: u64,
    /// Over how many minutes disks stall.
    #[arg(long, default_value_t = 1.0, requires = "stall")]
    minutes: f64,
    /// From one fault to the next.
    #[arg(long, default_value_t = 5.0)]
    every_seconds: f64,
    /// Reservations a second, in an open loop.
    #[arg(long, default_value_t = 750)]
    rate: u32,
    /// The longest time without an answer around a kill, at p99 of the kills, that passes.
    #[arg(long, default_value_t = 1_000)]
    silence_p99_max_ms: u64,
    /// The share of calls answered within a second of when they are due that passes.
    #[arg(long, default_value_t = 0.999)]
    answered_min: f64,
}

pub(super) fn run(args: &Args) -> Held {
    let every = Duration::from_secs_f64(args.every_seconds);
    let blow = match args.stall {
        None => Blow::Kill { times: args.kills, every, down: Duration::from_secs(2) },
        Some(whose) => Blow::Stall {
            of: match whose {
                Stalled::Leader => Disks::Leader,
                Stalled::Follower => Disks::Follower,
                Stalled::Followers => Disks::Followers,
            },
            stall: Duration::from_millis(args.stall_ms),
            every,
            lasts: Duration::from_secs_f64(args.minutes * 60.0),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("jepsen-failover-").tempdir()?;
    let figures = runtime.block_on(measure(dir.path(), args.rate, &blow)).map_err(|e| -> Trouble {
        format!("{}; logs: {}/node-*/node.log", settings::with_causes(&e), dir.path().display()).into()
    })?;
    let took: Vec<u64> = figures.took_ms.iter().flatten().copied().collect();
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let answered = figures.answered_within(1_000);
    println!("calls       {} at {} a second", figures.took_ms.len(), args.rate);
    println!("answered    {:.3} % within a second of when they were due", answered * 100.0);
    println!("latency     p50 {}, p99 {}", ms(quantile(&took, 0.5)), ms(quantile(&took, 0.99)));
    let (ok, unknown, held) = figures.held;
    println!("stock       {held} held, {ok} answered, {unknown} without a definite answer");
    let mut passed = figures.stock_is_right();
    if args.stall.is_some() {
        println!("elections   {}", figures.elections);
        passed &= figures.elections == 0;
    } else {
        let silences = &figures.silences_ms;
        let p99 = quantile(silences, 0.99);
        let (p50, max) = (quantile(silences, 0.5), quantile(silences, 1.0));
        println!("silence     p50 {}, p99 {}, longest {} over {} kills", ms(p50), ms(p99), ms(max), silences.len());
        passed &= p99.is_some_and(|p99| p99 <= args.silence_p99_max_ms) && answered >= args.answered_min;
    }
    println!("{}", if passed { "within the bounds" } else { "NOT WITHIN THE BOUNDS" });
    Ok(passed)
}
