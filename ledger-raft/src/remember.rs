//! One replica's memory of what the members of its group acknowledged, and of its own answers.
//!
//! **Owns** who adds to it and when it is saved: in the group's log, with whatever is written next.
//! **Must never** let an answer leave before it is noted, or wait for the disk. **Read next**:
//! [`crate::memory`], which compares.

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
        Arc::new(Self { me, log: store.log().clone(), boot, by: Mutex::new(by), here: Mutex::default() })
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

    /// Takes over what another member knows.
    ///
    /// # Errors
    /// This replica lacks something that it is remembered to have acknowledged.
    pub(crate) fn hear(&self, heard: &AcknowledgedBy) -> Result<(), Acknowledged> {
        if let Some(remembered) = heard.of(self.me) {
            self.hear_of_me(&remembered)?;
        }
        let mut by = lock(&self.by);
        if by.merge(heard) {
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

    /// The most that a member has acknowledged, as far as it is known here.
    pub(crate) fn of(&self, node: NodeId) -> Option<Acknowledged> {
        lock(&self.by).of(node)
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
