//! What reads answer, as of the applied position and its ledger time.
//!
//! **Owns** the read shapes. **Must never** be stored. **Read next**: [`crate::ledger`].

use crate::outcome::{Balance, SoldOut, Status};
use crate::types::{LedgerTime, LimitKey, OfferKey, Policy, ReservationId, Sku};

/// One offer. Due holds count as ended, swept or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferView {
    /// Which offer.
    pub offer: OfferKey,
    /// Its policy.
    pub policy: Policy,
    /// For compare-and-set.
    pub version: u64,
    /// Units.
    pub balance: Balance,
    /// Open, first back at, or gone; none while some are available.
    pub sold_out: Option<SoldOut>,
    /// Ended for good (sales only).
    pub ended: bool,
    /// Whether a reservation would be taken now as far as policy and window go.
    pub taking: bool,
}

/// A product with all its offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductView {
    /// The product.
    pub sku: Sku,
    /// Ever received.
    pub received: u64,
    /// Sum of all adjustments.
    pub adjusted: i64,
    /// Ever returned.
    pub returned: u64,
    /// Ever sold: confirmed units, returned ones still counted. Conserved: received + adjusted = available + held + (ever sold − returned).
    pub ever_sold: u64,
    /// The plain offer first, then sales by id.
    pub offers: Vec<OfferView>,
}

/// One line of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineView {
    /// Which offer.
    pub offer: OfferKey,
    /// As reserved.
    pub reserved: u32,
    /// Sold (0 while held).
    pub sold: u32,
    /// Of those, returned.
    pub returned: u32,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationView {
    /// Its id.
    pub id: ReservationId,
    /// Where it stands.
    pub status: Status,
    /// When it was taken.
    pub reserved_at: LedgerTime,
    /// The hold's (last) deadline.
    pub deadline: LedgerTime,
    /// When it ended, if it did.
    pub ended_at: Option<LedgerTime>,
    /// Its limit keys, while they count.
    pub keys: Vec<LimitKey>,
    /// Its lines.
    pub lines: Vec<LineView>,
}

/// What is known of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdView {
    /// It executed.
    Reservation(ReservationView),
    /// It was refused, and that is remembered.
    Refused(crate::outcome::Refusal),
    /// It was fenced before it executed.
    Fenced,
    /// It never executed (it is newer than what was forgotten).
    Unknown,
    /// At or below what was forgotten: no longer known.
    Forgotten,
    /// The slot is not owned by this shard.
    SlotElsewhere,
}

/// Units summed over the offers of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitSums {
    /// Free to be reserved.
    pub available: u128,
    /// In live holds.
    pub held: u128,
    /// Sold and not returned.
    pub sold: u128,
}

/// Sums over a shard, for audits and dashboards. A product's numbers are bounded ([`crate::limits::UNITS_EVER_MAX`]), how many products there are is not: so
/// sums of units are as wide as it takes for 2^32 products, whose places are 32 bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Products.
    pub products: u64,
    /// Offers.
    pub offers: u64,
    /// Units ever received.
    pub received: u128,
    /// Sum of adjustments.
    pub adjusted: i128,
    /// Units ever returned.
    pub returned: u128,
    /// Units available, held, sold.
    pub units: UnitSums,
    /// Live holds.
    pub live: u64,
    /// Sold reservations in their return window.
    pub sold: u64,
    /// Remembered ended ones, refusals and fences.
    pub remembered: u64,
    /// Limit counters.
    pub limit_counts: u64,
    /// Orders known.
    pub orders: u64,
    /// Of those, not done.
    pub orders_open: u64,
}

/// What ever came into a product and went out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProductSums {
    /// Ever received.
    pub received: u64,
    /// Sum of all adjustments.
    pub adjusted: i64,
    /// Ever returned.
    pub returned: u64,
}

/// A broken invariant, found by the audit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Finding {
    /// The invariant's name, as in the contract: conserved, oversold, stranded, ends-once, limits, expiry, memory, index, orders, money, queue, digest.
    pub invariant: &'static str,
    /// Both sides of what disagrees.
    pub what: String,
}

/// Result of an audit: recomputed from scratch out of the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Sums.
    pub totals: Totals,
    /// Empty when every invariant holds.
    pub findings: Vec<Finding>,
}

/// Bytes that a ledger takes in memory, by kind of record, each with its queues and most of its indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Live and remembered reservations, and the queues in which they end and are forgotten.
    pub reservations: u64,
    /// Remembered refusals and fences.
    pub refusals: u64,
    /// The index from ids to both, and the order in which the cap forgets them.
    pub ids: u64,
    /// Orders, with what is sealed, their payments and queues.
    pub orders: u64,
    /// Limit keys and what they count.
    pub limit_keys: u64,
    /// References of receive, adjust, allot and return.
    pub references: u64,
    /// Products and offers.
    pub products: u64,
}

impl MemoryUse {
    /// Each kind by its name, in a fixed order.
    pub fn by_kind(&self) -> [(&'static str, u64); 7] {
        let Self { reservations, refusals, ids, orders, limit_keys, references, products } = *self;
        [
            ("reservations", reservations),
            ("refusals", refusals),
            ("ids", ids),
            ("orders", orders),
            ("limit_keys", limit_keys),
            ("references", references),
            ("products", products),
        ]
    }
    /// All of it.
    pub fn total(&self) -> u64 {
        self.by_kind().into_iter().map(|(_, bytes)| bytes).sum()
    }
}
