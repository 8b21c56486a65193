//! `jepsen`: the testers' command.
//!
//! **Owns** nothing. **Must never** do more than call [`cli`]. **Read next**: [`cli`].

mod cli;

use std::process::ExitCode;

// A run is millions of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
