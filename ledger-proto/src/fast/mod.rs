//! Frames read and written by hand: from the bytes of a [`v1::CallFrame`](crate::v1::CallFrame) straight to commands, and from outcomes
//! straight to the bytes of a [`v1::AnswerFrame`](crate::v1::AnswerFrame).
//!
//! **What it is.** The common verbs and answers are read without intermediate structs. Whatever looks unusual (a rare verb, an
//! unknown or repeated field, a long varint) is given to prost, so both always mean the same.
//! **Owns** the hand-written protobuf. **Must never** panic on any bytes, nor read a frame otherwise than prost does.
//! **Read next**: [`calls`], [`answers`].

pub mod answers;
pub mod calls;
mod wire;

pub use answers::{ReceivedAnswer, decode_answer_frame};
pub use calls::{decode_call, decode_call_frame, put_call};

/// Bytes that are no frame. The stream they came on cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not the protobuf message it should be.
    #[error("malformed frame: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// More calls than one frame may carry.
    #[error("{got} calls in one frame, at most {max} are allowed")]
    TooManyCalls {
        /// Found.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Larger than a frame may be.
    #[error("a frame of {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Found.
        got: usize,
        /// The bound.
        max: usize,
    },
}
