//! Tells the merchant what happened: signed, with retries, and late, twice, in the wrong order or never where that was ordered.
//!
//! **Owns** the letters on their way. An event that was not settled when the process ended is delivered again by the next one, so
//! delivery is at least once. **Must never** send what is not on disk. **Read next**: [`lane`], [`signature`].

mod lane;
pub(crate) mod signature;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::book::shelf::Ticket;
use crate::config::WebhookTo;
use crate::ids::EventId;
use crate::limits::{WEBHOOK_LANES, WEBHOOKS_WAITING_MAX};
use crate::sim::Sim;

/// One event for the merchant.
pub(crate) struct Letter {
    pub(crate) event: EventId,
    /// Letters with one number keep their order.
    pub(crate) lane: usize,
    pub(crate) payload: Bytes,
}

/// The letters on their way.
pub(crate) struct Webhooks {
    to: WebhookTo,
    /// Host and port.
    authority: String,
    /// Path and query.
    path: String,
    lanes: Vec<mpsc::UnboundedSender<Item>>,
    /// What bounds the lanes: see [`WEBHOOKS_WAITING_MAX`].
    waiting: AtomicUsize,
}

/// A letter, and when.
struct Item {
    event: EventId,
    lane: usize,
    payload: Bytes,
    ticket: Ticket,
    attempt: u32,
    after: Duration,
    /// The second of a double: nobody counts or repeats it.
    copy: bool,
}

/// Where the lanes take their letters from.
pub(crate) struct Receiving(Vec<mpsc::UnboundedReceiver<Item>>);

/// The address cannot be delivered to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an address that webhooks can be sent to; it has to look like http://host:port/path")]
pub struct BadAddress(String);

impl Webhooks {
    /// Lanes to `to`.
    pub(crate) fn new(to: WebhookTo) -> Result<(Arc<Self>, Receiving), BadAddress> {
        let bad = || BadAddress(to.url.clone());
        let uri: Uri = to.url.parse().map_err(|_| bad())?;
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(bad()) };
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let (lanes, receiving) = (0..WEBHOOK_LANES).map(|_| mpsc::unbounded_channel()).unzip();
        let waiting = AtomicUsize::new(0);
        Ok((Arc::new(Self { to, authority, path, lanes, waiting }), Receiving(receiving)))
    }

    /// Takes a letter, for in `ms`, and a copy of it for in `again_ms`. `false`: too many wait already.
    pub(crate) fn post(&self, letter: Letter, ticket: Ticket, ms: u64, again_ms: Option<u64>) -> bool {
        let Letter { event, lane, payload } = letter;
        let after = Duration::from_millis(ms);
        let item = Item { event, lane, payload, ticket, attempt: 1, after, copy: false };
        let copy = again_ms.map(|ms| Item {
            payload: item.payload.clone(),
            ticket: item.ticket.clone(),
            after: Duration::from_millis(ms),
            copy: true,
            ..item
        });
        let taken = self.push(item);
        if let Some(copy) = copy {
            // A double that finds no room is no double.
            let _room = self.push(copy);
        }
        taken
    }

    /// How many letters are on their way.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn push(&self, item: Item) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WEBHOOKS_WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.send(item);
        true
    }

    /// A letter that is counted already.
    fn send(&self, item: Item) {
        // A lane that has ended was stopped with everything else.
        let _stopped = self.lanes[item.lane % WEBHOOK_LANES].send(item);
    }

    fn done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the lanes; they end when the simulator stops.
pub(crate) fn start(sim: &Arc<Sim>, webhooks: &Arc<Webhooks>, receiving: Receiving, tasks: &TaskTracker) {
    for letters in receiving.0 {
        tasks.spawn(lane::run(sim.clone(), webhooks.clone(), letters));
    }
}
