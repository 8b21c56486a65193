//! Replicas that differ in a running cluster: outvoted ones are replaced, and without a majority nothing is taken.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::Command;
use ledger_core::types::Units;
use ledger_node::NodeSeams;
use ledger_proto::{Cause, Reply, v1};
use tokio::time::{Instant, timeout};

use crate::common::{Cluster, PATIENCE, create, in_memory, mint, offer, receive, reserve};
use crate::through::is_held;

/// Digests are taken at every index that this divides.
const DIGEST_EVERY: u64 = 1_024;

/// Makes a node's replicas take one unit instead of those received under a reference. (Every call still has its outcome.)
fn lose(seams: &mut NodeSeams, lost: &'static str) {
    seams.sabotage = Some(Arc::new(move |_, _, entry| {
        for command in &mut entry.commands {
            if let Command::Receive { reference, units, .. } = command
                && reference.as_str() == lost
            {
                *units = Units::new(1).expect("one");
            }
        }
    }));
}

/// Fences an id until the shard's log has passed the next digest.
async fn pass_a_digest(cluster: &Cluster) {
    let (_, replica) = cluster.leader(1).await;
    let until = (replica.applied().borrow().position.index / DIGEST_EVERY + 1) * DIGEST_EVERY;
    let id = mint("ink", 1);
    while cluster.leader(1).await.1.applied().borrow().position.index <= until {
        cluster.ask(Command::Fence { id }).await;
    }
}

async fn metric(cluster: &Cluster, i: usize, name: &str) -> f64 {
    let page = cluster.get(i, "/metrics").await;
    let values = ledger_node::metrics::values(&page.text);
    *values.get(name).unwrap_or_else(|| panic!("{name} is not on the page of node {}", i + 1))
}

/// Waits until a metric of a node says so.
async fn until_metric(cluster: &Cluster, i: usize, name: &str, ok: impl Fn(f64) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let value = metric(cluster, i, name).await;
        if ok(value) {
            return;
        }
        assert!(Instant::now() < until, "{name} of node {} stays at {value}", i + 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lists products through a node again and again: an answer has the one there is, whatever happens to the replica.
async fn lists_are_never_empty(cluster: &Cluster, i: usize) {
    let mut client = cluster.grpc(i).await;
    loop {
        for consistency in [v1::Consistency::Linearizable, v1::Consistency::Stale] {
            let request = v1::ListProductsRequest { consistency: consistency.into(), ..Default::default() };
            if let Ok(answer) = client.list_products(request).await {
                assert_eq!(answer.into_inner().products.len(), 1, "{consistency:?}");
            }
        }
        // Others need the processor, too.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn status(cluster: &Cluster, i: usize) -> v1::ShardStatus {
    let status = cluster.admin(i).await.node_status(v1::NodeStatusRequest {}).await.expect("answered");
    status.into_inner().shards.remove(0)
}

#[tokio::test]
async fn a_leader_outside_the_majority_stops_and_is_reinstalled() {
    let cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
        // Only the one that is to lead is broken.
        if i == 0 {
            lose(seams, "lost");
        }
    })
    .await;
    cluster.ask(create("ink")).await;
    let (leader, replica) = cluster.leader(1).await;
    if leader != 0 {
        replica.group().transfer_leader(ledger_raft::NodeId(1), PATIENCE).await.expect("handed over");
        let first = cluster.node(0).shard(1).expect("a replica").group();
        let led = async { first.watch().wait_for(|s| s.clock_sure).await.map(drop) };
        timeout(PATIENCE, led).await.expect("it leads").expect("it lives");
    }
    assert_eq!(metric(&cluster, 0, "holdfast_replicas_reinstalled_total").await, 0.0);
    cluster.ask(receive("ink", 5, "lost")).await;
    let broken = cluster.node(0).shard(1).expect("a replica");
    let available = |l: &ledger_core::Ledger| l.offer(&offer("ink")).map_or(0, |o| o.balance.available);
    pass_a_digest(&cluster).await;
    let reinstalled = until_metric(&cluster, 0, "holdfast_replicas_reinstalled_total", |n| n >= 1.0);
    tokio::select! {
        () = reinstalled => {}
        never = lists_are_never_empty(&cluster, 0) => never,
    }
    let mut outvoted = 0.0;
    for i in 0..3 {
        outvoted += metric(&cluster, i, "holdfast_replicas_outvoted_total").await;
        assert_eq!(metric(&cluster, i, "holdfast_digest_no_majority_total").await, 0.0, "node {}", i + 1);
    }
    assert!(outvoted >= 1.0);

    // It has what the others have, takes part again, and says that it is well.
    let (_, now) = cluster.leader(1).await;
    let index = now.applied().borrow().position.index;
    cluster.applied(0, 1, index).await;
    assert_eq!(broken.with_ledger(available), 5);
    let healed = status(&cluster, 0).await;
    assert_eq!((healed.stopped.as_str(), healed.diverged), ("", false), "{healed:?}");
    until_metric(&cluster, 0, "holdfast_shard_diverged{shard=\"1\"}", |n| n == 0.0).await;
    let reply = cluster.submit_until_settled(0, &reserve("ink", mint("ink", 2), 60_000)).await;
    assert!(is_held(&reply), "{reply:?}");
    for i in 0..3 {
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, [], "node {}", i + 1);
    }
}

#[tokio::test]
async fn with_no_majority_the_shard_refuses_writes_and_says_so() {
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
        // Three replicas, three states.
        match i {
            0 => lose(seams, "one"),
            1 => lose(seams, "two"),
            _ => {}
        }
    })
    .await;
    cluster.ask(create("ink")).await;
    for reference in ["one", "two", "three"] {
        cluster.ask(receive("ink", 5, reference)).await;
    }
    // As far as the next digest every write is taken: nobody knows yet.
    // A thousand entries, one after the other.
    let until = Instant::now() + 4 * PATIENCE;
    let mut told = None;
    while told.is_none() {
        let (leader, _) = cluster.leader(1).await;
        match cluster.submit(leader, &Command::Fence { id: mint("ink", 1) }, 1_000).await {
            Reply::NotNow(why) if why.cause == Cause::Diverged => told = Some(why),
            other => assert!(Instant::now() < until, "writes are still answered: {other:?}"),
        }
    }
    assert!(told.is_some_and(|why| why.retry_ms > 0));
    // Of every verb, through every node.
    for i in 0..3 {
        for command in
            [reserve("ink", mint("ink", 2), 60_000), receive("ink", 1, "four"), Command::Release { id: mint("ink", 3) }]
        {
            let reply = cluster.submit(i, &command, 1_000).await;
            assert!(matches!(&reply, Reply::NotNow(why) if why.cause == Cause::Diverged), "node {}: {reply:?}", i + 1);
        }
    }
    let (leader, _) = cluster.leader(1).await;
    let said = status(&cluster, leader).await;
    assert!(said.diverged && said.stopped.is_empty(), "{said:?}");
    assert_eq!(metric(&cluster, leader, "holdfast_shard_diverged{shard=\"1\"}").await, 1.0);
    assert!(metric(&cluster, leader, "holdfast_digest_no_majority_total").await >= 1.0);
    assert_eq!(
        metric(&cluster, leader, "holdfast_replicas_outvoted_total").await,
        0.0,
        "nobody is blamed without a majority"
    );

    // Followers find it, too, so that another leader does not begin to take them.
    for i in 0..3 {
        until_metric(&cluster, i, "holdfast_shard_diverged{shard=\"1\"}", |n| n == 1.0).await;
    }
    cluster.stop(leader).await;
    let (next, _) = cluster.leader(1).await;
    let until = Instant::now() + PATIENCE;
    loop {
        match cluster.submit(next, &receive("ink", 1, "five"), 1_000).await {
            Reply::NotNow(why) if why.cause == Cause::Diverged => return,
            // It has only just won.
            Reply::NotNow(_) => assert!(Instant::now() < until, "it says something else"),
            other => panic!("the next leader takes writes: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stopped_replica_answers_no_reads_not_even_stale_ones() {
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
    })
    .await;
    cluster.ask(create("ink")).await;
    cluster.ask(receive("ink", 5, "r1")).await;
    let (leader, replica) = cluster.leader(1).await;
    let (alone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.applied(alone, 1, replica.applied().borrow().position.index).await;
    let stale = || v1::GetProductRequest { sku: "ink".to_owned(), consistency: v1::Consistency::Stale.into() };
    assert!(cluster.grpc(alone).await.get_product(stale()).await.expect("read").into_inner().product.is_some());
    let mut watch = cluster.grpc(alone).await.watch(v1::WatchRequest::default()).await.expect("watching").into_inner();
    // With the others gone there is nobody to reinstall it from, so that it stays stopped.
    cluster.stop(other).await;
    cluster.stop(leader).await;
    cluster.node(alone).shard(1).expect("a replica").group().quarantine("as a test has it".to_owned(), 0).await;
    let snapshot = cluster.admin(alone).await.snapshot(v1::SnapshotRequest { shard: 1 }).await;
    let not_now = snapshot.expect_err("its state may be wrong");
    assert_eq!(not_now.code(), tonic::Code::Unavailable, "{not_now:?}");
    let told = cluster.grpc(alone).await.get_product(stale()).await.expect_err("its state may be wrong");
    let why = ledger_proto::status::reply(&told);
    assert!(matches!(&why, Some(Reply::NotNow(why)) if why.cause == Cause::NotServing), "{told:?}");
    let said = status(&cluster, alone).await;
    assert!(said.stopped.contains("as a test has it") && said.role == "stopped", "{said:?}");
    let ready = cluster.get(alone, "/readyz?verbose").await;
    assert!(ready.status == 503 && ready.text.contains("as a test has it"), "{}", ready.text);
    assert_eq!(metric(&cluster, alone, "holdfast_shard_stopped{shard=\"1\"}").await, 1.0);
    // A watch does not wait there for what happens elsewhere.
    let ended = async {
        while watch.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let ended = timeout(PATIENCE, ended).await.expect("in time").expect_err("by name");
    assert!(matches!(ledger_proto::status::reply(&ended), Some(Reply::NotNow(_))), "{ended:?}");
}
