//! A replica whose consensus core ends: it says so, everybody who waits for it is answered, and a peer repairs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Cluster, DEADLY, tuning};
use bytes::Bytes;
use futures::StreamExt;
use ledger_raft::limits::{ENTRY_BYTES_MAX, SEGMENT_BYTES_FLOOR};
use ledger_raft::{Group, ProposeError, RaftTuning, ReadError, Role};
use tokio::time::timeout;

/// Within this time a replica whose core ended has to say so; the cluster needs two elections at most.
const SOON: Duration = Duration::from_secs(20);

/// Proposes through a group, several at a time, until told to stop or the group has stopped; whether every proposal had an outcome.
fn load(group: &Group, over: &Arc<AtomicBool>) -> tokio::task::JoinHandle<bool> {
    let (group, over) = (group.clone(), over.clone());
    tokio::spawn(async move {
        let proposals = futures::stream::iter(0u64..)
            .map(|i| timeout(SOON, group.propose(Bytes::from(i.to_le_bytes().to_vec()))))
            .buffered(16)
            .take_while(|answer| {
                let ended = matches!(answer, Ok(Err(ProposeError::Stopped { .. })));
                futures::future::ready(!ended && !over.load(Ordering::Relaxed))
            });
        proposals.all(|answer| futures::future::ready(answer.is_ok())).await
    })
}

#[tokio::test]
async fn a_follower_whose_core_ends_under_load_is_stopped_and_a_peer_repairs_it() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"first").await;
    let leader = c.leader().await;
    let dying = leader % 3 + 1;
    c.nodes[&dying].state.1.store(true, Ordering::Relaxed);
    let over = Arc::new(AtomicBool::new(false));
    let load = load(&c.nodes[&leader].group, &over);
    let at = c.nodes[&leader].group.propose(Bytes::from_static(DEADLY)).await.expect("two of three live").at;

    let mut status = c.nodes[&dying].group.watch();
    let stopped = timeout(SOON, status.wait_for(|s| s.role == Role::Stopped)).await;
    let stopped = stopped.unwrap_or_else(|_| panic!("not stopped: {:?}", c.nodes[&dying].group.status()));
    let why = stopped.expect("the group lives").stopped.clone().expect("a reason");
    assert!(why.contains("core ended"), "{why}");
    let now = c.nodes[&dying].group.status();
    assert_eq!((now.role, now.stopped, now.clock_sure), (Role::Stopped, Some(why), false));
    let refused = c.nodes[&dying].group.propose(Bytes::new()).await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");
    let read = c.nodes[&dying].group.read_index(SOON).await;
    assert!(matches!(read, Err(ReadError::Stopped { .. })), "{read:?}");

    over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap(), "the others go on");
    c.reinstall(dying).await;
    let last = c.propose(b"last").await;
    assert!(last > at);
    c.agree(last.index).await;
}

#[tokio::test]
async fn a_leader_whose_core_ends_answers_all_that_waits_and_another_leads() {
    let mut c = Cluster::start(3, tuning()).await;
    c.propose(b"first").await;
    let dying = c.leader().await;
    c.nodes[&dying].state.1.store(true, Ordering::Relaxed);
    let over = Arc::new(AtomicBool::new(false));
    let load = load(&c.nodes[&dying].group, &over);
    let group = c.nodes[&dying].group.clone();
    let died = timeout(SOON, group.propose(Bytes::from_static(DEADLY))).await.expect("an answer");
    assert!(matches!(died, Err(ProposeError::Unknown { .. })), "it may well be in the log: {died:?}");
    let mut status = group.watch();
    timeout(SOON, status.wait_for(|s| s.role == Role::Stopped)).await.expect("stopped in time").expect("it lives");
    over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap(), "every proposal has an outcome");

    let next = timeout(SOON, c.leader()).await.expect("another leads");
    assert_ne!(next, dying);
    c.reinstall(dying).await;
    let last = c.propose(b"last").await;
    c.agree(last.index).await;
}

#[tokio::test]
async fn an_entry_above_the_log_s_bound_is_refused_and_the_group_goes_on() {
    let small = RaftTuning { segment_bytes: 64 << 10, ..tuning() };
    let c = Cluster::start(3, small).await;
    c.propose(b"first").await;
    let leader = c.leader().await;
    let group = &c.nodes[&leader].group;
    for bytes in [(16 << 10) + 1, 20_000, 5 << 20] {
        let refused = timeout(SOON, group.propose(Bytes::from(vec![1; bytes]))).await.expect("an answer");
        let definite = !matches!(refused, Ok(_) | Err(ProposeError::Unknown { .. } | ProposeError::Stopped { .. }));
        assert!(definite, "{bytes} bytes: {refused:?}");
    }
    let last = timeout(SOON, c.propose(&[2; 15 << 10])).await.expect("the group goes on");
    assert_eq!(c.agree(last.index).await.count, 2);
}

/// Members need not agree on the size of their segments: what the smallest takes, all take.
#[tokio::test]
async fn the_largest_entry_fits_into_the_smallest_segment() {
    let c = Cluster::start(1, RaftTuning { segment_bytes: SEGMENT_BYTES_FLOOR, ..tuning() }).await;
    let leader = c.leader().await;
    let group = &c.nodes[&leader].group;
    assert_eq!(group.entry_bytes_max(), ENTRY_BYTES_MAX);
    for _ in 0..3 {
        group.propose(Bytes::from(vec![3; ENTRY_BYTES_MAX])).await.expect("at the bound");
    }
    let refused = group.propose(Bytes::from(vec![3; ENTRY_BYTES_MAX + 1])).await.expect_err("above it");
    assert_eq!(refused, ProposeError::TooLarge { bytes: ENTRY_BYTES_MAX + 1, bytes_max: ENTRY_BYTES_MAX });
}
