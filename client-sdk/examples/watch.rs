//! Follows every change. Broken connections and dead nodes are ridden out; the cursor says where to go on.
//!
//! `cargo run -p client-sdk --example watch -- --endpoints localhost:7101`

use clap::Parser;
use client_sdk::{Client, Cursor};

#[derive(Parser)]
struct Args {
    /// Addresses of some nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "localhost:7101")]
    endpoints: Vec<String>,
    /// From the oldest change that is kept instead of from now.
    #[arg(long)]
    from_oldest: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Client::connect(args.endpoints).await?;
    let mut watch = if args.from_oldest { client.watch(Cursor::oldest()) } else { client.watch_from_now() };
    while let Some(happenings) = watch.next().await {
        let happenings = happenings?;
        for happened in &happenings.changes {
            let at = happened.position;
            println!("{}/{}/{} {:>13} ms {:?}", at.shard, at.index, at.place, happened.time.0, happened.change.kind);
        }
        // A consumer that keeps what it makes of the changes stores `happenings.cursor` with it, in one transaction.
    }
    Ok(())
}
