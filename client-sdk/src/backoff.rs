//! When a node is dialled again after it did not answer.
//!
//! **What it is.** One gate a node, for all that would open a connection to it: streams, reads,
//! watches, questions for the routing. Each dial makes the pause before the next one longer, until
//! the node answers.
//!
//! **Owns** that pause. **Must never** hold up the first dial, nor one to a node that has just been
//! named as a leader. **Read next**: [`crate::dial`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_proto::status;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use crate::chance::Chance;
use crate::limits;

#[derive(Default)]
struct State {
    /// Dials since the node answered.
    dials: u32,
    not_before: Option<Instant>,
}

/// See the module.
pub(crate) struct DialGate {
    chance: Arc<Chance>,
    state: Mutex<State>,
    opened: Notify,
}

impl DialGate {
    pub(crate) fn new(chance: &Arc<Chance>) -> Arc<Self> {
        Arc::new(Self { chance: chance.clone(), state: Mutex::default(), opened: Notify::new() })
    }
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a dial.
    ///
    /// # Errors
    /// It is too early; how long to wait.
    pub(crate) fn dial(&self) -> Result<(), Duration> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(left) = state.not_before.map(|at| at.saturating_duration_since(now)).filter(|left| !left.is_zero())
        {
            return Err(left);
        }
        let pause = self.chance.pause(limits::DIAL_PAUSE_MIN, limits::DIAL_PAUSE_MAX, state.dials);
        state.dials = state.dials.saturating_add(1);
        state.not_before = Some(now + pause);
        Ok(())
    }
    /// The node answered: after this connection the next dial is the first again.
    pub(crate) fn answered(&self) {
        *self.lock() = State::default();
    }
    /// It refused a call, which is an answer, too; or nothing came of the call, which is none.
    pub(crate) fn ended_with(&self, status: &Status) {
        if status::reply(status).is_some() {
            self.answered();
        }
    }
    /// There is a new reason to dial: one dial may begin now. The pauses after it stay as long as
    /// they are.
    pub(crate) fn open(&self) {
        if self.lock().not_before.take().is_some() {
            self.opened.notify_waiters();
        }
    }
    /// Waits until a dial may begin, and for `least` unless there is a new reason before.
    pub(crate) async fn pause(&self, least: Duration) {
        let opened = self.opened.notified();
        let until = Instant::now() + least;
        let until = self.lock().not_before.map_or(until, |at| at.max(until));
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = opened => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger_proto::{Cause, NotNow};

    use super::*;

    fn gate() -> Arc<DialGate> {
        DialGate::new(&Arc::new(Chance::new(Some(7))))
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_node_answers() {
        let gate = gate();
        for (pause_ms, _) in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000].into_iter().zip(0..) {
            gate.dial().expect("the pause is over");
            let left = gate.dial().expect_err("one dial a pause");
            let whole = Duration::from_millis(pause_ms);
            assert!(left >= whole / 2 && left <= whole, "{left:?} of {whole:?}");
            gate.pause(Duration::ZERO).await;
        }
        gate.answered();
        gate.dial().expect("it answered");
        assert!(gate.dial().expect_err("one dial a pause") <= limits::DIAL_PAUSE_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_call_was_answered_and_a_broken_connection_was_not() {
        let gate = gate();
        gate.dial().expect("the first one");
        gate.ended_with(&Status::unavailable("broken pipe"));
        gate.dial().expect_err("nobody answered");
        gate.ended_with(&status::not_now(NotNow::new(Cause::RateLimited, "too many watches", 1_000)));
        gate.dial().expect("it refused");
    }

    #[tokio::test(start_paused = true)]
    async fn new_leader_is_dialled_at_once_and_once() {
        let gate = gate();
        for _ in 0..8 {
            gate.dial().expect("the pause is over");
            gate.pause(Duration::ZERO).await;
        }
        gate.dial().expect("the pause is over");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pause(Duration::ZERO).await }
        });
        tokio::task::yield_now().await;
        let began = Instant::now();
        gate.open();
        waiting.await.expect("woken");
        assert_eq!(began.elapsed(), Duration::ZERO);
        gate.dial().expect("one may begin");
        assert!(gate.dial().expect_err("one alone") >= limits::DIAL_PAUSE_MAX / 2);
    }
}
