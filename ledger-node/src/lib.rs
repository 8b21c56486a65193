//! The Holdfast server: joins the deciding core with durable, equal logs, and serves.
//!
//! **Owns** configuration, the data directory's stamp, shards and the one door into each (`door`), reads, feed and history,
//! gRPC and HTTP, metrics, shutdown. **Must never** decide anything about stock outside the core.
//! **Read next**: `serve`, `shard`, `door`.

pub mod config;
pub mod limits;
pub mod data_dir;
pub mod serve;
pub mod node;
pub mod door;
pub mod shard;
pub mod meta;
mod placement;
mod init;
mod reconcile;
mod steward;
pub mod digest;
mod balance;
mod peers;
mod status;
pub mod access;
pub mod history;
pub mod feed;
pub mod metrics;
pub mod api;
pub mod grpc;
pub mod http;

pub use node::{Node, NodeSeams, NodeState};
pub use serve::{RunningNode, StartError, serve};
