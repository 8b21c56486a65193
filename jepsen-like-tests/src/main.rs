//! `jepsen`: the testers' command.
//!
//! **Owns** nothing. **Must never** do more than call [`cli`]. **Read next**: [`cli`].

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
