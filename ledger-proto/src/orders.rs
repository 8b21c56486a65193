//! Orders: commands, claims, views and changes ↔ wire.
//!
//! **Owns** which field carries what of an order, and what a valid call about one is. **Must never** look into what is sealed.
//! **Read next**: `proto/holdfast/v1/ledger.proto`, `proto/holdfast/v1/orders.proto`.

use ledger_core::change::ChangeKind;
use ledger_core::order::{
    ByHand, Claimed, ClientSecret, Ending, Fact, Money, OrderBrief, OrderDetails, OrderView, ParkReason, Payment,
    PaymentState, Phase, ProviderId, QueueStats, RefundWhy, Report, Sealed, SettlingWhy, Step, WorkClass, WorkerId,
};
use ledger_core::{Command, LedgerTime, Line, Reason, ReservationId, Slot, limits};

use crate::names;
use crate::reply::Invalid;
use crate::v1::{self, call::Verb};

/// A number of a closed set, by the number that core and wire share.
trait Numbered: Copy + 'static {
    const ALL: &'static [Self];
    fn number(self) -> i32;
    /// The one with this number; none when it is unspecified, or newer than this build.
    fn of(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.number() == number)
    }
}

macro_rules! numbered {
    ($($of:ident: $($one:ident)+;)+) => {$(
        impl Numbered for $of {
            const ALL: &'static [Self] = &[$(Self::$one),+];
            fn number(self) -> i32 {
                self as i32
            }
        }
    )+};
}

numbered! {
    Phase: Queued Paying AwaitingBuyer Settling Sold Released Expired RefundDue Refunded Done Parked;
    Ending: Open Sold Released Expired Refunded Closed;
    Step: Pay Settle Refund Notify;
    WorkClass: Money Mail;
    ByHand: Redrive Close Refund Resume;
    PaymentState: Kept RefundDue Refunded Closed;
    SettlingWhy: Deadline Released Redriven;
    RefundWhy: WrongAmount SecondPayment SoldOut LimitReached NotForSale ByHand UnknownOrder;
}

fn one_of<T: Numbered>(field: &'static str, number: i32) -> Result<T, Invalid> {
    T::of(number).ok_or_else(|| Invalid::new(field, "is unspecified, or not known to this build"))
}

/// A phase; none when it is unspecified or not known to this build.
pub fn phase(number: i32) -> Option<Phase> {
    Phase::of(number)
}

/// A phase's number on the wire.
pub fn phase_to_wire(phase: Phase) -> i32 {
    phase.number()
}

/// An amount.
///
/// # Errors
/// [`Invalid`] naming `field`, also when it is missing.
pub fn money(field: &'static str, wire: Option<v1::Money>) -> Result<Money, Invalid> {
    let v1::Money { minor, currency } = wire.ok_or_else(|| Invalid::new(field, "missing"))?;
    Money::new(minor, &currency).map_err(Invalid::of(field))
}

/// An amount for the wire.
pub fn money_to_wire(money: Money) -> v1::Money {
    v1::Money { minor: money.minor(), currency: money.currency().to_owned() }
}

fn provider(field: &'static str, text: &str) -> Result<ProviderId, Invalid> {
    ProviderId::new(text).map_err(Invalid::of(field))
}
fn provider_or_none(field: &'static str, text: &str) -> Result<Option<ProviderId>, Invalid> {
    if text.is_empty() { Ok(None) } else { provider(field, text).map(Some) }
}
fn text_of(id: Option<&ProviderId>) -> String {
    id.map(|id| id.as_str().to_owned()).unwrap_or_default()
}
fn worker(text: &str) -> Result<WorkerId, Invalid> {
    WorkerId::new(text).map_err(Invalid::of("worker"))
}
fn reason(text: &str) -> Result<Reason, Invalid> {
    Reason::new(text).map_err(Invalid::of("reason"))
}
fn sealed(field: &'static str, bytes: bytes::Bytes) -> Result<Sealed, Invalid> {
    // A copy of its own: a part of a large frame would keep all of it alive in the ledger's memory.
    Sealed::new(&bytes).map_err(Invalid::of(field))
}
fn slot(number: u32) -> Result<Slot, Invalid> {
    Slot::new(u16::try_from(number).unwrap_or(u16::MAX)).map_err(Invalid::of("slot"))
}
fn within(field: &'static str, n: u64, min: u64, max: u64) -> Result<u64, Invalid> {
    if (min..=max).contains(&n) {
        Ok(n)
    } else {
        Err(Invalid::new(field, format!("is {n}, allowed is {min} to {max}")))
    }
}
fn lease_ms(n: u64) -> Result<u64, Invalid> {
    within("lease_ms", n, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX)
}
fn linked(bytes: &[u8]) -> Result<Option<ReservationId>, Invalid> {
    if bytes.is_empty() { Ok(None) } else { names::id("linked", bytes).map(Some) }
}
fn linked_to_wire(id: Option<ReservationId>) -> bytes::Bytes {
    id.map(names::id_to_wire).unwrap_or_default()
}

/// Checks a verb of orders; none when it is not one.
pub(crate) fn command(verb: Verb) -> Option<Result<Command, Invalid>> {
    Some(match verb {
        Verb::PlaceOrder(wire) => place(wire),
        Verb::ClaimOrders(wire) => claim(wire),
        Verb::Heartbeat(v1::Heartbeat { id, epoch, lease_ms: lease }) => {
            names::id("id", &id).and_then(|id| Ok(Command::Heartbeat { id, epoch, lease_ms: lease_ms(lease)? }))
        }
        Verb::ReportOrder(v1::ReportOrder { id, epoch, report }) => {
            names::id("id", &id).and_then(|id| Ok(Command::ReportOrder { id, epoch, report: self::report(report)? }))
        }
        Verb::RecordFact(v1::RecordFact { id, fact }) => {
            names::id("id", &id).and_then(|id| Ok(Command::RecordFact { id, fact: self::fact(fact)? }))
        }
        Verb::OrderByHand(v1::OrderByHand { id, what, reason: text }) => names::id("id", &id)
            .and_then(|id| Ok(Command::OrderByHand { id, what: one_of("what", what)?, reason: reason(&text)? })),
        _ => return None,
    })
}

fn place(wire: v1::PlaceOrder) -> Result<Command, Invalid> {
    let v1::PlaceOrder { id, amount, pay_within_ms, payment, contact, suspect, keys, lines } = wire;
    let id = names::id("id", &id)?;
    let details = OrderDetails {
        amount: money("amount", amount)?,
        pay_within_ms: within("pay_within_ms", pay_within_ms, limits::HOLD_MS_MIN, limits::HOLD_MS_MAX)?,
        payment: sealed("payment", payment)?,
        contact: sealed("contact", contact)?,
        suspect,
    };
    let keys = names::keys(keys.iter().map(String::as_str))?;
    let reserve = match (lines.is_empty(), keys.is_empty()) {
        (false, _) => Some((keys, names::lines_of(&lines)?)),
        (true, true) => None,
        (true, false) => return Err(Invalid::new("keys", "are those of a reservation; name its lines too")),
    };
    Ok(Command::PlaceOrder { id, details: Box::new(details), reserve })
}

fn claim(wire: v1::ClaimOrders) -> Result<Command, Invalid> {
    let v1::ClaimOrders { slot: number, worker: name, class, max, lease_ms: lease, attempt_ms } = wire;
    Ok(Command::ClaimOrders {
        slot: slot(number)?,
        worker: worker(&name)?,
        class: one_of("class", class)?,
        max: within("max", max.into(), 1, limits::CLAIM_MAX.into())? as u32,
        lease_ms: lease_ms(lease)?,
        attempt_ms: within("attempt_ms", attempt_ms, 0, limits::LEASE_MS_MAX)?,
    })
}

fn report(wire: Option<v1::report_order::Report>) -> Result<Report, Invalid> {
    use v1::report_order::{self as wires, Report as Wire};
    let delay = |n| within("after_ms", n, 0, limits::DELAY_MS_MAX);
    Ok(match wire.ok_or_else(|| Invalid::new("report", "missing, or newer than this node"))? {
        Wire::Intent(wires::Intent { intent, generation }) => {
            let generation = within("generation", generation.into(), 1, u32::MAX.into())? as u32;
            Report::Intent { intent: provider("intent", &intent)?, generation }
        }
        Wire::AwaitBuyer(wires::AwaitBuyer { secret }) => {
            let (got, max) = (secret.len(), limits::SECRET_BYTES_MAX);
            if got > max {
                return Err(Invalid::new("secret", format!("has {got} bytes, at most {max} are allowed")));
            }
            Report::AwaitBuyer { secret: ClientSecret::from(secret).if_sealed().unwrap_or_default() }
        }
        Wire::Unpaid(wires::Unpaid { reason: text }) => Report::Unpaid { reason: reason(&text)? },
        Wire::Notified(v1::Done {}) => Report::Notified,
        Wire::Retry(wires::Retry { after_ms, reason: text }) => {
            Report::Retry { after_ms: delay(after_ms)?, reason: reason(&text)? }
        }
        Wire::GiveBack(wires::GiveBack { after_ms }) => Report::GiveBack { after_ms: delay(after_ms)? },
        Wire::Park(wires::Park { reason: text }) => Report::Park { reason: reason(&text)? },
    })
}

fn fact(wire: Option<v1::record_fact::Fact>) -> Result<Fact, Invalid> {
    use v1::record_fact::{self as wires, Fact as Wire};
    Ok(match wire.ok_or_else(|| Invalid::new("fact", "missing, or newer than this node"))? {
        Wire::Paid(wires::Paid { payment, amount }) => {
            Fact::Paid { payment: provider("payment", &payment)?, amount: money("amount", amount)? }
        }
        Wire::Refunded(wires::Refunded { payment, refund }) => {
            Fact::Refunded { payment: provider("payment", &payment)?, refund: provider("refund", &refund)? }
        }
    })
}

/// A command of orders for the wire; none of any other.
pub(crate) fn verb(command: &Command) -> Option<Verb> {
    Some(match command {
        Command::PlaceOrder { id, details, reserve } => {
            let (keys, lines) =
                reserve.as_ref().map(|(keys, lines)| (keys.as_slice(), lines.as_slice())).unwrap_or_default();
            Verb::PlaceOrder(v1::PlaceOrder {
                id: names::id_to_wire(*id),
                amount: Some(money_to_wire(details.amount)),
                pay_within_ms: details.pay_within_ms,
                payment: bytes::Bytes::copy_from_slice(details.payment.as_bytes()),
                contact: bytes::Bytes::copy_from_slice(details.contact.as_bytes()),
                suspect: details.suspect,
                keys: keys.iter().map(|key| key.as_str().to_owned()).collect(),
                lines: lines.iter().map(names::line_to_wire).collect(),
            })
        }
        Command::ClaimOrders { slot, worker, class, max, lease_ms, attempt_ms } => Verb::ClaimOrders(v1::ClaimOrders {
            slot: slot.get().into(),
            worker: worker.as_str().to_owned(),
            class: class.number(),
            max: *max,
            lease_ms: *lease_ms,
            attempt_ms: *attempt_ms,
        }),
        Command::Heartbeat { id, epoch, lease_ms } => {
            Verb::Heartbeat(v1::Heartbeat { id: names::id_to_wire(*id), epoch: *epoch, lease_ms: *lease_ms })
        }
        Command::ReportOrder { id, epoch, report } => Verb::ReportOrder(v1::ReportOrder {
            id: names::id_to_wire(*id),
            epoch: *epoch,
            report: Some(report_to_wire(report)),
        }),
        Command::RecordFact { id, fact } => {
            Verb::RecordFact(v1::RecordFact { id: names::id_to_wire(*id), fact: Some(fact_to_wire(fact)) })
        }
        Command::OrderByHand { id, what, reason } => Verb::OrderByHand(v1::OrderByHand {
            id: names::id_to_wire(*id),
            what: what.number(),
            reason: reason.as_str().to_owned(),
        }),
        _ => return None,
    })
}

fn report_to_wire(report: &Report) -> v1::report_order::Report {
    use v1::report_order::{self as wires, Report as Wire};
    let text = |reason: &Reason| reason.as_str().to_owned();
    match report {
        Report::Intent { intent, generation } => {
            Wire::Intent(wires::Intent { intent: intent.as_str().to_owned(), generation: *generation })
        }
        Report::AwaitBuyer { secret } => Wire::AwaitBuyer(wires::AwaitBuyer { secret: secret.as_str().to_owned() }),
        Report::Unpaid { reason } => Wire::Unpaid(wires::Unpaid { reason: text(reason) }),
        Report::Notified => Wire::Notified(v1::Done {}),
        Report::Retry { after_ms, reason } => Wire::Retry(wires::Retry { after_ms: *after_ms, reason: text(reason) }),
        Report::GiveBack { after_ms } => Wire::GiveBack(wires::GiveBack { after_ms: *after_ms }),
        Report::Park { reason } => Wire::Park(wires::Park { reason: text(reason) }),
    }
}

fn fact_to_wire(fact: &Fact) -> v1::record_fact::Fact {
    use v1::record_fact::{self as wires, Fact as Wire};
    match fact {
        Fact::Paid { payment, amount } => {
            Wire::Paid(wires::Paid { payment: payment.as_str().to_owned(), amount: Some(money_to_wire(*amount)) })
        }
        Fact::Refunded { payment, refund } => {
            Wire::Refunded(wires::Refunded { payment: payment.as_str().to_owned(), refund: refund.as_str().to_owned() })
        }
    }
}

/// An order in brief, for the wire.
pub fn brief_to_wire(brief: OrderBrief) -> v1::OrderBrief {
    v1::OrderBrief {
        phase: brief.phase.number(),
        ending: brief.ending.number(),
        epoch: brief.epoch,
        deadline_ms: brief.deadline.0,
        replayed: brief.replayed,
    }
}

/// An order in brief.
///
/// # Errors
/// [`Invalid`] when a number is not known to this build.
pub fn brief_from_wire(wire: v1::OrderBrief) -> Result<OrderBrief, Invalid> {
    let v1::OrderBrief { phase, ending, epoch, deadline_ms, replayed } = wire;
    let (phase, ending) = (one_of("phase", phase)?, one_of("ending", ending)?);
    Ok(OrderBrief { phase, ending, epoch, deadline: LedgerTime(deadline_ms), replayed })
}

fn payment_to_wire(payment: &Payment) -> v1::Payment {
    v1::Payment {
        id: payment.id.as_str().to_owned(),
        amount: payment.amount.map(money_to_wire),
        state: payment.state.number(),
        refund: text_of(payment.refund.as_ref()),
    }
}

fn payment_from_wire(wire: v1::Payment) -> Result<Payment, Invalid> {
    let v1::Payment { id, amount, state, refund } = wire;
    Ok(Payment {
        id: provider("payments.id", &id)?,
        amount: amount.map(|amount| money("payments.amount", Some(amount))).transpose()?,
        state: one_of("payments.state", state)?,
        refund: provider_or_none("payments.refund", &refund)?,
    })
}

fn payments_from_wire(wire: Vec<v1::Payment>) -> Result<Vec<Payment>, Invalid> {
    wire.into_iter().map(payment_from_wire).collect()
}

/// Lines of an order; none of one that is known by a stray payment alone.
fn lines(wire: &[v1::Line]) -> Result<Vec<Line>, Invalid> {
    if wire.is_empty() { Ok(Vec::new()) } else { Ok(names::lines_of(wire)?.into_vec()) }
}

/// What a claim gave, for the wire.
pub fn claimed_to_wire(claimed: &[Claimed]) -> v1::ClaimedOrders {
    let one = |order: &Claimed| v1::ClaimedOrder {
        id: names::id_to_wire(order.id),
        epoch: order.epoch,
        lease_until_ms: order.lease_until.0,
        step: order.step.number(),
        phase: order.phase.number(),
        ending: order.ending.number(),
        attempts: order.attempts,
        deadline_ms: order.deadline.0,
        amount: Some(money_to_wire(order.amount)),
        payment: bytes::Bytes::copy_from_slice(order.payment.as_bytes()),
        contact: bytes::Bytes::copy_from_slice(order.contact.as_bytes()),
        intent: text_of(order.intent.as_ref()),
        generation: order.generation,
        payments: order.payments.iter().map(payment_to_wire).collect(),
        lines: order.lines.iter().map(names::line_to_wire).collect(),
        linked: linked_to_wire(order.linked),
    };
    v1::ClaimedOrders { orders: claimed.iter().map(one).collect() }
}

/// What a claim gave.
///
/// # Errors
/// [`Invalid`] when a field is broken, or newer than this build.
pub fn claimed_from_wire(wire: v1::ClaimedOrders) -> Result<Vec<Claimed>, Invalid> {
    let one = |order: v1::ClaimedOrder| {
        Ok(Claimed {
            id: names::id("id", &order.id)?,
            epoch: order.epoch,
            lease_until: LedgerTime(order.lease_until_ms),
            step: one_of("step", order.step)?,
            phase: one_of("phase", order.phase)?,
            ending: one_of("ending", order.ending)?,
            attempts: order.attempts,
            deadline: LedgerTime(order.deadline_ms),
            amount: money("amount", order.amount)?,
            payment: sealed("payment", order.payment)?,
            contact: sealed("contact", order.contact)?,
            intent: provider_or_none("intent", &order.intent)?,
            generation: order.generation,
            payments: payments_from_wire(order.payments)?,
            lines: lines(&order.lines)?,
            linked: linked(&order.linked)?,
        })
    };
    wire.orders.into_iter().map(one).collect()
}

fn parked_to_wire(reason: &ParkReason) -> v1::ParkReason {
    use v1::park_reason::Why;
    let why = match reason {
        ParkReason::Worker(reason) => Why::Worker(reason.as_str().to_owned()),
        ParkReason::LeasesLost => Why::LeasesLost(v1::Done {}),
        ParkReason::UnknownOrder => Why::UnknownOrder(v1::Done {}),
    };
    v1::ParkReason { why: Some(why) }
}

fn parked_from_wire(wire: v1::ParkReason) -> Result<ParkReason, Invalid> {
    use v1::park_reason::Why;
    Ok(match wire.why.ok_or_else(|| Invalid::new("parked", "is not known to this build"))? {
        Why::Worker(text) => ParkReason::Worker(reason(&text)?),
        Why::LeasesLost(v1::Done {}) => ParkReason::LeasesLost,
        Why::UnknownOrder(v1::Done {}) => ParkReason::UnknownOrder,
    })
}

/// A sealed one only. One in clear, of a worker of an earlier build, stays where it is: everybody who may read orders would read it.
fn secret_to_wire(secret: Option<&ClientSecret>) -> String {
    secret.filter(|secret| secret.is_sealed()).map(|secret| secret.as_str().to_owned()).unwrap_or_default()
}

/// An order, for the wire.
pub fn view_to_wire(view: &OrderView) -> v1::OrderView {
    v1::OrderView {
        id: names::id_to_wire(view.id),
        brief: Some(brief_to_wire(view.brief)),
        step: view.step.map_or(0, Step::number),
        attempts: view.attempts,
        not_before_ms: view.not_before.map(|at| at.0),
        worker: view.lease.as_ref().map(|(worker, _)| worker.as_str().to_owned()).unwrap_or_default(),
        lease_until_ms: view.lease.as_ref().map_or(0, |(_, until)| until.0),
        placed_at_ms: view.placed_at.0,
        amount: view.amount.map(money_to_wire),
        intent: text_of(view.intent.as_ref()),
        generation: view.generation,
        secret: secret_to_wire(view.secret.as_ref()),
        payments: view.payments.iter().map(payment_to_wire).collect(),
        lines: view.lines.iter().map(names::line_to_wire).collect(),
        linked: linked_to_wire(view.linked),
        parked: view.parked.as_ref().map(parked_to_wire),
        suspect: view.suspect,
    }
}

/// An order.
///
/// # Errors
/// [`Invalid`] when a field is missing, broken or newer than this build.
pub fn view_from_wire(wire: v1::OrderView) -> Result<OrderView, Invalid> {
    let lease = (!wire.worker.is_empty()).then(|| worker(&wire.worker)).transpose()?;
    Ok(OrderView {
        id: names::id("id", &wire.id)?,
        brief: brief_from_wire(wire.brief.ok_or_else(|| Invalid::new("brief", "missing"))?)?,
        step: (wire.step != 0).then(|| one_of("step", wire.step)).transpose()?,
        attempts: wire.attempts,
        not_before: wire.not_before_ms.map(LedgerTime),
        lease: lease.map(|worker| (worker, LedgerTime(wire.lease_until_ms))),
        placed_at: LedgerTime(wire.placed_at_ms),
        amount: wire.amount.map(|amount| money("amount", Some(amount))).transpose()?,
        intent: provider_or_none("intent", &wire.intent)?,
        generation: wire.generation,
        secret: ClientSecret::from(wire.secret).if_sealed(),
        payments: payments_from_wire(wire.payments)?,
        lines: lines(&wire.lines)?,
        linked: linked(&wire.linked)?,
        parked: wire.parked.map(parked_from_wire).transpose()?,
        suspect: wire.suspect,
    })
}

/// Depth and age of a shard's queues, for the wire.
pub fn queue_to_wire(stats: QueueStats) -> v1::QueueStats {
    let QueueStats { ready, suspects, delayed, leased, awaiting, parked, open, oldest_ready } = stats;
    v1::QueueStats {
        ready_money: ready[0],
        ready_mail: ready[1],
        suspects,
        delayed,
        leased,
        awaiting_buyer: awaiting,
        parked,
        open,
        oldest_money_ms: oldest_ready[0].map(|at| at.0),
        oldest_mail_ms: oldest_ready[1].map(|at| at.0),
    }
}

/// Depth and age of a shard's queues.
pub fn queue_from_wire(wire: v1::QueueStats) -> QueueStats {
    QueueStats {
        ready: [wire.ready_money, wire.ready_mail],
        suspects: wire.suspects,
        delayed: wire.delayed,
        leased: wire.leased,
        awaiting: wire.awaiting_buyer,
        parked: wire.parked,
        open: wire.open,
        oldest_ready: [wire.oldest_money_ms.map(LedgerTime), wire.oldest_mail_ms.map(LedgerTime)],
    }
}

/// Writes a change of an order; false when it is another.
pub(crate) fn change_to_wire(kind: &ChangeKind, wire: &mut v1::FeedChange) -> bool {
    let mut order = v1::OrderChange::default();
    let text = |id: &ProviderId| id.as_str().to_owned();
    let id = match kind {
        ChangeKind::PurchaseAttempted { id, reason } | ChangeKind::PaymentFailed { id, reason } => {
            wire.reason = reason.as_str().to_owned();
            id
        }
        ChangeKind::OrderPlaced { id, deadline, amount, suspect } => {
            wire.deadline_ms = Some(deadline.0);
            (order.amount, order.suspect) = (Some(money_to_wire(*amount)), *suspect);
            id
        }
        ChangeKind::OrderClaimed { id, worker, epoch, step, until } => {
            (order.worker, order.epoch) = (worker.as_str().to_owned(), *epoch);
            (order.step, order.until_ms) = (step.number(), until.0);
            id
        }
        ChangeKind::LeaseLost { id, worker, epoch } => {
            (order.worker, order.epoch) = (worker.as_str().to_owned(), *epoch);
            id
        }
        ChangeKind::IntentCreated { id, intent, generation } => {
            (order.intent, order.generation) = (text(intent), *generation);
            id
        }
        ChangeKind::BuyerAwaited { id } | ChangeKind::OrderNotified { id } => id,
        ChangeKind::OrderRetried { id, reason, until, attempts } => {
            wire.reason = reason.as_str().to_owned();
            (order.until_ms, order.attempts) = (until.0, *attempts);
            id
        }
        ChangeKind::OrderGivenBack { id, until } => {
            order.until_ms = until.0;
            id
        }
        ChangeKind::PaymentProcessed { id, payment, amount, kept } => {
            (order.payment, order.amount, order.kept) = (text(payment), Some(money_to_wire(*amount)), *kept);
            id
        }
        ChangeKind::OrderSettling { id, why } => {
            order.settling = why.number();
            id
        }
        ChangeKind::OrderConfirmed { id, linked } => {
            order.linked = linked_to_wire(*linked);
            id
        }
        ChangeKind::RefundRequested { id, payment, reason } => {
            (order.payment, order.refund_why) = (text(payment), reason.number());
            id
        }
        ChangeKind::OrderRefunded { id, payment, refund } => {
            (order.payment, order.refund) = (text(payment), text(refund));
            id
        }
        ChangeKind::OrderParked { id, reason } => {
            order.parked = Some(parked_to_wire(reason));
            id
        }
        ChangeKind::OrderByHandDone { id, what, reason } => {
            wire.reason = reason.as_str().to_owned();
            order.by_hand = what.number();
            id
        }
        _ => return false,
    };
    wire.reservation = names::id_to_wire(*id);
    wire.order = Some(order);
    true
}

/// A change of an order; none when it is another.
pub(crate) fn change_from_wire(wire: &v1::FeedChange) -> Option<Result<ChangeKind, Invalid>> {
    let order = wire.order.as_ref()?;
    let id = match names::id("reservation", &wire.reservation) {
        Ok(id) => id,
        Err(invalid) => return Some(Err(invalid)),
    };
    Some(order_change(wire, order, id))
}

fn order_change(wire: &v1::FeedChange, order: &v1::OrderChange, id: ReservationId) -> Result<ChangeKind, Invalid> {
    let why = || reason(&wire.reason);
    let until = LedgerTime(order.until_ms);
    let payment = || provider("order.payment", &order.payment);
    let amount = || money("order.amount", order.amount.clone());
    Ok(match wire.name.as_str() {
        "PurchaseAttempted" => ChangeKind::PurchaseAttempted { id, reason: why()? },
        "OrderPlaced" => {
            let deadline = wire.deadline_ms.map(LedgerTime).ok_or_else(|| Invalid::new("deadline_ms", "missing"))?;
            ChangeKind::OrderPlaced { id, deadline, amount: amount()?, suspect: order.suspect }
        }
        "OrderClaimed" => ChangeKind::OrderClaimed {
            id,
            worker: worker(&order.worker)?,
            epoch: order.epoch,
            step: one_of("order.step", order.step)?,
            until,
        },
        "LeaseLost" => ChangeKind::LeaseLost { id, worker: worker(&order.worker)?, epoch: order.epoch },
        "IntentCreated" => ChangeKind::IntentCreated {
            id,
            intent: provider("order.intent", &order.intent)?,
            generation: order.generation,
        },
        "BuyerAwaited" => ChangeKind::BuyerAwaited { id },
        "OrderRetried" => ChangeKind::OrderRetried { id, reason: why()?, until, attempts: order.attempts },
        "OrderGivenBack" => ChangeKind::OrderGivenBack { id, until },
        "PaymentProcessed" => {
            ChangeKind::PaymentProcessed { id, payment: payment()?, amount: amount()?, kept: order.kept }
        }
        "PaymentFailed" => ChangeKind::PaymentFailed { id, reason: why()? },
        "OrderSettling" => ChangeKind::OrderSettling { id, why: one_of("order.settling", order.settling)? },
        "OrderConfirmed" => ChangeKind::OrderConfirmed { id, linked: linked(&order.linked)? },
        "RefundRequested" => ChangeKind::RefundRequested {
            id,
            payment: payment()?,
            reason: one_of("order.refund_why", order.refund_why)?,
        },
        "OrderRefunded" => {
            ChangeKind::OrderRefunded { id, payment: payment()?, refund: provider("order.refund", &order.refund)? }
        }
        "OrderNotified" => ChangeKind::OrderNotified { id },
        "OrderParked" => {
            let reason = order.parked.clone().ok_or_else(|| Invalid::new("order.parked", "missing"))?;
            ChangeKind::OrderParked { id, reason: parked_from_wire(reason)? }
        }
        "OrderByHandDone" => {
            ChangeKind::OrderByHandDone { id, what: one_of("order.by_hand", order.by_hand)?, reason: why()? }
        }
        other => return Err(Invalid::new("name", format!("{other:?} is not known to this build"))),
    })
}
