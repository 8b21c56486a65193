//! Limits on several keys at once: few accounts, addresses and cards, shared in every combination.
//!
//! **Owns** the keys. **Must never** count itself: the checkers do. **Read next**: [`super::returns`].

use rand::RngExt;

use super::buy::buy;
use super::journal::Journalled;
use super::stocked::{LIMITED, SALE};
use crate::history::Offer;

/// Reserves under one to four of a few keys, one of them perhaps twice; sometimes gives back what it bought.
pub(super) async fn several_keys(asking: &mut Journalled<'_>) {
    let offer = if asking.rng.random_bool(0.5) { Offer::of_sale(LIMITED, SALE) } else { Offer::plain(LIMITED) };
    let quantity = asking.rng.random_range(1..=2);
    let mut want = asking.want(&offer, quantity);
    want.keys = (0..asking.rng.random_range(1..=4))
        .map(|n| format!("{}-{}", ["account", "address", "card", "account"][n], asking.rng.random_range(0..3)))
        .collect();
    let id = want.id;
    buy(asking, want).await;
    if asking.rng.random_bool(0.3) {
        let reference = asking.name("back");
        let _told = asking.bring_back(id, None, &reference).await;
    }
}
