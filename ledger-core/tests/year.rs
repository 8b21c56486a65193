//! A shop's year over the core: what memory each kind of record takes, day by day, and that none grows for ever.
//!
//! **What it is.** The days of [`shop`], and every tenth night a snapshot and restart.
//!
//! `HOLDFAST_YEAR_DAYS=470 cargo test --release -p ledger-core --test year -- --nocapture` is the long form: it prints every week, and
//! lasts longer than references are remembered.
//! **Owns** that the curves are flat. **Must never** measure time to judge by it. **Read next**: `memory.rs`.

mod shop;

use ledger_core::view::MemoryUse;
use ledger_core::{IndexSeed, Ledger, limits};
use shop::{DAY_MS, RETAIN_DAYS, Shop};

const DAYS_DEFAULT: u64 = 70;
/// References of deliveries are remembered so long that a short run does not see them go.
const REFERENCES: (&str, u64) = ("references", limits::REFERENCE_KEPT_MS / DAY_MS);

/// What a node does with the newest snapshot.
fn restart(shop: &mut Shop) {
    let mut bytes = Vec::new();
    shop.ledger.freeze().write(&mut bytes).expect("memory takes bytes");
    let digest = shop.ledger.digest();
    let mut again = Ledger::thaw(&mut bytes.as_slice(), IndexSeed(shop.index.into())).expect("its own snapshot");
    assert_eq!(again.digest(), digest);
    shop.ledger = again;
}

/// The most of a kind over a week.
fn most(week: &[MemoryUse], kind: usize) -> u64 {
    week.iter().map(|day| day.by_kind()[kind].1).max().expect("a week has days")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "for how long the test runs is nothing that replicas agree on")]
fn memory_of_a_shop_is_the_same_week_after_week_once_its_retention_has_passed() {
    let days = std::env::var("HOLDFAST_YEAR_DAYS").ok().map_or(DAYS_DEFAULT, |days| days.parse().expect("days"));
    let buyers = if days > DAYS_DEFAULT { 24_000 } else { 2_400 };
    let mut shop = Shop::new();
    let mut memory = Vec::new();
    for day in 0..days {
        shop.day(day, buyers);
        memory.push(shop.ledger.memory_use());
        if day % 10 == 9 {
            restart(&mut shop);
        }
        if day % 7 == 6 && days > DAYS_DEFAULT {
            let totals = shop.ledger.totals();
            println!("day {day}: {:?}, {} sold, {} remembered", memory[day as usize], totals.sold, totals.remembered);
        }
    }
    assert_eq!(shop.ledger.audit().findings, []);
    let weeks: Vec<&[MemoryUse]> = memory.chunks_exact(7).collect();
    // The retention, a week in which it took effect, and from then on nothing may rise.
    let steady = |retained: u64| weeks.get((retained / 7 + 2) as usize..).filter(|weeks| weeks.len() >= 4);
    for (kind, (name, _)) in memory[0].by_kind().into_iter().enumerate() {
        let retained = if name == REFERENCES.0 { REFERENCES.1 } else { RETAIN_DAYS };
        let Some(steady) = steady(retained) else {
            assert_eq!(name, REFERENCES.0, "{days} days are too few");
            continue;
        };
        let (first, last) = (most(steady[0], kind), most(steady[steady.len() - 1], kind));
        let rises = last > first + first / 10;
        assert!(!rises, "{name}: {first} bytes in a week, {last} in the last one");
    }
}
