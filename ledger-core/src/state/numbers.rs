//! Numbers of offers and products.
//!
//! **What it is.** Other records, the digest and snapshots name an offer by its number, so replicas must agree on it: a new one gets
//! the lowest number that is free. That is a function of the numbers in use, and they are part of a snapshot.
//! **Owns** which number is free. **Must never** depend on how the numbers in use came about. **Read next**: [`super::offers`].

use std::collections::BTreeSet;

/// Free numbers at the end that one step gives up at most.
const GIVEN_UP: usize = 64;

/// Which numbers are free.
#[derive(Default)]
pub(crate) struct Numbers {
    /// All from here on are free...
    end: u32,
    /// ... and these.
    free: BTreeSet<u32>,
}

impl Numbers {
    /// Takes the lowest free number.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    /// Takes this number, which lies above all that are in use; false if it does not.
    pub(crate) fn take_above(&mut self, number: u32) -> bool {
        if number < self.end {
            return false;
        }
        self.free.extend(self.end..number);
        self.end = number + 1;
        true
    }

    /// The number is free again.
    pub(crate) fn give(&mut self, number: u32) {
        assert!(number < self.end && self.free.insert(number), "number {number} of {} is free", self.end);
        for _ in 0..GIVEN_UP {
            if !self.end.checked_sub(1).is_some_and(|last| self.free.remove(&last)) {
                return;
            }
            self.end -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_a_function_of_those_in_use() {
        let (mut state, mut numbers, mut used) = (1, Numbers::default(), BTreeSet::new());
        for round in 0..2_000 {
            let r = crate::state::random(&mut state);
            // More are taken at first, more are given back at last.
            if r % 100 < 95 - round / 25 || used.is_empty() {
                let number = numbers.take();
                assert_eq!(Some(number), (0..).find(|n| !used.contains(n)), "of {used:?}");
                used.insert(number);
            } else {
                let gone = *used.iter().nth(r as usize / 100 % used.len()).expect("there are so many");
                used.remove(&gone);
                numbers.give(gone);
            }
            let mut read = Numbers::default();
            assert!(used.iter().all(|&number| read.take_above(number)));
            let mut copy = Numbers { end: numbers.end, free: numbers.free.clone() };
            assert_eq!([read.take(), read.take(), read.take()], [copy.take(), copy.take(), copy.take()]);
        }
        used.iter().for_each(|&number| numbers.give(number));
        (0..100).for_each(|_| {
            let number = numbers.take();
            numbers.give(number);
        });
        assert_eq!((numbers.end, numbers.free.len()), (0, 0), "nothing is kept of numbers that are all free");
    }
}
