//! Orders and the queues they stand in.
//!
//! **What it is.** A record an order: what changes all the time in the record itself, what is read seldom in a part beside it that a frozen view
//! shares. Everything else here is derived: [`State::seat`] says where a record stands, and [`Queues`] hold just that.
//!
//! *Turns.* Ready work stands by (product, sequence of becoming ready) in one of four lanes (class, normal or suspect); a lane knows its products by the
//! turn at which each was served last, so the next one is its first. Products remember their turns, records their sequence.
//!
//! **Owns** the invariant that queues are a function of the records: every change goes through [`State::change_order`]. **Must never** decide what an order
//! becomes: `apply::orders` does. **Read next**: [`super::memory`].

mod lengths;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::State;
use super::due::in_a_tree;
use super::ids::Found;
use super::records::{Head, NONE};
use super::slab::{Placed, Slab};
pub(crate) use lengths::QueueLengths;

use crate::limits;
use crate::order::{
    ClientSecret, Ending, Money, ParkReason, Payment, PaymentState, Phase, ProviderId, QueueStats, Sealed, Step,
    WorkClass, WorkerId,
};
use crate::types::{LedgerTime, ReservationId, text_bytes};

/// Lanes of ready work: class times (normal, suspect).
pub(crate) const LANES: usize = 4;

/// Lanes of money, normal and suspect: what is put aside comes from them alone.
const MONEY_LANES: [usize; 2] = [0, 1];

/// The lane of a class.
pub(crate) fn lane_of(class: WorkClass, suspect: bool) -> usize {
    (class as usize - 1) * 2 + usize::from(suspect)
}

/// How an order stands to the queues; `Order::due` means what it says here. The numbers are frozen (snapshot, digest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// In no queue: nothing to be done, or nothing by a worker.
    Idle = 1,
    /// `due` is the sequence in which it became ready.
    Ready = 2,
    /// The same, and a claim has found too little time left to its payment deadline: put aside until one needs less.
    Late = 3,
    /// `due` is when it is ready again.
    Delayed = 4,
    /// `due` is when the lease ends.
    Leased = 5,
}

impl Standing {
    pub(crate) const ALL: [Self; 5] = [Self::Idle, Self::Ready, Self::Late, Self::Delayed, Self::Leased];
}

/// An order. Its digest covers all but the places, which are derived.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: [u8; 16],
    /// Of what was placed; zero of a stray.
    pub(crate) fingerprint: u64,
    pub(crate) placed_at: u64,
    /// When it was done; zero before.
    pub(crate) done_at: u64,
    /// Since when it is ready, while it is.
    pub(crate) ready_at: u64,
    pub(crate) due: u64,
    /// Fingerprint of the last report taken at this epoch; zero of none.
    pub(crate) reported: u64,
    /// Fingerprint of the last deed by hand; zero of none.
    pub(crate) by_hand: u64,
    /// Last change, of a stray: others have it at their reservation.
    pub(crate) head: Head,
    pub(crate) epoch: u32,
    pub(crate) attempts: u32,
    /// Leases of this step that ended without a report.
    pub(crate) lost: u32,
    /// Places: its reservation, the one a late payment was given, and its first line's product.
    pub(crate) reservation: u32,
    pub(crate) linked: u32,
    pub(crate) product: u32,
    pub(crate) phase: Option<Phase>,
    pub(crate) parked_from: Option<Phase>,
    pub(crate) ending: Ending,
    pub(crate) standing: Standing,
    pub(crate) suspect: bool,
    pub(crate) cold: Option<Arc<Cold>>,
}

/// What of an order is read seldom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cold {
    /// None of a stray: an order known by payments alone, without reservation.
    pub(crate) amount: Option<Money>,
    pub(crate) payment: Sealed,
    pub(crate) contact: Sealed,
    /// Hash of what is sealed, for the digest.
    pub(crate) sealed_hash: u64,
    pub(crate) intent: Option<ProviderId>,
    pub(crate) generation: u32,
    pub(crate) secret: Option<ClientSecret>,
    pub(crate) payments: Vec<Payment>,
    pub(crate) linked: Option<ReservationId>,
    /// Who has it, while leased.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) parked: Option<ParkReason>,
}

impl Cold {
    /// Takes what is sealed, with its hash.
    pub(crate) fn seal(&mut self, payment: Sealed, contact: Sealed) {
        let mut hash = Xxh3::new();
        hash.update(&(payment.as_bytes().len() as u64).to_le_bytes());
        hash.update(payment.as_bytes());
        hash.update(contact.as_bytes());
        (self.payment, self.contact, self.sealed_hash) = (payment, contact, hash.digest());
    }
    /// Adds a payment; nearly every order has one, and room for more would stay empty as long as the order is remembered.
    pub(crate) fn add_payment(&mut self, payment: Payment) {
        self.payments.reserve_exact(1);
        self.payments.push(payment);
    }
    /// Bytes it takes, with its counts of references.
    fn bytes(&self) -> u64 {
        let sealed = |sealed: &Sealed| match sealed.as_bytes().len() as u64 {
            0 => 0,
            // With its counts of references.
            len => len + 2 * size_of::<usize>() as u64,
        };
        let text = |id: Option<&ProviderId>| id.map_or(0, |id| text_bytes(id.as_str()));
        let payments = self.payments.iter().map(|p| text(Some(&p.id)) + text(p.refund.as_ref()));
        let texts = text(self.intent.as_ref()) + self.secret.as_ref().map_or(0, |secret| text_bytes(secret.as_str()));
        let fixed = size_of::<Self>() + 2 * size_of::<usize>() + self.payments.capacity() * size_of::<Payment>();
        fixed as u64 + sealed(&self.payment) + sealed(&self.contact) + texts + payments.sum::<u64>()
    }
    /// Whether money must go back.
    pub(crate) fn owes(&self) -> bool {
        self.payments.iter().any(|p| p.state == PaymentState::RefundDue)
    }
    /// Whether a payment pays for the order.
    pub(crate) fn keeps(&self) -> bool {
        self.payments.iter().any(|p| p.state == PaymentState::Kept)
    }
}

impl Order {
    pub(crate) fn id(&self) -> ReservationId {
        ReservationId::from_bytes(self.id).expect("only checked ids are stored")
    }
    pub(crate) fn phase(&self) -> Phase {
        self.phase.expect("present")
    }
    pub(crate) fn cold(&self) -> &Arc<Cold> {
        self.cold.as_ref().expect("present")
    }
    pub(crate) fn cold_mut(&mut self) -> &mut Cold {
        Arc::make_mut(self.cold.as_mut().expect("present"))
    }
    /// Known by payments alone.
    pub(crate) fn is_stray(&self) -> bool {
        self.cold().amount.is_none()
    }
    /// Payments about which nobody has decided: whoever parks their refund has them decided
    /// already.
    pub(crate) fn is_undecided(&self) -> bool {
        self.is_stray() && self.phase() == Phase::Parked && self.parked_from.is_none()
    }
    /// What a worker is to do next.
    pub(crate) fn step(&self) -> Option<Step> {
        step_in(self.phase(), || self.cold().owes())
    }
    /// Nothing left to do: its time to be forgotten runs.
    pub(crate) fn is_finished(&self) -> bool {
        self.phase() == Phase::Done && !self.cold().owes()
    }
}

/// The step of a phase, and whether money is owed.
pub(crate) fn step_in(phase: Phase, owes: impl Fn() -> bool) -> Option<Step> {
    match phase {
        Phase::Parked => None,
        Phase::Queued | Phase::Paying => Some(Step::Pay),
        _ if owes() => Some(Step::Refund),
        Phase::Settling => Some(Step::Settle),
        Phase::Sold | Phase::Released | Phase::Expired | Phase::Refunded => Some(Step::Notify),
        Phase::AwaitingBuyer | Phase::RefundDue | Phase::Done => None,
    }
}

impl Placed for Order {
    fn is_vacant(&self) -> bool {
        self.phase.is_none()
    }
    fn vacant() -> Self {
        Self {
            id: [0; 16],
            fingerprint: 0,
            placed_at: 0,
            done_at: 0,
            ready_at: 0,
            due: 0,
            reported: 0,
            by_hand: 0,
            head: Head::default(),
            epoch: 0,
            attempts: 0,
            lost: 0,
            reservation: NONE,
            linked: NONE,
            product: NONE,
            phase: None,
            parked_from: None,
            ending: Ending::Open,
            standing: Standing::Idle,
            suspect: false,
            cold: None,
        }
    }
}

/// Where the queues have an order: a function of its record, its deadline and its product's turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seat {
    None,
    Ready { lane: usize, product: u32, turn: u64, sequence: u64 },
    Late { deadline: u64, sequence: u64, suspect: bool },
    Wake { at: u64, leased: bool },
}

/// Ready work of one class, normal or suspect.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    /// By (product, sequence).
    ready: BTreeMap<(u32, u64), u32>,
    /// Products with ready work, by the turn at which they were served last.
    turns: BTreeSet<(u64, u32)>,
    /// The first sequence of each of them.
    heads: BTreeSet<(u64, u32)>,
}

impl Lane {
    fn head_of(&self, product: u32) -> Option<u64> {
        self.ready.range((product, 0)..=(product, u64::MAX)).next().map(|(&(_, sequence), _)| sequence)
    }
    fn add(&mut self, product: u32, turn: u64, sequence: u64, order: u32) {
        let before = self.head_of(product);
        assert!(self.ready.insert((product, sequence), order).is_none(), "one order a sequence: {sequence}");
        if before.is_none() {
            self.turns.insert((turn, product));
        }
        // Nearly always it goes behind all others, and the head stays.
        self.put_head(product, before, Some(before.map_or(sequence, |head| head.min(sequence))));
    }
    fn remove(&mut self, product: u32, turn: u64, sequence: u64) {
        let before = self.head_of(product);
        assert!(self.ready.remove(&(product, sequence)).is_some(), "{sequence} of product {product} is ready");
        let now = self.head_of(product);
        self.put_head(product, before, now);
        if now.is_none() {
            assert!(self.turns.remove(&(turn, product)), "product {product} has its turn at {turn}");
        }
    }
    fn put_head(&mut self, product: u32, before: Option<u64>, now: Option<u64>) {
        if now == before {
            return;
        }
        if let Some(before) = before {
            self.heads.remove(&(before, product));
        }
        if let Some(now) = now {
            self.heads.insert((now, product));
        }
    }
    /// The order whose turn it is.
    fn first(&self) -> Option<u32> {
        let &(_, product) = self.turns.first()?;
        self.ready.range((product, 0)..).next().map(|(_, &order)| order)
    }
    /// The product was served: from `before` its turn moves to `now`.
    fn serve(&mut self, product: u32, before: u64, now: u64) {
        if self.turns.remove(&(before, product)) {
            self.turns.insert((now, product));
        }
    }
}

/// All that is derived of orders.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    pub(crate) by_id: BTreeMap<[u8; 16], u32>,
    pub(crate) strays: BTreeMap<[u8; 16], u32>,
    pub(crate) lanes: [Lane; LANES],
    /// Ready, but too near to their payment deadline for the claims seen so far: by deadline.
    late: BTreeSet<(u64, u64, u32)>,
    /// The same by sequence: who waits longest.
    late_since: BTreeSet<(u64, u32)>,
    late_suspects: u64,
    /// Leases and delays by their time.
    wakes: BTreeMap<(u64, [u8; 16]), u32>,
    leased: u64,
    pub(crate) parked: BTreeSet<[u8; 16]>,
    awaiting: u64,
    pub(crate) open: u64,
    /// Strays that are done, by when.
    stray_done: BTreeSet<(u64, [u8; 16])>,
}

impl Queues {
    /// When the first of the strays that are done was done.
    pub(crate) fn first_stray_done(&self) -> Option<u64> {
        self.stray_done.first().map(|&(done_at, _)| done_at)
    }
    /// Ids known by payments alone that are not done.
    pub(crate) fn unfinished_strays(&self) -> usize {
        self.strays.len() - self.stray_done.len()
    }

    /// The first lease or delay: when it ends, and whose it is.
    pub(crate) fn first_wake(&self) -> Option<(u64, u32)> {
        self.wakes.first_key_value().map(|(&(at, _), &order)| (at, order))
    }

    /// The first lease or delay after one that is named by its time and order.
    pub(crate) fn wake_after(&self, after: Option<(u64, [u8; 16])>) -> Option<(u64, u32)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.wakes.range((from, Bound::Unbounded)).next().map(|(&(at, _), &order)| (at, order))
    }

    fn put(&mut self, order: &Order, at: u32, seat: Seat, present: bool) {
        match seat {
            Seat::None => {}
            Seat::Ready { lane, product, turn, sequence } if present => {
                self.lanes[lane].add(product, turn, sequence, at);
            }
            Seat::Ready { lane, product, turn, sequence } => self.lanes[lane].remove(product, turn, sequence),
            Seat::Late { deadline, sequence, suspect } => {
                set(&mut self.late, (deadline, sequence, at), present);
                set(&mut self.late_since, (sequence, at), present);
                count(&mut self.late_suspects, suspect, present);
            }
            Seat::Wake { at: time, leased } => {
                let key = (time, order.id);
                let before = if present { self.wakes.insert(key, at) } else { self.wakes.remove(&key) };
                assert_eq!(before.is_none(), present, "{} waits for {time} once", order.id());
                count(&mut self.leased, leased, present);
            }
        }
        if order.phase() == Phase::Parked {
            set(&mut self.parked, order.id, present);
        }
        if order.is_stray() && order.is_finished() {
            set(&mut self.stray_done, (order.done_at, order.id), present);
        }
        count(&mut self.awaiting, order.phase() == Phase::AwaitingBuyer, present);
        count(&mut self.open, !order.is_finished(), present);
    }

    fn index(&mut self, order: &Order, at: u32) {
        assert!(self.by_id.insert(order.id, at).is_none(), "{} is an order once", order.id());
        if order.is_stray() {
            self.strays.insert(order.id, at);
        }
    }
}

fn set<T: Ord + std::fmt::Debug + Copy>(of: &mut BTreeSet<T>, one: T, present: bool) {
    let changed = if present { of.insert(one) } else { of.remove(&one) };
    assert!(changed, "{one:?} is in its queue once");
}

fn count(of: &mut u64, counts: bool, present: bool) {
    if counts {
        *of = if present { *of + 1 } else { of.checked_sub(1).expect("only what was counted is taken out") };
    }
}

/// The orders of a shard.
pub(crate) struct Orders {
    pub(crate) records: Slab<Order>,
    /// The last sequence given to something ready.
    pub(crate) sequence: u64,
    /// The last turn given to a product.
    pub(crate) turns: u64,
    /// The turn at which strays were served last: together they take turns as one product does.
    pub(crate) stray_turn: u64,
    /// Orders given to workers, by class.
    pub(crate) given: [u64; 2],
    pub(crate) queues: Queues,
    /// Bytes of what is read seldom, of all records.
    cold_bytes: u64,
}

impl Orders {
    pub(crate) fn new() -> Self {
        Self {
            records: Slab::new(),
            sequence: 0,
            turns: 0,
            stray_turn: 0,
            given: [0; 2],
            queues: Queues::default(),
            cold_bytes: 0,
        }
    }
    pub(crate) fn get(&self, at: u32) -> &Order {
        self.records.get(at)
    }
    /// What a snapshot and the digest have of them beside the records: sequence, turns, given by class, turn of strays.
    pub(crate) fn counters(&self) -> [u64; 5] {
        [self.sequence, self.turns, self.given[0], self.given[1], self.stray_turn]
    }

    /// Bytes they take, about: an open order stands in two or three queues.
    pub(crate) fn bytes(&self) -> u64 {
        const BY_ID: usize = size_of::<([u8; 16], u32)>();
        const QUEUED: usize = size_of::<((u32, u64), u32)>() + size_of::<((u64, [u8; 16]), u32)>();
        let queues = in_a_tree(self.records.len() * BY_ID + self.queues.open as usize * QUEUED);
        self.records.bytes() + self.cold_bytes + queues as u64
    }
}

impl State {
    /// The order of an id: one that was placed, or else a stray.
    pub(crate) fn order_of(&self, id: ReservationId) -> Option<u32> {
        self.placed_order_of(id).or_else(|| self.stray_of(id))
    }

    /// The payments of an id that came without an order.
    pub(crate) fn stray_of(&self, id: ReservationId) -> Option<u32> {
        self.orders.queues.strays.get(id.as_bytes()).copied()
    }

    /// The order that was placed under an id.
    pub(crate) fn placed_order_of(&self, id: ReservationId) -> Option<u32> {
        if let Some(Found::Reservation(at)) = self.find(id) {
            let order = self.reservations.get(at).order;
            if order != NONE && self.orders.get(order).id == *id.as_bytes() {
                return Some(order);
            }
        }
        None
    }

    /// The payment deadline; zero of a stray.
    pub(crate) fn order_deadline(&self, order: &Order) -> u64 {
        if order.reservation == NONE { 0 } else { self.reservations.get(order.reservation).deadline }
    }

    /// Whether its hold is due and the sweep has not decided yet.
    pub(crate) fn is_unswept(&self, order: &Order) -> bool {
        order.phase().holds() && self.order_deadline(order) <= self.time
    }

    fn turn_of(&self, product: u32, lane: usize) -> u64 {
        if product == NONE { self.orders.stray_turn } else { self.products.get(product).turns[lane] }
    }

    /// Where it stands.
    pub(crate) fn seat(&self, order: &Order) -> Seat {
        match order.standing {
            Standing::Idle => Seat::None,
            Standing::Ready => {
                let class = order.step().expect("ready for a step").class();
                let (lane, product) = (lane_of(class, order.suspect), order.product);
                Seat::Ready { lane, product, turn: self.turn_of(product, lane), sequence: order.due }
            }
            Standing::Late => {
                let deadline = self.order_deadline(order);
                Seat::Late { deadline, sequence: order.due, suspect: order.suspect }
            }
            Standing::Delayed => Seat::Wake { at: order.due, leased: false },
            Standing::Leased => Seat::Wake { at: order.due, leased: true },
        }
    }

    fn put_order(&mut self, at: u32, present: bool) {
        let order = self.orders.get(at);
        let seat = self.seat(order);
        let Self { orders, .. } = self;
        let cold = orders.records.get(at).cold().bytes();
        orders.cold_bytes = if present { orders.cold_bytes + cold } else { orders.cold_bytes - cold };
        orders.queues.put(orders.records.get(at), at, seat, present);
        self.digest_order(at, present);
    }

    /// Whether nobody else stands where it would: for what is read from a snapshot.
    pub(crate) fn seat_is_free(&self, order: &Order) -> bool {
        let product = match order.reservation {
            NONE => NONE,
            at => self.offers.get(self.reservations.get(at).line.offer).product,
        };
        let q = &self.orders.queues;
        let is_free = |lane: usize| {
            let late = q.late_since.range((order.due, 0)..=(order.due, u32::MAX)).next();
            late.is_none() && !q.lanes[lane].ready.contains_key(&(product, order.due))
        };
        match order.standing {
            Standing::Ready => {
                let Some(step) = order.step() else { return false };
                is_free(lane_of(step.class(), order.suspect))
            }
            // It may be taken back to where it stood.
            Standing::Late => is_free(lane_of(WorkClass::Money, order.suspect)),
            _ => true,
        }
    }

    /// Adds an order: indexes it and puts it where its record says.
    pub(crate) fn add_order(&mut self, mut order: Order) -> u32 {
        if order.reservation != NONE {
            let first = self.reservations.get(order.reservation).line.offer;
            order.product = self.offers.get(first).product;
        }
        let (reservation, linked) = (order.reservation, order.linked);
        let at = self.orders.records.insert(order);
        for place in [reservation, linked] {
            if place != NONE {
                self.reservations.get_mut(place).order = at;
            }
        }
        let Orders { records, queues, .. } = &mut self.orders;
        queues.index(records.get(at), at);
        self.put_order(at, true);
        at
    }

    /// Makes a new order ready if there is a step to take, and adds it.
    pub(crate) fn add_new_order(&mut self, mut order: Order) -> u32 {
        self.make_ready(&mut order);
        self.add_order(order)
    }

    fn make_ready(&mut self, order: &mut Order) {
        match order.step() {
            None => order.standing = Standing::Idle,
            Some(_) if order.standing == Standing::Idle => {
                self.orders.sequence += 1;
                (order.standing, order.due, order.ready_at) = (Standing::Ready, self.orders.sequence, self.time);
            }
            // What holds nothing any more has no payment deadline to be late for.
            Some(_) if order.standing == Standing::Late && !order.phase().holds() => order.standing = Standing::Ready,
            Some(_) => {}
        }
        if order.standing == Standing::Idle {
            order.due = 0;
        }
        if !matches!(order.standing, Standing::Ready | Standing::Late) {
            order.ready_at = 0;
        }
        if order.standing != Standing::Leased && order.cold().worker.is_some() {
            order.cold_mut().worker = None;
        }
    }

    /// Changes an order, and all that follows from its record. When the step is another one afterwards, the lease or delay is over, attempts begin anew, and
    /// it is ready for that step. When it is done, what is sealed goes, and the time after which it is forgotten begins; when it is no longer, that ends.
    pub(crate) fn change_order(&mut self, at: u32, change: impl FnOnce(&mut Order)) {
        self.put_order(at, false);
        let places = [self.orders.get(at).reservation, self.orders.get(at).linked];
        let remembered = places.map(|place| self.remembered_as(place));
        let mut order = self.orders.records.replace(at);
        let (step, finished) = (order.step(), order.is_finished());
        change(&mut order);
        if order.step() != step {
            (order.attempts, order.lost, order.standing) = (0, 0, Standing::Idle);
        }
        self.make_ready(&mut order);
        let now_finished = order.is_finished();
        if now_finished && !finished {
            order.done_at = self.time;
            order.cold_mut().seal(Sealed::default(), Sealed::default());
        } else if !now_finished {
            order.done_at = 0;
        }
        *self.orders.records.get_mut(at) = order;
        for (place, before) in places.into_iter().zip(remembered) {
            if before != self.remembered_as(place) {
                before.into_iter().for_each(|before| self.leave_memory(before));
                self.remember(Found::Reservation(place));
            }
        }
        self.put_order(at, true);
    }

    /// Removes an order: its reservation is being forgotten, or it is a stray that is, or that an order takes the place of.
    pub(crate) fn remove_order(&mut self, at: u32) -> Order {
        self.put_order(at, false);
        let gone = self.orders.records.remove(at);
        self.orders.queues.by_id.remove(&gone.id);
        self.orders.queues.strays.remove(&gone.id);
        if gone.linked != NONE {
            // From now on it is remembered for its own sake.
            self.reservations.get_mut(gone.linked).order = NONE;
        }
        gone
    }

    /// A product, or strays, were served in a lane.
    pub(crate) fn serve(&mut self, product: u32, lane: usize) {
        self.orders.turns += 1;
        let now = self.orders.turns;
        let before = match product {
            NONE => std::mem::replace(&mut self.orders.stray_turn, now),
            _ => std::mem::replace(&mut self.product_mut(product).turns[lane], now),
        };
        self.orders.queues.lanes[lane].serve(product, before, now);
    }

    /// The first ready order of a lane by turns.
    pub(crate) fn first_ready(&self, lane: usize) -> Option<u32> {
        self.orders.queues.lanes[lane].first()
    }

    /// Of those put aside, the one whose payment deadline comes first at or after a time.
    pub(crate) fn first_late(&self, from: u64) -> Option<u32> {
        self.orders.queues.late.range((from, 0, 0)..).next().map(|&(_, _, order)| order)
    }

    /// Strays done at or before that time.
    pub(crate) fn first_stray_done(&self, to: u64) -> Option<u32> {
        let &(done_at, id) = self.orders.queues.stray_done.first()?;
        (done_at <= to).then(|| self.orders.queues.strays[&id])
    }

    /// Depth and age of the queues.
    pub(crate) fn queue_stats(&self) -> QueueStats {
        let q = &self.orders.queues;
        let ready = |lane: usize| q.lanes[lane].ready.len() as u64;
        let oldest = |lanes: [usize; 2]| {
            let first =
                |lane: usize| q.lanes[lane].heads.first().map(|&(sequence, p)| q.lanes[lane].ready[&(p, sequence)]);
            let late = q.late_since.first().filter(|_| lanes == MONEY_LANES).map(|&(_, at)| at);
            let times = lanes.into_iter().filter_map(first).chain(late).map(|at| self.orders.get(at).ready_at);
            times.min().map(LedgerTime)
        };
        let late = q.late.len() as u64;
        QueueStats {
            ready: [ready(0) + ready(1) + late, ready(2) + ready(3)],
            suspects: ready(1) + ready(3) + q.late_suspects,
            delayed: q.wakes.len() as u64 - q.leased,
            leased: q.leased,
            awaiting: q.awaiting,
            parked: q.parked.len() as u64,
            open: q.open,
            oldest_ready: [oldest(MONEY_LANES), oldest([2, 3])],
        }
    }

    /// The queues as the records have them, made anew: for the audit.
    pub(crate) fn queues_recounted(&self) -> Queues {
        let mut queues = Queues::default();
        for (at, order) in self.orders.records.iter() {
            queues.index(order, at);
            queues.put(order, at, self.seat(order), true);
        }
        queues
    }
}

const _: () = assert!(limits::SUSPECTS_EVERY > 1);
const _: () = assert!(size_of::<Order>() <= 136);
