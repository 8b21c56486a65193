//! A node inside this executable, so that the demo needs no second build step.
//!
//! **Owns** `--until-stdin-closes`: the parent holds the other end of stdin, so however it dies, the node ends too.
//! **Must never** do anything a `ledger-node` process would not. **Read next**: [`crate::dev_cluster`].

use std::io::Read;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use ledger_node::process::{self, Interrupt};

/// Runs a node with `ledger-node`'s arguments until it is told to stop.
pub fn run(args: Vec<String>) -> ExitCode {
    let command = Command::new("ledgerctl node")
        .no_binary_name(true)
        .arg(Arg::new("tied").long("until-stdin-closes").action(ArgAction::SetTrue))
        .args(process::arguments());
    let matches = match command.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    if matches.get_flag("tied") {
        end_with_stdin();
    }
    process::run(&matches, Interrupt::IsTheParents)
}

fn end_with_stdin() {
    std::thread::spawn(|| {
        // Nothing is ever written: the read returns when the parent is gone.
        let mut nothing = [0u8; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(1);
    });
}
