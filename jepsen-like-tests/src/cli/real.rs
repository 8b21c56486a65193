//! `jepsen real`: real processes on loopback, or somebody's own cluster.
//!
//! **Owns** these arguments and the table. **Must never** harm a process it did not start. **Read next**: [`jepsen_like_tests::real`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use client_sdk::v1;
use cluster::link::ClusterLink;
use cluster::output::{num, table, text};
use jepsen_like_tests::real::{Campaign, Given, Nemesis, RealError, Round, RoundReport, Row, round};
use jepsen_like_tests::workload::Load;

use super::many::Progress;
use super::{Held, Trouble, tell};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A kind of fault (see `jepsen list`), or `all` of them in turn; may be given several times.
    #[arg(long, default_value = "all")]
    nemesis: Vec<String>,
    /// Time over all rounds.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Time of one round, about; each begins with a fresh cluster.
    #[arg(long, default_value_t = 60.0)]
    round_seconds: f64,
    /// Processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,
    /// Shards.
    #[arg(long, default_value_t = 2)]
    shards: u32,
    /// Your own cluster instead: some of its nodes, as host:port,host:port. It must be empty; products are left behind.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// Your own faults: a program that is called with `inject` and later with `heal`. Implies --nemesis program.
    #[arg(long, value_name = "PATH")]
    fault_program: Option<PathBuf>,
    /// Victims and clients are drawn from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients at once.
    #[arg(long, default_value_t = 24)]
    clients: u32,
    /// Fewer definite answers a second than this prove nothing: the run fails.
    #[arg(long, default_value_t = 20.0)]
    rate_min: f64,
    /// Below this the nodes' directories and logs go; not set: a temporary place, kept only after a failure.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where a failing round's journal goes.
    #[arg(long, value_name = "FILE", default_value = "history.jsonl")]
    history: PathBuf,
    /// Tell every fault.
    #[arg(long)]
    verbose: bool,
}

impl Args {
    fn nemeses(&self) -> Result<Vec<Nemesis>, Trouble> {
        if self.fault_program.is_some() {
            return Ok(vec![Nemesis::Program]);
        }
        if self.nemesis.iter().any(|name| name == "all") {
            return Ok(if self.endpoints.is_empty() { Nemesis::ALL.to_vec() } else { vec![Nemesis::Calm] });
        }
        let of = |name: &String| {
            Nemesis::of_name(name).ok_or_else(|| format!("no nemesis is called {name:?}; hint: jepsen list").into())
        };
        let nemeses: Vec<Nemesis> = self.nemesis.iter().map(of).collect::<Result<_, Trouble>>()?;
        // Before a client has asked anything: what is theirs stays empty.
        match self.endpoints.is_empty() || nemeses.iter().all(|nemesis| nemesis.is_for_anybody()) {
            true => Ok(nemeses),
            false => Err(RealError::NotOurs.into()),
        }
    }
}

pub(super) fn run(args: &Args) -> Held {
    if args.verbose {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| "warn,jepsen_like_tests=info".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(campaign(args))
}

async fn given(args: &Args) -> Result<Given, Trouble> {
    if args.endpoints.is_empty() {
        return Ok(Given::Ours { nodes: args.nodes, shards: args.shards });
    }
    let members = async |link: &cluster::link::NodeLink| {
        link.ledger().get_routing(v1::GetRoutingRequest {}).await.map(tonic::Response::into_inner)
    };
    let routing = ClusterLink::new(&args.endpoints)?.ask("the members", members).await?;
    Ok(Given::Theirs(routing.nodes.into_iter().map(|n| (n.node, n.client)).collect()))
}

async fn campaign(args: &Args) -> Held {
    let nemeses = args.nemeses()?;
    let given = given(args).await?;
    let whole = Duration::from_secs_f64(args.minutes * 60.0);
    let one = match &given {
        Given::Ours { .. } => Duration::from_secs_f64(args.round_seconds),
        // What was sold in one round would be in the books of the next.
        Given::Theirs(_) => whole,
    };
    let campaign = Campaign::of(&nemeses, whole, one);
    let (kept, dir) = directory(args)?;
    let progress = Progress::new(Some(campaign.rounds.len() as u64), "rounds");
    let mut rows: Vec<Row> = Vec::new();
    for (n, (nemesis, lasts)) in campaign.rounds.iter().enumerate() {
        let seed = args.seed + n as u64;
        let what = Round {
            nemesis: *nemesis,
            given: given.clone(),
            program: args.fault_program.clone(),
            lasts: *lasts,
            seed,
            load: load(args),
            rate_min: args.rate_min,
        };
        let place = dir.join(format!("round-{n}-{nemesis}"));
        std::fs::create_dir_all(&place)?;
        let report = round(&what, &place)
            .await
            .map_err(|error| format!("round {n} ({nemesis}): {}", settings::with_causes(&error)))?;
        progress.step(&brief(&report));
        if args.verbose || !report.violations.is_empty() {
            for spell in &report.spells {
                progress.say(&format!("  {:>8} to {:>8} ms  {}", spell.from_ms, spell.to_ms, spell.what));
            }
        }
        match rows.iter_mut().find(|row| row.nemesis == *nemesis) {
            Some(row) => row.add(&report),
            None => rows.push({
                let mut row = Row::of(*nemesis);
                row.add(&report);
                row
            }),
        }
        if !report.violations.is_empty() {
            failed(args, &what, &report, &place);
            print(&rows);
            // The logs of our nodes are evidence.
            if let Some(kept) = kept.filter(|_| args.endpoints.is_empty()) {
                println!("nodes:      {}", kept.keep().display());
            }
            return Ok(false);
        }
        std::fs::remove_dir_all(&place)?;
    }
    drop(progress);
    print(&rows);
    Ok(true)
}

fn directory(args: &Args) -> Result<(Option<tempfile::TempDir>, PathBuf), Trouble> {
    match &args.dir {
        Some(dir) => Ok((None, dir.clone())),
        None => {
            let temporary = tempfile::Builder::new().prefix("jepsen-").tempdir()?;
            let path = temporary.path().to_owned();
            Ok((Some(temporary), path))
        }
    }
}

/// Everything the clients can do, at once, and with room.
fn load(args: &Args) -> Load {
    let mut load = Load::default();
    (load.clients, load.units, load.deadline_ms, load.pause_ms_max) = (args.clients, 2_000, 3_000, 40);
    load
}

fn brief(report: &RoundReport) -> String {
    let verdict = if report.violations.is_empty() { "held" } else { "FAILED" };
    let faults: u32 = report.struck.values().sum();
    format!("{}: {} operations, {faults} faults, {verdict}", report.nemesis, report.run.events.len())
}

fn failed(args: &Args, what: &Round, report: &RoundReport, place: &Path) {
    println!("{} FAILED (seed {})", report.nemesis, what.seed);
    tell::violations(&report.violations);
    tell::journal(&report.run, &args.history);
    println!("commit:     {}", tell::commit());
    println!("build:      {}", tell::build());
    let (seed, minutes) = (what.seed, what.lasts.as_secs_f64() / 60.0);
    if !args.endpoints.is_empty() {
        let program = args.fault_program.as_ref().map(|path| format!(" --fault-program {}", path.display()));
        println!(
            "again:      on a fresh cluster: {} real --endpoints {}{} --seed {seed} --minutes {minutes:.2}",
            tell::cargo(),
            args.endpoints.join(","),
            program.unwrap_or_default()
        );
        return;
    }
    println!("logs:       {}/node-*/node.log", place.display());
    println!(
        "again:      {} real --nemesis {} --seed {seed} --minutes {minutes:.2} --round-seconds {:.0} --nodes {} --shards {}",
        tell::cargo(),
        report.nemesis,
        what.lasts.as_secs_f64(),
        args.nodes,
        args.shards
    );
}

fn print(rows: &[Row]) {
    let ms = |of: Option<u64>| of.map_or_else(|| text("-"), num);
    let rows = rows.iter().map(|row| {
        let seconds = row.pressed.as_secs_f64();
        // Without a fault there is no operation during one.
        let verdict = if row.violations == 0 { "held".to_owned() } else { format!("{} VIOLATIONS", row.violations) };
        [
            text(row.nemesis.name()),
            num(row.rounds),
            num((seconds / 60.0).round() as u64),
            num(row.faults),
            num(row.operations as u64),
            num((row.operations as f64 / seconds.max(f64::EPSILON)) as u64),
            num(row.unknowns as u64),
            ms(row.quantile_ms(true, 0.5)),
            ms(row.quantile_ms(true, 0.99)),
            ms(row.quantile_ms(false, 0.5)),
            ms(row.quantile_ms(false, 0.99)),
            text(verdict),
        ]
    });
    let header = [
        "NEMESIS",
        "ROUNDS",
        "MINUTES",
        "FAULTS",
        "OPERATIONS",
        "A SECOND",
        "UNKNOWN",
        "P50 MS",
        "P99 MS",
        "P50 CALM",
        "P99 CALM",
        "VERDICT",
    ];
    println!("{}", table(header, rows));
}
