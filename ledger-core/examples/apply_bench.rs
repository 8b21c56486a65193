//! What a command costs in the core: nanoseconds a reserve, what each feature adds, bytes a record, what an order costs, a mass expiry, a
//! freeze.
//!
//! `cargo run --release -p ledger-core --example apply_bench` (add a number of reservations; default two million).
//! Every figure is CPU time of this thread, the median of three runs of the same entries, decode and apply apart. Features are told by difference: the same
//! entries with one thing less. **Owns** nothing. **Must never** be a test: it measures, it does not check.
//! **Read next**: `src/apply/reserve.rs`.

use std::time::Duration;

use ledger_core::codec::{decode_entry, encode_entry};
use ledger_core::command::{Command, Entry, plain_line};
use ledger_core::order::{Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId};
use ledger_core::outcome::{Outcome, Settled};
use ledger_core::{
    Ledger, LedgerTime, LimitKey, OfferKey, Policy, Quantity, Reference, ReservationId, SaleId, Sku, Slot, Units,
    limits,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// This thread's CPU time: what else runs on the machine counts only through its caches.
#[derive(Clone, Copy)]
struct Cpu(Duration);

impl Cpu {
    fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }
    fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}

const START_MS: u64 = 1_700_000_000_000;
const BATCH: u64 = 8_190;
const RUNS: usize = 3;

struct Bench {
    ledger: Ledger,
    index: u64,
    now: u64,
    next_id: u64,
    skus: Vec<Sku>,
}

/// What a run of reserves is made of.
#[derive(Clone, Copy)]
struct Shape {
    keyed: bool,
    products: usize,
    limit: bool,
    /// So many buyers, who come back.
    buyers: u64,
}

impl Bench {
    fn new(shape: Shape, units: i64) -> Self {
        let skus: Vec<Sku> = (0..shape.products).map(|n| Sku::new(format!("{{hot}}-{n:05}")).expect("a SKU")).collect();
        let mut bench =
            Self { ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)), index: 0, now: START_MS, next_id: 0, skus };
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        bench.apply(vec![Command::OwnSlots { generation: 1, ranges: vec![all] }]);
        let policy = Policy { per_key_max: shape.limit.then_some(4), hold_ms_default: 600_000, ..Policy::default() };
        for sku in bench.skus.clone() {
            let offer = OfferKey { sku: sku.clone(), sale: None };
            let reference = Reference::new("delivery").expect("a reference");
            let units = Units::new(units).expect("units");
            bench.apply(vec![
                Command::CreateProduct { sku, policy: policy.clone() },
                Command::Receive { offer, units, reference },
            ]);
        }
        bench
    }

    fn apply(&mut self, commands: Vec<Command>) -> ledger_core::Applied {
        self.index += 1;
        self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands })
    }

    fn id(&mut self) -> ReservationId {
        self.next_id += 1;
        let random = self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ReservationId::from_parts(Slot::of(&self.skus[0]), self.now, random)
    }

    fn reserves(&mut self, shape: Shape, count: u64) -> Vec<Command> {
        (0..count)
            .map(|n| {
                let id = self.id();
                let key = || LimitKey::new(format!("buyer-{:07}", self.next_id % shape.buyers)).expect("a key");
                Command::Reserve {
                    id,
                    keys: if shape.keyed { [key()].into_iter().collect() } else { Default::default() },
                    lines: [plain_line(
                        self.skus[n as usize % self.skus.len()].clone(),
                        Quantity::new(1).expect("one"),
                    )]
                    .into_iter()
                    .collect(),
                    hold_ms: None,
                }
            })
            .collect()
    }

    /// Reserves so many, an entry a few milliseconds; tells time to decode and to apply.
    fn run(&mut self, shape: Shape, total: u64) -> (Duration, Duration, Duration) {
        let (mut decode, mut apply, mut worst) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut left = total;
        while left > 0 {
            let count = left.min(BATCH);
            left -= count;
            self.now += 5;
            let bytes = encode_entry(&self.reserves(shape, count));
            let began = Cpu::now();
            let entry = decode_entry(LedgerTime(self.now), &bytes).expect("own entry decodes");
            decode += began.elapsed();
            self.index += 1;
            let began = Cpu::now();
            let applied = self.ledger.apply(1, self.index, &entry);
            let took = began.elapsed();
            drop(applied);
            apply += took;
            worst = worst.max(took);
        }
        (decode, apply, worst)
    }
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn per(total: Duration, count: u64) -> f64 {
    total.as_nanos() as f64 / count as f64
}

/// Median of runs: nanoseconds to decode and to apply a reserve, after `warm` others are in memory.
fn measure(name: &str, shape: Shape, warm: u64, count: u64, units: i64) {
    let mut decodes = Vec::new();
    let mut applies = Vec::new();
    let mut worsts = Vec::new();
    for _ in 0..RUNS {
        let mut bench = Bench::new(shape, units);
        bench.run(shape, warm);
        let (decode, apply, worst) = bench.run(shape, count);
        decodes.push(per(decode, count));
        applies.push(per(apply, count));
        worsts.push(worst.as_secs_f64() * 1e3);
    }
    println!(
        "{name:<46} decode {:>5.0} ns   apply {:>5.0} ns   worst entry {:>6.2} ms",
        median(decodes),
        median(applies),
        median(worsts)
    );
}

fn bytes_a_record(shape: Shape, count: u64) {
    let mut bench = Bench::new(shape, 1 << 40);
    let before = MEMORY.current_usage();
    bench.run(shape, count);
    let live = MEMORY.current_usage() - before;
    println!("live, {}: {} B each", if shape.keyed { "one key" } else { "no key" }, live as u64 / count);
    let ids: Vec<ReservationId> = {
        let mut again = Bench::new(shape, 1);
        let mut left = count;
        let mut ids = Vec::new();
        while left > 0 {
            again.now += 5;
            for _ in 0..left.min(BATCH) {
                ids.push(again.id());
            }
            left -= left.min(BATCH);
        }
        ids
    };
    let began = Cpu::now();
    for batch in ids.chunks(BATCH as usize) {
        bench.now += 5;
        bench.apply(batch.iter().map(|&id| Command::Confirm { id, lines: None }).collect());
    }
    let confirm = began.elapsed();
    drop(ids);
    let sold = MEMORY.current_usage() - before;
    println!(
        "sold, {}: {} B each; a confirm {:.0} ns",
        if shape.keyed { "one key" } else { "no key" },
        sold as u64 / count,
        per(confirm, count)
    );
}

fn bytes_a_refusal(count: u64) {
    let shape = Shape { keyed: false, products: 1, limit: false, buyers: u64::MAX };
    let mut bench = Bench::new(shape, 1);
    bench.run(shape, 1);
    let before = MEMORY.current_usage();
    let (_, apply, _) = bench.run(shape, count);
    let bytes = (MEMORY.current_usage() - before) as u64 / count;
    println!("refused: {bytes} B each; a refusal {:.0} ns", per(apply, count));
}

/// What merchants create: products, offers of sales, references of deliveries.
fn bytes_of_stock(count: u64) {
    let mut bench = Bench::new(Shape { keyed: false, products: 1, limit: false, buyers: u64::MAX }, 1);
    let mut each = |what: &str, command: &dyn Fn(u64) -> Command| {
        let before = MEMORY.current_usage();
        for from in (0..count).step_by(BATCH as usize) {
            bench.apply((from..count.min(from + BATCH)).map(command).collect());
        }
        println!("{what}: {} B each", (MEMORY.current_usage() - before) as u64 / count);
    };
    let sku = |n: u64| Sku::new(format!("{{hot}}-product-{n:08}")).expect("a SKU");
    let offer = |n: u64| OfferKey { sku: sku(n), sale: Some(SaleId::new("summer-2026").expect("a sale")) };
    each("product with its plain offer", &|n| Command::CreateProduct { sku: sku(n), policy: Policy::default() });
    each("offer in a sale", &|n| Command::PutOffer {
        offer: offer(n),
        policy: Policy::default(),
        expected_version: None,
    });
    each("reference", &|n| Command::Receive {
        offer: offer(n),
        units: Units::new(1).expect("one"),
        reference: Reference::new(format!("delivery {n}")).expect("a reference"),
    });
}

fn mass_expiry(due: u64) {
    let shape = Shape { keyed: true, products: 1, limit: true, buyers: u64::MAX };
    let mut bench = Bench::new(shape, 1 << 40);
    let mut entries = due.div_ceil(BATCH);
    while entries > 0 {
        let commands = bench.reserves(shape, due.min(BATCH));
        bench.apply(commands);
        entries -= 1;
    }
    bench.now += 600_000;
    let mut worst = Duration::ZERO;
    let mut total = Duration::ZERO;
    let mut first = Duration::ZERO;
    let mut entries = 0;
    while bench.ledger.next_due().is_some() {
        let began = Cpu::now();
        bench.apply(vec![Command::Tick]);
        let took = began.elapsed();
        (worst, total) = (worst.max(took), total + took);
        if entries == 0 {
            first = took;
        }
        entries += 1;
    }
    println!(
        "mass expiry of {due} in one millisecond: {entries} entries, first {:.2} ms, worst {:.2} ms, all {:.1} ms",
        first.as_secs_f64() * 1e3,
        worst.as_secs_f64() * 1e3,
        total.as_secs_f64() * 1e3
    );
}

fn freeze(count: u64) {
    let shape = Shape { keyed: true, products: 1, limit: true, buyers: u64::MAX };
    let mut bench = Bench::new(shape, 1 << 40);
    bench.run(shape, count);
    let began = Cpu::now();
    let frozen = bench.ledger.freeze();
    let took = began.elapsed();
    let (_, apply, worst) = bench.run(shape, 50 * BATCH);
    println!(
        "freeze of {count}: {:.2} ms; while frozen apply {:.0} ns, worst entry {:.2} ms",
        took.as_secs_f64() * 1e3,
        per(apply, 50 * BATCH),
        worst.as_secs_f64() * 1e3
    );
    let mut bytes = Vec::new();
    let began = Cpu::now();
    frozen.write(&mut bytes).expect("memory takes bytes");
    let wrote = began.elapsed();
    let began = Cpu::now();
    let thawed = Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7)).expect("own state thaws");
    println!(
        "written in {:.0} ms ({} B each), thawed in {:.0} ms to {:?}",
        wrote.as_secs_f64() * 1e3,
        bytes.len() as u64 / count,
        began.elapsed().as_secs_f64() * 1e3,
        thawed.position().index
    );
}

/// What an order costs: place, claim in hundreds, report, pay, notify; and the bytes of one that waits.
fn orders(count: u64) {
    let shape = Shape { keyed: false, products: 10, limit: false, buyers: u64::MAX };
    let mut bench = Bench::new(shape, 1 << 40);
    let before = MEMORY.current_usage();
    let sealed = |byte: u8| Sealed::new([byte; 200]).expect("short enough");
    let mut ids = Vec::with_capacity(count as usize);
    let mut took = Duration::ZERO;
    while (ids.len() as u64) < count {
        bench.now += 5;
        let commands: Vec<Command> = (0..1_000)
            .map(|n: usize| {
                let id = bench.id();
                ids.push(id);
                let sku = bench.skus[n % bench.skus.len()].clone();
                let lines = [plain_line(sku, Quantity::new(1).expect("one"))].into_iter().collect();
                let details = OrderDetails {
                    amount: Money::new(1_999, "EUR").expect("an amount"),
                    pay_within_ms: 600_000,
                    payment: sealed(1),
                    contact: sealed(2),
                    suspect: false,
                };
                let reserve = Some((Default::default(), lines));
                Command::PlaceOrder { id, details: Box::new(details), reserve }
            })
            .collect();
        let began = Cpu::now();
        bench.apply(commands);
        took += began.elapsed();
    }
    let ids_bytes = ids.capacity() * size_of::<ReservationId>();
    let bytes = (MEMORY.current_usage() - before - ids_bytes) as u64 / count;
    println!("place {:.0} ns; {bytes} B each waiting, with 400 B sealed", per(took, count));
    let claim = |class: WorkClass| Command::ClaimOrders {
        slot: ids[0].slot(),
        worker: WorkerId::new("worker-1").expect("a name"),
        class,
        max: 100,
        lease_ms: 60_000,
        attempt_ms: 5_000,
    };
    let some = (count / 4).min(100_000) / 1_000 * 1_000;
    let all = |bench: &mut Bench, class: WorkClass| {
        let mut took = Duration::ZERO;
        let mut claimed = Vec::new();
        while (claimed.len() as u64) < some {
            let began = Cpu::now();
            let applied = bench.apply(vec![claim(class)]);
            took += began.elapsed();
            for outcome in applied.outcomes {
                if let Outcome::Ok(Settled::Claimed(some)) = outcome {
                    claimed.extend(some.into_iter().map(|c| (c.id, c.epoch)));
                }
            }
        }
        (took, claimed)
    };
    let each = |bench: &mut Bench, commands: Vec<Command>| {
        let mut took = Duration::ZERO;
        for batch in commands.chunks(1_000) {
            let batch = batch.to_vec();
            let began = Cpu::now();
            bench.apply(batch);
            took += began.elapsed();
        }
        per(took, some)
    };
    let (money, claimed) = all(&mut bench, WorkClass::Money);
    let provider = |n: usize| ProviderId::new(format!("pi_{n:024}")).expect("an id");
    let intents = claimed.iter().enumerate().map(|(n, &(id, epoch))| {
        let report = Report::Intent { intent: provider(n), generation: 1 };
        Command::ReportOrder { id, epoch, report }
    });
    let intents = each(&mut bench, intents.collect());
    let facts = claimed.iter().enumerate().map(|(n, &(id, _))| {
        let fact = Fact::Paid { payment: provider(n), amount: Money::new(1_999, "EUR").expect("an amount") };
        Command::RecordFact { id, fact }
    });
    let facts = each(&mut bench, facts.collect());
    let (mail, claimed) = all(&mut bench, WorkClass::Mail);
    let notified = claimed.iter().map(|&(id, epoch)| Command::ReportOrder { id, epoch, report: Report::Notified });
    let notified = each(&mut bench, notified.collect());
    println!(
        "of {count} waiting: claim in hundreds {:.0} ns, intent {intents:.0} ns, paid {facts:.0} ns, claim of mail {:.0} ns, notified {notified:.0} ns",
        per(money, some),
        per(mail, some)
    );
    drop(claimed);
    let all = MEMORY.current_usage() - before - ids_bytes;
    println!("done: {} B each", (all as u64 - (count - some) * bytes) / some);
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    let hot = Shape { keyed: true, products: 1, limit: true, buyers: u64::MAX };
    let some = count / 4;
    println!("-- reserves, batches of {BATCH}");
    measure("one product, no key, 10 k in memory", Shape { keyed: false, limit: false, ..hot }, 10_000, some, 1 << 40);
    measure("one product, key without limit", Shape { limit: false, ..hot }, 10_000, some, 1 << 40);
    measure("one product, key with limit", hot, 10_000, some, 1 << 40);
    measure("the same, with many in memory", hot, count, some, 1 << 40);
    let back = Shape { buyers: count / 2, ..hot };
    measure("the same, every buyer for the third time", back, count, some, 1 << 40);
    measure("1,000 products, key with limit", Shape { products: 1_000, ..hot }, 10_000, some, 1 << 40);
    measure("sold out: every reserve refused", Shape { keyed: false, limit: false, ..hot }, 10_000, some, 1);
    println!("-- bytes");
    bytes_a_record(Shape { keyed: false, limit: false, ..hot }, count / 2);
    bytes_a_record(hot, count / 2);
    bytes_a_refusal(count / 2);
    bytes_of_stock(count / 4);
    println!("-- orders");
    orders(count / 2);
    println!("-- sweeps and snapshots");
    mass_expiry(100_000);
    freeze(count);
}
