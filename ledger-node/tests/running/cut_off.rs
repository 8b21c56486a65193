//! A replica that is cut off keeps no watch: nothing happens there, whatever happens elsewhere.

use std::sync::Arc;

use ledger_proto::v1;
use tokio::time::timeout;

use crate::common::net::{Cut, CutNet};
use crate::common::{Cluster, PATIENCE, create, in_memory};

#[tokio::test]
async fn a_watch_at_a_replica_that_is_cut_off_ends_after_what_it_has() {
    let mut nets = Vec::new();
    let cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
        let net = CutNet::default();
        seams.raft.net = Arc::new(net.clone());
        nets.push(net);
    })
    .await;
    cluster.ask(create("shoe")).await;
    for i in 0..3 {
        cluster.ready(i).await;
    }
    let (leader, _) = cluster.leader(1).await;
    let alone = (leader + 1) % 3;
    nets[alone].cut(Cut::All);
    let watching = async {
        let mut frames = cluster.grpc(alone).await.watch(v1::WatchRequest::default()).await?.into_inner();
        let mut changes = 0;
        loop {
            match frames.message().await {
                Ok(Some(frame)) => changes += frame.changes.len(),
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => return Ok::<_, tonic::Status>((changes, status)),
            }
        }
    };
    let (changes, why) = timeout(PATIENCE, watching).await.expect("it ends").expect("it begins");
    assert!(changes > 0, "what it has was delivered");
    assert!(why.message().contains("shard 1 here was last current"), "{why:?}");
}
