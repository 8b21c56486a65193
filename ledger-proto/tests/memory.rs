//! What one frame or request makes the decoder allocate is bounded by what is in it that counts,
//! not by how many fields it has.

use bytes::Bytes;
use ledger_proto::fast::FrameError;
use ledger_proto::frames::Frame as _;
use ledger_proto::limits::{CALL_BYTES_MAX, CALLS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use ledger_proto::{Calls, OneCall};
use peak_alloc::PeakAlloc;
use prost::encoding::WireType;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// More than the decoded calls of a full frame take, and far less than all fields of 2 bytes in a
/// frame would.
const ALLOCATED_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Bytes allocated at most while `work` runs, beyond those before it.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    let done = work();
    (done, ALLOCATED.peak_usage().saturating_sub(before))
}

/// A length-delimited field.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// A call with tag 7: messages in each other, the verb first, and in the last of them one empty
/// field again and again.
fn call_of_empty_fields(within: &[u32], empty: u8, bytes: usize) -> Vec<u8> {
    let fields = [empty << 3 | 2, 0].repeat((bytes - 64) / 2);
    let verb = within.iter().rev().fold(fields, |content, number| field(*number, &content));
    [vec![1 << 3, 7], verb].concat()
}

/// One test, since the allocator counts for the whole process.
#[test]
fn a_frame_full_of_empty_fields_costs_no_more_memory_than_one_of_good_calls() {
    let empty_calls = Bytes::from([1 << 3 | 2, 0].repeat(FRAME_BYTES_MAX / 2));
    // A field that no build knows comes first: the frame is not usual from its first byte on.
    let unusual = Bytes::from([&[15 << 3, 1], &empty_calls[2..]].concat());
    for frame in [empty_calls, unusual] {
        let calls = frame.iter().filter(|byte| **byte == (1 << 3 | 2)).count();
        let (read, peak) = peak_of(|| Calls::from_message(frame).decode());
        let error = read.expect_err("too many calls");
        assert_eq!(error, FrameError::TooManyCalls { got: calls, max: CALLS_PER_FRAME_MAX });
        assert!(peak < ALLOCATED_MAX, "{calls} empty calls: {peak} bytes");
    }

    // A reserve of keys, of lines, and the verbs that prost reads: a confirm, a return, an order.
    let verbs: [(&[u32], u8); 6] = [(&[10], 2), (&[10], 3), (&[12, 2], 1), (&[15, 2], 1), (&[64], 7), (&[64], 8)];
    for (verb, empty) in verbs {
        let call = call_of_empty_fields(verb, empty, FRAME_BYTES_MAX);
        let frame = Bytes::from(field(1, &call));
        let (read, peak) = peak_of(|| Calls::from_message(frame).decode());
        let read = read.expect("a frame").remove(0);
        assert_eq!(read.tag, 7, "the answer finds its call");
        let why = read.command.expect_err("too large").to_string();
        assert!(why.contains(&CALL_BYTES_MAX.to_string()), "{why}");
        assert!(peak < ALLOCATED_MAX, "verb {verb:?}, field {empty}: {peak} bytes");
        let (one, peak) = peak_of(|| OneCall::from_message(Bytes::from(call)).decode());
        assert_eq!(one.expect("a call").tag, 7);
        assert!(peak < ALLOCATED_MAX, "verb {verb:?}, field {empty}, alone: {peak} bytes");
    }

    // As many calls as a frame takes, each as full of empty fields as fits.
    let call = call_of_empty_fields(&[10], 3, FRAME_BYTES_MAX / CALLS_PER_FRAME_MAX - 3);
    let frame = Bytes::from(field(1, &call).repeat(CALLS_PER_FRAME_MAX));
    let (read, peak) = peak_of(|| Calls::from_message(frame).decode());
    assert_eq!(read.expect("a frame").len(), CALLS_PER_FRAME_MAX);
    assert!(peak < ALLOCATED_MAX, "full calls: {peak} bytes");
}
