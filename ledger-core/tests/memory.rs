//! What a ledger says it takes in memory is what the allocator gave, and it comes back when records go. One test, alone in its
//! process: the allocator's count is the process's.
//!
//! **Owns** the truth of `memory_use`. **Must never** share its process with another test. **Read next**: `scale.rs`.

use ledger_core::command::{Command, LimitKeys, Lines, plain_line};
use ledger_core::order::{Money, OrderDetails, Sealed};
use ledger_core::outcome::Outcome;
use ledger_core::view::MemoryUse;
use ledger_core::{
    Entry, IndexSeed, Ledger, LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reference, ReservationId, SaleId,
    ShardSettings, Sku, Slot, Units, limits,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const START_MS: u64 = 1_700_000_000_000;
const HOLD_MS: u64 = 3_600_000;
const BATCH: u64 = 1_000;
/// Records of each kind.
const MANY: u64 = 100_000;
/// More of one time than are put in order when it comes.
const OF_ONE_TIME: u64 = 400_000;
const SALES: usize = limits::LINES_MAX - 1;

struct Shard {
    ledger: Ledger,
    index: u64,
    now: u64,
    made: u64,
    sku: Sku,
    /// The allocator's count, and the ledger's, when they were compared last.
    compared: (usize, u64),
}

impl Shard {
    fn new() -> Self {
        let compared = (MEMORY.current_usage(), 0);
        let sku = Sku::new("console").expect("a SKU");
        let ledger = Ledger::new(1, 1, IndexSeed(7));
        let mut shard = Self { ledger, index: 0, now: START_MS, made: 0, sku: sku.clone(), compared };
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        let policy = Policy { per_key_max: Some(4), hold_ms_max: 2 * HOLD_MS, ..Policy::default() };
        let mut commands = vec![
            Command::OwnSlots { generation: 1, ranges: vec![all] },
            Command::CreateProduct { sku, policy: policy.clone() },
        ];
        for offer in shard.offers() {
            if offer.sale.is_some() {
                let policy = policy.clone();
                commands.push(Command::PutOffer { offer: offer.clone(), policy, expected_version: None });
            }
            let reference = Reference::new(format!("delivery {:?}", offer.sale)).expect("a reference");
            commands.push(Command::Receive { offer, units: Units::new(1 << 40).expect("units"), reference });
        }
        shard.apply(commands);
        shard
    }

    /// The plain one, and one in each sale.
    fn offers(&self) -> Vec<OfferKey> {
        let sale = |n: usize| Some(SaleId::new(format!("sale-{n}")).expect("a sale"));
        let sales = std::iter::once(None).chain((0..SALES).map(sale));
        sales.map(|sale| OfferKey { sku: self.sku.clone(), sale }).collect()
    }

    /// Answers what was answered to the first one.
    fn apply(&mut self, commands: Vec<Command>) -> Outcome {
        self.index += 1;
        self.now += 7;
        self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands }).outcomes.remove(0)
    }

    /// Applies so many commands, an entry for each thousand.
    fn many(&mut self, count: u64, mut command: impl FnMut(&mut Self) -> Command) {
        for _ in 0..count / BATCH {
            let commands = (0..BATCH).map(|_| command(self)).collect();
            let first = self.apply(commands);
            assert!(matches!(first, Outcome::Ok(_) | Outcome::Refused(_)), "{first:?}");
        }
    }

    fn id(&mut self) -> ReservationId {
        self.made += 1;
        // Not in order, as those of many clients.
        let random = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ReservationId::from_parts(Slot::of(&self.sku), self.now, random)
    }

    fn reserve_as(&mut self, buyer: u64, lines: Lines, hold_ms: u64) -> Command {
        let id = self.id();
        let key = LimitKey::new(format!("buyer-{buyer:027}")).expect("a key");
        Command::Reserve { id, keys: [key].into_iter().collect(), lines, hold_ms: Some(hold_ms) }
    }

    fn reserve(&mut self, units: i64) -> Command {
        let line = plain_line(self.sku.clone(), Quantity::new(units).expect("units"));
        self.reserve_as(self.made, [line].into_iter().collect(), HOLD_MS)
    }

    /// As many lines as there may be, each with a deadline that no other has, before all so far.
    fn reserve_all_offers(&mut self) -> Command {
        let quantity = Quantity::new(1).expect("one");
        let lines = self.offers().into_iter().map(|offer| Line { offer, quantity }).collect();
        self.reserve_as(self.made, lines, 2 * HOLD_MS - 10 * self.made)
    }

    /// Of a product that there is not, with a name that fits no place.
    fn reserve_unknown(&mut self) -> Command {
        let id = self.id();
        let sku = Sku::new(format!("{{console}}-that-nobody-ever-made-{}", self.made)).expect("a SKU");
        let line = plain_line(sku, Quantity::new(1).expect("one"));
        Command::Reserve { id, keys: LimitKeys::new(), lines: [line].into_iter().collect(), hold_ms: None }
    }

    fn order(&mut self) -> Command {
        let id = self.id();
        let sealed = |byte: u8| Sealed::new([byte; 100]).expect("short enough");
        let lines = [plain_line(self.sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect();
        let details = OrderDetails {
            amount: Money::new(1_999, "EUR").expect("an amount"),
            pay_within_ms: 600_000,
            payment: sealed(1),
            contact: sealed(2),
            suspect: false,
        };
        Command::PlaceOrder { id, details: Box::new(details), reserve: Some((LimitKeys::new(), lines)) }
    }

    /// What it says. What it grew by since it was asked last is near what the allocator gave.
    fn grew(&mut self, what: &str) -> MemoryUse {
        let (given, says) = (MEMORY.current_usage(), self.ledger.memory_use());
        let (given_before, counted_before) = std::mem::replace(&mut self.compared, (given, says.total()));
        let (given, counted) = (given - given_before, says.total() - counted_before);
        let off = counted as f64 / given as f64;
        assert!((0.7..1.4).contains(&off), "{what}: counts {counted} more, and takes {given}: {says:?}");
        says
    }
}

#[test]
fn memory_use_is_what_the_allocator_gave_and_comes_back_when_records_go() {
    let at_first = MEMORY.current_usage();
    let mut shard = Shard::new();
    let mut held = Vec::with_capacity(MANY as usize);
    shard.compared.0 += held.capacity() * size_of::<ReservationId>();
    shard.many(MANY, |shard| {
        let reserve = shard.reserve(1);
        held.extend(reserve.reservation());
        reserve
    });
    let live = shard.grew("holds");
    assert!(live.total() / MANY <= 356, "{} bytes a live hold with its key", live.total() / MANY);
    shard.many(MANY / 10, Shard::reserve_all_offers);
    shard.grew("holds of sixteen lines, each until a time of its own");
    let mut again = 0;
    shard.many(MANY / 5, |shard| {
        // Four for each of some buyers.
        again += 1;
        let line = plain_line(shard.sku.clone(), Quantity::new(1).expect("one"));
        shard.reserve_as(again / 4 + MANY * 10, [line].into_iter().collect(), HOLD_MS + again)
    });
    shard.grew("several holds for a key");
    // More than a key may have; all in one second.
    shard.now += 2_000;
    let now = shard.now;
    shard.many(OF_ONE_TIME, |shard| {
        shard.now = now;
        shard.reserve(9)
    });
    let refused = shard.grew("refusals");
    assert!(refused.refusals > live.refusals && refused.ids > live.ids);
    shard.many(MANY / 10, Shard::reserve_unknown);
    shard.grew("refusals that keep a name");
    let mut delivery = 0;
    shard.many(MANY, |shard| {
        delivery += 1;
        Command::Receive {
            offer: OfferKey { sku: shard.sku.clone(), sale: None },
            units: Units::new(1).expect("one"),
            reference: Reference::new(format!("delivery {delivery}")).expect("a reference"),
        }
    });
    let peak = shard.grew("references");
    let peak_given = MEMORY.current_usage() - at_first;
    // Some are sold, and so they are kept for longer than the others.
    let mut sold = held.iter().step_by(1_000);
    shard.many(BATCH, |_| match sold.next() {
        Some(&id) => Command::Confirm { id, lines: None },
        None => Command::Tick,
    });
    let day = 24 * 3_600_000;
    let settings = ShardSettings { retain_ended_ms: day, retain_refused_ms: day, ..ShardSettings::default() };
    shard.apply(vec![Command::Configure { settings }]);
    for hours in 0..36 {
        shard.now = shard.now.max(START_MS + hours * 3_600_000);
        (0..20).for_each(|_| drop(shard.apply(vec![Command::Tick])));
    }
    let left = shard.ledger.totals();
    assert_eq!((left.live, left.remembered, left.sold), (0, 0, MANY / 1_000));
    let after = shard.ledger.memory_use();
    assert!(after.reservations < peak.reservations / 50 && after.refusals < peak.refusals / 100, "{after:?}");
    assert!(after.ids < peak.ids / 20 && after.limit_keys < peak.limit_keys / 50, "{after:?} of {peak:?}");
    assert_eq!(after.references, peak.references, "they are kept");
    let given = MEMORY.current_usage() - at_first;
    assert!(given < peak_given / 4, "{given} bytes of {peak_given} did not come back");
    assert_eq!(shard.ledger.audit().findings, []);
    drop(shard);

    let mut shard = Shard::new();
    shard.many(MANY, Shard::order);
    let orders = shard.grew("orders").orders;
    assert!(orders / MANY > 200, "{} bytes an order", orders / MANY);
}
