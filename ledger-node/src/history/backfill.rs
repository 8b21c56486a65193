//! Backfill: a gapped node asks its peers for what it misses, and believes only what fits the chain.
//!
//! **Owns** the question and answer between nodes and the round that fills a gap. **Must never** answer with records that this
//! node does not have without a gap. **Read next**: [`super::kept`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{FillError, Gap, History, HistoryError, PageBounds};
use crate::limits::{
    BACKFILL_BYTES, BACKFILL_RECORDS, BACKFILL_ROUNDS_MAX, HISTORY_RECORD_BYTES_MAX, PEER_ANSWER_BYTES_MAX,
};

/// A question: records of a shard from an index on, and from a byte of the first of them (long ones come in pieces).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which shard.
    pub shard: u32,
    /// First index wanted.
    pub from: u64,
    /// Bytes of the record at exactly `from` that came already.
    pub offset: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Whole records, ascending; read on from `next`.
    Records {
        /// Index and bytes.
        records: Vec<(u64, Bytes)>,
        /// Nothing between the last record and it changed anything.
        next: u64,
    },
    /// A piece of a record that is too long for one answer.
    Piece {
        /// Its index.
        index: u64,
        /// Bytes of the whole record.
        total: u32,
        /// From the offset asked for.
        piece: Bytes,
    },
    /// Retention dropped it there.
    TooOld {
        /// First index kept there.
        oldest: u64,
    },
    /// It is missing there too.
    NotHere,
}

const GIVEN_RECORDS: u8 = 0;
const GIVEN_PIECE: u8 = 1;
const GIVEN_TOO_OLD: u8 = 2;
const GIVEN_NOT_HERE: u8 = 3;
const ASK_BYTES: usize = 16;

impl Ask {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ASK_BYTES);
        out.put_u32(self.shard);
        out.put_u64(self.from);
        out.put_u32(self.offset);
        out.freeze()
    }
    /// From bytes.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() == ASK_BYTES).then(|| Self {
            shard: bytes.get_u32(),
            from: bytes.get_u64(),
            offset: bytes.get_u32(),
        })
    }
}

impl Given {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Records { records, next } => {
                out.put_u8(GIVEN_RECORDS);
                out.put_u64(*next);
                for (index, record) in records {
                    out.put_u64(*index);
                    out.put_u32(record.len() as u32);
                    out.put_slice(record);
                }
            }
            Self::Piece { index, total, piece } => {
                out.put_u8(GIVEN_PIECE);
                out.put_u64(*index);
                out.put_u32(*total);
                out.put_slice(piece);
            }
            Self::TooOld { oldest } => {
                out.put_u8(GIVEN_TOO_OLD);
                out.put_u64(*oldest);
            }
            Self::NotHere => out.put_u8(GIVEN_NOT_HERE),
        }
        out.freeze()
    }

    /// From bytes; none for anything else.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            GIVEN_RECORDS => {
                let next = bytes.try_get_u64().ok()?;
                let mut records = Vec::new();
                while !bytes.is_empty() {
                    let index = bytes.try_get_u64().ok()?;
                    let len = bytes.try_get_u32().ok()? as usize;
                    if len > bytes.len() {
                        return None;
                    }
                    records.push((index, bytes.split_to(len)));
                }
                Some(Self::Records { records, next })
            }
            GIVEN_PIECE => {
                Some(Self::Piece { index: bytes.try_get_u64().ok()?, total: bytes.try_get_u32().ok()?, piece: bytes })
            }
            GIVEN_TOO_OLD => Some(Self::TooOld { oldest: bytes.try_get_u64().ok()? }),
            GIVEN_NOT_HERE => bytes.is_empty().then_some(Self::NotHere),
            _ => None,
        }
    }
}

/// Answers a peer's question; may wait for the disk.
///
/// # Errors
/// The question is malformed, or the store cannot be read.
pub fn answer(history: &dyn History, question: &[u8]) -> io::Result<Bytes> {
    let ask = Ask::decode(question)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a malformed question for history"))?;
    let bounds = PageBounds { records: BACKFILL_RECORDS, bytes: BACKFILL_BYTES / 2 };
    let page = match history.read(ask.shard, ask.from, bounds) {
        Ok(page) => page,
        Err(HistoryError::TooOld { oldest, .. }) => return Ok(Given::TooOld { oldest }.encode()),
        Err(HistoryError::NotHere { .. }) => return Ok(Given::NotHere.encode()),
        Err(HistoryError::Io(error)) => return Err(error),
    };
    let mut records = Vec::with_capacity(page.records.len());
    let mut next = page.next;
    let mut bytes = 0;
    for (index, record) in page.records {
        if records.is_empty() && record.len() > BACKFILL_BYTES {
            let offset = if index == ask.from { ask.offset as usize } else { 0 };
            let piece = record.slice(offset.min(record.len())..record.len().min(offset + BACKFILL_BYTES));
            return Ok(Given::Piece { index, total: record.len() as u32, piece }.encode());
        }
        bytes += record.len();
        if bytes > PEER_ANSWER_BYTES_MAX * 3 / 4 {
            next = index;
            break;
        }
        records.push((index, record));
    }
    Ok(Given::Records { records, next }.encode())
}

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// Nothing is missing any more.
    Whole,
    /// Some came; there is more.
    Partly,
    /// This peer misses it, too.
    NotFromHim,
    /// This peer has not come so far yet: it may have it later.
    NotYet,
    /// This peer dropped the beginning of the gap.
    TooOld {
        /// First index kept there.
        oldest: u64,
    },
}

/// Who was asked for the beginning of a gap and has it no more. Only when no peer has it, it is given up.
#[derive(Debug, Default)]
pub struct Refusals<P> {
    after: u64,
    by: BTreeMap<P, Option<u64>>,
}

impl<P: Ord + Copy> Refusals<P> {
    /// Takes what an attempt came to, for the gap that begins `after`. Answers from where on somebody keeps it, once all `peers` said that they
    /// have the beginning no more and at least one dropped it: what is older can be had nowhere.
    pub fn take(&mut self, after: u64, peer: P, filled: &Filled, peers: &[P]) -> Option<u64> {
        if after != self.after {
            *self = Self { after, by: BTreeMap::new() };
        }
        match filled {
            Filled::TooOld { oldest } => self.by.insert(peer, Some(*oldest)),
            Filled::NotFromHim => self.by.insert(peer, None),
            Filled::NotYet => {
                self.by.remove(&peer);
                return None;
            }
            Filled::Whole | Filled::Partly => {
                self.by.clear();
                return None;
            }
        };
        let asked = peers.iter().all(|peer| self.by.contains_key(peer));
        let oldest = peers.iter().filter_map(|peer| *self.by.get(peer)?).min();
        oldest.filter(|_| asked)
    }
}

/// Fills the first gap of a shard from one peer. `ask` carries a question to it.
///
/// # Errors
/// The peer cannot be reached, or what it gave does not fit the chain.
pub async fn fill_from<F, Fut>(history: &dyn History, shard: u32, mut ask: F) -> io::Result<Filled>
where
    F: FnMut(Bytes) -> Fut,
    Fut: Future<Output = io::Result<Bytes>>,
{
    for _ in 0..BACKFILL_ROUNDS_MAX {
        let Some(gap) = history.coverage(shard).gaps.first().cloned() else { return Ok(Filled::Whole) };
        let (records, next) = match ask_from(shard, &gap, &mut ask).await? {
            Given::Records { records, next } => (records, next),
            Given::Piece { .. } | Given::NotHere => return Ok(Filled::NotFromHim),
            Given::TooOld { oldest } => return Ok(Filled::TooOld { oldest }),
        };
        if next <= gap.after + 1 {
            return Ok(Filled::NotYet);
        }
        match history.fill(shard, &records, next - 1) {
            Ok(()) => {}
            Err(FillError::NoGap) => return Ok(Filled::Whole),
            Err(FillError::Io(error)) => return Err(error),
            Err(error) => {
                history.unchained(shard);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
            }
        }
    }
    Ok(if history.coverage(shard).is_gapped() { Filled::Partly } else { Filled::Whole })
}

/// Asks for the beginning of a gap, and for all pieces of a long record.
async fn ask_from<F, Fut>(shard: u32, gap: &Gap, ask: &mut F) -> io::Result<Given>
where
    F: FnMut(Bytes) -> Fut,
    Fut: Future<Output = io::Result<Bytes>>,
{
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("a peer's answer about history {why}"));
    let mut question = Ask { shard, from: gap.after + 1, offset: 0 };
    let mut whole = BytesMut::new();
    loop {
        let given = Given::decode(ask(question.encode()).await?).ok_or_else(|| bad("is malformed"))?;
        let Given::Piece { index, total, piece } = given else { return Ok(given) };
        if total as usize > HISTORY_RECORD_BYTES_MAX || piece.is_empty() || whole.len() + piece.len() > total as usize {
            return Err(bad("does not add up"));
        }
        whole.put_slice(&piece);
        if whole.len() == total as usize {
            return Ok(Given::Records { records: vec![(index, whole.freeze())], next: index + 1 });
        }
        question = Ask { shard, from: index, offset: whole.len() as u32 };
    }
}
