//! The simulated network: the node's `Net` seam over turmoil's TCP.
//!
//! **Owns** the adapter, nothing else; latency, loss and partitions are turmoil's. **Must never** reach a real socket.
//! **Read next**: [`crate::world`].

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use ledger_raft::seam::{BoxIo, Net, NetListener};

/// Sockets between simulated hosts.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimNet;

struct SimListener(turmoil::net::TcpListener);

#[async_trait]
impl Net for SimNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let addr: SocketAddr =
            addr.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{addr}: {e}")))?;
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(addr).await?)))
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        Ok(Box::new(turmoil::net::TcpStream::connect(addr).await?))
    }
}

#[async_trait]
impl NetListener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
