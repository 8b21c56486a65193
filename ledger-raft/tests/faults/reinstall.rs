//! A replica that is reinstalled while the machine before it still works, and what its peers give
//! it.

use std::time::Duration;

use crate::common::{Cluster, G, GATED, PATIENCE, Shared, tuning};
use ledger_raft::NodeId;

/// Both would change the same state: the one before applies what openraft has queued for it long
/// after openraft's core has ended.
#[tokio::test]
async fn a_reinstall_waits_for_the_machine_before_which_applies_no_more_than_it_has_begun() {
    let mut c = Cluster::start(3, tuning()).await;
    let first = c.propose(b"first").await;
    c.agree(first.index).await;
    let leader = c.leader().await;
    let bad = leader % 3 + 1;
    let before = c.nodes[&bad].state.clone();
    let shut = before.3.clone().write_owned().await;
    let gated = c.propose(GATED).await;
    for i in 0..200u8 {
        c.propose(&[i]).await;
    }
    let last = c.propose(b"last").await;
    c.until(bad, "has the log", |s| s.committed_index >= last.index).await;

    c.nodes[&bad].group.quarantine("as a test has it".into(), 0).await;
    let fresh = Shared::default();
    let node = c.nodes[&bad].node.clone();
    let mut reinstall = Box::pin(node.reinstall(G, NodeId(leader), fresh.clone()));
    // On a sound build it cannot end before the gate opens, however long this is.
    let early = tokio::time::timeout(Duration::from_millis(700), &mut reinstall).await;
    assert!(early.is_err(), "the machine before still applies, and another one is started");
    assert_eq!(fresh.get().count, 0, "the new machine has no state while the one before works");
    drop(shut);
    let group = tokio::time::timeout(PATIENCE, reinstall).await.expect("no hang").expect("reinstalled");
    let running = c.nodes.get_mut(&bad).unwrap();
    (running.group, running.state) = (group, fresh);
    assert_eq!(before.get().last, gated, "what was queued behind is not applied any more");
    let at = c.propose(b"after").await;
    c.agree(at.index).await;
}

/// Whoever took the state of an outvoted replica would outvote the right one together with it.
#[tokio::test]
async fn a_quarantined_replica_gives_its_state_to_nobody() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    for node in c.nodes.values() {
        node.group.snapshot_now().await.expect("a snapshot");
    }
    let leader = c.leader().await;
    let (wrong, stopped) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    c.nodes[&wrong].group.quarantine("its digest differs".into(), 0).await;
    for start in ["at once", "after a restart"] {
        let taken = c.nodes[&stopped].node.reinstall(G, NodeId(wrong), Shared::default()).await;
        let refused = taken.err().unwrap_or_else(|| panic!("{start}: it took what is not to be trusted"));
        assert!(refused.to_string().contains("quarantined"), "{start}: {refused}");
        c.kill(wrong);
        c.up(wrong).await;
    }
    c.reinstall(stopped).await;
    let at = c.propose(b"after").await;
    c.reinstall(wrong).await;
    c.agree(at.index).await;
}
