//! `ledgerctl watch`: the feed, a line a change.
//!
//! **Owns** the words for changes. **Must never** skip one. **Read next**: [`crate::books`].

use client_sdk::{ChangeKind, Cursor, Happened, LineChange, Sku};
use serde::Serialize;

use super::Desk;
use super::orders::{parked_words, step_name};
use crate::books::{reservation_of, sku_of};
use crate::cli::WatchArgs;
use crate::output::{Failure, Outcome, instant};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ChangeDoc {
    name: &'static str,
    time_ms: u64,
    shard: u32,
    index: u64,
    place: u16,
    sku: Option<String>,
    reservation: Option<String>,
    lines: Vec<ChangeLineDoc>,
    what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ChangeLineDoc {
    sku: String,
    sale: Option<String>,
    units: u32,
    available: u64,
    held: u64,
    sold: u64,
}

pub(super) async fn run(desk: &Desk, args: WatchArgs) -> Outcome {
    let skus = args
        .skus
        .iter()
        .map(|s| Sku::new(s).map_err(|e| Failure::usage(e.to_string())))
        .collect::<Outcome<Vec<_>>>()?;
    let client = desk.client().await?;
    let wanted = |sku: Option<&Sku>| skus.is_empty() || sku.is_none_or(|sku| skus.contains(sku));
    let mut watch = match (args.from_now, skus.is_empty()) {
        (true, _) => client.watch_from_now(),
        (false, true) => client.watch(Cursor::oldest()),
        (false, false) => client.watch_products(Cursor::oldest(), skus.clone()),
    };
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let happenings = tokio::select! {
            next = watch.next() => next,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(happenings) = happenings else { break };
        let happenings = happenings.map_err(|e| Failure::refused(e.to_string()))?;
        for happened in happenings.changes.iter().filter(|h| wanted(sku_of(&h.change.kind))) {
            desk.printer.record(&document(happened), to_line)?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn document(happened: &Happened) -> ChangeDoc {
    let kind = &happened.change.kind;
    ChangeDoc {
        name: kind.name(),
        time_ms: happened.time.0,
        shard: happened.position.shard,
        index: happened.position.index,
        place: happened.position.place,
        sku: sku_of(kind).map(ToString::to_string),
        reservation: reservation_of(kind).map(|id| id.to_string()),
        lines: lines(kind).into_iter().map(line_document).collect(),
        what: what(kind),
    }
}

fn lines(kind: &ChangeKind) -> Vec<&LineChange> {
    match kind {
        ChangeKind::InventoryReserved { lines, .. }
        | ChangeKind::ReservationReleased { lines, .. }
        | ChangeKind::ReservationExpired { lines, .. }
        | ChangeKind::UnitsReturned { lines, .. } => lines.iter().collect(),
        ChangeKind::ReservationConfirmed { lines, given_back, .. } => lines.iter().chain(given_back).collect(),
        _ => Vec::new(),
    }
}

fn line_document(line: &LineChange) -> ChangeLineDoc {
    ChangeLineDoc {
        sku: line.line.offer.sku.to_string(),
        sale: line.line.offer.sale.as_ref().map(ToString::to_string),
        units: line.line.quantity.get(),
        available: line.balance.available,
        held: line.balance.held,
        sold: line.balance.sold,
    }
}

fn what(kind: &ChangeKind) -> String {
    let units = |lines: &[LineChange]| -> u64 { lines.iter().map(|l| u64::from(l.line.quantity.get())).sum() };
    match kind {
        ChangeKind::UnitsReceived { units, reference, balance, .. } => {
            format!("+{} ({reference}), available {}", units.get(), balance.available)
        }
        ChangeKind::UnitsAdjusted { delta, reason, reference, balance, .. } => {
            format!("{delta:+} ({reason}; {reference}), available {}", balance.available)
        }
        ChangeKind::UnitsAllotted { from, to, units, .. } => {
            let name = |s: &Option<client_sdk::SaleId>| s.as_ref().map_or("plain".to_owned(), ToString::to_string);
            format!("{} from {} to {}", units.get(), name(from), name(to))
        }
        ChangeKind::InventoryReserved { deadline, lines, .. } => {
            format!("{} held until {}", units(lines), instant(deadline.0))
        }
        ChangeKind::ReservationExtended { deadline, .. } => format!("held until {}", instant(deadline.0)),
        ChangeKind::ReservationConfirmed { lines, given_back, .. } => {
            format!("{} sold, {} given back", units(lines), units(given_back))
        }
        ChangeKind::ReservationReleased { lines, .. } | ChangeKind::ReservationExpired { lines, .. } => {
            format!("{} given back", units(lines))
        }
        ChangeKind::UnitsReturned { lines, reference, .. } => format!("{} returned ({reference})", units(lines)),
        ChangeKind::StockLow { available, .. } => format!("{available} left"),
        ChangeKind::SaleEnded { moved_back, .. } => format!("{moved_back} back to the plain offer"),
        ChangeKind::SoldOut { truth, .. } => match truth {
            client_sdk::SoldOut::Open { available } => format!("{available} left"),
            client_sdk::SoldOut::FirstBackAt(t) => format!("all held, first back at {}", instant(t.0)),
            client_sdk::SoldOut::Gone => "gone for good".into(),
        },
        order => of_order(order),
    }
}

fn of_order(kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::PurchaseAttempted { reason, .. } | ChangeKind::PaymentFailed { reason, .. } => reason.to_string(),
        ChangeKind::OrderPlaced { deadline, amount, suspect, .. } => {
            format!("{amount}, to be paid until {}{}", instant(deadline.0), if *suspect { ", suspect" } else { "" })
        }
        ChangeKind::OrderClaimed { worker, epoch, step, until, .. } => {
            format!("{worker} is to {}, until {} (epoch {epoch})", step_name(*step), instant(until.0))
        }
        ChangeKind::LeaseLost { worker, epoch, .. } => format!("{worker} never reported (epoch {epoch})"),
        ChangeKind::IntentCreated { intent, generation, .. } => format!("{intent}, generation {generation}"),
        ChangeKind::OrderRetried { reason, until, attempts, .. } => {
            format!("{reason}; attempt {attempts}, again at {}", instant(until.0))
        }
        ChangeKind::OrderGivenBack { until, .. } => format!("nothing was tried; again at {}", instant(until.0)),
        ChangeKind::PaymentProcessed { payment, amount, kept, .. } => {
            format!("{amount} as {payment}, {}", if *kept { "kept" } else { "to be given back" })
        }
        ChangeKind::OrderSettling { why, .. } => format!("units are free again ({why:?}); was anything paid?"),
        ChangeKind::OrderConfirmed { linked, .. } => {
            linked.map_or(String::new(), |linked| format!("late, with the units of {linked}"))
        }
        ChangeKind::RefundRequested { payment, reason, .. } => format!("{payment}: {reason:?}"),
        ChangeKind::OrderRefunded { payment, refund, .. } => format!("{payment} by {refund}"),
        ChangeKind::OrderParked { reason, .. } => parked_words(reason),
        ChangeKind::OrderByHandDone { what, reason, .. } => format!("{what:?}: {reason}"),
        _ => String::new(),
    }
}

pub(super) fn to_line(change: &ChangeDoc) -> String {
    let about = change.reservation.as_deref().or(change.sku.as_deref()).unwrap_or("-");
    let sku = if change.reservation.is_some() { change.sku.as_deref().unwrap_or("") } else { "" };
    format!(
        "{}  {:>2}/{}.{}  {:<21} {about} {sku} {}",
        instant(change.time_ms),
        change.shard,
        change.index,
        change.place,
        change.name,
        change.what
    )
    .trim_end()
    .to_owned()
}
