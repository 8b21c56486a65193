//! Deliveries under references that come again: from several clients, after restarts, with the same and with other content.
//!
//! **Owns** the references. **Must never** mint a reference that only one client uses. **Read next**: [`super::read`].

use rand::RngExt;

use super::journal::Journalled;
use super::stocked::plain;
use crate::history::Offer;

/// One delivery out of a list that all clients share.
pub(super) async fn same_references(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let n = asking.rng.random_range(0..6u64);
    let offer = Offer::plain(skus[n as usize % skus.len()].as_str());
    // Now and then one more: the reference is taken by then, or it is this one that is taken later.
    let units = 1 + n + u64::from(asking.rng.random_bool(0.1));
    let _told = asking.receive(&offer, units, &format!("delivery {n}")).await;
}
