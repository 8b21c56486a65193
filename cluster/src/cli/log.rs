//! The command line of `ledgerctl log`.
//!
//! **Owns** names and defaults of its flags. **Must never** do anything. **Read next**: [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `log`
#[derive(Debug, Subcommand)]
pub enum LogVerb {
    /// What the log holds: its groups, or the newest entries of one.
    List(LogListArgs),
    /// One entry: its position, stamp, hash, and its commands or why it cannot be decoded.
    Show(LogShowArgs),
}

/// `log list`
#[derive(Debug, Args)]
#[command(after_help = "\
The node must be stopped: a directory in use is refused. Nothing is changed.

Examples:
  ledgerctl log list --data-dir /var/lib/holdfast               the groups, and which indexes their logs hold
  ledgerctl log list --data-dir DIR --group 1                   the newest 20 entries of shard 1
  ledgerctl log list --data-dir DIR --group 1 --refused         only those that cannot be decoded
  ledgerctl log list --data-dir DIR --group 1 --before 5000 --max 100

Group 0 is the meta group (members, shards, settings); group N is shard N. Entries behind the newest snapshot are purged in time,
so an old one may be gone; another node may still hold it.")]
pub struct LogListArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Which group's entries; absent: the groups themselves.
    #[arg(long, value_name = "N")]
    pub group: Option<u32>,
    /// Only entries that cannot be decoded.
    #[arg(long, requires = "group")]
    pub refused: bool,
    /// From below this index on, towards older ones.
    #[arg(long, requires = "group", value_name = "INDEX")]
    pub before: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max: u32,
}

/// `log show`
#[derive(Debug, Args)]
#[command(after_help = "\
The node must be stopped: a directory in use is refused. Nothing is changed.

Examples:
  ledgerctl log show --data-dir /var/lib/holdfast --group 1 --index 4711
  ledgerctl log show --data-dir DIR --group 1 --index 4711 --output json

The hash is the one that the alarm, the feed's EntryRefused and the other nodes name for the same entry.
An entry that a newer build wrote says which format it has: run that build. One that is malformed was refused as a whole on every
replica; nothing of it happened, and its callers were answered so.")]
pub struct LogShowArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Which group: 0 is the meta group, N is shard N.
    #[arg(long, value_name = "N")]
    pub group: u32,
    /// Which index in its log.
    #[arg(long, value_name = "INDEX")]
    pub index: u64,
    /// At most so many commands of it.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max: u32,
}
