//! How many calls of a costly kind one source may have under way.
//!
//! **What it is.** Such calls wait for few turns, the first one first. With a bound for each source,
//! a caller waits behind a few calls of every other source instead of behind all that one asks.
//!
//! **Owns** the counts. **Must never** make a call wait: one beyond the bound is refused at once.
//! **Read next**: [`crate::feed::pace`], [`super::forward`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_proto::{Cause, NotNow};
use service::Source;

use crate::limits::RETRY_OVERLOADED_MS;

/// The calls of one kind.
#[derive(Debug)]
pub struct SourcePlaces {
    what: &'static str,
    most: usize,
    counts: Mutex<BTreeMap<Source, usize>>,
}

/// One call; it counts until this is dropped.
#[derive(Debug)]
pub struct SourcePlace {
    places: Arc<SourcePlaces>,
    source: Source,
}

impl SourcePlaces {
    /// For calls named `what` in errors, at most so many of one source.
    pub fn new(what: &'static str, most: usize) -> Arc<Self> {
        Arc::new(Self { what, most, counts: Mutex::default() })
    }

    /// A place for a call.
    ///
    /// # Errors
    /// Its source has as many under way as it may.
    pub fn take(self: &Arc<Self>, source: Source) -> Result<SourcePlace, NotNow> {
        let mut counts = self.lock();
        let count = counts.entry(source).or_default();
        if *count >= self.most {
            let (most, what) = (self.most, self.what);
            let why = format!("{most} {what} of this address are under way, which is the most; wait for some of them");
            return Err(NotNow::new(Cause::RateLimited, why, RETRY_OVERLOADED_MS));
        }
        *count += 1;
        Ok(SourcePlace { places: self.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Source, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn each_source_has_places_of_its_own_and_gives_them_back() {
        let places = SourcePlaces::new("explanations", 2);
        let source = |n: u8| Source::from(IpAddr::from([10, 0, 0, n]));
        let taken: Vec<_> = (0..2).map(|_| places.take(source(1)).expect("there is room")).collect();
        let why = places.take(source(1)).expect_err("one too many");
        assert_eq!((why.cause, why.retry_ms), (Cause::RateLimited, RETRY_OVERLOADED_MS));
        assert!(why.message.starts_with("2 explanations of this address"), "{}", why.message);
        let other = places.take(source(2)).expect("another source has its own");
        drop(taken);
        drop(places.take(source(1)).expect("they were given back"));
        drop(other);
        assert!(places.lock().is_empty());
    }
}
