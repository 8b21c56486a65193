//! Stripe's JSON: objects, lists, events and errors as its client libraries read them.
//!
//! **Owns** the shapes. Rendering is a function of what is in one line of the journal, so that an answer kept under an idempotency
//! key comes out the same, byte for byte. **Must never** be read back. **Read next**: [`crate::book::records`].

use serde::Serialize;
use serde_json::value::RawValue;

use crate::book::records::{
    CaptureMethod, Charge, Currency, Event, EventKind, Failed, Intent, Metadata, Minor, Refund, Status, Why,
};
use crate::ids::{ChargeId, EventId, IntentId, RefundId, SecretId};
use crate::methods::{Failure, Method};
use crate::refusal::{ErrorType, Refusal};

/// What events say of themselves when no version was asked for.
pub(crate) const API_VERSION: &str = "2026-10-28.endive";

/// `null`, of whatever it would be.
type Null = Option<()>;

#[derive(Serialize)]
struct Empty {}

fn client_secret(id: IntentId) -> String {
    let second: SecretId = id.as_kind();
    format!("{id}_{second}")
}

/// An id, or the object itself where that was asked for.
#[derive(Serialize)]
#[serde(untagged)]
enum Ref<I, T> {
    Id(I),
    Object(Box<T>),
}

#[derive(Serialize)]
pub(crate) struct IntentView<'a> {
    id: IntentId,
    object: &'static str,
    amount: Minor,
    amount_capturable: Minor,
    amount_details: AmountDetails,
    amount_received: Minor,
    application: Null,
    application_fee_amount: Null,
    automatic_payment_methods: Null,
    canceled_at: Option<i64>,
    cancellation_reason: Option<Why>,
    capture_method: CaptureMethod,
    client_secret: String,
    confirmation_method: &'static str,
    created: i64,
    currency: Currency,
    customer: Null,
    description: Option<&'a str>,
    last_payment_error: Option<ErrorView<'a>>,
    latest_charge: Option<Ref<ChargeId, ChargeView<'a>>>,
    livemode: bool,
    metadata: &'a Metadata,
    next_action: Option<NextAction<'a>>,
    on_behalf_of: Null,
    payment_method: Option<Method>,
    payment_method_configuration_details: Null,
    payment_method_options: Empty,
    payment_method_types: [&'static str; 1],
    processing: Null,
    receipt_email: Null,
    review: Null,
    setup_future_usage: Null,
    shipping: Null,
    source: Null,
    statement_descriptor: Null,
    statement_descriptor_suffix: Null,
    status: Status,
    transfer_data: Null,
    transfer_group: Null,
}

#[derive(Serialize)]
struct AmountDetails {
    tip: Empty,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
enum NextAction<'a> {
    RedirectToUrl { redirect_to_url: RedirectToUrl<'a> },
    UseStripeSdk { use_stripe_sdk: UseStripeSdk },
}

#[derive(Serialize)]
struct RedirectToUrl<'a> {
    return_url: &'a str,
    url: String,
}

#[derive(Serialize)]
struct UseStripeSdk {
    r#type: &'static str,
    stripe_js: String,
}

impl<'a> IntentView<'a> {
    /// An intent, with its latest charge where that was asked for.
    pub(crate) fn new(intent: &'a Intent, latest_charge: Option<&'a Charge>) -> Self {
        Self {
            id: intent.id,
            object: "payment_intent",
            amount: intent.amount,
            amount_capturable: intent.capturable,
            amount_details: AmountDetails { tip: Empty {} },
            amount_received: intent.received,
            application: None,
            application_fee_amount: None,
            automatic_payment_methods: None,
            canceled_at: intent.canceled_ms.map(seconds),
            cancellation_reason: intent.why,
            capture_method: intent.capture,
            client_secret: client_secret(intent.id),
            confirmation_method: "automatic",
            created: seconds(intent.created_ms),
            currency: intent.currency,
            customer: None,
            description: intent.description.as_deref(),
            last_payment_error: intent.failure.map(ErrorView::failed),
            latest_charge: match latest_charge {
                Some(charge) => Some(Ref::Object(Box::new(ChargeView::new(charge)))),
                None => intent.charge.map(Ref::Id),
            },
            livemode: false,
            metadata: &intent.metadata,
            next_action: (intent.status == Status::RequiresAction).then(|| next_action(intent)),
            on_behalf_of: None,
            payment_method: intent.method,
            payment_method_configuration_details: None,
            payment_method_options: Empty {},
            payment_method_types: ["card"],
            processing: None,
            receipt_email: None,
            review: None,
            setup_future_usage: None,
            shipping: None,
            source: None,
            statement_descriptor: None,
            statement_descriptor_suffix: None,
            status: intent.status,
            transfer_data: None,
            transfer_group: None,
        }
    }
}

fn next_action(intent: &Intent) -> NextAction<'_> {
    // Where a buyer would go; POST to it with `outcome=ok` or `outcome=fail`.
    let url = format!("/sim/intents/{}/authenticate", intent.id);
    match intent.return_url.as_deref() {
        Some(return_url) => NextAction::RedirectToUrl { redirect_to_url: RedirectToUrl { return_url, url } },
        None => NextAction::UseStripeSdk {
            use_stripe_sdk: UseStripeSdk { r#type: "three_d_secure_redirect", stripe_js: url },
        },
    }
}

#[derive(Serialize)]
pub(crate) struct ChargeView<'a> {
    id: ChargeId,
    object: &'static str,
    amount: Minor,
    amount_captured: Minor,
    amount_refunded: Minor,
    balance_transaction: Null,
    captured: bool,
    created: i64,
    currency: Currency,
    customer: Null,
    description: Null,
    disputed: bool,
    failure_code: Option<&'static str>,
    failure_message: Option<&'static str>,
    livemode: bool,
    metadata: Empty,
    outcome: ChargeOutcome,
    paid: bool,
    payment_intent: IntentId,
    payment_method: Method,
    payment_method_details: MethodDetails,
    receipt_url: Null,
    refunded: bool,
    status: &'a str,
}

#[derive(Serialize)]
struct ChargeOutcome {
    network_status: &'static str,
    reason: Option<&'static str>,
    r#type: &'static str,
}

#[derive(Serialize)]
struct MethodDetails {
    r#type: &'static str,
}

impl ChargeView<'_> {
    /// A charge. One that was voided looks refunded in full, as Stripe shows it.
    pub(crate) fn new(charge: &Charge) -> Self {
        let words = charge.failure.map(Failure::words);
        let voided = charge.voided_ms.is_some();
        let failed = charge.failure.is_some();
        Self {
            id: charge.id,
            object: "charge",
            amount: charge.amount,
            amount_captured: charge.captured,
            amount_refunded: if voided { charge.amount } else { charge.refunded },
            balance_transaction: None,
            captured: charge.captured_ms.is_some(),
            created: seconds(charge.created_ms),
            currency: charge.currency,
            customer: None,
            description: None,
            disputed: false,
            failure_code: words.map(|(code, ..)| code),
            failure_message: words.map(|(.., message)| message),
            livemode: false,
            metadata: Empty {},
            outcome: ChargeOutcome {
                network_status: if failed { "declined_by_network" } else { "approved_by_network" },
                reason: words.and_then(|(_, decline, _)| decline),
                r#type: if failed { "issuer_declined" } else { "authorized" },
            },
            paid: !failed,
            payment_intent: charge.intent,
            payment_method: charge.method,
            payment_method_details: MethodDetails { r#type: "card" },
            receipt_url: None,
            refunded: voided || charge.captured_ms.is_some() && charge.refunded == charge.captured,
            status: if failed { "failed" } else { "succeeded" },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct RefundView<'a> {
    id: RefundId,
    object: &'static str,
    amount: Minor,
    balance_transaction: Null,
    charge: Ref<ChargeId, ChargeView<'a>>,
    created: i64,
    currency: Currency,
    failure_reason: Null,
    metadata: &'a Metadata,
    payment_intent: Ref<IntentId, IntentView<'a>>,
    reason: Option<Why>,
    receipt_number: Null,
    source_transfer_reversal: Null,
    status: &'static str,
    transfer_reversal: Null,
}

impl<'a> RefundView<'a> {
    /// A refund, with its intent and charge where they were asked for.
    pub(crate) fn new(refund: &'a Refund, intent: Option<&'a Intent>, charge: Option<&'a Charge>) -> Self {
        Self {
            id: refund.id,
            object: "refund",
            amount: refund.amount,
            balance_transaction: None,
            charge: match charge {
                Some(charge) => Ref::Object(Box::new(ChargeView::new(charge))),
                None => Ref::Id(refund.charge),
            },
            created: seconds(refund.created_ms),
            currency: refund.currency,
            failure_reason: None,
            metadata: &refund.metadata,
            payment_intent: match intent {
                Some(intent) => Ref::Object(Box::new(IntentView::new(intent, None))),
                None => Ref::Id(refund.intent),
            },
            reason: refund.why,
            receipt_number: None,
            source_transfer_reversal: None,
            status: "succeeded",
            transfer_reversal: None,
        }
    }
}

#[derive(Serialize)]
struct Failing<'a> {
    error: ErrorView<'a>,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<ChargeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_url: Option<String>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent: Option<Box<IntentView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<MethodView>,
    r#type: ErrorType,
}

#[derive(Serialize)]
struct MethodView {
    id: Method,
    object: &'static str,
    r#type: &'static str,
}

impl ErrorView<'_> {
    fn failed(failed: Failed) -> Self {
        let (code, decline_code, message) = failed.why.words();
        Self {
            charge: failed.charge,
            code: Some(code),
            decline_code,
            doc_url: Some(doc_url(code)),
            message,
            param: None,
            payment_intent: None,
            payment_method: Some(MethodView { id: failed.method, object: "payment_method", r#type: "card" }),
            r#type: if failed.why == Failure::AuthenticationFailed {
                ErrorType::InvalidRequest
            } else {
                ErrorType::Card
            },
        }
    }
}

fn doc_url(code: &str) -> String {
    format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"))
}

/// An error's body.
pub(crate) fn refusal(refusal: &Refusal) -> Vec<u8> {
    let intent = refusal.intent.as_deref();
    let failed = intent.and_then(|intent| intent.failure).filter(|_| refusal.kind == ErrorType::Card);
    json(&Failing {
        error: ErrorView {
            charge: refusal.charge,
            code: refusal.code,
            decline_code: refusal.decline_code,
            doc_url: refusal.code.map(doc_url),
            message: &refusal.message,
            param: refusal.param.as_deref(),
            payment_intent: intent.map(|intent| Box::new(IntentView::new(intent, None))),
            payment_method: failed.map(|f| MethodView { id: f.method, object: "payment_method", r#type: "card" }),
            r#type: refusal.kind,
        },
    })
}

/// A page of objects.
#[derive(Serialize)]
pub(crate) struct ListView<'a, T> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<T>,
    pub(crate) has_more: bool,
    pub(crate) url: &'a str,
}

impl<'a, T> ListView<'a, T> {
    /// A page of `url`.
    pub(crate) fn new(url: &'a str, data: Vec<T>, has_more: bool) -> Self {
        Self { object: "list", data, has_more, url }
    }
}

/// What a search found.
#[derive(Serialize)]
pub(crate) struct SearchView<'a, T> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<T>,
    pub(crate) has_more: bool,
    pub(crate) next_page: Option<String>,
    pub(crate) url: &'a str,
}

/// An event and the object it is about.
#[derive(Serialize)]
pub(crate) struct EventView<'a> {
    id: EventId,
    object: &'static str,
    api_version: &'static str,
    created: i64,
    data: EventData<'a>,
    livemode: bool,
    pending_webhooks: u32,
    request: EventRequest<'a>,
    r#type: EventKind,
}

#[derive(Serialize)]
struct EventData<'a> {
    object: Subject<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Subject<'a> {
    Intent(Box<IntentView<'a>>),
    Charge(ChargeView<'a>),
    Refund(RefundView<'a>),
}

#[derive(Serialize)]
struct EventRequest<'a> {
    id: Null,
    idempotency_key: Option<&'a str>,
}

impl<'a> EventView<'a> {
    /// `event` as the entry it stands in tells it; none when the entry does not hold its object.
    pub(crate) fn new(event: Event, entry: &'a crate::book::records::Entry) -> Option<Self> {
        let object = match event.kind {
            EventKind::RefundCreated => Subject::Refund(RefundView::new(entry.refund.as_ref()?, None, None)),
            EventKind::ChargeRefunded => Subject::Charge(ChargeView::new(entry.charge.as_ref()?)),
            _ => Subject::Intent(Box::new(IntentView::new(entry.intent.as_ref()?, None))),
        };
        Some(Self {
            id: event.id,
            object: "event",
            api_version: API_VERSION,
            created: seconds(entry.at_ms),
            data: EventData { object },
            livemode: false,
            pending_webhooks: u32::from(event.send),
            request: EventRequest { id: None, idempotency_key: entry.key.as_ref().map(|key| &*key.key) },
            r#type: event.kind,
        })
    }
}

/// As bytes.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_536);
    serde_json::to_writer(&mut bytes, value).expect("views are texts, numbers and lists");
    bytes
}

/// As part of other JSON.
pub(crate) fn raw(bytes: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(bytes).expect("views are JSON")
}

fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}
