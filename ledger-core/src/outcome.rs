//! What the ledger answers: one outcome type for every verb.
//!
//! **Owns** the closed set of answers and the precedence of refusals. **Must never** say *no* for what may have happened:
//! *unknown* is not here since the core always knows; the SDK adds it. **Read next**: [`crate::change`].

use crate::order::{Claimed, Money, OrderBrief, Phase};
use crate::types::{LedgerTime, OfferKey};

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is so; what is true now.
    Ok(Settled),
    /// No, and why; nothing changed.
    Refused(Refusal),
    /// Nothing happened; try again, when.
    NotNow(NotNow),
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Live: its units are held until the deadline.
    Held,
    /// Sold (whole or in part; the rest went back).
    Confirmed,
    /// Given back by the caller.
    Released,
    /// Its deadline passed.
    Expired,
}

/// A reservation's current state in brief, as every verb on it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief {
    /// Where it stands at this position's ledger time (a due hold is `Expired`, swept or not).
    pub status: Status,
    /// The hold's deadline; of an ended one, the deadline it had.
    pub deadline: LedgerTime,
    /// When it was taken, in ledger time.
    pub reserved_at: LedgerTime,
    /// Whether this answer repeats an earlier verdict without a second effect.
    pub replayed: bool,
}

/// What became of a fenced id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced {
    /// It never executed, and now never will.
    Never,
    /// It was refused, for this reason, and never will execute.
    WasRefused(Refusal),
    /// It executed; this is where it stands. A live hold is left alone.
    Reservation(Brief),
}

/// Units of one offer as of an event or a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Free to be reserved.
    pub available: u64,
    /// In live holds.
    pub held: u64,
    /// Sold and not returned.
    pub sold: u64,
}

/// What was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Time passed (tick), or a shard setting was taken.
    Done,
    /// Reserve, extend, confirm, release.
    Reservation(Brief),
    /// Fence.
    Fenced(Fenced),
    /// Return: how many units came back through this reference.
    Returned {
        /// Units brought back.
        units: u64,
        /// Whether this repeats an earlier verdict.
        replayed: bool,
    },
    /// Create product, put offer, open, close, end sale.
    Offer {
        /// The offer's version after it (for `expected_version`).
        version: u64,
        /// Whether nothing had to change.
        replayed: bool,
    },
    /// Receive, adjust, allot: the offer (for allot the receiving one) after it.
    Stocked {
        /// Units now.
        balance: Balance,
        /// The offer's version after it.
        version: u64,
        /// Whether this repeats an earlier verdict.
        replayed: bool,
    },
    /// Place, heartbeat, report, fact, by hand.
    Order(OrderBrief),
    /// Claim: none, one or more; fewer than asked when there are no more, or when their content is large.
    Claimed(Vec<Claimed>),
}

/// What *sold out* means just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoldOut {
    /// Some units are available, fewer than asked for.
    Open {
        /// How many.
        available: u64,
    },
    /// All are held; the first hold ends then at the latest.
    FirstBackAt(LedgerTime),
    /// Gone for good: nothing available, nothing held.
    Gone,
}

/// Why not. Ordered by precedence: the first that applies is the one that is told. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The lines' products hash to different slots.
    #[error("the lines span slots; put the products into one slot with a {{tag}} in their SKUs")]
    LinesSpanSlots,
    /// The lines do not live in the id's slot.
    #[error("the id routes to slot {id_slot}, its lines live in slot {lines_slot}; mint the id for its product")]
    IdWrongSlot {
        /// The id's slot.
        id_slot: u16,
        /// The lines' slot.
        lines_slot: u16,
    },
    /// The same offer's lines sum above the bound of a quantity.
    #[error("the lines of {offer:?} sum to more than a reservation may take")]
    QuantityTooLarge {
        /// Which offer.
        offer: OfferKey,
    },
    /// The id was used for other content.
    #[error("the id is taken by a reservation with other content; mint a new id")]
    IdTaken,
    /// The id is at or below what its slot has forgotten.
    #[error(
        "the id is older than what is remembered; it will not execute now, and what it did before is no longer known here"
    )]
    Forgotten,
    /// The id was fenced before it executed.
    #[error("the id was fenced and never executes; mint a new id")]
    Fenced,
    /// No reservation of that id is known (it never executed).
    #[error("no such reservation")]
    UnknownReservation,
    /// The product does not exist.
    #[error("unknown product {}", offer.sku)]
    UnknownProduct {
        /// The line's offer.
        offer: OfferKey,
    },
    /// The product is not in that sale.
    #[error("{} is not in sale {}", offer.sku, offer.sale.as_ref().map_or("-", |s| s.as_str()))]
    UnknownOffer {
        /// The line's offer.
        offer: OfferKey,
    },
    /// It exists with other content.
    #[error("it exists already with other content")]
    AlreadyExists,
    /// The sale was ended for good.
    #[error("the sale has been ended")]
    SaleHasEnded,
    /// The offer is closed.
    #[error("the offer is closed")]
    OfferClosed,
    /// The sale's window has not begun.
    #[error("the sale opens at {} ms ledger time", opens_at.0)]
    SaleNotOpenYet {
        /// When.
        opens_at: LedgerTime,
    },
    /// The sale's window is over.
    #[error("the sale closed at {} ms ledger time", closed_at.0)]
    SaleOver {
        /// When.
        closed_at: LedgerTime,
    },
    /// The hold asked for is longer than the policy allows.
    #[error("a hold may last {max_ms} ms at most")]
    HoldTooLong {
        /// The bound.
        max_ms: u64,
    },
    /// Fewer units than one order must take.
    #[error("an order takes {min} units at least")]
    BelowOrderMin {
        /// The bound.
        min: u32,
    },
    /// More units than one order may take.
    #[error("an order takes {max} units at most")]
    AboveOrderMax {
        /// The bound.
        max: u32,
    },
    /// A limit key would exceed its limit.
    #[error("limit reached for key {key_index}: {used} of {max} used")]
    LimitReached {
        /// Which offer's limit.
        offer: OfferKey,
        /// Place of the key in the command.
        key_index: u8,
        /// Units held and bought under the key so far.
        used: u32,
        /// The limit.
        max: u32,
    },
    /// Not enough units.
    #[error("sold out: {truth:?}")]
    SoldOut {
        /// Which offer.
        offer: OfferKey,
        /// Open, first back at, or gone.
        truth: SoldOut,
    },
    /// The reservation has ended, or its hold is due.
    #[error("the reservation is {status:?}")]
    NotHeld {
        /// Where it stands.
        status: Status,
    },
    /// Only confirmed reservations can be returned.
    #[error("the reservation is not sold but {status:?}")]
    NotSold {
        /// Where it stands.
        status: Status,
    },
    /// Extend named another deadline than the present one.
    #[error("the hold's deadline is {}, not the one named", deadline.0)]
    DeadlineMoved {
        /// The present deadline.
        deadline: LedgerTime,
    },
    /// A line that the reservation does not have.
    #[error("the reservation has no line of {offer:?}")]
    NoSuchLine {
        /// Which.
        offer: OfferKey,
    },
    /// More than the line holds (confirm) or has sold (return).
    #[error("the line of {offer:?} has {has} units")]
    MoreThanLine {
        /// Which.
        offer: OfferKey,
        /// How many it has.
        has: u32,
    },
    /// All units that the reservation has sold were returned before: nothing is left to return.
    #[error("all units of the reservation are returned already")]
    AlreadyReturned,
    /// The reference was used for other content.
    #[error("the reference is taken by other content")]
    ReferenceTaken,
    /// Compare-and-set failed.
    #[error("the version is {actual}, not the one expected")]
    VersionMismatch {
        /// The present version.
        actual: u64,
    },
    /// The available units do not suffice.
    #[error("{available} units are available, fewer than must be taken away")]
    NotEnoughAvailable {
        /// How many there are.
        available: u64,
    },
    /// The product cannot be deleted yet.
    #[error(
        "the product is in use: {units} units, {sales} sales that are not removed, {records} remembered reservations and refusals of its own offer"
    )]
    ProductInUse {
        /// Units available and held, in all of its offers: adjust them away.
        units: u64,
        /// Sales it is in: end them; an ended one goes when nothing remembered refers to it.
        sales: u64,
        /// Lines of remembered reservations, and refusals, that refer to its plain offer: they go with time.
        records: u64,
    },
    /// A bound of the ledger would be exceeded.
    #[error("that would exceed the bound of {max} {what}")]
    TooMany {
        /// Of what.
        what: Bound,
        /// The bound.
        max: u64,
    },
    /// This build does not know the behaviour version, or it would go back.
    #[error("behaviour version {version} cannot be switched to from {present}")]
    BehaviourUnknown {
        /// Asked for.
        version: u16,
        /// Now.
        present: u16,
    },
    /// The entry that carried the call could not be decoded, and was refused as a whole.
    #[error("the log entry of this call could not be decoded and was refused as a whole; nothing happened")]
    EntryUndecodable,
    /// Slot ownership of an older generation.
    #[error("slot ownership is at generation {present} already")]
    StaleGeneration {
        /// Now.
        present: u64,
    },
    /// A reservation's verb on one that is an order.
    #[error("the reservation belongs to an order; workers confirm it, and its deadline is the payment deadline")]
    Ordered,
    /// No order of that id.
    #[error("no such order; place it first")]
    NoSuchOrder,
    /// The order was claimed again since.
    #[error("the order is at epoch {present}: it was claimed again, so drop it and claim anew")]
    StaleEpoch {
        /// The order's epoch.
        present: u32,
    },
    /// The worker's lease has ended, by time or because the order went on without it.
    #[error("the lease has ended and the order is {phase:?}; drop it and claim anew")]
    LeaseEnded {
        /// Where the order stands.
        phase: Phase,
    },
    /// That cannot be done where the order stands.
    #[error("the order is {phase:?}, where this cannot be done; look at the order")]
    WrongPhase {
        /// Where it stands.
        phase: Phase,
    },
    /// An intent of another generation than the present or the next, or another intent of the present one.
    #[error(
        "the order's intent is of generation {present}; look it up, and make the next one only when it is certain to have failed"
    )]
    WrongGeneration {
        /// The order's generation.
        present: u32,
    },
    /// The payment is known with another amount, or the refund with another id.
    #[error("the payment is known with other content; look it up at the provider")]
    PaymentDiffers {
        /// What is known of its amount.
        amount: Option<Money>,
    },
}

impl Refusal {
    /// Its name, as records, metrics and dashboards have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LinesSpanSlots => "LinesSpanSlots",
            Self::IdWrongSlot { .. } => "IdWrongSlot",
            Self::QuantityTooLarge { .. } => "QuantityTooLarge",
            Self::IdTaken => "IdTaken",
            Self::Forgotten => "Forgotten",
            Self::Fenced => "Fenced",
            Self::UnknownReservation => "UnknownReservation",
            Self::UnknownProduct { .. } => "UnknownProduct",
            Self::UnknownOffer { .. } => "UnknownOffer",
            Self::AlreadyExists => "AlreadyExists",
            Self::SaleHasEnded => "SaleHasEnded",
            Self::OfferClosed => "OfferClosed",
            Self::SaleNotOpenYet { .. } => "SaleNotOpenYet",
            Self::SaleOver { .. } => "SaleOver",
            Self::HoldTooLong { .. } => "HoldTooLong",
            Self::BelowOrderMin { .. } => "BelowOrderMin",
            Self::AboveOrderMax { .. } => "AboveOrderMax",
            Self::LimitReached { .. } => "LimitReached",
            Self::SoldOut { .. } => "SoldOut",
            Self::NotHeld { .. } => "NotHeld",
            Self::NotSold { .. } => "NotSold",
            Self::DeadlineMoved { .. } => "DeadlineMoved",
            Self::NoSuchLine { .. } => "NoSuchLine",
            Self::MoreThanLine { .. } => "MoreThanLine",
            Self::AlreadyReturned => "AlreadyReturned",
            Self::ReferenceTaken => "ReferenceTaken",
            Self::VersionMismatch { .. } => "VersionMismatch",
            Self::NotEnoughAvailable { .. } => "NotEnoughAvailable",
            Self::ProductInUse { .. } => "ProductInUse",
            Self::TooMany { .. } => "TooMany",
            Self::BehaviourUnknown { .. } => "BehaviourUnknown",
            Self::EntryUndecodable => "EntryUndecodable",
            Self::StaleGeneration { .. } => "StaleGeneration",
            Self::Ordered => "Ordered",
            Self::NoSuchOrder => "NoSuchOrder",
            Self::StaleEpoch { .. } => "StaleEpoch",
            Self::LeaseEnded { .. } => "LeaseEnded",
            Self::WrongPhase { .. } => "WrongPhase",
            Self::WrongGeneration { .. } => "WrongGeneration",
            Self::PaymentDiffers { .. } => "PaymentDiffers",
        }
    }
}

/// Bounds that a command may run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the constants in limits")]
pub enum Bound {
    UnitsPerProduct,
    OffersPerProduct,
    Offers,
    ReturnsPerReservation,
    PaymentsPerOrder,
    Products,
    References,
    UnknownPayments,
    OpenOrders,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnitsPerProduct => "units per product",
            Self::OffersPerProduct => "offers per product",
            Self::Offers => "offers per shard",
            Self::ReturnsPerReservation => "returns per reservation",
            Self::PaymentsPerOrder => "payments per order",
            Self::Products => "products per shard",
            Self::References => "references per shard",
            Self::UnknownPayments => "payments without an order per shard",
            Self::OpenOrders => "open orders per shard",
        })
    }
}

/// Nothing happened; when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// The slot does not belong to this shard: refresh the routing and ask its owner.
    SlotElsewhere,
    /// The id's time lies too far ahead of ledger time: retry after this many milliseconds, or mint from ledger time.
    IdTooFarAhead {
        /// Milliseconds to wait.
        retry_ms: u64,
    },
    /// Too many young ids are remembered; the cap may not rise above ledger time − 10 s.
    MemoryFull {
        /// Milliseconds to wait.
        retry_ms: u64,
    },
    /// The order's hold is due, and the sweep of the next entries decides first what becomes of it;
    /// or so many holds are due that none is added before some are swept. Retry after this many
    /// milliseconds.
    SweepPending {
        /// Milliseconds to wait.
        retry_ms: u64,
    },
    /// The shard has as many records of a kind as it may have, and none of them may be forgotten.
    RecordsFull {
        /// Of what.
        what: Bound,
        /// Milliseconds to wait.
        retry_ms: u64,
    },
}
