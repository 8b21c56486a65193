//! The data directory: locked, stamped, and closed to strangers.
//!
//! **What it is.** A directory belongs to one node of one incarnation of one cluster for ever;
//! [`Stamp`] says which. It is written when the node joins, before anything else of the cluster is,
//! and again when a member comes back on an empty disk. The identity file beside it says which disk
//! this is, and how far the log was begun.
//! **Owns** the stamp, its file and the lock; when the identity file is made and claimed (its
//! format is [`ledger_raft::identity`]'s). **Must never** touch a directory that is not ours, or
//! overwrite a stamp with another identity. **Read next**: [`crate::init`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger_raft::disk::RealDisk;
use ledger_raft::identity::{IDENTITY_FILE, IdentityFile};
use ledger_raft::inspect::LogInspector;
use ledger_raft::seam::{Disk, Random};
use ledger_raft::wal::WalIdentity;
use ledger_raft::{DiskId, NodeId, PeerEntry};
use serde::{Deserialize, Serialize};

use crate::meta::MemberEntry;

pub(crate) const STAMP: &str = "holdfast.stamp";
const STAMP_TEMPORARY: &str = "holdfast.stamp.tmp";
/// What a directory may hold without a stamp: the lock, the disk's id, and a stamp that a crash
/// kept from its name.
const HARMLESS: [&str; 5] = [STAMP_TEMPORARY, IDENTITY_FILE, "LOCK", "lost+found", ".lock"];
const FORMAT: u32 = 2;
/// As [`FORMAT`], with the generations of disks: builds that know no rejoin would read such a stamp
/// as one that knows the first disks only.
const FORMAT_REJOINED: u32 = 3;
/// Whoever made this file in a directory means it to be destroyed by a known-bad build.
#[cfg(holdfast_known_bad)]
const THROW_AWAY: &str = "KNOWN-BAD-THROW-AWAY";
/// Stamps are written as whole sectors.
const SECTOR: usize = 4096;
const STAMP_BYTES_MAX: u64 = 1 << 20;

/// Ports a node was given when its configuration left them open; kept, since others know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Client port.
    pub client: u16,
    /// HTTP port.
    pub http: u16,
    /// Peer port.
    pub peer: u16,
}

/// A member's disk. Of two the greater one counts, on every member alike, so that of several rejoins
/// at once at most one comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberDisk {
    /// How often the member came back on an empty disk.
    pub(crate) generation: u64,
    /// Drawn for this one attempt.
    pub(crate) id: DiskId,
}

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Layout of everything below; another number is refused.
    pub format: u32,
    /// The cluster's random id.
    pub cluster: [u8; 16],
    /// The cluster's incarnation.
    pub incarnation: u64,
    /// This node.
    pub node: u64,
    /// Where it listened when it joined.
    pub ports: Ports,
    /// This node was asked to init, and begins the meta group.
    pub initiator: bool,
    /// The members as of init.
    pub members: Vec<MemberEntry>,
    /// The disk of each: a member is who it is on that disk only.
    pub disks: BTreeMap<u64, DiskId>,
    /// How often a member came back on an empty disk; a member that never did is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk_generations: BTreeMap<u64, u64>,
    /// Shards to begin with.
    pub shards: u32,
    /// Replicas of each.
    pub replicas: u32,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{} is in use by another process; hint: stop that one, or give this node a data_dir of its own", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Something else lives there.
    #[error("{} holds {found:?} but no Holdfast stamp; hint: point data_dir to an empty directory", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// One of the names found.
        found: String,
    },
    /// Written by another build.
    #[error("{} has stamp format {got}, this build knows up to {FORMAT_REJOINED}; hint: run the build that wrote it", dir.display())]
    UnknownFormat {
        /// The directory.
        dir: PathBuf,
        /// Format found.
        got: u64,
    },
    /// The stamp cannot be read.
    #[error("the stamp of {} is damaged ({why}); hint: the cluster goes on without this node as long as a majority is left, see docs/disks.md", dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// This build breaks promises on purpose, and the directory is not marked for that.
    #[cfg(holdfast_known_bad)]
    #[error("this build is known to be bad and may destroy {}; hint: run a build without --cfg holdfast_known_bad, or put an empty file {THROW_AWAY} there", dir.display())]
    KnownBad {
        /// The directory.
        dir: PathBuf,
    },
    /// What lies there was written on another disk, or its identity is gone: what the node promised
    /// may be gone with it.
    #[error("the identity file of {} {why}; hint: a stamp without the identity file it was written beside is no proof of what this node promised: start it on the directory it had, see docs/disks.md", dir.display())]
    OtherDisk {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// It belongs to another node.
    #[error("{} belongs to node {found}, the configuration says node_id = {wanted}; hint: fix node_id, or data_dir", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Node in the stamp.
        found: u64,
        /// Node configured.
        wanted: u64,
    },
    /// It belongs to another cluster, or another identity in it.
    #[error("{} belongs to node {node} of cluster {cluster} already; hint: a node never changes its cluster; use an empty data_dir", dir.display())]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Node in the stamp.
        node: u64,
        /// Cluster in the stamp, hexadecimal.
        cluster: String,
    },
    /// The disk.
    #[error("cannot use {}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What [`moved`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Whose directory it is.
    pub node: u64,
    /// What of its place was another one; none: it lies where it was.
    pub difference: Option<&'static str>,
    /// What the log lost as a start has found it, when nothing of the place was another one: the node
    /// was started here before somebody vouched, and is repaired from its peers.
    pub damage: Option<String>,
}

/// Records that the directory of a node that does not run was moved here by a copy. Its caller
/// vouches that the copy is whole, that nothing was written to the original since, and that the
/// original is not used any more. Without this a start takes it for a copy that may lack what the
/// node acknowledged, and the node is repaired from its peers.
///
/// # Errors
/// The directory is in use, or not a node's.
pub fn moved(dir: &Path) -> Result<Moved, DataDirError> {
    moved_on(Arc::new(RealDisk::new()), dir)
}

fn moved_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Moved, DataDirError> {
    let io = |source| DataDirError::Io { dir: dir.to_owned(), source };
    // A directory that is not there must not be made by a look.
    if !disk.exists(&dir.join(STAMP)) {
        return Err(io(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no {STAMP}: this is no node's directory"),
        )));
    }
    let (locked, stamp) = DataDir::open(disk.clone(), dir, None)?;
    let stamp = stamp.ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
    let other = |why: &str| DataDirError::OtherDisk { dir: dir.to_owned(), why: why.to_owned() };
    let opened = IdentityFile::open(disk.clone(), dir).map_err(io)?;
    let identity = opened.ok_or_else(|| other("is gone, or cannot be read"))?;
    locked.claim(&identity, &stamp)?;
    let difference = identity.vouch_for_place().map_err(io)?;
    let has_log = disk.exists(&dir.join("wal"));
    let damage = match difference {
        None if has_log => {
            let Stamp { cluster, incarnation, node, .. } = stamp;
            let log = LogInspector::open(disk.as_ref(), dir, cluster, incarnation, NodeId(node));
            log.map_err(|why| io(io::Error::other(why)))?.damage().map(str::to_owned)
        }
        _ => None,
    };
    Ok(Moved { node: stamp.node, difference, damage })
}

/// A locked data directory.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl DataDir {
    /// Creates, locks and checks a directory; its stamp, if it has one.
    ///
    /// # Errors
    /// [`DataDirError`], with what to do.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, node_id: Option<u64>) -> Result<(Self, Option<Stamp>), DataDirError> {
        let io = |source| DataDirError::Io { dir: path.to_owned(), source };
        #[cfg(holdfast_known_bad)]
        if !disk.inline() && !disk.exists(&path.join(THROW_AWAY)) {
            return Err(DataDirError::KnownBad { dir: path.to_owned() });
        }
        disk.create_dir_all(path).map_err(io)?;
        let stamped = disk.exists(&path.join(STAMP));
        if !stamped {
            for name in disk.list(path).map_err(io)? {
                let name = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                #[cfg(holdfast_known_bad)]
                if name == THROW_AWAY {
                    continue;
                }
                if !HARMLESS.contains(&name.as_str()) {
                    return Err(DataDirError::NotOurs { dir: path.to_owned(), found: name });
                }
            }
        }
        let lock = disk.lock_dir(path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse { dir: path.to_owned() },
            _ => io(source),
        })?;
        let dir = Self { disk, path: path.to_owned(), _lock: lock };
        if !stamped {
            return Ok((dir, None));
        }
        let stamp = dir.read()?;
        match node_id {
            Some(wanted) if wanted != stamp.node => {
                Err(DataDirError::OtherNode { dir: dir.path, found: stamp.node, wanted })
            }
            _ => Ok((dir, Some(stamp))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity file of a directory with this stamp. An empty directory gets one, with a new
    /// disk id; one that was stamped when a crash came is claimed.
    ///
    /// # Errors
    /// It is not the one that the stamp was written beside; or the disk's.
    pub fn identity(&self, stamp: Option<&Stamp>, random: &dyn Random) -> Result<Arc<IdentityFile>, DataDirError> {
        let other = |why: &str| DataDirError::OtherDisk { dir: self.path.clone(), why: why.to_owned() };
        let found = IdentityFile::open(self.disk.clone(), &self.path).map_err(|e| self.io(e))?;
        let file = match (found, stamp) {
            (Some(file), None) if file.owner().is_none() => file,
            (Some(_), None) => return Err(other("belongs to a node, and the stamp is gone")),
            (None, None) => {
                IdentityFile::create(self.disk.clone(), &self.path, draw_disk_id(random)).map_err(|e| self.io(e))?
            }
            (None, Some(_)) => return Err(other("is gone, or cannot be read")),
            (Some(file), Some(stamp)) => {
                self.claim(&file, stamp)?;
                file
            }
        };
        Ok(Arc::new(file))
    }

    /// A stamp is written before the file beside it is claimed, and the log is begun after that.
    fn claim(&self, file: &IdentityFile, stamp: &Stamp) -> Result<(), DataDirError> {
        let other = |why: &str| DataDirError::OtherDisk { dir: self.path.clone(), why: why.to_owned() };
        let Stamp { cluster, incarnation, node, .. } = *stamp;
        let owner = WalIdentity { cluster, incarnation, node: NodeId(node) };
        let known = stamp.disks.get(&node) == Some(&file.disk_id());
        if !known && !ledger_raft::bad!("disk-id-unchecked") {
            return Err(other("is of another disk than the stamp was written for"));
        }
        match file.owner() {
            Some(found) if found == owner => Ok(()),
            Some(_) => Err(other("is of another node than the stamp")),
            None if self.disk.exists(&self.path.join("wal")) => Err(other("is of no node, and there is a log")),
            None => file.claim(owner).map_err(|e| self.io(e)),
        }
    }

    /// The stamp it carries, if it has one.
    ///
    /// # Errors
    /// The stamp is damaged or of another build, or the disk's.
    pub fn present(&self) -> Result<Option<Stamp>, DataDirError> {
        if self.disk.exists(&self.path.join(STAMP)) { self.read().map(Some) } else { Ok(None) }
    }

    fn read(&self) -> Result<Stamp, DataDirError> {
        let damaged = |why: String| DataDirError::Damaged { dir: self.path.clone(), why };
        let file = self.disk.open(&self.path.join(STAMP), false).map_err(|e| self.io(e))?;
        let len = file.len().map_err(|e| self.io(e))?;
        if len > STAMP_BYTES_MAX {
            return Err(damaged(format!("{len} bytes")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes).map_err(|e| self.io(e))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(got) if [FORMAT, FORMAT_REJOINED].map(u64::from).contains(&got) => {}
            Some(got) => return Err(DataDirError::UnknownFormat { dir: self.path.clone(), got }),
            None => return Err(damaged("it names no format".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| damaged(e.to_string()))
    }

    /// Makes the directory this node's, durably. Writing the same stamp again is harmless.
    ///
    /// # Errors
    /// It carries another identity, or the disk's.
    pub fn stamp(&self, stamp: &Stamp) -> Result<(), DataDirError> {
        if self.disk.exists(&self.path.join(STAMP)) {
            let present = self.read()?;
            if (present.cluster, present.incarnation, present.node) != (stamp.cluster, stamp.incarnation, stamp.node) {
                let cluster = hex(&present.cluster);
                return Err(DataDirError::OtherCluster { dir: self.path.clone(), node: present.node, cluster });
            }
        }
        self.write(stamp).map_err(|e| self.io(e))
    }

    fn write(&self, stamp: &Stamp) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(stamp)?;
        bytes.push(b'\n');
        bytes.resize(bytes.len().next_multiple_of(SECTOR), b' ');
        let temporary = self.path.join(STAMP_TEMPORARY);
        let file = self.disk.open(&temporary, true)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        drop(file);
        self.disk.rename(&temporary, &self.path.join(STAMP))?;
        self.disk.sync_dir(&self.path)
    }

    fn io(&self, source: io::Error) -> DataDirError {
        DataDirError::Io { dir: self.path.clone(), source }
    }
}

impl Stamp {
    /// The format of a stamp with these generations of disks.
    pub(crate) fn format_of(disk_generations: &BTreeMap<u64, u64>) -> u32 {
        if disk_generations.is_empty() { FORMAT } else { FORMAT_REJOINED }
    }

    /// The disk of a member, and how often it came back on an empty one.
    pub(crate) fn disk(&self, node: u64) -> Option<MemberDisk> {
        let id = *self.disks.get(&node)?;
        Some(MemberDisk { generation: self.disk_generations.get(&node).copied().unwrap_or(0), id })
    }

    /// The member is on this disk from now on.
    pub(crate) fn set_disk(&mut self, node: u64, disk: MemberDisk) {
        self.disks.insert(node, disk.id);
        self.disk_generations.insert(node, disk.generation);
        self.format = Self::format_of(&self.disk_generations);
    }

    /// How a member is reached over the peer port, and on which disk; none when the plan of init has
    /// no disk for it.
    pub(crate) fn peer(&self, member: &MemberEntry) -> Option<PeerEntry> {
        let disk = *self.disks.get(&member.node)?;
        Some(PeerEntry { addr: member.peer.clone(), disk })
    }

    /// Whether these are the members of init: ids and client addresses; the rest the nodes filled in themselves.
    pub fn has_members(&self, members: &[MemberEntry]) -> bool {
        let key = |m: &MemberEntry| (m.node, m.client.clone());
        let mut ours: Vec<_> = self.members.iter().map(key).collect();
        let mut theirs: Vec<_> = members.iter().map(key).collect();
        ours.sort();
        theirs.sort();
        ours == theirs
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A new disk id.
pub(crate) fn draw_disk_id(random: &dyn Random) -> DiskId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.next_u64().to_be_bytes());
    id[8..].copy_from_slice(&random.next_u64().to_be_bytes());
    DiskId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(node: u64) -> Stamp {
        let ports = Ports { client: 1, http: 2, peer: 3 };
        let member = MemberEntry { node, client: "h:1".into(), peer: "h:3".into(), http: "h:2".into() };
        Stamp {
            format: FORMAT,
            cluster: [7; 16],
            incarnation: 1,
            node,
            ports,
            initiator: true,
            members: vec![member],
            disks: BTreeMap::new(),
            disk_generations: BTreeMap::new(),
            shards: 0,
            replicas: 0,
        }
    }

    fn open(path: &Path, node: Option<u64>) -> Result<(DataDir, Option<Stamp>), DataDirError> {
        DataDir::open(Arc::new(RealDisk::default()), path, node)
    }

    #[test]
    fn a_disk_that_replaced_another_makes_a_stamp_of_a_newer_format() {
        let dir = tempfile::tempdir().unwrap();
        let (opened, _) = open(dir.path(), None).unwrap();
        let mut stamp = Stamp { disks: [(2, DiskId([1; 16])), (3, DiskId([2; 16]))].into(), ..stamp(2) };
        opened.stamp(&stamp).unwrap();
        let text = || std::fs::read_to_string(dir.path().join(STAMP)).unwrap();
        assert!(text().contains("\"format\": 2") && !text().contains("generations"), "older builds read it");
        let new = MemberDisk { generation: 1, id: DiskId([3; 16]) };
        assert!(Some(new) > stamp.disk(3));
        stamp.set_disk(3, new);
        opened.stamp(&stamp).unwrap();
        assert!(text().contains("\"format\": 3"));
        let found = opened.present().unwrap().unwrap();
        assert_eq!((found.disk(3), &found), (Some(new), &stamp));
        assert_eq!(found.disk(2), Some(MemberDisk { generation: 0, id: DiskId([1; 16]) }));
    }

    #[test]
    fn a_stamp_is_read_back_and_never_replaced_by_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let (opened, none) = open(dir.path(), None).unwrap();
        assert_eq!(none, None);
        opened.stamp(&stamp(2)).unwrap();
        opened.stamp(&stamp(2)).unwrap();
        assert!(matches!(opened.stamp(&stamp(3)), Err(DataDirError::OtherCluster { node: 2, .. })));
        assert!(matches!(open(dir.path(), None), Err(DataDirError::InUse { .. })));
        drop(opened);
        assert_eq!(open(dir.path(), Some(2)).unwrap().1, Some(stamp(2)));
        assert!(matches!(open(dir.path(), Some(5)), Err(DataDirError::OtherNode { found: 2, wanted: 5, .. })));
    }

    #[test]
    fn a_directory_that_was_moved_by_a_copy_is_whole_once_somebody_vouches_for_it() {
        use ledger_raft::disk::SimDisk;
        use ledger_raft::wal::SegmentsBegun as _;
        let disk = SimDisk::new(1);
        let (path, random) = (Path::new("/d"), ledger_raft::seam_real::SystemRandom);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        assert!(moved_on(shared.clone(), path).is_err(), "there is no node");
        let (opened, _) = DataDir::open(shared.clone(), path, None).expect("opened");
        let id = opened.identity(None, &random).expect("made").disk_id();
        let written = Stamp { disks: [(2, id)].into(), ..stamp(2) };
        opened.stamp(&written).expect("stamped");
        opened.identity(Some(&written), &random).expect("claimed").started(1).expect("recorded");
        assert!(matches!(moved_on(shared.clone(), path), Err(DataDirError::InUse { .. })), "the node runs");
        drop(opened);
        assert_eq!(
            moved_on(shared.clone(), path).expect("looked at"),
            Moved { node: 2, difference: None, damage: None }
        );
        disk.restore(&disk.fork(), true);
        let found = || {
            let (opened, stamp) = DataDir::open(shared.clone(), path, None).expect("opened");
            opened.identity(stamp.as_ref(), &random).expect("there").loss(1).expect("judged")
        };
        assert!(found().is_some_and(|why| why.contains("copied")));
        assert!(moved_on(shared.clone(), path).expect("recorded").difference.is_some());
        assert_eq!(found(), None);
    }

    #[test]
    fn a_stamp_counts_only_beside_the_identity_file_it_was_written_beside() {
        let dir = tempfile::tempdir().unwrap();
        let random = ledger_raft::seam_real::SystemRandom;
        let (opened, _) = open(dir.path(), None).unwrap();
        let disk = opened.identity(None, &random).unwrap().disk_id();
        assert_eq!(opened.identity(None, &random).unwrap().disk_id(), disk, "it stays");
        let stamp = |node| Stamp { disks: BTreeMap::from([(node, disk)]), ..stamp(node) };
        opened.stamp(&stamp(2)).unwrap();
        let other = Stamp { disks: BTreeMap::from([(2, DiskId([1; 16]))]), ..stamp(2) };
        let refused = opened.identity(Some(&other), &random).err().unwrap();
        assert!(matches!(&refused, DataDirError::OtherDisk { why, .. } if why.contains("another disk")), "{refused}");
        let claimed = opened.identity(Some(&stamp(2)), &random).unwrap();
        assert_eq!((claimed.disk_id(), claimed.owner().map(|owner| owner.node)), (disk, Some(NodeId(2))));
        let why = |refused: Result<_, DataDirError>| match refused {
            Err(DataDirError::OtherDisk { why, .. }) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("taken"),
        };
        assert!(why(opened.identity(Some(&stamp(3)), &random).map(drop)).contains("another node"));
        assert!(why(opened.identity(None, &random).map(drop)).contains("the stamp is gone"));
        let file = dir.path().join(IDENTITY_FILE);
        std::fs::remove_file(&file).unwrap();
        assert!(why(opened.identity(Some(&stamp(2)), &random).map(drop)).contains("is gone"));
        // An empty directory's file, put beside the stamp and the log of another.
        IdentityFile::create(Arc::new(RealDisk::default()), dir.path(), disk).unwrap();
        std::fs::create_dir(dir.path().join("wal")).unwrap();
        assert!(why(opened.identity(Some(&stamp(2)), &random).map(drop)).contains("there is a log"));
    }

    #[cfg(holdfast_known_bad)]
    #[test]
    fn a_known_bad_build_opens_only_what_is_marked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let refused = open(dir.path(), None).err().unwrap();
        assert!(matches!(&refused, DataDirError::KnownBad { .. }), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it was not touched");
        std::fs::write(dir.path().join(THROW_AWAY), "").unwrap();
        assert!(open(dir.path(), None).is_ok());
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
        let refused = open(dir.path(), None).err().unwrap();
        assert!(matches!(&refused, DataDirError::NotOurs { found, .. } if found == "thesis.txt"), "{refused}");
        assert!(refused.to_string().contains("hint:"));
    }

    #[test]
    fn unknown_formats_and_damage_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(STAMP), r#"{"format": 9, "new": true}"#).unwrap();
        assert!(matches!(open(dir.path(), None), Err(DataDirError::UnknownFormat { got: 9, .. })));
        std::fs::write(dir.path().join(STAMP), r#"{"format": 2, "cluster": 3}"#).unwrap();
        assert!(matches!(open(dir.path(), None), Err(DataDirError::Damaged { .. })));
        std::fs::write(dir.path().join(STAMP), "\0\0\0").unwrap();
        assert!(matches!(open(dir.path(), None), Err(DataDirError::Damaged { .. })));
    }
}
