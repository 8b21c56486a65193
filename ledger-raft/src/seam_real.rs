//! The seams' real sides: TCP, the system's clock and its randomness.
//!
//! **Owns** nothing. **Must never** be named outside of `main` and tests: everything else takes [`Seams`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};

use crate::seam::{BoxIo, Disk, Net, NetListener, Random, Seams, WallClock};

/// TCP without delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that listens on the real network")]
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))?;
        Ok(Box::new(TcpAccept(listener)))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that dials on the real network")]
    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

struct TcpAccept(TcpListener);

#[async_trait]
impl NetListener for TcpAccept {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn since_boot_ms(&self) -> Option<u64> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some((time.tv_sec as u64).saturating_mul(1_000).saturating_add(time.tv_nsec as u64 / 1_000_000))
    }
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws the system's randomness")]
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

impl Seams {
    /// Everything real: TCP, the system's clock and randomness, the machine's files.
    pub fn real() -> Self {
        Self::with_disk(Arc::new(crate::disk::RealDisk::new()))
    }

    /// The real network, clock and randomness, with this disk.
    pub fn with_disk(disk: Arc<dyn Disk>) -> Self {
        Self { net: Arc::new(TcpNet), clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), disk }
    }
}
