//! Claim and heartbeat, and what becomes of leases and delays when their time comes.
//!
//! A claim takes turns: the product served longest ago gives its first order. The suspect lane is served when the normal one is empty, and every
//! [`limits::SUSPECTS_EVERY`]th time. Orders to be paid that have too little time left are put aside once; they are given to a claim that needs less, or end at
//! their deadline.
//! **Owns** epochs and leases. **Must never** give one order to two leases, or look at more than a bounded number. **Read next**: `report`.

use super::super::{Deciding, Verdict};
use crate::codec::orders::Told;
use crate::limits;
use crate::order::{Claimed, ParkReason, Phase, Step, WorkClass, WorkerId};
use crate::outcome::{Refusal, Settled};
use crate::state::orders::{Order, Standing, lane_of};
use crate::types::{LedgerTime, ReservationId};

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
        let (mut bytes, mut aside) = (0, 0);
        while claimed.len() < max as usize
            && bytes < limits::CLAIMED_BYTES_MAX
            && self.spent.claimed < limits::CLAIMED_PER_ENTRY_MAX
            && let Some((at, lane)) = self.next_ready(class, attempt_ms, &mut aside)
        {
            let given = self.give(at, lane, worker, lease_ms);
            bytes += size_of::<Claimed>() + given.payment.as_bytes().len() + given.contact.as_bytes().len();
            bytes += given.lines.len() * limits::SKU_BYTES_MAX + given.payments.len() * limits::PROVIDER_ID_BYTES_MAX;
            claimed.push(given);
            self.spent.claimed += 1;
        }
        Settled::Claimed(claimed)
    }

    /// Whose turn it is, and in which lane; what has too little time left is put aside on the way.
    fn next_ready(&mut self, class: WorkClass, attempt_ms: u64, aside: &mut usize) -> Option<(u32, usize)> {
        let given = self.state.orders.given[class as usize - 1];
        let suspects_first = (given + 1).is_multiple_of(limits::SUSPECTS_EVERY);
        for suspect in [suspects_first, !suspects_first] {
            let lane = lane_of(class, suspect);
            while let Some(at) = self.state.first_ready(lane) {
                if self.has_time(at, attempt_ms) {
                    return Some((at, lane));
                }
                if *aside == limits::LATE_PER_CLAIM_MAX {
                    return None;
                }
                *aside += 1;
                self.state.change_order(at, |order| order.standing = Standing::Late);
            }
        }
        let at = self.state.last_late().filter(|&at| class == WorkClass::Money && self.has_time(at, attempt_ms))?;
        Some((at, lane_of(class, self.state.orders.get(at).suspect)))
    }

    /// Whether an attempt to pay fits before the payment deadline; other steps have all the time.
    fn has_time(&self, at: u32, attempt_ms: u64) -> bool {
        let order = self.state.orders.get(at);
        let left = self.state.order_deadline(order).saturating_sub(self.state.time);
        order.step() != Some(Step::Pay) || (left > 0 && left >= attempt_ms)
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
            order.epoch = order.epoch.checked_add(1).expect("an order is claimed fewer than 2^32 times");
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
            order.attempts += 1;
            (order.lost, order.standing) = (lost, Standing::Idle);
        });
    }
}
