//! Bytes that declare more than they have must not make the decoder allocate it. One test, alone in its process: the
//! allocator's peak is the process's.
//!
//! **Owns** the bound on allocation. **Must never** share its process with another test. **Read next**: `codec.rs`.

mod arbitrary;

use ledger_core::codec::{CodecError, ENTRY_VERSION, RECORD_VERSION, decode_entry, decode_record, encode_entry};
use ledger_core::{Command, Ledger, LedgerTime, limits};
use peak_alloc::PeakAlloc;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// What decoding a few hundred bytes may take: commands are larger in memory than in bytes, a vector may double.
const ALLOWED: usize = 256 << 10;
/// What reading a state may take besides: an empty ledger has a place for every slot and tables for its indexes.
const EMPTY_LEDGER: usize = 512 << 10;

fn peak_of<T>(what: &str, decode: impl FnOnce() -> T) {
    let before = PEAK.current_usage();
    PEAK.reset_peak_usage();
    drop(decode());
    let grown = PEAK.peak_usage().saturating_sub(before);
    let allowed = if what == "a state" { ALLOWED + EMPTY_LEDGER } else { ALLOWED };
    assert!(grown <= allowed, "{what} made the decoder allocate {grown} bytes");
}

const LIES: [&[u8]; 6] = [&[0xff; 1], &[0xff; 4], &[0xff; 8], &[0xfd; 9], &[0xfc; 5], &[0xfb; 3]];

/// Whatever byte says how long something is: let it and those after it say "very long".
fn lie_everywhere(what: &str, valid: &[u8], decode: impl Fn(&[u8])) {
    let step = (valid.len() / 4_000).max(1);
    for at in (0..valid.len()).step_by(step) {
        for lie in LIES {
            let mut bytes = valid.to_vec();
            let end = (at + lie.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&lie[..end - at]);
            peak_of(what, || decode(&bytes));
        }
    }
}

#[test]
fn declared_lengths_are_checked_before_they_are_believed() {
    let decode = |bytes: &[u8]| drop(decode_entry(LedgerTime(1), bytes));
    let all: Vec<Command> = arbitrary::one_of_each().into_iter().map(|(_, c)| c).collect();
    lie_everywhere("an entry", &encode_entry(&all), decode);
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let commands = arbitrary::batch().new_tree(&mut runner).expect("a batch").current();
        lie_everywhere("an entry", &encode_entry(&commands), decode);
    }

    let mut ledger = Ledger::new(1, 1, ledger_core::IndexSeed(7));
    for (entry, index) in arbitrary::a_day().iter().zip(1..) {
        if let Some(record) = ledger.apply(1, index, entry).record {
            lie_everywhere("a record", &record, |bytes| drop(decode_record(bytes)));
        }
    }
    let mut state = Vec::new();
    ledger.freeze().write(&mut state).expect("memory takes bytes");
    lie_everywhere("a state", &state, |mut bytes| drop(Ledger::thaw(&mut bytes, ledger_core::IndexSeed(7))));
    too_large_is_said_before_it_is_read();
    another_format_is_not_measured_by_the_bounds_of_this_one();
}

fn too_large_is_said_before_it_is_read() {
    let mut bytes = encode_entry(&[Command::Tick]).to_vec();
    bytes.resize(limits::ENTRY_BYTES_MAX + 1, 0);
    let mut record = vec![0; limits::RECORD_BYTES_MAX + 1];
    record[0] = RECORD_VERSION as u8;
    // The encoder makes no such entry: version, count, and a byte for each tick.
    let count = limits::COMMANDS_PER_ENTRY_MAX as u32 + 1;
    let many = [&[ENTRY_VERSION as u8][..], &count.to_le_bytes(), &vec![0; count as usize]].concat();
    let too_large = |what: &str, decode: &dyn Fn() -> Option<CodecError>| {
        peak_of(what, || {
            let got = decode();
            assert!(matches!(got, Some(CodecError::TooLarge { .. })), "{what}: {got:?}");
        });
    };
    too_large("an entry with more bytes", &|| decode_entry(LedgerTime(1), &bytes).err());
    too_large("an entry with more commands", &|| decode_entry(LedgerTime(1), &many).err());
    too_large("a record with more bytes", &|| decode_record(&record).err());
}

/// What a later format may hold is not known here.
fn another_format_is_not_measured_by_the_bounds_of_this_one() {
    let unknown = |what: &str, decode: &dyn Fn() -> Option<CodecError>| {
        peak_of(what, || {
            let got = decode();
            assert!(got.as_ref().is_some_and(CodecError::is_unsupported), "{what}: {got:?}");
        });
    };
    let later = vec![250; limits::RECORD_BYTES_MAX + 1];
    unknown("a large entry of a later format", &|| decode_entry(LedgerTime(1), &later).err());
    unknown("a large record of a later format", &|| decode_record(&later).err());
}
