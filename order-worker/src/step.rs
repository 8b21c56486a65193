//! What a worker does next: one pure function of the order and of what just happened.
//!
//! **What it is.** [`step`] answers an event with the actions that follow; the engine performs them and comes back with the event that
//! the last one gave. Paying is two steps, so that an unknown is always about something that can be looked up: create the
//! provider's intent (which moves nothing), let the ledger take its id, confirm it. After a 5xx or a time-out: look up; never guess,
//! never a fresh key.
//!
//! **Owns** that order of things. **Must never** do I/O, ask for the time or chance, or fail: it is total. Invariants, each checked for
//! every (step, event) in the tests beside this file:
//! * an intent is confirmed only after the ledger took its id, and only by *pay*;
//! * *unpaid* is said only when the intent is cancelled, or none can ever be confirmed;
//! * a new intent follows only one that is cancelled;
//! * a refund is asked for only after it was looked for.
//!
//! **Read next**: [`crate::engine::run`], which performs it; docs/decisions/0007.

use std::time::Duration;

use ledger_core::Reason;
use ledger_core::order::{Claimed, Ending, Fact, PaymentState, ProviderId, Report, Step};

use crate::limits::{ACTIONS_PER_RUN_MAX, CONFIG_PAUSE, GENERATIONS_MAX, REASON_BYTES_MAX};
use crate::payment::{ClearSecret, Failure, Intent, IntentStatus, Refund, RefundStatus};

/// The numbers that the function needs, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Further tries of failed calls within one run.
    pub tries_max: u32,
    /// Runs of one step before it is parked (*pay*: released, when nothing is pending for certain).
    pub attempts_max: u32,
    /// Pause before the second run of a step; it doubles with each.
    pub retry_min: Duration,
    /// Longest pause between two runs of *settle*, *refund* and *notify*.
    pub retry_max: Duration,
    /// Longest pause between two runs of *pay*, while a buyer waits and stock is held.
    pub pay_retry_max: Duration,
    /// Longest that a provider's *come back later* is waited for within a run.
    pub rate_wait_max: Duration,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            tries_max: 3,
            attempts_max: 30,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(3_600),
            pay_retry_max: Duration::from_secs(15),
            rate_wait_max: Duration::from_secs(2),
        }
    }
}

/// A call of the outside world, as events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Create an intent.
    Create,
    /// Search for the order's intents.
    Find,
    /// Look at an intent.
    Look,
    /// Confirm it.
    Confirm,
    /// Cancel it.
    Cancel,
    /// Capture it.
    Capture,
    /// Look for a refund.
    FindRefund,
    /// Refund.
    Refund,
    /// Send a notification.
    Send,
}

impl Call {
    /// All of them, for tables and metrics.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Find,
        Self::Look,
        Self::Confirm,
        Self::Cancel,
        Self::Capture,
        Self::FindRefund,
        Self::Refund,
        Self::Send,
    ];
    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Find => "find",
            Self::Look => "look",
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
            Self::Capture => "capture",
            Self::FindRefund => "find_refund",
            Self::Refund => "refund",
            Self::Send => "send",
        }
    }
}

/// What just happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The order was claimed.
    Begin,
    /// A call answered with an intent.
    Intent {
        /// Which call.
        call: Call,
        /// How the intent stands.
        intent: Intent,
    },
    /// The search answered.
    Found(Vec<Intent>),
    /// A call about a refund answered.
    Refund {
        /// Which call.
        call: Call,
        /// What is known.
        found: Option<Refund>,
    },
    /// The notification was taken.
    Sent,
    /// A call failed.
    Failed {
        /// Which call.
        call: Call,
        /// How.
        why: Failure,
    },
    /// The ledger took the intent's id.
    IntentTaken {
        /// The id.
        intent: ProviderId,
        /// Its generation.
        generation: u32,
    },
    /// The ledger took a fact.
    FactTaken(Fact),
    /// What is sealed in the order cannot be opened.
    Unopened {
        /// Why.
        why: String,
    },
    /// The ledger refused a report or a fact, or would not answer while the lease lasted: the order is another's now.
    Lost,
}

/// What is to be done next. The last action of a list gives the next event; an empty list, or a report that ends the lease, ends the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Pause before the try of this number (1 for the first repetition).
    Pause {
        /// Which try follows.
        tries: u32,
    },
    /// Pause for so long.
    Wait(Duration),
    /// Create an intent.
    Create {
        /// For this generation.
        generation: u32,
        /// Idempotency key.
        key: String,
    },
    /// Search for the order's intents.
    Find,
    /// Look at an intent.
    Look {
        /// Which.
        intent: ProviderId,
    },
    /// Confirm an intent with the opened payment token.
    Confirm {
        /// Which.
        intent: ProviderId,
        /// Idempotency key.
        key: String,
    },
    /// Cancel an intent.
    Cancel {
        /// Which.
        intent: ProviderId,
    },
    /// Capture an intent.
    Capture {
        /// Which.
        intent: ProviderId,
        /// Idempotency key.
        key: String,
    },
    /// Look for a refund.
    FindRefund {
        /// Of which payment.
        payment: ProviderId,
    },
    /// Give a payment back.
    Refund {
        /// Which.
        payment: ProviderId,
        /// Idempotency key.
        key: String,
    },
    /// Tell the buyer.
    Send {
        /// What the receiver can drop doubles by.
        key: String,
    },
    /// Tell the ledger that the buyer must act, with this sealed to the order's reply key.
    AwaitBuyer {
        /// What the buyer's client needs for it.
        secret: ClearSecret,
    },
    /// Tell the ledger what came of it.
    Report(Report),
    /// Tell the ledger what happened to money.
    Fact(Fact),
}

/// An order: what a claim gave, and what happened in this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    claimed: Claimed,
    numbers: Numbers,
    run: Run,
}

/// What happened in this run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Run {
    /// Events so far.
    events: u32,
    /// Failed tries that may be repeated.
    tries: u32,
    /// The newest intent heard of, reported or not.
    intent: Option<ProviderId>,
    /// The order's intent is cancelled, for certain.
    cancelled: bool,
    /// Why the buyer's bank said no.
    declined: Option<String>,
    /// Why the provider would not charge, or not give back.
    refused: Option<String>,
    /// The key of the present generation was used with other content.
    key_taken: bool,
}

impl Order {
    /// An order as it was claimed.
    pub fn new(claimed: Claimed, numbers: Numbers) -> Self {
        Self { claimed, numbers, run: Run::default() }
    }
    /// What the claim gave, with what the ledger took since.
    pub fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    /// Remembers an event. Called once for each, before [`step`] is asked about it.
    pub fn note(&mut self, event: &Event) {
        self.run.events += 1;
        match event {
            Event::Intent { call, intent } => self.note_intent(*call, intent),
            Event::Failed { call, why } => self.note_failure(*call, why),
            Event::IntentTaken { intent, generation } => {
                self.claimed.intent = Some(intent.clone());
                self.claimed.generation = *generation;
                let Run { events, tries, .. } = self.run;
                self.run = Run { events, tries, intent: Some(intent.clone()), ..Run::default() };
            }
            Event::FactTaken(Fact::Refunded { payment, refund }) => {
                for known in self.claimed.payments.iter_mut().filter(|known| known.id == *payment) {
                    known.state = PaymentState::Refunded;
                    known.refund = Some(refund.clone());
                }
                self.run.refused = None;
            }
            Event::Begin
            | Event::Found(_)
            | Event::Refund { .. }
            | Event::Sent
            | Event::FactTaken(_)
            | Event::Unopened { .. }
            | Event::Lost => {}
        }
    }

    fn note_intent(&mut self, call: Call, intent: &Intent) {
        if call != Call::Create {
            self.run.cancelled = intent.status == IntentStatus::Canceled;
            self.run.declined = intent.declined.clone().or(self.run.declined.take());
        }
        self.run.intent = Some(intent.id.clone());
    }

    fn note_failure(&mut self, call: Call, why: &Failure) {
        match why {
            Failure::Unknown { .. }
            | Failure::Replayed { .. }
            | Failure::NotSent { .. }
            | Failure::RateLimited { .. } => self.run.tries += 1,
            Failure::Declined { code } => self.run.declined = Some(code.clone()),
            Failure::No { why } if matches!(call, Call::Confirm | Call::Capture | Call::Refund) => {
                self.run.refused = Some(why.clone());
            }
            Failure::KeyTaken if call == Call::Create => self.run.key_taken = true,
            Failure::KeyTaken | Failure::Missing => self.run.refused = Some(why.to_string()),
            Failure::No { .. } | Failure::Config { .. } | Failure::BreakerOpen { .. } => {}
        }
    }

    fn key(&self, generation: u32, what: &str) -> String {
        format!("{}-{generation}-{what}", self.claimed.id)
    }
    /// The generation that an intent made now would have: the order's, or the next when that one is cancelled for certain.
    fn next_generation(&self) -> u32 {
        match self.claimed.intent {
            Some(_) if self.run.cancelled => self.claimed.generation + 1,
            _ => self.claimed.generation.max(1),
        }
    }
    fn create(&self) -> Action {
        let generation = self.next_generation();
        Action::Create { generation, key: self.key(generation, "create") }
    }
    /// The intent that calls are about.
    fn intent(&self) -> Option<ProviderId> {
        self.run.intent.clone().or_else(|| self.claimed.intent.clone())
    }
    fn look(&self) -> Action {
        self.intent().map_or(Action::Find, |intent| Action::Look { intent })
    }
    /// Why no money will come, once that is decided.
    fn given_up(&self) -> Option<&str> {
        self.run.declined.as_deref().or(self.run.refused.as_deref())
    }
    fn refund_due(&self) -> Option<&ledger_core::order::Payment> {
        self.claimed.payments.iter().find(|payment| payment.state == PaymentState::RefundDue)
    }
}

/// What follows from `event`, which [`Order::note`] has been told. Total: every order and every event has an answer.
pub fn step(order: &Order, event: &Event) -> Vec<Action> {
    if matches!(event, Event::Lost) {
        return vec![];
    }
    if order.run.events > ACTIONS_PER_RUN_MAX {
        return later(order, "the provider contradicts itself");
    }
    match order.claimed.step {
        Step::Pay => pay(order, event),
        Step::Settle => settle(order, event),
        Step::Refund => refund(order, event),
        Step::Notify => notify(order, event),
    }
}

fn pay(order: &Order, event: &Event) -> Vec<Action> {
    match event {
        Event::Begin => match &order.claimed.intent {
            Some(intent) => vec![Action::Look { intent: intent.clone() }],
            None => vec![order.create()],
        },
        Event::Intent { call: Call::Create, intent } => vec![tell_intent(order, intent)],
        Event::IntentTaken { intent, generation } => vec![confirm(order, intent, *generation)],
        Event::Intent { call, intent } => pay_stands(order, *call, intent),
        Event::Found(intents) => {
            let wanted = order.next_generation();
            match intents.iter().find(|intent| intent.generation == Some(wanted)) {
                Some(intent) => vec![tell_intent(order, intent)],
                None if order.run.key_taken => later(order, "the intent cannot be found yet"),
                None => vec![order.create()],
            }
        }
        Event::Failed { call, why } => pay_failed(order, *call, why),
        // Another sum than asked for: it goes back, the order is not paid, and nothing else is pending.
        Event::FactTaken(Fact::Paid { amount, .. }) if *amount != order.claimed.amount => {
            unpaid("another amount was paid, which goes back")
        }
        Event::FactTaken(_) | Event::Lost => vec![],
        Event::Unopened { why } => park(why),
        Event::Refund { .. } | Event::Sent => later(order, "an answer to another question"),
    }
}

fn tell_intent(order: &Order, intent: &Intent) -> Action {
    Action::Report(Report::Intent { intent: intent.id.clone(), generation: order.next_generation() })
}

fn confirm(order: &Order, intent: &ProviderId, generation: u32) -> Action {
    Action::Confirm { intent: intent.clone(), key: order.key(generation, "confirm") }
}

/// The order's own intent stands so.
fn pay_stands(order: &Order, call: Call, intent: &Intent) -> Vec<Action> {
    let cancel = || vec![Action::Cancel { intent: intent.id.clone() }];
    let generation = order.claimed.generation;
    match intent.status {
        IntentStatus::Succeeded => paid(order, intent),
        IntentStatus::Processing => later(order, "the provider is processing the payment"),
        _ if order.claimed.intent.as_ref() != Some(&intent.id) => later(order, "an answer about another intent"),
        _ if call == Call::Cancel && intent.status != IntentStatus::Canceled => later(order, "it was not cancelled"),
        IntentStatus::Canceled => match &order.run.declined {
            Some(why) => unpaid(why),
            None if intent.abandoned => unpaid(order.given_up().unwrap_or("given up")),
            None if generation >= GENERATIONS_MAX => unpaid("cancelled at the provider"),
            None => vec![order.create()],
        },
        // Given up, whatever it waits for: once it is cancelled nothing is pending for certain.
        _ if order.given_up().is_some() => cancel(),
        IntentStatus::RequiresCapture if call == Call::Capture => later(order, "it was not captured"),
        IntentStatus::RequiresCapture => {
            vec![Action::Capture { intent: intent.id.clone(), key: order.key(generation, "capture") }]
        }
        IntentStatus::RequiresAction => await_buyer(order, intent),
        IntentStatus::Unconfirmed if call == Call::Confirm => later(order, "it was not confirmed"),
        IntentStatus::Unconfirmed => vec![confirm(order, &intent.id, generation)],
    }
}

fn await_buyer(order: &Order, intent: &Intent) -> Vec<Action> {
    match &intent.secret {
        Some(secret) if !secret.0.is_empty() => vec![Action::AwaitBuyer { secret: secret.clone() }],
        _ => later(order, "the buyer must act, and there is no secret to act with"),
    }
}

fn pay_failed(order: &Order, call: Call, why: &Failure) -> Vec<Action> {
    let nothing_exists = order.claimed.intent.is_none() || order.run.cancelled;
    match (call, why) {
        (Call::Create, Failure::KeyTaken) => vec![Action::Find],
        (Call::Create, Failure::No { why } | Failure::Declined { code: why }) if nothing_exists => unpaid(why),
        (Call::Confirm | Call::Capture, Failure::Declined { .. }) => {
            order.intent().map_or_else(|| vec![Action::Find], |intent| vec![Action::Cancel { intent }])
        }
        (Call::Confirm | Call::Capture | Call::Cancel, Failure::No { .. } | Failure::KeyTaken)
        | (Call::Cancel, Failure::Declined { .. }) => vec![order.look()],
        _ => failed(order, call, why),
    }
}

fn settle(order: &Order, event: &Event) -> Vec<Action> {
    match event {
        Event::Begin => match &order.claimed.intent {
            Some(intent) => vec![Action::Look { intent: intent.clone() }],
            // Perhaps a worker died between creating and reporting. The same key gives the same intent; cancelled, it can never charge.
            None => vec![order.create()],
        },
        Event::Intent { call: Call::Create, intent } => vec![Action::Cancel { intent: intent.id.clone() }],
        Event::Intent { call, intent } => settle_stands(order, *call, intent),
        Event::Found(intents) => settle_found(order, intents),
        Event::Failed { call, why } => match (call, why) {
            (Call::Create, Failure::KeyTaken) => vec![Action::Find],
            (Call::Create, Failure::No { why } | Failure::Declined { code: why }) if order.claimed.intent.is_none() => {
                unpaid(why)
            }
            (Call::Cancel, Failure::No { .. } | Failure::KeyTaken | Failure::Declined { .. }) => vec![order.look()],
            _ => failed(order, *call, why),
        },
        Event::FactTaken(_) | Event::Lost => vec![],
        Event::Unopened { why } => park(why),
        Event::IntentTaken { .. } | Event::Refund { .. } | Event::Sent => later(order, "an answer to another question"),
    }
}

fn settle_stands(order: &Order, call: Call, intent: &Intent) -> Vec<Action> {
    match intent.status {
        IntentStatus::Succeeded => paid(order, intent),
        IntentStatus::Processing => later(order, "the provider is processing the payment"),
        IntentStatus::Canceled => unpaid(order.given_up().unwrap_or("not paid in time")),
        _ if call == Call::Cancel => later(order, "it was not cancelled"),
        IntentStatus::Unconfirmed | IntentStatus::RequiresAction | IntentStatus::RequiresCapture => {
            vec![Action::Cancel { intent: intent.id.clone() }]
        }
    }
}

fn settle_found(order: &Order, intents: &[Intent]) -> Vec<Action> {
    let open = |intent: &&Intent| intent.status != IntentStatus::Canceled;
    if let Some(intent) = intents.iter().find(|intent| intent.status == IntentStatus::Succeeded) {
        return paid(order, intent);
    }
    match intents.iter().find(open) {
        Some(intent) => settle_stands(order, Call::Look, intent),
        None if intents.is_empty() && order.run.key_taken => later(order, "the intent cannot be found yet"),
        None if intents.is_empty() => vec![order.create()],
        None => unpaid("not paid in time"),
    }
}

fn refund(order: &Order, event: &Event) -> Vec<Action> {
    let Some(due) = order.refund_due() else {
        return match event {
            Event::FactTaken(_) => vec![],
            _ => later(order, "no payment is refund due"),
        };
    };
    let find = || vec![Action::FindRefund { payment: due.id.clone() }];
    match event {
        Event::Begin | Event::FactTaken(_) => find(),
        Event::Refund { found: None, .. } => match &order.run.refused {
            Some(why) => park(why),
            None => {
                let key = format!("{}-{}-refund", order.claimed.id, due.id);
                vec![Action::Refund { payment: due.id.clone(), key }]
            }
        },
        Event::Refund { found: Some(refund), .. } => match refund.status {
            RefundStatus::Pending => later(order, "the refund is under way"),
            RefundStatus::Failed => park("the provider could not give the money back"),
            RefundStatus::Succeeded if due.amount.is_some_and(|amount| refund.minor < amount.minor()) => {
                park("only a part was given back")
            }
            RefundStatus::Succeeded => {
                vec![Action::Fact(Fact::Refunded { payment: due.id.clone(), refund: refund.id.clone() })]
            }
        },
        Event::Failed { call: Call::Refund, why } => match why {
            Failure::No { .. } | Failure::Missing | Failure::KeyTaken => find(),
            Failure::Declined { code } => park(code),
            _ => failed(order, Call::Refund, why),
        },
        Event::Failed { call, why } => failed(order, *call, why),
        Event::Unopened { why } => park(why),
        Event::Lost => vec![],
        Event::Intent { .. } | Event::Found(_) | Event::IntentTaken { .. } | Event::Sent => {
            later(order, "an answer to another question")
        }
    }
}

fn notify(order: &Order, event: &Event) -> Vec<Action> {
    match event {
        Event::Begin if order.claimed.contact.as_bytes().is_empty() => vec![Action::Report(Report::Notified)],
        Event::Begin => match order.claimed.ending {
            Ending::Open | Ending::Closed => park("there is nothing to tell the buyer of"),
            _ => vec![send(order)],
        },
        Event::Sent => vec![Action::Report(Report::Notified)],
        Event::Unopened { why } => park(why),
        Event::Failed { why: why @ (Failure::No { .. } | Failure::Missing | Failure::KeyTaken), .. } => {
            park(&why.to_string())
        }
        Event::Failed { call, why } => failed(order, *call, why),
        Event::FactTaken(_) | Event::Lost => vec![],
        Event::Intent { .. } | Event::Found(_) | Event::Refund { .. } | Event::IntentTaken { .. } => {
            later(order, "an answer to another question")
        }
    }
}

fn send(order: &Order) -> Action {
    Action::Send { key: format!("{}-{}", order.claimed.id, order.claimed.ending.name()) }
}

/// Whole milliseconds; what has too many is as long as it gets.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A call failed in a way that has nothing to do with what the order is.
fn failed(order: &Order, call: Call, why: &Failure) -> Vec<Action> {
    let give_back = |after: Duration| vec![Action::Report(Report::GiveBack { after_ms: millis(after).max(1) })];
    let may_try = order.run.tries <= order.numbers.tries_max;
    let pause = Action::Pause { tries: order.run.tries };
    match why {
        Failure::BreakerOpen { after } => give_back(*after),
        Failure::Config { .. } => give_back(CONFIG_PAUSE),
        Failure::RateLimited { after } if may_try && *after <= order.numbers.rate_wait_max => {
            vec![Action::Wait(*after), again(order, call)]
        }
        Failure::RateLimited { after } => give_back(*after),
        Failure::NotSent { .. } if may_try => vec![pause, again(order, call)],
        Failure::Unknown { .. } | Failure::Replayed { .. } if may_try => vec![pause, lookup(order, call)],
        _ => later(order, &why.to_string()),
    }
}

/// The same call with the same key: it certainly did not happen.
fn again(order: &Order, call: Call) -> Action {
    let due = || order.refund_due().map(|payment| payment.id.clone());
    let generation = order.claimed.generation;
    // What moves money is about what the ledger knows alone.
    let intent = match call {
        Call::Confirm | Call::Capture => order.claimed.intent.clone().filter(|_| order.claimed.step == Step::Pay),
        _ => order.intent(),
    };
    match (call, intent) {
        (Call::Create, _) => order.create(),
        (Call::Send, _) => send(order),
        (Call::FindRefund, _) => due().map_or(Action::Find, |payment| Action::FindRefund { payment }),
        (Call::Refund, _) => due().map_or(Action::Find, |payment| Action::Refund {
            key: format!("{}-{}-refund", order.claimed.id, payment),
            payment,
        }),
        (Call::Confirm, Some(intent)) => confirm(order, &intent, generation),
        (Call::Capture, Some(intent)) => Action::Capture { intent, key: order.key(generation, "capture") },
        (Call::Cancel, Some(intent)) => Action::Cancel { intent },
        (Call::Look, Some(intent)) => Action::Look { intent },
        (Call::Find | Call::Confirm | Call::Capture | Call::Cancel | Call::Look, _) => Action::Find,
    }
}

/// What tells whether the call happened.
fn lookup(order: &Order, call: Call) -> Action {
    match call {
        Call::Create => Action::Find,
        Call::Confirm | Call::Capture | Call::Cancel => order.look(),
        Call::Refund => again(order, Call::FindRefund),
        Call::Find | Call::Look | Call::FindRefund | Call::Send => again(order, call),
    }
}

/// Nothing more can be done in this run: again later, unless that was the last time.
fn later(order: &Order, why: &str) -> Vec<Action> {
    let numbers = &order.numbers;
    let paying = order.claimed.step == Step::Pay;
    if order.claimed.attempts + 1 >= numbers.attempts_max {
        match (paying, &order.claimed.intent) {
            (false, _) => return park(why),
            // No intent was ever reported, so none was ever confirmed.
            (true, None) => return unpaid(why),
            // Something may be pending: the payment deadline takes it to *settle*.
            (true, Some(_)) => {}
        }
    }
    let longest = if paying { numbers.pay_retry_max } else { numbers.retry_max };
    let after = numbers.retry_min.saturating_mul(1 << order.claimed.attempts.min(16)).min(longest);
    vec![Action::Report(Report::Retry { after_ms: millis(after), reason: reason(why) })]
}

/// The provider has taken money. What the ledger knows already as money that goes (or went) back pays for nothing.
fn paid(order: &Order, intent: &Intent) -> Vec<Action> {
    let known = order.claimed.payments.iter().find(|payment| payment.id == intent.id);
    if known.is_some_and(|payment| payment.state != PaymentState::Kept) {
        return unpaid("what was paid goes back");
    }
    let amount = intent.received.unwrap_or(order.claimed.amount);
    vec![Action::Fact(Fact::Paid { payment: intent.id.clone(), amount })]
}

fn unpaid(why: &str) -> Vec<Action> {
    vec![Action::Report(Report::Unpaid { reason: reason(why) })]
}

fn park(why: &str) -> Vec<Action> {
    vec![Action::Report(Report::Park { reason: reason(why) })]
}

/// A reason the ledger takes, of any text.
pub fn reason(text: &str) -> Reason {
    let mut clean: String = text.chars().map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    while clean.len() > REASON_BYTES_MAX {
        clean.pop();
    }
    Reason::new(clean.trim()).unwrap_or_else(|_| Reason::new("no reason given").expect("it is short and plain"))
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
