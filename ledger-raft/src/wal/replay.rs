//! Rebuilds the groups from the records, and says which of them lost something.
//!
//! **What it is.** Every record that changes a group carries the next number of that group's own sequence. So a lost
//! record shows as a jump, and a group whose numbers go on without one past a rotten place lost nothing there.
//!
//! **Owns** that reasoning. **Must never** read a disk, or guess in favour of a group.
//!
//! **Read next**: [`super::recover`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::Damage;
use super::frame::{Cursor, Kind, RecordHeader, SegmentHeader, u32_at, u64_at};
use super::index::GroupIndex;
use super::limits::COUNT_MAX;
use super::scan::Stretch;
use super::segment::{DamageMark, GroupState};
use crate::api::GroupId;
use crate::limits::INDEX_MAX;

/// One group on its way through the log.
#[derive(Debug)]
pub(crate) struct GroupReplay {
    pub(crate) state: GroupState,
    /// Entries that are known since the last loss, if there was one.
    pub(crate) index: GroupIndex,
    /// Index of the first live entry, as the checkpoint after the last loss, or before the first record, says. None: nothing was lost.
    first: Option<u64>,
    /// Records are missing, and how many entries there are is not known yet.
    open: bool,
    /// Where the missing records may have been.
    suspect_place: Option<usize>,
    /// Number of the event that last proved the sequence whole.
    evidence: u64,
}

/// A rotten place.
#[derive(Debug)]
struct Place {
    file: PathBuf,
    offset: u64,
    why: &'static str,
    event: u64,
    /// A segment's first round only repeats what is known.
    repeats: bool,
}

/// The replay of a log, segment by segment in order of generation.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) groups: BTreeMap<GroupId, GroupReplay>,
    places: Vec<Place>,
    events: u64,
    /// Event of the last record that named all groups.
    census: u64,
}

/// What came out.
pub(crate) struct Replayed {
    pub(crate) groups: BTreeMap<GroupId, (GroupState, GroupIndex, Option<Damage>)>,
    pub(crate) damage: Vec<Damage>,
}

impl Replay {
    /// Something is not what was written.
    pub(crate) fn rot(&mut self, file: &Path, offset: u64, why: &'static str, repeats: bool) {
        self.events += 1;
        self.places.push(Place { file: file.to_path_buf(), offset, why, event: self.events, repeats });
    }

    /// Reads the records of one stretch. Returns whether it carried any that count, and the offset of one that makes no sense.
    pub(crate) fn stretch(&mut self, generation: u32, stretch: &Stretch) -> (bool, Option<u32>) {
        let (mut at, mut counted) = (0, false);
        let bytes = &stretch.payload;
        while at < bytes.len() {
            let header = RecordHeader::decode(&bytes[at..]);
            let whole = header.filter(|h| h.total() <= bytes.len() - at);
            let Some(header) = whole else {
                return (counted, (!stretch.cut).then(|| stretch.offset(at)));
            };
            let from = at + super::frame::RECORD_BYTES;
            let body = &bytes[from + usize::from(header.head_len)..at + header.total()];
            counted |= header.kind.counts() || header.kind == Kind::Oldest;
            self.events += 1;
            if !self.record(generation, &header, body, stretch.offset(at)) {
                return (counted, Some(stretch.offset(at)));
            }
            at += header.total();
        }
        (counted, None)
    }

    fn record(&mut self, generation: u32, header: &RecordHeader, body: &[u8], offset: u32) -> bool {
        match header.kind {
            Kind::Segment => return SegmentHeader::decode(body).is_some(),
            Kind::Oldest => {}
            Kind::Carried => self.carried(generation, header, offset),
            Kind::Marker => {
                self.census = self.events;
                let pairs = body.chunks_exact(12).map(|pair| (GroupId(u32_at(pair, 0)), u64_at(pair, 4)));
                if pairs.clone().any(|(_, seq)| seq > COUNT_MAX) {
                    return false;
                }
                for (group, seq) in pairs {
                    self.witness(group, seq);
                }
            }
            Kind::Checkpoint => {
                let mut c = Cursor(body);
                let first = c.number().filter(|first| first.is_none_or(|first| first <= INDEX_MAX));
                let Some(state) = first.and_then(|first| Some((first, GroupState::decode(header.seq, c.0)?))) else {
                    return false;
                };
                self.checkpoint(GroupId(header.group), state.0, state.1);
            }
            _ => self.change(generation, header, body, offset),
        }
        true
    }

    /// All groups have just been named.
    pub(crate) fn census(&mut self) {
        self.census = self.events;
    }

    fn group(&mut self, group: GroupId) -> &mut GroupReplay {
        self.groups.entry(group).or_insert_with(|| GroupReplay {
            state: GroupState::default(),
            index: GroupIndex::default(),
            first: None,
            open: false,
            suspect_place: None,
            evidence: 0,
        })
    }

    fn newest_place(&self) -> Option<usize> {
        self.places.len().checked_sub(1)
    }

    /// Somebody says what a group's last number is.
    fn witness(&mut self, group: GroupId, seq: u64) {
        let (place, event) = (self.newest_place(), self.events);
        let g = self.group(group);
        if g.state.seq == seq {
            g.evidence = event;
        } else {
            g.lose(place);
            g.state.seq = seq;
        }
    }

    fn checkpoint(&mut self, group: GroupId, first: Option<u64>, told: GroupState) {
        let (place, event) = (self.newest_place(), self.events);
        let g = self.group(group);
        g.evidence = event;
        if g.state.seq == told.seq {
            g.state.damage = told.damage;
            return;
        }
        // The state is known from here on; the entries it speaks of are not, unless they are carried here or purged later.
        g.lose(place);
        (g.open, g.first) = (false, first);
        g.state = told;
        g.state.last = first.and(g.state.last);
    }

    /// A live entry again: it lies here now, whether the segment before is still there or not.
    fn carried(&mut self, generation: u32, header: &RecordHeader, offset: u32) {
        self.witness(GroupId(header.group), header.seq);
        let g = self.group(GroupId(header.group));
        if g.state.last.is_none_or(|last| header.index <= last) {
            g.index.place((generation, offset), header.index, header.total() as u32);
        }
    }

    fn change(&mut self, generation: u32, header: &RecordHeader, body: &[u8], offset: u32) {
        let (place, event) = (self.newest_place(), self.events);
        let g = self.group(GroupId(header.group));
        if header.seq == g.state.seq + 1 {
            g.evidence = event;
        } else {
            g.lose(place);
            g.evidence = event;
        }
        g.state.seq = header.seq;
        let owned = || Bytes::copy_from_slice(body);
        match header.kind {
            Kind::Entry => {
                if g.state.last.is_some_and(|last| header.index > last + 1) {
                    g.index.clear();
                }
                g.index.truncate_from(header.index);
                g.index.place((generation, offset), header.index, header.total() as u32);
                (g.open, g.state.last) = (false, Some(header.index));
            }
            Kind::Vote => g.state.vote = Some(owned()),
            Kind::Committed => g.state.committed = Some(owned()),
            Kind::Acknowledged => g.state.acknowledged = Some(owned()),
            Kind::Damaged => g.state.damage = Some(DamageMark::recorded(body)),
            Kind::Truncate => {
                g.index.truncate_from(header.index);
                // Entries that were cut off are not missing, whatever a checkpoint said of them before.
                let kept = header.index.checked_sub(1);
                let last = if g.open { kept } else { g.state.last.min(kept) };
                g.state.last = last.filter(|last| g.lowest().is_some_and(|lowest| *last >= lowest));
                g.open = false;
            }
            Kind::Purge => {
                g.index.purge(header.index);
                g.state.last = g.state.last.filter(|last| *last > header.index);
                g.state.purged = Some((header.index, owned()));
            }
            Kind::Reset => {
                g.index.clear();
                g.state.last = None;
                g.state.purged = None;
                g.state.committed = None;
                g.state.acknowledged = None;
                g.state.damage = Some(DamageMark::emptied());
                (g.open, g.first) = (false, None);
            }
            Kind::Clear => {
                g.open = false;
                g.state.damage = None;
            }
            Kind::Segment | Kind::Checkpoint | Kind::Marker | Kind::Oldest | Kind::Carried => {}
        }
    }

    /// The verdict, once all segments are through. `dir` names damage that no place explains.
    pub(crate) fn finish(self, dir: &Path) -> Replayed {
        let mut damage: Vec<Damage> = self
            .places
            .iter()
            .map(|p| Damage {
                file: p.file.clone(),
                offset: p.offset,
                groups: Vec::new(),
                others_too: !p.repeats && self.census < p.event,
                emptied: false,
                lost: false,
                why: p.why.to_owned(),
            })
            .collect();
        let mut groups = BTreeMap::new();
        for (id, g) in self.groups {
            let mut mine: Option<usize> = None;
            if g.open || !g.is_whole() {
                let place = g.suspect_place.or(self.places.len().checked_sub(1));
                mine = Some(place.unwrap_or_else(|| {
                    damage.push(lost(dir.to_path_buf(), 0, "records are missing: a segment file is gone or cut"));
                    damage.len() - 1
                }));
            }
            for (at, place) in self.places.iter().enumerate() {
                if place.event > g.evidence && !place.repeats {
                    mine = Some(at);
                    damage[at].groups.push(id);
                }
            }
            if mine.is_none()
                && let Some(mark) = &g.state.damage
            {
                damage.push(match (mark.is_emptied(), mark.lost_why()) {
                    (true, _) => Damage::emptied(dir, Vec::new()),
                    (_, Some(why)) => Damage::lost(dir, why),
                    _ => lost(dir.join(&mark.file), mark.offset, "found at an earlier start and not repaired yet"),
                });
                mine = Some(damage.len() - 1);
            }
            if let Some(at) = mine
                && !damage[at].groups.contains(&id)
            {
                damage[at].groups.push(id);
            }
            groups.insert(id, (g.state, g.index, mine));
        }
        let groups = groups
            .into_iter()
            .map(|(id, (mut state, index, mine))| {
                let found = mine.map(|at| damage[at].clone());
                state.last = index.last();
                state.damage = found.as_ref().map(DamageMark::of);
                (id, (state, index, found))
            })
            .collect();
        Replayed { groups, damage }
    }
}

impl GroupReplay {
    fn lose(&mut self, place: Option<usize>) {
        self.open = true;
        self.first = Some(0);
        self.index.clear();
        self.state.last = None;
        self.suspect_place = place.or(self.suspect_place);
    }

    /// Index of the first entry that should be there.
    fn lowest(&self) -> Option<u64> {
        let purged = self.state.purged.as_ref().map(|p| p.0 + 1);
        purged.or(self.first).or(self.index.first())
    }

    /// Whether all entries that should be there are.
    fn is_whole(&self) -> bool {
        match (self.lowest(), self.state.last) {
            (Some(first), Some(last)) => self.index.is_whole(first, last),
            (_, last) => last.is_none(),
        }
    }
}

fn lost(file: PathBuf, offset: u64, why: &str) -> Damage {
    Damage { file, offset, groups: Vec::new(), others_too: false, emptied: false, lost: false, why: why.to_owned() }
}
