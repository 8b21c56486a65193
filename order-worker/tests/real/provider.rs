//! The payment provider, the proxy before it that sees what a worker asks of it, and a shop that takes webhooks.
//!
//! **Owns** the names of the provider's calls. **Must never** answer in the provider's place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use payment_sim::Behaviour;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::observer::{Boundary, Observer, Side};

/// Serves a router on a free port of its own; where, and what serves it.
async fn serve(router: Router) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    (url, tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") }))
}

/// The simulator; it keeps its book as a provider would.
pub(crate) struct Provider {
    pub(crate) running: payment_sim::Running,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

#[derive(Debug, Deserialize)]
struct Book {
    intents: Vec<Paid>,
}

/// What the provider's book says of one intent.
#[derive(Debug, Deserialize)]
pub(crate) struct Paid {
    pub(crate) status: String,
    pub(crate) captured: u64,
    pub(crate) refunded: u64,
    metadata: HashMap<String, String>,
    pub(crate) charges: Vec<Charge>,
    pub(crate) refunds: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Charge {
    pub(crate) state: String,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        // One provider of cryptography for all of the process, as the worker has it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = tempfile::tempdir().expect("a directory");
        let mut config = payment_sim::Config::new(data.path());
        config.no_sync = true;
        let running = payment_sim::serve(config).await.expect("a simulator");
        Self { running, http: client(), _data: data }
    }

    /// How it behaves from now on.
    pub(crate) async fn behave(&self, behaviour: &Behaviour) {
        let url = format!("{}/sim/behaviour", self.running.url());
        let request = self.http.put(url).header(header::CONTENT_TYPE, "application/json");
        let answer = request.body(serde_json::to_string(behaviour).expect("JSON")).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// The buyer of an intent does what the bank asks for.
    pub(crate) async fn authenticate(&self, secret: &str) {
        let intent = secret.split_once("_secret_").expect("a client secret").0;
        let url = format!("{}/sim/intents/{intent}/authenticate?outcome=ok", self.running.url());
        let answer = self.http.post(url).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// The intents of an order.
    pub(crate) async fn of(&self, order: &str) -> Vec<Paid> {
        let answer = self.http.get(format!("{}/sim/book", self.running.url())).send().await.expect("the book");
        let book: Book = serde_json::from_slice(&answer.bytes().await.expect("all of it")).expect("a book");
        let of = |paid: &Paid| paid.metadata.get("holdfast_order").is_some_and(|of| of == order);
        book.intents.into_iter().filter(of).collect()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn name(method: &Method, path: &str) -> &'static str {
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    match (method.as_str(), &parts[..]) {
        ("POST", ["payment_intents"]) => "create",
        ("GET", ["payment_intents", "search"]) => "find",
        ("GET", ["payment_intents", _]) => "look",
        ("POST", ["payment_intents", _, "confirm"]) => "confirm",
        ("POST", ["payment_intents", _, "capture"]) => "capture",
        ("POST", ["payment_intents", _, "cancel"]) => "cancel",
        ("POST", ["refunds"]) => "refund",
        ("GET", ["refunds"]) => "find refund",
        _ => panic!("a worker does not ask {method} {path}"),
    }
}

/// Holds a call back until a boundary was passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) call: &'static str,
    pub(crate) until: Boundary,
}

/// The proxy before a provider.
pub(crate) struct Proxy {
    pub(crate) url: String,
    serving: tokio::task::JoinHandle<()>,
    hold: Arc<Mutex<Option<Hold>>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Between {
    observer: Arc<Observer>,
    provider: String,
    http: reqwest::Client,
    hold: Arc<Mutex<Option<Hold>>>,
}

impl Proxy {
    pub(crate) async fn start(observer: &Arc<Observer>, provider: &Provider) -> Self {
        let hold = Arc::<Mutex<Option<Hold>>>::default();
        let (observer, provider) = (Arc::clone(observer), provider.running.url());
        let between = Between { observer, provider, http: client(), hold: Arc::clone(&hold) };
        let (url, serving) = serve(Router::new().fallback(pass).with_state(between)).await;
        Self { url, serving, hold }
    }

    pub(crate) fn hold(&self, hold: Option<Hold>) {
        *self.hold.lock().expect("nobody panicked") = hold;
    }
}

async fn pass(State(between): State<Between>, request: Request<Body>) -> Response {
    let (asked, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a short body");
    let call = name(&asked.method, asked.uri.path());
    if between.observer.pass(call, Side::Before).await.is_err() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let hold = *between.hold.lock().expect("nobody panicked");
    if let Some(hold) = hold.filter(|hold| hold.call == call) {
        between.observer.until(hold.until).await;
    }
    let url = format!("{}{}", between.provider, asked.uri.path_and_query().expect("a path"));
    let mut headers = asked.headers;
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    let answer = between.http.request(asked.method, url).headers(headers).body(body).send().await.expect("an answer");
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    let body = answer.bytes().await.expect("all of it");
    if between.observer.pass(call, Side::After).await.is_err() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (status, headers, body).into_response()
}

/// A shop that takes webhooks.
pub(crate) struct Hooks {
    pub(crate) url: String,
    serving: tokio::task::JoinHandle<()>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hooks {
    pub(crate) async fn start(observer: &Arc<Observer>) -> Self {
        let taken = Arc::<Mutex<Vec<Value>>>::default();
        let state = (Arc::clone(observer), Arc::clone(&taken));
        let (url, serving) = serve(Router::new().route("/hook", post(take)).with_state(state)).await;
        Self { url: format!("{url}/hook"), serving, taken }
    }

    /// The keys of what was told of an order, doubles and all.
    pub(crate) fn of(&self, order: &str) -> Vec<String> {
        let taken = self.taken.lock().expect("nobody panicked");
        let of = taken.iter().filter(|event| event["subject"] == order);
        of.map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    }
}

/// Whoever is asked first, and what came.
type Sink = (Arc<Observer>, Arc<Mutex<Vec<Value>>>);

async fn take(State((observer, taken)): State<Sink>, body: Bytes) -> StatusCode {
    let event = serde_json::from_slice(&body).expect("an event");
    if observer.pass("webhook", Side::Before).await.is_err() {
        return StatusCode::BAD_GATEWAY;
    }
    taken.lock().expect("nobody panicked").push(event);
    match observer.pass("webhook", Side::After).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}
