//! The seams' real sides: TCP, the system's clock and its randomness.
//!
//! **Owns** nothing. **Must never** be named outside of `main` and tests: everything else takes [`Seams`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::limits::LISTEN_BACKLOG;
use crate::seam::{BoxIo, Disk, Net, NetListener, Random, Seams, WallClock};

/// TCP without delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let listener =
            bind(addr).await.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))?;
        Ok(Box::new(TcpAccept(listener)))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that dials on the real network")]
    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Listens on the first address of a name that can be, with room for many that come at once.
async fn bind(addr: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "it is no address");
    for address in tokio::net::lookup_host(addr).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // What an earlier process left in TIME_WAIT is no one's any more.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(LISTEN_BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the 1,024 that tokio asks for; as many as the system lets wait, if those are fewer.
    fn burst() -> usize {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        allowed.trim().parse().unwrap_or(128_usize).min(1_500)
    }

    #[tokio::test]
    async fn burst_of_connections_waits_to_be_accepted() {
        let listener = TcpNet.listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let mut open = Vec::new();
        for n in 0..burst() {
            // One for which there is no room is tried again and again, and nobody accepts.
            let connected = tokio::time::timeout(std::time::Duration::from_secs(30), TcpNet.connect(&address)).await;
            open.push(connected.unwrap_or_else(|_| panic!("connection {n} waits")).expect("connected"));
        }
    }

    #[tokio::test]
    async fn address_that_is_taken_or_none_is_refused_with_its_name() {
        let listener = TcpNet.listen("localhost:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        for address in [address.as_str(), "nowhere"] {
            let error = TcpNet.listen(address).await.err().expect("refused").to_string();
            assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
        }
    }
}
