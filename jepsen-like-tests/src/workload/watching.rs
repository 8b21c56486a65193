//! Feed consumers that reconnect anywhere, with the newest cursor or an old one.
//!
//! **Owns** the consumers' own count of what they were told. **Must never** repair what they see. **Read next**: [`crate::checkers::feed`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client_sdk::Happened;
use ledger_proto::{feed, v1};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::{Failure, Journal, Load, Site, now_ms};
use crate::history::{Change, Watched};

/// A cursor, and how many changes of each shard were told before it.
type Kept = (Bytes, BTreeMap<u32, u64>);

/// After this a node has dropped the history that it has no room for.
const RETAINED: Duration = Duration::from_secs(12);

/// The newest cursors, of which a consumer of a long run mostly takes one.
const RECENT: usize = 40;

/// How a watch begins.
#[derive(Clone)]
pub(crate) enum Begin {
    /// At the oldest change kept.
    Oldest,
    /// Behind what the node has applied.
    Now,
    /// Behind a cursor.
    Cursor(Kept),
}

/// Follows the feed until the load is done: from any node to any other, sometimes going back to an old cursor.
pub(super) async fn follow(
    site: &Site,
    seed: u64,
    load: Load,
    consumer: u32,
    journal: &Journal,
    done: watch::Receiver<bool>,
) {
    let mut rng = SmallRng::seed_from_u64(seed ^ (u64::from(consumer) << 32));
    let mut kept: Vec<Kept> = Vec::new();
    while !*done.borrow() {
        let begin = match kept.len() {
            0 if rng.random_bool(0.8) => Begin::Oldest,
            0 => Begin::Now,
            n if rng.random_bool(0.5) => Begin::Cursor(kept[n - 1].clone()),
            // A long run's whole history, again and again, is more than anybody could judge.
            n if n > RECENT && load.delivery_every_ms > 0 && rng.random_bool(0.95) => {
                Begin::Cursor(kept[rng.random_range(n - RECENT..n)].clone())
            }
            n => Begin::Cursor(kept[rng.random_range(0..n)].clone()),
        };
        let node = site.node(rng.random_range(0..1_000));
        let mut done = done.clone();
        let patience = Duration::from_millis(rng.random_range(20..3_000));
        let enough = async {
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                _ = done.wait_for(|done| *done) => {}
            }
        };
        let watched = one_watch(site, consumer, node, begin.clone(), enough, &mut kept).await;
        journal.lock().expect("never poisoned").watched.push(watched);
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..200))).await;
    }
    if let Some(oldest) = kept.first().cloned().filter(|_| load.history_bytes_max > 0) {
        // Where little history is kept, the oldest cursor is too old after a while, and must be told so.
        tokio::time::sleep(RETAINED).await;
        let node = site.node(rng.random_range(0..1_000));
        let enough = tokio::time::sleep(Duration::from_secs(2));
        let watched = one_watch(site, consumer, node, Begin::Cursor(oldest), enough, &mut kept).await;
        journal.lock().expect("never poisoned").watched.push(watched);
    }
}

/// One connection: everything told until `enough` ends, the node has no more for a while, or it breaks.
pub(crate) async fn one_watch(
    site: &Site,
    consumer: u32,
    node: u64,
    begin: Begin,
    enough: impl Future<Output = ()>,
    kept: &mut Vec<Kept>,
) -> Watched {
    let (began, cursor, mut counts) = match begin {
        Begin::Oldest => ("oldest", Bytes::new(), Some(BTreeMap::new())),
        Begin::Now => ("now", Bytes::new(), None),
        Begin::Cursor((cursor, counts)) => ("cursor", cursor, Some(counts)),
    };
    let mut watched = Watched {
        consumer,
        node,
        began: began.to_owned(),
        behind: counts.iter().flatten().map(|(&shard, &n)| (shard, n)).collect(),
        from_ms: now_ms(),
        to_ms: 0,
        changes: Vec::new(),
        ended: String::new(),
    };
    let request = v1::WatchRequest { cursor, from_now: began == "now", skus: Vec::new() };
    let reading = read(site, node, request, &mut watched.changes, |told, cursor| {
        let Some(counts) = &mut counts else { return };
        for change in told {
            *counts.entry(change.at.shard).or_default() += 1;
        }
        kept.push((cursor, counts.clone()));
    });
    let ended = tokio::select! {
        ended = reading => match ended {
            Ok(()) => "caught up".to_owned(),
            Err(error) => match error.downcast_ref::<tonic::Status>() {
                Some(status) if status.code() == tonic::Code::OutOfRange => "cut off".to_owned(),
                _ => format!("broken: {error}"),
            },
        },
        () = enough => "stopped".to_owned(),
    };
    watched.to_ms = now_ms();
    if ended == "cut off" {
        kept.clear();
    }
    watched.ended = ended;
    watched
}

/// Reads frames until one without changes says that there are no more now, and how late it is.
async fn read(
    site: &Site,
    node: u64,
    request: v1::WatchRequest,
    changes: &mut Vec<Change>,
    mut told: impl FnMut(&[Change], Bytes),
) -> Result<(), Failure> {
    let idle_ends = !request.from_now;
    let mut frames = site.ledger(node).await?.watch(request).await?.into_inner();
    while let Some(frame) = frames.message().await? {
        // The first frame has no changes either: it is where the watch begins, and has no times.
        if frame.changes.is_empty() && !frame.shard_time_ms.is_empty() && idle_ends {
            return Ok(());
        }
        let before = changes.len();
        for change in frame.changes {
            let (position, time, change) = feed::change_from_wire(change)?;
            changes.push(Change::from(&Happened { position, time, change }));
        }
        told(&changes[before..], frame.cursor);
    }
    Err("the stream ended".into())
}
