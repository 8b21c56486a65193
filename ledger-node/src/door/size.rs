//! Bytes that calls take while they wait.
//!
//! **Owns** the count behind the byte bound of a queue. **Must never** count less than a command takes: the bound is of memory, and a
//! test with a counting allocator compares (`ledger-node/tests/queued_bytes.rs`). **Read next**: [`crate::door`].

use ledger_core::command::{LimitKeys, Lines};
use ledger_core::order::{Fact, OrderDetails, Report, Sealed};
use ledger_core::types::{OfferKey, Policy};
use ledger_core::{Command, LimitKey, Line};

use super::PendingCall;

/// What an allocation takes beside its content: its size class, at most an eighth and a word or two.
const fn allocated(bytes: usize) -> usize {
    bytes + bytes / 8 + 32
}

/// A short text lies in its place.
fn text(text: &str) -> usize {
    if text.len() <= size_of::<String>() { 0 } else { allocated(text.len()) }
}

fn offer(offer: &OfferKey) -> usize {
    text(offer.sku.as_str()) + offer.sale.as_ref().map_or(0, |sale| text(sale.as_str()))
}

fn lines(lines: &Lines) -> usize {
    let spilled = if lines.spilled() { allocated(lines.capacity() * size_of::<Line>()) } else { 0 };
    spilled + lines.iter().map(|line| offer(&line.offer)).sum::<usize>()
}

fn keys(keys: &LimitKeys) -> usize {
    let spilled = if keys.spilled() { allocated(keys.capacity() * size_of::<LimitKey>()) } else { 0 };
    spilled + keys.iter().map(|key| text(key.as_str())).sum::<usize>()
}

fn sealed(sealed: &Sealed) -> usize {
    match sealed.as_bytes().len() {
        0 => 0,
        // And the count of who shares it.
        bytes => allocated(bytes) + allocated(size_of::<[usize; 4]>()),
    }
}

fn policy(policy: &Policy) -> usize {
    policy.price.as_ref().map_or(0, |price| text(price.as_str()))
}

fn report(report: &Report) -> usize {
    match report {
        Report::Intent { intent, .. } => text(intent.as_str()),
        Report::AwaitBuyer { secret } => text(secret.as_str()),
        Report::Unpaid { reason } | Report::Retry { reason, .. } | Report::Park { reason } => text(reason.as_str()),
        Report::Notified | Report::GiveBack { .. } => 0,
    }
}

fn fact(fact: &Fact) -> usize {
    match fact {
        Fact::Paid { payment, .. } => text(payment.as_str()),
        Fact::Refunded { payment, refund } => text(payment.as_str()) + text(refund.as_str()),
    }
}

/// What a command owns beside its own size.
fn owned(command: &Command) -> usize {
    match command {
        Command::Reserve { keys: k, lines: l, .. } => keys(k) + lines(l),
        Command::Confirm { lines: l, .. } => l.as_ref().map_or(0, lines),
        Command::Return { lines: l, reference, .. } => l.as_ref().map_or(0, lines) + text(reference.as_str()),
        Command::CreateProduct { sku, policy: p } => text(sku.as_str()) + policy(p),
        Command::PutOffer { offer: o, policy: p, .. } => offer(o) + policy(p),
        Command::DeleteProduct { sku } => text(sku.as_str()),
        Command::SetOpen { offer: o, .. } => offer(o),
        Command::EndSale { sku, sale } => text(sku.as_str()) + text(sale.as_str()),
        Command::Receive { offer: o, reference, .. } => offer(o) + text(reference.as_str()),
        Command::Adjust { offer: o, reason, reference, .. } => {
            offer(o) + text(reason.as_str()) + text(reference.as_str())
        }
        Command::Allot { sku, from, to, reference, .. } => {
            let sales = [from, to].into_iter().flatten().map(|sale| text(sale.as_str())).sum::<usize>();
            text(sku.as_str()) + sales + text(reference.as_str())
        }
        Command::OwnSlots { ranges, .. } => allocated(ranges.capacity() * size_of::<[u16; 2]>()),
        Command::PlaceOrder { details, reserve, .. } => {
            let of_reserve = reserve.as_ref().map_or(0, |(k, l)| keys(k) + lines(l));
            allocated(size_of::<OrderDetails>()) + sealed(&details.payment) + sealed(&details.contact) + of_reserve
        }
        Command::ClaimOrders { worker, .. } => text(worker.as_str()),
        Command::ReportOrder { report: r, .. } => report(r),
        Command::RecordFact { fact: f, .. } => fact(f),
        Command::OrderByHand { reason, .. } => text(reason.as_str()),
        Command::Tick
        | Command::Extend { .. }
        | Command::Release { .. }
        | Command::Fence { .. }
        | Command::Configure { .. }
        | Command::SwitchBehaviour { .. }
        | Command::Heartbeat { .. } => 0,
    }
}

/// What a call of this command takes while it waits, at least as much as it really does.
pub fn queued_bytes(command: &Command) -> usize {
    size_of::<PendingCall>() + owned(command)
}
