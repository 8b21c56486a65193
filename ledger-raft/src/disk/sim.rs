//! A disk in memory that forgets, tears and lies on demand, the same way for the same seed.
//!
//! **What it is.** Every file has a cached image (what reads see) and a durable one. A write goes to the cache and is
//! remembered as pending; a sync makes the pending writes of that file durable. [`SimDisk::crash`] throws the cache away:
//! of each pending write any subset of its 512-byte parts survives, of pending directory changes a prefix (a journal
//! keeps their order).
//!
//! **Owns** the fault knobs: [`SimDisk::stop_at`] (power goes at the n-th operation),
//! [`SimDisk::fail_at`] (one error), [`SimDisk::flip_bit`] (rot), [`SimDisk::set_capacity`] (full),
//! [`SimDisk::set_latency`] (slow), [`SimDisk::restore`] (an older state), [`SimDisk::remove_tree`]
//! and [`SimDisk::truncate`] (files that are gone or cut).
//!
//! **Must never** draw on anything but the seeds it is given.
//!
//! **Read next**: [`crate::seam::Disk`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::seam::{Disk, DiskFile, Place};

/// What a device writes whole or not at all.
pub const ATOM_BYTES: usize = 512;

/// When the power goes, counted over writes and syncs (of files and directories, `set_len` included) since creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The operation is begun and never finished: a write is pending, a sync has done nothing.
    During(u64),
    /// The operation is done, but whoever asked never hears of it.
    After(u64),
}

/// The simulated disk: a cheap handle, all clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<State>>,
}

/// A change of a disk, as an observer is told of it right after it was made. Files are known by a number that outlives a rename.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are the operation's own")]
pub enum SimDiskChange<'a> {
    /// A file was created.
    Open { path: &'a Path, file: u64 },
    /// Bytes were written, into the cache.
    Write { file: u64, offset: u64, bytes: &'a [u8] },
    /// A file was cut or extended.
    Len { file: u64, len: u64 },
    /// What was written to a file is durable.
    Sync { file: u64 },
    /// A file has another name.
    Rename { from: &'a Path, to: &'a Path },
    /// A name is gone.
    Remove { path: &'a Path },
    /// Names in a directory are durable.
    SyncDir { dir: &'a Path },
}

/// Told of every change of a disk.
pub type SimDiskObserver = Arc<dyn Fn(SimDiskChange<'_>) + Send + Sync>;

struct State {
    /// Files by directory entry, as seen now.
    names: BTreeMap<PathBuf, u64>,
    /// ... and as a crash would leave them at least.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Directory changes not synced yet, in order.
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Creations so far, on this disk and on those that it was restored from: files' times of
    /// creation.
    births: u64,
    file_system: [u8; 16],
    locks: BTreeSet<PathBuf>,
    /// Handles and locks of an older epoch are dead: the machine they lived on crashed.
    epoch: u64,
    ops: u64,
    stop: Option<CrashPoint>,
    stopped: bool,
    fail: Option<u64>,
    capacity: u64,
    latency: Duration,
    rng: u64,
    observer: Option<SimDiskObserver>,
}

enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default, Clone)]
struct Inode {
    born: u64,
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

impl SimDisk {
    /// An empty disk of 1 TiB.
    pub fn new(seed: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            dirs: BTreeSet::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            births: 0,
            file_system: [seed.to_le_bytes(), (!seed).to_le_bytes()].concat().try_into().unwrap_or_default(),
            locks: BTreeSet::new(),
            epoch: 0,
            ops: 0,
            stop: None,
            stopped: false,
            fail: None,
            capacity: 1 << 40,
            latency: Duration::ZERO,
            rng: seed,
            observer: None,
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// Loses what was not synced and comes back up: knobs for stopping and failing are off, old handles are dead, locks
    /// are free. What survives of pending changes depends on `seed` and on nothing else.
    pub fn crash(&self, seed: u64) {
        let mut s = self.state();
        s.rng = seed;
        s.crash_names();
        for id in s.inodes.keys().copied().collect::<Vec<_>>() {
            s.crash_inode(id);
        }
        s.revive();
    }

    /// The process dies but the machine lives: everything written stays, synced or not; old handles and locks are dead.
    pub fn kill(&self) {
        self.state().revive();
    }

    /// The disk is replaced by an empty one; old handles and locks are dead.
    pub fn wipe(&self) {
        let mut s = self.state();
        s.names.clear();
        s.dirs.clear();
        s.revive();
    }

    /// Everything is as it was when `then` was forked from this disk. `copied`: by copying files,
    /// which lie elsewhere since; else by rolling back the volume, which leaves every file where it
    /// was. Old handles and locks are dead.
    pub fn restore(&self, then: &Self, copied: bool) {
        let (names, dirs, inodes) = {
            let old = then.state();
            (old.names.clone(), old.dirs.clone(), old.inodes.clone())
        };
        let mut s = self.state();
        (s.names, s.dirs, s.inodes) = (names, dirs, inodes);
        if copied {
            let moved: Vec<_> = std::mem::take(&mut s.names).into_iter().collect();
            let mut old = std::mem::take(&mut s.inodes);
            for (path, id) in moved {
                let Some(inode) = old.remove(&id) else { continue };
                let id = s.create(path);
                let born = s.births;
                s.inodes.insert(id, Inode { born, ..inode });
            }
        }
        s.revive();
    }

    /// A file, or a directory and everything in it, is gone, durably; old handles and locks are
    /// dead.
    pub fn remove_tree(&self, path: &Path) {
        let mut s = self.state();
        s.names.retain(|name, _| !name.starts_with(path));
        s.dirs.retain(|name| !name.starts_with(path));
        s.revive();
    }

    /// A file is cut to `len` bytes, in the cache and on the medium.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn truncate(&self, path: &Path, len: usize) -> io::Result<()> {
        let mut s = self.state();
        let id = *s.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = s.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        inode.cached.truncate(len);
        inode.durable.truncate(len);
        inode.pending.clear();
        Ok(())
    }

    /// Tells somebody of every change from now on.
    pub fn observe(&self, observer: SimDiskObserver) {
        self.state().observer = Some(observer);
    }

    /// Power goes at this point: the operation and all later ones fail until [`SimDisk::crash`].
    pub fn stop_at(&self, point: Option<CrashPoint>) {
        self.state().stop = point;
    }

    /// Whether the power went.
    pub fn stopped(&self) -> bool {
        self.state().stopped
    }

    /// The `op`-th write or sync fails once with an I/O error and has no effect.
    pub fn fail_at(&self, op: Option<u64>) {
        self.state().fail = op;
    }

    /// Writes and syncs so far.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Total bytes of the disk; files allocate their whole length.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes allocated to files.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// How long syncs take from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Rot: flips bit `bit` of the byte at `offset`, in the cache and on the medium.
    ///
    /// # Errors
    /// `NotFound` when there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.corrupt(path, offset, 1, |byte| *byte ^= 1 << (bit % 8))
    }

    /// Rot: `len` bytes read as zero from now on.
    ///
    /// # Errors
    /// `NotFound` when there is no such file or byte.
    pub fn zero(&self, path: &Path, offset: u64, len: usize) -> io::Result<()> {
        self.corrupt(path, offset, len, |byte| *byte = 0)
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// A file's bytes as reads see them.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let s = self.state();
        s.names.get(path).and_then(|id| s.inodes.get(id)).map(|i| i.cached.clone())
    }

    /// An independent copy of the disk as it is now, with all pending writes, alive and without knobs or locks.
    pub fn fork(&self) -> Self {
        let s = self.state();
        let copy = Self::new(s.rng);
        {
            let mut c = copy.state();
            c.names = s.names.clone();
            c.durable_names = s.names.clone();
            c.dirs = s.dirs.clone();
            c.inodes = s.inodes.clone();
            (c.next_inode, c.births, c.file_system) = (s.next_inode, s.births, s.file_system);
            c.capacity = s.capacity;
        }
        copy
    }

    fn corrupt(&self, path: &Path, offset: u64, len: usize, mut how: impl FnMut(&mut u8)) -> io::Result<()> {
        let mut s = self.state();
        let id = *s.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = s.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::NotFound)?;
        for image in [&mut inode.cached, &mut inode.durable] {
            image.get_mut(at..at + len).ok_or(io::ErrorKind::NotFound)?.iter_mut().for_each(&mut how);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopped() -> io::Error {
    io::Error::other("simulated disk: the power is off")
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.stopped { Err(stopped()) } else { Ok(()) }
    }

    /// Counts one operation and runs it, unless a knob says otherwise.
    fn operate<R>(&mut self, is_write: bool, run: impl FnOnce(&mut Self) -> io::Result<R>) -> io::Result<R> {
        self.alive()?;
        self.ops += 1;
        if self.fail == Some(self.ops) {
            self.fail = None;
            return Err(io::Error::other("simulated disk: I/O error"));
        }
        match self.stop {
            Some(CrashPoint::During(n)) if n == self.ops => {
                if is_write {
                    run(self)?;
                }
                self.stopped = true;
                Err(stopped())
            }
            Some(CrashPoint::After(n)) if n == self.ops => {
                run(self)?;
                self.stopped = true;
                Err(stopped())
            }
            _ => run(self),
        }
    }

    fn tell(&self, change: SimDiskChange<'_>) {
        if let Some(observer) = &self.observer {
            observer(change);
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.inodes.get(id)).map(|i| i.cached.len() as u64).sum()
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A new file of this name, and its number.
    fn create(&mut self, path: PathBuf) -> u64 {
        let id = self.next_inode;
        self.next_inode += 1;
        self.births += 1;
        self.inodes.insert(id, Inode { born: self.births, ..Inode::default() });
        self.names.insert(path, id);
        id
    }

    fn revive(&mut self) {
        self.epoch += 1;
        self.locks.clear();
        self.stopped = false;
        self.stop = None;
        self.fail = None;
        self.durable_names = self.names.clone();
        self.pending_names.clear();
        let live: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|id, _| live.contains(id));
    }

    fn crash_names(&mut self) {
        let keep = (self.next() % (self.pending_names.len() as u64 + 1)) as usize;
        let mut names = std::mem::take(&mut self.durable_names);
        for change in self.pending_names.drain(..).take(keep) {
            apply_name(&mut names, change);
        }
        self.names = names;
    }

    fn crash_inode(&mut self, id: u64) {
        let Some(mut inode) = self.inodes.remove(&id) else { return };
        let mut image = std::mem::take(&mut inode.durable);
        for pending in std::mem::take(&mut inode.pending) {
            match pending {
                Pending::Len(len) => {
                    if self.next() & 1 == 0 {
                        image.resize(len, 0);
                    }
                }
                Pending::Write { offset, bytes } => self.tear(&mut image, offset, &bytes),
            }
        }
        self.inodes.insert(id, Inode { cached: image.clone(), durable: image, pending: Vec::new(), ..inode });
    }

    /// Lets a write through whole, not at all, up to a point, or in any subset of its parts.
    fn tear(&mut self, image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
        let parts = bytes.len().div_ceil(ATOM_BYTES).max(1) as u64;
        let how = self.next() % 4;
        let prefix = self.next() % (parts + 1);
        let mut at = 0;
        for part in 0..parts {
            let absolute = offset + at;
            let len = (ATOM_BYTES - absolute % ATOM_BYTES).min(bytes.len() - at);
            let survives = match how {
                0 => true,
                1 => false,
                2 => part < prefix,
                _ => self.next() & 1 == 0,
            };
            if survives && len > 0 {
                if image.len() < absolute + len {
                    image.resize(absolute + len, 0);
                }
                image[absolute..absolute + len].copy_from_slice(&bytes[at..at + len]);
            }
            at += len;
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: NameChange) {
    match change {
        NameChange::Link(path, id) => {
            names.insert(path, id);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(&from) {
                names.insert(to, id);
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut s = self.state();
        s.alive()?;
        let id = match s.names.get(path) {
            Some(id) => *id,
            None if create => {
                let id = s.create(path.to_path_buf());
                s.pending_names.push(NameChange::Link(path.to_path_buf(), id));
                s.tell(SimDiskChange::Open { path, file: id });
                id
            }
            None => return Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string())),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), id, epoch: s.epoch }))
    }

    fn exists(&self, path: &Path) -> bool {
        let s = self.state();
        s.names.contains_key(path) || s.dirs.contains(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let s = self.state();
        s.alive()?;
        Ok(s.names.keys().filter(|p| p.parent() == Some(dir)).cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Directories are durable at once: nobody's promise hangs on losing one.
        let mut s = self.state();
        s.alive()?;
        s.dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.alive()?;
        let id = s.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        s.names.insert(to.to_path_buf(), id);
        s.pending_names.push(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        s.tell(SimDiskChange::Rename { from, to });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.alive()?;
        s.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        s.pending_names.push(NameChange::Unlink(path.to_path_buf()));
        s.tell(SimDiskChange::Remove { path });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().operate(false, |s| {
            let (mine, others): (Vec<_>, Vec<_>) = s.pending_names.drain(..).partition(|change| match change {
                NameChange::Link(p, _) | NameChange::Unlink(p) => p.parent() == Some(dir),
                NameChange::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
            });
            s.pending_names = others;
            for change in mine {
                apply_name(&mut s.durable_names, change);
            }
            s.tell(SimDiskChange::SyncDir { dir });
            Ok(())
        })
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let s = self.state();
        s.alive()?;
        Ok(s.capacity.saturating_sub(s.used()))
    }

    fn place_of(&self, path: &Path) -> io::Result<Place> {
        let s = self.state();
        s.alive()?;
        let id = *s.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let born = s.inodes.get(&id).map(|inode| inode.born);
        Ok(Place { inode: Some(id), born_ns: born, file_system: Some(s.file_system) })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut s = self.state();
        s.alive()?;
        if !s.locks.insert(dir.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), dir: dir.to_path_buf(), epoch: s.epoch }))
    }

    fn simulated_latency(&self) -> Duration {
        self.state().latency
    }

    fn inline(&self) -> bool {
        true
    }
}

struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
    epoch: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut s = self.disk.state();
        if s.epoch == self.epoch {
            s.locks.remove(&self.dir);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    epoch: u64,
}

impl SimFile {
    fn with<R>(&self, run: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut s = self.disk.state();
        if s.epoch != self.epoch {
            return Err(io::Error::other("simulated disk: this handle died in a crash"));
        }
        s.alive()?;
        run(&mut s)
    }
}

impl State {
    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|s| {
            let inode = s.inode(self.id)?;
            let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let from = inode.cached.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(from);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.with(|s| {
            s.operate(true, |s| {
                let grows = (at + buf.len()).saturating_sub(s.inode(self.id)?.cached.len()) as u64;
                if grows > 0 && s.used() + grows > s.capacity {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let inode = s.inode(self.id)?;
                if grows > 0 {
                    inode.cached.resize(at + buf.len(), 0);
                }
                inode.cached[at..at + buf.len()].copy_from_slice(buf);
                inode.pending.push(Pending::Write { offset: at, bytes: buf.to_vec() });
                s.tell(SimDiskChange::Write { file: self.id, offset, bytes: buf });
                Ok(())
            })
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|s| {
            s.operate(false, |s| {
                let inode = s.inode(self.id)?;
                for pending in std::mem::take(&mut inode.pending) {
                    match pending {
                        Pending::Len(len) => inode.durable.resize(len, 0),
                        Pending::Write { offset, bytes } => {
                            let end = offset + bytes.len();
                            if inode.durable.len() < end {
                                inode.durable.resize(end, 0);
                            }
                            inode.durable[offset..end].copy_from_slice(&bytes);
                        }
                    }
                }
                s.tell(SimDiskChange::Sync { file: self.id });
                Ok(())
            })
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|s| Ok(s.inode(self.id)?.cached.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let to = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.with(|s| {
            s.operate(true, |s| {
                let grows = to.saturating_sub(s.inode(self.id)?.cached.len()) as u64;
                if grows > 0 && s.used() + grows > s.capacity {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let inode = s.inode(self.id)?;
                inode.cached.resize(to, 0);
                inode.pending.push(Pending::Len(to));
                s.tell(SimDiskChange::Len { file: self.id, len });
                Ok(())
            })
        })
    }
}

#[cfg(test)]
mod tests;
