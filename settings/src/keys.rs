//! One key of a configuration, the values that keys take, and rows of a table of keys for the usual ones.
//!
//! **Owns** how values are parsed and printed. **Must never** check values against each other: that is
//! [`crate::Settings::validate`]. **Read next**: [`Key`].

use std::time::Duration;

use crate::{LogFormat, Settings};

/// One key.
pub struct Key<C> {
    /// As in the file: `table.name`.
    pub name: &'static str,
    /// For `--help` and `--print-config`.
    pub what: &'static str,
    /// Parses a value; the error says what is allowed.
    pub set: fn(&mut C, &str) -> Result<(), String>,
    /// The value as TOML, without secrets; none when it is not set.
    pub get: fn(&C) -> Option<String>,
    /// A wrong value is not repeated: it may hold a password.
    pub secret: bool,
    /// True or false: its flag alone means true.
    pub switch: bool,
}

impl<C: Settings> Key<C> {
    /// The environment variable: `HOLDFAST_RAFT_HEARTBEAT`.
    pub fn variable(&self) -> String {
        format!("{}_{}", C::VARIABLES, self.name.replace('.', "_").to_uppercase())
    }
    /// The flag without dashes: `raft-heartbeat`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
    /// Its table in the file.
    pub fn table(&self) -> Option<&'static str> {
        self.name.split_once('.').map(|(table, _)| table)
    }
}

/// A millisecond.
pub const MS: Duration = Duration::from_millis(1);
/// An hour.
pub const HOUR: Duration = Duration::from_secs(3_600);
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A duration within bounds.
///
/// # Errors
/// What is allowed; so with all parsers here.
pub fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let range = || format!("a duration from {} to {}, as 150ms, 2s, 1h, 7days", show(min), show(max));
    let value = humantime::parse_duration(text).map_err(|_| range())?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(range()) }
}

/// A whole number within bounds; `_` may stand between digits.
///
/// # Errors
/// What is allowed.
pub fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = text.replace('_', "").parse::<u64>().ok().filter(|n| (min..=max).contains(n));
    value.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

/// `true` or `false`.
///
/// # Errors
/// What is allowed.
pub fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// One or more, separated by commas.
///
/// # Errors
/// What is allowed.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) { Err("one or more, separated by commas".into()) } else { Ok(items) }
}

/// Anything but nothing.
///
/// # Errors
/// What is allowed.
pub fn some_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("not empty".into()) } else { Ok(text.to_owned()) }
}

/// The address of a web service.
///
/// # Errors
/// What is allowed.
pub fn web(text: &str) -> Result<String, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        Ok(text.to_owned())
    } else {
        Err("an address that begins with https:// (or http://, for tests)".into())
    }
}

/// `host:port` in two; IPv6 hosts in brackets.
pub fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(char::is_whitespace) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// Where to listen; port 0 takes a free one.
///
/// # Errors
/// What is allowed.
pub fn listening(text: &str) -> Result<String, String> {
    let wrong = || "an address is host:port, as 127.0.0.1:7101, node-1.example:7101 or [::1]:7101".to_owned();
    split_address(text).map(|_| text.to_owned()).ok_or_else(wrong)
}

/// The form of log lines.
///
/// # Errors
/// What is allowed.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".into()),
    }
}

/// Which log lines.
///
/// # Errors
/// What is allowed.
pub fn log_filter(text: &str) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::try_new(text);
    filter.map(|_| text.to_owned()).map_err(|why| format!("a tracing filter, as info,h2=warn ({why})"))
}

/// A duration as [`duration`] takes it.
pub fn show(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

/// A text as TOML.
pub fn quoted(text: &str) -> Option<String> {
    Some(toml::Value::String(text.to_owned()).to_string())
}

/// A key of any kind: how it is parsed, where it goes, how it is told.
#[macro_export]
macro_rules! key {
    ($name:literal, $what:expr, $set:expr, $get:expr) => {
        $crate::Key { name: $name, what: $what, set: $set, get: $get, secret: false, switch: false }
    };
}

/// A whole number.
#[macro_export]
macro_rules! number_key {
    ($name:literal, $($field:ident).+ $([$at:literal])? : $type:ty, $min:expr, $max:expr, $what:expr) => {
        $crate::key!(
            $name,
            $what,
            |c, v| $crate::keys::number(v, $min, $max).map(|n| c.$($field).+ $([$at])? = n as $type),
            |c| Some(c.$($field).+ $([$at])?.to_string())
        )
    };
}

/// A duration.
#[macro_export]
macro_rules! duration_key {
    ($name:literal, $($field:ident).+ $([$at:literal])?, $min:expr, $max:expr, $what:expr) => {
        $crate::key!(
            $name,
            $what,
            |c, v| $crate::keys::duration(v, $min, $max).map(|d| c.$($field).+ $([$at])? = d),
            |c| $crate::keys::quoted(&$crate::keys::show(c.$($field).+ $([$at])?))
        )
    };
}

/// True or false; its flag alone means true.
#[macro_export]
macro_rules! switch_key {
    ($name:literal, $field:ident, $what:expr) => {
        $crate::Key {
            switch: true,
            ..$crate::key!($name, $what, |c, v| $crate::keys::switch(v).map(|on| c.$field = on), |c| Some(
                c.$field.to_string()
            ))
        }
    };
}

/// A text, by a parser of its own; `some`: it may be absent.
#[macro_export]
macro_rules! text_key {
    ($name:literal, $field:ident, $parse:expr, $what:expr) => {
        $crate::key!($name, $what, |c, v| $parse(v).map(|t| c.$field = t), |c| $crate::keys::quoted(&c.$field))
    };
    ($name:literal, $field:ident, $parse:expr, some, $what:expr) => {
        $crate::key!($name, $what, |c, v| $parse(v).map(|t| c.$field = Some(t)), |c| c
            .$field
            .as_deref()
            .and_then($crate::keys::quoted))
    };
}

/// Several texts.
#[macro_export]
macro_rules! list_key {
    ($name:literal, $field:ident, $what:expr) => {
        $crate::key!(
            $name,
            $what,
            |c, v| $crate::keys::list(v).map(|items| c.$field = items),
            |c| $crate::keys::quoted(&c.$field.join(","))
        )
    };
}

/// A file or directory that may be absent.
#[macro_export]
macro_rules! file_key {
    ($name:literal, $field:ident, $what:expr) => {
        $crate::key!($name, $what, |c, v| $crate::keys::some_text(v).map(|path| c.$field = Some(path.into())), |c| c
            .$field
            .as_ref()
            .and_then(|path| $crate::keys::quoted(&path.to_string_lossy())))
    };
}

/// How log lines are written, and which: fields of [`crate::Logs`].
#[macro_export]
macro_rules! log_format_key {
    () => {
        $crate::key!(
            "log.format",
            "Log lines for people (text) or machines (json).",
            |c, v| $crate::keys::log_format(v).map(|format| c.logs.format = format),
            |c| {
                $crate::keys::quoted(match c.logs.format {
                    $crate::LogFormat::Text => "text",
                    $crate::LogFormat::Json => "json",
                })
            }
        )
    };
}

/// Which log lines.
#[macro_export]
macro_rules! log_filter_key {
    ($what:expr) => {
        $crate::key!(
            "log.filter",
            $what,
            |c, v| $crate::keys::log_filter(v).map(|filter| c.logs.filter = filter),
            |c| $crate::keys::quoted(&c.logs.filter)
        )
    };
}
