//! A small HTTP client, one connection a call, and a simulator in this process.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use payment_sim::{Behaviour, Config, ManualClock, Running};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The hour at which manual clocks begin, in milliseconds.
pub(crate) const BEGIN_MS: i64 = 1_800_000_000_000;
/// Longer than anything here takes, for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A simulator in this process, its directory and its clock.
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) client: Client,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn behaving(behaviour: &str) -> Self {
        let behaviour: Behaviour = serde_json::from_str(behaviour).expect("a behaviour");
        Self::with(|config| config.behaviour = behaviour).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), change).await
    }

    pub(crate) async fn on(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(BEGIN_MS));
        let mut config = Config::new(dir.path());
        config.clock = clock.clone();
        config.seed = Some(7);
        change(&mut config);
        let running = payment_sim::serve(config).await.expect("it starts");
        let client = Client::new(running.address().to_string());
        Self { running, client, clock, dir }
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown().await;
        self.dir
    }
}

/// Calls one simulator.
#[derive(Clone)]
pub(crate) struct Client {
    address: String,
    headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Reply {
    /// The object, when it was answered with one.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json
    }

    /// Status, type and code of the error.
    pub(crate) fn error(&self) -> (u16, &str, &str) {
        let error = &self.json["error"];
        (self.status, error["type"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    pub(crate) fn new(address: String) -> Self {
        Self { address, headers: vec![("authorization", "Bearer sk_test_any".to_owned())] }
    }

    /// The same, with this header; an empty one goes.
    pub(crate) fn header(&self, name: &'static str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(n, _)| *n != name);
        if !value.is_empty() {
            other.headers.push((name, value.to_owned()));
        }
        other
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "").await.expect("an answer")
    }

    pub(crate) async fn post(&self, path: &str, form: &str) -> Reply {
        self.call("POST", path, form).await.expect("an answer")
    }

    pub(crate) async fn behave(&self, behaviour: &str) {
        let reply = self.header("content-type", "application/json").call("PUT", "/sim/behaviour", behaviour).await;
        assert_eq!(reply.expect("an answer").status, 200);
    }

    /// None when there was no answer.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        let stream = TcpStream::connect(&self.address).await.expect("it listens");
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let driver = tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", &self.address);
        if method == "POST" && !self.headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned()))).expect("a request");
        let answer = send.send_request(request).await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.ok()?.to_bytes();
        driver.abort();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Some(Reply { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text })
    }

    /// Makes an intent and returns its id.
    pub(crate) async fn create(&self, form: &str) -> String {
        let intent = self.post("/v1/payment_intents", &format!("amount=1000&currency=eur&{form}")).await.ok();
        intent["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn verb(&self, id: &str, verb: &str, form: &str) -> Reply {
        self.post(&format!("/v1/payment_intents/{id}/{verb}"), form).await
    }

    pub(crate) async fn status(&self, id: &str) -> String {
        let intent = self.get(&format!("/v1/payment_intents/{id}")).await.ok();
        intent["status"].as_str().expect("a status").to_owned()
    }

    /// Asks until the summary is as wished.
    pub(crate) async fn summary_until(&self, wished: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let summary = self.get("/sim/book/summary").await.ok();
                if wished(&summary) {
                    return summary;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the summary becomes as wished")
    }
}
