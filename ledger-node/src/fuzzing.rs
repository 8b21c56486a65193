//! What fuzzing calls with any bytes, and an ordinary test with those of a checked-in corpus (`fuzz/seeds`).
//!
//! **Owns** nothing that a server calls. **Must never** be more lenient than the code it calls. **Read next**: `ledger_core::fuzzing`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger_proto::v1::call::Verb;
use ledger_proto::{calls, v1};
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::Disk;

use crate::data_dir::DataDir;
use crate::feed::cursor::Cursor;
use crate::history::backfill::{Ask, Given};
use crate::history::store::{Note, RecordStore, Stored};
use crate::history::{History, KeptHistory, PageBounds, Retention};
use crate::http::bodies::{self, read};
use crate::{meta, peers};

/// Records of one input that are stored.
const RECORDS_MAX: usize = 256;

/// A header of HTTP, and a body, read for each route that has one; what it asks for goes through
/// the same checks as on the wire.
pub fn http_body(bytes: &[u8]) {
    http_header(bytes);
    let body = Bytes::copy_from_slice(bytes);
    if let Ok(reserve) = read::<bodies::ReserveBody>(&body) {
        let (keys, hold_ms) = (reserve.keys, reserve.hold_ms.unwrap_or(0));
        let lines = bodies::wire_lines(reserve.lines);
        let _refused = calls::command(Some(Verb::Reserve(v1::Reserve { id: Bytes::new(), keys, lines, hold_ms })));
        let _refused: Result<ledger_core::ReservationId, _> = reserve.id.unwrap_or_default().parse();
    }
    if let Ok(confirm) = read::<bodies::ConfirmBody>(&body) {
        let lines = confirm.lines.map(|lines| v1::Lines { lines: bodies::wire_lines(lines) });
        let _refused = calls::command(Some(Verb::Confirm(v1::Confirm { id: Bytes::new(), lines })));
    }
    if let Ok(product) = read::<bodies::ProductBody>(&body) {
        let policy = Some(product.policy.to_wire());
        let _refused = calls::command(Some(Verb::CreateProduct(v1::CreateProduct { sku: product.sku, policy })));
    }
    if let Ok(receive) = read::<bodies::ReceiveBody>(&body) {
        let offer = Some(v1::OfferKey { sku: "a".to_owned(), sale: receive.sale });
        let (units, reference) = (receive.units, receive.reference);
        let _refused = calls::command(Some(Verb::Receive(v1::Receive { offer, units, reference })));
    }
    if let Ok(adjust) = read::<bodies::AdjustBody>(&body) {
        let offer = Some(v1::OfferKey { sku: "a".to_owned(), sale: adjust.sale });
        let bodies::AdjustBody { delta, reason, reference, expected_version, .. } = adjust;
        let wire = v1::Adjust { offer, delta, reason, reference, expected_version };
        let _refused = calls::command(Some(Verb::Adjust(wire)));
    }
    let _refused = read::<bodies::ReturnBody>(&body).map(|back| bodies::wire_lines(back.lines.unwrap_or_default()));
    let _refused = read::<bodies::ExtendBody>(&body).is_ok() | read::<bodies::EmptyBody>(&body).is_ok();
}

/// A value of each header that decides whether a request is taken.
fn http_header(bytes: &[u8]) {
    let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return };
    for name in ["host", "origin", "sec-fetch-site", "content-type"] {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", http::HeaderValue::from_static("localhost:7102"));
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        headers.insert(name, value.clone());
        let head = (&http::Method::POST, &http::Uri::from_static("/v1/products"), &headers);
        let taken = crate::http::browser::check(head, false, |_| false).is_ok();
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let foreign = match name {
            "origin" => !text.contains("localhost:7102"),
            "sec-fetch-site" => text == "cross-site",
            "content-type" => !text.contains("json"),
            _ => false,
        };
        assert!(!taken || !foreign, "{name}: {text:?} was taken");
    }
}

/// What nodes ask of each other and answer, the meta group's entries, and cursors.
pub fn peer_body(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let _refused = peers::Question::decode(body.clone());
    let _refused = peers::decode_digests(body.clone());
    let _refused = peers::decode_leaders(body.clone());
    let _refused = Ask::decode(bytes);
    let _refused = Given::decode(body);
    let _refused = meta::codec::decode(bytes);
    let _refused = meta::codec::decode_placement(bytes);
    if let Ok(cursor) = Cursor::decode(bytes) {
        assert_eq!(Cursor::decode(&cursor.encode()).as_ref(), Ok(&cursor), "a cursor changed when it was written");
    }
}

/// A store of history that somebody else wrote: a note behind its length (two bytes), then records, each behind its index (four bytes) and its length
/// (two bytes). It is opened, begun at its newest index and read, or refused.
pub fn history(bytes: &[u8]) {
    let store = crate::history::memory::MemoryStore::new();
    let mut rest = bytes;
    let note = take(&mut rest, 2);
    let _refused = Note::decode(note);
    let mut newest = 0;
    for _ in 0..RECORDS_MAX {
        let Some((index, tail)) = rest.split_first_chunk::<4>() else { break };
        rest = tail;
        let index = u64::from(u32::from_le_bytes(*index));
        let record = Bytes::copy_from_slice(take(&mut rest, 2));
        newest = newest.max(index);
        store.put(&[Stored { shard: 1, index, bytes: record }]).expect("memory takes it");
    }
    store.put_note(1, note).expect("memory takes it");
    let keep = Retention { keep: Duration::from_secs(3_600), bytes_max: 1 << 20 };
    let Ok(history) = KeptHistory::inline(store, keep) else { return };
    history.begin(1, newest, 0);
    let bounds = PageBounds { records: 16, bytes: 4_096 };
    let mut from = 0;
    while let Ok(page) = history.read(1, from, bounds) {
        if page.next <= from {
            break;
        }
        from = page.next;
    }
    let _refused = history.last_up_to(1, newest);
    let _refused = history.record_at(1, newest);
    history.append(1, newest.saturating_add(1), None);
    history.coverage(1);
}

/// As many bytes as the first `len` say, or as there are.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let head = &rest[..len.min(rest.len())];
    let said = head.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let body = &rest[head.len()..];
    let (taken, left) = body.split_at(said.min(body.len()));
    *rest = left;
    taken
}

/// The file that says whose a data directory is: opened and refused, or believed and written again as the same.
pub fn identity(bytes: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let path = Path::new("/data");
    let placed = disk.create_dir_all(path).and_then(|()| {
        let file = disk.open(&path.join(crate::data_dir::STAMP), true)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        disk.sync_dir(path)
    });
    placed.expect("a simulated disk takes it");
    let Ok((directory, Some(stamp))) = DataDir::open(disk, path, None) else { return };
    directory.stamp(&stamp).expect("the same identity");
    let _refused = directory.identity(Some(&stamp), &ledger_raft::seam_real::SystemRandom).is_ok();
    let again = directory.present().expect("what was written can be read");
    assert_eq!(again.as_ref(), Some(&stamp), "an identity changed when it was written");
}
