//! What the feed delivered, and what was read at the end, as the journal writes it.
//!
//! **Owns** these formats. **Must never** be asked of the ledger's insides: all of it comes through the public API.
//! **Read next**: [`crate::readout`].

use client_sdk::{ChangeKind, Happened, LineChange};
use serde::{Deserialize, Serialize};

use super::answer::{At, No, Units};
use super::op::{Line, Offer};

/// One line of a change, and its offer right after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChangedLine {
    /// Offer and units moved.
    #[serde(flatten)]
    pub line: Line,
    /// The offer right after.
    pub after: Units,
}

/// One change as the feed tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// Where.
    pub at: At,
    /// Ledger time.
    pub time_ms: u64,
    /// The event's published name.
    pub name: String,
    /// The reservation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The offers it is about, with the units moved and what they have right after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<ChangedLine>,
    /// Of a confirm: what went back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_back: Vec<ChangedLine>,
    /// The offer, where there are no lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Units of a receive or allot, difference of an adjust, version of a put, availability of what was told low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// The offer right after, where there are no lines; of an allot: the giving one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Units>,
    /// The reference of a receive, adjust, allot or return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Deadline of a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The change before on the product that the lines name first: index and place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_on_product: Option<(u64, u32)>,
    /// The same for the products that the lines name second, third, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_on_further: Vec<Option<(u64, u32)>>,
    /// The change before on the same reservation: index and place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_on_reservation: Option<(u64, u32)>,
}

fn changed(lines: &[LineChange]) -> Vec<ChangedLine> {
    lines.iter().map(|l| ChangedLine { line: (&l.line).into(), after: l.balance.into() }).collect()
}

impl From<&Happened> for Change {
    fn from(happened: &Happened) -> Self {
        use ChangeKind as K;
        let (position, change) = (happened.position, &happened.change);
        let link = |at: Option<(u64, u16)>| at.map(|(index, place)| (index, u32::from(place)));
        let mut told = Self {
            at: At {
                shard: position.shard,
                index: position.index,
                place: u32::from(change.place),
                term: position.term,
            },
            time_ms: happened.time.0,
            name: change.kind.name().to_owned(),
            id: None,
            lines: Vec::new(),
            given_back: Vec::new(),
            offer: None,
            number: None,
            after: None,
            reference: None,
            deadline_ms: None,
            before_on_product: change.previous_on_products.first().copied().and_then(link),
            before_on_further: change.previous_on_products.iter().skip(1).copied().map(link).collect(),
            before_on_reservation: link(change.previous_on_reservation),
        };
        match &change.kind {
            K::ProductCreated { sku, .. } => told.offer = Some(Offer::plain(sku.as_str())),
            K::OfferPut { offer, version, .. } => {
                (told.offer, told.number) = (Some(offer.into()), Some(*version as i64));
            }
            K::OfferOpened { offer } | K::OfferClosed { offer } | K::SoldOut { offer, .. } => {
                told.offer = Some(offer.into());
            }
            K::SaleStarted { offer, balance } => {
                (told.offer, told.after) = (Some(offer.into()), Some((*balance).into()));
            }
            K::SaleEnded { offer, balance, moved_back, .. } => {
                (told.offer, told.after) = (Some(offer.into()), Some((*balance).into()));
                told.number = Some(*moved_back as i64);
            }
            K::OfferRemoved { offer, sold, .. } => {
                (told.offer, told.number) = (Some(offer.into()), Some(*sold as i64));
            }
            K::ProductDeleted { sku } => told.offer = Some(Offer::plain(sku.as_str())),
            K::UnitsReceived { offer, units, reference, balance } => {
                (told.offer, told.after) = (Some(offer.into()), Some((*balance).into()));
                (told.number, told.reference) = (Some(units.get() as i64), Some(reference.to_string()));
            }
            K::UnitsAdjusted { offer, delta, reference, balance, .. } => {
                (told.offer, told.after) = (Some(offer.into()), Some((*balance).into()));
                (told.number, told.reference) = (Some(*delta), Some(reference.to_string()));
            }
            K::UnitsAllotted { sku, from, units, reference, from_balance, .. } => {
                let giver = Offer { sku: sku.to_string(), sale: from.as_ref().map(ToString::to_string) };
                (told.offer, told.after) = (Some(giver), Some((*from_balance).into()));
                (told.number, told.reference) = (Some(units.get() as i64), Some(reference.to_string()));
            }
            K::InventoryReserved { id, deadline, lines } | K::ReservationExpired { id, deadline, lines } => {
                (told.id, told.deadline_ms) = (Some(id.to_string()), Some(deadline.0));
                told.lines = changed(lines);
            }
            K::ReservationExtended { id, deadline } => {
                (told.id, told.deadline_ms) = (Some(id.to_string()), Some(deadline.0));
            }
            K::ReservationConfirmed { id, lines, given_back } => {
                told.id = Some(id.to_string());
                (told.lines, told.given_back) = (changed(lines), changed(given_back));
            }
            K::ReservationReleased { id, lines } => (told.id, told.lines) = (Some(id.to_string()), changed(lines)),
            K::UnitsReturned { id, reference, lines } => {
                (told.id, told.lines) = (Some(id.to_string()), changed(lines));
                told.reference = Some(reference.to_string());
            }
            K::StockLow { offer, available } => {
                (told.offer, told.number) = (Some(offer.into()), Some(*available as i64));
            }
            order => told.id = order.order().map(|id| id.to_string()),
        }
        told
    }
}

impl Change {
    /// Whether it was caused by a command, not by time nor by another change of the same command. The end of a sale may be either: [`Self::may_be_edge`].
    pub fn is_caused(&self) -> bool {
        !matches!(self.name.as_str(), "ReservationExpired" | "SaleStarted" | "StockLow" | "SoldOut" | "OfferRemoved")
    }

    /// Whether it may be a window that ended by itself: told as the end by hand is, but nothing moves back.
    pub fn may_be_edge(&self) -> bool {
        self.name == "SaleEnded" && self.number == Some(0) && self.at.place == 0
    }
}

/// What one watcher was told in one go, from a cursor on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Which consumer; 0 for those that read out the whole feed at the end.
    pub consumer: u32,
    /// Which node it was connected to.
    pub node: u64,
    /// How the watch began: `oldest`, `now`, or `cursor`.
    pub began: String,
    /// For a cursor: how many changes of each shard had been told behind it, counted from the oldest; as pairs.
    pub behind: Vec<(u32, u64)>,
    /// When it began and ended, simulated or real milliseconds.
    pub from_ms: u64,
    /// See `from_ms`.
    pub to_ms: u64,
    /// Everything it was told, in order.
    pub changes: Vec<Change>,
    /// How it ended: `stopped` (by the consumer), `caught up`, `cut off` (the cursor was too old), or `broken`.
    pub ended: String,
}

/// One offer at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalOffer {
    /// Its sale; absent: the plain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sale: Option<String>,
    /// What it has.
    #[serde(flatten)]
    pub units: Units,
}

/// What one node says of one product at the end, asked as a stale read by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalStock {
    /// Which node was asked.
    pub node: u64,
    /// The product.
    pub sku: String,
    /// Applied index the answer is of.
    pub index: u64,
    /// Ever received.
    pub received: u64,
    /// Sum of adjustments.
    pub adjusted: i64,
    /// Ever returned.
    pub returned: u64,
    /// Its offers.
    pub offers: Vec<FinalOffer>,
}

impl FinalStock {
    fn sum(&self, of: impl Fn(&Units) -> u64) -> u64 {
        self.offers.iter().map(|o| of(&o.units)).sum()
    }
    /// Free, over all offers.
    pub fn available(&self) -> u64 {
        self.sum(|u| u.available)
    }
    /// In live holds, over all offers.
    pub fn held(&self) -> u64 {
        self.sum(|u| u.held)
    }
    /// Sold and not returned, over all offers.
    pub fn sold(&self) -> u64 {
        self.sum(|u| u.sold)
    }
}

/// One line of a reservation at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalLine {
    /// Offer, and units as reserved.
    #[serde(flatten)]
    pub line: Line,
    /// Units sold.
    pub sold: u32,
    /// Of those, returned.
    pub returned: u32,
}

/// What is known of one id at the end, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalId {
    /// The id.
    pub id: String,
    /// held, confirmed, released, expired, refused, fenced, unknown, forgotten.
    pub state: String,
    /// When it was taken, ledger time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_at_ms: Option<u64>,
    /// Its last deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Its lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<FinalLine>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no: Option<No>,
}

impl FinalId {
    /// Units sold under it and not returned.
    pub fn kept(&self) -> u64 {
        self.lines.iter().map(|l| u64::from(l.sold - l.returned)).sum()
    }
}

/// What a node says of itself at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalStatus {
    /// Which node.
    pub node: u64,
    /// Whether it calls itself ready.
    pub ready: bool,
    /// In its own words.
    pub says: String,
}

/// A replica's digest at an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalDigest {
    /// Which node.
    pub node: u64,
    /// Which shard.
    pub shard: u32,
    /// At which index.
    pub index: u64,
    /// Hexadecimal.
    pub value: String,
}
