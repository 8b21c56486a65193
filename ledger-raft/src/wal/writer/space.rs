//! Space for the writer: free bytes of the disk, the spare segments, and who may still begin one.
//!
//! **Owns** the decision when appends are withheld for want of space and when a spare is allocated.
//! **Must never** hand the last spare to an append that no vote waits behind, or take a full disk
//! for a failed one.

use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use super::super::limits::{SPACE_CHECK, SPACE_POLL, SPARES_RESERVED};
use super::super::segment::{SpareMade, path_of};
use super::Writer;

impl Writer {
    /// Whether an append may begin a segment: the last spare only if a vote vouches for it and another can be made.
    pub(in crate::wal) fn may_begin_segment(&self, vouched: bool) -> bool {
        self.spares.len() > SPARES_RESERVED || (vouched && self.free >= self.config.segment_bytes)
    }

    /// Whether appends are withheld.
    pub(super) fn is_short(&self) -> bool {
        self.low || self.starved
    }

    /// Spares that are missing for the next votes and starts, while the disk has no room for them.
    pub(in crate::wal) fn spares_lacking(&self) -> usize {
        if self.may_allocate() { 0 } else { SPARES_RESERVED.saturating_sub(self.spares.len()) }
    }

    pub(super) fn spares_wanted(&self) -> usize {
        self.config.spare_segments.max(SPARES_RESERVED + 1)
    }

    /// There may be spares again.
    pub(super) fn fed(&mut self) {
        self.starved &= self.spares.len() <= SPARES_RESERVED;
        self.stuck &= self.spares.is_empty();
        if self.may_begin_segment(true) {
            self.waiting.unbar();
        }
        self.publish_low();
    }

    pub(super) fn check_space(&mut self, now: Duration) {
        if now < self.space_due {
            return;
        }
        match self.disk.free_bytes(&self.dir) {
            Ok(free) => self.free = free,
            Err(e) => tracing::warn!(error = %e, "free space of the log's disk is not known"),
        }
        let was = mem::replace(&mut self.low, self.free < self.config.low_space_bytes);
        if was != self.low {
            self.carry.due = true;
            tracing::warn!(free = self.free, mark = self.config.low_space_bytes, low = self.low, "log disk space");
        }
        self.fed();
        let hurry = self.low || self.starved || self.stuck;
        self.space_due = now + if hurry { SPACE_POLL } else { SPACE_CHECK };
    }

    /// Tells the callers. A spare on its way is not low space, only a short wait.
    pub(super) fn publish_low(&self) {
        let low = self.low || ((self.starved || self.stuck) && !self.allocating && !self.may_allocate());
        self.shared.low.send_if_modified(|before| mem::replace(before, low) != low);
    }

    /// Room for one more segment above the mark, or for the reserve below it.
    pub(super) fn may_allocate(&self) -> bool {
        let above = self.config.segment_bytes.saturating_add(self.config.low_space_bytes);
        self.free >= above || (self.spares.len() < SPARES_RESERVED && self.free >= self.config.segment_bytes)
    }

    /// The file to allocate next, off the path of rounds; answered by [`Self::spare_made`].
    pub(crate) fn wants_spare(&mut self, now: Duration) -> Option<(PathBuf, u64)> {
        let wanted = self.spares.len() < self.spares_wanted();
        if !wanted
            || self.allocating
            || self.poisoned.is_some()
            || now < self.allocate_not_before
            || !self.may_allocate()
        {
            return None;
        }
        self.allocating = true;
        self.next_slot += 1;
        Some((path_of(&self.dir, self.next_slot - 1), self.config.segment_bytes))
    }

    /// An allocation has ended. Out of space is a state, not a failure.
    pub(crate) fn spare_made(&mut self, (path, made): SpareMade, now: Duration) {
        self.allocating = false;
        match made {
            Ok(spare) => {
                self.spares.push(spare);
                self.publish_size();
            }
            Err(e) => {
                tracing::warn!(file = %path.display(), error = %e, "no new log segment");
                self.allocate_not_before = now + SPACE_POLL;
                self.free = 0;
                self.space_due = now;
            }
        }
        self.fed();
    }
}
