//! The nouns of orders: what workers claim, what they report, and where an order stands (docs/decisions/0007).
//!
//! **Owns** the closed sets of phases, steps, reports and park reasons. **Must never** decide: `apply::orders` does.
//! **Read next**: [`crate::command`], [`crate::view`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use compact_str::CompactString;

use crate::limits;
use crate::types::{InvalidValue, LedgerTime, Line, ReservationId, check_text, name_type};

name_type!(
    /// A worker's name, up to 64 bytes: told in leases and explanations, never trusted.
    WorkerId, "worker id", limits::WORKER_ID_BYTES_MAX, spaces: false
);
name_type!(
    /// The payment provider's id of an intent, a payment or a refund, up to 128 bytes.
    ProviderId, "provider id", limits::PROVIDER_ID_BYTES_MAX, spaces: false
);

/// An amount of money in minor units (cents) of an ISO 4217 currency. The ledger compares amounts and never computes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: u64,
    currency: [u8; 3],
}

impl Money {
    /// Makes one; `currency` is three ASCII letters, in any case.
    ///
    /// # Errors
    /// [`InvalidValue`] when the amount is zero or above [`limits::AMOUNT_MAX`], or the code is not three letters.
    pub fn new(minor: u64, currency: &str) -> Result<Self, InvalidValue> {
        if minor == 0 || minor > limits::AMOUNT_MAX {
            let (got, max) = (i128::from(minor), i128::from(limits::AMOUNT_MAX));
            return Err(InvalidValue::OutOfRange { what: "amount in minor units", got, min: 1, max });
        }
        let code = <[u8; 3]>::try_from(currency.as_bytes())
            .ok()
            .filter(|code| code.iter().all(u8::is_ascii_alphabetic))
            .ok_or_else(|| InvalidValue::NotACurrency { got: currency.chars().take(16).collect() })?;
        Ok(Self { minor, currency: code.map(|b| b.to_ascii_uppercase()) })
    }
    /// Minor units.
    pub fn minor(self) -> u64 {
        self.minor
    }
    /// The currency's code, upper case.
    pub fn currency(&self) -> &str {
        std::str::from_utf8(&self.currency).expect("three letters")
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.minor, self.currency())
    }
}

/// Something only workers can open: encrypted by the SDK to the workers' public key. Ledger, log, history and backups hold just this.
/// An order and the answers to its claims share one copy.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sealed(Option<Arc<[u8]>>);

impl Sealed {
    /// Takes sealed bytes.
    ///
    /// # Errors
    /// [`InvalidValue`] above [`limits::SEALED_BYTES_MAX`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, InvalidValue> {
        let bytes = bytes.as_ref();
        if bytes.len() > limits::SEALED_BYTES_MAX {
            let (got, max) = (bytes.len(), limits::SEALED_BYTES_MAX);
            return Err(InvalidValue::TooLong { what: "sealed content", got, max });
        }
        Ok(Self((!bytes.is_empty()).then(|| bytes.into())))
    }
    /// The bytes; empty when there is nothing, or when it was dropped after the order was done.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.as_bytes().len())
    }
}

/// What the buyer's client needs to act at the provider (an intent's client secret), sealed to the reply key that came with the
/// order: text that begins with [`Self::SEALED`], made and opened by the SDK.
///
/// Logs of earlier builds may hold it in clear. Their bytes stay what they are, since replicas must agree on them; but nothing
/// prints it (`Debug` has only its length), and the wire carries the sealed form alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ClientSecret(CompactString);

impl ClientSecret {
    /// What the sealed form begins with; the box follows in base64 (URL alphabet, no padding).
    pub const SEALED: &'static str = "holdfast-secret-1:";

    /// As it stands in the log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it has the sealed form. Neither an empty one nor one in clear has.
    pub fn is_sealed(&self) -> bool {
        let digit = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        self.0.strip_prefix(Self::SEALED).is_some_and(|digits| !digits.is_empty() && digits.bytes().all(digit))
    }
    /// Itself, unless it is not sealed.
    pub fn if_sealed(self) -> Option<Self> {
        self.is_sealed().then_some(self)
    }
}

impl From<CompactString> for ClientSecret {
    fn from(text: CompactString) -> Self {
        Self(text)
    }
}
impl From<String> for ClientSecret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
impl From<&str> for ClientSecret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}
impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSecret({} bytes)", self.0.len())
    }
}

/// What is ordered beyond the stock: part of the content that makes `place` idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderDetails {
    /// What is to be paid.
    pub amount: Money,
    /// How long there is to pay, milliseconds from ledger time: the hold's new deadline.
    pub pay_within_ms: u64,
    /// For the payment provider (a payment method's token; never card data).
    pub payment: Sealed,
    /// For the notification (address, language, …).
    pub contact: Sealed,
    /// Served behind all others: the caller's fraud rules have doubts.
    pub suspect: bool,
}

/// Where an order stands. The numbers are frozen (codec, digest, wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Held, and no worker ever had it.
    Queued = 1,
    /// Held, and a worker had it at least once: it never just expires from here on.
    Paying = 2,
    /// Held; the buyer must do something at the provider (3-D Secure and the like).
    AwaitingBuyer = 3,
    /// Its units are free again; whether it was paid is not known yet.
    Settling = 4,
    /// Paid and sold; the buyer is to be told.
    Sold = 5,
    /// Nothing paid, units given back; the buyer is to be told.
    Released = 6,
    /// Nobody took it up before its payment deadline; the buyer is to be told.
    Expired = 7,
    /// Money must go back.
    RefundDue = 8,
    /// Money went back; the buyer is to be told.
    Refunded = 9,
    /// Nothing left to do.
    Done = 10,
    /// Dead letter: inspect, redrive, or close by hand.
    Parked = 11,
}

impl Phase {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Paying,
        Self::AwaitingBuyer,
        Self::Settling,
        Self::Sold,
        Self::Released,
        Self::Expired,
        Self::RefundDue,
        Self::Refunded,
        Self::Done,
        Self::Parked,
    ];
    /// Its published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Paying => "paying",
            Self::AwaitingBuyer => "awaiting-buyer",
            Self::Settling => "settling",
            Self::Sold => "sold",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::RefundDue => "refund-due",
            Self::Refunded => "refunded",
            Self::Done => "done",
            Self::Parked => "parked",
        }
    }
    /// Whether the order's reservation is a live hold in this phase.
    pub fn holds(self) -> bool {
        matches!(self, Self::Queued | Self::Paying | Self::AwaitingBuyer)
    }
}

/// How a finished (or parked) order ended: what the buyer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ending {
    /// It has not ended.
    Open = 0,
    /// Paid and sold.
    Sold = 1,
    /// Nothing paid: declined, given up, or released by the caller.
    Released = 2,
    /// Never taken up in time.
    Expired = 3,
    /// Paid and given back.
    Refunded = 4,
    /// Closed by hand.
    Closed = 5,
}

impl Ending {
    /// Its published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sold => "sold",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Refunded => "refunded",
            Self::Closed => "closed",
        }
    }
}

/// What a worker is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    /// Create the provider's intent, report its id, confirm it, report the outcome.
    Pay = 1,
    /// Find out whether anything was paid, and cancel what still could be.
    Settle = 2,
    /// Give every payment that is refund due back.
    Refund = 3,
    /// Tell the buyer how it ended.
    Notify = 4,
}

impl Step {
    /// Its published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Settle => "settle",
            Self::Refund => "refund",
            Self::Notify => "notify",
        }
    }
    /// Which of the two queues it stands in.
    pub fn class(self) -> WorkClass {
        if self == Self::Notify { WorkClass::Mail } else { WorkClass::Money }
    }
}

/// The two queues: payments and notifications never wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum WorkClass {
    /// Pay, settle, refund.
    Money = 1,
    /// Notify.
    Mail = 2,
}

/// What a worker says about the order it has leased. Needs the current epoch. A report ends the lease, but for [`Self::Intent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The provider's intent was created (which moves nothing). The lease goes on. `generation` is that of the order, or the next one when the intent before is
    /// certain to have failed or been cancelled.
    Intent {
        /// The provider's id.
        intent: ProviderId,
        /// 1 for the first.
        generation: u32,
    },
    /// The buyer must act at the provider.
    AwaitBuyer {
        /// What the client needs for it, sealed, up to 512 bytes; empty when the order came without a reply key.
        secret: ClientSecret,
    },
    /// Nothing was paid and nothing is pending any more, for certain: declined, or cancelled. From *pay* and *settle*.
    Unpaid {
        /// Why, for the buyer and the explanation.
        reason: crate::types::Reason,
    },
    /// The buyer was told.
    Notified,
    /// Not yet: again after a time. Counts as an attempt.
    Retry {
        /// Milliseconds from ledger time, up to a day.
        after_ms: u64,
        /// Why.
        reason: crate::types::Reason,
    },
    /// Nothing was tried (shutting down, breaker open): ready again at once or after a time. Counts as nothing.
    GiveBack {
        /// Milliseconds from ledger time.
        after_ms: u64,
    },
    /// Attempts are exhausted, or it cannot be done: dead letter.
    Park {
        /// Why.
        reason: crate::types::Reason,
    },
}

/// What the provider says has happened to money. Needs no lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A payment was taken.
    Paid {
        /// The provider's id of the payment; what it is known by ever after.
        payment: ProviderId,
        /// How much.
        amount: Money,
    },
    /// A payment was given back.
    Refunded {
        /// The provider's id of the payment.
        payment: ProviderId,
        /// The provider's id of the refund.
        refund: ProviderId,
    },
}

/// What an operator does by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ByHand {
    /// A parked order goes on where it was parked, attempts at zero.
    Redrive = 1,
    /// A parked order is done; nothing is moved.
    Close = 2,
    /// A sold order's kept payments are to be given back.
    Refund = 3,
    /// An order that awaits its buyer is looked at again at once (a webhook said that something happened).
    Resume = 4,
}

/// Why an order was parked, beside a worker's own reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkReason {
    /// A worker said so.
    Worker(crate::types::Reason),
    /// Too many leases ended without a report.
    LeasesLost,
    /// A payment came for an id that has no order here.
    UnknownOrder,
}

/// Where one payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PaymentState {
    /// It pays for the order.
    Kept = 1,
    /// It must go back.
    RefundDue = 2,
    /// It went back.
    Refunded = 3,
    /// It was refund due when an operator closed the order: nothing is done about it any more.
    Closed = 4,
}

/// Why money must go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefundWhy {
    /// Its amount or currency is not the order's.
    WrongAmount = 1,
    /// The order was paid for already, or its money went back before.
    SecondPayment = 2,
    /// It came when the units were given back, and there are not enough any more.
    SoldOut = 3,
    /// The same, and a limit key has reached its limit.
    LimitReached = 4,
    /// The same, and the offer no longer sells such an order (its sale was ended, or its policy changed).
    NotForSale = 5,
    /// An operator asked for it.
    ByHand = 6,
    /// No order of that id was known.
    UnknownOrder = 7,
}

/// Why an order's units were given back while it was not known whether it was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SettlingWhy {
    /// Its payment deadline passed.
    Deadline = 1,
    /// Its caller released it.
    Released = 2,
    /// An operator redrove it after it was parked.
    Redriven = 3,
}

/// One payment of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The provider's id.
    pub id: ProviderId,
    /// How much; none of a refund whose payment was never reported.
    pub amount: Option<Money>,
    /// Where it stands.
    pub state: PaymentState,
    /// The provider's id of the refund, once refunded.
    pub refund: Option<ProviderId>,
}

/// What a claim gives a worker: all it needs, so that it asks nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The order.
    pub id: ReservationId,
    /// To be named in every report.
    pub epoch: u32,
    /// The lease ends then, ledger time.
    pub lease_until: LedgerTime,
    /// What to do.
    pub step: Step,
    /// Where it stands.
    pub phase: Phase,
    /// How it ended, for *notify*.
    pub ending: Ending,
    /// Attempts of this step before this one.
    pub attempts: u32,
    /// The payment deadline (of a held one), ledger time.
    pub deadline: LedgerTime,
    /// What is to be paid; of an order that is known by a stray payment alone, what was paid.
    pub amount: Money,
    /// Sealed: payment token.
    pub payment: Sealed,
    /// Sealed: contact.
    pub contact: Sealed,
    /// The provider's present intent, if one was reported.
    pub intent: Option<ProviderId>,
    /// Generation of that intent; 0 before the first.
    pub generation: u32,
    /// All payments known.
    pub payments: Vec<Payment>,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The reservation that a late payment was given instead, if there is one.
    pub linked: Option<ReservationId>,
}

/// An order in brief, as every verb on it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBrief {
    /// Where it stands at this position's ledger time.
    pub phase: Phase,
    /// How it ended.
    pub ending: Ending,
    /// Its epoch.
    pub epoch: u32,
    /// The payment deadline.
    pub deadline: LedgerTime,
    /// Whether this answer repeats an earlier verdict without a second effect.
    pub replayed: bool,
}

/// All that is known of an order, for reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderView {
    /// The order.
    pub id: ReservationId,
    /// In brief.
    pub brief: OrderBrief,
    /// The next step; none when nothing is to be done by a worker.
    pub step: Option<Step>,
    /// Attempts of this step.
    pub attempts: u32,
    /// When it may be claimed again (delayed), ledger time.
    pub not_before: Option<LedgerTime>,
    /// Who has it, until when.
    pub lease: Option<(WorkerId, LedgerTime)>,
    /// When it was placed, ledger time.
    pub placed_at: LedgerTime,
    /// What is to be paid; none of an order that is known by a stray payment alone.
    pub amount: Option<Money>,
    /// The provider's intent.
    pub intent: Option<ProviderId>,
    /// Its generation.
    pub generation: u32,
    /// What the client needs to act at the provider, while it must.
    pub secret: Option<ClientSecret>,
    /// All payments.
    pub payments: Vec<Payment>,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The reservation that a late payment was given instead.
    pub linked: Option<ReservationId>,
    /// Why it is parked.
    pub parked: Option<ParkReason>,
    /// Served behind all others.
    pub suspect: bool,
}

/// Orders in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderPage {
    /// Those that were asked for; perhaps fewer than asked, even none, since a bounded number is looked at.
    pub orders: Vec<OrderView>,
    /// Where to go on: ask for those after it; none when there are no more.
    pub next: Option<ReservationId>,
}

/// Depth and age of the queues of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Ready to be claimed, by class: money, mail.
    pub ready: [u64; 2],
    /// Of those, in the suspect lane.
    pub suspects: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// With a worker.
    pub leased: u64,
    /// Waiting for their buyers.
    pub awaiting: u64,
    /// Dead letters.
    pub parked: u64,
    /// Not done, all of them.
    pub open: u64,
    /// Since when the oldest ready one waits, ledger time, by class.
    pub oldest_ready: [Option<LedgerTime>; 2],
}
