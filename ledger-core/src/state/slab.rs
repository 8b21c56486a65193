//! Chunked, copy-on-write storage addressed by `u32`.
//!
//! **What it is.** Records live in chunks of [`CHUNK`]. A chunk is owned until [`Slab::freeze`] shares it; the next write to a
//! shared chunk copies that chunk alone, or takes it back uncopied when the frozen view is gone. An owned chunk costs a
//! tag check to write, no atomic.
//! **Owns** placement and the free list. **Must never** give meaning to an index: places differ between replicas.
//! **Read next**: [`super::due`].

use std::sync::Arc;

/// Records a chunk holds: small enough to copy in about a microsecond, large enough that freezing five million takes milliseconds.
pub(crate) const CHUNK: usize = 128;

/// A record that can leave its place empty.
pub(crate) trait Placed: Clone {
    /// Whether the place is empty.
    fn is_vacant(&self) -> bool;
    /// An empty place.
    fn vacant() -> Self;
}

#[derive(Clone)]
enum Chunk<T> {
    Own(Vec<T>),
    Shared(Arc<Vec<T>>),
}

/// A frozen view of a slab.
pub(crate) struct FrozenSlab<T>(Vec<Arc<Vec<T>>>);

/// The slab.
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T: Placed> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Records present.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Places ever used.
    pub(crate) fn places(&self) -> u32 {
        let last = self.chunks.last().map_or(0, Self::filled);
        (self.chunks.len().saturating_sub(1) * CHUNK + last) as u32
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> &T {
        let (chunk, place) = (at as usize / CHUNK, at as usize % CHUNK);
        match &self.chunks[chunk] {
            Chunk::Own(records) => &records[place],
            Chunk::Shared(records) => &records[place],
        }
    }

    /// The record at a place that may have been emptied, or may never have been filled.
    pub(crate) fn try_get(&self, at: u32) -> Option<&T> {
        let (chunk, place) = (at as usize / CHUNK, at as usize % CHUNK);
        let records = match self.chunks.get(chunk)? {
            Chunk::Own(records) => records,
            Chunk::Shared(records) => &**records,
        };
        records.get(place).filter(|r| !r.is_vacant())
    }

    #[inline(always)]
    fn own(chunk: &mut Chunk<T>) -> &mut Vec<T> {
        if let Chunk::Shared(shared) = chunk {
            *chunk = Chunk::Own(Self::taken_back(shared));
        }
        match chunk {
            Chunk::Own(records) => records,
            Chunk::Shared(_) => unreachable!("just made its own"),
        }
    }

    /// The records of a shared chunk: themselves if the frozen view is gone, else a copy.
    #[cold]
    #[inline(never)]
    fn taken_back(shared: &mut Arc<Vec<T>>) -> Vec<T> {
        Arc::try_unwrap(std::mem::take(shared)).unwrap_or_else(|still_read| {
            let mut copy = Vec::with_capacity(CHUNK);
            copy.extend_from_slice(&still_read);
            copy
        })
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut T {
        let (chunk, place) = (at as usize / CHUNK, at as usize % CHUNK);
        &mut Self::own(&mut self.chunks[chunk])[place]
    }

    pub(crate) fn insert(&mut self, record: T) -> u32 {
        self.len += 1;
        if let Some(at) = self.free.pop() {
            *self.get_mut(at) = record;
            return at;
        }
        if self.chunks.last().is_none_or(|c| Self::filled(c) >= CHUNK) {
            self.chunks.push(Chunk::Own(Vec::with_capacity(CHUNK)));
        }
        let last = self.chunks.len() - 1;
        let records = Self::own(&mut self.chunks[last]);
        records.push(record);
        u32::try_from(last * CHUNK + records.len() - 1).expect("a slab holds fewer than 2^32 records")
    }

    fn filled(chunk: &Chunk<T>) -> usize {
        match chunk {
            Chunk::Own(records) => records.len(),
            Chunk::Shared(records) => records.len(),
        }
    }

    /// Takes the record out for a moment: the caller puts it, or another, back at once.
    pub(crate) fn replace(&mut self, at: u32) -> T {
        std::mem::replace(self.get_mut(at), T::vacant())
    }

    pub(crate) fn remove(&mut self, at: u32) -> T {
        let gone = std::mem::replace(self.get_mut(at), T::vacant());
        assert!(!gone.is_vacant(), "place {at} was emptied twice");
        self.free.push(at);
        self.len -= 1;
        gone
    }

    /// All records with their places, in order of places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(c, chunk)| {
            let records = match chunk {
                Chunk::Own(records) => records,
                Chunk::Shared(records) => &**records,
            };
            records.iter().enumerate().filter(|(_, r)| !r.is_vacant()).map(move |(p, r)| ((c * CHUNK + p) as u32, r))
        })
    }

    /// Shares every chunk; nothing is copied.
    pub(crate) fn freeze(&mut self) -> FrozenSlab<T> {
        let chunks = self.chunks.iter_mut().map(|chunk| {
            if let Chunk::Own(records) = chunk {
                *chunk = Chunk::Shared(Arc::new(std::mem::take(records)));
            }
            match chunk {
                Chunk::Shared(records) => records.clone(),
                Chunk::Own(_) => unreachable!("just shared"),
            }
        });
        FrozenSlab(chunks.collect())
    }
}

impl<T: Placed> FrozenSlab<T> {
    pub(crate) fn get(&self, at: u32) -> &T {
        &self.0[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// All records with the places they had.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.0.iter().enumerate().flat_map(|(c, records)| {
            records.iter().enumerate().filter(|(_, r)| !r.is_vacant()).map(move |(p, r)| ((c * CHUNK + p) as u32, r))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Placed for u64 {
        fn is_vacant(&self) -> bool {
            *self == u64::MAX
        }
        fn vacant() -> Self {
            u64::MAX
        }
    }

    #[test]
    fn a_frozen_view_does_not_see_later_writes() {
        let mut slab = Slab::new();
        for n in 0..300u64 {
            assert_eq!(slab.insert(n), n as u32);
        }
        let frozen = slab.freeze();
        *slab.get_mut(7) = 700;
        slab.remove(8);
        assert_eq!(slab.insert(800), 8, "an emptied place is used again");
        slab.insert(301);
        assert_eq!(frozen.iter().map(|(_, &n)| n).sum::<u64>(), (0..300).sum());
        assert_eq!(slab.iter().map(|(_, &n)| n).sum::<u64>(), (0..300).sum::<u64>() - 15 + 700 + 800 + 301);
        drop(frozen);
        *slab.get_mut(200) = 1;
        assert_eq!(*slab.get(200), 1);
        assert_eq!(slab.len(), 301);
    }
}
