//! Orders, slow and obvious: one map of orders, every queue looked for anew at every claim.
//!
//! **Owns** the model of docs/decisions/0007. What it cannot know is observed: the id that a late payment's reservation was minted under, which must be lawful,
//! and whether an order that is done is forgotten. **Must never** keep a queue. **Read next**: `steps`.

use std::collections::BTreeMap;

use ledger_core::command::{LimitKeys, Lines};
use ledger_core::order::{
    ByHand, Claimed, Ending, OrderBrief, OrderDetails, OrderView, ParkReason, Payment, PaymentState, Phase, ProviderId,
    QueueStats, Report, Sealed, Step, WorkClass, WorkerId,
};
use ledger_core::outcome::{Outcome, Refusal, Settled, Status};
use ledger_core::{LedgerTime, Line, OfferKey, Quantity, Reason, ReservationId, Sku, limits};

use super::reserve::misshapen;
use super::{Content, Known, Model, Recall, SWEEP_PENDING, Seen, What, content_of};

/// Where an order stands with the workers.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Work {
    Idle,
    Ready { sequence: u64, since: u64, late: bool },
    Delayed(u64),
    Leased(u64, WorkerId),
}

/// One order.
#[derive(Clone)]
pub(super) struct Order {
    /// None of a stray.
    pub(super) details: Option<OrderDetails>,
    /// What was placed, as far as sameness goes.
    pub(super) placed: (String, Option<Content>),
    pub(super) placed_at: u64,
    pub(super) done_at: Option<u64>,
    pub(super) phase: Phase,
    pub(super) parked_from: Option<Phase>,
    pub(super) parked: Option<ParkReason>,
    pub(super) ending: Ending,
    pub(super) epoch: u32,
    pub(super) attempts: u32,
    pub(super) lost: u32,
    pub(super) work: Work,
    pub(super) payments: Vec<Payment>,
    pub(super) intent: Option<ProviderId>,
    pub(super) generation: u32,
    pub(super) secret: Option<String>,
    pub(super) linked: Option<ReservationId>,
    pub(super) reported: Option<Report>,
    pub(super) by_hand: Option<(ByHand, Reason)>,
}

impl Order {
    pub(super) fn stray(payment: Payment, now: u64) -> Self {
        Self {
            details: None,
            placed: (String::new(), None),
            placed_at: now,
            done_at: None,
            phase: Phase::Parked,
            parked_from: None,
            parked: Some(ParkReason::UnknownOrder),
            ending: Ending::Open,
            epoch: 0,
            attempts: 0,
            lost: 0,
            work: Work::Idle,
            payments: vec![payment],
            intent: None,
            generation: 0,
            secret: None,
            linked: None,
            reported: None,
            by_hand: None,
        }
    }

    pub(super) fn owes(&self) -> bool {
        self.payments.iter().any(|p| p.state == PaymentState::RefundDue)
    }

    pub(super) fn keeps(&self) -> bool {
        self.payments.iter().any(|p| p.state == PaymentState::Kept)
    }

    /// The table of steps.
    pub(super) fn step(&self) -> Option<Step> {
        self.step_in(self.phase)
    }

    fn step_in(&self, phase: Phase) -> Option<Step> {
        match (phase, self.owes()) {
            (Phase::Queued | Phase::Paying, _) => Some(Step::Pay),
            (Phase::Parked, _) => None,
            (_, true) => Some(Step::Refund),
            (Phase::Settling, _) => Some(Step::Settle),
            (Phase::Sold | Phase::Released | Phase::Expired | Phase::Refunded, _) => Some(Step::Notify),
            (Phase::AwaitingBuyer | Phase::RefundDue | Phase::Done, _) => None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Done && !self.owes()
    }
}

/// What the model remembers of claims.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) orders: BTreeMap<ReservationId, Order>,
    sequence: u64,
    turns: u64,
    given: BTreeMap<WorkClass, u64>,
    /// When a product was served last, by class and lane; none before it ever was.
    served: BTreeMap<(Option<Sku>, WorkClass, bool), u64>,
}

impl Model {
    /// The order, if the ledger still knows it.
    pub(super) fn order(&self, id: ReservationId) -> &Order {
        &self.desk.orders[&id]
    }

    /// Changes it; what follows from another step follows.
    pub(super) fn change(&mut self, id: ReservationId, change: impl FnOnce(&mut Order)) {
        let now = self.time;
        let order = self.desk.orders.get_mut(&id).expect("known");
        let (step, finished) = (order.step(), order.is_finished());
        change(order);
        if order.step() != step {
            (order.attempts, order.lost, order.work) = (0, 0, Work::Idle);
        }
        if order.step().is_some() && order.work == Work::Idle {
            self.desk.sequence += 1;
            order.work = Work::Ready { sequence: self.desk.sequence, since: now, late: false };
        }
        if let Work::Ready { late, .. } = &mut order.work {
            *late &= order.phase.holds();
        }
        match (finished, order.is_finished()) {
            (false, true) => {
                order.done_at = Some(now);
                if let Some(details) = &mut order.details {
                    (details.payment, details.contact) = (Sealed::default(), Sealed::default());
                }
            }
            (true, false) => order.done_at = None,
            _ => {}
        }
    }

    /// Whether a reservation belongs to an order: as itself, or as what a late payment was given.
    pub(super) fn belongs_to(&self, id: ReservationId) -> Option<ReservationId> {
        if self.desk.orders.get(&id).is_some_and(|o| o.details.is_some()) {
            return Some(id);
        }
        self.desk.orders.iter().find(|(_, o)| o.linked == Some(id)).map(|(&id, _)| id)
    }

    pub(super) fn place(
        &mut self,
        id: ReservationId,
        details: &OrderDetails,
        reserve: Option<&(LimitKeys, Lines)>,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Outcome {
        let text = format!("{details:?}");
        let content = match reserve {
            None => None,
            Some((keys, lines)) => match misshapen(id, lines) {
                Err(why) => return Outcome::Refused(why),
                Ok(lines) => {
                    let mut content = content_of(keys, lines, Some(details.pay_within_ms));
                    content.placed = Some(text.clone());
                    Some(content)
                }
            },
        };
        if self.is_unswept(id) {
            return SWEEP_PENDING;
        }
        let placed = (text, content.clone());
        let recall = self.recall(id, answer, seen);
        if !matches!(recall, Recall::Forgotten)
            && let Some(order) = self.desk.orders.get(&id).filter(|o| o.details.is_some())
        {
            return match order.placed == placed {
                true => Outcome::Ok(Settled::Order(self.order_brief(id, true))),
                false => Outcome::Refused(Refusal::IdTaken),
            };
        }
        let made = match content {
            Some(content) => {
                let (keys, _) = reserve.expect("with content");
                self.reserve_content(id, content, keys, recall, answer, seen)
            }
            None => self.hold_for_order(id, details, recall),
        };
        if !matches!(made, Outcome::Ok(Settled::Reservation(_))) {
            return made;
        }
        let now = self.time;
        let mut order =
            Order::stray(Payment { id: provider("-"), amount: None, state: PaymentState::Closed, refund: None }, now);
        order.payments.clear();
        // Payments that came before it are its own.
        let stray = self.desk.orders.remove(&id);
        order.epoch = stray.as_ref().map_or(0, |stray| stray.epoch);
        (order.details, order.placed, order.phase, order.parked) = (Some(details.clone()), placed, Phase::Done, None);
        self.desk.orders.insert(id, order);
        self.change(id, |order| order.phase = Phase::Queued);
        self.desk.orders.get_mut(&id).expect("known").done_at = None;
        for payment in stray.iter().flat_map(|stray| stray.payments.clone()) {
            let undecided = stray.as_ref().is_some_and(|s| s.phase == Phase::Parked && s.parked_from.is_none());
            let right = payment.state == PaymentState::RefundDue && payment.amount == Some(details.amount);
            if undecided && right && self.order(id).phase.holds() {
                self.sell_whole(id);
                self.keep(id, payment);
            } else {
                self.change(id, |order| order.payments.push(payment));
            }
        }
        Outcome::Ok(Settled::Order(self.order_brief(id, false)))
    }

    fn hold_for_order(&mut self, id: ReservationId, details: &OrderDetails, recall: Recall) -> Outcome {
        match recall {
            Recall::Reserved => {}
            Recall::Forgotten => return Outcome::Refused(Refusal::Forgotten),
            Recall::Fenced => return Outcome::Refused(Refusal::Fenced),
            Recall::Refused | Recall::New => return Outcome::Refused(Refusal::UnknownReservation),
        }
        if self.belongs_to(id).is_some() {
            return Outcome::Refused(Refusal::Ordered);
        }
        let status = self.reservation(id).status;
        if status != Status::Held {
            return Outcome::Refused(Refusal::NotHeld { status });
        }
        let max_ms = self.shortest_longest_hold(id);
        if details.pay_within_ms > max_ms {
            return Outcome::Refused(Refusal::HoldTooLong { max_ms });
        }
        self.reservation_mut(id).deadline = self.time + details.pay_within_ms;
        Outcome::Ok(Settled::Reservation(self.brief(id, false)))
    }

    /// Whether the order's hold is due and the sweep has not come to it.
    pub(super) fn is_unswept(&self, id: ReservationId) -> bool {
        let placed = self.desk.orders.get(&id).filter(|o| o.details.is_some());
        placed.is_some_and(|o| o.phase.holds() && self.reservation(id).status == Status::Expired)
    }

    pub(super) fn order_brief(&self, id: ReservationId, replayed: bool) -> OrderBrief {
        let order = self.order(id);
        let (phase, ending) = match (self.is_unswept(id), order.phase) {
            (false, phase) => (phase, order.ending),
            (true, Phase::Queued) => (Phase::Expired, Ending::Expired),
            (true, _) => (Phase::Settling, Ending::Open),
        };
        let deadline = LedgerTime(if order.details.is_some() { self.reservation(id).deadline } else { 0 });
        OrderBrief { phase, ending, epoch: order.epoch, deadline, replayed }
    }

    fn lines_of_order(&self, id: ReservationId) -> Vec<Line> {
        if self.order(id).details.is_none() {
            return Vec::new();
        }
        let lines = &self.reservation(id).lines;
        let line = |(offer, l): (&OfferKey, &super::ModelLine)| Line {
            offer: offer.clone(),
            quantity: Quantity::new(l.reserved as i64).expect("a quantity"),
        };
        lines.iter().map(line).collect()
    }

    /// What a read of the order answers.
    pub(crate) fn order_view(&self, id: ReservationId) -> Option<OrderView> {
        let o = self.desk.orders.get(&id)?;
        let brief = self.order_brief(id, false);
        let step = o.step_in(brief.phase);
        // Another step begins anew; a refund goes on.
        let work = if step == o.step() { &o.work } else { &Work::Idle };
        Some(OrderView {
            id,
            brief,
            step,
            attempts: if step == o.step() { o.attempts } else { 0 },
            not_before: if let Work::Delayed(t) = work { Some(LedgerTime(*t)) } else { None },
            lease: if let Work::Leased(t, worker) = work { Some((worker.clone(), LedgerTime(*t))) } else { None },
            placed_at: LedgerTime(o.placed_at),
            amount: o.details.as_ref().map(|d| d.amount),
            intent: o.intent.clone(),
            generation: o.generation,
            secret: o.secret.as_ref().filter(|_| brief.phase == o.phase).map(|s| s.as_str().into()),
            payments: o.payments.clone(),
            lines: self.lines_of_order(id),
            linked: o.linked,
            parked: o.parked.clone(),
            suspect: o.details.as_ref().is_some_and(|d| d.suspect),
        })
    }

    pub(crate) fn order_ids(&self) -> Vec<ReservationId> {
        self.desk.orders.keys().copied().collect()
    }

    /// Counted one by one.
    pub(crate) fn queue_stats(&self) -> QueueStats {
        let mut stats = QueueStats::default();
        for order in self.desk.orders.values() {
            stats.open += u64::from(!order.is_finished());
            stats.parked += u64::from(order.phase == Phase::Parked);
            stats.awaiting += u64::from(order.phase == Phase::AwaitingBuyer);
            match order.work {
                Work::Idle => {}
                Work::Delayed(_) => stats.delayed += 1,
                Work::Leased(..) => stats.leased += 1,
                Work::Ready { since, .. } => {
                    let class = order.step().expect("ready").class() as usize - 1;
                    stats.ready[class] += 1;
                    stats.suspects += u64::from(order.details.as_ref().is_some_and(|d| d.suspect));
                    let oldest = &mut stats.oldest_ready[class];
                    *oldest = Some(oldest.map_or(LedgerTime(since), |t| t.min(LedgerTime(since))));
                }
            }
        }
        stats
    }

    /// When the next lease or delay ends.
    pub(super) fn next_wake(&self) -> Option<u64> {
        let times = self.desk.orders.values().filter_map(|o| match o.work {
            Work::Delayed(t) | Work::Leased(t, _) => Some(t),
            _ => None,
        });
        times.min()
    }

    /// Leases and delays that are over, in the order of (time, id); and strays whose time is over.
    pub(super) fn wake_due(&mut self) {
        loop {
            let due = self.desk.orders.iter().filter_map(|(&id, o)| match o.work {
                Work::Delayed(t) | Work::Leased(t, _) if t <= self.time && !self.is_unswept(id) => Some((t, id)),
                _ => None,
            });
            let Some((_, id)) = due.min() else { break };
            if matches!(self.order(id).work, Work::Delayed(_)) {
                self.change(id, |o| o.work = Work::Idle);
            } else if self.order(id).lost + 1 >= limits::LEASES_LOST_MAX {
                self.park(id, ParkReason::LeasesLost);
            } else {
                self.change(id, |o| {
                    (o.attempts, o.lost, o.work) = (o.attempts + 1, o.lost + 1, Work::Idle);
                });
            }
        }
        let keep = self.settings.retain_ended_ms.max(limits::RETAIN_MS_MIN);
        let now = self.time;
        self.desk.orders.retain(|_, o| o.details.is_some() || o.done_at.is_none_or(|t| t + keep > now));
    }

    fn product_of(&self, id: ReservationId) -> Option<Sku> {
        self.order(id).details.as_ref()?;
        self.reservation(id).lines.keys().next().map(|offer| offer.sku.clone())
    }

    fn has_time(&self, id: ReservationId, attempt_ms: u64) -> bool {
        if self.is_unswept(id) || self.order(id).step() != Some(Step::Pay) {
            return !self.is_unswept(id);
        }
        let left = self.reservation(id).deadline - self.time;
        left > 0 && left >= attempt_ms
    }

    /// All that are ready in a lane, whose turn it is first.
    fn ready(&self, class: WorkClass, suspect: bool) -> Vec<ReservationId> {
        let in_lane = self.desk.orders.iter().filter_map(|(&id, o)| match o.work {
            Work::Ready { sequence, late: false, .. } => {
                let fits = o.step()?.class() == class && o.details.as_ref().is_some_and(|d| d.suspect) == suspect;
                let product = self.product_of(id);
                let created = product
                    .as_ref()
                    .map_or(usize::MAX, |p| self.created.iter().position(|c| c.as_ref() == Some(p)).expect("created"));
                let turn = self.desk.served.get(&(product, class, suspect)).copied().unwrap_or(0);
                fits.then_some((turn, created, sequence, id))
            }
            _ => None,
        });
        let mut all: Vec<_> = in_lane.collect();
        all.sort_unstable();
        all.into_iter().map(|(.., id)| id).collect()
    }

    /// What was put aside for another claim, and fits this one, is where it was.
    fn take_back_late(&mut self, attempt_ms: u64) {
        let ids: Vec<_> = self.desk.orders.keys().copied().collect();
        for id in ids.into_iter().filter(|&id| self.has_time(id, attempt_ms)).collect::<Vec<_>>() {
            if let Work::Ready { late, .. } = &mut self.desk.orders.get_mut(&id).expect("known").work {
                *late = false;
            }
        }
    }

    fn next_of(&mut self, class: WorkClass, attempt_ms: u64) -> Option<ReservationId> {
        let suspects_first = (self.desk.given.get(&class).unwrap_or(&0) + 1).is_multiple_of(limits::SUSPECTS_EVERY);
        for suspect in [suspects_first, !suspects_first] {
            while let Some(&id) = self.ready(class, suspect).first() {
                if self.has_time(id, attempt_ms) {
                    return Some(id);
                }
                let order = self.desk.orders.get_mut(&id).expect("known");
                if let Work::Ready { late, .. } = &mut order.work {
                    *late = true;
                }
            }
        }
        let late = self.desk.orders.iter().filter_map(|(&id, o)| match o.work {
            Work::Ready { sequence, late: true, .. } => Some((self.reservation(id).deadline, sequence, id)),
            _ => None,
        });
        let fits = late.filter(|&(_, _, id)| class == WorkClass::Money && self.has_time(id, attempt_ms));
        fits.min().map(|(_, _, id)| id)
    }

    pub(super) fn claim(
        &mut self,
        worker: &WorkerId,
        class: WorkClass,
        max: u32,
        lease_ms: u64,
        attempt_ms: u64,
    ) -> Settled {
        let mut claimed = Vec::new();
        if class == WorkClass::Money {
            self.take_back_late(attempt_ms);
        }
        while (claimed.len() as u32) < max
            && let Some(id) = self.next_of(class, attempt_ms)
        {
            let until = self.time + lease_ms;
            let product = self.product_of(id);
            let suspect = self.order(id).details.as_ref().is_some_and(|d| d.suspect);
            *self.desk.given.entry(class).or_default() += 1;
            self.desk.turns += 1;
            self.desk.served.insert((product, class, suspect), self.desk.turns);
            self.change(id, |o| {
                if o.phase == Phase::Queued {
                    o.phase = Phase::Paying;
                }
                o.epoch += 1;
                o.reported = None;
                o.work = Work::Leased(until, worker.clone());
            });
            let o = self.order(id);
            let details = o.details.as_ref();
            let sealed = |of: fn(&OrderDetails) -> &Sealed| details.map(of).cloned().unwrap_or_default();
            claimed.push(Claimed {
                id,
                epoch: o.epoch,
                lease_until: LedgerTime(until),
                step: o.step().expect("claimed for one"),
                phase: o.phase,
                ending: o.ending,
                attempts: o.attempts,
                deadline: self.order_brief(id, false).deadline,
                amount: details.map(|d| d.amount).or_else(|| o.payments.iter().find_map(|p| p.amount)).expect("one"),
                payment: sealed(|d| &d.payment),
                contact: sealed(|d| &d.contact),
                intent: o.intent.clone(),
                generation: o.generation,
                payments: o.payments.clone(),
                lines: self.lines_of_order(id),
                linked: o.linked,
            });
        }
        Settled::Claimed(claimed)
    }

    /// The ledger has forgotten the reservation: its order went with it.
    pub(crate) fn forget_order(&mut self, id: ReservationId) {
        if self.desk.orders.get(&id).is_some_and(|o| o.details.is_some()) {
            let gone = self.desk.orders.remove(&id).expect("just seen");
            assert!(gone.is_finished(), "{id} was forgotten as {:?}", gone.phase);
        }
    }

    /// When its time to be forgotten began, and whether that is a return window; none while it must be known.
    pub(super) fn memory_of(&self, id: ReservationId, known: &Known) -> Option<(u64, bool)> {
        let What::Reserved(r) = &known.what else { return Some((known.settled_at, false)) };
        if r.status == Status::Held {
            return None;
        }
        match self.belongs_to(id) {
            None => Some((known.settled_at, r.status == Status::Confirmed)),
            Some(order) => {
                let order = self.order(order);
                let sold = r.status == Status::Confirmed || order.linked.is_some();
                Some((order.done_at.filter(|_| order.is_finished())?, sold))
            }
        }
    }
}

pub(super) fn provider(text: &str) -> ProviderId {
    ProviderId::new(text).expect("an id")
}
