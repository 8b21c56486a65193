//! Reports, facts about money, and what is done by hand.
//!
//! **Owns** the model of how an order goes from phase to phase. **Must never** keep money for which nothing is sold. **Read next**: `feed`.

use ledger_core::order::{
    ByHand, Ending, Fact, Money, ParkReason, Payment, PaymentState, Phase, ProviderId, Report, Step,
};
use ledger_core::outcome::{Bound, Outcome, Refusal, Settled, Status};
use ledger_core::{Reason, ReservationId, limits};

use super::orders::{Order, Work};
use super::{Known, Model, Recall, Seen, What};

type Decided = Result<Settled, Refusal>;

impl Model {
    /// The order is known, or why it is not.
    fn must_be_order(&mut self, id: ReservationId, answer: &Outcome, seen: &Seen<'_>) -> Result<(), Refusal> {
        if self.desk.orders.get(&id).is_some_and(|o| o.details.is_none()) {
            return Ok(());
        }
        match self.recall(id, answer, seen) {
            Recall::Forgotten => Err(Refusal::Forgotten),
            _ if self.desk.orders.contains_key(&id) => Ok(()),
            _ => Err(Refusal::NoSuchOrder),
        }
    }

    fn told(&self, id: ReservationId, replayed: bool) -> Decided {
        Ok(Settled::Order(self.order_brief(id, replayed)))
    }

    fn must_be_leased(&self, id: ReservationId, epoch: u32) -> Result<(), Refusal> {
        let order = self.order(id);
        if order.epoch != epoch {
            return Err(Refusal::StaleEpoch { present: order.epoch });
        }
        match order.work {
            Work::Leased(..) => Ok(()),
            _ => Err(Refusal::LeaseEnded { phase: order.phase }),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        id: ReservationId,
        epoch: u32,
        lease_ms: u64,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Decided {
        self.must_be_order(id, answer, seen)?;
        self.must_be_leased(id, epoch)?;
        let now = self.time;
        self.change(id, |o| {
            if let Work::Leased(until, _) = &mut o.work {
                *until = now + lease_ms;
            }
        });
        self.told(id, false)
    }

    pub(super) fn report(
        &mut self,
        id: ReservationId,
        epoch: u32,
        report: &Report,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Decided {
        self.must_be_order(id, answer, seen)?;
        let order = self.order(id);
        if order.epoch == epoch && order.reported.as_ref() == Some(report) {
            return self.told(id, true);
        }
        self.must_be_leased(id, epoch)?;
        let (step, phase, now) = (order.step().expect("leased"), order.phase, self.time);
        let fits = match report {
            Report::AwaitBuyer { .. } => step == Step::Pay,
            Report::Intent { .. } | Report::Unpaid { .. } => step == Step::Pay || step == Step::Settle,
            Report::Notified => step == Step::Notify,
            _ => true,
        };
        if !fits {
            return Err(Refusal::WrongPhase { phase });
        }
        if let Report::Intent { intent, generation } = report {
            if order.generation == *generation && order.intent.as_ref() == Some(intent) {
                return self.told(id, true);
            }
            if *generation != order.generation + 1 {
                return Err(Refusal::WrongGeneration { present: order.generation });
            }
            self.change(id, |o| (o.intent, o.generation) = (Some(intent.clone()), *generation));
            return self.told(id, false);
        }
        self.change(id, |o| o.reported = Some(report.clone()));
        let later = |after_ms: u64| if after_ms == 0 { Work::Idle } else { Work::Delayed(now + after_ms) };
        match report {
            Report::Intent { .. } => unreachable!("told above"),
            Report::AwaitBuyer { secret } => self.change(id, |o| {
                (o.phase, o.secret) = (Phase::AwaitingBuyer, Some(secret.as_str().to_owned()));
            }),
            Report::Unpaid { .. } => {
                self.free(id);
                self.change(id, |o| (o.phase, o.ending, o.secret) = (Phase::Released, Ending::Released, None));
            }
            Report::Notified => self.change(id, |o| o.phase = Phase::Done),
            Report::Retry { after_ms, .. } => self.change(id, |o| {
                (o.attempts, o.work) = (o.attempts + 1, later(*after_ms));
            }),
            Report::GiveBack { after_ms } => self.change(id, |o| o.work = later(*after_ms)),
            Report::Park { reason } => self.park(id, ParkReason::Worker(reason.clone())),
        }
        self.told(id, false)
    }

    /// Gives back what the order still holds.
    fn free(&mut self, id: ReservationId) {
        if self.order(id).phase.holds() {
            self.give_back(id, &self.reserved_lines(id));
            self.reservation_mut(id).status = Status::Released;
            self.ids.get_mut(&id).expect("known").settled_at = self.time;
        }
    }

    pub(super) fn park(&mut self, id: ReservationId, why: ParkReason) {
        let phase = self.order(id).phase;
        self.free(id);
        self.change(id, |o| {
            o.parked_from = Some(if phase.holds() { Phase::Settling } else { phase });
            (o.phase, o.parked, o.secret) = (Phase::Parked, Some(why), None);
        });
    }

    /// Its hold ended at its deadline, or its caller released it.
    pub(super) fn order_lost_hold(&mut self, id: ReservationId, status: Status) {
        if self.belongs_to(id) != Some(id) {
            return;
        }
        let (phase, ending) = match (self.order(id).phase, status) {
            (Phase::Queued, Status::Expired) => (Phase::Expired, Ending::Expired),
            (Phase::Queued, _) => (Phase::Released, Ending::Released),
            _ => (Phase::Settling, Ending::Open),
        };
        self.change(id, |o| (o.phase, o.ending, o.secret) = (phase, ending, None));
    }

    pub(super) fn fact(&mut self, id: ReservationId, fact: &Fact, answer: &Outcome, seen: &Seen<'_>) -> Decided {
        match fact {
            Fact::Paid { payment, amount } => self.paid(id, payment, *amount, answer, seen),
            Fact::Refunded { payment, refund } => self.refunded(id, payment, refund, answer, seen),
        }
    }

    /// An order that is done may be forgotten at any time: then the payment is of an unknown one, which the answer tells.
    fn was_forgotten(&mut self, id: ReservationId, answer: &Outcome, seen: &Seen<'_>) -> bool {
        let Some(order) = self.desk.orders.get(&id) else { return true };
        let parked = matches!(answer, Outcome::Ok(Settled::Order(b)) if b.phase == Phase::Parked && b.epoch == 0);
        let forgotten = parked && order.is_finished() && order.details.is_some();
        if forgotten {
            assert!(self.may_be_forgotten(id, seen.remembered), "order {id} was forgotten too early");
            self.ids.get_mut(&id).expect("known").forgotten = true;
            self.forget_order(id);
        }
        forgotten
    }

    fn paid(
        &mut self,
        id: ReservationId,
        payment: &ProviderId,
        amount: Money,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Decided {
        let due = Payment { id: payment.clone(), amount: Some(amount), state: PaymentState::RefundDue, refund: None };
        if self.was_forgotten(id, answer, seen) {
            self.desk.orders.insert(id, Order::stray(due, self.time));
            return self.told(id, false);
        }
        let order = self.order(id);
        if let Some(known) = order.payments.iter().position(|p| p.id == *payment) {
            return match order.payments[known].amount {
                None => {
                    self.change(id, |o| o.payments[known].amount = Some(amount));
                    self.told(id, false)
                }
                Some(before) if before == amount => self.told(id, true),
                before => Err(Refusal::PaymentDiffers { amount: before }),
            };
        }
        room(order, Some(amount))?;
        let right = order.details.as_ref().is_some_and(|d| d.amount == amount);
        if right && order.phase.holds() {
            self.sell_whole(id);
            self.keep(id, due);
        } else if right && self.may_sell_late(id) {
            match self.again(id, seen) {
                Some(linked) => {
                    self.change(id, |o| o.linked = Some(linked));
                    self.keep(id, due);
                }
                None => self.change(id, |o| {
                    (o.phase, o.ending, o.parked, o.parked_from) = (Phase::RefundDue, Ending::Open, None, None);
                    o.payments.push(due);
                }),
            }
        } else {
            self.change(id, |o| o.payments.push(due));
        }
        self.told(id, false)
    }

    pub(super) fn keep(&mut self, id: ReservationId, payment: Payment) {
        self.change(id, |o| {
            (o.phase, o.ending, o.secret) = (Phase::Sold, Ending::Sold, None);
            (o.parked, o.parked_from) = (None, None);
            o.payments.push(Payment { state: PaymentState::Kept, ..payment });
        });
    }

    /// Nothing was ever sold for it, and it ended, or waits to end, unpaid.
    fn may_sell_late(&self, id: ReservationId) -> bool {
        let order = self.order(id);
        let ended_unpaid = [Ending::Released, Ending::Expired, Ending::Closed].contains(&order.ending);
        let unpaid = match order.parked_from.unwrap_or(order.phase) {
            Phase::Settling | Phase::Released | Phase::Expired => true,
            Phase::Done => ended_unpaid,
            _ => false,
        };
        unpaid && !order.keeps() && order.linked.is_none() && self.reservation(id).status != Status::Confirmed
    }

    pub(super) fn sell_whole(&mut self, id: ReservationId) {
        let lines = self.reserved_lines(id);
        for (offer, &n) in &lines {
            self.products.get_mut(&offer.sku).expect("known").ever_sold += n;
            self.reservation_mut(id).lines.get_mut(offer).expect("known").sold = n;
        }
        let r = self.reservation_mut(id);
        (r.status, r.confirmed_as) = (Status::Confirmed, Some(lines));
        self.ids.get_mut(&id).expect("known").settled_at = self.time;
    }

    /// The same lines under the same keys, anew; the id is the ledger's to mint.
    fn again(&mut self, id: ReservationId, seen: &Seen<'_>) -> Option<ReservationId> {
        let mut content = self.reservation(id).content.clone();
        content.hold_ms = None;
        content.placed = None;
        if self.refusal_when_late(&content).is_some() {
            return None;
        }
        let linked = (seen.linked)(id)?;
        assert_eq!(linked.slot(), id.slot(), "a linked reservation lives where its order does");
        assert!(linked.time_ms() == self.time.max(id.time_ms() + 1), "{linked} is of now, and after {id}");
        assert!(!self.ids.contains_key(&linked), "{linked} is new");
        content.hold_ms = Some(1);
        let taken = self.take(content);
        self.ids.insert(linked, Known { what: What::Reserved(taken), forgotten: false, settled_at: self.time });
        self.sell_whole(linked);
        Some(linked)
    }

    fn refunded(
        &mut self,
        id: ReservationId,
        payment: &ProviderId,
        refund: &ProviderId,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Decided {
        self.must_be_order(id, answer, seen)?;
        let order = self.order(id);
        let known = order.payments.iter().position(|p| p.id == *payment);
        if let Some(before) = known.and_then(|at| order.payments[at].refund.clone()) {
            let amount = order.payments[known.expect("just found")].amount;
            return if before == *refund { self.told(id, true) } else { Err(Refusal::PaymentDiffers { amount }) };
        }
        if known.is_none() {
            room(order, None)?;
        }
        let stray = order.details.is_none();
        self.change(id, |o| {
            let at = known.unwrap_or(o.payments.len());
            if known.is_none() {
                let state = PaymentState::RefundDue;
                o.payments.push(Payment { id: payment.clone(), amount: None, state, refund: None });
            }
            let kept = o.payments[at].state == PaymentState::Kept;
            (o.payments[at].state, o.payments[at].refund) = (PaymentState::Refunded, Some(refund.clone()));
            if kept {
                o.ending = Ending::Refunded;
                match o.phase {
                    Phase::Parked => o.parked_from = Some(Phase::Refunded),
                    _ => o.phase = Phase::Refunded,
                }
            }
            refunds_over(o, stray);
        });
        self.told(id, false)
    }

    pub(super) fn by_hand(
        &mut self,
        id: ReservationId,
        what: ByHand,
        reason: &Reason,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Decided {
        self.must_be_order(id, answer, seen)?;
        let order = self.order(id);
        let possible = match what {
            ByHand::Redrive | ByHand::Close => order.phase == Phase::Parked,
            ByHand::Refund => order.keeps() && (order.phase == Phase::Sold || order.phase == Phase::Done),
            ByHand::Resume => order.phase == Phase::AwaitingBuyer,
        };
        if !possible {
            let same = order.by_hand == Some((what, reason.clone()));
            return if same { self.told(id, true) } else { Err(Refusal::WrongPhase { phase: order.phase }) };
        }
        let stray = order.details.is_none();
        self.change(id, |o| {
            o.by_hand = Some((what, reason.clone()));
            let (from, to) = match what {
                ByHand::Redrive => {
                    o.phase = o.parked_from.take().unwrap_or(Phase::RefundDue);
                    o.parked = None;
                    refunds_over(o, stray);
                    return;
                }
                ByHand::Close => {
                    (o.phase, o.parked, o.parked_from) = (Phase::Done, None, None);
                    if o.ending == Ending::Open {
                        o.ending = Ending::Closed;
                    }
                    (PaymentState::RefundDue, PaymentState::Closed)
                }
                ByHand::Refund => {
                    (o.phase, o.ending) = (Phase::RefundDue, Ending::Open);
                    (PaymentState::Kept, PaymentState::RefundDue)
                }
                ByHand::Resume => {
                    (o.phase, o.secret) = (Phase::Paying, None);
                    return;
                }
            };
            o.payments.iter_mut().filter(|p| p.state == from).for_each(|p| p.state = to);
        });
        self.told(id, false)
    }
}

/// All is given back: a stray has nobody to be told.
fn refunds_over(o: &mut Order, stray: bool) {
    if o.phase == Phase::RefundDue && !o.owes() {
        (o.phase, o.ending) = (if stray { Phase::Done } else { Phase::Refunded }, Ending::Refunded);
    }
}

/// The last place is for a payment of what the order costs.
fn room(order: &Order, amount: Option<Money>) -> Result<(), Refusal> {
    let right = amount.is_some() && order.details.as_ref().map(|d| d.amount) == amount;
    let max = if right { limits::PAYMENTS_MAX } else { limits::PAYMENTS_MAX - 1 };
    if order.payments.len() < max {
        return Ok(());
    }
    Err(Refusal::TooMany { what: Bound::PaymentsPerOrder, max: max as u64 })
}
