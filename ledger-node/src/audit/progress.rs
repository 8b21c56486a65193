//! How far an audit has come: for `Admin.NodeStatus`, and a line in the log now and then.
//!
//! **Owns** what is reported of an audit under way. **Must never** slow it down. **Read next**: [`super`].

use std::sync::Mutex;

use ledger_proto::v1;
use tokio::time::Instant;

use crate::limits::AUDIT_LOGGED_EVERY;
use crate::node::lock;

/// What an audit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It reads history; counted in indexes.
    History,
    /// It reads records of the frozen view, those of several passes each time.
    Records,
}

impl Doing {
    fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Records => "records",
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    shard: u32,
    doing: Doing,
    done: u64,
    of: u64,
}

impl Progress {
    pub(super) fn to_wire(self) -> v1::AuditProgress {
        let Self { shard, doing, done, of } = self;
        v1::AuditProgress { shard, doing: doing.name().to_owned(), done, of }
    }
}

/// Reports the progress of one shard's audit; nothing is under way once it is dropped.
pub(super) struct Reporter<'a> {
    to: &'a Mutex<Option<Progress>>,
    shard: u32,
    logged: Mutex<Instant>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(to: &'a Mutex<Option<Progress>>, shard: u32) -> Self {
        *lock(to) = Some(Progress { shard, doing: Doing::History, done: 0, of: 0 });
        Self { to, shard, logged: Mutex::new(Instant::now()) }
    }

    pub(super) fn report(&self, doing: Doing, done: u64, of: u64) {
        let shard = self.shard;
        *lock(self.to) = Some(Progress { shard, doing, done, of });
        let mut logged = lock(&self.logged);
        if logged.elapsed() >= AUDIT_LOGGED_EVERY {
            *logged = Instant::now();
            tracing::info!("audit of shard {shard}: {done} of {of} of its {} read", doing.name());
        }
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        *lock(self.to) = None;
    }
}
