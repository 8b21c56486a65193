//! A replica that loses power while it takes a peer's snapshot: at whichever write or sync, it starts again and catches up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Cluster, G, PATIENCE, tuning};
use bytes::Bytes;
use ledger_raft::disk::{CrashPoint, SimDisk};
use ledger_raft::wal::{Wal, WalConfig, WalEntry, WalIdentity};
use ledger_raft::{NodeId, RaftTuning};

/// Entries behind the follower's own that no leader ever committed, so many that they reach past the snapshot.
const TAIL: u64 = 900;

fn quick() -> RaftTuning {
    RaftTuning {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(700),
        snapshot_every_entries: 200,
        keep_entries: 10,
        segment_bytes: 256 << 10,
        ..tuning()
    }
}

/// The head of a plain entry, as `docs/storage-format.md` has it.
fn head(term: u64, index: u64, len: usize) -> Bytes {
    let mut head = [0u8; 32];
    head[0..8].copy_from_slice(&term.to_le_bytes());
    head[8..16].copy_from_slice(&index.to_le_bytes());
    head[24] = 1;
    head[28..32].copy_from_slice(&(len as u32).to_le_bytes());
    Bytes::copy_from_slice(&head)
}

/// Appends entries of a term to a log at rest: what a leader of that term sent to nobody else.
async fn write_tail(disk: &SimDisk, dir: PathBuf, node: u64, cluster: [u8; 16], term: u64) {
    let identity = WalIdentity { cluster, incarnation: 1, node: NodeId(node) };
    let config = WalConfig { segment_bytes: quick().segment_bytes, low_space_bytes: 0, ..WalConfig::default() };
    let wal = Wal::open(Arc::new(disk.clone()), dir.join("wal"), identity, config).await.expect("the log opens");
    let log = wal.group(G);
    let last = log.state().last_index.expect("it has entries");
    let body = Bytes::from_static(b"never committed");
    let entry = |index| WalEntry { index, head: head(term, index, body.len()), data: body.clone() };
    let (done, durable) = tokio::sync::oneshot::channel();
    let entries = (last + 1..=last + TAIL).map(entry).collect();
    log.append(entries, Box::new(move |r| drop(done.send(r)))).expect("appended");
    durable.await.expect("answered").expect("durable");
    wal.close().await;
}

/// A follower far behind, with a tail that contradicts what was committed meanwhile; and the purged cluster that it comes back to.
async fn behind_with_a_tail() -> (Cluster, u64, u64) {
    let mut c = Cluster::start(3, quick()).await;
    let first = c.propose(b"first").await;
    c.agree(first.index).await;
    let old = c.leader().await;
    let behind = old % 3 + 1;
    let term = c.nodes[&old].group.status().term;
    c.kill(behind);
    let dir = PathBuf::from(format!("/{}/node{behind}", c.addrs[&NodeId(1)]));
    write_tail(&c.disks[&behind], dir, behind, c.cluster, term).await;
    // What is committed from now on is of a later term than the tail.
    let to = (1..=3).find(|id| *id != old && *id != behind).expect("the third");
    c.nodes[&old].group.transfer_leader(NodeId(to), PATIENCE).await.expect("handed over");
    for i in 0..600u32 {
        c.propose(&i.to_le_bytes()).await;
    }
    let leader = c.leader().await;
    assert!(c.nodes[&leader].group.status().term > term);
    c.nodes[&leader].group.snapshot_now().await.expect("a snapshot");
    c.propose(b"between").await;
    c.nodes[&leader].group.snapshot_now().await.expect("another");
    c.until(leader, "purged", |s| s.purged_index > 100).await;
    let last = c.propose(b"last").await;
    assert!(last.index < first.index + TAIL, "the tail reaches past the snapshot");
    (c, behind, last.index)
}

/// Runs the follower until it has caught up, stopped, or lost power; whether it caught up.
async fn run(c: &mut Cluster, id: u64, index: u64) -> bool {
    if let Err(e) = c.try_up(id).await {
        assert!(c.disks[&id].stopped(), "it does not start: {e}");
        return false;
    }
    let node = &c.nodes[&id];
    let (mut status, mut poisoned) = (node.group.watch(), node.node.wal_poisoned());
    let disk = c.disks[&id].clone();
    let ended = async {
        while !disk.stopped() {
            tokio::select! {
                _ = status.wait_for(|s| s.applied_index >= index || s.stopped.is_some()) => return,
                _ = poisoned.wait_for(Option::is_some) => return,
                // A disk without power tells nobody.
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("stuck: {:?}", node.group.status()));
    let status = node.group.status();
    assert!(status.stopped.is_none() || c.disks[&id].stopped(), "stopped on a sound disk: {:?}", status.stopped);
    status.applied_index >= index
}

/// All nodes as they were: what the follower acknowledged in an earlier try, nobody remembers. The
/// others run, and have committed an entry.
async fn all_as_before(c: &mut Cluster, before: &BTreeMap<u64, SimDisk>, behind: u64) -> u64 {
    for id in [1, 2, 3] {
        if c.nodes.contains_key(&id) {
            c.kill(id);
        }
        c.disks.insert(id, before[&id].fork());
    }
    for id in [1, 2, 3] {
        if id != behind {
            c.up(id).await;
        }
    }
    c.propose(b"led anew").await.index
}

#[tokio::test]
async fn a_crash_at_any_point_of_an_install_leaves_a_replica_that_starts_and_catches_up() {
    let (mut c, behind, last) = behind_with_a_tail().await;
    for id in [1, 2, 3] {
        if id != behind {
            c.kill(id);
        }
    }
    let before: BTreeMap<u64, SimDisk> = c.disks.iter().map(|(id, disk)| (*id, disk.fork())).collect();
    all_as_before(&mut c, &before, behind).await;
    let sound = c.disks[&behind].clone();
    assert!(run(&mut c, behind, last).await, "it installs the snapshot on a sound disk");
    assert!(c.nodes[&behind].group.status().snapshot_index > 100, "by a snapshot");
    let ops = sound.ops();
    c.kill(behind);
    for n in 1..=ops + 2 {
        eprintln!("operation {n} of {ops}");
        let last = all_as_before(&mut c, &before, behind).await;
        let disk = c.disks[&behind].clone();
        disk.stop_at(Some(CrashPoint::After(n)));
        run(&mut c, behind, last).await;
        c.kill(behind);
        assert!(run(&mut c, behind, last).await, "after a crash at operation {n} of {ops}");
        let (state, sound) = (c.nodes[&behind].state.get(), c.any().state.get());
        assert_eq!((state.count, state.hash), (sound.count, sound.hash), "after a crash at operation {n}");
        c.kill(behind);
    }
}
