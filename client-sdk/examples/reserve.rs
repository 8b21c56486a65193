//! One unit from availability to sold, and what to do with each outcome.
//!
//! `cargo run -p client-sdk --example reserve -- --endpoints localhost:7101,localhost:7102,localhost:7103`

use std::time::Duration;

use clap::Parser;
use client_sdk::{Balance, Client, Outcome, Policy, Sku};

#[derive(Parser)]
pub(crate) struct Args {
    /// Addresses of some nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "localhost:7101")]
    endpoints: Vec<String>,
    /// The product.
    #[arg(long, default_value = "example-shoe")]
    sku: Sku,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let stock = run(Args::parse()).await?;
    println!("stock: {stock:?}");
    Ok(())
}

/// Sells one unit; answers what is in stock then.
pub(crate) async fn run(Args { endpoints, sku }: Args) -> anyhow::Result<Option<Balance>> {
    let client = Client::connect(endpoints).await?;

    // Both are safe to repeat: the same content again changes nothing.
    client.create_product(&sku, Policy::default()).await.into_result()?;
    client.receive(&sku, 10, "delivery-1").await.into_result()?;

    let id = client.mint_for(&sku);
    println!("reservation {id} (store it before asking)");
    let outcome = client
        .reserve(id, "anna")
        .line(&sku, 1)
        .hold_for(Duration::from_secs(600))
        .deadline(Duration::from_secs(2))
        .await;
    match outcome {
        Outcome::Ok(answered) => println!("held until {} ms ledger time", answered.value.deadline.0),
        Outcome::Refused(refused) => anyhow::bail!("{refused}"),
        Outcome::NotNow(not_now) => anyhow::bail!("{not_now}"),
        // A definite answer can be had: what became of the id, or that it never executes.
        Outcome::Unknown(_) => println!("resolved: {:?}", client.resolve(id).await.into_result()?),
    }

    let sold = client.confirm(id).await.into_result()?;
    println!("{:?}, replayed: {}", sold.status, sold.replayed);
    let stock = client.stock(&sku).await.into_result()?;
    client.close().await;
    Ok(stock.map(|offer| offer.balance))
}
