//! The worker's configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table ([`keys`]) names every key; flags, environment variables, the file and `--print-config` are made from it, so
//! that they cannot differ. Secrets are never values here, only names of files that hold them.
//!
//! **Owns** keys, origins, validation. **Must never** hold a secret. **Read next**: [`crate::process`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::EngineNumbers;
use crate::notify::smtp::TlsMode;
use crate::payment::Mode;

mod keys;

pub use keys::{KEYS, Key};

/// Where log lines go and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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
    /// Log lines for people or machines.
    pub log_format: LogFormat,
    /// Which log lines.
    pub log_filter: String,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:7101".to_owned()],
            name: None,
            keys_file: None,
            http_listen: "127.0.0.1:7110".to_owned(),
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
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A key in the file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What is wrong with the configuration; each names the key and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {why}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A key that does not exist.
    #[error("{}: unknown key `{key}`; `order-worker run --print-config` lists all keys", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that is not allowed.
    #[error("`{key}` ({origin}) is {got:?}: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Where it was set.
        origin: Origin,
        /// The value given.
        got: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective configuration.
    pub config: WorkerConfig,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Puts the sources together: `flags` (key → value, as given), `environment` by variable name, and the file.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub fn from_sources(
        flags: &BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut loaded = Self { config: WorkerConfig::default(), origins: BTreeMap::new() };
        let from_file = match file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        for key in KEYS {
            let variable = key.variable();
            if let Some(value) = flags.get(key.name) {
                loaded.set(key, value, Origin::Flag(key.flag()))?;
            } else if let Some(value) = environment(&variable) {
                loaded.set(key, &value, Origin::Environment(variable))?;
            } else if let (Some(value), Some(path)) = (from_file.get(key.name), file) {
                loaded.set(key, value, Origin::File(path.to_owned()))?;
            }
        }
        loaded.config.validate()?;
        Ok(loaded)
    }

    fn set(&mut self, key: &Key, value: &str, origin: Origin) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, value).map_err(|allowed| ConfigError::BadValue {
            key: key.name,
            origin: origin.clone(),
            got: value.to_owned(),
            allowed,
        })?;
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// The effective configuration as a TOML file, with what each key is for and where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# Effective configuration of order-worker: flags over environment over file over defaults.\n",
        );
        let mut section = "";
        for key in KEYS {
            let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if table != section {
                text.push_str(&format!("\n[{table}]\n"));
                section = table;
            }
            let origin = self.origins.get(key.name).unwrap_or(&Origin::Default);
            text.push_str(&format!("# {}\n", key.what));
            match (key.get)(&self.config) {
                Some(value) => text.push_str(&format!("{name} = {value} # {origin}\n")),
                None => text.push_str(&format!("# {name} is not set # {origin}\n")),
            }
        }
        text
    }
}

impl WorkerConfig {
    /// Checks values against each other.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming both keys.
    pub fn validate(&self) -> Result<(), ConfigError> {
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

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let not_toml = |why: String| ConfigError::NotToml { path: path.to_owned(), why };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| not_toml(e.to_string()))?;
    let mut flat = BTreeMap::new();
    flatten("", &table, &mut flat);
    match flat.keys().find(|key| !KEYS.iter().any(|known| known.name == *key)) {
        Some(key) => Err(ConfigError::UnknownKey { path: path.to_owned(), key: key.clone() }),
        None => Ok(flat),
    }
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            toml::Value::String(text) => drop(flat.insert(key, text.clone())),
            toml::Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                flat.insert(key, items.collect::<Vec<_>>().join(","));
            }
            other => drop(flat.insert(key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("worker.toml");
        std::fs::write(&path, text).expect("written");
        Loaded::from_sources(&BTreeMap::new(), |_| None, Some(&path))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("worker.toml");
        std::fs::write(&path, "lease = \"40s\"\nattempt = \"8s\"\n[poll]\nmin = \"30ms\"\n").expect("written");
        let flags = BTreeMap::from([("attempt", "10s".to_owned())]);
        let environment = |name: &str| (name == "HOLDFAST_WORKER_LEASE").then(|| "50s".to_owned());
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
        for key in KEYS {
            assert_eq!((key.get)(&loaded.config), (key.get)(&again.config), "{}", key.name);
        }
        assert_eq!(again.config.payment_mode, Mode::AuthoriseThenCapture);
    }
}
