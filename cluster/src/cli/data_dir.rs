//! The command line of `ledgerctl data-dir`.
//!
//! **Owns** names and defaults of its flags. **Must never** do anything. **Read next**: [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `data-dir`
#[derive(Debug, Subcommand)]
pub enum DataDirVerb {
    /// Record that a stopped node's data directory was moved to where it is now.
    Moved(MovedArgs),
}

/// `data-dir moved`
#[derive(Debug, Args)]
#[command(after_help = "\
A node that finds its directory at another place takes it for a copy: it may lack what the node acknowledged since, so the
node is repaired from its peers before it votes again. With this command you vouch that nothing is lacking. Run it before the
first start at the new place; after that start the directory is damaged already, and only its original can be used.

Only if all of this is true:
  - the node was stopped before the copy began, and has not run since;
  - the copy is complete;
  - the original is deleted, or will never be started again.

Example:
  ledgerctl data-dir moved --data-dir /mnt/new/holdfast --original-is-retired

The node must be stopped: a directory in use is refused.")]
pub struct MovedArgs {
    /// The node's data directory, where it is now.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// You vouch that nothing was written to the original since the copy, and that it is not used any more.
    #[arg(long, required = true)]
    pub original_is_retired: bool,
}
