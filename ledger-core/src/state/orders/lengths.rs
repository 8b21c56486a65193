//! How many orders stand in each queue: by the queues, and by the records.
//!
//! **Owns** the counts that the audit of a frozen view compares: there are no queues in it. **Must never** decide anything.
//! **Read next**: [`crate::audit`].

use super::{LANES, Order, Queues, Standing, lane_of};
use crate::order::Phase;

/// Orders by where they stand.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct QueueLengths {
    by_id: u64,
    strays: u64,
    ready: [u64; LANES],
    late: u64,
    late_suspects: u64,
    wakes: u64,
    leased: u64,
    parked: u64,
    awaiting: u64,
    open: u64,
    stray_done: u64,
}

impl Queues {
    /// How many orders the queues have.
    pub(crate) fn lengths(&self) -> QueueLengths {
        QueueLengths {
            by_id: self.by_id.len() as u64,
            strays: self.strays.len() as u64,
            ready: std::array::from_fn(|lane| self.lanes[lane].ready.len() as u64),
            late: self.late.len().max(self.late_since.len()) as u64,
            late_suspects: self.late_suspects,
            wakes: self.wakes.len() as u64,
            leased: self.leased,
            parked: self.parked.len() as u64,
            awaiting: self.awaiting,
            open: self.open,
            stray_done: self.stray_done.len() as u64,
        }
    }
}

impl QueueLengths {
    /// Counts an order where its record says that it stands.
    pub(crate) fn count(&mut self, order: &Order) {
        let add = |to: &mut u64, counts: bool| *to += u64::from(counts);
        self.by_id += 1;
        add(&mut self.strays, order.is_stray());
        match order.standing {
            Standing::Idle => {}
            Standing::Ready => {
                if let Some(step) = order.step() {
                    self.ready[lane_of(step.class(), order.suspect)] += 1;
                }
            }
            Standing::Late => {
                self.late += 1;
                add(&mut self.late_suspects, order.suspect);
            }
            Standing::Delayed => self.wakes += 1,
            Standing::Leased => {
                self.wakes += 1;
                self.leased += 1;
            }
        }
        add(&mut self.parked, order.phase() == Phase::Parked);
        add(&mut self.awaiting, order.phase() == Phase::AwaitingBuyer);
        add(&mut self.open, !order.is_finished());
        add(&mut self.stray_done, order.is_stray() && order.is_finished());
    }
}
