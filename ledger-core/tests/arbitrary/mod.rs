//! Commands for the codec tests: any, one of each, and a day in which everything happens.
//!
//! **Owns** the generators. **Must never** make what the wire would refuse. **Read next**: `codec.rs`.

use ledger_core::command::{Command, LimitKeys, Lines};
use ledger_core::order::{ByHand, Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId};
use ledger_core::{
    Entry, LedgerTime, LimitKey, Line, OfferKey, Policy, Price, Quantity, Reason, Reference, ReservationId, SaleId,
    ShardSettings, Sku, Slot, Units, limits,
};

fn sku(text: &str) -> Sku {
    Sku::new(text).expect("a SKU")
}

fn offer(text: &str, sale: Option<&str>) -> OfferKey {
    OfferKey { sku: sku(text), sale: sale.map(|s| SaleId::new(s).expect("a sale")) }
}

fn lines(of: &[(&str, Option<&str>, i64)]) -> Lines {
    of.iter()
        .map(|&(sku, sale, n)| Line { offer: offer(sku, sale), quantity: Quantity::new(n).expect("a quantity") })
        .collect()
}

fn id(n: u64) -> ReservationId {
    ReservationId::from_parts(Slot::of(&sku("{t}shirt")), 1_700_000_000_000, n)
}

fn reference(text: &str) -> Reference {
    Reference::new(text).expect("a reference")
}

fn full_policy() -> Policy {
    Policy {
        open: true,
        opens_at: Some(LedgerTime(1_700_000_005_000)),
        closes_at: Some(LedgerTime(1_700_000_090_000)),
        per_key_max: Some(2),
        per_order_min: 1,
        per_order_max: 5,
        hold_ms_default: 60_000,
        hold_ms_max: 120_000,
        low_stock_at: 3,
        price: Some(Price::new("19.99 EUR").expect("a price")),
    }
}

fn reserve(n: u64, of: &[(&str, Option<&str>, i64)], keys: &[&str], hold_ms: Option<u64>) -> Command {
    let keys: LimitKeys = keys.iter().map(|k| LimitKey::new(k).expect("a key")).collect();
    Command::Reserve { id: id(n), keys, lines: lines(of), hold_ms }
}

fn receive(of: OfferKey, n: i64, text: &str) -> Command {
    Command::Receive { offer: of, units: Units::new(n).expect("units"), reference: reference(text) }
}

fn allot(n: i64, text: &str) -> Command {
    Command::Allot {
        sku: sku("{t}shirt"),
        from: None,
        to: Some(SaleId::new("flash").expect("a sale")),
        units: Units::new(n).expect("units"),
        reference: reference(text),
    }
}

fn adjust(delta: i64, text: &str) -> Command {
    Command::Adjust {
        offer: offer("{t}shirt", None),
        delta,
        reason: Reason::new("broken in transit").expect("a reason"),
        reference: reference(text),
        expected_version: None,
    }
}

/// One of each command, by name, with every optional part there.
pub(crate) fn one_of_each() -> Vec<(&'static str, Command)> {
    let slot = |n| Slot::new(n).expect("a slot");
    vec![
        ("Tick", Command::Tick),
        (
            "Reserve",
            reserve(1, &[("{t}shirt", None, 2), ("{t}cap", Some("flash"), 1)], &["ann", "card 4"], Some(90_000)),
        ),
        ("ReserveBare", reserve(2, &[("{t}shirt", None, 1)], &[], None)),
        ("Extend", Command::Extend { id: id(1), replaces: LedgerTime(1_700_000_090_000), hold_ms: 30_000 }),
        ("Confirm", Command::Confirm { id: id(1), lines: None }),
        ("ConfirmPart", Command::Confirm { id: id(1), lines: Some(lines(&[("{t}shirt", None, 1)])) }),
        ("Release", Command::Release { id: id(1) }),
        ("Fence", Command::Fence { id: id(1) }),
        (
            "Return",
            Command::Return { id: id(1), lines: Some(lines(&[("{t}shirt", None, 1)])), reference: reference("rma 1") },
        ),
        ("ReturnAll", Command::Return { id: id(1), lines: None, reference: reference("rma 1") }),
        ("CreateProduct", Command::CreateProduct { sku: sku("{t}shirt"), policy: full_policy() }),
        (
            "PutOffer",
            Command::PutOffer {
                offer: offer("{t}shirt", Some("flash")),
                policy: Policy::default(),
                expected_version: Some(3),
            },
        ),
        ("SetOpen", Command::SetOpen { offer: offer("{t}shirt", None), open: false }),
        ("DeleteProduct", Command::DeleteProduct { sku: sku("{t}shirt") }),
        ("EndSale", Command::EndSale { sku: sku("{t}shirt"), sale: SaleId::new("flash").expect("a sale") }),
        ("Receive", receive(offer("{t}shirt", None), 1 << 40, "delivery 7")),
        ("Adjust", adjust(-3, "count 1")),
        ("Allot", allot(5, "plan 1")),
        ("Configure", Command::Configure { settings: ShardSettings::default() }),
        (
            "OwnSlots",
            Command::OwnSlots { generation: 2, ranges: vec![(slot(0), slot(17)), (slot(4_000), slot(4_095))] },
        ),
        ("SwitchBehaviour", Command::SwitchBehaviour { version: 1 }),
    ]
    .into_iter()
    .chain(one_of_each_about_orders())
    .collect()
}

fn reason(text: &str) -> Reason {
    Reason::new(text).expect("a reason")
}

fn provider(text: &str) -> ProviderId {
    ProviderId::new(text).expect("a provider's id")
}

fn money(minor: u64) -> Money {
    Money::new(minor, "EUR").expect("an amount")
}

fn place(n: u64, of: &[(&str, Option<&str>, i64)], suspect: bool) -> Command {
    let sealed = |bytes: &'static [u8]| Sealed::new(bytes).expect("short enough");
    let details = OrderDetails {
        amount: money(1_999),
        pay_within_ms: 600_000,
        payment: sealed(b"token"),
        contact: sealed(b"ann@example.org"),
        suspect,
    };
    let keys = [LimitKey::new("ann").expect("a key")].into_iter().collect();
    let reserve = (!of.is_empty()).then(|| (keys, lines(of)));
    Command::PlaceOrder { id: id(n), details: Box::new(details), reserve }
}

fn claim(class: WorkClass, lease_ms: u64) -> Command {
    let worker = WorkerId::new("worker-1").expect("a name");
    Command::ClaimOrders { slot: id(1).slot(), worker, class, max: 5, lease_ms, attempt_ms: 5_000 }
}

fn report(n: u64, epoch: u32, report: Report) -> Command {
    Command::ReportOrder { id: id(n), epoch, report }
}

fn paid(n: u64, payment: &str) -> Command {
    Command::RecordFact { id: id(n), fact: Fact::Paid { payment: provider(payment), amount: money(1_999) } }
}

fn refunded(n: u64, payment: &str) -> Command {
    let fact = Fact::Refunded { payment: provider(payment), refund: provider("re_1") };
    Command::RecordFact { id: id(n), fact }
}

fn by_hand(n: u64, what: ByHand) -> Command {
    Command::OrderByHand { id: id(n), what, reason: reason("looked at") }
}

fn intent(generation: u32) -> Report {
    Report::Intent { intent: provider("pi_1"), generation }
}

fn one_of_each_about_orders() -> Vec<(&'static str, Command)> {
    let (secret, why) = ("cs_1".into(), || reason("declined"));
    vec![
        ("PlaceOrder", place(1, &[("{t}shirt", Some("flash"), 2)], true)),
        ("PlaceOrderHeld", place(1, &[], false)),
        ("ClaimOrders", claim(WorkClass::Money, 30_000)),
        ("ClaimOrdersMail", claim(WorkClass::Mail, 30_000)),
        ("Heartbeat", Command::Heartbeat { id: id(1), epoch: 3, lease_ms: 30_000 }),
        ("ReportIntent", report(1, 3, intent(1))),
        ("ReportAwaitBuyer", report(1, 3, Report::AwaitBuyer { secret })),
        ("ReportUnpaid", report(1, 3, Report::Unpaid { reason: why() })),
        ("ReportNotified", report(1, 3, Report::Notified)),
        ("ReportRetry", report(1, 3, Report::Retry { after_ms: 2_000, reason: why() })),
        ("ReportGiveBack", report(1, 3, Report::GiveBack { after_ms: 0 })),
        ("ReportPark", report(1, 3, Report::Park { reason: why() })),
        ("FactPaid", paid(1, "pay_1")),
        ("FactRefunded", refunded(1, "pay_1")),
        ("Redrive", by_hand(1, ByHand::Redrive)),
        ("Close", by_hand(1, ByHand::Close)),
        ("Refund", by_hand(1, ByHand::Refund)),
        ("Resume", by_hand(1, ByHand::Resume)),
    ]
}

/// What happens to orders in a day.
fn hours_of_orders() -> Vec<Vec<Command>> {
    let shirt = |n| [("{t}shirt", None, n)];
    vec![
        vec![
            receive(offer("{t}shirt", None), 20, "delivery 2"),
            place(10, &shirt(1), false),
            place(11, &shirt(2), true),
            reserve(12, &shirt(1), &["bob"], Some(60_000)),
            place(12, &[], false),
        ],
        vec![claim(WorkClass::Money, 100)],
        vec![Command::Tick],
        vec![claim(WorkClass::Money, 60_000), Command::Heartbeat { id: id(10), epoch: 2, lease_ms: 90_000 }],
        vec![
            report(10, 2, intent(1)),
            report(10, 2, Report::AwaitBuyer { secret: "cs_1".into() }),
            report(11, 2, Report::Retry { after_ms: 100, reason: reason("timeout") }),
            report(12, 2, Report::GiveBack { after_ms: 0 }),
        ],
        vec![by_hand(10, ByHand::Resume), paid(10, "pay_1"), paid(10, "pay_2")],
        vec![refunded(10, "pay_2"), claim(WorkClass::Mail, 60_000), report(10, 3, Report::Notified)],
        vec![
            claim(WorkClass::Money, 60_000),
            report(12, 3, Report::Unpaid { reason: reason("declined") }),
            report(11, 3, Report::Park { reason: reason("no such card") }),
        ],
        vec![by_hand(11, ByHand::Redrive)],
        vec![paid(11, "pay_3"), paid(14, "pay_4")],
        vec![place(15, &shirt(2), false), claim(WorkClass::Money, 60_000)],
        vec![place(13, &shirt(1_000), false)],
    ]
}

/// Entries, one second apart and then after all retention, that cause every kind of change.
pub(crate) fn a_day() -> Vec<Entry> {
    let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
    let own = vec![Command::OwnSlots { generation: 1, ranges: all }];
    let stamp = |second: usize| LedgerTime(1_700_000_000_000 + second as u64 * 1_000);
    let hours = hours().into_iter().enumerate().map(|(second, commands)| Entry { stamp: stamp(second), commands });
    let much_later = Entry { stamp: stamp(40 * 24 * 3_600), commands: vec![Command::Tick] };
    std::iter::once(Entry { stamp: stamp(0), commands: own }).chain(hours).chain([much_later]).collect()
}

fn hours() -> Vec<Vec<Command>> {
    let plain = || offer("{t}shirt", None);
    let flash = || offer("{t}shirt", Some("flash"));
    let put = |policy, expected_version| Command::PutOffer { offer: flash(), policy, expected_version };
    vec![
        vec![Command::CreateProduct { sku: sku("{t}shirt"), policy: Policy { low_stock_at: 3, ..Policy::default() } }],
        vec![Command::CreateProduct { sku: sku("{t}cap"), policy: Policy::default() }],
        vec![put(full_policy(), None)],
        vec![receive(plain(), 20, "delivery 1"), receive(offer("{t}cap", None), 5, "delivery 1")],
        vec![allot(10, "plan 1")],
        vec![Command::Tick],
        vec![adjust(-2, "count 1")],
        vec![
            reserve(1, &[("{t}shirt", Some("flash"), 2), ("{t}cap", None, 1)], &["ann"], Some(60_000)),
            reserve(2, &[("{t}shirt", None, 5)], &[], Some(10_000)),
            reserve(3, &[("{t}shirt", None, 3)], &[], Some(1_000)),
        ],
        vec![Command::Extend { id: id(1), replaces: LedgerTime(1_700_000_067_000), hold_ms: 90_000 }],
        vec![Command::Confirm {
            id: id(1),
            lines: Some(lines(&[("{t}shirt", Some("flash"), 1), ("{t}cap", None, 1)])),
        }],
        vec![Command::Release { id: id(2) }],
        vec![Command::Return { id: id(1), lines: Some(lines(&[("{t}cap", None, 1)])), reference: reference("rma 1") }],
        vec![Command::SetOpen { offer: plain(), open: false }],
        vec![Command::SetOpen { offer: plain(), open: true }],
        vec![Command::EndSale { sku: sku("{t}shirt"), sale: SaleId::new("flash").expect("a sale") }],
        vec![reserve(4, &[("{t}cap", None, 5)], &[], None)],
        vec![Command::Fence { id: id(5) }],
        vec![
            Command::CreateProduct { sku: sku("{t}hat"), policy: Policy::default() },
            Command::DeleteProduct { sku: sku("{t}hat") },
        ],
    ]
    .into_iter()
    .chain(hours_of_orders())
    .collect()
}

/// Up to six commands of any kind, as valid as the wire lets through.
pub(crate) fn batch() -> impl proptest::strategy::Strategy<Value = Vec<Command>> {
    proptest::collection::vec(any::command(), 0..6)
}

/// Strategies by type.
mod any {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    fn text(max: usize) -> impl Strategy<Value = String> {
        prop_oneof![
            4 => proptest::string::string_regex("[a-zA-Z0-9{}._-]{1,12}").expect("a regex"),
            1 => proptest::string::string_regex("[äöü€-]{1,12}").expect("a regex"),
            1 => Just("x".repeat(max)),
        ]
        .prop_filter("fits", move |t| t.len() <= max)
    }
    fn offer() -> impl Strategy<Value = OfferKey> {
        (text(limits::SKU_BYTES_MAX), of(text(limits::SALE_ID_BYTES_MAX)))
            .prop_map(|(sku, sale)| super::offer(&sku, sale.as_deref()))
    }
    fn lines() -> impl Strategy<Value = Lines> {
        let line = (offer(), 1..=i64::from(limits::QUANTITY_MAX))
            .prop_map(|(offer, n)| Line { offer, quantity: Quantity::new(n).expect("in range") });
        proptest::collection::vec(line, 1..=limits::LINES_MAX).prop_map(Lines::from_vec)
    }
    fn keys() -> impl Strategy<Value = LimitKeys> {
        let key = text(limits::LIMIT_KEY_BYTES_MAX).prop_map(|t| LimitKey::new(t).expect("a key"));
        proptest::collection::vec(key, 0..=limits::LIMIT_KEYS_MAX).prop_map(LimitKeys::from_vec)
    }
    fn id() -> impl Strategy<Value = ReservationId> {
        (0..limits::SLOTS, 0..1u64 << 48, any::<u64>())
            .prop_map(|(slot, time, random)| ReservationId::from_parts(Slot::new(slot).expect("a slot"), time, random))
    }
    fn units() -> impl Strategy<Value = Units> {
        (1..=limits::UNITS_MAX as i64).prop_map(|n| Units::new(n).expect("in range"))
    }
    fn reference() -> impl Strategy<Value = Reference> {
        text(limits::REFERENCE_BYTES_MAX).prop_map(|t| super::reference(&t))
    }
    fn policy() -> impl Strategy<Value = Policy> {
        let window = (of(0..1u64 << 40), of(1..1u64 << 40));
        let order = (of(1..=limits::QUANTITY_MAX), 1..=limits::QUANTITY_MAX, 1..=limits::QUANTITY_MAX);
        let hold = (1..=limits::HOLD_MS_MAX, 1..=limits::HOLD_MS_MAX);
        (any::<bool>(), window, order, hold, 0..=limits::UNITS_MAX, of(text(limits::PRICE_BYTES_MAX))).prop_map(
            |(open, (opens, closes), (per_key_max, a, b), (h, i), low_stock_at, price)| Policy {
                open,
                opens_at: opens.map(LedgerTime),
                closes_at: closes.map(|c| LedgerTime(opens.unwrap_or(0) + c)),
                per_key_max,
                per_order_min: a.min(b),
                per_order_max: a.max(b),
                hold_ms_default: h.min(i),
                hold_ms_max: h.max(i),
                low_stock_at,
                price: price.map(|p| Price::new(p).expect("a price")),
            },
        )
    }
    fn ranges() -> impl Strategy<Value = Vec<(Slot, Slot)>> {
        proptest::collection::btree_set(0..limits::SLOTS, 0..12).prop_map(|edges| {
            let edges: Vec<_> = edges.into_iter().map(|n| Slot::new(n).expect("a slot")).collect();
            edges.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
        })
    }
    fn on_reservation() -> impl Strategy<Value = Command> {
        prop_oneof![
            (id(), keys(), lines(), of(1..=limits::HOLD_MS_MAX))
                .prop_map(|(id, keys, lines, hold_ms)| Command::Reserve { id, keys, lines, hold_ms }),
            (id(), any::<u64>(), 1..=limits::HOLD_MS_MAX).prop_map(|(id, t, hold_ms)| Command::Extend {
                id,
                replaces: LedgerTime(t),
                hold_ms
            }),
            (id(), of(lines())).prop_map(|(id, lines)| Command::Confirm { id, lines }),
            id().prop_map(|id| Command::Release { id }),
            id().prop_map(|id| Command::Fence { id }),
            (id(), of(lines()), reference()).prop_map(|(id, lines, reference)| Command::Return {
                id,
                lines,
                reference
            }),
        ]
    }
    fn on_stock() -> impl Strategy<Value = Command> {
        let most = limits::UNITS_MAX as i64;
        let delta = prop_oneof![-most..=most, -9..10i64].prop_filter("never zero", |d| *d != 0);
        let reason = text(limits::REASON_BYTES_MAX).prop_map(|t| Reason::new(t).expect("a reason"));
        prop_oneof![
            (offer(), policy()).prop_map(|(o, policy)| Command::CreateProduct { sku: o.sku, policy }),
            (offer(), policy(), of(any::<u64>())).prop_map(|(offer, policy, expected_version)| Command::PutOffer {
                offer,
                policy,
                expected_version
            }),
            (offer(), any::<bool>()).prop_map(|(offer, open)| Command::SetOpen { offer, open }),
            text(9).prop_map(|sku| Command::DeleteProduct { sku: super::sku(&sku) }),
            (text(9), text(9))
                .prop_map(|(a, b)| Command::EndSale { sku: super::sku(&a), sale: SaleId::new(b).expect("a sale") }),
            (offer(), units(), reference()).prop_map(|(offer, units, reference)| Command::Receive {
                offer,
                units,
                reference
            }),
            (offer(), delta, reason, reference(), of(any::<u64>())).prop_map(
                |(offer, delta, reason, reference, expected_version)| Command::Adjust {
                    offer,
                    delta,
                    reason,
                    reference,
                    expected_version
                }
            ),
            (offer(), of(text(9)), units(), reference()).prop_map(|(from, to, units, reference)| Command::Allot {
                sku: from.sku,
                from: from.sale,
                to: to.map(|t| SaleId::new(t).expect("a sale")),
                units,
                reference
            }),
        ]
    }
    fn sealed() -> impl Strategy<Value = Sealed> {
        proptest::collection::vec(any::<u8>(), 0..=64).prop_map(|bytes| Sealed::new(bytes).expect("short enough"))
    }
    fn amount() -> impl Strategy<Value = Money> {
        (1..=limits::AMOUNT_MAX, "[A-Z]{3}").prop_map(|(n, code)| Money::new(n, &code).expect("an amount"))
    }
    fn provider_id() -> impl Strategy<Value = ProviderId> {
        text(limits::PROVIDER_ID_BYTES_MAX).prop_map(|t| super::provider(&t))
    }
    fn why() -> impl Strategy<Value = Reason> {
        text(limits::REASON_BYTES_MAX).prop_map(|t| Reason::new(t).expect("a reason"))
    }
    fn report() -> impl Strategy<Value = Report> {
        let delay = || 0..=limits::DELAY_MS_MAX;
        prop_oneof![
            (provider_id(), 1..=u32::MAX).prop_map(|(intent, generation)| Report::Intent { intent, generation }),
            text(limits::SECRET_BYTES_MAX).prop_map(|t| Report::AwaitBuyer { secret: t.as_str().into() }),
            why().prop_map(|reason| Report::Unpaid { reason }),
            Just(Report::Notified),
            (delay(), why()).prop_map(|(after_ms, reason)| Report::Retry { after_ms, reason }),
            delay().prop_map(|after_ms| Report::GiveBack { after_ms }),
            why().prop_map(|reason| Report::Park { reason }),
        ]
    }
    fn on_order() -> impl Strategy<Value = Command> {
        let details = (amount(), 1..=limits::HOLD_MS_MAX, sealed(), sealed(), any::<bool>()).prop_map(
            |(amount, pay_within_ms, payment, contact, suspect)| {
                Box::new(OrderDetails { amount, pay_within_ms, payment, contact, suspect })
            },
        );
        let lease = || limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
        let fact = prop_oneof![
            (provider_id(), amount()).prop_map(|(payment, amount)| Fact::Paid { payment, amount }),
            (provider_id(), provider_id()).prop_map(|(payment, refund)| Fact::Refunded { payment, refund }),
        ];
        let class = prop_oneof![Just(WorkClass::Money), Just(WorkClass::Mail)];
        let what = prop_oneof![Just(ByHand::Redrive), Just(ByHand::Close), Just(ByHand::Refund), Just(ByHand::Resume)];
        let worker = text(limits::WORKER_ID_BYTES_MAX).prop_map(|t| WorkerId::new(t).expect("a name"));
        prop_oneof![
            (id(), details, of((keys(), lines()))).prop_map(|(id, details, reserve)| Command::PlaceOrder {
                id,
                details,
                reserve
            }),
            (id(), worker, class, 1..=limits::CLAIM_MAX, lease(), 0..=limits::LEASE_MS_MAX).prop_map(
                |(id, worker, class, max, lease_ms, attempt_ms)| Command::ClaimOrders {
                    slot: id.slot(),
                    worker,
                    class,
                    max,
                    lease_ms,
                    attempt_ms
                }
            ),
            (id(), any::<u32>(), lease()).prop_map(|(id, epoch, lease_ms)| Command::Heartbeat { id, epoch, lease_ms }),
            (id(), any::<u32>(), report()).prop_map(|(id, epoch, report)| Command::ReportOrder { id, epoch, report }),
            (id(), fact).prop_map(|(id, fact)| Command::RecordFact { id, fact }),
            (id(), what, why()).prop_map(|(id, what, reason)| Command::OrderByHand { id, what, reason }),
        ]
    }
    pub(crate) fn command() -> impl Strategy<Value = Command> {
        let settings = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c, d)| {
            ShardSettings { retain_sold_ms: a, retain_ended_ms: b, retain_refused_ms: c, remembered_max: d }
        });
        prop_oneof![
            8 => on_reservation(),
            6 => on_stock(),
            6 => on_order(),
            1 => Just(Command::Tick),
            1 => settings.prop_map(|settings| Command::Configure { settings }),
            1 => (any::<u64>(), ranges()).prop_map(|(generation, ranges)| Command::OwnSlots { generation, ranges }),
            1 => (0..=limits::BEHAVIOUR_VERSION_MAX).prop_map(|version| Command::SwitchBehaviour { version }),
        ]
    }
}
