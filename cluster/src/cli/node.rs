//! The command line of `ledgerctl node`.
//!
//! **Owns** names and defaults of its flags. **Must never** do anything. **Read next**: [`crate::commands`].

use std::time::Duration;

use clap::{Args, Subcommand};

/// `node`
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Bring members back whose data directories are empty. Safe to repeat.
    Rejoin(RejoinArgs),
}

/// `node rejoin`
#[derive(Debug, Args)]
#[command(after_help = "\
For a member whose data directory is lost. Start it on an empty directory, under its node id; start all other members; then run
this command. Every other member refuses the old disk from then on, for good: if the old directory can still be found, start the
node on that instead. The member is repaired from the others before it votes or acknowledges anything.

All other members must answer, and those that have lost nothing must be a majority of each shard's replicas. Members that are
lost together are named together. The command ends when they are repaired.

Examples:
  ledgerctl node rejoin 2
  ledgerctl node rejoin 2 --at 2=host9:7101        it runs on another host now
  ledgerctl node rejoin 2 4                        two of five")]
pub struct RejoinArgs {
    /// The members, by node id.
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<u64>,
    /// ID=HOST:PORT of a member's client port, where that is not the one that the others know.
    #[arg(long, value_delimiter = ',', value_name = "ID=HOST:PORT", value_parser = super::member)]
    pub at: Vec<(u64, String)>,
    /// How long to wait until they are repaired.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10m")]
    pub within: Duration,
}
