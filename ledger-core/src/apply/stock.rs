//! Receive, adjust and allot: units that no reservation moves.
//!
//! A reference that was used for the same content is answered again with the stock as it is now; for other content it is taken.
//! **Owns** these verbs. **Must never** take below zero or above the bound of a product. **Read next**: `catalog`.

use super::{Deciding, Verdict};
use crate::codec::changes::Said;
use crate::limits;
use crate::outcome::{Balance, Bound, Refusal, Settled};
use crate::state::offers::signed;
use crate::state::records::NONE;
use crate::types::{OfferKey, Reason, Reference, SaleId, Sku, Units};

impl Deciding<'_> {
    /// Where the offer is, or which part of its name is unknown.
    pub(super) fn offer_at(&self, offer: &OfferKey) -> Result<u32, Refusal> {
        self.state.find_offer(offer).ok_or_else(|| match self.state.find_product(offer) {
            None => Refusal::UnknownProduct { offer: offer.clone() },
            Some(_) => Refusal::UnknownOffer { offer: offer.clone() },
        })
    }

    fn stocked(&self, at: u32, replayed: bool) -> Verdict {
        let version = self.state.offers.get(at).version;
        Ok(Settled::Stocked { balance: self.state.balance(at), version, replayed })
    }

    /// The offer of a movement that is new, or the answer to one that was done before: that is remembered longer than the offer, and
    /// one that is gone has no units. Refused if there is no such offer, or if the reference was used for something else.
    fn new_movement(&self, offer: &OfferKey, reference: &Reference, fingerprint: u64) -> Result<u32, Verdict> {
        let used = self.state.reference_used_for(&offer.sku, reference, fingerprint);
        match (self.offer_at(offer), used) {
            (Ok(at), Some(true)) => Err(self.stocked(at, true)),
            (Err(_), Some(true)) => {
                Err(Ok(Settled::Stocked { balance: Balance::default(), version: 0, replayed: true }))
            }
            (Ok(_), Some(false)) => Err(Err(Refusal::ReferenceTaken.into())),
            (Ok(at), None) => Ok(at),
            (Err(unknown), _) => Err(Err(unknown.into())),
        }
    }

    pub(super) fn must_run(&self, at: u32) -> Result<(), Refusal> {
        if self.state.offers.get(at).ended { Err(Refusal::SaleHasEnded) } else { Ok(()) }
    }

    fn must_fit(&self, at: u32, more: u64) -> Result<(), Refusal> {
        let product = self.state.products.get(self.state.offers.get(at).product);
        let total = i128::from(product.received) + i128::from(product.adjusted) + i128::from(more);
        // What was ever received is bounded too, far beyond use, so that no sum can overflow however often units come and go.
        if total > i128::from(limits::UNITS_MAX) || product.received.saturating_add(more) > limits::UNITS_EVER_MAX {
            return Err(Refusal::TooMany { what: Bound::UnitsPerProduct, max: limits::UNITS_MAX });
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, offer: &OfferKey, units: Units, reference: &Reference) -> Verdict {
        let fingerprint = self.scratch.fingerprints.receive(offer, units.get());
        let at = match self.new_movement(offer, reference, fingerprint) {
            Ok(at) => at,
            Err(answer) => return answer,
        };
        self.must_run(at)?;
        self.must_fit(at, units.get())?;
        self.state.must_have_room_for_reference()?;
        self.state.give_available(at, units.get());
        let product = self.state.offers.get(at).product;
        self.state.product_mut(product).received += units.get();
        self.state.use_reference(&offer.sku, reference, fingerprint);
        let balance = self.state.balance(at);
        self.say_offer(at, |_, offer| Said::UnitsReceived { offer, units, reference, balance });
        self.stocked(at, false)
    }

    pub(super) fn adjust(
        &mut self,
        offer: &OfferKey,
        delta: i64,
        reason: &Reason,
        reference: &Reference,
        expected_version: Option<u64>,
    ) -> Verdict {
        let fingerprint = self.scratch.fingerprints.adjust(offer, delta, reason);
        let at = match self.new_movement(offer, reference, fingerprint) {
            Ok(at) => at,
            Err(answer) => return answer,
        };
        self.must_run(at)?;
        let actual = self.state.offers.get(at).version;
        if expected_version.is_some_and(|version| version != actual) {
            return Err(Refusal::VersionMismatch { actual }.into());
        }
        let before = self.state.available(at);
        if delta < 0 && before < delta.unsigned_abs() {
            return Err(Refusal::NotEnoughAvailable { available: before }.into());
        }
        if delta > 0 {
            self.must_fit(at, delta.unsigned_abs())?;
        }
        self.state.must_have_room_for_reference()?;
        if delta < 0 {
            self.state.take_available(at, delta.unsigned_abs());
        } else {
            self.state.give_available(at, delta.unsigned_abs());
        }
        let product = self.state.offers.get(at).product;
        self.state.product_mut(product).adjusted += delta;
        self.state.use_reference(&offer.sku, reference, fingerprint);
        let balance = self.state.balance(at);
        self.say_offer(at, |_, offer| Said::UnitsAdjusted { offer, delta, reason, reference, balance });
        self.say_fell(at, before, self.state.available(at));
        self.stocked(at, false)
    }

    pub(super) fn allot(
        &mut self,
        sku: &Sku,
        from: Option<&SaleId>,
        to: Option<&SaleId>,
        units: Units,
        reference: &Reference,
    ) -> Verdict {
        let fingerprint = self.scratch.fingerprints.allot(sku, from, to, units.get());
        let (giver, taker) = [from, to].map(|sale| OfferKey { sku: sku.clone(), sale: sale.cloned() }).into();
        let is_done = self.state.reference_used_for(sku, reference, fingerprint) == Some(true);
        let giver = if is_done { NONE } else { self.offer_at(&giver)? };
        let taker = match self.new_movement(&taker, reference, fingerprint) {
            Ok(at) => at,
            Err(answer) => return answer,
        };
        self.must_run(giver)?;
        self.must_run(taker)?;
        let before = self.state.available(giver);
        if before < units.get() {
            return Err(Refusal::NotEnoughAvailable { available: before }.into());
        }
        self.state.must_have_room_for_reference()?;
        self.state.take_available(giver, units.get());
        self.state.give_available(taker, units.get());
        self.state.use_reference(sku, reference, fingerprint);
        let (from_balance, to_balance) = (self.state.balance(giver), self.state.balance(taker));
        self.say_offer(giver, |_, _| Said::UnitsAllotted { sku, from, to, units, reference, from_balance, to_balance });
        self.say_fell(giver, before, self.state.available(giver));
        self.stocked(taker, false)
    }

    /// Ends a sale's offer for good.
    pub(super) fn end_sale(&mut self, sku: &Sku, sale: &SaleId) -> Verdict {
        let at = self.offer_at(&OfferKey { sku: sku.clone(), sale: Some(sale.clone()) })?;
        if self.state.offers.get(at).ended {
            return Ok(Settled::Offer { version: self.state.offers.get(at).version, replayed: true });
        }
        let moved_back = self.state.available(at);
        let home = self.state.products.get(self.state.offers.get(at).product).plain;
        let now = self.state.time;
        let offer = self.state.offer_mut(at);
        (offer.ended, offer.ended_at) = (true, now);
        offer.version += 1;
        let version = offer.version;
        // What is due and unswept is the plain offer's from now on; so only what is swept moves, and both are exact.
        let swept = std::mem::take(&mut offer.available);
        self.state.offer_mut(home).available += swept;
        self.state.give_due_to_plain(at, home);
        assert!(swept <= signed(moved_back), "{swept} swept of {moved_back} exactly available");
        self.state.keys.end_offer(at);
        self.state.digest_kept_ended(at);
        self.set_phase(at);
        let balance = self.state.balance(at);
        self.say_offer(at, |_, offer| Said::SaleEnded { offer, balance, moved_back, by_hand: true });
        Ok(Settled::Offer { version, replayed: false })
    }
}
