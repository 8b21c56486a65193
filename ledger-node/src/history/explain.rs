//! Explanations: every change of one product or reservation, newest first, along the pointers in the records.
//!
//! **What it is.** Each change names the one before it on its reservation and on the product of its first line; the ledger names the last.
//! Where a change reached a product through another line, the way back is looked for record by record.
//!
//! **Owns** the walk and its bound. **Must never** end quietly before the first change: what is no longer kept is said.
//! **Read next**: [`super::History`].

use ledger_core::change::{Change, Record};
use ledger_core::types::Sku;
use ledger_core::{ChangeKind, LedgerTime, Position, ReservationId, codec};

use super::{History, HistoryError};
use crate::feed::changes::concerns_product;
use crate::limits::EXPLAIN_RECORDS_MAX;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A reservation.
    Reservation(ReservationId),
    /// A product.
    Product(Sku),
}

/// Where the walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At this change.
    At(u64, u16),
    /// Somewhere at or below this index.
    Below(u64),
    /// Nowhere: that was the first one.
    End,
}

impl Subject {
    /// Whether a change is about it. `expected` is the change that a pointer named: an extension names no product, so only the pointer
    /// tells whose it is.
    fn is_of(&self, change: &Change, expected: bool) -> bool {
        match (self, &change.kind) {
            (Self::Reservation(id), kind) => kind.reservation() == Some(*id),
            (Self::Product(_), ChangeKind::ReservationExtended { .. }) => expected,
            (Self::Product(sku), kind) => concerns_product(kind, sku),
        }
    }

    fn before(&self, change: &Change, index: u64) -> Way {
        let pointer = match self {
            Self::Reservation(_) => change.previous_on_reservation,
            Self::Product(sku) => {
                if first_product(&change.kind).is_some_and(|first| first != sku) {
                    return Way::Below(index.saturating_sub(1));
                }
                change.previous_on_product
            }
        };
        pointer.map_or(Way::End, |(index, place)| Way::At(index, place))
    }
}

/// The product whose pointer a change of several lines carries.
fn first_product(kind: &ChangeKind) -> Option<&Sku> {
    match kind {
        ChangeKind::InventoryReserved { lines, .. }
        | ChangeKind::ReservationReleased { lines, .. }
        | ChangeKind::ReservationExpired { lines, .. }
        | ChangeKind::UnitsReturned { lines, .. } => lines.first().map(|line| &line.line.offer.sku),
        ChangeKind::ReservationConfirmed { lines, given_back, .. } => {
            lines.iter().chain(given_back).next().map(|line| &line.line.offer.sku)
        }
        _ => None,
    }
}

/// One change and where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The entry's position, with the change's place.
    pub position: Position,
    /// Ledger time of the entry.
    pub time: LedgerTime,
    /// What happened.
    pub change: Change,
}

/// A page of an explanation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Newest first.
    pub changes: Vec<Explained>,
    /// The index to go on from, if there is more.
    pub next: Option<u64>,
    /// Older changes are no longer kept here.
    pub cut_off: bool,
}

/// Walks from the change at `head` (index, and place if a pointer or the ledger named it) back. A page ends with a whole record, so it
/// may be a little longer than `max`.
///
/// # Errors
/// [`HistoryError`]: the store cannot be read, or this node misses records for now.
pub fn explain(
    history: &dyn History,
    shard: u32,
    subject: &Subject,
    head: Option<(u64, Option<u16>)>,
    max: usize,
) -> Result<Explanation, HistoryError> {
    let mut out = Explanation::default();
    let mut way = match head {
        Some((index, Some(place))) => Way::At(index, place),
        Some((index, None)) => Way::Below(index),
        None => Way::End,
    };
    for _ in 0..EXPLAIN_RECORDS_MAX {
        let index = match way {
            Way::End => return Ok(out),
            Way::At(index, _) | Way::Below(index) => index,
        };
        if out.changes.len() >= max {
            out.next = Some(index);
            return Ok(out);
        }
        let found = match way {
            Way::At(..) => history.record_at(shard, index).map(|bytes| bytes.map(|bytes| (index, bytes))),
            _ => history.last_up_to(shard, index),
        };
        let record = match found {
            Err(HistoryError::TooOld { .. }) => None,
            found => found?.map(|(at, bytes)| decode(history, shard, at, &bytes)).transpose()?,
        };
        let Some(record) = record else {
            // Below the first record of all there is nothing; anything else was dropped.
            out.cut_off = matches!(way, Way::At(..)) || history.coverage(shard).oldest > 0;
            return Ok(out);
        };
        way = through(&record, subject, way, &mut out.changes);
    }
    out.next = match way {
        Way::At(index, _) | Way::Below(index) => Some(index),
        Way::End => None,
    };
    Ok(out)
}

/// Takes what a record says about the subject, last change first; answers where to go on.
fn through(record: &Record, subject: &Subject, came: Way, out: &mut Vec<Explained>) -> Way {
    let index = record.position.index;
    let mut way = came;
    let mut any = false;
    for change in record.changes.iter().rev() {
        let expected = way == Way::At(index, change.place);
        if !subject.is_of(change, expected) {
            continue;
        }
        any = true;
        let position = Position { place: change.place, ..record.position };
        out.push(Explained { position, time: record.time, change: change.clone() });
        way = subject.before(change, index);
    }
    match way {
        // The first change of a record points into the same record only if that one was passed over: go on below it.
        Way::At(at, _) if at >= index => Way::Below(index.saturating_sub(1)),
        Way::Below(_) if !any => Way::Below(index.saturating_sub(1)),
        way => way,
    }
}

fn decode(history: &dyn History, shard: u32, index: u64, bytes: &[u8]) -> Result<Record, HistoryError> {
    codec::decode_record(bytes).map_err(|_| {
        history.distrust(shard, index.saturating_sub(1), index);
        HistoryError::NotHere { shard, after: index.saturating_sub(1), through: index }
    })
}
