//! The checkers: one property a file, each tested with runs made to violate it.
//!
//! **Owns** the verdicts. **Must never** trust what the ledger says of itself where the clients' journal can say it.
//! **Read next**: [`acknowledged`], then the others; [`replay`] is the strongest.

pub mod acknowledged;
pub mod answered_once;
pub mod arrival;
pub mod clock;
pub mod conserved;
pub mod ends_once;
pub mod expiry;
pub mod feed;
pub mod general;
pub mod hostile;
pub mod limits;
pub mod lost_disks;
mod model;
pub mod order;
pub mod oversold;
pub mod replay;
pub mod replicas;
pub mod stale;
pub mod stranded;
mod whole;

use crate::history::Run;

/// One violation, in words that name both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// What disagrees.
    pub what: String,
}

/// A checker: its property's name and its function.
pub type Checker = (&'static str, fn(&Run) -> Vec<String>);

/// All of them.
pub const ALL: [Checker; 18] = [
    ("acknowledged is durable", acknowledged::check),
    ("conserved", conserved::check),
    ("never oversold", oversold::check),
    ("never stranded", stranded::check),
    ("ends once", ends_once::check),
    ("an id is answered once", answered_once::check),
    ("position order agrees with real time", order::check),
    ("linearizable by position", replay::check),
    ("linearizable at all", general::check),
    ("limits are exact", limits::check),
    ("first come, first served", arrival::check),
    ("expiry is exact", expiry::check),
    ("ledger time is within its bound", clock::check),
    ("the feed is whole", feed::check),
    ("replicas agree", replicas::check),
    ("stale reads are no older than they say", stale::check),
    (HOSTILE, hostile::check),
    (BEYOND, lost_disks::check),
];

/// Every answer is typed.
const HOSTILE: &str = "hostile calls are answered with an outcome or a reason";
/// Nothing is invented.
const BEYOND: &str = "a disk that forgot is not believed";
/// What judges a run that ended beyond a quorum: the others compare with what is read at its end, when nothing can be read.
const OF_BEYOND: [&str; 5] = [
    "an id is answered once",
    "position order agrees with real time",
    "ledger time is within its bound",
    "stale reads are no older than they say",
    BEYOND,
];
/// What judges the whole run, hostile clients' changes too; the others explain each effect by a call in the journal.
const OF_ALL: [&str; 4] = ["the feed is whole", "replicas agree", "ledger time is within its bound", HOSTILE];

/// Most violations of one property that are told: what follows from the first helps nobody.
const TOLD_MAX: usize = 5;

/// Runs every checker.
pub fn check_all(run: &Run) -> Vec<Violation> {
    let run = &*whole::shard_by_shard(run);
    let others = &*hostile::others(run);
    let of = |property: &str| if OF_ALL.contains(&property) { run } else { others };
    let judges = |(property, _): &&Checker| run.about.beyond_ms.is_none() || OF_BEYOND.contains(property);
    ALL.iter()
        .filter(judges)
        .flat_map(|(property, check)| {
            let found = check(of(property)).into_iter().take(TOLD_MAX);
            found.map(|what| Violation { property, what })
        })
        .chain(run.findings.iter().map(|f| Violation { property: "the node's own audit", what: f.clone() }))
        .collect()
}
