//! The wire: protobuf definitions, generated code, and conversions to and from the core's types.
//!
//! **Owns** `proto/` and what is made of it; invalid input dies here. **Must never** hold state.
//! **Read next**: `proto/holdfast/v1/ledger.proto`, [`reply`].

pub mod answers;
pub mod calls;
pub mod fast;
pub mod feed;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod names;
pub mod orders;
pub mod refusals;
pub mod reply;
pub mod requests;
pub mod routing;
pub mod status;
pub mod views;

/// The Ledger service with whole frames for `Submit`, `SubmitBatch` and `SubmitStream`; the same on the wire as [`v1`]'s.
///
/// Serve and call this one: `ledger_server` and `ledger_client` carry [`frames::Calls`] and [`frames::Answers`], which are read and
/// written by hand ([`fast`]).
#[expect(clippy::allow_attributes, reason = "generated code; documented in the .proto files")]
pub mod framed {
    include!(concat!(env!("OUT_DIR"), "/framed/holdfast.v1.Ledger.rs"));
}

pub use calls::DecodedCall;
pub use frames::{Answers, Calls, OneCall};
pub use reply::{At, Cause, Invalid, NotNow, Reply, Why};

/// Generated from `proto/holdfast/v1`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated code; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
