//! The ledger of one shard and its door: `apply`.

use std::io;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::command::Entry;
use crate::outcome::Outcome;
use crate::types::{LedgerTime, OfferKey, ReservationId, SaleId, Sku, Slot};
use crate::view::{Audit, IdView, OfferView, ProductView, Totals};

/// Where in the log: incarnation and shard name the log, term and index the entry, place the command in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The cluster's incarnation.
    pub incarnation: u64,
    /// The shard (its Raft group).
    pub shard: u32,
    /// Term of the leader that appended it.
    pub term: u64,
    /// Index in the shard's log.
    pub index: u64,
    /// Place in the batch.
    pub place: u16,
}

/// What one entry did.
#[derive(Debug)]
pub struct Applied {
    /// Ledger time after the stamp.
    pub time: LedgerTime,
    /// One a command, in order.
    pub outcomes: Vec<Outcome>,
    /// The encoded [`crate::change::Record`]; none when nothing changed.
    pub record: Option<Bytes>,
    /// Taken at every [`crate::limits::DIGEST_EVERY`]th index.
    pub digest: Option<Digest>,
}

/// A digest of the whole state at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Last applied index it covers.
    pub index: u64,
    /// The value.
    pub value: u128,
}

/// The stock ledger of one shard.
pub struct Ledger {
    _private: (),
}

/// A frozen state: cheap to take (copy on write by chunk), writes itself out elsewhere.
pub struct Frozen {
    _private: (),
}

impl Ledger {
    /// An empty ledger that owns no slot yet.
    pub fn new(_incarnation: u64, _shard: u32) -> Self {
        todo!()
    }
    /// Decides every command of the entry, in order. Total and deterministic.
    ///
    /// # Panics
    /// On a broken invariant, or an index that is not above the last: a broken replica must stop, not diverge.
    pub fn apply(&mut self, _term: u64, _index: u64, _entry: &Entry) -> Applied {
        todo!()
    }
    /// Position of the last applied entry.
    pub fn position(&self) -> Position {
        todo!()
    }
    /// Ledger time as of the applied position.
    pub fn time(&self) -> LedgerTime {
        todo!()
    }
    /// The next instant at which something becomes due (hold or window edge) or is left to sweep; for the leader's ticks.
    pub fn next_due(&self) -> Option<LedgerTime> {
        todo!()
    }
    /// The slots owned: generation and ranges.
    pub fn owned_slots(&self) -> (u64, Vec<(Slot, Slot)>) {
        todo!()
    }
    /// Behaviour version in force.
    pub fn behaviour(&self) -> u16 {
        todo!()
    }
    /// Chain value after the last record.
    pub fn chain(&self) -> u128 {
        todo!()
    }
    /// The state's digest now; constant time but for what changed since the last.
    pub fn digest(&mut self) -> Digest {
        todo!()
    }
    /// The last digests taken at multiples of [`crate::limits::DIGEST_EVERY`], oldest first.
    pub fn digests(&self) -> Vec<Digest> {
        todo!()
    }
    /// One offer.
    pub fn offer(&self, _offer: &OfferKey) -> Option<OfferView> {
        todo!()
    }
    /// A product with its offers.
    pub fn product(&self, _sku: &Sku) -> Option<ProductView> {
        todo!()
    }
    /// Products by SKU, after `after`, at most `max`.
    pub fn products(&self, _after: Option<&Sku>, _max: usize) -> Vec<ProductView> {
        todo!()
    }
    /// Offers of one sale (all sales when none) by (sale, SKU), after `after`, at most `max`.
    pub fn sales(&self, _sale: Option<&SaleId>, _after: Option<(&SaleId, &Sku)>, _max: usize) -> Vec<OfferView> {
        todo!()
    }
    /// What is known of an id.
    pub fn id(&self, _id: ReservationId) -> IdView {
        todo!()
    }
    /// Everything at or below is forgotten in that slot: an id time in milliseconds.
    pub fn forgotten_to(&self, _slot: Slot) -> u64 {
        todo!()
    }
    /// Sums, kept as it goes.
    pub fn totals(&self) -> Totals {
        todo!()
    }
    /// Recomputes every invariant from scratch.
    pub fn audit(&self) -> Audit {
        todo!()
    }
    /// A frozen view; the next writes copy what they touch.
    pub fn freeze(&mut self) -> Frozen {
        todo!()
    }
    /// Reads a state back, and checks its digest against the one written.
    ///
    /// # Errors
    /// [`CodecError`]; never panics on any bytes.
    pub fn thaw(_from: &mut dyn io::Read) -> Result<Self, CodecError> {
        todo!()
    }
}

impl Frozen {
    /// Writes the whole state.
    ///
    /// # Errors
    /// Only those of `to`.
    pub fn write(&self, _to: &mut dyn io::Write) -> io::Result<()> {
        todo!()
    }
}
