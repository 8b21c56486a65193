//! The table of all configuration keys: one row gives the flag, the variable, the file's key and its line in `--print-config`.
//!
//! **Owns** names, parsing and printing of values. **Must never** check values against each other.
//! **Read next**: [`super::WorkerConfig::validate`].

use std::path::PathBuf;
use std::time::Duration;

use super::{LogFormat, WorkerConfig};
use crate::notify::smtp::TlsMode;
use crate::payment::Mode;

/// One key.
pub struct Key {
    /// As in the file: `table.name`.
    pub name: &'static str,
    /// For `--help` and `--print-config`.
    pub what: &'static str,
    /// Parses a value; the error says what is allowed.
    pub set: fn(&mut WorkerConfig, &str) -> Result<(), String>,
    /// The value as TOML; none when it is not set.
    pub get: fn(&WorkerConfig) -> Option<String>,
}

impl Key {
    /// The environment variable: `HOLDFAST_WORKER_POLL_MIN`.
    pub fn variable(&self) -> String {
        format!("HOLDFAST_WORKER_{}", self.name.replace('.', "_").to_uppercase())
    }
    /// The flag without dashes: `poll-min`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let range = || format!("a duration from {} to {}, as 150ms, 2s, 1h", show(min), show(max));
    let value = humantime::parse_duration(text).map_err(|_| range())?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(range()) }
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = text.replace('_', "").parse::<u64>().ok().filter(|n| (min..=max).contains(n));
    value.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) { Err("one or more, separated by commas".into()) } else { Ok(items) }
}

fn some_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("not empty".into()) } else { Ok(text.to_owned()) }
}

fn web(text: &str) -> Result<String, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        Ok(text.to_owned())
    } else {
        Err("an address that begins with https:// (or http://, for tests)".into())
    }
}

fn show(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

fn quoted(text: &str) -> Option<String> {
    Some(toml::Value::String(text.to_owned()).to_string())
}

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

macro_rules! number_key {
    ($name:literal, $($field:ident).+ $([$at:literal])? : $type:ty, $min:expr, $max:expr, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| number(v, $min, $max).map(|n| c.$($field).+ $([$at])? = n as $type),
            get: |c| Some(c.$($field).+ $([$at])?.to_string()),
        }
    };
}
macro_rules! duration_key {
    ($name:literal, $($field:ident).+ $([$at:literal])?, $min:expr, $max:expr, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| duration(v, $min, $max).map(|d| c.$($field).+ $([$at])? = d),
            get: |c| quoted(&show(c.$($field).+ $([$at])?)),
        }
    };
}
macro_rules! file_key {
    ($name:literal, $field:ident, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| some_text(v).map(|path| c.$field = Some(PathBuf::from(path))),
            get: |c| c.$field.as_ref().and_then(|path| quoted(&path.to_string_lossy())),
        }
    };
}
macro_rules! switch_key {
    ($name:literal, $field:ident, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| v.parse().map(|on| c.$field = on).map_err(|_| "true or false".to_owned()),
            get: |c| Some(c.$field.to_string()),
        }
    };
}
macro_rules! text_key {
    ($name:literal, $field:ident, $parse:expr, $what:literal) => {
        Key { name: $name, what: $what, set: |c, v| $parse(v).map(|t| c.$field = t), get: |c| quoted(&c.$field) }
    };
    ($name:literal, $field:ident, $parse:expr, some, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| $parse(v).map(|t| c.$field = Some(t)),
            get: |c| c.$field.as_deref().and_then(quoted),
        }
    };
}
macro_rules! list_key {
    ($name:literal, $field:ident, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            set: |c, v| list(v).map(|items| c.$field = items),
            get: |c| quoted(&c.$field.join(",")),
        }
    };
}

/// All keys, grouped by table; those without a table come first, as TOML wants it.
pub const KEYS: &[Key] = &[
    list_key!(
        "nodes",
        nodes,
        "Client ports of nodes, as node-1:7101,node-2:7101; the rest of the cluster is found through them."
    ),
    text_key!(
        "name",
        name,
        some_text,
        some,
        "What leases and explanations call this worker; not set: order-worker and a random number."
    ),
    file_key!(
        "keys_file",
        keys_file,
        "File of private keys that open sealed payment tokens and contacts; `order-worker keys new` makes them."
    ),
    duration_key!(
        "lease",
        engine.lease,
        Duration::from_secs(1),
        HOUR,
        "How long an order is claimed for; renewed while it runs."
    ),
    duration_key!(
        "attempt",
        engine.attempt,
        MS,
        HOUR,
        "What one attempt to pay needs; orders whose payment deadline is nearer are left."
    ),
    number_key!("claim_max", engine.claim_max: u32, 1, u64::from(ledger_core::limits::CLAIM_MAX), "Orders one claim asks for at most."),
    duration_key!(
        "shutdown_within",
        shutdown_within,
        MS,
        HOUR,
        "How long a graceful shutdown may take before what runs is given back."
    ),
    number_key!("concurrency.money", engine.concurrency[0]: usize, 1, 100_000, "Orders whose payment runs at once."),
    number_key!("concurrency.mail", engine.concurrency[1]: usize, 1, 100_000, "Orders whose notification runs at once."),
    duration_key!("poll.min", engine.poll_min, MS, DAY, "Pause when the queue is empty, at first."),
    duration_key!("poll.max", engine.poll_max, MS, DAY, "Pause when the queue is empty, at last."),
    duration_key!(
        "call.timeout",
        engine.call_timeout,
        MS,
        HOUR,
        "Longest call of the payment provider, relay or receiver."
    ),
    number_key!("call.tries", engine.steps.tries_max: u32, 0, 100, "Further tries of a failed call within one run of an order."),
    duration_key!("call.pause_1", engine.try_pauses[0], MS, HOUR, "Pause before the second try."),
    duration_key!("call.pause_2", engine.try_pauses[1], MS, HOUR, "Pause before the third try."),
    duration_key!("call.pause_3", engine.try_pauses[2], MS, HOUR, "Pause before all further tries."),
    duration_key!(
        "call.rate_wait",
        engine.steps.rate_wait_max,
        MS,
        HOUR,
        "Longest wait within a run when the provider says to come back later."
    ),
    number_key!("retry.attempts", engine.steps.attempts_max: u32, 1, 10_000, "Runs of one step before the order is parked (or released, when nothing is pending)."),
    duration_key!(
        "retry.min",
        engine.steps.retry_min,
        MS,
        DAY,
        "Pause before the second run of a step; doubles with each."
    ),
    duration_key!("retry.max", engine.steps.retry_max, MS, DAY, "Longest pause between runs."),
    duration_key!(
        "retry.pay_max",
        engine.steps.pay_retry_max,
        MS,
        DAY,
        "Longest pause between attempts to pay, while stock is held."
    ),
    number_key!("breaker.failures", engine.breaker.failures: usize, 1, 100_000, "A dependency is left alone after so many failures ..."),
    duration_key!("breaker.window", engine.breaker.window, MS, DAY, "... within this time ..."),
    duration_key!("breaker.open", engine.breaker.open_for, MS, DAY, "... for so long, before one call probes."),
    text_key!(
        "http.listen",
        http_listen,
        some_text,
        "Webhooks of the provider, /livez, /readyz and /metrics listen here."
    ),
    text_key!("payment.url", payment_url, web, "Base address of the payment provider's API."),
    file_key!("payment.secret_key_file", payment_secret_key_file, "File with the provider's secret key."),
    file_key!(
        "payment.webhook_secrets_file",
        payment_webhook_secrets_file,
        "File with the signing secrets of the provider's webhooks, one a line; not set: webhooks are refused."
    ),
    Key {
        name: "payment.mode",
        what: "charge: confirming charges. authorise: confirming authorises and a capture charges, so that what comes too late is voided, not refunded.",
        set: |c, v| {
            c.payment_mode = match v {
                "charge" => Mode::Charge,
                "authorise" => Mode::AuthoriseThenCapture,
                _ => return Err("charge or authorise".into()),
            };
            Ok(())
        },
        get: |c| {
            quoted(match c.payment_mode {
                Mode::Charge => "charge",
                Mode::AuthoriseThenCapture => "authorise",
            })
        },
    },
    list_key!("payment.methods", payment_methods, "Kinds of payment methods, as card,sepa_debit."),
    text_key!(
        "payment.return_url",
        payment_return_url,
        web,
        some,
        "Where buyers come back to after acting at their bank."
    ),
    switch_key!("smtp.on", smtp_on, "Tell buyers by mail."),
    text_key!("smtp.host", smtp_host, some_text, "The relay's host name."),
    number_key!("smtp.port", smtp_port: u16, 1, 65_535, "The relay's port: 25, 587 (starttls), 465 (tls)."),
    Key {
        name: "smtp.tls",
        what: "none, starttls or tls.",
        set: |c, v| {
            c.smtp_tls = match v {
                "none" => TlsMode::None,
                "starttls" => TlsMode::StartTls,
                "tls" => TlsMode::Tls,
                _ => return Err("none, starttls or tls".into()),
            };
            Ok(())
        },
        get: |c| {
            quoted(match c.smtp_tls {
                TlsMode::None => "none",
                TlsMode::StartTls => "starttls",
                TlsMode::Tls => "tls",
            })
        },
    },
    file_key!(
        "smtp.ca_file",
        smtp_ca_file,
        "File of certificates (PEM) of the only authorities the relay's certificate may come from; not set: those the system trusts."
    ),
    text_key!("smtp.user", smtp_user, some_text, some, "User at the relay; not set: none is named."),
    file_key!("smtp.password_file", smtp_password_file, "File with the password at the relay."),
    text_key!("smtp.from", smtp_from, some_text, "Sender, as Shop <orders@shop.example>."),
    file_key!(
        "smtp.templates",
        templates_dir,
        "Directory of texts over the built-in ones: ENDING.LANGUAGE.txt, as sold.de.txt."
    ),
    switch_key!("webhook.on", webhook_on, "Tell shops by signed webhooks (CloudEvents)."),
    text_key!("webhook.url", webhook_url, web, some, "Where webhooks go."),
    switch_key!(
        "webhook.from_contact",
        webhook_from_contact,
        "Let contacts name addresses of their own; only if whoever seals contacts is trusted, since the worker connects to them."
    ),
    file_key!("webhook.secret_file", webhook_secret_file, "File with the secret that signatures are made with."),
    text_key!("webhook.source", webhook_source, some_text, "`source` of the events."),
    Key {
        name: "log.format",
        what: "Log lines for people (text) or machines (json).",
        set: |c, v| {
            c.log_format = match v {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("text or json".into()),
            };
            Ok(())
        },
        get: |c| {
            quoted(match c.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
        },
    },
    Key {
        name: "log.filter",
        what: "Which log lines, as `info,order_worker=debug`.",
        set: |c, v| {
            tracing_subscriber::EnvFilter::try_new(v)
                .map_err(|e| format!("a tracing filter, as info,order_worker=debug ({e})"))?;
            c.log_filter = v.to_owned();
            Ok(())
        },
        get: |c| quoted(&c.log_filter),
    },
];
