//! Boundaries: the moments right before and right after every call a worker makes, counted, so that a test can visit each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;

/// What happens at the boundary that is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The worker dies there.
    Crash,
    /// The call fails there: before it, without effect; after it, with effect and a lost answer.
    Fail,
}

pub(crate) struct Cut {
    count: AtomicUsize,
    armed: Mutex<Option<(usize, Fault)>>,
    /// Every call is made twice, and the second answer counts.
    pub(crate) twice: AtomicBool,
    crashed: watch::Sender<bool>,
    passed: Mutex<Vec<String>>,
}

impl Cut {
    pub(crate) fn new(armed: Option<(usize, Fault)>) -> Self {
        Self {
            count: AtomicUsize::new(0),
            armed: Mutex::new(armed),
            twice: AtomicBool::new(false),
            crashed: watch::Sender::new(false),
            passed: Mutex::new(Vec::new()),
        }
    }
    /// Another fault, counted from here on.
    pub(crate) fn arm(&self, armed: Option<(usize, Fault)>) {
        self.count.store(0, Ordering::Relaxed);
        *self.armed.lock().unwrap() = armed;
        self.crashed.send_replace(false);
    }
    /// Passes a boundary: whether the call fails there. Never returns if the worker dies there.
    pub(crate) async fn pass(&self, what: &str) -> bool {
        let at = self.count.fetch_add(1, Ordering::Relaxed);
        self.passed.lock().unwrap().push(what.to_owned());
        let armed = *self.armed.lock().unwrap();
        match armed {
            Some((wanted, Fault::Crash)) if wanted == at => {
                self.crashed.send_replace(true);
                std::future::pending::<()>().await;
                true
            }
            Some((wanted, Fault::Fail)) => wanted == at,
            _ => false,
        }
    }
    pub(crate) async fn crashed(&self) {
        let mut crashed = self.crashed.subscribe();
        drop(crashed.wait_for(|crashed| *crashed).await);
    }
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
    pub(crate) fn passed(&self) -> String {
        self.passed.lock().unwrap().join(" · ")
    }
    pub(crate) fn is_twice(&self) -> bool {
        self.twice.load(Ordering::Relaxed)
    }
}
