//! What the crowd was told, kept on the crowd's side: in memory and as one JSON line an acknowledgement.
//!
//! **Owns** claims by id, latencies, counts by reason, and the time without a leader. **Must never** be filled from anything but
//! answers to the crowd: the check at the end compares the ledger with it. **Read next**: [`super::verify`].

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_sdk::{At, LedgerTime, OfferKey, Outcome, Refusal, Reservation, ReservationId, Status};
use hdrhistogram::Histogram;

use crate::documents::{refusal_word, status_name};
use crate::limits;

/// The last word a buyer has on a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Asked, and no definite answer came.
    Unknown,
    /// Nothing happened, said the ledger.
    NotNow,
    /// Refused.
    Refused,
    /// Held until then.
    Held(LedgerTime),
    /// A confirm was asked for, and no definite answer came.
    ConfirmUnknown(LedgerTime),
    /// A release was asked for, and no definite answer came.
    ReleaseUnknown(LedgerTime),
    /// Ended so.
    Ended(Status),
}

/// One reservation as its buyer sees it.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// What was asked for.
    pub(super) offer: OfferKey,
    /// How many.
    pub(super) units: u32,
    /// The last word.
    pub(super) said: Said,
}

/// Which verb an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Reserve.
    Reserve,
    /// Confirm.
    Confirm,
    /// Release.
    Release,
}

/// One kill, and how long the hot shard was silent around it.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    /// Who was killed.
    pub(super) who: String,
    at: Instant,
    /// Longest time between two successes since.
    pub(super) silent: Duration,
    /// A success has come since.
    pub(super) over: bool,
}

struct Inner {
    claims: HashMap<ReservationId, Claim>,
    file: std::io::BufWriter<std::fs::File>,
    words: BTreeMap<(&'static str, &'static str), u64>,
    latency: Histogram<u64>,
    window: Histogram<u64>,
    answers: u64,
    acknowledged: u64,
    hot_shard: u32,
    hot_answers: u64,
    last_success: Instant,
    kills: Vec<Kill>,
}

/// The crowd's journal.
pub(super) struct Journal {
    began: Instant,
    inner: Mutex<Inner>,
}

/// What the ticker shows.
pub(super) struct Glance {
    /// Answers so far.
    pub(super) answers: u64,
    /// Median of the answers since the last glance, microseconds.
    pub(super) p50: u64,
    /// 99th percentile of them.
    pub(super) p99: u64,
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, limits::LATENCY_US_MAX, 3).expect("constant bounds are valid")
}

impl Journal {
    /// A journal in a directory.
    pub(super) fn create(dir: &Path, hot_shard: u32) -> std::io::Result<Self> {
        let file = std::io::BufWriter::new(std::fs::File::create(dir.join("journal.jsonl"))?);
        let inner = Inner {
            claims: HashMap::new(),
            file,
            words: BTreeMap::new(),
            latency: histogram(),
            window: histogram(),
            answers: 0,
            acknowledged: 0,
            hot_shard,
            hot_answers: 0,
            last_success: Instant::now(),
            kills: Vec::new(),
        };
        Ok(Self { began: Instant::now(), inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buyer is about to ask for this; the id is stored first.
    pub(super) fn asks(&self, id: ReservationId, offer: &OfferKey, units: u32) {
        self.inner().claims.insert(id, Claim { offer: offer.clone(), units, said: Said::Unknown });
    }

    /// A buyer is about to confirm or release: until the answer it may be either way.
    pub(super) fn asks_end(&self, id: ReservationId, asked: Asked) {
        if let Some(claim) = self.inner().claims.get_mut(&id)
            && let Said::Held(deadline) = claim.said
        {
            claim.said = match asked {
                Asked::Confirm => Said::ConfirmUnknown(deadline),
                _ => Said::ReleaseUnknown(deadline),
            };
        }
    }

    /// An answer came.
    pub(super) fn told(&self, asked: Asked, id: ReservationId, outcome: &Outcome<Reservation>, took: Duration) {
        let verb = match asked {
            Asked::Reserve => "reserve",
            Asked::Confirm => "confirm",
            Asked::Release => "release",
        };
        let word = refusal_word(outcome);
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.answers += 1;
        *inner.words.entry((verb, word)).or_default() += 1;
        let micros = (took.as_micros() as u64).max(1);
        inner.latency.saturating_record(micros);
        inner.window.saturating_record(micros);
        inner.success(outcome.at());
        let Some(claim) = inner.claims.get_mut(&id) else { return };
        claim.said = match (outcome, claim.said) {
            (Outcome::Ok(answered), _) if answered.value.status == Status::Held => Said::Held(answered.value.deadline),
            (Outcome::Ok(answered), _) => Said::Ended(answered.value.status),
            (Outcome::Refused(_), Said::Unknown) => Said::Refused,
            (Outcome::NotNow(_), Said::Unknown) => Said::NotNow,
            (Outcome::Refused(refused), said) => match refused.refusal() {
                Some(Refusal::NotHeld { status }) => Said::Ended(*status),
                _ => said,
            },
            // An unanswered confirm or release leaves a hold that ends by its deadline, or was ended by an earlier try.
            (_, said) => said,
        };
        if !matches!(outcome, Outcome::Ok(_) | Outcome::Refused(_)) {
            return;
        }
        inner.acknowledged += 1;
        let status = match outcome {
            Outcome::Ok(answered) => status_name(answered.value.status),
            _ => word,
        };
        let line = serde_json::json!({
            "ms": self.began.elapsed().as_millis() as u64,
            "verb": verb, "id": id.to_string(), "sku": claim.offer.sku.as_str(), "units": claim.units, "answer": status,
            "at": outcome.at().map(|at| [u64::from(at.position.shard), at.position.term, at.position.index, at.position.place.into()]),
        });
        // The copy in memory is what is checked; a full disk must not end the demo.
        drop(writeln!(inner.file, "{line}"));
    }

    /// A hot answer that is no buyer's: the pulse that measures the time without a leader.
    pub(super) fn pulse(&self, at: Option<At>) {
        self.inner().success(at);
    }

    /// Of a buyer of the hot product, whatever it was.
    pub(super) fn hot_answered(&self) {
        self.inner().hot_answers += 1;
    }
    /// Answers to buyers of the hot product so far.
    pub(super) fn hot_answers(&self) -> u64 {
        self.inner().hot_answers
    }

    /// The leader is killed now.
    pub(super) fn killed(&self, who: &str) {
        self.inner().kills.push(Kill { who: who.to_owned(), at: Instant::now(), silent: Duration::ZERO, over: false });
    }
    /// Whether the hot shard answers again since the last kill.
    pub(super) fn recovered(&self) -> bool {
        self.inner().kills.last().is_none_or(|k| k.over)
    }
    /// All kills.
    pub(super) fn kills(&self) -> Vec<Kill> {
        self.inner().kills.clone()
    }

    /// For the ticker; starts a new window.
    pub(super) fn glance(&self) -> Glance {
        let mut inner = self.inner();
        let glance = Glance {
            answers: inner.answers,
            p50: inner.window.value_at_quantile(0.5),
            p99: inner.window.value_at_quantile(0.99),
        };
        inner.window.reset();
        glance
    }

    /// Everything, for the check at the end; the file is flushed.
    pub(super) fn close(&self) -> Closed {
        let mut inner = self.inner();
        drop(inner.file.flush());
        Closed {
            claims: inner.claims.clone(),
            words: inner.words.clone(),
            latency: inner.latency.clone(),
            answers: inner.answers,
            acknowledged: inner.acknowledged,
        }
    }
}

impl Inner {
    fn success(&mut self, at: Option<At>) {
        if at.is_none_or(|at| at.position.shard != self.hot_shard) {
            return;
        }
        let now = Instant::now();
        let gap = now - self.last_success;
        self.last_success = now;
        // An answer that was on its way when the leader died does not end the silence.
        if let Some(kill) = self.kills.last_mut()
            && now > kill.at
        {
            kill.silent = kill.silent.max(gap);
            kill.over |= gap > Duration::from_millis(50) || now - kill.at > Duration::from_millis(500);
        }
    }
}

/// The journal when the crowd has gone.
pub(super) struct Closed {
    /// By id.
    pub(super) claims: HashMap<ReservationId, Claim>,
    /// Answers by verb and word.
    pub(super) words: BTreeMap<(&'static str, &'static str), u64>,
    /// All latencies, microseconds.
    pub(super) latency: Histogram<u64>,
    /// Answers of every kind.
    pub(super) answers: u64,
    /// Definite answers from the ledger.
    pub(super) acknowledged: u64,
}
