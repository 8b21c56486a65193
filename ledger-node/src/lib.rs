//! The Holdfast server: joins the deciding core with durable, equal logs, and serves.
//!
//! **Owns** configuration, the data directory's stamp, shards and the one door into each (`door`), reads, feed and history,
//! gRPC and HTTP, metrics, shutdown. **Must never** decide anything about stock outside the core.
//! **Read next**: `serve`, `shard`, `door`.

pub mod access;
pub mod api;
pub mod audit;
mod balance;
pub mod config;
pub mod data_dir;
pub mod digest;
pub mod door;
mod elsewhere;
pub mod feed;
#[doc(hidden)]
pub mod fuzzing;
pub mod gates;
pub mod grpc;
pub mod history;
pub mod http;
mod init;
mod intent;
pub mod limits;
pub mod log_view;
mod measured;
pub mod memory;
pub mod meta;
pub mod metrics;
pub mod node;
mod peers;
mod placement;
mod readiness;
mod reconcile;
mod rejoin;
mod repairs;
pub mod serve;
mod settings;
pub mod shard;
mod status;
mod steward;

pub mod process;

pub use node::{Node, NodeSeams, NodeState};
pub use serve::{RunningNode, StartError, serve};
