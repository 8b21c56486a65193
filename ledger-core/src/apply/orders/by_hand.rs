//! By hand: redrive, close, refund, resume.
//!
//! **Owns** what an operator (or a webhook, to resume) may do. The same word again, when there is nothing left to do about it, is the same answer.
//! **Must never** move units. **Read next**: [`super::super::time`].

use super::super::{Deciding, Verdict};
use super::end_refunds;
use crate::codec::orders::Told;
use crate::order::{ByHand, Ending, PaymentState, Phase, RefundWhy, SettlingWhy};
use crate::types::{Reason, ReservationId};

impl Deciding<'_> {
    pub(in super::super) fn order_by_hand(&mut self, id: ReservationId, what: ByHand, reason: &Reason) -> Verdict {
        let at = self.order(id)?;
        let fingerprint = self.scratch.fingerprints.by_hand(what, reason);
        let order = self.state.orders.get(at);
        let possible = match what {
            ByHand::Redrive | ByHand::Close => order.phase() == Phase::Parked,
            ByHand::Refund => matches!(order.phase(), Phase::Sold | Phase::Done) && order.cold().keeps(),
            ByHand::Resume => order.phase() == Phase::AwaitingBuyer,
        };
        if !possible {
            let said_before = order.by_hand == fingerprint;
            return if said_before { self.order_brief(at, true) } else { Err(self.wrong_phase(at)) };
        }
        self.tell(at, Told::ByHand { what, reason });
        self.state.change_order(at, |order| order.by_hand = fingerprint);
        match what {
            ByHand::Redrive => self.redrive(at),
            ByHand::Close => self.close(at),
            ByHand::Refund => self.refund(at),
            ByHand::Resume => self.state.change_order(at, |order| {
                order.phase = Some(Phase::Paying);
                order.cold_mut().secret = None;
            }),
        }
        self.order_brief(at, false)
    }

    /// Goes on where it was parked. A stray's payments go back.
    fn redrive(&mut self, at: u32) {
        let order = self.state.orders.get(at);
        let to = order.parked_from.unwrap_or(Phase::RefundDue);
        let owed = if order.parked_from.is_none() { order.cold().clone() } else { Default::default() };
        match to {
            Phase::Settling => self.tell(at, Told::Settling { why: SettlingWhy::Redriven }),
            _ => {
                for payment in owed.payments.iter().filter(|p| p.state == PaymentState::RefundDue) {
                    let reason = RefundWhy::UnknownOrder;
                    self.tell(at, Told::RefundRequested { payment: &payment.id, reason });
                }
            }
        }
        self.state.change_order(at, |order| {
            (order.phase, order.parked_from) = (Some(to), None);
            order.cold_mut().parked = None;
            end_refunds(order);
        });
    }

    /// Done, and nothing is moved: what was to go back is left to whoever closed it.
    fn close(&mut self, at: u32) {
        self.state.change_order(at, |order| {
            (order.phase, order.parked_from) = (Some(Phase::Done), None);
            if order.ending == Ending::Open {
                order.ending = Ending::Closed;
            }
            let cold = order.cold_mut();
            cold.parked = None;
            for payment in cold.payments.iter_mut().filter(|p| p.state == PaymentState::RefundDue) {
                payment.state = PaymentState::Closed;
            }
        });
    }

    /// The kept payment is to go back; the units stay sold.
    fn refund(&mut self, at: u32) {
        let cold = self.state.orders.get(at).cold().clone();
        for payment in cold.payments.iter().filter(|p| p.state == PaymentState::Kept) {
            self.tell(at, Told::RefundRequested { payment: &payment.id, reason: RefundWhy::ByHand });
        }
        self.state.change_order(at, |order| {
            (order.phase, order.ending) = (Some(Phase::RefundDue), Ending::Open);
            for payment in order.cold_mut().payments.iter_mut().filter(|p| p.state == PaymentState::Kept) {
                payment.state = PaymentState::RefundDue;
            }
        });
    }
}
