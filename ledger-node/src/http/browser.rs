//! Requests that a browser was made to send by a page of another site.
//!
//! **What it is.** A browser sends requests to this node for any page that its user has open, from
//! inside the trusted network. A page cannot set the headers that are looked at here, and cannot
//! send JSON to another site without being allowed to, which nobody is.
//!
//! **Owns** the rules for `Host`, `Origin`, `Sec-Fetch-Site` and `Content-Type`. **Must never**
//! allow another site anything. **Read next**: [`super`], docs/errors.md.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use settings::keys::split_address;

use super::{connection, problem::Problem};
use crate::node::Node;

const JSON: &str = "application/json";

/// Whether a request is taken. `probe`: it only asks whether the node lives, which a prober does
/// under any name. `is_ours` is asked about a name in lower case that is neither an address nor
/// `localhost`.
///
/// # Errors
/// The problem that answers it.
pub(crate) fn check(
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    probe: bool,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Problem> {
    if ledger_core::bad!("cross-site-taken") {
        return Ok(());
    }
    let host = if probe { None } else { Some(known_host(uri, headers, is_ours)?) };
    same_site(headers, host)?;
    if *method == Method::GET || *method == Method::HEAD || is_json(headers) {
        return Ok(());
    }
    let why = format!("{method} needs the header `content-type: {JSON}`, also without a body");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "json-required", why))
}

/// The answer to a request that is not taken. Its body is not read.
pub(super) fn refusal(problem: Problem) -> Response {
    let mut response = connection::closing(problem.into_response());
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(HeaderName::from_static("accept-post"), HeaderValue::from_static(JSON));
    }
    response
}

/// Whether a node is reached under this name: as its configuration, its stamp or the placement
/// says.
pub(super) fn is_name_of(node: &Node, name: &str) -> bool {
    let config = node.config();
    let is_host_of = |address: &str| split_address(address).is_some_and(|(host, _)| host.eq_ignore_ascii_case(name));
    let configured = config.http_hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
        || is_host_of(&config.http.listen)
        || config.http.advertise.as_deref().is_some_and(is_host_of);
    configured
        || node.own_entries().iter().any(|own| [&own.http, &own.client].into_iter().any(|address| is_host_of(address)))
}

/// A name of another site may lead to this node, which its owner needs for its pages to read the
/// answers.
fn known_host<'a>(
    uri: &Uri,
    headers: &'a HeaderMap,
    is_ours: impl Fn(&str) -> bool,
) -> Result<&'a HeaderValue, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::invalid("host", "a request has exactly one Host header"));
    };
    if uri.authority().is_some_and(|authority| authority.as_str().as_bytes() != host.as_bytes()) {
        return Err(Problem::invalid("host", "differs from the host of the request's target"));
    }
    let name = host.to_str().ok().and_then(name_of).map(str::to_ascii_lowercase);
    match name {
        Some(name) if is_address(&name) || name == "localhost" || is_ours(&name) => Ok(host),
        _ => Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown-host",
            format!(
                "{:?} is no name of this node; hint: use its address, or add the name to http.hosts on the node",
                String::from_utf8_lossy(host.as_bytes())
            ),
        )),
    }
}

/// No site but this node itself may send requests here. `host`: not known for a probe, to which
/// only the browser's own verdict applies.
fn same_site(headers: &HeaderMap, host: Option<&HeaderValue>) -> Result<(), Problem> {
    let denied = |why: String| Err(Problem::new(StatusCode::FORBIDDEN, "cross-site-request", why));
    if headers.get_all("sec-fetch-site").iter().any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        return denied("a page of another site sent this request; hint: ask without a browser".to_owned());
    }
    let own = |origin: &&HeaderValue| {
        let Some(host) = host else { return true };
        let of = |scheme: &[u8]| {
            let bytes = origin.as_bytes();
            bytes.len() == scheme.len() + host.len()
                && bytes[..scheme.len()].eq_ignore_ascii_case(scheme)
                && bytes[scheme.len()..].eq_ignore_ascii_case(host.as_bytes())
        };
        of(b"http://") || of(b"https://")
    };
    match headers.get_all(header::ORIGIN).iter().find(|origin| !own(origin)) {
        Some(origin) => denied(format!(
            "the origin {:?} is another site than the Host; hint: ask without a browser",
            String::from_utf8_lossy(origin.as_bytes())
        )),
        None => Ok(()),
    }
}

/// A page of another site sends text and forms without asking, but not JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let essence = kind.to_str().ok().and_then(|kind| kind.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(JSON))
}

/// The name or address of a Host header, without its port and the dot of a complete name.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, port)| (name, port.strip_prefix(':').unwrap_or(port)))?,
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit());
    is_port.then(|| name.strip_suffix('.').unwrap_or(name))
}

fn is_address(name: &str) -> bool {
    name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: Method, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header's value"));
        }
        let uri = Uri::from_static("/v1/products");
        let checked = check((&method, &uri, &map), false, |name| name == "node-1.example");
        checked.err().map_or(200, |problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn host_is_an_address_or_a_name_of_the_node() {
        let ours = ["127.0.0.1", "10.0.0.5:7102", "[::1]:7102", "localhost:7102", "LOCALHOST", "Node-1.Example:7102"];
        for host in ours.into_iter().chain(["node-1.example.", "localhost."]) {
            assert_eq!(answer(Method::GET, &[("host", host)]), 200, "{host}");
        }
        let foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7102", "a@localhost", ""];
        for host in foreign.into_iter().chain(["localhost:7102:evil", "[::1]evil", "[localhost", "node-1"]) {
            assert_eq!(answer(Method::GET, &[("host", host)]), 421, "{host}");
        }
        assert_eq!(answer(Method::GET, &[]), 400);
        assert_eq!(answer(Method::GET, &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn target_of_another_host_is_invalid() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost:7102"))]);
        let at = |uri: &'static str| check((&Method::GET, &Uri::from_static(uri), &headers), false, |_| false);
        assert!(at("http://localhost:7102/v1/products").is_ok());
        assert!(at("http://evil.example/v1/products").is_err());
    }

    #[test]
    fn origin_is_the_host_itself() {
        let host = ("host", "localhost:7102");
        for origin in ["http://localhost:7102", "https://LOCALHOST:7102"] {
            assert_eq!(answer(Method::GET, &[host, ("origin", origin)]), 200, "{origin}");
        }
        for origin in
            ["null", "http://localhost:3000", "http://localhost", "http://evil.example", "ftp://localhost:7102"]
        {
            assert_eq!(answer(Method::GET, &[host, ("origin", origin)]), 403, "{origin}");
        }
        let two = [host, ("origin", "http://localhost:7102"), ("origin", "http://evil.example")];
        assert_eq!(answer(Method::GET, &two), 403);
        assert_eq!(answer(Method::GET, &[host, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(answer(Method::GET, &[host, ("sec-fetch-site", "none")]), 200);
    }

    #[test]
    fn writes_are_json() {
        let host = ("host", "localhost:7102");
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(answer(Method::POST, &[host, ("content-type", kind)]), 200, "{kind}");
        }
        for kind in ["text/plain", "text/plain; application/json", "application/json-patch", ""] {
            assert_eq!(answer(Method::POST, &[host, ("content-type", kind)]), 415, "{kind}");
        }
        assert_eq!(answer(Method::POST, &[host]), 415);
        let two = [host, ("content-type", "application/json"), ("content-type", "text/plain")];
        assert_eq!(answer(Method::PUT, &two), 415);
    }

    #[test]
    fn probe_comes_under_any_name() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("10.0.0.5.evil:1"))]);
        let uri = Uri::from_static("/livez");
        assert!(check((&Method::GET, &uri, &headers), true, |_| false).is_ok());
        assert!(check((&Method::GET, &uri, &HeaderMap::new()), true, |_| false).is_ok());
    }
}
