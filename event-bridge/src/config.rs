//! Configuration: flags over environment over file over defaults.
//!
//! **What it is.** One table ([`KEYS`]) names every key with its default; flags, variables, the file and `--print-config` are made of it.
//! **Owns** keys, origins, validation. **Must never** print a password. **Read next**: [`crate::process`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_sdk::Sku;
use lapin::uri::AMQPUri;

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
    /// JSON lines instead of text.
    pub log_json: bool,
    /// Which log lines.
    pub log_filter: String,
}

impl Config {
    fn blank() -> Self {
        Self {
            endpoints: Vec::new(),
            data_dir: PathBuf::new(),
            from: Begin::Oldest,
            source: None,
            uri: AMQPUri::default(),
            password_file: None,
            exchange: String::new(),
            declare: true,
            unconfirmed: 1,
            unconfirmed_per_product: 1,
            filter: Filter::default(),
            http_listen: String::new(),
            shutdown_within: Duration::ZERO,
            log_json: false,
            log_filter: String::new(),
        }
    }

    /// The broker's URI with the password of the file, if one is named.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn broker_uri(&self) -> std::io::Result<AMQPUri> {
        let mut uri = self.uri.clone();
        if let Some(path) = &self.password_file {
            uri.authority.userinfo.password = std::fs::read_to_string(path)?.trim_end().to_owned();
        }
        Ok(uri)
    }
}

/// One key.
pub struct Key {
    /// As in the file: `table.name`.
    pub name: &'static str,
    /// For `--help` and `--print-config`.
    pub what: &'static str,
    default: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Key {
    /// The environment variable: `HOLDFAST_BRIDGE_BROKER_URI`.
    pub fn variable(&self) -> String {
        format!("HOLDFAST_BRIDGE_{}", self.name.replace('.', "_").to_uppercase())
    }
    /// The flag without dashes: `broker-uri`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
fn number(text: &str, max: usize) -> Result<usize, String> {
    let number = text.replace('_', "").parse().ok().filter(|n| (1..=max).contains(n));
    number.ok_or_else(|| format!("a whole number from 1 to {max}"))
}
fn duration(text: &str, max: Duration) -> Result<Duration, String> {
    let value = humantime::parse_duration(text).ok().filter(|value| *value <= max);
    value.ok_or_else(|| format!("a duration up to {}, as 500ms or 10s", humantime::format_duration(max)))
}
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

const HEARTBEAT: Duration = Duration::from_secs(10);
const SHUTDOWN_MAX: Duration = Duration::from_secs(600);
/// AMQP's short strings.
const EXCHANGE_BYTES_MAX: usize = 127;

/// All keys.
pub const KEYS: &[Key] = &[
    Key {
        name: "endpoints",
        what: "Client ports of some of the cluster's nodes, separated by commas; the others are learnt from them.",
        default: "127.0.0.1:7101",
        set: |c, v| {
            c.endpoints = list(v).map(str::to_owned).collect();
            if c.endpoints.is_empty() { Err("host:port, separated by commas".into()) } else { Ok(()) }
        },
    },
    Key {
        name: "data_dir",
        what: "Where the cursor is kept; each bridge has a directory of its own.",
        default: "event-bridge-data",
        set: |c, v| given(v).map(|v| c.data_dir = v.into()).ok_or_else(|| "a directory".into()),
    },
    Key {
        name: "from",
        what: "Where a bridge without a stored cursor begins: oldest (all that the cluster keeps) or now. With one, it goes on there.",
        default: "oldest",
        set: |c, v| {
            c.from = match v {
                "oldest" => Begin::Oldest,
                "now" => Begin::Now,
                _ => return Err("oldest or now".into()),
            };
            Ok(())
        },
    },
    Key {
        name: "source",
        what: "The events' source, a URI reference; empty: /holdfast/ and the cluster's id.",
        default: "",
        set: |c, v| {
            c.source = given(v).map(str::to_owned);
            if v.contains(char::is_whitespace) { Err("a URI reference, as /holdfast/shop".into()) } else { Ok(()) }
        },
    },
    Key {
        name: "broker.uri",
        what: "The broker: amqp://user:password@host:port/vhost. Better give the password in a file, or this in the environment.",
        default: "amqp://guest:guest@127.0.0.1:5672/%2f",
        set: |c, v| amqp::uri(v, HEARTBEAT).map(|uri| c.uri = uri),
    },
    Key {
        name: "broker.password_file",
        what: "A file with the broker's password, instead of the one in the URI.",
        default: "",
        set: |c, v| {
            c.password_file = given(v).map(PathBuf::from);
            Ok(())
        },
    },
    Key {
        name: "broker.exchange",
        what: "The topic exchange that events go to.",
        default: "holdfast",
        set: |c, v| {
            c.exchange = v.to_owned();
            let good = (1..=EXCHANGE_BYTES_MAX).contains(&v.len());
            if good { Ok(()) } else { Err(format!("a name of 1 to {EXCHANGE_BYTES_MAX} bytes")) }
        },
    },
    Key {
        name: "broker.declare",
        what: "Declare the exchange (topic, durable); false: it must be there.",
        default: "true",
        set: |c, v| v.parse().map(|v| c.declare = v).map_err(|_| "true or false".into()),
    },
    Key {
        name: "window.unconfirmed",
        what: "Most messages sent and not confirmed.",
        default: "512",
        set: |c, v| number(v, limits::UNCONFIRMED_MAX).map(|n| c.unconfirmed = n),
    },
    Key {
        name: "window.unconfirmed_per_product",
        what: "Most of them of one product (more exactly: of one slot). 1 keeps each product in order whatever the broker does. Above \
               1 a hot product is some ten times faster, and still in order when connections break or this process dies, but \
               no longer when the broker refuses a single message: what follows it is in the queue before the refusal is \
               heard. Choose it (512, say) only where no queue rejects what it has no room for (x-overflow = reject-publish), \
               or where consumers do not need order.",
        default: "1",
        set: |c, v| number(v, limits::UNCONFIRMED_MAX).map(|n| c.unconfirmed_per_product = n),
    },
    Key {
        name: "filter.types",
        what: "Publish these changes only, by name, as SoldOut,OrderConfirmed; empty: all.",
        default: "",
        set: |c, v| {
            c.filter.types = list(v).map(|name| name.trim_start_matches("holdfast.").to_owned()).collect();
            Ok(())
        },
    },
    Key {
        name: "filter.skus",
        what: "Publish changes of these products only; empty: all.",
        default: "",
        set: |c, v| {
            let skus: Result<Vec<Sku>, _> = list(v).map(Sku::new).collect();
            skus.map(|skus| c.filter.skus = skus).map_err(|why| format!("SKUs separated by commas ({why})"))
        },
    },
    Key {
        name: "http.listen",
        what: "Where /livez, /readyz and /metrics are served.",
        default: "127.0.0.1:7110",
        set: |c, v| {
            c.http_listen = v.to_owned();
            let port = v.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            port.map(|_| ()).ok_or_else(|| "host:port; port 0 picks one".into())
        },
    },
    Key {
        name: "shutdown_within",
        what: "How long to wait for confirms when told to stop.",
        default: "10s",
        set: |c, v| duration(v, SHUTDOWN_MAX).map(|within| c.shutdown_within = within),
    },
    Key {
        name: "log.format",
        what: "Log lines for people (text) or machines (json).",
        default: "text",
        set: |c, v| {
            c.log_json = v == "json";
            if matches!(v, "text" | "json") { Ok(()) } else { Err("text or json".into()) }
        },
    },
    Key {
        name: "log.filter",
        what: "Which log lines, as info,event_bridge=debug.",
        default: "info,lapin=error",
        set: |c, v| {
            c.log_filter = v.to_owned();
            let filter = tracing_subscriber::EnvFilter::try_new(v);
            filter.map(|_| ()).map_err(|why| format!("a tracing filter, as info,event_bridge=debug ({why})"))
        },
    },
];

/// What is wrong; each says what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not TOML.
    #[error("{} is not valid TOML: {}", .0.display(), .1)]
    NotToml(PathBuf, String),
    /// A key that does not exist.
    #[error("{}: unknown key `{}`; `event-bridge run --print-config` lists all keys", .0.display(), .1)]
    UnknownKey(PathBuf, String),
    /// A value that is not allowed. The value itself is not told: it may hold a password.
    #[error("`{key}` ({origin}) is not allowed: give {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Where it was set.
        origin: String,
        /// What is allowed.
        allowed: String,
    },
}

/// A configuration, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in effect.
    pub config: Config,
    values: BTreeMap<&'static str, (String, String)>,
}

impl Loaded {
    /// Puts the sources together: flags by key, variables by name, the file.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub fn from_sources(
        flags: &BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let in_file = file.map_or(Ok(BTreeMap::new()), read_file)?;
        let mut loaded = Self { config: Config::blank(), values: BTreeMap::new() };
        for key in KEYS {
            let variable = key.variable();
            let (value, origin) = if let Some(value) = flags.get(key.name) {
                (value.clone(), format!("flag --{}", key.flag()))
            } else if let Some(value) = environment(&variable) {
                (value, format!("environment {variable}"))
            } else if let (Some(value), Some(path)) = (in_file.get(key.name), file) {
                (value.clone(), format!("file {}", path.display()))
            } else {
                (key.default.to_owned(), "default".to_owned())
            };
            let bad = |allowed| ConfigError::BadValue { key: key.name, origin: origin.clone(), allowed };
            (key.set)(&mut loaded.config, &value).map_err(bad)?;
            loaded.values.insert(key.name, (value, origin));
        }
        Ok(loaded)
    }

    /// The effective configuration as a TOML file, with what each key is for and where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# Effective configuration of event-bridge: flags over environment over file over defaults.\n",
        );
        let (top, tables): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(|key| !key.name.contains('.'));
        let mut section = "";
        for key in top.into_iter().chain(tables) {
            let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if table != section {
                text.push_str(&format!("\n[{table}]\n"));
                section = table;
            }
            let (value, origin) = &self.values[key.name];
            let value =
                toml::Value::String(if key.name == "broker.uri" { without_password(value) } else { value.clone() });
            text.push_str(&format!("# {}\n{name} = {value} # {origin}\n", key.what));
        }
        text
    }
}

fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => uri.to_owned(),
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|why| ConfigError::Unreadable(path.to_owned(), why))?;
    let table: toml::Table =
        text.parse().map_err(|why: toml::de::Error| ConfigError::NotToml(path.to_owned(), why.to_string()))?;
    let mut flat = BTreeMap::new();
    flatten("", &table, &mut flat);
    match flat.keys().find(|key| !KEYS.iter().any(|known| known.name == key.as_str())) {
        Some(unknown) => Err(ConfigError::UnknownKey(path.to_owned(), unknown.clone())),
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
                let items: Vec<&str> = items.iter().filter_map(toml::Value::as_str).collect();
                drop(flat.insert(key, items.join(",")));
            }
            other => drop(flat.insert(key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
        file: Option<&Path>,
    ) -> Result<Loaded, ConfigError> {
        let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Loaded::from_sources(&flags, variable, file)
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
