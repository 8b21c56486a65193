//! Five nodes, three replicas a shard: most nodes keep no replica of a product's shard, and every one serves it all the same.

use std::time::Duration;

use std::collections::BTreeSet;

use ledger_core::types::Slot;
use ledger_proto::{Cause, Reply, v1};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::common::{Cluster, PATIENCE, Shape, create, in_memory, mint, receive, reserve, sku};
use crate::through::is_held;

const FIVE: Shape = Shape { nodes: 5, shards: 5, replicas: 3 };

/// A cluster with one product in stock; its shard, and the places of the nodes with and without a replica of it.
async fn stocked(units: i64) -> (Cluster, u32, Vec<usize>, Vec<usize>) {
    let cluster = Cluster::of(FIVE, |i, _, seams| drop(in_memory(seams, i as u64))).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", units, "r1")).await;
    let placement = cluster.node(0).placement().expect("placed");
    let shard = cluster.node(0).table().shard_id_for_slot(Slot::of(&sku("shoe"))).expect("owned");
    let replicas = &placement.shards[shard as usize - 1].replicas;
    let (with, without) = (0..5).partition(|i| replicas.contains(&(*i as u64 + 1)));
    (cluster, shard, with, without)
}

#[tokio::test]
async fn replicas_are_on_three_of_five_nodes_and_every_node_knows_all_shards() {
    let (cluster, shard, with, without) = stocked(1).await;
    assert_eq!((with.len(), without.len()), (3, 2));
    for i in 0..5 {
        assert_eq!(cluster.node(i).shard(shard).is_some(), with.contains(&i), "node {}", i + 1);
        assert_eq!(cluster.node(i).shards().len(), 3, "node {}: five shards of three over five nodes", i + 1);
        let routing = cluster.node(i).routing();
        assert_eq!((routing.shards.len(), routing.nodes.len()), (5, 5), "node {}", i + 1);
    }
}

#[tokio::test]
async fn writes_through_every_node_are_decided_once_and_read_back_at_once() {
    let (cluster, _, with, without) = stocked(20).await;
    for n in 0..10 {
        let through = n % 5;
        let command = reserve("shoe", mint("shoe", n as u64), 60_000);
        let reply = cluster.submit_until_settled(through, &command).await;
        assert!(is_held(&reply), "through node {}: {reply:?}", through + 1);
        // Acknowledged, so that a linearizable read through any other node sees it, or says that it may not answer.
        for &i in &with {
            match cluster.read(i, "shoe").await {
                Ok(seen) => assert_eq!(seen.balance.held, n as u64 + 1, "node {} read an older state", i + 1),
                Err(why) => assert_eq!(why.cause, Cause::NotLeader, "node {}: {why:?}", i + 1),
            }
        }
        for &i in &without {
            let why = cluster.read(i, "shoe").await.expect_err("it has nothing to read from");
            assert_eq!(why.cause, Cause::NotLeader, "node {}: {why:?}", i + 1);
        }
    }
    // The same id through all five: one effect.
    let command = reserve("shoe", mint("shoe", 100), 60_000);
    for i in 0..5 {
        let reply = cluster.submit_until_settled(i, &command).await;
        assert!(is_held(&reply), "through node {}: {reply:?}", i + 1);
    }
    assert_eq!(cluster.read(with[0], "shoe").await.expect("a replica").balance.held, 11);
}

#[tokio::test]
async fn a_node_without_a_replica_names_the_leader_of_the_moment() {
    let (mut cluster, shard, _, without) = stocked(5).await;
    for round in 0..2 {
        let (leader, _) = cluster.leader(shard).await;
        let address = cluster.client_addr(leader);
        for &i in &without {
            let until = Instant::now() + PATIENCE;
            loop {
                let why = cluster.read(i, "shoe").await.expect_err("no replica here");
                assert_eq!(why.cause, Cause::NotLeader, "{why:?}");
                if why.leader.as_ref() == Some(&address) {
                    break;
                }
                assert!(Instant::now() < until, "node {} names {:?}, {address} leads", i + 1, why.leader);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let id = mint("shoe", 10 * round + i as u64);
            let reply = cluster.submit_until_settled(i, &reserve("shoe", id, 60_000)).await;
            assert!(is_held(&reply), "through node {}: {reply:?}", i + 1);
        }
        if round == 0 {
            cluster.stop(leader).await;
        }
    }
}

#[tokio::test]
async fn with_three_of_five_dead_a_reserve_names_who_is_missing() {
    let (mut cluster, shard, with, without) = stocked(5).await;
    let dead = [with[0], with[1], without[0]];
    for i in dead {
        cluster.stop(i).await;
    }
    for (n, through) in [with[2], without[1]].into_iter().enumerate() {
        let command = reserve("shoe", mint("shoe", n as u64), 60_000);
        let until = Instant::now() + PATIENCE;
        let why = loop {
            match cluster.submit(through, &command, 2_000).await {
                Reply::NotNow(why) if why.cause == Cause::NoQuorum => break why,
                early @ (Reply::NotNow(_) | Reply::Unknown(_)) => {
                    assert!(Instant::now() < until, "through node {}: still {early:?}", through + 1);
                }
                other => panic!("through node {}: {other:?}", through + 1),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(why.message.starts_with(&format!("shard {shard} has no quorum (for ")), "{why:?}");
        for missing in &with[..2] {
            assert!(why.message.contains(&format!("node {} ", missing + 1)), "node {}: {why:?}", missing + 1);
        }
        assert_eq!((why.leader, why.retry_ms >= 100), (None, true), "nobody leads, and there is no hurry");
        // A read says the same.
        let why = cluster.read(through, "shoe").await.expect_err("no quorum confirms it");
        assert_eq!(why.cause, Cause::NoQuorum, "{why:?}");
        let body = json!({"lines": [{"sku": "shoe", "quantity": 1}], "hold_ms": 60_000});
        let key = format!("idempotency-key: {}", mint("shoe", 10 + n as u64));
        let answer = cluster.http(through, "POST", "/v1/reservations", &[&key], &body.to_string()).await;
        assert_eq!((answer.status, answer.problem()), (503, "no-quorum".to_owned()), "{answer:?}");
    }
}

#[tokio::test]
async fn http_through_a_node_without_a_replica_writes_and_says_where_to_read() {
    let (cluster, shard, _, without) = stocked(5).await;
    let body = json!({"lines": [{"sku": "shoe", "quantity": 1}], "hold_ms": 60_000});
    let key = format!("idempotency-key: {}", mint("shoe", 1));
    let (stranger, until) = (without[0], Instant::now() + PATIENCE);
    let held = loop {
        let answer = cluster.http(stranger, "POST", "/v1/reservations", &[&key], &body.to_string()).await;
        if answer.status != 503 {
            break answer;
        }
        assert!(answer.headers.contains_key("retry-after") && Instant::now() < until, "{answer:?}");
    };
    assert!(matches!(held.status, 200 | 201), "{held:?}");
    let away = cluster.get(stranger, "/v1/products/shoe").await;
    assert_eq!((away.status, away.problem()), (503, "not-leader".to_owned()), "{away:?}");
    assert!(away.headers.contains_key("retry-after"), "{away:?}");
    let (leader, _) = timeout(PATIENCE, cluster.leader(shard)).await.expect("led");
    let there = cluster.get(leader, "/v1/products/shoe").await;
    assert_eq!(there.json()["offers"][0]["balance"]["held"], 1, "{there:?}");
}

/// Names of products, enough for every shard to have some.
fn names() -> Vec<String> {
    (0..40).map(|n| format!("product-{n:02}")).collect()
}

#[tokio::test]
async fn every_node_lists_the_products_and_sales_of_all_shards() {
    let (cluster, ..) = stocked(1).await;
    for name in names() {
        cluster.ask(create(&name)).await;
    }
    let shards: BTreeSet<_> =
        names().iter().map(|name| cluster.node(0).table().shard_id_for_slot(Slot::of(&sku(name)))).collect();
    assert_eq!(shards.len(), 5, "the products are in all shards");
    let expected = [names(), vec!["shoe".to_owned()]].concat();
    for i in 0..5 {
        let mut client = cluster.grpc(i).await;
        let (mut listed, mut after, until) = (Vec::new(), String::new(), Instant::now() + PATIENCE);
        loop {
            let request = v1::ListProductsRequest { after: after.clone(), max: 7, ..Default::default() };
            match client.list_products(request).await {
                Ok(page) => {
                    let page = page.into_inner();
                    assert!(page.products.len() <= 7);
                    listed.extend(page.products.into_iter().map(|product| product.sku));
                    after = page.next;
                }
                // Typed, and soon over: the node does not know each leader yet.
                Err(told) => {
                    assert!(ledger_proto::status::reply(&told).is_some() && Instant::now() < until, "{told:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
            if after.is_empty() {
                break;
            }
        }
        assert_eq!(listed, expected, "through node {}", i + 1);
        let sales = client.list_sales(v1::ListSalesRequest::default()).await.expect("answered").into_inner();
        assert_eq!((sales.offers.len(), sales.next.as_str()), (0, ""), "through node {}", i + 1);
    }
}

#[tokio::test]
async fn a_watch_through_any_node_tells_every_change_of_all_shards_once() {
    let (cluster, ..) = stocked(1).await;
    let mut expected: BTreeSet<String> = BTreeSet::from(["shoe".to_owned()]);
    let mut told: Vec<String> = Vec::new();
    let mut cursor = bytes::Bytes::new();
    // Some changes at a time, each time through the next node, from the last cursor on.
    for (i, some) in names().chunks(8).enumerate() {
        for name in some {
            cluster.ask(create(name)).await;
            expected.insert(name.clone());
        }
        let until = Instant::now() + PATIENCE;
        while told.len() < expected.len() {
            let request = v1::WatchRequest { cursor: cursor.clone(), ..Default::default() };
            let watching = async {
                let mut frames = cluster.grpc(i).await.watch(request).await?.into_inner();
                while told.len() < expected.len()
                    && let Some(frame) = frames.message().await?
                {
                    let created = frame.changes.into_iter().filter(|change| change.name == "ProductCreated");
                    let created = created.map(|change| change.offer.expect("of a product").sku);
                    told.extend(created);
                    cursor = frame.cursor;
                }
                Ok::<_, tonic::Status>(())
            };
            if let Err(why) = timeout(PATIENCE, watching).await.expect("in time") {
                assert!(ledger_proto::status::reply(&why).is_some() && Instant::now() < until, "{why:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert_eq!(told.len(), expected.len(), "each once: {told:?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn a_watch_from_now_through_a_node_tells_what_comes_and_how_current_each_shard_is() {
    let (cluster, _, _, without) = stocked(1).await;
    let until = Instant::now() + PATIENCE;
    let mut frames = loop {
        let request = v1::WatchRequest { from_now: true, ..Default::default() };
        match cluster.grpc(without[0]).await.watch(request).await {
            Ok(frames) => break frames.into_inner(),
            Err(why) => assert!(ledger_proto::status::reply(&why).is_some() && Instant::now() < until, "{why:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let begins = timeout(PATIENCE, frames.message()).await.expect("in time").expect("it goes on").expect("a frame");
    assert!(begins.changes.is_empty() && !begins.cursor.is_empty(), "it says first where it begins: {begins:?}");
    let idle = timeout(PATIENCE, frames.message()).await.expect("in time").expect("it goes on").expect("a frame");
    assert!(idle.changes.is_empty(), "what was before now is not told: {:?}", idle.changes);
    assert_eq!(idle.shard_time_ms.len(), 5, "of every shard");
    cluster.ask(create("cup")).await;
    let told = timeout(PATIENCE, async {
        loop {
            let frame = frames.message().await.expect("it goes on").expect("a frame");
            if !frame.changes.is_empty() {
                return frame.changes;
            }
        }
    });
    assert_eq!(told.await.expect("in time").len(), 1);
}
