//! What a ledger decides, its changes contradict in nothing: records of real runs, entered into the
//! books.
//!
//! **Owns** sequences of legal commands that are rare in life. **Must never** make a change by
//! hand. **Read next**: `../src/tests.rs`.

use auditor::Books;
use ledger_core::codec::decode_record;
use ledger_core::command::{Command, plain_line};
use ledger_core::order::{ByHand, Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId};
use ledger_core::outcome::{Outcome, Refusal, Settled};
use ledger_core::view::IdView;
use ledger_core::{
    Entry, Ledger, LedgerTime, Line, OfferKey, Policy, Position, Quantity, Reason, Reference, ReservationId, SaleId,
    ShardSettings, Sku, Slot, Units, limits,
};

const START_MS: u64 = 1_700_000_000_000;
/// Long enough that everything that is over is forgotten.
const FORGOTTEN_AFTER_MS: u64 = 120_000;

/// A ledger with one product, and the books of its feed.
struct Run {
    ledger: Ledger,
    books: Books,
    /// The same with room for one record, so that they keep balances alone nearly from the beginning.
    balances: Books,
    /// What comes from here on is entered.
    audited: bool,
    now: u64,
}

fn sku() -> Sku {
    Sku::new("console").expect("a SKU")
}

fn offer(sale: Option<&str>) -> OfferKey {
    OfferKey { sku: sku(), sale: sale.map(|sale| SaleId::new(sale).expect("a sale")) }
}

fn euros(minor: u64) -> Money {
    Money::new(minor, "EUR").expect("an amount")
}

fn reason() -> Reason {
    Reason::new("so it is").expect("a reason")
}

impl Run {
    fn of_units(units: i64) -> Self {
        let mut run = Self {
            ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)),
            books: Books::new(),
            balances: Books::bounded(1),
            audited: true,
            now: START_MS,
        };
        run.set_up(units);
        run
    }
    /// Its history begins after the product was made.
    fn cut(units: i64) -> Self {
        let mut run = Self {
            ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)),
            books: Books::new(),
            balances: Books::bounded(1),
            audited: false,
            now: START_MS,
        };
        run.books.history_is_cut();
        run.balances.history_is_cut();
        run.set_up(units);
        run.audited = true;
        run
    }
    fn set_up(&mut self, units: i64) {
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        let settings =
            ShardSettings { retain_sold_ms: 1, retain_ended_ms: 1, retain_refused_ms: 1, remembered_max: 1_000 };
        self.ok(Command::OwnSlots { generation: 1, ranges: all });
        self.ok(Command::Configure { settings });
        self.ok(Command::CreateProduct { sku: sku(), policy: Policy::default() });
        if units > 0 {
            self.receive(None, units);
        }
    }
    fn receive(&mut self, sale: Option<&str>, units: i64) {
        let reference = Reference::new(format!("to {sale:?}")).expect("a reference");
        self.ok(Command::Receive { offer: offer(sale), units: Units::new(units).expect("units"), reference });
    }
    fn apply(&mut self, command: Command) -> Outcome {
        let index = self.ledger.position().index + 1;
        let entry = Entry { stamp: LedgerTime(self.now), commands: vec![command] };
        let mut applied = self.ledger.apply(1, index, &entry);
        let record = applied.record.map(|bytes| decode_record(&bytes).expect("own record decodes"));
        for (record, change) in record.iter().flat_map(|record| record.changes.iter().map(move |c| (record, c))) {
            if self.audited {
                for books in [&mut self.books, &mut self.balances] {
                    books.enter(Position { place: change.place, ..record.position }, record.time, change);
                }
            }
        }
        applied.outcomes.remove(0)
    }
    fn ok(&mut self, command: Command) -> Settled {
        match self.apply(command) {
            Outcome::Ok(settled) => settled,
            other => panic!("{other:?}"),
        }
    }
    fn id(n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::of(&sku()), START_MS, n)
    }
    fn lines(sale: Option<&str>, units: i64) -> Line {
        Line { offer: offer(sale), quantity: Quantity::new(units).expect("a quantity") }
    }
    fn reserve(&mut self, id: ReservationId, sale: Option<&str>) {
        let lines = [Self::lines(sale, 1)].into_iter().collect();
        self.ok(Command::Reserve { id, keys: Default::default(), lines, hold_ms: Some(60_000) });
    }
    fn place(&mut self, id: ReservationId, units: Option<i64>) -> Outcome {
        let details = OrderDetails {
            amount: euros(500),
            pay_within_ms: 60_000,
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: false,
        };
        let one = |units| plain_line(sku(), Quantity::new(units).expect("a quantity"));
        let reserve = units.map(|units| (Default::default(), [one(units)].into_iter().collect()));
        self.apply(Command::PlaceOrder { id, details: Box::new(details), reserve })
    }
    fn paid(&mut self, id: ReservationId, payment: &str) {
        let payment = ProviderId::new(payment).expect("an id");
        self.ok(Command::RecordFact { id, fact: Fact::Paid { payment, amount: euros(500) } });
    }
    fn refunded(&mut self, id: ReservationId, payment: &str) {
        let payment = ProviderId::new(payment).expect("an id");
        self.ok(Command::RecordFact { id, fact: Fact::Refunded { refund: payment.clone(), payment } });
    }
    fn by_hand(&mut self, id: ReservationId, what: ByHand) {
        self.ok(Command::OrderByHand { id, what, reason: reason() });
    }
    /// A worker notifies the buyer of the one order that there is.
    fn notify(&mut self, id: ReservationId) {
        let worker = WorkerId::new("w").expect("a name");
        let (slot, class) = (Slot::of(&sku()), WorkClass::Mail);
        self.ok(Command::ClaimOrders { slot, worker, class, max: 1, lease_ms: 1_000, attempt_ms: 0 });
        self.ok(Command::ReportOrder { id, epoch: 1, report: Report::Notified });
    }
    fn forget(&mut self) {
        self.now += FORGOTTEN_AFTER_MS;
        self.ok(Command::Tick);
    }
    fn findings(mut self) -> Vec<String> {
        for books in [&mut self.books, &mut self.balances] {
            if books.truncated() == 0 {
                books.compare(&self.ledger.products(None, 10));
            }
            books.close();
        }
        assert_eq!(self.balances.findings(), [], "of balances alone");
        assert_eq!(self.ledger.audit().findings.len(), 0, "{:?}", self.ledger.audit().findings);
        self.books.findings().iter().map(|f| format!("{}: {}", f.invariant, f.what)).collect()
    }
}

#[test]
fn order_that_is_refused_after_its_payment_came() {
    let mut run = Run::of_units(1);
    let id = Run::id(1);
    run.paid(id, "p1");
    assert!(matches!(run.place(id, Some(2)), Outcome::Refused(Refusal::SoldOut { .. })));
    run.paid(id, "p2");
    run.by_hand(id, ByHand::Redrive);
    assert_eq!(run.findings(), [""; 0]);
}

#[test]
fn order_that_is_refused_after_the_record_of_its_payment_was_forgotten() {
    let mut run = Run::of_units(1);
    // Its time lies ahead, so that it is not too old afterwards.
    let id = ReservationId::from_parts(Slot::of(&sku()), START_MS + limits::ID_AHEAD_MS_MAX, 1);
    run.paid(id, "p1");
    run.by_hand(id, ByHand::Close);
    run.forget();
    assert_eq!(run.ledger.order(id), None, "it is forgotten");
    assert!(matches!(run.place(id, Some(2)), Outcome::Refused(Refusal::SoldOut { .. })));
    assert_eq!(run.findings(), [""; 0]);
}

#[test]
fn payment_that_comes_again_after_its_order_was_forgotten() {
    let mut run = Run::of_units(9);
    let id = Run::id(1);
    assert!(matches!(run.place(id, Some(1)), Outcome::Ok(_)));
    run.paid(id, "p1");
    run.notify(id);
    run.forget();
    assert_eq!(run.ledger.id(id), IdView::Forgotten);
    run.paid(id, "p1");
    run.by_hand(id, ByHand::Redrive);
    run.refunded(id, "p1");
    // And again, after that is forgotten as well.
    run.forget();
    assert_eq!(run.ledger.order(id), None);
    run.paid(id, "p1");
    assert_eq!(run.findings(), [""; 0]);
}

#[test]
fn payment_that_comes_again_for_a_hold_after_its_record_was_forgotten() {
    for end in [ByHand::Close, ByHand::Redrive] {
        let mut run = Run::of_units(9);
        let id = ReservationId::from_parts(Slot::of(&sku()), START_MS + limits::ID_AHEAD_MS_MAX, 1);
        run.paid(id, "p1");
        run.by_hand(id, end);
        if end == ByHand::Redrive {
            run.refunded(id, "p1");
        }
        run.forget();
        assert_eq!(run.ledger.order(id), None);
        run.reserve(id, None);
        run.paid(id, "p1");
        assert!(matches!(run.place(id, None), Outcome::Ok(_)));
        assert_eq!(run.findings(), [""; 0], "after {end:?}");
    }
}

#[test]
fn payment_whose_refund_came_first() {
    let mut run = Run::of_units(9);
    let id = Run::id(1);
    run.paid(id, "p1");
    run.refunded(id, "p2");
    run.refunded(id, "p1");
    run.paid(id, "p2");
    let book = run.books.order(id).expect("known");
    assert!(book.payments.values().all(|one| one.refunded), "{:?}", book.payments);
    assert_eq!(run.findings(), [""; 0]);
}

#[test]
fn payment_before_its_order_in_a_history_without_its_beginning() {
    let mut run = Run::cut(9);
    let id = Run::id(1);
    run.paid(id, "p1");
    run.reserve(id, None);
    assert!(matches!(run.place(id, None), Outcome::Ok(_)));
    run.notify(id);
    assert_eq!(run.books.truncated(), 1);
    assert_eq!(run.findings(), [""; 0]);
}

/// The window closes, its offer is changed, and then the sale is ended with holds that are live.
#[test]
fn sale_that_is_ended_after_its_window_closed() {
    let mut run = Run::of_units(9);
    let sale = Some("flash");
    let policy = |price: &str| Policy {
        closes_at: Some(LedgerTime(START_MS + 1_000)),
        price: Some(price.parse().expect("a price")),
        ..Policy::default()
    };
    run.ok(Command::PutOffer { offer: offer(sale), policy: policy("9"), expected_version: None });
    run.receive(sale, 1);
    let id = Run::id(1);
    run.reserve(id, sale);
    run.now += 1_000;
    run.ok(Command::Tick);
    run.ok(Command::PutOffer { offer: offer(sale), policy: policy("8"), expected_version: Some(1) });
    run.ok(Command::EndSale { sku: sku(), sale: offer(sale).sale.expect("a sale") });
    run.ok(Command::Release { id });
    assert_eq!(run.findings(), [""; 0]);
}

/// More windows close at once than an entry passes: the sale whose turn has not come is ended.
#[test]
fn sale_that_is_ended_before_its_window_was_swept() {
    let mut run = Run::of_units(9);
    let closes = Policy { closes_at: Some(LedgerTime(START_MS + 1_000)), ..Policy::default() };
    for n in 0..=limits::EDGES_PER_ENTRY_MAX {
        let other = Sku::new(format!("other-{n}")).expect("a SKU");
        run.ok(Command::CreateProduct { sku: other, policy: closes.clone() });
    }
    let sale = Some("flash");
    run.ok(Command::PutOffer { offer: offer(sale), policy: closes, expected_version: None });
    run.receive(sale, 1);
    let id = Run::id(1);
    run.reserve(id, sale);
    run.now += 1_000;
    run.ok(Command::EndSale { sku: sku(), sale: offer(sale).sale.expect("a sale") });
    run.ok(Command::Release { id });
    assert_eq!(run.findings(), [""; 0]);
}
