//! The checkers: one property a file, each tested with runs made to violate it.
//!
//! **Owns** the verdicts. **Must never** trust what the ledger says of itself where the clients' journal can say it.
//! **Read next**: [`acknowledged`], then the others.

pub mod acknowledged;
pub mod conserved;
pub mod order;
pub mod oversold;
pub mod replicas;
pub mod stranded;

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
pub const ALL: [Checker; 6] = [
    ("acknowledged is durable", acknowledged::check),
    ("conserved", conserved::check),
    ("never oversold", oversold::check),
    ("never stranded", stranded::check),
    ("replicas agree", replicas::check),
    ("position order agrees with real time", order::check),
];

/// Runs every checker.
pub fn check_all(run: &Run) -> Vec<Violation> {
    ALL.iter()
        .flat_map(|(property, check)| check(run).into_iter().map(|what| Violation { property, what }))
        .chain(run.findings.iter().map(|f| Violation { property: "the node's own audit", what: f.clone() }))
        .collect()
}

/// Runs made by hand, for the checkers' tests.
#[cfg(test)]
pub(crate) mod sample {
    use crate::history::{Answer, At, Event, FinalDigest, FinalId, FinalStock, Op, Run};

    pub(crate) fn ok(index: u64) -> Answer {
        Answer::Ok { at: Some(At { shard: 1, index, place: 0 }), time_ms: index, replayed: false }
    }

    pub(crate) fn event(op: Op, asked_ms: u64, answered_ms: u64, answer: Answer) -> Event {
        Event { client: 1, op, asked_ms, answered_ms, answer }
    }

    pub(crate) fn reserve(id: &str, quantity: u32) -> Op {
        Op::Reserve { id: id.into(), sku: "hot".into(), quantity, key: "k".into(), hold_ms: 1_000 }
    }

    /// Two units received, one sold, one held and expired: a run in which everything holds.
    pub(crate) fn good() -> Run {
        let stock =
            |node| FinalStock { node, sku: "hot".into(), received: 2, adjusted: 0, available: 1, held: 0, sold: 1 };
        let digest = |node| FinalDigest { node, shard: 1, index: 9, value: "aa".into() };
        Run {
            events: vec![
                event(Op::Receive { sku: "hot".into(), units: 2, reference: "r".into() }, 0, 1, ok(1)),
                event(reserve("a", 1), 2, 5, ok(2)),
                event(reserve("b", 1), 3, 6, ok(3)),
                event(Op::Confirm { id: "a".into() }, 7, 9, ok(4)),
            ],
            stock: vec![stock(1), stock(2), stock(3)],
            ids: vec![
                FinalId { id: "a".into(), state: "confirmed".into(), sold: 1 },
                FinalId { id: "b".into(), state: "expired".into(), sold: 0 },
            ],
            digests: vec![digest(1), digest(2), digest(3)],
            findings: vec![],
        }
    }

    #[test]
    fn a_good_run_has_no_violation() {
        assert_eq!(super::check_all(&good()), vec![]);
    }
}
