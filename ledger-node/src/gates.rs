//! Who may connect to the node's ports, and how the process's descriptors are divided among them.
//!
//! **What it is.** A gate for each port that callers use. Connections must not take the descriptors
//! of the log, of history and of the other nodes, so each port has a share.
//!
//! **Owns** the shares. **Must never** make a system call: the limit comes in through the seams.
//! **Read next**: [`service::gate`].

use std::sync::Arc;

use service::{ConnectionBounds, PortGate};

use crate::access::Access;
use crate::limits::{
    DESCRIPTORS_BESIDE, DESCRIPTORS_FILES_MIN, DESCRIPTORS_FILES_PERCENT, DESCRIPTORS_KEPT, DESCRIPTORS_MIN,
    DESCRIPTORS_PEERS, GRPC_CONNECTIONS_MAX, HTTP_CONNECTIONS_MAX,
};

/// The gates of one node.
pub struct Gates {
    /// gRPC.
    pub client: Arc<PortGate>,
    /// HTTP.
    pub http: Arc<PortGate>,
}

impl Gates {
    /// Without connections.
    pub fn new(shares: Shares, access: &Access) -> Self {
        let gate = |port, bounds| {
            let access = access.clone();
            PortGate::new(port, bounds, move |from| access.trusts(from))
        };
        let http = ConnectionBounds::of(shares.http).with_probes();
        Self { client: gate("client", ConnectionBounds::of(shares.grpc)), http: gate("http", http) }
    }

    /// All of them.
    pub fn all(&self) -> [&PortGate; 2] {
        [&self.client, &self.http]
    }
}

/// Too few for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process may open {limit} files, a node needs {DESCRIPTORS_MIN}; hint: raise it, as with `ulimit -n 65536`"
)]
pub struct TooFewDescriptors {
    limit: u64,
}

/// How many connections each port may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// gRPC.
    pub grpc: usize,
    /// HTTP.
    pub http: usize,
}

impl Shares {
    /// Shares of a limit; the most where there is none.
    ///
    /// # Errors
    /// [`TooFewDescriptors`].
    pub fn of(limit: Option<u64>) -> Result<Self, TooFewDescriptors> {
        let Some(limit) = limit else { return Ok(Self { grpc: GRPC_CONNECTIONS_MAX, http: HTTP_CONNECTIONS_MAX }) };
        if limit < DESCRIPTORS_MIN {
            return Err(TooFewDescriptors { limit });
        }
        let files = (limit / 100 * DESCRIPTORS_FILES_PERCENT).max(DESCRIPTORS_FILES_MIN);
        let left = limit - files - DESCRIPTORS_PEERS - DESCRIPTORS_KEPT - DESCRIPTORS_BESIDE;
        let at_most = |share: u64, most: usize| usize::try_from(share).unwrap_or(most).min(most);
        Ok(Self { grpc: at_most(left / 3 * 2, GRPC_CONNECTIONS_MAX), http: at_most(left / 3, HTTP_CONNECTIONS_MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_room_for_files_peers_and_operators() {
        let shares = |limit| Shares::of(Some(limit)).map(|shares| (shares.grpc, shares.http));
        assert_eq!(shares(511), Err(TooFewDescriptors { limit: 511 }));
        assert_eq!(shares(512), Ok((42, 21)));
        assert_eq!(shares(1_024), Ok((220, 110)));
        assert_eq!(shares(65_536), Ok((GRPC_CONNECTIONS_MAX, HTTP_CONNECTIONS_MAX)));
        assert_eq!(Shares::of(None), Shares::of(Some(u64::MAX)));
    }
}
