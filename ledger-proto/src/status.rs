//! Replies to calls that have no answer frame (reads, watches, admin): as gRPC statuses, with the typed answer in the details.
//!
//! **Owns** that mapping, both ways. **Must never** let a broken connection look like an answer.

use prost::Message as _;
use tonic::{Code, Status};

use crate::reply::{Invalid, NotNow, Reply, Why};
use crate::{answers, v1};

/// Marks statuses whose details are an encoded [`v1::Answer`]; its value is that of the frozen format.
pub const TYPED: &str = "holdfast-answer";

fn typed(code: Code, message: String, reply: &Reply) -> Status {
    let details = answers::to_wire(0, 0, reply).encode_to_vec();
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert(TYPED, tonic::metadata::MetadataValue::from_static("1"));
    Status::with_details_and_metadata(code, message, details.into(), metadata)
}

/// *Not now* as a status: `UNAVAILABLE`, or `RESOURCE_EXHAUSTED` when the caller sends more than its share.
pub fn not_now(not_now: NotNow) -> Status {
    let code = match not_now.cause {
        crate::Cause::RateLimited => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    typed(code, not_now.to_string(), &Reply::NotNow(not_now))
}

/// *No* as a status: `INVALID_ARGUMENT`, `PERMISSION_DENIED` or `FAILED_PRECONDITION`.
pub fn refused(why: Why) -> Status {
    let code = match why {
        Why::Invalid(_) if ledger_core::bad!("invalid-as-internal") => Code::Internal,
        Why::Invalid(_) => Code::InvalidArgument,
        Why::PermissionDenied(_) => Code::PermissionDenied,
        Why::Ledger(_) | Why::Other { .. } => Code::FailedPrecondition,
    };
    typed(code, why.to_string(), &Reply::Refused(why))
}

/// Invalid input as a status.
pub fn invalid(invalid: Invalid) -> Status {
    refused(Why::Invalid(invalid))
}

/// *Unknown* as a status: `DEADLINE_EXCEEDED`.
pub fn unknown(message: String) -> Status {
    typed(Code::DeadlineExceeded, message.clone(), &Reply::Unknown(message))
}

/// The typed answer in a status; none when the status is not a Holdfast node's own (a broken connection, a proxy, …).
pub fn reply(status: &Status) -> Option<Reply> {
    status.metadata().get(TYPED)?;
    let answer = v1::Answer::decode(status.details()).ok()?;
    Some(answers::from_wire(Some(refusals_only(answer.outcome?)?)))
}

/// A status never says *ok*.
fn refusals_only(outcome: v1::answer::Outcome) -> Option<v1::answer::Outcome> {
    (!matches!(outcome, v1::answer::Outcome::Ok(_))).then_some(outcome)
}

/// Malformed bytes as a status.
pub fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}
