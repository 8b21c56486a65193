//! What may be sent now, and how far everything is confirmed.
//!
//! **What it is.** A pure state machine between the feed's frames and the broker's verdicts. Events wait in *lanes*, one a slot; of each
//! lane at most `per_lane` are in flight, the first ones. A [`Checkpoint`] comes out when every event of its frame and of all frames before
//! it is confirmed.
//!
//! Why lanes: with several messages of one product in flight, a broker that refuses the first and takes the second (a full queue that
//! rejects) has them in the wrong order, and no resending mends it. With one, a consumer that drops doubles by id sees each product's
//! events in order, whatever fails.
//!
//! **Owns** order, what is in flight, checkpoints. **Must never** let a checkpoint pass an unconfirmed event, or reorder a lane.
//! **Read next**: [`crate::bridge`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use client_sdk::{Cursor, LedgerTime, Slot};

use crate::event::{Counted, Event};
use crate::limits;

/// Names one event while it waits: its number in the feed of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where to go on once everything before it is confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Behind the frame.
    pub cursor: Cursor,
    /// For the ids of what follows.
    pub counted: Counted,
    /// Ledger time up to which all was told, as far as the frame says.
    pub through: LedgerTime,
}

struct Frame {
    unconfirmed: usize,
    checkpoint: Checkpoint,
}

struct Pending {
    event: Arc<Event>,
    frame: u64,
    in_flight: bool,
    sent_before: bool,
}

/// An event to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// To name it in the verdict.
    pub ticket: Ticket,
    /// What to send.
    pub event: Arc<Event>,
    /// It was sent before, on this connection or another.
    pub again: bool,
}

/// Invariants: an event is in `pending`, in its lane, and counted in its frame exactly while it is not confirmed; `ready` are those among the first
/// `per_lane` of their lanes that are not in flight; frames leave in the order they came.
pub struct Window {
    unconfirmed_max: usize,
    per_lane: usize,
    frames: VecDeque<Frame>,
    /// Number of the first of `frames`.
    first_frame: u64,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    lanes: BTreeMap<Slot, VecDeque<u64>>,
    ready: BTreeSet<u64>,
    in_flight: usize,
    bytes: usize,
}

impl Window {
    /// Empty. At most `unconfirmed_max` events are in flight, `per_lane` of one slot; both at least one.
    pub fn new(unconfirmed_max: usize, per_lane: usize) -> Self {
        Self {
            unconfirmed_max: unconfirmed_max.clamp(1, limits::UNCONFIRMED_MAX),
            per_lane: per_lane.max(1),
            frames: VecDeque::new(),
            first_frame: 0,
            next: 0,
            pending: BTreeMap::new(),
            lanes: BTreeMap::new(),
            ready: BTreeSet::new(),
            in_flight: 0,
            bytes: 0,
        }
    }

    /// Whether another frame may come; else the feed waits.
    pub fn has_room(&self) -> bool {
        self.pending.len() < limits::WAITING_EVENTS
            && self.bytes < limits::WAITING_BYTES
            && self.frames.len() < limits::WAITING_EVENTS
    }

    /// Takes a frame's events, in order, and the checkpoint behind them.
    pub fn admit(&mut self, events: Vec<Event>, checkpoint: Checkpoint) {
        let frame = self.first_frame + self.frames.len() as u64;
        self.frames.push_back(Frame { unconfirmed: events.len(), checkpoint });
        for event in events {
            let ticket = self.next;
            self.next += 1;
            self.bytes += event.body.len();
            let lane = self.lanes.entry(event.lane).or_default();
            if lane.len() < self.per_lane {
                self.ready.insert(ticket);
            }
            lane.push_back(ticket);
            self.pending
                .insert(ticket, Pending { event: Arc::new(event), frame, in_flight: false, sent_before: false });
        }
    }

    /// What is to be sent now, in order; it counts as in flight from here on.
    pub fn take(&mut self) -> Vec<Outgoing> {
        let mut batch = Vec::new();
        while batch.len() < limits::BATCH && self.in_flight < self.unconfirmed_max {
            let Some(ticket) = self.ready.pop_first() else { break };
            let pending = self.pending.get_mut(&ticket).expect("what is ready is pending");
            batch.push(Outgoing { ticket: Ticket(ticket), event: pending.event.clone(), again: pending.sent_before });
            (pending.in_flight, pending.sent_before) = (true, true);
            self.in_flight += 1;
        }
        batch
    }

    /// The broker has it for good.
    pub fn confirmed(&mut self, Ticket(ticket): Ticket) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        assert!(pending.in_flight, "event {ticket} is confirmed and was not in flight");
        self.in_flight -= 1;
        self.bytes -= pending.event.body.len();
        self.frames[(pending.frame - self.first_frame) as usize].unconfirmed -= 1;
        let lane = self.lanes.get_mut(&pending.event.lane).expect("a pending event has a lane");
        let place = lane.iter().take(self.per_lane).position(|&other| other == ticket);
        lane.remove(place.expect("what was in flight is among the first of its lane"));
        // Those in flight are the first of their lane: whoever moved up to the last place that may be is the only one that is new there.
        if let Some(&up) = lane.get(self.per_lane - 1)
            && !self.pending[&up].in_flight
        {
            self.ready.insert(up);
        }
        if lane.is_empty() {
            self.lanes.remove(&pending.event.lane);
        }
    }

    /// The broker did not take it: it is sent again.
    pub fn refused(&mut self, Ticket(ticket): Ticket) {
        let Some(pending) = self.pending.get_mut(&ticket) else { return };
        assert!(pending.in_flight, "event {ticket} is refused and was not in flight");
        pending.in_flight = false;
        self.in_flight -= 1;
        self.ready.insert(ticket);
    }

    /// Nobody knows what became of what was in flight: all of it is sent again.
    pub fn disconnected(&mut self) {
        for (&ticket, pending) in self.pending.iter_mut().filter(|(_, pending)| pending.in_flight) {
            pending.in_flight = false;
            self.ready.insert(ticket);
        }
        self.in_flight = 0;
    }

    /// The newest checkpoint before which everything is confirmed, once.
    pub fn settled(&mut self) -> Option<Checkpoint> {
        let mut newest = None;
        while self.frames.front().is_some_and(|frame| frame.unconfirmed == 0) {
            newest = self.frames.pop_front().map(|frame| frame.checkpoint);
            self.first_frame += 1;
        }
        newest
    }

    /// Whether [`Window::take`] would give something.
    pub fn may_send(&self) -> bool {
        self.in_flight < self.unconfirmed_max && !self.ready.is_empty()
    }
    /// Sent and without a verdict.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
    /// Not confirmed, sent or not.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }
    /// When the oldest unconfirmed event of the feed happened.
    pub fn oldest(&self) -> Option<LedgerTime> {
        self.pending.first_key_value().map(|(_, pending)| pending.event.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(lane: u16, id: &str) -> Event {
        let lane = Slot::new(lane).expect("a slot");
        let text = String::new;
        Event { id: id.into(), kind: text(), routing_key: text(), body: "x".into(), time: LedgerTime(1), lane }
    }
    fn frame(window: &mut Window, n: u64, events: &[(u16, &str)]) {
        let events = events.iter().map(|&(lane, id)| event(lane, id)).collect();
        window.admit(events, Checkpoint { through: LedgerTime(n), ..Checkpoint::default() });
    }
    fn taken(window: &mut Window) -> Vec<(String, u64, bool)> {
        window.take().into_iter().map(|out| (out.event.id.clone(), out.ticket.0, out.again)).collect()
    }
    fn ids(window: &mut Window) -> Vec<String> {
        taken(window).into_iter().map(|(id, ..)| id).collect()
    }
    fn settled(window: &mut Window) -> Option<u64> {
        window.settled().map(|checkpoint| checkpoint.through.0)
    }

    #[test]
    fn one_of_a_lane_is_in_flight_and_lanes_do_not_wait_for_each_other() {
        let mut window = Window::new(8, 1);
        frame(&mut window, 1, &[(1, "a"), (1, "b"), (2, "c"), (1, "d")]);
        assert_eq!(ids(&mut window), ["a", "c"]);
        assert!(ids(&mut window).is_empty());
        window.confirmed(Ticket(2));
        assert!(ids(&mut window).is_empty(), "lane 1 still waits for a");
        window.confirmed(Ticket(0));
        assert_eq!(ids(&mut window), ["b"]);
        assert_eq!((window.in_flight(), window.waiting()), (1, 2));
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut window = Window::new(2, 1);
        frame(&mut window, 1, &[(1, "a"), (2, "b"), (3, "c")]);
        assert_eq!(ids(&mut window), ["a", "b"]);
        window.confirmed(Ticket(1));
        assert_eq!(ids(&mut window), ["c"]);
    }

    #[test]
    fn a_checkpoint_waits_for_every_event_before_it() {
        let mut window = Window::new(8, 1);
        frame(&mut window, 1, &[(1, "a")]);
        frame(&mut window, 2, &[(2, "b")]);
        frame(&mut window, 3, &[]);
        frame(&mut window, 4, &[(3, "c")]);
        assert_eq!(ids(&mut window).len(), 3);
        window.confirmed(Ticket(1));
        assert_eq!(settled(&mut window), None, "a is not confirmed");
        window.confirmed(Ticket(0));
        assert_eq!(settled(&mut window), Some(3), "an empty frame behind them counts");
        assert_eq!(settled(&mut window), None, "told once");
        window.confirmed(Ticket(2));
        assert_eq!(settled(&mut window), Some(4));
        assert_eq!((window.waiting(), window.lanes.len(), window.bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_refused_or_lost_is_sent_again_before_what_follows_it() {
        let mut window = Window::new(8, 1);
        frame(&mut window, 1, &[(1, "a"), (1, "b"), (2, "c"), (2, "d")]);
        assert_eq!(ids(&mut window), ["a", "c"]);
        window.refused(Ticket(0));
        window.confirmed(Ticket(2));
        assert_eq!(taken(&mut window), [("a".into(), 0, true), ("d".into(), 3, false)]);
        window.disconnected();
        assert_eq!(window.in_flight(), 0);
        assert_eq!(taken(&mut window), [("a".into(), 0, true), ("d".into(), 3, true)]);
    }

    #[test]
    fn a_wider_lane_is_sent_in_order_and_again_from_its_first() {
        let mut window = Window::new(8, 2);
        frame(&mut window, 1, &[(1, "a"), (1, "b"), (1, "c"), (1, "d")]);
        assert_eq!(ids(&mut window), ["a", "b"]);
        window.confirmed(Ticket(1));
        assert_eq!(ids(&mut window), ["c"]);
        window.disconnected();
        assert_eq!(ids(&mut window), ["a", "c"]);
        window.confirmed(Ticket(0));
        window.confirmed(Ticket(2));
        assert_eq!(ids(&mut window), ["d"]);
    }

    #[test]
    fn the_feed_waits_when_enough_is_unconfirmed() {
        let mut window = Window::new(8, 1);
        while window.has_room() {
            frame(&mut window, 1, &[(1, "a"); 1_024]);
        }
        assert_eq!(window.waiting(), limits::WAITING_EVENTS);
    }
}
