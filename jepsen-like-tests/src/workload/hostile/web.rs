//! HTTP/1.1 requests of raw bytes: every route, with bodies made as messages are and written as JSON, or nearly so.
//!
//! **Owns** the routes as a stranger types them, and the writing of JSON. **Must never** use a client library: it would refuse to send half of this.
//! **Read next**: [`super::judge`].

use std::time::Duration;

use client_sdk::Io;
use prost_reflect::{DynamicMessage, Value};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::methods;
use super::values::Maker;

/// Bytes of an answer that are read.
const ANSWER_MAX: u64 = 16 << 20;
const WITHIN: Duration = Duration::from_secs(6);

/// Every node answers under this name.
const HOST: &str = "localhost";
/// What a browser sends for a page of another site: host, type of the body, and what else it says.
const CROSS_SITE: [(&str, &str, &str); 5] = [
    (HOST, "text/plain", ""),
    (HOST, "application/x-www-form-urlencoded", "sec-fetch-site: cross-site\r\n"),
    (HOST, "application/json", "origin: http://evil.example\r\n"),
    (HOST, "application/json", "origin: null\r\n"),
    ("evil.example", "application/json", "origin: http://evil.example\r\n"),
];

/// A route: verb, path, and the message whose fields its body has.
const ROUTES: [(&str, &str, &str); 14] = [
    ("POST", "/v1/reservations", "Reserve"),
    ("GET", "/v1/reservations/{id}", ""),
    ("POST", "/v1/reservations/{id}/confirm", "Confirm"),
    ("POST", "/v1/reservations/{id}/release", ""),
    ("POST", "/v1/reservations/{id}/extend", "Extend"),
    ("POST", "/v1/reservations/{id}/fence", ""),
    ("POST", "/v1/reservations/{id}/return", "ReturnUnits"),
    ("GET", "/v1/products", ""),
    ("POST", "/v1/products", "CreateProduct"),
    ("GET", "/v1/products/{sku}", ""),
    ("POST", "/v1/products/{sku}/receive", "Receive"),
    ("POST", "/v1/products/{sku}/adjust", "Adjust"),
    ("GET", "/livez", ""),
    ("GET", "/metrics", ""),
];

/// A request, and whether it is well-formed HTTP.
pub(super) struct Request {
    /// Its route, for the counts.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) whole: bool,
    /// Whether a browser may be made to send it by a page of another site: it must be refused.
    cross_site: bool,
}

/// An answer of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    kind: String,
    pub(super) body: String,
}

/// A plain request.
pub(super) fn get(path: &str) -> Request {
    let bytes = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n").into_bytes();
    Request { name: format!("GET {path}"), bytes, whole: true, cross_site: false }
}

/// A request of some route.
pub(super) fn make(maker: &mut Maker<'_>) -> Request {
    let (verb, route, message) = ROUTES[maker.rng.random_range(0..ROUTES.len())];
    let path = path(maker, route);
    let mut body = match message {
        "" => String::new(),
        name => {
            let made = maker.message(&methods::message(name), 0);
            json(&made).to_string()
        }
    };
    let mut whole = true;
    match maker.rng.random_range(0..14) {
        0 => body = odd_body(maker, &body),
        1 => body.truncate(cut(&body, maker.rng.random_range(0..=body.len()))),
        2 => body = body.replacen(':', ":[[[[[[[[", 1),
        _ => {}
    }
    let key = match maker.rng.random_range(0..4) {
        0 => format!("idempotency-key: {}\r\n", id_text(&maker.id())),
        _ => String::new(),
    };
    let length = body.len();
    let cross_site = verb == "POST" && maker.rng.random_bool(0.1);
    let (host, kind, more) = if cross_site {
        CROSS_SITE[maker.rng.random_range(0..CROSS_SITE.len())]
    } else {
        (HOST, "application/json", "")
    };
    let mut bytes = format!(
        "{verb} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{key}{more}content-type: {kind}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes();
    if maker.rng.random_bool(0.06) {
        whole = false;
        let at = maker.rng.random_range(0..bytes.len());
        bytes[at] = [0, 0x80, b'\n', 0xff][maker.rng.random_range(0..4)];
    }
    // A byte in the wrong place can make another request of it.
    Request { name: format!("{verb} {route}"), bytes, whole, cross_site: cross_site && whole }
}

fn cut(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn path(maker: &mut Maker<'_>, route: &str) -> String {
    let sku = match maker.rng.random_range(0..12) {
        0 => "%00".to_owned(),
        1 => "a".repeat(3_000),
        2 => "%ff%fe".to_owned(),
        3 => "..%2f..%2fmetrics".to_owned(),
        _ => maker.sku().replace('{', "%7B").replace('}', "%7D"),
    };
    let query = match maker.rng.random_range(0..10) {
        0 => "?within_ms=1",
        1 => "?within_ms=4294967296",
        2 => "?within_ms=-1",
        3 => "?consistency=stale",
        4 => "?consistency=%00&max=4294967295",
        5 => "?after=%20&after=x",
        _ => "",
    };
    route.replace("{id}", &id_text(&maker.id())).replace("{sku}", &sku) + query
}

fn odd_body(maker: &mut Maker<'_>, body: &str) -> String {
    match maker.rng.random_range(0..7) {
        0 => "[".repeat(50_000),
        1 => format!("\u{feff}{body}"),
        2 => body.replacen('{', r#"{"lines":[],"lines":null,"#, 1),
        3 => body.replacen('{', r#"{"quantity":1e309,"units":-0.0,"#, 1),
        4 => format!("{body}{body}"),
        5 => "null".to_owned(),
        _ => format!("{{\"lines\":[{}]}}", vec!["{\"sku\":\"hostile-0\",\"quantity\":1}"; 17].join(",")),
    }
}

/// An id as text, whatever its length.
fn id_text(id: &[u8]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    match id.len() {
        16 => format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]),
        _ => hex,
    }
}

/// A message as this API writes it: fields by name, ids as text, an offer's fields and a list within a message without their wrapping.
fn json(of: &DynamicMessage) -> serde_json::Value {
    let mut members = serde_json::Map::new();
    for (field, value) in of.fields() {
        match (field.name(), value) {
            ("offer", Value::Message(offer)) => {
                if let Some(sale) = offer.get_field_by_name("sale").and_then(|sale| sale.as_str().map(str::to_owned)) {
                    members.insert("sale".into(), sale.into());
                }
            }
            // In the path.
            ("id", _) => {}
            ("lines", Value::Message(lines)) => {
                let inner = json(lines);
                members.insert("lines".into(), inner.get("lines").cloned().unwrap_or_default());
            }
            (name, value) => {
                members.insert(name.to_owned(), json_value(value));
            }
        }
    }
    members.into()
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::I32(n) | Value::EnumNumber(n) => (*n).into(),
        Value::I64(n) => (*n).into(),
        Value::U32(n) => (*n).into(),
        Value::U64(n) => (*n).into(),
        Value::F32(n) => (*n).into(),
        Value::F64(n) => (*n).into(),
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => id_text(bytes).into(),
        Value::Message(inner) => json(inner),
        Value::List(values) => values.iter().map(json_value).collect::<Vec<_>>().into(),
        Value::Map(_) => serde_json::Value::Null,
    }
}

/// Sends a request and reads its answer to the end of the connection.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn ask(mut io: Box<dyn Io>, request: &Request) -> Result<Page, String> {
    let asking = async {
        io.write_all(&request.bytes).await.map_err(|e| e.to_string())?;
        io.flush().await.map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        io.take(ANSWER_MAX).read_to_end(&mut answer).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(answer)
    };
    let answer = match tokio::time::timeout(WITHIN, asking).await {
        Ok(answer) => answer?,
        Err(_) => return Err(format!("no answer within {WITHIN:?}")),
    };
    page(&answer).ok_or_else(|| format!("{} bytes that are no answer of HTTP", answer.len()))
}

fn page(answer: &[u8]) -> Option<Page> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Some(Page { status, kind: kind.unwrap_or_default(), body: body.to_owned() })
}

/// How it was answered, in a word; or what is wrong with the answer.
///
/// # Errors
/// Words for the report.
pub(super) fn judge(request: &Request, page: &Page) -> Result<&'static str, String> {
    let problem = page.kind.starts_with("application/problem+json")
        && page.body.contains("\"type\"")
        && page.body.contains(&format!("\"status\":{}", page.status));
    // A status of *service unavailable* is a readiness probe's no, which is text.
    let text = page.kind.starts_with("text/plain") && (page.status == 200 || page.status == 503);
    match page.status {
        200..300 if request.cross_site => Err(format!("{}: a request of another site was taken", request.name)),
        500 | 501 => Err(format!("{}: status {} {:?}", request.name, page.status, page.body)),
        200..300 if page.kind.starts_with("application/json") || text => Ok("ok"),
        400.. if problem || text => Ok("problem"),
        // The library's own word on bytes that are not HTTP has no body.
        400 | 414 | 431 if !request.whole => Ok("not http"),
        _ => Err(format!("{}: status {} of kind {:?} is no problem+json", request.name, page.status, page.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_node_is_asked() {
        let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger-node/src/http/mod.rs");
        let routes = std::fs::read_to_string(routes).expect("the node's routes");
        let routes: Vec<&str> = routes.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(routes.len() > 8, "{routes:?}");
        for route in routes {
            let pattern = |asked: &str| route == asked || asked.starts_with(&route.replace("{verb}", ""));
            let asked = ROUTES.iter().any(|(_, asked, _)| pattern(asked)) || route == "/readyz";
            assert!(asked, "{route} is never asked");
        }
    }

    #[test]
    fn a_request_of_another_site_must_be_refused() {
        let foreign = Request { cross_site: true, ..get("/v1/products") };
        let judged = |status, kind: &str, body: &str| {
            judge(&foreign, &Page { status, kind: kind.to_owned(), body: body.to_owned() })
        };
        assert!(judged(201, "application/json", "{}").is_err());
        assert_eq!(judged(415, "application/problem+json", r#"{"status":415,"type":"/errors/x"}"#), Ok("problem"));
    }

    #[test]
    fn an_answer_is_a_problem_or_what_was_asked_for() {
        let request = get("/v1/products");
        let judged = |status, kind: &str, body: &str| {
            judge(&request, &Page { status, kind: kind.to_owned(), body: body.to_owned() })
        };
        assert_eq!(judged(200, "application/json", "{}"), Ok("ok"));
        assert_eq!(judged(404, "application/problem+json", r#"{"status":404,"type":"/errors/x"}"#), Ok("problem"));
        assert!(judged(404, "text/html", "<html>").is_err());
        assert!(judged(400, "", "").is_err());
        assert!(judged(500, "application/problem+json", r#"{"status":500,"type":"/errors/internal"}"#).is_err());
        assert_eq!(page(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nready\n").map(|p| p.status), Some(200));
    }
}
