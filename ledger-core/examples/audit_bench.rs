//! What an audit of a frozen view costs: seconds, and bytes beside the view.
//!
//! `cargo run --release -p ledger-core --example audit_bench` (add a number of reservations, default five million, and bytes of a table, default the
//! limit). Every reservation has a limit key of its own; of four, two hold, one was sold, one was released; there is a refusal for eight of them.
//! **Owns** nothing. **Must never** be a test: it measures, it does not check. **Read next**: `src/audit/frozen.rs`.

use std::time::Duration;

use ledger_core::command::{Command, Entry, plain_line};
use ledger_core::ledger::AuditObserver;
use ledger_core::{
    IndexSeed, Ledger, LedgerTime, LimitKey, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units,
    limits,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const START_MS: u64 = 1_700_000_000_000;
const BATCH: u64 = 4_000;
const PRODUCTS: u64 = 1_000;
/// The audit in place takes as much memory again: it is compared up to so many reservations.
const IN_PLACE_MAX: u64 = 5_000_000;
const MIB: f64 = 1_048_576.0;

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

struct Shop {
    ledger: Ledger,
    index: u64,
    skus: Vec<Sku>,
}

impl Shop {
    fn new() -> Self {
        let skus = (0..PRODUCTS).map(|n| Sku::new(format!("{{hot}}-{n:05}")).expect("a SKU")).collect();
        let mut shop = Self { ledger: Ledger::new(1, 1, IndexSeed(7)), index: 0, skus };
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        shop.apply(vec![Command::OwnSlots { generation: 1, ranges: vec![all] }]);
        let policy = Policy {
            per_key_max: Some(4),
            hold_ms_default: 7 * 24 * 3_600_000,
            hold_ms_max: 7 * 24 * 3_600_000,
            ..Policy::default()
        };
        for sku in shop.skus.clone() {
            let offer = OfferKey { sku: sku.clone(), sale: None };
            let (units, reference) =
                (Units::new(1 << 40).expect("units"), Reference::new("first").expect("a reference"));
            let policy = policy.clone();
            shop.apply(vec![Command::CreateProduct { sku, policy }, Command::Receive { offer, units, reference }]);
        }
        shop
    }

    fn apply(&mut self, commands: Vec<Command>) {
        self.index += 1;
        self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(START_MS + self.index), commands });
    }

    /// Reserves so many, and ends half of them.
    fn fill(&mut self, count: u64) {
        for batch in 0..count / BATCH {
            let mut commands = Vec::new();
            for n in batch * BATCH..(batch + 1) * BATCH {
                let sku = self.skus[(n % PRODUCTS) as usize].clone();
                let now = START_MS + self.index;
                let id = ReservationId::from_parts(Slot::of(&sku), now, n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let key = LimitKey::new(format!("buyer-{n:016}")).expect("a key");
                let line = plain_line(sku, Quantity::new(1 + (n % 3) as i64).expect("a quantity"));
                commands.push(Command::Reserve {
                    id,
                    keys: [key].into_iter().collect(),
                    lines: [line].into_iter().collect(),
                    hold_ms: None,
                });
                match n % 4 {
                    0 => commands.push(Command::Confirm { id, lines: None }),
                    1 => commands.push(Command::Release { id }),
                    _ => {}
                }
                if n % 8 == 7 {
                    let id = ReservationId::from_parts(id.slot(), now, !n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    commands.push(Command::Fence { id });
                }
            }
            self.apply(commands);
        }
    }
}

#[derive(Default)]
struct Reads(u64);

impl AuditObserver for Reads {
    fn progress(&mut self, read: u64, _of: u64) {
        self.0 = read;
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let count = numbers.next().unwrap_or(5_000_000);
    let table = numbers.next().map_or(limits::AUDIT_TABLE_BYTES, |bytes| bytes as usize);
    let mut shop = Shop::new();
    shop.fill(count);
    let all = MEMORY.current_usage();
    let began = cpu();
    let view = shop.ledger.freeze_for_audit();
    let froze = cpu() - began;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut reads = Reads::default();
    let began = cpu();
    let audit = view.audit_within(table, &mut reads);
    let took = cpu() - began;
    let peak = MEMORY.peak_usage().saturating_sub(before);
    println!(
        "{count} reservations, {:.0} MiB in all; frozen in {:.1} ms with {:.1} MiB",
        all as f64 / MIB,
        froze.as_secs_f64() * 1e3,
        before.saturating_sub(all) as f64 / MIB
    );
    println!(
        "audited in {:.2} s, {} records read, {:.0} ns each, {:.1} MiB beside the view (tables of {:.1} MiB), {} findings",
        took.as_secs_f64(),
        reads.0,
        took.as_secs_f64() * 1e9 / reads.0.max(1) as f64,
        peak as f64 / MIB,
        table as f64 / MIB,
        audit.findings.len()
    );
    if count > IN_PLACE_MAX {
        return;
    }
    let began = cpu();
    let in_place = shop.ledger.audit();
    let took = cpu() - began;
    println!("in place: {:.2} s, {} findings", took.as_secs_f64(), in_place.findings.len());
}
