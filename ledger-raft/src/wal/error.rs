//! What can be wrong with a log.
//!
//! **Owns** [`WalError`] and [`Damage`]. **Must never** retry.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::api::{GroupId, NodeId};

/// Why the log could not be opened, or refused a call. Definite: nothing was written, unless it says *poisoned*.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The directory belongs to another cluster, incarnation or node: point the node at its own directory.
    #[error("{file} belongs to cluster {cluster} incarnation {incarnation} node {}; this is another one", node.0)]
    Foreign {
        /// The file that says so.
        file: PathBuf,
        /// The cluster it was written for, in hex.
        cluster: String,
        /// The incarnation it was written for.
        incarnation: u64,
        /// The node it was written for.
        node: NodeId,
    },
    /// The directory was written by another format version: use the program version that knows it.
    #[error("{file} has log format version {found}; this program knows {known}")]
    Version {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        found: u16,
        /// What this program reads and writes.
        known: u16,
    },
    /// Another process has the directory open: stop it first.
    #[error("{dir} is in use by another process")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An entry is larger than the log takes: make smaller entries.
    #[error("entry {index} has {bytes} bytes; the log takes at most {bytes_max}")]
    Oversize {
        /// The entry's index.
        index: u64,
        /// Head and payload together.
        bytes: usize,
        /// The bound ([`crate::wal::WalConfig::entry_bytes_max`]).
        bytes_max: usize,
    },
    /// An append would leave a hole; a bug of the caller.
    #[error("entry {index} does not follow {expected}")]
    Hole {
        /// The entry's index.
        index: u64,
        /// The index that was due.
        expected: u64,
    },
    /// The configuration cannot work.
    #[error("log configuration: {why}")]
    Config {
        /// What and why.
        why: String,
    },
    /// A write or sync failed before, so that nothing can be promised any more: stop the process and start it anew.
    /// Whether calls in flight then are durable is unknown.
    #[error("the log is poisoned: {why}")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The disk said no.
    #[error("log {what}")]
    Io {
        /// Which operation on which file.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl WalError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

impl From<WalError> for io::Error {
    fn from(e: WalError) -> Self {
        let kind = match &e {
            WalError::Oversize { .. } | WalError::Hole { .. } | WalError::Config { .. } => io::ErrorKind::InvalidInput,
            WalError::Foreign { .. } | WalError::Version { .. } => io::ErrorKind::InvalidData,
            WalError::Locked { .. } => io::ErrorKind::WouldBlock,
            WalError::Poisoned { .. } => io::ErrorKind::Other,
            WalError::Closed => io::ErrorKind::BrokenPipe,
            WalError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, e)
    }
}

/// A place in the log whose bytes are not what was written, or a hole it left in a group's log.
///
/// A damaged group must neither vote nor lead until it is repaired from peers past all that it may have acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// First bad byte's block in it.
    pub offset: u64,
    /// Groups that lost something, or may have.
    pub groups: Vec<GroupId>,
    /// Groups never heard of may have been there too: every group without a word in the log counts as damaged.
    pub others_too: bool,
    /// Nothing is rotten: the log was emptied for the group's repair, which has not ended, and lost nothing since.
    pub emptied: bool,
    /// Files of the log are gone, cut or copied: every group counts as damaged.
    pub lost: bool,
    /// What was found.
    pub why: String,
}

impl Damage {
    /// The log is not all that was written.
    pub(crate) fn lost(dir: &Path, why: &str) -> Self {
        let file = dir.to_path_buf();
        let why = why.to_owned();
        Self { file, offset: 0, groups: Vec::new(), others_too: false, emptied: false, lost: true, why }
    }

    /// The group's log was emptied for its repair.
    pub(crate) fn emptied(dir: &Path, groups: Vec<GroupId>) -> Self {
        let why = "emptied for a repair that has not ended".to_owned();
        Self { file: dir.to_path_buf(), offset: 0, groups, others_too: false, emptied: true, lost: false, why }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<u32> = self.groups.iter().map(|g| g.0).collect();
        write!(f, "{} at byte {}: {}; groups {groups:?}", self.file.display(), self.offset, self.why)?;
        if self.others_too { f.write_str(" and any not heard of") } else { Ok(()) }
    }
}
