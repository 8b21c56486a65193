//! What limit keys count, recomputed.
//!
//! **What it is.** One table has a signed difference for each (key, offer) of a part: reservations add what counts of them, counters take away
//! what they count. What is left must be nothing.
//! **Owns** promise 7 in a frozen view. **Must never** count an offer whose sale has ended. **Read next**: [`super::stock`].

use xxhash_rust::xxh3::Xxh3;

use super::super::findings::id_text;
use super::stock::{Stock, Sums, counts, keys_of, lines_of};
use super::{Checking, part_of, parts};
use crate::digest;
use crate::outcome::Status;
use crate::state::keys::FrozenKeys;

/// What reservations say above what a counter does, in one offer under one key.
#[derive(Clone, Copy, Default)]
struct Difference {
    /// The key's place, and the offer's.
    pair: (u32, u32),
    /// Held beyond now, and bought.
    used: i64,
    /// Bought.
    bought: i64,
}

pub(super) const ENTRY_BYTES: usize = size_of::<Difference>();

/// One hash of texts of which no two lists give the same bytes.
pub(super) fn text_hash(texts: &[&str]) -> u128 {
    let mut hash = Xxh3::new();
    for text in texts {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.digest128()
}

impl Checking<'_> {
    /// `of_keys` is how often a reservation counts for a key in an offer.
    pub(super) fn limit_keys(&mut self, stock: &Stock<'_>, keys: &FrozenKeys, sums: &Sums, of_keys: u64) {
        if keys.places() == 0 && of_keys == 0 {
            return;
        }
        let counters = self.kept(keys, sums);
        self.totals.limit_counts = counters;
        let (more_named, more) = keys.more();
        self.findings.expect("limits", || "counters beyond the first".to_owned(), more_named, more);
        self.carried(stock, keys);
        let parts = parts(of_keys + counters, ENTRY_BYTES, self.table_bytes);
        let mean = (of_keys + counters) / parts;
        let mut table: Vec<Difference> = Vec::with_capacity((mean + mean / 16 + 64) as usize);
        for part in 0..parts {
            table.clear();
            self.fill(stock, keys, sums, (part, parts), &mut table);
            table.sort_unstable_by_key(|one| one.pair);
            for of_pair in table.chunk_by(|a, b| a.pair == b.pair) {
                let add = |sum: Difference, one: &Difference| Difference {
                    used: sum.used.wrapping_add(one.used),
                    bought: sum.bought.wrapping_add(one.bought),
                    ..*one
                };
                let all = of_pair.iter().fold(Difference::default(), add);
                if (all.used, all.bought) != (0, 0) {
                    self.differ(stock, keys, all);
                }
            }
        }
    }

    #[cold]
    fn differ(&mut self, stock: &Stock<'_>, keys: &FrozenKeys, all: Difference) {
        let (key, offer) = all.pair;
        let name = || {
            let text = keys.text(key).map_or("no key", |text| text.as_str());
            format!("{text} in {:?}", stock.offers.try_get(offer).map(|offer| &offer.key))
        };
        if all.bought != 0 {
            let what = || format!("bought by {}: the records have {} more than is kept", name(), all.bought);
            self.findings.add("limits", what);
        }
        if all.used != 0 {
            let what = || format!("counted for {}: the records have {} more than is kept", name(), all.used);
            self.findings.add("limits", what);
        }
    }

    /// The part of the digest that forgotten reservations have in the counters; answers how many counters count.
    fn kept(&mut self, keys: &FrozenKeys, sums: &Sums) -> u64 {
        let mut counters = 0;
        for count in keys.counts(self.time) {
            self.work.step();
            let Some(text) = keys.text(count.key).filter(|_| sums.is_known(count.offer)) else {
                let what =
                    || format!("a counter of key {} in offer {}, one of which is not there", count.key, count.offer);
                self.findings.add("limits", what);
                continue;
            };
            if !sums.is_ended(count.offer) {
                counters += 1;
                self.digest = self.digest.wrapping_add(digest::canonical_kept(text, count.offer, count.kept));
            }
        }
        counters
    }

    /// How many reservations carry each key: a range of keys at a time.
    fn carried(&mut self, stock: &Stock<'_>, keys: &FrozenKeys) {
        let at_once = (self.table_bytes / size_of::<u32>()).max(1) as u64;
        let places = u64::from(keys.places());
        let mut from = 0;
        while from < places {
            let until = places.min(from + at_once);
            let mut carried = vec![0_u32; (until - from) as usize];
            for (_, r) in stock.reservations.iter() {
                self.work.step();
                for key in keys_of(r, stock.extra_of(r)) {
                    if u64::from(key) >= places && from == 0 {
                        self.findings
                            .add("limits", || format!("{} carries key {key}, which is not there", id_text(&r.id)));
                    }
                    if (from..until).contains(&u64::from(key)) {
                        let times = &mut carried[(u64::from(key) - from) as usize];
                        *times = times.wrapping_add(1);
                    }
                }
            }
            let mut named = 0_u64;
            for (key, times) in keys.carried().filter(|(key, _)| (from..until).contains(&u64::from(*key))) {
                let counted = carried[(u64::from(key) - from) as usize];
                named += u64::from(counted > 0);
                self.findings.expect("limits", || format!("reservations that carry key {key}"), times, counted);
            }
            let used = carried.iter().filter(|&&times| times > 0).count() as u64;
            self.findings.expect("limits", || "keys that reservations carry".to_owned(), named, used);
            from = until;
        }
    }

    fn fill(
        &mut self,
        stock: &Stock<'_>,
        keys: &FrozenKeys,
        sums: &Sums,
        (part, parts): (u64, u64),
        table: &mut Vec<Difference>,
    ) {
        let hash = &self.hash;
        let is_in_part = |(key, offer): (u32, u32)| {
            let word = u64::from(key) << 32 | u64::from(offer);
            parts == 1 || part_of(hash.of(&word.to_le_bytes()), parts) == part
        };
        for (_, r) in stock.reservations.iter() {
            self.work.step();
            let live = r.status == Some(Status::Held) && r.deadline > self.time;
            let extra = stock.extra_of(r);
            for key in keys_of(r, extra) {
                for line in lines_of(r, extra).filter(|line| line.counted() && !sums.is_ended(line.offer)) {
                    let pair = (key, line.offer);
                    if counts(line, live) && is_in_part(pair) {
                        let bought = i64::from(line.sold) - i64::from(line.returned);
                        let held = if live { i64::from(line.reserved()) } else { 0 };
                        table.push(Difference { pair, used: held + bought, bought });
                    }
                }
            }
        }
        for count in keys.counts(self.time).filter(|count| !sums.is_ended(count.offer)) {
            self.work.step();
            let pair = (count.key, count.offer);
            if is_in_part(pair) {
                let but_kept = |units: u64| (units as i64).wrapping_sub(count.kept as i64).wrapping_neg();
                table.push(Difference { pair, used: but_kept(count.used), bought: but_kept(count.sold) });
            }
        }
    }
}
