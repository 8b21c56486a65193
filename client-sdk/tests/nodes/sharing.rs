//! Concurrent calls share frames, concurrent reads share calls, and the feed goes on where it was.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_sdk::{Command, Cursor, Outcome, Sku, WatchEnded, v1};
use std::future::IntoFuture as _;

use crate::fake::{Act, Net, held, id_of};
use ledger_core::outcome::Balance;
use ledger_core::{LedgerTime, OfferKey, Position};
use ledger_proto::feed;
use ledger_proto::reply::Reply;

fn sku() -> Sku {
    Sku::new("shoe").unwrap()
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_frames_and_get_their_own_answers() {
    let net = Net::new(|_, _, command| {
        let Reply::Ok(client_sdk::Settled::Reservation(mut brief)) = held() else { unreachable!() };
        brief.reserved_at = LedgerTime(u64::from_be_bytes(id_of(command).as_bytes()[8..].try_into().unwrap()));
        Act::Answer(Reply::Ok(client_sdk::Settled::Reservation(brief)))
    });
    let client = net.client().await;
    let callers = (0..500).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..4 {
                let id = client.mint_for(&sku());
                let reservation = client.reserve(id, format!("buyer-{n}")).line("shoe", 1).await.ok().unwrap();
                let random = u64::from_be_bytes(id.as_bytes()[8..].try_into().unwrap());
                assert_eq!((reservation.id, reservation.reserved_at.0), (id, random), "somebody else's answer");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(net.calls().len(), 2_000);
    assert!(net.frames() <= 40, "{} frames for 2,000 calls of 500 callers", net.frames());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_the_others_answers_alone() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    for _ in 0..50 {
        let calls: Vec<_> = (0..20)
            .map(|_| tokio::spawn(client.reserve(client.mint_for(&sku()), "b").line("shoe", 1).into_future()))
            .collect();
        tokio::task::yield_now().await;
        for (n, call) in calls.into_iter().enumerate() {
            if n % 2 == 0 {
                call.abort();
            } else {
                assert!(call.await.unwrap().is_ok());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_in_order_and_in_few_frames() {
    let net = Net::new(|_, before, _| match before % 10 {
        7 => Act::Answer(Reply::Refused(client_sdk::Refusal::IdTaken.into())),
        _ => Act::Answer(held()),
    });
    let client = net.client().await;
    let commands: Vec<_> = (0..10_000).map(|_| Command::Release { id: client.mint_for(&sku()) }).collect();
    let ids: Vec<_> = commands.iter().map(id_of).collect();
    let outcomes = client.submit_many(commands, Duration::from_secs(2)).await;
    assert_eq!(net.calls().iter().map(|(_, command)| id_of(command)).collect::<Vec<_>>(), ids);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_ok(), n % 10 != 7, "{n}: {outcome:?}");
    }
    assert!(net.frames() <= 3, "{} frames", net.frames());
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_connection_breaks_is_finished_one_by_one() {
    let net = Net::new(|_, before, _| if before == 30 { Act::Cut } else { Act::Answer(held()) });
    let client = net.client().await;
    let commands: Vec<_> = (0..100).map(|_| Command::Release { id: client.mint_for(&sku()) }).collect();
    let outcomes = client.submit_many(commands, Duration::from_secs(2)).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(net.calls().len(), 31 + 100, "the frame's answers were lost with its connection");
}

#[tokio::test(start_paused = true)]
async fn one_unary_call_is_answered() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    let command = Command::Release { id: client.mint_for(&sku()) };
    assert!(client.submit_unary(command, Duration::from_secs(1)).await.is_ok());
    assert_eq!(net.frames(), 0);
}

#[tokio::test(start_paused = true)]
async fn concurrent_reads_share_calls() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    let reads = (0..400).map(|n| {
        let client = client.clone();
        async move {
            let view = client.stock(format!("s{n}")).await.ok().flatten().unwrap();
            assert_eq!(view.offer.sku.as_str(), format!("s{n}"), "somebody else's answer");
            assert_eq!(view.balance, Balance { available: 5, held: 0, sold: 0 });
        }
    });
    futures::future::join_all(reads).await;
    let calls = net.reads.load(Ordering::SeqCst);
    assert!(calls <= 8, "{calls} calls for 400 reads");
}

#[tokio::test(start_paused = true)]
async fn concurrent_stale_reads_share_calls_of_their_own_and_go_to_every_replica() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    let read = |n: usize, stale: bool| {
        let client = client.clone();
        async move {
            let read = client.stock(format!("s{n}"));
            let Outcome::Ok(answered) = (if stale { read.stale().await } else { read.await }) else {
                panic!("an answer")
            };
            assert_eq!(answered.value.unwrap().offer.sku.as_str(), format!("s{n}"), "somebody else's answer");
            // The fake node says an age to stale reads alone: neither kind is answered by the other's call.
            assert_eq!(answered.at.unwrap().age, stale.then_some(Duration::from_millis(40)));
        }
    };
    futures::future::join_all((0..800).map(|n| read(n, n % 2 == 0))).await;
    let calls = net.stale.lock().unwrap().clone();
    assert!(calls.len() <= 24, "{} calls for 400 stale reads", calls.len());
    let nodes: std::collections::BTreeSet<_> = calls.into_iter().collect();
    assert_eq!(nodes.len(), 3, "each of the three replicas is asked");
    assert!(net.reads.load(Ordering::SeqCst) <= 32);
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_passes_by_a_replica_that_is_down() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    net.set_down("n1:1", true);
    net.set_down("n2:1", true);
    for n in 0..20 {
        assert!(client.stock(format!("s{n}")).stale().await.is_ok(), "{n}");
    }
    assert!(net.stale.lock().unwrap().iter().all(|node| *node == "n3:1"));
}

#[tokio::test(start_paused = true)]
async fn reads_end_in_not_now_and_never_in_unknown() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    let outcome = client.reservation(client.mint_for(&sku())).await;
    assert!(matches!(outcome, Outcome::NotNow(_)), "{outcome:?}");
    let outcome = client.explain(sku()).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(client.product("none").await.ok().unwrap().is_none());
    assert_eq!(client.products().max(3).await.ok().unwrap().next, None);
    assert!(client.sales().sale("x").stale().await.ok().unwrap().items.is_empty());
}

fn change(index: u64) -> v1::FeedChange {
    let position = Position { incarnation: 1, shard: 1, term: 1, index, place: 0 };
    let kind = client_sdk::ChangeKind::OfferOpened { offer: OfferKey { sku: sku(), sale: None } };
    let change =
        client_sdk::Change { place: 0, previous_on_products: Default::default(), previous_on_reservation: None, kind };
    feed::change_to_wire(position, LedgerTime(index), &change)
}
fn frame(index: u64) -> Result<v1::WatchFrame, tonic::Status> {
    Ok(v1::WatchFrame { changes: vec![change(index)], cursor: vec![index as u8].into(), ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_behind_its_cursor_after_each_break() {
    let net = Net::new(|_, _, _| Act::Silence);
    *net.watch.lock().unwrap() = Some(Arc::new(|_, request| {
        let next = request.cursor.first().copied().map_or(0, u64::from) + 1;
        match next {
            // Two changes, then the connection breaks.
            1..=9 => vec![frame(next), frame(next + 1), Err(tonic::Status::unavailable("broken"))],
            _ => vec![Err(tonic::Status::out_of_range("no longer kept"))],
        }
    }));
    let client = net.client().await;
    let mut watch = client.watch(Cursor::oldest());
    let mut seen = Vec::new();
    let ended = loop {
        match watch.next().await.unwrap() {
            Ok(happenings) => seen.extend(happenings.changes.iter().map(|happened| happened.position.index)),
            Err(ended) => break ended,
        }
    };
    assert_eq!(seen, (1..=10).collect::<Vec<_>>(), "nothing skipped, nothing twice");
    assert!(matches!(ended, WatchEnded::CutOff(_)), "{ended}");
    assert!(watch.next().await.is_none());
}

/// A frame with the change at `index`, that says that it begins behind `from`.
fn spanned(from: u64, index: u64) -> Result<v1::WatchFrame, tonic::Status> {
    let place = |index: u64| Some(v1::FeedPlace { index: index + 1, changes: 0, chain: vec![index as u8; 16].into() });
    let span = v1::FeedSpan { shard: 1, from: place(from), to: place(index) };
    frame(index).map(|frame| v1::WatchFrame { spans: vec![span], ..frame })
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_goes_on_behind_a_hole_is_not_taken_and_another_node_is_asked() {
    let net = Net::new(|_, _, _| Act::Silence);
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    *net.watch.lock().unwrap() = Some(Arc::new(move |_, request| {
        let last = request.cursor.first().copied().map_or(0, u64::from);
        *count.lock().unwrap() += 1;
        match (last, *count.lock().unwrap()) {
            (0, _) => vec![spanned(0, 1), spanned(1, 2)],
            // Change 3 is missing there, and that node does not know.
            (2, 2) => vec![spanned(3, 4)],
            (2, _) => vec![spanned(2, 3), spanned(3, 4)],
            _ => vec![Err(tonic::Status::out_of_range("no longer kept"))],
        }
    }));
    let client = net.client().await;
    let mut watch = client.watch(Cursor::oldest());
    let mut seen = Vec::new();
    while let Some(Ok(happenings)) = watch.next().await {
        seen.extend(happenings.changes.iter().map(|happened| happened.position.index));
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_no_node_continues_ends_by_name() {
    let net = Net::new(|_, _, _| Act::Silence);
    *net.watch.lock().unwrap() = Some(Arc::new(|_, request| match request.cursor.is_empty() {
        true => vec![spanned(0, 1)],
        // A node says first where the watch begins.
        false => vec![
            Ok(v1::WatchFrame { cursor: request.cursor.clone(), ..v1::WatchFrame::default() }),
            Err(tonic::Status::data_loss("record 2 of shard 1 does not continue the cursor")),
        ],
    }));
    let client = net.client().await;
    let mut watch = client.watch(Cursor::oldest());
    assert_eq!(watch.next().await.unwrap().unwrap().changes.len(), 1);
    let began = tokio::time::Instant::now();
    let ended = loop {
        match watch.next().await.unwrap() {
            Ok(begins) => {
                assert!(begins.changes.is_empty() && began.elapsed() < Duration::from_secs(60), "it never ends")
            }
            Err(ended) => break ended,
        }
    };
    assert!(matches!(ended, WatchEnded::NotContinuous(_)), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_with_a_bad_cursor_ends() {
    let net = Net::new(|_, _, _| Act::Silence);
    *net.watch.lock().unwrap() = Some(Arc::new(|_, _| {
        vec![Err(ledger_proto::status::invalid(ledger_proto::Invalid::new("cursor", "malformed")))]
    }));
    let client = net.client().await;
    let ended = client.watch(Cursor::from_bytes(vec![1])).next().await.unwrap().unwrap_err();
    assert!(matches!(ended, WatchEnded::Invalid(_)), "{ended}");
}
