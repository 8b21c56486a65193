//! Chunked, copy-on-write storage addressed by `u32`.
//!
//! **What it is.** Records live in chunks of [`CHUNK`]. A chunk is owned until [`Slab::freeze`] shares it; the next write to a
//! shared chunk copies that chunk alone, or takes it back uncopied when the frozen view is gone. An owned chunk costs a
//! tag check to write, no atomic. New records go to the chunk that lost one last, so that others run empty after a peak; an
//! empty chunk gives its memory back.
//! Owners whose records must have the same places on all replicas choose them ([`Slab::insert_at`]).
//! **Owns** placement and what is vacant. **Must never** give meaning to a place that it chose: those differ between replicas.
//! **Read next**: [`super::due`].

use std::sync::Arc;

/// Records a chunk holds: small enough to copy in about a microsecond, large enough that freezing five million takes milliseconds.
pub(crate) const CHUNK: usize = 128;

/// A bit for each place of a chunk.
type Places = u128;
const _: () = assert!(CHUNK == Places::BITS as usize);

/// A record that can leave its place empty.
pub(crate) trait Placed: Clone {
    /// Whether the place is empty.
    fn is_vacant(&self) -> bool;
    /// An empty place.
    fn vacant() -> Self;
    /// Bytes that it takes beside its place; only [`Slab::change`] may change them.
    fn heap_bytes(&self) -> u64 {
        0
    }
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
    /// The records of each: as many as its highest place ever taken since it was empty.
    chunks: Vec<Chunk<T>>,
    /// The vacant places of each.
    vacant: Vec<Places>,
    /// The chunks with vacant places, each once; the last one takes the next record.
    partial: Vec<u32>,
    /// Memory of a chunk that ran empty last, so that one record which comes and goes costs no allocation each time.
    spare: Vec<T>,
    len: usize,
    /// [`Placed::heap_bytes`] of all records.
    heap: u64,
}

impl<T: Placed> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), vacant: Vec::new(), partial: Vec::new(), spare: Vec::new(), len: 0, heap: 0 }
    }

    /// Records present.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that its records take. Vacant places among them are room for others.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len * size_of::<T>()) as u64 + self.heap
    }

    /// No record has a place from here on.
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
        self.heap += record.heap_bytes();
        let chunk = match self.partial.last() {
            Some(&chunk) => chunk as usize,
            None => {
                let chunk = u32::try_from(self.chunks.len()).expect("a slab has fewer than 2^32 records");
                self.chunks.push(Chunk::Own(Vec::new()));
                self.vacant.push(Places::MAX);
                self.partial.push(chunk);
                chunk as usize
            }
        };
        let place = self.vacant[chunk].trailing_zeros() as usize;
        self.vacant[chunk] &= self.vacant[chunk] - 1;
        if self.vacant[chunk] == 0 {
            self.partial.pop();
        }
        let records = Self::own(&mut self.chunks[chunk]);
        if place < records.len() {
            records[place] = record;
        } else {
            if records.capacity() == 0 {
                *records = std::mem::take(&mut self.spare);
                records.reserve_exact(CHUNK);
            }
            records.push(record);
        }
        u32::try_from(chunk * CHUNK + place).expect("a slab holds fewer than 2^32 records")
    }

    /// Puts a record into a vacant place of the owner's choice: all of a slab's records, or none, come this way.
    pub(crate) fn insert_at(&mut self, at: u32, record: T) {
        let (chunk, place) = (at as usize / CHUNK, at as usize % CHUNK);
        while self.chunks.len() <= chunk {
            self.chunks.push(Chunk::Own(Vec::new()));
            self.vacant.push(Places::MAX);
        }
        assert!(self.vacant[chunk] & 1 << place != 0, "place {at} is vacant");
        self.vacant[chunk] &= !(1 << place);
        if self.vacant[chunk] == 0 {
            self.partial.retain(|&partial| partial as usize != chunk);
        }
        self.len += 1;
        self.heap += record.heap_bytes();
        let records = Self::own(&mut self.chunks[chunk]);
        if records.capacity() == 0 {
            *records = std::mem::take(&mut self.spare);
            records.reserve_exact(CHUNK);
        }
        while records.len() <= place {
            records.push(T::vacant());
        }
        records[place] = record;
    }

    fn filled(chunk: &Chunk<T>) -> usize {
        match chunk {
            Chunk::Own(records) => records.len(),
            Chunk::Shared(records) => records.len(),
        }
    }

    /// Changes a record, and with it the bytes that it takes beside its place.
    pub(crate) fn change(&mut self, at: u32, change: impl FnOnce(&mut T)) {
        let record = self.get_mut(at);
        let before = record.heap_bytes();
        change(record);
        let after = record.heap_bytes();
        self.heap = self.heap - before + after;
    }

    /// Takes the record out for a moment: the caller puts it, or another, back at once.
    pub(crate) fn replace(&mut self, at: u32) -> T {
        std::mem::replace(self.get_mut(at), T::vacant())
    }

    pub(crate) fn remove(&mut self, at: u32) -> T {
        let gone = std::mem::replace(self.get_mut(at), T::vacant());
        assert!(!gone.is_vacant(), "place {at} was emptied twice");
        self.heap -= gone.heap_bytes();
        let (chunk, place) = (at as usize / CHUNK, at as usize % CHUNK);
        if self.vacant[chunk] == 0 {
            self.partial.push(chunk as u32);
        }
        self.vacant[chunk] |= 1 << place;
        self.len -= 1;
        if self.vacant[chunk] == Places::MAX {
            self.free(chunk);
        }
        gone
    }

    /// Gives back the memory of a chunk without records.
    #[cold]
    fn free(&mut self, chunk: usize) {
        self.spare = std::mem::take(Self::own(&mut self.chunks[chunk]));
        self.spare.clear();
    }

    /// Places that it takes memory for.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        let of_chunk = |chunk: &Chunk<T>| match chunk {
            Chunk::Own(records) => records.capacity(),
            Chunk::Shared(records) => records.capacity(),
        };
        self.chunks.iter().map(of_chunk).sum::<usize>() + self.spare.capacity()
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

    /// The record at a place that may be empty, or beyond all others.
    #[inline]
    pub(crate) fn try_get(&self, at: u32) -> Option<&T> {
        self.0.get(at as usize / CHUNK)?.get(at as usize % CHUNK).filter(|r| !r.is_vacant())
    }

    /// No record has a place from here on.
    pub(crate) fn places(&self) -> u32 {
        let last = self.0.last().map_or(0, |records| records.len());
        (self.0.len().saturating_sub(1) * CHUNK + last) as u32
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

    #[test]
    fn memory_of_a_peak_comes_back_and_every_place_is_used_again() {
        let mut slab = Slab::new();
        let peak = 100 * CHUNK as u64;
        let places: Vec<u32> = (0..peak).map(|n| slab.insert(n)).collect();
        assert_eq!(places, (0..peak as u32).collect::<Vec<_>>(), "in order while nothing was removed");
        // One in a thousand stays: as records that are kept longer than the others.
        let stays = |at: u32| at % 1_000 == 999;
        places.iter().filter(|&&at| !stays(at)).for_each(|&at| {
            assert_eq!(slab.remove(at), u64::from(at));
        });
        let kept = places.iter().filter(|&&at| stays(at)).count();
        assert_eq!(slab.len(), kept);
        assert!(slab.allocated() <= (kept + 1) * CHUNK, "{} places for {kept} records", slab.allocated());
        assert_eq!(
            slab.iter().map(|(at, _)| at).collect::<Vec<_>>(),
            (0..peak as u32).filter(|&at| stays(at)).collect::<Vec<_>>()
        );
        assert_eq!(slab.try_get(0), None, "its chunk is gone");
        // What comes next fills what is there before it takes more.
        let again: std::collections::BTreeSet<u32> = (0..peak - kept as u64).map(|n| slab.insert(n)).collect();
        assert!(again.len() == peak as usize - kept && again.iter().all(|&at| u64::from(at) < peak && !stays(at)));
        assert_eq!(slab.insert(7), peak as u32);
    }

    #[test]
    fn records_at_places_of_their_owner_come_and_go_and_leave_nothing() {
        let mut slab = Slab::new();
        (0..2 * CHUNK as u32).for_each(|at| slab.insert_at(at, u64::from(at)));
        for n in 0..1_000_u32 {
            let at = n % (2 * CHUNK as u32);
            assert_eq!(slab.remove(at), u64::from(at));
            slab.insert_at(at, u64::from(at));
        }
        assert_eq!((slab.len(), slab.partial.len()), (2 * CHUNK, 0));
        assert!(slab.iter().all(|(at, &record)| record == u64::from(at)));
    }

    #[test]
    fn record_that_comes_and_goes_takes_no_memory_each_time() {
        let mut slab = Slab::new();
        let at = slab.insert(1_u64);
        slab.remove(at);
        let memory = slab.spare.as_ptr();
        for n in 0..10 {
            let at = slab.insert(n);
            assert_eq!((slab.get(at), slab.spare.capacity()), (&n, 0));
            slab.remove(at);
            assert_eq!(slab.spare.as_ptr(), memory);
        }
    }

    #[test]
    fn chunk_that_runs_empty_under_a_frozen_view_stays_in_the_view() {
        let mut slab = Slab::new();
        (0..CHUNK as u64).for_each(|n| assert_eq!(slab.insert(n), n as u32));
        let frozen = slab.freeze();
        (0..CHUNK as u32).for_each(|at| assert_eq!(slab.remove(at), u64::from(at)));
        assert_eq!((slab.len(), frozen.iter().count()), (0, CHUNK));
        assert_eq!(slab.insert(5), 0);
        assert_eq!(*frozen.get(0), 0);
        // It is empty again, and shared so.
        slab.remove(0);
        let empty = slab.freeze();
        assert_eq!((slab.insert(6), empty.iter().count()), (0, 0));
        assert_eq!((slab.remove(0), slab.allocated()), (6, CHUNK));
    }
}
