//! How current a replica knows itself to be: for stale reads, which say their age.
//!
//! **What it is.** A leader knows when a quorum last followed it. It tells its followers with every question for their clocks, and what was
//! committed then; a follower that has applied as much was current at that moment.
//! **Owns** that moment. **Must never** make a replica younger than it is: what is not known to be applied does not count.
//! **Read next**: [`crate::leading`].

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

/// A leader's word to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// So long ago a quorum followed the leader.
    pub(crate) quorum_age_ms: u64,
    /// Everything committed until then is at or below this index.
    pub(crate) committed: u64,
}

impl Word {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_u64_le(self.quorum_age_ms);
        out.put_u64_le(self.committed);
        out.freeze()
    }

    /// None when the leader had nothing to say.
    pub(crate) fn decode(mut body: &[u8]) -> Option<Self> {
        (body.len() == 16).then(|| Self { quorum_age_ms: body.get_u64_le(), committed: body.get_u64_le() })
    }
}

/// When a follower was last current, as far as it knows.
#[derive(Debug, Default)]
pub(crate) struct Currency {
    current_at: Option<Instant>,
    /// The oldest word that is not applied yet: the moment, and the index that makes it true.
    ahead: Option<(Instant, u64)>,
}

impl Currency {
    /// A leader's word arrived; so much is applied here.
    pub(crate) fn heard(&mut self, word: Word, applied: u64, now: Instant) {
        self.settle(applied);
        let Some(then) = now.checked_sub(Duration::from_millis(word.quorum_age_ms)) else { return };
        if applied >= word.committed {
            self.current_at = self.current_at.max(Some(then));
        } else if self.ahead.is_none() {
            self.ahead = Some((then, word.committed));
        }
    }

    fn settle(&mut self, applied: u64) {
        if let Some((then, _)) = self.ahead.take_if(|(_, committed)| applied >= *committed) {
            self.current_at = self.current_at.max(Some(then));
        }
    }

    /// Milliseconds since it was current; none when it never knew.
    pub(crate) fn age_ms(&mut self, applied: u64, now: Instant) -> Option<u64> {
        self.settle(applied);
        self.current_at.map(|then| now.saturating_duration_since(then).as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(quorum_age_ms: u64, committed: u64) -> Word {
        Word { quorum_age_ms, committed }
    }

    #[test]
    fn a_word_counts_from_when_a_quorum_followed_and_only_once_it_is_applied() {
        let start = Instant::now() + Duration::from_secs(60);
        let at = |ms| start + Duration::from_millis(ms);
        let mut currency = Currency::default();
        assert_eq!(currency.age_ms(9, at(0)), None, "nobody said anything");
        currency.heard(word(30, 10), 9, at(100));
        assert_eq!(currency.age_ms(9, at(150)), None, "entry 10 is missing");
        assert_eq!(currency.age_ms(10, at(150)), Some(80));
        currency.heard(word(5, 20), 10, at(200));
        currency.heard(word(5, 40), 10, at(300));
        assert_eq!(currency.age_ms(19, at(310)), Some(240), "still the first one");
        assert_eq!(currency.age_ms(25, at(310)), Some(115), "the older of the two is reached");
        currency.heard(word(5_000, 25), 25, at(320));
        assert_eq!(currency.age_ms(25, at(320)), Some(125), "a leader without a quorum makes nobody younger");
    }

    #[test]
    fn words_come_back_as_they_went() {
        assert_eq!(Word::decode(&word(7, u64::MAX).encode()), Some(word(7, u64::MAX)));
        assert_eq!(Word::decode(&[]), None);
        assert_eq!(Word::decode(&[0; 15]), None);
    }
}
