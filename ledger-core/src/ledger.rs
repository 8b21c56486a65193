//! The ledger of one shard and its door: `apply`.
//!
//! **Owns** the door. **Must never** decide: `apply/` does, on `state/`. **Read next**: [`crate::codec`].

use std::io;

use bytes::Bytes;

pub use crate::audit::frozen::{AuditObserver, AuditView};

use crate::apply::{Refused, Scratch, decide, refuse};
use crate::change::EntryFault;
use crate::codec::{CodecError, decode_entry, entry_hash};
use crate::command::Entry;
use crate::limits;
use crate::order::{OrderPage, OrderView, Phase, QueueStats};
use crate::outcome::{Bound, Outcome};
use crate::state::State;
use crate::state::ids::Found;
use crate::state::seed::IndexSeed;
use crate::types::{LedgerTime, OfferKey, ReservationId, SaleId, Sku, Slot};
use crate::view::{Audit, IdView, MemoryUse, OfferView, ProductView, Totals};

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
    /// Taken at every [`crate::limits::DIGEST_EVERY`]th index, and as ledger time passes a multiple of
    /// [`crate::limits::DIGEST_EVERY_MS`].
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
///
/// Invariants, asserted as it goes and recomputed by [`Ledger::audit`]:
/// * *Conserved*: per product received + adjusted = available + held + sold over its offers, and sold = ever sold − returned.
/// * *Never oversold*: no offer's available is negative once due holds count as ended.
/// * *Ends once*: a reservation leaves `Held` once and for good.
/// * *Exact*: what an offer or a limit key counts as held at ledger time is the sum over live holds with a deadline after it.
/// * *Remembered*: an id that is neither remembered nor at or below its slot's `forgotten_to` never executed.
pub struct Ledger {
    pub(crate) state: State,
    scratch: Scratch,
}

impl Ledger {
    /// An empty ledger that owns no slot yet. The seed must be random where callers choose names.
    pub fn new(incarnation: u64, shard: u32, seed: IndexSeed) -> Self {
        Self::of(State::new(incarnation, shard, seed))
    }
    fn of(state: State) -> Self {
        Self { state, scratch: Scratch::default() }
    }
    /// Decides every command of the entry, in order. Total and deterministic.
    ///
    /// # Panics
    /// On a broken invariant, or an index that is not above the last: a broken replica must stop, not diverge.
    pub fn apply(&mut self, term: u64, index: u64, entry: &Entry) -> Applied {
        decide(&mut self.state, &mut self.scratch, term, index, entry)
    }
    /// Refuses an entry that cannot be decoded: time, sweeps, chain and digest go on as for a tick, no id is remembered, and the one
    /// change says so. Every replica does the same with the same bytes.
    ///
    /// # Panics
    /// As [`Self::apply`].
    pub fn apply_refused(&mut self, term: u64, index: u64, stamp: LedgerTime, bytes: &[u8]) -> Applied {
        let error = match decode_entry(stamp, bytes) {
            Err(CodecError::TooLarge { .. }) => EntryFault::TooLarge,
            _ => EntryFault::Malformed,
        };
        let refused = Refused { hash: entry_hash(stamp, bytes), bytes: bytes.len() as u64, error };
        refuse(&mut self.state, &mut self.scratch, term, index, stamp, &refused)
    }
    /// Position of the last applied entry.
    pub fn position(&self) -> Position {
        self.state.position
    }
    /// Ledger time as of the applied position.
    pub fn time(&self) -> LedgerTime {
        self.state.now()
    }
    /// The next instant at which something becomes due (hold or window edge) or is left to sweep; for the leader's ticks.
    pub fn next_due(&self) -> Option<LedgerTime> {
        self.state.next_due()
    }
    /// The next instant at which an entry should forget what is past its time, though nobody asks
    /// anything; for the leader's ticks. Without them all of it would wait for the first callers
    /// after a quiet night.
    pub fn next_forgotten(&self) -> Option<LedgerTime> {
        self.state.next_forgotten()
    }
    /// When ledger time must move on although nothing is due. Ids are minted from it, and one that
    /// was minted further back than what is forgotten would be refused.
    pub fn next_idle_tick(&self) -> LedgerTime {
        LedgerTime(
            self.state.time.saturating_add(self.state.shortest_retention_ms() / limits::IDLE_TICKS_PER_RETENTION),
        )
    }
    /// The slots owned: generation and ranges.
    pub fn owned_slots(&self) -> (u64, Vec<(Slot, Slot)>) {
        (self.state.generation, self.state.ranges.clone())
    }
    /// Behaviour version in force.
    pub fn behaviour(&self) -> u16 {
        self.state.behaviour
    }
    /// Chain value after the last record.
    pub fn chain(&self) -> u128 {
        self.state.chain
    }
    /// The state's digest now; constant time but for what changed since the last.
    pub fn digest(&mut self) -> Digest {
        self.state.take_digest()
    }
    /// The last digests that `apply` took ([`Applied::digest`]), oldest first.
    pub fn digests(&self) -> Vec<Digest> {
        self.state.digests.iter().copied().collect()
    }
    /// One offer.
    pub fn offer(&self, offer: &OfferKey) -> Option<OfferView> {
        self.state.find_offer(offer).map(|at| self.state.offer_view(at))
    }
    /// A product with its offers.
    pub fn product(&self, sku: &Sku) -> Option<ProductView> {
        self.state.by_sku.get(sku).map(|&at| self.state.product_view(at))
    }
    /// Products by SKU, after `after`, at most `max`.
    pub fn products(&self, after: Option<&Sku>, max: usize) -> Vec<ProductView> {
        self.state.products_after(after, max)
    }
    /// The same as a page: it ends as soon as it has so many offers, with one product at least. Also whether there are more.
    pub fn products_page(&self, after: Option<&Sku>, max: usize, offers_max: usize) -> (Vec<ProductView>, bool) {
        self.state.products_page(after, max, offers_max)
    }
    /// Offers of one sale (all sales when none) by (sale, SKU), after `after`, at most `max`.
    pub fn sales(&self, sale: Option<&SaleId>, after: Option<(&SaleId, &Sku)>, max: usize) -> Vec<OfferView> {
        self.state.sales_after(sale, after, max)
    }
    /// What is known of an id.
    pub fn id(&self, id: ReservationId) -> IdView {
        self.state.id_view(id)
    }
    /// Whether an id is remembered: a reservation, a refusal or a fence.
    pub fn knows(&self, id: ReservationId) -> bool {
        self.state.find(id).is_some()
    }
    /// All that is known of an order.
    pub fn order(&self, id: ReservationId) -> Option<OrderView> {
        self.state.order_view(id)
    }
    /// Orders in the order of their ids, after `after`, at most `max`: all, or those in one phase. A bounded number is looked at, so a page may be short and
    /// still name where to go on.
    pub fn orders(&self, phase: Option<Phase>, after: Option<ReservationId>, max: usize) -> OrderPage {
        self.state.orders_after(phase, after, max)
    }
    /// Dead letters in the order of their ids, after `after`, at most `max`.
    pub fn parked(&self, after: Option<ReservationId>, max: usize) -> Vec<OrderView> {
        self.state.parked_after(after, max)
    }
    /// Depth and age of the queues.
    pub fn queue_stats(&self) -> QueueStats {
        self.state.queue_stats()
    }
    /// Index and place of the last change on a product: where its explanation begins.
    pub fn head_of_product(&self, sku: &Sku) -> Option<(u64, u16)> {
        let &at = self.state.by_sku.get(sku)?;
        self.state.products.get(at).head.get()
    }
    /// Index and place of the last change on a reservation (or on an order known by payments alone) that is still known.
    pub fn head_of_reservation(&self, id: ReservationId) -> Option<(u64, u16)> {
        if let Some(Found::Reservation(at)) = self.state.find(id) {
            return self.state.reservations.get(at).head();
        }
        self.state.order_of(id).and_then(|at| self.state.orders.get(at).head.get())
    }
    /// Everything at or below is forgotten in that slot: an id time in milliseconds; zero when nothing was.
    pub fn forgotten_to(&self, slot: Slot) -> u64 {
        self.state.forgotten_below[usize::from(slot.get())].saturating_sub(1)
    }
    /// Sums, kept as it goes.
    pub fn totals(&self) -> Totals {
        self.state.totals()
    }
    /// Bytes that the records take in memory, about, by kind; kept as it goes.
    pub fn memory_use(&self) -> MemoryUse {
        self.state.memory_use()
    }
    /// How many records of each bounded kind there are, and may be.
    pub fn records(&self) -> [(Bound, u64, u64); 5] {
        let (state, bounds) = (&self.state, &self.state.bounds);
        let (orders, len) = (&state.orders.queues, |len: usize| len as u64);
        [
            (Bound::Products, len(state.products.len()), len(bounds.products)),
            (Bound::Offers, len(state.offers.len()), len(bounds.offers)),
            (Bound::References, len(state.references.len()), len(bounds.references)),
            (Bound::UnknownPayments, len(orders.unfinished_strays()), len(bounds.unknown_payments)),
            (Bound::OpenOrders, orders.open, bounds.open_orders),
        ]
    }
    /// Recomputes every invariant from scratch.
    pub fn audit(&self) -> Audit {
        self.state.audit()
    }
    /// A frozen view with numbers of what is derived, to be audited elsewhere; the next writes copy what they touch.
    pub fn freeze_for_audit(&mut self) -> AuditView {
        self.state.freeze_for_audit()
    }
    /// A frozen view; the next writes copy what they touch.
    pub fn freeze(&mut self) -> Frozen {
        Frozen(self.state.freeze())
    }
    /// Reads a state back, and checks its digest against the one written.
    ///
    /// # Errors
    /// [`CodecError`]; never panics on any bytes.
    pub fn thaw(from: &mut dyn io::Read, seed: IndexSeed) -> Result<Self, CodecError> {
        crate::snapshot::read(from, seed).map(Self::of)
    }
}

/// A frozen state: cheap to take (copy on write by chunk), writes itself out elsewhere.
pub struct Frozen(crate::snapshot::FrozenState);

impl Frozen {
    /// Writes the whole state.
    ///
    /// # Errors
    /// Only those of `to`.
    pub fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        self.0.write(to)
    }
}
