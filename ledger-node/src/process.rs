//! A node as a process: arguments, logging, runtime, signals. `ledger-node` is one, `ledgerctl` starts others inside its own executable.
//!
//! **Owns** the process: what its allocator keeps, how it ends. **Must never** do what [`crate::serve()`] should, or exit by itself.
//! **Read next**: [`crate::serve()`].

use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches};
use settings::private_files;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::NodeConfig;
use crate::limits::{ALLOCATOR_KEEPS_FOR_EVER, ALLOCATOR_KEEPS_MS, PAGE, RESERVE_STEP};
use crate::{NodeSeams, serve};

/// Who decides what an interrupt (Ctrl-C) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// It stops the node, like a termination.
    Stops,
    /// It went to the whole group of processes; the parent decides how its nodes end.
    IsTheParents,
}

/// The arguments of a node: `--config`, `--print-config`, and one for each key of the configuration.
pub fn arguments() -> Vec<Arg> {
    settings::arguments::<NodeConfig>()
}

/// Runs a node with parsed [`arguments`] until it is told to stop or cannot go on.
pub fn run(matches: &ArgMatches, interrupt: Interrupt) -> ExitCode {
    private_files::for_this_process();
    let config = match settings::load::<NodeConfig>(matches) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match start(config, interrupt) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the node stops");
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: NodeConfig, interrupt: Interrupt) -> anyhow::Result<()> {
    config.logs.start();
    keep_memory(config.memory_reserve_bytes);
    disable_huge_pages();
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
    runtime.block_on(live(config, interrupt))
}

async fn live(config: NodeConfig, interrupt: Interrupt) -> anyhow::Result<()> {
    let (within, data_dir) = (config.shutdown_within, config.data_dir.clone());
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    let mut node = serve(config, NodeSeams::of_this_process()).await?;
    // Only now it is known to be a node's. One that an earlier build made may be wider.
    match private_files::narrow(&data_dir) {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!(dir = %data_dir.display(), "others could read the data directory; it has mode 0700 now")
        }
        Err(error) => {
            tracing::warn!(dir = %data_dir.display(), %error, "others can read the data directory; run chmod 700 on it");
        }
    }
    tracing::info!(client = %node.client_addr(), http = %node.http_addr(), peer = %node.peer_addr(), "listening");
    loop {
        tokio::select! {
            why = node.wait() => anyhow::bail!(why),
            _ = terminate.recv() => break,
            _ = interrupted.recv() => match interrupt {
                Interrupt::Stops => break,
                Interrupt::IsTheParents => tracing::info!("interrupt: left to the parent"),
            },
        }
    }
    tracing::info!("asked to stop: handing leadership over");
    node.shutdown(within).await;
    tracing::info!("stopped");
    Ok(())
}

/// `mi_option_purge_delay` of mimalloc.h, the same number in its versions 2 and 3; the bindings do not name it.
const MI_OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Freed pages are kept for a while instead of going back to the system at once: entries and records come and go by the
/// hundred kilobytes, and to have their pages cleared again and again cost a fifth of a node's CPU. With a reserve nothing
/// goes back at all: `bytes` are taken and touched now, so that no call waits for the system to clear pages (the idea
/// of `AlwaysPreTouch` in Java's virtual machine). For processes whose allocator is mimalloc; a bench's client is another.
#[expect(unsafe_code, reason = "the allocator's options have no safe interface; setting one has no precondition")]
pub fn keep_memory(bytes: u64) {
    let keeps_ms = if bytes == 0 { ALLOCATOR_KEEPS_MS } else { ALLOCATOR_KEEPS_FOR_EVER };
    // SAFETY: a plain store into mimalloc's table of options; valid at any time from any thread.
    unsafe {
        libmimalloc_sys::mi_option_set(MI_OPTION_PURGE_DELAY, keeps_ms);
    }
    if bytes == 0 {
        return;
    }
    let began = tokio::time::Instant::now();
    let mut taken = Vec::new();
    for _ in 0..bytes.div_ceil(RESERVE_STEP as u64) {
        let mut step = vec![0_u8; RESERVE_STEP];
        step.iter_mut().step_by(PAGE).for_each(|page| *page = 1);
        taken.push(std::hint::black_box(step));
    }
    drop(taken);
    tracing::info!(bytes, seconds = began.elapsed().as_secs_f32(), "memory reserved");
}

/// Memory that is touched from now on comes in pages of 4 KiB. The system clears a huge page, 2 MiB,
/// at once in whatever thread touches it first, which held up all calls of a node for 10 ms and
/// more each time; mimalloc asks for them before `main` begins. What was touched before stays as it
/// is: a reserve may have huge pages. Programs that this one starts inherit it.
#[expect(unsafe_code, reason = "prctl has no safe interface here; this option takes numbers and no pointer")]
pub fn disable_huge_pages() {
    // SAFETY: it changes a flag of this process's memory map and reads no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "huge pages cannot be disabled: latencies may be uneven as memory grows");
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

#[cfg(test)]
mod tests {
    #[test]
    fn memory_that_is_taken_later_has_no_huge_pages() {
        super::disable_huge_pages();
        let status = std::fs::read_to_string("/proc/self/status").expect("this process has a status");
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        assert_eq!(enabled.map(str::trim), Some("0"), "{status}");
    }
}
