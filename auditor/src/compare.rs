//! The books compared with the ledger's own balances, and with themselves.
//!
//! **Owns** what must hold once all was entered. **Must never** change a book. **Read next**: [`super::balances`].

use std::collections::HashMap;

use ledger_core::outcome::Balance;
use ledger_core::view::{ProductSums, ProductView};
use ledger_core::{OfferKey, Position, Sku};

use super::{Books, Sums};

impl Books {
    /// Compares the books with what the ledger answers to reads now; the feed must have been entered to its end.
    pub fn compare(&mut self, products: &[ProductView]) {
        for view in products {
            for offer in &view.offers {
                self.compare_offer(&offer.offer, &offer.balance);
            }
            let ProductView { received, adjusted, returned, .. } = *view;
            self.compare_product(&view.sku, ProductSums { received, adjusted, returned });
        }
    }

    /// Compares one offer; its product is compared after all of its offers.
    pub fn compare_offer(&mut self, offer: &OfferKey, balance: &Balance) {
        if self.truncated.contains(&offer.sku) || !self.products.contains_key(&offer.sku) {
            return;
        }
        self.agree(Position::default(), offer, balance);
        if let Some(product) = self.products.get_mut(&offer.sku) {
            let units = [balance.available, balance.held, balance.sold];
            product.told += units.into_iter().map(i128::from).sum::<i128>();
        }
    }

    /// Compares what came into a product and went out of it.
    pub fn compare_product(&mut self, sku: &Sku, sums: ProductSums) {
        let nowhere = Position::default();
        if self.truncated.contains(sku) {
            return;
        }
        let Some(book) = self.products.get_mut(sku) else {
            if self.is_cut || !self.truncated.is_empty() {
                self.truncated.insert(sku.clone());
                return;
            }
            return self.find("lost", nowhere, format!("the ledger has {sku}, history does not"));
        };
        book.compared = true;
        let told_units = std::mem::take(&mut book.told);
        let (came, known) = (book.received + book.adjusted, (book.received, book.adjusted, book.returned));
        let told = (i128::from(sums.received), i128::from(sums.adjusted), i128::from(sums.returned));
        if told != known {
            let what = format!("{sku}: received, adjusted, returned are answered as {told:?}, recomputed as {known:?}");
            self.find("conserved", nowhere, what);
        }
        // Otherwise each of its offers was compared.
        if self.is_reduced() && told_units != came {
            let what = format!("{sku}: {came} units came in, its offers have {told_units}");
            self.find("conserved", nowhere, what);
        }
    }

    /// Every product was compared that the ledger has: one that history has and that was not is lost.
    pub fn nothing_is_lost(&mut self) {
        let not = |sku: &&Sku| !self.truncated.contains(*sku) && !self.products[*sku].compared;
        let mut lost: Vec<Sku> = self.products.keys().filter(not).cloned().collect();
        lost.sort_unstable();
        for sku in lost {
            self.find("lost", Position::default(), format!("history has {sku}, the ledger does not"));
        }
    }

    /// Conservation and signs over everything entered, in one pass over all offers.
    pub fn close(&mut self) {
        let mut by_product: HashMap<&Sku, Sums> = HashMap::with_capacity(self.products.len());
        for (key, book) in &self.offers {
            by_product.entry(&key.sku).or_default().add(book);
        }
        let mut wrong = Vec::new();
        for (sku, product) in self.products.iter().filter(|(sku, _)| !self.truncated.contains(*sku)) {
            let sums = by_product.get(sku).copied().unwrap_or_default();
            let there = product.received + product.adjusted;
            if there != sums.available + sums.held + sums.sold {
                wrong.push((
                    "stranded",
                    format!(
                        "{sku}: {there} units came in, {} available + {} held + {} sold",
                        sums.available, sums.held, sums.sold
                    ),
                ));
            }
            // Without deadlines, what is due is held until its expiry is entered.
            if !self.is_reduced() && sums.sold + sums.held > there {
                wrong.push(("oversold", format!("{sku}: {} sold + {} held of {there}", sums.sold, sums.held)));
            }
        }
        for (invariant, what) in wrong {
            self.find(invariant, Position::default(), what);
        }
    }
}
