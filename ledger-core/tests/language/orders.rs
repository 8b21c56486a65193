//! Orders in script text: what claims, briefs, views and changes read as.
//!
//! **Owns** those forms. **Must never** leave out a field that a promise is about. **Read next**: `parse`.

use std::fmt::Write as _;

use ledger_core::ChangeKind;
use ledger_core::order::{Claimed, Ending, OrderBrief, OrderView, ParkReason, Payment, Phase, QueueStats};

use super::Names;
use super::print::instant;

/// A phase, as the contract names it.
pub(crate) fn phase(phase: Phase) -> String {
    format!("{phase:?}")
}

/// An order in brief.
pub(crate) fn brief(b: &OrderBrief) -> String {
    let ending =
        if b.phase == Phase::Done || b.phase == Phase::Parked { format!(" ({:?})", b.ending) } else { String::new() };
    let again = if b.replayed { " (again)" } else { "" };
    let deadline = if b.deadline.0 == 0 { "-".to_string() } else { instant(b.deadline) };
    format!("order {:?}{ending}, epoch {}, deadline {deadline}{again}", b.phase, b.epoch)
}

fn payments(all: &[Payment]) -> String {
    all.iter().fold(String::new(), |mut text, p| {
        let amount = p.amount.map_or("-".to_string(), |a| a.to_string());
        let _ = write!(text, ", {} {amount} {:?}", p.id, p.state);
        if let Some(refund) = &p.refund {
            let _ = write!(text, " by {refund}");
        }
        text
    })
}

/// What a claim gave: a line an order.
pub(crate) fn claimed(names: &Names, all: &[Claimed]) -> String {
    let mut text = format!("claimed {}", all.len());
    for c in all {
        let _ = write!(
            text,
            "\n    {} {:?} in {:?}, epoch {}, lease until {}, attempts {}, {}",
            names.name(c.id),
            c.step,
            c.phase,
            c.epoch,
            instant(c.lease_until),
            c.attempts,
            c.amount
        );
        let sealed = (c.payment.as_bytes().len(), c.contact.as_bytes().len());
        let _ = write!(text, ", sealed {}+{}", sealed.0, sealed.1);
        if let Some(intent) = &c.intent {
            let _ = write!(text, ", intent {intent} of generation {}", c.generation);
        }
        text += &payments(&c.payments);
        if c.ending != Ending::Open {
            let _ = write!(text, ", ended {:?}", c.ending);
        }
        for line in &c.lines {
            let _ = write!(text, ", {} {}", line.offer.sku, line.quantity.get());
        }
    }
    text
}

/// All that is known of an order.
pub(crate) fn view(names: &Names, v: &OrderView) -> String {
    let mut text = format!("{}: {}", names.name(v.id), brief(&v.brief));
    let _ = write!(text, ", next {}", v.step.map_or("-".to_string(), |s| format!("{s:?}")));
    if v.attempts > 0 {
        let _ = write!(text, ", attempts {}", v.attempts);
    }
    if let Some(t) = v.not_before {
        let _ = write!(text, ", not before {}", instant(t));
    }
    if let Some((worker, until)) = &v.lease {
        let _ = write!(text, ", with {worker} until {}", instant(*until));
    }
    if let Some(intent) = &v.intent {
        let _ = write!(text, ", intent {intent} of generation {}", v.generation);
    }
    if let Some(secret) = &v.secret {
        let _ = write!(text, ", secret {}", secret.as_str());
    }
    text += &payments(&v.payments);
    if let Some(linked) = v.linked {
        let _ = write!(text, ", linked {}", names.name(linked));
    }
    if let Some(why) = &v.parked {
        let _ = write!(text, ", parked: {}", parked(why));
    }
    if v.suspect {
        text += ", suspect";
    }
    text
}

fn parked(why: &ParkReason) -> String {
    match why {
        ParkReason::Worker(reason) => reason.to_string(),
        other => format!("{other:?}"),
    }
}

/// Depth and age of the queues.
pub(crate) fn stats(s: &QueueStats) -> String {
    let since = |t: Option<_>| t.map_or("-".to_string(), instant);
    format!(
        "money {} since {}, mail {} since {}, suspects {}, delayed {}, leased {}, awaiting {}, parked {}, open {}",
        s.ready[0],
        since(s.oldest_ready[0]),
        s.ready[1],
        since(s.oldest_ready[1]),
        s.suspects,
        s.delayed,
        s.leased,
        s.awaiting,
        s.parked,
        s.open
    )
}

/// What follows the name of an order's change.
pub(crate) fn kind(names: &Names, kind: &ChangeKind) -> String {
    let id = kind.order().map_or(String::new(), |id| format!(" {}", names.name(id)));
    let rest = match kind {
        ChangeKind::PurchaseAttempted { reason, .. } | ChangeKind::PaymentFailed { reason, .. } => {
            format!(": {reason}")
        }
        ChangeKind::OrderPlaced { deadline, amount, suspect, .. } => {
            format!(" {amount} until {}{}", instant(*deadline), if *suspect { ", suspect" } else { "" })
        }
        ChangeKind::OrderClaimed { worker, epoch, step, until, .. } => {
            format!(" by {worker} to {step:?}, epoch {epoch} until {}", instant(*until))
        }
        ChangeKind::LeaseLost { worker, epoch, .. } => format!(" by {worker}, epoch {epoch}"),
        ChangeKind::IntentCreated { intent, generation, .. } => format!(" {intent} of generation {generation}"),
        ChangeKind::OrderRetried { reason, until, attempts, .. } => {
            format!(" not before {}, attempts {attempts}: {reason}", instant(*until))
        }
        ChangeKind::OrderGivenBack { until, .. } => format!(" not before {}", instant(*until)),
        ChangeKind::PaymentProcessed { payment, amount, kept, .. } => {
            format!(" {payment} {amount}{}", if *kept { ", kept" } else { "" })
        }
        ChangeKind::OrderSettling { why, .. } => format!(": {why:?}"),
        ChangeKind::OrderConfirmed { linked: Some(linked), .. } => format!(" as {}", names.name(*linked)),
        ChangeKind::RefundRequested { payment, reason, .. } => format!(" of {payment}: {reason:?}"),
        ChangeKind::OrderRefunded { payment, refund, .. } => format!(" {payment} by {refund}"),
        ChangeKind::OrderParked { reason, .. } => format!(": {}", parked(reason)),
        ChangeKind::OrderByHandDone { what, reason, .. } => format!(" {what:?}: {reason}"),
        _ => String::new(),
    };
    format!("{id}{rest}")
}
