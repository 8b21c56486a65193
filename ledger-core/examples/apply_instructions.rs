//! Decodes and applies reserves and asks no clock: for counting instructions, which are the same however busy the machine is.
//!
//! `cargo build --release -p ledger-core --example apply_instructions`, then
//! `valgrind --tool=callgrind target/release/examples/apply_instructions limits 100000 250` and
//! `callgrind_annotate --inclusive=yes callgrind.out.*`. The first argument is what reserves carry: `plain` (no key), `keys` (a key that no limit counts by) or
//! `limits`; then how many there are, and how many an entry. What decodes is in `decode`, what decides in `Ledger::apply`.
//! **Owns** nothing. **Must never** be a test: it measures, it does not check. **Read next**: `apply_bench.rs`, which tells times.

use std::hint::black_box;

use ledger_core::codec::{decode_entry, encode_entry};
use ledger_core::command::{Command, Entry, plain_line};
use ledger_core::{
    Ledger, LedgerTime, LimitKey, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units, limits,
};

const START_MS: u64 = 1_700_000_000_000;

struct Shard {
    ledger: Ledger,
    index: u64,
}

impl Shard {
    fn apply(&mut self, entry: &Entry) {
        self.index += 1;
        black_box(self.ledger.apply(1, self.index, entry));
    }
}

#[inline(never)]
fn decode(stamp: LedgerTime, bytes: &[u8]) -> Entry {
    decode_entry(stamp, bytes).expect("own entry decodes")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let carries = args.first().map_or("limits", String::as_str);
    assert!(matches!(carries, "plain" | "keys" | "limits"), "plain, keys or limits");
    let number = |at: usize, or: u64| args.get(at).map_or(or, |text| text.parse().expect("a number"));
    let (count, batch) = (number(1, 100_000), number(2, 250).clamp(1, limits::COMMANDS_PER_ENTRY_MAX as u64));

    let sku = Sku::new("sneaker-42").expect("a SKU");
    let (slot, offer) = (Slot::of(&sku), OfferKey { sku: sku.clone(), sale: None });
    let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
    let policy = Policy { per_key_max: (carries == "limits").then_some(4), ..Policy::default() };
    let mut shard = Shard { ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)), index: 0 };
    for command in [
        Command::OwnSlots { generation: 1, ranges: vec![all] },
        Command::CreateProduct { sku: sku.clone(), policy },
        Command::Receive {
            offer,
            units: Units::new(1 << 40).expect("units"),
            reference: Reference::new("delivery").expect("a reference"),
        },
    ] {
        shard.apply(&Entry { stamp: LedgerTime(START_MS), commands: vec![command] });
    }

    let mut done = 0;
    while done < count {
        let now = START_MS + 2 * shard.index;
        let reserves: Vec<Command> = (done..count.min(done + batch))
            .map(|n| {
                let key = || LimitKey::new(format!("buyer-{n:07}")).expect("a key");
                Command::Reserve {
                    id: ReservationId::from_parts(slot, now, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    keys: (carries != "plain").then(key).into_iter().collect(),
                    lines: [plain_line(sku.clone(), Quantity::new(1).expect("one"))].into_iter().collect(),
                    hold_ms: None,
                }
            })
            .collect();
        done += reserves.len() as u64;
        let bytes = encode_entry(&reserves);
        shard.apply(&decode(LedgerTime(now), &bytes));
    }
}
