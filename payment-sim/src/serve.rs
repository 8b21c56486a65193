//! Starts and stops a simulator.
//!
//! **Owns** the order of both. **Must never** serve before the book is read, or end before it is written. **Read next**:
//! [`crate::http`], [`crate::sim`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::BadBehaviour;
use crate::behaviour::dice::Dice;
use crate::book::journal::OpenError;
use crate::book::shelf::Shelf;
use crate::config::Config;
use crate::http;
use crate::limits::SHUTDOWN_WITHIN;
use crate::sim::Sim;
use crate::webhooks::{self, BadAddress, Webhooks};

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody can listen there.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The book cannot be opened.
    #[error("the book cannot be opened")]
    Book(#[from] OpenError),
    /// An event that is still to be delivered cannot be read back.
    #[error("the book in {data_dir} cannot be read back")]
    ReadBack {
        /// Where it is kept.
        data_dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The behaviour cannot be followed.
    #[error("the behaviour cannot be followed")]
    Behaviour(#[from] BadBehaviour),
    /// Webhooks cannot be sent there.
    #[error("webhooks cannot be sent")]
    Webhook(#[from] BadAddress),
}

/// A simulator that serves. Dropping it stops it without waiting.
pub struct Running {
    address: SocketAddr,
    sim: Arc<Sim>,
    connections: TaskTracker,
    broken: CancellationToken,
}

/// Starts a simulator on the current runtime.
///
/// # Errors
/// It could not start, and nothing is left running.
pub async fn serve(config: Config) -> Result<Running, StartError> {
    let now_ms = config.clock.now_ms();
    let seed = config.seed.unwrap_or(now_ms as u64 ^ u64::from(std::process::id()) << 40);
    let dice = Dice::new(config.behaviour, seed)?;
    let (webhooks, receiving) = config.webhook.map(Webhooks::new).transpose()?.unzip();
    let listening = TcpListener::bind(config.listen).await.and_then(|l| Ok((l.local_addr()?, l)));
    let (address, listener) = listening.map_err(|source| StartError::Listen { address: config.listen, source })?;
    let (data_dir, sync) = (config.data_dir.clone(), !config.no_sync);
    // Ids of two books are to differ, also when their seeds are alike in the lower half.
    let salt = (seed ^ seed >> 32) as u32;
    let opened = tokio::task::spawn_blocking(move || Shelf::open(&data_dir, salt, now_ms, sync)).await;
    let shelf = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let sim = Arc::new(Sim {
        shelf,
        dice,
        clock: config.clock,
        webhooks: webhooks.clone(),
        api_key: config.api_key,
        forget_keys_ms: i64::try_from(config.forget_keys_after.as_millis()).unwrap_or(i64::MAX),
        stop: CancellationToken::new(),
        start: (now_ms as u64 ^ seed) as u32,
        requests: AtomicU32::new(0),
    });
    let connections = TaskTracker::new();
    if let (Some(webhooks), Some(receiving)) = (&webhooks, receiving) {
        sim.post_unsettled().map_err(|source| StartError::ReadBack { data_dir: config.data_dir, source })?;
        webhooks::start(&sim, webhooks, receiving, &connections);
    }
    let app = http::router(sim.clone());
    connections.spawn(http::connection::serve(app, listener, sim.stop.clone(), connections.clone()));
    let broken = sim.shelf.broken();
    Ok(Running { address, sim, connections, broken })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns when the book can no longer be written and nothing is served any more.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Ends the calls under way, writes the book, and stops.
    pub async fn shutdown(self) {
        self.sim.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(SHUTDOWN_WITHIN, self.connections.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.sim.shelf.close().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sim.stop.cancel();
    }
}
