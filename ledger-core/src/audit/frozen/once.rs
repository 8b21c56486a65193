//! Names that may be there once, however many there are.
//!
//! **Owns** the passes that look for a name twice: each sorts one part of all names. **Must never** hold more than one part.
//! **Read next**: [`super`].

use super::limit_keys::text_hash;
use super::stock::Stock;
use super::{Checking, Derived, part_of, parts};
use crate::state::keys::FrozenKeys;
use crate::types::OfferKey;

impl Checking<'_> {
    /// Compares names with each other; answers how many there were. `expected` is about how many there are: parts are made for it.
    pub(super) fn each_once<I: Iterator<Item = u128>>(
        &mut self,
        invariant: &'static str,
        what: &'static str,
        expected: u64,
        names: impl Fn() -> I,
        text: impl Fn(u128) -> String,
    ) -> u64 {
        let parts = parts(expected, size_of::<u128>(), self.table_bytes);
        let mut part_names: Vec<u128> = Vec::with_capacity((expected / parts + expected / parts / 16 + 64) as usize);
        let mut present = 0;
        for part in 0..parts {
            part_names.clear();
            present = 0;
            for name in names() {
                self.work.step();
                present += 1;
                // Callers choose names: by a secret hash no part is larger than the others.
                if parts == 1 || part_of(self.hash.of(&name.to_le_bytes()), parts) == part {
                    part_names.push(name);
                }
            }
            part_names.sort_unstable();
            for twice in part_names.windows(2).filter(|pair| pair[0] == pair[1]) {
                self.findings.add(invariant, || format!("{what} {} is there twice", text(twice[0])));
            }
        }
        present
    }

    /// Products, offers and limit keys, each by its name.
    pub(super) fn names(&mut self, stock: &Stock<'_>, keys: &FrozenKeys, derived: &Derived) {
        let lengths = (derived.by_sku, derived.by_sale, derived.offer_index);
        let products = || stock.products.iter().map(|(_, product)| text_hash(&[product.sku.as_str()]));
        let as_hash = |name: u128| format!("with the hash {name:032x}");
        let products = self.each_once("index", "a product", derived.by_sku, products, as_hash);
        let sale = |key: &OfferKey| key.sale.as_ref().map_or("", |sale| sale.as_str()).to_owned();
        let offers = || stock.offers.iter().map(|(_, offer)| text_hash(&[offer.key.sku.as_str(), &sale(&offer.key)]));
        let offers = self.each_once("index", "an offer", derived.offer_index, offers, as_hash);
        let sales = stock.offers.iter().filter(|(_, offer)| offer.key.sale.is_some()).count() as u64;
        let what = || "products by SKU, offers by sale, offers".to_owned();
        self.findings.expect("index", what, lengths, (products, sales, offers));
        (self.totals.products, self.totals.offers) = (products, offers);
        let texts = || keys.texts().map(|(_, text)| text_hash(&[text.as_str()]));
        self.each_once("index", "a limit key", keys.places().into(), texts, as_hash);
    }
}
