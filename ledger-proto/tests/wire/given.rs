//! Random commands, calls and replies.

use ledger_core::command::Command;
use ledger_core::outcome::{Balance, Bound, Brief, Fenced, SoldOut, Status};
use ledger_core::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Price, Quantity, Reason, Reference, Refusal, ReservationId, SaleId,
    Settled, Sku, Slot, Units,
};
use ledger_proto::reply::{Cause, Invalid, NotNow, Reply, Why};
use ledger_proto::v1;
use proptest::prelude::*;

pub(crate) fn some_id() -> ReservationId {
    ReservationId::from_parts(Slot::new(7).unwrap(), 1_700_000_000_000, 42)
}
pub(crate) fn id() -> impl Strategy<Value = ReservationId> {
    (0..4_096_u16, 0..1_u64 << 48, any::<u64>())
        .prop_map(|(slot, time, random)| ReservationId::from_parts(Slot::new(slot).unwrap(), time, random))
}
fn sku() -> impl Strategy<Value = Sku> {
    "[!-~é]{1,40}".prop_filter_map("too long", |text| Sku::new(text).ok())
}
fn sale() -> impl Strategy<Value = SaleId> {
    "[a-z]{1,48}".prop_map(|text| SaleId::new(text).unwrap())
}
pub(crate) fn offer() -> impl Strategy<Value = OfferKey> {
    (sku(), prop::option::of(sale())).prop_map(|(sku, sale)| OfferKey { sku, sale })
}
pub(crate) fn line() -> impl Strategy<Value = Line> {
    (offer(), 1..=1_000_000_i64).prop_map(|(offer, n)| Line { offer, quantity: Quantity::new(n).unwrap() })
}
fn lines() -> impl Strategy<Value = ledger_core::command::Lines> {
    let once = |mut lines: Vec<Line>| {
        lines.sort();
        lines.dedup_by(|a, b| a.offer == b.offer);
        lines.into()
    };
    prop::collection::vec(line(), 1..5).prop_map(once)
}
pub(crate) fn reference() -> impl Strategy<Value = Reference> {
    "[a-z0-9 :]{1,64}".prop_map(|text| Reference::new(text).unwrap())
}
fn units() -> impl Strategy<Value = Units> {
    (1..=1_i64 << 48).prop_map(|n| Units::new(n).unwrap())
}
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let window = prop::option::of(any::<u32>());
    let orders = (1..100_u32, 100..1_000_u32);
    let holds = (1..1_000_u64, 1_000..604_800_000_u64);
    (any::<bool>(), window, prop::option::of(1..9_u32), orders, holds, 0..99_u64, prop::option::of("[0-9]{1,8}"))
        .prop_map(
            |(
                open,
                at,
                per_key_max,
                (per_order_min, per_order_max),
                (hold_ms_default, hold_ms_max),
                low_stock_at,
                price,
            )| Policy {
                open,
                opens_at: at.map(|at| LedgerTime(at.into())),
                closes_at: at.map(|at| LedgerTime(u64::from(at) + 1)),
                per_key_max,
                per_order_min,
                per_order_max,
                hold_ms_default,
                hold_ms_max,
                low_stock_at,
                price: price.map(|text| Price::new(text).unwrap()),
            },
        )
}

pub(crate) fn any_command() -> impl Strategy<Value = Command> {
    let keys = prop::collection::vec("[a-z ]{1,64}".prop_map(|key| LimitKey::new(key).unwrap()), 0..=4);
    let reserve = (id(), keys, lines(), prop::option::of(1_u64..))
        .prop_map(|(id, keys, lines, hold_ms)| Command::Reserve { id, keys: keys.into(), lines, hold_ms });
    let version = || prop::option::of(any::<u64>());
    let delta = || prop_oneof![1..=1_i64 << 48, -(1_i64 << 48)..=-1];
    let reason = || "[a-z ]{1,128}".prop_map(|text| Reason::new(text).unwrap());
    let sales = prop_oneof![sale().prop_map(|sale| (Some(sale), None)), sale().prop_map(|sale| (None, Some(sale)))];
    prop_oneof![
        6 => reserve,
        2 => (id(), prop::option::of(lines())).prop_map(|(id, lines)| Command::Confirm { id, lines }),
        2 => id().prop_map(|id| Command::Release { id }),
        2 => id().prop_map(|id| Command::Fence { id }),
        1 => (id(), any::<u64>(), 1_u64..).prop_map(|(id, at, hold_ms)| Command::Extend { id, replaces: LedgerTime(at), hold_ms }),
        1 => (id(), prop::option::of(lines()), reference())
            .prop_map(|(id, lines, reference)| Command::Return { id, lines, reference }),
        1 => (sku(), policy()).prop_map(|(sku, policy)| Command::CreateProduct { sku, policy }),
        1 => (offer(), policy(), version())
            .prop_map(|(offer, policy, expected_version)| Command::PutOffer { offer, policy, expected_version }),
        1 => (offer(), any::<bool>()).prop_map(|(offer, open)| Command::SetOpen { offer, open }),
        1 => (sku(), sale()).prop_map(|(sku, sale)| Command::EndSale { sku, sale }),
        1 => sku().prop_map(|sku| Command::DeleteProduct { sku }),
        1 => (offer(), units(), reference()).prop_map(|(offer, units, reference)| Command::Receive { offer, units, reference }),
        1 => (offer(), delta(), reason(), reference(), version()).prop_map(|(offer, delta, reason, reference, expected_version)| {
            Command::Adjust { offer, delta, reason, reference, expected_version }
        }),
        1 => (sku(), sales, units(), reference()).prop_map(|(sku, (from, to), units, reference)| Command::Allot {
            sku,
            from,
            to,
            units,
            reference
        }),
    ]
}

/// Calls as strangers make them: mostly valid, with names too long, ids too short, quantities out of range.
pub(crate) fn any_call() -> impl Strategy<Value = v1::Call> {
    let good = any_command().prop_map(|command| ledger_proto::calls::verb(&command));
    let odd_line =
        ("[ -~]{0,70}", "[a-z]{0,50}", any::<i64>()).prop_map(|(sku, sale, quantity)| v1::Line { sku, sale, quantity });
    let odd = (
        prop::collection::vec(any::<u8>(), 0..18),
        prop::collection::vec("[ -~]{0,70}", 0..6),
        prop::collection::vec(odd_line, 0..70),
        any::<u64>(),
    )
        .prop_map(|(id, keys, lines, hold_ms)| {
            Some(v1::call::Verb::Reserve(v1::Reserve { id: id.into(), keys, lines, hold_ms }))
        });
    (any::<u64>(), any::<u32>(), prop_oneof![3 => good, 1 => odd, 1 => Just(None)])
        .prop_map(|(tag, within_ms, verb)| v1::Call { tag, within_ms, verb })
}

pub(crate) fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Held), Just(Status::Confirmed), Just(Status::Released), Just(Status::Expired)]
}
pub(crate) fn brief() -> impl Strategy<Value = Brief> {
    (status(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(status, deadline, reserved_at, replayed)| Brief {
        status,
        deadline: LedgerTime(deadline),
        reserved_at: LedgerTime(reserved_at),
        replayed,
    })
}
pub(crate) fn balance() -> impl Strategy<Value = Balance> {
    any::<(u64, u64, u64)>().prop_map(|(available, held, sold)| Balance { available, held, sold })
}
pub(crate) fn truth() -> impl Strategy<Value = SoldOut> {
    prop_oneof![
        any::<u64>().prop_map(|available| SoldOut::Open { available }),
        any::<u64>().prop_map(|at| SoldOut::FirstBackAt(LedgerTime(at))),
        Just(SoldOut::Gone)
    ]
}

pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
    let simple = prop_oneof![
        Just(Refusal::LinesSpanSlots),
        Just(Refusal::IdTaken),
        Just(Refusal::Forgotten),
        Just(Refusal::Fenced),
        Just(Refusal::UnknownReservation),
        Just(Refusal::AlreadyExists),
        Just(Refusal::SaleHasEnded),
        Just(Refusal::OfferClosed),
        Just(Refusal::AlreadyReturned),
        Just(Refusal::ReferenceTaken),
    ];
    let numbers = (any::<u64>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<u8>(), 0..15_u8);
    let numbered = (numbers, status(), offer()).prop_map(|((n, m, s, t, k, kind), status, offer)| match kind {
        0 => Refusal::IdWrongSlot { id_slot: s, lines_slot: t },
        1 => Refusal::SaleNotOpenYet { opens_at: LedgerTime(n) },
        2 => Refusal::SaleOver { closed_at: LedgerTime(n) },
        3 => Refusal::HoldTooLong { max_ms: n },
        4 => Refusal::BelowOrderMin { min: m },
        5 => Refusal::AboveOrderMax { max: m },
        6 => Refusal::LimitReached { offer, key_index: k, used: m, max: s.into() },
        7 => Refusal::DeadlineMoved { deadline: LedgerTime(n) },
        8 => Refusal::VersionMismatch { actual: n },
        9 => Refusal::NotEnoughAvailable { available: n },
        14 => Refusal::ProductInUse { units: n, sales: m.into(), records: s.into() },
        10 => Refusal::BehaviourUnknown { version: s, present: t },
        11 => Refusal::StaleGeneration { present: n },
        12 => Refusal::EntryUndecodable,
        _ => Refusal::NotSold { status },
    });
    let about = (offer(), any::<u32>(), 0..5_u8).prop_map(|(offer, has, kind)| match kind {
        0 => Refusal::QuantityTooLarge { offer },
        1 => Refusal::UnknownProduct { offer },
        2 => Refusal::UnknownOffer { offer },
        3 => Refusal::NoSuchLine { offer },
        _ => Refusal::MoreThanLine { offer, has },
    });
    let bound = prop::sample::select(vec![
        Bound::UnitsPerProduct,
        Bound::OffersPerProduct,
        Bound::Offers,
        Bound::ReturnsPerReservation,
        Bound::PaymentsPerOrder,
        Bound::Products,
        Bound::References,
        Bound::UnknownPayments,
        Bound::OpenOrders,
    ]);
    prop_oneof![
        4 => simple,
        4 => numbered,
        4 => about,
        1 => (bound, any::<u64>()).prop_map(|(what, max)| Refusal::TooMany { what, max }),
        1 => status().prop_map(|status| Refusal::NotHeld { status }),
        2 => (offer(), truth()).prop_map(|(offer, truth)| Refusal::SoldOut { offer, truth }),
    ]
}

pub(crate) fn any_reply() -> impl Strategy<Value = Reply> {
    let fenced =
        prop_oneof![Just(Fenced::Never), refusal().prop_map(Fenced::WasRefused), brief().prop_map(Fenced::Reservation)];
    let cause = prop::sample::select(vec![
        Cause::NotLeader,
        Cause::SlotElsewhere,
        Cause::IdTooFarAhead,
        Cause::MemoryFull,
        Cause::RecordsFull,
        Cause::Overloaded,
        Cause::ClockUnsure,
        Cause::ClockJumped,
        Cause::LowSpace,
        Cause::NotServing,
        Cause::Diverged,
        Cause::RateLimited,
        Cause::Other,
    ]);
    let not_now = (cause, "[a-z ]{0,20}", any::<u32>(), prop::option::of("[a-z]{1,9}:[1-9]"))
        .prop_map(|(cause, message, retry_ms, leader)| NotNow { cause, message, retry_ms, leader });
    prop_oneof![
        4 => brief().prop_map(|brief| Reply::Ok(Settled::Reservation(brief))),
        1 => Just(Reply::Ok(Settled::Done)),
        1 => fenced.prop_map(|fenced| Reply::Ok(Settled::Fenced(fenced))),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(units, replayed)| Reply::Ok(Settled::Returned { units, replayed })),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(version, replayed)| Reply::Ok(Settled::Offer { version, replayed })),
        1 => (balance(), any::<u64>(), any::<bool>())
            .prop_map(|(balance, version, replayed)| Reply::Ok(Settled::Stocked { balance, version, replayed })),
        4 => refusal().prop_map(|refusal| Reply::Refused(Why::Ledger(refusal))),
        1 => "[a-z]{1,9}".prop_map(|why| Reply::Refused(Why::Invalid(Invalid::new("lines.sku", why)))),
        1 => "[a-z]{0,9}".prop_map(|message| Reply::Refused(Why::PermissionDenied(message))),
        1 => not_now.prop_map(Reply::NotNow),
        1 => "[a-z]{0,9}".prop_map(Reply::Unknown),
    ]
}
