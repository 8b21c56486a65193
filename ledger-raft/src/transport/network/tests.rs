//! What openraft hears of a follower that lacks what it acknowledged.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::{FutureExt, channel::mpsc as fmpsc};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::DiskId;
use crate::disk::sim::SimDisk;
use crate::machine::Progress;
use crate::memory::Acknowledged;
use crate::seam::{BoxIo, Net, NetListener, Random, WallClock};
use crate::store::Store;
use crate::transport::frame::{FrameReader, SendQueue, start_writer};
use crate::transport::handshake::{Identity, receive};
use crate::transport::link::lock;
use crate::transport::members::Members;
use crate::types::log_id;
use crate::wal::{GroupLog, Wal, WalConfig, WalIdentity};

/// One connection, to be had once; and a world in which nothing moves.
struct OneLine(Mutex<Option<BoxIo>>);

#[async_trait]
impl Net for OneLine {
    async fn listen(&self, _: &str) -> io::Result<Box<dyn NetListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _: &str) -> io::Result<BoxIo> {
        lock(&self.0).take().ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

struct Still;
impl WallClock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}
impl Random for Still {
    fn next_u64(&self) -> u64 {
        0
    }
}

/// The peer at the other end.
struct Follower {
    frames: FrameReader<tokio::io::ReadHalf<BoxIo>>,
    queue: SendQueue,
}

impl Follower {
    /// The next question, pings apart.
    async fn question(&mut self) -> Frame {
        loop {
            let frame = self.frames.next().await.unwrap().expect("the line stays open");
            if frame.kind != Kind::Ping {
                return frame;
            }
        }
    }

    /// The next request: the id of its stream, and its entries.
    async fn receives(&mut self) -> (u64, Vec<LogId>) {
        loop {
            let frame = self.frames.next().await.unwrap().expect("the line stays open");
            if frame.kind == Kind::StreamAppend {
                let mut body = frame.body;
                let (request, _) = codec::take_append(&mut body).unwrap();
                return (frame.id, request.entries.iter().map(|entry| entry.log_id).collect());
            }
        }
    }

    async fn answers(&self, stream: u64, matching: LogId) {
        let mut body = BytesMut::new();
        codec::put_stream_answer(&mut body, &Ok(Some(matching)));
        self.queue.send(Outgoing::new(Kind::StreamAnswer, 1, stream, body.freeze())).await.unwrap();
    }
}

fn append(prev: LogId, entries: &[LogId], commit: LogId) -> AppendEntriesRequest<Types> {
    let entry = |&log_id| openraft::Entry { log_id, payload: openraft::EntryPayload::Blank };
    AppendEntriesRequest {
        vote: Vote::new_committed(prev.committed_leader_id().term, 1),
        prev_log_id: Some(prev),
        entries: entries.iter().map(entry).collect(),
        leader_commit: Some(commit),
    }
}

/// Node 1's network to node 2, and the other end of it.
struct Line {
    network: PeerNetwork,
    memory: Arc<Memory>,
    log: GroupLog,
}

async fn line() -> (Line, impl Future<Output = Follower>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let disk: Arc<dyn crate::seam::Disk> = Arc::new(SimDisk::new(1));
    let net = Arc::new(OneLine(Mutex::new(Some(Box::new(near)))));
    let seams = Seams { net, clock: Arc::new(Still), random: Arc::new(Still), disk: disk.clone() };
    let me = Identity { cluster: [1; 16], incarnation: 1, node: NodeId(1), disk: DiskId([1; 16]), run: 1 };
    let peer = Identity { node: NodeId(2), disk: DiskId([2; 16]), ..me };
    let members = Arc::new(Members::default());
    for node in [me, peer] {
        members.know(node.node, node.disk).unwrap();
    }
    let known = members.clone();
    let follower = async move {
        let mut far: BoxIo = Box::new(far);
        receive(&mut far, &peer, &known).await.unwrap().unwrap();
        let (read, write) = tokio::io::split(far);
        Follower { frames: FrameReader::new(read), queue: start_writer(write, CancellationToken::new(), false) }
    };
    disk.create_dir_all(std::path::Path::new("/s")).unwrap();
    let snapshots =
        Arc::new(SnapshotStore::open(disk, std::path::Path::new("/s"), me.cluster, crate::api::GroupId(1)).unwrap());
    let identity = WalIdentity { cluster: me.cluster, incarnation: 1, node: me.node };
    let config = WalConfig { segment_bytes: 1 << 20, low_space_bytes: 0, ..WalConfig::default() };
    let wal = Wal::open(seams.disk.clone(), "/wal".into(), identity, config).await.unwrap();
    let store = Store::new(wal.group(crate::api::GroupId(1)), Arc::new(Progress::new()));
    let memory = Memory::new(me.node, &store, &snapshots);
    let links = Arc::new(Links::new(me, members, seams.clone(), CancellationToken::new()));
    let group = GroupNetwork { group: 1, links, snapshots, memory: memory.clone(), seams };
    let network = group.client(2, &Peer { addr: "far:1".into() }, false);
    (Line { network, memory, log: store.log().clone() }, follower)
}

/// A replica that finds its log damaged while it stands may not become leader by votes that are on
/// their way.
#[tokio::test(start_paused = true)]
async fn a_replica_whose_log_is_damaged_asks_for_no_vote_and_takes_none() {
    let request = || VoteRequest::new(Vote::new(4, 1), Some(log_id(3, 8)));
    let option = || RPCOption::new(Duration::from_secs(1));
    let (mut line, follower) = line().await;
    let mut granted = BytesMut::new();
    codec::put_vote_response(&mut granted, &VoteResponse::new(Vote::new(4, 1), Some(log_id(3, 8)), true));
    let (log, answer) = (line.log.clone(), granted.freeze());
    let grants = async move {
        let mut follower = follower.await;
        for damaged in [false, true] {
            let asked = follower.question().await;
            assert_eq!(asked.kind, Kind::Vote);
            assert!(!damaged || log.lacks("it went back"), "it is news");
            follower.queue.send(Outgoing::new(Kind::Answer, 1, asked.id, answer.clone())).await.unwrap();
        }
        follower
    };
    let votes = async {
        assert!(line.network.vote(request(), option()).await.is_ok_and(|answer| answer.vote_granted));
        assert!(line.network.vote(request(), option()).await.is_err(), "damaged while it asked");
        assert!(line.network.vote(request(), option()).await.is_err(), "damaged before");
        assert!(line.network.pre_vote(request(), option()).await.is_err());
    };
    let ((), mut follower) = tokio::join!(votes, grants);
    let next = tokio::time::timeout(Duration::from_secs(2), follower.question()).await;
    assert!(next.is_err(), "nothing more was asked: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_told_when_it_can_be_taken_for_nothing_later() {
    let (Line { mut network, memory, .. }, follower) = line().await;

    let (requests, input) = fmpsc::unbounded();
    let option = RPCOption::new(Duration::from_secs(1));
    let (stream, mut follower) = tokio::join!(network.stream_append(input, option), follower);
    let mut stream = stream.unwrap();
    let at = |index| log_id(3, index);

    // An entry, then word that it is committed: both match up to 8, and only the first is answered.
    requests.unbounded_send(append(at(7), &[at(8)], at(7))).unwrap();
    requests.unbounded_send(append(at(8), &[], at(8))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    let (id, sent) = follower.receives().await;
    assert_eq!(sent, [at(8)]);
    follower.answers(id, at(8)).await;
    let got = tokio::time::timeout(COMMIT_WORD_WAITS / 2, stream.next()).await;
    assert!(got.is_err(), "the word waits, and is not answered: {got:?}");
    // Nothing brings the word, so it goes by itself.
    let got = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(got.is_err(), "the word is not answered: {got:?}");
    assert_eq!(follower.receives().await, (id, vec![]));
    follower.answers(id, at(8)).await;
    let got = stream.next().await.unwrap().unwrap();
    assert!(matches!(got, Ok(Some(matching)) if matching == at(8)), "{got:?}");

    // What follows with entries of its own is distinguished by them.
    requests.unbounded_send(append(at(8), &[at(9)], at(8))).unwrap();
    requests.unbounded_send(append(at(9), &[at(10)], at(8))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    assert_eq!((follower.receives().await.1, follower.receives().await.1), (vec![at(9)], vec![at(10)]));
    follower.answers(id, at(9)).await;
    let got = stream.next().await.unwrap().unwrap();
    assert!(matches!(got, Ok(Some(matching)) if matching == at(9)), "{got:?}");

    // Word that not all is committed goes at once: the answers to the rest must not wait for it.
    let now = Instant::now();
    requests.unbounded_send(append(at(10), &[], at(9))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(follower.receives().await.1, []);
    assert_eq!(Instant::now(), now);
    follower.answers(id, at(10)).await;
    follower.answers(id, at(10)).await;
    stream.next().await.unwrap().unwrap().unwrap();

    // The next entries bring a word that waits. What was answered before it is not answered for it.
    requests.unbounded_send(append(at(10), &[at(11)], at(10))).unwrap();
    requests.unbounded_send(append(at(11), &[], at(11))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    requests.unbounded_send(append(at(11), &[at(12)], at(11))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    assert_eq!((follower.receives().await.1, follower.receives().await.1), (vec![at(11)], vec![at(12)]));
    follower.answers(id, at(11)).await;
    let got = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(got.is_err(), "the word was not answered: {got:?}");
    follower.answers(id, at(12)).await;
    let got = stream.next().await.unwrap().unwrap();
    assert!(matches!(got, Ok(Some(matching)) if matching == at(12)), "{got:?}");

    // Of much the follower hears at once, to apply it meanwhile.
    let now = Instant::now();
    let mut much = append(at(12), &[at(13)], at(12));
    much.entries[0].payload = openraft::EntryPayload::Normal(crate::types::Stamped {
        stamp_ms: 0,
        bytes: Bytes::from(vec![0; COMMIT_WORD_WAITS_BYTES]),
    });
    requests.unbounded_send(much).unwrap();
    requests.unbounded_send(append(at(13), &[], at(13))).unwrap();
    assert!(stream.next().now_or_never().is_none());
    assert_eq!((follower.receives().await.1, follower.receives().await.1), (vec![at(13)], vec![]));
    assert_eq!(Instant::now(), now);
    follower.answers(id, at(13)).await;
    follower.answers(id, at(13)).await;
    stream.next().await.unwrap().unwrap().unwrap();

    // A word that waits goes before the stream ends, and is answered.
    requests.unbounded_send(append(at(13), &[at(14)], at(13))).unwrap();
    requests.unbounded_send(append(at(14), &[], at(14))).unwrap();
    drop(requests);
    assert!(stream.next().now_or_never().is_none());
    assert_eq!((follower.receives().await.1, follower.receives().await.1), (vec![at(14)], vec![]));
    follower.answers(id, at(14)).await;
    follower.answers(id, at(14)).await;
    let got = stream.next().await.unwrap().unwrap();
    assert!(matches!(got, Ok(Some(matching)) if matching == at(14)), "{got:?}");
    assert!(stream.next().await.is_none());
    // What the follower has acknowledged is remembered, and it is not to dispute it.
    let known = Acknowledged { leader_term: 3, last: at(14) };
    assert_eq!(memory.of(NodeId(2)), Some(known));
    let of = Acknowledgements { group: 1, target: NodeId(2), memory };
    let asked = |term| Asked { term, prev: Some(at(20)), last: Some(at(20)) };
    for (disputed, term, passes) in [(14, 3, false), (9, 3, false), (15, 3, true), (9, 4, true)] {
        let noted = of.note(Err(StreamAppendError::Conflict(at(disputed))), &asked(term));
        assert_eq!(noted.is_ok(), passes, "{disputed} in term {term}");
    }
}
