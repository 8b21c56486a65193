//! Fingerprints of normalised content: same id or reference and same fingerprint is the same command again.
//!
//! xxh3-128 over the codec's bytes of the normalised parts, the lower half kept. Frozen: golden values in tests pin it, since states and snapshots
//! hold fingerprints of commands long gone.
//! **Owns** what *same content* means: keys as a sorted set, lines summed and sorted, the hold time; the version that an adjustment
//! compares is not content. **Must never** change. **Read next**: [`crate::apply`].

use xxhash_rust::xxh3::xxh3_128;

use crate::codec::orders;
use crate::codec::primitives::Out;
use crate::order::{ByHand, OrderDetails, ProviderId, Report};
use crate::types::{LimitKey, OfferKey, Policy, Reason, ReservationId, SaleId, Sku};

/// One normalised line.
pub(crate) type Summed<'a> = (&'a OfferKey, u32);

/// A buffer that fingerprints are made in, kept so that none is allocated a command.
#[derive(Default)]
pub(crate) struct Fingerprints {
    buffer: Vec<u8>,
}

impl Fingerprints {
    fn of(&mut self, verb: u8, put: impl FnOnce(&mut Out<'_>)) -> u64 {
        self.buffer.clear();
        let mut out = Out::new(&mut self.buffer);
        out.byte(verb);
        put(&mut out);
        xxh3_128(&self.buffer) as u64
    }

    #[inline]
    pub(crate) fn reserve<'a>(
        &mut self,
        keys: &[LimitKey],
        lines: impl ExactSizeIterator<Item = Summed<'a>>,
        hold_ms: Option<u64>,
    ) -> u64 {
        self.of(1, |out| {
            put_keys(out, keys);
            put_lines(out, lines);
            out.opt(hold_ms, Out::n);
        })
    }

    /// A return of these lines of a reservation; no lines means all that is still sold.
    pub(crate) fn bring_back<'a>(
        &mut self,
        id: ReservationId,
        lines: Option<impl ExactSizeIterator<Item = Summed<'a>>>,
    ) -> u64 {
        self.of(2, |out| {
            out.id(id);
            out.opt(lines, put_lines);
        })
    }

    pub(crate) fn policy(&mut self, policy: &Policy) -> u64 {
        self.of(3, |out| out.policy(policy))
    }

    pub(crate) fn receive(&mut self, offer: &OfferKey, units: u64) -> u64 {
        self.of(4, |out| {
            out.offer(offer);
            out.n(units);
        })
    }

    pub(crate) fn adjust(&mut self, offer: &OfferKey, delta: i64, reason: &Reason) -> u64 {
        self.of(5, |out| {
            out.offer(offer);
            out.signed(delta);
            out.text(reason.as_str());
        })
    }

    pub(crate) fn allot(&mut self, sku: &Sku, from: Option<&SaleId>, to: Option<&SaleId>, units: u64) -> u64 {
        self.of(6, |out| {
            out.text(sku.as_str());
            out.opt(from, |out, sale| out.text(sale.as_str()));
            out.opt(to, |out, sale| out.text(sale.as_str()));
            out.n(units);
        })
    }
}

/// What an order asks for: the same content again is the same order.
impl Fingerprints {
    pub(crate) fn place(&mut self, details: &OrderDetails, reserve: Option<(&[LimitKey], &[Summed<'_>])>) -> u64 {
        self.of(7, |out| {
            orders::put_details(out, details);
            out.opt(reserve, |out, (keys, lines)| {
                put_keys(out, keys);
                put_lines(out, lines.iter().copied());
            });
        })
    }

    /// Never zero, which says that none was taken.
    pub(crate) fn report(&mut self, report: &Report) -> u64 {
        self.of(8, |out| orders::put_report(out, report)).max(1)
    }

    /// Never zero.
    pub(crate) fn by_hand(&mut self, what: ByHand, reason: &Reason) -> u64 {
        let fingerprint = self.of(9, |out| {
            out.byte(what as u8);
            out.text(reason.as_str());
        });
        fingerprint.max(1)
    }

    /// The 64 bits that the id of a late payment's reservation is minted from; `again` counts those that were taken.
    pub(crate) fn link(&mut self, order: ReservationId, payment: &ProviderId, again: u64) -> u64 {
        self.of(10, |out| {
            out.id(order);
            out.text(payment.as_str());
            out.n(again);
        })
    }
}

/// What a late payment's reservation holds. It stands for its limit keys in the digest; no caller's command has it, so its id is taken for all of them.
impl Fingerprints {
    pub(crate) fn linked<'a>(
        &mut self,
        id: ReservationId,
        keys: &[LimitKey],
        lines: impl ExactSizeIterator<Item = Summed<'a>>,
    ) -> u64 {
        self.of(11, |out| {
            out.id(id);
            put_keys(out, keys);
            put_lines(out, lines);
        })
    }
}

fn put_keys(out: &mut Out<'_>, keys: &[LimitKey]) {
    if keys.len() < 2 {
        out.n(keys.len() as u64);
        keys.iter().for_each(|key| out.text(key.as_str()));
        return;
    }
    let mut sorted: Vec<&LimitKey> = keys.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    out.n(sorted.len() as u64);
    sorted.iter().for_each(|key| out.text(key.as_str()));
}

fn put_lines<'a>(out: &mut Out<'_>, lines: impl ExactSizeIterator<Item = Summed<'a>>) {
    out.n(lines.len() as u64);
    for (offer, quantity) in lines {
        out.offer(offer);
        out.n(quantity.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_frozen() {
        let offer = OfferKey { sku: Sku::new("shirt").unwrap(), sale: Some(SaleId::new("flash").unwrap()) };
        let keys = |names: &[&str]| names.iter().map(|n| LimitKey::new(n).unwrap()).collect::<Vec<_>>();
        let mut of = Fingerprints::default();
        let one = of.reserve(&keys(&["ann", "card"]), [(&offer, 2)].into_iter(), Some(60_000));
        let same = of.reserve(&keys(&["card", "ann", "card"]), [(&offer, 2)].into_iter(), Some(60_000));
        assert_eq!(one, same, "keys are a set");
        assert_ne!(one, of.reserve(&keys(&["ann"]), [(&offer, 2)].into_iter(), Some(60_000)));
        assert_ne!(one, of.reserve(&keys(&["ann", "card"]), [(&offer, 2)].into_iter(), None));
        assert_eq!(one, GOLDEN_RESERVE);
        assert_eq!(of.receive(&offer, 50), GOLDEN_RECEIVE);
    }

    const GOLDEN_RESERVE: u64 = 17_437_711_600_037_763_718;
    const GOLDEN_RECEIVE: u64 = 13_945_823_257_885_165_682;
}
