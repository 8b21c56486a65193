//! `jepsen check`: judges a journal on its own.
//!
//! **Owns** these arguments. **Must never** need anything but the file. **Read next**: [`jepsen_like_tests::history`].

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use jepsen_like_tests::checkers;
use jepsen_like_tests::history::Run;

use super::{Held, tell};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The journal, as JSON lines.
    #[arg(default_value = "history.jsonl")]
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Held {
    let file = File::open(&args.file).map_err(|e| format!("cannot open {}: {e}", args.file.display()))?;
    let run = Run::read_events(&mut BufReader::new(file))?;
    let violations = checkers::check_all(&run);
    println!("{} operations, {} checkers", run.events.len(), checkers::ALL.len());
    if violations.is_empty() {
        println!("all held");
        return Ok(true);
    }
    tell::violations(&violations);
    Ok(false)
}
