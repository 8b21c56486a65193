//! Explanations: every change of one product or reservation, newest first, along the pointers in the records.
//!
//! **Owns** the walk. **Must never** scan: each change names the one before it, and the ledger names the last.
//! **Read next**: [`super::History`].

use ledger_core::change::{Change, Record};
use ledger_core::types::Sku;
use ledger_core::{LedgerTime, Position, ReservationId, codec};

use super::{History, HistoryError};
use crate::feed::changes::{concerns_product, reservation_of};
use crate::limits::EXPLAIN_RECORDS_MAX;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A reservation.
    Reservation(ReservationId),
    /// A product.
    Product(Sku),
}

impl Subject {
    fn is_of(&self, change: &Change) -> bool {
        match self {
            Self::Reservation(id) => reservation_of(&change.kind) == Some(*id),
            Self::Product(sku) => concerns_product(&change.kind, sku),
        }
    }
    fn before(&self, change: &Change) -> Option<(u64, u16)> {
        match self {
            Self::Reservation(_) => change.previous_on_reservation,
            Self::Product(_) => change.previous_on_product,
        }
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

/// Walks from the record at `head` back. A page ends with a whole record, so it may be a little longer than `max`.
///
/// # Errors
/// [`HistoryError`]: the store cannot be read, or this node misses records for now.
pub fn explain(
    history: &dyn History,
    shard: u32,
    subject: &Subject,
    head: Option<u64>,
    max: usize,
) -> Result<Explanation, HistoryError> {
    let mut out = Explanation::default();
    let mut at = head;
    for _ in 0..EXPLAIN_RECORDS_MAX {
        let Some(index) = at else { return Ok(out) };
        if out.changes.len() >= max {
            out.next = Some(index);
            return Ok(out);
        }
        let Some(record) = record_at(history, shard, index)? else {
            out.cut_off = true;
            return Ok(out);
        };
        at = None;
        for change in record.changes.iter().rev().filter(|change| subject.is_of(change)) {
            let position = Position { place: change.place, ..record.position };
            out.changes.push(Explained { position, time: record.time, change: change.clone() });
            if let Some((before, _)) = subject.before(change)
                && before < index
            {
                at = Some(before);
            }
        }
    }
    out.next = at;
    Ok(out)
}

/// None when it is no longer kept.
fn record_at(history: &dyn History, shard: u32, index: u64) -> Result<Option<Record>, HistoryError> {
    let bytes = match history.record_at(shard, index) {
        Err(HistoryError::TooOld { .. }) => return Ok(None),
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    match codec::decode_record(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(_) => {
            history.distrust(shard, index - 1, index);
            Err(HistoryError::NotHere { shard, after: index - 1, through: index })
        }
    }
}
