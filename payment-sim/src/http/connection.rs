//! HTTP/1.1 connections, among them those that end without an answer.
//!
//! **Owns** accepting, how many connections there are, and their end. **Must never** answer a call that is to stay unanswered.
//! **Read next**: [`super::call`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::limits::{CONNECTIONS_MAX, HEADERS_WITHIN};

/// Marks a response that is not to be sent: its connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered;

/// The call is not answered, on order.
#[derive(Debug, thiserror::Error)]
#[error("not answered, as ordered")]
struct NotAnswered;

/// Accepts until `stop`.
pub(crate) async fn serve(app: Router, listener: TcpListener, stop: CancellationToken, connections: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let (app, stop) = (app.clone(), stop.clone());
        connections.spawn(async move {
            serve_one(app, stream, stop).await;
            drop(place);
        });
    }
}

async fn serve_one(app: Router, stream: TcpStream, stop: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return; // It is gone already.
    }
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = app.clone().oneshot(request.map(Body::new));
        async move { sent(answer.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn sent(answer: Result<Response, Infallible>) -> Result<Response, NotAnswered> {
    let Ok(response) = answer;
    if response.extensions().get::<Unanswered>().is_some() { Err(NotAnswered) } else { Ok(response) }
}
