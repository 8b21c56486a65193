//! Segment files: names, spares, and a group's state in a checkpoint.
//!
//! **Owns** how a file becomes a segment. **Must never** run on the path of a round, except when there is no spare.
//!
//! **Read next**: [`super::writer`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::Damage;
use super::frame::{Cursor, put_blob, put_number};
use super::limits::{LOST_WHY_CHARS_MAX, SLOT_MAX};
use crate::limits::INDEX_MAX;
use crate::seam::{Disk, DiskFile};

/// An open segment file.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
}

/// How an allocation ended.
pub(crate) type SpareMade = (PathBuf, io::Result<SegmentFile>);

/// Name of the `slot`-th file.
pub(crate) fn path_of(dir: &Path, slot: u32) -> PathBuf {
    dir.join(format!("{slot:06}.seg"))
}

/// The slot a file name stands for.
pub(crate) fn slot_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".seg")?.parse().ok().filter(|slot| *slot <= SLOT_MAX)
}

/// Allocates a zero-filled segment, durably. A file left half-way by a crash is recognised by its zeroes and removed.
pub(crate) fn make_spare(disk: &dyn Disk, dir: &Path, path: &Path, bytes: u64) -> io::Result<SegmentFile> {
    let made = (|| {
        let file = disk.open(path, true)?;
        file.set_len(bytes)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        disk.open_direct(path)
    })();
    match made {
        Ok(file) => Ok(SegmentFile { path: path.to_path_buf(), file, bytes }),
        Err(e) => {
            // It holds nothing: what cannot be removed now is removed at the next start.
            if let Err(again) = disk.remove(path) {
                tracing::debug!(file = %path.display(), error = %again, "half-made spare stays");
            }
            Err(e)
        }
    }
}

/// Where a group lost something, kept until repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DamageMark {
    pub(crate) file: String,
    pub(crate) offset: u64,
}

/// Stands for a file in the mark of a log that was emptied for its repair; no file's name has a slash.
const EMPTIED: &str = "/emptied";

/// Stands for a file in the mark of a log that lost files; what is missing follows.
const LOST: &str = "/lost/";

impl DamageMark {
    /// What is missing, if files of the log are.
    pub(crate) fn lost_why(&self) -> Option<&str> {
        self.file.strip_prefix(LOST)
    }

    /// The log was emptied for the group's repair. Damage after that is a mark of its own again.
    pub(crate) fn emptied() -> Self {
        Self { file: EMPTIED.to_owned(), offset: 0 }
    }

    /// As the log records it while it runs.
    pub(crate) fn recorded(body: &[u8]) -> Self {
        Self { file: String::from_utf8_lossy(body).into_owned(), offset: 0 }
    }

    pub(crate) fn is_emptied(&self) -> bool {
        self.file == EMPTIED
    }

    pub(crate) fn of(damage: &Damage) -> Self {
        if damage.emptied {
            return Self::emptied();
        }
        if damage.lost {
            let why: String = damage.why.chars().take(LOST_WHY_CHARS_MAX).collect();
            return Self { file: format!("{LOST}{why}"), offset: 0 };
        }
        let file = damage.file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { file, offset: damage.offset }
    }
}

/// A group's state but for the entries, as a checkpoint carries it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupState {
    /// Number of its last record.
    pub(crate) seq: u64,
    pub(crate) last: Option<u64>,
    pub(crate) purged: Option<(u64, Bytes)>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    pub(crate) damage: Option<DamageMark>,
    pub(crate) acknowledged: Option<Bytes>,
}

impl GroupState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        put_number(&mut out, self.last);
        put_number(&mut out, self.purged.as_ref().map(|p| p.0));
        put_blob(&mut out, self.purged.as_ref().map(|p| p.1.as_ref()));
        put_blob(&mut out, self.vote.as_deref());
        put_blob(&mut out, self.committed.as_deref());
        put_number(&mut out, self.damage.as_ref().map(|d| d.offset));
        put_blob(&mut out, self.damage.as_ref().map(|d| d.file.as_bytes()));
        put_blob(&mut out, self.acknowledged.as_deref());
        out
    }

    pub(crate) fn decode(seq: u64, body: &[u8]) -> Option<Self> {
        let mut c = Cursor(body);
        let owned = |b: &[u8]| Bytes::copy_from_slice(b);
        let index = |n: Option<u64>| n.is_none_or(|n| n <= INDEX_MAX).then_some(n);
        let last = index(c.number()?)?;
        let purged_index = index(c.number()?)?;
        let purged_id = c.blob()?.map(owned);
        let vote = c.blob()?.map(owned);
        let committed = c.blob()?.map(owned);
        let offset = c.number()?;
        let file = c.blob()?.map(|f| String::from_utf8_lossy(f).into_owned());
        let acknowledged = c.blob()?.map(owned);
        Some(Self {
            seq,
            last,
            purged: purged_index.zip(purged_id),
            vote,
            committed,
            damage: file.zip(offset).map(|(file, offset)| DamageMark { file, offset }),
            acknowledged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_as_it_went() {
        let full = GroupState {
            seq: 9,
            last: Some(7),
            purged: Some((3, Bytes::from_static(b"id"))),
            vote: Some(Bytes::from_static(b"v")),
            committed: Some(Bytes::new()),
            damage: Some(DamageMark { file: "000001.seg".into(), offset: 4096 }),
            acknowledged: Some(Bytes::from_static(b"by")),
        };
        assert_eq!(GroupState::decode(9, &full.encode()), Some(full.clone()));
        let empty = GroupState::default();
        assert_eq!(GroupState::decode(0, &empty.encode()), Some(empty));
        let bytes = full.encode();
        for cut in 0..bytes.len() {
            assert_eq!(GroupState::decode(9, &bytes[..cut]), None, "cut at {cut}");
        }
        for far in [
            GroupState { last: Some(u64::MAX), ..empty_state() },
            GroupState { purged: Some((INDEX_MAX + 1, Bytes::new())), ..empty_state() },
        ] {
            assert_eq!(GroupState::decode(0, &far.encode()), None, "{far:?}");
        }
    }

    fn empty_state() -> GroupState {
        GroupState::default()
    }

    #[test]
    fn a_file_is_a_segment_by_its_name() {
        let slot = |name: &str| slot_of(Path::new(name));
        assert_eq!((slot("/wal/000007.seg"), slot(&format!("{SLOT_MAX}.seg"))), (Some(7), Some(SLOT_MAX)));
        for other in ["4294967295.seg", "4294967296.seg", "7", "x.seg", ".seg"] {
            assert_eq!(slot(other), None, "{other}");
        }
    }
}
