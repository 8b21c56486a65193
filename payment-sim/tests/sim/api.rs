//! Stripe's endpoints: objects, transitions and refusals.

use crate::client::{BEGIN_MS, Client, World};

const INTENTS: &str = "/v1/payment_intents";

#[tokio::test]
async fn a_payment_is_made_confirmed_and_looked_up() {
    let world = World::new().await;
    let client = &world.client;
    let form = "amount=4900&currency=EUR&payment_method=pm_card_visa&metadata[order]=a-1&description=two+shoes";
    let made = client.post(INTENTS, form).await.ok();
    assert_eq!(made["object"], "payment_intent");
    assert_eq!(made["status"], "requires_confirmation");
    assert_eq!((&made["amount"], &made["currency"]), (&4_900.into(), &"eur".into()));
    assert_eq!((&made["metadata"]["order"], &made["description"]), (&"a-1".into(), &"two shoes".into()));
    assert_eq!((&made["created"], &made["livemode"]), (&(BEGIN_MS / 1_000).into(), &false.into()));
    let id = made["id"].as_str().expect("an id");
    assert!(made["client_secret"].as_str().expect("a secret").starts_with(&format!("{id}_secret_")));

    let paid = client.verb(id, "confirm", "").await.ok();
    assert_eq!((&paid["status"], &paid["amount_received"]), (&"succeeded".into(), &4_900.into()));
    let seen = client.get(&format!("{INTENTS}/{id}")).await.ok();
    assert_eq!(seen, paid);
    let expanded = client.get(&format!("{INTENTS}/{id}?expand[]=latest_charge")).await.ok();
    let charge = &expanded["latest_charge"];
    assert_eq!((&charge["id"], &charge["paid"]), (&paid["latest_charge"], &true.into()));
    assert_eq!(&client.get(&format!("/v1/charges/{}", charge["id"].as_str().expect("an id"))).await.ok(), charge);
}

#[tokio::test]
async fn made_and_confirmed_at_once() {
    let world = World::new().await;
    let form = "amount=1&currency=usd&confirm=true&payment_method=pm_card_visa&automatic_payment_methods[enabled]=true";
    let paid = world.client.post(INTENTS, form).await.ok();
    assert_eq!(paid["status"], "succeeded");
}

#[tokio::test]
async fn declines_name_the_decline_and_leave_the_intent_open() {
    let world = World::new().await;
    let client = &world.client;
    for (method, code, decline) in [
        ("pm_card_visa_chargeDeclined", "card_declined", Some("generic_decline")),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", Some("insufficient_funds")),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ] {
        let id = client.create(&format!("payment_method={method}")).await;
        let declined = client.verb(&id, "confirm", "").await;
        assert_eq!(declined.error(), (402, "card_error", code));
        let error = &declined.json["error"];
        assert_eq!(error["decline_code"].as_str(), decline);
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
        assert!(error["charge"].as_str().expect("a charge").starts_with("ch_"));
        let intent = client.get(&format!("{INTENTS}/{id}")).await.ok();
        assert_eq!(intent["last_payment_error"]["code"], code);
        assert_eq!((&intent["amount_received"], &intent["payment_method"]), (&0.into(), &serde_json::Value::Null));

        let unpaid = client.verb(&id, "confirm", "").await;
        assert_eq!(unpaid.error(), (400, "invalid_request_error", "payment_intent_unexpected_state"));
        let paid = client.verb(&id, "confirm", "payment_method=pm_card_visa").await.ok();
        assert_eq!((&paid["status"], &paid["last_payment_error"]), (&"succeeded".into(), &serde_json::Value::Null));
    }
}

#[tokio::test]
async fn money_is_set_aside_and_captured_in_part() {
    let world = World::new().await;
    let client = &world.client;
    let id = client.create("capture_method=manual&payment_method=pm_card_visa&confirm=true").await;
    let intent = client.get(&format!("{INTENTS}/{id}")).await.ok();
    assert_eq!((&intent["status"], &intent["amount_capturable"]), (&"requires_capture".into(), &1_000.into()));
    let unpaid = client.post("/v1/refunds", &format!("payment_intent={id}")).await;
    assert_eq!(unpaid.error().0, 400, "what was not taken is not given back");
    let more = client.verb(&id, "capture", "amount_to_capture=1001").await;
    assert_eq!(more.error(), (400, "invalid_request_error", "amount_too_large"));
    let captured = client.verb(&id, "capture", "amount_to_capture=400").await.ok();
    assert_eq!((&captured["status"], &captured["amount_received"]), (&"succeeded".into(), &400.into()));
    assert_eq!(captured["amount_capturable"], 0);
    let again = client.verb(&id, "capture", "").await;
    assert_eq!(again.error(), (400, "invalid_request_error", "payment_intent_unexpected_state"));
}

#[tokio::test]
async fn cancelling_frees_what_was_set_aside() {
    let world = World::new().await;
    let client = &world.client;
    let id = client.create("capture_method=manual&payment_method=pm_card_visa&confirm=true").await;
    let canceled = client.verb(&id, "cancel", "cancellation_reason=abandoned&expand[]=latest_charge").await.ok();
    assert_eq!((&canceled["status"], &canceled["cancellation_reason"]), (&"canceled".into(), &"abandoned".into()));
    assert_eq!((&canceled["amount_capturable"], &canceled["canceled_at"]), (&0.into(), &(BEGIN_MS / 1_000).into()));
    assert_eq!(
        (&canceled["latest_charge"]["refunded"], &canceled["latest_charge"]["captured"]),
        (&true.into(), &false.into())
    );
    for verb in ["cancel", "confirm", "capture"] {
        let refused = client.verb(&id, verb, "").await;
        assert_eq!(refused.error(), (400, "invalid_request_error", "payment_intent_unexpected_state"), "{verb}");
        assert_eq!(refused.json["error"]["payment_intent"]["id"], id.as_str());
    }
}

#[tokio::test]
async fn what_was_paid_is_neither_cancelled_nor_paid_again() {
    let world = World::new().await;
    let client = &world.client;
    let id = client.create("payment_method=pm_card_visa&confirm=true").await;
    for verb in ["cancel", "confirm", "capture"] {
        let refused = client.verb(&id, verb, "").await;
        assert_eq!(refused.error(), (400, "invalid_request_error", "payment_intent_unexpected_state"), "{verb}");
    }
}

#[tokio::test]
async fn the_buyer_authenticates_or_fails_to() {
    let world = World::new().await;
    let client = &world.client;
    let asks = "payment_method=pm_card_authenticationRequired&confirm=true";
    let id = client.create(asks).await;
    let intent = client.get(&format!("{INTENTS}/{id}")).await.ok();
    assert_eq!(
        (&intent["status"], &intent["next_action"]["type"]),
        (&"requires_action".into(), &"use_stripe_sdk".into())
    );
    let done = client.post(&format!("/sim/intents/{id}/authenticate?outcome=ok"), "").await.ok();
    assert_eq!(done["status"], "succeeded");
    let twice = client.post(&format!("/sim/intents/{id}/authenticate?outcome=ok"), "").await;
    assert_eq!(twice.error(), (400, "invalid_request_error", "payment_intent_unexpected_state"));

    let id = client.create(&format!("{asks}&return_url=https://shop.example/back")).await;
    let action = &client.get(&format!("{INTENTS}/{id}")).await.ok()["next_action"];
    assert_eq!(action["redirect_to_url"]["return_url"], "https://shop.example/back");
    let failed = client.post(&format!("/sim/intents/{id}/authenticate?outcome=fail"), "").await.ok();
    assert_eq!(failed["status"], "requires_payment_method");
    assert_eq!(failed["last_payment_error"]["code"], "payment_intent_authentication_failure");

    let absent = client.post(INTENTS, &format!("amount=1&currency=eur&{asks}&off_session=true")).await;
    assert_eq!(absent.error(), (402, "card_error", "authentication_required"));
}

#[tokio::test]
async fn a_bank_takes_its_time() {
    let world = World::new().await;
    let client = &world.client;
    for (outcome, status) in [("ok", "succeeded"), ("fail", "requires_payment_method")] {
        let id = client.create("payment_method=pm_sim_processing&confirm=true").await;
        assert_eq!(client.status(&id).await, "processing");
        assert_eq!(client.verb(&id, "cancel", "").await.error().2, "payment_intent_unexpected_state");
        let settled = client.post(&format!("/sim/intents/{id}/settle?outcome={outcome}"), "").await.ok();
        assert_eq!(settled["status"], status);
    }
}

#[tokio::test]
async fn money_is_given_back_once() {
    let world = World::new().await;
    let client = &world.client;
    let id = client.create("payment_method=pm_card_visa&confirm=true").await;
    let part = client.post("/v1/refunds", &format!("payment_intent={id}&amount=400&metadata[why]=late")).await.ok();
    assert_eq!(
        (&part["object"], &part["status"], &part["amount"]),
        (&"refund".into(), &"succeeded".into(), &400.into())
    );
    assert_eq!((&part["payment_intent"], &part["metadata"]["why"]), (&id.as_str().into(), &"late".into()));
    let more = client.post("/v1/refunds", &format!("payment_intent={id}&amount=601")).await;
    assert_eq!(more.error(), (400, "invalid_request_error", "-"));
    assert_eq!(more.json["error"]["param"], "amount");
    let charge = part["charge"].as_str().expect("a charge");
    let rest = client.post("/v1/refunds", &format!("charge={charge}&reason=requested_by_customer")).await.ok();
    assert_eq!((&rest["amount"], &rest["reason"]), (&600.into(), &"requested_by_customer".into()));
    let again = client.post("/v1/refunds", &format!("payment_intent={id}")).await;
    assert_eq!(again.error(), (400, "invalid_request_error", "charge_already_refunded"));

    let one = part["id"].as_str().expect("an id");
    assert_eq!(client.get(&format!("/v1/refunds/{one}")).await.ok(), part);
    let other = client.create("payment_method=pm_card_visa&confirm=true").await;
    client.post("/v1/refunds", &format!("payment_intent={other}")).await.ok();
    let listed = client.get(&format!("/v1/refunds?payment_intent={id}&limit=1")).await.ok();
    assert_eq!((&listed["data"][0], &listed["has_more"]), (&rest, &true.into()));
    let path = format!("/v1/refunds?payment_intent={id}&starting_after={}", rest["id"].as_str().expect("an id"));
    assert_eq!(client.get(&path).await.ok()["data"], serde_json::json!([part]));
    let charge = client.get(&format!("/v1/charges/{charge}")).await.ok();
    assert_eq!((&charge["amount_refunded"], &charge["refunded"]), (&1_000.into(), &true.into()));
}

#[tokio::test]
async fn lists_go_page_by_page_and_search_finds_by_metadata() {
    let world = World::new().await;
    let client = &world.client;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(client.create(&format!("metadata[order]=o-{}&metadata[n]={n}", n % 2)).await);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{INTENTS}?limit=2{after}")).await.ok();
        assert_eq!((&page["object"], &page["url"]), (&"list".into(), &INTENTS.into()));
        seen.extend(ids(&page));
        if page["has_more"] == false {
            break;
        }
        after = format!("&starting_after={}", seen.last().expect("one"));
    }
    seen.reverse();
    assert_eq!(seen, made);

    let query = |query: &str| {
        format!("{INTENTS}/search?query={}", form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>())
    };
    let found = client.get(&query("metadata['order']:'o-0'")).await.ok();
    assert_eq!(found["object"], "search_result");
    assert_eq!(ids(&found), [made[4].clone(), made[2].clone(), made[0].clone()]);
    let found = client.get(&query("metadata['order']:'o-0' AND metadata['n']:'2'")).await.ok();
    assert_eq!(ids(&found), [made[2].clone()]);
    let page = client.get(&format!("{}&limit=2", query("status:'requires_payment_method'"))).await.ok();
    let next = page["next_page"].as_str().expect("more");
    let rest = client.get(&format!("{}&limit=9&page={next}", query("status:'requires_payment_method'"))).await.ok();
    assert_eq!([ids(&page), ids(&rest)].concat().len(), 5);
    assert_eq!(client.get(&query("metadata['order']~'o'")).await.error().0, 400);
}

fn ids(page: &serde_json::Value) -> Vec<String> {
    let data = page["data"].as_array().expect("data");
    data.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn parameters_are_checked() {
    let world = World::new().await;
    let client = &world.client;
    let long = "x".repeat(501);
    let metadata = format!("amount=1&currency=eur&metadata[a]={long}");
    for (form, code, param) in [
        ("currency=eur", "parameter_missing", "amount"),
        ("amount=1", "parameter_missing", "currency"),
        ("amount=0&currency=eur", "parameter_invalid_integer", "amount"),
        ("amount=-5&currency=eur", "parameter_invalid_integer", "amount"),
        ("amount=1.5&currency=eur", "parameter_invalid_integer", "amount"),
        ("amount=100000000&currency=eur", "amount_too_large", "amount"),
        ("amount=1&currency=euro", "-", "currency"),
        ("amount=1&currency=eur&capture_method=later", "-", "capture_method"),
        ("amount=1&currency=eur&payment_method=pm_1", "resource_missing", "payment_method"),
        ("amount=1&currency=eur&confirm=true", "-", "payment_method"),
        ("amount=1&currency=eur&confirm=yes", "parameter_invalid_boolean", "confirm"),
        ("amount=1&currency=eur&shipping[name]=x", "parameter_unknown", "shipping[name]"),
        ("amount=1&currency=eur&expand[]=customer", "-", "expand"),
        (&metadata, "-", "metadata[a]"),
    ] {
        let refused = client.post(INTENTS, form).await;
        assert_eq!(refused.error(), (400, "invalid_request_error", code), "{form}");
        assert_eq!(refused.json["error"]["param"], param, "{form}");
    }
    assert_eq!(client.get("/sim/book/summary").await.ok()["intents"], 0);
    let large = client.post(INTENTS, &"x".repeat(payment_sim::limits::BODY_BYTES + 1)).await;
    assert_eq!(large.status, 413);
    assert_eq!(client.header("content-type", "application/json").post(INTENTS, "{}").await.status, 400);
    assert_eq!(client.get(&format!("{INTENTS}?limit=101")).await.status, 400);
}

#[tokio::test]
async fn what_is_not_there_is_missing() {
    let world = World::new().await;
    let client = &world.client;
    let none = "pi_000000000000000000000000";
    for path in [INTENTS, "/v1/refunds", "/v1/charges", "/v1/events"] {
        for id in [none, "x", "%C3%A9"] {
            assert_eq!(
                client.get(&format!("{path}/{id}")).await.error(),
                (404, "invalid_request_error", "resource_missing")
            );
        }
    }
    assert_eq!(client.verb(none, "confirm", "").await.error(), (404, "invalid_request_error", "resource_missing"));
    assert_eq!(client.post("/v1/refunds", &format!("payment_intent={none}")).await.error().2, "resource_missing");
    assert_eq!(client.get("/v1/customers").await.error(), (404, "invalid_request_error", "-"));
    assert_eq!(client.call("DELETE", INTENTS, "").await.expect("an answer").status, 404);
}

#[tokio::test]
async fn callers_show_a_key_of_the_test_mode() {
    let world = World::new().await;
    let with = |value: &str| world.client.header("authorization", value);
    for bad in ["", "Bearer", "Bearer sk_live_1", "Bearer sk_test_", "Basic !!!", "Digest sk_test_1"] {
        for path in [INTENTS, "/v1/nothing"] {
            let refused = with(bad).get(path).await;
            assert_eq!(refused.error(), (401, "invalid_request_error", "-"), "{bad} {path}");
        }
        assert_eq!(with(bad).post(INTENTS, "amount=1&currency=eur").await.status, 401);
    }
    with("Basic c2tfdGVzdF94Og==").get(INTENTS).await.ok();
    let only = World::with(|config| config.api_key = Some("sk_test_mine".to_owned())).await;
    assert_eq!(only.client.get(INTENTS).await.status, 401);
    only.client.header("authorization", "Bearer sk_test_mine").get(INTENTS).await.ok();
}

#[tokio::test]
async fn events_tell_what_happened() {
    let world = World::new().await;
    let client: &Client = &world.client;
    let id = client.create("capture_method=manual&payment_method=pm_card_visa&confirm=true&metadata[order]=1").await;
    client.verb(&id, "capture", "").await.ok();
    client.post("/v1/refunds", &format!("payment_intent={id}")).await.ok();
    let listed = client.get("/v1/events").await.ok();
    let kinds: Vec<_> = listed["data"].as_array().expect("data").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(
        kinds,
        ["charge.refunded", "refund.created", "payment_intent.succeeded", "payment_intent.amount_capturable_updated"]
    );
    let first = &listed["data"][3];
    assert_eq!((&first["object"], &first["data"]["object"]["metadata"]["order"]), (&"event".into(), &"1".into()));
    assert_eq!(first["data"]["object"]["status"], "requires_capture", "an event shows its object as it was then");
    assert_eq!(&client.get(&format!("/v1/events/{}", first["id"].as_str().expect("an id"))).await.ok(), first);
    let some = client.get("/v1/events?type=payment_intent.succeeded&limit=1").await.ok();
    assert_eq!((&some["data"][0], &some["has_more"]), (&listed["data"][2], &false.into()));
}

#[tokio::test]
async fn answers_name_the_request_and_the_version() {
    let world = World::new().await;
    let reply = world
        .client
        .header("stripe-version", "2026-10-28.endive")
        .key("k")
        .post(INTENTS, "amount=1&currency=eur")
        .await;
    assert!(reply.header("request-id").expect("an id").starts_with("req_"));
    assert_eq!(reply.header("stripe-version"), Some("2026-10-28.endive"));
    assert_eq!(reply.header("idempotency-key"), Some("k"));
    assert_eq!(reply.header("idempotent-replayed"), None);
}
