//! What may happen to a payment: Stripe's transitions.
//!
//! **Owns** every decision. A call comes with the book as it is and leaves as what becomes of it ([`Decided`]); nothing here
//! changes the book, waits, or asks for the time. **Must never** move money twice for one intent, or give back more than was taken.
//! **Read next**: [`crate::book::records`].

use crate::book::Book;
use crate::book::records::{CaptureMethod, Charge, EventKind, Failed, Intent, Metadata, Minor, Refund, Status, Why};
use crate::ids::{ChargeId, IntentId};
use crate::methods::{Course, Failure, Method};
use crate::params::{Ask, AskRefund, Confirm, Create, RefundOf};
use crate::refusal::Refusal;

#[cfg(test)]
mod tests;

/// What becomes of a call.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) intent: Option<Intent>,
    pub(crate) charge: Option<Charge>,
    pub(crate) refund: Option<Refund>,
    pub(crate) events: Vec<EventKind>,
    /// Why the answer is not the object itself.
    pub(crate) refused: Option<Refusal>,
}

/// How an authentication, or a payment that takes its time, ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Ok,
    Fail,
}

/// Decides one call at `now_ms`. `declined`: a payment that would succeed does not.
pub(crate) fn decide(book: &Book, ask: &Ask, now_ms: i64, declined: bool) -> Result<Decided, Refusal> {
    let step = Step { book, now_ms, declined };
    match ask {
        Ask::Create(create) => step.create(create),
        Ask::Confirm(id, how) => step.confirm(find(book, id)?.clone(), how),
        Ask::Capture(id, amount) => step.capture(find(book, id)?.clone(), *amount),
        Ask::Cancel(id, why) => step.cancel(find(book, id)?.clone(), *why),
        Ask::Refund(ask) => step.refund(ask),
    }
}

/// The buyer authenticated, or failed to.
pub(crate) fn authenticate(book: &Book, id: &str, ending: Ending, now_ms: i64) -> Result<Decided, Refusal> {
    let intent = find(book, id)?.clone();
    let (Status::RequiresAction, Some(method)) = (intent.status, intent.method) else {
        return Err(Refusal::unexpected_state(&intent, "authenticated", &[Status::RequiresAction]));
    };
    let step = Step { book, now_ms, declined: false };
    Ok(match (ending, method.course()) {
        (Ending::Fail, _) => step.fail(intent, method, Failure::AuthenticationFailed, false),
        (Ending::Ok, Course::AuthenticatesThen(why)) => step.fail(intent, method, why, true),
        (Ending::Ok, _) => step.pay(intent, method),
    })
}

/// A payment that took its time ended.
pub(crate) fn settle(book: &Book, id: &str, ending: Ending, now_ms: i64) -> Result<Decided, Refusal> {
    let intent = find(book, id)?.clone();
    let (Status::Processing, Some(method)) = (intent.status, intent.method) else {
        return Err(Refusal::unexpected_state(&intent, "settled", &[Status::Processing]));
    };
    let step = Step { book, now_ms, declined: false };
    Ok(match ending {
        Ending::Ok => step.pay(intent, method),
        Ending::Fail => step.fail(intent, method, Failure::GenericDecline, true),
    })
}

fn find<'a>(book: &'a Book, id: &str) -> Result<&'a Intent, Refusal> {
    let row = id.parse::<IntentId>().ok().and_then(|id| book.intent(id));
    row.map(|row| &row.intent).ok_or_else(|| Refusal::no_such("payment_intent", id, "intent"))
}

struct Step<'a> {
    book: &'a Book,
    now_ms: i64,
    declined: bool,
}

impl Step<'_> {
    fn create(&self, create: &Create) -> Result<Decided, Refusal> {
        let (id, ..) = self.book.next();
        let intent = Intent {
            id,
            created_ms: self.now_ms,
            status: if create.method.is_some() { Status::RequiresConfirmation } else { Status::RequiresPaymentMethod },
            amount: create.amount,
            currency: create.currency,
            capture: create.capture,
            method: create.method,
            received: Minor::ZERO,
            capturable: Minor::ZERO,
            charge: None,
            failure: None,
            canceled_ms: None,
            why: None,
            description: create.description.clone(),
            return_url: None,
            metadata: create.metadata.clone(),
        };
        match &create.confirm {
            Some(how) => self.confirm(intent, how),
            None => Ok(decided(intent, None, &[])),
        }
    }

    fn confirm(&self, mut intent: Intent, how: &Confirm) -> Result<Decided, Refusal> {
        const FROM: &[Status] = &[Status::RequiresPaymentMethod, Status::RequiresConfirmation, Status::RequiresAction];
        if !FROM.contains(&intent.status) {
            return Err(Refusal::unexpected_state(&intent, "confirmed", FROM));
        }
        let Some(method) = how.method.or(intent.method) else {
            let message = "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the \
                           PaymentIntent with a payment method and then confirm it again, or confirm it again directly with one.";
            return Err(Refusal::state(&intent, message));
        };
        intent.method = Some(method);
        intent.return_url = how.return_url.clone().or(intent.return_url);
        Ok(match method.course() {
            Course::Fails(why) => self.fail(intent, method, why, true).refused(),
            _ if self.declined => self.fail(intent, method, Failure::GenericDecline, true).refused(),
            Course::Authenticates | Course::AuthenticatesThen(_) if how.off_session => {
                self.fail(intent, method, Failure::AuthenticationRequired, true).refused()
            }
            Course::Authenticates | Course::AuthenticatesThen(_) => {
                intent.status = Status::RequiresAction;
                decided(intent, None, &[EventKind::RequiresAction])
            }
            Course::Settles => {
                intent.status = Status::Processing;
                decided(intent, None, &[EventKind::Processing])
            }
            Course::Pays => self.pay(intent, method),
        })
    }

    /// The payment goes through: taken, or set aside for a capture.
    fn pay(&self, mut intent: Intent, method: Method) -> Decided {
        let mut charge = self.charge(&intent, method);
        let event = match intent.capture {
            CaptureMethod::Automatic => {
                (charge.captured, charge.captured_ms) = (intent.amount, Some(self.now_ms));
                (intent.status, intent.received) = (Status::Succeeded, intent.amount);
                EventKind::Succeeded
            }
            CaptureMethod::Manual => {
                (intent.status, intent.capturable) = (Status::RequiresCapture, intent.amount);
                EventKind::AmountCapturableUpdated
            }
        };
        (intent.charge, intent.failure) = (Some(charge.id), None);
        decided(intent, Some(charge), &[event])
    }

    /// The payment fails, and another method may be tried. `charged`: it got as far as a charge.
    fn fail(&self, mut intent: Intent, method: Method, why: Failure, charged: bool) -> Decided {
        let charge = charged.then(|| Charge { failure: Some(why), ..self.charge(&intent, method) });
        let id = charge.as_ref().map(|charge| charge.id);
        intent.status = Status::RequiresPaymentMethod;
        intent.method = None;
        intent.charge = id.or(intent.charge);
        intent.failure = Some(Failed { why, method, charge: id });
        decided(intent, charge, &[EventKind::PaymentFailed])
    }

    fn charge(&self, intent: &Intent, method: Method) -> Charge {
        let (_, id, ..) = self.book.next();
        Charge {
            id,
            intent: intent.id,
            created_ms: self.now_ms,
            amount: intent.amount,
            currency: intent.currency,
            method,
            failure: None,
            captured: Minor::ZERO,
            captured_ms: None,
            refunded: Minor::ZERO,
            voided_ms: None,
        }
    }

    fn capture(&self, mut intent: Intent, amount: Option<Minor>) -> Result<Decided, Refusal> {
        let (Status::RequiresCapture, Some(mut charge)) = (intent.status, self.charge_of(&intent)) else {
            return Err(Refusal::unexpected_state(&intent, "captured", &[Status::RequiresCapture]));
        };
        let amount = amount.unwrap_or(intent.capturable);
        if amount > intent.capturable {
            let message =
                format!("The amount_to_capture is greater than the amount you can capture ({}).", intent.capturable);
            return Err(Refusal {
                kept: true,
                ..Refusal::parameter_code("amount_too_large", "amount_to_capture", message)
            });
        }
        (charge.captured, charge.captured_ms) = (amount, Some(self.now_ms));
        (intent.status, intent.received, intent.capturable) = (Status::Succeeded, amount, Minor::ZERO);
        Ok(decided(intent, Some(charge), &[EventKind::Succeeded]))
    }

    fn cancel(&self, mut intent: Intent, why: Option<Why>) -> Result<Decided, Refusal> {
        const FROM: &[Status] = &[
            Status::RequiresPaymentMethod,
            Status::RequiresCapture,
            Status::RequiresConfirmation,
            Status::RequiresAction,
        ];
        if !FROM.contains(&intent.status) {
            return Err(Refusal::unexpected_state(&intent, "canceled", FROM));
        }
        let voided = (intent.status == Status::RequiresCapture).then(|| self.charge_of(&intent)).flatten();
        let charge = voided.map(|charge| Charge { voided_ms: Some(self.now_ms), ..charge });
        let events: &[_] =
            if charge.is_some() { &[EventKind::ChargeRefunded, EventKind::Canceled] } else { &[EventKind::Canceled] };
        (intent.status, intent.canceled_ms, intent.why) = (Status::Canceled, Some(self.now_ms), why);
        intent.capturable = Minor::ZERO;
        Ok(decided(intent, charge, events))
    }

    fn charge_of(&self, intent: &Intent) -> Option<Charge> {
        intent.charge.and_then(|id| self.book.charge(id)).cloned()
    }

    fn refund(&self, ask: &AskRefund) -> Result<Decided, Refusal> {
        let book = self.book;
        let (intent, charge) = match &ask.of {
            RefundOf::Intent(id) => {
                let row = id.parse().ok().and_then(|id| book.intent(id));
                let row = row.ok_or_else(|| Refusal::no_such("payment_intent", id, "payment_intent"))?;
                (&row.intent, book.charges_of(row).rfind(|charge| charge.captured_ms.is_some()))
            }
            RefundOf::Charge(id) => {
                let charge = id.parse::<ChargeId>().ok().and_then(|id| book.charge(id));
                let charge = charge.ok_or_else(|| Refusal::no_such("charge", id, "charge"))?;
                let row = book.intent(charge.intent).ok_or_else(|| Refusal::no_such("charge", id, "charge"))?;
                (&row.intent, Some(charge).filter(|charge| charge.captured_ms.is_some()))
            }
        };
        let Some(charge) = charge else {
            let message = format!("This PaymentIntent ({}) does not have a successful charge to refund.", intent.id);
            return Err(Refusal::state(intent, message));
        };
        let left = charge.captured.minus(charge.refunded);
        if left == Minor::ZERO {
            let message = format!("Charge {} has already been refunded.", charge.id);
            return Err(Refusal { kept: true, ..Refusal::parameter_code("charge_already_refunded", "", message) });
        }
        let amount = ask.amount.unwrap_or(left);
        if amount > left {
            let message = format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
            return Err(Refusal { kept: true, ..Refusal::parameter("amount", message) });
        }
        Ok(self.refunded(charge.clone(), amount, ask.why, ask.metadata.clone()))
    }

    fn refunded(&self, mut charge: Charge, amount: Minor, why: Option<Why>, metadata: Metadata) -> Decided {
        let (_, _, id, _) = self.book.next();
        charge.refunded = charge.refunded.plus(amount);
        assert!(charge.refunded <= charge.captured, "refunded {} of {}", charge.refunded, charge.captured);
        let (intent, currency) = (charge.intent, charge.currency);
        let created_ms = self.now_ms;
        let refund = Refund { id, intent, charge: charge.id, created_ms, amount, currency, why, metadata };
        Decided {
            intent: None,
            charge: Some(charge),
            refund: Some(refund),
            events: vec![EventKind::RefundCreated, EventKind::ChargeRefunded],
            refused: None,
        }
    }
}

fn decided(intent: Intent, charge: Option<Charge>, events: &[EventKind]) -> Decided {
    assert!(intent.received <= intent.amount, "received {} of {}", intent.received, intent.amount);
    assert!(
        intent.received == Minor::ZERO || intent.status == Status::Succeeded,
        "received {} when {}",
        intent.received,
        intent.status.name()
    );
    Decided { intent: Some(intent), charge, refund: None, events: events.to_vec(), refused: None }
}

impl Decided {
    /// Answered as a failed payment.
    fn refused(mut self) -> Self {
        self.refused = self.intent.as_ref().and_then(|intent| Some(Refusal::card(intent.failure?, intent)));
        self
    }
}
