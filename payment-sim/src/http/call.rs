//! One call under `/v1`: who asks, what for, and how the provider behaves about it.
//!
//! **Owns** the order: outage, key of the API, 429, body, parameters, latency, the call itself, latency, silence. **Must never** let
//! a client that gave up stop a call that has begun: providers charge late. **Read next**: [`crate::sim`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use xxhash_rust::xxh3::xxh3_64;

use super::connection::Unanswered;
use crate::behaviour::{Fate, Hang, Kept, Operation, Outage};
use crate::book::shelf::{Locked, Ticket};
use crate::form::Form;
use crate::limits::{BODY_BYTES, BODY_WITHIN, KEY_CHARS_MAX};
use crate::params::{Ask, Expand};
use crate::refusal::Refusal;
use crate::sim::{Answer, Key, Sim};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// Why a call is not answered with its object.
enum Stop {
    Refused(Refusal),
    /// Not answered at all.
    Silent(Hang),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A call that may change the book.
pub(super) async fn change(
    sim: Arc<Sim>,
    operation: Operation,
    request: Request,
    read: impl FnOnce(Form) -> Result<(Ask, Expand), Refusal>,
) -> Response {
    let (parts, body) = request.into_parts();
    let envelope = Envelope::new(&sim, &parts.headers);
    let fate = sim.dice.call(operation);
    let changed = async {
        admit(&sim, &parts.headers, fate)?;
        let key = key(&parts.headers)?;
        let form = Form::parse(&whole(&parts.headers, body).await?)?;
        let print = form.print() ^ xxh3_64(parts.uri.path().as_bytes());
        let (ask, expand) = read(form)?;
        let key = key.map(|text| Key { text, print });
        let answer = run(&sim, ask, expand, key, fate).await?;
        match fate.then_hang {
            Some(hang) if answer.status == 200 && !answer.replayed => Err(Stop::Silent(hang)),
            _ => Ok(answer),
        }
    };
    match changed.await {
        Ok(answer) => envelope.answer(answer),
        Err(stop) => stopped(&sim, envelope, stop).await,
    }
}

/// Runs the call; where it is to take its time, apart from the client that may give up.
async fn run(sim: &Arc<Sim>, ask: Ask, expand: Expand, key: Option<Key>, fate: Fate) -> Result<Answer, Refusal> {
    if fate.latency_ms == 0 && fate.answer_latency_ms == 0 {
        return sim.run(&ask, expand, key, None, fate).await;
    }
    let sim = sim.clone();
    let apart = tokio::spawn(async move {
        let held = match &key {
            Some(key) if fate.latency_ms > 0 => Some(sim.hold(key)?),
            _ => None,
        };
        pause(&sim, fate.latency_ms).await?;
        let answer = sim.run(&ask, expand, key, held, fate).await;
        // Stopped or not, what is done is done.
        let _stopped = pause(&sim, fate.answer_latency_ms).await;
        answer
    });
    apart.await.unwrap_or_else(|_| Err(Refusal::unwell(false)))
}

async fn pause(sim: &Sim, ms: u64) -> Result<(), Refusal> {
    if ms == 0 {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(()),
        () = sim.stop.cancelled() => Err(Refusal::outage()),
    }
}

/// A call that only looks. `find` looks at the book; what it found is finished by `tell`, outside the lock and once all that it
/// saw is on disk.
pub(super) async fn look<T>(
    sim: Arc<Sim>,
    operation: Operation,
    request: Request,
    find: impl FnOnce(&Locked, Form) -> Result<(T, Ticket), Refusal>,
    tell: impl FnOnce(&Sim, T) -> Result<Vec<u8>, Refusal>,
) -> Response {
    let (parts, _) = request.into_parts();
    let envelope = Envelope::new(&sim, &parts.headers);
    let fate = sim.dice.call(operation);
    let looked = async {
        admit(&sim, &parts.headers, fate)?;
        let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes())?;
        pause(&sim, fate.latency_ms + fate.answer_latency_ms).await?;
        if let Some(kept) = fate.error {
            return Err(Refusal::unwell(kept == Kept::Yes).into());
        }
        let (found, ticket) = {
            let locked = sim.shelf.lock();
            locked.check().map_err(Refusal::from)?;
            find(&locked, form)?
        };
        ticket.on_disk().await.map_err(Refusal::from)?;
        Ok(Answer::ok(tell(&sim, found)?))
    };
    match looked.await {
        Ok(answer) => envelope.answer(answer),
        Err(stop) => stopped(&sim, envelope, stop).await,
    }
}

/// Whether the call is let in.
fn admit(sim: &Sim, headers: &HeaderMap, fate: Fate) -> Result<(), Stop> {
    match fate.outage {
        Outage::None => {}
        Outage::Refuse => return Err(Refusal::outage().into()),
        Outage::Close => return Err(Stop::Silent(Hang::Close)),
        Outage::Hang => return Err(Stop::Silent(Hang::Never)),
    }
    authorized(sim, headers)?;
    match fate.too_many {
        Some(retry_after) => Err(Refusal::too_many(retry_after).into()),
        None => Ok(()),
    }
}

async fn stopped(sim: &Sim, envelope: Envelope, stop: Stop) -> Response {
    match stop {
        Stop::Refused(refusal) => envelope.answer(refusal.into()),
        Stop::Silent(hang) => {
            if hang == Hang::Never {
                sim.stop.cancelled().await;
            }
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Unanswered);
            response
        }
    }
}

/// Whether the caller showed an API key that is accepted.
pub(super) fn authorized(sim: &Sim, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Refusal::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth \
             (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        ));
    };
    let value = value.to_str().unwrap_or_default();
    let (scheme, rest) = value.split_once(' ').unwrap_or_default();
    let key = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.trim().to_owned(),
        "basic" => base64(rest.trim()).and_then(|both| Some(both.split_once(':')?.0.to_owned())).unwrap_or_default(),
        _ => String::new(),
    };
    let accepted = match &sim.api_key {
        Some(only) => key == *only,
        None => key.strip_prefix("sk_test_").is_some_and(|rest| !rest.is_empty()),
    };
    if accepted {
        return Ok(());
    }
    let seen: String = key.chars().take(8).collect();
    Err(Refusal::unauthorized(&format!("Invalid API Key provided: {seen}***")))
}

/// Standard alphabet, padded or not.
fn base64(text: &str) -> Option<String> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

fn key(headers: &HeaderMap) -> Result<Option<Box<str>>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= KEY_CHARS_MAX => Ok(Some(text.into())),
        _ => {
            let message = format!("The idempotency key must have between 1 and {KEY_CHARS_MAX} visible characters.");
            Err(Refusal::parameter("", message))
        }
    }
}

async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let form = headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
        kind.as_bytes().get(..33).is_some_and(|k| k.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
    });
    if !form {
        let message = "Invalid request: the body has to be application/x-www-form-urlencoded.";
        return Err(Refusal::parameter("", message));
    }
    // No timer for what has arrived already, or is not there.
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES).collect());
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Refusal::too_large(format!("A body has at most {BODY_BYTES} bytes.")))
        }
        Ok(Err(_)) => Err(Refusal::parameter("", "The body broke off.")),
        Err(_) => Err(Refusal::too_slow()),
    }
}

/// What every answer carries besides its body.
pub(super) struct Envelope {
    request_id: HeaderValue,
    key: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

impl Envelope {
    /// For the answer to a request with these headers.
    pub(super) fn new(sim: &Sim, headers: &HeaderMap) -> Self {
        let request_id = sim.request_id().to_string();
        Self {
            request_id: HeaderValue::try_from(request_id).unwrap_or(HeaderValue::from_static("req_")),
            key: headers.get(IDEMPOTENCY_KEY).filter(|key| key.len() <= KEY_CHARS_MAX).cloned(),
            version: headers.get(STRIPE_VERSION).filter(|version| version.len() <= 64).cloned(),
        }
    }

    /// The answer as a response.
    pub(super) fn answer(self, answer: Answer) -> Response {
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("request-id"), self.request_id);
        if let Some(key) = self.key {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        if let Some(version) = self.version {
            headers.insert(STRIPE_VERSION, version);
        }
        if answer.replayed {
            headers.insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
        }
        if let Some(seconds) = answer.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(should) = answer.should_retry {
            let should = HeaderValue::from_static(if should { "true" } else { "false" });
            headers.insert(HeaderName::from_static("stripe-should-retry"), should);
        }
        if answer.status == 408 || answer.status == 413 {
            // What follows on the connection is the rest of a body, no request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_read() {
        for (text, plain) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("c2tfdGVzdF94Og==", "sk_test_x:")]
        {
            assert_eq!(super::base64(text).as_deref(), Some(plain), "{text}");
        }
        assert_eq!(super::base64("Zm9v!"), None);
    }
}
