//! Which product a change is about.
//!
//! **Owns** nothing. **Must never** decide. **Read next**: [`super::watch`].

use ledger_core::ChangeKind;
use ledger_core::types::{Sku, Slot};

/// Whether a change is about a product.
pub fn concerns_product(kind: &ChangeKind, sku: &Sku) -> bool {
    let products = kind.products();
    if products.is_empty() {
        // Extensions and changes of orders name no product, only their slot: rather one too many than one lost.
        return kind.reservation().is_some_and(|id| id.slot() == Slot::of(sku));
    }
    products.contains(&sku)
}
