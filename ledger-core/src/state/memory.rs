//! What is remembered of ids, for how long, and what is forgotten first.
//!
//! Sold reservations are kept for `retain_sold_ms` after they were confirmed, other ended ones for `retain_ended_ms` after their end, refusals
//! and fences for `retain_refused_ms`; each for [`limits::RETAIN_MS_MIN`] at least, so that `forgotten_to` cannot come near the time of ids
//! still in use. Above `remembered_max` (ended ones, refusals and fences) the lowest id goes first, whatever its age, unless its time is above
//! ledger time − [`limits::FORGET_GUARD_MS`]. What belongs to an order is remembered from the moment the order is done, and goes with it. Forgetting an id raises its slot's `forgotten_to` to the id's time. What is past its time
//! goes at the beginning of an entry, what the cap presses out at its end, [`limits::FORGOTTEN_PER_ENTRY_MAX`] at most each; and
//! at once when a command needs a place.
//!
//! **Owns** the order of forgetting, a function of the records alone: by second of ending, then id; under the cap by id.
//! **Must never** forget a live hold, or an order that is not done. **Read next**: [`crate::digest`].

use std::collections::BTreeSet;

use super::due::DueQueue;
use super::ids::Found;
use super::orders::Order;
use super::records::{Head, LineRecord, NONE, Refused, Reservation};
use super::slab::{FrozenSlab, Slab};
use super::{State, id_of};
use crate::limits;
use crate::outcome::{NotNow, Status};
use crate::types::{LedgerTime, ReservationId};

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

/// Where something stands in the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    class: Class,
    at: u64,
    id: [u8; 16],
    /// As [`Found::tagged`] has it.
    record: u32,
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
    fn first_time(&self, class: Class) -> Option<u64> {
        match class {
            Class::Sold => self.sold.first_time(),
            Class::Ended => self.ended.first_time(),
            Class::Refused => self.refused.first_time(),
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
    /// Bytes of all queues: of reservations, of refusals, and of both by id.
    pub(crate) fn bytes(&self) -> [u64; 3] {
        [self.sold.bytes() + self.ended.bytes(), self.refused.bytes(), self.by_id.bytes()]
    }
    /// Lengths of all queues, for the audit: sold, ended, refused, by id.
    pub(crate) fn lengths(&self) -> [usize; 4] {
        [self.sold.len(), self.ended.len(), self.refused.len(), self.by_id.len()]
    }
}

/// The records that may be forgotten.
#[derive(Clone, Copy)]
struct Records<'a> {
    reservations: &'a Slab<Reservation>,
    orders: &'a Slab<Order>,
    refused: &'a Slab<Refused>,
}

impl Records<'_> {
    /// The id of a record, if it stands in a class's queue at that time.
    fn id_in(self, class: Class, tagged: u32, at: u64) -> Option<[u8; 16]> {
        let found = Found::untagged(tagged);
        (class_of(self, found) == Some((class, at))).then(|| id_of(self.reservations, self.refused)(found))
    }

    /// The id of a record, if the cap counts it and its id is of that time.
    fn capped_id(self, tagged: u32, at: u64) -> Option<[u8; 16]> {
        let found = Found::untagged(tagged);
        let (class, _) = class_of(self, found)?;
        let id = id_of(self.reservations, self.refused)(found);
        (class != Class::Sold && coarse_id_time(&id) == at).then_some(id)
    }
}

/// Class and coarse time of ending of what the index found; none for a live hold, and for what an order is not done with.
fn class_of(of: Records<'_>, found: Found) -> Option<(Class, u64)> {
    match found {
        Found::Reservation(at) => class_of_reservation(of.orders, of.reservations.try_get(at)?),
        Found::Refused(at) => of.refused.try_get(at).map(|r| (Class::Refused, r.at_coarse())),
    }
}

fn class_of_reservation(orders: &Slab<Order>, r: &Reservation) -> Option<(Class, u64)> {
    class_with_order(r, || orders.try_get(r.order))
}

/// The same; `order` looks up the order that the reservation says it belongs to.
fn class_with_order<'a>(r: &Reservation, order: impl FnOnce() -> Option<&'a Order>) -> Option<(Class, u64)> {
    if r.order != NONE {
        // As long as its order: the return window from the moment it is done, if either of its reservations was sold.
        let order = order().filter(|order| order.is_finished())?;
        let sold = r.status? == Status::Confirmed || order.cold().linked.is_some();
        return Some((if sold { Class::Sold } else { Class::Ended }, coarse_after(order.done_at)));
    }
    match r.status? {
        Status::Held => None,
        Status::Confirmed => Some((Class::Sold, coarse_after(r.ended_at))),
        Status::Released | Status::Expired => Some((Class::Ended, coarse_after(r.ended_at))),
    }
}

impl Reservation {
    /// For the audit: whether it is remembered as sold, as ended, or not yet.
    pub(crate) fn remembered_sold(&self, orders: &Slab<Order>) -> Option<bool> {
        class_of_reservation(orders, self).map(|(class, _)| class == Class::Sold)
    }
    /// The same in a frozen view.
    pub(crate) fn remembered_sold_in(&self, orders: &FrozenSlab<Order>) -> Option<bool> {
        class_with_order(self, || orders.try_get(self.order)).map(|(class, _)| class == Class::Sold)
    }
}

fn coarse_id_time(id: &[u8; 16]) -> u64 {
    let mut time = [0; 8];
    time[2..].copy_from_slice(&id[..6]);
    u64::from_be_bytes(time) >> COARSE_BITS
}

impl State {
    fn records(&self) -> Records<'_> {
        Records { reservations: &self.reservations, orders: &self.orders.records, refused: &self.refused }
    }

    /// An ended reservation, a refusal or a fence begins to be remembered; what belongs to an order, when that is done.
    pub(crate) fn remember(&mut self, found: Found) {
        let Some((class, at)) = class_of(self.records(), found) else { return };
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

    /// How long is remembered what is forgotten first.
    pub(crate) fn shortest_retention_ms(&self) -> u64 {
        CLASSES.into_iter().map(|class| self.retention(class)).min().expect("there are classes")
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
        let Some(past) = self.time.checked_sub(self.retention(Class::Ended)) else { return };
        while left > 0
            && let Some(stray) = self.first_stray_done(past)
        {
            self.remove_order(stray);
            left -= 1;
        }
    }

    /// When an idle shard forgets next.
    pub(crate) fn next_forgotten(&self) -> Option<LedgerTime> {
        let ended = CLASSES.into_iter().filter_map(|class| {
            let coarse = self.memory.first_time(class)?;
            Some((coarse << COARSE_BITS).saturating_add(self.retention(class)))
        });
        let stray = self.orders.queues.first_stray_done();
        let stray = stray.map(|done_at| done_at.saturating_add(self.retention(Class::Ended)));
        let unused = |set: &BTreeSet<(u64, u32)>, class: Class| {
            set.first().map(|&(since, _)| since.saturating_add(self.retention(class)))
        };
        let offers = [unused(&self.unused_ended, Class::Ended), unused(&self.unused_closed, Class::Sold)];
        let past = ended.chain(stray).chain(offers.into_iter().flatten()).min()?;
        Some(LedgerTime(past.saturating_add(limits::FORGOTTEN_LATE_MS)))
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
        let Self { memory, reservations, orders, refused, .. } = self;
        let of = Records { reservations, orders: &orders.records, refused };
        let due = memory.queue(class).first_due(to, |tagged, at| of.id_in(class, tagged, at));
        due.map(|(_, _, tagged)| Found::untagged(tagged))
    }

    /// The lowest remembered id of what the cap counts.
    fn lowest(&mut self) -> Option<Found> {
        let Self { memory, reservations, orders, refused, .. } = self;
        let of = Records { reservations, orders: &orders.records, refused };
        let lowest = memory.by_id.first_due(u64::MAX, |tagged, at| of.capped_id(tagged, at));
        lowest.map(|(_, _, tagged)| Found::untagged(tagged))
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
        let (class, at) = class_of(self.records(), found).expect("a live hold is never forgotten");
        let id = self.id_of(found);
        let guard = self.time.saturating_sub(limits::FORGET_GUARD_MS);
        assert!(id.time_ms() <= guard, "{id} is forgotten before the guard {guard}");
        let slot = usize::from(id.slot().get());
        let below = if crate::bad!("forgotten-bound-off-by-one") { id.time_ms() } else { id.time_ms() + 1 };
        self.forgotten_below[slot] = self.forgotten_below[slot].max(below);
        self.ids.remove(id.as_bytes(), found);
        match found {
            Found::Reservation(at) => {
                self.leave_order(at);
                self.remove_reservation(at);
            }
            Found::Refused(at) => {
                self.digest_refused(at, false);
                let gone = self.refused.remove(at);
                if let Some(offer) = gone.named_offer() {
                    self.unname_offer(offer);
                }
                if gone.why.names_unknown() {
                    self.unknown_names.remove(gone.offer);
                }
            }
        }
        // The record is gone: queues drop it when they come to it.
        self.leave_memory(Remembered { class, at, id: *id.as_bytes(), record: found.tagged() });
    }

    /// An order goes with its reservation; the reservation that a late payment was given stays for its own time.
    fn leave_order(&mut self, at: u32) {
        let order = self.reservations.get(at).order;
        if order == NONE {
            return;
        }
        if self.orders.get(order).linked == at {
            self.orders.records.get_mut(order).linked = NONE;
            return;
        }
        let linked = self.orders.get(order).linked;
        let before = self.remembered_as(linked);
        self.remove_order(order);
        if let Some(before) = before {
            self.leave_memory(before);
            self.remember(Found::Reservation(linked));
        }
        self.reservations.get_mut(at).order = NONE;
    }

    /// Where a reservation stands in the memory, if it is in it.
    pub(crate) fn remembered_as(&self, at: u32) -> Option<Remembered> {
        let r = self.reservations.try_get(at).filter(|_| at != NONE)?;
        let (class, time) = class_of_reservation(&self.orders.records, r)?;
        Some(Remembered { class, at: time, id: r.id, record: Found::Reservation(at).tagged() })
    }

    /// What stood there no longer does: its record is gone, or says so.
    pub(crate) fn leave_memory(&mut self, was: Remembered) {
        let Remembered { class, at, id, record } = was;
        let Self { memory, reservations, orders, refused, .. } = self;
        let of = Records { reservations, orders: &orders.records, refused };
        memory.queue(class).leave(at, &id, record, |tagged, at| of.id_in(class, tagged, at));
        if class != Class::Sold {
            memory.by_id.leave(coarse_id_time(&id), &id, record, |tagged, at| of.capped_id(tagged, at));
        }
    }

    /// A reservation that bought these units is forgotten. In a sale they go on counting under its limit keys; in a plain offer limits count
    /// what is remembered.
    fn stop_counting(&mut self, line: &LineRecord, keys: &[u32]) {
        let offer = self.offers.get(line.offer);
        if !line.counted() || offer.ended {
            return;
        }
        let (units, goes_on) = (line.sold - line.returned, offer.key.sale.is_some());
        for &key in keys {
            if goes_on {
                let (before, after) = self.keys.keep(key, line.offer, u64::from(units));
                self.digest_kept(key, line.offer, before, after);
            } else {
                self.keys.bring_back(key, line.offer, units);
            }
        }
    }

    /// Before when an ended offer must have ended to be removed.
    pub(crate) fn unused_ended_before(&self) -> Option<u64> {
        if crate::bad!("ended-offer-removed-early") {
            return Some(self.time);
        }
        self.time.checked_sub(self.retention(Class::Ended))
    }

    /// Before when a sale's window must have closed for its counts to be dropped.
    pub(crate) fn unused_closed_before(&self) -> Option<u64> {
        self.time.checked_sub(self.retention(Class::Sold))
    }

    /// Drops what forgotten reservations count in an offer whose window has closed.
    pub(crate) fn drop_kept(&mut self, at: u32) {
        self.keys.end_offer(at);
        self.digest_kept_ended(at);
        self.keys.remove_offer(at);
        self.keys.add_offer(at, false);
        self.note_use(at);
    }

    /// Removes the record; what it bought under limit keys is kept in the counts of sales that still run.
    fn remove_reservation(&mut self, at: u32) {
        self.digest_reservation(at, false);
        let r = self.reservations.get(at).clone();
        let (lines, keys) = (self.lines(&r), self.key_list(&r));
        for line in lines.iter().filter(|l| l.sold > l.returned) {
            self.stop_counting(line, &keys);
            self.no_longer_bought(line.offer, line.sold - line.returned);
        }
        lines.iter().for_each(|line| self.unname_offer(line.offer));
        for &key in &keys {
            self.keys.drop_carried(key);
        }
        self.reservations.remove(at);
        if let Some(stray) = self.stray_of(r.id()) {
            // Its changes went on in the reservation's chain, and do so in its own.
            self.digest_order(stray, false);
            self.orders.records.get_mut(stray).head = Head { index: r.head_index, place: r.head_place };
            self.digest_order(stray, true);
        }
        if r.extra != NONE {
            self.extras.remove(r.extra);
        }
    }
}
