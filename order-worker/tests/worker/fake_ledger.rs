//! The ledger's state machine of orders (docs/decisions/0007), as simple as it can be: one product, one unit an order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ledger_core::order::*;
use ledger_core::{LedgerTime, ReservationId, Slot};
use order_worker::ledger::{Ledger, Told, Want};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cut::Cut;

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) phase: Phase,
    pub(crate) ending: Ending,
    pub(crate) epoch: u32,
    pub(crate) lease: Option<Instant>,
    not_before: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) deadline: Instant,
    amount: Money,
    payment: Sealed,
    contact: Sealed,
    pub(crate) intent: Option<ProviderId>,
    pub(crate) generation: u32,
    pub(crate) payments: Vec<Payment>,
    pub(crate) parked: Option<String>,
    last: Option<(u32, Report)>,
}

impl Record {
    pub(crate) fn step(&self) -> Option<Step> {
        let due = self.payments.iter().any(|payment| payment.state == PaymentState::RefundDue);
        match self.phase {
            Phase::Queued | Phase::Paying => Some(Step::Pay),
            Phase::AwaitingBuyer | Phase::Parked => None,
            _ if due => Some(Step::Refund),
            Phase::Settling => Some(Step::Settle),
            Phase::RefundDue => Some(Step::Refund),
            Phase::Sold | Phase::Released | Phase::Expired | Phase::Refunded => Some(Step::Notify),
            Phase::Done => None,
        }
    }
    fn brief(&self) -> OrderBrief {
        OrderBrief {
            phase: self.phase,
            ending: self.ending,
            epoch: self.epoch,
            deadline: LedgerTime(0),
            replayed: false,
        }
    }
    fn kept(&self) -> bool {
        self.payments.iter().any(|payment| payment.state == PaymentState::Kept)
    }
}

#[derive(Default)]
struct State {
    free: u64,
    orders: BTreeMap<ReservationId, Record>,
}

pub(crate) struct FakeLedger {
    state: Mutex<State>,
    cut: Arc<Cut>,
    began: Instant,
    changed: watch::Sender<u64>,
}

fn refused<T>(why: &str) -> Told<T> {
    Told::Refused { why: why.to_owned() }
}
fn lost<T>() -> Told<T> {
    Told::Unknown { why: "the answer was lost".into() }
}

impl FakeLedger {
    pub(crate) fn new(free: u64, cut: Arc<Cut>) -> Self {
        let state = Mutex::new(State { free, orders: BTreeMap::new() });
        Self { state, cut, began: Instant::now(), changed: watch::Sender::new(0) }
    }
    pub(crate) fn place(&self, n: u64, pay_within: Duration, payment: Sealed, contact: Sealed) -> ReservationId {
        let id = Self::id(n);
        let mut state = self.state.lock().unwrap();
        assert!(state.free > 0, "sold out");
        state.free -= 1;
        let record = Record {
            phase: Phase::Queued,
            ending: Ending::Open,
            epoch: 0,
            lease: None,
            not_before: None,
            attempts: 0,
            deadline: Instant::now() + pay_within,
            amount: Money::new(500, "EUR").unwrap(),
            payment,
            contact,
            intent: None,
            generation: 0,
            payments: vec![],
            parked: None,
            last: None,
        };
        state.orders.insert(id, record);
        id
    }
    pub(crate) fn id(n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::new(7).unwrap(), 1_000, n)
    }
    pub(crate) fn free(&self) -> u64 {
        self.state.lock().unwrap().free
    }
    pub(crate) fn restock(&self, units: u64) {
        self.state.lock().unwrap().free += units;
    }
    /// How often any order was claimed.
    pub(crate) fn claims(&self) -> u32 {
        self.state.lock().unwrap().orders.values().map(|record| record.epoch).sum()
    }
    /// Others take what is free.
    pub(crate) fn sell_out(&self) {
        self.state.lock().unwrap().free = 0;
    }
    pub(crate) fn record(&self, id: ReservationId) -> Record {
        self.state.lock().unwrap().orders[&id].clone()
    }
    pub(crate) fn with(&self, id: ReservationId, change: impl FnOnce(&mut Record)) {
        change(self.state.lock().unwrap().orders.get_mut(&id).unwrap());
        self.changed.send_modify(|n| *n += 1);
    }
    /// Waits until the order stands so.
    pub(crate) async fn until(&self, id: ReservationId, is: impl Fn(&Record) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            let deadline = {
                let mut state = self.state.lock().unwrap();
                sweep(&mut state, Instant::now());
                match state.orders.get(&id) {
                    Some(record) if is(record) => return,
                    Some(record) => record.deadline,
                    None => Instant::now(),
                }
            };
            if deadline > Instant::now() {
                let _ = tokio::time::timeout_at(deadline, changed.changed()).await;
            } else {
                let _ = changed.changed().await;
            }
        }
    }

    async fn answer<T: Clone>(&self, what: &str, apply: impl Fn(&mut State) -> Told<T>) -> Told<T> {
        if self.cut.pass(&format!("before {what}")).await {
            return lost();
        }
        let mut told = self.apply(&apply);
        if self.cut.is_twice() {
            told = self.apply(&apply);
        }
        if self.cut.pass(&format!("after {what}")).await {
            return lost();
        }
        told
    }
    fn apply<T>(&self, apply: &impl Fn(&mut State) -> Told<T>) -> Told<T> {
        let mut state = self.state.lock().unwrap();
        sweep(&mut state, Instant::now());
        let told = apply(&mut state);
        drop(state);
        self.changed.send_modify(|n| *n += 1);
        told
    }
}

fn sweep(state: &mut State, now: Instant) {
    let mut freed = 0;
    for record in state.orders.values_mut() {
        if record.lease.is_some_and(|until| until <= now) {
            record.lease = None;
            record.attempts += 1;
        }
        if record.phase.holds() && record.deadline <= now {
            freed += 1;
            let next = if record.phase == Phase::Queued { Phase::Expired } else { Phase::Settling };
            enter(record, next);
        }
    }
    state.free += freed;
}

fn enter(record: &mut Record, phase: Phase) {
    record.phase = phase;
    (record.lease, record.not_before, record.attempts) = (None, None, 0);
    record.ending = match phase {
        Phase::Sold => Ending::Sold,
        Phase::Released => Ending::Released,
        Phase::Expired => Ending::Expired,
        Phase::Refunded => Ending::Refunded,
        Phase::Done => record.ending,
        _ => Ending::Open,
    };
}

fn apply_report(state: &mut State, id: ReservationId, epoch: u32, report: &Report) -> Told<OrderBrief> {
    let now = Instant::now();
    let Some(record) = state.orders.get_mut(&id) else { return refused("no such order") };
    if record.last.as_ref() == Some(&(epoch, report.clone())) {
        return Told::Ok(record.brief());
    }
    if record.epoch != epoch {
        return refused("stale epoch");
    }
    if record.lease.is_none() {
        return refused("the lease has ended");
    }
    let held = record.phase.holds();
    match report {
        Report::Intent { intent, generation } => {
            let same = *generation == record.generation && record.intent.as_ref() == Some(intent);
            if !same && *generation != record.generation + 1 {
                return refused("wrong generation");
            }
            record.intent = Some(intent.clone());
            record.generation = *generation;
            return Told::Ok(record.brief());
        }
        Report::AwaitBuyer { .. } => {
            assert!(held, "only what is held waits for its buyer");
            enter(record, Phase::AwaitingBuyer);
        }
        Report::Unpaid { .. } => enter(record, Phase::Released),
        Report::Notified => enter(record, Phase::Done),
        Report::Retry { after_ms, .. } => {
            record.lease = None;
            record.attempts += 1;
            record.not_before = Some(now + Duration::from_millis(*after_ms));
        }
        Report::GiveBack { after_ms } => {
            record.lease = None;
            record.not_before = Some(now + Duration::from_millis(*after_ms));
        }
        Report::Park { reason } => {
            record.parked = Some(reason.to_string());
            enter(record, Phase::Parked);
        }
    }
    record.last = Some((epoch, report.clone()));
    let brief = record.brief();
    if held && !record.phase.holds() {
        state.free += 1;
    }
    Told::Ok(brief)
}

/// A lease is of one step.
fn apply_fact(state: &mut State, id: ReservationId, fact: &Fact) -> Told<OrderBrief> {
    let step = state.orders.get(&id).and_then(Record::step);
    let told = record_fact(state, id, fact);
    if let Some(record) = state.orders.get_mut(&id).filter(|record| record.step() != step) {
        (record.lease, record.attempts) = (None, 0);
    }
    told
}

fn record_fact(state: &mut State, id: ReservationId, fact: &Fact) -> Told<OrderBrief> {
    let State { free, orders } = state;
    match fact {
        Fact::Paid { payment, amount } => {
            let Some(record) = orders.get_mut(&id) else { return refused("no such order") };
            if record.payments.iter().any(|known| known.id == *payment) {
                return Told::Ok(record.brief());
            }
            let mut paid =
                Payment { id: payment.clone(), amount: Some(*amount), state: PaymentState::Kept, refund: None };
            if *amount != record.amount || record.kept() {
                paid.state = PaymentState::RefundDue;
            } else if record.phase.holds() {
                enter(record, Phase::Sold);
            } else if *free > 0 {
                *free -= 1;
                enter(record, Phase::Sold);
            } else {
                paid.state = PaymentState::RefundDue;
                enter(record, Phase::RefundDue);
            }
            record.payments.push(paid);
            Told::Ok(record.brief())
        }
        Fact::Refunded { payment, refund } => {
            let Some(record) = orders.get_mut(&id) else { return refused("no such order") };
            for known in record.payments.iter_mut().filter(|known| known.id == *payment) {
                known.state = PaymentState::Refunded;
                known.refund = Some(refund.clone());
            }
            let due = record.payments.iter().any(|payment| payment.state == PaymentState::RefundDue);
            if !due && record.phase == Phase::RefundDue {
                enter(record, Phase::Refunded);
            }
            Told::Ok(record.brief())
        }
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn claim(&self, want: Want) -> Told<Vec<Claimed>> {
        let (now, began) = (Instant::now(), self.began);
        let claimed = {
            let mut state = self.state.lock().unwrap();
            sweep(&mut state, now);
            let mut claimed = vec![];
            for (id, record) in &mut state.orders {
                let Some(step) = record.step().filter(|step| step.class() == want.class) else { continue };
                let waits = record.lease.is_some() || record.not_before.is_some_and(|at| at > now);
                let near = record.phase.holds() && record.deadline < now + Duration::from_millis(want.attempt_ms);
                if waits || near || claimed.len() >= want.max as usize {
                    continue;
                }
                record.epoch += 1;
                record.lease = Some(now + Duration::from_millis(want.lease_ms));
                if record.phase == Phase::Queued {
                    record.phase = Phase::Paying;
                }
                let time = |at: Instant| LedgerTime(at.duration_since(began).as_millis() as u64);
                claimed.push(Claimed {
                    id: *id,
                    epoch: record.epoch,
                    lease_until: time(now),
                    step,
                    phase: record.phase,
                    ending: record.ending,
                    attempts: record.attempts,
                    deadline: time(record.deadline),
                    amount: record.amount,
                    payment: record.payment.clone(),
                    contact: record.contact.clone(),
                    intent: record.intent.clone(),
                    generation: record.generation,
                    payments: record.payments.clone(),
                    lines: vec![],
                    linked: None,
                });
            }
            claimed
        };
        // Polls of an empty queue are no boundaries: nothing has begun.
        if !claimed.is_empty() && self.cut.pass("after claim").await {
            return lost();
        }
        Told::Ok(claimed)
    }
    async fn heartbeat(&self, id: ReservationId, epoch: u32, lease_ms: u64) -> Told<OrderBrief> {
        self.apply(&|state: &mut State| match state.orders.get_mut(&id) {
            Some(record) if record.epoch == epoch && record.lease.is_some() => {
                record.lease = Some(Instant::now() + Duration::from_millis(lease_ms));
                Told::Ok(record.brief())
            }
            _ => refused("the lease has ended"),
        })
    }
    async fn report(&self, id: ReservationId, epoch: u32, report: Report) -> Told<OrderBrief> {
        let word = format!("{report:?}");
        let word = word.split([' ', '{']).next().unwrap_or_default().to_lowercase();
        self.answer(&format!("report {word}"), |state| apply_report(state, id, epoch, &report)).await
    }
    async fn fact(&self, id: ReservationId, fact: Fact) -> Told<OrderBrief> {
        self.answer("fact", |state| apply_fact(state, id, &fact)).await
    }
    async fn resume(&self, id: ReservationId) -> Told<OrderBrief> {
        self.apply(&|state: &mut State| match state.orders.get_mut(&id) {
            Some(record) if record.phase == Phase::AwaitingBuyer => {
                enter(record, Phase::Paying);
                Told::Ok(record.brief())
            }
            _ => refused("it awaits nobody"),
        })
    }
    async fn order(&self, _id: ReservationId) -> Told<OrderView> {
        refused("not needed here")
    }
    async fn stats(&self) -> Told<Option<(QueueStats, LedgerTime)>> {
        Told::Ok(None)
    }
}
