//! Orders: placed, claimed, reported on, paid (docs/decisions/0007).
//!
//! **What it is.** One file a family: `place`, `claim` (and what becomes of leases), `report`, `facts` (about money, at any epoch), `by_hand`. All change
//! orders through [`State::change_order`] alone, so that queues, attempts and memory follow.
//! **Owns** the phases: what moves an order from one to the next. **Must never** take units but through reserve's checks, or keep money for which nothing
//! is sold. **Read next**: `place`.

mod by_hand;
mod claim;
mod facts;
mod place;
mod report;

use super::{Deciding, No, Verdict};
use crate::codec::changes::{Links, OnProducts, Said};
use crate::codec::orders::Told;
use crate::limits;
use crate::order::{Ending, Phase, SettlingWhy};
use crate::outcome::{NotNow, Refusal, Settled};
use crate::state::State;
use crate::state::orders::Order;
use crate::state::records::NONE;
use crate::types::ReservationId;

impl Deciding<'_> {
    /// The order of an id; *not now* while the sweep has yet to decide about its hold.
    fn order(&self, id: ReservationId) -> Result<u32, No> {
        let Some(at) = self.state.order_of(id) else {
            let forgotten = self.state.find(id).is_none() && self.state.is_forgotten(id);
            return Err(if forgotten { Refusal::Forgotten } else { Refusal::NoSuchOrder }.into());
        };
        self.must_be_swept(at)?;
        Ok(at)
    }

    fn must_be_swept(&self, at: u32) -> Result<(), NotNow> {
        if self.state.is_unswept(self.state.orders.get(at)) {
            return Err(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });
        }
        Ok(())
    }

    fn order_brief(&self, at: u32, replayed: bool) -> Verdict {
        Ok(Settled::Order(self.state.order_brief(self.state.orders.get(at), replayed)))
    }

    fn wrong_phase(&self, at: u32) -> No {
        Refusal::WrongPhase { phase: self.state.orders.get(at).phase() }.into()
    }

    /// Tells a change of an order, in the chain of its reservation. A stray's is that of whatever reservation has its id.
    fn tell(&mut self, at: u32, told: Told<'_>) {
        let order = self.state.orders.get(at);
        let id = order.id();
        let reservation = match order.reservation {
            NONE => self.state.reservation_of(id).unwrap_or(NONE),
            own => own,
        };
        let on_reservation = if reservation == NONE {
            let here = self.here();
            self.state.digest_order(at, false);
            let before = std::mem::replace(&mut self.state.orders.records.get_mut(at).head, here).get();
            self.state.digest_order(at, true);
            before
        } else {
            self.state.digest_reservation(reservation, false);
            let before = self.link_reservation(reservation);
            self.state.digest_reservation(reservation, true);
            before
        };
        let links = Links { place: self.place, on_products: OnProducts::default(), on_reservation };
        self.recorder.say(links, Said::Order { id, told });
    }

    /// The order's units are free again, and it is not known whether anything was paid.
    fn settle_order(&mut self, at: u32, why: SettlingWhy) {
        self.tell(at, Told::Settling { why });
        self.state.change_order(at, |order| {
            order.phase = Some(Phase::Settling);
            order.cold_mut().secret = None;
        });
    }

    /// The sweep has expired its hold: never taken up, it is over; ever claimed, it settles.
    pub(super) fn order_expired(&mut self, at: u32) {
        match self.state.orders.get(at).phase() {
            Phase::Queued => end_order(self.state, at, Phase::Expired, Ending::Expired),
            _ => self.settle_order(at, SettlingWhy::Deadline),
        }
    }

    /// Its caller has released its hold.
    pub(super) fn order_released(&mut self, at: u32) {
        match self.state.orders.get(at).phase() {
            Phase::Queued => end_order(self.state, at, Phase::Released, Ending::Released),
            _ => self.settle_order(at, SettlingWhy::Released),
        }
    }
}

/// The order has ended like this; its buyer is to be told.
fn end_order(state: &mut State, at: u32, phase: Phase, ending: Ending) {
    state.change_order(at, |order| {
        (order.phase, order.ending) = (Some(phase), ending);
        order.cold_mut().secret = None;
    });
}

/// When nothing is owed any more: the end of giving money back. A stray has nobody to be told.
fn end_refunds(order: &mut Order) {
    if order.phase() == Phase::RefundDue && !order.cold().owes() {
        order.phase = Some(if order.is_stray() { Phase::Done } else { Phase::Refunded });
        order.ending = Ending::Refunded;
    }
}
