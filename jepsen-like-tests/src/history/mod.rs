//! What the clients of a run saw: their own journal, as JSON lines for tools that are not ours.
//!
//! # The format
//!
//! One object a line; `line` says of what:
//!
//! | `line` | one for | fields |
//! |---|---|---|
//! | `run` | the run; the first line | `seed`, `epoch_ms` (ledger time at millisecond 0 of the clocks below), `clock_bound_ms` (how far ledger time may be off; absent: not judged), `clock_jump_max_ms` (how far a new leader may move it; absent: not judged), `remembered_max`, `history_cut`, `beyond_ms` (from then on more disks than a quorum survives had lost something; absent: never), `damaged` (the nodes of these disks), `emptied` (nodes whose disk was replaced by an empty one, and that stay out), `rejoined` (those that were brought back) |
//! | `op` | one call of one client | `client`, `asked_ms`, `answered_ms`, `op` and its fields ([`Op`]), `answer` and its fields ([`Answer`]) |
//! | `watch` | one connection of one feed consumer | [`Watched`]; `changes` are [`Change`]s |
//! | `stock` | what one node says of one product at the end | [`FinalStock`] |
//! | `id` | what is known of one id at the end | [`FinalId`] |
//! | `digest` | a replica's digest at an index | [`FinalDigest`] |
//! | `status` | what one node that is `damaged` or `emptied` says of itself at the end | [`FinalStatus`] |
//! | `finding` | what a node's own audit found | `what` |
//! | `sometimes` | a rare state that a node's log lines showed | `name`, `count` |
//! | `hostile` | what hostile clients were answered, in sums | [`Hostile`] |
//!
//! ```json
//! {"line":"op","client":3,"asked_ms":411,"answered_ms":417,"op":"reserve","id":"0196…","lines":[{"sku":"hot","quantity":2}],"keys":["anna"],"hold_ms":900,
//!  "answer":"ok","at":{"shard":1,"index":77,"place":0,"term":2},"time_ms":1767225600414,"replayed":false,
//!  "told":{"of":"reservation","state":"held","deadline_ms":1767225601314,"reserved_at_ms":1767225600414}}
//! ```
//!
//! `asked_ms` and `answered_ms` are of one clock for all clients of the run: an op that was answered before another was asked precedes it in real
//! time. `at` is the position in the log where the answer was decided; `(shard, index, place)` orders all of a shard; reads lie behind their whole entry
//! (`place` 4294967295). `time_ms` is ledger time there. Answers: `ok`, `refused` (nothing changed; `no.code` says why), `not_now` (nothing
//! happened), `unknown` (it may or may not have happened). `replayed` repeats an earlier verdict without a second effect.
//!
//! **Owns** the format. **Must never** ask the ledger anything: a journal that the ledger writes proves nothing.
//! **Read next**: [`op`], [`answer`], [`observations`], [`crate::checkers`].

pub mod answer;
pub mod hostile;
pub mod observations;
pub mod op;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

pub use answer::{Answer, At, BEHIND, No, Out, State, Told, Units};
pub use hostile::Hostile;
pub use observations::{
    Change, ChangedLine, FinalDigest, FinalId, FinalLine, FinalOffer, FinalStatus, FinalStock, Watched,
};
pub use op::{Line, Offer, Op, Terms};

/// What a checker must know of the run itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The seed it was drawn from.
    pub seed: u64,
    /// True time in Unix milliseconds at millisecond 0 of `asked_ms`.
    pub epoch_ms: u64,
    /// How far ledger time may lie from true time; none: not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_bound_ms: Option<u64>,
    /// How far ledger time may jump when another leader begins; none: not judged, since a shard stood
    /// still as a whole and nobody knows for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_jump_max_ms: Option<u64>,
    /// The cap on remembered ids of a shard; none: so high that nothing is ever pressed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembered_max: Option<u64>,
    /// History was kept so short that the feed's beginning may be gone.
    pub history_cut: bool,
    /// When more disks lost something than a quorum survives; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond_ms: Option<u64>,
    /// The nodes of these disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<u64>,
    /// Nodes whose disk was replaced by an empty one, and that stay out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<u64>,
    /// Those that were brought back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejoined: Vec<u64>,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which client.
    pub client: u32,
    /// What was asked.
    #[serde(flatten)]
    pub op: Op,
    /// Milliseconds when it was asked.
    pub asked_ms: u64,
    /// Milliseconds when the answer came.
    pub answered_ms: u64,
    /// What came back.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Everything a checker may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// The run itself.
    pub about: About,
    /// The clients' journal.
    pub events: Vec<Event>,
    /// What the feed's consumers were told.
    pub watched: Vec<Watched>,
    /// Stock at the end, as each node says.
    pub stock: Vec<FinalStock>,
    /// Ids at the end.
    pub ids: Vec<FinalId>,
    /// Digests at the end.
    pub digests: Vec<FinalDigest>,
    /// What nodes say of themselves at the end.
    pub statuses: Vec<FinalStatus>,
    /// Findings of the nodes' own audits.
    pub findings: Vec<String>,
    /// Rare states that the nodes' log lines showed ([`crate::sometimes`]).
    pub sometimes: BTreeMap<String, u64>,
    /// What hostile clients were answered; none: there were none.
    pub hostile: Option<Hostile>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum OneLine {
    Run(About),
    Op(Box<Event>),
    Watch(Box<Watched>),
    Stock(FinalStock),
    Id(FinalId),
    Digest(FinalDigest),
    Status(FinalStatus),
    Finding { what: String },
    Sometimes { name: String, count: u64 },
    Hostile(Hostile),
}

impl Run {
    /// The run without the changes that its consumers saw, which can be most of it.
    pub(crate) fn clone_without_changes(&self) -> Self {
        let without = |watched: &Watched| Watched {
            consumer: watched.consumer,
            node: watched.node,
            began: watched.began.clone(),
            behind: watched.behind.clone(),
            from_ms: watched.from_ms,
            to_ms: watched.to_ms,
            changes: Vec::new(),
            ended: watched.ended.clone(),
        };
        Self {
            about: self.about.clone(),
            events: self.events.clone(),
            watched: self.watched.iter().map(without).collect(),
            stock: self.stock.clone(),
            ids: self.ids.clone(),
            digests: self.digests.clone(),
            statuses: self.statuses.clone(),
            findings: self.findings.clone(),
            sometimes: self.sometimes.clone(),
            hostile: self.hostile.clone(),
        }
    }

    /// Writes the journal as JSON lines.
    ///
    /// # Errors
    /// Only those of `to`.
    pub fn write_events(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut put = |line: OneLine| -> io::Result<()> {
            serde_json::to_writer(&mut *to, &line)?;
            to.write_all(b"\n")
        };
        put(OneLine::Run(self.about.clone()))?;
        self.events.iter().try_for_each(|e| put(OneLine::Op(Box::new(e.clone()))))?;
        self.watched.iter().try_for_each(|w| put(OneLine::Watch(Box::new(w.clone()))))?;
        self.stock.iter().try_for_each(|s| put(OneLine::Stock(s.clone())))?;
        self.ids.iter().try_for_each(|i| put(OneLine::Id(i.clone())))?;
        self.digests.iter().try_for_each(|d| put(OneLine::Digest(d.clone())))?;
        self.statuses.iter().try_for_each(|s| put(OneLine::Status(s.clone())))?;
        self.findings.iter().try_for_each(|f| put(OneLine::Finding { what: f.clone() }))?;
        let rare = |(name, count): (&String, &u64)| OneLine::Sometimes { name: name.clone(), count: *count };
        self.sometimes.iter().try_for_each(|of| put(rare(of)))?;
        self.hostile.iter().try_for_each(|h| put(OneLine::Hostile(h.clone())))
    }

    /// Reads a journal that was written as JSON lines, by this or by other tools; empty lines are passed over.
    ///
    /// # Errors
    /// Those of `from`, and a line that is not of the format, by its number.
    pub fn read_events(from: &mut dyn BufRead) -> io::Result<Self> {
        let mut run = Self::default();
        for (n, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |e| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {e}", n + 1));
            match serde_json::from_str(&line).map_err(wrong)? {
                OneLine::Run(about) => run.about = about,
                OneLine::Op(event) => run.events.push(*event),
                OneLine::Watch(watched) => run.watched.push(*watched),
                OneLine::Stock(stock) => run.stock.push(stock),
                OneLine::Id(id) => run.ids.push(id),
                OneLine::Digest(digest) => run.digests.push(digest),
                OneLine::Status(status) => run.statuses.push(status),
                OneLine::Finding { what } => run.findings.push(what),
                OneLine::Sometimes { name, count } => *run.sometimes.entry(name).or_default() += count,
                OneLine::Hostile(hostile) => run.hostile = Some(hostile),
            }
        }
        Ok(run)
    }

    /// Milliseconds of the run's clock as true Unix milliseconds.
    pub fn true_ms(&self, ms: u64) -> u64 {
        self.about.epoch_ms + ms
    }
}
