//! What the state takes in memory, by kind.
//!
//! **What it is.** Slabs, tables and queues know their bytes; what records have elsewhere is counted as they come and go. Asking costs the
//! same however many records there are. Places that records left are not counted: they are room for others. A test compares the sum
//! with what the allocator gave. Not counted are chunks that were copied under a frozen view.
//! **Owns** which part counts as which kind. **Must never** decide anything: replicas differ in what they take. **Read next**:
//! [`super::slab`].

use super::State;
use super::due::in_a_tree;
use super::offers::OfferSums;
use crate::view::MemoryUse;

impl State {
    pub(crate) fn memory_use(&self) -> MemoryUse {
        let [ended, refused, by_id] = self.memory.bytes();
        let offers = self.offers.bytes() + (self.offers.len() * size_of::<OfferSums>()) as u64;
        let deadlines = (in_a_tree(self.offer_deadlines) * size_of::<(u64, u64)>()) as u64;
        // Both maps have names, short ones in their places.
        let names = in_a_tree((self.by_sku.len() + 2 * self.by_sale.len()) * size_of::<crate::types::Sku>()) as u64;
        MemoryUse {
            reservations: self.reservations.bytes() + self.extras.bytes() + self.expiry.bytes() + deadlines + ended,
            refusals: self.refused.bytes() + self.unknown_names.bytes() + refused,
            ids: self.ids.bytes() + by_id,
            orders: self.orders.bytes(),
            limit_keys: self.keys.bytes(),
            references: self.references.bytes(),
            products: self.products.bytes() + offers + self.offer_index.bytes() + names,
        }
    }
}
