//! Limit keys and what they count.
//!
//! **What it is.** Every key text is stored once; the count of its first offer sits beside it, further ones in a table. A count is what
//! the key holds (by deadline, so that due holds drop out exactly, swept or not), what remembered reservations bought, and what
//! forgotten ones bought (`kept`, the only primary part).
//! Counts name offers by places of their own: an offer may be removed, and its number given to another, before the last of its counts is dropped.
//! **Owns** the counts of promise 7. **Must never** count an offer whose sale has ended: callers ask that first.
//! **Read next**: [`super::offers`].

mod frozen;

use super::blocks::Blocks;
use super::count::Count;
use super::places::Places;
use super::records::NONE;
use super::seed::IndexHash;
use super::slab::{FrozenSlab, Placed, Slab};
use crate::types::{LimitKey, text_bytes};

const TABLES: usize = 256;

/// A key's text, and the count of the first offer it was used in.
#[derive(Clone)]
pub(crate) struct KeyRecord {
    text: Option<LimitKey>,
    /// Reservations that carry it.
    carried: u32,
    /// Counts beyond the first, in the table.
    more: u32,
    first: Count,
}

impl Placed for KeyRecord {
    fn is_vacant(&self) -> bool {
        self.text.is_none()
    }
    fn vacant() -> Self {
        Self { text: None, carried: 0, more: 0, first: Count::empty() }
    }
    fn heap_bytes(&self) -> u64 {
        self.text.as_ref().map_or(0, |text| text_bytes(text.as_str()))
    }
}

/// A count of a key in an offer beyond its first.
#[derive(Clone)]
pub(crate) struct MoreCount {
    key: u32,
    count: Count,
}

impl Placed for MoreCount {
    fn is_vacant(&self) -> bool {
        self.key == NONE
    }
    fn vacant() -> Self {
        Self { key: NONE, count: Count::empty() }
    }
}

/// An offer, or what is left of one, that counts are in.
#[derive(Clone)]
struct Counted {
    /// Its number; none when the offer was removed.
    number: u32,
    /// Counters in it.
    counters: u64,
    /// Its sale has ended: they count for nothing, and are dropped a few an entry.
    ended: bool,
    present: bool,
}

impl Placed for Counted {
    fn is_vacant(&self) -> bool {
        !self.present
    }
    fn vacant() -> Self {
        Self { number: NONE, counters: 0, ended: false, present: false }
    }
}

/// Keys as frozen.
pub(crate) struct FrozenKeys {
    records: FrozenSlab<KeyRecord>,
    more: FrozenSlab<MoreCount>,
    offers: FrozenSlab<Counted>,
}

impl FrozenKeys {
    /// Every key's place and text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (u32, &LimitKey)> {
        self.records.iter().filter_map(|(at, key)| Some((at, key.text.as_ref()?)))
    }
    /// What forgotten reservations bought in sales that run: (key's place, offer, units).
    pub(crate) fn kept(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        let first = self.records.iter().map(|(at, r)| (at, &r.first));
        first
            .chain(self.more.iter().map(|(_, m)| (m.key, &m.count)))
            .filter(|(_, c)| c.kept > 0)
            .map(|(k, c)| (k, self.offers.get(c.offer), c.kept))
            .filter(|(_, offer, _)| !offer.ended)
            .map(|(k, offer, units)| (k, offer.number, units))
    }
}

pub(crate) struct Keys {
    hash: IndexHash,
    records: Slab<KeyRecord>,
    /// Places by text.
    index: Places,
    more: Slab<MoreCount>,
    /// Places of those by key and offer.
    more_index: Places,
    /// Bytes of holds that do not fit their counts.
    holds: usize,
    offers: Slab<Counted>,
    /// Their places by number.
    places: Blocks<u32>,
    counts: u64,
    /// Of those, the ones of ended sales, not dropped yet.
    ended: u64,
    /// Where dropping stands: (places of keys, places of further counts) still to look at.
    to_drop: (u32, u32),
    /// A sale ended since that began: all places are to be looked at once more.
    drop_again: bool,
}

/// A key that was looked up.
#[derive(Clone, Copy)]
pub(crate) struct Looked {
    hash: u64,
    /// Where it is, if anything carries or counts it.
    pub(crate) place: Option<u32>,
}

impl Looked {
    /// A key that has its place; it needs no other.
    pub(crate) fn at(place: u32) -> Self {
        Self { hash: 0, place: Some(place) }
    }
}

fn pair_hash(hash: &IndexHash, key: u32, offer: u32) -> u64 {
    hash.of(&(u64::from(key) << 32 | u64::from(offer)).to_le_bytes())
}

impl Keys {
    pub(crate) fn new(hash: IndexHash) -> Self {
        Self {
            hash,
            records: Slab::new(),
            index: Places::new(TABLES),
            more: Slab::new(),
            more_index: Places::new(TABLES),
            holds: 0,
            offers: Slab::new(),
            places: Blocks::new(),
            counts: 0,
            ended: 0,
            to_drop: (0, 0),
            drop_again: false,
        }
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let offers = self.offers.bytes() + (self.places.capacity() * size_of::<u32>()) as u64;
        let counts = self.more.bytes() + self.more_index.bytes() + self.holds as u64;
        self.records.bytes() + self.index.bytes() + counts + offers
    }

    /// Counters that count.
    pub(crate) fn counts(&self) -> u64 {
        self.counts - self.ended
    }

    /// An offer was created.
    pub(crate) fn add_offer(&mut self, offer: u32, ended: bool) {
        let place = self.offers.insert(Counted { number: offer, counters: 0, ended, present: true });
        self.places.put(offer as usize, place, || NONE);
    }

    /// An offer is removed. What is left of its counters is dropped over the next entries.
    pub(crate) fn remove_offer(&mut self, offer: u32) {
        let place = std::mem::replace(&mut self.places[offer as usize], NONE);
        let counted = self.offers.get_mut(place);
        counted.number = NONE;
        assert!(counted.ended || counted.counters == 0, "{} counters of an offer that runs", counted.counters);
        self.free_offer_if_unused(place);
    }

    fn free_offer_if_unused(&mut self, place: u32) {
        let counted = self.offers.get(place);
        if counted.number == NONE && counted.counters == 0 {
            self.offers.remove(place);
        }
    }

    /// Where counts in an offer say that they are.
    #[inline]
    fn counted_in(&self, offer: u32) -> u32 {
        self.places[offer as usize]
    }

    /// The sale ended: all counts in its offer end with it, now for every answer, and in memory over the next entries.
    pub(crate) fn end_offer(&mut self, offer: u32) {
        let counted = self.offers.get_mut(self.places[offer as usize]);
        counted.ended = true;
        self.ended += counted.counters;
        // One under way goes on to its end: begun anew by each sale that ends, it might never come to the first places.
        self.drop_again = true;
    }

    /// Drops counters of ended sales, looking at `max` places at most.
    pub(crate) fn drop_ended(&mut self, max: u32) {
        if self.to_drop == (0, 0) && std::mem::take(&mut self.drop_again) {
            self.to_drop = (self.records.places(), self.more.places());
        }
        let (keys, more) = self.to_drop;
        if self.ended == 0 || (keys == 0 && more == 0) {
            self.to_drop = (0, 0);
            return;
        }
        for at in (keys.saturating_sub(max)..keys).rev() {
            if let Some(offer) = self.records.try_get(at).map(|r| r.first.offer) {
                self.drop_if_ended(at, offer);
            }
        }
        for at in (more.saturating_sub(max)..more).rev() {
            if let Some((key, offer)) = self.more.try_get(at).map(|m| (m.key, m.count.offer)) {
                self.drop_if_ended(key, offer);
            }
        }
        self.to_drop = (keys.saturating_sub(max), more.saturating_sub(max));
    }

    fn drop_if_ended(&mut self, key: u32, offer: u32) {
        if offer != NONE && self.offers.get(offer).ended {
            self.change_count(key, offer, |count| *count = Count::of(offer));
            self.ended -= 1;
            self.drop_if_zero(key, offer);
        }
    }

    pub(crate) fn text(&self, key: u32) -> &LimitKey {
        self.records.get(key).text.as_ref().expect("a carried key has its text")
    }

    /// The hash of a key's text, for [`Self::touch`] and [`Self::likely`].
    #[inline]
    pub(crate) fn hash(&self, text: &LimitKey) -> u64 {
        self.hash.of(text.as_str().as_bytes())
    }

    #[inline]
    fn lookup(&self, text: &LimitKey, hash: u64) -> Option<u32> {
        self.index.find(hash, |at| self.records.get(at).text.as_ref().is_some_and(|t| t == text))
    }

    /// Looks a key up, once for all that is asked of it.
    #[inline]
    pub(crate) fn find(&self, text: &LimitKey) -> Looked {
        let hash = self.hash(text);
        Looked { hash, place: self.lookup(text, hash) }
    }

    /// Reads the word at which looking for a hash begins.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        self.index.touch(hash)
    }

    /// Where a key's record is, if it is indexed: by its hash alone, so that no record is read.
    #[inline]
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        self.index.find(hash, |_| true)
    }

    /// Touches all that deciding will read of a record.
    #[inline]
    pub(crate) fn touch_record(&self, key: u32) -> u64 {
        let record = self.records.get(key);
        // Its two ends: it may lie across two cache lines.
        record.first.sold ^ u64::from(record.carried) ^ u64::from(record.text.is_some())
    }

    /// Touches what lies behind a record.
    #[inline]
    pub(crate) fn touch_holds(&self, key: u32) -> u64 {
        self.records.get(key).first.touch()
    }

    /// One more reservation carries the key; it gets a place if it has none.
    pub(crate) fn carry(&mut self, text: &LimitKey, looked: Looked) -> u32 {
        let Some(key) = looked.place else { return self.place(text, looked.hash) };
        self.carry_again(key);
        key
    }

    /// One more reservation carries a key that has its place.
    pub(crate) fn carry_again(&mut self, key: u32) {
        self.records.get_mut(key).carried += 1;
    }

    /// Places a key that one reservation carries.
    fn place(&mut self, text: &LimitKey, hash: u64) -> u32 {
        let record = KeyRecord { text: Some(text.clone()), carried: 1, more: 0, first: Count::empty() };
        let key = self.records.insert(record);
        self.index.insert(hash, key);
        key
    }

    /// A reservation no longer carries the key.
    pub(crate) fn drop_carried(&mut self, key: u32) {
        let record = self.records.get_mut(key);
        record.carried = record.carried.checked_sub(1).expect("a carried key is dropped");
        self.free_if_unused(key);
    }

    fn free_if_unused(&mut self, key: u32) {
        let record = self.records.get(key);
        if record.carried > 0 || record.more > 0 || record.first.offer != NONE {
            return;
        }
        let text = record.text.as_ref().expect("present");
        let hash = self.hash.of(text.as_str().as_bytes());
        self.index.remove(hash, key);
        self.records.remove(key);
    }

    fn count(&self, key: u32, offer: u32) -> Option<&Count> {
        let record = self.records.get(key);
        if record.first.offer == offer {
            return Some(&record.first);
        }
        if record.more == 0 {
            return None;
        }
        Some(&self.more.get(self.find_more(key, offer)?).count)
    }

    fn find_more(&self, key: u32, offer: u32) -> Option<u32> {
        let is_it = |at: u32| {
            let m = self.more.get(at);
            m.key == key && m.count.offer == offer
        };
        self.more_index.find(pair_hash(&self.hash, key, offer), is_it)
    }

    fn count_mut(&mut self, key: u32, offer: u32) -> &mut Count {
        let (first, more) = {
            let record = self.records.get(key);
            (record.first.offer, record.more)
        };
        if first == offer {
            return &mut self.records.get_mut(key).first;
        }
        let found = if more > 0 { self.find_more(key, offer) } else { None };
        if let Some(at) = found {
            return &mut self.more.get_mut(at).count;
        }
        self.counts += 1;
        self.offers.get_mut(offer).counters += 1;
        let count = Count::of(offer);
        let record = self.records.get_mut(key);
        if first == NONE {
            record.first = count;
            return &mut record.first;
        }
        record.more += 1;
        let at = self.more.insert(MoreCount { key, count });
        self.more_index.insert(pair_hash(&self.hash, key, offer), at);
        &mut self.more.get_mut(at).count
    }

    /// Units that the key holds beyond `time` and has bought in the offer.
    #[inline]
    pub(crate) fn used(&self, key: u32, offer: u32, time: u64) -> u64 {
        let offer = self.counted_in(offer);
        self.count(key, offer).map_or(0, |count| count.used(time))
    }

    /// The same. Many holds that are due are dropped on the way, so that only the first question after a mass expiry looks at each; the
    /// counter stays until they are swept.
    #[inline]
    pub(crate) fn used_now(&mut self, key: u32, offer: u32, time: u64) -> u64 {
        let offer = self.counted_in(offer);
        let Some(count) = self.count(key, offer) else { return 0 };
        if !count.has_due_of_many(time) {
            return count.used(time);
        }
        self.change_count(key, offer, |count| {
            count.drop_due_of_many(time);
            count.used(time)
        })
    }

    /// Changes what a count holds.
    #[inline]
    fn change_count<T>(&mut self, key: u32, offer: u32, change: impl FnOnce(&mut Count) -> T) -> T {
        let count = self.count_mut(key, offer);
        let before = count.heap_bytes();
        let changed = change(count);
        let after = count.heap_bytes();
        self.holds = self.holds - before + after;
        changed
    }

    pub(crate) fn hold(&mut self, key: u32, offer: u32, until: u64, units: u32) {
        let offer = self.counted_in(offer);
        self.change_count(key, offer, |count| count.hold(until, units));
    }

    /// A live hold ended early.
    pub(crate) fn unhold(&mut self, key: u32, offer: u32, until: u64, units: u32) {
        let offer = self.counted_in(offer);
        self.change_count(key, offer, |count| count.unhold(until, units));
        self.drop_if_zero(key, offer);
    }

    /// Holds due by `time` are dropped from the count, if they still are in it.
    pub(crate) fn settle(&mut self, key: u32, offer: u32, time: u64) {
        let offer = self.counted_in(offer);
        if self.count(key, offer).is_some() {
            let time = if crate::bad!("count-dropped-while-held") { u64::MAX } else { time };
            self.change_count(key, offer, |count| count.settle(time));
            self.drop_if_zero(key, offer);
        }
    }

    pub(crate) fn buy(&mut self, key: u32, offer: u32, units: u32) {
        let offer = self.counted_in(offer);
        self.count_mut(key, offer).sold += u64::from(units);
    }

    pub(crate) fn bring_back(&mut self, key: u32, offer: u32, units: u32) {
        let offer = self.counted_in(offer);
        let count = self.count_mut(key, offer);
        count.sold = count.sold.checked_sub(u64::from(units)).expect("only what was bought is brought back");
        self.drop_if_zero(key, offer);
    }

    /// A reservation that bought so many is forgotten; the count is not. Returns what is kept before and after.
    pub(crate) fn keep(&mut self, key: u32, offer: u32, units: u64) -> (u64, u64) {
        let offer = self.counted_in(offer);
        let count = self.count_mut(key, offer);
        let before = count.kept;
        count.kept += units;
        assert!(count.kept <= count.sold, "kept {} of {} bought", count.kept, count.sold);
        (before, count.kept)
    }

    /// Puts back what forgotten reservations bought, from a snapshot; false when that was put back
    /// before.
    pub(crate) fn put_kept(&mut self, key: u32, offer: u32, units: u64) -> bool {
        let offer = self.counted_in(offer);
        let count = self.count_mut(key, offer);
        if count.kept > 0 {
            return false;
        }
        count.kept = units;
        count.sold += units;
        true
    }

    fn drop_if_zero(&mut self, key: u32, offer: u32) {
        let record = self.records.get(key);
        if record.first.offer == offer {
            if !record.first.is_zero() {
                return;
            }
            self.records.get_mut(key).first = Count::empty();
        } else {
            let at = self.find_more(key, offer).expect("the count was just touched");
            if !self.more.get(at).count.is_zero() {
                return;
            }
            self.more_index.remove(pair_hash(&self.hash, key, offer), at);
            self.more.remove(at);
            self.records.get_mut(key).more -= 1;
        }
        self.counts -= 1;
        self.offers.get_mut(offer).counters -= 1;
        self.free_offer_if_unused(offer);
        self.free_if_unused(key);
    }

    /// Every (key, offer, used beyond `time`, bought, kept) that counts, in no order; for the audit.
    pub(crate) fn iter(&self, time: u64) -> impl Iterator<Item = (u32, u32, u64, u64, u64)> {
        let first = self.records.iter().filter(|(_, r)| r.first.offer != NONE).map(|(at, r)| (at, &r.first));
        let more = self.more.iter().map(|(_, m)| (m.key, &m.count));
        let all = first.chain(more).map(|(key, c)| (key, self.offers.get(c.offer), c));
        let live = all.filter(|(_, offer, _)| !offer.ended);
        live.map(move |(key, offer, c)| (key, offer.number, c.used(time), c.sold, c.kept))
    }

    /// How many carry each key, for the audit.
    pub(crate) fn carried(&self) -> impl Iterator<Item = (u32, u32)> {
        self.records.iter().map(|(at, r)| (at, r.carried))
    }

    /// Whether places of keys and of further counts are free.
    #[cfg(test)]
    pub(crate) fn free_places(&self) -> [bool; 2] {
        let free = |len: usize, places: u32| len < places as usize;
        [free(self.records.len(), self.records.places()), free(self.more.len(), self.more.places())]
    }

    /// A frozen view; nothing is copied.
    pub(crate) fn freeze(&mut self) -> FrozenKeys {
        FrozenKeys { records: self.records.freeze(), more: self.more.freeze(), offers: self.offers.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::seed::IndexSeed;

    /// A key in one offer, with holds of 1, 2, 3 … units until 100, 110, 120 …
    fn holding(holds: u64) -> (Keys, u32) {
        let mut keys = Keys::new(IndexHash::new(IndexSeed(1)));
        keys.add_offer(0, false);
        let text = LimitKey::new("buyer").expect("a key");
        let looked = keys.find(&text);
        let key = keys.carry(&text, looked);
        (0..holds).for_each(|n| keys.hold(key, 0, 100 + 10 * n, n as u32 + 1));
        (keys, key)
    }

    #[test]
    fn however_many_holds_a_key_has_only_those_that_are_not_due_count() {
        for holds in 0..=9 {
            for time in (90..=200).step_by(5) {
                let live = |n: &u64| 100 + 10 * n > time;
                let expected: u64 = (0..holds).filter(live).map(|n| n + 1).sum();
                let (mut keys, key) = holding(holds);
                assert_eq!(keys.used(key, 0, time), expected, "{holds} holds at {time}");
                keys.settle(key, 0, time);
                assert_eq!(keys.used(key, 0, time), expected, "{holds} holds at {time}, settled");
                assert_eq!(keys.counts(), u64::from(expected > 0));
                // What is left ends early, and then nothing counts.
                for n in (0..holds).filter(live) {
                    keys.unhold(key, 0, 100 + 10 * n, n as u32 + 1);
                }
                assert_eq!((keys.used(key, 0, 0), keys.counts()), (0, 0), "{holds} holds at {time}, ended");
            }
        }
    }

    #[test]
    fn holds_until_the_same_time_are_one_and_end_in_any_parts() {
        for others in 0..=6 {
            let (mut keys, key) = holding(others);
            let before = keys.used(key, 0, 0);
            // Together they are more than one place has room for.
            keys.hold(key, 0, 500, u32::MAX - 1);
            keys.hold(key, 0, 500, 5);
            assert_eq!(keys.used(key, 0, 499), u64::from(u32::MAX) + 4, "the others are due");
            assert_eq!(keys.used(key, 0, 500), 0);
            keys.unhold(key, 0, 500, u32::MAX);
            keys.unhold(key, 0, 500, 4);
            assert_eq!(keys.used(key, 0, 0), before);
        }
    }

    #[test]
    fn counters_of_ended_sales_are_dropped_though_sales_end_faster_than_all_are_looked_at() {
        let mut keys = Keys::new(IndexHash::new(IndexSeed(1)));
        let (sales, buyers, looked_at) = (40, 300, 64);
        for sale in 0..sales {
            keys.add_offer(sale, false);
            for buyer in 0..buyers {
                let text = LimitKey::new(format!("buyer {sale} {buyer}")).expect("a key");
                let looked = keys.find(&text);
                let key = keys.carry(&text, looked);
                keys.buy(key, sale, 1);
                keys.keep(key, sale, 1);
                keys.drop_carried(key);
            }
        }
        // One ends an entry, while a look at all takes two hundred.
        for sale in 0..sales {
            keys.end_offer(sale);
            keys.remove_offer(sale);
            keys.drop_ended(looked_at);
        }
        assert_eq!(keys.counts(), 0, "none counts");
        for _ in 0..2 * sales * buyers / looked_at + 2 {
            keys.drop_ended(looked_at);
        }
        assert_eq!((keys.records.len(), keys.offers.len(), keys.counts), (0, 0, 0));
    }

    /// Keys whose hash without a secret stands in one table, in one eighth of it: as anybody can find who knows the hash.
    fn chosen_keys(count: usize) -> Vec<LimitKey> {
        let hash = |text: &str| xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let chosen = |text: &String| (hash(text) >> 40) & 1_023 == 7 && (hash(text) as u32) >> 29 == 3;
        let keys = (0..).map(|n: u64| format!("k{n:x}")).filter(chosen).take(count);
        keys.map(|text| LimitKey::new(text).expect("a key")).collect()
    }

    #[test]
    fn keys_chosen_to_collide_stand_in_short_runs() {
        let chosen = chosen_keys(500);
        let longest_run = |index: &mut Places, hash: &dyn Fn(&LimitKey) -> u64| {
            (0..).zip(&chosen).for_each(|(place, key)| index.insert(hash(key), place));
            index.longest_run()
        };
        let unkeyed = |key: &LimitKey| xxhash_rust::xxh3::xxh3_64(key.as_str().as_bytes());
        let run = longest_run(&mut Keys::new(IndexHash::new(IndexSeed(1))).index, &unkeyed);
        assert!(run >= 400, "the keys were chosen well: {run}");
        for seed in 1..20 {
            let mut keys = Keys::new(IndexHash::new(IndexSeed(seed)));
            for text in &chosen {
                let looked = keys.find(text);
                keys.carry(text, looked);
            }
            let run = keys.index.longest_run();
            assert!(run <= 16, "seed {seed}: {run} in one run");
        }
    }
}
