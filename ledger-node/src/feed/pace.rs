//! How much of a node's time its watchers and readers of history may take at once.
//!
//! **What it is.** Hundreds of watchers may have something to do at the same moment. They read history one or two at a time, since each
//! read has a thread while it lasts, and make their frames one after the other, with whatever else the node has to do in between. Who
//! waits longest is next.
//!
//! **Owns** these turns. **Must never** be held by a watcher that waits for its caller, or for something to happen.
//! **Read next**: [`super::watch`].

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};

use crate::limits::{EXPLAINS_AT_ONCE, WATCH_READS_AT_ONCE, WATCH_TURNS_AT_ONCE};

/// The turns of one node.
#[derive(Debug, Clone)]
pub struct ReadPace {
    turns: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    explains: Arc<Semaphore>,
}

impl Default for ReadPace {
    fn default() -> Self {
        let of = |most| Arc::new(Semaphore::new(most));
        Self { turns: of(WATCH_TURNS_AT_ONCE), reads: of(WATCH_READS_AT_ONCE), explains: of(EXPLAINS_AT_ONCE) }
    }
}

/// A turn; the next has one when this is dropped.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl ReadPace {
    /// To make a part of a watch's frame, without waiting for anything. What came for others meanwhile is looked at first: a runtime
    /// does so only after many tasks, unless one of them yields.
    pub async fn turn(&self) -> Turn {
        let turn = Self::of(&self.turns).await;
        tokio::task::yield_now().await;
        turn
    }
    /// Reads history for a watch.
    ///
    /// # Errors
    /// The read panicked, or the runtime ends.
    pub async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        Self::on_a_thread(&self.reads, read).await
    }
    /// Walks through history for an explanation.
    ///
    /// # Errors
    /// As [`ReadPace::read`].
    pub async fn explain<T: Send + 'static>(&self, walk: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        Self::on_a_thread(&self.explains, walk).await
    }

    /// The thread has the turn, since it goes on when its caller has gone.
    async fn on_a_thread<T: Send + 'static>(
        turns: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = Self::of(turns).await;
        let worked = move || {
            let _turn = turn;
            work()
        };
        spawn_blocking(worked).await
    }

    async fn of(turns: &Arc<Semaphore>) -> Turn {
        // None is ever closed.
        Turn { _permit: turns.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Work that has begun, until it is dropped.
    type Begun = Arc<Mutex<Vec<Sender<()>>>>;

    fn work(begun: &Begun) -> impl FnOnce() + Send + 'static {
        let begun = begun.clone();
        move || {
            let (end, ends) = channel::<()>();
            begun.lock().expect("no panic").push(end);
            assert!(ends.recv().is_err(), "the other end is dropped");
        }
    }

    async fn until_begun(begun: &Begun, wanted: usize) {
        while begun.lock().expect("no panic").len() < wanted {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn turns_last_as_long_as_their_threads_though_callers_go_away() {
        let pace = ReadPace::default();
        for (at_once, explains) in [(EXPLAINS_AT_ONCE, true), (WATCH_READS_AT_ONCE, false)] {
            let begun = Begun::default();
            let call = || {
                let (pace, work) = (pace.clone(), work(&begun));
                tokio::spawn(async move { if explains { pace.explain(work).await } else { pace.read(work).await } })
            };
            let gone: Vec<_> = (0..at_once).map(|_| call()).collect();
            until_begun(&begun, at_once).await;
            gone.iter().for_each(tokio::task::JoinHandle::abort);
            let turns = if explains { &pace.explains } else { &pace.reads };
            assert_eq!(turns.available_permits(), 0);
            let next = call();
            for call in gone {
                assert!(call.await.expect_err("aborted").is_cancelled());
            }
            tokio::task::yield_now().await;
            assert_eq!((turns.available_permits(), begun.lock().expect("no panic").len()), (0, at_once));
            drop(begun.lock().expect("no panic").remove(0));
            until_begun(&begun, at_once).await;
            begun.lock().expect("no panic").clear();
            next.await.expect("it goes on").expect("no panic");
        }
    }
}
