//! The one outcome type of every verb.
//!
//! **Owns** [`Outcome`] and what its four cases carry. **Must never** turn *unknown* into *no*, nor grow a fifth case.
//! **Read next**: [`crate::Client`].

use std::time::Duration;

use ledger_core::outcome::{Balance, Brief, Status};
use ledger_core::{LedgerTime, Position, Refusal, ReservationId};
use ledger_proto::{Cause, Why};

/// What became of a call. There is no other error.
///
/// | case | what happened | what to do |
/// |---|---|---|
/// | `Ok` | it is so | go on |
/// | `Refused` | nothing changed | read why; asking again gives the same |
/// | `NotNow` | nothing happened | come back after `retry_after` |
/// | `Unknown` | it may or may not have happened | ask again **with the same id**, or [`resolve`](crate::Client::resolve) it |
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an outcome says whether it happened"]
pub enum Outcome<T> {
    /// It is so.
    Ok(Answered<T>),
    /// No; nothing changed.
    Refused(Refused),
    /// Nothing happened; when to come back.
    NotNow(NotNow),
    /// The deadline passed while an answer was under way: it may or may not have happened.
    Unknown(Unknown),
}

/// A value with where and when it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// What was answered.
    pub value: T,
    /// Where in the log and when; none for pages that span shards.
    pub at: Option<At>,
}

/// Where and when an answer was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Position in the shard's log.
    pub position: Position,
    /// Ledger time of that position.
    pub time: LedgerTime,
    /// Whether it is a stale read, asked for by name.
    pub stale: bool,
    /// Stale reads: so long ago the answering replica had applied all that was committed, if it knows.
    pub age: Option<Duration>,
}

/// No, and why. Definite: nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused: {why}")]
pub struct Refused {
    /// The reason, first in order of precedence.
    #[source]
    pub why: Why,
    /// Where it was decided; none when the input never reached the ledger.
    pub at: Option<At>,
}

impl Refused {
    /// The ledger's refusal, unless the input was invalid or not permitted.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.why {
            Why::Ledger(refusal) => Some(refusal),
            Why::Invalid(_) | Why::PermissionDenied(_) | Why::Other { .. } => None,
        }
    }
}

/// Not now. Definite: nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not now ({cause:?}): {message}; come back in {} ms", retry_after.as_millis())]
pub struct NotNow {
    /// What keeps it.
    pub cause: Cause,
    /// For people.
    pub message: String,
    /// When to come back.
    pub retry_after: Duration,
}

/// It may or may not have happened: ask again with the same id, or resolve it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown whether it happened: {message}; ask again with the same id, or resolve it")]
pub struct Unknown {
    /// Why it is not known, for people.
    pub message: String,
}

impl<T> Outcome<T> {
    /// Whether it is certain what happened: everything but `Unknown`.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
    /// Whether certainly nothing changed: `Refused` and `NotNow`.
    pub fn has_no_effect(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotNow(_))
    }
    /// Whether it is `Ok`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }
    /// When to ask again with the same id; none when asking again is of no use.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Ok(_) | Self::Refused(_) => None,
            Self::NotNow(not_now) => Some(not_now.retry_after),
            Self::Unknown(_) => Some(Duration::ZERO),
        }
    }
    /// The value, if it is `Ok`.
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(answered) => Some(answered.value),
            _ => None,
        }
    }
    /// The ledger's refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refused) => refused.refusal(),
            _ => None,
        }
    }
    /// Where and when it was decided, if it was.
    pub fn at(&self) -> Option<At> {
        match self {
            Self::Ok(answered) => answered.at,
            Self::Refused(refused) => refused.at,
            Self::NotNow(_) | Self::Unknown(_) => None,
        }
    }
    /// The same outcome about another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Ok(answered) => Outcome::Ok(Answered { value: f(answered.value), at: answered.at }),
            Self::Refused(refused) => Outcome::Refused(refused),
            Self::NotNow(not_now) => Outcome::NotNow(not_now),
            Self::Unknown(unknown) => Outcome::Unknown(unknown),
        }
    }
    /// As a `Result`, for `?`. The error keeps the three cases apart.
    ///
    /// # Errors
    /// [`NotOk`] for everything but `Ok`.
    #[expect(clippy::result_large_err, reason = "the outcome is as large, and this is not the hot path")]
    pub fn into_result(self) -> Result<T, NotOk> {
        match self {
            Self::Ok(answered) => Ok(answered.value),
            Self::Refused(refused) => Err(NotOk::Refused(refused)),
            Self::NotNow(not_now) => Err(NotOk::NotNow(not_now)),
            Self::Unknown(unknown) => Err(NotOk::Unknown(unknown)),
        }
    }
}

/// An [`Outcome`] that is not `Ok`, as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOk {
    /// No; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing happened.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// It may or may not have happened.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// A reservation as the verbs on it answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Where it stands.
    pub status: Status,
    /// The hold's deadline in ledger time; of an ended one, the deadline it had.
    pub deadline: LedgerTime,
    /// When it was taken, in ledger time.
    pub reserved_at: LedgerTime,
    /// Whether this repeats an earlier verdict without a second effect.
    pub replayed: bool,
}

impl Reservation {
    pub(crate) fn new(id: ReservationId, brief: Brief) -> Self {
        let Brief { status, deadline, reserved_at, replayed } = brief;
        Self { id, status, deadline, reserved_at, replayed }
    }
}

/// What became of an id that was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// It never executed, and now never will.
    Never,
    /// It was refused, for this reason, and never will execute.
    WasRefused(Refusal),
    /// It executed; this is where it stands. A live hold is left alone.
    Reservation(Reservation),
}

/// Units brought back by a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// How many came back through this reference.
    pub units: u64,
    /// Whether this repeats an earlier verdict.
    pub replayed: bool,
}

/// An offer after its policy, state or existence was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferSettled {
    /// Its version now, for `expected_version`.
    pub version: u64,
    /// Whether nothing had to change.
    pub replayed: bool,
}

/// An offer's stock after a receive, adjust or allot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stocked {
    /// Units now (for allot: of the receiving offer).
    pub balance: Balance,
    /// Its version now.
    pub version: u64,
    /// Whether this repeats an earlier verdict.
    pub replayed: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Token of the next page; none when this is the last.
    pub next: Option<String>,
}
