//! A receiver of the workers' webhooks that keeps their ids, so that what buyers were told can be counted.
//!
//! **What it is.** HTTP/1.1 on loopback. The signature is not checked: that is the tests' business, and would be the receiver's cost.
//! **Owns** the ids of the events it was sent. **Must never** refuse one that names an order. **Read next**: [`super::mails`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use client_sdk::ReservationId;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;

/// Events by the order they are about: how often it was told of.
type Told = HashMap<ReservationId, u32>;

/// The receiver.
pub(crate) struct Hooks {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    subject: &'a str,
}

impl Hooks {
    pub(crate) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let told = Arc::<Mutex<Told>>::default();
        let kept = told.clone();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Answers are small and awaited: without this they would wait for the next segment.
                drop(stream.set_nodelay(true));
                let kept = kept.clone();
                let service = hyper::service::service_fn(move |request| take(request, kept.clone()));
                connections
                    .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, told, serving })
    }

    /// Where workers send to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/orders", self.address)
    }

    /// How often this order was told of.
    pub(crate) fn of(&self, id: ReservationId) -> u32 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or(0)
    }
}

async fn take(
    request: http::Request<Incoming>,
    kept: Arc<Mutex<Told>>,
) -> Result<http::Response<Empty<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let order = serde_json::from_slice::<Event<'_>>(&body).ok().and_then(|event| event.subject.parse().ok());
    let mut answer = http::Response::new(Empty::new());
    match order {
        Some(order) => *kept.lock().unwrap_or_else(PoisonError::into_inner).entry(order).or_default() += 1,
        None => *answer.status_mut() = http::StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}
