//! HTTP/1.1 on a gated port.
//!
//! **What it is.** hyper's server over the streams of a [`PortGate`], and axum's router behind it.
//!
//! **Owns** how long a client may take over its headers, and the end of connections at shutdown.
//! **Must never** limit how long an answer may take: that is the routes' to know. **Read next**:
//! [`crate::port`].

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderValue, Response, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::gate::Kind;
use crate::guarded::GuardedIo;
use crate::limits::{HTTP_HEADERS_WITHIN, PROBE_WITHIN};
use crate::port::{Accept, Call, PortGate};

/// An extension of requests on a connection beyond the port's bound: only health and metrics may be
/// answered.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOnly;

/// Serves `app` until `shutdown` completes and the requests under way have ended. Requests carry
/// the peer's address as `ConnectInfo<SocketAddr>`, and [`ProbeOnly`] where it applies.
pub async fn serve_http<L: Accept>(
    app: Router,
    mut listener: L,
    gate: Arc<PortGate>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let accepting = async {
        loop {
            let (io, peer) = gate.accept(&mut listener).await;
            let (app, stop) = (app.clone(), stop.clone());
            connections.spawn(async move {
                // One that sends nothing is no request under way.
                let begun = tokio::select! {
                    begun = io.begun() => begun,
                    () = stop.cancelled() => return,
                };
                match begun {
                    Ok(io) => serve_one(app, io, peer, stop).await,
                    Err(error) => tracing::debug!(%peer, %error, "a connection ended before it sent anything"),
                }
            });
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = accepting => {}
    }
    // Who connects from here on is refused, and asks another node.
    drop(listener);
    stop.cancel();
    connections.close();
    connections.wait().await;
}

async fn serve_one<Io>(app: Router, io: GuardedIo<Io>, peer: SocketAddr, stop: CancellationToken)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let place = io.place().clone();
    let probe = place.kind() == Kind::Probe;
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        // One call a connection at a time: there are fewer connections than calls may be under way.
        let call = place.call().ok();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        if probe {
            request.extensions_mut().insert(ProbeOnly);
        }
        let answer = app.clone().oneshot(request);
        async move {
            let mut response: Response<Body> = answer.await?;
            if probe {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response.map(|body| InCall::new(body, call)))
        }
    });
    let mut server = http1::Builder::new();
    let headers_within = if probe { PROBE_WITHIN } else { HTTP_HEADERS_WITHIN };
    server.timer(TokioTimer::new()).header_read_timeout(headers_within);
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

/// A body of an answer whose call ends with it.
pub struct InCall<B> {
    body: B,
    _call: Option<Call>,
}

impl<B> InCall<B> {
    /// A body and its call.
    pub fn new(body: B, call: impl Into<Option<Call>>) -> Self {
        Self { body, _call: call.into() }
    }
}

impl<B: HttpBody + Unpin> HttpBody for InCall<B> {
    type Data = B::Data;
    type Error = B::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
