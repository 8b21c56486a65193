//! Claim and heartbeat, and what becomes of leases and delays when their time comes.
//!
//! A claim takes turns: the product served longest ago gives its first order. The suspect lane is
//! served when the normal one is empty, and every [`limits::SUSPECTS_EVERY`]th time. Orders to be
//! paid that have too little time left for a claim are put aside, so that the next one does not
//! look at them again; a claim that needs less time takes those back first that it fits, the
//! earliest deadline first, each to where it stood. What fits no claim ends at its deadline.
//! **Owns** epochs and leases. **Must never** give one order to two leases, or look at more than a
//! bounded number. **Read next**: `report`.

use super::super::{Deciding, Verdict};
use crate::codec::orders::Told;
use crate::limits;
use crate::order::{Claimed, ParkReason, Phase, Step, WorkClass, WorkerId};
use crate::outcome::{Refusal, Settled};
use crate::state::orders::{Order, Standing, lane_of};
use crate::types::{LedgerTime, Reason, ReservationId};

/// Why an order is parked that was claimed [`limits::EPOCH_MAX`] times.
const NO_EPOCH_LEFT: &str = "claimed so often that no epoch is left";

impl Deciding<'_> {
    pub(in super::super) fn claim_orders(
        &mut self,
        worker: &WorkerId,
        class: WorkClass,
        max: u32,
        lease_ms: u64,
        attempt_ms: u64,
    ) -> Settled {
        let mut claimed = Vec::new();
        let mut bytes = 0;
        if class == WorkClass::Money {
            self.take_back_late(attempt_ms);
        }
        while claimed.len() < max as usize
            && bytes < limits::CLAIMED_BYTES_MAX
            && self.spent.claimed < limits::CLAIMED_PER_ENTRY_MAX
            && let Some((at, lane)) = self.next_ready(class, attempt_ms)
        {
            self.spent.claimed += 1;
            if self.state.orders.get(at).epoch == limits::EPOCH_MAX {
                self.park(at, ParkReason::Worker(Reason::new(NO_EPOCH_LEFT).expect("a reason")));
                continue;
            }
            let given = self.give(at, lane, worker, lease_ms);
            bytes += size_of::<Claimed>() + given.payment.as_bytes().len() + given.contact.as_bytes().len();
            bytes += given.lines.len() * limits::SKU_BYTES_MAX + given.payments.len() * limits::PROVIDER_ID_BYTES_MAX;
            claimed.push(given);
        }
        Settled::Claimed(claimed)
    }

    /// Orders that were put aside for claims that needed more time stand where they stood before.
    fn take_back_late(&mut self, attempt_ms: u64) {
        while self.spent.taken_back < limits::LATE_PER_ENTRY_MAX
            && let Some(at) = self.first_late(attempt_ms)
        {
            self.spent.taken_back += 1;
            self.state.change_order(at, |order| order.standing = Standing::Ready);
        }
    }

    /// Of those put aside that a claim fits, the one with the earliest payment deadline: who has
    /// waited longest, where all have as long to pay. The latest deadline would be that of the
    /// newest order, and the oldest would never be served.
    fn first_late(&self, attempt_ms: u64) -> Option<u32> {
        // A deadline of now is due.
        let late = self.state.first_late(self.state.time.saturating_add(attempt_ms.max(1)))?;
        assert!(
            self.has_time(late, attempt_ms),
            "{:?} is late for an attempt to pay alone",
            self.state.orders.get(late)
        );
        Some(late)
    }

    /// Whose turn it is, and in which lane; what has too little time left is put aside on the way.
    fn next_ready(&mut self, class: WorkClass, attempt_ms: u64) -> Option<(u32, usize)> {
        let given = self.state.orders.given[class as usize - 1];
        let suspects_first = (given + 1).is_multiple_of(limits::SUSPECTS_EVERY);
        for suspect in [suspects_first, !suspects_first] {
            let lane = lane_of(class, suspect);
            while let Some(at) = self.state.first_ready(lane) {
                if self.has_time(at, attempt_ms) {
                    return Some((at, lane));
                }
                if self.spent.put_aside == limits::LATE_PER_ENTRY_MAX {
                    break;
                }
                self.spent.put_aside += 1;
                self.state.change_order(at, |order| order.standing = Standing::Late);
            }
        }
        let at = self.first_late(attempt_ms).filter(|_| class == WorkClass::Money)?;
        Some((at, lane_of(class, self.state.orders.get(at).suspect)))
    }

    /// Whether an attempt to pay fits before the payment deadline; other steps have all the time. What waits for the sweep is given to nobody.
    fn has_time(&self, at: u32, attempt_ms: u64) -> bool {
        let order = self.state.orders.get(at);
        let left = self.state.order_deadline(order).saturating_sub(self.state.time);
        !self.state.is_unswept(order) && (order.step() != Some(Step::Pay) || left >= attempt_ms)
    }

    fn give(&mut self, at: u32, lane: usize, worker: &WorkerId, lease_ms: u64) -> Claimed {
        let order = self.state.orders.get(at);
        let (product, step) = (order.product, order.step().expect("what is ready has a step"));
        self.state.serve(product, lane);
        self.state.orders.given[step.class() as usize - 1] += 1;
        let until = self.state.time.saturating_add(lease_ms);
        self.state.change_order(at, |order| {
            if order.phase() == Phase::Queued {
                order.phase = Some(Phase::Paying);
            }
            order.epoch = order.epoch.checked_add(1).expect("an order without an epoch left is parked");
            (order.standing, order.due, order.reported) = (Standing::Leased, until, 0);
            order.cold_mut().worker = Some(worker.clone());
        });
        let epoch = self.state.orders.get(at).epoch;
        self.tell(at, Told::Claimed { worker, epoch, step, until });
        self.as_claimed(self.state.orders.get(at), step, until)
    }

    fn as_claimed(&self, order: &Order, step: Step, until: u64) -> Claimed {
        let cold = order.cold();
        let amount = cold.amount.or_else(|| cold.payments.iter().find_map(|p| p.amount));
        Claimed {
            id: order.id(),
            epoch: order.epoch,
            lease_until: LedgerTime(until),
            step,
            phase: order.phase(),
            ending: order.ending,
            attempts: order.attempts,
            deadline: LedgerTime(self.state.order_deadline(order)),
            amount: amount.expect("an order has its amount, and a stray its payment's"),
            payment: cold.payment.clone(),
            contact: cold.contact.clone(),
            intent: cold.intent.clone(),
            generation: cold.generation,
            payments: cold.payments.clone(),
            lines: self.state.order_lines(order),
            linked: cold.linked,
        }
    }

    /// The order that a worker has leased at this epoch, or why it has not.
    pub(super) fn leased(&self, at: u32, epoch: u32) -> Result<(), Refusal> {
        let order = self.state.orders.get(at);
        if order.epoch != epoch {
            return Err(Refusal::StaleEpoch { present: order.epoch });
        }
        if order.standing != Standing::Leased {
            return Err(Refusal::LeaseEnded { phase: order.phase() });
        }
        Ok(())
    }

    pub(in super::super) fn heartbeat(&mut self, id: ReservationId, epoch: u32, lease_ms: u64) -> Verdict {
        let at = self.order(id)?;
        self.leased(at, epoch)?;
        let until = self.state.time.saturating_add(lease_ms);
        self.state.change_order(at, |order| order.due = until);
        self.order_brief(at, false)
    }

    /// A lease or delay is over.
    pub(in super::super) fn wake(&mut self, at: u32) {
        let order = self.state.orders.get(at);
        if order.standing == Standing::Delayed {
            self.state.change_order(at, |order| order.standing = Standing::Idle);
            return;
        }
        let (epoch, lost, cold) = (order.epoch, order.lost + 1, order.cold().clone());
        let worker = cold.worker.as_ref().expect("a leased order has its worker");
        self.tell(at, Told::LeaseLost { worker, epoch });
        if lost >= limits::LEASES_LOST_MAX {
            return self.park(at, ParkReason::LeasesLost);
        }
        self.state.change_order(at, |order| {
            order.attempts = order.attempts.saturating_add(1);
            (order.lost, order.standing) = (lost, Standing::Idle);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Entry, plain_line};
    use crate::ledger::Ledger;
    use crate::order::{Money, OrderDetails, Sealed};
    use crate::types::{OfferKey, Policy, Quantity, Reference, Sku, Slot, Units};

    /// 2^32 claims take too long: the record says that all but one have been.
    #[test]
    fn order_without_an_epoch_left_is_parked_and_not_claimed() {
        let sku = Sku::new("console").expect("a SKU");
        let id = ReservationId::from_parts(Slot::of(&sku), 0, 1);
        let (mut ledger, mut index) = (Ledger::new(1, 1, crate::IndexSeed(7)), 0);
        let mut apply = |ledger: &mut Ledger, stamp: u64, command: Command| {
            index += 1;
            let entry = Entry { stamp: LedgerTime(stamp), commands: vec![command] };
            ledger.apply(1, index, &entry).outcomes.remove(0)
        };
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        apply(&mut ledger, 1, Command::OwnSlots { generation: 1, ranges: all });
        apply(&mut ledger, 1, Command::CreateProduct { sku: sku.clone(), policy: Policy::default() });
        let (units, reference) = (Units::new(1).expect("one"), Reference::new("d").expect("a reference"));
        apply(&mut ledger, 1, Command::Receive { offer: OfferKey { sku: sku.clone(), sale: None }, units, reference });
        let details = OrderDetails {
            amount: Money::new(100, "EUR").expect("an amount"),
            pay_within_ms: 60_000,
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: false,
        };
        let line = plain_line(sku.clone(), Quantity::new(1).expect("one"));
        let reserve = Some((Default::default(), [line].into_iter().collect()));
        apply(&mut ledger, 1, Command::PlaceOrder { id, details: Box::new(details), reserve });
        let at = ledger.state.order_of(id).expect("placed");
        ledger.state.change_order(at, |order| order.epoch = limits::EPOCH_MAX - 1);
        let claim = || Command::ClaimOrders {
            slot: Slot::of(&sku),
            worker: WorkerId::new("w").expect("a name"),
            class: WorkClass::Money,
            max: 1,
            lease_ms: 100,
            attempt_ms: 0,
        };
        let claimed = |outcome| match outcome {
            crate::outcome::Outcome::Ok(Settled::Claimed(claimed)) => claimed.iter().map(|c| c.epoch).collect(),
            other => panic!("{other:?}"),
        };
        let last: Vec<u32> = claimed(apply(&mut ledger, 1, claim()));
        assert_eq!(last, [limits::EPOCH_MAX]);
        let none: Vec<u32> = claimed(apply(&mut ledger, 101, claim()));
        assert_eq!(none, [0; 0], "its lease has ended, and there is no epoch for another");
        let view = ledger.order(id).expect("known");
        assert_eq!(view.brief.phase, Phase::Parked);
        assert_eq!(view.parked, Some(ParkReason::Worker(Reason::new(NO_EPOCH_LEFT).expect("a reason"))));
        assert_eq!(ledger.audit().findings.len(), 0, "{:?}", ledger.audit().findings);
    }
}
