//! Place: a reservation becomes an order, or is made as one.
//!
//! **Owns** that placing is idempotent as a whole: the same content again is the order as it stands, other content is taken, and a refused reserve is
//! remembered as any is; and that payments which came for the id before are the order's. **Must never** make an order without a live hold, nor lose a payment.
//! **Read next**: `claim`.

use smallvec::SmallVec;

use super::super::reserve::Asked;
use super::super::{Deciding, No, Verdict};
use super::facts::records_full;
use crate::codec::changes::{Links, OnProducts, Said};
use crate::codec::orders::Told;
use crate::command::{LimitKeys, Lines};
use crate::limits;
use crate::order::{OrderDetails, Phase};
use crate::outcome::{Bound, NotNow, Refusal, Status};
use crate::state::ids::Found;
use crate::state::keys::Looked;
use crate::state::orders::{Cold, Order};
use crate::state::records::NONE;
use crate::state::slab::Placed;
use crate::types::{Reason, ReservationId};

impl Deciding<'_> {
    pub(in super::super) fn place_order(
        &mut self,
        id: ReservationId,
        details: &OrderDetails,
        reserve: Option<&(LimitKeys, Lines)>,
    ) -> Verdict {
        let Some((keys, lines)) = reserve else {
            let fingerprint = self.scratch.fingerprints.place(details, None);
            let known = self.state.placed_order_of(id);
            let known = if crate::bad!("early-payment-takes-id") { self.state.order_of(id) } else { known };
            return match known {
                Some(order) => self.placed_before(order, fingerprint),
                None => self.place_held(id, details, fingerprint),
            };
        };
        let lines = self.shape(id, lines)?;
        let content: SmallVec<[_; 2]> = lines.iter().map(|l| (l.offer, l.quantity)).collect();
        let fingerprint = self.scratch.fingerprints.place(details, Some((keys, &content)));
        if let Some(order) = self.state.placed_order_of(id) {
            return self.placed_before(order, fingerprint);
        }
        if let Some(found) = self.state.find(id) {
            return self.reserved_before(found, fingerprint);
        }
        self.usable(id)?;
        let looked: SmallVec<[Looked; 4]> = keys.iter().map(|key| self.state.keys.find(key)).collect();
        let hold_ms = Some(details.pay_within_ms);
        if let Err(why) = self.check(&lines, &looked, hold_ms, Asked::Now) {
            let no = self.refuse(id, fingerprint, why, |state, offer| state.find_offer(offer));
            self.tell_attempted(id, &no);
            return Err(no);
        }
        self.sweep_must_keep_up()?;
        self.must_have_room_for_order()?;
        self.must_have_room_for_stray(id)?;
        let keys = self.carry(keys, &looked);
        self.take(id, fingerprint, &keys, &lines, hold_ms);
        let at = match self.state.find(id) {
            Some(Found::Reservation(at)) => at,
            found => unreachable!("{id} was just taken, not {found:?}"),
        };
        self.open_order(at, details, fingerprint)
    }

    fn placed_before(&mut self, order: u32, fingerprint: u64) -> Verdict {
        self.must_be_swept(order)?;
        let known = self.state.orders.get(order);
        if known.fingerprint != fingerprint {
            return Err(Refusal::IdTaken.into());
        }
        self.order_brief(order, true)
    }

    /// An existing live hold becomes an order; its deadline becomes the payment deadline.
    fn place_held(&mut self, id: ReservationId, details: &OrderDetails, fingerprint: u64) -> Verdict {
        let at = self.reservation(id)?;
        let r = self.state.reservations.get(at).clone();
        if r.order != NONE {
            return Err(Refusal::Ordered.into());
        }
        let status = r.status_at(self.state.time);
        if status != Status::Held {
            return Err(Refusal::NotHeld { status }.into());
        }
        self.must_not_be_longer(&r, details.pay_within_ms)?;
        self.must_have_room_for_order()?;
        self.must_have_room_for_stray(id)?;
        self.state.digest_reservation(at, false);
        let deadline = self.state.time.saturating_add(details.pay_within_ms);
        self.move_deadline(at, deadline);
        self.state.digest_reservation(at, true);
        self.open_order(at, details, fingerprint)
    }

    fn open_order(&mut self, reservation: u32, details: &OrderDetails, fingerprint: u64) -> Verdict {
        let r = self.state.reservations.get(reservation);
        let (id, deadline) = (r.id, r.deadline);
        let mut cold = Cold { amount: Some(details.amount), ..Cold::default() };
        cold.seal(details.payment.clone(), details.contact.clone());
        let stray = self.state.stray_of(self.state.reservations.get(reservation).id());
        let stray = stray.map(|at| self.state.remove_order(at));
        let at = self.state.add_new_order(Order {
            id,
            fingerprint,
            placed_at: self.state.time,
            reservation,
            // What was leased before is another worker's no more.
            epoch: stray.as_ref().map_or(0, |stray| stray.epoch),
            phase: Some(Phase::Queued),
            suspect: details.suspect,
            cold: Some(cold.into()),
            ..Order::vacant()
        });
        let (amount, suspect) = (details.amount, details.suspect);
        self.tell(at, Told::Placed { deadline, amount, suspect });
        if let Some(stray) = stray {
            self.take_over(at, &stray);
        }
        self.order_brief(at, false)
    }

    fn must_have_room_for_order(&self) -> Result<(), NotNow> {
        match self.state.orders.queues.open < self.state.bounds.open_orders {
            true => Ok(()),
            false => Err(records_full(Bound::OpenOrders)),
        }
    }

    /// Each order that takes payments over tells of all of them: a bounded number an entry.
    fn must_have_room_for_stray(&mut self, id: ReservationId) -> Result<(), NotNow> {
        if self.state.stray_of(id).is_none() {
            return Ok(());
        }
        if self.spent.linked == limits::LINKED_PER_ENTRY_MAX {
            return Err(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });
        }
        self.spent.linked += 1;
        Ok(())
    }

    /// A remembered refusal makes a change: somebody tried to buy. Payments that came before stand
    /// in the same chain.
    fn tell_attempted(&mut self, id: ReservationId, no: &No) {
        let No::Refused(why) = no else { return };
        if *why == Refusal::Forgotten {
            return;
        }
        let reason = Reason::new(why.name()).expect("a refusal's name is a reason");
        let told = Told::Attempted { reason: &reason };
        if let Some(stray) = self.state.stray_of(id) {
            return self.tell(stray, told);
        }
        let links = Links { place: self.place, on_products: OnProducts::default(), on_reservation: None };
        self.recorder.say(links, Said::Order { id, told });
    }
}
