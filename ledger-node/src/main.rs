//! The binary `ledger-node`: configuration, logging, signals.
//!
//! **Owns** the process: its runtime, its allocator, its exit code. **Must never** do what [`ledger_node::serve`] should.
//! **Read next**: [`ledger_node::serve`].

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, Command};
use ledger_node::config::{KEYS, Loaded, LogFormat, NodeConfig};
use ledger_node::{NodeSeams, serve};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str = "One node of a Holdfast cluster: a stock ledger that cannot oversell.";
const TEACHES: &str = "\
How to begin:
  ledger-node --data-dir /var/lib/holdfast --client-listen 0.0.0.0:7101 --client-advertise node-1:7101 ...
  (the same on each host), then once, from anywhere:
  ledgerctl cluster init 1=node-1:7101 2=node-2:7101 3=node-3:7101

Every option may also be an environment variable (HOLDFAST_CLIENT_LISTEN) or a key in a TOML file
([client] listen = \"...\", given with --config). Flags win over the environment, that over the file, that over
the defaults. `ledger-node --print-config` shows what is in effect and where each value came from.

Exit codes: 0 stopped as asked, 1 could not start or had to stop, 2 bad usage or configuration.";

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("HOLDFAST_CONFIG")
        .help("A TOML file with keys as below");
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print the effective configuration as TOML, with the origin of each value, and exit");
    let mut command = Command::new("ledger-node")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(TEACHES)
        .arg(config)
        .arg(print);
    for key in KEYS {
        let (table, _) = key.name.split_once('.').unwrap_or(("node", ""));
        let arg = Arg::new(key.name).long(key.flag()).value_name("VALUE").help(key.what);
        command = command.arg(arg.help_heading(table).allow_hyphen_values(true));
    }
    command
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let flags: BTreeMap<&'static str, String> =
        KEYS.iter().filter_map(|key| Some((key.name, matches.get_one::<String>(key.name)?.clone()))).collect();
    let file = matches.get_one::<String>("config").map(PathBuf::from);
    let loaded = match Loaded::from_sources(&flags, |name| std::env::var(name).ok(), file.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::new(error));
            return ExitCode::from(2);
        }
    };
    if matches.get_flag("print-config") {
        print!("{}", loaded.to_toml());
        return ExitCode::SUCCESS;
    }
    match run(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the node stops");
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: NodeConfig) -> anyhow::Result<()> {
    log_to_stderr(&config);
    abort_on_panic();
    let mut runtime = match config.runtime_threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    let runtime = runtime.enable_all().build().context("the runtime cannot be started")?;
    runtime.block_on(live(config))
}

async fn live(config: NodeConfig) -> anyhow::Result<()> {
    let within = config.shutdown_within;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    let mut node = serve(config, NodeSeams::real()).await?;
    tracing::info!(client = %node.client_addr(), http = %node.http_addr(), peer = %node.peer_addr(), "listening");
    tokio::select! {
        why = node.wait() => anyhow::bail!(why),
        _ = terminate.recv() => tracing::info!("asked to stop: handing leadership over"),
        _ = interrupt.recv() => tracing::info!("interrupted: handing leadership over"),
    }
    node.shutdown(within).await;
    tracing::info!("stopped");
    Ok(())
}

fn log_to_stderr(config: &NodeConfig) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_filter);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// A panic anywhere means a broken invariant: the process must stop, not limp. (Release builds abort by themselves; this makes
/// every build do so, after the message.)
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}
