//! The commands and changes of orders as bytes: numbers from 64 on, by the rules of `commands` and `changes`.
//!
//! **Owns** their numbers and those of phases, steps, reports, facts and reasons (as [`crate::order`] freezes them). **Must never** let a value through
//! that its constructor or [`crate::limits`] would refuse. **Read next**: [`super::changes`].

use super::CodecError;
use super::bounds::{self, Checked};
use super::commands::{keys, lines};
use super::primitives::{In, Out};
use crate::change::ChangeKind;
use crate::command::Command;
use crate::limits;
use crate::order::{
    ByHand, ClientSecret, Ending, Fact, Money, OrderDetails, ParkReason, PaymentState, Phase, ProviderId, RefundWhy,
    Report, Sealed, SettlingWhy, Step, WorkClass, WorkerId,
};
use crate::types::{Reason, ReservationId};

type Read<T> = Result<T, CodecError>;

const PLACE: u8 = 64;
const CLAIM: u8 = 65;
const HEARTBEAT: u8 = 66;
const REPORT: u8 = 67;
const FACT: u8 = 68;
const BY_HAND: u8 = 69;

const REPORT_INTENT: u8 = 1;
const REPORT_AWAIT_BUYER: u8 = 2;
const REPORT_UNPAID: u8 = 3;
const REPORT_NOTIFIED: u8 = 4;
const REPORT_RETRY: u8 = 5;
const REPORT_GIVE_BACK: u8 = 6;
const REPORT_PARK: u8 = 7;

const FACT_PAID: u8 = 1;
const FACT_REFUNDED: u8 = 2;

const PARKED_BY_WORKER: u8 = 1;
const PARKED_LEASES_LOST: u8 = 2;
const PARKED_UNKNOWN_ORDER: u8 = 3;

/// Puts a command of orders. What the decoder would refuse is an error; part of it may be written then.
pub(super) fn put(out: &mut Out<'_>, command: &Command) -> Checked {
    match command {
        Command::PlaceOrder { id, details, reserve } => {
            bounds::pay_within_ms(details.pay_within_ms)?;
            bounds::reserve(reserve.as_ref())?;
            out.byte(PLACE);
            out.id(*id);
            put_details(out, details);
            out.opt(reserve.as_ref(), |out, (keys, lines)| {
                out.n(keys.len() as u64);
                keys.iter().for_each(|key| out.text(key.as_str()));
                out.lines(lines);
            });
        }
        Command::ClaimOrders { slot, worker, class, max, lease_ms, attempt_ms } => {
            bounds::claim((*max).into())?;
            bounds::lease_ms(*lease_ms)?;
            bounds::attempt_ms(*attempt_ms)?;
            out.byte(CLAIM);
            out.n(slot.get().into());
            out.text(worker.as_str());
            out.byte(*class as u8);
            out.n((*max).into());
            out.n(*lease_ms);
            out.n(*attempt_ms);
        }
        Command::Heartbeat { id, epoch, lease_ms } => {
            bounds::lease_ms(*lease_ms)?;
            out.byte(HEARTBEAT);
            out.id(*id);
            out.n((*epoch).into());
            out.n(*lease_ms);
        }
        Command::ReportOrder { id, epoch, report } => {
            check_report(report)?;
            out.byte(REPORT);
            out.id(*id);
            out.n((*epoch).into());
            put_report(out, report);
        }
        Command::RecordFact { id, fact } => {
            out.byte(FACT);
            out.id(*id);
            put_fact(out, fact);
        }
        Command::OrderByHand { id, what, reason } => {
            out.byte(BY_HAND);
            out.id(*id);
            out.byte(*what as u8);
            out.text(reason.as_str());
        }
        _ => unreachable!("only the commands of orders are put here"),
    }
    Ok(())
}

fn check_report(report: &Report) -> Checked {
    match report {
        Report::Intent { generation, .. } => bounds::generation((*generation).into()).map(drop),
        Report::AwaitBuyer { secret } => bounds::secret(secret.as_str()),
        Report::Retry { after_ms, .. } | Report::GiveBack { after_ms } => bounds::after_ms(*after_ms).map(drop),
        Report::Unpaid { .. } | Report::Notified | Report::Park { .. } => Ok(()),
    }
}

/// Gets a command of orders.
pub(super) fn get(from: &mut In<'_>, number: u8) -> Read<Command> {
    Ok(match number {
        PLACE => Command::PlaceOrder {
            id: from.id()?,
            details: Box::new(details(from)?),
            reserve: from.opt(|from| Ok((keys(from)?, lines(from)?)))?,
        },
        CLAIM => Command::ClaimOrders {
            slot: from.slot()?,
            worker: worker(from)?,
            class: class(from)?,
            max: from.n_checked(bounds::claim)?,
            lease_ms: from.n_checked(bounds::lease_ms)?,
            attempt_ms: from.n_checked(bounds::attempt_ms)?,
        },
        HEARTBEAT => {
            Command::Heartbeat { id: from.id()?, epoch: from.small()?, lease_ms: from.n_checked(bounds::lease_ms)? }
        }
        REPORT => Command::ReportOrder { id: from.id()?, epoch: from.small()?, report: report(from)? },
        FACT => Command::RecordFact { id: from.id()?, fact: fact(from)? },
        BY_HAND => Command::OrderByHand { id: from.id()?, what: by_hand(from)?, reason: from.reason()? },
        number => return Err(CodecError::UnknownCommand { number }),
    })
}

fn numbered<T: Copy>(from: &mut In<'_>, what: &str, all: &[T], number: impl Fn(T) -> u8) -> Read<T> {
    let got = from.byte()?;
    let found = all.iter().copied().find(|&one| number(one) == got);
    found.ok_or_else(|| from.malformed(format!("no {what} has the number {got}")))
}

fn class(from: &mut In<'_>) -> Read<WorkClass> {
    numbered(from, "class", &[WorkClass::Money, WorkClass::Mail], |c| c as u8)
}

fn step(from: &mut In<'_>) -> Read<Step> {
    numbered(from, "step", &[Step::Pay, Step::Settle, Step::Refund, Step::Notify], |s| s as u8)
}

fn by_hand(from: &mut In<'_>) -> Read<ByHand> {
    let all = [ByHand::Redrive, ByHand::Close, ByHand::Refund, ByHand::Resume];
    numbered(from, "deed by hand", &all, |b| b as u8)
}

pub(crate) fn refund_why(from: &mut In<'_>) -> Read<RefundWhy> {
    use RefundWhy::{ByHand, LimitReached, NotForSale, SecondPayment, SoldOut, UnknownOrder, WrongAmount};
    let all = [WrongAmount, SecondPayment, SoldOut, LimitReached, NotForSale, ByHand, UnknownOrder];
    numbered(from, "reason of a refund", &all, |w| w as u8)
}

fn settling_why(from: &mut In<'_>) -> Read<SettlingWhy> {
    let all = [SettlingWhy::Deadline, SettlingWhy::Released, SettlingWhy::Redriven];
    numbered(from, "reason to settle", &all, |w| w as u8)
}

pub(crate) fn payment_state(from: &mut In<'_>) -> Read<PaymentState> {
    let all = [PaymentState::Kept, PaymentState::RefundDue, PaymentState::Refunded, PaymentState::Closed];
    numbered(from, "payment's state", &all, |s| s as u8)
}

/// Zero says none.
pub(crate) fn phase(from: &mut In<'_>) -> Read<Option<Phase>> {
    let all = Phase::ALL.map(Some);
    let with_none = [&[None], all.as_slice()].concat();
    numbered(from, "phase", &with_none, |p| p.map_or(0, |p| p as u8))
}

pub(crate) fn ending(from: &mut In<'_>) -> Read<Ending> {
    let all = [Ending::Open, Ending::Sold, Ending::Released, Ending::Expired, Ending::Refunded, Ending::Closed];
    numbered(from, "ending", &all, |e| e as u8)
}

pub(crate) fn put_sealed(out: &mut Out<'_>, sealed: &Sealed) {
    out.n(sealed.as_bytes().len() as u64);
    out.raw(sealed.as_bytes());
}

pub(crate) fn sealed(from: &mut In<'_>) -> Read<Sealed> {
    let len = from.count(limits::SEALED_BYTES_MAX)?;
    let bytes = from.raw(len)?;
    from.value(Sealed::new(bytes))
}

pub(crate) fn put_money(out: &mut Out<'_>, money: Money) {
    out.n(money.minor());
    out.raw(money.currency().as_bytes());
}

pub(crate) fn money(from: &mut In<'_>) -> Read<Money> {
    let minor = from.n()?;
    let code = std::str::from_utf8(from.raw(3)?).map_err(|why| from.malformed(why))?;
    let money = from.value(Money::new(minor, code))?;
    // One amount has one form.
    if money.currency() == code { Ok(money) } else { Err(from.malformed("a currency that is not upper case")) }
}

pub(crate) fn worker(from: &mut In<'_>) -> Read<WorkerId> {
    let text = from.text(limits::WORKER_ID_BYTES_MAX)?;
    from.value(WorkerId::new(text))
}

pub(crate) fn provider_id(from: &mut In<'_>) -> Read<ProviderId> {
    let text = from.text(limits::PROVIDER_ID_BYTES_MAX)?;
    from.value(ProviderId::new(text))
}

pub(crate) fn secret(from: &mut In<'_>) -> Read<ClientSecret> {
    from.text(limits::SECRET_BYTES_MAX).map(ClientSecret::from)
}

pub(crate) fn put_details(out: &mut Out<'_>, details: &OrderDetails) {
    put_money(out, details.amount);
    out.n(details.pay_within_ms);
    put_sealed(out, &details.payment);
    put_sealed(out, &details.contact);
    out.byte(u8::from(details.suspect));
}

fn details(from: &mut In<'_>) -> Read<OrderDetails> {
    Ok(OrderDetails {
        amount: money(from)?,
        pay_within_ms: from.n_checked(bounds::pay_within_ms)?,
        payment: sealed(from)?,
        contact: sealed(from)?,
        suspect: from.flag()?,
    })
}

pub(crate) fn put_report(out: &mut Out<'_>, report: &Report) {
    match report {
        Report::Intent { intent, generation } => {
            out.byte(REPORT_INTENT);
            out.text(intent.as_str());
            out.n((*generation).into());
        }
        Report::AwaitBuyer { secret } => {
            out.byte(REPORT_AWAIT_BUYER);
            out.text(secret.as_str());
        }
        Report::Unpaid { reason } => {
            out.byte(REPORT_UNPAID);
            out.text(reason.as_str());
        }
        Report::Notified => out.byte(REPORT_NOTIFIED),
        Report::Retry { after_ms, reason } => {
            out.byte(REPORT_RETRY);
            out.n(*after_ms);
            out.text(reason.as_str());
        }
        Report::GiveBack { after_ms } => {
            out.byte(REPORT_GIVE_BACK);
            out.n(*after_ms);
        }
        Report::Park { reason } => {
            out.byte(REPORT_PARK);
            out.text(reason.as_str());
        }
    }
}

fn report(from: &mut In<'_>) -> Read<Report> {
    let after_ms = |from: &mut In<'_>| from.n_checked(bounds::after_ms);
    Ok(match from.byte()? {
        REPORT_INTENT => Report::Intent { intent: provider_id(from)?, generation: from.n_checked(bounds::generation)? },
        REPORT_AWAIT_BUYER => Report::AwaitBuyer { secret: secret(from)? },
        REPORT_UNPAID => Report::Unpaid { reason: from.reason()? },
        REPORT_NOTIFIED => Report::Notified,
        REPORT_RETRY => Report::Retry { after_ms: after_ms(from)?, reason: from.reason()? },
        REPORT_GIVE_BACK => Report::GiveBack { after_ms: after_ms(from)? },
        REPORT_PARK => Report::Park { reason: from.reason()? },
        n => return Err(from.malformed(format!("no report has the number {n}"))),
    })
}

fn put_fact(out: &mut Out<'_>, fact: &Fact) {
    match fact {
        Fact::Paid { payment, amount } => {
            out.byte(FACT_PAID);
            out.text(payment.as_str());
            put_money(out, *amount);
        }
        Fact::Refunded { payment, refund } => {
            out.byte(FACT_REFUNDED);
            out.text(payment.as_str());
            out.text(refund.as_str());
        }
    }
}

fn fact(from: &mut In<'_>) -> Read<Fact> {
    Ok(match from.byte()? {
        FACT_PAID => Fact::Paid { payment: provider_id(from)?, amount: money(from)? },
        FACT_REFUNDED => Fact::Refunded { payment: provider_id(from)?, refund: provider_id(from)? },
        n => return Err(from.malformed(format!("no fact has the number {n}"))),
    })
}

pub(crate) fn put_park_reason(out: &mut Out<'_>, reason: &ParkReason) {
    match reason {
        ParkReason::Worker(reason) => {
            out.byte(PARKED_BY_WORKER);
            out.text(reason.as_str());
        }
        ParkReason::LeasesLost => out.byte(PARKED_LEASES_LOST),
        ParkReason::UnknownOrder => out.byte(PARKED_UNKNOWN_ORDER),
    }
}

pub(crate) fn park_reason(from: &mut In<'_>) -> Read<ParkReason> {
    Ok(match from.byte()? {
        PARKED_BY_WORKER => ParkReason::Worker(from.reason()?),
        PARKED_LEASES_LOST => ParkReason::LeasesLost,
        PARKED_UNKNOWN_ORDER => ParkReason::UnknownOrder,
        n => return Err(from.malformed(format!("no reason to park has the number {n}"))),
    })
}

const PURCHASE_ATTEMPTED: u8 = 64;
const ORDER_PLACED: u8 = 65;
const ORDER_CLAIMED: u8 = 66;
const LEASE_LOST: u8 = 67;
const INTENT_CREATED: u8 = 68;
const BUYER_AWAITED: u8 = 69;
const ORDER_RETRIED: u8 = 70;
const ORDER_GIVEN_BACK: u8 = 71;
const PAYMENT_PROCESSED: u8 = 72;
const PAYMENT_FAILED: u8 = 73;
const ORDER_SETTLING: u8 = 74;
const ORDER_CONFIRMED: u8 = 75;
const REFUND_REQUESTED: u8 = 76;
const ORDER_REFUNDED: u8 = 77;
const ORDER_NOTIFIED: u8 = 78;
const ORDER_PARKED: u8 = 79;
const ORDER_BY_HAND_DONE: u8 = 80;

/// What happened to an order, about to be written.
#[derive(Clone, Copy)]
pub(crate) enum Told<'a> {
    Attempted { reason: &'a Reason },
    Placed { deadline: u64, amount: Money, suspect: bool },
    Claimed { worker: &'a WorkerId, epoch: u32, step: Step, until: u64 },
    LeaseLost { worker: &'a WorkerId, epoch: u32 },
    Intent { intent: &'a ProviderId, generation: u32 },
    BuyerAwaited,
    Retried { reason: &'a Reason, until: u64, attempts: u32 },
    GivenBack { until: u64 },
    Paid { payment: &'a ProviderId, amount: Money, kept: bool },
    Unpaid { reason: &'a Reason },
    Settling { why: SettlingWhy },
    Confirmed { linked: Option<ReservationId> },
    RefundRequested { payment: &'a ProviderId, reason: RefundWhy },
    Refunded { payment: &'a ProviderId, refund: &'a ProviderId },
    Notified,
    Parked { reason: &'a ParkReason },
    ByHand { what: ByHand, reason: &'a Reason },
}

/// Puts a change of an order.
pub(super) fn put_told(out: &mut Out<'_>, id: ReservationId, told: Told<'_>) {
    let numbered = |out: &mut Out<'_>, number: u8| {
        out.byte(number);
        out.id(id);
    };
    match told {
        Told::Attempted { reason } => {
            numbered(out, PURCHASE_ATTEMPTED);
            out.text(reason.as_str());
        }
        Told::Placed { deadline, amount, suspect } => {
            numbered(out, ORDER_PLACED);
            out.n(deadline);
            put_money(out, amount);
            out.byte(u8::from(suspect));
        }
        Told::Claimed { worker, epoch, step, until } => {
            numbered(out, ORDER_CLAIMED);
            out.text(worker.as_str());
            out.n(epoch.into());
            out.byte(step as u8);
            out.n(until);
        }
        Told::LeaseLost { worker, epoch } => {
            numbered(out, LEASE_LOST);
            out.text(worker.as_str());
            out.n(epoch.into());
        }
        Told::Intent { intent, generation } => {
            numbered(out, INTENT_CREATED);
            out.text(intent.as_str());
            out.n(generation.into());
        }
        Told::BuyerAwaited => numbered(out, BUYER_AWAITED),
        Told::Retried { reason, until, attempts } => {
            numbered(out, ORDER_RETRIED);
            out.text(reason.as_str());
            out.n(until);
            out.n(attempts.into());
        }
        Told::GivenBack { until } => {
            numbered(out, ORDER_GIVEN_BACK);
            out.n(until);
        }
        Told::Paid { payment, amount, kept } => {
            numbered(out, PAYMENT_PROCESSED);
            out.text(payment.as_str());
            put_money(out, amount);
            out.byte(u8::from(kept));
        }
        Told::Unpaid { reason } => {
            numbered(out, PAYMENT_FAILED);
            out.text(reason.as_str());
        }
        Told::Settling { why } => {
            numbered(out, ORDER_SETTLING);
            out.byte(why as u8);
        }
        Told::Confirmed { linked } => {
            numbered(out, ORDER_CONFIRMED);
            out.opt(linked, Out::id);
        }
        Told::RefundRequested { payment, reason } => {
            numbered(out, REFUND_REQUESTED);
            out.text(payment.as_str());
            out.byte(reason as u8);
        }
        Told::Refunded { payment, refund } => {
            numbered(out, ORDER_REFUNDED);
            out.text(payment.as_str());
            out.text(refund.as_str());
        }
        Told::Notified => numbered(out, ORDER_NOTIFIED),
        Told::Parked { reason } => {
            numbered(out, ORDER_PARKED);
            put_park_reason(out, reason);
        }
        Told::ByHand { what, reason } => {
            numbered(out, ORDER_BY_HAND_DONE);
            out.byte(what as u8);
            out.text(reason.as_str());
        }
    }
}

/// Gets a change of an order.
pub(super) fn get_kind(from: &mut In<'_>, number: u8) -> Read<ChangeKind> {
    if !(PURCHASE_ATTEMPTED..=ORDER_BY_HAND_DONE).contains(&number) {
        return Err(from.malformed(format!("no change has the number {number}")));
    }
    let id = from.id()?;
    Ok(match number {
        PURCHASE_ATTEMPTED => ChangeKind::PurchaseAttempted { id, reason: from.reason()? },
        ORDER_PLACED => {
            ChangeKind::OrderPlaced { id, deadline: from.time()?, amount: money(from)?, suspect: from.flag()? }
        }
        ORDER_CLAIMED => ChangeKind::OrderClaimed {
            id,
            worker: worker(from)?,
            epoch: from.small()?,
            step: step(from)?,
            until: from.time()?,
        },
        LEASE_LOST => ChangeKind::LeaseLost { id, worker: worker(from)?, epoch: from.small()? },
        INTENT_CREATED => ChangeKind::IntentCreated { id, intent: provider_id(from)?, generation: from.small()? },
        BUYER_AWAITED => ChangeKind::BuyerAwaited { id },
        ORDER_RETRIED => {
            ChangeKind::OrderRetried { id, reason: from.reason()?, until: from.time()?, attempts: from.small()? }
        }
        ORDER_GIVEN_BACK => ChangeKind::OrderGivenBack { id, until: from.time()? },
        PAYMENT_PROCESSED => {
            ChangeKind::PaymentProcessed { id, payment: provider_id(from)?, amount: money(from)?, kept: from.flag()? }
        }
        PAYMENT_FAILED => ChangeKind::PaymentFailed { id, reason: from.reason()? },
        ORDER_SETTLING => ChangeKind::OrderSettling { id, why: settling_why(from)? },
        ORDER_CONFIRMED => ChangeKind::OrderConfirmed { id, linked: from.opt(In::id)? },
        REFUND_REQUESTED => ChangeKind::RefundRequested { id, payment: provider_id(from)?, reason: refund_why(from)? },
        ORDER_REFUNDED => ChangeKind::OrderRefunded { id, payment: provider_id(from)?, refund: provider_id(from)? },
        ORDER_NOTIFIED => ChangeKind::OrderNotified { id },
        ORDER_PARKED => ChangeKind::OrderParked { id, reason: park_reason(from)? },
        _ => ChangeKind::OrderByHandDone { id, what: by_hand(from)?, reason: from.reason()? },
    })
}
