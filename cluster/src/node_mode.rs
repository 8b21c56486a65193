//! A node inside this executable, so that the demo needs no second build step.
//!
//! **Owns** `--until-stdin-closes`: the parent holds the other end of stdin, so however it dies, the node ends too.
//! **Must never** do anything a `ledger-node` process would not. **Read next**: [`crate::dev_cluster`].

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use ledger_node::config::{KEYS, Loaded, LogFormat, NodeConfig};
use ledger_node::{NodeSeams, serve};
use tokio::signal::unix::{SignalKind, signal};

fn command() -> Command {
    let mut command = Command::new("ledgerctl node")
        .no_binary_name(true)
        .arg(Arg::new("config").long("config").value_name("FILE"))
        .arg(Arg::new("tied").long("until-stdin-closes").action(ArgAction::SetTrue));
    for key in KEYS {
        command = command
            .arg(Arg::new(key.name).long(key.flag()).value_name("VALUE").help(key.what).allow_hyphen_values(true));
    }
    command
}

/// Runs a node with `ledger-node`'s arguments until it is told to stop.
pub fn run(args: Vec<String>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    if matches.get_flag("tied") {
        end_with_stdin();
    }
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
    match live_on_a_runtime(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn end_with_stdin() {
    std::thread::spawn(|| {
        // Nothing is ever written: the read returns when the parent is gone.
        let mut nothing = [0u8; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(1);
    });
}

fn live_on_a_runtime(config: NodeConfig) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_filter);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    // A panic means a broken invariant: the process must stop, not limp, in debug builds too.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    let mut runtime = match config.runtime_threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    runtime.enable_all().build()?.block_on(live(config))
}

async fn live(config: NodeConfig) -> anyhow::Result<()> {
    let within = config.shutdown_within;
    let mut terminate = signal(SignalKind::terminate())?;
    // Ctrl-C goes to the whole group; the parent decides how its nodes end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut node = serve(config, NodeSeams::real()).await?;
    tracing::info!(client = %node.client_addr(), http = %node.http_addr(), peer = %node.peer_addr(), "listening");
    loop {
        tokio::select! {
            why = node.wait() => anyhow::bail!(why),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => tracing::info!("interrupt: left to the parent"),
        }
    }
    tracing::info!("asked to stop: handing leadership over");
    node.shutdown(within).await;
    Ok(())
}
