//! Sizes that must cost what their number says: 100,000 holds due in one millisecond, a million live holds of one product, half a million waiting orders.
//!
//! What is asserted is counted work (entries, changes, order), never time; times are printed for the reader
//! (`cargo test -p ledger-core --test scale -- --nocapture`).
//!
//! **Owns** the large shapes. **Must never** fail because a machine is slow. **Read next**: `random.rs`.

use ledger_core::change::Record;
use ledger_core::codec::decode_record;
use ledger_core::command::{Command, Lines, plain_line};
use ledger_core::order::{Claimed, Fact, Money, OrderDetails, Phase, ProviderId, Sealed, Step, WorkClass, WorkerId};
use ledger_core::outcome::{Balance, NotNow, Outcome, Refusal, Settled, SoldOut, Status};
use ledger_core::view::IdView;
use ledger_core::{
    Applied, ChangeKind, Entry, Ledger, LedgerTime, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot,
    Units, limits,
};

const START_MS: u64 = 1_700_000_000_000;
const HOLD_MS: u64 = 60_000;
/// Commands an entry carries here: what a node under load puts into one.
const BATCH: u64 = 4_000;

/// One product in a ledger, and how long each kind of entry took.
struct Shop {
    ledger: Ledger,
    index: u64,
    now: u64,
    sku: Sku,
    changes_max: usize,
}

impl Shop {
    fn new(units: u64) -> Self {
        Self::of(Sku::new("console").expect("a SKU"), units)
    }

    fn of(sku: Sku, units: u64) -> Self {
        let mut shop =
            Self { ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)), index: 0, now: START_MS, sku, changes_max: 0 };
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        shop.apply(vec![Command::OwnSlots { generation: 1, ranges: all }]);
        shop.apply(vec![Command::CreateProduct { sku: shop.sku.clone(), policy: Policy::default() }]);
        shop.apply(vec![Command::Receive {
            offer: shop.offer(),
            units: Units::new(units as i64).expect("units"),
            reference: Reference::new("delivery").expect("a reference"),
        }]);
        shop
    }

    fn offer(&self) -> OfferKey {
        OfferKey { sku: self.sku.clone(), sale: None }
    }

    fn id(&self, n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::of(&self.sku), START_MS, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn reserve(&self, n: u64, hold_ms: u64) -> Command {
        let lines: Lines = [plain_line(self.sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect();
        Command::Reserve { id: self.id(n), keys: Default::default(), lines, hold_ms: Some(hold_ms) }
    }

    fn apply(&mut self, commands: Vec<Command>) -> (Applied, Option<Record>) {
        self.index += 1;
        let applied = self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands });
        let record = applied.record.as_ref().map(|bytes| decode_record(bytes).expect("own record decodes"));
        self.changes_max = self.changes_max.max(record.as_ref().map_or(0, |r| r.changes.len()));
        (applied, record)
    }

    /// Applies the commands in full entries; every answer must be ok.
    fn all_ok(&mut self, commands: impl Iterator<Item = Command>) {
        let mut batch = Vec::new();
        for command in commands {
            batch.push(command);
            if batch.len() as u64 == BATCH {
                self.batch_ok(std::mem::take(&mut batch));
            }
        }
        self.batch_ok(batch);
    }

    fn batch_ok(&mut self, batch: Vec<Command>) {
        let (applied, _) = self.apply(batch);
        for outcome in &applied.outcomes {
            assert!(matches!(outcome, Outcome::Ok(Settled::Reservation(_))), "{outcome:?}");
        }
    }

    fn balance(&self) -> Balance {
        self.ledger.offer(&self.offer()).expect("known").balance
    }

    /// Ticks until nothing is left to sweep; the expired, in order, and how many entries it took.
    fn sweep(&mut self) -> (Vec<(LedgerTime, ReservationId)>, usize) {
        let (mut expired, mut entries) = (Vec::new(), 0);
        while self.ledger.next_due().is_some_and(|t| t.0 <= self.now) {
            entries += 1;
            let (_, record) = self.apply(vec![Command::Tick]);
            let before = expired.len();
            for change in record.expect("something was left to sweep").changes {
                if let ChangeKind::ReservationExpired { id, deadline, .. } = change.kind {
                    expired.push((deadline, id));
                }
            }
            let swept = expired.len() - before;
            assert!(swept > 0, "an entry with holds left to sweep swept none");
            assert!(swept <= limits::EXPIRED_PER_ENTRY_MAX, "{swept} swept in one entry");
        }
        (expired, entries)
    }

    fn audit(&mut self) {
        let audit = self.ledger.audit();
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        let view = self.ledger.freeze_for_audit();
        let frozen = timed("of it the audit of a frozen view", || view.audit(&mut ()));
        assert_eq!((frozen.findings, &frozen.totals), (Vec::new(), &audit.totals), "the audit of a frozen view");
    }
}

/// Prints how long a part took; nothing is asserted about it.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the printed figures are for the reader alone")]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let done = work();
    println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    done
}

#[test]
fn a_hundred_thousand_holds_due_in_one_millisecond() {
    const HOLDS: u64 = 100_000;
    let mut shop = Shop::new(HOLDS);
    timed("100,000 reserves", || {
        let commands: Vec<_> = (0..HOLDS).map(|n| shop.reserve(n, HOLD_MS)).collect();
        shop.all_ok(commands.into_iter());
    });
    assert_eq!(shop.balance(), Balance { available: 0, held: HOLDS, sold: 0 });

    // One millisecond short: nothing is due, and sold out names the instant.
    shop.now = START_MS + HOLD_MS - 1;
    let (applied, _) = shop.apply(vec![shop.reserve(HOLDS, HOLD_MS)]);
    let truth = SoldOut::FirstBackAt(LedgerTime(START_MS + HOLD_MS));
    assert_eq!(applied.outcomes, [Outcome::Refused(Refusal::SoldOut { offer: shop.offer(), truth })]);

    // The very next command has the units, though hardly any hold is swept.
    shop.now += 1;
    let first = shop.id(HOLDS + 1);
    let commands = vec![
        Command::Confirm { id: shop.id(0), lines: None },
        shop.reserve(HOLDS + 1, 10 * HOLD_MS),
        Command::Confirm { id: shop.id(HOLDS - 1), lines: None },
    ];
    let (applied, record) = timed("the entry at the deadline", || shop.apply(commands));
    let expired = Outcome::Refused(Refusal::NotHeld { status: Status::Expired });
    assert_eq!(applied.outcomes[0], expired);
    assert!(matches!(applied.outcomes[1], Outcome::Ok(_)), "{:?}", applied.outcomes[1]);
    assert_eq!(applied.outcomes[2], expired);
    assert_eq!(shop.balance(), Balance { available: HOLDS - 1, held: 1, sold: 0 }, "exact at once");
    let mut swept: Vec<_> = record
        .expect("changes")
        .changes
        .iter()
        .filter_map(|c| match &c.kind {
            ChangeKind::ReservationExpired { id, deadline, .. } => Some((*deadline, *id)),
            _ => None,
        })
        .collect();
    assert!(swept.len() <= limits::EXPIRED_PER_ENTRY_MAX, "{} swept in one entry", swept.len());
    shop.audit();

    let (rest, entries) = timed("sweeping the rest", || shop.sweep());
    swept.extend(rest);
    assert_eq!(swept.len() as u64, HOLDS, "every hold expires once");
    assert!(swept.is_sorted(), "in (deadline, id) order");
    let least = (HOLDS as usize).div_ceil(limits::EXPIRED_PER_ENTRY_MAX);
    assert!(entries <= least, "{entries} entries to sweep, {least} suffice");
    assert_eq!(shop.balance(), Balance { available: HOLDS - 1, held: 1, sold: 0 });
    assert!(matches!(shop.ledger.id(first), IdView::Reservation(_)));
    shop.audit();
}

/// Ends a hold the way its number says: a third each is confirmed, released, and left to expire.
fn end(shop: &Shop, n: u64) -> Option<Command> {
    match n % 3 {
        0 => Some(Command::Confirm { id: shop.id(n), lines: None }),
        1 => Some(Command::Release { id: shop.id(n) }),
        _ => None,
    }
}

#[test]
fn a_million_live_holds_of_one_product() {
    const HOLDS: u64 = 1_000_000;
    let mut shop = Shop::new(HOLDS);
    timed("the first 100,000 reserves", || {
        let commands: Vec<_> = (0..HOLDS / 10).map(|n| shop.reserve(n, HOLD_MS + n)).collect();
        shop.all_ok(commands.into_iter());
    });
    let commands: Vec<_> = (HOLDS / 10..HOLDS * 9 / 10).map(|n| shop.reserve(n, HOLD_MS + n)).collect();
    timed("the next 800,000", || shop.all_ok(commands.into_iter()));
    timed("the last 100,000 (ten times the first would be a square)", || {
        let commands: Vec<_> = (HOLDS * 9 / 10..HOLDS).map(|n| shop.reserve(n, HOLD_MS + n)).collect();
        shop.all_ok(commands.into_iter());
    });
    assert_eq!(shop.balance(), Balance { available: 0, held: HOLDS, sold: 0 });
    assert_eq!(shop.ledger.totals().live, HOLDS);
    assert_eq!(shop.ledger.next_due(), Some(LedgerTime(START_MS + HOLD_MS)));

    // Repeating any of them takes nothing more.
    let again: Vec<_> = (0..BATCH).map(|n| shop.reserve(n * 250, HOLD_MS + n * 250)).collect();
    let (applied, record) = shop.apply(again);
    let replayed = |o: &Outcome| matches!(o, Outcome::Ok(Settled::Reservation(b)) if b.replayed);
    assert!(applied.outcomes.iter().all(replayed), "all are repeats");
    assert_eq!(record, None, "repeats change nothing");

    let ends: Vec<_> = (0..HOLDS).filter_map(|n| end(&shop, n)).collect();
    timed("333,334 confirms and 333,333 releases", || shop.all_ok(ends.into_iter()));
    let (sold, held) = (HOLDS.div_ceil(3), HOLDS / 3);
    assert_eq!(shop.balance(), Balance { available: HOLDS - sold - held, held, sold });

    // All that is left is due at once, from a million deadlines.
    shop.now = START_MS + HOLD_MS + HOLDS;
    let (_, _) = timed("the tick that makes 333,333 due", || shop.apply(vec![Command::Tick]));
    assert_eq!(shop.balance(), Balance { available: HOLDS - sold, held: 0, sold }, "exact at once");
    let (swept, entries) = timed("sweeping them", || shop.sweep());
    assert!(swept.is_sorted(), "in (deadline, id) order");
    let least = (held as usize).div_ceil(limits::EXPIRED_PER_ENTRY_MAX);
    assert!(entries < least + 1, "{entries} entries to sweep, {least} suffice");
    let most = BATCH as usize + limits::EXPIRED_PER_ENTRY_MAX + 2;
    assert!(shop.changes_max <= most, "{} changes in one entry, {most} are the bound here", shop.changes_max);
    timed("the audit", || shop.audit());
}

/// Freezing a large state and going on must not copy it: the frozen one stays as it was while entries are applied.
#[test]
fn a_frozen_state_stays_what_it_was() {
    const HOLDS: u64 = 200_000;
    let mut shop = Shop::new(HOLDS);
    let commands: Vec<_> = (0..HOLDS / 2).map(|n| shop.reserve(n, HOLD_MS)).collect();
    shop.all_ok(commands.into_iter());
    let digest = shop.ledger.digest();
    let frozen = timed("freezing 100,000 holds", || shop.ledger.freeze());
    let ends: Vec<_> = (0..HOLDS / 2).filter_map(|n| end(&shop, n)).collect();
    timed("ending most of them meanwhile", || shop.all_ok(ends.into_iter()));
    let more: Vec<_> = (HOLDS / 2..HOLDS).map(|n| shop.reserve(n, HOLD_MS)).collect();
    shop.all_ok(more.into_iter());
    let mut bytes = Vec::new();
    timed("writing the frozen one", || frozen.write(&mut bytes)).expect("memory takes bytes");
    println!("{} bytes, {} a hold", bytes.len(), bytes.len() as u64 / (HOLDS / 2));
    let mut thawed = timed("thawing it", || Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7)))
        .expect("own state thaws");
    assert_eq!(thawed.digest(), digest, "the state as of the freeze");
    let half = HOLDS / 2;
    let balance = thawed.offer(&shop.offer()).expect("known").balance;
    assert_eq!(balance, Balance { available: half, held: half, sold: 0 });
    let audit = thawed.audit();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
}

/// What a claim is answered with.
fn claimed(outcome: Outcome) -> Vec<Claimed> {
    match outcome {
        Outcome::Ok(Settled::Claimed(claimed)) => claimed,
        other => panic!("a claim is answered with orders: {other:?}"),
    }
}

/// Orders on top of the shop: two products in one slot, so that one shard has both.
struct Desk {
    shop: Shop,
    other: Sku,
}

impl Desk {
    fn new(units: u64) -> Self {
        let (sku, other) = (Sku::new("{desk}console").expect("a SKU"), Sku::new("{desk}lamp").expect("a SKU"));
        let mut shop = Shop::of(sku, units);
        shop.apply(vec![Command::CreateProduct { sku: other.clone(), policy: Policy::default() }]);
        shop.apply(vec![Command::Receive {
            offer: OfferKey { sku: other.clone(), sale: None },
            units: Units::new(units as i64).expect("units"),
            reference: Reference::new("delivery").expect("a reference"),
        }]);
        Self { shop, other }
    }

    fn place(&self, n: u64, sku: &Sku, pay_within_ms: u64) -> Command {
        let lines: Lines = [plain_line(sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect();
        let sealed = || Sealed::new(bytes::Bytes::from_static(&[7; 32])).expect("short enough");
        let details = OrderDetails {
            amount: Money::new(1_999, "EUR").expect("an amount"),
            pay_within_ms,
            payment: sealed(),
            contact: sealed(),
            suspect: false,
        };
        let reserve = Some((Default::default(), lines));
        Command::PlaceOrder { id: self.shop.id(n), details: Box::new(details), reserve }
    }

    fn all_placed(&mut self, commands: impl Iterator<Item = Command>) {
        let mut batch = Vec::new();
        let mut commands = commands.peekable();
        while let Some(command) = commands.next() {
            batch.push(command);
            if batch.len() as u64 == BATCH || commands.peek().is_none() {
                let (applied, _) = self.shop.apply(std::mem::take(&mut batch));
                let placed = |o: &Outcome| matches!(o, Outcome::Ok(Settled::Order(_)));
                assert!(applied.outcomes.iter().all(placed), "every order is placed");
            }
        }
    }

    fn claims(&self, max: u32, lease_ms: u64, attempt_ms: u64) -> Command {
        Command::ClaimOrders {
            slot: Slot::of(&self.shop.sku),
            worker: WorkerId::new("w1").expect("a name"),
            class: WorkClass::Money,
            max,
            lease_ms,
            attempt_ms,
        }
    }

    fn claim(&mut self, max: u32, lease_ms: u64, attempt_ms: u64) -> Vec<Claimed> {
        let command = self.claims(max, lease_ms, attempt_ms);
        let (mut applied, _) = self.shop.apply(vec![command]);
        claimed(applied.outcomes.remove(0))
    }

    fn sku_of(&self, claimed: &Claimed) -> Sku {
        claimed.lines[0].offer.sku.clone()
    }
}

/// A claim of a hundred from half a million waiting orders gives each once, in turns of products; at the deadline all of it is exact, and swept a bounded number an entry.
#[test]
fn half_a_million_waiting_orders() {
    const ORDERS: u64 = 500_000;
    let mut desk = Desk::new(ORDERS);
    let (sku, other) = (desk.shop.sku.clone(), desk.other.clone());
    let places: Vec<_> = (0..ORDERS - 1_000).map(|n| desk.place(n, &sku, HOLD_MS)).collect();
    timed("placing all but a thousand", || desk.all_placed(places.into_iter()));
    let places: Vec<_> = (ORDERS - 1_000..ORDERS).map(|n| desk.place(n, &other, HOLD_MS)).collect();
    timed("placing a thousand of another product", || desk.all_placed(places.into_iter()));
    assert_eq!(desk.shop.ledger.queue_stats().ready, [ORDERS, 0]);

    // Fair: of the first two thousand claimed each product has one in two, though one came first with half a million.
    let mut seen = std::collections::BTreeSet::new();
    timed("twenty claims of a hundred", || {
        for _ in 0..20 {
            let claimed = desk.claim(100, 30_000, 5_000);
            assert_eq!(claimed.len(), 100);
            let others = claimed.iter().filter(|c| desk.sku_of(c) == other).count();
            assert_eq!(others, 50, "every second turn is the other product's");
            assert!(claimed.iter().all(|c| seen.insert(c.id)), "one order, one lease");
        }
    });
    // The other product has none left.
    let rest = desk.claim(100, 30_000, 5_000);
    assert!(rest.iter().all(|c| desk.sku_of(c) == sku));
    seen.extend(rest.iter().map(|c| c.id));
    assert_eq!(desk.shop.ledger.queue_stats().leased, 2_100);

    // All leases end at once: they are ready again, behind those that wait already, and an entry sweeps a bounded number.
    desk.shop.now += 30_000;
    timed("a tick that ends 2,100 leases", || desk.shop.apply(vec![Command::Tick]));
    assert_eq!(desk.shop.ledger.queue_stats().ready, [ORDERS, 0]);

    // Half a million have too little time left: a claim looks at a bounded number, and each is put aside once.
    desk.shop.now = START_MS + HOLD_MS - 1_000;
    let late = ORDERS.div_ceil(limits::LATE_PER_ENTRY_MAX as u64);
    timed("claims that put all of them aside", || {
        for _ in 0..late {
            assert_eq!(desk.claim(1, 30_000, 5_000), []);
        }
    });
    timed("a thousand claims more", || {
        for _ in 0..1_000 {
            assert_eq!(desk.claim(1, 30_000, 5_000), []);
        }
    });
    let taken_back = desk.claim(10, 30_000, 1_000);
    assert_eq!(taken_back.len(), 10, "who needs less takes them");
    seen.extend(taken_back.iter().map(|c| c.id));

    // At the deadline: those never claimed expire, the others settle; what is not swept is *not now*, and nothing is given twice.
    desk.shop.now = START_MS + HOLD_MS;
    let last = *seen.last().expect("claimed");
    let fact = Fact::Paid {
        payment: ProviderId::new("p1").expect("an id"),
        amount: Money::new(1_999, "EUR").expect("an amount"),
    };
    let (applied, _) = desk.shop.apply(vec![Command::RecordFact { id: last, fact }]);
    let not_now = Outcome::NotNow(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });
    assert_eq!(applied.outcomes, [not_now]);
    let view = desk.shop.ledger.order(last).expect("known");
    assert_eq!((view.brief.phase, view.step), (Phase::Settling, Some(Step::Settle)), "due counts as swept in reads");
    assert_eq!(desk.shop.balance().held, 0, "exact at once");
    let (_, entries) = timed("sweeping them", || desk.shop.sweep());
    assert!(entries <= (ORDERS as usize).div_ceil(limits::EXPIRED_PER_ENTRY_MAX), "{entries} entries to sweep");
    let stats = desk.shop.ledger.queue_stats();
    assert_eq!(stats.ready[0] + stats.ready[1], ORDERS, "all of them have a step to take: {stats:?}");
    assert_eq!(stats.ready[0], seen.len() as u64, "those ever claimed settle");
    timed("the audit", || desk.shop.audit());
}

/// A worker that says an attempt takes very long stands beside one that needs little: however often
/// it asks, the other has the oldest orders first.
#[test]
fn claims_that_need_little_time_have_the_oldest_orders_first() {
    const ORDERS: u64 = 50_000;
    const LONG_MS: u64 = 3_600_000;
    let mut desk = Desk::new(ORDERS);
    let sku = desk.shop.sku.clone();
    let places: Vec<_> = (0..ORDERS).map(|n| desk.place(n, &sku, HOLD_MS + n)).collect();
    desk.all_placed(places.into_iter());
    let mut oldest = 0..ORDERS;
    let mut next = |desk: &Desk, count: usize| -> Vec<ReservationId> {
        oldest.by_ref().take(count).map(|n| desk.shop.id(n)).collect()
    };
    let ids = |claimed: &[Claimed]| claimed.iter().map(|c| c.id).collect::<Vec<_>>();

    // In one entry: what the first claim puts aside, the second takes back.
    let claims = vec![desk.claims(10, 30_000, LONG_MS), desk.claims(10, 30_000, 5_000)];
    let (applied, _) = desk.shop.apply(claims);
    let both: Vec<_> = applied.outcomes.into_iter().map(claimed).collect();
    assert_eq!((ids(&both[0]), ids(&both[1])), (vec![], next(&desk, 10)));

    // In entries of their own, with all of them put aside in between.
    for _ in 0..4 {
        for _ in 0..ORDERS.div_ceil(limits::LATE_PER_ENTRY_MAX as u64) {
            assert_eq!(desk.claim(10, 30_000, LONG_MS), []);
        }
        assert_eq!(ids(&desk.claim(10, 30_000, 5_000)), next(&desk, 10));
    }
    desk.shop.audit();
}

/// What claims put aside is bounded for their entry, however many claims it has.
#[test]
fn claims_of_one_entry_share_the_bound_of_what_they_put_aside() {
    const LATE: u64 = 2 * limits::LATE_PER_ENTRY_MAX as u64 + 10;
    let mut desk = Desk::new(LATE + 1);
    let sku = desk.shop.sku.clone();
    let places: Vec<_> = (0..LATE).map(|n| desk.place(n, &sku, HOLD_MS)).collect();
    desk.all_placed(places.into_iter());
    let last = desk.place(LATE, &sku, 3 * HOLD_MS);
    desk.all_placed(std::iter::once(last));

    // Only the last order has time enough, and it stands behind all others.
    let claims = vec![desk.claims(10, 30_000, 2 * HOLD_MS); 8];
    for given in [0, 0, 1] {
        let (applied, _) = desk.shop.apply(claims.clone());
        let ids: Vec<_> = applied.outcomes.into_iter().flat_map(claimed).map(|c| c.id).collect();
        assert_eq!(ids, [desk.shop.id(LATE)][..given]);
    }
    desk.shop.audit();
}

/// Whole entries of holds that end at once are more than an entry sweeps: new holds wait as soon as
/// too many are due, and those that wait are swept.
#[test]
fn holds_that_are_due_and_not_swept_are_bounded() {
    const DUE: u64 = (limits::HOLDS_DUE_MAX + limits::EXPIRED_PER_ENTRY_MAX + 1) as u64;
    let mut desk = Desk::new(2 * DUE);
    let sku = desk.shop.sku.clone();
    let commands: Vec<_> = (0..DUE).map(|n| desk.shop.reserve(n, HOLD_MS)).collect();
    desk.shop.all_ok(commands.into_iter());
    desk.shop.all_ok(std::iter::once(desk.shop.reserve(DUE, 10 * HOLD_MS)));

    desk.shop.now = START_MS + HOLD_MS;
    let not_now = Outcome::NotNow(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });
    let (applied, record) = desk.shop.apply(vec![
        desk.shop.reserve(DUE + 1, 1),
        desk.place(DUE + 2, &sku, 1),
        desk.shop.reserve(DUE, 10 * HOLD_MS),
        Command::Confirm { id: desk.shop.id(DUE), lines: None },
    ]);
    assert_eq!(applied.outcomes[..2], [not_now.clone(), not_now.clone()], "no new hold");
    for outcome in &applied.outcomes[2..] {
        assert!(matches!(outcome, Outcome::Ok(_)), "what is held goes on: {outcome:?}");
    }
    assert_eq!(desk.shop.ledger.id(desk.shop.id(DUE + 1)), IdView::Unknown, "nothing happened");
    let expired = |record: Option<Record>| {
        let changes = record.map_or(Vec::new(), |record| record.changes);
        changes.iter().filter(|c| matches!(c.kind, ChangeKind::ReservationExpired { .. })).count()
    };
    let mut unswept = DUE as usize - expired(record);
    assert_eq!(unswept, limits::HOLDS_DUE_MAX + 1);

    let (mut taken, mut waited) = (0, 0);
    for entry in 0..12 {
        desk.shop.now += 1;
        let from = 2 * DUE + entry * limits::COMMANDS_PER_ENTRY_MAX as u64;
        let flood = (from..from + limits::COMMANDS_PER_ENTRY_MAX as u64).map(|n| desk.shop.reserve(n, 1)).collect();
        let (applied, record) = desk.shop.apply(flood);
        let held = applied.outcomes.iter().filter(|o| matches!(o, Outcome::Ok(_))).count();
        waited += applied.outcomes.iter().filter(|o| **o == not_now).count();
        taken += held;
        unswept = unswept + held - expired(record);
        let most = limits::HOLDS_DUE_MAX + limits::COMMANDS_PER_ENTRY_MAX;
        assert!(unswept <= most, "{unswept} holds wait for the sweep, at most {most} may");
    }
    assert!(taken > 0 && waited > 0, "{taken} taken, {waited} waited");
    desk.shop.sweep();
    desk.shop.all_ok(std::iter::once(desk.shop.reserve(DUE + 1, 1)));
    desk.shop.audit();
}

/// Two products of a thousand orders each: whatever is claimed how often, no product is ever two turns ahead.
#[test]
fn two_products_with_a_thousand_orders_each_take_turns() {
    let mut desk = Desk::new(10_000);
    let (sku, other) = (desk.shop.sku.clone(), desk.other.clone());
    let places: Vec<_> = (0..1_000).map(|n| desk.place(n, &sku, HOLD_MS)).collect();
    desk.all_placed(places.into_iter());
    let places: Vec<_> = (1_000..2_000).map(|n| desk.place(n, &other, HOLD_MS)).collect();
    desk.all_placed(places.into_iter());
    let (mut ahead, mut given) = (0_i32, 0);
    for max in (1..=7).cycle() {
        let claimed = desk.claim(max, 30_000, 0);
        if claimed.is_empty() {
            break;
        }
        for one in &claimed {
            ahead += if desk.sku_of(one) == sku { 1 } else { -1 };
            assert!((-1..=1).contains(&ahead), "one product is {ahead} turns ahead after {given}");
            given += 1;
        }
    }
    assert_eq!(given, 2_000);
    desk.shop.audit();
}

/// However many may be asked for, an answer is bounded by its bytes, and all claims of an entry by their number.
#[test]
fn answers_to_claims_are_bounded() {
    const ORDERS: u64 = 2_000;
    let mut desk = Desk::new(ORDERS);
    let sku = desk.shop.sku.clone();
    let large = |n: u64| {
        let Command::PlaceOrder { id, mut details, reserve } = desk.place(n, &sku, HOLD_MS) else { unreachable!() };
        let sealed = || Sealed::new(vec![7; limits::SEALED_BYTES_MAX]).expect("just so");
        (details.payment, details.contact) = (sealed(), sealed());
        Command::PlaceOrder { id, details, reserve }
    };
    let places: Vec<_> = (0..ORDERS).map(large).collect();
    desk.all_placed(places.into_iter());
    let claimed = desk.claim(limits::CLAIM_MAX, 30_000, 0);
    let bytes: usize = claimed.iter().map(|c| c.payment.as_bytes().len() + c.contact.as_bytes().len()).sum();
    assert!(bytes > limits::CLAIMED_BYTES_MAX / 2 && bytes <= limits::CLAIMED_BYTES_MAX, "{bytes} bytes of content");
}
