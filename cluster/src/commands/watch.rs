//! `ledgerctl watch`: the feed, a line a change.
//!
//! **Owns** the line of a change; its words are the SDK's document. **Must never** skip one. **Read next**: [`crate::books`].

use client_sdk::document::ChangeDocument;
use client_sdk::{Cursor, Sku};

use super::Desk;
use crate::books::sku_of;
use crate::cli::WatchArgs;
use crate::output::{Failure, Outcome, instant};

pub(super) async fn run(desk: &Desk, args: WatchArgs) -> Outcome {
    let skus = args
        .skus
        .iter()
        .map(|s| Sku::new(s).map_err(|e| Failure::usage(e.to_string())))
        .collect::<Outcome<Vec<_>>>()?;
    let client = desk.client().await?;
    let wanted = |sku: Option<&Sku>| skus.is_empty() || sku.is_none_or(|sku| skus.contains(sku));
    let mut watch = match (args.from_now, skus.is_empty()) {
        (true, _) => client.watch_from_now().await.map_err(|e| Failure::refused(e.to_string()))?,
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
            desk.printer.record(&ChangeDocument::from(happened), to_line)?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn to_line(change: &ChangeDocument) -> String {
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
