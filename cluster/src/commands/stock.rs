//! `ledgerctl receive` and `ledgerctl adjust`.
//!
//! **Owns** both. **Must never** send without a reference: it makes them safe to repeat. **Read next**: [`super::import`].

use client_sdk::{OfferKey, Stocked};

use super::{Desk, offer_key, offer_name};
use crate::cli::{AdjustArgs, ReceiveArgs};
use crate::documents::StockedDoc;
use crate::output::{Failure, Outcome};

pub(super) async fn receive(desk: &Desk, args: ReceiveArgs) -> Outcome {
    let offer = offer_key(&args.offer.sku, args.offer.sale.as_deref())?;
    desk.printer.ask(&format!("add {} units to {} (reference {})", args.units, offer_name(&offer), args.reference))?;
    let mut call = desk.client().await?.receive(&offer.sku, args.units, &args.reference);
    if let Some(sale) = &offer.sale {
        call = call.sale(sale);
    }
    let stocked = call.await.into_result().map_err(|e| explain(e, &offer))?;
    desk.printer.print(&document(&offer, stocked), StockedDoc::to_text)
}

pub(super) async fn adjust(desk: &Desk, args: AdjustArgs) -> Outcome {
    let offer = offer_key(&args.offer.sku, args.offer.sale.as_deref())?;
    if args.delta == 0 {
        return Err(Failure::usage("a difference of 0 corrects nothing"));
    }
    let will = format!(
        "change the available units of {} by {:+} ({}; reference {})",
        offer_name(&offer),
        args.delta,
        args.reason,
        args.reference
    );
    desk.printer.ask(&will)?;
    let mut call = desk.client().await?.adjust(&offer.sku, args.delta, &args.reason, &args.reference);
    if let Some(sale) = &offer.sale {
        call = call.sale(sale);
    }
    if let Some(version) = args.expect_version {
        call = call.expected_version(version);
    }
    let stocked = call.await.into_result().map_err(|e| explain(e, &offer))?;
    desk.printer.print(&document(&offer, stocked), StockedDoc::to_text)
}

fn explain(not_ok: client_sdk::NotOk, offer: &OfferKey) -> Failure {
    let next = format!("ledgerctl product show {}", offer.sku);
    match Failure::from(not_ok) {
        failure @ Failure::Refused { hint: None, .. } => failure.hint(next),
        failure => failure,
    }
}

pub(super) fn document(offer: &OfferKey, stocked: Stocked) -> StockedDoc {
    StockedDoc {
        sku: offer.sku.to_string(),
        sale: offer.sale.as_ref().map(ToString::to_string),
        available: stocked.balance.available,
        held: stocked.balance.held,
        sold: stocked.balance.sold,
        version: stocked.version,
        replayed: stocked.replayed,
    }
}
