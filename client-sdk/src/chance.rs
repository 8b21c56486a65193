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

use crate::limits;

/// This long from `now`, for any length.
pub(crate) fn after(now: Instant, length: Duration) -> Instant {
    now.checked_add(length).unwrap_or_else(|| now + limits::FAR)
}

/// When to come back, by what a server said.
pub(crate) fn retry_after(ms: u32) -> Duration {
    Duration::from_millis(ms.into()).clamp(limits::BACKOFF_MIN, limits::RETRY_AFTER_MAX)
}

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

/// Ids carry 48 bits of time.
const TIME_END: LedgerTime = LedgerTime(1 << 48);

/// The newest ledger time heard, advanced by the monotonic clock.
#[derive(Default)]
pub(crate) struct LedgerClock(Mutex<Option<(LedgerTime, Instant)>>);

impl LedgerClock {
    /// An answer carried this time. One that no id can carry is no ledger time, and would spoil every id minted after it.
    pub(crate) fn heard(&self, time: LedgerTime) {
        if time >= TIME_END {
            return;
        }
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
    async fn a_time_that_no_id_can_carry_is_not_heard() {
        let clock = LedgerClock::default();
        clock.heard(LedgerTime(1_000));
        clock.heard(LedgerTime(u64::MAX));
        clock.heard(TIME_END);
        assert_eq!(clock.now(), LedgerTime(1_000));
        clock.heard(LedgerTime(TIME_END.0 - 1));
        assert_eq!(clock.now(), LedgerTime(TIME_END.0 - 1));
    }

    #[test]
    fn a_retry_time_is_bounded_whatever_a_server_says() {
        assert_eq!(retry_after(0), limits::BACKOFF_MIN);
        assert_eq!(retry_after(2_000), Duration::from_secs(2));
        assert_eq!(retry_after(u32::MAX), limits::RETRY_AFTER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_of_any_length_is_an_instant() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(300 * 24 * 3_600));
    }

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
