//! What reservations hold and sold, recomputed for every offer, and what that says of products.
//!
//! **Owns** promises 1 to 3 in a frozen view. **Must never** take what an offer says of its own units for counted. **Read next**: [`super::limit_keys`].

use super::super::findings::id_text;
use super::Checking;
use crate::digest;
use crate::outcome::{Balance, Status};
use crate::state::orders::Order;
use crate::state::records::{Extra, LineRecord, NONE, Offer, Product, Reservation};
use crate::state::slab::FrozenSlab;
use crate::view::ProductSums;

/// The records of stock.
pub(super) struct Stock<'a> {
    pub(super) products: &'a FrozenSlab<Product>,
    pub(super) offers: &'a FrozenSlab<Offer>,
    pub(super) reservations: &'a FrozenSlab<Reservation>,
    pub(super) extras: &'a FrozenSlab<Extra>,
}

impl Stock<'_> {
    /// The extra part of a reservation, if it has one and that is there.
    #[inline]
    pub(super) fn extra_of(&self, r: &Reservation) -> Option<&Extra> {
        if r.extra == NONE { None } else { self.extras.try_get(r.extra) }
    }
}

/// The lines of a reservation.
pub(super) fn lines_of<'a>(r: &'a Reservation, extra: Option<&'a Extra>) -> impl Iterator<Item = &'a LineRecord> {
    std::iter::once(&r.line).chain(extra.into_iter().flat_map(|extra| &extra.lines))
}

/// The limit keys that a reservation carries.
pub(super) fn keys_of<'a>(r: &'a Reservation, extra: Option<&'a Extra>) -> impl Iterator<Item = u32> + 'a {
    let further = extra.filter(|_| r.key != NONE).into_iter().flat_map(|extra| extra.keys.iter().copied());
    (r.key != NONE).then_some(r.key).into_iter().chain(further)
}

/// Whether a line of a reservation, whose hold is live or not, is anything that limit keys count.
#[inline]
pub(super) fn counts(line: &LineRecord, live: bool) -> bool {
    live || line.sold != line.returned
}

/// What reservations say of one offer.
#[derive(Clone, Copy, Default)]
struct OfferSum {
    held: u64,
    due: u64,
    sold: u64,
}

/// What offers say of one product.
#[derive(Clone, Copy, Default)]
struct ProductSum {
    units: i128,
    sold: u64,
    /// Units of due holds in its ended sales: they are the plain offer's again.
    due_of_ended: u64,
    offers: u32,
}

/// Bytes of a product's sums, for the bound on all of them.
pub(crate) const PRODUCT_BYTES: usize = size_of::<ProductSum>();

/// A set of places.
struct Places(Vec<u64>);

impl Places {
    fn new(places: u32) -> Self {
        Self(vec![0; (places as usize).div_ceil(64)])
    }
    fn put(&mut self, place: u32) {
        self.0[place as usize / 64] |= 1 << (place % 64);
    }
    #[inline]
    fn has(&self, place: u32) -> bool {
        self.0.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

/// Sums made on the way: of all products, and which offers there are.
pub(super) struct Sums {
    products: Vec<ProductSum>,
    known: Places,
    ended: Places,
}

impl Sums {
    pub(super) fn new(products: &FrozenSlab<Product>, offers: &FrozenSlab<Offer>) -> Self {
        let (mut known, mut ended) = (Places::new(offers.places()), Places::new(offers.places()));
        for (at, offer) in offers.iter() {
            known.put(at);
            if offer.ended {
                ended.put(at);
            }
        }
        Self { products: vec![ProductSum::default(); products.places() as usize], known, ended }
    }
    pub(super) fn is_known(&self, offer: u32) -> bool {
        self.known.has(offer)
    }
    #[inline]
    pub(super) fn is_ended(&self, offer: u32) -> bool {
        self.ended.has(offer)
    }
}

/// What was counted of reservations.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) present: u64,
    pub(super) held: u64,
    pub(super) due: u64,
    pub(super) sold: u64,
    pub(super) ended: u64,
    pub(super) extras: u64,
    /// Those that belong to an order.
    pub(super) of_orders: u64,
    /// How often one counts for a key in an offer.
    pub(super) of_keys: u64,
    /// Lines, each of which names an offer.
    pub(super) lines: u64,
    /// Units bought and not returned.
    pub(super) bought: u64,
}

/// Offers whose sums are made in one pass.
fn offers_at_once(table_bytes: usize) -> u64 {
    (table_bytes / size_of::<OfferSum>()).max(1) as u64
}

/// Passes beyond the first that the sums of so many offers take.
pub(super) fn parts_beyond(offers: u32, table_bytes: usize) -> u64 {
    u64::from(offers).div_ceil(offers_at_once(table_bytes)).saturating_sub(1)
}

/// The sums of the offers in a range of places.
struct OfferSums {
    from: u64,
    sums: Vec<OfferSum>,
}

impl OfferSums {
    fn new(from: u64, offers: u32, table_bytes: usize) -> Self {
        let until = u64::from(offers).min(from + offers_at_once(table_bytes));
        Self { from, sums: vec![OfferSum::default(); (until - from) as usize] }
    }
    fn until(&self) -> u64 {
        self.from + self.sums.len() as u64
    }
    #[inline]
    fn add(&mut self, line: &LineRecord, held: bool, due: bool) {
        let place = u64::from(line.offer).wrapping_sub(self.from);
        let Some(sum) = self.sums.get_mut(place as usize) else { return };
        let reserved = u64::from(line.reserved());
        sum.held += if held { reserved } else { 0 };
        sum.due += if due { reserved } else { 0 };
        sum.sold += u64::from(line.sold.saturating_sub(line.returned));
    }
}

impl Checking<'_> {
    /// The first pass over reservations: all that is counted in one, and the sums of the first range of offers.
    pub(super) fn reservations(&mut self, stock: &Stock<'_>, orders: &FrozenSlab<Order>, sums: &mut Sums) -> Counted {
        let mut counted = Counted::default();
        let mut of_offers = OfferSums::new(0, stock.offers.places(), self.table_bytes);
        for (_, r) in stock.reservations.iter() {
            self.work.step();
            counted.present += 1;
            let extra = stock.extra_of(r);
            counted.extras += u64::from(extra.is_some());
            if r.extra != NONE && extra.is_none() {
                self.findings.add("memory", || format!("{} has an extra part that is not there", id_text(&r.id)));
                continue;
            }
            self.digest = self.digest.wrapping_add(digest::canonical_reservation(r, extra));
            let held = r.status == Some(Status::Held);
            let due = held && r.deadline <= self.time;
            counted.held += u64::from(held);
            counted.due += u64::from(due);
            counted.of_orders += u64::from(r.order != NONE);
            match r.remembered_sold_in(orders).filter(|_| !held) {
                Some(true) => counted.sold += 1,
                Some(false) => counted.ended += 1,
                None => {}
            }
            let ends = held == (r.ended_at == 0) || self.time == 0;
            let what = || format!("{} is {:?} and ended at {}", id_text(&r.id), r.status, r.ended_at);
            self.findings.expect("ends-once", what, ends, true);
            let keys = keys_of(r, extra).count() as u64;
            for line in lines_of(r, extra) {
                self.line(r, line, held);
                counted.lines += 1;
                counted.bought += u64::from(line.sold.saturating_sub(line.returned));
                of_offers.add(line, held, due);
                let ended = sums.is_ended(line.offer);
                if !ended && line.counted() && counts(line, held && !due) {
                    counted.of_keys += keys;
                }
                if !sums.is_known(line.offer) {
                    self.findings.add("stranded", || format!("{} has units of no offer", id_text(&r.id)));
                } else if due && ended {
                    let product = stock.offers.get(line.offer).product as usize;
                    if let Some(sum) = sums.products.get_mut(product) {
                        sum.due_of_ended += u64::from(line.reserved());
                    }
                }
            }
        }
        self.offers(stock, &of_offers, sums);
        counted
    }

    #[inline]
    fn line(&mut self, r: &Reservation, line: &LineRecord, held: bool) {
        let sound = line.returned <= line.sold && line.sold <= line.reserved() && !(held && line.sold > 0);
        let what = || format!("{} sold {} of {}", id_text(&r.id), line.sold, line.reserved());
        self.findings.expect("conserved", what, sound, true);
    }

    /// Sums and checks the offers beyond the first range.
    pub(super) fn offers_beyond(&mut self, stock: &Stock<'_>, sums: &mut Sums) {
        let offers = stock.offers.places();
        let mut from = offers_at_once(self.table_bytes);
        while from < u64::from(offers) {
            let mut of_offers = OfferSums::new(from, offers, self.table_bytes);
            for (_, r) in stock.reservations.iter() {
                self.work.step();
                let held = r.status == Some(Status::Held);
                let due = held && r.deadline <= self.time;
                lines_of(r, stock.extra_of(r)).for_each(|line| of_offers.add(line, held, due));
            }
            self.offers(stock, &of_offers, sums);
            from = of_offers.until();
        }
    }

    /// Checks the offers of a range.
    fn offers(&mut self, stock: &Stock<'_>, of_offers: &OfferSums, sums: &mut Sums) {
        let range = of_offers.from..of_offers.until();
        for (at, offer) in stock.offers.iter().filter(|(at, _)| range.contains(&u64::from(*at))) {
            self.work.step();
            self.digest = self.digest.wrapping_add(digest::canonical_offer(at, offer));
            let counted = of_offers.sums[(u64::from(at) - of_offers.from) as usize];
            let name = || format!("{:?}", offer.key);
            self.findings.expect("stranded", || format!("held in {}", name()), offer.held, counted.held);
            // Sold reservations that were forgotten stay sold.
            let what = || format!("{} sold in {}, {} remembered", offer.sold, name(), counted.sold);
            self.findings.expect("conserved", what, offer.sold >= counted.sold, true);
            let product = stock.products.try_get(offer.product);
            let plain = product.is_some_and(|product| product.plain == at);
            let fits = product.is_some_and(|product| product.sku == offer.key.sku) && plain == offer.key.sale.is_none();
            self.findings.expect("index", || format!("{} is of its product", name()), fits, true);
            let Some(sum) = sums.products.get_mut(offer.product as usize) else { continue };
            sum.offers += 1;
            sum.sold = sum.sold.wrapping_add(offer.sold);
            sum.units += i128::from(offer.available) + i128::from(offer.held) + i128::from(offer.sold);
            let own = if offer.ended { 0 } else { counted.due };
            let freed = own + if plain { sum.due_of_ended } else { 0 };
            let exact = i128::from(offer.available) + i128::from(freed);
            let what = || format!("available in {}, {exact}, is not negative", name());
            self.findings.expect("oversold", what, exact >= 0, true);
            let balance = Balance {
                available: u64::try_from(exact).unwrap_or(0),
                held: offer.held.saturating_sub(counted.due),
                sold: offer.sold,
            };
            let units = &mut self.totals.units;
            units.available += u128::from(balance.available);
            units.held += u128::from(balance.held);
            units.sold += u128::from(balance.sold);
            self.work.observer.offer(&offer.key, balance);
        }
    }

    /// Checks products, once all of their offers were seen.
    pub(super) fn products(&mut self, stock: &Stock<'_>, sums: &Sums) {
        for (at, product) in stock.products.iter() {
            self.work.step();
            self.digest = self.digest.wrapping_add(digest::canonical_product(at, product));
            let sum = sums.products[at as usize];
            let name = product.sku.as_str();
            let came = i128::from(product.received) + i128::from(product.adjusted);
            self.findings.expect("conserved", || format!("units of {name}"), sum.units, came);
            let sold = i128::from(product.ever_sold) - i128::from(product.returned);
            self.findings.expect("conserved", || format!("sold of {name}"), i128::from(sum.sold), sold);
            let offers = 1 + product.sales.len();
            self.findings.expect("index", || format!("offers of {name}"), offers, sum.offers as usize);
            self.totals.received += u128::from(product.received);
            self.totals.adjusted += i128::from(product.adjusted);
            self.totals.returned += u128::from(product.returned);
            let sums =
                ProductSums { received: product.received, adjusted: product.adjusted, returned: product.returned };
            self.work.observer.product(&product.sku, sums);
        }
    }
}
