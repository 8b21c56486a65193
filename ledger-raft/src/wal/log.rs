use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::{Damage, WalError};
use super::group::GroupLog;
use crate::api::{GroupId, NodeId};
use crate::seam::Disk;

/// Whose log it is; stamped into every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalIdentity {
    /// The cluster's random id.
    pub cluster: [u8; 16],
    /// The cluster's incarnation.
    pub incarnation: u64,
    /// The node.
    pub node: NodeId,
}

/// The log's numbers.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// Size of new segments; existing ones keep theirs.
    pub segment_bytes: u64,
    /// Spare segments kept ready; one of them is reserved for votes.
    pub spare_segments: usize,
    /// Below this many free bytes on the disk appends are withheld.
    pub low_space_bytes: u64,
    /// Bytes of newest entries each group keeps in memory.
    pub tail_cache_bytes: usize,
    /// Largest entry (head and payload).
    pub entry_bytes_max: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spare_segments: 2, low_space_bytes: 512 << 20, tail_cache_bytes: 64 << 20, entry_bytes_max: 8 << 20 }
    }
}

/// The log. A cheap handle.
#[derive(Clone)]
pub struct Wal {
}

impl Wal {
    /// Opens or creates the log in `dir`, checking every block.
    ///
    /// # Errors
    /// [`WalError`]: damage is not an error, see [`Wal::damage`].
    pub async fn open(_disk: Arc<dyn Disk>, _dir: PathBuf, _identity: WalIdentity, _config: WalConfig) -> Result<Wal, WalError> { todo!() }
    /// A group's log; made empty if there was none.
    pub fn group(&self, _group: GroupId) -> GroupLog { todo!() }
    /// Groups that have anything in the log.
    pub fn groups(&self) -> Vec<GroupId> { todo!() }
    /// What was found rotten when the log was opened.
    pub fn damage(&self) -> Vec<Damage> { todo!() }
    /// Rounds made durable since start.
    pub fn syncs(&self) -> u64 { todo!() }
    /// Whether appends are withheld because the disk is nearly full; leaders then answer *not now*.
    pub fn low_space(&self) -> watch::Receiver<bool> { todo!() }
    /// Becomes the reason once the log is poisoned: the process must stop.
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> { todo!() }
    /// Writes what waits, then closes; later calls fail.
    pub async fn close(&self) { todo!() }
}
