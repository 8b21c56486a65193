//! What a round came to, and who waits to hear of it.
//!
//! **Owns** the order of the answers. **Must never** answer anybody before the sync. **Read next**: [`super::writer`].

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::WalError;
use super::group::{AppendDone, GroupMem};
use super::shared::Op;

/// Somebody to tell about a round.
pub(crate) enum Told {
    Append { mem: Arc<GroupMem>, op: u64, done: AppendDone },
    Small(oneshot::Sender<io::Result<()>>),
}

/// The outcome of a poll.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(super) told: Vec<Told>,
    pub(super) failed: Option<String>,
    /// Whether something was synced.
    pub(crate) synced: bool,
}

impl Outcome {
    /// Tells everybody, the newest first: a group's older callbacks are covered by its newest.
    pub(crate) fn tell(self) {
        let result = || match &self.failed {
            None => Ok(()),
            Some(why) => Err(WalError::Poisoned { why: why.clone() }.into()),
        };
        for told in self.told.into_iter().rev() {
            match told {
                Told::Append { done, .. } => done(result()),
                Told::Small(done) => {
                    // Whoever asked may have gone.
                    let _ = done.send(result());
                }
            }
        }
    }
}

impl Op {
    /// Who waits for it.
    pub(super) fn into_told(self) -> Option<Told> {
        match self {
            Self::Append { mem, op, done, .. } => Some(Told::Append { mem, op, done }),
            Self::Small { done, .. } => done.map(Told::Small),
        }
    }
}
