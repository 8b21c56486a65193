//! What fuzzing calls with any bytes, and an ordinary test with those of a checked-in corpus (`fuzz/seeds`).
//!
//! **Owns** nothing that a server calls. **Must never** be more lenient than the code it calls. **Read next**: `ledger_core::fuzzing`.

use bytes::Bytes;
use ledger_core::LedgerTime;
use ledger_core::codec::{decode_entry, encode_entry};
use prost::Message as _;

use crate::frames::Frame as _;
use crate::{Answers, Calls, DecodedCall, OneCall, calls, v1};

/// A frame of calls, one call, or a frame of answers: read by hand as by the library, and what is accepted can be logged.
pub fn client_frame(bytes: &[u8]) {
    let frame = Calls::from_message(Bytes::copy_from_slice(bytes)).decode();
    if let (Ok(frame), Ok(theirs)) = (&frame, v1::CallFrame::decode(bytes)) {
        let theirs: Vec<DecodedCall> = theirs.calls.into_iter().map(calls::decode).collect();
        assert_eq!(frame.len(), theirs.len(), "the two ways of reading a frame count its calls differently");
        for (ours, theirs) in frame.iter().zip(&theirs) {
            assert_eq!((ours.tag, ours.within_ms), (theirs.tag, theirs.within_ms), "a call is read in two ways");
            if matches!(&ours.command, Err(why) if why.field == "call") {
                continue; // Refused for its size alone.
            }
            assert_eq!(ours.command.is_ok(), theirs.command.is_ok(), "{ours:?} is read as {theirs:?}, too");
            if let (Ok(ours), Ok(theirs)) = (&ours.command, &theirs.command) {
                assert_eq!(ours, theirs, "a command is read in two ways");
            }
        }
    }
    frame.iter().flatten().for_each(can_be_logged);
    if let Ok(call) = OneCall::from_message(Bytes::copy_from_slice(bytes)).decode() {
        can_be_logged(&call);
    }
    let answers = Answers::from_message(Bytes::copy_from_slice(bytes)).decode();
    if answers.is_ok() {
        v1::AnswerFrame::decode(bytes).expect("what is read by hand is a message");
    }
}

/// Whatever the wire accepts, an entry's decoder accepts.
fn can_be_logged(call: &DecodedCall) {
    let Ok(command) = &call.command else { return };
    let entry = encode_entry(std::slice::from_ref(command));
    let read = decode_entry(LedgerTime(0), &entry).expect("an accepted command can be read from the log");
    assert_eq!(read.commands, std::slice::from_ref(command), "a command changed in the log");
}
