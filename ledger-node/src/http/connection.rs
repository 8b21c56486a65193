//! Requests over HTTP as they come in: whole, or refused.
//!
//! **Owns** how long a client may take over its body. **Must never** limit how long an answer may
//! take: calls have deadlines of their own. **Read next**: [`super`], [`service::listener`].

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::limits::{HTTP_BODY_BYTES, HTTP_BODY_WITHIN};

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
