//! Backfill: a gapped node asks its peers for what it misses, and believes only what fits the chain.
//!
//! **Owns** the question and answer between nodes, the round that fills a gap, and when what no peer has is given up. **Must never** answer
//! with records that this node does not have without a gap. **Read next**: [`super::fill`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ledger_core::codec;

use super::{FillError, History, HistoryError, PageBounds};
use crate::limits::{
    BACKFILL_BYTES, BACKFILL_MISSES, BACKFILL_RECORDS, BACKFILL_ROUNDS_MAX, HISTORY_RECORD_BYTES_MAX,
    PEER_ANSWER_BYTES_MAX,
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
    NotHere {
        /// Last index that is missing there.
        through: u64,
    },
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
            Self::NotHere { through } => {
                out.put_u8(GIVEN_NOT_HERE);
                out.put_u64(*through);
            }
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
            GIVEN_NOT_HERE => Some(Self::NotHere { through: bytes.try_get_u64().ok()? }),
            _ => None,
        }
    }
}

/// Answers a peer's question; may wait for the disk.
///
/// # Errors
/// The question is malformed, or the store cannot be read. A store that could not be opened lacks nothing
/// for that: what no peer answers with is not given up.
pub fn answer(history: &dyn History, question: &[u8]) -> io::Result<Bytes> {
    let ask = Ask::decode(question)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a malformed question for history"))?;
    if history.coverage(ask.shard).unopened {
        return Err(io::Error::other("the history store could not be opened here"));
    }
    let bounds = PageBounds { records: BACKFILL_RECORDS, bytes: BACKFILL_BYTES / 2 };
    let page = match history.read(ask.shard, ask.from, bounds) {
        Ok(page) => page,
        Err(HistoryError::TooOld { oldest, .. }) => return Ok(Given::TooOld { oldest }.encode()),
        Err(HistoryError::NotHere { through, .. }) => return Ok(Given::NotHere { through }.encode()),
        Err(HistoryError::Io(error)) => return Err(error),
    };
    let mut records = Vec::with_capacity(page.records.len());
    let mut next = page.next;
    let mut bytes = 0;
    for (index, record) in chained(history, ask.shard, &mut next, page.records) {
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

/// Records up to the first that does not continue the one before: this node misses some there, and did not know.
fn chained(history: &dyn History, shard: u32, next: &mut u64, mut records: Vec<(u64, Bytes)>) -> Vec<(u64, Bytes)> {
    let mut before: Option<(u64, u128)> = None;
    for (n, (index, bytes)) in records.iter().enumerate() {
        let record = codec::decode_record(bytes).ok();
        let fits = record.filter(|record| before.is_none_or(|(_, chain)| chain == record.chain_before));
        let Some(record) = fits else {
            history.distrust(shard, before.map_or(index.saturating_sub(1), |(last, _)| last), *index);
            *next = before.map_or(*index, |(last, _)| last + 1);
            records.truncate(n);
            return records;
        };
        before = Some((*index, codec::chain_after(record.chain_before, bytes)));
    }
    records
}

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// Nothing is missing any more.
    Whole,
    /// Some came; there is more.
    Partly,
    /// This peer misses it, too.
    Missing {
        /// Last index that is missing there.
        through: u64,
    },
    /// This peer has not come so far yet: it may have it later.
    NotYet,
    /// This peer dropped the beginning of the gap.
    TooOld {
        /// First index kept there.
        oldest: u64,
    },
}

/// Who was asked for the first index that is missing and does not have it. Only when no peer has it, it is given up.
#[derive(Debug, Default)]
pub struct Refusals<P> {
    wanted: u64,
    by: BTreeMap<P, Refusal>,
}

/// What a peer said about the first index that is missing.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// From where on it may have records.
    from: u64,
    /// It dropped what is older, and will never have it again.
    dropped: bool,
    /// How often it said so.
    times: u32,
}

impl<P: Ord + Copy> Refusals<P> {
    /// Takes what an attempt came to, when `wanted` is the first index that is missing. Answers from where on somebody may keep records, once all
    /// `peers` said that they do not have this one: at least one dropped it, or all said [`BACKFILL_MISSES`] times that they miss it.
    pub fn take(&mut self, wanted: u64, peer: P, filled: &Filled, peers: &[P]) -> Option<u64> {
        if wanted != self.wanted {
            *self = Self { wanted, by: BTreeMap::new() };
        }
        let (from, dropped) = match filled {
            Filled::TooOld { oldest } => (*oldest, true),
            Filled::Missing { through } => (through.saturating_add(1), false),
            Filled::NotYet => {
                self.by.remove(&peer);
                return None;
            }
            Filled::Whole | Filled::Partly => {
                self.by.clear();
                return None;
            }
        };
        let times = self.by.get(&peer).map_or(0, |before| before.times).saturating_add(1);
        self.by.insert(peer, Refusal { from, dropped, times });
        let said: Option<Vec<Refusal>> = peers.iter().map(|peer| self.by.get(peer).copied()).collect();
        let said = said?;
        let for_good = said.iter().any(|one| one.dropped) || said.iter().all(|one| one.times >= BACKFILL_MISSES);
        said.iter().map(|one| one.from).min().filter(|_| for_good)
    }
}

/// Fills the first gap of a shard from one peer. `ask` carries a question to it.
///
/// # Errors
/// The peer cannot be reached, or what it gave does not fit the chain.
pub async fn fill_from<F, Fut>(history: &Arc<dyn History>, shard: u32, mut ask: F) -> io::Result<Filled>
where
    F: FnMut(Bytes) -> Fut,
    Fut: Future<Output = io::Result<Bytes>>,
{
    for _ in 0..BACKFILL_ROUNDS_MAX {
        let wanted = history.coverage(shard).wanted;
        if wanted == 0 {
            return Ok(Filled::Whole);
        }
        let (records, next) = match ask_from(shard, wanted, &mut ask).await? {
            Given::Records { records, next } => (records, next),
            Given::Piece { index, .. } => return Ok(Filled::Missing { through: index }),
            Given::NotHere { through } => return Ok(Filled::Missing { through }),
            Given::TooOld { oldest } => return Ok(Filled::TooOld { oldest }),
        };
        if next <= wanted {
            return Ok(Filled::NotYet);
        }
        match fill(history, shard, records, next - 1).await {
            Ok(()) => {}
            Err(FillError::NoGap) => return Ok(Filled::Whole),
            Err(FillError::Unproved { through }) => return Ok(Filled::Missing { through }),
            Err(FillError::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
    Ok(if history.coverage(shard).is_gapped() { Filled::Partly } else { Filled::Whole })
}

/// Writes and syncs, where that may block on a thread of its own.
async fn fill(
    history: &Arc<dyn History>,
    shard: u32,
    records: Vec<(u64, Bytes)>,
    through: u64,
) -> Result<(), FillError> {
    if !history.reads_block() {
        return history.fill(shard, &records, through);
    }
    let history = history.clone();
    let filled = tokio::task::spawn_blocking(move || history.fill(shard, &records, through)).await;
    filled.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

/// Asks for records from an index on, and for all pieces of a long one.
async fn ask_from<F, Fut>(shard: u32, wanted: u64, ask: &mut F) -> io::Result<Given>
where
    F: FnMut(Bytes) -> Fut,
    Fut: Future<Output = io::Result<Bytes>>,
{
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("a peer's answer about history {why}"));
    let mut question = Ask { shard, from: wanted, offset: 0 };
    // The record that comes in pieces: its index and length.
    let mut of: Option<(u64, u32)> = None;
    let mut whole = BytesMut::new();
    loop {
        let given = Given::decode(ask(question.encode()).await?).ok_or_else(|| bad("is malformed"))?;
        let Given::Piece { index, total, piece } = given else { return Ok(given) };
        if *of.get_or_insert((index, total)) != (index, total) {
            return Err(bad("is of another record than the one before"));
        }
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
