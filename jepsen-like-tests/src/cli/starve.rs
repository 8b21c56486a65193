//! `jepsen starve`: a seller beside a host that takes all it can get, on real processes.
//!
//! **Owns** these arguments, the bounds and what is printed. **Read next**: [`jepsen_like_tests::real::starve`].

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use cluster::output::{Cell, num, table, text, unit};
use jepsen_like_tests::real::starve::attack::AttackPlan;
use jepsen_like_tests::real::starve::{PhaseFigures, StarvePlan, StarveReport, Verdict, measure};

use super::{Held, Trouble};

const TEACHES: &str = "\
Three nodes on loopback with their default limits; a seller reserves in an open loop, at half of what 256 callers
reach. Phases in turn: quiet, attacked, quiet, attacked, ..., quiet. The attack is a process of its own at another
address of loopback (127.0.0.2), so that bounds for each source hold for it as for another host, and at a low
priority (nice 10), since another host would not take the nodes' time. To each node, all at once and for the whole phase:
  1,100 idle connections to each of its three ports, opened again when the node closes them (--reopened-per-second)
  5,000 watches from the oldest change, of which nothing is ever read
  pings over four connections, half of which never read an answer
  reservations with limit keys that would collide if indexes were hashed without a secret (to the leader)

It holds when
  the seller's p99 beside the attack is at most twice (--p99-ratio-max) that of the quiet phases around it, at the
  median of the rounds; a p99 that is longer by less than --noise-ms is noise, whatever the ratio
  every call of the seller was reserved, those over new connections (one a second) too, and every /livez answered
  no shard had an election
  no node took more memory for the attack than the sum of the bounds in docs/limits.md that one host can fill
  the stock is right: what is held is what was answered
A run whose attack did not do what it should proves nothing, and fails.

Examples:
  jepsen starve                                    three rounds of 20 seconds
  jepsen starve --rounds 5 --phase-seconds 60      the long form
  jepsen starve --descriptors 1024                 nodes that may open few files: connections give way to others
  jepsen starve --untimed --phase-seconds 2 --rounds 1 --rate 100
                                                   what can be judged without time, in any build

Exit codes: 0 it holds, 1 it does not or proves nothing, 2 usage, or it could not be carried out.";

/// Of the attack, where times are judged. Lower still, and any other load of the machine would stop it.
const NICENESS: i32 = 10;

#[derive(clap::Args)]
#[command(after_help = TEACHES)]
pub(super) struct Args {
    /// Attacked phases; there is a quiet one before and behind each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long a phase is.
    #[arg(long, default_value_t = 20.0)]
    phase_seconds: f64,
    /// An attacked phase goes on for so long at most until the attack has done what it should.
    #[arg(long, default_value_t = 60.0)]
    attack_beyond_seconds: f64,
    /// The seller's reservations a second, instead of half of what the nodes reach.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Callers at once that find out what the nodes reach.
    #[arg(long, default_value_t = 256, conflicts_with = "rate")]
    callers: usize,
    /// Idle connections to each port of each node.
    #[arg(long, default_value_t = 1_100)]
    idle: usize,
    /// Of those that a port closed, so many are opened again a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    reopened_per_second: u32,
    /// Watches of each node that are never read.
    #[arg(long, default_value_t = 5_000)]
    watches: usize,
    /// Of those that a node refused or ended, so many are asked for again a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    watches_again_per_second: u32,
    /// Pings a second to each node; 0: as many as it takes.
    #[arg(long, default_value_t = 0)]
    pings_per_second: u64,
    /// Colliding keys a second, four to a reservation.
    #[arg(long, default_value_t = 1_000)]
    keys_per_second: u32,
    /// The address of loopback that the attack comes from.
    #[arg(long, default_value_t = Ipv4Addr::new(127, 0, 0, 2))]
    from: Ipv4Addr,
    /// Descriptors that each node may open; not set: as many as this process.
    #[arg(long, value_name = "N")]
    descriptors: Option<u64>,
    /// Another build of `jepsen`, whose nodes are attacked instead of this one's: before and after a change.
    #[arg(long, value_name = "PATH")]
    node_program: Option<PathBuf>,
    /// The p99 beside an attack, in quiet p99s, that passes.
    #[arg(long, default_value_t = 2.0)]
    p99_ratio_max: f64,
    /// A p99 that is longer by less than that passes.
    #[arg(long, default_value_t = 1.0)]
    noise_ms: f64,
    /// Judges neither p99 nor elections: for machines and builds of which times say nothing.
    #[arg(long)]
    untimed: bool,
    /// Prints one JSON document instead of the table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Held {
    if !args.from.is_loopback() {
        return Err(format!("{} is not on loopback; hint: --from 127.0.0.3", args.from).into());
    }
    let plan = StarvePlan {
        rate: args.rate.map(f64::from),
        callers: args.callers,
        phase: Duration::try_from_secs_f64(args.phase_seconds)?,
        attack_beyond: Duration::try_from_secs_f64(args.attack_beyond_seconds)?,
        rounds: args.rounds,
        descriptors: args.descriptors,
        program: args.node_program.clone(),
        attack: AttackPlan {
            idle: args.idle,
            reopened_per_second: args.reopened_per_second,
            watches: args.watches,
            watches_again_per_second: args.watches_again_per_second,
            pings_per_second: args.pings_per_second,
            keys_per_second: args.keys_per_second,
            niceness: if args.untimed { 0 } else { NICENESS },
            ..StarvePlan::attack_from(IpAddr::V4(args.from))
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("jepsen-starve-").tempdir()?;
    let measured = runtime.block_on(measure(dir.path(), &plan, |line| eprintln!("{line}")));
    let report = measured.map_err(|e| -> Trouble { settings::with_causes(&e).into() })?;
    let noise_us = (args.noise_ms.max(0.0) * 1_000.0) as u64;
    let verdict = report.verdict((!args.untimed).then_some(args.p99_ratio_max), noise_us);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    match &verdict {
        Verdict::Holds => eprintln!("within the bounds"),
        Verdict::Fails(why) => why.iter().for_each(|why| eprintln!("NOT WITHIN THE BOUNDS: {why}")),
        Verdict::ProvesNothing(why) => eprintln!("the run proves nothing: the attack did not happen, {why}"),
    }
    if verdict != Verdict::Holds {
        eprintln!("logs: {}/node-*/node.log", dir.keep().display());
    }
    Ok(verdict == Verdict::Holds)
}

fn print(report: &StarveReport) {
    match report.reached {
        Some(reached) => println!("seller      {:.0} reservations a second, of {reached:.0} reached", report.rate),
        None => println!("seller      {:.0} reservations a second", report.rate),
    }
    let header = [
        "PHASE",
        "SECONDS",
        "CALLS/S",
        "P50 MS",
        "P99 MS",
        "P99.9 MS",
        "FAILED",
        "NEW MS",
        "LIVEZ MS",
        "ELECTIONS",
        "CPU %",
    ];
    println!("{}", table(header, report.phases.iter().map(row)));
    let header = ["PHASE", "NODE", "MIB BEFORE", "MIB MAX", "MIB AFTER", "CPU %", "CLOSED AND REFUSED"];
    println!("{}", table(header, report.phases.iter().flat_map(node_rows)));
    for attack in report.phases.iter().filter_map(|phase| phase.attack) {
        println!(
            "attack      idle connections {} gRPC, {} HTTP, {} peer; watches {} asked, {} begun, {} ended; \
             {} pings over {} connections; {} colliding keys, {} reservations failed",
            attack.idle_client,
            attack.idle_http,
            attack.idle_peer,
            attack.watches_asked,
            attack.watches_begun,
            attack.watches_ended,
            attack.pings,
            attack.ping_connections,
            attack.keys,
            attack.reservations_failed
        );
    }
    let ratios: Vec<String> = report.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!("p99         {} times the quiet one, median {:.2}", ratios.join(", "), report.ratio());
    let [taken, may] = report.memory;
    println!("memory      {} MiB at most for an attack, {} MiB may be", taken >> 20, may >> 20);
    let [ok, unknown, held] = report.held;
    println!("stock       {held} held, {ok} answered, {unknown} without a reservation");
}

fn name(phase: &PhaseFigures) -> &'static str {
    if phase.attacked { "attacked" } else { "quiet" }
}

fn row(phase: &PhaseFigures) -> [Cell; 11] {
    let ms = |us: u64| unit(format!("{:.2}", us as f64 / 1_000.0));
    let cpu: u64 = phase.nodes.iter().map(|node| node.cpu_ms).sum();
    [
        text(name(phase)),
        num(phase.seconds.round() as u64),
        num((phase.answered as f64 / phase.seconds) as u64),
        ms(phase.p50_us),
        ms(phase.p99_us),
        ms(phase.p999_us),
        num(phase.failed.iter().sum::<u64>()),
        ms(phase.new_connection_us_max),
        num(phase.livez_ms_max),
        num(phase.elections),
        percent(cpu, phase.seconds),
    ]
}

fn percent(cpu_ms: u64, seconds: f64) -> Cell {
    num((cpu_ms as f64 / 10.0 / seconds) as u64)
}

fn node_rows(phase: &PhaseFigures) -> impl Iterator<Item = [Cell; 7]> {
    phase.nodes.iter().map(|node| {
        let closed: Vec<String> = node.closed.iter().map(|(what, count)| format!("{what} {count}")).collect();
        [
            text(name(phase)),
            num(node.node),
            num(node.resident_before >> 20),
            num(node.resident_max >> 20),
            num(node.resident_after >> 20),
            percent(node.cpu_ms, phase.seconds),
            text(if closed.is_empty() { "-".to_owned() } else { closed.join(", ") }),
        ]
    })
}
