//! Places of records by the hash of what names them.
//!
//! **What it is.** An open table of words, half a hash and a place each, with linear probing. What is looked for stands where its hash says,
//! or a few words on: a look-up, and the insertion that follows when nothing is found, wait for one cache line mostly (a table with
//! its tags apart, as hashbrown's, for two or three), and for no record but the one that is meant. A word's position rises with
//! its hash, so growing copies the words nearly in order. Many small tables, since growing one with millions of words at once
//! has cost a leader its leadership; a table that few words are left in gives its memory back.
//! **Owns** where a record is found. **Must never** be iterated for a decision. **Read next**: [`super::ids`], [`super::keys`].

use super::due::steps;

/// Words of the smallest table: a cache line.
const WORDS_MIN: usize = 8;
/// A table with fewer than one word in so many taken becomes smaller.
const SPARSE: usize = 8;

/// Places by hash. One hash may stand for several.
pub(crate) struct Places {
    tables: Vec<Table>,
    len: usize,
}

impl Places {
    /// An empty one of so many tables, a power of two.
    pub(crate) fn new(tables: usize) -> Self {
        assert!(tables.is_power_of_two(), "{tables} tables");
        Self { tables: (0..tables).map(|_| Table::default()).collect(), len: 0 }
    }

    /// Bytes that its places take: tables are two thirds full while they fill, and what was taken out is room for others.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len * size_of::<u64>() * 3 / 2 + self.tables.len() * size_of::<Table>()) as u64
    }

    /// Places in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The table of a hash: by other bits than those that it keeps.
    #[inline]
    fn table(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.tables.len() - 1)
    }

    /// Reads the word at which looking for the hash begins, and makes nothing of it.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        let table = &self.tables[self.table(hash)];
        table.words.get(table.home(hash as u32)).copied().unwrap_or(FREE)
    }

    /// The first place under the hash that `is_it`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let table = &self.tables[self.table(hash)];
        table.find(hash as u32, is_it).map(|at| place(table.words[at]))
    }

    /// Adds a place that is not under the hash yet.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, place: u32) {
        let table = self.table(hash);
        self.tables[table].insert(hash as u32, place);
        self.len += 1;
    }

    /// The most words that one look-up may have to walk over.
    #[cfg(test)]
    pub(crate) fn longest_run(&self) -> usize {
        let run = |table: &Table| table.words.split(|&word| word == FREE).map(<[u64]>::len).max();
        self.tables.iter().filter_map(run).max().unwrap_or(0)
    }

    /// Takes a place out.
    ///
    /// # Panics
    /// If it is not under the hash.
    pub(crate) fn remove(&mut self, hash: u64, place: u32) {
        let table = self.table(hash);
        self.tables[table].remove(hash as u32, place);
        self.len -= 1;
    }
}

/// A word that is nothing. Others are half a hash, and one more than a place.
const FREE: u64 = 0;

#[inline]
fn word(hash: u32, place: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(place.checked_add(1).expect("fewer than 2^32 records"))
}
#[inline]
fn hash(word: u64) -> u32 {
    (word >> 32) as u32
}
#[inline]
fn place(word: u64) -> u32 {
    word as u32 - 1
}

#[derive(Default)]
struct Table {
    words: Vec<u64>,
    taken: usize,
}

impl Table {
    /// Where looking for a hash begins.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.words.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.words.len() { 0 } else { at + 1 }
    }

    /// How far `to` lies behind `from`, round the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.words.len() - from }
    }

    #[inline]
    fn find(&self, wanted: u32, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mut at = self.home(wanted);
        loop {
            let word = *self.words.get(at)?;
            if word == FREE {
                return None;
            }
            if hash(word) == wanted && is_it(place(word)) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn insert(&mut self, hash: u32, place: u32) {
        if 4 * (self.taken + 1) > 3 * self.words.len() {
            self.resize(self.words.len() * 3 / 2);
        }
        self.taken += 1;
        self.put(word(hash, place));
    }

    #[inline]
    fn put(&mut self, word: u64) {
        let mut at = self.home(hash(word));
        while self.words[at] != FREE {
            at = self.next(at);
        }
        self.words[at] = word;
    }

    #[cold]
    #[inline(never)]
    fn resize(&mut self, words: usize) {
        let wanted = words.next_multiple_of(WORDS_MIN).max(WORDS_MIN);
        steps::moved(self.words.len());
        let before = std::mem::replace(&mut self.words, vec![FREE; wanted]);
        before.into_iter().filter(|&word| word != FREE).for_each(|word| self.put(word));
    }

    fn remove(&mut self, hash_of_it: u32, it: u32) {
        let found = self.find(hash_of_it, |place| place == it);
        let mut hole = found.unwrap_or_else(|| panic!("place {it} is not indexed"));
        // Whatever looking for would now stop at the hole moves into it.
        let mut at = self.next(hole);
        while self.words[at] != FREE {
            let home = self.home(hash(self.words[at]));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.words[hole] = self.words[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.words[hole] = FREE;
        self.taken -= 1;
        if SPARSE * self.taken < self.words.len() && self.words.len() > WORDS_MIN {
            self.resize(2 * self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::random;

    #[test]
    fn what_was_put_is_found_and_what_was_taken_is_not_however_hashes_crowd() {
        // Hashes all over; in a few heaps; at the very end, so that they go on at the beginning; all the same.
        let hashes: [fn(u64) -> u64; 4] =
            [|r| r, |r| ((r % 5) << 29) | (r % 3), |r| u64::from(u32::MAX) - r % 4, |_| 7];
        for hash_of in hashes {
            let (mut state, mut places) = (1, Places::new(2));
            let mut model = std::collections::BTreeMap::<u32, u64>::new();
            for round in 0..3_000_u32 {
                let r = random(&mut state);
                // Grows at first, shrinks at last.
                let gone =
                    if r % 100 < u64::from(round / 40) { model.iter().next().map(|(&p, &h)| (p, h)) } else { None };
                if let Some((place, hash)) = gone {
                    model.remove(&place);
                    places.remove(hash, place);
                } else {
                    let (place, hash) = ((round * 7_919) % 10_007, hash_of(random(&mut state)));
                    model.insert(place, hash);
                    places.insert(hash, place);
                }
                if round % 16 == 0 {
                    for (&place, &hash) in &model {
                        assert_eq!(places.find(hash, |p| p == place), Some(place));
                    }
                    let absent = hash_of(random(&mut state));
                    assert_eq!(places.find(absent, |p| !model.contains_key(&p)), None);
                }
            }
            let left = places.tables.iter().map(|t| t.words.iter().filter(|&&w| w != FREE).count()).sum::<usize>();
            assert_eq!(left, model.len());
            model.iter().for_each(|(&place, &hash)| places.remove(hash, place));
            assert!(places.tables.iter().all(|t| t.taken == 0 && t.words.iter().all(|&w| w == FREE)));
        }
    }

    #[test]
    fn tables_grow_and_shrink_one_at_a_time_and_give_their_memory_back() {
        let records = 300_000_u32;
        let (mut state, mut places) = (1, Places::new(256));
        let hashes: Vec<u64> = (0..records).map(|_| random(&mut state)).collect();
        let words = |places: &Places| places.tables.iter().map(|table| table.words.len()).sum::<usize>();
        steps::taken_moves();
        let mut most = 0;
        for (place, &hash) in (0..).zip(&hashes) {
            places.insert(hash, place);
            most = most.max(steps::taken_moves());
        }
        let peak = words(&places);
        for (place, &hash) in (0..).zip(&hashes) {
            assert!(places.find(hash, |found| found == place).is_some());
            places.remove(hash, place);
            most = most.max(steps::taken_moves());
        }
        assert!(most <= 2 * peak / 256, "{most} words of {peak} were moved for one record");
        assert_eq!(words(&places), 256 * WORDS_MIN, "of {peak}");
    }

    #[test]
    #[should_panic(expected = "place 9 is not indexed")]
    fn a_place_that_is_not_there_cannot_be_taken_out() {
        let mut places = Places::new(1);
        places.insert(1, 8);
        places.remove(1, 9);
    }
}
