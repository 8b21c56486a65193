//! Configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table names every key; the rest is [`settings`].
//! **Owns** the keys. **Must never** print a password. **Read next**: [`crate::process`].

use std::path::PathBuf;
use std::time::Duration;

use client_sdk::Sku;
use lapin::uri::AMQPUri;
use settings::keys::{MS, listening, quoted, some_text};
use settings::private_files::{KeyFileError, read_key_file};
use settings::{
    Key, Logs, Settings, duration_key, file_key, key, log_filter_key, log_format_key, switch_key, text_key,
};

use crate::event::Filter;
use crate::{amqp, limits};

/// Where a bridge without a stored cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest change that the cluster keeps.
    Oldest,
    /// With what happens from now on.
    Now,
}

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Client ports of some nodes.
    pub endpoints: Vec<String>,
    /// Where the cursor is kept.
    pub data_dir: PathBuf,
    /// Where to begin without one.
    pub from: Begin,
    /// The events' source; none: `/holdfast/` and the cluster's id.
    pub source: Option<String>,
    /// The broker as it was given, without the password: for telling.
    pub broker: String,
    /// The broker.
    pub uri: AMQPUri,
    /// A file with its password.
    pub password_file: Option<PathBuf>,
    /// The topic exchange.
    pub exchange: String,
    /// Declare it.
    pub declare: bool,
    /// Most messages unconfirmed.
    pub unconfirmed: usize,
    /// ... of one slot.
    pub unconfirmed_per_product: usize,
    /// What is published.
    pub filter: Filter,
    /// Health and metrics.
    pub http_listen: String,
    /// How long to wait for confirms at the end.
    pub shutdown_within: Duration,
    /// Log lines.
    pub logs: Logs,
}

impl Default for Config {
    fn default() -> Self {
        let broker = "amqp://guest:guest@127.0.0.1:5672/%2f";
        Self {
            endpoints: vec!["127.0.0.1:7101".to_owned()],
            data_dir: "event-bridge-data".into(),
            from: Begin::Oldest,
            source: None,
            uri: amqp::uri(broker, HEARTBEAT).expect("a URI"),
            broker: without_password(broker),
            password_file: None,
            exchange: "holdfast".to_owned(),
            declare: true,
            unconfirmed: 512,
            unconfirmed_per_product: 1,
            filter: Filter::default(),
            http_listen: "127.0.0.1:7112".to_owned(),
            shutdown_within: Duration::from_secs(10),
            logs: Logs::text("info,lapin=error"),
        }
    }
}

impl Settings for Config {
    const PROGRAM: &'static str = "event-bridge";
    const PRINTS: &'static str = "event-bridge run --print-config";
    const VARIABLES: &'static str = "HOLDFAST_BRIDGE";
    const FILE_VARIABLE: &'static str = "HOLDFAST_BRIDGE_CONFIG";
    const HEADING: &'static str = "bridge";
    const KEYS: &'static [Key<Self>] = KEYS;
}

impl Config {
    /// The broker's URI with the password of the file, if one is named.
    ///
    /// # Errors
    /// The file cannot be read, or others could read it.
    pub fn broker_uri(&self) -> Result<AMQPUri, KeyFileError> {
        let mut uri = self.uri.clone();
        if let Some(path) = &self.password_file {
            uri.authority.userinfo.password = read_key_file(path)?.trim_end().to_owned();
        }
        Ok(uri)
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

const HEARTBEAT: Duration = Duration::from_secs(10);
const SHUTDOWN_MAX: Duration = Duration::from_secs(600);
/// AMQP's short strings.
const EXCHANGE_BYTES_MAX: usize = 127;

macro_rules! window_key {
    ($name:literal, $field:ident, $what:literal) => {
        settings::number_key!($name, $field: usize, 1, limits::UNCONFIRMED_MAX as u64, $what)
    };
}

/// All keys.
const KEYS: &[Key<Config>] = &[
    key!(
        "endpoints",
        "Client ports of some of the cluster's nodes, separated by commas; the others are learnt from them.",
        |c, v| {
            c.endpoints = items(v).map(str::to_owned).collect();
            if c.endpoints.is_empty() { Err("host:port, separated by commas".into()) } else { Ok(()) }
        },
        |c| quoted(&c.endpoints.join(","))
    ),
    key!(
        "data_dir",
        "Where the cursor is kept; each bridge has a directory of its own.",
        |c, v| some_text(v).map(|path| c.data_dir = path.into()),
        |c| quoted(&c.data_dir.to_string_lossy())
    ),
    key!(
        "from",
        "Where a bridge without a stored cursor begins: oldest (all that the cluster keeps) or now. With one, it goes on there.",
        |c, v| {
            c.from = match v {
                "oldest" => Begin::Oldest,
                "now" => Begin::Now,
                _ => return Err("oldest or now".into()),
            };
            Ok(())
        },
        |c| quoted(if c.from == Begin::Oldest { "oldest" } else { "now" })
    ),
    key!(
        "source",
        "The events' source, a URI reference; empty or not set: /holdfast/ and the cluster's id.",
        |c, v| {
            c.source = given(v).map(str::to_owned);
            if v.contains(char::is_whitespace) { Err("a URI reference, as /holdfast/shop".into()) } else { Ok(()) }
        },
        |c| c.source.as_deref().and_then(quoted)
    ),
    duration_key!(
        "shutdown_within",
        shutdown_within,
        MS,
        SHUTDOWN_MAX,
        "How long to wait for confirms when told to stop."
    ),
    Key {
        secret: true,
        ..key!(
            "broker.uri",
            "The broker: amqp://user:password@host:port/vhost. Better give the password in a file, or this in the environment.",
            |c, v| {
                c.uri = amqp::uri(v, HEARTBEAT)?;
                c.broker = without_password(v);
                Ok(())
            },
            |c| quoted(&c.broker)
        )
    },
    file_key!(
        "broker.password_file",
        password_file,
        "A file with the broker's password, instead of the one in the URI."
    ),
    text_key!(
        "broker.exchange",
        exchange,
        |name: &str| {
            let good = (1..=EXCHANGE_BYTES_MAX).contains(&name.len());
            if good { Ok(name.to_owned()) } else { Err(format!("a name of 1 to {EXCHANGE_BYTES_MAX} bytes")) }
        },
        "The topic exchange that events go to."
    ),
    switch_key!("broker.declare", declare, "Declare the exchange (topic, durable); false: it must be there."),
    window_key!("window.unconfirmed", unconfirmed, "Most messages sent and not confirmed."),
    window_key!(
        "window.unconfirmed_per_product",
        unconfirmed_per_product,
        "Most of them of one product (more exactly: of one slot). 1 keeps each product in order whatever the broker does. Above \
         1 a hot product is some ten times faster, and still in order when connections break or this process dies, but \
         no longer when the broker refuses a single message: what follows it is in the queue before the refusal is \
         heard. Choose it (512, say) only where no queue rejects what it has no room for (x-overflow = reject-publish), \
         or where consumers do not need order."
    ),
    key!(
        "filter.types",
        "Publish these changes only, by name, as SoldOut,OrderConfirmed; empty: all.",
        |c, v| {
            c.filter.types = items(v).map(|name| name.trim_start_matches("holdfast.").to_owned()).collect();
            Ok(())
        },
        |c| quoted(&c.filter.types.join(","))
    ),
    key!(
        "filter.skus",
        "Publish changes of these products only; empty: all.",
        |c, v| {
            let skus: Result<Vec<Sku>, _> = items(v).map(Sku::new).collect();
            skus.map(|skus| c.filter.skus = skus).map_err(|why| format!("SKUs separated by commas ({why})"))
        },
        |c| quoted(&c.filter.skus.iter().map(Sku::as_str).collect::<Vec<_>>().join(","))
    ),
    text_key!("http.listen", http_listen, listening, "Where /livez, /readyz and /metrics are served."),
    log_format_key!(),
    log_filter_key!("Which log lines, as info,event_bridge=debug."),
];

fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use settings::ConfigError;

    use super::*;

    type Loaded = settings::Loaded<Config>;

    fn load(
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
        file: Option<&Path>,
    ) -> Result<Loaded, ConfigError> {
        let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Loaded::from_sources(&flags, environment, file)
    }

    /// Both may run on one host with their defaults, where 7110 is the worker's.
    #[test]
    fn default_port_is_not_the_worker_s() {
        assert_eq!(Config::default().http_listen, "127.0.0.1:7112");
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults_and_what_is_printed_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bridge.toml");
        let text = "endpoints = [\"a:1\", \"b:2\"]\n[broker]\nexchange = \"file\"\ndeclare = false\n[window]\nunconfirmed = 7\n";
        std::fs::write(&path, text).expect("written");
        let flags = [("broker.exchange", "flag")];
        let environment =
            [("HOLDFAST_BRIDGE_BROKER_EXCHANGE", "variable"), ("HOLDFAST_BRIDGE_WINDOW_UNCONFIRMED", "8")];
        let loaded = load(&flags, &environment, Some(&path)).expect("good");
        let Config { endpoints, exchange, declare, unconfirmed, unconfirmed_per_product, .. } = &loaded.config;
        assert_eq!(endpoints, &["a:1", "b:2"]);
        assert_eq!((exchange.as_str(), *declare, *unconfirmed, *unconfirmed_per_product), ("flag", false, 8, 1));
        let printed = loaded.to_toml();
        assert!(printed.contains("exchange = \"flag\" # flag --broker-exchange"), "{printed}");
        std::fs::write(&path, &printed).expect("written");
        let again = load(&[], &[], Some(&path)).expect("what was printed is good");
        assert_eq!(
            (&again.config.endpoints, &again.config.exchange, again.config.unconfirmed),
            (endpoints, exchange, 8)
        );
    }

    #[test]
    fn passwords_are_not_printed() {
        let uri = "amqp://me:s3cret@broker:5672/shop";
        let printed = load(&[("broker.uri", uri)], &[], None).expect("good").to_toml();
        assert!(printed.contains("amqp://me:***@broker:5672/shop") && !printed.contains("s3cret"), "{printed}");
        let bad = load(&[("broker.uri", "http://me:s3cret@broker")], &[], None).expect_err("no broker").to_string();
        assert!(!bad.contains("s3cret"), "{bad}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_is_allowed() {
        let bad = [
            ("endpoints", " , "),
            ("from", "yesterday"),
            ("source", "a b"),
            ("broker.uri", "amqps://broker"),
            ("broker.exchange", ""),
            ("broker.declare", "yes"),
            ("window.unconfirmed", "0"),
            ("window.unconfirmed_per_product", "100000"),
            ("filter.skus", "a b"),
            ("http.listen", "nowhere"),
            ("shutdown_within", "1 day"),
            ("log.format", "xml"),
        ];
        for (key, value) in bad {
            let error = load(&[(key, value)], &[], None).expect_err(key).to_string();
            assert!(error.starts_with(&format!("`{key}` (flag --")), "{error}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bridge.toml");
        std::fs::write(&path, "[broker]\nexchnge = \"x\"\n").expect("written");
        let unknown = load(&[], &[], Some(&path)).expect_err("unknown").to_string();
        assert!(unknown.contains("broker.exchnge"), "{unknown}");
    }
}
