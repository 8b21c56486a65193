//! Products, offers, receive, adjust, allot and sale ends.
//!
//! **Owns** what no reservation moves. **Must never** take below zero. **Read next**: [`crate::checkers::replay`].

use std::collections::BTreeMap;

use super::{Model, Product, Stock, Verdict};
use crate::history::{No, Offer, Op, Terms, Told, Units};

impl Model {
    pub(super) fn create(&mut self, sku: &str, terms: &Terms) -> Verdict {
        let plain = Offer::plain(sku);
        if let Some(product) = self.products.get(sku) {
            return match product.created_with == *terms {
                true => Ok((Told::Offer { version: self.offers[&plain].version }, true)),
                false => Err(No::AlreadyExists),
            };
        }
        self.products.insert(sku.to_owned(), Product { created_with: terms.clone(), references: BTreeMap::new() });
        self.offers.insert(plain, fresh(terms));
        Ok((Told::Offer { version: 1 }, false))
    }

    fn must_have(&self, offer: &Offer) -> Result<&Stock, No> {
        if !self.products.contains_key(&offer.sku) {
            return Err(No::UnknownProduct { offer: offer.clone() });
        }
        self.offers.get(offer).ok_or_else(|| No::UnknownOffer { offer: offer.clone() })
    }

    fn must_run(&self, offer: &Offer) -> Result<(), No> {
        if self.offers[offer].ended { Err(No::SaleHasEnded) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, offer: &Offer, terms: &Terms, expected: Option<u64>) -> Verdict {
        let stock = match self.must_have(offer) {
            Ok(stock) => stock,
            Err(No::UnknownOffer { .. }) if expected.is_none() => {
                self.offers.insert(offer.clone(), fresh(terms));
                return Ok((Told::Offer { version: 1 }, false));
            }
            Err(no) => return Err(no),
        };
        self.must_run(offer)?;
        let (version, same) = (stock.version, stock.terms == *terms);
        match expected {
            None if same => return Ok((Told::Offer { version }, true)),
            None => return Err(No::AlreadyExists),
            Some(expected) if same && expected + 1 == version => return Ok((Told::Offer { version }, true)),
            Some(expected) if expected != version => return Err(No::VersionMismatch { actual: version }),
            Some(_) => {}
        }
        let stock = self.offers.get_mut(offer).expect("just looked");
        (stock.version, stock.terms) = (version + 1, terms.clone());
        Ok((Told::Offer { version: version + 1 }, false))
    }

    pub(super) fn set_open(&mut self, offer: &Offer, open: bool) -> Verdict {
        self.must_have(offer)?;
        self.must_run(offer)?;
        let stock = self.offers.get_mut(offer).expect("just looked");
        let replayed = stock.terms.open == open;
        if !replayed {
            stock.terms.open = open;
            stock.version += 1;
        }
        Ok((Told::Offer { version: stock.version }, replayed))
    }

    pub(super) fn end_sale(&mut self, offer: &Offer) -> Verdict {
        self.must_have(offer)?;
        let stock = self.offers.get_mut(offer).expect("just looked");
        if stock.ended {
            return Ok((Told::Offer { version: stock.version }, true));
        }
        let back = std::mem::take(&mut stock.units.available);
        stock.ended = true;
        stock.version += 1;
        let version = stock.version;
        self.give(offer, back);
        self.uses.retain(|(of, _), _| of != offer);
        Ok((Told::Offer { version }, false))
    }

    fn stocked(&self, offer: &Offer) -> Told {
        let stock = &self.offers[offer];
        Told::Stocked { units: stock.units, version: stock.version }
    }

    /// Whether the reference was used for just this before.
    fn used_before(&self, op: &Op, sku: &str, reference: &str) -> Result<bool, No> {
        match self.products[sku].references.get(reference) {
            None => Ok(false),
            Some(before) if same_move(before, op) => Ok(true),
            Some(_) => Err(No::ReferenceTaken),
        }
    }

    fn moved(&mut self, op: &Op, sku: &str, reference: &str) {
        let product = self.products.get_mut(sku).expect("just looked");
        product.references.insert(reference.to_owned(), op.clone());
    }

    pub(super) fn receive(&mut self, op: &Op, offer: &Offer, units: u64, reference: &str) -> Verdict {
        self.must_have(offer)?;
        if self.used_before(op, &offer.sku, reference)? {
            return Ok((self.stocked(offer), true));
        }
        self.must_run(offer)?;
        self.offers.get_mut(offer).expect("just looked").units.available += units;
        self.moved(op, &offer.sku, reference);
        Ok((self.stocked(offer), false))
    }

    pub(super) fn adjust(
        &mut self,
        op: &Op,
        offer: &Offer,
        delta: i64,
        reference: &str,
        expected: Option<u64>,
    ) -> Verdict {
        self.must_have(offer)?;
        if self.used_before(op, &offer.sku, reference)? {
            return Ok((self.stocked(offer), true));
        }
        self.must_run(offer)?;
        let stock = self.offers.get_mut(offer).expect("just looked");
        if expected.is_some_and(|version| version != stock.version) {
            return Err(No::VersionMismatch { actual: stock.version });
        }
        let available = stock.units.available;
        let after = available.checked_add_signed(delta).ok_or(No::NotEnoughAvailable { available })?;
        stock.units.available = after;
        self.moved(op, &offer.sku, reference);
        Ok((self.stocked(offer), false))
    }

    pub(super) fn allot(&mut self, op: &Op, from: &Offer, to: &Offer, units: u64, reference: &str) -> Verdict {
        self.must_have(from)?;
        self.must_have(to)?;
        if self.used_before(op, &from.sku, reference)? {
            return Ok((self.stocked(to), true));
        }
        self.must_run(from)?;
        self.must_run(to)?;
        let giver = self.offers.get_mut(from).expect("just looked");
        let available = giver.units.available;
        giver.units.available = available.checked_sub(units).ok_or(No::NotEnoughAvailable { available })?;
        self.offers.get_mut(to).expect("just looked").units.available += units;
        self.moved(op, &from.sku, reference);
        Ok((self.stocked(to), false))
    }
}

fn fresh(terms: &Terms) -> Stock {
    Stock { terms: terms.clone(), version: 1, ended: false, units: Units::default(), deadlines: BTreeMap::new() }
}

/// Whether two uses of a reference ask for the same; the version that an adjustment compares is not content.
fn same_move(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Adjust { offer: a, delta: d, .. }, Op::Adjust { offer: b, delta: e, .. }) => (a, d) == (b, e),
        _ => one == other,
    }
}
