//! How the provider misbehaves, on order.
//!
//! **Owns** the orders ([`Behaviour`]) and what is drawn from them for one call ([`Fate`]). **Must never** change what the book
//! may hold: a misbehaving provider still keeps honest books, that is what makes its answers comparable. **Read next**: [`dice`].

pub(crate) mod dice;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::DELAY_MS_MAX;

/// The whole of it. The default behaves well; a field that is left out has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Draws start again from this seed when the behaviour is set.
    pub seed: Option<u64>,
    /// How calls go that `operations` does not name.
    pub everywhere: Manners,
    /// How calls of one kind go, instead of `everywhere`.
    pub operations: BTreeMap<Operation, Manners>,
    /// How webhooks go.
    pub webhooks: WebhookManners,
    /// Search finds an intent only so long after it was made, in milliseconds. Stripe's search lags up to a minute.
    pub search_lag_ms: u64,
}

/// What a call asks for; behaviour is scoped by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /v1/payment_intents`
    Create,
    /// `POST /v1/payment_intents/{id}/confirm`
    Confirm,
    /// `POST /v1/payment_intents/{id}/capture`
    Capture,
    /// `POST /v1/payment_intents/{id}/cancel`
    Cancel,
    /// `POST /v1/refunds`
    Refund,
    /// One object by its id.
    Retrieve,
    /// A page of objects.
    List,
    /// `GET /v1/payment_intents/search`
    Search,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Confirm,
        Self::Capture,
        Self::Cancel,
        Self::Refund,
        Self::Retrieve,
        Self::List,
        Self::Search,
    ];

    /// As it is written in JSON and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Confirm => "confirm",
            Self::Capture => "capture",
            Self::Cancel => "cancel",
            Self::Refund => "refund",
            Self::Retrieve => "retrieve",
            Self::List => "list",
            Self::Search => "search",
        }
    }
}

/// How one kind of call goes. Rates are chances between 0 and 1, drawn for each call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manners {
    /// Nothing is served at all.
    pub outage: Outage,
    /// Answered 429 with `Retry-After`; nothing is done.
    pub too_many_rate: f64,
    /// What that `Retry-After` says, in seconds.
    pub retry_after_s: u32,
    /// Passes before anything is done, in milliseconds. The call goes on when its client has given up.
    pub latency_ms: u64,
    /// Up to so many milliseconds more, drawn for each call.
    pub latency_jitter_ms: u64,
    /// Passes between doing and answering, in milliseconds.
    pub answer_latency_ms: u64,
    /// Answered 500 before anything is done.
    pub error_rate: f64,
    /// Whether that 500 is kept under the idempotency key, as Stripe keeps the 500s of its endpoints. `false`: it came from
    /// something in front of the endpoint, and the same key may be tried again.
    pub error_kept: bool,
    /// Done, then answered 500 (which the key keeps).
    pub charge_then_error_rate: f64,
    /// Done, then not answered. The key keeps the answer that was never sent.
    pub charge_then_hang_rate: f64,
    /// How a call is not answered.
    pub hang: Hang,
    /// A payment that would succeed is declined.
    pub decline_rate: f64,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            outage: Outage::None,
            too_many_rate: 0.0,
            retry_after_s: 1,
            latency_ms: 0,
            latency_jitter_ms: 0,
            answer_latency_ms: 0,
            error_rate: 0.0,
            error_kept: true,
            charge_then_error_rate: 0.0,
            charge_then_hang_rate: 0.0,
            hang: Hang::Never,
            decline_rate: 0.0,
        }
    }
}

/// How nothing is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// Calls are served.
    #[default]
    None,
    /// Each call is answered 503.
    Refuse,
    /// Each call's connection is closed without an answer.
    Close,
    /// No call is ever answered.
    Hang,
}

/// How a call is not answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    /// The connection stays open and silent.
    #[default]
    Never,
    /// The connection is closed.
    Close,
}

/// How webhooks go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookManners {
    /// Nothing is delivered; what happens meanwhile never is.
    pub off: bool,
    /// An event is never delivered.
    pub drop_rate: f64,
    /// An event is delivered twice.
    pub duplicate_rate: f64,
    /// An event is held back, so that later ones overtake it.
    pub reorder_rate: f64,
    /// For how long such an event (and the second copy of a double) is held back at most, in milliseconds.
    pub reorder_ms: u64,
    /// Every event is late by so many milliseconds.
    pub delay_ms: u64,
    /// Up to so many milliseconds more, drawn for each event.
    pub delay_jitter_ms: u64,
}

/// An order that cannot be followed.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum BadBehaviour {
    /// A chance is not one.
    #[error("{field} is {value}; a rate is between 0 and 1")]
    Rate {
        /// The field.
        field: &'static str,
        /// What it was given.
        value: f64,
    },
    /// A delay is longer than a day.
    #[error("{field} is {value} ms; at most {DELAY_MS_MAX} ms")]
    Delay {
        /// The field.
        field: &'static str,
        /// What it was given.
        value: u64,
    },
}

impl Behaviour {
    /// Whether it can be followed.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), BadBehaviour> {
        for manners in self.operations.values().chain([&self.everywhere]) {
            rates(&[
                ("too_many_rate", manners.too_many_rate),
                ("error_rate", manners.error_rate),
                ("charge_then_error_rate", manners.charge_then_error_rate),
                ("charge_then_hang_rate", manners.charge_then_hang_rate),
                ("decline_rate", manners.decline_rate),
            ])?;
            delays(&[
                ("latency_ms", manners.latency_ms),
                ("latency_jitter_ms", manners.latency_jitter_ms),
                ("answer_latency_ms", manners.answer_latency_ms),
            ])?;
        }
        let webhooks = &self.webhooks;
        rates(&[
            ("webhooks.drop_rate", webhooks.drop_rate),
            ("webhooks.duplicate_rate", webhooks.duplicate_rate),
            ("webhooks.reorder_rate", webhooks.reorder_rate),
        ])?;
        delays(&[
            ("webhooks.reorder_ms", webhooks.reorder_ms),
            ("webhooks.delay_ms", webhooks.delay_ms),
            ("webhooks.delay_jitter_ms", webhooks.delay_jitter_ms),
            ("search_lag_ms", self.search_lag_ms),
        ])
    }

    /// How calls of this kind go.
    pub fn of(&self, operation: Operation) -> &Manners {
        self.operations.get(&operation).unwrap_or(&self.everywhere)
    }
}

fn rates(fields: &[(&'static str, f64)]) -> Result<(), BadBehaviour> {
    match fields.iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
        Some(&(field, value)) => Err(BadBehaviour::Rate { field, value }),
        None => Ok(()),
    }
}

fn delays(fields: &[(&'static str, u64)]) -> Result<(), BadBehaviour> {
    match fields.iter().find(|(_, ms)| *ms > DELAY_MS_MAX) {
        Some(&(field, value)) => Err(BadBehaviour::Delay { field, value }),
        None => Ok(()),
    }
}

/// What was drawn for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) outage: Outage,
    /// Seconds to come back in.
    pub(crate) too_many: Option<u32>,
    pub(crate) latency_ms: u64,
    pub(crate) answer_latency_ms: u64,
    /// Fails before anything is done; whether the key keeps it.
    pub(crate) error: Option<Kept>,
    pub(crate) then_error: bool,
    pub(crate) then_hang: Option<Hang>,
    pub(crate) declined: bool,
}

/// Whether an answer is kept under the idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    No,
}

/// What was drawn for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Never,
    /// After so many milliseconds, and perhaps once more after so many others.
    After {
        ms: u64,
        again_ms: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_behaves_well_and_what_is_unknown_is_refused() {
        let text = r#"{"operations":{"confirm":{"charge_then_hang_rate":0.5,"hang":"close"}},"everywhere":{"outage":"refuse"}}"#;
        let behaviour: Behaviour = serde_json::from_str(text).expect("valid");
        assert_eq!(behaviour.of(Operation::Confirm).hang, Hang::Close);
        assert_eq!(behaviour.of(Operation::Confirm).outage, Outage::None, "an operation's manners stand alone");
        assert_eq!(behaviour.of(Operation::List).outage, Outage::Refuse);
        assert_eq!(serde_json::from_str::<Behaviour>("{}").expect("valid"), Behaviour::default());
        assert!(serde_json::from_str::<Behaviour>(r#"{"everywhere":{"eror_rate":1}}"#).is_err());
    }

    #[test]
    fn rates_and_delays_have_bounds() {
        let mut behaviour = Behaviour::default();
        assert_eq!(behaviour.check(), Ok(()));
        behaviour.webhooks.drop_rate = 1.5;
        assert_eq!(behaviour.check(), Err(BadBehaviour::Rate { field: "webhooks.drop_rate", value: 1.5 }));
        behaviour.webhooks.drop_rate = f64::NAN;
        assert!(behaviour.check().is_err());
        behaviour.webhooks.drop_rate = 1.0;
        behaviour.everywhere.latency_ms = u64::MAX;
        assert_eq!(behaviour.check(), Err(BadBehaviour::Delay { field: "latency_ms", value: u64::MAX }));
    }
}
