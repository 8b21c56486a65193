//! One gRPC request of raw bytes, and what came back of it.
//!
//! **What it is.** The request goes through the channel as a body that was put together by hand, below every encoder: any bytes as any number of messages.
//! What comes back is read the same way, down to the trailers.
//!
//! **Owns** the framing. **Must never** judge: [`super::judge`] does. **Read next**: [`super::judge`].

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

/// A call that has no answer by then is given up.
pub(super) const WITHIN: Duration = Duration::from_secs(6);
/// A stream that never ends by itself is read for so long.
const STREAM_WITHIN: Duration = Duration::from_millis(400);
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What an answer says.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// The status of HTTP.
    pub(super) http: u16,
    /// The status of gRPC; none: the stream was left before its end.
    pub(super) code: Option<i32>,
    /// Its words.
    pub(super) words: String,
    /// Whether its details are a typed answer.
    pub(super) typed: bool,
    /// The messages before it.
    pub(super) messages: Vec<Bytes>,
}

/// What became of a call.
#[derive(Debug)]
pub(super) enum Fate {
    Answered(Answered),
    /// No answer: the connection broke, or nothing came in time.
    Unreached(String),
}

/// Bytes as one gRPC message.
pub(super) fn framed(messages: &[Vec<u8>]) -> Bytes {
    let mut body = BytesMut::with_capacity(messages.iter().map(|message| PREFIX + message.len()).sum());
    for message in messages {
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put_slice(message);
    }
    body.freeze()
}

/// Sends a body to a method. A stream of answers is read for a while only.
pub(super) async fn call(channel: &mut Channel, path: &str, body: Bytes, streaming: bool) -> Fate {
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(body)))
        .expect("a path of the descriptors");
    let sent = async {
        let ready = channel.ready().await.map_err(|e| e.to_string())?;
        ready.call(request).await.map_err(|e| settings::with_causes(&e))
    };
    let response = match tokio::time::timeout(WITHIN, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(why)) => return Fate::Unreached(why),
        Err(_) => return Fate::Unreached(format!("no answer within {WITHIN:?}")),
    };
    let mut answered = Answered { http: response.status().as_u16(), ..Answered::default() };
    take_status(&mut answered, response.headers());
    let within = if streaming { STREAM_WITHIN } else { WITHIN };
    let read = tokio::time::timeout(within, read(response.into_body(), &mut answered)).await;
    match read {
        Ok(Ok(())) => Fate::Answered(answered),
        Ok(Err(why)) => Fate::Unreached(why),
        Err(_) if streaming => Fate::Answered(answered),
        Err(_) => Fate::Unreached(format!("an answer began and did not end within {within:?}")),
    }
}

async fn read(mut body: Body, into: &mut Answered) -> Result<(), String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|status| settings::with_causes(&status))?.into_data() {
            Ok(data) => {
                bytes.put(data);
                while bytes.len() >= PREFIX {
                    let length = (&bytes[1..PREFIX]).get_u32() as usize;
                    if bytes.len() < PREFIX + length {
                        break;
                    }
                    bytes.advance(PREFIX);
                    into.messages.push(bytes.split_to(length).freeze());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    take_status(into, &trailers);
                }
            }
        }
    }
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(format!("the answer ends within a message, after {} bytes", bytes.len()))
    }
}

fn take_status(of: &mut Answered, headers: &HeaderMap<HeaderValue>) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(code) = text("grpc-status") {
        of.code = Some(code.parse().unwrap_or(-1));
        of.words = text("grpc-message").unwrap_or_default().to_owned();
        of.typed = headers.contains_key(ledger_proto::status::TYPED);
    }
}
