//! Buyers: a herd on one product, many products and sales, carts of several lines.
//!
//! **Owns** what a buyer does with what it got. **Must never** give up an unknown before it asked again. **Read next**: [`super::churn`].

use rand::RngExt;

use super::journal::{Journalled, Want};
use super::stocked::{CART, ENDING, SALE, plain};
use crate::history::{Line, Offer};

/// Nearly everybody wants the one hot product.
pub(super) async fn herd(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let n = if asking.rng.random_bool(0.9) { 0 } else { asking.rng.random_range(0..skus.len()) };
    let quantity = asking.rng.random_range(1..=3);
    let want = asking.want(&Offer::plain(skus[n].as_str()), quantity);
    buy(asking, want).await;
}

/// Any product, in a sale or not, under the offer's own hold time or a named one.
pub(super) async fn many(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let sku = &skus[asking.rng.random_range(0..skus.len())];
    // Beyond the second product nothing is in a sale: the refusal is an answer too.
    let offer = match asking.rng.random_range(0..10) {
        0..3 => Offer::of_sale(sku, SALE),
        3 => Offer::of_sale(sku, ENDING),
        _ => Offer::plain(sku),
    };
    let quantity = asking.rng.random_range(1..=4);
    let mut want = asking.want(&offer, quantity);
    if asking.rng.random_bool(0.3) {
        want.hold_ms = None;
    }
    buy(asking, want).await;
}

/// Several lines of one slot, sometimes the same offer twice, sometimes a product of another slot.
pub(super) async fn cart(asking: &mut Journalled<'_>) {
    let quantity = asking.rng.random_range(1..=2);
    let mut want = asking.want(&Offer::plain(CART[0]), quantity);
    for _ in 0..asking.rng.random_range(1..=3) {
        let sku = CART[asking.rng.random_range(0..CART.len())];
        let quantity = asking.rng.random_range(1..=3);
        want.lines.push(Line { offer: Offer::plain(sku), quantity });
    }
    if asking.rng.random_bool(0.05) {
        want.lines.push(Line { offer: Offer::plain("sku-0"), quantity: 1 });
    }
    buy(asking, want).await;
}

/// Reserves, and confirms in whole or in part, releases, extends or abandons what it got.
pub(super) async fn buy(asking: &mut Journalled<'_>, want: Want) {
    let Some(held) = asking.get(&want).await else { return };
    if asking.rng.random_bool(0.3) {
        let within = asking.load.hold_ms_max / 2;
        asking.pause(within).await;
    }
    let mut deadline = held.deadline;
    if asking.rng.random_bool(0.2) {
        let hold_ms = asking.hold_ms();
        if let Some(longer) = asking.extend(want.id, deadline, hold_ms).await.ok() {
            deadline = longer.deadline;
        }
        if asking.rng.random_bool(0.2) {
            // The same again, or one that names a deadline of long ago.
            let _told = asking.extend(want.id, deadline, hold_ms).await;
        }
    }
    let part = part_of(asking, &want);
    let chance = asking.rng.random_range(0..10);
    for _ in 0..3 {
        let sure = match chance {
            0..5 => asking.confirm(want.id, part.as_deref()).await.is_definite(),
            5..7 => asking.release(want.id).await.is_definite(),
            // Abandoned: it has to expire by itself.
            _ => true,
        };
        if sure {
            break;
        }
    }
}

/// Now and then only a part is bought.
fn part_of(asking: &mut Journalled<'_>, want: &Want) -> Option<Vec<Line>> {
    if !asking.rng.random_bool(0.25) {
        return None;
    }
    let line = want.lines[asking.rng.random_range(0..want.lines.len())].clone();
    let quantity = asking.rng.random_range(1..=line.quantity);
    Some(vec![Line { quantity, ..line }])
}
