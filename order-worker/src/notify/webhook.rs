//! Signed webhooks to shops: CloudEvents 1.0 in structured JSON.
//!
//! **What it is.** `POST` with `Content-Type: application/cloudevents+json` and `Holdfast-Signature: t=…,v1=…`. The event's id is the
//! same for every sending of the same ending of the same order, so that receivers can drop doubles.
//!
//! **Owns** the form of the event, which is published. **Must never** follow redirects, or carry what was sealed.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Message, Notifier};
use crate::payment::{Failure, signature};
use crate::seams::Seams;

/// Name of the signature's header.
pub const SIGNATURE: &str = "Holdfast-Signature";

/// Where webhooks go.
#[derive(Clone)]
pub struct Settings {
    /// Always there; none: only where contacts say.
    pub url: Option<String>,
    /// Whether a contact may name an address of its own. Only if whoever seals contacts is trusted: the worker connects to it.
    pub from_contact: bool,
    /// What signatures are made with.
    pub secret: String,
    /// `source` of the events.
    pub source: String,
    /// Longest call.
    pub timeout: Duration,
}

/// The adapter.
pub struct Webhook {
    settings: Settings,
    seams: Seams,
    http: reqwest::Client,
}

impl Webhook {
    /// An adapter.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(settings: Settings, seams: Seams) -> Result<Self, reqwest::Error> {
        crate::process::one_crypto_provider();
        let http =
            reqwest::Client::builder().timeout(settings.timeout).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { settings, seams, http })
    }
}

/// The event that tells how an order ended.
pub fn event(message: &Message, source: &str) -> Value {
    let lines = message.lines.iter().map(|line| {
        let sale = line.offer.sale.as_ref().map(ToString::to_string);
        json!({ "sku": line.offer.sku.as_str(), "sale": sale, "quantity": line.quantity.get() })
    });
    json!({
        "specversion": "1.0",
        "id": message.key,
        "source": source,
        "type": format!("holdfast.order.{}", message.ending.name()),
        "subject": message.order.to_string(),
        "datacontenttype": "application/json",
        "data": {
            "order": message.order.to_string(),
            "ending": message.ending.name(),
            "amount": message.amount.minor(),
            "currency": message.amount.currency(),
            "lines": lines.collect::<Vec<_>>(),
            "linked": message.linked.map(|id| id.to_string()),
        },
    })
}

#[async_trait]
impl Notifier for Webhook {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        let theirs = message.contact.webhook.as_ref().filter(|_| self.settings.from_contact);
        let Some(url) = theirs.or(self.settings.url.as_ref()) else { return Ok(()) };
        let body = event(message, &self.settings.source).to_string();
        let request = self
            .http
            .post(url)
            .header("content-type", "application/cloudevents+json; charset=utf-8")
            .header(SIGNATURE, signature::sign(&self.settings.secret, self.seams.unix_s(), body.as_bytes()))
            .body(body);
        let response = request.send().await.map_err(|e| match e {
            // The address may be a secret of the contact's.
            e if e.is_builder() => Failure::No { why: "the webhook's address is none".into() },
            e if e.is_connect() => Failure::NotSent { why: e.without_url().to_string() },
            e => Failure::Unknown { why: e.without_url().to_string() },
        })?;
        let status = response.status().as_u16();
        match status {
            200..=299 => Ok(()),
            410 => Err(Failure::No { why: "the receiver wants no more (410)".into() }),
            429 => Err(Failure::RateLimited { after: Duration::from_secs(30) }),
            _ => Err(Failure::Unknown { why: format!("the receiver answered {status}") }),
        }
    }
}
