//! Opens a directory: what is there, what of it counts, what is rotten.
//!
//! **Owns** the order: classify every block of every file, find the dead segments, replay the live ones.
//! **Must never** write to a segment: the writer begins a new one afterwards, so no generation is ever written twice.
//!
//! **Read next**: [`super::scan`], [`super::replay`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Damage, WalError};
use super::frame::{FORMAT_VERSION, Kind, RECORD_BYTES, RecordHeader, SegmentHeader};
use super::index::GroupIndex;
use super::limits::{BLOCK_BYTES, SECTOR_BYTES, SEGMENT_BYTES_CEILING};
use super::log::WalIdentity;
use super::replay::Replay;
use super::scan::{Blocks, Part, Step, Walk};
use super::segment::{DamageMark, GroupState, SegmentFile, slot_of};
use crate::api::GroupId;
use crate::seam::{Disk, DiskFile};

/// Stands for every group without a word in the log, once damage may have hit such a one.
pub(crate) const OTHERS: GroupId = GroupId(u32::MAX);

/// What was found.
#[derive(Default)]
pub(crate) struct Recovered {
    /// Live segments by generation.
    pub(crate) live: BTreeMap<u32, SegmentFile>,
    /// Files that may be begun anew.
    pub(crate) spares: Vec<SegmentFile>,
    /// The newest segment, if it has nothing in it that is not known without it: it becomes a spare
    /// once the next one is begun, so that a process that dies at each start does not eat the
    /// spares. It is not begun anew itself: a header torn over it would leave less than was
    /// recorded as begun.
    pub(crate) superseded: Vec<SegmentFile>,
    /// The newest segment that was begun; 0: none.
    pub(crate) newest: u32,
    /// A file is shorter than it was made.
    pub(crate) cut: Option<String>,
    pub(crate) groups: BTreeMap<GroupId, (GroupState, GroupIndex, Option<Damage>)>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) next_generation: u32,
    pub(crate) next_round: u64,
    /// The segment that the new one follows, and where it ends.
    pub(crate) before: u32,
    pub(crate) before_end: u32,
    pub(crate) oldest: u32,
    pub(crate) next_slot: u32,
}

/// A file of the directory.
struct Found {
    path: PathBuf,
    bytes: u64,
    blocks: Blocks,
    header: Option<SegmentHeader>,
    walk: Walk,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    identity: WalIdentity,
    segment_bytes: u64,
) -> Result<Recovered, WalError> {
    let (mut begun, mut rest, mut next_generation, mut next_slot) = (BTreeMap::new(), Vec::new(), 1, 0);
    for path in disk.list(dir).map_err(|e| WalError::io(format!("list {}", dir.display()), e))? {
        let Some(slot) = slot_of(&path) else { continue };
        next_slot = next_slot.max(slot + 1);
        let found = inspect(disk, path, identity)?;
        next_generation = next_generation.max(found.blocks.generation.map_or(0, |g| g + 1));
        match found.blocks.generation {
            Some(generation) if !found.walk.steps.is_empty() => {
                begun.insert(generation, found);
            }
            _ => rest.push(found),
        }
    }
    let (oldest, droppable) = oldest_of(disk, &begun)?;
    let newest = begun.last_key_value().map_or(0, |(generation, _)| *generation);
    let mut live = begun.split_off(&oldest);
    rest.extend(begun.into_values());
    rest.extend(passed_over(&live).into_iter().filter_map(|generation| live.remove(&generation)));
    let cut = cut_short(&live);
    let mut out = Recovered { next_generation, next_round: 1, oldest, next_slot, newest, cut, ..Recovered::default() };
    replay_all(disk, dir, &live, &mut out)?;
    for found in rest {
        out.keep_spare(disk, found, segment_bytes)?;
    }
    for (generation, found) in &live {
        out.live.insert(*generation, open(disk, &found.path, found.bytes)?);
    }
    if let Some((generation, header)) = droppable
        && live.get(&generation).is_some_and(|f| f.bytes == segment_bytes && !f.blocks.any_bad)
    {
        out.superseded.extend(out.live.remove(&generation));
        (out.before, out.before_end) = (header.before, header.before_end);
    }
    Ok(out)
}

/// What a log holds that no process has open: no file is begun anew, removed or written.
pub(crate) fn look(disk: &dyn Disk, dir: &Path, identity: WalIdentity) -> Result<Recovered, WalError> {
    let mut begun = BTreeMap::new();
    for path in disk.list(dir).map_err(|e| WalError::io(format!("list {}", dir.display()), e))? {
        if slot_of(&path).is_none() {
            continue;
        }
        let found = inspect(disk, path, identity)?;
        if let Some(generation) = found.blocks.generation.filter(|_| !found.walk.steps.is_empty()) {
            begun.insert(generation, found);
        }
    }
    let (oldest, _) = oldest_of(disk, &begun)?;
    let mut live = begun.split_off(&oldest);
    for generation in passed_over(&live) {
        live.remove(&generation);
    }
    let mut out = Recovered { oldest, ..Recovered::default() };
    replay_all(disk, dir, &live, &mut out)?;
    if let Some(why) = cut_short(&live) {
        out.lose_all(dir, &why);
    }
    for (generation, found) in &live {
        let open = disk.open(&found.path, false);
        let file = open.map_err(|e| WalError::io(format!("open {}", found.path.display()), e))?;
        out.live.insert(*generation, SegmentFile { path: found.path.clone(), file, bytes: found.bytes });
    }
    Ok(out)
}

/// Segments that a later one was begun over, as they held nothing that was not known without them.
fn passed_over(live: &BTreeMap<u32, Found>) -> Vec<u32> {
    let (mut over, mut before) = (Vec::new(), 0);
    for (generation, found) in live.iter().rev() {
        if before != 0 && *generation > before {
            over.push(*generation);
        } else {
            before = found.header.map_or(0, |header| header.before);
        }
    }
    over
}

/// Names a file that has another length than it was made with.
fn cut_short(live: &BTreeMap<u32, Found>) -> Option<String> {
    live.values().find_map(|found| {
        let made = found.header.map(|header| header.bytes).filter(|made| *made != found.bytes)?;
        Some(format!("{} has {} bytes and was made with {made}", found.path.display(), found.bytes))
    })
}

impl Recovered {
    /// Nothing of what is here is known to be all that was written: every group is damaged.
    pub(crate) fn lose_all(&mut self, dir: &Path, why: &str) {
        self.groups.entry(OTHERS).or_default();
        let named = self.groups.keys().copied().filter(|group| *group != OTHERS).collect();
        let damage = Damage { groups: named, others_too: true, ..Damage::lost(dir, why) };
        for (state, _, found) in self.groups.values_mut() {
            state.damage = Some(DamageMark::of(&damage));
            *found = Some(damage.clone());
        }
        self.damage.push(damage);
    }

    /// Only files without a rotten block are begun anew: what lies under a torn round must be recognisable.
    fn keep_spare(&mut self, disk: &dyn Disk, found: Found, segment_bytes: u64) -> Result<(), WalError> {
        if found.bytes == segment_bytes && !found.blocks.any_bad {
            self.spares.push(open(disk, &found.path, found.bytes)?);
            return Ok(());
        }
        disk.remove(&found.path).map_err(|e| WalError::io(format!("remove {}", found.path.display()), e))
    }
}

fn open(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<SegmentFile, WalError> {
    let file = disk.open_direct(path).map_err(|e| WalError::io(format!("open {}", path.display()), e))?;
    Ok(SegmentFile { path: path.to_path_buf(), file, bytes })
}

fn inspect(disk: &dyn Disk, path: PathBuf, identity: WalIdentity) -> Result<Found, WalError> {
    let io = |what: &'static str| {
        let path = path.clone();
        move |e| WalError::io(format!("{what} {}", path.display()), e)
    };
    let file = disk.open(&path, false).map_err(io("open"))?;
    let bytes = file.len().map_err(io("measure"))?;
    let content = read_all(file.as_ref(), bytes);
    // What is read may be in the page cache only, left by a process that was killed before its sync. Nothing may be
    // built on it before it is durable.
    file.sync().map_err(io("sync"))?;
    let blocks = Blocks::classify(&content);
    let header = blocks.first_payload(&content).and_then(segment_header);
    if let Some(h) = &header {
        check_identity(&path, h, identity)?;
    }
    let walk = blocks.walk(None);
    Ok(Found { path, bytes, blocks, header, walk })
}

/// Unreadable sectors become rot, so that one bad spot does not make the rest unreadable. What lies
/// beyond the longest segment was never written by a log.
fn read_all(file: &dyn DiskFile, bytes: u64) -> Vec<u8> {
    let mut content = vec![0u8; usize::try_from(bytes.min(SEGMENT_BYTES_CEILING)).unwrap_or(0)];
    if file.read_at(0, &mut content).is_ok() {
        return content;
    }
    for (i, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
        if let Err(e) = file.read_at((i * SECTOR_BYTES) as u64, sector) {
            tracing::error!(offset = i * SECTOR_BYTES, error = %e, "a log sector cannot be read");
            sector.fill(0xA5);
        }
    }
    content
}

fn segment_header(payload: &[u8]) -> Option<SegmentHeader> {
    let record = RecordHeader::decode(payload).filter(|r| r.kind == Kind::Segment)?;
    SegmentHeader::decode(payload.get(RECORD_BYTES..record.total())?)
}

fn check_identity(path: &Path, h: &SegmentHeader, identity: WalIdentity) -> Result<(), WalError> {
    if h.version != FORMAT_VERSION {
        return Err(WalError::Version { file: path.to_path_buf(), found: h.version, known: FORMAT_VERSION });
    }
    if h.cluster != identity.cluster || h.incarnation != identity.incarnation || h.node != identity.node.0 {
        return Err(WalError::Foreign {
            file: path.to_path_buf(),
            cluster: h.cluster.iter().map(|b| format!("{b:02x}")).collect(),
            incarnation: h.incarnation,
            node: crate::api::NodeId(h.node),
        });
    }
    Ok(())
}

/// The generation below which segments are dead, and the newest segment if it can be begun anew.
///
/// Headers repeat the mark, so only records of the newest segment can know better than the newest readable header.
fn oldest_of(disk: &dyn Disk, begun: &BTreeMap<u32, Found>) -> Result<(u32, Option<(u32, SegmentHeader)>), WalError> {
    let (mut oldest, mut droppable, mut newest) = (0, None, true);
    for (generation, found) in begun.iter().rev() {
        let content = content_of(disk, found)?;
        let (mut counts, mut rot) = (false, false);
        for step in &found.walk.steps {
            let Step::Round(span) = step else {
                rot = true;
                continue;
            };
            found.blocks.stretches(*span, &content, |part| match part {
                Part::Whole(stretch) => each_record(&stretch.payload, |r| {
                    counts |= r.kind.counts() || matches!(r.kind, Kind::Oldest | Kind::Carried);
                    if r.kind == Kind::Oldest {
                        let mark = u32::try_from(r.index).unwrap_or(0);
                        oldest = oldest.max(sane_mark(mark, *generation));
                    }
                }),
                Part::Rotten(_) => rot = true,
            });
        }
        if let Some(h) = found.header {
            let before_lives = begun.get(&h.before).is_some_and(|b| b.header.is_some_and(|bh| bh.oldest == h.oldest));
            if newest && !counts && !rot && before_lives {
                droppable = Some((*generation, h));
            }
            oldest = oldest.max(sane_mark(h.oldest, *generation));
            break;
        }
        newest = false;
    }
    Ok((oldest, droppable))
}

/// A mark of dead segments; one that names its own segment, or a later one, is none: it would make
/// a whole log dead.
fn sane_mark(oldest: u32, own: u32) -> u32 {
    if oldest <= own { oldest } else { 0 }
}

fn each_record(payload: &[u8], mut each: impl FnMut(&RecordHeader)) {
    let mut at = 0;
    while let Some(r) = payload.get(at..).and_then(RecordHeader::decode) {
        each(&r);
        at += r.total();
    }
}

fn content_of(disk: &dyn Disk, found: &Found) -> Result<Vec<u8>, WalError> {
    let file = disk
        .open(&found.path, false)
        .map_err(|e: io::Error| WalError::io(format!("open {}", found.path.display()), e))?;
    Ok(read_all(file.as_ref(), found.bytes))
}

fn replay_all(disk: &dyn Disk, dir: &Path, live: &BTreeMap<u32, Found>, out: &mut Recovered) -> Result<(), WalError> {
    let headers = || live.values().filter_map(|f| f.header);
    let seals: BTreeMap<u32, usize> = headers().map(|h| (h.before, h.before_end as usize)).collect();
    let mut replay = Replay::default();
    for (at, (generation, found)) in live.iter().enumerate() {
        let gone = found.header.filter(|h| h.before >= out.oldest && h.before != 0 && !live.contains_key(&h.before));
        if gone.is_some() {
            replay.rot(dir, 0, "the segment before this one is gone", false);
        }
        let content = content_of(disk, found)?;
        let walk = found.blocks.walk(seals.get(generation).copied());
        if walk.torn {
            tracing::info!(file = %found.path.display(), offset = walk.end * BLOCK_BYTES, "a torn round was cut off");
        }
        for step in &walk.steps {
            replay_step(&mut replay, *generation, found, &content, *step, at == 0);
        }
        out.next_round = out.next_round.max(walk.last_round.map_or(0, |r| r + 1));
        (out.before, out.before_end) = (*generation, walk.end as u32);
    }
    let replayed = replay.finish(dir);
    out.groups = replayed.groups;
    out.damage = replayed.damage;
    if let Some(d) = out.damage.iter().find(|d| d.others_too) {
        let others = out.groups.entry(OTHERS).or_insert_with(|| (GroupState::default(), GroupIndex::default(), None));
        others.0.damage = Some(DamageMark::of(d));
        others.2 = Some(d.clone());
    }
    Ok(())
}

fn replay_step(replay: &mut Replay, generation: u32, found: &Found, content: &[u8], step: Step, first: bool) {
    let span = match step {
        Step::Lost(from, _) => {
            replay.rot(&found.path, (from * BLOCK_BYTES) as u64, "a round is rotten or gone", from == 0 && !first);
            return;
        }
        Step::Round(span) => span,
    };
    found.blocks.stretches(span, content, |part| match part {
        Part::Whole(stretch) => {
            if let (_, Some(offset)) = replay.stretch(generation, stretch) {
                replay.rot(&found.path, u64::from(offset), "a record makes no sense", false);
            }
        }
        Part::Rotten(block) => {
            let repeats = span.start == 0 && !first;
            replay.rot(&found.path, (block * BLOCK_BYTES) as u64, "a block is not what was written", repeats);
        }
    });
    if span.start == 0 && span.rotten.is_none() {
        replay.census();
    }
}
