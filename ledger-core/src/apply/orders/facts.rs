//! Facts: what the provider says has happened to money. Accepted at any epoch, keyed by the provider's id of the payment.
//!
//! A payment is kept only if it sells: the live hold as a whole, or else the same lines anew under a linked id. Otherwise it must go back.
//! **Owns** that an order keeps one payment at most. **Must never** lose a fact, or keep money for which nothing is sold. **Read next**: `by_hand`.

use smallvec::SmallVec;

use super::super::normal::{Normal, NormalLines};
use super::super::reserve::Asked;
use super::super::{Deciding, No, Verdict};
use super::end_refunds;
use crate::codec::orders::Told;
use crate::limits;
use crate::order::{Ending, Fact, Money, ParkReason, Payment, PaymentState, Phase, ProviderId, RefundWhy};
use crate::outcome::{Bound, NotNow, Refusal, Status};
use crate::state::ids::Found;
use crate::state::keys::Looked;
use crate::state::orders::{Cold, Order};
use crate::state::records::LineRecord;
use crate::state::slab::Placed;
use crate::types::{LimitKey, OfferKey, ReservationId};

impl Deciding<'_> {
    pub(in super::super) fn record_fact(&mut self, id: ReservationId, fact: &Fact) -> Verdict {
        match fact {
            Fact::Paid { payment, amount } => match self.state.order_of(id) {
                None => self.stray(id, payment, *amount),
                Some(at) => {
                    self.must_be_swept(at)?;
                    self.paid(at, payment, *amount)
                }
            },
            Fact::Refunded { payment, refund } => {
                let at = self.order(id)?;
                self.refunded(at, payment, refund)
            }
        }
    }

    /// A payment for an id that has no order here: an operator must look at it. Whatever else the id names (a live hold, one that ended, one that
    /// is forgotten, or nothing) is left as it is; an order that is placed under it later takes the payment over.
    fn stray(&mut self, id: ReservationId, payment: &ProviderId, amount: Money) -> Verdict {
        if self.state.orders.queues.unfinished_strays() >= self.state.bounds.unknown_payments {
            return Err(records_full(Bound::UnknownPayments).into());
        }
        let mut cold = Cold { parked: Some(ParkReason::UnknownOrder), ..Cold::default() };
        cold.seal(Default::default(), Default::default());
        cold.add_payment(due(payment, amount));
        let at = self.state.add_new_order(Order {
            id: *id.as_bytes(),
            placed_at: self.state.time,
            phase: Some(Phase::Parked),
            cold: Some(cold.into()),
            ..Order::vacant()
        });
        self.tell(at, Told::Paid { payment, amount, kept: false });
        self.tell(at, Told::Parked { reason: &ParkReason::UnknownOrder });
        self.order_brief(at, false)
    }

    fn paid(&mut self, at: u32, payment: &ProviderId, amount: Money) -> Verdict {
        let order = self.state.orders.get(at);
        let cold = order.cold().clone();
        if let Some(known) = cold.payments.iter().position(|p| p.id == *payment) {
            return self.paid_again(at, known, &cold.payments[known], amount);
        }
        room_for_payment(&cold, Some(amount))?;
        if order.is_undecided() {
            // An operator decides, or the order that is placed.
            self.state.change_order(at, |order| order.cold_mut().add_payment(due(payment, amount)));
            self.tell(at, Told::Paid { payment, amount, kept: false });
            return self.order_brief(at, false);
        }
        if order.is_stray() {
            return self.must_go_back(at, payment, amount, RefundWhy::UnknownOrder);
        }
        if cold.amount != Some(amount) {
            return self.must_go_back(at, payment, amount, RefundWhy::WrongAmount);
        }
        if order.phase().holds() {
            self.keep(at, payment, amount);
            return self.order_brief(at, false);
        }
        if cold.keeps() || !self.may_sell_late(order) {
            return self.must_go_back(at, payment, amount, RefundWhy::SecondPayment);
        }
        self.paid_late(at, payment, amount)
    }

    fn paid_again(&mut self, at: u32, place: usize, known: &Payment, amount: Money) -> Verdict {
        if known.amount.is_none() {
            // Its refund was told first.
            self.state.change_order(at, |order| order.cold_mut().payments[place].amount = Some(amount));
            self.tell(at, Told::Paid { payment: &known.id, amount, kept: false });
            return self.order_brief(at, false);
        }
        if known.amount != Some(amount) {
            return Err(Refusal::PaymentDiffers { amount: known.amount }.into());
        }
        self.order_brief(at, true)
    }

    /// Whether the order could still be sold: it ended, or waits to end, unpaid.
    fn may_sell_late(&self, order: &Order) -> bool {
        let phase = if order.phase() == Phase::Parked { order.parked_from } else { order.phase };
        let unpaid = match phase.expect("only a stray is parked from nowhere") {
            Phase::Settling | Phase::Released | Phase::Expired => true,
            Phase::Done => matches!(order.ending, Ending::Released | Ending::Expired | Ending::Closed),
            _ => false,
        };
        // Sold once and paid back, its units may still be sold: never twice for one order.
        let status = self.state.reservations.get(order.reservation).status;
        unpaid && status != Some(Status::Confirmed) && order.cold().linked.is_none()
    }

    /// Paid while it is held: sold as a whole.
    fn keep(&mut self, at: u32, payment: &ProviderId, amount: Money) {
        self.tell(at, Told::Paid { payment, amount, kept: true });
        let reservation = self.state.orders.get(at).reservation;
        let held = self.state.lines(self.state.reservations.get(reservation));
        self.sell(reservation, &whole(&held));
        self.sold(at, payment, amount, None);
        self.tell(at, Told::Confirmed { linked: None });
    }

    /// An order was placed under the id of payments that had come without one: they are its payments from now on. Those that nobody has decided
    /// about count as if they came now; what an operator has decided stays decided.
    pub(super) fn take_over(&mut self, at: u32, stray: &Order) {
        let undecided = stray.is_undecided();
        for known in &stray.cold().payments {
            let amount = known.amount.filter(|_| known.state == PaymentState::RefundDue);
            let Some(amount) = amount else {
                self.state.change_order(at, |order| order.cold_mut().add_payment(known.clone()));
                continue;
            };
            let order = self.state.orders.get(at);
            let right = order.cold().amount == Some(amount);
            if undecided && right && order.phase().holds() {
                self.keep(at, &known.id, amount);
                continue;
            }
            let reason = match (undecided, right) {
                (false, _) => RefundWhy::UnknownOrder,
                (true, false) => RefundWhy::WrongAmount,
                (true, true) => RefundWhy::SecondPayment,
            };
            self.state.change_order(at, |order| order.cold_mut().add_payment(known.clone()));
            self.tell(at, Told::RefundRequested { payment: &known.id, reason });
        }
    }

    /// The payment is kept. With the reservation that a late one was given: it belongs to the order, and is kept as long.
    fn sold(&mut self, at: u32, payment: &ProviderId, amount: Money, linked: Option<(u32, ReservationId)>) {
        self.state.change_order(at, |order| {
            if let Some((place, id)) = linked {
                order.linked = place;
                order.cold_mut().linked = Some(id);
            }
            (order.phase, order.ending, order.parked_from) = (Some(Phase::Sold), Ending::Sold, None);
            let cold = order.cold_mut();
            (cold.secret, cold.parked) = (None, None);
            cold.add_payment(Payment { state: PaymentState::Kept, ..due(payment, amount) });
        });
    }

    /// Paid after its units were given back: the same again if there are enough, else the money goes back.
    fn paid_late(&mut self, at: u32, payment: &ProviderId, amount: Money) -> Verdict {
        if self.spent.linked == limits::LINKED_PER_ENTRY_MAX {
            return Err(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS }.into());
        }
        self.spent.linked += 1;
        let r = self.state.reservations.get(self.state.orders.get(at).reservation).clone();
        let (held, keys) = (self.state.lines(&r), self.state.key_list(&r));
        let offers: SmallVec<[OfferKey; 2]> = held.iter().map(|l| self.state.offer_key(l.offer)).collect();
        let lines: NormalLines<'_> = held
            .iter()
            .zip(&offers)
            .map(|(l, offer)| Normal { offer, quantity: l.reserved(), at: Some(l.offer) })
            .collect();
        let looked: SmallVec<[Looked; 4]> = keys.iter().map(|&key| Looked::at(key)).collect();
        if let Err(why) = self.check(&lines, &looked, None, Asked::Late) {
            let why = match why {
                Refusal::SoldOut { .. } => RefundWhy::SoldOut,
                Refusal::LimitReached { .. } => RefundWhy::LimitReached,
                _ => RefundWhy::NotForSale,
            };
            self.state.change_order(at, |order| {
                (order.phase, order.ending, order.parked_from) = (Some(Phase::RefundDue), Ending::Open, None);
                let cold = order.cold_mut();
                cold.parked = None;
                cold.add_payment(due(payment, amount));
            });
            self.tell_must_go_back(at, payment, amount, why);
            return self.order_brief(at, false);
        }
        self.tell(at, Told::Paid { payment, amount, kept: true });
        let id = self.mint(r.id(), payment);
        let texts: SmallVec<[LimitKey; 4]> = keys.iter().map(|&key| self.state.keys.text(key).clone()).collect();
        let content = lines.iter().map(|line| (line.offer, line.quantity));
        let fingerprint = self.scratch.fingerprints.linked(id, &texts, content);
        keys.iter().for_each(|&key| self.state.keys.carry_again(key));
        self.take(id, fingerprint, &keys, &lines, Some(limits::HOLD_MS_MIN));
        let Some(Found::Reservation(linked)) = self.state.find(id) else { unreachable!("{id} was just taken") };
        // The order is open again before its new reservation ends: what belongs to it is remembered when it is done.
        self.sold(at, payment, amount, Some((linked, id)));
        self.state.reservations.get_mut(linked).order = at;
        let held = self.state.lines(self.state.reservations.get(linked));
        self.sell(linked, &whole(&held));
        self.tell(at, Told::Confirmed { linked: Some(id) });
        self.order_brief(at, false)
    }

    /// An id for the reservation of a late payment: of now, and after the order's.
    fn mint(&mut self, order: ReservationId, payment: &ProviderId) -> ReservationId {
        let time = self.state.time.max(order.time_ms() + 1);
        let mut again = 0;
        loop {
            let random = self.scratch.fingerprints.link(order, payment, again);
            let id = ReservationId::from_parts(order.slot(), time, random);
            if self.state.find(id).is_none() {
                return id;
            }
            again += 1;
        }
    }

    /// A payment that must go back; the order stays where it is, and the refund is its next step.
    fn must_go_back(&mut self, at: u32, payment: &ProviderId, amount: Money, why: RefundWhy) -> Verdict {
        self.state.change_order(at, |order| order.cold_mut().add_payment(due(payment, amount)));
        self.tell_must_go_back(at, payment, amount, why);
        self.order_brief(at, false)
    }

    fn tell_must_go_back(&mut self, at: u32, payment: &ProviderId, amount: Money, reason: RefundWhy) {
        self.tell(at, Told::Paid { payment, amount, kept: false });
        self.tell(at, Told::RefundRequested { payment, reason });
    }

    fn refunded(&mut self, at: u32, payment: &ProviderId, refund: &ProviderId) -> Verdict {
        let cold = self.state.orders.get(at).cold().clone();
        let place = cold.payments.iter().position(|p| p.id == *payment);
        if let Some(known) = place.map(|place| &cold.payments[place]).filter(|p| p.refund.is_some()) {
            return match known.refund.as_ref() == Some(refund) {
                true => self.order_brief(at, true),
                false => Err(No::Refused(Refusal::PaymentDiffers { amount: known.amount })),
            };
        }
        if place.is_none() {
            room_for_payment(&cold, None)?;
        }
        self.state.change_order(at, |order| {
            let payments = &mut order.cold_mut().payments;
            let place = place.unwrap_or_else(|| {
                let state = PaymentState::Refunded;
                payments.push(Payment { id: payment.clone(), amount: None, state, refund: None });
                payments.len() - 1
            });
            let was = std::mem::replace(&mut payments[place].state, PaymentState::Refunded);
            payments[place].refund = Some(refund.clone());
            if was == PaymentState::Kept {
                unsell(order);
            }
            end_refunds(order);
        });
        self.tell(at, Told::Refunded { payment, refund });
        self.order_brief(at, false)
    }
}

/// One place is kept for a payment of the order's own amount: wrong ones must not make the right
/// one impossible. What an order will cost is not known before it is placed.
fn room_for_payment(cold: &Cold, amount: Option<Money>) -> Result<(), Refusal> {
    let right = amount.is_some() && amount == cold.amount;
    let max = limits::PAYMENTS_MAX - usize::from(!right);
    if cold.payments.len() < max {
        return Ok(());
    }
    Err(Refusal::TooMany { what: Bound::PaymentsPerOrder, max: max as u64 })
}

/// The payment that was kept went back without the ledger having asked for it: the order is paid for no more.
fn unsell(order: &mut Order) {
    order.ending = Ending::Refunded;
    match order.phase() {
        Phase::Parked => order.parked_from = Some(Phase::Refunded),
        _ => order.phase = Some(Phase::Refunded),
    }
}

/// There may be no more of a kind until some of them have come to their end.
pub(super) fn records_full(what: Bound) -> NotNow {
    NotNow::RecordsFull { what, retry_ms: limits::RECORDS_RETRY_MS }
}

fn due(payment: &ProviderId, amount: Money) -> Payment {
    Payment { id: payment.clone(), amount: Some(amount), state: PaymentState::RefundDue, refund: None }
}

/// The lines with all that is held of them sold.
fn whole(held: &[LineRecord]) -> SmallVec<[LineRecord; 2]> {
    held.iter().map(|line| LineRecord { sold: line.reserved(), ..*line }).collect()
}
