//! Frames and the two loops that move them.
//!
//! **Owns** the frame's layout: body length 4, crc32c 4 (of the rest and the body), kind 1, zero 3, group 4, id 8, body.
//! **Must never** allocate a body by a length alone, nor queue without a bound for a peer that does
//! not read. **Read next**: [`super::link`].

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::handshake::Lane;
use crate::codec::malformed;
use crate::limits::{
    FRAME_BYTES_MAX, PING_EVERY, READ_BUFFER_MIN, READ_CHUNK_BYTES, SEND_QUEUE_BYTES, SEND_QUEUE_FRAMES,
    SEND_URGENT_MAX, SILENCE_MAX, WRITE_BATCH_FRAMES,
};

/// Bytes before a frame's body.
pub(crate) const FRAME_HEAD_BYTES: usize = 24;
/// Pieces below that size are gathered into one buffer instead of a slice of their own.
const GATHER_BELOW: usize = 4096;
/// Slices handed to one vectored write.
const SLICES_MAX: usize = 64;

/// What a frame is. Numbers are the wire's and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Ping = 1,
    Pong = 2,
    /// The answer to a question with the same id.
    Answer = 3,
    /// The question failed; the body says why, in text.
    Failed = 4,
    Vote = 10,
    PreVote = 11,
    Heartbeat = 12,
    TransferLeader = 13,
    ReadIndex = 14,
    Clock = 15,
    Ask = 16,
    /// A peer's term and log ends, for the repair of a damaged replica.
    Term = 17,
    /// A leader offers a snapshot; answered when it is installed.
    SnapshotOffer = 18,
    /// Asks for the place and size of a snapshot at or after an index.
    SnapshotFind = 19,
    /// Asks for a range of a snapshot file.
    SnapshotRead = 20,
    /// Asks for the hash of an entry's bytes in the log, by term and index.
    EntryHash = 21,
    /// Asks what the asking node has acknowledged at most, as far as the other knows.
    Acknowledgements = 22,
    StreamOpen = 30,
    StreamAppend = 31,
    StreamClose = 32,
    StreamAnswer = 33,
    StreamEnd = 34,
}

impl Kind {
    fn from_wire(b: u8) -> io::Result<Self> {
        Ok(match b {
            1 => Self::Ping,
            2 => Self::Pong,
            3 => Self::Answer,
            4 => Self::Failed,
            10 => Self::Vote,
            11 => Self::PreVote,
            12 => Self::Heartbeat,
            13 => Self::TransferLeader,
            14 => Self::ReadIndex,
            15 => Self::Clock,
            16 => Self::Ask,
            17 => Self::Term,
            18 => Self::SnapshotOffer,
            19 => Self::SnapshotFind,
            20 => Self::SnapshotRead,
            21 => Self::EntryHash,
            22 => Self::Acknowledgements,
            30 => Self::StreamOpen,
            31 => Self::StreamAppend,
            32 => Self::StreamClose,
            33 => Self::StreamAnswer,
            34 => Self::StreamEnd,
            _ => return Err(malformed("frame kind")),
        })
    }
}

impl Kind {
    /// The lane that a question belongs on; none: either, or it is no question. What is long goes
    /// over *bulk*, so that no heartbeat waits behind it.
    pub(crate) fn lane(self) -> Option<Lane> {
        match self {
            Self::Ping | Self::Pong | Self::Answer | Self::Failed | Self::StreamAnswer | Self::StreamEnd => None,
            Self::StreamOpen | Self::StreamAppend | Self::StreamClose | Self::SnapshotRead => Some(Lane::Bulk),
            _ => Some(Lane::Control),
        }
    }
}

/// A frame that arrived.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) group: u32,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

/// A frame to be sent; its body is pieces that are written as they are.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) kind: Kind,
    pub(crate) group: u32,
    pub(crate) id: u64,
    pub(crate) body: Vec<Bytes>,
}

impl Outgoing {
    pub(crate) fn new(kind: Kind, group: u32, id: u64, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { kind, group, id, body: if body.is_empty() { Vec::new() } else { vec![body] } }
    }

    pub(crate) fn head(&self) -> [u8; FRAME_HEAD_BYTES] {
        let len: usize = self.body.iter().map(Bytes::len).sum();
        let mut h = [0u8; FRAME_HEAD_BYTES];
        h[0..4].copy_from_slice(&(len as u32).to_le_bytes());
        h[8] = self.kind as u8;
        h[12..16].copy_from_slice(&self.group.to_le_bytes());
        h[16..24].copy_from_slice(&self.id.to_le_bytes());
        let mut crc = crc32c::crc32c(&h[8..]);
        for piece in &self.body {
            crc = crc32c::crc32c_append(crc, piece);
        }
        h[4..8].copy_from_slice(&crc.to_le_bytes());
        h
    }
}

/// The queue of a connection's writer.
#[derive(Debug, Clone)]
pub(crate) struct SendQueue {
    frames: mpsc::Sender<Outgoing>,
    // Never waited for, so that it has a bound of its own.
    urgent: mpsc::Sender<Outgoing>,
    room: Arc<Room>,
    stop: CancellationToken,
}

/// What the queue of one connection may hold.
#[derive(Debug)]
struct Room {
    /// Bytes of frames that [`SendQueue::send`] may still queue.
    bytes: Semaphore,
    /// A ping came since the last pong. However many came, one pong answers them.
    pong: AtomicBool,
    pinged: Notify,
}

impl Room {
    async fn ping_came(&self) -> Option<Outgoing> {
        loop {
            self.pinged.notified().await;
            if let Some(pong) = self.take_pong() {
                return Some(pong);
            }
        }
    }
    fn take_pong(&self) -> Option<Outgoing> {
        self.pong.swap(false, Ordering::AcqRel).then(|| Outgoing::new(Kind::Pong, 0, 0, Bytes::new()))
    }
}

/// Room that a frame takes until it is written. Appends have bounds of their own, the rest is
/// small.
fn room_of(frame: &Outgoing) -> u32 {
    match frame.kind {
        Kind::StreamAppend | Kind::StreamOpen | Kind::StreamClose | Kind::Ping | Kind::Pong => 0,
        _ => {
            let body: usize = frame.body.iter().map(Bytes::len).sum();
            (FRAME_HEAD_BYTES + body).min(SEND_QUEUE_BYTES) as u32
        }
    }
}

impl SendQueue {
    /// Waits until there is room. The peer makes room by reading.
    pub(crate) async fn send(&self, frame: Outgoing) -> io::Result<()> {
        let room = self.room.bytes.acquire_many(room_of(&frame)).await.map_err(|_| closed())?;
        self.frames.send(frame).await.map_err(|_| closed())?;
        // The writer gives it back.
        room.forget();
        Ok(())
    }

    /// For frames that may not wait: from `Drop`, or in answer to a ping. A peer that does not read
    /// while many of them come loses the connection.
    pub(crate) fn send_urgent(&self, frame: Outgoing) {
        if frame.kind == Kind::Pong {
            if !self.room.pong.swap(true, Ordering::AcqRel) {
                self.room.pinged.notify_one();
            }
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.urgent.try_send(frame) {
            tracing::warn!(kind = ?frame.kind, "closed a peer connection: the peer opens and closes streams and does not read");
            self.stop.cancel();
        }
    }

    pub(crate) fn frames(&self) -> mpsc::Sender<Outgoing> {
        self.frames.clone()
    }
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the peer connection is closed")
}

/// Starts the writer of a connection; it ends with `stop`, and stops the connection when it fails.
pub(crate) fn start_writer(
    io: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
    ping: bool,
) -> SendQueue {
    let (frames, frames_rx) = mpsc::channel(SEND_QUEUE_FRAMES);
    let (urgent, urgent_rx) = mpsc::channel(SEND_URGENT_MAX);
    let bytes = Semaphore::new(SEND_QUEUE_BYTES);
    let room = Arc::new(Room { bytes, pong: AtomicBool::new(false), pinged: Notify::new() });
    let queue = SendQueue { frames, urgent, room: room.clone(), stop: stop.clone() };
    tokio::spawn(async move {
        let done = write_loop(io, (frames_rx, urgent_rx), &room, &stop, ping).await;
        if let Err(e) = done {
            tracing::debug!(error = %e, "peer connection: write failed");
        }
        room.bytes.close();
        stop.cancel();
    });
    queue
}

async fn write_loop(
    mut io: impl AsyncWrite + Send + Unpin,
    (mut frames, mut urgent): (mpsc::Receiver<Outgoing>, mpsc::Receiver<Outgoing>),
    room: &Room,
    stop: &CancellationToken,
    ping: bool,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH_FRAMES);
    let mut pings = tokio::time::interval(PING_EVERY);
    let mut gather = BytesMut::new();
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            pong = room.ping_came() => pong,
            f = urgent.recv() => f,
            f = frames.recv() => f,
            _ = pings.tick(), if ping => Some(Outgoing::new(Kind::Ping, 0, 0, Bytes::new())),
        };
        let Some(first) = first else { return Ok(()) };
        batch.push(first);
        batch.extend(room.take_pong());
        while batch.len() < WRITE_BATCH_FRAMES
            && let Ok(next) = urgent.try_recv().or_else(|_| frames.try_recv())
        {
            batch.push(next);
        }
        let mut pieces = VecDeque::with_capacity(batch.len() * 2);
        let given_back: usize = batch.iter().map(|frame| room_of(frame) as usize).sum();
        for frame in batch.drain(..) {
            gather.put_slice(&frame.head());
            for piece in frame.body {
                if piece.len() < GATHER_BELOW {
                    gather.put_slice(&piece);
                } else {
                    pieces.push_back(gather.split().freeze());
                    pieces.push_back(piece);
                }
            }
        }
        if !gather.is_empty() {
            pieces.push_back(gather.split().freeze());
        }
        // A peer that does not read is as dead as one that does not speak.
        tokio::time::timeout(SILENCE_MAX, write_all(&mut io, pieces))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))??;
        room.bytes.add_permits(given_back);
    }
}

async fn write_all(io: &mut (impl AsyncWrite + Unpin), mut pieces: VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let n = if pieces.len() == 1 {
            io.write(&pieces[0]).await?
        } else {
            let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES_MAX).map(|p| IoSlice::new(p)).collect();
            io.write_vectored(&slices).await?
        };
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut left = n;
        while left > 0 {
            let front = &mut pieces[0];
            if left < front.len() {
                front.advance(left);
                break;
            }
            left -= front.len();
            pieces.pop_front();
        }
        while pieces.front().is_some_and(Bytes::is_empty) {
            pieces.pop_front();
        }
    }
    io.flush().await
}

/// Reads frames off a connection; bodies are slices of the read buffer.
pub(crate) struct FrameReader<R> {
    io: R,
    buf: BytesMut,
    /// Bytes asked for at once: more when the peer sends much.
    chunk: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buf: BytesMut::with_capacity(READ_BUFFER_MIN), chunk: READ_BUFFER_MIN }
    }

    /// The next frame, or none when the peer closed in good order.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let need = match self.take()? {
                Ok(frame) => return Ok(Some(frame)),
                Err(need) => need,
            };
            if self.buf.capacity() - self.buf.len() < need.clamp(self.chunk / 16, self.chunk) {
                // Never for a length alone: at most as much again as has arrived.
                self.buf.reserve(need.clamp(self.chunk, self.chunk.max(self.buf.len())));
            }
            let room = self.buf.capacity() - self.buf.len();
            let n = tokio::time::timeout(SILENCE_MAX, self.io.read_buf(&mut self.buf))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer is silent"))??;
            if n >= room.min(self.chunk) {
                self.chunk = (2 * self.chunk).min(READ_CHUNK_BYTES);
            }
            if n == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// A whole frame off the front of the buffer, or how many bytes are missing.
    fn take(&mut self) -> io::Result<Result<Frame, usize>> {
        if self.buf.len() < FRAME_HEAD_BYTES {
            return Ok(Err(FRAME_HEAD_BYTES - self.buf.len()));
        }
        let mut head = &self.buf[..FRAME_HEAD_BYTES];
        let len = head.get_u32_le() as usize;
        let crc = head.get_u32_le();
        if len > FRAME_BYTES_MAX {
            return Err(malformed("frame length"));
        }
        if self.buf.len() < FRAME_HEAD_BYTES + len {
            return Ok(Err(FRAME_HEAD_BYTES + len - self.buf.len()));
        }
        let mut whole = self.buf.split_to(FRAME_HEAD_BYTES + len).freeze();
        if crc32c::crc32c(&whole[8..]) != crc {
            return Err(malformed("frame checksum"));
        }
        whole.advance(8);
        let kind = Kind::from_wire(whole.get_u8())?;
        whole.advance(3);
        let group = whole.get_u32_le();
        let id = whole.get_u64_le();
        Ok(Ok(Frame { kind, group, id, body: whole }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_sent_and_in_order() {
        let (a, b) = tokio::io::duplex(1000);
        let stop = CancellationToken::new();
        let q = start_writer(a, stop.clone(), false);
        let mut r = FrameReader::new(b);
        let big = Bytes::from(vec![7u8; 300_000]);
        let mut sent = Vec::new();
        for i in 0..20u64 {
            let body = vec![Bytes::from(vec![i as u8; i as usize * 100]), big.clone(), Bytes::from_static(b"end")];
            sent.push(body.concat());
            q.send(Outgoing { kind: Kind::StreamAppend, group: 3, id: i, body }).await.unwrap();
        }
        for (i, body) in sent.into_iter().enumerate() {
            let f = r.next().await.unwrap().unwrap();
            assert_eq!((f.kind, f.group, f.id), (Kind::StreamAppend, 3, i as u64));
            assert_eq!(f.body, body);
        }
    }

    #[tokio::test]
    async fn a_flipped_bit_and_an_absurd_length_are_errors() {
        let o = Outgoing::new(Kind::Vote, 1, 2, Bytes::from_static(b"hello"));
        let good: Vec<u8> = [&o.head()[..], b"hello"].concat();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(FrameReader::new(&bad[..]).next().await, Ok(Some(_))), "bit {bit} went unnoticed");
        }
        let mut r = FrameReader::new(&good[..]);
        assert_eq!(r.next().await.unwrap().unwrap().body, Bytes::from_static(b"hello"));
        assert!(r.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn length_alone_reserves_nothing() {
        let mut head = Outgoing::new(Kind::StreamAppend, 1, 2, Bytes::new()).head();
        head[0..4].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far);
        near.write_all(&head).await.unwrap();
        drop(near);
        assert!(reader.next().await.is_err(), "the body never came");
        assert!(reader.buf.capacity() <= 2 * READ_BUFFER_MIN, "{} bytes", reader.buf.capacity());
    }

    #[tokio::test]
    async fn idle_peer_takes_four_kibibytes() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far);
        assert_eq!(reader.buf.capacity(), 4 << 10);
        for _ in 0..1_000 {
            near.write_all(&Outgoing::new(Kind::Ping, 0, 0, Bytes::new()).head()).await.unwrap();
            reader.next().await.unwrap().unwrap();
        }
        assert!(reader.buf.capacity() <= 2 * READ_BUFFER_MIN, "{} bytes", reader.buf.capacity());
    }

    #[tokio::test]
    async fn busy_peer_is_read_in_large_chunks() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let queue = start_writer(near, CancellationToken::new(), false);
        let mut reader = FrameReader::new(far);
        let body = Bytes::from(vec![7u8; 300_000]);
        for id in 0..20 {
            queue.send(Outgoing::new(Kind::StreamAppend, 1, id, body.clone())).await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap().body, body);
        }
        assert_eq!(reader.chunk, READ_CHUNK_BYTES);
    }

    #[tokio::test]
    async fn pings_of_a_peer_that_does_not_read_take_one_place() {
        let (near, far) = tokio::io::duplex(64);
        let queue = start_writer(near, CancellationToken::new(), false);
        for n in 0..100_000 {
            queue.send_urgent(Outgoing::new(Kind::Pong, 0, 0, Bytes::new()));
            if n % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        queue.send(Outgoing::new(Kind::Answer, 0, 7, Bytes::new())).await.unwrap();
        let mut reader = FrameReader::new(far);
        let mut pongs = 0;
        while reader.next().await.unwrap().unwrap().kind == Kind::Pong {
            pongs += 1;
        }
        // What the pipe holds, what waits in the writer, and the one that is due.
        assert!(pongs <= 64 / FRAME_HEAD_BYTES + 2, "{pongs} pongs");
    }

    #[tokio::test]
    async fn answers_to_a_peer_that_does_not_read_wait() {
        let (near, far) = tokio::io::duplex(64);
        let queue = start_writer(near, CancellationToken::new(), false);
        let answer = Bytes::from(vec![7u8; 1 << 20]);
        let sending = tokio::spawn({
            let (queue, answer) = (queue.clone(), answer.clone());
            async move {
                for id in 0..64 {
                    queue.send(Outgoing::new(Kind::Answer, 0, id, answer.clone())).await.unwrap();
                }
            }
        });
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let queued = SEND_QUEUE_FRAMES - queue.frames.capacity();
        assert!(queued <= SEND_QUEUE_BYTES >> 20, "{queued} answers of a mebibyte");
        assert!(!sending.is_finished());
        let mut reader = FrameReader::new(far);
        for id in 0..64 {
            assert_eq!(reader.next().await.unwrap().unwrap().id, id);
        }
        sending.await.unwrap();
        assert!(queue.room.bytes.available_permits() <= SEND_QUEUE_BYTES);
    }

    #[tokio::test]
    async fn closes_that_are_not_read_end_the_connection() {
        let (near, _far) = tokio::io::duplex(64);
        let stop = CancellationToken::new();
        let queue = start_writer(near, stop.clone(), false);
        for id in 0..=SEND_URGENT_MAX as u64 {
            assert!(!stop.is_cancelled(), "after {id}");
            queue.send_urgent(Outgoing::new(Kind::StreamClose, 1, id, Bytes::new()));
        }
        assert!(stop.is_cancelled());
    }

    #[test]
    fn the_layout_is_frozen() {
        let o = Outgoing::new(Kind::Heartbeat, 0x0102_0304, 0x0506_0708_090a_0b0c, Bytes::from_static(b"x"));
        let h = o.head();
        assert_eq!(h[0..4], [1, 0, 0, 0]);
        assert_eq!(h[8..], [12, 0, 0, 0, 4, 3, 2, 1, 0xc, 0xb, 0xa, 9, 8, 7, 6, 5]);
        assert_eq!(h[4..8], crc32c::crc32c(&[&h[8..], b"x"].concat()).to_le_bytes());
    }
}
