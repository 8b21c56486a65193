//! The wire: protobuf definitions, generated code, and conversions to and from the core's types.
//!
//! **Owns** `proto/` and what is made of it; invalid input dies here. **Must never** hold state.
//! **Read next**: `proto/holdfast/v1/ledger.proto`, [`reply`].

pub mod limits;
pub mod reply;

pub use reply::{At, Cause, Invalid, NotNow, Reply, Why};

/// Generated from `proto/holdfast/v1`.
#[expect(missing_docs, clippy::all, reason = "generated code; documented in the .proto files")]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
