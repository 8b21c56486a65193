//! One product named by many lines of a call: the lines are summed at the wire, whichever way the call comes in, and the
//! cluster goes on.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use common::{Cluster, create, mint, receive};
use futures::StreamExt;
use ledger_core::outcome::Settled;
use ledger_core::{Command, ReservationId, limits};
use ledger_proto::v1::{self, call::Verb};
use ledger_proto::{Calls, Reply, Why, answers, names};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

const LINES: usize = 64;

async fn stocked() -> Cluster {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 2_000_000, "r1")).await;
    cluster
}

fn shoes(lines: usize, each: i64) -> Vec<v1::Line> {
    vec![v1::Line { sku: "shoe".into(), sale: String::new(), quantity: each }; lines]
}

fn reserve(id: ReservationId, lines: Vec<v1::Line>) -> Verb {
    Verb::Reserve(v1::Reserve { id: names::id_to_wire(id), keys: vec![], lines, hold_ms: 60_000 })
}

/// A frame of one call, encoded without the conversions of the caller's side.
fn frame(verb: Verb) -> bytes::Bytes {
    let call = v1::Call { tag: 1, within_ms: 10_000, verb: Some(verb) };
    prost::Message::encode_to_vec(&v1::CallFrame { calls: vec![call] }).into()
}

async fn batch(cluster: &Cluster, i: usize, verb: Verb) -> Reply {
    let mut client = cluster.grpc(i).await;
    let answered = client.submit_batch(Calls::from_encoded(frame(verb))).await.expect("answered");
    answered.into_inner().decode().expect("a frame").remove(0).reply
}

async fn single(cluster: &Cluster, i: usize, verb: Verb) -> Reply {
    let call = v1::Call { tag: 1, within_ms: 10_000, verb: Some(verb) };
    let address = format!("http://{}", cluster.client_addr(i));
    let mut client = v1::ledger_client::LedgerClient::connect(address).await.expect("the node listens");
    let answered = client.submit(call).await.expect("answered").into_inner();
    let answer = answered.entries.into_iter().flat_map(|entry| entry.answers).next().expect("an answer");
    answers::from_wire(answer.outcome)
}

async fn streamed(cluster: &Cluster, i: usize, verb: Verb) -> Reply {
    let (frames, sent) = tokio::sync::mpsc::channel(1);
    let answers = cluster.grpc(i).await.submit_stream(ReceiverStream::new(sent)).await;
    frames.send(Calls::from_encoded(frame(verb))).await.expect("the stream is open");
    let mut answers = answers.expect("opened").into_inner();
    answers.next().await.expect("open").expect("an answer").decode().expect("a frame").remove(0).reply
}

#[track_caller]
fn assert_done(reply: &Reply) {
    assert!(matches!(reply, Reply::Ok(_)), "{reply:?}");
}

#[track_caller]
fn assert_invalid(reply: &Reply, field: &str) {
    assert!(matches!(reply, Reply::Refused(Why::Invalid(invalid)) if invalid.field == field), "{reply:?}");
}

async fn balance(cluster: &Cluster, i: usize) -> Value {
    let product = cluster.get(i, "/v1/products/shoe").await;
    assert_eq!(product.status, 200, "{product:?}");
    product.json()["offers"][0]["balance"].clone()
}

/// Every replica applied the same log and none stopped.
async fn assert_all_live(cluster: &Cluster) {
    let (_, leader) = cluster.leader(1).await;
    let index = leader.applied().borrow().position.index;
    for i in 0..3 {
        cluster.applied(i, 1, index).await;
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, []);
    }
}

#[tokio::test]
async fn reserve_over_http_with_repeated_lines_holds_their_sum() {
    let cluster = stocked().await;
    for lines in [1, limits::LINES_MAX, limits::LINES_MAX + 1, LINES] {
        let body = json!({"lines": vec![json!({"sku": "shoe", "quantity": 2}); lines], "hold_ms": 60_000});
        let before = balance(&cluster, 0).await["held"].as_u64().expect("a number");
        let held = cluster.post(lines % 3, "/v1/reservations?within_ms=10000", &body).await;
        assert_eq!(held.status, 201, "{lines} lines: {held:?}");
        assert_eq!(balance(&cluster, 1).await["held"], before + 2 * lines as u64);
    }
    assert_all_live(&cluster).await;
}

#[tokio::test]
async fn every_verb_with_repeated_lines_over_http_acts_on_their_sum() {
    let cluster = stocked().await;
    let id = mint("shoe", 1);
    let lines = |n: usize, each: i64| vec![json!({"sku": "shoe", "quantity": each}); n];
    let body = json!({"id": id.to_string(), "lines": lines(LINES, 2), "hold_ms": 60_000});
    let held = cluster.post(0, "/v1/reservations?within_ms=10000", &body).await;
    assert_eq!(held.status, 201, "{held:?}");
    let one_line = json!({"id": id.to_string(), "lines": lines(1, 2 * LINES as i64), "hold_ms": 60_000});
    let again = cluster.post(1, "/v1/reservations", &one_line).await;
    assert_eq!((again.status, &again.json()["replayed"]), (200, &json!(true)), "summed is the same content: {again:?}");

    let path = |verb: &str| format!("/v1/reservations/{id}/{verb}?within_ms=10000");
    let confirmed = cluster.post(2, &path("confirm"), &json!({"lines": lines(LINES, 1)})).await;
    assert_eq!((confirmed.status, &confirmed.json()["status"]), (200, &json!("confirmed")), "{confirmed:?}");
    assert_eq!(balance(&cluster, 0).await, json!({"available": 2_000_000 - LINES, "held": 0, "sold": LINES}));
    let back = json!({"lines": lines(20, 1), "reference": "rma-1"});
    let returned = cluster.post(0, &path("return"), &back).await;
    assert_eq!((returned.status, &returned.json()["units"]), (200, &json!(20)), "{returned:?}");
    assert_all_live(&cluster).await;
}

#[tokio::test]
async fn every_verb_with_repeated_lines_over_grpc_acts_on_their_sum() {
    let cluster = stocked().await;
    let (leader, _) = cluster.leader(1).await;
    let (one, two, three) = (mint("shoe", 1), mint("shoe", 2), mint("shoe", 3));
    assert_done(&single(&cluster, 0, reserve(one, shoes(17, 1))).await);
    assert_done(&batch(&cluster, 1, reserve(two, shoes(LINES, 1))).await);
    assert_done(&streamed(&cluster, leader, reserve(three, shoes(LINES, 1))).await);
    let lines = |n| Some(v1::Lines { lines: shoes(n, 1) });
    let confirm = |id, n| Verb::Confirm(v1::Confirm { id: names::id_to_wire(id), lines: lines(n) });
    assert_done(&single(&cluster, 2, confirm(one, 17)).await);
    assert_done(&batch(&cluster, 0, confirm(two, 40)).await);
    assert_done(&streamed(&cluster, leader, confirm(three, LINES)).await);
    let back = Verb::ReturnUnits(v1::ReturnUnits {
        id: names::id_to_wire(two),
        lines: lines(30),
        reference: "rma-1".to_owned(),
    });
    let reply = streamed(&cluster, leader, back).await;
    assert!(matches!(reply, Reply::Ok(Settled::Returned { units: 30, replayed: false })), "{reply:?}");
    let place = Verb::PlaceOrder(v1::PlaceOrder {
        id: names::id_to_wire(mint("shoe", 4)),
        amount: Some(v1::Money { minor: 500, currency: "EUR".to_owned() }),
        pay_within_ms: 60_000,
        lines: shoes(LINES, 3),
        ..v1::PlaceOrder::default()
    });
    assert_done(&batch(&cluster, 1, place).await);
    let sold = 17 + 40 + LINES - 30;
    let held = 3 * LINES;
    let want = json!({"available": 2_000_000 - sold - held, "held": held, "sold": sold});
    assert_eq!(balance(&cluster, 2).await, want);
    assert_all_live(&cluster).await;
}

#[tokio::test]
async fn lines_whose_sum_is_above_the_bound_are_invalid_and_change_nothing() {
    let cluster = stocked().await;
    let (leader, _) = cluster.leader(1).await;
    let max = i64::from(limits::QUANTITY_MAX);
    for (n, each) in [(2, max), (17, max / 16), (LINES, max)] {
        let id = mint("shoe", n as u64);
        assert_invalid(&single(&cluster, 0, reserve(id, shoes(n, each))).await, "lines.quantity");
        assert_invalid(&batch(&cluster, 1, reserve(id, shoes(n, each))).await, "lines.quantity");
        assert_invalid(&streamed(&cluster, leader, reserve(id, shoes(n, each))).await, "lines.quantity");
        let body = json!({"lines": vec![json!({"sku": "shoe", "quantity": each}); n]});
        let answer = cluster.post(2, "/v1/reservations", &body).await;
        assert_eq!((answer.status, answer.problem()), (400, "invalid".to_owned()), "{answer:?}");
    }
    assert_eq!(balance(&cluster, 0).await, json!({"available": 2_000_000, "held": 0, "sold": 0}));
    // Exactly the bound is one line.
    let id = mint("shoe", 1_000);
    assert_done(&single(&cluster, 0, reserve(id, shoes(16, max / 16))).await);
    assert_eq!(balance(&cluster, 0).await["held"], max);
    assert_done(&single(&cluster, 0, Verb::Release(v1::Release { id: names::id_to_wire(id) })).await);
    cluster.ask(Command::Fence { id }).await;
    assert_all_live(&cluster).await;
}
