//! What waits for the writer, and in which order it goes to the disk.
//!
//! **What it is.** Three queues: what was submitted; appends that are withheld for want of space; and votes made meanwhile, each
//! behind the withheld appends of its group. Consensus takes a durable vote, and the durable append after another, for a word on every
//! append of the group before it, so nothing here may overtake an append of its own group but what drops entries or leaves them alone.
//!
//! **Owns** that order. **Must never** know what space there is: [`super::writer`] says whether there is room.
//!
//! **Read next**: [`super::writer`].

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::frame::Kind;
use super::group::GroupMem;
use super::outcome::Told;
use super::shared::Op;

use crate::api::GroupId;

/// The queues.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) pending: VecDeque<Op>,
    /// Appends that wait for space.
    withheld: VecDeque<Op>,
    /// Votes, and before each the appends that were withheld when it came: these go out, space being low or not.
    vouching: VecDeque<Op>,
    /// There is no room for what is `vouching`.
    barred: bool,
}

impl Waiting {
    /// The next operation, and whether a vote vouches for it.
    pub(super) fn next(&mut self) -> Option<(Op, bool)> {
        let vouched = self.vouches();
        let from = if vouched { &mut self.vouching } else { &mut self.pending };
        Some((from.pop_front()?, vouched))
    }

    /// Puts back what [`Self::next`] gave.
    pub(super) fn put_back(&mut self, op: Op, vouched: bool) {
        if vouched { self.vouching.push_front(op) } else { self.pending.push_front(op) }
    }

    /// Whether something waits that may be written now, what is withheld apart.
    pub(super) fn has_next(&self) -> bool {
        !self.pending.is_empty() || self.vouches()
    }

    fn vouches(&self) -> bool {
        !self.vouching.is_empty() && !self.barred
    }

    /// Whether an append has to wait behind others, though there may be space by now.
    pub(super) fn is_behind(&self) -> bool {
        self.is_withholding() || !self.vouching.is_empty()
    }

    pub(super) fn is_withholding(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// An append waits for space; one that is vouched for keeps its vote waiting with it.
    pub(super) fn withhold(&mut self, append: Op, vouched: bool) {
        if vouched {
            self.barred = true;
            self.vouching.push_front(append);
        } else {
            self.withheld.push_back(append);
        }
    }

    /// There may be room again for what is vouched for.
    pub(super) fn unbar(&mut self) {
        self.barred = false;
    }

    /// There is space: what was withheld goes before what came later.
    pub(super) fn resume(&mut self) {
        self.withheld.append(&mut self.pending);
        mem::swap(&mut self.withheld, &mut self.pending);
    }

    /// Whether appends of a group are withheld.
    pub(super) fn withholds(&self, group: GroupId) -> bool {
        self.withheld.iter().chain(&self.vouching).any(|op| op.group() == group)
    }

    /// A vote, or a new leader's first entry, comes behind the withheld appends of its group, which are
    /// withheld no longer.
    pub(super) fn vouch(&mut self, behind: Op) {
        let group = behind.group();
        let (out, kept): (VecDeque<Op>, _) =
            mem::take(&mut self.withheld).into_iter().partition(|op| op.group() == group);
        self.withheld = kept;
        tracing::info!(group = group.0, appends = out.len(), "withheld appends are written before a vote or election");
        self.vouching.extend(out);
        self.vouching.push_back(behind);
    }

    /// A truncation, purge or reset overtakes withheld appends of its group: what it would drop is never written, and
    /// whoever waits for that (`told`) hears when the overtaking record is durable.
    pub(super) fn prune(&mut self, mem: &Arc<GroupMem>, kind: Kind, index: u64, told: &mut Vec<Told>) {
        if !matches!(kind, Kind::Truncate | Kind::Purge | Kind::Reset) {
            return;
        }
        // While an earlier one waits, an emptied one waits, too.
        let mut waits = false;
        for queue in [&mut self.vouching, &mut self.withheld] {
            for waiting in mem::take(queue) {
                match waiting {
                    Op::Append { mem: whose, mut entries, next, op, done } if whose.id == mem.id => {
                        entries.drain(..next);
                        match kind {
                            Kind::Truncate => entries.retain(|e| e.index < index),
                            Kind::Purge => entries.retain(|e| e.index > index),
                            _ => entries.clear(),
                        }
                        waits |= !entries.is_empty();
                        if waits {
                            queue.push_back(Op::Append { mem: whose, entries, next: 0, op, done });
                        } else {
                            told.push(Told::Append { mem: whose, op, done });
                        }
                    }
                    other => queue.push_back(other),
                }
            }
        }
    }

    /// Everything, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Op> + use<> {
        let Self { pending, withheld, vouching, .. } = mem::take(self);
        vouching.into_iter().chain(withheld).chain(pending)
    }
}
