//! `ledgerctl order …`, `queue stats`, `dlq list`: what became of orders, and what an operator does about them.
//!
//! **Owns** the documents of orders. **Must never** show what is sealed: it cannot. **Read next**: [`super::watch`], `docs/orders.md`.

use client_sdk::document::{ChangeDocument, parked_words};
use client_sdk::order::{ByHand, OrderView, Payment, PaymentState, Phase, QueueStats, Step};
use client_sdk::{Client, Slot};
use serde::Serialize;

use super::Desk;
use super::watch::to_line;
use crate::cli::{ByHandArgs, DlqVerb, ExplainArgs, IdArgs, OrderVerb, OrdersArgs, QueueVerb};
use crate::output::{Failure, Outcome, instant, maybe, num, table, text};

/// One payment of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PaymentDoc {
    id: String,
    amount: Option<u64>,
    currency: Option<String>,
    state: &'static str,
    refund: Option<String>,
}

impl From<&Payment> for PaymentDoc {
    fn from(payment: &Payment) -> Self {
        Self {
            id: payment.id.to_string(),
            amount: payment.amount.map(|money| money.minor()),
            currency: payment.amount.map(|money| money.currency().to_owned()),
            state: match payment.state {
                PaymentState::Kept => "kept",
                PaymentState::RefundDue => "refund due",
                PaymentState::Refunded => "refunded",
                PaymentState::Closed => "closed by hand",
            },
            refund: payment.refund.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OrderLineDoc {
    sku: String,
    sale: Option<String>,
    units: u32,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OrderDoc {
    id: String,
    phase: &'static str,
    ending: &'static str,
    step: Option<&'static str>,
    attempts: u32,
    not_before_ms: Option<u64>,
    worker: Option<String>,
    lease_until_ms: Option<u64>,
    epoch: u32,
    placed_at_ms: u64,
    deadline_ms: u64,
    amount: Option<u64>,
    currency: Option<String>,
    intent: Option<String>,
    generation: u32,
    awaits_buyer: bool,
    payments: Vec<PaymentDoc>,
    lines: Vec<OrderLineDoc>,
    linked: Option<String>,
    parked: Option<String>,
    suspect: bool,
}

/// A phase by its name on the command line.
pub(crate) fn phase_named(name: &str) -> Result<Phase, String> {
    let all = || Phase::ALL.iter().map(|&phase| phase.name()).collect::<Vec<_>>().join(", ");
    Phase::ALL.into_iter().find(|&phase| phase.name() == name).ok_or_else(|| format!("one of {}", all()))
}

impl From<&OrderView> for OrderDoc {
    fn from(view: &OrderView) -> Self {
        let line = |line: &client_sdk::Line| OrderLineDoc {
            sku: line.offer.sku.to_string(),
            sale: line.offer.sale.as_ref().map(ToString::to_string),
            units: line.quantity.get(),
        };
        Self {
            id: view.id.to_string(),
            phase: view.brief.phase.name(),
            ending: view.brief.ending.name(),
            step: view.step.map(Step::name),
            attempts: view.attempts,
            not_before_ms: view.not_before.map(|at| at.0),
            worker: view.lease.as_ref().map(|(worker, _)| worker.to_string()),
            lease_until_ms: view.lease.as_ref().map(|(_, until)| until.0),
            epoch: view.brief.epoch,
            placed_at_ms: view.placed_at.0,
            deadline_ms: view.brief.deadline.0,
            amount: view.amount.map(|money| money.minor()),
            currency: view.amount.map(|money| money.currency().to_owned()),
            intent: view.intent.as_ref().map(ToString::to_string),
            generation: view.generation,
            awaits_buyer: view.brief.phase == Phase::AwaitingBuyer,
            payments: view.payments.iter().map(PaymentDoc::from).collect(),
            lines: view.lines.iter().map(line).collect(),
            linked: view.linked.map(|id| id.to_string()),
            parked: view.parked.as_ref().map(parked_words),
            suspect: view.suspect,
        }
    }
}

fn money(amount: Option<u64>, currency: Option<&String>) -> Option<String> {
    Some(format!("{} {}", amount?, currency?))
}

impl OrderDoc {
    fn to_text(&self) -> String {
        let mut out = format!(
            "{}: {} ({}), placed {}, pay until {}, amount {}",
            self.id,
            self.phase,
            self.ending,
            instant(self.placed_at_ms),
            instant(self.deadline_ms),
            money(self.amount, self.currency.as_ref()).unwrap_or_else(|| "-".into()),
        );
        if let Some(step) = self.step {
            out.push_str(&format!("\nnext: {step}, after {} attempts", self.attempts));
            if let Some(at) = self.not_before_ms {
                out.push_str(&format!(", not before {}", instant(at)));
            }
        }
        if let (Some(worker), Some(until)) = (&self.worker, self.lease_until_ms) {
            out.push_str(&format!("\nwith {worker} until {} (epoch {})", instant(until), self.epoch));
        }
        if let Some(why) = &self.parked {
            out.push_str(&format!(
                "\nparked: {why}\n  ledgerctl order redrive {} | ledgerctl order close {}",
                self.id, self.id
            ));
        }
        if let Some(intent) = &self.intent {
            out.push_str(&format!("\nintent {intent}, generation {}", self.generation));
        }
        if let Some(linked) = &self.linked {
            out.push_str(&format!("\npaid late; its units are reservation {linked}"));
        }
        for line in &self.lines {
            let sale = line.sale.as_ref().map_or(String::new(), |sale| format!(" in sale {sale}"));
            out.push_str(&format!("\n{} × {}{sale}", line.units, line.sku));
        }
        for payment in &self.payments {
            let amount = money(payment.amount, payment.currency.as_ref()).unwrap_or_else(|| "-".into());
            let refund = payment.refund.as_ref().map_or(String::new(), |refund| format!(" by {refund}"));
            out.push_str(&format!("\npayment {}: {amount}, {}{refund}", payment.id, payment.state));
        }
        out
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OrdersDoc {
    orders: Vec<OrderDoc>,
}

impl OrdersDoc {
    fn to_text(&self) -> String {
        table(
            ["ORDER", "PHASE", "ENDING", "NEXT", "TRIES", "AMOUNT", "PLACED", "PAY UNTIL", "WORKER", "PARKED"],
            self.orders.iter().map(|o| {
                [
                    text(&o.id),
                    text(o.phase),
                    text(o.ending),
                    maybe(o.step),
                    num(o.attempts),
                    maybe(money(o.amount, o.currency.as_ref())),
                    text(instant(o.placed_at_ms)),
                    text(instant(o.deadline_ms)),
                    maybe(o.worker.as_ref()),
                    maybe(o.parked.as_ref()),
                ]
            }),
        )
    }
}

/// Orders of all shards, shard by shard in the order of their ids, at most `max`.
async fn gather(client: &Client, phase: Option<Phase>, max: usize) -> Outcome<Vec<OrderView>> {
    let mut found = Vec::new();
    for slot in client.shard_slots() {
        let mut after = None;
        while found.len() < max {
            let mut read = client.orders_of(slot).max((max - found.len()).min(1_000) as u32);
            if let Some(phase) = phase {
                read = read.phase(phase);
            }
            if let Some(id) = after {
                read = read.after(id);
            }
            let page = read.await.into_result()?;
            found.extend(page.orders);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    found.truncate(max);
    Ok(found)
}

async fn list(desk: &Desk, phase: Option<Phase>, max: usize) -> Outcome {
    let found = gather(&desk.client().await?, phase, max).await?;
    if found.len() == max {
        eprintln!("the first {max}; --max for more");
    }
    desk.printer.print(&OrdersDoc { orders: found.iter().map(OrderDoc::from).collect() }, OrdersDoc::to_text)
}

pub(super) async fn run(desk: &Desk, verb: OrderVerb) -> Outcome {
    match verb {
        OrderVerb::List(OrdersArgs { phase, max }) => list(desk, phase, max).await,
        OrderVerb::Show(IdArgs { id }) => {
            let view = desk.client().await?.order(id).await.into_result()?;
            let view = view.ok_or_else(|| Failure::refused(format!("there is no order {id}")))?;
            desk.printer.print(&OrderDoc::from(&view), OrderDoc::to_text)
        }
        OrderVerb::Explain(args) => explain(desk, args).await,
        OrderVerb::Redrive(args) => by_hand(desk, ByHand::Redrive, "let workers go on with parked order", args).await,
        OrderVerb::Close(args) => by_hand(desk, ByHand::Close, "give up parked order, moving nothing,", args).await,
        OrderVerb::Refund(args) => by_hand(desk, ByHand::Refund, "give back what was paid for order", args).await,
    }
}

async fn by_hand(desk: &Desk, what: ByHand, words: &str, args: ByHandArgs) -> Outcome {
    let id = args.id.id;
    desk.printer.ask(&format!("{words} {id} ({})", args.reason))?;
    let client = desk.client().await?;
    client.order_by_hand(id, what, &args.reason).await.into_result()?;
    let view = client.order(id).await.into_result()?;
    let view = view.ok_or_else(|| Failure::refused(format!("there is no order {id}")))?;
    desk.printer.print(&OrderDoc::from(&view), OrderDoc::to_text)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ExplainDoc {
    id: String,
    /// Oldest first.
    decisions: Vec<ChangeDocument>,
    /// Older ones are no longer kept on the node that was asked.
    cut_off: bool,
}

async fn explain(desk: &Desk, ExplainArgs { id: IdArgs { id }, max }: ExplainArgs) -> Outcome {
    let client = desk.client().await?;
    let mut found = Vec::new();
    let (mut before, mut cut_off) = (None, false);
    while found.len() < max {
        let mut read = client.explain(id).max((max - found.len()).min(1_000) as u32);
        if let Some(position) = before {
            read = read.before(position);
        }
        let told = read.await.into_result()?;
        cut_off |= told.cut_off;
        found.extend(told.changes);
        before = told.next;
        if before.is_none() {
            break;
        }
    }
    found.reverse();
    let decisions = found.iter().map(ChangeDocument::from).collect();
    desk.printer.print(&ExplainDoc { id: id.to_string(), decisions, cut_off }, |doc| {
        let mut lines: Vec<String> = doc.decisions.iter().map(to_line).collect();
        if doc.cut_off {
            lines.insert(0, "(older decisions are no longer kept on this node)".to_owned());
        }
        if lines.is_empty() {
            lines.push(format!("nothing is known of {}", doc.id));
        }
        lines.join("\n")
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct QueueDoc {
    shard_slot: u16,
    ready_money: u64,
    ready_mail: u64,
    suspects: u64,
    delayed: u64,
    leased: u64,
    awaiting_buyer: u64,
    parked: u64,
    open: u64,
    oldest_money_ms: Option<u64>,
    oldest_mail_ms: Option<u64>,
}

impl QueueDoc {
    /// `now`: ledger time of the read; ages are told, not instants.
    fn new(slot: Slot, stats: QueueStats, now: u64) -> Self {
        let age = |at: Option<client_sdk::LedgerTime>| at.map(|at| now.saturating_sub(at.0));
        Self {
            shard_slot: slot.get(),
            ready_money: stats.ready[0],
            ready_mail: stats.ready[1],
            suspects: stats.suspects,
            delayed: stats.delayed,
            leased: stats.leased,
            awaiting_buyer: stats.awaiting,
            parked: stats.parked,
            open: stats.open,
            oldest_money_ms: age(stats.oldest_ready[0]),
            oldest_mail_ms: age(stats.oldest_ready[1]),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct QueuesDoc {
    queues: Vec<QueueDoc>,
}

pub(super) async fn queue(desk: &Desk, QueueVerb::Stats: QueueVerb) -> Outcome {
    let client = desk.client().await?;
    let mut queues = Vec::new();
    for slot in client.shard_slots() {
        let read = client.queue_of(slot).await;
        let now = read.at().map_or(0, |at| at.time.0);
        queues.push(QueueDoc::new(slot, read.into_result()?, now));
    }
    desk.printer.print(&QueuesDoc { queues }, |doc| {
        let header = [
            "SHARD OF SLOT",
            "PAY",
            "MAIL",
            "SUSPECT",
            "DELAYED",
            "LEASED",
            "BUYER",
            "PARKED",
            "OPEN",
            "OLDEST PAY",
            "OLDEST MAIL",
        ];
        let age = |ms: Option<u64>| maybe(ms.map(|ms| format!("{:.1} s", ms as f64 / 1e3)));
        table(
            header,
            doc.queues.iter().map(|q| {
                [
                    num(q.shard_slot),
                    num(q.ready_money),
                    num(q.ready_mail),
                    num(q.suspects),
                    num(q.delayed),
                    num(q.leased),
                    num(q.awaiting_buyer),
                    num(q.parked),
                    num(q.open),
                    age(q.oldest_money_ms),
                    age(q.oldest_mail_ms),
                ]
            }),
        )
    })
}

pub(super) async fn dlq(desk: &Desk, DlqVerb::List { max }: DlqVerb) -> Outcome {
    list(desk, Some(Phase::Parked), max).await
}
