//! A circuit breaker for one dependency.
//!
//! **What it is.** Closed until so many failures within a window; then open for a time, in which nothing is sent; then one call at a time
//! probes, and the first that comes back well closes it. Time is tokio's, so that tests pause it: the crates of the field count calls
//! instead of time, or ask the system's clock.
//!
//! **Owns** when the dependency is left alone. **Must never** decide what an answer means.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

/// Its numbers, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerNumbers {
    /// It opens after so many failures ...
    pub failures: usize,
    /// ... within this time.
    pub window: Duration,
    /// How long it stays open before a call may probe.
    pub open_for: Duration,
}

impl Default for BreakerNumbers {
    fn default() -> Self {
        Self { failures: 5, window: Duration::from_secs(30), open_for: Duration::from_secs(30) }
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Calls go through.
    Closed,
    /// Nothing goes through before this time is over.
    Open(Duration),
    /// One call may probe.
    HalfOpen {
        /// Whether no call does so now.
        free: bool,
    },
}

#[derive(Debug)]
enum State {
    Closed(VecDeque<Instant>),
    Open { until: Instant },
    Probing,
}

/// See the module. Clones are the same breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    numbers: BreakerNumbers,
    state: Mutex<State>,
    changed: Arc<Notify>,
}

/// Leave to make one call. Dropped without a verdict (the call was abandoned), it says nothing about the dependency.
#[derive(Debug)]
pub struct Pass {
    breaker: Breaker,
    probe: bool,
    said: bool,
}

impl Breaker {
    /// A closed one.
    pub fn new(numbers: BreakerNumbers) -> Self {
        let (state, changed) = (Mutex::new(State::Closed(VecDeque::new())), Arc::default());
        Self { inner: Arc::new(Inner { numbers, state, changed }) }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn set(&self, state: State) {
        *self.state() = state;
        self.inner.changed.notify_waiters();
    }
    /// How it stands now.
    pub fn standing(&self) -> Standing {
        match *self.state() {
            State::Closed(_) => Standing::Closed,
            State::Open { until } => match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Standing::HalfOpen { free: true },
                left => Standing::Open(left),
            },
            State::Probing => Standing::HalfOpen { free: false },
        }
    }
    /// Completes when it stands otherwise than when this was called. A time that is over is no
    /// change.
    pub fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.inner.changed).notified_owned()
    }
    /// Leave to make the one call that probes, if it is half open and no other call does so.
    pub fn probe(&self) -> Option<Pass> {
        self.admit().ok().filter(|pass| pass.probe)
    }
    /// Asks for leave to make a call.
    ///
    /// # Errors
    /// It is open, or another call probes; how long to wait.
    pub fn admit(&self) -> Result<Pass, Duration> {
        let mut state = self.state();
        let probe = match *state {
            State::Closed(_) => false,
            State::Open { until } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(left);
                }
                *state = State::Probing;
                true
            }
            // Perhaps for as long again.
            State::Probing => return Err(self.inner.numbers.open_for),
        };
        drop(state);
        Ok(Pass { breaker: self.clone(), probe, said: false })
    }
}

impl Pass {
    /// The dependency answered, whatever it said.
    pub fn well(mut self) {
        self.said = true;
        if self.probe {
            self.breaker.set(State::Closed(VecDeque::new()));
        }
    }
    /// The dependency did not answer, or not sensibly.
    pub fn ill(mut self) {
        self.said = true;
        let (now, numbers) = (Instant::now(), self.breaker.inner.numbers);
        let mut state = self.breaker.state();
        let opens = match &mut *state {
            State::Closed(failures) => {
                failures.push_back(now);
                while failures.front().is_some_and(|&first| now.duration_since(first) > numbers.window) {
                    failures.pop_front();
                }
                failures.len() >= numbers.failures
            }
            State::Open { .. } => false,
            State::Probing => self.probe,
        };
        drop(state);
        if opens {
            self.breaker.set(State::Open { until: now + numbers.open_for });
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe && !self.said {
            // Somebody else may probe at once.
            self.breaker.set(State::Open { until: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerNumbers::default())
    }
    fn fail(breaker: &Breaker, times: usize) {
        (0..times).for_each(|_| breaker.admit().expect("closed").ill());
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_five_failures_and_probes_after_thirty_seconds() {
        let breaker = breaker();
        fail(&breaker, 4);
        breaker.admit().expect("still closed").well();
        fail(&breaker, 1);
        assert_eq!(breaker.admit().map(drop), Err(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        let probe = breaker.admit().expect("one may probe");
        assert!(breaker.admit().is_err(), "one alone");
        probe.well();
        assert_eq!(breaker.standing(), Standing::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_do_not_open_it() {
        let breaker = breaker();
        for _ in 0..50 {
            fail(&breaker, 1);
            tokio::time::advance(Duration::from_secs(8)).await;
        }
        assert_eq!(breaker.standing(), Standing::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_an_abandoned_one_says_nothing() {
        let breaker = breaker();
        fail(&breaker, 5);
        tokio::time::advance(Duration::from_secs(30)).await;
        breaker.admit().expect("a probe").ill();
        assert_eq!(breaker.standing(), Standing::Open(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        drop(breaker.admit().expect("a probe"));
        assert_eq!(breaker.standing(), Standing::HalfOpen { free: true });
        breaker.admit().expect("another probe").well();
    }

    #[tokio::test(start_paused = true)]
    async fn probe_is_one_call_and_its_end_is_a_change() {
        let breaker = breaker();
        assert!(breaker.probe().is_none(), "closed");
        fail(&breaker, 5);
        assert!(breaker.probe().is_none(), "open");
        tokio::time::advance(Duration::from_secs(30)).await;
        let probe = breaker.probe().expect("half open");
        assert_eq!(breaker.standing(), Standing::HalfOpen { free: false });
        assert!(breaker.probe().is_none(), "one alone");
        let changed = breaker.changed();
        drop(probe);
        changed.await;
        let (probe, changed) = (breaker.probe().expect("free again"), breaker.changed());
        probe.well();
        changed.await;
        assert_eq!(breaker.standing(), Standing::Closed);
    }
}
