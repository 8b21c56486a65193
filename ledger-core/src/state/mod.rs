//! The state of one shard: primary records in slabs, and what is derived from them.
//!
//! **What it is.** Reservations, orders, refusals, offers, products, keys and references are primary; indexes, deadlines, counts and
//! sums are derived, kept as it goes, rebuilt when a snapshot is read, and compared by the audit.
//!
//! *Exactness without a sweep.* A hold is due when its deadline is at or before ledger time. Its record stays `Held` until a later entry
//! sweeps it, but nothing counts it: an offer's sums by deadline ([`due::ByDeadline`]) tell how many of its held units are due, a limit key's holds
//! carry their deadlines, and a reservation's status is asked *at* a time. So the cost of a mass expiry is one step for each
//! distinct (offer, deadline) at once, and one for each hold when it is swept.
//!
//! **Owns** every byte that decides. **Must never** let the order of a hash table or a place in a slab decide anything.
//! **Read next**: [`records`], [`due`], [`offers`], [`orders`], [`memory`].

pub(crate) mod blocks;
mod bytes;
mod count;
pub(crate) mod due;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod numbers;
pub(crate) mod offers;
pub(crate) mod orders;
pub(crate) mod places;
pub(crate) mod records;
pub(crate) mod references;
pub(crate) mod run;
pub(crate) mod seed;
pub(crate) mod slab;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;

use crate::command::Command;
use crate::ledger::{Digest, Position};
use crate::limits;
use crate::types::{LedgerTime, ReservationId, SaleId, ShardSettings, Sku, Slot};
use blocks::Blocks;
use due::DueQueue;
use ids::{Found, IdIndex};
use keys::Keys;
use numbers::Numbers;
use offers::OfferSums;
use orders::Orders;
use places::Places;
use records::{Extra, LineRecord, NONE, Offer, Product, Refused, Reservation, Returned, UnknownName};
use references::References;
use seed::{IndexHash, IndexSeed};
use slab::Slab;

/// Lines of a reservation, copied out.
pub(crate) type LineList = SmallVec<[LineRecord; 2]>;
/// Limit keys of a reservation, copied out.
pub(crate) type KeyList = SmallVec<[u32; 4]>;

/// Tables of an index over offers: one that grows moves so little of it.
const OFFER_TABLES: usize = 256;

/// How many records of a kind there may be. Tests have smaller ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordBounds {
    pub(crate) products: usize,
    pub(crate) offers: usize,
    pub(crate) references: usize,
    pub(crate) unknown_payments: usize,
    pub(crate) open_orders: u64,
}

impl Default for RecordBounds {
    fn default() -> Self {
        Self {
            products: limits::PRODUCTS_MAX,
            offers: limits::OFFERS_MAX,
            references: limits::REFERENCES_MAX,
            unknown_payments: limits::UNKNOWN_PAYMENTS_MAX,
            open_orders: limits::ORDERS_OPEN_MAX,
        }
    }
}

/// The state.
pub(crate) struct State {
    // primary: the shard
    pub(crate) position: Position,
    pub(crate) time: u64,
    pub(crate) behaviour: u16,
    pub(crate) chain: u128,
    pub(crate) generation: u64,
    pub(crate) ranges: Vec<(Slot, Slot)>,
    pub(crate) settings: ShardSettings,
    /// By slot: ids of an earlier time that are not remembered are forgotten. One above the contract's `forgotten_to`, so that zero says none.
    pub(crate) forgotten_below: Vec<u64>,
    pub(crate) digests: VecDeque<Digest>,
    // primary: records
    pub(crate) products: Slab<Product>,
    pub(crate) offers: Slab<Offer>,
    pub(crate) reservations: Slab<Reservation>,
    pub(crate) extras: Slab<Extra>,
    pub(crate) refused: Slab<Refused>,
    pub(crate) unknown_names: Slab<UnknownName>,
    pub(crate) references: References,
    pub(crate) keys: Keys,
    /// Orders, and the queues derived from them.
    pub(crate) orders: Orders,
    /// The same on all replicas.
    pub(crate) bounds: RecordBounds,
    // derived
    pub(crate) hash: IndexHash,
    pub(crate) owned: Vec<bool>,
    pub(crate) product_numbers: Numbers,
    pub(crate) offer_numbers: Numbers,
    pub(crate) sums: Blocks<OfferSums>,
    /// Deadlines of all offers, each counted once an offer.
    pub(crate) offer_deadlines: usize,
    pub(crate) by_sku: BTreeMap<Sku, u32>,
    pub(crate) by_sale: BTreeMap<(SaleId, Sku), u32>,
    pub(crate) offer_index: Places,
    pub(crate) ids: IdIndex,
    pub(crate) expiry: DueQueue,
    pub(crate) edges: BTreeSet<(u64, u32)>,
    /// Offers by their first deadline, or by one before it: those that ledger time may have made something due in.
    pub(crate) first_deadlines: BTreeSet<(u64, u32)>,
    /// Offers of ended sales that nothing refers to, by when they ended.
    pub(crate) unused_ended: BTreeSet<(u64, u32)>,
    /// Sales whose window closed and that count what forgotten reservations alone bought, by when it closed.
    pub(crate) unused_closed: BTreeSet<(u64, u32)>,
    pub(crate) memory: memory::Memory,
    pub(crate) digest: crate::digest::Running,
}

impl State {
    pub(crate) fn new(incarnation: u64, shard: u32, seed: IndexSeed) -> Self {
        let hash = IndexHash::new(seed);
        Self {
            position: Position { incarnation, shard, ..Position::default() },
            time: 0,
            behaviour: 1,
            chain: 0,
            generation: 0,
            ranges: Vec::new(),
            settings: ShardSettings::default(),
            forgotten_below: vec![0; usize::from(limits::SLOTS)],
            digests: VecDeque::new(),
            products: Slab::new(),
            offers: Slab::new(),
            reservations: Slab::new(),
            extras: Slab::new(),
            refused: Slab::new(),
            unknown_names: Slab::new(),
            references: References::new(incarnation, hash.clone()),
            keys: Keys::new(hash.clone()),
            orders: Orders::new(),
            owned: vec![false; usize::from(limits::SLOTS)],
            product_numbers: Numbers::default(),
            offer_numbers: Numbers::default(),
            sums: Blocks::new(),
            offer_deadlines: 0,
            by_sku: BTreeMap::new(),
            by_sale: BTreeMap::new(),
            offer_index: Places::new(OFFER_TABLES),
            ids: IdIndex::new(hash.clone()),
            expiry: DueQueue::new(),
            edges: BTreeSet::new(),
            first_deadlines: BTreeSet::new(),
            unused_ended: BTreeSet::new(),
            unused_closed: BTreeSet::new(),
            memory: memory::Memory::new(),
            bounds: RecordBounds::default(),
            hash,
            digest: crate::digest::Running::default(),
        }
    }

    pub(crate) fn now(&self) -> LedgerTime {
        LedgerTime(self.time)
    }

    pub(crate) fn owns(&self, slot: Slot) -> bool {
        self.owned[usize::from(slot.get())]
    }

    pub(crate) fn own(&mut self, generation: u64, ranges: &[(Slot, Slot)]) {
        self.generation = generation;
        self.ranges = ranges.to_vec();
        self.owned.fill(false);
        for &(from, to) in ranges {
            if from <= to {
                self.owned[usize::from(from.get())..=usize::from(to.get())].fill(true);
            }
        }
    }

    /// The record of an id.
    #[inline]
    pub(crate) fn find(&self, id: ReservationId) -> Option<Found> {
        self.ids.find(id.as_bytes(), id_of(&self.reservations, &self.refused))
    }

    /// The reservation of an id, if it is one.
    pub(crate) fn reservation_of(&self, id: ReservationId) -> Option<u32> {
        match self.find(id)? {
            Found::Reservation(at) => Some(at),
            Found::Refused(_) => None,
        }
    }

    /// Looks up what the commands will look up, and forgets it. Each look-up misses the caches several times; side by side the
    /// processor waits for many of them at once, while deciding waits for one after the other. So each pass goes one step deeper for all of
    /// them: index, record, what lies behind the record. Decides nothing.
    pub(crate) fn warm(&self, commands: &[Command]) {
        let (mut new, mut known) = (SmallVec::<[u64; 64]>::new(), SmallVec::<[u64; 64]>::new());
        let mut keys = SmallVec::<[u64; 64]>::new();
        for command in commands {
            let id = command.reservation().map(|id| self.ids.hash(id.as_bytes()));
            match command {
                // Nearly always its id is nowhere yet.
                Command::Reserve { keys: asked, .. } | Command::PlaceOrder { reserve: Some((asked, _)), .. } => {
                    new.extend(id);
                    asked.iter().for_each(|key| keys.push(self.keys.hash(key)));
                }
                _ => known.extend(id),
            }
        }
        // Nothing else stands in these two loops, so that as many words as the processor has room for are on their way together.
        let mut seen = 0_u64;
        for &hash in new.iter().chain(&known) {
            seen ^= self.ids.touch(hash);
        }
        for &hash in &keys {
            seen ^= self.keys.touch(hash);
        }
        for found in known.iter().filter_map(|&hash| self.ids.likely(hash)) {
            seen ^= match found {
                Found::Reservation(at) => {
                    self.reservations.get(at).fingerprint ^ u64::from(self.reservations.get(at).key)
                }
                Found::Refused(at) => self.refused.get(at).fingerprint(),
            };
        }
        let keys: SmallVec<[u32; 64]> = keys.iter().filter_map(|&hash| self.keys.likely(hash)).collect();
        for &key in &keys {
            seen ^= self.keys.touch_record(key);
        }
        for &key in &keys {
            seen ^= self.keys.touch_holds(key);
        }
        // Otherwise the compiler sees that nothing is made of it.
        std::hint::black_box(seen);
    }

    /// Whether an id that is not remembered may have executed before.
    #[inline]
    pub(crate) fn is_forgotten(&self, id: ReservationId) -> bool {
        id.time_ms() < self.forgotten_below[usize::from(id.slot().get())]
    }

    pub(crate) fn lines(&self, r: &Reservation) -> LineList {
        let mut lines = LineList::new();
        lines.push(r.line);
        if r.extra != NONE {
            lines.extend_from_slice(&self.extras.get(r.extra).lines);
        }
        lines
    }

    pub(crate) fn key_list(&self, r: &Reservation) -> KeyList {
        let mut keys = KeyList::new();
        if r.key != NONE {
            keys.push(r.key);
            if r.extra != NONE {
                keys.extend_from_slice(&self.extras.get(r.extra).keys);
            }
        }
        keys
    }

    /// Writes lines back that [`Self::lines`] gave.
    pub(crate) fn put_lines(&mut self, at: u32, lines: &[LineRecord]) {
        let r = self.reservations.get_mut(at);
        r.line = lines[0];
        if lines.len() > 1 {
            let extra = r.extra;
            self.extras.get_mut(extra).lines.copy_from_slice(&lines[1..]);
        }
    }

    /// The place of the reservation's extra part, made if it has none.
    pub(crate) fn extra_of(&mut self, at: u32) -> u32 {
        let extra = self.reservations.get(at).extra;
        if extra != NONE {
            return extra;
        }
        let extra = self.extras.insert(Extra { present: true, ..Extra::default() });
        self.reservations.get_mut(at).extra = extra;
        extra
    }

    /// What was returned of a reservation so far.
    pub(crate) fn returns(&self, r: &Reservation) -> &[Returned] {
        if r.extra == NONE { &[] } else { &self.extras.get(r.extra).returns }
    }

    /// Units of a reservation were returned.
    pub(crate) fn add_return(&mut self, at: u32, returned: Returned) {
        let extra = self.extra_of(at);
        self.extras.change(extra, |extra| {
            extra.returns.reserve_exact(1);
            extra.returns.push(returned);
        });
    }

    /// The hold of a reservation that is due at just that deadline, if it still is one: for the expiry queue.
    pub(crate) fn due_id(reservations: &Slab<Reservation>, at: u32, deadline: u64) -> Option<[u8; 16]> {
        reservations.try_get(at).filter(|r| r.is_held() && r.deadline == deadline).map(|r| r.id)
    }

    /// Adds a new reservation and indexes it; its deadline and limits are the caller's to count.
    pub(crate) fn add_reservation(&mut self, r: Reservation) -> u32 {
        let id = r.id;
        self.name_offers(&r);
        let at = self.reservations.insert(r);
        self.ids.insert(&id, Found::Reservation(at));
        at
    }

    /// Adds a refusal or fence and indexes it.
    pub(crate) fn add_refused(&mut self, refused: Refused) -> u32 {
        if let Some(offer) = refused.named_offer() {
            self.name_offer(offer);
        }
        let at = self.refused.insert(refused);
        self.ids.insert(&refused.id, Found::Refused(at));
        at
    }
}

/// Reads the id of what the index found.
pub(crate) fn id_of<'a>(
    reservations: &'a Slab<Reservation>,
    refused: &'a Slab<Refused>,
) -> impl Fn(Found) -> [u8; 16] + 'a {
    |found| match found {
        Found::Reservation(at) => reservations.get(at).id,
        Found::Refused(at) => refused.get(at).id,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers every time.
#[cfg(test)]
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
