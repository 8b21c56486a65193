//! A vector in blocks: one that grows moves none of what it has.
//!
//! A vector of a million records that doubles copies all of them within one entry, which all callers wait for.
//! **Owns** nothing but its values. **Must never** move a block. **Read next**: [`super::offers`].

use std::ops::{Index, IndexMut};

/// Values of a block.
const BLOCK: usize = 256;

/// Values by number.
pub(crate) struct Blocks<T>(Vec<Vec<T>>);

impl<T> Blocks<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Values that it has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.0.len() * BLOCK
    }

    /// Puts a value at a number; `empty` makes those in between that it does not have yet.
    pub(crate) fn put(&mut self, at: usize, value: T, mut empty: impl FnMut() -> T) {
        while self.0.len() <= at / BLOCK {
            self.0.push(Vec::new());
        }
        let block = &mut self.0[at / BLOCK];
        if block.is_empty() {
            block.reserve_exact(BLOCK);
        }
        while block.len() <= at % BLOCK {
            block.push(empty());
        }
        block[at % BLOCK] = value;
    }
}

impl<T> Index<usize> for Blocks<T> {
    type Output = T;
    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.0[at / BLOCK][at % BLOCK]
    }
}

impl<T> IndexMut<usize> for Blocks<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.0[at / BLOCK][at % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_where_they_were_put_and_growing_moves_none() {
        let mut blocks = Blocks::new();
        blocks.put(700, 7, || 0);
        let first: *const i32 = &blocks[700];
        for at in 0..300_000_usize {
            if at != 700 {
                blocks.put(at, at as i32, || -1);
            }
        }
        blocks[5] += 10;
        assert_eq!((blocks[0], blocks[5], blocks[700], blocks[299_999]), (0, 15, 7, 299_999));
        assert!(std::ptr::eq(first, &blocks[700]), "it did not move");
        assert_eq!(blocks.capacity(), 300_000_usize.next_multiple_of(BLOCK));
    }
}
