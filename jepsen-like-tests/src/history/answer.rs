//! What came back, as the journal writes it.
//!
//! **Owns** [`Answer`], [`Told`] and [`No`], and how they come out of the client's outcomes. **Must never** turn *unknown* into anything else.
//! **Read next**: [`super::observations`].

use client_sdk::{
    Balance, IdView, OfferSettled, OfferView, Outcome, Refusal, Reservation, Resolved, Returned, SoldOut, Status,
    Stocked, Why,
};
use serde::{Deserialize, Serialize};

use super::op::Offer;

/// A position in the log, as answers carry it. Ordered as the log of a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct At {
    /// Shard.
    pub shard: u32,
    /// Log index.
    pub index: u64,
    /// Place in the entry; of a read: behind all of them.
    pub place: u32,
    /// Term of the entry.
    pub term: u64,
}

/// Behind every command of an entry: where reads are.
pub const BEHIND: u32 = u32::MAX;

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum State {
    Held,
    Confirmed,
    Released,
    Expired,
}

impl From<Status> for State {
    fn from(status: Status) -> Self {
        match status {
            Status::Held => Self::Held,
            Status::Confirmed => Self::Confirmed,
            Status::Released => Self::Released,
            Status::Expired => Self::Expired,
        }
    }
}

/// Units of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the contract names them")]
pub struct Units {
    pub available: u64,
    pub held: u64,
    pub sold: u64,
}

impl From<Balance> for Units {
    fn from(b: Balance) -> Self {
        Self { available: b.available, held: b.held, sold: b.sold }
    }
}

/// What *sold out* meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "truth", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum Out {
    Open { available: u64 },
    FirstBack { at_ms: u64 },
    Gone,
}

impl From<SoldOut> for Out {
    fn from(truth: SoldOut) -> Self {
        match truth {
            SoldOut::Open { available } => Self::Open { available },
            SoldOut::FirstBackAt(at) => Self::FirstBack { at_ms: at.0 },
            SoldOut::Gone => Self::Gone,
        }
    }
}

/// What an *ok* told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum Told {
    /// Reserve, extend, confirm, release.
    Reservation { state: State, deadline_ms: u64, reserved_at_ms: u64 },
    /// A fence found nothing, and nothing will come.
    Never,
    /// A fence found a refusal.
    WasRefused { no: No },
    /// A return.
    Returned { units: u64 },
    /// Create, put, open, close, end.
    Offer { version: u64 },
    /// Receive, adjust, allot.
    Stocked { units: Units, version: u64 },
    /// A read of an offer that exists.
    Seen { units: Units, version: u64, out: Option<Out>, ended: bool },
    /// A read of what is known of an id: held, confirmed, released, expired, refused, fenced, unknown, forgotten; units sold under it.
    Id { state: String, sold: u64 },
    /// A read of an offer that does not exist.
    Nothing,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum No {
    LinesSpanSlots,
    IdWrongSlot,
    QuantityTooLarge,
    IdTaken,
    Forgotten,
    Fenced,
    UnknownReservation,
    UnknownProduct {
        offer: Offer,
    },
    UnknownOffer {
        offer: Offer,
    },
    AlreadyExists,
    SaleHasEnded,
    OfferClosed,
    SaleNotOpenYet {
        opens_at_ms: u64,
    },
    SaleOver {
        closed_at_ms: u64,
    },
    HoldTooLong {
        max_ms: u64,
    },
    BelowOrderMin {
        min: u32,
    },
    AboveOrderMax {
        max: u32,
    },
    LimitReached {
        offer: Offer,
        key_index: u8,
        used: u32,
        max: u32,
    },
    SoldOut {
        offer: Offer,
        out: Out,
    },
    NotHeld {
        state: State,
    },
    NotSold {
        state: State,
    },
    DeadlineMoved {
        deadline_ms: u64,
    },
    NoSuchLine {
        offer: Offer,
    },
    MoreThanLine {
        offer: Offer,
        has: u32,
    },
    AlreadyReturned,
    ReferenceTaken,
    VersionMismatch {
        actual: u64,
    },
    NotEnoughAvailable {
        available: u64,
    },
    TooMany {
        what: String,
    },
    /// The input itself is not valid; it never reached the ledger.
    Invalid,
    /// None of the ledger's.
    Other {
        what: String,
    },
}

impl From<&Refusal> for No {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::LinesSpanSlots => Self::LinesSpanSlots,
            Refusal::IdWrongSlot { .. } => Self::IdWrongSlot,
            Refusal::QuantityTooLarge { .. } => Self::QuantityTooLarge,
            Refusal::IdTaken => Self::IdTaken,
            Refusal::Forgotten => Self::Forgotten,
            Refusal::Fenced => Self::Fenced,
            Refusal::UnknownReservation => Self::UnknownReservation,
            Refusal::UnknownProduct { offer } => Self::UnknownProduct { offer: offer.into() },
            Refusal::UnknownOffer { offer } => Self::UnknownOffer { offer: offer.into() },
            Refusal::AlreadyExists => Self::AlreadyExists,
            Refusal::SaleHasEnded => Self::SaleHasEnded,
            Refusal::OfferClosed => Self::OfferClosed,
            Refusal::SaleNotOpenYet { opens_at } => Self::SaleNotOpenYet { opens_at_ms: opens_at.0 },
            Refusal::SaleOver { closed_at } => Self::SaleOver { closed_at_ms: closed_at.0 },
            Refusal::HoldTooLong { max_ms } => Self::HoldTooLong { max_ms: *max_ms },
            Refusal::BelowOrderMin { min } => Self::BelowOrderMin { min: *min },
            Refusal::AboveOrderMax { max } => Self::AboveOrderMax { max: *max },
            Refusal::LimitReached { offer, key_index, used, max } => {
                Self::LimitReached { offer: offer.into(), key_index: *key_index, used: *used, max: *max }
            }
            Refusal::SoldOut { offer, truth } => Self::SoldOut { offer: offer.into(), out: (*truth).into() },
            Refusal::NotHeld { status } => Self::NotHeld { state: (*status).into() },
            Refusal::NotSold { status } => Self::NotSold { state: (*status).into() },
            Refusal::DeadlineMoved { deadline } => Self::DeadlineMoved { deadline_ms: deadline.0 },
            Refusal::NoSuchLine { offer } => Self::NoSuchLine { offer: offer.into() },
            Refusal::MoreThanLine { offer, has } => Self::MoreThanLine { offer: offer.into(), has: *has },
            Refusal::AlreadyReturned => Self::AlreadyReturned,
            Refusal::ReferenceTaken => Self::ReferenceTaken,
            Refusal::VersionMismatch { actual } => Self::VersionMismatch { actual: *actual },
            Refusal::NotEnoughAvailable { available } => Self::NotEnoughAvailable { available: *available },
            Refusal::TooMany { what, .. } => Self::TooMany { what: what.to_string() },
            Refusal::BehaviourUnknown { .. }
            | Refusal::StaleGeneration { .. }
            | Refusal::EntryUndecodable
            | Refusal::ProductInUse { .. } => Self::Other { what: refusal.to_string() },
            Refusal::Ordered
            | Refusal::NoSuchOrder
            | Refusal::StaleEpoch { .. }
            | Refusal::LeaseEnded { .. }
            | Refusal::WrongPhase { .. }
            | Refusal::WrongGeneration { .. }
            | Refusal::PaymentDiffers { .. } => Self::Other { what: refusal.to_string() },
        }
    }
}

impl From<&Why> for No {
    fn from(why: &Why) -> Self {
        match why {
            Why::Ledger(refusal) => refusal.into(),
            Why::Invalid(_) => Self::Invalid,
            Why::PermissionDenied(_) | Why::Other { .. } => Self::Other { what: why.to_string() },
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum Answer {
    /// It is so, as of a position and its ledger time. `age_ms`: of stale reads only, when the node knew it.
    Ok {
        at: Option<At>,
        time_ms: u64,
        replayed: bool,
        told: Told,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_ms: Option<u64>,
    },
    /// Nothing changed; decided at a position, unless it never got there.
    Refused { at: Option<At>, time_ms: u64, no: No },
    /// Nothing happened.
    NotNow { cause: String, why: String },
    /// It may or may not have happened.
    Unknown { why: String },
}

impl Answer {
    /// Where it was decided.
    pub fn at(&self) -> Option<At> {
        match self {
            Self::Ok { at, .. } | Self::Refused { at, .. } => *at,
            Self::NotNow { .. } | Self::Unknown { .. } => None,
        }
    }
    /// Ledger time where it was decided.
    pub fn time_ms(&self) -> Option<u64> {
        match self {
            Self::Ok { at: Some(_), time_ms, .. } | Self::Refused { at: Some(_), time_ms, .. } => Some(*time_ms),
            _ => None,
        }
    }
    /// Whether it is an *ok*.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }
    /// Whether it is an *ok* with an effect of its own.
    pub fn is_first_ok(&self) -> bool {
        matches!(self, Self::Ok { replayed: false, .. })
    }
    /// Whether it is an *ok* that repeats an earlier one.
    pub fn is_replay(&self) -> bool {
        matches!(self, Self::Ok { replayed: true, .. })
    }
    /// Whether an effect may have come of it, or of an attempt before it: unknown, or a replay of what nobody was told.
    pub fn may_hide_an_effect(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Ok { replayed: true, .. })
    }
}

/// What an *ok* of a verb or a read tells, and whether it repeats an earlier verdict.
pub trait Telling {
    /// What it tells.
    fn told(&self) -> Told;
    /// Whether it repeats an earlier verdict.
    fn replayed(&self) -> bool {
        false
    }
}

impl Telling for Reservation {
    fn told(&self) -> Told {
        Told::Reservation {
            state: self.status.into(),
            deadline_ms: self.deadline.0,
            reserved_at_ms: self.reserved_at.0,
        }
    }
    fn replayed(&self) -> bool {
        self.replayed
    }
}
impl Telling for Resolved {
    fn told(&self) -> Told {
        match self {
            Self::Never => Told::Never,
            Self::WasRefused(why) => Told::WasRefused { no: why.into() },
            Self::Reservation(r) => r.told(),
        }
    }
}
impl Telling for Returned {
    fn told(&self) -> Told {
        Told::Returned { units: self.units }
    }
    fn replayed(&self) -> bool {
        self.replayed
    }
}
impl Telling for OfferSettled {
    fn told(&self) -> Told {
        Told::Offer { version: self.version }
    }
    fn replayed(&self) -> bool {
        self.replayed
    }
}
impl Telling for Stocked {
    fn told(&self) -> Told {
        Told::Stocked { units: self.balance.into(), version: self.version }
    }
    fn replayed(&self) -> bool {
        self.replayed
    }
}
impl Telling for Option<OfferView> {
    fn told(&self) -> Told {
        match self {
            None => Told::Nothing,
            Some(view) => Told::Seen {
                units: view.balance.into(),
                version: view.version,
                out: view.sold_out.map(Out::from),
                ended: view.ended,
            },
        }
    }
}
impl Telling for IdView {
    fn told(&self) -> Told {
        let (state, sold) = match self {
            Self::Reservation(r) => {
                let state = match r.status {
                    Status::Held => "held",
                    Status::Confirmed => "confirmed",
                    Status::Released => "released",
                    Status::Expired => "expired",
                };
                (state, r.lines.iter().map(|l| u64::from(l.sold)).sum())
            }
            Self::Refused(_) => ("refused", 0),
            Self::Fenced => ("fenced", 0),
            Self::Unknown => ("unknown", 0),
            Self::Forgotten => ("forgotten", 0),
            Self::SlotElsewhere => ("slot elsewhere", 0),
        };
        Told::Id { state: state.to_owned(), sold }
    }
}

/// The journal's answer of an outcome; `read`: whether it was a read, which lies behind its whole entry.
pub fn of_outcome<T: Telling>(outcome: &Outcome<T>, read: bool) -> Answer {
    let at = outcome.at().map(|at| At {
        shard: at.position.shard,
        index: at.position.index,
        place: if read { BEHIND } else { u32::from(at.position.place) },
        term: at.position.term,
    });
    let time_ms = outcome.at().map_or(0, |at| at.time.0);
    let age_ms = outcome.at().and_then(|at| at.age).map(|age| age.as_millis() as u64);
    match outcome {
        Outcome::Ok(ok) => Answer::Ok { at, time_ms, replayed: ok.value.replayed(), told: ok.value.told(), age_ms },
        Outcome::Refused(refused) => Answer::Refused { at, time_ms, no: (&refused.why).into() },
        Outcome::NotNow(no) => Answer::NotNow { cause: format!("{:?}", no.cause), why: no.message.clone() },
        Outcome::Unknown(unknown) => Answer::Unknown { why: unknown.message.clone() },
    }
}
