//! A change as a CloudEvent: its id, its routing key, its bytes.
//!
//! **What it is.** CloudEvents 1.0, JSON, structured: the whole event is the message's body. The id is the change's place in the log,
//! so that the same change has the same id however often it is sent, by whichever bridge.
//! **Owns** ids, types, subjects, routing keys. **Must never** need to know a kind of change: all is made of the change's document.
//! **Read next**: [`client_sdk::document`], [`crate::window`].

use std::collections::BTreeMap;

use bytes::Bytes;
use client_sdk::document::{ChangeDocument, instant};
use client_sdk::{Happened, LedgerTime, Position, ReservationId, Sku, Slot};
use serde::{Deserialize, Serialize};

/// How the body is to be read.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// In front of a change's name.
const TYPE_PREFIX: &str = "holdfast.";
/// In a routing key, for a change that names no product; a SKU never is encoded to it.
const NO_PRODUCT: &str = "-";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Incarnation, shard, index, place, and which change of its entry: the same however often it is sent.
    pub id: String,
    /// `holdfast.` and the change's name.
    pub kind: String,
    /// [`Event::kind`] and the product.
    pub routing_key: String,
    /// The event as JSON.
    pub body: Bytes,
    /// When it happened.
    pub time: LedgerTime,
    /// What keeps its order: the slot, in which all of a product and of a reservation lives.
    pub lane: Slot,
}

/// Counts the changes of each shard's newest entry, for their ids. Stored with the cursor: a cursor may lie inside an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted(BTreeMap<u32, (u64, u32)>);

impl Counted {
    /// Which change of its entry this is, from 0; every change of the feed must be asked about, in order, filtered or not.
    pub fn nth(&mut self, at: Position) -> u32 {
        let (index, next) = self.0.entry(at.shard).or_default();
        if *index != at.index {
            (*index, *next) = (at.index, 0);
        }
        *next += 1;
        *next - 1
    }
}

/// Which changes are published; all when both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of changes, as `SoldOut`.
    pub types: Vec<String>,
    /// Products.
    pub skus: Vec<Sku>,
}

impl Filter {
    fn takes(&self, change: &ChangeDocument, lane: Slot) -> bool {
        let wanted = |sku: &str| self.skus.iter().any(|wanted| wanted.as_str() == sku);
        let of_type = self.types.is_empty() || self.types.iter().any(|name| name == change.name);
        let of_product = match (&change.sku, change.lines.is_empty()) {
            _ if self.skus.is_empty() => true,
            // It names a reservation alone: rather one too many than one lost, as the ledger's own watch does.
            (None, true) => self.skus.iter().any(|sku| Slot::of(sku) == lane),
            (sku, _) => sku.iter().any(|sku| wanted(sku)) || change.lines.iter().any(|line| wanted(&line.sku)),
        };
        of_type && of_product
    }
}

/// Makes events of changes.
#[derive(Debug, Clone)]
pub struct Renderer {
    /// The events' `source`.
    pub source: String,
    /// What is published.
    pub filter: Filter,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a ChangeDocument,
}

impl Renderer {
    /// The event of a change; none when it is filtered away.
    ///
    /// # Errors
    /// The change has no JSON form, or names neither a product nor a reservation: this build is too old for it.
    pub fn event(&self, happened: &Happened, counted: &mut Counted) -> Result<Option<Event>, Unpublishable> {
        let at = happened.position;
        let nth = counted.nth(at);
        let change = ChangeDocument::from(happened);
        let lane = lane(&change).ok_or(Unpublishable {
            name: change.name,
            at,
            why: "it names no product and no reservation",
        })?;
        if !self.filter.takes(&change, lane) {
            return Ok(None);
        }
        let id = format!("{}-{}-{}-{}-{nth}", at.incarnation, at.shard, at.index, at.place);
        let kind = format!("{TYPE_PREFIX}{}", change.name);
        let cloud_event = CloudEvent {
            specversion: "1.0",
            id: &id,
            source: &self.source,
            kind: &kind,
            subject: change.reservation.as_deref().or(change.sku.as_deref()).unwrap_or_default(),
            time: instant(happened.time.0),
            datacontenttype: "application/json",
            data: &change,
        };
        let body = serde_json::to_vec(&cloud_event).map_err(|_| Unpublishable {
            name: change.name,
            at,
            why: "it has no JSON form",
        })?;
        let product = change.sku.as_deref().map_or(NO_PRODUCT.to_owned(), routing_word);
        let routing_key = format!("{kind}.{product}");
        Ok(Some(Event { id, kind, routing_key, body: body.into(), time: happened.time, lane }))
    }
}

/// A change that cannot be published; going on would skip it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} at {at:?} cannot be published: {why}; hint: use a newer build, it goes on from the stored cursor")]
pub struct Unpublishable {
    name: &'static str,
    at: Position,
    why: &'static str,
}

/// The slot: of the reservation's id, or of the product. The lines of a reservation all live in its slot.
fn lane(change: &ChangeDocument) -> Option<Slot> {
    let of_id = change.reservation.as_deref().and_then(|id| id.parse::<ReservationId>().ok()).map(|id| id.slot());
    of_id.or_else(|| change.sku.as_deref().and_then(|sku| Sku::new(sku).ok()).map(|sku| Slot::of(&sku)))
}

/// A SKU as one word of a routing key: what is not a letter, a digit, `-` or `_` as `%` and two hexadecimal digits a byte, since `.`, `*` and
/// `#` mean something to a topic exchange.
fn routing_word(sku: &str) -> String {
    if sku == NO_PRODUCT {
        return "%2D".to_owned();
    }
    let mut word = String::with_capacity(sku.len());
    for byte in sku.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => word.push(char::from(byte)),
            other => word.push_str(&format!("%{other:02X}")),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use client_sdk::{Balance, Change, ChangeKind, OfferKey};

    use super::*;

    fn sold_out(sku: &str, index: u64, place: u16) -> Happened {
        let position = Position { incarnation: 1, shard: 2, term: 9, index, place };
        let offer = OfferKey { sku: Sku::new(sku).expect("sku"), sale: None };
        let kind = ChangeKind::SaleStarted { offer, balance: Balance { available: 5, held: 0, sold: 0 } };
        let change = Change { place, previous_on_products: Default::default(), previous_on_reservation: None, kind };
        Happened { position, time: LedgerTime(1_700_000_000_123), change }
    }

    fn extended(id: ReservationId) -> Happened {
        let kind = ChangeKind::ReservationExtended { id, deadline: LedgerTime(1_700_000_600_000) };
        Happened { change: Change { kind, ..sold_out("x", 7, 0).change }, ..sold_out("x", 7, 0) }
    }

    fn renderer(filter: Filter) -> Renderer {
        Renderer { source: "/holdfast/test".into(), filter }
    }

    /// Consumers read this: a change here is a change of what is published.
    #[test]
    fn the_event_of_a_change_is_stable() {
        let event = renderer(Filter::default()).event(&sold_out("shoe.42", 40, 5), &mut Counted::default());
        let event = event.expect("can be published").expect("not filtered");
        assert_eq!(event.id, "1-2-40-5-0");
        assert_eq!(event.routing_key, "holdfast.SaleStarted.shoe%2E42");
        assert_eq!(
            std::str::from_utf8(&event.body).expect("text"),
            concat!(
                r#"{"specversion":"1.0","id":"1-2-40-5-0","source":"/holdfast/test","type":"holdfast.SaleStarted","#,
                r#""subject":"shoe.42","time":"2023-11-14T22:13:20.123Z","datacontenttype":"application/json","#,
                r#""data":{"name":"SaleStarted","time_ms":1700000000123,"shard":2,"index":40,"place":5,"sku":"shoe.42","#,
                r#""reservation":null,"lines":[],"what":""}}"#
            )
        );
    }

    #[test]
    fn a_reservation_without_a_product_is_its_own_subject_and_keeps_its_slots_order() {
        let shirt = Sku::new("shirt").expect("sku");
        let id = ReservationId::from_parts(Slot::of(&shirt), 1_700_000_000_000, 9);
        let event = renderer(Filter::default()).event(&extended(id), &mut Counted::default());
        let event = event.expect("can be published").expect("not filtered");
        assert_eq!((event.routing_key.as_str(), event.lane), ("holdfast.ReservationExtended.-", Slot::of(&shirt)));
        assert!(std::str::from_utf8(&event.body).expect("text").contains(&format!(r#""subject":"{id}""#)));
    }

    #[test]
    fn changes_of_one_entry_have_different_ids_whatever_is_filtered_away() {
        let ids = |filter: Filter| {
            let mut counted = Counted::default();
            let feed = [("a", 4, 1), ("b", 4, 0), ("a", 4, 1), ("b", 5, 0)];
            let all = feed
                .map(|(sku, index, place)| renderer(filter.clone()).event(&sold_out(sku, index, place), &mut counted));
            all.into_iter().flat_map(|event| event.expect("can be published")).map(|event| event.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(Filter::default()), ["1-2-4-1-0", "1-2-4-0-1", "1-2-4-1-2", "1-2-5-0-0"]);
        let only_b = Filter { skus: vec![Sku::new("b").expect("sku")], types: vec!["SaleStarted".into()] };
        assert_eq!(ids(only_b), ["1-2-4-0-1", "1-2-5-0-0"]);
        assert!(ids(Filter { types: vec!["SoldOut".into()], ..Filter::default() }).is_empty());
    }

    #[test]
    fn a_filter_on_products_keeps_changes_that_name_a_reservation_alone() {
        let [shirt, mug] = ["shirt", "mug"].map(|sku| Sku::new(sku).expect("sku"));
        let id = ReservationId::from_parts(Slot::of(&shirt), 1_700_000_000_000, 9);
        for (sku, taken) in [(&shirt, true), (&mug, false)] {
            let filter = Filter { skus: vec![sku.clone()], ..Filter::default() };
            let event = renderer(filter).event(&extended(id), &mut Counted::default()).expect("can be published");
            assert_eq!(event.is_some(), taken, "{sku}");
        }
    }

    #[test]
    fn a_sku_is_one_word_of_a_routing_key() {
        let words = [("a-b_C9", "a-b_C9"), ("{t}a.b*#", "%7Bt%7Da%2Eb%2A%23"), ("ä%", "%C3%A4%25"), ("-", "%2D")];
        for (sku, word) in words {
            assert_eq!(routing_word(sku), word);
        }
        let longest = format!("{TYPE_PREFIX}{}.{}", "N".repeat(40), routing_word(&".".repeat(64)));
        assert!(longest.len() <= 255, "AMQP's short strings hold 255 bytes, this is {}", longest.len());
    }
}
