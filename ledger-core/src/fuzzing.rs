//! What fuzzing calls with any bytes, and an ordinary test with those of a checked-in corpus (`fuzz/seeds`).
//!
//! **What it is.** One function a kind of bytes. Each ends, whatever the bytes, without a panic; what can be read must be what is written again. Where a
//! checksum would keep nearly all of the tries out, the bytes are read once as they are and once with their sums made right.
//!
//! **Owns** nothing that a server calls. **Must never** be more lenient than the code it calls. **Read next**: `fuzz/README.md`.

use std::fmt::Write as _;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{decode_entry, decode_record, encode_entry};
use crate::command::{Command, Entry};
use crate::types::{LedgerTime, OfferKey, Policy, Reference, Sku, Slot, Units};
use crate::{Ledger, limits};

/// Ledger time at which a fuzzed ledger begins.
const BEGAN: u64 = 1_767_225_600_000;
/// A digest of the whole state is compared with a copy's after so many entries at most.
const ENTRIES_MAX: usize = 64;

/// An entry's body: what can be decoded is encoded to the same bytes.
pub fn entry(bytes: &[u8]) {
    let Ok(entry) = decode_entry(LedgerTime(BEGAN), bytes) else { return };
    let again = encode_entry(&entry.commands);
    let read = decode_entry(LedgerTime(BEGAN), &again).expect("what was decoded can be decoded again");
    assert_eq!(read, entry, "an entry changed when it was written and read again");
}

/// A few entries, each behind its length (two bytes) and the time that passes before it (two bytes, in 16 ms), applied to a ledger with goods;
/// then the ledger is audited, written and read back.
pub fn entries(mut bytes: &[u8]) {
    let mut ledger = stocked();
    for index in 2..2 + ENTRIES_MAX as u64 {
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else { break };
        let len = usize::from(u16::from_le_bytes([head[0], head[1]])).min(rest.len());
        let passed = u64::from(u16::from_le_bytes([head[2], head[3]])) * 16;
        let body = &rest[..len];
        bytes = &rest[len..];
        entry(body);
        let stamp = LedgerTime(ledger.time().0 + passed);
        let Ok(entry) = decode_entry(stamp, body) else { continue };
        let applied = ledger.apply(1, index, &entry);
        assert_eq!(applied.outcomes.len(), entry.commands.len(), "each command has one outcome");
        if let Some(record) = applied.record {
            decode_record(&record).expect("a record of ours can be read");
        }
    }
    whole(&mut ledger);
}

/// A ledger that owns all slots and has goods.
fn stocked() -> Ledger {
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
    let slot = |n| Slot::new(n).expect("a slot");
    let mut commands = vec![Command::OwnSlots { generation: 1, ranges: vec![(slot(0), slot(limits::SLOTS - 1))] }];
    for text in ["a", "{q}a", "{q}b"] {
        let sku = Sku::new(text).expect("a SKU");
        commands.push(Command::CreateProduct { sku: sku.clone(), policy: Policy::default() });
        commands.push(Command::Receive {
            offer: OfferKey { sku, sale: None },
            units: Units::new(1_000).expect("units"),
            reference: Reference::new("opening").expect("a reference"),
        });
    }
    ledger.apply(1, 1, &Entry { stamp: LedgerTime(BEGAN), commands });
    ledger
}

/// The ledger's own audit finds nothing, and what it writes is read back as the same.
fn whole(ledger: &mut Ledger) {
    let mut findings = String::new();
    for finding in ledger.audit().findings {
        let _infallible = writeln!(findings, "{finding:?}");
    }
    assert!(findings.is_empty(), "{findings}");
    let mut bytes = Vec::new();
    ledger.freeze().write(&mut bytes).expect("a buffer takes all");
    let mut copy = Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(7)).expect("a snapshot of ours can be read");
    assert_eq!(copy.digest().value, ledger.digest().value, "the copy is another ledger");
}

/// A history record.
pub fn record(bytes: &[u8]) {
    let _refused = decode_record(bytes);
}

/// A snapshot, as it is and with the checksums of its frames made right.
pub fn snapshot(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_right_sums(bytes)] {
        if let Ok(mut ledger) = Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(7)) {
            let _found = ledger.audit();
            ledger.totals();
            let mut again = Vec::new();
            ledger.freeze().write(&mut again).expect("a buffer takes all");
        }
    }
}

fn with_right_sums(bytes: &[u8]) -> Vec<u8> {
    const MAGIC: usize = 8;
    const HEAD: usize = 12;
    let mut bytes = bytes.to_vec();
    let mut at = MAGIC;
    while let Some(head) = bytes.get(at..at + HEAD) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = bytes.get(at + HEAD..(at + HEAD).saturating_add(len)) else { break };
        let sum = xxh3_64(payload);
        bytes[at + 4..at + HEAD].copy_from_slice(&sum.to_le_bytes());
        at += HEAD + len;
    }
    bytes
}

/// Bytes to begin a corpus with.
#[derive(Debug)]
pub struct Seeds {
    /// Entries as [`entries`] takes them.
    pub entries: Vec<u8>,
    /// The snapshot of a ledger to which they were applied.
    pub snapshot: Vec<u8>,
    /// The records that they made, by index.
    pub records: Vec<(u64, Bytes)>,
}

/// Seeds of these entries.
pub fn seeds(entries_of: &[&[Command]]) -> Seeds {
    let mut ledger = stocked();
    let mut seeds = Seeds { entries: Vec::new(), snapshot: Vec::new(), records: Vec::new() };
    for (index, commands) in (2..).zip(entries_of) {
        let body = encode_entry(commands);
        seeds.entries.extend((body.len() as u16).to_le_bytes());
        seeds.entries.extend(10u16.to_le_bytes());
        seeds.entries.extend_from_slice(&body);
        let stamp = LedgerTime(ledger.time().0 + 160);
        let applied = ledger.apply(1, index, &Entry { stamp, commands: commands.to_vec() });
        seeds.records.extend(applied.record.map(|record| (index, record)));
    }
    ledger.freeze().write(&mut seeds.snapshot).expect("a buffer takes all");
    seeds
}
