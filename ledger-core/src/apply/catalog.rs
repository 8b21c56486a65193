//! Products and offers: create, put, open, close and delete.
//!
//! **Owns** these verbs and the versions they raise: an offer's version counts what was changed about the offer itself (policy, openness, end), not
//! units. **Must never** move units. **Read next**: `time`.

use super::{Deciding, Verdict};
use crate::codec::changes::{Links, Said};
use crate::limits;
use crate::outcome::{Balance, Bound, Refusal, Settled};
use crate::state::orders::LANES;
use crate::state::records::{Head, NONE, Offer, Phase, Product};
use crate::types::{OfferKey, Policy, Sku, Slot};

impl Deciding<'_> {
    fn new_offer(&mut self, key: OfferKey, product: u32, policy: &Policy) -> Offer {
        let mut offer = Offer {
            key,
            product,
            policy: policy.clone(),
            version: 1,
            created_as: self.scratch.fingerprints.policy(policy),
            available: 0,
            held: 0,
            sold: 0,
            ended: false,
            ended_at: 0,
            phase: Phase::Before,
        };
        offer.phase = offer.phase_at(self.state.time);
        offer
    }

    fn must_have_room_for_an_offer(&self) -> Result<(), Refusal> {
        let max = self.state.bounds.offers;
        match self.state.offers.len() < max {
            true => Ok(()),
            false => Err(Refusal::TooMany { what: Bound::Offers, max: max as u64 }),
        }
    }

    /// Deletes a product that has no units, no sale, and that nothing remembered refers to.
    pub(super) fn delete_product(&mut self, sku: &Sku) -> Verdict {
        let plain = self.offer_at(&OfferKey { sku: sku.clone(), sale: None })?;
        let (product, Balance { available, held, .. }) =
            (self.state.offers.get(plain).product, self.state.balance(plain));
        let in_sales = |units: u64, sale: u32| {
            let Balance { available, held, .. } = self.state.balance(sale);
            units + available + held
        };
        let sales = &self.state.products.get(product).sales;
        let units = sales.iter().copied().fold(available + held, in_sales);
        let (sales, records) = (sales.len() as u64, self.state.sums[plain as usize].named);
        if units > 0 || sales > 0 || records > 0 {
            return Err(Refusal::ProductInUse { units, sales, records }.into());
        }
        let links = Links { place: self.place, on_products: self.link_product(plain).into(), on_reservation: None };
        self.recorder.say(links, Said::ProductDeleted { sku });
        self.last_offer = NONE;
        self.state.remove_product(product);
        Ok(Settled::Done)
    }

    pub(super) fn create_product(&mut self, sku: &Sku, policy: &Policy) -> Verdict {
        let key = OfferKey { sku: sku.clone(), sale: None };
        if let Some(at) = self.state.find_offer(&key) {
            let same = self.state.offers.get(at).created_as == self.scratch.fingerprints.policy(policy);
            let version = self.state.offers.get(at).version;
            return if same {
                Ok(Settled::Offer { version, replayed: true })
            } else {
                Err(Refusal::AlreadyExists.into())
            };
        }
        let max = self.state.bounds.products;
        if self.state.products.len() >= max {
            return Err(Refusal::TooMany { what: Bound::Products, max: max as u64 }.into());
        }
        self.must_have_room_for_an_offer()?;
        let (product, at) = (self.state.product_numbers.take(), self.state.offer_numbers.take());
        let new = Product {
            sku: sku.clone(),
            slot: Slot::of(sku),
            plain: at,
            sales: Vec::new(),
            received: 0,
            adjusted: 0,
            returned: 0,
            ever_sold: 0,
            turns: [0; LANES],
            head: Head::default(),
        };
        self.state.products.insert_at(product, new);
        self.state.by_sku.insert(sku.clone(), product);
        let offer = self.new_offer(key, product, policy);
        self.state.add_offer(at, offer);
        self.say_offer(at, |_, _| Said::ProductCreated { sku, policy });
        Ok(Settled::Offer { version: 1, replayed: false })
    }

    pub(super) fn put_offer(&mut self, key: &OfferKey, policy: &Policy, expected: Option<u64>) -> Verdict {
        let Some(at) = self.state.find_offer(key) else { return self.create_offer(key, policy, expected) };
        self.must_run(at)?;
        let offer = self.state.offers.get(at);
        let (version, same) = (offer.version, offer.policy == *policy);
        match expected {
            None if same => return Ok(Settled::Offer { version, replayed: true }),
            None => return Err(Refusal::AlreadyExists.into()),
            // The same change again, after it was made.
            Some(expected) if same && expected.checked_add(1) == Some(version) => {
                return Ok(Settled::Offer { version, replayed: true });
            }
            Some(expected) if expected != version => return Err(Refusal::VersionMismatch { actual: version }.into()),
            Some(_) => {}
        }
        let version = version + 1;
        let offer = self.state.offer_mut(at);
        (offer.version, offer.policy) = (version, policy.clone());
        self.say_offer(at, |_, offer| Said::OfferPut { offer, policy, version });
        let before = self.set_phase(at);
        self.say_phase(at, before);
        Ok(Settled::Offer { version, replayed: false })
    }

    fn create_offer(&mut self, key: &OfferKey, policy: &Policy, expected: Option<u64>) -> Verdict {
        let Some(product) = self.state.find_product(key) else {
            return Err(Refusal::UnknownProduct { offer: key.clone() }.into());
        };
        if expected.is_some() {
            return Err(Refusal::UnknownOffer { offer: key.clone() }.into());
        }
        if self.state.offers_of(product).count() >= limits::OFFERS_PER_PRODUCT_MAX {
            let max = limits::OFFERS_PER_PRODUCT_MAX as u64;
            return Err(Refusal::TooMany { what: Bound::OffersPerProduct, max }.into());
        }
        self.must_have_room_for_an_offer()?;
        let offer = self.new_offer(key.clone(), product, policy);
        let at = self.state.offer_numbers.take();
        self.state.add_offer(at, offer);
        self.say_offer(at, |_, offer| Said::OfferPut { offer, policy, version: 1 });
        self.say_phase(at, Phase::Before);
        Ok(Settled::Offer { version: 1, replayed: false })
    }

    pub(super) fn set_open(&mut self, key: &OfferKey, open: bool) -> Verdict {
        let at = self.offer_at(key)?;
        self.must_run(at)?;
        let offer = self.state.offers.get(at);
        if offer.policy.open == open {
            return Ok(Settled::Offer { version: offer.version, replayed: true });
        }
        let offer = self.state.offer_mut(at);
        offer.policy.open = open;
        offer.version += 1;
        let version = offer.version;
        self.say_offer(at, |_, offer| match open {
            true => Said::OfferOpened { offer },
            false => Said::OfferClosed { offer },
        });
        Ok(Settled::Offer { version, replayed: false })
    }
}
