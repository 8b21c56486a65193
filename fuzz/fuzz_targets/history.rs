//! Records of history and their store.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ledger_core::fuzzing::record(bytes);
    ledger_node::fuzzing::history(bytes);
});
