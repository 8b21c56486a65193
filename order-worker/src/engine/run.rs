//! One run of one order: performs what [`crate::step`] says, and keeps the lease alive meanwhile.
//!
//! **Owns** time-outs, pauses, breakers and how often the ledger is asked. **Must never** decide what follows from an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::limits::DELAY_MS_MAX;
use ledger_core::order::{Claimed, ClientSecret, Fact, Report, Step};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Deps;
use crate::breaker::Pass;
use crate::ledger::Told;
use crate::limits::{REPORT_PAUSE_MAX, REPORT_PAUSE_MIN, REPORT_TRIES_MAX};
use crate::notify::Message;
use crate::payment::{ClearSecret, Failure, Intent, Refund};
use crate::step::{Action, Call, Event, Order, millis, step};

/// Runs a claimed order until its lease is over, one way or the other. `probe`: the order was
/// claimed for a call that probes.
pub async fn run(deps: &Arc<Deps>, claimed: Claimed, probe: Option<Pass>, stopping: watch::Receiver<bool>) {
    let (id, epoch, step) = (claimed.id, claimed.epoch, claimed.step);
    let (probe, order) = (Mutex::new(probe), Order::new(claimed, deps.numbers.steps));
    let one = One { deps, stopping, step, epoch, probe, order };
    let lease_ms = millis(deps.numbers.lease);
    let lost = async {
        loop {
            tokio::time::sleep(deps.numbers.lease / 3).await;
            if let Told::Refused { why } = deps.ledger.heartbeat(id, epoch, lease_ms).await {
                return why;
            }
        }
    };
    tokio::select! {
        biased;
        ended = one.until_it_ends() => {
            deps.metrics.ended(step, ended);
            tracing::debug!(order = %id, epoch, ?step, outcome = ended, "run ended");
        }
        // Whatever was under way is looked up by whoever has the order now.
        why = lost => {
            deps.metrics.ended(step, "lost");
            tracing::info!(order = %id, epoch, ?step, %why, "the lease is lost");
        }
    }
}

struct One<'a> {
    deps: &'a Arc<Deps>,
    stopping: watch::Receiver<bool>,
    step: Step,
    epoch: u32,
    /// Leave for the first call, if the order was claimed for it.
    probe: Mutex<Option<Pass>>,
    order: Order,
}

/// What an action came to: the next event, or the end of the run with a word for metrics.
enum After {
    Event(Event),
    Nothing,
    Ended(&'static str),
}

impl One<'_> {
    async fn until_it_ends(mut self) -> &'static str {
        let mut event = Event::Begin;
        if *self.stopping.borrow() {
            let _ = self.report(Report::GiveBack { after_ms: 0 }).await;
            return "give_back";
        }
        loop {
            self.order.note(&event);
            let actions = step(&self.order, &event);
            let mut next = None;
            for action in actions {
                match self.perform(action).await {
                    After::Event(event) => next = Some(event),
                    After::Nothing => {}
                    After::Ended(word) => return word,
                }
            }
            match next {
                Some(next) => event = next,
                None => return if matches!(event, Event::Lost) { "lost" } else { "fact" },
            }
        }
    }

    async fn perform(&self, action: Action) -> After {
        let (deps, claimed) = (self.deps, self.order.claimed());
        let provider = &deps.provider;
        let id = claimed.id;
        let event = match action {
            Action::Pause { tries } => {
                let pauses = &deps.numbers.try_pauses;
                let at = (tries.max(1) as usize - 1).min(pauses.len() - 1);
                return self.pause(deps.seams.jitter(pauses[at])).await;
            }
            Action::Wait(time) => return self.pause(time).await,
            Action::Create { generation, key } => {
                let amount = claimed.amount;
                self.intent(Call::Create, provider.create_intent(id, generation, amount, &key)).await
            }
            Action::Look { intent } => self.intent(Call::Look, provider.retrieve(&intent)).await,
            Action::Cancel { intent } => self.intent(Call::Cancel, provider.cancel(&intent)).await,
            Action::Capture { intent, key } => self.intent(Call::Capture, provider.capture(&intent, &key)).await,
            Action::Confirm { intent, key } => match deps.keys.payment(id, &claimed.payment) {
                Ok(token) => self.intent(Call::Confirm, provider.confirm(&intent, &token, &key)).await,
                Err(why) => Event::Unopened { why: why.to_string() },
            },
            Action::Find => match self.call(Call::Find, provider.find_by_order(id)).await {
                Ok(intents) => Event::Found(intents),
                Err(why) => Event::Failed { call: Call::Find, why },
            },
            Action::FindRefund { payment } => self.refund(Call::FindRefund, provider.find_refund(&payment)).await,
            Action::Refund { payment, key } => {
                let asked = async { provider.refund(id, &payment, &key).await.map(Some) };
                self.refund(Call::Refund, asked).await
            }
            Action::Send { key } => self.send(key).await,
            Action::AwaitBuyer { secret } => return self.tell(self.await_buyer(&secret)).await,
            Action::Report(report) => return self.tell(report).await,
            Action::Fact(fact) => self.fact(fact).await,
        };
        After::Event(event)
    }

    /// Waits, unless the worker is stopping: then the order goes back at once.
    async fn pause(&self, time: Duration) -> After {
        let mut stopping = self.stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        tokio::select! {
            biased;
            () = stopped => {
                let _ = self.report(Report::GiveBack { after_ms: 0 }).await;
                After::Ended("give_back")
            }
            () = tokio::time::sleep(time) => After::Nothing,
        }
    }

    async fn call<T>(&self, call: Call, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let class = self.step.class();
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pass = match probe {
            Some(pass) => pass,
            None => self.deps.breaker(class).admit().map_err(|after| Failure::BreakerOpen { after })?,
        };
        let began = Instant::now();
        let answer = match tokio::time::timeout(self.deps.numbers.call_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Unknown { why: "no answer in time".into() }),
        };
        match &answer {
            Err(why) if why.is_illness() => pass.ill(),
            _ => pass.well(),
        }
        match &answer {
            Err(Failure::Config { .. }) => self.deps.health.set_refuses(class, true),
            Err(why) if !why.proves_credentials() => {}
            _ => self.deps.health.set_refuses(class, false),
        }
        let word = answer.as_ref().err().map_or("ok", Failure::word);
        self.deps.metrics.called(call, word, began.elapsed());
        if let Err(why) = &answer {
            let id = self.order.claimed().id;
            match why {
                Failure::Config { .. } => tracing::error!(order = %id, call = call.word(), %why, "a person must act"),
                _ => tracing::debug!(order = %id, call = call.word(), %why, "call failed"),
            }
        }
        answer
    }

    async fn intent(&self, call: Call, asked: impl Future<Output = Result<Intent, Failure>>) -> Event {
        match self.call(call, asked).await {
            Ok(intent) => Event::Intent { call, intent },
            Err(why) => Event::Failed { call, why },
        }
    }
    async fn refund(&self, call: Call, asked: impl Future<Output = Result<Option<Refund>, Failure>>) -> Event {
        match self.call(call, asked).await {
            Ok(found) => Event::Refund { call, found },
            Err(why) => Event::Failed { call, why },
        }
    }
    async fn send(&self, key: String) -> Event {
        let claimed = self.order.claimed();
        let contact = match self.deps.keys.contact(claimed.id, &claimed.contact) {
            Ok(contact) => contact,
            Err(why) => return Event::Unopened { why: why.to_string() },
        };
        let message = Message {
            key,
            order: claimed.id,
            ending: claimed.ending,
            amount: claimed.amount,
            lines: claimed.lines.clone(),
            linked: claimed.linked,
            contact,
        };
        match self.call(Call::Send, self.deps.notifier.send(&message)).await {
            Ok(()) => Event::Sent,
            Err(why) => Event::Failed { call: Call::Send, why },
        }
    }

    /// The secret goes into the log only if only the caller that placed the order can read it there.
    fn await_buyer(&self, secret: &ClearSecret) -> Report {
        let claimed = self.order.claimed();
        let token = self.deps.keys.payment(claimed.id, &claimed.payment);
        let sealed = match token.map(|token| token.reply_to) {
            Ok(Some(key)) => key.client_secret(claimed.id, &secret.0).map_err(|why| why.to_string()),
            Ok(None) => Err("the payment token carries no reply key".into()),
            Err(why) => Err(why.to_string()),
        };
        let secret = sealed.unwrap_or_else(|why| {
            tracing::info!(order = %claimed.id, %why, "the buyer must act; the order gets no client secret");
            ClientSecret::default()
        });
        Report::AwaitBuyer { secret }
    }

    async fn tell(&self, report: Report) -> After {
        let report = self.spread(report);
        let taken = match &report {
            Report::Intent { intent, generation } => {
                Some(Event::IntentTaken { intent: intent.clone(), generation: *generation })
            }
            _ => None,
        };
        let word = report_word(&report);
        if let Report::Park { reason } = &report {
            tracing::warn!(order = %self.order.claimed().id, step = ?self.step, %reason, "parked: a person must look");
        }
        match (self.report(report).await, taken) {
            (true, Some(event)) => After::Event(event),
            (true, None) => After::Ended(word),
            (false, _) => After::Event(Event::Lost),
        }
    }

    /// A crowd that was sent away together does not come back together.
    fn spread(&self, report: Report) -> Report {
        let spread = |ms: u64| spread(ms, self.deps.seams.draw());
        match report {
            Report::Retry { after_ms, reason } => Report::Retry { after_ms: spread(after_ms), reason },
            Report::GiveBack { after_ms } => Report::GiveBack { after_ms: spread(after_ms) },
            other => other,
        }
    }

    /// Whether the ledger took it.
    async fn report(&self, report: Report) -> bool {
        let id = self.order.claimed().id;
        self.until_definite(|| self.deps.ledger.report(id, self.epoch, report.clone())).await
    }
    async fn fact(&self, fact: Fact) -> Event {
        let id = self.order.claimed().id;
        match self.until_definite(|| self.deps.ledger.fact(id, fact.clone())).await {
            true => Event::FactTaken(fact),
            false => Event::Lost,
        }
    }

    /// Asks the same until the answer is definite: whether it is yes.
    async fn until_definite<T, F: Future<Output = Told<T>>>(&self, ask: impl Fn() -> F) -> bool {
        for tries in 0..REPORT_TRIES_MAX {
            let after = match ask().await {
                Told::Ok(_) => return true,
                Told::Refused { why } => {
                    tracing::info!(order = %self.order.claimed().id, epoch = self.epoch, %why, "the ledger refused");
                    return false;
                }
                Told::NotNow { after, .. } => after,
                Told::Unknown { .. } => Duration::ZERO,
            };
            let pause = self.deps.seams.pause(REPORT_PAUSE_MIN, REPORT_PAUSE_MAX, tries);
            tokio::time::sleep(pause.max(after)).await;
        }
        false
    }
}

/// Up to a quarter longer, within what the ledger takes.
fn spread(ms: u64, draw: u64) -> u64 {
    ms.saturating_add(draw % (ms / 4 + 1)).min(DELAY_MS_MAX)
}

fn report_word(report: &Report) -> &'static str {
    match report {
        Report::Intent { .. } => "intent",
        Report::AwaitBuyer { .. } => "await_buyer",
        Report::Unpaid { .. } => "unpaid",
        Report::Notified => "notified",
        Report::Retry { .. } => "retry",
        Report::GiveBack { .. } => "give_back",
        Report::Park { .. } => "park",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_pause_is_spread_within_what_the_ledger_takes() {
        for (ms, draw, least, most) in [
            (0, u64::MAX, 0, 0),
            (1_000, 250, 1_250, 1_250),
            (1_000, u64::MAX, 1_000, 1_250),
            (1 << 31, u64::MAX, DELAY_MS_MAX, DELAY_MS_MAX),
            (u64::MAX, u64::MAX, DELAY_MS_MAX, DELAY_MS_MAX),
        ] {
            let spread = spread(ms, draw);
            assert!((least..=most).contains(&spread), "{ms} {draw}: {spread}");
        }
    }
}
