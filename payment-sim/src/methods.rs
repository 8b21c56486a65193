//! Stripe's test payment methods, and what becomes of a payment with each.
//!
//! **Owns** the table and the words of failures. **Must never** hold a card: a method is a name. **Read next**: [`crate::rules`].

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What becomes of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It succeeds.
    Pays,
    /// The buyer has to authenticate first.
    Authenticates,
    /// The buyer has to authenticate, and it is declined then.
    AuthenticatesThen(Failure),
    /// It is declined.
    Fails(Failure),
    /// It stays `processing` until `/sim/intents/{id}/settle`.
    Settles,
}

/// Why a payment failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    GenericDecline,
    InsufficientFunds,
    LostCard,
    StolenCard,
    Fraudulent,
    ExpiredCard,
    IncorrectCvc,
    ProcessingError,
    /// Declined since nobody was there to authenticate.
    AuthenticationRequired,
    /// The buyer failed to authenticate, or gave up.
    AuthenticationFailed,
}

impl Failure {
    /// Stripe's error code, decline code and message.
    pub(crate) fn words(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::GenericDecline => ("card_declined", Some("generic_decline"), "Your card was declined."),
            Self::InsufficientFunds => {
                ("card_declined", Some("insufficient_funds"), "Your card has insufficient funds.")
            }
            Self::LostCard => ("card_declined", Some("lost_card"), "Your card was declined."),
            Self::StolenCard => ("card_declined", Some("stolen_card"), "Your card was declined."),
            Self::Fraudulent => ("card_declined", Some("fraudulent"), "Your card was declined."),
            Self::ExpiredCard => ("expired_card", None, "Your card has expired."),
            Self::IncorrectCvc => ("incorrect_cvc", None, "Your card's security code is incorrect."),
            Self::ProcessingError => {
                ("processing_error", None, "An error occurred while processing your card. Try again in a little bit.")
            }
            Self::AuthenticationRequired => (
                "authentication_required",
                Some("authentication_required"),
                "Your card was declined. This transaction requires authentication.",
            ),
            Self::AuthenticationFailed => (
                "payment_intent_authentication_failure",
                None,
                "The provided payment method has failed authentication. Provide a new payment method to attempt to fulfill this \
                 PaymentIntent again.",
            ),
        }
    }
}

const TABLE: &[(&str, Course)] = &[
    ("pm_card_visa", Course::Pays),
    ("pm_card_visa_debit", Course::Pays),
    ("pm_card_mastercard", Course::Pays),
    ("pm_card_amex", Course::Pays),
    ("pm_card_visa_chargeDeclined", Course::Fails(Failure::GenericDecline)),
    ("pm_card_chargeDeclined", Course::Fails(Failure::GenericDecline)),
    ("pm_card_visa_chargeDeclinedInsufficientFunds", Course::Fails(Failure::InsufficientFunds)),
    ("pm_card_chargeDeclinedInsufficientFunds", Course::Fails(Failure::InsufficientFunds)),
    ("pm_card_visa_chargeDeclinedLostCard", Course::Fails(Failure::LostCard)),
    ("pm_card_visa_chargeDeclinedStolenCard", Course::Fails(Failure::StolenCard)),
    ("pm_card_chargeDeclinedFraudulent", Course::Fails(Failure::Fraudulent)),
    ("pm_card_chargeDeclinedExpiredCard", Course::Fails(Failure::ExpiredCard)),
    ("pm_card_chargeDeclinedIncorrectCvc", Course::Fails(Failure::IncorrectCvc)),
    ("pm_card_chargeDeclinedProcessingError", Course::Fails(Failure::ProcessingError)),
    ("pm_card_authenticationRequired", Course::Authenticates),
    ("pm_card_threeDSecure2Required", Course::Authenticates),
    (
        "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds",
        Course::AuthenticatesThen(Failure::InsufficientFunds),
    ),
    ("pm_sim_processing", Course::Settles),
];

const _: () = assert!(TABLE.len() <= u8::MAX as usize);

/// One of the test payment methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method(u8);

impl Method {
    /// The method of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        TABLE.iter().position(|(n, _)| *n == name).map(|at| Self(at as u8))
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// What becomes of a payment with it.
    pub(crate) fn course(self) -> Course {
        TABLE[usize::from(self.0)].1
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| D::Error::custom(format!("unknown payment method {name}")))
    }
}
