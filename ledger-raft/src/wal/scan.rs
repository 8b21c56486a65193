//! Tells whole, torn and rotten rounds of one segment apart.
//!
//! **What it is.** Pure functions over the classified blocks of a file. The reasoning is in the header of [`super`].
//!
//! **Owns** that verdict. **Must never** read a disk, or look inside a record.
//!
//! **Read next**: [`super::replay`].

use super::frame::{BLOCK_PAYLOAD, Block, STAMP_BYTES, Stamp, classify};
use super::limits::{BLOCK_BYTES, SECTOR_BLOCKS};

/// The classified blocks of a file.
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    /// The newest generation found; the file belongs to it. None: never used.
    pub(crate) generation: Option<u32>,
    /// Whether any block anywhere is rotten; such a file is not used again.
    pub(crate) any_bad: bool,
}

/// One round that was acknowledged, or may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// First block.
    pub(crate) start: usize,
    /// Blocks with payload.
    pub(crate) payload_blocks: usize,
    /// First of those that is not what was written, if any.
    pub(crate) rotten: Option<usize>,
}

/// A step through a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A round to read, as far as its blocks are good.
    Round(Span),
    /// From this block to that one everything is lost; what was there is not known.
    Lost(usize, usize),
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// In order.
    pub(crate) steps: Vec<Step>,
    /// Block behind the last round that counts.
    pub(crate) end: usize,
    /// The last round's number.
    pub(crate) last_round: Option<u64>,
    /// Whether a torn round was cut off behind the end.
    pub(crate) torn: bool,
}

impl Blocks {
    pub(crate) fn classify(bytes: &[u8]) -> Self {
        let blocks: Vec<Block> =
            bytes.chunks_exact(BLOCK_BYTES).enumerate().map(|(i, b)| classify(b, i as u32)).collect();
        let generation =
            blocks.iter().filter_map(|b| if let Block::Good(s) = b { Some(s.generation) } else { None }).max();
        let any_bad = blocks.contains(&Block::Bad);
        Self { blocks, generation, any_bad }
    }

    fn current(&self, at: usize) -> Option<Stamp> {
        match self.blocks.get(at) {
            Some(Block::Good(s)) if Some(s.generation) == self.generation => Some(*s),
            _ => None,
        }
    }

    /// Walks the rounds. `sealed` is where a later segment says this one ends: up to there all was acknowledged and
    /// nothing can be torn; beyond nothing counts.
    pub(crate) fn walk(&self, sealed: Option<usize>) -> Walk {
        let limit = sealed.unwrap_or(self.blocks.len()).min(self.blocks.len());
        let mut walk = Walk::default();
        let mut at = 0;
        while at < limit {
            let Some((found, stamp)) = (at..limit).find_map(|b| self.current(b).map(|s| (b, s))) else {
                self.finish(&mut walk, at, sealed);
                return walk;
            };
            let start = found.saturating_sub(usize::from(stamp.index));
            if start > at {
                walk.steps.push(Step::Lost(at, start));
                at = start;
                walk.end = at;
                continue;
            }
            let payload = usize::from(stamp.payload_blocks);
            let next = start + payload.next_multiple_of(SECTOR_BLOCKS);
            let same = |b: usize| self.current(b).is_some_and(|s| s.round == stamp.round);
            let rotten = (start..start + payload).find(|b| !same(*b));
            if rotten.is_some() && sealed.is_none() {
                // An acknowledged round has no block with older content. One that has, and nothing behind it, is torn.
                let unwritten = (start..start + payload).any(|b| !same(b) && self.blocks.get(b) != Some(&Block::Bad));
                let followed = (next..self.blocks.len()).any(|b| self.current(b).is_some());
                if (unwritten && !followed) || crate::bad!("rotten-as-torn") {
                    walk.torn = true;
                    return walk;
                }
            }
            walk.steps.push(Step::Round(Span { start, payload_blocks: payload, rotten }));
            walk.last_round = Some(stamp.round);
            at = next.max(at + SECTOR_BLOCKS);
            walk.end = at;
        }
        if sealed.is_some_and(|s| s > self.blocks.len()) {
            walk.steps.push(Step::Lost(walk.end, walk.end));
        }
        walk
    }

    /// No block of this generation from `at` on.
    fn finish(&self, walk: &mut Walk, at: usize, sealed: Option<usize>) {
        let lost_to = match sealed {
            Some(end) => end,
            // Neither the old content nor a new one: somebody wrote here and it went bad. Nothing proves that it was not acknowledged.
            None if self.blocks.get(at) == Some(&Block::Bad) => at + SECTOR_BLOCKS,
            None => return,
        };
        walk.steps.push(Step::Lost(at, lost_to));
        walk.end = lost_to;
    }

    /// Cuts a round into whole stretches of payload, each from the first record that begins in it, and the rotten blocks
    /// between them, in order.
    pub(crate) fn stretches(&self, span: Span, bytes: &[u8], mut each: impl FnMut(Part<'_>)) {
        let mut current = Stretch::default();
        let mut after_loss = false;
        for b in span.start..span.start + span.payload_blocks {
            let Some(stamp) = self.current(b).filter(|s| usize::from(s.index) == b - span.start) else {
                current.cut = true;
                if !current.payload.is_empty() {
                    each(Part::Whole(&current));
                }
                current = Stretch::default();
                if !std::mem::replace(&mut after_loss, true) {
                    each(Part::Rotten(b));
                }
                continue;
            };
            let mut from = 0;
            if after_loss {
                from = usize::from(stamp.first_record);
                if from >= BLOCK_PAYLOAD {
                    continue;
                }
                after_loss = false;
            }
            if current.payload.is_empty() {
                current.block = b;
                current.skipped = from;
            }
            let payload = &bytes[b * BLOCK_BYTES + STAMP_BYTES..(b + 1) * BLOCK_BYTES];
            current.payload.extend_from_slice(payload.get(from..usize::from(stamp.used)).unwrap_or(&[]));
        }
        if !current.payload.is_empty() {
            each(Part::Whole(&current));
        }
    }

    /// The payload of the first block, if the segment's first round begins with a good one.
    pub(crate) fn first_payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let stamp = self.current(0).filter(|s| s.index == 0)?;
        bytes.get(STAMP_BYTES..STAMP_BYTES + usize::from(stamp.used))
    }
}

/// A part of a round.
pub(crate) enum Part<'a> {
    /// Records.
    Whole(&'a Stretch),
    /// From this block on something is lost.
    Rotten(usize),
}

/// Payload of consecutive good blocks, beginning with a record.
#[derive(Default)]
pub(crate) struct Stretch {
    block: usize,
    skipped: usize,
    /// The bytes.
    pub(crate) payload: Vec<u8>,
    /// Whether a bad block follows, so that the last record may run into it.
    pub(crate) cut: bool,
}

impl Stretch {
    /// Where in the file a payload byte lies.
    pub(crate) fn offset(&self, at: usize) -> u32 {
        let absolute = self.skipped + at;
        let block = self.block + absolute / BLOCK_PAYLOAD;
        (block * BLOCK_BYTES + STAMP_BYTES + absolute % BLOCK_PAYLOAD) as u32
    }
}
