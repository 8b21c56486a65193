//! `ledgerctl sale …`: the same sale id on several products is one sale.
//!
//! **Owns** creating and ending a sale over products. **Must never** move units twice: the reference of an allotment is the
//! sale and the product, so repeating a `create` finishes it and adds nothing.
//! **Read next**: [`crate::documents`].

use std::collections::BTreeMap;
use std::path::Path;

use client_sdk::{Client, LedgerTime, OfferKey, Policy, SaleId, Sku, v1};
use client_sdk::{NotOk, Refusal};

use super::{Desk, policy_of};
use crate::cli::SaleVerb;
use crate::documents::{OfferDoc, offers_table};
use crate::limits;
use crate::output::{Failure, Outcome};

/// What a sale is to be.
pub struct SalePlan {
    /// Its id.
    pub sale: SaleId,
    /// Units to move from each plain offer.
    pub allotments: Vec<(Sku, i64)>,
    /// Policy of all its offers.
    pub policy: Policy,
}

/// Creates the offers and moves the units. Safe to repeat.
///
/// # Errors
/// The first product that is refused; the ones before it stand.
pub async fn create_sale(client: &Client, plan: &SalePlan) -> Outcome {
    for (sku, units) in &plan.allotments {
        let named = |e: NotOk| match Failure::from(e) {
            Failure::Refused { what, hint } => Failure::Refused { what: format!("{sku}: {what}"), hint },
            other => other,
        };
        let key = OfferKey { sku: sku.clone(), sale: Some(plan.sale.clone()) };
        client.put_offer(key, plan.policy.clone()).await.into_result().map_err(named)?;
        let reference = allot_reference(&plan.sale);
        let moved = client.allot(sku, *units, reference).to_sale(&plan.sale).await;
        if let Some(Refusal::ReferenceTaken) = moved.refusal() {
            let what = format!("{sku} was put into sale {} with another number of units", plan.sale);
            return Err(Failure::refused(what).hint(format!("ledgerctl sale show {}", plan.sale)));
        }
        moved.into_result().map_err(named)?;
    }
    Ok(())
}

/// Bounded whatever the names' lengths: a reference has 64 bytes, and is unique within its product anyway.
fn allot_reference(sale: &SaleId) -> String {
    format!("allot:{sale}")
}

pub(super) async fn run(desk: &Desk, verb: SaleVerb) -> Outcome {
    match verb {
        SaleVerb::Create { sale, skus, csv, opens, closes, lasts, policy } => {
            let mut allotments = skus;
            if let Some(path) = csv {
                allotments.extend(read_allotments(&path)?);
            }
            if allotments.is_empty() {
                return Err(
                    Failure::usage("a sale needs products").hint(format!("ledgerctl sale create {sale} --sku mug=50"))
                );
            }
            let mut policy = policy_of(&policy)?;
            policy.opens_at = opens.map(LedgerTime);
            let client = desk.client().await?;
            let start = opens.unwrap_or_else(|| client.ledger_time().0);
            policy.closes_at = closes.or(lasts.map(|d| start + d.as_millis() as u64)).map(LedgerTime);
            let invalid = |e: client_sdk::InvalidValue| Failure::usage(e.to_string());
            policy.validate().map_err(invalid)?;
            let allotments = allotments
                .into_iter()
                .map(|(sku, n)| Ok((Sku::new(sku).map_err(invalid)?, n)))
                .collect::<Outcome<Vec<_>>>()?;
            let plan = SalePlan { sale: SaleId::new(&sale).map_err(invalid)?, allotments, policy };
            desk.printer.ask(&describe(&plan))?;
            create_sale(&client, &plan).await?;
            show(desk, &client, &sale).await
        }
        SaleVerb::Show { sale } => show(desk, &desk.client().await?, &sale).await,
        SaleVerb::List => list(desk).await,
        SaleVerb::End { sale } => end(desk, &sale).await,
    }
}

fn describe(plan: &SalePlan) -> String {
    let units: i128 = plan.allotments.iter().map(|(_, n)| i128::from(*n)).sum();
    let products: Vec<String> = plan.allotments.iter().take(5).map(|(sku, n)| format!("{sku}={n}")).collect();
    let more = if plan.allotments.len() > 5 { ", …" } else { "" };
    let window = |t: Option<LedgerTime>| t.map_or("-".into(), |t| crate::output::instant(t.0));
    format!(
        "put {} products with {units} units into sale {} ({}{more}), window {} to {}",
        plan.allotments.len(),
        plan.sale,
        products.join(", "),
        window(plan.policy.opens_at),
        window(plan.policy.closes_at)
    )
}

fn read_allotments(path: &Path) -> Outcome<Vec<(String, i64)>> {
    let catalog = crate::catalog::Catalog::open(path).map_err(|errors| super::import::bad_file(path, &errors))?;
    let allotment = |line: crate::catalog::CatalogLine| line.units.map(|n| (line.sku.to_string(), n.get() as i64));
    Ok(catalog.lines.into_iter().filter_map(allotment).collect())
}

async fn offers_of(client: &Client, sale: Option<&str>) -> Outcome<Vec<OfferDoc>> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut page = client.sales().max(limits::PAGE);
        if let Some(sale) = sale {
            page = page.sale(sale);
        }
        if let Some(token) = next {
            page = page.after(token);
        }
        let page = page.await.into_result()?;
        all.extend(page.items.iter().map(OfferDoc::from));
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(all),
        }
    }
}

async fn show(desk: &Desk, client: &Client, sale: &str) -> Outcome {
    let offers = offers_of(client, Some(sale)).await?;
    if offers.is_empty() {
        return Err(Failure::refused(format!("there is no sale {sale}")).hint("ledgerctl sale list"));
    }
    desk.printer.print(&offers, |offers| offers_table(offers.iter()))
}

/// A sale over its products.
#[derive(Debug, serde::Serialize)]
struct SaleDoc {
    sale: String,
    products: u64,
    available: i128,
    held: i128,
    sold: i128,
    ended: u64,
}

async fn list(desk: &Desk) -> Outcome {
    let mut sales: BTreeMap<String, SaleDoc> = BTreeMap::new();
    for offer in offers_of(&desk.client().await?, None).await? {
        let Some(sale) = offer.sale else { continue };
        let new = SaleDoc { sale: sale.clone(), products: 0, available: 0, held: 0, sold: 0, ended: 0 };
        let sums = sales.entry(sale).or_insert(new);
        sums.products += 1;
        // Of all products: more than 64 bits can say.
        sums.available += i128::from(offer.available);
        sums.held += i128::from(offer.held);
        sums.sold += i128::from(offer.sold);
        sums.ended += u64::from(offer.state == "ended");
    }
    let sales: Vec<SaleDoc> = sales.into_values().collect();
    desk.printer.print(&sales, |sales| {
        use crate::output::{num, table, text};
        table(
            ["SALE", "PRODUCTS", "AVAILABLE", "HELD", "SOLD", "ENDED"],
            sales
                .iter()
                .map(|s| [text(&s.sale), num(s.products), num(s.available), num(s.held), num(s.sold), num(s.ended)]),
        )
    })
}

async fn end(desk: &Desk, sale: &str) -> Outcome {
    let client = desk.client().await?;
    let offers = offers_of(&client, Some(sale)).await?;
    if offers.is_empty() {
        return Err(Failure::refused(format!("there is no sale {sale}")).hint("ledgerctl sale list"));
    }
    let left: i128 = offers.iter().map(|o| i128::from(o.available)).sum();
    desk.printer.ask(&format!(
        "end sale {sale} on {} products for good; {left} units go back to the plain offers",
        offers.len()
    ))?;
    for offer in &offers {
        client.end_sale(sale, &offer.sku).await.into_result()?;
    }
    show(desk, &client, sale).await
}

/// Where the SDK was last told the shards are; used by the demo to find the hot product's shard.
pub(crate) fn shard_of(routing: &v1::Routing, sku: &Sku) -> Option<u32> {
    let slot = u32::from(client_sdk::Slot::of(sku).get());
    let owns = |s: &&v1::ShardRoute| s.slots.iter().any(|r| (r.from..=r.to).contains(&slot));
    routing.shards.iter().find(owns).map(|s| s.shard)
}
