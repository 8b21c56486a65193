//! Keepers of the stock: adjustments, allotments, sales opened, closed and ended, terms changed.
//!
//! **Owns** what moves without a reservation. **Must never** change a limit while it counts. **Read next**: [`super::import`].

use client_sdk::Outcome;
use rand::RngExt;

use super::journal::Journalled;
use super::stocked::{ENDING, SALE, plain, policy};
use crate::history::Offer;

/// One act of a keeper.
pub(super) async fn keep_stock(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let n = asking.rng.random_range(0..skus.len().min(2));
    let sku = skus[n].as_str();
    let sale = [None, None, Some(SALE), Some(ENDING)][asking.rng.random_range(0..4)];
    let offer = Offer { sku: sku.to_owned(), sale: sale.map(str::to_owned) };
    let reference = asking.name("keeper");
    match asking.rng.random_range(0..20) {
        0..8 => {
            let delta = [-3, -1, 1, 2, 5][asking.rng.random_range(0..5)];
            let told = asking.adjust(&offer, delta, &reference, None).await;
            if let Some(stocked) = told.ok() {
                // Compare-and-set, sometimes on a version that has moved; and the same reference again, or taken.
                let version = stocked.version + u64::from(asking.rng.random_bool(0.3));
                let reference = if asking.rng.random_bool(0.3) { reference } else { asking.name("keeper") };
                drop(asking.adjust(&offer, 1, &reference, Some(version)).await);
            }
        }
        8..14 => {
            let units = asking.rng.random_range(1..=4);
            let to = [None, Some(SALE), Some(ENDING)][asking.rng.random_range(0..3)];
            let told = asking.allot(sku, sale, to, units, &reference).await;
            if !matches!(told, Outcome::Refused(_)) {
                drop(asking.allot(sku, sale, to, units, &reference).await);
            }
        }
        14..17 => {
            if asking.set_open(&offer, false).await.is_definite() {
                asking.pause(60).await;
            }
            while !asking.set_open(&offer, true).await.is_definite() {
                asking.pause(100).await;
            }
        }
        17..19 => {
            let Some(Some(seen)) = asking
                .client
                .product(sku)
                .await
                .ok()
                .map(|p| p.and_then(|p| p.offers.into_iter().find(|o| Offer::from(&o.offer) == offer)))
            else {
                return;
            };
            let changed =
                client_sdk::Policy { per_order_max: asking.rng.random_range(2..=6), ..policy(asking.load, &offer) };
            drop(asking.put(&offer, changed, Some(seen.version)).await);
        }
        _ => end(asking, &Offer::of_sale(sku, ENDING)).await,
    }
}

/// Ends a sale, now and then while a unit is held in it: that hold lives on, and is confirmed, released or expires as any other.
async fn end(asking: &mut Journalled<'_>, offer: &Offer) {
    let want = asking.want(offer, 1);
    let held = match asking.rng.random_bool(0.5) {
        true => asking.get(&want).await.is_some(),
        false => false,
    };
    drop(asking.end_sale(offer).await);
    match asking.rng.random_range(0..3) {
        0 if held => drop(asking.confirm(want.id, None).await),
        1 if held => drop(asking.release(want.id).await),
        _ => {}
    }
}
