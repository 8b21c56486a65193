//! The Holdfast server: joins the deciding core with durable, equal logs, and serves.
//!
//! **Owns** configuration, the data directory's stamp, shards and the one door into each (`door`), reads, feed and history,
//! gRPC and HTTP, metrics, shutdown. **Must never** decide anything about stock outside the core.
//! **Read next**: `serve`, `shard`, `door`.

pub mod access;
pub mod config;
pub mod limits;
pub mod door;
pub mod shard;
pub mod history;
pub mod feed;
pub mod node;
pub mod metrics;
pub mod api;
pub mod grpc;
