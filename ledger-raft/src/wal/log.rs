//! The log of a node, as its owner sees it.
//!
//! **Owns** opening and closing. **Must never** write: that is [`super::writer`]'s.
//!
//! **Read next**: [`super::recover`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::error::{Damage, WalError};
use super::group::{GroupLog, GroupMem, MemState};
use super::limits::{
    CARRY_GAIN, CARRY_SURPLUS_SEGMENTS, ENTRY_BYTES_CEILING, SECTOR_BYTES, SEGMENT_BYTES_CEILING, SEGMENT_BYTES_MIN,
    SPARES_RESERVED,
};
use super::recover::{OTHERS, Recovered, recover};
use super::segment::{make_spare, path_of};
use super::shared::Shared;
use super::shell::Shell;
use super::writer::{Booked, Start, Writer};
use crate::api::{GroupId, NodeId};
use crate::seam::Disk;

/// Whose log it is; stamped into every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalIdentity {
    /// The cluster's random id.
    pub cluster: [u8; 16],
    /// The cluster's incarnation.
    pub incarnation: u64,
    /// The node.
    pub node: NodeId,
}

/// The record of the newest segment that was begun. It lies outside of the log's directory, so that
/// it outlives it.
pub trait SegmentsBegun: Send + Sync {
    /// The newest segment recorded; 0: none.
    fn newest(&self) -> u32;
    /// Why a log whose newest segment is `found` (0: there is none) cannot be all that was written;
    /// none: it can.
    ///
    /// # Errors
    /// The disk's.
    fn loss(&self, found: u32) -> io::Result<Option<String>>;
    /// A start has begun this segment, which says what was lost. From now on the log is complete
    /// from here on, at this place.
    ///
    /// # Errors
    /// The disk's: the start fails.
    fn started(&self, generation: u32) -> io::Result<()>;
    /// This segment was begun, and nothing was written to it yet but its header; durable on return.
    ///
    /// # Errors
    /// The disk's: the log is poisoned.
    fn begun(&self, generation: u32) -> io::Result<()>;
}

/// No record: of logs in tests, and of those that are only read.
struct Unrecorded;

impl SegmentsBegun for Unrecorded {
    fn newest(&self) -> u32 {
        0
    }
    fn loss(&self, _: u32) -> io::Result<Option<String>> {
        Ok(None)
    }
    fn started(&self, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn begun(&self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

/// The log's numbers.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// Size of new segments, a multiple of 4 KiB from 32 KiB to 2 GiB; existing ones keep theirs.
    pub segment_bytes: u64,
    /// Spare segments kept ready, at least three; two of them are reserved for votes and starts.
    pub spare_segments: usize,
    /// Below this many free bytes on the disk appends are withheld.
    pub low_space_bytes: u64,
    /// Bytes of newest entries each group keeps in memory.
    pub tail_cache_bytes: usize,
    /// Largest entry (head and payload); never more than a quarter of a segment.
    pub entry_bytes_max: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_segments: SPARE_SEGMENTS,
            low_space_bytes: 512 << 20,
            tail_cache_bytes: 64 << 20,
            entry_bytes_max: 8 << 20,
        }
    }
}

impl WalConfig {
    fn checked(mut self) -> Result<Self, WalError> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_CEILING).contains(&bytes) || !bytes.is_multiple_of(SECTOR_BYTES as u64) {
            let why = format!(
                "segment_bytes is {bytes}; it must be a multiple of {SECTOR_BYTES} from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_CEILING}"
            );
            return Err(WalError::Config { why });
        }
        let quarter = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
        self.entry_bytes_max = self.entry_bytes_max.min(ENTRY_BYTES_CEILING).min(quarter);
        Ok(self)
    }
}

/// The log's size.
///
/// At rest `bytes` is at most [`WalUsage::bytes_max`] of `live_bytes`; while entries are carried forward it may be more by what is
/// written meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalUsage {
    /// Bytes of all segment files, spares included.
    pub bytes: u64,
    /// Bytes of the records of live entries: those not purged, truncated or replaced.
    pub live_bytes: u64,
    /// Bytes of live entries carried forward since the start, so that old segments could go.
    pub carried_bytes: u64,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// The group with a live entry in the oldest segment; none when all live entries are in the newest.
    pub pinning: Option<GroupId>,
}

/// Segments a log has at rest beside those of what is live: the one that is written, the spares, two that are not worth carrying, and one
/// that is on its way from one of these to another.
const SEGMENTS_AT_REST: u64 = SPARE_SEGMENTS as u64 + CARRY_SURPLUS_SEGMENTS + 2;
/// Spares kept ready by default.
const SPARE_SEGMENTS: usize = SPARES_RESERVED + 1;

impl WalUsage {
    /// The most bytes the log has at rest, with the default number of spares: twice what is live, and seven segments.
    pub fn bytes_max(&self) -> u64 {
        CARRY_GAIN * self.live_bytes + SEGMENTS_AT_REST * self.segment_bytes
    }
}

/// The log. A cheap handle; the last one to go (of it and of its groups) closes it.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

/// What all handles share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: WalConfig,
    pub(crate) dir: PathBuf,
    groups: Mutex<BTreeMap<GroupId, Arc<GroupMem>>>,
    damage: Vec<Damage>,
    /// Damage that may have hit groups never heard of.
    others: Mutex<Option<Damage>>,
}

impl Inner {
    fn others(&self) -> std::sync::MutexGuard<'_, Option<Damage>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Wal {
    /// Opens or creates the log in `dir`, checking every block.
    ///
    /// # Errors
    /// [`WalError`]: damage is not an error, see [`Wal::damage`].
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        identity: WalIdentity,
        config: WalConfig,
    ) -> Result<Wal, WalError> {
        Self::open_recorded(disk, dir, identity, config, Arc::new(Unrecorded)).await
    }

    /// Opens or creates the log in `dir`, and holds it against the record of what was begun there.
    /// A log that cannot be all of that is damage of every group.
    ///
    /// # Errors
    /// [`WalError`]: damage is not an error, see [`Wal::damage`].
    pub async fn open_recorded(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        identity: WalIdentity,
        config: WalConfig,
        record: Arc<dyn SegmentsBegun>,
    ) -> Result<Wal, WalError> {
        let config = config.checked()?;
        let (shell, inner) = if disk.inline() {
            prepare(disk, dir, identity, config, record)?
        } else {
            let opened = tokio::task::spawn_blocking(move || prepare(disk, dir, identity, config, record)).await;
            opened.map_err(|e| WalError::io("open", std::io::Error::other(e)))??
        };
        shell.start().map_err(|e| WalError::io("start the writer", e))?;
        Ok(Wal { inner: Arc::new(inner) })
    }

    /// A group's log; made empty if there was none.
    pub fn group(&self, group: GroupId) -> GroupLog {
        assert_ne!(group, OTHERS, "this group id is reserved");
        let mut groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mem = groups.entry(group).or_insert_with(|| {
            let damage = self.inner.others().clone();
            GroupMem::new(group, MemState { damage, ..MemState::default() })
        });
        GroupLog { log: self.inner.clone(), mem: mem.clone() }
    }

    /// Groups that have anything in the log, or were asked for.
    pub fn groups(&self) -> Vec<GroupId> {
        let groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.keys().copied().filter(|g| *g != OTHERS).collect()
    }

    /// Groups never heard of are whole from now on: every group that damage may have hit is known
    /// and repaired.
    ///
    /// # Errors
    /// Poisoned or closed.
    pub async fn clear_others(&self) -> io::Result<()> {
        if self.inner.others().is_none() {
            return Ok(());
        }
        let mem = {
            let mut groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.entry(OTHERS).or_insert_with(|| GroupMem::new(OTHERS, MemState::default())).clone()
        };
        GroupLog { log: self.inner.clone(), mem }.clear_damage().await?;
        *self.inner.others() = None;
        Ok(())
    }

    /// What was found rotten when the log was opened.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.damage.clone()
    }

    /// Rounds made durable since start.
    pub fn syncs(&self) -> u64 {
        self.inner.shared.syncs.load(Ordering::Relaxed)
    }

    /// How large the log is, and how much of it is live.
    pub fn usage(&self) -> WalUsage {
        let newest = self.inner.shared.files().last_key_value().map(|(generation, _)| *generation);
        let groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut live_bytes, mut oldest) = (0, None);
        for (id, mem) in groups.iter() {
            let state = mem.lock();
            live_bytes += state.index.bytes();
            let held = state.index.oldest_generation().map(|generation| (generation, *id));
            oldest = oldest.into_iter().chain(held).min();
        }
        WalUsage {
            bytes: self.inner.shared.file_bytes.load(Ordering::Relaxed),
            live_bytes,
            carried_bytes: self.inner.shared.carried_bytes.load(Ordering::Relaxed),
            segment_bytes: self.inner.config.segment_bytes,
            pinning: oldest.filter(|(generation, _)| Some(*generation) < newest).map(|(_, group)| group),
        }
    }

    /// Whether appends are withheld because the disk is nearly full; leaders then answer *not now*.
    pub fn low_space(&self) -> watch::Receiver<bool> {
        self.inner.shared.low.subscribe()
    }

    /// Becomes the reason once the log is poisoned: the process must stop.
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.inner.shared.poison.subscribe()
    }

    /// Largest entry this log takes (head and payload).
    pub fn entry_bytes_max(&self) -> usize {
        self.inner.config.entry_bytes_max
    }

    /// Writes what waits, then closes; later calls fail. Returns once the directory is free again.
    pub async fn close(&self) {
        let mut ended = self.inner.shared.ended.subscribe();
        self.inner.shared.close();
        // Its sender lives in `shared`, which we hold: waiting cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

fn prepare(
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: WalIdentity,
    config: WalConfig,
    record: Arc<dyn SegmentsBegun>,
) -> Result<(Shell, Inner), WalError> {
    disk.create_dir_all(&dir).map_err(|e| WalError::io(format!("create {}", dir.display()), e))?;
    let lock = disk.lock_dir(&dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => WalError::Locked { dir: dir.clone() },
        _ => WalError::io(format!("lock {}", dir.display()), e),
    })?;
    let mut found = recover(disk.as_ref(), &dir, identity, config.segment_bytes)?;
    let loss = record.loss(found.newest).map_err(|e| WalError::io("compare the record of segments", e))?;
    if let Some(why) = loss.or_else(|| found.cut.take()) {
        found.lose_all(&dir, &why);
    }
    // The files that show it may be given back before all groups are repaired.
    let lost = !found.damage.is_empty();
    found.next_generation = found.next_generation.max(record.newest().saturating_add(1));
    for damage in &found.damage {
        tracing::error!(%damage, "the log is damaged");
    }
    let first = match found.spares.pop() {
        Some(first) => first,
        None => {
            let path = path_of(&dir, found.next_slot);
            found.next_slot += 1;
            make_spare(disk.as_ref(), &dir, &path, config.segment_bytes).map_err(|e| {
                let (bytes, free) = (config.segment_bytes, disk.free_bytes(&dir).unwrap_or(0));
                let what = format!("begin a log segment of {bytes} bytes in {}, where {free} are free", dir.display());
                WalError::io(what, e)
            })?
        }
    };
    let (book, groups, others) = take_groups(&mut found);
    let start = Start {
        live: found.live,
        spares: found.spares,
        book,
        next_generation: found.next_generation,
        next_round: found.next_round,
        before: found.before,
        before_end: found.before_end,
        oldest: found.oldest,
        next_slot: found.next_slot,
        superseded: found.superseded,
        lost,
        record,
    };
    let (writer, shared) = Writer::begin(disk.clone(), dir.clone(), identity, config.clone(), start, first)?;
    let inner = Inner {
        shared: shared.clone(),
        config,
        dir: dir.clone(),
        groups: Mutex::new(groups),
        damage: found.damage,
        others: Mutex::new(others),
    };
    Ok((Shell { writer, shared, disk, dir, lock, allocation: None }, inner))
}

type Groups = (BTreeMap<GroupId, Booked>, BTreeMap<GroupId, Arc<GroupMem>>, Option<Damage>);

fn take_groups(found: &mut Recovered) -> Groups {
    let (mut book, mut groups, mut others) = (BTreeMap::new(), BTreeMap::new(), None);
    for (id, (state, index, damage)) in std::mem::take(&mut found.groups) {
        if id == OTHERS {
            others = damage.clone();
        }
        let mem = GroupMem::new(
            id,
            MemState {
                purged: state.purged.clone(),
                last: index.last(),
                vote: state.vote.clone(),
                committed: state.committed.clone(),
                acknowledged: state.acknowledged.clone(),
                damage,
                index,
                ..MemState::default()
            },
        );
        groups.insert(id, mem.clone());
        book.insert(id, Booked { state, mem });
    }
    (book, groups, others)
}
