//! The goods of a run, and how they get there.
//!
//! **Owns** the names of products and sales. **Must never** leave a product half set up: each step goes on until it is definite.
//! **Read next**: [`super::buy`].

use client_sdk::{Client, Policy};
use ledger_proto::v1;

use super::{Failure, Journal, Journalled, Kind, Load, PAUSE, Site};
use crate::history::Offer;

/// The sale that some products are in.
pub(super) const SALE: &str = "flash";
/// A second sale, which keepers end.
pub(super) const ENDING: &str = "ending";
/// Products of one slot, for reservations of several lines.
pub(super) const CART: [&str; 3] = ["{cart}a", "{cart}b", "{cart}c"];
/// A product of few units, for confirms at the last moment.
pub(super) const BRINK: &str = "brink";
/// The product with limits.
pub(super) const LIMITED: &str = "limited";

/// The hot product and the other plain ones.
pub(super) fn plain(load: Load) -> Vec<String> {
    (0..load.products).map(|n| format!("sku-{n}")).collect()
}

/// Every product of a load.
pub fn products(load: Load) -> Vec<String> {
    let mut all = plain(load);
    if load.does(Kind::Carts) {
        all.extend(CART.map(str::to_owned));
    }
    if load.does(Kind::Brink) {
        all.push(BRINK.to_owned());
    }
    if load.does(Kind::Limits) {
        all.push(LIMITED.to_owned());
    }
    all
}

/// Every offer of a load: each product's plain one, and the sales that some are in.
pub fn offers(load: Load) -> Vec<Offer> {
    let mut all: Vec<Offer> = products(load).into_iter().map(Offer::plain).collect();
    all.extend(sales(load));
    all
}

fn sales(load: Load) -> Vec<Offer> {
    let mut all = Vec::new();
    if load.does(Kind::Many) || load.does(Kind::Keeping) {
        for sku in plain(load).into_iter().take(2) {
            all.push(Offer::of_sale(sku.as_str(), SALE));
            all.push(Offer::of_sale(sku, ENDING));
        }
    }
    if load.does(Kind::Limits) {
        all.push(Offer::of_sale(LIMITED, SALE));
    }
    all
}

/// The policy that an offer begins with.
pub(super) fn policy(load: Load, offer: &Offer) -> Policy {
    let limited = offer.sku == LIMITED || offer.sale.is_some();
    Policy {
        per_key_max: limited.then_some(load.per_key_max),
        hold_ms_default: load.hold_ms_max,
        hold_ms_max: load.hold_ms_max.max(1_000) * 2,
        low_stock_at: 2,
        ..Policy::default()
    }
}

/// Lowers the cap on remembered ids, and waits until every shard has it; any node passes it on.
async fn cap(site: &Site, remembered_max: u64) -> Result<(), Failure> {
    let mut admin = site.admin(site.node(0)).await?;
    let request = v1::SetSettingsRequest { remembered_max: Some(remembered_max), ..Default::default() };
    let generation = admin.set_settings(request).await?.into_inner().generation;
    let has = admin.get_settings(v1::GetSettingsRequest {}).await?.into_inner();
    let in_force = !has.shards.is_empty() && has.shards.iter().all(|shard| shard.generation >= generation);
    if in_force { Ok(()) } else { Err("not in force yet".into()) }
}

/// Creates products and sales and receives their units; each step goes on until it is definite.
pub async fn set_up(client: &Client, site: &Site, load: Load, journal: &Journal) {
    let asking = Journalled::new(client, site, journal, load, 0, 0);
    if load.remembered_max > 0 {
        while cap(site, load.remembered_max).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    for sku in products(load) {
        let offer = Offer::plain(sku.as_str());
        let units = if sku == BRINK { 2 } else { load.units };
        asking.surely(|| asking.create(&sku, policy(load, &offer))).await;
        asking.surely(|| asking.receive(&offer, units, "opening")).await;
    }
    for offer in sales(load) {
        let reference = format!("opening {}", offer.sale.as_deref().unwrap_or_default());
        asking.surely(|| asking.put(&offer, policy(load, &offer), None)).await;
        asking
            .surely(|| asking.allot(&offer.sku, None, offer.sale.as_deref(), (load.units / 4).max(1), &reference))
            .await;
    }
}
