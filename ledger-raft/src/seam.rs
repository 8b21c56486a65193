//! The seams: everything that asks the world, with a simulated twin for each.
//!
//! **Owns** the traits for network, wall clock, randomness and disk, and their real implementations' names.
//! **Must never** hold a decision. Monotonic time and timers are `tokio::time`, which simulation pauses.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream of any make.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}
/// A boxed stream.
pub type BoxIo = Box<dyn Io>;

/// The network: real TCP, or a simulated one.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Listens on `host:port`.
    ///
    /// # Errors
    /// As the system says, naming the address.
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>>;
    /// Connects to `host:port`; DNS names are resolved anew each time.
    ///
    /// # Errors
    /// As the system says.
    async fn connect(&self, addr: &str) -> io::Result<BoxIo>;
}

/// A listening socket.
#[async_trait]
pub trait NetListener: Send + 'static {
    /// The next connection and its peer's address in text.
    ///
    /// # Errors
    /// As the system says; the caller goes on after a pause.
    async fn accept(&mut self) -> io::Result<(BoxIo, std::net::SocketAddr)>;
    /// Where it really listens (port 0 resolved).
    ///
    /// # Errors
    /// As the system says.
    fn local_addr(&self) -> io::Result<std::net::SocketAddr>;
}

/// The wall clock, read only by the leader's clock quorum and for display.
pub trait WallClock: Send + Sync + 'static {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;

    /// Milliseconds since some moment before this process began, those included in which the machine was suspended. None where
    /// that is not known: elapsed time counts then.
    fn since_boot_ms(&self) -> Option<u64> {
        None
    }
}

/// Random numbers, seeded in simulation.
pub trait Random: Send + Sync + 'static {
    /// The next 64 bits.
    fn next_u64(&self) -> u64;
}

/// Where a file lies, as far as the system says. A copy of the file lies elsewhere; a renamed file
/// stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its number in the file system.
    pub inode: Option<u64>,
    /// When it was created, in nanoseconds since 1970.
    pub born_ns: Option<u64>,
    /// A hash of the file system's UUID.
    pub file_system: Option<[u8; 16]>,
}

impl Place {
    /// What differs between two places, in words. What one of them does not know differs from
    /// nothing. A copy is always created anew, so that the inode matters only where the system does
    /// not say when: some network file systems number their files anew at each mount.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        fn differs<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.zip(b).is_some_and(|(a, b)| a != b)
        }
        match () {
            () if differs(self.file_system, other.file_system) => Some("another file system"),
            () if differs(self.born_ns, other.born_ns) => Some("another time of creation"),
            () if self.born_ns.and(other.born_ns).is_some() => None,
            () if differs(self.inode, other.inode) => Some("another inode"),
            () => None,
        }
    }
}

/// A disk: real files, or a simulated one that loses and tears what was not synced.
///
/// Calls block; the log's writer runs them on its own thread, or inline under simulation.
pub trait Disk: Send + Sync + 'static {
    /// Opens an existing file for reading and writing, or creates it when `create` is set.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for the log's writer: whole aligned 4 KiB sectors, past the page cache where the file system
    /// can. Same meaning as [`Disk::open`], so that is what it is unless the disk knows better.
    ///
    /// # Errors
    /// As the system says.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, false)
    }
    /// Whether a path exists.
    fn exists(&self, path: &Path) -> bool;
    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a directory and its parents.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames; durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// As the system says; fatal for the process, never retried.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Free bytes where `dir` lives.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Where a file lies.
    ///
    /// # Errors
    /// As the system says.
    fn place_of(&self, path: &Path) -> io::Result<Place>;
    /// Takes an exclusive lock on the directory for as long as the guard lives.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it.
    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// How long a sync takes under simulation: the writer waits that long before it reports durability. Zero on real disks.
    fn simulated_latency(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    /// Whether the log's writer must run inline (simulation) instead of on its own thread.
    fn inline(&self) -> bool {
        false
    }
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file, not a collection")]
pub trait DiskFile: Send + Sync + 'static {
    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, otherwise as the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf`; not durable before [`DiskFile::sync`]. The log writes whole 4 KiB sectors.
    ///
    /// # Errors
    /// As the system says; `StorageFull` when out of space.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    ///
    /// # Errors
    /// Fatal for the process, never retried.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;
    /// Extends with zeroes that are really allocated, or cuts.
    ///
    /// # Errors
    /// As the system says; `StorageFull` when out of space.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// All seams of one node.
#[derive(Clone)]
pub struct Seams {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Random numbers.
    pub random: Arc<dyn Random>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}
