//! What a call is answered on the wire: the ledger's outcome, and what node and network add to it.
//!
//! **Owns** [`Reply`] and its parts. **Must never** turn *unknown* into *no*. **Read next**: [`crate::answers`].

use std::borrow::Cow;

use ledger_core::outcome;
use ledger_core::{InvalidValue, LedgerTime, Position, Refusal, Settled};

/// Input that is no valid call: which field, and what is wrong with it. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Invalid {
    /// The field as it is called in the protobuf definitions.
    pub field: Cow<'static, str>,
    /// Which rule was broken.
    pub why: String,
}

impl Invalid {
    /// Names a field and the rule it breaks.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
    /// For `map_err` on the core's constructors.
    pub fn of(field: &'static str) -> impl FnOnce(InvalidValue) -> Self {
        move |value| Self { field: field.into(), why: value.to_string() }
    }
}

/// Why the answer is no. Definite: nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The ledger refused it.
    #[error(transparent)]
    Ledger(#[from] Refusal),
    /// The input was invalid; it never reached the ledger. Mend the call.
    #[error("invalid call: {0}")]
    Invalid(#[from] Invalid),
    /// The caller's role does not allow it.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// A newer node's reason that this build does not know by type.
    #[error("{message} (refusal {code})")]
    Other {
        /// Its frozen number.
        code: i32,
        /// For people.
        message: String,
    },
}

/// What keeps a call from being answered just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The node does not lead the shard; the leader's address may be known.
    NotLeader,
    /// The slot belongs to another shard: refresh the routing.
    SlotElsewhere,
    /// The id's time lies too far ahead of ledger time.
    IdTooFarAhead,
    /// Too many young ids are remembered.
    MemoryFull,
    /// A queue is full: the shard's, or the caller's own.
    Overloaded,
    /// The leader has no quorum of clock readings.
    ClockUnsure,
    /// The clocks of a quorum jumped ahead while the shard had a leader; an operator must set them right, or accept.
    ClockJumped,
    /// The log's disk is low on space.
    LowSpace,
    /// The node is starting, stopping, or not a member of a cluster yet.
    NotServing,
    /// No majority of replicas agrees on the state.
    Diverged,
    /// The caller sends more than its share.
    RateLimited,
    /// An order's hold is due; the next entries decide what becomes of it.
    SweepPending,
    /// Too few replicas of the shard are reached; the message names those missing.
    NoQuorum,
    /// The shard has as many records of a kind as it may have; somebody must bring some to their end.
    RecordsFull,
    /// No node could be reached within the deadline, and nothing was sent. Only callers say this.
    Unreachable,
    /// A newer node's cause that this build does not know.
    Other,
}

/// Not now. Definite: nothing happened, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not now ({cause:?}): {message}; retry in {retry_ms} ms")]
pub struct NotNow {
    /// What keeps it.
    pub cause: Cause,
    /// For people.
    pub message: String,
    /// When to come back, milliseconds; zero: at once, elsewhere.
    pub retry_ms: u32,
    /// `host:port` of the leader's client port, if known.
    pub leader: Option<String>,
}

impl NotNow {
    /// Not now, for this cause, and when to come back.
    pub fn new(cause: Cause, message: impl Into<String>, retry_ms: u32) -> Self {
        Self { cause, message: message.into(), retry_ms, leader: None }
    }
    /// The node does not lead the shard.
    pub fn not_leader(leader: Option<String>) -> Self {
        let retry_ms = if leader.is_some() { 0 } else { 20 };
        Self { cause: Cause::NotLeader, message: "this node does not lead the shard".into(), retry_ms, leader }
    }
}

impl From<outcome::NotNow> for NotNow {
    fn from(core: outcome::NotNow) -> Self {
        let ms = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        match core {
            outcome::NotNow::SlotElsewhere => {
                Self::new(Cause::SlotElsewhere, "the slot belongs to another shard; refresh the routing", 0)
            }
            outcome::NotNow::IdTooFarAhead { retry_ms } => {
                Self::new(Cause::IdTooFarAhead, "the id's time lies too far ahead of ledger time", ms(retry_ms))
            }
            outcome::NotNow::MemoryFull { retry_ms } => {
                Self::new(Cause::MemoryFull, "too many young ids are remembered", ms(retry_ms))
            }
            outcome::NotNow::SweepPending { retry_ms } => Self::new(
                Cause::SweepPending,
                "the order's hold is due; what becomes of it is being decided",
                ms(retry_ms),
            ),
            outcome::NotNow::RecordsFull { what, retry_ms } => Self::new(
                Cause::RecordsFull,
                format!("the shard has as many {what} as it may have; an operator must bring some to their end"),
                ms(retry_ms),
            ),
        }
    }
}

/// The answer to one call, whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is so.
    Ok(Settled),
    /// No; nothing changed.
    Refused(Why),
    /// Nothing happened; come back.
    NotNow(NotNow),
    /// It may or may not have happened: ask again with the same id, or resolve it.
    Unknown(String),
}

impl From<outcome::Outcome> for Reply {
    fn from(core: outcome::Outcome) -> Self {
        match core {
            outcome::Outcome::Ok(settled) => Self::Ok(settled),
            outcome::Outcome::Refused(refusal) => Self::Refused(Why::Ledger(refusal)),
            outcome::Outcome::NotNow(not_now) => Self::NotNow(not_now.into()),
        }
    }
}

impl From<Invalid> for Reply {
    fn from(invalid: Invalid) -> Self {
        Self::Refused(Why::Invalid(invalid))
    }
}

/// Where and when an answer was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Position in the shard's log.
    pub position: Position,
    /// Ledger time of that position.
    pub time: LedgerTime,
}
