//! Environment variables that nothing reads are errors, as unknown keys of the file are.
//!
//! **Owns** which variables belong to another program, or to Kubernetes. **Must never** print a
//! value: it may be a secret. **Read next**: [`crate::Loaded::from_sources`].

use crate::{ConfigError, Settings, nearest};

/// What variables of other programs begin with, where a program's own beginning is shorter.
const OTHER_PROGRAMS: [&str; 2] = ["HOLDFAST_WORKER_", "HOLDFAST_BRIDGE_"];
/// Variables of `ledgerctl`, of tests and of scripts.
const OTHERS: [&str; 7] = [
    "HOLDFAST_ENDPOINTS",
    "HOLDFAST_CONTEXT",
    "HOLDFAST_SEED",
    "HOLDFAST_SEEDS",
    "HOLDFAST_WRITE_SEEDS",
    "HOLDFAST_CI_SEEDS",
    "HOLDFAST_HOURS",
];

/// Holds the environment to what `C` reads: each variable under its beginning is a key's, its
/// file's, or another program's.
///
/// # Errors
/// [`ConfigError::UnknownVariable`], for the first by name.
pub fn check<'a, C: Settings>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), ConfigError> {
    let beginning = format!("{}_", C::VARIABLES);
    let mut known: Vec<String> = C::KEYS.iter().map(|key| key.variable()).collect();
    known.push(C::FILE_VARIABLE.to_owned());
    let is_known = |name: &str| {
        known.iter().any(|known| known == name)
            || OTHERS.contains(&name)
            || OTHER_PROGRAMS.iter().any(|other| *other != beginning && name.starts_with(other))
    };
    let under = environment.into_iter().filter(|(name, _)| name.starts_with(&beginning));
    let unknown = under.filter(|&(name, value)| !is_known(name) && !is_service_link(name, value));
    match unknown.map(|(name, _)| name).min() {
        None => Ok(()),
        Some(name) => {
            let others = OTHERS.iter().copied().filter(|other| other.starts_with(&beginning));
            let nearest = nearest(name, known.iter().map(String::as_str).chain(others)).to_owned();
            Err(ConfigError::UnknownVariable { name: name.to_owned(), nearest, prints: C::PRINTS })
        }
    }
}

/// Kubernetes gives each container variables for every service: of a service `holdfast`,
/// `HOLDFAST_SERVICE_HOST`, `HOLDFAST_PORT` = `tcp://…`, `HOLDFAST_PORT_7101_TCP_ADDR` and more.
fn is_service_link(name: &str, value: &str) -> bool {
    let of_port = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    value.starts_with("tcp://")
        || value.starts_with("udp://")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split("_PORT_").skip(1).any(of_port)
}
