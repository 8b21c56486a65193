//! A breaker for linearizable stock reads, for callers who asked by name for a stale answer instead.
//!
//! **What it is.** After so many failures within a time the breaker opens: for a while reads that may fall back are stale at once and ask no leader. Then one
//! of them tries; its success closes the breaker, its failure opens it again. (The pattern is Nygard's, *Release It!*.)
//! **Owns** that count. **Must never** touch a read that did not ask for the fallback.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the breaker of [`crate::ReadOf::or_stale`] opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures …
    pub failures: usize,
    /// … within this time open it.
    pub within: Duration,
    /// It stays open this long; then one read tries.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 7, within: Duration::from_secs(60), open_for: Duration::from_secs(10) }
    }
}

#[derive(Default)]
struct State {
    failures: VecDeque<Instant>,
    open_until: Option<Instant>,
    trying: bool,
}

/// The breaker.
pub(crate) struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a linearizable read may be tried now. The one that tries for all must tell how it went.
    pub(crate) fn lets_through(&self) -> bool {
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if Instant::now() < until || state.trying => false,
            Some(_) => {
                state.trying = true;
                true
            }
        }
    }

    pub(crate) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    pub(crate) fn failed(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let State { failures, open_until, trying } = &mut *state;
        while failures.front().is_some_and(|&first| now - first > self.settings.within) {
            failures.pop_front();
        }
        failures.push_back(now);
        if std::mem::take(trying) || failures.len() >= self.settings.failures {
            *open_until = Some(now + self.settings.open_for);
            failures.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_within_the_time_and_lets_one_try() {
        let breaker = Breaker::new(BreakerSettings::default());
        for _ in 0..6 {
            breaker.failed();
        }
        tokio::time::advance(Duration::from_secs(61)).await;
        breaker.failed();
        assert!(breaker.lets_through(), "six of the seven are too old");
        for _ in 0..6 {
            breaker.failed();
        }
        assert!(!breaker.lets_through());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(breaker.lets_through());
        assert!(!breaker.lets_through(), "one tries, the others wait for what it finds");
        breaker.failed();
        assert!(!breaker.lets_through());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(breaker.lets_through());
        breaker.succeeded();
        assert!(breaker.lets_through() && breaker.lets_through());
    }
}
