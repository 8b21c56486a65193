//! Explanations: every change of one product or reservation, newest first, along the pointers in the records.
//!
//! **What it is.** Each change names the one before it on its reservation and on each of its products; the ledger names the last.
//! An extension and what happens to an order beside its stock are changes of the reservation alone: no product's explanation has them.
//!
//! **Owns** the walk and its bound. **Must never** end quietly before the first change: what is no longer kept is said.
//! **Read next**: [`super::History`].

use ledger_core::change::{Change, ChangeKind, Link, Record};
use ledger_core::types::Sku;
use ledger_core::{LedgerTime, Position, ReservationId, codec};

use super::{History, HistoryError};
use crate::limits::EXPLAIN_RECORDS_MAX;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A reservation.
    Reservation(ReservationId),
    /// A product.
    Product(Sku),
    /// One entry of the log, with everything that it changed.
    Entry {
        /// Whose log.
        shard: u32,
        /// Where in it.
        index: u64,
    },
}

/// Where the walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At this change.
    At(u64, u16),
    /// Somewhere at or below this index.
    Below(u64),
    /// Nowhere: that was the first one.
    End,
}

impl Subject {
    /// The change before this one on the subject: `None` when the change is not about it, `Some(None)` when it is the first one.
    fn before(&self, change: &Change) -> Option<Link> {
        match self {
            Self::Reservation(id) => (change.kind.reservation() == Some(*id)).then_some(change.previous_on_reservation),
            Self::Product(sku) => change.previous_on(sku),
            Self::Entry { .. } => Some(None),
        }
    }
}

/// One change and where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The entry's position, with the change's place.
    pub position: Position,
    /// Ledger time of the entry.
    pub time: LedgerTime,
    /// What happened.
    pub change: Change,
}

/// Where a page goes on: an index, and how many of the subject's changes there were answered before.
pub type Next = (u64, u32);

/// Where an explanation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the subject's last change, if it has one.
    Head(Option<(u64, u16)>),
    /// Where the page before ended.
    Page(Next),
}

/// A page of an explanation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Newest first.
    pub changes: Vec<Explained>,
    /// Where to go on, if there is more: an index, and how many of the changes at that index are on this page or an earlier one.
    pub next: Option<Next>,
    /// Older changes are no longer kept here.
    pub cut_off: bool,
}

/// Walks back from where it is to begin. A page may end within a record: a full entry may have changed one product tens of thousands of times.
///
/// # Errors
/// [`HistoryError`]: the store cannot be read, or this node misses records for now.
pub fn explain(
    history: &dyn History,
    shard: u32,
    subject: &Subject,
    begin: Begin,
    max: usize,
) -> Result<Explanation, HistoryError> {
    let mut out = Explanation::default();
    let (mut way, mut skip) = match begin {
        Begin::Head(head) => (head.map_or(Way::End, |(index, place)| Way::At(index, place)), (0, 0)),
        Begin::Page(next) => (Way::Below(next.0), next),
    };
    // The ledger shows a change a moment before its record is here.
    let applied = history.coverage(shard).applied;
    if let Way::At(index, _) | Way::Below(index) = way
        && index > applied
    {
        return Err(HistoryError::NotHere { shard, after: applied, through: index });
    }
    for _ in 0..EXPLAIN_RECORDS_MAX {
        let index = match way {
            Way::End => return Ok(out),
            Way::At(index, _) | Way::Below(index) => index,
        };
        if matches!(subject, Subject::Entry { index: of, .. } if *of != index) {
            return Ok(out);
        }
        if out.changes.len() >= max {
            out.next = Some((index, 0));
            return Ok(out);
        }
        let found = match way {
            Way::At(..) => history.record_at(shard, index).map(|bytes| bytes.map(|bytes| (index, bytes))),
            _ if matches!(subject, Subject::Entry { .. }) => {
                history.record_at(shard, index).map(|bytes| bytes.map(|bytes| (index, bytes)))
            }
            _ => history.last_up_to(shard, index),
        };
        let record = match found {
            Err(HistoryError::TooOld { .. }) => None,
            found => found?.map(|(at, bytes)| decode(history, shard, at, &bytes)).transpose()?,
        };
        let Some(record) = record else {
            // Below the first record of all there is nothing; anything else was dropped. An entry
            // that changed nothing has no record.
            let oldest = history.coverage(shard).oldest;
            out.cut_off = match subject {
                Subject::Entry { index, .. } => *index < oldest,
                _ => matches!(way, Way::At(..)) || oldest > 0,
            };
            return Ok(out);
        };
        let answered = if record.position.index == skip.0 { skip.1 } else { 0 };
        skip = (0, 0);
        way = match through(&record, subject, way, answered, max, &mut out.changes) {
            Ok(way) => way,
            Err(answered) => {
                out.next = Some((record.position.index, answered));
                return Ok(out);
            }
        };
    }
    out.next = match way {
        Way::At(index, _) | Way::Below(index) => Some((index, 0)),
        Way::End => None,
    };
    Ok(out)
}

/// Takes what a record says about the subject, last change first, but for those `answered` already; where to go on, or how many are answered when
/// the page is full before the record ends.
fn through(
    record: &Record,
    subject: &Subject,
    came: Way,
    answered: u32,
    max: usize,
    out: &mut Vec<Explained>,
) -> Result<Way, u32> {
    let index = record.position.index;
    let mut way = came;
    let mut seen = 0;
    for change in record.changes.iter().rev() {
        let Some(before) = subject.before(change) else { continue };
        if seen >= answered {
            if out.len() >= max {
                return Err(seen);
            }
            let position = Position { place: change.place, ..record.position };
            out.push(Explained { position, time: record.time, change: change.clone() });
        }
        seen += 1;
        way = before.map_or(Way::End, |(index, place)| Way::At(index, place));
        if matches!((&change.kind, subject), (ChangeKind::ProductCreated { .. }, Subject::Product(_))) {
            // What was before it in the same record was about one of that name that was deleted.
            return Ok(Way::End);
        }
    }
    Ok(match way {
        // The first change of a record points into the same record only if that one was passed over: go on below it.
        Way::At(at, _) if at >= index => Way::Below(index.saturating_sub(1)),
        Way::Below(_) if seen == 0 => Way::Below(index.saturating_sub(1)),
        way => way,
    })
}

fn decode(history: &dyn History, shard: u32, index: u64, bytes: &[u8]) -> Result<Record, HistoryError> {
    codec::decode_record(bytes).map_err(|_| {
        history.distrust(shard, index.saturating_sub(1), index);
        HistoryError::NotHere { shard, after: index.saturating_sub(1), through: index }
    })
}

#[cfg(test)]
mod tests {
    use ledger_core::command::{Command, plain_line};
    use ledger_core::{Entry, Ledger, Line, OfferKey, Policy, Quantity, Reason, Reference, ReservationId, Slot, Units};

    use super::*;
    use crate::history::KeptHistory;
    use crate::history::memory::MemoryStore;
    use crate::history::tests::KEEP;

    /// A shard with products `{q}a` and `{q}b` of ten units each, and its history.
    struct Shard {
        ledger: Ledger,
        history: std::sync::Arc<dyn History>,
        index: u64,
    }

    impl Shard {
        fn new() -> Self {
            let history: std::sync::Arc<dyn History> =
                KeptHistory::inline(MemoryStore::new(), KEEP).expect("an empty store");
            let ledger = Ledger::new(1, 1, ledger_core::IndexSeed(7));
            history.begin(1, 0, ledger.chain());
            let mut shard = Self { ledger, history, index: 0 };
            let all = (Slot::new(0).expect("a slot"), Slot::new(4_095).expect("a slot"));
            shard.apply(vec![Command::OwnSlots { generation: 1, ranges: vec![all] }]);
            for name in ["{q}a", "{q}b"] {
                let (units, reference) = (Units::new(10).expect("units"), Reference::new("r").expect("a reference"));
                shard.apply(vec![Command::CreateProduct { sku: sku(name), policy: Policy::default() }]);
                shard.apply(vec![Command::Receive { offer: offer(name), units, reference }]);
            }
            shard
        }
        fn apply(&mut self, commands: Vec<Command>) {
            self.index += 1;
            let applied = self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(1_000), commands });
            self.history.append(1, self.index, applied.record.as_ref());
        }
        /// Names of a product's changes, newest first, page by page; and whether it says that this is all.
        fn explained(&self, name: &str, max: usize) -> (Vec<&'static str>, bool) {
            let subject = Subject::Product(sku(name));
            let mut begin = Begin::Head(self.ledger.head_of_product(&sku(name)));
            let mut names = Vec::new();
            loop {
                let page = explain(&*self.history, 1, &subject, begin, max).expect("readable");
                assert!(page.changes.len() <= max, "{} on a page of {max}", page.changes.len());
                names.extend(page.changes.iter().map(|explained| explained.change.kind.name()));
                match page.next {
                    Some(next) => begin = Begin::Page(next),
                    None => return (names, !page.cut_off),
                }
            }
        }
    }

    fn sku(name: &str) -> Sku {
        Sku::new(name).expect("a SKU")
    }
    fn offer(name: &str) -> OfferKey {
        OfferKey { sku: sku(name), sale: None }
    }
    fn line(name: &str, units: i64) -> Line {
        plain_line(sku(name), Quantity::new(units).expect("a quantity"))
    }
    fn id(n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::of(&sku("{q}a")), 1_000, n)
    }
    fn reserve(n: u64, lines: Vec<Line>) -> Command {
        Command::Reserve { id: id(n), keys: Default::default(), lines: lines.into(), hold_ms: None }
    }

    #[test]
    fn a_product_is_explained_through_changes_of_several_products_whichever_they_name_first() {
        let mut shard = Shard::new();
        shard.apply(vec![reserve(1, vec![line("{q}a", 2), line("{q}b", 2)])]);
        shard.apply(vec![Command::Adjust {
            offer: offer("{q}b"),
            delta: 1,
            reason: Reason::new("found").expect("a reason"),
            reference: Reference::new("count").expect("a reference"),
            expected_version: None,
        }]);
        // One of b is sold, which the change names first; the rest goes back.
        shard.apply(vec![Command::Confirm { id: id(1), lines: Some([line("{q}b", 1)].into_iter().collect()) }]);
        for max in [1, 2, 100] {
            let a = ["ReservationConfirmed", "InventoryReserved", "UnitsReceived", "ProductCreated"];
            assert_eq!(shard.explained("{q}a", max), (a.to_vec(), true));
            let b = ["ReservationConfirmed", "UnitsAdjusted", "InventoryReserved", "UnitsReceived", "ProductCreated"];
            assert_eq!(shard.explained("{q}b", max), (b.to_vec(), true));
        }
    }

    #[test]
    fn a_change_of_an_order_beside_it_does_not_end_the_explanation_of_a_product() {
        let mut shard = Shard::new();
        let extend = Command::Extend { id: id(1), replaces: LedgerTime(601_000), hold_ms: 5_000 };
        shard.apply(vec![reserve(1, vec![line("{q}a", 1)])]);
        shard.apply(vec![extend, reserve(2, vec![line("{q}a", 1)])]);
        let a = ["InventoryReserved", "InventoryReserved", "UnitsReceived", "ProductCreated"];
        assert_eq!(shard.explained("{q}a", 100), (a.to_vec(), true));
    }

    #[test]
    fn a_head_that_history_has_not_come_to_is_not_here_yet_and_never_cut_off() {
        let mut shard = Shard::new();
        let subject = Subject::Product(sku("{q}a"));
        // The ledger is looked at between an entry's change of it and the record's way into
        // history.
        let next = shard.index + 1;
        shard.ledger.apply(
            1,
            next,
            &Entry { stamp: LedgerTime(1_000), commands: vec![reserve(1, vec![line("{q}a", 1)])] },
        );
        let head = shard.ledger.head_of_product(&sku("{q}a"));
        assert_eq!(head.map(|(index, _)| index), Some(next));
        for begin in [Begin::Head(head), Begin::Page((next, 1))] {
            let found = explain(&*shard.history, 1, &subject, begin, 10);
            assert!(matches!(found, Err(HistoryError::NotHere { through, .. }) if through == next), "{found:?}");
        }
    }

    #[test]
    fn pages_end_within_a_record_and_go_on_there() {
        let mut shard = Shard::new();
        shard.apply((1..=7).map(|n| reserve(n, vec![line("{q}a", 1)])).collect());
        for max in 1..=9 {
            let (names, complete) = shard.explained("{q}a", max);
            assert_eq!((names.len(), complete), (9, true), "{names:?}");
        }
    }
}
