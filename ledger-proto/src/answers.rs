//! Answers: outcome ↔ wire.
//!
//! **Owns** how a [`Reply`] is written and read. **Must never** read what it does not understand as *no*: that is *unknown*.
//! **Read next**: [`crate::refusals`], [`crate::fast`].

use ledger_core::outcome::{Brief, Fenced};
use ledger_core::{LedgerTime, Settled};

use crate::names;
use crate::orders;
use crate::refusals;
use crate::reply::{Cause, NotNow, Reply};
use crate::v1::{self, answer, fenced, settled};

/// A reply for the wire.
pub fn to_wire(tag: u64, place: u16, reply: &Reply) -> v1::Answer {
    let outcome = match reply {
        Reply::Ok(settled) => answer::Outcome::Ok(settled_to_wire(settled)),
        Reply::Refused(why) => answer::Outcome::Refused(refusals::why_to_wire(why)),
        Reply::NotNow(not_now) => answer::Outcome::NotNow(not_now_to_wire(not_now)),
        Reply::Unknown(message) => answer::Outcome::Unknown(v1::Unknown { message: message.clone() }),
    };
    v1::Answer { tag, place: place.into(), outcome: Some(outcome) }
}

/// A reply out of the wire. What this build does not understand is *unknown*.
pub fn from_wire(outcome: Option<answer::Outcome>) -> Reply {
    match outcome {
        Some(answer::Outcome::Ok(settled)) => match settled_from_wire(settled) {
            Some(settled) => Reply::Ok(settled),
            None => {
                Reply::Unknown("it happened, but the node is newer than this client and says it in other words".into())
            }
        },
        Some(answer::Outcome::Refused(refusal)) => Reply::Refused(refusals::why_from_wire(refusal)),
        Some(answer::Outcome::NotNow(not_now)) => Reply::NotNow(not_now_from_wire(not_now)),
        Some(answer::Outcome::Unknown(unknown)) => Reply::Unknown(unknown.message),
        None => Reply::Unknown("the node's answer has no outcome that this client knows".into()),
    }
}

/// What was settled, for the wire.
pub fn settled_to_wire(settled: &Settled) -> v1::Settled {
    let what = match settled {
        Settled::Done => settled::What::Done(v1::Done {}),
        Settled::Reservation(brief) => settled::What::Reservation(brief_to_wire(*brief)),
        Settled::Fenced(fenced) => settled::What::Fenced(fenced_to_wire(fenced)),
        Settled::Returned { units, replayed } => {
            settled::What::Returned(v1::Returned { units: *units, replayed: *replayed })
        }
        Settled::Offer { version, replayed } => {
            settled::What::Offer(v1::OfferSettled { version: *version, replayed: *replayed })
        }
        Settled::Stocked { balance, version, replayed } => settled::What::Stocked(v1::Stocked {
            balance: Some(names::balance_to_wire(*balance)),
            version: *version,
            replayed: *replayed,
        }),
        Settled::Order(brief) => settled::What::Order(orders::brief_to_wire(*brief)),
        Settled::Claimed(claimed) => settled::What::Claimed(orders::claimed_to_wire(claimed)),
    };
    v1::Settled { what: Some(what) }
}

/// What was settled; none when this build does not know it.
pub fn settled_from_wire(wire: v1::Settled) -> Option<Settled> {
    Some(match wire.what? {
        settled::What::Done(v1::Done {}) => Settled::Done,
        settled::What::Reservation(brief) => Settled::Reservation(brief_from_wire(brief)?),
        settled::What::Fenced(fenced) => Settled::Fenced(fenced_from_wire(fenced)?),
        settled::What::Returned(v1::Returned { units, replayed }) => Settled::Returned { units, replayed },
        settled::What::Offer(v1::OfferSettled { version, replayed }) => Settled::Offer { version, replayed },
        settled::What::Stocked(v1::Stocked { balance, version, replayed }) => {
            Settled::Stocked { balance: names::balance(balance), version, replayed }
        }
        settled::What::Order(brief) => Settled::Order(orders::brief_from_wire(brief).ok()?),
        settled::What::Claimed(claimed) => Settled::Claimed(orders::claimed_from_wire(claimed).ok()?),
    })
}

/// A reservation in brief, for the wire.
pub fn brief_to_wire(brief: Brief) -> v1::Brief {
    v1::Brief {
        status: names::status_to_wire(brief.status).into(),
        deadline_ms: brief.deadline.0,
        reserved_at_ms: brief.reserved_at.0,
        replayed: brief.replayed,
    }
}

/// A reservation in brief; none when its status is not known to this build.
pub fn brief_from_wire(wire: v1::Brief) -> Option<Brief> {
    Some(Brief {
        status: names::status(wire.status)?,
        deadline: LedgerTime(wire.deadline_ms),
        reserved_at: LedgerTime(wire.reserved_at_ms),
        replayed: wire.replayed,
    })
}

fn fenced_to_wire(fenced: &Fenced) -> v1::Fenced {
    let what = match fenced {
        Fenced::Never => fenced::What::Never(v1::Done {}),
        Fenced::WasRefused(refusal) => fenced::What::WasRefused(refusals::to_wire(refusal)),
        Fenced::Reservation(brief) => fenced::What::Reservation(brief_to_wire(*brief)),
    };
    v1::Fenced { what: Some(what) }
}

fn fenced_from_wire(wire: v1::Fenced) -> Option<Fenced> {
    Some(match wire.what? {
        fenced::What::Never(v1::Done {}) => Fenced::Never,
        fenced::What::WasRefused(refusal) => Fenced::WasRefused(refusals::from_wire(refusal).ok()?),
        fenced::What::Reservation(brief) => Fenced::Reservation(brief_from_wire(brief)?),
    })
}

/// *Not now*, for the wire.
pub fn not_now_to_wire(not_now: &NotNow) -> v1::NotNow {
    let code = match not_now.cause {
        Cause::NotLeader => v1::NotNowCode::NotLeader,
        Cause::SlotElsewhere => v1::NotNowCode::SlotElsewhere,
        Cause::IdTooFarAhead => v1::NotNowCode::IdTooFarAhead,
        Cause::MemoryFull => v1::NotNowCode::MemoryFull,
        Cause::Overloaded => v1::NotNowCode::Overloaded,
        Cause::ClockUnsure => v1::NotNowCode::ClockUnsure,
        Cause::ClockJumped => v1::NotNowCode::ClockJumped,
        Cause::LowSpace => v1::NotNowCode::LowSpace,
        Cause::NotServing | Cause::Unreachable => v1::NotNowCode::NotServing,
        Cause::Diverged => v1::NotNowCode::Diverged,
        Cause::RateLimited => v1::NotNowCode::RateLimited,
        Cause::SweepPending => v1::NotNowCode::SweepPending,
        Cause::NoQuorum => v1::NotNowCode::NoQuorum,
        Cause::RecordsFull => v1::NotNowCode::RecordsFull,
        Cause::Other => v1::NotNowCode::Unspecified,
    };
    v1::NotNow {
        code: code.into(),
        message: not_now.message.clone(),
        retry_ms: not_now.retry_ms,
        leader: not_now.leader.clone().unwrap_or_default(),
    }
}

/// *Not now* out of the wire.
pub fn not_now_from_wire(wire: v1::NotNow) -> NotNow {
    let cause = match wire.code() {
        v1::NotNowCode::Unspecified => Cause::Other,
        v1::NotNowCode::NotLeader => Cause::NotLeader,
        v1::NotNowCode::SlotElsewhere => Cause::SlotElsewhere,
        v1::NotNowCode::IdTooFarAhead => Cause::IdTooFarAhead,
        v1::NotNowCode::MemoryFull => Cause::MemoryFull,
        v1::NotNowCode::Overloaded => Cause::Overloaded,
        v1::NotNowCode::ClockUnsure => Cause::ClockUnsure,
        v1::NotNowCode::ClockJumped => Cause::ClockJumped,
        v1::NotNowCode::LowSpace => Cause::LowSpace,
        v1::NotNowCode::NotServing => Cause::NotServing,
        v1::NotNowCode::Diverged => Cause::Diverged,
        v1::NotNowCode::RateLimited => Cause::RateLimited,
        v1::NotNowCode::SweepPending => Cause::SweepPending,
        v1::NotNowCode::NoQuorum => Cause::NoQuorum,
        v1::NotNowCode::RecordsFull => Cause::RecordsFull,
    };
    let leader = Some(wire.leader).filter(|leader| !leader.is_empty());
    NotNow { cause, message: wire.message, retry_ms: wire.retry_ms, leader }
}
