//! A look at the log of a stopped node, entry by entry.
//!
//! **Owns** what an operator may see of it. **Must never** write, or know what an entry says. **Read next**: [`crate::wal`].

use std::io;
use std::path::Path;

use bytes::Bytes;
use openraft::EntryPayload;

use crate::api::{GroupId, LogPosition, NodeId};
use crate::codec;
use crate::seam::Disk;
use crate::types::position;
use crate::unreadable::payload_hash;
use crate::wal::look::Look;
use crate::wal::{WalError, WalIdentity};

/// The log of a node that does not run. The caller holds the lock of its directory.
pub struct LogInspector(Look);

/// The part of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLogSummary {
    /// The group.
    pub group: GroupId,
    /// First index in the log.
    pub first: u64,
    /// Last index in the log, committed or not.
    pub last: u64,
    /// What was known to be committed when that was last saved: more may be.
    pub committed: Option<LogPosition>,
    /// What the log lost, if it did.
    pub damage: Option<String>,
}

/// One entry as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedEntry {
    /// Its position.
    pub at: LogPosition,
    /// What it carries.
    pub payload: InspectedPayload,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InspectedPayload {
    /// Nothing: a leader began its term.
    Blank,
    /// A membership, in words.
    Membership(String),
    /// Bytes for the group's state machine.
    Data {
        /// The leader's stamp.
        stamp_ms: u64,
        /// The bytes.
        bytes: Bytes,
        /// The hash that replicas compare.
        hash: u128,
    },
}

impl LogInspector {
    /// Reads the log in `dir/wal`, which belongs to this node.
    ///
    /// # Errors
    /// The disk's; or the log is another node's or of another format.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        cluster: [u8; 16],
        incarnation: u64,
        node: NodeId,
    ) -> Result<Self, WalError> {
        Look::open(disk, &dir.join("wal"), WalIdentity { cluster, incarnation, node }).map(Self)
    }

    /// All groups that have entries.
    pub fn groups(&self) -> Vec<GroupLogSummary> {
        let summary = |(group, look): (GroupId, crate::wal::look::GroupLook<'_>)| {
            let committed = look.committed.and_then(|id| codec::take_log_id(&mut id.clone()).ok().flatten());
            let committed = committed.as_ref().map(position);
            let damage = look.damage.map(str::to_owned);
            GroupLogSummary { group, first: look.ends.0, last: look.ends.1, committed, damage }
        };
        self.0.groups().map(summary).collect()
    }

    /// What the log lost, if some group did: such a group has to be repaired.
    pub fn damage(&self) -> Option<&str> {
        self.0.damage()
    }

    /// One entry; none when the log does not hold it.
    ///
    /// # Errors
    /// It cannot be read back.
    pub fn entry(&self, group: GroupId, index: u64) -> io::Result<Option<InspectedEntry>> {
        let Some(found) = self.0.entry(group, index)? else { return Ok(None) };
        let entry = codec::entry_of_parts(&found.head, found.data)?;
        let payload = match entry.payload {
            EntryPayload::Blank => InspectedPayload::Blank,
            EntryPayload::Membership(m) => InspectedPayload::Membership(m.to_string()),
            EntryPayload::Normal(d) => {
                let hash = payload_hash(&d);
                InspectedPayload::Data { stamp_ms: d.stamp_ms, bytes: d.bytes, hash }
            }
        };
        Ok(Some(InspectedEntry { at: position(&entry.log_id), payload }))
    }
}
