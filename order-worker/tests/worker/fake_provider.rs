//! A payment provider with a book, that misbehaves on order; and somebody who receives notifications.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use client_sdk::PaymentToken;
use ledger_core::ReservationId;
use ledger_core::order::{Money, ProviderId};
use order_worker::notify::{Message, Notifier};
use order_worker::payment::{ClearSecret, Failure, Intent, IntentStatus, Mode, PaymentProvider, Refund, RefundStatus};
use tokio::time::Instant;

use crate::cut::Cut;

/// How the provider misbehaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Every call takes so long.
    pub(crate) slow: Option<Duration>,
    /// Payments are refused for wrong credentials.
    pub(crate) refuses_payments: bool,
    /// Every call fails until then, without effect.
    pub(crate) down_until: Option<Instant>,
    /// So many confirms charge and then answer 500, and are answered 500 under their key for ever.
    pub(crate) charge_then_500: u32,
    /// So many refunds do the same.
    pub(crate) refund_then_500: u32,
    /// It takes a cent less than it was asked for.
    pub(crate) takes_less: bool,
    /// The search does not find anything yet.
    pub(crate) search_lags: bool,
}

#[derive(Default)]
struct Book {
    intents: BTreeMap<ProviderId, Intent>,
    amounts: BTreeMap<ProviderId, Money>,
    keys: BTreeMap<String, Result<ProviderId, Failure>>,
    refunds: BTreeMap<ProviderId, Vec<ProviderId>>,
    charged: BTreeMap<ProviderId, u32>,
    manners: Manners,
    told: Vec<String>,
    calls: u32,
}

pub(crate) struct FakeProvider {
    book: Mutex<Book>,
    mode: Mode,
    cut: Arc<Cut>,
}

fn no(why: &str) -> Failure {
    Failure::No { why: why.into() }
}

impl Book {
    fn charge(&mut self, id: &ProviderId) {
        let less = u64::from(self.manners.takes_less);
        let amount = Money::new(self.amounts[id].minor() - less, "EUR").unwrap();
        let intent = self.intents.get_mut(id).unwrap();
        assert_ne!(intent.status, IntentStatus::Succeeded, "charged twice: {intent:?}");
        assert_ne!(intent.status, IntentStatus::Canceled, "charged after it was cancelled: {intent:?}");
        intent.status = IntentStatus::Succeeded;
        intent.received = Some(amount);
        *self.charged.entry(id.clone()).or_default() += 1;
    }
    fn keyed(
        &mut self,
        key: &str,
        act: impl FnOnce(&mut Self) -> Result<ProviderId, Failure>,
    ) -> Result<Intent, Failure> {
        let done = match self.keys.get(key) {
            Some(done) => done.clone(),
            None => {
                let done = act(self);
                self.keys.insert(key.to_owned(), done.clone());
                done
            }
        };
        done.map(|id| self.intents[&id].clone())
    }
    fn confirm(&mut self, id: &ProviderId, method: &str, mode: Mode) -> Result<ProviderId, Failure> {
        let intent = self.intents.get_mut(id).ok_or(Failure::Missing)?;
        if intent.status != IntentStatus::Unconfirmed {
            return Err(no("payment_intent_unexpected_state"));
        }
        match method {
            "pm_declined" => {
                intent.declined = Some("card_declined".into());
                return Err(Failure::Declined { code: "card_declined".into() });
            }
            "pm_3ds" => {
                intent.status = IntentStatus::RequiresAction;
                return Ok(id.clone());
            }
            _ => {}
        }
        if mode == Mode::AuthoriseThenCapture {
            intent.status = IntentStatus::RequiresCapture;
        } else {
            self.charge(id);
        }
        if self.manners.charge_then_500 > 0 {
            self.manners.charge_then_500 -= 1;
            return Err(Failure::Unknown { why: "500".into() });
        }
        Ok(id.clone())
    }
}

impl FakeProvider {
    pub(crate) fn new(mode: Mode, manners: Manners, cut: Arc<Cut>) -> Self {
        Self { book: Mutex::new(Book { manners, ..Book::default() }), mode, cut }
    }
    /// Calls that came here, whatever became of them.
    pub(crate) fn calls(&self) -> u32 {
        self.book.lock().unwrap().calls
    }
    pub(crate) fn take_credentials(&self) {
        self.book.lock().unwrap().manners.refuses_payments = false;
    }
    /// Charges of the order, and those that were given back.
    pub(crate) fn charges(&self) -> (usize, usize) {
        let book = self.book.lock().unwrap();
        assert!(book.charged.values().all(|times| *times == 1), "an intent was charged twice");
        assert!(book.refunds.values().all(|refunds| refunds.len() == 1), "a payment was given back twice");
        (book.charged.len(), book.refunds.len())
    }
    pub(crate) fn intents(&self) -> Vec<Intent> {
        self.book.lock().unwrap().intents.values().cloned().collect()
    }
    pub(crate) fn notifications(&self) -> Vec<String> {
        self.book.lock().unwrap().told.clone()
    }
    /// The buyer does what was asked for at the bank; or does not.
    pub(crate) fn buyer_acts(&self, well: bool) -> Option<Intent> {
        let mut book = self.book.lock().unwrap();
        let id = book.intents.values().find(|i| i.status == IntentStatus::RequiresAction)?.id.clone();
        match (well, self.mode) {
            (false, _) => {
                let intent = book.intents.get_mut(&id).unwrap();
                intent.status = IntentStatus::Unconfirmed;
                intent.declined = Some("authentication_failed".into());
            }
            (true, Mode::Charge) => book.charge(&id),
            (true, Mode::AuthoriseThenCapture) => {
                book.intents.get_mut(&id).unwrap().status = IntentStatus::RequiresCapture;
            }
        }
        Some(book.intents[&id].clone())
    }
    /// Somebody cancels it in the provider's dashboard.
    pub(crate) fn cancel_by_hand(&self) {
        let mut book = self.book.lock().unwrap();
        for intent in book.intents.values_mut().filter(|intent| intent.status != IntentStatus::Succeeded) {
            intent.status = IntentStatus::Canceled;
        }
    }

    async fn call<T>(&self, what: &str, act: impl Fn(&mut Book) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.cut.pass(&format!("before {what}")).await {
            return Err(Failure::Unknown { why: "lost".into() });
        }
        let (slow, down, refuses) = {
            let mut book = self.book.lock().unwrap();
            book.calls += 1;
            (book.manners.slow, book.manners.down_until, book.manners.refuses_payments && what != "send")
        };
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        if down.is_some_and(|until| Instant::now() < until) {
            return Err(Failure::Unknown { why: "503".into() });
        }
        if refuses {
            return Err(Failure::Config { why: "401".into() });
        }
        let mut answer = act(&mut self.book.lock().unwrap());
        if self.cut.is_twice() {
            answer = act(&mut self.book.lock().unwrap());
        }
        if self.cut.pass(&format!("after {what}")).await {
            return Err(Failure::Unknown { why: "lost".into() });
        }
        answer
    }
}

#[async_trait]
impl PaymentProvider for FakeProvider {
    async fn create_intent(
        &self,
        order: ReservationId,
        generation: u32,
        amount: Money,
        key: &str,
    ) -> Result<Intent, Failure> {
        let act = |book: &mut Book| {
            let new = book.intents.len() + 1;
            book.keyed(key, |book| {
                let id = ProviderId::new(format!("pi_{new}")).unwrap();
                let intent = Intent {
                    id: id.clone(),
                    status: IntentStatus::Unconfirmed,
                    received: None,
                    declined: None,
                    abandoned: false,
                    secret: Some(ClearSecret(format!("pi_{new}_secret"))),
                    order: Some(order),
                    generation: Some(generation),
                };
                book.intents.insert(id.clone(), intent);
                book.amounts.insert(id.clone(), amount);
                Ok(id)
            })
        };
        self.call("create", act).await
    }
    async fn confirm(&self, intent: &ProviderId, token: &PaymentToken, key: &str) -> Result<Intent, Failure> {
        let act = |book: &mut Book| book.keyed(key, |book| book.confirm(intent, &token.payment_method, self.mode));
        self.call("confirm", act).await
    }
    async fn retrieve(&self, intent: &ProviderId) -> Result<Intent, Failure> {
        self.call("look", |book| book.intents.get(intent).cloned().ok_or(Failure::Missing)).await
    }
    async fn find_by_order(&self, order: ReservationId) -> Result<Vec<Intent>, Failure> {
        let act = |book: &mut Book| match book.manners.search_lags {
            true => Ok(vec![]),
            false => Ok(book.intents.values().filter(|i| i.order == Some(order)).cloned().collect()),
        };
        self.call("find", act).await
    }
    async fn cancel(&self, intent: &ProviderId) -> Result<Intent, Failure> {
        let act = |book: &mut Book| {
            let intent = book.intents.get_mut(intent).ok_or(Failure::Missing)?;
            match intent.status {
                IntentStatus::Succeeded | IntentStatus::Canceled | IntentStatus::Processing => {
                    Err(no("payment_intent_unexpected_state"))
                }
                _ => {
                    (intent.status, intent.abandoned) = (IntentStatus::Canceled, true);
                    Ok(intent.clone())
                }
            }
        };
        self.call("cancel", act).await
    }
    async fn capture(&self, intent: &ProviderId, key: &str) -> Result<Intent, Failure> {
        let act = |book: &mut Book| {
            book.keyed(key, |book| match book.intents.get(intent).map(|intent| intent.status) {
                Some(IntentStatus::RequiresCapture) => {
                    book.charge(intent);
                    Ok(intent.clone())
                }
                _ => Err(no("payment_intent_unexpected_state")),
            })
        };
        self.call("capture", act).await
    }
    async fn refund(&self, _order: ReservationId, payment: &ProviderId, key: &str) -> Result<Refund, Failure> {
        let act = |book: &mut Book| {
            book.keyed(key, |book| {
                let refund = ProviderId::new(format!("re_{}", book.refunds.len() + 1)).unwrap();
                book.refunds.entry(payment.clone()).or_default().push(refund);
                if book.manners.refund_then_500 > 0 {
                    book.manners.refund_then_500 -= 1;
                    return Err(Failure::Unknown { why: "500".into() });
                }
                Ok(payment.clone())
            })?;
            Ok(Refund { id: book.refunds[payment][0].clone(), status: RefundStatus::Succeeded, minor: 500 })
        };
        self.call("refund", act).await
    }
    async fn find_refund(&self, payment: &ProviderId) -> Result<Option<Refund>, Failure> {
        let act = |book: &mut Book| {
            let id = book.refunds.get(payment).and_then(|refunds| refunds.first()).cloned();
            Ok(id.map(|id| Refund { id, status: RefundStatus::Succeeded, minor: 500 }))
        };
        self.call("find refund", act).await
    }
}

#[async_trait]
impl Notifier for FakeProvider {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        self.call("send", |book| {
            book.told.push(message.key.clone());
            Ok(())
        })
        .await
    }
}
