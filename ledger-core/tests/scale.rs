//! Sizes that must cost what their number says: 100,000 holds due in one millisecond, a million live holds of one product.
//!
//! What is asserted is counted work (entries, changes, order), never time; times are printed for the reader
//! (`cargo test -p ledger-core --test scale -- --nocapture`).
//!
//! **Owns** the large shapes. **Must never** fail because a machine is slow. **Read next**: `random.rs`.

use ledger_core::change::Record;
use ledger_core::codec::decode_record;
use ledger_core::command::{Command, Lines, plain_line};
use ledger_core::outcome::{Balance, Outcome, Refusal, Settled, SoldOut, Status};
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
        let sku = Sku::new("console").expect("a SKU");
        let mut shop = Self { ledger: Ledger::new(1, 1), index: 0, now: START_MS, sku, changes_max: 0 };
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

    fn audit(&self) {
        let audit = self.ledger.audit();
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    }
}

/// Prints how long a part took; nothing is asserted about it.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the printed figures are for the reader alone")]
fn told<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let done = work();
    println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    done
}

#[test]
fn a_hundred_thousand_holds_due_in_one_millisecond() {
    const HOLDS: u64 = 100_000;
    let mut shop = Shop::new(HOLDS);
    told("100,000 reserves", || {
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
    let (applied, record) = told("the entry at the deadline", || shop.apply(commands));
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

    let (rest, entries) = told("sweeping the rest", || shop.sweep());
    swept.extend(rest);
    assert_eq!(swept.len() as u64, HOLDS, "every hold is told once");
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
    told("the first 100,000 reserves", || {
        let commands: Vec<_> = (0..HOLDS / 10).map(|n| shop.reserve(n, HOLD_MS + n)).collect();
        shop.all_ok(commands.into_iter());
    });
    let commands: Vec<_> = (HOLDS / 10..HOLDS * 9 / 10).map(|n| shop.reserve(n, HOLD_MS + n)).collect();
    told("the next 800,000", || shop.all_ok(commands.into_iter()));
    told("the last 100,000 (ten times the first would be a square)", || {
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
    told("333,334 confirms and 333,333 releases", || shop.all_ok(ends.into_iter()));
    let (sold, held) = (HOLDS.div_ceil(3), HOLDS / 3);
    assert_eq!(shop.balance(), Balance { available: HOLDS - sold - held, held, sold });

    // All that is left is due at once, from a million deadlines.
    shop.now = START_MS + HOLD_MS + HOLDS;
    let (_, _) = told("the tick that makes 333,333 due", || shop.apply(vec![Command::Tick]));
    assert_eq!(shop.balance(), Balance { available: HOLDS - sold, held: 0, sold }, "exact at once");
    let (swept, entries) = told("sweeping them", || shop.sweep());
    assert!(swept.is_sorted(), "in (deadline, id) order");
    let least = (held as usize).div_ceil(limits::EXPIRED_PER_ENTRY_MAX);
    assert!(entries < least + 1, "{entries} entries to sweep, {least} suffice");
    let most = BATCH as usize + limits::EXPIRED_PER_ENTRY_MAX + 2;
    assert!(shop.changes_max <= most, "{} changes in one entry, {most} are the bound here", shop.changes_max);
    told("the audit", || shop.audit());
}

/// Freezing a large state and going on must not copy it: the frozen one stays as it was while entries are applied.
#[test]
fn a_frozen_state_stays_what_it_was() {
    const HOLDS: u64 = 200_000;
    let mut shop = Shop::new(HOLDS);
    let commands: Vec<_> = (0..HOLDS / 2).map(|n| shop.reserve(n, HOLD_MS)).collect();
    shop.all_ok(commands.into_iter());
    let digest = shop.ledger.digest();
    let frozen = told("freezing 100,000 holds", || shop.ledger.freeze());
    let ends: Vec<_> = (0..HOLDS / 2).filter_map(|n| end(&shop, n)).collect();
    told("ending most of them meanwhile", || shop.all_ok(ends.into_iter()));
    let more: Vec<_> = (HOLDS / 2..HOLDS).map(|n| shop.reserve(n, HOLD_MS)).collect();
    shop.all_ok(more.into_iter());
    let mut bytes = Vec::new();
    told("writing the frozen one", || frozen.write(&mut bytes)).expect("memory takes bytes");
    println!("{} bytes, {} a hold", bytes.len(), bytes.len() as u64 / (HOLDS / 2));
    let mut thawed = told("thawing it", || Ledger::thaw(&mut bytes.as_slice())).expect("own state thaws");
    assert_eq!(thawed.digest(), digest, "the state as of the freeze");
    let half = HOLDS / 2;
    let balance = thawed.offer(&shop.offer()).expect("known").balance;
    assert_eq!(balance, Balance { available: half, held: half, sold: 0 });
    let audit = thawed.audit();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
}
