//! Five nodes, three replicas a shard: a client that knows one node only, whichever, does everything with every product.

use std::time::Duration;

use client_sdk::{Client, IdView, Outcome, Policy, Sku, Status};

use crate::nodes::Nodes;

/// Nothing here takes that long; it is the client that comes back after each *not now*.
const DEADLINE: Duration = Duration::from_secs(20);

async fn client(nodes: &Nodes, i: usize) -> Client {
    Client::builder().endpoints([nodes.address(i)]).deadline(DEADLINE).connect().await.expect("one node is enough")
}

#[tokio::test]
async fn one_endpoint_without_a_replica_is_enough() {
    let nodes = Nodes::start(5, 5, 3).await;
    let sku = Sku::new("shoe").expect("a sku");
    let first = client(&nodes, nodes.without(&sku)[0]).await;
    first.create_product(&sku, Policy::default()).await.into_result().expect("created");
    first.receive(&sku, 100, "delivery").await.into_result().expect("received");
    for i in 0..5 {
        let client = client(&nodes, i).await;
        let id = client.mint_for(&sku);
        let held = client.reserve(id, "anna").line(&sku, 2).await.into_result().expect("held");
        assert_eq!((held.status, held.replayed), (Status::Held, false), "node {}", i + 1);
        let confirmed = client.confirm(id).await.into_result().expect("confirmed");
        assert_eq!(confirmed.status, Status::Confirmed, "node {}", i + 1);
        // Linearizable: what was acknowledged to this client is there, through whichever node it reads.
        let stock = client.stock(&sku).await.into_result().expect("read").expect("known");
        assert_eq!((stock.balance.available, stock.balance.sold), (98 - 2 * i as u64, 2 * (i as u64 + 1)));
        let known = client.reservation(id).await.into_result().expect("read");
        assert!(matches!(known, IdView::Reservation(r) if r.status == Status::Confirmed), "node {}", i + 1);
        assert!(client.product(&sku).await.into_result().expect("read").is_some());
        let listed = client.products().await.into_result().expect("listed");
        assert_eq!(listed.items.len(), 1, "no node keeps all shards, and each lists all products");
        client.close().await;
    }
    first.close().await;
}

#[tokio::test]
async fn a_leader_that_leaves_is_ridden_out_from_a_node_without_a_replica() {
    let mut nodes = Nodes::start(5, 5, 3).await;
    let sku = Sku::new("cup").expect("a sku");
    let client = client(&nodes, nodes.without(&sku)[0]).await;
    client.create_product(&sku, Policy::default()).await.into_result().expect("created");
    client.receive(&sku, 1_000, "delivery").await.into_result().expect("received");
    let buyer = |client: Client, sku: Sku| async move {
        let mut held = 0;
        for _ in 0..40 {
            let id = client.mint_for(&sku);
            match client.reserve(id, "ben").line(&sku, 1).await {
                Outcome::Ok(_) => held += 1,
                // In flight as the leader left; the same id settles it.
                Outcome::Unknown(_) => {
                    let resolved = client.resolve(id).await.into_result().expect("resolved");
                    held += u64::from(matches!(resolved, client_sdk::Resolved::Reservation(_)));
                }
                other => panic!("{other:?}"),
            }
        }
        held
    };
    let buyers: Vec<_> = (0..5).map(|_| tokio::spawn(buyer(client.clone(), sku.clone()))).collect();
    let leader = nodes.leader(&sku).expect("it is led: it just answered");
    nodes.stop(leader).await;
    let mut held = 0;
    for buyer in buyers {
        held += tokio::time::timeout(Duration::from_secs(60), buyer).await.expect("in time").expect("no panic");
    }
    assert_eq!(held, 200, "every reserve was taken, before or after");
    let stock = client.stock(&sku).await.into_result().expect("read").expect("known");
    assert_eq!((stock.balance.available, stock.balance.held), (800, 200));
    client.close().await;
}
