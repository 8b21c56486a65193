//! The peer wire: two long-lived connections to each peer, *control* and *bulk*.
//!
//! **What it is.** Length-prefixed, checksummed frames over the network seam. Votes, heartbeats, leader transfers,
//! ReadIndex, clock readings and questions go over *control*; append streams of all groups and snapshot chunks are
//! multiplexed over *bulk*, so that a heartbeat is never behind a snapshot.
//!
//! **Owns** connections, their redialling, frames, openraft's network traits. **Must never** panic on what a peer
//! sends, queue without a bound, or copy the bytes of an entry.
//!
//! **Read next**: [`frame`], [`link`] (the side that asks), [`server`] (the side that answers), [`network`] (openraft's traits).

pub(crate) mod checks;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod places;
pub(crate) mod pull;
pub(crate) mod server;
pub(crate) mod twins;

pub(crate) use checks::Known;
