//! The stored cursor: up to here every message was confirmed.
//!
//! **What it is.** One file in a directory that one bridge has to itself: a line of JSON behind its checksum, stamped with the cluster and
//! the exchange, replaced as a whole (temporary name, fsync, rename, fsync of the directory).
//! **Owns** that file and the directory's lock. **Must never** take a stranger's cursor, or guess when the file is damaged.
//! **Read next**: [`crate::bridge`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use client_sdk::{Cursor, LedgerTime};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::event::Counted;
use crate::limits::CURSOR_FILE_BYTES_MAX;
use crate::window::Checkpoint;

const FILE: &str = "cursor";
const TEMPORARY: &str = "cursor.tmp";
const LOCK: &str = "LOCK";
const FORMAT: u32 = 1;

/// Where a cursor is kept.
#[async_trait]
pub trait CursorStore: Send + Sync {
    /// Once this has returned, a crash does not lose the checkpoint.
    async fn put(&self, checkpoint: Checkpoint) -> Result<(), CursorError>;
}

/// Whose cursor it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The cluster's id, hexadecimal.
    pub cluster: String,
    /// Where its events go.
    pub exchange: String,
}

/// Why a cursor cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// Another bridge is at it.
    #[error("{} is in use by another bridge; hint: give each bridge a data_dir of its own", .0.display())]
    InUse(PathBuf),
    /// It is of another cluster or exchange.
    #[error(
        "{} holds the cursor of cluster {} for exchange {:?}, this bridge is of cluster {} for {:?}; hint: give it a data_dir of its own, or \
         drop that cursor with `event-bridge reset --yes`",
        path.display(), theirs.cluster, theirs.exchange, ours.cluster, ours.exchange
    )]
    Stranger {
        /// The file.
        path: PathBuf,
        /// What it says.
        theirs: Stamp,
        /// What it should say.
        ours: Stamp,
    },
    /// Not what this build or any other wrote.
    #[error(
        "{} is damaged ({why}); hint: restore it from a copy, or drop it with `event-bridge reset --yes` and choose where to begin with --from",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: u32,
    #[serde(flatten)]
    stamp: Stamp,
    cursor: String,
    counted: Counted,
    through_ms: u64,
}

/// A directory that is locked for this bridge.
pub struct CursorDir {
    path: PathBuf,
    _lock: File,
}

impl CursorDir {
    /// Makes the directory if there is none, and locks it.
    ///
    /// # Errors
    /// [`CursorError::InUse`], or the disk's.
    pub fn open(path: &Path) -> Result<Self, CursorError> {
        let io = |source| CursorError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(io)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|why| match why {
            rustix::io::Errno::WOULDBLOCK => CursorError::InUse(path.to_owned()),
            other => io(other.into()),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Drops the stored cursor; whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget(&self) -> Result<bool, CursorError> {
        let path = self.path.join(FILE);
        match fs::remove_file(&path) {
            Ok(()) => self.sync().map(|()| true),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(CursorError::Io { path, source }),
        }
    }

    /// The stored checkpoint, if there is one, and what stores the next.
    ///
    /// # Errors
    /// [`CursorError`]: it is a stranger's, or damaged.
    pub fn read(self, stamp: Stamp) -> Result<(CursorFile, Option<Checkpoint>), CursorError> {
        let path = self.path.join(FILE);
        let stored = match File::open(&path) {
            Ok(file) => Some(decode(file, &path, &stamp)?),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(CursorError::Io { path, source }),
        };
        Ok((CursorFile { inner: Arc::new(Inner { dir: self, stamp }) }, stored))
    }

    fn sync(&self) -> Result<(), CursorError> {
        let io = |source| CursorError::Io { path: self.path.clone(), source };
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(io)
    }
}

fn decode(file: File, path: &Path, ours: &Stamp) -> Result<Checkpoint, CursorError> {
    let damaged = |why: &str| CursorError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let mut text = String::new();
    let read = file.take(CURSOR_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| CursorError::Io { path: path.to_owned(), source })?;
    let (sum, json) = text.trim_end().split_once(' ').ok_or_else(|| damaged("it has no checksum"))?;
    if sum != checksum(json) {
        return Err(damaged("its checksum is wrong"));
    }
    let line: Line = serde_json::from_str(json).map_err(|why| damaged(&why.to_string()))?;
    if line.format != FORMAT {
        return Err(damaged(&format!("its format is {}, this build knows {FORMAT}", line.format)));
    }
    if line.stamp != *ours {
        return Err(CursorError::Stranger { path: path.to_owned(), theirs: line.stamp, ours: ours.clone() });
    }
    let cursor = bytes_of(&line.cursor).ok_or_else(|| damaged("its cursor is not hexadecimal"))?;
    let (cursor, through) = (Cursor::from_bytes(cursor), LedgerTime(line.through_ms));
    Ok(Checkpoint { cursor, counted: line.counted, through })
}

fn checksum(text: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

struct Inner {
    dir: CursorDir,
    stamp: Stamp,
}

/// Stores checkpoints in the file.
pub struct CursorFile {
    inner: Arc<Inner>,
}

impl Inner {
    fn write(&self, checkpoint: Checkpoint) -> Result<(), CursorError> {
        let line = Line {
            format: FORMAT,
            stamp: self.stamp.clone(),
            cursor: hex(checkpoint.cursor.as_bytes()),
            counted: checkpoint.counted,
            through_ms: checkpoint.through.0,
        };
        let (path, temporary) = (self.dir.path.join(FILE), self.dir.path.join(TEMPORARY));
        let io = |source: io::Error| CursorError::Io { path: path.clone(), source };
        let json = serde_json::to_string(&line).map_err(|why| io(why.into()))?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(io)?;
        file.write_all(format!("{} {json}\n", checksum(&json)).as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&temporary, &path).map_err(io)?;
        self.dir.sync()
    }
}

#[async_trait]
impl CursorStore for CursorFile {
    async fn put(&self, checkpoint: Checkpoint) -> Result<(), CursorError> {
        let inner = self.inner.clone();
        let written = tokio::task::spawn_blocking(move || inner.write(checkpoint)).await;
        written.map_err(|why| CursorError::Io { path: self.inner.dir.path.clone(), source: io::Error::other(why) })?
    }
}

#[cfg(test)]
mod tests {
    use client_sdk::Position;

    use super::*;

    fn stamp() -> Stamp {
        Stamp { cluster: "00ff".into(), exchange: "holdfast".into() }
    }

    fn checkpoint(n: u8) -> Checkpoint {
        let mut counted = Counted::default();
        counted.nth(Position { shard: 3, index: u64::from(n), ..Position::default() });
        Checkpoint { cursor: Cursor::from_bytes(vec![n, 0, 255]), counted, through: LedgerTime(u64::from(n)) }
    }

    fn read(dir: &Path, stamp: Stamp) -> Result<Option<Checkpoint>, CursorError> {
        CursorDir::open(dir)?.read(stamp).map(|(_, stored)| stored)
    }

    #[tokio::test]
    async fn what_was_stored_last_is_read_by_its_own_bridge_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, none) = CursorDir::open(dir.path()).expect("locked").read(stamp()).expect("readable");
        assert_eq!(none, None);
        for n in 1..=3 {
            file.put(checkpoint(n)).await.expect("stored");
        }
        let in_use = CursorDir::open(dir.path()).err().expect("the first still has it");
        assert!(matches!(in_use, CursorError::InUse(_)), "{in_use}");
        drop(file);
        assert_eq!(read(dir.path(), stamp()).expect("readable"), Some(checkpoint(3)));
        for other in [Stamp { cluster: "00fe".into(), ..stamp() }, Stamp { exchange: "else".into(), ..stamp() }] {
            let stranger = read(dir.path(), other).expect_err("a stranger's");
            assert!(matches!(stranger, CursorError::Stranger { .. }), "{stranger}");
        }
        assert!(CursorDir::open(dir.path()).expect("free").forget().expect("removable"));
        assert_eq!(read(dir.path(), stamp()).expect("readable"), None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_whatever_bit_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, _) = CursorDir::open(dir.path()).expect("locked").read(stamp()).expect("readable");
        file.put(checkpoint(7)).await.expect("stored");
        drop(file);
        let path = dir.path().join(FILE);
        let good = fs::read(&path).expect("there");
        // The line feed at the end may be any white space.
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            fs::write(&path, &bad).expect("written");
            assert!(read(dir.path(), stamp()).is_err(), "byte {at} was changed");
        }
        fs::write(&path, &good[..good.len() / 2]).expect("written");
        assert!(matches!(read(dir.path(), stamp()), Err(CursorError::Damaged { .. })));
        fs::write(&path, &good).expect("written");
        assert_eq!(read(dir.path(), stamp()).expect("readable"), Some(checkpoint(7)));
    }
}
