//! Snapshot files: written beside, checked chunk by chunk, renamed into place, the newest two kept.
//!
//! **Owns** the file format (see `docs/storage-format.md`), names, and which file is the newest good one.
//! **Must never** install bytes whose checksum was not read, or leave a file that is half-written, or that nobody read back, under a final
//! name: what has one may be relied on, and the log behind it purged.
//! **Read next**: [`crate::machine`].

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::api::GroupId;
use crate::codec::{self, malformed};
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOTS_KEPT};
use crate::seam::{Disk, DiskFile};
use crate::transport::link::lock;
use crate::transport::network::Offer;
use crate::types::{LogId, StoredMembership};

const MAGIC: &[u8; 8] = b"HFSNAP\r\n";
const END_MAGIC: &[u8; 8] = b"HFSNEND\n";
/// Version of the file format.
const FORMAT: u16 = 1;
/// Longest header: members and their addresses.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Before every chunk: length 4, crc32c 4.
const CHUNK_HEAD_BYTES: usize = 8;
/// After the last chunk: magic 8, bytes 8, chunks 8, crc32c 4.
const END_BYTES: usize = 28;
/// The file is synced that often while it is written, so that one great flush does not stall the log's.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: u64,
    pub(crate) group: u32,
    pub(crate) last: LogId,
    /// Largest stamp at or before `last`.
    pub(crate) stamp_ms: u64,
    pub(crate) membership: StoredMembership,
}

impl SnapshotHead {
    /// magic 8, format 2, zero 2, body length 4, body, crc32c 4 of all before.
    fn to_bytes(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_slice(&self.cluster);
        body.put_u64_le(self.incarnation);
        body.put_u32_le(self.group);
        body.put_u32_le(0);
        codec::put_log_id(&mut body, Some(&self.last));
        body.put_u64_le(self.stamp_ms);
        codec::put_stored_membership(&mut body, &self.membership);
        let mut b = BytesMut::new();
        b.put_slice(MAGIC);
        b.put_u16_le(FORMAT);
        b.put_u16_le(0);
        b.put_u32_le(body.len() as u32);
        b.put_slice(&body);
        b.put_u32_le(crc32c::crc32c(&b));
        b.freeze()
    }

    /// Reads a header and says where the first chunk begins.
    fn read(file: &dyn DiskFile) -> io::Result<(Self, u64)> {
        let mut fixed = [0u8; 16];
        file.read_at(0, &mut fixed)?;
        let format = u16::from_le_bytes([fixed[8], fixed[9]]);
        let len = u32::from_le_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]) as usize;
        if &fixed[..8] != MAGIC || len > HEAD_BYTES_MAX {
            return Err(malformed("snapshot header"));
        }
        if format != FORMAT {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("snapshot format {format} is not known here"),
            ));
        }
        let mut whole = vec![0u8; 16 + len + 4];
        file.read_at(0, &mut whole)?;
        let (bytes, crc) = whole.split_at(16 + len);
        if crc32c::crc32c(bytes).to_le_bytes() != crc {
            return Err(malformed("snapshot header checksum"));
        }
        let mut b = &bytes[16..];
        if b.len() < 32 {
            return Err(malformed("snapshot header"));
        }
        let mut cluster = [0u8; 16];
        b.copy_to_slice(&mut cluster);
        let incarnation = b.get_u64_le();
        let group = b.get_u32_le();
        b.advance(4);
        let last = codec::take_log_id(&mut b)?.ok_or_else(|| malformed("snapshot header"))?;
        if b.len() < 8 {
            return Err(malformed("snapshot header"));
        }
        let stamp_ms = codec::checked_stamp(b.get_u64_le())?;
        let membership = codec::take_stored_membership(&mut b)?;
        if membership.log_id().as_ref().is_some_and(|at| *at > last) {
            return Err(malformed("snapshot header: its members are of a later position"));
        }
        Ok((Self { cluster, incarnation, group, last, stamp_ms, membership }, whole.len() as u64))
    }
}

/// An open snapshot file; it stays readable after it was superseded.
pub(crate) struct SnapshotFile {
    pub(crate) head: SnapshotHead,
    pub(crate) bytes: u64,
    path: PathBuf,
    body_at: u64,
    file: Arc<dyn DiskFile>,
    /// Of a file that was received and is not in place yet.
    temporary: Option<TemporaryName>,
}

/// A name for a file on its way; removed with the last holder unless the file was put in place.
struct TemporaryName {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    placed: AtomicBool,
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if !self.placed.load(Ordering::Relaxed)
            && let Err(e) = self.disk.remove(&self.path)
        {
            tracing::debug!(file = %self.path.display(), error = %e, "a temporary snapshot file stays until the next start");
        }
    }
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.bytes)
    }
}

impl SnapshotFile {
    /// Opens a file and reads every checksum in it.
    fn open(disk: &dyn Disk, path: &Path, cluster: &[u8; 16], group: u32) -> io::Result<Self> {
        let this = Self::open_unchecked(disk, path, cluster, group)?;
        this.body().drain()?;
        Ok(this)
    }

    /// Opens a file and reads its head.
    fn open_unchecked(disk: &dyn Disk, path: &Path, cluster: &[u8; 16], group: u32) -> io::Result<Self> {
        let file = disk.open(path, false)?;
        let (head, body_at) = SnapshotHead::read(file.as_ref())?;
        if head.cluster != *cluster || head.group != group {
            return Err(malformed("snapshot: it belongs to another cluster or group"));
        }
        let bytes = file.len()?;
        Ok(Self { head, bytes, path: path.to_owned(), body_at, file, temporary: None })
    }

    /// The state machine's bytes; an error at the first chunk that is not what was written, none after the trailer agreed.
    pub(crate) fn body(&self) -> SnapshotBody<'_> {
        SnapshotBody {
            file: self.file.as_ref(),
            at: self.body_at,
            chunk: Vec::new(),
            taken: 0,
            total: 0,
            chunks: 0,
            end: false,
        }
    }

    /// A range of the raw file, for a peer.
    pub(crate) fn range(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if offset >= self.bytes {
            return Err(malformed("snapshot range"));
        }
        let len = (len.min(SNAPSHOT_CHUNK_BYTES) as u64).min(self.bytes - offset) as usize;
        let mut buf = vec![0u8; len];
        self.file.read_at(offset, &mut buf)?;
        Ok(buf)
    }
}

/// Reads the chunks of a snapshot.
pub(crate) struct SnapshotBody<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    chunk: Vec<u8>,
    taken: usize,
    total: u64,
    chunks: u64,
    end: bool,
}

impl SnapshotBody<'_> {
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut head = [0u8; CHUNK_HEAD_BYTES];
        self.file.read_at(self.at, &mut head)?;
        self.at += CHUNK_HEAD_BYTES as u64;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > SNAPSHOT_CHUNK_BYTES {
            return Err(malformed("snapshot chunk length"));
        }
        if len == 0 {
            return self.read_end();
        }
        self.chunk.resize(len, 0);
        self.file.read_at(self.at, &mut self.chunk)?;
        if crc32c::crc32c(&self.chunk) != crc {
            return Err(malformed("snapshot chunk checksum"));
        }
        self.at += len as u64;
        self.total += len as u64;
        self.chunks += 1;
        self.taken = 0;
        Ok(())
    }

    /// Reads the rest, so that all checksums are checked.
    fn drain(&mut self) -> io::Result<()> {
        let mut sink = [0u8; 16 << 10];
        while self.read(&mut sink)? > 0 {}
        Ok(())
    }

    fn read_end(&mut self) -> io::Result<()> {
        let mut end = [0u8; END_BYTES];
        self.file.read_at(self.at, &mut end)?;
        if end != end_bytes(self.total, self.chunks) {
            return Err(malformed("snapshot trailer"));
        }
        self.end = true;
        Ok(())
    }
}

impl Read for SnapshotBody<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() && !self.end {
            self.chunk.clear();
            self.taken = 0;
            self.next_chunk()?;
        }
        let n = buf.len().min(self.chunk.len() - self.taken);
        buf[..n].copy_from_slice(&self.chunk[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

fn end_bytes(total: u64, chunks: u64) -> [u8; END_BYTES] {
    let mut b = [0u8; END_BYTES];
    b[..8].copy_from_slice(END_MAGIC);
    b[8..16].copy_from_slice(&total.to_le_bytes());
    b[16..24].copy_from_slice(&chunks.to_le_bytes());
    let crc = crc32c::crc32c(&b[..24]);
    b[24..].copy_from_slice(&crc.to_le_bytes());
    b
}

/// Cuts what a state machine writes into checksummed chunks.
struct ChunkWriter<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    synced: u64,
    chunk: Vec<u8>,
    total: u64,
    chunks: u64,
}

impl ChunkWriter<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        if self.at - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync()?;
            self.synced = self.at;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.len() == CHUNK_HEAD_BYTES {
            return Ok(());
        }
        let len = self.chunk.len() - CHUNK_HEAD_BYTES;
        let crc = crc32c::crc32c(&self.chunk[CHUNK_HEAD_BYTES..]);
        self.chunk[0..4].copy_from_slice(&(len as u32).to_le_bytes());
        self.chunk[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut chunk = std::mem::take(&mut self.chunk);
        self.put(&chunk)?;
        chunk.truncate(CHUNK_HEAD_BYTES);
        self.chunk = chunk;
        self.total += len as u64;
        self.chunks += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.end_chunk()?;
        self.put(&[0u8; CHUNK_HEAD_BYTES])?;
        self.put(&end_bytes(self.total, self.chunks))?;
        self.file.set_len(self.at)?;
        self.file.sync()
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = SNAPSHOT_CHUNK_BYTES + CHUNK_HEAD_BYTES - self.chunk.len();
        let n = room.min(buf.len());
        self.chunk.extend_from_slice(&buf[..n]);
        if n == room {
            self.end_chunk()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether bytes are not what was written: another copy must serve. Any other error of a disk says
/// nothing of the file, and may pass.
pub(crate) fn is_rot(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// The snapshots of one group.
pub(crate) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cluster: [u8; 16],
    group: u32,
    /// Oldest first; every one was checked when it was opened.
    files: Mutex<Vec<Arc<SnapshotFile>>>,
    /// Held while one is written.
    building: Mutex<()>,
    /// Whether nothing may be put in place any more; held while something is.
    retired: Mutex<bool>,
    failure: Mutex<Option<String>>,
    /// Why a file that lies here cannot be used by this build.
    unsupported: Option<String>,
    offers: Mutex<BTreeMap<u64, (u64, Arc<SnapshotFile>)>>,
    /// The number of the next temporary name: a writer that was given up may go on for a while, and must not write into another's file.
    temporary_names: Arc<AtomicU64>,
}

/// A snapshot that a peer may read; withdrawn on drop.
pub(crate) struct OpenOffer {
    store: Arc<SnapshotStore>,
    offer: Offer,
}

impl OpenOffer {
    pub(crate) fn put(&self, b: &mut BytesMut) {
        self.offer.put(b);
    }
}

impl Drop for OpenOffer {
    fn drop(&mut self) {
        let mut offers = lock(&self.store.offers);
        if let Some((n, _)) = offers.get_mut(&self.offer.last.index) {
            *n -= 1;
            if *n == 0 {
                offers.remove(&self.offer.last.index);
            }
        }
    }
}

fn final_name(group: u32, last: &LogId) -> String {
    format!("g{group}-{}-{}.snap", last.leader_id.term, last.index)
}

impl SnapshotStore {
    /// Opens and checks what is there. Half-written files are removed, rotten ones set aside as
    /// `.rotten` and named. One of a format that this build does not know stays where it is, for
    /// the build that does.
    ///
    /// # Errors
    /// Of the disk, which say nothing of the files: to be tried again.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, cluster: [u8; 16], group: GroupId) -> io::Result<Self> {
        let group = group.0;
        let prefix = format!("g{group}-");
        let (mut files, mut unsupported, mut changed) = (Vec::new(), None, false);
        for entry in disk.list(dir)? {
            let Some(name) = entry.file_name().and_then(|n| n.to_str()).filter(|n| n.starts_with(&prefix)) else {
                continue;
            };
            let path = dir.join(name);
            if name.ends_with(".tmp") {
                disk.remove(&path)?;
                changed = true;
            } else if name.ends_with(".snap") {
                match SnapshotFile::open(disk.as_ref(), &path, &cluster, group) {
                    Ok(f) => files.push(Arc::new(f)),
                    Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                        unsupported = Some(format!("{}: {e}", path.display()));
                    }
                    Err(e) if !is_rot(e.kind()) => {
                        return Err(io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())));
                    }
                    Err(e) => {
                        tracing::error!(file = %path.display(), error = %e, "snapshot is rotten; an older one or a peer must serve");
                        disk.rename(&path, &path.with_extension("rotten"))?;
                        changed = true;
                    }
                }
            }
        }
        if changed {
            disk.sync_dir(dir)?;
        }
        files.sort_by_key(|f| (f.head.last.index, f.head.last.leader_id.term));
        let this = Self {
            disk,
            dir: dir.to_owned(),
            cluster,
            group,
            files: Mutex::new(files),
            building: Mutex::default(),
            retired: Mutex::default(),
            failure: Mutex::default(),
            unsupported,
            offers: Mutex::default(),
            temporary_names: Arc::default(),
        };
        this.drop_old()?;
        Ok(this)
    }

    /// Takes temporary names from a counter that others use, too: stores of one group before and after a reinstall share a directory.
    pub(crate) fn named_by(self, temporary_names: Arc<AtomicU64>) -> Self {
        Self { temporary_names, ..self }
    }

    fn temporary(&self, what: &str) -> TemporaryName {
        let number = self.temporary_names.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("g{}-{what}-{number}.tmp", self.group));
        TemporaryName { disk: self.disk.clone(), path, placed: AtomicBool::new(false) }
    }

    /// Why a file that lies here cannot be used by this build, if there is one.
    pub(crate) fn unsupported(&self) -> Option<&str> {
        self.unsupported.as_deref()
    }

    pub(crate) fn newest(&self) -> Option<Arc<SnapshotFile>> {
        lock(&self.files).last().cloned()
    }

    /// Index up to which the log may go: everything the oldest kept snapshot holds, so that it can stand in for the newest.
    pub(crate) fn covered(&self) -> u64 {
        lock(&self.files).first().map_or(0, |f| f.head.last.index)
    }

    /// A file at exactly that log position, kept or on offer.
    pub(crate) fn find(&self, index: u64) -> Option<Arc<SnapshotFile>> {
        let offered = lock(&self.offers).get(&index).map(|(_, f)| f.clone());
        offered.or_else(|| lock(&self.files).iter().find(|f| f.head.last.index == index).cloned())
    }

    pub(crate) fn offer(self: &Arc<Self>, file: Arc<SnapshotFile>) -> OpenOffer {
        let offer = Offer { last: file.head.last, bytes: file.bytes };
        lock(&self.offers).entry(offer.last.index).or_insert((0, file)).0 += 1;
        OpenOffer { store: self.clone(), offer }
    }

    /// Whether one is being written.
    pub(crate) fn is_building(&self) -> bool {
        matches!(self.building.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Why the last one was not built.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    pub(crate) fn set_failure(&self, why: Option<String>) {
        *lock(&self.failure) = why;
    }

    /// Writes a snapshot and reads it back; when this returns it is durable under its final name, and only then is it used. One that
    /// `check` cannot read is set aside as `.unreadable`; on an error of the disk it goes. Blocks.
    pub(crate) fn create(
        &self,
        head: &SnapshotHead,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        check: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    ) -> io::Result<Arc<SnapshotFile>> {
        let _building = lock(&self.building);
        let tmp = self.temporary("build");
        let file = self.disk.open(&tmp.path, true)?;
        file.set_len(0)?;
        let mut w = ChunkWriter {
            file: file.as_ref(),
            at: 0,
            synced: 0,
            chunk: Vec::with_capacity(SNAPSHOT_CHUNK_BYTES + CHUNK_HEAD_BYTES),
            total: 0,
            chunks: 0,
        };
        w.put(&head.to_bytes())?;
        w.chunk.resize(CHUNK_HEAD_BYTES, 0);
        fill(&mut w)?;
        w.finish()?;
        drop(file);
        if let Err(e) = self.read_back(&tmp.path, check) {
            if is_rot(e.kind()) || e.kind() == io::ErrorKind::Unsupported {
                self.disk.rename(&tmp.path, &self.dir.join(format!("g{}-build.unreadable", self.group)))?;
                tmp.placed.store(true, Ordering::Relaxed);
            }
            return Err(io::Error::new(e.kind(), format!("the snapshot was written but does not read back: {e}")));
        }
        let file = self.put_in_place(&tmp, &head.last)?;
        self.drop_old()?;
        Ok(file)
    }

    fn read_back(&self, path: &Path, check: impl FnOnce(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
        let file = SnapshotFile::open_unchecked(self.disk.as_ref(), path, &self.cluster, self.group)?;
        let mut body = file.body();
        check(&mut body)?;
        // What the checker left over must at least be what was written.
        body.drain()
    }

    /// A file to receive a peer's snapshot into. Blocks.
    pub(crate) fn receive(&self, offer: &Offer) -> io::Result<Incoming> {
        let tmp = self.temporary("recv");
        let file = self.disk.open(&tmp.path, true)?;
        file.set_len(0)?;
        Ok(Incoming { tmp, file, offer: offer.clone() })
    }

    /// Checks what was received. It is durable, but under no name that a restart would find: [`Self::place`] gives it one. Blocks.
    pub(crate) fn received(&self, incoming: Incoming) -> io::Result<Arc<SnapshotFile>> {
        incoming.file.sync()?;
        let checked = SnapshotFile::open(self.disk.as_ref(), &incoming.tmp.path, &self.cluster, self.group)?;
        if checked.head.last != incoming.offer.last {
            return Err(malformed("snapshot: not the one that was offered"));
        }
        Ok(Arc::new(SnapshotFile { temporary: Some(incoming.tmp), ..checked }))
    }

    /// Puts a snapshot in place; when this returns it is durable under its final name. One that was not received here is copied. Blocks.
    pub(crate) fn place(&self, file: &SnapshotFile) -> io::Result<Arc<SnapshotFile>> {
        match &file.temporary {
            Some(tmp) => {
                let placed = self.put_in_place(tmp, &file.head.last)?;
                self.drop_old()?;
                Ok(placed)
            }
            // It has just been installed, so it can be read.
            None => self.create(&file.head, |w| io::copy(&mut file.body(), w).map(drop), |_| Ok(())),
        }
    }

    fn put_in_place(&self, tmp: &TemporaryName, last: &LogId) -> io::Result<Arc<SnapshotFile>> {
        let retired = lock(&self.retired);
        if *retired {
            return Err(io::Error::other("the replica is over: a snapshot of its state is not put in place"));
        }
        let path = self.dir.join(final_name(self.group, last));
        self.disk.rename(&tmp.path, &path)?;
        tmp.placed.store(true, Ordering::Relaxed);
        self.disk.sync_dir(&self.dir)?;
        let file = Arc::new(SnapshotFile::open(self.disk.as_ref(), &path, &self.cluster, self.group)?);
        {
            let mut files = lock(&self.files);
            files.retain(|f| f.path != path);
            files.push(file.clone());
            files.sort_by_key(|f| (f.head.last.index, f.head.last.leader_id.term));
        }
        Ok(file)
    }

    /// From when this returns, no snapshot is put in place by this store: those of a state that was
    /// discarded must not appear among those of the next. One that is being built may go on, in
    /// vain. Blocks.
    pub(crate) fn retire(&self) -> io::Result<()> {
        *lock(&self.retired) = true;
        Ok(())
    }

    fn drop_old(&self) -> io::Result<()> {
        let old: Vec<_> = {
            let mut files = lock(&self.files);
            let n = files.len().saturating_sub(SNAPSHOTS_KEPT);
            files.drain(..n).collect()
        };
        for f in &old {
            self.disk.remove(&f.path)?;
        }
        if old.is_empty() { Ok(()) } else { self.disk.sync_dir(&self.dir) }
    }

    /// A snapshot that cannot be installed is not used again; it stays as `.unreadable` for a look.
    pub(crate) fn set_aside(&self, file: &SnapshotFile) -> io::Result<()> {
        let known = {
            let mut files = lock(&self.files);
            let before = files.len();
            files.retain(|f| f.path != file.path);
            before != files.len()
        };
        if !known {
            return Ok(());
        }
        tracing::error!(file = %file.path.display(), "a snapshot cannot be installed; an older one or a peer must serve");
        self.disk.rename(&file.path, &file.path.with_extension("unreadable"))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Puts a snapshot that was received in place, and removes every other one, newer ones too:
    /// their state is not to be trusted any more. Blocks.
    pub(crate) fn place_only(&self, file: &SnapshotFile) -> io::Result<()> {
        let Some(tmp) = &file.temporary else { return Err(malformed("snapshot: it was not received here")) };
        let keep = self.put_in_place(tmp, &file.head.last)?;
        let old: Vec<_> = {
            let mut files = lock(&self.files);
            let (kept, old) = files.drain(..).partition(|f| Arc::ptr_eq(f, &keep));
            *files = kept;
            old
        };
        for f in &old {
            self.disk.remove(&f.path)?;
        }
        self.disk.sync_dir(&self.dir)
    }
}

/// A peer's snapshot on its way in.
pub(crate) struct Incoming {
    tmp: TemporaryName,
    file: Arc<dyn DiskFile>,
    pub(crate) offer: Offer,
}

impl Incoming {
    pub(crate) fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)?;
        if offset / SYNC_EVERY_BYTES != (offset + bytes.len() as u64) / SYNC_EVERY_BYTES {
            self.file.sync()?;
        }
        Ok(())
    }
}

/// Runs disk work beside the async threads; inline under simulation, where everything is one thread.
pub(crate) async fn blocking<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if disk.inline() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(test)]
mod tests;
