//! The feed: every change from a cursor on, ridden over broken connections and dead nodes.
//!
//! **Owns** [`Watch`] and [`Cursor`]. **Must never** skip a change or tell one twice within one watch.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use ledger_core::{Change, LedgerTime, Position};
use ledger_proto::Invalid;

/// Where a consumer is in the feed; opaque. Store it with what you made of the changes before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub(crate) Bytes);

impl Cursor {
    /// From the oldest change that is kept.
    pub fn oldest() -> Self {
        Self::default()
    }
    /// A cursor that was stored.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One change, where and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Position in the shard's log.
    pub position: Position,
    /// Ledger time.
    pub time: LedgerTime,
    /// What happened.
    pub change: Change,
}

/// Changes that came together, and the cursor behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happenings {
    /// In order per product; empty while nothing happens.
    pub changes: Vec<Happened>,
    /// To go on behind these changes.
    pub cursor: Cursor,
    /// How current each shard's feed is: its ledger time.
    pub shard_times: BTreeMap<u32, LedgerTime>,
}

/// Why a watch ended. Broken connections do not end it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnded {
    /// The cursor or the SKUs are not valid.
    #[error("the watch is not valid: {0}")]
    Invalid(#[from] Invalid),
    /// Changes behind the cursor are no longer kept anywhere: start from a read, then from now.
    #[error("changes behind the cursor are no longer kept: {0}")]
    CutOff(String),
    /// The caller's role does not allow it.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
}

/// A running watch: a stream of [`Happenings`]. Dropping it ends it.
pub struct Watch {
    pub(crate) rx: tokio::sync::mpsc::Receiver<Result<Happenings, WatchEnded>>,
}

impl Watch {
    /// The next changes; none after the watch has ended or its client was closed.
    pub async fn next(&mut self) -> Option<Result<Happenings, WatchEnded>> {
        self.rx.recv().await
    }
}

impl Stream for Watch {
    type Item = Result<Happenings, WatchEnded>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rx.poll_recv(cx)
    }
}
