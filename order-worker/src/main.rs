//! The binary `order-worker`.
//!
//! **Owns** what its help teaches. **Must never** do what [`order_worker::process`] should. **Read next**: [`order_worker::engine`].

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use client_sdk::OpeningKey;
use order_worker::process;
use settings::private_files;

const ABOUT: &str = "Claims orders from a Holdfast ledger and runs them: pay, confirm or release, notify, refund.";
const TEACHES: &str = "\
How to begin:
  order-worker keys new /etc/holdfast/worker.keys        adds a private key; the public half goes to stderr
  order-worker run --config /etc/holdfast/worker.toml    as many as you like, anywhere; they keep no state

Whoever places orders seals payment tokens and contacts to the public key (`order-worker keys show` prints it), so that
ledger, log and backups hold nothing readable. To rotate: add a new key to every worker's file, then seal to the new
one; delete the old one when nothing sealed to it is needed. What a deleted key sealed is forgotten: such orders park.

Workers may be killed at any time: leases end and others go on; nothing is charged twice.

Exit codes: 0 done, or stopped as asked; 1 could not start or had to stop; 2 bad usage or configuration.";
const RUN_TEACHES: &str = "\
Every option may also be an environment variable (HOLDFAST_WORKER_POLL_MIN) or a key in the TOML file
([poll] min = \"20ms\"). Flags win over the environment, that over the file, that over the defaults.
`order-worker run --print-config` shows what is in effect and where each value came from.

Secrets are never options: *_file options name files that hold them. They must have mode 0600 or 0400.

The provider's webhooks go to POST /webhooks/stripe. They are not needed for exactness, only for speed: what they tell
would be found by looking, later. Health: /livez, /readyz?verbose. Metrics: /metrics.";

fn main() -> ExitCode {
    let file = Arg::new("file").value_name("FILE").required(true).help("A key file");
    let into =
        Arg::new("file").value_name("FILE").help("A key file to add it to, made with mode 0600 if there is none");
    let keys = Command::new("keys")
        .about("Make keys, and show their public halves")
        .subcommand_required(true)
        .subcommand(
            Command::new("new")
                .about("Add a new private key to a file, or print it to stdout; its public half goes to stderr")
                .arg(into),
        )
        .subcommand(Command::new("show").about("Print the public halves of a key file").arg(file));
    let run = Command::new("run").about("Run a worker").after_help(RUN_TEACHES).args(process::arguments());
    let command = Command::new("order-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(TEACHES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
        .subcommand(keys);
    match command.get_matches().subcommand() {
        Some(("run", matches)) => process::run(matches),
        Some(("keys", matches)) => keys_command(matches),
        _ => ExitCode::from(2),
    }
}

fn keys_command(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("new", matches)) => {
            let key = OpeningKey::generate();
            match matches.get_one::<String>("file").map(Path::new) {
                None => println!("{}", key.secret_text()),
                Some(file) => {
                    if let Err(error) = private_files::add_to_key_file(file, &key.secret_text()) {
                        eprintln!("error: {:#}", anyhow::Error::new(error));
                        return ExitCode::FAILURE;
                    }
                }
            }
            eprintln!("public: {}", key.sealing_key());
            ExitCode::SUCCESS
        }
        Some(("show", matches)) => {
            let file = matches.get_one::<String>("file").map(String::as_str).unwrap_or_default();
            match process::opening_keys(Path::new(file)) {
                Ok(keys) => {
                    keys.sealing_keys().for_each(|key| println!("{key}"));
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("error: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => ExitCode::from(2),
    }
}
