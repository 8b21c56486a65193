//! Every counter, sum and time at its bound: no legal sequence of commands makes the ledger stop.
//!
//! **Owns** one test a bound of `limits.rs`. **Must never** reach inside: what is applied here could come through the log. **Read next**: `scale.rs`.

use ledger_core::change::ChangeKind;
use ledger_core::codec::decode_record;
use ledger_core::command::{Command, LimitKeys, Lines, plain_line};
use ledger_core::outcome::{Bound, NotNow, Outcome, Refusal, Settled, SoldOut};
use ledger_core::view::IdView;
use ledger_core::{
    Applied, Entry, Ledger, LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reason, Reference, ReservationId,
    SaleId, ShardSettings, Sku, Slot, Units, limits,
};

const START_MS: u64 = 1_700_000_000_000;

struct Shard {
    ledger: Ledger,
    index: u64,
    now: u64,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self { ledger: Ledger::new(1, 1, ledger_core::IndexSeed(7)), index: 0, now: START_MS };
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        shard.ok(vec![Command::OwnSlots { generation: 1, ranges: vec![all] }]);
        shard
    }

    fn apply(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands })
    }

    fn ok(&mut self, commands: Vec<Command>) -> Applied {
        let applied = self.apply(commands);
        let not = applied.outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Ok(_)));
        assert_eq!(not, None, "all is taken");
        applied
    }

    /// All that is asked of a state at any time: sums, the audit, a page, and that it is read back as it is.
    fn look(&mut self) -> Ledger {
        assert_eq!(self.ledger.audit().findings, [], "audit");
        let mut bytes = Vec::new();
        self.ledger.freeze().write(&mut bytes).expect("memory takes bytes");
        let mut copy =
            Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7)).expect("a healthy state is read back");
        assert_eq!(copy.digest(), self.ledger.digest());
        assert_eq!(copy.totals(), self.ledger.totals());
        copy
    }
}

fn sku(text: &str) -> Sku {
    Sku::new(text).expect("a SKU")
}

fn plain(text: &str) -> OfferKey {
    OfferKey { sku: sku(text), sale: None }
}

fn create(text: &str) -> Command {
    Command::CreateProduct { sku: sku(text), policy: Policy::default() }
}

fn receive(offer: OfferKey, units: u64, reference: &str) -> Command {
    let reference = Reference::new(reference).expect("a reference");
    Command::Receive { offer, units: Units::new(units as i64).expect("units"), reference }
}

fn adjust(offer: OfferKey, delta: i64, reference: &str) -> Command {
    let (reason, reference) =
        (Reason::new("count").expect("a reason"), Reference::new(reference).expect("a reference"));
    Command::Adjust { offer, delta, reason, reference, expected_version: None }
}

fn id(shard: &Shard, of: &str, n: u64) -> ReservationId {
    ReservationId::from_parts(Slot::of(&sku(of)), shard.now.min(limits::LEDGER_TIME_MAX), n)
}

fn lines(of: &str, units: i64) -> Lines {
    [plain_line(sku(of), Quantity::new(units).expect("a quantity"))].into_iter().collect()
}

fn plain_in(offer: &OfferKey, units: i64) -> Lines {
    [Line { offer: offer.clone(), quantity: Quantity::new(units).expect("a quantity") }].into_iter().collect()
}

fn reserve(id: ReservationId, lines: Lines, hold_ms: u64) -> Command {
    Command::Reserve { id, keys: LimitKeys::new(), lines, hold_ms: Some(hold_ms) }
}

#[test]
fn totals_of_products_that_received_all_they_ever_may_are_summed() {
    const TIMES: u64 = limits::UNITS_EVER_MAX / limits::UNITS_MAX - 1;
    let mut shard = Shard::new();
    let most = limits::UNITS_MAX;
    for name in ["a", "b", "c"] {
        shard.ok(vec![create(name)]);
        for from in (0..TIMES).step_by(4_096) {
            let both = |n| {
                [
                    receive(plain(name), most, &format!("in {n}")),
                    adjust(plain(name), -(most as i64), &format!("out {n}")),
                ]
            };
            shard.ok((from..TIMES.min(from + 4_096)).flat_map(both).collect());
        }
    }
    let totals = shard.ledger.totals();
    assert_eq!((totals.received, totals.adjusted), (3 * u128::from(TIMES * most), -3 * i128::from(TIMES * most)));
    shard.look();
    // One more is the last, and then it is refused by name.
    let more =
        vec![receive(plain("a"), most, "last"), adjust(plain("a"), -1, "one"), receive(plain("a"), 1, "too many")];
    let refused = shard.apply(more).outcomes.pop().expect("answered");
    assert!(matches!(refused, Outcome::Refused(Refusal::TooMany { .. })), "{refused:?}");
}

#[test]
fn totals_of_more_units_than_64_bits_count_are_summed() {
    const PRODUCTS: u64 = 1 << 16;
    let mut shard = Shard::new();
    for from in (0..PRODUCTS).step_by(4_096) {
        let name = |n: u64| format!("p{n}");
        let both = |n| [create(&name(n)), receive(plain(&name(n)), limits::UNITS_MAX, "r")];
        shard.ok((from..from + 4_096).flat_map(both).collect());
    }
    let totals = shard.ledger.totals();
    assert_eq!((totals.received, totals.units.available), (1 << 64, 1 << 64));
    assert_eq!(shard.ledger.audit().totals, totals);
}

#[test]
fn ledger_time_ends_at_its_bound_and_the_ledger_goes_on() {
    for stamp in
        [(1 << 42) - 1, 1 << 42, (1 << 42) + 5_000, limits::LEDGER_TIME_MAX - 1, 1 << 48, u64::MAX - 1, u64::MAX]
    {
        let mut shard = Shard::new();
        shard.ok(vec![create("a"), receive(plain("a"), 10, "r")]);
        let before = id(&shard, "a", 1);
        shard.ok(vec![reserve(before, lines("a", 3), 60_000)]);
        shard.now = stamp;
        let (late, refused) = (id(&shard, "a", 2), id(&shard, "a", 3));
        let applied = shard.apply(vec![
            reserve(late, lines("a", 10), limits::HOLD_MS_MAX),
            reserve(refused, lines("a", 1), 1),
            Command::Fence { id: id(&shard, "a", 4) },
            Command::Extend { id: late, replaces: LedgerTime(u64::MAX), hold_ms: limits::HOLD_MS_MAX },
        ]);
        assert_eq!(applied.time.0, stamp.min(limits::LEDGER_TIME_MAX));
        assert!(matches!(applied.outcomes[0], Outcome::Ok(_)), "{:?}", applied.outcomes);
        // What was refused is remembered as long as ever: entries of the same moment do not forget it.
        shard.apply(vec![Command::Tick]);
        let again = shard.apply(vec![reserve(refused, lines("a", 1), 1)]).outcomes;
        assert!(matches!(again[0], Outcome::Refused(Refusal::SoldOut { .. })), "at {stamp}: {again:?}");
        shard.look();
    }
}

#[test]
fn extreme_settings_windows_and_generations_are_taken_and_do_no_harm() {
    let mut shard = Shard::new();
    let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
    shard.ok(vec![Command::OwnSlots { generation: u64::MAX, ranges: all.clone() }]);
    let again = shard.apply(vec![Command::OwnSlots { generation: u64::MAX, ranges: all }]).outcomes;
    assert_eq!(again, [Outcome::Refused(Refusal::StaleGeneration { present: u64::MAX })]);
    for n in [0, 1, u64::MAX - 1, u64::MAX] {
        let settings = ShardSettings { retain_sold_ms: n, retain_ended_ms: n, retain_refused_ms: n, remembered_max: n };
        shard.ok(vec![Command::Configure { settings }]);
        let name = format!("p{n}");
        let far = Policy {
            opens_at: Some(LedgerTime(n.min(u64::MAX - 1))),
            closes_at: Some(LedgerTime(u64::MAX)),
            low_stock_at: limits::UNITS_MAX,
            ..Policy::default()
        };
        far.validate().expect("a policy");
        let sale = OfferKey { sku: sku(&name), sale: Some(SaleId::new("s").expect("a sale")) };
        shard.ok(vec![create(&name), receive(plain(&name), limits::UNITS_MAX, "r")]);
        shard.ok(vec![Command::PutOffer { offer: sale.clone(), policy: far.clone(), expected_version: None }]);
        let put = Command::PutOffer { offer: sale, policy: Policy::default(), expected_version: Some(u64::MAX) };
        let refused = shard.apply(vec![put]).outcomes;
        assert_eq!(refused, [Outcome::Refused(Refusal::VersionMismatch { actual: 1 })]);
        let (held, sold) = (id(&shard, &name, 1), id(&shard, &name, 2));
        shard.apply(vec![
            reserve(held, lines(&name, 1_000_000), 1),
            reserve(sold, lines(&name, 1_000_000), 1),
            Command::Confirm { id: sold, lines: None },
            reserve(id(&shard, &name, 3), lines(&name, 1), u64::MAX),
        ]);
        shard.now += 3_600_000;
        shard.ok(vec![Command::Tick]);
        shard.ok(vec![Command::Tick]);
        shard.look();
    }
}

#[test]
fn pages_of_one_sale_are_all_of_it_and_nothing_else() {
    let mut shard = Shard::new();
    let sale = |name: &str| SaleId::new(name).expect("a sale");
    for name in ["!", "a", "b", "z"] {
        shard.ok(vec![create(name)]);
        for day in ["day", "eve", "night"] {
            let offer = OfferKey { sku: sku(name), sale: Some(sale(day)) };
            shard.ok(vec![Command::PutOffer { offer, policy: Policy::default(), expected_version: None }]);
        }
    }
    for max in 1..=5 {
        let (eve, mut after, mut all) = (sale("eve"), None::<Sku>, Vec::new());
        loop {
            let from = after.as_ref().map(|after| (&eve, after));
            let page = shard.ledger.sales(Some(&eve), from, max);
            assert!(page.len() <= max && all.len() < 5, "it ends");
            let Some(last) = page.last() else { break };
            after = Some(last.offer.sku.clone());
            all.extend(page.into_iter().map(|view| (view.offer.sale, view.offer.sku.to_string())));
        }
        let wanted = ["!", "a", "b", "z"].map(|name| (Some(sale("eve")), name.to_owned()));
        assert_eq!(all, wanted, "{max} at a time");
    }
    // A cursor of another sale: all of the later one, nothing of the earlier one.
    let (day, z) = (sale("day"), sku("z"));
    assert_eq!(shard.ledger.sales(Some(&sale("eve")), Some((&day, &z)), 9).len(), 4);
    assert_eq!(shard.ledger.sales(Some(&day), Some((&sale("eve"), &z)), 9).len(), 0);
}

#[test]
fn ticks_alone_forget_what_is_past_its_time_however_much_it_is() {
    const IDS: u64 = limits::FORGOTTEN_PER_ENTRY_MAX as u64 + 100;
    let mut shard = Shard::new();
    shard.ok(vec![create("a"), receive(plain("a"), 1 << 40, "r")]);
    assert_eq!(shard.ledger.next_forgotten(), None, "nothing has ended");
    for from in (0..IDS).step_by(4_000) {
        let ids: Vec<ReservationId> = (from..IDS.min(from + 4_000)).map(|n| id(&shard, "a", n)).collect();
        let reserve = |&id: &ReservationId| Command::Reserve {
            id,
            keys: <_>::default(),
            lines: lines("a", 1),
            hold_ms: Some(600_000),
        };
        shard.ok(ids.iter().map(reserve).collect());
        shard.ok(ids.iter().map(|&id| Command::Release { id }).collect());
    }
    let remembered = |shard: &Shard| shard.ledger.totals().remembered;
    let ended = shard.now + ShardSettings::default().retain_ended_ms;
    let due = shard.ledger.next_forgotten().expect("what was released").0;
    assert!((ended + limits::FORGOTTEN_LATE_MS..ended + 2 * limits::FORGOTTEN_LATE_MS).contains(&due), "{due}");
    assert_eq!(remembered(&shard), IDS);
    shard.now = due;
    let mut ticks = 0;
    while shard.ledger.next_forgotten().is_some_and(|at| at.0 <= shard.now) {
        shard.ok(vec![Command::Tick]);
        ticks += 1;
    }
    assert_eq!((ticks, remembered(&shard), shard.ledger.next_forgotten()), (2, 0, None));
    shard.look();
}

#[test]
fn a_state_whose_first_million_keys_are_gone_is_read_back() {
    const CARRIERS: u64 = (1 << 18) + 100;
    let mut shard = Shard::new();
    shard.ok(vec![create("a"), receive(plain("a"), 1 << 40, "r")]);
    let keys = |n: u64| (0..4).map(move |k| LimitKey::new(format!("k{n}-{k}")).expect("a key"));
    let carry = |shard: &Shard, n: u64, hold_ms| Command::Reserve {
        id: id(shard, "a", n),
        keys: keys(n).collect(),
        lines: lines("a", 1),
        hold_ms: Some(hold_ms),
    };
    for from in (0..CARRIERS).step_by(8_000) {
        let some = (from..CARRIERS.min(from + 8_000)).map(|n| carry(&shard, n, 600_000)).collect();
        shard.ok(some);
    }
    let last = vec![carry(&shard, CARRIERS, 3_600_000)];
    shard.ok(last);
    shard.now += 700_000;
    while shard.ledger.next_due().is_some_and(|due| due.0 <= shard.now) {
        shard.ok(vec![Command::Tick]);
    }
    let copy = shard.look();
    let late = ReservationId::from_parts(Slot::of(&sku("a")), START_MS, CARRIERS);
    assert!(matches!(copy.id(late), IdView::Reservation(r) if r.keys.len() == 4));
}

/// Sixteen products in one slot, each in a sale, all names as long as they may be.
fn longest_offers() -> Vec<OfferKey> {
    let name = |n: usize| format!("{{t}}{n:0>width$}", width = limits::SKU_BYTES_MAX - 3);
    let sale = SaleId::new("s".repeat(limits::SALE_ID_BYTES_MAX)).expect("a sale");
    (0..limits::LINES_MAX).map(|n| OfferKey { sku: sku(&name(n)), sale: Some(sale.clone()) }).collect()
}

#[test]
fn an_entry_that_causes_more_changes_than_a_record_may_have_decides_what_fits() {
    const DUE: u64 = limits::EXPIRED_PER_ENTRY_MAX as u64;
    const SOLD: u64 = limits::COMMANDS_PER_ENTRY_MAX as u64;
    let mut shard = Shard::new();
    let offers = longest_offers();
    for offer in &offers {
        let policy = Policy { low_stock_at: limits::UNITS_MAX, ..Policy::default() };
        shard.ok(vec![
            create(offer.sku.as_str()),
            Command::PutOffer { offer: offer.clone(), policy, expected_version: None },
            receive(offer.clone(), limits::UNITS_MAX / 2, "r"),
        ]);
    }
    let one = Quantity::new(1_000_000).expect("a quantity");
    let cart: Lines = offers.iter().map(|offer| Line { offer: offer.clone(), quantity: one }).collect();
    let slot = Slot::of(&offers[0].sku);
    let id = |n| ReservationId::from_parts(slot, START_MS, n);
    shard.ok((0..DUE).map(|n| reserve(id(n), cart.clone(), 60_000)).collect());
    for from in (DUE..DUE + SOLD).step_by(4_096) {
        shard.ok((from..from + 4_096).map(|n| reserve(id(n), cart.clone(), 600_000)).collect());
    }
    shard.now += 60_000;
    // Of four lines a unit is sold, and the rest of all lines goes back.
    let four: Lines = offers[..4].iter().flat_map(|offer| plain_in(offer, 1)).collect();
    let confirm = |n| Command::Confirm { id: id(n), lines: Some(four.clone()) };
    let applied = shard.apply((DUE..DUE + SOLD).map(confirm).collect());
    let record = applied.record.expect("much changed");
    println!("{} bytes, at most {}", record.len(), limits::RECORD_BYTES_MAX);
    assert!((limits::RECORD_FULL_BYTES..=limits::RECORD_BYTES_MAX).contains(&record.len()));
    let changes = decode_record(&record).expect("own record decodes").changes;
    let swept = changes.iter().filter(|c| matches!(c.kind, ChangeKind::ReservationExpired { .. })).count();
    assert_eq!(swept as u64, DUE);
    let decided = applied.outcomes.iter().position(|o| !matches!(o, Outcome::Ok(_))).expect("not all fit");
    assert_eq!(changes.len(), DUE as usize + decided, "a change for each that was taken");
    let not_now = Outcome::NotNow(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });
    assert!(applied.outcomes[decided..].iter().all(|outcome| *outcome == not_now), "all behind it come again");
    // And then they are taken.
    shard.ok((DUE + decided as u64..DUE + SOLD).map(confirm).collect());
    shard.look();
}

/// A sale a minute, each with a buyer: none of them is left when its return window is over, and the last is as cheap as the first.
#[test]
fn a_product_is_in_ten_thousand_sales_one_after_the_other() {
    let mut shard = Shard::new();
    let settings = ShardSettings {
        retain_sold_ms: 600_000,
        retain_ended_ms: 600_000,
        retain_refused_ms: 600_000,
        ..ShardSettings::default()
    };
    shard.ok(vec![Command::Configure { settings }, create("a"), receive(plain("a"), 100_000, "r")]);
    let sale = |n: u64| SaleId::new(format!("sale-{n}")).expect("a sale");
    let (sales, mut most) = (10_000, 0);
    for n in 0..sales {
        shard.now += 60_000;
        let (offer, id) = (OfferKey { sku: sku("a"), sale: Some(sale(n)) }, id(&shard, "a", n));
        let policy = Policy { per_key_max: Some(1), ..Policy::default() };
        let keys: LimitKeys = [LimitKey::new(format!("buyer {}", n % 7)).expect("a key")].into_iter().collect();
        let reference = Reference::new(format!("plan {n}")).expect("a reference");
        shard.ok(vec![
            Command::PutOffer { offer: offer.clone(), policy, expected_version: None },
            Command::Allot {
                sku: sku("a"),
                from: None,
                to: Some(sale(n)),
                units: Units::new(2).expect("two"),
                reference,
            },
            Command::Reserve { id, keys, lines: plain_in(&offer, 1), hold_ms: None },
            Command::Confirm { id, lines: None },
            Command::EndSale { sku: sku("a"), sale: sale(n) },
        ]);
        most = most.max(shard.ledger.totals().offers);
    }
    assert!(most <= 14, "{most} offers at once");
    shard.look();
    shard.now += 3_600_000;
    shard.ok(vec![Command::Tick]);
    let view = shard.ledger.product(&sku("a")).expect("known");
    assert_eq!((view.offers.len(), view.offers[0].balance.sold), (1, sales), "sold in sales that are gone");
    assert_eq!(shard.ledger.totals().limit_counts, 0);
    shard.look();
}

#[test]
fn a_product_is_in_as_many_offers_as_it_may_be_and_no_more() {
    let mut shard = Shard::new();
    shard.ok(vec![create("a")]);
    let put = |n: usize| Command::PutOffer {
        offer: OfferKey { sku: sku("a"), sale: Some(SaleId::new(format!("s{n}")).expect("a sale")) },
        policy: Policy::default(),
        expected_version: None,
    };
    let most = limits::OFFERS_PER_PRODUCT_MAX;
    shard.ok((1..most).map(put).collect());
    let outcomes = shard.apply(vec![put(most), put(1)]).outcomes;
    let too_many = Refusal::TooMany { what: Bound::OffersPerProduct, max: most as u64 };
    assert_eq!(outcomes[0], Outcome::Refused(too_many));
    assert_eq!(outcomes[1], Outcome::Ok(Settled::Offer { version: 1, replayed: true }));
    shard.look();
}

#[test]
fn a_reservation_takes_as_many_returns_as_it_may_and_no_more() {
    let mut shard = Shard::new();
    shard.ok(vec![create("a"), receive(plain("a"), 1_000, "r")]);
    let id = id(&shard, "a", 0);
    shard.ok(vec![reserve(id, lines("a", 1_000), 1), Command::Confirm { id, lines: None }]);
    let most = limits::RETURNS_PER_RESERVATION_MAX as u64;
    let one = |n: u64| Command::Return {
        id,
        lines: Some(plain_in(&plain("a"), 1)),
        reference: Reference::new(format!("back {n}")).expect("a reference"),
    };
    shard.ok((0..most).map(one).collect());
    let outcomes = shard.apply(vec![one(most), one(3)]).outcomes;
    let too_many = Refusal::TooMany { what: Bound::ReturnsPerReservation, max: most };
    assert_eq!(outcomes[0], Outcome::Refused(too_many));
    assert_eq!(outcomes[1], Outcome::Ok(Settled::Returned { units: 1, replayed: true }));
    shard.look();
}

#[test]
fn a_product_sold_and_returned_as_often_as_it_may_be_stays_within_its_sums() {
    let mut shard = Shard::new();
    shard.ok(vec![create("a"), receive(plain("a"), limits::UNITS_MAX, "r")]);
    let most = i64::from(limits::QUANTITY_MAX);
    for n in 0..2_000 {
        let id = id(&shard, "a", n);
        let reference = Reference::new(format!("back {n}")).expect("a reference");
        shard.ok(vec![
            reserve(id, lines("a", most), 1),
            Command::Confirm { id, lines: None },
            Command::Return { id, lines: None, reference },
        ]);
    }
    let view = shard.ledger.product(&sku("a")).expect("known");
    assert_eq!((view.ever_sold, view.returned), (2_000 * most as u64, 2_000 * most as u64));
    let all = shard.ok(vec![adjust(plain("a"), -(limits::UNITS_MAX as i64), "all")]);
    assert!(matches!(all.outcomes[0], Outcome::Ok(Settled::Stocked { balance, .. }) if balance.available == 0));
    let id = id(&shard, "a", 2_000);
    let sold_out = shard.apply(vec![reserve(id, lines("a", 1), 1)]).outcomes;
    assert!(matches!(&sold_out[0], Outcome::Refused(Refusal::SoldOut { truth: SoldOut::Gone, .. })), "{sold_out:?}");
    shard.look();
}
