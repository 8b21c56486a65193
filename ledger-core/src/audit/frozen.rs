//! The audit of a frozen view: no second ledger, and memory that does not grow with the number of records.
//!
//! **What it is.** A view shares its chunks with the ledger, which goes on meanwhile. The audit reads the primary records one after the other and
//! recomputes from them what offers hold, have due and sold, what limit keys count, the totals and the state's digest. What it needs
//! per id or per (key, offer) it counts in tables of [`limits::AUDIT_TABLE_BYTES`]: each pass over the records fills a table with one part of all
//! keys. Of what is derived (indexes, queues) the view has only numbers, taken with it: lengths and sums, compared with those of the records. Records
//! that no later pass reads are given up on the way, so that the ledger copies less of what it writes.
//!
//! **Owns** the audit of large ledgers. **Must never** copy records, look into an index, or take memory in proportion to the records.
//! **Read next**: [`stock`], [`limit_keys`], [`once`], then [`super`].

mod limit_keys;
mod once;
mod stock;
#[cfg(test)]
mod tests;

pub(crate) use stock::PRODUCT_BYTES;

use super::findings::{Findings, id_text};
use super::orders;
use crate::digest;
use crate::ledger::{Digest, Position};
use crate::limits;
use crate::order::WorkClass;
use crate::outcome::Balance;
use crate::snapshot::{FrozenShard, FrozenState};
use crate::state::State;
use crate::state::orders::{Order, QueueLengths, Standing, lane_of};
use crate::state::records::{NONE, Refused, Reservation, UnknownName};
use crate::state::references::FrozenReferences;
use crate::state::seed::IndexHash;
use crate::state::slab::FrozenSlab;
use crate::types::{LedgerTime, OfferKey, Sku};
use crate::view::{Audit, ProductSums, Totals};

/// Records read between two reports of progress.
const PROGRESS_EVERY: u64 = 1 << 16;

/// Takes what an audit of a frozen view reports on its way.
pub trait AuditObserver {
    /// So many records were read of all that will be, as far as is known by now: a record that several passes read counts in each.
    fn progress(&mut self, _read: u64, _of: u64) {}
    /// An offer and its units, exactly, at the view's ledger time, recomputed.
    fn offer(&mut self, _offer: &OfferKey, _balance: Balance) {}
    /// A product and what ever came and went.
    fn product(&mut self, _sku: &Sku, _sums: ProductSums) {}
}

/// Takes nothing.
impl AuditObserver for () {}

/// Numbers of what is derived, and of records, as the state had them when the view was taken.
struct Derived {
    totals: Totals,
    ids: u64,
    holds: u64,
    due: u64,
    due_counted: u64,
    /// Remembered: sold, ended, refused, capped.
    memory: [u64; 4],
    reservations: u64,
    extras: u64,
    refused: u64,
    unknown_names: u64,
    references: u64,
    reference_index: u64,
    /// Records that name offers, and units remembered as bought, summed over offers.
    named: u64,
    bought: u64,
    by_sku: u64,
    by_sale: u64,
    offer_index: u64,
    queues: QueueLengths,
}

/// A frozen state together with numbers of what is derived: cheap to take, audited elsewhere.
pub struct AuditView {
    frozen: FrozenState,
    derived: Derived,
    hash: IndexHash,
}

impl State {
    /// A frozen view for the audit. Nothing is copied; sums are taken over products and offers.
    pub(crate) fn freeze_for_audit(&mut self) -> AuditView {
        let derived = self.derived();
        AuditView { frozen: self.freeze(), derived, hash: self.hash.clone() }
    }

    fn derived(&self) -> Derived {
        let len = |n: usize| n as u64;
        let sums = || self.offers.iter().map(|(at, _)| &self.sums[at as usize]);
        Derived {
            totals: self.totals(),
            ids: len(self.ids.len()),
            holds: len(self.expiry.len()),
            due: self.expiry.count_due(self.time),
            due_counted: len(self.expiry.due()),
            memory: self.memory.lengths().map(len),
            reservations: len(self.reservations.len()),
            extras: len(self.extras.len()),
            refused: len(self.refused.len()),
            unknown_names: len(self.unknown_names.len()),
            references: len(self.references.len()),
            reference_index: len(self.references.indexed()),
            named: sums().map(|sums| sums.named).sum(),
            bought: sums().map(|sums| sums.bought).sum(),
            by_sku: len(self.by_sku.len()),
            by_sale: len(self.by_sale.len()),
            offer_index: len(self.offer_index.len()),
            queues: self.orders.queues.lengths(),
        }
    }
}

impl AuditView {
    /// Position of the last entry in it.
    pub fn position(&self) -> Position {
        self.frozen.shard.position
    }
    /// Its ledger time.
    pub fn time(&self) -> LedgerTime {
        LedgerTime(self.frozen.shard.time)
    }
    /// The state's digest, as it was kept.
    pub fn digest(&self) -> Digest {
        self.frozen.digest
    }
    /// Sums, as they were kept.
    pub fn totals(&self) -> &Totals {
        &self.derived.totals
    }
    /// Recomputes every invariant, the sums and the digest from the records.
    pub fn audit(self, observer: &mut dyn AuditObserver) -> Audit {
        self.audit_within(limits::AUDIT_TABLE_BYTES, observer)
    }
    /// The same with tables of so many bytes: the smaller they are, the more often the records are read.
    pub fn audit_within(self, table_bytes: usize, observer: &mut dyn AuditObserver) -> Audit {
        let Self { frozen, derived, hash } = self;
        let mut checking = Checking {
            findings: Findings::default(),
            work: Work { read: 0, of: 0, observer },
            table_bytes,
            hash,
            time: frozen.shard.time,
            digest: 0,
            totals: Totals::default(),
        };
        checking.all(frozen, &derived);
        Audit { totals: checking.totals, findings: checking.findings.into_vec() }
    }
}

/// How far it is.
struct Work<'o> {
    read: u64,
    of: u64,
    observer: &'o mut dyn AuditObserver,
}

impl Work<'_> {
    /// One more record was read.
    #[inline]
    fn step(&mut self) {
        self.read += 1;
        if self.read.is_multiple_of(PROGRESS_EVERY) {
            self.report();
        }
    }

    #[cold]
    fn report(&mut self) {
        self.observer.progress(self.read, self.of.max(self.read));
    }
}

/// An audit under way.
struct Checking<'o> {
    findings: Findings,
    work: Work<'o>,
    table_bytes: usize,
    hash: IndexHash,
    time: u64,
    /// The records' parts of the digest so far.
    digest: u128,
    totals: Totals,
}

/// Parts into which so many entries of a size are divided, so that the table of each fits.
fn parts(entries: u64, entry_bytes: usize, table_bytes: usize) -> u64 {
    let fit = (table_bytes / entry_bytes).max(1) as u64;
    // A part is never just as large as the mean.
    (entries + entries / 16) / fit + 1
}

/// The part that a hash is in.
#[inline]
fn part_of(hash: u64, parts: u64) -> u64 {
    ((u128::from(hash) * u128::from(parts)) >> 64) as u64
}

impl Checking<'_> {
    fn all(&mut self, frozen: FrozenState, derived: &Derived) {
        let FrozenState {
            shard,
            products,
            offers,
            keys,
            references,
            reservations,
            extras,
            refused,
            unknown_names,
            orders,
            digest,
        } = frozen;
        self.work.of = self.expected(derived, offers.places());
        let mut sums = stock::Sums::new(&products, &offers);
        self.references(&references, derived);
        drop(references);
        let named = self.refused(&refused, &unknown_names, derived);
        self.ids(&reservations, &refused, derived);
        drop((refused, unknown_names));
        let stock = stock::Stock { products: &products, offers: &offers, reservations: &reservations, extras: &extras };
        let counted = self.reservations(&stock, &orders, &mut sums);
        let what = || "records that name offers, and units remembered as bought".to_owned();
        let of_offers = (named + counted.lines, counted.bought);
        self.findings.expect("memory", what, (derived.named, derived.bought), of_offers);
        self.orders(&orders, &stock, counted.of_orders, derived);
        drop(orders);
        self.offers_beyond(&stock, &mut sums);
        self.names(&stock, &keys, derived);
        self.limit_keys(&stock, &keys, &sums, counted.of_keys);
        self.products(&stock, &sums);
        self.memory(&shard, &counted, derived);
        self.sums_and_digest(&shard, digest, derived);
        self.work.of = self.work.read;
        self.work.report();
    }

    /// Records that will be read, before any was.
    fn expected(&self, derived: &Derived, offers: u32) -> u64 {
        let once = |n: u64| n * parts(n, size_of::<u128>(), self.table_bytes);
        let offer_parts = 1 + stock::parts_beyond(offers, self.table_bytes);
        let keys = derived.totals.limit_counts;
        let key_parts = parts(2 * keys, limit_keys::ENTRY_BYTES, self.table_bytes);
        let of_keys = if keys == 0 { 0 } else { 1 + key_parts };
        let names = derived.totals.products + derived.totals.offers + keys;
        derived.references
            + once(derived.references)
            + derived.refused
            + once(derived.refused + derived.reservations)
            + derived.reservations * (offer_parts + of_keys)
            + 2 * once(derived.totals.orders)
            + keys * key_parts
            + once(names)
    }

    fn references(&mut self, references: &FrozenReferences, derived: &Derived) {
        let mut present = 0;
        for used in references.iter() {
            self.work.step();
            present += 1;
            self.digest = self.digest.wrapping_add(digest::canonical_reference(used));
        }
        let lengths = (derived.references, derived.reference_index);
        self.findings.expect("index", || "references, and the index of them".to_owned(), lengths, (present, present));
        let each = || references.iter().map(|used| u128::from(used.name));
        self.each_once("memory", "a reference", present, each, |name| format!("{name:016x}"));
    }

    /// Answers how many of them name an offer that exists.
    fn refused(&mut self, refused: &FrozenSlab<Refused>, names: &FrozenSlab<UnknownName>, derived: &Derived) -> u64 {
        let (mut present, mut unknown, mut named) = (0, 0, 0);
        for (_, r) in refused.iter() {
            self.work.step();
            present += 1;
            named += u64::from(r.named_offer().is_some());
            let mut name = None;
            if r.why.names_unknown() {
                unknown += 1;
                name = names.try_get(r.offer).and_then(|name| name.0.as_ref());
                if name.is_none() {
                    self.findings
                        .add("memory", || format!("{} names an unknown offer that is not kept", id_text(&r.id)));
                    continue;
                }
            }
            self.digest = self.digest.wrapping_add(digest::canonical_refused(r, name));
        }
        self.findings.expect("memory", || "refusals and fences".to_owned(), derived.refused, present);
        self.findings.expect("memory", || "names of unknown offers".to_owned(), derived.unknown_names, unknown);
        named
    }

    fn ids(&mut self, reservations: &FrozenSlab<Reservation>, refused: &FrozenSlab<Refused>, derived: &Derived) {
        let each = || {
            let reservations = reservations.iter().map(|(_, r)| u128::from_be_bytes(r.id));
            reservations.chain(refused.iter().map(|(_, r)| u128::from_be_bytes(r.id)))
        };
        let all = derived.reservations + derived.refused;
        let present = self.each_once("index", "the id", all, each, |id| id_text(&id.to_be_bytes()));
        self.findings.expect("memory", || "ids".to_owned(), derived.ids, present);
    }

    /// Every order, and how many stand where.
    fn orders(&mut self, orders: &FrozenSlab<Order>, stock: &stock::Stock<'_>, of_orders: u64, derived: &Derived) {
        let mut lengths = QueueLengths::default();
        let (mut present, mut belonging, mut room) = (0, 0, Vec::new());
        for (at, order) in orders.iter() {
            self.work.step();
            present += 1;
            if order.cold.is_none() {
                self.findings.add("orders", || format!("{} has no details", id_text(&order.id)));
                continue;
            }
            self.digest = self.digest.wrapping_add(digest::canonical_order(order, &mut room));
            let known = |place: u32| stock.reservations.try_get(place).filter(|_| place != NONE);
            let (own, linked) = (known(order.reservation), known(order.linked));
            belonging += u64::from(own.is_some()) + u64::from(linked.is_some());
            orders::check(&mut self.findings, at, order, own, linked);
            let first = own.and_then(|r| stock.offers.try_get(r.line.offer)).map_or(NONE, |offer| offer.product);
            self.findings.expect("orders", || format!("product of {}", id_text(&order.id)), order.product, first);
            lengths.count(order);
            self.totals.orders_open += u64::from(!order.is_finished());
        }
        self.totals.orders = present;
        self.findings.expect("orders", || "reservations of orders".to_owned(), of_orders, belonging);
        self.findings.expect("queue", || "lengths of the queues".to_owned(), &derived.queues, &lengths);
        let ids = || orders.iter().map(|(_, order)| u128::from_be_bytes(order.id));
        self.each_once("orders", "the order", present, ids, |id| id_text(&id.to_be_bytes()));
        // One order a sequence, in each product and lane; what is late stands where it was ready.
        let seats = || orders.iter().filter_map(|(_, order)| seat(order));
        self.each_once("queue", "the sequence", present, seats, |seat| format!("{}", seat as u64));
    }

    /// What is remembered of ids, by the records and by the queues.
    fn memory(&mut self, shard: &FrozenShard, counted: &stock::Counted, derived: &Derived) {
        let refused = derived.refused;
        let capped = counted.ended + refused;
        let lengths = [counted.sold, counted.ended, refused, capped];
        self.findings.expect("memory", || "sold, ended, refused, capped".to_owned(), derived.memory, lengths);
        self.findings.expect("memory", || "reservations".to_owned(), derived.reservations, counted.present);
        self.findings.expect("memory", || "extra parts".to_owned(), derived.extras, counted.extras);
        self.findings.expect("expiry", || "holds in the queue".to_owned(), derived.holds, counted.held);
        self.findings.expect("expiry", || "due holds".to_owned(), derived.due, counted.due);
        if !crate::bad!("sweep-after-verdict") {
            self.findings.expect("expiry", || "due holds as counted".to_owned(), derived.due_counted, counted.due);
        }
        (self.totals.live, self.totals.sold) = (counted.held - counted.due, counted.sold);
        self.totals.remembered = capped + counted.due;
        let guard = self.time.saturating_sub(limits::FORGET_GUARD_MS);
        for (slot, below) in shard.forgotten_below.iter().enumerate() {
            let to = below.saturating_sub(1);
            let what = || format!("forgotten_to of slot {slot}, {to}, is not above {guard}");
            self.findings.expect("memory", what, to <= guard, true);
        }
    }

    fn sums_and_digest(&mut self, shard: &FrozenShard, kept: Digest, derived: &Derived) {
        self.findings.expect("conserved", || "sums".to_owned(), &derived.totals, &self.totals);
        let part = digest::canonical_shard(&digest::Shard {
            position: shard.position,
            time: shard.time,
            behaviour: shard.behaviour,
            chain: shard.chain,
            generation: shard.generation,
            ranges: &shard.ranges,
            settings: &shard.settings,
            forgotten_below: &shard.forgotten_below,
            reference_seed: shard.reference_seed,
            orders: shard.orders,
        });
        let counted = Digest { index: shard.position.index, value: self.digest.wrapping_add(part) };
        self.findings.expect("digest", || "digest of the state".to_owned(), kept, counted);
    }
}

/// Where a ready order stands, as one number: lane, product, sequence.
fn seat(order: &Order) -> Option<u128> {
    let class = match order.standing {
        Standing::Ready => order.step()?.class(),
        Standing::Late => WorkClass::Money,
        _ => return None,
    };
    let lane = lane_of(class, order.suspect) as u128;
    Some(lane << 96 | u128::from(order.product) << 64 | u128::from(order.due))
}
