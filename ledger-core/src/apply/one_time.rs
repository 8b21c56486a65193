//! Very many records of one time: a replica that has seen them come and go decides as one that read a snapshot in between.
//!
//! **Owns** that comparison, with more of one time than is put in order when it comes. **Must never** need the long run of another test.
//! **Read next**: [`crate::state::due`].

use crate::command::{Command, Entry, LimitKeys, plain_line};
use crate::ledger::Ledger;
use crate::limits;
use crate::types::{LedgerTime, Policy, Quantity, Reference, ReservationId, ShardSettings, Sku, Slot, Units};

const START_MS: u64 = 1_700_000_000_000;
const HOLD_MS: u64 = 60_000;
/// Ten times what is put in order at once in test builds.
const HOLDS: u64 = 640;

struct Replicas {
    all: Vec<Ledger>,
    index: u64,
    now: u64,
}

impl Replicas {
    /// All replicas decide alike, in outcomes, records and digests.
    fn apply(&mut self, commands: Vec<Command>) {
        self.index += 1;
        let entry = Entry { stamp: LedgerTime(self.now), commands };
        let mut applied = self.all.iter_mut().map(|ledger| {
            let applied = ledger.apply(1, self.index, &entry);
            (applied.outcomes, applied.record, ledger.digest())
        });
        let first = applied.next().expect("there is one");
        applied.for_each(|other| assert_eq!(other, first, "entry {}", self.index));
    }

    /// One more, from a snapshot of the first; it was frozen before some entries and is written after them.
    fn restore(&mut self, entries: impl FnOnce(&mut Self)) {
        let frozen = self.all[0].freeze();
        let at = self.all[0].position().index;
        entries(self);
        let mut bytes = Vec::new();
        frozen.write(&mut bytes).expect("memory takes bytes");
        let seed = crate::IndexSeed(u128::from(self.index));
        let restored = Ledger::thaw(&mut bytes.as_slice(), seed).expect("its own snapshot");
        assert_eq!(restored.position().index, at);
    }

    /// One more, from a snapshot of the first as it is now.
    fn join(&mut self) {
        let mut bytes = Vec::new();
        self.all[0].freeze().write(&mut bytes).expect("memory takes bytes");
        let seed = crate::IndexSeed(u128::from(self.index));
        self.all.push(Ledger::thaw(&mut bytes.as_slice(), seed).expect("its own snapshot"));
    }
}

fn sku() -> Sku {
    Sku::new("console").expect("a SKU")
}

fn id(n: u64) -> ReservationId {
    // In no order.
    ReservationId::from_parts(Slot::of(&sku()), START_MS, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn reserve(n: u64, hold_ms: u64) -> Command {
    let line = plain_line(sku(), Quantity::new(1).expect("one"));
    Command::Reserve { id: id(n), keys: LimitKeys::new(), lines: [line].into_iter().collect(), hold_ms: Some(hold_ms) }
}

#[test]
fn very_many_holds_of_one_deadline_end_and_are_forgotten_alike_on_replicas_that_read_snapshots() {
    let mut replicas = Replicas { all: vec![Ledger::new(1, 1, crate::IndexSeed(7))], index: 0, now: START_MS };
    let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
    let offer = crate::types::OfferKey { sku: sku(), sale: None };
    let policy = Policy { hold_ms_max: 10 * HOLD_MS, ..Policy::default() };
    let (units, reference) = (Units::new(100_000).expect("units"), Reference::new("d").expect("a reference"));
    replicas.apply(vec![
        Command::OwnSlots { generation: 1, ranges: all },
        Command::Configure { settings: ShardSettings { retain_ended_ms: 30_000, ..ShardSettings::default() } },
        Command::CreateProduct { sku: sku(), policy },
        Command::Receive { offer, units, reference },
    ]);
    replicas.apply((0..HOLDS).map(|n| reserve(n, HOLD_MS)).collect());
    let deadline = START_MS + HOLD_MS;
    replicas.join();
    // Some leave, others come to the same deadline in their places, and some go away and come back.
    replicas.now += 10;
    replicas.restore(|replicas| {
        replicas.apply((0..HOLDS).filter(|n| n % 3 == 0).map(|n| Command::Release { id: id(n) }).collect());
    });
    replicas.apply((HOLDS..HOLDS + 200).map(|n| reserve(n, HOLD_MS - 10)).collect());
    for (replaces, hold_ms) in [(deadline, 2 * HOLD_MS), (START_MS + 10 + 2 * HOLD_MS, HOLD_MS - 10)] {
        let extend = |n| Command::Extend { id: id(n), replaces: LedgerTime(replaces), hold_ms };
        replicas.apply((0..HOLDS + 200).filter(|n| n % 7 == 1).map(extend).collect());
    }
    replicas.join();
    // The deadline comes; what is swept then is remembered, all with the same end, and forgotten by id.
    replicas.now = deadline;
    replicas.apply(vec![Command::Tick]);
    assert_eq!(replicas.all[0].totals().live, 0);
    replicas.join();
    let remembered = replicas.all[0].totals().remembered;
    // What was released is forgotten by then.
    assert_eq!(remembered, HOLDS + 200 - HOLDS.div_ceil(3));
    let settings =
        ShardSettings { retain_ended_ms: 30_000, remembered_max: remembered - 300, ..ShardSettings::default() };
    replicas.now += limits::FORGET_GUARD_MS;
    replicas.apply(vec![Command::Configure { settings }]);
    assert_eq!(replicas.all[0].totals().remembered, remembered - 300);
    replicas.join();
    replicas.now = deadline + 40_000;
    replicas.apply(vec![Command::Tick]);
    assert_eq!(replicas.all[0].totals().remembered, 0);
    assert_eq!(replicas.all.len(), 5);
    for ledger in &replicas.all {
        assert_eq!(ledger.audit().findings.len(), 0, "{:?}", ledger.audit().findings);
    }
}
