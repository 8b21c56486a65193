//! What is told of the bridge: counts, lag, health.
//!
//! **Owns** the metrics' names, and what *ready* means: the broker is connected, and the feed was heard of lately or waits for the broker.
//! **Must never** call the bridge dead because the broker or the cluster is: a restart would not help. **Read next**: [`crate::bridge`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use client_sdk::LedgerTime;
use metrics::{Counter, Gauge, Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use service::{ConnectionBounds, PortGate, serve_http};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::limits::METRICS_CONNECTIONS_MAX;

/// A feed that was silent for so long is not ready: idle nodes speak every second.
const FEED_SILENT_MAX: Duration = Duration::from_secs(10);

/// What is counted.
pub struct Telling {
    page: PrometheusHandle,
    published: Counter,
    resent: Counter,
    confirmed: Counter,
    refused: Counter,
    disconnected: Counter,
    stored: Counter,
    changes: Counter,
    waiting: Gauge,
    unconfirmed: Gauge,
    broker_up: Gauge,
    lag_ms: Gauge,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    broker: bool,
    waiting: usize,
    oldest: Option<LedgerTime>,
    /// Up to here all is confirmed.
    through: Option<LedgerTime>,
    /// The newest ledger time heard, and when.
    clock: Option<(LedgerTime, Instant)>,
    feed_heard: Option<Instant>,
    /// The last frame said that there is nothing more yet.
    at_end: bool,
    counts: Counts,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to the broker.
    pub published: u64,
    /// Of those, sent before.
    pub resent: u64,
    /// Messages that the broker answers for.
    pub confirmed: u64,
    /// Messages that it did not take.
    pub refused: u64,
    /// Cursors stored.
    pub stored: u64,
}

impl Default for Telling {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let counter = |name: &'static str| recorder.register_counter(&Key::from_name(name), &metadata);
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), &metadata);
        Self {
            page: recorder.handle(),
            published: counter("holdfast_bridge_published_total"),
            resent: counter("holdfast_bridge_resent_total"),
            confirmed: counter("holdfast_bridge_confirmed_total"),
            refused: counter("holdfast_bridge_refused_total"),
            disconnected: counter("holdfast_bridge_disconnects_total"),
            stored: counter("holdfast_bridge_cursors_stored_total"),
            changes: counter("holdfast_bridge_changes_total"),
            waiting: gauge("holdfast_bridge_waiting"),
            unconfirmed: gauge("holdfast_bridge_unconfirmed"),
            broker_up: gauge("holdfast_bridge_broker_up"),
            lag_ms: gauge("holdfast_bridge_lag_milliseconds"),
            now: Mutex::default(),
        }
    }
}

impl Telling {
    fn now<T>(&self, tell: impl FnOnce(&mut Now) -> T) -> T {
        tell(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Messages were handed over, some of them not for the first time.
    pub fn sent(&self, all: usize, again: usize) {
        self.published.increment(all as u64);
        self.resent.increment(again as u64);
        self.now(|now| {
            now.counts.published += all as u64;
            now.counts.resent += again as u64;
        });
    }
    /// The broker answers for a message.
    pub fn confirmed(&self) {
        self.confirmed.increment(1);
        self.now(|now| now.counts.confirmed += 1);
    }
    /// The broker did not take a message.
    pub fn refused(&self) {
        self.refused.increment(1);
        self.now(|now| now.counts.refused += 1);
    }
    /// The connection stands, or is gone.
    pub fn connected(&self, up: bool) {
        if self.now(|now| std::mem::replace(&mut now.broker, up)) && !up {
            self.disconnected.increment(1);
        }
        self.broker_up.set(if up { 1.0 } else { 0.0 });
    }
    /// The cursor is on disk.
    pub fn stored(&self) {
        self.stored.increment(1);
        self.now(|now| now.counts.stored += 1);
    }
    /// A frame came.
    pub fn heard(&self, changes: usize, through: LedgerTime) {
        self.changes.increment(changes as u64);
        self.now(|now| (now.feed_heard, now.at_end) = (Some(Instant::now()), changes == 0));
        self.ledger_time(through);
    }
    /// A ledger time was heard; lag is told by the newest one, advanced by the monotonic clock.
    pub fn ledger_time(&self, time: LedgerTime) {
        self.now(|now| {
            if time > now.ledger_time().unwrap_or(LedgerTime(0)) {
                now.clock = Some((time, Instant::now()));
            }
        });
    }
    /// Everything up to a time is confirmed.
    pub fn settled(&self, through: LedgerTime) {
        self.now(|now| now.through = now.through.max(Some(through)));
    }
    /// What waits.
    pub fn waiting(&self, waiting: usize, unconfirmed: usize, oldest: Option<LedgerTime>) {
        self.waiting.set(waiting as f64);
        self.unconfirmed.set(unconfirmed as f64);
        self.now(|now| (now.waiting, now.oldest) = (waiting, oldest));
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        self.now(|now| now.counts)
    }
    /// How far what is confirmed lies behind ledger time; none before the feed was heard.
    pub fn lag(&self) -> Option<Duration> {
        self.now(|now| {
            if now.at_end && now.oldest.is_none() {
                // Ledger time stands still where nothing happens: behind by what the feed did not say since.
                return now.feed_heard.map(|heard| heard.elapsed());
            }
            let confirmed = now.oldest.or(now.through)?;
            Some(Duration::from_millis(now.ledger_time()?.0.saturating_sub(confirmed.0)))
        })
    }
    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        if let Some(lag) = self.lag() {
            self.lag_ms.set(lag.as_millis() as f64);
        }
        self.page.render()
    }

    /// Why the bridge is not ready.
    fn not_ready(&self) -> Vec<&'static str> {
        self.now(|now| {
            let feed = now.waiting > 0 || now.feed_heard.is_some_and(|heard| heard.elapsed() < FEED_SILENT_MAX);
            let checks = [(now.broker, "the broker is not connected"), (feed, "the feed is silent")];
            checks.into_iter().filter(|(ok, _)| !ok).map(|(_, why)| why).collect()
        })
    }
}

impl Now {
    fn ledger_time(&self) -> Option<LedgerTime> {
        self.clock.map(|(time, at)| time.plus(at.elapsed().as_millis() as u64))
    }
}

/// Listens for `/livez`, `/readyz` and `/metrics`; the address, and what serves it until it is
/// dropped. Connections that do nothing cannot take the descriptors of cluster and broker.
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(
    address: &str,
    telling: Arc<Telling>,
) -> std::io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(page))
        .with_state(telling);
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    // Who may ask is the listening address's to say.
    let gate = PortGate::new("http", ConnectionBounds::of(METRICS_CONNECTIONS_MAX).with_probes(), |_| true);
    Ok((address, serve_http(routes, listener, gate, std::future::pending())))
}

async fn readyz(State(telling): State<Arc<Telling>>) -> impl IntoResponse {
    match telling.not_ready().as_slice() {
        [] => (StatusCode::OK, "ready\n".to_owned()),
        why => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", why.join(", "))),
    }
}

async fn page(State(telling): State<Arc<Telling>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telling.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lag_is_told_from_the_oldest_unconfirmed_event_and_goes_on_without_the_feed() {
        let telling = Telling::default();
        assert_eq!(telling.lag(), None);
        telling.heard(1, LedgerTime(10_000));
        telling.waiting(1, 1, Some(LedgerTime(9_000)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(telling.lag(), Some(Duration::from_secs(3)));
        telling.settled(LedgerTime(10_000));
        telling.waiting(0, 0, None);
        assert_eq!(telling.lag(), Some(Duration::from_secs(2)));
        assert!(telling.render().contains("holdfast_bridge_lag_milliseconds 2000"), "{}", telling.render());
        // Nothing happens: the feed says so each second, and ledger time does not move.
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            telling.heard(0, LedgerTime(10_000));
        }
        assert_eq!(telling.lag(), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(telling.lag(), Some(Duration::from_secs(4)), "a silent feed");
    }

    #[tokio::test(start_paused = true)]
    async fn ready_means_connected_and_a_feed_that_speaks_or_waits_for_the_broker() {
        let telling = Telling::default();
        assert_eq!(telling.not_ready(), ["the broker is not connected", "the feed is silent"]);
        telling.connected(true);
        telling.heard(0, LedgerTime(1));
        assert!(telling.not_ready().is_empty());
        tokio::time::advance(FEED_SILENT_MAX).await;
        assert_eq!(telling.not_ready(), ["the feed is silent"]);
        telling.waiting(5, 0, Some(LedgerTime(1)));
        assert!(telling.not_ready().is_empty());
    }
}
