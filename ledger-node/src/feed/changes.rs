//! Which product a change is about.
//!
//! **Owns** nothing. **Must never** decide. **Read next**: [`super::watch`].

use ledger_core::ChangeKind;
use ledger_core::types::{Sku, Slot};

/// Whether a change is about a product.
pub fn concerns_product(kind: &ChangeKind, sku: &Sku) -> bool {
    use ChangeKind as K;
    match kind {
        K::ProductCreated { sku: of, .. } | K::UnitsAllotted { sku: of, .. } => of == sku,
        K::OfferPut { offer, .. }
        | K::OfferOpened { offer }
        | K::OfferClosed { offer }
        | K::SaleStarted { offer, .. }
        | K::SaleEnded { offer, .. }
        | K::UnitsReceived { offer, .. }
        | K::UnitsAdjusted { offer, .. }
        | K::StockLow { offer, .. }
        | K::SoldOut { offer, .. } => offer.sku == *sku,
        K::InventoryReserved { lines, .. }
        | K::ReservationReleased { lines, .. }
        | K::ReservationExpired { lines, .. }
        | K::UnitsReturned { lines, .. } => lines.iter().any(|line| line.line.offer.sku == *sku),
        K::ReservationConfirmed { lines, given_back, .. } => {
            lines.iter().chain(given_back).any(|line| line.line.offer.sku == *sku)
        }
        // It names no product, only its slot: rather one too many than one lost.
        K::ReservationExtended { id, .. } => id.slot() == Slot::of(sku),
        // Neither do the changes of orders.
        order => order.order().is_some_and(|id| id.slot() == Slot::of(sku)),
    }
}
