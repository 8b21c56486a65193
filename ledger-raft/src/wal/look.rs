//! Reads a log that no process has open, for people.
//!
//! **Owns** that way in. **Must never** change a byte of the directory, or be used by a node that runs.
//!
//! **Read next**: [`super::recover`], which a node starts with.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::error::{Damage, WalError};
use super::group::WalEntry;
use super::index::GroupIndex;
use super::log::WalIdentity;
use super::reader::{self, Files};
use super::recover;
use super::segment::GroupState;
use crate::api::GroupId;
use crate::seam::Disk;

/// What a stopped node's log holds.
pub(crate) struct Look {
    files: Files,
    groups: BTreeMap<GroupId, (GroupState, GroupIndex, Option<Damage>)>,
}

/// One group's part of the log.
pub(crate) struct GroupLook<'a> {
    /// First and last index.
    pub(crate) ends: (u64, u64),
    /// The log id that was committed when it was last saved: a lower bound.
    pub(crate) committed: Option<&'a Bytes>,
    /// What it lost, in words.
    pub(crate) damage: Option<&'a str>,
}

impl Look {
    /// Reads all segments of `dir`.
    ///
    /// # Errors
    /// The disk's; or the log is of another node or format.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, identity: WalIdentity) -> Result<Self, WalError> {
        let found = recover::look(disk, dir, identity)?;
        let files = found.live.into_iter().map(|(generation, segment)| (generation, segment.file)).collect();
        Ok(Self { files, groups: found.groups })
    }

    /// The groups that have entries.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, GroupLook<'_>)> {
        self.groups.iter().filter_map(|(id, (state, index, damage))| {
            let ends = (index.first()?, index.last()?);
            let damage = damage.as_ref().map(|damage| damage.why.as_str());
            Some((*id, GroupLook { ends, committed: state.committed.as_ref(), damage }))
        })
    }

    /// What some group lost, in words.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.groups.values().find_map(|(_, _, damage)| damage.as_ref()).map(|damage| damage.why.as_str())
    }

    /// One entry.
    ///
    /// # Errors
    /// It lies in a rotten place.
    pub(crate) fn entry(&self, group: GroupId, index: u64) -> io::Result<Option<WalEntry>> {
        let place = self.groups.get(&group).and_then(|(_, places, _)| places.find(index));
        let Some(place) = place else { return Ok(None) };
        Ok(reader::read(&self.files, group, &[(index, place)], 1)?.pop())
    }
}
