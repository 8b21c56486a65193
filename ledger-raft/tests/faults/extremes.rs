//! Numbers that no member sends, over raw connections to and from running nodes: nobody ends, and the cluster goes on.

#![expect(
    clippy::disallowed_methods,
    reason = "raw connections and the wall clock are what the nodes are compared with"
)]

use std::io;

use crate::common::{Cluster, G, PATIENCE, disk_of, tuning};
use ledger_raft::limits::{FRAME_BYTES_MAX, INDEX_MAX, TERM_MAX, TERM_STEP_MAX};
use ledger_raft::{DiskId, NodeId, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const CONTROL: u8 = 1;
pub(crate) const BULK: u8 = 2;

pub(crate) const PING: u8 = 1;
const PONG: u8 = 2;
const ANSWER: u8 = 3;
const VOTE: u8 = 10;
const PRE_VOTE: u8 = 11;
pub(crate) const HEARTBEAT: u8 = 12;
const TRANSFER: u8 = 13;
const READ_INDEX: u8 = 14;
const CLOCK: u8 = 15;
const TERM: u8 = 17;
const SNAPSHOT_OFFER: u8 = 18;
const SNAPSHOT_FIND: u8 = 19;
pub(crate) const SNAPSHOT_READ: u8 = 20;
const STREAM_OPEN: u8 = 30;
const STREAM_APPEND: u8 = 31;
const STREAM_CLOSE: u8 = 32;
const STREAM_ANSWER: u8 = 33;

const EXTREMES: [u64; 8] =
    [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, TERM_MAX + 1, TERM_MAX, 2 * TERM_STEP_MAX, INDEX_MAX];

pub(crate) fn hello(cluster: [u8; 16], from: u64, to: u64, lane: u8) -> Vec<u8> {
    hello_on(disk_of(NodeId(from)), cluster, from, to, lane)
}

/// Of a node that is on this disk.
pub(crate) fn hello_on(disk: DiskId, cluster: [u8; 16], from: u64, to: u64, lane: u8) -> Vec<u8> {
    hello_of_run(9, disk, cluster, from, to, lane)
}

/// Of one process of that node.
pub(crate) fn hello_of_run(run: u64, disk: DiskId, cluster: [u8; 16], from: u64, to: u64, lane: u8) -> Vec<u8> {
    let mut b = b"HFPEER\r\n".to_vec();
    b.extend(ledger_raft::limits::PEER_PROTOCOL.to_le_bytes());
    b.push(lane);
    b.extend([0; 5]);
    b.extend(cluster);
    b.extend(1u64.to_le_bytes());
    b.extend(from.to_le_bytes());
    b.extend(to.to_le_bytes());
    b.extend(disk.0);
    b.extend(run.to_le_bytes());
    b.extend([0; 4]);
    b.extend(crc32c::crc32c(&b).to_le_bytes());
    b
}

pub(crate) fn frame(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut b = (body.len() as u32).to_le_bytes().to_vec();
    b.extend([0; 4]);
    b.extend([kind, 0, 0, 0]);
    b.extend(G.0.to_le_bytes());
    b.extend(id.to_le_bytes());
    b.extend(body);
    let crc = crc32c::crc32c(&b[8..]);
    b[4..8].copy_from_slice(&crc.to_le_bytes());
    b
}

pub(crate) fn vote(term: u64, of: u64, committed: u8) -> Vec<u8> {
    [&term.to_le_bytes()[..], &of.to_le_bytes(), &[committed, 0, 0, 0, 0, 0, 0, 0]].concat()
}

pub(crate) fn log_id(term: u64, index: u64) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0, 0, 0][..], &term.to_le_bytes(), &index.to_le_bytes()].concat()
}

fn entry(term: u64, index: u64, stamp: u64, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    let stamp = stamp.to_le_bytes();
    [&term.to_le_bytes()[..], &index.to_le_bytes(), &stamp, &[1, 0, 0, 0], &len, body].concat()
}

fn append(vote: &[u8], prev: &[u8], commit: &[u8], n: u32, entries: &[u8]) -> Vec<u8> {
    append_knowing(&[], vote, prev, commit, n, entries)
}

/// What the leader knows of members: for each its node, its leader's term, and a log id.
pub(crate) fn append_knowing(
    by: &[[u64; 4]],
    vote: &[u8],
    prev: &[u8],
    commit: &[u8],
    n: u32,
    entries: &[u8],
) -> Vec<u8> {
    let known = by.iter().flatten().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    [vote, prev, commit, &n.to_le_bytes(), &(by.len() as u16).to_le_bytes(), &known, entries].concat()
}

/// What a frame has to say that goes wrong in one number.
fn questions(term: u64, last: u64, from: u64) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let (good, at) = (vote(term, from, 1), log_id(term, last));
    for x in EXTREMES {
        let n = x.to_le_bytes();
        for kind in [VOTE, PRE_VOTE] {
            all.push((kind, [vote(x, from, 0), log_id(x, x), vec![0]].concat()));
            all.push((kind, [vote(x, from, 0), at.clone(), vec![1]].concat()));
            all.push((kind, [vote(x, u64::MAX, 1), at.clone(), vec![1]].concat()));
        }
        all.push((HEARTBEAT, append(&vote(x, from, 1), &at, &at, 0, &[])));
        all.push((HEARTBEAT, append(&vote(x, from, 0), &at, &at, 0, &[])));
        all.push((HEARTBEAT, append(&vote(term, x, 1), &at, &at, 0, &[])));
        all.push((HEARTBEAT, append(&good, &log_id(x, last), &at, 0, &[])));
        all.push((HEARTBEAT, append(&good, &log_id(term, x), &at, 0, &[])));
        all.push((HEARTBEAT, append(&good, &at, &log_id(x, x), 0, &[])));
        all.push((HEARTBEAT, append(&good, &at, &at, x as u32, &[])));
        all.push((HEARTBEAT, append(&good, &at, &at, 1, &entry(x, last + 1, 0, b""))));
        all.push((HEARTBEAT, append(&good, &log_id(term, x - 1), &at, 1, &entry(term, x, 0, b""))));
        all.push((HEARTBEAT, append(&good, &at, &at, 1, &entry(term, last + 1, x, b"a stamp"))));
        all.push((TRANSFER, [vote(x, from, 1), at.clone(), n.to_vec()].concat()));
        all.push((CLOCK, [n, n, n, n, n].concat()));
        all.push((CLOCK, [n, n, n].concat()));
        all.push((SNAPSHOT_FIND, n.to_vec()));
        all.push((SNAPSHOT_READ, [&n[..], &n, &u32::MAX.to_le_bytes()].concat()));
        all.push((SNAPSHOT_OFFER, [vote(term, from, 1), log_id(x, x), n.to_vec(), vec![0, 0]].concat()));
        all.push((SNAPSHOT_OFFER, [vote(x, from, 1), log_id(term, last), n.to_vec(), vec![0, 0]].concat()));
        all.push((SNAPSHOT_OFFER, [vote(term, from, 1), log_id(term, last + 1), n.to_vec(), vec![0, 0]].concat()));
        all.push((READ_INDEX, n.to_vec()));
        all.push((TERM, n.to_vec()));
    }
    let falling = [entry(term, last + 1, 0, b""), entry(0, last + 2, 0, b"")].concat();
    all.push((HEARTBEAT, append(&good, &at, &at, 2, &falling)));
    all
}

/// A connection that was welcomed.
pub(crate) async fn connect(addr: &str, cluster: [u8; 16], from: u64, to: u64, lane: u8) -> io::Result<TcpStream> {
    let mut io = TcpStream::connect(addr).await?;
    io.write_all(&hello(cluster, from, to, lane)).await?;
    let mut welcome = [0; 24 + 28];
    io.read_exact(&mut welcome).await?;
    assert_eq!(welcome[8], 0, "welcomed");
    Ok(io)
}

/// Reads frames until one has this kind; false when the connection ends first.
pub(crate) async fn until_frame(io: &mut TcpStream, id: u64) -> bool {
    loop {
        let mut head = [0; 24];
        if io.read_exact(&mut head).await.is_err() {
            return false;
        }
        let len = u32::from_le_bytes(head[0..4].try_into().unwrap()) as usize;
        let mut body = vec![0; len];
        if io.read_exact(&mut body).await.is_err() {
            return false;
        }
        if u64::from_le_bytes(head[16..24].try_into().unwrap()) == id {
            return true;
        }
    }
}

#[tokio::test]
async fn a_peer_that_asks_with_extremes_ends_no_node_and_no_group() {
    let c = Cluster::start(3, tuning()).await;
    for i in 0..20u8 {
        c.propose(&[i]).await;
    }
    let at = c.propose(b"before").await;
    c.agree(at.index).await;
    let term = c.nodes[&1].group.status().term;
    let leader = c.leader().await;
    // Through a follower and through the leader, in the name of each other member.
    for to in [leader, leader % 3 + 1] {
        let from = (1..=3).find(|id| *id != to && *id != leader).unwrap();
        let addr = &c.addrs[&NodeId(to)];
        for (n, (kind, body)) in questions(term, at.index, from).into_iter().enumerate() {
            let id = n as u64 + 1;
            let lane = if kind == SNAPSHOT_READ { BULK } else { CONTROL };
            let mut io = connect(addr, c.cluster, from, to, lane).await.expect("the node listens");
            io.write_all(&frame(kind, id, &body)).await.unwrap();
            // Answered, or the connection is closed; never silence.
            let over = tokio::time::timeout(PATIENCE, until_frame(&mut io, id)).await;
            assert!(over.is_ok(), "question {n} of kind {kind} to node {to} is not answered");
            if kind == HEARTBEAT {
                let mut io = connect(addr, c.cluster, from, to, BULK).await.expect("the node listens");
                let stream =
                    [frame(STREAM_OPEN, id, &[]), frame(STREAM_APPEND, id, &body), frame(STREAM_CLOSE, id, &[])];
                io.write_all(&stream.concat()).await.unwrap();
                let over = tokio::time::timeout(PATIENCE, until_frame(&mut io, id)).await;
                assert!(over.is_ok(), "stream {n} to node {to} is not answered");
            }
        }
        // A length alone.
        let mut io = connect(addr, c.cluster, from, to, CONTROL).await.expect("the node listens");
        let mut long = frame(HEARTBEAT, 1, &[]);
        long[0..4].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        io.write_all(&long).await.unwrap();
        assert!(!until_frame(&mut io, 1).await);
    }
    goes_on(&c, term, 21).await;
}

/// All replicas live, terms are those of a few elections, and leadership still moves.
async fn goes_on(c: &Cluster, term: u64, count: u64) {
    for (id, n) in &c.nodes {
        let status = n.group.status();
        assert!(status.stopped.is_none() && status.role != Role::Stopped, "node {id}: {status:?}");
        assert!(status.term < term + TERM_STEP_MAX, "node {id}: {status:?}");
    }
    let leader = c.leader().await;
    let to = c.nodes.keys().copied().find(|id| *id != leader).unwrap();
    c.nodes[&leader].group.transfer_leader(NodeId(to), PATIENCE).await.expect("handed over");
    let at = c.propose(b"after").await;
    let t = c.agree(at.index).await;
    assert_eq!(t.count, count + 1, "nothing was slipped into the log");
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(t.stamp_ms.abs_diff(wall) < 600_000, "ledger time is {} at {wall}", t.stamp_ms);
}

/// Answers whatever it is asked with an extreme, a different one each time.
async fn answer_all(mut io: TcpStream, me: u64) -> io::Result<()> {
    let mut raw = [0; 88];
    io.read_exact(&mut raw).await?;
    let mut welcome = b"HFPEER\r\n".to_vec();
    welcome.extend([0, 0]);
    welcome.extend(ledger_raft::limits::PEER_PROTOCOL.to_le_bytes());
    welcome.extend(me.to_le_bytes());
    welcome.extend(crc32c::crc32c(&welcome).to_le_bytes());
    welcome.extend(disk_of(NodeId(me)).0);
    welcome.extend(9u64.to_le_bytes());
    welcome.extend(crc32c::crc32c(&welcome[24..]).to_le_bytes());
    io.write_all(&welcome).await?;
    for n in 0.. {
        let mut head = [0; 24];
        io.read_exact(&mut head).await?;
        let len = u32::from_le_bytes(head[0..4].try_into().unwrap()) as usize;
        let mut body = vec![0; len];
        io.read_exact(&mut body).await?;
        let (kind, id) = (head[8], u64::from_le_bytes(head[16..24].try_into().unwrap()));
        let x = EXTREMES[n % EXTREMES.len()];
        let number = x.to_le_bytes();
        let (granted, higher) = ((n % 2) as u8, [vec![3], vote(x, me, (n % 2) as u8)].concat());
        let answer = match kind {
            PING => frame(PONG, id, &[]),
            VOTE | PRE_VOTE => frame(ANSWER, id, &[vote(x, me, granted), log_id(x, x), vec![granted]].concat()),
            HEARTBEAT if n % 3 == 0 => frame(ANSWER, id, &higher),
            HEARTBEAT => frame(ANSWER, id, &[vec![1], log_id(x, x)].concat()),
            CLOCK => frame(ANSWER, id, &[number; 4].concat()),
            STREAM_APPEND if n % 3 == 0 => frame(STREAM_ANSWER, id, &[vec![2], vote(x, me, 1)].concat()),
            STREAM_APPEND => frame(STREAM_ANSWER, id, &[vec![(n % 2) as u8], log_id(x, x)].concat()),
            STREAM_OPEN | STREAM_CLOSE => continue,
            _ => frame(ANSWER, id, &number.repeat(3)),
        };
        io.write_all(&answer).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_that_answers_with_extremes_ends_no_node_and_no_group() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let term = c.nodes[&1].group.status().term;
    let liar = c.leader().await % 3 + 1;
    c.kill(liar);
    let listener = TcpListener::bind(&c.addrs[&NodeId(liar)]).await.expect("its port is free");
    let answers = tokio::spawn(async move {
        // They end with this task.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            connections.spawn(answer_all(io, liar));
        }
    });
    // Long enough for clock readings, heartbeats and appends of every kind; then the two vote about each other.
    for i in 0..200u32 {
        c.propose(&i.to_le_bytes()).await;
    }
    for _ in 0..3 {
        let leader = c.leader().await;
        let to = c.nodes.keys().copied().find(|id| *id != leader).unwrap();
        c.nodes[&leader].group.transfer_leader(NodeId(to), PATIENCE).await.expect("handed over");
        c.propose(b"led by the other").await;
    }
    goes_on(&c, term, 204).await;
    answers.abort();
    let _aborted = answers.await;
    c.up(liar).await;
    let last = tokio::time::timeout(PATIENCE, c.propose(b"last")).await.expect("with all three");
    c.agree(last.index).await;
}
