//! Extend, confirm, release and fence: what happens to a hold before its deadline.
//!
//! A due hold is `Expired` to all of them, swept or not. **Owns** that a reservation ends once. **Must never** touch a due hold.
//! **Read next**: `returns`.

use smallvec::SmallVec;

use super::normal::{NormalLines, normalise};
use super::{Deciding, Verdict, said_lines};
use crate::codec::changes::{Links, OnProducts, Said};
use crate::outcome::{Fenced, Refusal, Settled, SoldOut, Status};
use crate::state::State;
use crate::state::due::DueQueue;
use crate::state::ids::Found;
use crate::state::records::{LineRecord, NONE, Reservation, Why};
use crate::types::{Line, OfferKey, ReservationId};

impl Deciding<'_> {
    /// The reservation of an id, or why there is none.
    pub(super) fn reservation(&self, id: ReservationId) -> Result<u32, Refusal> {
        match self.state.find(id) {
            Some(Found::Reservation(at)) => Ok(at),
            Some(Found::Refused(at)) if self.state.refused.get(at).why == Why::Fenced => Err(Refusal::Fenced),
            Some(Found::Refused(_)) => Err(Refusal::UnknownReservation),
            None if self.state.is_forgotten(id) => Err(Refusal::Forgotten),
            None => Err(Refusal::UnknownReservation),
        }
    }

    pub(super) fn brief(&self, at: u32, replayed: bool) -> Verdict {
        Ok(Settled::Reservation(self.state.reservations.get(at).brief(self.state.time, replayed)))
    }

    pub(super) fn extend(&mut self, id: ReservationId, replaces: u64, hold_ms: u64) -> Verdict {
        let at = self.reservation(id)?;
        let r = self.state.reservations.get(at).clone();
        must_not_be_ordered(&r)?;
        let status = r.status_at(self.state.time);
        if status != Status::Held {
            return Err(Refusal::NotHeld { status }.into());
        }
        if r.extra != NONE && self.state.extras.get(r.extra).extended == Some((replaces, hold_ms)) {
            return self.brief(at, true);
        }
        self.must_not_be_longer(&r, hold_ms)?;
        if r.deadline != replaces {
            let deadline = crate::types::LedgerTime(r.deadline);
            return Err(Refusal::DeadlineMoved { deadline }.into());
        }
        let deadline = self.state.time.saturating_add(hold_ms);
        if deadline == replaces {
            // It ends when it ended anyhow: no extension, and none to be remembered. Otherwise the same words, used later, would be taken for a
            // repetition, for they name the deadline that there is.
            return self.brief(at, false);
        }
        self.state.digest_reservation(at, false);
        let extra = self.state.extra_of(at);
        self.state.extras.get_mut(extra).extended = Some((replaces, hold_ms));
        self.move_deadline(at, deadline);
        let on_reservation = self.link_reservation(at);
        self.state.digest_reservation(at, true);
        let links = Links { place: self.place, on_products: OnProducts::default(), on_reservation };
        self.recorder.say(links, Said::ReservationExtended { id, deadline });
        self.brief(at, false)
    }

    /// A hold may not be made to last longer than the policies of its lines let it.
    pub(super) fn must_not_be_longer(&self, r: &Reservation, hold_ms: u64) -> Result<(), Refusal> {
        let longest = |l: LineRecord| self.state.offers.get(l.offer).policy.hold_ms_max;
        let max_ms = self.state.lines(r).into_iter().map(longest).min().expect("a reservation has a line");
        if hold_ms > max_ms { Err(Refusal::HoldTooLong { max_ms }) } else { Ok(()) }
    }

    /// Moves a live hold's deadline, and all that counts by it. The caller keeps the reservation's digest right.
    pub(super) fn move_deadline(&mut self, at: u32, deadline: u64) {
        let r = self.state.reservations.get(at).clone();
        if deadline == r.deadline {
            return;
        }
        self.state.reservations.get_mut(at).deadline = deadline;
        leave_expiry(self.state, at, r.deadline);
        self.state.expiry.insert(deadline, &r.id, at);
        let keys = self.state.key_list(&r);
        for line in &self.state.lines(&r) {
            self.state.unhold(line.offer, r.deadline, line.reserved());
            self.state.hold_until(line.offer, deadline, line.reserved());
            for &key in counted_keys(self.state, line, &keys) {
                self.state.keys.hold(key, line.offer, deadline, line.reserved());
                self.state.keys.unhold(key, line.offer, r.deadline, line.reserved());
            }
        }
    }

    pub(super) fn confirm(&mut self, id: ReservationId, lines: Option<&SmallVec<[Line; 1]>>) -> Verdict {
        let at = self.reservation(id)?;
        let r = self.state.reservations.get(at).clone();
        must_not_be_ordered(&r)?;
        let mut held = self.state.lines(&r);
        let asked =
            lines.filter(|l| !l.is_empty()).map(|l| normalise(l, |offer| self.state.find_offer(offer))).transpose()?;
        let status = r.status_at(self.state.time);
        if status != Status::Held {
            let same = status == Status::Confirmed
                && held.iter().all(|l| l.sold == asked_of(asked.as_ref(), l).unwrap_or(l.reserved()))
                && asked.iter().flatten().all(|a| held.iter().any(|l| a.at == Some(l.offer)));
            return if same { self.brief(at, true) } else { Err(Refusal::NotHeld { status }.into()) };
        }
        for asked in asked.iter().flatten() {
            must_have_line(&held, asked.offer, asked.at)?;
        }
        for asked in asked.iter().flatten() {
            let line = must_have_line(&held, asked.offer, asked.at)?;
            if asked.quantity > line.reserved() {
                return Err(Refusal::MoreThanLine { offer: asked.offer.clone(), has: line.reserved() }.into());
            }
        }
        for line in &mut held {
            line.sold = asked_of(asked.as_ref(), line).unwrap_or(line.reserved());
        }
        self.sell(at, &held);
        self.brief(at, false)
    }

    /// Sells what the lines say is sold of a live hold; the rest of it is available.
    pub(super) fn sell(&mut self, at: u32, held: &[LineRecord]) {
        let r = self.state.reservations.get(at).clone();
        let keys = self.state.key_list(&r);
        for line in held {
            // Bought before no longer held: the count stays where it is.
            for &key in counted_keys(self.state, line, &keys).iter().filter(|_| line.sold > 0) {
                self.state.keys.buy(key, line.offer, line.sold);
            }
        }
        self.end_hold(at, Status::Confirmed, held);
        for line in held {
            self.state.offer_mut(line.offer).sold += u64::from(line.sold);
            self.state.sums[line.offer as usize].bought += u64::from(line.sold);
            self.state.note_use(line.offer);
            let product = self.state.offers.get(line.offer).product;
            self.state.product_mut(product).ever_sold += u64::from(line.sold);
        }
        self.state.put_lines(at, held);
        let links = self.links(at, held);
        self.state.digest_reservation(at, true);
        self.state.remember(Found::Reservation(at));
        let sold = said_lines(self.state, held.iter().map(|l| (l.offer, l.sold)));
        let given_back = said_lines(self.state, held.iter().map(|l| (l.offer, l.reserved() - l.sold)));
        let said = Said::ReservationConfirmed { id: r.id(), lines: &sold, given_back: &given_back };
        self.recorder.say(links, said);
        drop((sold, given_back));
        for line in held.iter().filter(|l| l.sold > 0) {
            if self.state.sold_out(line.offer) == SoldOut::Gone && !self.state.offers.get(line.offer).ended {
                self.say_sold_out(line.offer);
            }
        }
    }

    pub(super) fn release(&mut self, id: ReservationId) -> Verdict {
        let at = self.reservation(id)?;
        let r = self.state.reservations.get(at).clone();
        match r.status_at(self.state.time) {
            Status::Held => {}
            Status::Released => return self.brief(at, true),
            status => return Err(Refusal::NotHeld { status }.into()),
        }
        self.give_up(at);
        if r.order != NONE {
            self.order_released(r.order);
        }
        self.brief(at, false)
    }

    /// Gives all of a live hold back. An order keeps its limit keys: they count again if a late payment is given stock anew.
    pub(super) fn give_up(&mut self, at: u32) {
        let r = self.state.reservations.get(at).clone();
        let held = self.state.lines(&r);
        self.end_hold(at, Status::Released, &held);
        if r.order == NONE {
            self.drop_keys(at);
        }
        let links = self.links(at, &held);
        self.state.digest_reservation(at, true);
        self.state.remember(Found::Reservation(at));
        let lines = said_lines(self.state, held.iter().map(|l| (l.offer, l.reserved())));
        self.recorder.say(links, Said::ReservationReleased { id: r.id(), lines: &lines });
    }

    pub(super) fn fence(&mut self, id: ReservationId) -> Verdict {
        let fenced = match self.state.find(id) {
            Some(Found::Reservation(at)) => {
                Fenced::Reservation(self.state.reservations.get(at).brief(self.state.time, true))
            }
            Some(Found::Refused(at)) => match self.state.refusal(self.state.refused.get(at)) {
                Refusal::Fenced => Fenced::Never,
                why => Fenced::WasRefused(why),
            },
            None => {
                self.usable(id)?;
                match self.refuse(id, 0, Refusal::Fenced, |_, _| None) {
                    super::No::Refused(Refusal::Fenced) => Fenced::Never,
                    no => return Err(no),
                }
            }
        };
        Ok(Settled::Fenced(fenced))
    }

    /// The links of a change on the reservation and the products of its lines. The change names what was sold first, then what was given back.
    pub(super) fn links(&mut self, at: u32, lines: &[LineRecord]) -> Links {
        let (sold, not_sold) = (lines.iter().filter(|l| l.sold > 0), lines.iter().filter(|l| l.sold == 0));
        let on_products = self.link_products(sold.chain(not_sold).map(|l| l.offer));
        Links { place: self.place, on_products, on_reservation: self.link_reservation(at) }
    }

    /// Ends a live hold: nothing of it is held any more, and what of its lines is not sold is available.
    /// Takes its part out of the digest; the caller puts it back.
    fn end_hold(&mut self, at: u32, status: Status, lines: &[LineRecord]) {
        self.state.digest_reservation(at, false);
        let now = self.state.time;
        let r = self.state.reservations.get_mut(at);
        assert!(r.is_held() && r.deadline > now, "only a live hold ends: {r:?} at {now}");
        (r.status, r.ended_at) = (Some(status), now);
        let r = r.clone();
        leave_expiry(self.state, at, r.deadline);
        let keys = self.state.key_list(&r);
        for line in lines {
            let units = line.reserved();
            self.state.unhold(line.offer, r.deadline, units);
            self.state.no_longer_held(line.offer, units);
            let home = self.state.home_of(line.offer);
            self.state.give_available(home, u64::from(units - line.sold));
            for &key in counted_keys(self.state, line, &keys) {
                self.state.keys.unhold(key, line.offer, r.deadline, units);
            }
        }
    }

    /// The reservation's keys no longer count anything.
    pub(super) fn drop_keys(&mut self, at: u32) {
        let r = self.state.reservations.get(at).clone();
        for key in self.state.key_list(&r) {
            self.state.keys.drop_carried(key);
        }
        self.state.reservations.get_mut(at).key = NONE;
        if r.extra != NONE {
            self.state.extras.get_mut(r.extra).keys.clear();
        }
    }
}

/// Workers confirm orders, and the payment deadline is not a caller's to move.
fn must_not_be_ordered(r: &Reservation) -> Result<(), Refusal> {
    if r.order == NONE { Ok(()) } else { Err(Refusal::Ordered) }
}

/// The keys under which a line counts: none once its sale has ended.
pub(super) fn counted_keys<'k>(state: &State, line: &LineRecord, keys: &'k [u32]) -> &'k [u32] {
    if line.counted() && !state.offers.get(line.offer).ended { keys } else { &[] }
}

/// A hold ended early or moved: it was to end at that deadline.
fn leave_expiry(state: &mut State, at: u32, deadline: u64) {
    let State { expiry, reservations, .. } = state;
    let id = reservations.get(at).id;
    DueQueue::leave(expiry, deadline, &id, at, |at, deadline| State::due_id(reservations, at, deadline));
}

/// The line of an offer.
pub(super) fn must_have_line<'l>(
    lines: &'l [LineRecord],
    offer: &OfferKey,
    at: Option<u32>,
) -> Result<&'l LineRecord, Refusal> {
    lines.iter().find(|l| Some(l.offer) == at).ok_or_else(|| Refusal::NoSuchLine { offer: offer.clone() })
}

/// How many units of a line were asked for: none of those not named, all when nothing is named.
pub(super) fn asked_of(asked: Option<&NormalLines<'_>>, line: &LineRecord) -> Option<u32> {
    Some(asked?.iter().find(|a| a.at == Some(line.offer)).map_or(0, |a| a.quantity))
}
