//! The binary `event-bridge`.
//!
//! **Owns** what its help teaches. **Must never** do what [`event_bridge::process`] should. **Read next**: [`event_bridge::bridge`].

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use event_bridge::config::Config;
use event_bridge::cursor::CursorDir;
use event_bridge::process;

const ABOUT: &str = "Publishes the feed of a Holdfast cluster as CloudEvents to RabbitMQ (AMQP 0.9.1).";
const TEACHES: &str = "\
How to begin, with a cluster on 127.0.0.1:7101 (`ledgerctl dev`) and a RabbitMQ on this host:
  event-bridge run --data-dir /var/lib/holdfast-bridge
then bind a queue to the topic exchange `holdfast`, for instance:
  holdfast.SoldOut.*            whatever sells out
  *.*.shoe-42                   all of one product

Every change is published at least once and in order per product, with a routing key of its type and its SKU. Consumers drop
doubles by the event's id. A message that no queue is bound for is dropped by the broker: bind queues before you start the bridge.
It goes on where confirms have come to, from a cursor in its data_dir, and rides out broker, nodes and its own restarts.

Every option may also be an environment variable (HOLDFAST_BRIDGE_BROKER_URI) or a key in a TOML file
([broker] uri = \"...\", given with --config). Flags win over the environment, that over the file, that over the defaults.

Exit codes: 0 stopped as asked, 1 could not start or had to stop, 2 bad usage or configuration.";

fn command() -> Command {
    let run = Command::new("run")
        .about("Publish until told to stop (SIGTERM, Ctrl-C)")
        .after_help(TEACHES)
        .args(settings::arguments::<Config>());
    let yes = Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("Do it");
    let reset = Command::new("reset")
        .about(
            "Drop the stored cursor: the next run begins where --from says. What lies between may never be published",
        )
        .args(settings::arguments::<Config>())
        .arg(yes);
    Command::new("event-bridge")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(TEACHES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([run, reset])
}

fn main() -> ExitCode {
    settings::private_files::for_this_process();
    let matches = command().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    let config = match settings::load::<Config>(matches) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match name {
        "reset" => reset(&config, matches),
        _ => run(config),
    }
}

fn reset(config: &Config, matches: &ArgMatches) -> ExitCode {
    let dir = config.data_dir.display();
    if !matches.get_flag("yes") {
        eprintln!(
            "this drops the cursor in {dir}; what was not published yet may never be\nhint: event-bridge reset --yes --data-dir {dir}"
        );
        return ExitCode::from(2);
    }
    match CursorDir::open(&config.data_dir).and_then(|dir| dir.forget()) {
        Ok(true) => println!("dropped the cursor in {dir}; the next run begins where --from says"),
        Ok(false) => println!("there is no cursor in {dir}"),
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(config: Config) -> ExitCode {
    config.logs.start();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::new)
        .and_then(|runtime| runtime.block_on(process::run(config, seed())));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(why = format!("{why:#}"), "the bridge stops");
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the process's one drop of chance, which seeds the jitter of pauses")]
fn seed() -> u64 {
    rand::random()
}
