//! The binary: parses, runs, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use cluster::cli::{Cli, Verb};
use cluster::limits::BENCH_MEMORY_BYTES;
use cluster::output::Failure;
use ledger_node::process::keep_memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Errors of usage are clap's: it exits with 2 as we want.
    let cli = Cli::parse();
    match cli.command {
        Verb::RunNode { args } => return cluster::node_mode::run(args),
        Verb::Worker { args } => return cluster::node_mode::run_worker(args),
        Verb::Provider { args } => return cluster::node_mode::run_provider(args),
        _ => {}
    }
    if matches!(cli.command, Verb::Dev(_) | Verb::Demo(_) | Verb::Bench(_)) {
        // They make data directories and keys.
        settings::private_files::for_this_process();
    }
    let threads = match &cli.command {
        Verb::Bench(args) => {
            keep_memory(BENCH_MEMORY_BYTES);
            args.threads
        }
        _ => 1,
    };
    let mut builder = if threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let outcome = match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(cluster::commands::run(cli)),
        Err(e) => Err(Failure::refused(format!("no runtime: {e}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.exit_code())
        }
    }
}
