//! Makes opaque entries durable and equal on every replica.
//!
//! **What it is.** Many Raft groups on one node behind one door: [`RaftNode`] and [`Group`]. One write-ahead log
//! for all of them with group commit, a peer transport, snapshots, ReadIndex reads and the leader's clock.
//!
//! **Owns** consensus, the log, votes, snapshot files, the peer wire, the stamp of an entry.
//!
//! **Must never** know what a reservation is, acknowledge before the sync it promised, or use bincode for votes and
//! frames (fixed layouts of its own). No other crate names openraft.
//!
//! **Read next**: [`seam`] (what asks the world), [`api`] (the door), then [`node`].

pub mod api;
// The core's own text: neither crate knows the other, and there is one way to be wrong on purpose.
#[doc(hidden)]
#[path = "../../ledger-core/src/bad.rs"]
pub mod bad;
pub mod disk;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod inspect;
pub mod limits;
pub mod node;
pub mod seam;
pub mod seam_real;
pub mod wal;

mod clock;
mod codec;
mod currency;
mod failover;
mod group;
mod leading;
mod machine;
mod memory;
mod quorum;
mod reads;
mod remember;
mod repair;
mod snapshot;
mod start;
mod store;
#[cfg(test)]
mod testing;
mod transport;
mod types;
mod unreadable;
mod upkeep;
mod vote_gate;

pub use api::*;
pub use node::{AddressPolicy, Group, PeerEntry, PeerHandler, RaftNode, RaftNodeConfig};
pub use quorum::{MissingVoter, NoQuorum};
pub use transport::twins::Twin;
