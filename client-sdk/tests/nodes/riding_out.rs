//! Leader changes, broken connections, dead and silent nodes are ridden out with the same id; unknown is never told as no.

use std::time::Duration;

use client_sdk::{
    Cause, Client, Command, Cursor, LedgerTime, Mint as _, NotNow, Outcome, Policy, Refusal, ReservationId, Sku,
    SoldOut, Why,
};
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fake::{Act, NODES, Net, held, id_of};
use ledger_core::OfferKey;
use ledger_proto::reply::Reply;
use ledger_proto::v1;
use tokio::time::Instant;

fn sku() -> Sku {
    Sku::new("shoe").unwrap()
}

async fn reserve(client: &Client, id: ReservationId) -> Outcome<client_sdk::Reservation> {
    client.reserve(id, "anna").line("shoe", 1).hold_for(Duration::from_secs(60)).await
}

fn not_now(told: ledger_proto::NotNow) -> Act {
    Act::Answer(Reply::NotNow(told))
}
fn refused(refusal: Refusal) -> Act {
    Act::Answer(Reply::Refused(Why::Ledger(refusal)))
}
fn sold_out() -> Refusal {
    Refusal::SoldOut { offer: OfferKey { sku: sku(), sale: None }, truth: SoldOut::Gone }
}

#[tokio::test(start_paused = true)]
async fn an_answer_carries_value_position_and_time() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    let id = client.mint_for(&sku());
    assert_eq!(id.time_ms(), 1_000_000, "ids are minted from ledger time");
    let Outcome::Ok(answered) = reserve(&client, id).await else { panic!("it is held") };
    assert_eq!((answered.value.id, answered.value.deadline), (id, LedgerTime(2_000)));
    let at = answered.at.unwrap();
    assert_eq!((at.position.index, at.time), (1, LedgerTime(1_000_000)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_named_in_an_answer_is_followed_at_once() {
    let net = Net::new(|node, _, _| match node {
        "n2:1" => Act::Answer(held()),
        _ => not_now(ledger_proto::NotNow::not_leader(Some("n2:1".into()))),
    });
    let client = net.client().await;
    let began = Instant::now();
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
    assert!(began.elapsed() < Duration::from_millis(20), "took {:?}", began.elapsed());
    let asked: Vec<_> = net.calls().into_iter().map(|(node, _)| node).collect();
    assert_eq!(asked, ["n1:1", "n2:1"]);
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
    assert_eq!(net.calls().len(), 3, "the next call goes there directly");
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_in_flight_means_the_same_id_again() {
    let net = Net::new(|_, before, _| if before == 0 { Act::Cut } else { Act::Answer(held()) });
    let client = net.client().await;
    let id = client.mint_for(&sku());
    assert!(reserve(&client, id).await.is_ok());
    let ids: Vec<_> = net.calls().iter().map(|(_, command)| id_of(command)).collect();
    assert_eq!(ids, [id, id]);
    assert_eq!(net.calls()[0].1, net.calls()[1].1, "and the same content");
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_ridden_out() {
    let net = Net::new(|node, _, _| match node {
        "n3:1" => Act::Answer(held()),
        _ => not_now(ledger_proto::NotNow::not_leader(None)),
    });
    let client = net.client().await;
    net.set_down("n1:1", true);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { reserve(&client, client.mint_for(&sku())).await }
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    *net.leader.lock().unwrap() = 3;
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_a_quorum_is_looked_for_elsewhere_and_the_outcome_names_who_is_missing() {
    const WHY: &str = "shard 1 has no quorum (for 3.0 s): node 2 is unreachable: refused (for 3.1 s)";
    let lost = || not_now(ledger_proto::NotNow::new(Cause::NoQuorum, WHY, 500));
    let net = Net::new(move |node, _, _| if node == "n3:1" { Act::Answer(held()) } else { lost() });
    let client = net.client().await;
    let began = Instant::now();
    let waiting = tokio::spawn(reserve_later(&client));
    tokio::time::sleep(Duration::from_millis(50)).await;
    *net.leader.lock().unwrap() = 3;
    assert!(waiting.await.unwrap().is_ok(), "another node leads by now");
    assert!(began.elapsed() < Duration::from_millis(500), "took {:?}", began.elapsed());

    let net = Net::new(move |_, _, _| lost());
    let client = net.client().await;
    let Outcome::NotNow(NotNow { cause, message, retry_after }) = reserve(&client, client.mint_for(&sku())).await
    else {
        panic!("nothing happened")
    };
    assert_eq!((cause, message.as_str(), retry_after), (Cause::NoQuorum, WHY, Duration::from_millis(500)));
    assert!(net.calls().len() < 100, "it pauses: {} calls", net.calls().len());
}

fn reserve_later(client: &Client) -> impl Future<Output = Outcome<client_sdk::Reservation>> + use<> {
    let client = client.clone();
    async move { reserve(&client, client.mint_for(&sku())).await }
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_leads_to_another_node_and_the_deadline_holds() {
    let net = Net::new(|node, _, _| if node == "n1:1" { Act::Silence } else { Act::Answer(held()) });
    let client = net.client().await;
    let began = Instant::now();
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
    assert!(began.elapsed() < Duration::from_millis(1_200), "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_not_answered_is_unknown_at_the_deadline() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    let began = Instant::now();
    let outcome = client.release(client.mint_for(&sku())).deadline(Duration::from_millis(300)).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(!outcome.is_definite() && !outcome.has_no_effect());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(350), "took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_not_now() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    for node in NODES {
        net.set_down(node, true);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let outcome = reserve(&client, client.mint_for(&sku())).await;
    assert!(matches!(outcome, Outcome::NotNow(NotNow { cause: Cause::Unreachable, .. })), "{outcome:?}");
    assert!(outcome.has_no_effect());
    assert!(began.elapsed() <= Duration::from_secs(2), "took {:?}", began.elapsed());
    assert!(net.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn doubt_outlives_a_later_not_now() {
    let net = Net::new(|_, before, _| match before {
        0 => Act::Cut,
        _ => not_now(ledger_proto::NotNow::new(Cause::Overloaded, "full", 10)),
    });
    let client = net.client().await;
    let outcome = client.confirm(client.mint_for(&sku())).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_is_asked_again() {
    let net = Net::new(|_, before, _| match before {
        0 => Act::Answer(Reply::Unknown("the quorum was lost".into())),
        _ => Act::Answer(held()),
    });
    let client = net.client().await;
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_doubt_is_only_a_no_where_it_proves_it() {
    let net = Net::new(|_, before, command| match (before % 2, command) {
        (0, _) => Act::Cut,
        (_, Command::Reserve { .. }) => refused(sold_out()),
        (_, _) => refused(Refusal::VersionMismatch { actual: 4 }),
    });
    let client = net.client().await;
    let outcome = reserve(&client, client.mint_for(&sku())).await;
    assert_eq!(outcome.refusal(), Some(&sold_out()), "a reserve's verdict is remembered by its id");
    let offer = OfferKey { sku: sku(), sale: None };
    let outcome = client.put_offer(offer, Policy::default()).expected_version(3).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "its own success may have moved the version: {outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn invalid_input_is_refused_and_nothing_is_sent() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    let id = ReservationId::mint_for(&sku());
    let outcomes = [
        reserve_line(&client, id, "", 1).await,
        reserve_line(&client, id, &"x".repeat(65), 1).await,
        reserve_line(&client, id, "a", 0).await,
        reserve_line(&client, id, "a", -3).await,
        client.reserve(id, "").line("a", 1).await,
        client.reserve(id, "b").await,
        client.reserve(id, "b").sale_line("", "a", 1).await,
        client.reserve(id, "1").key("2").key("3").key("4").key("5").line("a", 1).await,
    ];
    for outcome in outcomes {
        let Outcome::Refused(refused) = &outcome else { panic!("{outcome:?}") };
        assert!(matches!(refused.why, Why::Invalid(_)), "{refused}");
        assert!(outcome.has_no_effect());
    }
    assert!(!client.receive("a", 0, "r").await.is_ok() && !client.adjust("a", 0, "why", "r").await.is_ok());
    assert!(!client.allot("a", 1, "r").await.is_ok(), "from the plain offer to itself");
    assert!(client.stock("a b").await.has_no_effect());
    assert!(net.calls().is_empty());
}

async fn reserve_line(client: &Client, id: ReservationId, sku: &str, n: i64) -> Outcome<client_sdk::Reservation> {
    client.reserve(id, "b").line(sku, n).await
}

#[tokio::test(start_paused = true)]
async fn routing_is_asked_for_once_for_many_callers() {
    let net = Net::new(|_, before, _| match before {
        0..200 => not_now(ledger_proto::NotNow::not_leader(None)),
        _ => Act::Answer(held()),
    });
    let client = net.client().await;
    let asked = net.routings.load(std::sync::atomic::Ordering::SeqCst);
    let ids: Vec<_> = (0..200).map(|_| client.mint_for(&sku())).collect();
    let calls = ids.into_iter().map(|id| {
        let client = client.clone();
        async move { reserve(&client, id).await.is_ok() }
    });
    let all = futures::future::join_all(calls).await;
    assert!(all.iter().all(|ok| *ok));
    let asked = net.routings.load(std::sync::atomic::Ordering::SeqCst) - asked;
    assert!(asked <= 5 * 3, "{asked} questions for routing");
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_says_not_now() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
    client.close().await;
    let outcome = reserve(&client, client.mint_for(&sku())).await;
    assert!(matches!(outcome, Outcome::NotNow(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_calls_under_way() {
    let net = Net::new(|_, _, _| Act::Silence);
    let client = net.client().await;
    let waiting =
        tokio::spawn(client.release(client.mint_for(&sku())).deadline(Duration::from_millis(400)).into_future());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    client.close().await;
    assert!(began.elapsed() >= Duration::from_millis(250), "closed after {:?}", began.elapsed());
    assert!(matches!(waiting.await.unwrap(), Outcome::Unknown(_)));
}

#[tokio::test(start_paused = true)]
async fn connect_tells_what_was_wrong() {
    let net = Net::new(|_, _, _| Act::Silence);
    for node in NODES {
        net.set_down(node, true);
    }
    let error = Client::builder().endpoints(NODES).connector(net.connector()).connect().await.unwrap_err();
    assert!(matches!(error, client_sdk::ConnectError::Unreachable { .. }), "{error}");
    let error = Client::connect(["nowhere"]).await.unwrap_err();
    assert!(matches!(error, client_sdk::ConnectError::BadEndpoint { .. }), "{error}");
    let error = Client::connect(Vec::<String>::new()).await.unwrap_err();
    assert_eq!(error, client_sdk::ConnectError::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn a_retry_time_of_weeks_is_bounded_and_a_deadline_of_ever_is_taken() {
    let far = |cause| not_now(ledger_proto::NotNow::new(cause, "come back in 49 days", u32::MAX));
    let net = Net::new(move |_, before, _| match before {
        0 => far(Cause::Overloaded),
        1 => far(Cause::MemoryFull),
        _ => Act::Answer(held()),
    });
    let client = net.client().await;
    let Outcome::NotNow(told) = reserve(&client, client.mint_for(&sku())).await else { panic!("not now") };
    assert_eq!((told.cause, told.retry_after), (Cause::Overloaded, Duration::from_secs(60)));
    // A caller with all the time there is comes back after the bound, not after weeks.
    let began = Instant::now();
    let id = client.mint_for(&sku());
    let held = client.reserve(id, "anna").line("shoe", 1).deadline(Duration::MAX).await;
    assert!(held.is_ok(), "{held:?}");
    assert!(began.elapsed() <= Duration::from_secs(61), "after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dead_node_is_dialled_ever_more_seldom() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let client = net.client().await;
    net.set_down("n3:1", true);
    let dials = || net.dials.lock().unwrap().iter().filter(|node| *node == "n3:1").count();
    let before = dials();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialled = dials() - before;
    assert!((20..=50).contains(&dialled), "{dialled} dials in a minute");
    // A node that is named as the leader is worth a try at once.
    net.set_down("n3:1", false);
    *net.leader.lock().unwrap() = 3;
    net.cut("n1:1");
    let began = Instant::now();
    while dials() == before + dialled {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(began.elapsed() < Duration::from_millis(100), "dialled after {:?}", began.elapsed());
    assert!(reserve(&client, client.mint_for(&sku())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn idle_client_of_a_dead_cluster_asks_ever_more_seldom() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let _client = net.client().await;
    for node in NODES {
        net.set_down(node, true);
    }
    let before = net.dials.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialled = net.dials.lock().unwrap().len() - before;
    assert!(dialled <= 3 * 50, "{dialled} dials in a minute");
}

/// A node that sends an empty frame for each watch and then says that it stops, so that the watch
/// is always asked for again.
fn ever_watched() -> Net {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    *net.watch.lock().unwrap() =
        Some(Arc::new(|_, _| vec![Ok(v1::WatchFrame::default()), Err(tonic::Status::unavailable("it stops"))]));
    net
}

#[tokio::test(start_paused = true)]
async fn watch_ends_when_its_client_is_closed() {
    let net = ever_watched();
    let client = net.client().await;
    let mut watch = client.watch(Cursor::oldest());
    watch.next().await.expect("it runs").expect("a frame");
    client.close().await;
    let rest = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), rest).await.expect("it ends");
    let asked = net.reads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(net.reads.load(Ordering::SeqCst), asked, "no node is asked any more");
    assert!(client.watch(Cursor::oldest()).next().await.is_none(), "nor for a new watch");
}

#[tokio::test(start_paused = true)]
async fn watch_ends_when_its_client_is_dropped() {
    let net = ever_watched();
    let client = net.client().await;
    let mut watch = client.watch(Cursor::oldest());
    watch.next().await.expect("it runs").expect("a frame");
    drop(client);
    let rest = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), rest).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn watch_from_now_broken_before_its_first_frame_misses_nothing() {
    let net = Net::new(|_, _, _| Act::Answer(held()));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = asked.clone();
    *net.watch.lock().unwrap() = Some(Arc::new(move |_, request| {
        let mut asked = kept.lock().unwrap();
        asked.push((request.from_now, request.cursor.to_vec()));
        let at = |place: u8| v1::WatchFrame { cursor: vec![place].into(), ..v1::WatchFrame::default() };
        match asked.len() {
            1 => vec![Err(tonic::Status::unavailable("it stops"))],
            2 => vec![Ok(at(7)), Err(tonic::Status::unavailable("it stops"))],
            n => vec![Ok(at(n as u8)), Err(tonic::Status::unavailable("it stops"))],
        }
    }));
    let client = net.client().await;
    let mut watch = client.watch_from_now().await.expect("it begins");
    assert_eq!(watch.begins(), &Cursor::from_bytes(vec![7]));
    watch.next().await.expect("it goes on").expect("a frame");
    let asked = asked.lock().unwrap()[..3].to_vec();
    assert_eq!(asked, [(true, vec![]), (true, vec![]), (false, vec![7])], "from where it began, not from a later now");
}
