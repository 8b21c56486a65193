//! Payment providers: what is asked of one, and how its answers are told apart.
//!
//! **What it is.** A trait in the provider's nouns (intents, captures, refunds) and two closed sets: where an intent stands, and how
//! a call failed. A new provider is one file beside [`stripe`].
//!
//! **Owns** those sets. **Must never** turn *unknown* into *no*: when it cannot be told, the call is [`Failure::Unknown`] and the
//! caller looks. **Read next**: [`crate::step`], [`stripe`].

pub mod signature;
pub mod stripe;

use std::time::Duration;

use async_trait::async_trait;
use client_sdk::PaymentToken;
use ledger_core::ReservationId;
use ledger_core::order::{Money, ProviderId};

/// When money moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Confirming charges.
    Charge,
    /// Confirming authorises, a capture charges. What was authorised for stock that is gone is voided instead of refunded.
    AuthoriseThenCapture,
}

/// Where an intent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntentStatus {
    /// Created, or its last attempt failed: nothing moves.
    Unconfirmed,
    /// The buyer must act.
    RequiresAction,
    /// The provider works on it; it can neither be relied on nor cancelled.
    Processing,
    /// Authorised, to be captured.
    RequiresCapture,
    /// Paid.
    Succeeded,
    /// Cancelled for ever: it never charges.
    Canceled,
}

impl IntentStatus {
    /// All of them, for tables.
    pub const ALL: [Self; 6] = [
        Self::Unconfirmed,
        Self::RequiresAction,
        Self::Processing,
        Self::RequiresCapture,
        Self::Succeeded,
        Self::Canceled,
    ];
}

/// What a buyer's client needs to act at the provider, in clear. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct ClearSecret(pub String);

impl std::fmt::Debug for ClearSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A provider's intent: one sum of money that is to be moved for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The provider's id; also what the payment is known by, once there is one.
    pub id: ProviderId,
    /// Where it stands.
    pub status: IntentStatus,
    /// What was received; none when nothing was.
    pub received: Option<Money>,
    /// Why its last attempt failed, if it did.
    pub declined: Option<String>,
    /// Whether workers cancelled it, since its order was given up.
    pub abandoned: bool,
    /// What the buyer's client needs to act at the provider.
    pub secret: Option<ClearSecret>,
    /// The order it was made for, as it says itself.
    pub order: Option<ReservationId>,
    /// The order's generation it was made for, as it says itself.
    pub generation: Option<u32>,
}

/// Where a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefundStatus {
    /// Under way.
    Pending,
    /// The money went back.
    Succeeded,
    /// It did not and will not.
    Failed,
}

impl RefundStatus {
    /// All of them, for tables.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Succeeded, Self::Failed];
}

/// What is known of giving a payment back, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The provider's id.
    pub id: ProviderId,
    /// Where it stands.
    pub status: RefundStatus,
    /// Minor units given back (or on their way), all refunds of the payment together.
    pub minor: u64,
}

/// How a call failed. The question is always: may it have happened?
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It happened, and the buyer's bank said no.
    #[error("declined: {code}")]
    Declined {
        /// The provider's code.
        code: String,
    },
    /// No, for certain, and nothing changed.
    #[error("refused: {why}")]
    No {
        /// The provider's words.
        why: String,
    },
    /// No such intent or payment, for certain.
    #[error("not known to the provider")]
    Missing,
    /// The key was used with other content. Nothing happened now; something did earlier.
    #[error("the idempotency key was used with other content")]
    KeyTaken,
    /// It may or may not have happened: look.
    #[error("unknown whether it happened: {why}")]
    Unknown {
        /// Why.
        why: String,
    },
    /// The failure of an earlier call under the same key, which the provider keeps and gives again: still unknown what it did, so look; but the
    /// provider is well. (Counted as illness, one such order would hold the breaker open for all.)
    #[error("unknown whether it happened; the provider repeats an earlier failure: {why}")]
    Replayed {
        /// Why.
        why: String,
    },
    /// It never left: nothing happened.
    #[error("not sent: {why}")]
    NotSent {
        /// Why.
        why: String,
    },
    /// Too many calls; nothing happened.
    #[error("rate limited")]
    RateLimited {
        /// When the provider wants to hear of us again.
        after: Duration,
    },
    /// The credentials (or the worker's configuration) are wrong; nothing happened, for any order.
    #[error("the configuration is wrong: {why}")]
    Config {
        /// The provider's words.
        why: String,
    },
    /// The breaker is open; nothing was sent.
    #[error("the breaker is open")]
    BreakerOpen {
        /// When it lets a call through to probe.
        after: Duration,
    },
}

impl Failure {
    /// Whether it says that the dependency is ill, as the breaker counts it.
    pub fn is_illness(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::NotSent { .. })
    }
    /// Whether it comes from behind the dependency's check of credentials, which were good then.
    pub fn proves_credentials(&self) -> bool {
        matches!(self, Self::Declined { .. } | Self::No { .. } | Self::Missing | Self::KeyTaken | Self::Replayed { .. })
    }
    /// A word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Declined { .. } => "declined",
            Self::No { .. } => "no",
            Self::Missing => "missing",
            Self::KeyTaken => "key_taken",
            Self::Unknown { .. } => "unknown",
            Self::Replayed { .. } => "replayed",
            Self::NotSent { .. } => "not_sent",
            Self::RateLimited { .. } => "rate_limited",
            Self::Config { .. } => "config",
            Self::BreakerOpen { .. } => "breaker_open",
        }
    }
}

/// A payment provider. Calls that move money carry an idempotency key; looking and cancelling are idempotent by nature.
#[async_trait]
pub trait PaymentProvider: Send + Sync + 'static {
    /// Creates an intent. Moves nothing.
    async fn create_intent(
        &self,
        order: ReservationId,
        generation: u32,
        amount: Money,
        key: &str,
    ) -> Result<Intent, Failure>;
    /// Charges (or authorises) with the buyer's means of payment.
    async fn confirm(&self, intent: &ProviderId, token: &PaymentToken, key: &str) -> Result<Intent, Failure>;
    /// Looks.
    async fn retrieve(&self, intent: &ProviderId) -> Result<Intent, Failure>;
    /// Intents that say they were made for the order. May lag behind what was created a moment ago.
    async fn find_by_order(&self, order: ReservationId) -> Result<Vec<Intent>, Failure>;
    /// Cancels for ever what was not charged; voids what was authorised. Carries no key: a provider may remember a failure under a
    /// key for a day, and cancelling twice is harmless.
    async fn cancel(&self, intent: &ProviderId) -> Result<Intent, Failure>;
    /// Charges what was authorised.
    async fn capture(&self, intent: &ProviderId, key: &str) -> Result<Intent, Failure>;
    /// Gives a payment back as a whole.
    async fn refund(&self, order: ReservationId, payment: &ProviderId, key: &str) -> Result<Refund, Failure>;
    /// What is known of giving a payment back; none when nobody tried.
    async fn find_refund(&self, payment: &ProviderId) -> Result<Option<Refund>, Failure>;
}
