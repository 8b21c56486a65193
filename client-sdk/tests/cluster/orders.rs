//! An order from its placing to its end, by the calls a shop and a worker make, against real nodes.

use std::time::Duration;

use client_sdk::order::{Ending, Fact, Money, Phase, ProviderId, Report, Step, WorkClass};
use client_sdk::{Client, Outcome, Policy, Refusal, ReservationId, Sku, Status};

use crate::nodes::Nodes;

async fn shop(nodes: &Nodes) -> (Client, Sku) {
    let client = Client::connect(nodes.endpoints().split(',')).await.expect("connected");
    let sku = Sku::new("mug").expect("a SKU");
    assert!(client.create_product(&sku, Policy::default()).await.is_ok());
    assert!(client.receive(&sku, 5, "first").await.is_ok());
    (client, sku)
}

async fn claim_one(client: &Client, id: ReservationId, class: WorkClass) -> client_sdk::order::Claimed {
    let claimed = client.claim(id.slot(), "worker-1", class).max(10).await.ok().expect("claimed");
    assert_eq!(claimed.iter().map(|order| order.id).collect::<Vec<_>>(), [id]);
    claimed.into_iter().next().expect("one")
}

#[tokio::test]
async fn an_order_is_placed_paid_and_told_while_its_buyer_waits() {
    let nodes = Nodes::start(3, 2, 0).await;
    let (client, sku) = shop(&nodes).await;
    let id = client.mint_for(&sku);
    let place = || client.place_order(id, 1_999, "eur").buyer("anna").line(&sku, 2);
    let placed = place().await.ok().expect("placed");
    assert_eq!((placed.phase, placed.ending, placed.replayed), (Phase::Queued, Ending::Open, false));
    assert!(place().await.ok().expect("the same").replayed);
    let other = client.place_order(id, 2_000, "eur").buyer("anna").line(&sku, 2).await;
    assert_eq!(other.refusal(), Some(&Refusal::IdTaken));
    assert_eq!(client.confirm(id).await.refusal(), Some(&Refusal::Ordered));

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_for(id, Duration::from_secs(20)).await }
    });

    let order = claim_one(&client, id, WorkClass::Money).await;
    assert_eq!((order.step, order.epoch, order.attempts), (Step::Pay, 1, 0));
    let intent = ProviderId::new("pi_1").expect("an id");
    let said = client.report(id, 1, Report::Intent { intent: intent.clone(), generation: 1 }).await;
    assert_eq!(said.ok().map(|order| order.phase), Some(Phase::Paying));
    let stale = client.report(id, 0, Report::Notified).await;
    assert_eq!(stale.refusal(), Some(&Refusal::StaleEpoch { present: 1 }));
    let paid = Fact::Paid { payment: intent, amount: Money::new(1_999, "EUR").expect("money") };
    assert_eq!(client.record_fact(id, paid.clone()).await.ok().map(|order| order.phase), Some(Phase::Sold));
    assert!(client.record_fact(id, paid).await.ok().expect("the same").replayed);

    let Outcome::Ok(seen) = waiting.await.expect("it waits") else { panic!("the order ended") };
    assert_eq!(seen.value.brief.ending, Ending::Sold);

    let stats = client.queue_of(id.slot()).await.ok().expect("stats");
    assert_eq!((stats.ready, stats.open), ([0, 1], 1));
    let mail = claim_one(&client, id, WorkClass::Mail).await;
    assert_eq!((mail.step, mail.ending), (Step::Notify, Ending::Sold));
    let done = client.report(id, mail.epoch, Report::Notified).await.ok().expect("done");
    assert_eq!((done.phase, done.ending), (Phase::Done, Ending::Sold));

    let stock = client.stock(&sku).or_stale().await;
    assert_eq!(stock.at().map(|at| at.stale), Some(false), "the leader answers, so nothing is stale");
    let stock = stock.ok().flatten().expect("known");
    assert_eq!((stock.balance.available, stock.balance.held, stock.balance.sold), (3, 0, 2));
    let page = client.orders_of(id.slot()).phase(Phase::Done).await.ok().expect("a page");
    assert_eq!(page.orders.iter().map(|view| view.id).collect::<Vec<_>>(), [id]);
    let told = client.explain(id).await.ok().expect("explained");
    let mut names: Vec<&str> = told.changes.iter().map(|change| change.change.kind.name()).collect();
    names.reverse();
    let story = ["InventoryReserved", "OrderPlaced", "OrderClaimed", "IntentCreated", "PaymentProcessed"];
    assert_eq!(&names[..5], story);
    assert_eq!(names.last(), Some(&"OrderNotified"));
}

#[tokio::test]
async fn nobody_waits_for_an_order_that_is_none_and_refused_ones_reserve_nothing() {
    let nodes = Nodes::start(3, 1, 0).await;
    let (client, sku) = shop(&nodes).await;
    let unknown = client.wait_for(client.mint_for(&sku), Duration::from_secs(5)).await;
    assert!(matches!(unknown, Outcome::Refused(_)), "{unknown:?}");
    let id = client.mint_for(&sku);
    let much = client.place_order(id, 100, "EUR").buyer("anna").line(&sku, 6).await;
    assert!(matches!(much.refusal(), Some(Refusal::SoldOut { .. })), "{much:?}");
    assert!(client.order(id).await.ok().expect("read").is_none());
    for bad in [client.place_order(id, 0, "EUR"), client.place_order(id, 1, "euro")] {
        assert!(matches!(bad.line(&sku, 1).await, Outcome::Refused(_)));
    }
    // An order whose buyer gives it up before anybody took it is released at once.
    let id = client.mint_for(&sku);
    assert!(client.place_order(id, 100, "EUR").buyer("anna").line(&sku, 1).await.is_ok());
    assert_eq!(client.release(id).await.ok().map(|gone| gone.status), Some(Status::Released));
    let view = client.order(id).await.ok().flatten().expect("known");
    assert_eq!((view.brief.phase, view.brief.ending), (Phase::Released, Ending::Released));
}
