//! `jepsen mutation-test`: does any of this notice when the product is wrong?
//!
//! For each known-bad switch seeds are run until one fails; the same seed must hold with the switch off, or it proves nothing. A switch that no
//! seed notices is a failure of the tests.
//!
//! **Owns** these arguments. **Must never** run in a build without the switches: everything would hold. **Read next**: [`jepsen_like_tests::bad`].

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jepsen_like_tests::bad::{self, Bad};
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Report, Setting};
use ledger_node::data_dir::DataDir;
use ledger_raft::disk::RealDisk;

use super::{Held, many};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Seeds to try for each.
    #[arg(long, default_value_t = 300)]
    seeds_max: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one.
    #[arg(long)]
    only: Option<String>,
    /// Runs at a time.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Who noticed.
struct Caught {
    seed: u64,
    seeds: u64,
    by: Vec<&'static str>,
    first: String,
}

pub(super) fn run(args: &Args) -> Held {
    if !bad::is_known_bad_build() {
        return Err("this build has no known-bad switches; hint: RUSTFLAGS=\"--cfg holdfast_known_bad\" cargo run \
                    --target-dir target/known-bad -p jepsen-like-tests --bin jepsen -- mutation-test"
            .into());
    }
    let refused = refuses_real_directories()?;
    println!("a data directory on a real disk is {}", if refused { "refused" } else { "NOT refused" });
    let apart = Apart::here()?;
    let chosen = bad::ALL.iter().filter(|bad| args.only.as_deref().is_none_or(|only| only == bad.name));
    let mut missed = 0;
    println!("{:<28} {:>5} {:>7}  caught by", "known bad", "seed", "seeds");
    for bad in chosen {
        let began = Instant::now();
        match hunt(&apart, *bad, args)? {
            Some(caught) => {
                println!("{:<28} {:>5} {:>7}  {}", bad.name, caught.seed, caught.seeds, caught.by.join(", "));
                println!("{:<28} {:>13}  {}", "", format!("{:.0} s", began.elapsed().as_secs_f64()), caught.first);
            }
            None => {
                missed += 1;
                println!("{:<28} {:>5} {:>7}  NOT CAUGHT: {}", bad.name, "-", args.seeds_max, bad.what);
            }
        }
    }
    println!("{missed} not caught");
    Ok(refused && missed == 0)
}

fn with(seed: u64, bad: &str) -> Setting {
    Setting { known_bad: bad.to_owned(), ..Setting::of(seed) }
}

fn hunt(apart: &Apart, bad: Bad, args: &Args) -> Result<Option<Caught>, super::Trouble> {
    let settings = (args.from..args.from + args.seeds_max).map(|seed| with(seed, bad.name));
    let (mut seeds, mut caught, mut trouble) = (0, None::<Report>, None);
    many::run(apart, settings, many::jobs(args.jobs), |setting, report| {
        if caught.is_some() {
            return ControlFlow::Break(());
        }
        seeds += 1;
        if report.violations.is_empty() {
            return ControlFlow::Continue(());
        }
        // A seed that fails anyway proves nothing.
        match apart.run(&with(setting.seed, "")) {
            Ok(good) if good.violations.is_empty() => caught = Some(report),
            Ok(good) => {
                eprintln!("seed {} fails without {} too: {:?}", setting.seed, bad.name, good.violations.first())
            }
            Err(error) => trouble = Some(error),
        }
        if caught.is_some() || trouble.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = trouble {
        return Err(error.into());
    }
    Ok(caught.map(|report| Caught {
        seed: report.seed,
        seeds,
        by: report.violations.iter().map(|v| v.property).collect::<BTreeSet<_>>().into_iter().collect(),
        first: report.violations.first().map(|v| brief(&v.what)).unwrap_or_default(),
    }))
}

/// The first line, at most so long.
fn brief(what: &str) -> String {
    const MOST: usize = 160;
    let line = what.lines().next().unwrap_or_default();
    line.chars().take(MOST).collect()
}

/// A known-bad build must not get at anybody's data.
fn refuses_real_directories() -> std::io::Result<bool> {
    let dir = tempfile::tempdir()?;
    let opened = DataDir::open(Arc::new(RealDisk::new()), dir.path(), None);
    Ok(opened.is_err() && is_untouched(dir.path())?)
}

fn is_untouched(dir: &Path) -> std::io::Result<bool> {
    Ok(std::fs::read_dir(dir)?.next().is_none())
}
