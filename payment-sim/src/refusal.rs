//! What is refused, in Stripe's words.
//!
//! **Owns** the errors of the API: their HTTP status, type, code and message, and whether an idempotency key keeps them. **Must
//! never** be an error of the simulator's own: those are [`crate::StartError`] and logs. **Read next**: [`crate::wire`].

use crate::book::records::{Failed, Intent, Status};
use crate::book::shelf::Broken;
use crate::ids::ChargeId;

/// An answer that is not the object asked for.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: ErrorType,
    pub(crate) code: Option<&'static str>,
    pub(crate) decline_code: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) charge: Option<ChargeId>,
    pub(crate) intent: Option<Box<Intent>>,
    /// The endpoint did begin, so that the key keeps the answer.
    pub(crate) kept: bool,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
    /// What Stripe's clients are told about trying again by themselves.
    pub(crate) should_retry: Option<bool>,
}

/// Stripe's types of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum ErrorType {
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    #[serde(rename = "card_error")]
    Card,
    #[serde(rename = "api_error")]
    Api,
    #[serde(rename = "idempotency_error")]
    Idempotency,
}

impl Refusal {
    fn new(status: u16, kind: ErrorType, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code,
            decline_code: None,
            message: message.into(),
            param: None,
            charge: None,
            intent: None,
            kept: false,
            retry_after: None,
            should_retry: None,
        }
    }

    fn invalid(code: Option<&'static str>, param: &str, message: impl Into<String>) -> Self {
        let param = (!param.is_empty()).then(|| param.to_owned());
        Self { param, ..Self::new(400, ErrorType::InvalidRequest, code, message) }
    }

    /// A parameter is not what it should be.
    pub(crate) fn parameter(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(None, param, message)
    }

    /// A parameter is not what it should be, in a way that has a code.
    pub(crate) fn parameter_code(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        Self::invalid(Some(code), param, message)
    }

    /// A parameter is not there.
    pub(crate) fn missing(param: &str) -> Self {
        Self::invalid(Some("parameter_missing"), param, format!("Missing required param: {param}."))
    }

    /// Nobody knows this parameter.
    pub(crate) fn unknown_parameter(param: &str) -> Self {
        Self::invalid(Some("parameter_unknown"), param, format!("Received unknown parameter: {param}"))
    }

    /// The path names nothing.
    pub(crate) fn no_such(what: &str, id: &str, param: &str) -> Self {
        Self { status: 404, ..Self::no_such_parameter(what, id, param) }
    }

    /// A parameter names nothing.
    pub(crate) fn no_such_parameter(what: &str, id: &str, param: &str) -> Self {
        let id: String = id.chars().take(64).collect();
        Self::invalid(Some("resource_missing"), param, format!("No such {what}: '{id}'"))
    }

    /// There is no such endpoint.
    pub(crate) fn no_such_url(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        Self { status: 404, ..Self::invalid(None, "", format!("Unrecognized request URL ({method}: {path}).")) }
    }

    /// The caller did not say who it is, or nobody we know.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(401, ErrorType::InvalidRequest, None, message)
    }

    /// The request is larger than any has to be.
    pub(crate) fn too_large(message: String) -> Self {
        Self { status: 413, ..Self::invalid(None, "", message) }
    }

    /// The body did not come.
    pub(crate) fn too_slow() -> Self {
        Self { status: 408, ..Self::invalid(None, "", "The body did not arrive in time; nothing was done.") }
    }

    /// The intent's status does not allow it.
    pub(crate) fn unexpected_state(intent: &Intent, verb: &str, allowed: &[Status]) -> Self {
        let names: Vec<_> = allowed.iter().map(|status| status.name()).collect();
        let message = format!(
            "This PaymentIntent could not be {verb} because it has a status of {}. Only a PaymentIntent with one of the following \
             statuses may be {verb}: {}.",
            intent.status.name(),
            names.join(", ")
        );
        Self::state(intent, message)
    }

    /// The intent's state does not allow it.
    pub(crate) fn state(intent: &Intent, message: impl Into<String>) -> Self {
        let intent = Some(Box::new(intent.clone()));
        let code = Some("payment_intent_unexpected_state");
        Self { intent, kept: true, ..Self::invalid(code, "", message) }
    }

    /// The payment failed.
    pub(crate) fn card(failed: Failed, intent: &Intent) -> Self {
        let (code, decline_code, message) = failed.why.words();
        Self {
            decline_code,
            charge: failed.charge,
            intent: Some(Box::new(intent.clone())),
            kept: true,
            ..Self::new(402, ErrorType::Card, Some(code), message)
        }
    }

    /// The key was used for something else.
    pub(crate) fn other_parameters(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same endpoint and parameters they were first used with. Try \
             using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(400, ErrorType::Idempotency, None, message)
    }

    /// A call with this key is under way.
    pub(crate) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using the idempotency key '{key}'. Try again later."
        );
        let code = Some("idempotency_key_in_use");
        Self { should_retry: Some(true), ..Self::new(409, ErrorType::Idempotency, code, message) }
    }

    /// Too many calls, it says.
    pub(crate) fn too_many(retry_after: u32) -> Self {
        let message = "Too many requests were made too quickly; nothing was done.";
        let refusal = Self::new(429, ErrorType::InvalidRequest, Some("rate_limit"), message);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// Nothing is served.
    pub(crate) fn outage() -> Self {
        Self::new(503, ErrorType::Api, None, "The service is unavailable.")
    }

    /// Something went wrong, before or after: the caller cannot tell.
    pub(crate) fn unwell(kept: bool) -> Self {
        let message = "An unknown error occurred.";
        // Stripe says `false` where a retry would only be told the same again.
        Self { kept, should_retry: Some(!kept), ..Self::new(500, ErrorType::Api, None, message) }
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        let message = format!("payment-sim: {broken}.");
        Self { should_retry: Some(false), ..Self::new(500, ErrorType::Api, None, message) }
    }
}
