//! A slow model of the log, and what the log's tests share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ledger_raft::disk::SimDisk;
use ledger_raft::wal::{GroupLog, Wal, WalConfig, WalEntry, WalError, WalIdentity};
use ledger_raft::{GroupId, NodeId};
use tokio::sync::oneshot;

pub(crate) fn identity() -> WalIdentity {
    WalIdentity { cluster: [7; 16], incarnation: 3, node: NodeId(9) }
}

pub(crate) fn config() -> WalConfig {
    WalConfig { segment_bytes: 64 << 10, low_space_bytes: 0, tail_cache_bytes: 4 << 10, ..WalConfig::default() }
}

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/node/wal")
}

pub(crate) async fn open(disk: &SimDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.clone()), dir(), identity(), config()).await
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("runtime")
}

pub(crate) fn entry(index: u64, tag: u64, bytes: usize) -> WalEntry {
    let mut data = format!("{index}/{tag}/").into_bytes();
    data.resize(data.len().max(bytes), b'.');
    WalEntry { index, head: Bytes::from(format!("head {index} {tag}")), data: Bytes::from(data) }
}

/// Starts an append; the receiver hears when it is durable.
pub(crate) fn append(group: &GroupLog, entries: Vec<WalEntry>) -> oneshot::Receiver<std::io::Result<()>> {
    let (tell, told) = oneshot::channel();
    let tell_late = Arc::new(std::sync::Mutex::new(Some(tell)));
    let teller = tell_late.clone();
    let done = Box::new(move |result| {
        if let Some(tell) = teller.lock().expect("lock").take() {
            let _ = tell.send(result);
        }
    });
    if let Err(e) = group.append(entries, done)
        && let Some(tell) = tell_late.lock().expect("lock").take()
    {
        let _ = tell.send(Err(e));
    }
    told
}

/// A group's log as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    pub(crate) purged: Option<u64>,
    pub(crate) entries: BTreeMap<u64, WalEntry>,
    pub(crate) vote: Option<Bytes>,
}

/// All states a group went through; a crash may leave any from the acknowledged one on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    pub(crate) states: Vec<Model>,
    pub(crate) acked: usize,
    pub(crate) committed: Vec<Bytes>,
}

impl Story {
    pub(crate) fn now(&self) -> Model {
        self.states.last().cloned().unwrap_or_default()
    }
    pub(crate) fn step(&mut self, change: impl FnOnce(&mut Model)) {
        if self.states.is_empty() {
            self.states.push(Model::default());
        }
        let mut next = self.now();
        change(&mut next);
        self.states.push(next);
    }
    pub(crate) fn ack(&mut self) {
        self.acked = self.states.len().saturating_sub(1);
    }
    pub(crate) fn restart_at(&mut self, state: Model) {
        self.states = vec![state];
        self.acked = 0;
    }
}

/// What the log really holds.
pub(crate) fn observe(group: &GroupLog) -> Model {
    let state = group.state();
    let purged = state.purged.as_ref().map(|p| p.0);
    if let Some((index, id)) = &state.purged {
        assert_eq!(id, &Bytes::from(format!("id {index}")));
    }
    let first = purged.map_or(1, |p| p + 1);
    let entries = match state.last_index {
        Some(last) => group.read(first, last, usize::MAX).expect("every entry not purged is readable"),
        None => Vec::new(),
    };
    if let Some(last) = state.last_index {
        assert_eq!(entries.len() as u64, last + 1 - first, "no holes from {first} to {last}");
        assert_eq!(state.last_head, entries.last().map(|e| e.head.clone()));
    }
    Model { purged, entries: entries.into_iter().map(|e| (e.index, e)).collect(), vote: state.vote }
}

/// Checks a group against its story and returns where it is.
pub(crate) fn check(group: &GroupLog, story: &Story, context: &str) -> Model {
    let seen = observe(group);
    let allowed = story.states.get(story.acked..).unwrap_or(&[]);
    let fresh = story.states.is_empty() && seen == Model::default();
    assert!(
        fresh || allowed.contains(&seen),
        "{context}: group {} has {seen:?}\nbut may have one of {allowed:#?}",
        group.id().0
    );
    if let Some(committed) = group.state().committed {
        assert!(story.committed.contains(&committed), "{context}: committed {committed:?} was never saved");
    }
    seen
}

pub(crate) const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(5)];
