//! The feed: the newest records of each shard in memory, and watchers that fall back to history.
//!
//! **What it is.** [`FeedRing`] is filled by the shard as it applies; [`watch::Watcher`] goes through all shards with one
//! [`cursor::Cursor`]. A watcher that is slower than the ring is long reads on from history and never loses a change.
//!
//! **Owns** the ring, cursors, watchers. **Must never** block the shard, skip a change, or tell one twice behind a cursor.
//! **Read next**: [`cursor`], [`watch`].

pub mod changes;
pub mod cursor;
pub mod decoded;
pub mod distance;
pub mod pace;
pub mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ledger_core::{LedgerTime, Position, codec};

use decoded::DecodedRecords;
use distance::WatchPositions;

use crate::history::{Page, PageBounds};
use crate::limits::{FEED_RING_BYTES, FEED_RING_RECORDS};

/// The newest records of one shard, bounded in bytes.
pub struct FeedRing {
    shard: u32,
    bytes_max: usize,
    inner: Mutex<Inner>,
    decoded: DecodedRecords,
    positions: Arc<WatchPositions>,
    /// Index and time of the last applied entry; watchers wait on it.
    reached: tokio::sync::watch::Sender<Reached>,
}

/// How far the ring's shard has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Last applied index.
    pub index: u64,
    /// Ledger time there.
    pub time: LedgerTime,
}

struct Inner {
    records: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Every record at or above this index, up to the last applied one, is here.
    from: u64,
    through: u64,
    /// The chain value before the first record that was taken in since the start or the last install.
    chain: u128,
}

impl Inner {
    /// Empty behind an index.
    fn behind(through: u64, chain: u128) -> Self {
        Self { records: VecDeque::new(), bytes: 0, from: through + 1, through, chain }
    }

    /// The chain value behind the last record; none when its bytes are no record.
    fn chain_behind(&self) -> Option<u128> {
        match self.records.back() {
            None => Some(self.chain),
            Some((_, bytes)) => {
                let record = codec::decode_record(bytes).ok()?;
                Some(codec::chain_after(record.chain_before, bytes))
            }
        }
    }
}

impl FeedRing {
    /// An empty ring of the default size.
    pub fn new(shard: u32) -> Self {
        Self::with_bytes(shard, FEED_RING_BYTES)
    }

    /// An empty ring of a given size.
    pub fn with_bytes(shard: u32, bytes_max: usize) -> Self {
        let inner = Mutex::new(Inner::behind(0, 0));
        Self {
            shard,
            bytes_max,
            inner,
            decoded: DecodedRecords::default(),
            positions: Arc::default(),
            reached: tokio::sync::watch::Sender::default(),
        }
    }

    /// Which shard.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Records that its watchers deliver now.
    pub fn decoded(&self) -> &DecodedRecords {
        &self.decoded
    }

    /// Where its watches are.
    pub fn positions(&self) -> &Arc<WatchPositions> {
        &self.positions
    }

    /// An entry was applied: its record if something changed, and the ledger time it reached.
    pub fn publish(&self, at: Position, time: LedgerTime, record: Option<Bytes>) {
        let mut inner = self.lock();
        if at.index <= inner.through {
            return;
        }
        inner.through = at.index;
        if let Some(record) = record {
            inner.bytes += record.len();
            inner.records.push_back((at.index, record));
            while inner.records.len() > 1 && (inner.bytes > self.bytes_max || inner.records.len() > FEED_RING_RECORDS) {
                let (index, record) = inner.records.pop_front().expect("more than one");
                inner.bytes -= record.len();
                inner.from = index + 1;
            }
        }
        drop(inner);
        self.reached.send_replace(Reached { index: at.index, time });
    }

    /// A snapshot was installed, whose chain value is `chain`: what lies between is not in the ring.
    pub fn installed(&self, at: Position, time: LedgerTime, chain: u128) {
        *self.lock() = Inner::behind(at.index, chain);
        self.reached.send_replace(Reached { index: at.index, time });
    }

    /// Records from an index on; none when the ring no longer reaches back so far.
    pub fn read(&self, from: u64, bounds: PageBounds) -> Option<Page> {
        let inner = self.lock();
        if from < inner.from {
            return None;
        }
        let start = inner.records.partition_point(|(index, _)| *index < from);
        let mut page = Page { records: Vec::new(), next: (inner.through + 1).max(from) };
        let mut bytes = 0;
        for (index, record) in inner.records.iter().skip(start) {
            if page.records.len() >= bounds.records || (bytes >= bounds.bytes && !page.records.is_empty()) {
                page.next = *index;
                break;
            }
            bytes += record.len();
            page.records.push((*index, record.clone()));
        }
        Some(page)
    }

    /// The last applied index, and the chain value that the next record will continue.
    pub fn end(&self) -> (u64, Option<u128>) {
        let inner = self.lock();
        (inner.through, inner.chain_behind())
    }

    /// How far the shard has come, watched.
    pub fn reached(&self) -> tokio::sync::watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// How many watch it, for metrics.
    pub fn watchers(&self) -> usize {
        self.reached.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Position {
        Position { shard: 1, index, ..Position::default() }
    }
    const ALL: PageBounds = PageBounds { records: 100, bytes: 1 << 20 };

    #[test]
    fn the_ring_hands_out_everything_it_reaches_back_to_and_says_where_it_ends() {
        let ring = FeedRing::with_bytes(1, 30);
        for index in 1..=6 {
            let record = (index != 4).then(|| Bytes::from(vec![index as u8; 10]));
            ring.publish(at(index), LedgerTime(index), record);
        }
        assert!(ring.read(2, ALL).is_none(), "records 1 and 2 were pushed out");
        let page = ring.read(3, ALL).expect("3 is the first kept");
        assert_eq!(page.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 5, 6]);
        assert_eq!(page.next, 7);
        let cut = ring.read(4, PageBounds { records: 1, bytes: 100 }).expect("kept");
        assert_eq!((cut.records[0].0, cut.next), (5, 6));
        assert_eq!(ring.read(9, ALL).expect("not there yet").next, 9);
        assert_eq!(ring.reached().borrow().index, 6);
    }

    #[test]
    fn an_install_empties_the_ring_and_moves_its_beginning() {
        let ring = FeedRing::new(1);
        ring.publish(at(1), LedgerTime(1), Some(Bytes::from_static(b"x")));
        ring.installed(at(50), LedgerTime(9), 77);
        assert!(ring.read(50, ALL).is_none());
        assert_eq!(ring.read(51, ALL).expect("from there on").next, 51);
        assert_eq!(ring.end(), (50, Some(77)));
    }
}
