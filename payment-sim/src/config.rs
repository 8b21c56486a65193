//! What a simulator is started with.
//!
//! **Owns** the settings of one start. **Must never** hold what may change while it runs: that is [`Behaviour`]. **Read next**:
//! [`crate::serve()`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::behaviour::Behaviour;
use crate::clock::{Clock, SystemClock};
use crate::limits;

/// The settings of one start.
#[derive(Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the book is kept; made when it does not exist.
    pub data_dir: PathBuf,
    /// The one key accepted. Without it any key that begins with `sk_test_` is.
    pub api_key: Option<String>,
    /// After this long an idempotency key is forgotten.
    pub forget_keys_after: Duration,
    /// Answers before the book is synced: a killed process loses nothing, a power cut may.
    pub no_sync: bool,
    /// Decides all chance; also the salt of the ids of a new book. Without it they come from the clock.
    pub seed: Option<u64>,
    /// How to behave at first.
    pub behaviour: Behaviour,
    /// Where events are delivered to.
    pub webhook: Option<WebhookTo>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// Where events are delivered to.
#[derive(Clone)]
pub struct WebhookTo {
    /// An `http://` address.
    pub url: String,
    /// What deliveries are signed with (`whsec_...`).
    pub secret: String,
    /// Attempts at one delivery, at least 1.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles after each.
    pub retry: Duration,
}

impl WebhookTo {
    /// Deliveries to `url`, signed with `secret`, with the usual retries.
    pub fn new(url: impl Into<String>, secret: impl Into<String>) -> Self {
        let (url, secret) = (url.into(), secret.into());
        Self { url, secret, attempts: limits::WEBHOOK_ATTEMPTS, retry: limits::WEBHOOK_RETRY }
    }
}

impl Config {
    /// A well-behaved simulator on a free port of the loopback, with its book in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            api_key: None,
            forget_keys_after: limits::FORGET_KEYS_AFTER,
            no_sync: false,
            seed: None,
            behaviour: Behaviour::default(),
            webhook: None,
            clock: Arc::new(SystemClock),
        }
    }
}
