//! gRPC as callers meet it: streams, batches, single calls, reads, bad input, forwarding, and the feed.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Cluster, PATIENCE, Shape, create, mint, offer, receive, reserve, sku};
use futures::StreamExt;
use ledger_core::outcome::{Settled, Status};
use ledger_core::{Command, Refusal};
use ledger_node::feed::cursor::{Cursor, Place};
use ledger_node::limits::{EXPLAINS_PER_SOURCE, LISTS_AWAY_PER_SOURCE};
use ledger_proto::fast::ReceivedAnswer;
use ledger_proto::{Calls, Cause, OneCall, Reply, Why, feed, names, status, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

async fn stocked(shards: u32, units: i64) -> Cluster {
    let cluster = Cluster::start(shards, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", units, "r1")).await;
    cluster
}

fn release(id: ledger_core::ReservationId) -> Command {
    Command::Release { id }
}

#[tokio::test]
async fn a_stream_answers_every_call_once_and_no_unit_is_given_twice() {
    let cluster = stocked(1, 50).await;
    let (leader, _) = cluster.leader(1).await;
    let (frames, sent) = mpsc::channel(4);
    let mut client = cluster.grpc(leader).await;
    let mut answers = client.submit_stream(ReceiverStream::new(sent)).await.expect("opened").into_inner();
    let commands: Vec<Command> = (0..2_000).map(|n| reserve("shoe", mint("shoe", n), 60_000)).collect();
    let sending = async {
        for (n, commands) in commands.chunks(100).enumerate() {
            let tagged = commands.iter().enumerate().map(|(i, command)| ((n * 100 + i) as u64, command));
            frames.send(Calls::of(0, tagged).expect("callers' commands")).await.expect("the stream is open");
        }
        drop(frames);
    };
    let receiving = async {
        let mut received: Vec<ReceivedAnswer> = Vec::new();
        while let Some(frame) = answers.next().await {
            frame.expect("an answer").decode_into(&mut received).expect("a frame of ours");
        }
        received
    };
    let (_, received) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.expect("in time");
    let tags: BTreeSet<u64> = received.iter().map(|answer| answer.tag).collect();
    assert_eq!((received.len(), tags.len()), (2_000, 2_000));
    let held = received.iter().filter(|answer| matches!(answer.reply, Reply::Ok(Settled::Reservation(_)))).count();
    let sold_out = |reply: &Reply| matches!(reply, Reply::Refused(Why::Ledger(Refusal::SoldOut { .. })));
    assert_eq!(held, 50);
    assert_eq!(received.iter().filter(|answer| sold_out(&answer.reply)).count(), 1_950);
    assert!(received.iter().all(|answer| answer.at.is_some()), "all of them came out of the log");
    assert_eq!(cluster.node(leader).audit().await.expect("audited").findings, []);
}

#[tokio::test]
async fn a_stream_on_a_follower_names_the_leader_to_go_to_at_once_and_bad_calls_do_not_end_it() {
    let cluster = stocked(1, 5).await;
    let (leader, _) = cluster.leader(1).await;
    let follower = (leader + 1) % 3;
    let (frames, sent) = mpsc::channel(4);
    let mut client = cluster.grpc(follower).await;
    let mut answers = client.submit_stream(ReceiverStream::new(sent)).await.expect("opened").into_inner();
    let good = reserve("shoe", mint("shoe", 1), 60_000);
    frames.send(Calls::of(0, [(1, &good)]).expect("a call")).await.expect("open");
    let reply = first_reply(&mut answers).await;
    let address = cluster.nodes[leader].as_ref().expect("runs").client_addr().to_string();
    assert!(
        matches!(&reply, Reply::NotNow(why) if why.cause == Cause::NotLeader && why.leader == Some(address) && why.retry_ms == 0),
        "{reply:?}"
    );

    let bad =
        v1::Call { tag: 2, within_ms: 0, verb: Some(v1::call::Verb::Release(v1::Release { id: vec![1, 2].into() })) };
    let frame = prost::Message::encode_to_vec(&v1::CallFrame { calls: vec![bad] });
    frames.send(Calls::from_encoded(frame.into())).await.expect("open");
    let reply = first_reply(&mut answers).await;
    assert!(matches!(&reply, Reply::Refused(Why::Invalid(invalid)) if invalid.field == "id"), "{reply:?}");

    frames.send(Calls::from_encoded(vec![0xff, 0xff, 0xff].into())).await.expect("open");
    let ended = answers.next().await.expect("a status");
    assert_eq!(ended.expect_err("no frame at all ends the stream").code(), Code::InvalidArgument);
}

async fn first_reply(answers: &mut Streaming<ledger_proto::Answers>) -> Reply {
    let frame = answers.next().await.expect("the stream is open").expect("an answer");
    frame.decode().expect("a frame of ours").remove(0).reply
}

#[tokio::test]
async fn single_calls_and_batches_are_passed_on_to_the_leaders_once() {
    let cluster = stocked(3, 10).await;
    for name in ["cup", "hat", "pen"] {
        cluster.ask(create(name)).await;
        cluster.ask(receive(name, 1, "r1")).await;
    }
    // The same ids through every node: one effect, the same answer.
    let commands: Vec<Command> =
        ["shoe", "cup", "hat", "pen"].iter().map(|name| reserve(name, mint(name, 99), 60_000)).collect();
    for i in 0..3 {
        let mut client = cluster.grpc(i).await;
        let command = reserve("shoe", mint("shoe", 10 + i as u64), 60_000);
        let answered =
            client.submit(OneCall::of(7, 0, &command).expect("a call")).await.expect("answered").into_inner();
        let answer = answered.decode().expect("a frame").remove(0);
        assert!(answer.tag == 7 && matches!(answer.reply, Reply::Ok(Settled::Reservation(_))), "{answer:?}");
        let calls = Calls::of(0, commands.iter().enumerate().map(|(n, command)| (n as u64, command))).expect("calls");
        let answered = client.submit_batch(calls).await.expect("answered").into_inner().decode().expect("a frame");
        let good = answered.iter().filter(|answer| matches!(answer.reply, Reply::Ok(Settled::Reservation(_)))).count();
        assert_eq!((answered.len(), good), (4, 4), "{answered:?}");
    }
    // A call that carries the mark is not passed on again.
    let shard = cluster.node(0).table().shard_id_for_slot(mint("shoe", 0).slot()).expect("owned");
    let (leader, _) = cluster.leader(shard).await;
    let mut client = cluster.grpc((leader + 1) % 3).await;
    let command = reserve("shoe", mint("shoe", 50), 60_000);
    let mut marked = tonic::Request::new(OneCall::of(1, 0, &command).expect("a call"));
    marked.metadata_mut().insert("holdfast-forwarded", "1".parse().expect("text"));
    let reply = client.submit(marked).await.expect("answered").into_inner().decode().expect("a frame").remove(0).reply;
    assert!(matches!(&reply, Reply::NotNow(why) if why.cause == Cause::NotLeader), "{reply:?}");
}

#[tokio::test]
async fn a_frame_as_large_as_one_may_be_is_passed_on_in_as_many_as_it_takes() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    let (leader, _) = cluster.leader(1).await;
    let line = |n: usize| ledger_core::Line {
        offer: offer(&format!("{{tag}}{n}{}", "s".repeat(58))),
        quantity: ledger_core::Quantity::new(1).expect("a quantity"),
    };
    let lines: ledger_core::command::Lines = (0..7).map(line).collect();
    let command =
        |n| Command::Reserve { id: mint("{tag}", n), keys: Default::default(), lines: lines.clone(), hold_ms: None };
    let commands: Vec<Command> = (0..ledger_proto::limits::CALLS_PER_FRAME_MAX as u64).map(command).collect();
    let tagged = |n: usize| Calls::of(0, (0_u64..).zip(&commands[..n])).expect("callers' commands");
    let bytes = |n: usize| tagged(n).len();
    let per_call = bytes(commands.len()) / commands.len();
    let mut most = ledger_proto::limits::FRAME_BYTES_MAX / per_call;
    while bytes(most) > ledger_proto::limits::FRAME_BYTES_MAX {
        most -= 1;
    }
    let mut client = cluster.grpc((leader + 1) % 3).await.max_decoding_message_size(64 << 20);
    let answers = loop {
        let answered = client.submit_batch(tagged(most)).await;
        let answers = answered.expect("answered").into_inner().decode().expect("a frame");
        assert_eq!(answers.len(), most);
        // A busy machine may cost the leader its lease meanwhile.
        let no_leader = |reply: &Reply| matches!(reply, Reply::NotNow(why) if why.cause == Cause::NotLeader);
        if !answers.iter().any(|answer| no_leader(&answer.reply)) {
            break answers;
        }
    };
    // No such product: the leader has decided each of them.
    let undecided = answers.iter().find(|answer| !matches!(answer.reply, Reply::Refused(Why::Ledger(_))));
    assert!(undecided.is_none(), "of {most}: {undecided:?}");
}

#[tokio::test]
async fn bad_input_of_each_kind_is_refused_by_name_and_changes_nothing() {
    let cluster = stocked(1, 5).await;
    let mut client = cluster.grpc(0).await;
    let line = |sku: &str, quantity| v1::Line { sku: sku.into(), sale: String::new(), quantity };
    let reserve = |id: ledger_core::ReservationId, lines: Vec<v1::Line>| {
        v1::call::Verb::Reserve(v1::Reserve { id: names::id_to_wire(id), keys: vec![], lines, hold_ms: 0 })
    };
    let id = mint("shoe", 1);
    let mut keys = v1::Reserve { id: names::id_to_wire(id), keys: vec![], lines: vec![line("shoe", 1)], hold_ms: 0 };
    keys.keys = (0..5).map(|n| n.to_string()).collect();
    let offer = Some(v1::OfferKey { sku: "shoe".into(), sale: String::new() });
    use v1::RefusalCode as Code;
    let cases: Vec<(&str, Option<v1::call::Verb>, Code)> = vec![
        ("no verb", None, Code::Invalid),
        ("no lines", Some(reserve(id, vec![])), Code::Invalid),
        ("quantity zero", Some(reserve(id, vec![line("shoe", 0)])), Code::Invalid),
        ("quantity below zero", Some(reserve(id, vec![line("shoe", i64::MIN)])), Code::Invalid),
        ("a SKU too long", Some(reserve(id, vec![line(&"s".repeat(65), 1)])), Code::Invalid),
        ("too many keys", Some(v1::call::Verb::Reserve(keys)), Code::Invalid),
        ("too many lines", Some(reserve(id, vec![line("shoe", 1); 65])), Code::Invalid),
        ("no id", Some(v1::call::Verb::Confirm(v1::Confirm::default())), Code::Invalid),
        ("a wrong slot", Some(reserve(mint("cup", 1), vec![line("shoe", 1)])), Code::IdWrongSlot),
        ("slots apart", Some(reserve(id, vec![line("shoe", 1), line("cup", 1)])), Code::LinesSpanSlots),
        ("an unknown product", Some(reserve(mint("none", 1), vec![line("none", 1)])), Code::UnknownProduct),
        (
            "an unknown reservation",
            Some(v1::call::Verb::Release(v1::Release { id: names::id_to_wire(mint("shoe", 999)) })),
            Code::UnknownReservation,
        ),
        (
            "no units",
            Some(v1::call::Verb::Receive(v1::Receive { offer: offer.clone(), units: 0, reference: "x".into() })),
            Code::Invalid,
        ),
        (
            "no reference",
            Some(v1::call::Verb::Receive(v1::Receive { offer: offer.clone(), units: 1, reference: String::new() })),
            Code::Invalid,
        ),
        (
            "a reference taken",
            Some(v1::call::Verb::Receive(v1::Receive { offer, units: 6, reference: "r1".into() })),
            Code::ReferenceTaken,
        ),
        (
            "a product made again",
            Some(v1::call::Verb::CreateProduct(v1::CreateProduct {
                sku: "shoe".into(),
                policy: Some(v1::Policy { open: true, low_stock_at: 3, ..Default::default() }),
            })),
            Code::AlreadyExists,
        ),
    ];
    for (what, verb, code) in cases {
        let frame =
            prost::Message::encode_to_vec(&v1::CallFrame { calls: vec![v1::Call { tag: 5, within_ms: 0, verb }] });
        let answered = client.submit_batch(Calls::from_encoded(frame.into())).await.expect(what).into_inner();
        let wire: v1::AnswerFrame = prost::Message::decode(answered.as_bytes()).expect("a frame");
        let answer = &wire.entries[0].answers[0];
        let Some(v1::answer::Outcome::Refused(refusal)) = &answer.outcome else { panic!("{what}: {answer:?}") };
        assert_eq!((refusal.code(), answer.tag), (code, 5), "{what}: {refusal:?}");
        assert!(!refusal.message.is_empty(), "{what}");
    }
    let read = client.get_product(v1::GetProductRequest { sku: "a b".into(), consistency: 0 }).await;
    let refused = status::reply(&read.expect_err("no SKU")).expect("typed");
    assert!(matches!(&refused, Reply::Refused(Why::Invalid(invalid)) if invalid.field == "sku"), "{refused:?}");
    let read = client.get_product(v1::GetProductRequest { sku: "shoe".into(), consistency: 9 }).await;
    assert_eq!(read.expect_err("no such consistency").code(), tonic::Code::InvalidArgument);
    let product = client.get_product(v1::GetProductRequest { sku: "shoe".into(), consistency: 0 }).await.expect("read");
    let product = product.into_inner().product.expect("there");
    assert_eq!(product.offers[0].balance, Some(v1::Balance { available: 5, held: 0, sold: 0 }));
    assert_eq!(cluster.node(0).audit().await.expect("audited").findings, []);
}

#[tokio::test]
async fn a_request_that_is_no_frame_is_bounded_in_bytes_before_it_is_decoded() {
    let cluster = stocked(1, 5).await;
    let mut client = cluster.grpc(0).await;
    // 2 bytes each on the wire, and 24 or 48 once they are decoded.
    let skus = vec![String::new(); 200_000];
    let watch = client.watch(v1::WatchRequest { skus, ..Default::default() }).await.map(drop);
    let offers = vec![v1::OfferKey::default(); 200_000];
    let offers = client.get_offers(v1::GetOffersRequest { offers, consistency: 0 }).await.map(drop);
    for refused in [watch.expect_err("too large"), offers.expect_err("too large")] {
        let refused = status::reply(&refused).expect("typed");
        assert!(matches!(&refused, Reply::Refused(Why::Invalid(invalid)) if invalid.field == "request"), "{refused:?}");
    }
    // The largest ones that are allowed.
    let sku = "s".repeat(ledger_core::limits::SKU_BYTES_MAX);
    let sale = "s".repeat(ledger_core::limits::SALE_ID_BYTES_MAX);
    let offers = vec![v1::OfferKey { sku: sku.clone(), sale }; ledger_proto::limits::OFFERS_PER_READ_MAX];
    client.get_offers(v1::GetOffersRequest { offers, consistency: 0 }).await.expect("read");
    let skus = vec![sku; ledger_proto::limits::SKUS_PER_WATCH_MAX];
    client.watch(v1::WatchRequest { skus, ..Default::default() }).await.expect("begun");
}

/// The library's own answer to them is `INTERNAL`, as if the node had failed.
#[tokio::test]
async fn bytes_that_are_no_request_are_refused_as_invalid() {
    let cluster = stocked(1, 5).await;
    // A text that is no UTF-8, a field that ends early, a field of another type.
    for (method, bytes) in [
        ("Ledger/GetProduct", &[0x0a, 0x02, 0xff, 0xfe][..]),
        ("Ledger/GetReservation", &[0x0a, 0x20, 0x01]),
        ("Ledger/ListProducts", &[0x08, 0x01]),
        ("Orders/GetOrder", &[0x0a]),
        ("Admin/Audit", &[0x0b]),
    ] {
        let path = format!("/holdfast.v1.{method}").parse().expect("a path");
        let mut raw = tonic::client::Grpc::new(cluster.channel(0).await);
        raw.ready().await.expect("it serves");
        let request = tonic::Request::new(Calls::from_encoded(bytes::Bytes::from_static(bytes)));
        let codec = ledger_proto::frames::FrameCodec::<Calls, ledger_proto::Answers>::default();
        let refused = raw.unary(request, path, codec).await.expect_err("no request");
        let reply = status::reply(&refused).unwrap_or_else(|| panic!("{method}: {refused:?}"));
        assert!(matches!(&reply, Reply::Refused(Why::Invalid(why)) if why.field == "request"), "{method}: {reply:?}");
    }
}

#[tokio::test]
async fn any_node_reads_what_any_other_just_wrote() {
    let cluster = stocked(2, 100).await;
    for n in 0..30u64 {
        let id = mint("shoe", n);
        cluster.ask(reserve("shoe", id, 60_000)).await;
        let mut client = cluster.grpc(n as usize % 3).await;
        let request = v1::GetReservationRequest { id: names::id_to_wire(id), consistency: 0 };
        let read = client.get_reservation(request).await.expect("read").into_inner();
        assert!(matches!(read.what, Some(v1::get_reservation_response::What::Reservation(_))), "{read:?}");
        let wanted = vec![names::offer_to_wire(&offer("shoe")), names::offer_to_wire(&offer("none"))];
        let offers = client.get_offers(v1::GetOffersRequest { offers: wanted, consistency: 0 }).await.expect("read");
        let offers = offers.into_inner().offers;
        assert_eq!(offers[0].offer.as_ref().and_then(|o| o.balance).map(|b| b.held), Some(n + 1));
        assert!(offers[1].offer.is_none());
    }
    let mut client = cluster.grpc(1).await;
    let stale = client.get_product(v1::GetProductRequest { sku: "shoe".into(), consistency: 1 }).await.expect("read");
    assert!(
        stale.into_inner().as_of.is_some_and(|as_of| as_of.age_ms.is_some()),
        "a stale read says how old it may be"
    );
}

#[tokio::test]
async fn a_reservation_is_explained_from_history_newest_first() {
    let cluster = stocked(1, 10).await;
    let id = mint("shoe", 1);
    cluster.ask(reserve("shoe", id, 60_000)).await;
    for n in 2..12 {
        cluster.ask(reserve("shoe", mint("shoe", n), 60_000)).await;
    }
    cluster.ask(Command::Confirm { id, lines: None }).await;
    for i in 0..3 {
        let mut client = cluster.grpc(i).await;
        let of = Some(v1::explain_request::Of::Reservation(names::id_to_wire(id)));
        let told =
            client.explain(v1::ExplainRequest { of, max: 0, before: None }).await.expect("explained").into_inner();
        let names: Vec<&str> = told.changes.iter().map(|change| change.name.as_str()).collect();
        assert_eq!((names, told.cut_off), (vec!["ReservationConfirmed", "InventoryReserved"], false));
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let of = Some(v1::explain_request::Of::Sku("shoe".into()));
            let page = client.explain(v1::ExplainRequest { of, max: 3, before }).await.expect("explained").into_inner();
            all.extend(page.changes.into_iter().map(|change| change.name));
            before = page.next;
            if before.is_none() {
                assert!(!page.cut_off);
                break;
            }
        }
        assert_eq!(all.first().map(String::as_str), Some("ReservationConfirmed"));
        assert_eq!(all.last().map(String::as_str), Some("ProductCreated"));
        assert_eq!(all.iter().filter(|name| *name == "InventoryReserved").count(), 10);

        // Pages that nobody was given: asking again would not help.
        let (incarnation, end) = cluster.leader(1).await.1.with_ledger(|ledger| {
            let at = ledger.position();
            (at.incarnation, at.index)
        });
        for (incarnation, index) in [(incarnation, end + 1), (incarnation, u64::MAX), (incarnation + 1, 1)] {
            let before = Some(v1::Position { incarnation, shard: 1, term: 0, index, place: 0 });
            let of = Some(v1::explain_request::Of::Sku("shoe".into()));
            let refused = client.explain(v1::ExplainRequest { of, max: 3, before }).await.expect_err("no such page");
            let refused = status::reply(&refused).expect("typed");
            assert!(matches!(&refused, Reply::Refused(Why::Invalid(why)) if why.field == "before"), "{refused:?}");
        }
    }
}

/// So many calls of one source are all answered; of many times as many at once some are refused; and afterwards so many are again.
async fn bounded_by_source<T>(most: usize, at_once: impl AsyncFn(usize) -> Vec<Result<T, tonic::Status>>) {
    let all_answered = |answers: &[Result<T, tonic::Status>]| answers.iter().all(Result::is_ok);
    assert!(all_answered(&at_once(most).await));
    let bursts = async {
        loop {
            let answers = at_once(16 * most).await;
            let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
            for status in &refused {
                let reply = status::reply(status);
                let limited = |why: &ledger_proto::NotNow| why.cause == Cause::RateLimited;
                assert!(matches!(&reply, Some(Reply::NotNow(why)) if limited(why)), "{reply:?}");
            }
            if !refused.is_empty() {
                assert!(refused.len() < answers.len(), "others were answered");
                return;
            }
        }
    };
    timeout(PATIENCE, bursts).await.expect("one too many at once");
    assert!(all_answered(&at_once(most).await), "places are given back");
}

#[tokio::test]
async fn explanations_of_one_source_beyond_their_bound_are_refused() {
    let cluster = stocked(1, 10).await;
    let id = mint("shoe", 1);
    cluster.ask(reserve("shoe", id, 60_000)).await;
    let client = cluster.grpc(0).await;
    bounded_by_source(EXPLAINS_PER_SOURCE, async |calls| {
        let explain = || {
            let mut client = client.clone();
            let of = Some(v1::explain_request::Of::Reservation(names::id_to_wire(id)));
            async move { client.explain(v1::ExplainRequest { of, max: 0, before: None }).await }
        };
        futures::future::join_all((0..calls).map(|_| explain())).await
    })
    .await;
}

#[tokio::test]
async fn lists_of_one_source_that_need_other_nodes_are_bounded() {
    // Each node lacks two of the shards.
    let cluster = Cluster::of(Shape { nodes: 5, shards: 5, replicas: 3 }, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    let client = cluster.grpc(0).await;
    bounded_by_source(LISTS_AWAY_PER_SOURCE, async |calls| {
        let list = || {
            let mut client = client.clone();
            async move { client.list_products(v1::ListProductsRequest::default()).await }
        };
        futures::future::join_all((0..calls).map(|_| list())).await
    })
    .await;
}

/// Takes changes until `until` says that they are all there.
async fn take(
    frames: &mut Streaming<v1::WatchFrame>,
    told: &mut Vec<v1::FeedChange>,
    until: impl Fn(&[v1::FeedChange]) -> bool,
) -> bytes::Bytes {
    let taking = async {
        loop {
            let frame = frames.next().await.expect("the watch goes on").expect("a frame");
            told.extend(frame.changes);
            if until(told) {
                return frame.cursor;
            }
        }
    };
    tokio::time::timeout(PATIENCE, taking).await.expect("in time")
}

fn reserved(changes: &[v1::FeedChange]) -> Vec<bytes::Bytes> {
    changes
        .iter()
        .filter(|change| change.name == "InventoryReserved")
        .map(|change| change.reservation.clone())
        .collect()
}

#[tokio::test]
async fn a_watch_goes_on_from_its_cursor_on_another_node_without_a_gap_or_a_double() {
    let cluster = stocked(2, 1_000).await;
    let ids: Vec<_> = (0..300).map(|n| mint("shoe", n)).collect();
    let mut told = Vec::new();
    let mut cursor = bytes::Bytes::new();
    for (round, ids) in ids.chunks(60).enumerate() {
        let mut client = cluster.grpc(round % 3).await;
        let request = v1::WatchRequest { cursor: cursor.clone(), from_now: false, skus: vec![] };
        let mut frames = client.watch(request).await.expect("watching").into_inner();
        let writing = async {
            for id in ids {
                cluster.ask(reserve("shoe", *id, 60_000)).await;
            }
        };
        let wanted = (round + 1) * 60;
        let ((), behind) = tokio::join!(writing, take(&mut frames, &mut told, |told| reserved(told).len() == wanted));
        cursor = behind;
    }
    let want: Vec<bytes::Bytes> = ids.iter().map(|id| names::id_to_wire(*id)).collect();
    assert_eq!(reserved(&told), want, "each once, in the order of the log");
    let mut available = 1_001;
    for change in told.iter().filter(|change| change.name == "InventoryReserved") {
        let (_, _, decoded) = feed::change_from_wire(change.clone()).expect("ours");
        let ledger_core::ChangeKind::InventoryReserved { lines, .. } = decoded.kind else { unreachable!("by name") };
        assert!(lines[0].balance.available < available, "balances are as of each event");
        available = lines[0].balance.available;
    }
}

#[tokio::test]
async fn a_watch_from_the_beginning_reads_history_and_a_filter_loses_nothing() {
    let cluster = stocked(1, 5).await;
    cluster.ask(create("cup")).await;
    for n in 0..40 {
        cluster.ask(receive("cup", 1, &format!("c{n}"))).await;
    }
    let mut client = cluster.grpc(2).await;
    let request = v1::WatchRequest { cursor: bytes::Bytes::new(), from_now: false, skus: vec!["cup".into()] };
    let mut frames = client.watch(request).await.expect("watching").into_inner();
    let mut told = Vec::new();
    take(&mut frames, &mut told, |told| told.iter().filter(|change| change.name == "UnitsReceived").count() == 40)
        .await;
    assert!(told.iter().all(|change| change.offer.as_ref().is_none_or(|offer| offer.sku == "cup")), "{told:?}");
    // From now: nothing of the past, and a frame with the shards' times while nothing happens.
    let request = v1::WatchRequest { cursor: bytes::Bytes::new(), from_now: true, skus: vec![] };
    let mut frames = client.watch(request).await.expect("watching").into_inner();
    let begins = tokio::time::timeout(PATIENCE, frames.next()).await.expect("in time").expect("open").expect("a frame");
    assert!(begins.changes.is_empty() && !begins.cursor.is_empty(), "it says first where it begins: {begins:?}");
    let idle = tokio::time::timeout(PATIENCE, frames.next()).await.expect("in time").expect("open").expect("a frame");
    assert!(idle.changes.is_empty() && idle.shard_time_ms.contains_key(&1), "{idle:?}");
}

#[tokio::test]
async fn cursors_that_cannot_be_served_are_refused_by_name() {
    let cluster = stocked(1, 5).await;
    let mut client = cluster.grpc(0).await;
    let watch = |cursor: bytes::Bytes| v1::WatchRequest { cursor, from_now: false, skus: vec![] };
    let malformed = client.watch(watch(bytes::Bytes::from_static(b"17"))).await.expect_err("no cursor");
    assert_eq!(malformed.code(), Code::InvalidArgument);
    let foreign = Cursor { incarnation: 99, places: [(1, Default::default())].into() };
    let foreign = client.watch(watch(foreign.encode())).await.expect_err("another incarnation");
    assert_eq!(foreign.code(), Code::OutOfRange);
    assert!(foreign.message().contains("incarnation 99"), "{foreign:?}");
    // Beyond the end of all that is committed, asked of the leader and of those that may lag: no replica waits for it.
    let (incarnation, end) = cluster.leader(1).await.1.with_ledger(|ledger| {
        let at = ledger.position();
        (at.incarnation, at.index)
    });
    for (i, next) in [(0, end + 1_000), (1, end + 1_000), (2, u64::MAX)] {
        let place = Place { next, ..Place::FIRST };
        let beyond = Cursor { incarnation, places: [(1, place)].into() };
        let beyond = cluster.grpc(i).await.watch(watch(beyond.encode())).await.expect_err("beyond the end");
        assert_eq!(beyond.code(), Code::OutOfRange, "{beyond:?}");
        assert!(beyond.message().contains("ends at index"), "{beyond:?}");
    }
    // At the end, where no record comes that would refuse them: behind changes of a record that is not there, and
    // behind another history.
    let chain = cluster.leader(1).await.1.with_ledger(|ledger| ledger.chain());
    let at_end =
        |skip, chain| Cursor { incarnation, places: [(1, Place { next: end + 1, skip, chain: Some(chain) })].into() };
    client.watch(watch(at_end(0, chain).encode())).await.expect("the end itself");
    for (skip, chain, says) in [(1, chain, "ends at index"), (0, chain ^ 1, "does not continue the cursor")] {
        let refused = client.watch(watch(at_end(skip, chain).encode())).await.expect_err("another history");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let elsewhere = Cursor { incarnation, places: [(77, Place::FIRST)].into() };
    let elsewhere = client.watch(watch(elsewhere.encode())).await.expect_err("no such shard");
    assert_eq!(elsewhere.code(), Code::OutOfRange, "{elsewhere:?}");
    let long = client.watch(watch(vec![0u8; 5_000].into())).await.expect_err("too long");
    assert_eq!(long.code(), Code::InvalidArgument);
    let names = v1::WatchRequest { skus: vec!["a b".into()], ..Default::default() };
    assert_eq!(client.watch(names).await.expect_err("no SKU").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_order_that_waits_too_long_is_told_apart_from_one_that_was_refused() {
    let mut cluster = stocked(1, 5).await;
    let (leader, _) = cluster.leader(1).await;
    for i in (0..3).filter(|&i| i != leader) {
        cluster.stop(i).await;
    }
    let mut client = cluster.grpc(leader).await;
    let id = mint("shoe", 1);
    let call = OneCall::of(1, 300, &reserve("shoe", id, 60_000)).expect("a call");
    let answered = tokio::time::timeout(Duration::from_secs(10), client.submit(call)).await.expect("in time");
    let reply = answered.expect("answered").into_inner().decode().expect("a frame").remove(0).reply;
    assert!(matches!(reply, Reply::Unknown(_) | Reply::NotNow(_)), "without a quorum it is never a no: {reply:?}");
}

#[tokio::test]
async fn health_and_status_are_served_and_released_units_are_back() {
    let cluster = stocked(1, 1).await;
    let (leader, _) = cluster.leader(1).await;
    let mut admin = cluster.admin(leader).await;
    let status = admin.node_status(v1::NodeStatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.state.as_str(), status.shards.len()), ("serving", 1));
    let id = mint("shoe", 1);
    cluster.ask(reserve("shoe", id, 60_000)).await;
    cluster.ask(release(id)).await;
    let known = cluster.node(leader).shard(1).expect("here").with_ledger(|ledger| ledger.product(&sku("shoe")));
    assert_eq!(known.expect("there").offers[0].balance.available, 1);
    let mut client = cluster.grpc(leader).await;
    let read = client.get_reservation(v1::GetReservationRequest { id: names::id_to_wire(id), consistency: 0 }).await;
    let Some(v1::get_reservation_response::What::Reservation(view)) = read.expect("read").into_inner().what else {
        panic!("the reservation is known")
    };
    assert_eq!(names::status(view.status), Some(Status::Released));
    let audit = admin.audit(v1::AuditRequest {}).await.expect("audited").into_inner();
    assert_eq!((audit.findings, audit.shards.len()), (vec![], 1));
    let reply = admin.transfer_leader(v1::TransferLeaderRequest { shard: 77, to: 1 }).await.expect_err("no such shard");
    assert_eq!(reply.code(), Code::NotFound);
}

#[tokio::test]
async fn shards_named_twice_are_invalid() {
    let cluster = Cluster::start(2, |_, _, _| {}).await;
    cluster.leader(1).await;
    cluster.leader(2).await;
    let mut client = cluster.grpc(0).await;
    for (shards, refused) in
        [("1,2", None), ("1,1", Some("names shard 1 twice")), ("2,1,2", Some("names shard 2 twice"))]
    {
        let mut request = tonic::Request::new(v1::ListProductsRequest::default());
        request.metadata_mut().insert("holdfast-shards", shards.parse().expect("a value"));
        match (client.list_products(request).await, refused) {
            (Ok(_), None) => {}
            (Err(status), Some(why)) => {
                assert_eq!(status.code(), tonic::Code::InvalidArgument, "{shards}: {status}");
                assert!(status.message().contains(why), "{shards}: {status}");
            }
            (answer, _) => panic!("{shards}: {answer:?}"),
        }
    }
}
