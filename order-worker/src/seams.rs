//! Chance and the time of day, behind a seam so that tests repeat. Time that passes is tokio's, which tests pause.
//!
//! **Owns** the only uses of the system's clock and randomness. **Must never** decide whether an order was paid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Chance and the time of day.
#[derive(Clone)]
pub struct Seams {
    chance: Arc<Mutex<StdRng>>,
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Seams {
    /// The system's.
    #[expect(clippy::disallowed_methods, reason = "the seam itself")]
    pub fn real() -> Self {
        let wall = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        Self { chance: Arc::new(Mutex::new(StdRng::seed_from_u64(rand::random()))), wall: Arc::new(wall) }
    }
    /// Chance from a seed, and a clock that the test sets (Unix seconds).
    pub fn simulated(seed: u64, unix_s: Arc<AtomicU64>) -> Self {
        let wall = move || unix_s.load(Ordering::Relaxed);
        Self { chance: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), wall: Arc::new(wall) }
    }
    /// Time of day, Unix seconds.
    pub fn unix_s(&self) -> u64 {
        (self.wall)()
    }
    /// A random number.
    pub fn draw(&self) -> u64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
    /// Between half of `whole` and all of it, so that a crowd of workers does not come back in step.
    pub fn jitter(&self, whole: Duration) -> Duration {
        let half = (whole.as_micros() as u64) / 2;
        Duration::from_micros(half + self.draw() % (half + 1))
    }
    /// A jittered pause that doubles with `tries` (0 for the first) from `min` up to `max`.
    pub fn pause(&self, min: Duration, max: Duration, tries: u32) -> Duration {
        self.jitter(min.saturating_mul(1 << tries.min(16)).min(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded_and_repeat_with_the_seed() {
        let draw = || {
            let seams = Seams::simulated(7, Arc::default());
            (0..9).map(|n| seams.pause(Duration::from_millis(20), Duration::from_millis(200), n)).collect::<Vec<_>>()
        };
        let pauses = draw();
        assert_eq!(pauses, draw());
        assert!(pauses[0] >= Duration::from_millis(10) && pauses[0] <= Duration::from_millis(20), "{:?}", pauses[0]);
        assert!(pauses[8] >= Duration::from_millis(100) && pauses[8] <= Duration::from_millis(200), "{:?}", pauses[8]);
    }
}
