//! An audit of a frozen view takes its table beside the view, however many records there are. One test, alone in its process: the
//! allocator's count is the process's.
//!
//! **Owns** the bound on what an audit takes. **Must never** share its process with another test. **Read next**: `memory.rs`.

use ledger_core::command::{Command, plain_line};
use ledger_core::{
    Entry, IndexSeed, Ledger, LedgerTime, LimitKey, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot,
    Units, limits,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const START_MS: u64 = 1_700_000_000_000;
const BATCH: u64 = 1_000;
const TABLE: usize = 1 << 20;
/// Room of one entry more than the mean in each part, the sums of one product, and texts.
const SLACK: usize = TABLE / 8 + (16 << 10);

/// Holds with a key each, whose ids and counters are a multiple of the table.
fn ledger_of(holds: u64) -> Ledger {
    let mut ledger = Ledger::new(1, 1, IndexSeed(7));
    let sku = Sku::new("console").expect("a SKU");
    let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
    let policy = Policy { per_key_max: Some(4), ..Policy::default() };
    let offer = OfferKey { sku: sku.clone(), sale: None };
    let (units, reference) = (Units::new(1 << 40).expect("units"), Reference::new("first").expect("a reference"));
    let mut index = 1;
    let mut apply = |commands: Vec<Command>| {
        ledger.apply(1, index, &Entry { stamp: LedgerTime(START_MS), commands });
        index += 1;
    };
    apply(vec![
        Command::OwnSlots { generation: 1, ranges: vec![all] },
        Command::CreateProduct { sku: sku.clone(), policy },
        Command::Receive { offer, units, reference },
    ]);
    for batch in 0..holds / BATCH {
        let reserve = |n: u64| Command::Reserve {
            id: ReservationId::from_parts(Slot::of(&sku), START_MS, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            keys: [LimitKey::new(format!("buyer-{n}")).expect("a key")].into_iter().collect(),
            lines: [plain_line(sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect(),
            hold_ms: None,
        };
        apply((batch * BATCH..(batch + 1) * BATCH).map(reserve).collect());
    }
    ledger
}

#[test]
fn audit_takes_a_table_beside_the_view_however_many_records_there_are() {
    for holds in [100_000, 400_000] {
        let mut ledger = ledger_of(holds);
        let view = ledger.freeze_for_audit();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let audit = view.audit_within(TABLE, &mut ());
        let beside = MEMORY.peak_usage().saturating_sub(before);
        assert_eq!((audit.findings, audit.totals.live), (Vec::new(), holds));
        println!("{holds} holds: {beside} bytes beside the view");
        assert!(beside > TABLE / 2, "{holds} holds: {beside} bytes: its passes are more than they need be");
        assert!(beside <= TABLE + SLACK, "{holds} holds: {beside} bytes beside the view");
    }
}
