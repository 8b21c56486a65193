//! How far watches are from the oldest record of history: what retention drops next ends a watch
//! that has not read it yet.
//!
//! **Owns** where the live watches of a shard are, and when that is too near. **Must never** slow a
//! watch down. **Read next**: [`super::watch`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_core::LedgerTime;

use super::FeedRing;
use crate::history::Coverage;
use crate::limits::WATCH_NEAR_OLDEST_PERCENT;

/// Where the live watches of one shard are.
#[derive(Debug, Default)]
pub struct WatchPositions {
    inner: Mutex<Positions>,
}

#[derive(Debug, Default)]
struct Positions {
    next: u64,
    /// The ledger time of the record that each read last; zero before its first.
    times: BTreeMap<u64, Arc<AtomicU64>>,
}

/// Where one watch is; it counts until this is dropped.
#[derive(Debug)]
pub struct WatchPosition {
    all: Arc<WatchPositions>,
    number: u64,
    time: Arc<AtomicU64>,
}

impl WatchPositions {
    /// Of a new watch.
    pub fn begin(self: &Arc<Self>) -> WatchPosition {
        let time = Arc::new(AtomicU64::new(0));
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        inner.times.insert(number, time.clone());
        WatchPosition { all: self.clone(), number, time }
    }

    /// Ledger time, in milliseconds, of the record that the slowest watch read last; none while
    /// none has read one.
    fn slowest(&self) -> Option<u64> {
        self.lock().times.values().map(|time| time.load(Ordering::Relaxed)).filter(|time| *time > 0).min()
    }

    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchPosition {
    /// It read a record of that time.
    pub fn set(&self, time: LedgerTime) {
        self.time.store(time.0, Ordering::Relaxed);
    }
}

impl Drop for WatchPosition {
    fn drop(&mut self) {
        self.all.lock().times.remove(&self.number);
    }
}

/// Between the oldest record of a shard that is kept and the one that its slowest watch read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchDistance {
    /// In ledger time, milliseconds.
    pub left_ms: u64,
    kept_ms: u64,
    /// Retention has dropped records of this shard, and will drop more.
    drops: bool,
}

impl WatchDistance {
    /// As history and the watches of a shard are now; none without a watch that has read a
    /// record, or while but one record is kept.
    pub fn of(ring: &FeedRing, kept: &Coverage) -> Option<Self> {
        if kept.oldest_ms == 0 {
            return None;
        }
        let left_ms = ring.positions().slowest()?.saturating_sub(kept.oldest_ms);
        Some(Self { left_ms, kept_ms: kept.kept_ms, drops: kept.oldest > 1 })
    }

    /// What operators should know: a watch is among the oldest records, and may be cut off.
    pub fn warning(&self) -> Option<String> {
        let near = u128::from(self.left_ms) * 100 < u128::from(self.kept_ms) * u128::from(WATCH_NEAR_OLDEST_PERCENT);
        (self.drops && near).then(|| {
            let [left, kept] = [self.left_ms, self.kept_ms].map(Duration::from_millis);
            format!(
                "a watch is {left:?} from the oldest change, of {kept:?} that are kept: what retention drops ends it; make its \
                 consumer faster, or raise history.keep and history.bytes_max"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_live_watch_is_near_the_oldest_record_within_a_tenth_of_what_is_kept() {
        let ring = FeedRing::new(1);
        let kept = Coverage { oldest: 50, oldest_ms: 10_000, kept_ms: 100_000, ..Coverage::default() };
        let of = |kept: &Coverage| WatchDistance::of(&ring, kept);
        assert_eq!(of(&kept), None);
        let (slow, fast) = (ring.positions().begin(), ring.positions().begin());
        assert_eq!(of(&kept), None, "none has read a record");
        fast.set(LedgerTime(90_000));
        slow.set(LedgerTime(20_000));
        let distance = of(&kept).expect("two watches");
        assert_eq!((distance.left_ms, distance.warning()), (10_000, None));
        slow.set(LedgerTime(19_999));
        let why = of(&kept).and_then(|distance| distance.warning()).expect("it is near");
        assert!(why.starts_with("a watch is 9.999s from the oldest change, of 100s that are kept"), "{why}");
        let whole = Coverage { oldest: 1, ..kept.clone() };
        assert_eq!(of(&whole).expect("two watches").warning(), None, "nothing was ever dropped");
        slow.set(LedgerTime(5_000));
        assert_eq!(of(&kept).map(|distance| distance.left_ms), Some(0), "retention has passed it");
        drop(slow);
        assert_eq!(of(&Coverage { oldest_ms: 0, kept_ms: 0, ..kept.clone() }), None, "but one record is kept");
        assert_eq!(of(&kept).map(|distance| (distance.left_ms, distance.warning())), Some((80_000, None)));
    }
}
