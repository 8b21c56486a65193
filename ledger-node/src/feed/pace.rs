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
    /// To read history for a watch.
    pub async fn read(&self) -> Turn {
        Self::of(&self.reads).await
    }
    /// To walk through history for an explanation.
    pub async fn explain(&self) -> Turn {
        Self::of(&self.explains).await
    }

    async fn of(turns: &Arc<Semaphore>) -> Turn {
        // None is ever closed.
        Turn { _permit: turns.clone().acquire_owned().await.ok() }
    }
}
