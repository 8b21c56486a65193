//! The file that says which disk this is, whose it is, and how far its log was begun.
//!
//! **What it is.** `holdfast.identity` has two slots of a sector each, written in place in turn;
//! the valid one with the higher sequence counts. So a write needs no space, and one that a crash
//! tears leaves the slot before it. The file outlives the log's directory: a log that is gone, cut
//! or copied is found out by what this file says of it.
//!
//! **Owns** the format, and the judgement whether the log's directory can be all that was written.
//! **Must never** be replaced by a copy, or be written again with another disk id. **Read next**:
//! [`crate::wal`], which asks before it begins a segment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::{DiskId, NodeId};
use crate::limits::IDENTITY_SLOT_BYTES;
use crate::seam::{Disk, DiskFile, Place};
use crate::wal::{GENERATION_MAX, SegmentsBegun, WalIdentity};

/// The file's name in the data directory.
pub const IDENTITY_FILE: &str = "holdfast.identity";

const MAGIC: &[u8; 8] = b"HFIDENT\0";
const FORMAT: u16 = 1;
/// The directory is to be taken for one that lost its log.
const REJOINED: u32 = 1;
/// A plan of members may have the disk id: it is drawn no more.
const HANDED_OUT: u32 = 2;
/// Where the checksum of a slot lies.
const SUM_AT: usize = IDENTITY_SLOT_BYTES - 4;

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    owner: Option<WalIdentity>,
    disk: DiskId,
    begun: u32,
    rejoined: bool,
    handed_out: bool,
    place: Place,
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0u8; IDENTITY_SLOT_BYTES];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &FORMAT.to_le_bytes());
        put(&mut out, 16, &self.sequence.to_le_bytes());
        if let Some(owner) = &self.owner {
            put(&mut out, 24, &owner.node.0.to_le_bytes());
            put(&mut out, 32, &owner.cluster);
            put(&mut out, 48, &owner.incarnation.to_le_bytes());
        }
        put(&mut out, 56, &self.disk.0);
        put(&mut out, 72, &self.begun.to_le_bytes());
        let flags = (if self.rejoined { REJOINED } else { 0 }) | (if self.handed_out { HANDED_OUT } else { 0 });
        put(&mut out, 76, &flags.to_le_bytes());
        let Place { inode, born_ns, file_system } = self.place;
        let known =
            u32::from(inode.is_some()) | u32::from(born_ns.is_some()) << 1 | u32::from(file_system.is_some()) << 2;
        put(&mut out, 80, &known.to_le_bytes());
        put(&mut out, 84, &inode.unwrap_or(0).to_le_bytes());
        put(&mut out, 92, &born_ns.unwrap_or(0).to_le_bytes());
        put(&mut out, 100, &file_system.unwrap_or_default());
        let sum = crc32c::crc32c(&out[..SUM_AT]);
        put(&mut out, SUM_AT, &sum.to_le_bytes());
        out
    }

    /// None: torn, rotten or never written.
    ///
    /// # Errors
    /// `Unsupported`: another build wrote it.
    fn decode(bytes: &[u8]) -> io::Result<Option<Self>> {
        if bytes.len() != IDENTITY_SLOT_BYTES
            || &bytes[..8] != MAGIC
            || crc32c::crc32c(&bytes[..SUM_AT]).to_le_bytes() != bytes[SUM_AT..]
        {
            return Ok(None);
        }
        let format = u16::from_le_bytes(take(bytes, 8));
        if format != FORMAT {
            let why = format!("identity format {format}, this build knows {FORMAT}; run the build that wrote it");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let u64_at = |at| u64::from_le_bytes(take(bytes, at));
        let u32_at = |at| u32::from_le_bytes(take(bytes, at));
        // Nothing here writes a segment of a number beyond it.
        if u32_at(72) > GENERATION_MAX {
            return Ok(None);
        }
        let node = NodeId(u64_at(24));
        let owner = WalIdentity { cluster: take(bytes, 32), incarnation: u64_at(48), node };
        let known = u32_at(80);
        Ok(Some(Self {
            sequence: u64_at(16),
            owner: (node.0 != 0).then_some(owner),
            disk: DiskId(take(bytes, 56)),
            begun: u32_at(72),
            rejoined: u32_at(76) & REJOINED != 0,
            handed_out: u32_at(76) & HANDED_OUT != 0,
            place: Place {
                inode: (known & 1 != 0).then(|| u64_at(84)),
                born_ns: (known & 2 != 0).then(|| u64_at(92)),
                file_system: (known & 4 != 0).then(|| take(bytes, 100)),
            },
        }))
    }
}

/// The identity file of an open data directory.
pub struct IdentityFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    slot: Mutex<Slot>,
}

impl IdentityFile {
    /// Makes the file in `dir`, durably. A file that a crash left half-made is written over.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, id: DiskId) -> io::Result<Self> {
        let path = dir.join(IDENTITY_FILE);
        let file = disk.open(&path, true)?;
        file.set_len(0)?;
        file.set_len(2 * IDENTITY_SLOT_BYTES as u64)?;
        let place = disk.place_of(&path)?;
        let slot = Slot { sequence: 1, owner: None, disk: id, begun: 0, rejoined: false, handed_out: false, place };
        write_slot(file.as_ref(), &slot)?;
        disk.sync_dir(dir)?;
        Ok(Self { disk, path, file, slot: Mutex::new(slot) })
    }

    /// Opens the file in `dir`; none when there is none, or one that was never made whole.
    ///
    /// # Errors
    /// The disk's; `Unsupported` when another build wrote it.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(IDENTITY_FILE);
        if !disk.exists(&path) {
            return Ok(None);
        }
        let file = disk.open(&path, false)?;
        if file.len()? < 2 * IDENTITY_SLOT_BYTES as u64 {
            return Ok(None);
        }
        let read = |slot: u64| {
            let mut bytes = vec![0u8; IDENTITY_SLOT_BYTES];
            file.read_at(slot * IDENTITY_SLOT_BYTES as u64, &mut bytes).map(|()| bytes)
        };
        let newest = newest_of([read(0), read(1)])?;
        // What is read may be in the page cache only, left by a process that was killed before its
        // sync.
        file.sync()?;
        Ok(newest.map(|slot| Self { disk, path, file, slot: Mutex::new(slot) }))
    }

    /// The disk's id.
    pub fn disk_id(&self) -> DiskId {
        self.slot().disk
    }

    /// The disk's id for a plan of members, durably. The first time it is drawn anew: a directory
    /// that was opened before may be one of many copies of a template, all with one id. So it is
    /// after a rejoin that was not finished: members may know the id of that one.
    ///
    /// # Errors
    /// The disk's.
    pub fn hand_out(&self, draw: impl FnOnce() -> DiskId) -> io::Result<DiskId> {
        let Slot { handed_out, rejoined, owner, .. } = self.slot();
        if (!handed_out || rejoined) && owner.is_none() {
            self.draw_anew(false, draw)?;
        }
        Ok(self.disk_id())
    }

    /// A disk's id of its own for one attempt of a member to come back on this empty directory,
    /// durably, and with it that everything the member had is lost: nothing that is begun here
    /// counts as whole before it was repaired.
    ///
    /// # Errors
    /// The directory is a node's (`PermissionDenied`); or the disk's.
    pub fn hand_out_for_rejoin(&self, draw: impl FnOnce() -> DiskId) -> io::Result<DiskId> {
        if let Some(owner) = self.owner() {
            let why = format!("{} is of node {} already", self.path.display(), owner.node.0);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.draw_anew(true, draw)?;
        Ok(self.disk_id())
    }

    fn draw_anew(&self, rejoined: bool, draw: impl FnOnce() -> DiskId) -> io::Result<()> {
        let place = self.disk.place_of(&self.path)?;
        self.write(|slot| {
            (slot.disk, slot.handed_out, slot.place, slot.rejoined) = (draw(), true, place, rejoined);
        })
    }

    /// Whether the id was drawn for a member that comes back on this directory, and no log was begun
    /// since.
    pub fn is_rejoining(&self) -> bool {
        self.slot().rejoined
    }

    /// Whose directory it is; none before it was claimed.
    pub fn owner(&self) -> Option<WalIdentity> {
        self.slot().owner
    }

    /// Makes the directory this node's, durably. Claiming it again for the same node does nothing.
    ///
    /// # Errors
    /// It is another node's (`PermissionDenied`); or the disk's.
    pub fn claim(&self, owner: WalIdentity) -> io::Result<()> {
        match self.owner() {
            Some(known) if known == owner => Ok(()),
            Some(known) => {
                let why = format!("{} is of node {} of another cluster", self.path.display(), known.node.0);
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
            None => self.write(|slot| slot.owner = Some(owner)),
        }
    }

    /// Records, durably, that the directory lies where it is now: somebody vouches that it is the
    /// whole of what was moved, and that the original is not used any more. Answers what of its place
    /// was another one.
    ///
    /// # Errors
    /// The disk's.
    pub fn vouch_for_place(&self) -> io::Result<Option<&'static str>> {
        let place = self.disk.place_of(&self.path)?;
        let difference = place.difference(&self.slot().place);
        if difference.is_some() {
            self.write(|slot| slot.place = place)?;
        }
        Ok(difference)
    }

    fn slot(&self) -> Slot {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the slot that does not count. What is known changes only once that is durable.
    fn write(&self, change: impl FnOnce(&mut Slot)) -> io::Result<()> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Slot { sequence: slot.sequence.saturating_add(1), ..*slot };
        change(&mut next);
        write_slot(self.file.as_ref(), &next)?;
        *slot = next;
        Ok(())
    }
}

/// The slot that counts. A sector that cannot be read is one that is rotten: the other slot is there
/// for that.
///
/// # Errors
/// Neither says anything, and one could not be read; `Unsupported` when another build wrote one.
fn newest_of(slots: [io::Result<Vec<u8>>; 2]) -> io::Result<Option<Slot>> {
    let (mut newest, mut unreadable): (Option<Slot>, Option<io::Error>) = (None, None);
    for (number, read) in slots.into_iter().enumerate() {
        match read {
            Ok(bytes) => newest = newest.into_iter().chain(Slot::decode(&bytes)?).max_by_key(|slot| slot.sequence),
            Err(error) => {
                tracing::error!(slot = number, %error, "a part of {IDENTITY_FILE} cannot be read");
                unreadable = Some(error);
            }
        }
    }
    match unreadable {
        Some(error) if newest.is_none() => Err(error),
        _ => Ok(newest),
    }
}

fn write_slot(file: &dyn DiskFile, slot: &Slot) -> io::Result<()> {
    file.write_at(slot.sequence % 2 * IDENTITY_SLOT_BYTES as u64, &slot.encode())?;
    file.sync()
}

impl SegmentsBegun for IdentityFile {
    fn newest(&self) -> u32 {
        self.slot().begun
    }

    fn loss(&self, found: u32) -> io::Result<Option<String>> {
        let slot = self.slot();
        if slot.rejoined && !crate::bad!("rejoined-disk-believed") {
            return Ok(Some("the directory was empty when its node rejoined".to_owned()));
        }
        // Nothing was promised before a segment was begun.
        if slot.begun == 0 {
            return Ok(None);
        }
        if let Some(what) = self.disk.place_of(&self.path)?.difference(&slot.place)
            && !crate::bad!("copied-directory-accepted")
        {
            return Ok(Some(format!("the directory was copied: {IDENTITY_FILE} has {what}")));
        }
        if found == 0 && crate::bad!("shard-begun-twice") {
            return Ok(None);
        }
        Ok((found < slot.begun).then(|| match found {
            0 => format!("all of the log is gone: segment {} was begun", slot.begun),
            _ => format!("the end of the log is gone: segment {} was begun, the newest found is {found}", slot.begun),
        }))
    }

    fn started(&self, generation: u32) -> io::Result<()> {
        let place = self.disk.place_of(&self.path)?;
        self.write(|slot| (slot.begun, slot.place, slot.rejoined) = (generation, place, false))
    }

    fn begun(&self, generation: u32) -> io::Result<()> {
        self.write(|slot| slot.begun = generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{CrashPoint, SimDisk};

    const ID: DiskId = DiskId([9; 16]);
    const OWNER: WalIdentity = WalIdentity { cluster: [7; 16], incarnation: 2, node: NodeId(3) };

    fn dir() -> &'static Path {
        Path::new("/d")
    }

    fn open(disk: &SimDisk) -> Option<IdentityFile> {
        IdentityFile::open(Arc::new(disk.clone()), dir()).expect("readable")
    }

    fn create(disk: &SimDisk) -> io::Result<IdentityFile> {
        disk.create_dir_all(dir())?;
        IdentityFile::create(Arc::new(disk.clone()), dir(), ID)
    }

    /// Golden bytes: a change here is a new format.
    #[test]
    fn a_slot_keeps_its_bytes() {
        let place = Place { inode: Some(5), born_ns: None, file_system: Some([6; 16]) };
        let (rejoined, handed_out) = (true, true);
        let slot = Slot { sequence: 2, owner: Some(OWNER), disk: ID, begun: 4, rejoined, handed_out, place };
        let bytes = slot.encode();
        let mut golden = [0u8; 116];
        golden[..8].copy_from_slice(b"HFIDENT\0");
        (golden[8], golden[16], golden[24], golden[48], golden[72], golden[76]) = (1, 2, 3, 2, 4, 3);
        golden[32..48].fill(7);
        golden[56..72].fill(9);
        (golden[80], golden[84]) = (5, 5);
        golden[100..116].fill(6);
        assert_eq!(bytes[..116], golden);
        assert!(bytes[116..SUM_AT].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[SUM_AT..], crc32c::crc32c(&bytes[..SUM_AT]).to_le_bytes());
        assert_eq!(Slot::decode(&bytes).expect("known"), Some(slot));
        let unclaimed = Slot { owner: None, place: Place::default(), rejoined: false, handed_out: false, ..slot };
        assert_eq!(Slot::decode(&unclaimed.encode()).expect("known"), Some(unclaimed));
        for at in [0, 30, 90, 4_000, SUM_AT] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Slot::decode(&bad).expect("none"), None, "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        let sum = crc32c::crc32c(&newer[..SUM_AT]);
        newer[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Slot::decode(&newer).map_err(|e| e.kind()), Err(io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_write_that_a_crash_tears_leaves_the_slot_before_it() {
        let disk = SimDisk::new(1);
        let first = disk.ops();
        create(&disk).expect("created").claim(OWNER).expect("claimed");
        let made = disk.ops() - first;
        for op in 1..=made {
            for (point, seed) in (0..6).map(|seed| (CrashPoint::During(op), seed)).chain([(CrashPoint::After(op), 0)]) {
                let disk = SimDisk::new(seed);
                disk.stop_at(Some(point));
                let done = create(&disk).and_then(|identity| identity.claim(OWNER));
                disk.crash(seed);
                let found = open(&disk);
                assert!(done.is_err() || found.as_ref().is_some_and(|f| f.owner() == Some(OWNER)), "{point:?}");
                assert!(found.is_none_or(|f| f.disk_id() == ID && f.newest() == 0), "{point:?}");
                create(&disk).expect("again").claim(OWNER).expect("claimed");
            }
        }
        for n in 1..20 {
            let identity = open(&disk).expect("there");
            disk.stop_at(Some(CrashPoint::During(disk.ops() + 1 + u64::from(n) % 2)));
            identity.begun(n).expect_err("no power");
            disk.crash(u64::from(n));
            let found = open(&disk).expect("there");
            assert!(found.newest() == n || found.newest() == n - 1, "{} of {n}", found.newest());
            assert_eq!(found.owner(), Some(OWNER));
            found.begun(n).expect("written");
            assert_eq!(open(&disk).expect("there").newest(), n);
            each_slot_counts(&disk, n);
        }
    }

    /// The slot before still counts when the newest one rots.
    fn each_slot_counts(disk: &SimDisk, n: u32) {
        let fork = disk.fork();
        let sequence = open(&fork).expect("there").slot().sequence;
        let at = sequence % 2 * IDENTITY_SLOT_BYTES as u64;
        fork.flip_bit(&dir().join(IDENTITY_FILE), at + 99, 1).expect("flipped");
        let before = open(&fork).expect("there").newest();
        assert!(before == n - 1 || before == n, "{before} of {n}");
        fork.flip_bit(&dir().join(IDENTITY_FILE), (IDENTITY_SLOT_BYTES as u64 - at) + 99, 1).expect("flipped");
        assert!(open(&fork).is_none(), "neither slot is whole");
    }

    #[test]
    fn a_claim_is_for_one_node_and_for_ever() {
        let disk = SimDisk::new(1);
        let identity = create(&disk).expect("created");
        assert_eq!(identity.owner(), None);
        identity.claim(OWNER).expect("claimed");
        identity.claim(OWNER).expect("the same again");
        let other = WalIdentity { node: NodeId(4), ..OWNER };
        assert_eq!(identity.claim(other).map_err(|e| e.kind()), Err(io::ErrorKind::PermissionDenied));
    }

    /// A machine's template was started once: each copy of it is a disk of its own as soon as a plan names it.
    #[test]
    fn an_id_is_drawn_when_a_plan_needs_it_and_then_stays() {
        let template = SimDisk::new(1);
        create(&template).expect("created");
        let copy = template.fork();
        let (one, other) = (DiskId([1; 16]), DiskId([2; 16]));
        assert_eq!(open(&template).expect("there").hand_out(|| one).expect("written"), one);
        assert_eq!(open(&copy).expect("there").hand_out(|| other).expect("written"), other);
        let again = open(&template).expect("there");
        assert_eq!(again.hand_out(|| other).expect("known"), one, "the plan has it");
        again.claim(OWNER).expect("claimed");
        assert_eq!(open(&template).expect("there").hand_out(|| other).expect("known"), one);
    }

    #[test]
    fn an_attempt_to_rejoin_has_an_id_of_its_own_and_everything_before_it_is_lost() {
        let disk = SimDisk::new(1);
        let id = |n| move || DiskId([n; 16]);
        let identity = create(&disk).expect("created");
        assert_eq!(identity.hand_out(id(1)).expect("written"), DiskId([1; 16]));
        assert!(!identity.is_rejoining());
        for n in [2, 3] {
            assert_eq!(identity.hand_out_for_rejoin(id(n)).expect("written"), DiskId([n; 16]));
            let found = open(&disk).expect("there");
            assert_eq!((found.disk_id(), found.is_rejoining()), (DiskId([n; 16]), true));
            assert!(found.loss(0).expect("judged").is_some_and(|why| why.contains("rejoined")));
        }
        // A new cluster after all: members of the other one may know the id.
        assert_eq!(identity.hand_out(id(4)).expect("written"), DiskId([4; 16]));
        assert_eq!((identity.is_rejoining(), identity.loss(0).expect("judged")), (false, None));
        identity.claim(OWNER).expect("claimed");
        let refused = identity.hand_out_for_rejoin(id(5)).map_err(|e| e.kind());
        assert_eq!(refused, Err(io::ErrorKind::PermissionDenied), "it is a node's");
        assert_eq!(open(&disk).expect("there").disk_id(), DiskId([4; 16]));
    }

    #[test]
    fn a_directory_that_promised_nothing_may_be_moved_by_a_copy() {
        let disk = SimDisk::new(1);
        create(&disk).expect("created").claim(OWNER).expect("claimed");
        disk.restore(&disk.fork(), true);
        let moved = open(&disk).expect("there");
        assert_eq!(moved.loss(0).expect("judged"), None);
        moved.started(1).expect("recorded");
        assert_eq!(open(&disk).expect("there").loss(1).expect("judged"), None, "it lives here from now on");
    }

    #[test]
    fn a_log_that_is_not_all_that_was_begun_is_lost() {
        let disk = SimDisk::new(1);
        let identity = create(&disk).expect("created");
        assert_eq!(identity.loss(0).expect("judged"), None, "nothing was begun");
        identity.started(4).expect("recorded");
        assert_eq!(identity.loss(4).expect("judged"), None);
        assert_eq!(identity.loss(5).expect("judged"), None, "begun, and the crash came before the record");
        let why = |found| identity.loss(found).expect("judged").expect("lost");
        assert!(why(3).contains("the newest found is 3") && why(0).contains("all of the log is gone"));
    }

    #[test]
    fn a_copied_directory_is_noticed_and_a_rolled_back_one_is_not() {
        let disk = SimDisk::new(1);
        create(&disk).expect("created").started(1).expect("recorded");
        let then = disk.fork();
        disk.restore(&then, false);
        assert_eq!(open(&disk).expect("there").loss(1).expect("judged"), None);
        disk.restore(&then, true);
        let copied = open(&disk).expect("there");
        assert!(copied.loss(1).expect("judged").is_some_and(|why| why.contains("copied")));
        copied.started(2).expect("recorded");
        assert_eq!(open(&disk).expect("there").loss(2).expect("judged"), None, "it lives here from now on");
    }

    #[test]
    fn a_moved_directory_that_somebody_vouches_for_is_whole_unless_its_log_is_not() {
        let disk = SimDisk::new(1);
        create(&disk).expect("created").started(3).expect("recorded");
        disk.restore(&disk.fork(), true);
        let moved = open(&disk).expect("there");
        assert_eq!(moved.vouch_for_place().expect("written"), Some("another time of creation"));
        assert_eq!(moved.vouch_for_place().expect("known"), None);
        let again = open(&disk).expect("there");
        assert_eq!(again.loss(3).expect("judged"), None);
        assert!(again.loss(2).expect("judged").is_some_and(|why| why.contains("the end of the log is gone")));
    }

    #[test]
    fn an_inode_that_a_mount_changed_is_no_copy_where_the_time_of_creation_is_known() {
        let place = |inode, born_ns| Place { inode: Some(inode), born_ns, file_system: Some([1; 16]) };
        assert_eq!(place(1, Some(7)).difference(&place(2, Some(7))), None);
        assert_eq!(place(1, Some(7)).difference(&place(1, Some(8))), Some("another time of creation"));
        assert_eq!(place(1, None).difference(&place(2, Some(7))), Some("another inode"));
        assert_eq!(place(1, None).difference(&place(1, None)), None);
    }

    #[test]
    fn a_slot_that_cannot_be_read_leaves_the_other() {
        let slot = Slot {
            sequence: 2,
            owner: Some(OWNER),
            disk: ID,
            begun: 4,
            rejoined: false,
            handed_out: true,
            place: Place::default(),
        };
        let unreadable = || Err(io::Error::other("a bad sector"));
        assert_eq!(newest_of([unreadable(), Ok(slot.encode())]).expect("one is whole"), Some(slot));
        assert_eq!(newest_of([Ok(slot.encode()), unreadable()]).expect("one is whole"), Some(slot));
        assert!(newest_of([unreadable(), unreadable()]).is_err(), "nobody knows what it said");
        let empty = || Ok(vec![0; IDENTITY_SLOT_BYTES]);
        assert!(newest_of([unreadable(), empty()]).is_err(), "it may have said something");
        assert_eq!(newest_of([empty(), empty()]).expect("readable"), None);
        let beyond = Slot { begun: GENERATION_MAX + 1, ..slot };
        assert_eq!(newest_of([Ok(beyond.encode()), empty()]).expect("readable"), None, "nothing here writes that");
    }
}
