//! Stripe's API, as much of it as orders need: payment intents and refunds, form-encoded, at a pinned version.
//!
//! **What it is.** One function a call, and one that tells answers apart. The order's id and generation travel in the intent's metadata.
//!
//! **Owns** Stripe's words. **Must never** say *no* for an answer that does not say so for certain, follow a redirect, or retry by itself.
//! **Read next**: [`super::Failure`].

use std::time::Duration;

use async_trait::async_trait;
use client_sdk::PaymentToken;
use ledger_core::ReservationId;
use ledger_core::order::{Money, ProviderId};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::{ClearSecret, Failure, Intent, IntentStatus, Mode, PaymentProvider, Refund, RefundStatus};
use crate::limits::{ANSWER_BYTES_MAX, PROVIDER_RETRY_AFTER_MAX};

/// The version of the API this file is written against.
pub const API_VERSION: &str = "2024-06-20";
/// Metadata that names the order.
pub const ORDER: &str = "holdfast_order";
/// Metadata that names the order's generation.
pub const GENERATION: &str = "holdfast_generation";

/// Where Stripe is, and how it is asked.
#[derive(Clone)]
pub struct Settings {
    /// Base address; another one for tests.
    pub url: String,
    /// The secret key.
    pub secret_key: String,
    /// When money moves.
    pub mode: Mode,
    /// Kinds of payment methods, as `card`.
    pub methods: Vec<String>,
    /// Where buyers come back to after acting at their bank; none: only methods that need no redirect.
    pub return_url: Option<String>,
    /// Longest call; the engine has one of its own.
    pub timeout: Duration,
}

/// The adapter.
pub struct Stripe {
    settings: Settings,
    http: reqwest::Client,
}

/// An intent, as Stripe writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct WireIntent {
    id: String,
    status: String,
    #[serde(default)]
    amount_received: u64,
    #[serde(default)]
    currency: String,
    #[serde(default)]
    client_secret: Option<ClearSecret>,
    #[serde(default)]
    cancellation_reason: Option<String>,
    #[serde(default)]
    last_payment_error: Option<WireError>,
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct WireError {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct WireFailure {
    #[serde(default)]
    error: WireError,
}

#[derive(Debug, Deserialize)]
struct WireRefund {
    id: String,
    #[serde(default)]
    amount: u64,
    #[serde(default)]
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireList<T> {
    data: Vec<T>,
}

impl WireError {
    fn word(&self) -> String {
        let word = self.decline_code.as_ref().or(self.code.as_ref()).or(self.message.as_ref());
        word.cloned().unwrap_or_else(|| self.kind.clone())
    }
}

impl TryFrom<WireIntent> for Intent {
    type Error = String;
    fn try_from(wire: WireIntent) -> Result<Self, String> {
        let status = match wire.status.as_str() {
            "requires_payment_method" | "requires_confirmation" => IntentStatus::Unconfirmed,
            "requires_action" | "requires_source_action" => IntentStatus::RequiresAction,
            "processing" => IntentStatus::Processing,
            "requires_capture" => IntentStatus::RequiresCapture,
            "succeeded" => IntentStatus::Succeeded,
            "canceled" => IntentStatus::Canceled,
            other => return Err(format!("an intent's status is {other:?}")),
        };
        let received = match status {
            IntentStatus::Succeeded => {
                Some(Money::new(wire.amount_received, &wire.currency).map_err(|e| e.to_string())?)
            }
            _ => None,
        };
        Ok(Self {
            id: ProviderId::new(&wire.id).map_err(|e| e.to_string())?,
            status,
            received,
            declined: wire.last_payment_error.as_ref().map(WireError::word),
            abandoned: wire.cancellation_reason.as_deref() == Some("abandoned"),
            secret: wire.client_secret,
            order: wire.metadata.get(ORDER).and_then(|id| id.parse().ok()),
            generation: wire.metadata.get(GENERATION).and_then(|n| n.parse().ok()),
        })
    }
}

fn all_refunds(list: WireList<WireRefund>) -> Result<Option<Refund>, String> {
    let status = |refund: &WireRefund| match refund.status.as_deref() {
        Some("succeeded") => RefundStatus::Succeeded,
        Some("failed" | "canceled") => RefundStatus::Failed,
        _ => RefundStatus::Pending,
    };
    let of = |wanted| list.data.iter().filter(move |refund| status(refund) == wanted);
    // The first of the best kind names it; what was given back counts together.
    let kinds = [RefundStatus::Pending, RefundStatus::Succeeded, RefundStatus::Failed];
    let Some((kind, refund)) = kinds.into_iter().find_map(|kind| of(kind).next().map(|refund| (kind, refund))) else {
        return Ok(None);
    };
    let id = ProviderId::new(&refund.id).map_err(|e| e.to_string())?;
    Ok(Some(Refund { id, status: kind, minor: of(kind).map(|refund| refund.amount).sum() }))
}

impl Stripe {
    /// An adapter.
    ///
    /// # Errors
    /// The HTTP client cannot be made (no roots of trust, for example), or the secret key cannot stand in a header.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        crate::process::one_crypto_provider();
        let http = reqwest::Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { settings, http })
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        self.http.request(method, url).bearer_auth(&self.settings.secret_key).header("Stripe-Version", API_VERSION)
    }
    fn post(&self, path: &str, form: &[(String, String)]) -> RequestBuilder {
        self.ask(Method::POST, path).form(form)
    }

    async fn intent(&self, request: RequestBuilder) -> Result<Intent, Failure> {
        Intent::try_from(answer::<WireIntent>(request).await?).map_err(|why| Failure::Unknown { why })
    }
}

fn pair(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}

async fn answer<T: for<'a> Deserialize<'a>>(request: RequestBuilder) -> Result<T, Failure> {
    let response = request.send().await.map_err(|e| lost(&e))?;
    let status = response.status();
    if status.is_success() {
        let body = body(response).await?;
        // Something happened; what, has to be looked up.
        return serde_json::from_slice(&body)
            .map_err(|e| Failure::Unknown { why: format!("answer not understood: {e}") });
    }
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
    let after = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?));
    let body = body(response).await.unwrap_or_default();
    let error = serde_json::from_slice::<WireFailure>(&body).unwrap_or_default().error;
    Err(match told(status, &error, after) {
        Failure::Unknown { why } if replayed => Failure::Replayed { why },
        failure => failure,
    })
}

/// Seconds, and no longer than the worker would wait; a date is not read.
fn retry_after(text: &str) -> Option<Duration> {
    let digits = Some(text.trim()).filter(|text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()))?;
    // Digits that are no number are too many.
    let seconds = digits.parse().unwrap_or(u64::MAX);
    Some(Duration::from_secs(seconds).min(PROVIDER_RETRY_AFTER_MAX))
}

async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| lost(&e))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Unknown { why: "the answer is too long".into() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// No answer: it is certain that nothing happened only if there never was a connection.
fn lost(error: &reqwest::Error) -> Failure {
    let why = error.to_string();
    if error.is_connect() || error.is_builder() { Failure::NotSent { why } } else { Failure::Unknown { why } }
}

/// What an answer that is no success says.
fn told(status: StatusCode, error: &WireError, after: Option<Duration>) -> Failure {
    let why = format!("{}: {}", status.as_u16(), error.word());
    match status.as_u16() {
        // Without an error of Stripe's own it is somebody else's answer, and says nothing.
        400 | 402 | 404..=428 if error.kind.is_empty() => Failure::Unknown { why },
        402 => Failure::Declined { code: error.word() },
        401 | 403 => Failure::Config { why },
        404 => Failure::Missing,
        429 => Failure::RateLimited { after: after.unwrap_or(Duration::from_secs(1)) },
        400 if error.kind == "idempotency_error" => Failure::KeyTaken,
        400 | 410 | 422 => Failure::No { why: error.word() },
        // 409: another call with the same key is under way. 3xx, 5xx: whatever it was, look.
        _ => Failure::Unknown { why },
    }
}

#[async_trait]
impl PaymentProvider for Stripe {
    async fn create_intent(
        &self,
        order: ReservationId,
        generation: u32,
        amount: Money,
        key: &str,
    ) -> Result<Intent, Failure> {
        let capture = match self.settings.mode {
            Mode::Charge => "automatic",
            Mode::AuthoriseThenCapture => "manual",
        };
        let mut form = vec![
            pair("amount", amount.minor().to_string()),
            pair("currency", amount.currency().to_ascii_lowercase()),
            pair("capture_method", capture),
            pair(format!("metadata[{ORDER}]"), order.to_string()),
            pair(format!("metadata[{GENERATION}]"), generation.to_string()),
        ];
        let methods = self.settings.methods.iter().enumerate();
        form.extend(methods.map(|(n, method)| pair(format!("payment_method_types[{n}]"), method)));
        self.intent(self.post("/v1/payment_intents", &form).header("Idempotency-Key", key)).await
    }

    async fn confirm(&self, intent: &ProviderId, token: &PaymentToken, key: &str) -> Result<Intent, Failure> {
        let mut form = vec![pair("payment_method", &token.payment_method)];
        form.extend(self.settings.return_url.as_ref().map(|url| pair("return_url", url)));
        let path = format!("/v1/payment_intents/{intent}/confirm");
        self.intent(self.post(&path, &form).header("Idempotency-Key", key)).await
    }

    async fn retrieve(&self, intent: &ProviderId) -> Result<Intent, Failure> {
        self.intent(self.ask(Method::GET, &format!("/v1/payment_intents/{intent}"))).await
    }

    async fn find_by_order(&self, order: ReservationId) -> Result<Vec<Intent>, Failure> {
        // Both the id and its frame are plain ASCII but for what is written as %xx here.
        let query = format!("metadata%5B%27{ORDER}%27%5D%3A%27{order}%27");
        let request = self.ask(Method::GET, &format!("/v1/payment_intents/search?limit=100&query={query}"));
        let list = answer::<WireList<WireIntent>>(request).await?;
        let intents = list.data.into_iter().map(Intent::try_from).collect::<Result<Vec<_>, _>>();
        intents.map_err(|why| Failure::Unknown { why })
    }

    async fn cancel(&self, intent: &ProviderId) -> Result<Intent, Failure> {
        let form = [pair("cancellation_reason", "abandoned")];
        self.intent(self.post(&format!("/v1/payment_intents/{intent}/cancel"), &form)).await
    }

    async fn capture(&self, intent: &ProviderId, key: &str) -> Result<Intent, Failure> {
        let path = format!("/v1/payment_intents/{intent}/capture");
        self.intent(self.post(&path, &[]).header("Idempotency-Key", key)).await
    }

    async fn refund(&self, order: ReservationId, payment: &ProviderId, key: &str) -> Result<Refund, Failure> {
        let form = [pair("payment_intent", payment.as_str()), pair(format!("metadata[{ORDER}]"), order.to_string())];
        let request = self.post("/v1/refunds", &form).header("Idempotency-Key", key);
        let refund = answer::<WireRefund>(request).await?;
        let all = all_refunds(WireList { data: vec![refund] }).map_err(|why| Failure::Unknown { why })?;
        all.ok_or(Failure::Unknown { why: "no refund in the answer".into() })
    }

    async fn find_refund(&self, payment: &ProviderId) -> Result<Option<Refund>, Failure> {
        let request = self.ask(Method::GET, &format!("/v1/refunds?limit=100&payment_intent={payment}"));
        all_refunds(answer(request).await?).map_err(|why| Failure::Unknown { why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: &str, code: &str) -> WireError {
        WireError { kind: kind.into(), code: Some(code.into()), ..WireError::default() }
    }

    #[test]
    fn any_retry_after_is_bounded() {
        let max = Some(PROVIDER_RETRY_AFTER_MAX);
        assert_eq!((retry_after("0"), retry_after(" 7 ")), (Some(Duration::ZERO), Some(Duration::from_secs(7))));
        for much in ["3601", "2147483648", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(retry_after(much), max, "{much}");
        }
        for none in ["", "-1", "1.5", "+1", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            assert_eq!(retry_after(none), None, "{none}");
        }
    }

    #[test]
    fn only_what_is_certain_is_a_no() {
        let told = |status: u16, error: &WireError| told(StatusCode::from_u16(status).expect("a status"), error, None);
        let stripe = error("invalid_request_error", "amount_too_small");
        assert_eq!(told(400, &stripe), Failure::No { why: "amount_too_small".into() });
        assert_eq!(told(400, &error("idempotency_error", "")), Failure::KeyTaken);
        assert_eq!(
            told(402, &error("card_error", "card_declined")),
            Failure::Declined { code: "card_declined".into() }
        );
        assert_eq!(told(404, &stripe), Failure::Missing);
        assert!(matches!(told(401, &stripe), Failure::Config { .. }));
        assert_eq!(told(429, &stripe), Failure::RateLimited { after: Duration::from_secs(1) });
        for unsure in [300, 307, 409, 418, 500, 502, 503, 504] {
            assert!(matches!(told(unsure, &stripe), Failure::Unknown { .. }), "{unsure}");
        }
        for status in [400, 402, 404] {
            let told = told(status, &WireError::default());
            assert!(matches!(told, Failure::Unknown { .. }), "a proxy's page is no answer: {told:?}");
        }
    }

    #[test]
    fn an_intent_is_read_with_what_the_step_needs() {
        let text = r#"{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":500,"amount_received":500,"currency":"eur",
            "client_secret":"pi_1_secret_x","metadata":{"holdfast_order":"00000000-03e8-7007-8000-000000000001","holdfast_generation":"2"}}"#;
        let intent = Intent::try_from(serde_json::from_str::<WireIntent>(text).expect("JSON")).expect("an intent");
        assert_eq!(intent.status, IntentStatus::Succeeded);
        assert_eq!(intent.received, Some(Money::new(500, "EUR").expect("money")));
        assert_eq!(intent.generation, Some(2));
        assert!(intent.order.is_some());
        assert!(!format!("{intent:?}").contains("secret_x"), "secrets are not logged");
        let unknown = text.replace("succeeded", "levitating");
        assert!(Intent::try_from(serde_json::from_str::<WireIntent>(&unknown).expect("JSON")).is_err());
    }

    #[test]
    fn refunds_of_a_payment_count_together() {
        let list = |text: &str| all_refunds(serde_json::from_str(text).expect("JSON")).expect("ids");
        assert_eq!(list(r#"{"data":[]}"#), None);
        let two = list(
            r#"{"data":[{"id":"re_1","amount":3,"status":"succeeded"},{"id":"re_2","amount":4,"status":"succeeded"}]}"#,
        );
        assert_eq!(two.map(|r| (r.status, r.minor)), Some((RefundStatus::Succeeded, 7)));
        let pending = list(
            r#"{"data":[{"id":"re_1","amount":3,"status":"succeeded"},{"id":"re_2","amount":4,"status":"pending"}]}"#,
        );
        assert_eq!(pending.map(|r| r.status), Some(RefundStatus::Pending));
    }
}
