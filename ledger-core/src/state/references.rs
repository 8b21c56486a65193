//! References of receive, adjust and allot: unique per product, remembered for [`limits::REFERENCE_KEPT_MS`].
//!
//! **What it is.** A queue in the order of use, so that the oldest is forgotten first, and an index by name. A reference is kept as a
//! seeded 64-bit hash of product and text, 32 bits of the fingerprint of what it was used for, and its time: 16 bytes, and
//! 12 in the index. The queue is a list of blocks, so that no step moves more than one block. References of returns
//! are kept with their reservations ([`super::records::Returned`]).
//! **Owns** the idempotency of stock movements. **Must never** forget a reference before its time.
//! **Read next**: [`crate::fingerprint`].

use std::collections::VecDeque;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::State;
use super::places::Places;
use super::seed::IndexHash;
use crate::limits;
use crate::outcome::{Bound, NotNow};
use crate::types::{Reference, Sku};

/// References of a block.
const BLOCK: usize = 4_096;
/// Tables of the index: one that grows moves so little of it.
const TABLES: usize = 1_024;
/// A reference has its number modulo this in the index.
const NUMBERS: u64 = 1 << 31;
const _: () = assert!((limits::REFERENCES_MAX as u64) < NUMBERS);

/// Coarse time of use: about a minute. It reaches as far as [`limits::LEDGER_TIME_MAX`] in 32 bits.
const COARSE_BITS: u32 = 16;
const _: () = assert!(limits::LEDGER_TIME_MAX >> COARSE_BITS <= u32::MAX as u64);

/// A used reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedReference {
    /// Of product and text, seeded.
    pub(crate) name: u64,
    /// Of what it was used for.
    pub(crate) content: u32,
    /// When, in coarse time.
    pub(crate) used_at: u32,
}

impl UsedReference {
    /// Whether it was used by then.
    pub(crate) fn is_of_time(&self, time: u64) -> bool {
        u64::from(self.used_at) <= time >> COARSE_BITS
    }
}

const _: () = assert!(size_of::<UsedReference>() == 16);

type Blocks = VecDeque<Arc<Vec<UsedReference>>>;

/// Used references as frozen.
pub(crate) struct FrozenReferences {
    blocks: Blocks,
    /// References of the first block that were forgotten.
    gone: usize,
}

impl FrozenReferences {
    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UsedReference> {
        self.blocks.iter().flat_map(|block| block.iter()).skip(self.gone)
    }
}

/// All of a shard, oldest first.
pub(crate) struct References {
    /// Of names. Part of the state: replicas agree on names, and two clusters do not.
    pub(crate) seed: u64,
    hash: IndexHash,
    /// Numbers of references: the first of the first block, the oldest, the next.
    base: u64,
    oldest: u64,
    next: u64,
    blocks: Blocks,
    index: Places,
}

impl References {
    pub(crate) fn new(seed: u64, hash: IndexHash) -> Self {
        let (base, oldest, next) = (0, 0, 0);
        Self { seed, hash, base, oldest, next, blocks: Blocks::new(), index: Places::new(TABLES) }
    }

    pub(crate) fn len(&self) -> usize {
        (self.next - self.oldest) as usize
    }

    /// References that the index knows, for the audit.
    pub(crate) fn indexed(&self) -> usize {
        self.index.len()
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK * size_of::<UsedReference>()) as u64 + self.index.bytes()
    }

    /// The name of a product's reference.
    fn name(&self, sku: &Sku, reference: &Reference) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        // A length first: no two pairs of texts give the same bytes.
        hash.update(&[sku.as_str().len() as u8]);
        hash.update(sku.as_str().as_bytes());
        hash.update(reference.as_str().as_bytes());
        hash.digest()
    }

    /// The name of a reference within one reservation.
    pub(crate) fn name_of_return(&self, reference: &Reference) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        hash.update(reference.as_str().as_bytes());
        hash.digest()
    }

    fn get(&self, number: u64) -> &UsedReference {
        let at = (number - self.base) as usize;
        &self.blocks[at / BLOCK][at % BLOCK]
    }

    /// The reference that the index has in this place.
    fn at(&self, place: u32) -> &UsedReference {
        let beyond = u64::from(place).wrapping_sub(self.oldest) % NUMBERS;
        self.get(self.oldest + beyond)
    }

    fn find(&self, name: u64) -> Option<UsedReference> {
        let found = self.index.find(self.hash.of(&name.to_le_bytes()), |place| self.at(place).name == name)?;
        Some(*self.at(found))
    }

    /// Adds the newest.
    fn push(&mut self, used: UsedReference) {
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push_back(Arc::new(Vec::with_capacity(BLOCK)));
        }
        let block = self.blocks.back_mut().expect("just made");
        match Arc::get_mut(block) {
            Some(own) => own.push(used),
            None => {
                let mut copy = Vec::with_capacity(BLOCK);
                copy.extend_from_slice(block);
                copy.push(used);
                *block = Arc::new(copy);
            }
        }
        let place = (self.next % NUMBERS) as u32;
        self.index.insert(self.hash.of(&used.name.to_le_bytes()), place);
        self.next += 1;
    }

    /// Takes the oldest out.
    fn pop(&mut self) -> Option<UsedReference> {
        let used = *self.first()?;
        self.index.remove(self.hash.of(&used.name.to_le_bytes()), (self.oldest % NUMBERS) as u32);
        self.oldest += 1;
        if self.oldest - self.base == BLOCK as u64 {
            self.blocks.pop_front();
            self.base = self.oldest;
        }
        Some(used)
    }

    fn first(&self) -> Option<&UsedReference> {
        (self.oldest < self.next).then(|| self.get(self.oldest))
    }

    /// The first time at which the oldest has this age; none without one.
    fn oldest_has_age(&self, age_ms: u64) -> Option<u64> {
        let used_before = (u64::from(self.first()?.used_at) + 1) << COARSE_BITS;
        Some(used_before.saturating_add(age_ms))
    }

    /// A frozen view; nothing is copied.
    pub(crate) fn freeze(&self) -> FrozenReferences {
        FrozenReferences { blocks: self.blocks.clone(), gone: (self.oldest - self.base) as usize }
    }
}

/// What tests of the audit break.
#[cfg(test)]
impl References {
    pub(crate) fn repeat_first(&mut self) {
        let first = *self.first().expect("there is one");
        self.push(first);
    }
    pub(crate) fn change_first(&mut self, change: impl FnOnce(&mut UsedReference)) {
        let block = Arc::make_mut(self.blocks.front_mut().expect("there is one"));
        change(&mut block[(self.oldest - self.base) as usize]);
    }
}

impl State {
    /// Whether the product's reference was used, and for this.
    pub(crate) fn reference_used_for(&self, sku: &Sku, reference: &Reference, fingerprint: u64) -> Option<bool> {
        if crate::bad!("apply-twice") {
            return None;
        }
        let used = self.references.find(self.references.name(sku, reference))?;
        Some(used.content == fingerprint as u32)
    }

    /// Whether one more can be remembered.
    ///
    /// # Errors
    /// The shard has all it may have, and the oldest is too young to be forgotten.
    pub(crate) fn must_have_room_for_reference(&self) -> Result<(), NotNow> {
        let is_young = |at: u64| at > self.time;
        let oldest = self.references.oldest_has_age(limits::REFERENCE_KEPT_MS_MIN);
        if self.references.len() >= self.bounds.references && oldest.is_some_and(is_young) {
            return Err(NotNow::RecordsFull { what: Bound::References, retry_ms: limits::RECORDS_RETRY_MS });
        }
        Ok(())
    }

    /// Remembers a use. The caller has seen that it is new, and that there is room.
    pub(crate) fn use_reference(&mut self, sku: &Sku, reference: &Reference, fingerprint: u64) {
        while self.references.len() >= self.bounds.references {
            self.forget_reference();
        }
        let used_at = (self.time >> COARSE_BITS) as u32;
        let name = self.references.name(sku, reference);
        let is_new = self.add_reference(UsedReference { name, content: fingerprint as u32, used_at });
        assert!(is_new || crate::bad!("apply-twice"), "reference {reference} of {sku} is new and the newest");
    }

    /// Adds one that was used at the same time as the newest, or later. False if it is there already, or is older.
    pub(crate) fn add_reference(&mut self, used: UsedReference) -> bool {
        let newest = self.references.next.checked_sub(1).filter(|&newest| newest >= self.references.oldest);
        let follows = newest.is_none_or(|newest| self.references.get(newest).used_at <= used.used_at);
        if !follows || self.references.find(used.name).is_some() {
            return false;
        }
        self.references.push(used);
        self.digest_reference(&used, true);
        true
    }

    fn forget_reference(&mut self) {
        if let Some(used) = self.references.pop() {
            self.digest_reference(&used, false);
        }
    }

    /// Forgets references whose time is over; a bounded number.
    pub(crate) fn forget_references(&mut self) {
        let kept_ms = if crate::bad!("reference-forgotten-early") { 1_000 } else { limits::REFERENCE_KEPT_MS };
        for _ in 0..limits::FORGOTTEN_PER_ENTRY_MAX {
            if self.references.oldest_has_age(kept_ms).is_none_or(|at| at > self.time) {
                return;
            }
            self.forget_reference();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::seed::IndexSeed;

    fn used(n: u64) -> UsedReference {
        UsedReference { name: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), content: n as u32, used_at: (n / 100) as u32 }
    }

    #[test]
    fn oldest_go_first_and_the_others_are_found_across_blocks_and_wrapped_numbers() {
        let mut references = References::new(7, IndexHash::new(IndexSeed(1)));
        // The numbers pass the largest that the index has.
        let start = NUMBERS - 5_000 - (NUMBERS - 5_000) % BLOCK as u64;
        (references.base, references.oldest, references.next) = (start, start, start);
        let (kept, all) = (10_000, 30_000);
        for n in 0..all {
            references.push(used(n));
            if n >= kept {
                assert_eq!(references.pop(), Some(used(n - kept)));
            }
        }
        assert_eq!((references.len() as u64, references.indexed() as u64), (kept, kept));
        for n in 0..all {
            assert_eq!(references.find(used(n).name), (n >= all - kept).then(|| used(n)), "{n}");
        }
        assert!(references.blocks.len() <= kept as usize / BLOCK + 2, "{} blocks", references.blocks.len());
    }

    #[test]
    fn a_frozen_view_stays_as_it_was() {
        let mut references = References::new(7, IndexHash::new(IndexSeed(1)));
        (0..5_000).for_each(|n| references.push(used(n)));
        (0..100).for_each(|n| assert_eq!(references.pop(), Some(used(n))));
        let frozen = references.freeze();
        (5_000..9_000).for_each(|n| references.push(used(n)));
        (100..4_600).for_each(|n| assert_eq!(references.pop(), Some(used(n))));
        assert!(frozen.iter().copied().eq((100..5_000).map(used)));
        assert!(references.freeze().iter().copied().eq((4_600..9_000).map(used)));
    }
}
