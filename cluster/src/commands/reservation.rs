//! `ledgerctl reserve`, `confirm`, `release`, `extend`, `resolve`, `reservation show`.
//!
//! **Owns** the verbs on reservations. **Must never** ask before the id is printed: whoever loses the answer has the id.
//! **Read next**: [`crate::documents`].

use client_sdk::{IdView, LedgerTime, Resolved, Sku};

use super::Desk;
use crate::cli::{ExtendArgs, IdArgs, ReservationVerb, ReserveArgs};
use crate::documents::ReservationDoc;
use crate::output::{Failure, Outcome};

pub(super) async fn reserve(desk: &Desk, args: ReserveArgs) -> Outcome {
    let client = desk.client().await?;
    let sku = Sku::new(&args.lines[0].0).map_err(|e| Failure::usage(e.to_string()))?;
    let id = args.id.unwrap_or_else(|| client.mint_for(&sku));
    eprintln!("id: {id}");
    let lines: Vec<String> = args.lines.iter().map(|(sku, n)| format!("{n} × {sku}")).collect();
    let from = args.sale.as_ref().map_or(String::new(), |s| format!(" from sale {s}"));
    desk.printer.ask(&format!("hold {}{from} for {}", lines.join(", "), args.buyer))?;
    let mut call = client.reserve(id, &args.buyer);
    for key in &args.keys {
        call = call.key(key);
    }
    for (sku, units) in &args.lines {
        call = match &args.sale {
            Some(sale) => call.sale_line(sale, sku, *units),
            None => call.line(sku, *units),
        };
    }
    if let Some(hold) = args.hold {
        call = call.hold_for(hold);
    }
    let reservation = call.await.into_result().map_err(|e| with_id(e, id))?;
    desk.printer.print(&ReservationDoc::from(&reservation), ReservationDoc::to_text)
}

fn with_id(not_ok: client_sdk::NotOk, id: client_sdk::ReservationId) -> Failure {
    match Failure::from(not_ok) {
        unknown @ Failure::Unknown { .. } => unknown.hint(format!("ledgerctl resolve {id}")),
        failure @ Failure::Refused { hint: None, .. } => failure.hint(format!("ledgerctl reservation show {id}")),
        failure => failure,
    }
}

pub(super) async fn confirm(desk: &Desk, IdArgs { id }: IdArgs) -> Outcome {
    desk.printer.ask(&format!("sell {id}"))?;
    let reservation = desk.client().await?.confirm(id).await.into_result().map_err(|e| with_id(e, id))?;
    desk.printer.print(&ReservationDoc::from(&reservation), ReservationDoc::to_text)
}

pub(super) async fn release(desk: &Desk, IdArgs { id }: IdArgs) -> Outcome {
    desk.printer.ask(&format!("give the units of {id} back"))?;
    let reservation = desk.client().await?.release(id).await.into_result().map_err(|e| with_id(e, id))?;
    desk.printer.print(&ReservationDoc::from(&reservation), ReservationDoc::to_text)
}

pub(super) async fn extend(desk: &Desk, args: ExtendArgs) -> Outcome {
    let id = args.id.id;
    let client = desk.client().await?;
    let replaces = match args.replaces_ms {
        Some(ms) => LedgerTime(ms),
        None => match client.reservation(id).await.into_result()? {
            IdView::Reservation(view) => view.deadline,
            _ => return Err(Failure::refused(format!("there is no reservation {id}"))),
        },
    };
    let hold = humantime::format_duration(args.hold);
    desk.printer
        .ask(&format!("hold {id} for {hold} from now, instead of until {}", crate::output::instant(replaces.0)))?;
    let reservation = client.extend(id, replaces, args.hold).await.into_result().map_err(|e| with_id(e, id))?;
    desk.printer.print(&ReservationDoc::from(&reservation), ReservationDoc::to_text)
}

pub(super) async fn resolve(desk: &Desk, IdArgs { id }: IdArgs) -> Outcome {
    desk.printer.ask(&format!("tell what became of {id}; if it never executed, make sure that it never will"))?;
    let resolved = desk.client().await?.resolve(id).await.into_result().map_err(|e| with_id(e, id))?;
    let document = match &resolved {
        Resolved::Never => ReservationDoc::bare(id, "fenced"),
        Resolved::WasRefused(why) => ReservationDoc::of_view(id, &IdView::Refused(why.clone())),
        Resolved::Reservation(reservation) => ReservationDoc::from(reservation),
    };
    desk.printer.print(&document, ReservationDoc::to_text)
}

pub(super) async fn run(desk: &Desk, ReservationVerb::Show(IdArgs { id }): ReservationVerb) -> Outcome {
    let view = desk.client().await?.reservation(id).await.into_result()?;
    let document = ReservationDoc::of_view(id, &view);
    desk.printer.print(&document, ReservationDoc::to_text)?;
    match view {
        IdView::Unknown => Err(Failure::refused(format!("no reservation {id} ever executed"))),
        _ => Ok(()),
    }
}
