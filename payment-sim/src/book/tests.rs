//! The journal on disk: its bytes, its tail, its damage.

use std::path::Path;

use serde_json::value::RawValue;

use super::journal::{self, OpenError};
use super::records::*;
use super::shelf::Shelf;
use super::*;
use crate::ids::Id;
use crate::methods::Method;

const SALT: u32 = 7;

fn intent(number: u32) -> Intent {
    Intent {
        id: IntentId::new(SALT, number),
        created_ms: 1_700_000_000_123,
        status: Status::RequiresConfirmation,
        amount: Minor::new(4_900),
        currency: "eur".parse().expect("a currency"),
        capture: CaptureMethod::Automatic,
        method: Method::named("pm_card_visa"),
        received: Minor::ZERO,
        capturable: Minor::ZERO,
        charge: None,
        failure: None,
        canceled_ms: None,
        why: None,
        description: None,
        return_url: None,
        metadata: Metadata::new(vec![("order".into(), format!("o-{number}").into())]),
    }
}

fn entry(number: u32) -> Entry {
    Entry { at_ms: 1_700_000_000_123, intent: Some(intent(number)), ..Entry::default() }
}

async fn put(shelf: &Shelf, entry: Entry) -> Place {
    let (place, ticket) = shelf.put(&mut shelf.lock(), entry).expect("it can be written");
    ticket.on_disk().await.expect("it is written");
    place
}

async fn three_in(dir: &Path) {
    let shelf = Shelf::open(dir, SALT, 0, true).expect("a new book");
    for number in 0..3 {
        put(&shelf, entry(number)).await;
    }
    shelf.close().await;
}

fn open(dir: &Path) -> Result<Shelf, OpenError> {
    Shelf::open(dir, 99, 0, true)
}

/// What is on disk stays readable: if this fails, the format's version has to go up.
#[test]
fn a_line_is_these_bytes() {
    let mut entry = entry(0);
    let body = RawValue::from_string("{\"error\":{}}".to_owned()).expect("JSON");
    entry.key = Some(KeyUse { key: "k".into(), print: 9, status: 500, answer: KeptAnswer::Body(body) });
    entry.events = vec![Event { id: Id::new(SALT, 0), kind: EventKind::Succeeded, send: true }];
    let mut line = Vec::new();
    journal::append(&mut line, 0, 17, &entry).expect("memory can be written");
    let text = String::from_utf8(line).expect("UTF-8");
    let (crc, rest) = text.split_at(18);
    assert_eq!(
        rest,
        "\"n\":17,\"entry\":{\"at_ms\":1700000000123,\"key\":{\"key\":\"k\",\"print\":9,\"status\":500,\"answer\":{\"body\":\
         {\"error\":{}}}},\"intent\":{\"id\":\"pi_aq8iHJmrcQK6FXjWYsGnDGxY\",\"created_ms\":1700000000123,\
         \"status\":\"requires_confirmation\",\"amount\":4900,\"currency\":\"eur\",\"capture\":\"automatic\",\
         \"method\":\"pm_card_visa\",\"metadata\":{\"order\":\"o-0\"}},\"events\":[{\"id\":\"evt_lQjLjEcMij9yEJF4x4v5OhoT\",\
         \"kind\":\"payment_intent.succeeded\",\"send\":true}]}}\n"
    );
    assert_eq!(crc, "{\"crc\":\"6fa019c0\",");
}

#[tokio::test]
async fn what_was_put_is_there_after_opening_again() {
    let dir = tempfile::tempdir().expect("a directory");
    three_in(dir.path()).await;
    let shelf = open(dir.path()).expect("the same book");
    let place = {
        let locked = shelf.lock();
        assert_eq!(locked.book.salt(), SALT, "the salt is the book's, not the opener's");
        assert_eq!(locked.book.intents().len(), 3);
        let found: Vec<_> = locked.book.with_metadata("order", "o-1").map(|row| row.intent.clone()).collect();
        assert_eq!(found, [intent(1)]);
        locked.book.intents()[2].changed
    };
    assert_eq!(shelf.read(place).expect("its line").intent, Some(intent(2)));
    put(&shelf, entry(3)).await;
}

#[tokio::test]
async fn a_torn_last_line_is_cut_at_any_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    three_in(dir.path()).await;
    let path = dir.path().join(journal::FILE);
    let whole = std::fs::read(&path).expect("the journal");
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').expect("lines") + 1;
    for end in last..whole.len() {
        std::fs::write(&path, &whole[..end]).expect("written");
        let shelf = open(dir.path()).expect("the torn line is cut");
        assert_eq!(shelf.lock().book.intents().len(), 2, "cut at {end} of {}", whole.len());
        put(&shelf, entry(2)).await;
        shelf.close().await;
        assert_eq!(std::fs::read(&path).expect("the journal"), whole);
    }
}

#[tokio::test]
async fn damage_elsewhere_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    three_in(dir.path()).await;
    let path = dir.path().join(journal::FILE);
    let whole = std::fs::read(&path).expect("the journal");
    for at in (0..whole.len() - 1).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).expect("written");
        let refused = open(dir.path()).err().unwrap_or_else(|| panic!("a flipped bit at {at} went unseen"));
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains(journal::FILE), "{refused}");
        assert_eq!(std::fs::read(&path).expect("the journal"), bad, "what is damaged is left alone");
    }
    let second = whole.iter().position(|b| *b == b'\n').expect("lines") + 1;
    let third = second + whole[second..].iter().position(|b| *b == b'\n').expect("lines") + 1;
    std::fs::write(&path, [&whole[..second], &whole[third..]].concat()).expect("written");
    let Err(refused) = open(dir.path()) else { panic!("a missing line went unseen") };
    assert!(refused.to_string().contains("line 2") && refused.to_string().contains("numbered 2, not 1"), "{refused}");
}

#[tokio::test]
async fn a_book_has_one_keeper() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = open(dir.path()).expect("a new book");
    assert!(matches!(open(dir.path()), Err(OpenError::InUse { .. })));
    shelf.close().await;
    open(dir.path()).expect("it is free again");
}
