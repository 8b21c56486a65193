//! The machine's files, with a device in front that really loses what was not synced: a killed process leaves nothing of it behind.
//!
//! **What it is.** Written bytes wait in this process until their file is synced; only then do they reach the file system. SIGKILL alone
//! cannot show a lost sync, since the page cache outlives the process; with this it does. Beside that a disk may be slow or full.
//!
//! **Owns** what waits. **Must never** let a reader of the same process miss it, or reorder it. **Read next**: [`super::node`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ledger_raft::seam::{Disk, DiskFile, Place};

use super::knobs::Turned;

/// Writes of one file that wait for its sync, in order.
type Waiting = Mutex<Vec<(u64, Vec<u8>)>>;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk that forgets, stalls and fills up.
pub struct LossyDisk {
    inner: Arc<dyn Disk>,
    turned: Arc<Turned>,
    /// By path, so that every handle of a file sees the same.
    files: Mutex<BTreeMap<PathBuf, Weak<Waiting>>>,
}

impl LossyDisk {
    /// In front of another disk.
    pub fn new(inner: Arc<dyn Disk>, turned: Arc<Turned>) -> Self {
        Self { inner, turned, files: Mutex::default() }
    }

    fn file(&self, path: &Path, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let mut files = lock(&self.files);
        files.retain(|_, waiting| waiting.strong_count() > 0);
        let waiting = files.get(path).and_then(Weak::upgrade).unwrap_or_default();
        files.insert(path.to_owned(), Arc::downgrade(&waiting));
        Arc::new(LossyFile { inner, waiting, turned: self.turned.clone() })
    }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "a tester filled the disk")
}

impl Disk for LossyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.inner.open(path, create)?))
    }
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.inner.open_direct(path)?))
    }
    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        self.inner.rename(from, to)?;
        if let Some(waiting) = files.remove(from) {
            files.insert(to.to_owned(), waiting);
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.remove(path);
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        if self.turned.full() { Ok(0) } else { self.inner.free_bytes(dir) }
    }
    fn place_of(&self, path: &Path) -> io::Result<Place> {
        self.inner.place_of(path)
    }
    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock_dir(dir)
    }
}

struct LossyFile {
    inner: Arc<dyn DiskFile>,
    waiting: Arc<Waiting>,
    turned: Arc<Turned>,
}

impl DiskFile for LossyFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let waiting = lock(&self.waiting);
        let end = waiting.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0);
        let on_disk = self.inner.len()?.max(offset) - offset;
        if offset + buf.len() as u64 > end.max(offset + on_disk) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = usize::try_from(on_disk).unwrap_or(usize::MAX).min(buf.len());
        self.inner.read_at(offset, &mut buf[..there])?;
        buf[there..].fill(0);
        for (at, bytes) in waiting.iter() {
            let from = offset.max(*at);
            let to = (offset + buf.len() as u64).min(at + bytes.len() as u64);
            if from < to {
                let whence = (from - at) as usize..(to - at) as usize;
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&bytes[whence]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.turned.full() && offset + buf.len() as u64 > self.len()? {
            return Err(full());
        }
        lock(&self.waiting).push((offset, buf.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.turned.stall();
        let mut waiting = lock(&self.waiting);
        for (offset, bytes) in waiting.iter() {
            self.inner.write_at(*offset, bytes)?;
        }
        self.inner.sync()?;
        waiting.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let waiting = lock(&self.waiting);
        let end = waiting.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0);
        Ok(self.inner.len()?.max(end))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.turned.full() && len > self.len()? {
            return Err(full());
        }
        lock(&self.waiting).retain_mut(|(at, bytes)| {
            bytes.truncate(usize::try_from(len.saturating_sub(*at)).unwrap_or(usize::MAX));
            !bytes.is_empty()
        });
        self.inner.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::knobs::Knobs;
    use ledger_raft::disk::RealDisk;

    fn disk() -> LossyDisk {
        LossyDisk::new(Arc::new(RealDisk::buffered()), Arc::default())
    }

    #[test]
    fn what_was_not_synced_is_seen_here_and_lost_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let alive = disk();
        let file = alive.open(&path, true).unwrap();
        file.write_at(0, b"durable").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"D").unwrap();
        file.write_at(7, b" and more").unwrap();
        let mut seen = [0; 16];
        alive.open(&path, false).unwrap().read_at(0, &mut seen).unwrap();
        assert_eq!(&seen, b"Durable and more");
        assert_eq!(file.len().unwrap(), 16);
        assert!(file.read_at(1, &mut seen).is_err(), "past the end");
        drop((file, alive));
        assert_eq!(std::fs::read(&path).unwrap(), b"durable");
    }

    #[test]
    fn a_renamed_file_keeps_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("tmp"), dir.path().join("name"));
        let disk = disk();
        let file = disk.open(&from, true).unwrap();
        file.write_at(0, b"abc").unwrap();
        disk.rename(&from, &to).unwrap();
        let mut seen = [0; 3];
        disk.open(&to, false).unwrap().read_at(0, &mut seen).unwrap();
        assert_eq!(&seen, b"abc");
        file.sync().unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");
    }

    #[test]
    fn a_full_disk_grows_no_file_but_takes_what_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk();
        let file = disk.open(&dir.path().join("log"), true).unwrap();
        file.set_len(4096).unwrap();
        disk.turned.turn(Knobs { full: true, ..Knobs::default() });
        assert_eq!(disk.free_bytes(dir.path()).unwrap(), 0);
        assert_eq!(file.set_len(8192).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.write_at(4096, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
    }
}
