//! What the queue of a shard counts for a call is at least what the call takes.

use bytes::Bytes;
use ledger_core::order::{
    ByHand, ClientSecret, Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId,
};
use ledger_core::types::{OfferKey, Policy, Price, ShardSettings};
use ledger_core::{
    Command, LedgerTime, LimitKey, Line, Quantity, Reason, Reference, ReservationId, SaleId, Sku, Slot, Units, limits,
};
use ledger_node::door::{PendingCall, queued_bytes};
use ledger_node::limits::QUEUED_CALL_BYTES_MAX;
use ledger_proto::v1::{self, call::Verb};
use ledger_proto::{calls, names};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Made at once, so that nothing else that allocates counts.
const MADE: usize = 256;

fn id() -> ReservationId {
    ReservationId::from_parts(Slot::new(7).expect("a slot"), 1_000, 1)
}
fn sku(n: usize) -> Sku {
    Sku::new(format!("{n:0>width$}", width = limits::SKU_BYTES_MAX)).expect("a SKU")
}
fn sale() -> SaleId {
    SaleId::new("s".repeat(limits::SALE_ID_BYTES_MAX)).expect("a sale")
}
fn offer(n: usize) -> OfferKey {
    OfferKey { sku: sku(n), sale: Some(sale()) }
}
fn line(n: usize) -> Line {
    Line { offer: offer(n), quantity: Quantity::new(1).expect("one") }
}
fn key(n: usize) -> LimitKey {
    LimitKey::new(format!("{n:0>width$}", width = limits::LIMIT_KEY_BYTES_MAX)).expect("a key")
}
fn reason() -> Reason {
    Reason::new("r".repeat(limits::REASON_BYTES_MAX)).expect("a reason")
}
fn reference() -> Reference {
    Reference::new("r".repeat(limits::REFERENCE_BYTES_MAX)).expect("a reference")
}
fn provider() -> ProviderId {
    ProviderId::new("p".repeat(limits::PROVIDER_ID_BYTES_MAX)).expect("an id")
}
fn policy() -> Policy {
    let price = Price::new("p".repeat(limits::PRICE_BYTES_MAX)).expect("a price");
    Policy { price: Some(price), ..Policy::default() }
}
fn sealed() -> Sealed {
    Sealed::new(Bytes::from(vec![1; limits::SEALED_BYTES_MAX])).expect("short enough")
}
fn details() -> OrderDetails {
    let amount = Money::new(1, "EUR").expect("money");
    OrderDetails { amount, pay_within_ms: 1, payment: sealed(), contact: sealed(), suspect: false }
}

/// An order of the largest content, as the wire brings it.
fn place_from_the_wire() -> Command {
    let wire_line = |n| v1::Line { sku: sku(n).as_str().to_owned(), sale: sale().as_str().to_owned(), quantity: 1 };
    let verb = Verb::PlaceOrder(v1::PlaceOrder {
        id: names::id_to_wire(id()),
        amount: Some(v1::Money { minor: 1, currency: "EUR".into() }),
        pay_within_ms: 1_000,
        payment: vec![1; limits::SEALED_BYTES_MAX].into(),
        contact: vec![2; limits::SEALED_BYTES_MAX].into(),
        suspect: false,
        keys: (0..limits::LIMIT_KEYS_MAX).map(|n| key(n).as_str().to_owned()).collect(),
        lines: (0..limits::LINES_MAX).map(wire_line).collect(),
    });
    calls::command(Some(verb)).expect("a valid order")
}

type Make = fn() -> Command;

/// Each command with the largest content it may have, and some with the smallest.
fn commands() -> Vec<(&'static str, Make)> {
    vec![
        ("tick", || Command::Tick),
        ("reserve of one short line", || Command::Reserve {
            id: id(),
            keys: [LimitKey::new("anna").expect("a key")].into_iter().collect(),
            lines: [Line {
                offer: OfferKey { sku: Sku::new("shoe").expect("a SKU"), sale: None },
                quantity: Quantity::new(1).expect("one"),
            }]
            .into_iter()
            .collect(),
            hold_ms: None,
        }),
        ("reserve", || Command::Reserve {
            id: id(),
            keys: (0..limits::LIMIT_KEYS_MAX).map(key).collect(),
            lines: (0..limits::LINES_MAX).map(line).collect(),
            hold_ms: Some(1),
        }),
        ("confirm", || Command::Confirm { id: id(), lines: Some((0..limits::LINES_MAX).map(line).collect()) }),
        ("return", || Command::Return {
            id: id(),
            lines: Some((0..limits::LINES_MAX).map(line).collect()),
            reference: reference(),
        }),
        ("create product", || Command::CreateProduct { sku: sku(1), policy: policy() }),
        ("delete product", || Command::DeleteProduct { sku: sku(1) }),
        ("put offer", || Command::PutOffer { offer: offer(1), policy: policy(), expected_version: Some(1) }),
        ("set open", || Command::SetOpen { offer: offer(1), open: true }),
        ("end sale", || Command::EndSale { sku: sku(1), sale: sale() }),
        ("receive", || Command::Receive {
            offer: offer(1),
            units: Units::new(1).expect("one"),
            reference: reference(),
        }),
        ("adjust", || Command::Adjust {
            offer: offer(1),
            delta: 1,
            reason: reason(),
            reference: reference(),
            expected_version: None,
        }),
        ("allot", || Command::Allot {
            sku: sku(1),
            from: Some(sale()),
            to: Some(sale()),
            units: Units::new(1).expect("one"),
            reference: reference(),
        }),
        ("configure", || Command::Configure { settings: ShardSettings::default() }),
        ("own slots", || Command::OwnSlots {
            generation: 1,
            ranges: vec![(Slot::new(1).expect("a slot"), Slot::new(2).expect("a slot")); limits::SLOT_RANGES_MAX],
        }),
        ("place order", || Command::PlaceOrder {
            id: id(),
            details: Box::new(details()),
            reserve: Some(((0..limits::LIMIT_KEYS_MAX).map(key).collect(), (0..limits::LINES_MAX).map(line).collect())),
        }),
        ("place order from the wire", place_from_the_wire),
        ("claim", || Command::ClaimOrders {
            slot: Slot::new(1).expect("a slot"),
            worker: WorkerId::new("w".repeat(limits::WORKER_ID_BYTES_MAX)).expect("a worker"),
            class: WorkClass::Money,
            max: 1,
            lease_ms: 1_000,
            attempt_ms: 0,
        }),
        ("report", || Command::ReportOrder {
            id: id(),
            epoch: 1,
            report: Report::AwaitBuyer { secret: ClientSecret::from("s".repeat(limits::SECRET_BYTES_MAX)) },
        }),
        ("fact", || Command::RecordFact { id: id(), fact: Fact::Refunded { payment: provider(), refund: provider() } }),
        ("by hand", || Command::OrderByHand { id: id(), what: ByHand::Close, reason: reason() }),
        ("extend", || Command::Extend { id: id(), replaces: LedgerTime(1), hold_ms: 1 }),
    ]
}

#[test]
fn queued_bytes_are_at_least_what_commands_take_and_within_the_bound_of_one() {
    for (name, make) in commands() {
        let mut made = Vec::with_capacity(MADE);
        let before = ALLOCATED.current_usage();
        made.extend((0..MADE).map(|_| make()));
        let owned = (ALLOCATED.current_usage() - before) / MADE;
        let (takes, counted) = (size_of::<PendingCall>() + owned, queued_bytes(&made[0]));
        assert!(counted >= takes, "{name} takes {takes} bytes and counts as {counted}");
        assert!(counted <= 2 * takes, "{name} takes {takes} bytes and counts as {counted}: fewer calls than fit");
        assert!(counted <= QUEUED_CALL_BYTES_MAX, "{name} counts as {counted}");
    }
}
