//! Every call that the conversions take can be in a log entry, and comes out of it as it went in.
//!
//! **Owns** calls at and beyond each limit, as wire messages. **Must never** be made from commands, which cannot say what is wrong.

use bytes::Bytes;
use ledger_core::codec::{EntryBuilder, decode_entry};
use ledger_core::{Command, LedgerTime, limits};
use ledger_proto::limits::LINES_PER_CALL_MAX;
use ledger_proto::v1::{self, call::Verb, record_fact as facts, report_order as reports};
use ledger_proto::{Invalid, calls, fast};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

/// A text at, just below or just beyond a bound; sometimes one that no name takes.
fn text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z0-9{}-]{1,8}",
        1 => Just("x".repeat(max)),
        1 => Just("x".repeat(max + 1)),
        1 => Just("é".repeat(max / 2)),
        1 => Just(String::new()),
        1 => Just("a b\n".to_owned()),
    ]
}

/// A number near the bounds that the ledger has, or any.
fn number() -> impl Strategy<Value = u64> {
    let bounds = [
        0,
        1,
        limits::LEASE_MS_MIN,
        limits::CLAIM_MAX.into(),
        limits::QUANTITY_MAX.into(),
        limits::LEASE_MS_MAX,
        limits::DELAY_MS_MAX,
        limits::HOLD_MS_MAX,
        limits::AMOUNT_MAX,
        limits::UNITS_MAX,
        i64::MAX as u64,
        u32::MAX.into(),
        u64::MAX,
    ];
    prop_oneof![
        6 => (prop::sample::select(bounds.to_vec()), 0..3_u64).prop_map(|(n, by)| n.wrapping_add(by).wrapping_sub(1)),
        3 => 1..100_u64,
        1 => any::<u64>(),
    ]
}
fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|n| n as u32)
}
fn signed() -> impl Strategy<Value = i64> {
    (number(), any::<bool>()).prop_map(|(n, less)| if less { (n as i64).wrapping_neg() } else { n as i64 })
}
fn id() -> impl Strategy<Value = Bytes> {
    let of = |n| move |bytes: Vec<u8>| -> Bytes { bytes[..n].to_vec().into() };
    prop_oneof![
        8 => crate::given::id().prop_map(|id| Bytes::copy_from_slice(id.as_bytes())),
        1 => vec(any::<u8>(), 16).prop_map(of(16)),
        1 => vec(any::<u8>(), 16).prop_map(of(15)),
    ]
}
fn line() -> impl Strategy<Value = v1::Line> {
    let quantity = prop_oneof![4 => 1..=1_000_000_i64, 1 => signed()];
    // Few names, so that many lines are of one offer; sometimes more offers than a command takes.
    let sku = prop_oneof![6 => "[a-c]", 2 => "[a-z]{2}", 1 => text(limits::SKU_BYTES_MAX)];
    let sale = prop_oneof![8 => Just(String::new()), 1 => "[s-t]", 1 => text(limits::SALE_ID_BYTES_MAX)];
    (sku, sale, quantity).prop_map(|(sku, sale, quantity)| v1::Line { sku, sale, quantity })
}
fn lines() -> impl Strategy<Value = Vec<v1::Line>> {
    let one = v1::Line { sku: "a".into(), sale: String::new(), quantity: 1 };
    let distinct = |n| (0..n).map(|i| v1::Line { sku: format!("s{i}"), sale: String::new(), quantity: 1 }).collect();
    prop_oneof![
        4 => vec(line(), 0..4),
        2 => vec(line(), 0..=LINES_PER_CALL_MAX + 1),
        2 => (1..=LINES_PER_CALL_MAX + 1).prop_map(move |n| vec![one.clone(); n]),
        1 => (limits::LINES_MAX - 1..=limits::LINES_MAX + 1).prop_map(distinct),
    ]
}
fn opt_lines() -> impl Strategy<Value = Option<v1::Lines>> {
    option::of(lines().prop_map(|lines| v1::Lines { lines }))
}
fn keys() -> impl Strategy<Value = Vec<String>> {
    vec(text(limits::LIMIT_KEY_BYTES_MAX), 0..=limits::LIMIT_KEYS_MAX + 1)
}
fn offer() -> impl Strategy<Value = Option<v1::OfferKey>> {
    let offer = (text(limits::SKU_BYTES_MAX), text(limits::SALE_ID_BYTES_MAX));
    option::weighted(0.9, offer.prop_map(|(sku, sale)| v1::OfferKey { sku, sale }))
}
fn reference() -> impl Strategy<Value = String> {
    text(limits::REFERENCE_BYTES_MAX)
}
fn reason() -> impl Strategy<Value = String> {
    text(limits::REASON_BYTES_MAX)
}
fn policy() -> BoxedStrategy<Option<v1::Policy>> {
    let times = (any::<bool>(), option::of(number()), option::of(number()));
    let orders = (option::of(small()), small(), small());
    let policy = (times, orders, number(), number(), number(), text(limits::PRICE_BYTES_MAX)).prop_map(
        |((open, opens_at_ms, closes_at_ms), (per_key_max, min, max), hold_ms_default, hold_ms_max, low, price)| {
            v1::Policy {
                open,
                opens_at_ms,
                closes_at_ms,
                per_key_max,
                per_order_min: min,
                per_order_max: max,
                hold_ms_default,
                hold_ms_max,
                low_stock_at: low,
                price,
            }
        },
    );
    prop_oneof![1 => Just(None), 2 => Just(Some(v1::Policy { open: true, ..Default::default() })), 5 => policy.prop_map(Some)].boxed()
}
fn money() -> impl Strategy<Value = Option<v1::Money>> {
    let currency = prop_oneof![4 => "[A-Za-z]{3}", 1 => "[A-Z0-9é]{2,4}"];
    option::weighted(0.9, (number(), currency).prop_map(|(minor, currency)| v1::Money { minor, currency }))
}
fn sealed() -> impl Strategy<Value = Bytes> {
    let max = limits::SEALED_BYTES_MAX;
    prop_oneof![Just(0), Just(9), Just(max), Just(max + 1)].prop_map(|n| vec![7; n].into())
}
fn provider() -> impl Strategy<Value = String> {
    text(limits::PROVIDER_ID_BYTES_MAX)
}

fn on_reservation() -> BoxedStrategy<Verb> {
    prop_oneof![
        4 => (id(), keys(), lines(), number())
            .prop_map(|(id, keys, lines, hold_ms)| Verb::Reserve(v1::Reserve { id, keys, lines, hold_ms })),
        1 => (id(), number(), number())
            .prop_map(|(id, replaces_ms, hold_ms)| Verb::Extend(v1::Extend { id, replaces_ms, hold_ms })),
        2 => (id(), opt_lines()).prop_map(|(id, lines)| Verb::Confirm(v1::Confirm { id, lines })),
        1 => id().prop_map(|id| Verb::Release(v1::Release { id })),
        1 => id().prop_map(|id| Verb::Fence(v1::Fence { id })),
        2 => (id(), opt_lines(), reference())
            .prop_map(|(id, lines, reference)| Verb::ReturnUnits(v1::ReturnUnits { id, lines, reference })),
    ]
    .boxed()
}

fn on_stock() -> BoxedStrategy<Verb> {
    let (sku, sale) = (|| text(limits::SKU_BYTES_MAX), || text(limits::SALE_ID_BYTES_MAX));
    prop_oneof![
        (sku(), policy()).prop_map(|(sku, policy)| Verb::CreateProduct(v1::CreateProduct { sku, policy })),
        (offer(), policy(), option::of(any::<u64>())).prop_map(|(offer, policy, expected_version)| {
            Verb::PutOffer(v1::PutOffer { offer, policy, expected_version })
        }),
        (offer(), any::<bool>()).prop_map(|(offer, open)| Verb::SetOpen(v1::SetOpen { offer, open })),
        (sku(), sale()).prop_map(|(sku, sale)| Verb::EndSale(v1::EndSale { sku, sale })),
        (offer(), signed(), reference()).prop_map(|(offer, units, reference)| Verb::Receive(v1::Receive {
            offer,
            units,
            reference
        })),
        (offer(), signed(), reason(), reference(), option::of(any::<u64>())).prop_map(
            |(offer, delta, reason, reference, expected_version)| {
                Verb::Adjust(v1::Adjust { offer, delta, reason, reference, expected_version })
            }
        ),
        (sku(), sale(), sale(), signed(), reference()).prop_map(|(sku, from_sale, to_sale, units, reference)| {
            Verb::Allot(v1::Allot { sku, from_sale, to_sale, units, reference })
        }),
    ]
    .boxed()
}

/// A client secret of so many bytes; sealed, if there is room for the form.
fn sealed_text(bytes: usize) -> String {
    let form = ledger_core::order::ClientSecret::SEALED;
    match bytes.checked_sub(form.len()) {
        None | Some(0) => "s".repeat(bytes),
        Some(digits) => form.to_owned() + &"s".repeat(digits),
    }
}

fn report() -> impl Strategy<Value = reports::Report> {
    use reports::Report;
    let secret = prop_oneof![Just(0), Just(1), Just(limits::SECRET_BYTES_MAX), Just(limits::SECRET_BYTES_MAX + 1)];
    prop_oneof![
        (provider(), small()).prop_map(|(intent, generation)| Report::Intent(reports::Intent { intent, generation })),
        secret.prop_map(|n| Report::AwaitBuyer(reports::AwaitBuyer { secret: sealed_text(n) })),
        reason().prop_map(|reason| Report::Unpaid(reports::Unpaid { reason })),
        Just(Report::Notified(v1::Done {})),
        (number(), reason()).prop_map(|(after_ms, reason)| Report::Retry(reports::Retry { after_ms, reason })),
        number().prop_map(|after_ms| Report::GiveBack(reports::GiveBack { after_ms })),
        reason().prop_map(|reason| Report::Park(reports::Park { reason })),
    ]
}

fn on_order() -> BoxedStrategy<Verb> {
    let fact = prop_oneof![
        (provider(), money()).prop_map(|(payment, amount)| facts::Fact::Paid(facts::Paid { payment, amount })),
        (provider(), provider())
            .prop_map(|(payment, refund)| facts::Fact::Refunded(facts::Refunded { payment, refund })),
    ];
    let place = (id(), money(), number(), (sealed(), sealed()), any::<bool>(), keys(), lines()).prop_map(
        |(id, amount, pay_within_ms, (payment, contact), suspect, keys, lines)| {
            Verb::PlaceOrder(v1::PlaceOrder { id, amount, pay_within_ms, payment, contact, suspect, keys, lines })
        },
    );
    let worker = text(limits::WORKER_ID_BYTES_MAX);
    let lease = || prop_oneof![3 => limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX, 1 => number()];
    let most = prop_oneof![3 => 1..=limits::CLAIM_MAX, 1 => small()];
    let class = prop_oneof![3 => 1..3_i32, 1 => -1..4_i32];
    let claim = (0..4_100_u32, worker, class, most, lease(), lease()).prop_map(
        |(slot, worker, class, max, lease_ms, attempt_ms)| {
            Verb::ClaimOrders(v1::ClaimOrders { slot, worker, class, max, lease_ms, attempt_ms })
        },
    );
    prop_oneof![
        2 => place,
        1 => claim,
        1 => (id(), any::<u32>(), number())
            .prop_map(|(id, epoch, lease_ms)| Verb::Heartbeat(v1::Heartbeat { id, epoch, lease_ms })),
        2 => (id(), any::<u32>(), option::weighted(0.9, report()))
            .prop_map(|(id, epoch, report)| Verb::ReportOrder(v1::ReportOrder { id, epoch, report })),
        1 => (id(), option::weighted(0.9, fact))
            .prop_map(|(id, fact)| Verb::RecordFact(v1::RecordFact { id, fact })),
        1 => (id(), -1..6_i32, reason())
            .prop_map(|(id, what, reason)| Verb::OrderByHand(v1::OrderByHand { id, what, reason })),
    ]
    .boxed()
}

fn verb() -> BoxedStrategy<Verb> {
    prop_oneof![on_reservation(), on_stock(), on_order()].boxed()
}

/// What an entry of one command decodes to; its encoding never fails for what a conversion made.
fn through_an_entry(command: &Command) -> Command {
    let mut entry = EntryBuilder::new();
    entry.push(command).unwrap_or_else(|why| panic!("accepted at the wire and {why}: {command:?}"));
    let mut decoded = decode_entry(LedgerTime(1), &entry.finish()).expect("what was encoded decodes").commands;
    decoded.pop().expect("one command")
}

/// The same call the other way in: as the bytes of a frame.
fn fast_path(verb: &Verb) -> Result<Command, Invalid> {
    let call = v1::Call { tag: 1, within_ms: 0, verb: Some(verb.clone()) };
    let mut read = Vec::new();
    let frame = v1::CallFrame { calls: vec![call] }.encode_to_vec();
    fast::decode_call_frame(&frame, &mut read).expect("a frame");
    read.remove(0).command
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_192, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_accepted_call_is_encoded_and_decodes_to_itself(verb in verb()) {
        let accepted = calls::command(Some(verb.clone()));
        prop_assert_eq!(&fast_path(&verb), &accepted, "both ways in say the same");
        if let Ok(command) = accepted {
            prop_assert_eq!(&through_an_entry(&command), &command);
            prop_assert_eq!(calls::check(&command), Ok(()), "the SDK's check takes it, too");
            let again = calls::command(calls::verb(&command));
            prop_assert_eq!(again, Ok(command), "what was read is written as the same call");
        }
    }

    /// What an SDK takes from its caller is what a node takes from the SDK.
    #[test]
    fn a_command_that_passes_the_check_is_accepted_at_the_wire(command in crate::given::any_command()) {
        prop_assert_eq!(calls::check(&command), Ok(()));
        prop_assert_eq!(through_an_entry(&command), command);
    }
}

/// The generator is worth something only if most of each verb gets through, and much of it does not.
#[test]
fn the_generated_calls_are_accepted_and_refused_of_every_verb() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<_, [u32; 2]>::new();
    for _ in 0..20_000 {
        let verb = verb().new_tree(&mut runner).expect("a verb").current();
        let taken = calls::command(Some(verb.clone())).is_ok();
        seen.entry(format!("{verb:?}").split('(').next().expect("a name").to_owned()).or_default()
            [usize::from(taken)] += 1;
    }
    assert_eq!(seen.len(), 19, "{seen:?}");
    assert!(seen.values().all(|[refused, taken]| *refused > 20 && *taken > 20), "{seen:?}");
}
