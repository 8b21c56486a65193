//! Stale reads say how old they may be: on followers, too, and never less than the truth.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::time::Duration;

use common::{Cluster, PATIENCE, create, offer};
use ledger_core::Outcome;
use ledger_proto::{names, v1};
use tokio::time::{Instant, sleep};

async fn age(cluster: &Cluster, node: usize, consistency: v1::Consistency) -> Option<u64> {
    let offers = vec![names::offer_to_wire(&offer("shoe"))];
    let request = v1::GetOffersRequest { offers, consistency: consistency.into() };
    let mut client = cluster.grpc(node).await;
    let mut answered = client.get_offers(request).await.expect("answered").into_inner().offers;
    answered.pop().expect("one").as_of.expect("a position").age_ms
}

#[tokio::test]
async fn a_stale_read_says_its_age_on_every_replica_and_the_age_grows_without_a_quorum() {
    let mut cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    let (leader, replica) = cluster.leader(1).await;
    let index = replica.applied().borrow().position.index;
    for node in 0..3 {
        cluster.applied(node, 1, index).await;
        let until = Instant::now() + PATIENCE;
        // Unknown until a leader with a quorum has spoken; then about as old as its last word.
        let known = loop {
            match age(&cluster, node, v1::Consistency::Stale).await {
                Some(age) if age < 3_000 => break age,
                other => assert!(Instant::now() < until, "node {node}: {other:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert!(known < 3_000, "node {node}");
        assert_eq!(age(&cluster, node, v1::Consistency::Linearizable).await, None);
    }
    // Alone, nobody can know to be current any more.
    let follower = (leader + 1) % 3;
    for node in (0..3).filter(|&node| node != follower) {
        cluster.stop(node).await;
    }
    let (before, began) = (age(&cluster, follower, v1::Consistency::Stale).await.expect("known"), Instant::now());
    sleep(Duration::from_millis(1_500)).await;
    let passed = began.elapsed().as_millis() as u64;
    let after = age(&cluster, follower, v1::Consistency::Stale).await.expect("known");
    assert!(after >= before + passed, "{before} ms, {passed} ms later {after} ms");
}
