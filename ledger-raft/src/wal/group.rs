use std::io;

use bytes::Bytes;

use super::error::Damage;
use crate::api::GroupId;

/// One entry of a group's log, opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalEntry {
    /// Its index; consecutive within a group.
    pub index: u64,
    /// What consensus needs to know of it (term, leader, kind, stamp), in consensus' own encoding. At most 64 KiB - 1.
    pub head: Bytes,
    /// Its payload.
    pub data: Bytes,
}

/// Called once when an append is durable, or has failed (then the log is poisoned). Runs on the log's writer: must not block.
pub type AppendDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What a group's log knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupLogState {
    /// Everything through this index is gone; with the opaque log id given to [`GroupLog::purge`].
    pub purged: Option<(u64, Bytes)>,
    /// Last index, if there are entries.
    pub last_index: Option<u64>,
    /// Head of the last entry.
    pub last_head: Option<Bytes>,
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The committed position saved last (it may lag behind after a crash).
    pub committed: Option<Bytes>,
    /// Why the group must neither vote nor lead.
    pub damage: Option<Damage>,
}

/// One group's part of the log. A cheap handle.
#[derive(Clone)]
pub struct GroupLog {
}

impl GroupLog {
    /// Which group.
    pub fn id(&self) -> GroupId { todo!() }
    /// What the log knows of it now, including calls not durable yet.
    pub fn state(&self) -> GroupLogState { todo!() }
    /// Appends consecutive entries: readable when this returns, durable when `done` is called. Within one flush the newest
    /// `done` of a group is called first.
    ///
    /// # Errors
    /// Oversize or a hole ([`io::ErrorKind::InvalidInput`]): nothing happened and `done` is dropped. Poisoned or closed likewise.
    pub fn append(&self, _entries: Vec<WalEntry>, _done: AppendDone) -> io::Result<()> { todo!() }
    /// Saves the vote; durable on return.
    ///
    /// # Errors
    /// Poisoned or closed: unknown whether it is saved.
    pub async fn save_vote(&self, _vote: Bytes) -> io::Result<()> { todo!() }
    /// Saves the committed position with whatever is written next; costs no sync of its own.
    pub fn save_committed(&self, _committed: Bytes) { todo!() }
    /// Drops all entries after `index` (all, if none); durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn truncate_after(&self, _index: Option<u64>) -> io::Result<()> { todo!() }
    /// Drops all entries through `upto`, which may lie beyond the last one (a snapshot was installed); durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn purge(&self, _upto: u64, _log_id: Bytes) -> io::Result<()> { todo!() }
    /// Entries `from..=to` as far as they exist, at most `bytes_max` in sum but at least one. From memory, else from segments.
    ///
    /// # Errors
    /// `NotFound` when `from` is purged; `InvalidData` when a segment went rotten meanwhile.
    pub fn read(&self, _from: u64, _to: u64, _bytes_max: usize) -> io::Result<Vec<WalEntry>> { todo!() }
    /// Forgets the entries, the purge mark and the committed position but not the vote; durable on return. The first step of a repair from peers;
    /// the damage stays on record.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn reset(&self) -> io::Result<()> { todo!() }
    /// The repair is complete: from now on the group is not damaged; durable on return.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn clear_damage(&self) -> io::Result<()> { todo!() }
}
