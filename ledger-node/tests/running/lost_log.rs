//! A node that comes back without its log: it has no say in any group until the others have
//! repaired it.

use ledger_core::{Outcome, Settled};
use ledger_raft::Role;

use crate::common::{Cluster, PATIENCE, create, in_memory, receive};

/// The node that began all groups lost its log. Before it was damage, it began second ones, and
/// voted for them.
#[tokio::test]
async fn a_founder_without_its_log_begins_no_second_group_and_is_repaired() {
    let mut disks = Vec::new();
    let mut cluster = Cluster::start(1, |i, _, seams| disks.push(in_memory(seams, i as u64))).await;
    cluster.ask(create("shoe")).await;
    cluster.stop(1).await;
    let Outcome::Ok(Settled::Stocked { replayed: false, .. }) = cluster.ask(receive("shoe", 5, "delivery-1")).await
    else {
        panic!("not taken")
    };
    cluster.stop_all().await;
    disks[0].remove_tree(&cluster.dirs[0].path().join("wal"));

    // Node 2 lags; it asks the founder for votes of the meta group.
    cluster.restart_later(0).await;
    cluster.restart_later(1).await;
    let meta = cluster.node(0).meta_group().expect("it runs");
    let mut status = meta.watch();
    let declined = tokio::time::timeout(PATIENCE, status.wait_for(|s| s.votes_declined >= 3)).await;
    let declined = declined.expect("it is asked").expect("it runs").clone();
    assert_eq!(declined.role, Role::Stopped);
    assert!(declined.stopped.as_deref().is_some_and(|why| why.contains("all of the log is gone")), "{declined:?}");
    for i in 0..2 {
        let meta = cluster.node(i).meta_group().expect("it runs").status();
        assert_ne!(meta.role, Role::Leader, "node {}: {meta:?}", i + 1);
    }

    cluster.restart_later(2).await;
    let again = cluster.ask(receive("shoe", 5, "delivery-1")).await;
    assert!(
        matches!(again, Outcome::Ok(Settled::Stocked { replayed: true, .. })),
        "what was acknowledged is gone: {again:?}"
    );
    cluster.ask(receive("shoe", 1, "delivery-2")).await;
    let (_, leader) = cluster.leader(1).await;
    let index = leader.applied().borrow().position.index;
    let mut serves = cluster.node(0).watch_state();
    let serving = tokio::time::timeout(PATIENCE, serves.wait_for(|s| *s == ledger_node::NodeState::Serving)).await;
    serving.expect("the founder is repaired").expect("it lives");
    for i in 0..3 {
        cluster.applied(i, 1, index).await;
    }
}
