//! The file that says whose a data directory is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_node::fuzzing::identity(bytes));
