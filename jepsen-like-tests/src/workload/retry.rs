//! The same ids again: with the same content, which must be answered as before, and with other content, which must be told apart.
//!
//! **Owns** what is asked twice. **Must never** fence what is in doubt. **Read next**: [`super::forget`].

use rand::RngExt;

use super::journal::Journalled;
use super::stocked::plain;
use crate::history::{Line, Offer};

/// Reserves, and then asks everything again in some order.
pub(super) async fn again(asking: &mut Journalled<'_>) {
    let skus = plain(asking.load);
    let sku = skus[asking.rng.random_range(0..skus.len())].clone();
    let quantity = asking.rng.random_range(1..=2);
    let want = asking.want(&Offer::plain(sku), quantity);
    let _first = asking.reserve(&want).await;
    for _ in 0..asking.rng.random_range(2..=5) {
        match asking.rng.random_range(0..9) {
            0..3 => drop(asking.reserve(&want).await),
            3 => {
                let mut other = want.clone();
                match asking.rng.random_range(0..3) {
                    0 => other.lines[0].quantity += 1,
                    1 => other.keys.push("another".to_owned()),
                    _ => other.hold_ms = other.hold_ms.map(|ms| ms + 1),
                }
                drop(asking.reserve(&other).await);
            }
            4 => {
                // The same content in other words: the lines in two parts, a key twice.
                let mut same = want.clone();
                let line = same.lines[0].clone();
                if line.quantity > 1 {
                    same.lines =
                        vec![Line { quantity: 1, ..line.clone() }, Line { quantity: line.quantity - 1, ..line }];
                }
                same.keys.push(same.keys[0].clone());
                drop(asking.reserve(&same).await);
            }
            5 => drop(asking.confirm(want.id, None).await),
            6 => {
                let one = [Line { quantity: 1, ..want.lines[0].clone() }];
                drop(asking.confirm(want.id, Some(&one)).await);
            }
            7 => drop(asking.release(want.id).await),
            _ => asking.pause(300).await,
        }
    }
}
