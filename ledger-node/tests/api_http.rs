//! HTTP as callers meet it: every kind of bad input is a typed problem that changes nothing, and any node serves.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use common::{Cluster, create, mint, receive};
use ledger_core::types::{ReservationId, Slot};
use serde_json::{Value, json};

async fn stocked(units: i64) -> Cluster {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", units, "r1")).await;
    cluster
}

fn one_shoe() -> Value {
    json!({"lines": [{"sku": "shoe", "quantity": 1}], "hold_ms": 60_000})
}

async fn balance(cluster: &Cluster, i: usize) -> Value {
    let product = cluster.get(i, "/v1/products/shoe").await;
    assert_eq!(product.status, 200, "{product:?}");
    product.json()["offers"][0]["balance"].clone()
}

#[tokio::test]
async fn a_reservation_lives_its_life_through_any_node() {
    let cluster = stocked(5).await;
    let (leader, _) = cluster.leader(1).await;
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = mint("shoe", 1);
    let key = format!("idempotency-key: {id}");

    let held = cluster.http(one, "POST", "/v1/reservations", &[&key], &one_shoe().to_string()).await;
    assert_eq!(held.status, 201, "a follower passes it on: {held:?}");
    assert_eq!(held.headers["location"], format!("/v1/reservations/{id}"));
    assert_eq!((&held.json()["status"], &held.json()["id"]), (&json!("held"), &json!(id.to_string())));
    let again = cluster.http(two, "POST", "/v1/reservations", &[&key], &one_shoe().to_string()).await;
    assert_eq!((again.status, &again.json()["replayed"]), (200, &json!(true)), "{again:?}");
    assert_eq!(balance(&cluster, one).await, json!({"available": 4, "held": 1, "sold": 0}));

    let deadline = held.json()["deadline_ms"].clone();
    let path = |verb: &str| format!("/v1/reservations/{id}/{verb}");
    let extended = cluster.post(two, &path("extend"), &json!({"replaces_ms": deadline, "hold_ms": 120_000})).await;
    assert_eq!(extended.status, 200, "{extended:?}");
    let confirmed = cluster.post(one, &path("confirm"), &json!({})).await;
    assert_eq!((confirmed.status, &confirmed.json()["status"]), (200, &json!("confirmed")), "{confirmed:?}");
    let released = cluster.post(two, &path("release"), &json!({})).await;
    assert_eq!((released.status, released.problem()), (409, "not-held".to_owned()));
    assert_eq!(released.json()["reservation_status"], "confirmed");
    let fenced = cluster.post(two, &path("fence"), &json!({})).await;
    assert_eq!((fenced.status, &fenced.json()["status"]), (200, &json!("confirmed")), "{fenced:?}");
    let returned = cluster.post(one, &path("return"), &json!({"reference": "back-1"})).await;
    assert_eq!((returned.status, &returned.json()["units"]), (200, &json!(1)), "{returned:?}");

    let shown = cluster.get(two, &format!("/v1/reservations/{id}")).await;
    assert_eq!((shown.status, &shown.json()["lines"][0]["returned"]), (200, &json!(1)), "{shown:?}");
    let stale = cluster.get(two, &format!("/v1/reservations/{id}?consistency=stale")).await;
    assert!(stale.json()["as_of"]["index"].is_u64(), "{stale:?}");
    for i in 0..3 {
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, []);
    }
}

#[tokio::test]
async fn the_idempotency_key_is_the_reservation_id_and_says_so_when_it_is_not_one() {
    let cluster = stocked(5).await;
    let body = one_shoe().to_string();
    for bad in ["order-17", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "\"\"", "018f"] {
        let answer = cluster.http(0, "POST", "/v1/reservations", &[&format!("idempotency-key: {bad}")], &body).await;
        assert_eq!(
            (answer.status, answer.problem()),
            (400, "idempotency-key-is-no-reservation-id".to_owned()),
            "{bad}"
        );
        assert!(answer.json()["detail"].as_str().expect("text").contains("UUIDv7"), "{answer:?}");
    }
    // Quoted, as the draft standard writes it.
    let id = mint("shoe", 1);
    let quoted = cluster.http(0, "POST", "/v1/reservations", &[&format!("idempotency-key: \"{id}\"")], &body).await;
    assert_eq!((quoted.status, &quoted.json()["id"]), (201, &json!(id.to_string())), "{quoted:?}");
    // Other content under the same key.
    let other = json!({"lines": [{"sku": "shoe", "quantity": 2}], "hold_ms": 60_000}).to_string();
    let taken = cluster.http(0, "POST", "/v1/reservations", &[&format!("idempotency-key: {id}")], &other).await;
    assert_eq!((taken.status, taken.problem()), (422, "id-taken".to_owned()));
    // Two names for one thing.
    let mut twice = one_shoe();
    twice["id"] = json!(mint("shoe", 2).to_string());
    let twice =
        cluster.http(0, "POST", "/v1/reservations", &[&format!("idempotency-key: {id}")], &twice.to_string()).await;
    assert_eq!((twice.status, twice.problem()), (400, "invalid".to_owned()));
    // None at all: the node mints one that routes.
    let minted = cluster.post(1, "/v1/reservations", &one_shoe()).await;
    assert_eq!(minted.status, 201, "{minted:?}");
    let minted: ReservationId = minted.json()["id"].as_str().expect("an id").parse().expect("a reservation id");
    assert_eq!(minted.slot(), Slot::of(&common::sku("shoe")));
    assert_eq!(balance(&cluster, 2).await, json!({"available": 3, "held": 2, "sold": 0}));
}

#[tokio::test]
async fn bad_input_of_each_kind_is_a_typed_problem_and_changes_nothing() {
    let cluster = stocked(5).await;
    let before = balance(&cluster, 0).await;
    let lines = |lines: Value| json!({"id": mint("shoe", 9).to_string(), "lines": lines});
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("no JSON", "{".to_owned(), 400, "malformed-json"),
        ("an unknown field", json!({"lines": [], "holdms": 1}).to_string(), 400, "malformed-json"),
        ("no lines", lines(json!([])).to_string(), 400, "invalid"),
        ("quantity zero", lines(json!([{"sku": "shoe", "quantity": 0}])).to_string(), 400, "invalid"),
        ("quantity below zero", lines(json!([{"sku": "shoe", "quantity": -1}])).to_string(), 400, "invalid"),
        ("a quantity too large", lines(json!([{"sku": "shoe", "quantity": 1_000_001}])).to_string(), 400, "invalid"),
        ("a fraction", lines(json!([{"sku": "shoe", "quantity": 1.5}])).to_string(), 400, "malformed-json"),
        ("an empty SKU", lines(json!([{"sku": "", "quantity": 1}])).to_string(), 400, "invalid"),
        ("a SKU with a space", lines(json!([{"sku": "a b", "quantity": 1}])).to_string(), 400, "invalid"),
        ("a long SKU", lines(json!([{"sku": "s".repeat(65), "quantity": 1}])).to_string(), 400, "invalid"),
        (
            "five keys",
            json!({"lines": [{"sku": "shoe", "quantity": 1}], "keys": ["1", "2", "3", "4", "5"]}).to_string(),
            400,
            "invalid",
        ),
        (
            "an id that is none",
            json!({"id": "17", "lines": [{"sku": "shoe", "quantity": 1}]}).to_string(),
            400,
            "invalid",
        ),
        (
            "a hold of zero",
            json!({"lines": [{"sku": "shoe", "quantity": 1}], "hold_ms": 0}).to_string(),
            400,
            "invalid",
        ),
        (
            "a hold too long",
            json!({"lines": [{"sku": "shoe", "quantity": 1}], "hold_ms": 8 * 24 * 3_600_000u64}).to_string(),
            422,
            "hold-too-long",
        ),
        (
            "another slot's id",
            json!({"id": mint("cup", 1).to_string(), "lines": [{"sku": "shoe", "quantity": 1}]}).to_string(),
            422,
            "id-wrong-slot",
        ),
        (
            "lines that span slots",
            lines(json!([{"sku": "shoe", "quantity": 1}, {"sku": "cup", "quantity": 1}])).to_string(),
            422,
            "lines-span-slots",
        ),
        (
            "an unknown product",
            json!({"lines": [{"sku": "nothing", "quantity": 1}]}).to_string(),
            404,
            "unknown-product",
        ),
        (
            "an unknown sale",
            json!({"lines": [{"sku": "shoe", "sale": "never", "quantity": 1}]}).to_string(),
            404,
            "unknown-offer",
        ),
        ("more than there is", json!({"lines": [{"sku": "shoe", "quantity": 6}]}).to_string(), 409, "sold-out"),
        ("a body too large", " ".repeat(70_000), 413, "body-too-large"),
    ];
    for (n, (what, body, status, kind)) in cases.iter().enumerate() {
        let answer = cluster.http(n % 3, "POST", "/v1/reservations", &[], body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (*status, *kind), "{what}: {answer:?}");
    }
    let unknown = mint("shoe", 77);
    let cases = [
        ("GET", "/v1/nothing".to_owned(), 404, "no-such-resource"),
        ("DELETE", "/v1/products".to_owned(), 405, "method-not-allowed"),
        ("GET", "/v1/products/nothing".to_owned(), 404, "unknown-product"),
        ("GET", "/v1/products/%ff%fe".to_owned(), 400, "invalid"),
        ("POST", "/v1/products/%ff%fe/receive".to_owned(), 400, "invalid"),
        ("POST", "/v1/reservations/%ff/confirm".to_owned(), 400, "invalid"),
        ("GET", "/v1/products/shoe?consistency=fresh".to_owned(), 400, "invalid"),
        ("GET", "/v1/products/shoe?consistancy=stale".to_owned(), 400, "invalid"),
        ("GET", "/v1/reservations/17".to_owned(), 400, "invalid"),
        ("GET", format!("/v1/reservations/{unknown}"), 404, "unknown-reservation"),
        ("POST", format!("/v1/reservations/{unknown}/confirm"), 404, "unknown-reservation"),
        ("POST", format!("/v1/reservations/{unknown}/buy"), 404, "no-such-resource"),
        ("POST", format!("/v1/reservations/{unknown}/extend"), 400, "malformed-json"),
    ];
    for (n, (method, path, status, kind)) in cases.iter().enumerate() {
        let answer = cluster.http(n % 3, method, path, &[], "").await;
        assert_eq!((answer.status, answer.problem().as_str()), (*status, *kind), "{method} {path}: {answer:?}");
    }
    assert_eq!(balance(&cluster, 0).await, before);
    for i in 0..3 {
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, []);
    }
}

#[tokio::test]
async fn stock_is_made_received_adjusted_and_listed() {
    let cluster = Cluster::start(2, |_, _, _| {}).await;
    for name in ["a", "b", "c"] {
        let made = cluster.post(0, "/v1/products", &json!({"sku": name, "policy": {"per_order_max": 3}})).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let again = cluster.post(1, "/v1/products", &json!({"sku": "a", "policy": {"per_order_max": 3}})).await;
    assert_eq!((again.status, &again.json()["replayed"]), (200, &json!(true)), "{again:?}");
    let other = cluster.post(1, "/v1/products", &json!({"sku": "a"})).await;
    assert_eq!((other.status, other.problem()), (409, "already-exists".to_owned()));
    let received = cluster.post(2, "/v1/products/a/receive", &json!({"units": 7, "reference": "po-1"})).await;
    assert_eq!(received.json()["balance"]["available"], 7, "{received:?}");
    let gone = json!({"delta": -8, "reason": "broken", "reference": "adj-1"});
    let gone = cluster.post(2, "/v1/products/a/adjust", &gone).await;
    assert_eq!((gone.status, gone.problem()), (409, "not-enough-available".to_owned()));
    assert_eq!(gone.json()["available"], 7);
    let too_many = cluster.post(0, "/v1/reservations", &json!({"lines": [{"sku": "a", "quantity": 4}]})).await;
    assert_eq!(
        (too_many.status, too_many.problem(), &too_many.json()["max"]),
        (422, "above-order-max".to_owned(), &json!(3))
    );
    let page = cluster.get(1, "/v1/products?max=2").await.json();
    let skus = |page: &Value| {
        page["products"].as_array().expect("a list").iter().map(|p| p["sku"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((skus(&page), &page["next"]), (vec![json!("a"), json!("b")], &json!("b")));
    let rest = cluster.get(1, "/v1/products?max=2&after=b").await.json();
    assert_eq!((skus(&rest), &rest["next"]), (vec![json!("c")], &Value::Null));
    let in_use = cluster.http(1, "DELETE", "/v1/products/a", &[], "").await;
    assert_eq!((in_use.status, in_use.problem()), (409, "product-in-use".to_owned()));
    assert_eq!((&in_use.json()["units"], &in_use.json()["sales"]), (&json!(7), &json!(0)));
    let deleted = cluster.http(1, "DELETE", "/v1/products/c", &[], "").await;
    assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &json!(true)), "{deleted:?}");
    let gone = cluster.get(2, "/v1/products/c").await;
    assert_eq!((gone.status, gone.problem()), (404, "unknown-product".to_owned()));
}

#[tokio::test]
async fn a_time_of_zero_is_the_default_for_writes_and_for_reads() {
    let cluster = stocked(5).await;
    for i in 0..3 {
        let held = cluster.post(i, "/v1/reservations?within_ms=0", &one_shoe()).await;
        assert_eq!(held.status, 201, "{held:?}");
        let id = held.json()["id"].as_str().expect("an id").to_owned();
        for path in [format!("/v1/reservations/{id}?within_ms=0"), "/v1/products/shoe?within_ms=0".to_owned()] {
            let read = cluster.get(i, &path).await;
            assert_eq!(read.status, 200, "{path} at {i}: {read:?}");
        }
    }
}

#[tokio::test]
async fn health_says_what_is_missing_and_metrics_count() {
    let empty = Cluster::empty(|_, _, _| {}).await;
    assert_eq!(empty.get(0, "/livez").await.status, 200);
    let not_ready = empty.get(0, "/readyz?verbose").await;
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.text.contains("[-]serving failed: the node is not part of a cluster yet"), "{not_ready:?}");
    let early = empty.post(0, "/v1/reservations", &one_shoe()).await;
    assert_eq!((early.status, early.problem()), (503, "not-serving".to_owned()));
    assert_eq!(early.headers["retry-after"], "1", "{early:?}");

    let cluster = stocked(1).await;
    let (leader, _) = cluster.leader(1).await;
    cluster.post(leader, "/v1/reservations", &one_shoe()).await;
    cluster.post(leader, "/v1/reservations", &one_shoe()).await;
    let ready = cluster.readiness(leader, "ready", |status, _| status == 200).await;
    assert!(ready.contains("[+]shard-1-leader ok") && ready.contains("[+]shard-1-age ok"), "{ready}");
    let page = cluster.get(leader, "/metrics").await;
    let values = ledger_node::metrics::values(&page.text);
    assert_eq!(values.get("holdfast_answers_total{outcome=\"ok\"}"), Some(&1.0), "{}", page.text);
    assert_eq!(values.get("holdfast_answers_total{outcome=\"refused\"}"), Some(&1.0));
    assert_eq!(values.get("holdfast_commands_received_total{verb=\"reserve\"}"), Some(&2.0));
    assert_eq!(values.get("holdfast_shard_role{shard=\"1\",role=\"leader\"}"), Some(&1.0));
}

#[tokio::test]
async fn callers_from_elsewhere_are_refused_and_probes_are_not() {
    let nobody = "10.99.0.0/16".parse().expect("a network");
    let cluster = Cluster::empty(|_, config, _| config.trusted = vec![nobody]).await;
    for path in ["/v1/products/shoe", "/metrics", "/readyz?verbose"] {
        let answer = cluster.get(0, path).await;
        assert_eq!((answer.status, answer.problem()), (403, "permission-denied".to_owned()), "{path}");
        assert!(answer.json()["detail"].as_str().expect("text").contains("access.trusted"), "{answer:?}");
    }
    assert_eq!(cluster.get(0, "/livez").await.status, 200);
    assert_eq!(cluster.get(0, "/readyz").await.status, 503);
}

/// A request for a unit more, as a page of another site can make a browser send it.
#[tokio::test]
async fn cross_site_writes_are_refused_and_change_nothing() {
    let cluster = stocked(5).await;
    let (before, body) = (balance(&cluster, 0).await, json!({"units": 1, "reference": "foreign"}).to_string());
    let (host, json) = (format!("host: {}", cluster.http_addr(0)), "content-type: application/json");
    let own = format!("origin: http://{}", cluster.http_addr(0));
    let form = "content-type: application/x-www-form-urlencoded";
    let cases: [(&str, &[&str], u16, &str); 12] = [
        ("text", &[&host, "content-type: text/plain"], 415, "json-required"),
        ("text of our own origin", &[&host, &own, "content-type: text/plain"], 415, "json-required"),
        ("a form", &[&host, form], 415, "json-required"),
        ("no type", &[&host], 415, "json-required"),
        ("a foreign origin", &[&host, json, "origin: http://evil.example"], 403, "cross-site-request"),
        ("another port of this host", &[&host, json, "origin: http://127.0.0.1:1"], 403, "cross-site-request"),
        ("a hidden origin", &[&host, json, "origin: null"], 403, "cross-site-request"),
        ("what the browser says", &[&host, json, "sec-fetch-site: cross-site"], 403, "cross-site-request"),
        ("a foreign host", &["host: evil.example", json], 421, "unknown-host"),
        (
            "a name that leads here",
            &["host: evil.example:7102", json, "origin: http://evil.example:7102"],
            421,
            "unknown-host",
        ),
        ("two hosts", &[&host, "host: evil.example", json], 400, "invalid"),
        ("no host", &[json], 400, "invalid"),
    ];
    for (what, headers, status, kind) in cases {
        let answer = cluster.http_as(0, "POST", "/v1/products/shoe/receive", headers, &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind), "{what}: {answer:?}");
        assert_eq!(answer.headers.contains_key("accept-post"), status == 415, "{what}: {answer:?}");
    }
    let read = cluster.http_as(0, "GET", "/v1/products/shoe", &["host: evil.example"], "").await;
    assert_eq!((read.status, read.problem().as_str()), (421, "unknown-host"), "{read:?}");
    assert!(read.text.contains("http.hosts"), "{read:?}");
    assert_eq!(balance(&cluster, 0).await, before);
}

#[tokio::test]
async fn own_pages_tools_and_probes_are_served_under_names_of_the_node() {
    let named = |_: usize, config: &mut ledger_node::config::NodeConfig, _: &mut ledger_node::NodeSeams| {
        config.http_hosts = vec!["ledger.example".to_owned()];
    };
    let cluster = Cluster::start(1, named).await;
    cluster.ask(create("shoe")).await;
    let host = format!("host: {}", cluster.http_addr(0));
    let (own, json) = (format!("origin: http://{}", cluster.http_addr(0)), "content-type: application/json");
    let cases: [&[&str]; 4] = [
        &[&host, json],
        &[&host, &own, "sec-fetch-site: same-origin", "content-type: application/json; charset=utf-8"],
        &["host: localhost:7102", json],
        &["host: Ledger.example", json, "origin: https://ledger.example"],
    ];
    for (n, headers) in cases.iter().enumerate() {
        let body = json!({"units": 1, "reference": format!("po-{n}")}).to_string();
        let answer = cluster.http_as(0, "POST", "/v1/products/shoe/receive", headers, &body).await;
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
    }
    assert_eq!(cluster.http_as(0, "GET", "/livez", &["host: probe.example"], "").await.status, 200);
    assert_eq!(cluster.http_as(0, "GET", "/metrics", &["host: probe.example"], "").await.status, 421);
}
