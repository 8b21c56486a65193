//! What the book holds, and the entry that changes it.
//!
//! **Owns** the shapes of the journal's entries. They are what is on disk: renaming a field here changes the format, and a test
//! with golden bytes says so. **Must never** hold what can be worked out from the rest. **Read next**: [`super::journal`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ids::{ChargeId, EventId, IntentId, RefundId};
use crate::methods::{Failure, Method};

/// An amount in the currency's smallest unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Minor(u64);

impl Minor {
    /// Nothing.
    pub(crate) const ZERO: Self = Self(0);

    /// So many units.
    pub(crate) fn new(units: u64) -> Self {
        Self(units)
    }

    /// So many units.
    pub(crate) fn units(self) -> u64 {
        self.0
    }

    /// Together. Amounts are bounded far below 2⁶⁴, so this cannot overflow.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// What is left, or nothing when `other` is more.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Three small letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Currency([u8; 3]);

impl Currency {
    /// The letters.
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_alphabetic) => {
                Ok(Self(letters.map(|l| l.to_ascii_lowercase())))
            }
            _ => Err("a currency has three letters"),
        }
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The caller's own words on an object, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata(Option<Arc<[Pair]>>);

/// A key and its value.
pub(crate) type Pair = (Box<str>, Box<str>);

impl Metadata {
    /// These pairs.
    pub(crate) fn new(pairs: Vec<Pair>) -> Self {
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    /// The pairs.
    pub(crate) fn pairs(&self) -> &[Pair] {
        self.0.as_deref().unwrap_or_default()
    }

    /// What `key` says.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs().iter().find(|(k, _)| **k == *key).map(|(_, value)| &**value)
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.pairs().len()))?;
        for (key, value) in self.pairs() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Metadata::new(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// When money moves: with the confirmation, or by a capture after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMethod {
    #[default]
    Automatic,
    Manual,
}

/// Stripe's statuses of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

impl Status {
    /// As Stripe writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::Processing => "processing",
            Self::RequiresCapture => "requires_capture",
            Self::Canceled => "canceled",
            Self::Succeeded => "succeeded",
        }
    }
}

/// Why an intent was cancelled, or money given back, in the caller's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    Duplicate,
    Fraudulent,
    RequestedByCustomer,
    Abandoned,
}

/// A payment that is meant.
///
/// * `received` > 0 only when `succeeded`; `capturable` > 0 only when `requires_capture`; neither exceeds `amount`.
/// * `canceled_ms` is there exactly when `canceled`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: IntentId,
    pub(crate) created_ms: i64,
    pub(crate) status: Status,
    pub(crate) amount: Minor,
    pub(crate) currency: Currency,
    pub(crate) capture: CaptureMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<Method>,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) received: Minor,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) capturable: Minor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charge: Option<ChargeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canceled_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Why>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) return_url: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub(crate) metadata: Metadata,
}

/// The last attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) why: Failure,
    pub(crate) method: Method,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charge: Option<ChargeId>,
}

/// One attempt to move money.
///
/// * A failed one captured nothing; `refunded` ≤ `captured` ≤ `amount`; what was voided was not captured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: ChargeId,
    pub(crate) intent: IntentId,
    pub(crate) created_ms: i64,
    pub(crate) amount: Minor,
    pub(crate) currency: Currency,
    pub(crate) method: Method,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) captured: Minor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) captured_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) refunded: Minor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) voided_ms: Option<i64>,
}

/// Money given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: RefundId,
    pub(crate) intent: IntentId,
    pub(crate) charge: ChargeId,
    pub(crate) created_ms: i64,
    pub(crate) amount: Minor,
    pub(crate) currency: Currency,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Why>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub(crate) metadata: Metadata,
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EventKind {
    #[serde(rename = "payment_intent.succeeded")]
    Succeeded,
    #[serde(rename = "payment_intent.payment_failed")]
    PaymentFailed,
    #[serde(rename = "payment_intent.requires_action")]
    RequiresAction,
    #[serde(rename = "payment_intent.processing")]
    Processing,
    #[serde(rename = "payment_intent.amount_capturable_updated")]
    AmountCapturableUpdated,
    #[serde(rename = "payment_intent.canceled")]
    Canceled,
    #[serde(rename = "charge.refunded")]
    ChargeRefunded,
    #[serde(rename = "refund.created")]
    RefundCreated,
}

impl EventKind {
    /// As Stripe writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "payment_intent.succeeded",
            Self::PaymentFailed => "payment_intent.payment_failed",
            Self::RequiresAction => "payment_intent.requires_action",
            Self::Processing => "payment_intent.processing",
            Self::AmountCapturableUpdated => "payment_intent.amount_capturable_updated",
            Self::Canceled => "payment_intent.canceled",
            Self::ChargeRefunded => "charge.refunded",
            Self::RefundCreated => "refund.created",
        }
    }
}

/// One event; its object is that of the entry it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: EventId,
    pub(crate) kind: EventKind,
    /// Somebody is to be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) send: bool,
}

/// An idempotency key and the answer it keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyUse {
    pub(crate) key: Box<str>,
    /// Fingerprint of endpoint and parameters.
    pub(crate) print: u64,
    /// HTTP status.
    pub(crate) status: u16,
    /// The answer, when it is not the entry's own object.
    pub(crate) answer: KeptAnswer,
}

/// An answer as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptAnswer {
    /// The intent of the same entry.
    Intent,
    /// The refund of the same entry.
    Refund,
    /// These bytes.
    Body(Box<RawValue>),
}

/// How one delivery of an event went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivered {
    pub(crate) event: EventId,
    pub(crate) attempt: u32,
    /// HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    pub(crate) end: DeliveryEnd,
}

/// What follows from a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryEnd {
    /// It arrived.
    Arrived,
    /// It will be tried again.
    Again,
    /// It will not be tried again.
    GivenUp,
    /// The behaviour in effect, or a bound, kept it from being tried.
    Dropped,
}

/// The first entry of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Of this format.
    pub(crate) version: u32,
    pub(crate) salt: u32,
}

/// One change of the book. Everything in it happens at once; objects are as they are after it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) opened: Option<Opened>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) intent: Option<Intent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charge: Option<Charge>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refund: Option<Refund>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delivered: Option<Delivered>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn zero(amount: &Minor) -> bool {
    *amount == Minor::ZERO
}
