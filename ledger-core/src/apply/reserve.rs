//! Reserve: the hot path.
//!
//! **Owns** the order of its checks: shape (spans slots, wrong slot, quantity), what is remembered of the id, forgotten, too far ahead, then the
//! rules of [`Refusal`] in their precedence, each over all lines before the next.
//! **Must never** change anything before the last check has passed. **Read next**: `holds`.

use smallvec::SmallVec;

use super::normal::{Normal, NormalLines, normalise};
use super::{Deciding, Verdict, answer, said_line, said_lines};
use crate::codec::changes::{Links, Said};
use crate::outcome::{Brief, NotNow, Outcome, Refusal, Settled, Status};
use crate::state::KeyList;
use crate::state::ids::Found;
use crate::state::keys::Looked;
use crate::state::records::{Extra, LineRecord, NONE, Offer, Reservation};
use crate::state::slab::Placed;
use crate::types::{LedgerTime, LimitKey, Line, ReservationId, Slot};

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
                let line = Normal {
                    offer: &line.offer,
                    quantity: line.quantity.get(),
                    at: self.state.find_offer(&line.offer),
                };
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
        let looked: SmallVec<[Looked; 4]> = keys.iter().map(|key| self.state.keys.find(key)).collect();
        if let Err(why) = self.check(lines, &looked, hold_ms, &RULES) {
            return Err(Err(self.refuse(id, fingerprint, why, |state, offer| state.find_offer(offer))));
        }
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
        rules: &[Rule],
    ) -> Result<(), Refusal> {
        for line in lines.iter().filter(|l| l.at.is_none()) {
            if self.state.find_product(line.offer).is_none() {
                return Err(Refusal::UnknownProduct { offer: line.offer.clone() });
            }
        }
        if let Some(line) = lines.iter().find(|l| l.at.is_none()) {
            return Err(Refusal::UnknownOffer { offer: line.offer.clone() });
        }
        let offers = || lines.iter().map(|l| (self.state.offers.get(l.at.expect("just seen")), l.quantity));
        match lines {
            // One line: one look at its offer decides all rules of the policy.
            [_] => offers().try_for_each(|(offer, n)| {
                rules.iter().try_for_each(|rule| rule(offer, n, self.state.time, hold_ms))
            })?,
            _ => rules
                .iter()
                .try_for_each(|rule| offers().try_for_each(|(offer, n)| rule(offer, n, self.state.time, hold_ms)))?,
        }
        for line in lines {
            self.check_limits(line, keys)?;
        }
        for line in lines {
            let at = line.at.expect("just seen");
            self.state.settle_offer(at);
            if self.state.available(at) < u64::from(line.quantity) {
                return Err(Refusal::SoldOut { offer: line.offer.clone(), truth: self.state.sold_out(at) });
            }
        }
        Ok(())
    }

    #[inline]
    fn check_limits(&self, line: &Normal<'_>, keys: &[Looked]) -> Result<(), Refusal> {
        let at = line.at.expect("the offer exists");
        let Some(max) = self.state.offers.get(at).policy.per_key_max else { return Ok(()) };
        if crate::bad!("limit-outside-apply") && self.place > 0 {
            return Ok(());
        }
        for (key_index, key) in keys.iter().enumerate() {
            let used = key.place.map_or(0, |key| self.state.keys.used(key, at, self.state.time));
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
        let on_product = self.link_products(lines.iter().map(offer_at));
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
            reservation.extra = self.state.extras.insert(Extra { lines, keys, extended: None, present: true });
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
        let links = Links { place: self.place, on_product, on_reservation: None };
        match lines {
            [line] => {
                let lines = [said_line(self.state, offer_at(line), line.quantity)];
                self.recorder.say(links, Said::InventoryReserved { id, deadline, lines: &lines });
            }
            lines => {
                let lines = said_lines(self.state, lines.iter().map(|l| (offer_at(l), l.quantity)));
                self.recorder.say(links, Said::InventoryReserved { id, deadline, lines: &lines });
            }
        }
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
        self.state.take_available(line.offer, u64::from(units));
        self.state.offer_mut(line.offer).held += u64::from(units);
        self.state.sums[line.offer as usize].hold(deadline, units);
        if line.counted() {
            keys.iter().for_each(|&key| self.state.keys.hold(key, line.offer, deadline, units));
        }
    }
}

pub(super) type Rule = fn(&Offer, u32, u64, Option<u64>) -> Result<(), Refusal>;

/// The rules of a policy in their precedence: offer, units, ledger time, hold asked for.
pub(super) const RULES: [Rule; 7] = [
    |offer, _, _, _| if offer.ended { Err(Refusal::SaleHasEnded) } else { Ok(()) },
    |offer, _, _, _| if offer.policy.open { Ok(()) } else { Err(Refusal::OfferClosed) },
    |offer, _, time, _| match offer.policy.opens_at {
        Some(opens_at) if time < opens_at.0 => Err(Refusal::SaleNotOpenYet { opens_at }),
        _ => Ok(()),
    },
    |offer, _, time, _| match offer.policy.closes_at {
        Some(closed_at) if closed_at.0 <= time => Err(Refusal::SaleOver { closed_at }),
        _ => Ok(()),
    },
    |offer, _, _, hold_ms| match offer.policy.hold_ms_max {
        max_ms if hold_ms.is_some_and(|ms| ms > max_ms) => Err(Refusal::HoldTooLong { max_ms }),
        _ => Ok(()),
    },
    |offer, n, _, _| match offer.policy.per_order_min {
        min if n < min => Err(Refusal::BelowOrderMin { min }),
        _ => Ok(()),
    },
    |offer, n, _, _| match offer.policy.per_order_max {
        max if n > max => Err(Refusal::AboveOrderMax { max }),
        _ => Ok(()),
    },
];

/// Of those, what holds for a late payment: the buyer was in time, so the window and whether the offer is open do not count.
pub(super) const RULES_WHEN_LATE: [Rule; 3] = [RULES[0], RULES[5], RULES[6]];
