//! A segment of the write-ahead log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_raft::fuzzing::wal(bytes));
