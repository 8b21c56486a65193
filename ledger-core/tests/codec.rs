//! Entries and records as bytes: round trips, golden bytes, and bytes that nobody wrote.
//!
//! **Owns** the frozen forms under `golden/`: they change only with the format version.
//! **Must never** be rewritten to fit the code. **Read next**: `codec_bounds.rs`.

mod arbitrary;

use bytes::Bytes;
use ledger_core::codec::{CodecError, chain_after, decode_entry, decode_record, encode_entry};
use ledger_core::outcome::Outcome;
use ledger_core::{Command, Entry, Ledger, LedgerTime, Refusal};
use proptest::prelude::*;

const STAMP: LedgerTime = LedgerTime(1_700_000_000_000);

fn decode(bytes: &[u8]) -> Result<Vec<Command>, CodecError> {
    decode_entry(STAMP, bytes).map(|Entry { stamp, commands }| {
        assert_eq!(stamp, STAMP, "the stamp travels beside the bytes");
        commands
    })
}

/// The records that a ledger writes for a day.
fn records() -> Vec<Bytes> {
    let mut ledger = Ledger::new(3, 9, ledger_core::IndexSeed(7));
    let day = arbitrary::a_day();
    day.iter().zip(1..).filter_map(|(entry, index)| ledger.apply(1, index, entry).record).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn entries_survive_the_way_there_and_back(commands in arbitrary::batch()) {
        let bytes = encode_entry(&commands);
        prop_assert_eq!(decode(&bytes).expect("own entry decodes"), commands);
    }

    #[test]
    fn every_cut_of_an_entry_is_an_error(commands in arbitrary::batch()) {
        let bytes = encode_entry(&commands);
        for cut in 0..bytes.len() {
            prop_assert!(decode(&bytes[..cut]).is_err(), "{cut} of {} bytes decode", bytes.len());
        }
    }

    #[test]
    fn bytes_after_an_entry_are_an_error(
        commands in arbitrary::batch(),
        tail in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut bytes = encode_entry(&commands).to_vec();
        bytes.extend(tail);
        prop_assert!(decode(&bytes).is_err(), "bytes were lost in silence");
    }

    /// What decodes must be what the encoder would write: one entry has one form, and newtypes hold what they promise.
    #[test]
    fn changed_bytes_never_panic_and_never_decode_to_what_cannot_be_encoded(
        commands in arbitrary::batch(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode_entry(&commands).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(decoded) = decode(&bytes) {
            let again = encode_entry(&decoded);
            prop_assert_eq!(decode(&again).expect("re-encoded decodes"), decoded);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
        let _ = decode_record(&bytes);
        let _ = Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7));
    }

    #[test]
    fn changed_records_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in any::<prop::sample::Index>(),
    ) {
        let written = records();
        let mut bytes = written[which.index(written.len())].to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode_record(&bytes);
    }
}

#[test]
fn records_decode_in_chain_and_their_cuts_do_not() {
    let mut chain = 0;
    let written = records();
    assert!(written.len() > 10, "a day has many records, not {}", written.len());
    for bytes in written {
        let record = decode_record(&bytes).expect("own record decodes");
        assert_eq!(record.chain_before, chain, "{:?}", record.position);
        assert_eq!((record.position.incarnation, record.position.shard, record.position.place), (3, 9, 0));
        chain = chain_after(chain, &bytes);
        for cut in 0..bytes.len() {
            assert!(decode_record(&bytes[..cut]).is_err(), "{cut} of {} bytes of a record decode", bytes.len());
        }
    }
}

#[test]
fn a_newer_format_is_named_as_such() {
    for bytes in [encode_entry(&[Command::Tick]), records()[0].clone()] {
        // The version leads, so that a build that does not know it can say so whatever follows.
        let newer = |mut b: Vec<u8>| {
            b[0] = 0xee;
            b
        };
        let (entry, record) = (decode(&newer(bytes.to_vec())), decode_record(&newer(bytes.to_vec())));
        assert!(matches!(entry, Err(CodecError::UnknownVersion { .. })), "entry: {entry:?}");
        assert!(matches!(record, Err(CodecError::UnknownVersion { .. })), "record: {record:?}");
    }
}

/// Every command has its frozen bytes.
#[test]
fn commands_have_the_bytes_they_always_had() {
    let golden = include_str!("golden/commands-v1.txt");
    let mut frozen = golden.lines().filter(|l| !l.starts_with('#'));
    let mut printed = String::new();
    for (name, command) in arbitrary::one_of_each() {
        let bytes = encode_entry(std::slice::from_ref(&command));
        let line = format!("{name} {}", hex(&bytes));
        printed += &format!("{line}\n");
        let want = frozen.next().unwrap_or_else(|| panic!("no golden bytes for {name}; the line would be\n{line}"));
        assert_eq!(line, want, "the bytes of {name} changed: that needs a new format version");
        assert_eq!(decode(&bytes).expect("golden bytes decode"), [command]);
    }
    assert_eq!(frozen.next(), None, "golden bytes of a command that is gone; all now:\n{printed}");
}

/// Every record of a scripted day has its frozen bytes.
#[test]
fn records_have_the_bytes_they_always_had() {
    let golden = include_str!("golden/records-v3.txt");
    let printed: Vec<String> = records().iter().map(|b| hex(b)).collect();
    let frozen: Vec<&str> = golden.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(printed, frozen, "records changed: that needs a new format version; all now:\n{}", printed.join("\n"));
}

/// The day must contain every kind of change, else its golden bytes freeze less than they seem to.
#[test]
fn the_day_has_every_kind_of_change() {
    let mut seen = std::collections::BTreeSet::new();
    for bytes in records() {
        let record = decode_record(&bytes).expect("decodes");
        seen.extend(record.changes.iter().map(|c| c.kind.name()));
    }
    assert_eq!(seen.len(), 36, "{seen:?}");
}

/// A state cut anywhere, or with any one byte changed, is refused: its digest is checked.
#[test]
fn a_damaged_state_does_not_thaw() {
    let mut ledger = Ledger::new(3, 9, ledger_core::IndexSeed(7));
    for (entry, index) in arbitrary::a_day().iter().zip(1..) {
        let applied = ledger.apply(1, index, entry);
        // All but the last before time has passed, which must be in the feed as an attempt.
        let refused = applied.outcomes.iter().find(|o| !matches!(o, Outcome::Ok(_)));
        let last = matches!(refused, Some(Outcome::Refused(Refusal::SoldOut { .. })));
        assert_eq!(
            last,
            index + 1 == arbitrary::a_day().len() as u64,
            "every command of the day is taken: {refused:?}"
        );
    }
    let mut whole = Vec::new();
    ledger.freeze().write(&mut whole).expect("memory takes bytes");
    let mut thawed = Ledger::thaw(&mut whole.as_slice(), ledger_core::IndexSeed(7)).expect("whole state thaws");
    assert_eq!(thawed.digest(), ledger.digest());
    for cut in 0..whole.len() {
        assert!(
            Ledger::thaw(&mut &whole[..cut], ledger_core::IndexSeed(7)).is_err(),
            "{cut} of {} bytes thaw",
            whole.len()
        );
    }
    for at in 0..whole.len() {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            assert!(
                Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7)).is_err(),
                "byte {at} changed by {flip:#x}, and the state thaws"
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
