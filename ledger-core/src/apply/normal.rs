//! Lines in normal form: the same offer summed, sorted by offer.
//!
//! **Owns** what the lines of a command mean. **Must never** lose a unit: sums are made in 64 bits and checked.
//! **Read next**: `reserve`.

use smallvec::SmallVec;

use crate::limits;
use crate::outcome::Refusal;
use crate::types::{Line, OfferKey};

/// A line of a command: its offer, its units, and where the offer is, if it exists.
#[derive(Clone, Copy)]
pub(super) struct Normal<'a> {
    pub(super) offer: &'a OfferKey,
    pub(super) quantity: u32,
    pub(super) at: Option<u32>,
}

pub(super) type NormalLines<'a> = SmallVec<[Normal<'a>; 1]>;

/// Sums and sorts; `find` tells where an offer is.
///
/// # Errors
/// [`Refusal::QuantityTooLarge`] for the first offer whose sum is above the bound of a quantity.
#[inline]
pub(super) fn normalise<'a>(
    lines: &'a [Line],
    find: impl Fn(&OfferKey) -> Option<u32>,
) -> Result<NormalLines<'a>, Refusal> {
    let mut normal = NormalLines::new();
    if let [line] = lines {
        normal.push(Normal { offer: &line.offer, quantity: line.quantity.get(), at: find(&line.offer) });
        return Ok(normal);
    }
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_unstable_by_key(|line| &line.offer);
    for same in sorted.chunk_by(|a, b| a.offer == b.offer) {
        let offer = &same[0].offer;
        let sum: u64 = same.iter().map(|line| u64::from(line.quantity.get())).sum();
        let quantity = u32::try_from(sum).ok().filter(|&n| n <= limits::QUANTITY_MAX);
        let quantity = quantity.ok_or_else(|| Refusal::QuantityTooLarge { offer: offer.clone() })?;
        normal.push(Normal { offer, quantity, at: find(offer) });
    }
    Ok(normal)
}
