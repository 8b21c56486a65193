//! Files of this machine.
//!
//! **What it is.** `std::fs` plus the four calls it lacks: `O_DIRECT|O_DSYNC`, `flock`,
//! `fallocate`, `statvfs`; and where a file lies, by `stat` and by the names that udev gives to
//! file systems.
//!
//! **Owns** the choice between direct and buffered log writes, made once a file and told in the log.
//! **Must never** retry a sync: after a failed one the page cache says *clean* about pages that never reached the disk.
//!
//! **Read next**: [`crate::wal`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use xxhash_rust::xxh3::xxh3_128;

use crate::seam::{Disk, DiskFile, Place};

/// Alignment that every `O_DIRECT` file system accepts.
const DIRECT_ALIGN: usize = 4096;
/// Zeroes are written in pieces of this size.
const ZERO_PIECE_BYTES: usize = 1 << 20;

/// Where udev names block devices by the UUID of the file system on them. Containers have no such
/// directory.
const FILE_SYSTEMS: &str = "/dev/disk/by-uuid";

/// The real disk. `buffered` switches direct writes off.
#[derive(Debug, Clone, Default)]
pub struct RealDisk {
    buffered: bool,
    told: Arc<AtomicBool>,
}

impl RealDisk {
    /// Direct log writes where the file system can.
    pub fn new() -> Self {
        Self::default()
    }
    /// Never direct: for comparison, and for file systems that accept `O_DIRECT` but are slow with it.
    pub fn buffered() -> Self {
        Self { buffered: true, told: Arc::default() }
    }
    fn tell(&self, path: &Path, how: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::info!(file = %path.display(), how, "log writes");
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Arc::new(RealFile { file, direct: None, buffered: self.buffered, dirty: AtomicBool::new(false) }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let flags = OFlags::DIRECT.union(OFlags::DSYNC).bits();
        let flags = i32::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let direct = if self.buffered {
            self.tell(path, "buffered, fdatasync (asked for)");
            None
        } else {
            match OpenOptions::new().write(true).custom_flags(flags).open(path) {
                Ok(direct) => {
                    self.tell(path, "O_DIRECT|O_DSYNC");
                    Some(direct)
                }
                Err(e) => {
                    self.tell(path, &format!("buffered, fdatasync (O_DIRECT refused: {e})"));
                    None
                }
            }
        };
        Ok(Arc::new(RealFile { file, direct, buffered: self.buffered, dirty: AtomicBool::new(false) }))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn place_of(&self, path: &Path) -> io::Result<Place> {
        let meta = fs::metadata(path)?;
        let born = meta.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Place {
            inode: Some(meta.ino()),
            born_ns: born.and_then(|since| u64::try_from(since.as_nanos()).ok()),
            file_system: file_system_of(meta.dev()),
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("LOCK"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

/// A hash of the UUID of the file system on a block device; none where the system does not tell.
fn file_system_of(device: u64) -> Option<[u8; 16]> {
    let names = fs::read_dir(FILE_SYSTEMS).ok()?.flatten();
    let found = names.into_iter().find(|name| {
        fs::metadata(name.path()).is_ok_and(|meta| meta.file_type().is_block_device() && meta.rdev() == device)
    })?;
    Some(xxh3_128(found.file_name().as_encoded_bytes()).to_le_bytes())
}

/// One file: reads and odd writes go through the page cache, aligned log writes past it.
///
/// Mixing is safe here because a byte range is written once by one path before anybody reads it, and the kernel drops
/// cached pages under a direct write.
struct RealFile {
    file: File,
    direct: Option<File>,
    buffered: bool,
    dirty: AtomicBool,
}

impl RealFile {
    /// The same file past the page cache, without a sync a write.
    fn past_the_cache(&self) -> Option<File> {
        if self.buffered {
            return None;
        }
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let again = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        OpenOptions::new().write(true).custom_flags(flags).open(again).ok()
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let aligned = buf.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
            && buf.len().is_multiple_of(DIRECT_ALIGN)
            && offset.is_multiple_of(DIRECT_ALIGN as u64);
        match &self.direct {
            Some(direct) if aligned => direct.write_all_at(buf, offset),
            _ => {
                self.dirty.store(true, Ordering::Relaxed);
                self.file.write_all_at(buf, offset)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        // Direct writes carry O_DSYNC: they are durable already.
        if self.direct.is_none() || self.dirty.swap(false, Ordering::Relaxed) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let old = self.len()?;
        self.dirty.store(true, Ordering::Relaxed);
        if len <= old {
            return self.file.set_len(len);
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), old, len - old) {
            Ok(()) => {}
            Err(e) if e == rustix::io::Errno::OPNOTSUPP || e == rustix::io::Errno::NOSYS => {}
            Err(e) => return Err(e.into()),
        }
        // Allocated is not enough: the first write into an unwritten extent would cost a journal commit.
        // Past the cache where it can be: these pages are never read, and would push out others.
        let zeroes = vec![0u8; ZERO_PIECE_BYTES + DIRECT_ALIGN];
        let start = zeroes.as_ptr().addr().next_multiple_of(DIRECT_ALIGN) - zeroes.as_ptr().addr();
        let direct = self.past_the_cache();
        let mut at = old;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(usize::MAX).min(ZERO_PIECE_BYTES);
            let zeroes = &zeroes[start..start + piece];
            let fits = at.is_multiple_of(DIRECT_ALIGN as u64) && piece.is_multiple_of(DIRECT_ALIGN);
            match direct.as_ref().filter(|_| fits) {
                Some(direct) => direct.write_all_at(zeroes, at)?,
                None => self.file.write_all_at(zeroes, at)?,
            }
            at += piece as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_file_has_another_place_and_a_renamed_one_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, moved, copy) = (dir.path().join("first"), dir.path().join("moved"), dir.path().join("copy"));
        fs::write(&first, "x").expect("written");
        let disk = RealDisk::new();
        let at = disk.place_of(&first).expect("known");
        assert!(at.inode.is_some(), "{at:?}");
        fs::rename(&first, &moved).expect("renamed");
        assert_eq!(disk.place_of(&moved).expect("known").difference(&at), None);
        fs::copy(&moved, &copy).expect("copied");
        assert!(disk.place_of(&copy).expect("known").difference(&at).is_some());
        let silent = Place::default();
        assert_eq!(silent.difference(&at), None, "what is not known differs from nothing");
    }
}
