//! Chance and time of one client, behind a seam so that simulations repeat.
//!
//! **Owns** the random numbers for ids and jitter, and the estimate of ledger time. **Must never** ask the system's clock once a ledger time was
//! heard.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledger_core::LedgerTime;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

/// Random numbers.
pub(crate) struct Chance(Mutex<StdRng>);

impl Chance {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed.unwrap_or_else(rand::random))))
    }
    pub(crate) fn draw(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
    /// A pause from the upper half of `min · 2^tries`, at most `max`.
    pub(crate) fn pause(&self, min: Duration, max: Duration, tries: u32) -> Duration {
        let whole = min.saturating_mul(1 << tries.min(16)).min(max);
        let micros = (whole.as_micros() as u64).max(2);
        Duration::from_micros(micros / 2 + self.draw() % (micros / 2 + 1))
    }
}

/// The newest ledger time heard, advanced by the monotonic clock.
#[derive(Default)]
pub(crate) struct LedgerClock(Mutex<Option<(LedgerTime, Instant)>>);

impl LedgerClock {
    /// An answer carried this time.
    pub(crate) fn heard(&self, time: LedgerTime) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.is_none_or(|(known, _)| known <= time) && time > LedgerTime(0) {
            *newest = Some((time, Instant::now()));
        }
    }
    /// The estimate; of the system's clock before anything was heard.
    pub(crate) fn now(&self) -> LedgerTime {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((time, at)) => time.plus(at.elapsed().as_millis() as u64),
            None => LedgerTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ledger_time_is_the_newest_heard_and_goes_on() {
        let clock = LedgerClock::default();
        clock.heard(LedgerTime(5_000));
        clock.heard(LedgerTime(4_000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), LedgerTime(5_250));
    }

    #[test]
    fn pauses_grow_and_are_bounded_and_repeat_with_the_seed() {
        let draw = || {
            let chance = Chance::new(Some(7));
            (0..12).map(|n| chance.pause(Duration::from_millis(4), Duration::from_millis(100), n)).collect::<Vec<_>>()
        };
        let pauses = draw();
        assert_eq!(pauses, draw());
        assert!(pauses[0] >= Duration::from_millis(2) && pauses[0] <= Duration::from_millis(4), "{:?}", pauses[0]);
        assert!(
            pauses[11] >= Duration::from_millis(50) && pauses[11] <= Duration::from_millis(100),
            "{:?}",
            pauses[11]
        );
    }
}
