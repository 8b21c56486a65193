//! Reports: what a worker says about the order it has leased.
//!
//! **Owns** that a report needs the present epoch and a lease, ends the lease (but for an intent), and is replayed when it comes again. **Must never** say
//! that something was paid: that is a fact. **Read next**: `facts`.

use super::super::{Deciding, Verdict};
use super::end_order;
use crate::codec::orders::Told;
use crate::order::{Ending, ParkReason, Phase, ProviderId, Report, Step};
use crate::outcome::Refusal;
use crate::state::orders::Standing;
use crate::types::{Reason, ReservationId};

impl Deciding<'_> {
    pub(in super::super) fn report_order(&mut self, id: ReservationId, epoch: u32, report: &Report) -> Verdict {
        let at = self.order(id)?;
        let fingerprint = self.scratch.fingerprints.report(report);
        let order = self.state.orders.get(at);
        if order.epoch == epoch && order.reported == fingerprint {
            return self.order_brief(at, true);
        }
        self.leased(at, epoch)?;
        if let Report::Intent { intent, generation } = report {
            return self.intent(at, intent, *generation);
        }
        self.must_fit_step(at, report)?;
        self.state.change_order(at, |order| order.reported = fingerprint);
        match report {
            Report::Intent { .. } => unreachable!("told above"),
            Report::AwaitBuyer { secret } => {
                self.tell(at, Told::BuyerAwaited);
                self.state.change_order(at, |order| {
                    order.phase = Some(Phase::AwaitingBuyer);
                    order.cold_mut().secret = Some(secret.clone());
                });
            }
            Report::Unpaid { reason } => self.unpaid(at, reason),
            Report::Notified => {
                self.tell(at, Told::Notified);
                self.state.change_order(at, |order| order.phase = Some(Phase::Done));
            }
            Report::Retry { after_ms, reason } => {
                let until = self.state.time.saturating_add(*after_ms);
                self.delay(at, until, 1);
                let attempts = self.state.orders.get(at).attempts;
                self.tell(at, Told::Retried { reason, until, attempts });
            }
            Report::GiveBack { after_ms } => {
                let until = self.state.time.saturating_add(*after_ms);
                self.delay(at, until, 0);
                self.tell(at, Told::GivenBack { until });
            }
            Report::Park { reason } => self.park(at, ParkReason::Worker(reason.clone())),
        }
        self.order_brief(at, false)
    }

    /// Which step a report may be of.
    fn must_fit_step(&self, at: u32, report: &Report) -> Result<(), Refusal> {
        let order = self.state.orders.get(at);
        let step = order.step().expect("a leased order has a step");
        let fits = match report {
            Report::AwaitBuyer { .. } => step == Step::Pay,
            Report::Unpaid { .. } | Report::Intent { .. } => matches!(step, Step::Pay | Step::Settle),
            Report::Notified => step == Step::Notify,
            Report::Retry { .. } | Report::GiveBack { .. } | Report::Park { .. } => true,
        };
        if fits { Ok(()) } else { Err(Refusal::WrongPhase { phase: order.phase() }) }
    }

    fn intent(&mut self, at: u32, intent: &ProviderId, generation: u32) -> Verdict {
        let report = Report::Intent { intent: intent.clone(), generation };
        self.must_fit_step(at, &report)?;
        let cold = self.state.orders.get(at).cold();
        let present = cold.generation;
        if generation == present && cold.intent.as_ref() == Some(intent) {
            return self.order_brief(at, true);
        }
        if present.checked_add(1) != Some(generation) {
            return Err(Refusal::WrongGeneration { present }.into());
        }
        self.state.change_order(at, |order| {
            let cold = order.cold_mut();
            (cold.intent, cold.generation) = (Some(intent.clone()), generation);
        });
        self.tell(at, Told::Intent { intent, generation });
        self.order_brief(at, false)
    }

    /// Nothing was paid, for certain: units that are still held are given back.
    fn unpaid(&mut self, at: u32, reason: &Reason) {
        self.tell(at, Told::Unpaid { reason });
        let order = self.state.orders.get(at);
        let (held, reservation) = (order.phase().holds(), order.reservation);
        if held {
            self.give_up(reservation);
        }
        end_order(self.state, at, Phase::Released, Ending::Released);
    }

    fn delay(&mut self, at: u32, until: u64, attempts: u32) {
        let now = self.state.time;
        self.state.change_order(at, |order| {
            order.attempts = order.attempts.saturating_add(attempts);
            order.standing = if until > now { Standing::Delayed } else { Standing::Idle };
            order.due = until;
        });
    }

    /// A dead letter: it holds no unsold stock.
    pub(super) fn park(&mut self, at: u32, reason: ParkReason) {
        let order = self.state.orders.get(at);
        let (held, phase, reservation) = (order.phase().holds(), order.phase(), order.reservation);
        self.tell(at, Told::Parked { reason: &reason });
        if held {
            self.give_up(reservation);
        }
        self.state.change_order(at, |order| {
            order.parked_from = Some(if held { Phase::Settling } else { phase });
            order.phase = Some(Phase::Parked);
            let cold = order.cold_mut();
            (cold.parked, cold.secret) = (Some(reason), None);
        });
    }
}
