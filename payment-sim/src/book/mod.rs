//! The book: every intent, charge, refund, event and idempotency key, in memory and on disk.
//!
//! **Owns** the state after each entry. [`Book::apply`] is the only way it changes, at run time as at start. **Must never** decide:
//! what may happen is settled in [`crate::rules`] before there is an entry. **Read next**: [`records`], [`journal`], [`shelf`].

pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod records;
pub(crate) mod shelf;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{ChargeId, EventId, Id, IntentId, Kind, RefundId};
use keys::Keys;
use records::{Charge, Delivered, DeliveryEnd, Entry, EventKind, Intent, Refund};

/// Where an entry's line lies in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    /// With its newline.
    pub(crate) bytes: u32,
}

/// The state after the last entry.
#[derive(Default)]
pub(crate) struct Book {
    salt: u32,
    intents: Vec<IntentRow>,
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    events: Vec<EventRow>,
    pub(crate) keys: Keys,
    /// Intents by the hash of one pair of metadata. Hashes may collide: what is found has to be looked at.
    by_metadata: HashMap<u64, SmallVec<[u32; 2]>>,
    pub(crate) deliveries: Deliveries,
}

/// An intent and what belongs to it.
pub(crate) struct IntentRow {
    pub(crate) intent: Intent,
    /// The last entry that changed it.
    pub(crate) changed: Place,
    charges: SmallVec<[u32; 2]>,
    refunds: SmallVec<[u32; 2]>,
}

/// An event; the rest of it is in its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRow {
    pub(crate) kind: EventKind,
    pub(crate) place: Place,
    /// Nobody is to be told, or somebody was, or it was given up.
    pub(crate) settled: bool,
}

/// How deliveries of events went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Deliveries {
    pub(crate) arrived: u64,
    pub(crate) failed_attempts: u64,
    pub(crate) given_up: u64,
    pub(crate) dropped: u64,
}

impl Book {
    /// Whether `entry` follows: ids in order, and of this book.
    pub(crate) fn check(&self, entry: &Entry) -> Result<(), String> {
        let salt = entry.opened.map_or(self.salt, |o| o.salt);
        let follows = |what: &str, of: u32, number: usize, length: usize, new: bool| {
            if of == salt && (number < length || new && number == length) {
                Ok(())
            } else {
                Err(format!("its {what} does not follow"))
            }
        };
        if let Some(intent) = &entry.intent {
            follows("intent", intent.id.salt(), intent.id.number(), self.intents.len(), true)?;
        }
        let intents = self.intents.len() + usize::from(entry.intent.is_some());
        if let Some(charge) = &entry.charge {
            follows("charge", charge.id.salt(), charge.id.number(), self.charges.len(), true)?;
            follows("charge's intent", charge.intent.salt(), charge.intent.number(), intents, false)?;
        }
        if let Some(refund) = &entry.refund {
            follows("refund", refund.id.salt(), refund.id.number(), self.refunds.len(), true)?;
            follows("refund's intent", refund.intent.salt(), refund.intent.number(), intents, false)?;
        }
        for (n, event) in entry.events.iter().enumerate() {
            if event.id != EventId::new(salt, (self.events.len() + n) as u32) {
                return Err("its event does not follow".to_owned());
            }
        }
        if let Some(delivered) = &entry.delivered {
            follows("event", delivered.event.salt(), delivered.event.number(), self.events.len(), false)?;
        }
        Ok(())
    }

    /// Becomes what `entry`, whose line lies at `place`, says.
    pub(crate) fn apply(&mut self, entry: Entry, place: Place) {
        if let Some(opened) = entry.opened {
            self.salt = opened.salt;
        }
        if let Some(used) = entry.key {
            self.keys.keep(used.key, used.print, entry.at_ms, place);
        }
        if let Some(intent) = entry.intent {
            self.put_intent(intent, place);
        }
        if let Some(charge) = entry.charge {
            let number = charge.id.number();
            if number == self.charges.len() {
                self.intents[charge.intent.number()].charges.push(number as u32);
                self.charges.push(charge);
            } else {
                self.charges[number] = charge;
            }
        }
        if let Some(refund) = entry.refund {
            let row = &mut self.intents[refund.intent.number()];
            row.refunds.push(self.refunds.len() as u32);
            row.changed = place;
            self.refunds.push(refund);
        }
        self.events.extend(entry.events.iter().map(|e| EventRow { kind: e.kind, place, settled: !e.send }));
        if let Some(delivered) = entry.delivered {
            self.settle(delivered);
        }
    }

    fn put_intent(&mut self, intent: Intent, place: Place) {
        let number = intent.id.number();
        if let Some(row) = self.intents.get_mut(number) {
            (row.intent, row.changed) = (intent, place);
            return;
        }
        for (key, value) in intent.metadata.pairs() {
            self.by_metadata.entry(hash(key, value)).or_default().push(number as u32);
        }
        let (charges, refunds) = (SmallVec::new(), SmallVec::new());
        self.intents.push(IntentRow { intent, changed: place, charges, refunds });
    }

    fn settle(&mut self, delivered: Delivered) {
        let counted = match delivered.end {
            DeliveryEnd::Arrived => &mut self.deliveries.arrived,
            DeliveryEnd::Again => &mut self.deliveries.failed_attempts,
            DeliveryEnd::GivenUp => &mut self.deliveries.given_up,
            DeliveryEnd::Dropped => &mut self.deliveries.dropped,
        };
        *counted += 1;
        self.events[delivered.event.number()].settled |= delivered.end != DeliveryEnd::Again;
    }

    /// The salt of its ids.
    pub(crate) fn salt(&self) -> u32 {
        self.salt
    }

    /// The ids that the next objects get.
    pub(crate) fn next(&self) -> (IntentId, ChargeId, RefundId, EventId) {
        (
            Id::new(self.salt, self.intents.len() as u32),
            Id::new(self.salt, self.charges.len() as u32),
            Id::new(self.salt, self.refunds.len() as u32),
            Id::new(self.salt, self.events.len() as u32),
        )
    }

    /// The intent of this id.
    pub(crate) fn intent(&self, id: IntentId) -> Option<&IntentRow> {
        self.own(id).then(|| self.intents.get(id.number()))?
    }

    /// The charge of this id.
    pub(crate) fn charge(&self, id: ChargeId) -> Option<&Charge> {
        self.own(id).then(|| self.charges.get(id.number()))?
    }

    /// The refund of this id.
    pub(crate) fn refund(&self, id: RefundId) -> Option<&Refund> {
        self.own(id).then(|| self.refunds.get(id.number()))?
    }

    /// The event of this id.
    pub(crate) fn event(&self, id: EventId) -> Option<&EventRow> {
        self.own(id).then(|| self.events.get(id.number()))?
    }

    fn own<K: Kind>(&self, id: Id<K>) -> bool {
        id.salt() == self.salt
    }

    /// All intents, oldest first.
    pub(crate) fn intents(&self) -> &[IntentRow] {
        &self.intents
    }

    /// All refunds, oldest first.
    pub(crate) fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// All events, oldest first.
    pub(crate) fn events(&self) -> &[EventRow] {
        &self.events
    }

    /// The charges of an intent, oldest first.
    pub(crate) fn charges_of<'a>(&'a self, row: &'a IntentRow) -> impl DoubleEndedIterator<Item = &'a Charge> {
        row.charges.iter().map(|n| &self.charges[*n as usize])
    }

    /// The refunds of an intent, oldest first.
    pub(crate) fn refunds_of<'a>(&'a self, row: &'a IntentRow) -> impl DoubleEndedIterator<Item = &'a Refund> {
        row.refunds.iter().map(|n| &self.refunds[*n as usize])
    }

    /// Intents whose metadata says `value` of `key`, oldest first.
    pub(crate) fn with_metadata<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a IntentRow> {
        let found = self.by_metadata.get(&hash(key, value)).map_or(&[][..], |rows| rows);
        found.iter().map(|n| &self.intents[*n as usize]).filter(move |r| r.intent.metadata.get(key) == Some(value))
    }
}

fn hash(key: &str, value: &str) -> u64 {
    xxh3_64(key.as_bytes()).rotate_left(1) ^ xxh3_64(value.as_bytes())
}
