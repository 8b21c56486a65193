//! One write-ahead log for all groups of a node.

mod error;
mod group;
mod log;

pub use error::{Damage, WalError};
pub use group::{AppendDone, GroupLog, GroupLogState, WalEntry};
pub use log::{Wal, WalConfig, WalIdentity};
