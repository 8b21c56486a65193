//! Connections out of the network seam, through the port's gate, as tonic wants them.
//!
//! **Owns** the caller's address and place on their way to [`crate::access`] and [`super::meter`].
//! **Must never** end the server over one failed accept. **Read next**: [`super::meter`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use ledger_raft::seam::{BoxIo, NetListener};
use service::guarded::GuardedIo;
use service::{Accept, Place, PortGate};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Who is at the other end; an extension of every request.
#[derive(Clone)]
pub struct Caller {
    /// Its address.
    pub address: SocketAddr,
    /// Its connection's place at the gate.
    pub place: Place,
}

/// One accepted connection.
pub struct Connection {
    io: GuardedIo<BoxIo>,
    address: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        Caller { address: self.address, place: self.io.place().clone() }
    }
}

/// A listener of the network seam, for a gate.
pub struct Listener(pub Box<dyn NetListener>);

impl Accept for Listener {
    type Io = BoxIo;
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        self.0.accept().await
    }
}

/// All connections of a listener that its gate lets in.
pub fn incoming(listener: Box<dyn NetListener>, gate: Arc<PortGate>) -> impl Stream<Item = io::Result<Connection>> {
    futures::stream::unfold((Listener(listener), gate), |(mut listener, gate)| async move {
        let (io, address) = gate.accept(&mut listener).await;
        Some((Ok(Connection { io, address }), (listener, gate)))
    })
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
