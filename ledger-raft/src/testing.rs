//! What unit tests share: a state machine without a state, and a node whose group it leads alone.
//!
//! **Read next**: `tests/common`, which has whole clusters.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::api::{
    ApplyOutcome, DiskId, GroupId, GroupStatus, LogPosition, NodeId, RaftTuning, Reply, Role, SnapshotChecker,
    SnapshotView, StateMachine,
};
use crate::disk::SimDisk;
use crate::identity::IdentityFile;
use crate::node::{Group, PeerHandler, RaftNode, RaftNodeConfig};
use crate::seam::{Disk, Seams};
use crate::wal::WalIdentity;

/// Applies everything, and keeps nothing of it.
pub(crate) struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: LogPosition, _: u64, _: &Bytes, _: bool) -> ApplyOutcome {
        ApplyOutcome::applied(())
    }
    fn refuse(&mut self, _: LogPosition, _: u64, _: &Bytes, _: bool) -> Reply {
        Box::new(())
    }
    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        Box::new(Self)
    }
    fn install(&mut self, _: LogPosition, bytes: &mut dyn io::Read) -> io::Result<()> {
        io::copy(bytes, &mut io::sink()).map(drop)
    }
}

impl SnapshotView for Nothing {
    fn write(self: Box<Self>, _: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }
    fn checker(&self) -> SnapshotChecker {
        Box::new(|_| Ok(()))
    }
}

/// Node 1 on a simulated disk, and its group, of which it is the only voter.
pub(crate) async fn lone_node() -> (RaftNode, Group) {
    let (disk, dir, me) = (Arc::new(SimDisk::new(1)), Path::new("/d"), NodeId(1));
    disk.create_dir_all(dir).expect("made");
    let identity = IdentityFile::create(disk.clone(), dir, DiskId([1; 16])).expect("made");
    identity.claim(WalIdentity { cluster: [7; 16], incarnation: 1, node: me }).expect("claimed");
    let config = RaftNodeConfig {
        node: me,
        cluster: [7; 16],
        incarnation: 1,
        identity: Arc::new(identity),
        peers: BTreeMap::new(),
        peers_from: Arc::new(|_| Ok(())),
        dir: dir.to_owned(),
        peer_listen: "127.0.0.1:0".to_owned(),
        tuning: RaftTuning { segment_bytes: 4 << 20, low_space_bytes: 0, ..RaftTuning::default() },
    };
    let handler: PeerHandler = Arc::new(|_, _| Box::pin(async { Ok(Bytes::new()) }));
    let node = RaftNode::open(config, Seams::with_disk(disk), handler).await.expect("opened");
    let founders = BTreeMap::from([(me, "127.0.0.1:1".to_owned())]);
    let group = node.start_group(GroupId(1), &founders, Nothing).await.expect("started");
    group.initialize(founders).await.expect("begun");
    (node, group)
}

/// Waits until the group is led in a term above this one, or stopped.
pub(crate) async fn leads_above(group: &Group, term: u64) -> GroupStatus {
    let mut status = group.watch();
    let leads = |s: &GroupStatus| s.role == Role::Leader && s.term > term || s.stopped.is_some();
    let status = timeout(Duration::from_secs(60), status.wait_for(leads)).await;
    status.expect("it leads").expect("it runs").clone()
}
