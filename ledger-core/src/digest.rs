//! The digest of the state: a wrapping sum of xxh3-128 over every record's canonical bytes, kept as it goes.
//!
//! Canonical bytes name ids, times, units, and offers and products by their numbers, never by a place that a slab chose, so that the digest is a function of
//! the state and not of how it came about or where it lies. Changing a record subtracts its old part and adds its new one; offers and products
//! change all the time and are folded in when a digest is taken.
//! **Owns** the canonical bytes. **Must never** depend on history. **Read next**: [`crate::snapshot`].

use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use crate::ledger::{Digest, Position};
use crate::limits;
use crate::order::{ClientSecret, Money, ParkReason};
use crate::outcome::Status;
use crate::state::State;
use crate::state::offers::OfferSums;
use crate::state::orders::Order;
use crate::state::records::{Extra, LineRecord, NONE, Offer, Phase, Product, Refused, Reservation};
use crate::state::references::UsedReference;
use crate::types::{LimitKey, OfferKey, Policy, ShardSettings, Slot};

/// The running sum.
#[derive(Default)]
pub(crate) struct Running {
    sum: u128,
    pub(crate) dirty_offers: Vec<u32>,
    pub(crate) dirty_products: Vec<u32>,
    /// Room for an order's bytes, kept.
    order_bytes: Vec<u8>,
}

/// Seeds keep records of different kinds apart.
#[derive(Clone, Copy)]
enum Kind {
    Refused = 2,
    Offer = 3,
    Product = 4,
    Reference = 5,
    Kept = 6,
    Shard = 7,
    Order = 8,
}

#[derive(Default)]
struct Canon(Vec<u8>);

impl Canon {
    fn n(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }
    fn opt(&mut self, n: Option<u64>) {
        self.0.push(u8::from(n.is_some()));
        self.n(n.unwrap_or(0));
    }
    fn text(&mut self, text: &str) {
        self.n(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }
    fn offer_key(&mut self, key: &OfferKey) {
        self.text(key.sku.as_str());
        self.text(key.sale.as_ref().map_or("", |s| s.as_str()));
    }
    fn policy(&mut self, p: &Policy) {
        self.0.push(u8::from(p.open));
        self.opt(p.opens_at.map(|t| t.0));
        self.opt(p.closes_at.map(|t| t.0));
        self.opt(p.per_key_max.map(u64::from));
        self.n(p.per_order_min.into());
        self.n(p.per_order_max.into());
        self.n(p.hold_ms_default);
        self.n(p.hold_ms_max);
        self.n(p.low_stock_at);
        self.text(p.price.as_ref().map_or("", |p| p.as_str()));
    }
    fn money(&mut self, money: Option<Money>) {
        self.n(money.map_or(0, Money::minor));
        self.0.extend_from_slice(money.as_ref().map_or("", Money::currency).as_bytes());
    }
    fn opt_text(&mut self, text: Option<&str>) {
        self.0.push(u8::from(text.is_some()));
        self.text(text.unwrap_or(""));
    }
    fn order(&mut self, o: &Order) {
        self.0.extend_from_slice(&o.id);
        let counts = u64::from(o.epoch) | u64::from(o.attempts) << 32;
        let states = [o.phase() as u8, o.parked_from.map_or(0, |p| p as u8), o.ending as u8, o.standing as u8];
        let states = u64::from(u32::from_le_bytes(states)) | u64::from(o.suspect) << 32;
        let lost = u64::from(o.lost) | u64::from(o.head.place) << 32;
        let numbers = [o.fingerprint, o.placed_at, o.done_at, o.ready_at, o.due, o.reported, o.by_hand];
        for n in numbers.into_iter().chain([o.head.index, counts, states, lost]) {
            self.n(n);
        }
        let cold = o.cold();
        self.n(cold.sealed_hash);
        self.n(cold.generation.into());
        self.money(cold.amount);
        self.opt_text(cold.intent.as_ref().map(|t| t.as_str()));
        self.opt_text(cold.secret.as_ref().map(ClientSecret::as_str));
        self.opt_text(cold.worker.as_ref().map(|t| t.as_str()));
        self.n(cold.payments.len() as u64);
        for payment in &cold.payments {
            self.text(payment.id.as_str());
            self.money(payment.amount);
            self.0.push(payment.state as u8);
            self.opt_text(payment.refund.as_ref().map(|t| t.as_str()));
        }
        if let Some(linked) = cold.linked {
            self.0.extend_from_slice(linked.as_bytes());
        }
        match &cold.parked {
            None => self.0.push(0),
            Some(ParkReason::Worker(reason)) => self.opt_text(Some(reason.as_str())),
            Some(ParkReason::LeasesLost) => self.0.push(2),
            Some(ParkReason::UnknownOrder) => self.0.push(3),
        }
    }
    fn hash(&self, kind: Kind) -> u128 {
        xxh3_128_with_seed(&self.0, kind as u64)
    }
}

fn status_number(status: Option<Status>) -> u8 {
    match status.expect("only present records are digested") {
        Status::Held => 1,
        Status::Confirmed => 2,
        Status::Released => 3,
        Status::Expired => 4,
    }
}

/// Bytes of a reservation of one line; the fingerprint stands for its keys.
const FLAT: usize = 16 + 6 * 8 + 16;

/// Whole words at their own places: the hash reads words, and reading what was just written in other pieces stalls.
#[inline]
fn flat_bytes(r: &Reservation) -> [u8; FLAT] {
    let mut b = [0; FLAT];
    b[..16].copy_from_slice(&r.id);
    let place_and_status = u64::from(r.head_place) | u64::from(status_number(r.status)) << 16;
    let numbers = [r.fingerprint, r.reserved_at, r.deadline, r.ended_at, r.head_index, place_and_status];
    for (word, n) in b[16..64].chunks_exact_mut(8).zip(numbers) {
        word.copy_from_slice(&n.to_le_bytes());
    }
    b[64..].copy_from_slice(&line_bytes(&r.line));
    b
}

fn line_bytes(l: &LineRecord) -> [u8; 16] {
    let word = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let mut b = [0; 16];
    b[..8].copy_from_slice(&word(l.offer, l.reserved_bits));
    b[8..].copy_from_slice(&word(l.sold, l.returned));
    b
}

/// A reservation's part of the digest; `extra` is its extra part, if it has one.
#[inline]
pub(crate) fn canonical_reservation(r: &Reservation, extra: Option<&Extra>) -> u128 {
    let flat = flat_bytes(r);
    let Some(extra) = extra else { return xxh3_128(&flat) };
    let mut canon = Canon(flat.to_vec());
    for line in &extra.lines {
        canon.0.extend_from_slice(&line_bytes(line));
    }
    if let Some((replaces, hold_ms)) = extra.extended {
        canon.n(replaces);
        canon.n(hold_ms);
    }
    for returned in &extra.returns {
        canon.n(returned.name);
        canon.n(returned.fingerprint);
        canon.n(returned.units.into());
    }
    xxh3_128(&canon.0)
}

/// The part of a refusal or fence; `name` is that of an offer that does not exist, if it names one.
#[inline]
pub(crate) fn canonical_refused(r: &Refused, name: Option<&OfferKey>) -> u128 {
    let mut flat = [0; 46];
    flat[..16].copy_from_slice(&r.id);
    for (i, n) in [r.fingerprint(), r.at_coarse(), r.detail()].into_iter().enumerate() {
        flat[16 + 8 * i..24 + 8 * i].copy_from_slice(&n.to_le_bytes());
    }
    flat[40] = r.why as u8;
    flat[41] = r.key_index;
    if let Some(name) = name {
        let mut canon = Canon(flat.to_vec());
        canon.offer_key(name);
        return canon.hash(Kind::Refused);
    }
    flat[42..].copy_from_slice(&r.offer.to_le_bytes());
    xxh3_128_with_seed(&flat, Kind::Refused as u64)
}

/// An order's part; `room` is reused for its bytes.
pub(crate) fn canonical_order(order: &Order, room: &mut Vec<u8>) -> u128 {
    let mut canon = Canon(std::mem::take(room));
    canon.0.clear();
    canon.order(order);
    let part = canon.hash(Kind::Order);
    *room = canon.0;
    part
}

/// The part of a used reference.
pub(crate) fn canonical_reference(used: &UsedReference) -> u128 {
    let mut flat = [0; 16];
    flat[..8].copy_from_slice(&used.name.to_le_bytes());
    flat[8..].copy_from_slice(&(u64::from(used.content) | u64::from(used.used_at) << 32).to_le_bytes());
    xxh3_128_with_seed(&flat, Kind::Reference as u64)
}

/// An offer's part.
pub(crate) fn canonical_offer(number: u32, o: &Offer) -> u128 {
    let mut canon = Canon::default();
    canon.n(u64::from(number) | u64::from(o.product) << 32);
    canon.offer_key(&o.key);
    canon.policy(&o.policy);
    let phase = match o.phase {
        Phase::Before => 0,
        Phase::Within => 1,
        Phase::Over => 2,
    };
    for n in [o.version, o.created_as, o.available as u64, o.held, o.sold, o.ended.into(), o.ended_at, phase] {
        canon.n(n);
    }
    canon.hash(Kind::Offer)
}

/// A product's part.
pub(crate) fn canonical_product(number: u32, p: &Product) -> u128 {
    let mut canon = Canon::default();
    canon.n(u64::from(number) | u64::from(p.plain) << 32);
    canon.text(p.sku.as_str());
    for n in [p.received, p.adjusted as u64, p.returned, p.ever_sold, p.head.index, p.head.place.into()] {
        canon.n(n);
    }
    // Absent as long as no order was ever claimed.
    for n in p.turns.iter().filter(|_| p.turns.iter().any(|&turn| turn > 0)) {
        canon.n(*n);
    }
    canon.hash(Kind::Product)
}

/// The part of what forgotten reservations bought under a key in an offer.
pub(crate) fn canonical_kept(text: &LimitKey, offer: u32, units: u64) -> u128 {
    if units == 0 {
        return 0;
    }
    let mut canon = Canon::default();
    canon.text(text.as_str());
    canon.n(offer.into());
    canon.n(units);
    canon.hash(Kind::Kept)
}

/// What the digest has of the shard beside its records.
pub(crate) struct Shard<'a> {
    pub(crate) position: Position,
    pub(crate) time: u64,
    pub(crate) behaviour: u16,
    pub(crate) chain: u128,
    pub(crate) generation: u64,
    pub(crate) ranges: &'a [(Slot, Slot)],
    pub(crate) settings: &'a ShardSettings,
    pub(crate) forgotten_below: &'a [u64],
    pub(crate) reference_seed: u64,
    /// Counters of orders: sequence, turns, given by class, turn of strays.
    pub(crate) orders: [u64; 5],
}

/// The shard's part.
pub(crate) fn canonical_shard(shard: &Shard<'_>) -> u128 {
    let mut canon = Canon::default();
    let p = shard.position;
    for n in [p.incarnation, p.shard.into(), p.term, p.index, shard.time, shard.behaviour.into(), shard.generation] {
        canon.n(n);
    }
    canon.0.extend_from_slice(&shard.chain.to_le_bytes());
    for &(from, to) in shard.ranges {
        canon.n(from.get().into());
        canon.n(to.get().into());
    }
    let s = shard.settings;
    for n in [s.retain_sold_ms, s.retain_ended_ms, s.retain_refused_ms, s.remembered_max] {
        canon.n(n);
    }
    for &below in shard.forgotten_below {
        canon.n(below);
    }
    canon.n(shard.reference_seed);
    // Absent as long as no order was ever ready.
    for n in shard.orders.into_iter().filter(|_| shard.orders[0] > 0) {
        canon.n(n);
    }
    canon.hash(Kind::Shard)
}

impl State {
    /// Adds a reservation's part of the digest, or takes it out before the record changes or goes.
    #[inline]
    pub(crate) fn digest_reservation(&mut self, at: u32, present: bool) {
        let r = self.reservations.get(at);
        let part = self.canonical_reservation(r);
        self.digest.sum = if present { self.digest.sum.wrapping_add(part) } else { self.digest.sum.wrapping_sub(part) };
    }

    #[inline]
    fn canonical_reservation(&self, r: &Reservation) -> u128 {
        canonical_reservation(r, (r.extra != NONE).then(|| self.extras.get(r.extra)))
    }

    /// The same for a refusal or fence.
    pub(crate) fn digest_refused(&mut self, at: u32, present: bool) {
        let r = self.refused.get(at);
        let name = r.why.names_unknown().then(|| self.unknown_names.get(r.offer).0.as_ref().expect("present"));
        let part = canonical_refused(r, name);
        self.digest.sum = if present { self.digest.sum.wrapping_add(part) } else { self.digest.sum.wrapping_sub(part) };
    }

    /// The same for an order.
    pub(crate) fn digest_order(&mut self, at: u32, present: bool) {
        let part = canonical_order(self.orders.get(at), &mut self.digest.order_bytes);
        self.digest.sum = if present { self.digest.sum.wrapping_add(part) } else { self.digest.sum.wrapping_sub(part) };
    }

    /// The same for a used reference.
    pub(crate) fn digest_reference(&mut self, used: &UsedReference, present: bool) {
        let part = canonical_reference(used);
        self.digest.sum = if present { self.digest.sum.wrapping_add(part) } else { self.digest.sum.wrapping_sub(part) };
    }

    /// What forgotten reservations bought under a key changed.
    pub(crate) fn digest_kept(&mut self, key: u32, offer: u32, before: u64, after: u64) {
        let text = self.keys.text(key);
        let change = canonical_kept(text, offer, after).wrapping_sub(canonical_kept(text, offer, before));
        let sums = &mut self.sums[offer as usize];
        sums.kept_digest = sums.kept_digest.wrapping_add(change);
        sums.kept = sums.kept - before + after;
        self.digest.sum = self.digest.sum.wrapping_add(change);
    }

    /// A sale ended: so did all its counts.
    pub(crate) fn digest_kept_ended(&mut self, offer: u32) {
        let sums = &mut self.sums[offer as usize];
        sums.kept = 0;
        let gone = std::mem::take(&mut sums.kept_digest);
        self.digest.sum = self.digest.sum.wrapping_sub(gone);
    }

    /// An offer was removed.
    pub(crate) fn digest_offer_gone(&mut self, sums: &OfferSums) {
        assert_eq!(sums.kept_digest, 0, "a removed offer counts nothing");
        self.digest.sum = self.digest.sum.wrapping_sub(sums.digested);
    }

    /// A product is about to be removed; this is its plain offer.
    pub(crate) fn digest_product_gone(&mut self, plain: u32) {
        let sums = &mut self.sums[plain as usize];
        sums.product_dirty = false;
        let gone = std::mem::take(&mut sums.product_digested);
        self.digest.sum = self.digest.sum.wrapping_sub(gone);
    }

    fn fold_dirty(&mut self) {
        for at in std::mem::take(&mut self.digest.dirty_offers) {
            // One that was removed since is not; its number may have been given to another, which is noted itself.
            if !self.sums[at as usize].dirty {
                continue;
            }
            let part = canonical_offer(at, self.offers.get(at));
            let sums = &mut self.sums[at as usize];
            let old = std::mem::replace(&mut sums.digested, part);
            sums.dirty = false;
            self.digest.sum = self.digest.sum.wrapping_sub(old).wrapping_add(part);
        }
        for at in std::mem::take(&mut self.digest.dirty_products) {
            let Some(product) = self.products.try_get(at).filter(|p| self.sums[p.plain as usize].product_dirty) else {
                continue;
            };
            let part = canonical_product(at, product);
            let sums = &mut self.sums[product.plain as usize];
            let old = std::mem::replace(&mut sums.product_digested, part);
            sums.product_dirty = false;
            self.digest.sum = self.digest.sum.wrapping_sub(old).wrapping_add(part);
        }
    }

    fn shard_part(&self) -> u128 {
        canonical_shard(&Shard {
            position: self.position,
            time: self.time,
            behaviour: self.behaviour,
            chain: self.chain,
            generation: self.generation,
            ranges: &self.ranges,
            settings: &self.settings,
            forgotten_below: &self.forgotten_below,
            reference_seed: self.references.seed,
            orders: self.orders.counters(),
        })
    }

    /// The digest now.
    pub(crate) fn take_digest(&mut self) -> Digest {
        self.fold_dirty();
        Digest { index: self.position.index, value: self.digest.sum.wrapping_add(self.shard_part()) }
    }

    /// Takes the digest if it is due at this index, and keeps it. `time_before` is ledger time before the entry: when a digest
    /// is due depends on the log alone, so that replicas take it at the same indexes.
    pub(crate) fn digest_if_due(&mut self, time_before: u64) -> Option<Digest> {
        let passed = time_before / limits::DIGEST_EVERY_MS != self.time / limits::DIGEST_EVERY_MS;
        if !passed && !self.position.index.is_multiple_of(limits::DIGEST_EVERY) {
            return None;
        }
        let digest = self.take_digest();
        if self.digests.len() == limits::DIGESTS_KEPT {
            // A quiet shard takes hundreds by time from one 1,024th index to the next, a busy one the other way round.
            let by_time = |digest: &Digest| !digest.index.is_multiple_of(limits::DIGEST_EVERY);
            let goes = self.digests.iter().filter(|digest| by_time(digest)).count() > limits::DIGESTS_KEPT / 2;
            let oldest = self.digests.iter().position(|digest| by_time(digest) == goes);
            self.digests.remove(oldest.unwrap_or_default());
        }
        self.digests.push_back(digest);
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Entry, plain_line};
    use crate::ledger::Ledger;
    use crate::limits;
    use crate::order::{Fact, OrderDetails, ProviderId, Sealed};
    use crate::state::ids::Found;
    use crate::types::{LedgerTime, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units};

    /// The part that the reservation of a late payment has in the digest, when its order carried this limit key.
    fn part_of_linked(key: &str) -> u128 {
        let sku = Sku::new("shirt").expect("a SKU");
        let id = ReservationId::from_parts(Slot::of(&sku), 1_000_000, 1);
        let amount = Money::new(100, "EUR").expect("an amount");
        let sealed = Sealed::default;
        let details =
            OrderDetails { amount, pay_within_ms: 1_000, payment: sealed(), contact: sealed(), suspect: false };
        let keys = [LimitKey::new(key).expect("a key")].into_iter().collect();
        let lines = [plain_line(sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect();
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        let (units, reference) = (Units::new(5).expect("units"), Reference::new("r").expect("a reference"));
        let policy = Policy { per_key_max: Some(2), ..Policy::default() };
        let begin = vec![
            Command::OwnSlots { generation: 1, ranges: vec![all] },
            Command::CreateProduct { sku: sku.clone(), policy },
            Command::Receive { offer: OfferKey { sku, sale: None }, units, reference },
            Command::PlaceOrder { id, details: Box::new(details), reserve: Some((keys, lines)) },
        ];
        let payment = ProviderId::new("p").expect("an id");
        let paid = vec![Command::RecordFact { id, fact: Fact::Paid { payment, amount } }];
        let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
        ledger.apply(1, 1, &Entry { stamp: LedgerTime(1_000_000), commands: begin });
        ledger.apply(1, 2, &Entry { stamp: LedgerTime(1_010_000), commands: paid });
        let linked = ledger.order(id).and_then(|order| order.linked).expect("paid late, and given stock anew");
        let Some(Found::Reservation(at)) = ledger.state.find(linked) else { panic!("{linked} is remembered") };
        ledger.state.canonical_reservation(ledger.state.reservations.get(at))
    }

    #[test]
    fn digest_is_taken_as_time_passes_five_seconds_and_at_every_1024th_index() {
        let (mut ledger, mut copy) = (Ledger::new(1, 1, crate::IndexSeed(7)), Ledger::new(1, 1, crate::IndexSeed(9)));
        let mut taken = Vec::new();
        for (index, ms) in [(1, 100_000), (2, 104_999), (3, 105_000), (4, 105_001), (5, 119_999), (1_024, 119_999)] {
            let entry = Entry { stamp: LedgerTime(ms), commands: Vec::new() };
            let (applied, other) = (ledger.apply(1, index, &entry), copy.apply(1, index, &entry));
            assert_eq!(applied.digest, other.digest);
            taken.extend(applied.digest.map(|digest| digest.index));
        }
        assert_eq!(taken, [1, 3, 5, 1_024]);
    }

    #[test]
    fn digests_at_multiples_and_those_of_time_leave_room_for_each_other() {
        let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
        let (mut index, mut time, every) = (0, 0, limits::DIGEST_EVERY);
        let mut take = |times: u64, also_time: bool| {
            for _ in 0..times {
                match also_time {
                    // Ledger time passes, and the index stays below the next multiple.
                    true => (index, time) = (index + 1, time + limits::DIGEST_EVERY_MS),
                    false => index = (index / every + 1) * every,
                }
                ledger.apply(1, index, &Entry { stamp: LedgerTime(time), commands: Vec::new() });
            }
            let digests = ledger.digests();
            assert!(digests.windows(2).all(|pair| pair[0].index < pair[1].index), "oldest first");
            assert_eq!(digests.last().map(|digest| digest.index), Some(index));
            let at_multiples = digests.iter().filter(|digest| digest.index.is_multiple_of(every)).count();
            (at_multiples, digests.len() - at_multiples)
        };
        let half = limits::DIGESTS_KEPT / 2;
        assert_eq!(take(1_000, false), (limits::DIGESTS_KEPT, 0));
        assert_eq!(take(1_000, true), (half - 1, half + 1));
        assert_eq!(take(1_000, false), (half, half));
        assert_eq!(take(20, true), (half - 1, half + 1));
    }

    #[test]
    fn limit_keys_of_a_late_payments_reservation_are_in_the_digest() {
        assert_eq!(part_of_linked("ann"), part_of_linked("ann"));
        assert_ne!(part_of_linked("ann"), part_of_linked("bob"));
    }
}
