//! The first words on a peer connection.
//!
//! **Owns** their layout, and who may be a peer. The dialler says who it is, on which disk, and whom
//! it wants; the listener agrees or names its reason. A connection is between two members of one
//! cluster and incarnation, each on the disk that the other knows it by, as long as it lasts.
//! **Read next**: [`super::link`].

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::members::{Members, is_on_its_disk};
use crate::api::{DiskId, NodeId};
use crate::codec::malformed;
use crate::limits::{HANDSHAKE_WITHIN, PEER_PROTOCOL as PROTOCOL};
use crate::seam::BoxIo;

const MAGIC: &[u8; 8] = b"HFPEER\r\n";
/// Magic and protocol, the same in every version: what follows is read only once they are ours.
const PREFIX_BYTES: usize = 10;
const HELLO_BYTES: usize = 88;
/// The same in every version, so that any dialler can read why it was refused.
const WELCOME_BYTES: usize = 24;
/// What follows a welcome that refuses nothing: the listener's disk and run.
const LISTENER_BYTES: usize = 28;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Control = 1,
    Bulk = 2,
}

/// Who a node is, to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: u64,
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// Drawn at random by each process: tells two of them apart that run as one node.
    pub(crate) run: u64,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    pub(crate) run: u64,
    pub(crate) lane: Lane,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the peer speaks another protocol version")]
    Protocol = 1,
    #[error("the peer belongs to another cluster")]
    Cluster = 2,
    #[error("the peer is of another incarnation of the cluster")]
    Incarnation = 3,
    #[error("another node answers at that address")]
    Node = 4,
    #[error(
        "a known node is on another disk than the members know: what it acknowledged lies on the disk it had; hint: \
         start it on that data directory, or bring it back on an empty one with `ledgerctl node rejoin`"
    )]
    Disk = 5,
    #[error("the dialling node is no member that the other node knows")]
    Member = 6,
}

impl Refusal {
    fn from_wire(b: u8) -> Option<Self> {
        [Self::Protocol, Self::Cluster, Self::Incarnation, Self::Node, Self::Disk, Self::Member]
            .into_iter()
            .find(|r| *r as u8 == b)
    }
}

fn hello(me: &Identity, to: NodeId, lane: Lane) -> BytesMut {
    let mut b = BytesMut::with_capacity(HELLO_BYTES);
    b.put_slice(MAGIC);
    b.put_u16_le(PROTOCOL);
    b.put_u8(lane as u8);
    b.put_bytes(0, 5);
    b.put_slice(&me.cluster);
    b.put_u64_le(me.incarnation);
    b.put_u64_le(me.node.0);
    b.put_u64_le(to.0);
    b.put_slice(&me.disk.0);
    b.put_u64_le(me.run);
    b.put_bytes(0, 4);
    b.put_u32_le(crc32c::crc32c(&b));
    b
}

/// The bytes of `raw` before its checksum, when that is right.
fn summed<'a>(raw: &'a [u8], what: &str) -> io::Result<&'a [u8]> {
    match raw.split_last_chunk::<4>() {
        Some((rest, sum)) if crc32c::crc32c(rest).to_le_bytes() == *sum => Ok(rest),
        _ => Err(malformed(what)),
    }
}

async fn within<T>(f: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE_WITHIN, f)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "peer handshake took too long"))?
}

fn refused(why: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Dialler's side: agrees with `to` on `disk`, and with nobody else. The listener's run.
pub(crate) async fn greet(io: &mut BoxIo, me: &Identity, to: NodeId, disk: DiskId, lane: Lane) -> io::Result<u64> {
    within(async {
        io.write_all(&hello(me, to, lane)).await?;
        io.flush().await?;
        let mut raw = [0u8; WELCOME_BYTES];
        io.read_exact(&mut raw).await?;
        let head = summed(&raw, "peer welcome")?;
        if &head[..8] != MAGIC {
            return Err(malformed("peer welcome"));
        }
        match head[8] {
            0 => {}
            b => return Err(Refusal::from_wire(b).map_or_else(|| malformed("peer welcome"), refused)),
        }
        let mut raw = [0u8; LISTENER_BYTES];
        io.read_exact(&mut raw).await?;
        let mut listener = summed(&raw, "peer welcome")?;
        let mut found = DiskId::default();
        listener.copy_to_slice(&mut found.0);
        if !is_on_its_disk(disk, found) {
            return Err(refused(Refusal::Disk));
        }
        Ok(listener.get_u64_le())
    })
    .await
}

/// Listener's side: who calls and for what, or the reason why it was refused, which it is sent.
pub(crate) async fn receive(io: &mut BoxIo, me: &Identity, members: &Members) -> io::Result<Result<Caller, Refusal>> {
    within(async {
        let mut raw = [0u8; HELLO_BYTES];
        io.read_exact(&mut raw[..PREFIX_BYTES]).await?;
        if &raw[..8] != MAGIC {
            return Err(malformed("peer hello"));
        }
        let verdict = if raw[8..PREFIX_BYTES] == PROTOCOL.to_le_bytes() {
            io.read_exact(&mut raw[PREFIX_BYTES..]).await?;
            judge(&raw, me, members)?
        } else {
            Err(Refusal::Protocol)
        };
        let mut w = BytesMut::with_capacity(WELCOME_BYTES + LISTENER_BYTES);
        w.put_slice(MAGIC);
        w.put_u8(verdict.err().map_or(0, |r| r as u8));
        w.put_bytes(0, 1);
        w.put_u16_le(PROTOCOL);
        w.put_u64_le(me.node.0);
        w.put_u32_le(crc32c::crc32c(&w));
        if verdict.is_ok() {
            w.put_slice(&me.disk.0);
            w.put_u64_le(me.run);
            w.put_u32_le(crc32c::crc32c(&w[WELCOME_BYTES..]));
        }
        io.write_all(&w).await?;
        io.flush().await?;
        Ok(verdict)
    })
    .await
}

/// What a whole hello of our protocol deserves.
fn judge(raw: &[u8; HELLO_BYTES], me: &Identity, members: &Members) -> io::Result<Result<Caller, Refusal>> {
    let mut b = summed(raw, "peer hello")?;
    b.advance(PREFIX_BYTES);
    let lane = match b.get_u8() {
        1 => Lane::Control,
        2 => Lane::Bulk,
        _ => return Err(malformed("peer hello")),
    };
    b.advance(5);
    let mut cluster = [0u8; 16];
    b.copy_to_slice(&mut cluster);
    let incarnation = b.get_u64_le();
    let node = NodeId(b.get_u64_le());
    let to = NodeId(b.get_u64_le());
    let mut disk = DiskId::default();
    b.copy_to_slice(&mut disk.0);
    let run = b.get_u64_le();
    Ok(if cluster != me.cluster {
        Err(Refusal::Cluster)
    } else if incarnation != me.incarnation {
        Err(Refusal::Incarnation)
    } else if to != me.node {
        Err(Refusal::Node)
    } else {
        match members.disk_of(node).filter(|_| node != me.node) {
            None if !crate::bad!("peer-not-asked") => Err(Refusal::Member),
            Some(known) if !is_on_its_disk(known, disk) => Err(Refusal::Disk),
            _ => Ok(Caller { node, disk, run, lane }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = Identity { cluster: [1; 16], incarnation: 1, node: NodeId(1), disk: DiskId([11; 16]), run: 5 };
    const B: Identity = Identity { node: NodeId(2), disk: DiskId([22; 16]), run: 6, ..A };

    fn members() -> Members {
        let members = Members::default();
        for node in [A, B] {
            members.know(node.node, node.disk).expect("new");
        }
        members
    }

    type Met = (io::Result<u64>, io::Result<Result<Caller, Refusal>>);

    async fn meet(dialler: Identity, listener: Identity, to: NodeId, disk: DiskId) -> Met {
        let (a, b) = tokio::io::duplex(256);
        let (mut a, mut b): (BoxIo, BoxIo) = (Box::new(a), Box::new(b));
        let members = members();
        tokio::join!(greet(&mut a, &dialler, to, disk, Lane::Bulk), receive(&mut b, &listener, &members))
    }

    #[tokio::test]
    async fn members_meet_and_learn_each_others_run() {
        let (dialler, listener) = meet(A, B, B.node, B.disk).await;
        assert_eq!(dialler.expect("welcome"), B.run);
        assert_eq!(listener.expect("a hello"), Ok(Caller { node: A.node, disk: A.disk, run: A.run, lane: Lane::Bulk }));
    }

    #[tokio::test]
    async fn callers_that_are_no_peers_are_refused_by_name() {
        for (dialler, listener, to, why) in [
            (A, Identity { cluster: [2; 16], ..B }, B.node, Refusal::Cluster),
            (A, Identity { incarnation: 2, ..B }, B.node, Refusal::Incarnation),
            (A, B, NodeId(3), Refusal::Node),
            (Identity { node: NodeId(3), ..A }, B, B.node, Refusal::Member),
            (Identity { disk: A.disk, ..B }, B, B.node, Refusal::Member),
            (Identity { disk: DiskId([12; 16]), ..A }, B, B.node, Refusal::Disk),
        ] {
            let (dialler, listener) = meet(dialler, listener, to, B.disk).await;
            assert_eq!(listener.expect("a hello"), Err(why));
            let e = dialler.expect_err("refused");
            assert_eq!((e.kind(), e.to_string()), (io::ErrorKind::PermissionDenied, why.to_string()));
        }
    }

    #[tokio::test]
    async fn another_disk_that_answers_for_a_known_node_is_refused_by_the_dialler() {
        let (dialler, _) = meet(A, Identity { disk: DiskId([23; 16]), ..B }, B.node, B.disk).await;
        let e = dialler.expect_err("refused");
        assert_eq!((e.kind(), e.to_string()), (io::ErrorKind::PermissionDenied, Refusal::Disk.to_string()));
    }

    #[tokio::test]
    async fn another_protocol_is_refused_before_its_hello_is_whole() {
        let (mut theirs, ours) = tokio::io::duplex(256);
        let mut ours: BoxIo = Box::new(ours);
        let newer = [&MAGIC[..], &(PROTOCOL + 1).to_le_bytes()].concat();
        theirs.write_all(&newer).await.expect("room");
        assert_eq!(receive(&mut ours, &B, &members()).await.expect("answered"), Err(Refusal::Protocol));
        let mut welcome = [0; WELCOME_BYTES];
        theirs.read_exact(&mut welcome).await.expect("why");
        assert_eq!(welcome[8], Refusal::Protocol as u8);
        assert!(summed(&welcome, "welcome").is_ok());
    }

    /// Golden bytes: a change here is a new protocol.
    #[test]
    fn a_hello_keeps_its_bytes() {
        let mut golden = [0; HELLO_BYTES - 4];
        golden[..8].copy_from_slice(b"HFPEER\r\n");
        (golden[8], golden[10]) = (5, 2);
        golden[16..32].fill(1);
        (golden[32], golden[40], golden[48], golden[72]) = (1, 1, 2, 5);
        golden[56..72].fill(11);
        let bytes = hello(&A, B.node, Lane::Bulk);
        assert_eq!(bytes[..HELLO_BYTES - 4], golden);
        assert_eq!(bytes.len(), HELLO_BYTES);
    }
}
