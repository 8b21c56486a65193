//! HTTP/1.1 connections over the network seam, none of them patient without a bound.
//!
//! **Owns** how long a client may take over its headers and its body, how many connections there are, and their end at shutdown.
//! **Must never** limit how long an answer may take: calls have deadlines of their own. **Read next**: [`super`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{ConnectInfo, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ledger_raft::seam::{BoxIo, NetListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::Peer;
use super::problem::Problem;
use crate::grpc::connection::accept;
use crate::limits::{HTTP_BODY_BYTES, HTTP_BODY_WITHIN, HTTP_CONNECTIONS_MAX, HTTP_HEADERS_WITHIN};

/// Serves `app` until `shutdown` completes and the requests under way have ended.
///
/// # Errors
/// None today; broken connections are not errors.
pub(super) async fn serve(
    app: Router,
    mut listener: Box<dyn NetListener>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let accepting = async {
        loop {
            // Nobody closes the semaphore.
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let (io, peer) = accept(listener.as_mut()).await;
            let served = serve_one(app.clone(), io, peer, stop.clone());
            connections.spawn(async move {
                served.await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = accepting => {}
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn serve_one(app: Router, io: BoxIo, peer: SocketAddr, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(Peer(peer)));
        app.clone().oneshot(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HTTP_HEADERS_WITHIN);
    let connection = server.serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// The request with its body read, so that no handler waits for a client that dribbles.
///
/// # Errors
/// The answer to a client that was too slow, sent too much, or broke off.
pub(super) async fn whole(request: Request) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(HTTP_BODY_WITHIN, read(body.into_data_stream())).await {
        Ok(bytes) => Ok(Request::from_parts(parts, Body::from(bytes?))),
        Err(_) => {
            let why = format!("the body did not arrive within {} s; nothing was done", HTTP_BODY_WITHIN.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request-too-slow", why))
        }
    }
}

async fn read(mut body: BodyDataStream) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "malformed-body", e.to_string()))?;
        if first.len() + all.len() + part.len() > HTTP_BODY_BYTES {
            let why = format!("a body has at most {HTTP_BODY_BYTES} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", why));
        }
        // Most bodies come in one part, which is taken as it is.
        if first.is_empty() && all.is_empty() {
            first = part;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&part);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Closes the connection behind an answer to half a request: what follows on it is no request.
pub(super) fn closing(mut response: axum::response::Response) -> axum::response::Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
