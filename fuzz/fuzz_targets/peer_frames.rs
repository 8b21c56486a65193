//! What peers send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ledger_raft::fuzzing::peer_frames(bytes);
    ledger_node::fuzzing::peer_body(bytes);
});
