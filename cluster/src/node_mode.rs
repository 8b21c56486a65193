//! A node, an order worker or a payment provider inside this executable, so that the demo needs no second build step.
//!
//! **Owns** `--until-stdin-closes`: the parent holds the other end of stdin, so however it dies, the node ends too.
//! **Must never** do anything a `ledger-node` process would not. **Read next**: [`crate::dev_cluster`].

use std::io::Read;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use ledger_node::process::{self, Interrupt};
use payment_sim::process::Flags;

/// Runs a node with `ledger-node`'s arguments until it is told to stop.
pub fn run(args: Vec<String>) -> ExitCode {
    match parsed("ledgerctl run-node", process::arguments(), args) {
        Ok(matches) => process::run(&matches, Interrupt::IsTheParents),
        Err(code) => code,
    }
}

/// Runs an order worker with `order-worker run`'s arguments until it is told to stop.
pub fn run_worker(args: Vec<String>) -> ExitCode {
    match parsed("ledgerctl worker", order_worker::process::arguments(), args) {
        Ok(matches) => order_worker::process::run(&matches),
        Err(code) => code,
    }
}

/// Runs a payment provider with `payment-sim`'s arguments until it is told to stop.
pub fn run_provider(args: Vec<String>) -> ExitCode {
    let flags = Flags::augment_args(Command::new("ledgerctl provider"));
    let flags = parse(flags, args).and_then(|matches| Flags::from_arg_matches(&matches).map_err(|e| told(&e)));
    match flags {
        Ok(flags) => payment_sim::process::run(flags),
        Err(code) => code,
    }
}

fn parsed(name: &'static str, arguments: Vec<Arg>, args: Vec<String>) -> Result<ArgMatches, ExitCode> {
    parse(Command::new(name).args(arguments), args)
}

fn told(error: &clap::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

fn parse(command: Command, args: Vec<String>) -> Result<ArgMatches, ExitCode> {
    let command =
        command.no_binary_name(true).arg(Arg::new("tied").long("until-stdin-closes").action(ArgAction::SetTrue));
    let matches = command.try_get_matches_from(args).map_err(|e| told(&e))?;
    if matches.get_flag("tied") {
        end_with_stdin();
    }
    Ok(matches)
}

fn end_with_stdin() {
    std::thread::spawn(|| {
        // Nothing is ever written: the read returns when the parent is gone.
        let mut nothing = [0u8; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(1);
    });
}
