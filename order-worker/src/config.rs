//! The worker's configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table (`keys`) names every key; the rest is [`settings`]. Secrets are never values here, only names of files
//! that hold them.
//!
//! **Owns** keys and what they must be to each other. **Must never** hold a secret. **Read next**: [`crate::process`].

use std::path::PathBuf;
use std::time::Duration;

use settings::{ConfigError, Key, Logs, Settings};

use crate::engine::EngineNumbers;
use crate::notify::smtp::TlsMode;
use crate::payment::Mode;

mod keys;

/// The effective configuration of one worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `host:port` of nodes' client ports.
    pub nodes: Vec<String>,
    /// What leases and explanations call this worker; none: its host and process.
    pub name: Option<String>,
    /// File of private keys that open sealed boxes.
    pub keys_file: Option<PathBuf>,
    /// `host:port` for webhooks, health and metrics.
    pub http_listen: String,
    /// Where health and metrics are served.
    pub metrics_listen: String,
    /// The engine's numbers.
    pub engine: EngineNumbers,
    /// Base address of the payment provider.
    pub payment_url: String,
    /// File with the provider's secret key.
    pub payment_secret_key_file: Option<PathBuf>,
    /// File with the signing secrets of the provider's webhooks, one a line.
    pub payment_webhook_secrets_file: Option<PathBuf>,
    /// When money moves.
    pub payment_mode: Mode,
    /// Kinds of payment methods.
    pub payment_methods: Vec<String>,
    /// Where buyers come back to.
    pub payment_return_url: Option<String>,
    /// Mails are sent.
    pub smtp_on: bool,
    /// The relay's host.
    pub smtp_host: String,
    /// The relay's port.
    pub smtp_port: u16,
    /// How the connection to the relay is protected.
    pub smtp_tls: TlsMode,
    /// File of the only authorities that the relay's certificate may come from.
    pub smtp_ca_file: Option<PathBuf>,
    /// User at the relay.
    pub smtp_user: Option<String>,
    /// File with the password at the relay.
    pub smtp_password_file: Option<PathBuf>,
    /// Sender.
    pub smtp_from: String,
    /// Directory of texts.
    pub templates_dir: Option<PathBuf>,
    /// Webhooks are sent.
    pub webhook_on: bool,
    /// Where to, always.
    pub webhook_url: Option<String>,
    /// Whether contacts may name addresses of their own.
    pub webhook_from_contact: bool,
    /// File with the secret that signatures are made with.
    pub webhook_secret_file: Option<PathBuf>,
    /// `source` of the events.
    pub webhook_source: String,
    /// How long shutting down may take.
    pub shutdown_within: Duration,
    /// Log lines.
    pub logs: Logs,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:7101".to_owned()],
            name: None,
            keys_file: None,
            http_listen: "127.0.0.1:7110".to_owned(),
            metrics_listen: "127.0.0.1:7111".to_owned(),
            engine: EngineNumbers::default(),
            payment_url: "https://api.stripe.com".to_owned(),
            payment_secret_key_file: None,
            payment_webhook_secrets_file: None,
            payment_mode: Mode::Charge,
            payment_methods: vec!["card".to_owned()],
            payment_return_url: None,
            smtp_on: false,
            smtp_host: "127.0.0.1".to_owned(),
            smtp_port: 25,
            smtp_tls: TlsMode::StartTls,
            smtp_ca_file: None,
            smtp_user: None,
            smtp_password_file: None,
            smtp_from: "orders@localhost".to_owned(),
            templates_dir: None,
            webhook_on: false,
            webhook_url: None,
            webhook_from_contact: false,
            webhook_secret_file: None,
            webhook_source: "holdfast".to_owned(),
            shutdown_within: Duration::from_secs(10),
            logs: Logs::text("info"),
        }
    }
}

impl Settings for WorkerConfig {
    const PROGRAM: &'static str = "order-worker";
    const PRINTS: &'static str = "order-worker run --print-config";
    const VARIABLES: &'static str = "HOLDFAST_WORKER";
    const FILE_VARIABLE: &'static str = "HOLDFAST_WORKER_CONFIG";
    const HEADING: &'static str = "worker";
    const KEYS: &'static [Key<Self>] = keys::KEYS;

    fn validate(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let engine = &self.engine;
        if engine.lease < engine.call_timeout * 2 {
            return conflict(format!(
                "`lease` ({:?}) must be at least twice `call.timeout` ({:?}), or leases end while the provider is waited for",
                engine.lease, engine.call_timeout
            ));
        }
        if engine.attempt < engine.call_timeout {
            return conflict(format!(
                "`attempt` ({:?}) must not be below `call.timeout` ({:?}): an attempt to pay is at least one call",
                engine.attempt, engine.call_timeout
            ));
        }
        if engine.poll_max < engine.poll_min {
            return conflict(format!(
                "`poll.max` ({:?}) must not be below `poll.min` ({:?})",
                engine.poll_max, engine.poll_min
            ));
        }
        if self.webhook_on && self.webhook_secret_file.is_none() {
            return conflict("`webhook.on` needs `webhook.secret_file`: webhooks are signed".to_owned());
        }
        if self.webhook_on && self.webhook_url.is_none() && !self.webhook_from_contact {
            return conflict("`webhook.on` needs `webhook.url`, or `webhook.from_contact`".to_owned());
        }
        if self.smtp_user.is_some() != self.smtp_password_file.is_some() {
            return conflict("`smtp.user` and `smtp.password_file` are set together, or neither".to_owned());
        }
        if self.smtp_ca_file.is_some() && self.smtp_tls == TlsMode::None {
            return conflict(
                "`smtp.ca_file` needs `smtp.tls` (starttls or tls): without TLS nothing is checked".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Loaded = settings::Loaded<WorkerConfig>;

    fn with_file(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("worker.toml");
        std::fs::write(&path, text).expect("written");
        Loaded::from_sources(&BTreeMap::new(), [], Some(&path))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("worker.toml");
        std::fs::write(&path, "lease = \"40s\"\nattempt = \"8s\"\n[poll]\nmin = \"30ms\"\n").expect("written");
        let flags = BTreeMap::from([("attempt", "10s".to_owned())]);
        let environment = [("HOLDFAST_WORKER_LEASE", "50s"), ("HOLDFAST_ENDPOINTS", "of others")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = Loaded::from_sources(&flags, environment, Some(&path)).expect("a configuration");
        let engine = &loaded.config.engine;
        assert_eq!(engine.attempt, Duration::from_secs(10));
        assert_eq!(engine.lease, Duration::from_secs(50));
        assert_eq!(engine.poll_min, Duration::from_millis(30));
        assert_eq!(engine.call_timeout, Duration::from_secs(5));
        let printed = loaded.to_toml();
        assert!(printed.contains("lease = \"50s\" # environment HOLDFAST_WORKER_LEASE"), "{printed}");
    }

    #[test]
    fn unknown_keys_bad_values_and_conflicts_are_errors() {
        assert!(matches!(with_file("leese = \"1s\""), Err(ConfigError::UnknownKey { .. })));
        assert!(matches!(with_file("lease = \"soon\""), Err(ConfigError::BadValue { .. })));
        assert!(matches!(with_file("lease = \"1s\""), Err(ConfigError::Conflict(_))));
        assert!(matches!(with_file("[webhook]\non = true"), Err(ConfigError::Conflict(_))));
        assert!(matches!(with_file("[smtp]\ntls = \"none\"\nca_file = \"ca.pem\""), Err(ConfigError::Conflict(_))));
        assert!(matches!(with_file("lease ="), Err(ConfigError::NotToml { .. })));
    }

    #[test]
    fn what_is_printed_is_read_again_as_the_same() {
        let loaded =
            with_file("[payment]\nmode = \"authorise\"\nmethods = [\"card\", \"sepa_debit\"]\n").expect("fine");
        let again = with_file(&loaded.to_toml()).expect("its own text");
        for key in WorkerConfig::KEYS {
            assert_eq!((key.get)(&loaded.config), (key.get)(&again.config), "{}", key.name);
        }
        assert_eq!(again.config.payment_mode, Mode::AuthoriseThenCapture);
    }
}
