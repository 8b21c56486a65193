//! One replica's memory of what the members of its group acknowledged, and of its own answers.
//!
//! **Owns** who adds to it and when it is saved: in the group's log, with whatever is written next.
//! **Must never** let an answer leave before it is noted, or wait for the disk. **Read next**:
//! [`crate::memory`], which compares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use crate::api::NodeId;
use crate::memory::{Acknowledged, AcknowledgedBy, AcknowledgedHere, BootState, is_reverted};
use crate::snapshot::SnapshotStore;
use crate::store::Store;
use crate::transport::link::lock;
use crate::types::LogId;
use crate::wal::GroupLog;

/// The memory of one replica. It is made anew when the replica is.
pub(crate) struct Memory {
    me: NodeId,
    log: GroupLog,
    boot: BootState,
    by: Mutex<AcknowledgedBy>,
    here: Mutex<AcknowledgedHere>,
    /// In which term each member last disputed what it had acknowledged in that term.
    disputed: Mutex<BTreeMap<NodeId, u64>>,
}

impl Memory {
    /// Of a replica that starts on this log and these snapshots. What cannot be read of it is
    /// forgotten: others remember it, too.
    pub(crate) fn new(me: NodeId, store: &Store, snapshots: &SnapshotStore) -> Arc<Self> {
        let vote = store.vote().ok().flatten();
        let log = store.ends().ok().and_then(|(_, last)| last);
        let boot = BootState {
            vote_term: vote.map_or(0, |vote| vote.leader_id.term),
            last: log.max(snapshots.newest().map(|file| file.head.last)),
        };
        let saved = store.log().state().acknowledged;
        let by = saved.and_then(|mut bytes| AcknowledgedBy::take(&mut bytes).ok()).unwrap_or_default();
        Arc::new(Self {
            me,
            log: store.log().clone(),
            boot,
            by: Mutex::new(by),
            here: Mutex::default(),
            disputed: Mutex::default(),
        })
    }

    /// A leader of this term learns how far another member's log matches.
    pub(crate) fn has_acknowledged(&self, node: NodeId, leader_term: u64, last: LogId) {
        let mut by = lock(&self.by);
        if by.record(node, Acknowledged { leader_term, last }) {
            self.save(&by);
        }
    }

    /// An entry of its own log is durable here, which counts like an acknowledgement where this
    /// replica leads. Where it follows, that is less than it acknowledges to its leader.
    pub(crate) fn is_durable_here(&self, last: LogId) {
        let leader_term = last.leader_id.term;
        self.acknowledges(leader_term, last);
        self.has_acknowledged(self.me, leader_term, last);
    }

    /// This replica is about to answer the leader of this term that its log matches so far.
    pub(crate) fn acknowledges(&self, leader_term: u64, last: LogId) {
        lock(&self.here).record(leader_term, last);
    }

    /// Takes over what another member knows of the members.
    ///
    /// # Errors
    /// This replica lacks something that it is remembered to have acknowledged.
    pub(crate) fn hear(&self, heard: &AcknowledgedBy, is_member: impl Fn(NodeId) -> bool) -> Result<(), Acknowledged> {
        if let Some(remembered) = heard.of(self.me) {
            self.hear_of_me(&remembered)?;
        }
        let mut by = lock(&self.by);
        if by.merge(heard, is_member) {
            self.save(&by);
        }
        Ok(())
    }

    /// Holds what another member remembers of this one against what it has.
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub(crate) fn hear_of_me(&self, remembered: &Acknowledged) -> Result<(), Acknowledged> {
        match is_reverted(&self.boot, &lock(&self.here), remembered) {
            true => Err(*remembered),
            false => Ok(()),
        }
    }

    /// A member disputes in this term what it has acknowledged in it. Whether that is news.
    pub(crate) fn disputes(&self, node: NodeId, term: u64) -> bool {
        lock(&self.disputed).insert(node, term) != Some(term)
    }

    /// The most that a member has acknowledged, as far as it is known here.
    pub(crate) fn of(&self, node: NodeId) -> Option<Acknowledged> {
        lock(&self.by).of(node)
    }

    /// Whether this replica's log has lost nothing, as far as it knows.
    pub(crate) fn is_whole(&self) -> bool {
        self.log.damage().is_none()
    }

    /// Gives all of it to `read`, which must not wait.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&AcknowledgedBy) -> T) -> T {
        read(&lock(&self.by))
    }

    /// Under the lock, so that an older state is never saved over a newer one.
    fn save(&self, by: &AcknowledgedBy) {
        let mut bytes = BytesMut::with_capacity(by.bytes());
        by.put(&mut bytes);
        self.log.save_acknowledged(Bytes::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::api::GroupId;
    use crate::disk::SimDisk;
    use crate::machine::Progress;
    use crate::seam::Disk;
    use crate::types::log_id;
    use crate::wal::{Wal, WalConfig, WalEntry, WalIdentity};

    const CLUSTER: [u8; 16] = [1; 16];
    const G: GroupId = GroupId(1);

    async fn open(disk: &SimDisk) -> (Wal, Arc<Memory>) {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let identity = WalIdentity { cluster: CLUSTER, incarnation: 1, node: NodeId(1) };
        let config = WalConfig { segment_bytes: 1 << 20, low_space_bytes: 0, ..WalConfig::default() };
        let wal = Wal::open(disk.clone(), "/wal".into(), identity, config).await.expect("opened");
        disk.create_dir_all(Path::new("/s")).expect("created");
        let snapshots = SnapshotStore::open(disk, Path::new("/s"), CLUSTER, G).expect("opened");
        let store = Store::new(wal.group(G), Arc::new(Progress::new()));
        let memory = Memory::new(NodeId(1), &store, &snapshots);
        (wal, memory)
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_remember_of_this_replica_is_compared_before_anything_is_taken_over() {
        let (_wal, memory) = open(&SimDisk::new(1)).await;
        let one = Acknowledged { leader_term: 7, last: log_id(7, 5) };
        let mut by = AcknowledgedBy::default();
        for node in [1, 2] {
            assert!(by.record(NodeId(node), one));
        }
        assert_eq!(memory.hear(&by, |_| true), Err(one));
        assert_eq!((memory.of(NodeId(1)), memory.of(NodeId(2))), (None, None));
        memory.acknowledges(7, one.last);
        assert_eq!(memory.hear(&by, |node| node.0 == 2), Ok(()));
        assert_eq!((memory.of(NodeId(1)), memory.of(NodeId(2))), (None, Some(one)));
    }

    /// A disk that is slower than the others: its answer comes when the leader writes no more.
    #[tokio::test(start_paused = true)]
    async fn what_a_member_acknowledges_late_is_saved_though_nothing_else_is_written() {
        let disk = SimDisk::new(1);
        let (wal, memory) = open(&disk).await;
        let (done, durable) = tokio::sync::oneshot::channel();
        let entry = WalEntry { index: 1, head: Bytes::from_static(b"h"), data: Bytes::new() };
        let appended = wal.group(G).append(vec![entry], Box::new(|written| drop(done.send(written))));
        appended.expect("taken");
        durable.await.expect("answered").expect("durable");
        let quiet = Duration::from_secs(10);
        for index in [1, 2] {
            // Time stands still but for this.
            tokio::time::sleep(quiet).await;
            let before = wal.syncs();
            memory.has_acknowledged(NodeId(2), 1, log_id(1, index));
            memory.has_acknowledged(NodeId(3), 1, log_id(1, index));
            tokio::time::sleep(quiet).await;
            assert_eq!(wal.syncs(), before + 1, "one for both, and then rest");
            memory.has_acknowledged(NodeId(2), 1, log_id(1, index));
            tokio::time::sleep(quiet).await;
            assert_eq!(wal.syncs(), before + 1, "it is no news");
        }
        disk.crash(1);
        let (_wal, memory) = open(&disk).await;
        for node in [2, 3] {
            let last = memory.of(NodeId(node)).expect("saved").last;
            assert_eq!(last, log_id(1, 2), "node {node}");
        }
    }
}
