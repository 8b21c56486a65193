//! The bytes of entries, votes, memberships and requests: fixed little-endian layouts of our own.
//!
//! **Owns** every persisted and wire layout of this crate that is not a frame around it. **Must never** panic on bytes, or
//! allocate by a length it has not checked. **Read next**: `docs/storage-format.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::RaftVote;

use crate::limits::{
    ADDRESS_BYTES_MAX, APPEND_ENTRIES_MAX, ENTRY_BYTES_MAX, INDEX_MAX, MEMBERS_MAX, STAMP_MS_MAX, TERM_MAX,
};
use crate::memory::AcknowledgedBy;
use crate::types::{
    CommittedLeaderId, Entry, LeaderId, LogId, Membership, Peer, Stamped, StoredMembership, Types, Vote, log_id,
};

/// Bytes of an entry's head: term 8, index 8, stamp 8, kind 1, zero 3, body length 4.
pub(crate) const ENTRY_HEAD_BYTES: usize = 32;
/// Bytes of a vote: term 8, node 8, committed 1, zero 7.
pub(crate) const VOTE_BYTES: usize = 24;
/// Bytes of an optional log id: present 1, zero 7, term 8, index 8.
const LOG_ID_BYTES: usize = 24;

const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

fn need(bytes: &impl Buf, len: usize, what: &str) -> io::Result<()> {
    if bytes.remaining() < len { Err(malformed(what)) } else { Ok(()) }
}

fn bounded(n: u64, max: u64, what: &str) -> io::Result<u64> {
    if n > max { Err(malformed(what)) } else { Ok(n) }
}

/// A term within its bound.
pub(crate) fn checked_term(term: u64) -> io::Result<u64> {
    bounded(term, TERM_MAX, "term: out of bounds")
}

/// An index within its bound.
pub(crate) fn checked_index(index: u64) -> io::Result<u64> {
    bounded(index, INDEX_MAX, "index: out of bounds")
}

/// A stamp within its bound.
pub(crate) fn checked_stamp(stamp_ms: u64) -> io::Result<u64> {
    bounded(stamp_ms, STAMP_MS_MAX, "stamp: out of bounds")
}

/// Head and body of an entry; the body of a normal entry is the node's own bytes, not copied.
pub(crate) fn entry_parts(entry: &Entry) -> ([u8; ENTRY_HEAD_BYTES], Bytes) {
    let (kind, stamp, body) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, 0, Bytes::new()),
        EntryPayload::Normal(d) => (KIND_NORMAL, d.stamp_ms, d.bytes.clone()),
        EntryPayload::Membership(m) => {
            let mut body = BytesMut::new();
            put_membership(&mut body, m);
            (KIND_MEMBERSHIP, 0, body.freeze())
        }
    };
    let mut head = [0u8; ENTRY_HEAD_BYTES];
    head[0..8].copy_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    head[8..16].copy_from_slice(&entry.log_id.index.to_le_bytes());
    head[16..24].copy_from_slice(&stamp.to_le_bytes());
    head[24] = kind;
    head[28..32].copy_from_slice(&(body.len() as u32).to_le_bytes());
    (head, body)
}

/// Takes one entry off the front; its body is a slice of `bytes`.
pub(crate) fn take_entry(bytes: &mut Bytes) -> io::Result<Entry> {
    need(bytes, ENTRY_HEAD_BYTES, "entry head")?;
    let head = bytes.split_to(ENTRY_HEAD_BYTES);
    let len = (&head[28..]).get_u32_le() as usize;
    need(bytes, len, "entry body")?;
    let body = bytes.split_to(len);
    entry_of_parts(&head, body)
}

/// Term and index in an entry's head.
pub(crate) fn head_position(mut head: &[u8]) -> io::Result<(u64, u64)> {
    need(&head, ENTRY_HEAD_BYTES, "entry head")?;
    Ok((checked_term(head.get_u64_le())?, checked_index(head.get_u64_le())?))
}

/// The inverse of [`entry_parts`].
pub(crate) fn entry_of_parts(mut head: &[u8], mut body: Bytes) -> io::Result<Entry> {
    let (term, index) = head_position(head)?;
    head.advance(16);
    let stamp_ms = checked_stamp(head.get_u64_le())?;
    let kind = head.get_u8();
    head.advance(3);
    let len = head.get_u32_le() as usize;
    if len != body.len() || len > ENTRY_BYTES_MAX {
        return Err(malformed("entry length"));
    }
    let payload = match kind {
        KIND_BLANK if len == 0 => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Stamped { stamp_ms, bytes: body }),
        KIND_MEMBERSHIP => EntryPayload::Membership(take_membership(&mut body)?),
        _ => return Err(malformed("entry kind")),
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

pub(crate) fn put_vote(out: &mut impl BufMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
    out.put_bytes(0, 7);
}

pub(crate) fn take_vote(bytes: &mut impl Buf) -> io::Result<Vote> {
    need(bytes, VOTE_BYTES, "vote")?;
    let term = checked_term(bytes.get_u64_le())?;
    let voted_for = bytes.get_u64_le();
    let committed = match bytes.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(malformed("vote")),
    };
    bytes.advance(7);
    Ok(Vote::from_leader_id(LeaderId { term, voted_for }, committed))
}

pub(crate) fn put_log_id(out: &mut impl BufMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    out.put_bytes(0, 7);
    out.put_u64_le(id.map_or(0, |id| id.leader_id.term));
    out.put_u64_le(id.map_or(0, |id| id.index));
}

pub(crate) fn take_log_id(bytes: &mut impl Buf) -> io::Result<Option<LogId>> {
    need(bytes, LOG_ID_BYTES, "log id")?;
    let present = bytes.get_u8();
    bytes.advance(7);
    let (term, index) = (bytes.get_u64_le(), bytes.get_u64_le());
    match present {
        0 => Ok(None),
        1 => Ok(Some(LogId::new(CommittedLeaderId::new(checked_term(term)?), checked_index(index)?))),
        _ => Err(malformed("log id")),
    }
}

pub(crate) fn put_membership(out: &mut impl BufMut, m: &Membership) {
    let configs = m.get_joint_config();
    out.put_u16_le(configs.len() as u16);
    for config in configs {
        out.put_u16_le(config.len() as u16);
        for id in config {
            out.put_u64_le(*id);
        }
    }
    let nodes: BTreeMap<u64, &Peer> = m.nodes().map(|(id, n)| (*id, n)).collect();
    out.put_u16_le(nodes.len() as u16);
    for (id, node) in nodes {
        out.put_u64_le(id);
        out.put_u16_le(node.addr.len() as u16);
        out.put_slice(node.addr.as_bytes());
    }
}

fn take_count(bytes: &mut impl Buf, max: usize, what: &str) -> io::Result<usize> {
    need(bytes, 2, what)?;
    let n = bytes.get_u16_le() as usize;
    if n > max { Err(malformed(what)) } else { Ok(n) }
}

pub(crate) fn take_membership(bytes: &mut impl Buf) -> io::Result<Membership> {
    let mut configs = Vec::new();
    for _ in 0..take_count(bytes, 2, "membership configs")? {
        let n = take_count(bytes, MEMBERS_MAX, "membership voters")?;
        need(bytes, n * 8, "membership voters")?;
        configs.push((0..n).map(|_| bytes.get_u64_le()).collect::<BTreeSet<u64>>());
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..take_count(bytes, MEMBERS_MAX, "membership nodes")? {
        need(bytes, 8, "membership node")?;
        let id = bytes.get_u64_le();
        let len = take_count(bytes, ADDRESS_BYTES_MAX, "address")?;
        need(bytes, len, "address")?;
        let mut addr = vec![0; len];
        bytes.copy_to_slice(&mut addr);
        let addr = String::from_utf8(addr).map_err(|_| malformed("address"))?;
        nodes.insert(id, Peer { addr });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| malformed(&format!("membership: {e}")))
}

pub(crate) fn put_stored_membership(out: &mut impl BufMut, m: &StoredMembership) {
    put_log_id(out, m.log_id().as_ref());
    put_membership(out, m.membership());
}

pub(crate) fn take_stored_membership(bytes: &mut impl Buf) -> io::Result<StoredMembership> {
    let id = take_log_id(bytes)?;
    Ok(StoredMembership::new(id, take_membership(bytes)?))
}

pub(crate) fn put_vote_request(out: &mut impl BufMut, r: &VoteRequest<Types>) {
    put_vote(out, &r.vote);
    put_log_id(out, r.last_log_id.as_ref());
    out.put_u8(u8::from(r.leadership_transfer));
}

pub(crate) fn take_vote_request(bytes: &mut impl Buf) -> io::Result<VoteRequest<Types>> {
    let mut r = VoteRequest::new(take_vote(bytes)?, take_log_id(bytes)?);
    need(bytes, 1, "vote request")?;
    r.leadership_transfer = bytes.get_u8() == 1;
    Ok(r)
}

pub(crate) fn put_vote_response(out: &mut impl BufMut, r: &VoteResponse<Types>) {
    put_vote(out, &r.vote);
    put_log_id(out, r.last_log_id.as_ref());
    out.put_u8(u8::from(r.vote_granted));
}

pub(crate) fn take_vote_response(bytes: &mut impl Buf) -> io::Result<VoteResponse<Types>> {
    let (vote, last) = (take_vote(bytes)?, take_log_id(bytes)?);
    need(bytes, 1, "vote response")?;
    Ok(VoteResponse::new(vote, last, bytes.get_u8() == 1))
}

pub(crate) fn put_transfer(out: &mut impl BufMut, r: &TransferLeaderRequest<Types>) {
    put_vote(out, r.from_leader());
    put_log_id(out, r.last_log_id());
    out.put_u64_le(*r.to_node_id());
}

pub(crate) fn take_transfer(bytes: &mut impl Buf) -> io::Result<TransferLeaderRequest<Types>> {
    let (vote, last) = (take_vote(bytes)?, take_log_id(bytes)?);
    need(bytes, 8, "transfer request")?;
    Ok(TransferLeaderRequest::new(vote, bytes.get_u64_le(), last))
}

/// An append request as pieces: one head with what the members acknowledged, then head and body of
/// each entry; bodies are not copied.
pub(crate) fn append_pieces(r: &AppendEntriesRequest<Types>, by: &AcknowledgedBy) -> Vec<Bytes> {
    let fixed = VOTE_BYTES + 2 * LOG_ID_BYTES + 4;
    let mut head = BytesMut::with_capacity(fixed + by.bytes() + r.entries.len() * ENTRY_HEAD_BYTES);
    put_vote(&mut head, &r.vote);
    put_log_id(&mut head, r.prev_log_id.as_ref());
    put_log_id(&mut head, r.leader_commit.as_ref());
    head.put_u32_le(r.entries.len() as u32);
    by.put(&mut head);
    let mut pieces = Vec::with_capacity(1 + 2 * r.entries.len());
    for entry in &r.entries {
        let (h, body) = entry_parts(entry);
        head.put_slice(&h);
        if !body.is_empty() {
            pieces.push(head.split().freeze());
            pieces.push(body);
        }
    }
    if !head.is_empty() {
        pieces.push(head.freeze());
    }
    pieces
}

/// The inverse of [`append_pieces`] joined; bodies are slices of `bytes`.
pub(crate) fn take_append(bytes: &mut Bytes) -> io::Result<(AppendEntriesRequest<Types>, AcknowledgedBy)> {
    let vote = take_vote(bytes)?;
    let prev_log_id = take_log_id(bytes)?;
    let leader_commit = take_log_id(bytes)?;
    need(bytes, 4, "append request")?;
    let n = bytes.get_u32_le() as usize;
    if n as u64 > APPEND_ENTRIES_MAX {
        return Err(malformed("append entries: too many"));
    }
    let by = AcknowledgedBy::take(bytes)?;
    need(bytes, n.saturating_mul(ENTRY_HEAD_BYTES), "append entries")?;
    let mut entries = Vec::with_capacity(n);
    for _ in 0..n {
        entries.push(take_entry(bytes)?);
    }
    // The engine asserts this of its input; bytes from the network only get an error.
    let first = prev_log_id.as_ref().map_or(0, |id| id.index.saturating_add(1));
    if (first..).zip(&entries).any(|(due, e)| e.log_id.index != due) {
        return Err(malformed("append entries: not consecutive"));
    }
    Ok((AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }, by))
}

pub(crate) fn put_append_response(out: &mut impl BufMut, r: &AppendEntriesResponse<Types>) {
    match r {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            out.put_u8(1);
            put_log_id(out, id.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(v) => {
            out.put_u8(3);
            put_vote(out, v);
        }
    }
}

pub(crate) fn take_append_response(bytes: &mut impl Buf) -> io::Result<AppendEntriesResponse<Types>> {
    need(bytes, 1, "append response")?;
    Ok(match bytes.get_u8() {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(take_log_id(bytes)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(take_vote(bytes)?),
        _ => return Err(malformed("append response")),
    })
}

/// What a stream of appends answers to one request.
pub(crate) type StreamAnswer = Result<Option<LogId>, StreamAppendError<Types>>;

pub(crate) fn put_stream_answer(out: &mut impl BufMut, r: &StreamAnswer) {
    match r {
        Ok(id) => {
            out.put_u8(0);
            put_log_id(out, id.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            out.put_u8(1);
            put_log_id(out, Some(id));
        }
        Err(StreamAppendError::HigherVote(v)) => {
            out.put_u8(2);
            put_vote(out, v);
        }
    }
}

pub(crate) fn take_stream_answer(bytes: &mut impl Buf) -> io::Result<StreamAnswer> {
    need(bytes, 1, "stream answer")?;
    Ok(match bytes.get_u8() {
        0 => Ok(take_log_id(bytes)?),
        1 => Err(StreamAppendError::Conflict(take_log_id(bytes)?.ok_or_else(|| malformed("conflict"))?)),
        2 => Err(StreamAppendError::HigherVote(take_vote(bytes)?)),
        _ => return Err(malformed("stream answer")),
    })
}

pub(crate) fn put_transfer_answer(out: &mut impl BufMut, r: &openraft::raft::TransferLeaderResponse<Types>) {
    use openraft::raft::TransferLeaderError as E;
    match r {
        Ok(()) => out.put_u8(0),
        Err(E::VoteChanged { actual, .. }) => {
            out.put_u8(1);
            put_vote(out, actual);
        }
        Err(E::LogNotFlushed { actual, .. }) => {
            out.put_u8(2);
            put_log_id(out, actual.as_ref());
        }
    }
}

/// The inverse; what was expected is what was asked.
pub(crate) fn take_transfer_answer(
    bytes: &mut impl Buf,
    vote: Vote,
    last: Option<LogId>,
) -> io::Result<openraft::raft::TransferLeaderResponse<Types>> {
    use openraft::raft::TransferLeaderError as E;
    need(bytes, 1, "transfer answer")?;
    Ok(match bytes.get_u8() {
        0 => Ok(()),
        1 => Err(E::VoteChanged { expected: vote, actual: take_vote(bytes)? }),
        2 => Err(E::LogNotFlushed { expected: last, actual: take_log_id(bytes)? }),
        _ => return Err(malformed("transfer answer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NodeId;
    use crate::memory::Acknowledged;

    fn sample_membership() -> Membership {
        let nodes: BTreeMap<u64, Peer> =
            [(1, "a:1"), (2, "b:2"), (9, "c:3")].map(|(id, a)| (id, Peer { addr: a.into() })).into();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    #[test]
    fn the_bytes_of_an_entry_are_frozen() {
        let e = Entry {
            log_id: log_id(0x11, 0x22),
            payload: EntryPayload::Normal(Stamped { stamp_ms: 0x33, bytes: Bytes::from_static(b"hi") }),
        };
        let (head, body) = entry_parts(&e);
        let mut golden = [0u8; 32];
        (golden[0], golden[8], golden[16], golden[24], golden[28]) = (0x11, 0x22, 0x33, 1, 2);
        assert_eq!(head, golden);
        assert_eq!(&body[..], b"hi");
        let blank = Entry { log_id: log_id(1, 2), payload: EntryPayload::Blank };
        assert_eq!(entry_parts(&blank).0[24..], [0; 8]);
        for e in [e, blank] {
            let (head, body) = entry_parts(&e);
            assert_eq!(entry_of_parts(&head, body).unwrap(), e);
        }
    }

    #[test]
    fn the_bytes_of_a_vote_and_a_membership_are_frozen() {
        let vote = Vote::from_leader_id(LeaderId { term: 5, voted_for: 3 }, true);
        let mut b = Vec::new();
        put_vote(&mut b, &vote);
        let mut golden = vec![0u8; 24];
        (golden[0], golden[8], golden[16]) = (5, 3, 1);
        assert_eq!(b, golden);
        assert_eq!(take_vote(&mut &b[..]).unwrap(), vote);

        let mut b = Vec::new();
        put_membership(&mut b, &sample_membership());
        let id = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
        let mut golden = vec![2, 0, 2, 0];
        golden.extend(id(1));
        golden.extend(id(2));
        golden.extend([1, 0]);
        golden.extend(id(2));
        golden.extend([3, 0]);
        for (n, a) in [(1, b"a:1"), (2, b"b:2"), (9, b"c:3")] {
            golden.extend(id(n));
            golden.extend([3, 0]);
            golden.extend(a);
        }
        assert_eq!(b, golden);
        assert_eq!(take_membership(&mut &b[..]).unwrap(), sample_membership());
    }

    #[test]
    fn requests_survive_the_wire_and_any_cut_is_an_error() {
        let normal = |i: u64, body: &'static [u8]| Entry {
            log_id: log_id(3, i),
            payload: EntryPayload::Normal(Stamped { stamp_ms: i, bytes: Bytes::from_static(body) }),
        };
        let r = AppendEntriesRequest::<Types> {
            vote: Vote::from_leader_id(LeaderId { term: 3, voted_for: 1 }, true),
            prev_log_id: Some(log_id(2, 4)),
            leader_commit: None,
            entries: vec![
                normal(5, b"five"),
                Entry { log_id: log_id(3, 6), payload: EntryPayload::Blank },
                Entry { log_id: log_id(3, 7), payload: EntryPayload::Membership(sample_membership()) },
                normal(8, b""),
            ],
        };
        let mut by = AcknowledgedBy::default();
        by.record(NodeId(2), Acknowledged { leader_term: 3, last: log_id(2, 4) });
        let whole = Bytes::from(append_pieces(&r, &by).concat());
        let (back, back_by) = take_append(&mut whole.clone()).unwrap();
        assert_eq!(back_by, by);
        let plain = append_pieces(&r, &AcknowledgedBy::default()).len();
        assert_eq!(append_pieces(&r, &by).len(), plain, "it costs no piece of its own");
        assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (r.vote, r.prev_log_id, r.leader_commit));
        assert_eq!(back.entries, r.entries);
        for n in 0..whole.len() {
            assert!(take_append(&mut whole.slice(..n)).is_err(), "cut at {n}");
        }
        let mut gap = r.clone();
        gap.entries.remove(1);
        assert!(take_append(&mut Bytes::from(append_pieces(&gap, &by).concat())).is_err(), "a hole in a request");
    }

    #[test]
    fn numbers_beyond_their_bounds_are_malformed() {
        let vote = |term| {
            let mut b = BytesMut::new();
            put_vote(&mut b, &Vote::from_leader_id(LeaderId { term, voted_for: u64::MAX }, true));
            take_vote(&mut b.freeze()).map(|v| v.leader_id.term)
        };
        assert_eq!(vote(TERM_MAX).unwrap(), TERM_MAX);
        let id = |term, index| {
            let mut b = BytesMut::new();
            put_log_id(&mut b, Some(&log_id(term, index)));
            take_log_id(&mut b.freeze())
        };
        assert_eq!(id(TERM_MAX, INDEX_MAX).unwrap(), Some(log_id(TERM_MAX, INDEX_MAX)));
        let entry = |term, index, stamp_ms| {
            let payload = EntryPayload::Normal(Stamped { stamp_ms, bytes: Bytes::new() });
            let (head, body) = entry_parts(&Entry { log_id: log_id(term, index), payload });
            entry_of_parts(&head, body)
        };
        assert!(entry(TERM_MAX, INDEX_MAX, STAMP_MS_MAX).is_ok());
        for over in [1, 1 << 20, u64::MAX - TERM_MAX] {
            assert!(
                vote(TERM_MAX + over).is_err() && id(TERM_MAX + over, 1).is_err() && id(1, INDEX_MAX + over).is_err()
            );
            assert!(entry(TERM_MAX + over, 1, 1).is_err() && entry(1, INDEX_MAX + over, 1).is_err());
        }
        for stamp_ms in [STAMP_MS_MAX + 1, 1 << 63, u64::MAX] {
            assert!(entry(1, 1, stamp_ms).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(b in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let bytes = Bytes::from(b);
            let _ = take_append(&mut bytes.clone());
            let _ = take_entry(&mut bytes.clone());
            let _ = take_stored_membership(&mut bytes.clone());
            let _ = take_vote_request(&mut bytes.clone());
            let _ = take_vote_response(&mut bytes.clone());
            let _ = take_append_response(&mut bytes.clone());
            let _ = take_stream_answer(&mut bytes.clone());
            let _ = take_transfer(&mut bytes.clone());
        }
    }
}
