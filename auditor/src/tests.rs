//! Histories made to break one promise each: the books must say which.

use ledger_core::order::{Money, ParkReason};
use ledger_core::view::{OfferView, ProductView};
use ledger_core::{Line, Policy, Quantity, Reference, SaleId, Slot, Units};

use super::*;

fn mug(sale: Option<&str>) -> OfferKey {
    OfferKey { sku: Sku::new("mug").expect("sku"), sale: sale.map(|s| SaleId::new(s).expect("sale")) }
}

fn id(n: u64) -> ReservationId {
    ReservationId::from_parts(Slot::of(&mug(None).sku), 1, n)
}

fn line(units: i64, available: u64, held: u64, sold: u64) -> LineChange {
    let line = Line { offer: mug(None), quantity: Quantity::new(units).expect("quantity") };
    LineChange { line, balance: Balance { available, held, sold } }
}

/// A history of one product and shard; links are made as the ledger makes them.
#[derive(Default)]
struct History {
    books: Books,
    index: u64,
    product: Option<(u64, u16)>,
    reservations: HashMap<ReservationId, (u64, u16)>,
}

impl History {
    /// A product with 10 units.
    fn of_ten() -> Self {
        let mut history = Self::default();
        history.at(1, ChangeKind::ProductCreated { sku: mug(None).sku, policy: Policy::default() });
        history.receive(1, "first", Balance { available: 10, held: 0, sold: 0 });
        history
    }
    fn receive(&mut self, time: u64, reference: &str, balance: Balance) {
        let reference = Reference::new(reference).expect("reference");
        let units = Units::new(10).expect("units");
        self.at(time, ChangeKind::UnitsReceived { offer: mug(None), units, reference, balance });
    }
    fn reserve(&mut self, time: u64, n: u64, deadline: u64, line: LineChange) {
        let lines = [line].into_iter().collect();
        self.at(time, ChangeKind::InventoryReserved { id: id(n), deadline: LedgerTime(deadline), lines });
    }
    fn confirm(&mut self, time: u64, n: u64, line: LineChange) {
        let lines = [line].into_iter().collect();
        self.at(time, ChangeKind::ReservationConfirmed { id: id(n), lines, given_back: Default::default() });
    }
    fn at(&mut self, time: u64, kind: ChangeKind) {
        self.index += 1;
        let here = (self.index, 0);
        let about = kind.reservation().or(kind.order());
        let extended = matches!(kind, ChangeKind::ReservationExtended { .. }) || kind.order().is_some();
        let links = kind.products().iter().map(|_| self.product).collect();
        let change = Change {
            place: 0,
            previous_on_products: links,
            previous_on_reservation: about.and_then(|id| self.reservations.get(&id).copied()),
            kind,
        };
        if !extended {
            self.product = Some(here);
        }
        if let Some(id) = about {
            self.reservations.insert(id, here);
        }
        let position = Position { incarnation: 1, shard: 0, term: 1, index: self.index, place: 0 };
        self.books.enter(position, LedgerTime(time), &change);
    }
    fn broken(mut self) -> Vec<String> {
        self.books.close();
        self.books.findings().iter().map(|f| f.invariant.clone()).collect()
    }
}

#[test]
fn a_good_history_has_no_findings() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.reserve(11, 2, 50, line(4, 3, 7, 0));
    h.confirm(12, 1, line(3, 3, 4, 3));
    // The second is due at 50: the very next reservation can have its units, and its expiry is told later.
    h.reserve(60, 3, 200, line(7, 0, 7, 3));
    let lines = [line(4, 0, 7, 3)].into_iter().collect();
    h.at(61, ChangeKind::ReservationExpired { id: id(2), deadline: LedgerTime(50), lines });
    h.at(62, ChangeKind::ReservationExtended { id: id(3), deadline: LedgerTime(300) });
    h.at(250, ChangeKind::ReservationReleased { id: id(3), lines: [line(7, 7, 0, 3)].into_iter().collect() });
    assert_eq!(h.books.status(id(2)), Some(Status::Expired));
    assert_eq!(h.books.total(), Sums { received: 10, available: 7, held: 0, sold: 3 });
    assert_eq!(h.broken(), Vec::<String>::new());
}

#[test]
fn more_than_there_is_is_oversold() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(8, 2, 8, 0));
    h.reserve(11, 2, 100, line(3, 0, 11, 0));
    assert!(h.broken().contains(&"oversold".to_owned()));
}

#[test]
fn a_balance_that_is_told_wrong_is_found() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 8, 3, 0));
    assert_eq!(h.broken(), ["conserved"]);
}

#[test]
fn a_reservation_ends_once() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.confirm(11, 1, line(3, 7, 0, 3));
    h.at(12, ChangeKind::ReservationReleased { id: id(1), lines: [line(3, 10, 0, 0)].into_iter().collect() });
    assert_eq!(h.broken(), ["ends-once"]);
}

#[test]
fn a_confirm_after_the_deadline_is_found() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.confirm(100, 1, line(3, 7, 0, 3));
    assert!(h.broken().contains(&"expiry".to_owned()));
}

#[test]
fn an_expiry_before_the_deadline_is_found() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    let lines = [line(3, 10, 0, 0)].into_iter().collect();
    h.at(99, ChangeKind::ReservationExpired { id: id(1), deadline: LedgerTime(100), lines });
    assert!(h.broken().contains(&"expiry".to_owned()));
}

#[test]
fn units_that_vanish_at_the_end_are_stranded() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.at(11, ChangeKind::ReservationReleased { id: id(1), lines: [line(2, 9, 1, 0)].into_iter().collect() });
    assert!(h.broken().contains(&"stranded".to_owned()));
}

#[test]
fn a_reference_has_one_effect() {
    let mut h = History::of_ten();
    h.receive(2, "first", Balance { available: 20, held: 0, sold: 0 });
    assert_eq!(h.broken(), ["reference"]);
}

#[test]
fn a_skipped_change_breaks_the_chain() {
    let mut h = History::of_ten();
    // The ledger decided something in between that was not told.
    h.product = Some((77, 0));
    h.receive(3, "second", Balance { available: 20, held: 0, sold: 0 });
    assert_eq!(h.broken(), ["chain"]);
}

#[test]
fn an_ended_sale_gives_back_to_the_plain_offer() {
    let mut h = History::of_ten();
    let sale = SaleId::new("s").expect("sale");
    h.at(2, ChangeKind::OfferPut { offer: mug(Some("s")), policy: Policy::default(), version: 1 });
    h.at(
        2,
        ChangeKind::UnitsAllotted {
            sku: mug(None).sku,
            from: None,
            to: Some(sale),
            units: Units::new(4).expect("units"),
            reference: Reference::new("allot").expect("reference"),
            from_balance: Balance { available: 6, held: 0, sold: 0 },
            to_balance: Balance { available: 4, held: 0, sold: 0 },
        },
    );
    let in_sale = |available, held| LineChange {
        line: Line { offer: mug(Some("s")), quantity: Quantity::new(4).expect("quantity") },
        balance: Balance { available, held, sold: 0 },
    };
    h.reserve(3, 1, 100, in_sale(0, 4));
    h.at(
        4,
        ChangeKind::SaleEnded {
            offer: mug(Some("s")),
            balance: Balance { available: 0, held: 4, sold: 0 },
            moved_back: 0,
            by_hand: true,
        },
    );
    h.at(5, ChangeKind::ReservationReleased { id: id(1), lines: [in_sale(0, 0)].into_iter().collect() });
    assert_eq!(h.books.offer(&mug(None)).available, 10);
    assert_eq!(h.broken(), Vec::<String>::new());
}

#[test]
fn what_the_ledger_answers_is_compared() {
    let mut h = History::of_ten();
    let offer = OfferView {
        offer: mug(None),
        policy: Policy::default(),
        version: 1,
        balance: Balance { available: 9, held: 0, sold: 0 },
        sold_out: None,
        ended: false,
        taking: true,
    };
    let view =
        ProductView { sku: mug(None).sku, received: 10, adjusted: 0, returned: 0, ever_sold: 0, offers: vec![offer] };
    h.books.compare(&[view]);
    assert_eq!(h.broken(), ["conserved"]);
}

#[test]
fn payment_told_before_its_order_is_kept_by_the_order_once() {
    let mut h = History::of_ten();
    let (amount, payment) = (Money::new(500, "EUR").expect("amount"), || "p1".parse().expect("provider id"));
    let paid = |kept| ChangeKind::PaymentProcessed { id: id(1), payment: payment(), amount, kept };
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.at(11, paid(false));
    h.at(12, ChangeKind::OrderParked { id: id(1), reason: ParkReason::UnknownOrder });
    h.at(13, ChangeKind::OrderPlaced { id: id(1), deadline: LedgerTime(100), amount, suspect: false });
    h.at(13, paid(true));
    h.confirm(13, 1, line(3, 7, 0, 3));
    assert_eq!(h.books.order(id(1)).and_then(OrderBook::kept), Some("p1"));
    h.at(14, paid(false));
    assert_eq!(h.broken(), ["money"], "told a third time");
}

#[test]
fn a_link_is_checked_on_every_product_of_a_change() {
    let skus = ["mug", "cup"].map(|name| Sku::new(name).expect("sku"));
    for missed in [None, Some(0), Some(1)] {
        let mut books = Books::new();
        let at = |index| Position { incarnation: 1, shard: 0, term: 1, index, place: 0 };
        let offer = |n: usize| OfferKey { sku: skus[n].clone(), sale: None };
        let change = |kind: ChangeKind, links: &[Option<(u64, u16)>]| Change {
            place: 0,
            previous_on_products: links.iter().copied().collect(),
            previous_on_reservation: None,
            kind,
        };
        for (n, sku) in skus.iter().enumerate() {
            let created = ChangeKind::ProductCreated { sku: sku.clone(), policy: Policy::default() };
            books.enter(at(1 + n as u64), LedgerTime(1), &change(created, &[None]));
            let (units, reference) = (Units::new(5).expect("units"), Reference::new("r").expect("reference"));
            let balance = Balance { available: 5, held: 0, sold: 0 };
            let received = ChangeKind::UnitsReceived { offer: offer(n), units, reference, balance };
            books.enter(at(3 + n as u64), LedgerTime(1), &change(received, &[Some((1 + n as u64, 0))]));
        }
        let quantity = Quantity::new(1).expect("quantity");
        let balance = Balance { available: 4, held: 1, sold: 0 };
        let lines = (0..2).map(|n| LineChange { line: Line { offer: offer(n), quantity }, balance }).collect();
        let reserved = ChangeKind::InventoryReserved { id: id(1), deadline: LedgerTime(50), lines };
        let mut links = [Some((3, 0)), Some((4, 0))];
        if let Some(missed) = missed {
            links[missed] = Some((77, 0));
        }
        books.enter(at(5), LedgerTime(2), &change(reserved, &links));
        let found: Vec<&str> = books.findings().iter().map(|f| f.invariant.as_str()).collect();
        assert_eq!(found, if missed.is_some() { vec!["chain"] } else { vec![] }, "{:?}", books.findings());
    }
}

/// Each product is found wrong by its own offers, of whom there may be many, and by no other's.
#[test]
fn each_product_is_closed_by_its_own_offers() {
    const PRODUCTS: u64 = 20_000;
    let mut books = Books::new();
    for n in 0..PRODUCTS {
        let sku = Sku::new(format!("mug-{n}")).expect("sku");
        let offer = OfferKey { sku: sku.clone(), sale: None };
        let product = books.products.entry(sku.clone()).or_default();
        product.received = 10;
        books.offers.insert(offer, OfferBook { available: 4, held: 1, ..OfferBook::default() });
        let sale = OfferKey { sku, sale: Some(SaleId::new("flash").expect("sale")) };
        let sold = if n == 7 { 4 } else { 5 };
        books.offers.insert(sale, OfferBook { sold, ..OfferBook::default() });
    }
    books.close();
    let [found] = books.findings() else { panic!("{:?}", books.findings().len()) };
    assert!(found.invariant == "stranded" && found.what.contains("mug-7: 10 units came in, 4 available"), "{found:?}");
}

/// The history of a good shop with books that keep one record at most.
fn reduced() -> History {
    let mut h = History::of_ten();
    h.books.records_max = Some(1);
    h.reserve(10, 1, 100, line(3, 7, 3, 0));
    h.reserve(11, 2, 50, line(4, 3, 7, 0));
    assert!(h.books.is_reduced() && h.books.reservations.is_empty());
    h
}

#[test]
fn books_with_too_many_records_keep_balances_and_report_that() {
    let mut h = reduced();
    assert_eq!(h.books.reduced_after(), Some(3), "created, received, and the first that was reserved");
    h.confirm(12, 1, line(3, 3, 4, 3));
    // The second is due at 50, and its units are reserved again before its expiry is entered.
    h.reserve(60, 3, 200, line(7, 0, 7, 3));
    let lines = [line(4, 0, 7, 3)].into_iter().collect();
    h.at(61, ChangeKind::ReservationExpired { id: id(2), deadline: LedgerTime(50), lines });
    h.at(62, ChangeKind::ReservationReleased { id: id(3), lines: [line(7, 7, 0, 3)].into_iter().collect() });
    assert_eq!(h.books.total(), Sums { received: 10, available: 7, held: 0, sold: 3 });
    let sums = ledger_core::view::ProductSums { received: 10, adjusted: 0, returned: 0 };
    h.books.compare_offer(&mug(None), &Balance { available: 7, held: 0, sold: 3 });
    h.books.compare_product(&mug(None).sku, sums);
    assert_eq!(h.broken(), Vec::<String>::new());
}

#[test]
fn reduced_books_take_back_what_was_due_and_not_entered_as_expired() {
    let mut h = History::of_ten();
    h.reserve(10, 1, 50, line(3, 7, 3, 0));
    h.books.records_max = Some(1);
    // The first is due, and the second is one record too many.
    h.reserve(60, 2, 100, line(4, 6, 4, 0));
    assert!(h.books.is_reduced());
    assert_eq!(h.books.total(), Sums { received: 10, available: 3, held: 7, sold: 0 });
    let lines = [line(3, 6, 4, 0)].into_iter().collect();
    h.at(61, ChangeKind::ReservationExpired { id: id(1), deadline: LedgerTime(50), lines });
    assert_eq!(h.books.total(), Sums { received: 10, available: 6, held: 4, sold: 0 });
    assert_eq!(h.broken(), Vec::<String>::new());
}

#[test]
fn reduced_books_find_units_that_are_lost_and_sales_that_are_told_wrong() {
    let mut lost = reduced();
    lost.confirm(12, 1, line(3, 2, 4, 3));
    assert_eq!(lost.broken(), ["conserved"], "a unit is neither available nor held nor sold");
    let mut sold = reduced();
    sold.confirm(12, 1, line(3, 4, 4, 2));
    assert_eq!(sold.broken(), ["conserved"]);
    let mut other = reduced();
    other.books.compare_offer(&mug(None), &Balance { available: 3, held: 6, sold: 0 });
    let sums = ledger_core::view::ProductSums { received: 9, adjusted: 0, returned: 0 };
    other.books.compare_product(&mug(None).sku, sums);
    assert_eq!(other.broken(), ["conserved"; 3], "the offer, what was received, and what the offers have together");
}
