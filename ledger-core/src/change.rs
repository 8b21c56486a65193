//! What happened: the changes of an entry, with balances as of the event. They are the feed and the history.
//!
//! **Owns** the closed set of changes and the record that carries those of one entry. **Must never** be needed for a decision.
//! **Read next**: [`crate::ledger`].

use smallvec::SmallVec;

use crate::ledger::Position;
use crate::order::{ByHand, Money, ParkReason, ProviderId, RefundWhy, SettlingWhy, Step, WorkerId};
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

/// Position (index, place) of an earlier change; `None` when there is none.
pub type Link = Option<(u64, u16)>;
/// One link for each product; nearly every change is about one.
pub type ProductLinks = SmallVec<[Link; 1]>;
/// The products of a change.
pub type Products<'a> = SmallVec<[&'a Sku; 1]>;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which command of the batch caused it (expiries and windows caused by time carry the tick's or first command's place).
    pub place: u16,
    /// The change before it on each product that it is about, in the order of [`ChangeKind::products`].
    pub previous_on_products: ProductLinks,
    /// The change before it on the same reservation, if it is about one.
    pub previous_on_reservation: Link,
    /// What happened.
    pub kind: ChangeKind,
}

impl Change {
    /// The change before it on one of its products: `None` when it is not about that product, `Some(None)` when it is the first one there.
    pub fn previous_on(&self, sku: &Sku) -> Option<Link> {
        let products = self.kind.products();
        products.iter().zip(&self.previous_on_products).find(|(product, _)| **product == sku).map(|(_, link)| *link)
    }
}

/// Units of one line and the offer's balance right after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineChange {
    /// Offer and units moved.
    pub line: Line,
    /// The offer right after.
    pub balance: Balance,
}

/// Why an entry of a known format could not be decoded. A closed list: every replica records the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryFault {
    /// A value breaks a rule of the format, or the bytes end early or late.
    Malformed = 1,
    /// It, or a part of it, is larger than the format allows.
    TooLarge = 2,
}

impl EntryFault {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Malformed, Self::TooLarge];

    /// Its name on the wire and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// Lines of a change.
pub type LineChanges = SmallVec<[LineChange; 1]>;

/// What happened. Codec numbers are frozen; those of orders begin at 64.
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
    /// The sale's window ended and its units stay; or it was ended by hand for good: `moved_back`
    /// units went to the plain offer, as will all that comes back later.
    SaleEnded {
        offer: OfferKey,
        balance: Balance,
        moved_back: u64,
        by_hand: bool,
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
    /// The offer of an ended sale is gone: nothing that is remembered refers to it any more. The `sold` units that it sold
    /// count as the plain offer's from now on, whose balance this is.
    OfferRemoved {
        offer: OfferKey,
        sold: u64,
        balance: Balance,
    },
    /// The product had no units, and nothing that is remembered referred to it. Created again it begins anew.
    ProductDeleted {
        sku: Sku,
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
    /// A committed entry that could not be decoded was refused as a whole, on every replica. Its position is the record's.
    EntryRefused {
        /// [`crate::codec::entry_hash`] of its stamp and bytes.
        hash: u128,
        /// How many bytes it has.
        bytes: u64,
        error: EntryFault,
    },
    /// Placing an order was refused with its units; `reason` is the refusal's name.
    PurchaseAttempted {
        id: ReservationId,
        reason: Reason,
    },
    /// `deadline` is the payment deadline.
    OrderPlaced {
        id: ReservationId,
        deadline: LedgerTime,
        amount: Money,
        suspect: bool,
    },
    OrderClaimed {
        id: ReservationId,
        worker: WorkerId,
        epoch: u32,
        step: Step,
        until: LedgerTime,
    },
    /// A lease ended without a report.
    LeaseLost {
        id: ReservationId,
        worker: WorkerId,
        epoch: u32,
    },
    IntentCreated {
        id: ReservationId,
        intent: ProviderId,
        generation: u32,
    },
    BuyerAwaited {
        id: ReservationId,
    },
    OrderRetried {
        id: ReservationId,
        reason: Reason,
        until: LedgerTime,
        attempts: u32,
    },
    OrderGivenBack {
        id: ReservationId,
        until: LedgerTime,
    },
    /// A payment was taken; not `kept` means that it must go back, or that its id has no order yet. One that came before its order is told again
    /// when the order keeps it.
    PaymentProcessed {
        id: ReservationId,
        payment: ProviderId,
        amount: Money,
        kept: bool,
    },
    /// Nothing was paid, for certain.
    PaymentFailed {
        id: ReservationId,
        reason: Reason,
    },
    /// The units are free again while it is not known whether anything was paid.
    OrderSettling {
        id: ReservationId,
        why: SettlingWhy,
    },
    /// Paid and sold; `linked` is the reservation that a late payment was given instead.
    OrderConfirmed {
        id: ReservationId,
        linked: Option<ReservationId>,
    },
    RefundRequested {
        id: ReservationId,
        payment: ProviderId,
        reason: RefundWhy,
    },
    OrderRefunded {
        id: ReservationId,
        payment: ProviderId,
        refund: ProviderId,
    },
    OrderNotified {
        id: ReservationId,
    },
    OrderParked {
        id: ReservationId,
        reason: ParkReason,
    },
    OrderByHandDone {
        id: ReservationId,
        what: ByHand,
        reason: Reason,
    },
}

/// The change kinds by number, for filters and metrics.
impl ChangeKind {
    /// The order it is about; none for the changes of stock and reservations.
    pub fn order(&self) -> Option<ReservationId> {
        match self {
            Self::PurchaseAttempted { id, .. }
            | Self::OrderPlaced { id, .. }
            | Self::OrderClaimed { id, .. }
            | Self::LeaseLost { id, .. }
            | Self::IntentCreated { id, .. }
            | Self::BuyerAwaited { id }
            | Self::OrderRetried { id, .. }
            | Self::OrderGivenBack { id, .. }
            | Self::PaymentProcessed { id, .. }
            | Self::PaymentFailed { id, .. }
            | Self::OrderSettling { id, .. }
            | Self::OrderConfirmed { id, .. }
            | Self::RefundRequested { id, .. }
            | Self::OrderRefunded { id, .. }
            | Self::OrderNotified { id }
            | Self::OrderParked { id, .. }
            | Self::OrderByHandDone { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The reservation it is about, or the order under the same id.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::InventoryReserved { id, .. }
            | Self::ReservationExtended { id, .. }
            | Self::ReservationConfirmed { id, .. }
            | Self::ReservationReleased { id, .. }
            | Self::ReservationExpired { id, .. }
            | Self::UnitsReturned { id, .. } => Some(*id),
            order => order.order(),
        }
    }

    /// The products it is about, each once, as its lines name them first: the sold ones, then those given back. None for an extension and for
    /// what happens to an order beside its stock.
    pub fn products(&self) -> Products<'_> {
        let mut products = Products::new();
        match self {
            Self::ProductCreated { sku, .. } | Self::ProductDeleted { sku } | Self::UnitsAllotted { sku, .. } => {
                products.push(sku);
            }
            Self::OfferPut { offer, .. }
            | Self::OfferOpened { offer }
            | Self::OfferClosed { offer }
            | Self::SaleStarted { offer, .. }
            | Self::SaleEnded { offer, .. }
            | Self::OfferRemoved { offer, .. }
            | Self::UnitsReceived { offer, .. }
            | Self::UnitsAdjusted { offer, .. }
            | Self::StockLow { offer, .. }
            | Self::SoldOut { offer, .. } => products.push(&offer.sku),
            Self::InventoryReserved { lines, .. }
            | Self::ReservationReleased { lines, .. }
            | Self::ReservationExpired { lines, .. }
            | Self::UnitsReturned { lines, .. } => add_products(&mut products, lines),
            Self::ReservationConfirmed { lines, given_back, .. } => {
                add_products(&mut products, lines);
                add_products(&mut products, given_back);
            }
            _ => {}
        }
        products
    }

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
            Self::OfferRemoved { .. } => "OfferRemoved",
            Self::ProductDeleted { .. } => "ProductDeleted",
            Self::InventoryReserved { .. } => "InventoryReserved",
            Self::ReservationExtended { .. } => "ReservationExtended",
            Self::ReservationConfirmed { .. } => "ReservationConfirmed",
            Self::ReservationReleased { .. } => "ReservationReleased",
            Self::ReservationExpired { .. } => "ReservationExpired",
            Self::UnitsReturned { .. } => "UnitsReturned",
            Self::StockLow { .. } => "StockLow",
            Self::SoldOut { .. } => "SoldOut",
            Self::EntryRefused { .. } => "EntryRefused",
            Self::PurchaseAttempted { .. } => "PurchaseAttempted",
            Self::OrderPlaced { .. } => "OrderPlaced",
            Self::OrderClaimed { .. } => "OrderClaimed",
            Self::LeaseLost { .. } => "LeaseLost",
            Self::IntentCreated { .. } => "IntentCreated",
            Self::BuyerAwaited { .. } => "BuyerAwaited",
            Self::OrderRetried { .. } => "OrderRetried",
            Self::OrderGivenBack { .. } => "OrderGivenBack",
            Self::PaymentProcessed { .. } => "PaymentProcessed",
            Self::PaymentFailed { .. } => "PaymentFailed",
            Self::OrderSettling { .. } => "OrderSettling",
            Self::OrderConfirmed { .. } => "OrderConfirmed",
            Self::RefundRequested { .. } => "RefundRequested",
            Self::OrderRefunded { .. } => "OrderRefunded",
            Self::OrderNotified { .. } => "OrderNotified",
            Self::OrderParked { .. } => "OrderParked",
            Self::OrderByHandDone { .. } => "OrderByHandDone",
        }
    }
}

fn add_products<'a>(products: &mut Products<'a>, lines: &'a [LineChange]) {
    for line in lines {
        let sku = &line.line.offer.sku;
        if !products.contains(&sku) {
            products.push(sku);
        }
    }
}
