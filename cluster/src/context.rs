//! Where the cluster is: `--endpoints`, then `HOLDFAST_ENDPOINTS`, then the context file.
//!
//! **Owns** that order and the file's form. **Must never** guess an endpoint that nobody named.
//! **Read next**: [`crate::link`].

use std::path::PathBuf;

use ledger_node::config::NodeConfig;
use serde::Deserialize;

use crate::output::{Failure, Outcome};

/// `~/.config/holdfast/context.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `host:port` of the nodes' client ports.
    pub endpoints: Vec<String>,
}

/// The context file's place: `HOLDFAST_CONTEXT`, else under `XDG_CONFIG_HOME` or `~/.config`.
pub fn context_path(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = environment("HOLDFAST_CONTEXT") {
        return Some(path.into());
    }
    let base = environment("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("holdfast").join("context.toml"))
}

/// Holds the environment to what `ledgerctl` and the nodes read.
///
/// # Errors
/// [`Failure::Usage`] for a mistyped variable.
pub fn check_variables(environment: impl Iterator<Item = (String, String)>) -> Outcome {
    let environment: Vec<_> = environment.collect();
    let of = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    settings::variables::check::<NodeConfig>(of).map_err(|error| Failure::usage(error.to_string()))
}

/// The endpoints to use: what was given (flag or environment), else the context file.
///
/// # Errors
/// [`Failure::Usage`] when none are named anywhere, or the file is wrong.
pub fn endpoints(given: &[String], environment: impl Fn(&str) -> Option<String>) -> Outcome<Vec<String>> {
    if !given.is_empty() {
        return given.iter().map(|e| checked(e)).collect();
    }
    let nowhere = || {
        Failure::usage("no endpoints: name the nodes' client ports")
            .hint("ledgerctl --endpoints 127.0.0.1:7101 status   (or set HOLDFAST_ENDPOINTS, or start one with: ledgerctl dev)")
    };
    let path = context_path(environment).ok_or_else(nowhere)?;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(nowhere()),
        Err(e) => return Err(Failure::usage(format!("cannot read {}: {e}", path.display()))),
    };
    let wrong = |why: String| {
        Failure::usage(format!("{}: {why}", path.display()))
            .hint(format!("write into {}: endpoints = [\"host1:7101\", \"host2:7101\"]", path.display()))
    };
    let context: Context = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if context.endpoints.is_empty() {
        return Err(wrong("endpoints is empty".into()));
    }
    context.endpoints.iter().map(|e| checked(e)).collect()
}

/// `host:port`, with a scheme tolerated and dropped.
///
/// # Errors
/// [`Failure::Usage`] when it is something else.
pub fn checked(endpoint: &str) -> Outcome<String> {
    let plain = endpoint.trim().trim_start_matches("http://").trim_end_matches('/');
    let port = plain.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, p)| p.parse::<u16>().ok());
    match port {
        Some(1..) => Ok(plain.to_owned()),
        _ => Err(Failure::usage(format!("{endpoint:?} is not an endpoint: host:port of a node's client port"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_over_the_file() {
        let got = endpoints(&["http://a:1/".into()], |_| None).expect("given");
        assert_eq!(got, ["a:1"]);
    }

    #[test]
    fn the_file_is_read_when_nothing_is_given() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("context.toml");
        let environment = |name: &str| (name == "HOLDFAST_CONTEXT").then(|| path.display().to_string());
        std::fs::write(&path, "endpoints = [\"n1:7101\", \"n2:7101\"]").expect("write");
        assert_eq!(endpoints(&[], environment).expect("file"), ["n1:7101", "n2:7101"]);
        std::fs::write(&path, "endpoint = []").expect("write");
        assert_eq!(endpoints(&[], environment).expect_err("unknown key").exit_code(), 2);
        std::fs::write(&path, "endpoints = [\"n1\"]").expect("write");
        assert_eq!(endpoints(&[], environment).expect_err("no port").exit_code(), 2);
    }

    #[test]
    fn nowhere_is_a_usage_error_with_a_hint() {
        let failure = endpoints(&[], |_| None).expect_err("nowhere");
        assert!(matches!(failure, Failure::Usage { hint: Some(_), .. }));
    }
}
