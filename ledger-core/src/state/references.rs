//! References of receive, adjust, allot and return: unique per product, remembered as long as the product.
//!
//! Stored as a 128-bit hash of product and reference beside the fingerprint of what it was used for: 40 bytes a use.
//! **Owns** the idempotency of stock movements. **Must never** forget one. **Read next**: [`crate::fingerprint`].

use xxhash_rust::xxh3::Xxh3;

use super::State;
use super::records::UsedReference;
use super::seed::IndexHash;
use crate::limits;
use crate::outcome::{Bound, Refusal};
use crate::types::{Reference, Sku};

fn name_of(sku: &Sku, reference: &Reference) -> [u64; 2] {
    let mut hash = Xxh3::new();
    // A length first: no two pairs of texts give the same bytes.
    hash.update(&[sku.as_str().len() as u8]);
    hash.update(sku.as_str().as_bytes());
    hash.update(reference.as_str().as_bytes());
    let name = hash.digest128();
    [name as u64, (name >> 64) as u64]
}

/// Names and fingerprints are hashes without a secret, so that replicas agree on them; where they stand in an index is not.
fn name_hash(hash: &IndexHash, [low, high]: [u64; 2]) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    hash.of(&bytes)
}

fn fingerprint_hash(hash: &IndexHash, fingerprint: u64) -> u64 {
    hash.of(&fingerprint.to_le_bytes())
}

impl State {
    /// What the product's reference was used for.
    pub(crate) fn find_reference(&self, sku: &Sku, reference: &Reference) -> Option<UsedReference> {
        if crate::bad!("apply-twice") {
            return None;
        }
        let name = name_of(sku, reference);
        let found =
            self.reference_index.find(name_hash(&self.hash, name), |at| self.references.get(at).name == name)?;
        Some(*self.references.get(found))
    }

    /// How many units a return brought that had this reference and content, whatever became of its reservation since.
    pub(crate) fn find_return(&self, fingerprint: u64, reference: &Reference) -> Option<u64> {
        let is_it = |at: u32| {
            let used = self.references.get(at);
            used.fingerprint == fingerprint && used.name == name_of(&self.products.get(used.product).sku, reference)
        };
        let found = self.return_index.find(fingerprint_hash(&self.hash, fingerprint), is_it)?;
        Some(self.references.get(found).units)
    }

    /// Whether products can take one more reference each.
    ///
    /// # Errors
    /// One has all it may have, or the shard.
    pub(crate) fn must_have_room_for_references(&self, products: &[u32]) -> Result<(), Refusal> {
        let max = limits::REFERENCES_PER_PRODUCT_MAX;
        if products.iter().any(|&product| u64::from(self.products.get(product).references) >= max) {
            return Err(Refusal::TooMany { what: Bound::ReferencesPerProduct, max });
        }
        let max = self.bounds.references;
        if self.references.len() + products.len() > max {
            return Err(Refusal::TooMany { what: Bound::References, max: max as u64 });
        }
        Ok(())
    }

    /// Remembers a use. The caller has seen that it is new.
    pub(crate) fn use_reference(&mut self, product: u32, reference: &Reference, fingerprint: u64, units: u64) {
        let name = name_of(&self.products.get(product).sku, reference);
        self.add_reference(UsedReference { name, fingerprint, units, product });
        self.product_mut(product).references += 1;
    }

    /// Adds and indexes it.
    pub(crate) fn add_reference(&mut self, used: UsedReference) {
        let at = self.references.insert(used);
        self.digest_reference(&used);
        self.reference_index.insert(name_hash(&self.hash, used.name), at);
        if used.units > 0 {
            self.return_index.insert(fingerprint_hash(&self.hash, used.fingerprint), at);
        }
    }
}
