//! Idempotency keys: what is kept, for whom, and for how long.

use std::time::Duration;

use crate::client::World;

const INTENTS: &str = "/v1/payment_intents";
const FORM: &str = "amount=1000&currency=eur&payment_method=pm_card_visa&confirm=true";

#[tokio::test]
async fn the_first_answer_is_given_again_byte_for_byte() {
    let world = World::new().await;
    let client = world.client.key("k");
    let first = client.post(INTENTS, FORM).await;
    // What happens later does not change what was answered then.
    let id = first.json["id"].as_str().expect("an id").to_owned();
    world.client.post("/v1/refunds", &format!("payment_intent={id}")).await.ok();
    let again = client.post(INTENTS, "confirm=true&payment_method=pm_card_visa&currency=eur&amount=1000").await;
    assert_eq!((again.status, &again.text), (200, &first.text));
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
    assert_eq!(world.client.get("/sim/book/summary").await.ok()["intents"], 1);

    let refund = format!("payment_intent={}&expand[]=charge", world.client.create(&FORM[25..]).await);
    let keyed = world.client.key("r");
    assert_eq!(keyed.post("/v1/refunds", &refund).await.text, keyed.post("/v1/refunds", &refund).await.text);
    assert_eq!(world.client.get("/sim/book/summary").await.ok()["refunds"], 2);
}

#[tokio::test]
async fn other_parameters_under_one_key_are_refused() {
    let world = World::new().await;
    let client = world.client.key("k");
    let id = client.post(INTENTS, FORM).await.ok()["id"].as_str().expect("an id").to_owned();
    let other = client.post(INTENTS, "amount=1001&currency=eur").await;
    assert_eq!(other.error(), (400, "idempotency_error", "-"));
    assert_eq!(client.verb(&id, "cancel", "").await.error(), (400, "idempotency_error", "-"));
    client.post(INTENTS, FORM).await.ok();
}

#[tokio::test]
async fn declines_and_failures_are_kept() {
    let world = World::new().await;
    let client = world.client.key("d");
    let form = "amount=1000&currency=eur&payment_method=pm_card_chargeDeclined&confirm=true";
    let first = client.post(INTENTS, form).await;
    let again = client.post(INTENTS, form).await;
    assert_eq!((first.status, again.status, again.header("idempotent-replayed")), (402, 402, Some("true")));
    assert_eq!(again.text, first.text);

    for (behaviour, paid) in
        [(r#"{"everywhere":{"error_rate":1}}"#, 0), (r#"{"everywhere":{"charge_then_error_rate":1}}"#, 1)]
    {
        let world = World::behaving(behaviour).await;
        let client = world.client.key("k");
        let failed = client.post(INTENTS, FORM).await;
        assert_eq!(failed.error(), (500, "api_error", "-"), "{behaviour}");
        client.behave("{}").await;
        let again = client.post(INTENTS, FORM).await;
        assert_eq!(again.error(), (500, "api_error", "-"), "the key keeps it though all is well now");
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.header("stripe-should-retry"), Some("false"));
        assert_eq!(world.client.get("/sim/book/summary").await.ok()["paid"], paid, "{behaviour}");
        client.key("other").post(INTENTS, FORM).await.ok();
    }
}

#[tokio::test]
async fn what_never_began_is_not_kept() {
    let world = World::behaving(r#"{"operations":{"create":{"error_rate":1,"error_kept":false}}}"#).await;
    let client = world.client.key("k");
    assert_eq!(client.post(INTENTS, FORM).await.status, 500);
    client.behave(r#"{"everywhere":{"too_many_rate":1,"retry_after_s":3}}"#).await;
    let later = client.post(INTENTS, FORM).await;
    assert_eq!((later.error().0, later.header("retry-after")), (429, Some("3")));
    client.behave("{}").await;
    assert_eq!(client.post(INTENTS, "amount=0&currency=eur").await.status, 400, "not valid, so not kept either");
    let first = client.post(INTENTS, FORM).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    assert_eq!(client.get("/sim/book/summary").await.ok()["keys"], 1);
}

#[tokio::test]
async fn keys_are_forgotten_in_their_time() {
    let world = World::with(|config| config.forget_keys_after = Duration::from_secs(3_600)).await;
    let client = world.client.key("k");
    let first = client.post(INTENTS, FORM).await.ok();
    world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(client.post(INTENTS, FORM).await.ok(), first);
    world.clock.advance(Duration::from_secs(1));
    let second = client.post(INTENTS, FORM).await;
    assert_eq!(second.header("idempotent-replayed"), None);
    assert_ne!(second.json["id"], first["id"], "the buyer paid twice: that is what forgetting means");
}

#[tokio::test]
async fn a_key_in_use_is_in_use() {
    let world = World::behaving(r#"{"everywhere":{"latency_ms":300}}"#).await;
    let client = world.client.key("k");
    let (one, two) = tokio::join!(client.post(INTENTS, FORM), client.post(INTENTS, FORM));
    let (done, refused) = if one.status == 200 { (one, two) } else { (two, one) };
    assert_eq!(refused.error(), (409, "idempotency_error", "idempotency_key_in_use"));
    assert_eq!(refused.header("stripe-should-retry"), Some("true"));
    let replayed = client.post(INTENTS, FORM).await;
    assert_eq!((replayed.text, replayed.headers.contains_key("idempotent-replayed")), (done.text, true));
}

#[tokio::test]
async fn many_at_once_under_one_key_pay_once() {
    let world = World::new().await;
    let client = world.client.key("k");
    let replies = futures::future::join_all((0..32).map(|_| client.post(INTENTS, FORM))).await;
    let fresh = replies.iter().filter(|reply| reply.header("idempotent-replayed").is_none()).count();
    assert_eq!(fresh, 1);
    assert!(replies.iter().all(|reply| reply.text == replies[0].text));
    assert_eq!(world.client.get("/sim/book/summary").await.ok()["paid"], 1);
}

#[tokio::test]
async fn keys_have_bounds_and_outlive_the_process() {
    let world = World::new().await;
    let long = "k".repeat(255);
    assert_eq!(world.client.key(&format!("{long}k")).post(INTENTS, FORM).await.status, 400);
    let first = world.client.key(&long).post(INTENTS, FORM).await;
    let dir = world.stop().await;
    let world = World::on(dir, |_| {}).await;
    let again = world.client.key(&long).post(INTENTS, FORM).await;
    assert_eq!((again.header("idempotent-replayed"), &again.text), (Some("true"), &first.text));
}
