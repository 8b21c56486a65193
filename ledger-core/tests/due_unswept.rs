//! Holds that are due and wait for the sweep: nothing may take them for live ones, whatever comes first.
//!
//! More holds are due at once than one entry sweeps, so an order whose hold has a late place in the sweep meets every other path while its
//! record still says *held*. **Owns** that meeting. **Must never** depend on the sweep being done in the entry that makes a hold due.
//! **Read next**: `random.rs`.

mod model;

use ledger_core::command::{Command, plain_line};
use ledger_core::order::{Fact, Money, OrderDetails, ParkReason, Phase, ProviderId, Sealed, WorkClass, WorkerId};
use ledger_core::outcome::{Outcome, Settled};
use ledger_core::{
    Entry, Ledger, LedgerTime, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units, limits,
};
use model::beside::Beside;

const START_MS: u64 = 1_700_000_000_000;
/// How long everything here is held.
const HOLD_MS: u64 = 60_000;

/// A product with more than enough units, in a ledger beside its model.
struct Shop {
    shard: Beside,
    now: u64,
    sku: Sku,
}

impl Shop {
    fn new() -> Self {
        let sku = Sku::new("console").expect("a SKU");
        let mut shop = Self { shard: Beside::new(), now: START_MS, sku: sku.clone() };
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        shop.apply(vec![
            Command::OwnSlots { generation: 1, ranges: all },
            Command::CreateProduct { sku: sku.clone(), policy: Policy::default() },
            Command::Receive {
                offer: OfferKey { sku, sale: None },
                units: Units::new(100_000).expect("units"),
                reference: Reference::new("delivery").expect("a reference"),
            },
        ]);
        shop
    }

    /// Every answer of these must be ok.
    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let (applied, _) = self.shard.apply(self.now, commands);
        for outcome in &applied.outcomes {
            assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        }
        applied.outcomes
    }

    fn id(&self, n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::of(&self.sku), START_MS, n)
    }

    fn one(&self) -> ledger_core::command::Lines {
        [plain_line(self.sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect()
    }

    /// As many holds as one entry sweeps, due when the order is, and swept before it.
    fn fill_the_sweep(&mut self) {
        let hold = |n| Command::Reserve {
            id: self.id(n),
            keys: Default::default(),
            lines: self.one(),
            hold_ms: Some(START_MS + HOLD_MS - self.now),
        };
        self.apply((0..limits::EXPIRED_PER_ENTRY_MAX as u64).map(hold).collect());
    }

    fn place(&mut self) -> ReservationId {
        let id = self.id(1_000_000);
        let details = OrderDetails {
            amount: Money::new(100, "EUR").expect("an amount"),
            pay_within_ms: HOLD_MS,
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: false,
        };
        let reserve = Some((Default::default(), self.one()));
        self.apply(vec![Command::PlaceOrder { id, details: Box::new(details), reserve }]);
        id
    }

    fn claim_one(&mut self, lease_ms: u64) {
        let worker = WorkerId::new("w").expect("a name");
        let slot = Slot::of(&self.sku);
        let claim = Command::ClaimOrders { slot, worker, class: WorkClass::Money, max: 1, lease_ms, attempt_ms: 0 };
        let outcomes = self.apply(vec![claim]);
        let Outcome::Ok(Settled::Claimed(claimed)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(claimed.len(), 1, "the order is ready");
    }

    fn lose_a_lease(&mut self) {
        self.claim_one(limits::LEASE_MS_MIN);
        self.now += limits::LEASE_MS_MIN;
        self.apply(vec![Command::Tick]);
    }

    fn phase(&self, id: ReservationId) -> Phase {
        self.shard.ledger.order(id).expect("known").brief.phase
    }
}

/// The hold is due and the sweep is behind: the lease that ends now must not park the order, which would release a hold that is over.
#[test]
fn last_lease_lost_while_the_hold_waits_for_the_sweep_settles_the_order() {
    for lease_ms in [HOLD_MS - 19 * limits::LEASE_MS_MIN, HOLD_MS - 19 * limits::LEASE_MS_MIN - 1_000] {
        let mut shop = Shop::new();
        let id = shop.place();
        for _ in 1..limits::LEASES_LOST_MAX {
            shop.lose_a_lease();
        }
        shop.fill_the_sweep();
        shop.claim_one(lease_ms);
        // No entry until both are over: the sweep gets as far as the order in the second one.
        shop.now = START_MS + HOLD_MS;
        shop.apply(vec![Command::Tick]);
        assert_eq!(shop.phase(id), Phase::Settling, "as if swept");
        shop.shard.thaw();
        shop.apply(vec![Command::Tick]);
        let order = shop.shard.ledger.order(id).expect("known");
        assert_eq!((order.brief.phase, order.attempts), (Phase::Settling, 0), "swept");
    }
}

/// The same when the lease ends before the hold is due: that one does park it.
#[test]
fn last_lease_lost_before_the_hold_is_due_parks_the_order() {
    let mut shop = Shop::new();
    let id = shop.place();
    for _ in 0..limits::LEASES_LOST_MAX {
        shop.lose_a_lease();
    }
    let order = shop.shard.ledger.order(id).expect("known");
    assert_eq!((order.brief.phase, order.parked), (Phase::Parked, Some(ParkReason::LeasesLost)));
}

/// A stamp from a clock that is wrong by ages: deadlines lie after ledger time all the same, and a late payment is given stock.
#[test]
fn late_payment_at_the_end_of_time_is_decided() {
    let sku = Sku::new("console").expect("a SKU");
    let (mut ledger, mut index) = (Ledger::new(1, 1, ledger_core::IndexSeed(7)), 0);
    let mut apply = |command: Command| {
        index += 1;
        let applied = ledger.apply(1, index, &Entry { stamp: LedgerTime(u64::MAX), commands: vec![command] });
        assert!(matches!(applied.outcomes[0], Outcome::Ok(_)), "{:?}", applied.outcomes);
        (applied.time, applied.outcomes[0].clone())
    };
    let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
    let (time, _) = apply(Command::OwnSlots { generation: 1, ranges: all });
    assert_eq!(time.0, limits::LEDGER_TIME_MAX);
    apply(Command::CreateProduct { sku: sku.clone(), policy: Policy::default() });
    let (units, reference) = (Units::new(2).expect("units"), Reference::new("d").expect("a reference"));
    apply(Command::Receive { offer: OfferKey { sku: sku.clone(), sale: None }, units, reference });
    let id = ReservationId::from_parts(Slot::of(&sku), time.0 + limits::ID_AHEAD_MS_MAX, 1);
    let amount = Money::new(100, "EUR").expect("an amount");
    let (payment, contact) = (Sealed::default(), Sealed::default());
    let details = OrderDetails { amount, pay_within_ms: limits::HOLD_MS_MAX, payment, contact, suspect: false };
    let line = plain_line(sku.clone(), Quantity::new(1).expect("one"));
    let reserve = Some((Default::default(), [line].into_iter().collect()));
    apply(Command::PlaceOrder { id, details: Box::new(details), reserve });
    apply(Command::Release { id });
    let payment = ProviderId::new("p").expect("an id");
    let (_, paid) = apply(Command::RecordFact { id, fact: Fact::Paid { payment, amount } });
    let Outcome::Ok(Settled::Order(brief)) = paid else { panic!("{paid:?}") };
    assert_eq!(brief.phase, Phase::Sold);
    assert_eq!(ledger.audit().findings.len(), 0);
}
