//! What nodes ask each other beside Raft: are you there, your digests, who leads, records of history,
//! on which disk a member is.
//!
//! **Owns** these questions' bytes and their answers. **Must never** trust the length of what came.
//! **Read next**: [`crate::digest`], [`crate::reconcile`].

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ledger_core::ledger::Digest;
use ledger_raft::{NodeId, PeerHandler};

use crate::history::backfill;
use crate::limits::MEMBERS_MAX;
use crate::meta::MemberEntry;
use crate::node::Node;
use crate::rejoin::{self, Disks};

/// A question of one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Are you there, and serving?
    Ping,
    /// The digests your replica of a shard has kept.
    Digests {
        /// Which shard.
        shard: u32,
    },
    /// The majority has another digest at that index than you: reinstall from `from`.
    Outvoted {
        /// Which shard.
        shard: u32,
        /// The majority's digest.
        digest: Digest,
        /// A replica of the majority.
        from: NodeId,
    },
    /// Who leads your shards.
    Leaders,
    /// Records of history, as [`backfill`] writes it.
    History(Bytes),
    /// I am reached there now; for the leader of the meta group.
    Moved(MemberEntry),
    /// On which disks these members are, as you know, and what you have heard of them.
    Disks(BTreeSet<u64>),
    /// These members come back on these disks: refuse the ones before.
    TakeDisks(Disks),
}

const PING: u8 = 0;
const DIGESTS: u8 = 1;
const OUTVOTED: u8 = 2;
const LEADERS: u8 = 3;
const HISTORY: u8 = 4;
const MOVED: u8 = 5;
const DISKS: u8 = 6;
const TAKE_DISKS: u8 = 7;
const DIGEST_BYTES: usize = 24;
const LEADER_BYTES: usize = 12;

impl Question {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        match self {
            Self::Ping => out.put_u8(PING),
            Self::Digests { shard } => {
                out.put_u8(DIGESTS);
                out.put_u32(*shard);
            }
            Self::Outvoted { shard, digest, from } => {
                out.put_u8(OUTVOTED);
                out.put_u32(*shard);
                put_digest(&mut out, digest);
                out.put_u64(from.0);
            }
            Self::Leaders => out.put_u8(LEADERS),
            Self::History(ask) => {
                out.put_u8(HISTORY);
                out.put_slice(ask);
            }
            Self::Moved(entry) => {
                out.put_u8(MOVED);
                for text in [&entry.client, &entry.peer, &entry.http] {
                    out.put_u16(text.len() as u16);
                    out.put_slice(text.as_bytes());
                }
                out.put_u64(entry.node);
            }
            Self::Disks(nodes) => {
                out.put_u8(DISKS);
                nodes.iter().for_each(|node| out.put_u64(*node));
            }
            Self::TakeDisks(disks) => {
                out.put_u8(TAKE_DISKS);
                rejoin::put_disks(&mut out, disks);
            }
        }
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.first().copied()?;
        bytes.advance(1);
        match (kind, bytes.len()) {
            (PING, 0) => Some(Self::Ping),
            (DIGESTS, 4) => Some(Self::Digests { shard: bytes.get_u32() }),
            (OUTVOTED, n) if n == 4 + DIGEST_BYTES + 8 => {
                let shard = bytes.get_u32();
                let digest = get_digest(&mut bytes);
                Some(Self::Outvoted { shard, digest, from: NodeId(bytes.get_u64()) })
            }
            (LEADERS, 0) => Some(Self::Leaders),
            (HISTORY, _) => Some(Self::History(bytes)),
            (MOVED, n) if n <= MOVED_BYTES_MAX => get_moved(bytes).map(Self::Moved),
            (DISKS, n) if n.is_multiple_of(8) && n / 8 <= MEMBERS_MAX => {
                Some(Self::Disks(std::iter::from_fn(|| bytes.try_get_u64().ok()).collect()))
            }
            (TAKE_DISKS, _) => rejoin::take_all_disks(bytes).map(Self::TakeDisks),
            _ => None,
        }
    }
}

/// Three addresses, each a DNS name at most, and a number.
const MOVED_BYTES_MAX: usize = 3 * (2 + 261) + 8;

fn get_moved(mut bytes: Bytes) -> Option<MemberEntry> {
    let mut text = || {
        let len = bytes.try_get_u16().ok()?.into();
        if bytes.len() < len {
            return None;
        }
        let text = String::from_utf8(bytes.split_to(len).to_vec()).ok()?;
        settings::keys::split_address(&text).is_some().then_some(text)
    };
    let (client, peer, http) = (text()?, text()?, text()?);
    (bytes.len() == 8).then(|| MemberEntry { node: bytes.get_u64(), client, peer, http })
}

fn put_digest(out: &mut BytesMut, digest: &Digest) {
    out.put_u64(digest.index);
    out.put_u128(digest.value);
}

fn get_digest(bytes: &mut Bytes) -> Digest {
    Digest { index: bytes.get_u64(), value: bytes.get_u128() }
}

pub(crate) fn encode_digests(digests: &[Digest]) -> Bytes {
    let mut out = BytesMut::with_capacity(digests.len() * DIGEST_BYTES);
    digests.iter().for_each(|digest| put_digest(&mut out, digest));
    out.freeze()
}

pub(crate) fn decode_digests(mut bytes: Bytes) -> io::Result<Vec<Digest>> {
    if !bytes.len().is_multiple_of(DIGEST_BYTES) || bytes.len() / DIGEST_BYTES > ledger_core::limits::DIGESTS_KEPT {
        return Err(malformed("digests"));
    }
    Ok((0..bytes.len() / DIGEST_BYTES).map(|_| get_digest(&mut bytes)).collect())
}

pub(crate) fn encode_leaders(leaders: &[(u32, NodeId)]) -> Bytes {
    let mut out = BytesMut::with_capacity(leaders.len() * LEADER_BYTES);
    for (shard, leader) in leaders {
        out.put_u32(*shard);
        out.put_u64(leader.0);
    }
    out.freeze()
}

pub(crate) fn decode_leaders(mut bytes: Bytes) -> io::Result<Vec<(u32, NodeId)>> {
    if !bytes.len().is_multiple_of(LEADER_BYTES) || bytes.len() / LEADER_BYTES > crate::limits::SHARDS_MAX as usize {
        return Err(malformed("leaders"));
    }
    Ok((0..bytes.len() / LEADER_BYTES).map(|_| (bytes.get_u32(), NodeId(bytes.get_u64()))).collect())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a peer's {what} are malformed"))
}

/// Answers the questions of peers; holds the node weakly, since the node holds the transport that holds this.
pub(crate) fn handler(node: Weak<Node>) -> PeerHandler {
    Arc::new(move |from, request| {
        let node = node.clone();
        Box::pin(async move {
            let node = node.upgrade().ok_or_else(|| io::Error::other("the node is stopping"))?;
            let question = Question::decode(request).ok_or_else(|| malformed("questions"))?;
            match question {
                // Nobody speaks for others.
                Question::Moved(entry) if entry.node == from.0 => {
                    node.take_addresses(&entry).await.map_err(io::Error::other)?;
                    Ok(Bytes::new())
                }
                Question::TakeDisks(disks) => node.take_disks(disks).await.map(|()| Bytes::new()),
                Question::History(ask) => {
                    let history = node.history().ok_or_else(|| io::Error::other("no history here yet"))?;
                    if !history.reads_block() {
                        return backfill::answer(history.as_ref(), &ask);
                    }
                    // It may wait for the disk, and other questions must not.
                    let read = tokio::task::spawn_blocking(move || backfill::answer(history.as_ref(), &ask));
                    read.await.map_err(io::Error::other)?
                }
                question => answer(&node, from, question),
            }
        })
    })
}

fn answer(node: &Arc<Node>, from: NodeId, question: Question) -> io::Result<Bytes> {
    let no_shard = |shard| io::Error::new(io::ErrorKind::NotFound, format!("no replica of shard {shard} here"));
    match question {
        // Asked before leadership is offered: a replica that cannot apply what is committed would only give it back.
        Question::Ping => match node.state() {
            crate::node::NodeState::Serving if node.shards().iter().any(|s| s.status().apply_halted.is_some()) => {
                Err(io::Error::other("a replica here does not apply what is committed"))
            }
            crate::node::NodeState::Serving => Ok(Bytes::new()),
            state => Err(io::Error::other(format!("the node is {}", state.name()))),
        },
        Question::Digests { shard } => {
            let shard = node.shard(shard).ok_or_else(|| no_shard(shard))?;
            // A replica that is stopped keeps its old state until it is reinstalled, and has no vote about it.
            let stopped = shard.status().stopped.is_some();
            let digests = if stopped { Vec::new() } else { shard.with_ledger(|ledger| ledger.digests()) };
            Ok(encode_digests(&digests))
        }
        Question::Outvoted { shard, digest, from: good } => {
            let shard = node.shard(shard).ok_or_else(|| no_shard(shard))?;
            crate::digest::outvoted(node, &shard, digest, good, from);
            Ok(Bytes::new())
        }
        Question::Leaders => {
            let leaders: Vec<_> =
                node.shards().iter().filter_map(|s| Some((s.id(), node.leader_of(s.id())?))).collect();
            Ok(encode_leaders(&leaders))
        }
        Question::Disks(nodes) => Ok(node.view(&nodes).encode()),
        // Answered before: they may wait.
        Question::TakeDisks(_) => Err(io::Error::other("disks are not taken here")),
        Question::History(_) => Err(io::Error::other("history is not read here")),
        Question::Moved(_) => Err(io::Error::other("a node tells its own addresses and no other's")),
    }
}

#[cfg(test)]
mod tests {
    use ledger_raft::DiskId;

    use super::*;
    use crate::data_dir::MemberDisk;

    #[test]
    fn questions_come_back_as_they_went_and_garbage_does_not() {
        let digest = Digest { index: 1024, value: u128::MAX - 5 };
        for question in [
            Question::Ping,
            Question::Digests { shard: 7 },
            Question::Outvoted { shard: 1, digest, from: NodeId(3) },
            Question::Leaders,
            Question::History(Bytes::from_static(b"ask")),
            Question::Moved(MemberEntry { node: 9, client: "a:1".into(), peer: "b:2".into(), http: "[::1]:3".into() }),
            Question::Disks([2, 5].into()),
            Question::TakeDisks([(2, MemberDisk { generation: 1, id: DiskId([7; 16]) })].into()),
        ] {
            assert_eq!(Question::decode(question.encode()), Some(question));
        }
        for garbage in [
            &b""[..],
            &[9],
            &[1, 0],
            &[2; 10],
            &[0, 0],
            &[5; 700],
            &[5, 0, 3, 97, 58, 49],
            &[5, 0, 1, 97, 0, 0, 0, 0],
            &[6, 1],
            &[7; 30],
            &[7; 200],
        ] {
            assert_eq!(Question::decode(Bytes::copy_from_slice(garbage)), None);
        }
        assert_eq!(decode_digests(encode_digests(&[digest])).unwrap(), [digest]);
        assert!(decode_digests(Bytes::from_static(b"short")).is_err());
        assert_eq!(decode_leaders(encode_leaders(&[(2, NodeId(9))])).unwrap(), [(2, NodeId(9))]);
    }
}
