//! A stopped node's log for operators: what each entry says, or why it cannot be decoded.
//!
//! **Owns** the reading of entries for people, offline. **Must never** write to a data directory, or open one that is in use.
//! **Read next**: [`crate::data_dir`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::codec::{decode_entry, entry_hash};
use ledger_core::types::LedgerTime;
use ledger_raft::disk::RealDisk;
use ledger_raft::inspect::{InspectedPayload, LogInspector};
use ledger_raft::{GroupId, NodeId};

use crate::data_dir::{DataDir, DataDirError};
use crate::meta::{self, META_GROUP};

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogViewError {
    /// The directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DataDirError),
    /// It belongs to no cluster yet, so there is no log.
    #[error("the data directory belongs to no cluster: it has no log")]
    NoLog,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ledger_raft::wal::WalError),
    /// An entry cannot be read back.
    #[error("an entry cannot be read back: {0}")]
    Io(#[from] io::Error),
}

/// A group's log in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// 0 is the meta group, shards follow.
    pub group: u32,
    /// First index.
    pub first: u64,
    /// Last index, committed or not.
    pub last: u64,
    /// Index known to be committed when that was last saved; more may be.
    pub committed: u64,
    /// What the log lost, if it did.
    pub damage: Option<String>,
}

/// One entry for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// The group.
    pub group: u32,
    /// Its term.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// What it carries.
    pub content: Content,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Raft's own: a term's beginning or a membership, in words.
    Raft(String),
    /// Commands.
    Data {
        /// The leader's stamp, ledger time.
        stamp_ms: u64,
        /// The bytes.
        bytes: Bytes,
        /// The hash that replicas compare and the change `EntryRefused` names.
        hash: u128,
        /// The commands in words, or why there are none.
        decoded: Result<Vec<String>, Undecoded>,
    },
}

/// Why an entry has no commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecoded {
    /// A newer build may know it; this one stops at it. Otherwise every replica refuses it.
    pub unsupported: bool,
    /// What was found.
    pub why: String,
}

impl EntryView {
    /// Why it cannot be decoded, if it cannot.
    pub fn undecoded(&self) -> Option<&Undecoded> {
        match &self.content {
            Content::Data { decoded: Err(why), .. } => Some(why),
            _ => None,
        }
    }
}

/// The log of a node that does not run.
pub struct LogView {
    inspector: LogInspector,
    // Kept while the log is looked at, so that no node starts meanwhile.
    _dir: DataDir,
}

impl LogView {
    /// Opens the log of the node whose data directory this is, and locks the directory.
    ///
    /// # Errors
    /// [`LogViewError`]: in use, of another build, or unreadable.
    pub fn open(dir: &Path) -> Result<Self, LogViewError> {
        let disk = Arc::new(RealDisk::new());
        // A directory that is not there must not be made by a look.
        std::fs::metadata(dir).map_err(|source| DataDirError::Io { dir: dir.to_owned(), source })?;
        let (locked, stamp) = DataDir::open(disk.clone(), dir, None)?;
        let stamp = stamp.ok_or(LogViewError::NoLog)?;
        let (cluster, incarnation, node) = (stamp.cluster, stamp.incarnation, NodeId(stamp.node));
        let inspector = LogInspector::open(disk.as_ref(), dir, cluster, incarnation, node)?;
        Ok(Self { inspector, _dir: locked })
    }

    /// All groups.
    pub fn groups(&self) -> Vec<GroupView> {
        let view = |g: ledger_raft::inspect::GroupLogSummary| GroupView {
            group: g.group.0,
            first: g.first,
            last: g.last,
            committed: g.committed.map_or(0, |at| at.index),
            damage: g.damage,
        };
        self.inspector.groups().into_iter().map(view).collect()
    }

    /// One entry; none when the log does not hold it (any more, or yet).
    ///
    /// # Errors
    /// [`LogViewError::Io`].
    pub fn entry(&self, group: u32, index: u64) -> Result<Option<EntryView>, LogViewError> {
        let Some(found) = self.inspector.entry(GroupId(group), index)? else { return Ok(None) };
        let content = match found.payload {
            InspectedPayload::Blank => Content::Raft("a leader began its term".to_owned()),
            InspectedPayload::Membership(members) => Content::Raft(format!("members: {members}")),
            InspectedPayload::Data { stamp_ms, bytes, hash } => {
                debug_assert_eq!(hash, entry_hash(LedgerTime(stamp_ms), &bytes));
                let decoded = decode(GroupId(group), stamp_ms, &bytes);
                Content::Data { stamp_ms, bytes, hash, decoded }
            }
        };
        Ok(Some(EntryView { group, term: found.at.term, index: found.at.index, content }))
    }
}

fn decode(group: GroupId, stamp_ms: u64, bytes: &[u8]) -> Result<Vec<String>, Undecoded> {
    if group == META_GROUP {
        return match meta::decode(bytes) {
            Ok(command) => Ok(vec![format!("{command:?}")]),
            Err(why) => {
                let unsupported = matches!(why, meta::MetaError::Unsupported { .. });
                Err(Undecoded { unsupported, why: why.to_string() })
            }
        };
    }
    match decode_entry(LedgerTime(stamp_ms), bytes) {
        Ok(entry) => Ok(entry.commands.iter().map(|command| format!("{command:?}")).collect()),
        Err(why) => Err(Undecoded { unsupported: why.is_unsupported(), why: why.to_string() }),
    }
}
