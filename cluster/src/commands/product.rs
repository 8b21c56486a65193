//! `ledgerctl product …`
//!
//! **Owns** the product verbs. **Must never** send what was not announced. **Read next**: [`super::stock`].

use client_sdk::{Client, OfferKey, ProductView};

use super::{Desk, offer_key, offer_name, policy_of};
use crate::cli::{OfferArgs, ProductVerb};
use crate::documents::{ProductDoc, offers_table, product_text};
use crate::limits;
use crate::output::{Failure, Outcome};

pub(super) async fn run(desk: &Desk, verb: ProductVerb) -> Outcome {
    match verb {
        ProductVerb::Create { sku, units, reference, policy } => {
            let offer = offer_key(&sku, None)?;
            let policy = policy_of(&policy)?;
            let units_told = units.map_or(String::new(), |n| format!(", and receive {n} units"));
            desk.printer.ask(&format!("create product {sku}{units_told}"))?;
            let client = desk.client().await?;
            client.create_product(&offer.sku, policy).await.into_result()?;
            if let (Some(units), Some(reference)) = (units, reference) {
                client.receive(&offer.sku, units, reference).await.into_result()?;
            }
            show(desk, &client, &offer).await
        }
        ProductVerb::Delete { sku } => {
            let offer = offer_key(&sku, None)?;
            desk.printer.ask(&format!("delete product {sku}"))?;
            desk.client().await?.delete_product(&offer.sku).await.into_result()?;
            desk.printer.print(&serde_json::json!({"sku": sku, "deleted": true}), |_| format!("{sku} is deleted"))
        }
        ProductVerb::Show { sku } => show(desk, &desk.client().await?, &offer_key(&sku, None)?).await,
        ProductVerb::List => {
            let products: Vec<ProductDoc> = all_products(&desk.client().await?).await?.iter().map(Into::into).collect();
            desk.printer.print(&products, |all| offers_table(all.iter().flat_map(|p| &p.offers)))
        }
        ProductVerb::Close(args) => set_open(desk, &args, false).await,
        ProductVerb::Open(args) => set_open(desk, &args, true).await,
    }
}

async fn show(desk: &Desk, client: &Client, offer: &OfferKey) -> Outcome {
    let view = client.product(&offer.sku).await.into_result()?;
    let Some(view) = view else {
        return Err(Failure::refused(format!("there is no product {}", offer.sku))
            .hint(format!("ledgerctl product create {} --units 100 --ref first-delivery", offer.sku)));
    };
    desk.printer.print(&ProductDoc::from(&view), product_text)
}

async fn set_open(desk: &Desk, args: &OfferArgs, open: bool) -> Outcome {
    let offer = offer_key(&args.sku, args.sale.as_deref())?;
    let will = if open { "open" } else { "close" };
    desk.printer.ask(&format!("{will} {} to new reservations", offer_name(&offer)))?;
    let client = desk.client().await?;
    client.set_open(offer.clone(), open).await.into_result()?;
    show(desk, &client, &offer).await
}

/// All products, page by page.
pub(crate) async fn all_products(client: &Client) -> Outcome<Vec<ProductView>> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut page = client.products().max(limits::PAGE);
        if let Some(token) = next {
            page = page.after(token);
        }
        let page = page.await.into_result()?;
        all.extend(page.items);
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(all),
        }
    }
}
