//! An entry that cannot be decoded is passed over as a tick is, but for the change that says so.

use bytes::Bytes;
use ledger_core::change::{ChangeKind, EntryFault};
use ledger_core::codec::{CodecError, chain_after, decode_entry, decode_record, encode_entry, entry_hash};
use ledger_core::types::{LedgerTime, Line, OfferKey, Policy, Quantity, Reference, ReservationId, Sku, Slot, Units};
use ledger_core::view::IdView;
use ledger_core::{Command, Entry, Ledger};

const BEGIN: u64 = 1_700_000_000_000;

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1, 1, ledger_core::IndexSeed(7));
    let (sku, slot) = (Sku::new("mug").expect("a sku"), |n| Slot::new(n).expect("a slot"));
    let offer = OfferKey { sku: sku.clone(), sale: None };
    let line = Line { offer: offer.clone(), quantity: Quantity::new(2).expect("two") };
    let id = ReservationId::from_parts(Slot::of(&sku), BEGIN, 1);
    let commands = vec![
        Command::OwnSlots { generation: 1, ranges: vec![(slot(0), slot(4095))] },
        Command::CreateProduct { sku, policy: Policy::default() },
        Command::Receive { offer, units: Units::new(9).expect("nine"), reference: Reference::new("r").expect("one") },
        Command::Reserve {
            id,
            keys: [].into_iter().collect(),
            lines: [line].into_iter().collect(),
            hold_ms: Some(1000),
        },
    ];
    ledger.apply(1, 1, &Entry { stamp: LedgerTime(BEGIN), commands });
    ledger
}

/// A byte follows the end.
fn malformed() -> Bytes {
    let mut bytes = encode_entry(&[Command::Tick]).to_vec();
    bytes.push(7);
    bytes.into()
}

#[test]
fn a_refused_entry_passes_time_as_a_tick_does_and_says_what_it_was() {
    let (mut refused, mut ticked) = (ledger(), ledger());
    let (stamp, bytes) = (LedgerTime(BEGIN + 5000), malformed());
    let chain = refused.chain();
    let done = refused.apply_refused(1, 2, stamp, &bytes);
    let tick = ticked.apply(1, 2, &Entry { stamp, commands: vec![Command::Tick] });
    assert_eq!((done.time, done.outcomes.len()), (tick.time, 0));
    let record = decode_record(done.record.as_ref().expect("it is recorded")).expect("a record");
    let expired = decode_record(tick.record.as_ref().expect("a hold expired")).expect("a record");
    assert_eq!(record.changes[..1], expired.changes[..], "sweeps go on");
    let fault = ChangeKind::EntryRefused {
        hash: entry_hash(stamp, &bytes),
        bytes: bytes.len() as u64,
        error: EntryFault::Malformed,
    };
    assert_eq!(record.changes[1].kind, fault);
    assert_eq!(record.changes.len(), 2);
    assert_eq!(refused.chain(), chain_after(chain, done.record.as_ref().expect("it is recorded")));
    assert!(refused.audit().findings.is_empty());
    assert_eq!(refused.totals(), ticked.totals());
    assert_eq!((refused.position(), refused.next_due()), (ticked.position(), ticked.next_due()));
    assert_eq!(refused.products(None, 9), ticked.products(None, 9));
    let mut bytes = Vec::new();
    refused.freeze().write(&mut bytes).expect("written to memory");
    let restored =
        Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(7)).expect("a snapshot, its digest the one written");
    assert_eq!(restored.chain(), refused.chain());
}

#[test]
fn every_replica_records_the_same_and_remembers_no_id() {
    let (mut one, mut two) = (ledger(), ledger());
    let (stamp, bytes) = (LedgerTime(BEGIN + 1), malformed());
    let (a, b) = (one.apply_refused(1, 2, stamp, &bytes), two.apply_refused(1, 2, stamp, &bytes));
    assert_eq!(a.record, b.record);
    assert_eq!(one.digest(), two.digest());
    let id = ReservationId::from_parts(Slot::of(&Sku::new("mug").expect("a sku")), BEGIN, 2);
    assert!(matches!(one.id(id), IdView::Unknown), "{:?}", one.id(id));
}

#[test]
fn what_a_newer_build_may_know_is_told_from_what_is_malformed() {
    let unsupported = |bytes: &[u8]| decode_entry(LedgerTime(1), bytes).expect_err("not an entry").is_unsupported();
    assert!(unsupported(&[2, 0, 0, 0, 0]), "a format");
    assert!(unsupported(&[1, 1, 0, 0, 0, 240]), "a command");
    let mut switch = encode_entry(&[Command::SwitchBehaviour { version: 1 }]).to_vec();
    *switch.last_mut().expect("the version") = 200;
    assert!(unsupported(&switch), "a behaviour");
    assert!(!unsupported(&malformed()));
    assert!(!unsupported(&[]));
    let large = vec![1; ledger_core::limits::ENTRY_BYTES_MAX + 1];
    assert!(matches!(decode_entry(LedgerTime(1), &large), Err(CodecError::TooLarge { .. })));
    let done = ledger().apply_refused(1, 2, LedgerTime(BEGIN), &large);
    let record = decode_record(&done.record.expect("it is recorded")).expect("a record");
    let recorded = matches!(record.changes[0].kind, ChangeKind::EntryRefused { error: EntryFault::TooLarge, .. });
    assert!(recorded, "{record:?}");
}
