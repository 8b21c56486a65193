//! Connections out of the network seam, through the port's gate, as tonic wants them.
//!
//! **Owns** the caller's address and place on their way to [`crate::access`] and [`super::meter`].
//! **Must never** end the server over one failed accept. **Read next**: [`super::meter`],
//! [`super::frames`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use ledger_raft::seam::{BoxIo, NetListener};
use metrics::Counter;
use service::guarded::GuardedIo;
use service::{Accept, Place, PortGate};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use super::frames::{FrameShares, Frames};

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
    frames: Frames,
    /// It is not read until then.
    waits: Option<Pin<Box<Sleep>>>,
    waited: Counter,
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

/// All connections of a listener that its gate lets in, as they send something. `waited` counts how often one is not read for a
/// while.
pub fn incoming(
    listener: Box<dyn NetListener>,
    gate: Arc<PortGate>,
    waited: Counter,
) -> impl Stream<Item = io::Result<Connection>> {
    let shares = Arc::<FrameShares>::default();
    // Each on a task of its own: none that has sent something waits for those that come meanwhile.
    let (begun, incoming) = mpsc::unbounded_channel();
    let mut listener = Listener(listener);
    let accepting = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (io, address) = gate.accept(&mut listener).await;
            let begun = begun.clone();
            tokio::spawn(async move {
                // The server may be gone.
                if let Ok(io) = io.begun().await {
                    drop(begun.send((io, address)));
                }
            });
        }
    }));
    futures::stream::unfold((incoming, accepting), move |(mut incoming, accepting)| {
        let (shares, waited) = (shares.clone(), waited.clone());
        async move {
            let (io, address) = incoming.recv().await?;
            let frames = Frames::new(shares, io.place().source());
            Some((Ok(Connection { io, address, frames, waits: None, waited }), (incoming, accepting)))
        }
    })
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(waits) = &mut this.waits {
            // It may have to close meanwhile.
            this.io.check(cx)?;
            ready!(waits.as_mut().poll(cx));
            this.waits = None;
        }
        let read = match this.frames.poll_kept(cx, buf) {
            Poll::Pending => {
                this.io.check(cx)?;
                return Poll::Pending;
            }
            Poll::Ready(Some(read)) => read,
            Poll::Ready(None) => {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                let read = this.frames.read(&buf.filled()[before..]);
                buf.set_filled(before + read.bytes);
                read
            }
        };
        if let Some(until) = read.until {
            this.waits = Some(Box::pin(sleep_until(until)));
            this.waited.increment(1);
        }
        Poll::Ready(Ok(()))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use service::ConnectionBounds;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout_at};

    use super::*;
    use crate::limits::{CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND};

    /// Gives one stream.
    struct One(Option<BoxIo>);

    #[async_trait::async_trait]
    impl NetListener for One {
        async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
            match self.0.take() {
                Some(io) => Ok((io, self.local_addr()?)),
                None => std::future::pending().await,
            }
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 9)))
        }
    }

    /// Gives one stream of a trusted address, and then others of an untrusted one without end.
    struct Flood(Option<BoxIo>);

    #[async_trait::async_trait]
    impl NetListener for Flood {
        async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
            tokio::task::consume_budget().await;
            Ok(match self.0.take() {
                Some(io) => (io, SocketAddr::from(([127, 0, 0, 1], 9))),
                None => (Box::new(tokio::io::duplex(1).0), SocketAddr::from(([10, 0, 0, 1], 9))),
            })
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 8)))
        }
    }

    #[tokio::test]
    async fn connection_that_sent_something_is_served_in_a_flood_of_refused_ones() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"PRI").await.expect("sent");
        let gate = PortGate::new("test", ConnectionBounds::of(8), |from| from.is_loopback());
        let mut incoming = Box::pin(incoming(Box::new(Flood(Some(Box::new(server)))), gate, Counter::noop()));
        let late = Instant::now() + Duration::from_secs(60);
        let connection = timeout_at(late, incoming.next()).await.expect("in time");
        assert!(connection.is_some_and(|connection| connection.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_made_for_a_connection_that_sends_nothing() {
        let (client, server) = tokio::io::duplex(64);
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let mut incoming = Box::pin(incoming(Box::new(One(Some(Box::new(server)))), gate.clone(), Counter::noop()));
        let late = Instant::now() + service::limits::FIRST_BYTE_WITHIN * 2;
        assert!(timeout_at(late, incoming.next()).await.is_err(), "HTTP/2 never sees it");
        assert_eq!(gate.closed(service::port::CloseReason::FirstByteLate), 1, "and its place is free");
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_read_no_faster_than_their_bound_and_the_connection_still_closes_in_time() {
        const PING_BYTES: usize = 17;
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let mut incoming = Box::pin(incoming(Box::new(One(Some(Box::new(server)))), gate, Counter::noop()));
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        let mut connection = incoming.next().await.expect("a connection").expect("accepted");
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1_000);
        tokio::spawn(async move { while client.write_all(&ping).await.is_ok() {} });
        let most = CONTROL_FRAMES_AT_ONCE + 4 * CONTROL_FRAMES_PER_SECOND;
        let (began, mut bytes, mut buf) = (Instant::now(), 0, vec![0; 8 << 10]);
        while let Ok(read) = timeout_at(began + Duration::from_secs(4), connection.read(&mut buf)).await {
            bytes += read.expect("it goes on");
            assert!(bytes / PING_BYTES < 2 * most as usize, "it is read without a bound");
        }
        // The last read may pass it.
        let pings = (bytes / PING_BYTES) as u64;
        assert!((most * 9 / 10..most + 500).contains(&pings), "{pings} pings in four seconds, at most {most}");
        let closed = loop {
            if let Err(error) = connection.read(&mut buf).await {
                break error;
            }
        };
        let within = began.elapsed();
        assert_eq!((closed.to_string().as_str(), within), ("first_call_late", service::limits::FIRST_CALL_WITHIN));
    }
}
