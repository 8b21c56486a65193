//! What a call asks for, read from its fields.
//!
//! **Owns** validation: names, bounds and forms of parameters. A failure here is answered 400 and no key keeps it. **Must never**
//! look at the book. **Read next**: [`crate::rules`].

use std::sync::Arc;

use crate::book::records::{CaptureMethod, Currency, Metadata, Minor, Why};
use crate::form::Form;
use crate::limits::{
    AMOUNT_MAX, DESCRIPTION_CHARS_MAX, METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX,
    PAGE_DEFAULT, PAGE_MAX, URL_CHARS_MAX,
};
use crate::methods::Method;
use crate::refusal::Refusal;

/// A call that may change the book.
#[derive(Debug)]
pub(crate) enum Ask {
    Create(Create),
    Confirm(Box<str>, Confirm),
    Capture(Box<str>, Option<Minor>),
    Cancel(Box<str>, Option<Why>),
    Refund(AskRefund),
}

/// Which fields are to be whole objects instead of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expand {
    pub(crate) latest_charge: bool,
    pub(crate) payment_intent: bool,
    pub(crate) charge: bool,
}

impl Expand {
    /// Whether anything is.
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) amount: Minor,
    pub(crate) currency: Currency,
    pub(crate) capture: CaptureMethod,
    pub(crate) method: Option<Method>,
    pub(crate) description: Option<Arc<str>>,
    pub(crate) metadata: Metadata,
    /// Confirm it at once.
    pub(crate) confirm: Option<Confirm>,
}

#[derive(Debug, Default)]
pub(crate) struct Confirm {
    pub(crate) method: Option<Method>,
    pub(crate) return_url: Option<Arc<str>>,
    /// Nobody is there to authenticate: a payment that needs it fails.
    pub(crate) off_session: bool,
}

#[derive(Debug)]
pub(crate) struct AskRefund {
    /// An intent's id or a charge's.
    pub(crate) of: RefundOf,
    pub(crate) amount: Option<Minor>,
    pub(crate) why: Option<Why>,
    pub(crate) metadata: Metadata,
}

#[derive(Debug)]
pub(crate) enum RefundOf {
    Intent(Box<str>),
    Charge(Box<str>),
}

/// Which part of a list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) starting_after: Option<Box<str>>,
    pub(crate) ending_before: Option<Box<str>>,
}

/// What clients commonly send and nothing here depends on.
const IGNORED: &[&str] = &[
    "automatic_payment_methods",
    "payment_method_types",
    "payment_method_options",
    "receipt_email",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "confirmation_method",
    "use_stripe_sdk",
];

/// `POST /v1/payment_intents`
pub(crate) fn create(mut form: Form) -> Result<(Ask, Expand), Refusal> {
    let amount = amount(&mut form, "amount")?.ok_or_else(|| Refusal::missing("amount"))?;
    let currency = form.take("currency")?.ok_or_else(|| Refusal::missing("currency"))?;
    let currency = currency
        .parse()
        .map_err(|_| Refusal::parameter("currency", format!("Invalid currency: {}", short(&currency))))?;
    let capture = match form.take("capture_method")?.as_deref() {
        None | Some("automatic" | "automatic_async") => CaptureMethod::Automatic,
        Some("manual") => CaptureMethod::Manual,
        Some(other) => return Err(not_one_of("capture_method", other, "automatic or manual")),
    };
    let confirm = flag(&mut form, "confirm")?;
    let metadata = metadata(&mut form)?;
    let description = text(&mut form, "description", DESCRIPTION_CHARS_MAX)?;
    let method = method(&mut form)?;
    let how = confirmation(&mut form)?;
    let expand = ending(form, &["latest_charge"])?;
    if !confirm && (how.return_url.is_some() || how.off_session) {
        let param = if how.off_session { "off_session" } else { "return_url" };
        return Err(Refusal::parameter(param, format!("You cannot use {param} without confirm=true.")));
    }
    if confirm && method.is_none() {
        return Err(Refusal::parameter(
            "payment_method",
            "You cannot confirm this PaymentIntent because it's missing a payment method. Pass a payment_method.",
        ));
    }
    let confirm = confirm.then_some(how);
    Ok((Ask::Create(Create { amount, currency, capture, method, description, metadata, confirm }), expand))
}

/// `POST /v1/payment_intents/{id}/confirm`
pub(crate) fn confirm(id: Box<str>, mut form: Form) -> Result<(Ask, Expand), Refusal> {
    let method = method(&mut form)?;
    let how = confirmation(&mut form)?;
    Ok((Ask::Confirm(id, Confirm { method, ..how }), ending(form, &["latest_charge"])?))
}

/// `POST /v1/payment_intents/{id}/capture`
pub(crate) fn capture(id: Box<str>, mut form: Form) -> Result<(Ask, Expand), Refusal> {
    let amount = amount(&mut form, "amount_to_capture")?;
    Ok((Ask::Capture(id, amount), ending(form, &["latest_charge"])?))
}

/// `POST /v1/payment_intents/{id}/cancel`
pub(crate) fn cancel(id: Box<str>, mut form: Form) -> Result<(Ask, Expand), Refusal> {
    let why = reason(&mut form, "cancellation_reason", true)?;
    Ok((Ask::Cancel(id, why), ending(form, &["latest_charge"])?))
}

/// `POST /v1/refunds`
pub(crate) fn refund(mut form: Form) -> Result<(Ask, Expand), Refusal> {
    let of = match (form.take("payment_intent")?, form.take("charge")?) {
        (Some(intent), None) => RefundOf::Intent(intent),
        (None, Some(charge)) => RefundOf::Charge(charge),
        (None, None) => return Err(Refusal::missing("payment_intent")),
        (Some(_), Some(_)) => {
            return Err(Refusal::parameter("charge", "Name the payment_intent or the charge, not both."));
        }
    };
    let amount = amount(&mut form, "amount")?;
    let why = reason(&mut form, "reason", false)?;
    let metadata = metadata(&mut form)?;
    let expand = ending(form, &["payment_intent", "charge"])?;
    Ok((Ask::Refund(AskRefund { of, amount, why, metadata }), expand))
}

/// The query of one object by its id.
pub(crate) fn retrieve(mut form: Form, expandable: &[&str]) -> Result<Expand, Refusal> {
    form.ignore("client_secret");
    ending(form, expandable)
}

/// A page of a list; other filters have been taken.
pub(crate) fn page(form: &mut Form) -> Result<Page, Refusal> {
    let limit = match form.take("limit")? {
        None => PAGE_DEFAULT,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => limit,
            _ => return Err(Refusal::parameter("limit", format!("Invalid limit: between 1 and {PAGE_MAX}"))),
        },
    };
    Ok(Page { limit, starting_after: form.take("starting_after")?, ending_before: form.take("ending_before")? })
}

/// What is left has to be `expand[]`, of these.
pub(crate) fn ending(mut form: Form, expandable: &[&str]) -> Result<Expand, Refusal> {
    let mut expand = Expand::default();
    for name in form.take_list("expand")? {
        let known = expandable.contains(&&*name);
        match &*name {
            "latest_charge" | "data.latest_charge" if known => expand.latest_charge = true,
            "payment_intent" | "data.payment_intent" if known => expand.payment_intent = true,
            "charge" | "data.charge" if known => expand.charge = true,
            _ => {
                let message = format!("This property cannot be expanded ({}).", short(&name));
                return Err(Refusal::parameter("expand", message));
            }
        }
    }
    form.finish()?;
    Ok(expand)
}

fn confirmation(form: &mut Form) -> Result<Confirm, Refusal> {
    for name in IGNORED {
        form.ignore(name);
    }
    let return_url = text(form, "return_url", URL_CHARS_MAX)?;
    // `one_off` and `recurring` are older ways of saying true.
    let off_session = match form.take("off_session")?.as_deref() {
        Some("true" | "one_off" | "recurring") => true,
        None | Some("false") => false,
        Some(other) => return Err(not_one_of("off_session", other, "true or false")),
    };
    let refuse = flag(form, "error_on_requires_action")?;
    Ok(Confirm { method: None, return_url, off_session: off_session || refuse })
}

fn amount(form: &mut Form, name: &str) -> Result<Option<Minor>, Refusal> {
    let Some(text) = form.take(name)? else { return Ok(None) };
    let Ok(units) = text.parse::<i128>() else {
        let message = format!("Invalid integer: {}", short(&text));
        return Err(Refusal::parameter_code("parameter_invalid_integer", name, message));
    };
    match u64::try_from(units) {
        Ok(units @ 1..=AMOUNT_MAX) => Ok(Some(Minor::new(units))),
        Ok(1..) => {
            Err(Refusal::parameter_code("amount_too_large", name, format!("Amount must be no more than {AMOUNT_MAX}")))
        }
        _ => Err(Refusal::parameter_code(
            "parameter_invalid_integer",
            name,
            "This value must be greater than or equal to 1.",
        )),
    }
}

fn method(form: &mut Form) -> Result<Option<Method>, Refusal> {
    let Some(name) = form.take("payment_method")? else { return Ok(None) };
    let known = Method::named(&name);
    known.map(Some).ok_or_else(|| Refusal::no_such_parameter("PaymentMethod", &name, "payment_method"))
}

fn metadata(form: &mut Form) -> Result<Metadata, Refusal> {
    let pairs = form.take_map("metadata")?;
    if pairs.len() > METADATA_PAIRS_MAX {
        return Err(Refusal::parameter("metadata", format!("Metadata has at most {METADATA_PAIRS_MAX} keys.")));
    }
    for (key, value) in &pairs {
        if longer(key, METADATA_KEY_CHARS_MAX) {
            let message = format!("Metadata keys must be under {METADATA_KEY_CHARS_MAX} characters long");
            return Err(Refusal::parameter("metadata", message));
        }
        if longer(value, METADATA_VALUE_CHARS_MAX) {
            let message = format!("Metadata values must be under {METADATA_VALUE_CHARS_MAX} characters long");
            return Err(Refusal::parameter(&format!("metadata[{key}]"), message));
        }
    }
    Ok(Metadata::new(pairs))
}

fn reason(form: &mut Form, name: &str, abandoned: bool) -> Result<Option<Why>, Refusal> {
    match form.take(name)?.as_deref() {
        None => Ok(None),
        Some("duplicate") => Ok(Some(Why::Duplicate)),
        Some("fraudulent") => Ok(Some(Why::Fraudulent)),
        Some("requested_by_customer") => Ok(Some(Why::RequestedByCustomer)),
        Some("abandoned") if abandoned => Ok(Some(Why::Abandoned)),
        Some(other) => Err(not_one_of(name, other, "duplicate, fraudulent, requested_by_customer")),
    }
}

fn text(form: &mut Form, name: &str, chars_max: usize) -> Result<Option<Arc<str>>, Refusal> {
    match form.take(name)? {
        Some(text) if longer(&text, chars_max) => {
            Err(Refusal::parameter(name, format!("Invalid string: {name} must be at most {chars_max} characters")))
        }
        text => Ok(text.map(Into::into)),
    }
}

fn flag(form: &mut Form, name: &str) -> Result<bool, Refusal> {
    match form.take(name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let message = format!("Invalid boolean: {}", short(other));
            Err(Refusal::parameter_code("parameter_invalid_boolean", name, message))
        }
    }
}

fn not_one_of(name: &str, given: &str, known: &str) -> Refusal {
    Refusal::parameter(name, format!("Invalid {name}: must be one of {known}, not {}", short(given)))
}

fn longer(text: &str, chars_max: usize) -> bool {
    text.len() > chars_max && text.chars().count() > chars_max
}

/// What of a caller's text goes into a message.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
