//! Idempotency keys and the answers they keep.
//!
//! **Owns** which keys are known, and for how long. The answers themselves stay in the journal; a key knows the line. **Must
//! never** forget a key before its time. **Read next**: [`crate::sim`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Place;

/// The keys that are known.
#[derive(Default)]
pub(crate) struct Keys {
    kept: HashMap<Arc<str>, Kept>,
    /// In the order they were kept, to forget them in.
    ages: VecDeque<(i64, Arc<str>)>,
    /// Keys of calls that wait before they do anything, with the fingerprint of each.
    in_use: HashMap<Box<str>, u64>,
}

#[derive(Clone, Copy)]
struct Kept {
    print: u64,
    at_ms: i64,
    place: Place,
}

/// What a key says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: the call is the first.
    Not,
    /// It was answered, and the answer is in this line.
    Answered(Place),
    /// It was used with another endpoint or other parameters.
    OtherParameters,
    /// A call with it is under way.
    InUse,
}

impl Keys {
    /// What is known of `key` at `now_ms`, when keys are forgotten after `forget_ms`.
    pub(crate) fn known(&mut self, key: &str, print: u64, now_ms: i64, forget_ms: i64) -> Known {
        self.forget(now_ms.saturating_sub(forget_ms));
        if let Some(kept) = self.kept.get(key) {
            return if kept.print == print { Known::Answered(kept.place) } else { Known::OtherParameters };
        }
        match self.in_use.get(key) {
            Some(used) if *used == print => Known::InUse,
            Some(_) => Known::OtherParameters,
            None => Known::Not,
        }
    }

    /// Keeps the answer in the line at `place`.
    pub(crate) fn keep(&mut self, key: Box<str>, print: u64, at_ms: i64, place: Place) {
        let key: Arc<str> = key.into();
        self.ages.push_back((at_ms, key.clone()));
        self.kept.insert(key, Kept { print, at_ms, place });
    }

    /// A call with `key` begins to wait.
    pub(crate) fn begin(&mut self, key: &str, print: u64) {
        self.in_use.insert(key.into(), print);
    }

    /// A call with `key` no longer waits.
    pub(crate) fn end(&mut self, key: &str) {
        self.in_use.remove(key);
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    fn forget(&mut self, until_ms: i64) {
        while self.ages.front().is_some_and(|(at_ms, _)| *at_ms <= until_ms) {
            let Some((_, key)) = self.ages.pop_front() else { return };
            // A key that was kept again since is younger than this age.
            if self.kept.get(&key).is_some_and(|kept| kept.at_ms <= until_ms) {
                self.kept.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_for_its_time_and_then_free() {
        let mut keys = Keys::default();
        let place = Place { offset: 7, bytes: 1 };
        keys.keep("a".into(), 1, 1_000, place);
        assert_eq!(keys.known("a", 1, 1_999, 1_000), Known::Answered(place));
        assert_eq!(keys.known("a", 2, 1_999, 1_000), Known::OtherParameters);
        assert_eq!(keys.known("b", 2, 1_999, 1_000), Known::Not);
        assert_eq!(keys.known("a", 2, 2_000, 1_000), Known::Not);
        assert_eq!(keys.len(), 0);
    }

    #[test]
    fn a_call_that_waits_holds_its_key() {
        let mut keys = Keys::default();
        keys.begin("a", 1);
        assert_eq!(keys.known("a", 1, 0, 1_000), Known::InUse);
        assert_eq!(keys.known("a", 2, 0, 1_000), Known::OtherParameters);
        keys.end("a");
        assert_eq!(keys.known("a", 1, 0, 1_000), Known::Not);
    }
}
