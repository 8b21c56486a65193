//! Rare states that only a node's own log lines show.
//!
//! **Owns** which line stands for which state. **Must never** listen to a library: only our crates' lines count, and only these. **Read next**: [`super`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, registry};

use super::reached;
use crate::world::elapsed;

/// Lines and the states they stand for.
const LINES: &[(&str, &str)] = &[
    ("no quorum of clock readings within the bound: stamping nothing", "clock-quorum-lost"),
    ("handing leadership over: unsure of the clock", "handed-over-unsure-of-clock"),
    (UNCHECKED, "ledger-time-unchecked"),
    (JUMPED, "clocks-jumped"),
    ("a snapshot was installed", "snapshot-installed"),
    ("leadership was lost while an entry was in flight", "leadership-lost-in-flight"),
    ("a torn round was cut off", "torn-round-cut"),
    ("the log is damaged", "rot-found"),
    ("snapshot is rotten; an older one or a peer must serve", "snapshot-rotten"),
    ("the damaged replica is repaired and votes again", "replica-repaired"),
    ("the replica lacks what it had promised: it stops, and is repaired from its peers", "disk-went-back"),
    ("the replica was reinstalled", "replica-repaired"),
    ("the replica is quarantined", "replica-quarantined"),
    ("log disk space", "low-space"),
    ("a vote brings withheld appends along", "vote-brings-appends"),
];
/// What a damaged log says is missing, and the states it stands for.
const LOSSES: &[(&str, &str)] = &[
    ("of the log is gone", "log-lost"),
    ("and was made with", "log-lost"),
    ("the directory was copied", "directory-copied"),
];
/// A leader takes a quorum's clocks as they are, since no replica knows better.
const UNCHECKED: &str =
    "ledger time goes on so much after the last stamp, and no replica knows how long all of them stood still";
/// A new leader does not follow the clocks.
const JUMPED: &str = "the clocks of a quorum are further ahead than the time that has passed: stamping nothing; hint: set them right, or \
                      `ledgerctl cluster clock accept`";
/// A follower begins to install a snapshot.
const INSTALLING: &str = "a snapshot is being installed";
/// ... and has.
const INSTALLED: &str = "a snapshot was installed";
/// A node leads a group in a new term.
const ELECTED: &str = "leading a new term";

/// An install that has not ended after this was broken off, by a crash or a lost peer.
const INSTALL_MAX: Duration = Duration::from_secs(2);

thread_local! {
    /// When the newest install that has not ended began.
    static INSTALLING_SINCE: Cell<Option<Duration>> = const { Cell::new(None) };
    /// When a node began to lead, of which group, in which term.
    static ELECTIONS: RefCell<Vec<(Duration, u32, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Counts lines of our nodes; put it beside whatever prints them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Probe;

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && (metadata.target().starts_with("ledger_raft") || metadata.target().starts_with("ledger_node"))
}

impl<S: Subscriber> Layer<S> for Probe {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_ours(event.metadata()) {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        if let Some((_, state)) = LINES.iter().find(|(text, _)| line.message == *text) {
            reached(state);
        }
        for (_, state) in LOSSES.iter().filter(|(text, _)| line.damage.contains(text)) {
            reached(state);
        }
        if line.message == ELECTED {
            ELECTIONS.with_borrow_mut(|all| all.push((elapsed(), line.group as u32, line.term)));
        }
        match line.message.as_str() {
            INSTALLING => INSTALLING_SINCE.set(Some(elapsed())),
            INSTALLED => INSTALLING_SINCE.set(None),
            ELECTED if INSTALLING_SINCE.get().is_some_and(|since| elapsed() < since + INSTALL_MAX) => {
                reached("election-during-install");
            }
            _ => {}
        }
    }
}

/// What is looked at of an event.
#[derive(Default)]
struct Line {
    message: String,
    damage: String,
    group: u64,
    term: u64,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "damage" => self.damage = format!("{value:?}"),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "group" => self.group = value,
            "term" => self.term = value,
            _ => {}
        }
    }
}

/// The elections of this thread's run so far: when since it began, the group, the term.
pub(crate) fn elections() -> Vec<(Duration, u32, u64)> {
    ELECTIONS.with_borrow(Clone::clone)
}

/// The probe listens on this thread as long as this lives.
#[must_use = "it listens only while it lives"]
pub struct Listening(#[expect(dead_code, reason = "held for its drop")] Option<DefaultGuard>);

/// Begins to listen on this thread for a run that begins now. Where a subscriber of the whole process is set already, it must have a [`Probe`] of its own.
pub fn listen() -> Listening {
    INSTALLING_SINCE.set(None);
    ELECTIONS.with_borrow_mut(Vec::clear);
    super::take();
    if tracing::dispatcher::has_been_set() {
        return Listening(None);
    }
    let ours: Filtered = registry().with(Only);
    Listening(Some(tracing::subscriber::set_default(ours)))
}

type Filtered = tracing_subscriber::layer::Layered<Only, Registry>;

/// The probe alone: asks for nothing but our lines, so that no library formats one for nobody.
struct Only;

impl Layer<Registry> for Only {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, Registry>) -> bool {
        is_ours(metadata) && *metadata.level() <= tracing::Level::DEBUG
    }
    fn on_event(&self, event: &Event<'_>, context: Context<'_, Registry>) {
        Probe.on_event(event, context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_stands_for_a_state_of_the_table() {
        for (line, state) in LINES.iter().chain(LOSSES) {
            assert!(super::super::ALL.iter().any(|rare| rare.name == *state), "{line}: {state}");
        }
    }

    #[test]
    fn lines_are_counted_and_an_election_counts_only_during_an_install() {
        let subscriber = registry().with(Only);
        tracing::subscriber::with_default(subscriber, || {
            super::super::take();
            INSTALLING_SINCE.set(None);
            tracing::debug!(target: "ledger_raft::leading", term = 1, "leading a new term");
            tracing::debug!(target: "ledger_raft::server", group = 1, "a snapshot is being installed");
            tracing::debug!(target: "ledger_raft::leading", term = 2, "leading a new term");
            tracing::debug!(target: "ledger_raft::server", group = 1, "a snapshot was installed");
            tracing::debug!(target: "somebody_else", "a snapshot was installed");
            let counts = super::super::take();
            assert_eq!(counts.get("election-during-install"), Some(&1));
            assert_eq!(counts.get("snapshot-installed"), Some(&1));
        });
    }
}
