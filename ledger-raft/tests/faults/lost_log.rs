//! A log that turns out to be unreadable only when the replica starts on it, or runs: it stops, and
//! a peer repairs it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::{Cluster, G, tuning};
use bytes::Bytes;
use ledger_raft::wal::{Wal, WalConfig, WalIdentity};
use ledger_raft::{NodeId, RaftTuning, Role};

#[tokio::test]
async fn a_vote_that_cannot_be_decoded_is_damage_of_the_log() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let bad = c.leader().await % 3 + 1;
    c.kill(bad);
    let dir = PathBuf::from(format!("/{}/node{bad}/wal", c.addrs[&NodeId(1)]));
    let identity = WalIdentity { cluster: c.cluster, incarnation: 1, node: NodeId(bad) };
    let config = WalConfig { segment_bytes: c.tuning.segment_bytes, low_space_bytes: 0, ..WalConfig::default() };
    let wal = Wal::open(Arc::new(c.disks[&bad].clone()), dir, identity, config).await.expect("the log opens");
    wal.group(G).save_vote(Bytes::from_static(b"no vote")).await.expect("saved");
    wal.close().await;

    c.up(bad).await;
    let status = c.nodes[&bad].group.status();
    assert_eq!(status.role, Role::Stopped);
    let why = status.stopped.expect("a reason");
    assert!(why.contains("its log is damaged") && why.contains("vote"), "{why}");
    let at = c.propose(b"meanwhile").await;
    c.reinstall(bad).await;
    c.agree(at.index).await;
}

#[tokio::test]
async fn an_entry_that_rots_while_the_replica_runs_stops_it() {
    let mut c = Cluster::start(3, RaftTuning { tail_cache_bytes: 1, ..tuning() }).await;
    let mut at = c.propose(b"first").await;
    for i in 0..100u8 {
        at = c.propose(&[i; 100]).await;
    }
    c.agree(at.index).await;
    let bad = c.leader().await % 3 + 1;
    let disk = &c.disks[&bad];
    let holds = |file: &PathBuf| {
        let content = disk.content(file)?;
        Some((file.clone(), content.windows(100).position(|bytes| bytes == [50; 100])?))
    };
    let files = disk.files().into_iter().filter(|file| file.to_string_lossy().contains("/wal/"));
    let (file, place) = files.collect::<Vec<_>>().iter().find_map(holds).expect("a log file holds the entry");
    disk.flip_bit(&file, place as u64 + 40, 3).expect("flipped");

    c.nodes[&bad].group.read_entries(1, at.index, usize::MAX).await.expect_err("it is rotten");
    let status = c.until(bad, "stops", |s| s.stopped.is_some()).await;
    assert!(status.stopped.as_deref().is_some_and(|why| why.contains("its log is damaged")), "{status:?}");
    let at = c.propose(b"meanwhile").await;
    c.reinstall(bad).await;
    c.agree(at.index).await;
}
