//! What a jump of ledger time may cost: one step for each distinct (offer, deadline), once, however many commands ask and whoever sweeps.
//!
//! **Owns** the count. **Must never** measure time. **Read next**: [`crate::state::offers`].

use crate::command::{Command, Entry};
use crate::ledger::Ledger;
use crate::limits;
use crate::outcome::Outcome;
use crate::state::due::steps;
use crate::types::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reference, ReservationId, SaleId, Sku, Slot, Units,
};

const START_MS: u64 = 1_700_000_000_000;
/// Distinct deadlines in the sale.
const DEADLINES: u64 = 20_000;
/// What a jump over all of them may cost: the offer, the limit key and the queue of holds pass over
/// each once, and the sweep puts in order and takes what it ends; what left is dropped on the way.
const JUMP: usize = 3 * DEADLINES as usize + 3 * limits::EXPIRED_PER_ENTRY_MAX;
/// Commands of an entry that asks.
const ASKING: u64 = 1_000;

struct Shop {
    ledger: Ledger,
    index: u64,
    now: u64,
    made: u64,
    plain: OfferKey,
    sale: OfferKey,
}

impl Shop {
    fn new() -> Self {
        let sku = Sku::new("console").expect("a SKU");
        let plain = OfferKey { sku: sku.clone(), sale: None };
        let sale = OfferKey { sku: sku.clone(), sale: Some(SaleId::new("flash").expect("a sale")) };
        let mut shop =
            Self { ledger: Ledger::new(1, 1, crate::IndexSeed(7)), index: 0, now: START_MS, made: 0, plain, sale };
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        let limited = Policy { per_key_max: Some(1_000_000), ..Policy::default() };
        let receive = |offer: &OfferKey| Command::Receive {
            offer: offer.clone(),
            units: Units::new(1_000_000).expect("units"),
            reference: Reference::new(offer.sale.as_ref().map_or("d", |_| "s")).expect("a reference"),
        };
        let commands = vec![
            Command::OwnSlots { generation: 1, ranges: all },
            Command::CreateProduct { sku, policy: limited.clone() },
            Command::PutOffer { offer: shop.sale.clone(), policy: limited, expected_version: None },
            receive(&shop.plain),
            receive(&shop.sale),
        ];
        shop.apply(commands);
        shop
    }

    /// Every answer must be ok. Tells how many steps it took.
    fn apply(&mut self, commands: Vec<Command>) -> usize {
        self.index += 1;
        steps::taken();
        let applied = self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands });
        for outcome in applied.outcomes {
            assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        }
        steps::taken()
    }

    fn reserve(&mut self, offer: &OfferKey, hold_ms: u64) -> Command {
        self.made += 1;
        let id = ReservationId::from_parts(Slot::of(&offer.sku), START_MS, self.made);
        let line = Line { offer: offer.clone(), quantity: Quantity::new(1).expect("one") };
        let keys = [LimitKey::new("everybody").expect("a key")].into_iter().collect();
        Command::Reserve { id, keys, lines: [line].into_iter().collect(), hold_ms: Some(hold_ms) }
    }

    fn reserves(&mut self, offer: &OfferKey, count: u64, hold_ms: impl Fn(u64) -> u64) {
        for from in (0..count).step_by(5_000) {
            let batch = (from..count.min(from + 5_000)).map(|n| self.reserve(offer, hold_ms(n))).collect();
            self.apply(batch);
        }
    }
}

/// Holds of an ended sale with as many deadlines as holds, all due at once, behind more than an entry sweeps: the plain offer, whose units they are now,
/// is asked a thousand times.
#[test]
fn jump_of_time_costs_one_step_for_each_offer_and_deadline_once() {
    let mut shop = Shop::new();
    let (plain, sale) = (shop.plain.clone(), shop.sale.clone());
    shop.reserves(&plain, 2 * limits::EXPIRED_PER_ENTRY_MAX as u64, |_| 1_000);
    shop.reserves(&sale, DEADLINES, |n| 10_000 + n);
    shop.apply(vec![Command::EndSale { sku: sale.sku.clone(), sale: sale.sale.clone().expect("a sale") }]);
    shop.now += 3_600_000;
    let jump: Vec<_> = (0..ASKING).map(|_| shop.reserve(&plain, 600_000)).collect();
    let steps = shop.apply(jump);
    assert!(steps <= JUMP, "{steps} steps for {DEADLINES} deadlines");
    // From then on it costs what is swept.
    for _ in 0..3 {
        let more: Vec<_> = (0..ASKING).map(|_| shop.reserve(&plain, 600_000)).collect();
        let steps = shop.apply(more);
        let swept = limits::EXPIRED_PER_ENTRY_MAX;
        assert!(steps <= 2 * swept, "{steps} steps though {swept} holds were swept");
    }
    // A read is no more than that either.
    steps::taken();
    assert!(shop.ledger.offer(&plain).expect("known").balance.available > 0);
    assert_eq!(steps::taken(), 0);
    assert_eq!(shop.ledger.audit().findings.len(), 0);
}

/// One limit key with as many deadlines as holds: the first question after a jump drops those that are due.
#[test]
fn jump_of_time_costs_a_limit_key_one_step_for_each_deadline_once() {
    let mut shop = Shop::new();
    let plain = shop.plain.clone();
    shop.reserves(&plain, DEADLINES, |n| 10_000 + n);
    shop.now += 3_600_000;
    let jump: Vec<_> = (0..ASKING).map(|_| shop.reserve(&plain, 600_000)).collect();
    let steps = shop.apply(jump);
    assert!(steps <= JUMP, "{steps} steps for {DEADLINES} deadlines");
    assert_eq!(shop.ledger.audit().findings.len(), 0);
}

/// Live holds of an offer end while others of it are due and not swept: what is due is not looked at by each.
#[test]
fn ends_of_live_holds_do_not_look_at_those_that_are_due() {
    let mut shop = Shop::new();
    let plain = shop.plain.clone();
    shop.reserves(&plain, DEADLINES, |n| 10_000 + n);
    let first_live = shop.made;
    shop.reserves(&plain, ASKING, |_| 7_200_000);
    shop.now += 3_600_000;
    let id = |n| ReservationId::from_parts(Slot::of(&plain.sku), START_MS, first_live + 1 + n);
    let ends = (0..ASKING)
        .map(|n| if n % 2 == 0 { Command::Confirm { id: id(n), lines: None } } else { Command::Release { id: id(n) } });
    let steps = shop.apply(ends.collect());
    assert!(steps <= JUMP, "{steps} steps for {DEADLINES} deadlines");
}

/// One client keeps a hold with a far deadline, and makes and releases others behind it.
#[test]
fn holds_released_behind_a_far_one_take_no_memory() {
    let mut shop = Shop::new();
    let plain = shop.plain.clone();
    shop.reserves(&plain, 1, |_| 3_600_000);
    for _ in 0..20 {
        let mut commands = Vec::new();
        for _ in 0..ASKING {
            // Each at a deadline of its own, later than all before it.
            let hold_ms = 3_600_000 + shop.made;
            let reserve = shop.reserve(&plain, hold_ms);
            let id = reserve.reservation().expect("a reserve has its id");
            commands.extend([reserve, Command::Release { id }]);
        }
        shop.apply(commands);
    }
    let state = &shop.ledger.state;
    let at = state.find_offer(&plain).expect("known");
    let (sums, queue) = (state.sums[at as usize].places(), state.expiry.places());
    assert!(sums < 500 && queue < 500, "{sums} deadlines of the offer and {queue} of holds for one hold");
    assert_eq!(shop.ledger.audit().findings.len(), 0);
}
