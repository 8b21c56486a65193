//! Views, the feed, routing and statuses come back as they went; bad input is named.

use crate::given::*;
use ledger_core::change::{Change, ChangeKind, EntryFault, LineChange, LineChanges, Record};
use ledger_core::view::{IdView, LineView, OfferView, ProductView, ReservationView};
use ledger_core::{Command, LedgerTime, LimitKey, Position, SaleId, Sku, Slot, Units};
use ledger_proto::reply::Reply;
use ledger_proto::routing::{NodeRoute, Routes, ShardRoute};
use ledger_proto::v1::call::Verb;
use ledger_proto::{calls, feed, status as statuses, v1, views};
use proptest::prelude::*;

fn line_changes() -> impl Strategy<Value = LineChanges> {
    let one = (line(), balance()).prop_map(|(line, balance)| LineChange { line, balance });
    prop::collection::vec(one, 0..4).prop_map(Into::into)
}

fn kind() -> impl Strategy<Value = ChangeKind> {
    let reservation = (0..7_u8, id(), any::<u64>(), line_changes(), line_changes(), reference()).prop_map(
        |(kind, id, at, lines, given_back, reference)| match kind {
            0 => ChangeKind::InventoryReserved { id, deadline: LedgerTime(at), lines },
            1 => ChangeKind::ReservationExtended { id, deadline: LedgerTime(at) },
            2 => ChangeKind::ReservationConfirmed { id, lines, given_back },
            3 => ChangeKind::ReservationReleased { id, lines },
            4 => ChangeKind::ReservationExpired { id, deadline: LedgerTime(at), lines },
            _ => ChangeKind::UnitsReturned { id, reference, lines },
        },
    );
    let about = (0..13_u8, offer(), balance(), policy(), reference(), truth()).prop_map(
        |(kind, offer, balance, policy, reference, truth)| match kind {
            0 => ChangeKind::ProductCreated { sku: offer.sku, policy },
            1 => ChangeKind::OfferPut { offer, policy, version: 3 },
            2 => ChangeKind::OfferOpened { offer },
            3 => ChangeKind::OfferClosed { offer },
            4 => ChangeKind::SaleStarted { offer, balance },
            5 => ChangeKind::SaleEnded { offer, balance, moved_back: 9, by_hand: true },
            6 => ChangeKind::UnitsReceived { offer, units: Units::new(4).unwrap(), reference, balance },
            7 => ChangeKind::StockLow { offer, available: 2 },
            8 => ChangeKind::SoldOut { offer, truth },
            10 => ChangeKind::OfferRemoved { offer, sold: 3, balance },
            11 => ChangeKind::ProductDeleted { sku: offer.sku },
            9 => ChangeKind::EntryRefused { hash: u128::MAX - 7, bytes: 12, error: EntryFault::TooLarge },
            _ => ChangeKind::UnitsAllotted {
                sku: offer.sku,
                from: offer.sale,
                to: Some(SaleId::new("to").unwrap()),
                units: Units::new(4).unwrap(),
                reference,
                from_balance: balance,
                to_balance: balance,
            },
        },
    );
    prop_oneof![reservation, about]
}

fn offer_view() -> impl Strategy<Value = OfferView> {
    (offer(), policy(), any::<u64>(), balance(), prop::option::of(truth()), any::<(bool, bool)>()).prop_map(
        |(offer, policy, version, balance, sold_out, (ended, taking))| OfferView {
            offer,
            policy,
            version,
            balance,
            sold_out,
            ended,
            taking,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn changes_come_back(kind in kind(), place: u16, before in prop::option::of(any::<(u64, u16)>())) {
        let position = Position { incarnation: 1, shard: 2, term: 3, index: 4, place: 0 };
        // Index 0 says none, and the products of a change have one link each.
        let before = before.filter(|(index, _)| *index > 0);
        let links = (0..kind.products().len()).map(|at| before.filter(|_| at != 1)).collect();
        let change = Change { place, previous_on_products: links, previous_on_reservation: before, kind };
        let record = Record { position, time: LedgerTime(9), chain_before: 0, changes: vec![change.clone()] };
        let wire: Vec<_> = feed::record_to_wire(&record).collect();
        let read = feed::change_from_wire(wire[0].clone()).unwrap();
        prop_assert_eq!(read, (Position { place, ..position }, LedgerTime(9), change));
    }

    #[test]
    fn views_come_back(offers in prop::collection::vec(offer_view(), 0..3), refused in refusal(), id in id(), at: u64) {
        let sku = Sku::new("a").unwrap();
        let product = ProductView { sku, received: at, adjusted: -3, returned: 1, ever_sold: 2, offers };
        prop_assert_eq!(views::product_from_wire(views::product_to_wire(&product)).unwrap(), product.clone());
        let lines = product.offers.iter().map(|view| LineView { offer: view.offer.clone(), reserved: 3, sold: 2, returned: 1 });
        let reservation = ReservationView {
            id,
            status: ledger_core::outcome::Status::Released,
            reserved_at: LedgerTime(at),
            deadline: LedgerTime(7),
            ended_at: Some(LedgerTime(8)),
            keys: vec![LimitKey::new("a b").unwrap()],
            lines: lines.collect(),
        };
        for view in [
            IdView::Reservation(reservation),
            IdView::Refused(refused),
            IdView::Fenced,
            IdView::Unknown,
            IdView::Forgotten,
        ] {
            prop_assert_eq!(views::id_from_wire(views::id_to_wire(&view)).unwrap(), view);
        }
        prop_assert!(views::id_to_wire(&IdView::SlotElsewhere).is_none());
    }

    #[test]
    fn statuses_carry_the_typed_answer(reply in any_reply()) {
        let status = match reply.clone() {
            Reply::Ok(_) => return Ok(()),
            Reply::Refused(why) => statuses::refused(why),
            Reply::NotNow(not_now) => statuses::not_now(not_now),
            Reply::Unknown(message) => statuses::unknown(message),
        };
        prop_assert_eq!(statuses::reply(&status), Some(reply));
    }
}

#[test]
fn a_strangers_status_is_no_answer() {
    assert_eq!(statuses::reply(&tonic::Status::unavailable("a proxy")), None);
}

#[test]
fn routing_comes_back_and_is_checked() {
    let slot = |n| Slot::new(n).unwrap();
    let shard = ShardRoute { shard: 3, slots: vec![(slot(0), slot(4_095))], leader: None, replicas: vec![1, 2] };
    let node = NodeRoute { node: 1, client: "a:1".into(), http: "a:2".into() };
    let routes = Routes { generation: 5, shards: vec![shard], nodes: vec![node], ..Default::default() };
    assert_eq!(Routes::from_wire(routes.to_wire()).unwrap(), routes);
    let mut bad = routes.to_wire();
    bad.shards[0].slots[0].to = 4_096;
    assert!(Routes::from_wire(bad.clone()).is_err());
    bad.shards[0].slots[0] = v1::SlotRange { from: 9, to: 3 };
    assert!(Routes::from_wire(bad).is_err());
}

/// Each kind of bad input, and the field that is blamed.
#[test]
fn bad_input_is_named() {
    let id = some_id().as_bytes().to_vec();
    let line = |sku: &str, quantity| v1::Line { sku: sku.into(), sale: String::new(), quantity };
    let reserve = |id: &[u8], keys: usize, lines: Vec<v1::Line>| {
        let keys = vec!["k".to_owned(); keys];
        Some(Verb::Reserve(v1::Reserve { id: id.to_vec().into(), keys, lines, hold_ms: 0 }))
    };
    let plain = || Some(v1::OfferKey { sku: "a".into(), sale: String::new() });
    let adjust = |delta, reason: &str| {
        let (reason, reference) = (reason.to_owned(), "r".to_owned());
        Some(Verb::Adjust(v1::Adjust { offer: plain(), delta, reason, reference, expected_version: None }))
    };
    let receive = |units, reference: &str| {
        Some(Verb::Receive(v1::Receive { offer: plain(), units, reference: reference.into() }))
    };
    let allot = v1::Allot { sku: "a".into(), units: 1, reference: "r".into(), ..Default::default() };
    let policy = |policy| Some(Verb::CreateProduct(v1::CreateProduct { sku: "a".into(), policy: Some(policy) }));
    let many: Vec<_> = (0..17).map(|n| line(&format!("s{n}"), 1)).collect();
    let cases = [
        (None, "verb"),
        (reserve(&[], 0, vec![line("a", 1)]), "id"),
        (reserve(&[0; 16], 0, vec![line("a", 1)]), "id"),
        (reserve(&id, 5, vec![line("a", 1)]), "keys"),
        (reserve(&id, 0, vec![]), "lines"),
        (reserve(&id, 0, many), "lines"),
        (reserve(&id, 0, vec![line("a", 1); 65]), "lines"),
        (reserve(&id, 0, vec![line("", 1)]), "lines.sku"),
        (reserve(&id, 0, vec![line(&"x".repeat(65), 1)]), "lines.sku"),
        (reserve(&id, 0, vec![line("a\nb", 1)]), "lines.sku"),
        (reserve(&id, 0, vec![line("a", 0)]), "lines.quantity"),
        (reserve(&id, 0, vec![line("a", -1)]), "lines.quantity"),
        (reserve(&id, 0, vec![line("a", 1_000_001)]), "lines.quantity"),
        (Some(Verb::Extend(v1::Extend { id: id.clone().into(), replaces_ms: 1, hold_ms: 0 })), "hold_ms"),
        (adjust(0, "why"), "delta"),
        (adjust(i64::MIN, "why"), "delta"),
        (adjust(1, ""), "reason"),
        (receive(0, "r"), "units"),
        (receive(-5, "r"), "units"),
        (receive(i64::MAX, "r"), "units"),
        (receive(1, ""), "reference"),
        (Some(Verb::Receive(v1::Receive { offer: None, units: 1, reference: "r".into() })), "offer"),
        (Some(Verb::Allot(allot)), "to_sale"),
        (Some(Verb::PutOffer(v1::PutOffer { offer: plain(), ..Default::default() })), "policy"),
        (policy(v1::Policy { per_order_min: 5, per_order_max: 4, ..Default::default() }), "policy"),
        (policy(v1::Policy { hold_ms_max: u64::MAX, ..Default::default() }), "policy"),
        (Some(Verb::EndSale(v1::EndSale { sku: "a".into(), sale: String::new() })), "sale"),
    ];
    for (verb, field) in cases {
        let shown = format!("{verb:?}");
        let invalid = calls::command(verb).expect_err(&shown);
        assert_eq!(invalid.field, field, "{shown}: {invalid}");
    }
}

#[test]
fn zeros_in_a_policy_are_the_defaults() {
    let wire = v1::Policy { open: true, hold_ms_max: 1_000, ..Default::default() };
    let verb = Verb::CreateProduct(v1::CreateProduct { sku: "a".into(), policy: Some(wire) });
    let Ok(Command::CreateProduct { policy, .. }) = calls::command(Some(verb)) else { panic!("it is valid") };
    assert_eq!((policy.per_order_min, policy.per_order_max), (1, 1_000_000));
    assert_eq!((policy.hold_ms_default, policy.hold_ms_max), (1_000, 1_000), "the default never exceeds the longest");
}

fn wire_line(sku: &str, sale: &str, quantity: i64) -> v1::Line {
    v1::Line { sku: sku.into(), sale: sale.into(), quantity }
}

/// What a reserve of these lines carries: offer and quantity, in the order in which the offers were first named.
fn lines_read(lines: Vec<v1::Line>) -> Result<Vec<(String, u32)>, String> {
    let id = some_id().as_bytes().to_vec().into();
    match calls::command(Some(Verb::Reserve(v1::Reserve { id, keys: vec![], lines, hold_ms: 0 }))) {
        Ok(command) => {
            assert_eq!(
                calls::check(&command),
                Ok(()),
                "what came from the wire passes the check for what is made by hand"
            );
            let Command::Reserve { lines, .. } = command else { unreachable!("a reserve is read as a reserve") };
            let shown = |line: &ledger_core::Line| match &line.offer.sale {
                Some(sale) => format!("{}/{sale}", line.offer.sku),
                None => line.offer.sku.to_string(),
            };
            Ok(lines.iter().map(|line| (shown(line), line.quantity.get())).collect())
        }
        Err(invalid) => Err(invalid.field.into_owned()),
    }
}

#[test]
fn lines_of_one_offer_are_read_as_their_sum() {
    assert_eq!(lines_read(vec![wire_line("a", "", 1); 64]), Ok(vec![("a".to_owned(), 64)]));
    let mixed = vec![
        wire_line("b", "", 1),
        wire_line("a", "", 2),
        wire_line("b", "s", 4),
        wire_line("a", "", 8),
        wire_line("b", "", 16),
    ];
    let sums = [("b", 17), ("a", 10), ("b/s", 4)].map(|(offer, sum)| (offer.to_owned(), sum));
    assert_eq!(lines_read(mixed), Ok(sums.to_vec()), "a sale's offer is another than the plain one");
}

#[test]
fn lines_are_bounded_in_number_offers_and_sum() {
    assert_eq!(lines_read(vec![wire_line("a", "", 1); 65]), Err("lines".to_owned()));
    let offers = |n: usize| (0..n).map(|n| wire_line(&format!("sku-{n}"), "", 1)).collect::<Vec<_>>();
    let twice = |n| [offers(n), offers(n)].concat();
    assert_eq!(lines_read(twice(16)).map(|lines| lines.len()), Ok(16));
    assert_eq!(lines_read(twice(17)), Err("lines".to_owned()));
    assert_eq!(lines_read(vec![wire_line("a", "", 500_000); 2]), Ok(vec![("a".to_owned(), 1_000_000)]));
    assert_eq!(lines_read(vec![wire_line("a", "", 500_001); 2]), Err("lines.quantity".to_owned()));
    assert_eq!(lines_read(vec![wire_line("a", "", 1_000_000); 64]), Err("lines.quantity".to_owned()));
}
