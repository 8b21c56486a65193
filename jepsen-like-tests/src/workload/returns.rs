//! Sold units come back: in whole, in part, twice under one reference, and under a reference that is taken.
//!
//! **Owns** the returns. **Must never** bring back what is in doubt without saying so. **Read next**: [`super::keep`].

use rand::RngExt;

use super::journal::Journalled;
use super::stocked::plain;
use crate::history::{Line, Offer};

/// Buys, and brings back in some order.
pub(super) async fn sell_and_return(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let sku = skus[asking.rng.random_range(0..skus.len())].clone();
    let quantity = asking.rng.random_range(1..=4);
    let want = asking.want(&Offer::plain(sku), quantity);
    if asking.get(&want).await.is_none() || !asking.confirm(want.id, None).await.is_definite() {
        return;
    }
    let mut reference = asking.name("back");
    for _ in 0..asking.rng.random_range(1..=4) {
        let part = asking.rng.random_bool(0.6).then(|| {
            let quantity = asking.rng.random_range(1..=want.lines[0].quantity + 1);
            vec![Line { quantity, ..want.lines[0].clone() }]
        });
        let _told = asking.bring_back(want.id, part.as_deref(), &reference).await;
        if asking.rng.random_bool(0.3) {
            let _told_again = asking.bring_back(want.id, part.as_deref(), &reference).await;
        }
        if asking.rng.random_bool(0.6) {
            reference = asking.name("back");
        }
    }
}
