//! The first words on a peer connection.
//!
//! **Owns** their layout. The dialler says who it is and whom it wants, the listener agrees or names its reason; nobody
//! talks to another cluster, another incarnation, another protocol, or a node that moved. **Read next**: [`super::link`].

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::NodeId;
use crate::codec::malformed;
use crate::limits::{HANDSHAKE_WITHIN, PEER_PROTOCOL as PROTOCOL};
use crate::seam::BoxIo;

const MAGIC: &[u8; 8] = b"HFPEER\r\n";
const HELLO_BYTES: usize = 64;
const WELCOME_BYTES: usize = 24;

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
}

impl Refusal {
    fn from_wire(b: u8) -> Option<Self> {
        [Self::Protocol, Self::Cluster, Self::Incarnation, Self::Node].into_iter().find(|r| *r as u8 == b)
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
    b.put_bytes(0, 4);
    b.put_u32_le(crc32c::crc32c(&b));
    b
}

async fn within<T>(f: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE_WITHIN, f)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "peer handshake took too long"))?
}

/// Dialler's side.
pub(crate) async fn greet(io: &mut BoxIo, me: &Identity, to: NodeId, lane: Lane) -> io::Result<()> {
    within(async {
        io.write_all(&hello(me, to, lane)).await?;
        io.flush().await?;
        let mut raw = [0u8; WELCOME_BYTES];
        io.read_exact(&mut raw).await?;
        if &raw[..8] != MAGIC || crc32c::crc32c(&raw[..20]).to_le_bytes() != raw[20..24] {
            return Err(malformed("peer welcome"));
        }
        match raw[8] {
            0 => Ok(()),
            b => Err(match Refusal::from_wire(b) {
                Some(r) => io::Error::new(io::ErrorKind::PermissionDenied, r),
                None => malformed("peer welcome"),
            }),
        }
    })
    .await
}

/// Listener's side: who calls and for what, or the reason it was refused (and told so).
pub(crate) async fn receive(io: &mut BoxIo, me: &Identity) -> io::Result<Result<(NodeId, Lane), Refusal>> {
    within(async {
        let mut raw = [0u8; HELLO_BYTES];
        io.read_exact(&mut raw).await?;
        let mut b = &raw[..];
        if &raw[..8] != MAGIC || crc32c::crc32c(&raw[..60]).to_le_bytes() != raw[60..64] {
            return Err(malformed("peer hello"));
        }
        b.advance(8);
        let protocol = b.get_u16_le();
        let lane = b.get_u8();
        b.advance(5);
        let mut cluster = [0u8; 16];
        b.copy_to_slice(&mut cluster);
        let incarnation = b.get_u64_le();
        let from = NodeId(b.get_u64_le());
        let to = NodeId(b.get_u64_le());
        let verdict = if protocol != PROTOCOL {
            Err(Refusal::Protocol)
        } else if cluster != me.cluster {
            Err(Refusal::Cluster)
        } else if incarnation != me.incarnation {
            Err(Refusal::Incarnation)
        } else if to != me.node {
            Err(Refusal::Node)
        } else {
            match lane {
                1 => Ok((from, Lane::Control)),
                2 => Ok((from, Lane::Bulk)),
                _ => return Err(malformed("peer hello")),
            }
        };
        let mut w = BytesMut::with_capacity(WELCOME_BYTES);
        w.put_slice(MAGIC);
        w.put_u8(verdict.err().map_or(0, |r| r as u8));
        w.put_bytes(0, 1);
        w.put_u16_le(PROTOCOL);
        w.put_u64_le(me.node.0);
        w.put_u32_le(crc32c::crc32c(&w));
        io.write_all(&w).await?;
        io.flush().await?;
        Ok(verdict)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = Identity { cluster: [1; 16], incarnation: 1, node: NodeId(1) };

    async fn meet(listener: Identity, to: NodeId) -> (io::Result<()>, Result<(NodeId, Lane), Refusal>) {
        let (a, b) = tokio::io::duplex(256);
        let (mut a, mut b): (BoxIo, BoxIo) = (Box::new(a), Box::new(b));
        let (x, y) = tokio::join!(greet(&mut a, &A, to, Lane::Bulk), receive(&mut b, &listener));
        (x, y.unwrap())
    }

    #[tokio::test]
    async fn strangers_are_refused_by_name() {
        let b = Identity { node: NodeId(2), ..A };
        assert_eq!(meet(b, NodeId(2)).await.1, Ok((NodeId(1), Lane::Bulk)));
        for (who, to, why) in [
            (Identity { cluster: [2; 16], ..b }, NodeId(2), Refusal::Cluster),
            (Identity { incarnation: 2, ..b }, NodeId(2), Refusal::Incarnation),
            (b, NodeId(3), Refusal::Node),
        ] {
            let (dialler, listener) = meet(who, to).await;
            assert_eq!(listener, Err(why));
            let e = dialler.unwrap_err();
            assert_eq!((e.kind(), e.to_string()), (io::ErrorKind::PermissionDenied, why.to_string()));
        }
    }
}
