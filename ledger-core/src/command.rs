//! What may be asked of the ledger, and the entry that carries a batch of it through the log.
//!
//! **Owns** the closed set of commands. **Must never** carry anything unchecked: every field is a newtype
//! or was validated at the wire. **Read next**: [`crate::outcome`].

use smallvec::SmallVec;

use crate::order::{ByHand, Fact, OrderDetails, Report, WorkClass, WorkerId};
use crate::types::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reason, Reference, ReservationId, SaleId, ShardSettings,
    Sku, Slot, Units,
};

/// One raft entry of a shard: a batch of commands under one stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The leader's stamp; `apply` uses max(previous, stamp).
    pub stamp: LedgerTime,
    /// Decided in this order; a command's place in here is part of its position.
    pub commands: Vec<Command>,
}

/// Lines as given by the caller; `apply` sums and sorts them.
pub type Lines = SmallVec<[Line; 1]>;
/// Limit keys as given by the caller.
pub type LimitKeys = SmallVec<[LimitKey; 1]>;

/// One thing asked of the ledger.
///
/// The discriminants of the codec are frozen (`codec`); orders (place, claim, report, …) have the numbers from 64 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing but the passing of time: expires what is due, opens and closes windows.
    Tick,
    /// Claim units for a buyer. Idempotent by id.
    Reserve {
        /// Made and stored by the caller.
        id: ReservationId,
        /// What the limits count by; up to four.
        keys: LimitKeys,
        /// All or nothing; all in the id's slot.
        lines: Lines,
        /// Hold time in milliseconds from ledger time; none takes the policy's default (the shortest over the lines).
        hold_ms: Option<u64>,
    },
    /// Move a live hold's deadline to now + `hold_ms`. Idempotent: names the deadline it replaces.
    Extend {
        /// Which reservation.
        id: ReservationId,
        /// The deadline the caller saw.
        replaces: LedgerTime,
        /// From ledger time, milliseconds.
        hold_ms: u64,
    },
    /// Sell a live hold; with `lines` only those quantities, and the rest becomes available.
    Confirm {
        /// Which reservation.
        id: ReservationId,
        /// None: all. Some: at least one line, none above what is held.
        lines: Option<Lines>,
    },
    /// Give a live hold back.
    Release {
        /// Which reservation.
        id: ReservationId,
    },
    /// Tell what became of an id, or make sure that it never executes. A live hold is left alone.
    Fence {
        /// Which id.
        id: ReservationId,
    },
    /// Bring sold units back. Idempotent by reference.
    Return {
        /// The confirmed reservation.
        id: ReservationId,
        /// How many of what; none returns all that is still sold.
        lines: Option<Lines>,
        /// Unique per product.
        reference: Reference,
    },
    /// Create a product with its plain offer. The same content again is answered as before.
    CreateProduct {
        /// The new product.
        sku: Sku,
        /// Policy of its plain offer.
        policy: Policy,
    },
    /// Delete a product. It must have no units and no sale, and nothing that is remembered may refer to it. References used for it stay
    /// remembered. Created again it begins anew.
    DeleteProduct {
        /// Which.
        sku: Sku,
    },
    /// Create an offer of a product in a sale, or change an offer's policy (compare-and-set on its version).
    PutOffer {
        /// Which offer; its product must exist.
        offer: OfferKey,
        /// The whole new policy.
        policy: Policy,
        /// None creates (and is refused when it exists with another policy); some replaces exactly that version.
        expected_version: Option<u64>,
    },
    /// Open or close an offer; safe to repeat.
    SetOpen {
        /// Which offer.
        offer: OfferKey,
        /// Whether it takes reservations.
        open: bool,
    },
    /// End a sale's offer for good: no new reservations, available units go back to the plain offer, as do units released
    /// later. Live holds may still be confirmed. Limit counts end with it. Safe to repeat.
    EndSale {
        /// The product.
        sku: Sku,
        /// The sale.
        sale: SaleId,
    },
    /// Add units to an offer. Idempotent by reference.
    Receive {
        /// Where to.
        offer: OfferKey,
        /// How many.
        units: Units,
        /// Unique per product.
        reference: Reference,
    },
    /// Correct an offer's available units, up or down. Idempotent by reference.
    Adjust {
        /// Where.
        offer: OfferKey,
        /// Signed difference, never zero; may not take available below zero.
        delta: i64,
        /// Why.
        reason: Reason,
        /// Unique per product.
        reference: Reference,
        /// Compare-and-set: the offer's version that the caller saw, if it cares.
        expected_version: Option<u64>,
    },
    /// Move available units between two offers of one product. Idempotent by reference.
    Allot {
        /// The product.
        sku: Sku,
        /// From this offer.
        from: Option<SaleId>,
        /// To this offer.
        to: Option<SaleId>,
        /// How many.
        units: Units,
        /// Unique per product.
        reference: Reference,
    },
    /// The shard's settings. Proposed by the node when placement says so.
    Configure {
        /// The new settings.
        settings: ShardSettings,
    },
    /// Which slots this shard owns, as inclusive ranges; generation must rise. First entry of every shard.
    OwnSlots {
        /// Compare: must be above the present one.
        generation: u64,
        /// Sorted, disjoint, inclusive.
        ranges: Vec<(Slot, Slot)>,
    },
    /// Switch the behaviour of `apply`; proposed once every replica supports it.
    SwitchBehaviour {
        /// The new version.
        version: u16,
    },
    /// Make an order of a reservation: from now on workers drive it (docs/decisions/0007). Idempotent by id and content.
    PlaceOrder {
        /// The reservation, and the order.
        id: ReservationId,
        /// What is ordered beyond the stock.
        details: Box<OrderDetails>,
        /// Some: reserve these lines under these limit keys first, for as long as there is to pay; all or nothing. None: the id's live hold, whose
        /// deadline becomes the payment deadline.
        reserve: Option<(LimitKeys, Lines)>,
    },
    /// Give a worker up to `max` orders that are ready, under leases. Not idempotent: a lost answer costs the leases' time.
    ClaimOrders {
        /// Any slot of the shard that is asked: claims are of a whole shard, and this routes them to it.
        slot: Slot,
        /// Who.
        worker: WorkerId,
        /// Which of the two queues.
        class: WorkClass,
        /// At most so many; 1 to [`crate::limits::CLAIM_MAX`].
        max: u32,
        /// How long the leases last, milliseconds from ledger time.
        lease_ms: u64,
        /// What one attempt to pay needs, milliseconds: orders whose payment deadline is nearer are not given.
        attempt_ms: u64,
    },
    /// Make a lease last until now + `lease_ms`. Safe to repeat.
    Heartbeat {
        /// The order.
        id: ReservationId,
        /// As claimed.
        epoch: u32,
        /// From ledger time, milliseconds.
        lease_ms: u64,
    },
    /// Say what came of a claimed order. The same again right after is the same answer.
    ReportOrder {
        /// The order.
        id: ReservationId,
        /// As claimed.
        epoch: u32,
        /// What came of it.
        report: Report,
    },
    /// Record what the provider says has happened to money. Needs no lease; idempotent by the provider's id of the payment.
    RecordFact {
        /// The order.
        id: ReservationId,
        /// What happened.
        fact: Fact,
    },
    /// An operator's (or webhook's) word on an order.
    OrderByHand {
        /// The order.
        id: ReservationId,
        /// What is to be done.
        what: ByHand,
        /// Why, for the explanation.
        reason: Reason,
    },
}

/// Which verb a command is, for metrics, precedence and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants repeat the names of Command")]
pub enum Verb {
    Tick,
    Reserve,
    Extend,
    Confirm,
    Release,
    Fence,
    Return,
    CreateProduct,
    DeleteProduct,
    PutOffer,
    SetOpen,
    EndSale,
    Receive,
    Adjust,
    Allot,
    Configure,
    OwnSlots,
    SwitchBehaviour,
    PlaceOrder,
    ClaimOrders,
    Heartbeat,
    ReportOrder,
    RecordFact,
    OrderByHand,
}

impl Command {
    /// The command's verb.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Tick => Verb::Tick,
            Self::Reserve { .. } => Verb::Reserve,
            Self::Extend { .. } => Verb::Extend,
            Self::Confirm { .. } => Verb::Confirm,
            Self::Release { .. } => Verb::Release,
            Self::Fence { .. } => Verb::Fence,
            Self::Return { .. } => Verb::Return,
            Self::CreateProduct { .. } => Verb::CreateProduct,
            Self::DeleteProduct { .. } => Verb::DeleteProduct,
            Self::PutOffer { .. } => Verb::PutOffer,
            Self::SetOpen { .. } => Verb::SetOpen,
            Self::EndSale { .. } => Verb::EndSale,
            Self::Receive { .. } => Verb::Receive,
            Self::Adjust { .. } => Verb::Adjust,
            Self::Allot { .. } => Verb::Allot,
            Self::Configure { .. } => Verb::Configure,
            Self::OwnSlots { .. } => Verb::OwnSlots,
            Self::SwitchBehaviour { .. } => Verb::SwitchBehaviour,
            Self::PlaceOrder { .. } => Verb::PlaceOrder,
            Self::ClaimOrders { .. } => Verb::ClaimOrders,
            Self::Heartbeat { .. } => Verb::Heartbeat,
            Self::ReportOrder { .. } => Verb::ReportOrder,
            Self::RecordFact { .. } => Verb::RecordFact,
            Self::OrderByHand { .. } => Verb::OrderByHand,
        }
    }

    /// The reservation (or order, under the same id) the command is about, if it is about one.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::Reserve { id, .. }
            | Self::Extend { id, .. }
            | Self::Confirm { id, .. }
            | Self::Release { id }
            | Self::Fence { id }
            | Self::Return { id, .. }
            | Self::PlaceOrder { id, .. }
            | Self::Heartbeat { id, .. }
            | Self::ReportOrder { id, .. }
            | Self::RecordFact { id, .. }
            | Self::OrderByHand { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The slot the command belongs to; none for commands to the shard itself.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Reserve { id, .. }
            | Self::Extend { id, .. }
            | Self::Confirm { id, .. }
            | Self::Release { id }
            | Self::Fence { id }
            | Self::Return { id, .. }
            | Self::PlaceOrder { id, .. }
            | Self::Heartbeat { id, .. }
            | Self::ReportOrder { id, .. }
            | Self::RecordFact { id, .. }
            | Self::OrderByHand { id, .. } => Some(id.slot()),
            Self::CreateProduct { sku, .. }
            | Self::DeleteProduct { sku }
            | Self::EndSale { sku, .. }
            | Self::Allot { sku, .. } => Some(Slot::of(sku)),
            Self::PutOffer { offer, .. }
            | Self::SetOpen { offer, .. }
            | Self::Receive { offer, .. }
            | Self::Adjust { offer, .. } => Some(Slot::of(&offer.sku)),
            Self::Tick | Self::Configure { .. } | Self::OwnSlots { .. } | Self::SwitchBehaviour { .. } => None,
            Self::ClaimOrders { slot, .. } => Some(*slot),
        }
    }
}

/// A line by SKU alone, for callers that build commands by hand.
pub fn plain_line(sku: Sku, quantity: Quantity) -> Line {
    Line { offer: OfferKey { sku, sale: None }, quantity }
}
