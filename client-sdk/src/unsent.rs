//! Calls that wait for the connection to take them, encoded in frames.
//!
//! **What it is.** One frame that is filling, and closed ones behind which no call is added. A call
//! whose caller has gone, or whose time is up, is *dead*: it is left out when its frame is taken,
//! and its bytes are given back when most calls here are dead.
//!
//! **Owns** the bytes of calls that were not sent, and their bound. **Must never** give out a dead
//! call. **Read next**: [`crate::lane`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use ledger_core::Command;
use ledger_proto::fast;

use crate::limits;

/// Where a call's answer goes, and where its bytes end in the frame.
#[derive(Debug, Clone, Copy)]
struct Framed {
    place: u32,
    generation: u32,
    end: u32,
}

struct Frame {
    bytes: Bytes,
    calls: Vec<Framed>,
    /// The order behind its last call.
    behind: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Unsent {
    filling: BytesMut,
    filling_calls: Vec<Framed>,
    closed: VecDeque<Frame>,
    /// Lists of closed frames that were taken, to be filled again.
    spare: Vec<Vec<Framed>>,
    calls: usize,
    dead: usize,
    closed_bytes: usize,
}

impl Unsent {
    /// Adds a call to the filling frame; `next` is the order behind it. False, and nothing is
    /// added, for commands that only nodes propose.
    pub(crate) fn put(
        &mut self,
        (place, generation): (u32, u32),
        next: u64,
        within_ms: u32,
        command: &Command,
    ) -> bool {
        let tag = u64::from(generation) << 32 | u64::from(place);
        if !fast::put_call(&mut self.filling, tag, within_ms, command) {
            return false;
        }
        self.calls += 1;
        self.filling_calls.push(Framed { place, generation, end: self.filling.len() as u32 });
        if self.filling_calls.len() >= limits::FRAME_CALLS || self.filling.len() >= limits::FRAME_BYTES {
            self.close_frame(next);
        }
        true
    }

    /// Whether no call waits, dead or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls == 0
    }
    /// Whether a frame is full.
    pub(crate) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }
    pub(crate) fn bytes(&self) -> usize {
        self.closed_bytes + self.filling.len()
    }

    /// No call is added to the filling frame any more.
    pub(crate) fn close_frame(&mut self, behind: u64) {
        if self.filling_calls.is_empty() {
            return;
        }
        let calls = std::mem::replace(&mut self.filling_calls, self.spare.pop().unwrap_or_default());
        let bytes = self.filling.split().freeze();
        self.closed_bytes += bytes.len();
        self.closed.push_back(Frame { bytes, calls, behind });
    }

    /// Takes the oldest closed frame without its dead calls, and the order behind it. No bytes: all
    /// its calls were dead.
    pub(crate) fn take(&mut self, is_live: impl Fn(u32, u32) -> bool) -> Option<(Bytes, u64)> {
        let Frame { mut bytes, mut calls, behind } = self.closed.pop_front()?;
        self.closed_bytes -= bytes.len();
        self.calls -= calls.len();
        if self.dead > 0 {
            let before = calls.len();
            let live = live(&bytes, &mut calls, &is_live);
            if calls.len() < before {
                bytes = live.freeze();
                self.dead -= before - calls.len();
            }
        }
        if self.spare.len() < SPARE_MAX {
            calls.clear();
            self.spare.push(calls);
        }
        Some((bytes, behind))
    }

    /// So many calls here have died.
    pub(crate) fn died(&mut self, calls: usize, is_live: impl Fn(u32, u32) -> bool) {
        self.dead += calls;
        // Each call is copied so seldom that dying costs a constant.
        if self.dead * 2 > self.calls {
            self.compact(is_live);
        }
    }

    fn compact(&mut self, is_live: impl Fn(u32, u32) -> bool) {
        for frame in &mut self.closed {
            frame.bytes = live(&frame.bytes, &mut frame.calls, &is_live).freeze();
        }
        self.closed.retain(|frame| !frame.calls.is_empty());
        self.filling = live(&self.filling, &mut self.filling_calls, &is_live);
        self.closed_bytes = self.closed.iter().map(|frame| frame.bytes.len()).sum();
        self.calls = self.closed.iter().map(|frame| frame.calls.len()).sum::<usize>() + self.filling_calls.len();
        self.dead = 0;
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Lists kept to be filled again: one frame fills while another is taken.
const SPARE_MAX: usize = 2;

/// The bytes of the calls that live; the others leave the list.
fn live(bytes: &[u8], calls: &mut Vec<Framed>, is_live: impl Fn(u32, u32) -> bool) -> BytesMut {
    let (mut kept, mut begin) = (BytesMut::new(), 0);
    calls.retain_mut(|call| {
        let of_call = begin..call.end as usize;
        begin = of_call.end;
        let lives = is_live(call.place, call.generation);
        if lives {
            kept.extend_from_slice(&bytes[of_call]);
            call.end = kept.len() as u32;
        }
        lives
    });
    kept
}
