//! As many records of a kind as there may be: one more is refused or comes later, what is there goes on, and the end of one makes room.
//!
//! **Owns** the tests of [`crate::state::RecordBounds`]. **Must never** need as many records as production may have. **Read next**:
//! [`crate::limits`].

use crate::command::{Command, Entry, plain_line};
use crate::ledger::Ledger;
use crate::limits;
use crate::order::{Fact, Money, OrderDetails, ProviderId, Sealed};
use crate::outcome::{Bound, NotNow, Outcome, Refusal, Settled};
use crate::state::RecordBounds;
use crate::types::{LedgerTime, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units};

const START_MS: u64 = 1_700_000_000_000;

struct Shop {
    ledger: Ledger,
    index: u64,
    now: u64,
    sku: Sku,
}

impl Shop {
    fn new(bounds: impl FnOnce(&mut RecordBounds)) -> Self {
        let sku = Sku::new("console").expect("a SKU");
        let mut shop =
            Self { ledger: Ledger::new(1, 1, crate::IndexSeed(7)), index: 0, now: START_MS, sku: sku.clone() };
        bounds(&mut shop.ledger.state.bounds);
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        shop.ok(Command::OwnSlots { generation: 1, ranges: all });
        shop.ok(Command::CreateProduct { sku, policy: Policy::default() });
        shop.ok(shop.receive("first"));
        shop
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let entry = Entry { stamp: LedgerTime(self.now), commands: vec![command] };
        let outcome = self.ledger.apply(1, self.index, &entry).outcomes.remove(0);
        assert_eq!(self.ledger.audit().findings.len(), 0, "{:?}", self.ledger.audit().findings);
        outcome
    }

    fn ok(&mut self, command: Command) {
        let outcome = self.apply(command);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }

    fn id(&self, n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::of(&self.sku), START_MS, n)
    }

    fn receive(&self, reference: &str) -> Command {
        Command::Receive {
            offer: OfferKey { sku: self.sku.clone(), sale: None },
            units: Units::new(10).expect("units"),
            reference: Reference::new(reference).expect("a reference"),
        }
    }

    fn paid(&self, n: u64, payment: &str) -> Command {
        let payment = ProviderId::new(payment).expect("an id");
        let fact = Fact::Paid { payment, amount: Money::new(100, "EUR").expect("an amount") };
        Command::RecordFact { id: self.id(n), fact }
    }

    fn place(&self, n: u64) -> Command {
        let details = OrderDetails {
            amount: Money::new(100, "EUR").expect("an amount"),
            pay_within_ms: 60_000,
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: false,
        };
        let line = plain_line(self.sku.clone(), Quantity::new(1).expect("one"));
        let reserve = Some((Default::default(), [line].into_iter().collect()));
        Command::PlaceOrder { id: self.id(n), details: Box::new(details), reserve }
    }
}

fn full(what: Bound) -> Outcome {
    Outcome::NotNow(NotNow::RecordsFull { what, retry_ms: limits::RECORDS_RETRY_MS })
}

#[test]
fn unknown_payments_at_the_bound_wait_and_none_is_dropped() {
    let mut shop = Shop::new(|bounds| bounds.unknown_payments = 2);
    shop.ok(shop.paid(1, "p1"));
    shop.ok(shop.paid(2, "p2"));
    assert_eq!(shop.apply(shop.paid(3, "p3")), full(Bound::UnknownPayments));
    // The same again, and another payment of an id that is there, are taken.
    let again = shop.apply(shop.paid(1, "p1"));
    assert!(matches!(again, Outcome::Ok(Settled::Order(brief)) if brief.replayed), "{again:?}");
    shop.ok(shop.paid(2, "p4"));
    assert_eq!(shop.ledger.order(shop.id(2)).expect("known").payments.len(), 2);
    assert_eq!(shop.apply(shop.paid(3, "p3")), full(Bound::UnknownPayments));
    // An order that is placed takes its payment over, and there is room.
    shop.ok(shop.place(1));
    shop.ok(shop.paid(3, "p3"));
    // Of an order payments are always taken.
    shop.ok(shop.place(4));
    shop.ok(shop.paid(4, "p5"));
    assert_eq!(shop.apply(shop.paid(5, "p6")), full(Bound::UnknownPayments));
}

#[test]
fn open_orders_at_the_bound_wait_and_those_that_are_there_go_on() {
    let mut shop = Shop::new(|bounds| bounds.open_orders = 1);
    shop.ok(shop.place(1));
    assert_eq!(shop.apply(shop.place(2)), full(Bound::OpenOrders));
    // Nothing was taken, and nothing is remembered of the id: a hold and its order come later.
    assert!(shop.ledger.order(shop.id(2)).is_none());
    let held = Command::Reserve {
        id: shop.id(3),
        keys: Default::default(),
        lines: [plain_line(shop.sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect(),
        hold_ms: Some(60_000),
    };
    shop.ok(held);
    let Command::PlaceOrder { id, details, .. } = shop.place(3) else { unreachable!("just made") };
    assert_eq!(shop.apply(Command::PlaceOrder { id, details, reserve: None }), full(Bound::OpenOrders));
    let again = shop.apply(shop.place(1));
    assert!(matches!(again, Outcome::Ok(Settled::Order(brief)) if brief.replayed), "{again:?}");
    shop.ok(shop.paid(1, "p1"));
}

#[test]
fn products_at_their_bound_are_refused() {
    let mut shop = Shop::new(|bounds| bounds.products = 2);
    let create = |sku: &str| Command::CreateProduct { sku: Sku::new(sku).expect("a SKU"), policy: Policy::default() };
    shop.ok(create("second"));
    let too_many = Outcome::Refused(Refusal::TooMany { what: Bound::Products, max: 2 });
    assert_eq!(shop.apply(create("third")), too_many);
    // The one that is there is the same answer again.
    shop.ok(create("second"));
}

#[test]
fn offers_at_their_bound_are_refused() {
    let mut shop = Shop::new(|bounds| bounds.offers = 2);
    let create = |sku: &str| Command::CreateProduct { sku: Sku::new(sku).expect("a SKU"), policy: Policy::default() };
    shop.ok(create("second"));
    let too_many = Outcome::Refused(Refusal::TooMany { what: Bound::Offers, max: 2 });
    assert_eq!(shop.apply(create("third")), too_many);
    let offer = OfferKey { sku: shop.sku.clone(), sale: Some(crate::types::SaleId::new("flash").expect("a sale")) };
    let put = Command::PutOffer { offer, policy: Policy::default(), expected_version: None };
    assert_eq!(shop.apply(put), too_many);
    shop.ok(Command::DeleteProduct { sku: Sku::new("second").expect("a SKU") });
    shop.ok(create("third"));
}

#[test]
fn references_at_their_bound_wait_until_the_oldest_may_be_forgotten() {
    let mut shop = Shop::new(|bounds| bounds.references = 3);
    let replayed = |outcome: &Outcome| matches!(outcome, Outcome::Ok(Settled::Stocked { replayed: true, .. }));
    shop.ok(shop.receive("second"));
    shop.ok(shop.receive("third"));
    assert_eq!(shop.apply(shop.receive("fourth")), full(Bound::References));
    assert!(replayed(&shop.apply(shop.receive("first"))), "what is there goes on");
    shop.now += limits::REFERENCE_KEPT_MS_MIN - 1;
    assert_eq!(shop.apply(shop.receive("fourth")), full(Bound::References));
    // Times of use are known to the minute.
    shop.now += 120_000;
    assert!(!replayed(&shop.apply(shop.receive("fourth"))));
    assert!(replayed(&shop.apply(shop.receive("second"))), "only the oldest was forgotten");
    assert!(!replayed(&shop.apply(shop.receive("first"))), "it is used anew");
}

#[test]
fn references_are_forgotten_after_their_time_and_not_before() {
    let mut shop = Shop::new(|_| ());
    let units = |outcome: Outcome| match outcome {
        Outcome::Ok(Settled::Stocked { balance, .. }) => balance.available,
        other => panic!("{other:?}"),
    };
    shop.now += limits::REFERENCE_KEPT_MS - 1;
    assert_eq!(units(shop.apply(shop.receive("first"))), 10, "remembered");
    shop.now += 120_000;
    assert_eq!(units(shop.apply(shop.receive("first"))), 20, "used anew");
}
