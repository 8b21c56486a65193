//! The members that a node knows, the disk of each, and the connections that end with it.
//!
//! **What it is.** A connection is between two members, each on the disk that the other knows it by.
//! When a member comes back on a new disk, the others learn its id, and every connection of the old
//! disk ends: a vote or an acknowledgement of the old disk arrives nowhere from then on.
//!
//! **Owns** which disk is a member's. **Must never** let a connection of a disk that was replaced
//! begin or go on. **Read next**: `docs/decisions/0017-an-empty-disk-rejoins.md`.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use crate::api::{DiskId, NodeId};

/// The disk that a member is on.
#[derive(Debug, Clone)]
struct KnownDisk {
    disk: DiskId,
    /// Ends the connections of that disk.
    connections: CancellationToken,
}

/// The members that this node knows.
#[derive(Debug, Default)]
pub(crate) struct Members {
    known: RwLock<BTreeMap<NodeId, KnownDisk>>,
    stop: CancellationToken,
}

impl Members {
    /// Nobody yet. Connections end with `stop` at the latest.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { known: RwLock::default(), stop }
    }

    /// A member's disk; none when it is no member.
    pub(crate) fn disk_of(&self, node: NodeId) -> Option<DiskId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&node).map(|known| known.disk)
    }

    /// What ends a new connection with a member that was found on this disk; none when it is no
    /// member, or on another disk by now. Asked after the handshake: a disk that was replaced
    /// meanwhile gets no connection.
    pub(crate) fn connection(&self, node: NodeId, found: DiskId) -> Option<CancellationToken> {
        match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&node) {
            Some(known) if is_on_its_disk(known.disk, found) => Some(known.connections.child_token()),
            None if crate::bad!("peer-not-asked") => Some(self.stop.child_token()),
            _ => None,
        }
    }

    /// Takes a member in. The disk that is known first stays.
    ///
    /// # Errors
    /// The member is known on another disk.
    pub(crate) fn know(&self, node: NodeId, disk: DiskId) -> Result<(), DiskId> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let first = known.entry(node).or_insert_with(|| KnownDisk { disk, connections: self.stop.child_token() });
        if first.disk == disk { Ok(()) } else { Err(first.disk) }
    }

    /// The member is on this disk from now on. Connections of the disk before end; none of them
    /// begins any more. Whether it was on another one.
    pub(crate) fn replace(&self, node: NodeId, disk: DiskId) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.get(&node).is_some_and(|known| known.disk == disk) {
            return false;
        }
        let before = known.insert(node, KnownDisk { disk, connections: self.stop.child_token() });
        if let Some(before) = before {
            before.connections.cancel();
        }
        true
    }
}

/// Whether a node that was found on a disk is the member of that id.
pub(super) fn is_on_its_disk(known: DiskId, found: DiskId) -> bool {
    known == found || crate::bad!("disk-id-unchecked")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const FIRST: DiskId = DiskId([11; 16]);
    const SECOND: DiskId = DiskId([22; 16]);

    #[test]
    fn the_disk_that_is_known_first_stays() {
        let members = Members::default();
        assert_eq!(members.know(NODE, FIRST), Ok(()));
        assert_eq!(members.know(NODE, FIRST), Ok(()));
        assert_eq!(members.know(NODE, SECOND), Err(FIRST));
        assert_eq!(members.disk_of(NODE), Some(FIRST));
    }

    #[test]
    fn a_disk_that_is_replaced_has_no_connection_and_gets_none() {
        let stop = CancellationToken::new();
        let members = Members::new(stop.clone());
        members.know(NODE, FIRST).expect("a new member");
        let old = members.connection(NODE, FIRST).expect("its disk");
        assert!(members.connection(NODE, SECOND).is_none());
        assert!(members.replace(NODE, SECOND));
        assert!(old.is_cancelled());
        assert!(members.connection(NODE, FIRST).is_none());
        let new = members.connection(NODE, SECOND).expect("its disk now");
        assert!(!members.replace(NODE, SECOND), "it is that already");
        assert!(!new.is_cancelled());
        stop.cancel();
        assert!(new.is_cancelled());
    }
}
