//! How current a replica knows itself to be: for stale reads, which say their age.
//!
//! **What it is.** A leader knows when a quorum last followed it. It tells its followers with every question for their clocks, and what was
//! committed then; a follower that has applied as much was current at that moment. It tells them ledger time, too, so that the next
//! leader knows what to expect ([`crate::clock`]). A word may travel for long, so it carries
//! a moment of the follower's own that came with its last answer: the word was said after that one.
//! **Owns** that moment. **Must never** make a replica younger than it is: what is not known to be applied does not count.
//! **Read next**: [`crate::leading`].

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use crate::limits::STAMP_MS_MAX;

/// A moment of a follower's own elapsed time, in one run of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Tells this run from one before a restart.
    pub(crate) run: u64,
    /// Milliseconds since that run began.
    pub(crate) ms: u64,
}

/// A leader's word to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// So long ago a quorum followed the leader.
    pub(crate) quorum_age_ms: u64,
    /// Everything committed until then is at or below this index.
    pub(crate) committed: u64,
    /// Ledger time at the leader; none while it may not stamp.
    pub(crate) ledger_ms: Option<u64>,
    /// It was said after this moment of the follower's; none before the follower's first answer.
    pub(crate) after: Option<Moment>,
}

/// Bytes of a word without a moment, and with one.
const WORD_BYTES: [usize; 2] = [24, 40];

impl Word {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(WORD_BYTES[1]);
        out.put_u64_le(self.quorum_age_ms);
        out.put_u64_le(self.committed);
        out.put_u64_le(self.ledger_ms.unwrap_or(0));
        if let Some(after) = self.after {
            out.put_u64_le(after.run);
            out.put_u64_le(after.ms);
        }
        out.freeze()
    }

    /// None when the leader had nothing to say.
    pub(crate) fn decode(mut body: &[u8]) -> Option<Self> {
        if !WORD_BYTES.contains(&body.len()) {
            return None;
        }
        let (quorum_age_ms, committed) = (body.get_u64_le(), body.get_u64_le());
        let ledger_ms = Some(body.get_u64_le()).filter(|ms| (1..=STAMP_MS_MAX).contains(ms));
        let after = (!body.is_empty()).then(|| Moment { run: body.get_u64_le(), ms: body.get_u64_le() });
        Some(Self { quorum_age_ms, committed, ledger_ms, after })
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
    /// A leader's word arrived that was said after a moment; so much is applied here.
    pub(crate) fn heard(&mut self, word: Word, applied: u64, said_after: Instant) {
        self.settle(applied);
        let Some(then) = said_after.checked_sub(Duration::from_millis(word.quorum_age_ms)) else { return };
        if applied >= word.committed {
            self.current_at = self.current_at.max(Some(then));
        } else if self.ahead.is_none_or(|(_, committed)| word.committed < committed) {
            // One index may never be reached: what comes true sooner counts.
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
        Word { quorum_age_ms, committed, ledger_ms: None, after: None }
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
    fn a_word_of_what_is_never_committed_does_not_stand_before_later_ones() {
        let now = Instant::now() + Duration::from_secs(60);
        let mut currency = Currency::default();
        currency.heard(word(u64::MAX, u64::MAX), 9, now);
        currency.heard(word(0, u64::MAX), 9, now);
        currency.heard(word(0, 10), 9, now);
        assert_eq!(currency.age_ms(10, now), Some(0));
    }

    #[test]
    fn words_come_back_as_they_went() {
        let with = Word { after: Some(Moment { run: 3, ms: 9 }), ..word(7, u64::MAX) };
        let timed = Word { ledger_ms: Some(1_700_000_000_000), ..with };
        for word in [word(7, u64::MAX), with, timed] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        assert_eq!(Word::decode(&with.encode()[..39]), None);
        assert_eq!(Word::decode(&[]), None);
        assert_eq!(Word::decode(&[0; 15]), None);
    }
}
