//! What clients send over gRPC.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_proto::fuzzing::client_frame(bytes));
