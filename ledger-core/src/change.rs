//! What happened: the changes of an entry, with balances as of the event. They are the feed and the history.
//!
//! **Owns** the closed set of changes and the record that carries those of one entry. **Must never** be needed for a decision.
//! **Read next**: [`crate::ledger`].

use smallvec::SmallVec;

use crate::ledger::Position;
use crate::outcome::{Balance, SoldOut};
use crate::types::{LedgerTime, Line, OfferKey, Policy, Reason, Reference, ReservationId, SaleId, Sku, Units};

/// The changes of one entry, as stored in history and sent in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The entry's position (place 0).
    pub position: Position,
    /// Ledger time after the entry was stamped.
    pub time: LedgerTime,
    /// Chain value before this record: xxh3-128 over the previous value and bytes.
    pub chain_before: u128,
    /// What happened, in order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which command of the batch caused it (expiries and windows caused by time carry the tick's or first command's place).
    pub place: u16,
    /// Position (index, place) of the change before it on the same product; `None` for the first.
    pub previous_on_product: Option<(u64, u16)>,
    /// Position (index, place) of the change before it on the same reservation, if it is about one.
    pub previous_on_reservation: Option<(u64, u16)>,
    /// What happened.
    pub kind: ChangeKind,
}

/// Units of one line and the offer's balance right after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineChange {
    /// Offer and units moved.
    pub line: Line,
    /// The offer right after.
    pub balance: Balance,
}

/// Lines of a change.
pub type LineChanges = SmallVec<[LineChange; 1]>;

/// What happened. Codec numbers are frozen; orders get the numbers from 64 on (`PurchaseAttempted`, `PaymentProcessed`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields carry the names used everywhere")]
pub enum ChangeKind {
    ProductCreated {
        sku: Sku,
        policy: Policy,
    },
    OfferPut {
        offer: OfferKey,
        policy: Policy,
        version: u64,
    },
    OfferOpened {
        offer: OfferKey,
    },
    OfferClosed {
        offer: OfferKey,
    },
    /// The sale's window began (or it was created open without one).
    SaleStarted {
        offer: OfferKey,
        balance: Balance,
    },
    /// The sale's window ended, or it was ended by hand; `moved_back` units went to the plain offer.
    SaleEnded {
        offer: OfferKey,
        balance: Balance,
        moved_back: u64,
    },
    UnitsReceived {
        offer: OfferKey,
        units: Units,
        reference: Reference,
        balance: Balance,
    },
    UnitsAdjusted {
        offer: OfferKey,
        delta: i64,
        reason: Reason,
        reference: Reference,
        balance: Balance,
    },
    UnitsAllotted {
        sku: Sku,
        from: Option<SaleId>,
        to: Option<SaleId>,
        units: Units,
        reference: Reference,
        from_balance: Balance,
        to_balance: Balance,
    },
    InventoryReserved {
        id: ReservationId,
        deadline: LedgerTime,
        lines: LineChanges,
    },
    ReservationExtended {
        id: ReservationId,
        deadline: LedgerTime,
    },
    /// `lines` were sold, `returned` went back to available (partial confirm).
    ReservationConfirmed {
        id: ReservationId,
        lines: LineChanges,
        given_back: LineChanges,
    },
    ReservationReleased {
        id: ReservationId,
        lines: LineChanges,
    },
    ReservationExpired {
        id: ReservationId,
        deadline: LedgerTime,
        lines: LineChanges,
    },
    UnitsReturned {
        id: ReservationId,
        reference: Reference,
        lines: LineChanges,
    },
    /// Availability fell to the policy's threshold or below.
    StockLow {
        offer: OfferKey,
        available: u64,
    },
    /// Availability reached zero: all held, or gone.
    SoldOut {
        offer: OfferKey,
        truth: SoldOut,
    },
}

/// The change kinds by number, for filters and metrics.
impl ChangeKind {
    /// The event's published name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ProductCreated { .. } => "ProductCreated",
            Self::OfferPut { .. } => "OfferPut",
            Self::OfferOpened { .. } => "OfferOpened",
            Self::OfferClosed { .. } => "OfferClosed",
            Self::SaleStarted { .. } => "SaleStarted",
            Self::SaleEnded { .. } => "SaleEnded",
            Self::UnitsReceived { .. } => "UnitsReceived",
            Self::UnitsAdjusted { .. } => "UnitsAdjusted",
            Self::UnitsAllotted { .. } => "UnitsAllotted",
            Self::InventoryReserved { .. } => "InventoryReserved",
            Self::ReservationExtended { .. } => "ReservationExtended",
            Self::ReservationConfirmed { .. } => "ReservationConfirmed",
            Self::ReservationReleased { .. } => "ReservationReleased",
            Self::ReservationExpired { .. } => "ReservationExpired",
            Self::UnitsReturned { .. } => "UnitsReturned",
            Self::StockLow { .. } => "StockLow",
            Self::SoldOut { .. } => "SoldOut",
        }
    }
}
