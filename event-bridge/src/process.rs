//! The bridge as a process: what it connects, signals, how it ends.
//!
//! **Owns** the order of the start: directory, cluster, cursor, feed, broker. **Must never** begin anywhere but at the stored cursor when
//! there is one. **Read next**: [`crate::bridge`].

use std::sync::Arc;

use anyhow::Context as _;
use client_sdk::{Client, ConnectError, Cursor, LedgerTime, Watch};
use futures::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::amqp::Amqp;
use crate::bridge::{Bridge, Ended};
use crate::config::{Begin, Config};
use crate::cursor::{CursorDir, CursorFile, CursorStore as _, Stamp, hex};
use crate::event::Renderer;
use crate::limits;
use crate::telling::{Telling, listen};
use crate::window::Checkpoint;

/// Runs until SIGTERM or SIGINT, or until it cannot go on. `seed` seeds the jitter of pauses.
///
/// # Errors
/// It could not start, or ended by itself; says why and what to do.
pub async fn run(config: Config, seed: u64) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    let (tx, rx) = watch::channel(false);
    let signals = async {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("asked to stop");
        tx.send_replace(true);
        std::future::pending().await
    };
    tokio::select! {
        ended = until_stopped(config, seed, rx) => ended,
        never = signals => never,
    }
}

/// Runs until `stop` turns true, or until it cannot go on.
///
/// # Errors
/// As [`run`].
pub async fn until_stopped(config: Config, seed: u64, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let dir = CursorDir::open(&config.data_dir)?;
    let uri = config.broker_uri().context("the password file is not used")?;
    let telling = Arc::new(Telling::default());
    let (address, serving) = listen(&config.http_listen, telling.clone())
        .await
        .with_context(|| format!("cannot listen on http.listen = {}", config.http_listen))?;
    tracing::info!(http = %address, exchange = config.exchange, "started");
    let working = async {
        let client = tokio::select! {
            client = connect(&config.endpoints) => client?,
            _ = stopped(stop.clone()) => return Ok(()),
        };
        let cluster = hex(&client.routing().cluster);
        let (store, checkpoint) = dir.read(Stamp { cluster: cluster.clone(), exchange: config.exchange.clone() })?;
        let begins = match (&checkpoint, config.from) {
            (Some(_), _) => "at the stored cursor",
            (None, Begin::Oldest) => "at the oldest change",
            (None, Begin::Now) => "now, and that cursor is stored",
        };
        let (feed, checkpoint) = match (checkpoint, config.from) {
            (Some(checkpoint), _) => (client.watch(checkpoint.cursor.clone()), checkpoint),
            (None, Begin::Oldest) => (client.watch(Cursor::oldest()), Checkpoint::default()),
            (None, Begin::Now) => {
                let begun = tokio::select! {
                    begun = begin_now(&client, &store) => begun,
                    _ = stopped(stop.clone()) => return Ok(()),
                };
                begun.context("the bridge cannot begin now")?
            }
        };
        tracing::info!(cluster, begins, "following the feed");
        let source = config.source.clone().unwrap_or_else(|| format!("/holdfast/{cluster}"));
        let bridge = Bridge {
            feed: feed.boxed(),
            renderer: Renderer { source, filter: config.filter.clone() },
            counted: checkpoint.counted,
            broker: Arc::new(Amqp { uri, exchange: config.exchange.clone(), declare: config.declare }),
            store: Arc::new(store),
            telling: telling.clone(),
            unconfirmed: config.unconfirmed,
            unconfirmed_per_slot: config.unconfirmed_per_product,
            shutdown_within: config.shutdown_within,
            seed,
        };
        let ended = tokio::select! {
            ended = bridge.run(stop.clone()) => ended,
            never = keep_time(&client, &telling) => never,
        };
        client.close().await;
        ended.map_err(anyhow::Error::new)
    };
    tokio::select! {
        ended = working => ended,
        () = serving => anyhow::bail!("http.listen is served no more"),
    }
}

/// Begins a watch, and stores where, before anything is published: a run that dies before its first
/// confirm is followed by one that goes on there, not at a later now.
async fn begin_now(client: &Client, store: &CursorFile) -> anyhow::Result<(Watch, Checkpoint)> {
    let watch = client.watch_from_now().await?;
    let checkpoint = Checkpoint { cursor: watch.begins().clone(), ..Checkpoint::default() };
    store.put(checkpoint.clone()).await.context("the cursor cannot be stored")?;
    Ok((watch, checkpoint))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// Connects to the cluster, however long it takes; only an address that is none ends it.
async fn connect(endpoints: &[String]) -> Result<Client, ConnectError> {
    loop {
        let builder = Client::builder()
            .endpoints(endpoints)
            .user_agent(concat!("holdfast-event-bridge/", env!("CARGO_PKG_VERSION")));
        match builder.connect().await {
            Err(why @ ConnectError::Unreachable { .. }) => tracing::warn!(%why, "trying again"),
            other => return other,
        }
        tokio::time::sleep(limits::BACKOFF_MIN).await;
    }
}

/// Hears the cluster's ledger time also while the feed waits for the broker, so that lag is told.
async fn keep_time(client: &Client, telling: &Telling) -> Result<(), Ended> {
    loop {
        telling.ledger_time(LedgerTime(client.routing().time_ms));
        tokio::time::sleep(limits::CLOCK_LOOK).await;
    }
}
