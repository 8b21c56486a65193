//! Orders: placing them, waiting for them, and the calls that workers make.
//!
//! **What it is.** [`PlaceOrder`] answers at once; [`crate::Client::wait_for`] makes a purchase synchronous by following the feed. Claims, heartbeats, reports and
//! facts are the worker's side: ordinary calls, so that a worker can be written in any language over the same gRPC methods (docs/orders.md).
//!
//! **Owns** one builder a verb. **Must never** keep an order's state: the ledger does. **Read next**: [`crate::seal`], [`crate::write`].

use std::future::IntoFuture;
use std::time::Duration;

use ledger_core::command::{Command, LimitKeys, Lines};
use ledger_core::order::{
    ByHand, Claimed, Ending, Fact, Money, OrderBrief, OrderDetails, OrderView, Phase, Report, Sealed, WorkClass,
    WorkerId,
};
use ledger_core::{LedgerTime, LimitKey, Reason, ReservationId, SaleId, Settled, Sku, Slot};
use ledger_proto::Invalid;

use crate::calling::Calling;
use crate::client::Client;
use crate::given::Given;
use crate::limits;
use crate::write::{Ask, millis, verb};

/// An order as the verbs on it answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its id: the reservation's.
    pub id: ReservationId,
    /// Where it stands.
    pub phase: Phase,
    /// How it ended.
    pub ending: Ending,
    /// How often it was claimed; reports name it.
    pub epoch: u32,
    /// The payment deadline, ledger time.
    pub deadline: LedgerTime,
    /// Whether this repeats an earlier verdict without a second effect.
    pub replayed: bool,
}

impl Order {
    fn new(id: ReservationId, brief: OrderBrief) -> Self {
        let OrderBrief { phase, ending, epoch, deadline, replayed } = brief;
        Self { id, phase, ending, epoch, deadline, replayed }
    }
}

fn order(command: &Command, settled: Settled) -> Option<Order> {
    match (command.reservation(), settled) {
        (Some(id), Settled::Order(brief)) => Some(Order::new(id, brief)),
        _ => None,
    }
}
fn claimed(_: &Command, settled: Settled) -> Option<Vec<Claimed>> {
    match settled {
        Settled::Claimed(claimed) => Some(claimed),
        _ => None,
    }
}

/// Places an order: takes its units and queues it for the workers, in one. Answers at once; [`Client::wait_for`] waits for its end.
/// Without lines it places a live hold that was reserved before. Idempotent by its id.
#[must_use = "nothing is sent until it is awaited"]
pub struct PlaceOrder {
    ask: Ask,
    id: ReservationId,
    amount: Option<Money>,
    pay_within: Duration,
    payment: Sealed,
    contact: Sealed,
    suspect: bool,
    keys: LimitKeys,
    lines: Lines,
}

impl PlaceOrder {
    pub(crate) fn new(client: &Client, id: ReservationId, minor: u64, currency: &str) -> Self {
        let mut ask = Ask::new(client);
        let amount = ask.take("amount", Money::new(minor, currency));
        Self {
            ask,
            id,
            amount,
            pay_within: limits::PAY_WITHIN_DEFAULT,
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: false,
            keys: LimitKeys::new(),
            lines: Lines::new(),
        }
    }
    /// Whom limits count: the first limit key. Only with lines.
    pub fn buyer(self, buyer: impl Given<LimitKey>) -> Self {
        self.key(buyer)
    }
    /// One more key that limits count by (address, card, …); up to four with the buyer's.
    pub fn key(mut self, key: impl Given<LimitKey>) -> Self {
        self.keys.extend(self.ask.take("keys", key.given()));
        self
    }
    /// So many units of the product's plain offer.
    pub fn line(mut self, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        self.lines.extend(self.ask.line(sku, Some(None), quantity.into()));
        self
    }
    /// So many units of the product's offer in a sale.
    pub fn sale_line(mut self, sale: impl Given<SaleId>, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let sale = self.ask.take("lines.sale", sale.given()).map(Some);
        self.lines.extend(self.ask.line(sku, sale, quantity.into()));
        self
    }
    /// How long there is to pay, from ledger time on; fifteen minutes otherwise. Not paid by then, the units are given back.
    pub fn pay_within(mut self, within: Duration) -> Self {
        self.pay_within = within;
        self
    }
    /// The payment method's token, sealed for the workers ([`crate::SealingKey::payment`]). Never card data.
    pub fn payment(mut self, sealed: Sealed) -> Self {
        self.payment = sealed;
        self
    }
    /// Whom to notify, sealed for the workers ([`crate::SealingKey::contact`]).
    pub fn contact(mut self, sealed: Sealed) -> Self {
        self.contact = sealed;
        self
    }
    /// Served behind all others: your fraud rules have doubts.
    pub fn suspect(mut self, suspect: bool) -> Self {
        self.suspect = suspect;
        self
    }
    fn call(self) -> Calling<Order> {
        let Self { ask, id, amount, pay_within, payment, contact, suspect, keys, lines } = self;
        let reserve = (!lines.is_empty() || !keys.is_empty()).then_some((keys, lines));
        let command = amount.map(|amount| {
            let details = OrderDetails { amount, pay_within_ms: millis(pay_within).max(1), payment, contact, suspect };
            Command::PlaceOrder { id, details: Box::new(details), reserve }
        });
        ask.finish(command, order)
    }
}
verb!(PlaceOrder => Order);

/// Takes work of one shard, under a lease. An answer that is lost costs the leases' time, nothing else.
#[must_use = "nothing is sent until it is awaited"]
pub struct Claim {
    ask: Ask,
    slot: Slot,
    worker: Option<WorkerId>,
    class: WorkClass,
    max: u32,
    lease: Duration,
    attempt: Duration,
}

impl Claim {
    pub(crate) fn new(client: &Client, slot: Slot, worker: impl Given<WorkerId>, class: WorkClass) -> Self {
        let mut ask = Ask::new(client);
        let worker = ask.take("worker", worker.given());
        Self { ask, slot, worker, class, max: 1, lease: limits::LEASE_DEFAULT, attempt: limits::ATTEMPT_DEFAULT }
    }
    /// At most so many; 1,000 at most, one otherwise.
    pub fn max(mut self, max: u32) -> Self {
        self.max = max;
        self
    }
    /// How long the leases last; thirty seconds otherwise. Renew them with [`Client::heartbeat`].
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
    /// What one attempt to pay needs at most; orders with less time left are not given. Ten seconds otherwise.
    pub fn attempt(mut self, attempt: Duration) -> Self {
        self.attempt = attempt;
        self
    }
    fn call(self) -> Calling<Vec<Claimed>> {
        let Self { ask, slot, worker, class, max, lease, attempt } = self;
        let (lease_ms, attempt_ms) = (millis(lease), millis(attempt));
        let command = worker.map(|worker| Command::ClaimOrders { slot, worker, class, max, lease_ms, attempt_ms });
        ask.finish(command, claimed)
    }
}
verb!(Claim => Vec<Claimed>);

/// A call about one order: heartbeat, report, fact, or by hand.
#[must_use = "nothing is sent until it is awaited"]
pub struct OnOrder {
    ask: Ask,
    command: Option<Command>,
}

impl OnOrder {
    pub(crate) fn heartbeat(client: &Client, id: ReservationId, epoch: u32, lease: Duration) -> Self {
        let command = Command::Heartbeat { id, epoch, lease_ms: millis(lease) };
        Self { ask: Ask::new(client), command: Some(command) }
    }
    pub(crate) fn report(client: &Client, id: ReservationId, epoch: u32, report: Report) -> Self {
        Self { ask: Ask::new(client), command: Some(Command::ReportOrder { id, epoch, report }) }
    }
    pub(crate) fn fact(client: &Client, id: ReservationId, fact: Fact) -> Self {
        Self { ask: Ask::new(client), command: Some(Command::RecordFact { id, fact }) }
    }
    pub(crate) fn by_hand(client: &Client, id: ReservationId, what: ByHand, reason: impl Given<Reason>) -> Self {
        let mut ask = Ask::new(client);
        let reason = ask.take("reason", reason.given());
        Self { ask, command: reason.map(|reason| Command::OrderByHand { id, what, reason }) }
    }
    fn call(self) -> Calling<Order> {
        self.ask.finish(self.command, order)
    }
}
verb!(OnOrder => Order);

/// Whether somebody who waits for an order should look at it: it ended, or the buyer must act, or a human must.
pub(crate) fn is_news(view: &OrderView) -> bool {
    view.brief.ending != Ending::Open || matches!(view.brief.phase, Phase::AwaitingBuyer | Phase::Parked)
}

/// No such order.
pub(crate) fn no_such_order() -> Invalid {
    Invalid::new("id", "no order of this id is known; place it first")
}
