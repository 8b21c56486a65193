//! The binary `ledger-node`.
//!
//! **Owns** what its help teaches. **Must never** do what [`ledger_node::process`] should. **Read next**: [`ledger_node::serve()`].

use std::process::ExitCode;

use clap::Command;
use ledger_node::process::{self, Interrupt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str = "One node of a Holdfast cluster: a stock ledger that cannot oversell.";
const TEACHES: &str = "\
How to begin:
  ledger-node --data-dir /var/lib/holdfast --client-listen 0.0.0.0:7101 --client-advertise node-1:7101 \\
    ... --access-trusted 127.0.0.0/8,10.0.0.0/8 --insecure
  (the same on each host; --insecure since other hosts reach it in plain text, --access-trusted with the
  networks of the members and their callers), then once, from one of those networks:
  ledgerctl cluster init --members 1=node-1:7101,2=node-2:7101,3=node-3:7101

Every option may also be an environment variable (HOLDFAST_CLIENT_LISTEN) or a key in a TOML file
([client] listen = \"...\", given with --config). Flags win over the environment, that over the file, that over
the defaults. `ledger-node --print-config` shows what is in effect and where each value came from.

Exit codes: 0 stopped as asked, 1 could not start or had to stop, 2 bad usage or configuration.";

fn main() -> ExitCode {
    let command = Command::new("ledger-node")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(TEACHES)
        .args(process::arguments());
    process::run(&command.get_matches(), Interrupt::Stops)
}
