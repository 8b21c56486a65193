//! What must hold of each order: its reservations, where it stands, and its money.
//!
//! **Owns** the checks that both audits make of an order. **Must never** look at an index or a queue. **Read next**: [`super`].

use super::findings::{Findings, id_text};
use crate::order::{Ending, Payment, PaymentState, Phase, Step};
use crate::outcome::Status;
use crate::state::orders::{Order, Standing};
use crate::state::records::Reservation;

/// Checks an order at its place, with the reservation it is and the one that a late payment was given.
pub(super) fn check(
    findings: &mut Findings,
    at: u32,
    order: &Order,
    own: Option<&Reservation>,
    linked: Option<&Reservation>,
) {
    let cold = order.cold();
    let name = || id_text(&order.id);
    findings.expect("orders", || format!("{} is a stray", name()), own.is_none(), order.is_stray());
    let of_linked = linked.zip(cold.linked).map(|(r, id)| (r, *id.as_bytes()));
    for (r, id) in own.map(|r| (r, order.id)).into_iter().chain(of_linked) {
        findings.expect("orders", || format!("reservation of {}", id_text(&id)), (r.id, r.order), (id, at));
    }
    let (phase, step) = (order.phase(), order.step());
    let held = own.is_some_and(|r| r.is_held());
    findings.expect("orders", || format!("{} is {phase:?} and holds", name()), held, phase.holds());
    let works = order.standing != Standing::Idle;
    let to_do = || format!("{} is {phase:?} with {step:?} to do, in a queue", name());
    findings.expect("orders", to_do, works, step.is_some());
    let late = order.standing == Standing::Late && !held;
    findings.expect("orders", || format!("{} is late and holds nothing", name()), late, false);
    let leased = order.standing == Standing::Leased;
    findings.expect("orders", || format!("{} has a worker", name()), cold.worker.is_some(), leased);
    findings.expect("orders", || format!("{} has a reason", name()), cold.parked.is_some(), phase == Phase::Parked);
    let sealed = !cold.payment.as_bytes().is_empty() || !cold.contact.as_bytes().is_empty();
    findings.expect("orders", || format!("{} is done and sealed", name()), order.is_finished() && sealed, false);
    money(findings, order, own, linked);
}

/// Money kept is money for which something was sold, and what is owed is work.
fn money(findings: &mut Findings, order: &Order, own: Option<&Reservation>, linked: Option<&Reservation>) {
    let (phase, cold) = (order.phase(), order.cold());
    let name = || id_text(&order.id);
    let of = |state: PaymentState| cold.payments.iter().filter(|p| p.state == state).count();
    let kept = of(PaymentState::Kept);
    findings.expect("money", || format!("{} keeps one payment at most", name()), kept > 1, false);
    let sold = [own, linked].into_iter().flatten().filter(|r| r.status == Some(Status::Confirmed)).count();
    findings.expect("money", || format!("{} is sold twice", name()), sold > 1, false);
    let gone = cold.linked.is_some() && linked.is_none();
    let for_nothing = kept > 0 && sold == 0 && !gone;
    findings.expect("money", || format!("{} keeps money and sold nothing", name()), for_nothing, false);
    let phase_then = if phase == Phase::Parked { order.parked_from } else { Some(phase) };
    let pays = match phase_then {
        Some(Phase::Sold) => true,
        Some(Phase::Done) => order.ending == Ending::Sold,
        _ => false,
    };
    findings.expect("money", || format!("{} is {phase:?} ({:?}) and paid for", name(), order.ending), kept > 0, pays);
    // Whatever was sold was paid for, or its money goes or went back, or an operator closed it.
    let returned = of(PaymentState::RefundDue) + of(PaymentState::Refunded) + of(PaymentState::Closed);
    let given_away = sold > 0 && kept + returned == 0;
    findings.expect("money", || format!("{} is sold for nothing", name()), given_away, false);
    let owed = of(PaymentState::RefundDue) > 0;
    let to_do = matches!(order.step(), Some(Step::Refund | Step::Pay)) || phase == Phase::Parked;
    findings.expect("money", || format!("{} owes and nobody is to give it back", name()), owed && !to_do, false);
    let owes_nothing = phase == Phase::RefundDue && !owed;
    findings.expect("money", || format!("{} is RefundDue and owes", name()), owes_nothing, false);
    if cold.payments.len() > 1 {
        let mut ids: Vec<_> = cold.payments.iter().map(|p| p.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        findings.expect("money", || format!("payments of {}, each once", name()), ids.len(), cold.payments.len());
    }
    if let Some(amount) = cold.amount {
        let right = |p: &Payment| p.state != PaymentState::Kept || p.amount == Some(amount);
        findings.expect("money", || format!("{} keeps its amount", name()), cold.payments.iter().all(right), true);
    }
}
