//! The one writer of a node's log: a state machine that is polled.
//!
//! **What it is.** [`Writer::submit`] takes operations, [`Writer::poll`] writes and syncs one round of them and hands back
//! what to tell whom. It has no clock, no thread and no task; [`super::shell`] gives it those.
//!
//! **Owns** the rounds, the life of segments, and the decision to withhold appends. **Must never**
//! retry a failed write or sync, write a block of one generation twice, begin a file whose death is
//! not durable yet, or write more than the header to a segment that is not recorded as begun.
//!
//! **Read next**: [`super::waiting`], [`super::round`], [`super::shell`].

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::carry::Carry;
use super::error::WalError;
use super::frame::{FORMAT_VERSION, Kind, RECORD_BYTES, RecordHeader, SegmentHeader, put_number};
use super::group::GroupMem;
use super::limits::{BLOCK_BYTES, IDLE_MARKER, ROUND_BYTES_SOFT, SPARES_RESERVED};
use super::log::{SegmentsBegun, WalConfig, WalIdentity};
use super::outcome::{Outcome, Told};
use super::round::Round;
use super::segment::{DamageMark, GroupState, SegmentFile};
use super::shared::{Op, Shared};
use super::waiting::Waiting;
use crate::api::GroupId;
use crate::seam::Disk;

mod space;

/// What the writer knows of a group, as of the last record encoded.
pub(crate) struct Booked {
    pub(crate) state: GroupState,
    pub(crate) mem: Arc<GroupMem>,
}

/// Where the writer begins.
pub(crate) struct Start {
    pub(crate) live: BTreeMap<u32, SegmentFile>,
    pub(crate) spares: Vec<SegmentFile>,
    pub(crate) book: BTreeMap<GroupId, Booked>,
    pub(crate) next_generation: u32,
    pub(crate) next_round: u64,
    pub(crate) before: u32,
    pub(crate) before_end: u32,
    pub(crate) oldest: u32,
    pub(crate) next_slot: u32,
    /// Files that stand for nothing once the segment is begun: they become spares.
    pub(crate) superseded: Vec<SegmentFile>,
    /// The start has found damage, and no record in the segments that stay says so yet.
    pub(crate) lost: bool,
    pub(crate) record: Arc<dyn SegmentsBegun>,
}

/// The segment being written.
pub(super) struct Active {
    segment: SegmentFile,
    pub(super) generation: u32,
    pub(super) next_block: u32,
    blocks: u32,
}

/// The writer.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    identity: WalIdentity,
    pub(super) config: WalConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) active: Active,
    /// Older segments with live entries, by generation.
    pub(super) sealed: BTreeMap<u32, SegmentFile>,
    pub(super) spares: Vec<SegmentFile>,
    pub(super) book: BTreeMap<GroupId, Booked>,
    next_generation: u32,
    next_round: u64,
    next_slot: u32,
    /// Segments below are dead, durably.
    oldest: u32,
    /// A purge, truncation or reset may have killed more.
    pub(super) recount: bool,
    waiting: Waiting,
    lazy: Vec<Arc<GroupMem>>,
    /// Something in `lazy` may have to be written soon.
    hurried: bool,
    pub(super) round: Round,
    riding: Vec<Told>,
    pub(super) carry: Carry,
    /// Bytes free on the disk are below the mark.
    low: bool,
    /// An append needs a segment and there is none for it.
    starved: bool,
    /// A vote needs a segment and there is none at all.
    stuck: bool,
    free: u64,
    space_due: Duration,
    allocating: bool,
    allocate_not_before: Duration,
    /// When the last round was written that no later one proves.
    unproved_since: Option<Duration>,
    poisoned: Option<String>,
    record: Arc<dyn SegmentsBegun>,
}

/// How an attempt to encode ended.
#[derive(PartialEq, Eq)]
enum Encoded {
    Whole,
    /// The round is as long as it should be.
    RoundFull,
    /// The segment has no room for it.
    SegmentFull,
}

impl Writer {
    /// Begins a segment in `first`: nothing found at the start is ever written over.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        identity: WalIdentity,
        config: WalConfig,
        start: Start,
        first: SegmentFile,
    ) -> Result<(Self, Arc<Shared>), WalError> {
        let shared = Shared::new(BTreeMap::new());
        let blocks = (first.bytes / BLOCK_BYTES as u64) as u32;
        let mut writer = Self {
            disk,
            dir,
            identity,
            config,
            shared: shared.clone(),
            active: Active { segment: first, generation: start.next_generation, next_block: 0, blocks },
            sealed: start.live,
            spares: start.spares,
            book: start.book,
            next_generation: start.next_generation + 1,
            next_round: start.next_round,
            next_slot: start.next_slot,
            oldest: start.oldest,
            recount: true,
            waiting: Waiting::default(),
            lazy: Vec::new(),
            hurried: false,
            round: Round::new(),
            riding: Vec::new(),
            carry: Carry::new(),
            low: false,
            starved: false,
            stuck: false,
            free: 0,
            space_due: Duration::ZERO,
            allocating: false,
            allocate_not_before: Duration::ZERO,
            unproved_since: None,
            poisoned: None,
            record: start.record,
        };
        let path = writer.active.segment.path.clone();
        writer
            .write_header(start.before, start.before_end)
            .map_err(|e| WalError::io(format!("begin segment {}", path.display()), e))?;
        if start.lost {
            writer.record_lost().map_err(|e| WalError::io(format!("record a loss in {}", path.display()), e))?;
        }
        let generation = writer.active.generation;
        writer.record.started(generation).map_err(|e| WalError::io(format!("record segment {generation}"), e))?;
        // Not before: until then these files alone say that all before them was begun.
        writer.spares.extend(start.superseded);
        writer.publish_files();
        writer.check_space(Duration::ZERO);
        writer
            .release_dead()
            .map_err(|e| WalError::io(format!("give back dead segments of {}", writer.dir.display()), e))?;
        Ok((writer, shared))
    }

    /// Takes operations in order.
    pub(crate) fn submit(&mut self, ops: &mut Vec<Op>, lazy: &mut Vec<Arc<GroupMem>>) {
        self.waiting.pending.extend(ops.drain(..));
        self.lazy.append(lazy);
    }

    /// What members acknowledged waits among the lazy, and has to be written soon.
    pub(crate) fn hurry(&mut self, hurried: bool) {
        self.hurried |= hurried;
    }

    /// Whether no marker is due: nothing is written until something else is.
    pub(crate) fn rests(&self) -> bool {
        self.unproved_since.is_none()
    }

    /// Whether polling again would do something now.
    pub(crate) fn has_work(&self) -> bool {
        self.poisoned.is_none()
            && !self.stuck
            && (self.waiting.has_next() || self.resumable() || self.recount || self.may_carry())
    }

    /// When to poll although nothing was submitted.
    pub(crate) fn wake_in(&self, now: Duration) -> Option<Duration> {
        if self.poisoned.is_some() {
            return None;
        }
        if self.low || self.starved || self.stuck {
            return Some(self.space_due.saturating_sub(now).max(Duration::from_millis(1)));
        }
        let idle = self.unproved_since.map(|since| (since + IDLE_MARKER).saturating_sub(now));
        // Others fill the disk of a quiet log, too.
        let space = Some(self.space_due.saturating_sub(now));
        let next = idle.into_iter().chain(self.carry.wake_in(now)).chain(space).min();
        next.map(|d| d.max(Duration::from_millis(1)))
    }

    fn resumable(&self) -> bool {
        self.waiting.is_withholding() && !self.low && !self.starved
    }

    /// Writes and syncs one round of what waits. Never blocks for anything but the disk.
    pub(crate) fn poll(&mut self, now: Duration) -> Outcome {
        if let Some(why) = self.poisoned.clone() {
            return self.fail(&why);
        }
        self.check_space(now);
        if self.resumable() {
            self.waiting.resume();
        }
        match self.poll_round(now) {
            Ok(synced) => Outcome { told: mem::take(&mut self.riding), failed: None, synced },
            Err(e) => {
                let why = format!("{}: {e}", self.active.segment.path.display());
                self.poisoned = Some(why.clone());
                self.fail(&why)
            }
        }
    }

    fn poll_round(&mut self, now: Duration) -> io::Result<bool> {
        self.round.clear();
        if mem::take(&mut self.hurried) && self.rests() && self.lazy.iter().any(|mem| mem.lock().lazy.acknowledged) {
            // The next marker brings it: what is heard together is written together.
            self.unproved_since = Some(now);
        }
        let mut rolled = self.announce_oldest()?;
        loop {
            match self.fill() {
                Encoded::SegmentFull if self.round.is_empty() && !rolled => {
                    rolled = self.roll()?;
                    if !rolled && self.stuck {
                        break;
                    }
                }
                Encoded::SegmentFull if self.round.is_empty() && rolled => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "an empty segment has no room for one record",
                    ));
                }
                _ => break,
            }
        }
        if self.round.is_empty() && !rolled && !self.stuck && self.carry_needs_segment() {
            rolled = self.roll()?;
        }
        self.fill_carried();
        if self.round.is_empty() {
            if self.unproved_since.is_some_and(|since| now >= since + IDLE_MARKER) {
                self.mark();
            }
            if self.round.is_empty() {
                return Ok(rolled);
            }
        } else {
            self.take_lazy();
            self.unproved_since = Some(now);
        }
        self.write_round()?;
        self.carried_are_durable();
        for told in &self.riding {
            if let Told::Append { mem, op, .. } = told {
                mem.lock().written(*op, self.config.tail_cache_bytes);
            }
        }
        self.release_dead()?;
        Ok(true)
    }

    /// Encodes as much as fits. Appends are put aside while they are withheld.
    fn fill(&mut self) -> Encoded {
        while let Some((op, vouched)) = self.waiting.next() {
            match op {
                // A leader's first entry, without which it can confirm no read. It is small and takes no new segment.
                Op::Append { ref mem, ref entries, next, .. }
                    if !vouched && self.is_short() && entries[next..].iter().all(|entry| entry.data.is_empty()) =>
                {
                    if self.waiting.withholds(mem.id) {
                        self.waiting.vouch(op);
                    } else if let Some(full) = self.fill_append(op, vouched) {
                        return full;
                    }
                }
                Op::Append { .. } if !vouched && (self.is_short() || self.waiting.is_behind()) => {
                    self.waiting.withhold(op, false);
                }
                Op::Append { .. } if vouched && self.spares.is_empty() && !self.may_begin_segment(true) => {
                    self.step_aside(op, true);
                }
                append @ Op::Append { .. } => {
                    if let Some(full) = self.fill_append(append, vouched) {
                        return full;
                    }
                }
                Op::Small { ref mem, kind: Kind::Vote, .. } if !vouched && self.waiting.withholds(mem.id) => {
                    self.waiting.vouch(op);
                }
                Op::Small { mem, kind, index, body, done } => {
                    if !self.fits(RECORD_BYTES + body.len()) {
                        self.waiting.put_back(Op::Small { mem, kind, index, body, done }, vouched);
                        return Encoded::SegmentFull;
                    }
                    self.waiting.prune(&mem, kind, index, &mut self.riding);
                    self.encode_small(&mem, kind, index, body);
                    self.riding.extend(done.map(Told::Small));
                }
            }
        }
        Encoded::Whole
    }

    /// Encodes an append; says what is full where the rest of it has to wait for another round.
    fn fill_append(&mut self, append: Op, vouched: bool) -> Option<Encoded> {
        let Op::Append { mem, entries, mut next, op, done } = append else { return None };
        let ended = self.encode_entries(&mem, &entries, &mut next);
        if ended == Encoded::Whole {
            self.riding.push(Told::Append { mem, op, done });
            return None;
        }
        let rest = Op::Append { mem, entries, next, op, done };
        if ended == Encoded::SegmentFull && self.round.is_empty() && !self.may_begin_segment(vouched) {
            self.step_aside(rest, vouched);
            return None;
        }
        self.waiting.put_back(rest, vouched);
        Some(ended)
    }

    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.round.blocks_with(bytes) <= (self.active.blocks - self.active.next_block) as usize
    }

    /// Bytes of the segment that are not written yet.
    pub(super) fn room_bytes(&self) -> u64 {
        u64::from(self.active.blocks - self.active.next_block) * BLOCK_BYTES as u64
    }

    /// Whether a round of its own would have room.
    pub(super) fn fits_alone(&self, bytes: usize) -> bool {
        Round::blocks_of(bytes) <= (self.active.blocks - self.active.next_block) as usize
    }

    pub(super) fn booked(&mut self, mem: &Arc<GroupMem>) -> &mut Booked {
        self.book.entry(mem.id).or_insert_with(|| Booked { state: GroupState::default(), mem: mem.clone() })
    }

    /// The last spare is for votes: an append without room waits, so that they can pass.
    fn step_aside(&mut self, append: Op, vouched: bool) {
        self.starved = true;
        self.waiting.withhold(append, vouched);
        self.publish_low();
    }

    fn encode_entries(&mut self, mem: &Arc<GroupMem>, entries: &[super::WalEntry], next: &mut usize) -> Encoded {
        let generation = self.active.generation;
        let base = self.active.next_block * BLOCK_BYTES as u32;
        let mut seq = self.booked(mem).state.seq;
        let mut state = mem.lock();
        let mut ended = Encoded::Whole;
        for entry in entries.iter().skip(*next) {
            if self.round.payload_bytes() >= ROUND_BYTES_SOFT {
                ended = Encoded::RoundFull;
                break;
            }
            if !self.fits(RECORD_BYTES + entry.bytes()) {
                ended = Encoded::SegmentFull;
                break;
            }
            seq += 1;
            let header = RecordHeader {
                kind: Kind::Entry,
                head_len: entry.head.len() as u16,
                group: mem.id.0,
                body_len: entry.data.len() as u32,
                seq,
                index: entry.index,
            };
            let offset = self.round.push(&header, &entry.head, &entry.data);
            state.index.push((generation, base + offset), entry.index, header.total() as u32);
            *next += 1;
        }
        drop(state);
        self.booked(mem).state.seq = seq;
        ended
    }

    pub(super) fn encode_small(&mut self, mem: &Arc<GroupMem>, kind: Kind, index: u64, body: Bytes) {
        let booked = self.booked(mem);
        let state = &mut booked.state;
        state.seq += 1;
        let seq = state.seq;
        let body_kept = body.clone();
        match kind {
            Kind::Vote => state.vote = Some(body_kept),
            Kind::Committed => state.committed = Some(body_kept),
            Kind::Acknowledged => state.acknowledged = Some(body_kept),
            Kind::Damaged => state.damage = Some(DamageMark::recorded(&body_kept)),
            Kind::Truncate => mem.lock().index.truncate_from(index),
            Kind::Purge => {
                mem.lock().index.purge(index);
                state.purged = Some((index, body_kept));
            }
            Kind::Reset => {
                mem.lock().index.clear();
                state.purged = None;
                state.committed = None;
                state.acknowledged = None;
                state.damage = Some(DamageMark::emptied());
            }
            Kind::Clear => state.damage = None,
            Kind::Entry | Kind::Segment | Kind::Checkpoint | Kind::Marker | Kind::Oldest | Kind::Carried => {}
        }
        self.recount |= matches!(kind, Kind::Truncate | Kind::Purge | Kind::Reset);
        let header = RecordHeader { kind, head_len: 0, group: mem.id.0, body_len: body.len() as u32, seq, index };
        self.round.push(&header, &[], &body);
    }

    fn take_lazy(&mut self) {
        while let Some(mem) = self.lazy.pop() {
            let (lazy, committed, acknowledged) = {
                let mut m = mem.lock();
                let lazy = mem::take(&mut m.lazy);
                let committed = m.committed.clone().filter(|_| lazy.committed);
                (lazy, committed, m.acknowledged.clone().filter(|_| lazy.acknowledged))
            };
            let of = |blob: &Option<Bytes>| blob.as_ref().map_or(0, |bytes| RECORD_BYTES + bytes.len());
            if !self.fits(of(&committed) + of(&acknowledged)) {
                mem.lock().lazy = lazy;
                self.lazy.push(mem);
                return;
            }
            let blobs = [(Kind::Committed, committed), (Kind::Acknowledged, acknowledged)];
            for (kind, blob) in blobs {
                blob.into_iter().for_each(|blob| self.encode_small(&mem, kind, 0, blob));
            }
        }
    }

    /// A round of its own that only says how far everybody is: it proves the rounds before it.
    fn mark(&mut self) {
        // What members acknowledged last was heard after the last round.
        self.take_lazy();
        let mut body = Vec::with_capacity(self.book.len() * 12);
        for (group, booked) in &self.book {
            body.extend_from_slice(&group.0.to_le_bytes());
            body.extend_from_slice(&booked.state.seq.to_le_bytes());
        }
        self.unproved_since = None;
        if self.fits(RECORD_BYTES + body.len()) {
            self.push_own(Kind::Marker, 0, 0, &body);
        }
    }

    fn push_own(&mut self, kind: Kind, group: u32, index: u64, body: &[u8]) {
        let header = RecordHeader { kind, head_len: 0, group, body_len: body.len() as u32, seq: 0, index };
        self.round.push(&header, &[], body);
    }

    /// Says which segments are dead, once a purge has killed some. Answers whether it began a segment for that.
    fn announce_oldest(&mut self) -> io::Result<bool> {
        if !mem::take(&mut self.recount) {
            return Ok(false);
        }
        self.carry.due = true;
        let oldest = self.oldest_needed();
        if oldest <= self.oldest || self.sealed.range(..oldest).next().is_none() {
            return Ok(false);
        }
        if self.fits(RECORD_BYTES) {
            self.push_own(Kind::Oldest, 0, u64::from(oldest), &[]);
            return Ok(false);
        }
        // The segment is full. The header of the next one says so, and it may be long before
        // something else needs a segment.
        Ok(self.may_begin_for_carry() && self.roll()?)
    }

    pub(super) fn oldest_needed(&self) -> u32 {
        let needed = self.book.values().filter_map(|b| b.mem.lock().index.oldest_generation()).min();
        needed.unwrap_or(self.active.generation).min(self.active.generation)
    }

    pub(super) fn write_round(&mut self) -> io::Result<()> {
        let oldest = self.announced();
        let bytes = self.round.finish(self.active.generation, self.next_round, self.active.next_block);
        let blocks = (bytes.len() / BLOCK_BYTES) as u32;
        let file = &self.active.segment.file;
        file.write_at(u64::from(self.active.next_block) * BLOCK_BYTES as u64, bytes)?;
        if !crate::bad!("ack-before-sync") {
            file.sync()?;
        }
        self.active.next_block += blocks;
        self.next_round += 1;
        self.oldest = self.oldest.max(oldest);
        self.shared.synced();
        Ok(())
    }

    fn announced(&self) -> u32 {
        self.round.oldest().unwrap_or(self.oldest)
    }

    /// Begins the next segment, if a spare may be taken for it.
    fn roll(&mut self) -> io::Result<bool> {
        let Some(spare) = self.spares.pop() else {
            self.stuck = true;
            self.publish_low();
            return Ok(false);
        };
        let blocks = (spare.bytes / BLOCK_BYTES as u64) as u32;
        let next = Active { segment: spare, generation: self.next_generation, next_block: 0, blocks };
        let before = mem::replace(&mut self.active, next);
        self.next_generation += 1;
        self.carry.due = true;
        self.sealed.insert(before.generation, before.segment);
        self.write_header(before.generation, before.next_block)?;
        self.record.begun(self.active.generation)?;
        self.release_dead()?;
        self.publish_files();
        Ok(true)
    }

    /// The first round of a segment: whose it is, and everything but the entries.
    fn write_header(&mut self, before: u32, before_end: u32) -> io::Result<()> {
        self.round.clear();
        let oldest = self.oldest_needed().max(self.oldest);
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            cluster: self.identity.cluster,
            incarnation: self.identity.incarnation,
            node: self.identity.node.0,
            before,
            before_end,
            oldest,
            bytes: self.active.segment.bytes,
        };
        self.push_own(Kind::Segment, 0, u64::from(self.active.generation), &header.encode());
        for (group, booked) in &self.book {
            let mut body = Vec::with_capacity(160);
            let state = {
                let m = booked.mem.lock();
                put_number(&mut body, m.index.first());
                GroupState { last: m.index.last(), ..booked.state.clone() }
            };
            body.extend_from_slice(&state.encode());
            if !self.round.fits_in(RECORD_BYTES + body.len(), self.active.blocks as usize) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the segment is too small for the state of all groups: configure larger segments",
                ));
            }
            let record = RecordHeader {
                kind: Kind::Checkpoint,
                head_len: 0,
                group: group.0,
                body_len: body.len() as u32,
                seq: state.seq,
                index: 0,
            };
            self.round.push(&record, &[], &body);
        }
        self.write_round()?;
        self.oldest = oldest;
        Ok(())
    }

    /// Files whose death is durable become spares; too many of them give their space back.
    fn release_dead(&mut self) -> io::Result<()> {
        let alive = self.sealed.split_off(&self.oldest);
        let dead = mem::replace(&mut self.sealed, alive);
        if dead.is_empty() {
            return Ok(());
        }
        self.spares.extend(dead.into_values().filter(|s| s.bytes == self.config.segment_bytes));
        let keep = if self.low { SPARES_RESERVED } else { self.spares_wanted() };
        let mut removed = false;
        while self.spares.len() > keep {
            let Some(spare) = self.spares.pop() else { break };
            match self.disk.remove(&spare.path) {
                Ok(()) => removed = true,
                Err(e) => tracing::warn!(file = %spare.path.display(), error = %e, "a dead segment cannot be removed"),
            }
        }
        if removed {
            self.disk.sync_dir(&self.dir)?;
        }
        self.publish_files();
        self.fed();
        Ok(())
    }

    fn publish_files(&self) {
        let mut files: super::reader::Files = self.sealed.iter().map(|(g, s)| (*g, s.file.clone())).collect();
        files.insert(self.active.generation, self.active.segment.file.clone());
        self.shared.set_files(files);
        self.publish_size();
    }

    fn publish_size(&self) {
        let segments = self.sealed.values().chain(&self.spares).chain([&self.active.segment]);
        self.shared.file_bytes.store(segments.map(|s| s.bytes).sum(), Ordering::Relaxed);
    }

    /// The last round before the end.
    pub(crate) fn finish(&mut self) -> Outcome {
        if self.poisoned.is_some() {
            return Outcome::default();
        }
        self.round.clear();
        self.mark();
        if !self.round.is_empty()
            && let Err(e) = self.write_round()
        {
            tracing::error!(error = %e, "the log's last marker was not written");
        }
        let mut told = Vec::new();
        told.extend(self.waiting.take_all().filter_map(Op::into_told));
        let failed = (!told.is_empty()).then(|| "closed while appends were withheld for want of space".to_owned());
        Outcome { told, failed, synced: true }
    }

    /// Whether the disk has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    fn fail(&mut self, why: &str) -> Outcome {
        let mut told = mem::take(&mut self.riding);
        let queued = self.shared.poison(why);
        told.extend(self.waiting.take_all().chain(queued).filter_map(Op::into_told));
        Outcome { told, failed: Some(why.to_owned()), synced: false }
    }
}
