//! What is remembered of ids, for how long, and what is forgotten first.
//!
//! Sold reservations are kept for `retain_sold_ms` after they were confirmed, other ended ones for `retain_ended_ms` after their end, refusals
//! and fences for `retain_refused_ms`; each for [`limits::RETAIN_MS_MIN`] at least, so that `forgotten_to` cannot come near the time of ids
//! still in use. Above `remembered_max` (ended ones, refusals and fences) the lowest id goes first, whatever its age, unless its time is above
//! ledger time − [`limits::FORGET_GUARD_MS`]. Forgetting an id raises its slot's `forgotten_to` to the id's time. What is past its time
//! goes at the beginning of an entry, what the cap presses out at its end, [`limits::FORGOTTEN_PER_ENTRY_MAX`] at most each; and
//! at once when a command needs a place.
//!
//! **Owns** the order of forgetting, a function of the records alone: by second of ending, then id; under the cap by id.
//! **Must never** forget a live hold. **Read next**: [`crate::digest`].

use super::due::DueQueue;
use super::ids::Found;
use super::records::{NONE, Refused, Reservation};
use super::slab::Slab;
use super::{State, id_of};
use crate::limits;
use crate::outcome::{NotNow, Status};
use crate::types::ReservationId;

/// Coarse time of the queues: 1,024 ms. Retention needs no finer one, and a bucket a second is cheap.
const COARSE_BITS: u32 = 10;

/// The first coarse time that lies wholly at or after `ms`.
pub(crate) fn coarse_after(ms: u64) -> u64 {
    ms.saturating_add((1 << COARSE_BITS) - 1) >> COARSE_BITS
}

/// Which retention applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Sold,
    Ended,
    Refused,
}

const CLASSES: [Class; 3] = [Class::Sold, Class::Ended, Class::Refused];

/// Queues over what may be forgotten.
pub(crate) struct Memory {
    sold: DueQueue,
    ended: DueQueue,
    refused: DueQueue,
    /// Ended ones and refusals by id, for the cap.
    by_id: DueQueue,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { sold: DueQueue::new(), ended: DueQueue::new(), refused: DueQueue::new(), by_id: DueQueue::new() }
    }
    fn queue(&mut self, class: Class) -> &mut DueQueue {
        match class {
            Class::Sold => &mut self.sold,
            Class::Ended => &mut self.ended,
            Class::Refused => &mut self.refused,
        }
    }
    /// Sold reservations in their return window.
    pub(crate) fn sold(&self) -> u64 {
        self.sold.len() as u64
    }
    /// Ended ones, refusals and fences.
    pub(crate) fn remembered(&self) -> u64 {
        self.by_id.len() as u64
    }
    /// Lengths of all queues, for the audit: sold, ended, refused, by id.
    pub(crate) fn lengths(&self) -> [usize; 4] {
        [self.sold.len(), self.ended.len(), self.refused.len(), self.by_id.len()]
    }
}

/// Class and coarse time of ending of what the index found; none for a live hold.
fn class_of(reservations: &Slab<Reservation>, refused: &Slab<Refused>, found: Found) -> Option<(Class, u64)> {
    match found {
        Found::Reservation(at) => reservations.try_get(at).and_then(class_of_reservation),
        Found::Refused(at) => refused.try_get(at).map(|r| (Class::Refused, r.at_coarse())),
    }
}

fn class_of_reservation(r: &Reservation) -> Option<(Class, u64)> {
    match r.status? {
        Status::Held => None,
        Status::Confirmed => Some((Class::Sold, coarse_after(r.ended_at))),
        Status::Released | Status::Expired => Some((Class::Ended, coarse_after(r.ended_at))),
    }
}

fn coarse_id_time(id: &[u8; 16]) -> u64 {
    let mut time = [0; 8];
    time[2..].copy_from_slice(&id[..6]);
    u64::from_be_bytes(time) >> COARSE_BITS
}

impl State {
    /// An ended reservation, a refusal or a fence begins to be remembered.
    pub(crate) fn remember(&mut self, found: Found) {
        let (class, at) =
            class_of(&self.reservations, &self.refused, found).expect("only what has ended is remembered");
        let id = id_of(&self.reservations, &self.refused)(found);
        self.memory.queue(class).insert(at, &id, found.tagged());
        if class != Class::Sold {
            self.memory.by_id.insert(coarse_id_time(&id), &id, found.tagged());
        }
    }

    fn retention(&self, class: Class) -> u64 {
        let retain_ms = match class {
            Class::Sold => self.settings.retain_sold_ms,
            Class::Ended => self.settings.retain_ended_ms,
            Class::Refused => self.settings.retain_refused_ms,
        };
        retain_ms.max(limits::RETAIN_MS_MIN)
    }

    /// Forgets what is past its time; a bounded number.
    pub(crate) fn forget_past(&mut self) {
        let mut left = limits::FORGOTTEN_PER_ENTRY_MAX;
        for class in CLASSES {
            let Some(past) = self.time.checked_sub(self.retention(class)) else { continue };
            let to = past >> COARSE_BITS;
            while left > 0
                && let Some(found) = self.first_past(class, to)
            {
                self.forget(found);
                left -= 1;
            }
        }
    }

    /// Forgets what the cap presses out; a bounded number.
    pub(crate) fn forget_above_cap(&mut self) {
        for _ in 0..limits::FORGOTTEN_PER_ENTRY_MAX {
            if self.memory.remembered() <= self.settings.remembered_max || self.forget_lowest().is_err() {
                return;
            }
        }
    }

    fn first_past(&mut self, class: Class, to: u64) -> Option<Found> {
        if self.memory.queue(class).first_time().is_none_or(|t| t > to) {
            return None;
        }
        let Self { memory, reservations, refused, .. } = self;
        let counts = |tagged: u32, at: u64| {
            let found = Found::untagged(tagged);
            (class_of(reservations, refused, found) == Some((class, at))).then(|| id_of(reservations, refused)(found))
        };
        memory.queue(class).first_due(to, counts).map(|(_, _, tagged)| Found::untagged(tagged))
    }

    /// The lowest remembered id of what the cap counts.
    fn lowest(&mut self) -> Option<Found> {
        let Self { memory, reservations, refused, .. } = self;
        let counts = |tagged: u32, at: u64| {
            let found = Found::untagged(tagged);
            let (class, _) = class_of(reservations, refused, found)?;
            let id = id_of(reservations, refused)(found);
            (class != Class::Sold && coarse_id_time(&id) == at).then_some(id)
        };
        memory.by_id.first_due(u64::MAX, counts).map(|(_, _, tagged)| Found::untagged(tagged))
    }

    /// Forgets the lowest id that the cap counts, or says how long it is still too young.
    fn forget_lowest(&mut self) -> Result<(), u64> {
        let Some(found) = self.lowest() else { return Err(limits::FORGET_GUARD_MS) };
        let time = self.id_of(found).time_ms();
        let youngest = self.time.saturating_sub(limits::FORGET_GUARD_MS);
        if time > youngest {
            return Err(time - youngest);
        }
        self.forget(found);
        Ok(())
    }

    /// Makes sure that one more id can be remembered. What a lowered cap leaves above it is worked off at the end of entries.
    pub(crate) fn room_to_remember(&mut self) -> Result<(), NotNow> {
        if self.memory.remembered() < self.settings.remembered_max {
            return Ok(());
        }
        self.forget_lowest().map_err(|retry_ms| NotNow::MemoryFull { retry_ms })
    }

    fn id_of(&self, found: Found) -> ReservationId {
        match found {
            Found::Reservation(at) => self.reservations.get(at).id(),
            Found::Refused(at) => self.refused.get(at).id(),
        }
    }

    /// Forgets a record that has ended: from now on its id, and every older one not remembered, is `Forgotten`.
    fn forget(&mut self, found: Found) {
        let (class, at) = class_of(&self.reservations, &self.refused, found).expect("a live hold is never forgotten");
        let id = self.id_of(found);
        let guard = self.time.saturating_sub(limits::FORGET_GUARD_MS);
        assert!(id.time_ms() <= guard, "{id} is forgotten before the guard {guard}");
        let slot = usize::from(id.slot().get());
        self.forgotten_below[slot] = self.forgotten_below[slot].max(id.time_ms() + 1);
        self.ids.remove(id.as_bytes(), found);
        match found {
            Found::Reservation(at) => self.remove_reservation(at),
            Found::Refused(at) => {
                self.digest_refused(at, false);
                let gone = self.refused.remove(at);
                if gone.why.names_unknown() {
                    self.unknown_names.remove(gone.offer);
                }
            }
        }
        // The record is gone: queues drop it when they come to it.
        self.leave_queue(class, at);
        if class != Class::Sold {
            self.leave_by_id(coarse_id_time(id.as_bytes()));
        }
    }

    fn leave_queue(&mut self, class: Class, at: u64) {
        let Self { memory, reservations, refused, .. } = self;
        memory
            .queue(class)
            .leave(at, |tagged| class_of(reservations, refused, Found::untagged(tagged)) == Some((class, at)));
    }

    fn leave_by_id(&mut self, at: u64) {
        let Self { memory, reservations, refused, .. } = self;
        memory.by_id.leave(at, |tagged| {
            let found = Found::untagged(tagged);
            class_of(reservations, refused, found).is_some_and(|(class, _)| class != Class::Sold)
                && coarse_id_time(&id_of(reservations, refused)(found)) == at
        });
    }

    /// Removes the record; what it bought under limit keys is kept in the counts of sales that still run.
    fn remove_reservation(&mut self, at: u32) {
        self.digest_reservation(at, false);
        let r = self.reservations.get(at).clone();
        let (lines, keys) = (self.lines(&r), self.key_list(&r));
        for line in lines.iter().filter(|l| l.counted() && l.sold > l.returned) {
            let ended = self.offers.get(line.offer).ended;
            for &key in keys.iter().filter(|_| !ended) {
                let (before, after) = self.keys.keep(key, line.offer, u64::from(line.sold - line.returned));
                self.digest_kept(key, line.offer, before, after);
            }
        }
        for &key in &keys {
            self.keys.drop_carried(key);
        }
        self.reservations.remove(at);
        if r.extra != NONE {
            self.extras.remove(r.extra);
        }
    }
}
