//! Fencing and forgetting: ids of long ago, ids that the cap pressed out, ids that must never execute.
//!
//! **Owns** what is asked of old ids. **Must never** fence an id whose answer is unknown. **Read next**: [`super::limits`].

use client_sdk::Outcome;
use rand::RngExt;

use super::journal::Journalled;
use super::stocked::plain;
use crate::history::Offer;

/// Milliseconds beyond which an id may be forgotten, with room on both sides.
const AGE_MS_MAX: u64 = 14_000;

/// One id of some age: reserved and ended at once, refused, or fenced; then asked again after others took its place.
pub(super) async fn old_ids(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let sku = skus[asking.rng.random_range(0..skus.len())].clone();
    let age_ms = asking.rng.random_range(0..AGE_MS_MAX);
    let mut want = asking.want(&Offer::plain(sku.as_str()), 1);
    want.id = asking.id_of_age(&sku, age_ms);
    if asking.rng.random_bool(0.3) {
        // More than there ever is: it is refused, and that is remembered.
        want.lines[0].quantity = 900_000;
    }
    match asking.rng.random_range(0..4) {
        0 => {
            // Never asked before: nothing of it is in doubt.
            if asking.fence(want.id).await.is_definite() && asking.rng.random_bool(0.5) {
                drop(asking.reserve(&want).await);
            }
        }
        1 => {
            if asking.reserve(&want).await.is_definite() {
                drop(asking.fence(want.id).await);
            }
        }
        _ => {
            if asking.get(&want).await.is_some() {
                drop(asking.release(want.id).await);
            }
        }
    }
    press_out(asking, &sku).await;
    match asking.rng.random_range(0..4) {
        0 => drop(asking.confirm(want.id, None).await),
        1 => drop(asking.release(want.id).await),
        _ => drop(asking.reserve(&want).await),
    }
}

/// More ids that end at once, for the cap.
async fn press_out(asking: &mut Journalled<'_>, sku: &str) {
    for _ in 0..asking.rng.random_range(0..4) {
        let age_ms = asking.rng.random_range(9_000..AGE_MS_MAX);
        let id = asking.id_of_age(sku, age_ms);
        if let Outcome::NotNow(_) = asking.fence(id).await {
            return;
        }
    }
}
