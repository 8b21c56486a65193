//! What clients send over HTTP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_node::fuzzing::http_body(bytes));
