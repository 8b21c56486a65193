//! A crowd of buyers for a few units: exactly so many are held, whatever happens to the nodes meanwhile.
//!
//! `cargo run -p client-sdk --example flash_sale -- --endpoints localhost:7101 --buyers 10000 --units 50`

use std::time::Duration;

use clap::Parser;
use client_sdk::{Client, Outcome, Policy, Refusal, Sku};

#[derive(Parser)]
pub(crate) struct Args {
    /// Addresses of some nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "localhost:7101")]
    endpoints: Vec<String>,
    /// How many want one.
    #[arg(long, default_value_t = 10_000)]
    buyers: usize,
    /// How many there are.
    #[arg(long, default_value_t = 50)]
    units: u32,
}

/// What the crowd was told.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) held: u32,
    pub(crate) sold_out: u32,
    pub(crate) refused: u32,
    pub(crate) not_now: u32,
    pub(crate) unknown: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tally = run(Args::parse()).await?;
    println!("{tally:?}");
    Ok(())
}

/// Lets everybody try at once.
pub(crate) async fn run(Args { endpoints, buyers, units }: Args) -> anyhow::Result<Tally> {
    let client = Client::connect(endpoints).await?;
    // A product of its own for each run.
    let sku = Sku::new(format!("flash-{}", client.ledger_time().0))?;
    client.create_product(&sku, Policy::default()).await.into_result()?;
    client.receive(&sku, units, "the lot").await.into_result()?;

    let crowd: Vec<_> = (0..buyers)
        .map(|buyer| {
            let (client, sku) = (client.clone(), sku.clone());
            tokio::spawn(async move {
                let id = client.mint_for(&sku);
                client.reserve(id, format!("buyer-{buyer}")).line(&sku, 1).deadline(Duration::from_secs(10)).await
            })
        })
        .collect();

    let mut tally = Tally::default();
    for buyer in crowd {
        match buyer.await? {
            Outcome::Ok(_) => tally.held += 1,
            outcome if matches!(outcome.refusal(), Some(Refusal::SoldOut { .. })) => tally.sold_out += 1,
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::NotNow(_) => tally.not_now += 1,
            Outcome::Unknown(_) => tally.unknown += 1,
        }
    }
    println!("stock: {:?}", client.stock(&sku).await.into_result()?.map(|offer| offer.balance));
    client.close().await;
    anyhow::ensure!(tally.held <= units, "{} held of {units}", tally.held);
    Ok(tally)
}
