//! Snapshots and purges: on time, one group without another, and only behind what can be read.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_raft::disk::{RealDisk, SimDisk};
use ledger_raft::seam::{Seams, WallClock};
use ledger_raft::wal::WalIdentity;
use ledger_raft::{
    ApplyOutcome, Group, GroupId, LogPosition, NodeId, ProposeError, RaftNode, RaftNodeConfig, RaftTuning, Reply, Role,
    SnapshotView, StateMachine,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::common::{Cluster, PATIENCE, Shared, UNREADABLE, disk_of, echo, identity, tuning};

/// A node without peers.
async fn alone(seams: Seams, dir: PathBuf, tuning: RaftTuning) -> RaftNode {
    let owner = WalIdentity { cluster: [7; 16], incarnation: 1, node: NodeId(1) };
    let config = RaftNodeConfig {
        node: owner.node,
        cluster: owner.cluster,
        incarnation: owner.incarnation,
        identity: identity(disk_of(owner.node), seams.disk.clone(), &dir, owner).expect("an identity file"),
        peers: BTreeMap::new(),
        peers_from: Arc::new(|_| Ok(())),
        dir,
        peer_listen: "127.0.0.1:0".into(),
        tuning,
    };
    RaftNode::open(config, seams, echo()).await.expect("open")
}

async fn lead(node: &RaftNode, id: GroupId, machine: impl StateMachine) -> Group {
    let founders = BTreeMap::from([(NodeId(1), node.peer_addr().to_string())]);
    let group = node.start_group(id, &founders, machine).await.expect("start");
    group.initialize(founders).await.expect("members");
    let mut status = group.watch();
    let led = status.wait_for(|s| s.role == Role::Leader && s.clock_sure);
    tokio::time::timeout(PATIENCE, led).await.expect("in time").expect("runs");
    group
}

async fn propose(group: &Group, count: u64, bytes: usize) {
    for _ in 0..count {
        while let Err(e) = group.propose(Bytes::from(vec![b'.'; bytes])).await {
            assert!(matches!(e, ProposeError::ClockUnsure), "{e}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn whoever_holds_the_purge_back_holds_no_more_bytes_than_are_kept_for_a_slow_follower() {
    let dir = tempfile::tempdir().expect("a directory");
    let tuning =
        RaftTuning { snapshot_every_entries: 50, snapshot_every_bytes: 128 << 10, keep_entries: 0, ..tuning() };
    let node = alone(Seams::with_disk(Arc::new(RealDisk::new())), dir.path().to_owned(), tuning).await;
    let group = lead(&node, GroupId(1), Shared::default()).await;
    group.hold_purge_above(0);
    propose(&group, 60, 1_000).await;
    let mut status = group.watch();
    let snapshot = status.wait_for(|s| s.snapshot_index >= 50);
    let held = tokio::time::timeout(PATIENCE, snapshot).await.expect("in time").expect("runs").purged_index;
    assert_eq!(held, 0, "it is held back");
    propose(&group, 300, 1_000).await;
    let purged = status.wait_for(|s| s.purged_index > 0);
    let now = tokio::time::timeout(PATIENCE, purged).await.expect("purged in time").expect("runs").clone();
    assert!(now.last_log_index - now.purged_index >= 100, "what is within the bound stays: {now:?}");
    node.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_purges_nothing_and_raises_an_alarm() {
    let tuning = RaftTuning { snapshot_every_entries: 20, keep_entries: 0, ..tuning() };
    let mut cluster = Cluster::start(1, tuning).await;
    for _ in 0..60 {
        cluster.propose(b"fine").await;
    }
    let good = cluster.until(1, "a snapshot", |s| s.snapshot_index > 0 && s.purged_index > 0).await;
    cluster.propose(UNREADABLE).await;
    for _ in 0..60 {
        cluster.propose(b"more").await;
    }
    let failed = cluster.until(1, "an alarm", |s| s.snapshot_failure.is_some()).await;
    let why = failed.snapshot_failure.expect("a reason");
    assert!(why.contains("does not read back") && why.contains("the tally says so"), "{why}");
    let at = cluster.propose(b"and more").await;
    let now = cluster.nodes[&1].group.status();
    assert!(now.snapshot_index >= good.snapshot_index && now.snapshot_index < 63, "{now:?}");
    assert!(now.purged_index <= now.snapshot_index, "{now:?}");
    assert!(cluster.nodes[&1].node.wal_usage().live_bytes > 0);
    let before = cluster.agree(at.index).await;
    cluster.kill(1);
    cluster.up(1).await;
    assert_eq!(cluster.agree(at.index).await, before, "the older snapshot and the log have everything");
}

/// Says when it is asked for a view, and does not answer until it may.
struct Stuck(Shared, mpsc::UnboundedSender<()>, Arc<(Mutex<bool>, Condvar)>);

impl StateMachine for Stuck {
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, here: bool) -> ApplyOutcome {
        self.0.apply(at, stamp_ms, data, here)
    }
    fn refuse(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, here: bool) -> Reply {
        self.0.refuse(at, stamp_ms, data, here)
    }
    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        let _asked = self.1.send(());
        let (free, freed) = &*self.2;
        let wait = || drop(freed.wait_while(free.lock().expect("lock"), |free| !*free));
        tokio::task::block_in_place(wait);
        self.0.snapshot()
    }
    fn install(&mut self, at: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        self.0.install(at, bytes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_does_not_answer_holds_back_no_other_snapshot() {
    let home = tempfile::tempdir().expect("a directory");
    let tuning = RaftTuning { snapshot_every_entries: 20, keep_entries: 0, ..tuning() };
    let node = alone(Seams::with_disk(Arc::new(RealDisk::new())), home.path().to_owned(), tuning).await;
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let free = Arc::new((Mutex::new(false), Condvar::new()));
    let stuck = lead(&node, GroupId(1), Stuck(Shared::default(), asked, free.clone())).await;
    let other = lead(&node, GroupId(2), Shared::default()).await;
    propose(&stuck, 60, 10).await;
    was_asked.recv().await.expect("asked");
    propose(&other, 200, 10).await;
    let mut status = other.watch();
    let purged = status.wait_for(|s| s.snapshot_index > 0 && s.purged_index > 0);
    tokio::time::timeout(PATIENCE, purged).await.expect("the other group's log is purged").expect("runs");
    *free.0.lock().expect("lock") = true;
    free.1.notify_all();
    node.shutdown(Duration::ZERO).await;
}

/// A wall clock that goes as the test's time goes.
struct Virtual(Instant);

impl WallClock for Virtual {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

/// After a sale nothing comes any more, and the next snapshot is never due by entries or bytes.
#[tokio::test(start_paused = true)]
async fn a_quiet_group_frees_its_log_in_bounded_time() {
    let tuning = RaftTuning {
        keep_entries: 5,
        segment_bytes: 64 << 10,
        // Little happens in the minutes that pass.
        heartbeat: Duration::from_secs(2),
        election_min: Duration::from_secs(5),
        election_max: Duration::from_secs(8),
        ..tuning()
    };
    let seams = Seams { clock: Arc::new(Virtual(Instant::now())), ..Seams::with_disk(Arc::new(SimDisk::new(1))) };
    let node = alone(seams, "/node".into(), tuning).await;
    let group = lead(&node, GroupId(1), Shared::default()).await;
    propose(&group, 500, 4000).await;
    assert!(node.wal_usage().live_bytes > 500 * 4000);
    tokio::time::sleep(Duration::from_secs(270)).await;
    let usage = node.wal_usage();
    assert!(usage.live_bytes < 64 << 10, "{usage:?} {:?}", group.status());
    assert!(usage.bytes <= usage.bytes_max(), "{usage:?}");
    propose(&group, 10, 10).await;
    let snapshot = group.status().snapshot_index;
    tokio::time::sleep(Duration::from_secs(270)).await;
    assert_eq!(group.status().snapshot_index, snapshot, "nothing would be gained by another");
    node.shutdown(Duration::ZERO).await;
}
