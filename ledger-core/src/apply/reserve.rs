//! Reserve: the hot path.
//!
//! **Owns** the order of its checks: shape (spans slots, wrong slot, quantity), what is remembered of the id, forgotten, too far ahead, then the
//! rules of [`Refusal`] in their precedence, each over all lines before the next.
//! **Must never** change anything before the last check has passed. **Read next**: `holds`.

use smallvec::SmallVec;

use super::normal::{Normal, NormalLines, normalise};
use super::{Deciding, Verdict, answer, said_line, said_lines};
use crate::codec::changes::{Links, Said};
use crate::limits;
use crate::outcome::{Brief, NotNow, Outcome, Refusal, Settled, Status};
use crate::state::KeyList;
use crate::state::ids::Found;
use crate::state::keys::Looked;
use crate::state::records::{Extra, LineRecord, NONE, Offer, Reservation};
use crate::state::slab::Placed;
use crate::types::{LedgerTime, LimitKey, Line, OfferKey, ReservationId, Slot};

impl Deciding<'_> {
    /// Decides a reserve. Its common answer goes straight to where answers are gathered: one that is handed up and copied in wider pieces than
    /// it was written in makes the processor wait until every earlier write has left for memory.
    #[inline]
    pub(super) fn reserve(
        &mut self,
        id: ReservationId,
        keys: &[LimitKey],
        lines: &[Line],
        hold_ms: Option<u64>,
        outcomes: &mut Vec<Outcome>,
    ) {
        let decided = match lines {
            _ if !self.state.owns(id.slot()) => Err(Err(NotNow::SlotElsewhere.into())),
            [line] => {
                let line =
                    Normal { offer: &line.offer, quantity: line.quantity.get(), at: self.seen_offer(&line.offer) };
                match self.in_slot(id, &line) {
                    Ok(()) => self.reserve_lines(id, keys, std::slice::from_ref(&line), hold_ms, outcomes),
                    Err(wrong) => Err(Err(wrong.into())),
                }
            }
            lines => match self.shape(id, lines) {
                Ok(lines) => self.reserve_lines(id, keys, &lines, hold_ms, outcomes),
                Err(misshapen) => Err(Err(misshapen.into())),
            },
        };
        if let Err(verdict) = decided {
            outcomes.push(answer(verdict));
        }
    }

    /// Decides for lines in normal form. Taken and told, or `Err` with what is still to be told.
    #[inline]
    fn reserve_lines(
        &mut self,
        id: ReservationId,
        keys: &[LimitKey],
        lines: &[Normal<'_>],
        hold_ms: Option<u64>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Verdict> {
        let content = lines.iter().map(|l| (l.offer, l.quantity));
        let fingerprint = self.scratch.fingerprints.reserve(keys, content, hold_ms);
        if let Some(found) = self.state.find(id) {
            return Err(self.reserved_before(found, fingerprint));
        }
        self.usable(id).map_err(Err)?;
        let mut looked = SmallVec::<[Looked; 4]>::new();
        for key in keys {
            looked.push(self.state.keys.find(key));
        }
        if let Err(why) = self.check(lines, &looked, hold_ms, Asked::Now) {
            return Err(Err(self.refuse(id, fingerprint, why, |state, offer| state.find_offer(offer))));
        }
        self.sweep_must_keep_up().map_err(|when| Err(when.into()))?;
        let keys = self.carry(keys, &looked);
        let deadline = self.take(id, fingerprint, &keys, lines, hold_ms);
        outcomes.push(Outcome::Ok(Settled::Reservation(Brief {
            status: Status::Held,
            deadline: LedgerTime(deadline),
            reserved_at: self.state.now(),
            replayed: false,
        })));
        Ok(())
    }

    /// Whether there may be another hold: not while very many are due and not swept, since the
    /// sweep would never come to an end.
    #[inline]
    pub(super) fn sweep_must_keep_up(&self) -> Result<(), NotNow> {
        if self.state.expiry.due() <= limits::HOLDS_DUE_MAX {
            return Ok(());
        }
        Err(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS })
    }

    /// Where an offer is. A herd asks for the same one again and again, so that is looked at first.
    #[inline]
    fn seen_offer(&mut self, offer: &OfferKey) -> Option<u32> {
        if self.last_offer == NONE || self.state.offers.get(self.last_offer).key != *offer {
            self.last_offer = self.state.find_offer(offer)?;
        }
        Some(self.last_offer)
    }

    /// Whether a line lives in the slot that the id names.
    #[inline]
    fn in_slot(&self, id: ReservationId, line: &Normal<'_>) -> Result<(), Refusal> {
        let slot = match line.at {
            Some(at) => self.state.products.get(self.state.offers.get(at).product).slot,
            None => Slot::of(&line.offer.sku),
        };
        if slot == id.slot() {
            return Ok(());
        }
        Err(Refusal::IdWrongSlot { id_slot: id.slot().get(), lines_slot: slot.get() })
    }

    /// Normalises the lines and refuses what depends on the command alone: nothing of that is remembered.
    pub(super) fn shape<'l>(&self, id: ReservationId, lines: &'l [Line]) -> Result<NormalLines<'l>, Refusal> {
        // No lines at all live in no slot; the codec lets none through.
        let first = Slot::of(&lines.first().ok_or(Refusal::LinesSpanSlots)?.offer.sku);
        if lines.iter().any(|line| Slot::of(&line.offer.sku) != first) {
            return Err(Refusal::LinesSpanSlots);
        }
        if first != id.slot() {
            return Err(Refusal::IdWrongSlot { id_slot: id.slot().get(), lines_slot: first.get() });
        }
        normalise(lines, |offer| self.state.find_offer(offer))
    }

    pub(super) fn reserved_before(&self, found: Found, fingerprint: u64) -> Verdict {
        match found {
            Found::Reservation(at) => {
                let r = self.state.reservations.get(at);
                if r.fingerprint != fingerprint {
                    return Err(Refusal::IdTaken.into());
                }
                Ok(Settled::Reservation(r.brief(self.state.time, true)))
            }
            Found::Refused(at) => {
                let refused = self.state.refused.get(at);
                let why = self.state.refusal(refused);
                if why != Refusal::Fenced && refused.fingerprint() != fingerprint {
                    return Err(Refusal::IdTaken.into());
                }
                Err(why.into())
            }
        }
    }

    /// The first rule that any line breaks.
    #[inline]
    pub(super) fn check(
        &mut self,
        lines: &[Normal<'_>],
        keys: &[Looked],
        hold_ms: Option<u64>,
        asked: Asked,
    ) -> Result<(), Refusal> {
        for line in lines.iter().filter(|l| l.at.is_none()) {
            if self.state.find_product(line.offer).is_none() {
                return Err(Refusal::UnknownProduct { offer: line.offer.clone() });
            }
        }
        if let Some(line) = lines.iter().find(|l| l.at.is_none()) {
            return Err(Refusal::UnknownOffer { offer: line.offer.clone() });
        }
        // Of lines that break the same rule the first is told.
        let mut first: Option<(u8, Refusal)> = None;
        for line in lines {
            let offer = self.state.offers.get(line.at.expect("just seen"));
            if let Some(found) = broken(offer, line.quantity, self.state.time, hold_ms, asked)
                && first.as_ref().is_none_or(|first| found.0 < first.0)
            {
                first = Some(found);
            }
        }
        if let Some((_, why)) = first {
            return Err(why);
        }
        for line in lines {
            self.check_limits(line, keys)?;
        }
        for line in lines {
            let at = line.at.expect("just seen");
            if self.state.available(at) < u64::from(line.quantity) {
                return Err(Refusal::SoldOut { offer: line.offer.clone(), truth: self.state.sold_out(at) });
            }
        }
        Ok(())
    }

    #[inline]
    fn check_limits(&mut self, line: &Normal<'_>, keys: &[Looked]) -> Result<(), Refusal> {
        let at = line.at.expect("the offer exists");
        let Some(max) = self.state.offers.get(at).policy.per_key_max else { return Ok(()) };
        if crate::bad!("limit-outside-apply") && self.place > 0 {
            return Ok(());
        }
        for (key_index, key) in keys.iter().enumerate() {
            let used = key.place.map_or(0, |key| self.state.keys.used_now(key, at, self.state.time));
            if used + u64::from(line.quantity) > u64::from(max) {
                return Err(Refusal::LimitReached {
                    offer: line.offer.clone(),
                    key_index: key_index as u8,
                    used: u32::try_from(used).unwrap_or(u32::MAX),
                    max,
                });
            }
        }
        Ok(())
    }

    /// The places of distinct keys, each carried once more.
    #[inline]
    pub(super) fn carry(&mut self, keys: &[LimitKey], looked: &[Looked]) -> KeyList {
        let mut places = KeyList::new();
        for (n, (key, looked)) in keys.iter().zip(looked).enumerate() {
            if !keys[..n].contains(key) {
                places.push(self.state.keys.carry(key, *looked));
            }
        }
        places
    }

    /// Holds the units. Every check has passed. Returns the deadline.
    #[inline]
    pub(super) fn take(
        &mut self,
        id: ReservationId,
        fingerprint: u64,
        keys: &[u32],
        lines: &[Normal<'_>],
        hold_ms: Option<u64>,
    ) -> u64 {
        let offer_at = |l: &Normal<'_>| l.at.expect("checked");
        let on_products = match lines {
            [line] => self.link_product(offer_at(line)).into(),
            lines => self.link_products(lines.iter().map(offer_at)),
        };
        let here = self.here();
        let policy = |l: &Normal<'_>| &self.state.offers.get(offer_at(l)).policy;
        let shortest = || lines.iter().map(|l| policy(l).hold_ms_default).min().expect("at least one line");
        let deadline = self.state.time.saturating_add(hold_ms.unwrap_or_else(shortest));
        let record = |l: &Normal<'_>| LineRecord::new(offer_at(l), l.quantity, policy(l).per_key_max.is_some());
        let mut reservation = Reservation {
            id: *id.as_bytes(),
            fingerprint,
            reserved_at: self.state.time,
            deadline,
            head_index: here.index,
            head_place: here.place,
            line: record(&lines[0]),
            key: keys.first().copied().unwrap_or(NONE),
            status: Some(Status::Held),
            ..Reservation::vacant()
        };
        if lines.len() > 1 || keys.len() > 1 {
            let (lines, keys) = (lines[1..].iter().map(record).collect(), keys.iter().skip(1).copied().collect());
            reservation.extra = self.state.extras.insert(Extra { lines, keys, present: true, ..Extra::default() });
        }
        if reservation.extra == NONE {
            self.count_line(&reservation.line, keys, deadline);
        } else {
            for line in self.state.lines(&reservation) {
                self.count_line(&line, keys, deadline);
            }
        }
        let at = self.state.add_reservation(reservation);
        self.state.expiry.insert(deadline, id.as_bytes(), at);
        self.state.digest_reservation(at, true);
        let links = Links { place: self.place, on_products, on_reservation: None };
        if let [line] = lines {
            let said = said_line(self.state, offer_at(line), line.quantity);
            let now = said.balance.available;
            self.recorder.say(links, Said::InventoryReserved { id, deadline, lines: &[said] });
            self.say_fell(offer_at(line), now + u64::from(line.quantity), now);
            return deadline;
        }
        let said = said_lines(self.state, lines.iter().map(|l| (offer_at(l), l.quantity)));
        self.recorder.say(links, Said::InventoryReserved { id, deadline, lines: &said });
        drop(said);
        for line in lines {
            let now = self.state.available(offer_at(line));
            self.say_fell(offer_at(line), now + u64::from(line.quantity), now);
        }
        deadline
    }

    /// Moves units of a new hold from available to held, and counts them at its deadline.
    #[inline]
    fn count_line(&mut self, line: &LineRecord, keys: &[u32], deadline: u64) {
        let units = line.reserved();
        self.state.hold_units(line.offer, units, deadline);
        if line.counted() {
            keys.iter().for_each(|&key| self.state.keys.hold(key, line.offer, deadline, units));
        }
    }
}

/// Whether the buyer asks now or has paid already. Who has paid was in time: the window, whether the offer is open, and how long a hold may be do not count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Now,
    Late,
}

/// The first rule of an offer's policy that a line breaks, with its place in their precedence.
#[inline]
fn broken(offer: &Offer, units: u32, time: u64, hold_ms: Option<u64>, asked: Asked) -> Option<(u8, Refusal)> {
    let policy = &offer.policy;
    if offer.ended {
        return Some((0, Refusal::SaleHasEnded));
    }
    if asked == Asked::Now {
        if !policy.open {
            return Some((1, Refusal::OfferClosed));
        }
        if let Some(opens_at) = policy.opens_at.filter(|opens_at| time < opens_at.0) {
            return Some((2, Refusal::SaleNotOpenYet { opens_at }));
        }
        if let Some(closed_at) = policy.closes_at.filter(|closes_at| closes_at.0 <= time) {
            return Some((3, Refusal::SaleOver { closed_at }));
        }
        if hold_ms.is_some_and(|ms| ms > policy.hold_ms_max) {
            return Some((4, Refusal::HoldTooLong { max_ms: policy.hold_ms_max }));
        }
    }
    if units < policy.per_order_min {
        return Some((5, Refusal::BelowOrderMin { min: policy.per_order_min }));
    }
    if units > policy.per_order_max {
        return Some((6, Refusal::AboveOrderMax { max: policy.per_order_max }));
    }
    None
}
