//! The lines a program logs, to standard error.
//!
//! **Owns** their form. **Must never** log by itself. **Read next**: [`crate::log_format_key!`].

use std::io::IsTerminal as _;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines a program writes, and how.
#[derive(Debug, Clone)]
pub struct Logs {
    /// For people or machines.
    pub format: LogFormat,
    /// Which lines, as `tracing` filters are written.
    pub filter: String,
}

impl Logs {
    /// For people, those that `filter` lets through.
    pub fn text(filter: &str) -> Self {
        Self { format: LogFormat::Text, filter: filter.to_owned() }
    }

    /// From now on, lines go to standard error; in colour when somebody looks who did not set `NO_COLOR`.
    pub fn start(&self) {
        let filter = tracing_subscriber::EnvFilter::new(&self.filter);
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
        // A line that cannot be written, as on a full disk, is dropped: to complain on standard error would panic.
        let lines = lines.log_internal_errors(false);
        match self.format {
            LogFormat::Text => lines.init(),
            LogFormat::Json => lines.json().flatten_event(true).init(),
        }
    }
}
