//! Runs made by hand, one op at a time, with the feed that goes with them.
//!
//! **Owns** the good run. **Must never** decide anything: every answer is the caller's.

use client_sdk::{ReservationId, Sku, Slot};
use jepsen_like_tests::history::{
    About, Answer, At, Change, ChangedLine, Event, FinalId, FinalLine, FinalOffer, FinalStock, Line, No, Offer, Op,
    Out, Run, State, Terms, Told, Units, Watched,
};

/// Ledger time and true time at millisecond 0.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;
/// The one product.
pub(crate) const SKU: &str = "hot";

/// A run being made.
pub(crate) struct Made {
    /// The run so far.
    pub(crate) run: Run,
    /// The clients' clock.
    pub(crate) ms: u64,
    /// Ledger time less the epoch.
    pub(crate) time_ms: u64,
    index: u64,
    last_on_product: Option<(u64, u32)>,
}

/// The plain offer.
pub(crate) fn plain() -> Offer {
    Offer::plain(SKU)
}

/// So many units of it.
pub(crate) fn line(quantity: u32) -> Line {
    Line { offer: plain(), quantity }
}

/// A limit of two a key.
pub(crate) fn terms() -> Terms {
    Terms {
        open: true,
        opens_at_ms: None,
        closes_at_ms: None,
        per_key_max: Some(2),
        per_order_min: 1,
        per_order_max: 1_000_000,
        hold_ms_default: 1_000,
        hold_ms_max: 10_000,
    }
}

/// A reserve of so many units under a key.
pub(crate) fn reserve(id: &str, quantity: u32, key: &str, hold_ms: u64) -> Op {
    Op::Reserve { id: id.into(), lines: vec![line(quantity)], keys: vec![key.into()], hold_ms: Some(hold_ms) }
}

impl Made {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let about = About { seed: 1, epoch_ms: EPOCH_MS, clock_bound_ms: Some(500), ..About::default() };
        let watched = |node| Watched {
            consumer: 0,
            node,
            began: "oldest".into(),
            behind: vec![],
            from_ms: 0,
            to_ms: 0,
            changes: vec![],
            ended: "caught up".into(),
        };
        let run = Run { about, watched: (1..=3).map(watched).collect(), ..Run::default() };
        Self { run, ms: 0, time_ms: 0, index: 0, last_on_product: None }
    }

    /// The id that a name stands for.
    pub(crate) fn id(&self, name: &str) -> String {
        let random = name.bytes().fold(0, |sum, b| sum * 256 + u64::from(b));
        ReservationId::from_parts(Slot::of(&Sku::new(SKU).unwrap()), EPOCH_MS, random).to_string()
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, ms: u64) {
        self.ms += ms;
        self.time_ms += ms;
    }

    /// Behind every deadline.
    pub(crate) fn after_deadlines(&mut self) {
        self.wait(100_000);
    }

    /// The index of the next op.
    pub(crate) fn next_index(&self) -> u64 {
        self.index + 1
    }

    fn next(&mut self) -> At {
        self.wait(10);
        self.index += 1;
        At { shard: 1, index: self.index, place: 0, term: 1 }
    }

    fn event(&mut self, op: Op, answer: Answer) {
        self.run.events.push(Event { client: 1, op, asked_ms: self.ms - 5, answered_ms: self.ms + 1, answer });
    }

    /// An op that is answered ok, and what the feed tells of it.
    pub(crate) fn ok(&mut self, op: Op, told: Told, change: Option<Change>) {
        let at = self.next();
        let time_ms = EPOCH_MS + self.time_ms;
        self.event(op, Answer::Ok { at: Some(at), time_ms, replayed: false, told, age_ms: None });
        if let Some(change) = change {
            self.put(Change { at, time_ms, ..change });
        }
    }

    /// An op that is refused.
    pub(crate) fn refused(&mut self, op: Op, no: No) {
        let at = self.next();
        self.event(op, Answer::Refused { at: Some(at), time_ms: EPOCH_MS + self.time_ms, no });
    }

    /// An op that did not happen.
    pub(crate) fn not_now(&mut self, op: Op) {
        self.wait(10);
        self.event(op, Answer::NotNow { cause: "NotLeader".into(), why: "an election".into() });
    }

    /// An op in doubt.
    pub(crate) fn unknown(&mut self, op: Op) {
        self.wait(10);
        self.event(op, Answer::Unknown { why: "the deadline passed".into() });
    }

    /// A change at the next index that no op was answered with.
    pub(crate) fn tell(&mut self, change: Change) {
        let at = self.next();
        let time_ms = EPOCH_MS + self.time_ms;
        // A hold is told with the deadline that it gets at this very moment.
        let deadline_ms = match change.name.as_str() {
            "InventoryReserved" => Some(time_ms + 100),
            _ => change.deadline_ms,
        };
        self.put(Change { at, time_ms, deadline_ms, ..change });
    }

    fn put(&mut self, change: Change) {
        let before_on_product = self.last_on_product.replace((change.at.index, change.at.place));
        let on_id = |c: &&Change| c.id.is_some() && c.id == change.id;
        let before = self.changes().iter().rev().find(on_id).map(|c| (c.at.index, c.at.place));
        let before_on_reservation = if change.id.is_some() { before } else { None };
        let change = Change { before_on_product, before_on_reservation, ..change };
        self.run.watched.iter_mut().filter(|w| w.consumer == 0).for_each(|w| w.changes.push(change.clone()));
    }

    /// The whole feed.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.run.watched[0].changes
    }

    /// What a consumer was told.
    pub(crate) fn watch(&mut self, consumer: u32, began: &str, behind: Vec<(u32, u64)>, changes: Vec<Change>) {
        let (began, ended) = (began.to_owned(), "stopped".to_owned());
        let watched = Watched { consumer, node: 1, began, behind, from_ms: 0, to_ms: 0, changes, ended };
        self.run.watched.push(watched);
    }

    fn change(&self, name: &str) -> Change {
        Change {
            at: At { shard: 1, index: 0, place: 0, term: 1 },
            time_ms: 0,
            name: name.into(),
            id: None,
            lines: vec![],
            given_back: vec![],
            offer: None,
            number: None,
            after: None,
            reference: None,
            deadline_ms: None,
            before_on_product: None,
            before_on_further: vec![],
            before_on_reservation: None,
        }
    }

    /// What the feed tells of a reserve, if it comes next.
    pub(crate) fn change_of(&self, op: &Op, id: &str, after: Units) -> Change {
        let Op::Reserve { lines, hold_ms, .. } = op else { panic!("only of a reserve") };
        Change {
            id: Some(id.to_owned()),
            lines: lines.iter().map(|line| ChangedLine { line: line.clone(), after }).collect(),
            deadline_ms: Some(EPOCH_MS + self.time_ms + 10 + hold_ms.expect("named")),
            ..self.change("InventoryReserved")
        }
    }

    /// What a reserve of so long a hold tells, if it comes next.
    pub(crate) fn held(&self, hold_ms: u64) -> Told {
        let now = EPOCH_MS + self.time_ms + 10;
        Told::Reservation { state: State::Held, deadline_ms: now + hold_ms, reserved_at_ms: now }
    }

    /// A reserve and its id; everybody uses a key of their own.
    pub(crate) fn reserve_op(&self, name: &str, quantity: u32, hold_ms: u64) -> (Op, String) {
        let id = self.id(name);
        (reserve(&id, quantity, name, hold_ms), id)
    }

    /// The product is created.
    pub(crate) fn create(&mut self, terms: Terms) {
        let change = Change { offer: Some(plain()), ..self.change("ProductCreated") };
        self.ok(Op::CreateProduct { sku: SKU.into(), terms }, Told::Offer { version: 1 }, Some(change));
    }

    /// Units are received; nothing else has them yet.
    pub(crate) fn receive(&mut self, units: u64, reference: &str) {
        let had: u64 =
            self.changes().iter().filter(|c| c.name == "UnitsReceived").map(|c| c.number.unwrap() as u64).sum();
        let after = Units { available: had + units, held: 0, sold: 0 };
        let change = Change {
            offer: Some(plain()),
            number: Some(units as i64),
            after: Some(after),
            reference: Some(reference.into()),
            ..self.change("UnitsReceived")
        };
        let op = Op::Receive { offer: plain(), units, reference: reference.into() };
        self.ok(op, Told::Stocked { units: after, version: 1 }, Some(change));
    }

    /// The position of an event.
    pub(crate) fn at_of(&mut self, event: usize) -> &mut At {
        match &mut self.run.events[event].answer {
            Answer::Ok { at: Some(at), .. } | Answer::Refused { at: Some(at), .. } => at,
            other => panic!("{other:?} has no position"),
        }
    }

    /// At the end an id is read as one that held so many units from then on, until they expired.
    pub(crate) fn expired_at_the_end(&mut self, id: &str, quantity: u32, reserved_at_ms: u64, hold_ms: u64) {
        self.run.ids.push(FinalId {
            id: id.into(),
            state: "expired".into(),
            reserved_at_ms: Some(reserved_at_ms),
            deadline_ms: Some(reserved_at_ms + hold_ms),
            ended_at_ms: Some(reserved_at_ms + hold_ms),
            lines: vec![FinalLine { line: line(quantity), sold: 0, returned: 0 }],
            no: None,
        });
    }

    /// What is known at the end of the id that a name stands for.
    pub(crate) fn final_id(&mut self, name: &str) -> &mut FinalId {
        let id = self.id(name);
        self.run.ids.iter_mut().find(|f| f.id == id).expect("it was read")
    }
}

/// Three units received, `a` sold, `b` held and expired, `c` refused: a run in which everything holds.
pub(crate) fn good() -> Made {
    let mut made = Made::new();
    made.create(terms());
    made.receive(3, "opening");
    let units = |available, held, sold| Units { available, held, sold };

    let (id_a, id_b, id_c) = (made.id("a"), made.id("b"), made.id("c"));
    let a = reserve(&id_a, 1, "anna", 1_000);
    let (told, change) = (made.held(1_000), made.change_of(&a, &id_a, units(2, 1, 0)));
    made.ok(a, told.clone(), Some(change));
    let Told::Reservation { deadline_ms: due_a, reserved_at_ms: from_a, .. } = told else { unreachable!() };

    let b = reserve(&id_b, 1, "anna", 500);
    let (told, change) = (made.held(500), made.change_of(&b, &id_b, units(1, 2, 0)));
    made.ok(b, told.clone(), Some(change));
    let Told::Reservation { deadline_ms: due_b, reserved_at_ms: from_b, .. } = told else { unreachable!() };

    let no = No::SoldOut { offer: plain(), out: Out::Open { available: 1 } };
    made.refused(reserve(&id_c, 2, "carl", 100), no.clone());

    let confirmed = Change {
        id: Some(id_a.clone()),
        lines: vec![ChangedLine { line: line(1), after: units(1, 1, 1) }],
        ..made.change("ReservationConfirmed")
    };
    let told = Told::Reservation { state: State::Confirmed, deadline_ms: due_a, reserved_at_ms: from_a };
    let sold_at = EPOCH_MS + made.time_ms + 10;
    made.ok(Op::Confirm { id: id_a.clone(), lines: None }, told, Some(confirmed));

    made.wait(1_000);
    let expired = Change {
        id: Some(id_b.clone()),
        lines: vec![ChangedLine { line: line(1), after: units(2, 0, 1) }],
        deadline_ms: Some(due_b),
        ..made.change("ReservationExpired")
    };
    made.tell(expired);

    let id = |id: &str, state: &str| FinalId {
        id: id.into(),
        state: state.into(),
        reserved_at_ms: None,
        deadline_ms: None,
        ended_at_ms: None,
        lines: vec![],
        no: None,
    };
    let reserved = |id: FinalId, from, due, ended, sold| FinalId {
        reserved_at_ms: Some(from),
        deadline_ms: Some(due),
        ended_at_ms: Some(ended),
        lines: vec![FinalLine { line: line(1), sold, returned: 0 }],
        ..id
    };
    made.run.ids = vec![
        reserved(id(&id_a, "confirmed"), from_a, due_a, sold_at, 1),
        reserved(id(&id_b, "expired"), from_b, due_b, due_b, 0),
        FinalId { no: Some(no), ..id(&id_c, "refused") },
    ];
    let offers = vec![FinalOffer { sale: None, units: units(2, 0, 1) }];
    let stock = |node| FinalStock {
        node,
        sku: SKU.into(),
        index: 9,
        received: 3,
        adjusted: 0,
        returned: 0,
        offers: offers.clone(),
    };
    made.run.stock = (1..=3).map(stock).collect();
    made
}
