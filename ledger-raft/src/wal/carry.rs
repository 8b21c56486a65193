//! Carries live entries of old segments forward, so that the segments can go.
//!
//! **What it is.** Segments are begun anew from the oldest on, so the few entries of a quiet group would keep all segments of a busy one.
//! When the oldest segments hold much more than what is live in them, their live entries are read back, checked, beside the writer's
//! path, and written again with its rounds. The index points at the new place only once that is durable; the old segments are given up
//! by the same mark as purged ones.
//!
//! The policy is that of a log-structured file system's cleaner: a prefix of the sealed segments is carried when it would give back
//! [`CARRY_GAIN`] times what is carried, and [`CARRY_SURPLUS_SEGMENTS`] more. So each byte of the log that was written costs at most one
//! more carried one, and at rest the sealed segments are at most twice what is live in them and two segments more.
//!
//! **Owns** which entries are carried, and when. **Must never** carry an entry whose bytes did not pass their checksums, or give up
//! the segment of one.
//!
//! **Read next**: [`super::writer`], [`super::index`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::WalEntry;
use super::frame::{Kind, RECORD_BYTES, RecordHeader};
use super::group::GroupMem;
use super::index::Place;
use super::limits::{
    CARRY_FULL_DISK_PERCENT, CARRY_GAIN, CARRY_READ_BYTES, CARRY_READ_ENTRIES, CARRY_RETRY, CARRY_ROUND_BYTES,
    CARRY_ROUND_BYTES_MAX, CARRY_SURPLUS_SEGMENTS,
};
use super::reader::{self, Files};
use super::writer::Writer;
use crate::api::GroupId;

/// A live entry, and where it lay when it was read.
pub(crate) struct Carried {
    mem: Arc<GroupMem>,
    place: Place,
    entry: WalEntry,
}

/// Where a carried entry lies once its round is durable.
struct Moved {
    mem: Arc<GroupMem>,
    index: u64,
    from: Place,
    to: Place,
    bytes: u32,
}

/// Entries of one group, by index, and where they lie.
type Wanted = (Arc<GroupMem>, Vec<(u64, Place)>);

/// Entries to read back for [`Carry::ready`], off the writer's path.
pub(crate) struct CarryRead {
    files: Arc<Files>,
    wanted: Vec<Wanted>,
}

impl CarryRead {
    /// Reads them; blocks.
    pub(crate) fn run(self) -> CarryDone {
        let read = |(mem, places): Wanted| {
            let read = reader::read(&self.files, mem.id, &places, usize::MAX);
            ((mem, places), read)
        };
        CarryDone { groups: Ok(self.wanted.into_iter().map(read).collect()) }
    }

    /// It could not even be begun.
    pub(crate) fn failed(why: io::Error) -> CarryDone {
        CarryDone { groups: Err(why) }
    }
}

/// How reading back ended, for each group.
pub(crate) struct CarryDone {
    groups: io::Result<Vec<(Wanted, io::Result<Vec<WalEntry>>)>>,
}

/// Whether all of a group that was wanted is still where it was: what was purged meanwhile may be
/// overwritten by now, and is not missed.
fn is_current((mem, places): &Wanted) -> bool {
    let state = mem.lock();
    places.iter().all(|(index, place)| state.index.find(*index) == Some(*place))
}

/// What is being carried.
#[derive(Default)]
pub(crate) struct Carry {
    /// Whether what is live, or which segments there are, has changed since the last look.
    pub(crate) due: bool,
    /// Live entries of segments below this generation are carried.
    below: Option<u32>,
    reading: bool,
    ready: VecDeque<Carried>,
    /// Of the round under construction.
    moved: Vec<Moved>,
    /// Groups whose entries cannot be carried now; the others go on.
    put_off: BTreeSet<GroupId>,
    /// When they are tried again.
    retry_at: Option<Duration>,
}

impl Carry {
    /// Looks once at the start.
    pub(super) fn new() -> Self {
        Self { due: true, ..Self::default() }
    }

    /// When to look again although nothing happens.
    pub(super) fn wake_in(&self, now: Duration) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_sub(now))
    }

    /// Bytes of the next record that waits to be written.
    fn next_bytes(&self) -> Option<usize> {
        self.ready.front().map(|c| RECORD_BYTES + c.entry.bytes())
    }
}

impl Writer {
    /// What to read back next, if anything is to be carried and nothing is under way.
    pub(crate) fn wants_carry(&mut self, now: Duration) -> Option<CarryRead> {
        if self.is_poisoned() || self.carry.reading || !self.carry.ready.is_empty() {
            return None;
        }
        if self.carry.retry_at.take_if(|at| now >= *at).is_some() {
            self.carry.put_off.clear();
            self.carry.due = true;
        }
        loop {
            if self.carry.below.is_none() {
                self.carry.below = std::mem::take(&mut self.carry.due).then(|| self.plan_carry())?;
            }
            let wanted = self.carry_wanted(self.carry.below?);
            if !wanted.is_empty() {
                self.carry.reading = true;
                return Some(CarryRead { files: self.shared.files(), wanted });
            }
            // Done; what was written meanwhile may be worth another.
            self.carry.below = None;
        }
    }

    /// The generation below which to carry: that of the prefix of segments which gives back most beyond what it costs.
    fn plan_carry(&self) -> Option<u32> {
        let mut live = BTreeMap::new();
        for booked in self.book.values() {
            booked.mem.lock().index.add_live(&mut live);
        }
        let (mut surplus, mut best, mut below) = (0i64, 0i64, None);
        if crate::bad!("log-never-carried") {
            return None;
        }
        if let Some(below) = self.plan_carry_for_spares(&live) {
            return Some(below);
        }
        let end = self.oldest_kept().unwrap_or(u32::MAX);
        for (generation, segment) in self.sealed.range(self.oldest_needed()..).take_while(|(g, _)| **g < end) {
            let cost = CARRY_GAIN * live.get(generation).copied().unwrap_or(0);
            surplus += segment.bytes as i64 - cost as i64;
            if surplus > best {
                (best, below) = (surplus, Some(generation + 1));
            }
        }
        below.filter(|_| best >= (CARRY_SURPLUS_SEGMENTS * self.config.segment_bytes) as i64)
    }

    /// The generation below which to carry when a full disk has no room for the spares that votes and
    /// starts need: that of the shortest prefix which gives them back, where what is live in it fits
    /// into the segment that is written.
    fn plan_carry_for_spares(&self, live: &BTreeMap<u32, u64>) -> Option<u32> {
        let lacking = self.spares_lacking();
        let end = self.oldest_kept().unwrap_or(u32::MAX);
        let room = self.room_bytes() * CARRY_FULL_DISK_PERCENT / 100;
        let prefix = self.sealed.range(self.oldest_needed()..).take_while(|(g, _)| **g < end).take(lacking);
        let (mut bytes, mut below) = (0, None);
        for (generation, _) in prefix {
            bytes += live.get(generation).copied().unwrap_or(0);
            if bytes > room {
                break;
            }
            below = Some(generation + 1);
        }
        below
    }

    /// Whether the entries of a group stay where they are: they cannot be carried now, or the log
    /// of the group is damaged and will be emptied for its repair.
    fn stays(&self, mem: &GroupMem) -> bool {
        self.carry.put_off.contains(&mem.id) || mem.lock().has_new_damage()
    }

    /// The oldest segment that stays for a group whose entries do: to carry others out of it, or of
    /// a later one, would give nothing back.
    fn oldest_kept(&self) -> Option<u32> {
        let kept = self.book.values().filter(|booked| self.stays(&booked.mem));
        kept.filter_map(|booked| booked.mem.lock().index.oldest_generation()).min()
    }

    fn carry_wanted(&self, below: u32) -> Vec<Wanted> {
        let (mut count, mut bytes) = (CARRY_READ_ENTRIES, CARRY_READ_BYTES);
        let mut wanted = Vec::new();
        let mut mems: Vec<(u32, Arc<GroupMem>)> = Vec::new();
        for booked in self.book.values().filter(|booked| !self.stays(&booked.mem)) {
            let oldest = booked.mem.lock().index.oldest_generation();
            mems.extend(oldest.filter(|g| *g < below).map(|g| (g, booked.mem.clone())));
        }
        // The oldest segment is to go first.
        mems.sort_by_key(|(oldest, mem)| (*oldest, mem.id));
        for (_, mem) in mems {
            if count == 0 || bytes == 0 {
                break;
            }
            let (places, sum) = mem.lock().index.below(below, count, bytes);
            count -= places.len();
            bytes = bytes.saturating_sub(sum);
            wanted.push((mem, places));
        }
        wanted
    }

    /// What [`Self::wants_carry`] asked for was read. A group whose entries cannot be read back has
    /// lost them: it is damaged.
    pub(crate) fn carry_read(&mut self, done: CarryDone, now: Duration) {
        self.carry.reading = false;
        let groups = match done.groups {
            Ok(groups) => groups,
            Err(e) => {
                tracing::error!(error = %e, "cannot read entries back to carry them; trying again later");
                self.carry.below = None;
                self.carry.retry_at = Some(now + CARRY_RETRY);
                return;
            }
        };
        let (mut ready, mut anew) = (Vec::new(), false);
        for ((mem, places), read) in groups {
            match read {
                Ok(entries) if self.fit(&mem, &entries, now) => {
                    let carried = |(entry, (_, place)): (WalEntry, &(u64, Place))| Carried {
                        mem: mem.clone(),
                        place: *place,
                        entry,
                    };
                    ready.extend(entries.into_iter().zip(&places).map(carried));
                    continue;
                }
                Ok(_) => {}
                Err(_) if !is_current(&(mem.clone(), places)) => {}
                Err(e) => mem.mark_damaged(&self.dir, &format!("entries that were to be carried: {e}")),
            }
            anew = true;
        }
        // What was planned may give nothing back without them.
        if anew {
            (self.carry.below, self.carry.due) = (None, true);
        } else {
            self.carry.ready.extend(ready);
        }
    }

    /// Whether entries fit into new segments; a group with one that does not is put off.
    fn fit(&mut self, mem: &GroupMem, entries: &[WalEntry], now: Duration) -> bool {
        // Segments may have been larger when it was written.
        let bytes_max = self.config.entry_bytes_max;
        let Some(large) = entries.iter().find(|entry| entry.bytes() > bytes_max) else { return true };
        tracing::error!(
            group = mem.id.0,
            index = large.index,
            bytes_max,
            "old log segments stay until an entry that is too large for new ones is purged"
        );
        self.carry.put_off.insert(mem.id);
        self.carry.retry_at.get_or_insert(now + CARRY_RETRY);
        false
    }

    /// Whether something waits to be carried and there is room for it.
    pub(super) fn may_carry(&self) -> bool {
        self.carry.next_bytes().is_some_and(|bytes| self.fits_alone(bytes) || self.may_begin_for_carry())
    }

    /// Whether the next carried entry needs a segment of its own to be begun, as nothing else waits for one.
    pub(super) fn carry_needs_segment(&self) -> bool {
        self.carry.next_bytes().is_some_and(|bytes| !self.fits_alone(bytes)) && self.may_begin_for_carry()
    }

    /// Carrying gives segments back, so it may take the last spare, if another can be made for votes.
    pub(super) fn may_begin_for_carry(&self) -> bool {
        !self.spares.is_empty() && self.may_begin_segment(true)
    }

    /// Adds carried entries to the round, as many as may ride in it.
    pub(super) fn fill_carried(&mut self) {
        let budget = CARRY_ROUND_BYTES.max(self.round.payload_bytes());
        let mut used = 0;
        while let Some(bytes) = self.carry.next_bytes() {
            let much =
                (used > 0 && used + bytes > budget) || self.round.payload_bytes() + bytes > CARRY_ROUND_BYTES_MAX;
            if much || !self.fits(bytes) {
                return;
            }
            let Some(carried) = self.carry.ready.pop_front() else { return };
            // It may have been purged, or replaced, since it was read.
            if self.carried_is_live(&carried) {
                self.encode_carried(carried);
                used += bytes;
            }
        }
    }

    fn carried_is_live(&self, carried: &Carried) -> bool {
        carried.mem.lock().index.find(carried.entry.index) == Some(carried.place)
    }

    fn encode_carried(&mut self, Carried { mem, place, entry }: Carried) {
        let seq = self.booked(&mem).state.seq;
        let header = RecordHeader {
            kind: Kind::Carried,
            head_len: entry.head.len() as u16,
            group: mem.id.0,
            body_len: entry.data.len() as u32,
            seq,
            index: entry.index,
        };
        let lost = crate::bad!("carried-entry-lost");
        let offset = if lost { 0 } else { self.round.push(&header, &entry.head, &entry.data) };
        let to = (self.active.generation, self.active.next_block * super::limits::BLOCK_BYTES as u32 + offset);
        self.carry.moved.push(Moved { mem, index: entry.index, from: place, to, bytes: header.total() as u32 });
    }

    /// The round is durable: readers find its carried entries there from now on.
    pub(super) fn carried_are_durable(&mut self) {
        if self.carry.moved.is_empty() {
            return;
        }
        for moved in self.carry.moved.drain(..) {
            let mut state = moved.mem.lock();
            if state.index.find(moved.index) == Some(moved.from) {
                state.index.place(moved.to, moved.index, moved.bytes);
            }
            self.shared.carried_bytes.fetch_add(u64::from(moved.bytes), Ordering::Relaxed);
        }
        if self.carry.ready.is_empty() {
            self.recount = true;
        }
    }
}
