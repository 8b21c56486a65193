//! What the passing of time does at the beginning of an entry: a bounded number of expiries, window edges, leases and delays, and ids to
//! forget.
//!
//! No verdict waits for any of it, but for new holds when very many are due and not swept. **Owns**
//! the sweeps. **Must never** change an answer: what is due counted as ended already.
//! **Read next**: [`crate::state::memory`].

use super::holds::counted_keys;
use super::{Deciding, said_lines};
use crate::codec::changes::{Links, Said};
use crate::limits;
use crate::outcome::Status;
use crate::state::State;
use crate::state::ids::Found;
use crate::state::records::{NONE, Phase};
use crate::types::ReservationId;

impl Deciding<'_> {
    pub(super) fn pass_time(&mut self) {
        self.state.sum_due();
        let now = self.state.time;
        self.state.expiry.advance(now);
        for _ in 0..limits::EXPIRED_PER_ENTRY_MAX {
            let State { expiry, reservations, time, .. } = &mut *self.state;
            let Some((_, _, at)) = expiry.first_due(*time, |at, deadline| State::due_id(reservations, at, deadline))
            else {
                break;
            };
            expiry.take_first();
            self.expire(at);
        }
        for _ in 0..limits::EDGES_PER_ENTRY_MAX {
            let Some(&(edge, at)) = self.state.edges.first() else { break };
            if edge > self.state.time {
                break;
            }
            let before = self.set_phase(at);
            self.say_phase(at, before);
        }
        self.wake_due();
        self.state.forget_past();
        self.state.forget_references();
        self.remove_unused();
        self.state.keys.drop_ended(limits::COUNTS_DROPPED_PER_ENTRY_MAX);
    }

    /// Removes offers of sales that ended long enough ago, and drops what limits count in those whose window did; a bounded number.
    fn remove_unused(&mut self) {
        let (ended, closed) = (self.state.unused_ended_before(), self.state.unused_closed_before());
        for _ in 0..limits::OFFERS_REMOVED_PER_ENTRY_MAX {
            let Some(&(_, at)) = self.state.unused_ended.first().filter(|&&(since, _)| Some(since) <= ended) else {
                break;
            };
            self.remove_ended(at);
        }
        for _ in 0..limits::OFFERS_REMOVED_PER_ENTRY_MAX {
            let Some(&(_, at)) = self.state.unused_closed.first().filter(|&&(since, _)| Some(since) <= closed) else {
                break;
            };
            self.state.drop_kept(at);
        }
    }

    fn remove_ended(&mut self, at: u32) {
        let offer = self.state.offers.get(at);
        let (key, sold) = (offer.key.clone(), offer.sold);
        let plain = self.state.home_of(at);
        self.state.remove_offer(at);
        let balance = self.state.balance(plain);
        let wire = crate::codec::offer_key_bytes(&key);
        let links = Links { place: self.place, on_products: self.link_product(plain).into(), on_reservation: None };
        self.recorder.say(links, Said::OfferRemoved { offer: &wire, sold, balance });
    }

    /// Ends leases and delays whose time is over; a bounded number is looked at. An order whose hold is due waits for the sweep: what is
    /// decided about it until then would take the hold for a live one, and the sweep ends the lease or delay anyway.
    fn wake_due(&mut self) {
        let mut after = None;
        for _ in 0..limits::WAKES_PER_ENTRY_MAX {
            let Some((at, order)) = self.state.orders.queues.wake_after(after) else { return };
            if at > self.state.time {
                return;
            }
            let waiting = self.state.orders.get(order);
            if self.state.is_unswept(waiting) && !crate::bad!("park-before-sweep") {
                after = Some((at, waiting.id));
            } else {
                self.wake(order);
            }
        }
    }

    /// Sweeps a due hold. Its units were available before; so no balance moves here.
    fn expire(&mut self, at: u32) {
        self.state.digest_reservation(at, false);
        let now = self.state.time;
        let r = self.state.reservations.get_mut(at);
        assert!(r.is_held() && r.deadline <= now, "only a due hold expires: {r:?} at {now}");
        (r.status, r.ended_at) = (Some(Status::Expired), r.deadline);
        let r = r.clone();
        let (lines, keys) = (self.state.lines(&r), self.state.key_list(&r));
        for line in &lines {
            let units = line.reserved();
            self.state.sweep_due(line.offer, units);
            self.state.no_longer_held(line.offer, units);
            let home = self.state.home_of(line.offer);
            self.state.give_available(home, u64::from(units));
            for &key in counted_keys(self.state, line, &keys) {
                self.state.keys.settle(key, line.offer, now);
            }
        }
        if r.order == NONE {
            self.drop_keys(at);
        }
        let links = self.links(at, &lines);
        self.state.digest_reservation(at, true);
        self.state.remember(Found::Reservation(at));
        let said = said_lines(self.state, lines.iter().map(|l| (l.offer, l.reserved())));
        let id: ReservationId = r.id();
        self.recorder.say(links, Said::ReservationExpired { id, deadline: r.deadline, lines: &said });
        drop(said);
        if r.order != NONE && !crate::bad!("order-outlives-hold") {
            self.order_expired(r.order);
        }
    }

    /// Brings an offer's phase and its next edge up to ledger time; tells the phase before.
    pub(super) fn set_phase(&mut self, at: u32) -> Phase {
        let now = self.state.time;
        let offer = self.state.offers.get(at);
        let (before, phase) = (offer.phase, offer.phase_at(now));
        if let Some(edge) = self.state.sums[at as usize].edge.take() {
            self.state.edges.remove(&(edge, at));
        }
        let offer = self.state.offer_mut(at);
        offer.phase = phase;
        let edge = offer.next_edge();
        self.state.put_edge(at, edge);
        self.state.note_use(at);
        before
    }

    /// Tells that a sale's window began or ended. The plain offer's window is kept, but it is no sale.
    pub(super) fn say_phase(&mut self, at: u32, before: Phase) {
        let offer = self.state.offers.get(at);
        if offer.key.sale.is_none() || offer.phase == before {
            return;
        }
        let (now, balance) = (offer.phase, self.state.balance(at));
        if now != Phase::Before && before != Phase::Within {
            self.say_offer(at, |_, offer| Said::SaleStarted { offer, balance });
        }
        if now == Phase::Over {
            self.say_offer(at, |_, offer| Said::SaleEnded { offer, balance, moved_back: 0, by_hand: false });
        }
    }
}
