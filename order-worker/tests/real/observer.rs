//! What stands around a worker and sees every call it makes, from outside.
//!
//! **What it is.** Everything a worker calls goes through something of this test ([`crate::relay`], [`crate::provider`], [`crate::mail_sink`]), and each tells the
//! observer right before it passes a call on and right after its answer came, before it is passed back. At the boundary that is armed it
//! does neither: the worker is killed there, and what was held back is dropped.
//! **Owns** which boundaries were passed, and where the worker is to die. **Must never** change a call or an answer.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

/// A side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// It has not reached whom it is for.
    Before,
    /// It had its effect, and the worker does not know.
    After,
}

/// A moment of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Boundary {
    pub(crate) side: Side,
    pub(crate) call: &'static str,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Before { "before" } else { "after" };
        write!(f, "{side} {}", self.call)
    }
}

pub(crate) const fn before(call: &'static str) -> Boundary {
    Boundary { side: Side::Before, call }
}
pub(crate) const fn after(call: &'static str) -> Boundary {
    Boundary { side: Side::After, call }
}
/// Both sides of a call.
pub(crate) fn around(call: &'static str) -> [Boundary; 2] {
    [before(call), after(call)]
}

/// The worker that called is dead: nothing is passed on, or back.
#[derive(Debug)]
pub(crate) struct Dead;

#[derive(Debug, Default)]
struct Armed {
    watching: bool,
    at: Option<Boundary>,
}

/// The observer of one worker at a time.
#[derive(Debug)]
pub(crate) struct Observer {
    armed: Mutex<Armed>,
    /// Boundaries in the order in which they were first passed.
    seen: watch::Sender<Vec<Boundary>>,
    /// The worker stands at the armed boundary.
    reached: watch::Sender<bool>,
    /// Workers that were buried.
    buried: watch::Sender<u64>,
}

impl Observer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            armed: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            reached: watch::Sender::new(false),
            buried: watch::Sender::new(0),
        })
    }

    /// From here on boundaries count, and a worker that comes to `at` stops there.
    pub(crate) fn watch(&self, at: Option<Boundary>) {
        self.seen.send_replace(Vec::new());
        self.reached.send_replace(false);
        *self.armed.lock().expect("nobody panicked") = Armed { watching: true, at };
    }

    /// From here on nothing counts, and nobody is stopped.
    pub(crate) fn look_away(&self) {
        *self.armed.lock().expect("nobody panicked") = Armed::default();
    }

    /// Whether boundaries count.
    pub(crate) fn watches(&self) -> bool {
        self.armed.lock().expect("nobody panicked").watching
    }

    pub(crate) fn seen(&self) -> Vec<Boundary> {
        self.seen.borrow().clone()
    }

    /// Passes a boundary. At the armed one it waits until the worker is dead, and says so.
    pub(crate) async fn pass(&self, call: &'static str, side: Side) -> Result<(), Dead> {
        let here = Boundary { side, call };
        let mut buried = self.buried.subscribe();
        let life = *buried.borrow_and_update();
        {
            let mut armed = self.armed.lock().expect("nobody panicked");
            if !armed.watching {
                return Ok(());
            }
            self.seen.send_if_modified(|seen| {
                let new = !seen.contains(&here);
                if new {
                    seen.push(here);
                }
                new
            });
            if armed.at != Some(here) {
                return Ok(());
            }
            armed.at = None;
        }
        self.reached.send_replace(true);
        buried.wait_for(|buried| *buried > life).await.expect("the observer lives");
        Err(Dead)
    }

    /// Waits until the worker stands at the armed boundary.
    pub(crate) async fn reached(&self) {
        self.reached.subscribe().wait_for(|reached| *reached).await.expect("the observer lives");
    }

    /// The worker is dead, so that what waits for its end may go.
    pub(crate) fn bury(&self) {
        self.reached.send_replace(false);
        self.buried.send_modify(|buried| *buried += 1);
    }

    /// Waits until a boundary was passed.
    pub(crate) async fn until(&self, passed: Boundary) {
        self.seen.subscribe().wait_for(|seen| seen.contains(&passed)).await.expect("the observer lives");
    }
}
