//! A node as a process of its own, with a lossy disk and a clock that can be set wrong; otherwise what `ledger-node` runs.
//!
//! **Owns** the seams of that process. **Must never** serve anybody but a test: its disk loses what was not synced.
//! **Read next**: [`super::knobs`], [`super::disk`].

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, Command};
use ledger_node::config::NodeConfig;
use ledger_node::{NodeSeams, process, serve};
use tokio::signal::unix::{SignalKind, signal};

use super::disk::LossyDisk;
use super::knobs::{Knobs, OffClock, Turned};

/// Runs a node with `ledger-node`'s arguments until it is told to stop.
pub fn run(args: Vec<String>) -> ExitCode {
    let command = Command::new("jepsen node")
        .no_binary_name(true)
        .arg(Arg::new("tied").long("until-stdin-closes").action(ArgAction::SetTrue))
        .args(process::arguments());
    let matches = command.get_matches_from(args);
    let config = match settings::load::<NodeConfig>(&matches) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if matches.get_flag("tied") {
        end_with_stdin();
    }
    stop_on_panic();
    config.logs.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|e| format!("no runtime: {e}")).and_then(|runtime| runtime.block_on(live(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the node stops");
            ExitCode::FAILURE
        }
    }
}

fn seams(config: &NodeConfig) -> NodeSeams {
    let turned = Turned::follow(Knobs::file_beside(&config.data_dir));
    let mut seams = NodeSeams::of_this_process();
    seams.raft.disk = Arc::new(LossyDisk::new(seams.raft.disk, turned.clone()));
    seams.raft.clock = Arc::new(OffClock { real: seams.raft.clock, turned });
    seams
}

async fn live(config: NodeConfig) -> Result<(), String> {
    let within = config.shutdown_within;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("no signals: {e}"))?;
    // Ctrl-C goes to the whole group of processes; the parent decides how its nodes end.
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|e| format!("no signals: {e}"))?;
    let seams = seams(&config);
    let mut node = serve(config, seams).await.map_err(|e| e.to_string())?;
    loop {
        tokio::select! {
            why = node.wait() => return Err(why),
            _ = terminate.recv() => break,
            _ = interrupted.recv() => {}
        }
    }
    node.shutdown(within).await;
    Ok(())
}

/// However the parent dies, this process ends with it.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut nothing = [0u8; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(1);
    });
}

/// A panic means a broken invariant: the process must stop, not limp.
fn stop_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}
