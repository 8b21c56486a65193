//! How fast history grows.
//!
//! **Owns** the average over the last minutes. **Must never** be needed for what is kept.
//! **Read next**: [`super::writer`].

use tokio::time::Instant;

use crate::limits::{HISTORY_FITS_MAX, HISTORY_RATE_OVER, HISTORY_RETAIN_EVERY};

/// Bytes of records in a second, averaged over about [`HISTORY_RATE_OVER`].
pub(super) struct WriteRate {
    looked_at: Instant,
    /// Bytes since then.
    bytes: u64,
    /// None before the first look.
    per_second: Option<f64>,
}

impl Default for WriteRate {
    fn default() -> Self {
        Self { looked_at: Instant::now(), bytes: 0, per_second: None }
    }
}

impl WriteRate {
    /// A record of so many bytes came.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Takes what came since the last look into the average; does nothing right after another look.
    pub(super) fn look(&mut self) {
        let past = self.looked_at.elapsed();
        if past < HISTORY_RETAIN_EVERY / 2 {
            return;
        }
        let now = self.bytes as f64 / past.as_secs_f64();
        let weight = past.as_secs_f64() / (past + HISTORY_RATE_OVER).as_secs_f64();
        self.per_second = Some(self.per_second.map_or(now, |before| before + (now - before) * weight));
        (self.looked_at, self.bytes) = (Instant::now(), 0);
    }

    /// For how long so many bytes last, milliseconds.
    pub(super) fn fits_ms(&self, bytes_max: u64) -> u64 {
        let most = HISTORY_FITS_MAX.as_millis() as u64;
        let per_second = self.per_second.filter(|rate| *rate > 0.0);
        per_second.map_or(most, |rate| ((bytes_max as f64 / rate * 1e3) as u64).min(most))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rate_of_a_burst_counts_by_the_part_of_ten_minutes_that_it_takes() {
        let mut rate = WriteRate::default();
        let most = HISTORY_FITS_MAX.as_millis() as u64;
        assert_eq!(rate.fits_ms(1 << 40), most, "nothing is known");
        for _ in 0..100 {
            (0..10).for_each(|_| rate.add(1_000));
            tokio::time::advance(HISTORY_RETAIN_EVERY).await;
            rate.look();
            rate.look();
        }
        assert_eq!(rate.fits_ms(3_600_000), 3_600_000, "an hour of 1,000 bytes a second");
        rate.add(20_000_000);
        tokio::time::advance(HISTORY_RETAIN_EVERY).await;
        rate.look();
        let less = rate.fits_ms(3_600_000);
        assert!((100_000..150_000).contains(&less), "{less}: 1/61 of 2,000,000 and 60/61 of 1,000 a second");
        for _ in 0..500 {
            tokio::time::advance(Duration::from_secs(60)).await;
            rate.look();
        }
        assert_eq!(rate.fits_ms(3_600_000), most, "nothing is written any more");
    }
}
