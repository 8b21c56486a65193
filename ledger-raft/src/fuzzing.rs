//! What fuzzing calls with any bytes, and an ordinary test with those of a checked-in corpus (`fuzz/seeds`).
//!
//! **What it is.** One function a kind of bytes: what peers send, a segment of the log, a snapshot file. Each ends, whatever the bytes, without a panic. Checksums
//! are made right in a second try, or nearly all tries would end there.
//!
//! **Owns** nothing that a server calls. **Must never** be more lenient than the code it calls. **Read next**: `ledger_core::fuzzing`.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::codec;
use crate::disk::SimDisk;
use crate::memory::AcknowledgedBy;
use crate::seam::{BoxIo, Disk};
use crate::snapshot::{SnapshotBody, SnapshotStore};
use crate::transport::frame::{FrameReader, Kind, Outgoing};
use crate::transport::handshake::{self, Identity};
use crate::transport::members::Members;
use crate::vote_gate::Answer;
use crate::wal;
use crate::{DiskId, GroupId, NodeId};

const CLUSTER: [u8; 16] = [7; 16];
/// Frames of one input that are read.
const FRAMES_MAX: usize = 64;

/// Polls what never waits for anything but bytes that are there.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("no more than memory is needed")
}

/// What a peer sends: frames on a connection, a greeting, and bodies of votes, transfers, appends and
/// their answers. Other bodies are a few numbers each.
pub fn peer_frames(bytes: &[u8]) {
    let runtime = runtime();
    let _inside = runtime.enter();
    for bytes in [bytes.to_vec(), with_right_frame_sums(bytes)] {
        let mut reader = FrameReader::new(bytes.as_slice());
        for _ in 0..FRAMES_MAX {
            let Some(Ok(Some(frame))) = at_once(reader.next()) else { break };
            bodies(frame.body);
        }
    }
    greeting(bytes);
    bodies(Bytes::copy_from_slice(bytes));
}

/// A body, read as each of these.
fn bodies(body: Bytes) {
    let tries: [fn(&mut Bytes) -> io::Result<()>; 11] = [
        |b| codec::take_vote_request(b).map(drop),
        |b| codec::take_vote_response(b).map(drop),
        |b| codec::take_transfer(b).map(drop),
        |b| codec::take_append(b).map(drop),
        |b| AcknowledgedBy::take(b).map(drop),
        |b| Answer::take(b).map(drop),
        |b| codec::take_append_response(b).map(drop),
        |b| codec::take_stream_answer(b).map(drop),
        |b| codec::take_stored_membership(b).map(drop),
        |b| codec::take_log_id(b).map(drop),
        |b| codec::take_entry(b).map(drop),
    ];
    for read in tries {
        let _refused = read(&mut body.clone());
    }
    let _refused = codec::head_position(&body);
}

fn greeting(bytes: &[u8]) {
    let me = Identity { cluster: CLUSTER, incarnation: 1, node: NodeId(1), disk: DiskId([1; 16]), run: 1 };
    let (mut theirs, ours) = tokio::io::duplex(4_096);
    let mut ours: BoxIo = Box::new(ours);
    let sent = &bytes[..bytes.len().min(1_024)];
    let _room_enough = at_once(tokio::io::AsyncWriteExt::write_all(&mut theirs, sent));
    let _refused = at_once(handshake::receive(&mut ours, &me, &Members::default()));
}

fn with_right_frame_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0usize;
    while let Some(head) = bytes.get(at..at + 8) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // The length is of what lies behind the head of a frame.
        let Some(end) = (at + crate::transport::frame::FRAME_HEAD_BYTES).checked_add(len) else { break };
        let Some(rest) = bytes.get(at + 8..end) else { break };
        let sum = crc32c::crc32c(rest);
        bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
    bytes
}

/// A segment of the log: the log is recovered from it, as it is and with the checksum of each block made right.
pub fn wal(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), wal::fuzzing::with_right_sums(bytes)] {
        wal::fuzzing::open_over(&bytes).expect("a simulated disk takes it");
    }
}

/// A snapshot file beside the log: it is opened and read to its end, or set aside.
pub fn snapshot_file(bytes: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let dir = Path::new("/snapshots");
    let placed = disk.create_dir_all(dir).and_then(|()| {
        let file = disk.open(&dir.join("g1-1-1.snap"), true)?;
        file.write_at(0, bytes)?;
        file.sync()
    });
    placed.expect("a simulated disk takes it");
    if let Ok(store) = SnapshotStore::open(disk, dir, CLUSTER, GroupId(1))
        && let Some(file) = store.newest()
    {
        let mut body: SnapshotBody<'_> = file.body();
        let _refused = io::copy(&mut body, &mut io::sink());
    }
}

/// Bytes of peers to begin a corpus with: frames of all kinds of messages that are there without openraft.
pub fn peer_seeds() -> Vec<Vec<u8>> {
    let frame = |kind: Kind, body: Bytes| {
        let outgoing = Outgoing::new(kind, 1, 7, body.clone());
        [&outgoing.head()[..], &body].concat()
    };
    let mut log_id = bytes::BytesMut::new();
    codec::put_log_id(&mut log_id, None);
    vec![
        frame(Kind::Heartbeat, Bytes::from_static(b"x")),
        frame(Kind::Vote, Bytes::from(vec![1; 64])),
        frame(Kind::StreamAppend, Bytes::from(vec![0; 96])),
        log_id.to_vec(),
    ]
}
