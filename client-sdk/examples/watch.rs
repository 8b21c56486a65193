//! Follows every change. Broken connections and dead nodes are ridden out; the cursor says where to go on.
//!
//! `cargo run -p client-sdk --example watch -- --endpoints localhost:7101`

use clap::Parser;
use client_sdk::{Client, Cursor, Happened};

#[derive(Parser)]
pub(crate) struct Args {
    /// Addresses of some nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "localhost:7101")]
    endpoints: Vec<String>,
    /// From the oldest change that is kept instead of from now.
    #[arg(long)]
    from_oldest: bool,
    /// Stop after so many changes.
    #[arg(long)]
    max: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    run(Args::parse(), |happened| {
        let at = happened.position;
        println!("{}/{}/{} {:>13} ms {:?}", at.shard, at.index, at.place, happened.time.0, happened.change.kind);
    })
    .await
}

/// Tells every change, until there were as many as wanted.
pub(crate) async fn run(args: Args, mut tell: impl FnMut(&Happened)) -> anyhow::Result<()> {
    let client = Client::connect(args.endpoints).await?;
    let mut watch = if args.from_oldest { client.watch(Cursor::oldest()) } else { client.watch_from_now().await? };
    let mut left = args.max.unwrap_or(usize::MAX);
    while left > 0
        && let Some(happenings) = watch.next().await
    {
        let happenings = happenings?;
        for happened in happenings.changes.iter().take(left) {
            tell(happened);
        }
        left = left.saturating_sub(happenings.changes.len());
        // A consumer that keeps what it makes of the changes stores `happenings.cursor` with it, in one transaction.
    }
    Ok(())
}
