//! An accepted stream that closes itself in time.
//!
//! **What it is.** A wrapper of a byte stream. It fails in both directions once its connection has
//! to give way, has sent nothing in time, or has a peer that takes nothing. Whatever serves the
//! connection ends then, and the descriptor is free.
//!
//! **Owns** the deadlines of one connection. **Must never** close one with a call under way for
//! being silent.
//! **Read next**: [`crate::port`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::gate::Kind;
use crate::limits::{
    FIRST_BYTE_WITHIN, FIRST_CALL_WITHIN, PROBE_CLOSED_AFTER, PROBE_WITHIN, UNTRUSTED_WITHIN, WRITE_STALLED_WITHIN,
};
use crate::port::{CloseReason, Place};

/// What a connection must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    FirstByte,
    FirstCall,
    /// Its end.
    End,
    /// Nothing: it may be idle.
    Nothing,
}

/// Bytes that are read before anything is made for a connection. Few: the rest is read in place.
const FIRST_BYTES: usize = 64;

/// An accepted stream and its place. The place is free when the stream is dropped.
pub struct GuardedIo<Io> {
    io: Io,
    /// Read already by [`GuardedIo::begun`], and by nobody else yet.
    first: Bytes,
    accepted: Instant,
    due: Due,
    /// When `due` must be done.
    deadline: Pin<Box<Sleep>>,
    /// A write is waiting for the peer.
    stalled: bool,
    stall: Option<Pin<Box<Sleep>>>,
    place: PlaceOfStream,
}

/// Dropped behind the stream.
struct PlaceOfStream(Place);

impl Drop for PlaceOfStream {
    fn drop(&mut self) {
        self.0.gone();
    }
}

impl<Io> GuardedIo<Io> {
    /// Over a stream that was just accepted.
    pub(crate) fn new(io: Io, place: Place) -> Self {
        let within = match place.kind() {
            Kind::Trusted | Kind::Untrusted => FIRST_BYTE_WITHIN,
            Kind::Probe => PROBE_WITHIN,
        };
        let accepted = Instant::now();
        let deadline = Box::pin(sleep_until(accepted + within));
        let place = PlaceOfStream(place);
        Self { io, first: Bytes::new(), accepted, due: Due::FirstByte, deadline, stalled: false, stall: None, place }
    }

    /// Its place.
    pub fn place(&self) -> &Place {
        &self.place.0
    }

    /// The next thing that must be done, and within how long of the accept.
    fn wait_for(&mut self, due: Due) {
        let kind = self.place.0.kind();
        let (due, within) = match (due, kind) {
            (Due::FirstCall, Kind::Trusted) => (due, FIRST_CALL_WITHIN),
            (Due::FirstCall, Kind::Probe) => (due, PROBE_WITHIN),
            (Due::End, Kind::Probe) => (due, PROBE_CLOSED_AFTER),
            (_, Kind::Untrusted) => (Due::End, UNTRUSTED_WITHIN),
            (_, _) => (Due::Nothing, Duration::ZERO),
        };
        self.due = due;
        if due != Due::Nothing {
            self.deadline.as_mut().reset(self.accepted + within);
        }
    }

    /// Fails once the connection is to be closed; wakes the task then. For who does not read it just now.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionAborted`] with the reason.
    pub fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.due != Due::Nothing && self.deadline.as_mut().poll(cx).is_ready() {
            match self.due {
                Due::FirstByte => self.place.0.close(CloseReason::FirstByteLate),
                Due::FirstCall if self.place.0.has_called() => {
                    self.wait_for(Due::End);
                    continue;
                }
                Due::FirstCall => self.place.0.close(CloseReason::FirstCallLate),
                Due::End => self.place.0.close(CloseReason::TimeOver),
                Due::Nothing => {}
            }
            break;
        }
        if self.stalled && self.stall.as_mut().is_some_and(|stall| stall.as_mut().poll(cx).is_ready()) {
            self.place.0.close(CloseReason::WriteStalled);
        }
        // Looked at whenever the connection moves: HTTP/2 pings it, however silent its streams are.
        if self.place.0.is_stuck() {
            self.place.0.close(CloseReason::Buffered);
        }
        match self.place.0.closing(cx.waker()) {
            None => Ok(()),
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.label())),
        }
    }

    /// Notes whether the peer takes what is written.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            match &mut self.stall {
                Some(stall) => stall.as_mut().reset(Instant::now() + WRITE_STALLED_WITHIN),
                none => *none = Some(Box::pin(sleep(WRITE_STALLED_WITHIN))),
            }
        }
        // The timer wakes this task only if it was polled since.
        self.check(cx)?;
        written
    }
}

impl<Io: AsyncRead + Unpin> GuardedIo<Io> {
    /// Waits for its first bytes, which its reader gets as well. In HTTP a client speaks first: what a server makes for a
    /// connection, tens of kilobytes, is not made for one that stays silent.
    ///
    /// # Errors
    /// It is to be closed ([`GuardedIo::check`]), or its peer has gone.
    pub async fn begun(mut self) -> io::Result<Self> {
        let mut first = [0; FIRST_BYTES];
        let read = self.read(&mut first).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.first = Bytes::copy_from_slice(&first[..read]);
        Ok(self)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for GuardedIo<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check(cx)?;
        if !this.first.is_empty() {
            let read = this.first.split_to(this.first.len().min(buf.remaining()));
            buf.put_slice(&read);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        if this.due == Due::FirstByte && buf.filled().len() > before {
            this.wait_for(Due::FirstCall);
            // What reads on is woken by the new deadline, too.
            this.check(cx)?;
        }
        Poll::Ready(read)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for GuardedIo<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check(cx)?;
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check(cx)?;
        Pin::new(&mut this.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check(cx)?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check(cx)?;
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::gate::ConnectionBounds;
    use crate::port::PortGate;

    fn gate(all: usize) -> Arc<PortGate> {
        PortGate::new("test", ConnectionBounds { per_source: all, ..ConnectionBounds::of(all) }, |ip| ip.is_loopback())
    }

    fn connect(gate: &Arc<PortGate>, from: [u8; 4]) -> (DuplexStream, GuardedIo<DuplexStream>) {
        let (client, server) = duplex(64);
        let place = gate.admit(IpAddr::from(from)).expect("there is room");
        (client, GuardedIo::new(server, place))
    }

    const HERE: [u8; 4] = [127, 0, 0, 1];

    async fn closes(io: &mut GuardedIo<DuplexStream>) -> (Duration, String) {
        let began = Instant::now();
        let mut buf = [0; 8];
        loop {
            if let Err(error) = io.read(&mut buf).await {
                return (began.elapsed(), error.to_string());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connection_without_a_byte_is_closed_at_its_deadline() {
        let gate = gate(2);
        let (_client, mut io) = connect(&gate, HERE);
        let (after, why) = closes(&mut io).await;
        assert_eq!((after, why.as_str()), (FIRST_BYTE_WITHIN, "first_byte_late"));
        assert_eq!(gate.closed(CloseReason::FirstByteLate), 1);
        drop(io);
        assert_eq!(gate.open(Kind::Trusted), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn first_bytes_are_waited_for_until_their_deadline_and_read_once() {
        let gate = gate(3);
        let (_silent, io) = connect(&gate, HERE);
        let began = Instant::now();
        let error = io.begun().await.err().expect("nothing came");
        assert_eq!((began.elapsed(), error.to_string().as_str()), (FIRST_BYTE_WITHIN, "first_byte_late"));

        let (mut client, io) = connect(&gate, HERE);
        let sent: Vec<u8> = (0..=255).collect();
        let sending = sent.clone();
        tokio::spawn(async move { client.write_all(&sending).await });
        let mut io = io.begun().await.expect("bytes came");
        let mut read = Vec::new();
        io.read_exact(&mut [0; 3]).await.expect("a part of the first bytes");
        io.read_to_end(&mut read).await.expect("the rest");
        assert_eq!(read, sent[3..]);

        let (client, io) = connect(&gate, HERE);
        drop(client);
        assert_eq!(io.begun().await.err().expect("it is gone").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(gate.open(Kind::Trusted), 1, "one is still there");
    }

    #[tokio::test(start_paused = true)]
    async fn connection_without_a_call_is_closed_and_one_with_a_call_stays() {
        let gate = gate(2);
        let (mut client, mut io) = connect(&gate, HERE);
        client.write_all(b"x").await.expect("sent");
        let (after, why) = closes(&mut io).await;
        assert_eq!((after, why.as_str()), (FIRST_CALL_WITHIN, "first_call_late"));

        let (mut client, mut io) = connect(&gate, HERE);
        client.write_all(b"x").await.expect("sent");
        io.read_exact(&mut [0]).await.expect("read");
        drop(io.place().call().expect("one call"));
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, io.read(&mut [0])).await.is_err(), "it may be idle");
    }

    #[tokio::test(start_paused = true)]
    async fn connection_of_an_untrusted_network_is_closed_whatever_it_does() {
        let gate = gate(2);
        let (mut client, mut io) = connect(&gate, [10, 0, 0, 1]);
        client.write_all(b"x").await.expect("sent");
        io.read_exact(&mut [0]).await.expect("read");
        let _call = io.place().call().expect("one call");
        assert_eq!(closes(&mut io).await, (UNTRUSTED_WITHIN, "time_over".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_gives_way_fails_at_once() {
        let gate = gate(1);
        let (_client, mut io) = connect(&gate, HERE);
        let reading = tokio::spawn(async move { closes(&mut io).await });
        tokio::task::yield_now().await;
        let (_other, _io) = connect(&gate, HERE);
        assert_eq!(reading.await.expect("it ends"), (Duration::ZERO, "replaced".to_owned()));
        assert_eq!(gate.open(Kind::Trusted), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_takes_nothing_is_closed() {
        let gate = gate(1);
        let (_client, mut io) = connect(&gate, HERE);
        let _call = io.place().call().expect("one call");
        io.wait_for(Due::Nothing);
        let began = Instant::now();
        let error = io.write_all(&[0; 1_000]).await.expect_err("nobody reads");
        assert_eq!((began.elapsed(), error.to_string().as_str()), (WRITE_STALLED_WITHIN, "write_stalled"));
    }
}
