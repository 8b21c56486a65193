//! A snapshot and its file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ledger_core::fuzzing::snapshot(bytes);
    ledger_raft::fuzzing::snapshot_file(bytes);
});
